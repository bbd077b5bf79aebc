/**
 * Tokens of other issuers (R35): a CI job proves by a short JWT of its own platform who it is, and a
 * rule of the configuration says what that is worth here. Keys come from the issuer (R55).
 */
import { decodeJwt, decodeProtectedHeader, importJWK, jwtVerify, type JWK } from 'jose'
import { RegistryError } from '../errors.ts'
import type { Clock, FetchJson, Ids, Log, TokenVerifier, UsersBook } from '../ports.ts'
import { sha256Hex } from './digest.ts'
import type { Claims, Scope } from './model.ts'
import { choosing, LONGEST, REMEMBERED } from './tokens.ts'

/** What a token must say, member by member and value by value, and what it may do then. */
export type ClaimRule = {
  claims: Readonly<Record<string, string>>
  scopes: readonly Scope[]
  /** entity/collection. */
  collection: string
  /** 1 reads, 2 contributes. */
  level: 1 | 2
}

export type TrustedIssuer = {
  /** Exactly as its tokens name it in `iss`. */
  issuer: string
  audience: string
  algorithms: readonly string[]
  /** Null: as its discovery document says, on the issuer's own host. */
  jwksUri: string | null
  /** It may be at a loopback, private or link-local address. */
  allowPrivate: boolean
  /** The first one that fits counts. */
  rules: readonly ClaimRule[]
}

export type ForeignVerifier = TokenVerifier & {
  /** Whether tokens that name this issuer are for this verifier. */
  knows(issuer: unknown): boolean
}

/** Header members that bring a key or rules of their own. `x5t` names a key only: GitHub sends it. */
const REFUSED = ['crit', 'jku', 'jwk', 'x5u', 'x5c', 'b64']
const LONGEST_LIFE_S = 24 * 3600
const SKEW_S = 60
const LONGEST_SUBJECT = 1024

/** Keys are asked for again after this time, so that withdrawn ones end. */
const FRESH_MS = 3_600_000
/** The last good keys of an issuer that does not answer. */
const KEPT_MS = 24 * 3_600_000
/** Between two questions for the sake of a `kid` that is unknown, or of one that is not fresh. */
const RARELY_MS = 300_000
/** Between two questions while there are no keys at all. */
const RETRY_MS = 30_000
/** A question that has no answer by then has none: its request may have gone, on Workers. */
const LOST_MS = 12_000
const MOST_KEYS = 50

/**
 * Chooses exactly one verifier by the issuer that a token names, before anything about it is proven:
 * what that one refuses is refused (R13).
 */
export const verifierOf = (own: TokenVerifier, foreign: ForeignVerifier): TokenVerifier =>
  choosing((jwt) => (foreign.knows(issuerNamedIn(jwt)) ? foreign : own))

function issuerNamedIn(jwt: string): unknown {
  try {
    return decodeJwt(jwt).iss
  } catch {
    return undefined
  }
}

/**
 * Verifies tokens of the configured issuers. A token that is accepted for the first time is vouched
 * for: its identity, the grant of its rule and its row are made, so that from then on it is a token
 * like any other. Null is a refusal; `unauthenticated` one whose reason helps whoever sets this up;
 * `unavailable` says that the issuer's keys cannot be had, which proves nothing about the token.
 */
export function foreignVerifier(deps: {
  issuers: readonly TrustedIssuer[]
  fetchJson: FetchJson
  vouch: UsersBook['vouch']
  clock: Clock
  ids: Ids
  log: Log
}): ForeignVerifier {
  const { clock, ids, vouch } = deps
  const issuers = new Map<unknown, { trusted: TrustedIssuer; keys: KeySet }>(
    deps.issuers.map((trusted) => [trusted.issuer, { trusted, keys: keySet(trusted, deps) }]),
  )
  const accepted = new Map<string, { claims: Claims; rule: ClaimRule }>()

  async function accept(jwt: string, { rule, sub, issuer, expiresAt }: Proven): Promise<Claims> {
    const subject = `${issuer}|${sub}`
    const userId = sha256Hex(subject).slice(0, 24)
    // not of the signature: one content has many signatures, and a revoked token must stay so
    const tokenId = sha256Hex(jwt.slice(0, jwt.lastIndexOf('.'))).slice(0, 24)
    const now = clock.now()
    const { scopes, collection, level } = rule
    const vouched = await vouch({
      userId,
      name: `oidc:${userId.slice(0, 12)}`,
      subject,
      token: { id: tokenId, name: subject.slice(0, 200), scopes, createdAt: now, expiresAt },
      grant: { id: ids.next(), collection, level },
      now,
    })
    if (vouched === 'disabled')
      throw refusal(`The identity ${subject} may not use this registry; ask its administrator.`)
    if (vouched === 'no collection')
      throw refusal(
        `This token is for the collection ${collection}, which does not exist here yet; its owner must create it first.`,
      )
    return { tokenId, userId, scopes, expiresAt }
  }

  return {
    knows: (issuer) => issuers.has(issuer),

    async verify(jwt, { expired = false } = {}) {
      if (jwt.length > LONGEST) return null
      const id = sha256Hex(jwt)
      const known = accepted.get(id)
      if (known !== undefined) {
        // R24: one that began a push was accepted then, by this process or it begins again
        if (known.claims.expiresAt > clock.now() || expired) return known.claims
        return null
      }
      const found = issuers.get(issuerNamedIn(jwt))
      if (found === undefined) return null
      const proven = await prove(jwt, found.trusted, found.keys, clock)
      if (proven === null) return null
      const claims = await accept(jwt, proven)
      // An identity has the grant of one rule at a time: tokens of its other rules come anew.
      for (const [key, other] of accepted)
        if (other.claims.userId === claims.userId && other.rule !== proven.rule)
          accepted.delete(key)
      if (accepted.size >= REMEMBERED) accepted.clear()
      accepted.set(id, { claims, rule: proven.rule })
      return claims
    },
  }
}

type Proven = { rule: ClaimRule; issuer: string; sub: string; expiresAt: Date }

/** Everything about a token but its identity's standing here; null when it is not to be believed. */
async function prove(
  jwt: string,
  trusted: TrustedIssuer,
  keys: KeySet,
  clock: Clock,
): Promise<Proven | null> {
  const named = keyNamedBy(jwt, trusted)
  if (named === null) return null
  const key = await keys.find(named.kid, named.alg)
  if (key === null) return null
  const now = clock.now()
  // whatever jose throws about a token is a rejection of that token
  const verified = await importJWK(key, named.alg)
    .then((imported) =>
      jwtVerify(jwt, imported, {
        algorithms: [named.alg],
        issuer: trusted.issuer,
        audience: trusted.audience,
        requiredClaims: ['sub', 'exp', 'iat'],
        clockTolerance: SKEW_S,
        currentDate: now,
      }),
    )
    .catch(() => null)
  if (verified === null) return null
  const payload: Record<string, unknown> = verified.payload
  const { sub, exp, iat } = payload
  if (typeof exp !== 'number' || typeof iat !== 'number') return null
  if (typeof sub !== 'string' || sub === '' || sub.length > LONGEST_SUBJECT) return null
  if (/\p{C}/u.test(sub)) return null
  if (exp - iat > LONGEST_LIFE_S || iat * 1000 > now.getTime() + SKEW_S * 1000) return null
  const expiresAt = new Date(Math.floor(exp * 1000))
  // its row ends to the millisecond, so the tolerance is for the other times
  if (expiresAt <= now) return null
  const rule = trusted.rules.find(({ claims }) =>
    Object.entries(claims).every(
      ([name, value]) => Object.hasOwn(payload, name) && textOf(payload[name]) === value,
    ),
  )
  if (rule === undefined)
    throw refusal(
      'This token is genuine, but no rule of this registry fits what it says; ask its administrator to compare it with SREG_TRUSTED_ISSUERS.',
    )
  return { rule, issuer: trusted.issuer, sub, expiresAt }
}

/** A claim as a rule writes it; null for what no rule can ask for. */
function textOf(claim: unknown): string | null {
  if (typeof claim === 'string') return claim
  return typeof claim === 'boolean' || Number.isSafeInteger(claim) ? String(claim) : null
}

/** Algorithm and key that the header of a token names, when it may name them. */
function keyNamedBy(
  jwt: string,
  { algorithms }: TrustedIssuer,
): { alg: string; kid: string } | null {
  let header: Record<string, unknown>
  try {
    header = decodeProtectedHeader(jwt)
  } catch {
    return null
  }
  const { alg, kid, typ } = header
  if (typeof alg !== 'string' || !algorithms.includes(alg)) return null
  if (REFUSED.some((member) => member in header)) return null
  if (typ !== undefined && (typeof typ !== 'string' || typ.toUpperCase() !== 'JWT')) return null
  return typeof kid === 'string' && kid !== '' ? { alg, kid } : null
}

const refusal = (message: string) =>
  new RegistryError('unauthenticated', message, { subject: 'token' })

type KeySet = {
  /** The key of that name for that algorithm; null when the issuer has none. */
  find(kid: string, alg: string): Promise<JWK | null>
}

/** The keys of one issuer, asked for when they are needed and no more often than R55 allows. */
function keySet(
  trusted: TrustedIssuer,
  { fetchJson, clock, log }: { fetchJson: FetchJson; clock: Clock; log: Log },
): KeySet {
  let keys: JWK[] = []
  let goodAt = -Infinity
  let triedAt = -Infinity
  let failed = false
  let running: Promise<void> | null = null

  const age = (of: number) => clock.now().getTime() - of

  /** One question at a time; who comes meanwhile waits for its answer. */
  async function ask(): Promise<void> {
    if (running === null || age(triedAt) > LOST_MS) {
      triedAt = clock.now().getTime()
      const question: Promise<void> = fetchKeys(trusted, fetchJson)
        .then(
          (fetched) => {
            keys = fetched
            goodAt = clock.now().getTime()
            failed = false
          },
          (error: unknown) => {
            failed = true
            log.event('warn', 'issuer', { issuer: trusted.issuer, reason: String(error) })
          },
        )
        .finally(() => {
          if (running === question) running = null
        })
      running = question
    }
    let timer: ReturnType<typeof setTimeout> | undefined
    const lost = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, LOST_MS)
    })
    await Promise.race([running, lost])
    clearTimeout(timer)
  }

  return {
    async find(kid, alg) {
      const named = () => keys.find((key) => key.kid === kid && fits(key, alg)) ?? null
      if (named() !== null && age(goodAt) < FRESH_MS) return named()
      const pause = age(goodAt) < KEPT_MS ? RARELY_MS : RETRY_MS
      if (running !== null || age(triedAt) >= pause) await ask()
      const key = age(goodAt) < KEPT_MS ? named() : null
      if (key === null && (failed || running !== null || age(goodAt) >= KEPT_MS))
        throw new RegistryError(
          'unavailable',
          `The keys of ${trusted.issuer} cannot be had at the moment, so its tokens cannot be checked; try again later.`,
          { subject: 'token', retryAfter: RETRY_MS / 1000 },
        )
      return key
    },
  }
}

async function fetchKeys(trusted: TrustedIssuer, fetchJson: FetchJson): Promise<JWK[]> {
  const { allowPrivate } = trusted
  const uri = trusted.jwksUri ?? (await discover(trusted, fetchJson))
  const { keys } = membersOf(await fetchJson(uri, { allowPrivate }))
  if (!Array.isArray(keys) || keys.length > MOST_KEYS)
    throw new Error(`${uri} is no set of at most ${MOST_KEYS} keys`)
  return keys.map(publicMembers)
}

/** Where the issuer keeps its keys (OpenID Connect Discovery 1.0, 4.2 and 4.3). */
async function discover(
  { issuer, allowPrivate }: TrustedIssuer,
  fetchJson: FetchJson,
): Promise<string> {
  const at = `${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`
  const document = membersOf(await fetchJson(at, { allowPrivate }))
  if (document.issuer !== issuer) throw new Error(`${at} names another issuer`)
  const uri = new URL(String(document.jwks_uri))
  if (uri.protocol !== 'https:' || uri.host !== new URL(issuer).host)
    throw new Error(`${at} names keys on another host; give jwksUri if that is right`)
  return uri.href
}

const membersOf = (value: unknown): Record<string, unknown> =>
  typeof value === 'object' && value !== null ? { ...value } : {}

/** Of a private or symmetric key nothing is left that could verify anything. */
function publicMembers(value: unknown): JWK {
  const { kty, kid, alg, use, crv, x, y, n, e } = membersOf(value)
  const text = Object.entries({ kty, kid, alg, use, crv, x, y, n, e }).filter(
    ([, member]) => typeof member === 'string',
  )
  return Object.fromEntries(text)
}

const CURVES: Record<string, string> = {
  ES256: 'P-256',
  ES384: 'P-384',
  ES512: 'P-521',
  EdDSA: 'Ed25519',
}

/** Whether a key is for checking signatures of this algorithm (RFC 7517, 4). */
function fits({ kty, crv, use, alg: only }: JWK, alg: string): boolean {
  if ((use !== undefined && use !== 'sig') || (only !== undefined && only !== alg)) return false
  if (/^[RP]S/.test(alg)) return kty === 'RSA'
  return kty === (alg === 'EdDSA' ? 'OKP' : 'EC') && crv === CURVES[alg]
}
