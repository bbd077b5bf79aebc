/** What the Worker promises by itself: its start, its limits, its sweep, and the free account's. */
import { reset } from 'cloudflare:test'
import { env } from 'cloudflare:workers'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { sampleSif } from '../fixtures/sif.ts'
import { expectData, expectRefusal } from '../protocol/answers.ts'
import { libraryClient, putBytes, sha256 } from '../protocol/client.ts'
import { migrate, raw } from './database.ts'
import { firstAdmin, isolate, serve, settings, URL } from './worker.ts'

/** What a free account has for one request or one run of the cron trigger. */
const MOST = 50
const DAY_MS = 24 * 3_600_000

let given: Record<string, string>
beforeEach(async () => {
  await reset()
  await migrate()
  given = await settings()
})
afterEach(() => {
  vi.unstubAllGlobals()
  vi.restoreAllMocks()
})

/** One image by a client, with the steps of a push to be taken one by one. */
async function announce(jwt: string, content: string) {
  const client = libraryClient(URL, jwt)
  const bytes = sampleSif({ content })
  const { container } = await client.ensure('admin', 'c', content)
  const hash = `sha256.${sha256(bytes)}`
  const { id } = expectData(await client.call('POST', '/v1/images', { hash, container }))
  const image = String(id)
  return {
    client,
    bytes,
    hash,
    image,
    container,
    ref: `admin/c/${content}`,
    single: () =>
      client.call('POST', `/v2/imagefile/${image}`, {
        filesize: bytes.length,
        sha256sum: sha256(bytes),
      }),
    complete: () => client.call('PUT', `/v2/imagefile/${image}/_complete`, {}),
    inParts: () =>
      client.call('POST', `/v2/imagefile/${image}/_multipart`, { filesize: bytes.length }),
    /** Sends the one part, and returns how to complete. */
    async sendPart(uploadID: string) {
      const signed = await client.call('PUT', `/v2/imagefile/${image}/_multipart`, {
        uploadID,
        partNumber: 1,
        partSize: bytes.length,
        sha256sum: sha256(bytes),
      })
      const sent = await putBytes(expectData(signed).presignedURL, bytes)
      const etag = sent.headers.get('etag') ?? ''
      return {
        etag,
        complete: () =>
          client.call('PUT', `/v2/imagefile/${image}/_multipart_complete`, {
            uploadID,
            completedParts: [{ partNumber: 1, token: etag }],
          }),
      }
    },
  }
}

describe('a Worker that is not configured', () => {
  for (const [title, wrong, reasons] of [
    [
      'no secrets',
      () => ({ SREG_SECRET: '', SREG_SIGNING_KEYS: '' }),
      ['SREG_SECRET: is req', 'SREG_SIGNING_KEYS: is req'],
    ],
    [
      'settings of a host',
      () => ({ SREG_PORT: '80', SREG_NONE: '1' }),
      ['SREG_PORT: ', 'SREG_NONE: no such'],
    ],
    ['no bindings', () => ({ DB: undefined }), ['no D1 binding DB']],
    [
      'keys that are none',
      () => ({ SREG_SIGNING_KEYS: '{}' }),
      ['SREG_SIGNING_KEYS: does not hold'],
    ],
    [
      'a bucket without keys',
      () => ({ SREG_S3_BUCKET: 'b' }),
      ['SREG_S3_ACCESS_KEY: is required on Workers'],
    ],
  ] as const)
    it(`says so to everybody, and why in its log: ${title}`, async () => {
      const error = vi.spyOn(console, 'error').mockImplementation(() => undefined)
      const broken = await isolate({ ...given, ...wrong() })
      serve(() => broken)
      for (const who of [libraryClient(URL), libraryClient(URL, 'a.token.here')])
        for (const path of ['/version', '/v1/token-status', '/v1/entities', '/readyz']) {
          const answer = await who.call('GET', path)
          expectRefusal(answer, 500, /not configured/)
          expect(answer.text).not.toContain('SREG_')
        }
      await broken.scheduled()
      expect(error).toHaveBeenCalledTimes(9)
      for (const reason of reasons) expect(error.mock.calls[0]?.[0]).toContain(reason)
      // what was missing is there now: the next request finds it
      const mended = await isolate(given)
      serve(() => mended)
      expect((await libraryClient(URL).call('GET', '/readyz')).status).toBe(200)
    })
})

it('a first request whose I/O never ends holds up no other', async () => {
  // the runtime drops what a request waits for whose client has left: any of the first questions
  for (let at = 0; at < 3; at++) {
    let asked = 0
    const dropped = Promise.withResolvers<void>()
    const worker = await isolate({
      ...given,
      DB: {
        prepare: (sql: string) => env.DB.prepare(sql),
        batch(statements: ReturnType<typeof env.DB.prepare>[]) {
          if (asked++ !== at) return env.DB.batch(statements)
          dropped.resolve()
          return new Promise(() => undefined)
        },
      },
    })
    void worker.fetch(new Request(`${URL}/readyz`))
    await dropped.promise
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => worker.fetch(new Request(`${URL}/readyz`))),
    )
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]))
  }
})

it('an image above SREG_MAX_IMAGE is refused before anything is reserved', async () => {
  const small = await isolate({ ...given, SREG_MAX_IMAGE: '1000' })
  serve(() => small)
  const { client, single, inParts, bytes, image } = await announce(await firstAdmin(), 'big')
  expect(bytes.length).toBeGreaterThan(1000)
  const whole = () => client.call('POST', `/v1/imagefile/${image}`, bytes)
  for (const way of [single, inParts, whole])
    expectRefusal(await way(), 413, /no more than 1000 \(SREG_MAX_IMAGE\)/)
  expect(await raw('SELECT * FROM uploads')).toEqual([])
  expect((await env.BLOBS.list()).objects.map(({ key }) => key)).toEqual(['registry-id'])
})

describe('the cron trigger', () => {
  it('sweeps what has expired and what nothing refers to, over isolates', async () => {
    let current = await isolate(given)
    serve(() => current)
    const jwt = await firstAdmin()
    const left = await announce(jwt, 'left')
    const { uploadID } = expectData(await left.inParts())
    const { complete } = await left.sendPart(uploadID)
    const client = libraryClient(URL, jwt)
    await client.push('admin/c/gone', sampleSif({ content: 'gone' }))
    await client.push('admin/c/kept', sampleSif({ content: 'kept' }))
    await client.call('DELETE', '/v1/images/admin/c/gone:latest?arch=amd64')
    await raw('UPDATE uploads SET expires_at = 1')

    const blobs = async () => (await raw('SELECT * FROM blobs')).length
    expect(await blobs()).toBe(2)
    // each run is another isolate, an interval after the one before; nobody waits: times move back
    for (const back of [0, 900_000, DAY_MS / 2]) {
      current = await isolate(given)
      await raw(
        `UPDATE settings SET value = json_set(value, '$.lastRun', (value ->> 'lastRun') - 900000) WHERE key = 'sweep'`,
      )
      await raw(`UPDATE uploads SET closed_at = closed_at - ${back + DAY_MS}`)
      await raw(`UPDATE blobs SET dying_at = dying_at - ${back}`)
      await current.scheduled()
    }
    expect(await raw("SELECT * FROM uploads WHERE state <> 'done'")).toEqual([])
    expect(await blobs()).toBe(1)
    const objects = (await env.BLOBS.list({ prefix: 'blobs/' })).objects
    expect(objects.length).toBe(1)
    // its parts are gone with it
    expectRefusal(await complete(), 404)
    const pulled = await fetch(`${URL}/v1/imagefile/admin/c/kept:latest?arch=amd64`, {
      headers: { authorization: `Bearer ${jwt}` },
    })
    expect(sha256(new Uint8Array(await pulled.arrayBuffer()))).toBe(
      sha256(sampleSif({ content: 'kept' })),
    )
  })

  it('asks D1 and R2 no more than 50 times, whatever there is to do', async () => {
    const worker = await isolate(given)
    serve(() => worker)
    await firstAdmin()
    const n = (count: number) =>
      `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${count})`
    await raw(`INSERT INTO blobs (id, key, digest, size, state, created_at, dying_at)
      ${n(3000)} SELECT printf('%024x', i), printf('%024x', i), i, 1, 'live', 0, NULL FROM n`)
    await raw(
      `INSERT INTO imports (id, export_id, state, created_at, expires_at) VALUES ('i', 'e', 'open', 0, 1)`,
    )
    for (let i = 10; i < 70; i++) {
      const begin = async (first: string) => {
        const key = first + String(i).padStart(23, '0')
        const { uploadId } = await env.BLOBS.createMultipartUpload(`blobs/${key}`)
        return { key, handle: `${key}.1.1.${uploadId}` }
      }
      const [upload, staged] = await Promise.all([begin('f'), begin('e')])
      await raw(`INSERT INTO uploads (id, user_id, token_id, blob_key, handle, size, part_size, digest, state, created_at, expires_at)
        VALUES (${i}, 'u', 't', '${upload.key}', '${upload.handle}', 1, 1, 'd', 'open', 0, 1)`)
      await raw(`INSERT INTO import_blobs (import_id, digest, size, blob_id, key, handle)
        VALUES ('i', ${i}, 1, '${staged.key}', '${staged.key}', '${staged.handle}')`)
    }
    const runs: { queries: number; operations: number }[] = []
    worker.asked()
    for (let run = 0; run < 14; run++) {
      await raw(
        `UPDATE settings SET value = json_set(value, '$.lastRun', (value ->> 'lastRun') - 900000) WHERE key = 'sweep'`,
      )
      for (const [table, column] of [
        ['uploads', 'closed_at'],
        ['imports', 'closed_at'],
        ['blobs', 'dying_at'],
      ])
        await raw(`UPDATE ${table} SET ${column} = ${column} - ${DAY_MS}`)
      await worker.scheduled()
      runs.push(worker.asked())
    }
    const most = (what: 'queries' | 'operations') => Math.max(...runs.map((run) => run[what]))
    console.log(`the busiest sweep: ${most('queries')} queries, ${most('operations')} calls to R2`)
    expect(most('queries')).toBeGreaterThan(25)
    expect(most('queries')).toBeLessThanOrEqual(MOST)
    expect(most('operations')).toBeGreaterThan(25)
    expect(most('operations')).toBeLessThanOrEqual(MOST)
    for (const table of ['uploads', 'blobs', 'import_blobs'])
      expect(await raw(`SELECT * FROM ${table}`), table).toEqual([])
  })
})

describe('a completion that died with its isolate', () => {
  for (const [title, published] of [
    ['before the bytes were published', false],
    ['after the bytes were published', true],
  ] as const)
    it(`is done by asking again, without sending anything again: ${title}`, async () => {
      let current = await isolate(given)
      serve(() => current)
      const of = await announce(await firstAdmin(), 'died')
      const { uploadID } = expectData(await of.inParts())
      const { complete, etag } = await of.sendPart(uploadID)
      if (published) {
        const [{ blob_key: key, handle } = {}] = await raw('SELECT * FROM uploads')
        const uploadId = String(handle).split('.').slice(3).join('.')
        await env.BLOBS.resumeMultipartUpload(`blobs/${String(key)}`, uploadId).complete([
          { partNumber: 1, etag: etag.replaceAll('"', '') },
        ])
      }
      await raw("UPDATE uploads SET state = 'finishing', claim = 'dead', lease_until = 1")
      current = await isolate(given)
      expect(await complete().then(({ status, text }) => [status, text])).toEqual([
        200,
        expect.any(String),
      ])
      const shown = await of.client.call('GET', `/v1/images/${of.ref}:${of.hash}?arch=amd64`)
      expect(expectData(shown)).toMatchObject({ uploaded: true })
    })
})
