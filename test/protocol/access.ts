/**
 * Who gets which answer: every route for every kind of caller, what is private looks absent, and
 * rights end when they are taken away (R14, R25, R26, R27, R28, R29).
 */
import { randomBytes } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Scope } from '../../src/core/model.ts'
import { tokenIssuer, type JWK } from '../../src/core/tokens.ts'
import { clearSign, makeKey, type MadeKey } from '../fixtures/make-key.ts'
import { sampleSif } from '../fixtures/sif.ts'
import type { Target } from '../runtimes/target.ts'
import { libraryClient, requestsMade, sha256, type Answer, type LibraryClient } from './client.ts'

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
 * What follows a # is one of the ways to ask on a route: a whole blob at once, a mount from what everybody
 * can read, from anywhere, from what is somebody else's and private, from what does not exist; a manifest by
 * its hash, or under a tag that it moves. HEAD is asked on the routes of GET.
 *
 * 2: 200, 201, 202 or 204, M: mounted (201), P: 206, 1: 401, 3: 403, 4: 404, 9: 409, 5: 501
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
DELETE /v1/collections/*                     1322113 1422113 1444113
POST /v1/containers                          1322113 1422113 1444113
GET  /v1/containers/*                        2222112 4422112 4444114
DELETE /v1/containers/*                      1322113 1422113 1444113
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
GET  /v2                                     1222112 1222112 1222112
GET  /v2/token                               2222112 2222112 2222112
GET  /v2/_catalog                            2222112 2222112 2222112
POST /v2/:name{.+}/blobs/uploads             1322113 1322113 1332113
POST /v2/:name{.+}/blobs/uploads#whole       1322113 1322113 1332113
POST /v2/:name{.+}/blobs/uploads#readable    13MM113 13MM113 133M113
POST /v2/:name{.+}/blobs/uploads#anywhere    13MM113 13MM113 133M113
POST /v2/:name{.+}/blobs/uploads#private     132M113 132M113 133M113
POST /v2/:name{.+}/blobs/uploads#absent      1322113 1322113 1332113
GET  /v2/:name{.+}/blobs/uploads/:id         1424113 1424113 1444113
PATCH /v2/:name{.+}/blobs/uploads/:id        1424113 1424113 1444113
PUT  /v2/:name{.+}/blobs/uploads/:id         1424113 1424113 1444113
DELETE /v2/:name{.+}/blobs/uploads/:id       1424113 1424113 1444113
GET  /v2/:name{.+}/blobs/:digest             2222112 1422112 1444114
HEAD /v2/:name{.+}/blobs/:digest             2222112 1422112 1444114
DELETE /v2/:name{.+}/blobs/:digest           1322113 1422113 1444113
GET  /v2/:name{.+}/manifests/:reference      2222112 1422112 1444114
GET  /v2/:name{.+}/manifests/:reference#hash 2222112 1422112 1444114
HEAD /v2/:name{.+}/manifests/:reference      2222112 1422112 1444114
HEAD /v2/:name{.+}/manifests/:reference#hash 2222112 1422112 1444114
PUT  /v2/:name{.+}/manifests/:reference      1322113 1322113 1332113
PUT  /v2/:name{.+}/manifests/:reference#hash 1322113 1322113 1332113
PUT  /v2/:name{.+}/manifests/:reference#move 1322113 1322113 1332113
DELETE /v2/:name{.+}/manifests/:reference    1322113 1422113 1444113
DELETE /v2/:name{.+}/manifests/:reference#hash 1322113 1422113 1444113
GET  /v2/:name{.+}/tags/list                 2222112 1422112 1444114
GET  /v2/:name{.+}/referrers/:digest         2222112 1222112 1222112
GET  /v1/users                               1332313 1332313 1332313
POST /v1/users                               1332313 1332313 1332313
GET  /v1/users/:name                         1422112 1422112 1444114
PATCH /v1/users/:name                        1332313 1332313 1334313
DELETE /v1/users/:name                       1339313 1339313 1334313
GET  /v1/users/:name/tokens                  1422112 1422112 1444114
GET  /v1/tokens                              1222112 1222112 1222112
POST /v1/tokens                              1332313 1332313 1334313
DELETE /v1/tokens/:id                        1444114 1444114 1444114
GET  /v1/robots                              1222112 1222112 1222112
POST /v1/robots                              1332313 1332313 1332313
DELETE /v1/robots/:name                      1334313 1334313 1334313
POST /v1/transfers                           1339313 1339313 1334313
PUT  /v1/privacy                             1332313 1332313 1334313
GET  /v1/grants                              1332313 1332313 1334313
PUT  /v1/grants                              1332313 1332313 1334313
PUT  /v1/frozen                              1332313 1332313 1334313
GET  /v1/teams                               1222112 1222112 1222112
POST /v1/teams                               1332313 1332313 1332313
GET  /v1/teams/:name                         1444114 1444114 1444114
PATCH /v1/teams/:name                        1334313 1334313 1334313
DELETE /v1/teams/:name                       1334313 1334313 1334313
PUT  /v1/teams/:name/members/:user           1334313 1334313 1334313
DELETE /v1/teams/:name/members/:user         1334313 1334313 1334313
POST /v1/teams/:name/join                    1444114 1444114 1444114
GET  /v1/teams/:name/invitations             1334313 1334313 1334313
POST /v1/teams/:name/invitations             1334313 1334313 1334313
DELETE /v1/teams/:name/invitations/:id       1334313 1334313 1334313
POST /v1/invitations                         1444114 1444114 1444114
GET  /v1/policy                              2222112 4422112 4444114
PUT  /v1/policy                              1322113 1422113 1444113
GET  /v1/usage                               1322112 1422112 1444114
PUT  /v1/quota                               1332313 1332313 1334313
GET  /v1/audit                               1332313 1332313 1332313
GET  /v1/stats                               2222112 4422112 4444114
GET  /v1/stars                               1222112 1222112 1222112
PUT  /v1/stars                               1222112 1422112 1444114
DELETE /v1/stars                             1222112 1422112 1444114
GET  /v1/shares                              1222112 1422112 1444114
POST /v1/shares                              1322113 1422113 1444113
DELETE /v1/shares/:id                        1422112 1422112 1444114
GET  /share                                  2222222 2222222 4444444
POST /v1/exports                             1332313 1332313 1332313
GET  /v1/exports/rows                        1332313 1332313 1332313
GET  /v1/exports/blobs/:digest               1334313 1334313 1334313
GET  /v1/imports                             1332313 1332313 1332313
POST /v1/imports                             1332313 1332313 1332313
POST /v1/imports/:id                         1339313 1339313 1339313
DELETE /v1/imports/:id                       1332313 1332313 1332313
POST /v1/imports/:id/rows                    1339313 1339313 1339313
POST /v1/imports/:id/blobs/:digest           1339313 1339313 1339313
PUT  /v1/imports/:id/blobs/:digest           1334313 1334313 1334313
PUT  /v1/imports/:id/blobs/:digest/parts/:part 1334313 1334313 1334313
POST /v1/imports/:id/blobs/:digest/parts     1334313 1334313 1334313
POST /v1/first-admin                         3333333 3333333 3333333
GET  /v1/keys                                1222112 1222112 1222112
GET  /v1/keys/:fingerprint                   2222112 2222112 4444114
DELETE /v1/keys/:fingerprint                 1322113 1322113 1444114
POST /v1/keys/:fingerprint/challenge         1222113 1222113 1444113
POST /v1/keys/:fingerprint/claim             1222113 1222113 1444113
GET  /pks/lookup                             2222112 2222112 4444114
POST /pks/add                                1222113 1222113 1222113
GET  /api/container/:collection/:name        4444444 4444444 4444444
GET  /:entity/api/container/:collection/:name 2222222 4444444 4444444
GET  /                                       2222112 2222112 2222112
GET  /auth/tokens                            2222222 2222222 2222222
GET  /library/:entity/:collection/:container 2222222 2222222 2222222
GET  /openapi.json                           2222222 2222222 2222222
GET  /docs                                   2222222 2222222 2222222
GET  /docs/:file                             2222222 2222222 2222222
GET  /healthz                                2222222 2222222 2222222
GET  /readyz                                 2222222 2222222 2222222
`
const CODES: Record<number, string> = {
  200: '2',
  201: '2',
  202: '2',
  204: '2',
  206: 'P',
  401: '1',
  403: '3',
  404: '4',
  409: '9',
  429: 'L',
  501: '5',
}
const ROWS = MATRIX.split('\n').flatMap((line) => {
  const [, method, path, cells] = /^([A-Z]+) +(\S+) +(\S{7} \S{7} \S{7})$/.exec(line) ?? []
  return method === undefined || path === undefined || cells === undefined
    ? []
    : [{ route: `${method} ${path}`, method, cells }]
})

/** The letter of an answer; a mount that was none is an upload (202). */
export const letterOf = (route: string, status: number): string | undefined =>
  MOUNTS.test(route) && status === 201 ? 'M' : CODES[status]
const MOUNTS = /#(?:readable|anywhere|private|absent)$/
/** The routes that rows stand for, once each. */
export const routesOf = (rows: readonly { route: string }[]): string[] => [
  ...new Set(rows.map(({ route }) => route.replace(/#.*$/, '').replace(/^HEAD /, 'GET '))),
]

/** What a refusal says to the person at the terminal, in either envelope. */
export const sentenceOf = (json: any): string => json.error?.message ?? json.errors?.[0]?.message

/** Something with an image in it, or names and ids of nothing. */
export type Place = {
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
  /** A key that the owner has claimed, in both columns: keys are for everybody; or of nowhere. */
  key: MadeKey
}
export type Call = { path: string; body?: unknown; headers?: Record<string, string> }

export const anyId = () => randomBytes(12).toString('hex')
const anyDigest = () => randomBytes(32).toString('hex')
const exportHead = () => ({
  type: 'head',
  exportId: anyId(),
  registryId: anyId(),
  keys: [],
  createdAt: 0,
})
/** A key that is in no keystore. */
let NO_KEY: MadeKey
/** A ticket that nobody signed. */
const UNSIGNED = 'bm9ib2R5.c2lnbmVk'
let count = 0
export const unique = (word: string) => `${word}${++count}`

type Opened = {
  id: string
  /** `/v2/imagefile/ID`. */
  base: string
  bytes: Uint8Array
  /** Where the bytes go. */
  url: string
  /** Of an upload in parts. */
  uploadID: string
  /** Of the one part, when it was received. */
  etag: string
}

/** A new image as the owner has it in the middle of a push: record and upload, bytes or not. */
async function opened(place: Place, form: 'single' | 'parts', received: boolean): Promise<Opened> {
  const bytes = sampleSif({ content: unique('upload') })
  const { owner } = place
  const image = await ok(
    owner.call('POST', '/v1/images', {
      hash: `sha256.${sha256(bytes)}`,
      container: place.containerId,
    }),
  )
  const id = image.id as string
  const base = `/v2/imagefile/${id}`
  if (form === 'single') {
    const { uploadURL } = await ok(owner.call('POST', base, { filesize: bytes.length }))
    if (received) await owner.call('PUT', uploadURL, bytes)
    return { id, base, bytes, url: uploadURL, uploadID: '', etag: '' }
  }
  const { uploadID } = await ok(
    owner.call('POST', `${base}/_multipart`, { filesize: bytes.length }),
  )
  const part = { uploadID, partNumber: 1, partSize: bytes.length, sha256sum: sha256(bytes) }
  const { presignedURL } = await ok(owner.call('PUT', `${base}/_multipart`, part))
  const etag = received
    ? ((await owner.call('PUT', presignedURL, bytes)).headers.get('etag') ?? '')
    : ''
  return { id, base, bytes, url: presignedURL, uploadID, etag }
}

async function ok(answer: Promise<Answer>): Promise<any> {
  const { status, json, text } = await answer
  if (status !== 200) throw new Error(`${status} ${text}`)
  return json.data
}

/** Pushes a new image to `ref`, and returns what a caller needs to name it. */
export async function pushPlace(
  owner: LibraryClient,
  ref: string,
  options: object = {},
): Promise<Place> {
  const bytes = sampleSif({ content: unique('place') })
  const { image } = await owner.push(ref, bytes, options)
  const at = await ok(owner.call('GET', `/v1/containers/${ref}`))
  return {
    owner,
    bytes,
    names: ref,
    entity: at.entityName,
    entityId: at.entity,
    collectionId: at.collection,
    containerId: at.id,
    imageId: image,
    ticket: '',
    key: NO_KEY,
  }
}

/** A key of the owner's in the keystore. */
export async function claimedKey(owner: LibraryClient): Promise<MadeKey> {
  const key = await makeKey(unique('Owned '))
  const at = `/v1/keys/${key.fingerprint}`
  const keytext = new URLSearchParams({ keytext: key.armor }).toString()
  expect((await owner.call('POST', '/pks/add', keytext)).status).toBe(200)
  const { challenge } = await ok(owner.call('POST', `${at}/challenge`))
  await ok(owner.call('POST', `${at}/claim`, { signed: await clearSign(challenge, key) }))
  return key
}

const BLOB = '{}'
const ociDigest = (text: string) => `sha256:${sha256(Buffer.from(text))}`
const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json'
const ociManifest = (annotation: string) => {
  const config = { mediaType: 'application/x', digest: ociDigest(BLOB), size: BLOB.length }
  const annotations = { annotation }
  return JSON.stringify({ schemaVersion: 2, config, layers: [], annotations })
}
const putManifest = (owner: LibraryClient, names: string, reference: string, body: string) =>
  owner.call('PUT', `/v2/${names}/manifests/${reference}`, body, { 'content-type': MANIFEST_TYPE })

/** The owner's repository with a blob and a manifest `oci` in it; of nothing, names only. */
async function repository(place: Place): Promise<string> {
  const { owner, names } = place
  const at = `/v2/${names}`
  if (nothing(place)) return at
  const blob = await owner.call('POST', `${at}/blobs/uploads/?digest=${ociDigest(BLOB)}`, BLOB)
  const manifest = await putManifest(owner, names, 'oci', ociManifest('one'))
  expect([blob.status, manifest.status]).toEqual([201, 201])
  return at
}

/** The digest of the manifest that `repository` puts there. */
const HASH = ociDigest(ociManifest('one'))
/** An index of nothing needs no blobs, so that it can be the first thing of a repository. */
const INDEX_TYPE = 'application/vnd.oci.image.index.v1+json'
const ociIndex = (annotation: string) => ({
  body: JSON.stringify({
    schemaVersion: 2,
    mediaType: INDEX_TYPE,
    manifests: [],
    annotations: { annotation },
  }),
  headers: { 'content-type': INDEX_TYPE },
})

/** What mounts name: a blob that everybody can read, and one that only its owner and administrators can. */
const SOURCES = { open: 'somebody’s blob', shut: 'somebody’s secret' }
export async function makeSources({ url, mint }: Target): Promise<void> {
  const owner = libraryClient(url, (await mint('sources')).jwt)
  for (const [collection, content] of Object.entries(SOURCES)) {
    await owner.ensure('sources', collection, 'box', { privateCollection: collection === 'shut' })
    const at = `/v2/sources/${collection}/box/blobs/uploads/?digest=${ociDigest(content)}`
    expect((await owner.call('POST', at, content)).status).toBe(201)
  }
}
const mounting = (names: string, { open, shut } = SOURCES) => ({
  readable: `/v2/${names}/blobs/uploads/?mount=${ociDigest(open)}&from=sources/open/box`,
  anywhere: `/v2/${names}/blobs/uploads/?mount=${ociDigest(open)}`,
  private: `/v2/${names}/blobs/uploads/?mount=${ociDigest(shut)}&from=sources/shut/box`,
  absent: `/v2/${names}/blobs/uploads/?mount=${ociDigest('nothing')}&from=sources/none/box`,
})

/** An upload that the owner has opened there; or a ticket that nobody signed. */
async function ociUpload(place: Place): Promise<string> {
  const at = `/v2/${place.names}/blobs/uploads/`
  if (nothing(place)) return `${at}${anyId()}?t=${UNSIGNED}`
  const { headers } = await place.owner.call('POST', at)
  return headers.get('location') ?? ''
}

const nothing = (place: Place) => place.imageId === ''
const idOf = (place: Place) => (nothing(place) ? anyId() : place.imageId)
const parts = async (place: Place, received: boolean) =>
  nothing(place) ? noUpload() : opened(place, 'parts', received)
const single = async (place: Place, received: boolean) =>
  nothing(place) ? noUpload() : opened(place, 'single', received)
/** A share link that the owner made. */
const link = async (place: Place): Promise<{ id: string; path: string }> =>
  nothing(place)
    ? { id: anyId(), path: '/share?s=nothing' }
    : ok(place.owner.call('POST', '/v1/shares', { ref: `${place.names}:latest` }))
/** What `opened` returns, of nothing that exists. */
function noUpload(): Opened {
  const id = anyId()
  const bytes = new Uint8Array(10)
  return { id, base: `/v2/imagefile/${id}`, bytes, url: '', uploadID: UNSIGNED, etag: '"x"' }
}

/** A request of each route that names something, good enough to succeed for whoever may. */
const CALLS: Record<string, (place: Place, caller: LibraryClient) => Call | Promise<Call>> = {
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
    body: { Tag: unique('tag'), ImageID: idOf(place) },
  }),
  'GET /v2/tags/:id': ({ containerId }) => ({ path: `/v2/tags/${containerId}` }),
  'POST /v2/tags/:id': (place) => ({
    path: `/v2/tags/${place.containerId}`,
    body: { Arch: 'amd64', Tag: unique('tag'), ImageID: idOf(place) },
  }),
  'GET /v1/search': ({ entity }) => ({ path: `/v1/search?value=${entity}` }),
  'GET /v1/imagefile/*': ({ names }) => ({ path: `/v1/imagefile/${names}:latest` }),
  'POST /v1/imagefile/*': async (place) => {
    const { id, bytes } = await single(place, false)
    return { path: `/v1/imagefile/${id}`, body: bytes }
  },
  'POST /v2/imagefile/:id': async (place) => {
    const { id, bytes } = await single(place, false)
    return { path: `/v2/imagefile/${id}`, body: { filesize: bytes.length } }
  },
  'PUT /v2/imagefile/:id/_complete': async (place) => {
    const { base } = await single(place, true)
    return { path: `${base}/_complete`, body: {} }
  },
  'POST /v2/imagefile/:id/_multipart': async (place) => {
    const { base, bytes } = await single(place, false)
    return { path: `${base}/_multipart`, body: { filesize: bytes.length } }
  },
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
  'GET /v2': () => ({ path: '/v2/' }),
  'POST /v2/:name{.+}/blobs/uploads': ({ names }) => ({ path: `/v2/${names}/blobs/uploads/` }),
  'POST /v2/:name{.+}/blobs/uploads#whole': ({ names }) => {
    const body = unique('whole ')
    return { path: `/v2/${names}/blobs/uploads/?digest=${ociDigest(body)}`, body }
  },
  ...Object.fromEntries(
    (['readable', 'anywhere', 'private', 'absent'] as const).map((way) => [
      `POST /v2/:name{.+}/blobs/uploads#${way}`,
      ({ names }: Place) => ({ path: mounting(names)[way] }),
    ]),
  ),
  'GET /v2/:name{.+}/blobs/uploads/:id': async (place) => ({ path: await ociUpload(place) }),
  'PATCH /v2/:name{.+}/blobs/uploads/:id': async (place) => ({
    path: await ociUpload(place),
    body: 'chunk',
  }),
  'PUT /v2/:name{.+}/blobs/uploads/:id': async (place) => ({
    path: `${await ociUpload(place)}&digest=${ociDigest('whole')}`,
    body: 'whole',
  }),
  'DELETE /v2/:name{.+}/blobs/uploads/:id': async (place) => ({ path: await ociUpload(place) }),
  'GET /v2/:name{.+}/blobs/:digest': async (place) => ({
    path: `${await repository(place)}/blobs/${ociDigest(BLOB)}`,
  }),
  'HEAD /v2/:name{.+}/blobs/:digest': async (place) => ({
    path: `${await repository(place)}/blobs/${ociDigest(BLOB)}`,
  }),
  'DELETE /v2/:name{.+}/blobs/:digest': async (place) => {
    const at = await repository(place)
    const digest = ociDigest('free')
    if (!nothing(place))
      await place.owner.call('POST', `${at}/blobs/uploads/?digest=${digest}`, 'free')
    return { path: `${at}/blobs/${digest}` }
  },
  ...Object.fromEntries(
    ['GET', 'HEAD', 'DELETE'].flatMap((method) => [
      [
        `${method} /v2/:name{.+}/manifests/:reference`,
        async (place: Place) => ({ path: `${await repository(place)}/manifests/oci` }),
      ],
      [
        `${method} /v2/:name{.+}/manifests/:reference#hash`,
        async (place: Place) => ({ path: `${await repository(place)}/manifests/${HASH}` }),
      ],
    ]),
  ),
  'PUT /v2/:name{.+}/manifests/:reference': async (place) => ({
    path: `${await repository(place)}/manifests/new`,
    ...ociIndex('new'),
  }),
  'PUT /v2/:name{.+}/manifests/:reference#hash': async (place) => {
    const index = ociIndex(unique('by hash '))
    return { path: `${await repository(place)}/manifests/${ociDigest(index.body)}`, ...index }
  },
  'PUT /v2/:name{.+}/manifests/:reference#move': async (place) => ({
    path: `${await repository(place)}/manifests/oci`,
    ...ociIndex(unique('moved ')),
  }),
  'GET /v2/:name{.+}/tags/list': async (place) => ({
    path: `${await repository(place)}/tags/list`,
  }),
  'GET /v2/:name{.+}/referrers/:digest': async (place) => ({
    path: `${await repository(place)}/referrers/${ociDigest(BLOB)}`,
  }),
  'GET /v1/blob': (place) => ({
    path: place.ticket,
    // a refused range breaks the connection (R5), and fetch would show no status
    ...(nothing(place) ? {} : { headers: { range: 'bytes=0-9' } }),
  }),
  'PUT /v1/blob': async (place) => {
    const { url, bytes } = await single(place, false)
    return { path: url || `/v1/blob?t=${UNSIGNED}`, body: bytes }
  },
  'PUT /v1/part': async (place) => {
    const { url, bytes } = await parts(place, false)
    return { path: url || `/v1/part?t=${UNSIGNED}`, body: bytes }
  },
  'POST /v1/users': () => ({ path: '/v1/users', body: { name: unique('user') } }),
  'GET /v1/users/:name': ({ entity }) => ({ path: `/v1/users/${entity}` }),
  'PATCH /v1/users/:name': ({ entity }) => ({
    path: `/v1/users/${entity}`,
    body: { disabled: false },
  }),
  // what ends for good is in test/protocol/people.ts
  'DELETE /v1/users/:name': ({ entity }) => ({ path: `/v1/users/${entity}?free=true` }),
  'GET /v1/tokens': () => ({ path: '/v1/tokens' }),
  'GET /v1/robots': () => ({ path: '/v1/robots' }),
  'POST /v1/robots': () => ({ path: '/v1/robots', body: { name: unique('robot') } }),
  'DELETE /v1/robots/:name': ({ entity }) => ({ path: `/v1/robots/${entity}` }),
  'POST /v1/transfers': ({ entity }) => ({ path: '/v1/transfers', body: { entity, to: entity } }),
  'GET /v1/users/:name/tokens': ({ entity }) => ({ path: `/v1/users/${entity}/tokens` }),
  'POST /v1/tokens': ({ entity }) => ({
    path: '/v1/tokens',
    body: { user: entity, name: 'made', scopes: ['pull'] },
  }),
  // what is revoked for good is in test/protocol/manage.ts
  'DELETE /v1/tokens/:id': () => ({ path: `/v1/tokens/${anyId()}` }),
  'PUT /v1/privacy': ({ names, entity }) => ({
    path: '/v1/privacy',
    body: { ref: names.replace(/\/[^/]*$/, ''), private: entity === OWNERS.private },
  }),
  'DELETE /v1/collections/*': ({ names }) => ({
    path: `/v1/collections/${names.split('/').slice(0, 2).join('/')}`,
  }),
  'DELETE /v1/containers/*': ({ names }) => ({ path: `/v1/containers/${names}` }),
  'GET /v1/grants': ({ names }) => ({
    path: `/v1/grants?ref=${encodeURIComponent(names.replace(/\/[^/]*$/, ''))}`,
  }),
  'PUT /v1/grants': ({ names }) => ({
    path: '/v1/grants',
    body: { ref: names.replace(/\/[^/]*$/, ''), user: OWNERS.public, level: 'none' },
  }),
  'PUT /v1/frozen': ({ names }) => ({ path: '/v1/frozen', body: { ref: names, frozen: false } }),
  // what teams do is in test/protocol/teams.ts; but for the one that is made, these name none
  'POST /v1/teams': () => ({
    path: '/v1/teams',
    body: { name: unique('team'), owner: OWNERS.public },
  }),
  'PATCH /v1/teams/:name': () => ({ path: '/v1/teams/none', body: { open: true } }),
  'PUT /v1/teams/:name/members/:user': () => ({
    path: '/v1/teams/none/members/alice',
    body: { owner: true },
  }),
  ...Object.fromEntries(
    [
      'GET /v1/teams/:name',
      'DELETE /v1/teams/:name',
      'DELETE /v1/teams/:name/members/:user',
      'POST /v1/teams/:name/join',
      'GET /v1/teams/:name/invitations',
      'POST /v1/teams/:name/invitations',
      'DELETE /v1/teams/:name/invitations/:id',
    ].map((route) => [
      route,
      () => ({
        path: (route.split(' ')[1] ?? '')
          .replace(':name', 'none')
          .replace(':user', 'alice')
          .replace(':id', anyId()),
      }),
    ]),
  ),
  'POST /v1/invitations': () => ({ path: '/v1/invitations', body: { secret: anyId() } }),
  'GET /v1/policy': ({ names }) => ({
    path: `/v1/policy?ref=${encodeURIComponent(names.replace(/\/[^/]*$/, ''))}`,
  }),
  'PUT /v1/policy': ({ names }) => ({
    path: '/v1/policy',
    body: { ref: names.replace(/\/[^/]*$/, ''), policy: 'off' },
  }),
  'GET /v1/usage': ({ entity }) => ({ path: `/v1/usage?entity=${entity}` }),
  'PUT /v1/quota': ({ entity }) => ({ path: '/v1/quota', body: { entity, bytes: null } }),
  'GET /v1/audit': () => ({ path: '/v1/audit?action=image' }),
  'GET /v1/stats': ({ names }) => ({ path: `/v1/stats?ref=${names}` }),
  'PUT /v1/stars': ({ names }) => ({ path: '/v1/stars', body: { ref: names } }),
  'DELETE /v1/stars': ({ names }) => ({ path: `/v1/stars?ref=${names}` }),
  'GET /v1/shares': ({ names }) => ({ path: `/v1/shares?ref=${names}` }),
  'POST /v1/shares': ({ names }) => ({ path: '/v1/shares', body: { ref: `${names}:latest` } }),
  'DELETE /v1/shares/:id': async (place) => ({ path: `/v1/shares/${(await link(place)).id}` }),
  // of the entity library, where the same names are of nothing
  'GET /api/container/:collection/:name': ({ names }) => ({
    path: `/api/container/${names.replace(/^[^/]*\//, '')}:latest`,
  }),
  'GET /:entity/api/container/:collection/:name': ({ names }) => ({
    path: `/${names.replace('/', '/api/container/')}:latest`,
  }),
  'GET /share': async (place) => ({ path: (await link(place)).path }),
  'POST /v1/exports': () => ({ path: '/v1/exports' }),
  'GET /v1/exports/blobs/:digest': () => ({ path: `/v1/exports/blobs/${anyDigest()}` }),
  'GET /v1/imports': () => ({ path: '/v1/imports' }),
  'POST /v1/imports': () => ({ path: '/v1/imports', body: exportHead() }),
  // what an import brings is in test/protocol/moving.ts; these name none
  'POST /v1/imports/:id': () => ({
    path: `/v1/imports/${anyId()}`,
    body: { head: exportHead(), rows: 0, sha256: anyDigest() },
  }),
  'DELETE /v1/imports/:id': () => ({ path: `/v1/imports/${anyId()}` }),
  'POST /v1/imports/:id/rows': () => ({
    path: `/v1/imports/${anyId()}/rows`,
    body: { rows: [] },
  }),
  'POST /v1/imports/:id/blobs/:digest': () => ({
    path: `/v1/imports/${anyId()}/blobs/${anyDigest()}`,
    body: { size: 100 },
  }),
  'PUT /v1/imports/:id/blobs/:digest': () => ({
    path: `/v1/imports/${anyId()}/blobs/${anyDigest()}`,
    body: new Uint8Array(100),
  }),
  'PUT /v1/imports/:id/blobs/:digest/parts/:part': () => ({
    path: `/v1/imports/${anyId()}/blobs/${anyDigest()}/parts/1`,
    body: new Uint8Array(100),
  }),
  'POST /v1/imports/:id/blobs/:digest/parts': () => ({
    path: `/v1/imports/${anyId()}/blobs/${anyDigest()}/parts`,
    body: { parts: [] },
  }),
  'POST /v1/first-admin': () => ({ path: '/v1/first-admin', body: { secret: anyDigest() } }),
  'GET /v1/keys/:fingerprint': ({ key }) => ({ path: `/v1/keys/${key.fingerprint}` }),
  'DELETE /v1/keys/:fingerprint': ({ key }) => ({ path: `/v1/keys/${key.fingerprint}` }),
  'POST /v1/keys/:fingerprint/challenge': ({ key }) => ({
    path: `/v1/keys/${key.fingerprint}/challenge`,
  }),
  // with the caller's own challenge where they get one: whoever signs with the key owns it
  'POST /v1/keys/:fingerprint/claim': async ({ key }, caller) => {
    const path = `/v1/keys/${key.fingerprint}`
    const { json } = await caller.call('POST', `${path}/challenge`)
    const signed = await clearSign(json?.data?.challenge ?? 'nothing', key)
    return { path: `${path}/claim`, body: { signed } }
  },
  'GET /pks/lookup': ({ key }) => ({ path: `/pks/lookup?op=get&search=0x${key.fingerprint}` }),
  'POST /pks/add': async () => {
    const { armor } = await makeKey(unique('Added '))
    return { path: '/pks/add', body: new URLSearchParams({ keytext: armor }).toString() }
  },
  'GET /docs/:file': () => ({ path: '/docs/start.js' }),
  'GET /library/:entity/:collection/:container': ({ names }) => ({ path: `/library/${names}` }),
}

/** Every row of every protocol's table, as the source has it. */
export function routesInSource(): string[] {
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
export function largeSif(content: string): Uint8Array {
  const bytes = new Uint8Array(LARGE)
  bytes.set(sampleSif({ content }))
  return bytes
}

/** The suite. `makeTarget` makes one fresh registry per call, which the suite stops. */
export function describeAccess(name: string, makeTarget: () => Promise<AccessTarget>): void {
  describe(`${name}: access`, () => {
    beforeAll(async () => void (NO_KEY = await makeKey('Nobody')))
    describeMatrix(makeTarget)
    describePrivacy(makeTarget)
    describeEndings(makeTarget)
    describeScopes(makeTarget)
  })
}

function describeMatrix(makeTarget: () => Promise<AccessTarget>): void {
  describe('every route for everybody', () => {
    let target: AccessTarget
    const clients = {} as Record<Kind, Record<Caller, LibraryClient>>
    const tickets = {} as Record<Kind, string>
    const shared = {} as Record<Kind, Place>
    let cells = 0
    /** What was seen last, and after how many requests: it holds until there is another one. */
    const lastSeen: Partial<Record<Kind, { after: number; text: string }>> = {}

    /** What the callers meet: new for each, where somebody's call will change it. */
    async function makePlace(kind: Kind): Promise<Place> {
      const { owner } = clients[kind]
      const entity = kind === 'absent' ? unique('nobody') : OWNERS[kind]
      const names = `${entity}/${unique('c')}/box`
      if (kind !== 'absent') {
        const place = await pushPlace(owner, names, { privateCollection: kind === 'private' })
        return { ...place, ticket: tickets[kind], key: await claimedKey(owner) }
      }
      return {
        owner,
        bytes: sampleSif(),
        names,
        entity,
        entityId: anyId(),
        collectionId: anyId(),
        containerId: anyId(),
        imageId: '',
        ticket: `/v1/blob?t=${UNSIGNED}`,
        key: NO_KEY,
      }
    }

    beforeAll(async () => {
      target = await makeTarget()
      await makeSources(target)
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
      expect(routesOf(ROWS).sort()).toEqual(routes.sort())
    })

    test.each(ROWS)('$route', async ({ route, method, cells: expected }) => {
      const path = route.split(' ')[1] ?? ''
      const call = CALLS[route] ?? ((): Call => ({ path }))
      const found: string[] = []
      for (const [group, kind] of KINDS.entries()) {
        let row = ''
        for (const [column, caller] of CALLERS.entries()) {
          const succeeds = /[2M]/.test(expected.split(' ')[group]?.[column] ?? '')
          const changes = method !== 'GET' && method !== 'HEAD'
          // the other calls that change something bring something new to change
          const used =
            succeeds &&
            (method === 'DELETE' ||
              route === 'POST /v1/entities' ||
              (kind === 'absent' && path.startsWith('/v2/:name')))
          const place = used ? await makePlace(kind) : shared[kind]
          const { path: at, body, headers } = await call(place, clients[kind][caller])
          const before = changes && !succeeds ? await seen(kind) : ''
          const { status, text } = await clients[kind][caller].call(method, at, body, headers)
          row += letterOf(route, status) ?? ` ${status} `
          // a refusal changes nothing, and speaks
          if (changes && !succeeds) expect(await seen(kind), `${kind} ${caller}`).toBe(before)
          if (status >= 400 && method !== 'HEAD')
            expect(sentenceOf(JSON.parse(text))).toMatch(/^\w.{8}/)
          cells++
        }
        found.push(row)
      }
      expect(found.join(' ')).toBe(expected)
    })

    /** Everything the owner can see of the place that is not to change. */
    async function seen(kind: Kind): Promise<string> {
      const last = lastSeen[kind]
      if (last?.after === requestsMade()) return last.text
      const { owner, names, entity, key } = shared[kind]
      const [collection] = names.split(/\/[^/]*$/)
      const answers = [
        await owner.call('GET', `/v1/entities/${entity}`),
        await owner.call('GET', `/v1/collections/${collection}`),
        await owner.call('GET', `/v1/containers/${names}`),
        await owner.call('GET', `/v1/images/${names}:latest`),
        await owner.call('GET', `/v1/keys/${key.fingerprint}`),
        await owner.call('GET', `/v1/usage?entity=${entity}`),
        await owner.call('GET', '/v2/_catalog'),
        await owner.call('GET', `/v2/${names}/tags/list`),
        await owner.call('GET', `/v2/${names}/manifests/oci`),
        await owner.call('GET', `/v2/${names}/manifests/${HASH}`),
        await owner.call('GET', `/v2/${names}/blobs/${ociDigest(BLOB)}`),
      ]
      // pulls before are counted seconds later, with the first thing that is refused
      const uncounted = (text: string) =>
        text.replaceAll(/"(?:downloadCount|containerDownloads)":\d+,/g, '')
      const text = answers.map((answer) => `${answer.status} ${uncounted(answer.text)}`).join('\n')
      lastSeen[kind] = { after: requestsMade(), text }
      return text
    }
  })
}

/** Nobody owns what is absent: somebody without anything stands in that column. */
const OWNERS: Record<Kind, string> = { public: 'alice', private: 'carol', absent: 'dave' }
const ALL: Scope[] = ['pull', 'push', 'delete', 'keys', 'admin']

/** Names and ids of one thing; of two compared things all have the same lengths. */
type Named = {
  entity: string
  collection: string
  container: string
  entityId: string
  collectionId: string
  containerId: string
  imageId: string
  digest: string
}
const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH'] as const

type Mine = { containerId: string; uploadID: string; location: string }

/** The same by OCI, and what the library says of its tags. */
const ociNamings = (n: Named, mine: Mine): Call[] => {
  const path = `${n.entity}/${n.collection}/${n.container}`
  const digest = `sha256:${n.digest}`
  const blob = ociDigest(BLOB)
  const oci = `/v2/${path}`
  const uploads = `${oci}/blobs/uploads/`
  const upload = mine.location.replace('/v2/mallory/own/x', oci)
  const range = { range: 'bytes=0-0' }
  return [
    { path: `${oci}/tags/list` },
    { path: `${oci}/tags/list?n=1&last=a` },
    { path: `${oci}/tags/list?n=none` },
    { path: `${oci}/manifests/oci`, ...ociIndex('moved') },
    {
      path: `${oci}/manifests/oci`,
      body: ociManifest('one'),
      headers: { 'content-type': MANIFEST_TYPE },
    },
    { path: `${oci}/manifests/new?tag=more`, body: 'no manifest' },
    { path: `${oci}/manifests/latest`, headers: { 'if-none-match': '*' } },
    { path: `${oci}/manifests/${HASH}`, headers: { 'if-none-match': `"${HASH}"` } },
    { path: `${oci}/manifests/${digest}`, body: ociIndex('other').body },
    { path: `${oci}/manifests/sha256:short` },
    { path: `${oci}/blobs/${blob}` },
    { path: `${oci}/blobs/${blob}`, headers: { 'if-none-match': `"${blob}"` } },
    { path: `${oci}/blobs/${blob}`, headers: range },
    { path: `${oci}/blobs/${digest}`, headers: { range: 'bytes=9999999-' } },
    { path: `${oci}/blobs/sha512:short` },
    { path: uploads },
    { path: `${uploads}?digest=${ociDigest('x')}`, body: 'x' },
    { path: `${uploads}?mount=${blob}&from=mallory/own/x` },
    { path: `${uploads}?mount=${blob}&from=${path}` },
    { path: `/v2/mallory/own/x/blobs/uploads/?mount=${ociDigest(`in ${n.entity}`)}&from=${path}` },
    { path: `/v2/mallory/own/x/blobs/uploads/?mount=${digest}&from=${path}` },
    { path: `/v2/mallory/own/x/blobs/uploads/?mount=${digest}` },
    { path: `${uploads}${mine.uploadID.slice(0, 24)}?t=${mine.uploadID}`, body: 'x' },
    { path: upload, body: 'chunk' },
    { path: `${upload}&digest=${ociDigest('chunk')}`, body: 'chunk' },
    { path: `${oci}/referrers/${HASH}` },
    { path: `${oci}/referrers/${digest}?artifactType=application/x` },
    { path: `/v2/_catalog?n=2&last=0${n.entity}` },
    { path: `/v2/token?service=x&scope=repository:${path}:pull,push,delete` },
    { path: `/v2/token?scope=repository:${path}:pull&scope=repository:mallory/own/x:push` },
    { path: `/v1/images/${path}:oci` },
    { path: `/v1/imagefile/${path}:oci` },
    { path: `/v1/imagefile/${path}:oci`, headers: { 'if-none-match': '*' } },
    { path: `/v2/tags/${n.containerId}`, body: { Arch: 'amd64', Tag: 'oci', ImageID: n.imageId } },
  ]
}

/** Every address and body that can name something; `mine` belongs to whoever asks. */
const libraryNamings = (n: Named, mine: Mine): Call[] => {
  const hash = `sha256.${n.digest}`
  const path = `${n.entity}/${n.collection}/${n.container}`
  const part = { uploadID: mine.uploadID, partNumber: 1, partSize: 9, sha256sum: n.digest }
  const whole = { filesize: 9, sha256sum: n.digest }
  const done = { uploadID: mine.uploadID, completedParts: [{ partNumber: 1, token: '"x"' }] }
  return [
    { path: `/v1/entities/${n.entity}` },
    { path: `/v1/collections/${n.entity}/${n.collection}` },
    { path: `/v1/containers/${path}` },
    { path: `/v1/images/${path}` },
    { path: `/v1/images/${path}:latest?arch=amd64` },
    { path: `/v1/images/${path}:${hash}` },
    { path: `/v1/imagefile/${path}:latest?arch=amd64` },
    { path: `/v1/imagefile/${path}:latest`, headers: { 'if-none-match': `"${hash}"` } },
    { path: `/v1/imagefile/${path}:${hash}`, headers: { 'if-none-match': '*' } },
    { path: `/v1/imagefile/${path}:${hash}`, headers: { range: 'bytes=0-9' } },
    { path: `/v1/imagefile/${n.imageId}`, body: 'no image' },
    { path: `/v1/tags/${n.containerId}`, body: { Tag: 'x', ImageID: n.imageId } },
    { path: `/v2/tags/${n.containerId}`, body: { Arch: 'amd64', Tag: 'x', ImageID: n.imageId } },
    { path: `/v2/tags/${mine.containerId}`, body: { Arch: '', Tag: 'x', ImageID: n.imageId } },
    { path: '/v1/entities', body: { name: n.entity } },
    { path: '/v1/collections', body: { name: 'x', entity: n.entityId } },
    { path: '/v1/collections', body: { name: n.collection, entity: n.entityId } },
    { path: '/v1/containers', body: { name: 'x', collection: n.collectionId } },
    { path: '/v1/containers', body: { name: n.container, collection: n.collectionId } },
    { path: '/v1/images', body: { hash, container: n.containerId } },
    { path: `/v2/imagefile/${n.imageId}`, body: whole },
    { path: `/v2/imagefile/${n.imageId}/_complete`, body: {} },
    { path: `/v2/imagefile/${n.imageId}/_multipart`, body: { ...part, ...whole } },
    { path: `/v2/imagefile/${n.imageId}/_multipart_complete`, body: done },
    { path: `/v2/imagefile/${n.imageId}/_multipart_abort`, body: { uploadID: mine.uploadID } },
    { path: `/v1/search?value=${n.entity}` },
    { path: `/v1/search?value=${n.container}` },
    { path: `/v1/search?value=${n.collection}%20${n.container}&arch=amd64` },
    { path: `/v1/usage?entity=${n.entity}` },
    { path: `/v1/stats?ref=${path}` },
    { path: `/v1/stars?ref=${path}`, body: { ref: path } },
    { path: `/v1/shares?ref=${path}`, body: { ref: `${path}:latest` } },
    { path: `/pks/lookup?op=get&search=${n.entity}` },
    { path: `/library/${path}` },
  ]
}

/** Everything an asker can tell two answers apart by, with the asked-for names taken out. */
function shape(answer: Answer, names: Record<string, string>): string {
  const headers = [...answer.headers]
    .filter(([header]) => !['date', 'x-request-id', 'ratelimit'].includes(header))
    .map(([header, value]) => `${header}: ${value}`)
  const said = answer.text.replaceAll(/eyJ[\w-]+\.([\w-]+)\.[\w-]+/g, (_, payload: string) => {
    const claims = JSON.parse(Buffer.from(payload, 'base64url').toString()) as object
    const passing = ['iat', 'nbf', 'exp', 'jti']
    return `<token ${JSON.stringify(claims, (key, value: unknown) => (passing.includes(key) ? undefined : value))}>`
  })
  const text = [answer.status, ...headers, said].join('\n')
  return Object.entries(names)
    .reduce((out, [key, value]) => out.replaceAll(value, `<${key}>`), text)
    .replaceAll(/uploads\/[0-9a-f]{24}\?t=\S+|(?<=docker-upload-uuid: )[0-9a-f]{24}/g, '<upload>')
    .replaceAll(/"issued_at":"[^"]*"/g, '"issued_at":"<time>"')
}

/** As `shape`, for what is made anew: any id, hash and time looks like any other. */
const anonymous = (answer: Answer): string =>
  shape(answer, {})
    .replaceAll(/\b[0-9a-f]{64}\b/g, '<digest>')
    .replaceAll(/\b[0-9a-f]{24}\b/g, '<id>')
    .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, '<time>')

/** Answers of both, and what they cost the database where that can be counted. */
async function compare(
  target: AccessTarget,
  asks: (() => Promise<string>)[],
  tries = 10,
): Promise<string[]> {
  const results: string[] = []
  for (const ask of asks) {
    target.trips?.()
    const answer = await ask()
    const trips = target.trips?.().map(({ kind, statements }) => `${kind} ${statements}`) ?? []
    results.push(`${answer}\ntrips: ${trips.join(', ')}`)
  }
  // the server's own rounds (sweep, ended ids) make trips too, several in a row: a true difference stays
  return new Set(results).size === 1 || tries === 1 ? results : compare(target, asks, tries - 1)
}

function describePrivacy(makeTarget: () => Promise<AccessTarget>): void {
  describe('private is absent (R26, R27, R28)', () => {
    let target: AccessTarget
    let alice: LibraryClient
    let carol: LibraryClient
    let callers: Record<'anonymous' | 'stranger', LibraryClient>
    let mine: Mine
    let compared = 0
    let things: Record<string, [hidden: Named, absent: Named]>

    beforeAll(async () => {
      target = await makeTarget()
      alice = libraryClient(target.url, (await target.mint('alice')).jwt)
      carol = libraryClient(target.url, (await target.mint('carol')).jwt)
      callers = {
        anonymous: libraryClient(target.url),
        stranger: libraryClient(target.url, (await target.mint('mallory')).jwt),
      }
      await alice.push('alice/open/shown', sampleSif({ content: 'shown' }))
      const push = async (owner: LibraryClient, ref: string, options: object): Promise<Named> => {
        const [, collection = '', container = ''] = ref.split('/')
        const place = await pushPlace(owner, ref, options)
        const at = await repository(place)
        const secret = `in ${place.entity}`
        const blobs = `${at}/blobs/uploads/?digest=${ociDigest(secret)}`
        expect((await owner.call('POST', blobs, secret)).status).toBe(201)
        const { entity, entityId, collectionId, containerId, imageId } = place
        const ids = { entityId, collectionId, containerId, imageId }
        return { entity, collection, container, ...ids, digest: sha256(place.bytes) }
      }
      const inside = await push(carol, 'carol/inner/hiddenx', { privateCollection: true })
      const collection = await push(alice, 'alice/secret/hiddeny', { privateCollection: true })
      const container = await push(alice, 'alice/open/hiddenz', { privateContainer: true })
      const absent = { containerId: anyId(), imageId: anyId(), digest: anyDigest() }
      const below = { ...absent, container: 'nowhere', collectionId: anyId() }
      things = {
        'an entity with nothing public': [
          inside,
          { ...below, entity: 'nobod', collection: 'outer', entityId: anyId() },
        ],
        'a collection': [collection, { ...collection, ...below, collection: 'absent' }],
        'a container': [container, { ...container, ...absent, container: 'nowhere' }],
        'an image of a private container by another hash': [
          container,
          { ...container, imageId: anyId(), digest: anyDigest() },
        ],
      }
      const own = await callers.stranger.push('mallory/own/x', sampleSif({ content: 'own' }))
      const parts = await ok(
        callers.stranger.call('POST', `/v2/imagefile/${own.image}/_multipart`, { filesize: 9 }),
      )
      const opened = await callers.stranger.call('POST', '/v2/mallory/own/x/blobs/uploads/')
      const location = opened.headers.get('location') ?? ''
      expect(location).toMatch(/^\/v2\/mallory\/own\/x\//)
      mine = { containerId: own.container, uploadID: parts.uploadID, location }
      await wait(ENDED_MS)
    })
    afterAll(async () => {
      console.log(`private is absent: ${compared} pairs of answers compared`)
      await target.stop()
    })

    const THINGS = [
      'an entity with nothing public',
      'a collection',
      'a container',
      'an image of a private container by another hash',
    ]
    const WAYS = THINGS.flatMap((thing) => [
      [thing, 'by the library', libraryNamings] as const,
      [thing, 'by OCI', ociNamings] as const,
    ])
    test.each(WAYS)(
      '%s %s: same status, body, headers and cost for every method',
      async (thing, _, namings) => {
        const pair = things[thing]
        if (pair === undefined) throw new Error(`no ${thing}`)
        const differ: string[] = []
        for (const [caller, client] of Object.entries(callers))
          for (const method of METHODS)
            for (let index = 0; index < namings(pair[0], mine).length; index++) {
              const asks = pair.map((names) => async () => {
                const call = namings(names, mine)[index]
                if (call === undefined) throw new Error('both are named alike')
                const bodied = method === 'POST' || method === 'PUT' || method === 'PATCH'
                const body = bodied ? call.body : undefined
                return shape(await client.call(method, call.path, body, call.headers), names)
              })
              const [hidden = '', absent = ''] = await compare(target, asks)
              compared++
              const path = namings(pair[0], mine)[index]?.path
              if (hidden !== absent)
                differ.push(`${caller} ${method} ${path}\n${hidden}\n-- absent:\n${absent}`)
            }
        expect(differ.join('\n\n')).toBe('')
      },
    )

    test('the comparison is not blind: the owner is told them apart, by sight and by cost', async () => {
      const [hidden, absent] = things['a container'] ?? []
      if (hidden === undefined || absent === undefined) throw new Error('no container')
      const answers = await compare(
        target,
        [hidden, absent].map((names) => async () => {
          const path = `/v1/containers/${names.entity}/${names.collection}/${names.container}`
          return shape(await alice.call('GET', path), names)
        }),
      )
      expect(answers[0]).toMatch(/^200/)
      expect(answers[1]).toMatch(/^404/)
      if (target.trips !== undefined) expect(answers[1]).toMatch(/trips: read \d$/)
    })

    test('nor by OCI: of every kind of thing the owner is told what hides from others', async () => {
      for (const thing of ['a collection', 'a container']) {
        const [hidden, absent] = things[thing] ?? []
        if (hidden === undefined || absent === undefined) throw new Error(`no ${thing}`)
        const statuses = async (client: LibraryClient & { own: string }, n: Named) => {
          const path = `${n.entity}/${n.collection}/${n.container}`
          const mount = `mount=${ociDigest(`in ${n.entity}`)}&from=${path}`
          const answers = [
            await client.call('GET', `/v2/${path}/tags/list`),
            await client.call('GET', `/v2/${path}/manifests/oci`),
            await client.call('HEAD', `/v2/${path}/manifests/${HASH}`),
            await client.call('HEAD', `/v2/${path}/blobs/${ociDigest(BLOB)}`),
            await client.call('GET', `/v2/${path}/referrers/${HASH}`),
            await client.call('POST', `/v2/${client.own}/mounted/blobs/uploads/?${mount}`),
          ]
          return answers.map(({ status }) => status).join(' ')
        }
        const own = { ...alice, own: 'alice/secret' }
        const stranger = { ...callers.stranger, own: 'mallory/own' }
        expect(await statuses(own, hidden)).toBe('200 200 200 200 200 201')
        expect(await statuses(own, absent)).toBe('404 404 404 404 200 202')
        for (const names of [hidden, absent])
          expect(await statuses(stranger, names)).toBe('404 404 404 404 200 202')
      }
    })

    test('lists, sums and times of public parents do not move with private pushes (R27)', async () => {
      const look = async () => {
        const looks: string[] = []
        for (const client of Object.values(callers))
          for (const path of [
            '/v1/entities',
            '/v1/entities/alice',
            '/v1/entities/carol',
            '/v1/collections/alice/open',
            '/v1/containers/alice/open/shown',
            '/v1/images/alice/open/shown:latest',
            '/v1/search?value=alice',
            '/v1/search?value=hidden',
            '/v1/search?value=unseen',
          ])
            looks.push(`${path} ${shape(await client.call('GET', path), {})}`)
        return looks
      }
      const before = await look()
      expect(before.filter((answer) => answer.includes('"size":0')).length).toBeLessThan(
        before.length,
      )
      await alice.push('alice/open/hiddenz', sampleSif({ content: 'unseen one' }))
      await alice.push('alice/open/unseen', sampleSif({ content: 'unseen two' }), {
        privateContainer: true,
      })
      await alice.push('alice/secret/unseen', sampleSif({ content: 'shown' }), { tags: ['unseen'] })
      await alice.push('alice/unseen/x', sampleSif({ content: 'unseen three' }), {
        privateCollection: true,
      })
      await carol.push('carol/inner/unseen', sampleSif({ content: 'unseen four' }))
      expect(await look()).toEqual(before)
      await ok(alice.call('DELETE', '/v1/images/alice/open/hiddenz:latest?arch=amd64'))
      await target.setPrivate('alice/secret/unseen', true)
      await target.setPrivate('alice/secret/unseen', false)
      await alice.call('GET', '/v1/imagefile/alice/open/unseen:latest')
      expect(await look()).toEqual(before)
      const own = await ok(alice.call('GET', '/v1/entities/alice'))
      const others = await ok(callers.stranger.call('GET', '/v1/entities/alice'))
      expect(own.size).toBeGreaterThan(others.size)
      expect(own.collections.length).toBe(3)
      expect(others.collections.length).toBe(1)
    })

    test('a hash held privately by somebody else is like one never seen (R29)', async () => {
      const { stranger } = callers
      const { containerId: container } = mine
      const held = await carol.push('carol/inner/held', sampleSif({ content: 'held' }))
      const create = (digest: string) =>
        stranger.call('POST', '/v1/images', { hash: `sha256.${digest}`, container })
      const pair = await compare(
        target,
        [held.digest, anyDigest()].map((digest) => async () => anonymous(await create(digest))),
        1,
      )
      expect(pair[0]).toBe(pair[1])
      expect(pair[0]).toContain('"uploaded":false')
      const again = (await create(held.digest)).json.data
      const entity = await ok(stranger.call('GET', '/v1/entities/mallory'))
      expect(again.createdBy).toBe(entity.owner)
      // and it costs its holder the whole upload, received and attached like any other
      const pushed = await stranger.push('mallory/own/x', sampleSif({ content: 'held' }))
      expect(pushed).toMatchObject({ digest: held.digest, uploaded: true })
      // once somebody shows it, the upload is saved
      await alice.push('alice/open/held', sampleSif({ content: 'held' }))
      const bob = libraryClient(target.url, (await target.mint('bob')).jwt)
      expect((await bob.push('bob/own/x', sampleSif({ content: 'held' }))).uploaded).toBe(false)
    })

    test('an entity of somebody else is refused alike whether it exists or not', async () => {
      const { stranger } = callers
      for (const other of ['alice', 'carol', 'boblo']) {
        const answers = await compare(
          target,
          [other, 'nobod'].map((name) => async () => {
            const answer = await stranger.call('POST', '/v1/entities', { name })
            return shape(answer, { name })
          }),
        )
        expect(answers[0]).toBe(answers[1])
        expect(answers[0]).toMatch(/^403/)
        expect(answers[0]).toContain('entity <name>')
      }
    })

    test('pushing to an entity that is not yours is 403 with a sentence, whatever is below (R26)', async () => {
      const { stranger } = callers
      const bytes = sampleSif({ content: 'shown' })
      for (const ref of [
        'alice/open/shown',
        'alice/open/hiddenz',
        'alice/open/nothing',
        'alice/secret/hiddeny',
        'alice/nothing/x',
        'carol/inner/hiddenx',
        'carol/nothing/x',
        'nobody/nothing/x',
      ])
        await expect(stranger.push(ref, bytes), ref).rejects.toThrow(
          /: 403 .*You may not .* belongs to somebody else/,
        )
      const [hidden, absent] = things['a container'] ?? []
      if (hidden === undefined || absent === undefined) throw new Error('no container')
      const shown = await ok(stranger.call('GET', '/v1/containers/alice/open/shown'))
      const children = (name: string, digest: string, image: string): [string, object][] => [
        ['/v1/collections', { name, entity: hidden.entityId }],
        ['/v1/containers', { name, collection: hidden.collectionId }],
        ['/v1/images', { hash: `sha256.${digest}`, container: shown.id }],
        [`/v2/tags/${shown.id}`, { Arch: 'amd64', Tag: name, ImageID: image }],
      ]
      const existing = [
        ...children('open', sha256(bytes), shown.images[0]),
        ...children('secret', hidden.digest, hidden.imageId),
        ...children('hiddenz', hidden.digest, hidden.imageId),
      ]
      for (const [index, [path, body]] of existing.entries()) {
        const absentBody = children('neverwas', anyDigest(), anyId())[index % 4]?.[1]
        const answers = await compare(
          target,
          [body, absentBody].map(
            (sent) => async () => shape(await stranger.call('POST', path, sent), {}),
          ),
        )
        expect(answers[0]).toBe(answers[1])
        expect(answers[0]).toMatch(/^403/)
      }
    })
  })
}

function describeEndings(makeTarget: () => Promise<AccessTarget>): void {
  describe('rights end when they are taken away (R25)', () => {
    let target: AccessTarget
    let alice: LibraryClient
    let anybody: LibraryClient

    beforeAll(async () => {
      target = await makeTarget()
      alice = libraryClient(target.url, (await target.mint('alice')).jwt)
      anybody = libraryClient(target.url)
    })
    afterAll(() => target.stop())

    /** The URL a pull of a large image is sent to. */
    const ticketOf = async (client: LibraryClient, ref: string): Promise<string> => {
      const redirect = await client.call('GET', `/v1/imagefile/${ref}:latest`)
      expect(redirect.status).toBe(303)
      return redirect.headers.get('location') ?? ''
    }
    const range = async (url: string): Promise<number> =>
      (await anybody.call('GET', url, undefined, { range: 'bytes=0-9' })).status

    test('a revoked token is refused by the very next request, whatever it asks', async () => {
      const place = await pushPlace(alice, 'alice/now/box', { privateContainer: true })
      const paths = ROWS.flatMap(({ route, method, cells }) => {
        // rows that refuse revoked tokens, but for the one that asks no database (below)
        const asks = cells[4] === '1' && route !== 'PUT /v2/imagefile/:id/_multipart'
        return asks ? [{ route, method, call: CALLS[route] }] : []
      })
      expect(paths.length).toBeGreaterThan(20)
      for (const { route, method, call } of paths) {
        const { path, body, headers }: Call = (await call?.(place, alice)) ?? {
          path: route.split(' ')[1] ?? '',
        }
        const { jwt, id } = await target.mint('alice')
        const client = libraryClient(target.url, jwt)
        expect((await client.call('GET', '/v1/containers/alice/now/box')).status).toBe(200)
        await target.revoke(id)
        const { status, json } = await client.call(method, path, body, headers)
        expect(`${route} ${status}`).toBe(`${route} 401`)
        if (method !== 'HEAD') expect(sentenceOf(json)).toMatch(/revoked/)
      }
    })

    test(
      'tickets end with their token, their image, or its being public',
      { timeout: 30_000 },
      async () => {
        const minted = await target.mint('alice')
        const leaving = libraryClient(target.url, minted.jwt)
        const bytes = largeSif('tickets')
        for (const collection of ['kept', 'flipped', 'deleted'])
          await alice.push(`alice/${collection}/large`, bytes)
        const mallory = libraryClient(target.url, (await target.mint('mallory')).jwt)
        const place = await pushPlace(leaving, 'alice/kept/box')
        const part = await opened(place, 'parts', false)
        const whole = await opened(place, 'single', false)
        const asPart = {
          uploadID: part.uploadID,
          partNumber: 1,
          partSize: part.bytes.length,
          sha256sum: sha256(part.bytes),
        }
        const kept = [
          await ticketOf(alice, 'alice/kept/large'),
          await ticketOf(anybody, 'alice/kept/large'),
        ]
        const ending = [
          await ticketOf(leaving, 'alice/kept/large'),
          await ticketOf(mallory, 'alice/flipped/large'),
          await ticketOf(anybody, 'alice/flipped/large'),
          await ticketOf(mallory, 'alice/deleted/large'),
          await ticketOf(anybody, 'alice/deleted/large'),
        ]
        for (const url of [...kept, ...ending]) expect(await range(url)).toBe(206)

        await target.revoke(minted.id)
        await target.setPrivate('alice/flipped', true)
        await ok(alice.call('DELETE', '/v1/images/alice/deleted/large:latest?arch=amd64'))
        await wait(ENDED_MS)

        for (const url of ending) {
          const { status, json } = await anybody.call('GET', url)
          expect(status).toBe(403)
          expect(json.error.message).toMatch(/start again/)
          // R5: a refused range must not end like one
          await expect(range(url)).rejects.toThrow()
        }
        expect((await anybody.call('PUT', part.url, part.bytes)).status).toBe(403)
        expect((await anybody.call('PUT', whole.url, whole.bytes)).status).toBe(403)
        expect((await leaving.call('PUT', `${part.base}/_multipart`, asPart)).status).toBe(401)
        expect((await alice.call('PUT', `${part.base}/_multipart`, asPart)).status).toBe(404)
        for (const url of kept) expect(await range(url)).toBe(206)

        // who may still read it gets a ticket that works; so does everybody once it is shown again
        expect(await range(await ticketOf(alice, 'alice/flipped/large'))).toBe(206)
        expect((await mallory.call('GET', '/v1/imagefile/alice/flipped/large:latest')).status).toBe(
          404,
        )
        await target.setPrivate('alice/flipped', false)
        await wait(ENDED_MS)
        expect(await range(await ticketOf(anybody, 'alice/flipped/large'))).toBe(206)
      },
    )

    test('a revoked token stays out for as long as its uploads could run', async ({ skip }) => {
      const { execute } = target
      if (execute === undefined) return skip('no way to age a row here')
      const minted = await target.mint('alice')
      const leaving = libraryClient(target.url, minted.jwt)
      const place = await pushPlace(leaving, 'alice/aged/box')
      const part = await opened(place, 'parts', false)
      const { base, uploadID, bytes } = part
      const body = { uploadID, partNumber: 1, partSize: bytes.length, sha256sum: sha256(bytes) }
      expect((await leaving.call('PUT', `${base}/_multipart`, body)).status).toBe(200)
      await target.revoke(minted.id)
      // an uploadID is good for one to six days (R23)
      execute('update ended set at = at - ? where id = ?', 5.5 * 24 * 3_600_000, minted.id)
      await wait(ENDED_MS)
      expect((await anybody.call('PUT', part.url, bytes)).status).toBe(403)
      expect((await leaving.call('PUT', `${base}/_multipart`, body)).status).toBe(401)
    })

    test('a disabled user is refused at once, and comes back when enabled', async ({ skip }) => {
      const { execute } = target
      if (execute === undefined) return skip('no way to disable a user here')
      const bob = libraryClient(target.url, (await target.mint('bob')).jwt)
      const statuses = async () => [
        (await bob.call('GET', '/v1/entities/bob')).status,
        (await bob.call('GET', '/v1/token-status')).status,
        (await bob.call('POST', '/v1/entities', { name: 'bob' })).status,
        (await bob.call('GET', '/')).status,
      ]
      expect(await statuses()).toEqual([200, 200, 200, 200])
      execute('update users set disabled = 1 where name = ?', 'bob')
      expect(await statuses()).toEqual([401, 404, 401, 401])
      execute('update users set disabled = 0 where name = ?', 'bob')
      expect(await statuses()).toEqual([200, 200, 200, 200])
    })
  })
}

/** What the owner's tokens of one scope get on things of their own; the word is what is missing. */
const SCOPED = `
                                           pull push delete keys  needs
POST /v1/entities                          403  200  403    403   push
POST /v1/collections                       403  200  403    403   push
POST /v1/containers                        403  200  403    403   push
POST /v1/images                            403  200  403    403   push
DELETE /v1/images/*                        403  403  200    403   delete
POST /v1/tags/:id                          403  200  403    403   push
POST /v2/tags/:id                          403  200  403    403   push
GET /v1/images/*                           200  200  200    200   -
GET /v1/imagefile/*                        200  403  403    403   pull
POST /v1/imagefile/*                       403  200  403    403   push
POST /v2/imagefile/:id                     403  200  403    403   push
PUT /v2/imagefile/:id/_complete            403  200  403    403   push
POST /v2/imagefile/:id/_multipart          403  200  403    403   push
PUT /v2/imagefile/:id/_multipart           403  200  403    403   push
PUT /v2/imagefile/:id/_multipart_complete  403  200  403    403   push
PUT /v2/imagefile/:id/_multipart_abort     403  200  403    403   push
POST /v1/users                             403  403  403    403   admin
POST /v1/tokens                            403  403  403    403   admin
PATCH /v1/users/:name                      403  403  403    403   admin
DELETE /v1/users/:name                     403  403  403    403   admin
POST /v1/robots                            403  403  403    403   admin
DELETE /v1/robots/:name                    403  403  403    403   admin
POST /v1/transfers                         403  403  403    403   admin
PUT /v1/privacy                            403  403  403    403   admin
PUT /v1/grants                             403  403  403    403   admin
PUT /v1/frozen                             403  403  403    403   admin
POST /v1/teams                             403  403  403    403   admin
PATCH /v1/teams/:name                      403  403  403    403   admin
DELETE /v1/teams/:name                     403  403  403    403   admin
PUT /v1/teams/:name/members/:user          403  403  403    403   admin
DELETE /v1/teams/:name/members/:user       403  403  403    403   admin
POST /v1/teams/:name/invitations           403  403  403    403   admin
DELETE /v1/teams/:name/invitations/:id     403  403  403    403   admin
DELETE /v1/collections/*                   403  403  200    403   delete
DELETE /v1/containers/*                    403  403  200    403   delete
PUT /v1/policy                             403  403  403    200   keys
PUT /v1/quota                              403  403  403    403   admin
POST /v1/shares                            403  403  403    403   pu(sh|ll)
POST /v1/exports                           403  403  403    403   admin
POST /v1/imports                           403  403  403    403   admin
POST /v1/imports/:id                       403  403  403    403   admin
DELETE /v1/keys/:fingerprint               403  403  403    200   keys
POST /v1/keys/:fingerprint/challenge       403  403  403    200   keys
POST /v1/keys/:fingerprint/claim           403  403  403    200   keys
POST /pks/add                              403  403  403    200   keys
DELETE /v1/imports/:id                     403  403  403    403   admin
POST /v1/imports/:id/rows                  403  403  403    403   admin
POST /v1/imports/:id/blobs/:digest         403  403  403    403   admin
PUT /v1/imports/:id/blobs/:digest          403  403  403    403   admin
PUT /v1/imports/:id/blobs/:digest/parts/:part 403  403  403    403   admin
POST /v1/imports/:id/blobs/:digest/parts   403  403  403    403   admin
POST /v2/:name{.+}/blobs/uploads           403  202  403    403   push
POST /v2/:name{.+}/blobs/uploads#whole     403  201  403    403   push
POST /v2/:name{.+}/blobs/uploads#readable  403  202  403    403   push
POST /v2/:name{.+}/blobs/uploads#anywhere  403  202  403    403   push
POST /v2/:name{.+}/blobs/uploads#private   403  202  403    403   push
POST /v2/:name{.+}/blobs/uploads#absent    403  202  403    403   push
PATCH /v2/:name{.+}/blobs/uploads/:id      403  202  403    403   push
PUT /v2/:name{.+}/blobs/uploads/:id        403  201  403    403   push
DELETE /v2/:name{.+}/blobs/uploads/:id     403  204  403    403   push
DELETE /v2/:name{.+}/blobs/:digest         403  403  202    403   delete
PUT /v2/:name{.+}/manifests/:reference     403  201  403    403   push
PUT /v2/:name{.+}/manifests/:reference#hash 403 201  403    403   push
PUT /v2/:name{.+}/manifests/:reference#move 403 201  403    403   push
DELETE /v2/:name{.+}/manifests/:reference  403  403  202    403   delete
DELETE /v2/:name{.+}/manifests/:reference#hash 403 403 202  403   delete
`
const SINGLE: Scope[] = ['pull', 'push', 'delete', 'keys']
const SCOPED_ROWS = SCOPED.split('\n').flatMap((line) => {
  const [, route, cells, needs] = /^(\S+ \S+) +([\d ]+?) +(\S+)$/.exec(line) ?? []
  if (route === undefined || cells === undefined || needs === undefined) return []
  return [{ route, method: route.split(' ')[0] ?? '', expected: cells.split(/ +/), needs }]
})

function describeScopes(makeTarget: () => Promise<AccessTarget>): void {
  describe('scopes (R14)', () => {
    let target: AccessTarget
    let alice: LibraryClient
    let shared: Place
    let ofScope: Record<string, LibraryClient>

    beforeAll(async () => {
      target = await makeTarget()
      alice = libraryClient(target.url, (await target.mint('alice')).jwt)
      await makeSources(target)
      shared = await privatePlace()
      ofScope = {}
      for (const scope of SINGLE)
        ofScope[scope] = libraryClient(
          target.url,
          (await target.mint('alice', { scopes: [scope] })).jwt,
        )
    })
    afterAll(() => target.stop())

    const privatePlace = async () => ({
      ...(await pushPlace(alice, `alice/${unique('s')}/box`, { privateCollection: true })),
      key: await claimedKey(alice),
    })
    /** One place for all, but for the route that takes it away. */
    const placeFor = (method: string) => (method === 'DELETE' ? privatePlace() : shared)

    test('every route that writes is in the table', () => {
      // a row of nothing but 3 asks for no token
      const writes = ROWS.filter(
        ({ method, cells }) => method !== 'GET' && cells[6] === '3' && cells[0] === '1',
      )
      const listed = SCOPED_ROWS.map(({ route }) => route)
      expect(listed).toEqual(expect.arrayContaining(writes.map(({ route }) => route)))
      expect(writes.length).toBeGreaterThan(10)
    })

    test.each(SCOPED_ROWS)('$route', async ({ route, method, expected, needs }) => {
      for (const [index, scope] of SINGLE.entries()) {
        const call = await CALLS[route]?.(await placeFor(method), alice)
        const { path, body, headers } = call ?? { path: '' }
        const answer = await ofScope[scope]?.call(method, path, body, headers)
        const { status, json } = answer ?? {}
        expect(`${scope} ${status}`).toBe(`${scope} ${expected[index]}`)
        if (status === 403) expect(sentenceOf(json)).toMatch(new RegExp(`scope "?${needs}\\b`))
      }
    })

    /** A token of this registry whose JWT says more, or less, than its row. */
    async function forged(user: string, row: Scope[], jwt: Scope[], admin = false) {
      const key = await target.signingKey?.()
      if (key === undefined) return null
      const minted = await target.mint(user, { scopes: row, admin })
      const payload = minted.jwt.split('.')[1] ?? ''
      const { iss, sub } = JSON.parse(Buffer.from(payload, 'base64url').toString())
      const issuer = tokenIssuer({ registryId: iss.replace('urn:sreg:', ''), signingKey: key })
      const made = await issuer.issue({
        tokenId: minted.id,
        userId: sub,
        scopes: jwt,
        issuedAt: new Date(),
        expiresAt: new Date(Date.now() + 3_600_000),
      })
      return { id: minted.id, client: libraryClient(target.url, made) }
    }

    test('what only the JWT claims does not count', async ({ skip }) => {
      const wide = await forged('alice', ['keys'], ALL)
      const narrow = await forged('alice', ['pull'], ALL)
      if (wide === null || narrow === null) return skip('the signing key is out of reach here')
      // the control: the same JWT works where its row agrees
      const whole = await forged('alice', [...SINGLE], [...SINGLE])
      for (const { route, method, needs } of SCOPED_ROWS) {
        // signs a part's URL from the uploadID alone; without complete it comes to nothing
        if (needs === '-' || route === 'PUT /v2/imagefile/:id/_multipart') continue
        const call = await CALLS[route]?.(await placeFor(method), alice)
        const { path, body, headers } = call ?? { path: '' }
        const { client } = needs === 'keys' ? narrow : wide
        const { status, json } = await client.call(method, path, body, headers)
        expect(`${route} ${status}`).toBe(`${route} 403`)
        expect(sentenceOf(json)).toMatch(new RegExp(`scope "${needs}"`))
        // alice is no administrator, whatever her token says
        const control = needs === 'admin' ? '3' : '2'
        const { status: found = 0 } = (await whole?.client.call(method, path, body, headers)) ?? {}
        expect(CODES[found]).toBe(control)
      }
    })

    test('admin power needs role, row and JWT', async ({ skip }) => {
      const place = await privatePlace()
      const path = `/v1/containers/${place.names}`
      const word = place.names.split('/')[1]
      const wide = await forged('mallory', ['pull'], ALL)
      if (wide === null) return skip('the signing key is out of reach here')
      const cases: [string, Awaited<ReturnType<typeof forged>>][] = [
        ['role user, JWT admin', wide],
        ['role admin, JWT admin, row without', await forged('boss', [...SINGLE], ALL, true)],
        ['role admin, row admin, JWT without', await forged('boss', ALL, [...SINGLE], true)],
      ]
      if (target.execute !== undefined) {
        const both = await forged('mallory', ['pull'], ALL)
        target.execute('update tokens set scopes = ? where id = ?', ALL.join(' '), both?.id)
        cases.push(['role user, row and JWT admin', both])
      }
      const powers = async (client: LibraryClient | undefined) => [
        (await client?.call('GET', path))?.status,
        (await client?.call('GET', `/v1/tags/${place.containerId}`))?.status,
        (await client?.call('POST', '/v1/entities', { name: unique('made') }))?.status,
        (await client?.call('GET', '/v1/users'))?.status,
        (await client?.call('POST', '/v1/users', { name: unique('user') }))?.status,
        (await client?.call('GET', `/v1/search?value=alice%20${word}`))?.json.data.image.length,
        (
          await client?.call('POST', '/v1/containers', {
            name: 'x',
            collection: place.collectionId,
          })
        )?.status,
      ]
      for (const [what, token] of cases)
        expect([what, ...(await powers(token?.client))]).toEqual([
          what,
          404,
          404,
          403,
          403,
          403,
          0,
          404,
        ])
      const admin = await forged('boss', ALL, ALL, true)
      expect(await powers(admin?.client)).toEqual([200, 200, 200, 200, 200, 1, 200])
    })

    test('a JWT without its row is nobody', async ({ skip }) => {
      const { execute } = target
      if (execute === undefined) return skip('no way to lose a row here')
      const { jwt, id } = await target.mint('alice')
      const client = libraryClient(target.url, jwt)
      expect((await client.call('GET', '/v1/entities')).status).toBe(200)
      execute('delete from tokens where id = ?', id)
      const place = await pushPlace(alice, 'alice/rowless/box')
      for (const { route, method, cells } of ROWS) {
        if (cells[4] !== '1' || route === 'PUT /v2/imagefile/:id/_multipart') continue
        const { path, body, headers }: Call = (await CALLS[route]?.(place, alice)) ?? {
          path: route.split(' ')[1] ?? '',
        }
        const { status } = await client.call(method, path, body, headers)
        expect(`${route} ${status}`).toBe(`${route} 401`)
      }
    })
  })
}

export { CALLS }
