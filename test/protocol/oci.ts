/**
 * OCI distribution over HTTP: the cases of the official conformance suite in our own words, and what
 * that does not ask (R31, R47, abuse of manifests). scripts/oci-conformance.sh runs the suite itself.
 */
import { createHash, randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { sampleSif } from '../fixtures/sif.ts'
import type { Target, TargetOptions } from '../runtimes/target.ts'
import { libraryClient, type Answer, type LibraryClient } from './client.ts'
import { ask } from './http.ts'

const MIB = 1024 * 1024
const IMAGE = 'application/vnd.oci.image.manifest.v1+json'
const INDEX = 'application/vnd.oci.image.index.v1+json'
const DOCKER = 'application/vnd.docker.distribution.manifest.v2+json'
const LAYER = 'application/vnd.oci.image.layer.v1.tar'
const CONFIG = 'application/vnd.oci.image.config.v1+json'
const EMPTY = Buffer.from('{}')

type Algorithm = 'sha256' | 'sha512'
const digestOf = (bytes: Uint8Array | string, algorithm: Algorithm = 'sha256') =>
  `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}`
const describing = (mediaType: string, bytes: Uint8Array, more: object = {}) => ({
  mediaType,
  digest: digestOf(bytes),
  size: bytes.length,
  ...more,
})

/** An answer with the bytes of its body. */
type Read = Answer & { bytes: Uint8Array }

export type OciClient = ReturnType<typeof ociClient>

/** Speaks OCI with a token as Bearer, or as nobody. */
export function ociClient(url: string, token: string | null = null) {
  async function call(
    method: string,
    path: string,
    body?: Uint8Array | string | ReadableStream<Uint8Array>,
    headers: Record<string, string> = {},
  ): Promise<Read> {
    return ask(url + path, {
      method,
      body,
      token,
      headers,
    })
  }

  const location = (answer: Read) => {
    const at = answer.headers.get('location') ?? ''
    expect(at).toMatch(/^\/v2\//)
    return at
  }

  /** Opens an upload; its address. */
  async function open(repository: string, query = ''): Promise<string> {
    const opened = await call('POST', `/v2/${repository}/blobs/uploads/${query}`)
    expect(opened.status, opened.text).toBe(202)
    expect(opened.headers.get('range')).toBe('0-0')
    return location(opened)
  }

  const add = (at: string, bytes: Uint8Array | ReadableStream<Uint8Array>, start?: number) =>
    call('PATCH', at, bytes, {
      'content-type': 'application/octet-stream',
      ...(start === undefined || !(bytes instanceof Uint8Array)
        ? {}
        : { 'content-range': `${start}-${start + bytes.length - 1}` }),
    })
  const close = (at: string, digest: string, bytes?: Uint8Array, headers = {}) =>
    call('PUT', `${at}&digest=${digest}`, bytes, headers)

  /** Pushes a blob whole. */
  async function blob(repository: string, bytes: Uint8Array): Promise<string> {
    const digest = digestOf(bytes)
    const at = `/v2/${repository}/blobs/uploads/?digest=${digest}`
    const { status, text } = await call('POST', at, bytes)
    expect(status, text).toBe(201)
    return digest
  }

  const put = (repository: string, reference: string, manifest: unknown, type = IMAGE) =>
    call(
      'PUT',
      `/v2/${repository}/manifests/${reference}`,
      typeof manifest === 'string' ? manifest : JSON.stringify(manifest),
      { 'content-type': type },
    )

  /** Pushes an image of one layer; its manifest and digest. */
  async function image(repository: string, tag: string, more: object = {}) {
    const layer = randomBytes(300)
    for (const bytes of [EMPTY, layer]) await blob(repository, bytes)
    const manifest = JSON.stringify({
      schemaVersion: 2,
      mediaType: IMAGE,
      config: describing(CONFIG, EMPTY),
      layers: [describing(LAYER, layer)],
      ...more,
    })
    const answer = await put(repository, tag || digestOf(manifest), manifest)
    expect(answer.status, answer.text).toBe(201)
    return { manifest, layer, digest: digestOf(manifest), answer }
  }

  return { call, open, add, close, blob, put, image, location }
}

/** The spec's envelope with this status and code, and a sentence. */
export function expectError(answer: Read, status: number, code: string): void {
  expect(answer.status, answer.text.slice(0, 300)).toBe(status)
  expect(answer.headers.get('content-type')).toMatch(/^application\/json/)
  const [error] = answer.json.errors
  expect(error.code).toBe(code)
  expect(error.message).toMatch(/^\w.{8,400}$/s)
  expect(error.message).not.toMatch(/\n\s+at |sqlite|\/(?:tmp|dev)\//i)
}

/** `bytes` as a body that does not say how long it is; breaks off after `until` bytes. */
function streamOf(bytes: Uint8Array, until = Infinity): ReadableStream<Uint8Array> {
  let at = 0
  return new ReadableStream({
    async pull(controller) {
      if (at >= until) {
        await new Promise((resolve) => setTimeout(resolve, 100))
        controller.error(new Error('the client went away'))
      } else if (at >= bytes.length) controller.close()
      else {
        controller.enqueue(bytes.slice(at, at + 777_777))
        at += 777_777
      }
    },
  })
}

/** The suite. `makeTarget` makes one fresh registry per call, which the suite stops. */
export function describeOci(
  name: string,
  makeTarget: (options?: TargetOptions) => Promise<Target>,
): void {
  describe(`${name}: OCI`, () => {
    let target: Target
    let alice: OciClient
    let mallory: OciClient
    let nobody: OciClient
    let library: LibraryClient
    let token: string
    let count = 0
    /** A repository of alice's that nobody has used yet. */
    const fresh = () => `alice/oci/r${++count}`

    beforeAll(async () => {
      target = await makeTarget()
      token = (await target.mint('alice')).jwt
      alice = ociClient(target.url, token)
      library = libraryClient(target.url, token)
      mallory = ociClient(target.url, (await target.mint('mallory')).jwt)
      nobody = ociClient(target.url)
    })
    afterAll(() => target.stop())

    const expectBlob = async (repository: string, bytes: Uint8Array, digest = digestOf(bytes)) => {
      const head = await alice.call('HEAD', `/v2/${repository}/blobs/${digest}`)
      expect([head.status, head.headers.get('content-length')]).toEqual([200, `${bytes.length}`])
      const got = await nobody.call('GET', `/v2/${repository}/blobs/${digest}`)
      expect(got.status).toBe(200)
      expect(got.headers.get('docker-content-digest')).toBe(digest)
      expect(got.headers.get('content-type')).toBe('application/octet-stream')
      expect(Buffer.compare(got.bytes, bytes)).toBe(0)
    }
    const expectNoBlob = async (repository: string, digest: string) =>
      expect((await alice.call('HEAD', `/v2/${repository}/blobs/${digest}`)).status).toBe(404)

    test('GET /v2/ asks who it is, and takes the token as Bearer and as password', async () => {
      for (const path of ['/v2/', '/v2']) {
        const challenge = await nobody.call('GET', path)
        expectError(challenge, 401, 'UNAUTHORIZED')
        expect(challenge.headers.get('www-authenticate')).toBe(
          `Bearer realm="${target.url}/v2/token",service="${new URL(target.url).host}"`,
        )
        expect((await alice.call('GET', path)).status).toBe(200)
      }
      const basic = (password: string) => ({
        authorization: `Basic ${btoa(`whoever:${password}`)}`,
      })
      expect((await nobody.call('GET', '/v2/', undefined, basic(token))).status).toBe(200)
      for (const wrong of ['', 'password', `${token}x`])
        expectError(await nobody.call('GET', '/v2/', undefined, basic(wrong)), 401, 'UNAUTHORIZED')
    })

    test("the library's addresses under /v2 stay the library's", async () => {
      const { container } = await library.push('alice/lib/x', sampleSif())
      expect((await library.call('GET', `/v2/tags/${container}`)).json).toHaveProperty('data')
      const none = await library.call('POST', `/v2/imagefile/${'0'.repeat(24)}`, { filesize: 1 })
      expect(none.json).toHaveProperty('error.code', 404)
      expectError(await alice.call('GET', '/v2/nothing/here'), 404, 'NAME_UNKNOWN')
      const wrong = await alice.call('PATCH', '/v2/alice/oci/x/manifests/latest')
      expectError(wrong, 405, 'UNSUPPORTED')
      expect(wrong.headers.get('allow')).toBe('DELETE, GET, HEAD, PUT')
    })

    describe('blobs', () => {
      const bytes = randomBytes(50_000)
      const digest = digestOf(bytes)

      test('in one POST, in POST and PUT, and in POST, PATCH and PUT', async () => {
        const [one, two, three] = [fresh(), fresh(), fresh()]
        await expectNoBlob(one, digest)
        await alice.blob(one, bytes)
        await expectBlob(one, bytes)
        const put = await alice.close(await alice.open(two), digest, bytes)
        expect(put.status, put.text).toBe(201)
        expect(alice.location(put)).toBe(`/v2/${two}/blobs/${digest}`)
        expect(put.headers.get('docker-content-digest')).toBe(digest)
        await expectBlob(two, bytes)
        const patched = await alice.add(await alice.open(three), bytes)
        expect([patched.status, patched.headers.get('range')]).toEqual([202, '0-49999'])
        const closed = await alice.close(alice.location(patched), digest)
        expect(closed.status, closed.text).toBe(201)
        await expectBlob(three, bytes)
        // repeating what has succeeded is success
        expect((await alice.close(alice.location(patched), digest)).status).toBe(201)
      })

      test('in chunks, with and without the last one in the PUT', async () => {
        for (const lastInPut of [true, false]) {
          const repository = fresh()
          let at = await alice.open(repository)
          for (let start = 0; start < bytes.length; start += 20_000) {
            const chunk = bytes.subarray(start, start + 20_000)
            const end = start + chunk.length
            if (lastInPut && end === bytes.length) {
              const range = { 'content-range': `${start}-${end - 1}` }
              expect((await alice.close(at, digest, chunk, range)).status).toBe(201)
              break
            }
            const answer = await alice.add(at, chunk, start)
            expect([answer.status, answer.headers.get('range')]).toEqual([202, `0-${end - 1}`])
            at = alice.location(answer)
            const status = await alice.call('GET', at)
            expect([status.status, status.headers.get('range')]).toEqual([204, `0-${end - 1}`])
          }
          if (!lastInPut) expect((await alice.close(at, digest)).status).toBe(201)
          await expectBlob(repository, bytes)
        }
      })

      test('a chunk that is not the next one is refused, and the upload goes on (R47)', async () => {
        const repository = fresh()
        const at = await alice.open(repository)
        const wrong = await alice.add(at, bytes.subarray(0, 10), 5)
        expectError(wrong, 416, 'BLOB_UPLOAD_INVALID')
        expect((await alice.add(at, bytes.subarray(0, 10_000), 0)).status).toBe(202)
        for (const start of [0, 9_999, 10_001, 40_000])
          expectError(
            await alice.add(at, bytes.subarray(0, 10_000), start),
            416,
            'BLOB_UPLOAD_INVALID',
          )
        const short = { 'content-range': '10000-10001' }
        const lying = await alice.call('PATCH', at, bytes.subarray(10_000), short)
        expectError(lying, 416, 'BLOB_UPLOAD_INVALID')
        expectError(
          await alice.close(at, digest, bytes.subarray(0, 9), { 'content-range': '0-8' }),
          416,
          'BLOB_UPLOAD_INVALID',
        )
        expect((await alice.add(at, bytes.subarray(10_000), 10_000)).status).toBe(202)
        expect((await alice.close(at, digest)).status).toBe(201)
        await expectBlob(repository, bytes)
      })

      test('of two chunks at one offset one wins, and the bytes are its (R47)', async () => {
        const repository = fresh()
        const at = await alice.open(repository)
        const bodies = Array.from({ length: 4 }, () => randomBytes(300_000))
        const answers = await Promise.all(bodies.map((body) => alice.add(at, body, 0)))
        const statuses = answers.map(({ status }) => status)
        expect(statuses.toSorted()).toEqual([202, 416, 416, 416])
        const won = bodies[statuses.indexOf(202)] ?? EMPTY
        expect((await alice.close(at, digestOf(won))).status).toBe(201)
        await expectBlob(repository, won)
      })

      test('larger than a part: whole, streamed without a length, in odd chunks', async () => {
        const large = randomBytes(16 * MIB + 12_345)
        const wanted = digestOf(large)
        const whole = fresh()
        const patched = await alice.add(await alice.open(whole), large)
        expect(patched.status, patched.text).toBe(202)
        expect((await alice.close(alice.location(patched), wanted)).status).toBe(201)
        await expectBlob(whole, large)

        const other = Buffer.concat([large, EMPTY])
        const streamed = fresh()
        const answer = await alice.add(await alice.open(streamed), streamOf(other))
        expect([answer.status, answer.headers.get('range')]).toEqual([202, `0-${other.length - 1}`])
        expect((await alice.close(alice.location(answer), digestOf(other))).status).toBe(201)
        await expectBlob(streamed, other)

        const third = Buffer.concat([EMPTY, large])
        const odd = fresh()
        let at = await alice.open(odd)
        const size = 5 * MIB + 3
        for (let start = 0; start < third.length; start += size)
          at = alice.location(await alice.add(at, third.subarray(start, start + size), start))
        expect((await alice.close(at, digestOf(third))).status).toBe(201)
        await expectBlob(odd, third)
      })

      test('a body that breaks off costs its last part, and the upload goes on', async () => {
        const large = randomBytes(18 * MIB)
        const repository = fresh()
        const at = await alice.open(repository)
        await expect(alice.add(at, streamOf(large, 12 * MIB))).rejects.toThrow()
        const status = async () => (await alice.call('GET', at)).headers.get('range')
        await expect.poll(status, { timeout: 10_000 }).toBe(`0-${8 * MIB - 1}`)
        const goOn = async () => (await alice.add(at, large.subarray(8 * MIB), 8 * MIB)).status
        await expect.poll(goOn, { timeout: 10_000, interval: 300 }).toBe(202)
        expect((await alice.close(at, digestOf(large))).status).toBe(201)
        await expectBlob(repository, large)
      })

      test('of zero bytes, and named by SHA-512', async () => {
        const repository = fresh()
        const none = digestOf('')
        expect((await alice.close(await alice.open(repository), none)).status).toBe(201)
        await expectBlob(repository, new Uint8Array())
        await alice.blob(fresh(), new Uint8Array())
        const long = digestOf(bytes, 'sha512')
        for (const chunked of [false, true]) {
          const here = fresh()
          let at = await alice.open(here, '?digest-algorithm=sha512')
          if (chunked) at = alice.location(await alice.add(at, bytes))
          const closed = await alice.close(at, long, chunked ? undefined : bytes)
          expect(closed.status, closed.text).toBe(201)
          await expectBlob(here, bytes, long)
          // it is there by the name that it was given
          await expectNoBlob(here, digest)
        }
      })

      test('bytes of another digest are nobody’s (R1)', async () => {
        const repository = fresh()
        const wrong = digestOf('something else')
        const at = await alice.open(repository)
        expectError(await alice.close(at, wrong, bytes), 400, 'DIGEST_INVALID')
        expectError(await alice.call('GET', at), 404, 'BLOB_UPLOAD_UNKNOWN')
        const chunked = alice.location(await alice.add(await alice.open(repository), bytes))
        expectError(await alice.close(chunked, wrong), 400, 'DIGEST_INVALID')
        const post = `/v2/${repository}/blobs/uploads/?digest=${wrong}`
        expectError(await alice.call('POST', post, bytes), 400, 'DIGEST_INVALID')
        const wrong512 = digestOf('something else', 'sha512')
        expectError(
          await alice.close(await alice.open(repository), wrong512, bytes),
          400,
          'DIGEST_INVALID',
        )
        for (const no of ['sha256:123', 'md5:d41d8cd98f00b204e9800998ecf8427e', 'x', ''])
          expectError(
            await alice.close(await alice.open(repository), no, bytes),
            400,
            'DIGEST_INVALID',
          )
        for (const absent of [wrong, digest, wrong512]) await expectNoBlob(repository, absent)
      })

      test('an upload is its owner’s, in its repository, until it ends (R12, R16)', async () => {
        const repository = fresh()
        const at = await alice.open(repository)
        const other = fresh()
        await alice.open(other)
        const elsewhere = at.replace(repository, other)
        for (const [client, path] of [
          [mallory, at],
          [alice, elsewhere],
          [alice, at.replace(/t=.{5}/, 't=AAAAA')],
          [alice, at.replace(/\?.*/, '?t=')],
        ] as const) {
          expectError(await client.call('GET', path), 404, 'BLOB_UPLOAD_UNKNOWN')
          expectError(await client.add(path, bytes), 404, 'BLOB_UPLOAD_UNKNOWN')
          expectError(await client.close(path, digest, bytes), 404, 'BLOB_UPLOAD_UNKNOWN')
          expectError(await client.call('DELETE', path), 404, 'BLOB_UPLOAD_UNKNOWN')
        }
        expectError(await nobody.add(at, bytes), 401, 'UNAUTHORIZED')
        const going = alice.location(await alice.add(at, bytes))
        expect((await alice.call('DELETE', going)).status).toBe(204)
        expectError(await alice.close(going, digest), 404, 'BLOB_UPLOAD_UNKNOWN')
        expectError(await alice.call('DELETE', going), 404, 'BLOB_UPLOAD_UNKNOWN')
        await expectNoBlob(repository, digest)
      })

      test('ranges', async () => {
        const repository = fresh()
        const path = `/v2/${repository}/blobs/${await alice.blob(repository, bytes)}`
        const part = await nobody.call('GET', path, undefined, { range: 'bytes=10-29' })
        expect([part.status, part.headers.get('content-range')]).toEqual([206, 'bytes 10-29/50000'])
        expect(Buffer.compare(part.bytes, bytes.subarray(10, 30))).toBe(0)
        const beyond = await nobody.call('GET', path, undefined, { range: 'bytes=50000-' })
        expectError(beyond, 416, 'BLOB_UPLOAD_INVALID')
        const known = { 'if-none-match': `"${digest}"` }
        expect((await nobody.call('GET', path, undefined, known)).status).toBe(304)
      })

      test('are stored once, however they come and to wherever', async () => {
        const same = randomBytes(1000)
        await alice.blob(fresh(), same)
        const before = (await target.store.names()).length
        const mine = 'mallory/oci/same'
        for (let i = 0; i < 3; i++) await mallory.blob(mine, same)
        await alice.blob(fresh(), same)
        // surplus copies wait for the sweep; what is read is the one blob
        expect((await target.store.names()).length).toBeLessThanOrEqual(before + 4)
        await expectBlob(mine, same)
      })

      test('100 pushes at once, of the same and of different bytes', async () => {
        const repository = fresh()
        const same = randomBytes(20_000)
        const pushed = await Promise.all(
          Array.from({ length: 100 }, async (_, at) => {
            const content = at % 2 === 0 ? same : randomBytes(5000 + at)
            const query = `?digest=${digestOf(content)}`
            const path = `/v2/${repository}/blobs/uploads/${query}`
            return { content, status: (await alice.call('POST', path, content)).status }
          }),
        )
        expect(new Set(pushed.map(({ status }) => status))).toEqual(new Set([201]))
        for (const { content } of pushed.slice(0, 10)) await expectBlob(repository, content)
      })
    })

    describe('mounts (R31)', () => {
      const mount = (client: OciClient, to: string, digest: string, from?: string) =>
        client.call(
          'POST',
          `/v2/${to}/blobs/uploads/?mount=${digest}${from === undefined ? '' : `&from=${from}`}`,
        )

      test('from what one can read; of everything else nothing is told', async () => {
        const bytes = randomBytes(1000)
        const [shown, hidden] = [fresh(), fresh()]
        const digest = await alice.blob(shown, bytes)
        const secret = await alice.blob(hidden, randomBytes(1000))
        await target.setPrivate(hidden, true)

        const to = 'mallory/oci/mounts'
        const mounted = await mount(mallory, to, digest, shown)
        expect(mounted.status, mounted.text).toBe(201)
        expect(mounted.headers.get('location')).toBe(`/v2/${to}/blobs/${digest}`)
        await expectBlob(to, bytes)
        // from anywhere, and one's own private things
        expect((await mount(mallory, 'mallory/oci/any', digest)).status).toBe(201)
        expect((await mount(alice, hidden, secret, hidden)).status).toBe(201)
        await target.setPrivate(shown, true)

        const refused = [
          await mount(mallory, 'mallory/oci/m2', secret, hidden),
          await mount(mallory, 'mallory/oci/m2', secret),
          await mount(mallory, 'mallory/oci/m2', digestOf('none'), hidden),
          await mount(mallory, 'mallory/oci/m2', secret, 'alice/oci/absent'),
          await mount(mallory, 'mallory/oci/m2', secret, 'NO NAME'),
          await mount(mallory, 'mallory/oci/m2', 'sha256:short', hidden),
        ].map(({ status, text, headers }) => ({
          status,
          text,
          names: [...headers].map(([name]) => name),
        }))
        expect(refused[0]).toMatchObject({ status: 202, text: '' })
        for (const other of refused) expect(other).toEqual(refused[0])
        await expectNoBlob('mallory/oci/m2', secret)
      })
    })

    describe('manifests', () => {
      test('come back byte by byte, with exactly their type', async () => {
        const repository = fresh()
        const odd = { annotations: { 'org.example': 'ü ☃ 💾' }, unknown: [1, { deep: null }] }
        const { manifest, digest, answer } = await alice.image(repository, 'latest', odd)
        expect(answer.headers.get('location')).toBe(`/v2/${repository}/manifests/${digest}`)
        expect(answer.headers.get('docker-content-digest')).toBe(digest)
        expect(answer.headers.get('oci-subject')).toBeNull()
        for (const reference of ['latest', digest])
          for (const method of ['GET', 'HEAD']) {
            const got = await nobody.call(method, `/v2/${repository}/manifests/${reference}`)
            expect(got.status).toBe(200)
            expect(got.headers.get('content-type')).toBe(IMAGE)
            expect(got.headers.get('docker-content-digest')).toBe(digest)
            expect(got.headers.get('content-length')).toBe(`${Buffer.byteLength(manifest)}`)
            expect(got.text).toBe(method === 'GET' ? manifest : '')
          }
        const absent = `/v2/${repository}/manifests/`
        expectError(await alice.call('GET', `${absent}none`), 404, 'MANIFEST_UNKNOWN')
        expectError(await alice.call('GET', `${absent}.no!tag`), 404, 'MANIFEST_UNKNOWN')
        expectError(await alice.call('GET', absent + digestOf('x')), 404, 'MANIFEST_UNKNOWN')
        expectError(await alice.call('GET', `${absent}sha256:x`), 400, 'DIGEST_INVALID')
      })

      test('docker’s types, indexes, indexes of indexes, no layers, foreign layers', async () => {
        const repository = fresh()
        const first = await alice.image(repository, '')
        const docker = {
          schemaVersion: 2,
          mediaType: DOCKER,
          config: describing('application/vnd.docker.container.image.v1+json', EMPTY),
          layers: [
            describing('application/vnd.docker.image.rootfs.foreign.diff.tar.gzip', randomBytes(9)),
          ],
        }
        expect((await alice.put(repository, 'docker', docker, DOCKER)).status).toBe(201)
        const none = { schemaVersion: 2, config: describing(CONFIG, EMPTY), layers: [] }
        expect((await alice.put(repository, 'none', none)).status).toBe(201)
        const inner = JSON.stringify({
          schemaVersion: 2,
          mediaType: INDEX,
          manifests: [describing(IMAGE, Buffer.from(first.manifest))],
        })
        const outer = JSON.stringify({
          schemaVersion: 2,
          mediaType: INDEX,
          manifests: [describing(INDEX, Buffer.from(inner))],
        })
        expectError(
          await alice.put(repository, 'outer', outer, INDEX),
          400,
          'MANIFEST_BLOB_UNKNOWN',
        )
        expect((await alice.put(repository, digestOf(inner), inner, INDEX)).status).toBe(201)
        const long = digestOf(outer, 'sha512')
        expect((await alice.put(repository, 'outer', outer, INDEX)).status).toBe(201)
        expect((await alice.put(repository, long, outer, INDEX)).status).toBe(201)
        const got = await alice.call('GET', `/v2/${repository}/manifests/${long}`)
        expect([got.text, got.headers.get('docker-content-digest')]).toEqual([outer, long])
      })

      test('tags of a manifest by digest, in its query', async () => {
        const repository = fresh()
        const { manifest, digest } = await alice.image(repository, '')
        const put = await alice.put(repository, `${digest}?tag=a&tag=b`, manifest)
        expect([put.status, put.headers.get('oci-tag')]).toEqual([201, 'a, b'])
        for (const tag of ['a', 'b'])
          expect((await alice.call('GET', `/v2/${repository}/manifests/${tag}`)).text).toBe(
            manifest,
          )
        expectError(
          await alice.put(repository, `${digest}?tag=.x`, manifest),
          400,
          'MANIFEST_INVALID',
        )
      })

      test('what is none, or names what is not there, is refused (abuse)', async () => {
        const repository = fresh()
        const layer = randomBytes(100)
        for (const bytes of [EMPTY, layer]) await alice.blob(repository, bytes)
        const config = describing(CONFIG, EMPTY)
        const good = {
          schemaVersion: 2,
          mediaType: IMAGE,
          config,
          layers: [describing(LAYER, layer)],
        }
        const text = JSON.stringify(good)
        const deep = '['.repeat(50_000) + ']'.repeat(50_000)
        const refused: [unknown, string, string?][] = [
          ['', 'MANIFEST_INVALID'],
          ['no json', 'MANIFEST_INVALID'],
          ['[]', 'MANIFEST_INVALID'],
          [`\ufeff${text}`, 'MANIFEST_INVALID'],
          [deep, 'MANIFEST_INVALID'],
          [text.replace(/\}$/, `,"x":${deep}}`), 'MANIFEST_INVALID'],
          [{ ...good, schemaVersion: 1 }, 'MANIFEST_INVALID'],
          [{ ...good, manifests: [] }, 'MANIFEST_INVALID'],
          [{ schemaVersion: 2, manifests: [], layers: [] }, 'MANIFEST_INVALID', INDEX],
          [{ ...good, mediaType: INDEX }, 'MANIFEST_INVALID'],
          [{ ...good, mediaType: undefined }, 'MANIFEST_INVALID', 'text/html'],
          [good, 'MANIFEST_INVALID', 'application/json'],
          [{ ...good, config: undefined }, 'MANIFEST_INVALID'],
          [{ ...good, layers: {} }, 'MANIFEST_INVALID'],
          [{ ...good, layers: [null] }, 'MANIFEST_INVALID'],
          [{ ...good, layers: [{ ...config, size: -1 }] }, 'MANIFEST_INVALID'],
          [{ ...good, layers: [{ ...config, size: 3 }] }, 'MANIFEST_INVALID'],
          [{ ...good, config: { ...config, size: 3 } }, 'MANIFEST_INVALID'],
          [{ ...good, layers: [{ ...config, digest: 'md5:00' }] }, 'MANIFEST_INVALID'],
          [{ ...good, layers: [describing(LAYER, randomBytes(3))] }, 'MANIFEST_BLOB_UNKNOWN'],
          [
            {
              ...good,
              layers: [{ ...describing(LAYER, layer), digest: digestOf(layer, 'sha512') }],
            },
            'MANIFEST_BLOB_UNKNOWN',
          ],
          [
            { ...good, layers: Array.from({ length: 10_000 }, () => describing(LAYER, layer)) },
            'MANIFEST_INVALID',
          ],
          [{ ...good, subject: { digest: 'x' } }, 'MANIFEST_INVALID'],
          [{ ...good, annotations: { a: 1 }, subject: config }, 'MANIFEST_INVALID'],
        ]
        for (const [manifest, code, type] of refused)
          expectError(await alice.put(repository, 'abuse', manifest, type), 400, code)
        // an index cannot name itself: its digest would have to be in it
        const self = {
          schemaVersion: 2,
          mediaType: INDEX,
          manifests: [{ ...config, mediaType: INDEX, digest: digestOf('self') }],
        }
        expectError(
          await alice.put(repository, digestOf('self'), self, INDEX),
          400,
          'DIGEST_INVALID',
        )
        expectError(await alice.put(repository, '.tag', good), 400, 'MANIFEST_INVALID')
        expectError(await alice.put(repository, 'sha256:baddigest', good), 400, 'DIGEST_INVALID')
        expectError(await alice.put(repository, digestOf('other'), good), 400, 'DIGEST_INVALID')
        const list = await alice.call('GET', `/v2/${repository}/tags/list`)
        expect(list.json.tags).toEqual([])
        expect((await alice.put(repository, 'good', good, `${IMAGE}; charset=utf-8`)).status).toBe(
          201,
        )
        const got = await alice.call('HEAD', `/v2/${repository}/manifests/good`)
        expect(got.headers.get('content-type')).toBe(IMAGE)
      })

      test('of 4 MiB are stored', async () => {
        const repository = fresh()
        await alice.blob(repository, EMPTY)
        const base = { schemaVersion: 2, config: describing(CONFIG, EMPTY), layers: [], x: '' }
        const room = 4 * MIB - JSON.stringify(base).length
        // characters of two units and four bytes, wherever the text may be cut
        const filler = 'a' + '💾'.repeat(Math.floor((room - 1) / 4))
        const x = filler + 'b'.repeat(room - Buffer.byteLength(filler))
        const largest = JSON.stringify({ ...base, x })
        expect(Buffer.byteLength(largest)).toBe(4 * MIB)
        const put = await alice.put(repository, 'largest', largest)
        expect(put.status, put.text).toBe(201)
        const got = await alice.call('GET', `/v2/${repository}/manifests/largest`)
        expect(got.text === largest).toBe(true)
      })

      test('of more than 4 MiB are refused', async () => {
        const more = JSON.stringify({ x: 'x'.repeat(4 * MIB - 7) })
        expect(more).toHaveLength(4 * MIB + 1)
        expectError(await alice.put(fresh(), 'more', more), 413, 'SIZE_INVALID')
      })
    })

    describe('lists', () => {
      test('of tags, in order and in pages', async () => {
        const repository = fresh()
        const { manifest } = await alice.image(repository, 'b')
        for (const tag of ['c', 'a', 'B', '_x', '1.0']) await alice.put(repository, tag, manifest)
        const sorted = ['1.0', 'B', '_x', 'a', 'b', 'c']
        const path = `/v2/${repository}/tags/list`
        const all = await nobody.call('GET', path)
        expect(all.json).toEqual({ name: repository, tags: sorted })
        expect(all.headers.get('link')).toBeNull()
        const found: string[] = []
        for (let next = `${path}?n=4`; next !== '';) {
          const page = await nobody.call('GET', next)
          found.push(...page.json.tags)
          next = /^<(.*)>; rel="next"$/.exec(page.headers.get('link') ?? '')?.[1] ?? ''
        }
        expect(found).toEqual(sorted)
        const last = await nobody.call('GET', `${path}?last=_x`)
        expect(last.json.tags).toEqual(['a', 'b', 'c'])
        const none = await nobody.call('GET', `${path}?n=0`)
        expect([none.json.tags, none.headers.get('link')]).toEqual([[], null])
        expectError(await alice.call('GET', '/v2/alice/oci/absent/tags/list'), 404, 'NAME_UNKNOWN')
        expect((await nobody.call('GET', `${path}?n=x`)).status).toBe(400)
      })

      test('of referrers, by type, whether the subject is there or not', async () => {
        const repository = fresh()
        const { manifest, digest } = await alice.image(repository, 'signed')
        const subject = describing(IMAGE, Buffer.from(manifest))
        const annotations = { 'org.example.created': 'today' }
        const typed = { artifactType: 'application/vnd.example.sbom', subject, annotations }
        const one = await alice.image(repository, '', typed)
        expect(one.answer.headers.get('oci-subject')).toBe(digest)
        const two = await alice.image(repository, 'two', { subject })
        const index = JSON.stringify({ schemaVersion: 2, mediaType: INDEX, manifests: [], subject })
        expect((await alice.put(repository, digestOf(index), index, INDEX)).status).toBe(201)
        const path = `/v2/${repository}/referrers/${digest}`
        const list = await nobody.call('GET', path)
        expect(list.headers.get('content-type')).toBe(INDEX)
        expect(list.headers.get('oci-filters-applied')).toBeNull()
        expect(list.json).toMatchObject({ schemaVersion: 2, mediaType: INDEX })
        const expected = [
          {
            mediaType: IMAGE,
            digest: one.digest,
            size: one.manifest.length,
            artifactType: 'application/vnd.example.sbom',
            annotations,
          },
          { mediaType: IMAGE, digest: two.digest, size: two.manifest.length, artifactType: CONFIG },
          { mediaType: INDEX, digest: digestOf(index), size: index.length },
        ].toSorted((a, b) => (a.digest < b.digest ? -1 : 1))
        expect(list.json.manifests).toEqual(expected)
        const filtered = await nobody.call(
          'GET',
          `${path}?artifactType=${encodeURIComponent('application/vnd.example.sbom')}`,
        )
        expect(filtered.headers.get('oci-filters-applied')).toBe('artifactType')
        expect(filtered.json.manifests.map((m: any) => m.digest)).toEqual([one.digest])
        const missing = { ...subject, digest: digestOf('missing') }
        const orphan = await alice.image(repository, '', { subject: missing })
        const found = await nobody.call('GET', `/v2/${repository}/referrers/${missing.digest}`)
        expect(found.json.manifests.map((m: any) => m.digest)).toEqual([orphan.digest])
        expect(
          (await alice.call('DELETE', `/v2/${repository}/manifests/${one.digest}`)).status,
        ).toBe(202)
        const left = await nobody.call('GET', path)
        expect(left.json.manifests).toHaveLength(2)
        for (const none of [
          `${repository}/referrers/${digestOf('x')}`,
          `alice/oci/absent/referrers/${digest}`,
        ]) {
          const empty = await alice.call('GET', `/v2/${none}`)
          expect([empty.status, empty.json.manifests]).toEqual([200, []])
        }
        expectError(await alice.call('GET', `/v2/${repository}/referrers/x`), 400, 'DIGEST_INVALID')
      })

      test('of repositories: what the asker can see', async () => {
        const [shown, hidden] = ['alice/cat/shown', 'alice/cat/hidden']
        await alice.image(shown, 'x')
        await alice.image(hidden, 'x')
        await target.setPrivate(hidden, true)
        const names = async (client: OciClient, query = '') =>
          (await client.call('GET', `/v2/_catalog${query}`)).json.repositories
        expect(await names(nobody)).toContain(shown)
        for (const client of [nobody, mallory]) expect(await names(client)).not.toContain(hidden)
        expect(await names(alice, '?n=2&last=alice/cat/a')).toEqual([hidden, shown])
      })
    })

    test('deletes: a tag, a manifest with its tags, a blob', async () => {
      const repository = fresh()
      const { manifest, digest, layer } = await alice.image(repository, 'a')
      for (const tag of ['b', 'c']) await alice.put(repository, tag, manifest)
      const at = (reference: string) => `/v2/${repository}/manifests/${reference}`
      const blob = `/v2/${repository}/blobs/${digestOf(layer)}`
      expectError(await mallory.call('DELETE', at('a')), 403, 'DENIED')
      expectError(await nobody.call('DELETE', at('a')), 401, 'UNAUTHORIZED')
      expect((await alice.call('DELETE', at('a'))).status).toBe(202)
      expectError(await alice.call('DELETE', at('a')), 404, 'MANIFEST_UNKNOWN')
      expect((await alice.call('HEAD', at(digest))).status).toBe(200)
      // a manifest's blobs are not taken from under it
      expectError(await alice.call('DELETE', blob), 409, 'DENIED')
      expect((await alice.call('DELETE', at(digest))).status).toBe(202)
      for (const reference of ['b', 'c', digest])
        expectError(await alice.call('GET', at(reference)), 404, 'MANIFEST_UNKNOWN')
      expect((await alice.call('DELETE', blob)).status).toBe(202)
      expectError(await alice.call('GET', blob), 404, 'BLOB_UNKNOWN')
      expectError(await alice.call('DELETE', blob), 404, 'BLOB_UNKNOWN')
      expect((await alice.call('GET', `/v2/${repository}/tags/list`)).json.tags).toEqual([])
    })

    describe('names', () => {
      test('of any depth; three components are what the library has', async () => {
        for (const name of [
          'alice/two',
          'alice/deep/er/and/deeper',
          'alice/o__d--d/x_y.z/manifests/blobs/tags',
          `alice/${'long/'.repeat(40)}end`,
        ]) {
          const { manifest } = await alice.image(name, 'x')
          expect((await nobody.call('GET', `/v2/${name}/manifests/x`)).text).toBe(manifest)
        }
        // the same place by its other name
        expect((await nobody.call('GET', '/v2/alice/default/two/tags/list')).json.tags).toEqual([
          'x',
        ])
        await alice.image('alice/met/box', 'x')
        const met = await library.call('GET', '/v1/containers/alice/met/box')
        expect(met.json.data).toMatchObject({ name: 'box', collectionName: 'met' })
      })

      test('that are none, or reserved, are refused before any lookup', async () => {
        for (const name of ['imagefile/x', 'tags/x'])
          expect((await alice.call('GET', `/v2/${name}/manifests/x`)).status).toBe(404)
        for (const name of [
          'Alice/x',
          'alice//x',
          'alice/x-',
          'alice/.x',
          'alice/___x',
          'v1/x',
          `alice/${'0'.repeat(24)}`,
          `alice/${'x'.repeat(255)}`,
        ])
          for (const client of [alice, nobody])
            expectError(await client.call('GET', `/v2/${name}/manifests/x`), 400, 'NAME_INVALID')
      })
    })

    test('private is absent, by every route (R31)', async () => {
      const secret = 'alice/hush/boxa'
      const { digest, layer } = await alice.image(secret, 'latest')
      await alice.image('alice/shown/box', 'latest')
      await target.setPrivate('alice/hush', true)
      const absent = 'alice/none/boxb'
      const asks = (name: string): [string, string, string?][] => [
        ['GET', `/v2/${name}/manifests/latest`],
        ['HEAD', `/v2/${name}/manifests/latest`],
        ['GET', `/v2/${name}/manifests/${digest}`],
        ['GET', `/v2/${name}/blobs/${digestOf(layer)}`],
        ['HEAD', `/v2/${name}/blobs/${digestOf(layer)}`],
        ['GET', `/v2/${name}/tags/list`],
        ['GET', `/v2/${name}/referrers/${digest}`],
        ['DELETE', `/v2/${name}/manifests/latest`],
        ['DELETE', `/v2/${name}/manifests/${digest}`],
        ['DELETE', `/v2/${name}/blobs/${digestOf(layer)}`],
        ['POST', `/v2/${name}/blobs/uploads/`],
        ['POST', `/v2/${name}/blobs/uploads/?mount=${digestOf(layer)}&from=${name}`],
        [
          'PUT',
          `/v2/${name}/manifests/new`,
          `{"schemaVersion":2,"mediaType":"${INDEX}","manifests":[]}`,
        ],
      ]
      const told = async (client: OciClient, name: string) => {
        const answers: string[] = []
        for (const [method, path, body] of asks(name)) {
          const answer = await client.call(
            method,
            path,
            body,
            body === undefined ? {} : { 'content-type': INDEX },
          )
          const headers = [...answer.headers].filter(
            ([header]) => !['date', 'x-request-id', 'ratelimit'].includes(header),
          )
          answers.push(
            JSON.stringify([method, answer.status, headers, answer.text]).replaceAll(name, 'NAME'),
          )
        }
        return answers
      }
      for (const client of [nobody, mallory])
        expect(await told(client, secret)).toEqual(await told(client, absent))
      expectError(await nobody.call('GET', `/v2/${secret}/tags/list`), 401, 'UNAUTHORIZED')
      expectError(await mallory.call('GET', `/v2/${secret}/tags/list`), 404, 'NAME_UNKNOWN')
      expect((await alice.call('GET', `/v2/${secret}/tags/list`)).json.tags).toEqual(['latest'])
    })

    test('nobody pushes to what is not theirs', async () => {
      for (const name of ['alice/oci/theirs', 'alice/new/theirs', 'somebody/x/y', 'plain'])
        expectError(await mallory.call('POST', `/v2/${name}/blobs/uploads/`), 403, 'DENIED')
    })
  })

  describe(`${name}: OCI under a quota`, () => {
    test('blobs count for their owner, equal ones and those of images once', async () => {
      const target = await makeTarget({ env: { SREG_DEFAULT_QUOTA: '100000' } })
      try {
        const { jwt } = await target.mint('alice')
        const alice = ociClient(target.url, jwt)
        const bytes = Buffer.from(sampleSif())
        const filler = randomBytes(90_000 - bytes.length)
        await libraryClient(target.url, jwt).push('alice/c/x', bytes)
        for (const repository of ['alice/c/x', 'alice/c/y', 'alice/d/z']) {
          await alice.blob(repository, bytes)
          await alice.blob(repository, filler)
        }
        const more = randomBytes(10_001)
        const query = `?digest=${digestOf(more)}`
        expectError(
          await alice.call('POST', `/v2/alice/c/x/blobs/uploads/${query}`, more),
          403,
          'DENIED',
        )
        for (const repository of ['alice/c/x', 'alice/c/y'])
          expect(
            (await alice.call('DELETE', `/v2/${repository}/blobs/${digestOf(filler)}`)).status,
          ).toBe(202)
        expect(
          (await alice.call('POST', `/v2/alice/c/x/blobs/uploads/${query}`, more)).status,
        ).toBe(403)
        expect((await alice.call('DELETE', `/v2/alice/d/z/blobs/${digestOf(filler)}`)).status).toBe(
          202,
        )
        await alice.blob('alice/c/x', more)
      } finally {
        await target.stop()
      }
    })
  })
}
