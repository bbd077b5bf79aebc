/** Lookups: by path, by tag or digest, by id, each with the standing of who asks. */
import { and, eq, isNotNull, isNull, not, sql, type SQL } from 'drizzle-orm'
import type { CatalogBook, ImageSelector, LookupPath } from '../ports.ts'
import { pullCounter, pullCounts } from './counters.ts'
import {
  levelIn,
  p,
  text,
  viewerManages,
  viewerContributes,
  viewerValues,
  visibleCollection,
  visibleContainer,
} from './fragments.ts'
import { ALWAYS, prepare, type Handle } from './handle.ts'
import { joinsOf, liveBlob } from './joins.ts'
import {
  entityColumns,
  imageColumns,
  toCollection,
  toContainer,
  toEntity,
  toImage,
  toStanding,
  toUser,
  userColumns,
} from './rows.ts'
import * as t from './schema.ts'
import type { Seeing } from './seeing.ts'

/** Lists given out below a name never hold more ids than this (R54). */
const LIST_LIMIT = 1000

export function sqliteLookups(
  handle: Handle,
  { standing, see }: Seeing,
): Pick<
  CatalogBook,
  | 'ownEntities'
  | 'findEntity'
  | 'findCollection'
  | 'findContainer'
  | 'findImage'
  | 'pullImage'
  | 'entityById'
  | 'collectionById'
  | 'containerById'
  | 'imageById'
  | 'entityParent'
  | 'readableBlob'
  | 'listTags'
  | 'taggable'
> {
  const { db } = handle
  const joined = joinsOf(db)

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
    container: prepare(() => joined.containers().where(ofPath(within))),
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
        joined
          .containers()
          .where(
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
      () => joined.uploadedImages().where(and(ofPath(within), eq(t.images.digest, text('digest')))),
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
      joined
        .collections()
        .where(and(eq(t.entities.name, text('entity')), eq(t.collections.name, text('name')))),
    ),
    collectionById: prepare(() => joined.collections().where(eq(t.collections.id, text('id')))),
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
    containerById: prepare(() => joined.containers().where(eq(t.containers.id, text('id')))),
    tagsById: prepare(() =>
      db
        .select({ arch: t.tags.arch, name: t.tags.name, imageId: t.tags.imageId })
        .from(t.tags)
        .where(eq(t.tags.containerId, text('id'))),
    ),
    imageById: prepare(() => joined.images().where(eq(t.images.id, text('id')))),
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

    async readableBlob(digest, viewer, now) {
      const [rows] = await handle.read(q.readableBlob({ ...viewerValues(viewer, now), digest }))
      return rows[0] ?? null
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
  }
}
