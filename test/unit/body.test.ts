/** Small JSON bodies: size, depth, shape, and lengths of large ones (R54). */
import { Hono } from 'hono'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { isRegistryError } from '../../src/errors.ts'
import { contentLength, readJson } from '../../src/http/body.ts'
import { newEntry, type Ctx, type Env } from '../../src/http/context.ts'
import { webTransfer } from '../../src/http/transfer.ts'

const SCHEMA = z.object({ name: z.string().optional(), list: z.array(z.number()).optional() })

/** What `act` makes of a request: its value, or `code: message`. */
async function outcome(
  act: (c: Ctx) => unknown,
  body: BodyInit | null,
  headers: Record<string, string> = {},
): Promise<unknown> {
  const app = new Hono<Env>()
  let result: unknown
  app.post('/', async (c) => {
    result = await Promise.resolve()
      .then(() => act(c))
      .catch((error: unknown) => {
        if (isRegistryError(error)) return `${error.code}: ${error.message}`
        throw error
      })
    return c.text('')
  })
  const request = new Request('http://x/', { method: 'POST', body, headers, duplex: 'half' } as {
    method: string
  })
  const peer = { address: null, encrypted: false }
  await app.fetch(request, { entry: newEntry('r'), headers: {}, peer })
  return result
}

const read = (body: BodyInit | null, headers?: Record<string, string>) =>
  outcome((c) => readJson(c, webTransfer, SCHEMA, 1000), body, headers)

/** A body that counts how often it was asked for more. */
function endless(): { body: ReadableStream<Uint8Array>; pulls: () => number } {
  let pulls = 0
  const body = new ReadableStream<Uint8Array>({
    pull: (controller) => (pulls++, controller.enqueue(new Uint8Array(400).fill(32))),
  })
  return { body, pulls: () => pulls }
}

test('a body is read whatever its Content-Type says', async () => {
  expect(await read('{"name":"a"}')).toEqual({ name: 'a' })
  const form = { 'Content-Type': 'application/x-www-form-urlencoded' }
  expect(await read('{"name":"ü"}', form)).toEqual({ name: 'ü' })
})

test('no body is an empty object', async () => {
  expect(await read(null)).toEqual({})
  expect(await read('')).toEqual({})
  expect(await read(' \n')).toEqual({})
})

test('what does not fit is named', async () => {
  expect(await read('{"name":1}')).toMatch(/^invalid: The body does not fit: name: /)
  expect(await read('{"list":[1,"x"]}')).toMatch(/^invalid: The body does not fit: list\.1: /)
  expect(await read('[]')).toMatch(/^invalid: The body does not fit: /)
  expect(await read('{"name":')).toBe('invalid: The body is not JSON')
  expect(await read(new Uint8Array([0x22, 0xff, 0x22]))).toBe('invalid: The body is not UTF-8')
})

test('a character may be cut by a chunk border', async () => {
  const bytes = new TextEncoder().encode('{"name":"äöü€"}')
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const byte of bytes) controller.enqueue(Uint8Array.of(byte))
      controller.close()
    },
  })
  expect(await read(body)).toEqual({ name: 'äöü€' })
})

test('a large body is refused by its length, unread', async () => {
  const { body, pulls } = endless()
  expect(await read(body, { 'Content-Length': '1001' })).toMatch(/^too_large: /)
  expect(pulls()).toBeLessThanOrEqual(1)
})

test('a large body without a length is left when it passes the limit', async () => {
  const { body, pulls } = endless()
  expect(await read(body)).toMatch(/^too_large: /)
  expect(pulls()).toBeLessThanOrEqual(4)
})

test('the limit itself is allowed', async () => {
  expect(await read(`{"name":"${'x'.repeat(989)}"}`)).toEqual({ name: 'x'.repeat(989) })
  expect(await read(`{"name":"${'x'.repeat(990)}"}`)).toMatch(/^too_large: /)
})

test('depth is counted before parsing, outside strings (R54)', async () => {
  const nested = (depth: number) => '['.repeat(depth) + ']'.repeat(depth)
  const any = (text: string) => outcome((c) => readJson(c, webTransfer, z.any(), 1e6), text)
  expect(await any(nested(17))).toBe('invalid: The body is nested deeper than 16 levels')
  expect(await any('['.repeat(500_000))).toBe('invalid: The body is nested deeper than 16 levels')
  expect(await any(nested(16))).toEqual(JSON.parse(nested(16)))
  expect(await any(`{"a":"${'['.repeat(50)}\\"${'{'.repeat(50)}"}`)).toHaveProperty('a')
  expect(await any('[[],[],[[]],{},{}]')).toHaveLength(5)
})

test('a body that breaks off is invalid', async () => {
  let sent = false
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      if (sent) controller.error(new Error('reset'))
      else controller.enqueue(new Uint8Array([123]))
      sent = true
    },
  })
  expect(await read(body)).toMatch(/^invalid: The body ended early/)
})

test('lengths of large bodies', async () => {
  const length = (value?: string) =>
    outcome(contentLength, null, value === undefined ? {} : { 'Content-Length': value })
  expect(await length('0')).toBe(0)
  expect(await length('10737418240')).toBe(10_737_418_240)
  expect(await length()).toMatch(/^length_required: /)
  for (const value of ['-1', '1.5', '1e3', '0x10', 'x', '99999999999999999999'])
    expect(await length(value)).toMatch(/^invalid: /)
})
