/**
 * Input that nobody sends by accident. Every answer comes within a second, in the envelope, without
 * a trace of the inside; afterwards the server lives and has not grown (issue: bad input).
 */
import { createHmac } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { sampleSif } from '../fixtures/sif.ts'
import type { Target, TargetOptions } from '../runtimes/target.ts'
import { expectData, expectMalformed, expectRefusal } from './answers.ts'
import { libraryClient, sha256, type LibraryClient } from './client.ts'
import { rawGet, rawRequest, type RawAnswer } from './raw.ts'

const MIB = 1024 * 1024

export function describeBadInput(
  name: string,
  makeTarget: (options?: TargetOptions) => Promise<Target>,
  /** Resident memory of the server in bytes, where it can be told. */
  rss?: () => number,
): void {
  describe(`bad input: ${name}`, () => {
    const bytes = sampleSif({ content: 'bad input' })
    let target: Target
    let url: string
    let jwt: string
    let tokenId: string
    let alice: LibraryClient
    let ids: Awaited<ReturnType<LibraryClient['ensure']>>
    beforeAll(async () => {
      target = await makeTarget()
      url = target.url
      ;({ jwt, id: tokenId } = await target.mint('alice'))
      alice = libraryClient(url, jwt)
      await alice.push('alice/c/x', bytes)
      ids = await alice.ensure('alice', 'c', 'x')
    })
    afterAll(async () => {
      // alive, and what was there is there
      const pulled = await fetch(`${url}/v1/imagefile/alice/c/x:latest?arch=amd64`)
      expect(sha256(new Uint8Array(await pulled.arrayBuffer()))).toBe(sha256(bytes))
      expect((await fetch(`${url}/readyz`)).status).toBe(200)
      const container = expectData(await alice.call('GET', '/v1/containers/alice/c/x'))
      expect(container.images).toHaveLength(1)
      await target.stop()
    })

    /** An answer must come within a second. */
    async function soon<T>(work: Promise<T>, what = ''): Promise<T> {
      const started = performance.now()
      const answer = await work
      expect(performance.now() - started, what).toBeLessThan(1000)
      return answer
    }

    /** POSTs a body that is made while it is sent, so that this side stays small, too. */
    async function flood(path: string, header: string, chunk: Uint8Array, total: number) {
      const lines = [`POST ${path} HTTP/1.1`, `Authorization: Bearer ${jwt}`, header]
      const { socket, answer } = rawRequest(url, lines)
      const state = { answered: false }
      void answer.then(() => (state.answered = true))
      for (let sent = 0; sent < total && !state.answered; sent += chunk.length) {
        if (!socket.writable) break
        const drained = new Promise<void>((resolve) => socket.once('drain', () => resolve()))
        const next = socket.write(chunk) ? new Promise(setImmediate) : drained
        await Promise.race([next, answer])
      }
      return answer
    }

    const jsonRoutes = () => [
      ['POST', '/v1/entities'],
      ['POST', '/v1/collections'],
      ['POST', '/v1/containers'],
      ['POST', '/v1/images'],
      ['POST', `/v1/tags/${ids.container}`],
      ['POST', `/v2/tags/${ids.container}`],
      ['POST', `/v2/imagefile/${'a'.repeat(24)}`],
      ['POST', `/v2/imagefile/${'a'.repeat(24)}/_multipart`],
      ['PUT', `/v2/imagefile/${'a'.repeat(24)}/_multipart`],
      ['PUT', `/v2/imagefile/${'a'.repeat(24)}/_multipart_complete`],
      ['PUT', `/v2/imagefile/${'a'.repeat(24)}/_multipart_abort`],
    ]

    test('JSON of 50 MB is refused before it is buffered (R54)', async () => {
      const chunk = new Uint8Array(65_536).fill(0x20)
      const total = 50 * MIB
      const before = rss?.() ?? 0
      for (let i = 0; i < 10; i++) {
        for (const path of ['/v1/entities', `/v2/imagefile/${'a'.repeat(24)}/_multipart`]) {
          const told = await soon(flood(path, `Content-Length: ${total}`, chunk, total), path)
          expectRefusal(told, 413, /larger/)
        }
        const framed = Buffer.concat([Buffer.from('10000\r\n'), chunk, Buffer.from('\r\n')])
        const chunked = await soon(flood('/v1/images', 'Transfer-Encoding: chunked', framed, total))
        expectRefusal(chunked, 413, /larger/)
      }
      expect((rss?.() ?? 0) - before).toBeLessThan(64 * MIB)
    })

    test('deep, wide and broken JSON is refused on every route (R54)', async () => {
      const bodies = [
        '['.repeat(30_000) + ']'.repeat(30_000),
        '{"a":'.repeat(10_000) + '1' + '}'.repeat(10_000),
        `{${Array.from({ length: 6000 }, (_, i) => `"k${i}":0`).join(',')}}`,
        '{"name":"x"',
        'null',
        '[]',
        '"x"',
        '1e999',
        '{"__proto__":{"name":"x"}}',
        '\u0000',
        '{"name":{"toString":"x"},"hash":[],"Tag":{},"filesize":{}}',
      ]
      for (const [method = '', path = ''] of jsonRoutes())
        for (const body of bodies)
          expectRefusal(await soon(alice.call(method, path, body), path), 400, /body/)
      const latin = Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])
      expectRefusal(await alice.call('POST', '/v1/entities', latin), 400, /UTF-8/)
      const gzip = { 'content-encoding': 'gzip' }
      expectRefusal(
        await alice.call('POST', '/v1/entities', Buffer.from('1f8b08', 'hex'), gzip),
        400,
      )
    })

    test('100,000 levels and a million keys do not fit (R54)', async () => {
      const deep = '['.repeat(100_000)
      expectRefusal(await soon(alice.call('POST', '/v1/entities', deep)), 413)
      const wide = `{${Array.from({ length: 1_000_000 }, (_, i) => `"${i}":0`).join(',')}}`
      expectRefusal(await soon(alice.call('POST', '/v1/entities', wide)), 413)
      // the one route that takes megabytes, for its list of parts
      const complete = `/v2/imagefile/${'a'.repeat(24)}/_multipart_complete`
      expectRefusal(await soon(alice.call('PUT', complete, deep)), 400, /levels|JSON/)
      expectRefusal(await soon(alice.call('PUT', complete, wide)), 413)
      const keys = wide.slice(0, 2_000_000).replace(/,[^,]*$/, '}')
      expectRefusal(await soon(alice.call('PUT', complete, keys)), 400)
      const completedParts = Array.from({ length: 10_001 }, (_, i) => ({
        partNumber: i + 1,
        token: 'x',
      }))
      expectRefusal(await soon(alice.call('PUT', complete, { uploadID: 'x', completedParts })), 400)
    })

    test('large headers and addresses', async () => {
      const padded = await soon(rawGet(url, '/version', `X-Padding: ${'x'.repeat(65_536)}`))
      expectMalformed(target, padded, 431, /16 KiB/)
      const many = Array.from({ length: 5000 }, (_, i) => `X-${i}: ${i}`)
      expectMalformed(target, await soon(rawGet(url, '/version', ...many)), 431)
      for (const path of [`/v1/images/${'a'.repeat(16_384)}`, `/version?${'a'.repeat(16_384)}`]) {
        const { status } = await soon(rawGet(url, path))
        expect([400, 414, 431]).toContain(status)
      }
      const long = await soon(rawGet(url, `/v1/images/${'a/'.repeat(5000)}`))
      expectRefusal(long, 400, /three parts/)
      const bearer = `Authorization: Bearer ${'a.'.repeat(5000)}`
      expectRefusal(await soon(rawGet(url, '/v1/entities', bearer)), 401)
    })

    test('requests that are no HTTP', async () => {
      const says = async (lines: string[], body = ''): Promise<RawAnswer> =>
        soon(rawRequest(url, lines, body).answer)
      expectMalformed(target, await says(['NONSENSE']), 400)
      // two requests: the Host that is added goes to the second
      const line = 'GET /version HTTP/1.1'
      const hostless = rawRequest(url, [`${line}\r\n\r\n${line}`]).answer
      expectMalformed(target, await soon(hostless), 400, /Host/)
      const expecting = ['POST /v1/entities HTTP/1.1', 'Expect: a-miracle', 'Content-Length: 2']
      expectRefusal(await says(expecting, '{}'), 401)
      expectMalformed(target, await says(['GET /version HTTP/9.9']), 400)
      expectMalformed(target, await says(['GET /version HTTP/1.1', 'no colon here']), 400)
      expectMalformed(target, await says(['GET /version HTTP/1.1', 'X: a\u0000b']), 400)
      expectMalformed(target, await says(['GET /a b HTTP/1.1']), 400)
      const both = ['POST /v1/entities HTTP/1.1', 'Content-Length: 2', 'Transfer-Encoding: chunked']
      expectMalformed(target, await says(both, '{}'), 400)
      const twice = ['POST /v1/entities HTTP/1.1', 'Content-Length: 2', 'Content-Length: 3']
      expectMalformed(target, await says(twice, '{}x'), 400)
      const absolute = await says([
        `GET http://evil.example/assets/config/config.prod.json HTTP/1.1`,
      ])
      if (absolute.status === 200) expect(absolute.body.toString()).not.toContain('evil')
      else expectRefusal(absolute, 400)
    })

    test('names that are paths, bytes, capitals, long or of other scripts', async () => {
      const bad = [
        '..',
        '%2e%2e',
        '%2e%2e%2f',
        '..%2f..%2fetc%2fpasswd',
        '%00',
        'a%00b',
        '%0d%0aX:%20y',
        '%5c..%5c',
      ]
      const more = [
        'A',
        'Alice',
        'a'.repeat(300),
        '%C3%A9',
        '%D0%B0lice',
        '%E2%80%AE',
        'a.',
        'con.',
        '%',
        '%zz',
        '%ff',
        'a%2fb',
        '~',
        "a'b",
        'a;b',
        '%25',
        'a b'.replace(' ', '%20'),
      ]
      for (const word of [...bad, ...more])
        for (const path of [
          `/v1/entities/${word}`,
          `/v1/collections/alice/${word}`,
          `/v1/collections/${word}/c`,
          `/v1/containers/alice/c/${word}`,
          `/v1/images/alice/c/${word}:latest`,
          `/v1/images/alice/c/x:${word}`,
          `/v1/imagefile/${word}/c/x`,
          `/v1/imagefile/alice/c/x:${word}`,
        ]) {
          const answer = await soon(rawGet(url, path), path)
          // a tag may have capitals, and a path may climb to another address
          const tag = path.includes(':') && /^(?:A|Alice)$/.test(word)
          const climbs = word.startsWith('..') || word === '%2e%2e'
          expect([path, climbs || tag ? [400, 404] : [400]]).toEqual([
            path,
            expect.arrayContaining([answer.status]),
          ])
          expectRefusal(answer, answer.status)
        }
      const climbing = '/v1/images/../../../../etc/passwd'
      // not every runtime takes the dots out of a path
      const climbed = await rawGet(url, climbing)
      expect([400, 404]).toContain(climbed.status)
      expectRefusal(climbed, climbed.status)
      const odd = [
        '//evil.example/version',
        '/v1//images//alice/c/x',
        '/v1/images\\alice',
        '/\\evil',
      ]
      for (const path of odd) {
        const answer = await soon(rawGet(url, path), path)
        expectRefusal(answer, answer.status === 404 ? 404 : 400)
      }
    })

    test('the longest hostile names cost no time (ReDoS)', async () => {
      const long = 60_000
      for (const name of [
        'a'.repeat(long),
        'a-'.repeat(long / 2),
        '-'.repeat(long),
        'a..'.repeat(long / 3),
      ]) {
        expectRefusal(await soon(alice.call('POST', '/v1/entities', { name })), 400)
        const body = { Arch: 'amd64', Tag: name, ImageID: 'x' }
        expectRefusal(await soon(alice.call('POST', `/v2/tags/${ids.container}`, body)), 400)
        const hash = { hash: `sha256.${name}`, container: ids.container }
        expectRefusal(await soon(alice.call('POST', '/v1/images', hash)), 400)
      }
      const short = 8000
      for (const range of [
        `bytes=${'0-'.repeat(short / 2)}`,
        `bytes=${' '.repeat(short)}x`,
        `bytes=${'0-1,'.repeat(short / 4)}`,
      ]) {
        const answer = await soon(rawGet(url, '/v1/imagefile/alice/c/x', `Range: ${range}`))
        expectRefusal(answer, 416)
      }
      const match = `If-None-Match: ${'"x", '.repeat(short / 5)}`
      expect((await soon(rawGet(url, '/v1/imagefile/alice/c/x', match))).status).toBe(200)
      const forwarded = `X-Forwarded-For: ${'1.2.3.4, '.repeat(short / 9)}`
      expect((await soon(rawGet(url, '/version', forwarded))).status).toBe(200)
    })

    test('forged tokens are 401 (R13)', async () => {
      const base64 = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
      const [head = '', claims = '', signature = ''] = jwt.split('.')
      const header = JSON.parse(Buffer.from(head, 'base64url').toString())
      const payload = JSON.parse(Buffer.from(claims, 'base64url').toString())
      const { keys } = (await alice.call('GET', '/.well-known/jwks.json')).json
      const hmac = (key: string | Buffer, body: string) =>
        `${body}.${createHmac('sha256', key).update(body).digest('base64url')}`
      const hs256 = `${base64({ ...header, alg: 'HS256' })}.${claims}`
      const other = await makeTarget()
      const foreign = (await other.mint('alice')).jwt
      await other.stop()
      const forged = [
        `${base64({ ...header, alg: 'none' })}.${claims}.`,
        `${base64({ ...header, alg: 'None' })}.${claims}.${signature}`,
        `${base64({ typ: 'JWT', alg: 'none' })}.${claims}.`,
        hmac(keys[0].x, hs256),
        hmac(Buffer.from(keys[0].x, 'base64url'), hs256),
        hmac(JSON.stringify(keys[0]), hs256),
        hmac('', hs256),
        `${head}.${base64({ ...payload, scope: 'admin push pull' })}.${signature}`,
        `${head}.${base64({ ...payload, exp: payload.exp + 1e9 })}.${signature}`,
        `${base64({ ...header, kid: '../../../dev/null' })}.${claims}.${signature}`,
        `${base64({ ...header, jwk: keys[0] })}.${claims}.${signature}`,
        `${base64({ ...header, crit: ['x'] })}.${claims}.${signature}`,
        `${head}.${claims}.`,
        `${head}.${claims}`,
        `${head}..${signature}`,
        '..',
        foreign,
        tokenId,
      ]
      for (const token of forged) {
        const who = libraryClient(url, token)
        expectRefusal(await soon(who.call('GET', '/v1/entities'), token), 401, /token/)
        expectRefusal(await who.call('POST', '/v1/entities', { name: 'alice' }), 401)
        expectRefusal(await who.call('GET', '/v1/token-status'), 404)
      }
      expectData(await alice.call('GET', '/v1/token-status'))
      // a token in the query is no token
      expectRefusal(
        await libraryClient(url).call('POST', `/v1/entities?token=${jwt}`, { name: 'alice' }),
        401,
      )
    })

    test('a thousand refusals leave the memory as it was', async () => {
      const round = async () => {
        await Promise.all([
          alice.call('POST', '/v1/entities', '['.repeat(60_000)),
          libraryClient(url, 'x'.repeat(4000)).call('GET', '/v1/entities'),
          alice.call('GET', `/v1/images/${'a'.repeat(3000)}`),
          alice.call('PUT', `/v1/blob?t=${'x'.repeat(2000)}`, new Uint8Array(60_000)),
        ])
      }
      for (let i = 0; i < 50; i++) await round()
      const before = rss?.() ?? 0
      for (let i = 0; i < 250; i++) await round()
      expect((rss?.() ?? 0) - before).toBeLessThan(64 * MIB)
    })
  })
}
