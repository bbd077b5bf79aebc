/** When answers leave, and what a connection hears that says more than one thing at once. */
import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { connect, type Socket } from 'node:net'
import { afterEach, expect, test } from 'vitest'
import type { ListenOptions } from '../../adapters/host/platform.ts'
import { listen } from '../../adapters/node/server.ts'

const host = '127.0.0.1'
const CLIENTS = 16

const sockets: Socket[] = []
const servers: { close(): Promise<void> }[] = []
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy()
  for (const server of servers.splice(0)) await server.close()
})

/** Opens that many connections to a server that answers so. */
async function connected(count: number, fetch: ListenOptions['fetch']): Promise<Socket[]> {
  const server = await listen({
    fetch,
    host,
    port: 0,
    graceSeconds: 1,
    maxConnections: 64,
    trustedProxies: [],
    log: { event: () => {} },
  })
  servers.push(server)
  const opened = Array.from({ length: count }, () => connect(server.port, host))
  sockets.push(...opened)
  await Promise.all(opened.map((socket) => once(socket, 'connect')))
  return opened
}

const REQUEST = 'GET / HTTP/1.1\r\nHost: x\r\n\r\n'

/** All that comes until the other side has ended. */
async function heard(socket: Socket): Promise<string> {
  let text = ''
  for await (const piece of socket) text += String(piece)
  return text
}

test('answers of one turn leave together, and each to who asked', async () => {
  const given: ServerResponse[] = []
  /** How many answers had left whenever a request came. */
  const left: number[] = []
  const clients = await connected(CLIENTS, (_, { outgoing }) => {
    left.push(given.filter((answer) => answer.writableEnded).length)
    given.push(outgoing as ServerResponse)
    return new Response(`answer ${given.length}`)
  })
  const answers = clients.map(async (socket) => String((await once(socket, 'data'))[0]))
  // a server that is busy meanwhile finds all of them there
  for (const socket of clients) socket.write(REQUEST)
  const bodies = (await Promise.all(answers)).map((text) => text.split('\r\n\r\n')[1])
  const all = given.map((_, at) => `answer ${at + 1}`)
  expect(bodies.toSorted()).toEqual(all.toSorted())
  // one by one they would have left before the next request was looked at
  expect(new Set(left).size).toBeLessThan(CLIENTS / 2)
})

test('requests on one connection are answered in their order', async () => {
  let asked = 0
  const [socket] = await connected(1, () => new Response(`answer ${++asked};`))
  socket?.write(REQUEST + REQUEST + REQUEST.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'))
  expect((await heard(socket as Socket)).match(/answer \d;/g)).toEqual([
    'answer 1;',
    'answer 2;',
    'answer 3;',
  ])
})

test.each([
  ['with rubbish behind it', `${REQUEST}rubbish\r\n\r\n`],
  ['by who says no more', REQUEST],
])('a request %s is answered', async (_, bytes) => {
  const [socket] = await connected(1, () => new Response('answer'))
  socket?.end(bytes)
  const text = await heard(socket as Socket)
  expect(text).toContain('HTTP/1.1 200 OK')
  expect(text).toMatch(/answer$/)
})
