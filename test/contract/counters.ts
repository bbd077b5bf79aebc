/** What every Database must do for limits of days and weeks (R58, R28). */
import { describe, expect } from 'vitest'
import type { ImageSelector, PullLimits, Viewer } from '../../src/ports.ts'
import { at, byOperator, digestOf, type World } from './database.ts'

type Test = (title: string, run: (world: World) => Promise<void>, needsRaw?: boolean) => void

const TAGGED = { by: 'tag', tag: 'latest', arch: 'amd64' } as const
const PATH = { entity: 'alice', collection: 'c', container: 'n' }

export function describeCounters(test: Test): void {
  describe('counters', () => {
    test('add up by name and window', async ({ database: { counters } }) => {
      const count = (name: string, minutes: number, count: number) => ({
        name,
        period: at(minutes),
        count,
      })
      expect(await counters.read('a', at())).toBe(0)
      expect(await counters.add([])).toEqual([])
      expect(await counters.add([count('a', 0, 2), count('b', 0, 1)])).toEqual([
        count('a', 0, 2),
        count('b', 0, 1),
      ])
      expect(await counters.add([count('a', 0, 3), count('a', 1, 7)])).toEqual([
        count('a', 0, 5),
        count('a', 1, 7),
      ])
      expect(await counters.read('a', at())).toBe(5)
      expect(await counters.read('a', at(1))).toBe(7)
      expect(await counters.read('b', at(1))).toBe(0)
    })

    test('of limits are forgotten with their window, others are kept', async (world) => {
      const { counters } = world.database
      const names = ['limit.day.user.x', 'limit', 'limits', 'downloads']
      for (const minutes of [0, 10])
        await counters.add(names.map((name) => ({ name, period: at(minutes), count: 1 })))
      await counters.prune(at(10))
      const left = async (minutes: number) =>
        Promise.all(names.map((name) => counters.read(name, at(minutes))))
      expect(await left(0)).toEqual([0, 1, 1, 1])
      expect(await left(10)).toEqual([1, 1, 1, 1])
    })
  })

  describe('pulls of a week', () => {
    async function place(world: World, isPrivate = false) {
      const alice = await world.person('alice')
      const container = await world.container(alice, 'alice/c/n', { private: isPrivate })
      const image = await world.push(alice, container.id, 'one', { tag: 'latest' })
      return { alice, container, image }
    }
    const pull = async (
      { database }: World,
      viewer: Viewer,
      limits: Partial<PullLimits> & { counts?: boolean } = {},
      selector: ImageSelector = TAGGED,
      path: { entity: string | null; collection: string; container: string } = PATH,
    ) => {
      const week = { begin: at(), container: 2, collection: 3, counts: true, ...limits }
      return database.catalog.pullImage(path, selector, viewer, at(1), week)
    }
    const c = (count: number, full = false) => ({ of: 'container', count, full })
    const col = (count: number, full = false) => ({ of: 'collection', count, full })

    test('are counted with the lookup until a limit is full, in one trip', async (world) => {
      const { alice, container, image } = await place(world)
      const other = await world.container(alice, 'alice/c/m')
      await world.push(alice, other.id, 'two', { tag: 'latest' })
      const trips = world.trips().length
      const first = await pull(world, null)
      expect(world.trips().slice(trips)).toEqual([{ kind: 'write', statements: 5 }])
      expect(first.value.image).toMatchObject({ id: image.id, containerId: container.id })
      expect(first.value.counted).toEqual([c(1), col(1)])
      expect((await pull(world, null, { counts: false })).value.counted).toEqual([])
      const byDigest = { by: 'digest', digest: digestOf('one') } as const
      const short = { ...PATH, entity: null }
      expect((await pull(world, null, {}, byDigest, short)).value.counted).toEqual([c(2), col(2)])
      for (const counts of [true, false])
        expect((await pull(world, null, { counts })).value.counted).toEqual([c(2, true)])
      // the next container of the same collection, and the next week
      const next = { ...PATH, container: 'm' }
      expect((await pull(world, null, { container: 2 }, TAGGED, next)).value.counted).toEqual([
        c(1),
        col(3),
      ])
      expect((await pull(world, null, { begin: at(100) })).value.counted).toEqual([c(1), col(1)])
      expect((await pull(world, null, { container: 0, collection: 2 })).value.counted).toEqual([
        col(3, true),
      ])
      expect((await pull(world, null, { container: 0, collection: 4 })).value.counted).toEqual([
        col(4),
      ])
      expect((await pull(world, null, { container: 9 })).value.counted).toEqual([col(4, true)])
    })
    test('that come at once are counted exactly', async (world) => {
      await place(world)
      const seen = await Promise.all(
        Array.from({ length: 12 }, () => pull(world, null, { container: 5, collection: 0 })),
      )
      const counted = seen.flatMap(({ value }) => value.counted)
      expect(
        counted
          .filter(({ full }) => !full)
          .map(({ count }) => count)
          .toSorted(),
      ).toEqual([1, 2, 3, 4, 5])
      expect(counted.filter(({ full }) => full)).toHaveLength(7)
    })

    test('are not those of who may write there, nor of what is not found or seen', async (world) => {
      const { alice, image } = await place(world, true)
      const stranger = await world.person('stranger')
      for (const viewer of [alice.viewer, world.root.viewer])
        for (let i = 0; i < 4; i++) {
          const { standing, value } = await pull(world, viewer)
          expect([standing?.userId, value.image?.id, value.counted]).toEqual([
            viewer.userId,
            image.id,
            [],
          ])
        }
      for (const viewer of [null, stranger.viewer]) {
        await pull(world, viewer)
        await pull(world, viewer, {}, { ...TAGGED, tag: 'none' })
        await pull(world, viewer, {}, { by: 'digest', digest: digestOf('none') })
      }
      const container = { entity: 'alice', collection: 'c', container: 'n' }
      expect(await world.database.catalog.setPrivate(container, false, byOperator(at(1)))).toBe(
        true,
      )
      expect((await pull(world, null, {}, { ...TAGGED, tag: 'none' })).value).toEqual({
        image: null,
        counted: [],
      })
      expect((await pull(world, stranger.viewer)).value.counted).toEqual([c(1), col(1)])
    })

    test(
      'are those of readers, and not those of contributors',
      async (world) => {
        const { container, image } = await place(world, true)
        for (const [level, counted] of [
          [1, [c(1), col(1)]],
          [2, []],
          [3, []],
        ] as const) {
          const person = await world.person(`level-${level}`)
          await world.raw?.(
            `insert into grants (id, collection_id, user_id, level, created_at) values ('${person.tokenId}', '${container.collectionId}', '${person.user.id}', ${level}, 0)`,
          )
          const { value } = await pull(world, person.viewer)
          expect([level, value.image?.id, value.counted]).toEqual([level, image.id, counted])
        }
      },
      true,
    )

    test('of an image that is not there yet are not counted', async (world) => {
      const { alice, container } = await place(world)
      const image = await world.record(alice, container.id, 'coming')
      const selector = { by: 'digest', digest: image.digest } as const
      expect((await pull(world, null, {}, selector)).value).toEqual({ image: null, counted: [] })
    })
  })

  describe('pulls of a week by OCI', () => {
    const named = (word: string) => `sha256:${digestOf(word)}`
    async function place(world: World, isPrivate = false) {
      const alice = await world.person('alice')
      const { id: containerId } = await world.container(alice, 'alice/c/n', { private: isPrivate })
      const manifest = {
        mediaType: 'application/vnd.oci.image.index.v1+json',
        size: 2,
        subject: null,
        artifactType: '',
        annotations: null,
        text: '{}',
      }
      for (const word of ['one', 'two'])
        await world.database.manifests.put({
          containerId,
          manifest: { ...manifest, digest: named(word) },
          refs: [],
          tags: [word],
          writer: alice.writer,
        })
      return { alice, containerId }
    }
    const pull = async (
      { database }: World,
      viewer: Viewer,
      asker: string,
      minutes = 1,
      options: Partial<PullLimits> & { tag?: string; word?: string } = {},
    ) => {
      const { tag, word = 'one', ...limits } = options
      const selector =
        tag === undefined
          ? ({ by: 'digest', digest: named(word) } as const)
          : ({ by: 'tag', tag } as const)
      const week = { begin: at(), container: 2, collection: 3, asker, ...limits }
      const looked = { text: true, pull: week }
      const found = await database.manifests.manifest(PATH, selector, viewer, at(minutes), looked)
      return found.value
    }
    const c = (count: number, full = false) => ({ of: 'container', count, full })
    const col = (count: number, full = false) => ({ of: 'collection', count, full })

    test('are one for each asker and minute, by tag and digest, in one trip', async (world) => {
      await place(world)
      const trips = world.trips().length
      const first = await pull(world, null, 'ann', 1, { tag: 'one' })
      expect(world.trips().slice(trips)).toEqual([{ kind: 'write', statements: 7 }])
      expect(first).toMatchObject({ manifest: { text: '{}' }, counted: [c(1), col(1)] })
      // what belongs to it, whatever it asks for, is not asked about the limits any more
      for (const options of [{ tag: 'one' }, {}, { word: 'two' }, { tag: 'one', container: 1 }])
        expect((await pull(world, null, 'ann', 1.9, options))?.counted).toEqual([])
      expect((await pull(world, null, 'ben', 1.5))?.counted).toEqual([c(2), col(2)])
      // from the first request on, not from the last one
      expect((await pull(world, null, 'ann', 2))?.counted).toEqual([c(2, true)])
      // who was counted goes on although it is full; who was refused is not in
      expect((await pull(world, null, 'ben', 2))?.counted).toEqual([])
      for (let i = 0; i < 2; i++)
        expect((await pull(world, null, 'cat', 2))?.counted).toEqual([c(2, true)])
      expect((await pull(world, null, 'cat', 2, { container: 9 }))?.counted).toEqual([c(3), col(3)])
      expect((await pull(world, null, 'dan', 2, { container: 0 }))?.counted).toEqual([col(3, true)])
      // another week
      expect((await pull(world, null, 'ann', 100, { begin: at(99) }))?.counted).toEqual([
        c(1),
        col(1),
      ])
    })

    test('and those by the library are counted together', async (world) => {
      const { alice, containerId } = await place(world)
      await world.push(alice, containerId, 'image', { tag: 'latest' })
      const week = { begin: at(), container: 2, collection: 0, counts: true }
      const byLibrary = async () =>
        (await world.database.catalog.pullImage(PATH, TAGGED, null, at(1), week)).value.counted
      expect(await byLibrary()).toEqual([c(1)])
      expect((await pull(world, null, 'ann', 1, { collection: 0 }))?.counted).toEqual([c(2)])
      expect(await byLibrary()).toEqual([c(2, true)])
      // what only the library has is pulled by OCI too
      const more = { container: 9, collection: 0 }
      const tagged = await pull(world, null, 'ben', 1, { ...more, tag: 'latest' })
      expect(tagged).toMatchObject({ manifest: null, images: [{}], counted: [c(3)] })
      const unknown = await pull(world, null, 'cat', 1, { ...more, tag: 'none' })
      expect(unknown).toMatchObject({ images: [], counted: [] })
      // of a digest nobody knows before their manifests are made
      const derived = await pull(world, null, 'cat', 1, { ...more, word: 'derived' })
      expect(derived).toMatchObject({ images: [{}], counted: [c(4)] })
    })

    test('that come at once are counted exactly, one of an asker’s', async (world) => {
      await place(world)
      const seen = await Promise.all(
        Array.from({ length: 24 }, (_, at) =>
          pull(world, null, `asker ${at % 8}`, 1, { container: 5, collection: 0 }),
        ),
      )
      const counted = seen.flatMap((found) => found?.counted ?? [])
      expect(
        counted
          .filter(({ full }) => !full)
          .map(({ count }) => count)
          .toSorted(),
      ).toEqual([1, 2, 3, 4, 5])
      // three of each: of five the other two are parts, of three all are refused
      expect(counted.filter(({ full }) => full)).toHaveLength(9)
    })

    test('are not those of who may write there, nor of what is not found or seen', async (world) => {
      const { alice } = await place(world, true)
      const stranger = await world.person('stranger')
      for (const viewer of [alice.viewer, world.root.viewer])
        for (let i = 0; i < 4; i++)
          expect((await pull(world, viewer, `writer ${i}`))?.counted).toEqual([])
      for (const viewer of [null, stranger.viewer]) await pull(world, viewer, 'outside')
      const container = { entity: 'alice', collection: 'c', container: 'n' }
      await world.database.catalog.setPrivate(container, false, byOperator(at(1)))
      for (const options of [{ tag: 'none' }, { word: 'none' }]) {
        const found = await pull(world, null, 'outside', 1, options)
        expect(found).toMatchObject({ manifest: null, counted: [] })
      }
      expect((await pull(world, null, 'outside'))?.counted).toEqual([c(1), col(1)])
    })

    test('are forgotten with their week, askers too', async (world) => {
      await place(world)
      await pull(world, null, 'ann')
      await world.database.counters.prune(at(1))
      expect((await pull(world, null, 'ann'))?.counted).toEqual([c(1), col(1)])
    })
  })
}
