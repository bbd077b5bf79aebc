/** Bytes over real sockets: exact, broken on purpose, refused with a sentence, and released. */
import { randomBytes } from 'node:crypto'
import { open, readdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { Agent, get, request, type IncomingMessage } from 'node:http'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { freeChunk } from '../../adapters/chunks.ts'
import { nodeTransfer } from '../../adapters/node/transfer.ts'
import type { ListenOptions } from '../../adapters/host/platform.ts'
import { listen } from '../../adapters/node/server.ts'
import { sha256Hex, hasher, randomHex } from '../../src/core/digest.ts'
import { RegistryError, STATUS } from '../../src/errors.ts'
import { logged } from '../../src/http/log.ts'
import { parseRange, rangeHeaders } from '../../src/http/range.ts'
import { defineRoutes, type Route } from '../../src/http/routes.ts'
import type { BlobRead, ByteRange, Bytes, LogFields, Sink } from '../../src/ports.ts'
import { testLimits } from '../fixtures/limits.ts'

const SIZE = 5_000_003
const bytes = randomBytes(SIZE)
const BIG = 64 * 1024 * 1024
let folder: string
let file: string
let bigFile: string

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'transfer-'))
  file = join(folder, 'blob')
  bigFile = join(folder, 'big')
  await writeFile(file, bytes)
  await writeFile(bigFile, Buffer.alloc(BIG, 7))
})
afterAll(() => rm(folder, { recursive: true }))

/** How many blobs are open in this process, by the kernel's account. */
async function openBlobs(): Promise<number> {
  const { readlink } = await import('node:fs/promises')
  const names = await readdir('/proc/self/fd')
  const targets = await Promise.all(
    names.map((n) => readlink(`/proc/self/fd/${n}`).catch(() => '')),
  )
  return targets.filter((target) => target.startsWith(folder)).length
}

/** Bytes that were read from blobs, by path. */
const bytesRead = new Map<string, number>()

async function blob(path: string, range?: ByteRange, random = true): Promise<BlobRead> {
  const handle = await open(path)
  const { size } = await handle.stat()
  const { start, end } = range ?? { start: 0, end: size - 1 }
  return {
    size,
    etag: '"e"',
    key: path,
    range: { start, end },
    async *stream() {
      yield* handle.createReadStream({ start, end, autoClose: false }) as AsyncIterable<Buffer>
    },
    ...(random && {
      readInto: async (buffer: Uint8Array, offset: number, length: number, position: number) => {
        const { bytesRead: count } = await handle.read(buffer, offset, length, position)
        bytesRead.set(path, (bytesRead.get(path) ?? 0) + count)
        return count
      },
    }),
    close: () => handle.close(),
  }
}

/** Both ways to take a body. */
const WAYS = ['iterated', 'each'] as const
function each(body: Bytes, sink: Sink, signal?: AbortSignal): Promise<void> {
  if (body.each === undefined) throw new Error('bodies on Node have each')
  return body.each(sink, signal)
}
const consume = {
  each,
  async iterated(body: Bytes, sink: (chunk: Uint8Array) => void) {
    for await (const chunk of body) sink(chunk)
  },
}

type Line = { level: string; name: string; fields: LogFields }
let lines: Line[] = []
const requests = () => lines.filter((line) => line.name === 'request')
const log = {
  event: (level: string, name: string, fields: LogFields = {}) =>
    void lines.push({ level, name, fields }),
}
/** Whether the disk under /rotten fails, and how many asked for /herd. */
let rotten = true
let came = 0
const servers: { close(): Promise<void> }[] = []
const agents: Agent[] = []

afterEach(async () => {
  for (const agent of agents.splice(0)) agent.destroy()
  for (const server of servers.splice(0)) await server.close()
  lines = []
  rotten = true
  came = 0
})

async function start(extra: Partial<ListenOptions> & { stallSeconds?: number } = {}) {
  const transfer = nodeTransfer(extra)
  const serve =
    (path: string, random: boolean): Route['handler'] =>
    async (c) => {
      const { size } = await blob(path).then(async (b) => (await b.close(), b))
      const range = parseRange(c.req.header('range'), size)
      if (range.kind === 'unsatisfiable')
        return transfer.breakOff(c, 416, { 'Content-Type': 'text/plain' }, 'no such range')
      const status = range.kind === 'range' ? 206 : 200
      const read = await blob(path, range.kind === 'range' ? range : undefined, random)
      return transfer.send(c, status, rangeHeaders(read, status), read)
    }
  const routes: Route[] = [
    { method: 'GET', path: '/blob', access: 'open', handler: serve(file, true) },
    { method: 'GET', path: '/stream', access: 'open', handler: serve(file, false) },
    { method: 'GET', path: '/big', access: 'open', handler: serve(bigFile, true) },
    {
      method: 'GET',
      path: '/rotten',
      access: 'open',
      handler: async (c) => {
        const read = await blob(file)
        const readInto: BlobRead['readInto'] = async (buffer, offset, length, position) => {
          if (rotten && position > 2_000_000) throw new Error('the disk is broken')
          return read.readInto?.(buffer, offset, length, position) ?? 0
        }
        return transfer.send(c, 200, rangeHeaders(read, 200), { ...read, readInto })
      },
    },
    {
      method: 'GET',
      path: '/herd/:size',
      access: 'open',
      handler: async (c) => {
        const read = await blob(file)
        came += 1
        const readInto: BlobRead['readInto'] = async (...where) => {
          await until(() => came >= Number(c.req.param('size')))
          return read.readInto?.(...where) ?? 0
        }
        return transfer.send(c, 200, rangeHeaders(read, 200), { ...read, readInto })
      },
    },
    ...WAYS.map((way): Route => ({
      method: 'PUT',
      path: `/body-${way}`,
      access: 'open',
      handler: async (c) => {
        const hash = hasher()
        let size = 0
        const body = transfer.receive(c)
        await consume[way](body, (chunk) => {
          hash.update(chunk)
          size += chunk.length
          body.free?.(chunk)
          // given back now, not when the garbage collector comes
          if (chunk.length > 0) throw new Error('a chunk was not freed')
        })
        return c.json({ size, sha256: hash.hex() })
      },
    })),
    {
      method: 'PUT',
      path: '/refused',
      access: 'open',
      handler: () => {
        throw new RegistryError('insufficient_storage', 'The disk is full')
      },
    },
    ...WAYS.map((way): Route => ({
      method: 'PUT',
      path: `/half-${way}`,
      access: 'open',
      handler: async (c) => {
        await consume[way](transfer.receive(c), () => {
          throw new RegistryError('digest_mismatch', 'Wrong bytes')
        })
        return c.text('')
      },
    })),
    {
      method: 'PUT',
      path: '/stopped',
      access: 'open',
      handler: async (c) => {
        const stop = new AbortController()
        let size = 0
        const taken = each(
          transfer.receive(c),
          async (chunk) => {
            size += chunk.length
            if (c.req.header('x-at-work') !== undefined) {
              stop.abort(new Error('stopped'))
              await sleep(100)
              size = -1
            } else setTimeout(() => stop.abort(new Error('stopped')), 20)
          },
          stop.signal,
        )
        const reason = await taken.then(String, String)
        return c.json({ reason, size })
      },
    },
    {
      method: 'PUT',
      path: '/works',
      access: 'open',
      handler: async (c) => {
        for await (const _ of transfer.receive(c));
        await sleep(900)
        return c.text('done')
      },
    },
    {
      method: 'GET',
      path: '/late',
      access: 'open',
      handler: async (c) => {
        const read = await blob(file)
        const { socket } = c.env.incoming as IncomingMessage
        // a busy machine comes here after the client has left
        if (!socket.destroyed) await new Promise((resolve) => socket.once('close', resolve))
        const readInto = () => Promise.reject(new Error('read for nobody'))
        return transfer.send(c, 200, rangeHeaders(read, 200), { ...read, readInto })
      },
    },
    { method: 'GET', path: '/hello', access: 'open', handler: (c) => c.text('hello') },
  ]
  const app = defineRoutes({
    routes,
    owns: ['/*'],
    onError: (error, c) =>
      c.json(
        { error: { code: STATUS[error.code], message: error.message } },
        {
          status: STATUS[error.code] as 400,
        },
      ),
    deps: { authenticate: async () => null, limits: testLimits() },
  })
  const fetch = logged((request, bindings) => app.fetch(request, bindings), {
    log,
    clock: { now: () => new Date(performance.now()) },
    ids: { next: () => randomHex(12) },
    trustedProxies: [],
  })
  const server = await listen({
    fetch,
    host: '127.0.0.1',
    port: 0,
    graceSeconds: 1,
    maxConnections: 64,
    trustedProxies: [],
    log,
    ...extra,
  })
  servers.push(server)
  return server
}

type Answer = { status: number; headers: IncomingMessage['headers']; body: Buffer; whole: boolean }

function ask(
  url: string,
  options: { method?: string; headers?: Record<string, string>; body?: Buffer; agent?: Agent } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const { body, ...rest } = options
    const req = request(url, rest, (res) => {
      const chunks: Buffer[] = []
      res.on('data', (chunk: Buffer) => chunks.push(chunk))
      res.on('error', () => {})
      res.on('close', () =>
        resolve({
          status: res.statusCode ?? 0,
          headers: res.headers,
          body: Buffer.concat(chunks),
          whole: res.complete,
        }),
      )
    })
    req.on('error', reject)
    req.end(body)
  })
}

/** Writes raw text, collects all that comes back until the server closes. */
async function talk(
  port: number,
  write: (socket: Socket) => void | Promise<void>,
): Promise<{ text: string; reset: boolean }> {
  const socket = connect(port, '127.0.0.1')
  let text = ''
  let reset = false
  socket.on('data', (chunk) => (text += chunk.toString('latin1')))
  socket.on('error', () => (reset = true))
  const closed = new Promise((resolve) => socket.once('close', resolve))
  await write(socket)
  await closed
  return { text, reset }
}

async function until(condition: () => boolean | Promise<boolean>, milliseconds = 3000) {
  const end = performance.now() + milliseconds
  while (!(await condition())) {
    if (performance.now() > end) throw new Error('the condition did not come true')
    await sleep(10)
  }
}

test.each(['/blob', '/stream'])(
  'GET %s gives exactly the bytes, whole and in ranges',
  async (path) => {
    const { url } = await start()
    const whole = await ask(url + path)
    expect(whole.status).toBe(200)
    expect(sha256Hex(whole.body)).toBe(sha256Hex(bytes))
    for (const [start, end] of [
      [0, 0],
      [0, 65_535],
      [1, 1_048_577],
      [1_048_576, 3_145_729],
      [SIZE - 1, SIZE - 1],
      [0, SIZE - 1],
    ] as const) {
      const part = await ask(url + path, { headers: { Range: `bytes=${start}-${end}` } })
      expect(part.status).toBe(206)
      expect(part.headers['content-range']).toBe(`bytes ${start}-${end}/${SIZE}`)
      expect(part.body.equals(bytes.subarray(start, end + 1))).toBe(true)
    }
    await until(async () => (await openBlobs()) === 0)
  },
)

test('many ranges at once share reused buffers without mixing bytes (R49)', async () => {
  const { url } = await start()
  const part = 100_003
  const answers = await Promise.all(
    Array.from({ length: 49 }, (_, i) =>
      ask(`${url}/blob`, { headers: { Range: `bytes=${i * part}-${(i + 1) * part - 1}` } }),
    ),
  )
  expect(Buffer.concat(answers.map((a) => a.body)).equals(bytes.subarray(0, 49 * part))).toBe(true)
})

test('a herd reads a blob once, whoever leaves, ranges and other blobs beside it (R49)', async () => {
  const { url, port } = await start()
  bytesRead.clear()
  const stays = Array.from({ length: 12 }, () => ask(`${url}/herd/24`))
  const leaves = Array.from({ length: 8 }, () =>
    talk(port, async (socket) => {
      socket.write('GET /herd/24 HTTP/1.1\r\nHost: x\r\n\r\n')
      await new Promise((resolve) => socket.once('data', resolve))
      socket.destroy()
    }),
  )
  await until(() => came >= 20)
  const others = [ask(`${url}/big`), ask(`${url}/big`)]
  const last = Array.from({ length: 4 }, () => ask(`${url}/herd/24`))
  for (const answer of await Promise.all([...stays, ...last])) {
    expect(answer.whole).toBe(true)
    expect(answer.body.equals(bytes)).toBe(true)
  }
  for (const other of await Promise.all(others))
    expect(other.body.equals(Buffer.alloc(BIG, 7))).toBe(true)
  await Promise.all(leaves)
  // who came first was alone and began with a buffer of its own
  expect(bytesRead.get(file)).toBeLessThan(SIZE + 2 * 1024 * 1024)
  await until(async () => (await openBlobs()) === 0)
  expect((await ask(`${url}/blob`)).body.equals(bytes)).toBe(true)
})

test('a read that fails breaks all that waited for it, and is tried again by the next (R5)', async () => {
  const { url } = await start()
  const broken = await Promise.all(Array.from({ length: 8 }, () => ask(`${url}/rotten`)))
  for (const answer of broken) {
    expect(answer.whole).toBe(false)
    expect(answer.body.equals(bytes.subarray(0, answer.body.length))).toBe(true)
  }
  rotten = false
  const healed = await Promise.all(Array.from({ length: 8 }, () => ask(`${url}/rotten`)))
  for (const answer of healed) expect(answer.body.equals(bytes)).toBe(true)
  await until(async () => (await openBlobs()) === 0)
})

test('HEAD gives the headers of GET and opens no body', async () => {
  const { url } = await start()
  const head = await ask(`${url}/blob`, { method: 'HEAD' })
  expect(head.status).toBe(200)
  expect(head.headers['content-length']).toBe(String(SIZE))
  expect(head.body.length).toBe(0)
  expect(await openBlobs()).toBe(0)
})

test('one connection serves a download, then a small answer, then a download', async () => {
  const { url } = await start()
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  agents.push(agent)
  expect((await ask(`${url}/blob`, { agent })).body.length).toBe(SIZE)
  expect((await ask(`${url}/hello`, { agent })).body.toString()).toBe('hello')
  expect((await ask(`${url}/blob`, { agent })).body.equals(bytes)).toBe(true)
})

test('40 clients that leave early leave no open blob and one log line each', async () => {
  const { url } = await start()
  await Promise.all(
    Array.from(
      { length: 40 },
      (_, i) =>
        new Promise<void>((resolve) => {
          const req = get(`${url}/big`, { agent: false }, (res) => {
            res.on('error', () => {})
            res.once('data', () => req.destroy())
          })
          req.on('error', () => {})
          req.on('close', () => resolve())
          if (i % 2 === 0) setTimeout(() => req.destroy(), i / 4)
        }),
    ),
  )
  await until(async () => (await openBlobs()) === 0)
  await until(() => requests().length >= 1)
  await sleep(100)
  const left = requests().filter((line) => line.fields.reason === 'the client left before the end')
  expect(left.length).toBeGreaterThan(10)
  expect(left.every((line) => Number(line.fields.bytesOut) < BIG)).toBe(true)
  expect(new Set(requests().map((line) => line.fields.request)).size).toBe(requests().length)
  expect(requests().length).toBeLessThanOrEqual(40)
})

test('for a client that left before the answer nothing is read', async () => {
  const { port } = await start()
  await talk(port, async (socket) => {
    socket.write('GET /late HTTP/1.1\r\nHost: x\r\n\r\n')
    await sleep(50)
    socket.destroy()
  })
  await until(() => requests().length === 1)
  expect(requests()[0]?.fields).toMatchObject({
    reason: 'the client left before the end',
    bytesOut: 0,
  })
  expect(await openBlobs()).toBe(0)
})

test('a read that fails on the way breaks the connection (R5)', async () => {
  const { url } = await start()
  const answer = await ask(`${url}/rotten`)
  expect(answer.status).toBe(200)
  expect(answer.whole).toBe(false)
  expect(answer.body.length).toBeLessThan(SIZE)
  await until(() => requests().length === 1)
  expect(requests()[0]).toMatchObject({ level: 'error', fields: { code: 'internal', status: 200 } })
  expect(requests()[0]?.fields.reason).toContain('the disk is broken')
  expect(await openBlobs()).toBe(0)
})

test('a refusal that is broken off carries its sentence and an early end (R5)', async () => {
  const { url, port } = await start()
  const answer = await ask(`${url}/blob`, { headers: { Range: 'bytes=9000000-' } })
  expect(answer).toMatchObject({ status: 416, whole: false })
  expect(answer.body.toString()).toBe('no such range')
  const { text } = await talk(port, (socket) => {
    socket.write('GET /blob HTTP/1.1\r\nHost: x\r\nRange: bytes=0-1,3-4\r\n\r\n')
  })
  expect(text).toMatch(/^HTTP\/1.1 416 /)
  expect(text).toContain('Content-Length: 14\r\n')
  expect(text).toMatch(/X-Request-Id: [0-9a-f]{24}\r\n/)
  expect(text.endsWith('\r\n\r\nno such range')).toBe(true)
  expect(requests()).toHaveLength(2)
  const head = await ask(`${url}/blob`, { method: 'HEAD', headers: { Range: 'bytes=9000000-' } })
  expect(head).toMatchObject({ status: 416, whole: true })
})

test.each(WAYS)(
  'bodies arrive exactly, by length, chunked and after 100-continue: %s',
  async (way) => {
    const { url } = await start()
    const expected = { size: SIZE, sha256: sha256Hex(bytes) }
    const plain = await ask(`${url}/body-${way}`, { method: 'PUT', body: bytes })
    expect(JSON.parse(plain.body.toString())).toEqual(expected)
    const chunked = await ask(`${url}/body-${way}`, {
      method: 'PUT',
      body: bytes,
      headers: { 'Transfer-Encoding': 'chunked' },
    })
    expect(JSON.parse(chunked.body.toString())).toEqual(expected)
    const continued = await new Promise<string>((resolve, reject) => {
      const req = request(
        `${url}/body-${way}`,
        { method: 'PUT', headers: { Expect: '100-continue', 'Content-Length': SIZE } },
        (res) => {
          let text = ''
          res.on('data', (chunk) => (text += String(chunk)))
          res.on('end', () => resolve(text))
        },
      )
      req.on('error', reject)
      req.on('continue', () => req.end(bytes))
      req.flushHeaders()
    })
    expect(JSON.parse(continued)).toEqual(expected)
  },
)

test('a whole chunk is given back, a piece of one is not: the next part begins with its rest', () => {
  const chunk = new Uint8Array([1, 2, 3])
  const [piece, rest] = [chunk.subarray(0, 2), chunk.subarray(2)]
  freeChunk(piece)
  freeChunk(rest)
  expect([...piece, ...rest]).toEqual([1, 2, 3])
  freeChunk(chunk)
  expect(chunk.length).toBe(0)
})

test('a client that waits for 100-continue is refused before it sends anything', async () => {
  const { port } = await start()
  const { text, reset } = await talk(port, (socket) => {
    socket.write(
      `PUT /refused HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: ${BIG}\r\n\r\n`,
    )
    socket.on('data', () => socket.end())
  })
  expect(text).toMatch(/^HTTP\/1.1 507 /)
  expect(text).toContain('The disk is full')
  expect(reset).toBe(false)
})

test.each(WAYS)('a body that ends early is an error, not a short body: %s', async (way) => {
  const { port } = await start()
  await talk(port, async (socket) => {
    socket.write(`PUT /body-${way} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nshort`)
    await sleep(50)
    socket.destroy()
  })
  await until(() => requests().length === 1)
  expect(requests()[0]?.fields).toMatchObject({ status: 400, code: 'invalid', bytesIn: 5 })
})

test.each(['/refused', '/half-iterated', '/half-each'])(
  'a body refused at %s gets its sentence while the client still sends (R48)',
  async (path) => {
    const { port } = await start()
    const startedAt = performance.now()
    let written = 0
    const { text } = await talk(port, (socket) => {
      socket.write(`PUT ${path} HTTP/1.1\r\nHost: x\r\nContent-Length: ${BIG}\r\n\r\n`)
      const chunk = Buffer.alloc(65_536)
      const pump = () => {
        while (socket.writable && written < BIG) {
          written += chunk.length
          if (socket.write(chunk)) continue
          socket.once('drain', pump)
          return
        }
      }
      pump()
    })
    expect(text).toMatch(path === '/refused' ? /^HTTP\/1.1 507 / : /^HTTP\/1.1 400 /)
    expect(text).toContain(path === '/refused' ? 'The disk is full' : 'Wrong bytes')
    expect(text).toContain('Connection: close')
    expect(written).toBeLessThan(BIG)
    expect(performance.now() - startedAt).toBeLessThan(3500)
    expect(requests()).toHaveLength(1)
  },
)

test.each([
  { sink: 'waiting', header: '', size: 5 },
  { sink: 'at work', header: 'X-At-Work: 1\r\n', size: -1 },
])(
  'a signal ends the wait for a stalled body at once, and waits for a sink: $sink (R1)',
  async ({ header, size }) => {
    const { port } = await start()
    const startedAt = performance.now()
    const { text } = await talk(port, (socket) => {
      socket.write(`PUT /stopped HTTP/1.1\r\nHost: x\r\n${header}Content-Length: 1000\r\n\r\nshort`)
      socket.on('data', () => socket.end())
    })
    expect(text).toMatch(/^HTTP\/1.1 200 /)
    expect(text).toContain(JSON.stringify({ reason: 'Error: stopped', size }))
    expect(performance.now() - startedAt).toBeLessThan(1000)
  },
)

test('a small unread body keeps the connection', async () => {
  const { url } = await start()
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  agents.push(agent)
  const body = Buffer.alloc(10_000)
  const first = await ask(`${url}/refused`, { method: 'PUT', body, agent })
  expect(first.headers.connection).toBe('keep-alive')
  expect((await ask(`${url}/hello`, { agent })).body.toString()).toBe('hello')
})

const RATE = { bytesPerSecond: 1000, seconds: 0.6 }

test('a slow body that progresses is not cut, one that stops is (R48)', async () => {
  const { url, port } = await start({ minimumRate: RATE })
  const steady = new Promise<number>((resolve, reject) => {
    const req = request(
      `${url}/body-each`,
      { method: 'PUT', headers: { 'Content-Length': 4000 } },
      (res) => (res.resume(), resolve(res.statusCode ?? 0)),
    )
    req.on('error', reject)
    void (async () => {
      for (let i = 0; i < 20; i++) {
        req.write(Buffer.alloc(200))
        await sleep(75)
      }
      req.end()
    })()
  })
  const startedAt = performance.now()
  await talk(port, (socket) => {
    socket.write('PUT /body-each HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\nstuck')
  })
  expect(performance.now() - startedAt).toBeLessThan(1400)
  expect(await steady).toBe(200)
})

test('a server at work is not taken for a slow client (R48)', async () => {
  const { url } = await start({ minimumRate: { bytesPerSecond: 1e6, seconds: 0.2 } })
  const answer = await ask(`${url}/works`, { method: 'PUT', body: Buffer.from('small') })
  expect(answer.body.toString()).toBe('done')
})

test('a reader that stops is closed; one that reads slowly is not (R48, R49)', async () => {
  const { url, port } = await start({ minimumRate: RATE })
  const slow = new Promise<number>((resolve, reject) => {
    get(`${url}/blob`, { agent: false }, (res) => {
      let size = 0
      res.on('data', (chunk: Buffer) => {
        size += chunk.length
        res.pause()
        setTimeout(() => res.resume(), 20)
      })
      res.on('end', () => resolve(size))
      res.on('error', reject)
    })
  })
  const stuck = connect(port, '127.0.0.1').pause()
  stuck.on('error', () => {})
  stuck.write('GET /big HTTP/1.1\r\nHost: x\r\n\r\n')
  await until(() => lines.some((line) => line.name === 'too-slow'))
  expect(await slow).toBe(SIZE)
  stuck.destroy()
  await until(async () => (await openBlobs()) === 0)
})

test('a write stalled for the limit ends the response (R49)', async () => {
  const { port } = await start({ stallSeconds: 0.3 })
  const stuck = connect(port, '127.0.0.1').pause()
  stuck.on('error', () => {})
  stuck.write('GET /big HTTP/1.1\r\nHost: x\r\n\r\n')
  await until(() => requests().length === 1)
  expect(requests()[0]?.fields.reason).toBe('the client left before the end')
  expect(await openBlobs()).toBe(0)
  stuck.destroy()
})

test('malformed requests get a JSON envelope', async () => {
  const { url, port } = await start()
  const bad = await talk(port, (socket) => void socket.write('NONSENSE\r\n\r\n'))
  expect(bad.text).toMatch(/^HTTP\/1.1 400 .*"error":\{"code":400,"message":"[^"]+"\}\}$/s)
  const large = await talk(port, (socket) => {
    socket.write(`GET / HTTP/1.1\r\nHost: x\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`)
  })
  expect(large.text).toMatch(/^HTTP\/1.1 431 .*"code":431/s)
  const host = await ask(`${url}/hello`, { headers: { Host: 'a b/c' } })
  expect(host.status).toBe(400)
  expect(JSON.parse(host.body.toString())).toMatchObject({ error: { code: 400 } })
})

test('a taken port is refused with a sentence', async () => {
  const { port } = await start()
  await expect(start({ port })).rejects.toThrow(`Port ${port} on 127.0.0.1 is taken`)
})

test('closing lets a running request finish and ends idle connections at once', async () => {
  const server = await start()
  const agent = new Agent({ keepAlive: true })
  agents.push(agent)
  await ask(`${server.url}/hello`, { agent })
  const running = ask(`${server.url}/works`, { method: 'PUT', body: Buffer.from('x') })
  await sleep(100)
  const startedAt = performance.now()
  await server.close()
  expect((await running).body.toString()).toBe('done')
  expect(performance.now() - startedAt).toBeLessThan(1500)
})

test('every request has one line, its id and the base headers', async () => {
  const { url } = await start()
  const answer = await ask(`${url}/hello`, { headers: { 'X-Request-Id': 'abc.1' } })
  expect(answer.headers).toMatchObject({
    'x-request-id': 'abc.1',
    'referrer-policy': 'no-referrer',
    'x-content-type-options': 'nosniff',
  })
  const blob = await ask(`${url}/blob?t=secret`, { headers: { 'X-Request-Id': 'not sane' } })
  expect(blob.headers['x-request-id']).toMatch(/^[0-9a-f]{24}$/)
  expect(blob.headers['referrer-policy']).toBe('no-referrer')
  // its line is written when the body has left, which may be after the client has it
  await until(() => requests().length === 2)
  await ask(`${url}/nothing`)
  await ask(`${url}/hello`, { method: 'POST' })
  await until(() => requests().length === 4)
  expect(requests().map(({ fields }) => [fields.route, fields.status, fields.code])).toEqual([
    ['/hello', 200, undefined],
    ['/blob', 200, undefined],
    ['/*', 404, 'not_found'],
    ['/hello', 405, 'unsupported'],
  ])
  expect(requests()[1]?.fields).toMatchObject({
    bytesOut: SIZE,
    address: '127.0.0.1',
  })
  expect(JSON.stringify(lines)).not.toContain('secret')
})
