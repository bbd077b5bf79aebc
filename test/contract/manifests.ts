/** What every Database must do for OCI: members of repositories, manifests, uploads by claim (R9, R31, R47). */
import { describe, expect } from 'vitest'
import type { ManifestRef } from '../../src/core/model.ts'
import type { Writer } from '../../src/ports.ts'
import { at, digestOf, expectRefused, newId, outcome, type World } from './database.ts'

type Test = (title: string, run: (world: World) => Promise<void>, needsRaw?: boolean) => void
type Person = Awaited<ReturnType<World['person']>>

const named = (word: string) => `sha256:${digestOf(word)}`
const PATH = { entity: 'alice', collection: 'c', container: 'n' }
const IMAGE = 'application/vnd.oci.image.manifest.v1+json'

export function describeManifests(test: Test): void {
  /** Alice, and a repository of hers. */
  async function place(world: World, options: { private?: boolean; path?: string } = {}) {
    const alice = await world.person('alice')
    const container = await world.container(alice, options.path ?? 'alice/c/n', options)
    return { alice, container, containerId: container.id }
  }

  async function open(world: World, containerId: string, writer: Writer, perUser = 10) {
    const upload = { id: newId(), key: newId(), containerId, createdAt: at(), expiresAt: at(60) }
    await world.database.ociUploads.open(upload, writer, { perUser })
    return upload
  }

  async function claim(world: World, id: string, options: { at?: number; now?: number } = {}) {
    const taken = newId()
    const now = options.now ?? 1
    await world.database.ociUploads.claim(id, {
      claim: taken,
      at: options.at ?? 0,
      coming: 100,
      sha256: null,
      tailKey: newId(),
      now: at(now),
      leaseUntil: at(now + 1),
      expiresAt: at(60),
      free: null,
      defaultQuota: null,
    })
    return taken
  }

  const finishing = (containerId: string, key: string, word: string, writer: Writer) => ({
    containerId,
    digest: named(word),
    sha256: digestOf(word),
    size: 100,
    blobId: newId(),
    key,
    defaultQuota: null as number | null,
    writer,
  })

  /** A blob of the repository, by a whole upload. */
  async function blob(world: World, { writer }: Person, containerId: string, word: string) {
    const { id, key } = await open(world, containerId, writer)
    const taken = await claim(world, id)
    const done = finishing(containerId, key, word, writer)
    const used = await world.database.ociUploads.finish(id, taken, done)
    return { id, key, claim: taken, done, used: used.key }
  }

  const manifestOf = (word: string, more: { subject?: string; text?: string } = {}) => ({
    digest: named(word),
    mediaType: IMAGE,
    size: 7,
    subject: more.subject ?? null,
    artifactType: 'application/x',
    annotations: more.subject === undefined ? null : '{"a":"b"}',
    text: more.text ?? `{"${word}"}`,
  })
  const refTo = (word: string, size = 100): ManifestRef => ({
    kind: 'blob',
    digest: named(word),
    size,
  })
  const put = (
    { database }: World,
    { writer }: Person,
    containerId: string,
    word: string,
    options: {
      refs?: ManifestRef[]
      tags?: string[]
      subject?: string
      text?: string
    } = {},
  ) =>
    database.manifests.put({
      containerId,
      manifest: manifestOf(word, options),
      refs: options.refs ?? [],
      tags: options.tags ?? [],
      writer,
    })
  const find = async (world: World, tag: string) =>
    (await world.database.manifests.manifest(PATH, { by: 'tag', tag }, null, at(1), { text: true }))
      .value
  const member = async (world: World, word: string, viewer: Person | null = null) =>
    (await world.database.manifests.member(PATH, named(word), viewer?.viewer ?? null, at(1))).value

  describe('uploads of OCI', () => {
    test('are taken by one claim at the offset where they stand (R47)', async (world) => {
      const { alice, containerId } = await place(world)
      const { ociUploads } = world.database
      const { id, key } = await open(world, containerId, alice.writer)
      for (const wrong of [1, 50])
        expect(await outcome(claim(world, id, { at: wrong }))).toBe('range_unsatisfiable')
      const first = await claim(world, id)
      expect(await outcome(claim(world, id))).toBe('range_unsatisfiable')
      const to = { received: 64, tail: { key: newId(), size: 14 }, sha256: 'x', sha512: null }
      const part = { number: 1, etag: '"e"' }
      await ociUploads.setHandle(id, 'handle')
      await ociUploads.advance(id, first, { ...to, part, leaseUntil: at(3) })
      const { value } = await ociUploads.find(id, alice.viewer, at(1))
      expect(value).toMatchObject({
        container: { id: containerId },
        upload: { ...to, id, key, handle: 'handle', state: 'open', userId: alice.user.id },
      })
      expect(await ociUploads.parts(id)).toEqual([part])
      // the lease has ended: somebody else goes on from where it stands, and the first one is out
      const second = await claim(world, id, { at: 64, now: 5 })
      const late = { ...to, received: 99, part: null, leaseUntil: at(9) }
      await expectRefused(world, 'conflict', () => ociUploads.advance(id, first, late))
      expect(await ociUploads.renew(id, first, at(9))).toBe(false)
      expect(await ociUploads.renew(id, second, at(9))).toBe(true)
      await ociUploads.release(id, first)
      expect(await outcome(claim(world, id, { at: 64, now: 6 }))).toBe('range_unsatisfiable')
      await ociUploads.release(id, second)
      await claim(world, id, { at: 64, now: 6 })
    })

    test('of many claims at once one wins', async (world) => {
      const { alice, containerId } = await place(world)
      const { id } = await open(world, containerId, alice.writer)
      const outcomes = await Promise.all(Array.from({ length: 8 }, () => outcome(claim(world, id))))
      expect(outcomes.filter((one) => one === 'ok')).toHaveLength(1)
    })

    test('become members with a blob of their own or the one there is, once', async (world) => {
      const { alice, containerId } = await place(world)
      const { ociUploads, blobs } = world.database
      const one = await blob(world, alice, containerId, 'one')
      expect(one.used).toBe(one.key)
      expect(await member(world, 'one')).toMatchObject({ blob: { key: one.key, size: 100 } })
      // the same again, by the same claim and by another upload
      expect((await ociUploads.finish(one.id, one.claim, one.done)).key).toBe(one.key)
      const again = await blob(world, alice, containerId, 'one')
      expect(again.used).toBe(one.key)
      expect(await blobs.liveCount()).toBe(1)
      const left = await ociUploads.leftovers(at(10), 100)
      const kept = Object.fromEntries(left.map(({ key, kept: stays }) => [key, stays]))
      expect(kept).toMatchObject({ [one.key]: true, [again.key]: false })
      const keys = left.map(({ key }) => key)
      expect(await blobs.known(keys)).toEqual(new Set(keys))
      await ociUploads.forgetKeys(keys, at(10))
      expect(await ociUploads.leftovers(at(10), 100)).toEqual([])
      expect((await ociUploads.find(one.id, alice.viewer, at(1))).value).toBeNull()
      expect(await blobs.known(keys)).toEqual(new Set([one.key]))
    })

    test('end with the claim, the right to write, the repository, the quota (R6)', async (world) => {
      const { alice, containerId } = await place(world)
      const mallory = await world.person('mallory')
      const { ociUploads } = world.database
      const { id, key } = await open(world, containerId, alice.writer)
      const taken = await claim(world, id)
      const done = finishing(containerId, key, 'one', alice.writer)
      const attempt = (change: Partial<typeof done>, by = taken) =>
        ociUploads.finish(id, by, { ...done, ...change })
      await expectRefused(world, 'conflict', () => attempt({}, newId()))
      await expectRefused(world, 'conflict', () => attempt({ key: newId() }))
      await expectRefused(world, 'denied', () => attempt({ writer: mallory.writer }))
      await expectRefused(world, 'not_found', () => attempt({ containerId: newId() }))
      await expectRefused(world, 'quota_exceeded', () => attempt({ defaultQuota: 99 }))
      await expectRefused(world, 'denied', async () => {
        await open(world, containerId, mallory.writer)
      })
      await expectRefused(world, 'rate_limited', async () => {
        await open(world, containerId, alice.writer, 1)
      })
      await attempt({ defaultQuota: 100 })
      expect(await ociUploads.end(id, at(1))).toBe(false)
      const other = await open(world, containerId, alice.writer)
      expect(await ociUploads.end(other.id, at(1))).toBe(true)
      expect(await outcome(claim(world, other.id))).toBe('range_unsatisfiable')
    })

    test('expire after their deadline, not while a lease holds', async (world) => {
      const { alice, containerId } = await place(world)
      const { ociUploads } = world.database
      const idle = await open(world, containerId, alice.writer)
      const busy = await open(world, containerId, alice.writer)
      await claim(world, busy.id, { now: 60 })
      expect(await ociUploads.expire(at(60), 10)).toBe(0)
      expect(await ociUploads.expire(at(60.5), 10)).toBe(1)
      expect((await ociUploads.find(idle.id, alice.viewer, at(1))).value?.upload.state).toBe(
        'ended',
      )
      expect(await ociUploads.expire(at(62), 10)).toBe(1)
    })
  })

  test('the catalog has every name once, in the order of the whole names, on pages of any size', async (world) => {
    const { manifests } = world.database
    const names: string[] = []
    // a dash and a dot come before the slash, digits and letters behind it
    for (const entity of ['a', 'a-b', 'a.b', 'a0', 'ab']) {
      const person = await world.person(entity)
      for (const path of ['c/n', 'c-d/n', 'c.d/n', 'c0/n', 'c/n-o', 'c/n.o', 'c/n0']) {
        const container = await world.container(person, `${entity}/${path}`)
        await world.push(person, container.id, `${entity}/${path}`)
        names.push(`${entity}/${path}`)
      }
    }
    names.sort((a, b) => (a < b ? -1 : 1))
    const page = async (after: string, limit: number) =>
      (await manifests.repositories({ after, limit }, null, at())).value
    expect(await page('', 100)).toEqual(names)
    for (const limit of [1, 3]) {
      const paged: string[] = []
      for (let some = await page('', limit); some.length > 0;) {
        paged.push(...some)
        some = await page(paged.at(-1) ?? '', limit)
      }
      expect(paged).toEqual(names)
    }
    // words that are no name, or only the beginning of one
    for (const after of ['a', 'a/', 'a/c', 'a/c/', 'a-', 'a0/c/n', 'a~', '/', 'b', 'a-b/c.d/z'])
      expect(await page(after, 100), after).toEqual(names.filter((name) => name > after))
  })

  describe('members of repositories (R31)', () => {
    test('are references: the sweep takes none of their blobs (R9)', async (world) => {
      const { alice, containerId } = await place(world)
      const { blobs, manifests } = world.database
      const kept = await blob(world, alice, containerId, 'kept')
      const free = await blob(world, alice, containerId, 'free')
      await put(world, alice, containerId, 'm', { refs: [refTo('kept')] })
      const dying = async () => (await blobs.dying(at(9999), 100)).map(({ key }) => key)
      await blobs.markDying(at(2), '', 100)
      expect(await dying()).toEqual([])
      // young ones stay; old ones that no manifest names go
      await manifests.sweepMembers(at(0), 0, 100)
      await blobs.markDying(at(2), '', 100)
      expect(await dying()).toEqual([])
      const { last } = await manifests.sweepMembers(at(1), 0, 100)
      expect(last).not.toBeNull()
      expect(await manifests.sweepMembers(at(1), last ?? 0, 100)).toEqual({ last: null })
      await blobs.markDying(at(2), '', 100)
      expect(await dying()).toEqual([free.key])
      expect((await member(world, 'free'))?.blob).toBeNull()
      expect((await member(world, 'kept'))?.blob?.key).toBe(kept.key)
      // dying never comes back: the next push makes a new one
      const again = await blob(world, alice, containerId, 'free')
      expect(again.used).toBe(again.key)
    })

    test('are mounted by who may read and write, now', async (world) => {
      const { alice, containerId } = await place(world, { private: true })
      const bob = await world.person('bob')
      const target = await world.container(bob, 'bob/c/n')
      await blob(world, alice, containerId, 'one')
      const { manifests, catalog } = world.database
      const readable = (who: Person, from: typeof PATH | null) =>
        manifests.readableMember(named('one'), from, who.viewer, at(1))
      const stored = await readable(alice, PATH)
      if (stored === null) throw new Error('the owner reads it')
      for (const from of [PATH, null]) expect(await readable(bob, from)).toBeNull()
      const change = (who: Person) => ({
        containerId: target.id,
        digest: named('one'),
        blobId: stored.id,
        defaultQuota: null,
        writer: who.writer,
      })
      expect(await manifests.mount(change(bob))).toBe(false)
      expect(await outcome(manifests.mount(change(alice)))).toBe('denied')
      await catalog.setPrivate(PATH, false, alice.writer)
      expect((await readable(bob, null))?.id).toBe(stored.id)
      expect(await manifests.mount({ ...change(bob), digest: named('two') })).toBe(false)
      expect(await manifests.mount(change(bob))).toBe(true)
      const over = { ...change(bob), containerId, writer: alice.writer, defaultQuota: 50 }
      expect(await outcome(manifests.mount(over))).toBe('ok')
    })

    test(
      'count for their entity with its images, equal content once',
      async (world) => {
        const { alice, container, containerId } = await place(world)
        const used = async () =>
          (await world.raw?.(`SELECT used FROM entities WHERE id = '${container.entityId}'`))?.[0]
        const other = await world.container(alice, 'alice/c/other')
        await blob(world, alice, containerId, 'one')
        expect(await used()).toEqual({ used: 100 })
        await blob(world, alice, other.id, 'one')
        const image = await world.push(alice, containerId, 'one', { tag: 'x' })
        expect(await used()).toEqual({ used: 100 })
        await blob(world, alice, containerId, 'two')
        expect(await used()).toEqual({ used: 200 })
        const { manifests, catalog } = world.database
        expect(await manifests.removeMember(other.id, named('one'), alice.writer)).toBe(true)
        // an image has it, and takes it along
        const kept = manifests.removeMember(containerId, named('one'), alice.writer)
        expect(await outcome(kept)).toBe('conflict')
        expect(await used()).toEqual({ used: 200 })
        await catalog.deleteImage({ imageId: image.id, containerId }, alice.writer)
        expect(await used()).toEqual({ used: 100 })
        // whatever way a container goes
        await world.raw?.(`DELETE FROM containers WHERE id = '${containerId}'`)
        expect(await used()).toEqual({ used: 0 })
      },
      true,
    )

    test('whose bytes are lost are absent, and healed by the next push (R60)', async (world) => {
      const { alice, containerId } = await place(world)
      const { catalog } = world.database
      const one = await blob(world, alice, containerId, 'one')
      await catalog.markLost(one.key)
      expect((await member(world, 'one'))?.blob).toBeNull()
      const image = await world.push(alice, containerId, 'one')
      expect((await member(world, 'one'))?.blob?.key).toBe(image.upload.blobKey)
      await catalog.markLost(image.upload.blobKey)
      const two = await blob(world, alice, containerId, 'one')
      expect((await member(world, 'one'))?.blob?.key).toBe(two.key)
      expect((await world.image(image.id))?.blob?.key).toBe(two.key)
    })
  })

  describe('manifests', () => {
    test('are stored with what they name, and found by tag and digest', async (world) => {
      const { alice, containerId } = await place(world)
      const { manifests } = world.database
      await blob(world, alice, containerId, 'layer')
      const text = `"${'ü💾'.repeat(700_000)}"`
      await put(world, alice, containerId, 'm', { refs: [refTo('layer')], tags: ['a', 'b'], text })
      const found = await find(world, 'a')
      const { text: _, annotations: __, ...facts } = manifestOf('m')
      expect(found).toMatchObject({ container: { id: containerId }, manifest: facts })
      expect(found?.manifest?.text === text).toBe(true)
      const by = { by: 'digest', digest: named('m') } as const
      const head = await manifests.manifest(PATH, by, null, at(1), { text: false })
      expect(head.value?.manifest).toEqual({ ...facts, text: null })
      await put(world, alice, containerId, 'n', { tags: ['b'] })
      expect((await find(world, 'b'))?.manifest?.digest).toBe(named('n'))
      expect((await find(world, 'none'))?.manifest).toBeNull()
      const page = { after: '', limit: 10 }
      expect((await manifests.tags(PATH, page, null, at(1))).value?.tags).toEqual(['a', 'b'])
    })

    test('name only what is there in that size, in the very batch (R6, R31)', async (world) => {
      const { alice, containerId } = await place(world)
      const other = await world.container(alice, 'alice/c/other')
      const mallory = await world.person('mallory')
      const { manifests } = world.database
      await blob(world, alice, containerId, 'here')
      await blob(world, alice, other.id, 'elsewhere')
      await put(world, alice, containerId, 'child')
      const child: ManifestRef = { kind: 'manifest', digest: named('child'), size: 7 }
      const wrong: ManifestRef[] = [
        refTo('elsewhere'),
        refTo('here', 99),
        { ...child, size: 8 },
        { ...child, kind: 'blob' },
        { ...refTo('here'), kind: 'manifest' },
      ]
      for (const ref of wrong)
        await expectRefused(world, 'invalid', () =>
          put(world, alice, containerId, 'm', { refs: [refTo('here'), ref] }),
        )
      expect(await manifests.lacking(containerId, [refTo('here'), child, ...wrong])).toEqual([
        { kind: 'blob', digest: named('elsewhere'), size: null },
        { kind: 'blob', digest: named('here'), size: 100 },
        { kind: 'manifest', digest: named('child'), size: 7 },
        { kind: 'blob', digest: named('child'), size: null },
        { kind: 'manifest', digest: named('here'), size: null },
      ])
      await expectRefused(world, 'denied', () => put(world, mallory, containerId, 'm'))
      await expectRefused(world, 'not_found', () => put(world, alice, newId(), 'm'))
      await put(world, alice, containerId, 'm', { refs: [refTo('here'), child] })
      await expectRefused(world, 'conflict', () =>
        manifests.removeMember(containerId, named('here'), alice.writer),
      )
    })

    test('go with their tags and references; a tag goes alone', async (world) => {
      const { alice, containerId } = await place(world)
      const mallory = await world.person('mallory')
      const { manifests } = world.database
      await blob(world, alice, containerId, 'layer')
      await put(world, alice, containerId, 'm', { refs: [refTo('layer')], tags: ['a', 'b'] })
      const remove = (what: { tag: string } | { digest: string }, who: Person = alice) =>
        manifests.remove(
          containerId,
          'tag' in what ? { by: 'tag', ...what } : { by: 'digest', ...what },
          who.writer,
        )
      await expectRefused(world, 'denied', () => remove({ tag: 'a' }, mallory))
      expect(await remove({ tag: 'a' })).toBe(true)
      expect(await remove({ tag: 'a' })).toBe(false)
      expect((await find(world, 'b'))?.manifest).not.toBeNull()
      expect(await remove({ digest: named('m') })).toBe(true)
      expect(await remove({ digest: named('m') })).toBe(false)
      expect((await find(world, 'b'))?.manifest).toBeNull()
      expect(await manifests.removeMember(containerId, named('layer'), alice.writer)).toBe(true)
    })

    test(
      'of a frozen repository stay where their tags are',
      async (world) => {
        const { alice, containerId } = await place(world)
        await put(world, alice, containerId, 'm', { tags: ['a'] })
        await world.raw?.(`UPDATE containers SET frozen = 1 WHERE id = '${containerId}'`)
        const { manifests } = world.database
        await expectRefused(world, 'denied', () =>
          put(world, alice, containerId, 'n', { tags: ['a'] }),
        )
        for (const selector of [
          { by: 'tag', tag: 'a' },
          { by: 'digest', digest: named('m') },
        ] as const)
          await expectRefused(world, 'denied', () =>
            manifests.remove(containerId, selector, alice.writer),
          )
        await put(world, alice, containerId, 'm', { tags: ['a', 'b'] })
        expect((await find(world, 'b'))?.manifest?.digest).toBe(named('m'))
      },
      true,
    )

    test('are listed by subject and type, in pages', async (world) => {
      const { alice, containerId } = await place(world)
      const { manifests } = world.database
      const subject = named('subject')
      for (const word of ['x', 'y', 'z']) await put(world, alice, containerId, word, { subject })
      await put(world, alice, containerId, 'other', { subject: named('other subject') })
      const sorted = ['x', 'y', 'z'].map(named).toSorted()
      const page = { after: '', artifactType: null as string | null, limit: 2 }
      const first = (await manifests.referrers(PATH, subject, page, null, at(1))).value
      expect(first?.manifests.map(({ digest }) => digest)).toEqual(sorted.slice(0, 2))
      expect(first).toMatchObject({ more: true, manifests: [{ annotations: '{"a":"b"}' }, {}] })
      const next = { ...page, after: sorted[1] ?? '' }
      const second = (await manifests.referrers(PATH, subject, next, null, at(1))).value
      expect(second).toMatchObject({ more: false, manifests: [{ digest: sorted[2] }] })
      const typed = { ...page, artifactType: 'application/none' }
      expect(
        (await manifests.referrers(PATH, subject, typed, null, at(1))).value?.manifests,
      ).toEqual([])
    })

    test('take their referrers along where that is asked for, not what has a name', async (world) => {
      const { alice, containerId } = await place(world)
      const { manifests } = world.database
      const image = (word: string, subject?: string, tags: string[] = []) =>
        put(world, alice, containerId, word, {
          ...(subject === undefined ? {} : { subject: named(subject) }),
          tags,
        })
      const remove = (word: string, withReferrers: boolean) => {
        const by = { by: 'digest', digest: named(word) } as const
        return manifests.remove(containerId, by, alice.writer, { withReferrers })
      }
      const words = ['sbom', 'signed-sbom', 'tagged', 'under-tagged', 'in-index', 'index', 'other']
      const left = async () => {
        const found: string[] = []
        for (const word of ['image', ...words]) {
          const by = { by: 'digest', digest: named(word) } as const
          const { value } = await manifests.manifest(PATH, by, null, at(1), { text: true })
          if (value?.manifest != null) found.push(word)
        }
        return found
      }
      const fill = async () => {
        await image('image')
        await image('sbom', 'image')
        await image('signed-sbom', 'sbom')
        await image('tagged', 'image', ['v1'])
        await image('under-tagged', 'tagged')
        await image('in-index', 'image')
        const inIndex: ManifestRef = { kind: 'manifest', digest: named('in-index'), size: 7 }
        await put(world, alice, containerId, 'index', { refs: [inIndex] })
        await image('other', 'index')
      }
      await fill()
      expect(await remove('image', false)).toBe(true)
      expect(await left()).toEqual(words)
      await fill()
      const tag = { by: 'tag', tag: 'v1' } as const
      await manifests.put({
        containerId,
        manifest: manifestOf('image'),
        refs: [],
        tags: ['v2'],
        writer: alice.writer,
      })
      const byTag = { by: 'tag', tag: 'v2' } as const
      await manifests.remove(containerId, byTag, alice.writer, { withReferrers: true })
      expect(await left()).toEqual(['image', ...words])
      expect(await remove('image', true)).toBe(true)
      expect(await left()).toEqual(['tagged', 'under-tagged', 'in-index', 'index', 'other'])
      await manifests.remove(containerId, tag, alice.writer, { withReferrers: true })
      expect(await remove('tagged', true)).toBe(true)
      expect(await left()).toEqual(['in-index', 'index', 'other'])
    })

    test(
      'leave a row in the audit log, once for what changes',
      async (world) => {
        const { alice, containerId } = await place(world)
        for (let i = 0; i < 2; i++) await put(world, alice, containerId, 'm', { tags: ['a'] })
        const { manifests } = world.database
        for (const word of ['s', 't'])
          await put(world, alice, containerId, word, { subject: named('m') })
        await manifests.remove(containerId, { by: 'tag', tag: 'a' }, alice.writer)
        const by = { by: 'digest', digest: named('m') } as const
        await manifests.remove(containerId, by, alice.writer, { withReferrers: true })
        const rows = await world.raw?.(
          `SELECT action, name, actor, detail FROM audit WHERE object = 'container ${containerId}' AND (action LIKE 'manifest.%' OR action LIKE 'tag.%') ORDER BY seq`,
        )
        const of = (action: string, name: string, detail: string) => ({
          action,
          name,
          actor: 'alice',
          detail,
        })
        const stored = (word: string) =>
          of('manifest.put', `alice/c/n@${named(word)}`, `${IMAGE}, 7 bytes`)
        expect(rows).toEqual([
          stored('m'),
          of('tag.set', 'alice/c/n:a', `to manifest ${named('m')}`),
          stored('s'),
          stored('t'),
          of('tag.delete', 'alice/c/n:a', ''),
          of('manifest.delete', `alice/c/n@${named('m')}`, ''),
          of('manifest.delete', `alice/c/n@${named('m')}`, 'its 2 referrers'),
        ])
      },
      true,
    )
  })
}
