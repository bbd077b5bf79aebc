/**
 * Bytes on their way: open, receive, complete, abort. The states, claims and races are walked
 * through in docs/uploads.md; nothing here makes an image visible but `attach` (R8).
 */
import { isRegistryError, RegistryError } from '../errors.ts'
import type { BlobInfo, BlobPart, BlobStore, Bytes, Clock, Database, Ids, Log } from '../ports.ts'
import { absent, identify, type Access } from './access.ts'
import { containerFacts, nameOf, writerOf } from './catalog.ts'
import { derivedHex } from './derived.ts'
import { hasher, type Hasher } from './digest.ts'
import type { Claims, Identity, Image, SifFacts, Upload } from './model.ts'
import { inspectSif } from './sif.ts'
import { examineSignatures, objectHasher, type ObjectDigests } from './signatures.ts'
import { createVerdicts, PENDING, UNSIGNED, warnUnmet } from './verdicts.ts'

/** Bytes of a part: fits a Worker's request limit, and is the client's own threshold. */
export const PART_SIZE = 64 * 1024 * 1024
/** Parts of one upload at most, as S3 and R2 have it; with PART_SIZE 625 GiB. */
const MAX_PARTS = 10_000
/** Uploads one user may have open; bytes are reserved, so this bounds rows only (decision 0011). */
const MAX_OPEN = 1024
/** Running hashes kept in memory; losing one costs a re-read (R3). */
const MAX_HASHES = 1024
const LEASE_MS = 60_000
const RENEW_MS = 20_000
/** An upload nothing was sent for since then makes way for a new push of its image by its user (R50). */
const IDLE_MS = 30_000
/**
 * The same for an upload whose bytes this process does not see: another one may be receiving it, or
 * the store itself. A part of PART_SIZE takes most of an hour on a line of 20 KiB/s.
 */
const UNKNOWN_IDLE_MS = 3_600_000
/** How long a second completion waits for the first before it answers 409 (R20). */
const WAIT_MS = 30_000
const HOUR_MS = 3_600_000

type Deps = {
  database: Database
  access: Access
  blobs: BlobStore
  clock: Clock
  ids: Ids
  /** Bytes that must stay free on the store's disk. */
  minFree: number
  /** Bytes of the largest image that may be pushed; null is no limit. */
  maxImage?: number | null
  /** Bytes that entities without a quota of their own may take; null or absent is no limit. */
  defaultQuota?: number | null
  /** False where CPU is too short to look at signatures: their verdict is `pending` (R52). */
  checkSignatures?: boolean
  log?: Log
}

/** A running SHA-256 of a whole image, and of what is signed in it. */
export type ImageHasher = {
  update(chunk: Uint8Array): void
  hex(): string
  copy(): ImageHasher
  objects(): ObjectDigests
}

/** R3: a hash bound to exactly the parts whose etags it names. */
type RunningHash = { hash: ImageHasher; etags: string[] }

/** What is known of a whole blob without reading it again. */
type Known = { digest: string; objects: ObjectDigests | null }

/** Starts the hashes of an image of `size` bytes; one without signatures costs one hash. */
export function imageHasher(size: number): ImageHasher {
  return both(hasher(), objectHasher(size))
}

const both = (hash: Hasher, objects: ReturnType<typeof objectHasher>): ImageHasher => ({
  update(chunk) {
    hash.update(chunk)
    objects.update(chunk)
  },
  hex: () => hash.hex(),
  copy: () => both(hash.copy(), objects.copy()),
  objects: () => objects.digests(),
})

/**
 * The body, shown to `see` on its way until that says false. One that the runtime moves by itself
 * is left alone.
 */
export function watched(body: Bytes, see: (chunk: Uint8Array) => boolean): Bytes {
  if (body.native !== undefined) return body
  const { each, free } = body
  let looking = true
  return {
    ...(free && { free }),
    ...(each && {
      each: (sink, signal) =>
        each((chunk) => {
          if (looking) looking = see(chunk)
          return sink(chunk)
        }, signal),
    }),
    [Symbol.asyncIterator]() {
      const chunks = body[Symbol.asyncIterator]()
      const look = (result: IteratorResult<Uint8Array>) => {
        if (looking && result.done !== true) looking = see(result.value)
        return result
      }
      return {
        next: () => (looking ? chunks.next().then(look) : chunks.next()),
        return: async (value?: unknown) =>
          (await chunks.return?.(value)) ?? { done: true, value: undefined },
      }
    },
  }
}

export type Uploads = ReturnType<typeof createUploads>

const viewerOf = (identity: Identity) =>
  identity.kind === 'user' ? { ...identity, scopes: [] } : null

/** Upload deadline by size (R23): at least a day, at most six (R2 drops parts after seven). */
export function uploadDeadline(now: Date, size: number): Date {
  const ms = (size / (128 * 1024)) * 1000
  return new Date(now.getTime() + Math.min(Math.max(ms, 24 * HOUR_MS), 6 * 24 * HOUR_MS))
}

/** R4: then its part is the image, and its hash the image's. */
export const isOnePart = ({ size, partSize }: { size: number; partSize: number }) =>
  size <= partSize

/** Hashes of a stored blob, read once from end to end. */
export async function hashBlob(blobs: BlobStore, key: string): Promise<ImageHasher> {
  const blob = await blobs.get(key)
  if (blob === null) throw new Error('the blob went while it was being checked')
  const hash = imageHasher(blob.size)
  const body = blob.stream()
  for await (const chunk of body) {
    hash.update(chunk)
    body.free?.(chunk)
  }
  return hash
}

/**
 * What a stored blob of `size` bytes says about itself; `invalid` when it is no SIF image. Signed
 * objects whose digests are not `known` are read once more; `check` false looks at no signature.
 */
export async function inspectBlob(
  blobs: BlobStore,
  key: string,
  size: number,
  { known = null, check = true }: { known?: ObjectDigests | null; check?: boolean } = {},
): Promise<SifFacts> {
  async function* stream(start: number, end: number) {
    const blob = await blobs.get(key, { start, end })
    if (blob === null) throw new Error('the blob went while it was being inspected')
    yield* blob.stream()
  }
  async function read(start: number, length: number) {
    const bytes = new Uint8Array(length)
    let at = 0
    for await (const chunk of stream(start, start + length - 1)) {
      if (at + chunk.length > length) return new Uint8Array()
      bytes.set(chunk, at)
      at += chunk.length
    }
    return bytes.subarray(0, at)
  }
  const facts = await inspectSif(read, size)
  if (!facts.signed || !check) return facts
  return { ...facts, signatures: await examineSignatures({ read, stream }, size, known) }
}

export function createUploads(deps: Deps) {
  const { database, blobs, clock, ids, minFree, maxImage = null, checkSignatures = true } = deps
  const { defaultQuota = null } = deps
  const { catalog, uploads } = database
  const { authorise } = deps.access
  const verdicts = createVerdicts(deps)
  /** By upload id, oldest first; an absent entry means: read the finished blob again. */
  const running = new Map<string, RunningHash>()
  /** By key: what the store checked of a whole blob while this process received it. */
  const checked = new Map<string, Known>()
  /** By upload id: bodies being received in this process, and when the last one ended or was signed for. */
  const activity = new Map<string, { bodies: number; at: number }>()
  /** Ids of uploads that a full disk ended and whose rows do not say so yet. */
  const full = new Set<string>()
  /** Completions at work in this process, by upload id. */
  const finishing = new Map<string, Promise<void>>()

  function remember<T>(map: Map<string, T>, key: string, value: T): void {
    map.delete(key)
    map.set(key, value)
    const [oldest] = map.keys()
    if (map.size > MAX_HASHES && oldest !== undefined) map.delete(oldest)
  }

  /** The image the path names, for somebody who may push to it; `not_found` for everybody else. */
  async function pushable(
    imageId: string,
    claims: Claims | null,
  ): Promise<{ image: Image; identity: Identity }> {
    const { standing, value } = await catalog.imageById(imageId, claims, clock.now())
    const identity = identify(claims, standing)
    authorise(identity, 'push', value === null ? null : containerFacts('image', value))
    if (value === null) throw absent('image')
    return { image: value, identity }
  }

  async function open(
    image: Image,
    identity: Identity,
    size: number,
    partSize: number,
  ): Promise<Upload> {
    if (size < 1)
      throw new RegistryError('invalid', 'An image cannot be empty.', { subject: 'upload' })
    if (maxImage !== null && size > maxImage)
      throw new RegistryError(
        'too_large',
        `This image has ${size} bytes, and this registry takes no more than ${maxImage} (SREG_MAX_IMAGE); ask its administrator to raise that.`,
        { subject: 'upload' },
      )
    if (Math.ceil(size / partSize) > MAX_PARTS)
      throw new RegistryError(
        'too_large',
        `This image of ${size} bytes is larger than the registry takes (${MAX_PARTS * PART_SIZE} bytes).`,
        { subject: 'upload' },
      )
    await endIdle(image.id, identity)
    await closeFull()
    const space = await blobs.space()
    const keep = space === null ? 0 : Math.min(minFree, space.total * 0.05)
    const writer = writerOf(identity, clock)
    const upload: Upload = {
      id: ids.next(),
      imageId: image.id,
      userId: writer.userId,
      tokenId: writer.tokenId,
      blobKey: ids.next(),
      handle: null,
      size,
      partSize,
      digest: image.digest,
      state: 'open',
      claim: null,
      leaseUntil: null,
      createdAt: writer.now,
      expiresAt: uploadDeadline(writer.now, size),
      closedAt: null,
    }
    await uploads.open(upload, writer, {
      perUser: MAX_OPEN,
      free: space === null ? null : Math.floor(space.free - keep),
      defaultQuota,
    })
    remember(activity, upload.id, { bodies: 0, at: writer.now.getTime() })
    return upload
  }

  /** Ends what the user began for this image and left: what it reserves may be needed now (R50). */
  async function endIdle(imageId: string, identity: Identity): Promise<void> {
    const now = clock.now()
    const { value } = await uploads.forImage(imageId, viewerOf(identity), now)
    for (const upload of value) {
      const known = activity.get(upload.id)
      const idleMs = known === undefined || blobs.direct ? UNKNOWN_IDLE_MS : IDLE_MS
      const idleSince = known?.at ?? upload.createdAt.getTime()
      const moving = (known?.bodies ?? 0) > 0 || now.getTime() - idleSince < idleMs
      if (upload.state === 'open' && !moving) await drop(upload)
    }
  }

  /** Ends an open upload and frees its bytes; one that is past `open` is left alone. */
  async function drop({ id, blobKey, handle }: Upload): Promise<void> {
    const from = { state: 'open', claim: null } as const
    if (!(await uploads.close(id, from, 'aborted', clock.now()))) return
    running.delete(id)
    activity.delete(id)
    await blobs.abortParts(blobKey, handle)
    await blobs.delete([blobKey])
  }

  /** Opens the store's own upload in parts; the intent is committed (R21). */
  async function begin(upload: Upload): Promise<Upload> {
    const { id, blobKey: key, size, partSize } = upload
    const handle = await blobs
      .startParts(key, size, partSize)
      .catch((error: unknown) => endIfFull({ upload: id, key, handle: null }, error))
    await uploads.setHandle(id, handle)
    return { ...upload, handle }
  }

  /** Notes that a body of this upload is being received, from call to end. */
  async function receiving<T>(id: string, work: () => Promise<T>): Promise<T> {
    const { bodies } = activity.get(id) ?? { bodies: 0 }
    remember(activity, id, { bodies: bodies + 1, at: clock.now().getTime() })
    try {
      return await work()
    } finally {
      const now = activity.get(id)?.bodies ?? 1
      remember(activity, id, { bodies: now - 1, at: clock.now().getTime() })
    }
  }

  /**
   * A full disk ends the upload: what it wrote goes at once, and its reservation as soon as the
   * database, which may share the disk, has room to be told (R39).
   */
  async function endIfFull(
    { upload, key, handle }: { upload: string; key: string; handle: string | null },
    error: unknown,
  ): Promise<never> {
    if (isRegistryError(error, 'insufficient_storage')) {
      full.add(upload)
      await blobs
        .abortParts(key, handle)
        .then(closeFull)
        .catch(() => undefined)
    }
    throw error
  }

  async function closeFull(): Promise<void> {
    for (const id of full) {
      await uploads.close(id, { state: 'open', claim: null }, 'failed', clock.now())
      full.delete(id)
    }
  }

  /** SHA-256 of the finished blob: known from the way in or to the store, or read once more (R3, R4). */
  async function digestOf(
    upload: Upload,
    parts: BlobPart[] | null,
    stored: BlobInfo,
  ): Promise<Known> {
    const state = running.get(upload.id)
    const unread = (digest: string) => ({ digest, objects: null })
    const read = (hash: ImageHasher) => ({ digest: hash.hex(), objects: hash.objects() })
    if (parts === null) {
      const known = checked.get(upload.blobKey)
      if (known !== undefined) return known
      if (stored.sha256 !== undefined) return unread(stored.sha256)
    } else if (
      state !== undefined &&
      state.etags.length === parts.length &&
      state.etags.every((etag, index) => etag === parts[index]?.etag)
    )
      return read(state.hash)
    // R4: nobody could write the one part but under the image's own hash, which the store checks.
    else if (blobs.direct !== undefined && isOnePart(upload)) return unread(upload.digest)
    return read(await hashBlob(blobs, upload.blobKey))
  }

  /**
   * Stores a whole body under its key. The digests of what is signed in it are those of the image,
   * for the store has checked that all of it is (R3).
   */
  async function putWhole(
    key: string,
    body: Bytes,
    { size, sha256 }: { size: number; sha256: string },
  ): Promise<BlobInfo> {
    const objects = objectHasher(size)
    const info = await blobs.put(
      key,
      watched(body, (chunk) => objects.update(chunk)),
      size,
      sha256,
    )
    const seen = body.native === undefined
    remember(checked, key, { digest: sha256, objects: seen ? objects.digests() : null })
    return info
  }

  /**
   * What is wrong with the bytes themselves: before any attach, so they may go at once (R7), unless
   * somebody has taken the upload over: then they are the business of that claim (R20).
   */
  async function refuse(upload: Upload, claim: string): Promise<void> {
    const from = { state: 'finishing', claim } as const
    if (await uploads.close(upload.id, from, 'failed', clock.now()))
      await blobs.delete([upload.blobKey])
  }

  async function finish(
    image: Image,
    upload: Upload,
    claim: string,
    parts: BlobPart[] | null,
    identity: Identity,
  ): Promise<void> {
    const { id, blobKey, handle, size, digest } = upload
    const renewal = setInterval(() => {
      // a lost lease shows in the guard of attach
      uploads.renew(id, claim, new Date(clock.now().getTime() + LEASE_MS)).catch(() => undefined)
    }, RENEW_MS)
    try {
      const info =
        parts === null || handle === null
          ? await blobs.head(blobKey)
          : await blobs.finishParts(blobKey, handle, parts)
      if (info === null) throw absent('upload')
      if (info.size !== size) {
        await refuse(upload, claim)
        throw new RegistryError(
          'size_mismatch',
          `The image was announced with ${size} bytes, but ${info.size} arrived; push it again.`,
          { subject: 'upload' },
        )
      }
      const { digest: found, objects } = await digestOf(upload, parts, info)
      if (found !== digest) {
        await refuse(upload, claim)
        throw new RegistryError(
          'digest_mismatch',
          `The bytes that arrived are not those of the image (SHA-256 ${found} instead of ${digest}); push it again.`,
          { subject: 'upload' },
        )
      }
      const refused = async (error: unknown): Promise<never> => {
        await refuse(upload, claim)
        throw error
      }
      const facts = await inspectBlob(blobs, blobKey, size, {
        known: objects,
        check: checkSignatures,
      }).catch((error: unknown) => {
        if (isRegistryError(error, 'invalid')) return refused(error)
        throw error
      })
      // asked ahead of attach, whose guard decides: what was never attached may go at once (R7)
      if (image.policy === 'require') {
        const judged = facts.signatures ? await verdicts.judge(facts.signatures) : null
        const known = judged ?? (facts.signed ? PENDING : UNSIGNED)
        await verdicts.admit(image.id, known).catch((error: unknown) => {
          if (isRegistryError(error, 'denied')) return refused(error)
          throw error
        })
      }
      const attach = () =>
        verdicts.admitted(
          image.id,
          (judged) =>
            catalog.attach({
              imageId: image.id,
              digest,
              size,
              defaultQuota,
              facts,
              judged,
              manifest: derivedHex(image.containerName, { digest, size }),
              writer: writerOf(identity, clock),
              source: { kind: 'upload', uploadId: id, claim, blobId: ids.next(), key: blobKey },
            }),
          facts.signatures,
        )
      // what has no room any more was never attached, and may go at once (R7, R50)
      await attach().catch((error: unknown) => {
        if (isRegistryError(error, 'quota_exceeded')) return refused(error)
        throw error
      })
      // R60: equal bytes stored before are used, unless they have gone; then these take their place
      const { value: attached } = await catalog.imageById(image.id, null, clock.now())
      const used = attached?.blob?.key ?? blobKey
      if (used !== blobKey && (await blobs.head(used)) === null) {
        await catalog.markLost(used)
        await attach()
      }
      if (attached !== null) warnUnmet(deps.log, attached, nameOf(attached))
    } catch (error) {
      // a wrong list of parts, or a store that failed, is no reason to lose what has arrived
      await uploads
        .close(id, { state: 'finishing', claim }, 'open', clock.now())
        .catch(() => undefined)
      throw error
    } finally {
      clearInterval(renewal)
      running.delete(id)
      checked.delete(blobKey)
      activity.delete(id)
    }
  }

  /** What has arrived of a single upload: its parts, null for a whole blob, undefined for nothing. */
  async function arrived(upload: Upload): Promise<BlobPart[] | null | undefined> {
    const { blobKey, handle } = upload
    if (handle !== null && !isOnePart(upload)) return undefined
    const parts = handle === null ? null : ((await blobs.direct?.parts(blobKey, handle)) ?? [])
    if (parts !== null && parts.length > 0) return parts
    return (await blobs.head(blobKey)) === null ? undefined : parts
  }

  /** R20: one claim wins; the work goes on when the client has hung up; others wait for it. */
  async function complete(
    image: Image,
    upload: Upload,
    parts: BlobPart[] | null,
    identity: Identity,
  ): Promise<void> {
    const deadline = clock.now().getTime() + WAIT_MS
    for (let wait = 500; ; wait = Math.min(2 * wait, 4000)) {
      const atWork = finishing.get(upload.id)
      if (atWork !== undefined)
        await Promise.race([
          atWork.catch(() => undefined),
          new Promise((resolve) => setTimeout(resolve, deadline - clock.now().getTime())),
        ])
      // Still there: on Workers it may have died with its request, without a word; the lease tells.
      if (atWork === undefined || finishing.get(upload.id) === atWork) {
        const now = clock.now()
        const claim = ids.next()
        const lease = new Date(now.getTime() + LEASE_MS)
        if (await uploads.claim(upload.id, claim, now, lease)) {
          const work = finish(image, upload, claim, parts, identity).finally(() => {
            if (finishing.get(upload.id) === work) finishing.delete(upload.id)
          })
          finishing.set(upload.id, work)
          return work
        }
      }
      const { value } = await uploads.find(upload.id, viewerOf(identity), clock.now())
      if (value?.state === 'done') return
      if (value === null || (value.state !== 'finishing' && value.state !== 'open')) throw ended()
      if (clock.now().getTime() >= deadline)
        throw new RegistryError(
          'conflict',
          'This upload is still being checked; push again in a minute, nothing will be sent twice.',
          { subject: 'upload', retryAfter: 60 },
        )
      if (value.state === 'finishing') await new Promise((resolve) => setTimeout(resolve, wait))
    }
  }

  return {
    /** Whether a part's own SHA-256 is wanted besides the image's. */
    comparesParts: blobs.comparesParts === true,

    /**
     * For one body of a whole image (v2 up to 64 MiB). Where bytes go to the store directly it is an
     * upload in parts of one part: the URL of a whole object would outlive its completion (R2).
     */
    async openSingle(
      imageId: string,
      size: number,
      sha256: string | null,
      claims: Claims | null,
    ): Promise<Upload> {
      const { image, identity } = await pushable(imageId, claims)
      if (sha256 !== null && sha256 !== image.digest)
        throw new RegistryError(
          'digest_mismatch',
          'The SHA-256 in this request is not that of the image it names.',
          { subject: 'upload' },
        )
      const upload = await open(image, identity, size, size)
      return blobs.direct === undefined ? upload : begin(upload)
    },

    /** For an image in parts of PART_SIZE; the hash runs along from part 1 (R3). */
    async openParts(imageId: string, size: number, claims: Claims | null): Promise<Upload> {
      const { image, identity } = await pushable(imageId, claims)
      const upload = await begin(await open(image, identity, size, PART_SIZE))
      if (blobs.direct === undefined)
        remember(running, upload.id, { hash: imageHasher(size), etags: [] })
      return upload
    },

    /**
     * The store's own URL for a part, where its bytes may pass us by; null where they come through
     * us. Signing is all we see of such an upload, so it counts as a sign of life. No database trip.
     */
    async partUrl(
      { upload, key, handle }: { upload: string; key: string; handle: string },
      part: { number: number; size: number; sha256: string | null },
      notAfter: Date,
    ): Promise<string | null> {
      if (blobs.direct === undefined) return null
      const { bodies } = activity.get(upload) ?? { bodies: 0 }
      remember(activity, upload, { bodies, at: clock.now().getTime() })
      return blobs.direct.putPart(key, handle, part, notAfter)
    },

    /** Stores the body of a single upload; its SHA-256 is checked as it passes. No database trip. */
    async receiveSingle(
      ticket: { upload: string; key: string; size: number; sha256: string },
      body: Bytes,
    ): Promise<{ etag: string }> {
      const { etag } = await receiving(ticket.upload, () =>
        putWhole(ticket.key, body, ticket),
      ).catch((error: unknown) => endIfFull({ ...ticket, handle: null }, error))
      return { etag }
    },

    /** Stores one part. No database trip: everything stands in the ticket. */
    async receivePart(
      ticket: {
        upload: string
        key: string
        handle: string
        part: number
        size: number
        sha256: string | null
      },
      body: Bytes,
    ): Promise<{ etag: string }> {
      const state = running.get(ticket.upload)
      const inOrder = state !== undefined && state.etags.length === ticket.part - 1
      if (!inOrder) running.delete(ticket.upload)
      const hash = inOrder ? state.hash.copy() : null
      // so far the image is this part, and has been hashed as it: that is not done twice
      const first = hash !== null && ticket.part === 1 ? { digest: () => hash.hex() } : {}
      const { etag } = await receiving(ticket.upload, () =>
        blobs.putPart(ticket.key, ticket.handle, ticket.part, body, ticket.size, {
          ...(ticket.sha256 === null ? {} : { sha256: ticket.sha256 }),
          ...(hash === null ? {} : { onChunk: (chunk) => hash.update(chunk), ...first }),
        }),
      ).catch((error: unknown) => {
        running.delete(ticket.upload)
        return endIfFull(ticket, error)
      })
      if (hash !== null) {
        // compare-and-set: a second writer of this part has changed or dropped the state
        if (running.get(ticket.upload) === state)
          remember(running, ticket.upload, { hash, etags: [...(state?.etags ?? []), etag] })
        else running.delete(ticket.upload)
      }
      return { etag }
    },

    /** A whole image in one request (v1): what goes wrong on the way leaves nothing reserved. */
    async receiveWhole(
      imageId: string,
      size: number,
      body: Bytes,
      claims: Claims | null,
    ): Promise<Image> {
      const { image, identity } = await pushable(imageId, claims)
      const upload = await open(image, identity, size, size)
      const { blobKey, digest } = upload
      try {
        await receiving(upload.id, () => putWhole(blobKey, body, { size, sha256: digest }))
      } catch (error) {
        await drop(upload).catch(() => undefined)
        return await endIfFull({ upload: upload.id, key: blobKey, handle: null }, error)
      }
      await complete(image, upload, null, identity)
      return image
    },

    /**
     * Completes the single upload of an image: the call names only the image, so any received
     * upload of the asker for it will do; an image that has its bytes already is success (R20).
     */
    async completeSingle(imageId: string, claims: Claims | null): Promise<Image> {
      const { image, identity } = await pushable(imageId, claims)
      const { value } = await uploads.forImage(imageId, claims, clock.now())
      for (const upload of value) {
        if (upload.state === 'done' || !mayGoOn(upload, claims)) continue
        const parts = await arrived(upload)
        if (parts === undefined) continue
        await complete(image, upload, parts, identity)
        return image
      }
      if (image.uploaded || value.some(({ state }) => state === 'done')) return image
      throw new RegistryError('conflict', 'No bytes of this image have arrived; push it again.', {
        subject: 'upload',
      })
    },

    /** Completes an upload in parts; repeating it after success is success. */
    async completeParts(
      imageId: string,
      uploadId: string,
      parts: BlobPart[],
      claims: Claims | null,
    ): Promise<Image> {
      const { image, identity } = await pushable(imageId, claims)
      const upload = await own(imageId, uploadId, claims)
      if (upload.state === 'done') return image
      if (upload.state !== 'open' && upload.state !== 'finishing') throw ended()
      await complete(image, upload, parts, identity)
      return image
    },

    /** Drops an upload in parts. Repeating it is success; a finished one stays finished. */
    async abort(imageId: string, uploadId: string, claims: Claims | null): Promise<void> {
      await pushable(imageId, claims)
      await drop(await own(imageId, uploadId, claims))
    },
  }

  /** R16: an upload acts only for the image and the user that opened it; else it does not exist. */
  async function own(imageId: string, uploadId: string, claims: Claims | null): Promise<Upload> {
    const { value } = await uploads.find(uploadId, claims, clock.now())
    if (value === null || value.imageId !== imageId || value.userId !== claims?.userId)
      throw absent('upload')
    if (!mayGoOn(value, claims)) throw absent('upload')
    return value
  }

  /** R24: an ended token goes on with what it has opened itself, and with nothing else. */
  function mayGoOn(upload: Upload, claims: Claims | null): boolean {
    const alive = claims !== null && claims.expiresAt > clock.now()
    return alive || upload.tokenId === claims?.tokenId
  }

  function ended(): RegistryError {
    return new RegistryError(
      'conflict',
      'This upload has ended (aborted, expired or refused); push the image again.',
      { subject: 'upload' },
    )
  }
}
