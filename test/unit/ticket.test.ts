/** Tickets say exactly what was signed, for one purpose, registry and time (R12). */
import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { isRegistryError } from '../../src/errors.ts'
import { ticketBox, ticketMark, type Purpose } from '../../src/http/ticket.ts'

const SECRET = 's'.repeat(32)
const NOW = new Date(1_700_000_000_000)
const LATER = new Date(NOW.getTime() + 1000)
const box = ticketBox({ secret: SECRET, registryId: 'a'.repeat(24) })
const FIELDS = {
  method: 'PUT',
  subject: 'u1',
  token: 't1',
  image: 'i1',
  visibility: 'public' as const,
  collection: 'c1',
  upload: 'p1',
  key: 'k1',
  handle: 'h1 ü',
  part: 3,
  size: 67_108_864,
  sha256: 'f'.repeat(64),
}

function refusal(open: () => unknown): { message: string; cause: string } {
  try {
    open()
  } catch (error) {
    if (isRegistryError(error, 'denied') && error.cause instanceof Error)
      return { message: error.message, cause: error.cause.message }
    throw error
  }
  throw new Error('the ticket was opened')
}

test('a ticket opens to what was signed; absent fields are null', () => {
  const text = box.sign('part', FIELDS, LATER)
  expect(text).toMatch(/^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{43}$/)
  expect(box.open('part', text, NOW)).toEqual({ ...FIELDS, notAfter: LATER })
  expect(box.open('get', box.sign('get', { key: 'k' }, LATER), NOW)).toEqual({
    method: null,
    subject: null,
    token: null,
    image: null,
    visibility: null,
    collection: null,
    upload: null,
    key: 'k',
    handle: null,
    part: null,
    size: null,
    sha256: null,
    notAfter: LATER,
  })
})

test('a ticket holds until notAfter, inclusive, and not a millisecond longer', () => {
  const text = box.sign('get', {}, LATER)
  expect(box.open('get', text, LATER).notAfter).toEqual(LATER)
  const late = refusal(() => box.open('get', text, new Date(LATER.getTime() + 1)))
  expect(late.cause).toBe('ticket: expired')
  const altered = refusal(() => box.open('get', `x${text}`, NOW))
  expect(altered.message).toBe(late.message)
  expect(altered.cause).not.toBe(late.cause)
  expect(refusal(() => box.open('get', text, new Date(Number.NaN))).cause).toBe('ticket: expired')
})

test('no ticket opens for another purpose', () => {
  const all: Purpose[] = ['upload', 'part', 'put', 'get', 'oci-upload', 'key-claim']
  for (const signed of all)
    for (const opened of all.filter((purpose) => purpose !== signed))
      refusal(() => box.open(opened, box.sign(signed, FIELDS, LATER), NOW))
})

test('no ticket opens in another registry, even with the same secret', () => {
  const other = ticketBox({ secret: SECRET, registryId: 'b'.repeat(24) })
  refusal(() => other.open('get', box.sign('get', FIELDS, LATER), NOW))
})

test('the previous secret opens, and no longer signs', () => {
  const old = box.sign('get', FIELDS, LATER)
  const fresh = 'n'.repeat(32)
  const rotated = ticketBox({ secret: fresh, previous: SECRET, registryId: 'a'.repeat(24) })
  expect(rotated.open('get', old, NOW).key).toBe('k1')
  refusal(() => box.open('get', rotated.sign('get', FIELDS, LATER), NOW))
  const finished = ticketBox({ secret: fresh, registryId: 'a'.repeat(24) })
  refusal(() => finished.open('get', old, NOW))
})

test('shifting a boundary between two fields gives another ticket', () => {
  const first = box.sign('part', { subject: 'ab', token: 'c' }, LATER)
  const second = box.sign('part', { subject: 'a', token: 'bc' }, LATER)
  expect(first).not.toBe(second)
  const [payload] = first.split('.')
  const [, mac] = second.split('.')
  refusal(() => box.open('part', `${payload}.${mac}`, NOW))
  expect(box.open('part', box.sign('part', { subject: '","x' }, LATER), NOW)).toMatchObject({
    subject: '","x',
    token: null,
  })
})

test('any single character changed, added or taken away refuses', () => {
  const text = box.sign('part', FIELDS, LATER)
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \u0000é'
  // The last characters matter most: base64 leaves spare bits there.
  for (let position = text.length - 2; position < text.length; position++)
    for (const character of alphabet)
      if (character !== text[position])
        refusal(() =>
          box.open('part', text.slice(0, position) + character + text.slice(position + 1), NOW),
        )
  fc.assert(
    fc.property(
      fc.nat(text.length - 1),
      fc.constantFrom(...alphabet.split('')),
      fc.constantFrom('change', 'add', 'take'),
      (position, character, how) => {
        const rest = text.slice(how === 'add' ? position : position + 1)
        const altered = text.slice(0, position) + (how === 'take' ? '' : character) + rest
        if (altered !== text) refusal(() => box.open('part', altered, NOW))
      },
    ),
  )
})

test('text that never was a ticket is refused', () => {
  fc.assert(fc.property(fc.string(), (text) => void refusal(() => box.open('get', text, NOW))))
  for (const text of ['', '.', '..', 'a.', '.a']) refusal(() => box.open('get', text, NOW))
})

test('more than 2 KiB is refused, and not signed', () => {
  expect(refusal(() => box.open('get', 'a'.repeat(2049), NOW)).cause).toBe('ticket: too long')
  expect(() => box.sign('get', { handle: 'h'.repeat(2000) }, LATER)).toThrow('characters')
})

test('a mark tells tickets apart without giving them away', () => {
  const text = box.sign('get', FIELDS, LATER)
  expect(ticketMark(text)).toMatch(/^[0-9a-f]{6}$/)
  expect(text).not.toContain(ticketMark(text))
})
