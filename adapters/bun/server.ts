/** Serves the app over Bun.serve. */
import { setTimeout as sleep } from 'node:timers/promises'
import { cannotListen, listeningUrl, plainAddress } from '../host/answers.ts'
import type { Listening, ListenOptions } from '../host/platform.ts'
import { webListener } from '../host/web.ts'

type BunServer = {
  port: number
  /** Requests whose answers have not left for good. */
  pendingRequests: number
  requestIP(request: Request): { address: string } | null
  /** Seconds without a byte after which this request's connection is closed; 0 is never. */
  timeout(request: Request, seconds: number): void
  stop(closeActiveConnections: boolean): Promise<void>
}

/** What is used of Bun. */
declare const Bun: {
  serve(options: {
    hostname: string
    port: number
    tls?: { cert: string; key: string }
    idleTimeout: number
    maxRequestBodySize: number
    development: false
    reusePort: false
    fetch(request: Request, server: BunServer): Response | Promise<Response>
    error(error?: Error): Response
  }): BunServer
}

/** Seconds that an idle connection is kept. */
const IDLE_SECONDS = 65

/** As `listen` on Node, but for what docs/runtimes.md names. */
export async function listen(options: ListenOptions): Promise<Listening> {
  const { host, tls, idleSeconds = IDLE_SECONDS } = options
  const encrypted = tls !== undefined
  const { answer, failed } = webListener(options)
  let server: BunServer
  try {
    server = Bun.serve({
      hostname: host,
      port: options.port,
      ...(tls === undefined ? {} : { tls }),
      idleTimeout: idleSeconds,
      // Not 1 << 40: sizes are not 32-bit numbers.
      maxRequestBodySize: 2 ** 40,
      development: false,
      // Unless told, Bun shares the port with other processes outside of development.
      reusePort: false,
      fetch(request, server) {
        const address = plainAddress(server.requestIP(request)?.address)
        // A server at work is silent, too; peers are watched by the transfer. What is set here
        // outlives the answer, so it must be set again for the connection that is kept.
        const ended = () => server.timeout(request, idleSeconds)
        const response = answer(request, { address, encrypted }, ended)
        if (response instanceof Promise) server.timeout(request, 0)
        return response
      },
      error: failed,
    })
  } catch (error) {
    throw cannotListen(host, options.port, error)
  }
  return {
    url: listeningUrl(host, server.port, encrypted),
    port: server.port,
    async close() {
      const stopped = server.stop(false)
      const end = performance.now() + options.graceSeconds * 1000
      // Bun would also wait for connections that have not said a whole head yet.
      while (server.pendingRequests > 0 && performance.now() < end) await sleep(50)
      await Promise.all([server.stop(true), stopped])
    },
  }
}
