/** A registry with something of everything in it, pushed by the library client; and what it shows. */
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import BetterSqlite3 from 'better-sqlite3'
import type { MovedRow } from '../../src/core/model.ts'
import { buildSif, deffile, inspectMetadata, partition, signature } from '../fixtures/sif.ts'
import { clearSign, makeKey } from '../fixtures/make-key.ts'
import { libraryClient } from '../protocol/client.ts'
import { ociClient } from '../protocol/oci.ts'
import type { Target } from '../runtimes/target.ts'

export const PEOPLE = ['ada', 'bob', 'cleo', 'dora', 'emil'] as const
const IMAGE = 'application/vnd.oci.image.manifest.v1+json'
const INDEX = 'application/vnd.oci.image.index.v1+json'
const ARCHES = ['amd64', 'arm64', 'ppc64le'] as const

/** Every image has its own bytes but each fifth, which equals its predecessor's. */
function imageOf(n: number) {
  const content = n % 5 === 4 ? n - 1 : n
  const arch = ARCHES[content % 3] ?? 'amd64'
  const bytes = buildSif({
    arch,
    objects: [
      deffile(`bootstrap: scratch\n# ${content}\n`),
      inspectMetadata({ number: String(content), word: `needle${content}` }),
      partition({ arch, data: `hsqs ${content} ${'x'.repeat(content * 997)}` }),
      ...(content % 7 === 0 ? [signature('A'.repeat(40))] : []),
    ],
  })
  return { bytes, arch }
}

/** Pushes `count` images of five people, some places private, some tokens revoked. */
export async function fill(target: Target, count: number) {
  const tokens: { user: string; id: string; jwt: string; revoked: boolean }[] = []
  for (const user of PEOPLE) {
    const kept = await target.mint(user)
    const gone = await target.mint(user)
    await target.revoke(gone.id)
    tokens.push({ user, ...kept, revoked: false }, { user, ...gone, revoked: true })
  }
  const refs = new Set<string>()
  for (let n = 0; n < count; n += 1) {
    const user = PEOPLE[n % PEOPLE.length] ?? 'ada'
    const jwt = tokens.find((token) => token.user === user && !token.revoked)?.jwt ?? ''
    const { bytes, arch } = imageOf(n)
    const ref = `${user}/c${n % 2}/n${n % 4}`
    refs.add(ref)
    await libraryClient(target.url, jwt).push(ref, bytes, {
      arch,
      tags: n % 3 === 0 ? [`v${n}`, 'latest'] : [`v${n}`],
      privateCollection: n % 2 === 1,
    })
  }
  await target.setPrivate('ada/c0/n0', true)
  await fillRepositories(target, tokens[0]?.jwt ?? '')
  await fillKeystore(target, tokens[0]?.jwt ?? '')
  share(target)
  return { tokens, refs: [...refs].toSorted() }
}

/**
 * What people share, written into the database of a target on a host: staff, a robot and an account
 * that is gone, a team, grants, quotas, what is frozen, stars and counted pulls.
 */
function share({ data }: Target): void {
  const sqlite = new BetterSqlite3(join(data, 'sreg.sqlite3'))
  let made = 0
  const id = () => `57a9ed${String((made += 1)).padStart(18, '0')}`
  const [team, staff, robot, vouched] = [id(), id(), id(), id()]
  const user = (name: string) => `(SELECT id FROM users WHERE name = '${name}')`
  const entity = (name: string) => `(SELECT id FROM entities WHERE name = '${name}')`
  const collection = (owner: string) =>
    `(SELECT id FROM collections WHERE name = 'c1' AND entity_id = ${entity(owner)})`
  const container = `(SELECT id FROM containers WHERE name = 'n1' AND collection_id = ${collection('ada')})`
  try {
    sqlite.exec(`
      INSERT INTO users (id, name, role, staff, created_at) VALUES ('${staff}', 'sven', 'user', 1, 11);
      INSERT INTO users (id, name, role, robot, manager_id, created_at) VALUES ('${robot}', 'rob', 'user', 1, ${user('ada')}, 12);
      INSERT INTO users (id, name, role, disabled, deleted_at, created_at) VALUES ('${id()}', 'gone', 'user', 1, 14, 13);
      INSERT INTO users (id, name, role, robot, subject, created_at) VALUES ('${vouched}', 'oidc:0123456789ab', 'user', 1, 'https://ci.example|7', 13);
      INSERT INTO grants VALUES ('${id()}', ${collection('ada')}, '${vouched}', NULL, 2, 18);
      INSERT INTO teams VALUES ('${team}', 'lab', 'the lab', 0, 15);
      INSERT INTO team_members VALUES ('${team}', ${user('bob')}, 1, 16), ('${team}', ${user('cleo')}, 0, 17);
      INSERT INTO grants VALUES ('${id()}', ${collection('ada')}, NULL, '${team}', 2, 18), ('${id()}', ${collection('ada')}, ${user('dora')}, NULL, 3, 19), ('${id()}', ${collection('bob')}, '${robot}', NULL, 1, 20);
      UPDATE entities SET quota = 1 WHERE name = 'ada';
      UPDATE entities SET quota = 0 WHERE name = 'bob';
      UPDATE containers SET frozen = 1, downloads = 5 WHERE id = ${container};
      UPDATE tags SET frozen = 1 WHERE container_id = ${container};
      INSERT INTO stars VALUES (${container}, ${user('bob')}, 21), (${container}, '${robot}', 22);
      INSERT INTO counters VALUES ('pulls:' || ${container}, 604800000, 4), ('pulls:' || ${container}, 1209600000, 1), ('limit.week.container.' || ${container}, 1209600000, 9);
    `)
  } finally {
    sqlite.close()
  }
}

const sumOf = (text: string) => createHash('sha256').update(text).digest('hex')

const SHARING = [...PEOPLE, 'sven', 'rob', 'gone']

/**
 * What the people of the world share, as an administrator's export tells it (names for ids of users,
 * what each may do in each collection), and which of the collections' containers each can see.
 */
export async function shared(target: Target, admin: string, refs: readonly string[]) {
  const client = libraryClient(target.url, admin)
  const rows: MovedRow[] = []
  for (let cursor: string | null = ''; cursor !== null;) {
    const query: string = cursor === '' ? '' : `?cursor=${encodeURIComponent(cursor)}`
    const { json } = await client.call('GET', `/v1/exports/rows${query}`)
    rows.push(...(json.data.rows as MovedRow[]))
    cursor = json.data.cursor
  }
  const of = <K extends MovedRow['type']>(kind: K) =>
    rows.filter((row): row is Extract<MovedRow, { type: K }> => row.type === kind)
  const names = new Map(of('user').map(({ id, name }) => [id, name]))
  const name = (id: string | null | undefined) => names.get(id ?? '') ?? null
  const [members, grants, entities] = [of('member'), of('grant'), of('entity')]
  const level = (userId: string, collection: { id: string; entityId: string }) =>
    Math.max(
      0,
      ...entities
        .filter(({ id, ownerId }) => id === collection.entityId && ownerId === userId)
        .map(() => 3),
      ...grants
        .filter(({ collectionId }) => collectionId === collection.id)
        .filter(
          ({ holderId }) =>
            holderId === userId ||
            members.some((member) => member.teamId === holderId && member.userId === userId),
        )
        .map((grant) => grant.level),
    )
  const users = of('user').filter((user) => SHARING.includes(user.name))
  const facts = [
    // an import makes nobody administrator or staff (R42)
    ...users.map(({ id: _id, managerId, role, ...user }) => ({
      ...user,
      manager: name(managerId),
      role: role === 'robot' ? role : 'user',
    })),
    ...users.flatMap((user) =>
      of('collection').map((collection) => [user.name, collection.id, level(user.id, collection)]),
    ),
    ...of('team'),
    ...members.map(({ userId, ...member }) => ({ ...member, user: name(userId) })),
    ...grants.map(({ holderId, ...grant }) => ({ ...grant, to: name(holderId) ?? holderId })),
    ...of('star').map(({ userId, ...star }) => ({ ...star, user: name(userId) })),
    ...of('pulls'),
    ...of('tag'),
    ...of('membership'),
    ...[...of('manifest'), ...of('piece')].map(({ text, ...row }) => ({
      ...row,
      text: sumOf(text),
    })),
    ...of('ociTag'),
    ...of('container').map(({ id, frozen, downloads }) => ({ id, frozen, downloads })),
    ...entities
      .filter((entity) => PEOPLE.includes(entity.name as (typeof PEOPLE)[number]))
      .map((entity) => [entity.name, entity.quota, name(entity.ownerId)]),
  ]
  const reach: unknown[] = []
  for (const who of [...PEOPLE, 'rob']) {
    const one = libraryClient(target.url, (await target.mint(who)).jwt)
    for (const ref of refs) {
      const { status, json } = await one.call('GET', `/v1/containers/${ref}`)
      reach.push([who, ref, status, json.data?.size, json.data?.starCount])
    }
  }
  return { facts: facts.map((fact) => JSON.stringify(fact)).toSorted(), reach }
}

const NAMES = ['ada/oci/app', 'ada/oci/deep/er/a__b', 'ada/o.k/x']
/** What `repositories` sees there: of each name its tags, and of one its manifests, referrers and blobs. */
export const REPOSITORIES = 14

/**
 * Images for two archs under an index, with a signature, one large manifest, blobs by SHA-512 and of
 * nothing, an untagged manifest, and names that only OCI allows.
 */
async function fillRepositories({ url }: Target, jwt: string): Promise<void> {
  const client = ociClient(url, jwt)
  const [app = '', ...others] = NAMES
  const descriptor = ({ manifest, digest }: { manifest: string; digest: string }) => ({
    mediaType: IMAGE,
    digest,
    size: Buffer.byteLength(manifest),
  })
  const one = await client.image(app, 'amd64')
  const two = await client.image(app, '')
  const index = JSON.stringify({
    schemaVersion: 2,
    mediaType: INDEX,
    manifests: [one, two].map(descriptor),
  })
  await client.put(app, 'Latest', index, INDEX)
  await client.image(app, '', {
    subject: descriptor(one),
    artifactType: 'application/x.sig',
    annotations: { made: 'here' },
  })
  await client.image(app, 'large', { large: 'ü"💾'.repeat(120_000) })
  await client.blob(app, new Uint8Array())
  const long = createHash('sha512').update('long').digest('hex')
  const open = await client.open(app)
  await client.close(open, `sha512:${long}`, Buffer.from('long'))
  for (const name of others) await client.image(name, 'v1')
  await client.call('DELETE', `/v2/${app}/manifests/amd64`)
}

/** Every manifest of the repositories of the world, byte by byte, with who refers to it, and the blobs. */
export async function repositories(url: string, jwt: string): Promise<unknown[]> {
  const client = ociClient(url, jwt)
  const lines: unknown[] = []
  const read = async (path: string) => {
    const { status, headers, bytes } = await client.call('GET', path)
    const sum = createHash('sha256').update(bytes).digest('hex')
    lines.push([path, status, headers.get('content-type'), bytes.length, sum])
    return bytes
  }
  const [app = ''] = NAMES
  for (const name of NAMES) {
    const { json } = await client.call('GET', `/v2/${name}/tags/list`)
    lines.push([name, json])
  }
  for (const tag of ['Latest', 'large', 'amd64']) await read(`/v2/${app}/manifests/${tag}`)
  const index = await client.call('GET', `/v2/${app}/manifests/Latest`)
  for (const { digest } of index.json.manifests) {
    const manifest = await read(`/v2/${app}/manifests/${digest}`)
    const [layer] = JSON.parse(new TextDecoder().decode(manifest)).layers
    await read(`/v2/${app}/blobs/${layer.digest}`)
    lines.push((await client.call('GET', `/v2/${app}/referrers/${digest}`)).json)
  }
  const long = createHash('sha512').update('long').digest('hex')
  const none = createHash('sha256').update('').digest('hex')
  for (const digest of [`sha512:${long}`, `sha256:${none}`])
    await read(`/v2/${app}/blobs/${digest}`)
  return lines
}

/** Three keys: one that the user owns, one that they removed, and one that is nobody's. */
async function fillKeystore({ url }: Target, jwt: string): Promise<void> {
  const client = libraryClient(url, jwt)
  for (const name of ['Owned', 'Removed', 'Free']) {
    const key = await makeKey(`${name} in the world`)
    const path = `/v1/keys/${key.fingerprint}`
    await client.call('POST', '/pks/add', new URLSearchParams({ keytext: key.armor }).toString())
    if (name === 'Free') continue
    const { json } = await client.call('POST', `${path}/challenge`)
    const signed = await clearSign(json.data.challenge, key)
    const { status } = await client.call('POST', `${path}/claim`, { signed })
    if (status !== 200) throw new Error(`no claim of ${name}: ${status}`)
    if (name === 'Removed') await client.call('DELETE', path)
  }
}

/**
 * What a token sees of the keystore and of these refs: every tag of every arch, its image's digest, its bytes' digest,
 * and whether it is private; with ids, so that what holds ids keeps holding (R38).
 */
export async function seen(url: string, jwt: string | null, refs: readonly string[]) {
  const client = libraryClient(url, jwt)
  const lines: unknown[] = []
  for (const ref of refs) {
    const container = await client.call('GET', `/v1/containers/${ref}`)
    if (container.status !== 200) {
      lines.push([ref, container.status])
      continue
    }
    const { id, size, images, archTags, private: hidden } = container.json.data
    lines.push([ref, id, size, [...images].toSorted(), archTags, hidden])
    for (const [arch, tags] of Object.entries(archTags as Record<string, object>))
      for (const tag of Object.keys(tags).toSorted()) {
        const { json } = await client.call('GET', `/v1/images/${ref}:${tag}?arch=${arch}`)
        const got = await fetch(`${url}/v1/imagefile/${ref}:${tag}?arch=${arch}`, {
          headers: jwt === null ? {} : { authorization: `Bearer ${jwt}` },
        })
        const bytes = createHash('sha256').update(new Uint8Array(await got.arrayBuffer()))
        const { hash, signed, fingerprints, labels } = json.data
        lines.push([ref, arch, tag, hash, signed, fingerprints, labels, bytes.digest('hex')])
      }
  }
  const index = await client.call('GET', '/pks/lookup?op=index&options=mr&search=in+the+world')
  const armor = await client.call('GET', '/pks/lookup?op=get&search=in+the+world')
  const keys = await client.call('GET', '/v1/keys')
  lines.push(keySet(index.text), armor.status, keys.status, listed(keys.json.data?.keys ?? []))
  const found = await client.call('GET', '/v1/search?value=needle')
  lines.push(found.json.data.image.map((image: { hash: string }) => image.hash).toSorted())
  return lines
}

/** The lines of an index without regard to the order in which the keys came. */
const keySet = (index: string) => index.split('\n').toSorted()

const listed = (keys: { fingerprint: string }[]) =>
  keys.toSorted((a, b) => (a.fingerprint < b.fingerprint ? -1 : 1))
