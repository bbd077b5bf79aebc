/** The Sylabs library API on one screen: every address, who may call it, who answers it. */
import type { Config } from '../config.ts'
import type { Catalog } from '../core/catalog.ts'
import type { Shares } from '../core/shares.ts'
import type { Tallies } from '../core/tallies.ts'
import type { JWK } from '../core/tokens.ts'
import type { Uploads } from '../core/uploads.ts'
import type { Ctx } from '../http/context.ts'
import { onError } from '../http/json-resp.ts'
import { defineRoutes, type Route, type RouteDeps } from '../http/routes.ts'
import type { Tickets } from '../http/ticket.ts'
import type { Transfer } from '../http/transfer.ts'
import type { BlobStore, Clock, Database, Ended } from '../ports.ts'
import { described } from './about.ts'
import { catalogHandlers } from './catalog.ts'
import { discoveryHandlers } from './discovery.ts'
import { imagefileHandlers } from './imagefile.ts'

export type LibraryDeps = RouteDeps & {
  config: Pick<Config, 'publicUrl' | 'trustedProxies' | 'shortRefs'>
  version: string
  database: Database
  blobs: BlobStore
  clock: Clock
  ended: Ended
  tickets: Tickets
  transfer: Transfer
  catalog: Catalog
  uploads: Uploads
  shares: Shares
  tallies: Tallies
  /** Public keys (JWK) of the registry's tokens. */
  keys: JWK[]
  /** Work after the answer, if there is any. */
  defer: (c: Ctx, work: Promise<unknown> | null) => void
}

export function libraryRoutes(deps: LibraryDeps) {
  const discovery = discoveryHandlers(deps)
  const catalog = catalogHandlers(deps)
  const file = imagefileHandlers(deps)

  // prettier-ignore
  const routes: Route[] = [
    { method: 'GET', path: '/assets/config/config.prod.json', access: 'open', handler: discovery.config },
    { method: 'GET', path: '/version', access: 'open', handler: discovery.version },
    { method: 'GET', path: '/.well-known/jwks.json', access: 'open', handler: discovery.keys },
    { method: 'GET', path: '/v1/token-status', access: 'open', handler: discovery.tokenStatus },
    { method: 'GET', path: '/v1/rbac/users/current', access: 'open', handler: discovery.currentUser },
    { method: 'GET', path: '/v1/oci-redirect', access: 'open', handler: discovery.ociRedirect },
    { method: 'POST', path: '/v1/build', access: 'open', handler: discovery.build },
    { method: 'POST', path: '/v1/build-context', access: 'open', handler: discovery.build },

    { method: 'GET', path: '/v1/entities', access: 'read', handler: catalog.ownEntities },
    { method: 'POST', path: '/v1/entities', access: 'push', handler: catalog.createEntity },
    { method: 'GET', path: '/v1/entities/*', access: 'read', handler: catalog.entity },
    { method: 'POST', path: '/v1/collections', access: 'push', handler: catalog.createCollection },
    { method: 'GET', path: '/v1/collections/*', access: 'read', handler: catalog.collection },
    { method: 'DELETE', path: '/v1/collections/*', access: 'delete', handler: catalog.deleteCollection },
    { method: 'POST', path: '/v1/containers', access: 'push', handler: catalog.createContainer },
    { method: 'GET', path: '/v1/containers/*', access: 'read', handler: catalog.container },
    { method: 'DELETE', path: '/v1/containers/*', access: 'delete', handler: catalog.deleteContainer },
    { method: 'POST', path: '/v1/images', access: 'push', handler: catalog.createImage },
    { method: 'GET', path: '/v1/images/*', access: 'read', handler: catalog.image },
    { method: 'DELETE', path: '/v1/images/*', access: 'delete', handler: catalog.deleteImage },
    { method: 'GET', path: '/v1/tags/:id', access: 'read', grace: 'tag', handler: catalog.tags },
    { method: 'POST', path: '/v1/tags/:id', access: 'push', grace: 'tag', handler: catalog.setTag },
    { method: 'GET', path: '/v2/tags/:id', access: 'read', grace: 'tag', handler: catalog.archTags },
    { method: 'POST', path: '/v2/tags/:id', access: 'push', grace: 'tag', handler: catalog.setTag },
    { method: 'GET', path: '/v1/search', access: 'read', limit: 'search', handler: catalog.search },

    { method: 'GET', path: '/v1/imagefile/*', access: 'read', handler: file.download },
    { method: 'POST', path: '/v1/imagefile/*', access: 'push', handler: file.uploadWhole },
    { method: 'POST', path: '/v2/imagefile/:id', access: 'push', handler: file.openSingle },
    { method: 'PUT', path: '/v2/imagefile/:id/_complete', access: 'push', grace: 'upload', handler: file.completeSingle },
    { method: 'POST', path: '/v2/imagefile/:id/_multipart', access: 'push', handler: file.openParts },
    { method: 'PUT', path: '/v2/imagefile/:id/_multipart', access: 'push', grace: 'upload', handler: file.openPart },
    { method: 'PUT', path: '/v2/imagefile/:id/_multipart_complete', access: 'push', grace: 'upload', handler: file.completeParts },
    { method: 'PUT', path: '/v2/imagefile/:id/_multipart_abort', access: 'push', grace: 'upload', handler: file.abortParts },
    { method: 'GET', path: '/share', access: 'open', handler: file.share },
    { method: 'GET', path: '/v1/blob', access: 'ticket', handler: file.blob },
    { method: 'PUT', path: '/v1/blob', access: 'ticket', handler: file.putWhole },
    { method: 'PUT', path: '/v1/part', access: 'ticket', handler: file.putPart },
  ]
  const owns = ['/v1/*', '/v2/imagefile/*', '/v2/tags/*', '/assets/*']
  return defineRoutes({ routes, owns, described, onError, deps })
}
