/** What is counted beside the work: pulls, and when a token was last used. No request waits for it. */
import type { Clock, Database } from '../ports.ts'

/** Counts are written together, at most this often. */
const FLUSH_MS = 5000
/** A token's last use is written at most this often (R57). */
const TOKEN_USE_MS = 3_600_000
/** Tokens remembered as noted; forgetting one costs a write. */
const REMEMBERED = 10_000

const WEEK_MS = 7 * 86_400_000
/** The first Monday, 00:00 UTC, after the day that times are counted from. */
const MONDAY_MS = 4 * 86_400_000

/** The first moment of the week that `now` is in. */
export function weekOf(now: Date): Date {
  const at = now.getTime()
  return new Date(at - ((at - MONDAY_MS) % WEEK_MS))
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
  let flushedAt = clock.now().getTime()

  async function flush(): Promise<void> {
    const counts = [...pulls].map(([containerId, count]) => ({ containerId, count }))
    const tokens = [...used]
    pulls = new Map()
    used = new Set()
    const now = clock.now()
    flushedAt = now.getTime()
    // pulls of the last seconds of a week count as the next one's
    await database.catalog.countDownloads(counts, weekOf(now))
    await database.tokens.touch(tokens, now)
  }

  const due = (): Promise<void> | null =>
    clock.now().getTime() - flushedAt < everyMs ? null : flush()

  return {
    /** One pull of an image of this container. */
    pull(containerId: string): Promise<void> | null {
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

    /** Writes what is counted: at shutdown. */
    flush,
  }
}
