/** What the management API says of its routes in GET /openapi.json. */
import * as z from 'zod/mini'
import type { ShownUsage } from '../core/quotas.ts'
import type {
  AuditEntry,
  Grant,
  ImportReport,
  Invitation,
  KeyFacts,
  OpenImport,
  Policy,
  TeamMember,
  Token,
} from '../core/model.ts'
import {
  AUDIT_OUTCOMES,
  LEVELS,
  POLICY_MODES,
  ROLES,
  SCOPES,
  type MovedKind,
} from '../core/model.ts'
import type { Shown } from './people.ts'
import {
  BYTES,
  count,
  digest,
  id,
  record,
  said,
  time,
  words,
  type Described,
} from '../http/about.ts'
import { auditQuery } from './audit.ts'
import {
  acceptance,
  changedTeam,
  changedUser,
  claim,
  exportHead,
  freeze,
  grant,
  importedParts,
  importedRows,
  importEnd,
  member,
  newInvitation,
  newQuota,
  newShare,
  newStar,
  newRobot,
  newTeam,
  newToken,
  newTransfer,
  newUser,
  policy,
  privacy,
  signedChallenge,
  wantedBlob,
} from './requests.ts'

const text = z.string()
const maybeTime = z.nullable(time)

const userShape = {
  id,
  name: text,
  role: z.enum(ROLES),
  disabled: z.boolean(),
  createdAt: time,
  managerId: said(z.nullable(text), "Who looks after a robot's tokens."),
  subject: said(z.nullable(text), 'Issuer and subject of an identity of another issuer.'),
  manager: said(z.optional(z.nullable(text)), 'Of robots: the name of who looks after its tokens.'),
  deletedAt: said(z.optional(time), 'Of deleted accounts, whose names stay reserved.'),
}
const user = record<Shown>('User')(z.object(userShape))
const token = record<Token & { place: string | null }>('Token')(
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
    place: said(z.nullable(text), 'The same by name: entity/collection[/container].'),
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

const entry = record<AuditEntry>('AuditEntry')(
  z.object({
    at: time,
    actorId: said(text, 'Empty for the operator, and for who has no token.'),
    actor: said(text, 'The name at that time.'),
    tokenId: text,
    address: said(text, 'Where the request came from; of refusals an IPv6 /64, or "many".'),
    action: text,
    object: said(text, 'Kind and id of what it was done to.'),
    name: said(text, 'The name of that at that time.'),
    outcome: z.enum(AUDIT_OUTCOMES),
    detail: text,
    count: said(z.int(), 'Refusals of a minute are added up.'),
  }),
)

const team = z.object({
  name: text,
  description: text,
  open: said(z.boolean(), 'Everybody with an account may see and join it.'),
  role: said(z.nullable(z.enum(['owner', 'member'])), 'Of who asks.'),
  createdAt: time,
})
words.add(team, { id: 'Team' })
const teamMember = record<TeamMember>('TeamMember')(
  z.object({ user: text, role: z.enum(['owner', 'member']), joinedAt: time }),
)
const invitation = record<Invitation>('Invitation')(
  z.object({ id, createdBy: z.nullable(text), createdAt: time, expiresAt: time }),
)
const granted = record<Omit<Grant, 'level'> & { level: (typeof LEVELS)[number] }>('Grant')(
  z.object({
    user: z.nullable(text),
    team: z.nullable(text),
    level: z.enum(LEVELS),
    createdAt: time,
  }),
)
const teamParams = {
  name: 'Name of the team.',
  user: 'Name of the user.',
  id: 'Id of the invitation.',
}

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
  'membership',
  'manifest',
  'piece',
  'ociTag',
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

const openImport = record<OpenImport>('OpenImport')(
  z.object({ id, exportId: id, createdAt: time, expiresAt: time, rows: count, bytes: count }),
)

const params = {
  fingerprint: 'All 40 (or 64) hex digits of the primary key.',
  id: 'Id of the import.',
  digest: 'SHA-256, 64 lower-case hex digits.',
}

const bytes = said(count, 'Bytes.')
const maybeBytes = z.nullable(said(count, 'Bytes; null is no limit.'))
const usage = record<ShownUsage>('Usage')(
  z.object({
    entity: text,
    used: bytes,
    reserved: said(count, 'Bytes on their way.'),
    limit: maybeBytes,
    collections: count,
    containers: count,
    images: count,
  }),
)
const often = z.nullable(said(count, 'Downloads that are left; null is any number.'))
const share = z.object({
  id,
  ref: said(text, 'entity/collection/container'),
  hash: text,
  note: text,
  creator: text,
  createdAt: time,
  expiresAt: time,
  count: often,
  used: count,
  revokedAt: maybeTime,
})
words.add(share, { id: 'Share' })
const place = z.object({ ref: said(text, 'entity/collection/container') })

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
    'GET /v1/users/:name': {
      summary: 'Shows a user',
      more: "To themselves, to a robot's manager and to administrators; to others there is none.",
      params: { name: 'Name of the user.' },
      answer: user,
    },
    'PATCH /v1/users/:name': {
      summary: "Changes a user's role, or lets nobody in with their tokens",
      more: 'The last enabled administrator stays one.',
      params: { name: 'Name of the user.' },
      body: changedUser,
      answer: user,
      errors: ['conflict'],
    },
    'DELETE /v1/users/:name': {
      summary: 'Ends an account, or frees the name of one that has ended',
      more: 'By the user or an administrator, with exactly one of the three. The name stays reserved until an administrator frees it.',
      params: { name: 'Name of the user.' },
      query: z.object({
        handOver: said(z.optional(text), 'Who gets its entities, collections, robots and teams.'),
        remove: said(z.optional(z.literal('true')), 'What it owns is deleted with it.'),
        free: said(
          z.optional(z.literal('true')),
          'The name of an ended account may be used again.',
        ),
      }),
      errors: ['conflict'],
    },
    'GET /v1/users/:name/tokens': {
      summary: 'Lists the tokens of a user',
      more: "Records only: the tokens themselves are kept nowhere. To themselves, a robot's manager and administrators.",
      params: { name: 'Name of the user.' },
      answer: z.array(token),
      errors: ['denied'],
    },
    'GET /v1/tokens': {
      summary: "Lists the caller's tokens",
      more: 'Records only.',
      answer: z.array(token),
      errors: ['denied'],
    },
    'POST /v1/tokens': {
      summary: 'Makes a token',
      more: 'For oneself, for a robot by its manager, for anybody by an administrator. It may no more and lives no longer than the one that asks, nor than SREG_TOKEN_MAX_AGE; a bound one works in its place only.',
      body: newToken,
      answer: madeToken,
      errors: ['not_found'],
    },
    'DELETE /v1/tokens/:id': {
      summary: 'Revokes a token',
      more: 'It ends at once, its running downloads included. Twice is success. Every token may end itself.',
      params: { id: 'Id of the token.' },
      answer: z.object({ id }),
      errors: ['denied'],
    },
    'GET /v1/robots': {
      summary: "Lists the caller's robots; all of them for administrators",
      answer: z.array(user),
      errors: ['denied'],
    },
    'POST /v1/robots': {
      summary: 'Adds a robot that the caller manages',
      body: newRobot,
      answer: user,
      errors: ['conflict'],
    },
    'DELETE /v1/robots/:name': {
      summary: 'Ends a robot and its tokens',
      params: { name: 'Name of the robot.' },
      errors: ['conflict'],
    },
    'POST /v1/transfers': {
      summary: 'Gives an entity with everything in it to another user',
      body: newTransfer,
      answer: z.object({ entity: text, owner: text }),
      errors: ['not_found', 'conflict'],
    },
    'PUT /v1/privacy': {
      summary: 'Makes a collection or container private, or public',
      body: privacy,
      answer: privacy,
      errors: ['not_found'],
    },
    'GET /v1/grants': {
      summary: 'Lists who may do what in a collection',
      more: 'Apart from the owner of its entity; for its owners, staff and administrators.',
      query: z.object({ ref: said(text, 'entity/collection') }),
      answer: z.array(granted),
      errors: ['not_found'],
    },
    'PUT /v1/grants': {
      summary: 'Sets what a user or a team may do in a collection',
      more: 'It counts from the next request on; `none` takes everything back, and ends links to private images.',
      body: grant,
      answer: grant,
      errors: ['not_found'],
    },
    'PUT /v1/frozen': {
      summary: 'Freezes or thaws a container, or a tag',
      more: 'What is frozen cannot be moved or deleted: a push that would is 403. New tags and images are taken.',
      body: freeze,
      answer: freeze,
      errors: ['not_found'],
    },

    'GET /v1/teams': { summary: 'Lists the teams that the caller sees', answer: z.array(team) },
    'POST /v1/teams': {
      summary: 'Makes a team',
      more: 'The caller owns it; staff and administrators may name somebody else.',
      body: newTeam,
      answer: z.object({ name: text, description: text, open: z.boolean() }),
      errors: ['not_found', 'conflict'],
    },
    'GET /v1/teams/:name': {
      summary: 'Shows a team',
      more: '`members` is null for who sees an open team from outside.',
      params: teamParams,
      answer: z.object({ ...team.shape, members: z.nullable(z.array(teamMember)) }),
    },
    'PATCH /v1/teams/:name': {
      summary: 'Changes what a team says of itself, or whether it is open',
      params: teamParams,
      body: changedTeam,
      answer: z.object({ name: text }),
    },
    'DELETE /v1/teams/:name': {
      summary: 'Deletes a team, its invitations, and what was granted to it',
      params: teamParams,
      answer: z.object({ name: text }),
    },
    'PUT /v1/teams/:name/members/:user': {
      summary: 'Adds a member, or makes one an owner or an owner a member',
      params: teamParams,
      body: member,
      answer: z.object({ user: text, role: z.enum(['owner', 'member']) }),
      errors: ['conflict'],
    },
    'DELETE /v1/teams/:name/members/:user': {
      summary: 'Takes a member out; everybody may leave',
      params: teamParams,
      answer: z.object({ user: text }),
      errors: ['conflict'],
    },
    'POST /v1/teams/:name/join': {
      summary: 'Joins an open team',
      params: teamParams,
      answer: z.object({ team: text }),
      errors: ['denied'],
    },
    'GET /v1/teams/:name/invitations': {
      summary: 'Lists the invitations that still work',
      params: teamParams,
      answer: z.array(invitation),
    },
    'POST /v1/teams/:name/invitations': {
      summary: 'Makes an invitation, which works once',
      params: teamParams,
      body: newInvitation,
      answer: z.object({
        id,
        secret: said(text, 'Shown this once; only its hash is stored.'),
        expiresAt: time,
      }),
    },
    'DELETE /v1/teams/:name/invitations/:id': {
      summary: 'Withdraws an invitation',
      params: teamParams,
      answer: z.object({ id }),
    },
    'POST /v1/invitations': {
      summary: 'Accepts an invitation',
      more: 'One that was used or withdrawn, has expired or never was is 404.',
      body: acceptance,
      answer: z.object({ team: text }),
      errors: ['denied', 'not_found', 'conflict'],
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
    'GET /v1/usage': {
      summary: 'Shows how much entities use of what they may',
      more: "With `entity` that one's record; without it, a page of the asker's own, or of all for staff and administrators.",
      query: z.object({
        entity: z.optional(text),
        after: said(z.optional(text), '`next` of the page before.'),
      }),
      answer: z.union([usage, z.object({ usages: z.array(usage), next: z.nullable(text) })]),
      errors: ['denied', 'not_found'],
    },
    'PUT /v1/quota': {
      summary: 'Sets how many bytes the images of an entity may take',
      more: 'Null is SREG_DEFAULT_QUOTA, `none` no limit. Nothing that is there is deleted.',
      body: newQuota,
      answer: usage,
      errors: ['not_found'],
    },
    'GET /v1/stats': {
      summary: 'Shows stars, and pulls in all and of the last twelve weeks',
      query: place,
      answer: z.object({
        total: count,
        stars: count,
        weeks: z.array(z.object({ week: said(text, 'Its Monday, as 2030-01-07.'), count })),
      }),
      errors: ['not_found'],
    },
    'GET /v1/stars': {
      summary: 'Lists what the asker has given a star and still sees',
      answer: z.array(z.object({ ref: text, stars: count, starredAt: time })),
    },
    'PUT /v1/stars': {
      summary: 'Gives a container a star',
      body: newStar,
      answer: newStar,
      errors: ['denied', 'not_found'],
    },
    'DELETE /v1/stars': {
      summary: 'Takes a star back',
      query: place,
      answer: newStar,
      errors: ['denied', 'not_found'],
    },
    'GET /v1/shares': {
      summary: 'Lists share links, without their secrets',
      more: "The asker's own; with `ref` those of that container, all of them for its owner.",
      query: z.object({ ref: said(z.optional(text), 'entity/collection/container') }),
      answer: z.array(share),
      errors: ['denied', 'not_found'],
    },
    'POST /v1/shares': {
      summary: 'Makes a link that hands out one image to whoever has it',
      more: 'For who may push there. Without a life it is a week, or what is left of the token. The address is shown this once.',
      body: newShare,
      answer: z.object({ id, expiresAt: time, count: often, url: text, path: text }),
      errors: ['not_found', 'conflict'],
    },
    'DELETE /v1/shares/:id': {
      summary: 'Ends a share link and the downloads that it has allowed',
      params: { id: 'Id of the link.' },
      answer: z.object({ id }),
      errors: ['denied'],
    },
    'POST /v1/first-admin': {
      summary: "Gives an administrator's token for the setup secret",
      more: 'The secret of the deployment is good once.',
      body: claim,
      answer: z.object({ user: text, id, token: secret, expiresAt: time }),
      errors: ['denied', 'unavailable'],
    },

    'GET /v1/audit': {
      summary: 'Shows who did what, the newest first',
      more: 'Pages may be short, or empty, while `next` is not null: then ask on with it as `after`.',
      query: auditQuery,
      answer: z.object({ entries: z.array(entry), next: z.nullable(text) }),
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
    'GET /v1/imports': {
      summary: 'Lists the imports that have not ended',
      answer: z.array(openImport),
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
    'PUT /v1/imports/:id/blobs/:digest/parts/:part': {
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
