/**
 * R24: a token that ends in the middle of a push of its own ends neither the upload nor its tag; by a
 * clock of our own, through the whole app. And the longest life of tokens, which takes days.
 */
import { generateKeyPairSync } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { memoryBlobs } from '../../adapters/blobs/memory.ts'
import { openDatabase, type OpenDatabase } from '../../adapters/databases/better-sqlite3.ts'
import { memoryLimiter } from '../../adapters/limits/memory.ts'
import { migrations } from '../../adapters/node/main.ts'
import { randomIds } from '../../adapters/system.ts'
import { createAdmin, tokenIssuer, tokenVerifier } from '../../src/admin.ts'
import { createApp, webTransfer, type App } from '../../src/app.ts'
import { parseConfig } from '../../src/config.ts'
import type { Scope } from '../../src/core/model.ts'
import { sampleSif } from '../fixtures/sif.ts'
import { sha256 } from '../protocol/client.ts'

const MINUTE = 60_000
const DAY = 1440 * MINUTE
let opened: OpenDatabase
let app: App
let time: number
let mint: (minutes: number, scopes?: Scope[]) => Promise<{ jwt: string; id: string }>
let revoke: (id: string) => Promise<void>

const clock = { now: () => new Date(time) }
const later = (minutes: number) => (time += minutes * MINUTE)

beforeEach(async () => {
  time = Date.UTC(2030, 0, 1)
  const registryId = randomIds.next()
  const { x, d } = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' })
  const key = { kty: 'OKP', crv: 'Ed25519', x, kid: 'test' }
  const issuer = tokenIssuer({ registryId, signingKey: { ...key, d } })
  opened = await openDatabase(':memory:', { mode: 'server', migrations: migrations() })
  const { database } = opened
  const blobs = memoryBlobs()
  await blobs.writeId(registryId)
  app = createApp({
    config: parseConfig({ SREG_MIN_FREE: '0', SREG_TOKEN_MAX_AGE: '2' }),
    version: '0.0.0-test',
    registryId,
    secret: 'a secret of more than thirty-two characters',
    database,
    blobs,
    verifier: tokenVerifier({ registryId, keys: [key], clock }),
    keys: [key],
    issuer,
    transfer: webTransfer,
    limiter: memoryLimiter({ clock }),
    ended: { has: () => false },
    clock,
    ids: randomIds,
    log: { event: () => {} },
  })
  const admin = createAdmin({ database, ids: randomIds, clock, issuer })
  await admin.addUser('alice', { admin: false })
  mint = (minutes, scopes = ['pull', 'push']) =>
    admin.createToken({
      user: 'alice',
      name: 'test',
      expires: new Date(time + minutes * MINUTE),
      scopes,
    })
  revoke = (id) => admin.revokeToken(id)
})
afterEach(() => opened.close())

type Body = object | Uint8Array<ArrayBuffer>
async function call(jwt: string | null, method: string, path: string, body?: Body) {
  const bytes =
    body === undefined || body instanceof Uint8Array
      ? body
      : new TextEncoder().encode(JSON.stringify(body))
  const request = new Request(new URL(path, 'http://localhost'), {
    method,
    headers: {
      ...(jwt === null ? {} : { authorization: `Bearer ${jwt}` }),
      ...(bytes === undefined ? {} : { 'content-length': String(bytes.length) }),
    },
    ...(bytes === undefined ? {} : { body: bytes }),
  })
  const peer = { address: '127.0.0.1', encrypted: false }
  const response = await app.fetch(request, { peer })
  const { data } = ((await response.json().catch(() => ({}))) ?? {}) as { data?: any }
  return { status: response.status, data }
}

/** Records of an image of alice, and the upload of its bytes in parts, which are all there. */
async function begin(jwt: string, content: string, container = 'box') {
  const made = async (path: string, body: object) => (await call(jwt, 'POST', path, body)).data.id
  await call(jwt, 'POST', '/v1/entities', { name: 'alice' })
  const entity = (await call(jwt, 'GET', '/v1/entities/alice')).data.id
  const found = await call(jwt, 'GET', '/v1/collections/alice/c')
  const collection =
    found.data?.id ?? (await made('/v1/collections', { name: 'c', entity, private: true }))
  const there = await call(jwt, 'GET', `/v1/containers/alice/c/${container}`)
  const place = there.data?.id ?? (await made('/v1/containers', { name: container, collection }))
  const bytes = Uint8Array.from(sampleSif({ content }))
  const hash = `sha256.${sha256(bytes)}`
  const image = await made('/v1/images', { hash, container: place })
  return { image, place, bytes, base: `/v2/imagefile/${image}` }
}
async function beginParts(jwt: string, content: string) {
  const push = await begin(jwt, content)
  const plan = { filesize: push.bytes.length }
  const { uploadID } = (await call(jwt, 'POST', `${push.base}/_multipart`, plan)).data
  const part = {
    uploadID,
    partNumber: 1,
    partSize: push.bytes.length,
    sha256sum: sha256(push.bytes),
  }
  const openPart = (with_: string) => call(with_, 'PUT', `${push.base}/_multipart`, part)
  async function complete(with_: string, etag: string) {
    const body = { uploadID, completedParts: [{ partNumber: 1, token: etag }] }
    return (await call(with_, 'PUT', `${push.base}/_multipart_complete`, body)).status
  }
  const abort = async (with_: string) =>
    (await call(with_, 'PUT', `${push.base}/_multipart_abort`, { uploadID })).status
  return { ...push, openPart, complete, abort }
}
/** Sends the bytes; what the store calls them. */
async function send(url: string, bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const { pathname, search } = new URL(url)
  const request = new Request(`http://localhost${pathname}${search}`, {
    method: 'PUT',
    headers: { 'content-length': String(bytes.length) },
    body: bytes,
  })
  const answer = await app.fetch(request, { peer: { address: null, encrypted: false } })
  expect(answer.status).toBe(200)
  return answer.headers.get('etag') ?? ''
}
const tag = async (jwt: string, place: string, image: string, name = 'latest', version = 'v2') =>
  (
    await call(jwt, 'POST', `/${version}/tags/${place}`, {
      Tag: name,
      ImageID: image,
      ...(version === 'v2' ? { Arch: 'amd64' } : {}),
    })
  ).status

describe('R24: a token that ends in the middle of a push', () => {
  test('sends its parts, completes, and tags for ten minutes', async () => {
    const { jwt } = await mint(10)
    const push = await beginParts(jwt, 'parts')
    later(60)
    // everything else has ended, the place included
    for (const [method, path] of [
      ['GET', '/v1/entities'],
      ['GET', '/v1/containers/alice/c/box'],
      ['GET', `/v1/tags/${push.place}`],
      ['POST', `${push.base}/_multipart`],
      ['GET', '/v1/tokens'],
    ] as const)
      expect(
        (await call(jwt, method, path, method === 'POST' ? { filesize: 1 } : undefined)).status,
        path,
      ).toBe(401)
    const { status, data } = await push.openPart(jwt)
    expect(status).toBe(200)
    const etag = await send(data.presignedURL, push.bytes)
    expect(await push.complete(jwt, etag)).toBe(200)
    expect(await push.complete(jwt, etag)).toBe(200)
    later(9)
    expect((await call(jwt, 'GET', `/v1/tags/${push.place}`)).status).toBe(200)
    expect((await call(jwt, 'GET', `/v2/tags/${push.place}`)).status).toBe(200)
    expect(await tag(jwt, push.place, push.image)).toBe(200)
    expect(await tag(jwt, push.place, push.image, 'other', 'v1')).toBe(200)
    later(1.1)
    expect(await tag(jwt, push.place, push.image, 'late')).toBe(401)
    expect((await call(jwt, 'GET', `/v1/tags/${push.place}`)).status).toBe(401)
    expect(await push.complete(jwt, etag)).toBe(401)
  })

  test('completes a single upload, and aborts one in parts', async () => {
    const { jwt } = await mint(10)
    const push = await begin(jwt, 'single')
    const plan = { filesize: push.bytes.length, sha256sum: sha256(push.bytes) }
    const { uploadURL } = (await call(jwt, 'POST', push.base, plan)).data
    const parts = await beginParts(jwt, 'aborted')
    later(60)
    await send(uploadURL, push.bytes)
    expect((await call(jwt, 'PUT', `${push.base}/_complete`, {})).status).toBe(200)
    expect(await tag(jwt, push.place, push.image)).toBe(200)
    expect(await parts.abort(jwt)).toBe(200)
    expect(await parts.abort(jwt)).toBe(401)
  })

  test('not past the deadline of its upload', async () => {
    const { jwt } = await mint(10)
    const push = await beginParts(jwt, 'deadline')
    const { data } = await push.openPart(jwt)
    const etag = await send(data.presignedURL, push.bytes)
    later(24 * 60 + 1)
    expect(await push.complete(jwt, etag)).toBe(401)
  })

  test('never when it was revoked, or its user disabled', async () => {
    const token = await mint(10)
    const push = await beginParts(token.jwt, 'revoked')
    const { data } = await push.openPart(token.jwt)
    const etag = await send(data.presignedURL, push.bytes)
    later(60)
    const alice = (await opened.database.users.byName('alice'))?.id ?? ''
    const operator = { operator: 'cli:test', now: clock.now() }
    await opened.database.people.change(alice, { disabled: true }, operator)
    expect(await push.complete(token.jwt, etag)).toBe(401)
    await opened.database.people.change(alice, { disabled: false }, operator)
    await revoke(token.id)
    expect(await push.complete(token.jwt, etag)).toBe(401)
    expect(await tag(token.jwt, push.place, push.image)).toBe(401)
  })

  test('for what it opened itself, for that image, and with its scope', async () => {
    const [first, second] = [await mint(10), await mint(120)]
    const theirs = await beginParts(second.jwt, 'of the second')
    const own = await beginParts(first.jwt, 'of the first')
    const narrow = await mint(10, ['pull'])
    later(60)
    const { data } = await theirs.openPart(second.jwt)
    const etag = await send(data.presignedURL, theirs.bytes)
    expect((await theirs.openPart(first.jwt)).status).toBe(401)
    expect(await theirs.complete(first.jwt, etag)).toBe(401)
    expect(await theirs.abort(first.jwt)).toBe(401)
    expect(await theirs.complete(second.jwt, etag)).toBe(200)

    const { data: part } = await own.openPart(first.jwt)
    expect(await own.complete(first.jwt, await send(part.presignedURL, own.bytes))).toBe(200)
    // the same container, another image
    expect(await tag(first.jwt, own.place, theirs.image)).toBe(401)
    expect(await tag(narrow.jwt, own.place, own.image)).toBe(403)
    expect(await tag(first.jwt, own.place, own.image)).toBe(200)
    const wrong = `${own.place.slice(0, -1)}${own.place.endsWith('0') ? '1' : '0'}`
    expect(await tag(first.jwt, wrong, own.image)).toBe(404)
    expect((await call(first.jwt, 'GET', '/v1/images/alice/c/box:latest')).status).toBe(401)
  })
})

describe('R24 under /v2', () => {
  const at = '/v2/alice/c/box'
  const IMAGE = 'application/vnd.oci.image.manifest.v1+json'
  const config = Uint8Array.from(Buffer.from('{}'))
  const descriptor = (bytes: Uint8Array) => ({
    mediaType: 'application/octet-stream',
    digest: `sha256:${sha256(bytes)}`,
    size: bytes.length,
  })

  async function ask(
    authorization: string | null,
    method: string,
    path: string,
    body?: Uint8Array<ArrayBuffer>,
  ) {
    const request = new Request(new URL(path, 'http://localhost'), {
      method,
      headers: {
        ...(authorization === null ? {} : { authorization }),
        ...(body === undefined ? {} : { 'content-length': String(body.length) }),
        'content-type': IMAGE,
      },
      ...(body === undefined ? {} : { body }),
    })
    const response = await app.fetch(request, { peer: { address: '127.0.0.1', encrypted: false } })
    const text = await response.text()
    const { status, headers } = response
    return { status, location: headers.get('location') ?? '', text, headers }
  }
  const bearer = (jwt: string) => `Bearer ${jwt}`
  const password = (jwt: string) => `Basic ${btoa(`alice:${jwt}`)}`
  async function login(by: string, ...scopes: string[]): Promise<string> {
    const query = scopes.map((scope) => `scope=${scope}`).join('&')
    const { status, text } = await ask(by, 'GET', `/v2/token?${query}`)
    expect(status, text).toBe(200)
    return bearer((JSON.parse(text) as { token: string }).token)
  }
  const SCOPE = 'repository:alice/c/box:pull,push'

  /** A manifest of one layer, and the upload of that layer, opened by `by`, which has its first bytes. */
  async function begin(by: string, content: string, repo = at) {
    const layer = Uint8Array.from(Buffer.from(content.repeat(1000)))
    const whole = `${repo}/blobs/uploads/?digest=${descriptor(config).digest}`
    expect((await ask(by, 'POST', whole, config)).status).toBe(201)
    const opened_ = await ask(by, 'POST', `${repo}/blobs/uploads/`)
    expect(opened_.status, opened_.text).toBe(202)
    const half = layer.length >> 1
    const first = await ask(by, 'PATCH', opened_.location, layer.slice(0, half))
    expect(first.status, first.text).toBe(202)
    const manifest = Uint8Array.from(
      Buffer.from(
        JSON.stringify({
          schemaVersion: 2,
          mediaType: IMAGE,
          config: descriptor(config),
          layers: [descriptor(layer)],
        }),
      ),
    )
    const to = first.location
    const status = async (with_: string, method: string, path: string, body?: typeof layer) =>
      (await ask(with_, method, path, body)).status
    return {
      layer,
      manifest,
      where: (with_: string) => status(with_, 'GET', to),
      add: (with_: string) => status(with_, 'PATCH', to, layer.slice(half)),
      close: (with_: string) => status(with_, 'PUT', `${to}&digest=${descriptor(layer).digest}`),
      drop: (with_: string) => status(with_, 'DELETE', to),
      put: (with_: string, tag = 'v1', place = repo) =>
        status(with_, 'PUT', `${place}/manifests/${tag}`, manifest),
    }
  }

  /** What no ended token may, whatever it has begun. */
  async function expectEnded(by: string): Promise<void> {
    for (const [method, path] of [
      ['GET', '/v2/'],
      ['GET', '/v2/token'],
      ['GET', '/v2/_catalog'],
      ['GET', `${at}/manifests/v1`],
      ['GET', `${at}/tags/list`],
      ['POST', `${at}/blobs/uploads/`],
      ['DELETE', `${at}/manifests/v1`],
      ['PUT', '/v2/alice/c/other/manifests/v1'],
    ] as const)
      expect((await ask(by, method, path)).status, `${method} ${path}`).toBe(401)
  }

  const kinds: [string, (jwt: string) => Promise<string>][] = [
    ['a token of ours', async (jwt) => bearer(jwt)],
    ['a token of ours as password', async (jwt) => password(jwt)],
    ['the token behind an OCI token', (jwt) => login(password(jwt), SCOPE)],
  ]
  test.each(kinds)('%s ends: the upload goes on, and its manifest follows', async (_, of) => {
    const { jwt } = await mint(4)
    const by = await of(jwt)
    const push = await begin(by, 'abc')
    later(60)
    await expectEnded(by)
    expect((await ask(password(jwt), 'GET', '/v2/token')).status).toBe(401)
    // nothing of it is there yet
    expect(await push.put(by)).toBe(401)
    expect(await push.where(by)).toBe(204)
    expect(await push.add(by)).toBe(202)
    expect(await push.close(by)).toBe(201)
    expect(await push.close(by)).toBe(201)
    later(9)
    expect(await push.put(by, 'v1', '/v2/alice/c/other')).toBe(401)
    expect(await push.put(by, 'v1', '/v2/alice/box')).toBe(401)
    expect(await push.put(by)).toBe(201)
    await expectEnded(by)
    later(1.1)
    expect(await push.put(by, 'late')).toBe(401)
    expect(await push.close(by)).toBe(401)
  })

  test('five minutes end in the middle, and the token behind them goes on', async () => {
    const { jwt } = await mint(600)
    const by = await login(password(jwt), SCOPE)
    const push = await begin(by, 'five')
    later(60)
    await expectEnded(by)
    expect(await push.add(by)).toBe(202)
    expect(await push.close(by)).toBe(201)
    expect(await push.put(by)).toBe(201)
    // a client that is told to ask again gets as far
    const refused = await ask(by, 'POST', `${at}/blobs/uploads/`)
    expect(refused.headers.get('www-authenticate')).toContain(`scope="${SCOPE}"`)
    expect((await begin(await login(password(jwt), SCOPE), 'next')).layer).toHaveLength(4000)
  })

  test('never when it was revoked, or past the deadline of its upload', async () => {
    const token = await mint(600)
    const by = await login(password(token.jwt), SCOPE)
    const [push, late] = [await begin(by, 'revoked'), await begin(by, 'late')]
    later(60)
    expect(await push.add(by)).toBe(202)
    expect(await push.close(by)).toBe(201)
    await revoke(token.id)
    expect(await push.put(by)).toBe(401)
    expect(await late.where(by)).toBe(401)
    expect(await late.add(by)).toBe(401)

    const other = await mint(600)
    const idle = await begin(bearer(other.jwt), 'idle')
    later(24 * 60 + 1)
    for (const work of [idle.where, idle.add, idle.close, idle.drop])
      expect(await work(bearer(other.jwt))).toBe(401)
  })

  test('for what it opened itself, and what it was given for', async () => {
    const [first, second] = [await mint(4), await mint(600)]
    const theirs = await begin(bearer(second.jwt), 'theirs')
    const own = await begin(bearer(first.jwt), 'own', '/v2/alice/c/own')
    const narrow = await login(password(second.jwt), 'repository:alice/c/own:pull,push')
    later(60)
    for (const work of [theirs.where, theirs.add, theirs.close, theirs.drop])
      expect(await work(bearer(first.jwt))).toBe(401)
    // of the same token, but an OCI token for another repository
    expect(await theirs.add(narrow)).toBe(401)
    expect(await theirs.add(bearer(second.jwt))).toBe(202)
    expect(await theirs.close(bearer(second.jwt))).toBe(201)
    expect(await theirs.put(narrow)).toBe(401)
    expect(await theirs.put(bearer(first.jwt))).toBe(401)
    expect(await own.drop(bearer(first.jwt))).toBe(204)
    expect(await own.drop(bearer(first.jwt))).toBe(401)
  })
})

test('no token lives longer than SREG_TOKEN_MAX_AGE, or than the one that asks (R14)', async () => {
  const { database } = opened
  const operator = { operator: 'cli:test', now: clock.now() }
  const alice = (await database.users.byName('alice'))?.id ?? ''
  await database.people.change(alice, { role: 'admin' }, operator)
  const long = await mint(30 * 1440, ['pull', 'admin'])
  const life = async (jwt: string, more: object) => {
    const body = { user: 'alice', name: 'x', scopes: ['pull'], ...more }
    const { status, data } = await call(jwt, 'POST', '/v1/tokens', body)
    return status === 200 ? Date.parse(data.expiresAt) - time : status
  }
  expect(await life(long.jwt, {})).toBe(2 * DAY)
  expect(await life(long.jwt, { expiresIn: 3600 })).toBe(60 * MINUTE)
  expect(await life(long.jwt, { expiresIn: 20 * 86_400 })).toBe(2 * DAY)
  expect(await life(long.jwt, { expiresAt: new Date(time + 9 * DAY).toISOString() })).toBe(2 * DAY)
  const short = await mint(60, ['pull', 'admin'])
  expect(await life(short.jwt, {})).toBe(60 * MINUTE)
  expect(await life(short.jwt, { expiresIn: 7200 })).toBe(403)
})
