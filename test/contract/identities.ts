/** What every Database must do with identities that other issuers vouch for (R35). */
import { expect } from 'vitest'
import type { UsersBook } from '../../src/ports.ts'
import { operator } from '../fixtures/operator.ts'
import { at, newId, type World } from './database.ts'

type Test = (title: string, run: (world: World) => Promise<void>, needsRaw?: boolean) => void
type Identity = Parameters<UsersBook['vouch']>[0]

export function describeIdentities(test: Test): void {
  let count = 0
  /** An identity of its own, unless the test says whose. */
  function identityOf({ token, grant, ...rest }: Partial<Identity> = {}): Identity {
    count += 1
    const userId = rest.userId ?? newId()
    return {
      userId,
      name: `oidc:${userId.slice(12)}`,
      subject: `https://issuer.test|repo:${userId}`,
      token: token ?? {
        id: newId(),
        name: 'ci',
        scopes: ['pull', 'push'],
        createdAt: at(),
        expiresAt: at(10),
      },
      grant: grant ?? { id: newId(), collection: 'lab/tools', level: 2 },
      now: at(),
      ...rest,
    }
  }

  /** Collections lab/tools and lab/secret, and their owner. */
  async function lab(world: World) {
    const owner = await world.person('lab')
    const tools = await world.container(owner, 'lab/tools/bwa')
    const secret = await world.container(owner, 'lab/secret/bwa', { collectionPrivate: true })
    return { owner, tools: tools.collectionId, secret: secret.collectionId }
  }

  const rowsOf = async ({ raw }: World, sql: string) => (await raw?.(sql)) ?? []
  const grantsOf = (world: World, { userId }: Identity) =>
    rowsOf(world, `SELECT collection_id, level FROM grants WHERE user_id = '${userId}'`)

  test('an identity becomes a robot with one grant and a bound token', async (world) => {
    await lab(world)
    const { users, tokens, catalog } = world.database
    const identity = identityOf()
    const before = world.trips().length
    expect(await users.vouch(identity)).toBe('ok')
    expect(world.trips().slice(before)).toMatchObject([{ kind: 'write' }])
    expect(await users.byName(identity.name)).toMatchObject({
      id: identity.userId,
      name: identity.name,
      disabled: false,
    })
    const viewer = { tokenId: identity.token.id, userId: identity.userId, scopes: [] }
    expect(await tokens.standing(viewer, at(9))).toMatchObject({
      userId: identity.userId,
      scopes: ['pull', 'push'],
    })
    expect(await tokens.standing(viewer, at(10))).toBeNull()
    const none = await catalog.findEntity(identity.name, world.root.viewer, at())
    expect(none.value).toBeNull()
  })

  test(
    'its rows say what it is, and twice is once',
    async (world) => {
      const { tools } = await lab(world)
      const identity = identityOf()
      const again = { ...identity, grant: { ...identity.grant, id: newId() } }
      const { users } = world.database
      const all = await Promise.all([users.vouch(identity), users.vouch(again)])
      for (const one of [...all, await users.vouch(again)]) expect(one).toBe('ok')
      expect(
        await rowsOf(
          world,
          `SELECT role, robot, staff, disabled, subject FROM users WHERE id = '${identity.userId}'`,
        ),
      ).toEqual([{ role: 'user', robot: 1, staff: 0, disabled: 0, subject: identity.subject }])
      expect(await grantsOf(world, identity)).toEqual([{ collection_id: tools, level: 2 }])
      expect(
        await rowsOf(
          world,
          `SELECT id, collection_id, container_id, scopes FROM tokens WHERE user_id = '${identity.userId}'`,
        ),
      ).toEqual([
        { id: identity.token.id, collection_id: tools, container_id: '', scopes: 'pull push' },
      ])
      expect(
        await rowsOf(
          world,
          `SELECT actor, action, object, name, detail, outcome FROM audit WHERE actor_id = '${identity.userId}'`,
        ),
      ).toEqual([
        {
          actor: identity.name,
          action: 'token.vouch',
          object: `token ${identity.token.id}`,
          name: identity.subject,
          detail: 'pull push in lab/tools',
          outcome: 'done',
        },
      ])
    },
    true,
  )

  test(
    'the grant of another rule replaces the former one, and nobody else',
    async (world) => {
      const { tools, secret } = await lab(world)
      const { users } = world.database
      const [one, other] = [identityOf(), identityOf()]
      await users.vouch(one)
      await users.vouch(other)
      const now = (collection: string, level: 1 | 2) =>
        users.vouch(
          identityOf({
            userId: one.userId,
            grant: { id: newId(), collection, level },
          }),
        )
      expect(await now('lab/tools', 1)).toBe('ok')
      expect(await grantsOf(world, one)).toEqual([{ collection_id: tools, level: 1 }])
      expect(await now('lab/secret', 2)).toBe('ok')
      expect(await grantsOf(world, one)).toEqual([{ collection_id: secret, level: 2 }])
      expect(await grantsOf(world, other)).toEqual([{ collection_id: tools, level: 2 }])
    },
    true,
  )

  test('where there is no such collection, nothing is made', async (world) => {
    await lab(world)
    const { users } = world.database
    for (const collection of ['lab/other', 'other/tools', 'lab/tool', 'tools/lab']) {
      const identity = identityOf({ grant: { id: newId(), collection, level: 2 } })
      const before = await world.dump()
      expect(await users.vouch(identity)).toBe('no collection')
      expect(await world.dump()).toEqual(before)
    }
  })

  for (const [what, change] of [
    ['disabled', 'disabled = 1'],
    ['deleted', 'deleted_at = 1'],
    ["another subject's", "subject = 'https://issuer.test|other'"],
    ['a user of ours', 'subject = NULL'],
  ] as const)
    test(
      `a user who is ${what} is refused, with nothing changed`,
      async (world) => {
        await lab(world)
        const { users } = world.database
        const identity = identityOf()
        await users.vouch(identity)
        await rowsOf(world, `UPDATE users SET ${change} WHERE id = '${identity.userId}'`)
        const before = await world.dump()
        const next = identityOf({
          userId: identity.userId,
          grant: { id: newId(), collection: 'lab/secret', level: 2 },
        })
        for (const again of [identity, next]) expect(await users.vouch(again)).toBe('disabled')
        expect(await world.dump()).toEqual(before)
        expect(await grantsOf(world, identity)).toHaveLength(1)
      },
      true,
    )

  test('a token that was revoked stays so, whoever vouches again', async (world) => {
    await lab(world)
    const { users, tokens } = world.database
    const identity = identityOf()
    await users.vouch(identity)
    await tokens.revoke(identity.token.id, operator(at(1)))
    expect(await users.vouch(identity)).toBe('ok')
    const viewer = { tokenId: identity.token.id, userId: identity.userId, scopes: [] }
    expect(await tokens.standing(viewer, at(2))).toBeNull()
  })

  test('rows of its tokens that ended long ago are forgotten, and no others', async (world) => {
    const { owner } = await lab(world)
    const { users, tokens } = world.database
    const first = identityOf()
    await users.vouch(first)
    const next = async (minutes: number) => {
      const identity = identityOf({ userId: first.userId, now: at(minutes) })
      await users.vouch({
        ...identity,
        token: { ...identity.token, createdAt: at(minutes), expiresAt: at(minutes + 10) },
      })
      return identity.token.id
    }
    const second = await next(60)
    const idsOf = async (userId: string) => (await tokens.listFor(userId)).map(({ id }) => id)
    expect(await idsOf(first.userId)).toEqual([first.token.id, second])
    const third = await next(60 * 24 + 11)
    expect(await idsOf(first.userId)).toEqual([second, third])
    expect(await idsOf(owner.user.id)).toEqual([owner.tokenId])
  })

  test(
    'a collection that is made anew is not the one that a token is bound to',
    async (world) => {
      const { tools } = await lab(world)
      const { users } = world.database
      const identity = identityOf()
      await users.vouch(identity)
      await rowsOf(world, `UPDATE collections SET name = 'former' WHERE id = '${tools}'`)
      expect(await users.vouch(identity)).toBe('no collection')
    },
    true,
  )

  test('nothing of it is exported: it comes back by itself', async (world) => {
    await lab(world)
    const { users, exports } = world.database
    const identity = identityOf()
    await users.vouch(identity)
    const idsOf = async (kind: 'user' | 'token') =>
      (await exports.rows(kind, '', 1000)).rows.map((row) => ('id' in row ? row.id : ''))
    expect(await idsOf('user')).not.toContain(identity.userId)
    expect(await idsOf('user')).toContain(world.root.user.id)
    expect(await idsOf('token')).not.toContain(identity.token.id)
    expect(await idsOf('token')).toContain(world.root.tokenId)
  })
}
