/**
 * What `apptainer pull shub://` asks (protocol.md §8, apptainer-wire.md §6). A folder of its own, since
 * it is a wire language of its own: other paths, no envelope, no login (docs/decisions/0001).
 */
import type { Config } from '../config.ts'
import { absent } from '../core/access.ts'
import type { Catalog } from '../core/catalog.ts'
import { hashOf, parseRef, printRef } from '../core/ref.ts'
import { isRegistryError } from '../errors.ts'
import type { Ctx } from '../http/context.ts'
import { onError } from '../http/json-resp.ts'
import { originOf } from '../http/origin.ts'
import { defineRoutes, type Route, type RouteDeps } from '../http/routes.ts'
import { described } from './about.ts'
import { reply } from '../http/reply.ts'

/** The hash after `@`, with or without the name of the algorithm. */
const DIGEST = /@(?:sha256[.:])?([0-9a-f]{64})$/i

export function shubRoutes(
  deps: RouteDeps & {
    config: Pick<Config, 'publicUrl' | 'trustedProxies'>
    catalog: Catalog
  },
) {
  const { catalog, config } = deps

  /**
   * What stands after `/api/container/`, as a ref of the library: `collection/name`, then `:tag`,
   * `@digest`, both (the digest decides) or neither (`latest`).
   */
  function refOf(c: Ctx) {
    const { entity = '', collection = '', name = '' } = c.req.param()
    const digest = DIGEST.exec(name)?.[1]
    const bare = digest === undefined ? name : name.replace(/[:@].*$/, '')
    const last = digest === undefined ? name : `${bare}:${hashOf(digest.toLowerCase())}`
    // parameters come decoded, and parseRef decodes once
    const path = [entity, collection, last].map(encodeURIComponent).join('/')
    return parseRef(path, { shortRefs: 'default' })
  }

  /**
   * The manifest of a public image; all else is absent, whoever asks (R26). `image` is a plain
   * download of the library by hash: it needs no token, is the same bytes should the tag move
   * meanwhile, and is what counts as the pull.
   */
  async function manifest(c: Ctx): Promise<Response> {
    const origin = originOf(c, config)
    try {
      const ref = refOf(c)
      const image = await catalog.image(ref, c.req.query('arch') || null, null, 'download')
      const { entityName: entity, collectionName: collection, containerName: container } = image
      const { digest } = image
      const file = printRef({ entity, collection, container }, { kind: 'digest', digest })
      const hash = hashOf(digest)
      const body = {
        image: `${origin}/v1/imagefile/${file}`,
        name: container,
        tag: ref.selector.kind === 'tag' ? ref.selector.tag : hash,
        version: hash,
        // the client's cache goes by it: it must change with the content
        commit: digest,
      }
      // R33: an address taken from the request must not be cached for others
      return reply(JSON.stringify(body), 200, {
        'Content-Type': 'application/json',
        'Cache-Control': 'no-store',
      })
    } catch (error) {
      const refused = ['invalid', 'unauthenticated', 'denied'] as const
      if (refused.some((code) => isRegistryError(error, code))) throw absent('image')
      throw error
    }
  }

  const routes: Route[] = [
    {
      method: 'GET',
      path: '/api/container/:collection/:name',
      access: 'open',
      handler: manifest,
    },
    {
      method: 'GET',
      path: '/:entity/api/container/:collection/:name',
      access: 'open',
      handler: manifest,
    },
  ]
  return defineRoutes({ routes, owns: ['/api/*'], described, onError, deps })
}
