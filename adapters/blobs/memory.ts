/** The BlobStore that keeps everything in memory, for tests and trials. */
import type { BlobInfo, BlobStore, Bytes, Clock } from '../../src/ports.ts'
import {
  beingFinished,
  checkId,
  checkKeys,
  checkPart,
  checkParts,
  checkPlan,
  clipRange,
  etagOf,
  keyTaken,
  noSpace,
  noSuchUpload,
  otherRegistry,
  pageOf,
  partWriters,
  randomName,
  receive,
  sizeOfParts,
  type PartWriters,
  type Plan,
  type ReceiveOptions,
} from './rules.ts'

const READ_SIZE = 256 * 1024

type Upload = Plan & {
  state: 'open' | 'finishing' | 'ended'
  parts: Map<number, { etag: string; bytes: Uint8Array }>
  writers: PartWriters
}

/**
 * A store that ends with the process. `limit` is its capacity in bytes, parts on their way
 * included, to act out a full store; `clock` dates the blobs, which are all from 1970 without it.
 */
export function memoryBlobs({
  limit = Infinity,
  clock = { now: () => new Date(0) },
}: { limit?: number; clock?: Clock } = {}): BlobStore {
  const blobs = new Map<string, { bytes: Uint8Array; modifiedAt: Date }>()
  const uploads = new Map<string, Upload>()
  let registryId: string | null = null
  let used = 0

  async function take(body: Bytes, size: number, options: ReceiveOptions): Promise<Uint8Array> {
    const chunks: Uint8Array[] = []
    let held = 0
    const keep = (chunk: Uint8Array) => {
      if (used + chunk.length > limit) throw noSpace()
      used += chunk.length
      held += chunk.length
      chunks.push(chunk)
    }
    try {
      await receive(body, size, keep, options)
      return Buffer.concat(chunks)
    } catch (error) {
      used -= held
      throw error
    }
  }

  function info(key: string): BlobInfo | null {
    const blob = blobs.get(key)
    return blob === undefined ? null : { size: blob.bytes.length, etag: etagOf(key) }
  }

  function forgetPart(upload: Upload, number: number): void {
    used -= upload.parts.get(number)?.bytes.length ?? 0
    upload.parts.delete(number)
  }

  async function drop(id: string, upload: Upload): Promise<void> {
    upload.state = 'ended'
    uploads.delete(id)
    await upload.writers.end(noSuchUpload())
    for (const number of upload.parts.keys()) forgetPart(upload, number)
  }

  return {
    async put(key, body, size, sha256) {
      checkKeys(key)
      if (blobs.has(key)) throw keyTaken()
      const bytes = await take(body, size, { sha256 })
      if (blobs.has(key)) {
        used -= bytes.length
        throw keyTaken()
      }
      blobs.set(key, { bytes, modifiedAt: clock.now() })
      return { size, etag: etagOf(key) }
    },

    async get(key, range) {
      checkKeys(key)
      const blob = blobs.get(key)
      if (blob === undefined) return null
      const { bytes } = blob
      const served = clipRange(bytes.length, range)
      return {
        size: bytes.length,
        etag: etagOf(key),
        range: served,
        async *stream() {
          for (let at = served.start; at <= served.end; at += READ_SIZE) {
            // A copy (slice() of a Buffer is none): what a consumer does to its chunk must not
            // reach the blob (R1).
            yield new Uint8Array(bytes.subarray(at, Math.min(at + READ_SIZE, served.end + 1)))
          }
        },
        async close() {},
      }
    },

    async head(key) {
      checkKeys(key)
      return info(key)
    },

    async delete(keys) {
      checkKeys(...keys)
      for (const key of keys) {
        used -= blobs.get(key)?.bytes.length ?? 0
        blobs.delete(key)
      }
    },

    async list(cursor, limit) {
      const sorted = [...blobs.keys()].filter((key) => cursor === null || key > cursor).sort()
      const page = pageOf(sorted, limit)
      const dated = page.keys.flatMap((key) => {
        const blob = blobs.get(key)
        return blob === undefined ? [] : [{ key, modifiedAt: blob.modifiedAt }]
      })
      return { blobs: dated, cursor: page.cursor }
    },

    async startParts(key, size, partSize) {
      checkKeys(key)
      checkPlan({ size, partSize })
      if (blobs.has(key)) throw keyTaken()
      const handle = randomName()
      uploads.set(`${key}.${handle}`, {
        size,
        partSize,
        state: 'open',
        parts: new Map(),
        writers: partWriters(),
      })
      return handle
    },

    async putPart(key, handle, number, body, size, options) {
      checkKeys(key)
      const upload = uploads.get(`${key}.${handle}`)
      if (upload === undefined) throw noSuchUpload()
      if (upload.state === 'finishing') throw beingFinished()
      checkPart(upload, number, size)
      return upload.writers.run(number, async (signal) => {
        forgetPart(upload, number)
        const bytes = await take(body, size, { ...options, signal })
        const etag = `"${randomName()}"`
        upload.parts.set(number, { etag, bytes })
        return { etag }
      })
    },

    async finishParts(key, handle, parts) {
      checkKeys(key)
      const id = `${key}.${handle}`
      const upload = uploads.get(id)
      if (upload !== undefined) {
        upload.state = 'finishing'
        await upload.writers.end(beingFinished())
      }
      // Another finish or an abort may have won meanwhile; from here on nothing waits.
      if (upload === undefined || uploads.get(id) !== upload) {
        const stored = info(key)
        if (stored === null) throw noSuchUpload()
        return stored
      }
      upload.state = 'open'
      checkParts(upload, (number) => upload.parts.get(number)?.etag, parts)
      if (blobs.has(key)) {
        await drop(id, upload)
        throw keyTaken()
      }
      const pieces = parts.map((part) => upload.parts.get(part.number)!.bytes)
      const size = sizeOfParts(
        upload,
        pieces.map((piece) => piece.length),
      )
      const bytes = Buffer.concat(pieces)
      used += bytes.length
      blobs.set(key, { bytes, modifiedAt: clock.now() })
      await drop(id, upload)
      return { size, etag: etagOf(key) }
    },

    async abortParts(key, handle) {
      checkKeys(key)
      for (const [id, upload] of uploads) {
        if (handle === null ? id.startsWith(`${key}.`) : id === `${key}.${handle}`) {
          await drop(id, upload)
        }
      }
    },

    async space() {
      return limit === Infinity ? null : { free: limit - used, total: limit }
    },

    async readId() {
      return registryId
    },

    async writeId(id) {
      checkId(id)
      if (registryId !== null && registryId !== id) throw otherRegistry()
      registryId = id
    },

    async ping() {},
  }
}
