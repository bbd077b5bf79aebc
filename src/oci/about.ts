/** What OCI distribution says of its routes in GET /openapi.json. */
import * as z from 'zod/mini'
import { bare, BYTES, count, plain, said, time, words, type Described } from '../http/about.ts'

const text = z.string()
const name = { name: 'The repository: components with slashes between them.' }
const upload = { ...name, id: 'Id of the upload.' }
const blob = { ...name, digest: 'sha256:HEX or sha512:HEX.' }
const manifest = { ...name, reference: 'A tag or a digest.' }
const t = said(text, 'The ticket, as the address that was given has it.')
const digest = said(text, 'What all of it must be: sha256:HEX or sha512:HEX.')
const page = z.object({
  n: said(z.optional(text), 'Entries on a page, at most 1000.'),
  last: said(z.optional(text), 'The entry after which the page begins.'),
})
const JSON_MANIFEST = plain('application/vnd.oci.image.manifest.v1+json')
const descriptor = z.object({
  mediaType: text,
  digest: text,
  size: count,
  artifactType: z.optional(text),
  annotations: z.optional(z.record(text, text)),
})

const refusal = z.object({
  errors: z.array(
    z.object({
      code: said(text, 'A word of the distribution-spec, such as NAME_UNKNOWN.'),
      message: text,
      detail: z.optional(z.unknown()),
    }),
  ),
})
words.add(refusal, { id: 'OciErrors' })

export const described: Described = {
  name: 'OCI',
  about: 'OCI distribution 1.1, as `apptainer push oras://`, docker, skopeo and oras speak it.',
  refusal,
  routes: {
    'GET /v2': {
      summary: 'Says whether the token is good',
      answer: bare(z.object({})),
      errors: ['unauthenticated'],
    },
    'GET /v2/token': {
      summary: 'Gives a token for /v2',
      more:
        'For 5 minutes, and for the scopes that are asked for as far as the token of this registry has ' +
        'them, which is the password of any user name, or the bearer. Without one it only pulls what is public.',
      query: z.object({
        service: said(z.optional(text), 'Not looked at.'),
        scope: said(
          z.optional(text),
          'repository:NAME:pull,push,delete or registry:catalog:*; may be repeated, or several with spaces between them.',
        ),
      }),
      answer: bare(
        z.object({ token: text, access_token: text, expires_in: count, issued_at: time }),
      ),
    },
    'GET /v2/_catalog': {
      summary: 'Lists repositories with manifests or images',
      query: page,
      answer: bare(z.object({ repositories: z.array(text) })),
      errors: ['invalid', 'unauthenticated'],
    },
    'POST /v2/:name{.+}/blobs/uploads': {
      summary: 'Opens an upload of a blob, or stores or mounts a whole one',
      params: name,
      query: z.object({
        digest: said(z.optional(text), 'The body is the whole blob, with this digest.'),
        mount: said(z.optional(text), 'Digest of a blob that another repository has.'),
        from: said(z.optional(text), 'That repository.'),
      }),
      body: BYTES,
      answer: null,
      others: { 201: 'The blob is stored.', 202: 'The upload goes on at Location.' },
      errors: [
        'invalid',
        'not_found',
        'digest_mismatch',
        'conflict',
        'quota_exceeded',
        'rate_limited',
        'insufficient_storage',
      ],
    },
    'GET /v2/:name{.+}/blobs/uploads/:id': {
      summary: 'Says where an upload stands',
      params: upload,
      query: z.object({ t }),
      answer: null,
      others: { 204: 'Range says what has arrived.' },
      errors: ['invalid', 'not_found'],
    },
    'PATCH /v2/:name{.+}/blobs/uploads/:id': {
      summary: 'Adds a chunk to an upload',
      params: upload,
      query: z.object({ t }),
      body: BYTES,
      answer: null,
      others: { 202: 'The upload goes on at Location.' },
      errors: [
        'invalid',
        'not_found',
        'conflict',
        'range_unsatisfiable',
        'quota_exceeded',
        'insufficient_storage',
      ],
    },
    'PUT /v2/:name{.+}/blobs/uploads/:id': {
      summary: 'Closes an upload, with what is left of the blob',
      params: upload,
      query: z.object({ t, digest }),
      body: BYTES,
      answer: null,
      others: { 201: 'The blob is stored.' },
      errors: [
        'invalid',
        'not_found',
        'digest_mismatch',
        'conflict',
        'range_unsatisfiable',
        'quota_exceeded',
        'insufficient_storage',
      ],
    },
    'DELETE /v2/:name{.+}/blobs/uploads/:id': {
      summary: 'Drops an upload',
      params: upload,
      query: z.object({ t }),
      answer: null,
      others: { 204: 'It has gone.' },
      errors: ['invalid', 'not_found'],
    },
    'GET /v2/:name{.+}/blobs/:digest': {
      summary: 'Reads a blob, or a range of it',
      params: blob,
      answer: BYTES,
      others: {
        206: { about: 'The range that was asked for.', ...BYTES },
        304: 'It is known.',
        307: 'The store has the bytes, or the range, at Location (SREG_S3_REDIRECT).',
      },
      errors: ['invalid', 'not_found', 'unauthenticated', 'range_unsatisfiable'],
    },
    'DELETE /v2/:name{.+}/blobs/:digest': {
      summary: 'Takes a blob from a repository',
      more: 'Not while a manifest of the repository names it, or an image has it.',
      params: blob,
      answer: null,
      others: { 202: 'It has gone.' },
      errors: ['invalid', 'not_found', 'conflict'],
    },
    'GET /v2/:name{.+}/manifests/:reference': {
      summary: 'Reads a manifest, byte by byte as it was pushed',
      more: 'Images of the library are manifests as well, and tags of several architectures indexes.',
      params: manifest,
      answer: JSON_MANIFEST,
      others: { 304: 'It is known.' },
      errors: ['invalid', 'not_found', 'unauthenticated'],
    },
    'PUT /v2/:name{.+}/manifests/:reference': {
      summary: 'Stores a manifest, under a tag or its digest',
      more: 'Of a SIF, the library has the image under the same tags from then on.',
      params: manifest,
      query: z.object({
        tag: said(z.optional(text), 'Of a manifest by digest: a tag; may be repeated.'),
      }),
      body: JSON_MANIFEST,
      answer: null,
      others: { 201: 'It is stored.' },
      errors: ['invalid', 'not_found', 'too_large', 'conflict', 'quota_exceeded'],
    },
    'DELETE /v2/:name{.+}/manifests/:reference': {
      summary: 'Deletes a tag, or a manifest with its tags',
      more: 'In the library too; an image goes when no tag and no manifest of it is left.',
      params: manifest,
      answer: null,
      others: { 202: 'It has gone.' },
      errors: ['invalid', 'not_found'],
    },
    'GET /v2/:name{.+}/tags/list': {
      summary: 'Lists the tags of a repository',
      params: name,
      query: page,
      answer: bare(z.object({ name: text, tags: z.array(text) })),
      errors: ['invalid', 'not_found', 'unauthenticated'],
    },
    'GET /v2/:name{.+}/referrers/:digest': {
      summary: 'Lists the manifests that refer to a digest',
      params: blob,
      query: z.object({
        artifactType: said(z.optional(text), 'Of this type only.'),
        last: said(z.optional(text), 'The digest after which the page begins.'),
      }),
      answer: {
        type: 'application/vnd.oci.image.index.v1+json',
        schema: z.object({
          schemaVersion: count,
          mediaType: text,
          manifests: z.array(descriptor),
        }),
      },
      errors: ['invalid', 'unauthenticated'],
    },
  },
}
