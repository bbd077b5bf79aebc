/** The Ed25519 keys that sign tokens, as they stand in signing-keys.json and SREG_SIGNING_KEYS. */
import { createHash } from 'node:crypto'

export type PublicKey = { kty: 'OKP'; crv: 'Ed25519'; x: string; kid: string }
export type PrivateKey = PublicKey & { d: string }
/** `previous` are the public keys whose tokens have not all ended yet (R37). */
export type SigningKeys = { current: PrivateKey; previous: PublicKey[] }

/** Reads the JSON text; throws when it holds no such keys. */
export function parseSigningKeys(text: string): SigningKeys {
  const { current, previous } = JSON.parse(text) as SigningKeys
  if (typeof current.x !== 'string' || typeof current.d !== 'string') throw new TypeError('x, d')
  if (typeof current.kid !== 'string') throw new TypeError('kid')
  // Copied member by member, so that a private part left in an older key stays here (R37).
  return {
    current: { ...publicKey(current.x, current.kid), d: current.d },
    previous: previous.map((key) => publicKey(key.x, key.kid)),
  }
}

/** The key of these coordinates; named by its thumbprint (RFC 7638) unless it has a name. */
export function publicKey(x: string, kid?: string): PublicKey {
  const members = JSON.stringify({ crv: 'Ed25519', kty: 'OKP', x })
  const thumbprint = createHash('sha256').update(members).digest('base64url')
  return { kty: 'OKP', crv: 'Ed25519', x, kid: kid ?? thumbprint }
}
