/** Serves the app over Bun.serve. */
import { cannotListen, listeningUrl, plainAddress } from '../host/answers.ts'
import type { Listening, ListenOptions } from '../host/platform.ts'
import { webListener } from '../host/web.ts'

type BunServer = {
  port: number
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

/** Seconds that an idle connection, or one that does not finish its headers, is kept. */
const IDLE_SECONDS = 65

/** As `listen` on Node, but for what docs/runtimes.md names. */
export async function listen(options: ListenOptions): Promise<Listening> {
  const { host, tls } = options
  const encrypted = tls !== undefined
  const { answer, failed } = webListener(options)
  let server: BunServer
  try {
    server = Bun.serve({
      hostname: host,
      port: options.port,
      ...(tls === undefined ? {} : { tls }),
      idleTimeout: IDLE_SECONDS,
      // Not 1 << 40: sizes are not 32-bit numbers.
      maxRequestBodySize: 2 ** 40,
      development: false,
      // Unless told, Bun shares the port with other processes outside of development.
      reusePort: false,
      fetch(request, server) {
        // A server at work is silent, too; peers are watched by the transfer.
        server.timeout(request, 0)
        const address = plainAddress(server.requestIP(request)?.address)
        return answer(request, { address, encrypted })
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
      const end = setTimeout(() => void server.stop(true), options.graceSeconds * 1000)
      await server.stop(false)
      clearTimeout(end)
    },
  }
}
