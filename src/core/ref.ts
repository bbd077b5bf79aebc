/** Refs: how a path such as `entity/collection/container:tag` names an image, and back. */
import { RegistryError } from '../errors.ts'
import type { LookupPath } from '../ports.ts'
import { checkName, quote } from './names.ts'

/** What follows the colon of a ref: a tag, or the image's SHA-256 as 64 lower-case hex digits. */
export type RefSelector = { kind: 'tag'; tag: string } | { kind: 'digest'; digest: string }
export type Ref = { path: LookupPath; selector: RefSelector }

const DEFAULT_ENTITY = 'library'
const DEFAULT_COLLECTION = 'default'
const DEFAULT_TAG = 'latest'

const HASH = /^sha256[.:]([0-9a-fA-F]{64})$/
const SIF_ID = /^sif\.[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

/**
 * Parses what follows `/v1/images/` or `/v1/imagefile/` (protocol.md §3.3), still percent-encoded,
 * without the query. Leading slashes do not count, other empty parts mean the default name:
 * `n` is `library/default/n`; `c/n` is in `library`, or with `unique` in the entity yet to be
 * found (null). Of several tags the first counts. Throws `invalid` with a sentence for everything
 * that cannot name an image, and `not_found` for a `sif.<uuid>`, which is legal but names none here.
 */
export function parseRef(path: string, options: { shortRefs: 'default' | 'unique' }): Ref {
  const parts = path.replace(/^\/+/, '').split('/', 4)
  if (parts.length > 3) {
    throw new RegistryError(
      'invalid',
      `The ref ${quote(path)} has more than three parts; write entity/collection/container:tag.`,
      { subject: 'image' },
    )
  }
  const names = parts.map(decode)
  const last = names.pop() ?? ''
  const colon = last.indexOf(':')
  const container = colon < 0 ? last : last.slice(0, colon)
  const collection = names.pop()
  const entity = names.pop()
  const anyEntity = options.shortRefs === 'unique' && collection && entity === undefined
  return {
    path: {
      entity: anyEntity ? null : checkName('entity', entity || DEFAULT_ENTITY),
      collection: checkName('collection', collection || DEFAULT_COLLECTION),
      container: checkName('container', container),
    },
    selector: parseSelector(colon < 0 ? DEFAULT_TAG : last.slice(colon + 1)),
  }
}

function parseSelector(text: string): RefSelector {
  const comma = text.indexOf(',')
  const first = comma < 0 ? text : text.slice(0, comma)
  if (/^sha256[.:]/.test(first)) return { kind: 'digest', digest: parseHash(first) }
  if (SIF_ID.test(first)) {
    throw new RegistryError(
      'not_found',
      'Images are not found by SIF id here; use a tag or sha256.<hash>.',
      { subject: 'image' },
    )
  }
  return { kind: 'tag', tag: checkName('tag', first) }
}

/**
 * Parses what follows `/v1/entities/` (depth 1), `/v1/collections/` (2) or `/v1/containers/` (3),
 * still percent-encoded. Returns exactly `depth` checked names, entity first; an empty entity is
 * `library`, an empty collection `default`. Throws `invalid` for anything else.
 */
export function parsePath(path: string, depth: 1 | 2 | 3): string[] {
  const parts = path.split('/')
  const surplus = parts.length - depth
  if (surplus < 0 || parts.slice(0, surplus).some((part) => part !== '')) {
    const form = ['entity', 'entity/collection', 'entity/collection/container'][depth - 1]
    throw new RegistryError('invalid', `The path ${quote(path)} must have the form ${form}.`, {
      subject: 'name',
    })
  }
  const [entity = '', collection = '', container = ''] = parts.slice(surplus).map(decode)
  const names = [checkName('entity', entity || DEFAULT_ENTITY)]
  if (depth > 1) names.push(checkName('collection', collection || DEFAULT_COLLECTION))
  if (depth > 2) names.push(checkName('container', container))
  return names
}

/** Prints a ref so that parseRef gives it back; `entity: null` prints as the short form. */
export function printRef(path: LookupPath, selector: RefSelector): string {
  const { entity, collection, container } = path
  const names = entity === null ? [collection, container] : [entity, collection, container]
  return `${names.join('/')}:${selector.kind === 'tag' ? selector.tag : hashOf(selector.digest)}`
}

/**
 * Returns the 64 lower-case hex digits of a library hash, `sha256.<hex>` or `sha256:<hex>`.
 * Throws `invalid` for anything else.
 */
export function parseHash(value: string): string {
  const digits = HASH.exec(value)?.[1]
  if (digits !== undefined) return digits.toLowerCase()
  throw new RegistryError(
    'invalid',
    `The hash ${quote(value)} is not of the form sha256.<64 hex digits>.`,
    { subject: 'image' },
  )
}

/** The library's spelling of a digest: `sha256.` and 64 hex digits. */
export function hashOf(digest: string): string {
  return `sha256.${digest}`
}

/**
 * Decodes one part once. The path is split before, so an encoded slash stays inside its part,
 * where the grammar refuses it like any other character a name cannot have.
 */
function decode(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch (cause) {
    throw new RegistryError(
      'invalid',
      `The path part ${quote(part)} has a percent sign that begins no UTF-8 character.`,
      { subject: 'name', cause },
    )
  }
}
