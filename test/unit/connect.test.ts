/** `connect`: what it writes into client configurations, and what it refuses (R59). */
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parse, stringify } from 'yaml'
import {
  isExposed,
  parseServerUrl,
  refuseExposed,
  userNameFrom,
} from '../../adapters/host/connect.ts'
import { editRemotes } from '../../adapters/host/remote-yaml.ts'

const remote = { name: 'sreg', url: 'http://127.0.0.1:8080', token: 'a.b.c', replace: false }
const edit = (text: string, change: Partial<typeof remote> = {}) =>
  editRemotes(text, { ...remote, ...change }, '~/.apptainer/remote.yaml')

/** Written by apptainer 1.4.5 (`remote add`), a token and keyserver added by hand. */
const WRITTEN_BY_CLIENT = `Active: "y"
Remotes:
    "y":
        URI: example.org
        Token: 0123
        System: false
        Exclusive: false
        Keyservers:
            - URI: https://keys.example.org
              Skip: false
    x:
        URI: 127.0.0.1
        System: false
        Exclusive: false
        Insecure: true
`

describe('R59: editing remote.yaml', () => {
  it('writes what the client accepts: a URI with scheme and port, Insecure for http', () => {
    expect(parse(edit(''))).toEqual({
      Active: 'sreg',
      Remotes: {
        sreg: {
          URI: 'http://127.0.0.1:8080',
          Token: 'a.b.c',
          System: false,
          Exclusive: false,
          Insecure: true,
        },
      },
    })
  })

  it('adds to what a client wrote without touching a byte of the other remotes', () => {
    const others = WRITTEN_BY_CLIENT.slice(WRITTEN_BY_CLIENT.indexOf('Remotes:'))
    const edited = edit(WRITTEN_BY_CLIENT)
    expect(edited.startsWith(`Active: "sreg"\n${others}    "sreg":\n`)).toBe(true)
  })

  it('is the same when done twice, and drops Insecure when the server moves to https', () => {
    const once = edit(WRITTEN_BY_CLIENT)
    expect(edit(once)).toBe(once)
    const moved = parse(edit(once, { url: 'https://127.0.0.1:8080', token: 'd' })) as {
      Remotes: Record<string, unknown>
    }
    expect(moved.Remotes['sreg']).toEqual({
      URI: 'https://127.0.0.1:8080',
      Token: 'd',
      System: false,
      Exclusive: false,
    })
  })

  it('keeps unknown fields of the remote it changes', () => {
    const text = 'Remotes: {sreg: {URI: "127.0.0.1:8080", Later: [1, 2]}}\nFuture: 07\n'
    expect(parse(edit(text))).toMatchObject({
      Future: 7,
      Remotes: { sreg: { Later: [1, 2], Token: 'a.b.c' } },
    })
    expect(edit(text)).toContain('Future: 07\n')
  })

  it('does not take over a name that means another server, unless told to', () => {
    const text = 'Remotes:\n    sreg:\n        URI: https://other.example\n'
    expect(() => edit(text)).toThrow('points to https://other.example')
    expect(edit(text, { replace: true })).not.toContain('other.example')
  })

  it("refuses a remote of the system's configuration even when told to replace", () => {
    const text = 'Remotes:\n    sreg:\n        URI: 127.0.0.1:8080\n        System: true\n'
    expect(() => edit(text, { replace: true })).toThrow("system's configuration")
  })

  it.each(['- a\n', 'Remotes: [a]\n', 'Remotes:\n    sreg: text\n', 'a: {\n', 'a: 1\na: 2\n', 'x'])(
    'refuses a file that is no client configuration: %j',
    (text) => {
      expect(() => edit(text)).toThrow('nothing was changed')
    },
  )

  it.each(['# only a comment\n', 'Remotes:\n', 'Remotes: {}\n', 'Remotes: ~\nActive: ""\n'])(
    'starts from an empty one: %j',
    (text) => {
      expect(parse(edit(text))).toMatchObject({ Active: 'sreg', Remotes: { sreg: {} } })
    },
  )

  it('keeps every other remote and field, whatever they hold', () => {
    const value = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 40 }),
      fc.boolean(),
      fc.integer(),
      fc.double({ noNaN: true }),
      fc.constant(null),
      fc.constantFrom('yes', '0x10', '1_000', '2026-01-01', '~', 'null', '1:30', ''),
    )
    const few = { maxKeys: 4 }
    const key = fc.string({ minLength: 1, maxLength: 20 })
    const list = fc.array(fc.dictionary(key, value, few), { maxLength: 3 })
    const entry = fc.dictionary(key, fc.oneof(value, list), few)
    const others = fc.dictionary(
      key.filter((name) => !['sreg', '__proto__', '<<'].includes(name)),
      entry,
      { minKeys: 1, maxKeys: 4 },
    )
    fc.assert(
      fc.property(
        others,
        fc.array(entry, { maxLength: 3 }),
        value,
        (Remotes, Credentials, Later) => {
          const before = { Active: 'x', Remotes, Credentials, Later }
          const after = parse(edit(stringify(before))) as typeof before
          const { sreg, ...rest } = after.Remotes
          expect(sreg).toBeDefined()
          expect({ ...after, Active: 'x', Remotes: rest }).toEqual(
            parse(stringify(before)) as typeof before,
          )
        },
      ),
    )
  })
})

describe('addresses', () => {
  it.each([
    ['http://127.0.0.1:8080', 'http://127.0.0.1:8080'],
    ['HTTPS://Reg.Example/', 'https://reg.example'],
    ['http://[::1]:5080/', 'http://[::1]:5080'],
    ['https://reg.example:443', 'https://reg.example'],
  ])('takes %s as %s', (text, url) => {
    expect(parseServerUrl(text)).toBe(url)
  })

  it.each([
    '127.0.0.1:8080',
    'localhost',
    'library://h',
    'http://u:p@h',
    'http://h/x',
    'http://h?x',
    'http://h/#x',
    '',
  ])('refuses %j', (text) => {
    expect(() => parseServerUrl(text)).toThrow(/address/)
  })

  it('R59: knows where a token could be read on the way', () => {
    for (const safe of ['http://127.0.0.1:1', 'http://localhost', 'http://[::1]', 'https://a.b'])
      expect(isExposed(safe)).toBe(false)
    for (const exposed of ['http://10.0.0.1', 'http://127.0.0.1.nip.io', 'http://localhost.evil'])
      expect(isExposed(exposed)).toBe(true)
    expect(() => refuseExposed('http://10.0.0.1', false)).toThrow('--insecure')
    expect(refuseExposed('http://10.0.0.1', true)).toBeUndefined()
  })
})

describe('userNameFrom', () => {
  it.each([
    ['alice', 'alice'],
    ['Álice.Müller', 'alice.muller'],
    ['DOMAIN\\bob', 'domain-bob'],
    ['__x__y--', 'x_y'],
    ['日本', 'user'],
    ['a'.repeat(70), 'a'.repeat(64)],
  ])('makes %s into %s', (osName, name) => {
    expect(userNameFrom(osName)).toBe(name)
  })

  it('always gives a name within the grammar', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (osName) => {
        expect(userNameFrom(osName)).toMatch(/^(?=.{1,64}$)[a-z0-9]+([._-][a-z0-9]+)*$/)
      }),
    )
  })
})
