/**
 * Forged tokens over the wire: each is refused with 401 in the envelope of its protocol, as bearer and
 * as password, before 50 ms have passed, and tokens that are real open nothing that their row, their
 * user or their binding does not (R13, R14).
 */
import { createPrivateKey } from 'node:crypto'
import { decodeJwt } from 'jose'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Scope } from '../../src/core/model.ts'
import { startCiPlatform, AUDIENCE, PUSH, type CiPlatform } from '../fixtures/ci-platform.ts'
import { fewestMs } from '../fixtures/fewest-ms.ts'
import { forger, ociForgeries, type Honest } from '../fixtures/forgeries.ts'
import { sampleSif } from '../fixtures/sif.ts'
import type { TargetOptions } from '../runtimes/target.ts'
import type { AccessTarget } from './access.ts'
import { expectAlike, expectData, expectMalformed, expectRefusal } from './answers.ts'
import { libraryClient } from './client.ts'
import { rawGet } from './raw.ts'

const ALL: Scope[] = ['pull', 'push', 'delete', 'keys', 'admin']
const LONGEST_MS = 50
/** An answer that took longer is asked for again: others use this machine. */
const QUICK_MS = 25
const ROUNDS = 6
/** Longer than the headers of a request may be; what is shorter than that is looked at. */
const ENTIRE_HEAD = 16 * 1024

/** What an answer takes, in ms: the least of some tries, and of more a little later if that is much. */
async function answerMs(ask: () => Promise<void>): Promise<number> {
  let least = await fewestMs(QUICK_MS, ask)
  for (let round = 1; round < ROUNDS && least >= LONGEST_MS; round += 1) {
    await new Promise((resolve) => setTimeout(resolve, 200))
    least = Math.min(least, await fewestMs(QUICK_MS, ask))
  }
  return least
}

export function describeForged(
  name: string,
  makeTarget: (options: TargetOptions) => Promise<AccessTarget>,
): void {
  describe(`${name}: forged tokens`, { timeout: 120_000 }, () => {
    let platform: CiPlatform
    let target: AccessTarget
    let forging: ReturnType<typeof forger>
    let honest: Honest
    let owner: ReturnType<typeof libraryClient>
    /** Answers to refused tokens, in ms, by what was wrong with them. */
    const slowest: [ms: number, what: string][] = []

    const now = () => Math.floor(Date.now() / 1000)
    const with_ = (jwt: string) => libraryClient(target.url, jwt)
    const execute = (sql: string, ...values: unknown[]) => target.execute?.(sql, ...values)
    /** A token as the registry has issued it, and another one over whatever it says. */
    async function issued(user: string, options: { scopes?: Scope[]; admin?: boolean } = {}) {
      const { jwt, id } = await target.mint(user, options)
      const claims = decodeJwt<Honest>(jwt)
      return { jwt, id, as: (payload: object) => forging.forge({}, { ...claims, ...payload }) }
    }

    beforeAll(async () => {
      platform = await startCiPlatform(['ci'])
      const rule = { claims: PUSH, scopes: ['pull', 'push'], collection: 'anna/john' }
      target = await makeTarget({
        env: {
          SREG_TRUSTED_ISSUERS: JSON.stringify([
            {
              issuer: `${platform.base}/ci`,
              audience: AUDIENCE,
              allowPrivate: true,
              rules: [rule],
            },
          ]),
          // the tries of this suite come from one address
          SREG_LIMIT_LOGINS: '0',
          ...platform.env,
        },
      })
      if (target.signingKey === undefined) throw new Error('nothing to forge with')
      const { jwt } = await target.mint('anna', { scopes: ALL })
      const key = await target.signingKey()
      honest = { ...decodeJwt<Honest>(jwt), iat: now() }
      forging = forger(createPrivateKey({ key, format: 'jwk' }), key.kid ?? '', honest)
      owner = with_(jwt)
      const options = { privateCollection: true }
      for (const collection of ['john', 'johnny']) {
        const bytes = sampleSif({ content: collection })
        for (const container of ['john', 'johnny'])
          await owner.push(`anna/${collection}/${container}`, bytes, options)
      }
    })
    afterAll(async () => {
      await target?.stop()
      platform.stop()
    })

    /** Refused wherever it is shown; the least time of several tries is the answer's own. */
    async function expectRefused(what: string, jwt: string): Promise<void> {
      const who = with_(jwt)
      const ask = [
        [401, 'GET', '/v1/entities'],
        [401, 'GET', '/v1/images/anna/john/john:latest?arch=amd64'],
        [401, 'POST', '/v1/collections', { name: 'forged', entity: 'a'.repeat(24) }],
        [401, 'GET', '/pks/lookup?op=index&search=anna@example.org'],
        // what `remote login` asks: the client says "Invalid Credentials" to 404 only
        [404, 'GET', '/v1/token-status'],
      ] as const
      for (const [status, method, path, body] of ask) {
        const ms = await answerMs(async () => {
          const answer = await who.call(method, path, body)
          expect(answer.status, `${what}: ${method} ${path}: ${answer.text.slice(0, 300)}`).toBe(
            status,
          )
          expectRefusal(answer, status)
        })
        slowest.push([ms, what])
        expect(ms, `${what}: ${method} ${path}`).toBeLessThan(LONGEST_MS)
      }
      await expectRefusedByOci(what, jwt)
    }

    /** Refused under /v2, and no token is given for it. */
    async function expectRefusedByOci(what: string, jwt: string): Promise<void> {
      const nobody = libraryClient(target.url)
      const basic = `Basic ${Buffer.from(`anna:${jwt}`).toString('base64')}`
      for (const [scheme, authorization] of [
        ['Bearer', `Bearer ${jwt}`],
        ['Basic', basic],
      ] as const) {
        if (authorization.length > ENTIRE_HEAD - 1024) continue
        for (const [method, path] of [
          ['GET', '/v2/'],
          ['GET', '/v2/token?service=x&scope=repository:anna/john/john:pull'],
          ['GET', '/v2/anna/john/john/manifests/latest'],
          ['POST', '/v2/anna/john/john/blobs/uploads/'],
          ['PUT', `/v2/anna/john/john/blobs/uploads/${'a'.repeat(24)}?t=x`],
          ['PUT', '/v2/anna/john/john/manifests/latest'],
          ['GET', '/v2/_catalog'],
        ] as const) {
          const ms = await answerMs(async () => {
            const answer = await nobody.call(method, path, undefined, { authorization })
            const said = `${what}: ${scheme} ${method} ${path}: ${answer.text.slice(0, 300)}`
            expect(answer.status, said).toBe(401)
            expect(answer.json.errors[0].code, said).toBe('UNAUTHORIZED')
            expect(answer.headers.get('www-authenticate'), said).toMatch(
              path.startsWith('/v2/token') ? /^Basic realm="/ : /^Bearer realm="[^"]*\/v2\/token"/,
            )
          })
          slowest.push([ms, `${what}: ${scheme} ${method} ${path}`])
          expect(ms, what).toBeLessThan(LONGEST_MS)
        }
      }
    }

    test('what is forged here would be accepted if it said the truth', async () => {
      const who = with_(forging.forge())
      expectData(await who.call('GET', '/v1/images/anna/john/john:latest?arch=amd64'))
      expect((await who.call('GET', '/v1/token-status')).status).toBe(200)
    })

    test('every shape of a token that nobody issued is refused, none in 50 ms or more', async () => {
      const { forge, forgeries } = forging
      const issuer = `${platform.base}/ci`
      const shapes: typeof forgeries = {
        ...forgeries,
        // those of the fixture are meant for a clock that stands still
        'not before a time to come': () => forge({}, { nbf: now() + 600 }),
        'all of an OCI token': () => forge({ typ: 'sreg-oci+jwt' }, { aud: 'oci' }),
        'kid of a trusted issuer': () => forge({ kid: 'ci-1' }),
        'a trusted issuer, with our key': () => forge({}, { iss: issuer, aud: AUDIENCE }),
        'a trusted issuer, its kid, with our key': () =>
          forge({ kid: 'ci-1' }, { iss: issuer, aud: AUDIENCE, ...PUSH }),
        'a trusted issuer, its alg, with our key': () =>
          forge({ alg: 'RS256', typ: 'JWT', kid: 'ci-1' }, { iss: issuer, aud: AUDIENCE, ...PUSH }),
        "a trusted issuer's key, our audience": () => platform.job({}, { audience: 'api' }),
        "a trusted issuer's key, our kid": () => platform.job({}, { kid: 'key-1' }),
        'a list of issuers': () => forge({}, { iss: [honest.iss] }),
        'a user who never was': () => forge({}, { sub: '0'.repeat(24) }),
        'a token that never was': () => forge({}, { jti: '0'.repeat(24) }),
        'ids as SQL': () => forge({}, { sub: "' or 1=1 --", jti: "' or 1=1 --" }),
      }
      let count = 0
      for (const [what, make] of Object.entries(shapes)) {
        const jwt = await make()
        // no token is nobody; what is too long for a head has a test of its own
        if (jwt === '' || jwt.length > ENTIRE_HEAD) continue
        await expectRefused(what, jwt)
        count += 1
      }
      expect(count).toBeGreaterThanOrEqual(80)
    })

    /** An OCI token over whatever it says; `honest` is one that is good for the place of these tests. */
    function ociForging() {
      const { jti: parent, ...rest } = honest
      const access = ['anna/john/john', 'anna/johnny/john'].map((repository) => ({
        type: 'repository',
        name: repository,
        actions: ['pull', 'push', 'delete'],
      }))
      const said = { ...rest, aud: 'oci', iat: now(), exp: now() + 300, parent, access }
      return ociForgeries(forging.forge, said)
    }
    const manifestOf = (ref: string, jwt: string) =>
      with_(jwt).call('GET', `/v2/${ref}/manifests/none`)

    test('every shape of an OCI token that nobody issued is refused, there and by the library', async () => {
      const { oci, forgeries } = ociForging()
      const [control, elsewhere] = [oci(), oci({ access: [] })]
      expect((await with_(control).call('GET', '/v2/')).status).toBe(200)
      // within its reach it gets as far as the question what is there
      expect((await manifestOf('anna/john/john', control)).status).toBe(404)
      expect((await manifestOf('anna/john/john', elsewhere)).status).toBe(401)
      let count = 0
      const shapes: typeof forgeries = {
        ...forgeries,
        'OCI: a trusted issuer': () => oci({ iss: `${platform.base}/ci`, aud: AUDIENCE, ...PUSH }),
        'OCI: a user who never was': () => oci({ sub: '0'.repeat(24) }),
        'OCI: a parent that never was': () => oci({ parent: '0'.repeat(24) }),
        'OCI: ids as SQL': () => oci({ sub: "' or 1=1 --", parent: "' or 1=1 --" }),
      }
      for (const [what, make] of Object.entries(shapes)) {
        await expectRefused(what, make())
        count += 1
      }
      expect(count).toBeGreaterThanOrEqual(45)
    })

    test('an OCI token opens nothing of the library, of the keystore, and gives no other (R13, R36)', async () => {
      const { oci } = ociForging()
      const who = with_(oci())
      for (const path of ['/v1/entities', '/v1/users', '/v1/tokens', '/pks/lookup?op=get&search=x'])
        expectRefusal(await who.call('GET', path), 401)
      expectRefusal(await who.call('GET', '/v1/token-status'), 404)
      expectRefusal(await who.call('GET', '/v1/rbac/users/current'), 404)
      expectRefusal(await who.call('POST', '/v1/tokens', { user: 'anna', name: 'more' }), 401)
      expectRefusal(await who.call('GET', '/v2/tags/' + 'a'.repeat(24)), 401)
      const basic = { authorization: `Basic ${btoa(`anna:${oci()}`)}` }
      const nobody = libraryClient(target.url)
      for (const [client, headers] of [
        [who, {}],
        [nobody, basic],
      ] as const)
        expect((await client.call('GET', '/v2/token', undefined, headers)).status).toBe(401)
      expect((await nobody.call('GET', '/v2/', undefined, basic)).status).toBe(401)
    })

    test('what an OCI token claims beyond its row does not count (R14)', async () => {
      const narrow = await issued('nina', { scopes: ['pull'] })
      const { oci } = ociForging()
      const { sub } = decodeJwt<Honest>(narrow.jwt)
      const of = (payload: object) => oci({ sub, parent: narrow.id, ...payload })
      const upload = '/v2/anna/john/john/blobs/uploads/'
      for (const jwt of [of({}), of({ scope: ALL.join(' ') }), of({ scope: '*' })]) {
        const answer = await with_(jwt).call('POST', upload)
        expect(answer.status, answer.text).toBeGreaterThanOrEqual(403)
        expect(answer.status, answer.text).toBeLessThanOrEqual(404)
      }
      // another's name or token
      for (const payload of [{ sub: honest.sub }, { parent: honest.jti }])
        expect((await with_(of(payload)).call('GET', '/v2/')).status).toBe(401)
    })

    test('a token of one megabyte is refused before it is read', async () => {
      for (const jwt of ['a'.repeat(1 << 20), `${forging.forge()}.${'A'.repeat(1 << 20)}`]) {
        const ms = await answerMs(async () => {
          const answer = await rawGet(target.url, '/v1/entities', `Authorization: Bearer ${jwt}`)
          // who refuses the head does so before a token can be told from anything else
          if (answer.status === 401) expectRefusal(answer, 401)
          else expectMalformed(target, answer, 431)
        })
        slowest.push([ms, 'one megabyte'])
        expect(ms).toBeLessThan(LONGEST_MS)
      }
      expectData(await owner.call('GET', '/v1/entities'))
    })

    test('a token is worth nothing without its row, its user and their agreement', async () => {
      const [gone, revoked, disabled, deleted, expired, ben] = await Promise.all(
        ['gone', 'revoked', 'disabled', 'deleted', 'expired', 'ben'].map((user) => issued(user)),
      )
      if (!gone || !revoked || !disabled || !deleted || !expired || !ben) throw new Error('none')
      const given: [what: string, jwt: string][] = []
      for (const [what, { jwt }] of Object.entries({ gone, revoked, disabled, deleted, expired })) {
        expect((await with_(jwt).call('GET', '/v1/token-status')).status).toBe(200)
        const { json } = await with_(jwt).call('GET', '/v2/token?scope=repository:anna/john/john:*')
        expect((await with_(json.token).call('GET', '/v2/')).status).toBe(200)
        given.push([`the OCI token of what is ${what}`, json.token])
      }
      execute('DELETE FROM tokens WHERE id = ?', gone.id)
      await target.revoke(revoked.id)
      execute("UPDATE users SET disabled = 1 WHERE name = 'disabled'")
      execute('UPDATE tokens SET expires_at = ? WHERE id = ?', Date.now() - 1, expired.id)
      await deleteUser('deleted')
      for (const [what, jwt] of [
        ['the row is gone', gone.jwt],
        ['revoked', revoked.jwt],
        ['the user is disabled', disabled.jwt],
        ['the user was deleted', deleted.jwt],
        ['the row has expired', expired.jwt],
        ["somebody's token, somebody else's name", ben.as({ sub: honest.sub })],
        ["one's own name, somebody else's token", ben.as({ jti: honest.jti })],
        ['a name that begins like the right one', ben.as({ sub: `${honest.sub}0` })],
        ...given,
      ] as const)
        await expectRefused(what, jwt)
    })

    async function deleteUser(user: string): Promise<void> {
      execute('UPDATE users SET disabled = 1, deleted_at = ? WHERE name = ?', Date.now(), user)
    }

    test('scopes are those of the token and of its row, whichever has fewer (R14)', async () => {
      const narrow = await issued('carl', { scopes: ['pull'], admin: true })
      const wide = await issued('carl', { scopes: ALL, admin: true })
      const make = { name: 'carl' }
      const able = with_(wide.jwt)
      expectData(await able.call('GET', '/v1/users'))
      expectData(await able.call('POST', '/v1/entities', make))
      const { id } = expectData(await able.call('GET', '/v1/entities/carl'))
      const inside = { name: 'new', entity: id, private: false }
      for (const jwt of [
        narrow.jwt,
        narrow.as({ scope: ALL.join(' ') }),
        wide.as({ scope: 'pull' }),
        wide.as({ scope: 'pull,push,admin' }),
        wide.as({ scope: 'pull PUSH ADMIN' }),
        wide.as({ scope: 'pull push2 administrator adminadmin' }),
        wide.as({ scope: 'pull\tpush\nadmin' }),
        wide.as({ scope: '*' }),
        // members that no token of ours has mean nothing
        narrow.as({ scopes: ALL, role: 'admin', admin: true, manages: true }),
      ]) {
        expectRefusal(await with_(jwt).call('GET', '/v1/users'), 403)
        expectRefusal(await with_(jwt).call('POST', '/v1/collections', inside), 403)
        expectRefusal(await with_(jwt).call('POST', '/v1/entities', make), 403)
      }
    })

    test('one that is bound to john does not open johnny', async () => {
      const bound = async (container: string) => {
        const token = await issued('anna')
        execute(
          `UPDATE tokens SET
             collection_id = (SELECT c.id FROM collections c JOIN entities e ON e.id = c.entity_id
               WHERE e.name = 'anna' AND c.name = 'john'),
             container_id = coalesce((SELECT n.id FROM containers n JOIN collections c ON c.id = n.collection_id
               WHERE c.name = 'john' AND n.name = ?), '')
           WHERE id = ?`,
          container,
          token.id,
        )
        return token
      }
      const [collection, container] = [await bound(''), await bound('john')]
      const opens = async (jwt: string, ref: string) =>
        (await with_(jwt).call('GET', `/v1/images/${ref}:latest?arch=amd64`)).status
      const escape = { collection: 'johnny', collectionId: '', collection_id: '', container: '' }
      for (const [jwt, statuses] of [
        [owner.token ?? '', [200, 200, 200, 200]],
        [collection.jwt, [200, 200, 404, 404]],
        [collection.as(escape), [200, 200, 404, 404]],
        [container.jwt, [200, 404, 404, 404]],
        [container.as(escape), [200, 404, 404, 404]],
      ] as const) {
        const refs = ['john/john', 'john/johnny', 'johnny/john', 'johnny/johnny']
        expect(await Promise.all(refs.map((ref) => opens(jwt, `anna/${ref}`)))).toEqual(statuses)
      }
      const who = with_(collection.jwt)
      for (const path of ['collections/anna/*', 'containers/anna/*/john'])
        expectAlike(
          await who.call('GET', `/v1/${path.replace('*', 'johnny')}`),
          await who.call('GET', `/v1/${path.replace('*', 'johnn')}`),
        )
      const bytes = sampleSif({ content: 'bound' })
      await who.push('anna/john/john', bytes)
      await expect(who.push('anna/johnny/john', bytes)).rejects.toThrow(/40[34]/)
      await expect(with_(container.jwt).push('anna/john/johnny', bytes)).rejects.toThrow(/40[34]/)
      expectRefusal(await who.call('POST', '/v1/tokens', { user: 'anna', name: 'free' }), 403)
    })

    test('the slowest refusal', () => {
      const [ms = Infinity, what] = slowest.toSorted(([one], [other]) => other - one)[0] ?? []
      console.log(
        `${name}: ${slowest.length} refusals, the slowest in ${ms.toFixed(1)} ms: ${what}`,
      )
      expect(ms).toBeLessThan(LONGEST_MS)
    })
  })
}
