/**
 * Pushes, deletes, tag moves and sweeps of the same few images, interleaved at every call of
 * database and store in an order that follows from a seed: what was acknowledged stays whole, and
 * nothing stays behind (R7, R8, R9, R20, R21). `SREG_TEST_SEED` repeats one.
 */
import { expect, test } from 'vitest'
import { memoryBlobs } from '../../adapters/blobs/memory.ts'
import type { Claims } from '../../src/core/model.ts'
import { parseRef } from '../../src/core/ref.ts'
import { isRegistryError } from '../../src/errors.ts'
import { sampleSif } from '../fixtures/sif.ts'
import { sha256 } from '../protocol/client.ts'
import {
  bytesOf,
  coreWith,
  DAY_MS,
  delayed,
  heldClock,
  keysOf,
  readAll,
  type Core,
} from './inside.ts'
import { seeded } from './process.ts'

const BUDGET_MS = 6000
const ACTORS = 6
const STEPS = 12
const CONTENTS = ['one', 'two'].map((content) => sampleSif({ content }))
const TAGS = ['latest', 'stable']
const config = { shortRefs: 'default' } as const

type User = Awaited<ReturnType<Core['user']>>

async function episode(seed: number): Promise<{ pushes: number; refused: number }> {
  const random = seeded(seed)
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T
  const clock = heldClock()
  let losing = true
  const core = await coreWith({
    blobs: memoryBlobs({ clock }),
    clock,
    graceSeconds: 0,
    around: delayed(random, (name) => losing && name === 'attach' && random() < 0.05),
  })
  // One whose images all may read, and one who can read those but is not read.
  const users = [await core.user('alice'), await core.user('bob', { private: true })]
  const sweep = core.startSweep()
  const counts = { pushes: 0, refused: 0 }

  /** The image has its bytes now, unless it was deleted meanwhile. */
  async function expectWhole(imageId: string, claims: Claims): Promise<void> {
    const { catalog } = core.database
    const look = async () => (await catalog.imageById(imageId, claims, clock.now())).value
    const before = await look()
    if (before?.blob == null) return
    const digest = await readAll(core.blobs, before.blob.key)
    // Gone between the two looks: then the row must not name it any more.
    if (digest === null) expect((await look())?.blob?.key).not.toBe(before.blob.key)
    else expect(digest).toBe(before.digest)
  }

  async function pushInParts({ claims, container }: User, bytes: Uint8Array): Promise<string> {
    const hash = `sha256.${sha256(bytes)}`
    const image = await core.catalog.createImage({ hash, description: '', container }, claims)
    if (image.uploaded) return image.id
    const {
      id,
      blobKey: key,
      handle,
    } = await core.uploads.openParts(image.id, bytes.length, claims)
    const ticket = { upload: id, key, handle: handle ?? '', part: 1, size: bytes.length }
    const { etag } = await core.uploads.receivePart({ ...ticket, sha256: null }, bytesOf(bytes))
    const complete = core.uploads.completeParts(image.id, id, [{ number: 1, etag }], claims)
    // Twice at once is one completion (R20); an abort may or may not come first (R22).
    const second = pick([
      () => core.uploads.completeParts(image.id, id, [{ number: 1, etag }], claims),
      () => core.uploads.abort(image.id, id, claims),
      () => Promise.resolve(),
    ])
    const results = await Promise.allSettled([complete, second()])
    for (const result of results) if (result.status === 'rejected') throw result.reason
    return image.id
  }

  async function step(): Promise<void> {
    const user = pick(users)
    const bytes = pick(CONTENTS)
    const dice = random()
    clock.move(1 + Math.floor(random() * 3))
    if (dice < 0.5) {
      const push = random() < 0.5 ? core.push : pushInParts
      const imageId = await push(user, bytes)
      await expectWhole(imageId, user.claims)
      const change = { arch: 'amd64', tag: pick(TAGS), imageId }
      await core.catalog.setTag(user.container, change, user.claims)
      await expectWhole(imageId, user.claims)
      counts.pushes += 1
    } else {
      const name = random() < 0.5 ? pick(TAGS) : `sha256.${sha256(bytes)}`
      const ref = parseRef(`${user.name}/c/n:${name}`, config)
      await core.catalog.deleteImage(ref, 'amd64', user.claims)
    }
  }

  async function act(): Promise<void> {
    for (let i = 0; i < STEPS; i++) {
      try {
        await step()
      } catch (error) {
        // Another actor deleted, completed or aborted first; or an answer was lost on purpose.
        const raced = isRegistryError(error, 'conflict', 'not_found')
        if (!raced && !(error as Error).message.includes('the answer was lost')) throw error
        counts.refused += 1
      }
    }
  }
  const quiet = new AbortController()
  const sweeping = (async () => {
    while (!quiet.signal.aborted) await sweep({ now: true })
  })()
  await Promise.all(Array.from({ length: ACTORS }, act)).finally(() => quiet.abort())
  await sweeping

  // Quiet: after the deadlines of what was left lying about, rows and store name the same blobs.
  losing = false
  for (let run = 0; run < 4; run++) {
    clock.move(2 * DAY_MS)
    await sweep({ now: true })
  }
  const named = new Set<string>()
  for (const { name, claims } of users) {
    const { below, tags } = await core.catalog.container(
      { entity: name, collection: 'c', container: 'n' },
      claims,
    )
    for (const id of below.ids) {
      const { value } = await core.database.catalog.imageById(id, claims, clock.now())
      const key = value?.blob?.key ?? 'none'
      expect(await readAll(core.blobs, key)).toBe(value?.digest)
      named.add(key)
    }
    for (const { imageId } of tags) expect(below.ids).toContain(imageId)
  }
  expect((await keysOf(core.blobs)).toSorted()).toEqual([...named].toSorted())
  core.close()
  return counts
}

test('R7, R8, R9, R20, R21: no order of pushes, deletes and sweeps breaks an image', async () => {
  const fixed = process.env.SREG_TEST_SEED
  const end = performance.now() + BUDGET_MS
  const total = { episodes: 0, pushes: 0, refused: 0 }
  for (let seed = Number(fixed ?? Date.now() % 1_000_000); ; seed++) {
    const counts = await episode(seed).catch((error: unknown) => {
      throw new Error(`SREG_TEST_SEED=${seed}`, { cause: error })
    })
    total.episodes += 1
    total.pushes += counts.pushes
    total.refused += counts.refused
    if (fixed !== undefined || performance.now() > end) break
  }
  console.log(`interleavings: ${JSON.stringify(total)}`)
  expect(total.pushes).toBeGreaterThan(total.episodes)
})

test('R60: bytes that were lost come back with a push by who cannot read the others', async () => {
  const core = await coreWith({ blobs: memoryBlobs(), graceSeconds: 3600 })
  const bytes = sampleSif({ content: 'lost' })
  const users = [await core.user('alice', { private: true }), await core.user('bob')]
  const images: string[] = []
  for (const user of users) {
    // What the first one stored goes before the second one pushes.
    await core.blobs.delete(await keysOf(core.blobs))
    images.push(await core.push(user, bytes))
  }
  for (const id of images) {
    const { value } = await core.database.catalog.imageById(id, null, core.clock.now())
    expect(await readAll(core.blobs, value?.blob?.key ?? '')).toBe(sha256(bytes))
  }
  core.close()
})
