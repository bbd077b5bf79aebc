/**
 * Who may manage, and the answers. Every handler reads its body first and asks then who it is: a
 * body that comes slowly must not carry an ended token past its end.
 */
import { identify } from '../core/access.ts'
import { actorOf } from '../core/catalog.ts'
import { sameBytes, sha256Hex } from '../core/digest.ts'
import { RegistryError } from '../errors.ts'
import { readJson } from '../http/body.ts'
import type { Ctx } from '../http/context.ts'
import { data } from '../http/json-resp.ts'
import type { Actor } from '../ports.ts'
import { claim, policy } from './requests.ts'
import type { ManageDeps } from './routes.ts'

const CLAIM_LIFE_S = 86_400

/** Who the asking administrator is, for guards and the audit log; throws for everybody else. */
export function administratorIn({
  database,
  clock,
  access,
}: Pick<ManageDeps, 'database' | 'clock' | 'access'>) {
  return async (c: Ctx): Promise<{ by: Actor }> => {
    const claims = c.get('claims')
    const standing = claims === null ? null : await database.tokens.standing(claims, clock.now())
    const identity = identify(claims, standing)
    access.authorise(identity, 'administer', { subject: 'user', level: 0, private: false })
    return { by: actorOf(identity, clock) }
  }
}

export function manageHandlers(deps: ManageDeps) {
  const { admin, policies, clock, transfer } = deps

  return {
    async showPolicy(c: Ctx): Promise<Response> {
      const ref = c.req.query('ref') ?? ''
      const { mode, fingerprints } = await policies.show(ref, c.get('claims'))
      return data({ ref, policy: mode, fingerprints })
    },

    /** The collection's owner, or an administrator; a list that is left out is none. */
    async setPolicy(c: Ctx): Promise<Response> {
      const { ref, ...wanted } = await readJson(c, transfer, policy)
      const given = { mode: wanted.policy, fingerprints: wanted.fingerprints ?? [] }
      const { mode, fingerprints } = await policies.set(ref, given, c.get('claims'))
      return data({ ref, policy: mode, fingerprints })
    },

    /**
     * R19: whoever can set the deployment's secrets is its operator. A wrong secret, a used one and
     * none at all look alike to the caller; the request's log line says which it was.
     */
    async firstAdmin(c: Ctx): Promise<Response> {
      const { secret, expiresIn } = await readJson(c, transfer, claim)
      const { setupSecret } = deps
      if (setupSecret === undefined) throw refused('no setup secret is configured')
      if (!sameText(secret, setupSecret)) throw refused('a wrong setup secret')
      const life = (expiresIn ?? CLAIM_LIFE_S) * 1000
      const ends = new Date(clock.now().getTime() + life)
      const made = await admin.claimAdmin(setupSecret, ends, c.env.entry.address)
      if (made === null) throw refused('the setup secret was used before')
      c.env.entry.userId = made.user.id
      c.env.entry.tokenId = made.id
      const { id, jwt: token, expiresAt } = made
      return data({ user: made.user.name, id, token, expiresAt })
    },
  }
}

function refused(reason: string): RegistryError {
  return new RegistryError(
    'denied',
    'This setup secret is not valid here or has been used: set a new SREG_SETUP_SECRET in the deployment and claim with that one.',
    { subject: 'token', cause: new Error(reason) },
  )
}

/** Compares digests, which takes the same time whatever the lengths are. */
function sameText(a: string, b: string): boolean {
  const bytes = (text: string) => new TextEncoder().encode(sha256Hex(text))
  return sameBytes(bytes(a), bytes(b))
}
