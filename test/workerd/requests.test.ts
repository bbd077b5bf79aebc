/** Requests of every kind to the Worker, each within the queries that a free account has. */
import { afterEach, expect, it, vi } from 'vitest'
import { clearSign, makeKey } from '../fixtures/make-key.ts'
import { buildSif, deffile, partition, sampleSif } from '../fixtures/sif.ts'
import { makeSigner, signedSif } from '../fixtures/signed-sif.ts'
import { expectData } from '../protocol/answers.ts'
import { libraryClient, putBytes, sha256 } from '../protocol/client.ts'
import { ociClient } from '../protocol/oci.ts'
import { migrate } from './database.ts'
import { firstAdmin, isolate, serve, settings, URL, type Isolate } from './worker.ts'

/** What D1 gives one request of a free account; of R2 as much. */
const MOST = 50
const KINDS = 45

afterEach(() => void vi.unstubAllGlobals())

it('no request asks D1 or R2 more than 50 times', async () => {
  await migrate()
  const worker = await isolate(await settings())
  const counted: Record<string, ReturnType<Isolate['asked']>> = {}
  serve(
    () => worker,
    (what) => {
      const { queries, operations } = worker.asked()
      const before = counted[what] ?? { queries: 0, operations: 0 }
      counted[what] = {
        queries: Math.max(before.queries, queries),
        operations: Math.max(before.operations, operations),
      }
    },
  )
  const admin = libraryClient(URL, await firstAdmin())
  const ask = async (method: string, path: string, body?: unknown) =>
    expectData(await admin.call(method, path, body))

  await ask('POST', '/v1/users', { name: 'alice' })
  const made = await ask('POST', '/v1/tokens', { user: 'alice', name: 't' })
  const alice = libraryClient(URL, made.token)
  const read = async (path: string) => expectData(await alice.call('GET', path))

  // pushes: single, known bytes, in parts, whole, given up
  const bytes = sampleSif({ content: 'image' })
  const { container } = await alice.push('alice/c/n', bytes, { tags: ['latest', '1', '2'] })
  expect((await alice.push('alice/c/other', bytes)).uploaded).toBe(false)
  const announce = async (content: string) => {
    const body = buildSif({ objects: [deffile(content), partition({ data: content })] })
    const hash = `sha256.${sha256(body)}`
    const { id } = expectData(await alice.call('POST', '/v1/images', { hash, container }))
    return { body, path: `imagefile/${String(id)}` }
  }
  const parts = await announce('parts')
  const began = await alice.call('POST', `/v2/${parts.path}/_multipart`, {
    filesize: parts.body.length,
  })
  const { uploadID } = expectData(began)
  const part = {
    uploadID,
    partNumber: 1,
    partSize: parts.body.length,
    sha256sum: sha256(parts.body),
  }
  const signed = await alice.call('PUT', `/v2/${parts.path}/_multipart`, part)
  const sent = await putBytes(expectData(signed).presignedURL, parts.body)
  const completedParts = [{ partNumber: 1, token: sent.headers.get('etag') }]
  const completion = { uploadID, completedParts }
  expectData(await alice.call('PUT', `/v2/${parts.path}/_multipart_complete`, completion))
  const whole = await announce('whole')
  expectData(await alice.call('POST', `/v1/${whole.path}`, whole.body))
  const given = await announce('given up')
  const { uploadID: ended } = expectData(
    await alice.call('POST', `/v2/${given.path}/_multipart`, { filesize: given.body.length }),
  )
  await alice.call('PUT', `/v2/${given.path}/_multipart_abort`, { uploadID: ended })

  // pulls, searches, tags
  const pulled = await fetch(`${URL}/v1/imagefile/alice/c/n:latest?arch=amd64`, {
    headers: { authorization: `Bearer ${made.token}` },
  })
  expect(sha256(new Uint8Array(await pulled.arrayBuffer()))).toBe(sha256(bytes))
  for (const path of [
    '/v1/search?value=alice',
    '/v1/entities',
    '/v1/entities/alice',
    '/v1/collections/alice/c',
    '/v1/containers/alice/c/n',
    '/v1/images/alice/c/n:latest?arch=amd64',
    `/v1/tags/${container}`,
    `/v2/tags/${container}`,
  ])
    await read(path)
  for (const path of [
    '/',
    '/alice/c/n',
    '/readyz',
    '/version',
    '/v1/token-status',
    '/v1/rbac/users/current',
  ])
    await alice.call('GET', path)

  // keys, as many as one request may bring
  const keys = await Promise.all(Array.from({ length: 5 }, (_, n) => makeKey(`Key ${n}`)))
  const keytext = keys.map(({ armor }) => armor).join('\n')
  const form = new URLSearchParams({ keytext }).toString()
  for (let times = 0; times < 2; times++)
    expect((await alice.call('POST', '/pks/add', form)).status).toBe(200)
  const [first] = keys
  if (first === undefined) throw new Error('five keys')
  const key = `/v1/keys/${first.fingerprint}`
  const { challenge } = await expectData(await alice.call('POST', `${key}/challenge`))
  const claim = { signed: await clearSign(challenge, first) }
  expectData(await alice.call('POST', `${key}/claim`, claim))
  for (const op of ['get', 'index', 'vindex'])
    for (const search of [`0x${first.fingerprint}`, 'Key', 'Key0@example.org', 'nobody'])
      await alice.call('GET', `/pks/lookup?${new URLSearchParams({ op, search }).toString()}`)
  await read('/v1/keys')
  await read(key)
  expectData(await alice.call('DELETE', key))

  // OCI: a signed SIF where signatures are asked for, an index of what both sides brought
  const signer = await makeSigner('Olga')
  const armored = new URLSearchParams({ keytext: signer.armor }).toString()
  expect((await alice.call('POST', '/pks/add', armored)).status).toBe(200)
  const { fingerprint } = signer
  await alice.ensure('alice', 'strict', 'n')
  const policy = { ref: 'alice/strict', policy: 'require', fingerprints: [fingerprint] }
  expectData(await alice.call('PUT', '/v1/policy', policy))
  const oci = ociClient(URL, made.token)
  const sif = await signedSif([deffile('oci'), partition({ data: 'oci' })], [{ by: signer }])
  const described = (mediaType: string, body: Uint8Array) => ({
    mediaType,
    digest: `sha256:${sha256(body)}`,
    size: body.length,
  })
  for (const body of [sif, Buffer.from('{}')]) await oci.blob('alice/strict/n', body)
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      config: described('application/vnd.sylabs.sif.config.v1+json', Buffer.from('{}')),
      layers: [described('application/vnd.sylabs.sif.layer.v1.sif', sif)],
    }),
  )
  const answers = [await oci.put('alice/strict/n', 'v1', manifest.toString())]
  const own = await oci.call('GET', '/v2/alice/c/n/manifests/latest')
  const IMAGE = 'application/vnd.oci.image.manifest.v1+json'
  const INDEX = 'application/vnd.oci.image.index.v1+json'
  const index = { schemaVersion: 2, manifests: [described(IMAGE, own.bytes)] }
  answers.push(await oci.put('alice/c/n', 'index', index, INDEX))
  for (const path of ['manifests/index', 'tags/list', `blobs/${described('', bytes).digest}`])
    answers.push(await oci.call('GET', `/v2/alice/c/n/${path}`))
  answers.push(await oci.call('GET', '/v2/_catalog'))
  answers.push(await oci.call('DELETE', '/v2/alice/c/n/manifests/index'))
  answers.push(
    await oci.call('DELETE', `/v2/alice/strict/n/manifests/${described('', manifest).digest}`),
  )
  expect(answers.map(({ status }) => status)).toEqual([201, 201, 200, 200, 200, 200, 202, 202])

  // administration
  await ask('GET', '/v1/users')
  await ask('GET', '/v1/users/alice/tokens')
  await ask('PUT', '/v1/privacy', { ref: 'alice/c/n', private: true })
  const second = await ask('POST', '/v1/tokens', { user: 'alice', name: 'second' })
  await ask('DELETE', `/v1/tokens/${second.id}`)

  // export, and import of the same file once more into an emptied container and once given up
  const head = await ask('POST', '/v1/exports')
  const rows: { kind: string }[] = []
  for (let at: string | null = ''; at !== null;) {
    const query: string = at === '' ? '' : `?cursor=${encodeURIComponent(at)}`
    const page = await ask('GET', `/v1/exports/rows${query}`)
    rows.push(...page.rows)
    at = page.cursor
  }
  expect(rows.length).toBeGreaterThan(10)
  await ask('GET', '/v1/imports')
  const digest = sha256(bytes)
  const exported = await fetch(`${URL}/v1/exports/blobs/${digest}`, {
    headers: { authorization: `Bearer ${admin.token}` },
  })
  expect(exported.status).toBe(200)
  const opened = await ask('POST', '/v1/imports', head)
  for (let at = 0; at < rows.length; at += 200)
    await ask('POST', `/v1/imports/${opened.id}/rows`, { rows: rows.slice(at, at + 200) })
  const fresh = sampleSif({ content: 'never seen' })
  const blob = `/v1/imports/${opened.id}/blobs/${sha256(fresh)}`
  expect(await ask('POST', blob, { size: fresh.length })).toMatchObject({ wanted: true })
  await ask('PUT', blob, fresh)
  for (let n = 0; n < 60; n++)
    await ask('POST', `/v1/imports/${opened.id}/blobs/${sha256(Buffer.from(`${n}`))}`, { size: 9 })
  const finish = { head, rows: rows.length, sha256: '0'.repeat(64) }
  const finished = await admin.call('POST', `/v1/imports/${opened.id}`, finish)
  expect([200, 409, 400]).toContain(finished.status)
  await ask('DELETE', `/v1/imports/${opened.id}`)

  expectData(await alice.call('DELETE', '/v1/images/alice/c/n:latest?arch=amd64'))

  const kinds = Object.entries(counted)
  const most = (what: 'queries' | 'operations') =>
    Math.max(...kinds.map(([, asked]) => asked[what]))
  console.log(
    `${kinds.length} kinds: ${most('queries')} queries, ${most('operations')} calls to R2`,
  )
  expect(kinds.length).toBeGreaterThan(KINDS)
  expect(most('queries')).toBeGreaterThan(5)
  for (const [what, { queries, operations }] of kinds) {
    expect(queries, what).toBeLessThanOrEqual(MOST)
    expect(operations, what).toBeLessThanOrEqual(MOST)
  }
})
