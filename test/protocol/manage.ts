/**
 * The management API over HTTP: users, tokens and privacy for administrators (R14, R25), and the
 * setup secret that is good once (R19). Who may call which row is in access.ts.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { DEFAULT_SCOPES, SCOPES, type Scope } from '../../src/core/model.ts'
import { sampleSif } from '../fixtures/sif.ts'
import type { Target, TargetOptions } from '../runtimes/target.ts'
import { expectData, expectRefusal } from './answers.ts'
import { libraryClient, type LibraryClient } from './client.ts'

const HOUR = 3_600_000
const SECRET = 'a setup secret of more than thirty-two characters'
const CLAIM = '/v1/first-admin'

export function describeManage(
  name: string,
  makeTarget: (options?: TargetOptions) => Promise<Target>,
): void {
  describe(`management: ${name}`, () => {
    let target: Target
    let boss: LibraryClient
    const clientOf = async (user: string, options: Parameters<Target['mint']>[1]) =>
      libraryClient(target.url, (await target.mint(user, options)).jwt)
    beforeAll(async () => {
      target = await makeTarget()
      boss = await clientOf('boss', { admin: true, scopes: [...SCOPES] })
    })
    afterAll(() => target.stop())

    test('users are added and listed', async () => {
      const added = await boss.call('POST', '/v1/users', { name: 'ann' })
      expectData(added)
      expect(added.headers.get('cache-control')).toContain('no-store')
      expect(added.json.data).toEqual({
        id: expect.stringMatching(/^[0-9a-f]{24}$/),
        name: 'ann',
        role: 'user',
        disabled: false,
        managerId: null,
        subject: null,
        createdAt: expect.stringMatching(/^\d{4}-.*Z$/),
      })
      const second = await boss.call('POST', '/v1/users', { name: 'vera', admin: true })
      expect(second.json.data.role).toBe('admin')
      const list = await boss.call('GET', '/v1/users')
      expect(list.headers.get('cache-control')).toContain('no-store')
      expect(list.json.data).toEqual(expect.arrayContaining([added.json.data, second.json.data]))
      const entity = await boss.call('GET', '/v1/entities/ann')
      expect(entity.status).toBe(200)

      expectRefusal(await boss.call('POST', '/v1/users', { name: 'ann' }), 409, /already/)
      for (const [body, words] of [
        [{ name: 'Ann' }, /lower-case/],
        [{ name: 'v1' }, /reserved/],
        [{}, /name/],
        [{ name: 'x', admin: 'yes' }, /admin/],
        [{ name: 'x', role: 'robot' }, /role/],
        [{ name: 'x', role: 'user', admin: true }, /role or admin/],
      ] as const)
        expectRefusal(await boss.call('POST', '/v1/users', body), 400, words)
    })

    test('tokens are made, listed without themselves, and end at once (R25)', async () => {
      await boss.call('POST', '/v1/users', { name: 'tom' })
      const body = { user: 'tom', name: 'ci', scopes: ['push', 'pull', 'pull'], expiresIn: 600 }
      const made = (await boss.call('POST', '/v1/tokens', body)).json.data
      expect(Object.keys(made)).toEqual(['id', 'token', 'scopes', 'expiresAt'])
      expect(made.scopes).toEqual(['pull', 'push'])
      expect(Math.abs(Date.parse(made.expiresAt) - Date.now() - 600_000)).toBeLessThan(60_000)
      const tom = libraryClient(target.url, made.token)
      await tom.push('tom/c/box', sampleSif({ content: 'managed' }))

      const list = await boss.call('GET', '/v1/users/tom/tokens')
      expect(list.text).not.toContain(made.token)
      expect(list.json.data).toMatchObject([
        { id: made.id, userName: 'tom', name: 'ci', scopes: ['pull', 'push'], revokedAt: null },
      ])
      const revoked = await boss.call('DELETE', `/v1/tokens/${made.id}`)
      expect(revoked.json).toEqual({ data: { id: made.id } })
      expectRefusal(await tom.call('GET', '/v1/entities'), 401, /revoked/)
      expect((await boss.call('GET', '/v1/users/tom/tokens')).json.data[0].revokedAt).not.toBeNull()
      expect((await boss.call('DELETE', `/v1/tokens/${made.id}`)).status).toBe(200)

      expectRefusal(await boss.call('DELETE', '/v1/tokens/none'), 404, /no token/)
      expectRefusal(await boss.call('GET', '/v1/users/nobody/tokens'), 404, /no user/)
      expectRefusal(await boss.call('POST', '/v1/tokens', { ...body, user: 'nobody' }), 404, /user/)
      const until = new Date(Date.now() + 600_000).toISOString()
      for (const [wrong, words] of [
        [{ scopes: ['pull', 'all'] }, /scopes/],
        [{ scopes: [] }, /scopes/],
        [{ scope: ['pull'] }, /scope/],
        [{ name: '' }, /name/],
        [{ expiresIn: 1 }, /expiresIn/],
        [{ expiresIn: undefined, expiresAt: 'tomorrow' }, /expiresAt/],
        [{ expiresIn: undefined, expiresAt: '2020-01-01T00:00:00Z' }, /ahead/],
        [{ expiresAt: until }, /not both/],
      ] as const)
        expectRefusal(await boss.call('POST', '/v1/tokens', { ...body, ...wrong }), 400, words)
    })

    test('a token makes none with more scopes or more life than its own (R14)', async () => {
      const make = (client: LibraryClient, more: object) =>
        client.call('POST', '/v1/tokens', { user: 'boss', name: 'x', ...more })
      const narrow = await clientOf('boss', { scopes: ['pull', 'admin'] })
      expectRefusal(await make(narrow, { scopes: ['pull', 'push'] }), 403, /scope "push"/)
      expectRefusal(await make(narrow, {}), 403, /scope "push", "delete", "keys"/)
      const own = await make(narrow, { scopes: ['admin'] })
      expectData(own)
      const grandchild = libraryClient(target.url, own.json.data.token)
      expectRefusal(await make(grandchild, { scopes: ['pull'] }), 403, /scope "pull"/)

      // the tokens of boss live for an hour
      const later = Date.now() + 2 * HOUR
      expectRefusal(await make(boss, { expiresIn: 2 * 3600 }), 403, /ends at \d{4}-/)
      expectRefusal(
        await make(boss, { expiresAt: new Date(later).toISOString() }),
        403,
        /cannot live longer/,
      )
      const plain = (await make(boss, {})).json.data
      expect(plain.scopes).toEqual(DEFAULT_SCOPES)
      expect(Date.parse(plain.expiresAt)).toBeLessThanOrEqual(Date.now() + HOUR)
      expect(Date.parse(plain.expiresAt)).toBeGreaterThan(Date.now() + HOUR / 2)
      const long = await clientOf('boss', {
        scopes: [...SCOPES],
        expires: new Date(Date.now() + 400 * 24 * HOUR),
      })
      const year = Date.parse((await make(long, {})).json.data.expiresAt) - Date.now()
      expect(Math.abs(year - 365 * 24 * HOUR)).toBeLessThan(60_000)
      const before = await boss.call('GET', '/v1/users/boss/tokens')
      await make(narrow, { scopes: ['push'] })
      expect((await boss.call('GET', '/v1/users/boss/tokens')).text).toBe(before.text)
    })

    test('the scope admin makes nobody an administrator, and no administrator is one without (R14)', async () => {
      await boss.call('POST', '/v1/users', { name: 'una' })
      const scopes: Scope[] = ['pull', 'admin']
      const made = await boss.call('POST', '/v1/tokens', { user: 'una', name: 'x', scopes })
      const una = libraryClient(target.url, made.json.data.token)
      expectRefusal(await una.call('GET', '/v1/users'), 403, /administer/)
      expectRefusal(await una.call('GET', '/v1/users/boss/tokens'), 404)
      const everyday = await clientOf('boss', { scopes: [...DEFAULT_SCOPES] })
      expectRefusal(await everyday.call('GET', '/v1/users'), 403, /scope admin/)
      expectRefusal(await everyday.call('POST', '/v1/tokens', {}), 403, /scope admin/)
      const nobody = libraryClient(target.url)
      expectRefusal(await nobody.call('GET', '/v1/users'), 401, /token/)
      expectRefusal(await boss.call('PATCH', '/v1/users', {}), 405, /GET, HEAD, POST/)
    })

    test('a token revoked while its request is on the way does nothing (R25)', async () => {
      const { jwt, id } = await target.mint('boss', { scopes: [...SCOPES] })
      let send = (_text: string) => {}
      let end = () => {}
      const body = new ReadableStream<Uint8Array>({
        start(controller) {
          send = (text) => controller.enqueue(new TextEncoder().encode(text))
          end = () => controller.close()
        },
      })
      send('{"name":')
      const answer = fetch(`${target.url}/v1/users`, {
        method: 'POST',
        headers: { authorization: `Bearer ${jwt}` },
        body,
        duplex: 'half',
      } as RequestInit)
      // by now the server has seen the head of the request, with a token that was good
      await new Promise((resolve) => setTimeout(resolve, 100))
      await target.revoke(id)
      send('"late"}')
      end()
      expect((await answer).status).toBe(401)
      expect((await boss.call('GET', '/v1/users')).text).not.toContain('"late"')
    })

    test('collections and containers become private, and public again', async () => {
      const ann = await clientOf('pia', {})
      await ann.push('pia/c/box', sampleSif({ content: 'privacy' }))
      const nobody = libraryClient(target.url)
      const seen = async () => (await nobody.call('GET', '/v1/containers/pia/c/box')).status
      for (const ref of ['pia/c', 'pia/c/box']) {
        const hidden = await boss.call('PUT', '/v1/privacy', { ref, private: true })
        expect(hidden.json).toEqual({ data: { ref, private: true } })
        expect(await seen()).toBe(404)
        await boss.call('PUT', '/v1/privacy', { ref, private: false })
        expect(await seen()).toBe(200)
      }
      const put = (body: object) => boss.call('PUT', '/v1/privacy', body)
      expectRefusal(await put({ ref: 'pia/none', private: true }), 404, /no such collection/)
      expectRefusal(await put({ ref: 'pia', private: true }), 400)
      expectRefusal(await put({ ref: 'pia/c' }), 400, /private/)
    })

    test('no setup secret, no way in (R19)', async () => {
      const nobody = libraryClient(target.url)
      for (const secret of [SECRET, ''])
        expectRefusal(await nobody.call('POST', CLAIM, { secret }), 403, /not valid here or has/)
      expectRefusal(await nobody.call('POST', CLAIM, {}), 400, /secret/)
    })
  })

  describe(`setup secret: ${name}`, () => {
    const env = { SREG_SETUP_SECRET: SECRET }
    const year = 365 * 86_400

    test('is good for one token, however many ask at once, for ever (R19)', async () => {
      let target = await makeTarget({ env })
      try {
        const claim = (body: object) => libraryClient(target.url).call('POST', CLAIM, body)
        const wrong = await claim({ secret: `${SECRET}.` })
        expectRefusal(wrong, 403, /not valid here or has been used/)
        // what is refused for its shape spends nothing
        expectRefusal(await claim({ secret: SECRET, expiresIn: year + 1 }), 400, /expiresIn/)

        const answers = await Promise.all(
          Array.from({ length: 20 }, () => claim({ secret: SECRET })),
        )
        const [won, ...more] = answers.filter(({ status }) => status === 200)
        expect(more).toEqual([])
        for (const lost of answers.filter(({ status }) => status !== 200))
          expect([lost.status, lost.text]).toEqual([403, wrong.text])

        if (won === undefined) throw new Error('nobody got the token')
        const { user, token, id, expiresAt } = won.json.data
        expect(won.headers.get('cache-control')).toContain('no-store')
        expect(Math.abs(Date.parse(expiresAt) - Date.now() - 24 * HOUR)).toBeLessThan(60_000)
        const admin = libraryClient(target.url, token)
        const tokens = (await admin.call('GET', `/v1/users/${user}/tokens`)).json.data
        const claimed = tokens.filter((row: { name: string }) => row.name === 'setup secret')
        expect(claimed).toMatchObject([{ id, scopes: SCOPES }])
        const admins = (await admin.call('GET', '/v1/users')).json.data
        expect(admins.map((row: { role: string }) => row.role)).toEqual(['admin'])

        // another start, the same secret: still used; even when its token is gone
        await admin.call('DELETE', `/v1/tokens/${id}`)
        await target.stop({ keep: true })
        target = await makeTarget({ data: target.data, env })
        expect((await claim({ secret: SECRET })).text).toBe(wrong.text)

        // a new secret is the way back to a lost administrator
        const fresh = SECRET.toUpperCase()
        await target.stop({ keep: true })
        target = await makeTarget({ data: target.data, env: { SREG_SETUP_SECRET: fresh } })
        expect((await claim({ secret: SECRET })).status).toBe(403)
        const again = (await claim({ secret: fresh, expiresIn: year })).json.data
        expect(again.user).toBe(user)
        expect(Date.parse(again.expiresAt)).toBeGreaterThan(Date.now() + (year - 60) * 1000)
        const back = libraryClient(target.url, again.token)
        expect((await back.call('GET', '/v1/users')).json.data).toHaveLength(1)
      } finally {
        await target.stop()
      }
    })
  })
}
