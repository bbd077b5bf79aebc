/**
 * Logins to the OCI side, request by request as docker and go-containerregistry make them, and what
 * their tokens open (protocol.md §11.5; R13, R14, R31, R36, R58).
 */
import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { decodeJwt, decodeProtectedHeader } from 'jose'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { SCOPES } from '../../src/core/model.ts'
import type { Target, TargetOptions } from '../runtimes/target.ts'
import { expectAlike, expectData, expectRefusal } from './answers.ts'
import { libraryClient, sha256 } from './client.ts'
import { ociClient, type OciClient } from './oci.ts'

type Read = Awaited<ReturnType<OciClient['call']>>
type Headers_ = Record<string, string>

const basic = (password: string, user = 'whoever'): Headers_ => ({
  authorization: `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`,
})
const repository = (name: string, actions: string) => `repository:${name}:${actions}`

/** Parts of a Bearer challenge, as clients read them. */
function challengeOf(answer: Read): { realm: string; service: string; scope: string | null } {
  expect(answer.status, answer.text.slice(0, 300)).toBe(401)
  expect(answer.json.errors[0].code).toBe('UNAUTHORIZED')
  const text = answer.headers.get('www-authenticate') ?? ''
  const [, realm = '', service = '', scope = null] =
    /^Bearer realm="([^"]+)",service="([^"]+)"(?:,scope="([^"]+)")?$/.exec(text) ?? []
  expect(realm, text).not.toBe('')
  return { realm, service, scope }
}

/** Addresses of documentation, each asked from once. */
let addresses = 0
const newAddress = () => `198.51.100.${++addresses}`

/** `clientIs` names the header by which the runtime is told of a client. */
export function describeOciAuth(
  name: string,
  makeTarget: (options?: TargetOptions) => Promise<Target>,
  { clientIs = 'x-forwarded-for' }: { clientIs?: string } = {},
): void {
  describe(`${name}: OCI logins`, () => {
    let target: Target
    let jwt: string
    let nobody: OciClient
    let host: string
    let pushed: Awaited<ReturnType<OciClient['image']>>

    /** Asks the token endpoint; null asks as nobody. */
    const ask = (scopes: string[], headers: Headers_ = {}, url = target.url) => {
      const query = new URLSearchParams({ service: new URL(url).host })
      for (const scope of scopes) query.append('scope', scope)
      return ociClient(url).call('GET', `/v2/token?${query}`, undefined, headers)
    }
    const tokenOf = (answer: Read): string => {
      expect(answer.status, answer.text).toBe(200)
      return answer.json.token
    }
    const given = (token: string) => (decodeJwt(token) as { access: unknown }).access
    /** A client with an OCI token for these scopes. */
    const with_ = async (scopes: string[], password: string | null = jwt, url = target.url) =>
      ociClient(url, tokenOf(await ask(scopes, password === null ? {} : basic(password), url)))

    beforeAll(async () => {
      target = await makeTarget()
      host = new URL(target.url).host
      jwt = (await target.mint('alice')).jwt
      nobody = ociClient(target.url)
      const alice = ociClient(target.url, jwt)
      pushed = await alice.image('alice/shown/box', 'v1')
      await alice.image('alice/hidden/box', 'v1')
      await target.setPrivate('alice/hidden', true)
    })
    afterAll(() => target.stop())

    describe('docker login', () => {
      test('ping, token without a scope, ping', async () => {
        const ping = await nobody.call('GET', '/v2/')
        const { realm, service, scope } = challengeOf(ping)
        expect([realm, service, scope]).toEqual([`${target.url}/v2/token`, host, null])
        expect(ping.headers.get('docker-distribution-api-version')).toBe('registry/2.0')
        const query = `account=alice&client_id=docker&offline_token=true&service=${service}`
        const path = `${realm.slice(target.url.length)}?${query}`
        const answer = await nobody.call('GET', path, undefined, basic(jwt, 'alice'))
        expect(answer.status).toBe(200)
        expect(answer.headers.get('cache-control')).toContain('no-store')
        const { token, access_token: same, expires_in: seconds, issued_at: at } = answer.json
        // with a refresh_token docker would forget the password
        expect(Object.keys(answer.json)).toEqual([
          'token',
          'access_token',
          'expires_in',
          'issued_at',
        ])
        expect([same, seconds]).toEqual([token, 300])
        expect(Math.abs(Date.parse(at) - Date.now())).toBeLessThan(60_000)
        expect(decodeProtectedHeader(token)).toMatchObject({ typ: 'sreg-oci+jwt', alg: 'EdDSA' })
        const { exp = 0, iat = 0, access } = decodeJwt(token)
        expect([exp - iat, access]).toEqual([300, []])
        const again = await ociClient(target.url, token).call('GET', '/v2/')
        expect([again.status, again.json]).toEqual([200, {}])
        expect(again.headers.get('docker-distribution-api-version')).toBe('registry/2.0')
      })

      test('a wrong password is 401, whatever is wrong with it', async () => {
        const { jwt: revoked, id } = await target.mint('alice')
        await target.revoke(id)
        const expired = await target.mint('alice', { expires: new Date(Date.now() - 100_000) })
        const scope = [repository('alice/shown/box', 'pull')]
        const ociToken = tokenOf(await ask(scope, basic(jwt)))
        for (const wrong of ['', 'password', `${jwt}x`, revoked, expired.jwt, ociToken])
          for (const headers of [basic(wrong), { authorization: `Bearer ${wrong || 'x'}` }])
            for (const scopes of [[], scope]) {
              const answer = await ask(scopes, headers)
              expect(answer.status, answer.text).toBe(401)
              expect(answer.json.errors[0].code).toBe('UNAUTHORIZED')
              expect(answer.json.errors[0].message).toMatch(/^\w.{8}/)
              expect(answer.headers.get('www-authenticate')).toBe(`Basic realm="${host}"`)
              expect(answer.json).not.toHaveProperty('token')
            }
        expect((await ask(scope, { authorization: 'Basic !' })).status).toBe(401)
      })

      test('the bearer does as well as the password, and ends what it gives earlier than itself', async () => {
        expect((await ask([], { authorization: `Bearer ${jwt}` })).status).toBe(200)
        const short = await target.mint('alice', { expires: new Date(Date.now() + 60_000) })
        const { json } = await ask([], basic(short.jwt))
        expect(json.expires_in).toBeLessThanOrEqual(60)
        expect(decodeJwt(json.token).exp).toBeLessThanOrEqual(decodeJwt(short.jwt).exp ?? 0)
      })

      test('POST is 405, on which clients go on with GET', async () => {
        const form = 'grant_type=password&service=x&client_id=y&username=alice&password=z'
        const type = { 'content-type': 'application/x-www-form-urlencoded' }
        const answer = await nobody.call('POST', '/v2/token', form, type)
        expect([answer.status, answer.headers.get('allow')]).toEqual([405, 'GET, HEAD'])
      })
    })

    test('the realm is where a trusted proxy says, and a Host that is none is 400 (R33)', async () => {
      const ping = (of: string) =>
        nobody.call('GET', '/v2/', undefined, {
          'x-forwarded-host': of,
          'x-forwarded-proto': 'https',
        })
      expect(challengeOf(await ping('registry.example.org:5000'))).toEqual({
        realm: 'https://registry.example.org:5000/v2/token',
        service: 'registry.example.org:5000',
        scope: null,
      })
      for (const none of ['a b', 'evil",x="', 'user@host']) {
        const answer = await ping(none)
        expect(answer.status).toBe(400)
        expect(answer.headers.get('www-authenticate')).toBeNull()
        expect(answer.json.errors[0].message).toContain('no host name')
      }
      // what can be no repository has no scope
      for (const path of ['/v2/a%22b/manifests/x', '/v2/v1/x/manifests/x', '/v2/A/manifests/x'])
        expect(challengeOf(await nobody.call('PUT', path)).scope).toBeNull()
    })

    describe('scopes', () => {
      const all = 'pull,push,delete'

      test('are those asked for, as far as the token has them (R14)', async () => {
        const narrow = await target.mint('alice', { scopes: ['pull', 'keys'] })
        for (const [password, actions] of [
          [jwt, ['pull', 'push', 'delete']],
          [narrow.jwt, ['pull']],
          [null, ['pull']],
        ] as const) {
          const headers = password === null ? {} : basic(password)
          for (const scopes of [[all], ['*'], [`fly,${all}`]].map(([asked = '']) => [
            repository('alice/shown/box', asked),
          ]))
            expect(given(tokenOf(await ask(scopes, headers)))).toEqual([
              { type: 'repository', name: 'alice/shown/box', actions },
            ])
        }
      })

      test('those of what is hidden and of what is not there are given alike (R31)', async () => {
        const mallory = (await target.mint('mallory')).jwt
        for (const headers of [{}, basic(mallory)]) {
          const answers = await Promise.all(
            ['alice/hidden/box', 'alice/absent/box', 'nobody/absent/box'].map((of) =>
              ask([repository(of, all)], headers),
            ),
          )
          const said = answers.map((answer) => JSON.stringify(given(tokenOf(answer))))
          const [first = ''] = said
          expect(said.map((text) => text.replace(/"name":"[^"]*"/, ''))).toEqual(
            said.map(() => first.replace(/"name":"[^"]*"/, '')),
          )
        }
      })

      test('what is no scope, or too much, is left out without a word', async () => {
        const scopes = ['', 'x', 'repository:A:pull', 'registry:other:*', repository('a', 'fly')]
        expect(given(tokenOf(await ask(scopes, basic(jwt))))).toEqual([])
        const many = Array.from({ length: 100 }, (_, at) => repository(`alice/many/r${at}`, 'pull'))
        const token = tokenOf(await ask(many, basic(jwt)))
        expect(given(token)).toHaveLength(16)
        expect((await ociClient(target.url, token).call('GET', '/v2/')).status).toBe(200)
      })

      test('the list of repositories has one of its own', async () => {
        const without = await (
          await with_([repository('alice/shown/box', 'pull')])
        ).call('GET', '/v2/_catalog')
        expect(challengeOf(without).scope).toBe('registry:catalog:*')
        for (const [password, hidden] of [
          [jwt, true],
          [null, false],
        ] as const) {
          const lists = await with_(['registry:catalog:*'], password)
          const { status, json } = await lists.call('GET', '/v2/_catalog')
          expect(status).toBe(200)
          expect(json.repositories).toContain('alice/shown/box')
          expect(json.repositories.includes('alice/hidden/box')).toBe(hidden)
        }
        for (const client of [ociClient(target.url, jwt), nobody])
          expect((await client.call('GET', '/v2/_catalog')).status).toBe(200)
      })
    })

    describe('an OCI token', () => {
      test('a push as go-containerregistry makes it, from the ping on', async () => {
        const { realm, service } = challengeOf(await nobody.call('GET', '/v2/'))
        expect(realm).toBe(`${target.url}/v2/token`)
        expect(service).toBe(host)
        const repo = 'alice/ggcr/box'
        const client = await with_([repository(repo, 'push,pull')])
        const blob = randomBytes(5000)
        const digest = `sha256:${sha256(blob)}`
        expect((await client.call('HEAD', `/v2/${repo}/manifests/v1`)).status).toBe(404)
        expect((await client.call('HEAD', `/v2/${repo}/blobs/${digest}`)).status).toBe(404)
        const at = await client.open(repo)
        const added = await client.add(at, blob)
        expect(added.status, added.text).toBe(202)
        expect((await client.close(client.location(added), digest)).status).toBe(201)
        await client.image(repo, 'v1')
        expect((await client.call('GET', `/v2/${repo}/tags/list`)).json.tags).toEqual(['v1'])
      })

      test('is for nothing else: 401 with the scope that is needed, and another token does it', async () => {
        const puller = await with_([repository('alice/shown/box', 'pull')])
        const at = '/v2/alice/shown/box'
        expect((await puller.call('GET', `${at}/manifests/v1`)).status).toBe(200)
        const digest = `sha256:${'0'.repeat(64)}`
        for (const [method, path, actions] of [
          ['GET', '/v2/alice/hidden/box/manifests/v1', 'pull'],
          ['HEAD', `/v2/alice/hidden/box/blobs/${digest}`, 'pull'],
          ['GET', '/v2/alice/hidden/box/tags/list', 'pull'],
          ['GET', `/v2/alice/hidden/box/referrers/${digest}`, 'pull'],
          ['POST', `${at}/blobs/uploads/`, 'pull,push'],
          ['GET', `${at}/blobs/uploads/${'0'.repeat(24)}`, 'pull,push'],
          ['PATCH', `${at}/blobs/uploads/${'0'.repeat(24)}`, 'pull,push'],
          ['PUT', `${at}/blobs/uploads/${'0'.repeat(24)}?digest=${digest}`, 'pull,push'],
          ['DELETE', `${at}/blobs/uploads/${'0'.repeat(24)}`, 'pull,push'],
          ['PUT', `${at}/manifests/v1`, 'pull,push'],
          ['DELETE', `${at}/manifests/v1`, 'pull,delete'],
          ['DELETE', `${at}/blobs/${digest}`, 'pull,delete'],
        ] as const) {
          const answer = await puller.call(method, path)
          expect(answer.status, `${method} ${path}`).toBe(401)
          const of = path.split('/').slice(2, 5).join('/')
          const header = answer.headers.get('www-authenticate') ?? ''
          expect(header, path).toBe(
            `Bearer realm="${target.url}/v2/token",service="${host}",scope="${repository(of, actions)}"`,
          )
          // nobody is asked for the same, unless it is public
          const unasked = await nobody.call(method, path)
          if (unasked.status === 401) expect(unasked.headers.get('www-authenticate')).toBe(header)
          const [, scope = ''] = /scope="([^"]*)"/.exec(header) ?? []
          // the new scope comes first, the old one is kept
          const wider = await with_([scope, repository('alice/shown/box', 'pull')])
          const { status } = await wider.call(method, path)
          expect([200, 202, 400, 404], `${method} ${path}`).toContain(status)
          if (method === 'DELETE' && status === 202)
            await ociClient(target.url, jwt).put('alice/shown/box', 'v1', pushed.manifest)
        }
      })

      test('names of one repository are one: n/default of two components (docs/oci.md)', async () => {
        const alice = ociClient(target.url, jwt)
        await alice.image('alice/two', 'v1')
        const client = await with_([repository('alice/default/two', 'pull')])
        expect((await client.call('GET', '/v2/alice/two/manifests/v1')).status).toBe(200)
        expect((await client.call('GET', '/v2/two/manifests/v1')).status).toBe(401)
      })

      test('what its token may not at all is 403 with the scope by name', async () => {
        const narrow = (await target.mint('alice', { scopes: ['pull'] })).jwt
        const client = await with_([repository('alice/shown/box', '*')], narrow)
        for (const [method, path, scope] of [
          ['POST', '/v2/alice/shown/box/blobs/uploads/', 'push'],
          ['DELETE', '/v2/alice/shown/box/manifests/v1', 'delete'],
        ] as const) {
          const answer = await client.call(method, path)
          expect([answer.status, answer.json.errors[0].code]).toEqual([403, 'DENIED'])
          expect(answer.json.errors[0].message).toContain(`scope ${scope}`)
        }
        // and what nobody needs a scope for goes without one
        const none = (await target.mint('alice', { scopes: ['keys'] })).jwt
        const seer = await with_([repository('alice/shown/box', 'pull')], none)
        expect((await seer.call('GET', '/v2/alice/shown/box/manifests/v1')).status).toBe(200)
        const hidden = await with_([repository('alice/hidden/box', 'pull')], none)
        expect((await hidden.call('GET', '/v2/alice/hidden/box/manifests/v1')).status).toBe(403)
      })

      test('mounts from where it may pull, and elsewhere an upload begins (R31)', async () => {
        const digest = `sha256:${sha256(pushed.layer)}`
        const query = `?mount=${digest}&from=alice/shown/box`
        const path = `/v2/alice/mounted/box/blobs/uploads/${query}`
        const to = repository('alice/mounted/box', 'pull,push')
        const alone = await with_([to])
        // the client asks again, for both; whatever the other repository is (R31)
        for (const from of ['alice/shown/box', 'alice/hidden/box', 'alice/absent/box']) {
          const asked = await alone.call('POST', path.replace('alice/shown/box', from))
          const scope = `scope="repository:alice/mounted/box:pull,push repository:${from}:pull"`
          expect([asked.status, asked.headers.get('www-authenticate')]).toEqual([
            401,
            expect.stringContaining(scope),
          ])
        }
        const pushes = (await target.mint('alice', { scopes: ['push'] })).jwt
        const unable = await with_([to, repository('alice/shown/box', 'pull')], pushes)
        expect((await unable.call('POST', path)).status).toBe(202)
        expect((await alone.call('HEAD', `/v2/alice/mounted/box/blobs/${digest}`)).status).toBe(404)
        // of nowhere in particular: what anybody may read, and not what only its user may
        const blind = (of: string) => path.replace(/mount=.*/, `mount=${of}`)
        const hers = Buffer.from('hers alone')
        await ociClient(target.url, jwt).blob('alice/hidden/box', hers)
        const secret = `sha256:${sha256(hers)}`
        expect((await alone.call('POST', blind(secret))).status).toBe(202)
        expect((await alone.call('POST', blind(digest))).status).toBe(201)
        expect((await alone.call('HEAD', `/v2/alice/mounted/box/blobs/${digest}`)).status).toBe(200)
        const pusher = await with_([to, repository('alice/shown/box', 'push')])
        expect((await pusher.call('POST', path)).status).toBe(401)
        for (const scopes of [
          [to, repository('alice/shown/box', 'pull')],
          [`${to} ${repository('alice/shown/box', 'pull')}`],
        ])
          expect((await (await with_(scopes)).call('POST', path)).status).toBe(201)
      })

      test('ends with the token behind it, and with its user (R13)', async () => {
        const of = [repository('alice/hidden/box', 'pull,push')]
        const { jwt: password, id } = await target.mint('alice')
        const client = await with_(of, password)
        const path = '/v2/alice/hidden/box/manifests/v1'
        expect((await client.call('GET', path)).status).toBe(200)
        await target.revoke(id)
        for (const [method, at] of [
          ['GET', '/v2/'],
          ['GET', path],
          ['POST', '/v2/alice/hidden/box/blobs/uploads/'],
          ['PUT', path],
        ] as const)
          expect((await client.call(method, at)).status, `${method} ${at}`).toBe(401)
      })

      test('is nothing to the library and the keystore, and no password (R13, R36)', async () => {
        const token = tokenOf(await ask([repository('alice/shown/box', 'pull')], basic(jwt)))
        const library = libraryClient(target.url, token)
        for (const path of ['/v1/entities', '/v1/tokens', '/pks/lookup?op=get&search=x'])
          expectRefusal(await library.call('GET', path), 401)
        expectRefusal(await library.call('GET', '/v1/token-status'), 404)
        expect((await nobody.call('GET', '/v2/', undefined, basic(token))).status).toBe(401)
        const current = '/v1/rbac/users/current'
        expectRefusal(await library.call('GET', current), 404)
        for (const password of [jwt, 'wrong'])
          expectRefusal(
            await libraryClient(target.url).call('GET', current, undefined, basic(password)),
            404,
          )
        // the very token that was shown, as before; a bad one stays 401
        const own = await libraryClient(target.url, jwt).call('GET', current)
        expect(own.json.oidc_user_meta.secret).toBe(jwt)
        expectRefusal(await libraryClient(target.url, `${jwt}x`).call('GET', current), 401)
      })
    })

    describe('nobody', () => {
      const shown = '/v2/alice/shown/box'

      test('pulls what is public, with a token for it or without one', async () => {
        const client = await with_([repository('alice/shown/box', 'pull')], null)
        expect((await client.call('GET', '/v2/')).status).toBe(200)
        for (const who of [client, nobody]) {
          const got = await who.call('GET', `${shown}/manifests/v1`)
          expect([got.status, got.text]).toEqual([200, pushed.manifest])
          const layer = await who.call('GET', `${shown}/blobs/sha256:${sha256(pushed.layer)}`)
          expect(Buffer.compare(layer.bytes, pushed.layer)).toBe(0)
        }
      })

      test('does not push, and is told what that takes', async () => {
        const client = await with_([repository('alice/shown/box', 'pull,push')], null)
        for (const who of [client, nobody])
          expect(challengeOf(await who.call('POST', `${shown}/blobs/uploads/`)).scope).toBe(
            repository('alice/shown/box', 'pull,push'),
          )
      })

      test('what is private and what is absent answer alike, byte by byte (R31)', async () => {
        const digest = `sha256:${'0'.repeat(64)}`
        const strange = (await target.mint('mallory')).jwt
        const names = ['alice/hidden/box', 'alice/absent/box', 'alice/hidden/bax']
        // with it, what a mount from there takes is in every token that is for something
        const source = repository('alice/hidden/box', 'pull')
        const askers: [string, (of: string) => Promise<OciClient>][] = [
          ['nobody', async () => nobody],
          ['a token of nobody', (of) => with_([repository(of, 'pull'), source], null)],
          ['a token of nobody for nothing', () => with_([], null)],
          ['a stranger', async () => ociClient(target.url, strange)],
          ['a token of a stranger', (of) => with_([repository(of, '*'), source], strange)],
          ['a token of a stranger for nothing', () => with_([], strange)],
        ]
        for (const [who, of] of askers)
          for (const [method, tail] of [
            ['GET', 'manifests/v1'],
            ['HEAD', 'manifests/v1'],
            ['GET', `manifests/${digest}`],
            ['GET', `blobs/${digest}`],
            ['GET', 'tags/list'],
            ['GET', `referrers/${digest}`],
            ['DELETE', 'manifests/v1'],
            ['POST', 'blobs/uploads/'],
            ['POST', `blobs/uploads/?mount=${digest}&from=alice/hidden/box`],
          ] as const) {
            const [first, ...others] = await Promise.all(
              names.map(async (repo) => {
                const answer = await (await of(repo)).call(method, `/v2/${repo}/${tail}`)
                const headers = new Headers(answer.headers)
                const challenge = headers.get('www-authenticate')?.replace(repo, 'REPOSITORY')
                if (challenge !== undefined) headers.set('www-authenticate', challenge)
                return { ...answer, text: answer.text.replaceAll(repo, 'REPOSITORY'), headers }
              }),
            )
            if (first === undefined) throw new Error('nothing was asked')
            expect(first.status, `${who}: ${method} ${tail}`).toBeGreaterThanOrEqual(
              tail.startsWith('referrers') ? 200 : 400,
            )
            for (const other of others) expectAlike(first, other)
          }
      })
    })

    describe('where nobody sees anything (SREG_ANONYMOUS_PULL=off)', () => {
      let closed: Target
      beforeAll(async () => {
        closed = await makeTarget({
          env: { SREG_ANONYMOUS_PULL: 'off', SREG_PUBLIC_URL: 'https://registry.example.org' },
        })
      })
      afterAll(() => closed.stop())

      test("a token of nobody's is given, and opens nothing", async () => {
        const { jwt: own } = await closed.mint('alice')
        await ociClient(closed.url, own).image('alice/shown/box', 'v1')
        const scopes = [repository('alice/shown/box', 'pull'), 'registry:catalog:*']
        const client = await with_(scopes, null, closed.url)
        expect((await client.call('GET', '/v2/')).status).toBe(200)
        for (const who of [client, ociClient(closed.url)])
          for (const path of [
            '/v2/alice/shown/box/manifests/v1',
            '/v2/alice/absent/box/manifests/v1',
            '/v2/_catalog',
          ])
            challengeOf(await who.call('GET', path))
        const known = await with_(scopes, own, closed.url)
        expect((await known.call('GET', '/v2/alice/shown/box/manifests/v1')).status).toBe(200)
      })

      test('the realm is on the public address (R33)', async () => {
        const answer = await ociClient(closed.url).call('GET', '/v2/', undefined, {
          'x-forwarded-host': 'evil.example',
        })
        const { realm, service } = challengeOf(answer)
        expect(realm).toBe('https://registry.example.org/v2/token')
        expect(service).toBe('registry.example.org')
      })
    })

    describe('guesses', () => {
      let limited: Target
      beforeAll(async () => {
        limited = await makeTarget({ env: { SREG_LIMIT_LOGINS: '5' } })
      })
      afterAll(() => limited.stop())

      test('are few, and the right password passes between them (R58)', async () => {
        const { jwt: real } = await limited.mint('alice')
        await ociClient(limited.url, real).image('alice/shown/box', 'v1')
        const client = ociClient(limited.url)
        const address = { [clientIs]: newAddress() }
        const call = (path: string, headers: Headers_) =>
          client.call('GET', path, undefined, { ...address, ...headers })
        const seen: number[] = []
        for (let i = 0; i < 8; i += 1) {
          seen.push((await call('/v2/token?service=x', basic(`guess ${i}`))).status)
          expect((await call('/v2/token?service=x', basic(real))).status).toBe(200)
          expect((await call('/v2/', basic(real))).status).toBe(200)
          expect((await call('/v2/', { authorization: `Bearer ${real}` })).status).toBe(200)
        }
        expect(seen).toEqual([401, 401, 401, 401, 401, 429, 429, 429])
        const refused = await call('/v2/token', basic('another'))
        expect(refused.json.errors[0].code).toBe('TOOMANYREQUESTS')
        expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
        expect((await call('/v2/alice/shown/box/manifests/v1', basic('another'))).status).toBe(429)
      })

      test('asking for a wider token, or with none, is none (R58), and no denial (R57)', async () => {
        const { jwt: real } = await limited.mint('alice')
        const boss = await limited.mint('boss', { admin: true, scopes: [...SCOPES] })
        const address = { [clientIs]: newAddress() }
        const tokens = [
          tokenOf(await ask([], basic(real), limited.url)),
          tokenOf(await ask([repository('alice/none/box', 'pull')], {}, limited.url)),
        ]
        for (let i = 0; i < 8; i += 1)
          for (const token of tokens)
            challengeOf(
              await ociClient(limited.url, token).call(
                'GET',
                '/v2/alice/none/box/manifests/v1',
                undefined,
                address,
              ),
            )
        // one that is a denial, behind all of those
        const bad = ociClient(limited.url, `${real}x`)
        expect((await bad.call('GET', '/v2/', undefined, address)).status).toBe(401)
        const library = libraryClient(limited.url, boss.jwt)
        const denials = async () => {
          const { entries } = expectData(await library.call('GET', '/v1/audit?outcome=denied'))
          return (entries as { address: string; count: number }[]).filter(
            (row) => row.address === address[clientIs],
          )
        }
        // counted in memory: written with what comes seconds later
        let rows = await denials()
        for (let waited = 0; waited < 60 && rows.length === 0; waited += 1) {
          await sleep(300)
          await bad.call('GET', '/v2/')
          rows = await denials()
        }
        expect(rows.map(({ count }) => count)).toEqual([1])
      })
    })
  })
}
