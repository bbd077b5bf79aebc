/** What is counted beside the work: pulls, refusals, and when a token was last used. No request waits for it. */
import type { Clock, Counter, Database, Denial } from '../ports.ts'

/** Counts are written together, at most this often. */
const FLUSH_MS = 5000
/** A token's last use is written at most this often (R57). */
const TOKEN_USE_MS = 3_600_000
/** Tokens remembered as noted, where forgetting one costs a write; and askers with what they pulled. */
const REMEMBERED = 10_000

/** Counters of API calls whose count is known without asking (R58). */
const KNOWN = 100_000

const MINUTE_MS = 60_000
/** Addresses of strangers that refusals are told apart by in a minute, and places of users (R57). */
const TOLD_APART = 1000

export const DAY_MS = 24 * 3_600_000
export const WEEK_MS = 7 * DAY_MS
/** The first Monday, 00:00 UTC, after the day that times are counted from, a Thursday. */
const MONDAY_MS = 4 * DAY_MS

/** The day or week (`length` in ms) that `now` is in: its first moment, and seconds until it ends. */
export function windowOf(now: Date, length: number): { begin: Date; resetSeconds: number } {
  const at = now.getTime()
  const since = (at - MONDAY_MS) % length
  return { begin: new Date(at - since), resetSeconds: Math.ceil((length - since) / 1000) }
}

export type Tallies = ReturnType<typeof createTallies>

/**
 * Counts in memory. The methods return the writing that has become due, to be done after the
 * answer; `everyMs` is how often that is at most.
 */
export function createTallies({
  database,
  clock,
  everyMs = FLUSH_MS,
}: {
  database: Database
  clock: Clock
  everyMs?: number | undefined
}) {
  let pulls = new Map<string, number>()
  let used = new Set<string>()
  const notedAt = new Map<string, number>()
  const pulledAt = new Map<string, number>()
  let calls = new Map<string, Counter>()
  /** How often each was called in the window of that beginning, as far as is known here. */
  let known = new Map<string, { begin: number; count: number }>()
  /** Those that were not asked for lately, the next to be forgotten. */
  let older = new Map<string, { begin: number; count: number }>()
  let denials = new Map<string, Denial>()
  /** Whose refusals of this minute have a row of their own. */
  let minute = 0
  let strangers = new Set<string>()
  let users = new Set<string>()
  let flushedAt = clock.now().getTime()

  async function flush(): Promise<void> {
    const counts = [...pulls].map(([containerId, count]) => ({ containerId, count }))
    const tokens = [...used]
    const called = [...calls.values()]
    const denied = [...denials.values()]
    denials = new Map()
    pulls = new Map()
    used = new Set()
    calls = new Map()
    const now = clock.now()
    flushedAt = now.getTime()
    // pulls of the last seconds of a week count as the next one's
    await database.catalog.countDownloads(counts, windowOf(now, WEEK_MS).begin)
    await database.tokens.touch(tokens, now)
    if (denied.length > 0) await database.audit.denied(denied)
    // others may count, too: isolates of a Worker
    for (const { name, period, count } of await database.counters.add(called)) {
      const mine = known.get(name) ?? older.get(name)
      if (mine?.begin !== period.getTime()) continue
      mine.count = Math.max(mine.count, count)
    }
  }

  /** What is known of a counter; `fresh` when it is not known what the database has of it. */
  function counter(name: string, begin: Date) {
    const found = known.get(name) ?? older.get(name)
    const fresh = found?.begin !== begin.getTime()
    const entry = found === undefined || fresh ? { begin: begin.getTime(), count: 0 } : found
    if (fresh || !known.has(name)) {
      older.delete(name)
      if (known.size >= KNOWN / 2) {
        older = known
        known = new Map()
      }
      known.set(name, entry)
    }
    return { entry, fresh }
  }

  const due = (): Promise<void> | null =>
    clock.now().getTime() - flushedAt < everyMs ? null : flush()

  return {
    /**
     * One pull of an image of this container. Given who asks, what they ask for within a minute of one is
     * a part of it: OCI clients ask for a manifest up to four times.
     */
    pull(containerId: string, asker?: string): Promise<void> | null {
      if (asker !== undefined) {
        const now = clock.now().getTime()
        const id = `${asker} ${containerId}`
        if (now - (pulledAt.get(id) ?? -Infinity) < MINUTE_MS) return null
        if (pulledAt.size >= REMEMBERED) pulledAt.clear()
        pulledAt.set(id, now)
      }
      pulls.set(containerId, (pulls.get(containerId) ?? 0) + 1)
      return due()
    },

    /** One request with this token. */
    tokenUse(tokenId: string): Promise<void> | null {
      const now = clock.now().getTime()
      if (now - (notedAt.get(tokenId) ?? -Infinity) < TOKEN_USE_MS) return null
      if (notedAt.size >= REMEMBERED) notedAt.clear()
      notedAt.set(tokenId, now)
      used.add(tokenId)
      return due()
    },

    /**
     * How often `call` was told of this name in the window that began at `begin`; the database is
     * asked once. Calls of the last seconds before a crash are missing.
     */
    async calls(name: string, begin: Date): Promise<number> {
      const { entry, fresh } = counter(name, begin)
      if (fresh) entry.count += await database.counters.read(name, begin)
      return entry.count
    },

    /** One call of this name. */
    call(name: string, begin: Date): Promise<void> | null {
      counter(name, begin).entry.count += 1
      const id = `${name} ${begin.getTime()}`
      const waiting = calls.get(id) ?? { name, period: begin, count: 0 }
      calls.set(id, { ...waiting, count: waiting.count + 1 })
      return due()
    },

    /**
     * One refusal, `action` being the method and route that was asked. Strangers are told apart by
     * address only, so that nobody without a token makes the log grow by more than a row a minute and
     * address; beyond 1,000 of those, by nothing (R57).
     */
    denied({ action, ...denial }: Omit<Denial, 'at' | 'count'>): Promise<void> | null {
      const at = Math.floor(clock.now().getTime() / MINUTE_MS) * MINUTE_MS
      if (at !== minute) {
        minute = at
        strangers = new Set()
        users = new Set()
      }
      const known = denial.actorId !== ''
      let row: Omit<Denial, 'at' | 'count'> = known
        ? { ...denial, action }
        : { ...denial, action: 'request', detail: action }
      const [seen, place] = known
        ? [users, `${row.actorId} ${row.address} ${row.action}`]
        : [strangers, row.address]
      if (seen.size < TOLD_APART) seen.add(place)
      else if (!seen.has(place)) row = { ...row, address: 'many', action: 'request' }
      const id = JSON.stringify([at, row.actorId, row.address, row.action])
      const before = denials.get(id) ?? { ...row, at: new Date(at), count: 0 }
      denials.set(id, { ...before, count: before.count + 1 })
      return due()
    },

    /** Writes what is counted: at shutdown. */
    flush,
  }
}
