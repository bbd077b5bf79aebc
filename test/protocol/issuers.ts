/**
 * A CI job pushes with the token of its own platform, and nothing else: one collection, no stored
 * secret, until the token ends or its identity is disabled (R13, R35, R55).
 */
import { randomUUID } from 'node:crypto'
import { decodeJwt } from 'jose'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { AUDIENCE, PUSH, startCiPlatform, type CiPlatform } from '../fixtures/ci-platform.ts'
import { sampleSif } from '../fixtures/sif.ts'
import type { TargetOptions } from '../runtimes/target.ts'
import type { AccessTarget } from './access.ts'
import { expectAlike, expectData, expectRefusal } from './answers.ts'
import { libraryClient, sha256 } from './client.ts'
import { ociClient } from './oci.ts'

const NIGHTLY = { repository_id: '123', ref: 'refs/heads/main', event_name: 'schedule' }

export function describeIssuers(
  name: string,
  makeTarget: (options: TargetOptions) => Promise<AccessTarget>,
  /** Why the registry looks at no addresses; absent where it does. */
  unchecked?: string,
): void {
  describe(`tokens of other issuers on ${name}`, () => {
    let platform: CiPlatform
    let base: string
    let target: AccessTarget

    beforeAll(async () => {
      platform = await startCiPlatform(['ci', 'closed'])
      base = platform.base
      const scopes = ['pull', 'push']
      const rules = [
        { claims: PUSH, scopes, collection: 'lab/tools' },
        { claims: NIGHTLY, scopes: ['pull'], collection: 'lab/secret' },
        { claims: { ...PUSH, repository_id: '456' }, scopes, collection: 'lab/nowhere' },
        { claims: { ...PUSH, repository_id: '789' }, scopes: ['pull'], collection: 'lab/tools' },
      ]
      const issuer = (path: string, more: object = {}) => ({
        issuer: `${base}/${path}`,
        audience: AUDIENCE,
        rules,
        ...more,
      })
      target = await makeTarget({
        env: {
          SREG_TRUSTED_ISSUERS: JSON.stringify([
            issuer('ci', { allowPrivate: true }),
            issuer('down', { allowPrivate: true }),
            issuer('closed'),
            ...['moved', 'large', 'broken'].map((path) =>
              issuer(path, { allowPrivate: true, jwksUri: `${base}/${path}/jwks` }),
            ),
          ]),
          ...platform.env,
        },
      })
      const owner = libraryClient(target.url, (await target.mint('lab')).jwt)
      await owner.push('lab/tools/bwa', sampleSif({ content: 'tools' }))
      await owner.push('lab/other/bwa', sampleSif({ content: 'other' }))
      await owner.push('lab/secret/bwa', sampleSif({ content: 'secret' }), {
        privateCollection: true,
      })
      await owner.push('lab/hidden/bwa', sampleSif({ content: 'hidden' }), {
        privateCollection: true,
      })
    })
    afterAll(async () => {
      await target?.stop()
      platform.stop()
    })

    const job: CiPlatform['job'] = (claims, options) => platform.job(claims, options)
    const client = async (...of: Parameters<typeof job>) =>
      libraryClient(target.url, await job(...of))
    const anybody = () => libraryClient(target.url)
    const pulled = async (who: ReturnType<typeof anybody>, ref: string) => {
      const answer = await who.call('GET', `/v1/imagefile/${ref}?arch=amd64`)
      if (answer.status !== 303) return answer
      return who.call('GET', answer.headers.get('location') ?? '')
    }

    test('a job pushes an image to its collection, with no secret stored anywhere', async () => {
      const bytes = sampleSif({ content: randomUUID() })
      const ci = await client()
      const { digest } = await ci.push('lab/tools/built', bytes, { tags: ['v1'] })
      expect(digest).toBe(sha256(bytes))
      expect((await pulled(anybody(), 'lab/tools/built:v1')).status).toBe(200)
      // and the next job of the same repository moves the tag
      await (
        await client()
      ).push('lab/tools/built', sampleSif({ content: randomUUID() }), {
        tags: ['v1'],
      })
      // what apptainer remote login asks
      expect((await ci.call('GET', '/v1/token-status')).status).toBe(200)
      const { json } = await ci.call('GET', '/v1/rbac/users/current')
      expect(json.username).toMatch(/^oidc:[0-9a-f]{12}$/)
    })

    test('the same under /v2, as bearer and as password, and no further (R13, R35)', async () => {
      const jwt = await job()
      const basic = { authorization: `Basic ${btoa(`ci:${jwt}`)}` }
      expect((await ociClient(target.url, jwt).call('GET', '/v2/')).status).toBe(200)
      const nobody = ociClient(target.url)
      expect((await nobody.call('GET', '/v2/', undefined, basic)).status).toBe(200)
      const of = ['lab/tools/oci', 'lab/other/oci'].map((name) => `scope=repository:${name}:*`)
      const answer = await nobody.call('GET', `/v2/token?${of.join('&')}`, undefined, basic)
      expect(answer.status, answer.text).toBe(200)
      // what its rule gives, and not where: that is asked at use
      for (const { actions } of decodeJwt<{ access: { actions: string[] }[] }>(answer.json.token)
        .access)
        expect(actions).toEqual(['pull', 'push'])
      const ci = ociClient(target.url, answer.json.token)
      await ci.image('lab/tools/oci', 'v1')
      const elsewhere = await ci.call('POST', '/v2/lab/other/oci/blobs/uploads/')
      expect(elsewhere.status).toBe(403)
      const gone = await ci.call('DELETE', '/v2/lab/tools/oci/manifests/v1')
      expect([gone.status, gone.json.errors[0].message]).toEqual([
        403,
        expect.stringContaining('delete') as string,
      ])
      for (const wrong of [await job({}, { audience: 'else' }), await job({ ref: 'refs/x' })]) {
        const password = { authorization: `Basic ${btoa(`ci:${wrong}`)}` }
        expect((await nobody.call('GET', '/v2/token', undefined, password)).status).toBe(401)
      }
    })

    test('it pushes nowhere else, and makes no place of its own', async () => {
      const ci = await client()
      const bytes = sampleSif({ content: randomUUID() })
      await expect(ci.push('lab/other/bwa', bytes)).rejects.toThrow(/403/)
      await expect(ci.push('lab/more/bwa', bytes)).rejects.toThrow(/403/)
      await expect(ci.push('elsewhere/tools/bwa', bytes)).rejects.toThrow(/403/)
      await expect(ci.push('lab/secret/bwa', bytes)).rejects.toThrow(/40[34]/)
      const { json } = await anybody().call('GET', '/v1/images/lab/tools/bwa:latest?arch=amd64')
      const { status } = await ci.call('DELETE', `/v1/images/${json.data.id}?arch=amd64`)
      expect(status).toBe(403)
    })

    test('what is private elsewhere looks absent to it', async () => {
      const ci = await client()
      for (const path of [
        '/v1/collections/lab/*',
        '/v1/containers/lab/*/bwa',
        '/v1/images/lab/*/bwa:latest?arch=amd64',
        '/v1/imagefile/lab/*/bwa:latest?arch=amd64',
      ]) {
        const hidden = await ci.call('GET', path.replace('*', 'hidden'))
        expectRefusal(hidden, 404)
        expectAlike(hidden, await ci.call('GET', path.replace('*', 'absent')))
      }
      const { text } = await ci.call('GET', '/v1/search?value=bwa')
      expect(text).toContain('tools')
      expect(text).not.toMatch(/hidden|secret/)
    })

    test('a rule for reading shows one private collection, and pushes nothing', async () => {
      const nightly = await client({ ...NIGHTLY, sub: 'repo:lab/123:nightly' })
      expect((await pulled(nightly, 'lab/secret/bwa:latest')).status).toBe(200)
      expect((await pulled(nightly, 'lab/hidden/bwa:latest')).status).toBe(404)
      const bytes = sampleSif({ content: randomUUID() })
      for (const ref of ['lab/secret/bwa', 'lab/tools/bwa'])
        await expect(nightly.push(ref, bytes)).rejects.toThrow(/403/)
    })

    test('two rules of one identity go in turn', async () => {
      const [push, nightly] = [await client(), await client(NIGHTLY)]
      for (let round = 0; round < 2; round += 1) {
        await push.push('lab/tools/turns', sampleSif({ content: randomUUID() }))
        expect((await pulled(nightly, 'lab/secret/bwa:latest')).status).toBe(200)
        expect((await pulled(push, 'lab/secret/bwa:latest')).status).toBe(404)
      }
    })

    test('it administers nothing, and makes no tokens', async () => {
      const ci = await client()
      const wanted = { user: 'lab', name: 'mine', scopes: ['pull'] }
      for (const [method, path, body] of [
        ['POST', '/v1/tokens', wanted],
        ['GET', '/v1/users'],
        ['POST', '/v1/users', { name: 'mallory' }],
        ['PUT', '/v1/privacy', { ref: 'lab/tools', private: false }],
        ['PUT', '/v1/policy', { ref: 'lab/tools', policy: 'off' }],
        ['POST', '/v1/exports', {}],
      ] as const)
        expectRefusal(await ci.call(method, path, body), 403)
    })

    test.each<[string, Record<string, unknown>]>([
      ['a pull request', { event_name: 'pull_request' }],
      ['another branch', { ref: 'refs/heads/dev' }],
      ['another repository of the same name', { repository_id: '124', repository: 'lab/123' }],
    ])('%s is 401, with a sentence for whoever sets this up', async (_, claims) => {
      expectRefusal(await (await client(claims)).call('GET', '/v1/entities/lab'), 401, /no rule/)
    })

    test('a collection that does not exist is named', async () => {
      const ci = await client({ repository_id: '456' })
      expectRefusal(await ci.call('GET', '/v1/entities/lab'), 401, /lab\/nowhere/)
    })

    test('unknown issuers, audiences and keys are 401', async () => {
      const good = await job()
      const [header = '', payload = ''] = good.split('.')
      for (const jwt of [
        await job({}, { issuer: 'unknown' }),
        await job({}, { audience: 'https://other.example.org' }),
        await job({}, { kid: 'ci-2' }),
        `${good}x`,
        await job({}, { seconds: 25 * 3600 }),
        `${header}.${payload}.`,
      ])
        expectRefusal(await libraryClient(target.url, jwt).call('GET', '/v1/entities/lab'), 401)
    })

    test('the token dies with its time', async () => {
      const ci = await client({}, { seconds: 2 })
      expectData(await ci.call('GET', '/v1/entities/lab'))
      await new Promise((resolve) => setTimeout(resolve, 2500))
      expectRefusal(await ci.call('GET', '/v1/entities/lab'), 401)
    })

    test('an issuer that is down is 503, not 401, and stops nobody else', async () => {
      const answer = await (await client({}, { issuer: 'down' })).call('GET', '/v1/entities/lab')
      expectRefusal(answer, 503, /try again/)
      expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0)
      expectData(await (await client()).call('GET', '/v1/entities/lab'))
    })

    test.each(['moved', 'large', 'broken'])('keys that are %s are 503', async (issuer) => {
      const before = platform.asked.length
      const answer = await (await client({}, { issuer })).call('GET', '/v1/entities/lab')
      expectRefusal(answer, 503, /try again/)
      expect(platform.asked.slice(before)).toEqual([`/${issuer}/jwks`])
    })

    test('an issuer at a private address is not even asked, unless that is allowed', async ({
      skip,
    }) => {
      if (unchecked !== undefined) return skip(unchecked)
      const ci = await client({}, { issuer: 'closed' })
      expectRefusal(await ci.call('GET', '/v1/entities/lab'), 503)
      expect(platform.asked.filter((path) => path.startsWith('/closed'))).toEqual([])
    })

    test('a flood of unknown kids asks the issuer once', async () => {
      await (await client()).call('GET', '/v1/entities/lab')
      const before = platform.asked.length
      const answers = await Promise.all(
        Array.from({ length: 30 }, async () => {
          const ci = await client({}, { kid: randomUUID() })
          return ci.call('GET', '/v1/entities/lab')
        }),
      )
      for (const answer of answers) expectRefusal(answer, 401)
      // a document and its keys
      expect(platform.asked.length - before).toBeLessThanOrEqual(2)
    })

    test('an identity that is disabled is refused, with tokens old and new', async ({ skip }) => {
      const { execute } = target
      if (execute === undefined) return skip('this target lets nobody at its database')
      const sub = 'repo:lab/789:ref:refs/heads/main'
      const old = await client({ repository_id: '789' })
      expectData(await old.call('GET', '/v1/entities/lab'))
      execute('UPDATE users SET disabled = 1 WHERE subject = ?', `${base}/ci|${sub}`)
      const fresh = await client({ repository_id: '789' })
      for (const who of [old, fresh, fresh])
        expectRefusal(await who.call('GET', '/v1/entities/lab'), 401)
      expectData(await (await client()).call('GET', '/v1/entities/lab'))
    })
  })
}
