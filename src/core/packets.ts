/** OpenPGP's outer shell, armor and packet headers and signature fields, read without a library. */
import { RegistryError } from '../errors.ts'

export type Packet = { tag: number; body: Uint8Array }
type Subpacket = { type: number; body: Uint8Array; raw: Uint8Array }

/** The fields of a signature packet (RFC 9580 §5.2.3) that decide what it is worth looking at. */
export type SignatureFields = {
  version: number
  type: number
  keyAlgorithm: number
  hashAlgorithm: number
  createdAt: Date
  /** When the signature itself ends. */
  expiresAt: Date | null
  /** Seconds after a key's creation at which the key ends. */
  keyLifetime: number | null
  isPrimary: boolean
  keyFlags: number | null
  /** Fingerprints, or key IDs where no fingerprint is told; upper-case hex. */
  issuers: string[]
  embedded: Uint8Array | null
  /** Everything up to the end of the hashed area: what the signature means. */
  head: Uint8Array
  unhashed: Subpacket[]
  tail: Uint8Array
}

export function invalidKey(sentence: string): RegistryError {
  return new RegistryError('invalid', sentence, { subject: 'key' })
}

const BEGIN = '-----BEGIN PGP '

/** What kind of armor begins first at or after `from`; null when none does. */
export function findArmor(text: string, from: number): { label: string; start: number } | null {
  const start = text.indexOf(BEGIN, from)
  if (start < 0) return null
  const label =
    text.slice(start + BEGIN.length, start + BEGIN.length + 40).split('-----', 1)[0] ?? ''
  return { label, start }
}

/**
 * The bytes of an armor and the index behind it. Its checksum is not compared: RFC 9580 §6.1
 * forbids to refuse for it, and signatures tell.
 */
export function readArmor(
  text: string,
  { label, start }: { label: string; start: number },
): { bytes: Uint8Array; end: number } {
  const open = start + BEGIN.length
  const footer = `-----END PGP ${label}-----`
  const end = text.indexOf(footer, open)
  if (end < 0) throw invalidKey('The armor is cut off: its END line is missing.')
  const content = text.slice(open + label.length + '-----'.length, end).replace(/\r\n?/g, '\n')
  const blank = /\n[ \t]*\n/.exec(content)
  if (blank === null) throw invalidKey('The armor lacks the empty line that follows its headers.')
  const base64 = content
    .slice(blank.index)
    .replace(/\n=[A-Za-z0-9+/]{4}\s*$/, '')
    .replace(/\s+/g, '')
  return { bytes: decodeBase64(base64), end: end + footer.length }
}

function decodeBase64(base64: string): Uint8Array {
  let binary: string
  try {
    binary = atob(base64)
  } catch {
    throw invalidKey('The armor holds characters that are no base64, or was cut.')
  }
  const bytes = new Uint8Array(binary.length)
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i)
  return bytes
}

/** Said of what only messages have: some packets, and lengths that are not known ahead. */
export const MESSAGE = 'This is an OpenPGP message, not a key.'

/** Packets in turn, without a copy. Throws `invalid` for what no key is made of. */
export function* readPackets(bytes: Uint8Array): Generator<Packet> {
  let at = 0
  while (at < bytes.length) {
    const header = bytes[at++] ?? 0
    if ((header & 0x80) === 0)
      throw invalidKey('The armor holds bytes that are no OpenPGP packets.')
    const isNew = (header & 0x40) !== 0
    const tag = isNew ? header & 0x3f : (header >> 2) & 0x0f
    const { length, size } = isNew ? newLength(bytes, at) : oldLength(bytes, at, header & 3)
    at += size
    if (at + length > bytes.length) {
      throw invalidKey('The armor is cut off: its last packet is not complete.')
    }
    yield { tag, body: bytes.subarray(at, at + length) }
    at += length
  }
}

function newLength(bytes: Uint8Array, at: number): { length: number; size: number } {
  const first = bytes[at] ?? 0
  if (first < 192) return { length: first, size: 1 }
  if (first < 224) return { length: ((first - 192) << 8) + (bytes[at + 1] ?? 0) + 192, size: 2 }
  if (first === 255) return { length: readNumber(bytes, at + 1, 4), size: 5 }
  throw invalidKey(MESSAGE)
}

function oldLength(bytes: Uint8Array, at: number, kind: number): { length: number; size: number } {
  if (kind === 3) throw invalidKey(MESSAGE)
  const size = 1 << kind
  return { length: readNumber(bytes, at, size), size }
}

/** A packet with a header of the current format. */
export function writePacket({ tag, body }: Packet): Uint8Array {
  const { length } = body
  const header =
    length < 192
      ? [length]
      : length < 8384
        ? [((length - 192) >> 8) + 192, (length - 192) & 0xff]
        : [255, ...numberBytes(length, 4)]
  return joinBytes([Uint8Array.of(0xc0 | tag, ...header), body])
}

/** The fields of a version 4 or 6 signature, or null for any other and for a malformed one. */
export function readSignature(body: Uint8Array): SignatureFields | null {
  const version = body[0] ?? 0
  if (version !== 4 && version !== 6) return null
  const width = version === 6 ? 4 : 2
  const hashedEnd = 4 + width + readNumber(body, 4, width)
  const unhashedEnd = hashedEnd + width + readNumber(body, hashedEnd, width)
  if (unhashedEnd > body.length) return null
  const hashed = readSubpackets(body.subarray(4 + width, hashedEnd))
  const unhashed = readSubpackets(body.subarray(hashedEnd + width, unhashedEnd))
  if (hashed === null || unhashed === null) return null

  const found = (type: number, length: number): number | null | undefined => {
    const last = hashed.findLast((subpacket) => subpacket.type === type)
    if (last === undefined) return null
    return last.body.length === length ? readNumber(last.body, 0, length) : undefined
  }
  const created = found(SUBPACKET.created, 4)
  const lifetime = found(SUBPACKET.lifetime, 4)
  const keyLifetime = found(SUBPACKET.keyLifetime, 4)
  const isPrimary = found(SUBPACKET.primary, 1)
  if (typeof created !== 'number') return null
  if (lifetime === undefined || keyLifetime === undefined || isPrimary === undefined) return null
  const both = [...hashed, ...unhashed]
  return {
    version,
    type: body[1] ?? 0,
    keyAlgorithm: body[2] ?? 0,
    hashAlgorithm: body[3] ?? 0,
    createdAt: new Date(created * 1000),
    expiresAt: lifetime ? new Date((created + lifetime) * 1000) : null,
    keyLifetime: keyLifetime || null,
    isPrimary: isPrimary === 1,
    keyFlags: hashed.findLast(({ type }) => type === SUBPACKET.keyFlags)?.body[0] ?? null,
    issuers: issuersOf(both),
    embedded: both.find(({ type }) => type === SUBPACKET.embedded)?.body ?? null,
    head: body.subarray(0, hashedEnd),
    unhashed,
    tail: body.subarray(unhashedEnd),
  }
}

/** Of one area; programs make about twenty. */
const MAX_SUBPACKETS = 100

const SUBPACKET = {
  created: 2,
  lifetime: 3,
  keyLifetime: 9,
  issuer: 16,
  primary: 25,
  keyFlags: 27,
  embedded: 32,
  issuerFingerprint: 33,
}

function issuersOf(subpackets: Subpacket[]): string[] {
  const fingerprints = subpackets.filter(({ type }) => type === SUBPACKET.issuerFingerprint)
  const ids = subpackets.filter(({ type }) => type === SUBPACKET.issuer)
  const found =
    fingerprints.length > 0
      ? fingerprints.map(({ body }) => hex(body.subarray(1)))
      : ids.map(({ body }) => hex(body))
  return [...new Set(found)]
}

/**
 * The signature with only what is needed of its unhashed area, which anybody can fill: who issued
 * it, and the signature of the subkey, once each.
 */
export function writeSignature({ version, head, unhashed, tail }: SignatureFields): Uint8Array {
  const wanted = [SUBPACKET.issuer, SUBPACKET.issuerFingerprint, SUBPACKET.embedded]
  const kept = wanted
    .map((type) => unhashed.find((subpacket) => subpacket.type === type)?.raw)
    .filter((raw) => raw !== undefined)
  const area = joinBytes(kept)
  return joinBytes([
    head,
    Uint8Array.from(numberBytes(area.length, version === 6 ? 4 : 2)),
    area,
    tail,
  ])
}

function readSubpackets(area: Uint8Array): Subpacket[] | null {
  const found: Subpacket[] = []
  let at = 0
  while (at < area.length) {
    const start = at
    const first = area[at] ?? 0
    const size = first < 192 ? 1 : first < 255 ? 2 : 5
    const length =
      size === 1
        ? first
        : size === 2
          ? ((first - 192) << 8) + (area[at + 1] ?? 0) + 192
          : readNumber(area, at + 1, 4)
    at += size
    if (length === 0 || at + length > area.length || found.length === MAX_SUBPACKETS) return null
    found.push({
      type: (area[at] ?? 0) & 0x7f,
      body: area.subarray(at + 1, at + length),
      raw: area.subarray(start, at + length),
    })
    at += length
  }
  return found
}

/** A big-endian number; bytes past the end count as zero. */
export function readNumber(bytes: Uint8Array, at: number, size: number): number {
  let number = 0
  for (let i = 0; i < size; i++) number = number * 256 + (bytes[at + i] ?? 0)
  return number
}

function numberBytes(number: number, size: number): number[] {
  return Array.from({ length: size }, (_, i) => Math.floor(number / 256 ** (size - 1 - i)) & 0xff)
}

export function joinBytes(arrays: Uint8Array[]): Uint8Array {
  const joined = new Uint8Array(arrays.reduce((total, { length }) => total + length, 0))
  let at = 0
  for (const array of arrays) {
    joined.set(array, at)
    at += array.length
  }
  return joined
}

/** Upper-case hex. */
export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0'))
    .join('')
    .toUpperCase()
}
