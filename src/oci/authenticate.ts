/**
 * Who asks under /v2: an OCI token, or what is taken elsewhere as Bearer or as the password of any user
 * name; and what those are told who have to ask with another one (protocol.md §11.5).
 */
import { actionsOn, CATALOG, narrowed, parseScopes, scopeOf } from '../core/oci-access.ts'
import type { Claims, OciAccess } from '../core/model.ts'
import { RegistryError } from '../errors.ts'
import { authenticate as authenticateBearer } from '../http/authenticate.ts'
import type { Ctx } from '../http/context.ts'
import { originOf, type OriginConfig } from '../http/origin.ts'
import type { TokenVerifier } from '../ports.ts'

/** Longest Authorization header that is looked at, in characters (R13). */
const LONGEST = 8192

/**
 * Claims of the token, or null for nobody; `unauthenticated` for what does not verify, and for an OCI
 * token that is not for this: its client asks for one that is (distribution does the same). `expired` as
 * the verifier has it.
 */
export async function authenticate(
  c: Ctx,
  verifier: TokenVerifier,
  options: { expired?: boolean } = {},
): Promise<Claims | null> {
  const header = c.req.header('authorization')?.trim() ?? ''
  const [, basic] = /^basic\s+(.*)$/i.exec(header) ?? []
  if (basic === undefined) {
    const claims = await authenticateBearer(c, verifier, options)
    return claims?.access === undefined ? claims : forThis(c, claims)
  }
  const claims = header.length > LONGEST ? null : await verifier.verify(passwordOf(basic), options)
  if (claims === null || claims.access !== undefined)
    throw new RegistryError(
      'unauthenticated',
      'This password is no valid token (expired, altered or of another registry): log in with a token of this registry as the password.',
      { subject: 'token' },
    )
  return claims
}

/** The claims of an OCI token as far as it is for this request; null for nobody's. */
function forThis(c: Ctx, claims: Claims): Claims | null {
  const wanted = wantedBy(c)
  const source = mountedFrom(c)
  const mounts = source === null || actionsOn(claims.access ?? [], source).includes('pull')
  const narrow = wanted === null ? claims : narrowed(claims, wanted)
  // a login that may pull nowhere gets no better token: then it is an upload like any other
  const reaching = mounts || !claims.scopes.includes('pull') ? narrow : null
  const nobody = claims.userId === ''
  c.env.entry.asksForAnother = nobody || reaching === null
  if (reaching === null && !nobody)
    throw new RegistryError(
      'unauthenticated',
      'This token is for something else: ask for one with the scope that this needs.',
      { subject: 'token' },
    )
  return nobody ? null : reaching
}

/**
 * What a request takes, by its address and method alone (R31); the last action is the one without which
 * it does not go. Null where any token will do, and for what can be no repository.
 */
function wantedBy(c: Ctx): OciAccess | null {
  const { method } = c.req
  const { route } = c.env.entry
  if (route === '/v2/_catalog') return CATALOG
  const reads = method === 'GET' || method === 'HEAD'
  const uploads = route?.includes('/blobs/uploads') === true
  const actions = uploads || method === 'PUT' ? 'pull,push' : reads ? 'pull' : 'pull,delete'
  const [wanted = null] = parseScopes([`repository:${c.req.param('name') ?? ''}:${actions}`])
  return wanted
}

/** What a mount takes besides, of the repository that it names; null for every other request. */
function mountedFrom(c: Ctx): OciAccess | null {
  const mounts = c.req.method === 'POST' && c.req.query('mount') !== undefined
  const [source = null] = mounts
    ? parseScopes([`repository:${c.req.query('from') ?? ''}:pull`])
    : []
  return source
}

/** Of a request that showed an OCI token of nobody: good, but it says nothing about who asks. */
export const isNobodys = (c: Ctx): boolean => c.get('claims') === null && c.env.entry.asksForAnother

/** What a client is told that has to say who it is: the same for everything that it may not see (R31). */
export function challenge(c: Ctx, config: OriginConfig): string {
  const origin = originOf(c, config)
  if (c.env.entry.route === TOKEN_PATH) return `Basic realm="${new URL(origin).host}"`
  const scopes = [wantedBy(c), mountedFrom(c)].filter((one) => one !== null).map(scopeOf)
  const scope = scopes.length === 0 ? '' : `,scope="${scopes.join(' ')}"`
  return `Bearer realm="${origin}${TOKEN_PATH}",service="${new URL(origin).host}"${scope}`
}

/** Where OCI tokens are given. */
export const TOKEN_PATH = '/v2/token'

/** What follows the first colon of the credentials (RFC 7617). */
function passwordOf(credentials: string): string {
  try {
    const text = atob(credentials)
    return text.slice(text.indexOf(':') + 1)
  } catch {
    return ''
  }
}
