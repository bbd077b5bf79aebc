/** Refs as clients type and send them (protocol.md §3.3), and as nobody should. */
import * as fc from 'fast-check'
import { fewestMs } from '../fixtures/fewest-ms.ts'
import { describe, expect, test } from 'vitest'
import { hashOf, parseHash, parsePath, parseRef, printRef } from '../../src/core/ref.ts'
import type { RefSelector } from '../../src/core/ref.ts'
import { isName } from '../../src/core/names.ts'
import { isRegistryError } from '../../src/errors.ts'
import type { ErrorCode } from '../../src/errors.ts'

const DIGEST = '0123456789abcdef'.repeat(4)
const DEFAULT = { shortRefs: 'default' } as const
const UNIQUE = { shortRefs: 'unique' } as const

function printed(path: string, options: { shortRefs: 'default' | 'unique' } = DEFAULT): string {
  const { path: names, selector } = parseRef(path, options)
  return printRef(names, selector)
}

function codeOf(run: () => unknown): ErrorCode | null {
  try {
    run()
  } catch (error) {
    if (isRegistryError(error)) return error.code
    throw error
  }
  return null
}

describe('parseRef', () => {
  test.each([
    ['alpine', 'library/default/alpine:latest'],
    ['alpine:3.20', 'library/default/alpine:3.20'],
    ['coll/cont:V1', 'library/coll/cont:V1'],
    ['e/c/n', 'e/c/n:latest'],
    ['e/c/n:t1,t2', 'e/c/n:t1'],
    ['e/c/n%3At1%2Ct2', 'e/c/n:t1'],
    ['/alpine:latest', 'library/default/alpine:latest'],
    ['//alpine', 'library/default/alpine:latest'],
    ['/coll/cont', 'library/coll/cont:latest'],
    ['/e/c/n', 'e/c/n:latest'],
    ['e//n', 'e/default/n:latest'],
    [`e/c/n:sha256.${DIGEST}`, `e/c/n:sha256.${DIGEST}`],
    [`e/c/n:sha256:${DIGEST}`, `e/c/n:sha256.${DIGEST}`],
    [`e/c/n%3asha256%3A${DIGEST.toUpperCase()}`, `e/c/n:sha256.${DIGEST}`],
    [`alpine:sha256.${DIGEST}`, `library/default/alpine:sha256.${DIGEST}`],
    ['%61/c/n', 'a/c/n:latest'],
    ['e/c/n:sha256', 'e/c/n:sha256'],
  ])('%s is %s', (path, full) => {
    expect(printed(path)).toBe(full)
  })

  test('with unique, two parts leave the entity open and other forms stay', () => {
    expect(parseRef('coll/cont:v1', UNIQUE)).toEqual({
      path: { entity: null, collection: 'coll', container: 'cont' },
      selector: { kind: 'tag', tag: 'v1' },
    })
    expect(parseRef('/coll/cont', UNIQUE).path.entity).toBeNull()
    expect(printed('coll/cont:v1', UNIQUE)).toBe('coll/cont:v1')
    expect(printed('alpine', UNIQUE)).toBe('library/default/alpine:latest')
    expect(printed('e/c/n', UNIQUE)).toBe('e/c/n:latest')
    expect(printed('e//n', UNIQUE)).toBe('e/default/n:latest')
  })

  test.each([
    '',
    '/',
    ':latest',
    'a/b/c/d',
    'a/b/c/',
    'a/b/',
    'e/c/n:',
    'e/c/n:,t2',
    'e/c/n:a:b',
    'e/c:x/n',
    '../c/n',
    'e/../n',
    'e/c/..',
    '%2e%2e/c/n',
    'e/%2E%2e/n',
    'e%2Fc/n',
    'e/c/n%00',
    'e/c/n%',
    'e/c/n%zz',
    'e/c/n%ff',
    'e/c/n%252e',
    'e\\c\\n',
    'e/c%5cd/n',
    'E/c/n',
    'e/c/n?x',
    'e/c/n:t%0a',
    'version/c/n',
    'v2/c/n',
    '0123456789abcdef01234567',
    `e/c/n:sha256.${DIGEST.slice(1)}`,
    `e/c/n:sha256.${DIGEST.slice(1)}g`,
    `e/c/n:sha256.${DIGEST}0`,
    'e/c/n:sif.1234',
  ])('%j is invalid', (path) => {
    expect(codeOf(() => parseRef(path, DEFAULT))).toBe('invalid')
    expect(codeOf(() => parseRef(path, UNIQUE))).toBe('invalid')
  })

  test('a SIF id is legal and names nothing here', () => {
    const ref = 'e/c/n:sif.5a2b1c3d-0000-4000-8000-0123456789ab'
    expect(codeOf(() => parseRef(ref, DEFAULT))).toBe('not_found')
  })

  test('the sentence for too many parts says what to write', () => {
    expect(() => parseRef('a/b/c/d', DEFAULT)).toThrow('entity/collection/container:tag')
  })
})

describe('parsePath', () => {
  test.each([
    ['alice', 1, ['alice']],
    ['', 1, ['library']],
    ['/alice', 1, ['alice']],
    ['e/c', 2, ['e', 'c']],
    ['/c', 2, ['library', 'c']],
    ['e/', 2, ['e', 'default']],
    ['/', 2, ['library', 'default']],
    ['e/c/n', 3, ['e', 'c', 'n']],
    ['/coll/cont', 3, ['library', 'coll', 'cont']],
    ['//n', 3, ['library', 'default', 'n']],
    ['e//n', 3, ['e', 'default', 'n']],
    ['%65/c/n', 3, ['e', 'c', 'n']],
  ] as const)('%j at depth %i', (path, depth, names) => {
    expect(parsePath(path, depth)).toEqual(names)
  })

  test.each([
    ['a/b', 1],
    ['a/', 1],
    ['setup', 1],
    ['e', 2],
    ['e/c/n', 2],
    ['', 3],
    ['e/c', 3],
    ['e/c/', 3],
    ['e/c/n:tag', 3],
    ['e/c/n/x', 3],
    ['e/%2e%2e/n', 3],
    ['e/c/%', 3],
  ] as const)('%j at depth %i is invalid', (path, depth) => {
    expect(codeOf(() => parsePath(path, depth))).toBe('invalid')
  })
})

describe('hashes', () => {
  test('both spellings, either case, give the digest', () => {
    expect(parseHash(`sha256.${DIGEST}`)).toBe(DIGEST)
    expect(parseHash(`sha256:${DIGEST.toUpperCase()}`)).toBe(DIGEST)
    expect(hashOf(DIGEST)).toBe(`sha256.${DIGEST}`)
  })

  test.each(['', DIGEST, `sha1.${DIGEST}`, `sha256-${DIGEST}`, `sha256.${DIGEST}\n`, 'sha256.'])(
    '%j is no hash',
    (value) => {
      expect(codeOf(() => parseHash(value))).toBe('invalid')
    },
  )
})

describe('properties', () => {
  const name = fc
    .stringMatching(/^[a-z0-9]{1,6}([._-][a-z0-9]{1,6}){0,3}$/)
    .filter((value) => isName(value) && codeOf(() => parsePath(value, 1)) === null)
  const hex = fc.stringMatching(/^[0-9a-f]{64}$/)
  const selector: fc.Arbitrary<RefSelector> = fc.oneof(
    fc
      .stringMatching(/^[a-zA-Z0-9]{1,6}([._-]{1,2}[a-zA-Z0-9]{1,6}){0,3}$/)
      .filter((tag) => !/^(sha256\.|sif\.)/i.test(tag))
      .map((tag) => ({ kind: 'tag' as const, tag })),
    hex.map((digest) => ({ kind: 'digest' as const, digest })),
  )

  test('what is printed parses back to the same', () => {
    fc.assert(
      fc.property(fc.option(name), name, name, selector, (entity, collection, container, what) => {
        const path = { entity, collection, container }
        const text = printRef(path, what)
        expect(parseRef(text, UNIQUE)).toEqual({ path, selector: what })
        const full = { ...path, entity: entity ?? 'library' }
        expect(parseRef(text, DEFAULT)).toEqual({ path: full, selector: what })
        const parts = text.split('/').map(encodeURIComponent).join('/')
        expect(parseRef(parts, DEFAULT)).toEqual({ path: full, selector: what })
      }),
    )
  })

  const nasty = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 60 }),
    fc
      .array(
        fc.constantFrom(
          'a',
          'Z',
          '/',
          ':',
          '%',
          '%2',
          '2e',
          '%2F',
          '.',
          '..',
          '\\',
          ',',
          'sha256.',
        ),
        { maxLength: 20 },
      )
      .map((pieces) => pieces.join('')),
  )

  test('no text makes anything but a checked ref or a RegistryError', () => {
    fc.assert(
      fc.property(nasty, fc.constantFrom(DEFAULT, UNIQUE), (text, options) => {
        const code = codeOf(() => {
          const { path } = parseRef(text, options)
          expect(path.entity === null || isName(path.entity)).toBe(true)
          expect(isName(path.collection) && isName(path.container)).toBe(true)
        })
        expect([null, 'invalid', 'not_found']).toContain(code)
        for (const depth of [1, 2, 3] as const) {
          expect([null, 'invalid']).toContain(
            codeOf(() => expect(parsePath(text, depth).every(isName)).toBe(true)),
          )
        }
        expect([null, 'invalid']).toContain(codeOf(() => parseHash(text)))
      }),
      { numRuns: 1000 },
    )
  })

  test.each(['a', '/', '%41', '%', ':', 'a/', 'a-', '..', 'sha256.', ',', '\0'])(
    'R54 100 KB of %j within 50 ms',
    async (piece) => {
      const text = piece.repeat(Math.ceil(100_000 / piece.length))
      const ms = await fewestMs(50, () => {
        expect(codeOf(() => parseRef(text, DEFAULT))).toBe('invalid')
        expect(codeOf(() => parseRef(`e/c/n:${text}`, DEFAULT))).toBe('invalid')
        expect(codeOf(() => parsePath(text, 3))).toBe('invalid')
        expect(codeOf(() => parseHash(text))).toBe('invalid')
      })
      expect(ms).toBeLessThan(50)
    },
  )
})
