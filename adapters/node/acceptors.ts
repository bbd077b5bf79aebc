/**
 * Several listening sockets on one address. Node takes one new connection from each in a turn of its loop,
 * so with a single one the last of a thousand jobs waits for a thousand turns of a busy server.
 */
import { randomUUID } from 'node:crypto'
import { createServer, type AddressInfo, type ListenOptions, type Server } from 'node:net'

const ACCEPTORS = 16

/** `port` 0 takes any that is free. */
type Address = { host: string; port: number }
type Failed = (error: Error) => void

/**
 * Makes `server` listen, and on Linux others beside it that hand their connections over to it. Resolves to all
 * that are to be shut with it. `allowHalfOpen` is what the server itself has. `failed` is told of errors of
 * those that listen already, such as too many open files at accept. Rejects with the system's error when the
 * address cannot be had.
 */
export async function listenTogether(
  server: Server,
  address: Address,
  { allowHalfOpen, failed }: { allowHalfOpen: boolean; failed: Failed },
): Promise<Server[]> {
  const bind = (one: Server, options: ListenOptions) => bound(one, options, failed)
  const name = await takeName(address, failed)
  if (name === null) return [await bind(server, address)]
  const open = [name]
  try {
    // What is shared would be shared with a server that is there already: the port is asked for alone first.
    // One that the system chooses (0) nobody has.
    if (address.port !== 0) await bind(createServer(), address).then(shut)
    open.push(await bind(server, { ...address, reusePort: true }))
    const { port } = server.address() as AddressInfo
    while (open.length <= ACCEPTORS) {
      // noDelay is set by who takes a connection
      const other = createServer({ allowHalfOpen, noDelay: true }, (socket) =>
        server.emit('connection', socket),
      )
      open.push(await bind(other, { ...address, port, reusePort: true }))
    }
    return open
  } catch (error) {
    await Promise.all(open.map(shut))
    throw error
  }
}

/**
 * Of two servers that start at the same time both would find the port free, and share it. So whoever listens
 * holds a name that ends with the process: of a local socket that is no file, which only Linux has. Rejects
 * when another holds it; null where there are no such names.
 */
async function takeName({ host, port }: Address, failed: Failed): Promise<Server | null> {
  const path = `\0sreg-lite ${host}:${port === 0 ? randomUUID() : port}`
  const named = createServer((socket) => socket.destroy())
  try {
    return await bound(named, { path }, failed)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') throw error
    return null
  }
}

/** Takes no more connections, and resolves when those that it took are closed. */
export const shut = (server: Server): Promise<void> =>
  new Promise((resolve) => server.close(() => resolve()))

function bound(server: Server, options: ListenOptions, failed: Failed): Promise<Server> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(options, () => {
      // at once, for an error that nobody listens to ends the process
      server.on('error', failed)
      server.off('error', reject)
      resolve(server)
    })
  })
}
