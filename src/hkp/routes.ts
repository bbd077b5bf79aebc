/** The keystore's addresses, those of every OpenPGP keyserver (protocol.md §7). */
import type { KeystorePolicy } from '../core/access.ts'
import type { Keyring } from '../core/keyring.ts'
import type { RegistryError } from '../errors.ts'
import { onError } from '../http/json-resp.ts'
import { defineRoutes, type Route, type RouteDeps } from '../http/routes.ts'
import type { Transfer } from '../http/transfer.ts'
import type { Clock } from '../ports.ts'
import { described } from './about.ts'
import { addHandler } from './add.ts'
import { CORS, lookupHandler } from './lookup.ts'

export function hkpRoutes(
  deps: RouteDeps & {
    keyring: Keyring
    policy: KeystorePolicy
    clock: Clock
    transfer: Transfer
  },
) {
  // before the body is read; the keyring looks at the token's row
  const adding = deps.policy.add === 'anyone' ? 'read' : 'keys'
  // prettier-ignore
  const routes: Route[] = [
    { method: 'GET', path: '/pks/lookup', access: 'read', handler: lookupHandler(deps) },
    { method: 'POST', path: '/pks/add', access: adding, limit: 'keys', handler: addHandler(deps) },
  ]
  return defineRoutes({ routes, owns: ['/pks/*'], described, onError: refuse, deps })
}

function refuse(error: RegistryError): Response {
  const response = onError(error)
  for (const [name, value] of Object.entries(CORS)) response.headers.set(name, value)
  return response
}
