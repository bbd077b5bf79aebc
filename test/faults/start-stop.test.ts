/** Starts and stops: one server per data folder, a port that is taken, signals during pushes. */
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { userNameFrom } from '../../adapters/host/connect.ts'
import { sampleSif } from '../fixtures/sif.ts'
import { expectData } from '../protocol/answers.ts'
import { libraryClient, sha256 } from '../protocol/client.ts'
import { rawRequest } from '../protocol/raw.ts'
import { build, TESTED } from '../runtimes/runtime.ts'
import { mint, StartFailed, startServer, type ServerProcess } from './process.ts'

beforeAll(build)

describe.each(TESTED)('%s', (runtime) => {
  let data: string
  const started: ServerProcess[] = []
  beforeEach(async () => {
    data = await mkdtemp(join(tmpdir(), 'sreg-start-'))
  })
  afterEach(async () => {
    for (const server of started.splice(0)) await server.kill()
    await rm(data, { recursive: true })
  })

  async function start(env: Record<string, string> = {}): Promise<ServerProcess> {
    const server = await startServer({ data, env, runtime })
    started.push(server)
    return server
  }
  const failure = (env: Record<string, string> = {}) =>
    start(env).then(
      () => Promise.reject(new Error('the server started')),
      (error: unknown) => error as StartFailed,
    )

  test('R45: a second server on the folder is refused, one after kill -9 is not', async () => {
    const first = await start()
    const second = await failure()
    expect(second).toBeInstanceOf(StartFailed)
    expect(second.code).toBe(1)
    expect(second.words).toMatch(/^Another sreg-lite serve is using /m)
    expect((await fetch(`${first.url}/healthz`)).status).toBe(200)

    await first.kill('SIGKILL')
    const third = await start()
    expect((await fetch(`${third.url}/readyz`)).status).toBe(200)
  })

  test('R19: a port that is taken at the first start does not use up the first token', async () => {
    const other = createServer().listen(0, '127.0.0.1')
    await once(other, 'listening')
    const { port } = other.address() as AddressInfo
    try {
      const refused = await failure({ SREG_PORT: String(port) })
      expect(refused).toBeInstanceOf(StartFailed)
      expect(refused.code).toBe(1)
      expect(refused.words).toMatch(new RegExp(`Port ${port} on 127.0.0.1 is taken`))
      expect(refused.words).not.toMatch(/\n\s+at /)
      expect(await readdir(data)).not.toContain('first-admin-token')
    } finally {
      other.close()
    }
    const { url } = await start()
    const token = (await readFile(join(data, 'first-admin-token'), 'utf8')).trim()
    const self = await libraryClient(url, token).call('GET', '/v1/rbac/users/current')
    expect([self.status, self.json.username]).toEqual([200, 'admin'])
    await started.pop()?.kill('SIGTERM')
    await rm(join(data, 'first-admin-token'))
    await start()
    expect(await readdir(data)).not.toContain('first-admin-token')
  })

  test('the lines to type name this runtime and this person, without help of the environment', async () => {
    const { words } = await start()
    const command = {
      node: 'npx sreg-lite',
      bun: 'bunx --bun sreg-lite',
      deno: 'deno run -A npm:sreg-lite',
    }[runtime]
    await expect.poll(words).toContain(`  ${command} connect --data ${data}\n`)
    expect(words()).toContain(` library://${userNameFrom(userInfo().username)}/default/NAME:latest`)
  })

  describe('signals during ten pushes', () => {
    /** Ten v1 pushes, of which half a body is sent. */
    async function tenPushes(server: ServerProcess) {
      const client = libraryClient(server.url, await mint(data, 'alice'))
      const pushes = []
      for (let i = 0; i < 10; i++) {
        const bytes = sampleSif({ content: `push ${i}` })
        const { container } = await client.ensure('alice', 'c', 'stopped')
        const draft = { hash: `sha256.${sha256(bytes)}`, container }
        const { id } = expectData(await client.call('POST', '/v1/images', draft))
        const head = [`POST /v1/imagefile/${id} HTTP/1.1`, `Authorization: Bearer ${client.token}`]
        const sent = rawRequest(
          server.url,
          [...head, `Content-Length: ${bytes.length}`],
          bytes.subarray(0, 20_000),
        )
        pushes.push({ bytes, finish: () => sent.socket.write(bytes.subarray(20_000)), ...sent })
      }
      // Until all of them have a file on the disk, and so are at work.
      const uploads = join(data, 'blobs', 'uploads')
      while ((await readdir(uploads)).length < 10) await sleep(20)
      return { client, pushes, uploads }
    }

    test('SIGTERM lets those finish that do so within the grace, and ends the others', async () => {
      const server = await start({ SREG_GRACE: '2' })
      const { client, pushes, uploads } = await tenPushes(server)
      const before = performance.now()
      server.signal('SIGTERM')
      await sleep(200)
      const newcomer = await fetch(`${server.url}/healthz`).then(
        ({ status }) => status,
        () => 'not let in',
      )
      // Deno would break running bodies if it stopped to listen, so it listens and refuses.
      expect(newcomer).toBe(runtime === 'deno' ? 503 : 'not let in')
      for (const push of pushes.slice(0, 5)) push.finish()
      const answers = await Promise.all(pushes.map((push) => push.answer))
      expect(answers.slice(0, 5).map(({ status }) => status)).toEqual([200, 200, 200, 200, 200])
      for (const { status, complete } of answers.slice(5))
        expect([status, complete]).toEqual(runtime === 'deno' ? [400, true] : [0, false])
      expect(await server.exited).toBe(0)
      expect(performance.now() - before).toBeLessThan(4000)
      expect(await readdir(uploads)).toEqual([])

      const { url } = await start()
      const again = libraryClient(url, client.token)
      for (const [i, { bytes }] of pushes.entries()) {
        const ref = `alice/c/stopped:sha256.${sha256(bytes)}`
        const pulled = await fetch(`${again.url}/v1/imagefile/${ref}?arch=amd64`)
        const got = new Uint8Array(await pulled.arrayBuffer())
        expect(pulled.status).toBe(i < 5 ? 200 : 404)
        if (i < 5) expect(sha256(got)).toBe(sha256(bytes))
      }
    })

    test('a second SIGTERM ends the server at once', async () => {
      const server = await start({ SREG_GRACE: '60' })
      await tenPushes(server)
      server.signal('SIGTERM')
      // A terminal's Ctrl-C may arrive twice; that counts as one.
      await sleep(700)
      const before = performance.now()
      expect(await server.kill('SIGTERM')).toBe(1)
      expect(performance.now() - before).toBeLessThan(1000)
    })
  })
})
