/** The sweep under stepped clocks, with the wrong database, and before orphans (R9, R10, R43). */
import { cp, mkdtemp, readdir, rename, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { memoryBlobs } from '../../adapters/blobs/memory.ts'
import { randomIds } from '../../adapters/system.ts'
import { parseRef } from '../../src/core/ref.ts'
import { sampleSif } from '../fixtures/sif.ts'
import { libraryClient, sha256 } from '../protocol/client.ts'
import { nodeTarget, type Target } from '../runtimes/target.ts'
import { bytesOf, coreWith, DAY_MS, heldClock, HOUR_MS, keysOf, type Core } from './inside.ts'

const INTERVAL = 900
const GRACE = 12 * 3600
const config = { shortRefs: 'default' } as const

describe('R43: clocks', () => {
  let core: Core
  let alice: Awaited<ReturnType<Core['user']>>
  beforeEach(async () => {
    const clock = heldClock()
    const blobs = memoryBlobs({ clock })
    core = await coreWith({ blobs, clock, graceSeconds: GRACE, intervalSeconds: INTERVAL })
    alice = await core.user('alice')
  })
  afterEach(() => core.close())

  const kept = sampleSif({ content: 'kept' })
  const doomed = sampleSif({ content: 'doomed' })
  const remove = (bytes: Uint8Array) =>
    core.catalog.deleteImage(
      parseRef(`alice/c/n:sha256.${sha256(bytes)}`, config),
      null,
      alice.claims,
    )

  /** An upload that has begun, and what ends it well. */
  async function begin(bytes: Uint8Array) {
    const hash = `sha256.${sha256(bytes)}`
    const { container, claims } = alice
    const image = await core.catalog.createImage({ hash, description: '', container }, claims)
    const upload = await core.uploads.openParts(image.id, bytes.length, claims)
    const { id, blobKey: key, handle } = upload
    return async () => {
      const ticket = { upload: id, key, handle: handle ?? '', part: 1, size: bytes.length }
      const { etag } = await core.uploads.receivePart({ ...ticket, sha256: null }, bytesOf(bytes))
      await core.uploads.completeParts(image.id, id, [{ number: 1, etag }], claims)
    }
  }

  test('the first run after a start marks and takes nothing away', async () => {
    await core.push(alice, kept)
    await core.push(alice, doomed)
    await remove(doomed)
    const first = await core.startSweep()()
    expect(first).toMatchObject({ held: expect.stringMatching(/first run/), deleted: 0 })
    core.clock.move(30 * DAY_MS)
    const started = core.startSweep()
    expect((await started()).held).toMatch(/first run/)
    expect(await keysOf(core.blobs)).toHaveLength(2)
    core.clock.move(INTERVAL * 1000)
    expect(await started()).toMatchObject({ held: null, deleted: 1, freedBytes: doomed.length })
    expect(await keysOf(core.blobs)).toHaveLength(1)
  })

  test('what is deleted stays for the grace, and goes after it', async () => {
    await core.push(alice, doomed)
    const sweep = core.startSweep()
    await sweep()
    await remove(doomed)
    const runs = (GRACE / INTERVAL) | 0
    for (let run = 0; run <= runs; run++) {
      core.clock.move(INTERVAL * 1000)
      expect(await sweep()).toMatchObject({ held: null, deleted: 0 })
      expect(await keysOf(core.blobs)).toHaveLength(1)
    }
    core.clock.move(INTERVAL * 1000)
    expect(await sweep()).toMatchObject({ deleted: 1 })
    expect(await keysOf(core.blobs)).toEqual([])
  })

  test.each([
    ['a day forward', DAY_MS + HOUR_MS],
    ['a day back', -DAY_MS],
  ])('a step of %s only marks, and no running upload is lost', async (_, step) => {
    await core.push(alice, kept)
    await core.push(alice, doomed)
    const finish = await begin(sampleSif({ content: 'running' }))
    await remove(doomed)
    const sweep = core.startSweep()
    await sweep()
    core.clock.move(INTERVAL * 1000)
    await sweep()
    core.clock.move(step)
    const report = await sweep()
    expect(report).toMatchObject({ held: 'the clock stepped', deleted: 0, expired: 0, orphans: 0 })
    expect(await keysOf(core.blobs)).toHaveLength(2)
    await finish()
    // Put right again: that is a step as well.
    core.clock.move(-step)
    expect((await sweep()).held).toBe('the clock stepped')
    expect(await keysOf(core.blobs)).toHaveLength(3)
  })

  test('no time that passes takes away what an image has (R9)', async () => {
    await core.push(alice, kept)
    await (
      await begin(sampleSif({ content: 'running' }))
    )()
    const sweep = core.startSweep()
    for (const days of [0, 1, 400, -800, 4000]) {
      core.clock.move(days * DAY_MS)
      await sweep()
      core.clock.move(INTERVAL * 1000)
      expect((await sweep()).held).toBe(null)
      expect(await keysOf(core.blobs)).toHaveLength(2)
    }
  })

  test('an abandoned upload ends after its deadline, its bytes with it', async () => {
    const finish = await begin(kept)
    const sweep = core.startSweep()
    await sweep()
    for (let hours = 0; hours < 26; hours += 0.5) {
      core.clock.move(HOUR_MS / 2)
      await sweep()
    }
    await expect(finish()).rejects.toMatchObject({ code: 'not_found' })
    await core.push(alice, kept)
    expect(await keysOf(core.blobs)).toHaveLength(1)
  })
})

describe('R10: blobs without a row', () => {
  const kept = sampleSif({ content: 'orphan' })

  async function withOrphans(images: number, orphans: number, ageMs: number) {
    const dated = heldClock()
    const blobs = memoryBlobs({ clock: dated })
    const core = await coreWith({ blobs, clock: dated, graceSeconds: GRACE })
    const alice = await core.user('alice')
    for (let i = 0; i < images; i++) await core.push(alice, sampleSif({ content: String(i) }))
    for (let i = 0; i < orphans; i++) await blobs.put(randomIds.next(), bytesOf(kept), kept.length)
    const sweep = core.startSweep()
    dated.move(ageMs)
    const report = await sweep({ now: true })
    const left = (await keysOf(blobs)).length
    core.close()
    return {
      orphans: report.orphans,
      left,
      warned: core.events.some((e) => e.name === 'sweep.orphans'),
    }
  }

  test('stay for seven days by the clock of the store', async () => {
    expect(await withOrphans(1, 1, 7 * DAY_MS)).toEqual({ orphans: 0, left: 2, warned: false })
    expect(await withOrphans(1, 1, 7 * DAY_MS + 1)).toEqual({ orphans: 1, left: 1, warned: false })
  })
  test('are left to a person when they are more than one in a hundred', async () => {
    expect(await withOrphans(101, 2, 8 * DAY_MS)).toEqual({ orphans: 2, left: 101, warned: false })
    expect(await withOrphans(101, 3, 8 * DAY_MS)).toEqual({ orphans: 0, left: 104, warned: true })
  })
})

describe('where no process lives from one run to the next (Workers)', () => {
  const budget = { pages: 1, aborts: 1, keys: 500, verdicts: 1, images: 1 }
  let core: Core
  let alice: Awaited<ReturnType<Core['user']>>
  /** One run of a process that knows nothing of those before. */
  const sweep = (options?: { now: boolean }) =>
    core.startSweep({ budget, persistent: true })(options)
  beforeEach(async () => {
    const clock = heldClock()
    const blobs = memoryBlobs({ clock })
    core = await coreWith({ blobs, clock, graceSeconds: GRACE, intervalSeconds: INTERVAL })
    alice = await core.user('alice')
  })
  afterEach(() => core.close())
  const later = () => core.clock.move(INTERVAL * 1000)

  test('only the very first run only marks, and one after a step (R43)', async () => {
    const doomed = sampleSif({ content: 'doomed' })
    await core.push(alice, doomed)
    const ref = parseRef(`alice/c/n:sha256.${sha256(doomed)}`, config)
    await core.catalog.deleteImage(ref, null, alice.claims)
    expect((await sweep()).held).toMatch(/first run/)
    for (let run = 0; run < GRACE / INTERVAL; run++) {
      later()
      expect(await sweep()).toMatchObject({ held: null, deleted: 0 })
    }
    core.clock.move(30 * DAY_MS)
    expect(await sweep()).toMatchObject({ held: 'the clock stepped', deleted: 0 })
    expect(await keysOf(core.blobs)).toHaveLength(1)
    later()
    expect(await sweep()).toMatchObject({ held: null, deleted: 1, freedBytes: doomed.length })
    expect(await keysOf(core.blobs)).toEqual([])
  })

  test('a run takes no more uploads than its budget, and the next one goes on', async () => {
    const draft = { description: '', container: alice.container }
    for (const content of ['one', 'two', 'three']) {
      const hash = `sha256.${sha256(sampleSif({ content }))}`
      const image = await core.catalog.createImage({ ...draft, hash }, alice.claims)
      await core.uploads.openParts(image.id, 1000, alice.claims)
    }
    await sweep()
    core.clock.move(7 * DAY_MS)
    await sweep()
    later()
    expect(await sweep()).toMatchObject({ held: null, expired: 3 })
    core.clock.move(3 * INTERVAL * 1000)
    await sweep()
    const left: number[] = []
    for (let run = 0; run < 4; run++) {
      left.push((await core.database.uploads.closed(core.clock.now(), 10)).length)
      core.clock.move(2 * INTERVAL * 1000)
      await sweep()
    }
    expect(left).toEqual([3, 2, 1, 0])
  })

  test('orphans are judged after a walk through the whole store, over many runs (R10)', async () => {
    const bytes = sampleSif({ content: 'orphan' })
    const put = (key: string) => core.blobs.put(key, bytesOf(bytes), bytes.length)
    const young = (i: number) => `1${i.toString(16).padStart(23, '0')}`
    const first = '0'.repeat(24)
    await put(first)
    await sweep()
    core.clock.move(8 * DAY_MS)
    for (let i = 0; i < 1000; i++) await put(young(i))
    await sweep()
    later()
    expect(await sweep()).toMatchObject({ held: null, orphans: 0 })
    expect(await core.blobs.head(first)).not.toBeNull()
    later()
    expect(await sweep()).toMatchObject({ orphans: 1 })
    expect(await core.blobs.head(first)).toBeNull()
    // Too many of them, spread over two pages: a person decides.
    await put('f'.repeat(24))
    core.clock.move(8 * DAY_MS)
    await sweep()
    for (let run = 0; run < 4; run++) {
      later()
      expect(await sweep()).toMatchObject({ held: null, orphans: 0 })
    }
    expect(await keysOf(core.blobs)).toHaveLength(1001)
    expect(core.events.filter(({ name }) => name === 'sweep.orphans')).toHaveLength(2)
  })
})

describe('R10: the wrong database', () => {
  const env = { SREG_SWEEP_INTERVAL: '1', SREG_SWEEP_GRACE: '0' }
  let base: string
  const running: Target[] = []
  beforeEach(async () => {
    base = await mkdtemp(join(tmpdir(), 'sreg-wrong-'))
  })
  afterEach(async () => {
    for (const target of running.splice(0)) await target.stop({ keep: true })
    await rm(base, { recursive: true })
  })
  async function start(data: string): Promise<Target> {
    const target = await nodeTarget({ data: join(base, data), env })
    running.push(target)
    return target
  }
  const stop = async () => running.pop()?.stop({ keep: true })
  const files = async (data: string) =>
    (await readdir(join(base, data, 'blobs', 'blobs'), { recursive: true }))
      .filter((name) => name.length > 2)
      .toSorted()

  /** A registry that was used and stopped, its blobs a month old. */
  async function used(data: string): Promise<string[]> {
    const target = await start(data)
    const client = libraryClient(target.url, (await target.mint('alice')).jwt)
    for (const content of ['one', 'two', 'three'])
      await client.push('alice/c/n', sampleSif({ content: `${data} ${content}` }))
    await stop()
    const then = new Date(Date.now() - 30 * DAY_MS)
    for (const name of await files(data))
      await utimes(join(base, data, 'blobs', 'blobs', name), then, then)
    return files(data)
  }
  /** Of what happens to the folder while its server runs, if that is `meanwhile`. */
  async function expectHeld(
    data: string,
    before: string[],
    meanwhile = async () => {},
  ): Promise<void> {
    const { url } = await start(data)
    await meanwhile()
    const ready = await fetch(`${url}/readyz`)
    expect(ready.status).toBe(503)
    expect(await ready.json()).toMatchObject({ checks: { database: 'ok', blobs: 'ok' } })
    // Two sweeps: one that marks, one that would delete.
    await sleep(2300)
    expect(await files(data)).toEqual(before)
    await stop()
  }

  test('a fresh database before a full blob folder holds everything', async () => {
    const before = await used('mine')
    for (const name of await readdir(join(base, 'mine')))
      if (name.startsWith('sreg.sqlite3')) await rename(join(base, 'mine', name), join(base, name))
    await expectHeld('mine', before)
    // With its own database back, all is well.
    for (const name of await readdir(base))
      if (name.startsWith('sreg.sqlite3')) await cp(join(base, name), join(base, 'mine', name))
    for (const name of await readdir(join(base, 'mine')))
      if (/^sreg\.sqlite3-(?:wal|shm)$/.test(name)) await rm(join(base, 'mine', name))
    const { url } = await start('mine')
    expect((await fetch(`${url}/readyz`)).status).toBe(200)
  })

  test('the blob folder of another registry is left alone', async () => {
    await used('mine')
    const before = await used('theirs')
    await expectHeld('mine', before, async () => {
      await rm(join(base, 'mine', 'blobs'), { recursive: true })
      await cp(join(base, 'theirs', 'blobs'), join(base, 'mine', 'blobs'), {
        recursive: true,
        preserveTimestamps: true,
      })
    })
    await expect(start('mine')).rejects.toThrow(/belongs to another one\. Is their disk mounted/)
    expect(await files('mine')).toEqual(before)
  })

  test('a blob folder that lost its id is left alone', async () => {
    const before = await used('mine')
    const id = join(base, 'mine', 'blobs', 'registry-id')
    await expectHeld('mine', before, () => rm(id))
    const refused = await start('mine').then(() => '', String)
    const [, known = ''] =
      /has no registry-id\. .* write (\S+) into (\S+): then/.exec(refused) ?? []
    expect(await files('mine')).toEqual(before)
    // as it says
    await writeFile(id, known)
    const { url } = await start('mine')
    expect((await fetch(`${url}/readyz`)).status).toBe(200)
  })
})
