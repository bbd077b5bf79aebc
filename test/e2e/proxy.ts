/**
 * A proxy between client and server that may look at, hold up or alter a request, and passes every
 * answer on byte for byte, its broken end included.
 */
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'

/**
 * Starts a proxy on loopback in front of `http://HOST:PORT`. `onRequest` gets each request's line
 * and headers and returns what is sent instead. Only for requests without a body.
 */
export async function startProxy(
  target: string,
  onRequest: (head: string) => Promise<string>,
): Promise<{ url: string; stop(): Promise<void> }> {
  const { hostname, port } = new URL(target)
  const sockets = new Set<Socket>()
  const server = createServer((client) => {
    const upstream = connect(Number(port), hostname)
    for (const socket of [client, upstream]) {
      sockets.add(socket)
      socket.on('close', () => sockets.delete(socket))
    }
    upstream.pipe(client)
    upstream.on('error', () => client.resetAndDestroy())
    client.on('error', () => upstream.destroy())
    forward(client, upstream, onRequest).catch(() => {
      client.destroy()
      upstream.destroy()
    })
  })
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async stop() {
      const closed = new Promise((resolve) => server.close(resolve))
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}

/**
 * 127.0.0.1:80 in front of `http://HOST:PORT`, byte for byte, for clients that cannot name a port. Needs
 * root. There is one such port: waits, up to `patience` ms, until other tests have left it.
 */
export async function forwardPort80(
  target: string,
  patience = 120_000,
): Promise<{ stop(): Promise<void> }> {
  const { hostname, port } = new URL(target)
  const sockets = new Set<Socket>()
  const server = createServer((client) => {
    const upstream = connect(Number(port), hostname)
    for (const socket of [client, upstream]) {
      sockets.add(socket)
      socket.on('close', () => sockets.delete(socket)).on('error', () => socket.destroy())
    }
    client.pipe(upstream).pipe(client)
  })
  const listen = () =>
    new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(80, '127.0.0.1', () => {
        server.off('error', reject)
        resolve()
      })
    })
  for (const end = Date.now() + patience; ;) {
    try {
      await listen()
      break
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE' || Date.now() > end) throw error
      await new Promise((resolve) => setTimeout(resolve, 200))
    }
  }
  return {
    async stop() {
      const closed = new Promise((resolve) => server.close(resolve))
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}

async function forward(
  client: Socket,
  upstream: Socket,
  onRequest: (head: string) => Promise<string>,
): Promise<void> {
  let waiting = ''
  for await (const chunk of client) {
    waiting += (chunk as Buffer).toString('latin1')
    for (let end = 0; (end = waiting.indexOf('\r\n\r\n')) >= 0;) {
      const head = waiting.slice(0, end + 4)
      waiting = waiting.slice(end + 4)
      upstream.write(await onRequest(head), 'latin1')
    }
  }
  upstream.end()
}
