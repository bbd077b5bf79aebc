/** What Bun.serve and Deno.serve have in common: the limits and refusals that they leave to us. */
import { brokenBody, isTrusted } from '../../src/app.ts'
import type { Peer } from '../../src/ports.ts'
import { envelope } from './answers.ts'
import type { ListenOptions } from './platform.ts'
import { atEndOfTurn } from './turn.ts'

const HEADER_BYTES = 16 * 1024
/** Nothing else may stand in a Host: Deno would take `a/b` for a host and a path. */
const HOST = /^[\w.:[\]-]+$/

export type WebListener = {
  /** `ended` is called before the last byte is handed over, if the answer is a promise. */
  answer(request: Request, peer: Peer, ended?: () => void): Response | Promise<Response>
  /** The answer to a failure of the runtime or of ours; it is logged. */
  failed(error?: Error): Response
  /** Refuses what comes from now on; resolves when everything has been answered. */
  drain(): Promise<void>
}

/**
 * Answers requests with the app. Refuses large headers, a missing or malformed Host, and more than
 * `maxConnections` requests of one address at a time; breaks connections that the app gave up.
 */
export function webListener(options: ListenOptions): WebListener {
  const { fetch, log } = options
  const inFlight = limitRequests(options)
  let running = 0
  let drained: (() => void) | null = null

  async function ask(request: Request, peer: Peer, ended?: () => void): Promise<Response> {
    const flight = inFlight(peer.address)
    if (flight === null) return broken(503, 'Too many requests at once from your address')
    running++
    const end = () => {
      flight.end()
      if (--running === 0) drained?.()
    }
    let hungUp = false
    let sent: Promise<void> | null = null
    try {
      const response = await fetch(request, {
        peer,
        hangUp: () => void (hungUp = true),
        ...(ended && { lastByte: ended }),
        sending: (promise) => void (sent = promise),
      })
      // a stream is under way already
      if (sent === null) await new Promise<void>(atEndOfTurn)
      if (!hungUp) return response
      const { status, headers } = response
      return new Response(brokenBody(await response.text()), { status, headers })
    } finally {
      if (sent === null) {
        ended?.()
        end()
      } else void (sent as Promise<void>).then(end)
    }
  }

  return {
    answer(request, peer, ended) {
      if (drained !== null) return broken(503, 'The registry is stopping; try again in a moment')
      if (headerBytes(request) > HEADER_BYTES)
        return refusal(431, 'The headers are larger than 16 KiB')
      const url = URL.parse(request.url)
      // HTTP/2, which Deno speaks over TLS only, has no Host.
      const host = request.headers.get('host') ?? (peer.encrypted ? (url?.host ?? '') : '')
      if (url === null || !HOST.test(host))
        return refusal(400, 'The address or Host of this request is malformed')
      // Deno leaves `..` and the like as they came.
      return ask(url.href === request.url ? request : new Request(url, request), peer, ended)
    },
    failed(error) {
      // Streams that were broken off on purpose come by here, too, without a reason.
      if (error !== undefined) log.event('error', 'refused', { reason: String(error) })
      return refusal(500, 'internal error')
    },
    drain: () =>
      new Promise((resolve) => {
        drained = resolve
        if (running === 0) resolve()
      }),
  }
}

function headerBytes(request: Request): number {
  let bytes = request.url.length
  for (const [name, value] of request.headers) bytes += name.length + value.length + 4
  return bytes
}

function refusal(status: number, message: string): Response {
  return Response.json(envelope(status, message), { status })
}

/** The request may be a range, whose refusal must not end well (R5). */
function broken(status: number, message: string): Response {
  return new Response(brokenBody(JSON.stringify(envelope(status, message))), {
    status,
    headers: { 'Content-Type': 'application/json' },
  })
}

/** Counts the requests of each address that are being answered; null for one too many (R48). */
function limitRequests({ trustedProxies, maxConnections, log }: ListenOptions) {
  const open = new Map<string, number>()
  const free = { end: () => {} }
  return (address: string | null): { end(): void } | null => {
    if (address === null || isTrusted(address, trustedProxies)) return free
    const count = (open.get(address) ?? 0) + 1
    if (count > maxConnections) {
      log.event('warn', 'connection-limit', { address })
      return null
    }
    open.set(address, count)
    return {
      end() {
        const left = (open.get(address) ?? 1) - 1
        if (left === 0) open.delete(address)
        else open.set(address, left)
      },
    }
  }
}
