/**
 * SIF images on both sides (docs/oci.md, "The bridge"): what a manifest is when nobody has pushed one,
 * and an image of the library for every SIF that OCI brings. Bytes become an image's by `attach` only (R8).
 */
import { isRegistryError, RegistryError } from '../errors.ts'
import type {
  BlobStore,
  BridgedImage,
  Clock,
  Database,
  Log,
  ManifestSelector,
  RepositoryPath,
  Writer,
} from '../ports.ts'
import { nameOf, type Catalog } from './catalog.ts'
import { derivedHex, derivedIndex, derivedManifest, type DerivedManifest } from './derived.ts'
import type { Claims, Container, ManifestRef } from './model.ts'
import { isName, isTagName } from './names.ts'
import { inspectBlob } from './uploads.ts'
import { createVerdicts, warnUnmet } from './verdicts.ts'

/** A manifest made of images, and of which images (and tags, where it is an index). */
export type Derived = DerivedManifest & { of: { images: string[]; tags: string[] | null } }

export type Bridge = ReturnType<typeof createBridge>

/** The library can name the container: deeper names are OCI's alone. */
const isShared = ({ collectionName, name }: Container) => isName(collectionName) && isName(name)

export function createBridge(deps: {
  database: Database
  blobs: BlobStore
  clock: Clock
  catalog: Catalog
  defaultQuota?: number | null
  /** False where CPU is too short to look at signatures: their verdict is `pending` (R52). */
  checkSignatures?: boolean
  log?: Log
}) {
  const { database, blobs, clock, catalog } = deps
  const { defaultQuota = null, checkSignatures = true } = deps
  const { manifests } = database
  const verdicts = createVerdicts(deps)

  const indexOf = ({ name }: Container, images: BridgedImage[], tag: string): Derived => ({
    ...derivedIndex(name, images),
    of: { images: images.map(({ id }) => id), tags: [tag] },
  })
  const manifestOf = ({ name }: Container, image: BridgedImage): Derived => ({
    ...derivedManifest(name, image),
    of: { images: [image.id], tags: null },
  })

  /** The manifest that these images of a container are by this name, if any. */
  async function derive(
    container: Container,
    selector: ManifestSelector,
    images: BridgedImage[],
  ): Promise<Derived | null> {
    const [first] = images
    if (selector.by === 'tag') {
      if (first === undefined) return null
      return images.length === 1
        ? manifestOf(container, first)
        : indexOf(container, images, selector.tag)
    }
    const { digest } = selector
    for (const image of images) {
      const manifest = manifestOf(container, image)
      if (manifest.digest === digest) return manifest
    }
    if (!digest.startsWith('sha256:')) return null
    const indexes = await manifests.indexed(container.id)
    const found = indexes
      .map((tag) => indexOf(container, tag.images, tag.tag))
      .filter((index) => index.digest === digest)
    const [index] = found
    if (index === undefined) return null
    const tags = found.flatMap(({ of }) => of.tags ?? [])
    return { ...index, of: { ...index.of, tags } }
  }

  /** The image of a SIF whose blob the repository has; made, looked at and attached where it is not there. */
  async function imageOf(
    path: RepositoryPath,
    container: Container,
    sif: string,
    claims: Claims | null,
    writer: Writer,
  ): Promise<string> {
    const draft = { hash: `sha256.${sif}`, description: '', container: container.id }
    const image = await catalog.createImage(draft, claims)
    if (image.uploaded) return image.id
    const { value } = await manifests.member(path, `sha256:${sif}`, claims, clock.now())
    const blob = value?.blob ?? null
    if (blob === null || (await blobs.head(blob.key))?.size !== blob.size) {
      // the next push of it heals what has lost its bytes (R60)
      if (blob !== null) await database.catalog.markLost(blob.key)
      throw new RegistryError(
        'invalid',
        `This manifest names sha256:${sif}, whose bytes have gone; push that first.`,
        { subject: 'blob' },
      )
    }
    const { size } = blob
    const facts = await inspectBlob(blobs, blob.key, size, { check: checkSignatures }).catch(
      (error: unknown) => {
        if (!isRegistryError(error, 'invalid')) throw error
        throw new RegistryError('invalid', error.message, { subject: 'manifest', cause: error })
      },
    )
    await verdicts.admitted(
      image.id,
      (judged) =>
        database.catalog.attach({
          imageId: image.id,
          digest: sif,
          size,
          defaultQuota,
          facts,
          judged,
          manifest: derivedHex(container.name, { digest: sif, size }),
          writer,
          source: { kind: 'member', blobId: blob.id },
        }),
      facts.signatures,
    )
    if (image.policy === 'warn') {
      const { value: attached } = await database.catalog.imageById(image.id, null, clock.now())
      if (attached !== null) warnUnmet(deps.log, attached, nameOf(attached))
    }
    return image.id
  }

  return {
    derive,

    /** Notes the manifests of images from before there were any; false when there were none such. */
    async noted({ id, name }: Container): Promise<boolean> {
      const images = await manifests.unnoted(id)
      if (images.length === 0) return false
      const notes = images.map((image) => ({
        imageId: image.id,
        manifest: derivedHex(name, image),
      }))
      await manifests.note(notes)
      return true
    },

    /**
     * What a manifest is in the library: the images it is of, and which of its tags those get there. An
     * index is of its children's images, if each is of one; then they are all that its tags name.
     */
    async inLibrary(
      path: RepositoryPath,
      container: Container,
      manifest: { sif: string | null; refs: readonly ManifestRef[] },
      tags: readonly string[],
      claims: Claims | null,
      writer: Writer,
    ): Promise<{ images: string[]; tags: string[]; whole: boolean }> {
      const { sif, refs } = manifest
      const named = tags.filter(isTagName)
      const none = { images: [], tags: named, whole: true }
      if (!isShared(container)) return none
      if (sif !== null) {
        const image = await imageOf(path, container, sif, claims, writer)
        return { images: [image], tags: named, whole: false }
      }
      const children = refs.filter(({ kind }) => kind === 'manifest').map(({ digest }) => digest)
      if (children.length === 0 || children.length < refs.length) return none
      const found = await manifests.imagesOf(container.id, children)
      const images = found.map(({ imageId }) => imageId)
      return images.length < children.length ? none : { images, tags: named, whole: true }
    },

    /** Runs a step that the policy may refuse for one of these images, with its reasons (R17). */
    async admitted(images: readonly string[], step: () => Promise<void>): Promise<void> {
      return images.length === 0 ? step() : verdicts.admittedAll(images, step)
    },
  }
}
