/** Entities to tags: making, moving, hiding and deleting them; lookups and search are beside this. */
import { and, eq, sql, type SQL } from 'drizzle-orm'
import { RegistryError } from '../errors.ts'
import type { CatalogBook, Writer } from '../ports.ts'
import { guarded } from './failure.ts'
import {
  audited,
  dropGuard,
  inCollection,
  inContainer,
  indexImages,
  isLive,
  isLost,
  levelIn,
  mayFound,
  mayWrite,
  nameOfCollection,
  nameOfContainer,
  ofImage,
  p,
  policyMet,
  text,
  recountContainer,
  unindexImages,
  writerManages,
  writerStands,
  writerValues,
  type Place,
} from './fragments.ts'
import { prepare, type Handle, type Statement } from './handle.ts'
import { joinsOf } from './joins.ts'
import { sqliteLookups } from './lookups.ts'
import { overQuota, withinQuota, withinQuotaNow } from './quotas.ts'
import { sqlitePlaces } from './places.ts'
import { healMembers } from './repositories.ts'
import { entityColumns, toCollection, toContainer, toEntity, toImage } from './rows.ts'
import * as t from './schema.ts'
import { sqliteSearch } from './search.ts'
import { seeing } from './seeing.ts'
import { storeVerdict, verdictValues } from './signatures.ts'

const lostRight = () =>
  new RegistryError('denied', 'You may not write here: the token or the right to write has ended.')
const unmet = () =>
  new RegistryError('denied', 'The signature policy of this collection is not met.', {
    subject: 'policy',
  })
const frozen = (name: string) => () =>
  new RegistryError(
    'denied',
    `${name} is frozen here: it stays what it is until its owner thaws it.`,
    { subject: 'tag' },
  )
const gone = (what: 'image' | 'container' | 'collection' | 'entity') => () =>
  new RegistryError('not_found', `That ${what} does not exist.`, { subject: what })

/** Values for reading what a writer has just made as they see it. */
const asViewer = ({ userId, tokenId }: Writer) => ({
  viewerId: userId,
  viewerToken: tokenId,
  viewerAdmin: 0,
})

export function sqliteCatalog(handle: Handle): CatalogBook {
  const { db } = handle
  const beyondQuota = overQuota(handle)
  const joined = joinsOf(db)
  const seqOf = {
    image: sql`select seq from images where id = ${p('imageId')}`,
    imageAndNote: sql`select seq from images where id = ${p('imageId')} or id = (select note from guard)`,
    note: sql`select seq from images where id = (select note from guard)`,
  }

  const imageId = p('imageId').getSQL()
  const containerId = p('containerId').getSQL()
  /** What a draft has made: rows that were there before have another id. */
  const made = (kind: 'entity' | 'collection' | 'container', table: SQL, name: SQL) =>
    audited(db, {
      action: `${kind}.create`,
      object: sql`${`${kind} `} || ${p('id')}`,
      name,
      detail:
        kind === 'entity'
          ? sql`''`
          : sql`(select case when private then 'private' else 'public' end from ${table} where id = ${p('id')})`,
      when: sql`exists (select 1 from ${table} where id = ${p('id')})`,
    })
  const pushed = (how: string) =>
    audited(db, {
      action: 'image.push',
      object: sql`'image ' || ${imageId}`,
      name: nameOfContainer(sql`(select container_id from images where id = ${imageId})`),
      detail: sql`${`sha256.`} || ${p('digest')} || ', ' || cast(${p('size')} as integer) || ${` bytes, ${how}`}`,
      // noted by the guard: the image had no bytes before
      when: sql`exists (select 1 from guard where note is not null)`,
    })
  const noBytes = sql`(select ni.id from images ni left join blobs nb on nb.id = ni.blob_id where ni.id = ${imageId} and coalesce(nb.state, 'lost') = 'lost')`
  const noted = sql`exists (select 1 from guard where note is not null)`
  /** The tag as it is, of the arch that a tag call means (`setTag` below stores that one). */
  const renamedTag = sql`select image_id, frozen from tags where container_id = ${p('containerId')} and name = ${p('tag')} and arch = coalesce((select case when ai.arch = 'unknown' then nullif(${p('arch')}, '') else ai.arch end from images ai where ai.id = ${p('imageId')}), 'amd64')`
  const containerThawed = sql`not exists (select 1 from containers where id = ${p('containerId')} and frozen = 1)`
  /** What was pushed by OCI under the name, where it must stay. */
  const pinned = sql`exists (select 1 from oci_tags where container_id = ${p('containerId')} and name = ${p('tag')} and (frozen = 1 or not ${containerThawed}))`
  /** OCI has a name for the image that the library has not. */
  const namedElsewhere = (image: SQL) =>
    sql`exists (select 1 from images oi join manifests om on om.container_id = oi.container_id and om.sif = oi.digest join oci_tags og on og.container_id = om.container_id and og.manifest = om.digest where oi.id = ${image})`

  const w = {
    verdict: storeVerdict(db),
    dropGuard: dropGuard(db),
    entityMade: made('entity', sql`entities`, p('name').getSQL()),
    collectionMade: made('collection', sql`collections`, nameOfCollection(p('id').getSQL())),
    containerMade: made('container', sql`containers`, nameOfContainer(p('id').getSQL())),
    uploaded: pushed('uploaded'),
    copied: pushed('stored copy'),
    bridged: pushed('by OCI'),
    tagSet: audited(db, {
      action: 'tag.set',
      object: sql`'image ' || ${imageId}`,
      name: sql`${nameOfContainer(containerId)} || ':' || ${p('tag')}`,
      detail: sql`(select case when ai.arch = 'unknown' then 'amd64' else ai.arch end from images ai where ai.id = ${imageId}) || coalesce(', from image ' || (select note from guard), ', new')  || ', to image ' || ${imageId}`,
      when: sql`exists (select 1 from guard where note is not ${imageId})`,
    }),
    tagDeleted: audited(db, {
      action: 'tag.delete',
      object: sql`'image ' || (select note from guard)`,
      name: sql`${nameOfContainer(containerId)} || ':' || ${p('tag')}`,
      detail: sql`${p('arch')} || case when exists (select 1 from tags where image_id = (select note from guard)) or ${namedElsewhere(sql`(select note from guard)`)} then '' else ', the image with it' end`,
      when: noted,
    }),
    imageDeleted: audited(db, {
      action: 'image.delete',
      object: sql`'image ' || (select note from guard)`,
      name: nameOfContainer(containerId),
      detail: sql`(select 'sha256.' || di.digest || ', ' || coalesce(di.size, 0) || ' bytes' || coalesce(', tags ' || (select group_concat(dt.name, ' ') from tags dt where dt.image_id = di.id), '') from images di where di.id = (select note from guard))`,
      when: noted,
    }),
    entityGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: writerStands(
          sql`wt.collection_id = '' and (${writerManages} or (wu.name = ${p('name')} and wu.robot = 0))`,
        ),
      }),
    ),
    entity: prepare(() =>
      db
        .insert(t.entities)
        .values({
          id: p('id'),
          name: p('name'),
          description: p('description'),
          ownerId: p('ownerId'),
          createdAt: p('now'),
          updatedAt: p('now'),
        })
        .onConflictDoNothing(),
    ),
    entityByName: prepare(() =>
      db
        .select(entityColumns)
        .from(t.entities)
        .where(eq(t.entities.name, text('name'))),
    ),
    collectionGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayFound(p('entityId').getSQL()),
        found: sql`exists (select 1 from entities where id = ${p('entityId')})`,
        withinLimit: sql`${p('limit')} is null or exists (select 1 from collections where entity_id = ${p('entityId')} and name = ${p('name')}) or (select count(*) from collections where entity_id = ${p('entityId')}) < ${p('limit')}`,
      }),
    ),
    collection: prepare(() =>
      db
        .insert(t.collections)
        .values({
          id: p('id'),
          entityId: p('entityId'),
          name: p('name'),
          description: p('description'),
          private: p('private'),
          createdAt: p('now'),
          updatedAt: p('now'),
        })
        .onConflictDoNothing(),
    ),
    collectionByName: prepare(() =>
      joined
        .collections()
        .where(
          and(eq(t.collections.entityId, text('entityId')), eq(t.collections.name, text('name'))),
        ),
    ),
    containerGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayWrite(inCollection, 2),
        found: sql`exists (select 1 from collections where id = ${p('collectionId')})`,
      }),
    ),
    container: prepare(() =>
      db
        .insert(t.containers)
        .values({
          id: p('id'),
          collectionId: p('collectionId'),
          name: p('name'),
          description: p('description'),
          fullDescription: '',
          private: p('private'),
          createdAt: p('now'),
          updatedAt: p('now'),
        })
        .onConflictDoNothing(),
    ),
    containerByName: prepare(() =>
      joined
        .containers()
        .where(
          and(
            eq(t.containers.collectionId, text('collectionId')),
            eq(t.containers.name, text('name')),
          ),
        ),
    ),
    imageGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayWrite(inContainer, 2),
        found: sql`exists (select 1 from containers where id = ${p('containerId')})`,
      }),
    ),
    image: prepare(() =>
      db
        .insert(t.images)
        .values({
          id: p('id'),
          containerId: p('containerId'),
          digest: p('digest'),
          description: p('description'),
          createdBy: p('writerId'),
          createdAt: p('now'),
          updatedAt: p('now'),
        })
        .onConflictDoNothing(),
    ),
    imageByDigest: prepare(() =>
      joined
        .images()
        .where(
          and(eq(t.images.containerId, text('containerId')), eq(t.images.digest, text('digest'))),
        ),
    ),

    attachGuardUpload: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayWrite(ofImage, 2),
        found: sql`exists (select 1 from images where id = ${p('imageId')} and digest = ${p('digest')})`,
        claimed: sql`exists (select 1 from uploads where id = ${p('uploadId')} and claim = ${p('claim')} and state in ('finishing', 'done') and image_id = ${p('imageId')} and digest = ${p('digest')} and blob_key = ${p('key')})`,
        policyMet: policyMet(p('imageId').getSQL()),
        note: noBytes,
        withinQuota: withinQuotaNow,
      }),
    ),
    attachGuardMember: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayWrite(ofImage, 2),
        found: sql`exists (select 1 from images where id = ${p('imageId')} and digest = ${p('digest')})`,
        readable: sql`exists (select 1 from images mi join repository_blobs rm on rm.container_id = mi.container_id and rm.digest = 'sha256:' || mi.digest join blobs rb on rb.id = rm.blob_id where mi.id = ${p('imageId')} and rb.id = ${p('blobId')} and rb.digest = ${p('digest')} and rb.state = 'live')`,
        policyMet: policyMet(p('imageId').getSQL()),
        note: noBytes,
        withinQuota: withinQuotaNow,
      }),
    ),
    attachGuardBlob: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayWrite(ofImage, 2),
        found: sql`exists (select 1 from images where id = ${p('imageId')} and digest = ${p('digest')})`,
        readable: sql`exists (select 1 from blobs rb join images ri on ri.blob_id = rb.id join containers rn on rn.id = ri.container_id join collections rc on rc.id = rn.collection_id where rb.id = ${p('blobId')} and rb.digest = ${p('digest')} and rb.state = 'live' and ((rc.private = 0 and rn.private = 0) or ${writerStands(sql`(wt.collection_id = '' or (wt.collection_id = rc.id and wt.container_id in ('', rn.id))) and (${writerManages} or ${levelIn(sql`wu.id`, sql`rc.id`)} > 0)`)}))`,
        policyMet: policyMet(p('imageId').getSQL()),
        note: noBytes,
        withinQuota,
      }),
    ),
    newBlob: prepare(() =>
      db.insert(t.blobs).select(sql`
        select ${p('blobId')} as id, ${p('key')} as key, ${p('digest')} as digest, ${p('size')} as size, 'live' as state, ${p('now')} as created_at, null as dying_at
        where not exists (select 1 from blobs where (digest = ${p('digest')} and state = 'live') or key = ${p('key')})`),
    ),
    heal: prepare(() =>
      db
        .update(t.images)
        .set({
          blobId: sql`(select id from blobs where digest = ${p('digest')} and state = 'live')`,
        })
        .where(
          sql`digest = ${p('digest')} and blob_id in (select id from blobs where digest = ${p('digest')} and ${isLost})`,
        ),
    ),
    healMembers: healMembers(db, p('digest').getSQL()),
    attachImage: prepare(() =>
      db
        .update(t.images)
        .set({
          blobId: sql`(select id from blobs where digest = ${p('digest')} and state = 'live')`,
          size: sql`${p('size')}`,
          arch: sql`${p('arch')}`,
          signed: sql`${p('signed')}`,
          encrypted: sql`${p('encrypted')}`,
          fingerprints: sql`${p('fingerprints')}`,
          updatedAt: sql`${p('now')}`,
          manifest: sql`${p('manifest')}`,
        })
        .where(sql`id = ${p('imageId')} and blob_id is null`),
    ),
    details: prepare(() =>
      db
        .insert(t.imageDetails)
        .values({
          imageId: p('imageId'),
          definition: p('definition'),
          labels: p('labels'),
          partitions: p('partitions'),
          truncated: p('truncated'),
        })
        .onConflictDoNothing(),
    ),
    /** The facts of a stored blob are those of any image that has it: same bytes, same facts. */
    copyImage: prepare(() =>
      db
        .update(t.images)
        .set({
          blobId: sql`${p('blobId')}`,
          size: sql`${p('size')}`,
          arch: sql`(select arch from images where blob_id = ${p('blobId')} limit 1)`,
          signed: sql`(select signed from images where blob_id = ${p('blobId')} limit 1)`,
          encrypted: sql`(select encrypted from images where blob_id = ${p('blobId')} limit 1)`,
          fingerprints: sql`(select fingerprints from images where blob_id = ${p('blobId')} limit 1)`,
          updatedAt: sql`${p('now')}`,
          manifest: sql`${p('manifest')}`,
        })
        .where(sql`id = ${p('imageId')} and blob_id is null`),
    ),
    copyDetails: prepare(() =>
      db
        .insert(t.imageDetails)
        .select(
          sql`select ${p('imageId')} as image_id, d.definition as definition, d.labels as labels, d.partitions as partitions, d.truncated as truncated from image_details d join images i on i.id = d.image_id where i.blob_id = ${p('blobId')} limit 1`,
        )
        .onConflictDoNothing(),
    ),
    uploadDone: prepare(() =>
      db
        .update(t.uploads)
        .set({ state: 'done', closedAt: sql`${p('now')}` })
        .where(and(eq(t.uploads.id, text('uploadId')), eq(t.uploads.claim, text('claim')))),
    ),
    recountOfImage: recountContainer(
      db,
      sql`(select container_id from images where id = ${p('imageId')})`,
    ),
    recount: recountContainer(db, sql`${p('containerId')}`),
    recountIfNoted: recountContainer(
      db,
      sql`(select ${p('containerId')} from guard where note is not null)`,
    ),
    unindexImage: unindexImages(db, seqOf.image),
    indexImage: indexImages(db, seqOf.image),
    unindexBoth: unindexImages(db, seqOf.imageAndNote),
    indexBoth: indexImages(db, seqOf.imageAndNote),
    unindexNote: unindexImages(db, seqOf.note),
    indexNote: indexImages(db, seqOf.note),

    setTagGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayWrite(inContainer, 2),
        found: sql`exists (select 1 from images fi join blobs fb on fb.id = fi.blob_id and fb.state = 'live' where fi.id = ${p('imageId')} and fi.container_id = ${p('containerId')})`,
        archAgrees: sql`coalesce((select ${p('arch')} = '' or ai.arch = 'unknown' or ai.arch = ${p('arch')} from images ai where ai.id = ${p('imageId')}), 0)`,
        policyMet: policyMet(p('imageId').getSQL()),
        thawed: sql`not exists (select 1 from (${renamedTag}) ft where ft.image_id <> ${p('imageId')} and (ft.frozen = 1 or not ${containerThawed})) and not (${pinned} and coalesce((select rt.image_id from (${renamedTag}) rt), '') <> ${p('imageId')})`,
        note: sql`(select image_id from (${renamedTag}))`,
      }),
    ),
    learnArch: prepare(() =>
      db
        .update(t.images)
        .set({ arch: sql`${p('arch')}` })
        .where(sql`id = ${p('imageId')} and arch = 'unknown' and ${p('arch')} <> ''`),
    ),
    setTag: prepare(() =>
      db
        .insert(t.tags)
        .select(
          sql`select i.container_id as container_id, ${p('tag')} as name, case when i.arch = 'unknown' then 'amd64' else i.arch end as arch, i.id as image_id, ${p('now')} as updated_at, 0 as frozen from images i where i.id = ${p('imageId')}`,
        )
        .onConflictDoUpdate({
          target: [t.tags.containerId, t.tags.name, t.tags.arch],
          set: { imageId: sql`excluded.image_id`, updatedAt: sql`excluded.updated_at` },
        }),
    ),
    deleteTagGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayWrite(inContainer, 3),
        thawed: sql`not exists (select 1 from tags where container_id = ${p('containerId')} and name = ${p('tag')} and arch = ${p('arch')} and (frozen = 1 or not ${containerThawed} or ${pinned}))`,
        note: sql`(select image_id from tags where container_id = ${p('containerId')} and name = ${p('tag')} and arch = ${p('arch')})`,
      }),
    ),
    deleteImageGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayWrite(inContainer, 3),
        thawed: sql`${containerThawed} and not exists (select 1 from tags where image_id = ${p('imageId')} and frozen = 1) and not exists (select 1 from images fi join manifests fm on fm.container_id = fi.container_id and fm.sif = fi.digest join oci_tags fg on fg.container_id = fm.container_id and fg.manifest = fm.digest and fg.frozen = 1 where fi.id = ${p('imageId')})`,
        note: sql`(select id from images where id = ${p('imageId')} and container_id = ${p('containerId')})`,
      }),
    ),
    note: prepare(() => db.select({ note: t.guard.note }).from(t.guard)),
    deleteTag: prepare(() =>
      db
        .delete(t.tags)
        .where(
          and(
            eq(t.tags.containerId, text('containerId')),
            eq(t.tags.name, text('tag')),
            eq(t.tags.arch, text('arch')),
          ),
        ),
    ),
    deleteTagsOfNote: prepare(() =>
      db.delete(t.tags).where(sql`image_id = (select note from guard)`),
    ),
    /** R25: the tickets of an image that goes with its last tag end with it. */
    endUntagged: prepare(() =>
      db
        .insert(t.ended)
        .select(
          sql`select note as id, ${p('now')} as at from guard where note is not null and not exists (select 1 from tags where image_id = note) and not ${namedElsewhere(sql`note`)}`,
        )
        .onConflictDoUpdate({ target: t.ended.id, set: { at: sql`excluded.at` } }),
    ),
    deleteUntagged: prepare(() =>
      db
        .delete(t.images)
        .where(
          sql`id = (select note from guard) and not exists (select 1 from tags where image_id = (select note from guard)) and not ${namedElsewhere(sql`(select note from guard)`)}`,
        ),
    ),
    endNoted: prepare(() =>
      db
        .insert(t.ended)
        .select(sql`select note as id, ${p('now')} as at from guard where note is not null`)
        .onConflictDoUpdate({ target: t.ended.id, set: { at: sql`excluded.at` } }),
    ),
    deleteNoted: prepare(() => db.delete(t.images).where(sql`id = (select note from guard)`)),
    markLost: prepare(() =>
      db
        .update(t.blobs)
        .set({ state: 'lost', dyingAt: null })
        .where(and(eq(t.blobs.key, text('key')), isLive)),
    ),
    /** `counts` is a JSON object of ids and how many downloads to add to each. */
    countDownloads: prepare(() =>
      db
        .update(t.containers)
        .set({ downloads: sql`downloads + x.value` })
        .from(sql`json_each(${p('counts')}) x`)
        .where(sql`containers.id = x.key`),
    ),
    countWeek: prepare(() =>
      db
        .insert(t.counters)
        .select(
          sql`select 'pulls:' || x.key as name, ${p('week')} as period, x.value as count from json_each(${p('counts')}) x where exists (select 1 from containers where id = x.key)`,
        )
        .onConflictDoUpdate({
          target: [t.counters.name, t.counters.period],
          set: { count: sql`${t.counters.count} + excluded.count` },
        }),
    ),
  }

  const privately = (level: 'collection' | 'container') => {
    const chosen =
      level === 'collection'
        ? sql`select c.id from collections c join entities e on e.id = c.entity_id where e.name = ${p('entity')} and c.name = ${p('collection')}`
        : sql`select n.id from containers n join collections c on c.id = n.collection_id join entities e on e.id = c.entity_id where e.name = ${p('entity')} and c.name = ${p('collection')} and n.name = ${p('container')}`
    const below =
      level === 'collection'
        ? sql`select i.seq from images i join containers n on n.id = i.container_id where n.collection_id in (${chosen})`
        : sql`select i.seq from images i where i.container_id in (${chosen})`
    const table = level === 'collection' ? t.collections : t.containers
    const collectionId = sql`(select c.id from collections c join entities e on e.id = c.entity_id where e.name = ${p('entity')} and c.name = ${p('collection')})`
    const place: Place =
      level === 'collection'
        ? { collection: collectionId, container: null }
        : { collection: collectionId, container: sql`(${chosen})` }
    return {
      guard: prepare(() => db.insert(t.guard).values({ mayWrite: mayWrite(place, 3) })),
      audited: audited(db, {
        action: 'privacy.set',
        object: sql`${sql.raw(`'${level} '`)} || (${chosen})`,
        name: sql`${p('entity')} || '/' || ${p('collection')} || coalesce('/' || ${p('container')}, '')`,
        detail: sql`case ${p('private')} when 1 then 'private' else 'public' end`,
        when: sql`exists (select 1 from ${table} where id in (${chosen}) and private <> ${p('private')})`,
      }),
      find: prepare(() =>
        db
          .select({ id: table.id })
          .from(table)
          .where(sql`${table.id} in (${chosen})`),
      ),
      set: prepare(() =>
        db
          .update(table)
          .set({ private: sql`${p('private')}`, updatedAt: sql`${p('now')}` })
          .where(sql`id in (${chosen})`),
      ),
      /** R25: tickets given while the image was public end; those of who may still read it do not. */
      end: prepare(() =>
        db
          .insert(t.ended)
          .select(
            sql`select 'public:' || i.id as id, ${p('now')} as at from images i where ${p('private')} = 1 and i.seq in (${below})`,
          )
          .onConflictDoUpdate({ target: t.ended.id, set: { at: sql`excluded.at` } }),
      ),
      /** Public again: new tickets must count. */
      revive: prepare(() =>
        db
          .delete(t.ended)
          .where(
            sql`id in (select 'public:' || i.id from images i join containers n on n.id = i.container_id join collections c on c.id = n.collection_id where i.seq in (${below}) and n.private = 0 and c.private = 0)`,
          ),
      ),
      unindex: unindexImages(db, below),
      index: indexImages(db, below),
    }
  }
  const visibility = { collection: privately('collection'), container: privately('container') }

  /** Insert-or-nothing behind its guard, and the row that stands now: one batch (R6). */
  async function store<Row extends { id: string }, T>(
    id: string,
    [guard, insert, select, ...more]: readonly [
      Statement,
      Statement,
      Statement<Row[]>,
      ...Statement[],
    ],
    toNoun: (row: Row) => T,
    reasons: Parameters<typeof guarded>[1],
  ): Promise<{ row: T; created: boolean }> {
    const [, , rows] = await guarded(
      handle.write(guard, insert, select, ...more, w.dropGuard()),
      reasons,
    )
    const row = rows[0]
    if (row === undefined) throw new RegistryError('internal', 'What was created was not stored.')
    return { row: toNoun(row), created: row.id === id }
  }

  const viewing = seeing(handle)
  return {
    ...sqliteLookups(handle, viewing),
    ...sqliteSearch(handle, viewing),
    ...sqlitePlaces(handle),

    async createEntity({ writer, ...draft }) {
      const values = { ...writerValues(writer), ...draft }
      const steps = [
        w.entityGuard(values),
        w.entity(values),
        w.entityByName(values),
        w.entityMade(values),
      ] as const
      return store(draft.id, steps, toEntity, { may_write: lostRight })
    },
    async createCollection({ writer, ...draft }) {
      const values = {
        ...writerValues(writer),
        ...asViewer(writer),
        limit: null,
        ...draft,
      }
      const steps = [
        w.collectionGuard(values),
        w.collection(values),
        w.collectionByName(values),
        w.collectionMade(values),
      ] as const
      return store(draft.id, steps, toCollection, {
        may_write: lostRight,
        found: gone('entity'),
        within_limit: () =>
          new RegistryError(
            'denied',
            `Your entity has ${String(draft.limit)} collections, as many as it may have here (SREG_USER_COLLECTION_LIMIT).`,
            { subject: 'collection' },
          ),
      })
    },
    async createContainer({ writer, ...draft }) {
      const values = { ...writerValues(writer), ...asViewer(writer), ...draft }
      const steps = [
        w.containerGuard(values),
        w.container(values),
        w.containerByName(values),
        w.containerMade(values),
      ] as const
      const reasons = { may_write: lostRight, found: gone('collection') }
      return store(draft.id, steps, toContainer, reasons)
    },
    async createImage({ writer, ...draft }) {
      const values = { ...writerValues(writer), ...asViewer(writer), ...draft }
      const steps = [w.imageGuard(values), w.image(values), w.imageByDigest(values)] as const
      return store(draft.id, steps, toImage, { may_write: lostRight, found: gone('container') })
    },

    async attach({ imageId, digest, size, defaultQuota, facts, judged, manifest, writer, source }) {
      const values: Record<string, unknown> = {
        ...writerValues(writer),
        imageId,
        digest,
        size,
        defaultQuota: defaultQuota ?? null,
        manifest: manifest ?? null,
        ...(facts === null
          ? {}
          : {
              arch: facts.arch,
              signed: facts.signed ? 1 : 0,
              encrypted: facts.encrypted ? 1 : 0,
              fingerprints: JSON.stringify(facts.fingerprints),
              definition: facts.definition,
              labels: facts.labels,
              partitions: facts.partitions,
              truncated: facts.truncated,
            }),
      }
      // ahead of the guard, which looks at it
      const verdict =
        facts?.signatures != null && judged != null
          ? w.verdict(verdictValues(digest, facts.signatures, judged))
          : []
      const after = [
        w.heal(values),
        w.healMembers(values),
        ...(facts === null
          ? [w.copyDetails(values), w.copyImage(values)]
          : [w.attachImage(values), w.details(values)]),
        w.recountOfImage(values),
        w.unindexImage(values),
        w.indexImage(values),
      ]
      const reasons = {
        may_write: lostRight,
        policy_met: unmet,
        within_quota: () => beyondQuota(values),
        found: () =>
          new RegistryError('conflict', 'This image was deleted meanwhile; push it again.', {
            subject: 'image',
          }),
        readable: () =>
          new RegistryError('conflict', 'The stored copy of this image has gone; push it again.', {
            subject: 'image',
          }),
        claimed: () =>
          new RegistryError('conflict', 'This upload is being completed by another request.', {
            subject: 'upload',
          }),
      }
      if (source.kind === 'upload') {
        Object.assign(values, source)
        await guarded(
          handle.write(
            ...verdict,
            w.attachGuardUpload(values),
            w.newBlob(values),
            ...after,
            w.uploadDone(values),
            w.uploaded(values),
            w.dropGuard(),
          ),
          reasons,
        )
      } else {
        Object.assign(values, source)
        const [guard, told] =
          source.kind === 'member'
            ? [w.attachGuardMember, w.bridged]
            : [w.attachGuardBlob, w.copied]
        await guarded(
          handle.write(...verdict, guard(values), ...after, told(values), w.dropGuard()),
          reasons,
        )
      }
    },

    async markLost(key) {
      await handle.write(w.markLost({ key }))
    },

    async setTag({ containerId, arch, tag, imageId, writer }) {
      const values = { ...writerValues(writer), containerId, arch: arch ?? '', tag, imageId }
      await guarded(
        handle.write(
          w.setTagGuard(values),
          w.learnArch(values),
          w.unindexBoth(values),
          w.setTag(values),
          w.indexBoth(values),
          w.recount(values),
          w.tagSet(values),
          w.dropGuard(),
        ),
        {
          may_write: lostRight,
          policy_met: unmet,
          thawed: () =>
            new RegistryError(
              'denied',
              `The tag ${tag} is frozen here and names another image: push with another tag, or ask its owner to thaw it.`,
              { subject: 'tag' },
            ),
          found: gone('image'),
          arch_agrees: () =>
            new RegistryError(
              'conflict',
              `This tag is asked for ${arch ?? 'another arch'}, but the image file was built for another one; nothing was tagged.`,
              { subject: 'tag' },
            ),
        },
      )
    },

    async deleteTag(containerId, arch, tag, writer) {
      const values = { ...writerValues(writer), containerId, arch, tag }
      const [, note] = await guarded(
        handle.write(
          w.deleteTagGuard(values),
          w.note(),
          w.unindexNote(values),
          w.deleteTag(values),
          w.tagDeleted(values),
          w.endUntagged(values),
          w.deleteUntagged(values),
          w.indexNote(values),
          w.recountIfNoted(values),
          w.dropGuard(),
        ),
        { may_write: lostRight, thawed: frozen(`The tag ${tag}`) },
      )
      return (note[0]?.note ?? null) !== null
    },

    async deleteImage({ imageId, containerId }, writer) {
      const values = { ...writerValues(writer), imageId, containerId }
      const [, note] = await guarded(
        handle.write(
          w.deleteImageGuard(values),
          w.note(),
          w.imageDeleted(values),
          w.unindexNote(values),
          w.deleteTagsOfNote(values),
          w.endNoted(values),
          w.deleteNoted(values),
          w.recountIfNoted(values),
          w.dropGuard(),
        ),
        { may_write: lostRight, thawed: frozen('This image') },
      )
      return (note[0]?.note ?? null) !== null
    },

    async setPrivate(path, value, by) {
      const set = path.container === null ? visibility.collection : visibility.container
      const values = { ...writerValues(by), ...path, private: value ? 1 : 0 }
      const [, found] = await guarded(
        handle.write(
          set.guard(values),
          set.find(values),
          set.audited(values),
          set.set(values),
          set.end(values),
          set.revive(values),
          set.unindex(values),
          set.index(values),
          w.dropGuard(),
        ),
        { may_write: lostRight },
      )
      return found.length > 0
    },

    async countDownloads(counts, week) {
      const sums: Record<string, number> = {}
      for (const { containerId, count } of counts)
        sums[containerId] = (sums[containerId] ?? 0) + count
      const values = { counts: JSON.stringify(sums), week: week.getTime() }
      if (counts.length > 0) await handle.write(w.countDownloads(values), w.countWeek(values))
    },
  }
}
