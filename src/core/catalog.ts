/** Entities to tags: find, create, tag, delete, search. Every method asks `authorise` first. */
import { isRegistryError, RegistryError } from '../errors.ts'
import type {
  Actor,
  Below,
  BlobStore,
  Clock,
  Database,
  Ids,
  ImageSelector,
  LookupPath,
  PullCount,
  PullLimits,
  Seen,
  Writer,
} from '../ports.ts'
import { absent, identify, manages, mayPull, type Access } from './access.ts'
import type {
  Claims,
  Collection,
  Container,
  Entity,
  FoundImage,
  Identity,
  Image,
  Level,
  Tag,
} from './model.ts'
import { derivedHex } from './derived.ts'
import { checkName, type NameKind } from './names.ts'
import { parseHash, type Ref } from './ref.ts'
import { createVerdicts, isPending } from './verdicts.ts'

/** The arch that a request without one means: clients before 3.3 send none. */
export const DEFAULT_ARCH = 'amd64'
/** Images that one search answers with at most (R54). */
const SEARCH_LIMIT = 1000
const MAX_TERMS = 8
const SHORTEST_TERM = 3

type Deps = {
  database: Database
  blobs: BlobStore
  clock: Clock
  ids: Ids
  access: Access
  /** Bytes that entities without a quota of their own may take; null or absent is no limit. */
  defaultQuota?: number | null
}

/** Returns a name, or throws `invalid`: OCI has a grammar of its own. */
export type CheckName = (kind: NameKind, name: string) => string

export type Catalog = ReturnType<typeof createCatalog>

/** The facts `authorise` needs about a container, and about everything inside it. */
export const containerFacts = (
  subject: 'container' | 'image' | 'tag',
  of: {
    level: Level
    containerPrivate: boolean
    collectionPrivate: boolean
    collectionId: string
    containerId: string
  },
) => ({
  subject,
  level: of.level,
  private: of.containerPrivate || of.collectionPrivate,
  collectionId: of.collectionId,
  containerId: of.containerId,
})

/** The facts about a collection. */
export const collectionFacts = (of: Collection) => ({
  subject: 'collection' as const,
  level: of.level,
  private: of.private,
  collectionId: of.id,
})

/** The facts about an entity; `private` unless the asker can see something in it. */
export const entityFacts = (identity: Identity, entity: Entity, visible: boolean) => ({
  subject: 'entity' as const,
  level:
    identity.kind === 'user' && identity.userId === entity.ownerId ? (3 as const) : (0 as const),
  private: !visible,
})

/** The facts about a container that was found as one. */
export const factsOfContainer = (container: Container) =>
  containerFacts('container', {
    ...container,
    containerPrivate: container.private,
    containerId: container.id,
  })

export const nameOf = (image: Image | Container): string =>
  'containerName' in image
    ? `${image.entityName}/${image.collectionName}/${image.containerName}`
    : `${image.entityName}/${image.collectionName}/${image.name}`

/** Who makes a change, as the guards of a batch and its audit row want it. */
export function actorOf(identity: Identity, clock: Clock): Actor {
  return identity.kind === 'operator'
    ? { operator: identity.name, now: clock.now() }
    : writerOf(identity, clock)
}

/** The writing user as the guards of a batch want it. */
export function writerOf(identity: Identity, clock: Clock): Writer {
  if (identity.kind !== 'user') throw new Error('authorise lets nobody else write here')
  const { userId, tokenId, admin, manages, address } = identity
  return { userId, tokenId, admin, manages, address, now: clock.now() }
}

/** "No description" is what clients send when their user said nothing. */
const described = (text: string) => (/^no description$/i.test(text.trim()) ? '' : text)

/** An image whose bytes are here. */
type Present = Image & { blob: { key: string; size: number } }
const isPresent = (image: Image): image is Present => image.blob !== null

export const selectorOf = (
  { selector }: Pick<Ref, 'selector'>,
  arch: string | null,
): ImageSelector =>
  selector.kind === 'tag'
    ? { by: 'tag', tag: selector.tag, arch: arch ?? DEFAULT_ARCH }
    : { by: 'digest', digest: selector.digest }

export function createCatalog(deps: Deps) {
  const { database, blobs, clock, ids, access, defaultQuota = null } = deps
  const { catalog } = database
  const { authorise, decide, rules } = access
  const verdicts = createVerdicts({ database, clock })

  /** Reads with the claims as viewer and turns claims and standing into the identity. */
  async function look<T>(
    claims: Claims | null,
    read: (viewer: Claims | null, now: Date) => Promise<Seen<T>>,
  ): Promise<{ identity: Identity; value: T }> {
    const { standing, value } = await read(claims, clock.now())
    return { identity: identify(claims, standing), value }
  }

  /** The image that was found, if the asker may do this with it. */
  async function present(
    { selector }: Ref,
    { identity, value }: { identity: Identity; value: Image | null },
    action: 'see' | 'download',
  ): Promise<Present> {
    if (value === null || !isPresent(value)) {
      authorise(identity, action, null)
      throw absent('image')
    }
    authorise(identity, action, containerFacts('image', value), nameOf(value))
    if (selector.kind === 'digest' && identity.kind === 'user' && !(await holds(value.blob)))
      throw absent('image')
    return value
  }

  /**
   * Throws for a tag that names an OCI image, to who may see it: in the words that make SingularityCE
   * from 4.1 on pull it by OCI (protocol.md §3.5).
   */
  function refuseOther(
    { selector }: Ref,
    identity: Identity,
    elsewhere: Container | null,
    action: 'see' | 'download',
  ): void {
    if (elsewhere === null || selector.kind !== 'tag') return
    if (decide(identity, action, factsOfContainer(elsewhere)) !== 'allow') return
    throw new RegistryError(
      'invalid',
      `This tag names an OCI image (application/vnd.oci.image.config.v1+json), which is no SIF: pull it as docker://HOST/${nameOf(elsewhere)}:${selector.tag}.`,
      { subject: 'image' },
    )
  }

  return {
    /** The entities of the asking user; nothing for nobody. */
    async ownEntities(claims: Claims | null): Promise<(Entity & { overseen: boolean })[]> {
      if (claims === null) return []
      const { identity, value } = await look(claims, (_, now) => catalog.ownEntities(claims, now))
      return value.map((entity) => withLimit(identity, entity, true))
    },

    /** `not_found` when it does not exist, or has nothing that the asker may see. */
    async entity(
      name: string,
      claims: Claims | null,
    ): Promise<{ entity: Entity & { overseen: boolean }; below: Below }> {
      const { identity, value } = await look(claims, (viewer, now) =>
        catalog.findEntity(name, viewer, now),
      )
      authorise(
        identity,
        'see',
        value === null ? null : entityFacts(identity, value.entity, value.below.ids.length > 0),
        '',
        'entity',
      )
      if (value === null) throw absent('entity')
      const { entity, below } = value
      return { entity: withLimit(identity, entity, below.ids.length > 0), below }
    },

    async collection(
      entity: string,
      name: string,
      claims: Claims | null,
    ): Promise<{ collection: Collection; below: Below }> {
      const { identity, value } = await look(claims, (viewer, now) =>
        catalog.findCollection(entity, name, viewer, now),
      )
      const facts = value === null ? null : collectionFacts(value.collection)
      authorise(identity, 'see', facts, '', 'collection')
      if (value === null) throw absent('collection')
      return value
    },

    async container(
      path: LookupPath,
      claims: Claims | null,
    ): Promise<{ container: Container; below: Below; tags: Tag[] }> {
      const { identity, value } = await look(claims, (viewer, now) =>
        catalog.findContainer(path, viewer, now),
      )
      const facts = value === null ? null : factsOfContainer(value.container)
      authorise(identity, 'see', facts, '', 'container')
      if (value === null) throw absent('container')
      return value
    },

    /**
     * An image with bytes. By hash, the way a push asks before it uploads, the bytes are looked
     * for as well: a row whose object is gone would make the loss permanent (R60).
     */
    async image(
      ref: Ref,
      arch: string | null,
      claims: Claims | null,
      action: 'see' | 'download' = 'see',
    ): Promise<Present> {
      const select = selectorOf(ref, arch)
      const found = await catalog.findImage(ref.path, select, claims, clock.now())
      const identity = identify(claims, found.standing)
      refuseOther(ref, identity, found.elsewhere, action)
      return present(ref, { identity, value: found.value }, action)
    },

    /**
     * An image for download, counted by the limits of `week`; whether one of them is full is said
     * only to who may have the image (R28).
     */
    async pull(
      ref: Ref,
      arch: string | null,
      claims: Claims | null,
      week: PullLimits & { counts: boolean },
    ): Promise<Present & { counted: PullCount[] }> {
      const select = selectorOf(ref, arch)
      const found = await catalog.pullImage(ref.path, select, claims, clock.now(), week)
      const identity = identify(claims, found.standing)
      refuseOther(ref, identity, found.elsewhere, 'download')
      const { image, counted } = found.value
      return { ...(await present(ref, { identity, value: image }, 'download')), counted }
    },

    async createEntity(
      body: { name: string; description: string },
      claims: Claims | null,
    ): Promise<Entity> {
      const name = checkName('entity', body.name)
      const { identity, value } = await look(claims, (viewer, now) =>
        catalog.entityParent(name, viewer, now),
      )
      // the parent is the registry itself: a user may make the entity of their own name only
      const mine =
        identity.kind === 'user' && identity.userName === name && identity.role !== 'robot'
      const ownerId = identity.kind === 'user' ? identity.userId : ''
      authorise(
        identity,
        'create',
        { subject: 'entity', level: mine ? 3 : 0, private: false },
        `the entity ${name}`,
      )
      const owner = value.user?.id ?? ownerId
      const { row } = await catalog.createEntity({
        id: ids.next(),
        name,
        description: described(body.description),
        ownerId: owner,
        writer: writerOf(identity, clock),
      })
      // R26: it may be there, somebody else's, and not to be seen
      if (row.ownerId !== owner && !manages(identity))
        throw new RegistryError('conflict', `The name ${name} is taken.`, { subject: 'entity' })
      return row
    },

    async createCollection(
      body: { name: string; description: string; entity: string; private: boolean },
      claims: Claims | null,
      check: CheckName = checkName,
    ): Promise<Collection> {
      const name = check('collection', body.name)
      const { identity, value } = await look(claims, (viewer, now) =>
        catalog.entityById(body.entity, viewer, now),
      )
      // a stranger who knows the id could see the entity by its name, or it has nothing to see
      authorise(
        identity,
        'found',
        value === null ? null : entityFacts(identity, value, value.visible),
        value === null ? '' : `the entity ${value.name}`,
        'entity',
      )
      if (value === null) throw absent('entity')
      const { row } = await catalog.createCollection({
        id: ids.next(),
        name,
        description: described(body.description),
        entityId: value.id,
        // R15: every create body carries "private":false as a zero value
        private: body.private || value.defaultPrivate || rules.defaultPrivate || rules.privateOnly,
        limit: manages(identity) ? null : rules.userCollectionLimit,
        writer: writerOf(identity, clock),
      })
      return row
    },

    async createContainer(
      body: { name: string; description: string; collection: string; private: boolean },
      claims: Claims | null,
      check: CheckName = checkName,
    ): Promise<Container> {
      const name = check('container', body.name)
      const { identity, value } = await look(claims, (viewer, now) =>
        catalog.collectionById(body.collection, viewer, now),
      )
      authorise(
        identity,
        'create',
        value === null ? null : collectionFacts(value),
        value === null ? '' : `the collection ${value.entityName}/${value.name}`,
        'collection',
      )
      if (value === null) throw absent('collection')
      const { row } = await catalog.createContainer({
        id: ids.next(),
        name,
        description: described(body.description),
        collectionId: value.id,
        private: body.private,
        writer: writerOf(identity, clock),
      })
      return row
    },

    /**
     * Makes the image's record, or returns the one that is there. When the asker can already read
     * an image of the same hash, its bytes are used and the upload is skipped (R8, R29).
     */
    async createImage(
      body: { hash: string; description: string; container: string },
      claims: Claims | null,
    ): Promise<Image> {
      const digest = parseHash(body.hash)
      const { identity, value } = await look(claims, (viewer, now) =>
        catalog.containerById(body.container, viewer, now),
      )
      authorise(
        identity,
        'push',
        value === null ? null : factsOfContainer(value),
        value === null ? '' : nameOf(value),
        'container',
      )
      if (value === null) throw absent('container')
      const writer = writerOf(identity, clock)
      const { row } = await catalog.createImage({
        id: ids.next(),
        digest,
        description: described(body.description),
        containerId: value.id,
        writer,
      })
      if (row.uploaded && row.blob !== null)
        return (await holds(row.blob)) ? row : { ...row, uploaded: false, blob: null }
      // R8: a copy gives the bytes away, so a token that may not have them copies what is public only
      const viewer = mayPull(identity) ? claims : null
      const known = await catalog.readableBlob(digest, viewer, writer.now)
      if (known === null || !(await holds(known))) return row
      try {
        await verdicts.admitted(row.id, () =>
          catalog.attach({
            imageId: row.id,
            digest,
            size: known.size,
            defaultQuota,
            facts: null,
            manifest: derivedHex(row.containerName, { digest, size: known.size }),
            writer,
            source: { kind: 'blob', blobId: known.id },
          }),
        )
      } catch (error) {
        // the copy went in this very moment, or nobody has looked at its signatures: the client
        // uploads, as if it had never been there
        if (isRegistryError(error, 'conflict') || isPending(error)) return row
        throw error
      }
      return { ...row, uploaded: true, blob: { key: known.key, size: known.size } }
    },

    async tags(containerId: string, claims: Claims | null): Promise<Tag[]> {
      const { identity, value } = await look(claims, (viewer, now) =>
        catalog.listTags(containerId, viewer, now),
      )
      const facts = value === null ? null : factsOfContainer(value.container)
      authorise(identity, 'see', facts, '', 'container')
      if (value === null) throw absent('container')
      return value.tags
    },

    /** Points tags at an image of this container (R16). `arch` null means the image's own. */
    async setTag(
      containerId: string,
      change: { arch: string | null; tag: string; imageId: string },
      claims: Claims | null,
    ): Promise<void> {
      const tag = checkName('tag', change.tag)
      const { identity, value } = await look(claims, (viewer, now) =>
        catalog.taggable(containerId, change.imageId, viewer, now),
      )
      authorise(
        identity,
        'push',
        value === null ? null : factsOfContainer(value.container),
        value === null ? '' : nameOf(value.container),
        'container',
      )
      if (value === null) throw absent('container')
      const { image } = value
      if (image === null) throw absent('image')
      const { arch } = image
      if (change.arch !== null && arch !== 'unknown' && arch !== change.arch)
        throw new RegistryError(
          'conflict',
          `The image file was built for ${arch}, so it cannot be tagged "${tag}" for ${change.arch}.`,
          { subject: 'tag' },
        )
      await verdicts.admitted(change.imageId, () =>
        catalog.setTag({ ...change, containerId, tag, writer: writerOf(identity, clock) }),
      )
    },

    /** By tag: that tag of that arch, and the image with its last tag. By hash: all of it. */
    async deleteImage(ref: Ref, arch: string | null, claims: Claims | null): Promise<void> {
      const { selector } = ref
      const { identity, value } = await look(claims, (viewer, now) =>
        catalog.findImage(ref.path, selectorOf(ref, arch), viewer, now),
      )
      authorise(
        identity,
        'delete',
        value === null ? null : containerFacts('image', value),
        value === null ? '' : nameOf(value),
      )
      if (value === null) throw absent('image')
      const writer = writerOf(identity, clock)
      const deleted =
        selector.kind === 'tag'
          ? await catalog.deleteTag(value.containerId, arch ?? DEFAULT_ARCH, selector.tag, writer)
          : await catalog.deleteImage({ imageId: value.id, containerId: value.containerId }, writer)
      if (!deleted) throw absent('image')
    },

    /** With everything in it; `denied` when it, or a tag in it, is frozen. */
    async deleteContainer(path: LookupPath, claims: Claims | null): Promise<void> {
      const { identity, value } = await look(claims, (viewer, now) =>
        catalog.findContainer(path, viewer, now),
      )
      const facts = value === null ? null : factsOfContainer(value.container)
      const name = value === null ? '' : nameOf(value.container)
      authorise(identity, 'delete', facts, name, 'container')
      if (value === null) throw absent('container')
      const deleted = await catalog.deleteContainer(value.container.id, actorOf(identity, clock))
      if (!deleted) throw absent('container')
    },

    /** With everything in it and all that was granted there; likewise. */
    async deleteCollection(entity: string, name: string, claims: Claims | null): Promise<void> {
      const { identity, value } = await look(claims, (viewer, now) =>
        catalog.findCollection(entity, name, viewer, now),
      )
      const facts = value === null ? null : collectionFacts(value.collection)
      authorise(identity, 'delete', facts, `the collection ${entity}/${name}`, 'collection')
      if (value === null) throw absent('collection')
      const deleted = await catalog.deleteCollection(value.collection.id, actorOf(identity, clock))
      if (!deleted) throw absent('collection')
    },

    /** Images whose names, tags, description or label values hold the text, without case. */
    async search(
      query: { value: string; arch: string[]; signed: boolean },
      claims: Claims | null,
    ): Promise<{ images: FoundImage[]; cut: boolean; terms: string[] }> {
      const terms = searchTerms(query.value)
      const { identity, value } = await look(claims, (viewer, now) =>
        catalog.search(
          { terms, arch: query.arch, signed: query.signed, limit: SEARCH_LIMIT },
          viewer,
          now,
        ),
      )
      authorise(identity, 'see', { subject: 'image', level: 0, private: false })
      return { ...value, terms }
    },
  }

  /** With the quota that holds for it, and whether the asker may know how it stands with that (R27). */
  function withLimit(identity: Identity, entity: Entity, visible: boolean) {
    const overseen = decide(identity, 'oversee', entityFacts(identity, entity, visible)) === 'allow'
    return { ...entity, quota: entity.quota ?? defaultQuota, overseen }
  }

  /** True when the store has the object in its full size; marks the row as lost when not (R60). */
  async function holds(blob: { key: string; size: number }): Promise<boolean> {
    const info = await blobs.head(blob.key)
    if (info?.size === blob.size) return true
    await catalog.markLost(blob.key)
    return false
  }
}

/**
 * Words of at least 3 characters, all of which must occur; a text of short words only is taken as
 * a whole. `invalid` below 3 characters, as clients check themselves.
 */
function searchTerms(value: string): string[] {
  // the full-text parser ends a quoted string at a NUL
  const text = value.replace(/\p{Cc}+/gu, ' ').trim()
  if (text.length < SHORTEST_TERM)
    throw new RegistryError('invalid', 'Search for at least 3 characters.', { subject: 'request' })
  if (text.length > 256)
    throw new RegistryError('invalid', 'Search for at most 256 characters.', { subject: 'request' })
  const words = text.split(/\s+/).filter((word) => word.length >= SHORTEST_TERM)
  if (words.length > MAX_TERMS)
    throw new RegistryError('invalid', `Search for at most ${MAX_TERMS} words.`, {
      subject: 'request',
    })
  return words.length > 0 ? words : [text]
}
