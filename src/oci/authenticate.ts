/** Who asks under /v2: our own token, as Bearer or as the password of any user name. */
import type { Claims } from '../core/model.ts'
import { RegistryError } from '../errors.ts'
import { authenticate as authenticateBearer } from '../http/authenticate.ts'
import type { Ctx } from '../http/context.ts'
import type { TokenVerifier } from '../ports.ts'

/** Longest Authorization header that is looked at, in characters (R13). */
const LONGEST = 8192

/** Claims of the token, or null for nobody; `unauthenticated` for what does not verify. */
export async function authenticate(c: Ctx, verifier: TokenVerifier): Promise<Claims | null> {
  const header = c.req.header('authorization')?.trim() ?? ''
  const [, basic] = /^basic\s+(.*)$/i.exec(header) ?? []
  if (basic === undefined) return authenticateBearer(c, verifier)
  const claims = header.length > LONGEST ? null : await verifier.verify(passwordOf(basic))
  if (claims === null)
    throw new RegistryError(
      'unauthenticated',
      'This password is no valid token (expired, altered or of another registry): log in with a token of this registry as the password.',
      { subject: 'token' },
    )
  return claims
}

/** What a client is told that has to say who it is: the same for everything that it may not see (R31). */
export function challenge(_c: Ctx): string {
  return 'Basic realm="sreg-lite"'
}

/** What follows the first colon of the credentials (RFC 7617). */
function passwordOf(credentials: string): string {
  try {
    const text = atob(credentials)
    return text.slice(text.indexOf(':') + 1)
  } catch {
    return ''
  }
}
