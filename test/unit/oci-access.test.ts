/** Scopes of OCI tokens: whatever is asked, what is given is no more than is had, and fits a token. */
import { generateKeyPairSync } from 'node:crypto'
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Claims, OciAccess, Scope } from '../../src/core/model.ts'
import {
  actionsOn,
  CATALOG,
  narrowed,
  parseScopes,
  scopeOf,
  within,
} from '../../src/core/oci-access.ts'
import { tokenIssuer } from '../../src/core/tokens.ts'

const ACTIONS = ['pull', 'push', 'delete'] as const
const on = (name: string, ...actions: string[]): OciAccess => ({
  type: 'repository',
  name,
  actions,
})

const component = fc.stringMatching(/^[a-z][a-z0-9]{0,9}([._-][a-z0-9]{1,5})?$/)
/** No reserved first component begins like this. */
const name = fc
  .array(component, { minLength: 0, maxLength: 4 })
  .map((parts) => ['zz', ...parts].join('/'))
const actions = fc.subarray([...ACTIONS], { minLength: 1 })
const access = fc.uniqueArray(fc.record({ type: fc.constant('repository'), name, actions }), {
  maxLength: 16,
  selector: (one) => one.name,
})
const rubbish = fc.oneof(
  fc.string(),
  fc.constantFrom(
    'repository',
    'repository:',
    'repository::pull',
    'repository:a',
    'repository:a:',
    'repository:A:pull',
    'repository:a:pull:push',
    'repository:host:5000/a:pull',
    'repository:a/../b:pull',
    'repository:v2/a:pull',
    'repository:a":pull',
    'repository(plugin):a:pull',
    'REPOSITORY:a:pull',
    'registry:catalog:pull',
    'registry:other:*',
    'unknown:a:*',
    ` ${'a'.repeat(300)}`,
  ),
)

describe('parseScopes', () => {
  test('reads several, joined by spaces or apart, and joins those of one repository', () => {
    const wanted = [on('alice/c/a', 'pull', 'push'), on('b', 'pull')]
    for (const texts of [
      ['repository:alice/c/a:pull,push', 'repository:b:pull'],
      ['repository:alice/c/a:pull,push repository:b:pull'],
      ['repository:alice/c/a:push repository:b:pull', 'repository:alice/c/a:pull'],
      ['', '  ', 'repository:alice/c/a:push,pull,pull,fly', 'repository:b:pull repository:c:fly'],
    ])
      expect(parseScopes(texts)).toEqual(wanted)
    expect(parseScopes(['repository:a:*'])).toEqual([on('a', ...ACTIONS)])
    expect(parseScopes(['registry:catalog:* registry:catalog:*'])).toEqual([CATALOG])
    expect(parseScopes([])).toEqual([])
  })

  test('what it writes it reads, whatever stands between', () => {
    fc.assert(
      fc.property(access, fc.array(rubbish), (asked, other) => {
        fc.pre(parseScopes(other).length === 0)
        const texts = asked.flatMap((one, at) => [other[at] ?? '', scopeOf(one)])
        expect(parseScopes([texts.join(' ')])).toEqual(asked)
        expect(parseScopes(texts)).toEqual(asked)
      }),
    )
  })

  test('never throws, and what it gives is short and names repositories only', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.oneof(
            rubbish,
            access.map((all) => all.map(scopeOf).join(' ')),
          ),
        ),
        (texts) => {
          const found = parseScopes(texts)
          expect(found.length).toBeLessThanOrEqual(17)
          for (const one of found)
            expect(scopeOf(one)).toMatch(
              /^(repository:[a-z0-9._/-]{1,255}:(pull|push|delete)(,push)?(,delete)?|registry:catalog:\*)$/,
            )
        },
      ),
    )
  })

  test('the largest that is given makes a token that is taken (R13)', async () => {
    const long = (at: number) => `zz${String(at).padStart(2, '0')}/${'a'.repeat(250)}`
    const asked = parseScopes([
      'registry:catalog:*',
      ...Array.from({ length: 60 }, (_, at) => `repository:${long(at)}:pull,push,delete`),
    ])
    expect(asked).toHaveLength(17)
    const { privateKey } = generateKeyPairSync('ed25519')
    const signingKey = { ...privateKey.export({ format: 'jwk' }), kty: 'OKP', kid: 'k'.repeat(24) }
    const jwt = await tokenIssuer({ registryId: 'a'.repeat(24), signingKey }).issueOci({
      tokenId: 'a'.repeat(24),
      userId: 'b'.repeat(24),
      scopes: ['pull', 'push', 'delete', 'keys', 'admin'],
      access: asked,
      issuedAt: new Date(0),
      expiresAt: new Date(1),
    })
    expect(jwt.length).toBeLessThan(8192 - 'Bearer '.length)
  })
})

describe('what is given', () => {
  const scopes = fc.subarray<Scope>(['pull', 'push', 'delete', 'keys', 'admin'])

  test('is what is asked and what the token has, and for nobody pulling (R14)', () => {
    fc.assert(
      fc.property(access, scopes, (asked, has) => {
        const given = within(asked, has)
        for (const { name: of } of asked)
          for (const action of ACTIONS)
            expect(actionsOn(given, on(of)).includes(action)).toBe(
              has.includes(action) && actionsOn(asked, on(of)).includes(action),
            )
        for (const one of within(asked, null)) expect(one.actions).toEqual(['pull'])
      }),
    )
  })

  test('a repository goes by its place, and no other is opened', () => {
    const given = [on('alice/default/a', 'pull')]
    for (const same of ['alice/a', 'alice/default/a'])
      expect(actionsOn(given, on(same, 'pull'))).toEqual(['pull'])
    for (const other of [
      'a',
      'alice',
      'alice/default',
      'alice/default/a/b',
      'alice/default/ab',
      '',
    ])
      expect(actionsOn(given, on(other, 'pull'))).toEqual([])
    expect(actionsOn([on('a', 'pull')], on('library/default/a', 'pull'))).toEqual(['pull'])
    // what does not read as a name is no repository, and not equal to another such
    expect(actionsOn([on('A', 'pull')], on('B', 'pull'))).toEqual([])
    expect(actionsOn([{ ...CATALOG, type: 'repository' }], CATALOG)).toEqual([])
  })
})

describe('narrowed', () => {
  const claims = (scopes: Scope[], ...of: OciAccess[]): Claims => ({
    tokenId: 't',
    userId: 'u',
    scopes,
    expiresAt: new Date(0),
    access: of,
  })

  test('leaves of the scopes for actions those for this repository, and all others', () => {
    const who = claims(['pull', 'push', 'admin'], on('a', 'pull', 'push'), on('b', 'pull'))
    expect(narrowed(who, on('a', 'pull', 'push'))?.scopes).toEqual(['pull', 'push', 'admin'])
    expect(narrowed(who, on('b', 'pull'))?.scopes).toEqual(['pull', 'admin'])
  })

  test('another login would not help: the request goes on, and is refused by name', () => {
    const who = claims(['pull'], on('a', 'pull'))
    expect(narrowed(who, on('a', 'pull', 'push'))?.scopes).toEqual(['pull'])
    expect(narrowed(claims(['keys']), on('a', 'pull'))?.scopes).toEqual(['keys'])
  })

  test('another token of this login would: null', () => {
    const who = claims(['pull', 'push', 'delete'], on('a', 'pull'))
    expect(narrowed(who, on('a', 'pull', 'push'))).toBeNull()
    expect(narrowed(who, on('a', 'pull', 'delete'))).toBeNull()
    expect(narrowed(who, on('b', 'pull'))).toBeNull()
    expect(narrowed(who, CATALOG)).toBeNull()
    expect(narrowed(claims([], CATALOG), CATALOG)?.scopes).toEqual([])
  })
})
