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

export const users = sqliteTable(
  'users',
  {
    id: text('id').primaryKey(),
    name: text('name').notNull().unique(),
    role: text('role', { enum: ['admin', 'user'] }).notNull(),
    disabled: flag('disabled').notNull().default(false),
    createdAt: time('created_at').notNull(),
    /** With `robot` and `role` what the model calls the role: the check of `role` knows two words only. */
    staff: flag('staff').notNull().default(false),
    managerId: text('manager_id').references((): AnySQLiteColumn => users.id, {
      onDelete: 'set null',
    }),
    robot: flag('robot').notNull().default(false),
    /** issuer|sub of an identity that another issuer vouches for (R35). */
    subject: text('subject'),
    deletedAt: time('deleted_at'),
  },
  (t) => [
    index('users_manager')
      .on(t.managerId)
      .where(sql`manager_id IS NOT NULL`),
  ],
)

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
    /** What it is bound to; empty is nothing. */
    collectionId: text('collection_id').notNull().default(''),
    containerId: text('container_id').notNull().default(''),
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
    /** Bytes; null is the registry's default, 0 none. */
    quota: integer('quota'),
    /** Bytes of the distinct digests in `holdings`; triggers keep both. */
    used: integer('used').notNull().default(0),
  },
  (t) => [index('entities_owner').on(t.ownerId), index('entities_path').on(sql`name || '/'`)],
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
    policy: text('policy', { enum: ['off', 'warn', 'require'] })
      .notNull()
      .default('off'),
    /** Upper-case fingerprints. */
    policyKeys: text('policy_keys', { mode: 'json' }).$type<string[]>().notNull().default([]),
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
    frozen: flag('frozen').notNull().default(false),
    stars: integer('stars').notNull().default(0),
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
    uniqueIndex('blobs_gone')
      .on(t.id)
      .where(sql`state <> 'live'`),
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
    /** Hex SHA-256 of its manifest by OCI; null for images from before there were any. */
    manifest: text('manifest'),
  },
  (t) => [
    uniqueIndex('images_container_digest').on(t.containerId, t.digest),
    index('images_digest').on(t.digest),
    index('images_manifest').on(t.containerId, t.manifest),
    index('images_blob').on(t.blobId),
    index('images_signed')
      .on(t.digest)
      .where(sql`signed = 1`),
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
    frozen: flag('frozen').notNull().default(false),
  },
  (t) => [
    primaryKey({ columns: [t.containerId, t.name, t.arch] }),
    index('tags_image').on(t.imageId, t.name),
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
  (t) => [
    uniqueIndex('import_rows_own').on(t.importId, t.kind, t.id),
    index('import_rows_name').on(t.importId, t.kind, t.name),
  ],
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
  policyMet: integer('policy_met').notNull().default(1),
  thawed: integer('thawed').notNull().default(1),
  keepsOwner: integer('keeps_owner').notNull().default(1),
  withinQuota: integer('within_quota').notNull().default(1),
  withinLimit: integer('within_limit').notNull().default(1),
  adminLeft: integer('admin_left').notNull().default(1),
  complete: integer('complete').notNull().default(1),
})

export const teams = sqliteTable('teams', {
  id: text('id').primaryKey(),
  name: text('name').notNull().unique(),
  description: text('description').notNull(),
  /** Anybody with an account may join. */
  open: flag('open').notNull(),
  createdAt: time('created_at').notNull(),
})

export const teamMembers = sqliteTable(
  'team_members',
  {
    teamId: text('team_id')
      .notNull()
      .references(() => teams.id, { onDelete: 'cascade' }),
    userId: text('user_id')
      .notNull()
      .references(() => users.id, { onDelete: 'cascade' }),
    owner: flag('owner').notNull(),
    joinedAt: time('joined_at').notNull(),
  },
  (t) => [
    primaryKey({ columns: [t.teamId, t.userId] }),
    index('team_members_user').on(t.userId, t.teamId),
  ],
)

export const invitations = sqliteTable(
  'invitations',
  {
    id: text('id').primaryKey(),
    teamId: text('team_id')
      .notNull()
      .references(() => teams.id, { onDelete: 'cascade' }),
    /** SHA-256 of its secret. */
    hash: text('hash').notNull().unique(),
    /** Null is the command line. */
    createdBy: text('created_by').references(() => users.id, { onDelete: 'cascade' }),
    createdAt: time('created_at').notNull(),
    expiresAt: time('expires_at').notNull(),
    acceptedBy: text('accepted_by').references(() => users.id, { onDelete: 'set null' }),
    acceptedAt: time('accepted_at'),
  },
  (t) => [index('invitations_team').on(t.teamId)],
)

/** What a user or a team may do in a collection: 1 read, 2 contribute, 3 own. */
export const grants = sqliteTable(
  'grants',
  {
    id: text('id').primaryKey(),
    collectionId: text('collection_id')
      .notNull()
      .references(() => collections.id, { onDelete: 'cascade' }),
    userId: text('user_id').references(() => users.id, { onDelete: 'cascade' }),
    teamId: text('team_id').references(() => teams.id, { onDelete: 'cascade' }),
    level: integer('level').notNull(),
    createdAt: time('created_at').notNull(),
  },
  (t) => [
    uniqueIndex('grants_user').on(t.collectionId, t.userId),
    uniqueIndex('grants_team').on(t.collectionId, t.teamId),
    index('grants_of_user').on(t.userId, t.collectionId),
    index('grants_of_team').on(t.teamId, t.collectionId),
  ],
)

/** Which digests an entity has through its images: equal content counts once. Kept by triggers. */
export const holdings = sqliteTable(
  'holdings',
  {
    entityId: text('entity_id')
      .notNull()
      .references(() => entities.id, { onDelete: 'cascade' }),
    digest: text('digest').notNull(),
    size: integer('size').notNull(),
    images: integer('images').notNull(),
  },
  (t) => [primaryKey({ columns: [t.entityId, t.digest] })],
)

/** Counts by name and window; `period` is the first moment of the window. */
export const counters = sqliteTable(
  'counters',
  {
    name: text('name').notNull(),
    period: time('period').notNull(),
    count: integer('count').notNull(),
  },
  (t) => [primaryKey({ columns: [t.name, t.period] }), index('counters_period').on(t.period)],
)

export const stars = sqliteTable(
  'stars',
  {
    containerId: text('container_id')
      .notNull()
      .references(() => containers.id, { onDelete: 'cascade' }),
    userId: text('user_id')
      .notNull()
      .references(() => users.id, { onDelete: 'cascade' }),
    createdAt: time('created_at').notNull(),
  },
  (t) => [primaryKey({ columns: [t.containerId, t.userId] }), index('stars_user').on(t.userId)],
)

export const shares = sqliteTable(
  'shares',
  {
    id: text('id').primaryKey(),
    imageId: text('image_id')
      .notNull()
      .references(() => images.id, { onDelete: 'cascade' }),
    /** SHA-256 of its secret. */
    hash: text('hash').notNull().unique(),
    note: text('note').notNull(),
    createdBy: text('created_by')
      .notNull()
      .references(() => users.id, { onDelete: 'cascade' }),
    createdAt: time('created_at').notNull(),
    expiresAt: time('expires_at').notNull(),
    /** Null is as often as anybody likes. */
    leftCount: integer('left_count'),
    used: integer('used').notNull().default(0),
    revokedAt: time('revoked_at'),
  },
  (t) => [
    index('shares_image').on(t.imageId),
    index('shares_creator').on(t.createdBy),
    index('shares_expires').on(t.expiresAt),
    index('shares_revoked')
      .on(t.revokedAt)
      .where(sql`revoked_at IS NOT NULL`),
  ],
)

export const audit = sqliteTable(
  'audit',
  {
    seq: integer('seq').primaryKey({ autoIncrement: true }),
    at: time('at').notNull(),
    /** Empty for nobody. */
    actorId: text('actor_id').notNull(),
    actor: text('actor').notNull(),
    tokenId: text('token_id').notNull(),
    address: text('address').notNull(),
    action: text('action').notNull(),
    /** Kind and id of what it was done to. */
    object: text('object').notNull(),
    /** Its name at that time. */
    name: text('name').notNull(),
    outcome: text('outcome').notNull(),
    detail: text('detail').notNull(),
    count: integer('count').notNull().default(1),
  },
  (t) => [
    index('audit_at').on(t.at),
    index('audit_actor').on(t.actor, t.at),
    uniqueIndex('audit_denials')
      .on(t.at, t.address, t.action, t.actorId)
      .where(sql`outcome = 'denied'`),
  ],
)

export const verdicts = sqliteTable('verdicts', {
  digest: text('digest').primaryKey(),
  verdict: text('verdict').notNull(),
  why: text('why'),
  /** Fingerprints. */
  signers: text('signers', { mode: 'json' }).$type<string[]>().notNull(),
  /** Place and revision of each signer's key, as JSON. */
  marks: text('marks').notNull(),
  /** SignatureFacts as JSON. */
  facts: text('facts').notNull(),
})

export const signatureIssuers = sqliteTable(
  'signature_issuers',
  {
    issuer: text('issuer').notNull(),
    digest: text('digest')
      .notNull()
      .references(() => verdicts.digest, { onDelete: 'cascade' }),
    /** Place and revision of the keys that there were for it. */
    marks: text('marks').notNull(),
  },
  (t) => [
    primaryKey({ columns: [t.issuer, t.digest] }),
    index('signature_issuers_digest').on(t.digest),
  ],
)

export const repositoryBlobs = sqliteTable(
  'repository_blobs',
  {
    containerId: text('container_id')
      .notNull()
      .references(() => containers.id, { onDelete: 'cascade' }),
    /** As it was pushed: `sha256:` or `sha512:` and hex digits. */
    digest: text('digest').notNull(),
    blobId: text('blob_id')
      .notNull()
      .references(() => blobs.id),
    createdAt: time('created_at').notNull(),
  },
  (t) => [
    primaryKey({ columns: [t.containerId, t.digest] }),
    index('repository_blobs_digest').on(t.digest),
    index('repository_blobs_blob').on(t.blobId),
  ],
)

export const manifests = sqliteTable(
  'manifests',
  {
    containerId: text('container_id')
      .notNull()
      .references(() => containers.id, { onDelete: 'cascade' }),
    digest: text('digest').notNull(),
    mediaType: text('media_type').notNull(),
    size: integer('size').notNull(),
    subject: text('subject'),
    artifactType: text('artifact_type').notNull(),
    /** JSON, of manifests with a subject. */
    annotations: text('annotations'),
    createdBy: text('created_by').notNull(),
    createdAt: time('created_at').notNull(),
    /** Hex digest of the image that it holds, of a manifest of a SIF. */
    sif: text('sif'),
  },
  (t) => [
    primaryKey({ columns: [t.containerId, t.digest] }),
    index('manifests_subject')
      .on(t.containerId, t.subject, t.digest)
      .where(sql`subject IS NOT NULL`),
    index('manifests_sif')
      .on(t.containerId, t.sif)
      .where(sql`sif IS NOT NULL`),
  ],
)

export const manifestPieces = sqliteTable(
  'manifest_pieces',
  {
    containerId: text('container_id')
      .notNull()
      .references(() => containers.id, { onDelete: 'cascade' }),
    manifest: text('manifest').notNull(),
    number: integer('number').notNull(),
    text: text('text').notNull(),
  },
  (t) => [primaryKey({ columns: [t.containerId, t.manifest, t.number] })],
)

export const manifestRefs = sqliteTable(
  'manifest_refs',
  {
    containerId: text('container_id')
      .notNull()
      .references(() => containers.id, { onDelete: 'cascade' }),
    manifest: text('manifest').notNull(),
    kind: text('kind', { enum: ['blob', 'manifest'] }).notNull(),
    digest: text('digest').notNull(),
  },
  (t) => [
    primaryKey({ columns: [t.containerId, t.manifest, t.kind, t.digest] }),
    index('manifest_refs_digest').on(t.containerId, t.digest),
  ],
)

export const ociTags = sqliteTable(
  'oci_tags',
  {
    containerId: text('container_id')
      .notNull()
      .references(() => containers.id, { onDelete: 'cascade' }),
    name: text('name').notNull(),
    manifest: text('manifest').notNull(),
    updatedAt: time('updated_at').notNull(),
    frozen: flag('frozen').notNull().default(false),
  },
  (t) => [
    primaryKey({ columns: [t.containerId, t.name] }),
    index('oci_tags_manifest').on(t.containerId, t.manifest),
  ],
)

export const ociUploads = sqliteTable(
  'oci_uploads',
  {
    id: text('id').primaryKey(),
    containerId: text('container_id').references(() => containers.id, { onDelete: 'set null' }),
    userId: text('user_id').notNull(),
    tokenId: text('token_id').notNull(),
    key: text('key').notNull(),
    handle: text('handle'),
    received: integer('received').notNull().default(0),
    reserved: integer('reserved').notNull().default(0),
    tail: text('tail'),
    tailSize: integer('tail_size').notNull().default(0),
    sha256: text('sha256'),
    sha512: text('sha512'),
    digest: text('digest'),
    state: text('state', { enum: ['open', 'done', 'ended'] }).notNull(),
    claim: text('claim'),
    leaseUntil: time('lease_until'),
    createdAt: time('created_at').notNull(),
    expiresAt: time('expires_at').notNull(),
    closedAt: time('closed_at'),
  },
  (t) => [
    index('oci_uploads_container').on(t.containerId),
    index('oci_uploads_open')
      .on(t.userId, t.expiresAt, t.reserved)
      .where(sql`state = 'open'`),
    index('oci_uploads_closed')
      .on(t.closedAt)
      .where(sql`closed_at IS NOT NULL`),
  ],
)

export const ociUploadParts = sqliteTable(
  'oci_upload_parts',
  {
    uploadId: text('upload_id')
      .notNull()
      .references(() => ociUploads.id, { onDelete: 'cascade' }),
    number: integer('number').notNull(),
    etag: text('etag').notNull(),
  },
  (t) => [primaryKey({ columns: [t.uploadId, t.number] })],
)

export const ociUploadKeys = sqliteTable(
  'oci_upload_keys',
  {
    key: text('key').primaryKey(),
    uploadId: text('upload_id')
      .notNull()
      .references(() => ociUploads.id),
  },
  (t) => [index('oci_upload_keys_upload').on(t.uploadId)],
)

/** The full-text index; `rowid` is `images.seq`. */
export const search = sqliteTable('search', {
  rowid: integer('rowid'),
  scope: text('scope'),
  names: text('names'),
  tags: text('tags'),
  description: text('description'),
  labels: text('labels'),
})

/** What was indexed, which FTS5 keeps in a table of its own; its columns have numbers for names. */
export const searchContent = sqliteTable('search_content', {
  rowid: integer('id').primaryKey(),
  tags: text('c2'),
})

/** The full-text index of user ids; `rowid` is `keys.seq`. */
export const searchKeys = sqliteTable('search_keys', {
  rowid: integer('rowid'),
  userIds: text('user_ids'),
})
