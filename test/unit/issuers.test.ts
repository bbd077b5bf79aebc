/** Tokens of other issuers: configuration, forgeries, keys that come and go (R13, R35, R55). */
import { createHash, generateKeyPairSync, sign, type KeyObject } from 'node:crypto'
import { SignJWT, type JWK } from 'jose'
import { describe, expect, it } from 'vitest'
import { parseConfig } from '../../src/config.ts'
import { foreignVerifier, verifierOf } from '../../src/core/issuers.ts'
import { checkName } from '../../src/core/names.ts'
import { tokenIssuer, tokenVerifier } from '../../src/core/tokens.ts'
import { parseIssuers } from '../../src/issuers-config.ts'
import type { FetchJson, UsersBook } from '../../src/ports.ts'

const REGISTRY = 'a1b2c3d4e5f6a1b2c3d4e5f6'
const ISSUER = 'https://ci.example.org'
const JWKS = `${ISSUER}/keys`
const NOW = Date.UTC(2030, 0, 1) / 1000
const MINUTE = 60
const HOUR = 3600

type Keys = { jwk: JWK; key: KeyObject; pem: string }

function makeKeys(alg: 'RS256' | 'ES256' | 'EdDSA', kid: string): Keys {
  const { publicKey, privateKey } =
    alg === 'RS256'
      ? generateKeyPairSync('rsa', { modulusLength: 2048 })
      : alg === 'ES256'
        ? generateKeyPairSync('ec', { namedCurve: 'P-256' })
        : generateKeyPairSync('ed25519')
  return {
    jwk: { ...(publicKey.export({ format: 'jwk' }) as JWK), kid, alg, use: 'sig' },
    key: privateKey,
    pem: publicKey.export({ format: 'pem', type: 'spki' }) as string,
  }
}

const rsa = makeKeys('RS256', 'key-1')
const ec = makeKeys('ES256', 'key-ec')
const ed = makeKeys('EdDSA', 'key-ed')
const later = makeKeys('RS256', 'key-2')
const foreign = makeKeys('RS256', 'key-1')
const own = makeKeys('EdDSA', 'key-own')

const CLAIMS = { repository_id: '123', ref: 'refs/heads/main', event_name: 'push' }
const RULE = { claims: CLAIMS, scopes: ['pull', 'push'], collection: 'lab/tools' }
const SETTING = { issuer: ISSUER, audience: 'https://sreg.example.org', rules: [RULE] }

const encode = (part: unknown) =>
  Buffer.from(typeof part === 'string' ? part : JSON.stringify(part)).toString('base64url')

const HEADER = { alg: 'RS256', typ: 'JWT', kid: 'key-1' }
const PAYLOAD = {
  iss: ISSUER,
  aud: SETTING.audience,
  sub: 'repo:lab/tools:ref:refs/heads/main',
  jti: 'one',
  iat: NOW,
  nbf: NOW - 600,
  exp: NOW + 10 * MINUTE,
  repository: 'lab/tools',
  ...CLAIMS,
}

/** A token with a proper RS256 signature over whatever it says: only what it says can refuse it. */
function forge(header: object = {}, payload: object | string = {}, key = rsa.key): string {
  const body = typeof payload === 'string' ? payload : { ...PAYLOAD, ...payload }
  const text = `${encode({ ...HEADER, ...header })}.${encode(body)}`
  return `${text}.${sign('sha256', Buffer.from(text), key).toString('base64url')}`
}

const signed = ({ key, jwk }: Keys, payload: object = {}) =>
  new SignJWT({ ...PAYLOAD, ...payload })
    .setProtectedHeader({ alg: jwk.alg ?? '', typ: 'JWT', kid: jwk.kid ?? '' })
    .sign(key)

const hs256 = (secret: string | Uint8Array) =>
  new SignJWT(PAYLOAD)
    .setProtectedHeader({ ...HEADER, alg: 'HS256' })
    .sign(typeof secret === 'string' ? Buffer.from(secret) : secret)

type Vouch = UsersBook['vouch']

/** A verifier of ours and theirs, an issuer that can be changed, and what was asked of it. */
function world(setting: object | object[] = SETTING) {
  const text = JSON.stringify(Array.isArray(setting) ? setting : [setting])
  const { issuers, problems } = parseIssuers(text)
  expect(problems).toEqual([])
  const clock = { seconds: NOW, now: () => new Date(clock.seconds * 1000) }
  const documents = new Map<string, unknown>([
    [`${ISSUER}/.well-known/openid-configuration`, { issuer: ISSUER, jwks_uri: JWKS }],
    [JWKS, { keys: [rsa.jwk, ec.jwk, ed.jwk] }],
  ])
  const fetched: string[] = []
  const allowed: boolean[] = []
  const fetchJson: FetchJson = async (url, { allowPrivate }) => {
    fetched.push(url)
    allowed.push(allowPrivate)
    await new Promise((resolve) => setImmediate(resolve))
    const document = documents.get(url)
    if (document === undefined) throw new Error('down')
    if (document instanceof Promise) return document
    return structuredClone(document)
  }
  const vouched: Parameters<Vouch>[0][] = []
  const answers: { vouch: Awaited<ReturnType<Vouch>> } = { vouch: 'ok' }
  const reasons: unknown[] = []
  let id = 0
  const theirs = foreignVerifier({
    issuers,
    fetchJson,
    clock,
    ids: { next: () => (id += 1).toString(16).padStart(24, '0') },
    log: { event: (_, name, fields) => reasons.push(`${name} ${fields?.reason}`) },
    async vouch(identity) {
      vouched.push(identity)
      return answers.vouch
    },
  })
  const ours = tokenVerifier({ registryId: REGISTRY, keys: [own.jwk], clock })
  const asked: string[] = []
  const { verify } = verifierOf(
    {
      verify(jwt) {
        asked.push(jwt)
        return ours.verify(jwt)
      },
    },
    theirs,
  )
  const jwksFetches = () => fetched.filter((url) => url === JWKS).length
  const down = () => documents.clear()
  return {
    clock,
    documents,
    down,
    fetched,
    allowed,
    jwksFetches,
    vouched,
    answers,
    reasons,
    asked,
    verify,
  }
}

describe('an accepted token', () => {
  it('is an identity of its issuer and subject, bound to the collection of its rule', async () => {
    const { verify, vouched } = world()
    const jwt = forge()
    const subject = `${ISSUER}|${PAYLOAD.sub}`
    const userId = createHash('sha256').update(subject).digest('hex').slice(0, 24)
    const claims = await verify(jwt)
    expect(claims).toEqual({
      tokenId: expect.stringMatching(/^[0-9a-f]{24}$/),
      userId,
      scopes: ['pull', 'push'],
      expiresAt: new Date(PAYLOAD.exp * 1000),
    })
    expect(vouched).toEqual([
      {
        userId,
        name: `oidc:${userId.slice(0, 12)}`,
        subject,
        token: {
          id: claims?.tokenId,
          name: subject,
          scopes: ['pull', 'push'],
          createdAt: new Date(NOW * 1000),
          expiresAt: new Date(PAYLOAD.exp * 1000),
        },
        grant: { id: expect.stringMatching(/^[0-9a-f]{24}$/), collection: 'lab/tools', level: 2 },
        now: new Date(NOW * 1000),
      },
    ])
    expect(() => checkName('user', vouched[0]?.name ?? '')).toThrow()
  })

  it('may have each of the algorithms, with the key that fits', async () => {
    const { verify } = world()
    for (const keys of [rsa, ec, ed]) expect(await verify(await signed(keys))).not.toBeNull()
  })

  it('is vouched for once, and remembered until it ends', async () => {
    const { verify, vouched, clock, fetched } = world()
    const jwt = forge()
    for (let round = 0; round < 3; round += 1) expect(await verify(jwt)).not.toBeNull()
    expect([vouched.length, fetched.length]).toEqual([1, 2])
    clock.seconds = PAYLOAD.exp - 1
    expect(await verify(jwt)).not.toBeNull()
    clock.seconds = PAYLOAD.exp
    expect(await verify(jwt)).toBeNull()
    expect(await verify(forge())).toBeNull()
    expect(vouched).toHaveLength(1)
  })

  it('has one id however it is signed and spelled, so that its revocation holds', async () => {
    const { verify, vouched } = world()
    // ECDSA signs the same words with another number each time
    const text = `${encode({ ...HEADER, alg: 'ES256', kid: 'key-ec' })}.${encode(PAYLOAD)}`
    const two = [1, 2].map(() => {
      const signature = sign('sha256', Buffer.from(text), {
        key: ec.key,
        dsaEncoding: 'ieee-p1363',
      })
      return `${text}.${signature.toString('base64url')}`
    })
    expect(two[0]).not.toBe(two[1])
    for (const jwt of two) expect(await verify(jwt)).not.toBeNull()
    expect(new Set(vouched.map(({ token }) => token.id)).size).toBe(1)
    expect((await verify(forge({}, { jti: 'two' })))?.tokenId).not.toBe(vouched[0]?.token.id)
  })

  it('may have clocks that differ by 60 s, and no more', async () => {
    const { verify } = world()
    expect(await verify(forge({}, { nbf: NOW + 59, iat: NOW + 59 }))).not.toBeNull()
    expect(await verify(forge({}, { nbf: NOW + 61 }))).toBeNull()
    expect(await verify(forge({}, { iat: NOW + 61 }))).toBeNull()
  })

  it('may name several audiences, and its certificate by thumbprint, as GitHub does', async () => {
    const { verify } = world()
    expect(await verify(forge({}, { aud: ['other', SETTING.audience] }))).not.toBeNull()
    expect(await verify(forge({ x5t: 'AAAA' }))).not.toBeNull()
    expect(await verify(forge({ typ: undefined }))).not.toBeNull()
  })

  it('comes anew when another rule has taken the grant of its identity', async () => {
    const review = { ...RULE, claims: { ...CLAIMS, event_name: 'pull_request' }, scopes: ['pull'] }
    const { verify, vouched } = world({ ...SETTING, rules: [RULE, review] })
    const [push, pull] = [forge(), forge({}, { event_name: 'pull_request' })]
    for (const jwt of [push, pull, pull, push, push]) expect(await verify(jwt)).not.toBeNull()
    expect(vouched.map(({ grant }) => grant.level)).toEqual([2, 1, 2])
    expect(vouched.map(({ token }) => token.scopes.join())).toEqual([
      'pull,push',
      'pull',
      'pull,push',
    ])
  })

  it('that is refused by the books is told why, each time', async () => {
    const { verify, answers, vouched } = world()
    const jwt = forge()
    answers.vouch = 'disabled'
    for (let round = 0; round < 2; round += 1)
      await expect(verify(jwt)).rejects.toMatchObject({
        code: 'unauthenticated',
        message: expect.stringContaining(PAYLOAD.sub),
      })
    answers.vouch = 'no collection'
    await expect(verify(jwt)).rejects.toMatchObject({
      code: 'unauthenticated',
      message: expect.stringContaining('lab/tools'),
    })
    answers.vouch = 'ok'
    expect(await verify(jwt)).not.toBeNull()
    expect(vouched).toHaveLength(4)
  })
})

describe('rules compare whole values', () => {
  const unfit: Record<string, object> = {
    'a value that is longer': { ref: 'refs/heads/main2' },
    'a value that is shorter': { ref: 'refs/heads/mai' },
    'another case': { ref: 'refs/heads/Main' },
    'a fork': { repository_id: '1234' },
    'a pull request': { event_name: 'pull_request' },
    'a list that holds the value': { ref: ['refs/heads/main'] },
    'an object': { ref: { toString: 'refs/heads/main' } },
    'a missing claim': { repository_id: undefined },
    null: { repository_id: null },
    'another kind of number': { repository_id: 123.5 },
  }
  for (const [what, payload] of Object.entries(unfit))
    it(`${what} does not fit`, async () => {
      const { verify, vouched } = world()
      await expect(verify(forge({}, payload))).rejects.toMatchObject({
        code: 'unauthenticated',
        message: expect.stringMatching(/no rule/),
      })
      expect(vouched).toEqual([])
    })

  it('a claim of every object is no claim of the token', async () => {
    const claims = { ...CLAIMS, constructor: 'x' }
    const { verify } = world({ ...SETTING, rules: [{ ...RULE, claims }] })
    await expect(verify(forge())).rejects.toMatchObject({ code: 'unauthenticated' })
  })

  it('a number and true are what a rule writes as text', async () => {
    const claims = { project_id: '22', ref_protected: 'true', ref: 'main' }
    const { verify } = world({ ...SETTING, rules: [{ ...RULE, claims }] })
    const said = { project_id: 22, ref_protected: true, ref: 'main' }
    expect(await verify(forge({}, said))).not.toBeNull()
  })

  it('the first that fits counts', async () => {
    const rules = [
      { ...RULE, claims: { ...CLAIMS, ref: 'refs/heads/dev' }, collection: 'lab/dev' },
      { ...RULE, collection: 'lab/first', level: 'reader' },
      { ...RULE, collection: 'lab/second' },
    ]
    const { verify, vouched } = world({ ...SETTING, rules })
    await verify(forge())
    expect(vouched[0]?.grant).toMatchObject({ collection: 'lab/first', level: 1 })
  })
})

describe('forgeries are refused', () => {
  const altered = (jwt: string, part: number) => {
    const parts = jwt.split('.')
    const text = parts[part] ?? ''
    const middle = text.length >> 1
    parts[part] =
      text.slice(0, middle) + (text[middle] === 'A' ? 'B' : 'A') + text.slice(middle + 1)
    return parts.join('.')
  }
  const without = (claim: keyof typeof PAYLOAD) => forge({}, { [claim]: undefined })
  const FORGERIES: Record<string, () => string | Promise<string>> = {
    'alg none without signature': () => `${encode({ ...HEADER, alg: 'none' })}.${encode(PAYLOAD)}.`,
    'alg none with a signature': () => forge({ alg: 'none' }),
    'alg missing': () => forge({ alg: undefined }),
    'alg in another case': () => forge({ alg: 'rs256' }),
    'alg a list': () => forge({ alg: ['RS256'] }),
    'an algorithm that is not configured': () => forge({ alg: 'RS512' }),
    'HS256 with their public key, PEM': () => hs256(rsa.pem),
    'HS256 with their public key, JWK': () => hs256(JSON.stringify(rsa.jwk)),
    'HS256 with their modulus': () => hs256(Buffer.from(rsa.jwk.n ?? '', 'base64url')),
    'ES256 in name, RS256 in truth': () => forge({ alg: 'ES256' }),
    'RS256 with the key of ES256': () => forge({ kid: 'key-ec' }),
    'another key of the same kid': () => forge({}, {}, foreign.key),
    'unknown kid': () => forge({ kid: 'key-9' }),
    'kid missing': () => forge({ kid: undefined }),
    'kid empty': () => forge({ kid: '' }),
    'kid a path': () => forge({ kid: '../key-1' }),
    'kid __proto__': () => forge({ kid: '__proto__' }),
    'kid a list': () => forge({ kid: ['key-1'] }),
    crit: () => forge({ crit: ['exp'] }),
    'b64 false': () => forge({ b64: false }),
    jku: () => forge({ jku: 'https://evil.example/keys' }),
    'jwk, their own': () => forge({ jwk: rsa.jwk }),
    'jwk, its own': () => forge({ jwk: foreign.jwk }, {}, foreign.key),
    x5u: () => forge({ x5u: 'https://evil.example/cert.pem' }),
    x5c: () => forge({ x5c: ['AAAA'] }),
    'typ of our tokens': () => forge({ typ: 'sreg+jwt' }),
    'typ of an access token': () => forge({ typ: 'at+jwt' }),
    'typ a list': () => forge({ typ: ['JWT'] }),
    'another audience': () => forge({}, { aud: 'https://other.example.org' }),
    'an audience that begins like ours': () => forge({}, { aud: `${SETTING.audience}.evil` }),
    'audience missing': () => without('aud'),
    'audience null': () => forge({}, { aud: null }),
    'audiences, none ours': () => forge({}, { aud: ['a', 'b'] }),
    'subject missing': () => without('sub'),
    'subject empty': () => forge({}, { sub: '' }),
    'subject a number': () => forge({}, { sub: 1 }),
    'subject with a line break': () => forge({}, { sub: 'repo\nadmin' }),
    'subject too long': () => forge({}, { sub: 'a'.repeat(1025) }),
    expired: () => forge({}, { exp: NOW }),
    'expired within the tolerance': () => forge({}, { exp: NOW - 30 }),
    'expiry missing': () => without('exp'),
    'expiry as text': () => forge({}, { exp: String(NOW + HOUR) }),
    'time of issue missing': () => without('iat'),
    'time of issue as text': () => forge({}, { iat: String(NOW) }),
    'issued in a time to come': () => forge({}, { iat: NOW + HOUR, exp: NOW + 2 * HOUR }),
    'not before a time to come': () => forge({}, { nbf: NOW + HOUR }),
    'a life of more than a day': () => forge({}, { exp: NOW + 24 * HOUR + 1 }),
    'a life of an age': () => forge({}, { iat: 0 }),
    'payload altered': () => altered(forge(), 1),
    'signature altered': () => altered(forge(), 2),
    'signature empty': () => forge().replace(/[^.]*$/, ''),
    'signature of another token': () =>
      forge().replace(/[^.]*$/, forge({}, { jti: 'two' }).split('.')[2] ?? ''),
    'two dots too many': () => `${forge()}.AAAA.AAAA`,
    '9 KB, well signed': () => forge({}, { padding: 'a'.repeat(9000) }),
    'our issuer with their key': () => forge({}, { iss: `urn:sreg:${REGISTRY}` }),
    'an issuer that nobody trusts': () => forge({}, { iss: 'https://evil.example.org' }),
    'the issuer with a slash': () => forge({}, { iss: `${ISSUER}/` }),
    'the issuer in another case': () => forge({}, { iss: ISSUER.toUpperCase() }),
    'issuers, a list': () => forge({}, { iss: [ISSUER] }),
    'issuer missing': () => without('iss'),
    'issuer __proto__': () => forge({}, { iss: '__proto__' }),
  }

  it('there are at least fifteen', () => {
    expect(Object.keys(FORGERIES).length).toBeGreaterThanOrEqual(15)
  })

  for (const [what, make] of Object.entries(FORGERIES))
    it(what, async () => {
      const { verify, vouched } = world()
      const jwt = await make()
      const start = performance.now()
      expect(await verify(jwt)).toBeNull()
      expect(performance.now() - start).toBeLessThan(1000)
      expect(vouched).toEqual([])
      // and what is proper is accepted by the same verifier
      expect(await verify(forge())).not.toBeNull()
    })

  it('forge() makes what an issuer makes, so that its refusals mean something', async () => {
    const { verify } = world()
    expect(await verify(forge())).toEqual(await verify(await signed(rsa)))
  })
})

describe('one verifier for each token', () => {
  it('ours are for ours, with no question to anybody', async () => {
    const { verify, fetched, asked } = world()
    const secret = { ...(own.key.export({ format: 'jwk' }) as JWK), kid: 'key-own' }
    const jwt = await tokenIssuer({ registryId: REGISTRY, signingKey: secret }).issue({
      tokenId: '1'.repeat(24),
      userId: '2'.repeat(24),
      scopes: ['pull'],
      issuedAt: new Date(NOW * 1000),
      expiresAt: new Date((NOW + HOUR) * 1000),
    })
    expect(await verify(jwt)).toMatchObject({ userId: '2'.repeat(24) })
    expect(asked).toEqual([jwt])
    expect(fetched).toEqual([])
  })

  it('a refusal of ours is final, also with a kid that another issuer has', async () => {
    const { verify, fetched, asked } = world()
    for (const jwt of [forge({}, { iss: `urn:sreg:${REGISTRY}` }), 'a.b.c', '', 'x'])
      expect(await verify(jwt)).toBeNull()
    expect(asked).toHaveLength(4)
    expect(fetched).toEqual([])
  })

  it('a refusal of theirs is final, also with our kid and key', async () => {
    const { verify, documents, asked } = world()
    documents.set(JWKS, { keys: [{ ...own.jwk, kid: 'key-1' }] })
    expect(await verify(forge())).toBeNull()
    expect(asked).toEqual([])
  })

  it('what is longer than 8 KiB is looked at by nobody', async () => {
    const { verify, fetched, asked } = world()
    expect(await verify(forge({}, { padding: 'a'.repeat(9000) }))).toBeNull()
    expect([...asked, ...fetched]).toEqual([])
  })

  it('issuers do not vouch for each other', async () => {
    const other = 'https://other.example.org'
    const { verify, documents } = world([SETTING, { ...SETTING, issuer: other }])
    documents.set(`${other}/.well-known/openid-configuration`, {
      issuer: other,
      jwks_uri: `${other}/keys`,
    })
    documents.set(`${other}/keys`, { keys: [foreign.jwk] })
    expect(await verify(forge({}, { iss: other }))).toBeNull()
    expect(await verify(forge({}, {}, foreign.key))).toBeNull()
    const [ours, theirs] = [
      await verify(forge()),
      await verify(forge({}, { iss: other }, foreign.key)),
    ]
    expect(theirs).not.toBeNull()
    expect(theirs?.userId).not.toBe(ours?.userId)
  })
})

describe('keys', () => {
  it('are asked for once by many at once', async () => {
    const { verify, fetched } = world()
    const jwts = Array.from({ length: 50 }, (_, at) => forge({}, { jti: String(at) }))
    const all = await Promise.all(jwts.map((jwt) => verify(jwt)))
    expect(all.every((claims) => claims !== null)).toBe(true)
    expect(fetched).toEqual([`${ISSUER}/.well-known/openid-configuration`, JWKS])
  })

  it('a flood of kids that nobody has is one question in five minutes', async () => {
    const { verify, jwksFetches, clock } = world()
    expect(await verify(forge())).not.toBeNull()
    const flood = async () => {
      for (let round = 0; round < 20; round += 1) {
        const jwts = Array.from({ length: 10 }, (_, at) => forge({ kid: `k${round}-${at}` }))
        for (const claims of await Promise.all(jwts.map((jwt) => verify(jwt))))
          expect(claims).toBeNull()
      }
    }
    await flood()
    expect(jwksFetches()).toBe(1)
    clock.seconds += 5 * MINUTE - 1
    await flood()
    expect(jwksFetches()).toBe(1)
    clock.seconds += 1
    await flood()
    expect(jwksFetches()).toBe(2)
    expect(await verify(forge({}, { jti: 'after' }))).not.toBeNull()
    expect(jwksFetches()).toBe(2)
  })

  it('that are rotated are found, and withdrawn ones end', async () => {
    const { verify, documents, clock, jwksFetches } = world()
    expect(await verify(forge())).not.toBeNull()
    documents.set(JWKS, { keys: [later.jwk] })
    clock.seconds += 5 * MINUTE
    const fresh = { iat: clock.seconds, exp: clock.seconds + 2 * HOUR }
    expect(await verify(await signed(later, fresh))).not.toBeNull()
    expect(jwksFetches()).toBe(2)
    expect(await verify(forge({}, { ...fresh, jti: 'two' }))).toBeNull()
  })

  it('that are withdrawn end within the hour though nobody asks for another', async () => {
    const { verify, documents, clock } = world()
    expect(await verify(forge())).not.toBeNull()
    documents.set(JWKS, { keys: [later.jwk] })
    clock.seconds += HOUR - 1
    const fresh = () => ({ iat: clock.seconds, exp: clock.seconds + HOUR })
    expect(await verify(forge({}, fresh()))).not.toBeNull()
    clock.seconds += 1
    expect(await verify(forge({}, fresh()))).toBeNull()
  })

  it('of an issuer that is down last a day; then and for unknown ones it is 503, not 401', async () => {
    const { verify, down, documents, clock, fetched, reasons } = world()
    const copies = new Map(documents)
    const fresh = () => ({ iat: clock.seconds, exp: clock.seconds + HOUR })
    const unavailable = { code: 'unavailable', retryAfter: expect.any(Number) }
    expect(await verify(forge())).not.toBeNull()
    down()
    clock.seconds += 23 * HOUR
    expect(await verify(forge({}, fresh()))).not.toBeNull()
    expect(reasons.at(-1)).toMatch(/^issuer .*down/)
    const before = fetched.length
    for (const kid of ['a', 'b', 'c'])
      await expect(verify(forge({ kid }, fresh()))).rejects.toMatchObject(unavailable)
    expect(fetched.length).toBe(before)
    clock.seconds += HOUR + 1
    await expect(verify(forge({}, fresh()))).rejects.toMatchObject(unavailable)
    for (const [url, document] of copies) documents.set(url, document)
    clock.seconds += 30
    expect(await verify(forge({}, fresh()))).not.toBeNull()
  })

  it('that never came are 503, and asked for twice a minute at most', async () => {
    const { verify, down, fetched, clock } = world()
    down()
    for (let second = 0; second < 60; second += 1) {
      await expect(verify(forge())).rejects.toMatchObject({ code: 'unavailable' })
      clock.seconds += 1
    }
    expect(fetched).toHaveLength(2)
  })

  it('a question that is never answered blocks nobody for ever', async () => {
    const { verify, documents, clock } = world()
    const found = documents.get(JWKS)
    documents.set(JWKS, new Promise(() => undefined))
    void verify(forge()).catch(() => undefined)
    await new Promise((resolve) => setTimeout(resolve, 20))
    documents.set(JWKS, found)
    clock.seconds += 31
    expect(await verify(forge())).not.toBeNull()
  })

  const BAD: Record<string, [string, unknown]> = {
    'discovery names another issuer': [
      `${ISSUER}/.well-known/openid-configuration`,
      { issuer: 'https://evil.example.org', jwks_uri: JWKS },
    ],
    'discovery names the issuer with a slash': [
      `${ISSUER}/.well-known/openid-configuration`,
      { issuer: `${ISSUER}/`, jwks_uri: JWKS },
    ],
    'keys are on another host': [
      `${ISSUER}/.well-known/openid-configuration`,
      { issuer: ISSUER, jwks_uri: 'https://evil.example.org/keys' },
    ],
    'keys are on another port': [
      `${ISSUER}/.well-known/openid-configuration`,
      { issuer: ISSUER, jwks_uri: `${ISSUER}:8443/keys` },
    ],
    'keys are not on https': [
      `${ISSUER}/.well-known/openid-configuration`,
      { issuer: ISSUER, jwks_uri: 'http://ci.example.org/keys' },
    ],
    'discovery has no keys': [`${ISSUER}/.well-known/openid-configuration`, { issuer: ISSUER }],
    'discovery is null': [`${ISSUER}/.well-known/openid-configuration`, null],
    'keys are no list': [JWKS, { keys: { length: 1, 0: rsa.jwk } }],
    'keys are missing': [JWKS, {}],
    'there are 51 keys': [JWKS, { keys: Array.from({ length: 51 }, () => rsa.jwk) }],
  }
  for (const [what, [url, document]] of Object.entries(BAD))
    it(`${what}: 503`, async () => {
      const { verify, documents, fetched } = world()
      documents.set(url, document)
      await expect(verify(forge())).rejects.toMatchObject({ code: 'unavailable' })
      expect(fetched.every((asked) => asked.startsWith(`${ISSUER}/`))).toBe(true)
    })

  it('50 keys are fine, and those that are none harm nobody', async () => {
    const odd = [null, 'key', {}, { kid: 1 }, { kty: 'RSA', kid: 'key-1', use: 'enc' }]
    const { verify, documents } = world()
    documents.set(JWKS, {
      keys: [
        ...Array.from({ length: 44 }, (_, at) => ({ ...later.jwk, kid: `k${at}` })),
        ...odd,
        rsa.jwk,
      ],
    })
    expect(await verify(forge())).not.toBeNull()
  })

  it('that are secret, for encryption or of another algorithm verify nothing', async () => {
    const secret = Buffer.from('a secret of thirty-two characters')
    const jwt = await hs256(secret)
    for (const key of [
      { kty: 'oct', kid: 'key-1', k: secret.toString('base64url') },
      { ...rsa.jwk, use: 'enc' },
      { ...rsa.jwk, alg: 'RS512' },
      { ...rsa.jwk, n: undefined },
      { ...makeKeys('EdDSA', 'key-1').jwk, alg: undefined },
    ]) {
      const { verify, documents } = world()
      documents.set(JWKS, { keys: [key] })
      for (const token of [forge(), jwt]) expect(await verify(token)).toBeNull()
    }
  })

  it('at a configured address need no discovery, whatever the host', async () => {
    const jwksUri = 'https://keys.example.net/ci'
    const { verify, documents, fetched, allowed } = world({
      ...SETTING,
      jwksUri,
      allowPrivate: true,
    })
    documents.set(jwksUri, { keys: [rsa.jwk] })
    expect(await verify(forge())).not.toBeNull()
    expect([fetched, allowed]).toEqual([[jwksUri], [true]])
  })

  it('private addresses are not allowed unless the configuration says so', async () => {
    const { verify, allowed } = world()
    await verify(forge())
    expect(allowed).toEqual([false, false])
  })
})

describe('SREG_TRUSTED_ISSUERS', () => {
  const problemsOf = (setting: unknown) => parseIssuers(JSON.stringify(setting)).problems.join('\n')
  const rule = (change: object) => [{ ...SETTING, rules: [{ ...RULE, ...change }] }]
  const claims = (wanted: object) => rule({ claims: wanted })
  const GITHUB = 'https://token.actions.githubusercontent.com'

  it('is empty, or what it says with the defaults', () => {
    expect(parseConfig({}).issuers).toEqual([])
    const text = JSON.stringify([{ ...SETTING, rules: [RULE, { ...RULE, scopes: ['pull'] }] }])
    expect(parseConfig({ SREG_TRUSTED_ISSUERS: text }).issuers).toEqual([
      {
        issuer: ISSUER,
        audience: SETTING.audience,
        algorithms: ['RS256', 'ES256', 'EdDSA'],
        jwksUri: null,
        allowPrivate: false,
        rules: [
          { ...RULE, level: 2 },
          { ...RULE, scopes: ['pull'], level: 1 },
        ],
      },
    ])
  })

  const REFUSED: [what: string, setting: unknown, sentence: RegExp][] = [
    ['no list', SETTING, /array/],
    ['no audience', [{ ...SETTING, audience: undefined }], /audience: is required/],
    ['an empty audience', [{ ...SETTING, audience: '' }], /audience: must not be empty/],
    ['http', [{ ...SETTING, issuer: 'http://ci.example.org' }], /issuer: must be an https/],
    ['our own issuer', [{ ...SETTING, issuer: `urn:sreg:${REGISTRY}` }], /must be an https/],
    ['a query', [{ ...SETTING, issuer: `${ISSUER}?a` }], /without user, query/],
    ['a user', [{ ...SETTING, issuer: 'https://a:b@ci.example.org' }], /without user, query/],
    ['what parts issuer and subject', [{ ...SETTING, issuer: `${ISSUER}/a|b` }], /https/],
    ['an issuer twice', [SETTING, SETTING], /each issuer once/],
    ['alg none', [{ ...SETTING, algorithms: ['none'] }], /algorithms\[0\]: may be RS256/],
    ['HS256', [{ ...SETTING, algorithms: ['RS256', 'HS256'] }], /algorithms\[1\]: may be RS256/],
    ['no algorithm', [{ ...SETTING, algorithms: [] }], /algorithms: must not be empty/],
    ['keys on http', [{ ...SETTING, jwksUri: 'http://ci.example.org/keys' }], /jwksUri: must be/],
    ['no rules', [{ ...SETTING, rules: [] }], /rules: must have at least one rule/],
    ['an unknown word', [{ ...SETTING, audiences: ['a'] }], /audiences/],
    ['an unknown word in a rule', rule({ containers: '*' }), /containers/],
    ['the scope admin', rule({ scopes: ['pull', 'admin'] }), /scopes\[1\]: may be pull and push/],
    ['the scope delete', rule({ scopes: ['delete'] }), /scopes\[0\]: may be pull and push/],
    ['no scope', rule({ scopes: [] }), /scopes: must name/],
    [
      'a container',
      rule({ collection: 'lab/tools/bwa' }),
      /collection: must be entity\/collection/,
    ],
    ['an entity', rule({ collection: 'lab' }), /must be entity\/collection/],
    ['a star', rule({ collection: 'lab/*' }), /must be entity\/collection/],
    ['an owner', rule({ level: 'owner' }), /level: must be reader or contributor/],
    ['a claim that is a number', claims({ ...CLAIMS, repository_id: 123 }), /must be text/],
    ['no claims', claims({}), /claims: must name the event or the ref/],
    ['no event', claims({ repository_id: '1' }), /must name the event or the ref/],
    ['nobody', claims({ ref: 'refs/heads/main' }), /must say whose job/],
    ['nobody but an audience', claims({ ref: 'main', aud: 'x' }), /must say whose job/],
    [
      'a repository by name',
      claims({ repository: 'lab/tools', ref: 'refs/heads/main' }),
      /must have repository_id beside repository/,
    ],
    [
      'a project by name',
      claims({ project_path: 'lab/tools', ref_protected: 'true' }),
      /must have project_id beside project_path/,
    ],
    ['a subject by name', claims({ sub: 'repo:lab/tools:ref:refs/heads/main' }), /beside sub/],
    [
      'everybody on GitHub',
      [{ ...SETTING, issuer: GITHUB, rules: [{ ...RULE, claims: { ref: 'a', actor: 'b' } }] }],
      /everybody can have tokens/,
    ],
  ]
  for (const [what, setting, sentence] of REFUSED)
    it(`refuses ${what}, with a sentence`, () => {
      expect(problemsOf(setting)).toMatch(sentence)
      const env = { SREG_TRUSTED_ISSUERS: JSON.stringify(setting) }
      expect(() => parseConfig(env)).toThrow(/SREG_TRUSTED_ISSUERS: /)
    })

  it('refuses what is no JSON', () => {
    expect(parseIssuers('[').problems).toEqual(['must be JSON'])
  })

  it('accepts a subject that names nobody by name, and names beside their ids', () => {
    expect(problemsOf(claims({ sub: 'system:serviceaccount:ci:builder' }))).toBe('')
    expect(problemsOf(claims({ ...CLAIMS, repository: 'lab/tools' }))).toBe('')
    expect(problemsOf([{ ...SETTING, issuer: GITHUB }])).toBe('')
  })
})
