/** Reads what a SIF file says about itself: arch, signatures, definition, labels, partitions. */
import { RegistryError } from '../errors.ts'
import type { SifFacts } from './model.ts'

/** Reads exactly `length` bytes from `start`; both lie within the file. */
export type ReadRange = (start: number, length: number) => Promise<Uint8Array>

// The budget of R51.
export const FIRST_READ = 32_768
const MAX_READS = 16
const MAX_USED = 512
const MAX_TABLE = 1024 * 1024
const MAX_TEXT = 256 * 1024
const MAX_LABELS = 1000
const MAX_LABEL_KEY = 256
const MAX_LABEL_VALUE = 4096
const MAX_JSON_DEPTH = 64

const HEADER_SIZE = 128
const DESCRIPTOR_SIZE = 585
const MAGIC = 'SIF_MAGIC\0'
const VERSION = '01\0'

const TYPE = {
  definition: 0x4001,
  labels: 0x4003,
  partition: 0x4004,
  signature: 0x4005,
  json: 0x4006,
} as const

const PRIMARY = 2
const ENCRYPTED = [5, 6]
const PARTITION_TYPES = ['', 'system', 'primary', 'data', 'overlay']
const FILESYSTEMS = [
  '',
  'squashfs',
  'ext3',
  'archive',
  'raw',
  'encrypted-squashfs',
  'gocryptfs-squashfs',
]
/** GOARCH words in the order of SIF's two-digit codes, 01 first. */
const ARCHES = [
  '386',
  'amd64',
  'arm',
  'arm64',
  'ppc64',
  'ppc64le',
  'mips',
  'mipsle',
  'mips64',
  'mips64le',
  's390x',
  'riscv64',
  'loong64',
]

/** A used descriptor: numbers are known to lie within the file, `bytes` are all 585 of it. */
export type Descriptor = {
  id: number
  type: number
  /** Number of the object group; 0 is none. */
  group: number
  /** Raw linked id: `0xf0000000 | group`, or the id of an object; 0 is none. */
  link: number
  offset: number
  size: number
  bytes: DataView
}

/** What stands before the objects. */
export type SifTable = {
  /** The first 128 bytes. */
  header: Uint8Array
  /** GOARCH word of the header; null when it names none. */
  arch: string | null
  descriptors: Descriptor[]
}

/**
 * Inspects a SIF file of `size` bytes (protocol.md §10) in at most 16 reads, the first one of at
 * most 32 KiB from 0. Throws `invalid` naming the field when the file is no SIF, lies about its
 * own structure or passes a bound of R51. Texts too large are cut, and labels that cannot be read
 * are left out; `truncated` names those fields. Partition types are `system`, `primary`, `data`,
 * `overlay`; filesystems `squashfs`, `ext3`, `archive`, `raw`, `encrypted-squashfs`,
 * `gocryptfs-squashfs`; `unknown` otherwise. An OCI-SIF has arch `unknown`.
 */
export async function inspectSif(read: ReadRange, size: number): Promise<SifFacts> {
  const source = await openSource(read, size)
  const { arch, descriptors } = await readTable(source, size)
  const partitions = descriptors.filter((d) => d.type === TYPE.partition)
  const primary = partitions.find(isPrimary)
  const signatures = descriptors.filter(isSignature)
  const truncated: string[] = []
  const definition = descriptors.find((d) => d.type === TYPE.definition)
  return {
    arch: arch ?? (primary && partitionArch(primary)) ?? 'unknown',
    signed: signatures.length > 0,
    fingerprints: fingerprintsOf(signatures),
    encrypted: primary !== undefined && ENCRYPTED.includes(primary.bytes.getInt32(201, true)),
    definition: definition ? await readDefinition(source, definition, truncated) : null,
    labels: await readLabels(source, descriptors, truncated),
    partitions: partitions.map((d) => ({
      name: nameOf(d),
      type: PARTITION_TYPES[d.bytes.getInt32(205, true)] || 'unknown',
      filesystem: FILESYSTEMS[d.bytes.getInt32(201, true)] || 'unknown',
      arch: partitionArch(d) ?? 'unknown',
      size: d.size,
    })),
    truncated,
  }
}

// ---------------------------------------------------------------------------------------------
// Reading within the budget

export type Source = {
  /** The beginning of the file, at most 32 KiB. */
  first: Uint8Array
  /** Bytes of a range inside the file, or null once the reads are used up. */
  read(start: number, length: number): Promise<Uint8Array | null>
}

/** The file of `size` bytes, to be read in at most 16 ranges, the first of which is read here. */
export async function openSource(read: ReadRange, size: number): Promise<Source> {
  if (!Number.isSafeInteger(size) || size < HEADER_SIZE) {
    throw noSif(`it has ${size} bytes, fewer than a SIF header's ${HEADER_SIZE}.`)
  }
  let reads = 0
  const readWhole = async (start: number, length: number) => {
    reads += 1
    const bytes = await read(start, length)
    if (bytes.length === length) return bytes
    throw new RegistryError('internal', 'The store returned another number of bytes than asked.', {
      subject: 'blob',
    })
  }
  const first = await readWhole(0, Math.min(size, FIRST_READ))
  return {
    first,
    async read(start, length) {
      // Ahead of the range check: an empty range is one that stores cannot serve.
      if (length === 0) return new Uint8Array()
      if (start + length <= first.length) return first.subarray(start, start + length)
      return reads < MAX_READS ? readWhole(start, length) : null
    },
  }
}

/** Header and descriptors of a whole file; `invalid`, naming the field, as for `inspectSif`. */
export async function readTable(source: Source, size: number): Promise<SifTable> {
  const header = readHeader(source.first, size)
  const table = await source.read(header.tableOffset, header.total * DESCRIPTOR_SIZE)
  return tableOf(source.first, table ?? new Uint8Array(), header, size)
}

/**
 * Header and descriptors from the first bytes of a file of `size`, as they pass; null when those do
 * not hold all of the table.
 */
export function passingTable(first: Uint8Array, size: number): SifTable | null {
  const header = readHeader(first, size)
  const end = header.tableOffset + header.total * DESCRIPTOR_SIZE
  if (end > first.length) return null
  return tableOf(first, first.subarray(header.tableOffset, end), header, size)
}

function tableOf(first: Uint8Array, table: Uint8Array, header: Header, size: number): SifTable {
  return {
    header: first.subarray(0, HEADER_SIZE),
    arch: header.arch,
    descriptors: table.length === 0 ? [] : readDescriptors(table, header, size),
  }
}

export const isSignature = (d: Descriptor): boolean => d.type === TYPE.signature
export const isPrimary = (d: Descriptor): boolean =>
  d.type === TYPE.partition && d.bytes.getInt32(205, true) === PRIMARY

// ---------------------------------------------------------------------------------------------
// Header and descriptors. Numbers stay BigInt until they are known to lie within the file.

type Header = {
  arch: string | null
  total: number
  tableOffset: number
  tableSize: number
}

function readHeader(first: Uint8Array, size: number): Header {
  if (ascii(first, 32, 10) !== MAGIC) throw noSif('the bytes SIF_MAGIC are not at byte 32.')
  if (ascii(first, 42, 3) !== VERSION) throw noSif('its format version is not 01.')
  const view = viewOf(first)
  const total = view.getBigInt64(88, true)
  const tableOffset = view.getBigInt64(96, true)
  const tableSize = view.getBigInt64(104, true)
  if (tableSize < 0n || tableSize > BigInt(MAX_TABLE)) {
    throw broken(`the descriptor table size is ${tableSize} bytes, not between 0 and ${MAX_TABLE}.`)
  }
  if (total < 0n || total * BigInt(DESCRIPTOR_SIZE) > tableSize) {
    throw broken(`the number of descriptors is ${total}, which the table has no room for.`)
  }
  if (tableOffset < BigInt(HEADER_SIZE) || tableOffset + tableSize > BigInt(size)) {
    throw broken(
      `the descriptor table offset is ${tableOffset}, so the table is not inside the file.`,
    )
  }
  return {
    arch: archOf(ascii(first, 45, 3)),
    total: Number(total),
    tableOffset: Number(tableOffset),
    tableSize: Number(tableSize),
  }
}

function readDescriptors(table: Uint8Array, header: Header, size: number): Descriptor[] {
  const descriptors: Descriptor[] = []
  for (let index = 0; index < header.total; index++) {
    const start = index * DESCRIPTOR_SIZE
    const bytes = viewOf(table.subarray(start, start + DESCRIPTOR_SIZE))
    if (bytes.getUint8(4) === 0) continue
    if (descriptors.length === MAX_USED) {
      throw broken(`the number of used descriptors is over ${MAX_USED}.`)
    }
    const id = bytes.getUint32(5, true)
    const offset = bytes.getBigInt64(17, true)
    const length = bytes.getBigInt64(25, true)
    if (offset < 0n) throw broken(`the offset of object ${id} is negative.`)
    if (length < 0n) throw broken(`the size of object ${id} is negative.`)
    if (offset + length > BigInt(size)) {
      throw broken(
        `object ${id} ends at byte ${offset + length}, past the end of the file at ${size}.`,
      )
    }
    descriptors.push({
      id,
      type: bytes.getInt32(0, true),
      // the upper four bits only say that it is a group
      group: bytes.getUint32(9, true) & 0x0fffffff,
      link: bytes.getUint32(13, true),
      offset: Number(offset),
      size: Number(length),
      bytes,
    })
  }
  refuseOverlap(descriptors, header)
  return descriptors
}

function refuseOverlap(descriptors: Descriptor[], { tableOffset, tableSize }: Header): void {
  const areas = [
    { what: 'the header', offset: 0, size: HEADER_SIZE },
    { what: 'the descriptor table', offset: tableOffset, size: tableSize },
    ...descriptors.map((d) => ({ what: `object ${d.id}`, offset: d.offset, size: d.size })),
  ]
    .filter((area) => area.size > 0)
    .sort((a, b) => a.offset - b.offset)
  for (const [index, area] of areas.entries()) {
    const next = areas[index + 1]
    if (next && area.offset + area.size > next.offset) {
      throw broken(`the offset ${next.offset} of ${next.what} lies inside ${area.what}.`)
    }
  }
}

/** A text field of fixed width, cut at its first NUL. */
export function nameOf(descriptor: Descriptor): string {
  const { buffer, byteOffset } = descriptor.bytes
  const field = new Uint8Array(buffer, byteOffset + 73, 128)
  const end = field.indexOf(0)
  return new TextDecoder().decode(end < 0 ? field : field.subarray(0, end))
}

function archOf(code: string): string | null {
  return /^\d\d\0$/.test(code) ? (ARCHES[Number(code.slice(0, 2)) - 1] ?? null) : null
}

export function partitionArch({ bytes }: Descriptor): string | null {
  return archOf(ascii(new Uint8Array(bytes.buffer, bytes.byteOffset, DESCRIPTOR_SIZE), 209, 3))
}

function fingerprintsOf(signatures: Descriptor[]): string[] {
  return [...new Set(signatures.map(claimedBy))].filter((fingerprint) => fingerprint !== null)
}

/** The fingerprint (40 upper-case hex digits) that a signature's descriptor names, if any. */
export function claimedBy({ bytes }: Descriptor): string | null {
  const field = new Uint8Array(bytes.buffer, bytes.byteOffset + 205, 20)
  const hex = Array.from(field, (byte) => byte.toString(16).padStart(2, '0')).join('')
  return /[^0]/.test(hex) ? hex.toUpperCase() : null
}

// ---------------------------------------------------------------------------------------------
// Texts and labels

async function readDefinition(
  source: Source,
  object: Descriptor,
  truncated: string[],
): Promise<string | null> {
  const length = Math.min(object.size, MAX_TEXT)
  const bytes = await source.read(object.offset, length)
  if (bytes === null) return null
  const cut = length < object.size
  // `stream` leaves out a character that the cut split; `fit` is for bytes that are no UTF-8,
  // which grow threefold when replaced.
  const text = new TextDecoder().decode(bytes, { stream: cut })
  const fit = text.slice(0, new TextEncoder().encodeInto(text, new Uint8Array(MAX_TEXT)).read)
  if (cut || fit.length < text.length) truncated.push('definition')
  return fit
}

/** Labels of the inspect metadata, completed by Labels objects; the first of a key stands. */
async function readLabels(
  source: Source,
  descriptors: Descriptor[],
  truncated: string[],
): Promise<Record<string, string>> {
  const metadata = descriptors.filter(
    (d) => d.type === TYPE.json && nameOf(d) === 'inspect-metadata.json',
  )
  const plain = descriptors.filter((d) => d.type === TYPE.labels)
  const labels = new Map<string, string>()
  let room = MAX_TEXT
  let complete = true
  for (const object of [...metadata, ...plain]) {
    if (object.size === 0) continue
    const bytes = object.size > MAX_TEXT ? null : await source.read(object.offset, object.size)
    const json = bytes && parseJson(new TextDecoder().decode(bytes))
    if (!json) {
      complete = false
      continue
    }
    const found =
      object.type === TYPE.labels
        ? json.value
        : member(member(member(json.value, 'data'), 'attributes'), 'labels')
    if (typeof found !== 'object' || found === null || Array.isArray(found)) continue
    for (const [rawKey, rawValue] of Object.entries(found)) {
      if (!['string', 'number', 'boolean'].includes(typeof rawValue)) continue
      const text = String(rawValue)
      const key = rawKey.slice(0, MAX_LABEL_KEY).toWellFormed()
      const value = text.slice(0, MAX_LABEL_VALUE).toWellFormed()
      if (rawKey.length > MAX_LABEL_KEY || text.length > MAX_LABEL_VALUE) complete = false
      if (labels.has(key)) continue
      room -= new TextEncoder().encode(key + value).length
      if (labels.size === MAX_LABELS || room < 0) {
        truncated.push('labels')
        return Object.fromEntries(labels)
      }
      labels.set(key, value)
    }
  }
  if (!complete) truncated.push('labels')
  // Object.fromEntries defines properties, so a key `__proto__` is an ordinary one.
  return Object.fromEntries(labels)
}

/** An own member of a JSON object; undefined where there is none. */
export function member(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, key)
    ? (value as Record<string, unknown>)[key]
    : undefined
}

/** The parsed text, or null when it is no JSON or nested too deeply to be parsed safely. */
export function parseJson(text: string): { value: unknown } | null {
  if (depthOf(text) > MAX_JSON_DEPTH) return null
  try {
    return { value: JSON.parse(text) as unknown }
  } catch {
    return null
  }
}

/** Deepest nesting of brackets outside strings; linear, and right for every valid JSON text. */
function depthOf(text: string): number {
  let depth = 0
  let deepest = 0
  let inString = false
  for (let i = 0; i < text.length; i++) {
    const c = text[i]
    if (inString) {
      if (c === '\\') i++
      else if (c === '"') inString = false
    } else if (c === '"') inString = true
    else if (c === '{' || c === '[') deepest = Math.max(deepest, ++depth)
    else if (c === '}' || c === ']') depth--
  }
  return deepest
}

// ---------------------------------------------------------------------------------------------

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

function ascii(bytes: Uint8Array, start: number, length: number): string {
  return String.fromCharCode(...bytes.subarray(start, start + length))
}

function noSif(reason: string): RegistryError {
  return new RegistryError('invalid', `This file is no SIF image: ${reason}`, { subject: 'image' })
}

function broken(reason: string): RegistryError {
  return new RegistryError('invalid', `This SIF image is broken: ${reason}`, { subject: 'image' })
}
