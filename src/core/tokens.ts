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
  type JWTPayload,
} from 'jose'
import type { Clock, TokenVerifier } from '../ports.ts'
import { SCOPES, type Claims, type OciAccess, type Scope } from './model.ts'

export type { JWK } from 'jose'

/** The kinds of token that are ours; each has its own type and audience (R13). */
const API = { type: 'sreg+jwt', audience: 'api', ids: ['jti'] } as const
const OCI = { type: 'sreg-oci+jwt', audience: 'oci', ids: ['parent', 'access'] } as const
type Kind = typeof API | typeof OCI
/** Longest token looked at, in characters; checked before anything is decoded (R13). */
export const LONGEST = 8192
/** Verified tokens remembered: an Ed25519 check costs about 190 µs. */
export const REMEMBERED = 10_000
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
  /**
   * A JWT for /v2 and nothing else. `tokenId` is that of the token which it comes from and with which it
   * ends, `scopes` are that one's; both ids are empty for nobody's.
   */
  issueOci(token: {
    tokenId: string
    userId: string
    scopes: readonly Scope[]
    access: readonly OciAccess[]
    issuedAt: Date
    expiresAt: Date
  }): Promise<string>
}

/** Whether a token calls itself one for /v2; nothing about it is proven. */
export function isOciToken(jwt: string): boolean {
  if (jwt.length > LONGEST) return false
  try {
    return decodeProtectedHeader(jwt).typ === OCI.type
  } catch {
    return false
  }
}

/** Signs with the current private key (an Ed25519 JWK with `kid`). */
export function tokenIssuer(options: { registryId: string; signingKey: JWK }): TokenIssuer {
  let key: Promise<CryptoKey | Uint8Array> | undefined
  async function sign(
    kind: Kind,
    payload: JWTPayload,
    by: { userId: string; scopes: readonly Scope[]; issuedAt: Date; expiresAt: Date },
  ): Promise<string> {
    key ??= importJWK(options.signingKey, 'EdDSA')
    return new SignJWT({ scope: by.scopes.join(' '), ...payload })
      .setProtectedHeader({ alg: 'EdDSA', typ: kind.type, kid: options.signingKey.kid })
      .setIssuer(issuerOf(options.registryId))
      .setAudience(kind.audience)
      .setSubject(by.userId)
      .setIssuedAt(by.issuedAt)
      .setExpirationTime(by.expiresAt)
      .sign(await key)
  }
  return {
    issue: ({ tokenId, ...by }) => sign(API, { jti: tokenId }, by),
    issueOci: ({ tokenId, access, ...by }) => sign(OCI, { parent: tokenId, access }, by),
  }
}

/**
 * Verifies tokens of this registry: algorithm exactly EdDSA, type, issuer, audience and times,
 * with a key that is looked up by `kid` in `keys`. Everything else is an explicit rejection (null).
 * Verified claims of somebody are remembered by the token until they expire.
 */
export const tokenVerifier = (options: VerifierOptions): TokenVerifier => verifierFor(API, options)

/** The same of OCI tokens; the ids of nobody's are empty. */
export const ociTokenVerifier = (options: VerifierOptions): TokenVerifier =>
  verifierFor(OCI, options)

/**
 * What /v2 takes: OCI tokens, and what `other` takes. Exactly one of both looks at a token, by the type
 * that it names, and what that one refuses is refused (R13).
 */
export const eitherVerifier = (other: TokenVerifier, oci: TokenVerifier): TokenVerifier =>
  choosing((jwt) => (isOciToken(jwt) ? oci : other))

/**
 * Leaves a token to the verifier that `choose` names for it by nothing but its text. Of tokens that were
 * accepted, and are somebody's, the choice is remembered: reading it out of them takes a twentieth of a lookup.
 */
export function choosing(choose: (jwt: string) => TokenVerifier): TokenVerifier {
  const chosen = new Map<string, TokenVerifier>()
  return {
    async verify(jwt, options) {
      if (jwt.length > LONGEST) return null
      const known = chosen.get(jwt)
      if (known !== undefined) return known.verify(jwt, options)
      const verifier = choose(jwt)
      const claims = await verifier.verify(jwt, options)
      if (isSomebodys(claims)) {
        if (chosen.size >= REMEMBERED) chosen.clear()
        chosen.set(jwt, verifier)
      }
      return claims
    },
  }
}

/** Nobody's tokens (OCI) are anybody's to ask for, as many and as long as they like: they are not kept. */
const isSomebodys = (claims: Claims | null): claims is Claims =>
  claims !== null && claims.userId !== ''

type VerifierOptions = {
  registryId: string
  /** Public keys: the current one and older ones whose tokens still run. */
  keys: JWK[]
  clock: Clock
}

function verifierFor(kind: Kind, options: VerifierOptions): TokenVerifier {
  const { registryId, clock } = options
  const keys = new Map(
    // public members only: a private JWK would import as a key that cannot verify
    publicKeys(options.keys).keys.map((jwk) => [jwk.kid ?? '', importJWK(jwk, 'EdDSA')]),
  )
  const remembered = new Map<string, Claims>()

  async function check(jwt: string, expired: boolean): Promise<Claims | null> {
    const header = decodeProtectedHeader(jwt)
    if (header.alg !== 'EdDSA' || header.typ !== kind.type) return null
    if (REFUSED.some((member) => member in header)) return null
    const key = keys.get(header.kid ?? '')
    if (key === undefined) return null
    const verified = jwtVerify(jwt, await key, {
      algorithms: ['EdDSA'],
      typ: kind.type,
      issuer: issuerOf(registryId),
      audience: kind.audience,
      requiredClaims: ['sub', 'exp', 'iat', ...kind.ids],
      clockTolerance: 60,
      currentDate: clock.now(),
    })
    // jose looks at the expiry after everything else
    const { payload } = await verified.catch((error: unknown) => {
      if (expired && error instanceof errors.JWTExpired) return error
      throw error
    })
    // jose's types are a promise only: it checks that sub and jti are there, not that they are text
    const { sub, scope, access }: Record<string, unknown> = payload
    const id: unknown = payload[kind.ids[0]]
    const { exp } = payload
    if (typeof sub !== 'string' || typeof id !== 'string' || typeof scope !== 'string') return null
    if (exp === undefined) return null
    const words = scope.split(' ')
    const claims = {
      tokenId: id,
      userId: sub,
      scopes: SCOPES.filter((known) => words.includes(known)),
      expiresAt: new Date(exp * 1000),
    }
    if (kind === API) return claims
    return isAccess(access) && (id === '') === (sub === '') ? { ...claims, access } : null
  }

  return {
    async verify(jwt, { expired = false } = {}) {
      if (jwt.length > LONGEST) return null
      const known = remembered.get(jwt)
      if (known !== undefined) {
        if (known.expiresAt > clock.now() || expired) return known
        remembered.delete(jwt)
      }
      // whatever jose throws about a token is a rejection of that token
      const claims = await check(jwt, expired).catch(() => null)
      if (isSomebodys(claims)) {
        if (remembered.size >= REMEMBERED) remembered.clear()
        remembered.set(jwt, claims)
      }
      return claims
    },
  }
}

function isAccess(value: unknown): value is OciAccess[] {
  const isOne = (one: Partial<Record<keyof OciAccess, unknown>> | null) =>
    typeof one?.type === 'string' &&
    typeof one.name === 'string' &&
    Array.isArray(one.actions) &&
    one.actions.every((action) => typeof action === 'string')
  return Array.isArray(value) && value.every(isOne)
}

/** Public members of a JWK set for /.well-known/jwks.json; never a private one (R37). */
export function publicKeys(keys: JWK[]): { keys: JWK[] } {
  return {
    keys: keys.map(({ kty, crv, x, kid }) => ({ kty, crv, x, kid, alg: 'EdDSA', use: 'sig' })),
  }
}
