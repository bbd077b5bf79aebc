/**
 * Keys for the benchmark, many and fast: Ed25519 with one user id and one X25519 subkey, each with
 * the self-signature that keyservers look for, built packet by packet and signed by node:crypto.
 */
import { createHash, generateKeyPairSync, randomBytes, sign, type KeyObject } from 'node:crypto'
import { armor, enums } from 'openpgp'
import { readKeys } from '../../src/core/openpgp.ts'
import { joinBytes, writePacket } from '../../src/core/packets.ts'
import { factsJson } from '../../src/sqlite/keys.ts'

export type BenchKey = {
  /** Upper-case hex digits, as the id of the subkey. */
  fingerprint: string
  subkeyId: string
  email: string
}
/** A key with what the store keeps of it. */
export type MadeKey = BenchKey & { binary: Uint8Array; armor: string; facts: string }

const CREATED = 1_700_000_000
/** Curves by their object ids, with their lengths in front (RFC 9580 §9.2). */
const ED25519 = Buffer.from('092b06010401da470f01', 'hex')
const X25519 = Buffer.from('0a2b060104019755010501', 'hex')
/** SHA-256 and AES-256 wrap the session key. */
const KDF = Buffer.from('03010809', 'hex')
const ALGORITHM = { eddsa: 22, ecdh: 18 }
const SHA256 = 8

/** One key in so many is read by the server's own reader, which says whether `facts` is right. */
const CHECKED = 1000

const number = (value: number, size: number) => {
  const bytes = Buffer.alloc(size)
  bytes.writeUIntBE(value, 0, size)
  return bytes
}

function mpi(bytes: Uint8Array): Buffer {
  const start = bytes.findIndex((byte) => byte !== 0)
  const digits = bytes.subarray(start)
  const bits = digits.length * 8 - Math.clz32(digits[0] ?? 0) + 24
  return Buffer.concat([number(bits, 2), digits])
}

const publicBody = (algorithm: number, curve: Uint8Array, point: Uint8Array, more: Uint8Array) =>
  Buffer.concat([
    Buffer.of(4),
    number(CREATED, 4),
    Buffer.of(algorithm),
    curve,
    mpi(Buffer.concat([Buffer.of(0x40), point])),
    more,
  ])

/** As a key stands in what is hashed: for its fingerprint and for signatures over it. */
const hashed = (body: Uint8Array) => Buffer.concat([Buffer.of(0x99), number(body.length, 2), body])

/** Fingerprint of a version 4 key in upper-case hex digits. */
export const fingerprintOf = (body: Uint8Array): string =>
  createHash('sha1').update(hashed(body)).digest('hex').toUpperCase()

const subpacket = (type: number, body: Uint8Array) =>
  Buffer.concat([Buffer.of(body.length + 1, type), body])

function signature(
  secret: KeyObject,
  issuer: string,
  type: number,
  flags: number,
  data: Uint8Array[],
): Buffer {
  const fingerprint = Buffer.from(issuer, 'hex')
  const area = Buffer.concat([
    subpacket(2, number(CREATED, 4)),
    subpacket(27, Buffer.of(flags)),
    subpacket(33, Buffer.concat([Buffer.of(4), fingerprint])),
  ])
  const unhashed = subpacket(16, fingerprint.subarray(12))
  const head = Buffer.concat([
    Buffer.of(4, type, ALGORITHM.eddsa, SHA256),
    number(area.length, 2),
    area,
  ])
  const hash = createHash('sha256')
  for (const part of data) hash.update(part)
  const digest = hash
    .update(head)
    .update(Buffer.of(4, 0xff))
    .update(number(head.length, 4))
    .digest()
  const made = sign(null, digest, secret)
  return Buffer.concat([
    head,
    number(unhashed.length, 2),
    unhashed,
    digest.subarray(0, 2),
    mpi(made.subarray(0, 32)),
    mpi(made.subarray(32)),
  ])
}

type Binary = {
  fingerprint: string
  subkey: string
  email: string
  text: string
  binary: Uint8Array
}

function makeBinary(index: number): Binary {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519')
  const point = publicKey.export({ format: 'der', type: 'spki' }).subarray(-32)
  const primary = publicBody(ALGORITHM.eddsa, ED25519, point, Buffer.alloc(0))
  // any 32 bytes are a point of Curve25519
  const subkey = publicBody(ALGORITHM.ecdh, X25519, randomBytes(32), KDF)
  const fingerprint = fingerprintOf(primary)
  const email = `u${index.toString(36)}x${randomBytes(3).toString('hex')}@d${index % 1000}.example`
  const text = `Person ${index} <${email}>`
  const id = Buffer.from(text)
  const own = signature(privateKey, fingerprint, 0x13, 0x03, [
    hashed(primary),
    Buffer.of(0xb4),
    number(id.length, 4),
    id,
  ])
  const binding = signature(privateKey, fingerprint, 0x18, 0x0c, [hashed(primary), hashed(subkey)])
  const packets = [
    { tag: 6, body: primary },
    { tag: 13, body: id },
    { tag: 2, body: own },
    { tag: 14, body: subkey },
    { tag: 2, body: binding },
  ]
  const binary = joinBytes(packets.map(writePacket))
  return { fingerprint, subkey: fingerprintOf(subkey), email, text, binary }
}

/** What `readKeys` says of a key made here. */
function factsOf({ fingerprint, email, text, subkey }: Binary) {
  const createdAt = new Date(CREATED * 1000)
  const ends = { revoked: false, expiresAt: null }
  return {
    fingerprint,
    keyId: fingerprint.slice(-16),
    version: 4,
    algorithm: ALGORITHM.eddsa,
    bits: 256,
    createdAt,
    expiresAt: null,
    revoked: false,
    userIds: [{ text, email, createdAt, expiresAt: null, revoked: false }],
    subkeys: [{ fingerprint: subkey, keyId: subkey.slice(-16), canSign: false, ...ends }],
  }
}

/**
 * Makes keys one after another. `facts` and `armor` are what `readKeys` would give; one key in a
 * thousand is read by it, and any difference throws.
 */
export async function* makeKeys(count: number): AsyncGenerator<MadeKey> {
  for (let index = 0; index < count; index++) {
    const made = makeBinary(index)
    const { fingerprint, email, subkey, binary } = made
    const block = armor(enums.armor.publicKey, binary, undefined, undefined, undefined, true)
    const facts = JSON.stringify(factsOf(made))
    if (index % CHECKED === 0) {
      const [read] = await readKeys(block, new Date())
      if (read === undefined || factsJson(read) !== facts || read.armor !== block)
        throw new Error(
          `readKeys reads this key otherwise than it would be stored:\n${block}\n${facts}\n${read && `${read.armor}\n${factsJson(read)}`}`,
        )
    }
    yield { fingerprint, subkeyId: subkey.slice(-16), email, binary, armor: block, facts }
  }
}
