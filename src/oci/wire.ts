/** OCI's addresses and headers, from requests and to answers (distribution-spec, "Endpoints"). */
import { checkDigest, parseRepository } from '../core/repositories.ts'
import { RegistryError } from '../errors.ts'
import type { Ctx } from '../http/context.ts'
import { PRIVATE } from '../http/json-resp.ts'
import type { RepositoryPath } from '../ports.ts'

/** Headers of every answer with content: bytes of others are never a page (R32). */
export const CONTENT = { ...PRIVATE, 'Content-Security-Policy': 'sandbox' } as const

/** The repository of the address, as it is called there and where it lies. */
export function repositoryOf(c: Ctx): { name: string; path: RepositoryPath } {
  const name = c.req.param('name') ?? ''
  return { name, path: parseRepository(name) }
}

/** The digest of the address. */
export const digestOf = (c: Ctx): string => checkDigest(c.req.param('digest') ?? '')

/** The digest of the query; null for none. */
export function askedDigest(c: Ctx): string | null {
  const digest = c.req.query('digest')
  return digest === undefined ? null : checkDigest(digest)
}

/** Bytes of the body, null where it does not say. */
export function lengthOf(c: Ctx): number | null {
  const header = c.req.header('content-length')
  if (header === undefined) return null
  const length = Number(header)
  if (/^\d+$/.test(header) && Number.isSafeInteger(length)) return length
  throw new RegistryError('invalid', 'The Content-Length is no whole number of bytes.', {
    subject: 'upload',
  })
}

/** Where a chunk says that it belongs, inclusive; null where it says nothing. */
export function rangeOf(c: Ctx): { start: number; end: number } | null {
  const header = c.req.header('content-range')
  if (header === undefined) return null
  const [, start, end] = /^(?:bytes[ =])?(\d{1,15})-(\d{1,15})(?:\/(?:\d+|\*))?$/.exec(header) ?? []
  if (start === undefined || end === undefined)
    throw new RegistryError(
      'range_unsatisfiable',
      'The Content-Range of a chunk has the form first-last.',
      { subject: 'upload' },
    )
  return { start: Number(start), end: Number(end) }
}

/** A page of a list: names after `last`, at most `n`, which is 1,000 where nothing is asked. */
export function pageOf(c: Ctx): { after: string; limit: number } {
  const n = c.req.query('n')
  if (n !== undefined && !/^\d{1,9}$/.test(n))
    throw new RegistryError('invalid', 'n is no whole number.', { subject: 'name' })
  return { after: c.req.query('last') ?? '', limit: n === undefined ? 1000 : Number(n) }
}

/** The Link to the next page of a list; relative, as every address here. */
export function nextPage(address: string, query: Record<string, string>): Record<string, string> {
  return { Link: `<${address}?${new URLSearchParams(query).toString()}>; rel="next"` }
}

/** What has been received of an upload; of nothing, what clients expect for it. */
export const receivedRange = (received: number): string => `0-${Math.max(received - 1, 0)}`
