/** The nouns with what they lie in: the joins that lookups and writes have in common. */
import { and, eq } from 'drizzle-orm'
import { isLive } from './fragments.ts'
import type { Handle } from './handle.ts'
import { collectionColumns, containerColumns, imageColumns } from './rows.ts'
import * as t from './schema.ts'

/** The bytes of an image, while they are there. */
export const liveBlob = and(eq(t.blobs.id, t.images.blobId), isLive)

/** Queries without a condition; each call begins a new one. */
export function joinsOf(db: Handle['db']) {
  const images = () =>
    db
      .select(imageColumns)
      .from(t.images)
      .innerJoin(t.containers, eq(t.containers.id, t.images.containerId))
      .innerJoin(t.collections, eq(t.collections.id, t.containers.collectionId))
      .innerJoin(t.entities, eq(t.entities.id, t.collections.entityId))
  return {
    collections: () =>
      db
        .select(collectionColumns)
        .from(t.collections)
        .innerJoin(t.entities, eq(t.entities.id, t.collections.entityId)),
    containers: () =>
      db
        .select(containerColumns)
        .from(t.containers)
        .innerJoin(t.collections, eq(t.collections.id, t.containers.collectionId))
        .innerJoin(t.entities, eq(t.entities.id, t.collections.entityId)),
    /** With and without bytes. */
    images: () => images().leftJoin(t.blobs, liveBlob),
    uploadedImages: () => images().innerJoin(t.blobs, liveBlob),
  }
}
