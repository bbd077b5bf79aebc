/**
 * Accounts, robots, tokens and transfers over HTTP: what a token may make of itself (R14), bindings
 * under the calls of a real push, robots, the end of an account (R38). Who may call which row at all
 * is in access.ts.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { SCOPES, type Scope } from '../../src/core/model.ts'
import { sampleSif } from '../fixtures/sif.ts'
import type { Target, TargetOptions } from '../runtimes/target.ts'
import { expectAlike, expectData, expectRefusal, tripsOf } from './answers.ts'
import { libraryClient, putBytes, sha256, type LibraryClient } from './client.ts'

/**
 * What a token with `asking` scopes gets when it asks for `wanted` ones for somebody: 2 a token, 3 is
 * 403, 4 is 404. The columns are its own user, a robot of theirs, another user, another's robot.
 */
const POWERS = `
asking            wanted      own robot other theirs
pull,push         pull        3   3     3     3
admin             admin       2   3     4     4
admin             pull        3   3     4     4
pull,admin        pull        2   2     4     4
pull,admin        pull,push   3   3     4     4
pull,push,admin   pull,push   2   2     4     4
pull,push,admin   admin       2   3     4     4
`
const POWER_ROWS = POWERS.trim()
  .split('\n')
  .slice(1)
  .map((line) => {
    const [asking = '', wanted = '', ...cells] = line.split(/ +/)
    return { asking: asking.split(','), wanted: wanted.split(','), cells, line }
  })
const STATUS: Record<string, number> = { 2: 200, 3: 403, 4: 404 }

export function describePeople(
  name: string,
  makeTarget: (options?: TargetOptions) => Promise<Target>,
): void {
  describe(`people: ${name}`, () => {
    let target: Target
    let boss: LibraryClient
    const all = [...SCOPES]
    const clientOf = async (user: string, options: Parameters<Target['mint']>[1] = {}) =>
      libraryClient(target.url, (await target.mint(user, options)).jwt)
    const powerful = (user: string) => clientOf(user, { scopes: all })
    /** A token that `client` makes, as a client. */
    const made = async (client: LibraryClient, body: object) => {
      const { id, token } = expectData(await client.call('POST', '/v1/tokens', body))
      return { id: id as string, ...libraryClient(target.url, token as string) }
    }
    beforeAll(async () => {
      target = await makeTarget()
      boss = await clientOf('boss', { admin: true, scopes: all })
    })
    afterAll(() => target.stop())

    test(`${POWER_ROWS.length} kinds of tokens × 4 users: no token makes a wider one (R14)`, async () => {
      const [ann, ben] = [await powerful('ann'), await powerful('ben')]
      expectData(await ann.call('POST', '/v1/robots', { name: 'ann-ci' }))
      expectData(await ben.call('POST', '/v1/robots', { name: 'ben-ci' }))
      for (const { asking, wanted, cells, line } of POWER_ROWS) {
        const client = await clientOf('ann', { scopes: asking as Scope[] })
        const got = []
        for (const user of ['ann', 'ann-ci', 'ben', 'ben-ci']) {
          const body = { user, name: 'x', scopes: wanted }
          got.push((await client.call('POST', '/v1/tokens', body)).status)
        }
        expect(got, line).toEqual(cells.map((cell) => STATUS[cell]))
      }
      const absent = await ann.call('POST', '/v1/tokens', { user: 'nobody', name: 'x' })
      expectAlike(await ann.call('POST', '/v1/tokens', { user: 'ben', name: 'x' }), absent)
      const trips = (user: string) =>
        tripsOf(target, () => ann.call('POST', '/v1/tokens', { user, name: 'x' }))
      expect(await trips('ben')).toBe(await trips('nobody'))
    })

    test('tokens are listed and ended by whose they are, and by nobody else', async () => {
      const [cat, dan] = [await powerful('cat'), await powerful('dan')]
      const first = await made(cat, { name: 'laptop', scopes: ['pull'] })
      expect((await first.call('GET', '/v1/tokens')).json.data.length).toBe(2)
      const own = expectData(await cat.call('GET', '/v1/users/cat/tokens'))
      expect(expectData(await cat.call('GET', '/v1/tokens'))).toEqual(own)
      expect(own).toMatchObject([{ name: 'test' }, { name: 'laptop', place: null }])
      expectAlike(
        await dan.call('GET', '/v1/users/cat/tokens'),
        await dan.call('GET', '/v1/users/nobody/tokens'),
      )
      expectAlike(await dan.call('GET', '/v1/users/cat'), await dan.call('GET', '/v1/users/nobody'))
      expect(expectData(await cat.call('GET', '/v1/users/cat'))).toMatchObject({ role: 'user' })

      const second = await made(cat, { name: 'other', scopes: ['pull'] })
      expectAlike(
        await dan.call('DELETE', `/v1/tokens/${first.id}`),
        await dan.call('DELETE', `/v1/tokens/${'0'.repeat(24)}`),
      )
      expectRefusal(await second.call('DELETE', `/v1/tokens/${first.id}`), 403, /scope "admin"/)
      expectData(await second.call('DELETE', `/v1/tokens/${second.id}`))
      expectRefusal(await second.call('GET', '/v1/tokens'), 401, /revoked/)
      expectData(await cat.call('DELETE', `/v1/tokens/${first.id}`))
      expectRefusal(await first.call('GET', '/v1/entities'), 401)
    })

    /** The calls of a push, one by one, without what a refusal would skip. */
    async function attempt(client: LibraryClient, path: string, content: string) {
      const sif = sampleSif({ content })
      return client.push(path, sif).then(
        () => 'pushed',
        (error: unknown) => /: (\d{3}) /.exec(String(error))?.[1] ?? String(error),
      )
    }

    test.for([
      ['collection', 'eve/in', ['eve/in/box', 'eve/in/other'], ['eve/out/box', 'fay/c/box']],
      ['container', 'eve/in/box', ['eve/in/box'], ['eve/in/other', 'eve/out/box', 'fay/c/box']],
    ] as const)(
      'a token that is bound to a %s works inside, and is a stranger outside (R14)',
      async ([kind, place, inside, outside]) => {
        const eve = await powerful('eve')
        const fay = await powerful('fay')
        for (const path of [...inside, ...outside]) {
          const owner = path.startsWith('eve') ? eve : fay
          await owner.push(path, sampleSif({ content: `${kind} ${path}` }), {
            privateCollection: true,
          })
        }
        const stranger = await clientOf('stranger')
        const body = { name: 'ci', scopes: ['pull', 'push', 'delete'], [kind]: place }
        const bound = await made(eve, body)
        expect((await eve.call('GET', '/v1/tokens')).json.data.at(-1).place).toBe(place)
        for (const path of inside) {
          expect(await attempt(bound, path, `${kind} ${path} bound`)).toBe('pushed')
          expect((await bound.call('GET', `/v1/imagefile/${path}:latest`)).status).toBe(200)
        }
        for (const path of outside) {
          expect(await attempt(bound, path, `${kind} ${path} bound`), path).toMatch(/403|404/)
          for (const call of [
            `/v1/containers/${path}`,
            `/v1/images/${path}:latest`,
            `/v1/imagefile/${path}:latest`,
          ])
            expectAlike(await bound.call('GET', call), await stranger.call('GET', call))
        }
        // what its user may do elsewhere by name or id, it may not
        expect((await bound.call('POST', '/v1/entities', { name: 'eve' })).status).toBe(403)
        expectRefusal(await bound.call('GET', '/v1/tokens'), 403, /bound/)
        expectRefusal(await bound.call('GET', '/v1/robots'), 403, /bound/)
        const found = await bound.call('GET', '/v1/search?value=eve')
        const names = found.json.data.image.map((i: { containerName: string }) => i.containerName)
        expect(new Set(names)).toEqual(new Set(inside.map((path) => path.split('/')[2])))
        // an absent place and one that cannot be seen are the same
        const ask = (client: LibraryClient, at: string) =>
          client.call('POST', '/v1/tokens', { name: 'x', scopes: ['pull'], [kind]: at })
        expectAlike(
          await ask(eve, kind === 'collection' ? 'fay/c' : 'fay/c/box'),
          await ask(eve, kind === 'collection' ? 'fay/none' : 'fay/none/box'),
        )
        expectRefusal(await ask(eve, 'eve'), 400, /entity\/collection/)
        expectRefusal(
          await eve.call('POST', '/v1/tokens', { name: 'x', scopes: ['admin'], [kind]: place }),
          400,
          /bound/,
        )
      },
    )

    test('a robot owns nothing and manages nothing', async () => {
      const gus = await powerful('gus')
      const robot = expectData(await gus.call('POST', '/v1/robots', { name: 'gus-ci' }))
      expect(robot).toMatchObject({ role: 'robot', manager: 'gus' })
      expectRefusal(await gus.call('POST', '/v1/robots', { name: 'gus-ci' }), 409, /already/)
      expect(expectData(await gus.call('GET', '/v1/robots'))).toEqual([robot])
      expect(expectData(await boss.call('GET', '/v1/robots'))).toEqual(
        expect.arrayContaining([robot]),
      )
      const ci = await made(gus, { user: 'gus-ci', name: 'job', scopes: ['pull', 'push'] })
      expect((await ci.call('POST', '/v1/entities', { name: 'gus-ci' })).status).toBe(403)
      expect(expectData(await ci.call('GET', '/v1/users/gus-ci'))).toEqual(robot)
      expect(expectData(await gus.call('GET', '/v1/users/gus-ci/tokens')).length).toBe(1)
      expectRefusal(
        await boss.call('POST', '/v1/tokens', { user: 'gus-ci', name: 'x', scopes: ['admin'] }),
        403,
        /robot/,
      )
      expectRefusal(await boss.call('PATCH', '/v1/users/gus-ci', { role: 'admin' }), 400, /robot/)
      const other = await powerful('hal')
      expectRefusal(await other.call('DELETE', '/v1/robots/gus-ci'), 404)
      expectData(await gus.call('DELETE', '/v1/robots/gus-ci'))
      expectRefusal(await ci.call('GET', '/v1/entities'), 401)
      expectRefusal(await gus.call('POST', '/v1/robots', { name: 'gus-ci' }), 409, /already/)
    })

    test('roles and states change at the next request', async () => {
      const ida = await powerful('ida')
      const path = '/v1/users/ida'
      expectRefusal(await ida.call('GET', '/v1/users'), 403, /administer/)
      expect(expectData(await boss.call('PATCH', path, { role: 'admin' })).role).toBe('admin')
      expectData(await ida.call('GET', '/v1/users'))
      expect(expectData(await boss.call('PATCH', path, { role: 'staff' })).role).toBe('staff')
      expectRefusal(await ida.call('GET', '/v1/users'), 403, /administer/)
      expectData(await boss.call('PATCH', path, { disabled: true }))
      expectRefusal(await ida.call('GET', path), 401)
      expectData(await boss.call('PATCH', path, { disabled: false, role: 'user' }))
      expectData(await ida.call('GET', path))
      for (const [body, words] of [
        [{}, /role, disabled/],
        [{ role: 'robot' }, /role/],
        [{ admin: true }, /admin/],
      ] as const)
        expectRefusal(await boss.call('PATCH', path, body), 400, words)
    })

    test('an account ends with a choice, and its name stays reserved (R38)', async () => {
      const [jan, kim] = [await powerful('jan'), await powerful('kim')]
      await jan.push('jan/c/box', sampleSif({ content: 'of jan' }), { privateCollection: true })
      const at = '/v1/users/jan'
      for (const query of ['', '?remove=false', '?handOver=kim&remove=true', '?deleted=1'])
        expectRefusal(await jan.call('DELETE', `${at}${query}`), 400, /handOver/)
      expectRefusal(await kim.call('DELETE', `${at}?remove=true`), 404)
      expectRefusal(await jan.call('DELETE', `${at}?handOver=nobody`), 404, /nobody/)
      expectRefusal(await jan.call('DELETE', `${at}?handOver=jan`), 400, /somebody else/)
      expectRefusal(await clientOf('jan').then((c) => c.call('DELETE', `${at}?remove=true`)), 403)
      expectData(await jan.call('DELETE', `${at}?handOver=kim`))
      expectRefusal(await jan.call('GET', '/v1/entities'), 401)
      expect((await kim.call('GET', '/v1/imagefile/jan/c/box:latest')).status).toBe(200)
      expectRefusal(await boss.call('POST', '/v1/users', { name: 'jan' }), 409)
      expectRefusal(await boss.call('DELETE', `${at}?free=true`), 409, /handed over/)
      expectRefusal(await boss.call('POST', '/v1/tokens', { user: 'jan', name: 'x' }), 404)

      expectData(await kim.call('DELETE', '/v1/users/kim?remove=true'))
      expect((await boss.call('GET', '/v1/entities/jan')).status).toBe(404)
      expect((await boss.call('GET', '/v1/entities/kim')).status).toBe(404)
      const list = expectData(await boss.call('GET', '/v1/users'))
      expect(list).toEqual(
        expect.arrayContaining([
          expect.objectContaining({ name: 'kim', disabled: true, deletedAt: expect.any(String) }),
        ]),
      )
      for (const user of ['jan', 'kim'])
        expectData(await boss.call('DELETE', `/v1/users/${user}?free=true`))
      expectRefusal(await boss.call('DELETE', '/v1/users/kim?free=true'), 404)
      expectData(await boss.call('POST', '/v1/users', { name: 'jan' }))
      expectRefusal(await jan.call('GET', '/v1/entities'), 401)
    })

    test('an entity is given away by its owner, with all that is in it', async () => {
      const [lea, max] = [await powerful('lea'), await powerful('max')]
      await lea.push('lea/c/box', sampleSif({ content: 'of lea' }), { privateCollection: true })
      const give = (client: LibraryClient, entity: string, to: string) =>
        client.call('POST', '/v1/transfers', { entity, to })
      expectAlike(await give(max, 'lea', 'max'), await give(max, 'nowhere', 'max'))
      expectRefusal(await give(lea, 'lea', 'nobody'), 404, /nobody/)
      expectRefusal(await give(lea, 'lea', 'lea'), 409, /already/)
      expect(expectData(await give(lea, 'lea', 'max'))).toEqual({ entity: 'lea', owner: 'max' })
      expect((await lea.call('GET', '/v1/imagefile/lea/c/box:latest')).status).toBe(404)
      // R26: that it is there is all that its name tells
      expect((await lea.call('GET', '/v1/entities/lea')).status).toBe(404)
      const again = await lea.call('POST', '/v1/entities', { name: 'lea', description: '' })
      expectRefusal(again, 409, /taken/)
      await max.push('lea/c/box', sampleSif({ content: 'of max' }))
      expect((await max.call('GET', '/v1/search?value=lea')).json.data.image.length).toBe(2)
      expect((await lea.call('GET', '/v1/search?value=lea')).json.data.image.length).toBe(0)
      expectData(await give(boss, 'lea', 'lea'))
      expect((await lea.call('GET', '/v1/imagefile/lea/c/box:latest')).status).toBe(200)
    })

    test('an upload of a bound token is complete with it alone', async () => {
      const ned = await powerful('ned')
      const { container } = await ned.ensure('ned', 'c', 'box', { privateCollection: true })
      const bound = await made(ned, {
        name: 'ci',
        scopes: ['push'],
        container: 'ned/c/box',
      })
      const bytes = sampleSif({ content: 'bound upload' })
      const hash = sha256(bytes)
      const image = { hash: `sha256.${hash}`, container, description: '' }
      const { id } = expectData(await bound.call('POST', '/v1/images', image))
      const { uploadURL } = expectData(
        await bound.call('POST', `/v2/imagefile/${id}`, {
          filesize: bytes.length,
          sha256sum: hash,
        }),
      )
      expect((await putBytes(uploadURL, bytes)).status).toBe(200)
      expectData(await bound.call('PUT', `/v2/imagefile/${id}/_complete`, {}))
      const tag = { Arch: 'amd64', Tag: 'latest', ImageID: id }
      expectData(await bound.call('POST', `/v2/tags/${container}`, tag))
    })
  })

  describe(`people, by targets of their own: ${name}`, () => {
    test('the last administrator stays', async () => {
      const target = await makeTarget()
      try {
        const { jwt } = await target.mint('boss', { admin: true, scopes: [...SCOPES] })
        const boss = libraryClient(target.url, jwt)
        // the first administrator, who must not mint any more after this
        expectData(await boss.call('PATCH', '/v1/users/admin', { role: 'user' }))
        for (const [method, at, body] of [
          ['PATCH', '/v1/users/boss', { role: 'user' }],
          ['PATCH', '/v1/users/boss', { disabled: true }],
          ['DELETE', '/v1/users/boss?remove=true', undefined],
        ] as const)
          expectRefusal(await boss.call(method, at, body), 409, /last administrator/)
      } finally {
        await target.stop()
      }
    })

    test('SREG_USER_COLLECTIONS is about robots, SREG_READ_ONLY about removal', async () => {
      const target = await makeTarget({
        env: { SREG_USER_COLLECTIONS: 'off', SREG_READ_ONLY: 'on' },
      })
      try {
        const clientOf = async (user: string, admin: boolean) =>
          libraryClient(target.url, (await target.mint(user, { admin, scopes: [...SCOPES] })).jwt)
        const [boss, ann] = [await clientOf('boss', true), await clientOf('ann', false)]
        expectRefusal(await ann.call('POST', '/v1/robots', { name: 'ci' }), 403, /staff/)
        expectData(await boss.call('POST', '/v1/robots', { name: 'ci' }))
        expectRefusal(await ann.call('DELETE', '/v1/users/ann?remove=true'), 403, /read-only/)
        expectData(await ann.call('DELETE', '/v1/users/ann?handOver=boss'))
      } finally {
        await target.stop()
      }
    })
  })
}
