/**
 * What a lookup asks for: the query of `GET /pks/lookup` as people, Apptainer and gpg write it
 * (protocol.md §7.2).
 */
import type { KeySearch } from '../core/keyring.ts'
import { RegistryError } from '../errors.ts'

/** Keys on a page unless asked otherwise, and at most (R54). */
const PAGE = 256
const LARGEST_PAGE = 1000
/** Longest search in characters, and shortest one in texts (R56). */
const LONGEST = 1000
const SHORTEST = 3

export type Lookup = {
  op: 'get' | 'index' | 'vindex'
  search: KeySearch
  /** As it was typed, for people. */
  typed: string
  /** `options=mr`: for programs. */
  machine: boolean
  /** `fingerprint=on`: in full instead of key ids. */
  fingerprints: boolean
  limit: number
  after: string | null
}

/**
 * Reads a query string, with or without its `?`. Throws `invalid` with a sentence for what cannot be
 * looked for, and `unimplemented` for an operation that we do not have.
 */
export function parseLookup(query: string): Lookup {
  const fields = new URLSearchParams(query)
  const on = (name: string) => fields.get(name)?.toLowerCase() === 'on'
  const op = fields.get('op')?.toLowerCase() ?? ''
  if (op === '') throw invalid('Say what to do with op=get or op=index.')
  if (op !== 'get' && op !== 'index' && op !== 'vindex')
    throw new RegistryError('unimplemented', 'This keystore knows get, index and vindex alone.', {
      subject: 'key',
    })
  const typed = (fields.get('search') ?? '').trim()
  const options = (fields.get('options') ?? '').toLowerCase().split(',')
  return {
    op,
    search: parseSearch(typed, on('exact')),
    typed,
    machine: options.some((option) => option.trim() === 'mr'),
    fingerprints: on('fingerprint'),
    limit: pageSize(fields.get('x-pagesize')),
    after: pageToken(fields.get('x-pagetoken')),
  }
}

/**
 * `0x` and hex digits are a key: 8, 16, 32, 40 or 64 of them, or fewer than 16 of a key id whose
 * leading zeros were dropped (Go's %#x). Anything else is an e-mail address, or hex digits after all,
 * or else part of a user id; the whole of one with `exact`.
 */
export function parseSearch(typed: string, exact: boolean): KeySearch {
  const hex = /^0x([0-9a-f]+)$/i.exec(typed)?.[1]?.toUpperCase()
  if (hex !== undefined) {
    const names = idsOf(hex)
    if (names.length === 0)
      throw invalid('A key is named by 8, 16, 32, 40 or 64 hex digits after 0x.')
    return { names, text: null, whole: true }
  }
  if (typed === '') throw invalid('Say what to look for: search=NAME, E-MAIL or 0xFINGERPRINT.')
  if (typed.length > LONGEST) throw invalid(`Search for at most ${LONGEST} characters.`)
  const isId = /^(?:[0-9a-f]{8}|[0-9a-f]{16}|[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64})$/i.test(typed)
  const isEmail = /^[^\s<>@]+@[^\s<>@]+$/.test(typed)
  const names = isId ? [typed.toUpperCase()] : isEmail ? [typed.toLowerCase()] : []
  const long = Array.from(typed).length >= SHORTEST
  if (!long && names.length === 0) throw invalid(`Search for at least ${SHORTEST} characters.`)
  return { names, text: long ? typed : null, whole: exact }
}

/** What digits may stand for; none when their number fits nothing. */
function idsOf(hex: string): string[] {
  if ([16, 32, 40, 64].includes(hex.length)) return [hex]
  if (hex.length > 16) return []
  const keyId = hex.padStart(16, '0')
  return hex.length > 8 ? [keyId] : [hex.padStart(8, '0'), keyId]
}

function pageSize(text: string | null): number {
  if (text === null || text === '') return PAGE
  if (!/^\d{1,9}$/.test(text) || Number(text) === 0)
    throw invalid('x-pagesize is a number of keys from 1 on.')
  return Math.min(Number(text), LARGEST_PAGE)
}

function pageToken(text: string | null): string | null {
  if (text === null || text === '') return null
  if (/^[nt]:\d{1,15}$/.test(text)) return text
  throw invalid('This x-pagetoken is none of ours: take it from X-HKP-Next-Page-Token.')
}

const invalid = (message: string) => new RegistryError('invalid', message, { subject: 'request' })
