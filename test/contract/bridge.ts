/** What every Database must do for the bridge: one truth for tags, and nothing left behind (R6, R8, R31). */
import { describe, expect } from 'vitest'
import { derivedHex, derivedManifest, EMPTY_DIGEST } from '../../src/core/derived.ts'
import type { ManifestRef } from '../../src/core/model.ts'
import { at, digestOf, expectRefused, factsOf, newId, outcome, type World } from './database.ts'

type Test = (title: string, run: (world: World) => Promise<void>, needsRaw?: boolean) => void
type Person = Awaited<ReturnType<World['person']>>

const named = (word: string) => `sha256:${digestOf(word)}`
const PATH = { entity: 'alice', collection: 'c', container: 'n' }
const SIZE = 100
/** The manifest that a pushed image of `word` is in the container `n`. */
const derivedOf = (word: string) => derivedManifest('n', { digest: digestOf(word), size: SIZE })

export function describeBridge(test: Test): void {
  async function place(world: World, path = 'alice/c/n') {
    const alice = await world.person('alice')
    return { alice, containerId: (await world.container(alice, path)).id }
  }

  /** An image of the library with its manifest noted, as the core attaches it. */
  async function image(
    world: World,
    who: Person,
    containerId: string,
    word: string,
    { tag, arch = 'amd64', noted = true }: { tag?: string; arch?: string; noted?: boolean } = {},
  ) {
    const record = await world.record(who, containerId, word)
    const { attachment } = await world.received(who, record, { facts: { arch } })
    const manifest = noted ? derivedHex('n', { digest: record.digest, size: SIZE }) : null
    await world.database.catalog.attach({ ...attachment, manifest })
    if (tag !== undefined) await world.tag(who, containerId, record.id, tag)
    return record.id
  }

  /** A blob that the container has as a repository. */
  async function member(world: World, { writer }: Person, containerId: string, word: string) {
    const { ociUploads } = world.database
    const upload = { id: newId(), key: newId(), containerId, createdAt: at(), expiresAt: at(60) }
    await ociUploads.open(upload, writer, { perUser: 100 })
    const claim = newId()
    await ociUploads.claim(upload.id, {
      claim,
      at: 0,
      coming: SIZE,
      sha256: null,
      tailKey: newId(),
      now: at(1),
      leaseUntil: at(2),
      expiresAt: at(60),
      free: null,
      defaultQuota: null,
    })
    const done = { containerId, digest: named(word), sha256: digestOf(word), size: SIZE, writer }
    const blob = { blobId: newId(), key: upload.key, defaultQuota: null }
    await ociUploads.finish(upload.id, claim, { ...done, ...blob })
  }

  const put = (
    { database }: World,
    { writer }: Person,
    containerId: string,
    word: string,
    options: {
      sif?: string
      refs?: ManifestRef[]
      tags?: string[]
      images?: string[]
      whole?: boolean
    } = {},
  ) => {
    const { sif, refs = [], tags = [], images = [], whole = images.length === 0 } = options
    return database.manifests.put({
      containerId,
      manifest: {
        digest: named(word),
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        size: 7,
        subject: null,
        artifactType: '',
        annotations: null,
        text: `"${word}"`,
        sif: sif === undefined ? null : digestOf(sif),
      },
      refs,
      tags,
      library: { images, tags, whole },
      writer,
    })
  }

  /** What both sides have under a name: the stored manifest, and image ids by arch. */
  async function under(world: World, containerId: string, tag: string) {
    const { manifests, catalog } = world.database
    const by = { by: 'tag', tag } as const
    const { value } = await manifests.manifest(PATH, by, world.root.viewer, at(1), { text: false })
    const tags = (await catalog.listTags(containerId, world.root.viewer, at(1))).value?.tags ?? []
    const there = tags.filter(({ name }) => name === tag).map((one) => [one.arch, one.imageId])
    return { manifest: value?.manifest?.digest ?? null, images: Object.fromEntries(there) }
  }
  const listed = async ({ database }: World) => {
    const page = { after: '', limit: 10 }
    return (await database.manifests.tags(PATH, page, null, at(1))).value?.tags
  }
  const freeze = ({ database }: World, { writer }: Person, containerId: string, tag: string) =>
    database.catalog.setFrozen({ containerId, tag, arch: null, frozen: true, by: writer })

  describe('images as manifests', () => {
    test('are found by tag and digest, with or without a note of it', async (world) => {
      const { alice, containerId } = await place(world)
      const { manifests } = world.database
      const one = await image(world, alice, containerId, 'one', { tag: 't' })
      const old = await image(world, alice, containerId, 'old', { noted: false })
      const find = async (digest: string) => {
        const by = { by: 'digest', digest } as const
        const { value } = await manifests.manifest(PATH, by, null, at(1), { text: true })
        return value?.images.map(({ id }) => id).toSorted()
      }
      expect(await find(derivedOf('one').digest)).toEqual([one, old].toSorted())
      expect(await find(named('none'))).toEqual([old])
      expect((await manifests.unnoted(containerId)).map(({ id }) => id)).toEqual([old])
      const manifest = derivedHex('n', { digest: digestOf('old'), size: SIZE })
      await manifests.note([{ imageId: old, manifest }])
      await manifests.note([{ imageId: one, manifest }])
      expect(await manifests.unnoted(containerId)).toEqual([])
      expect(await find(`sha256:${manifest}`)).toEqual([old])
      const by = { by: 'tag', tag: 't' } as const
      const { value } = await manifests.manifest(PATH, by, null, at(1), { text: true })
      expect(value).toMatchObject({ manifest: null, images: [{ id: one, arch: 'amd64' }] })
      const digests = [derivedOf('one').digest, derivedOf('old').digest, named('none')]
      expect(await manifests.imagesOf(containerId, digests)).toEqual([
        { digest: digests[0], imageId: one },
        { digest: digests[1], imageId: old },
      ])
    })

    test('have their blob, the config, and the size that manifests name them by', async (world) => {
      const { alice, containerId } = await place(world)
      const { manifests } = world.database
      const config: ManifestRef = { kind: 'blob', digest: EMPTY_DIGEST, size: 2 }
      const bytes: ManifestRef = { kind: 'blob', digest: named('one'), size: SIZE }
      const { digest, size } = derivedOf('one')
      const child: ManifestRef = { kind: 'manifest', digest, size }
      const refs = [config, bytes, child]
      expect(await manifests.lacking(containerId, refs)).toHaveLength(3)
      await image(world, alice, containerId, 'one')
      expect(await manifests.lacking(containerId, refs)).toEqual([])
      const wrong = refs.map((ref) => ({ ...ref, size: ref.size + 1 }))
      expect((await manifests.lacking(containerId, wrong)).map((ref) => ref.size)).toEqual(
        refs.map((ref) => ref.size),
      )
      const has = async (wanted: string) =>
        (await manifests.member(PATH, wanted, null, at(1))).value
      expect(await has(named('one'))).toMatchObject({ blob: { size: SIZE } })
      expect(await has(EMPTY_DIGEST)).toMatchObject({ blob: null, config: true })
      for (const kept of [named('one'), EMPTY_DIGEST])
        await expectRefused(world, 'conflict', () =>
          manifests.removeMember(containerId, kept, alice.writer),
        )
      const bob = await world.person('bob')
      const target = await world.container(bob, 'bob/c/x')
      const stored = await manifests.readableMember(named('one'), PATH, bob.viewer, at(1))
      if (stored === null) throw new Error('it is public')
      const mount = {
        containerId: target.id,
        digest: named('one'),
        blobId: stored.id,
        defaultQuota: null,
        writer: bob.writer,
      }
      await world.database.catalog.setPrivate(PATH, true, alice.writer)
      expect(await manifests.readableMember(named('one'), null, bob.viewer, at(1))).toBeNull()
      expect(await manifests.mount(mount)).toBe(false)
      await world.database.catalog.setPrivate(PATH, false, alice.writer)
      expect(await manifests.mount(mount)).toBe(true)
    })

    test('get their bytes from a blob of their own repository only (R8, R31)', async (world) => {
      const { alice, containerId } = await place(world)
      const elsewhere = await world.container(alice, 'alice/c/elsewhere')
      await member(world, alice, elsewhere.id, 'one')
      const { catalog, manifests } = world.database
      const path = { ...PATH, container: 'elsewhere' }
      const { value } = await manifests.member(path, named('one'), null, at(1))
      const blobId = value?.blob?.id ?? ''
      const record = await world.record(alice, containerId, 'one')
      const mallory = await world.person('mallory')
      const attach = (by: Person = alice) =>
        catalog.attach({
          imageId: record.id,
          digest: record.digest,
          size: SIZE,
          facts: factsOf(),
          writer: by.writer,
          source: { kind: 'member', blobId },
        })
      await expectRefused(world, 'conflict', attach)
      const change = { containerId, digest: named('one'), blobId, defaultQuota: null }
      expect(await manifests.mount({ ...change, writer: alice.writer })).toBe(true)
      await expectRefused(world, 'denied', () => attach(mallory))
      await attach()
      expect(await world.image(record.id)).toMatchObject({ uploaded: true, blob: { size: SIZE } })
    })
  })

  describe('tags of both sides', () => {
    test('are what either said last', async (world) => {
      const { alice, containerId } = await place(world)
      const [one, two] = [
        await image(world, alice, containerId, 'one', { tag: 't' }),
        await image(world, alice, containerId, 'two'),
      ]
      expect(await under(world, containerId, 't')).toEqual({
        manifest: null,
        images: { amd64: one },
      })
      await put(world, alice, containerId, 'm2', { sif: 'two', tags: ['t'], images: [two] })
      const pushed = { manifest: named('m2'), images: { amd64: two } }
      expect(await under(world, containerId, 't')).toEqual(pushed)
      // the same again changes nothing
      await world.tag(alice, containerId, two, 't')
      expect(await under(world, containerId, 't')).toEqual(pushed)
      await world.tag(alice, containerId, one, 't')
      expect(await under(world, containerId, 't')).toEqual({
        manifest: null,
        images: { amd64: one },
      })
      await put(world, alice, containerId, 'docker', { tags: ['t'] })
      expect(await under(world, containerId, 't')).toEqual({
        manifest: named('docker'),
        images: {},
      })
      expect(await listed(world)).toEqual(['t'])
      const elsewhere = async (tag: string) => {
        const select = { by: 'tag', tag, arch: 'amd64' } as const
        return (await world.database.catalog.findImage(PATH, select, null, at(1))).elsewhere
      }
      expect((await elsewhere('t'))?.id).toBe(containerId)
      await world.tag(alice, containerId, two, 't')
      expect(await under(world, containerId, 't')).toEqual({
        manifest: null,
        images: { amd64: two },
      })
      for (const tag of ['t', 'none']) expect(await elsewhere(tag)).toBeNull()
    })

    test('of an index are its images and no others, of each arch the first', async (world) => {
      const { alice, containerId } = await place(world)
      const of = (word: string, arch: string) => image(world, alice, containerId, word, { arch })
      const [amd, arm, ppc, more] = [
        await of('a', 'amd64'),
        await of('b', 'arm64'),
        await of('c', 'ppc64le'),
        await of('d', 'amd64'),
      ]
      await put(world, alice, containerId, 'm', { sif: 'c', tags: ['t'], images: [ppc] })
      await put(world, alice, containerId, 'n', { sif: 'a', tags: ['t'], images: [amd] })
      expect((await under(world, containerId, 't')).images).toEqual({ amd64: amd, ppc64le: ppc })
      const images = [more, arm, amd]
      await put(world, alice, containerId, 'index', { tags: ['t'], images, whole: true })
      expect(await under(world, containerId, 't')).toEqual({
        manifest: named('index'),
        images: { amd64: more, arm64: arm },
      })
      expect(await world.database.manifests.indexed(containerId)).toEqual([])
      await world.tag(alice, containerId, amd, 't')
      const [index] = await world.database.manifests.indexed(containerId)
      expect(index?.tag).toBe('t')
      expect(index?.images.map(({ id }) => id).toSorted()).toEqual([amd, arm].toSorted())
    })

    test('are in the search index as they are', async (world) => {
      const { alice, containerId } = await place(world)
      const one = await image(world, alice, containerId, 'one', { tag: 'first' })
      await put(world, alice, containerId, 'm', { sif: 'one', tags: ['second'], images: [one] })
      const found = (word: string) => world.search(null, word)
      expect(await found('second')).toEqual([one])
      await put(world, alice, containerId, 'docker', { tags: ['second'] })
      expect(await found('second')).toEqual([])
      expect(await found('first')).toEqual([one])
      const { manifests } = world.database
      await manifests.remove(containerId, { by: 'tag', tag: 'first' }, alice.writer)
      expect(await found('first')).toEqual([])
      // a manifest of it is left, so the image is
      expect((await world.image(one))?.uploaded).toBe(true)
    })

    test('are only set to images that are there, by who may write (R6)', async (world) => {
      const { alice, containerId } = await place(world)
      const other = await world.container(alice, 'alice/c/other')
      const mallory = await world.person('mallory')
      const there = await image(world, alice, other.id, 'one')
      const bare = (await world.record(alice, containerId, 'two')).id
      for (const id of [there, bare, newId()])
        await expectRefused(world, 'conflict', () =>
          put(world, alice, containerId, 'm', { tags: ['t'], images: [id] }),
        )
      const own = await image(world, alice, containerId, 'three', { tag: 't' })
      await expectRefused(world, 'denied', () =>
        put(world, mallory, containerId, 'm', { tags: ['t'], images: [own] }),
      )
      const { manifests } = world.database
      await expectRefused(world, 'denied', async () => {
        await manifests.remove(containerId, { by: 'tag', tag: 't' }, mallory.writer)
      })
    })

    test('that are frozen stay what they are', async (world) => {
      const { alice, containerId } = await place(world)
      const { manifests, catalog } = world.database
      const [one, two] = [
        await image(world, alice, containerId, 'one', { tag: 'library' }),
        await image(world, alice, containerId, 'two', { arch: 'arm64' }),
      ]
      await put(world, alice, containerId, 'docker', { tags: ['docker'] })
      await put(world, alice, containerId, 'm', { sif: 'one', tags: ['sif'], images: [one] })
      for (const tag of ['library', 'docker', 'sif'])
        expect(await freeze(world, alice, containerId, tag)).toBe(true)
      expect(await freeze(world, alice, containerId, 'none')).toBe(false)
      for (const tag of ['library', 'docker', 'sif']) {
        const tags = [tag]
        await expectRefused(world, 'denied', () => put(world, alice, containerId, 'x', { tags }))
        await expectRefused(world, 'denied', async () => {
          await manifests.remove(containerId, { by: 'tag', tag }, alice.writer)
        })
      }
      // another arch would make another manifest of what OCI has there
      for (const tag of ['docker', 'sif'])
        await expectRefused(world, 'denied', () => world.tag(alice, containerId, two, tag))
      const derived = { images: [one], tags: null }
      for (const what of [
        { by: 'digest', digest: named('docker') },
        { by: 'digest', digest: named('m') },
        { by: 'digest', digest: derivedOf('one').digest, derived },
      ] as const)
        await expectRefused(world, 'denied', async () => {
          await manifests.remove(containerId, what, alice.writer)
        })
      for (const gone of [
        () => catalog.deleteTag(containerId, 'amd64', 'sif', alice.writer),
        () => catalog.deleteImage({ imageId: one, containerId }, alice.writer),
        () => catalog.deleteContainer(containerId, alice.writer),
      ])
        await expectRefused(world, 'denied', async () => void (await gone()))
      await put(world, alice, containerId, 'docker', { tags: ['docker'] })
      await put(world, alice, containerId, 'm', { sif: 'one', tags: ['sif'], images: [one] })
      await world.tag(alice, containerId, one, 'sif')
      expect((await under(world, containerId, 'sif')).manifest).toBe(named('m'))
    })
  })

  describe('deletes', () => {
    test('leave an image while a tag or a manifest of it is left', async (world) => {
      const { alice, containerId } = await place(world)
      const { manifests, ended } = world.database
      const one = await image(world, alice, containerId, 'one', { tag: 'library' })
      await put(world, alice, containerId, 'm', { sif: 'one', tags: ['sif'], images: [one] })
      const remove = (what: Parameters<typeof manifests.remove>[1]) =>
        manifests.remove(containerId, what, alice.writer)
      expect(await remove({ by: 'tag', tag: 'none' })).toBe(false)
      expect(await remove({ by: 'digest', digest: named('none') })).toBe(false)
      const derived = { images: [one], tags: null }
      expect(await remove({ by: 'digest', digest: derivedOf('one').digest, derived })).toBe(true)
      // what was pushed under a name is no manifest of the library's
      expect(await listed(world)).toEqual(['sif'])
      expect(await remove({ by: 'tag', tag: 'sif' })).toBe(true)
      expect((await world.image(one))?.uploaded).toBe(true)
      expect(await remove({ by: 'digest', digest: named('m') })).toBe(true)
      expect(await world.image(one)).toBeNull()
      expect(await ended.since(new Date(0))).toContain(one)
    })

    test('of an index by its digest take its tag alone', async (world) => {
      const { alice, containerId } = await place(world)
      const { manifests } = world.database
      const amd = await image(world, alice, containerId, 'a', { tag: 't' })
      const arm = await image(world, alice, containerId, 'b', { tag: 't', arch: 'arm64' })
      await world.tag(alice, containerId, amd, 'kept')
      const what = {
        by: 'digest',
        digest: named('index'),
        derived: { images: [amd, arm], tags: ['t'] },
      } as const
      const copy = { ...what, derived: { images: [amd, arm], tags: ['t'] } }
      expect(await manifests.remove(containerId, copy, alice.writer)).toBe(true)
      expect(await listed(world)).toEqual(['kept'])
      expect(await world.image(arm)).toBeNull()
      expect((await world.image(amd))?.tags).toEqual(['kept'])
    })

    test(
      'take all of an image along, and count it out (R50)',
      async (world) => {
        const { alice, containerId } = await place(world)
        const { catalog, manifests } = world.database
        const container = async () =>
          (await world.raw?.(`SELECT size FROM containers WHERE id = '${containerId}'`))?.[0]
        const used = async () =>
          (await world.raw?.("SELECT used FROM entities WHERE name = 'alice'"))?.[0]
        const refs: ManifestRef[] = [{ kind: 'blob', digest: named('one'), size: SIZE }]
        for (const way of ['library', 'tag', 'manifest'] as const) {
          await member(world, alice, containerId, 'one')
          const one = await image(world, alice, containerId, 'one')
          await put(world, alice, containerId, 'm', {
            sif: 'one',
            tags: ['t'],
            images: [one],
            refs,
          })
          expect([await container(), await used()]).toEqual([{ size: SIZE }, { used: SIZE }])
          if (way === 'library')
            await catalog.deleteImage({ imageId: one, containerId }, alice.writer)
          else if (way === 'tag') await catalog.deleteTag(containerId, 'amd64', 't', alice.writer)
          else
            await manifests.remove(containerId, { by: 'digest', digest: named('m') }, alice.writer)
          expect([await container(), await used()]).toEqual([{ size: 0 }, { used: 0 }])
          for (const table of [
            'images',
            'manifests',
            'manifest_refs',
            'oci_tags',
            'repository_blobs',
          ])
            expect(
              await world.raw?.(`SELECT * FROM ${table} WHERE container_id = '${containerId}'`),
              table,
            ).toEqual([])
        }
        // a blob that another manifest names stays
        await member(world, alice, containerId, 'one')
        const one = await image(world, alice, containerId, 'one', { tag: 't' })
        await put(world, alice, containerId, 'other', { refs })
        await catalog.deleteImage({ imageId: one, containerId }, alice.writer)
        expect(await used()).toEqual({ used: SIZE })
      },
      true,
    )

    test('of an image leave what other manifests name', async (world) => {
      const { alice, containerId } = await place(world)
      const { catalog, manifests } = world.database
      const one = await image(world, alice, containerId, 'one', { tag: 't' })
      const refs: ManifestRef[] = [
        { kind: 'blob', digest: EMPTY_DIGEST, size: 2 },
        { kind: 'blob', digest: named('one'), size: SIZE },
      ]
      await put(world, alice, containerId, 'artifact', { refs })
      await catalog.deleteImage({ imageId: one, containerId }, alice.writer)
      const has = async (digest: string) =>
        (await manifests.member(PATH, digest, null, at(1))).value
      expect(await has(named('one'))).toMatchObject({ blob: { size: SIZE } })
      expect(await has(EMPTY_DIGEST)).toMatchObject({ blob: null, config: true })
      expect(await manifests.lacking(containerId, refs)).toEqual([])
      await manifests.remove(containerId, { by: 'digest', digest: named('artifact') }, alice.writer)
      expect(await has(EMPTY_DIGEST)).toMatchObject({ config: false })
    })

    test('by the library leave an image that OCI has another name for', async (world) => {
      const { alice, containerId } = await place(world)
      const { catalog } = world.database
      const one = await image(world, alice, containerId, 'one', { tag: 't' })
      const library = { images: [one], tags: [], whole: false }
      await put(world, alice, containerId, 'm', { sif: 'one', images: [one] })
      await world.database.manifests.put({
        containerId,
        manifest: {
          digest: named('m'),
          mediaType: 'application/vnd.oci.image.manifest.v1+json',
          size: 7,
          subject: null,
          artifactType: '',
          annotations: null,
          text: '"m"',
          sif: digestOf('one'),
        },
        refs: [],
        tags: ['_odd'],
        library,
        writer: alice.writer,
      })
      await catalog.deleteTag(containerId, 'amd64', 't', alice.writer)
      expect(await world.image(one)).toMatchObject({ uploaded: true, tags: [] })
      await catalog.deleteImage({ imageId: one, containerId }, alice.writer)
      expect(await listed(world)).toEqual([])
    })
  })

  test('a collection that requires signatures takes no manifest without an image (R8)', async (world) => {
    const { alice, containerId } = await place(world)
    const one = await image(world, alice, containerId, 'one')
    const { value } = await world.database.catalog.containerById(containerId, null, at(1))
    const policy = { mode: 'require', fingerprints: [] } as const
    const change = {
      collectionId: value?.collectionId ?? '',
      policy: { ...policy, fingerprints: [] },
      by: alice.writer,
    }
    expect(await put(world, alice, containerId, 'before')).toEqual({ policy: 'off' })
    await world.database.signatures.setPolicy(change)
    for (const options of [{}, { tags: ['t'] }, { images: [one] }, { sif: 'one', tags: ['t'] }])
      expect(await outcome(put(world, alice, containerId, 'm', options))).toBe('denied')
    await world.database.signatures.setPolicy({
      ...change,
      policy: { ...change.policy, mode: 'warn' },
    })
    expect(await put(world, alice, containerId, 'm', { images: [one] })).toEqual({ policy: 'warn' })
  })
}
