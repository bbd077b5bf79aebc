/** Several sockets on one port: who comes in a burst is taken in few turns, and the port is still one server's. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import { connect, type AddressInfo, type Server as Listening, type Socket } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterEach, expect, test } from 'vitest'
import { listenTogether, shut } from '../../adapters/node/acceptors.ts'
import type { Said, Told } from './contender.ts'

const BURST = 64
const host = '127.0.0.1'

const sockets: Socket[] = []
const listening: Listening[] = []
const failures: Error[] = []
const options = { allowHalfOpen: true, failed: (error: Error) => void failures.push(error) }
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy()
  await Promise.all(listening.splice(0).map(shut))
})

async function start(server: Server) {
  listening.push(...(await listenTogether(server, { host, port: 0 }, options)))
  return (server.address() as AddressInfo).port
}

test('a burst of connections is taken in fewer turns of the loop than it has connections', async () => {
  const taken: Socket[] = []
  const server = createServer((_, response) => response.end('here'))
  const port = await start(server.on('connection', (socket) => taken.push(socket)))
  // The kernel completes their handshakes, whoever takes them.
  sockets.push(...Array.from({ length: BURST }, () => connect(port, host)))
  let turns = 0
  for (; taken.length < BURST; turns++) await turn()
  // by one socket it is BURST at least
  expect(turns).toBeLessThan(BURST / 2)

  const answers = sockets.map(async (socket) => {
    socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
    return String((await once(socket, 'data'))[0])
  })
  for (const answer of await Promise.all(answers)) expect(answer).toMatch(/^HTTP\/1\.1 200 /)
})

test('what fails at accept is told, on each of them and from the first moment on', async () => {
  const server = createServer()
  const full = new Error('EMFILE: too many open files, accept')
  // the others begin to listen after it
  server.once('listening', () => process.nextTick(() => server.emit('error', full)))
  await start(server)
  for (const one of listening) one.emit('error', full)
  expect(failures.splice(0)).toEqual([full, ...listening.map(() => full)])
})

test('a port on which such a server listens is refused to another one, on every address', async () => {
  const port = await start(createServer())
  for (const host of ['127.0.0.1', '0.0.0.0']) {
    const other = listenTogether(createServer(), { host, port }, options)
    await expect(other).rejects.toThrow(/EADDRINUSE/)
  }
})

test('of two processes that start at the same moment one has the port', async () => {
  const port = await start(createServer())
  await Promise.all(listening.splice(0).map(shut))
  const contenders = [1, 2].map(() => fork(fileURLToPath(new URL('contender.ts', import.meta.url))))
  const heard = () =>
    Promise.all(contenders.map(async (one) => (await once(one, 'message'))[0] as Said))
  const tell = (told: Told) => {
    const answers = heard()
    for (const one of contenders) one.send(told)
    return answers
  }
  try {
    expect(await heard()).toEqual(['ready', 'ready'])
    for (let round = 0; round < 40; round++) {
      const said = await tell({ host, port, at: Date.now() + 5 })
      expect(said.toSorted()).toEqual(['listens', 'refused'])
      await tell('shut')
    }
  } finally {
    for (const one of contenders) one.kill()
  }
})
