/** Model ↔ client JSON, one function per record (protocol.md §3.2). Zero fields are there because old clients decode them. */
import type { Collection, Container, Entity, FoundImage, Image, Tag } from '../core/model.ts'
import { hashOf } from '../core/ref.ts'
import type { Below } from '../ports.ts'

const common = (of: { createdAt: Date; updatedAt: Date; ownerId: string }) => ({
  deleted: false,
  createdBy: of.ownerId,
  createdAt: of.createdAt.toISOString(),
  updatedAt: of.updatedAt.toISOString(),
  owner: of.ownerId,
})

export const NOTHING: Below = { ids: [], size: 0 }

/** Quota and usage are for who may know them; 0 is what clients take for no quota (R27). */
export const entityJson = (entity: Entity & { overseen?: boolean }, below = NOTHING) => ({
  ...common(entity),
  id: entity.id,
  name: entity.name,
  description: entity.description,
  collections: below.ids,
  size: below.size,
  quota: entity.overseen === true ? (entity.quota ?? 0) : 0,
  ...(entity.overseen === true ? { quotaUsage: entity.used } : {}),
  defaultPrivate: entity.defaultPrivate,
  customData: '',
})

export const collectionJson = (collection: Collection, below = NOTHING) => ({
  ...common(collection),
  id: collection.id,
  name: collection.name,
  description: collection.description,
  entity: collection.entityId,
  entityName: collection.entityName,
  containers: below.ids,
  size: below.size,
  private: collection.private,
  signaturePolicy: collection.policy.mode,
  signatureFingerprints: collection.policy.fingerprints,
  customData: '',
})

export const containerJson = (container: Container, below = NOTHING, tags: Tag[] = []) => ({
  ...common(container),
  id: container.id,
  name: container.name,
  description: container.description,
  fullDescription: container.fullDescription,
  collection: container.collectionId,
  collectionName: container.collectionName,
  entity: container.entityId,
  entityName: container.entityName,
  images: below.ids,
  imageTags: tagsOfArch(tags, 'amd64'),
  archTags: archTags(tags),
  size: below.size,
  downloadCount: container.downloads,
  stars: container.stars,
  private: container.private,
  readOnly: container.frozen,
  customData: '',
})

export const imageJson = (image: FoundImage) => ({
  ...common(image),
  createdBy: image.createdBy,
  id: image.id,
  hash: hashOf(image.digest),
  description: image.description,
  container: image.containerId,
  containerName: image.containerName,
  containerDescription: image.containerDescription,
  containerStars: image.containerStars,
  containerDownloads: image.containerDownloads,
  collection: image.collectionId,
  collectionName: image.collectionName,
  entity: image.entityId,
  entityName: image.entityName,
  size: image.blob?.size ?? 0,
  uploaded: image.uploaded,
  arch: image.facts.arch,
  signed: image.facts.signed,
  // what a descriptor claims proves nothing: where it is known who signed, clients show that (R18)
  fingerprints:
    image.judgement.verdict === 'verified' ? image.judgement.signers : image.facts.fingerprints,
  signatureVerdict: image.judgement.verdict,
  signatureReason: image.judgement.why ?? '',
  encrypted: image.facts.encrypted,
  tags: image.tags,
  customData: '',
})

const texts = new WeakMap<Image, string>()

/** `imageJson` as text, written once for each record: while nothing changes, lookups find the same one. */
export function imageText(image: Image): string {
  let text = texts.get(image)
  if (text === undefined) texts.set(image, (text = JSON.stringify(imageJson(image))))
  return text
}

/** v2 form: `{arch: {tag: imageID}}`. */
export function archTags(tags: Tag[]): Record<string, Record<string, string>> {
  const map: Record<string, Record<string, string>> = {}
  for (const { arch, name, imageId } of tags) (map[arch] ??= Object.create(null))[name] = imageId
  return map
}

/** v1 form, of one arch: `{tag: imageID}`. */
export function tagsOfArch(tags: Tag[], arch: string): Record<string, string> {
  return { ...archTags(tags)[arch] }
}
