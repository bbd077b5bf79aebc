/** Requests of a whole push and pull on D1, each within the queries that a Worker may make. */
import { env } from 'cloudflare:workers'
import { afterEach, expect, it, vi } from 'vitest'
import { memoryBlobs } from '../../adapters/blobs/memory.ts'
import { d1Database, type D1Binding } from '../../adapters/databases/d1.ts'
import { randomIds, systemClock } from '../../adapters/system.ts'
import { createApp, webTransfer } from '../../src/app.ts'
import { DEFAULT_SCOPES, type Claims } from '../../src/core/model.ts'
import { sampleSif } from '../fixtures/sif.ts'
import { libraryClient } from '../protocol/client.ts'
import { migrate, MIGRATIONS } from './database.ts'

/** What D1 gives one request of a free account. */
const QUERIES = 50
const URL = 'http://registry.test'

afterEach(() => void vi.unstubAllGlobals())

it('a push, a pull, a search and a delete stay within 50 queries a request', async () => {
  await migrate()
  let queries = 0
  const binding: D1Binding = {
    prepare: (sql) => env.DB.prepare(sql),
    batch(statements) {
      queries += statements.length
      return env.DB.batch(statements as ReturnType<typeof env.DB.prepare>[])
    },
  }
  const database = d1Database(binding, { migrations: MIGRATIONS })
  const [userId, tokenId] = [randomIds.next(), randomIds.next()]
  const createdAt = systemClock.now()
  const expiresAt = new Date(createdAt.getTime() + 3_600_000)
  const rest = { name: 'alice', role: 'user' as const, disabled: false, createdAt }
  await database.users.create({ ...rest, id: userId, entityId: randomIds.next() })
  const scopes = [...DEFAULT_SCOPES]
  await database.tokens.insert({ id: tokenId, userId, name: 't', scopes, createdAt, expiresAt })
  const claims: Claims = { userId, tokenId, scopes, expiresAt }

  const app = createApp({
    config: {
      publicUrl: URL,
      trustedProxies: [],
      shortRefs: 'default',
      minFree: 0,
      maxImage: null,
      sweepGrace: 43_200,
      keys: { add: 'token', read: 'public' },
      sweepInterval: 900,
    },
    version: '0',
    registryId: 'ab'.repeat(12),
    secret: 's'.repeat(32),
    database,
    blobs: memoryBlobs({ clock: systemClock }),
    verifier: { verify: async (jwt) => (jwt === 'alice' ? claims : null) },
    keys: [],
    issuer: { issue: () => Promise.reject(new Error('nobody asks for a token here')) },
    transfer: webTransfer,
    ended: { has: () => false },
    clock: systemClock,
    ids: randomIds,
    log: { event: () => undefined },
  })
  const counted: Record<string, number> = {}
  vi.stubGlobal('fetch', async (url: string, init: RequestInit) => {
    const before = queries
    const request = new Request(url, init)
    // a connection says how long a body is; there is none here
    if (init.body instanceof Uint8Array)
      request.headers.set('content-length', String(init.body.length))
    const answer = await app.fetch(request, { peer: { address: null, encrypted: false } })
    const { pathname } = new globalThis.URL(url)
    const what = `${request.method} ${pathname.replaceAll(/[0-9a-f]{24,}/g, ':id')}`
    counted[what] = Math.max(counted[what] ?? 0, queries - before)
    return answer
  })

  const client = libraryClient(URL, 'alice')
  const bytes = sampleSif({ content: 'image' })
  await client.push('alice/c/n', bytes, { tags: ['latest', '1', '2'] })
  const pulled = await fetch(`${URL}/v1/imagefile/alice/c/n:latest?arch=amd64`, {
    headers: { authorization: 'Bearer alice' },
  })
  expect(new Uint8Array(await pulled.arrayBuffer())).toEqual(new Uint8Array(bytes))
  const again = await client.push('alice/c/other', bytes)
  expect(again.uploaded).toBe(false)
  expect((await client.call('GET', '/v1/search?value=alice')).status).toBe(200)
  expect((await client.call('GET', '/v1/entities')).status).toBe(200)
  expect((await client.call('DELETE', '/v1/images/alice/c/n:latest?arch=amd64')).status).toBe(200)
  await app.flush()

  expect(Object.keys(counted).length).toBeGreaterThan(10)
  expect(Math.max(...Object.values(counted))).toBeGreaterThan(5)
  for (const [what, count] of Object.entries(counted))
    expect(count, what).toBeLessThanOrEqual(QUERIES)
})
