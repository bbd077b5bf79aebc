/** What every Database must do when a registry moves: pages out, staging, and one flip (R41, R42). */
import { describe, expect } from 'vitest'
import type { KeyFacts, MovedKind, MovedRow } from '../../src/core/model.ts'
import { stagedRow } from '../../src/core/moved-rows.ts'
import type { Database, StagedRow } from '../../src/ports.ts'
import { at, digestOf, expectRefused, factsOf, newId, outcome, type World } from './database.ts'
import { factsOfKey } from './keys.ts'
import { operator } from '../fixtures/operator.ts'

type Test = (title: string, run: (world: World) => Promise<void>, needsRaw?: boolean) => void

const KINDS: MovedKind[] = [
  'user',
  'token',
  'key',
  'entity',
  'collection',
  'container',
  'image',
  'tag',
  'membership',
  'manifest',
  'piece',
  'ociTag',
  'team',
  'member',
  'grant',
  'star',
  'pulls',
]
// no `at` yet: database.ts imports this file before it has one
const START = Date.UTC(2030, 0, 1)
const times = { createdAt: START, updatedAt: START + 60_000 }
const FINISH = {
  sha256: 'f'.repeat(64),
  sameIssuer: false,
  keepPower: false,
  by: { operator: 'cli:test', now: new Date(START + 300_000) },
}

async function everything(database: Database, kind: MovedKind, limit: number) {
  const rows: MovedRow[] = []
  for (let after: string | null = ''; after !== null;) {
    const page: Awaited<ReturnType<Database['exports']['rows']>> = await database.exports.rows(
      kind,
      after,
      limit,
    )
    expect(page.rows.length).toBeLessThanOrEqual(limit)
    rows.push(...page.rows)
    after = page.next
  }
  return rows
}

let named = 0

/** The rows of a file: one user with a place, and an image of it that has a tag. */
function fileOf(change: Partial<Record<MovedKind, object>> = {}) {
  const name = `mover${(named += 1)}`
  const [user, token, entity, collection, container, image] = Array.from({ length: 6 }, newId)
  const digest = digestOf(name)
  const rows = [
    { type: 'user', id: user, name, role: 'admin', disabled: false, createdAt: times.createdAt },
    {
      type: 'token',
      id: token,
      userId: user,
      name: 'ci',
      scopes: ['pull', 'admin'],
      createdAt: times.createdAt,
      expiresAt: at(600).getTime(),
      revokedAt: null,
      lastUsedAt: null,
    },
    {
      type: 'entity',
      id: entity,
      ownerId: user,
      name,
      description: 'd',
      defaultPrivate: true,
      ...times,
    },
    {
      type: 'collection',
      id: collection,
      entityId: entity,
      name: 'c',
      description: '',
      private: true,
      ...times,
    },
    {
      type: 'container',
      id: container,
      collectionId: collection,
      name: 'n',
      description: '',
      fullDescription: 'all of it',
      private: false,
      downloads: 7,
      ...times,
    },
    {
      type: 'image',
      id: image,
      containerId: container,
      digest,
      size: 100,
      arch: 'arm64',
      description: 'needle',
      createdBy: user,
      ...times,
    },
    {
      type: 'tag',
      containerId: container,
      name: 'v1',
      arch: 'arm64',
      imageId: image,
      updatedAt: 1,
    },
  ].map((row) => ({ ...row, ...change[row.type as MovedKind] }) as MovedRow)
  const ids = { user, token, entity, collection, container, image } as Record<MovedKind, string>
  return { name, digest, rows, ids }
}

/** What the people of a file share: team, grants, stars, counted pulls; staff, a robot, somebody gone. */
function sharedOf(
  { name, ids }: ReturnType<typeof fileOf>,
  change: Partial<Record<MovedKind, object>> = {},
) {
  const [staff, robot, gone, team, toTeam, toRobot] = Array.from({ length: 6 }, newId)
  const person = (id: string | undefined, word: string, more: object) => ({
    type: 'user',
    id,
    name: `${name}-${word}`,
    role: 'user',
    disabled: false,
    createdAt: START,
    managerId: null,
    deletedAt: null,
    ...more,
  })
  const rows = [
    // before its manager's row, and after it by id
    person(robot, 'robot', {
      role: 'robot',
      managerId: staff,
    }),
    person(staff, 'staff', { role: 'staff' }),
    person(gone, 'gone', { disabled: true, deletedAt: START + 5 }),
    {
      type: 'team',
      id: team,
      name: `${name}-team`,
      description: 't',
      open: true,
      createdAt: START + 1,
    },
    { type: 'member', teamId: team, userId: staff, owner: true, joinedAt: START + 2 },
    {
      type: 'grant',
      id: toTeam,
      collectionId: ids.collection,
      holder: 'team',
      holderId: team,
      level: 2,
      createdAt: START + 3,
    },
    {
      type: 'grant',
      id: toRobot,
      collectionId: ids.collection,
      holder: 'user',
      holderId: robot,
      level: 1,
      createdAt: START + 4,
    },
    { type: 'star', containerId: ids.container, userId: robot, createdAt: START + 5 },
    { type: 'star', containerId: ids.container, userId: staff, createdAt: START + 6 },
    ...[0, 9].map((count, n) => ({
      type: 'pulls',
      containerId: ids.container,
      week: START + n * 7 * 86_400_000,
      count: count + 1,
    })),
  ].map((row) => {
    const kind = row.type as MovedKind
    return (kind === 'user' ? row : { ...row, ...change[kind] }) as MovedRow
  })
  return {
    rows,
    staff: `${name}-staff`,
    robot: `${name}-robot`,
    gone: `${name}-gone`,
    team: team ?? '',
  }
}

/** What a repository beside an image has: blobs by both algorithms, a manifest in two pieces, and its tag. */
function repositoryOf({ name, ids }: ReturnType<typeof fileOf>) {
  const containerId = ids.container
  const layer = digestOf(`${name} layer`)
  const sha512 = '5'.repeat(128)
  const [small, large] = [`sha256:${digestOf('small')}`, `sha512:${'6'.repeat(128)}`]
  const manifest = (digest: string, more: object) => ({
    type: 'manifest',
    containerId,
    digest,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    text: '{"small":1}',
    pieces: 1,
    blobs: [`sha256:${layer}`],
    createdBy: ids.user,
    createdAt: START + 7,
    ...more,
  })
  const rows = [
    ...[`sha256:${layer}`, `sha512:${sha512}`].map((digest) => ({
      type: 'membership',
      containerId,
      digest,
      sha256: layer,
      size: 7,
      createdAt: START + 6,
    })),
    manifest(small, {}),
    manifest(large, { text: '{"la', pieces: 2, blobs: [] }),
    { type: 'piece', containerId, manifest: large, number: 1, text: 'rge":1}' },
    {
      type: 'ociTag',
      containerId,
      name: 'V_1',
      manifest: large,
      frozen: true,
      updatedAt: START + 8,
    },
  ] as MovedRow[]
  const facts = {
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    subject: small,
    artifactType: 'application/x',
    annotations: '{"a":"b"}',
    size: 11,
  }
  /** As the core stages it: with what it says. */
  const asStaged = (row: MovedRow, refs: object[]): StagedRow => ({
    ...stagedRow(row),
    record: JSON.stringify({ ...row, ...facts, refs }),
  })
  const names = { kind: 'blob', digest: `sha256:${layer}`, size: 7 }
  return { rows, layer, sha512, small, large, asStaged, names }
}

/** The same rows whatever the order, for `toEqual`. */
const sorted = (rows: MovedRow[]) =>
  rows
    .map((row) => JSON.stringify(Object.entries(row).toSorted(([a], [b]) => (a < b ? -1 : 1))))
    .toSorted()

/** An import with everything staged that its file needs. */
async function staged(
  world: World,
  file: { rows: MovedRow[]; digest: string },
  facts: Parameters<typeof factsOf>[0] = { arch: 'arm64' },
) {
  const { imports } = world.database
  const { id } = await imports.open({
    id: newId(),
    exportId: newId(),
    now: at(),
    expiresAt: at(60),
  })
  await imports.stageRows(id, file.rows.map(stagedRow), at(60))
  const key = newId()
  world.touched.keys.add(key)
  const blob = { digest: file.digest, size: 100, blobId: newId(), key }
  await imports.stageBlob(id, blob, at(60))
  await imports.readyBlob(id, file.digest, key, factsOf(facts))
  const finish = (more: Partial<typeof FINISH & { rows: number }> = {}) =>
    imports.finish(id, { ...FINISH, rows: file.rows.length, ...more })
  return { id, key, blob, finish }
}

export function describeImports(test: Test): void {
  describe('exports: all there is, in pages (R41)', () => {
    test('every row of every kind once, whatever the size of the pages', async (world) => {
      const { database, root } = world
      const alice = await world.person('alice')
      const one = await world.container(alice, 'alice/c/one', { private: true })
      const two = await world.container(alice, 'alice/c/two', { collectionPrivate: false })
      const pushes = []
      for (const n of [1, 2, 3, 4, 5])
        pushes.push(await world.push(alice, (n % 2 ? one : two).id, `image ${n}`, { tag: `v${n}` }))
      await world.record(alice, one.id, 'never sent')
      const lost = await world.push(alice, one.id, 'lost', { tag: 'gone' })
      await database.catalog.markLost(lost.upload.blobKey)
      await database.tokens.revoke(alice.tokenId, operator(at(3)))
      const keys = [1, 2, 3, 4].map((n) => factsOfKey([`Key ${n} <k${n}@example.org>`]))
      for (const facts of keys) {
        const ownerId = alice.user.id
        await database.keys.put({
          facts,
          expected: 0,
          show: true,
          ownerId,
          by: operator(),
          now: at(4),
        })
      }
      const [first] = keys
      if (first === undefined) throw new Error('four keys')
      const gone = { forGood: false, by: operator(), now: at(5) }
      await database.keys.remove(first.fingerprint, gone)

      for (const kind of KINDS) {
        const all = await everything(database, kind, 1000)
        for (const limit of [1, 2, 3])
          expect([kind, limit, await everything(database, kind, limit)]).toEqual([kind, limit, all])
      }
      const images = await everything(database, 'image', 2)
      // in the order they were made, without what has no bytes
      expect(images).toMatchObject(
        pushes.map(({ id, digest, containerId }) => ({ type: 'image', id, digest, containerId })),
      )
      expect((await everything(database, 'user', 2)).map((row) => row)).toHaveLength(2)
      expect(await everything(database, 'token', 9)).toContainEqual({
        type: 'token',
        id: alice.tokenId,
        userId: alice.user.id,
        name: 'laptop',
        scopes: [...alice.viewer.scopes],
        createdAt: at().getTime(),
        expiresAt: at(60 * 24).getTime(),
        revokedAt: at(3).getTime(),
        lastUsedAt: null,
        collectionId: '',
        containerId: '',
      })
      // what its owner has removed moves too: its packets count when it comes back (R46)
      expect(await everything(database, 'key', 3)).toContainEqual({
        type: 'key',
        fingerprint: first.fingerprint,
        armor: first.armor,
        ownerId: alice.user.id,
        addedBy: null,
        addedAt: at(4).getTime(),
        updatedAt: at(5).getTime(),
        removedAt: at(5).getTime(),
      })
      expect(await everything(database, 'key', 3)).toHaveLength(4)
      const containers = await everything(database, 'container', 1)
      expect(containers).toContainEqual(expect.objectContaining({ id: one.id, private: true }))
      expect(containers[0]).not.toHaveProperty('size')
      expect(root.user.role).toBe('admin')
    })

    test('bytes are found while they wait to be deleted, and not when they are lost', async (world) => {
      const { database, root } = world
      const place = await world.container(root, 'root/c/n')
      const first = await world.push(root, place.id, 'same')
      const find = () => database.exports.blob(first.digest)
      const { blobKey: key } = first.upload
      expect(await find()).toEqual({ key, size: 100, live: true })
      await database.catalog.deleteImage({ imageId: first.id, containerId: place.id }, root.writer)
      await database.blobs.markDying(at(1), '', 100)
      expect(await find()).toEqual({ key, size: 100, live: false })
      const second = await world.push(root, place.id, 'same')
      expect(await find()).toEqual({ key: second.upload.blobKey, size: 100, live: true })
      expect(await database.exports.blob(digestOf('nothing'))).toBeNull()
    })
  })

  describe('imports: invisible until one flip (R42)', () => {
    test('what is staged is seen by nobody, and its keys are known to the sweep', async (world) => {
      const { catalog, blobs, users } = world.database
      const file = fileOf()
      const { viewer } = world.root
      const path = { entity: file.name, collection: 'c', container: 'n' }
      const visible = async () => ({
        people: await users.list(),
        entities: (await catalog.ownEntities(viewer, at())).value,
        container: (await catalog.findContainer(path, viewer, at())).value,
        image: await world.image(file.ids.image),
        readable: await catalog.readableBlob(file.digest, viewer, at()),
        found: await world.search(viewer, 'needle'),
        live: await blobs.liveCount(),
        bytes: await world.database.exports.blob(file.digest),
      })
      const before = await visible()
      const { id, key } = await staged(world, file)
      expect([...(await blobs.known([key]))]).toEqual([key])
      expect(await visible()).toEqual(before)
      expect(await world.database.imports.report(id, { now: at() })).toMatchObject({
        rows: { image: 1 },
      })
    })

    test('the flip makes everything visible: names, bytes, tags, privacy, search', async (world) => {
      const { database, root } = world
      const file = fileOf()
      const { key, finish } = await staged(world, file, {
        arch: 'arm64',
        signed: true,
        fingerprints: ['A'.repeat(40)],
        labels: { 'a"b': 'thread' },
        definition: 'from: scratch',
      })
      await finish()
      const { ids, name, digest } = file
      expect(await world.image(ids.image)).toMatchObject({
        digest,
        uploaded: true,
        blob: { key, size: 100 },
        facts: { arch: 'arm64', signed: true, encrypted: false, fingerprints: ['A'.repeat(40)] },
        tags: ['v1'],
        createdBy: ids.user,
        createdAt: at(),
        collectionPrivate: true,
        containerDownloads: 7,
      })
      const path = { entity: name, collection: 'c', container: 'n' }
      const found = await database.catalog.findContainer(path, root.viewer, at())
      expect(found.value).toMatchObject({
        below: { ids: [ids.image], size: 100 },
        container: { fullDescription: 'all of it', ownerId: ids.user },
      })
      for (const word of ['needle', 'thread', name])
        expect([word, await world.search(root.viewer, word)]).toEqual([word, [ids.image]])
      // private to everybody else, and to nobody
      expect(await world.search(null, 'needle')).toEqual([])
      const user = await database.users.byName(name)
      const owner = await world.token(user ?? root.user)
      expect(await world.search(owner.viewer, 'needle')).toEqual([ids.image])
      expect(await database.tokens.listFor(ids.user)).toHaveLength(1)
    })

    test('nobody becomes administrator; a token counts with its own issuer only', async (world) => {
      const { tokens, users } = world.database
      const scopes = async (id: string) =>
        (await tokens.listFor(id)).map((token) => [token.id, token.scopes])
      const strange = fileOf()
      const one = await staged(world, strange)
      await one.finish()
      expect((await users.byName(strange.name))?.role).toBe('user')
      expect(await scopes(strange.ids.user)).toEqual([])
      expect(await world.database.imports.report(one.id, { now: at(6) })).toMatchObject({
        demoted: [strange.name],
        reissue: [{ user: strange.name, name: 'ci', expiresAt: at(600) }],
        rows: { token: 0, user: 1 },
      })
      const own = fileOf()
      await (await staged(world, own)).finish({ sameIssuer: true })
      expect(await scopes(own.ids.user)).toEqual([[own.ids.token, ['pull']]])
      const kept = fileOf()
      await (await staged(world, kept)).finish({ sameIssuer: true, keepPower: true })
      expect(await scopes(kept.ids.user)).toEqual([[kept.ids.token, ['pull', 'admin']]])
      expect((await users.byName(kept.name))?.role).toBe('admin')
    })

    test('blobs of repositories, manifests and their tags go in and out the same', async (world) => {
      const { database } = world
      const { imports, manifests } = database
      const file = fileOf()
      const repository = repositoryOf(file)
      const { small, large, layer, sha512, asStaged, names } = repository
      const rows = [...file.rows, ...repository.rows]
      const { id, finish } = await staged(world, { ...file, rows })
      const key = newId()
      world.touched.keys.add(key)
      expect((await imports.stagedNames(id, layer)).toSorted()).toEqual([
        `sha256:${layer}`,
        `sha512:${sha512}`,
      ])
      expect(await imports.stagedManifest(id, `${file.ids.container}/${large}`)).toMatchObject({
        manifest: { digest: large, pieces: 2 },
        pieces: ['rge":1}'],
      })
      const refused = (why: string) =>
        expectRefused(world, why as 'invalid', () => finish({ rows: rows.length }))
      // a manifest whose text was not looked at is none, and blobs must have come
      await refused('invalid')
      const ofDigest = (digest: string) =>
        repository.rows.find((row) => row.type === 'manifest' && row.digest === digest) as MovedRow
      await imports.stageRows(id, [asStaged(ofDigest(large), [])], at(60))
      await imports.stageRows(id, [asStaged(ofDigest(small), [{ ...names, size: 8 }])], at(60))
      await refused('invalid')
      await imports.stageRows(id, [asStaged(ofDigest(small), [names])], at(60))
      await refused('unavailable')
      await imports.stageBlob(id, { digest: layer, size: 7, blobId: newId(), key }, at(60))
      await refused('unavailable')
      await imports.readyBlob(id, layer, key, { opaque: true, sha512: '4'.repeat(128) })
      await refused('invalid')
      await imports.readyBlob(id, layer, key, { opaque: true, sha512 })
      // a piece that has come is not replaced: its manifest was checked with it
      const piece = repository.rows.find((row) => row.type === 'piece') as MovedRow
      const lie = { ...stagedRow(piece), record: JSON.stringify({ ...piece, text: 'no' }) }
      await imports.stageRows(id, [lie], at(60))
      await finish({ rows: rows.length })
      for (const limit of [1, 2, 1000]) {
        const out: MovedRow[] = []
        for (const kind of ['membership', 'manifest', 'piece', 'ociTag'] as const)
          out.push(...(await everything(database, kind, limit)))
        expect([limit, sorted(out)]).toEqual([limit, sorted(repository.rows)])
      }
      const path = { entity: file.name, collection: 'c', container: 'n' }
      const { viewer } = world.root
      const by = { by: 'tag', tag: 'V_1' } as const
      const found = await manifests.manifest(path, by, viewer, at(1), { text: true })
      expect(found.value?.manifest).toMatchObject({
        digest: large,
        subject: small,
        artifactType: 'application/x',
        size: 11,
        text: '{"large":1}',
      })
      const list = { after: '', artifactType: null, limit: 10 }
      const referrers = await manifests.referrers(path, small, list, viewer, at(1))
      expect(referrers.value?.manifests).toHaveLength(2)
      for (const digest of [`sha256:${layer}`, `sha512:${sha512}`]) {
        const member = await manifests.member(path, digest, viewer, at(1))
        expect(member.value?.blob).toMatchObject({ key, size: 7 })
      }
      const owner = await world.token((await database.users.byName(file.name)) ?? world.root.user)
      await expectRefused(world, 'conflict', () =>
        manifests.removeMember(file.ids.container, `sha256:${layer}`, owner.writer),
      )
    })

    test('what only a repository has becomes no image, whatever the rows say (R8)', async (world) => {
      const { imports } = world.database
      const file = fileOf()
      const { id, key, finish } = await staged(world, file)
      await imports.readyBlob(id, file.digest, key, { opaque: true })
      await expectRefused(world, 'unavailable', () => finish())
    })

    test('roles, teams, grants, quotas, what is frozen, stars and pulls go in and out the same', async (world) => {
      const { database } = world
      const file = fileOf({
        user: { managerId: null, deletedAt: null },
        token: { collectionId: newId(), containerId: newId() },
        // less than its images take: an import is not held to it
        entity: { quota: 1 },
        collection: { policy: 'off', policyKeys: [] },
        container: { frozen: true },
        tag: { frozen: true },
      })
      const shared = sharedOf(file)
      const rows = [...file.rows, ...shared.rows]
      const { id, finish } = await staged(world, { ...file, rows })
      await finish({ sameIssuer: true, keepPower: true })
      for (const limit of [1, 2, 1000]) {
        const out: MovedRow[] = []
        for (const kind of KINDS) out.push(...(await everything(database, kind, limit)))
        const { root } = world
        const ours = [root.user.id, root.tokenId]
        const moved = out.filter(
          (row) =>
            !('id' in row && ours.includes(row.id)) &&
            !(row.type === 'entity' && row.ownerId === root.user.id),
        )
        expect([limit, sorted(moved)]).toEqual([limit, sorted(rows)])
      }
      const path = { entity: file.name, collection: 'c', container: 'n' }
      for (const [name, level] of [
        [file.name, 3],
        [shared.staff, 2],
        [shared.robot, 1],
      ] as const) {
        const user = await database.users.byName(name)
        const { viewer } = await world.token(user ?? world.root.user)
        const found = (await database.catalog.findContainer(path, viewer, at())).value
        expect([name, found?.container]).toEqual([
          name,
          expect.objectContaining({ level, stars: 2, frozen: true, downloads: 7 }),
        ])
        expect(await world.search(viewer, 'needle')).toEqual([file.ids.image])
      }
      const entity = await database.catalog.findEntity(file.name, world.root.viewer, at())
      expect(entity.value?.entity).toMatchObject({ quota: 1, used: 100 })
      expect(await database.imports.report(id, { now: at() })).toMatchObject({
        rows: { user: 4, team: 1, member: 1, grant: 2, star: 2, pulls: 2 },
        demoted: [],
      })
    })

    test('staff are users here, robots stay robots with their managers, disabled stays (R42)', async (world) => {
      const { database } = world
      const file = fileOf({ user: { disabled: true } })
      const shared = sharedOf(file)
      const rows = [...file.rows, ...shared.rows]
      const { id, finish } = await staged(world, { ...file, rows })
      await finish()
      const staff = await database.users.byName(shared.staff)
      expect(staff).toMatchObject({ role: 'user', disabled: false })
      expect(await database.users.byName(shared.robot)).toMatchObject({
        role: 'robot',
        managerId: staff?.id,
      })
      expect(await database.users.byName(file.name)).toMatchObject({ role: 'user', disabled: true })
      expect((await database.imports.report(id, { now: at() })).demoted).toEqual([
        file.name,
        shared.staff,
      ])
    })

    test('grants, memberships, stars and robots are of the users of the same names', async (world) => {
      const { database } = world
      const file = fileOf()
      const shared = sharedOf(file)
      const here = await world.person(shared.staff)
      const rows = [...file.rows, ...shared.rows]
      await (await staged(world, { ...file, rows })).finish()
      const path = { entity: file.name, collection: 'c', container: 'n' }
      const found = await database.catalog.findContainer(path, here.viewer, at())
      expect(found.value?.container).toMatchObject({ level: 2, stars: 2 })
      expect((await database.users.byName(shared.robot))?.managerId).toBe(here.user.id)
      const members = await everything(database, 'member', 9)
      expect(members).toMatchObject([{ teamId: shared.team, userId: here.user.id, owner: true }])
    })

    test(
      'a quota that stands here stays; one of the file comes where there is none',
      async (world) => {
        const quotaOf = async (name: string) =>
          (await world.database.catalog.findEntity(name, world.root.viewer, at())).value?.entity
            .quota
        for (const [before, after] of [
          ['null', 7],
          ['5', 5],
          ['0', 0],
        ] as const) {
          const file = fileOf({ entity: { quota: 7 } })
          await world.person(file.name)
          await world.raw?.(`UPDATE entities SET quota = ${before} WHERE name = '${file.name}'`)
          await (await staged(world, file)).finish()
          expect(await quotaOf(file.name)).toBe(after)
        }
      },
      true,
    )

    test('a name that means another kind of user, or another team, stands in the way (R38)', async (world) => {
      const { imports } = world.database
      const why = async (file: ReturnType<typeof fileOf>, rows = file.rows) => {
        const { id, finish } = await staged(world, { ...file, rows })
        const found = await imports.conflicts(id, 10)
        if (found.length > 0) expect(await outcome(finish({ rows: rows.length }))).toBe('conflict')
        return found.map((conflict) => `${conflict.kind} ${conflict.why}`)
      }
      const gone = fileOf({ user: { deletedAt: START } })
      await world.person(gone.name)
      expect(await why(gone)).toEqual(['user other user'])
      const robot = fileOf({ user: { role: 'robot' } })
      await world.person(robot.name)
      expect(await why(robot)).toContain('user other user')
      const first = fileOf()
      const shared = sharedOf(first)
      const rows = [...first.rows, ...shared.rows]
      await (await staged(world, { ...first, rows })).finish({ rows: rows.length })
      const second = fileOf()
      const teams = sharedOf(second, { team: { name: `${first.name}-team` } }).rows
      expect(await why(second, [...second.rows, ...teams])).toEqual(['team name taken'])
      // the same people as here are no obstacle
      const people = shared.rows.filter(({ type }) => type === 'user')
      const again = fileOf()
      expect(await why(again, [...again.rows, ...people])).toEqual([])
    })

    test(
      'the audit log tells of exports and imports, in the same batch (R57)',
      async (world) => {
        const file = fileOf()
        const { id, finish } = await staged(world, file)
        const exportId = newId()
        const rows = () =>
          world.raw?.(
            `SELECT actor, action, object, outcome FROM audit WHERE object IN ('import ${id}', 'export ${exportId}') ORDER BY seq`,
          )
        expect(await outcome(finish({ rows: 1 }))).toBe('invalid')
        expect(await rows()).toEqual([])
        await finish()
        await world.database.exports.begin(exportId, world.root.writer)
        expect(await rows()).toEqual([
          { actor: 'cli:test', action: 'import', object: `import ${id}`, outcome: 'done' },
          { actor: 'root', action: 'export', object: `export ${exportId}`, outcome: 'done' },
        ])
      },
      true,
    )

    test('only an administrator whose token stands makes an import visible (R6)', async (world) => {
      const { database, root } = world
      const file = fileOf()
      const { finish } = await staged(world, file)
      const alice = await world.person('alice')
      const lesser = await world.token(root.user)
      for (const { writer } of [alice, { writer: { ...alice.writer, admin: true } }, lesser])
        expect(await outcome(finish({ by: writer as never }))).toBe('denied')
      await database.tokens.revoke(lesser.tokenId, operator())
      const by = { ...lesser.writer, admin: true }
      expect(await outcome(finish({ by: by as never }))).toBe('denied')
      expect(await outcome(finish({ by: root.writer as never }))).toBe('ok')
    })

    test('imports that are open are listed with what has arrived of them', async (world) => {
      const { imports } = world.database
      const file = fileOf()
      const { id, finish } = await staged(world, file)
      const other = await staged(world, fileOf())
      await imports.stageBlob(
        other.id,
        { digest: digestOf('on its way'), size: 9, blobId: newId(), key: newId() },
        at(60),
      )
      const [one, two, ...more] = await imports.list()
      expect([one, two].toSorted((a) => (a?.id === id ? -1 : 1))).toMatchObject([
        { id, createdAt: at(), expiresAt: at(60), rows: 7, bytes: 100 },
        { id: other.id, rows: 7, bytes: 100 },
      ])
      expect(more).toEqual([])
      await finish()
      await imports.abort(other.id, at())
      expect(await imports.list()).toEqual([])
    })

    test('a token that was revoked on either side is revoked', async (world) => {
      const file = fileOf({ token: { revokedAt: at(2).getTime() } })
      await (await staged(world, file)).finish({ sameIssuer: true })
      const [token] = await world.database.tokens.listFor(file.ids.user)
      expect(token?.revokedAt).toEqual(at(2))
    })

    test('a user of that name is that user; their empty entity is filled', async (world) => {
      const { database, root } = world
      const file = fileOf()
      const here = await world.person(file.name)
      await (await staged(world, file)).finish({ sameIssuer: true })
      const image = await world.image(file.ids.image)
      expect(image).toMatchObject({ ownerId: here.user.id, createdBy: here.user.id })
      expect(image?.entityId).not.toBe(file.ids.entity)
      const entity = await database.catalog.findEntity(file.name, root.viewer, at())
      expect(entity.value?.entity).toMatchObject({ description: 'd', defaultPrivate: true })
      // their token there named another user id
      expect(await database.tokens.listFor(here.user.id)).toHaveLength(1)
    })

    test('bytes that are here are used, and the copy that came is left over', async (world) => {
      const { database, root } = world
      const file = fileOf()
      const place = await world.container(root, 'root/c/n')
      const { id, key, finish } = await staged(world, file)
      const pushed = await world.push(root, place.id, file.name)
      await finish()
      expect((await world.image(file.ids.image))?.blob?.key).toBe(pushed.upload.blobKey)
      expect(await database.imports.leftovers(at(9), 10)).toEqual([
        { importId: id, key, handle: null, kept: false },
      ])
      await database.imports.forgetKeys([key])
      expect(await database.imports.leftovers(at(9), 10)).toEqual([])
    })

    test('lost bytes that come back heal the images that had them (R60)', async (world) => {
      const { database, root } = world
      const file = fileOf()
      const place = await world.container(root, 'root/c/n')
      const pushed = await world.push(root, place.id, file.name)
      await database.catalog.markLost(pushed.upload.blobKey)
      const { key, finish } = await staged(world, file)
      await finish()
      for (const id of [pushed.id, file.ids.image])
        expect((await world.image(id))?.blob).toEqual({ key, size: 100 })
    })

    test('an arch that the bytes do not tell is the one that a tag has told', async (world) => {
      const file = fileOf()
      await (await staged(world, file, { arch: 'unknown' })).finish()
      expect((await world.image(file.ids.image))?.facts.arch).toBe('arm64')
    })

    /** Each condition of the flip, made false after everything was staged (R6). */
    const FALSE: Record<
      string,
      {
        code: 'conflict' | 'invalid' | 'unavailable'
        file?: Partial<Record<MovedKind, object>>
        /** Changes of the rows of `sharedOf`, which come with the file when there are any. */
        more?: Partial<Record<MovedKind, object>>
        make?: (world: World, file: ReturnType<typeof fileOf>, id: string) => Promise<unknown>
        finish?: Partial<typeof FINISH & { rows: number }>
      }
    > = {
      'a robot has no such manager': {
        code: 'invalid',
        file: { user: { role: 'robot', managerId: newId() } },
      },
      'the import was aborted': {
        code: 'conflict',
        make: ({ database }, _, id) => database.imports.abort(id, at(1)),
      },
      'the import has expired': {
        code: 'conflict',
        make: ({ database }) => database.imports.expire(at(1000)),
      },
      ...Object.fromEntries(
        ['member', 'star', 'grant'].map((kind) => [
          `the user of a ${kind} is gone`,
          { code: 'invalid', more: { [kind]: { userId: newId(), holderId: newId() } } } as const,
        ]),
      ),
      'the team of a member is gone': { code: 'invalid', more: { member: { teamId: newId() } } },
      'the team of a grant is gone': {
        code: 'invalid',
        more: { grant: { holder: 'team', holderId: newId() } },
      },
      'the collection of a grant is gone': {
        code: 'invalid',
        more: { grant: { collectionId: newId() } },
      },
      'the container of counted pulls is gone': {
        code: 'invalid',
        more: { pulls: { containerId: newId() } },
      },
      'rows are missing': { code: 'invalid', finish: { rows: 8 } },
      'a row has no parent': { code: 'invalid', file: { collection: { entityId: newId() } } },
      'a tag is of another container': { code: 'invalid', file: { tag: { containerId: newId() } } },
      'a tag is of another arch': { code: 'invalid', file: { tag: { arch: 'amd64' } } },
      'an image has another size': { code: 'invalid', file: { image: { size: 101 } } },
      'the bytes have not come': {
        code: 'unavailable',
        make: ({ database }, { digest }, id) =>
          database.imports.stageBlob(
            id,
            { digest, size: 100, blobId: newId(), key: newId() },
            at(60),
          ),
      },
      'the bytes that were here have gone': {
        code: 'unavailable',
        make: async ({ database }, { digest }, id) => {
          const blob = { digest, size: 100, blobId: newId(), key: null }
          await database.imports.stageBlob(id, blob, at(60))
          await database.imports.readyBlob(id, digest, null, factsOf({ arch: 'arm64' }))
        },
      },
      'the entity holds something': {
        code: 'conflict',
        make: async (world, { name }) => {
          const owner = await world.person(name)
          await world.container(owner, `${name}/own/n`)
        },
      },
      'the entity is of somebody else': {
        code: 'conflict',
        make: async ({ database, root }, { name }) =>
          database.catalog.createEntity({
            id: newId(),
            name,
            description: '',
            ownerId: root.user.id,
            writer: root.writer,
          }),
      },
      'an id is taken': {
        code: 'conflict',
        make: async (world, { ids }) => {
          const place = await world.container(world.root, 'root/c/n')
          await world.database.catalog.createImage({
            id: ids.image,
            digest: digestOf('other'),
            description: '',
            containerId: place.id,
            writer: world.root.writer,
          })
        },
      },
    }
    for (const [what, { code, file: change, more, make, finish: options }] of Object.entries(FALSE))
      test(`nothing changes when ${what}`, async (world) => {
        const file = fileOf(change)
        if (more !== undefined) file.rows.push(...sharedOf(file, more).rows)
        const { id, finish } = await staged(world, file)
        world.touched.images.add(file.ids.image)
        await make?.(world, file, id)
        await expectRefused(world, code, () => finish(options))
        const conflicts = await world.database.imports.conflicts(id, 10)
        if (code === 'conflict' && !what.startsWith('the import'))
          expect(conflicts.length).toBeGreaterThan(0)
      })

    test('nothing changes when a later statement of the flip fails', async (world) => {
      const file = fileOf()
      const twin = fileOf({ collection: { entityId: file.ids.entity, name: 'c' } })
      // two collections of one name in one entity
      const second = twin.rows.filter(({ type }) => type === 'collection')
      const { finish } = await staged(world, { ...file, rows: [...file.rows, ...second] })
      await expectRefused(world, 'invalid', () => finish())
      expect(await world.database.users.byName(file.name)).toBeNull()
    })

    test('an import that has ended takes nothing more', async (world) => {
      const { imports } = world.database
      const file = fileOf()
      const { id, blob, finish } = await staged(world, file)
      await finish()
      const open = (exportId: string) =>
        imports.open({ id: newId(), exportId, now: at(), expiresAt: at(60) })
      const found = await imports.find(id)
      expect(found).toMatchObject({ state: 'done', sha256: FINISH.sha256 })
      expect(await open(found?.exportId ?? '')).toEqual(found)
      expect(await imports.abort(id, at(9))).toBe(false)
      for (const work of [
        finish(),
        imports.stageRows(id, file.rows.map(stagedRow), at(60)),
        imports.stageBlob(id, blob, at(60)),
        imports.readyBlob(id, blob.digest, blob.key, factsOf()),
      ])
        expect(await outcome(work)).toBe('conflict')
    })

    test('the same export again takes up the open import: blobs stay, rows do not', async (world) => {
      const { imports } = world.database
      const file = fileOf()
      const { id, key } = await staged(world, file)
      const exportId = (await imports.find(id))?.exportId ?? ''
      const draft = { id: newId(), exportId, now: at(), expiresAt: at(60) }
      const opened = await Promise.all([
        imports.open(draft),
        imports.open({ ...draft, id: newId() }),
      ])
      expect(opened.map((found) => found.id)).toEqual([id, id])
      expect(await imports.stagedBlob(id, file.digest)).toEqual({
        digest: file.digest,
        size: 100,
        key,
        handle: null,
        ready: true,
      })
      const options = { ...FINISH, rows: file.rows.length }
      expect(await outcome(imports.finish(id, options))).toBe('invalid')
      await imports.stageRows(id, file.rows.map(stagedRow), at(60))
      expect(await outcome(imports.finish(id, options))).toBe('ok')
      // one that was aborted makes way for a new one
      const other = await imports.open({ ...draft, id: newId(), exportId: newId() })
      await imports.abort(other.id, at(1))
      const after = await imports.open({ ...draft, id: newId(), exportId: other.exportId })
      expect(after.id).not.toBe(other.id)
    })

    /** A key as core/moving.ts stages it: checked, and merged with what is here at `revision`. */
    const stagedKey = (facts: KeyFacts, ownerId: string | null, revision = 0): StagedRow => {
      const { armor, ...said } = facts
      const moved = { addedBy: ownerId, addedAt: 5, updatedAt: 6, removedAt: null }
      const row = { type: 'key', fingerprint: facts.fingerprint, armor, ownerId, ...moved } as const
      return { ...stagedRow(row), record: JSON.stringify({ ...row, facts: said, revision }) }
    }

    test('keys come with their owners and are found from the flip on', async (world) => {
      const { imports, keys } = world.database
      const file = fileOf()
      const { id, finish } = await staged(world, file)
      const owned = factsOfKey(['Owned <owned@example.org>'])
      const free = factsOfKey(['Free <free@example.org>'])
      const rows = [stagedKey(owned, file.ids.user), stagedKey(free, null)]
      await imports.stageRows(id, rows, at(60))
      const find = async (fingerprint: string) => (await keys.find(fingerprint, null, at())).value
      expect(await find(owned.fingerprint)).toBeNull()
      await finish({ rows: file.rows.length + 2 })
      expect(await find(owned.fingerprint)).toEqual({
        facts: owned,
        owner: { id: file.ids.user, name: file.name },
        addedBy: file.ids.user,
        addedAt: new Date(5),
        updatedAt: new Date(6),
        removedAt: null,
        revision: 1,
      })
      expect(await find(free.fingerprint)).toMatchObject({ owner: null, addedBy: null })
      const place = { after: null, limit: 9, armor: false }
      const byName = await keys.named(['free@example.org'], place, null, at())
      const byText = await keys.containing({ text: 'Owned', whole: false }, place, null, at())
      expect([...byName.value.keys, ...byText.value.keys]).toMatchObject([
        { facts: { fingerprint: free.fingerprint } },
        { facts: { fingerprint: owned.fingerprint } },
      ])
      expect((await imports.report(id, { now: at() })).rows.key).toBe(2)
    })

    test('a key that is here is merged: its owner stays, and a change on the way is a conflict', async (world) => {
      const { imports, keys } = world.database
      const alice = await world.person('alice')
      const old = factsOfKey(['Merged <old@example.org>'])
      const put = (expected: number) =>
        keys.put({
          facts: old,
          expected,
          show: true,
          ownerId: alice.user.id,
          by: operator(),
          now: at(),
        })
      await put(0)
      const merged = { ...factsOfKey(['Merged <new@example.org>'], old), armor: 'merged' }
      merged.userIds = factsOfKey(['Merged <new@example.org>']).userIds
      const file = fileOf()
      const { id, finish } = await staged(world, file)
      await imports.stageRows(id, [stagedKey(merged, file.ids.user, 1)], at(60))
      await put(1)
      expect(await outcome(finish({ rows: file.rows.length + 1 }))).toBe('conflict')
      await imports.stageRows(id, [stagedKey(merged, file.ids.user, 2)], at(60))
      expect(await outcome(finish({ rows: file.rows.length + 1 }))).toBe('ok')
      expect((await keys.find(old.fingerprint, null, at())).value).toMatchObject({
        facts: merged,
        owner: { name: 'alice' },
        revision: 3,
      })
      const place = { after: null, limit: 9, armor: false }
      const found = async (email: string) =>
        (await keys.named([email], place, null, at())).value.keys.length
      expect([await found('old@example.org'), await found('new@example.org')]).toEqual([0, 1])
    })

    test('a key whose owner is not in the file does not fit', async (world) => {
      const file = fileOf()
      const { id, finish } = await staged(world, file)
      await world.database.imports.stageRows(id, [stagedKey(factsOfKey(), newId())], at(60))
      expect(await outcome(finish({ rows: file.rows.length + 1 }))).toBe('invalid')
    })

    test('bytes of another run do not count as ready', async (world) => {
      const { imports } = world.database
      const { id, blob } = await staged(world, fileOf())
      const key = newId()
      await imports.stageBlob(id, { ...blob, key }, at(60))
      await imports.setHandle(id, blob.digest, key, 'handle')
      expect(await outcome(imports.readyBlob(id, blob.digest, blob.key, factsOf()))).toBe(
        'conflict',
      )
      expect(await imports.stagedBlob(id, blob.digest)).toMatchObject({
        key,
        handle: 'handle',
        ready: false,
      })
    })

    test('what an expired import has left is found, forgotten and tidied', async (world) => {
      const { imports, blobs } = world.database
      const { id, key } = await staged(world, fileOf())
      expect(await imports.expire(at(59))).toBe(0)
      expect(await imports.leftovers(at(2000), 10)).toEqual([])
      expect(await imports.expire(at(61))).toBe(1)
      expect(await imports.leftovers(at(60), 10)).toEqual([])
      expect(await imports.leftovers(at(62), 10)).toEqual([
        { importId: id, key, handle: null, kept: false },
      ])
      // not before its keys are gone
      await imports.tidy(at(62))
      expect(await imports.find(id)).not.toBeNull()
      await imports.forgetKeys([key])
      expect((await blobs.known([key])).size).toBe(0)
      await imports.tidy(at(62))
      expect(await imports.find(id)).toBeNull()
    })
  })
}
