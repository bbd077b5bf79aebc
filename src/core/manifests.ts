/**
 * OCI manifests: what may be stored, under which tags, and who refers to what. Whatever looks a manifest
 * up goes through `find` (the bridge to library images adds what it makes there).
 */
import { isRegistryError, RegistryError } from '../errors.ts'
import type {
  AskersPull,
  BlobStore,
  Clock,
  Database,
  Log,
  ManifestSelector,
  PullCount,
  RepositoryPath,
  StoredBlob,
  Viewer,
} from '../ports.ts'
import { identify, mayPull, type Access } from './access.ts'
import type { Bridge, Derived } from './bridge.ts'
import { nameOf, writerOf } from './catalog.ts'
import { EMPTY_JSON, IMAGE_TYPE, INDEX_TYPE, sifOf } from './derived.ts'
import { hasher } from './digest.ts'
import type { Claims, Container, Identity, Manifest, ManifestRef } from './model.ts'
import { quote } from './names.ts'
import { checkDigest, isTag, partsOfDigest, type Repositories } from './repositories.ts'

/** Bytes of the largest manifest. */
export const MAX_MANIFEST = 4 * 1024 * 1024
/** Layers of an image, or manifests of an index. */
const MAX_DESCRIPTORS = 1000
/** Deepest nesting of arrays and objects (R54). */
const DEEPEST = 32
/** Values in lists and objects: more than a thousand layers with annotations have. */
const MOST_VALUES = 200_000
/** Characters of the annotations of a manifest that refers to another: they stand in lists. */
const MAX_ANNOTATIONS = 65_536
/** Tags that one request sets, and entries on a page of a list (R54). */
const MAX_TAGS = 100
export const MAX_PAGE = 1000
/** Referrers on a page. */
const REFERRERS = 500

const IMAGES = [IMAGE_TYPE, 'application/vnd.docker.distribution.manifest.v2+json']
const INDEXES = [INDEX_TYPE, 'application/vnd.docker.distribution.manifest.list.v2+json']
/** Layers that are had elsewhere, if at all. */
const ELSEWHERE =
  /^application\/vnd\.(?:oci\.image\.layer\.nondistributable\.v1\.|docker\.image\.rootfs\.foreign\.)/
const CONFIG = new TextEncoder().encode(EMPTY_JSON)
const MEDIA_TYPE = /^[\w!#$&^.+-]{1,127}\/[\w!#$&^.+-]{1,127}$/

export type StoredManifest = Manifest & { text: string | null }

/** A manifest with its repository; `counted` says where the limits stand that counted it. */
type Found = { container: Container; manifest: StoredManifest; counted: PullCount[] }

/** A referrer as lists have it; `annotations` is what its manifest says. */
export type Referrer = Manifest & { annotations: Record<string, string> | null }

/** What is to be mounted: a blob of `from`, or for null of anywhere; of what anybody may read only, or not. */
export type MountSource = { digest: string; from: RepositoryPath | null; publicOnly: boolean }

export type Manifests = ReturnType<typeof createManifests>

const invalid = (why: string) =>
  new RegistryError('invalid', `This manifest cannot be stored: ${why}.`, { subject: 'manifest' })
const unknown = (tag: ManifestSelector) =>
  new RegistryError(
    'not_found',
    `There is no such ${tag.by === 'tag' ? 'tag' : 'manifest'} here.`,
    { subject: 'manifest' },
  )

/** What a manifest says, as far as the registry goes by it. */
export type ParsedManifest = Omit<Manifest, 'digest' | 'size'> & {
  refs: ManifestRef[]
  /** Hex digest of the SIF that it holds; null for all others. */
  sif: string | null
  annotations: string | null
}

/**
 * Reads a manifest (image-spec, manifest.md and image-index.md) that came as `contentType`; null: its
 * own `mediaType` counts. `invalid` for what is none, is called by two names, is an image and an index
 * in one, or is larger than anybody needs.
 */
export function parseManifest(text: string, contentType: string | null): ParsedManifest {
  const much = tooMuch(text)
  if (much !== null) throw invalid(much)
  let document: unknown
  try {
    document = JSON.parse(text)
  } catch {
    throw invalid('it is no JSON')
  }
  if (!isObject(document)) throw invalid('it is no JSON object')
  const { schemaVersion, mediaType: own, config, layers, manifests, subject } = document
  if (own !== undefined && typeof own !== 'string') throw invalid('its mediaType is no text')
  const mediaType = contentType ?? own
  if (mediaType === undefined) throw invalid('it needs a Content-Type')
  if (own !== undefined && own !== mediaType)
    throw invalid(`it calls itself ${quote(own)}, and was sent as ${quote(mediaType)}`)
  const isIndex = INDEXES.includes(mediaType)
  if (!isIndex && !IMAGES.includes(mediaType))
    throw invalid(
      `its type ${quote(mediaType)} is not one of those that are known: ${[...IMAGES, ...INDEXES].join(', ')}`,
    )
  if (schemaVersion !== 2) throw invalid('its schemaVersion is not 2')
  const artifact = document['artifactType']
  if (artifact !== undefined && typeof artifact !== 'string')
    throw invalid('its artifactType is no text')

  const refs: ManifestRef[] = []
  let configType = ''
  let sif: string | null = null
  if (isIndex) {
    if (config !== undefined || layers !== undefined)
      throw invalid('it is an index, and has config or layers as an image has')
    for (const { mediaType: type, ...ref } of descriptors('manifests', manifests))
      refs.push({ kind: [...IMAGES, ...INDEXES].includes(type) ? 'manifest' : 'blob', ...ref })
  } else {
    if (manifests !== undefined) throw invalid('it is an image, and has manifests as an index has')
    const { mediaType: type, ...ref } = descriptor('config', config)
    configType = type
    refs.push({ kind: 'blob', ...ref })
    const all = descriptors('layers', layers)
    sif = sifOf(all)
    for (const { mediaType: layer, ...layerRef } of all)
      if (!ELSEWHERE.test(layer)) refs.push({ kind: 'blob', ...layerRef })
  }
  const annotations = textsOf(document['annotations'])
  const of = subject === undefined || subject === null ? null : descriptor('subject', subject)
  const listed = of === null || annotations === null ? null : JSON.stringify(annotations)
  if ((listed?.length ?? 0) > MAX_ANNOTATIONS)
    throw invalid(
      `it refers to another manifest, and its annotations are larger than ${MAX_ANNOTATIONS} characters`,
    )
  return {
    mediaType,
    subject: of?.digest ?? null,
    artifactType: artifact || configType,
    refs: distinct(refs),
    sif,
    annotations: listed,
  }
}

type Descriptor = { mediaType: string; digest: string; size: number }

function descriptors(name: string, value: unknown): Descriptor[] {
  if (!Array.isArray(value)) throw invalid(`its ${name} are no list`)
  if (value.length > MAX_DESCRIPTORS)
    throw invalid(`it has ${value.length} ${name}, and at most ${MAX_DESCRIPTORS} are allowed`)
  return value.map((one, at) => descriptor(`${name}[${at}]`, one))
}

function descriptor(name: string, value: unknown): Descriptor {
  if (!isObject(value)) throw invalid(`its ${name} is no descriptor`)
  const { mediaType, digest, size } = value
  if (typeof mediaType !== 'string' || !MEDIA_TYPE.test(mediaType))
    throw invalid(`its ${name} has no mediaType`)
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0)
    throw invalid(`its ${name} has no size`)
  if (typeof digest !== 'string') throw invalid(`its ${name} has no digest`)
  try {
    return { mediaType, digest: checkDigest(digest), size }
  } catch {
    throw invalid(`its ${name} has a digest that is none, or of another algorithm`)
  }
}

/** One of each; the same digest in two sizes is `invalid`. */
function distinct(refs: readonly ManifestRef[]): ManifestRef[] {
  const known = new Map<string, ManifestRef>()
  for (const ref of refs) {
    const name = `${ref.kind} ${ref.digest}`
    if ((known.get(name)?.size ?? ref.size) !== ref.size)
      throw invalid(`it names ${ref.digest} in two sizes`)
    known.set(name, ref)
  }
  return [...known.values()]
}

function textsOf(value: unknown): Record<string, string> | null {
  if (value === undefined || value === null) return null
  if (!isObject(value) || !Object.values(value).every((one) => typeof one === 'string'))
    throw invalid('its annotations are no texts')
  return value as Record<string, string>
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** Why a text is not even parsed: its brackets are nested too deep, or it has too many values (R54). */
function tooMuch(text: string): string | null {
  let level = 0
  let commas = 0
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === 0x22) {
      // over a text, to the quote that no backslash takes away
      for (at++; at < text.length && text.charCodeAt(at) !== 0x22; at++)
        if (text.charCodeAt(at) === 0x5c) at++
    } else if (code === 0x5b || code === 0x7b) {
      if (++level > DEEPEST) return `it is nested deeper than ${DEEPEST} levels`
    } else if (code === 0x5d || code === 0x7d) level--
    else if (code === 0x2c && ++commas >= MOST_VALUES)
      return `it has more than ${MOST_VALUES} values`
  }
  return null
}

/** What a reference of a manifest's address names: a digest has a colon, a tag cannot. */
export function parseReference(reference: string): ManifestSelector {
  return reference.includes(':')
    ? { by: 'digest', digest: checkDigest(reference) }
    : { by: 'tag', tag: reference }
}

export function createManifests(deps: {
  database: Database
  blobs: BlobStore
  clock: Clock
  access: Access
  repositories: Repositories
  bridge: Bridge
  defaultQuota?: number | null
  ociReferrers?: 'keep' | 'delete'
  log?: Log
}) {
  const { database, blobs, clock, access, repositories, bridge, log } = deps
  const { defaultQuota = null } = deps
  const withReferrers = deps.ociReferrers === 'delete'
  const { manifests } = database
  const { seen, pushed } = repositories

  /** The one way to a manifest: what is stored, and what is made of images. */
  async function find(
    path: RepositoryPath,
    selector: ManifestSelector,
    claims: Claims | null,
    options: { text: boolean; pull?: AskersPull | null },
    action: 'download' | 'delete' = 'download',
  ): Promise<Found & { identity: Identity; derived: Derived | null }> {
    const { container, identity, ...found } = await seen(claims, action, (viewer, now) =>
      manifests.manifest(path, selector, viewer, now, options),
    )
    // what is deleted by its digest may be both
    const ask = found.manifest === null || (action === 'delete' && selector.by === 'digest')
    const derived = ask ? await bridge.derive(container, selector, found.images) : null
    const manifest = found.manifest ?? derived
    if (manifest === null) throw unknown(selector)
    const text = options.text ? manifest.text : null
    const { counted } = found
    return { container, identity, manifest: { ...manifest, text }, derived, counted }
  }

  /** What a manifest names and the repository has not; images' manifests are noted for it where they were not. */
  async function lackingOf(
    container: Container,
    refs: readonly ManifestRef[],
  ): Promise<Awaited<ReturnType<typeof manifests.lacking>>> {
    const lacking = await manifests.lacking(container.id, refs)
    if (!lacking.some(({ kind }) => kind === 'manifest') || !(await bridge.noted(container)))
      return lacking
    return manifests.lacking(container.id, refs)
  }

  /** A blob whose bytes are there; the next push of it heals what has lost them (R60). */
  async function held(blob: StoredBlob | null): Promise<StoredBlob | null> {
    if (blob === null || (await blobs.head(blob.key))?.size === blob.size) return blob
    await database.catalog.markLost(blob.key)
    return null
  }

  return {
    /**
     * A manifest by tag or digest; `text` null where only its facts were asked for. With `pull` it counts
     * by the limits of a week; whether one is full is said only to who may have it (R28).
     */
    async get(
      path: RepositoryPath,
      selector: ManifestSelector,
      claims: Claims | null,
      options: { text: boolean; pull?: AskersPull | null },
    ): Promise<Found> {
      return find(path, selector, claims, options)
    },

    /** A blob that the repository has (R31); `bytes` where it is the config of its images. */
    async blob(
      path: RepositoryPath,
      digest: string,
      claims: Claims | null,
    ): Promise<StoredBlob | { size: number; bytes: Uint8Array<ArrayBuffer> }> {
      const { blob, config } = await seen(claims, 'download', (viewer, now) =>
        manifests.member(path, digest, viewer, now),
      )
      const present = await held(blob)
      if (present === null && config) return { size: CONFIG.length, bytes: CONFIG }
      if (present === null)
        throw new RegistryError('not_found', 'There is no such blob here.', { subject: 'blob' })
      return present
    },

    /**
     * Stores a manifest of at most MAX_MANIFEST bytes under its digest, and under tags: those named, and
     * the selector's. What it is of SIFs, the library has under the same tags from then on. Returns its
     * digest, and that of its subject.
     */
    async put(
      path: RepositoryPath,
      selector: ManifestSelector,
      sent: { bytes: Uint8Array; contentType: string | null; tags: readonly string[] },
      claims: Claims | null,
    ): Promise<{ digest: string; subject: string | null }> {
      const tags = [...new Set(selector.by === 'tag' ? [selector.tag, ...sent.tags] : sent.tags)]
      for (const tag of tags)
        if (!isTag(tag))
          throw new RegistryError(
            'invalid',
            `The tag ${quote(tag)} is not allowed: use at most 128 letters, digits, dots, dashes and underscores.`,
            { subject: 'tag' },
          )
      if (tags.length > MAX_TAGS)
        throw new RegistryError('invalid', `At most ${MAX_TAGS} tags are set at once.`, {
          subject: 'tag',
        })
      const { algorithm, hex } = partsOfDigest(
        selector.by === 'digest' ? selector.digest : 'sha256',
      )
      const hash = hasher(algorithm)
      hash.update(sent.bytes)
      const digest = `${algorithm}:${hash.hex()}`
      if (selector.by === 'digest' && hash.hex() !== hex)
        throw new RegistryError(
          'digest_mismatch',
          `The manifest that arrived is ${digest}, not ${selector.digest}.`,
          { subject: 'manifest' },
        )
      const text = textOf(sent.bytes)
      const { refs, ...parsed } = parseManifest(text, sent.contentType)
      const { container, writer } = await pushed(path, claims)
      const [lacking] = await lackingOf(container, refs)
      if (lacking !== undefined && lacking.size !== null)
        throw invalid(`${lacking.digest} has ${lacking.size} bytes, which is not what it says`)
      if (lacking !== undefined)
        throw new RegistryError(
          'invalid',
          `This manifest names ${lacking.digest}, which this repository does not have; push that first.`,
          { subject: 'blob', detail: { digest: lacking.digest } },
        )
      const of = { ...parsed, refs }
      const library = await bridge.inLibrary(path, container, of, tags, claims, writer)
      const manifest = { ...parsed, digest, size: sent.bytes.length, text }
      const change = { containerId: container.id, manifest, refs, tags, library, writer }
      const put = async () => {
        const { policy } = await manifests.put(change)
        if (policy === 'warn' && library.images.length === 0)
          log?.event('warn', 'policy.unmet', {
            container: nameOf(container),
            manifest: digest,
            verdict: 'unsigned',
            why: 'it is no SIF image',
          })
      }
      await bridge.admitted(library.images, put).catch(async (error: unknown) => {
        // repeating what a frozen tag names is success
        const [tag] = tags
        const frozen = isRegistryError(error, 'denied') && error.subject === 'tag'
        if (!frozen || tag === undefined || tags.length > 1) throw error
        const named = { by: 'tag', tag } as const
        const now = await find(path, named, claims, { text: false }).catch(() => null)
        if (now?.manifest.digest !== digest) throw error
      })
      return { digest, subject: parsed.subject }
    },

    /** Deletes a tag on both sides, or a manifest with its tags, and its referrers where `ociReferrers` says so. */
    async remove(
      path: RepositoryPath,
      selector: ManifestSelector,
      claims: Claims | null,
    ): Promise<void> {
      const found = await find(path, selector, claims, { text: false }, 'delete')
      const { container, identity, derived } = found
      const what = selector.by === 'tag' ? selector : { ...selector, derived: derived?.of ?? null }
      const writer = writerOf(identity, clock)
      if (!(await manifests.remove(container.id, what, writer, { withReferrers })))
        throw unknown(selector)
    },

    async removeBlob(path: RepositoryPath, digest: string, claims: Claims | null): Promise<void> {
      const { container, identity } = await seen(claims, 'delete', (viewer, now) =>
        manifests.member(path, digest, viewer, now),
      )
      // what only an image has is refused by the same guard
      if (!(await manifests.removeMember(container.id, digest, writerOf(identity, clock))))
        throw new RegistryError('not_found', 'There is no such blob here.', { subject: 'blob' })
    },

    /**
     * Makes a blob that the asker can read elsewhere one of this repository: of `from`, or for null of
     * anywhere. False when there is none, whatever the reason (R31).
     */
    async mount(
      path: RepositoryPath,
      { digest, from, publicOnly }: MountSource,
      claims: Claims | null,
    ): Promise<boolean> {
      const { container, writer, identity } = await pushed(path, claims)
      if (!mayPull(identity) || (publicOnly && !access.rules.anonymousPull)) return false
      const viewer = publicOnly ? null : claims
      const blob = await held(await manifests.readableMember(digest, from, viewer, writer.now))
      if (blob === null) return false
      const change = { containerId: container.id, digest, blobId: blob.id, defaultQuota, writer }
      return manifests.mount(change)
    },

    /** Tags in order after `after`, at most `limit`; `more` says that there are others behind them. */
    async tags(
      path: RepositoryPath,
      { after, limit }: { after: string; limit: number },
      claims: Claims | null,
    ): Promise<{ tags: string[]; more: boolean }> {
      const most = Math.min(limit, MAX_PAGE)
      const { tags } = await seen(claims, 'download', (viewer: Viewer, now) =>
        manifests.tags(path, { after, limit: most + 1 }, viewer, now),
      )
      return { tags: tags.slice(0, most), more: most > 0 && tags.length > most }
    },

    /**
     * Manifests whose subject is this digest, whether that is there or not. A repository that does not
     * exist, or is hidden, has none (the spec knows no 404 here, R31).
     */
    async referrers(
      path: RepositoryPath,
      subject: string,
      page: { after: string; artifactType: string | null },
      claims: Claims | null,
    ): Promise<{ referrers: Referrer[]; more: boolean }> {
      try {
        const found = await seen(claims, 'download', (viewer, now) =>
          manifests.referrers(path, subject, { ...page, limit: REFERRERS }, viewer, now),
        )
        const referrers = found.manifests.map(({ annotations, ...manifest }) => ({
          ...manifest,
          annotations:
            annotations === null ? null : (JSON.parse(annotations) as Record<string, string>),
        }))
        return { referrers, more: found.more }
      } catch (error) {
        if (error instanceof RegistryError && error.code === 'not_found')
          return { referrers: [], more: false }
        throw error
      }
    },

    /** Names of the repositories that the asker can see, in order after `after`. */
    async repositories(
      { after, limit }: { after: string; limit: number },
      claims: Claims | null,
    ): Promise<{ names: string[]; more: boolean }> {
      const most = Math.min(limit, MAX_PAGE)
      const { standing, value } = await manifests.repositories(
        { after, limit: most + 1 },
        claims,
        clock.now(),
      )
      access.authorise(identify(claims, standing), 'see', {
        subject: 'container',
        level: 0,
        private: false,
      })
      return { names: value.slice(0, most), more: most > 0 && value.length > most }
    },
  }
}

/** The text of a manifest, from which the same bytes come again. */
function textOf(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw invalid('it is no UTF-8')
  }
}
