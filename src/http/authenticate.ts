/** The Authorization header as claims: verified, anonymous, or refused. */
import type { Claims } from '../core/model.ts'
import { RegistryError } from '../errors.ts'
import type { TokenVerifier } from '../ports.ts'
import type { Ctx } from './context.ts'

/** Longest Authorization header that is looked at, in characters (R13). */
const LONGEST = 8192

/**
 * Claims of the bearer token, or null for nobody. An empty bearer is nobody: logged-out Apptainer
 * sends `Authorization: Bearer ` with its key commands (apptainer-wire.md, 7). Everything else that
 * does not verify is `unauthenticated`, also on routes that anonymous callers may use: a refused
 * token must not look like an empty registry. `expired` as the verifier has it.
 */
export async function authenticate(
  c: Ctx,
  verifier: TokenVerifier,
  options: { expired?: boolean } = {},
): Promise<Claims | null> {
  const header = c.req.header('authorization')?.trim() ?? ''
  if (header === '') return null
  if (header.length > LONGEST)
    throw new RegistryError('unauthenticated', `This token is longer than ${LONGEST} characters`, {
      subject: 'token',
    })
  const [, scheme, token] = /^([^\s]+)\s*(.*)$/.exec(header) ?? []
  if (scheme?.toLowerCase() !== 'bearer')
    throw new RegistryError(
      'unauthenticated',
      'Only bearer tokens work here: send Authorization: Bearer followed by your token',
      { subject: 'token' },
    )
  if (token === undefined || token === '') return null
  const claims = await verifier.verify(token, options)
  if (claims === null)
    throw new RegistryError(
      'unauthenticated',
      'This token is not valid (expired, altered or of another registry): ' +
        'get a new one with sreg-lite token create and log in again',
      { subject: 'token' },
    )
  return claims
}
