/**
 * Every route for everybody, in every situation: thirteen callers against a table written by hand
 * (R14, R25, R26, R35). The callers differ by what they were granted in the collection they ask for;
 * the situations by what stands in the way.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startCiPlatform, AUDIENCE, PUSH, type CiPlatform } from '../fixtures/ci-platform.ts'
import type { Scope } from '../../src/core/model.ts'
import { makeKey } from '../fixtures/make-key.ts'
import { sampleSif } from '../fixtures/sif.ts'
import type { TargetOptions } from '../runtimes/target.ts'
import {
  anyId,
  CALLS,
  claimedKey,
  largeSif,
  letterOf,
  makeSources,
  pushPlace,
  routesInSource,
  routesOf,
  sentenceOf,
  unique,
  type AccessTarget,
  type Call,
  type Place,
} from './access.ts'
import { libraryClient, type LibraryClient } from './client.ts'
import { ROLES_TABLE } from './roles-table.ts'

/** In the order of the table's columns. */
const CALLERS = [
  'anonymous',
  'stranger',
  'reader',
  'contributor',
  'owner',
  'team member',
  'ex-member',
  'staff',
  'admin',
  'robot',
  'revoked',
  'expired',
  'job',
] as const
type Caller = (typeof CALLERS)[number]

const SITUATIONS = [
  'public',
  'private',
  'absent',
  'frozen',
  'read-only',
  'over quota',
  'limit reached',
] as const
type Situation = (typeof SITUATIONS)[number]

const ALL: Scope[] = ['pull', 'push', 'delete', 'keys', 'admin']

/** Where the calls of the other matrix name people of its own. */
const OWN_CALLS: Record<string, (place: Place, caller: LibraryClient, of: Situation) => Call> = {
  'PUT /v1/privacy': ({ names }, _, of) => ({
    path: '/v1/privacy',
    body: { ref: names.replace(/\/[^/]*$/, ''), private: of === 'private' },
  }),
  'PUT /v1/grants': ({ names }) => ({
    path: '/v1/grants',
    body: { ref: names.replace(/\/[^/]*$/, ''), user: 'boss', level: 'reader' },
  }),
  'POST /v1/teams': () => ({ path: '/v1/teams', body: { name: unique('team') } }),
}

type Row = { route: string; method: string; cells: Record<Situation, string> }

/** `=` is what stands in the column `public`, `-` a situation in which the route is not asked. */
const ROWS: Row[] = ROLES_TABLE.split('\n').flatMap((line) => {
  const [method = '', path = '', ...columns] = line.trim().split(/\s+/)
  if (!/^[A-Z]+$/.test(method) || columns.length !== SITUATIONS.length) return []
  const cells = Object.fromEntries(
    SITUATIONS.map((situation, at) => [situation, columns[at] === '=' ? columns[0] : columns[at]]),
  ) as Record<Situation, string>
  return [{ route: `${method} ${path}`, method, cells }]
})

/** The collection of a situation, and everybody's client for it. */
type Scene = { owner: string; collection: string; clients: Record<Caller, LibraryClient> }

/** The suite. `makeTarget` starts a registry; with `data`, one that was there before. */
export function describeRoles(
  name: string,
  makeTarget: (options: TargetOptions) => Promise<AccessTarget>,
  /** Cells that the platform answers otherwise, by route; whoever gives them says why. */
  others: Record<string, Partial<Record<Situation, string>>> = {},
): void {
  describe(`${name}: every route for every role in every situation`, () => {
    let target: AccessTarget
    let platform: CiPlatform
    let boss: LibraryClient
    let noKey: Place['key']
    const scenes = {} as Record<Situation, Scene>
    const shared = {} as Record<Situation, Place>
    const tickets = {} as Record<Situation, string>
    /** Requests by situation and route, one for each caller: made while nothing stands in the way. */
    const asked = {} as Record<Situation, Map<string, Call[]>>
    const found = {} as Record<Situation, Map<string, string>>
    let cells = 0

    const call = async (who: LibraryClient, method: string, path: string, body?: unknown) => {
      const answer = await who.call(method, path, body)
      if (answer.status !== 200) throw new Error(`${method} ${path}: ${answer.text}`)
      return answer.json.data
    }

    const wordOf = (situation: Situation) => situation.replaceAll(/\W/g, '')

    /** People who are somebody in this situation's collection; the same words, other users. */
    async function makeScene(situation: Situation): Promise<Scene> {
      const word = wordOf(situation)
      const named = (role: string) => `${role}${word}`
      const owner = named('owner')
      const mint = async (user: string, options: Parameters<AccessTarget['mint']>[1] = {}) =>
        target.mint(user, { scopes: ALL, ...options })
      const of = async (user: string, options = {}) =>
        libraryClient(target.url, (await mint(user, options)).jwt)

      const clients: Partial<Record<Caller, LibraryClient>> = {
        anonymous: libraryClient(target.url),
        owner: await of(owner),
        admin: boss,
      }
      const lead = clients.owner ?? boss
      const ref = `${owner}/${word}`
      // an absent place is nobody's: its people are strangers to all that there is
      const there = situation !== 'absent'
      if (there)
        await lead.ensure(owner, word, 'box', { privateCollection: situation === 'private' })
      for (const role of ['stranger', 'reader', 'contributor', 'member', 'former', 'staff'])
        await call(boss, 'POST', '/v1/users', {
          name: named(role),
          role: role === 'staff' ? 'staff' : 'user',
        })
      clients.stranger = await of(named('stranger'))
      clients.reader = await of(named('reader'))
      clients.contributor = await of(named('contributor'))
      clients['team member'] = await of(named('member'))
      clients['ex-member'] = await of(named('former'))
      clients.staff = await of(named('staff'))
      const revoked = await mint(owner)
      await target.revoke(revoked.id)
      clients.revoked = libraryClient(target.url, revoked.jwt)
      clients.expired = await of(owner, { expires: new Date(Date.now() - 3_600_000) })
      clients.job = libraryClient(
        target.url,
        await platform.job({ repository_id: word }, { seconds: 3600 }),
      )

      await call(lead, 'POST', '/v1/robots', { name: named('robot') })
      if (there) {
        const grant = (to: object, level: string) =>
          call(lead, 'PUT', '/v1/grants', { ref, level, ...to })
        await grant({ user: named('reader') }, 'reader')
        await grant({ user: named('contributor') }, 'contributor')
        await grant({ user: named('robot') }, 'contributor')
        const team = named('team')
        await call(lead, 'POST', '/v1/teams', { name: team })
        for (const member of [named('member'), named('former')])
          await call(lead, 'PUT', `/v1/teams/${team}/members/${member}`, {})
        await grant({ team }, 'contributor')
        await call(lead, 'DELETE', `/v1/teams/${team}/members/${named('former')}`)
      }
      const robot = await call(lead, 'POST', '/v1/tokens', {
        user: named('robot'),
        name: 'narrow',
        scopes: ['pull', 'push'],
        ...(there ? { collection: ref } : {}),
      })
      clients.robot = libraryClient(target.url, robot.token)
      return { owner, collection: ref, clients: clients as Record<Caller, LibraryClient> }
    }

    /** A container with an image of the situation; a name and ids of nothing where it is absent. */
    async function makePlace(
      situation: Situation,
      { apart = false, keyed = false } = {},
    ): Promise<Place> {
      const { clients, owner } = scenes[situation]
      const collection = apart ? `${owner}/${unique('apart')}` : scenes[situation].collection
      const names = `${collection}/${unique('box')}`
      const entity = unique('nobody')
      if (situation !== 'absent') {
        const place = await pushPlace(clients.owner, names, {
          privateCollection: situation === 'private',
        })
        const key = keyed ? await claimedKey(clients.owner) : noKey
        return { ...place, ticket: tickets[situation], key }
      }
      return {
        owner: clients.owner,
        bytes: sampleSif(),
        names: names.replace(owner, entity),
        entity,
        entityId: anyId(),
        collectionId: anyId(),
        containerId: anyId(),
        imageId: '',
        ticket: '/v1/blob?t=bm9ib2R5.c2lnbmVk',
        key: noKey,
      }
    }

    /** What each caller asks on this route, of a place of its own where somebody will change it. */
    async function prepare(situation: Situation, { route, method, cells: expected }: Row) {
      const calls: Call[] = []
      const path = route.split(' ')[1] ?? ''
      for (const [column, caller] of CALLERS.entries()) {
        // a push by OCI makes what is not there
        const makes = situation === 'absent' && path.startsWith('/v2/:name')
        const changes = method === 'DELETE' || route === 'POST /v1/entities' || makes
        const used = changes && /[2M]/.test(expected[situation][column] ?? '')
        const apart = route === 'DELETE /v1/collections/*'
        const keyed = route.includes('/v1/keys/')
        const place = used ? await makePlace(situation, { apart, keyed }) : shared[situation]
        const make = OWN_CALLS[route] ?? CALLS[route] ?? ((): Call => ({ path }))
        calls.push(await make(place, scenes[situation].clients[caller], situation))
      }
      return calls
    }

    async function ask(situation: Situation): Promise<void> {
      found[situation] = new Map()
      for (const { route, method } of ROWS) {
        const calls = asked[situation].get(route)
        if (calls === undefined) continue
        let row = ''
        for (const [column, caller] of CALLERS.entries()) {
          const { path, body, headers } = calls[column] ?? { path: '' }
          const client = scenes[situation].clients[caller]
          const at = path.replace(/^http:\/\/127\.0\.0\.1:\d+/, '')
          const answer = await libraryClient(target.url, client.token).call(
            method,
            at,
            body,
            headers,
          )
          row += letterOf(route, answer.status) ?? ` ${answer.status} `
          if (answer.status >= 400 && method !== 'HEAD')
            expect(sentenceOf(JSON.parse(answer.text))).toMatch(/^\w.{8}/)
          cells++
        }
        found[situation].set(route, row)
      }
    }

    const rules = SITUATIONS.map((situation) => ({
      claims: { ...PUSH, repository_id: wordOf(situation) },
      scopes: ['pull', 'push'],
      collection: `owner${wordOf(situation)}/${wordOf(situation)}`,
    }))
    const settings = () => ({
      SREG_TRUSTED_ISSUERS: JSON.stringify([
        { issuer: `${platform.base}/ci`, audience: AUDIENCE, allowPrivate: true, rules },
      ]),
      ...platform.env,
    })
    async function restart(env: Record<string, string>): Promise<void> {
      const { data } = target
      await target.stop({ keep: true })
      target = await makeTarget({ data, env: { ...settings(), ...env } })
    }

    beforeAll(async () => {
      platform = await startCiPlatform(['ci'])
      target = await makeTarget({ env: settings() })
      noKey = await makeKey('Nobody')
      await makeSources(target)
      boss = libraryClient(
        target.url,
        (await target.mint('boss', { admin: true, scopes: ALL })).jwt,
      )
      for (const situation of SITUATIONS) {
        scenes[situation] = await makeScene(situation)
        const { clients, collection } = scenes[situation]
        if (situation !== 'absent') {
          await clients.owner.push(`${collection}/large`, largeSif(situation))
          const large = await clients.owner.call('GET', `/v1/imagefile/${collection}/large:latest`)
          tickets[situation] = large.headers.get('location') ?? ''
        }
        shared[situation] = await makePlace(situation, { keyed: true })
      }
      for (const situation of SITUATIONS) {
        asked[situation] = new Map()
        for (const row of ROWS)
          if (row.cells[situation] !== '-')
            asked[situation].set(row.route, await prepare(situation, row))
      }
      const { 'over quota': full, frozen } = scenes
      await call(boss, 'PUT', '/v1/quota', { entity: full.owner, bytes: 1 })
      for (const { route } of ROWS)
        for (const { path } of asked.frozen.get(route) ?? [])
          if (route.startsWith('DELETE /v1/images'))
            await call(frozen.clients.owner, 'PUT', '/v1/frozen', {
              ref: path.replace(/^\/v1\/images\/|:latest$/g, ''),
              frozen: true,
            })
      await call(frozen.clients.owner, 'PUT', '/v1/frozen', {
        ref: shared.frozen.names,
        frozen: true,
      })
      for (const situation of ['public', 'private', 'absent', 'frozen', 'over quota'] as const)
        await ask(situation)
      await restart({ SREG_READ_ONLY: 'on' })
      await ask('read-only')
      await restart({ SREG_LIMIT_CONTAINER_WEEK: '1' })
      const limited = `/v1/imagefile/${shared['limit reached'].names}:latest`
      expect((await libraryClient(target.url).call('GET', limited)).status).toBe(200)
      await ask('limit reached')
    }, 600_000)
    afterAll(async () => {
      console.log(`roles: ${cells} cells of ${ROWS.length} routes`)
      await target?.stop()
      platform?.stop()
    })

    test('every route of every protocol has a row, and every row a route', () => {
      expect(routesOf(ROWS).toSorted()).toEqual(routesInSource().toSorted())
      for (const { cells: expected } of ROWS)
        for (const row of Object.values(expected)) expect(row === '-' || row.length).toBeTruthy()
    })

    test.each(ROWS)('$route', ({ route, cells: expected }) => {
      const answers = SITUATIONS.map((situation) => found[situation].get(route) ?? '-')
      expect(Object.fromEntries(SITUATIONS.map((s, at) => [s, answers[at]]))).toEqual({
        ...expected,
        ...others[route],
      })
    })
  })
}
