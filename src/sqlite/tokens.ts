/** Users, their tokens, ended ids and settings. */
import { and, eq, gt, isNull, lt, sql } from 'drizzle-orm'
import { RegistryError } from '../errors.ts'
import type { EndedBook, NewUser, SettingsBook, TokensBook, UsersBook } from '../ports.ts'
import { guarded } from './failure.ts'
import {
  audited,
  dropGuard,
  indexImages,
  p,
  text,
  standingQuery,
  unindexImages,
  viewerValues,
  writerValues,
} from './fragments.ts'
import { prepare, type Handle } from './handle.ts'
import { sqliteVouch } from './identities.ts'
import { tokenColumns, toStanding, toToken, toUser, userColumns } from './rows.ts'
import * as t from './schema.ts'

export function sqliteUsers(handle: Handle): UsersBook {
  const { db } = handle
  const ofEntity = sql`select oi.seq from entities oe join collections oc on oc.entity_id = oe.id join containers os on os.collection_id = oc.id join images oi on oi.container_id = os.id where oe.name = ${p('name')}`
  const oldestAdmin = sql`select id from users where role = 'admin' and disabled = 0 order by name = ${p('name')} desc, created_at, id limit 1`
  const q = {
    firstGuard: prepare(() =>
      db.insert(t.guard).values({
        first: sql`not exists (select 1 from users where role = 'admin' or name = ${p('name')})`,
      }),
    ),
    dropGuard: dropGuard(db),
    created: audited(db, {
      action: 'user.create',
      object: sql`'user ' || ${p('id')}`,
      name: p('name').getSQL(),
      detail: sql`case when ${p('staff')} then 'staff' when ${p('robot')} then 'robot' else ${p('role')} end`,
      when: sql`exists (select 1 from users where id = ${p('id')})`,
    }),
    claimed: audited(db, {
      action: 'admin.claim',
      object: sql`'token ' || ${p('tokenId')}`,
      name: sql`(select cu.name from tokens ct join users cu on cu.id = ct.user_id where ct.id = ${p('tokenId')})`,
      detail: p('scopes').getSQL(),
    }),
    insert: prepare(() =>
      db
        .insert(t.users)
        .values({
          id: p('id'),
          name: p('name'),
          role: p('role'),
          disabled: p('disabled'),
          createdAt: p('createdAt'),
          staff: p('staff'),
          robot: p('robot'),
          managerId: p('managerId'),
        })
        .onConflictDoNothing(),
    ),
    /** A user owns the entity of the same name: theirs from now on if it was there before. */
    entity: prepare(() =>
      db
        .insert(t.entities)
        .select(
          sql`select ${p('entityId')} as id, u.name as name, '' as description, u.id as owner_id, 0 as default_private, ${p('createdAt')} as created_at, ${p('createdAt')} as updated_at, null as quota, 0 as used from users u where u.id = ${p('id')} and u.robot = 0`,
        )
        .onConflictDoUpdate({ target: t.entities.name, set: { ownerId: sql`excluded.owner_id` } }),
    ),
    /** The owner's id is in the search index (R30), so an entity that passes is indexed anew. */
    unindex: unindexImages(db, ofEntity),
    index: indexImages(db, ofEntity),
    byName: prepare(() =>
      db
        .select(userColumns)
        .from(t.users)
        .where(eq(t.users.name, text('name'))),
    ),
    living: prepare(() =>
      db
        .select(userColumns)
        .from(t.users)
        .where(and(eq(t.users.name, text('name')), isNull(t.users.deletedAt))),
    ),
    list: prepare(() => db.select(userColumns).from(t.users).orderBy(t.users.name)),
    claimGuard: prepare(() =>
      db.insert(t.guard).values({
        first: sql`not exists (select 1 from settings where key = ${p('claim')})`,
        found: sql`exists (${oldestAdmin}) or not exists (select 1 from users where name = ${p('name')})`,
      }),
    ),
    claim: prepare(() => db.insert(t.settings).values({ key: p('claim'), value: p('tokenId') })),
    insertWithoutAdmin: prepare(() =>
      db
        .insert(t.users)
        .select(
          sql`select ${p('id')} as id, ${p('name')} as name, ${p('role')} as role, 0 as disabled, ${p('createdAt')} as created_at, 0 as staff, null as manager_id, 0 as robot, null as subject, null as deleted_at where not exists (${oldestAdmin})`,
        ),
    ),
    insertToken: prepare(() =>
      db
        .insert(t.tokens)
        .select(
          sql`select ${p('tokenId')} as id, (${oldestAdmin}) as user_id, ${p('tokenName')} as name, ${p('scopes')} as scopes, ${p('createdAt')} as created_at, ${p('expiresAt')} as expires_at, null as revoked_at, null as last_used_at, '' as collection_id, '' as container_id`,
        ),
    ),
    byToken: prepare(() =>
      db
        .select(userColumns)
        .from(t.users)
        .where(sql`id = (select user_id from tokens where id = ${p('tokenId')})`),
    ),
  }
  const row = ({ role, managerId, ...user }: NewUser) => ({
    ...user,
    role: role === 'admin' ? 'admin' : 'user',
    staff: role === 'staff' ? 1 : 0,
    robot: role === 'robot' ? 1 : 0,
    managerId: managerId ?? null,
    createdAt: user.createdAt.getTime(),
  })
  return {
    async create(user, by) {
      const values = { ...writerValues(by), ...row(user) }
      const [, , , , rows] = await handle.write(
        q.insert(values),
        q.entity(values),
        q.unindex(values),
        q.index(values),
        q.byName(values),
        q.created(values),
      )
      const stored = rows[0]
      if (stored === undefined) throw new RegistryError('internal', 'The user was not stored.')
      return { created: stored.id === user.id, user: toUser(stored) }
    },
    async createFirstAdmin(user, by) {
      const values = { ...writerValues(by), ...row(user) }
      const first = () => new RegistryError('conflict', 'This registry has an administrator.')
      try {
        await guarded(
          handle.write(
            q.firstGuard(values),
            q.insert(values),
            q.entity(values),
            q.unindex(values),
            q.index(values),
            q.created(values),
            q.dropGuard(),
          ),
          { first },
        )
        return true
      } catch (error) {
        if (error instanceof RegistryError && error.code === 'conflict') return false
        throw error
      }
    },
    async claimAdmin(claim, user, token, by) {
      const values = {
        ...writerValues(by),
        ...row(user),
        claim,
        tokenId: token.id,
        tokenName: token.name,
        scopes: token.scopes.join(' '),
        expiresAt: token.expiresAt.getTime(),
      }
      const spent = new RegistryError('conflict', 'This claim was spent before.')
      const taken = new RegistryError(
        'conflict',
        `There is no administrator, and the user ${user.name} is somebody else's.`,
        { subject: 'user' },
      )
      try {
        const results = await guarded(
          handle.write(
            q.claimGuard(values),
            q.claim(values),
            q.insertWithoutAdmin(values),
            q.entity(values),
            q.unindex(values),
            q.index(values),
            q.insertToken(values),
            q.byToken(values),
            q.claimed(values),
            q.dropGuard(),
          ),
          { first: () => spent, found: () => taken },
        )
        const owner = results[7][0]
        if (owner === undefined) throw new RegistryError('internal', 'The token was not stored.')
        return toUser(owner)
      } catch (error) {
        if (error === spent) return null
        throw error
      }
    },
    async byName(name) {
      const [rows] = await handle.read(q.living({ name }))
      return rows[0] === undefined ? null : toUser(rows[0])
    },
    async list() {
      const [rows] = await handle.read(q.list())
      return rows.map(toUser)
    },
    vouch: sqliteVouch(handle),
  }
}

export function sqliteTokens(handle: Handle): TokensBook {
  const { db } = handle
  const q = {
    standing: standingQuery(db),
    issued: audited(db, {
      action: 'token.create',
      object: sql`'token ' || ${p('id')}`,
      name: sql`(select name from users where id = ${p('userId')})`,
      detail: sql`${p('scopes')} || ', until ' || strftime('%Y-%m-%dT%H:%M:%SZ', ${p('expiresAt')} / 1000, 'unixepoch') || ', ' || ${p('name')}`,
    }),
    revoked: audited(db, {
      action: 'token.revoke',
      object: sql`'token ' || ${p('id')}`,
      name: sql`(select ru.name from tokens rt join users ru on ru.id = rt.user_id where rt.id = ${p('id')})`,
      detail: sql`(select name from tokens where id = ${p('id')})`,
      when: sql`exists (select 1 from tokens where id = ${p('id')} and revoked_at is null)`,
    }),
    insert: prepare(() =>
      db.insert(t.tokens).values({
        id: p('id'),
        userId: p('userId'),
        name: p('name'),
        scopes: p('scopes'),
        createdAt: p('createdAt'),
        expiresAt: p('expiresAt'),
        collectionId: p('collectionId'),
        containerId: p('containerId'),
      }),
    ),
    listFor: prepare(() =>
      db
        .select(tokenColumns)
        .from(t.tokens)
        .innerJoin(t.users, eq(t.users.id, t.tokens.userId))
        .where(eq(t.tokens.userId, text('userId')))
        .orderBy(t.tokens.createdAt),
    ),
    find: prepare(() =>
      db
        .select({ id: t.tokens.id })
        .from(t.tokens)
        .where(eq(t.tokens.id, text('id'))),
    ),
    revoke: prepare(() =>
      db
        .update(t.tokens)
        .set({ revokedAt: sql`${p('now')}` })
        .where(and(eq(t.tokens.id, text('id')), isNull(t.tokens.revokedAt))),
    ),
    end: prepare(() =>
      db
        .insert(t.ended)
        .values({ id: p('id'), at: p('now') })
        .onConflictDoNothing(),
    ),
    touch: prepare(() =>
      db
        .update(t.tokens)
        .set({ lastUsedAt: sql`${p('now')}` })
        .where(sql`id in (select value from json_each(${p('ids')}))`),
    ),
  }
  return {
    async insert(token, by) {
      const values = {
        ...writerValues(by),
        collectionId: '',
        containerId: '',
        ...token,
        scopes: token.scopes.join(' '),
        createdAt: token.createdAt.getTime(),
        expiresAt: token.expiresAt.getTime(),
      }
      await handle.write(q.insert(values), q.issued(values))
    },
    async standing(viewer, now) {
      const [rows] = await handle.read(q.standing(viewerValues(viewer, now)))
      return toStanding(rows[0])
    },
    async listFor(userId) {
      const [rows] = await handle.read(q.listFor({ userId }))
      return rows.map(toToken)
    },
    async revoke(id, by) {
      const values = { ...writerValues(by), id }
      const [rows] = await handle.write(
        q.find(values),
        q.revoked(values),
        q.revoke(values),
        q.end(values),
      )
      return rows.length > 0
    },
    async touch(ids, now) {
      if (ids.length > 0)
        await handle.write(q.touch({ ids: JSON.stringify(ids), now: now.getTime() }))
    },
  }
}

export function sqliteEnded(handle: Handle): EndedBook {
  const { db } = handle
  const q = {
    since: prepare(() =>
      db
        .select({ id: t.ended.id })
        .from(t.ended)
        .where(gt(t.ended.at, p('after'))),
    ),
    prune: prepare(() => db.delete(t.ended).where(lt(t.ended.at, p('before')))),
  }
  return {
    async since(after) {
      const [rows] = await handle.read(q.since({ after: after.getTime() }))
      return rows.map((row) => row.id)
    },
    async prune(before) {
      await handle.write(q.prune({ before: before.getTime() }))
    },
  }
}

export function sqliteSettings(handle: Handle): SettingsBook {
  const { db } = handle
  const q = {
    get: prepare(() =>
      db
        .select()
        .from(t.settings)
        .where(eq(t.settings.key, text('key'))),
    ),
    setOnce: prepare(() =>
      db
        .insert(t.settings)
        .values({ key: p('key'), value: p('value') })
        .onConflictDoNothing(),
    ),
    set: prepare(() =>
      db
        .insert(t.settings)
        .values({ key: p('key'), value: p('value') })
        .onConflictDoUpdate({ target: t.settings.key, set: { value: sql`excluded.value` } }),
    ),
  }
  return {
    async get(key) {
      const [rows] = await handle.read(q.get({ key }))
      return rows[0]?.value ?? null
    },
    async setOnce(key, value) {
      const [, rows] = await handle.write(q.setOnce({ key, value }), q.get({ key }))
      return rows[0]?.value ?? value
    },
    async set(key, value) {
      await handle.write(q.set({ key, value }))
    },
  }
}
