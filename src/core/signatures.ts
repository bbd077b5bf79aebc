/**
 * What the signatures in a SIF cover and whether its bytes agree (protocol.md §10.4; R18, R52): facts
 * of the file alone. What they are worth depends on keys and is judged in verdicts.ts.
 */
import { hasher, type Algorithm, type Hasher } from './digest.ts'
import type { SignatureFact, SignatureFacts } from './model.ts'
import { readClearsigned } from './openpgp.ts'
import {
  claimedBy,
  FIRST_READ,
  isPrimary,
  isSignature,
  member,
  nameOf,
  openSource,
  parseJson,
  partitionArch,
  passingTable,
  readTable,
  type Descriptor,
  type ReadRange,
  type SifTable,
  type Source,
} from './sif.ts'

// The budget of R52. The sum keeps a row within what D1 takes.
const MAX_SIGNATURES = 32
const MAX_TEXT = 64 * 1024
const MAX_TEXTS = 512 * 1024
const MAX_ISSUERS = 8
const MAX_ALGORITHMS = 2
/** Signatures are read together with what lies between them up to here, in bytes. */
const MAX_RUN = 1024 * 1024

const CLEARSIGNED = '-----BEGIN PGP SIGNED MESSAGE-----'
const LEGACY = 'SIFHASH:\n'
const DSSE = 'application/vnd.sylabs.sif-metadata+json'
/** By the number in the signature's descriptor; BLAKE2 is not among them. */
const HASHES: Record<number, Algorithm> = { 1: 'sha256', 2: 'sha384', 3: 'sha512' }

/** One digest over the bytes of objects, one after the other. */
type Wanted = { algorithm: Algorithm; objects: Descriptor[] }

/** Digests by what they are of; see `keyOf`. */
export type ObjectDigests = ReadonlyMap<string, string>

const keyOf = ({ algorithm, objects }: Wanted) =>
  `${algorithm} ${objects.map(({ offset, size }) => `${offset}+${size}`).join(' ')}`
const sizeOf = ({ objects }: Wanted) => objects.reduce((sum, { size }) => sum + size, 0)

// ---------------------------------------------------------------------------------------------
// Hashing as bytes pass

export type ObjectHasher = {
  /** Takes the next bytes of the file; false when no later ones are of interest. */
  update(chunk: Uint8Array): boolean
  /** One with the same past and a future of its own (R3). */
  copy(): ObjectHasher
  /** Of the objects that have passed whole. */
  digests(): ObjectDigests
}

type Running = { key: string; algorithm: Algorithm; left: number; hash: Hasher | null }
type Segment = { start: number; end: number; of: number }

/** Hashes what is wanted while the bytes from `position` on pass, in order. */
function pass(wanted: Wanted[], position: number): ObjectHasher {
  const segments = wanted
    .flatMap(({ objects }, of) =>
      objects.map(({ offset, size }) => ({ start: offset, end: offset + size, of })),
    )
    .filter(({ start, end }) => end > start)
    .toSorted((a, b) => a.start - b.start)
  const running = wanted.map((one) => ({
    key: keyOf(one),
    algorithm: one.algorithm,
    left: sizeOf(one),
    hash: null,
  }))
  const done = new Map<string, string>()
  for (const { key, algorithm, left } of running)
    if (left === 0) done.set(key, hasher(algorithm).hex())
  return going({ segments, at: 0, position, running, done })
}

function going(state: {
  segments: Segment[]
  /** The first segment that has not passed whole. */
  at: number
  position: number
  running: Running[]
  done: Map<string, string>
}): ObjectHasher {
  return {
    update(chunk) {
      const { segments, running, done, position } = state
      const end = position + chunk.length
      for (let i = state.at; i < segments.length; i++) {
        const segment = segments[i] as Segment
        if (segment.start >= end) break
        const one = running[segment.of] as Running
        const piece = chunk.subarray(
          Math.max(segment.start - position, 0),
          Math.min(segment.end, end) - position,
        )
        one.hash ??= hasher(one.algorithm)
        one.hash.update(piece)
        one.left -= piece.length
        if (one.left === 0) {
          done.set(one.key, one.hash.hex())
          one.hash = null
        }
      }
      state.position = end
      while ((segments[state.at]?.end ?? Infinity) <= end) state.at += 1
      return state.at < segments.length
    },
    copy: () =>
      going({
        ...state,
        running: state.running.map((one) => ({ ...one, hash: one.hash?.copy() ?? null })),
        done: new Map(state.done),
      }),
    digests: () => state.done,
  }
}

/**
 * Hashes the signed objects of a file of `size` bytes as it passes from its beginning. Which they
 * are stands in the first 32 KiB; a file without signatures, and one that is no SIF, costs nothing
 * more than looking at those. The guess is by descriptors: what turns out to be signed otherwise is
 * read again (`examineSignatures`).
 */
export function objectHasher(size: number): ObjectHasher {
  return waiting(Math.min(size, FIRST_READ), size, [])
}

function waiting(need: number, size: number, chunks: Uint8Array[]): ObjectHasher {
  let next: ObjectHasher | null = null
  let held = chunks.reduce((sum, { length }) => sum + length, 0)
  return {
    update(chunk) {
      if (next !== null) return next.update(chunk)
      // the chunk's memory is its sender's: what is kept is copied
      chunks.push(held + chunk.length < need ? chunk.slice() : chunk)
      held += chunk.length
      if (held < need) return true
      const all = chunks.length === 1 ? chunk : join(chunks, held)
      next = pass(guess(all.subarray(0, need), size), 0)
      return next.update(all)
    },
    copy: () => next?.copy() ?? waiting(need, size, [...chunks]),
    digests: () => next?.digests() ?? new Map(),
  }
}

function join(chunks: Uint8Array[], length: number): Uint8Array {
  const all = new Uint8Array(length)
  let at = 0
  for (const chunk of chunks) {
    all.set(chunk, at)
    at += chunk.length
  }
  return all
}

/** What the signatures of a file will speak of, by its first bytes; nothing when those are broken. */
function guess(first: Uint8Array, size: number): Wanted[] {
  let table: SifTable | null
  try {
    table = passingTable(first, size)
  } catch {
    // no SIF or a broken one: inspection says so, in its own words
    return []
  }
  const { descriptors } = table ?? { descriptors: [] }
  const wanted = signaturesOf(descriptors).flatMap((signature): Wanted[] => {
    const objects = linkedTo(signature, descriptors)
    if (nameOf(signature) !== 'part-signature')
      return objects.map((object) => ({ algorithm: 'sha256', objects: [object] }))
    const algorithm = HASHES[signature.bytes.getInt32(201, true)]
    return algorithm === undefined ? [] : [{ algorithm, objects }]
  })
  return within(wanted, size)
}

/**
 * What of it may be hashed (R52): nothing twice, at most two algorithms, no more bytes of each than
 * the file has, and only objects in the order in which they pass.
 */
function within(wanted: Wanted[], size: number): Wanted[] {
  const left = new Map<Algorithm, number>()
  const chosen = new Map<string, Wanted>()
  for (const one of wanted) {
    const { algorithm, objects } = one
    const room = left.get(algorithm) ?? (left.size < MAX_ALGORITHMS ? size : 0)
    const ordered = objects.every(({ offset }, i) => i === 0 || objects[i - 1]!.offset < offset)
    if (chosen.has(keyOf(one)) || !ordered || sizeOf(one) > room) continue
    left.set(algorithm, room - sizeOf(one))
    chosen.set(keyOf(one), one)
  }
  return [...chosen.values()]
}

const signaturesOf = (descriptors: Descriptor[]) =>
  descriptors.filter(isSignature).slice(0, MAX_SIGNATURES)

const groupOf = ({ link }: Descriptor) => (link >>> 28 === 0xf ? link & 0x0fffffff : null)

/** The objects of the group, or the one object, that a signature is linked to, in table order. */
function linkedTo(signature: Descriptor, descriptors: Descriptor[]): Descriptor[] {
  const group = groupOf(signature)
  return descriptors.filter(
    (d) => !isSignature(d) && (group === null ? d.id === signature.link : d.group === group),
  )
}

// ---------------------------------------------------------------------------------------------
// What the signatures say

/** A signature that was read: what must be hashed for it, and what comes out once that is known. */
type Statement = Omit<SignatureFact, 'covers' | 'problem'> & {
  wanted: Wanted[]
  compare(digests: ObjectDigests): Pick<SignatureFact, 'covers' | 'problem'>
}

/**
 * The signatures of a SIF of `size` bytes and whether its bytes agree with them. `known` are digests
 * from the pass that hashed the file; what is missing of them is read in one range of `stream`
 * (inclusive positions). Throws `invalid` as `inspectSif` does.
 */
export async function examineSignatures(
  {
    read,
    stream,
  }: { read: ReadRange; stream: (start: number, end: number) => AsyncIterable<Uint8Array> },
  size: number,
  known: ObjectDigests | null,
): Promise<SignatureFacts> {
  const source = await openSource(read, size)
  const table = await readTable(source, size)
  const signatures = signaturesOf(table.descriptors)
  const texts = await readTexts(source, signatures)
  const statements: Statement[] = []
  for (const signature of signatures)
    statements.push(await statementOf(signature, texts.get(signature) ?? null, table))

  const wanted = within(
    statements.flatMap((statement) => statement.wanted),
    size,
  )
  const missing = wanted.filter((one) => known?.has(keyOf(one)) !== true)
  const digests = new Map([...(known ?? []), ...(await hashAgain(missing, stream))])
  return {
    flaw: flawOf(table),
    objects: table.descriptors.filter((d) => !isSignature(d)).map(({ id }) => id),
    signatures: statements.map(({ wanted: _wanted, compare, ...said }) => ({
      ...said,
      ...compare(digests),
    })),
    more: table.descriptors.filter(isSignature).length - signatures.length,
  }
}

async function hashAgain(
  missing: Wanted[],
  stream: (start: number, end: number) => AsyncIterable<Uint8Array>,
): Promise<ObjectDigests> {
  const objects = missing.flatMap((one) => one.objects).filter(({ size }) => size > 0)
  const start = Math.min(...objects.map(({ offset }) => offset))
  const objectsHash = pass(missing, objects.length === 0 ? 0 : start)
  if (objects.length > 0)
    for await (const chunk of stream(
      start,
      Math.max(...objects.map(({ offset, size }) => offset + size)) - 1,
    ))
      objectsHash.update(chunk)
  return objectsHash.digests()
}

/** R18: what no signature may stand for, as the end of a sentence. */
function flawOf({ arch, descriptors }: SifTable): string | null {
  const primaries = descriptors.filter(isPrimary)
  if (primaries.length !== 1) return `it has ${primaries.length} primary partitions instead of one`
  const [primary] = primaries
  const built = primary === undefined ? null : partitionArch(primary)
  if (arch !== null && built !== null && arch !== built)
    return `its header says ${arch}, but its primary partition is for ${built}`
  const ids = descriptors.map(({ id }) => id)
  const twice = ids.find((id, index) => ids.indexOf(id) < index)
  return twice === undefined ? null : `it has several objects ${twice}`
}

/** Texts of the signatures; null for one that is too large, or lies where no read is left for it. */
async function readTexts(
  source: Source,
  signatures: Descriptor[],
): Promise<Map<Descriptor, string | null>> {
  const texts = new Map<Descriptor, string | null>()
  let room = MAX_TEXTS
  const fitting = signatures.filter(({ size }) => {
    if (size > MAX_TEXT || size > room) return false
    room -= size
    return true
  })
  const runs: Descriptor[][] = []
  for (const signature of fitting.toSorted((a, b) => a.offset - b.offset)) {
    const run = runs.at(-1)
    if (run !== undefined && signature.offset + signature.size - run[0]!.offset <= MAX_RUN)
      run.push(signature)
    else runs.push([signature])
  }
  for (const run of runs) {
    const start = run[0]!.offset
    const end = run.at(-1)!.offset + run.at(-1)!.size
    const bytes = await source.read(start, end - start)
    for (const signature of run)
      texts.set(
        signature,
        bytes === null
          ? null
          : new TextDecoder().decode(
              bytes.subarray(signature.offset - start, signature.offset - start + signature.size),
            ),
      )
  }
  return texts
}

async function statementOf(
  signature: Descriptor,
  text: string | null,
  table: SifTable,
): Promise<Statement> {
  const { id } = signature
  const said = { id, claimed: claimedBy(signature), text: '', issuers: [] }
  const without = (form: 'unreadable' | 'unchecked', problem: string): Statement => ({
    ...said,
    form,
    wanted: [],
    compare: () => ({ covers: [], problem }),
  })
  if (text === null)
    return without('unchecked', `signature ${id} has more than ${MAX_TEXT / 1024} KiB`)
  const broken = without('unreadable', `signature ${id} cannot be read`)
  // what goes into a row: no character grows sixfold in JSON
  if (/[^\n\r\t -~]/.test(text)) return broken
  if (!text.startsWith(CLEARSIGNED)) {
    const payload = dssePayload(text)
    if (payload === null) return broken
    return { ...said, form: 'dsse', ...metadata(signature, payload, table) }
  }
  const message = await readClearsigned(text)
  if (message === null || message.issuers.length === 0) return broken
  if (message.issuers.length > MAX_ISSUERS)
    return without('unchecked', `signature ${id} holds more than ${MAX_ISSUERS} signatures`)
  const issuers = message.issuers.map((issuer) => issuer.toUpperCase())
  const plaintext = message.plaintext.replaceAll('\r\n', '\n')
  if (!plaintext.startsWith(LEGACY))
    return { ...said, form: 'current', text, issuers, ...metadata(signature, plaintext, table) }
  const algorithm = HASHES[signature.bytes.getInt32(201, true)]
  if (algorithm === undefined)
    return without('unchecked', `signature ${id} uses a hash that is not known here`)
  const objects = linkedTo(signature, table.descriptors)
  const expected = plaintext.slice(LEGACY.length).trim().toLowerCase()
  return {
    ...said,
    form: 'legacy',
    text,
    issuers,
    wanted: [{ algorithm, objects }],
    compare(digests) {
      const covers = objects.map((object) => object.id)
      const found = digests.get(keyOf({ algorithm, objects }))
      if (found === undefined || objects.length === 0) return { covers: [], problem: null }
      return found === expected
        ? { covers, problem: null }
        : { covers: [], problem: `the bytes of ${listed(covers)} are not those that were signed` }
    },
  }
}

const listed = (ids: number[]) =>
  ids.length === 1 ? `object ${ids[0]}` : `the objects ${ids.slice(0, 8).join(', ')}`

/** The signed text inside a DSSE envelope of SIF metadata (X.509 and raw keys); null for others. */
function dssePayload(text: string): string | null {
  const envelope = parseJson(text)?.value
  const payload = member(envelope, 'payload')
  if (member(envelope, 'payloadType') !== DSSE || typeof payload !== 'string') return null
  try {
    return atob(payload)
  } catch {
    return null
  }
}

type Digest = { algorithm: Algorithm; hex: string }

function digestIn(value: unknown): Digest | null {
  const match =
    typeof value === 'string' ? /^(sha256|sha384|sha512):([0-9a-f]+)$/i.exec(value) : null
  return match === null
    ? null
    : { algorithm: match[1] as Algorithm, hex: (match[2] ?? '').toLowerCase() }
}

/** Compares the current form's metadata with header and descriptors, and with bytes once hashed. */
function metadata(
  signature: Descriptor,
  json: string,
  { header, descriptors }: SifTable,
): Pick<Statement, 'wanted' | 'compare'> {
  const failed = (problem: string) => ({
    wanted: [],
    compare: () => ({ covers: [], problem }),
  })
  const unclear = `signature ${signature.id} does not say what it signs`
  const image = parseJson(json)?.value
  const entries = member(image, 'objects')
  const headerDigest = digestIn(member(member(image, 'header'), 'digest'))
  if (member(image, 'version') !== 1 || headerDigest === null || !Array.isArray(entries))
    return failed(unclear)
  if (digestOf(headerDigest.algorithm, headerFields(header)) !== headerDigest.hex)
    return failed('the header is not the one that was signed')

  const linked = linkedTo(signature, descriptors)
  const group = linked[0]?.group ?? 0
  const first = Math.min(...descriptors.filter((d) => d.group === group).map(({ id }) => id))
  const expected: { object: Descriptor; digest: Digest }[] = []
  for (const entry of entries.slice(0, descriptors.length + 1)) {
    const relative = member(entry, 'relativeId')
    const ofDescriptor = digestIn(member(entry, 'descriptorDigest'))
    const ofObject = digestIn(member(entry, 'objectDigest'))
    if (!Number.isInteger(relative) || ofDescriptor === null || ofObject === null)
      return failed(unclear)
    const object = linked.find(({ id }) => id === first + Number(relative))
    if (object === undefined)
      return failed(`signature ${signature.id} speaks of an object that is not there`)
    const fields = descriptorFields(object, Number(relative))
    if (digestOf(ofDescriptor.algorithm, fields) !== ofDescriptor.hex)
      return failed(`the descriptor of object ${object.id} is not the one that was signed`)
    expected.push({ object, digest: ofObject })
  }
  const wantedOf = ({ object, digest }: (typeof expected)[number]): Wanted => ({
    algorithm: digest.algorithm,
    objects: [object],
  })
  return {
    wanted: expected.map(wantedOf),
    compare(digests) {
      const covers: number[] = []
      for (const one of expected) {
        const found = digests.get(keyOf(wantedOf(one)))
        if (found !== undefined && found !== one.digest.hex) {
          const problem = `the bytes of object ${one.object.id} are not those that were signed`
          return { covers: [], problem }
        }
        if (found !== undefined) covers.push(one.object.id)
      }
      return { covers, problem: null }
    },
  }
}

function digestOf(algorithm: Algorithm, pieces: Uint8Array[]): string {
  const hash = hasher(algorithm)
  for (const piece of pieces) hash.update(piece)
  return hash.hex()
}

/** Launch script, magic, version and UUID: not the arch, which a signature leaves open. */
const headerFields = (header: Uint8Array) => [header.subarray(0, 45), header.subarray(48, 64)]

/** Type, used, link, size, creation time, uid, gid, name and extra, with the id within the group. */
function descriptorFields({ bytes }: Descriptor, relativeId: number): Uint8Array[] {
  const all = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const id = new Uint8Array(4)
  new DataView(id.buffer).setUint32(0, relativeId, true)
  return [
    all.subarray(0, 5),
    id,
    all.subarray(13, 17),
    all.subarray(25, 33),
    all.subarray(41, 49),
    all.subarray(57),
  ]
}
