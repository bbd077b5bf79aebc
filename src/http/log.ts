/** One log line per request, its id, and the headers that every answer carries. */
import type { Clock, Ids, Log } from '../ports.ts'
import { newEntry, type Bindings, type Connection, type LogEntry } from './context.ts'
import { addressOf } from './origin.ts'

type Answer = Response | Promise<Response>

/**
 * Wraps the app's fetch. The request's id is the caller's X-Request-Id if that is sane, else a new
 * one; it is sent back. One line is logged when the request ends (R34: route pattern and ids, never
 * the URL); a Transfer that writes past Hono settles its answer only
 * when the response has closed, one that streams says when its bytes have left.
 */
export function logged(
  fetch: (request: Request, bindings: Bindings) => Answer,
  deps: {
    log: Log
    clock: Clock
    ids: Ids
    trustedProxies: readonly string[]
    /** Told of every refusal, `denied` or `unauthenticated`, before its answer leaves. */
    refused?: (request: Request, bindings: Bindings) => void
  },
): (request: Request, connection: Connection) => Answer {
  const { log, clock, ids } = deps

  return (request, connection) => {
    const startedAt = clock.now().getTime()
    const given = request.headers.get('x-request-id')
    const requestId = given !== null && /^[A-Za-z0-9._-]{1,64}$/.test(given) ? given : ids.next()
    // Asked for now: a socket forgets its peer when it closes.
    const entry = newEntry(requestId, addressOf(request.headers, connection.peer, deps))
    const headers = {
      'X-Request-Id': requestId,
      'Referrer-Policy': 'no-referrer',
      'X-Content-Type-Options': 'nosniff',
    }
    connection.putHeaders?.(headers)
    const bindings: Bindings = { ...connection, entry }

    const write = (response: Response): void => {
      const failed = entry.code === 'internal' || entry.code === 'unavailable'
      log.event(failed ? 'error' : 'info', 'request', {
        method: request.method,
        route: entry.route,
        status: entry.status ?? response.status,
        ms: clock.now().getTime() - startedAt,
        bytesIn: entry.bytesIn ?? undefined,
        bytesOut: entry.bytesOut ?? undefined,
        user: entry.userId ?? undefined,
        token: entry.tokenId ?? undefined,
        ticket: entry.ticket ?? undefined,
        address: entry.address,
        request: requestId,
        code: entry.code ?? undefined,
        reason: entry.reason ?? undefined,
      })
    }
    const finish = (response: Response): Response => {
      if (entry.code === 'denied' || entry.code === 'unauthenticated')
        deps.refused?.(request, bindings)
      if (entry.sent === null) write(response)
      else {
        connection.sending?.(entry.sent)
        void entry.sent.then(() => write(response))
      }
      return connection.putHeaders === undefined
        ? withHeaders(response, { ...entry.told, ...headers })
        : response
    }
    const fail = (error: unknown): Response => finish(internal(error, entry))

    try {
      const response = fetch(request, bindings)
      return response instanceof Promise ? response.then(finish, fail) : finish(response)
    } catch (error) {
      return fail(error)
    }
  }
}

function withHeaders(response: Response, headers: Record<string, string>): Response {
  try {
    for (const name in headers) response.headers.set(name, headers[name] ?? '')
    return response
  } catch {
    // Headers of Response.redirect() and of fetched responses cannot be changed.
    return withHeaders(new Response(response.body, response), headers)
  }
}

/** The last resort: what escaped every error handler below. */
function internal(error: unknown, entry: LogEntry): Response {
  entry.code = 'internal'
  entry.reason = error instanceof Error ? (error.stack ?? error.message) : String(error)
  return new Response(`internal error, request ${entry.requestId}`, { status: 500 })
}
