/**
 * Our garbage collection: ends expired uploads, frees what nothing refers to. Time decides when
 * something is deleted, never whether it may be (R9, R43). The races are walked through in
 * docs/uploads.md.
 */
import type { BlobStore, Clock, Database, Log } from '../ports.ts'
import { clearImports, isHeld } from './moving.ts'
import { letOthersRun } from './turns.ts'
import { inspectBlob } from './uploads.ts'
import { createVerdicts } from './verdicts.ts'

const BATCH = 500
/**
 * Pages that a run looks through of what has one row for every blob, unless somebody asks for all: the
 * next run goes on there. 200,000 rows are a second of work; of the store, 20,000 files are.
 */
const MOST_PAGES = { rows: 400, store: 20 }
/** Entries of the audit log that one trip forgets; a run on Workers has few of those. */
const AUDIT_BATCH = { host: 500, persistent: 5000 }
/** What a run merges of the full-text index: as many steps, each of about as many pages of 4 KiB. */
const MERGE = { steps: 2000, pages: 10 }
const HOUR_MS = 3_600_000
/** Objects without a row are left alone for this long (R10). */
const ORPHAN_AGE_MS = 7 * 24 * HOUR_MS
/** More orphans than this in one run look like the wrong database: a person decides (R10). */
const MOST_ORPHANS = 100
/** Ended ids count for longer than any ticket lives: uploads run six days (R23), parts an hour more. */
export const ENDED_MS = 7 * 24 * HOUR_MS
/** Weeks of pulls are kept for a year, links that are over for a month. */
const WEEKS_MS = 366 * 24 * HOUR_MS
const SHARES_MS = 30 * 24 * HOUR_MS
/** Windows of limits are a week long at most. */
const COUNTED_MS = 8 * 24 * HOUR_MS
/** A blob of a repository that no manifest names stays for this long: its push is under way (R31). */
const MEMBER_MS = 24 * HOUR_MS
/** Closed uploads answer "done" again for this long (R20). */
const CLOSED_MS = HOUR_MS

export type SweepReport = {
  expired: number
  deleted: number
  freedBytes: number
  orphans: number
  /** Why nothing was deleted, when nothing was. */
  held: string | null
}

export type Sweep = (options?: { now?: boolean }) => Promise<SweepReport>

/** What one run may do of each of its steps; the next run goes on where it stopped. */
export type SweepBudget = {
  /** Pages of rows or keys. */
  pages: number
  /** Uploads, and blobs of imports, whose parts are dropped on a page: one call to the store each. */
  aborts: number
  /** Blobs deleted on a page, and orphans in all. */
  keys: number
  /** Batches of verdicts that are looked at. */
  verdicts: number
  /** Signed images that are looked at for the first time: some reads of the store each. */
  images: number
}

/** Ends of 16 parts of all digests, in their order. */
const DIGEST_RANGES = '123456789abcdefg'.split('')

const TURNS = ['judge', 'examine', 'repositories'] as const

/** What a run leaves to the next one. */
type Progress = {
  /** When it ran, ms since 1970. */
  lastRun: number | null
  /** Last blob it looked at for marking; empty when it looked at all. */
  marked: string
  /** Last membership that it looked at; 0 at the start. */
  members: number
  /** Where the walk through the store goes on, null at its start, and the orphans it met. */
  cursor: string | null
  orphans: string[]
  /** Last digest whose verdict, and whose missing verdict, it looked at; empty at the start. */
  judged: string
  examined: string
  /** Which of them the next small run does: one is all that its queries suffice for. */
  turn: (typeof TURNS)[number]
}

const UNBOUND: SweepBudget = {
  pages: Infinity,
  aborts: BATCH,
  keys: BATCH,
  verdicts: Infinity,
  images: BATCH,
}
const FRESH: Progress = {
  lastRun: null,
  marked: '',
  members: 0,
  cursor: null,
  orphans: [],
  judged: '',
  examined: '',
  turn: 'judge',
}

/**
 * Returns the sweep. `graceSeconds` is how long bytes outlive their last reference, no shorter
 * than the longest download ticket in production. `intervalSeconds` tells a stepped clock from a
 * late run: the first run after a start, and one after a step, only marks (R43). Where no process
 * lives between two runs, `persistent` keeps their progress in the settings, goes by the
 * database's clock, and only the very first run is the first.
 */
export function createSweep(deps: {
  database: Database
  blobs: BlobStore
  clock: Clock
  log: Log
  registryId: string
  graceSeconds: number
  intervalSeconds: number
  budget?: SweepBudget
  persistent?: boolean
  checkSignatures?: boolean
  /** How long, and how much of, the audit log is kept; all of it where nothing is said. */
  audit?: { days: number; rows: number }
}): Sweep {
  const { database, blobs, clock, log, budget = UNBOUND, checkSignatures = true } = deps
  const verdicts = createVerdicts(deps)
  let progress = FRESH
  let busy = false

  async function run(forced: boolean): Promise<SweepReport> {
    if (!deps.persistent) return step(clock.now(), forced)
    const stored = await database.settings.get('sweep')
    progress = stored === null ? FRESH : { ...FRESH, ...(JSON.parse(stored) as Partial<Progress>) }
    const report = await step(await database.now(), forced)
    await database.settings.set('sweep', JSON.stringify(progress))
    return report
  }

  async function step(now: Date, forced: boolean): Promise<SweepReport> {
    const report: SweepReport = {
      expired: 0,
      deleted: 0,
      freedBytes: 0,
      orphans: 0,
      held: null,
    }
    const since = progress.lastRun === null ? null : now.getTime() - progress.lastRun
    progress = { ...progress, lastRun: now.getTime() }
    if ((await blobs.readId()) !== deps.registryId) {
      report.held = 'the blob store belongs to another registry, or to none (R10)'
      return report
    }

    const { turn } = progress
    const isTurn = (of: Progress['turn']) => !deps.persistent || turn === of
    progress.turn = TURNS[(TURNS.indexOf(turn) + 1) % TURNS.length] ?? 'judge'
    const pagesOf = (most: number) => (forced ? budget.pages : Math.min(budget.pages, most))
    if (isTurn('repositories')) await sweepMembers(now, pagesOf(MOST_PAGES.rows))
    for (let page = 0; page < pagesOf(MOST_PAGES.rows); page++) {
      const { last } = await database.blobs.markDying(now, progress.marked, BATCH)
      progress.marked = last ?? ''
      if (last === null) break
      await letOthersRun()
    }

    // deletes no bytes: what it forgets, nothing refers to
    if (isTurn('judge'))
      progress.judged =
        (await verdicts.sweep(
          progress.judged,
          Math.min(budget.verdicts, pagesOf(MOST_PAGES.rows)),
        )) ?? ''
    if (checkSignatures && isTurn('examine')) await examineMissing()

    const stepped = since !== null && (since < 0 || since > 3 * deps.intervalSeconds * 1000)
    if (!forced && (since === null || stepped)) {
      report.held = since === null ? 'the first run after a start only marks' : 'the clock stepped'
      return report
    }

    await pruneAudit(now)
    report.expired = await database.uploads.expire(now, BATCH)
    const closedBefore = new Date(now.getTime() - Math.min(CLOSED_MS, deps.graceSeconds * 1000))
    for (let page = 0; page < budget.pages; page++) {
      const closed = await database.uploads.closed(closedBefore, budget.aborts)
      const surplus = closed.filter(({ kept }) => !kept)
      for (const { blobKey, handle } of surplus) await blobs.abortParts(blobKey, handle)
      await blobs.delete(surplus.map(({ blobKey }) => blobKey))
      await database.uploads.forget(closed.map(({ id }) => id))
      if (closed.length < budget.aborts) break
      await letOthersRun()
    }
    if (isTurn('repositories')) report.expired += await sweepOciUploads(now, closedBefore)
    // a small run that tidies up after repositories leaves imports to the next one
    if (!deps.persistent || turn !== 'repositories') {
      await database.imports.expire(now)
      await clearImports(deps, closedBefore, budget)
    }
    if (await isHeld(database, now)) {
      report.held = 'an export is running'
      return report
    }
    const dyingBefore = new Date(now.getTime() - deps.graceSeconds * 1000)
    for (let page = 0; page < budget.pages; page++) {
      const dying = await database.blobs.dying(dyingBefore, budget.keys)
      await blobs.delete(dying.map(({ key }) => key))
      await database.blobs.forget(dying.map(({ id }) => id))
      report.deleted += dying.length
      for (const { size } of dying) report.freedBytes += size
      if (dying.length < budget.keys) break
    }
    report.orphans = await deleteOrphans(now, pagesOf(MOST_PAGES.store))
    await database.ended.prune(new Date(now.getTime() - ENDED_MS))
    await database.popularity.forgetWeeks(new Date(now.getTime() - WEEKS_MS))
    await database.shares.prune(new Date(now.getTime() - SHARES_MS))
    await database.counters.prune(new Date(now.getTime() - COUNTED_MS))
    // on Workers a run has no queries to spare for it
    if (!deps.persistent) await mergeIndex()
    return report
  }

  /** Every push adds a piece to the full-text index, and a search looks into each. */
  async function mergeIndex(): Promise<void> {
    for (let step = 0; step < MERGE.steps; step++) {
      if (!(await database.catalog.mergeIndex(MERGE.pages))) break
      await letOthersRun()
    }
  }

  /** Blobs that no manifest of their repository names, a day after they came (R31). */
  async function sweepMembers(now: Date, pages: number): Promise<void> {
    const before = new Date(now.getTime() - MEMBER_MS)
    for (let page = 0; page < pages; page++) {
      const { last } = await database.manifests.sweepMembers(before, progress.members, BATCH)
      progress.members = last ?? 0
      if (last === null) break
      await letOthersRun()
    }
  }

  /** Ends uploads of OCI, and deletes what became no blob; returns how many it ended. */
  async function sweepOciUploads(now: Date, closedBefore: Date): Promise<number> {
    const expired = await database.ociUploads.expire(now, BATCH)
    for (let page = 0; page < budget.pages; page++) {
      const left = await database.ociUploads.leftovers(closedBefore, budget.aborts)
      if (left.length === 0) break
      const surplus = left.filter(({ kept }) => !kept)
      // an upload whose handle was lost is found by its key, where the store can
      for (const { key, parts, handle } of surplus) if (parts) await blobs.abortParts(key, handle)
      await blobs.delete(surplus.map(({ key }) => key))
      await database.ociUploads.forgetKeys(
        left.map(({ key }) => key),
        closedBefore,
      )
      if (left.length < budget.aborts) break
    }
    return expired
  }

  /** The log is forgotten by age and number, in batches that stop nobody for long (R57). */
  async function pruneAudit(now: Date): Promise<void> {
    if (deps.audit === undefined) return
    const { days, rows } = deps.audit
    const before = new Date(now.getTime() - days * 24 * HOUR_MS)
    const batch = deps.persistent ? AUDIT_BATCH.persistent : AUDIT_BATCH.host
    for (let page = 0; page < budget.pages; page++) {
      if ((await database.audit.prune(before, rows, batch)) === 0) break
      await letOthersRun()
    }
  }

  /** Signed images that were stored before anybody asked, or while CPU was short (R52). */
  async function examineMissing(): Promise<void> {
    const { signatures } = database
    const missing: Awaited<ReturnType<typeof signatures.unexamined>> = []
    let after = progress.examined
    // all signed images are looked at for the few that are missing: in parts, where no trip is counted
    for (const until of deps.persistent ? [undefined] : DIGEST_RANGES) {
      if (until !== undefined && after >= until) continue
      const most = budget.images - missing.length
      missing.push(...(await signatures.unexamined(after, most, until)))
      if (until === undefined || missing.length >= budget.images) break
      after = until
      await letOthersRun()
    }
    for (const { digest, key, size } of missing) {
      progress.examined = digest
      const facts = await inspectBlob(blobs, key, size).catch((error: unknown) => {
        log.event('warn', 'sweep.unexamined', { digest, reason: String(error) })
      })
      if (facts?.signatures === undefined) continue
      await signatures.record(digest, facts.signatures, await verdicts.judge(facts.signatures))
    }
    if (missing.length < budget.images) progress.examined = ''
  }

  /** Keys in the store without a row, looked up after listing, old by the store's own clock. */
  async function deleteOrphans(now: Date, pages: number): Promise<number> {
    const before = now.getTime() - ORPHAN_AGE_MS
    for (let page = 0; page < pages; page++) {
      const listed = await blobs.list(progress.cursor, 1000)
      const old = listed.blobs.filter(({ modifiedAt }) => modifiedAt.getTime() < before)
      const known = await database.blobs.known(old.map(({ key }) => key))
      // of more than a person is asked about, how many more does not matter
      const met = old.map(({ key }) => key).filter((key) => !known.has(key))
      progress.orphans = [...progress.orphans, ...met].slice(0, MOST_ORPHANS + 1)
      progress.cursor = listed.cursor
      if (listed.cursor === null) return endWalk()
    }
    return 0
  }

  /** The whole store was looked through: deletes what was met, unless it is suspiciously much. */
  async function endWalk(): Promise<number> {
    const { orphans } = progress
    progress.orphans = []
    const most = Math.min(MOST_ORPHANS, Math.ceil((await database.blobs.liveCount()) * 0.01))
    if (orphans.length > Math.max(most, 1)) {
      log.event('warn', 'sweep.orphans', {
        orphans: orphans.length,
        note: 'more blobs without a row than a crash explains; nothing deleted, check that database and blobs belong together',
      })
      return 0
    }
    // the walk may have begun runs ago
    const known = await database.blobs.known(orphans)
    const unknown = orphans.filter((key) => !known.has(key)).slice(0, budget.keys)
    await blobs.delete(unknown)
    return unknown.length
  }

  return async ({ now: forced = false } = {}) => {
    if (busy)
      return {
        expired: 0,
        deleted: 0,
        freedBytes: 0,
        orphans: 0,
        held: 'another sweep is at work',
      }
    busy = true
    try {
      const report = await run(forced)
      log.event('info', 'sweep', report)
      return report
    } finally {
      busy = false
    }
  }
}
