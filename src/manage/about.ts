/** What the management API says of its routes in GET /openapi.json. */
import * as z from 'zod/mini'
import type { KeyFacts, ImportReport, Policy, Token, User } from '../core/model.ts'
import { POLICY_MODES, ROLES, SCOPES, type MovedKind } from '../core/model.ts'
import { BYTES, count, digest, id, record, said, time, type Described } from '../http/about.ts'
import {
  claim,
  exportHead,
  importedParts,
  importedRows,
  importEnd,
  newToken,
  newUser,
  policy,
  privacy,
  signedChallenge,
  wantedBlob,
} from './requests.ts'

const text = z.string()
const maybeTime = z.nullable(time)

const user = record<User>('User')(
  z.object({
    id,
    name: text,
    role: z.enum(ROLES),
    disabled: z.boolean(),
    createdAt: time,
    managerId: said(z.nullable(id), "Who looks after a robot's tokens."),
    subject: said(z.nullable(text), 'Issuer and subject of an identity of another issuer.'),
  }),
)
const token = record<Token>('Token')(
  z.object({
    id,
    userId: id,
    userName: text,
    name: text,
    scopes: z.array(z.enum(SCOPES)),
    createdAt: time,
    expiresAt: time,
    revokedAt: maybeTime,
    lastUsedAt: maybeTime,
    collectionId: said(text, 'What it is bound to; empty for nothing.'),
    containerId: text,
  }),
)
const secret = said(z.string(), 'The token itself; it is shown this once and stored nowhere.')
const madeToken = z.object({
  id,
  token: secret,
  scopes: z.array(z.enum(SCOPES)),
  expiresAt: time,
})
const policyAnswer = z.object({
  ref: said(text, 'entity/collection'),
  policy: z.enum(POLICY_MODES),
  fingerprints: z.array(text) satisfies z.ZodMiniType<Policy['fingerprints']>,
})

type KeyRecord = Omit<KeyFacts, 'armor'> & {
  claimed: boolean
  owner: string | null
  addedAt: Date
  updatedAt: Date
  removedAt: Date | null
}
const key = record<KeyRecord>('Key')(
  z.object({
    fingerprint: text,
    keyId: text,
    version: z.int(),
    algorithm: said(z.int(), 'RFC 9580 §9.1'),
    bits: z.nullable(z.int()),
    createdAt: time,
    expiresAt: maybeTime,
    revoked: z.boolean(),
    userIds: z.array(
      z.object({
        text,
        email: z.nullable(text),
        createdAt: maybeTime,
        expiresAt: maybeTime,
        revoked: z.boolean(),
      }),
    ),
    subkeys: z.array(
      z.object({
        fingerprint: text,
        keyId: text,
        canSign: z.boolean(),
        revoked: z.boolean(),
        expiresAt: maybeTime,
      }),
    ),
    claimed: z.boolean(),
    owner: said(z.nullable(text), 'Name of its owner; null for who is not to know.'),
    addedAt: time,
    updatedAt: time,
    removedAt: maybeTime,
  }),
)
const cursor = said(z.nullable(text), 'For the next page; null on the last one.')
const cursorQuery = z.object({ cursor: said(z.optional(text), 'That of the page before.') })

const kinds = [
  'user',
  'token',
  'team',
  'member',
  'entity',
  'collection',
  'grant',
  'container',
  'star',
  'pulls',
  'image',
  'tag',
  'key',
] as const
const importReport = record<ImportReport>('ImportReport')(
  z.object({
    rows: z.record(z.enum(kinds satisfies readonly MovedKind[]), count),
    bytes: count,
    demoted: z.array(text),
    reissue: z.array(z.object({ user: text, name: text, expiresAt: time })),
  }),
)

const params = {
  fingerprint: 'All 40 (or 64) hex digits of the primary key.',
  id: 'Id of the import.',
  digest: 'SHA-256, 64 lower-case hex digits.',
}

export const described: Described = {
  name: 'Management',
  about: 'Users, tokens, policies and keys; exports and imports.',
  routes: {
    'GET /v1/users': { summary: 'Lists the users', answer: z.array(user) },
    'POST /v1/users': {
      summary: 'Adds a user',
      more: 'The user owns the entity of the same name.',
      body: newUser,
      answer: user,
      errors: ['conflict'],
    },
    'GET /v1/users/:name/tokens': {
      summary: 'Lists the tokens of a user',
      more: 'Records only: the tokens themselves are kept nowhere.',
      params: { name: 'Name of the user.' },
      answer: z.array(token),
    },
    'POST /v1/tokens': {
      summary: 'Makes a token',
      body: newToken,
      answer: madeToken,
      errors: ['not_found'],
    },
    'DELETE /v1/tokens/:id': {
      summary: 'Revokes a token',
      more: 'It ends at once, its running downloads included. Twice is success.',
      params: { id: 'Id of the token.' },
      answer: z.object({ id }),
    },
    'PUT /v1/privacy': {
      summary: 'Makes a collection or container private, or public',
      body: privacy,
      answer: privacy,
      errors: ['not_found'],
    },
    'GET /v1/policy': {
      summary: 'Shows what a collection asks of signatures',
      query: z.object({ ref: said(text, 'entity/collection') }),
      answer: policyAnswer,
      errors: ['not_found'],
    },
    'PUT /v1/policy': {
      summary: 'Sets what a collection asks of signatures',
      more: 'A list of fingerprints that is left out is none.',
      body: policy,
      answer: policyAnswer,
      errors: ['not_found', 'conflict'],
    },
    'POST /v1/first-admin': {
      summary: "Gives an administrator's token for the setup secret",
      more: 'The secret of the deployment is good once.',
      body: claim,
      answer: z.object({ user: text, id, token: secret, expiresAt: time }),
      errors: ['denied', 'unavailable'],
    },

    'GET /v1/keys': {
      summary: 'Lists the keys of the caller; all of them for administrators',
      query: cursorQuery,
      answer: z.object({ keys: z.array(key), cursor }),
    },
    'GET /v1/keys/:fingerprint': { summary: 'Shows a key', params, answer: key },
    'DELETE /v1/keys/:fingerprint': {
      summary: 'Removes a key',
      more: 'What its owner removes is hidden; an administrator removes it for good.',
      params,
    },
    'POST /v1/keys/:fingerprint/challenge': {
      summary: 'Gives the text that the holder of a key signs to own it',
      params,
      answer: z.object({ challenge: text, notAfter: time }),
    },
    'POST /v1/keys/:fingerprint/claim': {
      summary: "Makes the caller the key's owner",
      params,
      body: signedChallenge,
      answer: key,
      errors: ['conflict'],
    },

    'POST /v1/exports': { summary: 'Begins an export', answer: exportHead },
    'GET /v1/exports/rows': {
      summary: 'A page of the rows of an export',
      query: cursorQuery,
      answer: z.object({ rows: z.array(z.looseObject({ type: z.enum(kinds) })), cursor }),
    },
    'GET /v1/exports/blobs/:digest': {
      summary: 'The bytes of an image, whole or one range',
      params,
      answer: BYTES,
      others: { 206: { about: 'The range.', ...BYTES } },
      errors: ['range_unsatisfiable'],
    },
    'POST /v1/imports': {
      summary: 'Begins an import',
      more: 'The same export again is the same import.',
      body: exportHead,
      answer: z.object({
        id,
        exportId: id,
        state: z.enum(['open', 'done', 'aborted']),
        sha256: z.nullable(digest),
      }),
      errors: ['conflict'],
    },
    'POST /v1/imports/:id': {
      summary: 'Ends an import: everything becomes visible',
      more: '409 lists what stands in the way.',
      params,
      body: importEnd,
      answer: importReport,
      errors: ['conflict'],
    },
    'DELETE /v1/imports/:id': { summary: 'Drops an import', params, errors: ['conflict'] },
    'POST /v1/imports/:id/rows': {
      summary: 'Takes a page of rows',
      params,
      body: importedRows,
      errors: ['conflict'],
    },
    'POST /v1/imports/:id/blobs/:digest': {
      summary: 'Says whether the bytes of an image are wanted, and how',
      params,
      body: wantedBlob,
      answer: z.object({
        wanted: z.boolean(),
        partSize: said(z.nullable(count), 'Bytes of each part; null for one body.'),
      }),
      errors: ['conflict'],
    },
    'PUT /v1/imports/:id/blobs/:digest': {
      summary: 'Takes the bytes of an image in one body',
      params,
      body: BYTES,
      errors: ['conflict', 'length_required', 'insufficient_storage'],
    },
    'PUT /v1/imports/:id/blobs/:digest/:part': {
      summary: 'Takes one part of the bytes of an image',
      params: { ...params, part: 'Its number, from 1.' },
      body: BYTES,
      answer: z.object({ etag: text }),
      errors: ['conflict', 'length_required', 'insufficient_storage'],
    },
    'POST /v1/imports/:id/blobs/:digest/parts': {
      summary: 'Puts the parts together',
      params,
      body: importedParts,
      errors: ['conflict'],
    },
  },
}
