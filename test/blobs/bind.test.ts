/** Whose bucket it is (R10): a second registry must not start on it. */
import { afterEach, beforeEach, expect, test } from 'vitest'
import { bindBucket } from '../../adapters/bind.ts'
import { memoryBlobs } from '../../adapters/blobs/memory.ts'
import { openDatabase, type OpenDatabase } from '../../adapters/databases/better-sqlite3.ts'
import { migrations } from '../../adapters/node/main.ts'
import { randomIds } from '../../adapters/system.ts'
import type { BlobStore } from '../../src/ports.ts'
import { bodyOf, newKey } from '../contract/blob-store.ts'
import { coreWith } from '../faults/inside.ts'
import { sampleSif } from '../fixtures/sif.ts'

let first: OpenDatabase
let second: OpenDatabase
let blobs: BlobStore
const fresh = () => openDatabase(':memory:', { mode: 'server', migrations: migrations() })
const bind = ({ database }: Pick<OpenDatabase, 'database'>, store = blobs) =>
  bindBucket(database, store, randomIds)

beforeEach(async () => {
  ;[first, second] = [await fresh(), await fresh()]
  blobs = memoryBlobs()
})
afterEach(() => {
  first.close()
  second.close()
})

test('an empty bucket is bound to its first registry, for ever', async () => {
  const id = await bind(first)
  expect([await blobs.readId(), await bind(first)]).toEqual([id, id])
  await expect(bind(second)).rejects.toThrow(/belongs to another registry than this one.*export/)
  expect(await second.database.settings.get('registry_id')).toBe(null)
  // it may still start elsewhere, and is another one then
  const other = await bind(second, memoryBlobs())
  expect(other).not.toBe(id)
  await expect(bind(second)).rejects.toThrow(/belongs to another registry\. /)
})

test('several servers with one database share it', async () => {
  const ids = await Promise.all([bind(first), bind(first), bind(first)])
  expect(new Set(ids).size).toBe(1)
})

test('of two that start at once on an empty bucket one is refused', async () => {
  const outcomes = await Promise.allSettled([bind(first), bind(second)])
  expect(outcomes.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected'])
})

test('a crash before the bucket is told is made good at the next start', async () => {
  const broken = { ...blobs, writeId: () => Promise.reject(new Error('crash')) }
  await expect(bind(first, broken)).rejects.toThrow('crash')
  expect(await bind(first)).toBe(await blobs.readId())
})

test('a bucket with images but no id is not touched', async () => {
  await blobs.put(newKey(), bodyOf(Buffer.from('x')), 1)
  await expect(bind(first)).rejects.toThrow(/holds images but not the id/)
  expect([await blobs.readId(), await first.database.settings.get('registry_id')]).toEqual([
    null,
    null,
  ])
})

test('a registry whose images are elsewhere does not start on an empty bucket', async () => {
  const core = await coreWith({ blobs: memoryBlobs(), graceSeconds: 0 })
  await core.push(await core.user('alice'), sampleSif())
  await expect(bind({ database: core.database })).rejects.toThrow(/kept elsewhere.*import/)
  expect(await blobs.readId()).toBe(null)
  core.close()
})
