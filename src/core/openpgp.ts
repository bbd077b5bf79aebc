/** Public keys read, cleaned and merged, and clear-signed texts verified: the one importer of openpgp. */
import type * as OpenPGP from 'openpgp'
import { RegistryError } from '../errors.ts'
import type { SignatureFields } from './packets.ts'
import { letOthersRun } from './turns.ts'
import {
  findArmor,
  hex,
  invalidKey,
  joinBytes,
  MESSAGE,
  readArmor,
  readNumber,
  readPackets,
  readSignature,
  writePacket,
  writeSignature,
} from './packets.ts'

/** What a cleaned key says of itself. Only signatures that it made and that verified count. */
export type KeyFacts = {
  /** 40 (version 4) or 64 (version 6) upper-case hex digits. */
  fingerprint: string
  /** 16 upper-case hex digits: the last of a version 4 fingerprint, the first of a version 6 one. */
  keyId: string
  version: number
  /** Number of the public-key algorithm (RFC 9580 §9.1). */
  algorithm: number
  /** Length of RSA, DSA and curve keys; null for a curve whose length is not known here. */
  bits: number | null
  createdAt: Date
  expiresAt: Date | null
  revoked: boolean
  userIds: UserIdFacts[]
  subkeys: SubkeyFacts[]
  /** The key with exactly what was kept, in an order that does not depend on what came first. */
  armor: string
}

export type UserIdFacts = {
  /** As the key has it, control characters and markup included; bytes that are no UTF-8 replaced. */
  text: string
  /** The address in it, in lower case. */
  email: string | null
  /** When it was last certified; null when only its revocation is known. */
  createdAt: Date | null
  expiresAt: Date | null
  revoked: boolean
}

export type SubkeyFacts = {
  fingerprint: string
  keyId: string
  /** For signing, by its flags and by a signature of its own over the primary key. */
  canSign: boolean
  revoked: boolean
  expiresAt: Date | null
}

// R53. Characters of an armor are bytes: anything else in it is no base64.
const MAX_ARMOR = 1024 * 1024
const MAX_KEYS = 5
const MAX_USER_IDS = 100
const MAX_SUBKEYS = 50
const MAX_SIGNATURES = 8
const MAX_REVOCATIONS = 4
const MAX_RSA_BITS = 8192
const MAX_DSA_BITS = 3072
/** Public-key operations of one armor, in those of RSA: slower ones count for more (`workOf`). */
const MAX_WORK = 500
/** How much more a signature counts that is not valid: see `workOf`. */
const FAILURE = 8
/** Of a kept key, so that its armor passes `MAX_ARMOR` again. */
const MAX_KEPT = 700_000
const MAX_PACKET = 8192
const MAX_USER_ID = 2048
const MAX_CLEARSIGNED = 64 * 1024
const MAX_SIGNERS = 8
/** Of RSA and DSA keys whose signatures count; shorter keys may still be stored. */
const MIN_BITS = 2047
/** How far the clock of who signed may be ahead of ours, in milliseconds. */
const MAX_AHEAD = 24 * 60 * 60 * 1000

const TAG = { signature: 2, primary: 6, userId: 13, subkey: 14 }
const TYPE = {
  binary: 0x00,
  text: 0x01,
  certification: [0x10, 0x11, 0x12, 0x13],
  subkeyBinding: 0x18,
  primaryBinding: 0x19,
  directKey: 0x1f,
  keyRevocation: 0x20,
  subkeyRevocation: 0x28,
  certificationRevocation: 0x30,
}
/** Signatures that may stand behind each packet of a key. */
const TYPES_BEHIND: Record<number, number[]> = {
  [TAG.primary]: [TYPE.directKey, TYPE.keyRevocation],
  [TAG.userId]: [...TYPE.certification, TYPE.certificationRevocation],
  [TAG.subkey]: [TYPE.subkeyBinding, TYPE.subkeyRevocation],
}
const REVOCATIONS = [TYPE.keyRevocation, TYPE.subkeyRevocation, TYPE.certificationRevocation]
const SHA1 = 2
/** SHA-2 and SHA-3; MD5 and RIPEMD-160 never. */
const HASHES = [8, 9, 10, 11, 12, 14]
const MAY_SIGN = 0x02

type Library = typeof OpenPGP
type PublicKey = OpenPGP.PublicKeyPacket | OpenPGP.PublicSubkeyPacket

type Signature = SignatureFields & { revokes: boolean; bytes: Uint8Array; isCrossed: boolean }
/** A packet that signatures stand behind: the primary key, a user id or a subkey. */
type Part = { tag: number; body: Uint8Array; signatures: Signature[]; packet: PublicKey | null }
type Key = { packet: OpenPGP.PublicKeyPacket; fingerprint: string; primary: Part; others: Part[] }

let library: Promise<Library> | null = null

/** Loaded at its first use: starting a server does not pay for it. */
function load(): Promise<Library> {
  return (library ??= import('openpgp'))
}

// ---------------------------------------------------------------------------------------------
// Reading

/**
 * The public keys of one or several armors, cleaned: what a key did not sign itself is dropped
 * (certifications by others, photos, unknown packets, user ids without a valid self-signature),
 * and of the rest what exceeds the caps of R53, revocations and the newest signatures staying.
 * SHA-1 stands in self-signatures, as old keys have them; revocations by designated revokers are
 * not honoured. Signatures that are not valid spend the work of one call sooner than valid ones:
 * of a key with scores of newer forged ones nothing may be left, and several keys in one armor
 * share it. `now` bounds what may be dated ahead. Throws `invalid` or `too_large` with a
 * sentence that quotes nothing of the input.
 */
export async function readKeys(armor: string, now: Date): Promise<KeyFacts[]> {
  const keys = await readCleaned(armor, now)
  return Promise.all(keys.map(factsOf))
}

/**
 * Everything that two armors of one key hold, cleaned and capped like a key by itself. The order
 * does not matter, and a revocation known to either stays. Throws as `readKeys` does, and
 * `invalid` when the two are not the same key.
 */
export async function mergeKeys(stored: string, added: string, now: Date): Promise<KeyFacts> {
  const [first, ...rest] = [
    ...(await readCleaned(stored, now)),
    ...(await readCleaned(added, now)),
  ] as const
  if (first === undefined || rest.some(({ fingerprint }) => fingerprint !== first.fingerprint)) {
    throw invalidKey('Only two copies of the same key can be merged.')
  }
  const all = addParts(
    first,
    rest.flatMap(({ primary, others }) => [primary, ...others]),
  )
  return factsOf(await keepVerified(all))
}

async function readCleaned(armor: string, now: Date): Promise<Key[]> {
  const keys = await parse(readKeyArmors(armor))
  const cleaned: Key[] = []
  for (const key of keys) {
    cleaned.push(await verifyKey(key, Math.floor(MAX_WORK / keys.length), now))
  }
  return cleaned
}

function readKeyArmors(text: string): Uint8Array {
  if (text.length > MAX_ARMOR) {
    throw new RegistryError(
      'too_large',
      'The armor is larger than 1 MiB; export the key without the signatures of others.',
      { subject: 'key' },
    )
  }
  const blocks: Uint8Array[] = []
  for (let found = findArmor(text, 0); found !== null;) {
    if (found.label === 'PRIVATE KEY BLOCK') throw secretKey()
    if (found.label !== 'PUBLIC KEY BLOCK') {
      throw invalidKey('This is no public key but another kind of OpenPGP armor.')
    }
    const { bytes, end } = readArmor(text, found)
    blocks.push(bytes)
    found = findArmor(text, end)
  }
  if (blocks.length === 0) throw invalidKey('There is no armored OpenPGP public key in this text.')
  return joinBytes(blocks)
}

function secretKey(): RegistryError {
  return invalidKey('This is a secret key: keep it to yourself, and send the public key alone.')
}

/** Packets that only messages have. */
const MESSAGE_TAGS = [1, 3, 4, 8, 9, 11, 18, 20]
const SECRET_TAGS = [5, 7]
/** Packets that carry nothing, so that signatures behind them still belong to what came before. */
const FILLER_TAGS = [10, 12, 21]

/** Keys with those of their signatures that claim to be their own; nothing is verified yet. */
async function parse(bytes: Uint8Array): Promise<Key[]> {
  // Ahead of everything else, so that no secret key is looked at behind a public one.
  for (const { tag } of readPackets(bytes)) {
    if (SECRET_TAGS.includes(tag)) throw secretKey()
    if (MESSAGE_TAGS.includes(tag)) throw invalidKey(MESSAGE)
  }
  const keys = new Map<string, Key>()
  let key: Key | null = null
  let part: Part | null = null
  let count = 0
  for (const { tag, body } of readPackets(bytes)) {
    if (++count % 2000 === 0) await letOthersRun()
    if (tag === TAG.primary) {
      const name = byteString(body)
      key = keys.get(name) ?? (await readPrimary(body))
      keys.set(name, key)
      if (keys.size > MAX_KEYS) throw invalidKey(`There are more than ${MAX_KEYS} keys in it.`)
      part = key.primary
    } else if (key === null) {
      throw invalidKey(
        'The armor does not begin with a key. Import a revocation first, and send the key with it.',
      )
    } else if (tag === TAG.signature) {
      const signature: Signature | null = part && readOwn(key, part, body)
      if (part === null || signature === null) continue
      if (part.signatures.length === 0 && part !== key.primary) key.others.push(part)
      part.signatures.push(signature)
      // What the caps leave out in the end is not gathered until then.
      if (part.signatures.length > 8 * MAX_SIGNATURES) {
        part.signatures = trimSignatures(part.signatures)
      }
    } else if (tag === TAG.userId || tag === TAG.subkey) {
      const fits = body.length <= (tag === TAG.userId ? MAX_USER_ID : MAX_PACKET)
      part = fits ? { tag, body, signatures: [], packet: null } : null
    } else if (!FILLER_TAGS.includes(tag)) part = null
  }
  if (keys.size === 0) throw invalidKey('There is no public key in the armor.')
  return [...keys.values()].map((key) => addParts({ ...key, others: [] }, key.others))
}

async function readPrimary(body: Uint8Array): Promise<Key> {
  const version = body[0] ?? 0
  if (version < 4) {
    throw invalidKey('Keys of version 3 and older are not safe, and not accepted.')
  }
  if (version !== 4 && version !== 6) {
    throw invalidKey('Only OpenPGP keys of version 4 and 6 are accepted.')
  }
  const { PublicKeyPacket } = await load()
  const packet = await readPublicKey(new PublicKeyPacket(), body)
  if (packet === null) {
    throw invalidKey('The key is broken, too large, or of an algorithm that is not supported.')
  }
  const fingerprint = hex(packet.getFingerprintBytes() ?? new Uint8Array())
  return {
    packet,
    fingerprint,
    primary: { tag: TAG.primary, body, signatures: [], packet },
    others: [],
  }
}

/** Null for key material that is malformed, not supported, or too large to work with. */
async function readPublicKey<P extends PublicKey>(packet: P, body: Uint8Array): Promise<P | null> {
  if (body.length > MAX_PACKET) return null
  try {
    // The types of 6.3.2 do not tell that reading computes the fingerprint, at its end.
    await (packet.read(body) as unknown as Promise<number>)
  } catch {
    return null
  }
  // Curves whose verification the library lacks on Node (it requires a module it does not bring).
  if (algorithmOf(packet) === 19 && !packet.getAlgorithmInfo().curve?.startsWith('nist'))
    return null
  // The library's fingerprint is of what it understood; others take it of the bytes.
  if (byteString(packet.write()) !== byteString(body)) return null
  const { n, p, q, e } = packet.publicParams as Record<string, Uint8Array | undefined>
  const most = algorithmOf(packet) === 17 ? MAX_DSA_BITS : MAX_RSA_BITS
  const fits = [n, p].every((modulus) => (modulus?.length ?? 0) * 8 <= most)
  // No program makes longer exponents or subgroups; they only cost time.
  return fits && (e?.length ?? 0) <= 4 && (q?.length ?? 0) <= 32 ? packet : null
}

/** A signature that claims to be by the key and may stand behind the part. */
function readOwn(key: Key, part: Part, body: Uint8Array): Signature | null {
  if (body.length > MAX_PACKET) return null
  const fields = readSignature(body)
  if (fields === null || fields.version !== key.packet.version) return null
  const { type, issuers, hashAlgorithm, keyAlgorithm } = fields
  if (!TYPES_BEHIND[part.tag]?.includes(type)) return null
  if (hashAlgorithm !== SHA1 && !HASHES.includes(hashAlgorithm)) return null
  if (keyAlgorithm !== algorithmOf(key.packet)) return null
  if (issuers.length === 0 || !issuers.every((issuer) => isNamed(key.fingerprint, issuer))) {
    return null
  }
  return {
    ...fields,
    revokes: REVOCATIONS.includes(type),
    bytes: writeSignature(fields),
    isCrossed: false,
  }
}

/** Whether an issuer, a fingerprint or a key ID, names this key. */
function isNamed(fingerprint: string, issuer: string): boolean {
  return issuer === fingerprint || issuer === keyIdOf(fingerprint)
}

function keyIdOf(fingerprint: string): string {
  return fingerprint.length === 64 ? fingerprint.slice(0, 16) : fingerprint.slice(-16)
}

// ---------------------------------------------------------------------------------------------
// Caps. The same selection stands before verification, where it bounds the work, and after a merge.

/**
 * The key with what the caps leave of it and `check` lets through, which gets the signatures in
 * turn until the work is spent: revocations, then the newest of every part before the second of
 * any.
 */
async function keep(
  key: Key,
  work: number,
  check: (part: Part, signature: Signature) => Promise<Signature | null>,
): Promise<Key> {
  const primary = { ...key.primary, signatures: trimSignatures(key.primary.signatures) }
  const others = [
    ...trimParts(key, TAG.userId, MAX_USER_IDS),
    ...trimParts(key, TAG.subkey, MAX_SUBKEYS),
  ]
  const ofOthers = others.flatMap((part) =>
    part.signatures.map((signature, index) => ({ part, signature, index })),
  )
  const inTurn = [
    ...primary.signatures.map((signature) => ({ part: primary, signature })),
    ...ofOthers.filter(({ signature }) => signature.revokes),
    ...ofOthers.filter(({ signature }) => !signature.revokes).sort((a, b) => a.index - b.index),
  ]
  const kept = new Map<Part, Signature[]>([[primary, []]])
  let room = MAX_KEPT - primary.body.length
  for (const { part, signature } of inTurn) {
    const list = kept.get(part)
    const size = signature.bytes.length + 6 + (list === undefined ? part.body.length + 6 : 0)
    const cost = workOf(primary.body) + (signature.embedded ? workOf(part.body) : 0)
    if (cost > work || size > room) continue
    const passed = await check(part, signature)
    work -= passed === null ? cost * FAILURE : cost
    if (passed === null) continue
    room -= size
    if (list === undefined) kept.set(part, [passed])
    else list.push(passed)
  }
  const left = (part: Part) => ({ ...part, signatures: kept.get(part) ?? [] })
  return {
    ...key,
    primary: left(primary),
    others: others.filter((part) => kept.has(part)).map(left),
  }
}

/** Again under the caps, of signatures that were verified before. */
function keepVerified(key: Key): Promise<Key> {
  return keep(mapSignatures(key, withoutVariants), MAX_WORK, (_part, signature) =>
    Promise.resolve(signature),
  )
}

/** Parts of one kind: those with a revocation first, then by their newest signature. */
function trimParts(key: Key, tag: number, most: number): Part[] {
  return key.others
    .filter((part) => part.tag === tag && part.signatures.length > 0)
    .map((part) => ({ part, newest: newestOf(part), id: byteString(part.body) }))
    .sort(
      (a, b) =>
        Number(isRevoked(b.part)) - Number(isRevoked(a.part)) ||
        b.newest - a.newest ||
        (a.id < b.id ? -1 : 1),
    )
    .slice(0, most)
    .map(({ part }) => ({ ...part, signatures: trimSignatures(part.signatures) }))
}

function newestOf({ signatures }: Part): number {
  return Math.max(...signatures.map(({ createdAt }) => createdAt.getTime()))
}

/** Each once: the newest few revocations, then the newest others. */
function trimSignatures(signatures: Signature[]): Signature[] {
  const sorted = [...new Map(signatures.map((s) => [byteString(s.bytes), s]))]
    .sort(
      ([a, { createdAt: x }], [b, { createdAt: y }]) =>
        y.getTime() - x.getTime() || a.length - b.length || (a < b ? -1 : 1),
    )
    .map(([, signature]) => signature)
  const revocations = sorted.filter(({ revokes }) => revokes).slice(0, MAX_REVOCATIONS)
  const others = sorted.filter(({ revokes }) => !revokes)
  return [...revocations, ...others.slice(0, MAX_SIGNATURES - revocations.length)]
}

/** The key with more parts of the same key; equal ones become one with the signatures of both. */
function addParts(key: Key, added: Part[]): Key {
  const parts = new Map<string, Part>()
  for (const part of [key.primary, ...key.others, ...added]) {
    const name = `${part.tag} ${byteString(part.body)}`
    const known = parts.get(name)
    if (known === undefined) parts.set(name, { ...part, signatures: [...part.signatures] })
    else for (const signature of part.signatures) known.signatures.push(signature)
  }
  const [primary = key.primary, ...others] = parts.values()
  return { ...key, primary, others }
}

function mapSignatures(key: Key, change: (signatures: Signature[]) => Signature[]): Key {
  const changed = (part: Part) => ({ ...part, signatures: change(part.signatures) })
  return { ...key, primary: changed(key.primary), others: key.others.map(changed) }
}

/**
 * Valid signatures that say the same once: whoever passes a key on can vary what is not signed of
 * a signature. A subkey's own signature, which may stand there, is not lost.
 */
function withoutVariants(signatures: Signature[]): Signature[] {
  const worstFirst = signatures
    .map((signature) => ({ signature, id: byteString(signature.bytes) }))
    .sort(
      (a, b) =>
        Number(a.signature.isCrossed) - Number(b.signature.isCrossed) ||
        b.id.length - a.id.length ||
        (a.id < b.id ? 1 : -1),
    )
  return [
    ...new Map(worstFirst.map(({ signature }) => [byteString(signature.head), signature])).values(),
  ]
}

/**
 * What one verification by a key costs, from its packet alone, about milliseconds on a slow core.
 * The library computes DSA and Ed448 in JavaScript, and tries a failed one of a curve again there.
 */
function workOf(body: Uint8Array): number {
  const algorithm = body[5] ?? 0
  const material = body[0] === 6 ? 10 : 6
  if (algorithm <= 3) return readNumber(body, material, 2) > 4096 ? 2 : 1
  if (algorithm === 19) return CURVE_WORK[body[material] ?? 0] ?? 8
  return { 17: 20, 28: 16 }[algorithm] ?? 1
}

/** By the length of the curve's name: 8 bytes for P-256; P-384 and P-521 have 5. */
const CURVE_WORK: Record<number, number> = { 8: 3 }

/** A string of the same bytes, to compare and to look up. */
function byteString(bytes: Uint8Array): string {
  let text = ''
  for (let at = 0; at < bytes.length; at += MAX_PACKET) {
    text += String.fromCharCode(...bytes.subarray(at, at + MAX_PACKET))
  }
  return text
}

// ---------------------------------------------------------------------------------------------
// Verification

/** The key with those of its signatures that are valid; throws when none is. */
async function verifyKey(key: Key, work: number, now: Date): Promise<Key> {
  const { PublicSubkeyPacket } = await load()
  let checks = 0
  const verified = await keep(key, work, async (part, signature) => {
    // Verification in JavaScript alone never lets others run by itself.
    if (++checks % 8 === 0) await letOthersRun()
    // A revocation counts whatever its date.
    if (!signature.revokes && signature.createdAt.getTime() > now.getTime() + MAX_AHEAD) return null
    if (part.tag === TAG.subkey) {
      part.packet ??= await readPublicKey(new PublicSubkeyPacket(), part.body)
      if (part.packet === null) return null
    }
    if (!(await verifySelf(key, part, signature))) return null
    return { ...signature, isCrossed: await isCrossed(key, part.packet, signature) }
  })
  if (verified.primary.signatures.length === 0 && verified.others.length === 0) {
    throw invalidKey(`The key ${key.fingerprint} has no valid signature of its own.`)
  }
  return keepVerified(verified)
}

function verifySelf(key: Key, part: Part, { bytes }: Signature): Promise<boolean> {
  return isValid(key.packet, bytes, {
    key: key.packet,
    bind: part.packet,
    // The library's own packet loses bytes that are no UTF-8.
    userID: part.tag === TAG.userId ? { write: () => part.body } : null,
  })
}

/** Whether the subkey has signed, inside its binding, that it belongs to the primary key. */
async function isCrossed(
  key: Key,
  subkey: PublicKey | null,
  { type, embedded }: Signature,
): Promise<boolean> {
  if (type !== TYPE.subkeyBinding || embedded === null || subkey === null) return false
  const fields = readSignature(embedded)
  if (fields?.type !== TYPE.primaryBinding || fields.version !== subkey.version) return false
  if (fields.hashAlgorithm !== SHA1 && !HASHES.includes(fields.hashAlgorithm)) return false
  return isValid(subkey, embedded, { key: key.packet, bind: subkey })
}

async function isValid(signer: PublicKey, bytes: Uint8Array, data: object): Promise<boolean> {
  const { SignaturePacket } = await load()
  const packet = new SignaturePacket()
  try {
    packet.read(bytes)
    // The library refuses whatever names a designated revoker, although it verified it.
    packet.revocationKeyClass = null
    // At its own date, so that the library leaves all questions of time to us.
    if (packet.signatureType === null || packet.created === null) return false
    await packet.verify(signer, packet.signatureType, data, packet.created)
    return true
  } catch {
    return false
  }
}

// ---------------------------------------------------------------------------------------------
// Facts

async function factsOf(key: Key): Promise<KeyFacts> {
  const users = sortUsers(key)
  const subkeys = key.others.filter(({ tag }) => tag === TAG.subkey)
  const { packet, fingerprint, primary } = key
  return {
    fingerprint,
    keyId: keyIdOf(fingerprint),
    version: packet.version,
    algorithm: algorithmOf(packet),
    bits: bitsOf(packet),
    createdAt: packet.created,
    expiresAt: expiryOf(packet, primary, users[0]?.part),
    revoked: isRevoked(primary),
    userIds: users.map(({ facts }) => facts),
    subkeys: subkeys.map(subkeyFacts).filter((facts) => facts !== null),
    armor: await writeArmor(
      [primary, ...users.map(({ part }) => part), ...subkeys],
      packet.version,
    ),
  }
}

/** User ids as programs choose among them: not revoked, marked as the primary one, newest. */
function sortUsers(key: Key): { part: Part; facts: UserIdFacts }[] {
  const isMarked = (part: Part) => Number(newestVouching(part)?.isPrimary ?? false)
  return key.others
    .filter(({ tag }) => tag === TAG.userId)
    .map((part) => ({ part, facts: userIdFacts(part) }))
    .sort(
      (a, b) =>
        Number(a.facts.revoked) - Number(b.facts.revoked) ||
        isMarked(b.part) - isMarked(a.part) ||
        Number(b.facts.createdAt) - Number(a.facts.createdAt),
    )
}

async function writeArmor(parts: Part[], version: number): Promise<string> {
  const { armor, enums } = await load()
  const bytes = parts.flatMap((part) => [
    writePacket(part),
    ...part.signatures.map(({ bytes }) => writePacket({ tag: TAG.signature, body: bytes })),
  ])
  // A checksum for old programs; version 6 has none (RFC 9580 §6.1).
  const withChecksum = version === 4
  return armor(
    enums.armor.publicKey,
    joinBytes(bytes),
    undefined,
    undefined,
    undefined,
    withChecksum,
  )
}

/** The newest signature that vouches for the part: a certification, binding or direct-key one. */
function newestVouching({ signatures }: Part): Signature | undefined {
  return signatures.find(({ revokes }) => !revokes)
}

/** Primary keys and subkeys are revoked for good, whatever was signed afterwards. */
function isRevoked({ signatures }: Part): boolean {
  return signatures.some(({ revokes }) => revokes)
}

function userIdFacts(part: Part): UserIdFacts {
  const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(part.body)
  const certification = newestVouching(part)
  const revocation = part.signatures.find(({ revokes }) => revokes)
  return {
    text,
    email: emailOf(text),
    createdAt: certification?.createdAt ?? null,
    expiresAt: certification?.expiresAt ?? null,
    // A user id may be certified anew.
    revoked:
      revocation !== undefined &&
      (certification === undefined || certification.createdAt <= revocation.createdAt),
  }
}

function emailOf(text: string): string | null {
  const address = (/<([^<>]*)>[^<>]*$/.exec(text)?.[1] ?? text).trim().toLowerCase()
  return /^[^\s@<>]+@[^\s@<>]+$/.test(address) ? address : null
}

function subkeyFacts({ packet, ...part }: Part): SubkeyFacts | null {
  if (packet === null) return null
  const fingerprint = hex(packet.getFingerprintBytes() ?? new Uint8Array())
  const binding = newestVouching({ packet, ...part })
  return {
    fingerprint,
    keyId: keyIdOf(fingerprint),
    canSign:
      binding !== undefined &&
      binding.isCrossed &&
      (binding.keyFlags === null || (binding.keyFlags & MAY_SIGN) !== 0),
    revoked: isRevoked({ packet, ...part }),
    expiresAt: earliest([expiryBy(packet, binding), binding?.expiresAt]),
  }
}

/** When the key ends: the earlier of what it says of itself and what its first user id says. */
function expiryOf(packet: PublicKey, primary: Part, firstUser: Part | undefined): Date | null {
  const direct = expiryBy(packet, newestVouching(primary))
  // Version 6 says it in a direct-key signature alone (RFC 9580 §5.2.3.10).
  if (packet.version === 6) return direct
  return earliest([direct, firstUser && expiryBy(packet, newestVouching(firstUser))])
}

function expiryBy(packet: PublicKey, signature: Signature | undefined): Date | null {
  const seconds = signature?.keyLifetime ?? null
  return seconds === null ? null : new Date(packet.created.getTime() + seconds * 1000)
}

function earliest(dates: (Date | null | undefined)[]): Date | null {
  return dates.reduce<Date | null>((a, b) => (b && (a === null || b < a) ? b : a), null)
}

/** As a plain number: the library's own enumeration lags behind the registry of algorithms. */
function algorithmOf(packet: PublicKey): number {
  return packet.algorithm
}

const CURVE_BITS: Record<number, number> = { 22: 256, 25: 256, 26: 448, 27: 256, 28: 448 }

function bitsOf(packet: PublicKey): number | null {
  const { bits, curve } = packet.getAlgorithmInfo()
  const named = /\d{3}/.exec(curve ?? '')?.[0]
  return bits ?? CURVE_BITS[algorithmOf(packet)] ?? (named ? Number(named) : null)
}

// ---------------------------------------------------------------------------------------------
// Clear-signed texts

type Clearsigned = {
  plaintext: string
  signatures: { fields: SignatureFields; body: Uint8Array }[]
}

/**
 * What a clear-signed text of at most 64 KiB says, lines ending in LF and without the blanks at
 * their ends, which no signature covers, and who is said to have signed it (fingerprints, or key
 * IDs where the signature tells no more). Null when it is no clear-signed text or not that alone:
 * nothing may stand around it, so that no other program reads another message in it.
 */
export async function readClearsigned(
  text: string,
): Promise<{ plaintext: string; issuers: string[] } | null> {
  const message = parseClearsigned(text)
  if (message === null) return null
  const issuers = message.signatures.flatMap(({ fields }) => fields.issuers)
  return { plaintext: message.plaintext, issuers: [...new Set(issuers)] }
}

/**
 * Whether one of these keys signed the text, and was good to sign with: its own signatures valid,
 * the primary key or a subkey made for signing, neither revoked (at any time, for any reason) nor
 * expired when it signed, strong enough, and the signature over SHA-2 or SHA-3. The time of
 * signing is the signer's word. `fingerprint` (of the primary key) and `signedAt` are told as soon
 * as a signature verified, also when the key makes it not good; `why` is a sentence, of a good one
 * too when its key has expired since. Keys that cannot be read count as absent.
 */
export async function verifyClearsigned(
  text: string,
  armors: string[],
  now: Date,
): Promise<{
  good: boolean
  fingerprint: string | null
  signedAt: Date | null
  why: string | null
}> {
  const message = parseClearsigned(text)
  if (message === null) return bad('This is no clear-signed text of at most 64 KiB.')
  const keys: Key[] = []
  for (const armor of armors) keys.push(...(await readCleaned(armor, now).catch(() => [])))
  const answers = []
  for (const { fields, body } of message.signatures) {
    const answer = await judge(message.plaintext, fields, body, keys, now)
    if (answer.good) return answer
    answers.push(answer)
  }
  return (
    answers.find(({ fingerprint }) => fingerprint !== null) ??
    answers[0] ??
    bad('The text has no signature that can be read.')
  )
}

type Verdict = Awaited<ReturnType<typeof verifyClearsigned>>

function bad(
  why: string,
  fingerprint: string | null = null,
  signedAt: Date | null = null,
): Verdict {
  return { good: false, fingerprint, signedAt, why }
}

async function judge(
  plaintext: string,
  fields: SignatureFields,
  body: Uint8Array,
  keys: Key[],
  now: Date,
): Promise<Verdict> {
  const { type, hashAlgorithm, issuers, createdAt } = fields
  if (type !== TYPE.text && type !== TYPE.binary) return bad('The signature is not over a text.')
  if (hashAlgorithm === SHA1) return bad('The signature is over SHA-1, which is not safe.')
  if (!HASHES.includes(hashAlgorithm)) return bad('The signature is over a hash that is not safe.')
  const bytes = new TextEncoder().encode(plaintext.replaceAll('\n', '\r\n'))
  const data = { text: null, getBytes: () => bytes }
  let isKnown = false
  for (const key of keys) {
    for (const part of [key.primary, ...key.others]) {
      if (part.packet === null) continue
      const fingerprint = hex(part.packet.getFingerprintBytes() ?? new Uint8Array())
      if (issuers.length === 0 || !issuers.every((one) => isNamed(fingerprint, one))) continue
      isKnown = true
      if (fields.keyAlgorithm !== algorithmOf(part.packet)) continue
      if (fields.version !== part.packet.version) continue
      if (!(await isValid(part.packet, body, data))) continue
      const why = objectionTo(key, part, createdAt)
      if (why !== null) return bad(why, key.fingerprint, createdAt)
      if (createdAt.getTime() > now.getTime() + MAX_AHEAD) {
        return bad('The signature is dated in the future.', key.fingerprint, createdAt)
      }
      if (fields.expiresAt !== null && fields.expiresAt <= now) {
        return bad('The signature has expired.', key.fingerprint, createdAt)
      }
      const end = endOf(key, part)
      return {
        good: true,
        fingerprint: key.fingerprint,
        signedAt: createdAt,
        why: end && end <= now ? 'The key has expired since it signed.' : null,
      }
    }
  }
  return bad(
    isKnown
      ? 'The text or its signature was changed: they do not match.'
      : 'No key is known that made this signature.',
  )
}

/** When the part that signed, or the key it belongs to, ends. */
function endOf(key: Key, part: Part): Date | null {
  const end = expiryOf(key.packet, key.primary, sortUsers(key)[0]?.part)
  return part === key.primary ? end : earliest([end, subkeyFacts(part)?.expiresAt])
}

/** Why the key was not good to sign with at that time, or null. */
function objectionTo(key: Key, part: Part, signedAt: Date): string | null {
  if (isRevoked(key.primary)) return 'The key is revoked.'
  if (part.packet === null) return null
  const algorithm = algorithmOf(part.packet)
  const bits = bitsOf(part.packet)
  if ((algorithm <= 3 || algorithm === 17) && (bits ?? 0) < MIN_BITS) {
    return `The key is too short: ${bits} bits, and signatures need ${MIN_BITS}.`
  }
  if (part !== key.primary) {
    const subkey = subkeyFacts(part)
    if (subkey?.revoked) return 'The subkey that signed is revoked.'
    if (!subkey?.canSign) return 'The subkey that signed is not one for signing.'
  } else if (!mayPrimarySign(key)) return 'The key is not one for signing.'
  if (signedAt < part.packet.created) return 'The signature is older than its key.'
  const end = endOf(key, part)
  return end !== null && end <= signedAt ? 'The key had expired when it signed.' : null
}

function mayPrimarySign(key: Key): boolean {
  const [user] = sortUsers(key)
  const deciding = (user && newestVouching(user.part)) ?? newestVouching(key.primary)
  const flags = deciding?.keyFlags ?? null
  return flags === null || (flags & MAY_SIGN) !== 0
}

/** Without the blanks at its end, in linear time. */
function trimLine(line: string): string {
  let end = line.length
  while (end > 0 && ' \t\r'.includes(line.charAt(end - 1))) end--
  return line.slice(0, end)
}

function parseClearsigned(text: string): Clearsigned | null {
  if (text.length > MAX_CLEARSIGNED) return null
  const lines = text.trimEnd().split('\n').map(trimLine)
  const blank = lines.indexOf('')
  const end = lines.indexOf('-----BEGIN PGP SIGNATURE-----')
  if (lines[0] !== '-----BEGIN PGP SIGNED MESSAGE-----' || blank < 0 || end < blank) return null
  if (!lines.slice(1, blank).every((line) => line.startsWith('Hash: '))) return null
  const body = lines.slice(blank + 1, end)
  if (body.some((line) => line.startsWith('-') && !line.startsWith('- '))) return null
  const rest = lines.slice(end).join('\n')
  try {
    const found = findArmor(rest, 0)
    const armor = found && readArmor(rest, found)
    if (armor?.end !== rest.length) return null
    const signatures: Clearsigned['signatures'] = []
    for (const { tag, body } of readPackets(armor.bytes)) {
      if (tag !== TAG.signature || signatures.length === MAX_SIGNERS) return null
      const fields = body.length > MAX_PACKET ? null : readSignature(body)
      if (fields !== null) signatures.push({ fields, body })
    }
    return { plaintext: body.map((line) => line.replace(/^- /, '')).join('\n'), signatures }
  } catch {
    return null
  }
}
