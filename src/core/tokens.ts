/**
 * Our own tokens: JWTs signed with the registry's Ed25519 key (R13). The JWT proves who made it;
 * whether it still counts stands in its row, read with the object that is asked for (R25).
 */
import {
  decodeProtectedHeader,
  errors,
  importJWK,
  jwtVerify,
  SignJWT,
  type CryptoKey,
  type JWK,
} from 'jose'
import type { Clock, TokenVerifier } from '../ports.ts'
import { sha256Hex } from './digest.ts'
import { SCOPES, type Claims, type Scope } from './model.ts'

export type { JWK } from 'jose'

const TYPE = 'sreg+jwt'
const AUDIENCE = 'api'
/** Longest token looked at, in characters; checked before anything is decoded (R13). */
const LONGEST = 8192
/** Verified tokens remembered: an Ed25519 check costs about 190 µs. */
const REMEMBERED = 10_000
/** Header members that would let a token bring its own key or rules. */
const REFUSED = ['crit', 'jku', 'jwk', 'x5u', 'x5c', 'x5t', 'x5t#S256', 'b64']

const issuerOf = (registryId: string) => `urn:sreg:${registryId}`

export type TokenIssuer = {
  /** A JWT of at least 200 characters, which the client's --tokenfile demands (apptainer-wire.md §0.2). */
  issue(token: {
    tokenId: string
    userId: string
    scopes: readonly Scope[]
    issuedAt: Date
    expiresAt: Date
  }): Promise<string>
}

/** Signs with the current private key (an Ed25519 JWK with `kid`). */
export function tokenIssuer(options: { registryId: string; signingKey: JWK }): TokenIssuer {
  let key: Promise<CryptoKey | Uint8Array> | undefined
  return {
    async issue({ tokenId, userId, scopes, issuedAt, expiresAt }) {
      key ??= importJWK(options.signingKey, 'EdDSA')
      return new SignJWT({ scope: scopes.join(' ') })
        .setProtectedHeader({ alg: 'EdDSA', typ: TYPE, kid: options.signingKey.kid })
        .setIssuer(issuerOf(options.registryId))
        .setAudience(AUDIENCE)
        .setSubject(userId)
        .setJti(tokenId)
        .setIssuedAt(issuedAt)
        .setExpirationTime(expiresAt)
        .sign(await key)
    },
  }
}

/**
 * Verifies tokens of this registry: algorithm exactly EdDSA, type, issuer, audience and times,
 * with a key that is looked up by `kid` in `keys`. Everything else is an explicit rejection (null).
 * Verified claims are remembered by the token's SHA-256 until they expire.
 */
export function tokenVerifier(options: {
  registryId: string
  /** Public keys: the current one and older ones whose tokens still run. */
  keys: JWK[]
  clock: Clock
}): TokenVerifier {
  const { registryId, clock } = options
  const keys = new Map(
    // public members only: a private JWK would import as a key that cannot verify
    publicKeys(options.keys).keys.map((jwk) => [jwk.kid ?? '', importJWK(jwk, 'EdDSA')]),
  )
  const remembered = new Map<string, Claims>()

  async function check(jwt: string, expired: boolean): Promise<Claims | null> {
    const header = decodeProtectedHeader(jwt)
    if (header.alg !== 'EdDSA' || header.typ !== TYPE) return null
    if (REFUSED.some((member) => member in header)) return null
    const key = keys.get(header.kid ?? '')
    if (key === undefined) return null
    const verified = jwtVerify(jwt, await key, {
      algorithms: ['EdDSA'],
      typ: TYPE,
      issuer: issuerOf(registryId),
      audience: AUDIENCE,
      requiredClaims: ['sub', 'jti', 'exp', 'iat'],
      clockTolerance: 60,
      currentDate: clock.now(),
    })
    // jose looks at the expiry after everything else
    const { payload } = await verified.catch((error: unknown) => {
      if (expired && error instanceof errors.JWTExpired) return error
      throw error
    })
    // jose's types are a promise only: it checks that sub and jti are there, not that they are text
    const { sub, jti, scope }: Record<string, unknown> = payload
    const { exp } = payload
    if (typeof sub !== 'string' || typeof jti !== 'string' || typeof scope !== 'string') return null
    if (exp === undefined) return null
    const words = scope.split(' ')
    return {
      tokenId: jti,
      userId: sub,
      scopes: SCOPES.filter((known) => words.includes(known)),
      expiresAt: new Date(exp * 1000),
    }
  }

  return {
    async verify(jwt, { expired = false } = {}) {
      if (jwt.length > LONGEST) return null
      const id = sha256Hex(jwt)
      const known = remembered.get(id)
      if (known !== undefined) {
        if (known.expiresAt > clock.now() || expired) return known
        remembered.delete(id)
      }
      // whatever jose throws about a token is a rejection of that token
      const claims = await check(jwt, expired).catch(() => null)
      if (claims !== null) {
        if (remembered.size >= REMEMBERED) remembered.clear()
        remembered.set(id, claims)
      }
      return claims
    },
  }
}

/** Public members of a JWK set for /.well-known/jwks.json; never a private one (R37). */
export function publicKeys(keys: JWK[]): { keys: JWK[] } {
  return {
    keys: keys.map(({ kty, crv, x, kid }) => ({ kty, crv, x, kid, alg: 'EdDSA', use: 'sig' })),
  }
}
