/** Rows → the registry's nouns: times become Dates, the columns of joins become one record. */
import { Column, is, sql, type AnyColumn, type GetColumnData, type SQL } from 'drizzle-orm'
import type {
  Collection,
  Container,
  Entity,
  FoundImage,
  Image,
  Judgement,
  Level,
  Policy,
  Role,
  Scope,
  Standing,
  Token,
  Upload,
  User,
  Verdict,
} from '../core/model.ts'
import { roleOf, viewerLevel } from './fragments.ts'
import * as t from './schema.ts'

type Named<T> = {
  [K in keyof T]: SQL.Aliased<
    T[K] extends AnyColumn ? GetColumnData<T[K]> : T[K] extends SQL<infer V> ? V : never
  >
}

/**
 * Gives every column its key as its name. D1 answers a batch with objects by column name, in which
 * the `name` of a collection and that of its entity would fall together.
 */
export const named = <T extends Record<string, AnyColumn | SQL>>(columns: T): Named<T> =>
  Object.fromEntries(
    Object.entries(columns).map(([key, column]) => [
      key,
      (is(column, Column) ? column.getSQL().mapWith(column) : column.getSQL()).as(key),
    ]),
  ) as Named<T>

/** Columns of an entity. */
export const entityColumns = {
  id: t.entities.id,
  name: t.entities.name,
  description: t.entities.description,
  ownerId: t.entities.ownerId,
  defaultPrivate: t.entities.defaultPrivate,
  quota: t.entities.quota,
  used: t.entities.used,
  createdAt: t.entities.createdAt,
  updatedAt: t.entities.updatedAt,
}

/** Columns of a collection joined with its entity. */
export const collectionColumns = named({
  id: t.collections.id,
  name: t.collections.name,
  description: t.collections.description,
  private: t.collections.private,
  entityId: t.collections.entityId,
  entityName: t.entities.name,
  ownerId: t.entities.ownerId,
  level: viewerLevel,
  policy: t.collections.policy,
  policyKeys: t.collections.policyKeys,
  createdAt: t.collections.createdAt,
  updatedAt: t.collections.updatedAt,
})

/** Columns of a container joined with its collection and entity. */
export const containerColumns = named({
  id: t.containers.id,
  name: t.containers.name,
  description: t.containers.description,
  fullDescription: t.containers.fullDescription,
  private: t.containers.private,
  size: t.containers.size,
  downloads: t.containers.downloads,
  stars: t.containers.stars,
  frozen: t.containers.frozen,
  level: viewerLevel,
  collectionId: t.containers.collectionId,
  collectionName: t.collections.name,
  collectionPrivate: t.collections.private,
  entityId: t.collections.entityId,
  entityName: t.entities.name,
  ownerId: t.entities.ownerId,
  createdAt: t.containers.createdAt,
  updatedAt: t.containers.updatedAt,
})

/** What is shown of an image, which is joined with its container, collection and entity. */
const shownColumns = {
  id: t.images.id,
  digest: t.images.digest,
  description: t.images.description,
  containerId: t.images.containerId,
  containerName: t.containers.name,
  containerDescription: t.containers.description,
  containerDownloads: t.containers.downloads,
  containerStars: t.containers.stars,
  containerPrivate: t.containers.private,
  collectionId: t.containers.collectionId,
  collectionName: t.collections.name,
  collectionPrivate: t.collections.private,
  entityId: t.collections.entityId,
  entityName: t.entities.name,
  ownerId: t.entities.ownerId,
  createdBy: t.images.createdBy,
  createdAt: t.images.createdAt,
  updatedAt: t.images.updatedAt,
  size: t.images.size,
  arch: t.images.arch,
  signed: t.images.signed,
  encrypted: t.images.encrypted,
  fingerprints: t.images.fingerprints,
  /** Verdict, reason and signers as JSON; null for an image without signatures or not looked at. */
  judgement: sql<
    string | null
  >`case when ${t.images.signed} = 1 then (select json_array(v.verdict, v.why, json(v.signers)) from verdicts v where v.digest = ${t.images.digest}) end`,
}

/** Columns of an image joined with its container, collection, entity and (left) live blob. */
export const imageColumns = named({
  ...shownColumns,
  level: viewerLevel,
  blobKey: t.blobs.key,
  policy: t.collections.policy,
  /** Tag names, one per line and arch: names hold no line breaks. */
  tags: sql<
    string | null
  >`(select group_concat(name, char(10)) from tags where image_id = ${t.images.id})`,
})

/**
 * Columns of an image that is `uploaded` and was found in the full-text index, joined with its container,
 * collection, entity and the index's copy of what was indexed: its tags are there in the same form.
 */
export const foundColumns = named({ ...shownColumns, tags: t.searchContent.tags })

/** Columns of a token joined with its user. */
export const tokenColumns = named({
  id: t.tokens.id,
  userId: t.tokens.userId,
  userName: t.users.name,
  name: t.tokens.name,
  scopes: t.tokens.scopes,
  createdAt: t.tokens.createdAt,
  expiresAt: t.tokens.expiresAt,
  revokedAt: t.tokens.revokedAt,
  lastUsedAt: t.tokens.lastUsedAt,
  collectionId: t.tokens.collectionId,
  containerId: t.tokens.containerId,
})

/** Columns of a user. */
export const userColumns = named({
  id: t.users.id,
  name: t.users.name,
  role: roleOf,
  disabled: t.users.disabled,
  managerId: t.users.managerId,
  subject: t.users.subject,
  createdAt: t.users.createdAt,
})

export const toEntity = (row: EntityRow): Entity => ({
  ...row,
  createdAt: new Date(row.createdAt),
  updatedAt: new Date(row.updatedAt),
})

export const toCollection = ({ policy, policyKeys, ...row }: CollectionRow): Collection => ({
  ...row,
  policy: { mode: policy, fingerprints: policyKeys },
  createdAt: new Date(row.createdAt),
  updatedAt: new Date(row.updatedAt),
})

export const toContainer = (row: ContainerRow): Container => ({
  ...row,
  createdAt: new Date(row.createdAt),
  updatedAt: new Date(row.updatedAt),
})

const UNSIGNED: Judgement = { verdict: 'unsigned', why: null, signers: [] }

/** Of an image whose signatures nobody has looked at. */
export const NOT_EXAMINED: Judgement = {
  verdict: 'pending',
  why: 'its signatures have not been checked here',
  signers: [],
}

function toJudgement(signed: boolean, json: string | null): Judgement {
  if (!signed) return UNSIGNED
  if (json === null) return NOT_EXAMINED
  const [verdict, why, signers] = JSON.parse(json) as [Verdict, string | null, string[]]
  return { verdict, why, signers }
}

/** Images by the rows that they were made of, which drivers may give out again. */
const imagesOf = new WeakMap<ImageRow, Image>()

/** The image of a row; the same one for the same row, so nobody changes it. */
export function toImage(row: ImageRow): Image {
  const before = imagesOf.get(row)
  if (before !== undefined) return before
  const { blobKey, level, policy, size } = row
  const blob = blobKey === null ? null : { key: blobKey, size }
  const image = Object.freeze({ ...shown(row, blob !== null), level, policy, blob })
  imagesOf.set(row, image)
  return image
}

/** Column by column: copying what is left of a row costs as much as its statement. */
function shown(row: FoundRow, uploaded: boolean): FoundImage {
  const { signed, tags } = row
  return {
    id: row.id,
    digest: row.digest,
    description: row.description,
    containerId: row.containerId,
    containerName: row.containerName,
    collectionId: row.collectionId,
    collectionName: row.collectionName,
    entityId: row.entityId,
    entityName: row.entityName,
    ownerId: row.ownerId,
    containerPrivate: row.containerPrivate,
    collectionPrivate: row.collectionPrivate,
    containerDescription: row.containerDescription,
    containerDownloads: row.containerDownloads,
    containerStars: row.containerStars,
    createdBy: row.createdBy,
    createdAt: new Date(row.createdAt),
    updatedAt: new Date(row.updatedAt),
    uploaded,
    blob: uploaded ? { size: row.size } : null,
    facts: {
      arch: row.arch,
      signed,
      encrypted: row.encrypted,
      fingerprints: row.fingerprints,
    },
    judgement: toJudgement(signed, row.judgement),
    tags: tags === null ? [] : [...new Set(tags.split('\n'))].sort(),
  }
}

/** Of a search, whose rows are not given out again: a thousand would stay behind in `imagesOf`. */
export const toFoundImage = (row: FoundRow): FoundImage => shown(row, true)

export const toUpload = ({ closedAt, ...row }: UploadRow): Upload => ({
  ...row,
  closedAt: closedAt === null ? null : new Date(closedAt),
  createdAt: new Date(row.createdAt),
  expiresAt: new Date(row.expiresAt),
  leaseUntil: row.leaseUntil === null ? null : new Date(row.leaseUntil),
})

export const toUser = (row: UserRow): User => ({ ...row, createdAt: new Date(row.createdAt) })

export const toScopes = (words: string): Scope[] =>
  words.split(' ').filter((w) => w !== '') as Scope[]

export const toToken = (row: TokenRow): Token => ({
  ...row,
  scopes: toScopes(row.scopes),
  createdAt: new Date(row.createdAt),
  expiresAt: new Date(row.expiresAt),
  revokedAt: row.revokedAt === null ? null : new Date(row.revokedAt),
  lastUsedAt: row.lastUsedAt === null ? null : new Date(row.lastUsedAt),
})

export function toStanding(row: StandingRow | undefined): Standing | null {
  if (row === undefined) return null
  const { endsAt: _, scopes, ...rest } = row
  return { ...rest, scopes: toScopes(scopes) }
}

export type EntityRow = typeof t.entities.$inferSelect
export type CollectionRow = typeof t.collections.$inferSelect & {
  entityName: string
  ownerId: string
  level: Level
}
export type ContainerRow = typeof t.containers.$inferSelect & {
  collectionName: string
  collectionPrivate: boolean
  entityId: string
  entityName: string
  ownerId: string
  level: Level
}
export type FoundRow = Omit<typeof t.images.$inferSelect, 'seq' | 'blobId' | 'manifest'> & {
  containerName: string
  containerDescription: string
  containerDownloads: number
  containerStars: number
  containerPrivate: boolean
  collectionId: string
  collectionName: string
  collectionPrivate: boolean
  entityId: string
  entityName: string
  ownerId: string
  judgement: string | null
  tags: string | null
}
export type ImageRow = FoundRow & {
  level: Level
  blobKey: string | null
  policy: Policy['mode']
}
export type UploadRow = typeof t.uploads.$inferSelect
export type UserRow = Pick<
  typeof t.users.$inferSelect,
  'id' | 'name' | 'disabled' | 'managerId' | 'subject' | 'createdAt'
> & { role: Role }
export type TokenRow = typeof t.tokens.$inferSelect & { userName: string }
export type StandingRow = {
  /** The time in ms at which the token ends. */
  endsAt: number
  userId: string
  userName: string
  role: Role
  scopes: string
  collectionId: string
  containerId: string
}
