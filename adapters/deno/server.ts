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

/** Time for what shutting down breaks to clean up after itself. */
const FAILING_MS = 1000

/** As `listen` on Node, but for what docs/runtimes.md names. */
export async function listen(options: ListenOptions): Promise<Listening> {
  const { host, tls } = options
  const encrypted = tls !== undefined
  const { answer, failed, drain } = webListener(options)
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
      // Shutting down breaks bodies that are on their way, so what runs gets its grace before, and
      // its failures get a moment after. What is left then ends with the process: Deno's abort
      // signal would throw past everybody.
      const drained = drain()
      await within(drained, options.graceSeconds * 1000)
      await within(Promise.all([server.shutdown(), drained]), FAILING_MS)
    },
  }
}

/** Waits for the work, but no longer than this. */
async function within(work: Promise<unknown>, milliseconds: number): Promise<void> {
  const late = Promise.withResolvers<void>()
  const timer = setTimeout(late.resolve, milliseconds)
  await Promise.race([work, late.promise])
  clearTimeout(timer)
}
