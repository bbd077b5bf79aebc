/** What every Database must do, as a suite over a factory; nothing about a backend is in here. */
import { createHash } from 'node:crypto'
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createAccess, DEFAULT_RULES, identify } from '../../src/core/access.ts'
import { containerFacts } from '../../src/core/catalog.ts'
import {
  DEFAULT_SCOPES,
  SCOPES,
  type Container,
  type Image,
  type Level,
  type Role,
  type Scope,
  type SifFacts,
  type Upload,
  type User,
} from '../../src/core/model.ts'
import { isRegistryError, type ErrorCode } from '../../src/errors.ts'
import type { Database, NewUser, Seen, Viewer, Writer } from '../../src/ports.ts'
import { describeIdentities } from './identities.ts'
import { describePeople } from './people.ts'
import { describeCounters } from './counters.ts'
import { describeBridge } from './bridge.ts'
import { describeManifests } from './manifests.ts'
import { ALL, describeAudit } from './audit.ts'
import { describeKeys } from './keys.ts'
import { describeSignatures } from './signatures.ts'
import { describeImports } from './moving.ts'
import { describeQuotas } from './quotas.ts'
import { describeShares } from './shares.ts'
import { describeTeams } from './teams.ts'
import { operator } from '../fixtures/operator.ts'

export type Trip = { kind: 'read' | 'write'; statements: number }

export type MadeDatabase = {
  /** A fresh database with its schema and nothing in it. */
  database: Database
  /** Every round trip so far, in order. */
  trips: () => Trip[]
  dispose: () => Promise<void>
  /** Runs one SQL statement behind the port's back, for states that no method makes. */
  raw?: (sql: string) => Promise<Record<string, unknown>[]>
  /** Every row of every table, where a trip is slow and the port would be asked a hundred times. */
  dump?: () => Promise<unknown>
}

export type DatabaseBackend = {
  make(): Promise<MadeDatabase>
  /** Tests this backend cannot pass, by title, each with the reason. */
  skip?: { test: string; reason: string }[]
  /** Worlds that the property about visibility draws; fewer where a trip is slow. */
  worlds?: number
}

// ---------------------------------------------------------------------------------------------
// A small world: people, places, pushes

/** Minutes after the moment at which every test starts. */
export const at = (minutes = 0) => new Date(Date.UTC(2030, 0, 1) + minutes * 60_000)
/** Later than everything that any test does. */
const LATER = at(1_000_000)

/** Whoever can write the data folder. */
export const byOperator = (now: Date) => ({ operator: 'cli:test', now })

let ids = 0
export const newId = () => (ids += 1).toString(16).padStart(24, '0')
export const digestOf = (word: string) => createHash('sha256').update(word).digest('hex')

export const factsOf = (facts: Partial<SifFacts> = {}): SifFacts => ({
  arch: 'amd64',
  signed: false,
  fingerprints: [],
  encrypted: false,
  definition: null,
  labels: {},
  partitions: [],
  truncated: [],
  ...facts,
})

type Person = {
  user: User
  tokenId: string
  viewer: NonNullable<Viewer>
  writer: Writer
}

type Push = {
  description?: string
  size?: number
  facts?: Partial<SifFacts>
  tag?: string
}

export type World = Awaited<ReturnType<typeof worldOf>>
type Attachment = Parameters<Database['catalog']['attach']>[0]

export async function worldOf(made: MadeDatabase) {
  const { database } = made
  const { catalog, uploads, users, tokens } = database
  const touched = { images: new Set<string>(), uploads: new Set<string>(), keys: new Set<string>() }

  /** A token of a user, and who they are with it. */
  async function token(
    user: User,
    scopes: readonly Scope[] = DEFAULT_SCOPES,
    binding: { collectionId?: string; containerId?: string } = {},
  ): Promise<Person> {
    const tokenId = newId()
    await tokens.insert(
      {
        id: tokenId,
        userId: user.id,
        name: 'laptop',
        scopes: [...scopes],
        createdAt: at(),
        expiresAt: at(60 * 24),
        ...binding,
      },
      operator(),
    )
    const admin = user.role === 'admin' && scopes.includes('admin')
    const manages = admin || (user.role === 'staff' && scopes.includes('admin'))
    return {
      user,
      tokenId,
      viewer: { tokenId, userId: user.id, scopes },
      writer: { tokenId, userId: user.id, admin, manages, address: '192.0.2.7', now: at() },
    }
  }

  async function person(name: string, role: Role = 'user', scopes?: Scope[]): Promise<Person> {
    const { user } = await users.create(
      {
        id: newId(),
        entityId: newId(),
        name,
        role,
        disabled: false,
        createdAt: at(),
      },
      operator(),
    )
    return token(user, scopes ?? (role === 'admin' ? SCOPES : DEFAULT_SCOPES))
  }

  /** The container of that path; what is not there of it is made by `who`. */
  async function container(
    who: Person,
    path: string,
    options: { collectionPrivate?: boolean; private?: boolean } = {},
  ): Promise<Container> {
    const [entityName = '', collectionName = '', name = ''] = path.split('/')
    const { writer } = who
    const draft = () => ({ id: newId(), description: '', writer })
    const parent = await catalog.entityParent(entityName, root.viewer, at())
    const entity =
      parent.value.entity ??
      (await catalog.createEntity({ ...draft(), name: entityName, ownerId: who.user.id })).row
    const collection = await catalog.createCollection({
      ...draft(),
      name: collectionName,
      entityId: entity.id,
      private: options.collectionPrivate ?? false,
    })
    const made = await catalog.createContainer({
      ...draft(),
      name,
      collectionId: collection.row.id,
      private: options.private ?? false,
    })
    return made.row
  }

  /** An image's record, without bytes. */
  async function record(who: Person, containerId: string, word: string, description = '') {
    const { row } = await catalog.createImage({
      id: newId(),
      digest: digestOf(word),
      description,
      containerId,
      writer: who.writer,
    })
    touched.images.add(row.id)
    return row
  }

  function draftUpload(who: Person, image: Image, size = 100): Upload {
    const upload: Upload = {
      id: newId(),
      imageId: image.id,
      userId: who.user.id,
      tokenId: who.tokenId,
      blobKey: newId(),
      handle: null,
      size,
      partSize: 64,
      digest: image.digest,
      state: 'open',
      claim: null,
      leaseUntil: null,
      createdAt: at(),
      expiresAt: at(60),
      closedAt: null,
    }
    touched.uploads.add(upload.id)
    touched.keys.add(upload.blobKey)
    return upload
  }

  async function open(who: Person, image: Image, size?: number): Promise<Upload> {
    const upload = draftUpload(who, image, size)
    await uploads.open(upload, who.writer, { perUser: 1000, free: null })
    return upload
  }

  /** An opened and claimed upload, and what `attach` wants to hear of it. */
  async function received(who: Person, image: Image, options: Push = {}) {
    const upload = await open(who, image, options.size)
    const claim = newId()
    expect(await uploads.claim(upload.id, claim, at(1), at(2))).toBe(true)
    const attachment: Attachment = {
      imageId: image.id,
      digest: image.digest,
      size: upload.size,
      facts: factsOf(options.facts),
      writer: who.writer,
      source: { kind: 'upload', uploadId: upload.id, claim, blobId: newId(), key: upload.blobKey },
    }
    return { upload, claim, attachment }
  }

  /** A whole push: record, upload, attach and, when one is named, a tag. */
  async function push(who: Person, containerId: string, word: string, options: Push = {}) {
    const image = await record(who, containerId, word, options.description)
    const { upload, claim, attachment } = await received(who, image, options)
    await catalog.attach(attachment)
    if (options.tag !== undefined) await tag(who, containerId, image.id, options.tag)
    return { id: image.id, containerId, digest: image.digest, upload, claim, attachment }
  }

  async function tag(who: Person, containerId: string, imageId: string, name: string) {
    await catalog.setTag({ containerId, arch: null, tag: name, imageId, writer: who.writer })
  }

  /** The image as an administrator sees its record. */
  const image = async (id: string) => (await catalog.imageById(id, root.viewer, at())).value

  const search = async (viewer: Viewer, ...terms: string[]) => {
    const query = { terms, arch: [], signed: false, limit: 1000 }
    const { value } = await catalog.search(query, viewer, at())
    return value.images.map((found) => found.id).toSorted()
  }

  /** Everything the port tells about everything that was made. */
  async function dump(): Promise<unknown> {
    const sorted = (rows: unknown[]) => rows.map((row) => JSON.stringify(row)).toSorted()
    const { viewer } = root
    const places: unknown[] = []
    for (const { name } of (await catalog.ownEntities(viewer, at())).value) {
      const entity = await catalog.findEntity(name, viewer, at())
      places.push(entity.value)
      for (const id of entity.value?.below.ids ?? []) {
        const { value } = await catalog.collectionById(id, viewer, at())
        const collection = await catalog.findCollection(name, value?.name ?? '', viewer, at())
        places.push(collection.value)
        for (const below of collection.value?.below.ids ?? []) {
          const found = (await catalog.containerById(below, viewer, at())).value
          const path = {
            entity: name,
            collection: value?.name ?? '',
            container: found?.name ?? '',
          }
          places.push((await catalog.findContainer(path, viewer, at())).value)
        }
      }
    }
    const people = await users.list()
    return {
      places,
      people,
      tokens: await Promise.all(people.map((user) => tokens.listFor(user.id))),
      images: (await Promise.all([...touched.images].map(image))).filter(Boolean),
      uploads: (
        await Promise.all(
          [...touched.uploads].map(async (id) => (await uploads.find(id, viewer, at())).value),
        )
      ).filter(Boolean),
      known: [...(await database.blobs.known([...touched.keys]))].toSorted(),
      live: await database.blobs.liveCount(),
      dying: sorted(await database.blobs.dying(LATER, 1000)),
      closed: sorted(await uploads.closed(LATER, 1000)),
      ended: (await database.ended.since(new Date(0))).toSorted(),
      needles: await search(viewer, 'needle'),
      audit: (await database.audit.list(ALL, { after: null, limit: 1000 })).entries,
    }
  }

  const root = await person('root', 'admin')
  return {
    ...made,
    touched,
    root,
    token,
    person,
    container,
    record,
    draftUpload,
    open,
    received,
    push,
    tag,
    image,
    search,
    dump: made.dump ?? dump,
  }
}

/** `ok`, or the code of the RegistryError; any other failure is thrown on. */
export async function outcome(work: Promise<unknown>): Promise<'ok' | ErrorCode> {
  try {
    await work
    return 'ok'
  } catch (error) {
    if (isRegistryError(error)) return error.code
    throw error
  }
}

/** The work fails with that code and changes nothing that anybody can see. */
export async function expectRefused(world: World, code: ErrorCode, work: () => Promise<unknown>) {
  const before = await world.dump()
  expect(await outcome(work())).toBe(code)
  expect(await world.dump()).toEqual(before)
}

// ---------------------------------------------------------------------------------------------
// Guards: every way to lose the right, times every method that writes

/** A user's entity with something of everything in it, ready for every guarded method. */
export async function makeLab(world: World, name: string) {
  const { database, root } = world
  const owner = await world.person(`${name}-owner`)
  const donor = await world.person(`${name}-donor`)
  // an entity that no user is named after, so that it can pass to a user of its name
  const { row: entity } = await database.catalog.createEntity({
    id: newId(),
    name,
    description: '',
    ownerId: owner.user.id,
    writer: root.writer,
  })
  const place = await world.container(owner, `${name}/tools/needle`)
  const elsewhere = await world.container(owner, `${name}/tools/other`)
  const stored = await world.push(owner, place.id, `${name} stored`, { tag: 'latest' })
  const waiting = await world.record(owner, place.id, `${name} waiting`)
  const { attachment, upload, claim } = await world.received(owner, waiting)
  const gift = await world.container(donor, `${name}-donor/tools/gift`)
  const given = await world.push(donor, gift.id, `${name} given`, { tag: 'latest' })
  const wanting = await world.record(owner, place.id, `${name} given`)
  const blob = await database.catalog.readableBlob(wanting.digest, owner.viewer, at())
  expect(blob?.key).toBe(given.upload.blobKey)
  const dedupe: Attachment = {
    imageId: wanting.id,
    digest: wanting.digest,
    size: 100,
    facts: null,
    writer: owner.writer,
    source: { kind: 'blob', blobId: blob?.id ?? '' },
  }
  return {
    owner,
    donor,
    entity,
    place,
    elsewhere,
    stored,
    waiting,
    attachment,
    upload,
    claim,
    gift,
    given,
    dedupe,
  }
}
export type Lab = Awaited<ReturnType<typeof makeLab>>

type Act = (world: World, lab: Lab, writer: Writer) => Promise<unknown>

export const GUARDED: Record<string, Act> = {
  createEntity: ({ database }, { owner }, writer) =>
    database.catalog.createEntity({
      id: newId(),
      // nobody but an administrator makes an entity of another name than their own
      name: writer.admin ? 'a-new-entity' : owner.user.name,
      description: '',
      ownerId: owner.user.id,
      writer,
    }),
  createCollection: ({ database }, { entity }, writer) =>
    database.catalog.createCollection({
      id: newId(),
      name: 'new',
      description: '',
      entityId: entity.id,
      private: false,
      writer,
    }),
  createContainer: ({ database }, { place }, writer) =>
    database.catalog.createContainer({
      id: newId(),
      name: 'new',
      description: '',
      collectionId: place.collectionId,
      private: false,
      writer,
    }),
  createImage: ({ database, touched }, { place }, writer) => {
    const id = newId()
    touched.images.add(id)
    return database.catalog.createImage({
      id,
      digest: digestOf('new'),
      description: '',
      containerId: place.id,
      writer,
    })
  },
  'attach from an upload': ({ database }, { attachment }, writer) =>
    database.catalog.attach({ ...attachment, writer }),
  'attach from a stored blob': ({ database }, { dedupe }, writer) =>
    database.catalog.attach({ ...dedupe, writer }),
  setTag: ({ database }, { place, stored }, writer) =>
    database.catalog.setTag({
      containerId: place.id,
      arch: 'amd64',
      tag: 'new',
      imageId: stored.id,
      writer,
    }),
  deleteTag: ({ database }, { place }, writer) =>
    database.catalog.deleteTag(place.id, 'amd64', 'latest', writer),
  deleteImage: ({ database }, { place, stored }, writer) =>
    database.catalog.deleteImage({ imageId: stored.id, containerId: place.id }, writer),
  'uploads.open': (world, { owner, waiting }, writer) =>
    world.database.uploads.open(world.draftUpload(owner, waiting), writer, {
      perUser: 1000,
      free: null,
    }),
}

/** Each takes the right away and returns the writer who believes to have it still. */
const LOSSES: Record<string, (world: World, lab: Lab) => Promise<Writer>> = {
  'the token was revoked': async ({ database }, { owner }) => {
    await database.tokens.revoke(owner.tokenId, operator())
    return owner.writer
  },
  'there is no such token': async (_, { owner }) => ({ ...owner.writer, tokenId: newId() }),
  'the token is of somebody else': async (_, { owner, donor }) => ({
    ...owner.writer,
    tokenId: donor.tokenId,
  }),
  'the writer owns something else': async (_, { donor }) => donor.writer,
  'the writer is no administrator': async (_, { donor }) => ({ ...donor.writer, admin: true }),
  'the token of the administrator was revoked': async (world) => {
    const { user, tokenId, writer } = await world.token(world.root.user, SCOPES)
    expect(user.role).toBe('admin')
    await world.database.tokens.revoke(tokenId, operator())
    return writer
  },
}

const RAW_LOSSES: typeof LOSSES = {
  'the user was disabled': async (world, { owner }) => {
    await world.raw?.(`UPDATE users SET disabled = 1 WHERE id = '${owner.user.id}'`)
    return owner.writer
  },
  'the administrator was demoted': async (world) => {
    const boss = await world.person(`boss${newId()}`, 'admin')
    await world.raw?.(`UPDATE users SET role = 'user' WHERE id = '${boss.user.id}'`)
    return boss.writer
  },
}

/** Conditions about things, not about the writer. Each breaks one and says what follows. */
const CONDITIONS: {
  title: string
  code: ErrorCode
  /** Breaks the condition and returns the call that was meant to be made all along. */
  lose: (world: World, lab: Lab) => Promise<() => Promise<unknown>>
}[] = [
  {
    title: 'createCollection in an entity that is not there',
    code: 'not_found',
    lose: async (world, lab) => () =>
      GUARDED.createCollection!(
        world,
        { ...lab, entity: { ...lab.entity, id: newId() } },
        lab.owner.writer,
      ),
  },
  {
    title: 'createContainer in a collection that is not there',
    code: 'not_found',
    lose: async (world, lab) => () =>
      GUARDED.createContainer!(
        world,
        { ...lab, place: { ...lab.place, collectionId: newId() } },
        lab.owner.writer,
      ),
  },
  {
    title: 'createImage in a container that is not there',
    code: 'not_found',
    lose: async (world, lab) => () =>
      GUARDED.createImage!(
        world,
        { ...lab, place: { ...lab.place, id: newId() } },
        lab.owner.writer,
      ),
  },
  ...(['owner', 'admin'] as const).flatMap((who): (typeof CONDITIONS)[number][] => {
    const writerFor = (world: World, lab: Lab) =>
      who === 'owner' ? lab.owner.writer : world.root.writer
    const remove = async ({ database }: World, lab: Lab, imageId: string) => {
      const image = { imageId, containerId: lab.place.id }
      expect(await database.catalog.deleteImage(image, lab.owner.writer)).toBe(true)
    }
    return [
      {
        title: `attach from an upload by the ${who} to an image that was deleted`,
        code: 'conflict',
        lose: async (world, lab) => {
          await remove(world, lab, lab.waiting.id)
          return () => GUARDED['attach from an upload']!(world, lab, writerFor(world, lab))
        },
      },
      {
        title: `attach from a stored blob by the ${who} to an image that was deleted`,
        code: 'conflict',
        lose: async (world, lab) => {
          await remove(world, lab, lab.dedupe.imageId)
          return () => GUARDED['attach from a stored blob']!(world, lab, writerFor(world, lab))
        },
      },
      {
        title: `setTag by the ${who} to an image that was deleted`,
        code: 'not_found',
        lose: async (world, lab) => {
          await remove(world, lab, lab.stored.id)
          return () => GUARDED.setTag!(world, lab, writerFor(world, lab))
        },
      },
      {
        title: `uploads.open by the ${who} for an image that was deleted`,
        code: 'not_found',
        lose: async (world, lab) => {
          await remove(world, lab, lab.waiting.id)
          return () => GUARDED['uploads.open']!(world, lab, writerFor(world, lab))
        },
      },
    ]
  }),
  {
    title: 'attach of bytes that have another digest than the image',
    code: 'conflict',
    lose: async (world, lab) => () =>
      world.database.catalog.attach({ ...lab.attachment, digest: digestOf('something else') }),
  },
  {
    title: 'attach after the claim was taken over',
    code: 'conflict',
    lose: async ({ database }, lab) => {
      expect(await database.uploads.claim(lab.upload.id, newId(), at(30), at(31))).toBe(true)
      return () => database.catalog.attach(lab.attachment)
    },
  },
  ...(['failed', 'aborted', 'expired', 'open'] as const).map((state) => ({
    title: `attach after the upload became ${state}`,
    code: 'conflict' as const,
    lose: async ({ database }: World, lab: Lab) => {
      const from = { state: 'finishing', claim: lab.claim } as const
      expect(await database.uploads.close(lab.upload.id, from, state, at(3))).toBe(true)
      return () => database.catalog.attach(lab.attachment)
    },
  })),
  {
    title: 'attach after the upload was forgotten',
    code: 'conflict',
    lose: async ({ database }, lab) => {
      await database.uploads.forget([lab.upload.id])
      return () => database.catalog.attach(lab.attachment)
    },
  },
  {
    title: 'attach to one image from the upload of another (R16)',
    code: 'conflict',
    lose: async (world, lab) => {
      const twin = await world.record(lab.owner, lab.elsewhere.id, `${lab.entity.name} waiting`)
      return () => world.database.catalog.attach({ ...lab.attachment, imageId: twin.id })
    },
  },
  {
    title: 'attach from a stored blob whose image has become private (R8)',
    code: 'conflict',
    lose: async ({ database }, lab) => {
      const path = { entity: lab.donor.user.name, collection: 'tools', container: 'gift' }
      expect(await database.catalog.setPrivate(path, true, byOperator(at()))).toBe(true)
      return () => database.catalog.attach(lab.dedupe)
    },
  },
  {
    title: 'attach from a stored blob whose last readable image was deleted (R8)',
    code: 'conflict',
    lose: async ({ database }, lab) => {
      const image = { imageId: lab.given.id, containerId: lab.gift.id }
      await database.catalog.deleteImage(image, lab.donor.writer)
      return () => database.catalog.attach(lab.dedupe)
    },
  },
  {
    title: 'attach from a stored blob that is dying (R9)',
    code: 'conflict',
    lose: async ({ database }, lab) => {
      const image = { imageId: lab.given.id, containerId: lab.gift.id }
      await database.catalog.deleteImage(image, lab.donor.writer)
      await database.blobs.markDying(at(), '', 1000)
      return () => database.catalog.attach(lab.dedupe)
    },
  },
  {
    title: 'attach from a stored blob whose object is lost (R60)',
    code: 'conflict',
    lose: async ({ database }, lab) => {
      await database.catalog.markLost(lab.given.upload.blobKey)
      return () => database.catalog.attach(lab.dedupe)
    },
  },
  {
    title: 'setTag to an image that has no bytes',
    code: 'not_found',
    lose: async ({ database }, { place, waiting, owner }) => {
      const change = { containerId: place.id, arch: 'amd64', tag: 'new', imageId: waiting.id }
      return () => database.catalog.setTag({ ...change, writer: owner.writer })
    },
  },
  {
    title: 'setTag to an image whose bytes are lost',
    code: 'not_found',
    lose: async (world, lab) => {
      await world.database.catalog.markLost(lab.stored.upload.blobKey)
      return () => GUARDED.setTag!(world, lab, lab.owner.writer)
    },
  },
  {
    title: 'setTag of an image in another container of the same owner (R16)',
    code: 'not_found',
    lose: async ({ database }, { elsewhere, stored, owner }) => {
      const change = { containerId: elsewhere.id, arch: null, tag: 'new', imageId: stored.id }
      return () => database.catalog.setTag({ ...change, writer: owner.writer })
    },
  },
  {
    title: "setTag of a stranger's image in one's own container (R16)",
    code: 'not_found',
    lose: async ({ database }, { place, given, owner }) => {
      const change = { containerId: place.id, arch: null, tag: 'new', imageId: given.id }
      return () => database.catalog.setTag({ ...change, writer: owner.writer })
    },
  },
  {
    title: "setTag of one's own image in a stranger's container (R16)",
    code: 'denied',
    lose: async ({ database }, { gift, stored, owner }) => {
      const change = { containerId: gift.id, arch: null, tag: 'new', imageId: stored.id }
      return () => database.catalog.setTag({ ...change, writer: owner.writer })
    },
  },
  {
    title: "setTag for another arch than the image's own",
    code: 'conflict',
    lose: async ({ database }, { place, stored, owner }) => {
      const change = { containerId: place.id, arch: 'arm64', tag: 'new', imageId: stored.id }
      return () => database.catalog.setTag({ ...change, writer: owner.writer })
    },
  },
  {
    title: 'uploads.open beyond the uploads of one user',
    code: 'rate_limited',
    lose: async (world, lab) => {
      const limits = { perUser: 1, free: null }
      const upload = world.draftUpload(lab.owner, lab.waiting)
      return () => world.database.uploads.open(upload, lab.owner.writer, limits)
    },
  },
  {
    title: 'uploads.open beyond the free space',
    code: 'insufficient_storage',
    lose: async (world, lab) => {
      const limits = { perUser: 1000, free: 99 }
      const upload = world.draftUpload(lab.owner, lab.waiting)
      return () => world.database.uploads.open(upload, lab.owner.writer, limits)
    },
  },
]

/** Deletions of what is not there are no failure: they say false, and change nothing. */
const ABSENT: Record<string, (world: World, lab: Lab) => Promise<boolean>> = {
  'a tag that is not there': ({ database }, { place, owner }) =>
    database.catalog.deleteTag(place.id, 'amd64', 'gone', owner.writer),
  'a tag of another arch': ({ database }, { place, owner }) =>
    database.catalog.deleteTag(place.id, 'arm64', 'latest', owner.writer),
  'a tag in a container that is not there': ({ database }, { owner }) =>
    database.catalog.deleteTag(newId(), 'amd64', 'latest', owner.writer),
  'an image that is not there': ({ database }, { place, owner }) =>
    database.catalog.deleteImage({ imageId: newId(), containerId: place.id }, owner.writer),
  'an image of another container (R16)': ({ database }, { elsewhere, stored, owner }) =>
    database.catalog.deleteImage({ imageId: stored.id, containerId: elsewhere.id }, owner.writer),
  "a stranger's image named in one's own container (R16)": (
    { database },
    { place, given, owner },
  ) => database.catalog.deleteImage({ imageId: given.id, containerId: place.id }, owner.writer),
}

// ---------------------------------------------------------------------------------------------
// The suite

/** Describes the Database contract of src/ports.ts for one backend. */
export function describeDatabase(name: string, backend: DatabaseBackend): void {
  describe(`Database: ${name}`, () => {
    const skip = new Map(backend.skip?.map(({ test, reason }) => [test, reason]))

    function test(title: string, body: (world: World) => Promise<void>, needsRaw = false): void {
      const reason = skip.get(title)
      skip.delete(title)
      it(title, async (context) => {
        if (reason !== undefined) context.skip(reason)
        const made = await backend.make()
        try {
          if (needsRaw && made.raw === undefined) context.skip('this backend takes no raw SQL')
          await body(await worldOf(made))
        } finally {
          await made.dispose()
        }
      })
    }

    describe('guards raise and leave everything as it was (R6)', () => {
      for (const [method, act] of Object.entries(GUARDED)) {
        test(`${method} goes through while the writer is owner or administrator`, async (world) => {
          const mine = await makeLab(world, 'mine')
          expect(await outcome(act(world, mine, mine.owner.writer))).toBe('ok')
          const theirs = await makeLab(world, 'theirs')
          const before = await world.dump()
          expect(await outcome(act(world, theirs, world.root.writer))).toBe('ok')
          expect(await world.dump()).not.toEqual(before)
        })

        test(`${method} after the right was lost`, async (world) => {
          for (const [index, loss] of Object.keys(LOSSES).entries()) {
            const lab = await makeLab(world, `lab${index}`)
            const writer = await LOSSES[loss]!(world, lab)
            await expectRefused(world, 'denied', () => act(world, lab, writer)).catch(named(loss))
          }
        })

        test(
          `${method} after the user was disabled or demoted`,
          async (world) => {
            for (const [index, loss] of Object.keys(RAW_LOSSES).entries()) {
              const lab = await makeLab(world, `lab${index}`)
              const writer = await RAW_LOSSES[loss]!(world, lab)
              await expectRefused(world, 'denied', () => act(world, lab, writer)).catch(named(loss))
            }
          },
          true,
        )

        if (method !== 'createEntity')
          test(`${method} after the entity passed to another user`, async (world) => {
            const lab = await makeLab(world, 'lab')
            await world.person('lab')
            await expectRefused(world, 'denied', () => act(world, lab, lab.owner.writer))
          })

        test(`${method} with a token that expired on the way (R24)`, async (world) => {
          const lab = await makeLab(world, 'lab')
          const late = { ...lab.owner.writer, now: LATER }
          expect(await outcome(act(world, lab, late))).toBe('ok')
        })
      }

      for (const { title, code, lose } of CONDITIONS)
        test(title, async (world) => {
          const lab = await makeLab(world, 'lab')
          const call = await lose(world, lab)
          await expectRefused(world, code, call)
        })

      for (const [what, remove] of Object.entries(ABSENT))
        test(`deleting ${what} is false and changes nothing`, async (world) => {
          const lab = await makeLab(world, 'lab')
          const before = await world.dump()
          // later than all that was done, so that a touched `updatedAt` shows
          const late = { ...lab.owner, writer: { ...lab.owner.writer, now: at(5) } }
          expect(await remove(world, { ...lab, owner: late })).toBe(false)
          expect(await world.dump()).toEqual(before)
        })

      test(
        "a demoted administrator gets no bytes of a stranger's private image into their own (R8)",
        async (world) => {
          const { database } = world
          const boss = await world.person('boss', 'admin')
          const alice = await world.person('alice')
          const secret = await world.container(alice, 'alice/c/secret', { private: true })
          await world.push(alice, secret.id, 'secret')
          const mine = await world.container(boss, 'boss/c/mine')
          const wanting = await world.record(boss, mine.id, 'secret')
          const blob = await database.catalog.readableBlob(wanting.digest, boss.viewer, at())
          expect(blob).not.toBeNull()
          await world.raw?.(`UPDATE users SET role = 'user' WHERE id = '${boss.user.id}'`)
          await expectRefused(world, 'conflict', () =>
            database.catalog.attach({
              imageId: wanting.id,
              digest: wanting.digest,
              size: 100,
              facts: null,
              writer: boss.writer,
              source: { kind: 'blob', blobId: blob?.id ?? '' },
            }),
          )
        },
        true,
      )

      test('a refused batch does not stand in the way of the next one', async (world) => {
        const lab = await makeLab(world, 'lab')
        const act = GUARDED.createCollection!
        expect(await outcome(act(world, lab, lab.donor.writer))).toBe('denied')
        expect(await outcome(act(world, lab, lab.owner.writer))).toBe('ok')
        expect(await outcome(act(world, lab, lab.donor.writer))).toBe('denied')
      })
    })

    describe('the first administrator (R19)', () => {
      const admin = (name: string): NewUser => ({
        id: newId(),
        entityId: newId(),
        name,
        role: 'admin',
        disabled: false,
        createdAt: at(),
      })

      /** These need a database without the suite's own administrator. */
      function bare(title: string, body: (database: Database) => Promise<void>): void {
        it(title, async () => {
          const made = await backend.make()
          try {
            await body(made.database)
          } finally {
            await made.dispose()
          }
        })
      }

      bare('is made once, however many ask at once', async ({ users }) => {
        const names = ['one', 'two', 'three']
        const made = await Promise.all(
          names.map((name) => users.createFirstAdmin(admin(name), operator())),
        )
        expect(made.filter(Boolean)).toHaveLength(1)
        const list = await users.list()
        expect(list.map((user) => [user.name, user.role])).toEqual([
          [names[made.indexOf(true)], 'admin'],
        ])
      })

      bare('owns the entity of its name', async ({ users, catalog }) => {
        const first = admin('first')
        expect(await users.createFirstAdmin(first, operator())).toBe(true)
        const viewer = { tokenId: newId(), userId: first.id, scopes: [] }
        const { value } = await catalog.entityParent('first', viewer, at())
        expect(value.entity?.ownerId).toBe(first.id)
        expect(value.user?.id).toBe(first.id)
      })

      bare('is not made when there is one, and nothing changes', async ({ users, catalog }) => {
        const first = admin('first')
        expect(await users.createFirstAdmin(first, operator())).toBe(true)
        expect(await users.createFirstAdmin(admin('second'), operator())).toBe(false)
        expect(await users.createFirstAdmin(first, operator())).toBe(false)
        expect((await users.list()).map((user) => user.name)).toEqual(['first'])
        const viewer = { tokenId: newId(), userId: first.id, scopes: [] }
        expect((await catalog.entityParent('second', viewer, at())).value.entity).toBeNull()
      })

      bare('is never said to be made when it was not: the name is taken', async ({ users }) => {
        await users.create({ ...admin('taken'), role: 'user' }, operator())
        expect(await users.createFirstAdmin(admin('taken'), operator())).toBe(false)
        expect((await users.list()).map((user) => user.role)).toEqual(['user'])
        expect(await users.createFirstAdmin(admin('free'), operator())).toBe(true)
      })

      const token = () => ({
        id: newId(),
        name: 'claimed',
        scopes: ['pull', 'admin'] as Scope[],
        createdAt: at(),
        expiresAt: LATER,
      })

      bare(
        'a claim is spent once, however many spend it at once',
        async ({ users, tokens, catalog }) => {
          const drafts = ['one', 'two', 'three'].map((name) => ({
            user: admin(name),
            token: token(),
          }))
          const owners = await Promise.all(
            drafts.map((draft) => users.claimAdmin('claim', draft.user, draft.token, operator())),
          )
          const [won, ...more] = drafts.filter((_, index) => owners[index] !== null)
          expect(more).toEqual([])
          const { entityId: _, ...made } = won?.user ?? admin('nobody')
          const user = { ...made, managerId: null, subject: null }
          expect(owners.filter((owner) => owner !== null)).toEqual([user])
          expect(await users.list()).toEqual([user])
          expect(await tokens.listFor(user.id)).toMatchObject([won?.token])
          const viewer = { tokenId: won?.token.id ?? '', userId: user.id, scopes: [] }
          const { value, standing } = await catalog.entityParent(user.name, viewer, at())
          expect(value.entity?.ownerId).toBe(user.id)
          expect(standing?.scopes).toEqual(['pull', 'admin'])
        },
      )

      bare('a claim gives an administrator there is another token', async ({ users, tokens }) => {
        const boss = { ...admin('boss'), createdAt: new Date(at().getTime() - 1) }
        await users.create(boss, operator())
        await users.create({ ...admin('root'), role: 'user' }, operator())
        const recovered = await users.claimAdmin('a', admin('nobody'), token(), operator())
        expect(recovered?.id).toBe(boss.id)
        const named = admin('admin')
        await users.create(named, operator())
        expect((await users.claimAdmin('b', admin('admin'), token(), operator()))?.id).toBe(
          named.id,
        )
        expect(await users.claimAdmin('b', admin('admin'), token(), operator())).toBeNull()
        expect((await users.list()).map(({ name }) => name)).toEqual(['admin', 'boss', 'root'])
        expect(await tokens.listFor(named.id)).toHaveLength(1)
      })

      bare('a claim is not spent by a failure: the name is taken', async ({ users, tokens }) => {
        const taken = { ...admin('admin'), role: 'user' as const }
        await users.create(taken, operator())
        const made = users.claimAdmin('claim', admin('admin'), token(), operator())
        await expect(made).rejects.toMatchObject({ code: 'conflict' })
        expect(await tokens.listFor(taken.id)).toEqual([])
        expect((await users.claimAdmin('claim', admin('free'), token(), operator()))?.name).toBe(
          'free',
        )
      })
    })

    describe('two creators at once get one row', () => {
      test('entity, collection, container and image', async (world) => {
        const { catalog } = world.database
        const { writer, user } = world.root
        const twice = async (
          create: (id: string) => Promise<{ row: { id: string }; created: boolean }>,
        ) => {
          const mine = [newId(), newId(), newId()]
          const answers = await Promise.all(mine.map(create))
          expect(answers.filter(({ created }) => created)).toHaveLength(1)
          expect(new Set(answers.map(({ row }) => row.id)).size).toBe(1)
          const winner = answers.findIndex(({ created }) => created)
          expect(answers[winner]?.row.id).toBe(mine[winner])
          return answers[0]?.row.id ?? ''
        }
        const draft = (id: string) => ({ id, description: '', writer })
        const entityId = await twice((id) =>
          catalog.createEntity({ ...draft(id), name: 'lab', ownerId: user.id }),
        )
        const collectionId = await twice((id) =>
          catalog.createCollection({ ...draft(id), name: 'c', entityId, private: false }),
        )
        const containerId = await twice((id) =>
          catalog.createContainer({ ...draft(id), name: 'n', collectionId, private: false }),
        )
        const digest = digestOf('image')
        await twice((id) => catalog.createImage({ ...draft(id), digest, containerId }))
      })

      test('the loser sees what stands, not what it asked for', async ({ database, root }) => {
        const { catalog } = database
        const draft = { name: 'lab', ownerId: root.user.id, writer: root.writer }
        await catalog.createEntity({ ...draft, id: newId(), description: 'first' })
        const again = await catalog.createEntity({ ...draft, id: newId(), description: 'second' })
        expect(again.row.description).toBe('first')
        const inside = { name: 'c', entityId: again.row.id, writer: root.writer, description: '' }
        await catalog.createCollection({ ...inside, id: newId(), private: true })
        const open = await catalog.createCollection({ ...inside, id: newId(), private: false })
        expect(open).toMatchObject({ created: false, row: { private: true } })
      })

      test('names are compared as they are written', async (world) => {
        const lower = await world.container(world.root, 'lab/c/name')
        const upper = await world.container(world.root, 'lab/c/NAME')
        expect(upper.id).not.toBe(lower.id)
      })
    })

    describe('attach: the only way to get bytes (R8)', () => {
      test('shows the image with its facts, size and key, which it did not before', async (world) => {
        const { database, root } = world
        const place = await world.container(root, 'root/c/n')
        const facts = {
          arch: 'arm64',
          signed: true,
          encrypted: true,
          fingerprints: ['A'.repeat(40)],
        }
        const record = await world.record(root, place.id, 'image', 'a description')
        const path = { entity: 'root', collection: 'c', container: 'n' }
        const find = async () =>
          (
            await database.catalog.findImage(
              path,
              { by: 'digest', digest: record.digest },
              root.viewer,
              at(),
            )
          ).value
        expect(await find()).toBeNull()
        expect(record).toMatchObject({ uploaded: false, blob: null, facts: { arch: 'unknown' } })
        const { attachment, upload } = await world.received(root, record, { size: 7, facts })
        await database.catalog.attach(attachment)
        expect(await find()).toMatchObject({
          id: record.id,
          description: 'a description',
          uploaded: true,
          blob: { key: upload.blobKey, size: 7 },
          facts,
          tags: [],
        })
        const found = await database.catalog.findContainer(path, root.viewer, at())
        expect(found.value?.below).toEqual({ ids: [record.id], size: 7 })
      })

      test('twice with the same claim is success, also at once', async (world) => {
        const place = await world.container(world.root, 'root/c/n')
        const record = await world.record(world.root, place.id, 'image')
        const { attachment, upload } = await world.received(world.root, record)
        const attach = (what: Attachment) => world.database.catalog.attach(what)
        await Promise.all([attach(attachment), attach(attachment)])
        const before = await world.dump()
        await attach(attachment)
        // the second one, too, may bring an id of its own for the blob
        await attach({
          ...attachment,
          source: { ...attachment.source, blobId: newId() },
        })
        expect(await world.dump()).toEqual(before)
        expect(await world.image(record.id)).toMatchObject({ blob: { key: upload.blobKey } })
        expect(await world.database.blobs.liveCount()).toBe(1)
      })

      test('after success, with another claim, is conflict', async (world) => {
        const place = await world.container(world.root, 'root/c/n')
        const { attachment } = await world.push(world.root, place.id, 'image')
        const source = { ...attachment.source, claim: newId() } as Attachment['source']
        await expectRefused(world, 'conflict', () =>
          world.database.catalog.attach({ ...attachment, source }),
        )
      })

      test('closes the upload as done in the same unit', async (world) => {
        const place = await world.container(world.root, 'root/c/n')
        const { upload, claim } = await world.push(world.root, place.id, 'image')
        const { value } = await world.database.uploads.find(upload.id, world.root.viewer, at())
        expect(value).toMatchObject({ state: 'done', claim, closedAt: at() })
        expect(await world.database.uploads.claim(upload.id, newId(), LATER, LATER)).toBe(false)
      })

      test('two uploads of one digest in two containers: one blob, one surplus', async (world) => {
        const { database, root } = world
        const alice = await world.person('alice')
        const places = [
          { who: root, at: await world.container(root, 'root/c/n') },
          { who: alice, at: await world.container(alice, 'alice/c/n', { private: true }) },
        ]
        const pushes = await Promise.all(
          places.map(async ({ who, at }) => {
            const image = await world.record(who, at.id, 'same')
            return { image, ...(await world.received(who, image)) }
          }),
        )
        await Promise.all(pushes.map(({ attachment }) => database.catalog.attach(attachment)))
        const [first, second] = await Promise.all(pushes.map(({ image }) => world.image(image.id)))
        expect(first?.blob?.key).toBe(second?.blob?.key)
        expect(await database.blobs.liveCount()).toBe(1)
        const closed = await database.uploads.closed(LATER, 10)
        expect(closed).toHaveLength(2)
        for (const { blobKey, kept } of closed) expect(kept).toBe(blobKey === first?.blob?.key)
        expect(closed.filter(({ kept }) => kept)).toHaveLength(1)
        // the surplus key is known until its upload is forgotten: nobody takes it for an orphan
        const keys = pushes.map(({ upload }) => upload.blobKey)
        expect(await database.blobs.known(keys)).toEqual(new Set(keys))
        await database.uploads.forget(closed.map(({ id }) => id))
        expect(await database.blobs.known(keys)).toEqual(new Set([first?.blob?.key]))
      })

      test('two uploads of one image: one blob, one surplus', async (world) => {
        const { database, root } = world
        const place = await world.container(root, 'root/c/n')
        const record = await world.record(root, place.id, 'same')
        const pushes = [await world.received(root, record), await world.received(root, record)]
        await Promise.all(pushes.map(({ attachment }) => database.catalog.attach(attachment)))
        const closed = await database.uploads.closed(LATER, 10)
        expect(closed.map(({ kept }) => String(kept)).toSorted()).toEqual(['false', 'true'])
        const key = closed.find(({ kept }) => kept)?.blobKey
        expect((await world.image(record.id))?.blob?.key).toBe(key)
        const found = await database.catalog.findEntity('root', root.viewer, at())
        expect(found.value?.below.size).toBe(100)
      })

      test('heals every image whose blob was lost, by a push of anybody (R60)', async (world) => {
        const { database, root } = world
        const alice = await world.person('alice')
        const bob = await world.person('bob')
        const mine = await world.container(alice, 'alice/c/n')
        const theirs = await world.container(bob, 'bob/c/n')
        const one = await world.push(alice, mine.id, 'same', { tag: 'v1', description: 'needle' })
        const two = await world.push(bob, theirs.id, 'same')
        const other = await world.push(bob, theirs.id, 'not the same')
        await database.catalog.markLost(one.upload.blobKey)
        const select = { by: 'tag', tag: 'v1', arch: 'amd64' } as const
        const path = { entity: 'alice', collection: 'c', container: 'n' }
        const byTag = async () =>
          (await database.catalog.findImage(path, select, root.viewer, at())).value
        expect(await byTag()).toBeNull()
        expect(await world.search(root.viewer, 'needle')).toEqual([])
        for (const { id } of [one, two])
          expect(await world.image(id)).toMatchObject({ uploaded: false, blob: null })
        expect(await database.catalog.readableBlob(one.digest, alice.viewer, at())).toBeNull()
        expect((await world.image(other.id))?.uploaded).toBe(true)

        const third = await world.container(root, 'root/c/n')
        const healing = await world.push(root, third.id, 'same')
        const { blobKey } = healing.upload
        expect(blobKey).not.toBe(one.upload.blobKey)
        for (const { id } of [one, two, healing])
          expect(await world.image(id)).toMatchObject({ uploaded: true, blob: { key: blobKey } })
        expect((await byTag())?.id).toBe(one.id)
        expect(await world.search(root.viewer, 'needle')).toEqual([one.id])
        // nothing refers to the lost blob any more, so the sweep may have it
        await database.blobs.markDying(at(1), '', 1000)
        const dying = await database.blobs.dying(at(2), 10)
        expect(dying.map(({ key }) => key)).toEqual([one.upload.blobKey])
      })

      test('heals the very image that is pushed again', async (world) => {
        const place = await world.container(world.root, 'root/c/n')
        const first = await world.push(world.root, place.id, 'image')
        await world.database.catalog.markLost(first.upload.blobKey)
        const again = await world.push(world.root, place.id, 'image')
        expect(again.id).toBe(first.id)
        expect(await world.image(first.id)).toMatchObject({ blob: { key: again.upload.blobKey } })
        expect(
          (await world.database.catalog.findEntity('root', null, at())).value?.below.size,
        ).toBe(100)
      })

      test('a stored blob brings its facts, and the image is found by them', async (world) => {
        const { database } = world
        const lab = await makeLab(world, 'lab')
        const facts = { arch: 'arm64', signed: true, labels: { purpose: 'haystack' } }
        const source = await world.push(lab.donor, lab.gift.id, 'rich', { facts })
        const wanting = await world.record(lab.owner, lab.place.id, 'rich')
        const blob = await database.catalog.readableBlob(source.digest, lab.owner.viewer, at())
        await database.catalog.attach({
          ...lab.dedupe,
          imageId: wanting.id,
          digest: source.digest,
          source: { kind: 'blob', blobId: blob?.id ?? '' },
        })
        expect(await world.image(wanting.id)).toMatchObject({
          blob: { key: source.upload.blobKey },
          facts: { arch: 'arm64', signed: true },
        })
        expect(await world.search(null, 'haystack')).toEqual([source.id, wanting.id].toSorted())
      })

      test("nobody gets the bytes of a stranger's private image by its hash (R8, R29)", async (world) => {
        const { catalog } = world.database
        const alice = await world.person('alice')
        const bob = await world.person('bob')
        const secret = await world.container(alice, 'alice/c/secret', { private: true })
        const hidden = await world.container(alice, 'alice/hidden/n', { collectionPrivate: true })
        const mine = await world.container(bob, 'bob/c/n')
        for (const [index, place] of [secret, hidden].entries()) {
          const word = `secret ${index}`
          await world.push(alice, place.id, word)
          const digest = digestOf(word)
          const blob = await catalog.readableBlob(digest, alice.viewer, at())
          expect(blob).toMatchObject({ size: 100 })
          expect(await catalog.readableBlob(digest, bob.viewer, at())).toBeNull()
          expect(await catalog.readableBlob(digest, null, at())).toBeNull()
          expect(await catalog.readableBlob(digest, world.root.viewer, at())).toEqual(blob)
          // an administrator whose token lacks the scope is a user like others (R14)
          const modest = await world.token(world.root.user, DEFAULT_SCOPES)
          expect(await catalog.readableBlob(digest, modest.viewer, at())).toBeNull()
          const wanting = await world.record(bob, mine.id, word)
          await expectRefused(world, 'conflict', () =>
            catalog.attach({
              imageId: wanting.id,
              digest,
              size: 100,
              facts: null,
              writer: bob.writer,
              source: { kind: 'blob', blobId: blob?.id ?? '' },
            }),
          )
        }
      })

      test('one readable image among private ones is enough to share its blob', async (world) => {
        const { catalog } = world.database
        const alice = await world.person('alice')
        const bob = await world.person('bob')
        const secret = await world.container(alice, 'alice/c/secret', { private: true })
        const open = await world.container(alice, 'alice/c/open')
        const first = await world.push(alice, secret.id, 'same')
        await world.push(alice, open.id, 'same')
        const blob = await catalog.readableBlob(first.digest, bob.viewer, at())
        expect(blob).toMatchObject({ key: first.upload.blobKey, size: 100 })
        expect(await catalog.readableBlob(digestOf('another'), bob.viewer, at())).toBeNull()
      })
    })

    describe('the life of a blob (R9)', () => {
      test('a blob that an image refers to is never marked', async (world) => {
        const { blobs } = world.database
        const place = await world.container(world.root, 'root/c/n')
        const { id, upload } = await world.push(world.root, place.id, 'image')
        await blobs.markDying(at(1), '', 1000)
        expect(await blobs.dying(LATER, 10)).toEqual([])
        expect(await blobs.liveCount()).toBe(1)
        expect((await world.image(id))?.blob?.key).toBe(upload.blobKey)
      })

      test('one of two images is enough to keep it', async (world) => {
        const { blobs, catalog } = world.database
        const place = await world.container(world.root, 'root/c/n')
        const other = await world.container(world.root, 'root/c/other')
        const first = await world.push(world.root, place.id, 'same')
        const second = await world.push(world.root, other.id, 'same')
        const remove = (push: typeof first) =>
          catalog.deleteImage(
            { imageId: push.id, containerId: push.containerId },
            world.root.writer,
          )
        expect(await remove(first)).toBe(true)
        await blobs.markDying(at(1), '', 1000)
        expect(await blobs.dying(LATER, 10)).toEqual([])
        expect(await remove(second)).toBe(true)
        await blobs.markDying(at(2), '', 1000)
        expect(await blobs.dying(at(2), 10)).toEqual([])
        expect(await blobs.dying(at(3), 10)).toMatchObject([
          { key: first.upload.blobKey, size: 100 },
        ])
      })

      test('a dying blob never lives again: a new push is a new row with a new key', async (world) => {
        const { blobs, catalog } = world.database
        const place = await world.container(world.root, 'root/c/n')
        const first = await world.push(world.root, place.id, 'image')
        await catalog.deleteImage({ imageId: first.id, containerId: place.id }, world.root.writer)
        await blobs.markDying(at(1), '', 1000)
        expect(await blobs.liveCount()).toBe(0)
        expect(await catalog.readableBlob(first.digest, world.root.viewer, at())).toBeNull()

        const second = await world.push(world.root, place.id, 'image')
        expect(second.id).not.toBe(first.id)
        expect((await world.image(second.id))?.blob?.key).toBe(second.upload.blobKey)
        expect(second.upload.blobKey).not.toBe(first.upload.blobKey)
        await catalog.markLost(first.upload.blobKey)
        await blobs.markDying(at(2), '', 1000)
        const dying = await blobs.dying(LATER, 10)
        expect(dying.map(({ key }) => key)).toEqual([first.upload.blobKey])

        await blobs.forget(dying.map(({ id }) => id))
        await world.database.uploads.forget([first.upload.id, second.upload.id])
        expect(await blobs.known([first.upload.blobKey, second.upload.blobKey])).toEqual(
          new Set([second.upload.blobKey]),
        )
      })

      test('marking again does not move the time a blob began to die', async (world) => {
        const { blobs, catalog } = world.database
        const place = await world.container(world.root, 'root/c/n')
        const { id } = await world.push(world.root, place.id, 'image')
        await catalog.deleteImage({ imageId: id, containerId: place.id }, world.root.writer)
        await blobs.markDying(at(1), '', 1000)
        await blobs.markDying(at(9), '', 1000)
        expect(await blobs.dying(at(5), 10)).toHaveLength(1)
      })

      test('a live blob is not forgotten, whoever asks', async (world) => {
        const { blobs, catalog } = world.database
        const place = await world.container(world.root, 'root/c/n')
        const { digest, upload } = await world.push(world.root, place.id, 'image')
        const blob = await catalog.readableBlob(digest, world.root.viewer, at())
        await blobs.forget([blob?.id ?? ''])
        await blobs.forget([])
        expect(await catalog.readableBlob(digest, world.root.viewer, at())).toEqual(blob)
        await catalog.markLost(upload.blobKey)
        await blobs.forget([blob?.id ?? ''])
        expect(await blobs.known([upload.blobKey])).toEqual(new Set([upload.blobKey]))
      })

      test('an image takes a blob or the sweep does, never both', async (world) => {
        const { blobs, catalog } = world.database
        for (let round = 0; round < 4; round += 1) {
          const lab = await makeLab(world, `lab${round}`)
          const last = { imageId: lab.given.id, containerId: lab.gift.id }
          const calls = [
            () => outcome(catalog.attach(lab.dedupe)),
            () => catalog.deleteImage(last, lab.donor.writer),
            () => blobs.markDying(at(1), '', 1000),
          ]
          await Promise.all((round % 2 === 0 ? calls : calls.toReversed()).map((call) => call()))
          await blobs.markDying(at(1), '', 1000)
          const image = await world.image(lab.dedupe.imageId)
          const dying = (await blobs.dying(LATER, 100)).map(({ key }) => key)
          expect(dying.includes(lab.given.upload.blobKey)).toBe(image?.uploaded === false)
        }
      })

      test('the walk over all blobs ends, and misses none', async (world) => {
        const { blobs, catalog } = world.database
        const place = await world.container(world.root, 'root/c/n')
        for (let n = 0; n < 7; n += 1) {
          const { id } = await world.push(world.root, place.id, `image ${n}`)
          if (n % 2 === 0)
            await catalog.deleteImage({ imageId: id, containerId: place.id }, world.root.writer)
        }
        let after: string | null = ''
        let steps = 0
        while (after !== null && steps < 20) {
          after = (await blobs.markDying(at(1), after, 2)).last
          steps += 1
        }
        expect(steps).toBeLessThan(20)
        expect(await blobs.dying(LATER, 10)).toHaveLength(4)
        expect(await blobs.dying(LATER, 3)).toHaveLength(3)
        expect(await blobs.liveCount()).toBe(3)
      })

      test('deleting an image forgets no key', async (world) => {
        const { blobs, catalog, uploads } = world.database
        const place = await world.container(world.root, 'root/c/n')
        const record = await world.record(world.root, place.id, 'image')
        const upload = await world.open(world.root, record)
        await catalog.deleteImage({ imageId: record.id, containerId: place.id }, world.root.writer)
        const { value } = await uploads.find(upload.id, world.root.viewer, at())
        expect(value).toMatchObject({ imageId: null, blobKey: upload.blobKey, state: 'open' })
        expect(await blobs.known([upload.blobKey, newId()])).toEqual(new Set([upload.blobKey]))
      })

      test('nothing is known of no keys, and of many', async ({ database }) => {
        expect(await database.blobs.known([])).toEqual(new Set())
        const many = Array.from({ length: 2000 }, newId)
        expect(await database.blobs.known(many)).toEqual(new Set())
      })
    })

    describe('uploads', () => {
      test('move between states by compare-and-set only (R20)', async (world) => {
        const { uploads } = world.database
        const place = await world.container(world.root, 'root/c/n')
        const record = await world.record(world.root, place.id, 'image')
        const { id } = await world.open(world.root, record)
        const state = async () => (await uploads.find(id, world.root.viewer, at())).value

        const claims = ['first', 'second', 'third']
        const won = await Promise.all(claims.map((c) => uploads.claim(id, c, at(1), at(2))))
        expect(won.filter(Boolean)).toHaveLength(1)
        const winner = claims[won.indexOf(true)] ?? ''
        const loser = claims[won.indexOf(false)] ?? ''
        expect(await state()).toMatchObject({
          state: 'finishing',
          claim: winner,
          leaseUntil: at(2),
        })
        expect(await uploads.renew(id, loser, at(9))).toBe(false)
        expect(await uploads.close(id, { state: 'finishing', claim: loser }, 'failed', at())).toBe(
          false,
        )
        expect(await uploads.close(id, { state: 'open', claim: null }, 'aborted', at())).toBe(false)
        expect(await uploads.renew(id, winner, at(5))).toBe(true)
        // the lease was renewed, so nobody takes over before it ends
        expect(await uploads.claim(id, 'late', at(4), at(6))).toBe(false)
        expect(await uploads.claim(id, 'late', at(6), at(8))).toBe(true)
        expect(await uploads.renew(id, winner, at(9))).toBe(false)
        expect(await state()).toMatchObject({ claim: 'late', leaseUntil: at(8) })

        const finishing = { state: 'finishing', claim: 'late' } as const
        expect(await uploads.close(id, finishing, 'open', at(7))).toBe(true)
        expect(await state()).toMatchObject({ state: 'open', closedAt: null, leaseUntil: null })
        expect(await uploads.renew(id, 'late', at(9))).toBe(false)
        expect(await uploads.claim(id, 'again', at(7), at(8))).toBe(true)
        const again = { state: 'finishing', claim: 'again' } as const
        expect(await uploads.close(id, again, 'failed', at(7))).toBe(true)
        expect(await state()).toMatchObject({ state: 'failed', closedAt: at(7) })
        for (const from of [again, finishing, { state: 'open', claim: null } as const])
          expect(await uploads.close(id, from, 'open', at(8))).toBe(false)
        expect(await uploads.claim(id, 'dead', LATER, LATER)).toBe(false)
        expect(await uploads.claim(newId(), 'none', LATER, LATER)).toBe(false)
      })

      test('are found as they were opened', async (world) => {
        const { uploads } = world.database
        const place = await world.container(world.root, 'root/c/n')
        const record = await world.record(world.root, place.id, 'image')
        const upload = await world.open(world.root, record)
        const find = (id: string) => uploads.find(id, world.root.viewer, at())
        expect((await find(upload.id)).value).toEqual(upload)
        await uploads.setHandle(upload.id, 'a handle')
        expect((await find(upload.id)).value?.handle).toBe('a handle')
        expect((await find(newId())).value).toBeNull()
      })

      test('of an image are listed for their user only, done and newest first, without dead ones', async (world) => {
        const { uploads } = world.database
        const alice = await world.person('alice')
        const place = await world.container(alice, 'alice/c/n')
        const record = await world.record(alice, place.id, 'image')
        const open = async (who: Person, minutes: number) => {
          const upload = { ...world.draftUpload(who, record), createdAt: at(minutes) }
          await uploads.open(upload, who.writer, { perUser: 100, free: null })
          return upload.id
        }
        const older = await open(alice, 1)
        const newest = await open(alice, 3)
        const newer = await open(alice, 2)
        const dead = await open(alice, 4)
        const foreign = await open(world.root, 5)
        await uploads.claim(older, 'claim', at(), at(1))
        await uploads.close(dead, { state: 'open', claim: null }, 'aborted', at())
        const list = async (viewer: Viewer) =>
          (await uploads.forImage(record.id, viewer, at())).value.map(({ id }) => id)
        expect(await list(alice.viewer)).toEqual([newest, newer, older])
        expect(await list(world.root.viewer)).toEqual([foreign])
        // fifty equal pushes at once find the one that is done, and their own (R20)
        await uploads.close(older, { state: 'finishing', claim: 'claim' }, 'done', at())
        for (let i = 0; i < 50; i++) await open(alice, 5 + i)
        const many = await list(alice.viewer)
        expect(many).toHaveLength(53)
        expect([many[0], ...many.slice(-2)]).toEqual([older, newest, newer])
        expect(await list(null)).toEqual([])
      })

      test('reserve their size together with all others that are open (R50)', async (world) => {
        const { uploads } = world.database
        const alice = await world.person('alice')
        const mine = await world.container(alice, 'alice/c/n')
        const theirs = await world.container(world.root, 'root/c/n')
        const attempt = async (
          who: Person,
          place: Container,
          size: number,
          free: number | null,
        ) => {
          const image = await world.record(who, place.id, `image of ${who.user.name}`)
          const upload = world.draftUpload(who, image, size)
          const limits = { perUser: 100, free }
          return { id: upload.id, code: await outcome(uploads.open(upload, who.writer, limits)) }
        }
        const first = await attempt(alice, mine, 60, 100)
        expect(first.code).toBe('ok')
        expect((await attempt(world.root, theirs, 41, 100)).code).toBe('insufficient_storage')
        expect((await attempt(world.root, theirs, 40, 100)).code).toBe('ok')
        // finishing uploads still hold what they reserved
        await uploads.claim(first.id, 'claim', at(), at(1))
        expect((await attempt(world.root, theirs, 1, 100)).code).toBe('insufficient_storage')
        await uploads.close(first.id, { state: 'finishing', claim: 'claim' }, 'failed', at())
        expect((await attempt(world.root, theirs, 61, 100)).code).toBe('insufficient_storage')
        const racing = await Promise.all([1, 2, 3].map(() => attempt(alice, mine, 30, 100)))
        expect(racing.map(({ code }) => code).toSorted()).toEqual([
          'insufficient_storage',
          'ok',
          'ok',
        ])
        expect((await attempt(world.root, theirs, 2 ** 50, null)).code).toBe('ok')
        expect((await attempt(world.root, theirs, 1, 0)).code).toBe('insufficient_storage')
      })

      test('of one user are counted while they are open or finishing (R50)', async (world) => {
        const { uploads } = world.database
        const alice = await world.person('alice')
        const place = await world.container(alice, 'alice/c/n')
        const record = await world.record(alice, place.id, 'image')
        const attempt = async (who: Person) => {
          const upload = world.draftUpload(who, record)
          await uploads.open(upload, who.writer, { perUser: 2, free: null })
          return upload.id
        }
        const first = await attempt(alice)
        await attempt(alice)
        await uploads.claim(first, 'claim', at(), at(1))
        const refused = await attempt(alice).catch((error: unknown) => error)
        expect(refused).toMatchObject({ code: 'rate_limited', retryAfter: expect.any(Number) })
        await attempt(world.root)
        await uploads.close(first, { state: 'finishing', claim: 'claim' }, 'failed', at())
        const racing = await Promise.all([outcome(attempt(alice)), outcome(attempt(alice))])
        expect(racing.toSorted()).toEqual(['ok', 'rate_limited'])
      })

      test('expire when their deadline and their lease have passed', async (world) => {
        const { uploads } = world.database
        const place = await world.container(world.root, 'root/c/n')
        const record = await world.record(world.root, place.id, 'image')
        const [idle, busy, done] = [
          await world.open(world.root, record),
          await world.open(world.root, record),
          await world.open(world.root, record),
        ]
        await uploads.close(done.id, { state: 'open', claim: null }, 'aborted', at())
        await uploads.claim(busy.id, 'claim', at(59), at(70))
        const state = async ({ id }: Upload) => {
          const { value } = await uploads.find(id, world.root.viewer, at())
          return [value?.state, value?.closedAt, value?.leaseUntil]
        }
        const untouched = ['finishing', null, at(70)]
        expect(await uploads.expire(at(59), 10)).toBe(0)
        expect(await state(idle)).toEqual(['open', null, null])
        expect(await uploads.expire(at(61), 10)).toBe(1)
        expect(await state(idle)).toEqual(['expired', at(61), null])
        expect(await uploads.expire(at(62), 10)).toBe(0)
        expect(await state(busy)).toEqual(untouched)
        expect(await uploads.expire(at(71), 0)).toBe(0)
        expect(await uploads.expire(at(71), 10)).toBe(1)
        expect(await state(busy)).toEqual(['expired', at(71), null])
        expect((await state(done))[0]).toBe('aborted')
      })

      test('expire the oldest first, as many as are asked for', async (world) => {
        const { uploads } = world.database
        const place = await world.container(world.root, 'root/c/n')
        const record = await world.record(world.root, place.id, 'image')
        const drafts = [30, 10, 20].map((minutes) => ({
          ...world.draftUpload(world.root, record),
          expiresAt: at(minutes),
        }))
        for (const draft of drafts)
          await uploads.open(draft, world.root.writer, { perUser: 10, free: null })
        expect(await uploads.expire(at(60), 2)).toBe(2)
        const open = await uploads.forImage(record.id, world.root.viewer, at())
        expect(open.value.map(({ id }) => id)).toEqual([drafts[0]?.id])
      })

      test('that are closed wait to be forgotten, with key and handle', async (world) => {
        const { uploads, blobs } = world.database
        const place = await world.container(world.root, 'root/c/n')
        const record = await world.record(world.root, place.id, 'image')
        const upload = await world.open(world.root, record)
        await uploads.setHandle(upload.id, 'handle')
        expect(await uploads.closed(LATER, 10)).toEqual([])
        await uploads.close(upload.id, { state: 'open', claim: null }, 'expired', at(5))
        expect(await uploads.closed(at(5), 10)).toEqual([])
        expect(await uploads.closed(at(6), 10)).toEqual([
          { id: upload.id, blobKey: upload.blobKey, handle: 'handle', kept: false },
        ])
        expect(await uploads.closed(at(6), 0)).toEqual([])
        await uploads.forget([upload.id])
        await uploads.forget([])
        expect(await uploads.closed(LATER, 10)).toEqual([])
        expect((await uploads.find(upload.id, world.root.viewer, at())).value).toBeNull()
        expect(await blobs.known([upload.blobKey])).toEqual(new Set())
      })
    })

    describe('tags', () => {
      /** Two images of two arches and one of the same arch, in one container. */
      async function shelf(world: World) {
        const alice = await world.person('alice')
        const place = await world.container(alice, 'alice/c/n')
        const amd = await world.push(alice, place.id, 'amd', { size: 1 })
        const amd2 = await world.push(alice, place.id, 'amd2', { size: 10 })
        const arm = await world.push(alice, place.id, 'arm', {
          size: 100,
          facts: { arch: 'arm64' },
        })
        const { catalog } = world.database
        const find = async (tag: string, arch: string) =>
          (
            await catalog.findImage(
              { entity: 'alice', collection: 'c', container: 'n' },
              { by: 'tag', tag, arch },
              alice.viewer,
              at(),
            )
          ).value?.id ?? null
        const size = async () =>
          (await catalog.findCollection('alice', 'c', alice.viewer, at())).value?.below.size
        return { alice, place, amd, amd2, arm, find, size }
      }

      test('hold one image per arch, and move', async (world) => {
        const { alice, place, amd, amd2, arm, find } = await shelf(world)
        await world.tag(alice, place.id, amd.id, 'latest')
        await world.tag(alice, place.id, arm.id, 'latest')
        expect([await find('latest', 'amd64'), await find('latest', 'arm64')]).toEqual([
          amd.id,
          arm.id,
        ])
        expect(await find('latest', 'ppc64le')).toBeNull()
        expect(await find('Latest', 'amd64')).toBeNull()
        await world.tag(alice, place.id, amd2.id, 'latest')
        await world.tag(alice, place.id, amd2.id, 'v2')
        expect([await find('latest', 'amd64'), await find('latest', 'arm64')]).toEqual([
          amd2.id,
          arm.id,
        ])
        expect((await world.image(amd2.id))?.tags).toEqual(['latest', 'v2'])
        expect((await world.image(amd.id))?.tags).toEqual([])
        const list = await world.database.catalog.listTags(place.id, alice.viewer, at())
        expect(list.value?.tags.map((t) => `${t.arch} ${t.name} ${t.imageId}`).toSorted()).toEqual([
          `amd64 latest ${amd2.id}`,
          `amd64 v2 ${amd2.id}`,
          `arm64 latest ${arm.id}`,
        ])
      })

      test('moved by two at once end at one of the two', async (world) => {
        const { alice, place, amd, amd2, find } = await shelf(world)
        await Promise.all([
          world.tag(alice, place.id, amd.id, 'latest'),
          world.tag(alice, place.id, amd2.id, 'latest'),
        ])
        expect([amd.id, amd2.id]).toContain(await find('latest', 'amd64'))
        const list = await world.database.catalog.listTags(place.id, alice.viewer, at())
        expect(list.value?.tags).toHaveLength(1)
      })

      test('tell an image of unknown arch which one it is, once', async (world) => {
        const { catalog } = world.database
        const { alice, place, find } = await shelf(world)
        const facts = { arch: 'unknown' }
        const told = await world.push(alice, place.id, 'told', { facts })
        const silent = await world.push(alice, place.id, 'silent', { facts })
        const set = (imageId: string, arch: string | null, tag: string) =>
          outcome(
            catalog.setTag({ containerId: place.id, arch, tag, imageId, writer: alice.writer }),
          )
        expect(await set(told.id, 'riscv64', 'told')).toBe('ok')
        expect(await find('told', 'riscv64')).toBe(told.id)
        expect((await world.image(told.id))?.facts.arch).toBe('riscv64')
        expect(await set(told.id, 'amd64', 'told')).toBe('conflict')
        // clients that name no arch mean amd64
        expect(await set(silent.id, null, 'silent')).toBe('ok')
        expect(await find('silent', 'amd64')).toBe(silent.id)
      })

      test('deleted of one arch leave the other, and the image goes with its last one', async (world) => {
        const { catalog, ended } = world.database
        const { alice, place, amd, arm, find, size } = await shelf(world)
        for (const id of [amd.id, arm.id]) await world.tag(alice, place.id, id, 'latest')
        await world.tag(alice, place.id, amd.id, 'v1')
        const remove = (arch: string, tag: string) =>
          catalog.deleteTag(place.id, arch, tag, alice.writer)
        expect(await size()).toBe(111)
        expect(await remove('amd64', 'latest')).toBe(true)
        expect([await find('latest', 'amd64'), await find('latest', 'arm64')]).toEqual([
          null,
          arm.id,
        ])
        expect(await find('v1', 'amd64')).toBe(amd.id)
        expect(await ended.since(new Date(0))).toEqual([])
        expect(await remove('amd64', 'v1')).toBe(true)
        expect(await world.image(amd.id)).toBeNull()
        expect(await size()).toBe(110)
        expect(await ended.since(new Date(0))).toEqual([amd.id])
        expect(await remove('amd64', 'v1')).toBe(false)
      })

      test('go with their image', async (world) => {
        const { catalog } = world.database
        const { alice, place, amd, arm, size } = await shelf(world)
        for (const tag of ['latest', 'v1', 'v2']) await world.tag(alice, place.id, amd.id, tag)
        await world.tag(alice, place.id, arm.id, 'latest')
        const image = { imageId: amd.id, containerId: place.id }
        const answers = await Promise.all([
          catalog.deleteImage(image, alice.writer),
          catalog.deleteImage(image, alice.writer),
        ])
        expect(answers.map(String).toSorted()).toEqual(['false', 'true'])
        const { value } = await catalog.listTags(place.id, alice.viewer, at())
        expect(value?.tags).toEqual([{ arch: 'arm64', name: 'latest', imageId: arm.id }])
        expect(await size()).toBe(110)
      })

      test('are offered only images of their container that have bytes', async (world) => {
        const { catalog } = world.database
        const { alice, place, arm } = await shelf(world)
        const waiting = await world.record(alice, place.id, 'waiting')
        const elsewhere = await world.container(alice, 'alice/c/elsewhere')
        const ask = async (containerId: string, imageId: string) =>
          (await catalog.taggable(containerId, imageId, alice.viewer, at())).value
        expect(await ask(place.id, arm.id)).toMatchObject({
          container: { id: place.id },
          image: { arch: 'arm64' },
        })
        expect((await ask(place.id, waiting.id))?.image).toBeNull()
        expect((await ask(elsewhere.id, arm.id))?.image).toBeNull()
        expect(await ask(newId(), arm.id)).toBeNull()
      })
    })

    describe('what a viewer sees', () => {
      /** Every method that takes a viewer, asked for the private thing or for one that is not. */
      const LOOKS: Record<
        string,
        (
          database: Database,
          of: { image: string; container: Container; upload: string; there: boolean },
          viewer: Viewer,
          now?: Date,
        ) => Promise<Seen<unknown>>
      > = {
        findEntity: ({ catalog }, { container, there }, viewer, now = at()) =>
          catalog.findEntity(there ? container.entityName : 'none', viewer, now),
        findCollection: ({ catalog }, { container, there }, viewer, now = at()) =>
          catalog.findCollection(
            container.entityName,
            there ? container.collectionName : 'none',
            viewer,
            now,
          ),
        findContainer: ({ catalog }, of, viewer, now = at()) =>
          catalog.findContainer(pathOf(of), viewer, now),
        'findContainer by short ref': ({ catalog }, of, viewer, now = at()) =>
          catalog.findContainer({ ...pathOf(of), entity: null }, viewer, now),
        'findImage by tag': ({ catalog }, of, viewer, now = at()) =>
          catalog.findImage(pathOf(of), TAGGED, viewer, now),
        'findImage by short ref': ({ catalog }, of, viewer, now = at()) =>
          catalog.findImage({ ...pathOf(of), entity: null }, TAGGED, viewer, now),
        'findImage by digest': ({ catalog }, { container, there }, viewer, now = at()) =>
          catalog.findImage(
            pathOf({ container, there: true }),
            { by: 'digest', digest: digestOf(there ? 'private' : 'none') },
            viewer,
            now,
          ),
        pullImage: ({ catalog }, of, viewer, now = at()) =>
          catalog.pullImage(pathOf(of), TAGGED, viewer, now, {
            begin: at(),
            container: 9,
            collection: 9,
            counts: true,
          }),
        entityById: ({ catalog }, { container, there }, viewer, now = at()) =>
          catalog.entityById(there ? container.entityId : newId(), viewer, now),
        collectionById: ({ catalog }, { container, there }, viewer, now = at()) =>
          catalog.collectionById(there ? container.collectionId : newId(), viewer, now),
        containerById: ({ catalog }, { container, there }, viewer, now = at()) =>
          catalog.containerById(there ? container.id : newId(), viewer, now),
        imageById: ({ catalog }, { image, there }, viewer, now = at()) =>
          catalog.imageById(there ? image : newId(), viewer, now),
        entityParent: ({ catalog }, { container, there }, viewer, now = at()) =>
          catalog.entityParent(there ? container.entityName : 'none', viewer, now),
        listTags: ({ catalog }, { container, there }, viewer, now = at()) =>
          catalog.listTags(there ? container.id : newId(), viewer, now),
        taggable: ({ catalog }, { container, image, there }, viewer, now = at()) =>
          catalog.taggable(there ? container.id : newId(), image, viewer, now),
        search: ({ catalog }, { there }, viewer, now = at()) =>
          catalog.search(
            { terms: [there ? 'needle' : 'nothing'], arch: [], signed: false, limit: 10 },
            viewer,
            now,
          ),
        'uploads.find': ({ uploads }, { upload, there }, viewer, now = at()) =>
          uploads.find(there ? upload : newId(), viewer, now),
        'uploads.forImage': ({ uploads }, { image, there }, viewer, now = at()) =>
          uploads.forImage(there ? image : newId(), viewer, now),
      }
      const TAGGED = { by: 'tag', tag: 'latest', arch: 'amd64' } as const
      const pathOf = ({ container, there }: { container: Container; there: boolean }) => ({
        entity: container.entityName,
        collection: there ? container.collectionName : 'none',
        container: container.name,
      })

      async function hidden(world: World) {
        const alice = await world.person('alice')
        const container = await world.container(alice, 'alice/hidden/secret', {
          collectionPrivate: true,
          private: true,
        })
        const { id, upload } = await world.push(alice, container.id, 'private', {
          tag: 'latest',
          description: 'needle',
        })
        return { alice, things: { container, image: id, upload: upload.id } }
      }

      test('private and absent cost the same trips and statements (R26)', async (world) => {
        const { things } = await hidden(world)
        const stranger = await world.person('stranger')
        for (const [method, look] of Object.entries(LOOKS))
          for (const viewer of [null, stranger.viewer]) {
            const cost = async (there: boolean) => {
              const before = world.trips().length
              await look(world.database, { ...things, there }, viewer)
              return world.trips().slice(before)
            }
            const there = await cost(true)
            expect(there, method).toHaveLength(1)
            expect(await cost(false), method).toEqual(there)
          }
      })

      test('anonymous has no standing, a standing token has it in the same answer (R25)', async (world) => {
        const { alice, things } = await hidden(world)
        for (const [method, look] of Object.entries(LOOKS)) {
          const ask = (viewer: Viewer) => look(world.database, { ...things, there: true }, viewer)
          expect((await ask(null)).standing, method).toBeNull()
          expect((await ask(alice.viewer)).standing, method).toEqual({
            userId: alice.user.id,
            userName: 'alice',
            role: 'user',
            scopes: DEFAULT_SCOPES,
            collectionId: '',
            containerId: '',
          })
        }
      })

      test('a token that does not stand has no standing anywhere (R14)', async (world) => {
        const { database } = world
        const { alice, things } = await hidden(world)
        const bob = await world.person('bob')
        const revoked = await world.token(alice.user)
        await database.tokens.revoke(revoked.tokenId, operator())
        const viewers: Record<string, [NonNullable<Viewer>, Date]> = {
          revoked: [revoked.viewer, at()],
          'expired to the millisecond': [alice.viewer, at(60 * 24)],
          unknown: [{ ...alice.viewer, tokenId: newId() }, at()],
          "with another user's id": [{ ...alice.viewer, userId: bob.user.id }, at()],
          'with the id of nobody': [{ ...alice.viewer, userId: newId() }, at()],
        }
        if (world.raw !== undefined) {
          const carol = await world.person('carol')
          await world.raw(`UPDATE users SET disabled = 1 WHERE id = '${carol.user.id}'`)
          viewers['of a disabled user'] = [carol.viewer, at()]
        }
        for (const [what, [viewer, now]] of Object.entries(viewers)) {
          for (const [method, look] of Object.entries(LOOKS)) {
            const seen = await look(database, { ...things, there: true }, viewer, now)
            expect(seen.standing, `${method}, token ${what}`).toBeNull()
          }
          expect(await database.tokens.standing(viewer, now), what).toBeNull()
          expect((await database.catalog.ownEntities(viewer, now)).standing, what).toBeNull()
        }
        const standing = await database.tokens.standing(alice.viewer, new Date(+at(60 * 24) - 1))
        expect(standing?.userId).toBe(alice.user.id)
      })

      test('what hangs below a name is listed and added up per viewer (R27)', async (world) => {
        const { catalog } = world.database
        const alice = await world.person('alice')
        const bob = await world.person('bob')
        const modest = await world.token(world.root.user, DEFAULT_SCOPES)
        const sizes = { open: 1, closed: 10, 'hidden/open': 100, 'hidden/closed': 1000 }
        const made: Record<string, Container> = {}
        for (const [key, size] of Object.entries(sizes)) {
          const [collection = '', name = ''] = key.includes('/') ? key.split('/') : ['shown', key]
          const place = await world.container(alice, `alice/${collection}/${name}`, {
            collectionPrivate: collection === 'hidden',
            private: name === 'closed',
          })
          await world.push(alice, place.id, key, { size })
          made[key] = place
        }
        const shown = made.open?.collectionId
        const hiddenId = made['hidden/open']?.collectionId
        const entity = async (viewer: Viewer) =>
          (await catalog.findEntity('alice', viewer, at())).value?.below
        const collection = async (name: string, viewer: Viewer) =>
          (await catalog.findCollection('alice', name, viewer, at())).value?.below
        for (const viewer of [null, bob.viewer, modest.viewer]) {
          expect(await entity(viewer)).toEqual({ ids: [shown], size: 1 })
          expect(await collection('shown', viewer)).toEqual({ ids: [made.open?.id], size: 1 })
          expect(await collection('hidden', viewer)).toEqual({ ids: [], size: 0 })
        }
        for (const viewer of [alice.viewer, world.root.viewer]) {
          const all = await entity(viewer)
          expect(all?.size).toBe(1111)
          expect(new Set(all?.ids)).toEqual(new Set([shown, hiddenId]))
          expect((await collection('shown', viewer))?.size).toBe(11)
          expect((await collection('hidden', viewer))?.size).toBe(1100)
        }
      })

      test('an entity of private collections only is not visible to strangers', async (world) => {
        const { catalog } = world.database
        const alice = await world.person('alice')
        const place = await world.container(alice, 'alice/c/n', { collectionPrivate: true })
        const visible = async (viewer: Viewer) =>
          (await catalog.entityById(place.entityId, viewer, at())).value?.visible
        expect(await visible(null)).toBe(false)
        expect(await visible(alice.viewer)).toBe(true)
        expect(await visible(world.root.viewer)).toBe(true)
        const path = { entity: 'alice', collection: 'c', container: null }
        expect(await catalog.setPrivate(path, false, byOperator(at()))).toBe(true)
        expect(await visible(null)).toBe(true)
      })

      test('own entities are one’s own, and all of them for an administrator', async (world) => {
        const alice = await world.person('alice')
        const names = async (who: Person) =>
          (await world.database.catalog.ownEntities(who.viewer, at())).value.map((e) => e.name)
        await world.container(world.root, 'lab/c/n')
        expect(await names(alice)).toEqual(['alice'])
        expect(await names(world.root)).toEqual(['alice', 'lab', 'root'])
        expect(await names(await world.token(world.root.user, DEFAULT_SCOPES))).toEqual([
          'lab',
          'root',
        ])
      })

      test('a short ref means the one visible collection of that name', async (world) => {
        const { catalog } = world.database
        const alice = await world.person('alice')
        const bob = await world.person('bob')
        const push = async (who: Person, collectionPrivate: boolean) => {
          const place = await world.container(who, `${who.user.name}/tools/n`, {
            collectionPrivate,
          })
          return (await world.push(who, place.id, who.user.name, { tag: 'latest' })).id
        }
        const short = { entity: null, collection: 'tools', container: 'n' }
        const find = async (viewer: Viewer) => {
          const { value } = await catalog.findImage(short, TAGGED, viewer, at())
          const found = await catalog.findContainer(short, viewer, at())
          expect(found.value?.container.id).toBe(value?.containerId)
          const digest = { by: 'digest', digest: value?.digest ?? digestOf('alice') } as const
          const same = await catalog.findImage(short, digest, viewer, at())
          expect(same.value?.id).toBe(value?.id)
          return value?.id ?? null
        }
        expect(await find(null)).toBeNull()
        const ofAlice = await push(alice, false)
        expect(await find(null)).toBe(ofAlice)
        expect(await find(bob.viewer)).toBe(ofAlice)
        // one visible, one private: the private one neither answers nor stands in the way
        const ofBob = await push(bob, true)
        expect(await find(null)).toBe(ofAlice)
        expect(await find(alice.viewer)).toBe(ofAlice)
        expect(await find(bob.viewer)).toBeNull()
        expect(await find(world.root.viewer)).toBeNull()
        await catalog.setPrivate(
          { entity: 'bob', collection: 'tools', container: null },
          false,
          byOperator(at()),
        )
        expect(await find(null)).toBeNull()
        await catalog.setPrivate(
          { entity: 'alice', collection: 'tools', container: null },
          true,
          byOperator(at()),
        )
        expect(await find(null)).toBe(ofBob)
        expect(await find(alice.viewer)).toBeNull()
      })
    })

    describe('search', () => {
      async function library(world: World) {
        const alice = await world.person('alice')
        const bob = await world.person('bob')
        const open = await world.container(alice, 'alice/bio/Samtools')
        const secret = await world.container(alice, 'alice/bio/secret', { private: true })
        const hidden = await world.container(alice, 'alice/hidden/thing', {
          collectionPrivate: true,
        })
        return { alice, bob, open, secret, hidden }
      }

      test('finds parts of names, tags, descriptions and label values, without case', async (world) => {
        const { alice, open } = await library(world)
        const { id } = await world.push(alice, open.id, 'one', {
          tag: 'v1.17-beta',
          description: 'Aligns Größe reads',
          facts: {
            labels: { 'org.label-schema.vendor': 'Grüne Wiese', MAINTAINER: 'x@y.example' },
          },
        })
        const hits = [
          'samtools',
          'MTOO',
          'alice/bio/sam',
          'v1.17',
          'BETA',
          'aligns',
          'größe',
          'grüne wiese',
          'x@y.example',
        ]
        for (const term of hits) expect(await world.search(null, term), term).toEqual([id])
        for (const term of ['maintainer', 'label-schema', 'samtoolz', 'amd64', alice.user.id])
          expect(await world.search(null, term), term).toEqual([])
        expect(await world.search(null, 'aligns', 'beta', 'sam')).toEqual([id])
        expect(await world.search(null, 'aligns', 'nowhere')).toEqual([])
      })

      test('finds the same when its index was merged to the end, and afterwards', async (world) => {
        const { alice, open } = await library(world)
        const ids: string[] = []
        for (const name of ['one', 'two', 'three', 'four', 'five'])
          ids.push((await world.push(alice, open.id, name, { description: `Aligns ${name}` })).id)
        const [gone = ''] = ids.splice(1, 1)
        const { writer } = alice
        await world.database.catalog.deleteImage({ imageId: gone, containerId: open.id }, writer)
        // a step of one page does not do all of it
        let steps = 0
        while (await world.database.catalog.mergeIndex(1)) steps += 1
        expect(steps).toBeGreaterThan(0)
        expect(steps).toBeLessThan(100)
        expect(await world.database.catalog.mergeIndex(100)).toBe(false)
        expect(await world.search(null, 'aligns')).toEqual(ids.toSorted())
        expect(await world.search(null, 'two')).toEqual([])
        const next = await world.push(alice, open.id, 'six', { description: 'Aligns six' })
        expect(await world.search(null, 'aligns', 'six')).toEqual([next.id])
        expect(await world.search(null, 'aligns')).toEqual([...ids, next.id].toSorted())
      })

      test('takes operators and odd characters for plain text', async (world) => {
        const { alice, open } = await library(world)
        const odd = [
          'fish AND chips',
          'not NOT here',
          'either OR',
          'say "hello" twice',
          'star * star',
          'NEAR(a b, 3)',
          'tags : latest',
          '{names} : x',
          '^start',
          'a + b - c',
          "it's",
          '100% _done_',
          'back\\slash',
          '(((',
          ');--',
          '???',
          '\u{1f600}\u{1f601}\u{1f602}',
        ]
        const idOf = new Map<string, string>()
        for (const description of odd)
          idOf.set(description, (await world.push(alice, open.id, description, { description })).id)
        for (const description of odd)
          expect(await world.search(null, description), description).toEqual([
            idOf.get(description),
          ])
        for (const term of [
          'fish OR chips',
          'sta*',
          'scope : pub',
          'scope:pub',
          '"""',
          'pub',
          'own',
          `own${alice.user.id}`,
          'NEAR(fish chips)',
          '-fish',
          'abc\u0000def',
          '\u0000\u0000\u0000',
        ])
          expect(await world.search(alice.viewer, term), JSON.stringify(term)).toEqual([])
      })

      test('shows public, own, and to administrators everything (R30)', async (world) => {
        const { alice, bob, open, secret, hidden } = await library(world)
        const push = async (place: Container) =>
          (await world.push(alice, place.id, place.id, { description: 'needle' })).id
        const [shown, ...rest] = [await push(open), await push(secret), await push(hidden)]
        const all = [shown, ...rest].toSorted()
        const modest = await world.token(world.root.user, DEFAULT_SCOPES)
        const pretender = await world.token(bob.user, SCOPES)
        for (const viewer of [null, bob.viewer, modest.viewer, pretender.viewer])
          expect(await world.search(viewer, 'needle')).toEqual([shown])
        expect(await world.search(alice.viewer, 'needle')).toEqual(all)
        expect(await world.search(world.root.viewer, 'needle')).toEqual(all)
      })

      test('follows privacy both ways, at both levels', async (world) => {
        const { catalog } = world.database
        const { alice, open } = await library(world)
        const { id } = await world.push(alice, open.id, 'one', { description: 'needle' })
        const flip = (container: string | null, value: boolean) =>
          catalog.setPrivate(
            { entity: 'alice', collection: 'bio', container },
            value,
            byOperator(at()),
          )
        for (const level of ['Samtools', null]) {
          expect(await world.search(null, 'needle')).toEqual([id])
          expect(await flip(level, true)).toBe(true)
          expect(await world.search(null, 'needle')).toEqual([])
          expect(await world.search(alice.viewer, 'needle')).toEqual([id])
          await flip(level, false)
        }
        await flip('Samtools', true)
        await flip(null, true)
        await flip(null, false)
        expect(await world.search(null, 'needle')).toEqual([])
        expect(await flip('nowhere', true)).toBe(false)
      })

      test('follows tags as they move and go', async (world) => {
        const { catalog } = world.database
        const { alice, open } = await library(world)
        const one = await world.push(alice, open.id, 'one', { tag: 'stable' })
        const two = await world.push(alice, open.id, 'two')
        expect(await world.search(null, 'stable')).toEqual([one.id])
        await world.tag(alice, open.id, two.id, 'stable')
        await world.tag(alice, open.id, one.id, 'former')
        expect(await world.search(null, 'stable')).toEqual([two.id])
        await world.tag(alice, open.id, two.id, 'other')
        await catalog.deleteTag(open.id, 'amd64', 'stable', alice.writer)
        expect(await world.search(null, 'stable')).toEqual([])
        expect(await world.search(null, 'other')).toEqual([two.id])
        await catalog.deleteTag(open.id, 'amd64', 'other', alice.writer)
        expect(await world.search(null, 'samtools')).toEqual([one.id])
        await catalog.deleteImage({ imageId: one.id, containerId: open.id }, alice.writer)
        expect(await world.search(null, 'samtools')).toEqual([])
      })

      test('never shows an image that is still on its way', async (world) => {
        const { alice, open } = await library(world)
        const record = await world.record(alice, open.id, 'one', 'needle')
        expect(await world.search(alice.viewer, 'needle')).toEqual([])
        const { attachment } = await world.received(alice, record)
        await world.database.catalog.attach(attachment)
        expect(await world.search(alice.viewer, 'needle')).toEqual([record.id])
      })

      test('an image never inherits the index of a deleted one (R38)', async (world) => {
        const { catalog } = world.database
        const { alice, open, secret } = await library(world)
        const first = await world.push(alice, open.id, 'one', { description: 'haystack' })
        await catalog.deleteImage({ imageId: first.id, containerId: open.id }, alice.writer)
        const second = await world.push(alice, secret.id, 'two', { description: 'needle' })
        expect(await world.search(null, 'haystack')).toEqual([])
        expect(await world.search(null, 'needle')).toEqual([])
        expect(await world.search(alice.viewer, 'needle')).toEqual([second.id])
      })

      test('narrows by a list of arches and by signature, and stops at the limit', async (world) => {
        const { catalog } = world.database
        const { alice, open } = await library(world)
        const push = async (arch: string, signed: boolean) =>
          (
            await world.push(alice, open.id, `${arch} ${signed}`, {
              description: 'needle',
              facts: { arch, signed },
            })
          ).id
        const amd = await push('amd64', false)
        const amdSigned = await push('amd64', true)
        const arm = await push('arm64', true)
        const ppc = await push('ppc64', false)
        const ask = async (arch: string[], signed: boolean) => {
          const query = { terms: ['needle'], arch, signed, limit: 4 }
          const { value } = await catalog.search(query, null, at())
          expect(value.cut).toBe(false)
          return value.images.map(({ id }) => id).toSorted()
        }
        expect(await ask(['amd64'], false)).toEqual([amd, amdSigned].toSorted())
        expect(await ask(['amd64', 'arm64'], true)).toEqual([amdSigned, arm].toSorted())
        expect(await ask(['ppc64'], false)).toEqual([ppc])
        expect(await ask(['ppc64le', 'md6', ''], false)).toEqual([])
        expect(await ask([], false)).toHaveLength(4)
      })

      test('tells of the newest where not all have room, says so, and puts names in order', async (world) => {
        const { catalog } = world.database
        const { alice, open } = await library(world)
        const other = await world.container(alice, 'alice/bio/Bwa')
        const push = async (containerId: string, word: string) =>
          (await world.push(alice, containerId, word, { description: 'needle' })).id
        const oldest = await push(other.id, 'one')
        const ids = [
          await push(open.id, 'two'),
          await push(other.id, 'three'),
          await push(open.id, 'four'),
        ] as const
        expect(other.name < open.name).toBe(true)
        const ask = async (limit: number) => {
          const query = { terms: ['needle'], arch: [], signed: false, limit }
          const { images, cut } = (await catalog.search(query, null, at())).value
          return [images.map(({ id }) => id), cut]
        }
        expect(await ask(4)).toEqual([[ids[1], oldest, ids[2], ids[0]], false])
        expect(await ask(3)).toEqual([[ids[1], ids[2], ids[0]], true])
        expect(await ask(1)).toEqual([[ids[2]], true])
      })

      for (const level of ['collection', 'container'] as const)
        test(
          `says when more than 10,000 images match (R56), and counts none in a private ${level} (R30)`,
          async (world) => {
            const { catalog } = world.database
            const { alice, secret, hidden } = await library(world)
            const place = level === 'collection' ? hidden : secret
            const { id } = await world.push(alice, place.id, 'one', { description: 'needle' })
            const more = async (from: number, to: number) => {
              await world.raw?.(
                `WITH RECURSIVE n (i) AS (SELECT ${from} UNION ALL SELECT i + 1 FROM n WHERE i < ${to})
               INSERT INTO images (id, container_id, digest, description, blob_id, size, created_by, created_at, updated_at)
               SELECT 'many' || i, container_id, 'digest' || i, 'needle', blob_id, 1, created_by, 0, 0
               FROM images, n WHERE id = '${id}'`,
              )
              // any privacy change writes the index anew
              const path = {
                entity: 'alice',
                collection: place.collectionName,
                container: level === 'collection' ? null : place.name,
              }
              await catalog.setPrivate(path, true, byOperator(at()))
            }
            const ask = async (viewer: Viewer, arch: string[] = []) => {
              const query = { terms: ['needle'], arch, signed: false, limit: 5 }
              const { images, cut } = (await catalog.search(query, viewer, at())).value
              return { images: images.map((found) => found.id), cut }
            }
            const newest = (last: number) => [0, 1, 2, 3, 4].map((less) => `many${last - less}`)
            // as many as are looked at together, and more: the one of another arch is the oldest
            for (const [from, to] of [
              [1, 999],
              [1000, 1000],
              [1001, 9999],
            ] as const) {
              await more(from, to)
              expect(await ask(alice.viewer)).toEqual({ images: newest(to), cut: true })
              expect(await ask(alice.viewer, ['amd64'])).toEqual({ images: [id], cut: false })
            }
            await more(10_000, 10_000)
            expect(await ask(alice.viewer, ['amd64'])).toEqual({ images: [], cut: true })
            expect(await ask(alice.viewer)).toEqual({ images: newest(10_000), cut: true })
            expect(await ask(null)).toEqual({ images: [], cut: false })
            const pretender = await world.token((await world.person('eve')).user, SCOPES)
            expect(await ask(pretender.viewer)).toEqual({ images: [], cut: false })
          },
          true,
        )
    })

    describe('SQL and authorise agree on what is visible', () => {
      const flags = fc.record({ collection: fc.boolean(), container: fc.boolean() })
      const worlds = fc.array(
        fc.record({
          /** The owner is made after the entity was filled: it passes to them. */
          late: fc.boolean(),
          /** Privacy as created, and as it is changed to afterwards. */
          places: fc.array(fc.record({ made: flags, set: fc.option(flags) }), { maxLength: 3 }),
        }),
        { minLength: 1, maxLength: 3 },
      )

      it('for any users, owners and privacy', { timeout: 120_000 }, async () => {
        await fc.assert(
          fc.asyncProperty(worlds, sharing, async (drawn, shared) => {
            const made = await backend.make()
            try {
              await compareVisibility(await worldOf(made), drawn, shared)
            } finally {
              await made.dispose()
            }
          }),
          { numRuns: backend.worlds ?? 25 },
        )
      })

      /** Who is granted what in which collection: people or teams, whose members are drawn too. */
      const sharing = fc.record({
        grants: fc.array(
          fc.record({
            place: fc.nat(8),
            user: fc.nat(2),
            team: fc.option(fc.nat(1)),
            level: fc.constantFrom(0, 1, 2, 3) as fc.Arbitrary<Level>,
          }),
          { maxLength: 5 },
        ),
        members: fc.array(fc.record({ team: fc.nat(1), user: fc.nat(2), leaves: fc.boolean() }), {
          maxLength: 4,
        }),
      })

      type Shared = typeof sharing extends fc.Arbitrary<infer T> ? T : never
      type Drawn = typeof worlds extends fc.Arbitrary<infer T> ? T : never

      async function share(world: World, shared: Shared, people: Person[], ids: string[]) {
        const { teams, grants } = world.database
        const by = byOperator(at())
        const teamIds = [newId(), newId()]
        for (const [n, id] of teamIds.entries())
          await teams.create({
            id,
            name: `team${n}`,
            description: '',
            open: false,
            owner: 'root',
            anybody: true,
            by,
          })
        const named = (index: number) => people[index % people.length]?.user.name ?? 'root'
        for (const { team, user, leaves } of shared.members) {
          const change = { teamId: teamIds[team] ?? '', user: named(user), by }
          await teams.setMember({ ...change, owner: false })
          if (leaves) await teams.removeMember(change)
        }
        if (ids.length === 0) return
        for (const { place, user, team, level } of shared.grants)
          await grants.set({
            id: newId(),
            collectionId: ids[place % ids.length] ?? '',
            to: team === null ? { user: named(user) } : { teamId: teamIds[team] ?? '' },
            level,
            by,
          })
      }

      async function compareVisibility(world: World, drawn: Drawn, shared: Shared): Promise<void> {
        const { catalog } = world.database
        const people: Person[] = []
        const places: { id: string; collectionId: string }[] = []
        for (const [u, { late, places: drawnPlaces }] of drawn.entries()) {
          const name = `user${u}`
          const early = late ? world.root : await world.person(name)
          for (const [c, { made, set }] of drawnPlaces.entries()) {
            for (const n of [0, 1]) {
              const place = await world.container(early, `${name}/col${c}/con${n}`, {
                collectionPrivate: made.collection,
                private: n === 1 && made.container,
              })
              places.push(place)
              await world.push(early, place.id, place.id, { description: 'needle', size: 1 })
            }
            if (set === null) continue
            const path = { entity: name, collection: `col${c}`, container: null }
            await catalog.setPrivate(path, set.collection, byOperator(at()))
            await catalog.setPrivate(
              { ...path, container: 'con1' },
              set.container,
              byOperator(at()),
            )
          }
          people.push(late ? await world.person(name) : early)
        }
        const helper = await world.person('helper', 'staff', [...SCOPES])
        const collections = [...new Set(places.map(({ collectionId }) => collectionId))]
        await share(world, shared, people, collections)
        /** Of each person, one token for a collection and one for a container. */
        const bound: Viewer[] = []
        for (const { user } of people)
          for (const [n, { id, collectionId }] of places.slice(0, 3).entries()) {
            const containerId = n === 1 ? id : ''
            const { viewer } = await world.token(user, DEFAULT_SCOPES, {
              collectionId,
              containerId,
            })
            bound.push(viewer)
          }
        const viewers: Viewer[] = [
          null,
          helper.viewer,
          (await world.token(helper.user, DEFAULT_SCOPES)).viewer,
          ...bound,
          world.root.viewer,
          (await world.token(world.root.user, DEFAULT_SCOPES)).viewer,
          (await world.person('stranger')).viewer,
          ...people.map(({ viewer }) => viewer),
          ...(people[0] === undefined ? [] : [(await world.token(people[0].user, SCOPES)).viewer]),
        ]
        for (const viewer of viewers) {
          const seenImages = [...world.touched.images].map(
            async (id) => (await catalog.imageById(id, viewer, at())).value,
          )
          const images = (await Promise.all(seenImages)).filter((image) => image !== null)
          const standing =
            viewer === null ? null : await world.database.tokens.standing(viewer, at())
          const { decide } = createAccess(DEFAULT_RULES)
          const who = identify(viewer === null ? null : { ...viewer, expiresAt: LATER }, standing)
          const visible = images.filter(
            (image) => decide(who, 'see', containerFacts('image', image)) === 'allow',
          )
          expect(await world.search(viewer, 'needle')).toEqual(
            visible.map(({ id }) => id).toSorted(),
          )
          for (const { name } of (await catalog.ownEntities(world.root.viewer, at())).value) {
            const inside = images.filter((image) => image.entityName === name)
            const seen = visible.filter((image) => image.entityName === name)
            const found = (await catalog.findEntity(name, viewer, at())).value
            const collections = new Set(
              inside
                .filter(
                  ({ level, collectionPrivate, collectionId }) =>
                    decide(who, 'see', {
                      subject: 'collection',
                      level,
                      private: collectionPrivate,
                      collectionId,
                    }) === 'allow',
                )
                .map(({ collectionId }) => collectionId),
            )
            expect(new Set(found?.below.ids)).toEqual(collections)
            expect(found?.below.size).toBe(seen.length)
            for (const collection of new Set(inside.map((image) => image.collectionName))) {
              const below = (await catalog.findCollection(name, collection, viewer, at())).value
                ?.below
              const shown = seen.filter((image) => image.collectionName === collection)
              expect(new Set(below?.ids)).toEqual(new Set(shown.map((image) => image.containerId)))
              expect(below?.size).toBe(shown.length)
            }
          }
        }
      }
    })

    describe('ended ids (R25)', () => {
      test('appear when a token is revoked, an image deleted or hidden', async (world) => {
        const { catalog, tokens, ended } = world.database
        const alice = await world.person('alice')
        const place = await world.container(alice, 'alice/c/n')
        const other = await world.container(alice, 'alice/c/other')
        const deleted = await world.push(alice, place.id, 'deleted')
        const hidden = await world.push(alice, place.id, 'hidden')
        const inCollection = await world.push(alice, other.id, 'in collection')
        const since = async (minutes: number) => (await ended.since(at(minutes))).toSorted()
        expect(await since(-1)).toEqual([])

        const image = { imageId: deleted.id, containerId: place.id }
        await catalog.deleteImage(image, { ...alice.writer, now: at(1) })
        expect(await since(0)).toEqual([deleted.id])
        const path = { entity: 'alice', collection: 'c', container: 'n' }
        await catalog.setPrivate(path, true, byOperator(at(2)))
        expect(await since(1)).toEqual([`public:${hidden.id}`])
        await catalog.setPrivate({ ...path, container: null }, true, byOperator(at(3)))
        const both = [`public:${hidden.id}`, `public:${inCollection.id}`].toSorted()
        expect(await since(2)).toEqual(both)
        await tokens.revoke(alice.tokenId, operator(at(4)))
        expect(await since(3)).toEqual([alice.tokenId])

        await ended.prune(at(3))
        expect(await since(-1)).toEqual([...both, alice.tokenId].toSorted())
        await ended.prune(at(5))
        expect(await since(-1)).toEqual([])
      })

      test('becoming public ends nothing', async (world) => {
        const { catalog, ended } = world.database
        const place = await world.container(world.root, 'root/c/n', { private: true })
        await world.push(world.root, place.id, 'image')
        const path = { entity: 'root', collection: 'c', container: 'n' }
        await catalog.setPrivate(path, false, byOperator(at()))
        expect(await ended.since(new Date(0))).toEqual([])
        // and takes back what becoming private ended, but not while the collection is private
        const above = { ...path, container: null }
        await catalog.setPrivate(above, true, byOperator(at(1)))
        const [id = ''] = await ended.since(new Date(0))
        await catalog.setPrivate(path, false, byOperator(at(2)))
        expect(await ended.since(new Date(0))).toEqual([id])
        await catalog.setPrivate(above, false, byOperator(at(3)))
        expect(await ended.since(new Date(0))).toEqual([])
      })

      test('an image that was hidden once and is deleted later ends again', async (world) => {
        const { catalog, ended } = world.database
        const place = await world.container(world.root, 'root/c/n')
        const { id } = await world.push(world.root, place.id, 'image')
        const path = { entity: 'root', collection: 'c', container: 'n' }
        await catalog.setPrivate(path, true, byOperator(at(1)))
        await catalog.setPrivate(path, false, byOperator(at(2)))
        const image = { imageId: id, containerId: place.id }
        await catalog.deleteImage(image, { ...world.root.writer, now: at(100) })
        expect(await ended.since(at(50))).toEqual([id])
      })
    })

    describe('users and tokens', () => {
      test('a user is made once; the second call gets what stands', async (world) => {
        const { users } = world.database
        const draft = (): NewUser => ({
          id: newId(),
          entityId: newId(),
          name: 'alice',
          role: 'user',
          disabled: false,
          createdAt: at(),
        })
        const answers = await Promise.all([
          users.create(draft(), operator()),
          users.create(draft(), operator()),
        ])
        expect(answers.map(({ created }) => String(created)).toSorted()).toEqual(['false', 'true'])
        expect(answers[0].user).toEqual(answers[1].user)
        const third = await users.create({ ...draft(), role: 'admin' }, operator())
        expect(third).toEqual({ created: false, user: answers[0].user })
        expect(await users.byName('alice')).toEqual(answers[0].user)
        expect(await users.byName('bob')).toBeNull()
        expect((await users.list()).map(({ name }) => name)).toEqual(['alice', 'root'])
      })

      test('an entity passes to the new user of its name, with all that is in it', async (world) => {
        const { catalog } = world.database
        const place = await world.container(world.root, 'alice/c/n', { private: true })
        const { id } = await world.push(world.root, place.id, 'image', { description: 'needle' })
        const modest = await world.token(world.root.user, DEFAULT_SCOPES)
        expect(await world.search(modest.viewer, 'needle')).toEqual([id])
        const alice = await world.person('alice')
        const { value } = await catalog.entityParent('alice', alice.viewer, at())
        expect(value.entity).toMatchObject({ id: place.entityId, ownerId: alice.user.id })
        expect((await catalog.containerById(place.id, alice.viewer, at())).value?.ownerId).toBe(
          alice.user.id,
        )
        expect(await world.search(alice.viewer, 'needle')).toEqual([id])
        expect(await world.search(modest.viewer, 'needle')).toEqual([])
        await world.push(alice, place.id, 'another')
      })

      test('a user that is there already takes no entity over', async (world) => {
        const { catalog, users } = world.database
        const alice = await world.person('alice')
        const impostor = { ...alice.user, id: newId(), entityId: newId() }
        expect((await users.create(impostor, operator())).created).toBe(false)
        const { value } = await catalog.entityParent('alice', alice.viewer, at())
        expect(value.entity?.ownerId).toBe(alice.user.id)
      })

      test('tokens are listed for their user, revoked once, and touched', async (world) => {
        const { tokens } = world.database
        const alice = await world.person('alice')
        const other = await world.token(alice.user, ['pull'])
        const list = async () => (await tokens.listFor(alice.user.id)).toSorted(byId)
        const byId = (a: { id: string }, b: { id: string }) => (a.id < b.id ? -1 : 1)
        expect(await list()).toEqual(
          [
            { id: alice.tokenId, scopes: DEFAULT_SCOPES },
            { id: other.tokenId, scopes: ['pull'] },
          ].map((token) => ({
            ...token,
            userId: alice.user.id,
            userName: 'alice',
            name: 'laptop',
            createdAt: at(),
            expiresAt: at(60 * 24),
            revokedAt: null,
            lastUsedAt: null,
            collectionId: '',
            containerId: '',
          })),
        )
        expect(await tokens.revoke(other.tokenId, operator(at(1)))).toBe(true)
        expect(await tokens.revoke(other.tokenId, operator(at(2)))).toBe(true)
        expect(await tokens.revoke(newId(), operator())).toBe(false)
        await tokens.touch([alice.tokenId], at(3))
        const after = await list()
        expect(after.map(({ revokedAt, lastUsedAt }) => [revokedAt, lastUsedAt])).toEqual([
          [null, at(3)],
          [at(1), null],
        ])
        expect(await tokens.listFor(newId())).toEqual([])
      })

      test('the scopes of the row are in the standing, whatever the JWT says (R14)', async (world) => {
        const narrow = await world.token(world.root.user, ['pull'])
        const wide = { ...narrow.viewer, scopes: SCOPES }
        const standing = await world.database.tokens.standing(wide, at())
        expect(standing?.scopes).toEqual(['pull'])
        const alice = await world.person('alice')
        await world.container(alice, 'alice/c/n', { collectionPrivate: true })
        const { value } = await world.database.catalog.findEntity('alice', wide, at())
        expect(value?.below.ids).toEqual([])
      })
    })

    describe('numbers, settings and ids', () => {
      test('sizes beyond 2^32 and 2^40 survive every way', async (world) => {
        const { catalog, uploads, blobs } = world.database
        const place = await world.container(world.root, 'root/c/n')
        const sizes = [2 ** 32 + 1, 2 ** 40 + 3, 2 ** 50 + 5]
        for (const size of sizes) {
          const push = await world.push(world.root, place.id, `image ${size}`, { size })
          expect((await world.image(push.id))?.blob?.size).toBe(size)
          const blob = await catalog.readableBlob(push.digest, world.root.viewer, at())
          expect(blob?.size).toBe(size)
          const { value } = await uploads.find(push.upload.id, world.root.viewer, at())
          expect(value?.size).toBe(size)
        }
        const sum = sizes.reduce((a, b) => a + b, 0)
        expect((await catalog.findEntity('root', null, at())).value?.below.size).toBe(sum)
        expect((await catalog.findCollection('root', 'c', null, at())).value?.below.size).toBe(sum)
        const path = { entity: 'root', collection: 'c', container: 'n' }
        expect((await catalog.findContainer(path, null, at())).value?.below.size).toBe(sum)
        for (const imageId of world.touched.images)
          await catalog.deleteImage({ imageId, containerId: place.id }, world.root.writer)
        await blobs.markDying(at(), '', 1000)
        const dying = await blobs.dying(LATER, 10)
        expect(dying.map(({ size }) => size).toSorted((a, b) => a - b)).toEqual(sizes)
        expect((await catalog.findEntity('root', null, at())).value?.below.size).toBe(0)
      })

      test('downloads are counted up, also at once, and never for what is not there', async (world) => {
        const { catalog } = world.database
        const [one, two] = [
          await world.container(world.root, 'root/c/one'),
          await world.container(world.root, 'root/c/two'),
        ]
        await catalog.countDownloads([], at())
        await Promise.all(
          [1, 2, 3].map((count) =>
            catalog.countDownloads(
              [
                { containerId: one.id, count },
                { containerId: newId(), count },
                { containerId: two.id, count: 10 },
              ],
              at(),
            ),
          ),
        )
        const downloads = async (id: string) =>
          (await catalog.containerById(id, null, at())).value?.downloads
        expect([await downloads(one.id), await downloads(two.id)]).toEqual([6, 30])
      })

      test('a setting is set once by one of many, and by set again', async ({ database }) => {
        const { settings } = database
        expect(await settings.get('registry-id')).toBeNull()
        const values = ['a', 'b', 'c']
        const answers = await Promise.all(values.map((v) => settings.setOnce('registry-id', v)))
        expect(new Set(answers).size).toBe(1)
        expect(await settings.get('registry-id')).toBe(answers[0])
        await settings.set('registry-id', 'd')
        expect(await settings.setOnce('registry-id', 'e')).toBe('d')
        await settings.set('other', '')
        expect(await settings.get('other')).toBe('')
      })

      test(
        'the number of a deleted image is never given again (R38)',
        async (world) => {
          const place = await world.container(world.root, 'root/c/n')
          const seq = async (id: string) =>
            Number((await world.raw?.(`SELECT seq FROM images WHERE id = '${id}'`))?.[0]?.seq)
          const first = await world.push(world.root, place.id, 'one')
          const used = await seq(first.id)
          const image = { imageId: first.id, containerId: place.id }
          await world.database.catalog.deleteImage(image, world.root.writer)
          const second = await world.push(world.root, place.id, 'two')
          expect(await seq(second.id)).toBeGreaterThan(used)
        },
        true,
      )

      test('answers a ping', async ({ database, trips }) => {
        const before = trips().length
        await database.ping()
        expect(trips().length).toBe(before + 1)
      })

      test('tells the time by its own clock, to the millisecond (R43)', async ({ database }) => {
        const times = [await database.now()]
        for (let i = 0; i < 20; i++) times.push(await database.now())
        const ms = times.map((time) => time.getTime())
        expect(ms).toEqual(ms.toSorted((a, b) => a - b))
        expect(Math.abs((ms[0] ?? 0) - Date.now())).toBeLessThan(60_000)
        expect(ms.every(Number.isInteger)).toBe(true)
      })
    })

    describeIdentities(test)
    describePeople(test)
    describeTeams(test)
    describeKeys(test)
    describeAudit(test)
    describeCounters(test)
    describeSignatures(test)
    describeImports(test)
    describeManifests(test)
    describeBridge(test)
    describeQuotas(test)
    describeShares(test)

    it('skips no test that is not there', () => {
      expect([...skip.keys()]).toEqual([])
    })
  })
}

/** Puts the case into the message of a failed expectation. */
const named = (what: string) => (error: unknown) => {
  if (error instanceof Error) error.message = `${what}: ${error.message}`
  throw error
}
