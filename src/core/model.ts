/** The nouns of the registry. Plain records: no methods, no HTTP, no SQL. Glossary: docs/glossary.md. */

/** Scopes a token can carry. The default set lacks `admin` (R14). */
export const SCOPES = ['pull', 'push', 'delete', 'keys', 'admin'] as const
export type Scope = (typeof SCOPES)[number]
export const DEFAULT_SCOPES: readonly Scope[] = ['pull', 'push', 'delete', 'keys']
/** Life of a token for which nothing else was asked. */
export const DEFAULT_LIFE_MS = 365 * 86_400_000

/** What somebody is in the whole registry (docs/access.md). */
export const ROLES = ['admin', 'staff', 'user', 'robot'] as const
export type Role = (typeof ROLES)[number]

/** What somebody may do in a collection: nothing, read, contribute, own. */
export const LEVELS = ['none', 'reader', 'contributor', 'owner'] as const
export type Level = 0 | 1 | 2 | 3

export type User = {
  id: string
  name: string
  role: Role
  disabled: boolean
  createdAt: Date
  /** Who looks after a robot's tokens; null for people, and for robots that nobody looks after. */
  managerId: string | null
  /** issuer|sub of an identity that another issuer vouches for (R35); null for all others. */
  subject: string | null
}

/** A token's record. The secret itself is a signed JWT that is never stored. */
export type Token = {
  id: string
  userId: string
  userName: string
  name: string
  scopes: Scope[]
  createdAt: Date
  expiresAt: Date
  revokedAt: Date | null
  lastUsedAt: Date | null
  /** Ids of what it is bound to, empty for nothing; one bound to a container names its collection too. */
  collectionId: string
  containerId: string
}

/** A row of the audit log (docs/audit.md). */
export type AuditEntry = {
  at: Date
  /** Empty for the operator, and for who has no token. */
  actorId: string
  /** Their name at that time. */
  actor: string
  tokenId: string
  /** Empty where nobody knows; of denials an IPv4 address, an IPv6 /64 or `many`. */
  address: string
  action: string
  /** Kind and id of what it was done to. */
  object: string
  /** Its name at that time. */
  name: string
  outcome: AuditOutcome
  detail: string
  /** More than one for denials, which are added up. */
  count: number
}
export const AUDIT_OUTCOMES = ['done', 'denied'] as const
export type AuditOutcome = (typeof AUDIT_OUTCOMES)[number]

/** What a verified token says, before the database was asked whether it still stands. */
export type Claims = {
  tokenId: string
  userId: string
  scopes: readonly Scope[]
  expiresAt: Date
  /** Where the request came from, for the audit log; absent where nobody knows. */
  address?: string | null
  /** Whoever can write the data folder, on the command line: `cli:` and a name; never of a token. */
  operator?: string
  /** Of an OCI token: what it is for, and nothing else; its ids are those of the token behind it. */
  access?: readonly OciAccess[]
  /**
   * R24: the token may have ended. It counts for the upload of an image that it has opened, or for
   * tags of such an image (or of a container that has one), and for nothing else; under OCI (`oci`) for
   * an upload by its id, or for manifests of a repository by its `entity/collection/container`. `until`
   * is when it ends by its own word.
   */
  grace?: { of: 'upload' | 'tag' | 'oci'; id: string; until: Date }
}

/**
 * A resource and what may be done with it, as scopes of OCI tokens have them: a `repository` by the name
 * that it was asked for by, with `pull`, `push` and `delete`, or `registry` `catalog` with `*`.
 */
export type OciAccess = { type: string; name: string; actions: readonly string[] }

/** Whether token and user still stand, read in the same trip as the object asked for (R25). */
export type Standing = {
  userId: string
  userName: string
  role: Role
  /** Scopes of the token's row; effective scopes are JWT ∩ row ∩ role (R14). */
  scopes: Scope[]
  /** What the token is bound to; empty for nothing. */
  collectionId: string
  containerId: string
}

/**
 * Who asks: nobody, whoever can write the data folder (`cli:` and a name), or a user through a token
 * whose row stands.
 */
export type Identity =
  | { kind: 'anonymous' }
  | { kind: 'operator'; name: string }
  | {
      kind: 'user'
      userId: string
      userName: string
      tokenId: string
      role: Role
      /** True only for an administrator whose token carries the scope `admin`. */
      admin: boolean
      /** Owns every collection and team: true for the same, and for staff whose token carries it. */
      manages: boolean
      scopes: readonly Scope[]
      /** What the token is bound to; empty for nothing. */
      collectionId: string
      containerId: string
      /** Where the request came from; null where nobody knows. */
      address: string | null
    }

export const ANONYMOUS: Identity = { kind: 'anonymous' }

/** People and robots who are granted things together. */
export type Team = {
  id: string
  name: string
  description: string
  /** Everybody with an account may see and join it. */
  open: boolean
  createdAt: Date
  /** What who asks is in it; null for nothing. */
  role: TeamRole | null
}
export type TeamRole = 'owner' | 'member'
export type TeamMember = { user: string; role: TeamRole; joinedAt: Date }

/** A link into a team that works once; its secret is stored as a hash only. */
export type Invitation = {
  id: string
  /** Name of who made it; null is the command line. */
  createdBy: string | null
  createdAt: Date
  expiresAt: Date
}

/** Who may do what in a collection, apart from its owner: one of both names is null. */
export type Grant = { user: string | null; team: string | null; level: Level; createdAt: Date }

export type Entity = {
  id: string
  name: string
  description: string
  ownerId: string
  /** Collections made in it are private unless said otherwise. */
  defaultPrivate: boolean
  createdAt: Date
  updatedAt: Date
  /** Bytes that its images may take; null is the registry's default, 0 no limit. */
  quota: number | null
  /** Bytes that they take, equal ones counted once. */
  used: number
}

/** How much of its quota an entity has used, and with what; sizes in bytes. */
export type Usage = {
  entity: string
  used: number
  /** On its way in running uploads. */
  reserved: number
  /** Its own; null is the registry's default, 0 no limit. */
  quota: number | null
  collections: number
  containers: number
  images: number
}

export type Collection = {
  id: string
  name: string
  description: string
  private: boolean
  entityId: string
  entityName: string
  ownerId: string
  /** Of who asks, apart from what administrators and staff may do everywhere. */
  level: Level
  policy: Policy
  createdAt: Date
  updatedAt: Date
}

export type Container = {
  id: string
  name: string
  description: string
  fullDescription: string
  private: boolean
  collectionId: string
  collectionName: string
  collectionPrivate: boolean
  entityId: string
  entityName: string
  ownerId: string
  /** Of who asks, in its collection. */
  level: Level
  downloads: number
  stars: number
  /** Its tags cannot be moved or deleted, only added to. */
  frozen: boolean
  createdAt: Date
  updatedAt: Date
}

/** What SIF inspection found; stored with the image when its bytes are attached. */
export type SifFacts = {
  /** GOARCH word, or `unknown`. */
  arch: string
  signed: boolean
  /** 40 upper-case hex digits each, as the signature descriptors claim (R18: a claim, not a verdict). */
  fingerprints: string[]
  encrypted: boolean
  /** Text of the definition file, cut at 256 KiB; null when there is none. */
  definition: string | null
  labels: Record<string, string>
  /** Sizes of the partitions in descriptor order, in bytes. */
  partitions: { name: string; type: string; filesystem: string; arch: string; size: number }[]
  /** Names of the fields that were cut to fit their limit (R51). */
  truncated: string[]
  /** What its signatures say; absent where there are none, or where nobody looked at them (R52). */
  signatures?: SignatureFacts
}

/** What the signatures of a SIF say and whether its bytes agree: no key changes that (R52). */
export type SignatureFacts = {
  /** What makes every one of them worthless, as the end of a sentence; null for nothing. */
  flaw: string | null
  /** Ids of the objects that must be signed: all that are used, but the signatures. */
  objects: number[]
  signatures: SignatureFact[]
  /** How many more there are than are looked at. */
  more: number
}

export type SignatureFact = {
  /** Of the signature object. */
  id: number
  /** `dsse` is of X.509 and raw keys; `unchecked` is beyond a limit, `unreadable` is no signature. */
  form: 'current' | 'legacy' | 'dsse' | 'unchecked' | 'unreadable'
  /** Fingerprint (40 upper-case hex digits) in its descriptor, which proves nothing (R18). */
  claimed: string | null
  /** The clear-signed text; empty for a form that no key of ours can check. */
  text: string
  /** Fingerprints or key ids of the keys that the text says it was signed with. */
  issuers: string[]
  /** Ids of the objects whose bytes and descriptors it names, and which are so. */
  covers: number[]
  /** What is not as it was signed, or why nothing can be said, as the end of a sentence. */
  problem: string | null
}

/** What the signatures of an image are worth (docs/signatures.md). */
export const VERDICTS = ['verified', 'unknown key', 'bad', 'unsigned', 'pending'] as const
export type Verdict = (typeof VERDICTS)[number]

export type Judgement = {
  verdict: Verdict
  /** Why it is no better, as the end of a sentence. */
  why: string | null
  /** Fingerprints of the keys each of which has signed the whole image. */
  signers: string[]
}

/** A judgement, and of what: `keys` are those that were found for its signatures. */
export type Judged = Judgement & {
  /** Places of the signers in the keystore, for the guards of a batch. */
  marks: string[]
  /** What was found for each issuer: it says when the judgement is out of date. */
  seen: { issuer: string; keys: string }[]
}

/** Fingerprints that a policy may list. */
export const MAX_POLICY_KEYS = 100
export const POLICY_MODES = ['off', 'warn', 'require'] as const

/** What a collection asks of the signatures of what is pushed to it. */
export type Policy = {
  mode: (typeof POLICY_MODES)[number]
  /** Upper-case fingerprints of the keys that count; empty: those claimed by who may write (R17). */
  fingerprints: string[]
}

/** What is known of an image that a policy is asked about. */
export type PolicyStanding = {
  digest: string
  /** entity/collection. */
  collection: string
  policy: Policy
  signed: boolean
  judgement: Judgement
  /** The policy is met. */
  accepted: boolean
}

export type Image = {
  id: string
  /** 64 hex digits of the whole file's SHA-256. */
  digest: string
  description: string
  containerId: string
  containerName: string
  collectionId: string
  collectionName: string
  entityId: string
  entityName: string
  ownerId: string
  /** Of who asks, in its collection. */
  level: Level
  containerPrivate: boolean
  collectionPrivate: boolean
  containerDescription: string
  containerDownloads: number
  containerStars: number
  createdBy: string
  createdAt: Date
  updatedAt: Date
  /** Bytes are verified and attached. Only then is the image visible to anybody. */
  uploaded: boolean
  blob: { key: string; size: number } | null
  /** What inspection found when the bytes were attached; `unknown` and false before. */
  facts: Pick<SifFacts, 'arch' | 'signed' | 'encrypted' | 'fingerprints'>
  judgement: Judgement
  /** Of its collection. */
  policy: Policy['mode']
  tags: string[]
}

/** An image as a search shows it: what it takes to judge and to read it is not looked up. */
export type FoundImage = Omit<Image, 'level' | 'policy' | 'blob'> & {
  blob: { size: number } | null
}

/** A link that hands out one image to whoever has it (R61); its secret is kept nowhere. */
export type Share = {
  id: string
  note: string
  creatorId: string
  creatorName: string
  createdAt: Date
  expiresAt: Date
  /** Downloads that are left; null is any number. */
  left: number | null
  /** Downloads so far. */
  used: number
  revokedAt: Date | null
  /** Of the image. */
  digest: string
  containerId: string
  containerName: string
  containerPrivate: boolean
  collectionId: string
  collectionName: string
  collectionPrivate: boolean
  entityName: string
  /** Of who asks, in its collection. */
  level: Level
}

/** The image of a link that is good; `size` in bytes. */
export type SharedImage = {
  /** Of the link. */
  id: string
  creatorId: string
  imageId: string
  digest: string
  collectionId: string
  containerId: string
  containerName: string
  key: string
  size: number
}

/** What a public key says, of packets that its own key has signed; parsed by openpgp.ts alone. */
export type KeyFacts = {
  /** Upper-case hex digits: 40 (v4) or 64 (v6). */
  fingerprint: string
  /** 16 upper-case hex digits. */
  keyId: string
  version: number
  /** Number of the public-key algorithm (RFC 9580 §9.1). */
  algorithm: number
  /** Size of the key in bits, where its algorithm has one. */
  bits: number | null
  createdAt: Date
  expiresAt: Date | null
  revoked: boolean
  userIds: {
    text: string
    email: string | null
    createdAt: Date | null
    expiresAt: Date | null
    revoked: boolean
  }[]
  subkeys: {
    fingerprint: string
    keyId: string
    canSign: boolean
    revoked: boolean
    expiresAt: Date | null
  }[]
  /** The key with these packets only. */
  armor: string
}

/** A key in the keystore. */
export type StoredKey = {
  /** `armor` is empty where it was not asked for. */
  facts: KeyFacts
  /** Whose account signed a challenge with the key (R46); null: nobody's yet. */
  owner: { id: string; name: string } | null
  /** Id of the user who sent it first; null: nobody that is known. */
  addedBy: string | null
  addedAt: Date
  updatedAt: Date
  /** When its owner removed it: nobody finds it since then. */
  removedAt: Date | null
  /** Counts changes, from 1. */
  revision: number
}

/** A tag of one container: name → image, per arch. */
export type Tag = { arch: string; name: string; imageId: string }

export type UploadState = 'open' | 'finishing' | 'done' | 'failed' | 'aborted' | 'expired'

/** Bytes on their way. The row with its blob key is committed before the first byte (R21). */
export type Upload = {
  id: string
  imageId: string | null
  userId: string
  tokenId: string
  blobKey: string
  /** Store handle of a parts upload; null until the store answered, and for a single put. */
  handle: string | null
  size: number
  partSize: number
  /** 64 hex digits of the image's SHA-256. */
  digest: string
  state: UploadState
  claim: string | null
  leaseUntil: Date | null
  createdAt: Date
  expiresAt: Date
  closedAt: Date | null
}

/** A manifest of a repository. Digests are OCI's: `sha256:` or `sha512:` and hex digits. */
export type Manifest = {
  digest: string
  mediaType: string
  /** Bytes of the exact text. */
  size: number
  /** Digest of what it refers to, there or not; null for nothing. */
  subject: string | null
  /** Its own, or the config's media type; empty for an index without one. */
  artifactType: string
}

/** What a manifest names in its repository. */
export type ManifestRef = { kind: 'blob' | 'manifest'; digest: string; size: number }

/** An upload of OCI: bytes in order, of a number that nobody knows before its end (R47). */
export type OciUpload = {
  id: string
  /** Null when the repository was deleted meanwhile. */
  containerId: string | null
  userId: string
  /** Blob key of the parts, and the store's handle of them once there is one. */
  key: string
  handle: string | null
  /** Bytes received and stored: in parts, and what is less than a part under the key `tail`. */
  received: number
  tail: { key: string; size: number } | null
  /** Hex digits of all that was received; null where more than one request brought it. */
  sha256: string | null
  sha512: string | null
  /** What a done upload was asked for. */
  digest: string | null
  state: 'open' | 'done' | 'ended'
  createdAt: Date
  expiresAt: Date
}

/**
 * What moves from one registry to another (decision 0013), as it stands in an export: ids are those
 * of the source, times are milliseconds since 1970, digests 64 hex digits.
 */
export type MovedRow =
  | {
      type: 'user'
      id: string
      name: string
      role: Role
      disabled: boolean
      createdAt: number
      /** Of a robot: its manager. As the following ones absent in files of older versions. */
      managerId?: string | null
      /** The account is gone, the name stays reserved (R38). */
      deletedAt?: number | null
    }
  | {
      type: 'token'
      id: string
      userId: string
      name: string
      scopes: Scope[]
      createdAt: number
      expiresAt: number
      revokedAt: number | null
      lastUsedAt: number | null
      /** Absent in files of older versions: bound to nothing. */
      collectionId?: string
      containerId?: string
    }
  | {
      type: 'entity'
      id: string
      ownerId: string
      name: string
      description: string
      defaultPrivate: boolean
      /** Bytes; null is the registry's default, 0 none. Absent in files of older versions: null. */
      quota?: number | null
      createdAt: number
      updatedAt: number
    }
  | {
      type: 'collection'
      id: string
      entityId: string
      name: string
      description: string
      private: boolean
      /** Absent in files of older versions: `off`. */
      policy?: Policy['mode']
      policyKeys?: string[]
      createdAt: number
      updatedAt: number
    }
  | {
      type: 'container'
      id: string
      collectionId: string
      name: string
      description: string
      fullDescription: string
      private: boolean
      downloads: number
      /** Absent in files of older versions: false. */
      frozen?: boolean
      createdAt: number
      updatedAt: number
    }
  | {
      type: 'image'
      id: string
      containerId: string
      digest: string
      size: number
      /** Counts only where the file itself names none: a tag may have told (setTag). */
      arch: string
      description: string
      createdBy: string
      createdAt: number
      updatedAt: number
    }
  | {
      type: 'tag'
      containerId: string
      name: string
      arch: string
      imageId: string
      /** Absent in files of older versions: false. */
      frozen?: boolean
      updatedAt: number
    }
  /** What a repository has: `digest` as OCI writes it, `sha256` of the same bytes in hex. */
  | {
      type: 'membership'
      containerId: string
      digest: string
      sha256: string
      size: number
      createdAt: number
    }
  | {
      type: 'manifest'
      containerId: string
      digest: string
      mediaType: string
      /** The beginning of its text; the rest stands in `pieces` - 1 rows of type `piece`, behind it. */
      text: string
      pieces: number
      /** Digests that it names of blobs, for whoever writes a file. */
      blobs: string[]
      createdBy: string
      createdAt: number
    }
  | { type: 'piece'; containerId: string; manifest: string; number: number; text: string }
  | {
      type: 'ociTag'
      containerId: string
      name: string
      manifest: string
      frozen: boolean
      updatedAt: number
    }
  | {
      type: 'team'
      id: string
      name: string
      description: string
      /** Anybody may join. */
      open: boolean
      createdAt: number
    }
  | { type: 'member'; teamId: string; userId: string; owner: boolean; joinedAt: number }
  | {
      type: 'grant'
      id: string
      collectionId: string
      /** Who holds it, and their id. */
      holder: 'user' | 'team'
      holderId: string
      level: Exclude<Level, 0>
      createdAt: number
    }
  | { type: 'star'; containerId: string; userId: string; createdAt: number }
  | {
      type: 'pulls'
      containerId: string
      /** The first moment of the week. */
      week: number
      count: number
    }
  | {
      type: 'key'
      fingerprint: string
      armor: string
      ownerId: string | null
      addedBy: string | null
      addedAt: number
      updatedAt: number
      removedAt: number | null
    }
export type MovedKind = MovedRow['type']

/** An import on its way or done; the same file again is the same import. */
export type Import = {
  id: string
  exportId: string
  state: 'open' | 'done' | 'aborted'
  /** SHA-256 that the imported file ends with; null before it is done. */
  sha256: string | null
}

/** An import that has not ended, and what has arrived of it. */
export type OpenImport = {
  id: string
  exportId: string
  createdAt: Date
  /** When it is swept unless more arrives. */
  expiresAt: Date
  rows: number
  /** Bytes of the images that have arrived. */
  bytes: number
}

/** What an import has made visible, and what people should know of it. */
export type ImportReport = {
  rows: Record<MovedKind, number>
  /** Bytes of images and blobs, equal ones counted once. */
  bytes: number
  /** Names of administrators and staff who are ordinary users here: an import grants no power (R42). */
  demoted: string[]
  /** Tokens that were not imported, for another registry signed them; at most 1,000. */
  reissue: { user: string; name: string; expiresAt: Date }[]
}
