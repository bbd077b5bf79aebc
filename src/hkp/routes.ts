/** The keystore's addresses. Until it lands, clients get answers they understand (protocol.md §7). */
import type { Claims } from '../core/model.ts'
import { RegistryError } from '../errors.ts'
import type { Ctx } from '../http/context.ts'
import { onError } from '../http/json-resp.ts'
import { defineRoutes, type Route } from '../http/routes.ts'

export function hkpRoutes(deps: { authenticate: (c: Ctx) => Promise<Claims | null> }) {
  const routes: Route[] = [
    {
      method: 'GET',
      path: '/pks/lookup',
      access: 'open',
      handler: () => {
        throw new RegistryError('not_found', 'No key found.', { subject: 'key' })
      },
    },
    {
      method: 'POST',
      path: '/pks/add',
      access: 'open',
      handler: () => {
        throw new RegistryError('unimplemented', 'This registry does not store keys yet.', {
          subject: 'key',
        })
      },
    },
  ]
  return defineRoutes({ routes, owns: ['/pks/*'], onError, deps })
}
