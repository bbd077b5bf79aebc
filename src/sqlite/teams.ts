/** Teams, their members and invitations, and what users and teams are granted in collections. */
import { eq, sql, type SQL } from 'drizzle-orm'
import { RegistryError } from '../errors.ts'
import type { Actor, GrantsBook, TeamsBook, TeamViewer } from '../ports.ts'
import { guarded } from './failure.ts'
import {
  audited,
  dropGuard,
  inCollection,
  levelIn,
  mayWrite,
  p,
  standingQuery,
  text,
  viewerManages,
  viewerValues,
  writerManages,
  writerStands,
  writerValues,
} from './fragments.ts'
import { prepare, type Handle } from './handle.ts'
import { named, toStanding } from './rows.ts'
import * as t from './schema.ts'

const LIST_LIMIT = 1000

const lostRight = () =>
  new RegistryError('denied', 'You may not change this: the token or the right to do so has ended.')
const noUser = (name: string) => () =>
  new RegistryError('not_found', `There is no user ${name} who could have this.`, {
    subject: 'user',
  })

const userNamed = sql`(select id from users where name = ${text('user')} and deleted_at is null)`
const ofTeam = {
  object: sql`'team ' || ${p('teamId')}`,
  name: sql`(select name from teams where id = ${p('teamId')})`,
}

/**
 * R25: three steps of a batch. `end` ends the tickets of `users` (yields `user_id`) in `collections`
 * (`collection_id`) before the change; after it, `keep` takes that back for who may still read there,
 * and for administrators and staff, who may read without a grant.
 */
function endings(db: Handle['db'], users: SQL, collections: SQL) {
  const userId = sql`substr(ended.id, 1, 24)`
  const collectionId = sql`substr(ended.id, 26)`
  return {
    end: prepare(() =>
      db
        .insert(t.ended)
        .select(
          sql`select pu.user_id || ':' || pc.collection_id as id, ${p('now')} as at from (${users}) pu, (${collections}) pc where true`,
        )
        .onConflictDoUpdate({ target: t.ended.id, set: { at: sql`excluded.at` } }),
    ),
    keep: prepare(() =>
      db
        .delete(t.ended)
        .where(
          sql`at = ${p('now')} and length(id) = 49 and substr(id, 25, 1) = ':' and (${levelIn(userId, collectionId)} > 0 or exists (select 1 from users where id = ${userId} and (role = 'admin' or staff = 1)))`,
        ),
    ),
  }
}

const membersOfTeam = sql`select user_id from team_members where team_id = ${p('teamId')}`
const grantedToTeam = sql`select collection_id from grants where team_id = ${p('teamId')}`
const oneUser = sql`select ${userNamed} as user_id where ${userNamed} is not null`

export function sqliteTeams(handle: Handle): TeamsBook {
  const { db } = handle
  const standing = standingQuery(db)

  /** The team is the writer's to change: a guard's condition. */
  const ownsTeam = (orElse: SQL = sql`0`) =>
    writerStands(
      sql`wt.collection_id = '' and (${writerManages} or exists (select 1 from team_members wm where wm.team_id = ${p('teamId')} and wm.user_id = wu.id and wm.owner = 1 and wu.robot = 0) or ${orElse})`,
    )
  const person = writerStands(sql`wt.collection_id = '' and wu.robot = 0`)
  const teamStands = sql`exists (select 1 from teams where id = ${p('teamId')})`
  /** An invitation works while who made it could make it still. */
  const works = sql`i.accepted_at is null and i.expires_at > ${p('now')} and (i.created_by is null or exists (select 1 from users iu where iu.id = i.created_by and iu.disabled = 0 and (iu.role = 'admin' or iu.staff = 1 or exists (select 1 from team_members im where im.team_id = i.team_id and im.user_id = iu.id and im.owner = 1))))`
  const accepted = sql`select i.team_id from invitations i where i.hash = ${p('hash')} and ${works}`

  const columns = named({
    id: t.teams.id,
    name: t.teams.name,
    description: t.teams.description,
    open: t.teams.open,
    createdAt: t.teams.createdAt,
    owner: sql<
      number | null
    >`(select owner from team_members where team_id = ${t.teams.id} and user_id = ${text('viewerId')} and exists (select 1 from tokens vb where vb.id = ${text('viewerToken')} and vb.user_id = ${p('viewerId')} and vb.collection_id = ''))`,
  })
  const q = {
    list: prepare(() =>
      db
        .select(columns)
        .from(t.teams)
        .where(
          sql`${p('viewerOperator')} = 1 or ${p('viewerId')} <> '' and (${t.teams.open} = 1 or ${viewerManages} or (${t.teams.id} in (select team_id from team_members where user_id = ${text('viewerId')}) and exists (select 1 from tokens vb where vb.id = ${text('viewerToken')} and vb.collection_id = '')))`,
        )
        .orderBy(t.teams.name)
        .limit(LIST_LIMIT),
    ),
    find: prepare(() =>
      db
        .select(columns)
        .from(t.teams)
        .where(eq(t.teams.name, text('name'))),
    ),
    members: prepare(() =>
      db
        .select(
          named({
            user: t.users.name,
            owner: t.teamMembers.owner,
            joinedAt: t.teamMembers.joinedAt,
          }),
        )
        .from(t.teamMembers)
        .innerJoin(t.teams, eq(t.teams.id, t.teamMembers.teamId))
        .innerJoin(t.users, eq(t.users.id, t.teamMembers.userId))
        .where(eq(t.teams.name, text('name')))
        .orderBy(t.users.name)
        .limit(LIST_LIMIT),
    ),
    invitations: prepare(() =>
      db
        .select(
          named({
            id: sql<string>`i.id`,
            createdBy: sql<string | null>`(select name from users where id = i.created_by)`,
            createdAt: sql<number>`i.created_at`,
            expiresAt: sql<number>`i.expires_at`,
          }),
        )
        .from(sql`invitations i`)
        .where(sql`i.team_id = ${text('teamId')} and ${works}`)
        .orderBy(sql`i.created_at`, sql`i.id`)
        .limit(LIST_LIMIT),
    ),
  }

  const leaving = endings(db, membersOfTeam, grantedToTeam)
  const moving = endings(db, oneUser, grantedToTeam)
  const entering = endings(
    db,
    sql`select ${p('writerId')} as user_id`,
    sql`select collection_id from grants where team_id in (select note from guard where note is not null)`,
  )
  const w = {
    dropGuard: dropGuard(db),
    createGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: writerStands(
          sql`wt.collection_id = '' and wu.robot = 0 and (${writerManages} or (${p('anybody')} = 1 and wu.name = ${p('user')}))`,
        ),
        found: sql`exists (select 1 from users where id = ${userNamed} and robot = 0 and disabled = 0)`,
        first: sql`not exists (select 1 from teams where name = ${p('name')})`,
      }),
    ),
    create: prepare(() =>
      db.insert(t.teams).values({
        id: p('teamId'),
        name: p('name'),
        description: p('description'),
        open: p('open'),
        createdAt: p('now'),
      }),
    ),
    created: audited(db, { action: 'team.create', ...ofTeam, detail: sql`${p('user')}` }),
    ownerGuard: prepare(() =>
      db.insert(t.guard).values({ mayWrite: ownsTeam(), found: teamStands }),
    ),
    change: prepare(() =>
      db
        .update(t.teams)
        .set({
          description: sql`coalesce(${p('description')}, description)`,
          open: sql`coalesce(${p('open')}, open)`,
        })
        .where(eq(t.teams.id, text('teamId'))),
    ),
    changed: audited(db, {
      action: 'team.change',
      ...ofTeam,
      detail: sql`case ${p('open')} when 1 then 'open' when 0 then 'by invitation' end`,
    }),
    deleted: audited(db, { action: 'team.delete', ...ofTeam }),
    delete: prepare(() => db.delete(t.teams).where(eq(t.teams.id, text('teamId')))),
    memberGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: ownsTeam(),
        found: sql`${teamStands} and exists (select 1 from users where id = ${userNamed} and (robot = 0 or ${p('owner')} = 0))`,
      }),
    ),
    setMember: prepare(() =>
      db
        .insert(t.teamMembers)
        .select(
          sql`select ${p('teamId')} as team_id, ${userNamed} as user_id, ${p('owner')} as owner, ${p('now')} as joined_at where true`,
        )
        .onConflictDoUpdate({
          target: [t.teamMembers.teamId, t.teamMembers.userId],
          set: { owner: sql`excluded.owner` },
        }),
    ),
    memberSet: audited(db, {
      action: 'team.member',
      ...ofTeam,
      detail: sql`${p('user')} || case ${p('owner')} when 1 then ' owner' else ' member' end`,
    }),
    /** After the change: somebody who is not deleted owns the team. */
    keepsOwner: prepare(() =>
      db.insert(t.guard).values({
        keepsOwner: sql`exists (select 1 from team_members om join users ou on ou.id = om.user_id where om.team_id = ${p('teamId')} and om.owner = 1 and ou.deleted_at is null)`,
      }),
    ),
    removeGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: ownsTeam(sql`wu.name = ${p('user')}`),
        found: teamStands,
        note: sql`(select user_id from team_members where team_id = ${p('teamId')} and user_id = ${userNamed})`,
      }),
    ),
    note: prepare(() => db.select({ note: t.guard.note }).from(t.guard).limit(1)),
    memberRemoved: audited(db, {
      action: 'team.remove',
      ...ofTeam,
      detail: sql`${p('user')}`,
      when: sql`exists (select 1 from guard where note is not null)`,
    }),
    removeMember: prepare(() =>
      db
        .delete(t.teamMembers)
        .where(sql`team_id = ${p('teamId')} and user_id = (select note from guard)`),
    ),
    joinGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: person,
        found: sql`exists (select 1 from teams where id = ${p('teamId')} and open = 1)`,
        note: p('teamId'),
      }),
    ),
    acceptGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: person,
        found: sql`exists (${accepted})`,
        first: sql`not exists (select 1 from team_members where team_id = (${accepted}) and user_id = ${p('writerId')})`,
        note: sql`(${accepted})`,
      }),
    ),
    enter: prepare(() =>
      db
        .insert(t.teamMembers)
        .select(
          sql`select note as team_id, ${p('writerId')} as user_id, 0 as owner, ${p('now')} as joined_at from guard where note is not null`,
        )
        .onConflictDoNothing(),
    ),
    entered: audited(db, {
      action: 'team.join',
      object: sql`'team ' || (select note from guard)`,
      name: sql`(select name from teams where id = (select note from guard))`,
      when: sql`not exists (select 1 from team_members where team_id = (select note from guard) and user_id = ${p('writerId')})`,
    }),
    spend: prepare(() =>
      db
        .update(t.invitations)
        .set({ acceptedBy: sql`${p('writerId')}`, acceptedAt: sql`${p('now')}` })
        .where(eq(t.invitations.hash, text('hash'))),
    ),
    entrance: prepare(() =>
      db
        .select({ name: t.teams.name })
        .from(t.teams)
        .where(sql`${t.teams.id} = (select note from guard)`),
    ),
    invite: prepare(() =>
      db.insert(t.invitations).values({
        id: p('id'),
        teamId: p('teamId'),
        hash: p('hash'),
        createdBy: sql`nullif(${p('writerId')}, '')`,
        createdAt: p('now'),
        expiresAt: p('expiresAt'),
      }),
    ),
    invited: audited(db, { action: 'team.invite', ...ofTeam, detail: sql`${p('id')}` }),
    revokeGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: ownsTeam(),
        note: sql`(select id from invitations where id = ${p('id')} and team_id = ${p('teamId')} and accepted_at is null)`,
      }),
    ),
    revoke: prepare(() => db.delete(t.invitations).where(sql`id = (select note from guard)`)),
    revoked: audited(db, {
      action: 'team.uninvite',
      ...ofTeam,
      detail: sql`${p('id')}`,
      when: sql`exists (select 1 from guard where note is not null)`,
    }),
  }

  const seen = (viewer: TeamViewer, now: Date) => ({
    ...viewerValues(viewer, now),
    viewerOperator: viewer?.operator === undefined ? 0 : 1,
  })
  const toTeam = ({
    owner,
    createdAt,
    ...row
  }: {
    id: string
    name: string
    description: string
    open: boolean
    createdAt: number
    owner: number | null
  }) => ({
    ...row,
    createdAt: new Date(createdAt),
    role: owner === null ? null : owner === 1 ? ('owner' as const) : ('member' as const),
  })
  const gone = () => new RegistryError('not_found', 'That team is gone.', { subject: 'team' })
  const noOwner = () =>
    new RegistryError(
      'conflict',
      'A team keeps an owner: make somebody else its owner first, or delete the team.',
      { subject: 'team' },
    )
  const owned = { may_write: lostRight, found: gone }
  const values = (by: Actor, more: Record<string, string | number | null>) => ({
    ...writerValues(by),
    ...more,
  })

  return {
    async list(viewer, now) {
      const asked = seen(viewer, now)
      const [stands, rows] = await handle.read(standing(asked), q.list(asked))
      return { standing: toStanding(stands[0]), value: rows.map(toTeam) }
    },
    async find(name, viewer, now) {
      const asked = { ...seen(viewer, now), name }
      const [stands, [row], members] = await handle.read(
        standing(asked),
        q.find(asked),
        q.members(asked),
      )
      return {
        standing: toStanding(stands[0]),
        value:
          row === undefined
            ? null
            : {
                team: toTeam(row),
                members: members.map(({ user, owner, joinedAt }) => ({
                  user,
                  role: owner ? ('owner' as const) : ('member' as const),
                  joinedAt: new Date(joinedAt),
                })),
              },
      }
    },
    async create({ id, name, description, open, owner, anybody, by }) {
      const given = values(by, {
        teamId: id,
        name,
        description,
        open: open ? 1 : 0,
        user: owner,
        owner: 1,
        anybody: anybody ? 1 : 0,
      })
      await guarded(
        handle.write(
          w.createGuard(given),
          w.create(given),
          w.setMember(given),
          w.created(given),
          w.dropGuard(),
        ),
        {
          may_write: lostRight,
          found: noUser(owner),
          first: () =>
            new RegistryError('conflict', `The team name ${name} is taken; choose another one.`, {
              subject: 'team',
            }),
        },
      )
    },
    async change({ teamId, description, open, by }) {
      const given = values(by, { teamId, description, open: open === null ? null : open ? 1 : 0 })
      await guarded(
        handle.write(w.ownerGuard(given), w.change(given), w.changed(given), w.dropGuard()),
        owned,
      )
    },
    async delete(teamId, by) {
      const given = values(by, { teamId })
      await guarded(
        handle.write(
          w.ownerGuard(given),
          w.deleted(given),
          leaving.end(given),
          w.delete(given),
          leaving.keep(given),
          w.dropGuard(),
        ),
        owned,
      )
    },
    async setMember({ teamId, user, owner, by }) {
      const given = values(by, { teamId, user, owner: owner ? 1 : 0 })
      await guarded(
        handle.write(
          w.memberGuard(given),
          moving.end(given),
          w.setMember(given),
          w.memberSet(given),
          moving.keep(given),
          w.keepsOwner(given),
          w.dropGuard(),
        ),
        { may_write: lostRight, found: noUser(user), keeps_owner: noOwner },
      )
    },
    async removeMember({ teamId, user, by }) {
      const given = values(by, { teamId, user })
      const [, notes] = await guarded(
        handle.write(
          w.removeGuard(given),
          w.note(),
          w.memberRemoved(given),
          moving.end(given),
          w.removeMember(given),
          moving.keep(given),
          w.keepsOwner(given),
          w.dropGuard(),
        ),
        { ...owned, keeps_owner: noOwner },
      )
      return (notes[0]?.note ?? null) !== null
    },
    async join(teamId, by) {
      const given = values(by, { teamId })
      await guarded(
        handle.write(
          w.joinGuard(given),
          w.entered(given),
          entering.end(given),
          w.enter(given),
          entering.keep(given),
          w.dropGuard(),
        ),
        {
          may_write: lostRight,
          found: () =>
            new RegistryError('denied', 'This team takes nobody without an invitation.', {
              subject: 'team',
            }),
        },
      )
    },
    async invite({ id, teamId, hash, expiresAt, by }) {
      const given = values(by, { id, teamId, hash, expiresAt: expiresAt.getTime() })
      await guarded(
        handle.write(w.ownerGuard(given), w.invite(given), w.invited(given), w.dropGuard()),
        owned,
      )
    },
    async invitations(teamId, now) {
      const [rows] = await handle.read(q.invitations({ teamId, now: now.getTime() }))
      return rows.map(({ createdAt, expiresAt, ...row }) => ({
        ...row,
        createdAt: new Date(createdAt),
        expiresAt: new Date(expiresAt),
      }))
    },
    async revokeInvitation({ id, teamId, by }) {
      const given = values(by, { id, teamId })
      const [, notes] = await guarded(
        handle.write(w.revokeGuard(given), w.note(), w.revoked(given), w.revoke(), w.dropGuard()),
        owned,
      )
      return (notes[0]?.note ?? null) !== null
    },
    async accept(hash, by) {
      const given = values(by, { hash })
      const unknown = new RegistryError('not_found', 'No such invitation.')
      try {
        const [, [team]] = await guarded(
          handle.write(
            w.acceptGuard(given),
            w.entrance(),
            w.entered(given),
            entering.end(given),
            w.enter(given),
            entering.keep(given),
            w.spend(given),
            w.dropGuard(),
          ),
          {
            may_write: lostRight,
            found: () => unknown,
            first: () =>
              new RegistryError('conflict', 'You are a member of this team already.', {
                subject: 'team',
              }),
          },
        )
        return team?.name ?? null
      } catch (error) {
        if (error === unknown) return null
        throw error
      }
    },
  }
}

export function sqliteGrants(handle: Handle): GrantsBook {
  const { db } = handle
  const list = prepare(() =>
    db
      .select(
        named({
          user: t.users.name,
          team: t.teams.name,
          level: t.grants.level,
          createdAt: t.grants.createdAt,
        }),
      )
      .from(t.grants)
      .leftJoin(t.users, eq(t.users.id, t.grants.userId))
      .leftJoin(t.teams, eq(t.teams.id, t.grants.teamId))
      .where(eq(t.grants.collectionId, text('collectionId')))
      .orderBy(sql`${t.teams.name} is not null`, t.users.name, t.teams.name)
      .limit(LIST_LIMIT),
  )
  const dropped = dropGuard(db)

  const to = (kind: 'user' | 'team') => {
    const [id, column, target] =
      kind === 'user'
        ? [userNamed, sql.raw('user_id'), t.grants.userId]
        : [
            sql`(select id from teams where id = ${p('teamId')})`,
            sql.raw('team_id'),
            t.grants.teamId,
          ]
    const [userId, teamId] = kind === 'user' ? [id, sql`null`] : [sql`null`, id]
    const who =
      kind === 'user' ? sql`${p('user')}` : sql`(select name from teams where id = ${p('teamId')})`
    return {
      ...endings(
        db,
        kind === 'user' ? oneUser : membersOfTeam,
        sql`select ${p('collectionId')} as collection_id`,
      ),
      guard: prepare(() =>
        db.insert(t.guard).values({
          mayWrite: mayWrite(inCollection, 3),
          found: sql`exists (select 1 from collections where id = ${p('collectionId')}) and ${id} is not null`,
        }),
      ),
      put: prepare(() =>
        db
          .insert(t.grants)
          .select(
            sql`select ${p('id')} as id, ${p('collectionId')} as collection_id, ${userId} as user_id, ${teamId} as team_id, ${p('level')} as level, ${p('now')} as created_at where ${p('level')} > 0`,
          )
          .onConflictDoUpdate({
            target: [t.grants.collectionId, target],
            set: { level: sql`excluded.level` },
          }),
      ),
      take: prepare(() =>
        db
          .delete(t.grants)
          .where(
            sql`${p('level')} = 0 and collection_id = ${p('collectionId')} and ${column} = ${id}`,
          ),
      ),
      audited: audited(db, {
        action: 'grant.set',
        object: sql`'collection ' || ${p('collectionId')}`,
        name: sql`(select e.name || '/' || c.name from collections c join entities e on e.id = c.entity_id where c.id = ${p('collectionId')})`,
        detail: sql`${sql.raw(`'${kind} '`)} || ${who} || ' ' || case ${p('level')} when 0 then 'none' when 1 then 'reader' when 2 then 'contributor' else 'owner' end`,
      }),
    }
  }
  const steps = { user: to('user'), team: to('team') }

  return {
    async list(collectionId) {
      const [rows] = await handle.read(list({ collectionId }))
      return rows.map(({ createdAt, level, ...row }) => ({
        ...row,
        level: level as 1 | 2 | 3,
        createdAt: new Date(createdAt),
      }))
    },
    async set({ id, collectionId, to: whom, level, by }) {
      const {
        guard,
        end,
        put,
        take,
        keep,
        audited: noted,
      } = 'user' in whom ? steps.user : steps.team
      const given = { ...writerValues(by), ...whom, id, collectionId, level }
      await guarded(
        handle.write(
          guard(given),
          end(given),
          put(given),
          take(given),
          keep(given),
          noted(given),
          dropped(),
        ),
        {
          may_write: lostRight,
          found: () =>
            new RegistryError('not_found', 'That user, team or collection does not exist.', {
              subject: 'collection',
            }),
        },
      )
    },
  }
}
