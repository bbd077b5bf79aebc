/** Serves the app over node:http(s): limits on connections and on slow or endless peers (R48). */
import {
  createServer,
  ServerResponse,
  type IncomingMessage,
  type OutgoingHttpHeaders,
  type Server,
} from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { BlockList, isIPv6, type AddressInfo, type Socket } from 'node:net'
import { getRequestListener } from '@hono/node-server'
import type { Log } from '../../src/ports.ts'
import { cannotListen, envelope, listeningUrl, plainAddress } from '../host/answers.ts'
import { MINIMUM_RATE, type Listening, type ListenOptions } from '../host/platform.ts'
import { atEndOfTurn, endTurn } from '../host/turn.ts'
import { listenTogether, shut } from './acceptors.ts'

/** Bytes of a refused body that are still read, and how long the peer may take to hear of it. */
const DRAIN = { bytes: 1_048_576, milliseconds: 2000 }
/** Seconds that an idle connection is kept. */
const IDLE_SECONDS = 65
/** Up to this declared size the rest of an unread body is swallowed to keep the connection. */
const SWALLOWED = 65_536

/**
 * Starts to serve. Rejects with `conflict` when the port is taken and `invalid` when the address
 * cannot be used.
 */
export async function listen(options: ListenOptions): Promise<Listening> {
  const { fetch, tls, log, host } = options
  const listener = getRequestListener(
    (request, env) => {
      const { incoming, outgoing } = env as { incoming: IncomingMessage; outgoing: Answer }
      const { socket } = incoming
      const peer = {
        address: plainAddress(socket.remoteAddress),
        encrypted: 'encrypted' in socket,
      }
      const putHeaders = (headers: Readonly<Record<string, string>>) => {
        outgoing.put = { ...outgoing.put, ...headers }
      }
      const response = fetch(request, { peer, incoming, outgoing, putHeaders })
      if (!(response instanceof Promise)) return lingering(response, incoming, outgoing)
      return response.then((response) => lingering(response, incoming, outgoing))
    },
    {
      // Its own clean-up reads up to 64 MiB and resets the connection under the answer.
      autoCleanupIncoming: false,
      errorHandler: (error) => {
        const bad = error instanceof Error && error.name === 'RequestError'
        log.event(bad ? 'info' : 'error', 'refused', { reason: String(error) })
        return bad
          ? Response.json(envelope(400, 'The address or Host of this request is malformed'), {
              status: 400,
            })
          : Response.json(envelope(500, 'internal error'), { status: 500 })
      },
    },
  )
  const settings = {
    ServerResponse: Answer as typeof ServerResponse,
    requestTimeout: 0,
    headersTimeout: 20_000,
    connectionsCheckingInterval: 5000,
    maxHeaderSize: 16 * 1024,
    keepAliveTimeout: (options.idleSeconds ?? IDLE_SECONDS) * 1000,
    noDelay: true,
    // without one, the listener below refuses with a sentence; Node would with nothing
    requireHostHeader: false,
  }
  const server: Server =
    tls === undefined
      ? createServer(settings)
      : createTlsServer({ ...settings, ...tls, handshakeTimeout: 20_000 })
  const watchdog = startWatchdog(log, options.minimumRate ?? MINIMUM_RATE)
  const serve = (incoming: IncomingMessage, outgoing: ServerResponse) => {
    watchdog.watch(incoming, outgoing)
    void listener(incoming, outgoing)
  }
  server.on('request', serve)
  // The body is asked for by who reads it (Transfer.receive), so that refusals come first.
  server.on('checkContinue', serve)
  // Any other expectation may be ignored (RFC 9110, 10.1.1); Node's 417 would have no sentence.
  server.on('checkExpectation', serve)
  server.on('clientError', refuseMalformed)
  limitConnections(server, options)
  const silent = silentConnections(server, tls !== undefined)
  const acceptors = await listenTogether(
    server,
    { host, port: options.port },
    {
      allowHalfOpen: tls === undefined,
      failed: (error) => log.event('error', 'server', { reason: String(error) }),
    },
  ).catch((error: unknown) => {
    throw cannotListen(host, options.port, error)
  })

  const { port } = server.address() as AddressInfo
  return {
    url: listeningUrl(host, port, tls !== undefined),
    port,
    close: async () => {
      const closed = Promise.all(acceptors.map(shut))
      // Browsers open connections in advance; Node does not count them as idle.
      for (const socket of silent) socket.destroy()
      const idle = setInterval(() => server.closeIdleConnections(), 50)
      const end = setTimeout(() => server.closeAllConnections(), options.graceSeconds * 1000)
      await closed
      clearInterval(idle)
      clearTimeout(end)
      watchdog.stop()
    },
  }
}

/** One that leaves with the others of its turn. */
class Answer extends ServerResponse {
  /**
   * Headers besides those that it is written with, which replace them where names have the same letters and case.
   * `setHeader` would have Node look at all of them twice.
   */
  put: Readonly<Record<string, string>> = {}

  /** Nobody gives a reason. */
  override writeHead(status: number, ...[headers]: unknown[]): this {
    return super.writeHead(status, { ...this.put, ...(headers as OutgoingHttpHeaders) })
  }

  override end(...args: unknown[]): this {
    atEndOfTurn(() => super.end(...(args as [chunk: unknown, encoding: BufferEncoding])))
    return this
  }
}

/**
 * An answer for connections that have no request, and thus no response, yet. With `broken` it
 * promises a byte that never comes: the request may be a range, whose answer must not end well (R5).
 */
function bareAnswer(status: string, message: string, broken = false): string {
  const body = JSON.stringify(envelope(Number.parseInt(status, 10), message))
  return (
    `HTTP/1.1 ${status}\r\nContent-Type: application/json\r\nConnection: close\r\n` +
    `Content-Length: ${Buffer.byteLength(body) + (broken ? 1 : 0)}\r\n\r\n${body}`
  )
}

function refuseMalformed(error: NodeJS.ErrnoException, socket: Socket): void {
  // What came before it on this connection may have its answer waiting.
  endTurn()
  // Mid-answer there is nothing left to say: words would become part of somebody's body.
  const answering = (socket as { _httpMessage?: ServerResponse | null })._httpMessage
  const timeout = error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
  const http = timeout || error.code?.startsWith('HPE_') === true
  if (!http || !socket.writable || answering?.headersSent === true) return void socket.destroy()
  const answer =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? bareAnswer('431 Request Header Fields Too Large', 'The headers are larger than 16 KiB')
      : timeout
        ? bareAnswer('408 Request Timeout', 'The headers took longer than 20 s')
        : bareAnswer('400 Bad Request', 'This is no well-formed HTTP request')
  socket.end(answer, () => socket.destroy())
}

/**
 * An answer given before the body was read. Closing now would reset the connection and the sentence
 * would be lost, so when Node wants to close: half-close, read on for a little, then close (R48).
 */
function lingering(
  response: Response,
  incoming: IncomingMessage,
  outgoing: ServerResponse,
): Response {
  const { socket } = incoming
  const chunked = incoming.headers['transfer-encoding'] !== undefined
  const unread = chunked ? Infinity : Number(incoming.headers['content-length'] ?? 0)
  if (incoming.complete || unread <= SWALLOWED || socket.destroyed || outgoing.headersSent)
    return response
  outgoing.shouldKeepAlive = false
  // Marks the body as read by somebody, or Node would swallow all of it, however long.
  incoming.read(0)
  socket.destroySoon = () => {
    let left = DRAIN.bytes
    socket.end()
    const timer = setTimeout(() => socket.destroy(), DRAIN.milliseconds)
    socket.once('close', () => clearTimeout(timer))
    incoming.on('error', () => socket.destroy())
    incoming.once('end', () => socket.destroy())
    incoming.on('data', (chunk: Buffer) => {
      left -= chunk.length
      if (left <= 0) incoming.pause()
    })
    incoming.resume()
  }
  return response
}

/** Refuses connections beyond the limit of their address with a sentence. */
function limitConnections(server: Server, options: ListenOptions): void {
  const trusted = new BlockList()
  trusted.addSubnet('127.0.0.0', 8)
  trusted.addAddress('::1', 'ipv6')
  for (const proxy of options.trustedProxies) {
    const [address = '', bits] = proxy.split('/')
    const family = isIPv6(address) ? 'ipv6' : 'ipv4'
    trusted.addSubnet(address, bits === undefined ? (isIPv6(address) ? 128 : 32) : +bits, family)
  }
  const open = new Map<string, number>()
  server.on('connection', (socket: Socket) => {
    const address = plainAddress(socket.remoteAddress)
    if (address === null || trusted.check(address, isIPv6(address) ? 'ipv6' : 'ipv4')) return
    const count = (open.get(address) ?? 0) + 1
    open.set(address, count)
    socket.once('close', () => {
      const left = (open.get(address) ?? 1) - 1
      if (left === 0) open.delete(address)
      else open.set(address, left)
    })
    if (count <= options.maxConnections) return
    options.log.event('warn', 'connection-limit', { address })
    if (options.tls !== undefined) socket.destroy()
    else
      socket.end(
        bareAnswer('503 Service Unavailable', 'Too many open connections from your address', true),
        () => socket.destroy(),
      )
  })
}

/** Connections on which no request has come yet. */
function silentConnections(server: Server, encrypted: boolean): ReadonlySet<Socket> {
  const silent = new Set<Socket>()
  server.on(encrypted ? 'secureConnection' : 'connection', (socket: Socket) => {
    silent.add(socket)
    socket.once('close', () => silent.delete(socket))
  })
  for (const event of ['request', 'checkContinue', 'checkExpectation'])
    server.on(event, ({ socket }: IncomingMessage) => silent.delete(socket))
  return silent
}

type Watched = {
  incoming: IncomingMessage
  outgoing: ServerResponse
  /** Bytes that had moved at the last look, and since the window began. */
  seen: number
  moved: number
  /** Milliseconds of this window in which the peer was waited for. */
  waited: number
}

/**
 * Closes connections whose peer is too slow. Only time spent waiting for the peer counts: a server
 * that hashes for two minutes, with the body received and nothing to send, is not the peer's fault.
 */
function startWatchdog(
  log: Log,
  rate: { bytesPerSecond: number; seconds: number },
): { watch(incoming: IncomingMessage, outgoing: ServerResponse): void; stop(): void } {
  const watched = new Map<Socket, Watched>()
  const window = rate.seconds * 1000
  const tick = window / 12
  const look = () => {
    for (const [socket, w] of watched) {
      const total = movedBytes(socket)
      w.moved += total - w.seen
      w.seen = total
      if (waitsForPeer(socket, w)) w.waited += tick
      if (w.waited < window) continue
      if (w.moved < rate.bytesPerSecond * rate.seconds) {
        log.event('info', 'too-slow', { address: plainAddress(socket.remoteAddress) })
        socket.destroy()
      }
      w.waited = 0
      w.moved = 0
    }
  }
  const timer = setInterval(look, tick).unref()
  return {
    watch(incoming, outgoing) {
      const { socket } = incoming
      const known = watched.get(socket)
      if (known === undefined) socket.once('close', () => watched.delete(socket))
      const seen = movedBytes(socket)
      watched.set(socket, { incoming, outgoing, seen, moved: 0, waited: 0 })
    },
    stop: () => clearInterval(timer),
  }
}

/** What Node keeps of a socket's handle; no public property tells progress within one write. */
type Internals = { _bytesDispatched?: number; _handle?: { writeQueueSize?: number } | null }

function movedBytes(socket: Socket): number {
  const { _bytesDispatched: dispatched = 0, _handle: handle } = socket as Internals
  return socket.bytesRead + dispatched - (handle?.writeQueueSize ?? 0)
}

function waitsForPeer(socket: Socket, { incoming, outgoing }: Watched): boolean {
  // A full buffer of an unfinished body means that we have not come round to reading it.
  const body = !incoming.complete && incoming.readableLength < incoming.readableHighWaterMark
  return body || (!outgoing.writableFinished && socket.writableLength > 0)
}
