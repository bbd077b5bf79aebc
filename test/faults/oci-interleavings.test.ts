/**
 * Uploads, mounts, manifests, tags, deletes and sweeps of OCI, with pushes and deletes of the library
 * on the same blobs, interleaved at every call of database and store in an order that follows from a
 * seed: no live blob is swept, no manifest loses what it names, nothing stays behind (R6, R7, R9, R21,
 * R31, R47). The orders are walked through in docs/oci.md. `SREG_TEST_SEED` repeats one.
 */
import { expect, test } from 'vitest'
import { memoryBlobs } from '../../adapters/blobs/memory.ts'
import { randomIds } from '../../adapters/system.ts'
import { createBridge } from '../../src/core/bridge.ts'
import { createManifests } from '../../src/core/manifests.ts'
import { createOciUploads } from '../../src/core/oci-uploads.ts'
import { parseRef } from '../../src/core/ref.ts'
import { createRepositories } from '../../src/core/repositories.ts'
import { isRegistryError } from '../../src/errors.ts'
import type { RepositoryPath } from '../../src/ports.ts'
import { sampleSif } from '../fixtures/sif.ts'
import { sha256 } from '../protocol/client.ts'
import {
  bytesOf,
  coreWith,
  DAY_MS,
  delayed,
  heldClock,
  HOUR_MS,
  keysOf,
  readAll,
  type Core,
} from './inside.ts'
import { seeded } from './process.ts'

const BUDGET_MS = 8000
const ACTORS = 6
const STEPS = 14
const IMAGE = 'application/vnd.oci.image.manifest.v1+json'
const INDEX = 'application/vnd.oci.image.index.v1+json'
const CONFIG = Buffer.from('{}')
/** A SIF that the library pushes too, a layer that only OCI knows, and the config of all. */
const LAYERS = [sampleSif({ content: 'both' }), Buffer.from('layer one'), Buffer.from('layer two')]
const TAGS = ['latest', 'stable']
const GRACE_SECONDS = 600

const named = (bytes: Uint8Array | string) => `sha256:${sha256(Buffer.from(bytes))}`
const descriptor = (mediaType: string, bytes: Uint8Array | string) => ({
  mediaType,
  digest: named(bytes),
  size: Buffer.byteLength(bytes),
})

type User = Awaited<ReturnType<Core['user']>>

/** OCI over that core. */
function ociOf(core: Core) {
  const repositories = createRepositories({ ...core.shared, catalog: core.catalog })
  const bridge = createBridge({ ...core.shared, catalog: core.catalog })
  const shared = { ...core.shared, repositories, bridge, ids: randomIds }
  const deps = { ...shared, ociReferrers: 'delete' as const }
  return { manifests: createManifests(deps), uploads: createOciUploads(deps) }
}

const pathOf = (user: User): RepositoryPath => ({
  entity: user.name,
  collection: 'c',
  container: 'n',
})

const imageOf = (layer: Uint8Array, more: object = {}) =>
  JSON.stringify({
    schemaVersion: 2,
    mediaType: IMAGE,
    config: descriptor('application/vnd.oci.image.config.v1+json', CONFIG),
    layers: [descriptor('application/vnd.oci.image.layer.v1.tar', layer)],
    ...more,
  })

/**
 * Every blob that a manifest which is there names is there too, in one read of the database. The config
 * `{}` is served without bytes in the store where a manifest names it.
 */
function expectManifestsWhole(core: Core): void {
  expect(
    core.rows(
      `SELECT r.digest FROM manifest_refs r WHERE r.kind = 'blob' AND r.digest <> '${named(CONFIG)}'
        AND NOT EXISTS (SELECT 1 FROM repository_blobs m JOIN blobs b ON b.id = m.blob_id AND b.state = 'live' WHERE m.container_id = r.container_id AND m.digest = r.digest)
        AND NOT EXISTS (SELECT 1 FROM images i JOIN blobs b ON b.id = i.blob_id AND b.state = 'live' WHERE i.container_id = r.container_id AND r.digest = 'sha256:' || i.digest)`,
    ),
  ).toEqual([])
}

async function episode(seed: number): Promise<Record<string, number>> {
  const random = seeded(seed)
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T
  const clock = heldClock()
  let losing = true
  const lose = (name: string) => losing && name === 'finish' && random() < 0.05
  const core = await coreWith({
    blobs: memoryBlobs({ clock }),
    clock,
    graceSeconds: GRACE_SECONDS,
    around: delayed(random, lose),
  })
  const { manifests, uploads } = ociOf(core)
  const users = [await core.user('alice'), await core.user('bob')]
  const counts: Record<string, number> = { refused: 0 }
  const count = (what: string) => (counts[what] = (counts[what] ?? 0) + 1)

  const chunkOf = (bytes: Uint8Array) => ({
    body: bytesOf(bytes),
    length: random() < 0.5 ? bytes.length : null,
    range: null,
  })
  async function upload(user: User, bytes: Uint8Array): Promise<void> {
    const path = pathOf(user)
    const { id, containerId } = await uploads.open(path, user.claims)
    const ref = { path, id, containerId }
    const digest = named(bytes)
    const cut = Math.floor(random() * bytes.length)
    if (random() < 0.5) {
      await uploads.add(ref, chunkOf(bytes.subarray(0, cut)), user.claims)
      await uploads.close(ref, digest, chunkOf(bytes.subarray(cut)), user.claims)
    } else if (random() < 0.1) {
      await uploads.add(ref, chunkOf(bytes), user.claims)
      if (random() < 0.5) await uploads.cancel(ref, user.claims)
    } else {
      // twice at once: one takes it, the other is told so or finds it done (R47)
      const results = await Promise.allSettled(
        [1, 2].map(() => uploads.close(ref, digest, chunkOf(bytes), user.claims)),
      )
      for (const result of results)
        if (result.status === 'rejected' && !expected(result.reason)) throw result.reason
      const done = results.find((result) => result.status === 'fulfilled')
      if (done === undefined) throw (results[0] as PromiseRejectedResult).reason
    }
    count('uploads')
  }

  /** A blob that was just acknowledged or read is whole, unless a delete came between. */
  async function expectWhole(user: User, digest: string): Promise<void> {
    const look = async () => {
      const { value } = await core.database.manifests.member(
        pathOf(user),
        digest,
        user.claims,
        clock.now(),
      )
      return value?.blob ?? null
    }
    const before = await look()
    if (before === null) return
    const read = await readAll(core.blobs, before.key)
    if (read === null) expect((await look())?.key).not.toBe(before.key)
    else expect(`sha256:${read}`).toBe(digest)
  }

  async function put(user: User, text: string, tags: string[]): Promise<void> {
    const selector = { by: 'digest', digest: named(text) } as const
    const sent = { bytes: Buffer.from(text), contentType: null, tags }
    await manifests.put(pathOf(user), selector, sent, user.claims)
    count('manifests')
    expectManifestsWhole(core)
  }

  async function step(): Promise<void> {
    const user = pick(users)
    const path = pathOf(user)
    const layer = pick(LAYERS)
    const dice = random()
    // minutes mostly, and now and then so much that memberships and uploads are due
    clock.move(random() < 0.1 ? DAY_MS + HOUR_MS : Math.floor(random() * 200_000))
    if (dice < 0.3) {
      await upload(user, CONFIG)
      await upload(user, layer)
      await expectWhole(user, named(layer))
      const text = imageOf(layer)
      await put(user, text, [pick(TAGS)])
      const subject = descriptor(IMAGE, text)
      if (random() < 0.5) await put(user, imageOf(layer, { subject, artifactType: 'a/b' }), [])
      const index = { schemaVersion: 2, mediaType: INDEX, manifests: [subject] }
      if (random() < 0.3) await put(user, JSON.stringify(index), [pick(TAGS)])
    } else if (dice < 0.45) {
      const from = pick(users)
      const digest = named(layer)
      const source = { digest, from: random() < 0.5 ? pathOf(from) : null, publicOnly: false }
      if (await manifests.mount(path, source, user.claims)) count('mounts')
      await expectWhole(user, digest)
    } else if (dice < 0.55) {
      await put(user, imageOf(layer), [pick(TAGS)])
    } else if (dice < 0.65) {
      await manifests.remove(path, { by: 'tag', tag: pick(TAGS) }, user.claims)
    } else if (dice < 0.75) {
      const selector = { by: 'digest', digest: named(imageOf(layer)) } as const
      await manifests.remove(path, selector, user.claims)
      count('deletes')
    } else if (dice < 0.85) {
      await manifests.removeBlob(path, named(pick([layer, CONFIG])), user.claims)
      count('deletes')
    } else if (dice < 0.93) {
      const imageId = await core.push(user, LAYERS[0] as Uint8Array)
      await core.catalog.setTag(
        user.container,
        { arch: 'amd64', tag: pick(TAGS), imageId },
        user.claims,
      )
      count('pushes')
    } else {
      const ref = parseRef(`${user.name}/c/n:${pick(TAGS)}`, { shortRefs: 'default' })
      await core.catalog.deleteImage(ref, 'amd64', user.claims)
      count('deletes')
    }
    expectManifestsWhole(core)
  }

  async function act(): Promise<void> {
    for (let i = 0; i < STEPS; i++) {
      try {
        await step()
      } catch (error) {
        if (!expected(error)) throw error
        count('refused')
      }
    }
  }
  const sweep = core.startSweep()
  const quiet = new AbortController()
  const sweeping = (async () => {
    while (!quiet.signal.aborted) {
      await sweep({ now: true })
      expectManifestsWhole(core)
    }
  })()
  await Promise.all(Array.from({ length: ACTORS }, act)).finally(() => quiet.abort())
  await sweeping

  // Quiet: what was left lying about is swept, what is named stays, and store and rows agree.
  losing = false
  for (let run = 0; run < 5; run++) {
    clock.move(2 * DAY_MS)
    await sweep({ now: true })
  }
  expectManifestsWhole(core)
  const rows = (query: string) => core.rows(query) as Record<string, string>[]
  for (const table of ['oci_uploads', 'oci_upload_keys', 'oci_upload_parts', 'uploads'])
    expect([table, rows(`SELECT * FROM ${table}`)]).toEqual([table, []])
  // members: those that manifests name, and no others
  expect(
    rows(
      `SELECT digest FROM repository_blobs m WHERE NOT EXISTS (SELECT 1 FROM manifest_refs r WHERE r.container_id = m.container_id AND r.digest = m.digest)`,
    ),
  ).toEqual([])
  for (const [table, column] of [
    ['manifest_pieces', 'manifest'],
    ['manifest_refs', 'manifest'],
    ['oci_tags', 'manifest'],
  ])
    expect(
      rows(
        `SELECT * FROM ${table} x WHERE NOT EXISTS (SELECT 1 FROM manifests m WHERE m.container_id = x.container_id AND m.digest = x.${column})`,
      ),
    ).toEqual([])
  const blobs = rows(
    `SELECT key, digest, state FROM blobs b WHERE EXISTS (SELECT 1 FROM images WHERE blob_id = b.id) OR EXISTS (SELECT 1 FROM repository_blobs WHERE blob_id = b.id)`,
  )
  for (const { key = '', digest, state } of blobs) {
    expect(state).toBe('live')
    expect(await readAll(core.blobs, key)).toBe(digest)
  }
  expect(rows('SELECT key FROM blobs')).toHaveLength(blobs.length)
  expect((await keysOf(core.blobs)).toSorted()).toEqual(blobs.map(({ key }) => key).toSorted())
  expect(new Set(blobs.map(({ digest }) => digest)).size).toBe(blobs.length)
  // what entities use is what they have, counted once
  for (const { id, used } of rows('SELECT id, used FROM entities')) {
    const [held] = rows(
      `SELECT coalesce(sum(size), 0) AS size FROM (SELECT DISTINCT b.digest, b.size FROM blobs b JOIN (SELECT container_id, blob_id FROM images UNION SELECT container_id, blob_id FROM repository_blobs) x ON x.blob_id = b.id JOIN containers n ON n.id = x.container_id JOIN collections c ON c.id = n.collection_id WHERE c.entity_id = '${id}')`,
    )
    expect(used).toBe(held?.['size'])
  }
  core.close()
  return counts
}

/** Another actor deleted, closed or moved first, a sweep took what nobody named in time, or an answer was lost. */
const expected = (error: unknown): boolean =>
  isRegistryError(error, 'conflict', 'not_found', 'range_unsatisfiable') ||
  (isRegistryError(error, 'invalid') && /does not have|has gone meanwhile/.test(error.message)) ||
  (error as Error).message.includes('the answer was lost')

test('R6, R7, R9, R21, R31, R47: no order of OCI, library and sweeps breaks a repository', async () => {
  const fixed = process.env.SREG_TEST_SEED
  const end = performance.now() + BUDGET_MS
  const episodes = Number(process.env.SREG_TEST_EPISODES ?? Infinity)
  const total: Record<string, number> = { episodes: 0 }
  for (let seed = Number(fixed ?? Date.now() % 1_000_000); ; seed++) {
    const counts = await episode(seed).catch((error: unknown) => {
      throw new Error(`SREG_TEST_SEED=${seed}`, { cause: error })
    })
    total['episodes'] = (total['episodes'] ?? 0) + 1
    for (const [what, more] of Object.entries(counts)) total[what] = (total[what] ?? 0) + more
    if (fixed !== undefined || total['episodes'] >= episodes) break
    if (episodes === Infinity && performance.now() > end) break
  }
  console.log(`oci interleavings: ${JSON.stringify(total)}`)
  if (fixed !== undefined) return
  for (const what of ['uploads', 'manifests', 'mounts', 'deletes', 'pushes'])
    expect([what, (total[what] ?? 0) > 0]).toEqual([what, true])
})

test('R9: a manifest keeps the blobs that it had from an image of the library alone', async () => {
  const core = await coreWith({ blobs: memoryBlobs(), graceSeconds: 0 })
  const { manifests } = ociOf(core)
  const alice = await core.user('alice')
  const sif = LAYERS[0] as Uint8Array
  const imageId = await core.push(alice, sif)
  const change = { arch: 'amd64', tag: 'latest', imageId }
  await core.catalog.setTag(alice.container, change, alice.claims)
  // nothing was uploaded by OCI: SIF and config are there, for the image is
  const sent = { bytes: Buffer.from(imageOf(sif)), contentType: null, tags: [] }
  await manifests.put(pathOf(alice), { by: 'tag', tag: 'other' }, sent, alice.claims)
  const ref = parseRef('alice/c/n:latest', { shortRefs: 'default' })
  await core.catalog.deleteImage(ref, 'amd64', alice.claims)
  const sweep = core.startSweep()
  for (let run = 0; run < 3; run++) {
    core.clock.move(2 * DAY_MS)
    await sweep({ now: true })
  }
  expectManifestsWhole(core)
  for (const bytes of [sif, CONFIG]) {
    const read = await manifests.blob(pathOf(alice), named(bytes), alice.claims)
    expect(read.size).toBe(bytes.length)
  }
  core.close()
})
