/** Ranges and preconditions (RFC 9110, sections 13 and 14; R5). */
import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { ifRangeHolds, noneMatches, parseRange, rangeHeaders } from '../../src/http/range.ts'

test.each([
  [undefined, 100, { kind: 'whole' }],
  ['', 100, { kind: 'whole' }],
  ['items=0-1', 100, { kind: 'whole' }],
  ['0-1', 100, { kind: 'whole' }],
  ['bytes=0-0', 100, { kind: 'range', start: 0, end: 0 }],
  ['Bytes=0-0', 100, { kind: 'range', start: 0, end: 0 }],
  ['bytes= 5-9 ', 100, { kind: 'range', start: 5, end: 9 }],
  ['bytes=99-', 100, { kind: 'range', start: 99, end: 99 }],
  ['bytes=10-1000', 100, { kind: 'range', start: 10, end: 99 }],
  ['bytes=0-99999999999999999999999', 100, { kind: 'range', start: 0, end: 99 }],
  ['bytes=-1', 100, { kind: 'range', start: 99, end: 99 }],
  ['bytes=-500', 100, { kind: 'range', start: 0, end: 99 }],
  ['bytes=-0', 100, { kind: 'unsatisfiable' }],
  ['bytes=100-', 100, { kind: 'unsatisfiable' }],
  ['bytes=100-200', 100, { kind: 'unsatisfiable' }],
  ['bytes=0-', 0, { kind: 'unsatisfiable' }],
  ['bytes=-5', 0, { kind: 'whole' }],
  ['bytes=5-4', 100, { kind: 'unsatisfiable' }],
  ['bytes=0-1,3-4', 100, { kind: 'unsatisfiable' }],
  ['bytes=', 100, { kind: 'unsatisfiable' }],
  ['bytes=-', 100, { kind: 'unsatisfiable' }],
  ['bytes=a-b', 100, { kind: 'unsatisfiable' }],
  ['bytes=1-2-3', 100, { kind: 'unsatisfiable' }],
  ['bytes=0x1-2', 100, { kind: 'unsatisfiable' }],
])('%j of %i bytes', (header, size, expected) => {
  expect(parseRange(header, size)).toEqual(expected)
})

test('a well-formed range selects what slicing selects', () => {
  const position = fc.integer({ min: 0, max: 60 })
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 50 }), position, position, (size, first, last) => {
      const all = Array.from({ length: size }, (_, i) => i)
      const parsed = parseRange(`bytes=${first}-${last}`, size)
      const wanted = all.slice(first, last + 1)
      if (wanted.length === 0) expect(parsed.kind).toBe('unsatisfiable')
      else expect(parsed).toEqual({ kind: 'range', start: wanted[0], end: wanted.at(-1) })
    }),
  )
})

test('a suffix selects the last bytes', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 50 }), fc.integer({ min: 1, max: 90 }), (size, n) => {
      const wanted = Array.from({ length: size }, (_, i) => i).slice(-n)
      expect(parseRange(`bytes=-${n}`, size)).toEqual({
        kind: 'range',
        start: wanted[0],
        end: size - 1,
      })
    }),
  )
})

test('whatever the header says, a range lies within the blob', () => {
  const text = fc.oneof(fc.string(), fc.stringMatching(/^[bytes=0-9, -]*$/))
  fc.assert(
    fc.property(text, fc.nat(), (text, size) => {
      const parsed = parseRange(`bytes=${text}`, size)
      if (parsed.kind !== 'range') return
      expect(parsed.start).toBeGreaterThanOrEqual(0)
      expect(parsed.end).toBeGreaterThanOrEqual(parsed.start)
      expect(parsed.end).toBeLessThan(size)
    }),
  )
})

test('If-Range holds for the very same etag only', () => {
  expect(ifRangeHolds(undefined, '"a"')).toBe(true)
  expect(ifRangeHolds('"a"', '"a"')).toBe(true)
  expect(ifRangeHolds('"b"', '"a"')).toBe(false)
  expect(ifRangeHolds('W/"a"', '"a"')).toBe(false)
  expect(ifRangeHolds('Sat, 21 Nov 2026 00:00:00 GMT', '"a"')).toBe(false)
})

test('If-None-Match finds an etag in a list, weakly', () => {
  expect(noneMatches(undefined, '"a"')).toBe(false)
  expect(noneMatches('*', '"a"')).toBe(true)
  expect(noneMatches('"b", W/"a"', '"a"')).toBe(true)
  expect(noneMatches('"b,a"', '"a"')).toBe(false)
  expect(noneMatches('"b"', '"a"')).toBe(false)
})

test('headers of whole and partial answers', () => {
  const blob = { size: 10, etag: '"e"', range: { start: 2, end: 5 } }
  expect(rangeHeaders(blob, 206)).toEqual({
    'Accept-Ranges': 'bytes',
    'Content-Length': '4',
    'Content-Range': 'bytes 2-5/10',
    ETag: '"e"',
  })
  const empty = rangeHeaders({ size: 0, etag: '"e"', range: { start: 0, end: -1 } }, 200)
  expect(empty['Content-Length']).toBe('0')
  expect(empty).not.toHaveProperty('Content-Range')
})
