/** Accounts, robots, tokens and whose an entity is: every change guards itself and leaves a trace. */
import { and, eq, sql, type SQL } from 'drizzle-orm'
import { RegistryError } from '../errors.ts'
import type { PeopleBook } from '../ports.ts'
import { guarded } from './failure.ts'
import {
  audited,
  dropGuard,
  indexImages,
  p,
  standingQuery,
  text,
  unindexImages,
  viewerValues,
  writerStands,
  writerValues,
} from './fragments.ts'
import { prepare, type Handle } from './handle.ts'
import { named, tokenColumns, toStanding, toToken, toUser, userColumns } from './rows.ts'
import * as t from './schema.ts'

const personColumns = {
  ...userColumns,
  ...named({
    deletedAt: sql<number | null>`${t.users.deletedAt}`,
    manager: sql<string | null>`(select mu.name from users mu where mu.id = users.manager_id)`,
  }),
}
type PersonRow = Parameters<typeof toUser>[0] & { deletedAt: number | null; manager: string | null }

const toPerson = ({ deletedAt, manager, ...row }: PersonRow) => ({
  ...toUser(row),
  manager,
  deletedAt: deletedAt === null ? null : new Date(deletedAt),
})

/** What the token is bound to, as people write it. */
const place = sql<
  string | null
>`(select be.name || '/' || bc.name || coalesce('/' || (select bn.name from containers bn where bn.id = tokens.container_id), '') from collections bc join entities be on be.id = bc.entity_id where bc.id = tokens.collection_id)`

/** With a token that may manage what is the writer's own; `more` says what that is. */
const mayManage = (more: SQL): SQL =>
  writerStands(
    sql`wt.collection_id = '' and instr(wt.scopes, 'admin') > 0 and wu.robot = 0 and (${p('writerAdmin')} = 1 and wu.role = 'admin' or ${more})`,
  )
const mayAdminister = mayManage(sql`0`)
/** The account is the writer's, or a robot of theirs. */
const theirs = (id: SQL): SQL =>
  sql`wu.id = ${id} or exists (select 1 from users ru where ru.id = ${id} and ru.robot = 1 and ru.manager_id = wu.id)`

/** An enabled administrator is left when the user of `:id` is none any more. */
const adminLeft = sql`not exists (select 1 from users where id = ${p('id')} and role = 'admin' and disabled = 0) or exists (select 1 from users where id <> ${p('id')} and role = 'admin' and disabled = 0)`
/** Somebody who can be given things: a person with an account that is in use. */
const canOwn = (id: SQL): SQL =>
  sql`exists (select 1 from users where id = ${id} and robot = 0 and disabled = 0 and deleted_at is null)`

const isFree = sql`not exists (select 1 from users where name = ${p('name')})`
const userObject = sql`'user ' || ${p('id')}`
const tokenObject = sql`'token ' || ${p('id')}`
const nameOf = (id: SQL): SQL => sql`(select name from users where id = ${id})`

const lostRight = () =>
  new RegistryError('denied', 'You may not do this: the token or the right to do it has ended.')
const lastAdmin = () =>
  new RegistryError(
    'conflict',
    'This is the last administrator who can act: make somebody else one first.',
    { subject: 'user' },
  )
const gone = (what: 'user' | 'token' | 'entity') => () =>
  new RegistryError('conflict', `What this is about has changed meanwhile; look again.`, {
    subject: what,
  })

export function sqlitePeople(handle: Handle): PeopleBook {
  const { db } = handle
  const id = p('id').getSQL()
  const to = p('to').getSQL()
  /** Who goes: the user, and the robots that nobody takes over. */
  const going = sql`select id from users where id = ${id} or (${to} = '' and manager_id = ${id})`
  const theirImages = sql`select gi.seq from entities ge join collections gc on gc.entity_id = ge.id join containers gn on gn.collection_id = gc.id join images gi on gi.container_id = gn.id where ge.owner_id = ${id} and ${to} = ''`
  const entityImages = (where: SQL) =>
    sql`select xi.seq from entities xe join collections xc on xc.entity_id = xe.id join containers xn on xn.collection_id = xc.id join images xi on xi.container_id = xn.id where ${where}`
  /** R30: the owner's id is in the search index, where the image is private. */
  const passInIndex = (from: SQL, where: SQL) =>
    prepare(() =>
      db
        .update(t.search)
        .set({ scope: sql`replace(scope, 'own' || ${from}, 'own' || ${to})` })
        .where(sql`rowid in (${entityImages(where)}) and scope <> ''`),
    )

  const people = () => db.select(personColumns).from(t.users)
  const isRobot = sql`${t.users.robot} = 1 and ${t.users.deletedAt} is null`
  const tokens = () =>
    db
      .select({ ...tokenColumns, ...named({ place }) })
      .from(t.tokens)
      .innerJoin(t.users, eq(t.users.id, t.tokens.userId))
  const q = {
    standing: standingQuery(db),
    dropGuard: dropGuard(db),
    find: prepare(() => people().where(eq(t.users.name, text('name')))),
    list: prepare(() => people().orderBy(t.users.name)),
    robots: prepare(() => people().where(isRobot).orderBy(t.users.name)),
    robotsOf: prepare(() =>
      people()
        .where(and(isRobot, eq(t.users.managerId, text('managerId'))))
        .orderBy(t.users.name),
    ),
    tokens: prepare(() =>
      tokens()
        .where(eq(t.tokens.userId, text('userId')))
        .orderBy(t.tokens.createdAt),
    ),
    token: prepare(() =>
      db
        .select({ userId: t.tokens.userId, managerId: t.users.managerId })
        .from(t.tokens)
        .innerJoin(t.users, eq(t.users.id, t.tokens.userId))
        .where(eq(t.tokens.id, text('id'))),
    ),

    addGuard: prepare(() => db.insert(t.guard).values({ mayWrite: mayAdminister, found: isFree })),
    addRobotGuard: prepare(() =>
      db
        .insert(t.guard)
        .values({ mayWrite: mayManage(sql`wu.id = ${p('managerId')}`), found: isFree }),
    ),
    add: prepare(() =>
      db.insert(t.users).values({
        id: p('id'),
        name: p('name'),
        role: p('role'),
        disabled: false,
        createdAt: p('now'),
        staff: p('staff'),
        robot: p('robot'),
        managerId: p('managerId'),
      }),
    ),
    /**
     * A person owns the entity of the same name: theirs from now on if an administrator has it, but
     * not what somebody else was given (R38).
     */
    addEntity: prepare(() =>
      db
        .insert(t.entities)
        .select(
          sql`select ${p('entityId')} as id, ${p('name')} as name, '' as description, ${p('id')} as owner_id, 0 as default_private, ${p('now')} as created_at, ${p('now')} as updated_at, null as quota, 0 as used where ${p('robot')} = 0`,
        )
        .onConflictDoUpdate({
          target: t.entities.name,
          set: {
            ownerId: sql`case when (select role from users where id = entities.owner_id) = 'admin' then excluded.owner_id else owner_id end`,
          },
        }),
    ),
    unindexName: unindexImages(db, entityImages(sql`xe.name = ${p('name')}`)),
    indexName: indexImages(db, entityImages(sql`xe.name = ${p('name')}`)),
    added: audited(db, {
      action: 'user.create',
      object: userObject,
      name: p('name').getSQL(),
      detail: sql`case when ${p('staff')} = 1 then 'staff' when ${p('robot')} = 1 then 'robot' else ${p('role')} end`,
    }),

    changeGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayAdminister,
        found: sql`exists (select 1 from users where id = ${id} and deleted_at is null and (robot = 0 or ${p('role')} is null))`,
        adminLeft: sql`(coalesce(${p('role')}, 'admin') = 'admin' and coalesce(${p('disabled')}, 0) = 0) or ${adminLeft}`,
      }),
    ),
    change: prepare(() =>
      db
        .update(t.users)
        .set({
          role: sql`coalesce(${p('role')}, role)`,
          staff: sql`coalesce(${p('staff')}, staff)`,
          disabled: sql`coalesce(${p('disabled')}, disabled)`,
        })
        .where(eq(t.users.id, text('id'))),
    ),
    changed: audited(db, {
      action: 'user.change',
      object: userObject,
      name: nameOf(id),
      detail: p('detail').getSQL(),
      when: sql`exists (select 1 from users where id = ${id} and (role <> coalesce(${p('role')}, role) or staff <> coalesce(${p('staff')}, staff) or disabled <> coalesce(${p('disabled')}, disabled)))`,
    }),
    /** R25: tickets of a disabled user and their robots end, and those of one who is enabled again do not. */
    endUser: prepare(() =>
      db
        .insert(t.ended)
        .select(
          sql`select id, ${p('now')} as at from users where (id = ${id} or manager_id = ${id}) and ${p('disabled')} = 1`,
        )
        .onConflictDoUpdate({ target: t.ended.id, set: { at: sql`excluded.at` } }),
    ),
    reviveUser: prepare(() =>
      db
        .delete(t.ended)
        .where(
          sql`id in (select id from users where (id = ${id} or manager_id = ${id} and disabled = 0) and ${p('disabled')} = 0)`,
        ),
    ),
    person: prepare(() => people().where(eq(t.users.id, text('id')))),

    removeGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayManage(theirs(id)),
        found: sql`exists (select 1 from users where id = ${id} and deleted_at is null) and (${to} = '' or (${to} <> ${id} and ${canOwn(to)}))`,
        adminLeft,
      }),
    ),
    removed: audited(db, {
      action: 'user.delete',
      object: userObject,
      name: nameOf(id),
      detail: sql`case when ${to} = '' then 'with everything' else 'handed over to ' || ${nameOf(to)} end`,
    }),
    // what is handed over
    passIndex: passInIndex(id, sql`xe.owner_id = ${id} and ${to} <> ''`),
    passEntities: prepare(() =>
      db
        .update(t.entities)
        .set({ ownerId: to })
        .where(sql`owner_id = ${id} and ${to} <> ''`),
    ),
    raiseGrants: prepare(() =>
      db
        .update(t.grants)
        .set({ level: 3 })
        .where(
          sql`user_id = ${to} and collection_id in (select og.collection_id from grants og where og.user_id = ${id} and og.level = 3)`,
        ),
    ),
    passGrants: prepare(() =>
      db
        .update(t.grants)
        .set({ userId: to })
        .where(
          sql`user_id = ${id} and level = 3 and ${to} <> '' and collection_id not in (select og.collection_id from grants og where og.user_id = ${to})`,
        ),
    ),
    passRobots: prepare(() =>
      db
        .update(t.users)
        .set({ managerId: to })
        .where(sql`manager_id = ${id} and ${to} <> ''`),
    ),
    passTeams: prepare(() =>
      db
        .insert(t.teamMembers)
        .select(
          sql`select om.team_id, ${to} as user_id, 1 as owner, ${p('now')} as joined_at from team_members om where om.user_id = ${id} and om.owner = 1 and ${to} <> ''`,
        )
        .onConflictDoUpdate({
          target: [t.teamMembers.teamId, t.teamMembers.userId],
          set: { owner: sql`1` },
        }),
    ),
    /** A team that loses its last owner is its longest member's. */
    promote: prepare(() =>
      db
        .update(t.teamMembers)
        .set({ owner: sql`1` })
        .where(
          sql`team_id in (select om.team_id from team_members om where om.user_id = ${id} and om.owner = 1) and not exists (select 1 from team_members oo where oo.team_id = team_members.team_id and oo.owner = 1 and oo.user_id <> ${id}) and user_id = (select fm.user_id from team_members fm join users fu on fu.id = fm.user_id where fm.team_id = team_members.team_id and fm.user_id <> ${id} and fu.robot = 0 order by fm.joined_at, fm.user_id limit 1)`,
        ),
    ),
    dropTeams: prepare(() =>
      db
        .delete(t.teams)
        .where(
          sql`id in (select om.team_id from team_members om where om.user_id = ${id} and om.owner = 1) and not exists (select 1 from team_members oo where oo.team_id = teams.id and oo.owner = 1 and oo.user_id <> ${id})`,
        ),
    ),
    // what goes; the images by name, so that every trigger finds the place they were in
    unindex: unindexImages(db, theirImages),
    endImages: prepare(() =>
      db
        .insert(t.ended)
        .select(sql`select id, ${p('now')} as at from images where seq in (${theirImages})`)
        .onConflictDoUpdate({ target: t.ended.id, set: { at: sql`excluded.at` } }),
    ),
    dropImages: prepare(() => db.delete(t.images).where(sql`seq in (${theirImages})`)),
    dropEntities: prepare(() => db.delete(t.entities).where(sql`owner_id = ${id} and ${to} = ''`)),
    // what is personal
    endUsers: prepare(() =>
      db
        .insert(t.ended)
        .select(sql`select id, ${p('now')} as at from users where id in (${going})`)
        .onConflictDoUpdate({ target: t.ended.id, set: { at: sql`excluded.at` } }),
    ),
    endTokens: prepare(() =>
      db
        .insert(t.ended)
        .select(
          sql`select id, ${p('now')} as at from tokens where user_id in (${going}) and revoked_at is null`,
        )
        .onConflictDoNothing(),
    ),
    revokeTokens: prepare(() =>
      db
        .update(t.tokens)
        .set({ revokedAt: sql`${p('now')}` })
        .where(sql`user_id in (${going}) and revoked_at is null`),
    ),
    endUploads: prepare(() =>
      db
        .update(t.uploads)
        .set({ expiresAt: sql`min(expires_at, ${p('now')})` })
        .where(sql`state in ('open', 'finishing') and user_id in (${going})`),
    ),
    dropGrants: prepare(() => db.delete(t.grants).where(sql`user_id in (${going})`)),
    dropMembers: prepare(() => db.delete(t.teamMembers).where(sql`user_id in (${going})`)),
    dropInvitations: prepare(() =>
      db.delete(t.invitations).where(sql`created_by in (${going}) and accepted_at is null`),
    ),
    dropStars: prepare(() => db.delete(t.stars).where(sql`user_id in (${going})`)),
    dropShares: prepare(() => db.delete(t.shares).where(sql`created_by in (${going})`)),
    dropKeys: prepare(() =>
      db
        .update(t.keys)
        .set({ ownerId: null })
        .where(sql`owner_id in (${going})`),
    ),
    /** The row keeps the name (R38). */
    bury: prepare(() =>
      db
        .update(t.users)
        .set({ deletedAt: sql`${p('now')}`, disabled: true, role: 'user', staff: false })
        .where(sql`id in (${going})`),
    ),

    freeGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayAdminister,
        found: sql`exists (select 1 from users where id = ${id} and deleted_at is not null)`,
        first: sql`not exists (select 1 from entities fe join collections fc on fc.entity_id = fe.id where fe.name = ${nameOf(id)})`,
      }),
    ),
    freed: audited(db, { action: 'user.free', object: userObject, name: nameOf(id) }),
    freeEntity: prepare(() => db.delete(t.entities).where(sql`name = ${nameOf(id)}`)),
    free: prepare(() => db.delete(t.users).where(eq(t.users.id, text('id')))),

    issueGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayManage(theirs(sql`${p('userId')}`)),
        found: sql`exists (select 1 from users where id = ${p('userId')} and deleted_at is null) and (${p('collectionId')} = '' or exists (select 1 from collections where id = ${p('collectionId')})) and (${p('containerId')} = '' or exists (select 1 from containers where id = ${p('containerId')} and collection_id = ${p('collectionId')}))`,
      }),
    ),
    issue: prepare(() =>
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
    issued: audited(db, {
      action: 'token.create',
      object: tokenObject,
      name: nameOf(p('userId').getSQL()),
      detail: sql`${p('scopes')} || ', until ' || strftime('%Y-%m-%dT%H:%M:%SZ', ${p('expiresAt')} / 1000, 'unixepoch') || ', ' || ${p('name')}`,
    }),
    /** Any token may end itself. */
    revokeGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: sql`${p('id')} = ${p('writerToken')} or ${mayManage(theirs(sql`(select user_id from tokens where id = ${p('id')})`))}`,
      }),
    ),
    revoked: audited(db, {
      action: 'token.revoke',
      object: tokenObject,
      name: sql`(select ru.name from tokens rt join users ru on ru.id = rt.user_id where rt.id = ${p('id')})`,
      detail: sql`(select name from tokens where id = ${p('id')})`,
      when: sql`exists (select 1 from tokens where id = ${p('id')} and revoked_at is null)`,
    }),
    revoke: prepare(() =>
      db
        .update(t.tokens)
        .set({ revokedAt: sql`${p('now')}` })
        .where(sql`id = ${p('id')} and revoked_at is null`),
    ),
    endToken: prepare(() =>
      db
        .insert(t.ended)
        .values({ id: p('id'), at: p('now') })
        .onConflictDoNothing(),
    ),

    transferGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayManage(
          sql`exists (select 1 from entities where id = ${id} and owner_id = wu.id)`,
        ),
        found: sql`exists (select 1 from entities where id = ${id} and owner_id = ${p('from')}) and ${canOwn(to)}`,
      }),
    ),
    transferIndex: passInIndex(p('from').getSQL(), sql`xe.id = ${id}`),
    transfer: prepare(() =>
      db
        .update(t.entities)
        .set({ ownerId: to, updatedAt: sql`${p('now')}` })
        .where(eq(t.entities.id, text('id'))),
    ),
    transferred: audited(db, {
      action: 'entity.transfer',
      object: sql`'entity ' || ${id}`,
      name: sql`(select name from entities where id = ${id})`,
      detail: sql`'from ' || ${nameOf(p('from').getSQL())} || ' to ' || ${nameOf(to)}`,
    }),
  }

  const words = (role: string) => ({
    role: role === 'admin' ? 'admin' : 'user',
    staff: role === 'staff' ? 1 : 0,
    robot: role === 'robot' ? 1 : 0,
  })

  return {
    async find(name, viewer, now) {
      const values = { ...viewerValues(viewer, now), name }
      const [standing, rows] = await handle.read(q.standing(values), q.find(values))
      return {
        standing: toStanding(standing[0]),
        value: rows[0] === undefined ? null : toPerson(rows[0]),
      }
    },
    async list() {
      const [rows] = await handle.read(q.list())
      return rows.map(toPerson)
    },
    async robots(managerId) {
      const robots = managerId === null ? q.robots() : q.robotsOf({ managerId })
      const [rows] = await handle.read(robots)
      return rows.map(toPerson)
    },

    async add({ id: userId, entityId, name, role, managerId }, by) {
      const values = {
        ...writerValues(by),
        ...words(role),
        id: userId,
        entityId,
        name,
        managerId,
      }
      const taken = () =>
        new RegistryError('conflict', `There is a user ${name} already.`, { subject: 'user' })
      const guard = role === 'robot' ? q.addRobotGuard(values) : q.addGuard(values)
      const results = await guarded(
        handle.write(
          guard,
          q.add(values),
          q.addEntity(values),
          q.unindexName(values),
          q.indexName(values),
          q.added(values),
          q.dropGuard(),
          q.person(values),
        ),
        { may_write: lostRight, found: taken },
      )
      const row = results[7][0]
      if (row === undefined) throw new RegistryError('internal', 'The user was not stored.')
      return toPerson(row)
    },

    async change(userId, { role, disabled }, by) {
      const { role: word = null, staff = null } = role === undefined ? {} : words(role)
      const set = [role, disabled === undefined ? '' : disabled ? 'disabled' : 'enabled']
      const values = {
        ...writerValues(by),
        id: userId,
        role: word,
        staff,
        disabled: disabled === undefined ? null : disabled ? 1 : 0,
        detail: set.filter((part) => part !== undefined && part !== '').join(', '),
      }
      const results = await guarded(
        handle.write(
          q.changeGuard(values),
          q.changed(values),
          q.change(values),
          q.endUser(values),
          q.reviveUser(values),
          q.dropGuard(),
          q.person(values),
        ),
        { may_write: lostRight, found: gone('user'), admin_left: lastAdmin },
      )
      const row = results[6][0]
      if (row === undefined) throw new RegistryError('internal', 'The user was not stored.')
      return toPerson(row)
    },

    async remove(userId, handOverTo, by) {
      const values = { ...writerValues(by), id: userId, to: handOverTo ?? '' }
      await guarded(
        handle.write(
          q.removeGuard(values),
          q.removed(values),
          q.passIndex(values),
          q.passEntities(values),
          q.raiseGrants(values),
          q.passGrants(values),
          q.passRobots(values),
          q.passTeams(values),
          q.promote(values),
          q.dropTeams(values),
          q.unindex(values),
          q.endImages(values),
          q.dropImages(values),
          q.dropEntities(values),
          q.endUsers(values),
          q.endTokens(values),
          q.revokeTokens(values),
          q.endUploads(values),
          q.dropGrants(values),
          q.dropMembers(values),
          q.dropInvitations(values),
          q.dropStars(values),
          q.dropShares(values),
          q.dropKeys(values),
          q.bury(values),
          q.dropGuard(),
        ),
        { may_write: lostRight, found: gone('user'), admin_left: lastAdmin },
      )
    },

    async free(userId, by) {
      const values = { ...writerValues(by), id: userId }
      const held = () =>
        new RegistryError(
          'conflict',
          'The entity of that name was handed over and holds something: whoever got the name would seem to have made it. Delete what is in it first.',
          { subject: 'entity' },
        )
      await guarded(
        handle.write(
          q.freeGuard(values),
          q.freed(values),
          q.freeEntity(values),
          q.free(values),
          q.dropGuard(),
        ),
        { may_write: lostRight, found: gone('user'), first: held },
      )
    },

    async tokens(userId) {
      const [rows] = await handle.read(q.tokens({ userId }))
      return rows.map(toToken).map((token, at) => ({ ...token, place: rows[at]?.place ?? null }))
    },
    async token(tokenId, viewer, now) {
      const values = { ...viewerValues(viewer, now), id: tokenId }
      const [standing, rows] = await handle.read(q.standing(values), q.token(values))
      return { standing: toStanding(standing[0]), value: rows[0] ?? null }
    },
    async issue(token, by) {
      const values = {
        ...writerValues(by),
        ...token,
        scopes: token.scopes.join(' '),
        createdAt: token.createdAt.getTime(),
        expiresAt: token.expiresAt.getTime(),
      }
      await guarded(
        handle.write(q.issueGuard(values), q.issue(values), q.issued(values), q.dropGuard()),
        { may_write: lostRight, found: gone('token') },
      )
    },
    async revoke(tokenId, by) {
      const values = { ...writerValues(by), id: tokenId }
      await guarded(
        handle.write(
          q.revokeGuard(values),
          q.revoked(values),
          q.revoke(values),
          q.endToken(values),
          q.dropGuard(),
        ),
        { may_write: lostRight },
      )
    },

    async transfer({ entityId, from, to: receiver }, by) {
      const values = { ...writerValues(by), id: entityId, from, to: receiver }
      await guarded(
        handle.write(
          q.transferGuard(values),
          q.transferred(values),
          q.transferIndex(values),
          q.transfer(values),
          q.dropGuard(),
        ),
        { may_write: lostRight, found: gone('entity') },
      )
    },
  }
}
