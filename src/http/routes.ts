/**
 * Turns a protocol's route table into a Hono app: access is checked per row, never by `use('*')`,
 * because protocols share path prefixes (decision: protocol folders, one table each).
 */
import { Hono } from 'hono'
import type { Claims, Scope } from '../core/model.ts'
import { isRegistryError, RegistryError } from '../errors.ts'
import type { Described } from './about.ts'
import type { Ctx, Env } from './context.ts'
import type { LimitName, Limits } from './limit.ts'
import type { DescribedRoutes } from './openapi.ts'

export type Method = 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE' | 'PATCH'

/**
 * Who may call a row. `open`: anybody, credentials are not looked at. `ticket`: the handler opens a
 * ticket, credentials are not looked at. `read`: anybody, but a token that is sent must be valid.
 * `token`: any valid token. A scope: a valid token that carries the scope.
 */
export type Access = 'open' | 'ticket' | 'read' | 'token' | Exclude<Scope, 'pull'>

export type Handler = (c: Ctx) => Response | Promise<Response>

export type Route = {
  method: Method
  /** A Hono pattern; it is also the `route` of the log line. */
  path: string
  access: Access
  /** R24: may go on with a token that has ended; `:id` is the image, the place of a tag, or OCI's upload. */
  grace?: 'upload' | 'tag' | 'oci'
  /** What limits it besides requests per address. */
  limit?: LimitName
  handler: Handler
}

/** Claims of a request; those of an ended token too when `expired` is set. */
export type Authenticate = (c: Ctx, options?: { expired?: boolean }) => Promise<Claims | null>

export type RouteDeps = {
  authenticate: Authenticate
  limits: Limits
}

/**
 * Builds the app of one protocol. Rows match in the order of the table. A known path asked with
 * another method is `unsupported` (405) with an Allow header; any other path that matches one of
 * `owns` (Hono patterns, such as `/v1/*`) is `not_found`. Both are the same for every caller and
 * never depend on what exists (R28). HEAD is served by the GET row unless the table has its own;
 * handlers of GET rows see `HEAD` in `c.req.method` and must not open a body for it.
 *
 * The app carries its `table`, from which GET /openapi.json is made.
 *
 * Whatever a row throws reaches `onError` as a RegistryError; anything else becomes `internal`
 * with the request's id as its only content, and its stack goes to the log line.
 */
export function defineRoutes(table: {
  routes: readonly Route[]
  owns: readonly string[]
  /** What GET /openapi.json says of the routes. */
  described?: Described
  onError: (error: RegistryError, c: Ctx) => Response | Promise<Response>
  deps: RouteDeps
}): Hono<Env> & { table: DescribedRoutes } {
  const { routes, owns, onError, deps } = table
  const described = table.described ?? { name: '', about: '', routes: {} }
  const app = new Hono<Env>({ strict: false })
  const { limits } = deps
  const guarded = (path: string, handler: Handler): Handler => {
    const fail = (error: unknown, c: Ctx) => onError(asRegistryError(error, c), c)
    // Errors are caught here and not by app.onError: that would wrap every handler once more when
    // the app is mounted, and synchronous handlers stay synchronous this way.
    return (c) => {
      c.env.entry.route = path
      try {
        const response = handler(c)
        return response instanceof Promise
          ? response.catch((error: unknown) => fail(error, c))
          : response
      } catch (error) {
        return fail(error, c)
      }
    }
  }

  const methodsOf = new Map<string, Map<Method, Handler>>()
  for (const row of routes) {
    const { method, path } = row
    const methods = methodsOf.get(path) ?? new Map<Method, Handler>()
    if (methods.has(method)) throw new Error(`Two rows for ${method} ${path}`)
    methodsOf.set(path, methods.set(method, withAccess(row, deps)))
  }
  const refusals = new Map<string, Handler>()
  for (const [path, methods] of methodsOf)
    refusals.set(path, limited(limits, refuseMethod(methods, onError)))

  for (const { method, path } of routes) {
    const methods = methodsOf.get(path)
    const handler = methods?.get(method)
    const refuse = refusals.get(path)
    if (methods === undefined || handler === undefined || refuse === undefined) continue
    if (method === 'HEAD' || (method === 'GET' && methods.has('HEAD'))) {
      // Hono dispatches HEAD as GET and never looks for a HEAD row, so one GET row serves both.
      if (method === 'GET' || !methods.has('GET')) {
        const get = methods.get('GET') ?? refuse
        const head = methods.get('HEAD') ?? get
        app.get(
          path,
          guarded(path, (c) => (c.req.method === 'HEAD' ? head(c) : get(c))),
        )
      }
    } else app.on(method, path, guarded(path, handler))
  }
  for (const [path, refuse] of refusals) app.all(path, guarded(path, refuse))
  for (const path of owns)
    app.all(
      path,
      guarded(
        path,
        limited(limits, () => {
          throw new RegistryError('not_found', 'There is nothing at this address', {
            subject: 'route',
          })
        }),
      ),
    )
  return Object.assign(app, { table: { routes, described } })
}

/** Counts the request for its address first; where that is known at once, nobody waits. */
function limited(limits: Limits, handler: Handler): Handler {
  return (c) => {
    const asked = limits.request(c)
    return asked instanceof Promise ? asked.then(() => handler(c)) : handler(c)
  }
}

function withAccess(
  { access, limit, grace, handler }: Route,
  { authenticate, limits }: RouteDeps,
): Handler {
  // A range that is answered with 429 would become image bytes (R5), and tickets are few.
  if (access === 'ticket')
    return (c) => {
      c.set('claims', null)
      return handler(c)
    }
  const counted = (work: Handler): Handler => {
    const failed = async (error: unknown, c: Ctx): Promise<never> => {
      throw await limits.refused(c, error, limit)
    }
    return limited(limits, (c) => {
      try {
        const response = work(c)
        return response instanceof Promise
          ? response.catch((error: unknown) => failed(error, c))
          : response
      } catch (error) {
        return failed(error, c)
      }
    })
  }
  if (access === 'open')
    return counted((c) => {
      c.set('claims', null)
      return handler(c)
    })
  return counted(async (c) => {
    const known = await authenticate(c, grace === undefined ? {} : { expired: true })
    const claims =
      known === null || grace === undefined
        ? known
        : { ...known, grace: { of: grace, id: c.req.param('id') ?? '', until: known.expiresAt } }
    c.set('claims', claims)
    if (claims !== null) {
      c.env.entry.userId = claims.userId
      c.env.entry.tokenId = claims.tokenId
    }
    if (access !== 'read') demand(access, claims)
    await limits.call(c, claims, limit)
    let stands = true
    try {
      return await handler(c)
    } catch (error) {
      stands = !isRegistryError(error, 'unauthenticated')
      throw error
    } finally {
      if (stands) limits.called(c, claims)
    }
  })
}

function demand(access: Exclude<Access, 'open' | 'ticket' | 'read'>, claims: Claims | null): void {
  if (claims === null)
    throw new RegistryError(
      'unauthenticated',
      'This needs a token: log in first, for example with apptainer remote login',
      { subject: 'token' },
    )
  if (access !== 'token' && !claims.scopes.includes(access))
    throw new RegistryError(
      'denied',
      `This needs a token with the scope ${access}; yours has ${claims.scopes.join(', ') || 'none'}`,
      { subject: 'token' },
    )
}

function refuseMethod(
  methods: ReadonlyMap<Method, Handler>,
  onError: (error: RegistryError, c: Ctx) => Response | Promise<Response>,
): Handler {
  const names = new Set<string>(methods.keys())
  if (names.has('GET')) names.add('HEAD')
  const allow = [...names].sort().join(', ')
  return async (c) => {
    c.env.entry.code = 'unsupported'
    const error = new RegistryError(
      'unsupported',
      `${c.req.method} does not work at this address; it answers ${allow}`,
      { subject: 'route' },
    )
    const response = await onError(error, c)
    response.headers.set('Allow', allow)
    return response
  }
}

function asRegistryError(error: unknown, c: Ctx): RegistryError {
  const { entry } = c.env
  if (isRegistryError(error)) {
    entry.code = error.code
    entry.refusal = error.message
    if (error.code === 'internal' || error.code === 'unavailable') entry.reason = trace(error)
    else if (error.cause instanceof Error) entry.reason = error.cause.message
    return error
  }
  entry.code = 'internal'
  entry.reason = trace(error)
  return new RegistryError('internal', `internal error, request ${entry.requestId}`, {
    subject: 'request',
  })
}

function trace(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const cause = error.cause === undefined ? '' : `\ncaused by: ${trace(error.cause)}`
  return (error.stack ?? String(error)) + cause
}
