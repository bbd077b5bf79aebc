/**
 * The management API on one screen: users, tokens and privacy for administrators without a shell,
 * and keys for those who own them.
 */
import type { Admin } from '../admin.ts'
import type { Access } from '../core/access.ts'
import type { Audit } from '../core/audit.ts'
import type { Keyring } from '../core/keyring.ts'
import type { People } from '../core/people.ts'
import type { Policies } from '../core/policies.ts'
import type { Popularity } from '../core/popularity.ts'
import type { Quotas } from '../core/quotas.ts'
import type { Shares } from '../core/shares.ts'
import type { Sharing } from '../core/sharing.ts'
import type { Teams } from '../core/teams.ts'
import { onError } from '../http/json-resp.ts'
import type { OriginConfig } from '../http/origin.ts'
import { defineRoutes, type Route, type RouteDeps } from '../http/routes.ts'
import type { Transfer } from '../http/transfer.ts'
import type { Clock, Database } from '../ports.ts'
import type { Exports, Imports } from '../core/moving.ts'
import { described } from './about.ts'
import { auditHandler } from './audit.ts'
import { manageHandlers } from './handlers.ts'
import { keyHandlers } from './keys.ts'
import { movingHandlers } from './moving.ts'
import { peopleHandlers } from './people.ts'
import { popularityHandlers } from './popularity.ts'
import { quotaHandlers } from './quotas.ts'
import { shareHandlers } from './shares.ts'
import { sharingHandlers } from './sharing.ts'
import { teamHandlers } from './teams.ts'

export type ManageDeps = RouteDeps & {
  admin: Admin
  access: Access
  database: Pick<Database, 'tokens'>
  clock: Clock
  transfer: Transfer
  keyring: Keyring
  people: People
  policies: Policies
  quotas: Quotas
  popularity: Popularity
  shares: Shares
  config: OriginConfig
  teams: Teams
  sharing: Sharing
  audit: Audit
  exports: Exports
  imports: Imports
  /** Good once for an administrator's token (R19). */
  setupSecret?: string
}

export function manageRoutes(deps: ManageDeps) {
  const manage = manageHandlers(deps)
  const people = peopleHandlers(deps)
  const moving = movingHandlers(deps)
  const keys = keyHandlers(deps)
  const quotas = quotaHandlers(deps)
  const popularity = popularityHandlers(deps)
  const shares = shareHandlers(deps)
  const teams = teamHandlers(deps)
  const sharing = sharingHandlers(deps)

  // prettier-ignore
  const routes: Route[] = [
    { method: 'GET', path: '/v1/users', access: 'admin', handler: people.listUsers },
    { method: 'POST', path: '/v1/users', access: 'admin', handler: people.addUser },
    { method: 'GET', path: '/v1/users/:name', access: 'token', handler: people.showUser },
    { method: 'PATCH', path: '/v1/users/:name', access: 'admin', handler: people.changeUser },
    { method: 'DELETE', path: '/v1/users/:name', access: 'admin', handler: people.removeUser },
    { method: 'GET', path: '/v1/users/:name/tokens', access: 'token', handler: people.listTokens },
    { method: 'GET', path: '/v1/tokens', access: 'token', handler: people.listTokens },
    { method: 'POST', path: '/v1/tokens', access: 'admin', handler: people.createToken },
    { method: 'DELETE', path: '/v1/tokens/:id', access: 'token', handler: people.revokeToken },
    { method: 'GET', path: '/v1/robots', access: 'token', handler: people.listRobots },
    { method: 'POST', path: '/v1/robots', access: 'admin', handler: people.addRobot },
    { method: 'DELETE', path: '/v1/robots/:name', access: 'admin', handler: people.removeRobot },
    { method: 'POST', path: '/v1/transfers', access: 'admin', handler: people.transferEntity },
    { method: 'PUT', path: '/v1/privacy', access: 'admin', handler: sharing.setPrivate },
    { method: 'GET', path: '/v1/policy', access: 'read', handler: manage.showPolicy },
    { method: 'PUT', path: '/v1/policy', access: 'keys', handler: manage.setPolicy },
    { method: 'GET', path: '/v1/usage', access: 'token', handler: quotas.usage },
    { method: 'PUT', path: '/v1/quota', access: 'admin', handler: quotas.set },
    { method: 'GET', path: '/v1/stats', access: 'read', handler: popularity.stats },
    { method: 'GET', path: '/v1/stars', access: 'token', handler: popularity.stars },
    { method: 'PUT', path: '/v1/stars', access: 'token', handler: popularity.star },
    { method: 'DELETE', path: '/v1/stars', access: 'token', handler: popularity.unstar },
    { method: 'GET', path: '/v1/shares', access: 'token', handler: shares.list },
    { method: 'POST', path: '/v1/shares', access: 'push', handler: shares.create },
    { method: 'DELETE', path: '/v1/shares/:id', access: 'token', handler: shares.revoke },
    { method: 'GET', path: '/v1/audit', access: 'admin', handler: auditHandler(deps) },
    { method: 'POST', path: '/v1/first-admin', access: 'open', limit: 'login', handler: manage.firstAdmin },

    { method: 'GET', path: '/v1/grants', access: 'admin', handler: sharing.grants },
    { method: 'PUT', path: '/v1/grants', access: 'admin', handler: sharing.grant },
    { method: 'PUT', path: '/v1/frozen', access: 'admin', handler: sharing.setFrozen },

    { method: 'GET', path: '/v1/teams', access: 'token', handler: teams.list },
    { method: 'POST', path: '/v1/teams', access: 'admin', handler: teams.create },
    { method: 'GET', path: '/v1/teams/:name', access: 'token', handler: teams.show },
    { method: 'PATCH', path: '/v1/teams/:name', access: 'admin', handler: teams.change },
    { method: 'DELETE', path: '/v1/teams/:name', access: 'admin', handler: teams.delete },
    { method: 'PUT', path: '/v1/teams/:name/members/:user', access: 'admin', handler: teams.setMember },
    { method: 'DELETE', path: '/v1/teams/:name/members/:user', access: 'admin', handler: teams.removeMember },
    { method: 'POST', path: '/v1/teams/:name/join', access: 'token', handler: teams.join },
    { method: 'GET', path: '/v1/teams/:name/invitations', access: 'admin', handler: teams.invitations },
    { method: 'POST', path: '/v1/teams/:name/invitations', access: 'admin', handler: teams.invite },
    { method: 'DELETE', path: '/v1/teams/:name/invitations/:id', access: 'admin', handler: teams.revokeInvitation },
    { method: 'POST', path: '/v1/invitations', access: 'token', handler: teams.accept },

    { method: 'GET', path: '/v1/keys', access: 'token', handler: keys.list },
    { method: 'GET', path: '/v1/keys/:fingerprint', access: 'read', handler: keys.show },
    { method: 'DELETE', path: '/v1/keys/:fingerprint', access: 'token', handler: keys.remove },
    { method: 'POST', path: '/v1/keys/:fingerprint/challenge', access: 'keys', handler: keys.challenge },
    { method: 'POST', path: '/v1/keys/:fingerprint/claim', access: 'keys', handler: keys.claim },

    { method: 'POST', path: '/v1/exports', access: 'admin', handler: moving.startExport },
    { method: 'GET', path: '/v1/exports/rows', access: 'admin', handler: moving.exportRows },
    { method: 'GET', path: '/v1/exports/blobs/:digest', access: 'admin', handler: moving.exportBlob },
    { method: 'GET', path: '/v1/imports', access: 'admin', handler: moving.listImports },
    { method: 'POST', path: '/v1/imports', access: 'admin', handler: moving.openImport },
    { method: 'POST', path: '/v1/imports/:id', access: 'admin', handler: moving.finishImport },
    { method: 'DELETE', path: '/v1/imports/:id', access: 'admin', handler: moving.abortImport },
    { method: 'POST', path: '/v1/imports/:id/rows', access: 'admin', handler: moving.importRows },
    { method: 'POST', path: '/v1/imports/:id/blobs/:digest', access: 'admin', handler: moving.wantBlob },
    { method: 'PUT', path: '/v1/imports/:id/blobs/:digest', access: 'admin', handler: moving.importBlob },
    { method: 'POST', path: '/v1/imports/:id/blobs/:digest/parts', access: 'admin', handler: moving.finishParts },
    { method: 'PUT', path: '/v1/imports/:id/blobs/:digest/parts/:part', access: 'admin', handler: moving.importPart },
  ]
  return defineRoutes({ routes, owns: [], described, onError, deps })
}
