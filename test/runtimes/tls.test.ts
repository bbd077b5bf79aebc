/** SREG_TLS_CERT and SREG_TLS_KEY: a push and a pull over https, and what wrong files are told. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { mint, StartFailed, startServer } from '../faults/process.ts'
import { buildSif } from '../fixtures/sif.ts'
import { sha256 } from '../protocol/client.ts'
import { build, TESTED } from './runtime.ts'

let folder: string
const at = (name: string) => join(folder, name)

beforeAll(() => {
  build()
  folder = mkdtempSync(join(tmpdir(), 'sreg-tls-'))
  const asked =
    'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost ' +
    '-addext subjectAltName=IP:127.0.0.1'
  for (const name of ['ours', 'other'])
    execFileSync(
      'openssl',
      [...asked.split(' '), '-keyout', at(`${name}.key`), '-out', at(`${name}.pem`)],
      { stdio: 'pipe' },
    )
  writeFileSync(at('nonsense.pem'), 'this is no certificate\n')
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

type Answer = { status: number; location: string; bytes: Buffer }

/** One request that trusts our certificate and nobody else's. */
function ask(url: string, method: string, token?: string, body?: Uint8Array): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const headers = {
      'Content-Length': body?.length ?? 0,
      ...(token === undefined ? {} : { Authorization: `Bearer ${token}` }),
    }
    const sent = request(
      url,
      { method, headers, ca: readFileSync(at('ours.pem')), agent: false },
      (answer) => {
        const { statusCode: status = 0, headers } = answer
        buffer(answer).then(
          (bytes) => resolve({ status, location: headers.location ?? '', bytes }),
          reject,
        )
      },
    )
    sent.once('error', reject)
    sent.end(body)
  })
}

describe.each(TESTED)('%s', (runtime) => {
  test('a push and a pull over https', async () => {
    const data = at(runtime)
    const tls = { SREG_TLS_CERT: at('ours.pem'), SREG_TLS_KEY: at('ours.key') }
    const server = await startServer({ data, runtime, env: tls })
    try {
      expect(server.url).toMatch(/^https:/)
      const token = await mint(data, 'alice')
      const call = async (method: string, path: string, body?: object) => {
        const text = body && Buffer.from(JSON.stringify(body))
        const { status, bytes } = await ask(server.url + path, method, token, text)
        expect(status, `${path}: ${bytes.toString()}`).toBe(200)
        return JSON.parse(bytes.toString()).data
      }
      const image = buildSif({
        objects: [{ type: 'generic', data: 'encrypted' }],
        trailing: 3_000_000,
      })
      const digest = sha256(image)
      const entity = await call('GET', '/v1/entities/alice')
      const collection = await call('POST', '/v1/collections', { name: 'c', entity: entity.id })
      const named = { name: 'n', collection: collection.id }
      const { id: container } = await call('POST', '/v1/containers', named)
      const { id } = await call('POST', '/v1/images', { hash: `sha256.${digest}`, container })
      const plan = { filesize: image.length, sha256sum: digest }
      const { uploadURL } = await call('POST', `/v2/imagefile/${id}`, plan)
      expect(uploadURL.startsWith(server.url)).toBe(true)
      expect((await ask(uploadURL, 'PUT', undefined, image)).status).toBe(200)
      await call('PUT', `/v2/imagefile/${id}/_complete`, {})

      const ref = `${server.url}/v1/imagefile/alice/c/n:sha256.${digest}?arch=amd64`
      let pulled = await ask(ref, 'GET')
      if (pulled.status === 303) pulled = await ask(pulled.location, 'GET')
      expect([pulled.status, sha256(pulled.bytes)]).toEqual([200, digest])
    } finally {
      expect(await server.kill('SIGTERM'), server.words()).toBe(0)
    }
  })

  test.each([
    ['missing.pem', 'ours.key', /The TLS file \S+missing\.pem cannot be read\.$/m],
    ['nonsense.pem', 'ours.key', /The TLS certificate \S+nonsense\.pem /m],
    ['ours.pem', 'nonsense.pem', /The TLS key \S+nonsense\.pem /m],
    ['other.pem', 'ours.key', /The TLS key \S+ours\.key does not belong to the certificate /m],
  ])('wrong files are named in a sentence: %s with %s', async (cert, key, sentence) => {
    const env = { SREG_TLS_CERT: at(cert), SREG_TLS_KEY: at(key) }
    const refused = await startServer({ data: at(`${runtime}-refused`), runtime, env }).then(
      async (server) => (await server.kill(), null),
      (error: unknown) => error,
    )
    expect(refused).toBeInstanceOf(StartFailed)
    const { code, words } = refused as StartFailed
    expect([code, words]).toEqual([2, expect.stringMatching(sentence)])
    expect(words).not.toMatch(/\n\s+at /)
  })
})
