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
}

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
  | { type: 'user'; id: string; name: string; role: Role; disabled: boolean; createdAt: number }
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
      updatedAt: number
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

/** What an import has made visible, and what people should know of it. */
export type ImportReport = {
  rows: Record<MovedKind, number>
  /** Bytes of the images, equal ones counted once. */
  bytes: number
  /** Names of administrators who are ordinary users here: an import grants no power (R42). */
  demoted: string[]
  /** Tokens that were not imported, for another registry signed them; at most 1,000. */
  reissue: { user: string; name: string; expiresAt: Date }[]
}
