/** Connections that are idle, unfinished or too many: what stopping does to them, and the limit (R48). */
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { networkInterfaces, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { sampleSif } from '../fixtures/sif.ts'
import { expectData } from '../protocol/answers.ts'
import { libraryClient, sha256 } from '../protocol/client.ts'
import { build, TESTED } from '../runtimes/runtime.ts'
import { mint, startServer, type ServerProcess } from './process.ts'

/** An address of this machine beyond loopback: who connects from there is counted. */
const outer = Object.values(networkInterfaces())
  .flat()
  .find((found) => found?.family === 'IPv4' && !found.internal)?.address

beforeAll(build)

describe.each(TESTED)('%s', (runtime) => {
  let data: string
  let server: ServerProcess | undefined
  const sockets: Socket[] = []
  beforeEach(async () => {
    data = await mkdtemp(join(tmpdir(), 'sreg-connections-'))
  })
  afterEach(async () => {
    for (const socket of sockets.splice(0)) socket.destroy()
    await server?.kill()
    server = undefined
    await rm(data, { recursive: true })
  })

  /** A connection on which `text` is said; `heard` is everything the server says. */
  async function say(text: string, localAddress = '127.0.0.1') {
    const { hostname: host, port } = new URL(server?.url ?? '')
    const socket = connect({ host, port: Number(port), localAddress })
    sockets.push(socket)
    let heard = ''
    socket.setEncoding('latin1').on('data', (chunk: string) => (heard += chunk))
    socket.on('error', () => undefined)
    const ended = new Promise<void>((resolve) => socket.once('close', () => resolve()))
    await once(socket, 'connect')
    socket.write(text)
    const answered = async () => {
      await expect.poll(() => heard, { timeout: 5000 }).not.toBe('')
      return heard
    }
    return { socket, ended, answered, heard: () => heard }
  }

  const IDLE = 'GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n'

  test('stopping ends idle, silent and half-said connections at once', async () => {
    server = await startServer({ data, runtime, env: { SREG_GRACE: '30' } })
    const idle = await Promise.all([IDLE, IDLE, 'GET /healthz HTT', ''].map((text) => say(text)))
    for (const { answered } of idle.slice(0, 2))
      expect(await answered()).toMatch(/^HTTP\/1\.1 200 /)
    const before = performance.now()
    expect(await server.kill('SIGTERM'), server.words()).toBe(0)
    expect(performance.now() - before).toBeLessThan(3000)
    // Bun takes a connection from the kernel when something is said, and that one says nothing.
    await Promise.all(idle.slice(0, 3).map(({ ended }) => ended))
  })

  test('stopping waits for unread bodies no longer than the grace', async () => {
    server = await startServer({ data, runtime, env: { SREG_GRACE: '2' } })
    const head = await say('GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ')
    const refused = await say(
      'POST /v1/entities HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n{',
    )
    expect(await refused.answered()).toMatch(/^HTTP\/1\.1 401 /)
    const before = performance.now()
    expect(await server.kill('SIGTERM'), server.words()).toBe(0)
    expect(performance.now() - before).toBeLessThan(4500)
    await Promise.all([head.ended, refused.ended])
  })

  test('R48: more than SREG_MAX_CONNECTIONS at work from one address are refused', async ({
    skip,
  }) => {
    if (outer === undefined) skip('this machine has no address beyond loopback')
    server = await startServer({ data, runtime, env: { SREG_MAX_CONNECTIONS: '2' } })
    const client = libraryClient(server.url, await mint(data, 'alice'))
    const bytes = sampleSif()
    const { container } = await client.ensure('alice', 'c', 'n')
    const draft = { hash: `sha256.${sha256(bytes)}`, container }
    const { id } = expectData(await client.call('POST', '/v1/images', draft))
    const head =
      `POST /v1/imagefile/${id} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n` +
      `Authorization: Bearer ${client.token}\r\nContent-Length: ${bytes.length}\r\n\r\n`
    const working = await Promise.all([say(head, outer), say(head, outer)])
    await sleep(200)
    const third = await say('GET /healthz HTTP/1.1\r\nHost: x\r\nRange: bytes=0-1\r\n\r\n', outer)
    await third.ended
    expect(third.heard()).toMatch(/^HTTP\/1\.1 503 [^]*Too many [^]* from your address/)
    // It may have been a range: the answer must not end well (R5).
    expect(third.heard()).not.toMatch(/\r\n0\r\n\r\n$/)
    await expect.poll(() => server?.words()).toContain('connection-limit')
    // Loopback is not counted.
    expect((await fetch(`${server.url}/healthz`)).status).toBe(200)
    for (const { socket } of working) socket.write(bytes)
    const answers = await Promise.all(
      working.map(async ({ ended, heard }) => (await ended, heard())),
    )
    expect(answers.some((text) => text.startsWith('HTTP/1.1 200 '))).toBe(true)
    const again = await say(IDLE, outer)
    expect(await again.answered()).toMatch(/^HTTP\/1\.1 200 /)
  })
})
