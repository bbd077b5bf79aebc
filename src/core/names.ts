/** What names, tags and ids may look like, and the words nobody may take. */
import { RegistryError } from '../errors.ts'

export type NameKind = 'entity' | 'collection' | 'container' | 'tag' | 'user' | 'team'

// Separators and other characters are disjoint sets, so both expressions run in linear time.
const NAME = /^[a-z0-9]+(?:[._-][a-z0-9]+)*$/
const TAG = /^[a-zA-Z0-9]+(?:[._-]+[a-zA-Z0-9]+)*$/
const ID = /^[0-9a-f]{24}$/
/** How a hash or a SIF's own id begins where a tag stands in a ref (protocol.md §3.3). */
const HASH_LIKE = /^(?:sha256[.:]|sif\.)/i
const UNPRINTABLE = /[\p{C}\p{Zl}\p{Zp}]/gu

const LONGEST: Record<NameKind, number> = {
  entity: 255,
  collection: 255,
  container: 255,
  tag: 128,
  user: 64,
  team: 64,
}

/** First path parts of our own routes: an entity or user of that name could not be reached. */
const RESERVED: ReadonlySet<string> = new Set([
  'imagefile',
  'tags',
  'v1',
  'v2',
  'api',
  'pks',
  'assets',
  'auth',
  'version',
  'healthz',
  'readyz',
  'docs',
  'openapi.json',
  'setup',
])

/** Whether the value has the grammar of entity, collection and container names; reserved or not. */
export function isName(value: string): boolean {
  return value.length <= 255 && NAME.test(value)
}

/** Whether the value may be a tag of the library. */
export const isTagName = (value: string): boolean => tagProblem(value) === null

/** Whether the value is an id: 24 lower-case hex digits. */
export function isId(value: string): boolean {
  return ID.test(value)
}

/** Quotes what a person typed for an error sentence: at most 80 characters, nothing unprintable. */
export function quote(value: string): string {
  const shown = value
    .slice(0, 80)
    .replace(UNPRINTABLE, (c) => `\\u{${(c.codePointAt(0) ?? 0).toString(16)}}`)
  return `"${shown}${value.length > 80 ? '…' : ''}"`
}

/**
 * Returns the value if it may be the name of such a thing (protocol.md §3.3, R26: judged before
 * any lookup). Otherwise throws `invalid` with a sentence that says what is allowed.
 */
export function checkName(kind: NameKind, value: string): string {
  const problem = kind === 'tag' ? tagProblem(value) : nameProblem(kind, value)
  if (problem === null) return value
  throw new RegistryError('invalid', `The ${kind} name ${quote(value)} ${problem}`, {
    subject: kind,
  })
}

function nameProblem(kind: NameKind, value: string): string | null {
  if (value.length > LONGEST[kind]) return tooLong(kind, value)
  if (!NAME.test(value)) {
    return 'is not allowed: use lower-case letters a-z and digits, with single dots, dashes or underscores between them.'
  }
  if (ID.test(value)) return 'is not allowed: 24 hex digits would read as an id.'
  if ((kind === 'entity' || kind === 'user') && RESERVED.has(value)) {
    return 'is reserved by the registry; choose another one.'
  }
  return null
}

function tagProblem(value: string): string | null {
  if (value.length > LONGEST.tag) return tooLong('tag', value)
  if (HASH_LIKE.test(value)) {
    return 'is not allowed: it would read as a hash; choose one that does not begin with "sha256." or "sif.".'
  }
  if (!TAG.test(value)) {
    return 'is not allowed: use letters a-z and A-Z and digits, with dots, dashes or underscores between them.'
  }
  return null
}

function tooLong(kind: NameKind, value: string): string {
  return `is too long: it has ${value.length} characters and at most ${LONGEST[kind]} are allowed.`
}
