/**
 * Manifests of images that nobody pushed by OCI (docs/oci.md, "The bridge"): made when they are asked
 * for, of nothing but the container's name, the image's digest and its size. Their bytes never change.
 */
import { sha256Hex } from './digest.ts'
import type { Manifest } from './model.ts'

export const IMAGE_TYPE = 'application/vnd.oci.image.manifest.v1+json'
export const INDEX_TYPE = 'application/vnd.oci.image.index.v1+json'
/** What clients push as the config of a SIF (protocol.md §11.1): nothing. */
const SIF_CONFIG_TYPE = 'application/vnd.sylabs.sif.config.v1+json'
const SIF_LAYER_TYPE = 'application/vnd.sylabs.sif.layer.v1.sif'
/** Types of a layer that is a SIF; the typing error is that of clients before 3.7. */
const SIF_LAYERS = [SIF_LAYER_TYPE, 'appliciation/vnd.sylabs.sif.layer.tar']

/** The config of a SIF: every repository with an image has it. */
export const EMPTY_JSON = '{}'
export const EMPTY_DIGEST =
  'sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a'

/** An image as its manifest needs it: 64 hex digits, and bytes. */
export type DerivedFrom = { digest: string; size: number }
export type DerivedManifest = Manifest & { text: string }

/** The manifest that an image of this container is. */
export function derivedManifest(container: string, { digest, size }: DerivedFrom): DerivedManifest {
  const title = `${container.slice(container.lastIndexOf('/') + 1)}.sif`
  return described(IMAGE_TYPE, SIF_CONFIG_TYPE, {
    schemaVersion: 2,
    mediaType: IMAGE_TYPE,
    config: { mediaType: SIF_CONFIG_TYPE, digest: EMPTY_DIGEST, size: EMPTY_JSON.length },
    layers: [
      {
        mediaType: SIF_LAYER_TYPE,
        digest: `sha256:${digest}`,
        size,
        annotations: { 'org.opencontainers.image.title': title },
      },
    ],
  })
}

/** Hex digits of that manifest's digest: what `images.manifest` has. */
export const derivedHex = (container: string, image: DerivedFrom): string =>
  derivedManifest(container, image).digest.slice('sha256:'.length)

/** Characters of that manifest without the container's name and the digits of the size. */
export const DERIVED_LENGTH =
  derivedManifest('', { digest: '0'.repeat(64), size: 0 }).text.length - '0'.length

/** The index that a tag is whose images are for several archs; in their order. */
export function derivedIndex(
  container: string,
  images: readonly (DerivedFrom & { arch: string })[],
): DerivedManifest {
  const sorted = images.toSorted((a, b) => (a.arch < b.arch ? -1 : 1))
  return described(INDEX_TYPE, '', {
    schemaVersion: 2,
    mediaType: INDEX_TYPE,
    manifests: sorted.map(({ arch, ...image }) => {
      const { mediaType, digest, size } = derivedManifest(container, image)
      const platform = { architecture: arch, os: 'linux' }
      return { mediaType, digest, size, ...(arch === 'unknown' ? {} : { platform }) }
    }),
  })
}

function described(mediaType: string, artifactType: string, document: object): DerivedManifest {
  const text = JSON.stringify(document)
  return {
    digest: `sha256:${sha256Hex(text)}`,
    mediaType,
    // names and digests are ASCII
    size: text.length,
    subject: null,
    artifactType,
    text,
  }
}

/**
 * Hex digest of the SIF that an image's manifest holds, null for every other: one layer, of one of the
 * two types. Clients have sent many configs and annotations, so nobody looks at those.
 */
export function sifOf(layers: readonly { mediaType: string; digest: string }[]): string | null {
  const [layer] = layers
  if (layers.length !== 1 || layer === undefined || !SIF_LAYERS.includes(layer.mediaType))
    return null
  const [, hex] = /^sha256:([0-9a-f]{64})$/.exec(layer.digest) ?? []
  return hex ?? null
}
