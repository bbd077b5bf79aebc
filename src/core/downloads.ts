/** From an image to its bytes: how they are handed out, and how long a ticket for them lasts. */

/**
 * From this size on a pull is redirected to a ticket, which makes the library client fetch ranges
 * side by side; below, one stream saves two requests (transcripts pull-big-303, pull-tag).
 */
export const REDIRECT_FROM = 16 * 1024 * 1024

const MINUTE_MS = 60_000
/** Longest life of a download ticket (R23); the sweep keeps deleted bytes at least as long. */
export const LONGEST_GET_MS = 12 * 60 * MINUTE_MS

/** How long bytes may be fetched: 15 minutes and a second per MiB, at most 12 hours (R23). */
export function getDeadline(now: Date, size: number): Date {
  const ms = 15 * MINUTE_MS + (size / (1024 * 1024)) * 1000
  return new Date(now.getTime() + Math.min(ms, LONGEST_GET_MS))
}

/**
 * Clients that send their token along to whatever host a redirect names (CVE-2022-23538):
 * SingularityCE 3.10.0 to 3.10.4 and Apptainer 1.1.0 to 1.1.5. They must not be sent elsewhere.
 */
export function leaksToken(userAgent: string): boolean {
  return /^(?:singularity(?:-?ce)?\/3\.10\.[0-4]|apptainer\/1\.1\.[0-5])(?!\d)/i.test(userAgent)
}
