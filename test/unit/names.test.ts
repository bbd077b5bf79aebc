/** Names, tags and ids: what is allowed, what is reserved, and that judging is linear. */
import * as fc from 'fast-check'
import { fewestMs } from '../fixtures/fewest-ms.ts'
import { describe, expect, test } from 'vitest'
import { checkName, isId, isName, quote } from '../../src/core/names.ts'
import type { NameKind } from '../../src/core/names.ts'
import { isRegistryError, RegistryError } from '../../src/errors.ts'

const KINDS: NameKind[] = ['entity', 'collection', 'container', 'tag', 'user']

function refusal(kind: NameKind, value: string): RegistryError {
  try {
    checkName(kind, value)
  } catch (error) {
    if (error instanceof RegistryError) return error
    throw error
  }
  throw new Error(`${kind} ${value} was accepted`)
}

describe('names', () => {
  test.each(['a', '0', 'library', 'a.b_c-d', 'my-image.2', 'x'.repeat(255)])('%s', (name) => {
    expect(isName(name)).toBe(true)
    expect(checkName('collection', name)).toBe(name)
    expect(checkName('container', name)).toBe(name)
    expect(checkName('entity', name)).toBe(name)
  })

  test.each([
    '',
    ' ',
    'A',
    'Größe',
    '_a',
    '-a',
    'a.',
    'a..b',
    'a._b',
    '..',
    '.',
    'a/b',
    'a\\b',
    'a b',
    'a:b',
    'a%2fb',
    'a\n',
    'a\0',
    '__proto__',
    'x'.repeat(256),
  ])('refuses %j', (name) => {
    expect(isName(name)).toBe(false)
    for (const kind of KINDS.filter((k) => k !== 'tag')) {
      const error = refusal(kind, name)
      expect(error.code).toBe('invalid')
      expect(error.subject).toBe(kind)
    }
  })

  test.each(
    'imagefile tags v1 v2 api pks assets auth version healthz readyz docs openapi.json setup'.split(
      ' ',
    ),
  )('R26 %s is reserved for entities and users only', (word) => {
    expect(refusal('entity', word).message).toContain('reserved')
    expect(refusal('user', word).message).toContain('reserved')
    expect(checkName('collection', word)).toBe(word)
    expect(checkName('container', word)).toBe(word)
    expect(checkName('tag', word)).toBe(word)
  })

  test('a name of 24 hex digits would read as an id', () => {
    const id = '0123456789abcdef01234567'
    expect(isId(id)).toBe(true)
    for (const kind of ['entity', 'collection', 'container', 'user'] as const) {
      expect(refusal(kind, id).message).toContain('id')
    }
    expect(checkName('container', `${id}0`)).toBe(`${id}0`)
    expect(checkName('container', 'g123456789abcdef01234567')).toBe('g123456789abcdef01234567')
  })

  test('a user name has at most 64 characters', () => {
    expect(checkName('user', 'u'.repeat(64))).toHaveLength(64)
    expect(refusal('user', 'u'.repeat(65)).message).toContain('at most 64')
  })
})

describe('tags', () => {
  test.each(['latest', 'V1.0', '1.0--rc1', 'a__b', 'sha256', 'sifx', 'T'.repeat(128)])(
    '%s',
    (tag) => {
      expect(checkName('tag', tag)).toBe(tag)
    },
  )

  test.each(['', '.a', 'a.', 'a b', 'a,b', 'a:b', 'a/b', '..', 'T'.repeat(129)])(
    'refuses %j',
    (tag) => {
      expect(refusal('tag', tag).subject).toBe('tag')
    },
  )

  test.each(['sha256.ab', 'sha256:ab', 'SHA256.ab', 'sif.1', `sha256.${'a'.repeat(64)}`])(
    '%s would read as a hash',
    (tag) => {
      expect(refusal('tag', tag).message).toContain('hash')
    },
  )
})

test('ids are 24 lower-case hex digits', () => {
  expect(isId('A123456789abcdef01234567')).toBe(false)
  expect(isId('0123456789abcdef0123456')).toBe(false)
  expect(isId('0123456789abcdef01234567\n')).toBe(false)
})

test('an error sentence shows what was typed, cut and printable', () => {
  expect(refusal('entity', 'a\u0007b\u202Ec').message).toContain('"a\\u{7}b\\u{202e}c"')
  expect(quote('😀'.repeat(50))).toBe(`"${'😀'.repeat(40)}…"`)
  // The cut may fall inside a pair; the half is shown as an escape.
  expect(quote(`x${'😀'.repeat(50)}`)).toContain('\\u{d83d}…')
  fc.assert(
    fc.property(fc.constantFrom(...KINDS), fc.string({ unit: 'binary' }), (kind, value) => {
      try {
        expect(checkName(kind, value)).toBe(value)
      } catch (error) {
        if (!isRegistryError(error, 'invalid')) throw error
        expect(error.message).not.toMatch(/[\p{C}\p{Zl}\p{Zp}]/u)
      }
    }),
  )
})

test.each(['a'.repeat(100_000), 'a.'.repeat(50_000), `${'a-'.repeat(50_000)}!`, '\0'.repeat(1e5)])(
  'R54 100 KB are judged within 50 ms',
  async (value) => {
    const ms = await fewestMs(50, () => {
      for (const kind of KINDS) refusal(kind, value)
      expect(isName(value)).toBe(false)
    })
    expect(ms).toBeLessThan(50)
  },
)
