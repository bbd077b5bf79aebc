/** Route tables: access per row, 404 and 405, HEAD, errors, and the traps of mounting. */
import { Hono } from 'hono'
import { expect, test } from 'vitest'
import type { Claims, Scope } from '../../src/core/model.ts'
import { RegistryError, STATUS } from '../../src/errors.ts'
import { authenticate } from '../../src/http/authenticate.ts'
import { newEntry, type Env, type LogEntry } from '../../src/http/context.ts'
import { defineRoutes, type Access, type Handler, type Route } from '../../src/http/routes.ts'
import { testLimits } from '../fixtures/limits.ts'

const claims = (...scopes: Scope[]): Claims => ({
  tokenId: 't1',
  userId: 'u1',
  scopes,
  expiresAt: new Date(0),
})
const TOKENS: Record<string, Claims> = {
  all: claims('pull', 'push', 'delete', 'keys', 'admin'),
  pull: claims('pull'),
}
let verified = 0
const verifier = {
  verify: async (jwt: string) => {
    verified++
    return TOKENS[jwt] ?? null
  },
}

function table(name: string, routes: Route[], owns: string[]): Hono<Env> {
  return defineRoutes({
    routes,
    owns,
    onError: (error, c) =>
      c.json(
        { by: name, code: error.code, message: error.message },
        {
          status: STATUS[error.code] as 400,
        },
      ),
    deps: { authenticate: (c) => authenticate(c, verifier), limits: testLimits() },
  })
}

const row = (method: Route['method'], path: string, access: Access, handler?: Handler): Route => ({
  method,
  path,
  access,
  handler: handler ?? ((c) => c.json({ who: c.get('claims')?.userId ?? null })),
})

async function ask(
  app: Hono<Env>,
  method: string,
  path: string,
  authorization?: string,
): Promise<{ status: number; headers: Headers; body: Record<string, unknown>; entry: LogEntry }> {
  const entry = newEntry('r1')
  const response = await app.fetch(
    new Request(`http://x${path}`, {
      method,
      headers: authorization === undefined ? {} : { Authorization: authorization },
    }),
    { entry, peer: { address: null, encrypted: false } },
  )
  const text = await response.text()
  const body = (text === '' ? {} : JSON.parse(text)) as Record<string, unknown>
  return { status: response.status, headers: response.headers, body, entry }
}

const ACCESSES = ['open', 'ticket', 'read', 'token', 'push', 'delete', 'keys', 'admin'] as const
const api = table(
  'api',
  ACCESSES.map((access) => row('GET', `/${access}`, access)),
  ['/*'],
)

test.each([
  // access, nobody, empty bearer, token with pull only, token with all, bad token, Basic
  ['open', 200, 200, 200, 200, 200, 200],
  ['ticket', 200, 200, 200, 200, 200, 200],
  ['read', 200, 200, 200, 200, 401, 401],
  ['token', 401, 401, 200, 200, 401, 401],
  ['push', 401, 401, 403, 200, 401, 401],
  ['delete', 401, 401, 403, 200, 401, 401],
  ['keys', 401, 401, 403, 200, 401, 401],
  ['admin', 401, 401, 403, 200, 401, 401],
])('access %s', async (access, ...statuses) => {
  const headers = [undefined, 'Bearer ', 'Bearer pull', 'BEARER all', 'Bearer bad', 'Basic YTpi']
  const answers = await Promise.all(headers.map((header) => ask(api, 'GET', `/${access}`, header)))
  expect(answers.map((answer) => answer.status)).toEqual(statuses)
})

test('open and ticket rows look at no credentials', async () => {
  verified = 0
  expect((await ask(api, 'GET', '/open', 'Bearer all')).body).toEqual({ who: null })
  expect((await ask(api, 'GET', '/ticket', 'Bearer all')).body).toEqual({ who: null })
  expect(verified).toBe(0)
  expect((await ask(api, 'GET', '/read', 'bearer all')).body).toEqual({ who: 'u1' })
  expect(verified).toBe(1)
})

test('refusals say what to do, and a long header is not verified (R13)', async () => {
  expect((await ask(api, 'GET', '/push')).body.message).toContain('apptainer remote login')
  expect((await ask(api, 'GET', '/push', 'Bearer pull')).body.message).toContain('scope push')
  expect((await ask(api, 'GET', '/read', 'Bearer bad')).body.message).toContain('not valid')
  verified = 0
  expect((await ask(api, 'GET', '/read', `Bearer ${'a'.repeat(8200)}`)).status).toBe(401)
  expect(verified).toBe(0)
})

test('the log entry gets the pattern, the ids and the code, never the URL (R34)', async () => {
  const app = table('a', [row('GET', '/things/:id', 'push')], ['/*'])
  const answer = await ask(app, 'GET', '/things/secret?t=ticket', 'Bearer pull')
  expect(answer.entry).toMatchObject({
    route: '/things/:id',
    userId: 'u1',
    tokenId: 't1',
    code: 'denied',
  })
  expect(JSON.stringify(answer.entry)).not.toMatch(/secret|ticket=/)
})

test('another method is 405 with Allow, whoever asks (R28)', async () => {
  const app = table(
    'a',
    [row('GET', '/a/:id', 'admin'), row('PUT', '/a/:id', 'push'), row('POST', '/b', 'token')],
    ['/*'],
  )
  for (const header of [undefined, 'Bearer bad', 'Bearer all'])
    for (const method of ['DELETE', 'OPTIONS', 'PATCH']) {
      const answer = await ask(app, method, '/a/1', header)
      expect([answer.status, answer.headers.get('allow')]).toEqual([405, 'GET, HEAD, PUT'])
      expect(answer.entry).toMatchObject({ route: '/a/:id', code: 'unsupported' })
    }
  const head = await ask(app, 'HEAD', '/b')
  expect([head.status, head.headers.get('allow')]).toEqual([405, 'POST'])
})

test('HEAD runs the GET row without a body, or a row of its own', async () => {
  const show: Handler = (c) => c.json({}, 200, { 'X-Method': c.req.method })
  const own: Handler = (c) => c.body(null, 200, { 'X-Method': 'own' })
  const app = table(
    'a',
    [
      row('GET', '/get', 'open', show),
      row('GET', '/both', 'open', show),
      row('HEAD', '/both', 'open', own),
      row('HEAD', '/head', 'open', own),
    ],
    ['/*'],
  )
  const method = async (verb: string, path: string) => {
    const answer = await ask(app, verb, path)
    return answer.headers.get('x-method') ?? `${answer.status} ${answer.headers.get('allow')}`
  }
  expect(await method('HEAD', '/get')).toBe('HEAD')
  expect(await method('HEAD', '/both')).toBe('own')
  expect(await method('GET', '/both')).toBe('GET')
  expect(await method('HEAD', '/head')).toBe('own')
  expect(await method('GET', '/head')).toBe('405 HEAD')
})

test('an unknown error becomes internal, with its stack in the log entry alone', async () => {
  const boom = (): never => {
    throw new Error('SQLITE_CORRUPT at /secret/path', { cause: new Error('the cause') })
  }
  const app = table(
    'a',
    [
      row('GET', '/sync', 'open', boom),
      row('GET', '/async', 'read', async () => boom()),
      row('GET', '/busy', 'open', () => {
        throw new RegistryError('unavailable', 'Try again', { cause: new Error('locked') })
      }),
    ],
    ['/*'],
  )
  for (const path of ['/sync', '/async']) {
    const answer = await ask(app, 'GET', path)
    expect(answer.status).toBe(500)
    expect(answer.body).toEqual({
      by: 'a',
      code: 'internal',
      message: 'internal error, request r1',
    })
    expect(answer.entry.code).toBe('internal')
    expect(answer.entry.reason).toMatch(/SQLITE_CORRUPT[^]*routes\.test[^]*caused by[^]*the cause/)
  }
  const busy = await ask(app, 'GET', '/busy')
  expect(busy.body.message).toBe('Try again')
  expect(busy.entry.reason).toContain('locked')
})

test('mounted tables keep to their own prefixes and envelopes', async () => {
  const greedy: Handler = (c) => c.json({ name: c.req.param('name') })
  const root = new Hono<Env>({ strict: false })
  root.route(
    '/',
    table(
      'library',
      [row('GET', '/v1/things/:id', 'read'), row('GET', '/v2/tags/:id', 'open')],
      ['/v1/*'],
    ),
  )
  root.route(
    '/v2',
    table(
      'oci',
      [row('GET', '/', 'open'), row('GET', '/:name{.+}/tags/list', 'open', greedy)],
      ['/*'],
    ),
  )
  root.route('/', table('web', [row('GET', '/', 'open')], ['*']))
  const by = async (method: string, path: string) => {
    const { status, body } = await ask(root, method, path)
    return `${status} ${(body.by ?? body.name ?? 'ok') as string}`
  }
  expect(await by('GET', '/v2')).toBe('200 ok')
  expect(await by('GET', '/v2/')).toBe('200 ok')
  expect(await by('GET', '/v2/tags/1')).toBe('200 ok')
  expect(await by('GET', '/v2/a/b/tags/list')).toBe('200 a/b')
  expect(await by('POST', '/v2/tags/1')).toBe('405 library')
  expect(await by('GET', '/v2/none/such')).toBe('404 oci')
  expect(await by('PUT', '/v2/a/tags/list')).toBe('405 oci')
  expect(await by('GET', '/v1/none')).toBe('404 library')
  expect(await by('GET', '/v1')).toBe('404 library')
  expect(await by('GET', '/v1/things/1')).toBe('200 ok')
  expect(await by('GET', '/none')).toBe('404 web')
  expect(await by('GET', '/')).toBe('200 ok')
})

test('two rows for the same method and path are a mistake in the table', () => {
  expect(() => table('a', [row('GET', '/a', 'open'), row('GET', '/a', 'read')], [])).toThrow('Two')
})
