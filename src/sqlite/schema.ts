/** The tables in drizzle's words: twin of migrations/*.sql, compared with them by a test. */
import { sql } from 'drizzle-orm'
import {
  index,
  integer,
  primaryKey,
  sqliteTable,
  text,
  uniqueIndex,
  type AnySQLiteColumn,
} from 'drizzle-orm/sqlite-core'
import type { SifFacts, UploadState } from '../core/model.ts'

/** Milliseconds since 1970; `rows.ts` turns them into Dates, so that raw SQL and builders agree. */
const time = (name: string) => integer(name)
const flag = (name: string) => integer(name, { mode: 'boolean' })

export const settings = sqliteTable('settings', {
  key: text('key').primaryKey(),
  value: text('value').notNull(),
})

export const users = sqliteTable('users', {
  id: text('id').primaryKey(),
  name: text('name').notNull().unique(),
  role: text('role', { enum: ['admin', 'user'] }).notNull(),
  disabled: flag('disabled').notNull().default(false),
  createdAt: time('created_at').notNull(),
})

export const tokens = sqliteTable(
  'tokens',
  {
    id: text('id').primaryKey(),
    userId: text('user_id')
      .notNull()
      .references(() => users.id, { onDelete: 'cascade' }),
    name: text('name').notNull(),
    /** Words separated by spaces, in the order of SCOPES. */
    scopes: text('scopes').notNull(),
    createdAt: time('created_at').notNull(),
    expiresAt: time('expires_at').notNull(),
    revokedAt: time('revoked_at'),
    lastUsedAt: time('last_used_at'),
  },
  (t) => [index('tokens_user').on(t.userId, t.createdAt)],
)

export const entities = sqliteTable(
  'entities',
  {
    id: text('id').primaryKey(),
    name: text('name').notNull().unique(),
    description: text('description').notNull(),
    ownerId: text('owner_id')
      .notNull()
      .references(() => users.id),
    defaultPrivate: flag('default_private').notNull().default(false),
    createdAt: time('created_at').notNull(),
    updatedAt: time('updated_at').notNull(),
  },
  (t) => [index('entities_owner').on(t.ownerId)],
)

export const collections = sqliteTable(
  'collections',
  {
    id: text('id').primaryKey(),
    entityId: text('entity_id')
      .notNull()
      .references(() => entities.id, { onDelete: 'cascade' }),
    name: text('name').notNull(),
    description: text('description').notNull(),
    private: flag('private').notNull(),
    createdAt: time('created_at').notNull(),
    updatedAt: time('updated_at').notNull(),
  },
  (t) => [
    uniqueIndex('collections_entity_name').on(t.entityId, t.name),
    index('collections_name').on(t.name),
  ],
)

export const containers = sqliteTable(
  'containers',
  {
    id: text('id').primaryKey(),
    collectionId: text('collection_id')
      .notNull()
      .references(() => collections.id, { onDelete: 'cascade' }),
    name: text('name').notNull(),
    description: text('description').notNull(),
    fullDescription: text('full_description').notNull(),
    private: flag('private').notNull(),
    /** Bytes of the container's uploaded images, kept by every statement that changes them. */
    size: integer('size').notNull().default(0),
    downloads: integer('downloads').notNull().default(0),
    createdAt: time('created_at').notNull(),
    updatedAt: time('updated_at').notNull(),
  },
  (t) => [uniqueIndex('containers_collection_name').on(t.collectionId, t.name)],
)

export const blobs = sqliteTable(
  'blobs',
  {
    id: text('id').primaryKey(),
    key: text('key').notNull().unique(),
    digest: text('digest').notNull(),
    size: integer('size').notNull(),
    state: text('state', { enum: ['live', 'dying', 'lost'] }).notNull(),
    createdAt: time('created_at').notNull(),
    dyingAt: time('dying_at'),
  },
  (t) => [
    uniqueIndex('blobs_live_digest')
      .on(t.digest)
      .where(sql`state = 'live'`),
    index('blobs_ending')
      .on(t.state, t.dyingAt)
      .where(sql`state <> 'live'`),
  ],
)

export const images = sqliteTable(
  'images',
  {
    seq: integer('seq').primaryKey({ autoIncrement: true }),
    id: text('id').notNull().unique(),
    containerId: text('container_id')
      .notNull()
      .references(() => containers.id, { onDelete: 'cascade' }),
    digest: text('digest').notNull(),
    description: text('description').notNull(),
    blobId: text('blob_id').references((): AnySQLiteColumn => blobs.id),
    size: integer('size').notNull().default(0),
    arch: text('arch').notNull().default('unknown'),
    signed: flag('signed').notNull().default(false),
    encrypted: flag('encrypted').notNull().default(false),
    fingerprints: text('fingerprints', { mode: 'json' }).$type<string[]>().notNull().default([]),
    createdBy: text('created_by').notNull(),
    createdAt: time('created_at').notNull(),
    updatedAt: time('updated_at').notNull(),
  },
  (t) => [
    uniqueIndex('images_container_digest').on(t.containerId, t.digest),
    index('images_digest').on(t.digest),
    index('images_blob').on(t.blobId),
  ],
)

export const imageDetails = sqliteTable('image_details', {
  imageId: text('image_id')
    .primaryKey()
    .references(() => images.id, { onDelete: 'cascade' }),
  definition: text('definition'),
  labels: text('labels', { mode: 'json' }).$type<SifFacts['labels']>().notNull(),
  partitions: text('partitions', { mode: 'json' }).$type<SifFacts['partitions']>().notNull(),
  truncated: text('truncated', { mode: 'json' }).$type<SifFacts['truncated']>().notNull(),
})

export const tags = sqliteTable(
  'tags',
  {
    containerId: text('container_id')
      .notNull()
      .references(() => containers.id, { onDelete: 'cascade' }),
    name: text('name').notNull(),
    arch: text('arch').notNull(),
    imageId: text('image_id')
      .notNull()
      .references(() => images.id, { onDelete: 'cascade' }),
    updatedAt: time('updated_at').notNull(),
  },
  (t) => [
    primaryKey({ columns: [t.containerId, t.name, t.arch] }),
    index('tags_image').on(t.imageId),
  ],
)

export const uploads = sqliteTable(
  'uploads',
  {
    id: text('id').primaryKey(),
    imageId: text('image_id').references(() => images.id, { onDelete: 'set null' }),
    userId: text('user_id').notNull(),
    tokenId: text('token_id').notNull(),
    blobKey: text('blob_key').notNull().unique(),
    handle: text('handle'),
    size: integer('size').notNull(),
    partSize: integer('part_size').notNull(),
    digest: text('digest').notNull(),
    state: text('state').$type<UploadState>().notNull(),
    claim: text('claim'),
    leaseUntil: time('lease_until'),
    createdAt: time('created_at').notNull(),
    expiresAt: time('expires_at').notNull(),
    closedAt: time('closed_at'),
  },
  (t) => [
    index('uploads_image').on(t.imageId, t.createdAt),
    index('uploads_running')
      .on(t.state, t.userId, t.size)
      .where(sql`state IN ('open', 'finishing')`),
    index('uploads_closed')
      .on(t.closedAt)
      .where(sql`closed_at IS NOT NULL`),
  ],
)

export const ended = sqliteTable(
  'ended',
  { id: text('id').primaryKey(), at: time('at').notNull() },
  (t) => [index('ended_at').on(t.at)],
)

export const imports = sqliteTable(
  'imports',
  {
    id: text('id').primaryKey(),
    /** Of the file: the same file again is the same import. */
    exportId: text('export_id').notNull(),
    state: text('state', { enum: ['open', 'done', 'aborted'] }).notNull(),
    sha256: text('sha256'),
    createdAt: time('created_at').notNull(),
    expiresAt: time('expires_at').notNull(),
    closedAt: time('closed_at'),
  },
  (t) => [index('imports_export').on(t.exportId)],
)

export const importRows = sqliteTable(
  'import_rows',
  {
    seq: integer('seq').primaryKey({ autoIncrement: true }),
    importId: text('import_id')
      .notNull()
      .references(() => imports.id, { onDelete: 'cascade' }),
    kind: text('kind').notNull(),
    id: text('id').notNull(),
    parentId: text('parent_id').notNull(),
    name: text('name').notNull(),
    record: text('record').notNull(),
  },
  (t) => [uniqueIndex('import_rows_own').on(t.importId, t.kind, t.id)],
)

export const importBlobs = sqliteTable(
  'import_blobs',
  {
    importId: text('import_id')
      .notNull()
      .references(() => imports.id),
    digest: text('digest').notNull(),
    size: integer('size').notNull(),
    /** Id that the blob will have. */
    blobId: text('blob_id').notNull(),
    key: text('key').unique(),
    handle: text('handle'),
    /** SifFacts as JSON. */
    facts: text('facts'),
  },
  (t) => [primaryKey({ columns: [t.importId, t.digest] })],
)

export const keys = sqliteTable(
  'keys',
  {
    seq: integer('seq').primaryKey({ autoIncrement: true }),
    fingerprint: text('fingerprint').notNull().unique(),
    revision: integer('revision').notNull(),
    ownerId: text('owner_id').references(() => users.id, { onDelete: 'set null' }),
    addedBy: text('added_by'),
    addedAt: time('added_at').notNull(),
    updatedAt: time('updated_at').notNull(),
    removedAt: time('removed_at'),
    /** KeyFacts without the armor as JSON, times as text. */
    facts: text('facts').notNull(),
    armor: text('armor').notNull(),
  },
  (t) => [index('keys_owner').on(t.ownerId, t.seq)],
)

export const keyNames = sqliteTable(
  'key_names',
  {
    name: text('name').notNull(),
    rank: integer('rank').notNull(),
    keySeq: integer('key_seq')
      .notNull()
      .references(() => keys.seq, { onDelete: 'cascade' }),
  },
  (t) => [primaryKey({ columns: [t.name, t.rank, t.keySeq] }), index('key_names_key').on(t.keySeq)],
)

/** R6: preconditions of a batch; a false one raises with its own name. */
export const guard = sqliteTable('guard', {
  mayWrite: integer('may_write').notNull().default(1),
  found: integer('found').notNull().default(1),
  claimed: integer('claimed').notNull().default(1),
  readable: integer('readable').notNull().default(1),
  archAgrees: integer('arch_agrees').notNull().default(1),
  fewUploads: integer('few_uploads').notNull().default(1),
  spaceLeft: integer('space_left').notNull().default(1),
  first: integer('first').notNull().default(1),
  note: text('note'),
})

/** The full-text index; `rowid` is `images.seq`. */
export const search = sqliteTable('search', {
  rowid: integer('rowid'),
  scope: text('scope'),
  names: text('names'),
  tags: text('tags'),
  description: text('description'),
  labels: text('labels'),
})

/** The full-text index of user ids; `rowid` is `keys.seq`. */
export const searchKeys = sqliteTable('search_keys', {
  rowid: integer('rowid'),
  userIds: text('user_ids'),
})
