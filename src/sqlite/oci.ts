/** Repositories as OCI sees them: the blobs they have, manifests, tags, and uploads on their way. */
import { and, asc, eq, sql, type SQL } from 'drizzle-orm'
import { RegistryError } from '../errors.ts'
import type { Manifest, OciUpload } from '../core/model.ts'
import type { BlobPart, ManifestsBook, OciUploadsBook, Viewer } from '../ports.ts'
import { guarded } from './failure.ts'
import {
  audited,
  dropGuard,
  inContainer,
  isLive,
  levelIn,
  mayWrite,
  p,
  standingQuery,
  text,
  viewerValues,
  visibleContainer,
  writerManages,
  writerStands,
  writerValues,
} from './fragments.ts'
import { prepare, type Handle } from './handle.ts'
import { containerColumns, named, toContainer, toStanding } from './rows.ts'
import * as t from './schema.ts'

/** Characters of a piece: at most 0.9 MB, and in JSON of JSON twice that, for D1 takes rows of 2 MB. */
const PIECE = 300_000
/** Characters of annotations in one list of referrers. */
const ANNOTATIONS = 3_000_000

/** Referrers that go with a manifest at most. */
const REFERRERS = 1000

const containerId = p('containerId').getSQL()
/** The container of a path. */
const placed = sql`(select pn.id from containers pn join collections pc on pc.id = pn.collection_id join entities pe on pe.id = pc.entity_id where pe.name = ${text('entity')} and pc.name = ${text('collection')} and pn.name = ${text('container')})`
const entityOfContainer = sql`(select qc.entity_id from containers qn join collections qc on qc.id = qn.collection_id where qn.id = ${containerId})`
const nameOfContainer = sql`(select ae.name || '/' || ac.name || '/' || an.name from containers an join collections ac on ac.id = an.collection_id join entities ae on ae.id = ac.entity_id where an.id = ${containerId})`

/** Bytes of `size` fit beside what an entity has; equal content is there already (R29). */
const fits = (entity: SQL, sha256: SQL): SQL =>
  sql`coalesce((select coalesce(qe.quota, ${p('defaultQuota')}, 0) = 0 or exists (select 1 from holdings qh where qh.entity_id = qe.id and qh.digest = ${sha256}) or qe.used + ${p('size')} <= coalesce(qe.quota, ${p('defaultQuota')}, 0) from entities qe where qe.id = ${entity}), 1)`

const lostRight = () =>
  new RegistryError('denied', 'You may not write here: the token or the right to write has ended.')
const noRoom = () =>
  new RegistryError(
    'quota_exceeded',
    'There is no room for this: its owner has used up their quota; delete what is not needed, or ask an administrator for a larger one.',
    { subject: 'upload' },
  )
const gone = () =>
  new RegistryError('not_found', 'That repository does not exist.', { subject: 'container' })
const frozen = () =>
  new RegistryError('denied', 'This repository is frozen: its tags can neither move nor go.', {
    subject: 'tag',
  })

export function sqliteManifests(handle: Handle): ManifestsBook {
  const { db } = handle
  const standing = standingQuery(db)
  const joined = () =>
    db
      .select(containerColumns)
      .from(t.containers)
      .innerJoin(t.collections, eq(t.collections.id, t.containers.collectionId))
      .innerJoin(t.entities, eq(t.entities.id, t.collections.entityId))
  const blobColumns = named({ id: t.blobs.id, key: t.blobs.key, size: t.blobs.size })
  const manifestColumns = named({
    digest: t.manifests.digest,
    mediaType: t.manifests.mediaType,
    size: t.manifests.size,
    subject: t.manifests.subject,
    artifactType: t.manifests.artifactType,
  })
  const members = () =>
    db
      .select(blobColumns)
      .from(t.repositoryBlobs)
      .innerJoin(t.blobs, and(eq(t.blobs.id, t.repositoryBlobs.blobId), isLive))
  const byTag = sql`(select gt.manifest from oci_tags gt where gt.container_id = ${placed} and gt.name = ${text('tag')})`
  const chosen = { tag: byTag, digest: text('digest') }
  const perSelector = (by: 'tag' | 'digest') => ({
    manifest: prepare(() =>
      db
        .select(manifestColumns)
        .from(t.manifests)
        .where(and(eq(t.manifests.containerId, placed), eq(t.manifests.digest, chosen[by]))),
    ),
    pieces: prepare(() =>
      db
        .select({ text: t.manifestPieces.text })
        .from(t.manifestPieces)
        .where(
          and(eq(t.manifestPieces.containerId, placed), eq(t.manifestPieces.manifest, chosen[by])),
        )
        .orderBy(t.manifestPieces.number),
    ),
  })
  /** What the writer may read has the blob of that id under that digest. */
  const mayRead = sql`exists (select 1 from repository_blobs rm join blobs rb on rb.id = rm.blob_id and rb.state = 'live' join containers rn on rn.id = rm.container_id join collections rc on rc.id = rn.collection_id where rm.digest = ${p('digest')} and rb.id = ${p('blobId')} and ((rc.private = 0 and rn.private = 0) or ${writerStands(sql`(wt.collection_id = '' or (wt.collection_id = rc.id and wt.container_id in ('', rn.id))) and (${writerManages} or ${levelIn(sql`wu.id`, sql`rc.id`)} > 0)`)}))`
  /** Of the values in `refs`: digest and size. */
  const wanted = (at: number) => sql.raw(`json_extract(x.value, '$[${at}]')`)
  const present = sql`case when ${wanted(0)} = 'blob' then (select b.size from repository_blobs m join blobs b on b.id = m.blob_id and b.state = 'live' where m.container_id = ${containerId} and m.digest = ${wanted(1)}) else (select f.size from manifests f where f.container_id = ${containerId} and f.digest = ${wanted(1)}) end`
  const containerFrozen = sql`exists (select 1 from containers where id = ${containerId} and frozen = 1)`

  /** What goes with the manifest `digest`: who refers to it, to those, and so on (SREG_OCI_REFERRERS). */
  const referrersOf = sql`select gr.digest from (with recursive going(digest) as (select ${p('digest')} as digest union select gm.digest from going join manifests gm on gm.container_id = ${containerId} and gm.subject = going.digest and not exists (select 1 from oci_tags gt where gt.container_id = ${containerId} and gt.manifest = gm.digest) and not exists (select 1 from manifest_refs gf where gf.container_id = ${containerId} and gf.kind = 'manifest' and gf.digest = gm.digest) limit ${sql.raw(String(REFERRERS + 1))}) select digest from going) gr where gr.digest <> ${p('digest')}`

  const q = {
    repository: prepare(() => joined().where(eq(t.containers.id, placed))),
    member: prepare(() =>
      members().where(
        and(
          eq(t.repositoryBlobs.containerId, placed),
          eq(t.repositoryBlobs.digest, text('digest')),
        ),
      ),
    ),
    readable: prepare(() =>
      members()
        .innerJoin(t.containers, eq(t.containers.id, t.repositoryBlobs.containerId))
        .innerJoin(t.collections, eq(t.collections.id, t.containers.collectionId))
        .innerJoin(t.entities, eq(t.entities.id, t.collections.entityId))
        .where(
          and(
            eq(t.repositoryBlobs.digest, text('digest')),
            visibleContainer,
            sql`(${p('anywhere')} = 1 or ${t.repositoryBlobs.containerId} = ${placed})`,
          ),
        )
        .limit(1),
    ),
    mountGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayWrite(inContainer, 2),
        found: sql`exists (select 1 from containers where id = ${containerId})`,
        readable: mayRead,
        withinQuota: fits(
          entityOfContainer,
          sql`(select digest from blobs where id = ${p('blobId')})`,
        ),
      }),
    ),
    mount: prepare(() =>
      db
        .insert(t.repositoryBlobs)
        .select(
          sql`select ${containerId} as container_id, ${p('digest')} as digest, id as blob_id, ${p('now')} as created_at from blobs where id = ${p('blobId')} and state = 'live'`,
        )
        .onConflictDoUpdate({
          target: [t.repositoryBlobs.containerId, t.repositoryBlobs.digest],
          set: { createdAt: sql`excluded.created_at`, blobId: sql`excluded.blob_id` },
        }),
    ),
    sizeOf: prepare(() =>
      db
        .select({ size: t.blobs.size })
        .from(t.blobs)
        .where(eq(t.blobs.id, text('blobId'))),
    ),
    removeGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayWrite(inContainer, 3),
        complete: sql`not exists (select 1 from manifest_refs where container_id = ${containerId} and kind = 'blob' and digest = ${p('digest')})`,
      }),
    ),
    removeMember: prepare(() =>
      db
        .delete(t.repositoryBlobs)
        .where(
          and(
            eq(t.repositoryBlobs.containerId, text('containerId')),
            eq(t.repositoryBlobs.digest, text('digest')),
          ),
        )
        .returning({ digest: t.repositoryBlobs.digest }),
    ),
    tag: perSelector('tag'),
    digest: perSelector('digest'),
    lacking: prepare(() =>
      db
        .select({
          kind: sql<'blob' | 'manifest'>`kind`.as('kind'),
          digest: sql<string>`digest`.as('digest'),
          size: sql<number | null>`size`.as('size'),
        })
        .from(
          sql`(select ${wanted(0)} as kind, ${wanted(1)} as digest, ${wanted(2)} as wanted, ${present} as size from json_each(${p('refs')}) x)`,
        )
        .where(sql`size is not wanted`),
    ),
    putGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayWrite(inContainer, 2),
        found: sql`exists (select 1 from containers where id = ${containerId})`,
        complete: sql`not exists (select 1 from json_each(${p('refs')}) x where ${present} is not ${wanted(2)})`,
        thawed: sql`not (${containerFrozen} and exists (select 1 from oci_tags where container_id = ${containerId} and manifest <> ${p('digest')} and name in (select value from json_each(${p('tags')}))))`,
      }),
    ),
    put: prepare(() =>
      db
        .insert(t.manifests)
        .values({
          containerId: p('containerId'),
          digest: p('digest'),
          mediaType: p('mediaType'),
          size: p('size'),
          subject: p('subject'),
          artifactType: p('artifactType'),
          annotations: p('annotations'),
          createdBy: p('writerId'),
          createdAt: p('now'),
        })
        // one without a mediaType of its own is what it was called last
        .onConflictDoUpdate({
          target: [t.manifests.containerId, t.manifests.digest],
          set: { mediaType: sql`excluded.media_type` },
        }),
    ),
    putPiece: prepare(() =>
      db
        .insert(t.manifestPieces)
        .values({
          containerId: p('containerId'),
          manifest: p('digest'),
          number: p('number'),
          text: p('piece'),
        })
        .onConflictDoNothing(),
    ),
    putRefs: prepare(() =>
      db
        .insert(t.manifestRefs)
        .select(
          sql`select ${containerId} as container_id, ${p('digest')} as manifest, ${wanted(0)} as kind, ${wanted(1)} as digest from json_each(${p('refs')}) x where true`,
        )
        .onConflictDoNothing(),
    ),
    putTags: prepare(() =>
      db
        .insert(t.ociTags)
        .select(
          sql`select ${containerId} as container_id, value as name, ${p('digest')} as manifest, ${p('now')} as updated_at, 0 as frozen from json_each(${p('tags')}) where true`,
        )
        .onConflictDoUpdate({
          target: [t.ociTags.containerId, t.ociTags.name],
          set: { manifest: sql`excluded.manifest`, updatedAt: sql`excluded.updated_at` },
        }),
    ),
    touchContainer: prepare(() =>
      db
        .update(t.containers)
        .set({ updatedAt: sql`${p('now')}` })
        .where(eq(t.containers.id, text('containerId'))),
    ),
    // ahead of what they tell of: they say what is new
    manifestPut: audited(db, {
      action: 'manifest.put',
      object: sql`'container ' || ${containerId}`,
      name: sql`${nameOfContainer} || '@' || ${p('digest')}`,
      detail: sql`${p('mediaType')} || ', ' || cast(${p('size')} as integer) || ' bytes'`,
      when: sql`not exists (select 1 from manifests where container_id = ${containerId} and digest = ${p('digest')})`,
    }),
    tagsPut: audited(db, {
      action: 'tag.set',
      object: sql`'container ' || ${containerId}`,
      name: sql`${nameOfContainer} || ':' || (select group_concat(value, ' ') from json_each(${p('tags')}))`,
      detail: sql`'to manifest ' || ${p('digest')}`,
      when: sql`exists (select 1 from json_each(${p('tags')}) x left join oci_tags g on g.container_id = ${containerId} and g.name = x.value where g.manifest is not ${p('digest')})`,
    }),
    deleteGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayWrite(inContainer, 3),
        thawed: sql`not (${containerFrozen} and exists (select 1 from oci_tags where container_id = ${containerId} and (name = ${p('tag')} or manifest = ${p('digest')})))`,
      }),
    ),
    deletedTag: audited(db, {
      action: 'tag.delete',
      object: sql`'container ' || ${containerId}`,
      name: sql`${nameOfContainer} || ':' || ${p('tag')}`,
      when: sql`exists (select 1 from oci_tags where container_id = ${containerId} and name = ${p('tag')})`,
    }),
    deletedManifest: audited(db, {
      action: 'manifest.delete',
      object: sql`'container ' || ${containerId}`,
      name: sql`${nameOfContainer} || '@' || ${p('digest')}`,
      detail: sql`(select 'tags ' || group_concat(name, ' ') from oci_tags where container_id = ${containerId} and manifest = ${p('digest')})`,
      when: sql`exists (select 1 from manifests where container_id = ${containerId} and digest = ${p('digest')})`,
    }),
    deletedReferrers: audited(db, {
      action: 'manifest.delete',
      object: sql`'container ' || ${containerId}`,
      name: sql`${nameOfContainer} || '@' || ${p('digest')}`,
      detail: sql`'its ' || (select count(*) from (${referrersOf})) || ' referrers'`,
      when: sql`exists (${referrersOf})`,
    }),
    deleteReferrers: prepare(() =>
      db
        .delete(t.manifests)
        .where(sql`container_id = ${containerId} and digest in (${referrersOf})`),
    ),
    deleteTag: prepare(() =>
      db
        .delete(t.ociTags)
        .where(and(eq(t.ociTags.containerId, text('containerId')), eq(t.ociTags.name, text('tag'))))
        .returning({ name: t.ociTags.name }),
    ),
    /** Pieces, references and tags go with it, by a trigger. */
    deleteManifest: prepare(() =>
      db
        .delete(t.manifests)
        .where(
          and(
            eq(t.manifests.containerId, text('containerId')),
            eq(t.manifests.digest, text('digest')),
          ),
        )
        .returning({ name: t.manifests.digest }),
    ),
    tags: prepare(() =>
      db
        .select({ name: t.ociTags.name })
        .from(t.ociTags)
        .where(and(eq(t.ociTags.containerId, placed), sql`${t.ociTags.name} > ${text('after')}`))
        .orderBy(asc(t.ociTags.name))
        .limit(p('limit')),
    ),
    referrers: prepare(() =>
      db
        .select({
          digest: sql<string>`digest`.as('digest'),
          mediaType: sql<string>`media_type`.as('mediaType'),
          size: sql<number>`size`.as('size'),
          subject: sql<string | null>`subject`.as('subject'),
          artifactType: sql<string>`artifact_type`.as('artifactType'),
          annotations: sql<string | null>`annotations`.as('annotations'),
        })
        .from(
          sql`(select m.*, sum(coalesce(length(m.annotations), 0)) over (order by m.digest) as so_far from manifests m where m.container_id = ${placed} and m.subject = ${text('digest')} and m.subject is not null and m.digest > ${text('after')} and (${p('artifactType')} is null or m.artifact_type = ${p('artifactType')}))`,
        )
        .where(sql`so_far <= ${sql.raw(String(ANNOTATIONS))}`)
        .orderBy(sql`digest`)
        .limit(p('limit')),
    ),
    referrersCount: prepare(() =>
      db
        .select({ count: sql<number>`count(*)`.as('count') })
        .from(t.manifests)
        .where(
          sql`container_id = ${placed} and subject = ${text('digest')} and subject is not null and digest > ${text('after')} and (${p('artifactType')} is null or artifact_type = ${p('artifactType')})`,
        ),
    ),
    repositories: prepare(() =>
      db
        .select({
          name: sql<string>`entities.name || '/' || collections.name || '/' || containers.name`.as(
            'name',
          ),
        })
        .from(t.containers)
        .innerJoin(t.collections, eq(t.collections.id, t.containers.collectionId))
        .innerJoin(t.entities, eq(t.entities.id, t.collections.entityId))
        .where(
          and(
            visibleContainer,
            sql`exists (select 1 from manifests m where m.container_id = containers.id)`,
            sql`entities.name || '/' || collections.name || '/' || containers.name > ${text('after')}`,
          ),
        )
        .orderBy(sql`1`)
        .limit(p('limit')),
    ),
    window: prepare(() =>
      db
        .select({ last: sql<number | null>`max(id)`.as('last') })
        .from(
          sql`(select rowid as id from repository_blobs where rowid > ${p('after')} order by rowid limit ${p('limit')})`,
        ),
    ),
    /** One statement decides and takes away: a reference made in between cannot be missed. */
    sweep: prepare(() =>
      db
        .delete(t.repositoryBlobs)
        .where(
          sql`rowid in (select rowid from repository_blobs where rowid > ${p('after')} order by rowid limit ${p('limit')}) and created_at < ${p('before')} and not exists (select 1 from manifest_refs r where r.container_id = repository_blobs.container_id and r.digest = repository_blobs.digest and r.kind = 'blob')`,
        ),
    ),
    dropGuard: dropGuard(db),
  }

  const valuesOf = (viewer: Viewer, now: Date, more: object) => ({
    ...viewerValues(viewer, now),
    ...more,
  })
  const inJson = (refs: readonly { kind: string; digest: string; size: number }[]) =>
    JSON.stringify(refs.map(({ kind, digest, size }) => [kind, digest, size]))

  return {
    async repository(path, viewer, now) {
      const values = valuesOf(viewer, now, path)
      const [stands, rows] = await handle.read(standing(values), q.repository(values))
      return {
        standing: toStanding(stands[0]),
        value: rows[0] === undefined ? null : toContainer(rows[0]),
      }
    },

    async member(path, digest, viewer, now) {
      const values = valuesOf(viewer, now, { ...path, digest })
      const [stands, rows, blobs] = await handle.read(
        standing(values),
        q.repository(values),
        q.member(values),
      )
      return {
        standing: toStanding(stands[0]),
        value:
          rows[0] === undefined
            ? null
            : { container: toContainer(rows[0]), blob: blobs[0] ?? null },
      }
    },

    async readableMember(digest, from, viewer, now) {
      const nowhere = { entity: '', collection: '', container: '' }
      const values = valuesOf(viewer, now, {
        ...(from ?? nowhere),
        digest,
        anywhere: from === null ? 1 : 0,
      })
      const [rows] = await handle.read(q.readable(values))
      return rows[0] ?? null
    },

    async mount({ writer, ...change }) {
      const [sizes] = await handle.read(q.sizeOf(change))
      const values = { ...writerValues(writer), ...change, size: sizes[0]?.size ?? 0 }
      const lost = () => new RegistryError('not_found', 'unreadable', { subject: 'blob' })
      try {
        await guarded(handle.write(q.mountGuard(values), q.mount(values), q.dropGuard()), {
          may_write: lostRight,
          found: gone,
          readable: lost,
          within_quota: noRoom,
        })
        return true
      } catch (error) {
        if (error instanceof RegistryError && error.subject === 'blob') return false
        throw error
      }
    },

    async removeMember(containerId, digest, writer) {
      const values = { ...writerValues(writer), containerId, digest }
      const [, removed] = await guarded(
        handle.write(q.removeGuard(values), q.removeMember(values), q.dropGuard()),
        {
          may_write: lostRight,
          complete: () =>
            new RegistryError(
              'conflict',
              'This blob is part of a manifest of this repository: delete that first.',
              { subject: 'blob' },
            ),
        },
      )
      return removed.length > 0
    },

    async manifest(path, selector, viewer, now, options) {
      const values = valuesOf(viewer, now, { ...path, ...selector })
      const from = q[selector.by]
      const lookup = [standing(values), q.repository(values), from.manifest(values)] as const
      const [stands, rows, found, pieces] = options.text
        ? await handle.read(...lookup, from.pieces(values))
        : [...(await handle.read(...lookup)), null]
      const whole = pieces?.map((piece) => piece.text).join('') ?? null
      return {
        standing: toStanding(stands[0]),
        value:
          rows[0] === undefined
            ? null
            : {
                container: toContainer(rows[0]),
                manifest: found[0] === undefined ? null : { ...found[0], text: whole },
              },
      }
    },

    async lacking(containerId, refs) {
      if (refs.length === 0) return []
      const [rows] = await handle.read(q.lacking({ containerId, refs: inJson(refs) }))
      return rows
    },

    async put({ containerId, manifest, refs, tags, writer }) {
      const { text: whole, ...facts } = manifest
      const values = {
        ...writerValues(writer),
        containerId,
        ...facts,
        refs: inJson(refs),
        tags: JSON.stringify(tags),
      }
      const pieces = piecesOf(whole).map((piece, number) =>
        q.putPiece({ ...values, number, piece }),
      )
      await guarded(
        handle.write(
          q.putGuard(values),
          q.manifestPut(values),
          q.tagsPut(values),
          q.put(values),
          ...pieces,
          q.putRefs(values),
          q.putTags(values),
          q.touchContainer(values),
          q.dropGuard(),
        ),
        {
          may_write: lostRight,
          found: gone,
          thawed: frozen,
          complete: () =>
            new RegistryError('invalid', 'Something that this manifest names has gone meanwhile.', {
              subject: 'blob',
            }),
        },
      )
    },

    async remove(containerId, selector, writer, { withReferrers } = { withReferrers: false }) {
      const none = { tag: '', digest: '' }
      const values = { ...writerValues(writer), containerId, ...none, ...selector }
      const steps =
        selector.by === 'tag'
          ? ([q.deletedTag(values), q.deleteTag(values)] as const)
          : ([q.deletedManifest(values), q.deleteManifest(values)] as const)
      const [, , removed] = await guarded(
        handle.write(
          q.deleteGuard(values),
          ...steps,
          ...(selector.by === 'digest' && withReferrers
            ? [q.deletedReferrers(values), q.deleteReferrers(values)]
            : []),
          q.touchContainer(values),
          q.dropGuard(),
        ),
        { may_write: lostRight, thawed: frozen },
      )
      return removed.length > 0
    },

    async tags(path, page, viewer, now) {
      const values = valuesOf(viewer, now, { ...path, ...page })
      const [stands, rows, tags] = await handle.read(
        standing(values),
        q.repository(values),
        q.tags(values),
      )
      return {
        standing: toStanding(stands[0]),
        value:
          rows[0] === undefined
            ? null
            : { container: toContainer(rows[0]), tags: tags.map(({ name }) => name) },
      }
    },

    async referrers(path, subject, page, viewer, now) {
      const values = valuesOf(viewer, now, { ...path, ...page, digest: subject })
      const [stands, rows, found, count] = await handle.read(
        standing(values),
        q.repository(values),
        q.referrers(values),
        q.referrersCount(values),
      )
      return {
        standing: toStanding(stands[0]),
        value:
          rows[0] === undefined
            ? null
            : {
                container: toContainer(rows[0]),
                manifests: found satisfies Manifest[],
                more: (count[0]?.count ?? 0) > found.length,
              },
      }
    },

    async repositories(page, viewer, now) {
      const values = valuesOf(viewer, now, page)
      const [stands, rows] = await handle.read(standing(values), q.repositories(values))
      return { standing: toStanding(stands[0]), value: rows.map(({ name }) => name) }
    },

    async sweepMembers(before, after, limit) {
      const values = { before: before.getTime(), after, limit }
      const [window] = await handle.write(q.window(values), q.sweep(values))
      return { last: window[0]?.last ?? null }
    },
  }
}

/** A text in pieces of PIECE characters, none of which ends in the middle of one. */
function piecesOf(whole: string): string[] {
  const pieces: string[] = []
  for (let at = 0; at < whole.length;) {
    let end = Math.min(at + PIECE, whole.length)
    const last = whole.charCodeAt(end - 1)
    if (end < whole.length && last >= 0xd800 && last < 0xdc00) end += 1
    pieces.push(whole.slice(at, end))
    at = end
  }
  return pieces
}

export function sqliteOciUploads(handle: Handle): OciUploadsBook {
  const { db } = handle
  const standing = standingQuery(db)
  const id = text('id')
  const claimed = sql`exists (select 1 from oci_uploads where id = ${p('id')} and state = 'open' and claim = ${p('claim')})`
  const mine = sql`id = ${p('id')} and state = 'open' and claim = ${p('claim')}`
  /** The entity and container of the upload. */
  const ownContainer = sql`(select container_id from oci_uploads where id = ${p('id')})`
  const ownEntity = sql`(select qc.entity_id from oci_uploads qu join containers qn on qn.id = qu.container_id join collections qc on qc.id = qn.collection_id where qu.id = ${p('id')})`
  const others = sql`coalesce((select sum(reserved) from oci_uploads where state = 'open' and id <> ${p('id')}), 0)`
  /** The joins are crossed so that they begin with the few uploads that run. */
  const othersOfEntity = sql`coalesce((select sum(ou.reserved) from oci_uploads ou cross join containers onn on onn.id = ou.container_id cross join collections oc on oc.id = onn.collection_id where ou.state = 'open' and ou.id <> ${p('id')} and oc.entity_id = qe.id), 0)`
  const q = {
    standing,
    openGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayWrite(inContainer, 2),
        found: sql`exists (select 1 from containers where id = ${containerId})`,
        fewUploads: sql`(select count(*) from oci_uploads where state = 'open' and user_id = ${p('writerId')}) + (select count(*) from uploads where state in ('open', 'finishing') and user_id = ${p('writerId')}) < ${p('perUser')}`,
      }),
    ),
    open: prepare(() =>
      db.insert(t.ociUploads).values({
        id: p('id'),
        containerId: p('containerId'),
        userId: p('writerId'),
        tokenId: p('writerToken'),
        key: p('key'),
        state: 'open',
        createdAt: p('createdAt'),
        expiresAt: p('expiresAt'),
      }),
    ),
    addKey: prepare(() => db.insert(t.ociUploadKeys).values({ key: p('key'), uploadId: p('id') })),
    dropGuard: dropGuard(db),
    upload: prepare(() =>
      db
        .select(
          named({
            id: t.ociUploads.id,
            containerId: t.ociUploads.containerId,
            userId: t.ociUploads.userId,
            key: t.ociUploads.key,
            handle: t.ociUploads.handle,
            received: t.ociUploads.received,
            tail: t.ociUploads.tail,
            tailSize: t.ociUploads.tailSize,
            sha256: t.ociUploads.sha256,
            sha512: t.ociUploads.sha512,
            digest: t.ociUploads.digest,
            state: t.ociUploads.state,
            createdAt: t.ociUploads.createdAt,
            expiresAt: t.ociUploads.expiresAt,
          }),
        )
        .from(t.ociUploads)
        .where(eq(t.ociUploads.id, id)),
    ),
    container: prepare(() =>
      db
        .select(containerColumns)
        .from(t.containers)
        .innerJoin(t.collections, eq(t.collections.id, t.containers.collectionId))
        .innerJoin(t.entities, eq(t.entities.id, t.collections.entityId))
        .where(eq(t.containers.id, ownContainer)),
    ),
    claimGuard: prepare(() =>
      db.insert(t.guard).values({
        claimed: sql`exists (select 1 from oci_uploads where id = ${p('id')} and state = 'open' and received = ${p('at')} and container_id is not null and (claim is null or lease_until < ${p('now')}))`,
        spaceLeft: sql`${p('free')} is null or ${others} + coalesce((select sum(size) from uploads where state in ('open', 'finishing')), 0) + ${p('coming')} <= ${p('free')}`,
        withinQuota: sql`coalesce((select coalesce(qe.quota, ${p('defaultQuota')}, 0) = 0 or exists (select 1 from holdings qh where qh.entity_id = qe.id and qh.digest = ${p('sha256')}) or qe.used + ${othersOfEntity} + ${p('at')} + ${p('coming')} <= coalesce(qe.quota, ${p('defaultQuota')}, 0) from entities qe where qe.id = ${ownEntity}), 1)`,
      }),
    ),
    claim: prepare(() =>
      db
        .update(t.ociUploads)
        .set({
          claim: sql`${p('claim')}`,
          leaseUntil: sql`${p('leaseUntil')}`,
          reserved: sql`${p('at')} + ${p('coming')}`,
          expiresAt: sql`max(expires_at, ${p('expiresAt')})`,
        })
        .where(eq(t.ociUploads.id, id)),
    ),
    setHandle: prepare(() =>
      db
        .update(t.ociUploads)
        .set({ handle: sql`${p('handle')}` })
        .where(eq(t.ociUploads.id, id)),
    ),
    advanceGuard: prepare(() => db.insert(t.guard).values({ claimed })),
    advance: prepare(() =>
      db
        .update(t.ociUploads)
        .set({
          received: sql`${p('received')}`,
          reserved: sql`max(reserved, ${p('received')})`,
          tail: sql`${p('tail')}`,
          tailSize: sql`${p('tailSize')}`,
          sha256: sql`${p('sha256')}`,
          sha512: sql`${p('sha512')}`,
          leaseUntil: sql`${p('leaseUntil')}`,
        })
        .where(mine),
    ),
    addPart: prepare(() =>
      db
        .insert(t.ociUploadParts)
        .values({ uploadId: p('id'), number: p('number'), etag: p('etag') })
        .onConflictDoUpdate({
          target: [t.ociUploadParts.uploadId, t.ociUploadParts.number],
          set: { etag: sql`excluded.etag` },
        }),
    ),
    renew: prepare(() =>
      db
        .update(t.ociUploads)
        .set({ leaseUntil: sql`${p('leaseUntil')}` })
        .where(mine)
        .returning({ id: t.ociUploads.id }),
    ),
    release: prepare(() =>
      db
        .update(t.ociUploads)
        .set({ claim: null, leaseUntil: null, reserved: sql`received` })
        .where(mine),
    ),
    parts: prepare(() =>
      db
        .select({ number: t.ociUploadParts.number, etag: t.ociUploadParts.etag })
        .from(t.ociUploadParts)
        .where(eq(t.ociUploadParts.uploadId, id))
        .orderBy(t.ociUploadParts.number),
    ),
    finishGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayWrite(inContainer, 2),
        found: sql`exists (select 1 from containers where id = ${containerId})`,
        claimed: sql`exists (select 1 from oci_uploads where id = ${p('id')} and container_id = ${containerId} and claim = ${p('claim')} and state in ('open', 'done')) and exists (select 1 from oci_upload_keys where key = ${p('key')} and upload_id = ${p('id')})`,
        withinQuota: fits(entityOfContainer, p('sha256').getSQL()),
      }),
    ),
    newBlob: prepare(() =>
      db.insert(t.blobs).select(
        sql`select ${p('blobId')} as id, ${p('key')} as key, ${p('sha256')} as digest, ${p('size')} as size, 'live' as state, ${p('now')} as created_at, null as dying_at
        where not exists (select 1 from blobs where (digest = ${p('sha256')} and state = 'live') or key = ${p('key')})`,
      ),
    ),
    healImages: prepare(() =>
      db
        .update(t.images)
        .set({
          blobId: sql`(select id from blobs where digest = ${p('sha256')} and state = 'live')`,
        })
        .where(
          sql`digest = ${p('sha256')} and blob_id in (select id from blobs where digest = ${p('sha256')} and state = 'lost')`,
        ),
    ),
    healMembers: healMembers(db, p('sha256').getSQL()),
    join: prepare(() =>
      db
        .insert(t.repositoryBlobs)
        .select(
          sql`select ${containerId} as container_id, ${p('digest')} as digest, id as blob_id, ${p('now')} as created_at from blobs where digest = ${p('sha256')} and state = 'live'`,
        )
        .onConflictDoUpdate({
          target: [t.repositoryBlobs.containerId, t.repositoryBlobs.digest],
          set: { createdAt: sql`excluded.created_at` },
        }),
    ),
    done: prepare(() =>
      db
        .update(t.ociUploads)
        .set({ state: 'done', digest: sql`${p('digest')}`, closedAt: sql`${p('now')}` })
        .where(sql`id = ${p('id')} and claim = ${p('claim')}`),
    ),
    used: prepare(() =>
      db
        .select({ key: t.blobs.key })
        .from(t.blobs)
        .where(and(eq(t.blobs.digest, text('sha256')), isLive)),
    ),
    end: prepare(() =>
      db
        .update(t.ociUploads)
        .set({ state: 'ended', claim: null, leaseUntil: null, closedAt: sql`${p('now')}` })
        .where(sql`id = ${p('id')} and state = 'open'`)
        .returning({ id: t.ociUploads.id }),
    ),
    expire: prepare(() =>
      db
        .update(t.ociUploads)
        .set({ state: 'ended', claim: null, leaseUntil: null, closedAt: sql`${p('now')}` })
        .where(
          sql`id in (select id from oci_uploads where state = 'open' and (container_id is null or expires_at < ${p('now')}) and (lease_until is null or lease_until < ${p('now')}) order by expires_at limit ${p('limit')})`,
        )
        .returning({ id: t.ociUploads.id }),
    ),
    leftovers: prepare(() =>
      db
        .select(
          named({
            key: t.ociUploadKeys.key,
            handle: sql<
              string | null
            >`case when ${t.ociUploads.key} = ${t.ociUploadKeys.key} then ${t.ociUploads.handle} end`,
            parts: sql<number>`${t.ociUploads.key} = ${t.ociUploadKeys.key}`,
            kept: sql<number>`exists (select 1 from blobs kb where kb.key = ${t.ociUploadKeys.key})`,
          }),
        )
        .from(t.ociUploads)
        .innerJoin(t.ociUploadKeys, eq(t.ociUploadKeys.uploadId, t.ociUploads.id))
        .where(
          sql`${t.ociUploads.closedAt} is not null and ${t.ociUploads.closedAt} < ${p('before')}`,
        )
        .limit(p('limit')),
    ),
    forgetKeys: prepare(() =>
      db.delete(t.ociUploadKeys).where(sql`key in (select value from json_each(${p('keys')}))`),
    ),
    forget: prepare(() =>
      db
        .delete(t.ociUploads)
        .where(
          sql`closed_at is not null and closed_at < ${p('before')} and not exists (select 1 from oci_upload_keys where upload_id = oci_uploads.id)`,
        ),
    ),
  }
  const lostClaim = () =>
    new RegistryError('conflict', 'Somebody else writes to this upload; ask where it stands.', {
      subject: 'upload',
    })

  return {
    async open(upload, writer, { perUser }) {
      const values = {
        ...writerValues(writer),
        ...upload,
        createdAt: upload.createdAt.getTime(),
        expiresAt: upload.expiresAt.getTime(),
        perUser,
      }
      await guarded(
        handle.write(q.openGuard(values), q.open(values), q.addKey(values), q.dropGuard()),
        {
          may_write: lostRight,
          found: gone,
          few_uploads: () =>
            new RegistryError(
              'rate_limited',
              `You have ${perUser} uploads open already; finish or wait for them before you start another.`,
              { subject: 'upload', retryAfter: 60 },
            ),
        },
      )
    },

    async find(uploadId, viewer, now) {
      const values = { ...viewerValues(viewer, now), id: uploadId }
      const [stands, uploads, containers] = await handle.read(
        standing(values),
        q.upload(values),
        q.container(values),
      )
      return {
        standing: toStanding(stands[0]),
        value:
          uploads[0] === undefined
            ? null
            : {
                upload: toOciUpload(uploads[0]),
                container: containers[0] === undefined ? null : toContainer(containers[0]),
              },
      }
    },

    async claim(uploadId, { tailKey, now, leaseUntil, expiresAt, ...rest }) {
      const values = {
        id: uploadId,
        ...rest,
        key: tailKey,
        now: now.getTime(),
        leaseUntil: leaseUntil.getTime(),
        expiresAt: expiresAt.getTime(),
      }
      await guarded(
        handle.write(q.claimGuard(values), q.claim(values), q.addKey(values), q.dropGuard()),
        {
          claimed: () =>
            new RegistryError(
              'range_unsatisfiable',
              'This upload does not stand there, or somebody else writes to it; ask where it stands.',
              { subject: 'upload' },
            ),
          space_left: () =>
            new RegistryError(
              'insufficient_storage',
              "The registry's disk has no room for this beside what is being uploaded; ask its administrator to free space.",
              { subject: 'upload' },
            ),
          within_quota: noRoom,
        },
      )
    },

    async setHandle(uploadId, storeHandle) {
      await handle.write(q.setHandle({ id: uploadId, handle: storeHandle }))
    },

    async advance(uploadId, claim, { part, tail, leaseUntil, ...to }) {
      const values = {
        id: uploadId,
        claim,
        ...to,
        ...part,
        tail: tail?.key ?? null,
        tailSize: tail?.size ?? 0,
        leaseUntil: leaseUntil.getTime(),
      }
      await guarded(
        handle.write(
          q.advanceGuard(values),
          q.advance(values),
          ...(part === null ? [] : [q.addPart(values)]),
          q.dropGuard(),
        ),
        { claimed: lostClaim },
      )
    },

    async renew(uploadId, claim, leaseUntil) {
      const values = { id: uploadId, claim, leaseUntil: leaseUntil.getTime() }
      const [rows] = await handle.write(q.renew(values))
      return rows.length > 0
    },

    async release(uploadId, claim) {
      await handle.write(q.release({ id: uploadId, claim }))
    },

    async parts(uploadId): Promise<BlobPart[]> {
      const [rows] = await handle.read(q.parts({ id: uploadId }))
      return rows
    },

    async finish(uploadId, claim, { writer, ...done }) {
      const values = { ...writerValues(writer), id: uploadId, claim, ...done }
      const [, , , , , , used] = await guarded(
        handle.write(
          q.finishGuard(values),
          q.newBlob(values),
          q.healImages(values),
          q.healMembers(values),
          q.join(values),
          q.done(values),
          q.used(values),
          q.dropGuard(),
        ),
        { may_write: lostRight, found: gone, claimed: lostClaim, within_quota: noRoom },
      )
      return { key: used[0]?.key ?? done.key }
    },

    async end(uploadId, now) {
      const [rows] = await handle.write(q.end({ id: uploadId, now: now.getTime() }))
      return rows.length > 0
    },

    async expire(now, limit) {
      const [rows] = await handle.write(q.expire({ now: now.getTime(), limit }))
      return rows.length
    },

    async leftovers(before, limit) {
      const [rows] = await handle.read(q.leftovers({ before: before.getTime(), limit }))
      return rows.map(({ kept, parts, ...row }) => ({
        ...row,
        parts: parts === 1,
        kept: kept === 1,
      }))
    },

    async forgetKeys(keys, before) {
      const values = { keys: JSON.stringify(keys), before: before.getTime() }
      await handle.write(q.forgetKeys(values), q.forget(values))
    },
  }
}

/** Members whose blob was lost get the live one of the same content (R60). */
export const healMembers = (db: Handle['db'], digest: SQL) =>
  prepare(() =>
    db
      .update(t.repositoryBlobs)
      .set({ blobId: sql`(select id from blobs where digest = ${digest} and state = 'live')` })
      .where(
        sql`blob_id in (select id from blobs where digest = ${digest} and state = 'lost') and exists (select 1 from blobs where digest = ${digest} and state = 'live')`,
      ),
  )

type UploadRow = Omit<OciUpload, 'tail' | 'createdAt' | 'expiresAt'> & {
  tail: string | null
  tailSize: number
  createdAt: number
  expiresAt: number
}

const toOciUpload = ({ tail, tailSize, ...row }: UploadRow): OciUpload => ({
  ...row,
  tail: tail === null ? null : { key: tail, size: tailSize },
  createdAt: new Date(row.createdAt),
  expiresAt: new Date(row.expiresAt),
})
