/** Hashes and keys against published vectors. */
import { expect, test } from 'vitest'
import {
  deriveKey,
  hasher,
  hmacSha256,
  randomHex,
  sameBytes,
  sha256Hex,
} from '../../src/core/digest.ts'

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')
// FIPS 180-4 examples.
const ABC = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'

test('SHA-256 of text and bytes', () => {
  expect(sha256Hex('abc')).toBe(ABC)
  expect(sha256Hex(new Uint8Array([97, 98, 99]))).toBe(ABC)
  expect(hasher().hex()).toBe('e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855')
})

test('a copied hasher shares the past and not the future (R3)', () => {
  const first = hasher()
  first.update(Buffer.from('ab'))
  const second = first.copy()
  first.update(Buffer.from('X'))
  second.update(Buffer.from('c'))
  expect(second.hex()).toBe(ABC)
  expect(second.hex()).toBe(ABC)
  expect(first.hex()).toBe(sha256Hex('abX'))
})

test('HMAC-SHA256 (RFC 4231, case 2)', () => {
  expect(hex(hmacSha256(Buffer.from('Jefe'), 'what do ya want for nothing?'))).toBe(
    '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843',
  )
})

test('HKDF-SHA256 (RFC 5869, case 3: no salt, no info)', () => {
  const key = deriveKey(Buffer.alloc(22, 0x0b), '')
  expect(hex(key)).toBe('8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d')
  expect(hex(deriveKey('secret', 'a'))).not.toBe(hex(deriveKey('secret', 'b')))
})

test('bytes are the same only at the same length', () => {
  expect(sameBytes(Buffer.from('ab'), Buffer.from('ab'))).toBe(true)
  expect(sameBytes(Buffer.from('ab'), Buffer.from('ac'))).toBe(false)
  expect(sameBytes(Buffer.from('ab'), Buffer.from('abc'))).toBe(false)
})

test('random hex has the length asked for and differs', () => {
  expect(randomHex(12)).toMatch(/^[0-9a-f]{24}$/)
  expect(randomHex(12)).not.toBe(randomHex(12))
})
