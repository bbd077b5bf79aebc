/**
 * Where the digests of signed objects come from, what that costs (R3, R52), and what the sweep does
 * about verdicts that nobody has made, or that keys have overtaken.
 */
import { createAccess, DEFAULT_RULES } from '../../src/core/access.ts'
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { memoryBlobs } from '../../adapters/blobs/memory.ts'
import { readKeys } from '../../src/core/openpgp.ts'
import { createUploads } from '../../src/core/uploads.ts'
import type { BlobStore, Bytes } from '../../src/ports.ts'
import { randomIds } from '../../adapters/system.ts'
import { coreWith, heldClock } from '../faults/inside.ts'
import { deffile, partition } from '../fixtures/sif.ts'
import { makeSigner, objectsOf, signedSif, type Signer } from '../fixtures/signed-sif.ts'
import { sha256 } from '../protocol/client.ts'
import { operator } from '../fixtures/operator.ts'

type Core = Awaited<ReturnType<typeof coreWith>>
type User = Awaited<ReturnType<Core['user']>>

const MIB = 1024 * 1024

let core: Core
let alice: User
let signer: Signer
/** Bytes read from the store since they were last asked for. */
let read = 0

beforeAll(async () => {
  signer = await makeSigner('Alice')
})
beforeEach(async () => {
  const clock = heldClock()
  const memory = memoryBlobs({ clock })
  const blobs: BlobStore = {
    ...memory,
    async get(key, range) {
      const blob = await memory.get(key, range)
      if (blob !== null) read += blob.range.end - blob.range.start + 1
      return blob
    },
  }
  core = await coreWith({ blobs, clock, graceSeconds: 3600 })
  alice = await core.user('alice')
  read = 0
})
afterEach(() => core.close())

const image = (content = 'x') =>
  signedSif([deffile('d'), partition({ data: content.padEnd(MIB, '-') })], [{ by: signer }])

async function* chunks(bytes: Uint8Array): Bytes {
  for (let at = 0; at < bytes.length; at += 50_000) yield bytes.subarray(at, at + 50_000)
}

async function addKey(armor = signer.armor): Promise<void> {
  const now = core.clock.now()
  for (const facts of await readKeys(armor, new Date())) {
    const { value } = await core.database.keys.find(facts.fingerprint, null, now)
    const expected = value?.revision ?? 0
    await core.database.keys.put({ facts, expected, show: true, by: operator(), now })
  }
}

/** A record for the bytes, and the ways in of a process of its own. */
async function announced(bytes: Uint8Array, uploads = core.uploads) {
  const digest = sha256(bytes)
  const draft = { hash: `sha256.${digest}`, description: '', container: alice.container }
  const { id } = await core.catalog.createImage(draft, alice.claims)
  return { id, digest, uploads }
}
const verdictOf = async (id: string) =>
  (await core.database.catalog.imageById(id, null, core.clock.now())).value?.judgement.verdict

/** Another process on the same registry: it remembers nothing. */
const access = createAccess(DEFAULT_RULES)
const elsewhere = () => createUploads({ ...core, access, ids: randomIds, minFree: 0 })

async function inParts(bytes: Uint8Array, complete = core.uploads) {
  const { id } = await announced(bytes)
  const { claims } = alice
  const { id: upload, blobKey, handle } = await core.uploads.openParts(id, bytes.length, claims)
  const ticket = {
    upload,
    key: blobKey,
    handle: handle ?? '',
    part: 1,
    size: bytes.length,
    sha256: null,
  }
  const { etag } = await core.uploads.receivePart(ticket, chunks(bytes))
  await complete.completeParts(id, upload, [{ number: 1, etag }], claims)
  return id
}

describe('the digests of what is signed', () => {
  test('come from the way in: of a whole body, and of parts', async () => {
    await addKey()
    const [single, parts] = [await image('single'), await image('parts')]
    const id = await core.push(alice, single)
    expect(await verdictOf(id)).toBe('verified')
    expect(await verdictOf(await inParts(parts))).toBe('verified')
    // headers, texts and signatures; not the partitions
    expect(read).toBeLessThan(300_000)
  })

  test('come with the whole from the read-back, where that is needed', async () => {
    await addKey()
    const bytes = await image()
    expect(await verdictOf(await inParts(bytes, elsewhere()))).toBe('verified')
    expect(read).toBeGreaterThanOrEqual(bytes.length)
    expect(read).toBeLessThan(bytes.length + 150_000)
  })

  test('are read once where the store has checked the whole', async () => {
    await addKey()
    const bytes = await image()
    const { id, digest } = await announced(bytes)
    const upload = await core.uploads.openSingle(id, bytes.length, digest, alice.claims)
    // the runtime itself moves the bytes (Workers): nobody sees them pass
    const native = new Blob([bytes]).stream() as ReadableStream<Uint8Array>
    const body: Bytes = Object.assign(chunks(bytes), { native })
    const ticket = { upload: upload.id, key: upload.blobKey, size: bytes.length, sha256: digest }
    await core.uploads.receiveSingle(ticket, body)
    await core.uploads.completeSingle(id, alice.claims)
    expect(await verdictOf(id)).toBe('verified')
    expect(read).toBeGreaterThanOrEqual(MIB)
    expect(read).toBeLessThan(MIB + 150_000)
  })

  test('of a part that was sent again are those of the bytes that stayed (R3)', async () => {
    await addKey()
    const bytes = await image()
    const other = bytes.slice()
    other[objectsOf(bytes)[1]!.offset] = 0
    const { id } = await announced(bytes)
    const { claims } = alice
    const { id: upload, blobKey, handle } = await core.uploads.openParts(id, bytes.length, claims)
    const ticket = {
      upload,
      key: blobKey,
      handle: handle ?? '',
      part: 1,
      size: bytes.length,
      sha256: null,
    }
    await core.uploads.receivePart(ticket, chunks(other))
    const { etag } = await core.uploads.receivePart(ticket, chunks(bytes))
    await core.uploads.completeParts(id, upload, [{ number: 1, etag }], claims)
    expect(await verdictOf(id)).toBe('verified')
  })
})

describe('the sweep', () => {
  test('looks at signed images that nobody has looked at', async () => {
    const unchecked = createUploads({
      ...core,
      access,
      ids: randomIds,
      minFree: 0,
      checkSignatures: false,
    })
    const ids: string[] = []
    for (const word of ['one', 'two', 'three']) {
      const bytes = await image(word)
      const { id } = await announced(bytes)
      await unchecked.receiveWhole(id, bytes.length, chunks(bytes), alice.claims)
      ids.push(id)
    }
    await addKey()
    const verdicts = () => Promise.all(ids.map(verdictOf))
    expect(await verdicts()).toEqual(['pending', 'pending', 'pending'])
    const budget = { pages: 1, aborts: 1, keys: 1, verdicts: 1, images: 2 }
    const sweep = () => core.startSweep({ budget, persistent: true })()
    // in small runs it judges and looks in turn
    await sweep()
    expect(await verdicts()).toEqual(['pending', 'pending', 'pending'])
    await sweep()
    expect((await verdicts()).filter((verdict) => verdict === 'verified')).toHaveLength(2)
    for (let turns = 0; turns < 3; turns++) await sweep()
    expect(await verdicts()).toEqual(['verified', 'verified', 'verified'])
  })

  test('judges anew what keys have overtaken, and forgets with the image', async () => {
    const ids: string[] = []
    // more than one batch
    for (let n = 0; n < 11; n++) ids.push(await core.push(alice, await image(`${n}`)))
    const verdicts = async () => [...new Set(await Promise.all(ids.map(verdictOf)))]
    expect(await verdicts()).toEqual(['unknown key'])
    await addKey()
    expect(await verdicts()).toEqual(['unknown key'])
    await core.startSweep()()
    expect(await verdicts()).toEqual(['verified'])
    await addKey(await signer.revoked())
    await core.startSweep()()
    expect(await verdicts()).toEqual(['bad'])
    const { database } = core
    const { value } = await database.catalog.imageById(ids[0]!, null, core.clock.now())
    const writer = {
      userId: alice.claims.userId,
      tokenId: alice.claims.tokenId,
      admin: false,
      manages: false,
      address: null,
      now: core.clock.now(),
    }
    await database.catalog.deleteImage(
      { imageId: ids[0]!, containerId: value!.containerId },
      writer,
    )
    await database.signatures.window('', 100)
    await database.keys.remove(signer.fingerprint, {
      forGood: true,
      by: operator(),
      now: core.clock.now(),
    })
    const { outdated } = await database.signatures.window('', 100)
    expect(outdated).toHaveLength(10)
  })
})
