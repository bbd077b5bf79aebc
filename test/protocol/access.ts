/**
 * Who gets which answer: every route for every kind of caller, what is private looks absent, and
 * rights end when they are taken away (R14, R25, R26, R27, R28, R29).
 */
import { randomBytes } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Scope } from '../../src/core/model.ts'
import { tokenIssuer, type JWK } from '../../src/core/tokens.ts'
import { sampleSif } from '../fixtures/sif.ts'
import type { Target } from '../runtimes/target.ts'
import { libraryClient, sha256, type Answer, type LibraryClient } from './client.ts'

/** What only some runtimes let a test do; tests that need it are skipped elsewhere. */
export type AccessTarget = Target & {
  /** Runs a statement on the database behind the server's back. */
  execute?: (sql: string, ...values: unknown[]) => void
  /** The private key that signs the registry's tokens. */
  signingKey?: () => Promise<JWK>
}

const KINDS = ['public', 'private', 'absent'] as const
type Kind = (typeof KINDS)[number]
const CALLERS = ['anonymous', 'stranger', 'owner', 'admin', 'revoked', 'expired', 'pull'] as const
type Caller = (typeof CALLERS)[number]

/**
 * The matrix, by hand. One row per route; a group of columns each for a thing that is public, that
 * is private, and that does not exist; in a group one column for anonymous, a stranger, the owner,
 * an administrator, and the owner's revoked, expired and pull-only token. Tickets are asked for by
 * the owner and used by everybody: they are the authority.
 *
 * 2: 200, P: 206, 1: 401, 3: 403, 4: 404, 9: 409, 5: 501
 */
const MATRIX = `
                                             public  private absent
                                             asoarep asoarep asoarep
GET  /assets/config/config.prod.json         2222222 2222222 2222222
GET  /version                                2222222 2222222 2222222
GET  /.well-known/jwks.json                  2222222 2222222 2222222
GET  /v1/token-status                        4222442 4222442 4222442
GET  /v1/rbac/users/current                  1222112 1222112 1222112
GET  /v1/oci-redirect                        4444444 4444444 4444444
POST /v1/build                               5555555 5555555 5555555
POST /v1/build-context                       5555555 5555555 5555555
GET  /v1/entities                            2222112 2222112 2222112
POST /v1/entities                            1322113 1322113 1332113
GET  /v1/entities/*                          2222112 4422112 4444114
POST /v1/collections                         1322113 1422113 1444113
GET  /v1/collections/*                       2222112 4422112 4444114
POST /v1/containers                          1322113 1422113 1444113
GET  /v1/containers/*                        2222112 4422112 4444114
POST /v1/images                              1322113 1422113 1444113
GET  /v1/images/*                            2222112 4422112 4444114
DELETE /v1/images/*                          1322113 1422113 1444113
GET  /v1/tags/:id                            2222112 4422112 4444114
POST /v1/tags/:id                            1322113 1422113 1444113
GET  /v2/tags/:id                            2222112 4422112 4444114
POST /v2/tags/:id                            1322113 1422113 1444113
GET  /v1/search                              2222112 2222112 2222112
GET  /v1/imagefile/*                         2222112 4422112 4444114
POST /v1/imagefile/*                         1322113 1422113 1444113
POST /v2/imagefile/:id                       1322113 1422113 1444113
PUT  /v2/imagefile/:id/_complete             1329113 1429113 1444113
POST /v2/imagefile/:id/_multipart            1322113 1422113 1444113
PUT  /v2/imagefile/:id/_multipart            1424113 1424113 1444113
PUT  /v2/imagefile/:id/_multipart_complete   1424113 1424113 1444113
PUT  /v2/imagefile/:id/_multipart_abort      1424113 1424113 1444113
GET  /v1/blob                                PPPPPPP PPPPPPP 3333333
PUT  /v1/blob                                2222222 2222222 3333333
PUT  /v1/part                                2222222 2222222 3333333
GET  /pks/lookup                             4444444 4444444 4444444
POST /pks/add                                5555555 5555555 5555555
GET  /                                       2222112 2222112 2222112
GET  /auth/tokens                            2222222 2222222 2222222
GET  /library/:entity/:collection/:container 2222222 2222222 2222222
GET  /healthz                                2222222 2222222 2222222
GET  /readyz                                 2222222 2222222 2222222
`
const CODES: Record<number, string> = {
  200: '2',
  206: 'P',
  401: '1',
  403: '3',
  404: '4',
  409: '9',
  501: '5',
}
const ROWS = MATRIX.split('\n').flatMap((line) => {
  const [, method, path, cells] = /^([A-Z]+) +(\S+) +(\S{7} \S{7} \S{7})$/.exec(line) ?? []
  return method === undefined || path === undefined || cells === undefined
    ? []
    : [{ route: `${method} ${path}`, method, cells }]
})

/** Something with an image in it, or names and ids of nothing. */
type Place = {
  owner: LibraryClient
  names: string
  entity: string
  entityId: string
  collectionId: string
  containerId: string
  imageId: string
  bytes: Uint8Array
  /** Ticket URL of a large image of the same visibility; absent: one that nobody signed. */
  ticket: string
}
type Call = { path: string; body?: unknown; headers?: Record<string, string> }

const anyId = () => randomBytes(12).toString('hex')
const anyDigest = () => randomBytes(32).toString('hex')
let count = 0
const unique = (word: string) => `${word}${++count}`

/** An image as the owner has it in the middle of a push: record and upload, bytes or not. */
async function opened(place: Place, form: 'single' | 'parts', received: boolean) {
  const bytes = sampleSif({ content: unique('upload') })
  const { owner } = place
  if (place.imageId === '') throw new Error('nothing can be uploaded to an absent image')
  const image = await ok(
    owner.call('POST', '/v1/images', {
      hash: `sha256.${sha256(bytes)}`,
      container: place.containerId,
    }),
  )
  const base = `/v2/imagefile/${image.id}`
  if (form === 'single') {
    const { uploadURL } = await ok(owner.call('POST', base, { filesize: bytes.length }))
    if (received) await owner.call('PUT', uploadURL, bytes)
    return { bytes, base, url: uploadURL as string, uploadID: '', etag: '' }
  }
  const { uploadID } = await ok(
    owner.call('POST', `${base}/_multipart`, { filesize: bytes.length }),
  )
  const part = { uploadID, partNumber: 1, partSize: bytes.length, sha256sum: sha256(bytes) }
  const { presignedURL } = await ok(owner.call('PUT', `${base}/_multipart`, part))
  const etag = received
    ? ((await owner.call('PUT', presignedURL, bytes)).headers.get('etag') ?? '')
    : ''
  return { bytes, base, url: presignedURL as string, uploadID: uploadID as string, etag }
}

async function ok(answer: Promise<Answer>): Promise<any> {
  const { status, json, text } = await answer
  if (status !== 200) throw new Error(`${status} ${text}`)
  return json.data
}

const nothing = (place: Place) => place.imageId === ''
const idOf = (place: Place) => (nothing(place) ? anyId() : place.imageId)
const parts = async (place: Place, received: boolean) =>
  nothing(place)
    ? { ...NO_UPLOAD, base: `/v2/imagefile/${anyId()}` }
    : opened(place, 'parts', received)
const single = async (place: Place, received: boolean) =>
  nothing(place)
    ? { ...NO_UPLOAD, base: `/v2/imagefile/${anyId()}` }
    : opened(place, 'single', received)
const NO_UPLOAD = { bytes: new Uint8Array(10), url: '', uploadID: 'bm9ib2R5.c2lnbmVk', etag: '"x"' }

/** A request of each route that names something, good enough to succeed for whoever may. */
const CALLS: Record<string, (place: Place) => Call | Promise<Call>> = {
  'POST /v1/build': () => ({ path: '/v1/build', body: {} }),
  'POST /v1/build-context': () => ({ path: '/v1/build-context', body: {} }),
  'POST /v1/entities': ({ entity }) => ({ path: '/v1/entities', body: { name: entity } }),
  'GET /v1/entities/*': ({ entity }) => ({ path: `/v1/entities/${entity}` }),
  'POST /v1/collections': ({ entityId }) => ({
    path: '/v1/collections',
    // private, or the private column's entity would have something to show from here on
    body: { name: unique('new'), entity: entityId, private: true },
  }),
  'GET /v1/collections/*': ({ names }) => ({
    path: `/v1/collections/${names.split('/').slice(0, 2).join('/')}`,
  }),
  'POST /v1/containers': ({ collectionId }) => ({
    path: '/v1/containers',
    body: { name: unique('new'), collection: collectionId },
  }),
  'GET /v1/containers/*': ({ names }) => ({ path: `/v1/containers/${names}` }),
  'POST /v1/images': ({ containerId }) => ({
    path: '/v1/images',
    body: { hash: `sha256.${anyDigest()}`, container: containerId },
  }),
  'GET /v1/images/*': ({ names }) => ({ path: `/v1/images/${names}:latest` }),
  'DELETE /v1/images/*': ({ names }) => ({ path: `/v1/images/${names}:latest` }),
  'GET /v1/tags/:id': ({ containerId }) => ({ path: `/v1/tags/${containerId}` }),
  'POST /v1/tags/:id': (place) => ({
    path: `/v1/tags/${place.containerId}`,
    body: { Tag: 'other', ImageID: idOf(place) },
  }),
  'GET /v2/tags/:id': ({ containerId }) => ({ path: `/v2/tags/${containerId}` }),
  'POST /v2/tags/:id': (place) => ({
    path: `/v2/tags/${place.containerId}`,
    body: { Arch: 'amd64', Tag: 'other', ImageID: idOf(place) },
  }),
  'GET /v1/search': ({ entity }) => ({ path: `/v1/search?value=${entity}` }),
  'GET /v1/imagefile/*': ({ names }) => ({ path: `/v1/imagefile/${names}:latest` }),
  'POST /v1/imagefile/*': (place) => ({
    path: `/v1/imagefile/${idOf(place)}`,
    body: place.bytes,
  }),
  'POST /v2/imagefile/:id': (place) => ({
    path: `/v2/imagefile/${idOf(place)}`,
    body: { filesize: place.bytes.length },
  }),
  'PUT /v2/imagefile/:id/_complete': async (place) => {
    const { base } = await single(place, true)
    return { path: `${base}/_complete`, body: {} }
  },
  'POST /v2/imagefile/:id/_multipart': (place) => ({
    path: `/v2/imagefile/${idOf(place)}/_multipart`,
    body: { filesize: place.bytes.length },
  }),
  'PUT /v2/imagefile/:id/_multipart': async (place) => {
    const { base, uploadID, bytes } = await parts(place, false)
    const body = { uploadID, partNumber: 1, partSize: bytes.length, sha256sum: sha256(bytes) }
    return { path: `${base}/_multipart`, body }
  },
  'PUT /v2/imagefile/:id/_multipart_complete': async (place) => {
    const { base, uploadID, etag } = await parts(place, true)
    const body = { uploadID, completedParts: [{ partNumber: 1, token: etag }] }
    return { path: `${base}/_multipart_complete`, body }
  },
  'PUT /v2/imagefile/:id/_multipart_abort': async (place) => {
    const { base, uploadID } = await parts(place, true)
    return { path: `${base}/_multipart_abort`, body: { uploadID } }
  },
  'GET /v1/blob': (place) => ({
    path: place.ticket,
    // a refused range breaks the connection (R5), and fetch would show no status
    headers: nothing(place) ? {} : { range: 'bytes=0-9' },
  }),
  'PUT /v1/blob': async (place) => {
    const { url, bytes } = await single(place, false)
    return { path: url || '/v1/blob?t=bm9ib2R5.c2lnbmVk', body: bytes }
  },
  'PUT /v1/part': async (place) => {
    const { url, bytes } = await parts(place, false)
    return { path: url || '/v1/part?t=bm9ib2R5.c2lnbmVk', body: bytes }
  },
  'POST /pks/add': () => ({ path: '/pks/add', body: 'keytext=' }),
  'GET /library/:entity/:collection/:container': ({ names }) => ({ path: `/library/${names}` }),
}

/** Every row of every protocol's table, as the source has it. */
function routesInSource(): string[] {
  const src = new URL('../../src/', import.meta.url)
  return readdirSync(src, { recursive: true, encoding: 'utf8' })
    .filter((file) => /^[a-z]+\/routes\.ts$/.test(file))
    .flatMap((file) => [
      ...readFileSync(new URL(file, src), 'utf8').matchAll(
        /method: '([A-Z]+)',\s*path: '([^']+)'/g,
      ),
    ])
    .map(([, method, path]) => `${method} ${path}`)
}

/** Past the time within which a server learns of ended tokens and images (R25). */
const ENDED_MS = 1500
const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))
const LARGE = 16 * 1024 * 1024

/** An image just large enough to be handed out by ticket. */
function largeSif(content: string): Uint8Array {
  const bytes = new Uint8Array(LARGE)
  bytes.set(sampleSif({ content }))
  return bytes
}

/** The suite. `makeTarget` makes one fresh registry per call, which the suite stops. */
export function describeAccess(name: string, makeTarget: () => Promise<AccessTarget>): void {
  describe(`${name}: access`, () => {
    describeMatrix(makeTarget)
    //describePrivacy(makeTarget)
    //describeEndings(makeTarget)
    //describeScopes(makeTarget)
  })
}

function describeMatrix(makeTarget: () => Promise<AccessTarget>): void {
  describe('every route for everybody', () => {
    let target: AccessTarget
    const clients = {} as Record<Kind, Record<Caller, LibraryClient>>
    const tickets = {} as Record<Kind, string>
    const shared = {} as Record<Kind, Place>
    let cells = 0

    /** What the callers meet: new for each, where somebody's call will change it. */
    async function makePlace(kind: Kind): Promise<Place> {
      const { owner } = clients[kind]
      const bytes = sampleSif({ content: unique('place') })
      const entity = kind === 'absent' ? unique('nobody') : OWNERS[kind]
      const [collection, container] = [unique('c'), 'box']
      const place = { owner, bytes, entity, names: `${entity}/${collection}/${container}` }
      if (kind === 'absent')
        return {
          ...place,
          entityId: anyId(),
          collectionId: anyId(),
          containerId: anyId(),
          imageId: '',
          ticket: '/v1/blob?t=bm9ib2R5.c2lnbmVk',
        }
      const privately = { privateCollection: kind === 'private' }
      const pushed = await owner.push(place.names, bytes, privately)
      const at = await ok(owner.call('GET', `/v1/containers/${place.names}`))
      return {
        ...place,
        entityId: at.entity,
        collectionId: at.collection,
        containerId: at.id,
        imageId: pushed.image,
        ticket: tickets[kind],
      }
    }

    beforeAll(async () => {
      target = await makeTarget()
      const stranger = await target.mint('mallory')
      const admin = await target.mint('boss', { admin: true, scopes: ALL })
      for (const kind of KINDS) {
        const user = OWNERS[kind]
        const owner = await target.mint(user)
        const revoked = await target.mint(user)
        const expired = await target.mint(user, { expires: new Date(Date.now() - 3_600_000) })
        const pull = await target.mint(user, { scopes: ['pull'] })
        await target.revoke(revoked.id)
        const tokens = { anonymous: null, stranger, owner, admin, revoked, expired, pull }
        clients[kind] = Object.fromEntries(
          CALLERS.map((caller) => [caller, libraryClient(target.url, tokens[caller]?.jwt ?? null)]),
        ) as Record<Caller, LibraryClient>
      }
      for (const kind of ['public', 'private'] as const) {
        const { owner } = clients[kind]
        const ref = `${OWNERS[kind]}/${kind}/large`
        await owner.push(ref, largeSif(kind), { privateCollection: kind === 'private' })
        const redirect = await owner.call('GET', `/v1/imagefile/${ref}:latest`)
        expect(redirect.status).toBe(303)
        tickets[kind] = redirect.headers.get('location') ?? ''
      }
      for (const kind of KINDS) shared[kind] = await makePlace(kind)
      await wait(ENDED_MS)
    })
    afterAll(async () => {
      console.log(`access matrix: ${cells} cells of ${ROWS.length} routes`)
      await target.stop()
    })

    test('every route of every protocol has a row, and every row a route', () => {
      const routes = routesInSource()
      expect(routes.length).toBeGreaterThan(35)
      expect(ROWS.map(({ route }) => route).sort()).toEqual(routes.sort())
    })

    test.each(ROWS)('$route', async ({ route, method, cells: expected }) => {
      const path = route.split(' ')[1] ?? ''
      const call = CALLS[route] ?? (() => ({ path }))
      const found: string[] = []
      for (const [group, kind] of KINDS.entries()) {
        let row = ''
        for (const [column, caller] of CALLERS.entries()) {
          const succeeds = expected.split(' ')[group]?.[column] === '2'
          const changes = method !== 'GET'
          const place = changes && succeeds ? await makePlace(kind) : shared[kind]
          const { path: at, body, headers } = await call(place)
          const before = changes && !succeeds ? await seen(kind) : ''
          const { status, text } = await clients[kind][caller].call(method, at, body, headers)
          row += CODES[status] ?? ` ${status} `
          // a refusal changes nothing, and speaks
          if (changes && !succeeds) expect(await seen(kind), `${kind} ${caller}`).toBe(before)
          if (status >= 400) expect(JSON.parse(text).error.message).toMatch(/^\w.{8}/)
          cells++
        }
        found.push(row)
      }
      expect(found.join(' ')).toBe(expected)
    })

    /** Everything the owner can see of the place that is not to change. */
    async function seen(kind: Kind): Promise<string> {
      const { owner, names, entity } = shared[kind]
      const [collection] = names.split(/\/[^/]*$/)
      const answers = [
        await owner.call('GET', `/v1/entities/${entity}`),
        await owner.call('GET', `/v1/collections/${collection}`),
        await owner.call('GET', `/v1/containers/${names}`),
        await owner.call('GET', `/v1/images/${names}:latest`),
      ]
      return answers.map(({ status, text }) => `${status} ${text}`).join('\n')
    }
  })
}

/** Nobody owns what is absent: somebody without anything stands in that column. */
const OWNERS: Record<Kind, string> = { public: 'alice', private: 'carol', absent: 'dave' }
const ALL: Scope[] = ['pull', 'push', 'delete', 'keys', 'admin']
