/** Hashes, MACs and random bytes: the one file of src that imports a `node:` module. */
import {
  createHash,
  createHmac,
  hkdfSync,
  randomBytes,
  timingSafeEqual,
  type Hash,
} from 'node:crypto'

export type Algorithm = 'sha256' | 'sha384' | 'sha512'

/** A running hash. */
export type Hasher = {
  update(chunk: Uint8Array): void
  /** Hex digits (64 for SHA-256) of everything so far. The hasher goes on: `hex` may be asked again later. */
  hex(): string
  /** A hasher with the same past and a future of its own (R3). */
  copy(): Hasher
}

/** Starts a hash, SHA-256 unless said otherwise, over bytes that come in pieces. */
export function hasher(algorithm: Algorithm = 'sha256'): Hasher {
  return over(createHash(algorithm))
}

function over(hash: Hash): Hasher {
  return {
    update: (chunk) => void hash.update(chunk),
    hex: () => hash.copy().digest('hex'),
    copy: () => over(hash.copy()),
  }
}

/** SHA-256 of bytes, or of a string's UTF-8, as 64 hex digits. */
export function sha256Hex(data: Uint8Array | string): string {
  return createHash('sha256').update(data).digest('hex')
}

/** HMAC-SHA256 of a string's UTF-8: 32 bytes. */
export function hmacSha256(key: Uint8Array, data: string): Uint8Array {
  return createHmac('sha256', key).update(data).digest()
}

/** A 32-byte key for one purpose, from a secret: HKDF-SHA256 (RFC 5869) with an empty salt. */
export function deriveKey(secret: string | Uint8Array, info: string): Uint8Array {
  return new Uint8Array(hkdfSync('sha256', secret, '', info, 32))
}

/** Compares in constant time; false at once when the lengths differ. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && timingSafeEqual(a, b)
}

// not randomBytes(0): Workers give no chance before the first request
let pool: Buffer = Buffer.alloc(0)

/** `bytes` random bytes from the system's generator, as twice as many hex digits. */
export function randomHex(bytes: number): string {
  // One call for many ids: asking for twelve bytes at a time costs a tenth of a small request.
  if (pool.length < bytes) pool = randomBytes(4096 + bytes)
  const hex = pool.toString('hex', 0, bytes)
  pool = pool.subarray(bytes)
  return hex
}
