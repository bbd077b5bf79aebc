/** What is believed of Host and X-Forwarded-* (R33). */
import { BlockList, isIPv6 } from 'node:net'
import * as fc from 'fast-check'
import { Hono } from 'hono'
import { expect, test } from 'vitest'
import { newEntry, type Env } from '../../src/http/context.ts'
import {
  clientAddress,
  isTrusted,
  originOf,
  parseAddress,
  type OriginConfig,
} from '../../src/http/origin.ts'

async function seen(
  address: string | null,
  headers: Record<string, string>,
  config: Partial<OriginConfig> = {},
  encrypted = false,
): Promise<{ origin: string; client: string | null }> {
  const full: OriginConfig = { publicUrl: null, trustedProxies: [], ...config }
  const app = new Hono<Env>()
  app.get('/', (c) => c.json({ origin: originOf(c, full), client: clientAddress(c, full) }))
  app.onError((error, c) => c.json({ origin: error.message, client: null }))
  const bindings = { entry: newEntry('r'), headers: {}, peer: { address, encrypted } }
  const response = await app.fetch(new Request('http://ignored/', { headers }), bindings)
  return response.json() as Promise<{ origin: string; client: string | null }>
}

const FORWARDED = {
  Host: 'inner:8080',
  'X-Forwarded-Host': 'evil.example',
  'X-Forwarded-Proto': 'https',
  'X-Forwarded-For': '203.0.113.9',
}

test('the public address wins over everything', async () => {
  const config = { publicUrl: 'https://hub.example' }
  expect((await seen('127.0.0.1', FORWARDED, config)).origin).toBe('https://hub.example')
})

test('forwarded headers of strangers are not believed', async () => {
  expect(await seen('198.51.100.7', FORWARDED)).toEqual({
    origin: 'http://inner:8080',
    client: '198.51.100.7',
  })
  expect((await seen(null, FORWARDED)).origin).toBe('http://inner:8080')
  expect((await seen('198.51.100.7', { Host: 'a' }, {}, true)).origin).toBe('https://a')
})

test('forwarded headers of loopback and of trusted networks are believed', async () => {
  const expected = { origin: 'https://evil.example', client: '203.0.113.9' }
  expect(await seen('127.0.0.1', FORWARDED)).toEqual(expected)
  expect(await seen('::1', FORWARDED)).toEqual(expected)
  expect(await seen('::ffff:127.0.0.1', FORWARDED)).toEqual(expected)
  const config = { trustedProxies: ['10.0.0.0/8', 'fd00::/8'] }
  expect(await seen('10.1.2.3', FORWARDED, config)).toEqual(expected)
  expect(await seen('fd12::1', FORWARDED, config)).toEqual(expected)
  expect((await seen('11.1.2.3', FORWARDED, config)).client).toBe('11.1.2.3')
})

test('the client is the rightmost hop that is no proxy of ours', async () => {
  const config = { trustedProxies: ['10.0.0.0/8'] }
  const chain = (value: string) => ({ Host: 'a', 'X-Forwarded-For': value })
  const client = async (value: string) => (await seen('10.0.0.1', chain(value), config)).client
  expect(await client('1.1.1.1, 2.2.2.2, 10.9.9.9')).toBe('2.2.2.2')
  expect(await client('10.2.2.2, 10.9.9.9')).toBe('10.2.2.2')
  expect(await client('1.1.1.1, nonsense')).toBe('10.0.0.1')
  expect(await client('')).toBe('10.0.0.1')
})

test.each(['a b', 'a/b', 'a@b', 'a?x', 'a#x', '', 'a:', 'a:123456', '-', '[::1', 'ä', 'a,b'])(
  'the Host %j is refused',
  async (host) => {
    expect((await seen('203.0.113.1', { Host: host || ' ' })).origin).toMatch(/Host header/)
  },
)

test.each(['a', 'a.b-c.example:8080', 'sreg_lite:80', '[::1]:8080', '127.0.0.1'])(
  'the Host %j is taken',
  async (host) => {
    expect((await seen('203.0.113.1', { Host: host })).origin).toBe(`http://${host}`)
  },
)

test('a forwarded scheme that is none is refused', async () => {
  const { origin } = await seen('127.0.0.1', { Host: 'a', 'X-Forwarded-Proto': 'javascript' })
  expect(origin).toMatch(/Host header/)
})

test('networks contain the addresses that Node says they contain', () => {
  const address = fc.oneof(fc.ipV4(), fc.ipV6())
  fc.assert(
    fc.property(address, address, fc.nat(128), fc.boolean(), (network, other, length, same) => {
      const kind = (text: string) => (isIPv6(text) ? 'ipv6' : 'ipv4')
      const bits = kind(network) === 'ipv6' ? length : length % 33
      const asked = same ? network : other
      if (mapped(network) || mapped(asked)) return
      const list = new BlockList()
      list.addSubnet(network, bits, kind(network))
      const loopback = asked.startsWith('127.') || parseAddress(asked)?.join() === LOOPBACK
      const expected = loopback || (kind(asked) === kind(network) && list.check(asked, kind(asked)))
      expect(isTrusted(asked, [`${network}/${bits}`])).toBe(expected)
    }),
  )
})

const LOOPBACK = [...Array<number>(15).fill(0), 1].join()
const mapped = (text: string) => isIPv6(text) && parseAddress(text)?.length === 4

test.each([
  ['1.2.3.4', [1, 2, 3, 4]],
  ['::ffff:1.2.3.4', [1, 2, 3, 4]],
  ['::ffff:102:304', [1, 2, 3, 4]],
  ['::', Array<number>(16).fill(0)],
  ['1::', [0, 1, ...Array<number>(14).fill(0)]],
  ['::1.2.3.4', [...Array<number>(12).fill(0), 1, 2, 3, 4]],
  ['1:2:3:4:5:6:7:8', [0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8]],
  ['1.2.3', null],
  ['1.2.3.256', null],
  ['1:2:3:4:5:6:7', null],
  ['1::2::3', null],
  ['1:2:3:4:5:6:7:8:9', null],
  ['1:2:3:4:5:6:7::8', null],
  ['fe80::1%eth0', null],
  [':1', null],
  ['host', null],
])('the bytes of %s', (text, bytes) => {
  expect(parseAddress(text)).toEqual(bytes)
})
