/** Limits by themselves: windows, addresses, who is counted as whom, what the fields say (R58). */
import type { Hono } from 'hono'
import { describe, expect, test } from 'vitest'
import { cloudflareLimiter } from '../../adapters/limits/cloudflare.ts'
import { memoryLimiter } from '../../adapters/limits/memory.ts'
import type { Claims } from '../../src/core/model.ts'
import { DAY_MS, WEEK_MS, windowOf } from '../../src/core/tallies.ts'
import { RegistryError } from '../../src/errors.ts'
import { authenticate } from '../../src/http/authenticate.ts'
import { newEntry, type Env } from '../../src/http/context.ts'
import { onError } from '../../src/http/json-resp.ts'
import { fields } from '../../src/http/limit.ts'
import { addressOf, networkOf } from '../../src/http/origin.ts'
import { defineRoutes, type Route } from '../../src/http/routes.ts'
import { describeRateLimiter } from '../contract/rate-limiter.ts'
import { counterRows, testLimits } from '../fixtures/limits.ts'

const START = Date.UTC(2030, 0, 1, 12)

function stepped(at = START) {
  let now = at
  return { now: () => new Date(now), pass: (seconds: number) => void (now += seconds * 1000) }
}

const rule = { name: 'tries', count: 20, seconds: 60 }
const clock = stepped()
describeRateLimiter('memory', { make: () => memoryLimiter({ clock }), rule, pass: clock.pass })

describe('memory', () => {
  test('holds so many counters and forgets those that were not used lately', () => {
    const limiter = memoryLimiter({ clock: stepped(), most: 4 })
    const left = (key: string) => limiter.take(key, rule).remaining
    expect(['a', 'b', 'c', 'a', 'd'].map(left)).toEqual([19, 19, 19, 18, 19])
    expect(['a', 'b'].map(left)).toEqual([17, 19])
  })

  test('forgets under a flood of addresses, and quickly', () => {
    const limiter = memoryLimiter({ clock: stepped() })
    limiter.take('first', rule)
    const before = performance.now()
    for (let i = 0; i < 300_000; i++) limiter.take(`address ${i}`, rule)
    expect(performance.now() - before).toBeLessThan(5000)
    expect(limiter.take('first', rule).remaining).toBe(19)
  })

  test('counts every rule for itself', () => {
    const limiter = memoryLimiter({ clock: stepped() })
    const once = { ...rule, name: 'once', count: 1 }
    expect([limiter.take('a', once), limiter.take('a', once)].map((t) => t.allowed)).toEqual([
      true,
      false,
    ])
    expect(limiter.take('a', rule).allowed).toBe(true)
  })

  test('a clock that was set back does not stretch a window', () => {
    const clock = stepped()
    const limiter = memoryLimiter({ clock })
    for (let i = 0; i < 21; i++) limiter.take('a', rule)
    clock.pass(-3600)
    expect(limiter.take('a', rule)).toMatchObject({ allowed: true, resetSeconds: 60 })
  })
})

test('a binding is asked after the memory; either of them refuses', async () => {
  const asked: string[] = []
  let success = true
  const limiter = cloudflareLimiter(memoryLimiter({ clock: stepped() }), {
    tries: {
      async limit({ key }) {
        asked.push(key)
        return { success }
      },
    },
  })
  const two = { ...rule, count: 2 }
  expect(await limiter.take('a', two)).toEqual({ allowed: true, remaining: null, resetSeconds: 60 })
  success = false
  expect(await limiter.take('a', two)).toEqual({ allowed: false, remaining: 0, resetSeconds: 60 })
  expect(await limiter.take('a', two)).toMatchObject({ allowed: false })
  expect(asked).toEqual(['a', 'a'])
  expect(await limiter.take('a', { ...two, name: 'unbound' })).toMatchObject({ remaining: 1 })
})

test.each([
  ['192.0.2.7', '192.0.2.7'],
  ['::ffff:192.0.2.7', '192.0.2.7'],
  ['2001:db8:1:2:3:4:5:6', '20010db800010002/64'],
  ['2001:db8:1:2::1', '20010db800010002/64'],
  ['2001:db8:1:3::1', '20010db800010003/64'],
  ['unix socket', 'unix socket'],
])('%s is counted as %s (R58)', (address, network) => {
  expect(networkOf(address)).toBe(network)
})

test('days begin at midnight, weeks on Monday, UTC', () => {
  // a Tuesday
  const now = new Date('2030-01-01T12:00:00.500Z')
  const day = windowOf(now, DAY_MS)
  expect([day.begin.toISOString(), day.resetSeconds]).toEqual(['2030-01-01T00:00:00.000Z', 43_200])
  const week = windowOf(now, WEEK_MS)
  expect(week.begin.toISOString()).toBe('2029-12-31T00:00:00.000Z')
  const monday = new Date('2029-12-31T00:00:00Z')
  expect(windowOf(monday, WEEK_MS)).toEqual({ begin: monday, resetSeconds: 604_800 })
})

test('the fields are those of draft-ietf-httpapi-ratelimit-headers-10', () => {
  const searches = { name: 'searches', count: 600, seconds: 60 }
  const week = { name: 'container-week', count: 100, seconds: 604_800 }
  const stand = { allowed: true, resetSeconds: 30 }
  expect(fields([{ ...stand, rule: searches, remaining: 599 }])).toEqual({
    'RateLimit-Policy': '"searches";q=600;w=60',
    RateLimit: '"searches";r=599;t=30',
  })
  expect(
    fields([
      { ...stand, rule: searches, remaining: null },
      { ...stand, rule: week, remaining: 0 },
    ]),
  ).toEqual({
    'RateLimit-Policy': '"searches";q=600;w=60, "container-week";q=100;w=604800',
    RateLimit: '"container-week";r=0;t=30',
  })
  expect(fields([])).toEqual({})
})

describe('routes with limits', () => {
  const claims = (userId: string): Claims => ({
    tokenId: `token of ${userId}`,
    userId,
    scopes: ['pull'],
    expiresAt: new Date(START + DAY_MS),
  })
  const verifier = { verify: async (jwt: string) => (jwt.startsWith('good') ? claims(jwt) : null) }
  const ended = new RegistryError('unauthenticated', 'This token has been revoked.')
  const ok: Route['handler'] = (c) => c.json({ data: {} })
  const routes: Route[] = [
    { method: 'GET', path: '/open', access: 'open', handler: ok },
    { method: 'GET', path: '/ticket', access: 'ticket', handler: ok },
    { method: 'GET', path: '/read', access: 'read', handler: ok },
    { method: 'GET', path: '/search', access: 'read', limit: 'search', handler: ok },
    { method: 'GET', path: '/revoked', access: 'read', handler: () => Promise.reject(ended) },
    {
      method: 'POST',
      path: '/secret',
      access: 'open',
      limit: 'login',
      handler: () => {
        throw new RegistryError('denied', 'Not that secret.')
      },
    },
  ]

  type Asked = { from?: string | null; for?: string; token?: string; method?: string }
  function served(options: Parameters<typeof testLimits>[0] = {}) {
    const trustedProxies = options.trustedProxies ?? []
    const app: Hono<Env> = defineRoutes({
      routes,
      owns: ['/*'],
      onError,
      deps: { authenticate: (c) => authenticate(c, verifier), limits: testLimits(options) },
    })
    return async (
      path: string,
      { from = '192.0.2.1', for: hops, token, method = 'GET' }: Asked = {},
    ) => {
      const headers = new Headers()
      if (hops !== undefined) headers.set('x-forwarded-for', hops)
      if (token !== undefined) headers.set('authorization', `Bearer ${token}`)
      const peer = { address: from, encrypted: false }
      const entry = newEntry('r1', addressOf(headers, peer, { trustedProxies }))
      const response = await app.fetch(new Request(`http://x${path}`, { method, headers }), {
        entry,
        peer,
      })
      // as `logged` does it where an answer's headers cannot be put beforehand
      for (const [name, value] of Object.entries(entry.told ?? {}))
        response.headers.set(name, value)
      return response
    }
  }
  const statuses = async (answers: Promise<Response>[]) =>
    (await Promise.all(answers)).map(({ status }) => status)

  test('requests of an address, whatever they ask; tickets never (R5)', async () => {
    const ask = served({ limits: { requests: 3 } })
    expect(await statuses([ask('/open'), ask('/none'), ask('/open', { method: 'PUT' })])).toEqual([
      200, 404, 405,
    ])
    expect(await statuses([ask('/read'), ask('/none'), ask('/ticket')])).toEqual([429, 429, 200])
    const refused = await ask('/open')
    expect(refused.headers.get('retry-after')).toBe('60')
    expect(refused.headers.get('ratelimit-policy')).toBe('"requests";q=3;w=60')
    expect(refused.headers.get('ratelimit')).toBe('"requests";r=0;t=60')
    expect(await refused.json()).toEqual({
      error: {
        code: 429,
        message: 'Too many requests: 3 a minute are allowed; try again in 60 s.',
      },
    })
    expect(await statuses([ask('/open', { from: '192.0.2.2' })])).toEqual([200])
  })

  test('what an untrusted peer forwards counts as the peer', async () => {
    const ask = served({ limits: { requests: 2 } })
    const hops = ['198.51.100.1', '198.51.100.2', '127.0.0.1']
    expect(await statuses(hops.map((hop) => ask('/open', { for: hop })))).toEqual([200, 200, 429])
  })

  test('what a trusted proxy forwards counts as its client, not what that one has put before', async () => {
    const ask = served({ limits: { requests: 1 }, trustedProxies: ['10.0.0.0/8'] })
    for (const from of ['127.0.0.1', '10.1.1.1']) {
      const client = `198.51.100.${from.length}`
      const spoofed = ['1.1.1.1', '2.2.2.2'].map((hop) =>
        ask('/open', { from, for: `${hop}, ${client}` }),
      )
      expect(await statuses(spoofed)).toEqual([200, 429])
    }
  })

  test('proxies that name no client, and peers without an address, are not counted', async () => {
    const ask = served({ limits: { requests: 1, logins: 1 }, trustedProxies: ['10.0.0.0/8'] })
    for (const from of ['127.0.0.1', '::1', '10.1.1.1', null])
      expect(
        await statuses([
          ask('/open', { from }),
          ask('/open', { from }),
          ask('/read', { from, token: 'bad' }),
        ]),
      ).toEqual([200, 200, 401])
  })

  test('failed checks are refused beyond the limit, and a valid token never', async () => {
    const ask = served({ limits: { logins: 2 } })
    const bad = () => ask('/read', { token: 'bad' })
    expect(await statuses([bad(), ask('/revoked', { token: 'good' })])).toEqual([401, 401])
    const refused = await bad()
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([429, '60'])
    expect(await refused.text()).toMatch(/This token is not valid .*Too many refused credentials/)
    expect(await statuses([ask('/secret', { method: 'POST' })])).toEqual([429])
    expect(
      await statuses([ask('/read', { token: 'good' }), ask('/read'), ask('/read', { token: '' })]),
    ).toEqual([200, 200, 200])
    expect(await statuses([ask('/read', { token: 'bad', from: '192.0.2.9' })])).toEqual([401])
  })

  test('a limiter that fails lets reads pass, and no refused credential (R58)', async () => {
    for (const take of [
      () => {
        throw new Error('gone')
      },
      () => Promise.reject(new Error('gone')),
    ]) {
      const lines: string[] = []
      const ask = served({
        limits: { requests: 1, logins: 1, searches: 1 },
        limiter: { take },
        log: { event: (level, name) => void lines.push(`${level} ${name}`) },
      })
      expect(
        await statuses([
          ask('/open'),
          ask('/open'),
          ask('/search'),
          ask('/read', { token: 'good' }),
        ]),
      ).toEqual([200, 200, 200, 200])
      const refused = await ask('/read', { token: 'bad' })
      expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '5'])
      expect(new Set(lines)).toEqual(new Set(['error limiter']))
    }
  })

  test('searches by token or address, with the fields on every answer', async () => {
    const ask = served({ limits: { searches: 2 } })
    const first = await ask('/search', { token: 'good' })
    expect(first.headers.get('ratelimit')).toBe('"searches";r=1;t=60')
    expect(first.headers.get('ratelimit-policy')).toBe('"searches";q=2;w=60')
    const elsewhere = { token: 'good', from: '192.0.2.8' }
    expect(await statuses([ask('/search', elsewhere), ask('/search', elsewhere)])).toEqual([
      200, 429,
    ])
    expect(
      await statuses([ask('/search', { token: 'good2' }), ask('/search'), ask('/search')]),
    ).toEqual([200, 200, 200])
    expect(await statuses([ask('/search')])).toEqual([429])
  })

  test('calls of a day, by user and by address; they survive a restart', async () => {
    const clock = stepped()
    const { database } = counterRows()
    const options = { limits: { userDay: 3, anonymousDay: 2 }, clock, database }
    const ask = served(options)
    const good = { token: 'good' }
    // nobody can use up the day of a user with a token of theirs that has ended
    for (let i = 0; i < 5; i++) expect(await statuses([ask('/revoked', good)])).toEqual([401])
    for (const status of [200, 200, 200, 429])
      expect(await statuses([ask('/read', good)])).toEqual([status])
    for (const status of [200, 200, 429]) expect(await statuses([ask('/read')])).toEqual([status])
    expect(
      await statuses([ask('/open'), ask('/ticket'), ask('/read', { from: '192.0.2.5' })]),
    ).toEqual([200, 200, 200])
    const restarted = served(options)
    const refused = await restarted('/read', good)
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([429, '43200'])
    expect(refused.headers.get('ratelimit')).toBe('"user-day";r=0;t=43200')
    expect(await refused.text()).toContain(
      'Too many API calls: 3 a day are allowed; try again in 12 h.',
    )
    expect(await statuses([restarted('/read')])).toEqual([429])
    clock.pass(43_200)
    expect(await statuses([restarted('/read', good), ask('/read')])).toEqual([200, 200])
  })
})
