/**
 * The BlobStore on a bucket of Cloudflare R2 by its binding: `blobs/<key>` holds the bytes,
 * `registry-id` the id. R2 itself checks the SHA-256 of whole blobs and the etags of parts.
 */
import type { R2Bucket, R2Object, R2ObjectBody, R2PutOptions } from '@cloudflare/workers-types'
import { endedEarly } from '../../src/app.ts'
import { isRegistryError, RegistryError } from '../../src/errors.ts'
import type { BlobInfo, BlobRead, BlobStore, Bytes } from '../../src/ports.ts'
import { chunksOf } from '../cloudflare/chunks.ts'
import {
  checkId,
  checkKeys,
  checkPart,
  checkParts,
  checkPlan,
  checkSize,
  clipRange,
  etagOf,
  keyTaken,
  noSuchUpload,
  otherRegistry,
  receive,
  type Plan,
  type ReceiveOptions,
} from './rules.ts'

const PREFIX = 'blobs/'
const ID_OBJECT = 'registry-id'
/** Keys of one call, by R2's own limit. */
const MOST_KEYS = 1000
/** Holds only where the key has no object yet: keys are written once (R1). */
const ONLY_NEW = { etagDoesNotMatch: '*' } as const

/** R2's error codes, which stand in brackets at the end of its messages. */
const NO_SUCH_UPLOAD = 10024
const WRONG_PARTS = [10011, 10025, 10048]
const BAD_DIGEST = 10037

/** Ways for bytes into R2: a stream whose length it knows, or what is no stream at all. */
type Take<T> = (value: ReadableStream<Uint8Array> | Uint8Array) => Promise<T>

/**
 * A store in `bucket`, which is the registry's alone. A body that brings `native` goes to R2 without
 * waking JavaScript, unless its chunks must be seen: where a part has a SHA-256 or a listener.
 *
 * Uploads in parts whose handle was lost cannot be found by the binding, which lists none; R2 drops
 * them after seven days by itself.
 */
export function r2Blobs(bucket: R2Bucket): BlobStore {
  /** Writers of parts in this isolate, by upload and part. R2 decides between isolates, by etag. */
  const writers = new Map<string, AbortController>()

  /** Ends a writer, or all of an upload (R1). What it has under way in R2 is never completed. */
  function endWriters(name: string, reason: RegistryError): void {
    for (const [writer, stop] of writers)
      if (writer === name || writer.startsWith(`${name}/`)) {
        writers.delete(writer)
        stop.abort(reason)
      }
  }

  async function head(key: string): Promise<BlobInfo | null> {
    checkKeys(key)
    const object = await bucket.head(PREFIX + key)
    return object === null ? null : infoOf(key, object)
  }

  async function finished(key: string, { size }: Plan, parts: number): Promise<BlobInfo | null> {
    const object = await bucket.head(PREFIX + key)
    if (object === null) return null
    // R2 marks objects made of parts by their number; anything else got its bytes otherwise (R1).
    const planned = size === null || object.size === size
    if (!planned || !object.etag.endsWith(`-${parts}`)) throw keyTaken()
    return infoOf(key, object)
  }

  return {
    async put(key, body, size, sha256) {
      checkKeys(key)
      // R2 looks at the condition last: a taken key should not cost its body
      if ((await head(key)) !== null) throw keyTaken()
      const options: R2PutOptions = {
        onlyIf: ONLY_NEW,
        ...(sha256 === undefined ? {} : { sha256 }),
      }
      const object = await store(body, size, {}, (value) =>
        // the types of workerd and of the DOM name the same streams
        bucket.put(PREFIX + key, value as never, options),
      )
      if (object === null) throw keyTaken()
      if (object.size === size) return infoOf(key, object)
      await bucket.delete(PREFIX + key)
      throw wrongSize(size, object.size)
    },

    async get(key, range) {
      checkKeys(key)
      const wanted =
        range === undefined
          ? {}
          : { range: { offset: range.start, length: range.end - range.start + 1 } }
      const object = await bucket.get(PREFIX + key, wanted).catch(async (error: unknown) => {
        // R2 has more than one word for a range past the end
        const info = range === undefined ? null : await head(key)
        if (info !== null) clipRange(info.size, range)
        throw error
      })
      return object === null ? null : readOf(key, object, range)
    },

    head,

    async delete(keys) {
      checkKeys(...keys)
      for (let at = 0; at < keys.length; at += MOST_KEYS)
        await bucket.delete(keys.slice(at, at + MOST_KEYS).map((key) => PREFIX + key))
    },

    async list(cursor, limit) {
      const { objects, truncated } = await bucket.list({
        prefix: PREFIX,
        limit: Math.min(limit, MOST_KEYS),
        // not R2's cursor: ours must hold when keys vanish between pages
        ...(cursor === null ? {} : { startAfter: PREFIX + cursor }),
      })
      const blobs = objects.map(({ key, uploaded }) => ({
        key: key.slice(PREFIX.length),
        modifiedAt: new Date(uploaded.getTime()),
      }))
      return { blobs, cursor: truncated ? (blobs.at(-1)?.key ?? null) : null }
    },

    async startParts(key, size, partSize) {
      checkPlan({ size, partSize })
      if ((await head(key)) !== null) throw keyTaken()
      const { uploadId } = await bucket.createMultipartUpload(PREFIX + key)
      return `${key}.${size ?? '-'}.${partSize}.${uploadId}`
    },

    async putPart(key, handle, number, body, size, options = {}) {
      checkKeys(key)
      const { uploadId, ...plan } = openHandle(key, handle)
      checkPart(plan, number, size)
      const name = `${handle}/${number}`
      endWriters(
        name,
        new RegistryError('conflict', `Part ${number} is being sent again.`, { subject: 'upload' }),
      )
      const stop = new AbortController()
      writers.set(name, stop)
      const upload = bucket.resumeMultipartUpload(PREFIX + key, uploadId)
      try {
        const { etag } = await store(body, size, { ...options, signal: stop.signal }, (value) =>
          upload.uploadPart(number, value as never),
        )
        return { etag: `"${etag}"` }
      } catch (error) {
        throw codeOf(error) === NO_SUCH_UPLOAD ? noSuchUpload() : error
      } finally {
        if (writers.get(name) === stop) writers.delete(name)
      }
    },

    async finishParts(key, handle, parts) {
      checkKeys(key)
      const { uploadId, ...plan } = openHandle(key, handle)
      const expected = partsOf(plan) ?? parts.length
      const before = await finished(key, plan, expected)
      if (before !== null) return before
      // which etags were recorded is known to R2 alone
      checkParts(plan, (number) => parts[number - 1]?.etag, parts)
      const upload = bucket.resumeMultipartUpload(PREFIX + key, uploadId)
      try {
        const object = await upload.complete(
          parts.map(({ number, etag }) => ({
            partNumber: number,
            etag: etag.replaceAll('"', ''),
          })),
        )
        endWriters(handle, noSuchUpload())
        return infoOf(key, object)
      } catch (error) {
        const code = codeOf(error)
        if (code !== null && WRONG_PARTS.includes(code))
          throw new RegistryError(
            'invalid',
            'A part is missing or is not the one that was received last.',
            { subject: 'upload', cause: error },
          )
        // the answer to an earlier try may have been lost (R40)
        const after = await finished(key, plan, expected)
        if (after !== null) return after
        throw code === NO_SUCH_UPLOAD ? noSuchUpload() : error
      }
    },

    async abortParts(key, handle) {
      checkKeys(key)
      const opened = handle === null ? null : readHandle(key, handle)
      if (handle === null || opened === null) return
      endWriters(handle, noSuchUpload())
      await bucket
        .resumeMultipartUpload(PREFIX + key, opened.uploadId)
        .abort()
        .catch((error: unknown) => {
          if (codeOf(error) !== NO_SUCH_UPLOAD) throw error
        })
    },

    async space() {
      return null
    },

    async readId() {
      return (await (await bucket.get(ID_OBJECT))?.text()) ?? null
    },

    async writeId(id) {
      checkId(id)
      const made = await bucket.put(ID_OBJECT, id, { onlyIf: ONLY_NEW })
      if (made === null && (await (await bucket.get(ID_OBJECT))?.text()) !== id)
        throw otherRegistry()
    },

    async ping() {
      await bucket.head(ID_OBJECT)
    },
  }
}

function infoOf(key: string, object: R2Object): BlobInfo {
  const checked = object.checksums.sha256
  return {
    size: object.size,
    etag: etagOf(key),
    ...(checked === undefined ? {} : { sha256: Buffer.from(checked).toString('hex') }),
  }
}

function readOf(key: string, object: R2ObjectBody, range?: { start: number; end: number }) {
  // another type's streams, see `put`
  const body = object.body as unknown as ReadableStream<Uint8Array>
  const info = infoOf(key, object)
  let taken = false
  const take = () => {
    taken = true
    return body
  }
  const close = async () => {
    if (!taken) await take().cancel()
  }
  try {
    const read: BlobRead = {
      ...info,
      range: clipRange(info.size, range),
      stream: () => chunksOf(take()),
      native: take,
      close,
    }
    return read
  } catch (error) {
    void close().catch(() => undefined)
    throw error
  }
}

/**
 * Moves a body of exactly `size` bytes into R2. What goes wrong with the body never becomes an
 * object or a part: R2 takes neither before it has all bytes, and the last piece is held back until
 * length and hash are known to be right.
 */
async function store<T>(
  body: Bytes,
  size: number,
  options: ReceiveOptions,
  take: Take<T>,
): Promise<T> {
  checkSize(size)
  const { sha256, onChunk } = options
  const native = size > 0 ? body.native : undefined
  if (native !== undefined && sha256 === undefined && onChunk === undefined)
    return take(native).catch((error: unknown) => {
      // a failure of R2 bears its code; what has none is the body's
      throw codeOf(error) === null ? endedEarly(error) : asRegistryError(error)
    })

  if (size === 0) {
    await receive(body, 0, () => undefined, options)
    return take(new Uint8Array(0))
  }
  const fixed = new FixedLengthStream(size)
  const writer = fixed.writable.getWriter()
  const taking = take(fixed.readable)
  const taken = taking.then(
    () => null,
    (error: unknown) => ({ error }),
  )
  let held: Uint8Array | null = null
  try {
    await receive(
      native === undefined ? body : piecesOf(native),
      size,
      async (chunk) => {
        if (held !== null) await writer.write(held)
        held = chunk
      },
      options,
    )
    if (held !== null) await writer.write(held)
    await writer.close()
  } catch (error) {
    await writer.abort(error).catch(() => undefined)
    const failed = await taken
    // R2 may have given up first: then it is its word that counts
    throw !isRegistryError(error) && failed !== null && codeOf(failed.error) !== null
      ? asRegistryError(failed.error)
      : error
  }
  return taking.catch((error: unknown) => {
    throw asRegistryError(error)
  })
}

/** The pieces of a native body, for `store`, which keeps one while it asks for the next. */
async function* piecesOf(native: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  // not cancelled: the answer is still to be sent on the same connection
  const pieces = chunksOf(native, { cancel: false, reuse: true })
  try {
    for (;;) {
      const { done, value } = await pieces.next().catch((error: unknown) => {
        throw endedEarly(error)
      })
      if (done === true) return
      yield value
    }
  } finally {
    await pieces.return()
  }
}

function asRegistryError(error: unknown): unknown {
  return codeOf(error) === BAD_DIGEST
    ? new RegistryError('digest_mismatch', 'The bytes received have another SHA-256.', {
        subject: 'blob',
        cause: error,
      })
    : error
}

/** The code of an R2 error, null for anything else. */
function codeOf(error: unknown): number | null {
  const digits = error instanceof Error ? /\((\d+)\)$/.exec(error.message)?.[1] : undefined
  return digits === undefined ? null : Number(digits)
}

/** Parts that an upload must have; null where its size is not known. */
const partsOf = ({ size, partSize }: Plan) => (size === null ? null : Math.ceil(size / partSize))

function readHandle(key: string, handle: string): (Plan & { uploadId: string }) | null {
  const [, owner, size, partSize, uploadId] =
    /^([0-9a-f]{24})\.(\d+|-)\.(\d+)\.([^/\s]+)$/.exec(handle) ?? []
  if (owner !== key || uploadId === undefined) return null
  return { size: size === '-' ? null : Number(size), partSize: Number(partSize), uploadId }
}

/** Throws `not_found` for a handle that no `startParts` of this key gave. */
function openHandle(key: string, handle: string): Plan & { uploadId: string } {
  const opened = readHandle(key, handle)
  if (opened === null) throw noSuchUpload()
  return opened
}

const wrongSize = (size: number, came: number) =>
  new RegistryError('size_mismatch', `${size} bytes were announced, ${came} came.`, {
    subject: 'blob',
  })
