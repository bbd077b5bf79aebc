/** Tickets: signed, expiring permissions that travel in URLs, and in what the owner of a key signs (R12). */
import { deriveKey, hmacSha256, sameBytes, sha256Hex } from '../core/digest.ts'
import { RegistryError } from '../errors.ts'

export type Purpose = 'upload' | 'part' | 'put' | 'get' | 'oci-upload' | 'key-claim'

/** What a ticket says. Absent is null and signed as such. Sizes in bytes, digests as hex. */
export type TicketFields = {
  method: string | null
  /** Id of the user it was given to, or who made the share link that it came by. */
  subject: string | null
  /** Id of the token, or share link, that it was asked for with. */
  token: string | null
  image: string | null
  /** Whether everybody could read the image when a `get` ticket was given. */
  visibility: 'public' | 'private' | null
  /** Id of the image's collection: a `get` ticket of a private image ends with the right to read there. */
  collection: string | null
  upload: string | null
  /** Blob key; of a `key-claim`, the fingerprint; of an `oci-upload`, the container's id. */
  key: string | null
  /** The store's handle of an upload in parts. */
  handle: string | null
  part: number | null
  size: number | null
  sha256: string | null
}

export type Tickets = {
  /** A ticket that can be opened for `purpose` until `notAfter`, inclusive; safe in URLs. */
  sign(purpose: Purpose, fields: Partial<TicketFields>, notAfter: Date): string
  /**
   * What the ticket says. `denied` with one sentence for every ticket that is expired, altered, of
   * another purpose or of another registry; which of these is the error's cause, for the log only.
   */
  open(purpose: Purpose, text: string, now: Date): TicketFields & { notAfter: Date }
}

/** Longest ticket in characters. */
const LONGEST = 2048
const VERSION = 1
const NAMES = [
  'method',
  'subject',
  'token',
  'image',
  'visibility',
  'collection',
  'upload',
  'key',
  'handle',
  'part',
  'size',
  'sha256',
] as const satisfies readonly (keyof TicketFields)[]

/**
 * Signs with `secret`; opens what was signed with it or with `previous`. Each purpose has its own
 * key, so that no ticket is ever taken for one of another kind.
 */
export function ticketBox(options: {
  secret: string
  previous?: string
  registryId: string
}): Tickets {
  const { registryId } = options
  const signing = ring(options.secret)
  const rings = options.previous === undefined ? [signing] : [signing, ring(options.previous)]

  return {
    sign(purpose, fields, notAfter) {
      const values = NAMES.map((name) => fields[name] ?? null)
      const claims = [VERSION, signing.id, registryId, purpose, ...values, notAfter.getTime()]
      const payload = base64url(new TextEncoder().encode(JSON.stringify(claims)))
      const text = `${payload}.${mac(signing.key(purpose), payload)}`
      if (text.length > LONGEST) throw new Error(`A ${purpose} ticket of ${text.length} characters`)
      return text
    },

    open(purpose, text, now) {
      if (text.length > LONGEST) throw refused('too long')
      const dot = text.indexOf('.')
      const payload = text.slice(0, dot)
      const given = new TextEncoder().encode(text.slice(dot + 1))
      // The MAC is compared as text: its last character has spare bits that decoding would ignore.
      const used = rings.find((ring) =>
        sameBytes(new TextEncoder().encode(mac(ring.key(purpose), payload)), given),
      )
      if (dot < 0 || used === undefined) throw refused('altered, or signed for something else')
      const [version, keyId, registry, forPurpose, ...rest] = decode(payload)
      const notAfter = Number(rest.at(-1))
      if (
        version !== VERSION ||
        keyId !== used.id ||
        registry !== registryId ||
        forPurpose !== purpose ||
        rest.length !== NAMES.length + 1
      )
        throw refused('of another registry or version')
      if (!(now.getTime() <= notAfter)) throw refused('expired')
      const fields = Object.fromEntries(NAMES.map((name, i) => [name, rest[i]]))
      return { ...(fields as TicketFields), notAfter: new Date(notAfter) }
    },
  }
}

/** Six hex digits that tell tickets apart in the log without giving them away (R34). */
export function ticketMark(text: string): string {
  return sha256Hex(text).slice(0, 6)
}

function refused(why: string): RegistryError {
  return new RegistryError(
    'denied',
    'This link has expired or was altered: start again to get a new one',
    { cause: new Error(`ticket: ${why}`) },
  )
}

/** The keys of one secret by purpose, derived when first needed. */
function ring(secret: string): { id: string; key: (purpose: Purpose) => Uint8Array } {
  const keys = new Map<Purpose, Uint8Array>()
  return {
    id: sha256Hex(deriveKey(secret, 'ticket-key-id')).slice(0, 8),
    key(purpose) {
      const key = keys.get(purpose) ?? deriveKey(secret, `ticket/${purpose}`)
      keys.set(purpose, key)
      return key
    },
  }
}

function mac(key: Uint8Array, payload: string): string {
  return base64url(hmacSha256(key, payload))
}

function base64url(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes))
    .replaceAll('+', '-')
    .replaceAll('/', '_')
    .replaceAll('=', '')
}

/** Reads a payload whose MAC was right, so it is one of ours. */
function decode(payload: string): unknown[] {
  const binary = atob(payload.replaceAll('-', '+').replaceAll('_', '/'))
  const bytes = Uint8Array.from(binary, (character) => character.charCodeAt(0))
  return JSON.parse(new TextDecoder().decode(bytes)) as unknown[]
}
