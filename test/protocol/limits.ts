/** How often what may be asked of a registry with small limits, by addresses and users (R58, R28, R5). */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { sampleSif } from '../fixtures/sif.ts'
import type { Target, TargetOptions } from '../runtimes/target.ts'
import { expectAlike, expectData, expectRefusal } from './answers.ts'
import { libraryClient, sha256, type Answer } from './client.ts'

const LIMITS = {
  SREG_LIMIT_REQUESTS: '40',
  SREG_LIMIT_LOGINS: '5',
  SREG_LIMIT_SEARCHES: '3',
  SREG_LIMIT_KEYS: '2',
  SREG_LIMIT_ANONYMOUS_DAY: '30',
  SREG_LIMIT_USER_DAY: '60',
  SREG_LIMIT_CONTAINER_WEEK: '2',
  SREG_LIMIT_COLLECTION_WEEK: '3',
}
const WEEK = 604_800
/** As large as an image that is fetched in ranges, by tickets. */
const LARGE = 16 * 1024 * 1024

/** Addresses of documentation, each asked from once. */
let addresses = 0
const newAddress = () => {
  addresses += 1
  return `203.0.${addresses >> 8}.${addresses & 255}`
}

/**
 * `clientIs` names the header by which the runtime is told of a client: the one of a trusted proxy,
 * or of Cloudflare's edge.
 */
export function describeLimits(
  runtime: string,
  makeTarget: (options?: TargetOptions) => Promise<Target>,
  { clientIs = 'x-forwarded-for' }: { clientIs?: string } = {},
): void {
  describe(`${runtime}: limits`, () => {
    let target: Target
    const made = new Map<string, string>()
    beforeAll(async () => {
      target = await makeTarget({ env: LIMITS })
    })
    afterAll(() => target.stop())

    /** Somebody at an address of their own, with a token or without. */
    async function at(user: string | null = null, address = newAddress()) {
      if (user !== null && !made.has(user)) made.set(user, (await target.mint(user)).jwt)
      return by(made.get(user ?? '') ?? null, address)
    }
    function by(token: string | null, address = newAddress()) {
      const client = libraryClient(target.url, token)
      const call: typeof client.call = (method, path, body, headers) =>
        client.call(method, path, body, { [clientIs]: address, ...headers })
      return { ...client, call, get: (path: string) => call('GET', path) }
    }
    const limitOf = (answer: Answer) => [
      answer.headers.get('ratelimit-policy'),
      answer.headers.get('ratelimit')?.replace(/t=\d+/g, 't=T') ?? null,
    ]
    /** 429 in the envelope with its fields; `seconds` is the longest wait. */
    function expectLimited(answer: Answer, name: string, seconds: number): string {
      const says = expectRefusal(answer, 429, /^.*Too many .* a (minute|day|week) are allowed; try/)
      const wait = Number(answer.headers.get('retry-after'))
      expect(wait).toBeGreaterThan(0)
      expect(wait).toBeLessThanOrEqual(seconds)
      expect(limitOf(answer)[0]).toMatch(new RegExp(`^"${name}";q=\\d+;w=${seconds}$`))
      expect(limitOf(answer)[1]).toBe(`"${name}";r=0;t=T`)
      return says
    }
    const pull = (from: { get(path: string): Promise<Answer> }, ref: string) =>
      from.get(`/v1/imagefile/${ref}?arch=amd64`)
    const times = async (count: number, ask: () => Promise<Answer>) => {
      const answers: Answer[] = []
      for (let i = 0; i < count; i++) answers.push(await ask())
      return answers
    }
    const statuses = (answers: Answer[]) => answers.map(({ status }) => status)
    const pushed = async (user: string, ref: string, bytes = sampleSif({ content: ref })) => {
      await at(user)
      return libraryClient(target.url, made.get(user)).push(ref, bytes)
    }

    test('requests of an address, whatever they ask for', async () => {
      const one = await at()
      for (const status of statuses(await times(40, () => one.get('/version'))))
        expect(status).toBe(200)
      for (const path of ['/version', '/v1/nothing', '/v1/search?value=abc', '/healthz'])
        expect((await one.get(path)).status).toBe(429)
      expectLimited(await one.call('PUT', '/version'), 'requests', 60)
      expect((await (await at()).get('/version')).status).toBe(200)
    })

    test('1,000 guesses find nothing, and the real token passes', async () => {
      const real = await at('guessed')
      const [head = '', body = '', mac = ''] = (real.token ?? '').split('.')
      let tries = 0
      const seen = new Set<number>()
      await Promise.all(
        Array.from({ length: 50 }, async () => {
          const address = newAddress()
          for (let i = 0; i < 20; i++) {
            const guess = Buffer.from(`guess ${(tries += 1)}`.padEnd(64)).toString('base64url')
            const answer = await by(`${head}.${body}.${guess}`, address).get('/v1/entities')
            seen.add(answer.status)
            expect(answer.status).toBe(i < 5 ? 401 : 429)
            // from an address that guesses, too
            if (i % 10 === 9)
              expectData(await by(real.token, address).get('/v1/rbac/users/current').then(bare))
          }
        }),
      )
      expect([tries, [...seen].toSorted()]).toEqual([1000, [401, 429]])
      expect(mac).not.toBe('')
      expectData(await real.get('/v1/entities'))
    })
    // the one answer without an envelope
    const bare = (answer: Answer): Answer => {
      const json = { data: answer.json }
      return { ...answer, json, text: JSON.stringify(json) }
    }

    test('refused credentials of every kind count, and say why they were refused', async () => {
      const address = newAddress()
      const bad = by('not.a.token', address)
      // clients print "Invalid Credentials" for this status
      expectRefusal(await bad.get('/v1/token-status'), 404)
      expectRefusal(await bad.call('POST', '/v1/first-admin', { secret: 'x'.repeat(32) }), 403)
      const { jwt, id } = await target.mint('left')
      await target.revoke(id)
      expectRefusal(await by(jwt, address).get('/v1/entities'), 401)
      const basic = { authorization: `Basic ${Buffer.from('user:wrong').toString('base64')}` }
      expectRefusal(await by(null, address).call('GET', '/', undefined, basic), 401)
      expectRefusal(await bad.get('/pks/lookup?op=get&search=0x12345678'), 401)
      for (const answer of [
        await bad.get('/v1/token-status'),
        await by(jwt, address).get('/v1/entities'),
        await by(null, address).call('GET', '/', undefined, basic),
        await by(null, address).call('POST', '/v1/first-admin', { secret: 'x'.repeat(32) }),
      ])
        expectLimited(answer, 'logins', 60)
      expect(expectLimited(await bad.get('/v1/entities'), 'logins', 60)).toMatch(
        /token is not valid/,
      )
      // nobody in particular, and an empty bearer, present nothing
      expect((await by(null, address).get('/v1/entities')).status).toBe(200)
      expect((await by('', address).get('/v1/entities')).status).toBe(200)
    })

    test('searches by token, wherever it is, and by address', async () => {
      await at('searcher')
      const answers = await times(4, async () => (await at('searcher')).get('/v1/search?value=abc'))
      expect(statuses(answers)).toEqual([200, 200, 200, 429])
      expect(answers.slice(0, 3).map(limitOf)).toEqual(
        [2, 1, 0].map((left) => ['"searches";q=3;w=60', `"searches";r=${left};t=T`]),
      )
      expectLimited(answers[3] as Answer, 'searches', 60)
      const nobody = await at()
      expect(statuses(await times(4, () => nobody.get('/v1/search?value=abc')))).toEqual([
        200, 200, 200, 429,
      ])
      // a bad search is one, too
      expect((await (await at('other')).get('/v1/search?value=a')).headers.has('ratelimit')).toBe(
        true,
      )
      expect((await nobody.get('/v1/entities')).headers.has('ratelimit')).toBe(false)
    })

    test('key adds, and not key lookups', async () => {
      const adder = await at('adder')
      const add = () => adder.call('POST', '/pks/add', 'keytext=no+key')
      expect(statuses(await times(3, add))).toEqual([400, 400, 429])
      const refused = await add()
      expectLimited(refused, 'keys', 60)
      expect(refused.headers.get('access-control-allow-origin')).toBe('*')
      expectRefusal(await adder.get('/pks/lookup?op=get&search=0x12345678'), 404)
    })

    test('calls of a day of an address and of a user, who has others; discovery is free', async () => {
      const one = newAddress()
      expect(new Set(statuses(await times(30, () => by(null, one).get('/v1/entities'))))).toEqual(
        new Set([200]),
      )
      expectLimited(await by(null, one).get('/v1/entities'), 'anonymous-day', 86_400)
      expect((await by(null, one).get('/version')).status).toBe(200)
      expect((await (await at('daily', one)).get('/v1/entities')).status).toBe(200)
      const more = await times(60, async () => (await at('daily')).get('/v1/entities'))
      expect(statuses(more).filter((status) => status === 200)).toHaveLength(59)
      expectLimited(more.at(-1) as Answer, 'user-day', 86_400)
    })

    test('pulls of a week per container and collection: neither those of its owner nor parts of one', async () => {
      await pushed('alice', 'alice/c/one')
      await pushed('alice', 'alice/c/two')
      const image = sampleSif({ content: 'alice/c/one' })
      const guest = await at('guest')
      for (const answer of await times(3, async () =>
        pull(await at('alice'), 'alice/c/one:latest'),
      ))
        expect([answer.status, answer.headers.has('ratelimit')]).toEqual([200, false])
      const etag = `"sha256.${sha256(image)}"`
      const path = '/v1/imagefile/alice/c/one:latest?arch=amd64'
      expect((await guest.call('HEAD', path)).status).toBe(200)
      expect((await guest.call('GET', path, undefined, { 'if-none-match': etag })).status).toBe(304)
      for (const range of ['bytes=0-99', 'bytes=100-', 'bytes=-1'])
        expect((await guest.call('GET', path, undefined, { range })).status).toBe(206)
      const beyond = { range: `bytes=${image.length}-` }
      expect((await guest.call('GET', path, undefined, beyond)).status).toBe(416)
      expect((await pull(guest, 'alice/c/one:none')).status).toBe(404)

      const first = await pull(guest, 'alice/c/one:latest')
      expect([first.status, ...limitOf(first)]).toEqual([
        200,
        `"container-week";q=2;w=${WEEK}, "collection-week";q=3;w=${WEEK}`,
        '"container-week";r=1;t=T, "collection-week";r=2;t=T',
      ])
      const other = await guest.call('GET', path, undefined, { 'if-none-match': '"other"' })
      expect(other.status).toBe(200)
      // by whomever, and by its hash
      expectLimited(await pull(await at(), 'alice/c/one:latest'), 'container-week', WEEK)
      expectLimited(
        await pull(guest, `alice/c/one:sha256.${sha256(image)}`),
        'container-week',
        WEEK,
      )
      expectRefusal(await guest.call('GET', path, undefined, { range: 'bytes=0-99' }), 429)
      expect((await guest.call('HEAD', path)).status).toBe(200)
      expect((await pull(guest, 'alice/c/two:latest')).status).toBe(200)
      expectLimited(await pull(guest, 'alice/c/two:latest'), 'collection-week', WEEK)
      expect((await pull(await at('alice'), 'alice/c/one:latest')).status).toBe(200)
    })

    const MANIFEST = 'application/vnd.oci.image.index.v1+json'
    /** A repository of theirs with a tag; its address, and the manifest's digest. */
    async function repository(user: string, ref: string) {
      const owner = await at(user)
      const body = JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST, manifests: [] })
      const base = `/v2/${ref}`
      const headers = { 'content-type': MANIFEST }
      expect((await owner.call('PUT', `${base}/manifests/v1`, body, headers)).status).toBe(201)
      return { base, digest: `sha256:${sha256(Buffer.from(body))}` }
    }
    /** 429 as OCI says it, with the library's fields. */
    function expectOciLimited(answer: Answer, name: string): void {
      expect([answer.status, answer.json.errors[0].code]).toEqual([429, 'TOOMANYREQUESTS'])
      expect(answer.json.errors[0].message).toMatch(/^Too many pulls from this .*try again in/)
      expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0)
      expect(limitOf(answer)).toEqual([
        expect.stringMatching(new RegExp(`^"${name}";q=\\d+;w=${WEEK}$`)) as string,
        `"${name}";r=0;t=T`,
      ])
    }

    test('a pull by OCI is one, however many requests it takes, and counts with those by the library', async () => {
      await pushed('olga', 'olga/c/one')
      const { base, digest } = await repository('olga', 'olga/c/one')
      const tag = `${base}/manifests/v1`
      const owner = await at('olga')
      for (const answer of await times(4, () => owner.get(tag)))
        expect([answer.status, answer.headers.has('ratelimit')]).toEqual([200, false])

      // what is no pull
      const guest = await at('puller')
      const etag = { 'if-none-match': `"${digest}"` }
      expect((await guest.call('HEAD', tag)).status).toBe(200)
      expect((await guest.call('GET', tag, undefined, etag)).status).toBe(304)
      expect((await guest.get(`${base}/manifests/none`)).status).toBe(404)
      expect((await guest.get(`${base}/tags/list`)).status).toBe(200)
      expect((await guest.get(`${base}/referrers/${digest}`)).status).toBe(200)

      const first = await guest.get(tag)
      expect([first.status, ...limitOf(first)]).toEqual([
        200,
        `"container-week";q=2;w=${WEEK}, "collection-week";q=3;w=${WEEK}`,
        '"container-week";r=1;t=T, "collection-week";r=2;t=T',
      ])
      // of the same user, wherever they are
      for (const path of [tag, tag, `${base}/manifests/${digest}`]) {
        const part = await (await at('puller')).get(path)
        expect([part.status, part.headers.has('ratelimit')]).toEqual([200, false])
      }
      // of another asker, who has no token, and of whom another header says the same
      const nobody = await at()
      const other = { 'if-none-match': '"other"' }
      expect((await nobody.call('GET', tag, undefined, other)).status).toBe(200)
      for (const path of [tag, `${base}/manifests/${digest}`])
        expectOciLimited(await (await at()).get(path), 'container-week')
      expectLimited(await pull(await at(), 'olga/c/one:latest'), 'container-week', WEEK)
      // who is in the middle of a pull ends it, and what is no pull goes on
      expect((await nobody.get(tag)).status).toBe(200)
      expect((await guest.get(tag)).status).toBe(200)
      expect((await (await at()).call('HEAD', tag)).status).toBe(200)
      expect((await owner.get(tag)).status).toBe(200)

      const { base: next } = await repository('olga', 'olga/c/two')
      expect((await (await at()).get(`${next}/manifests/v1`)).status).toBe(200)
      expectOciLimited(await (await at()).get(`${next}/manifests/v1`), 'collection-week')
    })

    test('what is private looks absent by OCI, however often it was pulled (R28)', async () => {
      const { base } = await repository('petra', 'petra/c/hidden')
      const stranger = await at('stranger')
      for (let i = 0; i < 3; i++) await (await at()).get(`${base}/manifests/v1`)
      expectOciLimited(await stranger.get(`${base}/manifests/v1`), 'container-week')
      await target.setPrivate('petra/c/hidden', true)
      const absent = '/v2/petra/c/absent/manifests/v1'
      const hidden = await stranger.get(`${base}/manifests/v1`)
      expect([hidden.status, hidden.json.errors[0].code]).toEqual([404, 'NAME_UNKNOWN'])
      expectAlike(hidden, await stranger.get(absent))
      // the challenge has the name that was asked for, and nothing else
      const challenged = async (path: string) => {
        const { status, headers, text } = await (await at()).get(path)
        const challenge = headers
          .get('www-authenticate')
          ?.replace(/c\/(hidden|absent):/, 'c/<name>:')
        return { status, challenge, text }
      }
      const nobody = await challenged(`${base}/manifests/v1`)
      expect(nobody).toMatchObject({ status: 401, challenge: expect.stringContaining('<name>') })
      expect(await challenged(absent)).toEqual(nobody)
    })

    test('requests and days count under /v2, and a refused password is one (R58)', async () => {
      const one = await at()
      for (const status of statuses(await times(40, () => one.call('HEAD', '/v2/'))))
        expect(status).toBe(401)
      const refused = await one.get('/v2/nothing/here/at/all/tags/list')
      expect([refused.status, refused.json.errors[0].code]).toEqual([429, 'TOOMANYREQUESTS'])
      expect(limitOf(refused)[0]).toBe('"requests";q=40;w=60')
      expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)

      const daily = newAddress()
      await times(30, () => by(null, daily).get('/v2/_catalog'))
      const late = await by(null, daily).get('/v2/_catalog')
      expect([late.status, limitOf(late)[0]]).toEqual([429, '"anonymous-day";q=30;w=86400'])

      const guesser = by(null)
      const wrong = { authorization: `Basic ${Buffer.from('alice:wrong').toString('base64')}` }
      const guesses = await times(6, () => guesser.call('GET', '/v2/', undefined, wrong))
      expect(statuses(guesses)).toEqual([401, 401, 401, 401, 401, 429])
      expect(guesses[5]?.json.errors[0].code).toBe('TOOMANYREQUESTS')
    })

    test('downloads of a container count a pull by OCI once', async () => {
      const { base, digest } = await repository('quinn', 'quinn/d/box')
      const downloads = async () => {
        const shown = await (await at('quinn')).get('/v1/containers/quinn/d/box')
        return expectData(shown).downloadCount as number
      }
      const owner = await at('quinn')
      const guest = await at('guestofquinn')
      for (const who of [owner, guest])
        for (const path of ['v1', 'v1', digest]) await who.get(`${base}/manifests/${path}`)
      let seen = 0
      // written with what comes seconds later
      for (let waited = 0; waited < 40 && seen < 2; waited++) {
        await new Promise((resolve) => setTimeout(resolve, 300))
        await (await at()).get('/v1/imagefile/quinn/d/none')
        await by(null).get('/v1/search?value=none')
        await guest.get(`${base}/manifests/v1`)
        seen = await downloads()
      }
      expect(seen).toBe(2)
    })

    test('what is private looks absent, however often it was pulled (R28)', async () => {
      await pushed('bob', 'bob/c/hidden')
      const guest = await at('guest')
      for (let i = 0; i < 3; i++) await pull(guest, 'bob/c/hidden:latest')
      expectLimited(await pull(guest, 'bob/c/hidden:latest'), 'container-week', WEEK)
      await target.setPrivate('bob/c/hidden', true)
      const hidden = await pull(guest, 'bob/c/hidden:latest')
      expectRefusal(hidden, 404)
      expectAlike(hidden, await pull(guest, 'bob/c/nothing:latest'))
    })

    test('a range that is answered with the whole image is a pull', async () => {
      const image = sampleSif({ content: 'alice/whole/x' })
      await pushed('alice', 'alice/whole/x')
      const path = '/v1/imagefile/alice/whole/x:latest?arch=amd64'
      const guest = await at('guest')
      for (const [headers, status] of [
        [{ range: 'items=0-1' }, 200],
        [{ range: 'bytes=100-', 'if-range': '"other"' }, 200],
      ] as const) {
        const answer = await guest.call('GET', path, undefined, headers)
        const length = Number(answer.headers.get('content-length'))
        expect([answer.status, length]).toEqual([status, image.length])
      }
      expectLimited(await pull(guest, 'alice/whole/x:latest'), 'container-week', WEEK)
      await pushed('alice', 'alice/whole/y')
      const other = '/v1/imagefile/alice/whole/y:latest?arch=amd64'
      const all = await guest.call('GET', other, undefined, { range: 'bytes=0-' })
      expect(all.status).toBe(206)
      expectLimited(await pull(guest, 'alice/whole/y:latest'), 'collection-week', WEEK)
    })

    test('a ticket that was given serves its ranges, whatever is full by then (R5)', async () => {
      const bytes = new Uint8Array(LARGE)
      bytes.set(sampleSif({ content: 'large' }))
      await pushed('carol', 'carol/c/large', bytes)
      const address = newAddress()
      const guest = by(null, address)
      const [first, second] = await times(2, () => pull(guest, 'carol/c/large:latest'))
      expect([first?.status, second?.status]).toEqual([303, 303])
      expectLimited(await pull(guest, 'carol/c/large:latest'), 'container-week', WEEK)
      await times(40, () => guest.get('/version'))
      expect((await guest.get('/version')).status).toBe(429)
      const ticket = first?.headers.get('location') ?? ''
      for (let start = 0; start < 50; start++) {
        const range = `bytes=${start * 1000}-${start * 1000 + 999}`
        const part = await guest.call('GET', ticket, undefined, { range })
        expect([part.status, part.text.length]).toEqual([206, part.text.length])
      }
    })

    test('a restart forgets neither weeks nor days', async () => {
      const { data } = target
      await pushed('dave', 'dave/c/n')
      const guest = await at()
      await times(2, () => pull(guest, 'dave/c/n:latest'))
      const one = newAddress()
      await times(30, () => by(null, one).get('/v1/entities'))
      await target.stop({ keep: true })
      target = await makeTarget({ env: LIMITS, data })
      expectLimited(await pull(await at(), 'dave/c/n:latest'), 'container-week', WEEK)
      expectLimited(await by(null, one).get('/v1/entities'), 'anonymous-day', 86_400)
    })
  })
}
