/** Exports and imports beside the sweep: what must stay stays, what is left over goes (R9, R10, R41). */
import { afterEach, beforeEach, expect, test } from 'vitest'
import { memoryBlobs } from '../../adapters/blobs/memory.ts'
import { consoleLog, randomIds } from '../../adapters/system.ts'
import { createExports, createImports, readArchive, writeArchive } from '../../src/admin.ts'
import type { MovedRow } from '../../src/core/model.ts'
import { parseRef } from '../../src/core/ref.ts'
import type { Bytes } from '../../src/ports.ts'
import {
  bytesOf,
  coreWith,
  DAY_MS,
  heldClock,
  HOUR_MS,
  keysOf,
  type Core,
} from '../faults/inside.ts'
import { sampleSif } from '../fixtures/sif.ts'
import { sha256 } from '../protocol/client.ts'

const GRACE = 3600
const MINUTE_MS = 60_000
const config = { shortRefs: 'default' } as const

const cores: Core[] = []
async function registry() {
  const clock = heldClock()
  const core = await coreWith({
    blobs: memoryBlobs({ clock }),
    clock,
    graceSeconds: GRACE,
    intervalSeconds: 365 * 86_400,
  })
  cores.push(core)
  const { database, blobs } = core
  const deps = {
    database,
    blobs,
    clock,
    ids: randomIds,
    log: consoleLog({ form: 'off' }),
    registryId: randomIds.next(),
    keyIds: ['here'],
    minFree: 0,
  }
  const sweep = core.startSweep()
  await sweep()
  return { ...core, sweep, exports: createExports(deps), imports: createImports(deps) }
}
type Registry = Awaited<ReturnType<typeof registry>>

let here: Registry
let alice: Awaited<ReturnType<Core['user']>>
const images = Array.from({ length: 6 }, (_, n) => sampleSif({ content: `image ${n}` }))

beforeEach(async () => {
  here = await registry()
  alice = await here.user('alice')
  for (const [n, bytes] of images.entries()) {
    const imageId = await here.push(alice, bytes)
    await here.catalog.setTag(alice.container, { arch: null, tag: `v${n}`, imageId }, alice.claims)
  }
})
afterEach(() => {
  for (const core of cores.splice(0)) core.close()
})

const remove = (bytes: Uint8Array) => {
  const ref = parseRef(`alice/c/n:sha256.${sha256(bytes)}`, config)
  return here.catalog.deleteImage(ref, null, alice.claims)
}
const bytesOfImage = (n: number) => images[n] ?? new Uint8Array()

async function gathered(chunks: Bytes): Promise<Uint8Array> {
  const parts: Uint8Array[] = []
  for await (const chunk of chunks) parts.push(chunk)
  return new Uint8Array(Buffer.concat(parts))
}

test('an export in the middle gets the bytes of what was deleted since, past their grace', async () => {
  const chunks = writeArchive(here.exports.source('test'))
  const parts: Uint8Array[] = []
  let [removed, deleted] = [false, 0]
  for await (const chunk of chunks) {
    parts.push(chunk.slice())
    // the first bytes of an image: all rows have been read
    const text = new TextDecoder().decode(chunk.subarray(0, 14))
    if (text === '{"type":"blob"' && !removed) {
      removed = true
      await remove(bytesOfImage(5))
      await here.sweep()
    }
    if (text === '{"type":"blob"') {
      here.clock.move(14 * MINUTE_MS)
      const report = await here.sweep()
      deleted += report.deleted
      expect(report.held).toBe('an export is running')
    }
  }
  expect(deleted).toBe(0)
  const there = await registry()
  const { report } = await readArchive(
    bytesOf(new Uint8Array(Buffer.concat(parts))),
    there.imports.sink('test'),
  )
  expect(report?.rows).toMatchObject({ image: 6, tag: 6 })
  expect(await keysOf(there.blobs)).toHaveLength(6)
  // afterwards the hold ends by itself
  here.clock.move(16 * MINUTE_MS + GRACE * 1000)
  expect(await here.sweep()).toMatchObject({ held: null, deleted: 1 })
})

test('tags, images and whole images that come and go while rows are read leave a file that fits', async () => {
  const { page, head, source } = here.exports
  const plain = source('test')
  for (const moment of ['tags read', 'images read']) {
    const victim = moment === 'tags read' ? bytesOfImage(0) : bytesOfImage(1)
    const bytes = await gathered(
      writeArchive({
        head: () => head({ operator: 'test', now: here.clock.now() }),
        async page(cursor) {
          const read = await page(cursor)
          const kind = read.rows[0]?.type
          if (
            (moment === 'tags read' && kind === 'tag') ||
            (moment !== 'tags read' && kind === 'image')
          ) {
            await remove(victim)
            const imageId = await here.push(alice, sampleSif({ content: `new at ${moment}` }))
            const moved = { arch: null, tag: 'v2', imageId }
            await here.catalog.setTag(alice.container, moved, alice.claims)
          }
          return read
        },
        blob: (digest, size) => plain.blob(digest, size),
      }),
    )
    const there = await registry()
    const { report } = await readArchive(bytesOf(bytes), there.imports.sink('test'))
    const lines = new TextDecoder().decode(bytes).split('\n')
    expect([moment, report?.rows.tag]).toEqual([
      moment,
      lines.filter((line) => line.startsWith('{"type":"tag"')).length,
    ])
    expect(report?.rows.tag).toBeGreaterThanOrEqual(5 - (moment === 'tags read' ? 0 : 1))
  }
})

test('what was made in a place after that place was read is left out', async () => {
  const row = (type: string, id: string, parent: object) => ({ type, id, ...parent })
  const known = [
    row('entity', 'e', {}),
    row('collection', 'c', { entityId: 'e' }),
    row('container', 'n', { collectionId: 'c' }),
    row('team', 't', {}),
    row('grant', 'g', { collectionId: 'c', holder: 'team', holderId: 't' }),
    row('member', '', { teamId: 't', userId: 'u' }),
    row('star', '', { containerId: 'n', userId: 'u' }),
    row('pulls', '', { containerId: 'n' }),
    row('user', 'u', {}),
  ]
  const late = [
    row('collection', 'late', { entityId: 'late' }),
    row('container', 'late', { collectionId: 'late' }),
    row('image', 'late', { containerId: 'late', digest: 'd', size: 1 }),
    row('tag', '', { imageId: 'late' }),
    row('grant', 'late', { collectionId: 'late', holder: 'user', holderId: 'u' }),
    row('grant', 'late', { collectionId: 'c', holder: 'team', holderId: 'late' }),
    row('member', '', { teamId: 'late', userId: 'u' }),
    row('star', '', { containerId: 'late', userId: 'u' }),
    row('pulls', '', { containerId: 'late' }),
  ]
  const written = async (rows: object[]) => {
    const bytes = await gathered(
      writeArchive({
        head: () => here.exports.head({ operator: 'test', now: here.clock.now() }),
        page: async () => ({ rows: rows as MovedRow[], cursor: null }),
        blob: () => {
          throw new Error('no image is left')
        },
      }),
    )
    const lines = new TextDecoder().decode(bytes).trimEnd().split('\n')
    return lines.slice(2, -1).map((line): unknown => JSON.parse(line))
  }
  expect(await written([...known, ...late])).toEqual(known)
  // servers of older versions send places last: nothing is left out of what they send
  const older = known.filter(({ type }) => ['entity', 'collection', 'container'].includes(type))
  expect(await written(older.toReversed())).toEqual(older.toReversed())
})

test('what an import broke off has brought is swept after its time, and nothing else', async () => {
  const there = await registry()
  const sink = there.imports.sink('test')
  const file = await gathered(writeArchive(here.exports.source('test')))
  // the connection ends in the middle of the bytes
  const cut = file.length - 40_000
  const broken = readArchive(
    (async function* () {
      yield file.subarray(0, cut)
      throw new Error('the connection ended')
    })(),
    sink,
  )
  await expect(broken).rejects.toThrow('the connection ended')
  expect((await keysOf(there.blobs)).length).toBeGreaterThan(2)
  there.clock.move(20 * HOUR_MS)
  await there.sweep()
  expect((await keysOf(there.blobs)).length).toBeGreaterThan(2)
  // not as orphans either, however old they are: a person may hold the import open
  there.clock.move(5 * HOUR_MS)
  await there.sweep()
  there.clock.move(2 * HOUR_MS)
  await there.sweep()
  expect(await keysOf(there.blobs)).toEqual([])
  // it can begin anew
  const { report } = await readArchive(bytesOf(file), sink)
  expect(report?.rows.image).toBe(6)
  there.clock.move(30 * DAY_MS)
  await there.sweep()
  there.clock.move(DAY_MS)
  expect(await there.sweep()).toMatchObject({ deleted: 0, orphans: 0 })
  expect(await keysOf(there.blobs)).toHaveLength(6)
})

test('a copy that came beside bytes that are here goes; the blob in use stays', async () => {
  const there = await registry()
  const bob = await there.user('bob')
  const file = await gathered(writeArchive(here.exports.source('test')))
  const sink = there.imports.sink('test')
  // pushed after the import has stored its copy and before it ends
  await readArchive(bytesOf(file), {
    ...sink,
    async finish(id, end) {
      await there.push(bob, bytesOfImage(3))
      return sink.finish(id, end)
    },
  })
  expect(await keysOf(there.blobs)).toHaveLength(7)
  there.clock.move(2 * HOUR_MS)
  await there.sweep()
  const keys = await keysOf(there.blobs)
  expect(keys).toHaveLength(6)
  const used = await there.database.exports.blob(sha256(bytesOfImage(3)))
  expect(keys).toContain(used?.key)
})

test('bytes that are here but gone from the store are sent again, and heal (R60)', async () => {
  const there = await registry()
  const bob = await there.user('bob')
  await there.push(bob, bytesOfImage(3))
  await there.blobs.delete(await keysOf(there.blobs))
  const file = await gathered(writeArchive(here.exports.source('test')))
  const { report } = await readArchive(bytesOf(file), there.imports.sink('test'))
  expect(report?.rows.image).toBe(6)
  expect(await keysOf(there.blobs)).toHaveLength(6)
  const image = await there.catalog.image(
    parseRef(`bob/c/n:sha256.${sha256(bytesOfImage(3))}`, config),
    null,
    bob.claims,
  )
  expect(await keysOf(there.blobs)).toContain(image.blob.key)
})

test('an export says which image is damaged, and ends', async () => {
  const stored = await here.database.exports.blob(sha256(bytesOfImage(2)))
  await here.blobs.delete([stored?.key ?? ''])
  await expect(gathered(writeArchive(here.exports.source('test')))).rejects.toThrow(
    `The bytes of the image ${sha256(bytesOfImage(2))} are not in the store`,
  )
})
