/** `npm run start:workers` as a process: its starts, its ends, and requests that are left alone. */
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { connect, createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { sampleSif } from '../fixtures/sif.ts'
import { expectData } from '../protocol/answers.ts'
import { libraryClient, sha256 } from '../protocol/client.ts'
import { rawRequest } from '../protocol/raw.ts'
import { workersProcess, type WorkersTarget } from './workers-target.ts'

let data: string
let port: string
let server: WorkersTarget
let firstToken: string

const start = () => workersProcess({ data, env: { SREG_PORT: port } })
const tokenIn = () => readFile(join(data, 'first-admin-token'), 'utf8')

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + 10_000
  while (!(await condition())) {
    if (performance.now() > end) throw new Error('the condition did not come true')
    await sleep(20)
  }
}
/** A zombie that nobody has waited for yet runs no more. */
const runs = (pid: number) =>
  existsSync(`/proc/${pid}/stat`) && !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
function begunAgain(crashed: number): boolean {
  try {
    return server.workerd() !== crashed
  } catch {
    return false
  }
}
const connected = () =>
  new Promise<boolean>((resolve) => {
    const socket = connect(Number(port), '127.0.0.1')
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })

beforeAll(async () => {
  data = await mkdtemp(join(tmpdir(), 'sreg-start-workers-'))
  const free = createServer().listen(0, '127.0.0.1')
  await once(free, 'listening')
  port = String((free.address() as AddressInfo).port)
  free.close()
  server = await start()
  firstToken = await tokenIn()
})
afterAll(async () => {
  await server.end('SIGTERM')
  await rm(data, { recursive: true, force: true })
})

test('a taken port and a folder in use are refused with a sentence', async () => {
  const other = await mkdtemp(join(tmpdir(), 'sreg-start-workers-'))
  try {
    await expect(workersProcess({ data: other, env: { SREG_PORT: port } })).rejects.toThrow(
      new RegExp(`: Port ${port} on 127\\.0\\.0\\.1 is taken\\.\n$`),
    )
    // R19: that start has not used up the one first token of its folder
    expect(existsSync(join(other, 'first-admin-token'))).toBe(false)
    await expect(workersProcess({ data })).rejects.toThrow(
      /: Another sreg-lite serve is using .*\n$/,
    )
  } finally {
    await rm(other, { recursive: true, force: true })
  }
})

test.each([0, 300])(
  'an isolate whose first client leaves after %i ms serves the others',
  async (afterMs) => {
    const crashed = server.workerd()
    process.kill(crashed, 'SIGKILL')
    await until(async () => begunAgain(crashed) && (await connected()))
    const first = connect(Number(port), '127.0.0.1').on('error', () => undefined)
    first.write('GET /v1/entities HTTP/1.1\r\nHost: registry\r\n\r\n')
    await sleep(afterMs)
    first.resetAndDestroy()
    const answers = await Promise.all(
      Array.from({ length: 20 }, () =>
        fetch(`${server.url}/readyz`, { signal: AbortSignal.timeout(10_000) }),
      ),
    )
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]))
  },
)

test('kill -9 leaves no workerd behind; the next start has no second first token', async () => {
  const workerd = server.workerd()
  expect(runs(workerd)).toBe(true)
  expect(await server.end('SIGKILL')).toBe(null)
  await until(() => !runs(workerd))
  server = await start()
  expect(await tokenIn()).toBe(firstToken)
})

test('SIGTERM lets an upload end that is on its way, and nothing is left', async () => {
  const { jwt } = await server.mint('alice')
  const client = libraryClient(server.url, jwt)
  const bytes = sampleSif({ content: 'late' })
  const { container } = await client.ensure('alice', 'c', 'n')
  const hash = `sha256.${sha256(bytes)}`
  const { id } = expectData(await client.call('POST', '/v1/images', { hash, container }))
  const wanted = { filesize: bytes.length, sha256sum: sha256(bytes) }
  const opened = await client.call('POST', `/v2/imagefile/${String(id)}`, wanted)
  const { pathname, search } = new URL(expectData(opened).uploadURL)
  const head = [`PUT ${pathname}${search} HTTP/1.1`, `Content-Length: ${bytes.length}`]
  const { socket, answer } = rawRequest(server.url, head, bytes.subarray(0, 1000))
  await sleep(200)
  const workerd = server.workerd()
  const ended = server.end('SIGTERM')
  await until(() => server.words().includes('SIGTERM: stopping'))
  await sleep(200)
  socket.write(bytes.subarray(1000))
  expect((await answer).status).toBe(200)
  expect(await ended).toBe(0)
  expect(runs(workerd)).toBe(false)
  server = await start()
  const done = await libraryClient(server.url, jwt).call(
    'PUT',
    `/v2/imagefile/${String(id)}/_complete`,
    {},
  )
  expectData(done)
})
