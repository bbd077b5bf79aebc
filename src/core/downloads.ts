/** From an image to its bytes: how they are handed out, how long a ticket for them lasts, counting. */
import type { Clock, Database } from '../ports.ts'

/**
 * From this size on a pull is redirected to a ticket, which makes the library client fetch ranges
 * side by side; below, one stream saves two requests (transcripts pull-big-303, pull-tag).
 */
export const REDIRECT_FROM = 16 * 1024 * 1024

const MINUTE_MS = 60_000
/** Longest life of a download ticket (R23); the sweep keeps deleted bytes at least as long. */
export const LONGEST_GET_MS = 12 * 60 * MINUTE_MS
const FLUSH_MS = 5000

/** How long bytes may be fetched: 15 minutes and a second per MiB, at most 12 hours (R23). */
export function getDeadline(now: Date, size: number): Date {
  const ms = 15 * MINUTE_MS + (size / (1024 * 1024)) * 1000
  return new Date(now.getTime() + Math.min(ms, LONGEST_GET_MS))
}

export type Downloads = ReturnType<typeof createDownloads>

/** Counts pulls in memory and writes them at most every few seconds: a pull costs no write. */
export function createDownloads({ database, clock }: { database: Database; clock: Clock }) {
  let counts = new Map<string, number>()
  let flushedAt = clock.now().getTime()

  async function flush(): Promise<void> {
    const due = [...counts].map(([containerId, count]) => ({ containerId, count }))
    counts = new Map()
    flushedAt = clock.now().getTime()
    await database.catalog.countDownloads(due)
  }

  return {
    /** One pull of a container's image. Returns the work to do after the answer, if any. */
    count(containerId: string): Promise<void> | null {
      counts.set(containerId, (counts.get(containerId) ?? 0) + 1)
      return clock.now().getTime() - flushedAt < FLUSH_MS ? null : flush()
    },
    flush,
  }
}
