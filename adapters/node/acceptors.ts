/**
 * Several listening sockets on one address. Node takes one new connection from each in a turn of its loop,
 * so with a single one the last of a thousand jobs waits for a thousand turns of a busy server.
 */
import { createServer, type AddressInfo, type ListenOptions, type Server } from 'node:net'

const ACCEPTORS = 16

/**
 * Makes `server` listen, and others beside it that hand their connections over to it; where the system does
 * not share a port among sockets (macOS, Windows), the server alone. All of them. `allowHalfOpen` is what the
 * server itself has. Rejects with the system's error when the address cannot be had.
 */
export async function listenTogether(
  server: Server,
  address: { host: string; port: number },
  allowHalfOpen: boolean,
): Promise<Server[]> {
  // What is shared would be shared with a server that is there already: the port is asked for alone first.
  // One that the system chooses (0) nobody has.
  if (address.port !== 0) await bind(createServer(), address).then(shut)
  try {
    await bind(server, { ...address, reusePort: true })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOTSUP') throw error
    return [await bind(server, address)]
  }
  const { port } = server.address() as AddressInfo
  const others = Array.from({ length: ACCEPTORS - 1 }, () =>
    // noDelay is set when a connection is taken, thus by who takes it
    createServer({ allowHalfOpen, noDelay: true }, (socket) => server.emit('connection', socket)),
  )
  await Promise.all(others.map((other) => bind(other, { ...address, port, reusePort: true })))
  return [server, ...others]
}

/** Takes no more connections, and resolves when those that it took are closed. */
export const shut = (server: Server): Promise<void> =>
  new Promise((resolve) => server.close(() => resolve()))

function bind(server: Server, options: ListenOptions): Promise<Server> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(options, () => {
      server.off('error', reject)
      resolve(server)
    })
  })
}
