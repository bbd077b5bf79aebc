/**
 * What every Database must do with quotas and usage (R29, R50), whatever happens at once or in what
 * order, and with stars and weekly pulls (R27).
 */
import * as fc from 'fast-check'
import { describe, expect } from 'vitest'
import { isRegistryError } from '../../src/errors.ts'
import { at, digestOf, expectRefused, newId, outcome, type World } from './database.ts'
import { operator } from '../fixtures/operator.ts'

type Test = (title: string, run: (world: World) => Promise<void>, needsRaw?: boolean) => void
type Person = Awaited<ReturnType<World['person']>>

export function describeQuotas(test: Test): void {
  const open = (world: World, who: Person, image: { id: string }, size: number, quota: number) => {
    const limits = { perUser: 1000, free: null, defaultQuota: quota }
    const upload = world.draftUpload(who, image as Parameters<World['draftUpload']>[1], size)
    return { upload, done: world.database.uploads.open(upload, who.writer, limits) }
  }
  const usage = async ({ database }: World, name: string) =>
    (await database.quotas.usages('all', '', 1000)).find(({ entity }) => entity === name)
  const setQuota = ({ database, root }: World, entityId: string, quota: number | null) =>
    database.quotas.setQuota({ entityId, quota, by: root.writer })

  async function alice(world: World) {
    const who = await world.person('alice')
    const place = await world.container(who, 'alice/c/box')
    return { who, place }
  }

  describe('quotas', () => {
    test('uploads start while what is there and on its way fits (R50)', async (world) => {
      const { who, place } = await alice(world)
      const images = []
      for (const word of ['one', 'two', 'three'])
        images.push(await world.record(who, place.id, word))
      const [one, two, three] = images
      const first = open(world, who, one!, 100, 250)
      await first.done
      await open(world, who, two!, 100, 250).done
      await expectRefused(world, 'quota_exceeded', () => open(world, who, three!, 100, 250).done)
      // what ends, however it ends, leaves its room
      const from = { state: 'open', claim: null } as const
      await world.database.uploads.close(first.upload.id, from, 'aborted', at(1))
      await open(world, who, three!, 100, 250).done
      await expectRefused(world, 'quota_exceeded', () => open(world, who, one!, 100, 250).done)
      expect(await world.database.uploads.expire(at(120), 100)).toBe(2)
      await open(world, who, one!, 250, 250).done
      expect((await usage(world, 'alice'))?.reserved).toBe(250)
    })

    test('the refusal tells the figures of that entity, and to none but writers (R29)', async (world) => {
      const { who, place } = await alice(world)
      const bob = await world.person('bob')
      const there = await world.container(bob, 'bob/c/box')
      await world.push(bob, there.id, 'of bob', { size: 7000 })
      await world.push(who, place.id, 'held', { size: 3000 })
      const image = await world.record(who, place.id, 'more')
      const refused = await open(world, who, image, 2000, 4096).done.catch((e: unknown) => e)
      if (!isRegistryError(refused)) throw refused
      expect(refused.code).toBe('quota_exceeded')
      expect(refused.message).toBe(
        'There is no room for this image of 2.0 KiB (2000 bytes): alice uses 2.9 KiB (3000 bytes) of the 4.0 KiB (4096 bytes) it may use. Delete images that are not needed, or ask an administrator for a larger quota.',
      )
      expect(await outcome(open(world, bob, image, 2000, 4096).done)).toBe('denied')
      // equal content elsewhere makes it no cheaper
      const same = await world.record(who, place.id, 'of bob')
      expect(await outcome(open(world, who, same, 7000, 4096).done)).toBe('quota_exceeded')
    })

    test('content that the entity holds costs nothing, and on its way it counts once', async (world) => {
      const { who, place } = await alice(world)
      const other = await world.container(who, 'alice/d/box')
      await world.push(who, place.id, 'held', { size: 100 })
      const again = await world.record(who, other.id, 'held')
      await open(world, who, again, 100, 100).done
      const twins = [
        await world.record(who, place.id, 'twin'),
        await world.record(who, other.id, 'twin'),
      ]
      // who only says that it is of what is held has no more of it for nothing
      expect(await outcome(open(world, who, again, 101, 200).done)).toBe('quota_exceeded')
      for (const twin of twins) await open(world, who, twin, 100, 200).done
      expect(await usage(world, 'alice')).toMatchObject({ used: 100, reserved: 100 })
      const more = await world.record(who, place.id, 'more')
      expect(await outcome(open(world, who, more, 1, 200).done)).toBe('quota_exceeded')
    })

    test("an entity's own quota stands before the default; 0 is none, null the default again", async (world) => {
      const { who, place } = await alice(world)
      const image = await world.record(who, place.id, 'one')
      const tries = async () => outcome(open(world, who, image, 100, 99).done)
      expect(await tries()).toBe('quota_exceeded')
      await setQuota(world, place.entityId, 100)
      expect(await tries()).toBe('ok')
      await setQuota(world, place.entityId, 1)
      expect(await tries()).toBe('quota_exceeded')
      await setQuota(world, place.entityId, 0)
      expect(await tries()).toBe('ok')
      expect((await usage(world, 'alice'))?.quota).toBe(0)
      await setQuota(world, place.entityId, null)
      expect(await tries()).toBe('quota_exceeded')
      const mine = { entityId: place.entityId, quota: 0, by: who.writer }
      await expectRefused(world, 'denied', () => world.database.quotas.setQuota(mine))
      const lost = { ...mine, by: { ...who.writer, admin: true, manages: true } }
      await expectRefused(world, 'denied', () => world.database.quotas.setQuota(lost))
      const none = { entityId: newId(), quota: 0, by: world.root.writer }
      await expectRefused(world, 'not_found', () => world.database.quotas.setQuota(none))
      await world.database.quotas.setQuota({ ...mine, by: { operator: 'cli:ann', now: at() } })
      expect(await tries()).toBe('ok')
    })

    test('attaching asks again, from an upload and from a stored blob (R8)', async (world) => {
      const { catalog } = world.database
      const { who, place } = await alice(world)
      const image = await world.record(who, place.id, 'late')
      const { attachment } = await world.received(who, image, { size: 100 })
      const attach = (quota: number | null) =>
        catalog.attach({ ...attachment, defaultQuota: quota })
      await expectRefused(world, 'quota_exceeded', () => attach(99))
      await setQuota(world, place.entityId, 99)
      await expectRefused(world, 'quota_exceeded', () => attach(null))
      await setQuota(world, place.entityId, null)
      await attach(100)
      // again with the same claim is success, whatever the quota has become
      await attach(1)

      const bob = await world.person('bob')
      const gift = await world.container(bob, 'bob/c/gift')
      await world.push(bob, gift.id, 'gift', { size: 100 })
      const wanted = await world.record(who, place.id, 'gift')
      const blob = await catalog.readableBlob(wanted.digest, who.viewer, at())
      const take = (defaultQuota: number) =>
        catalog.attach({
          imageId: wanted.id,
          digest: wanted.digest,
          size: 100,
          defaultQuota,
          facts: null,
          writer: who.writer,
          source: { kind: 'blob', blobId: blob?.id ?? '' },
        })
      await expectRefused(world, 'quota_exceeded', () => take(199))
      // nor does it take the room of what is on its way
      const coming = await world.record(who, place.id, 'coming')
      await open(world, who, coming, 100, 300).done
      await expectRefused(world, 'quota_exceeded', () => take(299))
      await take(300)
      expect(await usage(world, 'alice')).toMatchObject({ used: 200, reserved: 100, images: 2 })
    })

    /** An upload by OCI to that repository, claimed for `coming` bytes, of `word` where that is said. */
    async function claimed(
      { database }: World,
      who: Person,
      containerId: string,
      coming: number,
      limits: { quota?: number; free?: number; word?: string; perUser?: number } = {},
    ) {
      const { quota = null, free = null, word, perUser = 1000 } = limits
      const upload = { id: newId(), key: newId(), containerId, createdAt: at(), expiresAt: at(60) }
      await database.ociUploads.open(upload, who.writer, { perUser })
      const claim = newId()
      await database.ociUploads.claim(upload.id, {
        claim,
        at: 0,
        coming,
        sha256: word === undefined ? null : digestOf(word),
        tailKey: newId(),
        now: at(1),
        leaseUntil: at(2),
        expiresAt: at(60),
        free,
        defaultQuota: quota,
      })
      const advance = (received: number, room: { quota?: number; free?: number } = {}) =>
        database.ociUploads.advance(upload.id, claim, {
          received,
          tail: { key: newId(), size: received },
          sha256: null,
          sha512: null,
          part: null,
          leaseUntil: at(2),
          free: room.free ?? null,
          defaultQuota: room.quota ?? null,
        })
      const finish = (done: string, size: number, defaultQuota: number) =>
        database.ociUploads.finish(upload.id, claim, {
          containerId,
          digest: `sha256:${digestOf(done)}`,
          sha256: digestOf(done),
          size,
          blobId: newId(),
          key: upload.key,
          defaultQuota,
          writer: who.writer,
        })
      return { id: upload.id, claim, advance, finish }
    }

    test('what comes by OCI has its room beside the library’s, and the reverse (R50)', async (world) => {
      const { who, place } = await alice(world)
      const { ociUploads, uploads } = world.database
      const image = await world.record(who, place.id, 'by the library')
      const quota = 250
      const oci = await claimed(world, who, place.id, 100, { quota })
      expect(await usage(world, 'alice')).toMatchObject({ used: 0, reserved: 100 })
      await expectRefused(world, 'quota_exceeded', () => open(world, who, image, 151, quota).done)
      const library = open(world, who, image, 150, quota)
      await library.done
      expect((await usage(world, 'alice'))?.reserved).toBe(250)
      const refused = await claimed(world, who, place.id, 1, { quota }).catch((e: unknown) => e)
      if (!isRegistryError(refused)) throw refused
      expect([refused.code, refused.message]).toEqual([
        'quota_exceeded',
        'There is no room for this blob of 1 bytes: alice uses 0 bytes of the 250 bytes it may use, with 250 bytes more on their way. Delete images that are not needed, or ask an administrator for a larger quota.',
      ])
      // another entity has its own room
      const bob = await world.person('bob')
      const there = await world.container(bob, 'bob/c/box')
      await claimed(world, bob, there.id, 250, { quota })
      // what ends leaves its room; what has arrived keeps it
      await uploads.close(library.upload.id, { state: 'open', claim: null }, 'aborted', at(1))
      await oci.advance(100, { quota })
      await ociUploads.release(oci.id, oci.claim)
      expect((await usage(world, 'alice'))?.reserved).toBe(100)
      expect(await ociUploads.end(oci.id, at(1))).toBe(true)
      expect((await usage(world, 'alice'))?.reserved).toBe(0)
      await claimed(world, who, place.id, 250, { quota })
    })

    test('a body that does not say how long it is reserves as it comes (R50)', async (world) => {
      const { who, place } = await alice(world)
      const oci = await claimed(world, who, place.id, 0, { quota: 250 })
      await oci.advance(100, { quota: 250 })
      expect((await usage(world, 'alice'))?.reserved).toBe(100)
      const image = await world.record(who, place.id, 'image')
      await open(world, who, image, 100, 250).done
      await oci.advance(150, { quota: 250 })
      await expectRefused(world, 'quota_exceeded', () => oci.advance(151, { quota: 250 }))
      // what was announced is not asked again
      const announced = await claimed(world, who, place.id, 100)
      await announced.advance(100, { quota: 250, free: 0 })
    })

    test('the disk has room for what both have announced, and has had for what came (R50)', async (world) => {
      const { who, place } = await alice(world)
      const image = await world.record(who, place.id, 'image')
      const upload = (size: number, free: number) =>
        world.database.uploads.open(world.draftUpload(who, image, size), who.writer, {
          perUser: 1000,
          free,
          defaultQuota: null,
        })
      const oci = await claimed(world, who, place.id, 100, { free: 100 })
      await expectRefused(world, 'insufficient_storage', () => upload(50, 149))
      await upload(50, 150)
      for (const [coming, free] of [[1, 150] as const, [100, 249] as const]) {
        const { id } = await claimed(world, who, place.id, 0)
        await expectRefused(world, 'insufficient_storage', () =>
          world.database.ociUploads.claim(id, {
            claim: newId(),
            at: 0,
            coming,
            sha256: null,
            tailKey: newId(),
            now: at(9),
            leaseUntil: at(10),
            expiresAt: at(60),
            free,
            defaultQuota: null,
          }),
        )
      }
      // its bytes lie on the disk by now, whose free bytes do without them
      await oci.advance(60)
      await upload(10, 100)
      const streamed = await claimed(world, who, place.id, 0)
      await expectRefused(world, 'insufficient_storage', () => streamed.advance(10, { free: 109 }))
      await streamed.advance(10, { free: 110 })
    })

    test('equal content by both ways counts once, and what is held not at all', async (world) => {
      const { who, place } = await alice(world)
      const other = await world.container(who, 'alice/d/box')
      const quota = 100
      const image = await world.record(who, place.id, 'twin')
      await open(world, who, image, 100, quota).done
      const twin = await claimed(world, who, other.id, 100, { quota, word: 'twin' })
      expect(await usage(world, 'alice')).toMatchObject({ used: 0, reserved: 100 })
      expect(await outcome(claimed(world, who, other.id, 1, { quota }))).toBe('quota_exceeded')
      await twin.finish('twin', 100, quota)
      expect(await usage(world, 'alice')).toMatchObject({ used: 100, reserved: 0 })
      // one that came by OCI is there for the library, and for OCI elsewhere
      const again = await world.record(who, other.id, 'twin')
      await open(world, who, again, 100, quota).done
      const third = await claimed(world, who, place.id, 100, { quota, word: 'twin' })
      await third.finish('twin', 100, quota)
      expect(await usage(world, 'alice')).toMatchObject({ used: 100, reserved: 0 })
      // a mount brings what its entity does not have, beside what is on its way there
      const bob = await world.person('bob')
      const there = await world.container(bob, 'bob/c/box')
      await claimed(world, bob, there.id, 50)
      const { manifests } = world.database
      const digest = `sha256:${digestOf('twin')}`
      const stored = await manifests.readableMember(digest, null, bob.viewer, at(1))
      const mount = (defaultQuota: number) =>
        manifests.mount({
          containerId: there.id,
          digest,
          blobId: stored?.id ?? '',
          defaultQuota,
          writer: bob.writer,
        })
      await expectRefused(world, 'quota_exceeded', () => mount(149))
      expect(await mount(150)).toBe(true)
      expect(await mount(1)).toBe(true)
    })

    test('uploads of both kinds are counted for their user together', async (world) => {
      const { who, place } = await alice(world)
      await claimed(world, who, place.id, 1)
      const image = await world.record(who, place.id, 'image')
      const opening = (perUser: number) =>
        world.database.uploads.open(world.draftUpload(who, image, 1), who.writer, {
          perUser,
          free: null,
          defaultQuota: null,
        })
      await expectRefused(world, 'rate_limited', () => opening(1))
      await opening(2)
      await expectRefused(world, 'rate_limited', async () => {
        await claimed(world, who, place.id, 1, { perUser: 2 })
      })
    })

    test('of many at once, as many start and arrive as fit', async (world) => {
      const { who, place } = await alice(world)
      const images = []
      for (let i = 0; i < 20; i++) images.push(await world.record(who, place.id, `image ${i}`))
      const started = images.map((image) => outcome(open(world, who, image, 10, 95).done))
      const codes = await Promise.all(started)
      expect(codes.filter((code) => code === 'ok')).toHaveLength(9)
      expect(codes.filter((code) => code === 'quota_exceeded')).toHaveLength(11)

      // as if all had started while there was no quota
      const bob = await world.person('bob')
      const there = await world.container(bob, 'bob/c/box')
      const ready = []
      for (let i = 0; i < 20; i++) {
        const image = await world.record(bob, there.id, `of bob ${i}`)
        ready.push((await world.received(bob, image, { size: 10 })).attachment)
      }
      const arrived = await Promise.all(
        ready.map((attachment) =>
          outcome(world.database.catalog.attach({ ...attachment, defaultQuota: 95 })),
        ),
      )
      expect(arrived.filter((code) => code === 'ok')).toHaveLength(9)
      expect(await usage(world, 'bob')).toMatchObject({ used: 90, images: 9 })
    })

    test('usage is of one, of an owner or of all, in pages', async (world) => {
      const { quotas } = world.database
      const { who, place } = await alice(world)
      await world.container(who, 'alice/c/empty')
      await world.push(who, place.id, 'one', { size: 5 })
      await world.record(who, place.id, 'without bytes')
      const mine = {
        entity: 'alice',
        used: 5,
        reserved: 0,
        quota: null,
        collections: 1,
        containers: 2,
        images: 1,
      }
      expect(await quotas.usages({ entityId: place.entityId }, '', 10)).toEqual([mine])
      expect(await quotas.usages({ ownerId: who.user.id }, '', 10)).toEqual([mine])
      const [first, second] = await quotas.usages('all', '', 2)
      expect([first, second?.entity]).toEqual([mine, 'root'])
      expect((await quotas.usages('all', 'alice', 1))[0]?.entity).toBe('root')
    })

    test(
      'used is the sum of the distinct digests after anything that happens',
      async (world) => {
        const { catalog } = world.database
        const people = [await world.person('ann'), await world.person('ben')]
        const words = ['a', 'b', 'c', 'd']
        let round = 0
        const step = fc.record({
          what: fc.constantFrom('push', 'push', 'copy', 'tag', 'untag', 'delete', 'drop'),
          who: fc.nat(1),
          box: fc.nat(2),
          word: fc.nat(3),
        })
        const run = async (steps: { what: string; who: number; box: number; word: number }[]) => {
          round += 1
          for (const { what, who: index, box, word } of steps) {
            const who = people[index]!
            const path = `${who.user.name}/c${round}x${box % 2}/box${box}`
            const place = await world.container(who, path)
            const digest = digestOf(`${round} ${words[word]}`)
            const image = await world.record(who, place.id, `${round} ${words[word]}`)
            const stored = (await world.image(image.id))?.uploaded === true
            const size = 10 ** word
            if (what === 'push' && !stored) {
              const { attachment } = await world.received(who, image, { size })
              await catalog.attach(attachment)
              // a lost answer is asked for again
              await catalog.attach(attachment)
            } else if (what === 'copy' && !stored) {
              const blob = await catalog.readableBlob(digest, who.viewer, at())
              if (blob !== null)
                await catalog.attach({
                  imageId: image.id,
                  digest,
                  size: blob.size,
                  facts: null,
                  writer: who.writer,
                  source: { kind: 'blob', blobId: blob.id },
                })
            } else if (what === 'tag' && stored) await world.tag(who, place.id, image.id, 'latest')
            else if (what === 'untag')
              await catalog.deleteTag(place.id, 'amd64', 'latest', who.writer)
            else if (what === 'delete')
              await catalog.deleteImage({ imageId: image.id, containerId: place.id }, who.writer)
            else if (what === 'drop') {
              const within = `SELECT id FROM containers WHERE collection_id = '${place.collectionId}'`
              await world.raw?.(`DELETE FROM images WHERE container_id IN (${within})`)
              await world.raw?.(`DELETE FROM containers WHERE id IN (${within})`)
              await world.raw?.(`DELETE FROM collections WHERE id = '${place.collectionId}'`)
            }
          }
          const rows = await world.raw?.(
            `SELECT e.name, e.used, (SELECT coalesce(sum(size), 0) FROM (SELECT i.digest, max(i.size) AS size FROM images i JOIN containers n ON n.id = i.container_id JOIN collections c ON c.id = n.collection_id WHERE c.entity_id = e.id AND i.blob_id IS NOT NULL GROUP BY 1)) AS held FROM entities e`,
          )
          for (const { name, used, held } of rows ?? []) expect([name, used]).toEqual([name, held])
        }
        await fc.assert(fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 25 }), run), {
          numRuns: 6,
          endOnFailure: true,
        })
      },
      true,
    )
  })

  describe('stars and weeks', () => {
    test('a star counts once for each who may see the container', async (world) => {
      const { popularity, catalog } = world.database
      const { who, place } = await alice(world)
      const bob = await world.person('bob')
      const star = (by: Person, given: boolean) =>
        popularity.setStar({ containerId: place.id, given, by: by.writer })
      const stars = async () => (await catalog.containerById(place.id, null, at())).value?.stars
      await Promise.all([star(bob, true), star(bob, true), star(who, true)])
      expect(await stars()).toBe(2)
      const { standing, value } = await popularity.starred(bob.viewer, at())
      expect(standing?.userName).toBe('bob')
      expect(value).toEqual([
        { entity: 'alice', collection: 'c', container: 'box', stars: 2, starredAt: at() },
      ])
      await star(who, false)
      await star(who, false)
      expect(await stars()).toBe(1)

      const path = { entity: 'alice', collection: 'c', container: null }
      await catalog.setPrivate(path, true, { operator: 'cli:test', now: at() })
      expect((await popularity.starred(bob.viewer, at())).value).toEqual([])
      await expectRefused(world, 'denied', () => star(bob, false))
      const none = { containerId: newId(), given: true, by: bob.writer }
      await expectRefused(world, 'not_found', () => popularity.setStar(none))
      await star(who, true)
      await world.database.tokens.revoke(who.tokenId, operator())
      await expectRefused(world, 'denied', () => star(who, false))
    })

    test('pulls are counted by the week, and weeks forgotten', async (world) => {
      const { catalog, popularity } = world.database
      const { place } = await alice(world)
      const week = (number: number) => at(number * 7 * 24 * 60)
      const pull = (count: number, of: Date, containerId = place.id) =>
        catalog.countDownloads([{ containerId, count }], of)
      await Promise.all([pull(1, week(1)), pull(2, week(1)), pull(5, week(2))])
      await pull(7, week(2), newId())
      const weeks = (since: number) => popularity.weeks(place.id, week(since))
      expect(await weeks(0)).toEqual([
        { week: week(1), count: 3 },
        { week: week(2), count: 5 },
      ])
      expect(await weeks(2)).toHaveLength(1)
      await popularity.forgetWeeks(week(2))
      expect(await weeks(0)).toEqual([{ week: week(2), count: 5 }])
      expect((await catalog.containerById(place.id, null, at())).value?.downloads).toBe(8)
    })
  })
}
