/** What the library API says of its routes in GET /openapi.json. */
import * as z from 'zod/mini'
import { POLICY_MODES, VERDICTS } from '../core/model.ts'
import { bare, BYTES, count, id, record, said, time, type Described } from '../http/about.ts'
import {
  abortedParts,
  completedParts,
  newCollection,
  newContainer,
  newEntity,
  newImage,
  newPart,
  newParts,
  newTag,
  newUpload,
} from './requests.ts'
import type { collectionJson, containerJson, entityJson, imageJson } from './wire.ts'

const text = z.string()
const flag = z.boolean()
const ids = z.array(id)

const common = {
  id,
  description: text,
  deleted: flag,
  createdBy: text,
  createdAt: time,
  updatedAt: time,
  owner: text,
  customData: text,
}
/** `{tag: image id}`, and the same of each arch. */
const tags = z.record(text, id)
const archTags = z.record(text, tags)

const entity = record<ReturnType<typeof entityJson>>('Entity')(
  z.object({
    ...common,
    name: text,
    collections: ids,
    size: count,
    quota: count,
    quotaUsage: said(z.optional(count), 'For who owns it.'),
    defaultPrivate: flag,
  }),
)
const collection = record<ReturnType<typeof collectionJson>>('Collection')(
  z.object({
    ...common,
    name: text,
    entity: id,
    entityName: text,
    containers: ids,
    size: count,
    private: flag,
    signaturePolicy: z.enum(POLICY_MODES),
    signatureFingerprints: z.array(text),
  }),
)
const container = record<ReturnType<typeof containerJson>>('Container')(
  z.object({
    ...common,
    name: text,
    fullDescription: text,
    collection: id,
    collectionName: text,
    entity: id,
    entityName: text,
    images: ids,
    imageTags: tags,
    archTags,
    size: count,
    downloadCount: count,
    stars: count,
    private: flag,
    readOnly: flag,
  }),
)
const image = record<ReturnType<typeof imageJson>>('Image')(
  z.object({
    ...common,
    hash: said(text, 'sha256.HEX of the whole file'),
    container: id,
    containerName: text,
    containerDescription: text,
    containerStars: count,
    containerDownloads: count,
    collection: id,
    collectionName: text,
    entity: id,
    entityName: text,
    size: count,
    uploaded: flag,
    arch: text,
    signed: flag,
    fingerprints: z.array(text),
    signatureVerdict: z.enum(VERDICTS),
    signatureReason: text,
    encrypted: flag,
    tags: z.array(text),
  }),
)
const named = { id, name: text }
const found = z.object({
  entity: z.array(z.object(named)),
  collection: z.array(z.object({ ...named, entityName: text })),
  container: z.array(z.object({ ...named, collectionName: text, entityName: text })),
  image: z.array(image),
  cut: said(flag, 'There is more than is listed.'),
})
const pushed = z.object({
  quota: z.object({ quotaTotal: count, quotaUsage: count }),
  containerUrl: text,
})

const params = {
  entity: { entity: 'Its name.' },
  collection: { collection: 'entity/collection.' },
  container: { container: 'entity/collection/container.' },
  image: { ref: 'entity/collection/container, and :tag or :sha256.HEX after it.' },
  containerId: { id: 'Id of the container.' },
  imageId: { id: 'Id of the image.' },
}
const arch = z.object({ arch: said(z.optional(text), 'An architecture such as amd64.') })
const ticket = z.object({ t: said(text, 'The ticket, as the address that was given has it.') })
const uri = z.object({ uri: text })

export const described: Described = {
  name: 'Library',
  about: 'What `apptainer pull`, `push`, `search` and `delete` speak.',
  routes: {
    'GET /assets/config/config.prod.json': {
      summary: 'Where the services of this registry are',
      answer: bare(
        z.object({
          libraryAPI: z.object({
            uri: text,
            registryUri: said(text, 'The OCI registry of the same images.'),
          }),
          keystoreAPI: uri,
          tokenAPI: uri,
        }),
      ),
      errors: ['invalid'],
    },
    'GET /version': {
      summary: 'Versions of the program and of the API',
      answer: z.object({ version: text, apiVersion: text }),
    },
    'GET /.well-known/jwks.json': {
      summary: "Public keys of the registry's tokens",
      answer: bare(z.object({ keys: z.array(z.looseObject({ kty: text })) })),
    },
    'GET /v1/token-status': {
      summary: 'Says whether the token is valid; 404 when it is not',
      answer: z.object({ status: z.literal('valid') }),
      errors: ['not_found'],
    },
    'GET /v1/rbac/users/current': {
      summary: 'Who the token stands for',
      answer: bare(
        z.object({
          id,
          username: text,
          realname: text,
          email: text,
          oidc_user_meta: z.object({ secret: said(text, 'The very token that was sent.') }),
        }),
      ),
      errors: ['unauthenticated', 'invalid'],
    },
    'GET /v1/oci-redirect': {
      summary: 'Never redirects: 404 keeps clients with the library',
      answer: null,
      errors: ['not_found'],
    },
    'POST /v1/build': {
      summary: 'Remote builds, which are not offered',
      answer: null,
      errors: ['unimplemented'],
    },
    'POST /v1/build-context': {
      summary: 'Remote builds, which are not offered',
      answer: null,
      errors: ['unimplemented'],
    },

    'GET /v1/entities': { summary: "Lists the caller's entities", answer: z.array(entity) },
    'POST /v1/entities': {
      summary: 'Makes an entity, or shows the one of that name',
      body: newEntity,
      answer: entity,
      errors: ['conflict'],
    },
    'GET /v1/entities/*': { summary: 'Shows an entity', params: params.entity, answer: entity },
    'POST /v1/collections': {
      summary: 'Makes a collection, or shows the one of that name',
      body: newCollection,
      answer: collection,
      errors: ['not_found', 'conflict'],
    },
    'GET /v1/collections/*': {
      summary: 'Shows a collection',
      params: params.collection,
      answer: collection,
    },
    'POST /v1/containers': {
      summary: 'Makes a container, or shows the one of that name',
      body: newContainer,
      answer: container,
      errors: ['not_found', 'conflict'],
    },
    'GET /v1/containers/*': {
      summary: 'Shows a container',
      params: params.container,
      answer: container,
    },
    'DELETE /v1/collections/*': {
      summary: 'Deletes a collection with everything in it',
      more: 'Refused while it holds anything frozen.',
      params: params.collection,
    },
    'DELETE /v1/containers/*': {
      summary: 'Deletes a container with everything in it',
      more: 'Refused while it, or a tag in it, is frozen.',
      params: params.container,
    },
    'POST /v1/images': {
      summary: 'Makes the record of an image, or shows the one of that hash',
      more: 'With `uploaded`, its bytes are known and need not be sent.',
      body: newImage,
      answer: image,
      errors: ['not_found', 'conflict'],
    },
    'GET /v1/images/*': {
      summary: 'Shows an image',
      params: params.image,
      query: arch,
      answer: image,
    },
    'DELETE /v1/images/*': {
      summary: 'Deletes an image',
      params: params.image,
      query: arch,
      errors: ['conflict'],
    },
    'GET /v1/tags/:id': {
      summary: 'Lists the tags of one architecture',
      params: params.containerId,
      query: arch,
      answer: tags,
    },
    'POST /v1/tags/:id': {
      summary: 'Sets a tag',
      more: '`{"Tag", "ImageID"}`, and `"Arch"` where it is not that of the file.',
      params: params.containerId,
      body: newTag,
      errors: ['conflict'],
    },
    'GET /v2/tags/:id': {
      summary: 'Lists the tags by architecture',
      params: params.containerId,
      answer: archTags,
    },
    'POST /v2/tags/:id': {
      summary: 'Sets a tag of an architecture',
      more: '`{"Arch", "Tag", "ImageID"}`.',
      params: params.containerId,
      body: newTag,
      errors: ['conflict'],
    },
    'GET /v1/search': {
      summary: 'Searches what the caller may see',
      more: 'The newest 1,000 images at most; `cut` says that there may be more.',
      query: z.object({
        value: said(text, 'Words that must all be there.'),
        arch: said(z.optional(text), 'Architectures, separated by commas.'),
        signed: said(z.optional(z.enum(['true', 'false'])), 'Signed images only.'),
      }),
      answer: found,
    },

    'GET /v1/imagefile/*': {
      summary: 'Downloads an image',
      more: 'Small images come at once; for others an address follows, which takes ranges.',
      params: params.image,
      query: arch,
      answer: BYTES,
      others: {
        206: { about: 'The range.', ...BYTES },
        303: 'The bytes are at the address in Location.',
        304: 'It is what If-None-Match names.',
      },
      errors: ['range_unsatisfiable'],
    },
    'POST /v1/imagefile/*': {
      summary: 'Uploads an image in one body, as old clients do',
      params: { ref: params.imageId.id },
      body: BYTES,
      answer: pushed,
      errors: ['conflict', 'length_required', 'insufficient_storage'],
    },
    'POST /v2/imagefile/:id': {
      summary: 'Begins an upload in one body',
      params: params.imageId,
      body: newUpload,
      answer: z.object({ uploadURL: text }),
      errors: ['conflict', 'insufficient_storage'],
    },
    'PUT /v2/imagefile/:id/_complete': {
      summary: 'Ends an upload in one body',
      params: params.imageId,
      answer: pushed,
      errors: ['conflict', 'insufficient_storage'],
    },
    'POST /v2/imagefile/:id/_multipart': {
      summary: 'Begins an upload in parts',
      params: params.imageId,
      body: newParts,
      answer: z.object({
        uploadID: text,
        totalParts: count,
        partSize: count,
        options: z.object({ s3compliant: z.enum(['true', 'false']) }),
      }),
      errors: ['conflict', 'insufficient_storage'],
    },
    'PUT /v2/imagefile/:id/_multipart': {
      summary: 'Gives the address of one part',
      params: params.imageId,
      body: newPart,
      answer: z.object({ presignedURL: text }),
    },
    'PUT /v2/imagefile/:id/_multipart_complete': {
      summary: 'Ends an upload in parts',
      params: params.imageId,
      body: completedParts,
      answer: pushed,
      errors: ['conflict', 'insufficient_storage'],
    },
    'PUT /v2/imagefile/:id/_multipart_abort': {
      summary: 'Drops an upload in parts',
      params: params.imageId,
      body: abortedParts,
      errors: ['conflict'],
    },
    'GET /share': {
      summary: 'The image of a share link, by its secret',
      more: 'Links that are over, used up, revoked or unknown are all the same 404.',
      query: z.object({ s: said(text, 'The secret, as the link has it.') }),
      answer: BYTES,
      others: {
        303: 'The bytes are at the address in Location.',
        304: 'It is what If-None-Match names.',
      },
      errors: ['not_found'],
    },
    'GET /v1/blob': {
      summary: 'The bytes of an image, by the address that a download has given',
      query: ticket,
      answer: BYTES,
      others: { 206: { about: 'The range.', ...BYTES } },
      errors: ['range_unsatisfiable'],
    },
    'PUT /v1/blob': {
      summary: 'Takes the body of an upload, by the address that was given for it',
      query: ticket,
      body: BYTES,
      answer: null,
      errors: ['conflict', 'not_found', 'length_required', 'insufficient_storage'],
    },
    'PUT /v1/part': {
      summary: 'Takes one part of an upload, by the address that was given for it',
      query: ticket,
      body: BYTES,
      answer: null,
      errors: ['conflict', 'not_found', 'length_required', 'insufficient_storage'],
    },
  },
}
