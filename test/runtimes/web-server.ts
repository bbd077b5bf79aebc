/**
 * A server over web streams with its timers shortened, run inside Bun and inside Deno: bytes exact,
 * broken on purpose, slow peers cut off, everything released.
 */
import { randomBytes } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, describe, expect, test } from 'vitest'
import type { ListenOptions, Platform } from '../../adapters/host/platform.ts'
import { streamTransfer, type Rate, type Transfer } from '../../src/app.ts'
import { randomHex, sha256Hex } from '../../src/core/digest.ts'
import { STATUS } from '../../src/errors.ts'
import { logged } from '../../src/http/log.ts'
import { parseRange, rangeHeaders } from '../../src/http/range.ts'
import { defineRoutes, type Route } from '../../src/http/routes.ts'
import type { BlobRead, ByteRange, LogFields } from '../../src/ports.ts'
import { testLimits } from '../fixtures/limits.ts'
import { rawGet, rawRequest } from '../protocol/raw.ts'

const bytes = randomBytes(5_000_003)
const BIG = 2 ** 31
/** What a peer must move in these tests; a window is 0.6 s. */
const RATE: Rate = { bytesPerSecond: 1000, seconds: 0.6 }

/** Longer than Bun keeps an idle connection in these tests, its own four seconds of tolerance included. */
const LONG_MS = 9000

type Line = { level: string; name: string; fields: LogFields }

export function describeWebServer(
  name: string,
  listen: Platform['listen'],
  /**
   * `lingers`: why a connection outlives its answer, where the platform cannot end it;
   * `keepsIdle`: why idle connections are not ended; `transferOf`: the platform's own transfer.
   */
  {
    lingers,
    keepsIdle,
    transferOf = streamTransfer,
  }: {
    lingers?: string
    keepsIdle?: string
    transferOf?: (options: { minimumRate?: Rate }) => Transfer
  } = {},
): void {
  describe(`${name}: a server over web streams`, () => {
    let open = 0
    let lines: Line[] = []
    const requests = () => lines.filter((line) => line.name === 'request')
    const servers: { close(): Promise<void> }[] = []
    const sockets: Socket[] = []
    afterEach(async () => {
      for (const socket of sockets.splice(0)) socket.destroy()
      for (const server of servers.splice(0)) await server.close()
      lines = []
    })

    /** A blob of `size` bytes that repeats `bytes`; its reads fail from `rotten` on. */
    function blob(size: number, range?: ByteRange, rotten = Infinity): BlobRead {
      open++
      let closed = false
      return {
        size,
        etag: '"e"',
        range: range ?? { start: 0, end: size - 1 },
        stream: () => {
          throw new Error('there is random access')
        },
        async readInto(buffer, offset, length, position) {
          if (position >= rotten) throw new Error('the disk is broken')
          const at = position % bytes.length
          const read = Math.min(length, bytes.length - at)
          buffer.set(bytes.subarray(at, at + read), offset)
          return read
        },
        close: async () => {
          if (!closed) open--
          closed = true
        },
      }
    }

    async function start({ rate, ...extra }: Partial<ListenOptions> & { rate?: Rate } = {}) {
      const transfer = transferOf({ ...(rate && { minimumRate: rate }) })
      const serve =
        (size: number, rotten?: number): Route['handler'] =>
        (c) => {
          const range = parseRange(c.req.header('range'), size)
          if (range.kind === 'unsatisfiable')
            return transfer.breakOff(c, 416, { 'Content-Type': 'text/plain' }, 'no such range')
          const status = range.kind === 'range' ? 206 : 200
          const read = blob(size, range.kind === 'range' ? range : undefined, rotten)
          return transfer.send(c, status, rangeHeaders(read, status), read)
        }
      const receive =
        (work: number): Route['handler'] =>
        async (c) => {
          let size = 0
          for await (const chunk of transfer.receive(c)) size += chunk.length
          await sleep(work)
          return c.json({ size })
        }
      const routes: Route[] = [
        { method: 'GET', path: '/blob', access: 'open', handler: serve(bytes.length) },
        { method: 'GET', path: '/big', access: 'open', handler: serve(BIG) },
        { method: 'GET', path: '/rotten', access: 'open', handler: serve(bytes.length, 2_000_000) },
        { method: 'GET', path: '/rotten-small', access: 'open', handler: serve(1000, 0) },
        { method: 'PUT', path: '/body', access: 'open', handler: receive(0) },
        { method: 'PUT', path: '/works', access: 'open', handler: receive(900) },
        { method: 'PUT', path: '/long', access: 'open', handler: receive(LONG_MS) },
      ]
      const app = defineRoutes({
        routes,
        owns: ['/*'],
        onError: (error, c) =>
          c.json(
            { error: { code: STATUS[error.code], message: error.message } },
            { status: STATUS[error.code] as 400 },
          ),
        deps: { authenticate: async () => null, limits: testLimits() },
      })
      const log = {
        event: (level: string, name: string, fields: LogFields = {}) =>
          void lines.push({ level, name, fields }),
      }
      const server = await listen({
        fetch: logged((request, bindings) => app.fetch(request, bindings), {
          log,
          clock: { now: () => new Date(performance.now()) },
          ids: { next: () => randomHex(12) },
          trustedProxies: [],
        }),
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

    /** A connection that has said this and then reads nothing, until `text` or `ended` is asked for. */
    function say(port: number, text: string) {
      const socket = connect(port, '127.0.0.1')
      sockets.push(socket)
      const ended = new Promise<void>((resolve) => socket.once('close', () => resolve()))
      socket.on('error', () => undefined)
      socket.write(text)
      return { socket, ended }
    }

    async function until(condition: () => boolean, milliseconds = 3000) {
      const end = performance.now() + milliseconds
      while (!condition()) {
        if (performance.now() > end) throw new Error('the condition did not come true')
        await sleep(10)
      }
    }

    test('exact bytes, whole and in ranges', async () => {
      const { url } = await start()
      const whole = await rawGet(url, '/blob')
      expect([whole.status, whole.complete, sha256Hex(whole.body)]).toEqual([
        200,
        true,
        sha256Hex(bytes),
      ])
      for (const [first, last] of [
        [0, 0],
        [0, 65_535],
        [1, 65_536],
        [1, 1_048_577],
        [bytes.length - 1, bytes.length - 1],
      ] as const) {
        const part = await rawGet(url, '/blob', `Range: bytes=${first}-${last}`)
        expect([part.status, part.complete]).toEqual([206, true])
        expect(part.body.equals(bytes.subarray(first, last + 1))).toBe(true)
      }
      await until(() => open === 0)
      expect(requests().map(({ fields }) => fields.bytesOut)).toContain(bytes.length)
    })

    test.each(['/rotten', '/rotten-small'])(
      'a read that fails on the way breaks the connection: %s (R5)',
      async (path) => {
        const { url } = await start()
        const { status, complete } = await rawGet(url, path)
        // Bun has not sent the head when the first byte fails.
        expect([[0, 200], false]).toEqual([expect.arrayContaining([status]), complete])
        await until(() => requests().length === 1)
        expect(requests()[0]).toMatchObject({ level: 'error', fields: { code: 'internal' } })
        expect(requests()[0]?.fields.reason).toContain('the disk is broken')
        expect(open).toBe(0)
      },
    )

    test('a refusal that is broken off carries its sentence and an early end (R5)', async () => {
      const { url } = await start()
      const { status, body, complete } = await rawGet(url, '/blob', 'Range: bytes=9000000-')
      expect([status, body.toString(), complete]).toEqual([416, 'no such range', false])
    })

    test('a client that leaves is noticed, and nothing is read for it', async () => {
      const { port } = await start()
      const { socket } = say(port, 'GET /big HTTP/1.1\r\nHost: x\r\n\r\n')
      socket.once('data', () => socket.destroy())
      await until(() => requests().length === 1)
      expect(requests()[0]?.fields.reason).toBe('the client left before the end')
      expect(Number(requests()[0]?.fields.bytesOut)).toBeLessThan(BIG)
      expect(open).toBe(0)
    })

    test('a body that ends early is an error, not a short body', async () => {
      const { port } = await start()
      const head = 'PUT /body HTTP/1.1\r\nHost: x\r\n'
      for (const rest of [
        'Content-Length: 1000\r\n\r\nshort',
        'Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n',
      ]) {
        const { socket } = say(port, head + rest)
        await sleep(100)
        socket.destroy()
      }
      await until(() => requests().length === 2)
      for (const { fields } of requests())
        expect(fields).toMatchObject({ status: 400, code: 'invalid', bytesIn: 5 })
    })

    test('a slow body that progresses is not cut, one that stops is (R48)', async () => {
      const { url, port } = await start({ rate: RATE })
      const steady = rawRequest(url, ['PUT /body HTTP/1.1', 'Content-Length: 4000'])
      const before = performance.now()
      const stuck = say(port, 'PUT /body HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\nstuck')
      const answered = new Promise<void>((resolve) => stuck.socket.once('data', () => resolve()))
      const cut = (lingers === undefined ? stuck.ended : answered).then(
        () => performance.now() - before,
      )
      for (let i = 0; i < 20; i++) {
        steady.socket.write(Buffer.alloc(200))
        await sleep(75)
      }
      expect((await steady.answer).body.toString()).toBe('{"size":4000}')
      expect(await cut).toBeLessThan(2000)
      const slow = requests().find(({ fields }) => fields.status === 400)
      expect(slow?.fields).toMatchObject({ code: 'invalid', bytesIn: 5 })
    })

    test('a server at work is not taken for a slow client (R48)', async () => {
      const { url } = await start({ rate: { bytesPerSecond: 1e6, seconds: 0.2 } })
      const lines = ['PUT /works HTTP/1.1', 'Content-Length: 5']
      expect((await rawRequest(url, lines, 'small').answer).body.toString()).toBe('{"size":5}')
    })

    test('a reader that stops is cut, one that reads slowly is not (R48, R49)', async () => {
      const { port } = await start({ rate: RATE })
      const slow = say(port, 'GET /blob HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
      let read = 0
      slow.socket.on('data', (chunk) => {
        read += chunk.length
        slow.socket.pause()
        setTimeout(() => slow.socket.resume(), 20)
      })
      const stuck = say(port, 'GET /big HTTP/1.1\r\nHost: x\r\n\r\n')
      stuck.socket.pause()
      await until(() => requests().some(({ fields }) => fields.reason === 'the client is too slow'))
      await until(() => read >= bytes.length, 10_000)
      await until(() => open === 0)
    })

    test('a connection is idle after its answer, and ended after a while', async (context) => {
      if (keepsIdle !== undefined) context.skip(keepsIdle)
      const { port } = await start({ idleSeconds: 2 })
      const said = [
        'GET /blob HTTP/1.1\r\nHost: x\r\nRange: bytes=0-9\r\n\r\n',
        'GET /blob HTTP/1.1\r\nHost: x\r\n\r\n',
        'PUT /body HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx',
        // Longer than an idle one may be.
        'PUT /long HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx',
      ].map((text) => say(port, text))
      for (const { socket } of said) socket.on('data', () => {})
      const before = performance.now()
      await Promise.all(said.map(({ ended }) => ended))
      const took = performance.now() - before
      expect(took).toBeGreaterThan(LONG_MS)
      expect(took).toBeLessThan(LONG_MS + 12_000)
      expect(requests().map(({ fields }) => fields.status)).toEqual(
        expect.arrayContaining([206, 200, 200, 200]),
      )
      expect(requests()).toHaveLength(4)
    })

    test('closing lets what runs finish, and ends the rest after the grace', async () => {
      const server = await start()
      const running = rawRequest(server.url, ['PUT /works HTTP/1.1', 'Content-Length: 1'], 'x')
      const stuck = say(server.port, 'GET /big HTTP/1.1\r\nHost: x\r\n\r\n')
      stuck.socket.pause()
      await sleep(100)
      const before = performance.now()
      await server.close()
      expect(performance.now() - before).toBeLessThan(2500)
      expect((await running.answer).body.toString()).toBe('{"size":1}')
      if (lingers === undefined) await until(() => open === 0)
      open = 0
    })

    test('a taken port is refused with a sentence', async () => {
      const { port } = await start()
      await expect(start({ port })).rejects.toThrow(`Port ${port} on 127.0.0.1 is taken`)
      await expect(start({ host: '192.0.2.1' })).rejects.toThrow('Cannot listen on 192.0.2.1')
    })
  })
}
