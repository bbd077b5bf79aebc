/** What every Database must do with the audit log: one row for each change, in its batch (R57). */
import { describe, expect } from 'vitest'
import type { AuditEntry } from '../../src/core/model.ts'
import type { AuditFilter, Database, Denial } from '../../src/ports.ts'
import { operator } from '../fixtures/operator.ts'
import { at, digestOf, GUARDED, makeLab, newId, outcome, type Lab, type World } from './database.ts'
import { factsOfKey } from './keys.ts'

type Test = (title: string, run: (world: World) => Promise<void>, needsRaw?: boolean) => void

export const ALL: AuditFilter = {
  actor: '',
  action: '',
  ref: '',
  outcome: null,
  since: new Date(0),
  until: new Date(8.64e15),
}

/** A change: what the row about it says, and the call, which makes the same change each time. */
type Change = {
  row: Partial<Record<keyof AuditEntry, unknown>>
  /** Prepares what the change is about. */
  make: (world: World, lab: Lab) => Promise<() => Promise<unknown>>
  /** The same call once more changes nothing, or is refused: then there is no second row. */
  twice?: 'another row'
}

const guarded = (method: string) => async (world: World, lab: Lab) => () =>
  GUARDED[method]!(world, lab, lab.owner.writer)

const box = { entity: 'lab', collection: 'tools', container: 'needle' }
const keyOf = (by = operator()) => ({ expected: 0, show: false, by, now: at() })
const user = (name: string) => ({
  id: newId(),
  entityId: newId(),
  name,
  role: 'user' as const,
  disabled: false,
  createdAt: at(),
})
const tokenOf = (userId: string) => ({
  id: newId(),
  userId,
  name: 'laptop',
  scopes: ['pull' as const],
  createdAt: at(),
  expiresAt: at(60),
})

type Person = Lab['owner']
const crewOf = ({ user: { name } }: Person, change: { open?: boolean } = {}) => ({
  id: newId(),
  name: 'crew',
  description: '',
  open: false,
  owner: name,
  anybody: true,
  ...change,
})
/** A team of theirs. */
async function crew(world: World, who: Person, change: { open?: boolean } = {}): Promise<string> {
  const draft = crewOf(who, change)
  await world.database.teams.create({ ...draft, by: who.writer })
  return draft.id
}
const invitationTo = (teamId: string) => ({
  id: newId(),
  teamId,
  hash: digestOf(newId()),
  expiresAt: at(60),
})
const linkTo = ({ stored, owner }: Lab) => ({
  id: newId(),
  imageId: stored.id,
  hash: digestOf(newId()),
  note: '',
  createdBy: owner.user.id,
  expiresAt: at(60),
  count: null,
  by: owner.writer,
})

const BLOB = 'b'.repeat(64)
/** A whole blob that is about to become the repository's. */
async function uploaded({ database }: World, { stored, owner }: Lab) {
  const { containerId } = stored
  const { writer } = owner
  const upload = { id: newId(), key: newId(), containerId, createdAt: at(), expiresAt: at(60) }
  await database.ociUploads.open(upload, writer, { perUser: 100 })
  const claim = newId()
  await database.ociUploads.claim(upload.id, {
    claim,
    at: 0,
    coming: 7,
    sha256: null,
    tailKey: newId(),
    now: at(),
    leaseUntil: at(1),
    expiresAt: at(60),
    free: null,
    defaultQuota: null,
  })
  const done = { containerId, digest: `sha256:${BLOB}`, sha256: BLOB, size: 7, key: upload.key }
  const finish = () =>
    database.ociUploads.finish(upload.id, claim, {
      ...done,
      blobId: newId(),
      defaultQuota: null,
      writer,
    })
  return { finish, containerId, digest: done.digest, writer }
}

const MANIFEST = {
  digest: `sha256:${'0'.repeat(64)}`,
  mediaType: 'application/vnd.oci.image.index.v1+json',
  size: 2,
  subject: null,
  artifactType: '',
  annotations: null,
  text: '{}',
}

/**
 * Every method of a Database: the changes it makes, `reads`, or why what it writes is not audited. A
 * new method has no place here, and fails until it has one.
 */
const METHODS: Record<string, Change[] | 'reads' | { not: string }> = {
  'catalog.createEntity': [
    {
      row: { action: 'entity.create', name: 'guests', object: /^entity [0-9a-f]{24}$/ },
      make: async (world, { owner }) => {
        const draft = { name: 'guests', description: '', ownerId: owner.user.id }
        return () =>
          world.database.catalog.createEntity({ id: newId(), ...draft, writer: world.root.writer })
      },
    },
  ],
  'catalog.createCollection': [
    {
      row: { action: 'collection.create', name: 'lab/new', detail: 'public' },
      make: guarded('createCollection'),
    },
  ],
  'catalog.createContainer': [
    {
      row: { action: 'container.create', name: 'lab/tools/new', detail: 'public' },
      make: guarded('createContainer'),
    },
  ],
  'catalog.createImage': { not: 'a record without bytes' },
  'catalog.attach': [
    {
      row: {
        action: 'image.push',
        name: 'lab/tools/needle',
        detail: /^sha256\.[0-9a-f]{64}, 100 bytes, uploaded$/,
        actor: 'lab-owner',
        address: '192.0.2.7',
      },
      make: guarded('attach from an upload'),
    },
    {
      row: { action: 'image.push', name: 'lab/tools/needle', detail: /, 100 bytes, stored copy$/ },
      make: guarded('attach from a stored blob'),
    },
  ],
  'catalog.setTag': [
    {
      row: {
        action: 'tag.set',
        name: 'lab/tools/needle:new',
        detail: /^amd64, new, to image \w+$/,
      },
      make: guarded('setTag'),
    },
    {
      row: {
        action: 'tag.set',
        name: 'lab/tools/needle:latest',
        detail: /^amd64, from image \w+, to image \w+$/,
      },
      async make(world, { place, owner, attachment }) {
        await world.database.catalog.attach(attachment)
        const change = { containerId: place.id, arch: null, tag: 'latest' }
        const { imageId } = attachment
        return () => world.database.catalog.setTag({ ...change, imageId, writer: owner.writer })
      },
    },
  ],
  'catalog.deleteTag': [
    {
      row: {
        action: 'tag.delete',
        name: 'lab/tools/needle:latest',
        detail: 'amd64, the image with it',
      },
      make: guarded('deleteTag'),
    },
    {
      row: { action: 'tag.delete', name: 'lab/tools/needle:latest', detail: 'amd64' },
      async make(world, lab) {
        await world.tag(lab.owner, lab.place.id, lab.stored.id, 'kept')
        return () => GUARDED['deleteTag']!(world, lab, lab.owner.writer)
      },
    },
  ],
  'catalog.deleteImage': [
    {
      row: {
        action: 'image.delete',
        name: 'lab/tools/needle',
        detail: /^sha256\.[0-9a-f]{64}, 100 bytes, tags latest$/,
      },
      make: guarded('deleteImage'),
    },
  ],
  'catalog.setPrivate': [
    {
      row: { action: 'privacy.set', name: 'lab/tools/needle', detail: 'private' },
      make: async (world) => () => world.database.catalog.setPrivate(box, true, operator()),
    },
    {
      row: { action: 'privacy.set', name: 'lab/tools', detail: 'private', actor: 'cli:test' },
      make: async (world) => () =>
        world.database.catalog.setPrivate({ ...box, container: null }, true, operator()),
    },
  ],
  'signatures.setPolicy': [
    {
      row: { action: 'policy.set', name: 'lab/tools', detail: 'require ABC' },
      async make({ database }, { place, owner }) {
        const policy = { mode: 'require' as const, fingerprints: ['ABC'] }
        const change = { collectionId: place.collectionId, policy, by: owner.writer }
        return () => database.signatures.setPolicy(change)
      },
    },
  ],
  'users.create': [
    {
      row: { action: 'user.create', name: 'newcomer', detail: 'user', actor: 'root' },
      make: async ({ database, root }) => {
        return () => database.users.create(user('newcomer'), root.writer)
      },
    },
  ],
  // of a registry without an administrator: see below
  'users.createFirstAdmin': [],
  'users.claimAdmin': [
    {
      row: { action: 'admin.claim', name: 'root', actor: 'setup secret', address: '192.0.2.1' },
      async make({ database }) {
        const by = { operator: 'setup secret', address: '192.0.2.1', now: at() }
        const { userId: _, ...token } = tokenOf('')
        return () => database.users.claimAdmin('claim', user('admin'), token, by)
      },
    },
  ],
  'users.vouch': [
    {
      row: { action: 'token.vouch', detail: 'pull in lab/tools' },
      async make({ database }) {
        const { userId: _, ...token } = tokenOf('')
        const identity = { userId: newId(), name: 'oidc:ci', subject: 'https://ci.test|repo:a' }
        const grant = { id: newId(), collection: 'lab/tools', level: 2 as const }
        return () => database.users.vouch({ ...identity, token, grant, now: at() })
      },
    },
  ],
  'tokens.insert': [
    {
      row: {
        action: 'token.create',
        name: 'lab-owner',
        detail: 'pull, until 2030-01-01T01:00:00Z, laptop',
      },
      async make({ database, root }, { owner }) {
        return () => database.tokens.insert(tokenOf(owner.user.id), root.writer)
      },
      twice: 'another row',
    },
  ],
  'tokens.revoke': [
    {
      row: { action: 'token.revoke', name: 'lab-owner', detail: 'laptop' },
      make: async ({ database, root }, { owner }) => {
        return () => database.tokens.revoke(owner.tokenId, root.writer)
      },
    },
  ],
  'keys.put': [
    {
      row: { action: 'key.add', object: /^key [0-9A-F]{40}$/, actor: '', address: '192.0.2.9' },
      async make({ database }) {
        const by = { address: '192.0.2.9', now: at() }
        const change = { facts: factsOfKey(), ...keyOf(), by }
        return () => database.keys.put(change)
      },
    },
    {
      row: { action: 'key.merge', actor: 'lab-owner' },
      async make({ database }, { owner }) {
        const change = { facts: factsOfKey(), ...keyOf() }
        await database.keys.put(change)
        return () => database.keys.put({ ...change, expected: 1, by: owner.writer })
      },
    },
    {
      row: { action: 'key.claim', detail: 'for lab-owner' },
      async make({ database }, { owner }) {
        const change = { facts: factsOfKey(), ...keyOf() }
        await database.keys.put(change)
        const ownerId = owner.user.id
        return () => database.keys.put({ ...change, expected: 1, ownerId, by: owner.writer })
      },
    },
  ],
  'keys.remove': [
    {
      row: { action: 'key.remove', detail: 'hidden' },
      async make({ database }) {
        const facts = factsOfKey()
        await database.keys.put({ facts, ...keyOf() })
        const change = { forGood: false, by: operator(), now: at() }
        return () => database.keys.remove(facts.fingerprint, change)
      },
    },
  ],
  'exports.begin': [
    {
      row: { action: 'export', object: 'export 123', actor: 'root' },
      make: async ({ database, root }) => {
        return () => database.exports.begin('123', root.writer)
      },
      twice: 'another row',
    },
  ],
  'imports.finish': [
    {
      row: { action: 'import', name: /^\w+$/, detail: 'entity 1, user 1' },
      async make({ database }) {
        const { imports } = database
        const draft = { id: newId(), exportId: newId(), now: at(), expiresAt: at(60) }
        const { id } = await imports.open(draft)
        const times = { createdAt: 0, updatedAt: 0 }
        const userId = newId()
        const [moved, entity] = [
          { type: 'user', id: userId, name: 'moved', role: 'user', disabled: false, ...times },
          {
            type: 'entity',
            id: newId(),
            ownerId: userId,
            name: 'moved',
            description: '',
            ...times,
          },
        ]
        await imports.stageRows(
          id,
          [
            { kind: 'user', parentId: '', ...moved, record: JSON.stringify(moved) },
            {
              kind: 'entity',
              parentId: userId,
              ...entity,
              record: JSON.stringify({ defaultPrivate: false, ...entity }),
            },
          ].map(({ kind, id: rowId, parentId, name, record }) => ({
            kind: kind as 'user' | 'entity',
            id: rowId,
            parentId,
            name,
            record,
          })),
          at(60),
        )
        const options = { sha256: 'f'.repeat(64), rows: 2, sameIssuer: false, keepPower: false }
        return () => imports.finish(id, { ...options, by: operator() })
      },
    },
  ],

  'catalog.setFrozen': [
    {
      row: { action: 'frozen.set', name: 'lab/tools/needle:latest', detail: 'frozen amd64' },
      async make({ database }, { place, owner }) {
        const change = { containerId: place.id, tag: 'latest', arch: 'amd64', frozen: true }
        return () => database.catalog.setFrozen({ ...change, by: owner.writer })
      },
      twice: 'another row',
    },
  ],
  'catalog.deleteContainer': [
    {
      row: { action: 'container.delete', name: 'lab/tools/needle' },
      async make({ database }, { place, owner }) {
        return () => database.catalog.deleteContainer(place.id, owner.writer)
      },
    },
  ],
  'catalog.deleteCollection': [
    {
      row: { action: 'collection.delete', name: 'lab/tools' },
      async make({ database }, { place, owner }) {
        return () => database.catalog.deleteCollection(place.collectionId, owner.writer)
      },
    },
  ],
  'grants.set': [
    {
      row: { action: 'grant.set', name: 'lab/tools', detail: 'user lab-donor reader' },
      async make({ database }, { place, owner, donor }) {
        const to = { user: donor.user.name }
        const change = { id: newId(), collectionId: place.collectionId, to, level: 1 as const }
        return () => database.grants.set({ ...change, by: owner.writer })
      },
      twice: 'another row',
    },
  ],
  'teams.create': [
    {
      row: { action: 'team.create', name: 'crew', detail: 'lab-owner' },
      async make(world, { owner }) {
        return () => world.database.teams.create({ ...crewOf(owner), by: owner.writer })
      },
    },
  ],
  'teams.change': [
    {
      row: { action: 'team.change', name: 'crew', detail: 'open' },
      async make(world, { owner }) {
        const change = { teamId: await crew(world, owner), description: null, open: true }
        return () => world.database.teams.change({ ...change, by: owner.writer })
      },
      twice: 'another row',
    },
  ],
  'teams.delete': [
    {
      row: { action: 'team.delete', name: 'crew' },
      async make(world, { owner }) {
        const teamId = await crew(world, owner)
        return () => world.database.teams.delete(teamId, owner.writer)
      },
    },
  ],
  'teams.setMember': [
    {
      row: { action: 'team.member', name: 'crew', detail: 'lab-donor member' },
      async make(world, { owner, donor }) {
        const change = { teamId: await crew(world, owner), user: donor.user.name, owner: false }
        return () => world.database.teams.setMember({ ...change, by: owner.writer })
      },
      twice: 'another row',
    },
  ],
  'teams.removeMember': [
    {
      row: { action: 'team.remove', name: 'crew', detail: 'lab-donor' },
      async make(world, { owner, donor }) {
        const change = { teamId: await crew(world, owner), user: donor.user.name, by: owner.writer }
        await world.database.teams.setMember({ ...change, owner: false })
        return () => world.database.teams.removeMember(change)
      },
    },
  ],
  'teams.join': [
    {
      row: { action: 'team.join', name: 'crew', actor: 'lab-donor' },
      async make(world, { owner, donor }) {
        const teamId = await crew(world, owner, { open: true })
        return () => world.database.teams.join(teamId, donor.writer)
      },
    },
  ],
  'teams.invite': [
    {
      row: { action: 'team.invite', name: 'crew', actor: 'lab-owner' },
      async make(world, { owner }) {
        const teamId = await crew(world, owner)
        return () => world.database.teams.invite({ ...invitationTo(teamId), by: owner.writer })
      },
      twice: 'another row',
    },
  ],
  'teams.revokeInvitation': [
    {
      row: { action: 'team.uninvite', name: 'crew' },
      async make(world, { owner }) {
        const invitation = invitationTo(await crew(world, owner))
        await world.database.teams.invite({ ...invitation, by: owner.writer })
        const { id, teamId } = invitation
        return () => world.database.teams.revokeInvitation({ id, teamId, by: owner.writer })
      },
    },
  ],
  'teams.accept': [
    {
      row: { action: 'team.join', name: 'crew', actor: 'lab-donor' },
      async make(world, { owner, donor }) {
        const invitation = invitationTo(await crew(world, owner))
        await world.database.teams.invite({ ...invitation, by: owner.writer })
        return () => world.database.teams.accept(invitation.hash, donor.writer)
      },
    },
  ],
  'people.add': [
    {
      row: { action: 'user.create', name: 'newcomer', detail: 'staff', actor: 'root' },
      async make({ database, root }) {
        const { id, entityId, name } = user('newcomer')
        const draft = { id, entityId, name, role: 'staff' as const, managerId: null }
        return () => database.people.add(draft, root.writer)
      },
    },
  ],
  'people.change': [
    {
      row: { action: 'user.change', name: 'lab-donor' },
      async make({ database, root }, { donor }) {
        return () => database.people.change(donor.user.id, { disabled: true }, root.writer)
      },
    },
  ],
  'people.remove': [
    {
      row: { action: 'user.delete', name: 'lab-donor', detail: 'with everything' },
      async make({ database, root }, { donor }) {
        return () => database.people.remove(donor.user.id, null, root.writer)
      },
    },
  ],
  'people.free': [
    {
      row: { action: 'user.free', name: 'lab-donor' },
      async make({ database, root }, { donor }) {
        await database.people.remove(donor.user.id, null, root.writer)
        return () => database.people.free(donor.user.id, root.writer)
      },
    },
  ],
  'people.issue': [
    {
      row: { action: 'token.create', name: 'lab-owner', actor: 'root' },
      async make({ database, root }, { owner }) {
        const bound = { collectionId: '', containerId: '' }
        return () => database.people.issue({ ...tokenOf(owner.user.id), ...bound }, root.writer)
      },
      twice: 'another row',
    },
  ],
  'people.revoke': [
    {
      row: { action: 'token.revoke', name: 'lab-donor', detail: 'laptop' },
      async make({ database, root }, { donor }) {
        return () => database.people.revoke(donor.tokenId, root.writer)
      },
    },
  ],
  'people.transfer': [
    {
      row: { action: 'entity.transfer', name: 'lab', detail: 'from lab-owner to lab-donor' },
      async make({ database, root }, { entity, owner, donor }) {
        const change = { entityId: entity.id, from: owner.user.id, to: donor.user.id }
        return () => database.people.transfer(change, root.writer)
      },
    },
  ],
  'quotas.setQuota': [
    {
      row: { action: 'quota.set', name: 'lab', detail: '4096 bytes' },
      async make({ database, root }, { entity }) {
        const change = { entityId: entity.id, quota: 4096, by: root.writer }
        return () => database.quotas.setQuota(change)
      },
      twice: 'another row',
    },
  ],
  'popularity.setStar': [
    {
      row: { action: 'star.add', name: 'lab/tools/needle' },
      async make({ database }, { place, donor }) {
        const change = { containerId: place.id, given: true, by: donor.writer }
        return () => database.popularity.setStar(change)
      },
    },
    {
      row: { action: 'star.remove', name: 'lab/tools/needle' },
      async make({ database }, { place, donor }) {
        const change = { containerId: place.id, by: donor.writer }
        await database.popularity.setStar({ ...change, given: true })
        return () => database.popularity.setStar({ ...change, given: false })
      },
    },
  ],
  'shares.create': [
    {
      row: { action: 'share.create', name: /^lab\/tools\/needle:sha256\.[0-9a-f]{64}$/ },
      async make({ database }, lab) {
        return () => database.shares.create(linkTo(lab))
      },
      twice: 'another row',
    },
  ],
  'shares.revoke': [
    {
      row: { action: 'share.revoke', name: /^lab\/tools\/needle:sha256\.[0-9a-f]{64}$/ },
      async make({ database }, lab) {
        const link = linkTo(lab)
        await database.shares.create(link)
        return () => database.shares.revoke(link.id, lab.owner.writer)
      },
    },
  ],

  'shares.take': { not: 'counts' },
  'shares.prune': { not: 'the sweep’s' },
  'popularity.forgetWeeks': { not: 'the sweep’s' },
  'catalog.mergeIndex': { not: 'the sweep’s' },
  'catalog.markLost': { not: 'what the store says' },
  'catalog.pullImage': { not: 'counts' },
  'catalog.countDownloads': { not: 'counts' },
  'tokens.touch': { not: 'counts' },
  'counters.add': { not: 'counts' },
  'counters.prune': { not: 'the sweep’s' },
  'manifests.repository': 'reads',
  'manifests.member': 'reads',
  'manifests.readableMember': 'reads',
  'manifests.mount': [
    {
      row: { action: 'blob.mount', name: `lab/tools/copy@sha256:${BLOB}`, detail: '7 bytes' },
      make: async (world, lab) => {
        const { finish, digest, writer } = await uploaded(world, lab)
        await finish()
        const { manifests } = world.database
        const blob = await manifests.readableMember(digest, null, lab.owner.viewer, at())
        const { id: containerId } = await world.container(lab.owner, 'lab/tools/copy')
        const change = { containerId, digest, blobId: blob?.id ?? '', defaultQuota: null, writer }
        return () => manifests.mount(change)
      },
    },
  ],
  'manifests.removeMember': [
    {
      row: { action: 'blob.delete', name: `lab/tools/needle@sha256:${BLOB}`, detail: '' },
      make: async (world, lab) => {
        const { finish, containerId, digest, writer } = await uploaded(world, lab)
        await finish()
        return () => world.database.manifests.removeMember(containerId, digest, writer)
      },
    },
  ],
  'manifests.manifest': 'reads',
  'manifests.lacking': 'reads',
  'manifests.indexed': 'reads',
  'manifests.unnoted': 'reads',
  'manifests.imagesOf': 'reads',
  'manifests.note': { not: 'what an image is already' },
  'manifests.put': [
    {
      row: { action: 'manifest.put', name: `lab/tools/needle@${MANIFEST.digest}` },
      make: async (world, { stored, owner }) => {
        const { containerId } = stored
        const { manifests } = world.database
        return () =>
          manifests.put({
            containerId,
            manifest: MANIFEST,
            refs: [],
            tags: [],
            writer: owner.writer,
          })
      },
    },
    {
      row: { action: 'tag.set', name: 'lab/tools/needle:a b' },
      make: async (world, { stored, owner }) => {
        const { manifests } = world.database
        const change = {
          containerId: stored.containerId,
          manifest: MANIFEST,
          refs: [],
          writer: owner.writer,
        }
        await manifests.put({ ...change, tags: [] })
        return () => manifests.put({ ...change, tags: ['a', 'b'] })
      },
    },
  ],
  'manifests.remove': [
    {
      row: { action: 'manifest.delete', name: `lab/tools/needle@${MANIFEST.digest}` },
      make: async (world, { stored, owner }) => {
        const { containerId } = stored
        const { manifests } = world.database
        const { writer } = owner
        await manifests.put({ containerId, manifest: MANIFEST, refs: [], tags: [], writer })
        const selector = { by: 'digest', digest: MANIFEST.digest } as const
        return () => manifests.remove(containerId, selector, writer)
      },
    },
  ],
  'manifests.tags': 'reads',
  'manifests.referrers': 'reads',
  'manifests.repositories': 'reads',
  'manifests.sweepMembers': { not: 'the sweep’s' },
  'ociUploads.open': { not: 'bytes on their way' },
  'ociUploads.find': 'reads',
  'ociUploads.claim': { not: 'bytes on their way' },
  'ociUploads.setHandle': { not: 'bytes on their way' },
  'ociUploads.advance': { not: 'bytes on their way' },
  'ociUploads.renew': { not: 'bytes on their way' },
  'ociUploads.release': { not: 'bytes on their way' },
  'ociUploads.parts': 'reads',
  'ociUploads.finish': [
    {
      row: {
        action: 'blob.push',
        name: `lab/tools/needle@sha256:${BLOB}`,
        detail: '7 bytes, uploaded',
        object: /^container [0-9a-f]{24}$/,
      },
      make: async (world, lab) => (await uploaded(world, lab)).finish,
    },
    {
      row: { action: 'blob.push', detail: '7 bytes, stored copy' },
      make: async (world, lab) => {
        const { finish, containerId, digest, writer } = await uploaded(world, lab)
        await finish()
        await world.database.manifests.removeMember(containerId, digest, writer)
        return (await uploaded(world, lab)).finish
      },
    },
  ],
  'ociUploads.end': { not: 'bytes on their way' },
  'ociUploads.expire': { not: 'the sweep’s' },
  'ociUploads.leftovers': 'reads',
  'ociUploads.forgetKeys': { not: 'the sweep’s' },
  'uploads.open': { not: 'bytes on their way' },
  'uploads.setHandle': { not: 'bytes on their way' },
  'uploads.claim': { not: 'bytes on their way' },
  'uploads.renew': { not: 'bytes on their way' },
  'uploads.close': { not: 'bytes on their way' },
  'uploads.expire': { not: 'the sweep’s' },
  'uploads.forget': { not: 'the sweep’s' },
  'blobs.markDying': { not: 'the sweep’s' },
  'blobs.forget': { not: 'the sweep’s' },
  'ended.prune': { not: 'the sweep’s' },
  'signatures.settle': { not: 'judged by the registry itself' },
  'signatures.record': { not: 'judged by the registry itself' },
  'signatures.window': { not: 'the sweep’s' },
  'settings.setOnce': { not: 'the registry’s own notes' },
  'settings.set': { not: 'the registry’s own notes' },
  'imports.open': { not: 'invisible until it is finished' },
  'imports.stageRows': { not: 'invisible until it is finished' },
  'imports.stageBlob': { not: 'invisible until it is finished' },
  'imports.setHandle': { not: 'invisible until it is finished' },
  'imports.stagedNames': 'reads',
  'imports.stagedManifest': 'reads',
  'imports.readyBlob': { not: 'invisible until it is finished' },
  'imports.abort': { not: 'invisible until it is finished' },
  'imports.expire': { not: 'the sweep’s' },
  'imports.forgetKeys': { not: 'the sweep’s' },
  'imports.tidy': { not: 'the sweep’s' },
  'audit.denied': { not: 'the log itself' },
  'audit.prune': { not: 'the log itself' },

  ...Object.fromEntries(
    Object.entries({
      catalog:
        'ownEntities findEntity findCollection findContainer findImage entityById collectionById containerById imageById entityParent readableBlob taggable listTags search',
      uploads: 'find forImage closed',
      blobs: 'dying known liveCount',
      signatures: 'keysOf stale unexamined standing',
      users: 'byName list',
      people: 'find list robots tokens token',
      tokens: 'standing listFor',
      teams: 'list find invitations',
      grants: 'list',
      keys: 'named containing find several list',
      quotas: 'usages',
      popularity: 'weeks starred',
      shares: 'find list look',
      ended: 'since',
      counters: 'read',
      settings: 'get',
      exports: 'rows blob',
      imports: 'find list stagedBlob conflicts report leftovers',
      audit: 'list',
    })
      .flatMap(([book, methods]) => methods.split(' ').map((method) => `${book}.${method}`))
      .concat('ping', 'now')
      .map((method) => [method, 'reads' as const]),
  ),
}

/** Actions that the table above knows of. */
export const ACTIONS = [
  ...new Set(
    Object.values(METHODS)
      .flatMap((entry) => (Array.isArray(entry) ? entry : []))
      .map(({ row }) => String(row.action)),
  ),
]

const methodsOf = (database: Database): string[] =>
  Object.entries(database).flatMap(([book, methods]) =>
    typeof methods === 'function'
      ? [book]
      : Object.keys(methods as object).map((method) => `${book}.${method}`),
  )

export function describeAudit(test: Test): void {
  const rowsOf = async ({ database }: World, filter: Partial<AuditFilter> = {}) =>
    (await database.audit.list({ ...ALL, ...filter }, { after: null, limit: 1000 })).entries
  /** The rows of `after` that are not in `before`. */
  const added = (before: AuditEntry[], after: AuditEntry[]) => {
    const left = before.map((row) => JSON.stringify(row))
    return after.filter((row) => {
      const place = left.indexOf(JSON.stringify(row))
      if (place < 0) return true
      left.splice(place, 1)
      return false
    })
  }

  describe('the audit log (R57)', () => {
    test('knows every method of the database', async ({ database }) => {
      expect(methodsOf(database).toSorted()).toEqual(Object.keys(METHODS).toSorted())
    })

    for (const [method, changes] of Object.entries(METHODS))
      if (Array.isArray(changes))
        for (const [index, { row, make, twice }] of changes.entries())
          test(`${method} writes one row in its batch (${index + 1})`, async (world) => {
            const lab = await makeLab(world, 'lab')
            const change = await make(world, lab)
            const before = await rowsOf(world)
            const trips = world.trips().length
            expect(await outcome(change())).toBe('ok')
            expect(world.trips().slice(trips)).toMatchObject([{ kind: 'write' }])
            const after = await rowsOf(world)
            const [made, ...others] = added(before, after)
            expect(others).toEqual([])
            for (const [field, expected] of Object.entries(row)) {
              const value = made?.[field as keyof AuditEntry]
              if (expected instanceof RegExp)
                expect([field, value]).toEqual([field, expect.stringMatching(expected)])
              else expect([field, value]).toEqual([field, expected])
            }
            expect(made).toMatchObject({ outcome: 'done', count: 1 })
            // once more: it is done already, or refused
            await outcome(change())
            expect(added(after, await rowsOf(world))).toHaveLength(twice === undefined ? 0 : 1)
          })

    test('who it was: name, token and address of that time', async (world) => {
      const alice = await world.person('alice')
      await world.container(alice, 'alice/c/n')
      const [row] = await rowsOf(world, { action: 'container.create' })
      expect(row).toEqual({
        at: at(),
        actorId: alice.user.id,
        actor: 'alice',
        tokenId: alice.tokenId,
        address: '192.0.2.7',
        action: 'container.create',
        object: expect.stringMatching(/^container [0-9a-f]{24}$/) as string,
        name: 'alice/c/n',
        outcome: 'done',
        detail: 'public',
        count: 1,
      })
    })

    test('pages of everybody and of an actor, by action, name, object, outcome and time', async (world) => {
      const { audit, tokens } = world.database
      const alice = await world.person('alice')
      for (let minute = 1; minute <= 7; minute++) {
        const by = { ...alice.writer, now: at(minute) }
        await tokens.insert({ ...tokenOf(alice.user.id), name: `token ${minute}` }, by)
      }
      const all = await rowsOf(world)
      const paged: AuditEntry[] = []
      let after: string | null = null
      do {
        const page: Awaited<ReturnType<typeof audit.list>> = await audit.list(ALL, {
          after,
          limit: 2,
        })
        expect(page.entries.length).toBeGreaterThan(0)
        paged.push(...page.entries)
        after = page.next
      } while (after !== null)
      expect(paged).toEqual(all)
      const names = async (filter: Partial<AuditFilter>) =>
        (await rowsOf(world, filter)).map(({ detail }) => /token (\d)/.exec(detail)?.[1])
      expect(await names({ actor: 'alice' })).toEqual(['7', '6', '5', '4', '3', '2', '1'])
      expect(await names({ actor: 'alic' })).toEqual([])
      expect(await names({ since: at(3), until: at(6) })).toEqual(['5', '4', '3'])
      expect(await names({ actor: 'alice', action: 'token', since: at(6) })).toEqual(['7', '6'])
      expect(await names({ actor: 'alice', action: 'tok' })).toEqual([])
      expect(await names({ actor: 'alice', outcome: 'denied' })).toEqual([])
      const [newest] = await rowsOf(world, { actor: 'alice' })
      expect(await rowsOf(world, { ref: newest!.object })).toEqual([newest])
      expect((await rowsOf(world, { ref: 'ali' })).length).toBeGreaterThan(7)
      // what stands in a filter is text and no pattern
      for (const ref of ['%', '_', "'", '\0'])
        expect([ref, await rowsOf(world, { ref })]).toEqual([ref, []])
      const half = await audit.list({ ...ALL, actor: 'alice' }, { after: null, limit: 3 })
      const rest = await audit.list(
        { ...ALL, actor: 'alice', since: at(3) },
        { after: half.next, limit: 9 },
      )
      expect(rest.entries.map(({ detail }) => detail.slice(-7))).toEqual(['token 4', 'token 3'])
      expect(rest.next).toBeNull()
    })

    test('denials of a minute are added up by actor, address and action', async (world) => {
      const { audit } = world.database
      const alice = await world.person('alice')
      const denial: Denial = {
        at: at(1),
        actorId: '',
        tokenId: '',
        address: '192.0.2.1',
        action: 'request',
        detail: 'PUT /v1/x',
        count: 3,
      }
      const hers = {
        ...denial,
        actorId: alice.user.id,
        action: 'PUT /v1/x',
        detail: 'You may not.',
      }
      await audit.denied([denial, hers])
      await audit.denied([
        { ...denial, detail: 'another', count: 4 },
        { ...denial, at: at(2), count: 1 },
        { ...hers, count: 1 },
        { ...hers, action: 'GET /v1/y', count: 1 },
      ])
      await audit.denied([])
      const denied = await rowsOf(world, { outcome: 'denied' })
      expect(
        denied.map(({ at: time, actor, action, detail, count }) => [
          time,
          actor,
          action,
          detail,
          count,
        ]),
      ).toEqual([
        [at(2), '', 'request', 'PUT /v1/x', 1],
        [at(1), 'alice', 'GET /v1/y', 'You may not.', 1],
        [at(1), 'alice', 'PUT /v1/x', 'You may not.', 4],
        [at(1), '', 'request', 'PUT /v1/x', 7],
      ])
    })

    test('fields end at 1 KiB and hide nothing in control characters', async (world) => {
      const { audit, tokens } = world.database
      const alice = await world.person('alice')
      const name = `\u{1b}[2J\n\u202egnp\u2028${'\u{1f511}'.repeat(2000)}`
      await tokens.insert({ ...tokenOf(alice.user.id), name }, { operator: name, now: at(1) })
      const denial = { at: at(2), actorId: '', tokenId: '', action: name, detail: name, count: 1 }
      await audit.denied([{ ...denial, address: name }])
      const rows = await rowsOf(world, { since: at(1) })
      expect(rows).toHaveLength(2)
      for (const value of rows.flatMap((row) => Object.values(row)))
        if (typeof value === 'string') {
          expect(value).not.toMatch(/[\p{C}\p{Zl}\p{Zp}]/u)
          expect(new TextEncoder().encode(value).length).toBeLessThan(1200)
        }
      expect(rows[1]?.detail).toContain(String.raw`\u{1b}[2J\u{a}\u{202e}gnp\u{2028}`)
    })

    test('what is too old or too much goes, the oldest first, in batches', async (world) => {
      const { audit, tokens } = world.database
      const alice = await world.person('alice')
      const total = async () => (await rowsOf(world)).length
      while ((await audit.prune(at(1), 1_000_000, 3)) > 0);
      expect(await total()).toBe(0)
      for (let minute = 1; minute <= 9; minute++)
        await tokens.insert(tokenOf(alice.user.id), { ...alice.writer, now: at(minute) })
      // denials that are counted use up no place
      const denial = { actorId: '', tokenId: '', address: '', action: 'request', detail: '' }
      for (let n = 0; n < 20; n++) await audit.denied([{ ...denial, at: at(10), count: 1 }])
      expect(await audit.prune(at(0), 10, 100)).toBe(0)
      expect(await audit.prune(at(3), 1000, 1)).toBe(1)
      expect(await audit.prune(at(3), 1000, 100)).toBe(1)
      expect(await audit.prune(at(0), 5, 2)).toBe(2)
      expect(await audit.prune(at(0), 5, 2)).toBe(1)
      expect(await audit.prune(at(0), 5, 2)).toBe(0)
      expect((await rowsOf(world)).map((row) => row.at)).toEqual([10, 9, 8, 7, 6].map(at))
    })
  })
}
