/** Uploads by a clock of our own: what is left behind, and when it makes way. */
import { createAccess, DEFAULT_RULES } from '../../src/core/access.ts'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { memoryBlobs } from '../../adapters/blobs/memory.ts'
import { openDatabase, type OpenDatabase } from '../../adapters/databases/better-sqlite3.ts'
import { migrations } from '../../adapters/node/main.ts'
import { randomIds } from '../../adapters/system.ts'
import { sha256Hex } from '../../src/core/digest.ts'
import type { Claims } from '../../src/core/model.ts'
import { createUploads } from '../../src/core/uploads.ts'
import { isRegistryError } from '../../src/errors.ts'
import { sampleSif } from '../fixtures/sif.ts'
import { operator } from '../fixtures/operator.ts'

const SIF = sampleSif()
const START = Date.UTC(2026, 0, 1)

let folder: string
let opened: OpenDatabase
let time: number
let claims: Claims

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sreg-uploads-'))
  opened = await openDatabase(join(folder, 'db'), { mode: 'server', migrations: migrations() })
  time = START
  const { database } = opened
  const userId = randomIds.next()
  const createdAt = clock.now()
  await database.users.create(
    {
      id: userId,
      entityId: randomIds.next(),
      name: 'alice',
      role: 'user',
      disabled: false,
      createdAt,
    },
    operator(),
  )
  const expiresAt = new Date(START + 30 * 86_400_000)
  const tokenId = randomIds.next()
  const scopes = ['push'] as const
  await database.tokens.insert(
    {
      id: tokenId,
      userId,
      name: 'test',
      scopes: [...scopes],
      createdAt,
      expiresAt,
    },
    operator(),
  )
  claims = { tokenId, userId, scopes, expiresAt }
})

afterEach(async () => {
  opened.close()
  await rm(folder, { recursive: true })
})

const clock = { now: () => new Date(time) }
const seconds = (count: number) => (time += count * 1000)

async function* body(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}

const access = createAccess(DEFAULT_RULES)

/** A process with its own memory, on the same database and blobs. */
const process = (blobs: ReturnType<typeof memoryBlobs>) =>
  createUploads({ database: opened.database, blobs, clock, ids: randomIds, minFree: 0, access })

/** The record of an image to be pushed. */
async function newImage(digest = sha256Hex(SIF)): Promise<string> {
  const { catalog } = opened.database
  const writer = {
    userId: claims.userId,
    tokenId: claims.tokenId,
    admin: false,
    manages: false,
    address: null,
    now: clock.now(),
  }
  const draft = { description: '', private: false, writer }
  const found = await catalog.findEntity('alice', claims, clock.now())
  const entityId = found.value?.entity.id ?? ''
  const id = () => randomIds.next()
  const collection = await catalog.createCollection({ ...draft, id: id(), name: 'c', entityId })
  const collectionId = collection.row.id
  const container = await catalog.createContainer({ ...draft, id: id(), name: 'n', collectionId })
  const containerId = container.row.id
  const image = await catalog.createImage({
    id: id(),
    digest,
    description: '',
    containerId,
    writer,
  })
  return image.row.id
}

const code = async (work: Promise<unknown>) =>
  work.then(
    () => null,
    (error: unknown) => (isRegistryError(error) ? error.code : error),
  )

describe('R50: an upload that was left makes way for the next push of its image', () => {
  const ROOM = 100_000

  test('after half a minute, not before', async () => {
    const uploads = process(memoryBlobs({ limit: ROOM, clock }))
    const image = await newImage()
    await uploads.openParts(image, 80_000, claims)
    seconds(29)
    expect(await code(uploads.openParts(image, 80_000, claims))).toBe('insufficient_storage')
    seconds(1)
    expect(await code(uploads.openParts(image, 80_000, claims))).toBe(null)
  })

  test('not while a body is being received, however slowly', async () => {
    const uploads = process(memoryBlobs({ limit: 2 * ROOM, clock }))
    const image = await newImage()
    const upload = await uploads.openParts(image, SIF.length, claims)
    let go = (): void => undefined
    const waiting = new Promise<void>((resolve) => (go = resolve))
    async function* slow() {
      yield SIF.subarray(0, 1000)
      await waiting
      yield SIF.subarray(1000)
    }
    const ticket = { upload: upload.id, key: upload.blobKey, handle: upload.handle ?? '' }
    const part = { ...ticket, part: 1, size: SIF.length, sha256: null }
    const sent = uploads.receivePart(part, slow())
    seconds(3600)
    await uploads.openParts(image, SIF.length, claims)
    go()
    const { etag } = await sent
    const parts = [{ number: 1, etag }]
    expect(await code(uploads.completeParts(image, upload.id, parts, claims))).toBe(null)
  })

  test('what another process may be receiving gets an hour', async () => {
    const blobs = memoryBlobs({ limit: ROOM, clock })
    const image = await newImage()
    await process(blobs).openParts(image, 80_000, claims)
    seconds(3599)
    expect(await code(process(blobs).openParts(image, 80_000, claims))).toBe('insufficient_storage')
    seconds(1)
    expect(await code(process(blobs).openParts(image, 80_000, claims))).toBe(null)
  })

  test('where bytes bypass us, an hour after the last part was signed for', async () => {
    const direct = {
      get: async () => null,
      putPart: async (key: string) => `http://127.0.0.1/${key}`,
      parts: async () => [],
    }
    const uploads = process({ ...memoryBlobs({ limit: ROOM, clock }), direct })
    const image = await newImage()
    const { id, blobKey: key, handle } = await uploads.openParts(image, 80_000, claims)
    const sign = () =>
      uploads.partUrl(
        { upload: id, key, handle: handle ?? '' },
        { number: 1, size: 80_000, sha256: null },
        clock.now(),
      )
    seconds(3000)
    expect(await sign()).toBe(`http://127.0.0.1/${key}`)
    seconds(3599)
    expect(await code(uploads.openParts(image, 80_000, claims))).toBe('insufficient_storage')
    seconds(1)
    expect(await code(uploads.openParts(image, 80_000, claims))).toBe(null)
  })

  test('at the next sweep when its image was deleted', async () => {
    const uploads = process(memoryBlobs({ limit: ROOM, clock }))
    const image = await newImage()
    const upload = await uploads.openParts(image, 80_000, claims)
    expect(await opened.database.uploads.expire(clock.now(), 10)).toBe(0)
    const found = await opened.database.catalog.imageById(image, claims, clock.now())
    const containerId = found.value?.containerId ?? ''
    const { userId, tokenId } = claims
    const writer = {
      userId,
      tokenId,
      admin: false,
      manages: false,
      address: null,
      now: clock.now(),
    }
    await opened.database.catalog.deleteImage({ imageId: image, containerId }, writer)
    expect(await opened.database.uploads.expire(clock.now(), 10)).toBe(1)
    const ended = await opened.database.uploads.find(upload.id, claims, clock.now())
    expect(ended.value?.state).toBe('expired')
  })

  test('a failed v1 upload leaves nothing reserved', async () => {
    const blobs = memoryBlobs({ limit: ROOM, clock })
    const uploads = process(blobs)
    const image = await newImage()
    const short = uploads.receiveWhole(image, 80_000, body(SIF.subarray(0, 10)), claims)
    expect(await code(short)).toBe('size_mismatch')
    expect(await code(uploads.openParts(image, 90_000, claims))).toBe(null)
  })
})

describe('R20: equal pushes', () => {
  test('the one that comes second completes too, and its bytes are surplus', async () => {
    const blobs = memoryBlobs({ clock })
    const uploads = process(blobs)
    const image = await newImage()
    const one = await uploads.openSingle(image, SIF.length, null, claims)
    const two = await uploads.openSingle(image, SIF.length, null, claims)
    for (const { id: upload, blobKey: key, size, digest: sha256 } of [one, two])
      await uploads.receiveSingle({ upload, key, size, sha256 }, body(SIF))
    await uploads.completeSingle(image, claims)
    seconds(1)
    await uploads.completeSingle(image, claims)
    const closed = await opened.database.uploads.closed(new Date(time + 1), 10)
    expect(closed.map(({ kept }) => kept).toSorted()).toEqual([false, true])
    expect(await code(uploads.completeSingle(image, claims))).toBe(null)
  })

  test('a completion without bytes is refused', async () => {
    const uploads = process(memoryBlobs({ clock }))
    const image = await newImage()
    await uploads.openSingle(image, SIF.length, null, claims)
    expect(await code(uploads.completeSingle(image, claims))).toBe('conflict')
  })
})
