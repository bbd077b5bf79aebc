/**
 * The one file that a registry moves in (decision 0013), written and read as a stream: a line that
 * names the format, records as lines of JSON, after each `blob` record its bytes, and at the end a
 * SHA-256 over everything before.
 */
import { isRegistryError, RegistryError } from '../errors.ts'
import type { Bytes } from '../ports.ts'
import { EMPTY_DIGEST } from './derived.ts'
import { hasher } from './digest.ts'
import type { Import, ImportReport, MovedRow } from './model.ts'
import { checkRow } from './moved-rows.ts'

const FORMAT = 'sreg-lite export 1'
/** Longest line that is read, in bytes: texts are bounded by the bodies that set them, keys by R53. */
const LONGEST_LINE = 2 * 1024 * 1024
/** Rows are staged in pages of about this many characters of JSON, and at most so many rows. */
const PAGE_CHARS = 256 * 1024
const PAGE_ROWS = 500

const utf8 = new TextEncoder()

/** Where an export comes from. */
export type ArchiveHead = {
  type: 'head'
  /** Of this very export; the same file is never imported twice. */
  exportId: string
  registryId: string
  /** Ids (`kid`) of the keys that the source's tokens are signed with, the current one first. */
  keys: string[]
  /** ms since 1970. */
  createdAt: number
}

/** A registry that is read, here or over HTTP. */
export type ArchiveSource = {
  head(): Promise<ArchiveHead>
  /**
   * Rows after `cursor` (null: from the start), what can be deleted before what is in it, tags before
   * their images, users last.
   */
  page(cursor: string | null): Promise<{ rows: MovedRow[]; cursor: string | null }>
  blob(digest: string, size: number): Bytes
}

/** A registry that is written, here or over HTTP. Nothing is visible before `finish`. */
export type ArchiveSink = {
  open(head: ArchiveHead): Promise<Import>
  rows(id: string, rows: MovedRow[]): Promise<void>
  /** Takes the bytes or leaves them when they are there already. */
  blob(id: string, blob: { digest: string; size: number }, bytes: Bytes): Promise<void>
  finish(
    id: string,
    end: { head: ArchiveHead; rows: number; sha256: string },
  ): Promise<ImportReport>
  abort(id: string): Promise<void>
}

/** What a person is told while it goes on. */
export type Progress = (at: { rows: number; blobs: number; bytes: number }) => void

/**
 * The whole file, chunk by chunk. `secrets`, when given, stand behind the head: whoever has the file
 * is then as powerful as the source's administrator.
 *
 * The registry changes while it is read. What was made in a place after that place was read is left
 * out; tags are read before the images they point at, so that an image a tag needs is found unless it
 * was deleted meanwhile: such a tag is left out, too.
 */
export async function* writeArchive(
  source: ArchiveSource,
  options: { secrets?: unknown; progress?: Progress } = {},
): AsyncGenerator<Uint8Array> {
  const hash = hasher()
  const at = { rows: 0, blobs: 0, bytes: 0 }
  let records = 0
  const counted = (bytes: Uint8Array): Uint8Array => {
    hash.update(bytes)
    return bytes
  }
  const lines = (values: unknown[]): Uint8Array => {
    records += values.length
    return counted(utf8.encode(values.map((value) => `${JSON.stringify(value)}\n`).join('')))
  }

  yield counted(utf8.encode(`${FORMAT}\n`))
  yield lines([await source.head()])
  if (options.secrets !== undefined) yield lines([{ type: 'secrets', secrets: options.secrets }])

  const tags: Extract<MovedRow, { type: 'tag' | 'ociTag' }>[] = []
  const fits = placesRead()
  const sizes = new Map<string, number>()
  let cursor: string | null = null
  do {
    const page = await source.page(cursor)
    const rows: MovedRow[] = []
    for (const row of page.rows) {
      if (row.type === 'tag' || row.type === 'ociTag') {
        tags.push(row)
        continue
      }
      if (!fits(row)) continue
      if (row.type === 'image') sizes.set(row.digest, row.size)
      if (row.type === 'membership') sizes.set(row.sha256, row.size)
      rows.push(row)
    }
    at.rows += rows.length
    if (rows.length > 0) yield lines(rows)
    cursor = page.cursor
  } while (cursor !== null)
  for (let from = 0; from < tags.length; from += PAGE_ROWS) {
    const rows = tags.slice(from, from + PAGE_ROWS).filter(fits)
    at.rows += rows.length
    if (rows.length > 0) yield lines(rows)
  }

  for (const [digest, size] of sizes) {
    yield lines([{ type: 'blob', digest, size }])
    let left = size
    for await (const chunk of source.blob(digest, size)) {
      left -= chunk.length
      at.bytes += chunk.length
      yield counted(chunk)
      options.progress?.(at)
    }
    if (left !== 0)
      throw new RegistryError(
        'internal',
        `The stored bytes of the image ${digest} are damaged: ${size} were expected and ${size - left} found. Push it again, then export again.`,
        { subject: 'blob' },
      )
    at.blobs += 1
    options.progress?.(at)
  }
  yield utf8.encode(`${endLine(records, hash.hex())}\n`)
}

type Place = 'entity' | 'collection' | 'container' | 'image' | 'team' | 'blob' | 'manifest'

/**
 * Tells of one row after the other whether the places it needs have been read. A server of an older
 * version sends a place after what is in it, and nothing that is in teams: then nothing is left out.
 */
function placesRead(): (row: MovedRow) => boolean {
  const read = new Map<Place, Set<string>>([
    ['image', new Set()],
    ['team', new Set()],
    ['blob', new Set()],
    ['manifest', new Set()],
  ])
  const has = (place: Place, id: string) => read.get(place)?.has(id) ?? true
  const add = (place: Place, id: string) => {
    const ids = read.get(place) ?? new Set()
    read.set(place, ids.add(id))
    return true
  }
  return (row) => {
    switch (row.type) {
      case 'entity':
      case 'team':
        return add(row.type, row.id)
      case 'collection':
        return has('entity', row.entityId) && add(row.type, row.id)
      case 'container':
        return has('collection', row.collectionId) && add(row.type, row.id)
      case 'image':
        add('blob', `${row.containerId}/sha256:${row.digest}`)
        return has('container', row.containerId) && add(row.type, row.id)
      case 'membership':
        return has('container', row.containerId) && add('blob', `${row.containerId}/${row.digest}`)
      case 'manifest':
        return (
          has('container', row.containerId) &&
          row.blobs.every(
            // the config of a SIF's manifest: a repository that has an image has it
            (digest) => digest === EMPTY_DIGEST || has('blob', `${row.containerId}/${digest}`),
          ) &&
          add('manifest', `${row.containerId}/${row.digest}`)
        )
      case 'piece':
      case 'ociTag':
        return has('manifest', `${row.containerId}/${row.manifest}`)
      case 'tag':
        return has('image', row.imageId)
      case 'grant':
        return (
          has('collection', row.collectionId) &&
          (row.holder === 'user' || has('team', row.holderId))
        )
      case 'member':
        return has('team', row.teamId)
      case 'star':
      case 'pulls':
        return has('container', row.containerId)
      case 'token':
      case 'key':
      case 'user':
        return true
    }
  }
}

const endLine = (records: number, sha256: string) =>
  JSON.stringify({ type: 'end', records, sha256 })

/**
 * Reads a file into a sink and finishes the import; whatever is wrong with the file is `invalid`,
 * and nothing of it stays. `report` is null when the same file was imported before.
 * `onSecrets` is told of the secrets, before `finish` and without trust in the file yet.
 */
export async function readArchive(
  file: Bytes,
  sink: ArchiveSink,
  options: { onSecrets?: (secrets: unknown) => Promise<void>; progress?: Progress } = {},
): Promise<{ report: ImportReport | null; head: ArchiveHead; hasSecrets: boolean }> {
  const input = reader(file)
  if ((await input.line()) !== FORMAT)
    throw broken('it does not begin as one, or is of a newer version')
  const head = checkHead(parse(await input.line()))
  const opened = await sink.open(head)
  const { id } = opened
  const live = opened.state === 'open'
  const at = { rows: 0, blobs: 0, bytes: 0 }
  let records = 1
  let hasSecrets = false
  let page: MovedRow[] = []
  let chars = 0
  const flush = async () => {
    if (live && page.length > 0) await sink.rows(id, page)
    page = []
    chars = 0
  }

  try {
    for (;;) {
      const before = input.hex()
      const line = await input.line()
      const record = parse(line)
      if (record.type === 'end') {
        if (line !== endLine(records, before))
          throw broken('its checksum is wrong, so it was altered or damaged')
        if (await input.more()) throw broken('something follows its end')
        break
      }
      records += 1
      if (record.type === 'secrets') {
        hasSecrets = true
        await options.onSecrets?.(record.secrets)
      } else if (record.type === 'blob') {
        await flush()
        const blob = checkBlob(record)
        const bytes = input.bytes(blob.size)
        if (live) await sink.blob(id, blob, bytes)
        await bytes.skip()
        at.blobs += 1
        at.bytes += blob.size
      } else {
        const row = checkRow(record)
        if (chars + line.length > PAGE_CHARS || page.length === PAGE_ROWS) await flush()
        page.push(row)
        chars += line.length
        // the last piece of a manifest makes the sink read all of it
        if (row.type === 'piece') await flush()
        at.rows += 1
      }
      options.progress?.(at)
    }
    await flush()
    const sha256 = input.hex()
    if (live)
      return {
        report: await sink.finish(id, { head, rows: at.rows, sha256 }),
        head,
        hasSecrets,
      }
    if (opened.sha256 !== sha256) throw broken('another file of the same id was imported before')
    return { report: null, head, hasSecrets }
  } catch (error) {
    // what is wrong with the file stays wrong; a connection that broke may go on later
    const lasting = isRegistryError(error) && !isRegistryError(error, 'unavailable', 'internal')
    if (live && lasting) await sink.abort(id).catch(() => undefined)
    throw error
  }
}

const broken = (why: string, cause?: unknown) =>
  new RegistryError(
    'invalid',
    `This file is no whole export of sreg-lite: ${why}. Nothing was imported.`,
    { cause },
  )

type Json = Record<string, unknown>

function parse(line: string): Json {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch (error) {
    throw broken('one of its lines is not JSON', error)
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Json
  throw broken('one of its lines is no record')
}

/** The head of an export as it came from somewhere; `invalid` when it is none. */
export function checkHead(value: Json): ArchiveHead {
  const { type, exportId, registryId, keys, createdAt } = value
  const short = (text: unknown): text is string => typeof text === 'string' && text.length <= 256
  if (type !== 'head' || !short(exportId) || !/^[0-9a-f]{24}$/.test(exportId))
    throw broken('its head is damaged')
  if (!short(registryId) || !Array.isArray(keys) || keys.length > 100 || !keys.every(short))
    throw broken('its head is damaged')
  if (typeof createdAt !== 'number') throw broken('its head is damaged')
  return { type, exportId, registryId, keys, createdAt }
}

function checkBlob({ digest, size }: Json): { digest: string; size: number } {
  if (typeof digest !== 'string' || !/^[0-9a-f]{64}$/.test(digest)) throw broken('a digest is none')
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0)
    throw broken('a size is none')
  return { digest, size }
}

/** Lines and counted bytes from a stream, hashed as they are taken. */
function reader(file: Bytes) {
  const chunks = file[Symbol.asyncIterator]()
  const hash = hasher()
  let rest: Uint8Array = new Uint8Array()
  const cut = () => broken('it ends early')

  /** Makes sure that something is at hand; false at the end of the file. */
  async function more(): Promise<boolean> {
    while (rest.length === 0) {
      const { done, value } = await chunks.next()
      if (done === true) return false
      rest = value
    }
    return true
  }

  function take(length: number): Uint8Array {
    const taken = rest.subarray(0, length)
    rest = rest.subarray(length)
    hash.update(taken)
    return taken
  }

  return {
    more,
    /** SHA-256 of everything taken so far. */
    hex: () => hash.hex(),

    async line(): Promise<string> {
      const parts: Uint8Array[] = []
      let size = 0
      for (;;) {
        if (!(await more())) throw cut()
        const end = rest.indexOf(10)
        const part = take(end < 0 ? rest.length : end + 1)
        parts.push(part)
        size += part.length
        if (size > LONGEST_LINE) throw broken('one of its lines is too long')
        if (end >= 0) break
      }
      const whole = new Uint8Array(size)
      let filled = 0
      for (const part of parts) {
        whole.set(part, filled)
        filled += part.length
      }
      try {
        return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(
          whole.subarray(0, -1),
        )
      } catch (error) {
        throw broken('one of its lines is no text', error)
      }
    },

    /** The next `size` bytes; `skip` passes over those that nobody took. */
    bytes(size: number): Bytes & { skip(): Promise<void> } {
      let left = size
      const next = async (): Promise<IteratorResult<Uint8Array, undefined>> => {
        if (left === 0) return { done: true, value: undefined }
        if (!(await more())) throw cut()
        const value = take(left)
        left -= value.length
        return { done: false, value }
      }
      return {
        // without `return`: leaving the loop early must not end the file
        [Symbol.asyncIterator]: () => ({ next }),
        async skip() {
          for (let done: boolean | undefined = false; done !== true;) ({ done } = await next())
        },
      }
    },
  }
}
