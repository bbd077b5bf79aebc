/** Entities to tags, and search over them. */
import { and, eq, isNotNull, isNull, not, sql, type SQL } from 'drizzle-orm'
import { integer, sqliteTable, text as column } from 'drizzle-orm/sqlite-core'
import { RegistryError } from '../errors.ts'
import type { CatalogBook, ImageSelector, LookupPath, Viewer, Writer } from '../ports.ts'
import { pullCounter, pullCounts } from './counters.ts'
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
  standingQuery,
  unindexImages,
  searchScope,
  viewerManages,
  viewerContributes,
  viewerValues,
  visibleCollection,
  visibleContainer,
  writerManages,
  writerStands,
  writerValues,
  type Place,
} from './fragments.ts'
import { ALWAYS, prepare, type Handle, type Statement } from './handle.ts'
import { healMembers } from './oci.ts'
import { overQuota, withinQuota, withinQuotaNow } from './quotas.ts'
import { sqlitePlaces } from './places.ts'
import {
  collectionColumns,
  containerColumns,
  entityColumns,
  foundColumns,
  imageColumns,
  toFoundImage,
  toCollection,
  toContainer,
  toEntity,
  toImage,
  toStanding,
  toUser,
  userColumns,
} from './rows.ts'
import * as t from './schema.ts'
import { storeVerdict, verdictValues } from './signatures.ts'

/** Lists given out below a name never hold more ids than this (R54). */
const LIST_LIMIT = 1000
/** Matches that search looks at, the newest, before it narrows and joins them (R56). */
const CANDIDATES = 10_000
/** FTS5 takes its commands as rows: what to do in the column of the table's own name. */
const searchCommands = sqliteTable('search', {
  command: column('search'),
  amount: integer('rank'),
})
/** As many matches are all looked at: more than one answer would hold are begun with the newest. */
const FEW = 1000

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

/** Images in the order of their names, of one name the newest first. */
type Named = { entityName: string; collectionName: string; containerName: string; seq: number }
const byName = (a: Named, b: Named): number =>
  compare(a.entityName, b.entityName) ||
  compare(a.collectionName, b.collectionName) ||
  compare(a.containerName, b.containerName) ||
  b.seq - a.seq
const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

export function sqliteCatalog(handle: Handle): CatalogBook {
  const { db } = handle
  const standing = standingQuery(db)
  const beyondQuota = overQuota(handle)

  const collectionsJoined = () =>
    db
      .select(collectionColumns)
      .from(t.collections)
      .innerJoin(t.entities, eq(t.entities.id, t.collections.entityId))
  const containersJoined = () =>
    db
      .select(containerColumns)
      .from(t.containers)
      .innerJoin(t.collections, eq(t.collections.id, t.containers.collectionId))
      .innerJoin(t.entities, eq(t.entities.id, t.collections.entityId))
  const liveBlob = and(eq(t.blobs.id, t.images.blobId), isLive)
  const imagesJoined = () =>
    db
      .select(imageColumns)
      .from(t.images)
      .innerJoin(t.containers, eq(t.containers.id, t.images.containerId))
      .innerJoin(t.collections, eq(t.collections.id, t.containers.collectionId))
      .innerJoin(t.entities, eq(t.entities.id, t.collections.entityId))
      .leftJoin(t.blobs, liveBlob)
  const uploadedImagesJoined = () =>
    db
      .select(imageColumns)
      .from(t.images)
      .innerJoin(t.containers, eq(t.containers.id, t.images.containerId))
      .innerJoin(t.collections, eq(t.collections.id, t.containers.collectionId))
      .innerJoin(t.entities, eq(t.entities.id, t.collections.entityId))
      .innerJoin(t.blobs, liveBlob)

  /** Either the named entity, or the one visible collection of that name (SREG_SHORT_REFS=unique). */
  const inEntity = {
    named: eq(t.entities.name, text('entity')),
    unique: and(
      visibleCollection,
      sql`(select count(*) from collections oc where oc.name = ${p('collection')} and (oc.private = 0 or ((${levelIn(text('viewerId'), sql`oc.id`)} > 0 or ${viewerManages}) and exists (select 1 from tokens ob where ob.id = ${text('viewerToken')} and ob.collection_id in ('', oc.id))))) = 1`,
    ),
  }
  const ofPath = (within: SQL | undefined) =>
    and(
      within,
      eq(t.collections.name, text('collection')),
      eq(t.containers.name, text('container')),
    )
  const tagged = and(eq(t.tags.name, text('tag')), eq(t.tags.arch, text('arch')))

  const perPath = (within: SQL | undefined) => ({
    container: prepare(() => containersJoined().where(ofPath(within))),
    containerImages: prepare(() =>
      db
        .select({ id: t.images.id })
        .from(t.images)
        .innerJoin(t.containers, eq(t.containers.id, t.images.containerId))
        .innerJoin(t.collections, eq(t.collections.id, t.containers.collectionId))
        .innerJoin(t.entities, eq(t.entities.id, t.collections.entityId))
        .where(and(ofPath(within), isNotNull(t.images.blobId)))
        .orderBy(t.images.seq)
        .limit(LIST_LIMIT),
    ),
    taggedElsewhere: prepare(
      () =>
        containersJoined().where(
          and(
            ofPath(within),
            sql`exists (select 1 from oci_tags where container_id = ${t.containers.id} and name = ${text('tag')})`,
            sql`not exists (select 1 from tags where container_id = ${t.containers.id} and name = ${text('tag')})`,
          ),
        ),
      ALWAYS,
    ),
    containerTags: prepare(() =>
      db
        .select({ arch: t.tags.arch, name: t.tags.name, imageId: t.tags.imageId })
        .from(t.tags)
        .innerJoin(t.containers, eq(t.containers.id, t.tags.containerId))
        .innerJoin(t.collections, eq(t.collections.id, t.containers.collectionId))
        .innerJoin(t.entities, eq(t.entities.id, t.collections.entityId))
        .where(ofPath(within)),
    ),
    byTag: prepare(
      () =>
        db
          .select(imageColumns)
          .from(t.tags)
          .innerJoin(t.images, eq(t.images.id, t.tags.imageId))
          .innerJoin(t.containers, eq(t.containers.id, t.tags.containerId))
          .innerJoin(t.collections, eq(t.collections.id, t.containers.collectionId))
          .innerJoin(t.entities, eq(t.entities.id, t.collections.entityId))
          .innerJoin(t.blobs, liveBlob)
          .where(and(ofPath(within), tagged)),
      ALWAYS,
    ),
    byDigest: prepare(
      () => uploadedImagesJoined().where(and(ofPath(within), eq(t.images.digest, text('digest')))),
      ALWAYS,
    ),
  })
  /** Where the image that the selector means lies, if the viewer can see it and may not write there. */
  const pulled = (within: SQL | undefined, by: ImageSelector['by']) => {
    const [from, chosen] =
      by === 'tag'
        ? [
            sql`tags join images on images.id = tags.image_id`,
            and(tagged, sql`tags.container_id = containers.id`),
          ]
        : [sql`images`, eq(t.images.digest, text('digest'))]
    return sql`select containers.id as container, collections.id as collection from ${from} join containers on containers.id = images.container_id join collections on collections.id = containers.collection_id join entities on entities.id = collections.entity_id join blobs on ${liveBlob} where ${and(ofPath(within), chosen, visibleContainer, not(viewerContributes))}`
  }
  const pulls = (within: SQL | undefined, by: ImageSelector['by']) =>
    pullCounter(db, pulled(within, by))
  const pullsOf = {
    named: { tag: pulls(inEntity.named, 'tag'), digest: pulls(inEntity.named, 'digest') },
    unique: { tag: pulls(inEntity.unique, 'tag'), digest: pulls(inEntity.unique, 'digest') },
  }
  const paths = { named: perPath(inEntity.named), unique: perPath(inEntity.unique) }
  const pathOf = (path: LookupPath) => (path.entity === null ? paths.unique : paths.named)

  const q = {
    entity: prepare(() =>
      db
        .select(entityColumns)
        .from(t.entities)
        .where(eq(t.entities.name, text('name'))),
    ),
    entityShows: prepare(() =>
      db
        .select({ id: t.collections.id })
        .from(t.collections)
        .innerJoin(t.entities, eq(t.entities.id, t.collections.entityId))
        .where(and(eq(t.entities.id, text('id')), visibleCollection))
        .limit(1),
    ),
    taggable: prepare(() =>
      db
        .select({ arch: t.images.arch })
        .from(t.images)
        .innerJoin(t.blobs, liveBlob)
        .where(and(eq(t.images.id, text('imageId')), eq(t.images.containerId, text('id')))),
    ),
    entityById: prepare(() =>
      db
        .select(entityColumns)
        .from(t.entities)
        .where(eq(t.entities.id, text('id'))),
    ),
    ownEntities: prepare(() =>
      db
        .select(entityColumns)
        .from(t.entities)
        .where(eq(t.entities.ownerId, text('viewerId')))
        .orderBy(t.entities.name)
        .limit(LIST_LIMIT),
    ),
    /** Asked by tokens that may have power only: it walks through all entities. */
    managedEntities: prepare(() =>
      db
        .select(entityColumns)
        .from(t.entities)
        .where(sql`(${t.entities.ownerId} = ${text('viewerId')} or ${viewerManages})`)
        .orderBy(t.entities.name)
        .limit(LIST_LIMIT),
    ),
    entityCollections: prepare(() =>
      db
        .select({ id: t.collections.id })
        .from(t.collections)
        .innerJoin(t.entities, eq(t.entities.id, t.collections.entityId))
        .where(and(eq(t.entities.name, text('name')), visibleCollection))
        .orderBy(t.collections.name)
        .limit(LIST_LIMIT),
    ),
    entitySize: prepare(() =>
      db
        .select({ size: sql<number>`coalesce(sum(${t.containers.size}), 0)` })
        .from(t.containers)
        .innerJoin(t.collections, eq(t.collections.id, t.containers.collectionId))
        .innerJoin(t.entities, eq(t.entities.id, t.collections.entityId))
        .where(and(eq(t.entities.name, text('name')), visibleContainer)),
    ),
    collection: prepare(() =>
      collectionsJoined().where(
        and(eq(t.entities.name, text('entity')), eq(t.collections.name, text('name'))),
      ),
    ),
    collectionById: prepare(() => collectionsJoined().where(eq(t.collections.id, text('id')))),
    collectionContainers: prepare(() =>
      db
        .select({ id: t.containers.id })
        .from(t.containers)
        .innerJoin(t.collections, eq(t.collections.id, t.containers.collectionId))
        .innerJoin(t.entities, eq(t.entities.id, t.collections.entityId))
        .where(
          and(
            eq(t.entities.name, text('entity')),
            eq(t.collections.name, text('name')),
            visibleContainer,
          ),
        )
        .orderBy(t.containers.name)
        .limit(LIST_LIMIT),
    ),
    collectionSize: prepare(() =>
      db
        .select({ size: sql<number>`coalesce(sum(${t.containers.size}), 0)` })
        .from(t.containers)
        .innerJoin(t.collections, eq(t.collections.id, t.containers.collectionId))
        .innerJoin(t.entities, eq(t.entities.id, t.collections.entityId))
        .where(
          and(
            eq(t.entities.name, text('entity')),
            eq(t.collections.name, text('name')),
            visibleContainer,
          ),
        ),
    ),
    containerById: prepare(() => containersJoined().where(eq(t.containers.id, text('id')))),
    tagsById: prepare(() =>
      db
        .select({ arch: t.tags.arch, name: t.tags.name, imageId: t.tags.imageId })
        .from(t.tags)
        .where(eq(t.tags.containerId, text('id'))),
    ),
    imageById: prepare(() => imagesJoined().where(eq(t.images.id, text('id')))),
    user: prepare(() =>
      db
        .select(userColumns)
        .from(t.users)
        .where(and(eq(t.users.name, text('name')), isNull(t.users.deletedAt))),
    ),
    readableBlob: prepare(() =>
      db
        .select({ id: t.blobs.id, key: t.blobs.key, size: t.blobs.size })
        .from(t.images)
        .innerJoin(t.blobs, liveBlob)
        .innerJoin(t.containers, eq(t.containers.id, t.images.containerId))
        .innerJoin(t.collections, eq(t.collections.id, t.containers.collectionId))
        .innerJoin(t.entities, eq(t.entities.id, t.collections.entityId))
        .where(and(eq(t.images.digest, text('digest')), visibleContainer))
        .limit(1),
    ),
  }

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
      collectionsJoined().where(
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
      containersJoined().where(
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
      imagesJoined().where(
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

  /** Only who is an administrator now, by role and row, matches without the scope (R14, R30). */
  const scoped = sql`case when ${viewerManages} then ${p('text')} else ${searchScope} || ${p('text')} end`
  const matches = (order: SQL, most: number) =>
    sql`select rowid as seq from search where search match ${scoped} ${order} limit ${sql.raw(String(most))}`
  const wanted = and(
    sql`(${p('arch')} = '' or instr(${p('arch')}, ',' || ${t.images.arch} || ',') > 0)`,
    sql`(${p('signed')} = 0 or ${t.images.signed} = 1)`,
    visibleContainer,
    isNotNull(t.images.blobId),
    // what is gone has an index of its own, and is little
    sql`not exists (select 1 from blobs indexed by blobs_gone where id = ${t.images.blobId} and state <> 'live')`,
  )
  const matchColumns = {
    ...foundColumns,
    seq: sql<number>`images.seq`.as('seq'),
    candidates: sql<number | null>`null`.as('candidates'),
  }
  /** A row without an image: it tells how many candidates there were, be it none. */
  const telling = (candidates: SQL) =>
    Object.fromEntries(
      Object.keys(matchColumns).map((name) => [
        name,
        (name === 'candidates' ? candidates : sql`null`).as(name),
      ]),
    ) as unknown as typeof matchColumns
  const imagesAmong = (start: Pick<Handle['db'], 'select'>, candidates: SQL) =>
    start
      .select(matchColumns)
      .from(sql`${candidates} f cross join images on images.seq = f.seq`)
      .innerJoin(t.containers, eq(t.containers.id, t.images.containerId))
      .innerJoin(t.collections, eq(t.collections.id, t.containers.collectionId))
      .innerJoin(t.entities, eq(t.entities.id, t.collections.entityId))
      .innerJoin(t.searchContent, eq(t.searchContent.rowid, t.images.seq))
  const found = db.$with('found', { seq: sql<number>`seq`.as('seq') }).as(matches(sql``, FEW + 1))
  const few = sql`(select count(*) from found) <= ${sql.raw(String(FEW))}`
  const search = {
    /** Nothing where more than a few match; otherwise all, in the order in which the index is quicker. */
    few: prepare(() =>
      imagesAmong(db.with(found), sql`found`)
        .where(and(few, wanted))
        .unionAll(
          db
            .select(telling(sql`(select count(*) from found)`))
            .from(sql`(select 1)`)
            .where(few),
        ),
    ),
    /** From the newest on, and no further than it takes to fill the answer: then nobody counts. */
    many: prepare(() =>
      imagesAmong(db, sql`(${matches(sql`order by rowid desc`, CANDIDATES)})`)
        .where(wanted)
        .unionAll(
          db
            .select(telling(sql`(select count(*) from (${matches(sql``, CANDIDATES + 1)}))`))
            .from(sql`(select 1)`),
        )
        .limit(p('limit')),
    ),
  }

  const index = {
    /** Two pieces of a size are enough to merge them; it waits for four by itself. The index remembers it. */
    eager: prepare(() =>
      db
        .insert(searchCommands)
        .select(
          sql`select 'usermerge' as command, 2 as amount where not exists (select 1 from search_config where k = 'usermerge' and v = 2)`,
        ),
    ),
    merge: prepare(() =>
      db.insert(searchCommands).values({ command: 'merge', amount: sql`${p('pages')}` }),
    ),
    /** Which pieces there are, and how much was ever written to them. */
    pieces: prepare(() =>
      db
        .select({ are: sql<string>`hex(block)`.as('are') })
        .from(sql`search_data`)
        .where(sql`id = 10`),
    ),
  }

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

  /** The viewer's standing, read in the same trip; nobody has none and needs no statement. */
  async function see<T extends readonly Statement[], R>(
    viewer: Viewer,
    values: Record<string, unknown>,
    statements: T,
    pick: (rows: { [K in keyof T]: T[K] extends Statement<infer Rows> ? Rows : never }) => R,
  ) {
    if (viewer === null) {
      const rows = await handle.read(...statements)
      return { standing: null, value: pick(rows) }
    }
    const [stands, ...rows] = await handle.read(standing(values), ...statements)
    return {
      standing: toStanding(stands[0]),
      value: pick(rows),
    }
  }

  /** The image; of a tag that the library does not know also the container where OCI knows it. */
  function imageStatements(
    path: LookupPath,
    selector: ImageSelector,
    values: Record<string, unknown>,
  ) {
    const from = pathOf(path)
    if (selector.by === 'digest') return [from.byDigest({ ...values, ...selector })] as const
    const named = { ...values, ...selector }
    const image = from.byTag(named)
    return [image, { ...from.taggedElsewhere(named), unless: image }] as const
  }

  return {
    async ownEntities(viewer, now) {
      const values = viewerValues(viewer, now)
      const own = values.viewerAdmin === 0 ? q.ownEntities : q.managedEntities
      return see(viewer, values, [own(values)] as const, ([rows]) => rows.map(toEntity))
    },

    async findEntity(name, viewer, now) {
      const values = { ...viewerValues(viewer, now), name }
      return see(
        viewer,
        values,
        [q.entity(values), q.entityCollections(values), q.entitySize(values)] as const,
        ([entity, collections, size]) =>
          entity[0] === undefined
            ? null
            : {
                entity: toEntity(entity[0]),
                below: { ids: collections.map((c) => c.id), size: size[0]?.size ?? 0 },
              },
      )
    },

    async findCollection(entity, name, viewer, now) {
      const values = { ...viewerValues(viewer, now), entity, name }
      return see(
        viewer,
        values,
        [q.collection(values), q.collectionContainers(values), q.collectionSize(values)] as const,
        ([collection, containers, size]) =>
          collection[0] === undefined
            ? null
            : {
                collection: toCollection(collection[0]),
                below: { ids: containers.map((c) => c.id), size: size[0]?.size ?? 0 },
              },
      )
    },

    async findContainer(path, viewer, now) {
      const values = { ...viewerValues(viewer, now), ...path }
      const from = pathOf(path)
      return see(
        viewer,
        values,
        [from.container(values), from.containerImages(values), from.containerTags(values)] as const,
        ([container, images, tags]) =>
          container[0] === undefined
            ? null
            : {
                container: toContainer(container[0]),
                below: { ids: images.map((i) => i.id), size: container[0].size },
                tags,
              },
      )
    },

    async findImage(path, selector, viewer, now) {
      const values = { ...viewerValues(viewer, now), ...path }
      const statements = imageStatements(path, selector, values)
      const { standing, value } = await see(viewer, values, statements, (rows) => rows)
      const [image, elsewhere] = value
      return {
        standing,
        value: image[0] === undefined ? null : toImage(image[0]),
        elsewhere: elsewhere?.[0] === undefined ? null : toContainer(elsewhere[0]),
      }
    },

    async pullImage(path, selector, viewer, now, week) {
      const values = {
        ...viewerValues(viewer, now),
        ...path,
        ...selector,
        week: week.begin.getTime(),
        counts: week.counts ? 1 : 0,
        perContainer: week.container,
        perCollection: week.collection,
      }
      const counting = pullsOf[path.entity === null ? 'unique' : 'named'][selector.by]
      const [stands, full, counts, image, elsewhere] = await handle.write(
        standing(values),
        counting.full(values),
        counting.count(values),
        ...imageStatements(path, selector, values),
      )
      return {
        standing: toStanding(stands[0]),
        value: {
          image: image[0] === undefined ? null : toImage(image[0]),
          counted: pullCounts(full, counts),
        },
        elsewhere: elsewhere?.[0] === undefined ? null : toContainer(elsewhere[0]),
      }
    },

    async entityById(id, viewer, now) {
      const values = { ...viewerValues(viewer, now), id }
      return see(
        viewer,
        values,
        [q.entityById(values), q.entityShows(values)] as const,
        ([rows, shown]) =>
          rows[0] === undefined ? null : { ...toEntity(rows[0]), visible: shown.length > 0 },
      )
    },
    async collectionById(id, viewer, now) {
      const values = { ...viewerValues(viewer, now), id }
      return see(viewer, values, [q.collectionById(values)] as const, ([rows]) =>
        rows[0] === undefined ? null : toCollection(rows[0]),
      )
    },
    async containerById(id, viewer, now) {
      const values = { ...viewerValues(viewer, now), id }
      return see(viewer, values, [q.containerById(values)] as const, ([rows]) =>
        rows[0] === undefined ? null : toContainer(rows[0]),
      )
    },
    async imageById(id, viewer, now) {
      const values = { ...viewerValues(viewer, now), id }
      return see(viewer, values, [q.imageById(values)] as const, ([rows]) =>
        rows[0] === undefined ? null : toImage(rows[0]),
      )
    },
    async entityParent(name, viewer, now) {
      const values = { ...viewerValues(viewer, now), name }
      return see(
        viewer,
        values,
        [q.user(values), q.entity(values)] as const,
        ([users, entities]) => ({
          user: users[0] === undefined ? null : toUser(users[0]),
          entity: entities[0] === undefined ? null : toEntity(entities[0]),
        }),
      )
    },

    async createEntity({ writer, ...draft }) {
      const values = { ...writerValues(writer), ...draft }
      const steps = [
        w.entityGuard(values),
        w.entity(values),
        q.entity(values),
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

    async readableBlob(digest, viewer, now) {
      const [rows] = await handle.read(q.readableBlob({ ...viewerValues(viewer, now), digest }))
      return rows[0] ?? null
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

    async listTags(containerId, viewer, now) {
      const values = { ...viewerValues(viewer, now), id: containerId }
      return see(
        viewer,
        values,
        [q.containerById(values), q.tagsById(values)] as const,
        ([container, tags]) =>
          container[0] === undefined ? null : { container: toContainer(container[0]), tags },
      )
    },

    async taggable(containerId, imageId, viewer, now) {
      const values = { ...viewerValues(viewer, now), id: containerId, imageId }
      return see(
        viewer,
        values,
        [q.containerById(values), q.taggable(values)] as const,
        ([container, image]) =>
          container[0] === undefined
            ? null
            : { container: toContainer(container[0]), image: image[0] ?? null },
      )
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

    ...sqlitePlaces(handle),

    async countDownloads(counts, week) {
      const sums: Record<string, number> = {}
      for (const { containerId, count } of counts)
        sums[containerId] = (sums[containerId] ?? 0) + count
      const values = { counts: JSON.stringify(sums), week: week.getTime() }
      if (counts.length > 0) await handle.write(w.countDownloads(values), w.countWeek(values))
    },

    async mergeIndex(pages) {
      const steps = [index.pieces(), index.eager(), index.merge({ pages }), index.pieces()] as const
      const [before, , , after] = await handle.write(...steps)
      return before[0]?.are !== after[0]?.are
    },

    async search({ terms, arch, signed, limit }, viewer, now) {
      const values = viewerValues(viewer, now)
      // a NUL would end the expression for FTS5, which reads it as a C string
      const plain = terms.map((term) => term.replaceAll('\0', '\ufffd').replaceAll('"', '""'))
      const text = `({names tags description labels} : (${plain.map((term) => `"${term}"`).join(' AND ')}))`
      const query = {
        ...values,
        text,
        arch: arch.length === 0 ? '' : `,${arch.join(',')},`,
        signed: signed ? 1 : 0,
        limit: limit + 1,
      }
      const statement = search.few(query)
      const statements = [statement, { ...search.many(query), unless: statement }] as const
      return see(viewer, values, statements, (answers) => {
        const rows = answers.flat()
        const told = rows.find(({ candidates }) => candidates !== null)
        const images = rows.filter((row) => row !== told).sort((a, b) => b.seq - a.seq)
        return {
          images: images.slice(0, limit).sort(byName).map(toFoundImage),
          cut: images.length > limit || (told?.candidates ?? 0) > CANDIDATES,
        }
      })
    },
  }
}
