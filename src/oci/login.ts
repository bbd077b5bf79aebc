/** Logins: what says that a token is good, and what gives OCI tokens (protocol.md §11.5). */
import { parseScopes } from '../core/oci-access.ts'
import { RegistryError } from '../errors.ts'
import type { Ctx } from '../http/context.ts'
import { PRIVATE } from '../http/json-resp.ts'
import { isNobodys } from './authenticate.ts'
import type { OciDeps } from './routes.ts'
import { CONTENT } from './wire.ts'
import { reply } from '../http/reply.ts'

export function loginHandlers({ logins }: OciDeps) {
  return {
    /** Says that OCI is spoken here, to who has any token that stands: that is how clients try one. */
    async ping(c: Ctx): Promise<Response> {
      const claims = c.get('claims')
      if (claims === null && !isNobodys(c))
        throw new RegistryError('unauthenticated', 'This needs a token: log in first.', {
          subject: 'token',
        })
      await logins.check(claims)
      return reply('{}', 200, {
        ...CONTENT,
        'Content-Type': 'application/json',
        'Docker-Distribution-Api-Version': 'registry/2.0',
      })
    },

    /**
     * A token for the scopes of the query, as far as they go. `service`, `account`, `client_id` and
     * `offline_token` are not looked at. One that was given here gives no other.
     */
    async token(c: Ctx): Promise<Response> {
      const claims = c.get('claims')
      if (claims?.access !== undefined || isNobodys(c))
        throw new RegistryError(
          'unauthenticated',
          'A token that was given here gives no other: ask with a token of this registry as the password.',
          { subject: 'token' },
        )
      await logins.check(claims)
      const asked = parseScopes(c.req.queries('scope') ?? [])
      const { token, expiresIn, issuedAt } = await logins.give(claims, asked)
      const body = {
        token,
        access_token: token,
        expires_in: expiresIn,
        issued_at: issuedAt.toISOString(),
      }
      return reply(JSON.stringify(body), 200, { ...PRIVATE, 'Content-Type': 'application/json' })
    },
  }
}
