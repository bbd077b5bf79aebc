/** What every Database must do with teams, invitations, grants, freezing and deletion. */
import { describe, expect } from 'vitest'
import type { Level } from '../../src/core/model.ts'
import { isRegistryError } from '../../src/errors.ts'
import { at, byOperator, digestOf, expectRefused, newId, outcome, type World } from './database.ts'

type Test = (title: string, run: (world: World) => Promise<void>, needsRaw?: boolean) => void
type Person = Awaited<ReturnType<World['person']>>

/** A team of `owner`. */
async function teamOf(world: World, owner: Person, name = 'lab', open = false) {
  const id = newId()
  await world.database.teams.create({
    id,
    name,
    description: '',
    open,
    owner: owner.user.name,
    anybody: true,
    by: owner.writer,
  })
  return id
}

/** alice's private collection with an image, and her team with bob in it, which may read there. */
async function shared(world: World) {
  const { teams, grants } = world.database
  const alice = await world.person('alice')
  const bob = await world.person('bob')
  const place = await world.container(alice, 'alice/c/n', { collectionPrivate: true })
  const image = await world.push(alice, place.id, 'needle', { tag: 'v1', description: 'needle' })
  const teamId = await teamOf(world, alice)
  const to = async (whom: { user: string } | { teamId: string }, level: Level, minutes = 0) =>
    grants.set({
      id: newId(),
      collectionId: place.collectionId,
      to: whom,
      level,
      by: { ...alice.writer, now: at(minutes) },
    })
  await teams.setMember({ teamId, user: 'bob', owner: false, by: alice.writer })
  await to({ teamId }, 1)
  const sees = () => world.search(bob.viewer, 'needle')
  const since = (minutes: number) => world.database.ended.since(at(minutes))
  const pair = `${bob.user.id}:${place.collectionId}`
  return { alice, bob, place, image, teamId, to, sees, since, pair }
}

export function describeTeams(test: Test): void {
  describe('teams', () => {
    test('keep an owner, whoever leaves', async (world) => {
      const { teams } = world.database
      const alice = await world.person('alice')
      const bob = await world.person('bob')
      const robot = await world.person('robot', 'robot')
      const teamId = await teamOf(world, alice)
      const by = alice.writer
      const set = (user: string, owner: boolean, who = by) =>
        teams.setMember({ teamId, user, owner, by: who })
      const remove = (user: string, who = by) => teams.removeMember({ teamId, user, by: who })
      for (const last of [() => set('alice', false), () => remove('alice')])
        await expectRefused(world, 'conflict', last)
      await expectRefused(world, 'not_found', () => set('nobody', false))
      await expectRefused(world, 'not_found', () => set('robot', true))
      await expectRefused(world, 'denied', () => set('bob', false, bob.writer))
      await set('robot', false)
      await set('bob', false)
      await expectRefused(world, 'denied', () => set('bob', true, bob.writer))
      await set('bob', true)
      expect(await remove('alice', bob.writer)).toBe(true)
      expect(await remove('alice', bob.writer)).toBe(false)
      await expectRefused(world, 'denied', () => set('alice', true))
      await expectRefused(world, 'denied', () => teams.delete(teamId, robot.writer))
      const { value } = await teams.find('lab', world.root.viewer, at())
      expect(value?.members.map(({ user, role }) => [user, role])).toEqual([
        ['bob', 'owner'],
        ['robot', 'member'],
      ])
      await teams.delete(teamId, bob.writer)
      expect((await teams.find('lab', world.root.viewer, at())).value).toBeNull()
    })

    test('are listed for members, staff and, when open, for everybody', async (world) => {
      const { teams } = world.database
      const alice = await world.person('alice')
      const bob = await world.person('bob')
      const helper = await world.person('helper', 'staff', ['pull', 'admin'])
      await teamOf(world, alice, 'closed')
      const open = await teamOf(world, alice, 'open', true)
      const seen = async (who: Person | null) =>
        (await teams.list(who?.viewer ?? null, at())).value.map((team) => [team.name, team.role])
      expect(await seen(null)).toEqual([])
      expect(await seen(bob)).toEqual([['open', null]])
      expect(await seen(helper)).toEqual([
        ['closed', null],
        ['open', null],
      ])
      expect(await seen(alice)).toEqual([
        ['closed', 'owner'],
        ['open', 'owner'],
      ])
      await teams.join(open, bob.writer)
      await teams.join(open, bob.writer)
      expect(await seen(bob)).toEqual([['open', 'member']])
      await teams.change({ teamId: open, description: null, open: false, by: alice.writer })
      await expectRefused(world, 'denied', () => teams.join(open, helper.writer))
      const bound = await world.token(alice.user, undefined, { collectionId: newId() })
      expect(await seen(bound)).toEqual([])
      await expectRefused(world, 'denied', () => teams.delete(open, bound.writer))
      await expectRefused(world, 'conflict', async () => void (await teamOf(world, bob, 'closed')))
    })

    test('invitations work once, while who made them owns the team', async (world) => {
      const { teams } = world.database
      const alice = await world.person('alice')
      const people = [await world.person('bob'), await world.person('carol')]
      const teamId = await teamOf(world, alice)
      const invite = async (word: string, by: Parameters<typeof teams.invite>[0]['by']) => {
        const id = newId()
        await teams.invite({ id, teamId, hash: digestOf(word), expiresAt: at(10), by })
        return id
      }
      await invite('first', alice.writer)
      const raced = await Promise.allSettled(
        people.map(({ writer }) => teams.accept(digestOf('first'), writer)),
      )
      const answers = raced.map((each) => (each.status === 'fulfilled' ? each.value : 'failed'))
      expect(answers.toSorted()).toEqual(['lab', null].toSorted())
      const [winner, loser] = answers[0] === 'lab' ? people : people.toReversed()
      if (winner === undefined || loser === undefined) throw new Error('one of two came in')
      expect(await teams.accept(digestOf('first'), winner.writer)).toBeNull()

      const works = async (word: string, minutes = 1) =>
        teams.accept(digestOf(word), { ...loser.writer, now: at(minutes) })
      await invite('late', alice.writer)
      expect(await works('late', 10)).toBeNull()
      const withdrawn = await invite('withdrawn', byOperator(at()))
      const revoke = { id: withdrawn, teamId, by: alice.writer }
      expect(await teams.revokeInvitation(revoke)).toBe(true)
      expect(await teams.revokeInvitation(revoke)).toBe(false)
      expect(await works('withdrawn')).toBeNull()
      expect(await works('never')).toBeNull()

      await teams.setMember({
        teamId,
        user: winner.user.name,
        owner: true,
        by: alice.writer,
      })
      await invite('of an owner who goes', winner.writer)
      await expectRefused(world, 'conflict', () =>
        teams.accept(digestOf('of an owner who goes'), alice.writer),
      )
      await teams.removeMember({ teamId, user: winner.user.name, by: alice.writer })
      expect(await works('of an owner who goes')).toBeNull()
      await expectRefused(world, 'denied', async () => void (await invite('x', winner.writer)))
      await invite('good', byOperator(at()))
      expect((await teams.invitations(teamId, at(1))).map((each) => each.createdBy)).toEqual([
        'alice',
        null,
      ])
      expect(await works('good')).toBe('lab')
    })
  })

  describe('grants', () => {
    test('count at once, and the tickets of who loses them end (R25)', async (world) => {
      const { teams, ended } = world.database
      const { alice, image, teamId, to, sees, since, pair } = await shared(world)
      expect(await sees()).toEqual([image.id])
      expect(await ended.since(new Date(0))).toEqual([])
      const leave = (minutes: number) =>
        teams.removeMember({ teamId, user: 'bob', by: { ...alice.writer, now: at(minutes) } })
      const enter = (minutes: number) =>
        teams.setMember({
          teamId,
          user: 'bob',
          owner: false,
          by: { ...alice.writer, now: at(minutes) },
        })
      await leave(1)
      expect(await sees()).toEqual([])
      expect(await since(0)).toEqual([pair])
      // back again: new tickets must count
      await enter(2)
      expect(await sees()).toEqual([image.id])
      expect(await since(0)).toEqual([])
      // whoever has it in another way loses nothing
      await to({ user: 'bob' }, 2, 3)
      await leave(4)
      expect(await sees()).toEqual([image.id])
      expect(await since(0)).toEqual([])
      await to({ user: 'bob' }, 1, 5)
      expect(await since(0)).toEqual([])
      await to({ user: 'bob' }, 0, 6)
      expect(await sees()).toEqual([])
      expect(await since(5)).toEqual([pair])
      await enter(7)
      await to({ teamId }, 0, 8)
      expect(await since(7)).toEqual([pair])
      await to({ teamId }, 3, 9)
      expect(await since(0)).toEqual([])
      await teams.delete(teamId, { ...alice.writer, now: at(10) })
      expect(await since(9)).toEqual([pair])
      expect(await sees()).toEqual([])
    })

    test('are given by owners only, and to who exists', async (world) => {
      const { grants } = world.database
      const { alice, bob, place, to } = await shared(world)
      await to({ user: 'bob' }, 2)
      const { collectionId } = place
      const give = (who: Person, whom: { user: string } | { teamId: string }) => () =>
        grants.set({ id: newId(), collectionId, to: whom, level: 3, by: who.writer })
      await expectRefused(world, 'denied', give(bob, { user: 'bob' }))
      await expectRefused(world, 'not_found', give(alice, { user: 'nobody' }))
      await expectRefused(world, 'not_found', give(alice, { teamId: newId() }))
      expect(
        (await grants.list(collectionId)).map(({ user, team, level }) => [user, team, level]),
      ).toEqual([
        ['bob', null, 2],
        [null, 'lab', 1],
      ])
      await to({ user: 'bob' }, 3)
      await give(bob, { user: 'alice' })()
      const gone = grants.set({
        id: newId(),
        collectionId: newId(),
        to: { user: 'bob' },
        level: 1,
        by: byOperator(at()),
      })
      expect(await outcome(gone)).toBe('not_found')
    })
  })

  describe('frozen', () => {
    test('tags stay where they are; new ones are taken', async (world) => {
      const { catalog } = world.database
      const { alice, place, image } = await shared(world)
      const { writer } = alice
      const other = await world.push(alice, place.id, 'other')
      const freeze = (tag: string | null, frozen: boolean, arch: string | null = null) =>
        catalog.setFrozen({ containerId: place.id, tag, arch, frozen, by: writer })
      const moved = () => world.tag(alice, place.id, other.id, 'v1')
      const attempts = [
        moved,
        () => catalog.deleteTag(place.id, 'amd64', 'v1', writer),
        () => catalog.deleteImage({ imageId: image.id, containerId: place.id }, writer),
        () => catalog.deleteContainer(place.id, writer),
        () => catalog.deleteCollection(place.collectionId, writer),
      ]
      expect(await freeze('none', true)).toBe(false)
      expect(await freeze('v1', true, 'arm64')).toBe(false)
      for (const tag of ['v1', null]) {
        expect(await freeze(tag, true)).toBe(true)
        for (const attempt of attempts) await expectRefused(world, 'denied', attempt)
        const refusal: unknown = await moved().catch((error: unknown) => error)
        expect(isRegistryError(refusal) && refusal.subject).toBe('tag')
        await world.tag(alice, place.id, image.id, 'v1')
        await world.tag(alice, place.id, other.id, `new-${String(tag)}`)
        await world.push(alice, place.id, `more ${String(tag)}`, { tag: `m-${String(tag)}` })
        expect(await freeze(tag, false)).toBe(true)
      }
      await moved()
      expect(await catalog.deleteTag(place.id, 'amd64', 'v1', writer)).toBe(true)
    })

    test('is for owners only', async (world) => {
      const { catalog } = world.database
      const { bob, place, to } = await shared(world)
      await to({ user: 'bob' }, 2)
      for (const tag of [null, 'v1'])
        await expectRefused(world, 'denied', () =>
          catalog.setFrozen({
            containerId: place.id,
            tag,
            arch: null,
            frozen: true,
            by: bob.writer,
          }),
        )
      const path = { entity: 'alice', collection: 'c', container: null }
      await expectRefused(world, 'denied', () => catalog.setPrivate(path, false, bob.writer))
      await expectRefused(world, 'denied', () => catalog.deleteContainer(place.id, bob.writer))
      await expectRefused(world, 'denied', () =>
        catalog.deleteCollection(place.collectionId, bob.writer),
      )
    })
  })

  describe('deletion of containers and collections', () => {
    for (const what of ['container', 'collection'] as const)
      test(`a ${what} goes with everything in it`, async (world) => {
        const { catalog, ended } = world.database
        const { alice, place, image, sees } = await shared(world)
        const remove = () =>
          what === 'container'
            ? catalog.deleteContainer(place.id, alice.writer)
            : catalog.deleteCollection(place.collectionId, alice.writer)
        const used = async () =>
          (await catalog.findEntity('alice', world.root.viewer, at())).value?.entity.used
        expect(await used()).toBe(100)
        expect(await remove()).toBe(true)
        expect(await used()).toBe(0)
        expect(await sees()).toEqual([])
        expect(await ended.since(new Date(0))).toEqual([image.id])
        expect(await world.image(image.id)).toBeNull()
        expect((await catalog.containerById(place.id, world.root.viewer, at())).value).toBeNull()
        expect(
          (await catalog.collectionById(place.collectionId, world.root.viewer, at())).value !==
            null,
        ).toBe(what === 'container')
        expect(await remove()).toBe(false)
        // the name is free, and means nothing of what it meant (R38)
        const again = await world.container(alice, 'alice/c/n', { collectionPrivate: true })
        expect(again.id).not.toBe(place.id)
      })
  })
}
