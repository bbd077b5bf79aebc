/** Discovery, identity, pages and the shape of every refusal (apptainer-wire.md §2, protocol.md §1–3). */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Target, TargetOptions } from '../runtimes/target.ts'
import { expectData, expectMalformed, expectRefusal } from './answers.ts'
import { libraryClient, type LibraryClient } from './client.ts'
import { rawGet } from './raw.ts'

const CONFIG = '/assets/config/config.prod.json'

export function describeDiscovery(
  name: string,
  makeTarget: (options?: TargetOptions) => Promise<Target>,
): void {
  describe(`discovery, identity and pages: ${name}`, () => {
    let target: Target
    let url: string
    let jwt: string
    let alice: LibraryClient
    let nobody: LibraryClient
    beforeAll(async () => {
      target = await makeTarget()
      url = target.url
      jwt = (await target.mint('alice')).jwt
      alice = libraryClient(url, jwt)
      nobody = libraryClient(url)
    })
    afterAll(() => target.stop())

    test('the discovery document holds objects only and is not cached (R33)', async () => {
      const answer = await nobody.call('GET', CONFIG)
      expect(answer.status).toBe(200)
      expect(answer.json).toEqual({
        libraryAPI: { uri: url, registryUri: url },
        keystoreAPI: { uri: url },
        tokenAPI: { uri: url },
      })
      expect(answer.headers.get('cache-control')).toContain('no-store')
    })

    test('links follow X-Forwarded-* of a trusted peer, its last hop (R33)', async () => {
      const through = async (headers: Record<string, string>) =>
        (await nobody.call('GET', CONFIG, undefined, headers)).json.libraryAPI.uri
      const proto = { 'x-forwarded-proto': 'https' }
      expect(await through({ 'x-forwarded-host': 'reg.example.org', ...proto })).toBe(
        'https://reg.example.org',
      )
      expect(await through({ 'x-forwarded-host': 'evil.example, reg.example.org:8443' })).toBe(
        'http://reg.example.org:8443',
      )
      const evil = { 'x-forwarded-host': 'reg.example.org/path?' }
      expectRefusal(await nobody.call('GET', CONFIG, undefined, evil), 400, /host/i)
      const scheme = { 'x-forwarded-proto': 'javascript' }
      expectRefusal(await nobody.call('GET', CONFIG, undefined, scheme), 400, /host/i)
    })

    test('a Host that is no host[:port] is refused, not repeated (R33)', async () => {
      for (const host of [
        'evil"><script>',
        'a/b',
        'user@evil',
        'a b',
        '',
        `${'a'.repeat(300)}.org`,
      ])
        expectMalformed(target, await rawGet(url, CONFIG, `Host: ${host}`), 400, /\w/)
      const upper = await rawGet(url, CONFIG, 'Host: Registry.Example.org:8080')
      expect(upper.status).toBe(200)
      expectMalformed(target, await rawGet(url, CONFIG, 'Host: a.org', 'Host: b.org'), 400, /\w/)
    })

    test('version says that parts and tags per arch work', async () => {
      const data = expectData(await nobody.call('GET', '/version'))
      expect(data).toEqual({ version: expect.any(String), apiVersion: '2.0.0-alpha.2' })
    })

    test('token-status is 200 or 404, never 401: only 404 reads "Invalid Credentials"', async () => {
      const status = async (token: string | null) =>
        libraryClient(url, token).call('GET', '/v1/token-status')
      expectData(await status(jwt))
      const { jwt: revoked, id } = await target.mint('alice')
      await target.revoke(id)
      const { jwt: expired } = await target.mint('alice', {
        expires: new Date(Date.now() - 100_000),
      })
      const altered = jwt.replace(/.{4}$/, 'AAAA')
      for (const token of [revoked, expired, altered, '', 'x', null, jwt.slice(0, -5), `${jwt}.x`])
        expectRefusal(await status(token), 404)
    })

    test('rbac/users/current is bare JSON and mints nothing (R36)', async () => {
      const answer = await alice.call('GET', '/v1/rbac/users/current')
      expect(answer.status).toBe(200)
      expect(answer.json).toMatchObject({
        username: 'alice',
        realname: expect.any(String),
        email: expect.stringMatching(/^alice@/),
        oidc_user_meta: { secret: jwt },
      })
      expect(answer.json).not.toHaveProperty('data')
      expect(answer.headers.get('cache-control')).toContain('no-store')
      expectRefusal(await nobody.call('GET', '/v1/rbac/users/current'), 401)
      const empty = await rawGet(url, '/v1/rbac/users/current', 'Authorization: Bearer ')
      expectRefusal(empty, 401)
    })

    test('username and secret log in to the OCI registry that registryUri names', async () => {
      const { username, oidc_user_meta: meta } = (await alice.call('GET', '/v1/rbac/users/current'))
        .json
      const { registryUri } = (await nobody.call('GET', CONFIG)).json.libraryAPI
      const asking = async (password: string) => {
        const authorization = `Basic ${btoa(`${username}:${password}`)}`
        return (await nobody.call('GET', `${registryUri}/v2/`, undefined, { authorization })).status
      }
      expect(await asking(meta.secret)).toBe(200)
      expect(await asking(meta.secret.replace(/.{4}$/, 'AAAA'))).toBe(401)
    })

    test('oci-redirect is 404, so that clients stay with the library API', async () => {
      const query = 'accessTypes=pull%2Cpush&mapped=1&namespace=e%2Fc%2Fn'
      expectRefusal(await alice.call('GET', `/v1/oci-redirect?${query}`), 404)
    })

    test('the JWKS holds no private member (R37)', async () => {
      const { status, json } = await nobody.call('GET', '/.well-known/jwks.json')
      expect(status).toBe(200)
      expect(json.keys.length).toBeGreaterThan(0)
      for (const key of json.keys) {
        expect(key).toMatchObject({ kty: 'OKP', crv: 'Ed25519', alg: 'EdDSA', use: 'sig' })
        expect(Object.keys(key).toSorted()).toEqual(['alg', 'crv', 'kid', 'kty', 'use', 'x'])
      }
    })

    test('/ judges an Authorization header as keyserver login needs it', async () => {
      const home = (authorization?: string) =>
        nobody.call('GET', '/', undefined, authorization === undefined ? {} : { authorization })
      const basic = (password: string) => `Basic ${btoa(`alice:${password}`)}`
      for (const header of [undefined, `Bearer ${jwt}`, 'Bearer', basic(jwt)]) {
        const { status, headers, text } = await home(header)
        expect([status, header]).toEqual([200, header])
        expect(headers.get('content-type')).toMatch(/^text\/html/)
        expect(headers.get('cache-control')).toContain('no-store')
        expect(text).toContain(url)
      }
      const { jwt: revoked, id } = await target.mint('alice')
      await target.revoke(id)
      for (const header of ['Bearer x', basic('x'), basic(''), 'Basic !', basic(revoked)])
        expectRefusal(await home(header), 401)
    })

    test('/auth/tokens and the container page are plain pages that repeat nothing unescaped', async () => {
      const tokens = await nobody.call('GET', '/auth/tokens')
      expect(tokens.status).toBe(200)
      expect(tokens.text).toContain('sreg-lite token create')
      expect(tokens.headers.get('content-security-policy')).toContain("default-src 'none'")
      expect((await nobody.call('GET', '/library/no/such/thing')).status).toBe(200)
      expectRefusal(await nobody.call('GET', '/library/a/b/%3Cscript%3E'), 400)
    })

    test('healthz and readyz answer', async () => {
      expect((await nobody.call('GET', '/healthz')).json).toEqual({ status: 'ok' })
      const ready = await nobody.call('GET', '/readyz')
      expect([ready.status, ready.json.status]).toEqual([200, 'ok'])
    })

    test('an unknown key and the builder, which does not exist, refuse in the envelope', async () => {
      const lookup = '/pks/lookup?op=get&exact=on&search=0x6b402c175ea0f487'
      expectRefusal(await nobody.call('GET', lookup), 404)
      const empty = await rawGet(url, lookup, 'Authorization: Bearer ')
      expectRefusal(empty, 404)
      expectRefusal(await alice.call('POST', '/v1/build', {}), 501)
      expectRefusal(await alice.call('POST', '/v1/build-context', {}), 501)
    })

    test('unknown addresses are 404 and other methods 405 with Allow, in the envelope (R28)', async () => {
      const unknown = ['/v1', '/v1/nothing', '/v2/tags', '/assets/x', '/pks/x', '/favicon.ico']
      for (const path of [...unknown, '/v2/imagefile', '/a/b/c/d', '/v1/build/x/_cancel'])
        expectRefusal(await alice.call('GET', path), 404)
      const others: [string, string, string][] = [
        ['POST', CONFIG, 'GET, HEAD'],
        ['POST', '/version', 'GET, HEAD'],
        ['DELETE', '/v1/entities', 'GET, HEAD, POST'],
        ['PATCH', '/v1/images/a/b/c:d', 'DELETE, GET, HEAD'],
        ['POST', '/v1/search?value=abc', 'GET, HEAD'],
        ['DELETE', '/v2/tags/0123456789abcdef01234567', 'GET, HEAD, POST'],
        ['GET', '/v2/imagefile/0123456789abcdef01234567/_complete', 'PUT'],
        ['POST', '/v1/blob', 'GET, HEAD, PUT'],
        ['OPTIONS', '/v1/images/a/b/c:d', 'DELETE, GET, HEAD'],
        ['DELETE', '/', 'GET, HEAD'],
        ['GET', '/pks/add', 'POST'],
      ]
      for (const [method, path, allow] of others) {
        const answer = await nobody.call(method, path)
        expectRefusal(answer, 405)
        expect([path, answer.headers.get('allow')]).toEqual([path, allow])
      }
    })

    test('every answer has a request id, nosniff and no-referrer (R32, R34)', async () => {
      for (const path of ['/', '/version', '/nothing', '/v1/entities/nobody', '/v1/blob?t=x']) {
        const own = await nobody.call('GET', path, undefined, { 'x-request-id': 'abc-1' })
        expect(own.headers.get('x-request-id')).toBe('abc-1')
        expect(own.headers.get('x-content-type-options')).toBe('nosniff')
        expect(own.headers.get('referrer-policy')).toBe('no-referrer')
        const sane = { 'x-request-id': 'a b"<' }
        const made = await nobody.call('GET', path, undefined, sane)
        expect(made.headers.get('x-request-id')).toMatch(/^[0-9a-f]{24}$/)
      }
    })

    test('the scheme word has any case, and an empty bearer is nobody', async () => {
      for (const word of ['Bearer', 'BEARER', 'bearer']) {
        const headers = { authorization: `${word} ${jwt}` }
        const own = expectData(await nobody.call('GET', '/v1/entities', undefined, headers))
        expect(own).toMatchObject([{ name: 'alice' }])
      }
      for (const header of ['Authorization: Bearer ', 'Authorization: BEARER', 'Authorization:']) {
        const { status, body } = await rawGet(url, '/v1/entities', header)
        expect([status, body.toString()]).toEqual([200, '{"data":[]}'])
      }
      const { jwt: expired } = await target.mint('alice', {
        expires: new Date(Date.now() - 100_000),
      })
      for (const header of [
        'Bearer x',
        `Basic ${btoa(`alice:${jwt}`)}`,
        jwt,
        `Bearer ${expired}`,
      ]) {
        const answer = await nobody.call('GET', '/v1/entities', undefined, {
          authorization: header,
        })
        expectRefusal(answer, 401)
      }
    })

    test('a bad token is refused before anything is looked up (R26)', async () => {
      const bad = libraryClient(url, 'not-a-token')
      target.trips?.()
      for (const [method, path, body] of [
        ['GET', '/v1/entities/alice'],
        ['GET', '/v1/images/alice/a/b:c'],
        ['POST', '/v1/collections', { name: 'x', entity: 'x' }],
        ['DELETE', '/v1/images/alice/a/b:c?arch=amd64'],
      ] as const)
        expectRefusal(await bad.call(method, path, body), 401, /token/)
      expect(target.trips?.() ?? []).toEqual([])
    })
  })
}
