/** Serves the app over Deno.serve. */
import { cannotListen, listeningUrl, plainAddress } from '../host/answers.ts'
import type { Listening, ListenOptions } from '../host/platform.ts'
import { webListener } from '../host/web.ts'

/** What is used of Deno. */
declare const Deno: {
  serve(
    options: {
      hostname: string
      port: number
      cert?: string
      key?: string
      /** Aborting it destroys what `shutdown` still waits for. */
      signal: AbortSignal
      onListen(): void
      onError(error?: Error): Response
    },
    handler: (
      request: Request,
      info: { remoteAddr: { hostname: string } },
    ) => Response | Promise<Response>,
  ): { addr: { port: number }; shutdown(): Promise<void> }
}

/** As `listen` on Node, but for what docs/runtimes.md names. */
export async function listen(options: ListenOptions): Promise<Listening> {
  const { host, tls } = options
  const encrypted = tls !== undefined
  const { answer, failed } = webListener(options)
  const abort = new AbortController()
  let server: ReturnType<typeof Deno.serve>
  try {
    server = Deno.serve(
      {
        hostname: host,
        port: options.port,
        ...tls,
        signal: abort.signal,
        // Otherwise it prints the address.
        onListen: () => {},
        onError: failed,
      },
      (request, { remoteAddr }) =>
        answer(request, { address: plainAddress(remoteAddr.hostname), encrypted }),
    )
  } catch (error) {
    throw cannotListen(host, options.port, error)
  }
  const { port } = server.addr
  return {
    url: listeningUrl(host, port, encrypted),
    port,
    async close() {
      const end = setTimeout(() => abort.abort(), options.graceSeconds * 1000)
      await server.shutdown()
      clearTimeout(end)
    },
  }
}
