/** Rows on their way out, in pages, and on their way in: staged, then made visible in one batch. */
import { and, asc, eq, gt, isNull, sql, type SQL } from 'drizzle-orm'
import type { SQLiteColumn } from 'drizzle-orm/sqlite-core'
import type { MovedKind, MovedRow } from '../core/model.ts'
import { RegistryError } from '../errors.ts'
import type { ExportsBook, ImportConflict, ImportsBook } from '../ports.ts'
import { guarded, isDuplicate } from './failure.ts'
import {
  audited,
  dropGuard,
  indexImages,
  isLive,
  isLost,
  p,
  roleOf,
  text,
  writerStands,
  writerValues,
} from './fragments.ts'
import { prepare, type Handle } from './handle.ts'
import { indexKeys, nameKeys, unindexKeys, unnameKeys } from './keys.ts'
import { named, toScopes } from './rows.ts'
import * as t from './schema.ts'

export function sqliteExports(handle: Handle): ExportsBook {
  const { db } = handle
  const byId = (column: SQLiteColumn) => gt(column, text('after'))
  const vouched = sql`select vu.id from users vu where vu.subject is not null`
  const q = {
    begin: audited(db, {
      action: 'export',
      object: sql`'export ' || ${p('exportId')}`,
      name: sql`${p('exportId')}`,
    }),
    user: prepare(() =>
      db
        .select(
          named({
            id: t.users.id,
            name: t.users.name,
            role: roleOf,
            disabled: t.users.disabled,
            createdAt: t.users.createdAt,
            managerId: t.users.managerId,
            deletedAt: t.users.deletedAt,
          }),
        )
        .from(t.users)
        // whom another issuer vouches for comes back by themselves, and so do their tokens and grants
        .where(and(byId(t.users.id), isNull(t.users.subject)))
        .orderBy(asc(t.users.id))
        .limit(p('limit')),
    ),
    team: prepare(() =>
      db.select().from(t.teams).where(byId(t.teams.id)).orderBy(asc(t.teams.id)).limit(p('limit')),
    ),
    member: prepare(() =>
      db
        .select()
        .from(t.teamMembers)
        .where(
          sql`(team_id, user_id) > (${text('first')}, ${text('second')}) and user_id not in (${vouched})`,
        )
        .orderBy(asc(t.teamMembers.teamId), asc(t.teamMembers.userId))
        .limit(p('limit')),
    ),
    grant: prepare(() =>
      db
        .select(
          named({
            id: t.grants.id,
            collectionId: t.grants.collectionId,
            holder: sql<'user' | 'team'>`case when user_id is null then 'team' else 'user' end`,
            holderId: sql<string>`coalesce(user_id, team_id)`,
            level: sql<1 | 2 | 3>`level`,
            createdAt: t.grants.createdAt,
          }),
        )
        .from(t.grants)
        .where(and(byId(t.grants.id), sql`(user_id is null or user_id not in (${vouched}))`))
        .orderBy(asc(t.grants.id))
        .limit(p('limit')),
    ),
    star: prepare(() =>
      db
        .select()
        .from(t.stars)
        .where(
          sql`(container_id, user_id) > (${text('first')}, ${text('second')}) and user_id not in (${vouched})`,
        )
        .orderBy(asc(t.stars.containerId), asc(t.stars.userId))
        .limit(p('limit')),
    ),
    /** Statistics alone: the counts of limits (`limit.…`) are of the place where they were made. */
    pulls: prepare(() =>
      db
        .select(
          named({
            containerId: sql<string>`substr(name, 7)`,
            week: t.counters.period,
            count: t.counters.count,
          }),
        )
        .from(t.counters)
        .where(
          sql`name >= 'pulls:' and name < 'pulls;' and (name, period) > ('pulls:' || ${p('first')}, cast(${p('second')} as integer)) and exists (select 1 from containers where id = substr(counters.name, 7))`,
        )
        .orderBy(asc(t.counters.name), asc(t.counters.period))
        .limit(p('limit')),
    ),
    token: prepare(() =>
      db
        .select()
        .from(t.tokens)
        .where(and(byId(t.tokens.id), sql`user_id not in (${vouched})`))
        .orderBy(asc(t.tokens.id))
        .limit(p('limit')),
    ),
    entity: prepare(() =>
      db
        .select({
          id: t.entities.id,
          ownerId: t.entities.ownerId,
          name: t.entities.name,
          description: t.entities.description,
          defaultPrivate: t.entities.defaultPrivate,
          quota: t.entities.quota,
          createdAt: t.entities.createdAt,
          updatedAt: t.entities.updatedAt,
        })
        .from(t.entities)
        .where(byId(t.entities.id))
        .orderBy(asc(t.entities.id))
        .limit(p('limit')),
    ),
    collection: prepare(() =>
      db
        .select()
        .from(t.collections)
        .where(byId(t.collections.id))
        .orderBy(asc(t.collections.id))
        .limit(p('limit')),
    ),
    container: prepare(() =>
      db
        .select({
          id: t.containers.id,
          collectionId: t.containers.collectionId,
          name: t.containers.name,
          description: t.containers.description,
          fullDescription: t.containers.fullDescription,
          private: t.containers.private,
          downloads: t.containers.downloads,
          frozen: t.containers.frozen,
          createdAt: t.containers.createdAt,
          updatedAt: t.containers.updatedAt,
        })
        .from(t.containers)
        .where(byId(t.containers.id))
        .orderBy(asc(t.containers.id))
        .limit(p('limit')),
    ),
    image: prepare(() =>
      db
        .select({
          seq: t.images.seq,
          id: t.images.id,
          containerId: t.images.containerId,
          digest: t.images.digest,
          size: t.images.size,
          arch: t.images.arch,
          description: t.images.description,
          createdBy: t.images.createdBy,
          createdAt: t.images.createdAt,
          updatedAt: t.images.updatedAt,
        })
        .from(t.images)
        .innerJoin(t.blobs, and(eq(t.blobs.id, t.images.blobId), isLive))
        .where(sql`${t.images.seq} > cast(${p('after')} as integer)`)
        .orderBy(asc(t.images.seq))
        .limit(p('limit')),
    ),
    tag: prepare(() =>
      db
        .select()
        .from(t.tags)
        .where(
          sql`(container_id, name, arch) > (${text('container')}, ${text('name')}, ${text('arch')})`,
        )
        .orderBy(asc(t.tags.containerId), asc(t.tags.name), asc(t.tags.arch))
        .limit(p('limit')),
    ),
    key: prepare(() =>
      db
        .select({
          fingerprint: t.keys.fingerprint,
          armor: t.keys.armor,
          ownerId: sql<string | null>`case when owner_id not in (${vouched}) then owner_id end`.as(
            'ownerId',
          ),
          addedBy: t.keys.addedBy,
          addedAt: t.keys.addedAt,
          updatedAt: t.keys.updatedAt,
          removedAt: t.keys.removedAt,
        })
        .from(t.keys)
        .where(byId(t.keys.fingerprint))
        .orderBy(asc(t.keys.fingerprint))
        .limit(p('limit')),
    ),
    membership: prepare(() =>
      db
        .select(
          named({
            containerId: t.repositoryBlobs.containerId,
            digest: t.repositoryBlobs.digest,
            sha256: t.blobs.digest,
            size: t.blobs.size,
            createdAt: sql<number>`repository_blobs.created_at`,
          }),
        )
        .from(t.repositoryBlobs)
        .innerJoin(t.blobs, and(eq(t.blobs.id, t.repositoryBlobs.blobId), isLive))
        .where(
          sql`(repository_blobs.container_id, repository_blobs.digest) > (${text('first')}, ${text('second')})`,
        )
        .orderBy(asc(t.repositoryBlobs.containerId), asc(t.repositoryBlobs.digest))
        .limit(p('limit')),
    ),
    manifest: prepare(() =>
      db
        .select(
          named({
            containerId: t.manifests.containerId,
            digest: t.manifests.digest,
            mediaType: t.manifests.mediaType,
            text: t.manifestPieces.text,
            pieces: sql<number>`(select count(*) from manifest_pieces mp where mp.container_id = manifests.container_id and mp.manifest = manifests.digest)`,
            blobs: sql<string>`(select json_group_array(mr.digest) from manifest_refs mr where mr.container_id = manifests.container_id and mr.manifest = manifests.digest and mr.kind = 'blob')`,
            createdBy: t.manifests.createdBy,
            createdAt: t.manifests.createdAt,
          }),
        )
        .from(t.manifests)
        .innerJoin(
          t.manifestPieces,
          sql`manifest_pieces.container_id = manifests.container_id and manifest_pieces.manifest = manifests.digest and manifest_pieces.number = 0`,
        )
        .where(
          sql`(manifests.container_id, manifests.digest) > (${text('first')}, ${text('second')})`,
        )
        .orderBy(asc(t.manifests.containerId), asc(t.manifests.digest))
        .limit(p('limit')),
    ),
    piece: prepare(() =>
      db
        .select()
        .from(t.manifestPieces)
        .where(
          sql`number > 0 and (container_id, manifest, number) > (${text('first')}, ${text('second')}, cast(${p('third')} as integer))`,
        )
        .orderBy(
          asc(t.manifestPieces.containerId),
          asc(t.manifestPieces.manifest),
          asc(t.manifestPieces.number),
        )
        .limit(p('limit')),
    ),
    ociTag: prepare(() =>
      db
        .select()
        .from(t.ociTags)
        .where(sql`(container_id, name) > (${text('first')}, ${text('second')})`)
        .orderBy(asc(t.ociTags.containerId), asc(t.ociTags.name))
        .limit(p('limit')),
    ),
    blob: prepare(() =>
      db
        .select({ key: t.blobs.key, size: t.blobs.size, live: sql<number>`state = 'live'` })
        .from(t.blobs)
        .where(sql`digest = ${text('digest')} and state in ('live', 'dying')`)
        .orderBy(sql`state = 'live' desc`)
        .limit(1),
    ),
  }

  /** The page of one kind, and the place after its last row. */
  async function page(
    kind: MovedKind,
    after: string,
    limit: number,
  ): Promise<{ rows: MovedRow[]; last: string }> {
    const at = { after, limit }
    const [first = '', second = '', third = '0'] = after.split('/')
    const pair = { first, second, limit }
    switch (kind) {
      case 'token': {
        const [rows] = await handle.read(q.token(at))
        return {
          rows: rows.map((row) => ({ type: kind, ...row, scopes: toScopes(row.scopes) })),
          last: rows.at(-1)?.id ?? '',
        }
      }
      case 'image': {
        const [rows] = await handle.read(q.image({ after: after === '' ? '0' : after, limit }))
        return {
          rows: rows.map(({ seq: _seq, ...row }) => ({ type: kind, ...row })),
          last: String(rows.at(-1)?.seq ?? ''),
        }
      }
      case 'tag': {
        const [container = '', name = '', arch = ''] = after.split('/')
        const [rows] = await handle.read(q.tag({ container, name, arch, limit }))
        const last = rows.at(-1)
        return {
          rows: rows.map((row) => ({ type: kind, ...row })),
          last: last === undefined ? '' : `${last.containerId}/${last.name}/${last.arch}`,
        }
      }
      case 'key': {
        const [rows] = await handle.read(q.key(at))
        return {
          rows: rows.map((row) => ({ type: kind, ...row })),
          last: rows.at(-1)?.fingerprint ?? '',
        }
      }
      case 'membership': {
        const [rows] = await handle.read(q.membership(pair))
        const last = rows.at(-1)
        return {
          rows: rows.map((row) => ({ type: kind, ...row })),
          last: last === undefined ? '' : `${last.containerId}/${last.digest}`,
        }
      }
      case 'manifest': {
        const [rows] = await handle.read(q.manifest(pair))
        const last = rows.at(-1)
        return {
          rows: rows.map((row) => ({
            type: kind,
            ...row,
            blobs: JSON.parse(row.blobs) as string[],
          })),
          last: last === undefined ? '' : `${last.containerId}/${last.digest}`,
        }
      }
      case 'piece': {
        const [rows] = await handle.read(q.piece({ ...pair, third }))
        const last = rows.at(-1)
        return {
          rows: rows.map((row) => ({ type: kind, ...row })),
          last: last === undefined ? '' : `${last.containerId}/${last.manifest}/${last.number}`,
        }
      }
      case 'ociTag': {
        const [rows] = await handle.read(q.ociTag(pair))
        const last = rows.at(-1)
        return {
          rows: rows.map((row) => ({ type: kind, ...row })),
          last: last === undefined ? '' : `${last.containerId}/${last.name}`,
        }
      }
      case 'user': {
        const [rows] = await handle.read(q.user(at))
        return { rows: rows.map((row) => ({ type: kind, ...row })), last: rows.at(-1)?.id ?? '' }
      }
      case 'team': {
        const [rows] = await handle.read(q.team(at))
        return { rows: rows.map((row) => ({ type: kind, ...row })), last: rows.at(-1)?.id ?? '' }
      }
      case 'member': {
        const [rows] = await handle.read(q.member(pair))
        const last = rows.at(-1)
        return {
          rows: rows.map((row) => ({ type: kind, ...row })),
          last: last === undefined ? '' : `${last.teamId}/${last.userId}`,
        }
      }
      case 'grant': {
        const [rows] = await handle.read(q.grant(at))
        return { rows: rows.map((row) => ({ type: kind, ...row })), last: rows.at(-1)?.id ?? '' }
      }
      case 'star': {
        const [rows] = await handle.read(q.star(pair))
        const last = rows.at(-1)
        return {
          rows: rows.map((row) => ({ type: kind, ...row })),
          last: last === undefined ? '' : `${last.containerId}/${last.userId}`,
        }
      }
      case 'pulls': {
        const [rows] = await handle.read(q.pulls(pair))
        const last = rows.at(-1)
        return {
          rows: rows.map((row) => ({ type: kind, ...row })),
          last: last === undefined ? '' : `${last.containerId}/${last.week}`,
        }
      }
      case 'entity': {
        const [rows] = await handle.read(q.entity(at))
        return { rows: rows.map((row) => ({ type: kind, ...row })), last: rows.at(-1)?.id ?? '' }
      }
      case 'collection': {
        const [rows] = await handle.read(q.collection(at))
        return { rows: rows.map((row) => ({ type: kind, ...row })), last: rows.at(-1)?.id ?? '' }
      }
      case 'container': {
        const [rows] = await handle.read(q.container(at))
        return {
          rows: rows.map((row) => ({ type: kind, ...row })),
          last: rows.at(-1)?.id ?? '',
        }
      }
    }
  }

  return {
    async begin(exportId, by) {
      await handle.write(q.begin({ ...writerValues(by), exportId }))
    },
    async rows(kind, after, limit) {
      const { rows, last } = await page(kind, after, limit)
      return { rows, next: rows.length < limit ? null : last }
    },
    async blob(digest) {
      const [rows] = await handle.read(q.blob({ digest }))
      return rows[0] === undefined ? null : { ...rows[0], live: rows[0].live === 1 }
    },
  }
}

/** `{}`, the config of the manifest of a SIF: a repository that has an image has it. */
const EMPTY_CONFIG = 'sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a'

/** The staged bytes of `b` have come, or were here before. */
const bytesThere = sql.raw(
  `(b.key is not null or exists (select 1 from blobs lb where lb.digest = b.digest and lb.state = 'live' and lb.size = b.size))`,
)

/** Kind of the row that a row's parent_id names. */
const parentKind = (row: string) =>
  sql.raw(
    `case ${row}.kind when 'token' then 'user' when 'key' then 'user' when 'entity' then 'user' when 'collection' then 'entity' when 'container' then 'collection' when 'image' then 'container' when 'tag' then 'image' when 'member' then 'team' when 'grant' then 'collection' when 'star' then 'container' when 'pulls' then 'container' when 'membership' then 'container' when 'manifest' then 'container' when 'piece' then 'manifest' when 'ociTag' then 'manifest' end`,
  )

export function sqliteImports(handle: Handle): ImportsBook {
  const { db } = handle
  const here = p('importId')
  /** Staged rows of one kind as `r`, for the end of a select. */
  const staged = (kind: MovedKind) =>
    sql.raw(`import_rows r where r.kind = '${kind}' and r.import_id = `).append(sql`${here}`)
  const field = (name: string, row = 'r') => sql.raw(`json_extract(${row}.record, '$.${name}')`)

  /** The user here of a user there: the one of the same name (rows stand when this is asked). */
  const userHere = (id: SQL) =>
    sql`(select hu.id from import_rows hr join users hu on hu.name = hr.name where hr.import_id = ${here} and hr.kind = 'user' and hr.id = ${id})`
  const entityHere = (id: SQL) =>
    sql`(select he.id from import_rows hr join entities he on he.name = hr.name where hr.import_id = ${here} and hr.kind = 'entity' and hr.id = ${id})`
  const liveOf = (digest: SQL) =>
    sql`(select lb.id from blobs lb where lb.digest = ${digest} and lb.state = 'live')`

  // D1 takes at most five SELECTs in one compound
  const conflicting = sql`
    select r.kind as kind, r.name as name, 'holds something' as why from ${staged('entity')} and exists (select 1 from entities e join collections c on c.entity_id = e.id where e.name = r.name)
    union all
    select r.kind, r.name, 'other owner' from ${staged('entity')} and exists (select 1 from entities e where e.name = r.name and e.owner_id is not ${userHere(sql`r.parent_id`)})
    union all
    select r.kind, r.name, 'other user' from ${staged('user')} and exists (select 1 from users u where u.name = r.name and (u.robot <> (${field('role')} = 'robot') or (u.deleted_at is null) <> (${field('deletedAt')} is null) or u.subject is not null))
    union all
    select r.kind, r.name, 'name taken' from ${staged('team')} and exists (select 1 from teams m where m.name = r.name)
    union all
    select r.kind, r.name, 'id taken' from import_rows r where r.import_id = ${here} and case r.kind
      when 'user' then exists (select 1 from users u where u.id = r.id and u.name <> r.name)
      when 'entity' then exists (select 1 from entities e where e.id = r.id and e.name <> r.name)
      when 'collection' then exists (select 1 from collections c where c.id = r.id)
      when 'container' then exists (select 1 from containers n where n.id = r.id)
      when 'image' then exists (select 1 from images i where i.id = r.id)
      when 'team' then exists (select 1 from teams m where m.id = r.id)
      when 'grant' then exists (select 1 from grants g where g.id = r.id)
    end`

  /** The second row that some rows need: a robot its manager, a member and a star their user, a grant its holder. */
  const needed = sql`coalesce(${field('managerId')}, ${field('userId')}, ${field('holderId')})`

  /** Rows that need one which is not in the file, or that do not fit their image or its bytes. */
  const dangling = sql`
    select 1 from import_rows r where r.import_id = ${here} and r.kind in ('user', 'member', 'star', 'grant') and ${needed} is not null and not exists (select 1 from import_rows q where q.import_id = ${here} and q.kind = coalesce(${field('holder')}, 'user') and q.id = ${needed})
    union all
    select 1 from import_rows r where r.import_id = ${here} and r.kind not in ('user', 'team') and not (r.kind = 'key' and r.parent_id = '') and not exists (select 1 from import_rows q where q.import_id = ${here} and q.kind = ${parentKind('r')} and q.id = r.parent_id)
    union all
    select 1 from ${staged('tag')} and exists (select 1 from import_rows q join import_blobs b on b.import_id = q.import_id and b.digest = ${field('digest', 'q')} where q.import_id = ${here} and q.kind = 'image' and q.id = r.parent_id and (${field('containerId', 'q')} <> ${field('containerId')} or coalesce(json_extract(b.facts, '$.arch'), 'unknown') not in ('unknown', ${field('arch')})))
    union all
    select 1 from ${staged('image')} and exists (select 1 from import_blobs b where b.import_id = ${here} and b.digest = ${field('digest')} and b.size <> ${field('size')})`

  /**
   * Manifests whose text is not whole, or that name blobs which neither a membership nor an image of
   * their container is, and memberships that are not of their bytes.
   */
  const danglingOci = sql`
    select 1 from ${staged('manifest')} and (${field('size')} is null or exists (select 1 from json_each(r.record, '$.refs') x where json_extract(x.value, '$.kind') = 'blob' and json_extract(x.value, '$.digest') <> ${sql.raw(`'${EMPTY_CONFIG}'`)} and not exists (select 1 from import_rows q where q.import_id = ${here} and q.kind = 'membership' and q.id = r.parent_id || '/' || json_extract(x.value, '$.digest') and ${field('size', 'q')} = json_extract(x.value, '$.size')) and not exists (select 1 from import_rows q where q.import_id = ${here} and q.kind = 'image' and q.name = substr(json_extract(x.value, '$.digest'), 8) and q.parent_id = r.parent_id and ${field('size', 'q')} = json_extract(x.value, '$.size'))))
    union all
    select 1 from ${staged('piece')} and exists (select 1 from import_rows q where q.import_id = ${here} and q.kind = 'manifest' and q.id = r.parent_id and ${field('number')} >= ${field('pieces', 'q')})
    union all
    select 1 from ${staged('membership')} and exists (select 1 from import_blobs b where b.import_id = ${here} and b.digest = r.name and (b.size <> ${field('size')} or (b.facts is not null and ${field('digest')} not in ('sha256:' || b.digest, coalesce('sha512:' || json_extract(b.facts, '$.sha512'), '')))))`

  const unready = sql`
    select 1 from ${staged('image')} and not exists (select 1 from import_blobs b where b.import_id = ${here} and b.digest = ${field('digest')} and b.facts is not null and json_extract(b.facts, '$.opaque') is null and ${bytesThere})
    union all
    select 1 from ${staged('membership')} and not exists (select 1 from import_blobs b where b.import_id = ${here} and b.digest = r.name and b.facts is not null and ${bytesThere})`

  /** Keys that have changed here since they were merged with those of the file. */
  const changedKeys = sql`
    select 1 from ${staged('key')} and coalesce((select k.revision from keys k where k.fingerprint = r.id), 0) <> ${field('revision')}`

  const isOpen = sql`exists (select 1 from imports where id = ${here} and state = 'open')`
  const seqs = sql`select si.seq from import_rows r join images si on si.id = r.id where r.kind = 'image' and r.import_id = ${here}`

  const keySeqs = sql`select ik.seq from import_rows r join keys ik on ik.fingerprint = r.id where r.kind = 'key' and r.import_id = ${here}`

  const q = {
    dropGuard: dropGuard(db),
    openGuard: prepare(() => db.insert(t.guard).values({ claimed: isOpen })),
    insert: prepare(() =>
      db.insert(t.imports).select(
        sql`select ${p('id')} as id, ${p('exportId')} as export_id, 'open' as state, null as sha256, ${p('now')} as created_at, ${p('expiresAt')} as expires_at, null as closed_at
          where not exists (select 1 from imports where export_id = ${p('exportId')} and state <> 'aborted')`,
      ),
    ),
    /** A file that comes again may be another one of the same name: its rows are sent anew. */
    forgetOpenRows: prepare(() =>
      db
        .delete(t.importRows)
        .where(
          sql`import_id in (select id from imports where export_id = ${p('exportId')} and state = 'open')`,
        ),
    ),
    ofExport: prepare(() =>
      db
        .select()
        .from(t.imports)
        .where(sql`export_id = ${text('exportId')} and state <> 'aborted'`),
    ),
    find: prepare(() =>
      db
        .select()
        .from(t.imports)
        .where(eq(t.imports.id, text('id'))),
    ),
    extend: prepare(() =>
      db
        .update(t.imports)
        .set({ expiresAt: sql`${p('expiresAt')}` })
        .where(sql`id = ${here}`),
    ),
    stageRows: prepare(() =>
      db
        .insert(t.importRows)
        .select(
          sql`select null as seq, ${here} as import_id, json_extract(value, '$.kind') as kind, json_extract(value, '$.id') as id, json_extract(value, '$.parentId') as parent_id, json_extract(value, '$.name') as name, json_extract(value, '$.record') as record from json_each(${p('rows')}) where true`,
        )
        .onConflictDoUpdate({
          target: [t.importRows.importId, t.importRows.kind, t.importRows.id],
          set: {
            parentId: sql`excluded.parent_id`,
            name: sql`excluded.name`,
            record: sql`excluded.record`,
          },
          // a manifest was checked with the pieces that had come
          setWhere: sql`import_rows.kind <> 'piece'`,
        }),
    ),
    stageBlob: prepare(() =>
      db
        .insert(t.importBlobs)
        .values({
          importId: here,
          digest: p('digest'),
          size: p('size'),
          blobId: p('blobId'),
          key: p('key'),
        })
        .onConflictDoUpdate({
          target: [t.importBlobs.importId, t.importBlobs.digest],
          set: {
            size: sql`excluded.size`,
            blobId: sql`excluded.blob_id`,
            key: sql`excluded.key`,
            handle: null,
            facts: null,
          },
        }),
    ),
    setHandle: prepare(() =>
      db
        .update(t.importBlobs)
        .set({ handle: sql`${p('handle')}` })
        .where(sql`import_id = ${here} and digest = ${p('digest')} and key = ${p('key')}`),
    ),
    readyGuard: prepare(() =>
      db.insert(t.guard).values({
        claimed: isOpen,
        found: sql`exists (select 1 from import_blobs where import_id = ${here} and digest = ${p('digest')} and key is ${p('key')})`,
      }),
    ),
    ready: prepare(() =>
      db
        .update(t.importBlobs)
        .set({ facts: sql`${p('facts')}`, handle: null })
        .where(sql`import_id = ${here} and digest = ${p('digest')}`),
    ),
    stagedBlob: prepare(() =>
      db
        .select({
          digest: t.importBlobs.digest,
          size: t.importBlobs.size,
          key: t.importBlobs.key,
          handle: t.importBlobs.handle,
          ready: sql<number>`facts is not null and (key is not null or exists (select 1 from blobs lb where lb.digest = import_blobs.digest and lb.state = 'live'))`,
        })
        .from(t.importBlobs)
        .where(sql`import_id = ${here} and digest = ${p('digest')}`),
    ),
    stagedNames: prepare(() =>
      db
        .select({ digest: sql<string>`json_extract(record, '$.digest')`.as('digest') })
        .from(t.importRows)
        .where(sql`import_id = ${here} and kind = 'membership' and name = ${text('sha256')}`),
    ),
    stagedManifest: prepare(() =>
      db
        .select({ record: t.importRows.record })
        .from(t.importRows)
        .where(sql`import_id = ${here} and kind = 'manifest' and id = ${text('manifest')}`),
    ),
    stagedPieces: prepare(() =>
      db
        .select({ text: sql<string>`json_extract(record, '$.text')`.as('text') })
        .from(t.importRows)
        .where(
          sql`import_id = ${here} and kind = 'piece' and name = ${text('digest')} and parent_id = ${text('manifest')}`,
        )
        .orderBy(sql`json_extract(record, '$.number')`),
    ),
    conflicts: prepare(() =>
      db
        .select({
          kind: sql<MovedKind>`kind`,
          name: sql<string>`name`,
          why: sql<ImportConflict['why']>`why`,
        })
        .from(sql`(${conflicting})`)
        .limit(p('limit')),
    ),

    list: prepare(() =>
      db
        .select(
          named({
            id: t.imports.id,
            exportId: t.imports.exportId,
            createdAt: t.imports.createdAt,
            expiresAt: t.imports.expiresAt,
            rows: sql<number>`(select count(*) from import_rows r where r.import_id = imports.id)`,
            bytes: sql<number>`(select coalesce(sum(b.size), 0) from import_blobs b where b.import_id = imports.id and b.facts is not null)`,
          }),
        )
        .from(t.imports)
        .where(eq(t.imports.state, 'open'))
        .orderBy(asc(t.imports.createdAt), asc(t.imports.id))
        .limit(1000),
    ),

    // The flip. Rows of this import alone are looked at, and all of them or none.
    flipGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: writerStands(
          sql`${p('writerAdmin')} = 1 and wu.role = 'admin' and wt.collection_id = ''`,
        ),
        claimed: isOpen,
        // of an import that has ended the rows are gone, which is not what is wrong with it
        found: sql`not ${isOpen} or ((select count(*) from import_rows where import_id = ${here}) = ${p('rows')} and not exists (${dangling}) and not exists (${danglingOci}))`,
        readable: sql`not exists (${unready})`,
        first: sql`not exists (${conflicting}) and not exists (${changedKeys})`,
      }),
    ),
    users: prepare(() =>
      db
        .insert(t.users)
        .select(
          sql`select r.id as id, r.name as name, case when ${p('keepPower')} = 1 and ${field('role')} = 'admin' then 'admin' else 'user' end as role, ${field('disabled')} as disabled, ${field('createdAt')} as created_at, ${p('keepPower')} = 1 and ${field('role')} = 'staff' as staff, case when ${field('role')} = 'robot' then coalesce(${userHere(field('managerId'))}, ${field('managerId')}) end as manager_id, ${field('role')} = 'robot' as robot, null as subject, ${field('deletedAt')} as deleted_at from ${staged('user')} and not exists (select 1 from users u where u.name = r.name) order by r.seq`,
        ),
    ),
    /** An entity that waits here for its owner's images takes what was said of it there. */
    entitiesHere: prepare(() =>
      db
        .update(t.entities)
        .set({
          description: sql`(select ${field('description')} from ${staged('entity')} and r.name = entities.name)`,
          defaultPrivate: sql`(select ${field('defaultPrivate')} from ${staged('entity')} and r.name = entities.name)`,
          quota: sql`coalesce(quota, (select ${field('quota')} from ${staged('entity')} and r.name = entities.name))`,
        })
        .where(sql`name in (select r.name from ${staged('entity')})`),
    ),
    entities: prepare(() =>
      db
        .insert(t.entities)
        .select(
          sql`select r.id as id, r.name as name, ${field('description')} as description, ${userHere(sql`r.parent_id`)} as owner_id, ${field('defaultPrivate')} as default_private, ${field('createdAt')} as created_at, ${field('updatedAt')} as updated_at, ${field('quota')} as quota, 0 as used from ${staged('entity')} and not exists (select 1 from entities e where e.name = r.name) order by r.seq`,
        ),
    ),
    collections: prepare(() =>
      db
        .insert(t.collections)
        .select(
          sql`select r.id as id, ${entityHere(sql`r.parent_id`)} as entity_id, r.name as name, ${field('description')} as description, ${field('private')} as private, ${field('createdAt')} as created_at, ${field('updatedAt')} as updated_at, coalesce(${field('policy')}, 'off') as policy, coalesce(${field('policyKeys')}, '[]') as policy_keys from ${staged('collection')} order by r.seq`,
        ),
    ),
    containers: prepare(() =>
      db
        .insert(t.containers)
        .select(
          sql`select r.id as id, r.parent_id as collection_id, r.name as name, ${field('description')} as description, ${field('fullDescription')} as full_description, ${field('private')} as private, 0 as size, ${field('downloads')} as downloads, ${field('createdAt')} as created_at, ${field('updatedAt')} as updated_at, coalesce(${field('frozen')}, 0) as frozen, 0 as stars from ${staged('container')} order by r.seq`,
        ),
    ),
    blobs: prepare(() =>
      db
        .insert(t.blobs)
        .select(
          sql`select b.blob_id as id, b.key as key, b.digest as digest, b.size as size, 'live' as state, ${p('now')} as created_at, null as dying_at from import_blobs b where b.import_id = ${here} and b.key is not null and b.facts is not null and ${liveOf(sql`b.digest`)} is null`,
        ),
    ),
    /** R60: bytes that were lost here have come back. */
    heal: prepare(() =>
      db
        .update(t.images)
        .set({ blobId: liveOf(sql`images.digest`) })
        .where(
          sql`digest in (select digest from import_blobs where import_id = ${here} and key is not null) and blob_id in (select id from blobs where ${isLost}) and ${liveOf(sql`images.digest`)} is not null`,
        ),
    ),
    images: prepare(() =>
      db
        .insert(t.images)
        .select(
          sql`select null as seq, r.id as id, r.parent_id as container_id, b.digest as digest, ${field('description')} as description, ${liveOf(sql`b.digest`)} as blob_id, b.size as size, coalesce(nullif(json_extract(b.facts, '$.arch'), 'unknown'), ${field('arch')}) as arch, json_extract(b.facts, '$.signed') as signed, json_extract(b.facts, '$.encrypted') as encrypted, json_extract(b.facts, '$.fingerprints') as fingerprints, coalesce(${userHere(field('createdBy'))}, ${field('createdBy')}) as created_by, ${field('createdAt')} as created_at, ${field('updatedAt')} as updated_at, null as manifest from import_rows r join import_blobs b on b.import_id = r.import_id and b.digest = ${field('digest')} where r.kind = 'image' and r.import_id = ${here} order by r.seq`,
        ),
    ),
    /** Judged anew by the keys that are here: a file's word for it counts for nothing (R42). */
    verdicts: prepare(() =>
      db
        .insert(t.verdicts)
        .select(
          sql`select b.digest as digest, 'pending' as verdict, 'its signatures have not been checked here' as why, '[]' as signers, '[]' as marks, json_extract(b.facts, '$.signatures') as facts from import_blobs b where b.import_id = ${here} and json_extract(b.facts, '$.signatures') is not null`,
        )
        .onConflictDoNothing(),
    ),
    issuers: prepare(() =>
      db
        .insert(t.signatureIssuers)
        .select(
          sql`select distinct s.value as issuer, b.digest as digest, '?' as marks from import_blobs b, json_each(b.facts, '$.signatures.signatures') g, json_each(g.value, '$.issuers') s where b.import_id = ${here}`,
        )
        .onConflictDoNothing(),
    ),
    details: prepare(() =>
      db
        .insert(t.imageDetails)
        .select(
          sql`select r.id as image_id, json_extract(b.facts, '$.definition') as definition, json_extract(b.facts, '$.labels') as labels, json_extract(b.facts, '$.partitions') as partitions, json_extract(b.facts, '$.truncated') as truncated from import_rows r join import_blobs b on b.import_id = r.import_id and b.digest = ${field('digest')} where r.kind = 'image' and r.import_id = ${here}`,
        ),
    ),
    tags: prepare(() =>
      db
        .insert(t.tags)
        .select(
          sql`select ${field('containerId')} as container_id, r.name as name, ${field('arch')} as arch, r.parent_id as image_id, ${field('updatedAt')} as updated_at, coalesce(${field('frozen')}, 0) as frozen from ${staged('tag')} order by r.seq`,
        ),
    ),
    healMembers: prepare(() =>
      db
        .update(t.repositoryBlobs)
        .set({
          blobId: sql`(select nb.id from blobs ob join blobs nb on nb.digest = ob.digest and nb.state = 'live' where ob.id = repository_blobs.blob_id)`,
        })
        .where(
          sql`blob_id in (select ob.id from import_blobs ib join blobs ob on ob.digest = ib.digest and ob.state = 'lost' where ib.import_id = ${here} and ib.key is not null and ${liveOf(sql`ib.digest`)} is not null)`,
        ),
    ),
    memberships: prepare(() =>
      db
        .insert(t.repositoryBlobs)
        .select(
          sql`select r.parent_id as container_id, ${field('digest')} as digest, ${liveOf(sql`r.name`)} as blob_id, ${field('createdAt')} as created_at from ${staged('membership')} order by r.seq`,
        ),
    ),
    manifests: prepare(() =>
      db
        .insert(t.manifests)
        .select(
          sql`select r.parent_id as container_id, ${field('digest')} as digest, ${field('mediaType')} as media_type, ${field('size')} as size, ${field('subject')} as subject, ${field('artifactType')} as artifact_type, ${field('annotations')} as annotations, coalesce(${userHere(field('createdBy'))}, ${field('createdBy')}) as created_by, ${field('createdAt')} as created_at, ${field('sif')} as sif from ${staged('manifest')} order by r.seq`,
        ),
    ),
    manifestPieces: prepare(() =>
      db
        .insert(t.manifestPieces)
        .select(
          sql`select r.parent_id as container_id, ${field('digest')} as manifest, 0 as number, ${field('text')} as text from ${staged('manifest')} union all select ${field('containerId')}, r.name, ${field('number')}, ${field('text')} from ${staged('piece')}`,
        ),
    ),
    manifestRefs: prepare(() =>
      db
        .insert(t.manifestRefs)
        .select(
          sql`select r.parent_id as container_id, ${field('digest')} as manifest, json_extract(x.value, '$.kind') as kind, json_extract(x.value, '$.digest') as digest from import_rows r, json_each(r.record, '$.refs') x where r.kind = 'manifest' and r.import_id = ${here}`,
        ),
    ),
    /** After the library's tags, whose triggers take those of the same name away. */
    ociTags: prepare(() =>
      db
        .insert(t.ociTags)
        .select(
          sql`select ${field('containerId')} as container_id, r.name as name, ${field('manifest')} as manifest, ${field('updatedAt')} as updated_at, ${field('frozen')} as frozen from ${staged('ociTag')} order by r.seq`,
        ),
    ),
    teams: prepare(() =>
      db
        .insert(t.teams)
        .select(
          sql`select r.id as id, r.name as name, ${field('description')} as description, ${field('open')} as open, ${field('createdAt')} as created_at from ${staged('team')} order by r.seq`,
        ),
    ),
    members: prepare(() =>
      db
        .insert(t.teamMembers)
        .select(
          sql`select r.parent_id as team_id, ${userHere(field('userId'))} as user_id, ${field('owner')} as owner, ${field('joinedAt')} as joined_at from ${staged('member')} order by r.seq`,
        ),
    ),
    grants: prepare(() =>
      db
        .insert(t.grants)
        .select(
          sql`select r.id as id, r.parent_id as collection_id, case ${field('holder')} when 'user' then ${userHere(field('holderId'))} end as user_id, case ${field('holder')} when 'team' then ${field('holderId')} end as team_id, ${field('level')} as level, ${field('createdAt')} as created_at from ${staged('grant')} order by r.seq`,
        ),
    ),
    stars: prepare(() =>
      db
        .insert(t.stars)
        .select(
          sql`select r.parent_id as container_id, ${userHere(field('userId'))} as user_id, ${field('createdAt')} as created_at from ${staged('star')} order by r.seq`,
        ),
    ),
    /** Those of a container that was here before, of the same id, have stayed. */
    pulls: prepare(() =>
      db
        .insert(t.counters)
        .select(
          sql`select 'pulls:' || r.parent_id as name, ${field('week')} as period, ${field('count')} as count from ${staged('pulls')} order by r.seq`,
        )
        .onConflictDoUpdate({
          target: [t.counters.name, t.counters.period],
          set: { count: sql`max(count, excluded.count)` },
        }),
    ),
    imported: audited(db, {
      action: 'import',
      object: sql`'import ' || ${here}`,
      name: sql`(select export_id from imports where id = ${here})`,
      detail: sql`(select group_concat(kind || ' ' || n, ', ') from (select kind, count(*) as n from import_rows where import_id = ${here} group by kind order by kind))`,
    }),
    /** Only with the issuer of the source is a token valid, and only for a user of the same id. */
    tokens: prepare(() =>
      db
        .insert(t.tokens)
        .select(
          sql`select r.id as id, r.parent_id as user_id, r.name as name, (select coalesce(group_concat(value, ' '), '') from json_each(r.record, '$.scopes') where value <> 'admin' or ${p('keepPower')} = 1) as scopes, ${field('createdAt')} as created_at, ${field('expiresAt')} as expires_at, ${field('revokedAt')} as revoked_at, ${field('lastUsedAt')} as last_used_at, coalesce(${field('collectionId')}, '') as collection_id, coalesce(${field('containerId')}, '') as container_id from ${staged('token')} and ${p('sameIssuer')} = 1 and ${userHere(sql`r.parent_id`)} = r.parent_id order by r.seq`,
        )
        .onConflictDoUpdate({
          target: t.tokens.id,
          set: { revokedAt: sql`coalesce(tokens.revoked_at, excluded.revoked_at)` },
        }),
    ),
    /** Whose a key is here, and whether it is hidden, the file does not change. */
    keys: prepare(() =>
      db
        .insert(t.keys)
        .select(
          sql`select null as seq, r.id as fingerprint, 1 as revision, ${userHere(sql`r.parent_id`)} as owner_id, ${userHere(field('addedBy'))} as added_by, ${field('addedAt')} as added_at, ${field('updatedAt')} as updated_at, ${field('removedAt')} as removed_at, ${field('facts')} as facts, ${field('armor')} as armor from ${staged('key')} order by r.seq`,
        )
        .onConflictDoUpdate({
          target: t.keys.fingerprint,
          set: {
            revision: sql`keys.revision + 1`,
            ownerId: sql`coalesce(keys.owner_id, excluded.owner_id)`,
            updatedAt: sql`${p('now')}`,
            facts: sql`excluded.facts`,
            armor: sql`excluded.armor`,
          },
        }),
    ),
    unnameKeys: unnameKeys(db, keySeqs),
    unindexKeys: unindexKeys(db, keySeqs),
    nameKeys: nameKeys(db, keySeqs),
    indexKeys: indexKeys(db, keySeqs),
    sizes: prepare(() =>
      db
        .update(t.containers)
        .set({
          size: sql`(select coalesce(sum(i.size), 0) from images i where i.container_id = containers.id and i.blob_id is not null)`,
        })
        .where(sql`id in (select r.id from ${staged('container')})`),
    ),
    /** An image that was deleted here has come back: its new tickets must count (R25). */
    revive: prepare(() =>
      db
        .delete(t.ended)
        .where(
          sql`id in (select r.id from ${staged('image')}) or id in (select 'public:' || r.id from ${staged('image')})`,
        ),
    ),
    index: indexImages(db, seqs),
    done: prepare(() =>
      db
        .update(t.imports)
        .set({ state: 'done', sha256: sql`${p('sha256')}`, closedAt: sql`${p('now')}` })
        .where(sql`id = ${here}`),
    ),

    counts: prepare(() =>
      db
        .select({ kind: t.importRows.kind, count: sql<number>`count(*)` })
        .from(t.importRows)
        .where(sql`import_id = ${here} and (kind <> 'token' or id in (select id from tokens))`)
        .groupBy(t.importRows.kind),
    ),
    bytes: prepare(() =>
      db
        .select({ bytes: sql<number>`coalesce(sum(size), 0)` })
        .from(t.importBlobs)
        .where(sql`import_id = ${here}`),
    ),
    demoted: prepare(() =>
      db
        .select({ name: t.importRows.name })
        .from(t.importRows)
        .where(
          sql`import_id = ${here} and kind = 'user' and json_extract(record, '$.role') in ('admin', 'staff') and exists (select 1 from users u where u.name = import_rows.name and u.role <> 'admin' and not (u.staff = 1 and json_extract(record, '$.role') = 'staff'))`,
        )
        .orderBy(t.importRows.name)
        .limit(1000),
    ),
    reissue: prepare(() =>
      db
        .select({
          user: sql<string>`(select u.name from import_rows u where u.import_id = ${here} and u.kind = 'user' and u.id = import_rows.parent_id)`,
          name: t.importRows.name,
          expiresAt: sql<number>`json_extract(record, '$.expiresAt')`,
        })
        .from(t.importRows)
        .where(
          sql`import_id = ${here} and kind = 'token' and json_extract(record, '$.revokedAt') is null and json_extract(record, '$.expiresAt') > ${p('now')} and not exists (select 1 from tokens where tokens.id = import_rows.id)`,
        )
        .orderBy(sql`1`, t.importRows.seq)
        .limit(1000),
    ),
    abort: prepare(() =>
      db
        .update(t.imports)
        .set({ state: 'aborted', closedAt: sql`${p('now')}` })
        .where(sql`id = ${p('id')} and state = 'open'`)
        .returning({ id: t.imports.id }),
    ),
    expire: prepare(() =>
      db
        .update(t.imports)
        .set({ state: 'aborted', closedAt: sql`${p('now')}` })
        .where(sql`state = 'open' and expires_at < ${p('now')}`)
        .returning({ id: t.imports.id }),
    ),
    leftovers: prepare(() =>
      db
        .select({
          importId: t.importBlobs.importId,
          key: sql<string>`key`,
          handle: t.importBlobs.handle,
          kept: sql<number>`exists (select 1 from blobs where blobs.key = import_blobs.key)`,
        })
        .from(t.importBlobs)
        .where(
          sql`key is not null and import_id in (select id from imports where state <> 'open' and closed_at <= ${p('before')})`,
        )
        .limit(p('limit')),
    ),
    forgetKey: prepare(() =>
      db
        .delete(t.importBlobs)
        .where(
          sql`key = ${p('key')} and import_id not in (select id from imports where state = 'open')`,
        ),
    ),
    tidyRows: prepare(() =>
      db
        .delete(t.importRows)
        .where(
          sql`import_id in (select id from imports where state <> 'open' and closed_at <= ${p('before')})`,
        ),
    ),
    tidyBlobs: prepare(() =>
      db
        .delete(t.importBlobs)
        .where(
          sql`key is null and import_id in (select id from imports where state <> 'open' and closed_at <= ${p('before')})`,
        ),
    ),
    tidyImports: prepare(() =>
      db
        .delete(t.imports)
        .where(
          sql`state = 'aborted' and closed_at <= ${p('before')} and not exists (select 1 from import_blobs b where b.import_id = imports.id)`,
        ),
    ),
  }

  const notOpen = () =>
    new RegistryError('conflict', 'This import has ended (done, aborted or expired); start again.')
  const reasons = { claimed: notOpen }
  const toImport = ({ id, exportId, state, sha256 }: typeof t.imports.$inferSelect) => ({
    id,
    exportId,
    state,
    sha256,
  })

  return {
    async open({ id, exportId, now, expiresAt }) {
      const values = { id, exportId, now: now.getTime(), expiresAt: expiresAt.getTime() }
      const [, , rows] = await handle.write(
        q.insert(values),
        q.forgetOpenRows(values),
        q.ofExport(values),
      )
      if (rows[0] === undefined) throw new RegistryError('internal', 'The import was not stored.')
      return toImport(rows[0])
    },
    async find(id) {
      const [rows] = await handle.read(q.find({ id }))
      return rows[0] === undefined ? null : toImport(rows[0])
    },
    async list() {
      const [rows] = await handle.read(q.list())
      return rows.map((row) => ({
        ...row,
        createdAt: new Date(row.createdAt),
        expiresAt: new Date(row.expiresAt),
      }))
    },
    async stageRows(importId, rows, expiresAt) {
      const values = { importId, rows: JSON.stringify(rows), expiresAt: expiresAt.getTime() }
      await guarded(
        handle.write(q.openGuard(values), q.stageRows(values), q.extend(values), q.dropGuard()),
        reasons,
      )
    },
    async stageBlob(importId, blob, expiresAt) {
      const values = { importId, ...blob, expiresAt: expiresAt.getTime() }
      await guarded(
        handle.write(q.openGuard(values), q.stageBlob(values), q.extend(values), q.dropGuard()),
        reasons,
      )
    },
    async setHandle(importId, digest, key, storeHandle) {
      await handle.write(q.setHandle({ importId, digest, key, handle: storeHandle }))
    },
    async readyBlob(importId, digest, key, facts) {
      const values = { importId, digest, key, facts: JSON.stringify(facts) }
      await guarded(handle.write(q.readyGuard(values), q.ready(values), q.dropGuard()), {
        ...reasons,
        found: () =>
          new RegistryError(
            'conflict',
            'These bytes are being sent by another run of this import; wait for it, or start again.',
            { subject: 'blob' },
          ),
      })
    },
    async stagedBlob(importId, digest) {
      const [rows] = await handle.read(q.stagedBlob({ importId, digest }))
      return rows[0] === undefined ? null : { ...rows[0], ready: rows[0].ready === 1 }
    },
    async stagedNames(importId, sha256) {
      const [rows] = await handle.read(q.stagedNames({ importId, sha256 }))
      return rows.map(({ digest }) => digest)
    },
    async stagedManifest(importId, manifest) {
      const digest = manifest.slice(manifest.indexOf('/') + 1)
      const values = { importId, manifest, digest }
      const [rows, pieces] = await handle.read(q.stagedManifest(values), q.stagedPieces(values))
      const record = rows[0]?.record
      return {
        manifest:
          record === undefined
            ? null
            : (JSON.parse(record) as Extract<MovedRow, { type: 'manifest' }>),
        pieces: pieces.map((piece) => piece.text),
      }
    },
    async conflicts(importId, limit) {
      const [rows] = await handle.read(q.conflicts({ importId, limit }))
      return rows
    },
    async finish(importId, { sha256, rows, sameIssuer, keepPower, by }) {
      const values = {
        ...writerValues(by),
        importId,
        sha256,
        rows,
        sameIssuer: sameIssuer ? 1 : 0,
        keepPower: keepPower ? 1 : 0,
      }
      const batch = handle.write(
        q.flipGuard(values),
        q.users(values),
        q.entitiesHere(values),
        q.entities(values),
        q.collections(values),
        q.containers(values),
        q.blobs(values),
        q.heal(values),
        q.images(values),
        q.details(values),
        q.verdicts(values),
        q.issuers(values),
        q.tags(values),
        q.healMembers(values),
        q.memberships(values),
        q.manifests(values),
        q.manifestPieces(values),
        q.manifestRefs(values),
        q.ociTags(values),
        q.teams(values),
        q.members(values),
        q.grants(values),
        q.stars(values),
        q.pulls(values),
        q.tokens(values),
        q.keys(values),
        q.unnameKeys(values),
        q.unindexKeys(values),
        q.nameKeys(values),
        q.indexKeys(values),
        q.sizes(values),
        q.revive(values),
        q.index(values),
        q.done(values),
        q.imported(values),
        q.dropGuard(),
      )
      const contradicts = () =>
        new RegistryError(
          'invalid',
          'The rows of this export do not fit together: some are missing, doubled or contradict each other. Nothing was imported; export again.',
        )
      try {
        await guarded(batch, {
          ...reasons,
          may_write: () =>
            new RegistryError('denied', 'Only administrators import; you are none any more.'),
          found: contradicts,
          readable: () =>
            new RegistryError(
              'unavailable',
              'Bytes of some images are missing, or have gone meanwhile; import again, what has arrived is not sent twice.',
              { subject: 'blob' },
            ),
          first: () =>
            new RegistryError(
              'conflict',
              'Something of this name has been made here meanwhile; import again.',
            ),
        })
      } catch (error) {
        // two rows of one name in one place, which no guard spells out
        if (isDuplicate(error)) throw contradicts()
        throw error
      }
    },
    async report(importId, { now }) {
      const values = { importId, now: now.getTime() }
      const [counts, bytes, demoted, reissue] = await handle.read(
        q.counts(values),
        q.bytes(values),
        q.demoted(values),
        q.reissue(values),
      )
      const rows = {
        user: 0,
        token: 0,
        entity: 0,
        collection: 0,
        container: 0,
        image: 0,
        tag: 0,
        membership: 0,
        manifest: 0,
        piece: 0,
        ociTag: 0,
        team: 0,
        member: 0,
        grant: 0,
        star: 0,
        pulls: 0,
        key: 0,
      }
      for (const { kind, count } of counts) rows[kind as MovedKind] = count
      return {
        rows,
        bytes: bytes[0]?.bytes ?? 0,
        demoted: demoted.map(({ name }) => name),
        reissue: reissue.map((row) => ({ ...row, expiresAt: new Date(row.expiresAt) })),
      }
    },
    async abort(id, now) {
      const [rows] = await handle.write(q.abort({ id, now: now.getTime() }))
      return rows.length > 0
    },
    async expire(now) {
      const [rows] = await handle.write(q.expire({ now: now.getTime() }))
      return rows.length
    },
    async leftovers(before, limit) {
      const [rows] = await handle.read(q.leftovers({ before: before.getTime(), limit }))
      return rows.map((row) => ({ ...row, kept: row.kept === 1 }))
    },
    async forgetKeys(keys) {
      if (keys.length > 0) await handle.write(...keys.map((key) => q.forgetKey({ key })))
    },
    async tidy(before) {
      const values = { before: before.getTime() }
      await handle.write(q.tidyRows(values), q.tidyBlobs(values), q.tidyImports(values))
    },
  }
}
