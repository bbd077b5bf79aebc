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
  let server: ReturnType<typeof Deno.serve>
  try {
    server = Deno.serve(
      {
        hostname: host,
        port: options.port,
        ...tls,
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
      // Deno cannot end what is left: its abort signal throws past everybody. The process does.
      const late = Promise.withResolvers<void>()
      const end = setTimeout(late.resolve, options.graceSeconds * 1000)
      await Promise.race([server.shutdown(), late.promise])
      clearTimeout(end)
    },
  }
}
