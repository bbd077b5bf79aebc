/** Pages for people, and the two addresses that watch over the process. */
import { identify } from '../core/access.ts'
import { parsePath } from '../core/ref.ts'
import { isRegistryError, RegistryError, STATUS } from '../errors.ts'
import type { Config } from '../config.ts'
import type { Ctx } from '../http/context.ts'
import { originOf } from '../http/origin.ts'
import { defineRoutes, type Route, type RouteDeps } from '../http/routes.ts'
import type { Assets, BlobStore, Clock, Database, TokenVerifier } from '../ports.ts'
import { described } from './about.ts'
import { docsHandlers } from './docs.ts'
import { containerPage, homePage, tokensPage } from './pages.ts'
import { reply } from '../http/reply.ts'

export type WebDeps = RouteDeps & {
  config: Pick<Config, 'publicUrl' | 'trustedProxies'>
  database: Database
  blobs: BlobStore
  clock: Clock
  verifier: TokenVerifier
  registryId: string
  /** Makes the OpenAPI document. */
  document: () => object
  /** What the viewer at /docs is made of; absent where it is not offered. */
  assets?: Assets
}

const HEADERS = {
  'Content-Type': 'text/html; charset=utf-8',
  'Content-Security-Policy':
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
  // R33: pages hold addresses taken from the request
  'Cache-Control': 'no-store',
}

export function webRoutes(deps: WebDeps) {
  const { config, database, blobs } = deps
  const docs = docsHandlers(deps)
  const show = async (c: Ctx, page: ReturnType<typeof homePage>) =>
    reply(String(await page), 200, HEADERS)

  /**
   * `keyserver login` asks for this very address with Bearer, or Basic with the token as password,
   * and wants 200 only when it is good (protocol.md §1.7).
   */
  async function judge(c: Ctx): Promise<void> {
    const header = c.req.header('authorization') ?? ''
    const basic = /^basic\s+(\S+)$/i.exec(header)?.[1]
    const claims =
      basic === undefined
        ? await deps.authenticate(c)
        : await deps.verifier.verify(passwordOf(basic))
    if (claims !== null) identify(claims, await database.tokens.standing(claims, deps.clock.now()))
    else if (basic !== undefined)
      throw new RegistryError('unauthenticated', 'The password must be a token of this registry.', {
        subject: 'token',
      })
  }

  const routes: Route[] = [
    {
      method: 'GET',
      path: '/',
      access: 'open',
      handler: async (c) => {
        await judge(c)
        return show(c, homePage(originOf(c, config)))
      },
    },
    {
      method: 'GET',
      path: '/auth/tokens',
      access: 'open',
      handler: (c) => show(c, tokensPage(originOf(c, config))),
    },
    {
      method: 'GET',
      path: '/library/:entity/:collection/:container',
      access: 'open',
      handler: (c) => {
        const { entity, collection, container } = c.req.param()
        return show(
          c,
          containerPage(parsePath(`${entity}/${collection}/${container}`, 3).join('/')),
        )
      },
    },
    { method: 'GET', path: '/openapi.json', access: 'open', handler: docs.document },
    { method: 'GET', path: '/docs', access: 'open', handler: docs.page },
    { method: 'GET', path: '/docs/:file', access: 'open', handler: docs.file },
    { method: 'GET', path: '/healthz', access: 'open', handler: (c) => c.json({ status: 'ok' }) },
    {
      method: 'GET',
      path: '/readyz',
      access: 'open',
      handler: async (c) => {
        const checks = {
          database: await answers(() => database.ping()),
          blobs: await answers(() => blobs.ping()),
          // R10: bytes of another registry would look like orphans
          registry: await answers(async () => {
            if ((await blobs.readId()) !== deps.registryId)
              throw new RegistryError(
                'unavailable',
                'the blob store belongs to another registry, or to none',
              )
          }),
        }
        const ready = Object.values(checks).every((result) => result === 'ok')
        return c.json({ status: ready ? 'ok' : 'failing', checks }, ready ? 200 : 503)
      },
    },
  ]
  return defineRoutes({ routes, owns: ['/*'], described, onError, deps })
}

function passwordOf(basic: string): string {
  try {
    const text = atob(basic)
    return text.slice(text.indexOf(':') + 1)
  } catch {
    return ''
  }
}

/** `ok`, or a word an operator can act on; never a path or SQL. */
async function answers(check: () => Promise<void>): Promise<string> {
  try {
    await check()
    return 'ok'
  } catch (error) {
    return isRegistryError(error) ? error.message : 'does not answer; the log says why'
  }
}

function onError(error: RegistryError, c: Ctx): Response {
  const status = STATUS[error.code]
  if (error.retryAfter !== undefined) c.header('Retry-After', String(error.retryAfter))
  if (status === 401) c.header('WWW-Authenticate', 'Bearer, Basic realm="sreg-lite"')
  return c.json({ error: { code: status, message: error.message } }, status as 400)
}
