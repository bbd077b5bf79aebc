/** What every Database must do with share links (R61): one statement says whether a link is good. */
import { describe, expect } from 'vitest'
import type { Actor } from '../../src/ports.ts'
import { at, expectRefused, newId, outcome, type World } from './database.ts'
import { operator } from '../fixtures/operator.ts'

type Test = (title: string, run: (world: World) => Promise<void>, needsRaw?: boolean) => void
type Person = Awaited<ReturnType<World['person']>>

export function describeShares(test: Test): void {
  async function scene(world: World, isPrivate = true) {
    const alice = await world.person('alice')
    const place = await world.container(alice, 'alice/c/box', { collectionPrivate: isPrivate })
    const image = await world.push(alice, place.id, 'shared', { tag: 'latest' })
    return { alice, place, image }
  }
  async function make(
    { database }: World,
    imageId: string,
    who: Person,
    options: { count?: number | null; by?: Actor } = {},
  ) {
    const link = { id: newId(), hash: `hash ${newId()}` }
    await database.shares.create({
      ...link,
      imageId,
      note: 'for Bob',
      createdBy: who.user.id,
      expiresAt: at(60),
      count: options.count ?? null,
      by: options.by ?? who.writer,
    })
    return link
  }
  const good = async ({ database }: World, { hash }: { hash: string }, now = at(1)) => {
    const looked = await database.shares.look(hash, now)
    const taken = await database.shares.take(hash, now)
    expect(taken).toEqual(looked)
    return taken !== null
  }

  describe('share links', () => {
    test('hand out their image, as often as they may and no oftener', async (world) => {
      const { shares } = world.database
      const { alice, place, image } = await scene(world)
      const link = await make(world, image.id, alice, { count: 3 })
      const shared = {
        id: link.id,
        creatorId: alice.user.id,
        imageId: image.id,
        digest: image.digest,
        collectionId: place.collectionId,
        containerId: place.id,
        containerName: 'box',
        key: image.upload.blobKey,
        size: 100,
      }
      expect(await shares.look(link.hash, at(1))).toEqual(shared)
      const ten = Array.from({ length: 10 }, () => shares.take(link.hash, at(1)))
      const taken = (await Promise.all(ten)).filter((answer) => answer !== null)
      expect(taken).toEqual([shared, shared, shared])
      expect(await shares.look(link.hash, at(1))).toBeNull()
      const [listed] = await shares.list({ containerId: place.id }, alice.viewer, at())
      expect(listed).toMatchObject({ id: link.id, left: 0, used: 3, level: 3, note: 'for Bob' })

      const any = await make(world, image.id, alice)
      for (let i = 0; i < 5; i++) expect(await good(world, any)).toBe(true)
      expect((await shares.find(any.id, null, at())).value).toMatchObject({ left: null, used: 5 })
      expect(await shares.take('unknown', at())).toBeNull()
    })

    test('are over at their time, and when they are revoked', async (world) => {
      const { shares, ended } = world.database
      const { alice, image } = await scene(world)
      const link = await make(world, image.id, alice)
      expect(await good(world, link, at(59))).toBe(true)
      expect(await good(world, link, at(60))).toBe(false)
      await shares.revoke(link.id, { ...alice.writer, now: at(2) })
      await shares.revoke(link.id, { ...alice.writer, now: at(3) })
      expect(await good(world, link)).toBe(false)
      expect(await ended.since(at(1))).toContain(link.id)
      expect((await shares.find(link.id, null, at())).value?.revokedAt).toEqual(at(2))
      await shares.prune(at(2))
      expect((await shares.find(link.id, null, at())).value).not.toBeNull()
      await shares.prune(at(3))
      expect((await shares.find(link.id, null, at())).value).toBeNull()
    })

    test('die with their image, and with its bytes', async (world) => {
      const { catalog } = world.database
      const { alice, place, image } = await scene(world)
      const link = await make(world, image.id, alice)
      const other = await world.push(alice, place.id, 'other')
      const second = await make(world, other.id, alice)
      await catalog.deleteImage({ imageId: image.id, containerId: place.id }, alice.writer)
      expect(await good(world, link)).toBe(false)
      expect(await good(world, second)).toBe(true)
      await catalog.markLost(other.upload.blobKey)
      expect(await good(world, second)).toBe(false)
    })

    test(
      'die when who made them may not read the image any more, and not before',
      async (world) => {
        const { alice, place, image } = await scene(world)
        const bob = await world.person('bob')
        const boss = await world.person('boss', 'admin')
        await world.raw?.(
          `INSERT INTO grants (id, collection_id, user_id, level, created_at) VALUES ('${newId()}', '${place.collectionId}', '${bob.user.id}', 2, 0)`,
        )
        const his = await make(world, image.id, bob)
        const bosses = await make(world, image.id, boss)
        const hers = await make(world, image.id, alice)
        const all = async () => [
          await good(world, his),
          await good(world, bosses),
          await good(world, hers),
        ]
        expect(await all()).toEqual([true, true, true])
        await world.raw?.(`UPDATE grants SET level = 1`)
        expect(await all()).toEqual([true, true, true])
        await world.raw?.(`DELETE FROM grants`)
        expect(await all()).toEqual([false, true, true])
        await world.raw?.(`UPDATE users SET role = 'user' WHERE id = '${boss.user.id}'`)
        expect(await all()).toEqual([false, false, true])
        // what everybody may read, they may as well
        const path = { entity: 'alice', collection: 'c', container: null }
        await world.database.catalog.setPrivate(path, false, { operator: 'cli:test', now: at() })
        expect(await all()).toEqual([true, true, true])
        await world.raw?.(`UPDATE users SET disabled = 1 WHERE id = '${alice.user.id}'`)
        expect(await all()).toEqual([true, true, false])
      },
      true,
    )

    test(
      'are made by who may push there, with a token that is not bound (R14)',
      async (world) => {
        const { tokens } = world.database
        const { alice, place, image } = await scene(world, false)
        const bob = await world.person('bob')
        const refused = (who: Person) => () => make(world, image.id, who)
        await expectRefused(world, 'denied', refused(bob))
        const grant = (level: number) =>
          world.raw?.(
            `INSERT OR REPLACE INTO grants (id, collection_id, user_id, level, created_at) VALUES ('bobs', '${place.collectionId}', '${bob.user.id}', ${level}, 0)`,
          )
        await grant(1)
        await expectRefused(world, 'denied', refused(bob))
        await grant(2)
        await make(world, image.id, bob)
        const bound = await world.token(alice.user)
        await world.raw?.(
          `UPDATE tokens SET collection_id = '${place.collectionId}' WHERE id = '${bound.tokenId}'`,
        )
        await expectRefused(world, 'denied', refused(bound))
        const record = await world.record(alice, place.id, 'without bytes')
        await expectRefused(world, 'not_found', () => make(world, record.id, alice))
        await make(world, image.id, alice, { by: { operator: 'cli:ann', now: at() } })
        await tokens.revoke(alice.tokenId, operator())
        await expectRefused(world, 'denied', refused(alice))
      },
      true,
    )

    test(
      'are revoked by who made them and by owners',
      async (world) => {
        const { shares } = world.database
        const { alice, place, image } = await scene(world)
        const [bob, carol] = [await world.person('bob'), await world.person('carol')]
        for (const { user } of [bob, carol])
          await world.raw?.(
            `INSERT INTO grants (id, collection_id, user_id, level, created_at) VALUES ('${newId()}', '${place.collectionId}', '${user.id}', 2, 0)`,
          )
        const links = [await make(world, image.id, bob), await make(world, image.id, bob)]
        for (const { id } of links) {
          expect(await outcome(shares.revoke(id, carol.writer))).toBe('denied')
          expect(await good(world, links[0]!)).toBe(true)
        }
        // who made it may take it back even when they have lost their access
        await world.raw?.(`DELETE FROM grants`)
        await shares.revoke(links[0]!.id, bob.writer)
        await shares.revoke(links[1]!.id, alice.writer)
        expect(await outcome(shares.revoke(newId(), world.root.writer))).toBe('not_found')
        expect(await shares.list({ creatorId: bob.user.id }, bob.viewer, at())).toMatchObject(
          links.map(() => ({ revokedAt: at(), creatorName: 'bob', level: 0 })),
        )
      },
      true,
    )
  })
}
