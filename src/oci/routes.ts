/** OCI distribution on one screen. Names have any depth, so they are matched by what follows them. */
import type { Manifests } from '../core/manifests.ts'
import type { OciLogins } from '../core/oci-access.ts'
import type { OciUploads } from '../core/oci-uploads.ts'
import type { Tallies } from '../core/tallies.ts'
import type { Ctx } from '../http/context.ts'
import type { OriginConfig } from '../http/origin.ts'
import { defineRoutes, type Route, type RouteDeps } from '../http/routes.ts'
import type { Tickets } from '../http/ticket.ts'
import type { Transfer } from '../http/transfer.ts'
import type { BlobStore, Clock } from '../ports.ts'
import { described } from './about.ts'
import { blobHandlers } from './blobs.ts'
import { errorAnswers } from './errors.ts'
import { loginHandlers } from './login.ts'
import { manifestHandlers } from './manifests.ts'
import { referrersHandler } from './referrers.ts'
import { listHandlers } from './tags.ts'
import { uploadHandlers } from './uploads.ts'

export type OciDeps = RouteDeps & {
  config: OriginConfig
  logins: OciLogins
  manifests: Manifests
  uploads: OciUploads
  blobs: BlobStore
  transfer: Transfer
  tickets: Tickets
  clock: Clock
  tallies: Tallies
  /** Work after the answer, if there is any. */
  defer: (c: Ctx, work: Promise<unknown> | null) => void
}

export function ociRoutes(deps: OciDeps) {
  const login = loginHandlers(deps)
  const blobs = blobHandlers(deps)
  const uploads = uploadHandlers(deps)
  const manifests = manifestHandlers(deps)
  const lists = listHandlers(deps)

  // the first that matches counts: uploads come before blobs
  // prettier-ignore
  const routes: Route[] = [
    { method: 'GET', path: '/v2', access: 'read', handler: login.ping },
    { method: 'GET', path: '/v2/token', access: 'read', limit: 'login', handler: login.token },
    { method: 'GET', path: '/v2/_catalog', access: 'read', handler: lists.repositories },

    { method: 'POST', path: '/v2/:name{.+}/blobs/uploads', access: 'push', handler: uploads.open },
    { method: 'GET', path: '/v2/:name{.+}/blobs/uploads/:id', access: 'push', grace: 'oci', handler: uploads.status },
    { method: 'PATCH', path: '/v2/:name{.+}/blobs/uploads/:id', access: 'push', grace: 'oci', handler: uploads.add },
    { method: 'PUT', path: '/v2/:name{.+}/blobs/uploads/:id', access: 'push', grace: 'oci', handler: uploads.close },
    { method: 'DELETE', path: '/v2/:name{.+}/blobs/uploads/:id', access: 'push', grace: 'oci', handler: uploads.cancel },

    { method: 'GET', path: '/v2/:name{.+}/blobs/:digest', access: 'read', handler: blobs.get },
    { method: 'DELETE', path: '/v2/:name{.+}/blobs/:digest', access: 'delete', handler: blobs.remove },

    { method: 'GET', path: '/v2/:name{.+}/manifests/:reference', access: 'read', handler: manifests.get },
    { method: 'PUT', path: '/v2/:name{.+}/manifests/:reference', access: 'push', grace: 'oci', handler: manifests.put },
    { method: 'DELETE', path: '/v2/:name{.+}/manifests/:reference', access: 'delete', handler: manifests.remove },

    { method: 'GET', path: '/v2/:name{.+}/tags/list', access: 'read', handler: lists.tags },
    { method: 'GET', path: '/v2/:name{.+}/referrers/:digest', access: 'read', handler: referrersHandler(deps) },
  ]
  return defineRoutes({
    routes,
    owns: ['/v2/*'],
    described,
    onError: errorAnswers(deps.config),
    deps,
  })
}
