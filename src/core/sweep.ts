/**
 * Our garbage collection: ends expired uploads, frees what nothing refers to. Time decides when
 * something is deleted, never whether it may be (R9, R43). The races are walked through in
 * docs/uploads.md.
 */
import type { BlobStore, Clock, Database, Log } from '../ports.ts'
import { clearImports, isHeld } from './moving.ts'

const BATCH = 500
const HOUR_MS = 3_600_000
/** Objects without a row are left alone for this long (R10). */
const ORPHAN_AGE_MS = 7 * 24 * HOUR_MS
/** More orphans than this in one run look like the wrong database: a person decides (R10). */
const MOST_ORPHANS = 100
/** Ended ids count for longer than any ticket lives: uploads run six days (R23), parts an hour more. */
export const ENDED_MS = 7 * 24 * HOUR_MS
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

/**
 * Returns the sweep. `graceSeconds` is how long bytes outlive their last reference, no shorter
 * than the longest download ticket in production. `intervalSeconds` tells a stepped clock from a
 * late run: the first run after a start, and one after a step, only marks (R43).
 */
export function createSweep(deps: {
  database: Database
  blobs: BlobStore
  clock: Clock
  log: Log
  registryId: string
  graceSeconds: number
  intervalSeconds: number
}): Sweep {
  const { database, blobs, clock, log } = deps
  let lastRun: number | null = null
  let busy = false

  async function run(forced: boolean): Promise<SweepReport> {
    const report: SweepReport = {
      expired: 0,
      deleted: 0,
      freedBytes: 0,
      orphans: 0,
      held: null,
    }
    const now = clock.now()
    const since = lastRun === null ? null : now.getTime() - lastRun
    lastRun = now.getTime()
    if ((await blobs.readId()) !== deps.registryId) {
      report.held = 'the blob store belongs to another registry, or to none (R10)'
      return report
    }

    for (let after = ''; ;) {
      const { last } = await database.blobs.markDying(now, after, BATCH)
      if (last === null) break
      after = last
    }

    const stepped = since !== null && (since < 0 || since > 3 * deps.intervalSeconds * 1000)
    if (!forced && (since === null || stepped)) {
      report.held = since === null ? 'the first run after a start only marks' : 'the clock stepped'
      return report
    }

    for (const upload of await database.uploads.expired(now, BATCH)) {
      const { id, state, claim } = upload
      if (await database.uploads.close(id, { state, claim }, 'expired', now)) report.expired += 1
    }
    const closedBefore = new Date(now.getTime() - Math.min(CLOSED_MS, deps.graceSeconds * 1000))
    for (;;) {
      const closed = await database.uploads.closed(closedBefore, BATCH)
      for (const { blobKey, handle, kept } of closed)
        if (!kept) {
          await blobs.abortParts(blobKey, handle)
          await blobs.delete([blobKey])
        }
      await database.uploads.forget(closed.map(({ id }) => id))
      if (closed.length < BATCH) break
    }
    await database.imports.expire(now)
    await clearImports(deps, closedBefore)
    if (await isHeld(database, now)) {
      report.held = 'an export is running'
      return report
    }
    const dyingBefore = new Date(now.getTime() - deps.graceSeconds * 1000)
    for (;;) {
      const dying = await database.blobs.dying(dyingBefore, BATCH)
      await blobs.delete(dying.map(({ key }) => key))
      await database.blobs.forget(dying.map(({ id }) => id))
      report.deleted += dying.length
      for (const { size } of dying) report.freedBytes += size
      if (dying.length < BATCH) break
    }
    report.orphans = await deleteOrphans(now)
    await database.ended.prune(new Date(now.getTime() - ENDED_MS))
    return report
  }

  /** Keys in the store without a row, looked up after listing, old by the store's own clock. */
  async function deleteOrphans(now: Date): Promise<number> {
    const before = now.getTime() - ORPHAN_AGE_MS
    const orphans: string[] = []
    let cursor: string | null = null
    do {
      const page: Awaited<ReturnType<BlobStore['list']>> = await blobs.list(cursor, 1000)
      const old = page.blobs.filter(({ modifiedAt }) => modifiedAt.getTime() < before)
      const known = await database.blobs.known(old.map(({ key }) => key))
      for (const { key } of old) if (!known.has(key)) orphans.push(key)
      cursor = page.cursor
    } while (cursor !== null)
    const most = Math.min(MOST_ORPHANS, Math.ceil((await database.blobs.liveCount()) * 0.01))
    if (orphans.length > Math.max(most, 1)) {
      log.event('warn', 'sweep.orphans', {
        orphans: orphans.length,
        note: 'more blobs without a row than a crash explains; nothing deleted, check that database and blobs belong together',
      })
      return 0
    }
    await blobs.delete(orphans)
    return orphans.length
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
