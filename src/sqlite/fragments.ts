/** Pieces of SQL that several books share: who stands, who sees, who may write, what is indexed. */
import { and, eq, isNull, sql, type SQL, type SQLWrapper } from 'drizzle-orm'
import type { Level, Role } from '../core/model.ts'
import type { Actor, Stranger, Viewer } from '../ports.ts'
import { prepare, type Handle } from './handle.ts'
import * as t from './schema.ts'

export const p = sql.placeholder

/**
 * A text value to compare a column with. The cast keeps the planner from looking at the value: it
 * would otherwise look for small integers in every `column = ?`, and prepare the statement anew
 * whenever another value is bound (80 µs instead of 10 for the lookup of an image).
 */
export const text = (name: string) => sql`cast(${p(name)} as text)`

/** A blob that images may refer to. Spelled out for the same reason: a partial index looks at it. */
export const isLive = sql`${t.blobs.state} = 'live'`

/** A blob whose bytes have gone. That it is not live has to be said: the partial index says that. */
export const isLost = sql`state = 'lost' and state <> 'live'`

/** Values of the placeholders that `visible` and `standing` use. */
export function viewerValues(viewer: Viewer, now: Date): Record<string, string | number> {
  return {
    viewerId: viewer?.userId ?? '',
    viewerToken: viewer?.tokenId ?? '',
    viewerAdmin:
      viewer?.operator !== undefined ? 2 : viewer?.scopes.includes('admin') === true ? 1 : 0,
    graceUpload: viewer?.grace?.of === 'upload' ? viewer.grace.id : '',
    graceTag: viewer?.grace?.of === 'tag' ? viewer.grace.id : '',
    graceOci: viewer?.grace?.of === 'oci' ? viewer.grace.id : '',
    viewerUntil: viewer?.grace?.until.getTime() ?? Number.MAX_SAFE_INTEGER,
    now: now.getTime(),
  }
}

/**
 * The viewer owns everything: an administrator or staff, through a token with the scope `admin` (R14),
 * or the operator.
 */
export const viewerManages = sql`(${p('viewerAdmin')} = 2 or ${p('viewerAdmin')} = 1 and exists (select 1 from tokens vt join users vu on vu.id = vt.user_id where vt.id = ${text('viewerToken')} and vu.id = ${text('viewerId')} and (vu.role = 'admin' or vu.staff = 1) and vt.collection_id = '' and instr(vt.scopes, 'admin') > 0))`

/** What a user was granted in a collection, directly and through teams; 0 for nothing. */
const grantedTo = (userId: SQL, collectionId: SQL): SQL =>
  sql`coalesce((select max(lg.level) from grants lg where lg.collection_id = ${collectionId} and (lg.user_id = ${userId} or lg.team_id in (select lm.team_id from team_members lm where lm.user_id = ${userId}))), 0)`

/** What a user may do in a collection (0 to 3): its entity's owner owns it. Null when there is none. */
export const levelIn = (userId: SQL, collectionId: SQL): SQL =>
  sql`max((select case when le.owner_id = ${userId} then 3 else 0 end from collections lc join entities le on le.id = lc.entity_id where lc.id = ${collectionId}), ${grantedTo(userId, collectionId)})`

const viewerId = text('viewerId')
const collectionId = t.collections.id.getSQL()

/** The same of the viewer, in a query that joins `collections` and `entities`. */
export const viewerLevel: SQL<Level> = sql`max(case when ${t.entities.ownerId} = ${viewerId} then 3 else 0 end, ${grantedTo(viewerId, collectionId)})`

/**
 * The viewer's token is not bound, or to this collection (and container): what is private elsewhere
 * does not exist for it. Asked of the row, which no JWT can widen.
 */
const viewerReaches = (container: SQL | null) =>
  sql`(${p('viewerAdmin')} = 2 or exists (select 1 from tokens vb where vb.id = ${text('viewerToken')} and (vb.collection_id = '' or (vb.collection_id = ${collectionId}${container === null ? sql`` : sql` and vb.container_id in ('', ${container})`}))))`

/** A collection the viewer can see, in a query that joins `collections` and `entities`. */
export const visibleCollection: SQL = sql`(${t.collections.private} = 0 or ((${viewerLevel} > 0 or ${viewerManages}) and ${viewerReaches(null)}))`

/** A container the viewer can see, in a query that also joins `containers`. */
export const visibleContainer: SQL = sql`((${t.collections.private} = 0 and ${t.containers.private} = 0) or ((${viewerLevel} > 0 or ${viewerManages}) and ${viewerReaches(t.containers.id.getSQL())}))`

/** The viewer may write into the container, in the same queries. */
export const viewerContributes: SQL = sql`((${viewerLevel} > 1 or ${viewerManages}) and ${viewerReaches(t.containers.id.getSQL())})`

/**
 * What search may not look at, as the end of an expression of the full-text index: what is private, but for
 * what the viewer owns or was granted something in (at most 500 collections), or the place that the token is
 * bound to. Said of what is private, which is the smaller list: FTS5 reads all of it for frequent words.
 */
export const withoutHidden: SQL = sql`(select ' NOT (scope : ("prv"' || coalesce((select ' NOT (' || case when sb.collection_id = '' then '"own' || sb.user_id || '"' || coalesce((select group_concat(' OR "col' || sx.collection_id || '"', '') from (select distinct collection_id from grants where user_id = sb.user_id or team_id in (select team_id from team_members where user_id = sb.user_id) limit 500) sx), '') else '"col' || sb.collection_id || '"' end || ')' from tokens sb where sb.id = ${text('viewerToken')} and sb.user_id = ${viewerId}), '') || '))')`

/** The word for what a user is. */
export const roleOf = sql<Role>`case when ${t.users.role} = 'admin' then 'admin' when ${t.users.staff} = 1 then 'staff' when ${t.users.robot} = 1 then 'robot' else 'user' end`

/** What people call things, for `audited`: entity/collection and entity/collection/container. */
export const nameOfCollection = (id: SQL): SQL =>
  sql`(select ae.name || '/' || ac.name from collections ac join entities ae on ae.id = ac.entity_id where ac.id = ${id})`
export const nameOfContainer = (id: SQL): SQL =>
  sql`(select ae.name || '/' || ac.name || '/' || an.name from containers an join collections ac on ac.id = an.collection_id join entities ae on ae.id = ac.entity_id where an.id = ${id})`

/** How long an upload of an expired token may still be tagged (R24). */
const TAGGED_MS = 600_000
const doneLately = sql`gu.state = 'done' and gu.closed_at > ${p('now')} - ${sql.raw(String(TAGGED_MS))}`

/**
 * R24: the token has ended in the middle of a push of its own: of the image, whose upload runs or is
 * done, or, for tags, of the image or one in the container, that is done; under OCI of an upload that
 * runs or is done, or, for manifests, of one into the repository that is done. Only asked of an ended one.
 */
const inGrace = sql`(exists (select 1 from uploads gu where gu.image_id = ${p('graceUpload')} and gu.token_id = tokens.id and (gu.state in ('open', 'finishing') and gu.expires_at > ${p('now')} or ${doneLately})) or exists (select 1 from uploads gu where gu.image_id in (select id from images where id = ${p('graceTag')} union all select id from images where container_id = ${p('graceTag')}) and gu.token_id = tokens.id and ${doneLately}) or exists (select 1 from oci_uploads gu where gu.id = ${text('graceOci')} and gu.token_id = tokens.id and (gu.state = 'open' and gu.expires_at > ${p('now')} or ${doneLately})) or exists (select 1 from oci_uploads gu where instr(${p('graceOci')}, '/') > 0 and gu.token_id = tokens.id and ${doneLately} and ${nameOfContainer(sql`gu.container_id`)} = ${text('graceOci')}))`

/** The user is not disabled, nor, of a robot, whoever manages it. */
export const isEnabled = (user: SQLWrapper): SQL =>
  sql`${user}.disabled = 0 and not exists (select 1 from users um where um.id = ${user}.manager_id and um.disabled = 1)`

/** Token row and user of the viewer, when both stand. One statement, in the same trip as the object. */
export function standingQuery(db: Handle['db']) {
  const endsAt = sql<number>`min(${t.tokens.expiresAt}, ${p('viewerUntil')})`
  return prepare(
    () =>
      db
        .select({
          endsAt,
          userId: t.users.id,
          userName: t.users.name,
          role: roleOf,
          scopes: t.tokens.scopes,
          collectionId: t.tokens.collectionId,
          containerId: t.tokens.containerId,
        })
        .from(t.tokens)
        .innerJoin(t.users, eq(t.users.id, t.tokens.userId))
        .where(
          and(
            eq(t.tokens.id, text('viewerToken')),
            eq(t.users.id, text('viewerId')),
            isNull(t.tokens.revokedAt),
            // JWT ∩ row: whichever ends first
            sql`(${endsAt} > ${p('now')} or ${inGrace})`,
            isEnabled(t.users),
          ),
        ),
    // who does not stand, or only in grace, is asked for anew
    ([row]) => row?.endsAt ?? 0,
  )
}

/** Values of the placeholders that `mayWrite` and `audited` use. */
export function writerValues(by: Actor | Stranger): Record<string, string | number> {
  const now = by.now.getTime()
  if (!('userId' in by))
    return {
      operator: 'operator' in by ? 1 : 0,
      writerId: '',
      writerName: 'operator' in by ? by.operator : '',
      writerToken: '',
      writerAdmin: 0,
      writerManages: 0,
      writerAddress: by.address ?? '',
      now,
    }
  return {
    operator: 0,
    writerId: by.userId,
    writerName: '',
    writerToken: by.tokenId,
    writerAdmin: by.admin ? 1 : 0,
    writerManages: by.manages ? 1 : 0,
    writerAddress: by.address ?? '',
    now,
  }
}

const writerId = sql`wu.id`

/** The writer's token and user stand; `more` is a condition on their rows `wt` and `wu`. An operator always does. */
export const writerStands = (more: SQL): SQL =>
  sql`(${p('operator')} = 1 or exists (select 1 from tokens wt join users wu on wu.id = wt.user_id where wt.id = ${text('writerToken')} and wu.id = ${text('writerId')} and wt.revoked_at is null and ${isEnabled(sql`wu`)} and ${more}))`

/** The writer owns everything: by role, and through a token with that power. */
export const writerManages = sql`(${p('writerManages')} = 1 and (wu.role = 'admin' or wu.staff = 1) and wt.collection_id = '')`

/**
 * Condition of a guard (R6): the writer's token and user stand, the token reaches the place, and they
 * have at least `level` in the collection (null: its id), or own everything. What does not exist is
 * nobody's: the guard `found` or the statement itself refuses it by its own name. Expiry is not asked
 * again: a token that ran out between the request's first statement and this one does not kill it (R24).
 */
export const mayWrite = (place: Place, level: Level): SQL =>
  writerStands(
    sql`(wt.collection_id = '' or coalesce(wt.collection_id = ${place.collection}${place.container === null ? sql` and wt.container_id = ''` : sql` and wt.container_id in ('', coalesce(${place.container}, wt.container_id))`}, 1)) and (${writerManages} or coalesce(${levelIn(writerId, place.collection)} >= ${sql.raw(String(level))}, 1))`,
  )

/** The same for what is made in an entity itself: its owner, with a token that is not bound. */
export const mayFound = (entityId: SQL): SQL =>
  writerStands(
    sql`wt.collection_id = '' and (${writerManages} or coalesce((select we.owner_id = wu.id from entities we where we.id = ${entityId}), 1))`,
  )

/** Where something is written: ids as SQL; `container` null for what stands in the collection itself. */
export type Place = { collection: SQL; container: SQL | null }

/**
 * A row of the audit log, in the batch of what it tells of (R57). `object` is kind and id
 * (`image 65f…`), `name` what people call it, each as SQL over the values of the batch; `when` leaves
 * the row out where nothing was done. Fields end at 1 KiB (R57): names are ASCII, and 256 characters of
 * anything else take no more.
 */
export const audited = (
  db: Handle['db'],
  { action, object, name, detail = sql`''`, when = sql`1` }: AuditedChange,
) =>
  prepare(() =>
    db
      .insert(t.audit)
      .select(
        sql`select null as seq, ${p('now')} as at, ${p('writerId')} as actor_id, substr(coalesce((select name from users where id = ${text('writerId')}), ${p('writerName')}), 1, 256) as actor, ${p('writerToken')} as token_id, substr(${p('writerAddress')}, 1, 256) as address, ${typeof action === 'string' ? sql.raw(`'${action}'`) : action} as action, ${object} as object, substr(coalesce(${name}, ''), 1, 1024) as name, 'done' as outcome, substr(coalesce(${detail}, ''), 1, 256) as detail, 1 as count where ${when}`,
      ),
  )

export type AuditedChange = {
  action: string | SQL
  object: SQL
  name: SQL
  detail?: SQL
  when?: SQL
}

/**
 * Keys of the keystore that `issuer` may mean, as `mark`: place and revision. The key ids of
 * encryption subkeys (rank 2) mean nobody (R46).
 */
export const keysThatFit = (issuer: SQL): SQL =>
  sql`select fk.seq || ':' || fk.revision as mark from key_names fn join keys fk on fk.seq = fn.key_seq where fn.name = ${issuer} and fn.rank < 2 and fk.removed_at is null order by fk.seq`

/**
 * The policy of a collection is met by a verdict whose signers have these `marks` (JSON): one of them
 * is still the key that it was, and in the collection's list; or, where there is none, claimed by
 * somebody who may write there (R17).
 */
export const acceptedBy = (collectionId: SQL, marks: SQL): SQL =>
  sql`coalesce((select pc.policy <> 'require' or exists (select 1 from json_each(${marks}) pm join keys pk on pk.seq = cast(pm.value as integer) where pk.seq || ':' || pk.revision = pm.value and pk.removed_at is null and case when pc.policy_keys = '[]' then exists (select 1 from users pu where pu.id = pk.owner_id and pu.disabled = 0 and (pu.role = 'admin' or pu.staff = 1 or ${levelIn(sql`pu.id`, sql`pc.id`)} >= 2)) else pk.fingerprint in (select value from json_each(pc.policy_keys)) end) from collections pc where pc.id = ${collectionId}), 1)`

/** Condition of a guard: the policy of the collection is met by the stored verdict of an image (R8). */
export const policyMet = (imageId: SQL): SQL =>
  acceptedBy(
    sql`(select pn.collection_id from images pi join containers pn on pn.id = pi.container_id where pi.id = ${imageId})`,
    sql`coalesce((select pv.marks from images pi join verdicts pv on pv.digest = pi.digest where pi.id = ${imageId}), '[]')`,
  )

export const inCollection: Place = { collection: p('collectionId').getSQL(), container: null }
export const inContainer: Place = {
  collection: sql`(select collection_id from containers where id = ${p('containerId')})`,
  container: p('containerId').getSQL(),
}
export const ofImage: Place = {
  collection: sql`(select gn.collection_id from images gi join containers gn on gn.id = gi.container_id where gi.id = ${p('imageId')})`,
  container: sql`(select container_id from images where id = ${p('imageId')})`,
}

/** Removes index rows; `seqs` is a subselect of images.seq. Followed by `indexImages` of the same. */
export const unindexImages = (db: Handle['db'], seqs: SQL) =>
  prepare(() => db.delete(t.search).where(sql`rowid in (${seqs})`))

/**
 * Writes index rows of the uploaded images whose seq `seqs` yields. Whom they are for is in the index (R30):
 * `scope` is empty for what anybody may see, else `prv` with `own` and the owner's id and `col` and the collection's.
 */
export const indexImages = (db: Handle['db'], seqs: SQL) =>
  prepare(() =>
    db.insert(t.search).select(sql`
      select i.seq as rowid,
        case when c.private = 0 and n.private = 0 then '' else 'prv own' || e.owner_id || ' col' || c.id end as scope,
        e.name || '/' || c.name || '/' || n.name as names,
        (select group_concat(g.name, char(10)) from tags g where g.image_id = i.id) as tags,
        i.description as description,
        (select group_concat(l.value, char(10)) from image_details d, json_each(d.labels) l where d.image_id = i.id) as labels
      from images i
      join containers n on n.id = i.container_id
      join collections c on c.id = n.collection_id
      join entities e on e.id = c.entity_id
      where i.blob_id is not null and i.seq in (${seqs})`),
  )

/** Ends a guarded batch: the guard row must not outlive it. */
export const dropGuard = (db: Handle['db']) => prepare(() => db.delete(t.guard))

/** Recounts the bytes of a container after its images changed. */
export const recountContainer = (db: Handle['db'], containerId: SQL) =>
  prepare(() =>
    db
      .update(t.containers)
      .set({
        size: sql`(select coalesce(sum(size), 0) from images where container_id = ${t.containers.id} and blob_id is not null)`,
        updatedAt: sql`${p('now')}`,
      })
      .where(sql`${t.containers.id} = ${containerId}`),
  )
