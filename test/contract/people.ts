/** What every Database must do with accounts, robots, tokens and whose an entity is (R14, R38). */
import { expect } from 'vitest'
import { SCOPES, type Role } from '../../src/core/model.ts'
import type { Actor, Writer } from '../../src/ports.ts'
import { at, digestOf, newId, type World } from './database.ts'

type Test = (title: string, run: (world: World) => Promise<void>, needsRaw?: boolean) => void
type Person = Awaited<ReturnType<World['person']>>

export function describePeople(test: Test): void {
  const CLI: Actor = { operator: 'cli:tester', now: at() }
  const rows = async ({ raw }: World, sql: string) => (await raw?.(sql)) ?? []
  const actions = async (world: World) =>
    (await rows(world, 'SELECT action, actor, name, detail FROM audit ORDER BY seq')).map((row) =>
      [row['action'], row['actor'], row['name'], row['detail']].join(' '),
    )

  /** The same with a token that may manage what is theirs. */
  async function withPower(world: World, who: Person): Promise<Person> {
    return world.token(who.user, SCOPES)
  }
  const draft = (name: string, role: Role = 'user', managerId: string | null = null) => ({
    id: newId(),
    entityId: newId(),
    name,
    role,
    managerId,
  })
  const tokenFor = (userId: string) => ({
    id: newId(),
    userId,
    name: 'made',
    scopes: ['pull' as const],
    createdAt: at(),
    expiresAt: at(60),
    collectionId: '',
    containerId: '',
  })
  const denied = { code: 'denied' }
  const conflict = { code: 'conflict' }

  test('only administrators add people, and a name is given once (R38)', async (world) => {
    const { people } = world.database
    const alice = await withPower(world, await world.person('alice'))
    await expect(people.add(draft('bob'), alice.writer)).rejects.toMatchObject(denied)
    const lying: Writer = { ...alice.writer, admin: true, manages: true }
    await expect(people.add(draft('bob'), lying)).rejects.toMatchObject(denied)
    const bob = await people.add(draft('bob', 'staff'), world.root.writer)
    expect(bob).toMatchObject({ name: 'bob', role: 'staff', manager: null, deletedAt: null })
    await expect(people.add(draft('bob'), CLI)).rejects.toMatchObject(conflict)
    expect(await people.find('bob', null, at())).toEqual({ standing: null, value: bob })
    expect((await people.list()).map(({ name }) => name)).toEqual(['alice', 'bob', 'root'])
  })

  test('robots belong to who makes them, and own no entity', async (world) => {
    const { people, catalog } = world.database
    const alice = await withPower(world, await world.person('alice'))
    const bob = await withPower(world, await world.person('bob'))
    const ci = draft('ci', 'robot', alice.user.id)
    await expect(people.add(ci, bob.writer)).rejects.toMatchObject(denied)
    const narrow = await world.token(alice.user, ['pull', 'push'])
    await expect(people.add(ci, narrow.writer)).rejects.toMatchObject(denied)
    expect(await people.add(ci, alice.writer)).toMatchObject({ role: 'robot', manager: 'alice' })
    expect((await catalog.entityParent('ci', null, at())).value.entity).toBeNull()
    expect((await people.robots(bob.user.id)).length).toBe(0)
    expect(await people.robots(null)).toEqual(await people.robots(alice.user.id))

    const token = tokenFor(ci.id)
    await expect(people.issue(token, bob.writer)).rejects.toMatchObject(denied)
    await people.issue(token, alice.writer)
    expect(await people.tokens(ci.id)).toMatchObject([{ id: token.id, place: null }])
    await expect(people.revoke(token.id, bob.writer)).rejects.toMatchObject(denied)
    await people.revoke(token.id, alice.writer)
    await people.revoke(token.id, alice.writer)
    expect((await people.tokens(ci.id))[0]?.revokedAt).toEqual(at())
    // a robot with every scope in its row manages nothing, not even itself
    const robot = await world.token({ ...alice.user, id: ci.id }, SCOPES)
    await expect(people.issue(tokenFor(ci.id), robot.writer)).rejects.toMatchObject(denied)
    await expect(people.remove(ci.id, null, robot.writer)).rejects.toMatchObject(denied)
    await expect(people.remove(ci.id, null, bob.writer)).rejects.toMatchObject(denied)
    await people.remove(ci.id, null, alice.writer)
    expect(await people.robots(null)).toEqual([])
  })

  test('a bound token makes and ends none but itself (R14)', async (world) => {
    const { people } = world.database
    const alice = await world.person('alice')
    const place = await world.container(alice, 'alice/c/n')
    const bound = {
      ...tokenFor(alice.user.id),
      scopes: [...SCOPES],
      collectionId: place.collectionId,
      containerId: place.id,
    }
    await people.issue(bound, CLI)
    expect((await people.tokens(alice.user.id)).at(-1)?.place).toBe('alice/c/n')
    const writer = { ...alice.writer, tokenId: bound.id }
    await expect(people.issue(tokenFor(alice.user.id), writer)).rejects.toMatchObject(denied)
    await expect(people.revoke(alice.tokenId, writer)).rejects.toMatchObject(denied)
    await people.revoke(bound.id, writer)
    const wrong = { ...tokenFor(alice.user.id), collectionId: newId(), containerId: '' }
    await expect(people.issue(wrong, CLI)).rejects.toMatchObject(conflict)
    const apart = { ...bound, id: newId(), collectionId: place.collectionId, containerId: newId() }
    await expect(people.issue(apart, CLI)).rejects.toMatchObject(conflict)
  })

  test(
    'a robot stands as long as who manages it is enabled (R25)',
    async (world) => {
      const { people, ended, tokens, catalog } = world.database
      const { alice, bob, ci } = await household(world)
      const path = { entity: 'bob', collection: 'owned', container: 'n' }
      const { value: place } = await catalog.findContainer(path, bob.viewer, at())
      const robot = { tokenId: newId(), userId: ci.id }
      const issued = { ...tokenFor(ci.id), id: robot.tokenId }
      await people.issue(issued, CLI)
      const viewer = { ...alice.viewer, ...robot }
      const writer = { ...alice.writer, ...robot }
      const image = (word: string) =>
        catalog.createImage({
          id: newId(),
          digest: digestOf(word),
          description: '',
          containerId: place?.container.id ?? '',
          writer,
        })
      expect(await tokens.standing(viewer, at())).toMatchObject({ userName: 'ci' })
      await image('before')
      await people.change(alice.user.id, { disabled: true }, CLI)
      expect(await tokens.standing(viewer, at())).toBeNull()
      await expect(image('meanwhile')).rejects.toMatchObject(denied)
      expect(await ended.since(at(-1))).toEqual(expect.arrayContaining([alice.user.id, ci.id]))
      await people.change(alice.user.id, { disabled: false }, CLI)
      expect(await tokens.standing(viewer, at())).toMatchObject({ userName: 'ci' })
      await image('after')
      for (const id of [alice.user.id, ci.id]) expect(await ended.since(at(-1))).not.toContain(id)
      // one that was disabled by itself stays so
      await people.change(ci.id, { disabled: true }, CLI)
      await people.change(alice.user.id, { disabled: true }, CLI)
      await people.change(alice.user.id, { disabled: false }, CLI)
      expect(await ended.since(at(-1))).toContain(ci.id)
      expect(await tokens.standing(viewer, at())).toBeNull()
    },
    true,
  )

  test('an enabled administrator is always left', async (world) => {
    const { people, ended } = world.database
    const { root } = world
    for (const change of [{ role: 'staff' }, { disabled: true }, { role: 'user' }] as const)
      await expect(people.change(root.user.id, change, CLI)).rejects.toMatchObject(conflict)
    await expect(people.remove(root.user.id, null, CLI)).rejects.toMatchObject(conflict)
    const vera = await world.person('vera', 'admin')
    const changed = await Promise.allSettled([
      people.change(root.user.id, { role: 'user' }, CLI),
      people.change(vera.user.id, { disabled: true }, CLI),
    ])
    expect(changed.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected'])
    expect(
      (await people.list()).filter(({ role, disabled }) => role === 'admin' && !disabled).length,
    ).toBe(1)

    const alice = await world.person('alice')
    await people.change(alice.user.id, { disabled: true }, CLI)
    expect(await ended.since(at(-1))).toContain(alice.user.id)
    expect(await world.database.tokens.standing(alice.viewer, at())).toBeNull()
    await people.change(alice.user.id, { disabled: false, role: 'staff' }, CLI)
    expect(await ended.since(at(-1))).not.toContain(alice.user.id)
    expect(await world.database.tokens.standing(alice.viewer, at())).toMatchObject({
      role: 'staff',
    })
    await expect(people.change(alice.user.id, {}, alice.writer)).rejects.toMatchObject(denied)
  })

  /** alice with an image, a robot, grants in places of bob and teams; all behind the port's back. */
  async function household(world: World) {
    const { people } = world.database
    const [alice, bob] = [await world.person('alice'), await world.person('bob')]
    const place = await world.container(alice, 'alice/c/n', { private: true })
    const image = await world.push(alice, place.id, 'hers', {
      description: 'needle',
      tag: 'latest',
    })
    const others = [
      await world.container(bob, 'bob/owned/n'),
      await world.container(bob, 'bob/read/n'),
    ]
    const ci = draft('ci', 'robot', alice.user.id)
    await people.add(ci, CLI)
    await people.issue(tokenFor(ci.id), CLI)
    const now = at().getTime()
    await rows(
      world,
      `INSERT INTO grants (id, collection_id, user_id, team_id, level, created_at) VALUES ('${newId()}', '${others[0]?.collectionId}', '${alice.user.id}', NULL, 3, ${now}), ('${newId()}', '${others[1]?.collectionId}', '${alice.user.id}', NULL, 1, ${now}), ('${newId()}', '${others[0]?.collectionId}', '${ci.id}', NULL, 2, ${now})`,
    )
    const teams = { lab: newId(), alone: newId(), shared: newId() }
    for (const [name, id] of Object.entries(teams))
      await rows(
        world,
        `INSERT INTO teams (id, name, description, open, created_at) VALUES ('${id}', '${name}', '', 0, ${now})`,
      )
    await rows(
      world,
      `INSERT INTO team_members (team_id, user_id, owner, joined_at) VALUES ('${teams.lab}', '${alice.user.id}', 1, 1), ('${teams.lab}', '${bob.user.id}', 0, 2), ('${teams.lab}', '${world.root.user.id}', 0, 3), ('${teams.alone}', '${alice.user.id}', 1, 1), ('${teams.shared}', '${alice.user.id}', 1, 1), ('${teams.shared}', '${world.root.user.id}', 1, 2), ('${teams.shared}', '${bob.user.id}', 0, 3)`,
    )
    return { alice, bob, ci, place, image, others, teams }
  }
  const state = async (world: World) => ({
    grants: await rows(
      world,
      `SELECT u.name || ' ' || c.name || ' ' || g.level AS line FROM grants g JOIN users u ON u.id = g.user_id JOIN collections c ON c.id = g.collection_id ORDER BY 1`,
    ).then((all) => all.map(({ line }) => line)),
    members: await rows(
      world,
      `SELECT t.name || ' ' || coalesce(u.name, '') || ' ' || coalesce(m.owner, '') AS line FROM teams t LEFT JOIN team_members m ON m.team_id = t.id LEFT JOIN users u ON u.id = m.user_id ORDER BY 1`,
    ).then((all) => all.map(({ line }) => line)),
    entities: await rows(
      world,
      `SELECT e.name || ' ' || u.name || ' ' || e.used AS line FROM entities e JOIN users u ON u.id = e.owner_id ORDER BY 1`,
    ).then((all) => all.map(({ line }) => line)),
  })

  test(
    'an account is handed over: entities, owned collections, robots and teams',
    async (world) => {
      const { people, tokens, catalog, ended } = world.database
      const { alice, bob, ci, image, place } = await household(world)
      await expect(people.remove(alice.user.id, alice.user.id, CLI)).rejects.toMatchObject(conflict)
      await expect(people.remove(alice.user.id, ci.id, CLI)).rejects.toMatchObject(conflict)
      await expect(people.remove(alice.user.id, newId(), CLI)).rejects.toMatchObject(conflict)
      await expect(people.remove(alice.user.id, bob.user.id, bob.writer)).rejects.toMatchObject(
        denied,
      )
      const herself = await withPower(world, alice)
      await people.remove(alice.user.id, bob.user.id, herself.writer)

      expect(await state(world)).toEqual({
        grants: ['bob owned 3', 'ci owned 2'],
        members: ['alone bob 1', 'lab bob 1', 'lab root 0', 'shared bob 1', 'shared root 1'],
        entities: ['alice bob 100', 'bob bob 0', 'root root 0'],
      })
      expect(await people.robots(bob.user.id)).toMatchObject([{ name: 'ci', disabled: false }])
      expect((await people.tokens(ci.id))[0]?.revokedAt).toBeNull()
      expect(await world.search(bob.viewer, 'needle')).toEqual([image.id])
      expect((await catalog.containerById(place.id, bob.viewer, at())).value?.ownerId).toBe(
        bob.user.id,
      )
      expect(await tokens.standing(alice.viewer, at())).toBeNull()
      expect(await ended.since(at(-1))).toEqual(
        expect.arrayContaining([alice.user.id, alice.tokenId]),
      )
      // R38: the name is reserved, and stays so while the entity holds something
      expect((await people.find('alice', null, at())).value?.deletedAt).toEqual(at())
      await expect(people.add(draft('alice'), CLI)).rejects.toMatchObject(conflict)
      await expect(people.free(alice.user.id, CLI)).rejects.toMatchObject(conflict)
      await expect(people.change(alice.user.id, { disabled: false }, CLI)).rejects.toMatchObject(
        conflict,
      )
      await expect(people.remove(alice.user.id, null, CLI)).rejects.toMatchObject(conflict)
      expect(await actions(world)).toContain('user.delete alice alice handed over to bob')
    },
    true,
  )

  test(
    'an account is removed with everything, and what others share stays',
    async (world) => {
      const { people, catalog, ended } = world.database
      const { alice, bob, ci, image } = await household(world)
      await people.remove(alice.user.id, null, CLI)
      expect(await state(world)).toEqual({
        grants: [],
        members: ['lab bob 1', 'lab root 0', 'shared bob 0', 'shared root 1'],
        entities: ['bob bob 0', 'root root 0'],
      })
      expect(await rows(world, 'SELECT * FROM holdings')).toEqual([])
      expect(await rows(world, 'SELECT id FROM images')).toEqual([])
      expect(await rows(world, 'SELECT rowid FROM search')).toEqual([])
      expect((await catalog.entityParent('alice', null, at())).value.entity).toBeNull()
      expect(await ended.since(at(-1))).toEqual(
        expect.arrayContaining([alice.user.id, ci.id, image.id]),
      )
      expect((await people.find('ci', null, at())).value).toMatchObject({ disabled: true })
      expect((await people.tokens(ci.id))[0]?.revokedAt).toEqual(at())
      // the sweep does the rest
      const marked = await world.database.blobs.markDying(at(), '', 100)
      expect(marked.last).not.toBeNull()
      expect(await rows(world, "SELECT state FROM blobs WHERE state = 'live'")).toEqual([])

      await expect(people.free(alice.user.id, bob.writer)).rejects.toMatchObject(denied)
      await people.free(alice.user.id, CLI)
      const second = await people.add(draft('alice'), CLI)
      expect(second.id).not.toBe(alice.user.id)
      expect(await people.tokens(second.id)).toEqual([])
      expect(await world.database.tokens.standing(alice.viewer, at())).toBeNull()
      expect(await actions(world)).toEqual(
        expect.arrayContaining([
          'user.delete cli:tester alice with everything',
          'user.free cli:tester alice ',
          'user.create cli:tester alice user',
        ]),
      )
    },
    true,
  )

  test(
    'keys of an account that ends are nobody’s',
    async (world) => {
      const { people } = world.database
      const alice = await world.person('alice')
      await rows(
        world,
        `INSERT INTO keys (fingerprint, revision, owner_id, added_at, updated_at, facts, armor) VALUES ('${'A'.repeat(40)}', 1, '${alice.user.id}', 0, 0, '{}', '')`,
      )
      await people.remove(alice.user.id, null, CLI)
      expect(await rows(world, 'SELECT owner_id, revision FROM keys')).toEqual([
        { owner_id: null, revision: 1 },
      ])
    },
    true,
  )

  test('an entity passes to another person with all that is in it', async (world) => {
    const { people, catalog } = world.database
    const [alice, bob] = [await world.person('alice'), await world.person('bob')]
    const place = await world.container(alice, 'alice/c/n', { private: true })
    const { id } = await world.push(alice, place.id, 'image', { description: 'needle' })
    const change = { entityId: place.entityId, from: alice.user.id, to: bob.user.id }
    await expect(people.transfer(change, alice.writer)).rejects.toMatchObject(denied)
    const thief = await withPower(world, bob)
    await expect(people.transfer(change, thief.writer)).rejects.toMatchObject(denied)
    const owner = await withPower(world, alice)
    const stale = { ...change, from: bob.user.id }
    await expect(people.transfer(stale, owner.writer)).rejects.toMatchObject(conflict)
    const nobody = { ...change, to: newId() }
    await expect(people.transfer(nobody, owner.writer)).rejects.toMatchObject(conflict)
    await people.transfer(change, owner.writer)
    expect(await world.search(alice.viewer, 'needle')).toEqual([])
    expect(await world.search(bob.viewer, 'needle')).toEqual([id])
    expect((await catalog.containerById(place.id, alice.viewer, at())).value).toMatchObject({
      level: 0,
      ownerId: bob.user.id,
    })
    await expect(people.transfer(change, owner.writer)).rejects.toMatchObject(denied)
    await world.push(bob, place.id, 'more')
  })

  test('a name does not bring back what somebody else was given (R38)', async (world) => {
    const { people, catalog } = world.database
    const place = await world.container(world.root, 'lab/c/n')
    const bob = await world.person('bob')
    await people.transfer(
      { entityId: place.entityId, from: world.root.user.id, to: bob.user.id },
      CLI,
    )
    const lab = await people.add(draft('lab'), CLI)
    const { value } = await catalog.entityParent('lab', null, at())
    expect(value.entity?.ownerId).toBe(bob.user.id)
    expect(value.entity?.ownerId).not.toBe(lab.id)
  })
}
