/**
 * The BlobStore in a bucket of Amazon S3 or of a server that speaks its protocol.
 *
 *     <prefix>registry-id     the registry this store belongs to (R10)
 *     <prefix>blobs/<key>     blobs, whole or nothing by the store's own doing
 *
 * Loads the AWS SDK: import it only where a bucket is configured.
 */
import { Readable } from 'node:stream'
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  ListPartsCommand,
  PutObjectCommand,
  S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3'
import type { S3Config } from '../../src/config.ts'
import { RegistryError } from '../../src/errors.ts'
import type { BlobInfo, BlobPart, BlobStore, Clock, Log } from '../../src/ports.ts'
import { freeChunk } from '../chunks.ts'
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
  noSuchUpload,
  otherRegistry,
  partWriters,
  sizeOfParts,
} from './rules.ts'
import type { PartWriters, Plan } from './rules.ts'
import { checkBucket } from './s3-check.ts'
import { directTransfers, signWith } from './s3-direct.ts'
import { ask, faultOf, isPassing, nameOf, sendBody, statusOf } from './s3-requests.ts'

/** More than this, and signed URLs live too long or not at all (R40). */
const MOST_SKEW_MS = 60_000
const CONNECT_MS = 5000
const IDLE_MS = 60_000
const PING_MS = 5000
const DELETES_AT_ONCE = 8
/** Downloads hold a connection each, however slow their readers. */
const MOST_SOCKETS = 1024

export type S3Options = {
  clock: Clock
  log: Log
  /** Milliseconds in which the store must take a chunk or answer; 60,000 unless given. */
  idleMs?: number
  /**
   * What an earlier start has found out about this configuration, for runtimes that start all the
   * time: whether signed URLs may be trusted. Without it the bucket is tried out.
   */
  proven?: boolean
  /**
   * What the SDK of this runtime sends as a body of known length. On Node, Bun and Deno the default
   * serves; where the SDK sends by `fetch` (Workers), the readable side of a FixedLengthStream.
   */
  body?: (chunks: AsyncIterable<Uint8Array>, size: number) => Readable | ReadableStream
}

/** Everything that speaks to one bucket. */
export type Bucket = {
  client: S3Client
  name: string
  prefix: string
  /** What all requests about a blob name. */
  at(key: string): { Bucket: string; Key: string }
  /** Runs a request that may be repeated. */
  ask<T>(request: (stop: AbortController) => Promise<T>, tries?: number): Promise<T>
  /** The store's clock minus ours in milliseconds, by its last answer; null before that. */
  skewMs(): number | null
}

/**
 * Opens the store in a bucket after trying it out (R62): `invalid` with one sentence when it cannot
 * be used. With `redirect`, `direct` is there if the store proved that it refuses tampered URLs and
 * wrong bodies.
 */
export async function s3Blobs(config: S3Config, options: S3Options): Promise<BlobStore> {
  const { idleMs = IDLE_MS, body: toBody = nodeBody } = options
  const bucket = openBucket(config, options.clock, idleMs)
  const { client, at } = bucket
  const signed = signWith(bucket, config, options.clock)
  const proven = options.proven ?? (await checkBucket(bucket, signed, config, options))

  /** Runs a request that may be repeated; failures are sentences. */
  const request: Bucket['ask'] = (work, tries) =>
    bucket.ask(work, tries).catch((error: unknown) => {
      throw faultOf(error)
    })

  const working = new Map<string, { writers: PartWriters; count: number }>()
  /** Runs a writer of an upload where finish and abort of this process find it (R1). */
  async function writing<T>(upload: string, work: (writers: PartWriters) => Promise<T>) {
    const entry = working.get(upload) ?? { writers: partWriters(), count: 0 }
    working.set(upload, entry)
    entry.count += 1
    try {
      return await work(entry.writers)
    } finally {
      entry.count -= 1
      if (entry.count === 0) working.delete(upload)
    }
  }

  const turns = new Map<string, Promise<unknown>>()
  /** Runs finishes and aborts of one upload one after the other. */
  async function alone<T>(upload: string, work: () => Promise<T>): Promise<T> {
    const turn = (turns.get(upload) ?? Promise.resolve()).then(work, work)
    turns.set(upload, turn)
    try {
      return await turn
    } finally {
      if (turns.get(upload) === turn) turns.delete(upload)
    }
  }

  async function head(key: string): Promise<BlobInfo | null> {
    return request(async ({ signal }) => {
      try {
        const found = await client.send(new HeadObjectCommand(at(key)), { abortSignal: signal })
        return { size: found.ContentLength ?? 0, etag: etagOf(key) }
      } catch (error) {
        if (statusOf(error) === 404) return null
        throw error
      }
    })
  }

  /** The parts the store has, with their sizes; null when there is no such upload. */
  async function partsOf(key: string, uploadId: string): Promise<Part[] | null> {
    const parts: Part[] = []
    for (let marker: string | undefined; ;) {
      const page = await request(async ({ signal }) => {
        const asked = { ...at(key), UploadId: uploadId, PartNumberMarker: marker }
        return client
          .send(new ListPartsCommand(asked), { abortSignal: signal })
          .catch((error: unknown) => {
            if (isNoUpload(error)) return null
            throw error
          })
      })
      if (page === null) return null
      for (const part of page.Parts ?? [])
        parts.push({
          number: part.PartNumber ?? 0,
          etag: quoted(part.ETag ?? ''),
          size: part.Size ?? -1,
        })
      marker = page.NextPartNumberMarker
      if (page.IsTruncated !== true || marker === undefined) return parts
    }
  }

  async function abort(key: string, uploadId: string): Promise<void> {
    await request(async ({ signal }) => {
      const upload = { ...at(key), UploadId: uploadId }
      await client
        .send(new AbortMultipartUploadCommand(upload), { abortSignal: signal })
        .catch((error: unknown) => {
          if (!isNoUpload(error)) throw error
        })
    })
  }

  /** Ids of the uploads in parts that are open for exactly this key. */
  async function uploadsOf(key: string): Promise<string[]> {
    const { Bucket, Key } = at(key)
    const found = await request(({ signal }) =>
      client.send(new ListMultipartUploadsCommand({ Bucket, Prefix: Key }), {
        abortSignal: signal,
      }),
    )
    return (found.Uploads ?? []).flatMap((upload) =>
      upload.Key === Key && upload.UploadId !== undefined ? [upload.UploadId] : [],
    )
  }

  async function readId(): Promise<string | null> {
    return request(async ({ signal }) => {
      const object = { Bucket: bucket.name, Key: `${bucket.prefix}registry-id` }
      try {
        const found = await client.send(new GetObjectCommand(object), { abortSignal: signal })
        return (await found.Body?.transformToString())?.trim() ?? null
      } catch (error) {
        if (nameOf(error) === 'NoSuchKey') return null
        throw error
      }
    })
  }

  /** The blob that a finish left whose answer was lost, or that was finished before (R40). */
  async function finished(key: string, plan: Plan): Promise<BlobInfo> {
    const info = await head(key)
    if (info === null || !holds(plan, info.size)) throw noSuchUpload()
    return info
  }

  return {
    comparesParts: true,

    async put(key, body, size, sha256) {
      checkKeys(key)
      // Said before a body is sent, and so that after a lost answer what is there is ours.
      if ((await head(key)) !== null) throw keyTaken()
      const command = (Body: Readable | ReadableStream | string) =>
        withHash(
          new PutObjectCommand({
            ...at(key),
            Body: Body as Readable,
            ContentLength: size,
            ContentType: 'application/octet-stream',
            IfNoneMatch: '*',
          }),
          sha256,
        )
      try {
        await sendBody(
          (chunks, abortSignal) =>
            client.send(command(size === 0 ? '' : toBody(chunks, size)), { abortSignal }),
          body,
          size,
          { sha256, idleMs },
        )
      } catch (error) {
        if (statusOf(error) === 412 || statusOf(error) === 409) throw keyTaken()
        // R40: stored, and the answer lost. Without a hash it may be the body of somebody else.
        const lost = sha256 !== undefined && fromStore(error) && isPassing(error)
        if (lost && (await head(key).catch(() => null))?.size === size)
          return { size, etag: etagOf(key) }
        throw fromStore(error) ? faultOf(error) : error
      }
      return { size, etag: etagOf(key) }
    },

    async get(key, range) {
      checkKeys(key)
      if (range !== undefined && !(range.start >= 0 && range.end >= range.start)) {
        const info = await head(key)
        if (info !== null) clipRange(info.size, range)
        return null
      }
      const asked = range === undefined ? {} : { Range: `bytes=${range.start}-${range.end}` }
      const opened = await request(async (stop) => {
        try {
          const command = new GetObjectCommand({ ...at(key), ...asked })
          return { found: await client.send(command, { abortSignal: stop.signal }), stop }
        } catch (error) {
          if (nameOf(error) === 'NoSuchKey') return null
          if (statusOf(error) === 416) return 'past the end'
          throw error
        }
      })
      if (opened === 'past the end') {
        const info = await head(key)
        if (info !== null) clipRange(info.size, { start: info.size, end: info.size })
        return null
      }
      if (opened === null) return null
      const { found, stop } = opened
      const length = found.ContentLength ?? 0
      const size = Number(/\/(\d+)$/.exec(found.ContentRange ?? '')?.[1] ?? length)
      const start = range?.start ?? 0
      const body = found.Body as AsyncIterable<Uint8Array> & { destroy?(): void }
      const close = async () => {
        body.destroy?.()
        stop.abort()
      }
      return {
        size,
        etag: etagOf(key),
        range: { start, end: start + length - 1 },
        stream: () => ({
          [Symbol.asyncIterator]: () => readBody(body, length, close, idleMs),
          free: freeChunk,
        }),
        close,
      }
    },

    async head(key) {
      checkKeys(key)
      return head(key)
    },

    // One by one: not every store has the request for many, and Amazon's wants a checksum.
    async delete(keys) {
      checkKeys(...keys)
      const waiting = keys.values()
      const worker = async () => {
        for (const key of waiting)
          await request(({ signal }) =>
            client.send(new DeleteObjectCommand(at(key)), { abortSignal: signal }),
          )
      }
      await Promise.all(Array.from({ length: DELETES_AT_ONCE }, worker))
    },

    async list(cursor, limit) {
      const { Bucket, Key: Prefix } = at('')
      const page = await request(({ signal }) =>
        client.send(
          new ListObjectsV2Command({
            Bucket,
            Prefix,
            MaxKeys: Math.min(limit, 1000),
            StartAfter: cursor === null ? undefined : Prefix + cursor,
          }),
          { abortSignal: signal },
        ),
      )
      const found = (page.Contents ?? []).map(({ Key = '', LastModified = new Date(0) }) => ({
        key: Key.slice(Prefix.length),
        modifiedAt: LastModified,
      }))
      return {
        blobs: found.filter(({ key }) => /^[0-9a-f]{24}$/.test(key)),
        cursor: page.IsTruncated === true ? (found.at(-1)?.key ?? null) : null,
      }
    },

    async startParts(key, size, partSize) {
      checkKeys(key)
      checkPlan({ size, partSize })
      if ((await head(key)) !== null) throw keyTaken()
      const command = new CreateMultipartUploadCommand({
        ...at(key),
        ContentType: 'application/octet-stream',
      })
      // Not repeated: an upload whose answer was lost would stay open beside the second one. It is
      // found by its key when the intent that was committed before is swept (R21).
      const made = await request(({ signal }) => client.send(command, { abortSignal: signal }), 1)
      return `${size ?? '-'}.${partSize}.${made.UploadId ?? ''}`
    },

    async putPart(key, handle, number, body, size, { sha256, onChunk, digest } = {}) {
      checkKeys(key)
      const { plan, uploadId } = parseHandle(handle)
      checkPart(plan, number, size)
      return writing(`${key}.${uploadId}`, (writers) =>
        writers.run(number, async (signal) => {
          const part = { ...at(key), UploadId: uploadId, PartNumber: number, ContentLength: size }
          try {
            const sent = await sendBody(
              (chunks, abortSignal) => {
                const Body = toBody(chunks, size) as Readable
                const command = withHash(new UploadPartCommand({ ...part, Body }), sha256)
                return client.send(command, { abortSignal })
              },
              body,
              size,
              { sha256, onChunk, digest, signal, idleMs },
            )
            return { etag: quoted(sent.ETag ?? '') }
          } catch (error) {
            if (!fromStore(error)) throw error
            // A refusal may come as a broken connection: ask what stands behind it.
            const unknown = statusOf(error) === null && (await partsOf(key, uploadId)) === null
            if (unknown || isNoUpload(error)) throw noSuchUpload()
            throw faultOf(error)
          }
        }),
      )
    },

    async finishParts(key, handle, parts) {
      checkKeys(key)
      const { plan, uploadId } = parseHandle(handle)
      const id = `${key}.${uploadId}`
      return alone(id, async () => {
        await working.get(id)?.writers.end(beingFinished())
        const stored = await partsOf(key, uploadId)
        if (stored === null) return finished(key, plan)
        const present = await head(key)
        if (present !== null) {
          // The key belongs to this upload alone: it is finished, and the store still tidies up.
          if (!holds(plan, present.size)) throw keyTaken()
          return present
        }
        const etags = new Map(stored.map(({ number, etag }) => [number, etag]))
        const given = parts.map(({ number, etag }) => ({ number, etag: quoted(etag) }))
        checkParts(plan, (number) => etags.get(number), given)
        for (const { number, size } of stored) checkPart(plan, number, size)
        sizeOfParts(
          plan,
          stored.map(({ size }) => size),
        )
        const command = new CompleteMultipartUploadCommand({
          ...at(key),
          UploadId: uploadId,
          MultipartUpload: {
            Parts: given.map(({ number, etag }) => ({ PartNumber: number, ETag: etag })),
          },
        })
        try {
          await request(({ signal }) => client.send(command, { abortSignal: signal }))
        } catch (error) {
          const info = await head(key).catch(() => null)
          if (info !== null && holds(plan, info.size)) return info
          const cause: unknown = error instanceof Error ? error.cause : null
          if (isNoUpload(cause)) throw noSuchUpload()
          if (/^(InvalidPart|InvalidPartOrder|EntityTooSmall)$/.test(nameOf(cause)))
            throw new RegistryError('invalid', 'The parts are not those that were received.', {
              subject: 'upload',
              cause,
            })
          throw error
        }
        return finished(key, plan)
      })
    },

    async abortParts(key, handle) {
      checkKeys(key)
      let ids: string[]
      if (handle === null) ids = await uploadsOf(key)
      else {
        const known = /^(?:\d+|-)\.\d+\.(.+)$/.exec(handle)?.[1]
        ids = known === undefined ? [] : [known]
      }
      for (const id of ids)
        await alone(`${key}.${id}`, async () => {
          await working.get(`${key}.${id}`)?.writers.end(noSuchUpload())
          await abort(key, id)
        })
    },

    async space() {
      return null
    },

    readId,

    async writeId(id) {
      checkId(id)
      const object = {
        Bucket: bucket.name,
        Key: `${bucket.prefix}registry-id`,
        Body: id,
        IfNoneMatch: '*',
      }
      await request(({ signal }) =>
        client
          .send(new PutObjectCommand(object), { abortSignal: signal })
          .catch((error: unknown) => {
            if (statusOf(error) !== 412 && statusOf(error) !== 409) throw error
          }),
      )
      if ((await readId()) !== id) throw otherRegistry()
    },

    async ping() {
      const object = { Bucket: bucket.name, Key: `${bucket.prefix}registry-id` }
      const once = { idleMs: Math.min(idleMs, PING_MS), tries: 1 }
      await ask(
        ({ signal }) => client.send(new HeadObjectCommand(object), { abortSignal: signal }),
        once,
      ).catch((error: unknown) => {
        if (statusOf(error) !== 404) throw faultOf(error)
      })
      const skew = bucket.skewMs() ?? 0
      if (Math.abs(skew) > MOST_SKEW_MS)
        throw new RegistryError(
          'unavailable',
          `The clock of the storage is ${Math.round(skew / 1000)} seconds off ours: signed addresses would be refused. Set the clocks.`,
        )
    },

    ...(config.redirect && proven
      ? {
          direct: directTransfers(signed, async (key, handle): Promise<BlobPart[]> => {
            const { uploadId } = parseHandle(handle)
            const parts = (await partsOf(key, uploadId)) ?? []
            return parts.map(({ number, etag }) => ({ number, etag }))
          }),
        }
      : {}),
  }
}

type Part = BlobPart & { size: number }

/** The client of a bucket, at another endpoint than the configured one where one is given. */
export function s3Client(config: S3Config, endpoint = config.endpoint): S3Client {
  return new S3Client({
    region: config.region,
    forcePathStyle: config.pathStyle,
    ...(endpoint === null ? {} : { endpoint }),
    ...(config.credentials === null
      ? {}
      : {
          credentials: {
            accessKeyId: config.credentials.accessKey,
            secretAccessKey: config.credentials.secretKey.reveal(),
          },
        }),
    // Elsewhere than on Amazon the SDK's own checksums mean a chunked body, which is refused.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    // Repeating is up to `ask`: only it knows what may be repeated.
    maxAttempts: 1,
    logger: SILENT,
    // Bodies go over connections of their own: one that the store closed while it was idle would
    // fail a push whose bytes cannot be had twice.
    expectContinueHeader: true,
    requestHandler: {
      connectionTimeout: CONNECT_MS,
      httpAgent: { maxSockets: MOST_SOCKETS },
      httpsAgent: { maxSockets: MOST_SOCKETS },
    },
  })
}

/** The SDK would write to the console; what matters is thrown. */
const silence = () => {}
const SILENT = { trace: silence, debug: silence, info: silence, warn: silence, error: silence }

function openBucket(config: S3Config, clock: Clock, idleMs: number): Bucket {
  const client = s3Client(config)
  let skew: number | null = null
  client.middlewareStack.add(
    (next) => async (args) => {
      const result = await next(args)
      const { headers } = result.response as { headers?: Record<string, string> }
      const date = Date.parse(headers?.['date'] ?? '')
      if (!Number.isNaN(date)) skew = date - clock.now().getTime()
      return result
    },
    { step: 'deserialize', priority: 'low', name: 'noteDate' },
  )
  return {
    client,
    name: config.bucket,
    prefix: config.prefix,
    at: (key) => ({ Bucket: config.bucket, Key: `${config.prefix}blobs/${key}` }),
    ask: (request, tries) => ask(request, { idleMs, ...(tries === undefined ? {} : { tries }) }),
    skewMs: () => skew,
  }
}

/** Its failures are those of the request, which is ended by its signal. */
function nodeBody(chunks: AsyncIterable<Uint8Array>): Readable {
  return Readable.from(chunks).on('error', () => {})
}

/** Lets the store check the body too; without a hash it is told that there is none. */
function withHash<C extends PutObjectCommand | UploadPartCommand>(command: C, sha256?: string): C {
  if (sha256 !== undefined)
    (command as PutObjectCommand).middlewareStack.add(
      (next) => async (args) => {
        const { headers } = args.request as { headers: Record<string, string> }
        headers['x-amz-content-sha256'] = sha256
        return next(args)
      },
      { step: 'build', name: 'knownHash' },
    )
  return command
}

/** `SIZE.PARTSIZE.ID`: the plan travels with the store's own name of an upload. */
function parseHandle(handle: string): { plan: Plan; uploadId: string } {
  const [, size, partSize, uploadId] = /^(\d+|-)\.(\d+)\.(.+)$/.exec(handle) ?? []
  if (uploadId === undefined) throw noSuchUpload()
  return {
    plan: { size: size === '-' ? null : Number(size), partSize: Number(partSize) },
    uploadId,
  }
}

/** What is stored under the key of an upload has the size that was planned, if one was. */
const holds = ({ size }: Plan, found: number) => size === null || size === found

/** Ceph says NoSuchKey where Amazon says NoSuchUpload. */
const isNoUpload = (error: unknown) => statusOf(error) === 404 && nameOf(error) !== 'NoSuchBucket'

/** An error that the SDK or the network raised, not the body's sender or a rule. */
const fromStore = (error: unknown) =>
  statusOf(error) !== null ||
  (error instanceof Error && ('code' in error || error.name === 'TimeoutError'))

const quoted = (etag: string) => `"${etag.replaceAll('"', '')}"`

/** The bytes of an answer; one that breaks off or stalls throws, never just ends (R5). */
async function* readBody(
  body: AsyncIterable<Uint8Array>,
  length: number,
  close: () => Promise<void>,
  idleMs: number,
): AsyncGenerator<Uint8Array> {
  const source = body[Symbol.asyncIterator]()
  let left = length
  try {
    for (;;) {
      const timer = setTimeout(() => void close(), idleMs)
      const step = await source
        .next()
        .catch((error: unknown) => {
          throw faultOf(error)
        })
        .finally(() => clearTimeout(timer))
      if (step.done === true) break
      left -= step.value.length
      yield step.value
    }
    if (left !== 0) throw faultOf(new Error(`The store gave ${left} bytes too few`))
  } finally {
    await close()
  }
}
