/** What a row of an export may look like: the same rules as at push (R42). */
import { RegistryError } from '../errors.ts'
import type { StagedRow } from '../ports.ts'
import { MAX_POLICY_KEYS, SCOPES, type MovedKind, type MovedRow, type Scope } from './model.ts'
import { checkName, isId, type NameKind } from './names.ts'
import { isDigest, isOciName, isTag } from './repositories.ts'

/** Longest description, in characters: bodies that set one have at most 64 KiB (R54). */
const LONGEST_TEXT = 65_536
/** Characters of a piece of a manifest, as the database keeps it. */
const LONGEST_PIECE = 300_000
/** Longest armor, in characters (R53). */
const LONGEST_ARMOR = 1024 * 1024

type Check = (value: unknown) => boolean

const id: Check = (value) => typeof value === 'string' && isId(value)
const text: Check = (value) => typeof value === 'string' && value.length <= LONGEST_TEXT
const flag: Check = (value) => typeof value === 'boolean'
const count: Check = (value) => Number.isSafeInteger(value) && Number(value) >= 0
const time = count
const orNull =
  (check: Check): Check =>
  (value) =>
    value === null || check(value)
/** What older files do not have. */
const orMissing =
  (check: Check): Check =>
  (value) =>
    value === undefined || check(value)
const matches =
  (pattern: RegExp): Check =>
  (value) =>
    typeof value === 'string' && pattern.test(value)
const named =
  (kind: NameKind): Check =>
  (value) =>
    typeof value === 'string' && checkName(kind, value) === value

/** What the library allows, or OCI, whose pushes make places too. */
const placed = (kind: 'collection' | 'container'): Check => {
  const ofLibrary = named(kind)
  return (value) =>
    (typeof value === 'string' && isOciName(value, { deep: kind === 'container' })) ||
    ofLibrary(value)
}

/** A user's, or that of an identity which another issuer vouches for (issuers.ts). */
const userName: Check = (value) => matches(/^oidc:[0-9a-f]{12}$/)(value) || named('user')(value)

const fingerprint = matches(/^(?:[0-9A-F]{40}|[0-9A-F]{64})$/)
/** Empty: bound to nothing. */
const binding: Check = (value) => value === '' || id(value)
const digest: Check = (value) => typeof value === 'string' && isDigest(value)
const piece: Check = (value) => typeof value === 'string' && value.length <= LONGEST_PIECE
const arch = matches(/^[a-z0-9_]{1,32}$/)
const times = { createdAt: time, updatedAt: time }

/** The members of each kind; anything else in a record is not taken over. */
const SHAPES: { [K in MovedKind]: Record<string, Check> } = {
  user: {
    id,
    name: userName,
    role: matches(/^(admin|staff|user|robot)$/),
    disabled: flag,
    createdAt: time,
    managerId: orMissing(orNull(id)),
    deletedAt: orMissing(orNull(time)),
  },
  token: {
    id,
    userId: id,
    name: text,
    scopes: (value) => Array.isArray(value) && value.every((s) => SCOPES.includes(s as Scope)),
    createdAt: time,
    expiresAt: time,
    revokedAt: orNull(time),
    lastUsedAt: orNull(time),
    collectionId: orMissing(binding),
    containerId: orMissing(binding),
  },
  entity: {
    id,
    ownerId: id,
    name: named('entity'),
    description: text,
    defaultPrivate: flag,
    quota: orMissing(orNull(count)),
    ...times,
  },
  collection: {
    id,
    entityId: id,
    name: placed('collection'),
    description: text,
    private: flag,
    policy: orMissing(matches(/^(off|warn|require)$/)),
    policyKeys: orMissing(
      (value) =>
        Array.isArray(value) && value.length <= MAX_POLICY_KEYS && value.every(fingerprint),
    ),
    ...times,
  },
  container: {
    id,
    collectionId: id,
    name: placed('container'),
    description: text,
    fullDescription: text,
    private: flag,
    downloads: count,
    frozen: orMissing(flag),
    ...times,
  },
  image: {
    id,
    containerId: id,
    digest: matches(/^[0-9a-f]{64}$/),
    size: count,
    arch,
    description: text,
    createdBy: id,
    ...times,
  },
  tag: {
    containerId: id,
    name: named('tag'),
    arch,
    imageId: id,
    frozen: orMissing(flag),
    updatedAt: time,
  },
  membership: {
    containerId: id,
    digest,
    sha256: matches(/^[0-9a-f]{64}$/),
    size: count,
    createdAt: time,
  },
  // what is in it is looked at when it is staged
  manifest: {
    containerId: id,
    digest,
    mediaType: text,
    text: piece,
    pieces: (value) => count(value) && Number(value) >= 1,
    blobs: (value) => Array.isArray(value) && value.every(digest),
    createdBy: id,
    createdAt: time,
  },
  piece: {
    containerId: id,
    manifest: digest,
    number: (value) => count(value) && Number(value) >= 1,
    text: piece,
  },
  ociTag: {
    containerId: id,
    name: (value) => typeof value === 'string' && isTag(value),
    manifest: digest,
    frozen: flag,
    updatedAt: time,
  },
  // names of teams are those of things
  team: { id, name: named('collection'), description: text, open: flag, createdAt: time },
  member: { teamId: id, userId: id, owner: flag, joinedAt: time },
  grant: {
    id,
    collectionId: id,
    holder: matches(/^(user|team)$/),
    holderId: id,
    level: (value) => value === 1 || value === 2 || value === 3,
    createdAt: time,
  },
  star: { containerId: id, userId: id, createdAt: time },
  pulls: { containerId: id, week: time, count },
  key: {
    fingerprint,
    // what is in it is looked at when it is staged
    armor: (value) => typeof value === 'string' && value.length <= LONGEST_ARMOR,
    ownerId: orNull(id),
    addedBy: orNull(id),
    addedAt: time,
    updatedAt: time,
    removedAt: orNull(time),
  },
}

/** The record as a row; `invalid`, naming the member, when it is none that this version knows. */
export function checkRow(record: Record<string, unknown>): MovedRow {
  const { type } = record
  if (typeof type !== 'string' || !Object.hasOwn(SHAPES, type))
    throw new RegistryError(
      'invalid',
      'This export holds records that this version does not know; import it with a newer one. Nothing was imported.',
    )
  const row: Record<string, unknown> = { type }
  for (const [member, check] of Object.entries(SHAPES[type as MovedKind])) {
    const value = Object.hasOwn(record, member) ? record[member] : undefined
    if (!check(value))
      throw new RegistryError(
        'invalid',
        `This export holds a ${type} whose ${member} is not allowed. Nothing was imported.`,
      )
    row[member] = value
  }
  return row as MovedRow
}

/** The row as it is staged: found by kind and id, with the row that it belongs to. */
export function stagedRow(row: MovedRow): StagedRow {
  const of = (id: string, parentId: string, name: string): StagedRow => ({
    kind: row.type,
    id,
    parentId,
    name,
    record: JSON.stringify(row),
  })
  switch (row.type) {
    case 'user':
      return of(row.id, '', row.name)
    case 'token':
      return of(row.id, row.userId, row.name)
    case 'entity':
      return of(row.id, row.ownerId, row.name)
    case 'collection':
      return of(row.id, row.entityId, row.name)
    case 'container':
      return of(row.id, row.collectionId, row.name)
    case 'image':
      return of(row.id, row.containerId, row.digest)
    case 'team':
      return of(row.id, '', row.name)
    case 'member':
      return of(`${row.teamId}/${row.userId}`, row.teamId, row.userId)
    case 'grant':
      return of(row.id, row.collectionId, row.holderId)
    case 'star':
      return of(`${row.containerId}/${row.userId}`, row.containerId, row.userId)
    case 'pulls':
      return of(`${row.containerId}/${row.week}`, row.containerId, String(row.week))
    case 'key':
      return of(row.fingerprint, row.ownerId ?? '', row.fingerprint)
    case 'membership':
      return of(`${row.containerId}/${row.digest}`, row.containerId, row.sha256)
    case 'manifest':
      return of(`${row.containerId}/${row.digest}`, row.containerId, row.digest)
    case 'piece':
      return of(
        `${row.containerId}/${row.manifest}/${row.number}`,
        `${row.containerId}/${row.manifest}`,
        row.manifest,
      )
    case 'ociTag':
      return of(`${row.containerId}/${row.name}`, `${row.containerId}/${row.manifest}`, row.name)
    case 'tag':
      return of(`${row.containerId}/${row.arch}/${row.name}`, row.imageId, row.name)
  }
}
