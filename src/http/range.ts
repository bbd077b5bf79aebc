/** Ranges and preconditions of blob answers (RFC 9110, sections 13 and 14). */
import type { BlobInfo, ByteRange } from '../ports.ts'

export type ParsedRange =
  | { kind: 'whole' }
  | ({ kind: 'range' } & ByteRange)
  | { kind: 'unsatisfiable' }

const WHOLE = { kind: 'whole' } as const
const UNSATISFIABLE = { kind: 'unsatisfiable' } as const

/**
 * What a Range header asks of a blob of `size` bytes; a range is inclusive and lies within it.
 * No header and units other than bytes ask for the whole. Several ranges, and byte ranges that make
 * no sense, are unsatisfiable and not ignored (RFC 9110, 14.2 allows both): the library client
 * would write the whole blob at its part's offset (R5).
 */
export function parseRange(header: string | undefined, size: number): ParsedRange {
  const bytes = /^\s*bytes\s*=(.*)$/i.exec(header ?? '')
  if (bytes === null) return WHOLE
  const [, first, last] = /^\s*(\d*)-(\d*)\s*$/.exec(bytes[1] ?? '') ?? []
  if (first === undefined || last === undefined) return UNSATISFIABLE
  if (first === '') {
    const suffix = Number(last)
    if (suffix === 0) return UNSATISFIABLE
    return size === 0 ? WHOLE : { kind: 'range', start: Math.max(0, size - suffix), end: size - 1 }
  }
  const start = Number(first)
  const end = last === '' ? size - 1 : Math.min(Number(last), size - 1)
  return start >= size || end < start ? UNSATISFIABLE : { kind: 'range', start, end }
}

/** Whether a Range header counts beside this If-Range: only when the very same etag is named. */
export function ifRangeHolds(header: string | undefined, etag: string): boolean {
  return header === undefined || header.trim() === etag
}

/** Whether If-None-Match names this etag (weak comparison, or `*`): then the answer is 304. */
export function noneMatches(header: string | undefined, etag: string): boolean {
  if (header === undefined) return false
  if (header.trim() === '*') return true
  const opaque = etag.replace(/^W\//, '')
  const named: readonly string[] = header.match(/"[^"]*"/g) ?? []
  return named.includes(opaque)
}

/** Headers of a 200 or 206 with the bytes of `blob.range`. */
export function rangeHeaders(
  blob: BlobInfo & { range: ByteRange },
  status: 200 | 206,
): Record<string, string> {
  const { start, end } = blob.range
  const headers: Record<string, string> = {
    'Accept-Ranges': 'bytes',
    'Content-Length': String(end - start + 1),
    ETag: blob.etag,
  }
  if (status === 206) headers['Content-Range'] = `bytes ${start}-${end}/${blob.size}`
  return headers
}
