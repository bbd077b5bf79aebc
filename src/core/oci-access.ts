/**
 * What OCI tokens are for: scopes as clients ask for them, what a login gives of them, and what a
 * request takes (docs/oci.md, "Logging in"). A scope never says whether a repository is there (R31).
 */
import type { Clock, Database } from '../ports.ts'
import { isRegistryError } from '../errors.ts'
import { identify } from './access.ts'
import type { Claims, OciAccess, Scope } from './model.ts'
import { parseRepository, placeOf } from './repositories.ts'
import type { TokenIssuer } from './tokens.ts'

/** Seconds that an OCI token lives, at most. */
export const OCI_TOKEN_LIFE = 300
/** Characters of scopes that are looked at in one request. */
const LONGEST = 16_384
/** Repositories of one token: with names of 255 characters it is no longer than tokens may be (R13). */
const MOST = 16
/** What can be done with a repository, in the order that answers have. */
const ACTIONS = ['pull', 'push', 'delete'] as const satisfies readonly Scope[]

/** The list of repositories, as docker's registry calls it. */
export const CATALOG: OciAccess = { type: 'registry', name: 'catalog', actions: ['*'] }

/**
 * Reads scopes (distribution, token scope: `repository:NAME:ACTION,…` and `registry:catalog:*`, several in
 * one text with spaces between them). One entry for each repository, in the order of the first mention;
 * `*` is every action. Whatever is none of these, or too much, is left out: servers that give tokens
 * refuse no scope.
 */
export function parseScopes(texts: readonly string[]): OciAccess[] {
  const found = new Map<string, Set<string>>()
  let catalog = false
  for (const scope of texts.join(' ').slice(0, LONGEST).split(' ')) {
    const [, type, name = '', actions = ''] = /^([a-z]+):([^:]*):([^:]*)$/.exec(scope) ?? []
    const words = actions.split(',')
    if (type === CATALOG.type && name === CATALOG.name) catalog ||= words.includes('*')
    if (type !== 'repository' || placeNamed(name) === null) continue
    const wanted = ACTIONS.filter((action) => words.includes(action) || words.includes('*'))
    if (wanted.length === 0 || (!found.has(name) && found.size === MOST)) continue
    found.set(name, new Set([...(found.get(name) ?? []), ...wanted]))
  }
  const repositories = [...found].map(([name, actions]) => ({
    type: 'repository',
    name,
    actions: ACTIONS.filter((action) => actions.has(action)),
  }))
  return catalog ? [...repositories, CATALOG] : repositories
}

/** What a token with these scopes gives of it, null for nobody's; nothing is looked up. */
export function within(asked: readonly OciAccess[], scopes: readonly Scope[] | null): OciAccess[] {
  const may: readonly string[] = scopes ?? ['pull']
  return asked
    .map((one) =>
      one.type === 'repository'
        ? { ...one, actions: one.actions.filter((action) => may.includes(action)) }
        : one,
    )
    .filter(({ actions }) => actions.length > 0)
}

/** Actions that a token has for what is wanted; a repository goes by the place it lies in. */
export function actionsOn(access: readonly OciAccess[], wanted: OciAccess): readonly string[] {
  const place = placeNamed(wanted.name)
  return access
    .filter(({ type, name }) =>
      type === 'repository'
        ? wanted.type === type && place !== null && placeNamed(name) === place
        : type === wanted.type && name === wanted.name,
    )
    .flatMap(({ actions }) => actions)
}

/** Where the repository of that name lies; null for no name of any. */
function placeNamed(name: string): string | null {
  try {
    return placeOf(parseRepository(name))
  } catch (error) {
    if (isRegistryError(error, 'invalid')) return null
    throw error
  }
}

/** A scope as a challenge names it. */
export const scopeOf = ({ type, name, actions }: OciAccess): string =>
  `${type}:${name}:${actions.join(',')}`

/**
 * The claims of an OCI token, cut down to one request: of its scopes for actions those that it has for
 * what is wanted. Null when it does not reach as far and another token of the same login would: then the
 * client is to ask for that.
 */
export function narrowed(claims: Claims, wanted: OciAccess): Claims | null {
  const actions = actionsOn(claims.access ?? [], wanted)
  const needed = wanted.actions.at(-1) ?? ''
  const more = wanted.type !== 'repository' || claims.scopes.some((scope) => scope === needed)
  if (!actions.includes(needed) && more) return null
  if (wanted.type !== 'repository') return claims
  const kept = (scope: Scope) =>
    actions.includes(scope) || !ACTIONS.some((action) => action === scope)
  return { ...claims, scopes: claims.scopes.filter(kept) }
}

/** A token that was given, and for how long: seconds, and since when. */
export type GivenToken = { token: string; expiresIn: number; issuedAt: Date }

export function createOciLogins(deps: { database: Database; clock: Clock; issuer: TokenIssuer }) {
  const { database, clock, issuer } = deps

  return {
    /** Throws `unauthenticated` unless the token behind the claims stands; nobody is fine. */
    async check(claims: Claims | null): Promise<void> {
      if (claims === null || claims.operator !== undefined) return
      identify(claims, await database.tokens.standing(claims, clock.now()))
    },

    /**
     * A token for what is asked, as far as the scopes of one's own token go; for nobody, one that only
     * pulls. It ends with the token that it was asked for with, which is looked up at each use (R13).
     */
    async give(claims: Claims | null, asked: readonly OciAccess[]): Promise<GivenToken> {
      const now = clock.now()
      const latest = now.getTime() + OCI_TOKEN_LIFE * 1000
      const expiresAt = new Date(Math.min(latest, claims?.expiresAt.getTime() ?? latest))
      const token = await issuer.issueOci({
        tokenId: claims?.tokenId ?? '',
        userId: claims?.userId ?? '',
        scopes: claims?.scopes ?? ['pull'],
        access: within(asked, claims?.scopes ?? null),
        issuedAt: now,
        expiresAt,
      })
      const expiresIn = Math.max(0, Math.floor((expiresAt.getTime() - now.getTime()) / 1000))
      return { token, expiresIn, issuedAt: now }
    },
  }
}

export type OciLogins = ReturnType<typeof createOciLogins>
