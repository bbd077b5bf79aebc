/** Users that other issuers vouch for (R35): made, granted and given their token in one batch. */
import { sql } from 'drizzle-orm'
import type { UsersBook } from '../ports.ts'
import { writerValues, audited, p, text } from './fragments.ts'
import { prepare, type Handle } from './handle.ts'
import * as t from './schema.ts'

export function sqliteVouch({ db, write }: Handle): UsersBook['vouch'] {
  const target = sql`(select c.id from entities e join collections c on c.entity_id = e.id where e.name = ${text('entity')} and c.name = ${text('collection')})`
  /** The user, as long as it is that of the subject and stands: only then anything is written. */
  const standing = sql`u.id = ${text('userId')} and u.subject = ${p('subject')} and u.disabled = 0 and u.deleted_at is null and ${target} is not null`
  const ofUser = sql`user_id = ${text('userId')} and exists (select 1 from users u where ${standing})`
  const q = {
    user: prepare(() =>
      db
        .insert(t.users)
        .select(
          sql`select ${p('userId')} as id, ${p('name')} as name, 'user' as role, 0 as disabled, ${p('now')} as created_at, 0 as staff, null as manager_id, 1 as robot, ${p('subject')} as subject, null as deleted_at where ${target} is not null`,
        )
        .onConflictDoNothing(),
    ),
    dropGrants: prepare(() =>
      db
        .delete(t.grants)
        .where(sql`${ofUser} and not (collection_id = ${target} and level = ${p('level')})`),
    ),
    grant: prepare(() =>
      db
        .insert(t.grants)
        .select(
          sql`select ${p('grantId')} as id, ${target} as collection_id, u.id as user_id, null as team_id, ${p('level')} as level, ${p('now')} as created_at from users u where ${standing}`,
        )
        .onConflictDoNothing(),
    ),
    forget: prepare(() =>
      db.delete(t.tokens).where(sql`${ofUser} and expires_at < ${p('forgotten')}`),
    ),
    audit: audited(db, {
      action: 'token.vouch',
      object: sql`'token ' || ${p('tokenId')}`,
      name: sql`${p('subject')}`,
      detail: sql`${p('scopes')} || ' in ' || ${p('entity')} || '/' || ${p('collection')}`,
      when: sql`exists (select 1 from users u where ${standing}) and not exists (select 1 from tokens k where k.id = ${text('tokenId')})`,
    }),
    token: prepare(() =>
      db
        .insert(t.tokens)
        .select(
          sql`select ${p('tokenId')} as id, u.id as user_id, ${p('tokenName')} as name, ${p('scopes')} as scopes, ${p('createdAt')} as created_at, ${p('expiresAt')} as expires_at, null as revoked_at, null as last_used_at, ${target} as collection_id, '' as container_id from users u where ${standing}`,
        )
        .onConflictDoNothing(),
    ),
    outcome: prepare(() =>
      db
        .select({
          found: sql<number>`${target} is not null`.as('found'),
          stands: sql<number>`exists (select 1 from users u where ${standing})`.as('stands'),
        })
        .from(sql`(select 1)`),
    ),
  }
  return async ({ userId, name, subject, token, grant, now }) => {
    const [entity = '', collection = ''] = grant.collection.split('/')
    const values = {
      userId,
      name,
      subject,
      entity,
      collection,
      grantId: grant.id,
      level: grant.level,
      tokenId: token.id,
      tokenName: token.name,
      scopes: token.scopes.join(' '),
      ...writerValues({
        userId,
        tokenId: token.id,
        admin: false,
        manages: false,
        address: null,
        now,
      }),
      createdAt: token.createdAt.getTime(),
      expiresAt: token.expiresAt.getTime(),
      forgotten: now.getTime() - DAY_MS,
    }
    const [, , , , , , rows] = await write(
      q.user(values),
      q.dropGrants(values),
      q.grant(values),
      q.forget(values),
      q.audit(values),
      q.token(values),
      q.outcome(values),
    )
    const outcome = rows[0]
    if (outcome?.found !== 1) return 'no collection'
    return outcome.stands === 1 ? 'ok' : 'disabled'
  }
}

const DAY_MS = 86_400_000
