/**
 * Every interface the outside must fulfil. Read this first.
 *
 * Rules that hold for all: absence is `null`, never an exception; failures are `RegistryError` or
 * bubble up as internal; all methods are async; byte streams are `Bytes`; times are `Date`; nothing
 * here knows Hono. One port method is one atomic unit and at most one database round trip.
 */
import type {
  AuditEntry,
  AuditOutcome,
  Claims,
  Collection,
  Container,
  Entity,
  FoundImage,
  Grant,
  Image,
  Import,
  ImportReport,
  Invitation,
  Judged,
  KeyFacts,
  Level,
  MovedKind,
  Manifest,
  ManifestRef,
  MovedRow,
  OciUpload,
  OpenImport,
  Policy,
  PolicyStanding,
  Role,
  Scope,
  Share,
  SharedImage,
  SifFacts,
  SignatureFacts,
  Standing,
  StoredKey,
  Tag,
  Team,
  TeamMember,
  Token,
  Upload,
  UploadState,
  Usage,
  User,
} from './core/model.ts'

/** Takes a chunk; what it returns, if anything, is awaited before the next one. */
export type Sink = (chunk: Uint8Array) => Promise<void> | void

/** A stream of bytes. Consumers iterate it once; breaking off early must release the source. */
export type Bytes = AsyncIterable<Uint8Array> & {
  /**
   * The same bytes as a stream of the runtime, of a length it knows, present where it moves them
   * without waking JavaScript (Workers). Consumers take this or iterate, never both.
   */
  readonly native?: ReadableStream<Uint8Array>
  /**
   * Hands the chunks to `sink`, one after the other, present where that costs less than to be iterated.
   * Fulfilled at the end of the bytes; rejected with what `sink` threw, or with the signal's reason, at
   * once or as soon as `sink` has done with its chunk.
   */
  readonly each?: (sink: Sink, signal?: AbortSignal) => Promise<void>
  /**
   * Gives the memory of a chunk back at once, present where waiting for the garbage collector costs
   * more. Nobody may look at the chunk any more. A consumer need not call it. Of a piece of a chunk nothing
   * is given back: the rest of it may still be wanted.
   */
  readonly free?: (chunk: Uint8Array) => void
}

// ---------------------------------------------------------------------------------------------
// Blobs

/** Inclusive byte range as asked for: `end` may lie beyond the end of the blob and is clipped. */
export type ByteRange = { start: number; end: number }

export type BlobInfo = {
  /** Exact size of the whole blob in bytes. */
  size: number
  /** Opaque, quoted, changes whenever the bytes would. */
  etag: string
  /** SHA-256 of the whole blob (64 hex digits), where the store itself has checked it (R4). */
  sha256?: string
}

export type BlobPart = { number: number; etag: string }

export type BlobRead = BlobInfo & {
  /** The range that is served, inclusive; for an empty blob `{ start: 0, end: -1 }`. */
  range: ByteRange
  /** The bytes of `range`. May be called once. Breaking off the iteration closes the source. */
  stream(): Bytes
  /** Names these bytes among all that the store ever holds, so that readers at once may share reads. */
  readonly key?: string
  /**
   * Random access, present only where the store has it (disk): reads up to `length` bytes of the
   * blob from absolute `position` into `buffer` at `offset`; resolves with the number read.
   */
  readInto?(buffer: Uint8Array, offset: number, length: number, position: number): Promise<number>
  /** The bytes of `range` as a stream of the runtime, where the store has one; instead of `stream`. */
  native?(): ReadableStream<Uint8Array>
  /** Releases the source. Safe to repeat; needed when `stream` is not run to its end. */
  close(): Promise<void>
}

/**
 * Bytes by opaque key. Keys match `^[0-9a-f]{24}$` and are written once, for ever: a key that
 * holds bytes is never opened for writing again (R1). No move, append, directories or metadata.
 */
export type BlobStore = {
  /**
   * Stores a whole blob, all or nothing: a reader never sees half, and when the promise resolves
   * the bytes are durable (R39). A body shorter or longer than `size` is `size_mismatch`; a body
   * whose SHA-256 is not `sha256` (64 hex digits) is `digest_mismatch`; both leave nothing. A key
   * that holds bytes is `conflict`. A full disk is `insufficient_storage` and leaves nothing.
   */
  put(key: string, body: Bytes, size: number, sha256?: string): Promise<BlobInfo>
  /** Opens a blob for reading. A `start` at or past the end is `range_unsatisfiable`. */
  get(key: string, range?: ByteRange): Promise<BlobRead | null>
  /** Size and etag without opening a body. */
  head(key: string): Promise<BlobInfo | null>
  /** Absent keys are fine; safe to repeat. Durable when it resolves. */
  delete(keys: string[]): Promise<void>
  /** Keys in order, at most `limit` (≤ 1000), after `cursor`; `modifiedAt` by the store's clock. */
  list(
    cursor: string | null,
    limit: number,
  ): Promise<{ blobs: { key: string; modifiedAt: Date }[]; cursor: string | null }>
  /**
   * Opens an upload in parts of `partSize` bytes (the last one shorter) and returns the store's
   * handle, a short string. The caller has committed the key before (R21). `size` null: nobody
   * knows yet how many there will be; the last one is known by `finishParts`.
   */
  startParts(key: string, size: number | null, partSize: number): Promise<string>
  /**
   * Writes part `number` (from 1) of exactly `size` bytes. Repeating a number replaces it and ends
   * a writer of the same part that is still at work. With `sha256`, a body of another digest is
   * `digest_mismatch` and the part is not recorded. `onChunk` sees each chunk as it passes; `digest`
   * is the SHA-256 of what it has seen, where the caller hashes that anyway: then the store need not.
   * On an unknown, finished or aborted handle: `not_found`, and nothing is created (R22).
   */
  putPart(
    key: string,
    handle: string,
    number: number,
    body: Bytes,
    size: number,
    options?: { sha256?: string; onChunk?: (chunk: Uint8Array) => void; digest?: () => string },
  ): Promise<{ etag: string }>
  /**
   * Ends running writers, checks that `parts` are exactly 1..P with the recorded etags and sizes
   * (`invalid` otherwise), makes the blob durable and publishes it under `key` (R1, R39). Calling
   * it again after success is success.
   */
  finishParts(key: string, handle: string, parts: BlobPart[]): Promise<BlobInfo>
  /** Drops an upload in parts. Safe to repeat, safe after finish. `handle` null aborts by key. */
  abortParts(key: string, handle: string | null): Promise<void>
  /** Free bytes, where the store can tell; null where it cannot (object stores). */
  space(): Promise<{ free: number; total: number } | null>
  /** The registry id the store belongs to (R10), or null for a store that never had one. */
  readId(): Promise<string | null>
  /** Binds a fresh store to a registry id; `conflict` when it has another one. */
  writeId(id: string): Promise<void>
  /** Cheap proof of life for /readyz; throws when the store does not answer. */
  ping(): Promise<void>
  /**
   * Present where the store itself compares a part with its SHA-256, so that nothing changes between us and
   * it: clients are asked for that hash then. Elsewhere their image's own is enough (decision 23).
   */
  comparesParts?: true
  /** Present only where bytes may pass between clients and the store directly (SREG_S3_REDIRECT). */
  direct?: DirectTransfers
}

/**
 * Signed URLs of the store itself. A store offers them only after it has shown that it refuses
 * tampered URLs and bodies of another SHA-256 than the signed one (R62): then the hash of a
 * one-part upload needs no second reading (R4).
 */
export type DirectTransfers = {
  /**
   * A URL that answers GETs, ranges included, until `notAfter`; saved as `filename` by browsers.
   * Null when no URL can be good for so long: then the bytes come through us (R5).
   */
  get(key: string, notAfter: Date, filename: string): Promise<string | null>
  /**
   * A URL for PUTs of part `number` of exactly `size` bytes, until `notAfter`; dead once the upload
   * is finished or aborted (R2, R22). `sha256` (64 hex digits) is signed with it where it is given.
   */
  putPart(
    key: string,
    handle: string,
    part: { number: number; size: number; sha256: string | null },
    notAfter: Date,
  ): Promise<string>
  /** The parts that have arrived, by number; empty for an upload that is unknown or has ended. */
  parts(key: string, handle: string): Promise<BlobPart[]>
}

// ---------------------------------------------------------------------------------------------
// Assets

/** Files of others that pages need, as they were published. */
export type Assets = {
  /** The whole file of that name (no folders), or null. */
  get(name: string): Promise<Uint8Array | null>
}

// ---------------------------------------------------------------------------------------------
// Database: books opened together. Every method is one atomic unit and one round trip.

/** Who looks, as the database needs to know it: a verified token (claims of its JWT), or nobody. */
export type Viewer = Pick<Claims, 'tokenId' | 'userId' | 'scopes' | 'operator' | 'grace'> | null

/** An answer together with the standing of the viewer's token, read in one trip (R25). */
export type Seen<T> = {
  /** null for an anonymous viewer and for a token that is unknown, revoked, expired or disabled. */
  standing: Standing | null
  value: T
}

/** How a caller names an image in a container. */
export type ImageSelector =
  | { by: 'tag'; tag: string; arch: string }
  | { by: 'digest'; digest: string }

/**
 * A path as typed, after the server's defaults were applied (core/ref.ts). `entity: null` asks for
 * the one visible collection of that name (SREG_SHORT_REFS=unique).
 */
export type LookupPath = { entity: string | null; collection: string; container: string }

/** Ids (at most 1,000) and bytes of what the viewer can see below a name (R27). */
export type Below = { ids: string[]; size: number }

/** Pulls that a container and a collection allow in the week that began at `begin`; 0 is no limit. */
export type PullLimits = { begin: Date; container: number; collection: number }

/** Where a limit stands: `count` includes this pull unless the limit was `full` before it. */
export type PullCount = { of: 'container' | 'collection'; count: number; full: boolean }

/** A pull that several requests make up: limits, and the user or address that they come from. */
export type AskersPull = PullLimits & { asker: string }

/** The writing user as guards inside a batch re-check them (R6, R8). */
export type Writer = {
  userId: string
  tokenId: string
  /** An administrator with that power. */
  admin: boolean
  /** Owns everything: an administrator or staff with that power. */
  manages: boolean
  /** Where the request came from, for the audit log; null where nobody knows. */
  address: string | null
  now: Date
}

/** Whoever can write the data folder, as the audit log calls them: `cli:` and a name. */
export type Operator = { operator: string; address?: string | null; now: Date }

/** Who makes a change, for the audit row that shares its batch (R57). */
export type Actor = Writer | Operator

/** Who asks without a token, where none is needed. */
export type Stranger = { address: string | null; now: Date }

export type CatalogBook = {
  /** Entities the viewer owns, by name, at most 1,000; all of them for an administrator. */
  ownEntities(viewer: NonNullable<Viewer>, now: Date): Promise<Seen<Entity[]>>
  findEntity(
    name: string,
    viewer: Viewer,
    now: Date,
  ): Promise<Seen<{ entity: Entity; below: Below } | null>>
  findCollection(
    entity: string,
    name: string,
    viewer: Viewer,
    now: Date,
  ): Promise<Seen<{ collection: Collection; below: Below } | null>>
  findContainer(
    path: LookupPath,
    viewer: Viewer,
    now: Date,
  ): Promise<Seen<{ container: Container; below: Below; tags: Tag[] } | null>>
  /**
   * An image whose bytes are attached; never one that is still on its way. Where there is none,
   * `elsewhere` is the container if OCI knows the tag: what it names is no SIF.
   */
  findImage(
    path: LookupPath,
    selector: ImageSelector,
    viewer: Viewer,
    now: Date,
  ): Promise<Seen<Image | null> & { elsewhere: Container | null }>
  /**
   * As `findImage`, and counts a pull of what is found and visible in the same batch, unless the
   * viewer may write there, or a limit of `week` is reached: then nothing is counted. Without
   * `counts` it only says which limits are full.
   */
  pullImage(
    path: LookupPath,
    selector: ImageSelector,
    viewer: Viewer,
    now: Date,
    week: PullLimits & { counts: boolean },
  ): Promise<Seen<{ image: Image | null; counted: PullCount[] }> & { elsewhere: Container | null }>
  /** `visible` says that the entity has a collection the viewer can see. */
  entityById(
    id: string,
    viewer: Viewer,
    now: Date,
  ): Promise<Seen<(Entity & { visible: boolean }) | null>>
  collectionById(id: string, viewer: Viewer, now: Date): Promise<Seen<Collection | null>>
  containerById(id: string, viewer: Viewer, now: Date): Promise<Seen<Container | null>>
  /** Any image row, uploaded or not: for the upload calls only. */
  imageById(id: string, viewer: Viewer, now: Date): Promise<Seen<Image | null>>
  /** The user of that name, for deciding who will own a new entity. */
  entityParent(
    name: string,
    viewer: Viewer,
    now: Date,
  ): Promise<Seen<{ user: User | null; entity: Entity | null }>>

  /** Insert-or-nothing plus select. `created` is false when the row was there before. */
  createEntity(draft: {
    id: string
    name: string
    description: string
    ownerId: string
    writer: Writer
  }): Promise<{ row: Entity; created: boolean }>
  createCollection(draft: {
    id: string
    name: string
    description: string
    entityId: string
    private: boolean
    /** Collections that the entity may have (`denied` beyond); null or absent is no limit. */
    limit?: number | null
    writer: Writer
  }): Promise<{ row: Collection; created: boolean }>
  createContainer(draft: {
    id: string
    name: string
    description: string
    collectionId: string
    private: boolean
    writer: Writer
  }): Promise<{ row: Container; created: boolean }>
  createImage(draft: {
    id: string
    digest: string
    description: string
    containerId: string
    writer: Writer
  }): Promise<{ row: Image; created: boolean }>

  /**
   * A live blob of that digest which the viewer may read through some image right now, for
   * deduplication without upload (R8, R29); null otherwise.
   */
  readableBlob(
    digest: string,
    viewer: Viewer,
    now: Date,
  ): Promise<{ id: string; key: string; size: number } | null>
  /**
   * The only way an image gets bytes (R8). From an upload: the claim must still hold; the blob
   * becomes live, or the live blob of the same digest is used and the upload's own key is surplus.
   * From an existing blob: the writer's grant to read it is a condition of the batch; from a member:
   * that the image's container has it as an OCI repository. False
   * conditions are `conflict` (the image, the claim, the stored copy or the grant to read it has gone) or
   * `denied` (the right to write has gone, or the collection's policy is not met, of which the
   * subject is `policy`), or `quota_exceeded`: the entity has no room for it (R50). Repeating it with
   * the same claim is success.
   */
  attach(attachment: {
    imageId: string
    digest: string
    size: number
    /** Bytes that entities without a quota of their own may take; null or absent is no limit. */
    defaultQuota?: number | null
    /** Null with a stored blob: the facts are copied from an image that has it. */
    facts: SifFacts | null
    /** What `facts.signatures` are worth; null where there are none. */
    judged?: Judged | null
    /** Hex SHA-256 of the manifest that it is by OCI; null or absent: made of the rest when it is asked for. */
    manifest?: string | null
    writer: Writer
    source:
      | { kind: 'upload'; uploadId: string; claim: string; blobId: string; key: string }
      | { kind: 'blob'; blobId: string }
      | { kind: 'member'; blobId: string }
  }): Promise<void>
  /** Marks a live blob whose object is gone; the next push of the digest heals its images (R60). */
  markLost(blobKey: string): Promise<void>

  /** A container and, when it holds an image of that id with bytes, the image's arch. */
  taggable(
    containerId: string,
    imageId: string,
    viewer: Viewer,
    now: Date,
  ): Promise<Seen<{ container: Container; image: { arch: string } | null } | null>>
  listTags(
    containerId: string,
    viewer: Viewer,
    now: Date,
  ): Promise<Seen<{ container: Container; tags: Tag[] } | null>>
  /**
   * Points a tag of one arch at an uploaded image of the same container. `arch` must be the
   * image's own unless that is unknown. `not_found` when the image is not in this container or
   * has no bytes; `conflict` when the arch differs; `denied` when the writer lost the right, when
   * the collection's policy is not met (then its subject is `policy`), or when the tag is frozen and
   * names another image (`tag`).
   */
  setTag(change: {
    containerId: string
    arch: string | null
    tag: string
    imageId: string
    writer: Writer
  }): Promise<void>
  /**
   * Removes a tag of one arch; the image goes with its last tag, unless OCI has another for it. False
   * when absent; `denied` when the tag or its container is frozen.
   */
  deleteTag(containerId: string, arch: string, tag: string, writer: Writer): Promise<boolean>
  /** Removes an image with all its tags. `denied` when one of them or the container is frozen. */
  deleteImage(image: { imageId: string; containerId: string }, writer: Writer): Promise<boolean>
  /**
   * Makes a collection, or a container when one is named, private or public again; false when there
   * is none. `denied` when the right to manage it has gone.
   */
  setPrivate(
    path: { entity: string; collection: string; container: string | null },
    value: boolean,
    by: Actor,
  ): Promise<boolean>
  /**
   * Freezes a container, or a tag of it (of all archs when `arch` is null), or thaws it. False when
   * there is no such tag; `denied` when the right to manage it has gone.
   */
  setFrozen(change: {
    containerId: string
    tag: string | null
    arch: string | null
    frozen: boolean
    by: Actor
  }): Promise<boolean>
  /** Removes a container and all in it; false when absent, `denied` when something in it is frozen. */
  deleteContainer(containerId: string, by: Actor): Promise<boolean>
  /** Removes a collection, its grants and all in it; likewise. */
  deleteCollection(collectionId: string, by: Actor): Promise<boolean>

  /** Adds downloads to their containers, and to the week that began at `week`. */
  countDownloads(counts: { containerId: string; count: number }[], week: Date): Promise<void>
  /**
   * Writes about `pages` pages (4 KiB) of the full-text index together, so that a word is looked for in
   * fewer places; false when nothing was left to do.
   */
  mergeIndex(pages: number): Promise<boolean>

  /**
   * Substring search over what the viewer may see (R30): every term of at least 3 characters must
   * occur. `arch` empty means any. Images come in the order of their names. `cut` says that there may be
   * more: `images` are the newest `limit`, or those among the newest 10,000 that match the terms (R56).
   */
  search(
    query: { terms: string[]; arch: string[]; signed: boolean; limit: number },
    viewer: Viewer,
    now: Date,
  ): Promise<Seen<{ images: FoundImage[]; cut: boolean }>>
}

/** A key of the keystore that a signature names. */
export type SigningKey = {
  /** As the signature names it: a fingerprint or key id of the key or of a subkey that signs. */
  issuer: string
  /** Of the primary key. */
  fingerprint: string
  armor: string
  /** Changes whenever the key does. */
  mark: string
}

/** Verdicts about signatures, by the digest of the image (docs/signatures.md), and policies. */
export type SignaturesBook = {
  /** Keys that can be found now by one of the issuers, at most a few of each. */
  keysOf(issuers: string[]): Promise<SigningKey[]>
  /**
   * Stored signatures whose verdict was made of other keys than there are now, of these digests or
   * naming these keys (primary fingerprints), at most `limit`.
   */
  stale(
    of: ({ digests: string[] } | { keys: string[] }) & { limit: number },
  ): Promise<{ digest: string; facts: SignatureFacts }[]>
  /** Replaces the verdicts of these digests. */
  settle(judged: { digest: string; judged: Judged }[]): Promise<void>
  /**
   * Looks at `limit` verdicts in the order of digests after `after`: forgets those that no image
   * has, and names those that are outdated. `last` is null when there were no more.
   */
  window(after: string, limit: number): Promise<{ last: string | null; outdated: string[] }>
  /**
   * Signed images of which nothing is known: stored before this was asked, or too large to compare. At
   * most `limit` in the order of digests after `after`, and before `until` where that is said.
   */
  unexamined(
    after: string,
    limit: number,
    until?: string,
  ): Promise<{ digest: string; key: string; size: number }[]>
  /** Stores facts and verdict of a digest that had none. */
  record(digest: string, facts: SignatureFacts, judged: Judged): Promise<void>
  /** The image as its collection's policy sees it; with `judged` in place of the stored verdict. */
  standing(imageId: string, judged: Judged | null): Promise<PolicyStanding | null>
  /** Sets a collection's policy; `denied` or `not_found` when the writer may not, or it has gone. */
  setPolicy(change: { collectionId: string; policy: Policy; by: Actor }): Promise<void>
}

export type UploadsBook = {
  /**
   * Commits the intent and reserves the declared size in one guard (R21, R50): at most
   * `limits.perUser` open uploads (`rate_limited` beyond), and the sum of all open uploads within
   * `limits.free` (`insufficient_storage` beyond; null = the store cannot tell). What the entity has,
   * what is on its way to it and this must fit its quota, or else `defaultQuota` (`quota_exceeded`
   * beyond; null or absent is no limit): equal content counts once, and what it has costs nothing.
   */
  open(
    upload: Upload,
    writer: Writer,
    limits: { perUser: number; free: number | null; defaultQuota?: number | null },
  ): Promise<void>
  setHandle(id: string, handle: string): Promise<void>
  find(id: string, viewer: Viewer, now: Date): Promise<Seen<Upload | null>>
  /** Uploads of an image by a user: those that are done, then open or finishing ones, newest first. */
  forImage(imageId: string, viewer: Viewer, now: Date): Promise<Seen<Upload[]>>
  /** open → finishing, or takes over a finishing upload whose lease ended; false if somebody else holds it. */
  claim(id: string, claim: string, now: Date, leaseUntil: Date): Promise<boolean>
  renew(id: string, claim: string, leaseUntil: Date): Promise<boolean>
  /** Ends an upload by compare-and-set from `from`; false if it was not in that state. */
  close(
    id: string,
    from: { state: UploadState; claim: string | null },
    to: UploadState,
    now: Date,
  ): Promise<boolean>
  /**
   * Ends running uploads past their deadline, or whose image was deleted, the oldest `limit` of
   * them; not while a lease holds. Returns how many it ended.
   */
  expire(now: Date, limit: number): Promise<number>
  /** Uploads closed before `before`; `kept` says that the key became a blob (its bytes stay). */
  closed(
    before: Date,
    limit: number,
  ): Promise<{ id: string; blobKey: string; handle: string | null; kept: boolean }[]>
  forget(ids: string[]): Promise<void>
}

export type BlobsBook = {
  /**
   * live → dying for blobs nothing refers to (R9), looking at `limit` live blobs with ids after
   * `after`; returns the last id looked at, null when there were none.
   */
  markDying(now: Date, after: string, limit: number): Promise<{ last: string | null }>
  /** Dying (or lost and unreferenced) blobs marked before `before`. */
  dying(before: Date, limit: number): Promise<{ id: string; key: string; size: number }[]>
  forget(ids: string[]): Promise<void>
  /** Which of these keys the database knows: as a blob in any state or as an upload's key. */
  known(keys: string[]): Promise<Set<string>>
  /** How many are live; 10,000 stands for any number above. */
  liveCount(): Promise<number>
}

/** Where an OCI repository lies: names of its entity, collection and container. */
export type RepositoryPath = { entity: string; collection: string; container: string }

export type StoredBlob = { id: string; key: string; size: number }

/** How a caller names a manifest of a repository. */
export type ManifestSelector = { by: 'tag'; tag: string } | { by: 'digest'; digest: string }

/** An image of a repository, for its manifest; `arch` is its own. */
export type BridgedImage = { id: string; digest: string; size: number; arch: string }
/** Tags of the library that have images for several archs. */
export type BridgedTag = { tag: string; images: BridgedImage[] }

/** Manifests, tags and the blobs that repositories have (R31). Digests are OCI's, with algorithm. */
export type ManifestsBook = {
  repository(path: RepositoryPath, viewer: Viewer, now: Date): Promise<Seen<Container | null>>
  /**
   * A blob that the repository has, of its own or of an image, as long as its bytes are there.
   * `config`: it has an image, and so the config of one, or a manifest that names that.
   */
  member(
    path: RepositoryPath,
    digest: string,
    viewer: Viewer,
    now: Date,
  ): Promise<Seen<{ container: Container; blob: StoredBlob | null; config: boolean } | null>>
  /** A blob of a repository (or of an image in it) that the viewer can see: of `from`, or for null of any. */
  readableMember(
    digest: string,
    from: RepositoryPath | null,
    viewer: Viewer,
    now: Date,
  ): Promise<StoredBlob | null>
  /**
   * Makes a stored blob one of the repository's too: false when it has gone, or the writer may not
   * read it (any more). `denied` when they may not write, `quota_exceeded` without room.
   */
  mount(change: {
    containerId: string
    digest: string
    blobId: string
    defaultQuota: number | null
    writer: Writer
  }): Promise<boolean>
  /** Takes a blob from the repository; false when it has none, `conflict` while a manifest or image has it. */
  removeMember(containerId: string, digest: string, writer: Writer): Promise<boolean>
  /**
   * The container, and a manifest that is stored there; `text` null where it was not asked for. `images`
   * are those that the tag names in the library, by arch; of a digest the one whose manifest that is, and
   * those of which nobody has noted it. With `pull` one of that asker is counted as `pullImage` does it,
   * in the same batch; what one asks for within a minute of a pull that was counted is a part of it.
   */
  manifest(
    path: RepositoryPath,
    selector: ManifestSelector,
    viewer: Viewer,
    now: Date,
    options: { text: boolean; pull?: AskersPull | null },
  ): Promise<
    Seen<{
      container: Container
      manifest: (Manifest & { text: string | null }) | null
      images: BridgedImage[]
      counted: PullCount[]
    } | null>
  >
  /** Tags of the library for several archs, at most the 200 that changed last: each is an index. */
  indexed(containerId: string): Promise<BridgedTag[]>
  /** Images of which nobody has noted the manifest. */
  unnoted(containerId: string): Promise<BridgedImage[]>
  /** Notes manifests (hex digits) of images that had none noted. */
  note(manifests: { imageId: string; manifest: string }[]): Promise<void>
  /** The images that these manifests are of, stored ones and others; what is of none is left out. */
  imagesOf(containerId: string, digests: string[]): Promise<{ digest: string; imageId: string }[]>
  /** Which of these the repository has not, or has in another size (then that). */
  lacking(
    containerId: string,
    refs: readonly ManifestRef[],
  ): Promise<{ kind: ManifestRef['kind']; digest: string; size: number | null }[]>
  /**
   * Stores a manifest, and points tags at it. `library` says what that is there: `images` (ids, of each
   * arch the first) that those of `tags` name from now on; `whole`: and no others. `invalid` when
   * something that it names is not there in that size (any more), `denied` when the writer lost the
   * right, a tag is frozen, or the collection's policy is not met (by every image; without any it must
   * not be `require`); of which the subjects are `blob`, `tag` and `policy`. Returns that policy.
   */
  put(change: {
    containerId: string
    manifest: Manifest & { text: string; annotations: string | null; sif?: string | null }
    refs: readonly ManifestRef[]
    tags: readonly string[]
    library?: { images: readonly string[]; tags: readonly string[]; whole: boolean }
    writer: Writer
  }): Promise<{ policy: Policy['mode'] }>
  /**
   * Deletes a tag on both sides, or a manifest with its tags and what those are in the library; `derived`
   * says of which images (for null all) of which tags (for null all) this is the manifest, where nobody
   * has pushed another under their name. An image goes when neither tag nor manifest of it is left. False
   * when absent, `denied` when frozen. With a manifest go, `withReferrers`, those that refer to it and
   * their own referrers, at most 1,000 and no farther than one that has a tag or is named by another
   * manifest: those stay.
   */
  remove(
    containerId: string,
    what:
      | { by: 'tag'; tag: string }
      | {
          by: 'digest'
          digest: string
          derived?: { images: string[]; tags: string[] | null } | null
        },
    writer: Writer,
    options?: { withReferrers: boolean },
  ): Promise<boolean>
  /** Tags of both sides in the order of their bytes, after `after`. */
  tags(
    path: RepositoryPath,
    page: { after: string; limit: number },
    viewer: Viewer,
    now: Date,
  ): Promise<Seen<{ container: Container; tags: string[] } | null>>
  /**
   * Manifests with that subject, by digest after `after`: as many as `limit`, and no more than fit
   * into an answer; `annotations` is JSON.
   */
  referrers(
    path: RepositoryPath,
    subject: string,
    page: { after: string; artifactType: string | null; limit: number },
    viewer: Viewer,
    now: Date,
  ): Promise<
    Seen<{
      container: Container
      manifests: (Manifest & { annotations: string | null })[]
      more: boolean
    } | null>
  >
  /** Names of repositories with manifests or images that the viewer can see, in order after `after`. */
  repositories(
    page: { after: string; limit: number },
    viewer: Viewer,
    now: Date,
  ): Promise<Seen<string[]>>
  /**
   * Looks at `limit` memberships after `after` and takes away those from before `before` that no
   * manifest names (R31). `last` is null when there were no more.
   */
  sweepMembers(before: Date, after: number, limit: number): Promise<{ last: number | null }>
}

/** Uploads of OCI (R47). Every key is committed before its first byte (R21). */
export type OciUploadsBook = {
  /** At most `perUser` open uploads of a user, those of the library included (`rate_limited`). */
  open(
    upload: Pick<OciUpload, 'id' | 'key' | 'createdAt' | 'expiresAt'> & { containerId: string },
    writer: Writer,
    limits: { perUser: number },
  ): Promise<void>
  /** The upload with its repository; `container` null when that has gone. */
  find(
    id: string,
    viewer: Viewer,
    now: Date,
  ): Promise<Seen<{ upload: OciUpload; container: Container | null } | null>>
  /**
   * Takes the upload at the offset `at` for oneself until the lease ends, before a byte is read;
   * reserves `coming` bytes more and commits `tailKey`. `range_unsatisfiable` when it stands
   * elsewhere or somebody else has it, `insufficient_storage` or `quota_exceeded` without room.
   */
  claim(
    id: string,
    claim: {
      claim: string
      at: number
      coming: number
      /** Hex digits of what all of it will be, where that is known: what the entity has costs nothing. */
      sha256: string | null
      tailKey: string
      now: Date
      leaseUntil: Date
      expiresAt: Date
      free: number | null
      defaultQuota: number | null
    },
  ): Promise<void>
  setHandle(id: string, handle: string): Promise<void>
  /**
   * Notes what has been stored, and renews the lease; `conflict` when the claim has gone. What comes
   * beyond what the claim announced is reserved now: `insufficient_storage` or `quota_exceeded` without
   * room (R50).
   */
  advance(
    id: string,
    claim: string,
    to: Pick<OciUpload, 'received' | 'tail' | 'sha256' | 'sha512'> & {
      part: BlobPart | null
      leaseUntil: Date
      /** Bytes that the disk may still take; absent or null where nobody can tell. */
      free?: number | null
      defaultQuota?: number | null
    },
  ): Promise<void>
  renew(id: string, claim: string, leaseUntil: Date): Promise<boolean>
  release(id: string, claim: string): Promise<void>
  parts(id: string): Promise<BlobPart[]>
  /**
   * The only way an upload becomes a blob of its repository: the blob becomes live, or the live one of
   * the same SHA-256 is used. `conflict` when the claim has gone, `denied` with the right to write,
   * `quota_exceeded` without room. Repeating it is success. Returns the key of the blob that is used.
   */
  finish(
    id: string,
    claim: string,
    done: {
      containerId: string
      digest: string
      sha256: string
      size: number
      blobId: string
      key: string
      defaultQuota: number | null
      writer: Writer
    },
  ): Promise<{ key: string }>
  /** open → ended; false when it was not open. */
  end(id: string, now: Date): Promise<boolean>
  /** Ends uploads past their deadline or without a repository, the oldest `limit`; not while a lease holds. */
  expire(now: Date, limit: number): Promise<number>
  /**
   * Keys of uploads closed before `before`, at most `limit`. `parts` says that it is the key of the
   * parts, `handle` then what the store called them; `kept` that the key became a blob.
   */
  leftovers(
    before: Date,
    limit: number,
  ): Promise<{ key: string; parts: boolean; handle: string | null; kept: boolean }[]>
  /** Forgets these keys, and closed uploads that have none left. */
  forgetKeys(keys: string[], before: Date): Promise<void>
}

/** A user on their way in, with the id that their entity will have (robots have none). */
export type NewUser = Omit<User, 'managerId' | 'subject'> & {
  managerId?: string | null
  entityId: string
}

export type UsersBook = {
  /** Makes a user and the entity of the same name (an existing entity of that name passes to them). */
  create(user: NewUser, by: Actor): Promise<{ created: boolean; user: User }>
  /** Makes the first admin only if no admin exists (R19); false otherwise. */
  createFirstAdmin(user: NewUser, by: Actor): Promise<boolean>
  /**
   * Spends a claim of whoever sets the deployment's secrets (R19): notes `claim` for ever, makes
   * `user` when no administrator is enabled, and gives the token to the administrator there is (the
   * one of that name, else the oldest), all in one batch. Null when the claim was spent before;
   * `conflict` when there is no administrator and somebody else has the name.
   */
  claimAdmin(
    claim: string,
    user: NewUser,
    token: Omit<NewToken, 'userId'>,
    by: Actor,
  ): Promise<User | null>
  /** Not those whose accounts were deleted. */
  byName(name: string): Promise<User | null>
  list(): Promise<User[]>
  /**
   * Takes in an identity that another issuer has vouched for (R35), all in one batch: makes its user
   * (a robot without an entity) and its token's row where they are absent, makes the grant the only
   * one the user has, and forgets rows of its tokens that ended more than a day ago. The token is bound
   * to the collection. `disabled` when its user is, or has been deleted; `no collection` when there is
   * none of that name; both leave everything as it was.
   */
  vouch(identity: {
    userId: string
    name: string
    /** issuer|sub. */
    subject: string
    token: Pick<NewToken, 'id' | 'name' | 'createdAt' | 'expiresAt'> & { scopes: readonly Scope[] }
    /** `collection` as entity/collection; 1 reads, 2 contributes. */
    grant: { id: string; collection: string; level: 1 | 2 }
    now: Date
  }): Promise<'ok' | 'disabled' | 'no collection'>
}

/** Who has an account, or had one: its name stays reserved (R38). `manager` is the name of a robot's. */
export type Person = User & { manager: string | null; deletedAt: Date | null }

/**
 * Accounts, robots, tokens and whose an entity is. Every change is one guarded batch with its audit
 * row: `denied` when the writer's right has gone meanwhile, `conflict` when what it is about has.
 */
export type PeopleBook = {
  /** Deleted accounts too. */
  find(name: string, viewer: Viewer, now: Date): Promise<Seen<Person | null>>
  /** Everybody by name, deleted accounts too. */
  list(): Promise<Person[]>
  /** Robots of a manager by name, of everybody for null. */
  robots(managerId: string | null): Promise<Person[]>
  /**
   * By an administrator; a robot by its manager too. `conflict` when the name is taken. An entity of
   * that name passes to the new user when it is an administrator's.
   */
  add(
    person: { id: string; entityId: string; name: string; role: Role; managerId: string | null },
    by: Actor,
  ): Promise<Person>
  /**
   * By an administrator. `conflict` when nobody who is enabled would be administrator any more; the
   * tickets of a disabled user end (R25).
   */
  change(
    id: string,
    change: { role?: Exclude<Role, 'robot'> | undefined; disabled?: boolean | undefined },
    by: Actor,
  ): Promise<Person>
  /**
   * By an administrator, the user or a robot's manager. Entities, owned collections, robots and teams
   * pass to `handOverTo`; null removes entities with everything in them, and robots, and leaves teams
   * to their members. Tokens, grants, memberships, stars and links end, keys are nobody's.
   */
  remove(id: string, handOverTo: string | null, by: Actor): Promise<void>
  /**
   * Gives the name of a deleted account free, by an administrator. `conflict` while the entity of that
   * name holds something.
   */
  free(id: string, by: Actor): Promise<void>

  /** `place` is what the token is bound to: entity/collection[/container]. */
  tokens(userId: string): Promise<(Token & { place: string | null })[]>
  /** Whose a token is, and who manages them. */
  token(
    id: string,
    viewer: Viewer,
    now: Date,
  ): Promise<Seen<{ userId: string; managerId: string | null } | null>>
  /** By an administrator, the user or a robot's manager. */
  issue(token: Required<NewToken>, by: Actor): Promise<void>
  /** By the same, or by the token itself. Twice is success. */
  revoke(id: string, by: Actor): Promise<void>

  /** Gives an entity that is `from`'s to another person, by its owner or an administrator. */
  transfer(change: { entityId: string; from: string; to: string }, by: Actor): Promise<void>
}

export type NewToken = Omit<
  Token,
  'userName' | 'revokedAt' | 'lastUsedAt' | 'collectionId' | 'containerId'
> &
  Partial<Pick<Token, 'collectionId' | 'containerId'>>

export type TokensBook = {
  insert(token: NewToken, by: Actor): Promise<void>
  standing(viewer: NonNullable<Viewer>, now: Date): Promise<Standing | null>
  listFor(userId: string): Promise<Token[]>
  /** False when there is no such token; revoking twice is success. */
  revoke(id: string, by: Actor): Promise<boolean>
  /** Notes when tokens were last used. */
  touch(ids: string[], now: Date): Promise<void>
}

/** Some keys; `next` is the `after` of the following page, null on the last one. */
export type KeyPage = { keys: StoredKey[]; next: string | null }
/** `after` null is the first page; `limit` is at most 1,000; without `armor` the keys have none. */
export type KeyPlace = { after: string | null; limit: number; armor: boolean }
/** Who adds a key: a writer with the scope `keys`, or who needs no token. */
export type KeyWriter = Actor | Stranger

/** Public keys. `named` and `containing` know nothing of keys that their owners have removed. */
export type KeysBook = {
  /**
   * Keys that one of `names` is a name of, in the order they came: upper-case hex digits (8 or 16 of
   * the key id, the whole fingerprint) or e-mail addresses in lower case. A subkey's digits find its
   * key, but only where no key has them itself: an encryption subkey may be anybody's (R46).
   */
  named(names: string[], place: KeyPlace, viewer: Viewer, now: Date): Promise<Seen<KeyPage>>
  /**
   * Keys with a user id that contains `text` (at least 3 characters), without regard to case;
   * `whole`: that is `text`.
   */
  containing(
    query: { text: string; whole: boolean },
    place: KeyPlace,
    viewer: Viewer,
    now: Date,
  ): Promise<Seen<KeyPage>>
  /** The key of that fingerprint with its armor, removed or not. */
  find(fingerprint: string, viewer: Viewer, now: Date): Promise<Seen<StoredKey | null>>
  /** The keys of those fingerprints that there are, with their armors, removed ones too. */
  several(fingerprints: string[]): Promise<StoredKey[]>
  /** Keys of a user, removed ones too; of everybody for null. */
  list(ownerId: string | null, place: KeyPlace, viewer: Viewer, now: Date): Promise<Seen<KeyPage>>
  /**
   * Stores a key, or its merged form, by compare-and-set: false when its revision is not `expected`
   * (0: there is none). `show` makes a removed key found again; `ownerId` gives it to that user.
   * `denied` when the writer's token has ended meanwhile.
   */
  put(change: {
    facts: KeyFacts
    expected: number
    show: boolean
    ownerId?: string
    by: KeyWriter
    now: Date
  }): Promise<boolean>
  /**
   * Hides a key, or forgets it when `forGood`; false when nobody could find it. `denied` when the
   * writer is neither its owner nor an administrator (any more).
   */
  remove(fingerprint: string, options: { forGood: boolean; by: Actor; now: Date }): Promise<boolean>
}

/** Who looks for teams: whoever can write the data folder sees all. */
export type TeamViewer = (NonNullable<Viewer> & Pick<Claims, 'operator'>) | null

/**
 * Teams and their members. Every change fails with `denied` when the right to make it has gone:
 * owners of the team, staff and administrators have it. A robot never owns a team, and a team that is
 * not deleted keeps an owner (`conflict`).
 */
export type TeamsBook = {
  /** Teams that the viewer sees, by name, at most 1,000. */
  list(viewer: TeamViewer, now: Date): Promise<Seen<Team[]>>
  /** The team of that name, whoever asks, and its members. */
  find(
    name: string,
    viewer: TeamViewer,
    now: Date,
  ): Promise<Seen<{ team: Team; members: TeamMember[] } | null>>
  /**
   * Makes a team with its first owner. `conflict` when the name is taken, `not_found` without such a
   * person. `anybody`: users may make teams, and own them.
   */
  create(draft: {
    id: string
    name: string
    description: string
    open: boolean
    owner: string
    anybody: boolean
    by: Actor
  }): Promise<void>
  /** Null leaves a value as it is. */
  change(team: {
    teamId: string
    description: string | null
    open: boolean | null
    by: Actor
  }): Promise<void>
  /** Removes a team with its members, invitations and grants. */
  delete(teamId: string, by: Actor): Promise<void>
  /** Adds a member, or changes what one is. `not_found` without such a user. */
  setMember(change: { teamId: string; user: string; owner: boolean; by: Actor }): Promise<void>
  /** Removes a member; members remove themselves. False when it was none. */
  removeMember(change: { teamId: string; user: string; by: Actor }): Promise<boolean>
  /** The acting person becomes a member, or stays one; `denied` unless the team is open. */
  join(teamId: string, by: Writer): Promise<void>
  /** `hash` is the SHA-256 of the secret. */
  invite(invitation: {
    id: string
    teamId: string
    hash: string
    expiresAt: Date
    by: Actor
  }): Promise<void>
  /** Those that still work, oldest first, at most 1,000. */
  invitations(teamId: string, now: Date): Promise<Invitation[]>
  /** False when there is none that could be accepted. */
  revokeInvitation(change: { id: string; teamId: string; by: Actor }): Promise<boolean>
  /**
   * Makes the acting person a member, once, and returns the team's name: null for every secret that
   * does not work (any more); `conflict` for members, and the invitation stays as it is.
   */
  accept(hash: string, by: Writer): Promise<string | null>
}

/** Grants: what users and teams may do in collections. */
export type GrantsBook = {
  /** By name, teams last; at most 1,000. */
  list(collectionId: string): Promise<Grant[]>
  /**
   * Sets what a user or a team may do; 0 takes the grant back. Tickets of who may read nothing there
   * any more end (R25). `not_found` without such a user, team or collection; `denied` when the right
   * to manage it has gone.
   */
  set(grant: {
    id: string
    collectionId: string
    to: { user: string } | { teamId: string }
    level: Level
    by: Actor
  }): Promise<void>
}

/**
 * Ids whose tickets end at once (R25): of revoked tokens, disabled users and deleted images,
 * `public:` with the id of an image that was public and is now private, and the ids of a user and of
 * a collection, with a colon between, whose private images they may read no more.
 */
export type EndedBook = {
  since(after: Date): Promise<string[]>
  prune(before: Date): Promise<void>
}

/** How much entities take, and may take. */
export type QuotasBook = {
  /** Of all entities, of one, or of those of an owner: by name after `after`, at most `limit`. */
  usages(
    of: 'all' | { entityId: string } | { ownerId: string },
    after: string,
    limit: number,
  ): Promise<Usage[]>
  /** Null is the registry's default, 0 no limit. `denied` unless the writer is administrator. */
  setQuota(change: { entityId: string; quota: number | null; by: Actor }): Promise<void>
}

/** Stars, and pulls by week. */
export type PopularityBook = {
  /** Pulls of a container in weeks that began at `since` or later, in order; weeks without are left out. */
  weeks(containerId: string, since: Date): Promise<{ week: Date; count: number }[]>
  forgetWeeks(before: Date): Promise<void>
  /** Gives or takes back a star of the writer's; repeating is success. `denied` when they cannot see it. */
  setStar(change: { containerId: string; given: boolean; by: Writer }): Promise<void>
  /** What the viewer has given a star, as far as they still see it, at most 1,000. */
  starred(
    viewer: NonNullable<Viewer>,
    now: Date,
  ): Promise<
    Seen<
      { entity: string; collection: string; container: string; stars: number; starredAt: Date }[]
    >
  >
}

/** Share links (R61). The secret is known by its SHA-256 only. */
export type SharesBook = {
  /**
   * `count` null is any number of downloads. `denied` when the writer may not push there, or with a
   * bound token; `conflict` when `createdBy` has too many.
   */
  create(draft: {
    id: string
    imageId: string
    hash: string
    note: string
    createdBy: string
    expiresAt: Date
    count: number | null
    by: Actor
  }): Promise<void>
  find(id: string, viewer: Viewer, now: Date): Promise<Seen<Share | null>>
  /** Of a container, of a creator, or of both; newest first, at most 1,000. */
  list(
    of: { containerId?: string; creatorId?: string },
    viewer: Viewer,
    now: Date,
  ): Promise<Share[]>
  /** Ends a link and its tickets (R25); `denied` unless the writer made it or owns its collection. */
  revoke(id: string, by: Actor): Promise<void>
  /**
   * Spends one download of a link that is good: not over, not revoked, not used up, of an image that
   * is there and that its creator may still read. Null for all others.
   */
  take(hash: string, now: Date): Promise<SharedImage | null>
  /** The same, and spends nothing. */
  look(hash: string, now: Date): Promise<SharedImage | null>
  /** Forgets links that were over or revoked before `before`. */
  prune(before: Date): Promise<void>
}

/** A window of a limit; `period` is its first moment. */
export type Counter = { name: string; period: Date; count: number }

/** Counts of limits whose windows are days and weeks, which survive a restart. */
export type CountersBook = {
  read(name: string, period: Date): Promise<number>
  /** Adds each `count` to its counter; returns where they stand now. */
  add(counts: Counter[]): Promise<Counter[]>
  /** Forgets the counters of limits whose window began before `before`. */
  prune(before: Date): Promise<void>
}

/** Refusals of one minute, added up. */
export type Denial = {
  /** The first moment of the minute. */
  at: Date
  /** Empty for who has no token that is known. */
  actorId: string
  tokenId: string
  address: string
  action: string
  detail: string
  count: number
}

/** What is looked for in the audit log; an empty text looks for everything. */
export type AuditFilter = {
  actor: string
  /** An action, or what stands before the dot of several. */
  action: string
  /** The beginning of a name or of an object. */
  ref: string
  outcome: AuditOutcome | null
  since: Date
  /** Exclusive. */
  until: Date
}

/** The audit log. What is done is written by the batches that do it (R57); nothing changes a row. */
export type AuditBook = {
  /** Adds to the denials of the same minute, actor, address and action. */
  denied(denials: Denial[]): Promise<void>
  /**
   * The newest first, at most `limit` (up to 1,000). `next` is the `after` of what is older, null when
   * there is no more. No more rows of actor and time are looked at than a request may cost (R56), so a
   * page may be short, or empty, and have a next one.
   */
  list(
    filter: AuditFilter,
    place: { after: string | null; limit: number },
  ): Promise<{ entries: AuditEntry[]; next: string | null }>
  /** Forgets at most `limit` rows from before `before`, and as many beyond the newest `rows`; how many. */
  prune(before: Date, rows: number, limit: number): Promise<number>
}

export type SettingsBook = {
  get(key: string): Promise<string | null>
  /** Sets a value once; returns the value that stands (R10: the registry id). */
  setOnce(key: string, value: string): Promise<string>
  set(key: string, value: string): Promise<void>
}

/** What a registry is made of, in pages, for somebody who takes it elsewhere (R41). */
export type ExportsBook = {
  /** The audit log tells of the export that begins (R41). */
  begin(exportId: string, by: Actor): Promise<void>
  /**
   * Rows of one kind after `after`, in the order of their ids (images in the order they were made),
   * at most `limit`; `next` is what `after` is for the following page, null on the last one. Only
   * images whose bytes are there.
   */
  rows(
    kind: MovedKind,
    after: string,
    limit: number,
  ): Promise<{ rows: MovedRow[]; next: string | null }>
  /** The stored bytes of a digest, live ones before those that are about to go. */
  blob(digest: string): Promise<{ key: string; size: number; live: boolean } | null>
}

/** A row on its way in; `parentId` is the id of the row it belongs to, empty for users and teams. */
export type StagedRow = {
  kind: MovedKind
  id: string
  parentId: string
  name: string
  /** The MovedRow as JSON; of a key also its facts, and the revision that it was merged with, of a manifest what it says. */
  record: string
}

export type StagedBlob = {
  digest: string
  size: number
  /** Null where the registry holds a live blob of that digest. */
  key: string | null
  handle: string | null
  /** Verified and inspected. */
  ready: boolean
}

/** What was found in a staged blob: a SIF, or what repositories have besides; its SHA-512 where that names it. */
export type StagedFacts = (SifFacts | { opaque: true }) & { sha512?: string }

/**
 * Why rows cannot be imported: the entity is in use, its owner is another one, the user of that name
 * is not the same kind of user, the team's name is taken, or the id is.
 */
export type ImportConflict = {
  kind: MovedKind
  name: string
  why: 'holds something' | 'other owner' | 'other user' | 'name taken' | 'id taken'
}

/** Imports are staged here, invisible, until `finish` makes everything visible at once (R42). */
export type ImportsBook = {
  /**
   * Opens an import of that export, or takes up the open one, whose rows are forgotten and whose
   * blobs stay; one that is done is returned as it is.
   */
  open(draft: { id: string; exportId: string; now: Date; expiresAt: Date }): Promise<Import>
  find(id: string): Promise<Import | null>
  /** Those that have not ended, the oldest first, at most 1,000. */
  list(): Promise<OpenImport[]>
  /** Adds rows, replacing those of the same kind and id but pieces; `conflict` unless the import is open. */
  stageRows(id: string, rows: StagedRow[], expiresAt: Date): Promise<void>
  /** Commits the key before the first byte (R21), replacing a former one; `conflict` unless open. */
  stageBlob(
    id: string,
    blob: { digest: string; size: number; blobId: string; key: string | null },
    expiresAt: Date,
  ): Promise<void>
  setHandle(id: string, digest: string, key: string, handle: string): Promise<void>
  /** Notes that the bytes under `key` (null: the live blob's) are verified and what is in them. */
  readyBlob(id: string, digest: string, key: string | null, facts: StagedFacts): Promise<void>
  /** Digests, as OCI writes them, by which repositories of the import have the blob of that SHA-256. */
  stagedNames(id: string, sha256: string): Promise<string[]>
  /** A manifest in several pieces, by container and digest, and those of its pieces that have come, in order. */
  stagedManifest(
    id: string,
    manifest: string,
  ): Promise<{ manifest: Extract<MovedRow, { type: 'manifest' }> | null; pieces: string[] }>
  stagedBlob(id: string, digest: string): Promise<StagedBlob | null>
  /** At most `limit` of what stands in the way; empty when nothing does. */
  conflicts(id: string, limit: number): Promise<ImportConflict[]>
  /**
   * The flip: everything becomes visible in one batch (R8, R42), with guards. Users are known by
   * name, entities likewise while they hold nothing; every other row keeps its id. Quotas hold nobody
   * up. `conflict` when something stands in the way, `unavailable` when bytes are missing, `invalid`
   * when rows contradict each other or are not `rows` in number, `denied` when the writer is no
   * administrator any more. `sameIssuer` says that tokens of the source are valid here; `keepPower`
   * that administrators and staff stay so.
   */
  finish(
    id: string,
    options: {
      sha256: string
      rows: number
      sameIssuer: boolean
      keepPower: boolean
      by: Actor
    },
  ): Promise<void>
  /** What a finished import has made; empty once the sweep has tidied up. */
  report(id: string, options: { now: Date }): Promise<ImportReport>
  /** open → aborted; false if it was not open. */
  abort(id: string, now: Date): Promise<boolean>
  /** Aborts the open imports that have expired; returns their number. */
  expire(now: Date): Promise<number>
  /** Staged keys of imports that ended before `before`; `kept` says that the key became a blob. */
  leftovers(
    before: Date,
    limit: number,
  ): Promise<{ importId: string; key: string; handle: string | null; kept: boolean }[]>
  /** Forgets staged keys, after their bytes are gone or have become blobs. */
  forgetKeys(keys: string[]): Promise<void>
  /** Forgets rows of imports that ended before `before`, and aborted imports without keys. */
  tidy(before: Date): Promise<void>
}

export type Database = {
  catalog: CatalogBook
  uploads: UploadsBook
  blobs: BlobsBook
  signatures: SignaturesBook
  users: UsersBook
  people: PeopleBook
  tokens: TokensBook
  manifests: ManifestsBook
  ociUploads: OciUploadsBook
  teams: TeamsBook
  grants: GrantsBook
  keys: KeysBook
  ended: EndedBook
  quotas: QuotasBook
  popularity: PopularityBook
  shares: SharesBook
  counters: CountersBook
  audit: AuditBook
  settings: SettingsBook
  exports: ExportsBook
  imports: ImportsBook
  /** Answers when the database does; throws otherwise. */
  ping(): Promise<void>
  /** The time by the database's own clock (R43). */
  now(): Promise<Date>
}

// ---------------------------------------------------------------------------------------------
// Small ports

export type TokenVerifier = {
  /**
   * Signature, issuer, audience and times, without the database; null is an explicit rejection.
   * `expired` accepts one that fails for its expiry alone: whoever asks must look at that (R24).
   */
  verify(jwt: string, options?: { expired?: boolean }): Promise<Claims | null>
}

/**
 * A JSON document that another server has at an https address: status 200 without redirects, at most
 * 64 KiB, within 5 s, and from no loopback, private or link-local address unless `allowPrivate` (R55).
 * Everything else throws, with a reason for the log.
 */
export type FetchJson = (url: string, options: { allowPrivate: boolean }) => Promise<unknown>
/** At most `count` times in `seconds` (up to 60); `name` keeps the counts of rules apart. */
export type LimitRule = { name: string; count: number; seconds: number }

export type Taken = {
  allowed: boolean
  /** How often it is still allowed in this window; null where only the platform knows. */
  remaining: number | null
  /** Whole seconds until the window has ended; at most the rule's where only the platform knows. */
  resetSeconds: number
}

/**
 * Counts in windows of up to a minute, which no restart need survive. A refusal counts nothing. It
 * holds a bounded number of counters and forgets the least used ones (R58). Throwing means that it
 * does not know: who asks says whether that is a yes.
 */
export type RateLimiter = { take(key: string, rule: LimitRule): Taken | Promise<Taken> }

export type Clock = { now(): Date }

/** Ids of 24 lower-case hex digits, shaped like the ObjectIDs clients have always seen. */
export type Ids = { next(): string }

export type LogLevel = 'debug' | 'info' | 'warn' | 'error'
export type LogFields = Record<string, string | number | boolean | null | undefined>
export type Log = { event(level: LogLevel, name: string, fields?: LogFields): void }

/** The set of ended ids (R25), as old as a second or so. */
export type Ended = { has(id: string): boolean }

/** Facts about a connection that only the runtime knows. */
export type Peer = {
  /** Address of the socket's other end, or null when unknown. */
  address: string | null
  /** Whether the socket itself is TLS. */
  encrypted: boolean
}
