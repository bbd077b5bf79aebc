/**
 * Blobs on their way by OCI: one body of unknown length, or chunks of any size, one after the other
 * (R47). The re-chunker cuts what comes into equal parts, as stores of objects want them, and keeps what
 * is left over as a blob of its own, the tail, which the next chunk goes on from.
 */
import { RegistryError } from '../errors.ts'
import type { BlobPart, BlobStore, Bytes, Clock, Database, Ids, RepositoryPath } from '../ports.ts'
import { absent, identify } from './access.ts'
import { writerOf } from './catalog.ts'
import { hasher, type Hasher } from './digest.ts'
import type { Claims, Container, Identity, OciUpload } from './model.ts'
import { partsOfDigest, type Repositories } from './repositories.ts'

/** Bytes of a part: above the 5 MiB that stores of objects ask for, and one is held in memory. */
export const OCI_PART_SIZE = 8 * 1024 * 1024
/** Parts of one upload at most, as S3 and R2 have it: 78 GiB. */
const MAX_PARTS = 10_000
const MAX_OPEN = 1024
const LEASE_MS = 60_000
const RENEW_MS = 20_000
const HOUR_MS = 3_600_000
/** An upload ends a day after it was last added to, and before R2 forgets its parts. */
const IDLE_MS = 24 * HOUR_MS
const LONGEST_MS = 6 * 24 * HOUR_MS

type Hashes = { sha256: Hasher; sha512: Hasher | null }

/** What a request adds: bytes, how many there are where it says so, and where they begin. */
export type Chunk = {
  body: Bytes
  length: number | null
  range: { start: number; end: number } | null
}

export type OciUploads = ReturnType<typeof createOciUploads>

export function createOciUploads(deps: {
  database: Database
  blobs: BlobStore
  clock: Clock
  ids: Ids
  repositories: Repositories
  /** Bytes that must stay free on the store's disk. */
  minFree: number
  maxImage?: number | null
  defaultQuota?: number | null
}) {
  const { database, blobs, clock, ids, repositories, minFree } = deps
  const { maxImage = null, defaultQuota = null } = deps
  const { ociUploads: uploads } = database
  const most = Math.min(maxImage ?? Infinity, MAX_PARTS * OCI_PART_SIZE)

  const lease = () => new Date(clock.now().getTime() + LEASE_MS)
  const tooLarge = () =>
    new RegistryError('too_large', `This registry takes blobs of at most ${most} bytes.`, {
      subject: 'upload',
    })

  /**
   * The asker's own open upload in that repository, authorised again (R47): what anybody else, or any
   * other repository, asks for does not exist (R16).
   */
  async function own(
    ref: { path: RepositoryPath; id: string; containerId: string | null },
    claims: Claims | null,
  ): Promise<{ upload: OciUpload; container: Container; identity: Identity }> {
    const { standing, value } = await uploads.find(ref.id, claims, clock.now())
    const identity = identify(claims, standing)
    const container = repositories.admit(identity, 'push', value?.container ?? null)
    const upload = value?.upload ?? null
    const { entity, collection, container: name } = ref.path
    const agrees =
      container.id === ref.containerId &&
      container.entityName === entity &&
      container.collectionName === collection &&
      container.name === name
    if (upload === null || !agrees || upload.userId !== claims?.userId) throw absent('upload')
    return { upload, container, identity }
  }

  /** Where an upload must stand for a chunk to be added; `range_unsatisfiable` otherwise. */
  function check(upload: OciUpload, { range, length }: Chunk): void {
    if (range !== null) {
      const fits =
        range.end >= range.start && (length === null || length === range.end - range.start + 1)
      if (range.start !== upload.received || !fits)
        throw new RegistryError(
          'range_unsatisfiable',
          `This upload stands at ${upload.received}, so the chunk cannot begin at ${range.start}; go on from there.`,
          { subject: 'upload', detail: { received: upload.received } },
        )
    }
    if (upload.received + (length ?? 0) > most) throw tooLarge()
  }

  /** Bytes that may still be stored; null where the store cannot tell (R50). */
  async function freeBytes(): Promise<number | null> {
    const space = await blobs.space()
    return space === null ? null : Math.floor(space.free - Math.min(minFree, space.total * 0.05))
  }

  /** The same, for `size` more of a body that does not say how long it is: asked part by part. */
  async function leaveFree(size: number): Promise<number | null> {
    const free = await freeBytes()
    if (free === null || free >= size) return free
    throw new RegistryError(
      'insufficient_storage',
      "The registry's disk has no room for more; ask its administrator to free space.",
      { subject: 'upload' },
    )
  }

  /** Works on an upload as the only one who does, from the offset where it stands (R47). */
  async function claimed<T>(
    upload: OciUpload,
    { coming, digest }: { coming: number; digest: string | null },
    work: (claim: { id: string; tailKey: string; lost: () => boolean }) => Promise<T>,
  ): Promise<T> {
    const now = clock.now()
    const claim = ids.next()
    const tailKey = ids.next()
    const free = await freeBytes()
    const latest = upload.createdAt.getTime() + LONGEST_MS
    await uploads.claim(upload.id, {
      claim,
      at: upload.received,
      coming,
      sha256: digest?.startsWith('sha256:') ? partsOfDigest(digest).hex : null,
      tailKey,
      now,
      leaseUntil: lease(),
      expiresAt: new Date(Math.min(latest, now.getTime() + IDLE_MS)),
      free,
      defaultQuota,
    })
    let lost = false
    const renewal = setInterval(() => {
      uploads.renew(upload.id, claim, lease()).then(
        (held) => (lost ||= !held),
        () => undefined,
      )
    }, RENEW_MS)
    try {
      return await work({ id: claim, tailKey, lost: () => lost })
    } finally {
      clearInterval(renewal)
      await uploads.release(upload.id, claim).catch(() => undefined)
    }
  }

  /**
   * Adds a body: whole parts, and the rest as a tail, or as the last part where nothing follows. What
   * has been stored is noted as it goes, so that a body that breaks off costs its last part only.
   */
  async function append(
    upload: OciUpload,
    { body, length }: Pick<Chunk, 'body' | 'length'>,
    claim: { id: string; tailKey: string; lost: () => boolean },
    options: { last: boolean; sha512: boolean },
  ): Promise<OciUpload> {
    let state = upload
    let free: number | null = null
    const hashes: Hashes | null =
      upload.received === 0
        ? { sha256: hasher(), sha512: options.sha512 ? hasher('sha512') : null }
        : null
    let count = Math.floor((upload.received - (upload.tail?.size ?? 0)) / OCI_PART_SIZE)
    /** The body, hashed on its way: also where the runtime could move it by itself. */
    async function* watched(): AsyncGenerator<Uint8Array> {
      let came = 0
      for await (const chunk of body) {
        came += chunk.length
        if (upload.received + came > most) throw tooLarge()
        if (claim.lost())
          throw new RegistryError('conflict', 'Somebody else has taken this upload over.', {
            subject: 'upload',
          })
        hashes?.sha256.update(chunk)
        hashes?.sha512?.update(chunk)
        yield chunk
      }
    }
    const tail = upload.tail === null ? null : await readAll(upload.tail)
    const source = cut(joined(tail, watched()), body.free)
    const advance = async (
      bytes: number,
      part: BlobPart | null,
      tail: OciUpload['tail'],
    ): Promise<void> => {
      const old = state.tail
      const to = {
        received: state.received - (old?.size ?? 0) + bytes,
        tail,
        sha256: hashes?.sha256.hex() ?? null,
        sha512: hashes?.sha512?.hex() ?? null,
      }
      await uploads.advance(upload.id, claim.id, {
        ...to,
        part,
        leaseUntil: lease(),
        free,
        defaultQuota,
      })
      state = { ...state, ...to }
      if (old !== null && old.key !== tail?.key) await blobs.delete([old.key])
    }
    const storePart = async (bytes: Bytes, size: number) => {
      if (state.handle === null) {
        const handle = await blobs.startParts(upload.key, null, OCI_PART_SIZE)
        await uploads.setHandle(upload.id, handle)
        state = { ...state, handle }
      }
      count += 1
      if (count > MAX_PARTS) throw tooLarge()
      const { etag } = await blobs.putPart(upload.key, state.handle ?? '', count, bytes, size)
      await advance(size, { number: count, etag }, null)
    }
    const storeRest = async (bytes: Bytes, size: number) => {
      if (options.last && count > 0) return storePart(bytes, size)
      await blobs.put(claim.tailKey, bytes, size)
      await advance(size, null, { key: claim.tailKey, size })
    }

    try {
      if (length === null) {
        for (;;) {
          const { bytes, length: size } = await source.take(OCI_PART_SIZE)
          if (size > 0) free = await leaveFree(size)
          if (size === OCI_PART_SIZE) await storePart(bytes, size)
          else {
            if (size > (state.tail?.size ?? 0)) await storeRest(bytes, size)
            break
          }
        }
      } else if (length > 0) {
        let left = length + (upload.tail?.size ?? 0)
        for (; left >= OCI_PART_SIZE; left -= OCI_PART_SIZE)
          await storePart(source.slice(OCI_PART_SIZE), OCI_PART_SIZE)
        if (left > 0) await storeRest(source.slice(left), left)
        await source.drained()
      }
    } finally {
      await source.close()
    }
    return state
  }

  async function readAll({ key, size }: { key: string; size: number }): Promise<Uint8Array> {
    const blob = await blobs.get(key)
    if (blob === null || blob.size !== size) throw new Error('the tail of an upload went')
    const bytes = new Uint8Array(size)
    let at = 0
    for await (const chunk of blob.stream()) {
      bytes.set(chunk, at)
      at += chunk.length
    }
    return bytes
  }

  /** Puts together what has arrived; returns where it lies. */
  async function assemble(
    upload: OciUpload,
    tailKey: string,
  ): Promise<{ key: string; size: number }> {
    const { received: size, tail, handle, key } = upload
    if (handle === null) {
      if (tail !== null) return tail
      await blobs.put(tailKey, bytesOf(), 0)
      return { key: tailKey, size: 0 }
    }
    // an earlier try to close it may have come as far
    if ((await blobs.head(key))?.size === size) return { key, size }
    const parts = await uploads.parts(upload.id)
    if (tail !== null) {
      const bytes = await readAll(tail)
      const number = Math.floor((size - tail.size) / OCI_PART_SIZE) + 1
      const { etag } = await blobs.putPart(key, handle, number, bytesOf(bytes), bytes.length)
      parts.push({ number, etag })
    }
    const info = await blobs.finishParts(key, handle, parts)
    if (info.size !== size) throw new Error(`an upload of ${size} bytes became ${info.size}`)
    return { key, size }
  }

  /** Digests of what was assembled: known from the way in, or read back once (R3). */
  async function digestsOf(
    upload: OciUpload,
    key: string,
    algorithm: 'sha256' | 'sha512',
  ): Promise<{ sha256: string; sha512: string | null }> {
    const { sha256, sha512 } = upload
    if (sha256 !== null && (algorithm === 'sha256' || sha512 !== null)) return { sha256, sha512 }
    const hashes = { sha256: hasher(), sha512: algorithm === 'sha512' ? hasher('sha512') : null }
    const blob = await blobs.get(key)
    if (blob === null) throw new Error('the blob went while it was being checked')
    const body = blob.stream()
    for await (const chunk of body) {
      hashes.sha256.update(chunk)
      hashes.sha512?.update(chunk)
      body.free?.(chunk)
    }
    return { sha256: hashes.sha256.hex(), sha512: hashes.sha512?.hex() ?? null }
  }

  /** Ends an upload whose bytes are not what was asked for: nothing was attached, they may go (R7). */
  async function refuse(upload: OciUpload, keys: readonly (string | null)[]): Promise<void> {
    if (!(await uploads.end(upload.id, clock.now()))) return
    await blobs.abortParts(upload.key, upload.handle)
    await blobs.delete([...new Set(keys)].filter((key) => key !== null))
  }

  async function finish(
    upload: OciUpload,
    digest: string,
    container: Container,
    identity: Identity,
    claim: { id: string; tailKey: string },
  ): Promise<void> {
    const { algorithm, hex } = partsOfDigest(digest)
    const { key, size } = await assemble(upload, claim.tailKey)
    const known = await digestsOf(upload, key, algorithm)
    if (known[algorithm] !== hex) {
      await refuse(upload, [upload.key, upload.tail?.key ?? null, key])
      throw new RegistryError(
        'digest_mismatch',
        `The bytes that arrived are ${algorithm}:${known[algorithm]}, not ${digest}.`,
        { subject: 'blob' },
      )
    }
    const attach = () =>
      uploads.finish(upload.id, claim.id, {
        containerId: container.id,
        digest,
        sha256: known.sha256,
        size,
        blobId: ids.next(),
        key,
        defaultQuota,
        writer: writerOf(identity, clock),
      })
    const { key: used } = await attach()
    // R60: equal bytes stored before are used, unless they have gone; then these take their place
    if (used !== key && (await blobs.head(used)) === null) {
      await database.catalog.markLost(used)
      await attach()
    }
  }

  return {
    /** Opens an upload, and the repository where it is not there (R21). */
    async open(path: RepositoryPath, claims: Claims | null): Promise<OciUpload> {
      const { container, writer } = await repositories.pushed(path, claims)
      const upload = {
        id: ids.next(),
        containerId: container.id,
        key: ids.next(),
        createdAt: writer.now,
        expiresAt: new Date(writer.now.getTime() + IDLE_MS),
      }
      await uploads.open(upload, writer, { perUser: MAX_OPEN })
      return {
        ...upload,
        userId: writer.userId,
        handle: null,
        received: 0,
        tail: null,
        sha256: null,
        sha512: null,
        digest: null,
        state: 'open',
      }
    },

    /** Where an upload stands. */
    async status(ref: Ref, claims: Claims | null): Promise<OciUpload> {
      const { upload } = await own(ref, claims)
      if (upload.state !== 'open') throw absent('upload')
      return upload
    },

    /** Adds a chunk where the upload stands. */
    async add(ref: Ref, chunk: Chunk, claims: Claims | null): Promise<OciUpload> {
      const { upload } = await own(ref, claims)
      if (upload.state !== 'open') throw absent('upload')
      check(upload, chunk)
      return claimed(upload, { coming: chunk.length ?? 0, digest: null }, (claim) =>
        append(upload, chunk, claim, { last: false, sha512: false }),
      )
    },

    /**
     * Adds what is left and makes the blob one of the repository's. Nobody sees it before its SHA-256,
     * and the SHA-512 where that was named, is ours. Repeating it after success is success.
     */
    async close(ref: Ref, digest: string, chunk: Chunk, claims: Claims | null): Promise<void> {
      const { upload, container, identity } = await own(ref, claims)
      if (upload.state === 'done' && upload.digest === digest) return
      if (upload.state !== 'open') throw absent('upload')
      check(upload, chunk)
      const sha512 = partsOfDigest(digest).algorithm === 'sha512'
      await claimed(upload, { coming: chunk.length ?? 0, digest }, async (claim) => {
        const whole = await append(upload, chunk, claim, { last: true, sha512 })
        await finish(whole, digest, container, identity, claim)
      })
    },

    /** Drops an upload; one that is done stays. */
    async cancel(ref: Ref, claims: Claims | null): Promise<void> {
      const { upload } = await own(ref, claims)
      if (upload.state !== 'open') throw absent('upload')
      await refuse(upload, [upload.key, upload.tail?.key ?? null])
    },
  }
}

type Ref = { path: RepositoryPath; id: string; containerId: string | null }

const bytesOf = (...pieces: Uint8Array[]): Bytes => ({
  async *[Symbol.asyncIterator]() {
    yield* pieces
  },
})

const joined = (first: Uint8Array | null, rest: Bytes): Bytes =>
  first === null
    ? rest
    : {
        async *[Symbol.asyncIterator]() {
          yield first
          yield* rest
        },
      }

/** A stream that is consumed piece by piece; nothing is read ahead. `free` gives whole chunks back, and no cut ones. */
function cut(body: Bytes, free: Bytes['free']) {
  const chunks = body[Symbol.asyncIterator]()
  let held: Uint8Array = new Uint8Array()
  let ended = false

  async function next(atMost: number): Promise<Uint8Array | null> {
    while (held.length === 0 && !ended) {
      const { done, value } = await chunks.next()
      if (done === true) ended = true
      else held = value
    }
    if (held.length === 0) return null
    const piece = held.subarray(0, atMost)
    held = held.subarray(piece.length)
    return piece
  }

  return {
    /** The next `size` bytes, or what there is of them, in memory: no more than has come. */
    async take(size: number): Promise<{ bytes: Bytes; length: number }> {
      const pieces: Uint8Array[] = []
      let length = 0
      while (length < size) {
        const piece = await next(size - length)
        if (piece === null) break
        pieces.push(piece)
        length += piece.length
      }
      return { bytes: bytesOf(...pieces), length }
    },

    /** The next `size` bytes as they come; its reader must take them all before anything else is read. */
    slice: (size: number): Bytes => ({
      ...(free && { free }),
      async *[Symbol.asyncIterator]() {
        for (let left = size; left > 0;) {
          const piece = await next(left)
          if (piece === null) return
          left -= piece.length
          yield piece
        }
      },
    }),

    /** Waits for the end, which says whether the body was whole. */
    async drained(): Promise<void> {
      if ((await next(1)) !== null)
        throw new RegistryError('size_mismatch', 'More bytes came than were announced.', {
          subject: 'upload',
        })
    },

    async close(): Promise<void> {
      if (!ended) await chunks.return?.()
    },
  }
}
