/** A proxy of the tests' own between the registry and its S3 server: counts requests, injects faults. */
import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { pipeline } from 'node:stream'

/**
 * What may happen to a request: refused with 500, 503 SlowDown or 403 for a skewed clock; cut in the
 * middle of its body or before; never answered; done, but the answer lost; answered in half.
 */
export const FAULTS = ['500', 'slow', 'skewed', 'reset', 'stall', 'lost', 'half'] as const
/** `accept` is what a lax store does: it takes everything unseen. */
export type Fault = (typeof FAULTS)[number] | 'accept'

export type Passed = { method: string; path: string; ranged: boolean; fault: Fault | null }

export type StoreProxy = {
  url: string
  /** Requests since the last call. */
  requests(): Passed[]
  stop(): Promise<void>
}

/** Starts it on loopback in front of `http://HOST:PORT`; `choose` says what happens to a request. */
export async function startStoreProxy(
  target: string,
  choose: (request: IncomingMessage) => Fault | null = () => null,
): Promise<StoreProxy> {
  const { hostname, port } = new URL(target)
  const passed: Passed[] = []

  function forward(incoming: IncomingMessage, answer: ServerResponse): void {
    const { method = '', url = '', headers } = incoming
    const fault = choose(incoming)
    passed.push({ method, path: url, ranged: headers.range !== undefined, fault })
    const breakOff = () => incoming.socket.resetAndDestroy()
    if (fault === '500') return refuse(incoming, answer, 500, 'InternalError')
    if (fault === 'slow') return refuse(incoming, answer, 503, 'SlowDown')
    if (fault === 'skewed') return refuse(incoming, answer, 403, 'RequestTimeTooSkewed')
    if (fault === 'accept') {
      incoming.resume().once('end', () => answer.writeHead(200, { etag: '"lax"' }).end())
      return
    }
    if (fault === 'stall') return void incoming.once('data', () => incoming.pause())
    if (fault === 'reset') {
      incoming.once('data', breakOff).once('end', breakOff)
      return
    }
    const { expect: _, ...rest } = headers
    const upstream = request({ hostname, port, method, path: url, headers: rest })
    // A source that ends must not end the other side well.
    incoming.once('close', () => incoming.complete || upstream.destroy())
    incoming.pipe(upstream)
    upstream.once('error', breakOff)
    upstream.once('response', (response) => {
      if (answer.destroyed) return void response.destroy()
      if (fault === 'lost') {
        response.resume().once('end', breakOff)
        return
      }
      answer.writeHead(response.statusCode ?? 500, response.headers)
      if (fault === 'half') {
        response.once('data', (chunk: Buffer) => {
          answer.write(chunk.subarray(0, chunk.length >> 1), breakOff)
        })
        response.once('end', breakOff)
        return
      }
      pipeline(response, answer, () => {})
    })
  }

  const server = createServer(forward)
  server.on('checkContinue', (incoming: IncomingMessage, answer: ServerResponse) => {
    answer.writeContinue()
    forward(incoming, answer)
  })
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests: () => passed.splice(0),
    async stop() {
      const closed = new Promise((resolve) => server.close(resolve))
      server.closeAllConnections()
      await closed
    },
  }
}

function refuse(
  incoming: IncomingMessage,
  answer: ServerResponse,
  status: number,
  code: string,
): void {
  incoming.resume()
  const body = `<?xml version="1.0"?><Error><Code>${code}</Code><Message>injected</Message></Error>`
  answer.writeHead(status, { 'content-type': 'application/xml', 'content-length': body.length })
  answer.end(incoming.method === 'HEAD' ? undefined : body)
}
