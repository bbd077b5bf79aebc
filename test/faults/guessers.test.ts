/**
 * Guessers and crawlers, many and fast: they find nothing, and who belongs here does not notice them
 * (R48, R58). The server is a process of its own behind a proxy on loopback, which names its clients.
 */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import Sqlite from 'better-sqlite3'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { sampleSif } from '../fixtures/sif.ts'
import { libraryClient, type LibraryClient } from '../protocol/client.ts'
import { rssOf } from '../runtimes/host-target.ts'
import { flood } from './flood.ts'
import { mint, startServer, type ServerProcess } from './process.ts'

const MIB = 1024 * 1024
const ADDRESSES = 2048
/** One of them tries far more often than the others, and somebody real sits beside it. */
const BUSY = '198.51.100.7'

let data: string
let server: ServerProcess
let alice: LibraryClient
let bob: string

beforeAll(async () => {
  data = await mkdtemp(join(tmpdir(), 'sreg-guessers-'))
  const env = { SREG_TRUSTED_PROXIES: '127.0.0.1', SREG_SETUP_SECRET: 's'.repeat(32) }
  server = await startServer({ data, env })
  alice = libraryClient(server.url, await mint(data, 'alice'))
  bob = await mint(data, 'bob')
})
afterAll(async () => {
  await server.kill()
  await rm(data, { recursive: true })
})

const addressOf = (number: number) =>
  number % 4 === 0 ? BUSY : `203.0.${(number >> 8) & 7}.${number & 255}`

/** The head of a request, as a proxy sends it on. */
const head = (line: string, address: string, ...more: string[]) =>
  [`${line} HTTP/1.1`, 'Host: x', `X-Forwarded-For: ${address}`, ...more, ''].join('\r\n')

test('1,000 guesses a second find nothing, and lock nobody out', { timeout: 60_000 }, async () => {
  await alice.push('alice/c/secret', sampleSif({ content: 'secret' }), { privateCollection: true })
  const [first = '', body = ''] = (alice.token ?? '').split('.')
  const word = (number: number, length: number) =>
    Buffer.from(`guess ${number} `.padEnd(length, 'x')).toString('base64url').slice(0, length)
  const kinds = [
    (n: number) => ['GET /v1/entities', `Authorization: Bearer ${first}.${body}.${word(n, 86)}`],
    (n: number) => [
      'GET /v1/images/alice/c/secret:latest?arch=amd64',
      `Authorization: Bearer ${first}.${word(n, body.length)}.${word(n, 86)}`,
    ],
    (n: number) => [`GET /share?s=${word(n, 22)}`],
    (n: number) => [`GET /v1/blob?t=${word(n, 100)}.${word(n, 43)}`],
  ]
  const before = rssOf(server.pid)
  const began = performance.now()
  const guesser = await flood(server.url, (number) => {
    const [line = '', ...more] = kinds[(number >> 2) % kinds.length]?.(number) ?? []
    return head(line, addressOf(number), ...more)
  })
  const seconds = () => (performance.now() - began) / 1000

  const waits: number[] = []
  while (seconds() < 5 || (guesser.count() < 5000 && seconds() < 40)) {
    for (const address of [BUSY, addressOf(waits.length), '192.0.2.1']) {
      const start = performance.now()
      const path = '/v1/images/alice/c/secret:latest?arch=amd64'
      const answer = await alice.call('GET', path, undefined, { 'x-forwarded-for': address })
      waits.push(performance.now() - start)
      expect(answer.status, answer.text).toBe(200)
      expect(answer.headers.get('retry-after')).toBeNull()
    }
    await sleep(20)
  }
  await guesser.stop()
  const took = seconds()
  const grown = rssOf(server.pid) - before

  const sorted = waits.toSorted((one, other) => one - other)
  const middle = sorted[sorted.length >> 1] ?? Infinity
  console.log(
    `${guesser.count()} guesses, ${Math.round(guesser.count() / took)} a second: ` +
      `${JSON.stringify(Object.fromEntries(guesser.statuses))}; ${waits.length} requests with the real token: ` +
      `median ${middle.toFixed(1)} ms, longest ${sorted.at(-1)?.toFixed(0)} ms; ` +
      `memory +${(grown / MIB).toFixed(0)} MiB; audit rows ${auditRows()}`,
  )
  expect(guesser.count()).toBeGreaterThanOrEqual(5000)
  // refused as guesses, as links and tickets that are nobody's, or as too many
  expect([...guesser.statuses.keys()].toSorted()).toEqual([401, 403, 404, 429])
  // behind what is under way at that moment, and nothing else
  expect(middle).toBeLessThan(250)
  expect(grown).toBeLessThan(128 * MIB)
  // a row a minute, address and kind: not one a guess (R57)
  expect(auditRows()).toBeLessThan(2 * kinds.length * ADDRESSES)
})

function auditRows(): number {
  const database = new Sqlite(join(data, 'sreg.sqlite3'), { readonly: true })
  try {
    return Number(database.prepare('SELECT count(*) FROM audit').pluck().get())
  } finally {
    database.close()
  }
}

const REQUESTS = 10_000
const PER_SECOND = 2000
/** A machine that does other things beside gets no further, and is asked less. */
const BUDGET_MS = 20_000
/** Bytes a second that a line of 1 Gbit/s carries. */
const LINE = 125_000_000

test('10,000 requests of a stranger slow no pull', { timeout: 150_000 }, async () => {
  const bytes = Buffer.concat([sampleSif({ content: 'large' }), randomBytes(32 * MIB)])
  await alice.push('alice/c/large', bytes, { privateCollection: true })
  const asks = [
    ['GET /v1/images/alice/c/large:latest?arch=amd64', `Authorization: Bearer ${bob}`],
    ['GET /v1/imagefile/alice/c/large:latest?arch=amd64'],
    ['DELETE /v1/images/alice/c/large:latest?arch=amd64', `Authorization: Bearer ${bob}`],
    ['GET /v1/containers/alice/c/large', `Authorization: Bearer ${bob}`],
  ]

  /** Milliseconds of a pull, at no more than so many bytes a second. */
  async function pull(rate: number): Promise<number> {
    const start = performance.now()
    const answer = await alice.call('GET', '/v1/imagefile/alice/c/large:latest?arch=amd64')
    expect(answer.status).toBe(303)
    const size = await read(answer.headers.get('location') ?? '', rate)
    expect(size).toBeGreaterThan(bytes.length)
    return performance.now() - start
  }
  /** Bytes of the answer to a ticket, head included. */
  async function read(ticket: string, rate: number): Promise<number> {
    const { hostname: host, port, pathname, search } = new URL(ticket, server.url)
    const socket = connect({ host, port: Number(port) })
    socket.write(head(`GET ${pathname}${search}`, '192.0.2.1', 'Connection: close').concat('\r\n'))
    const start = performance.now()
    let size = 0
    socket.on('data', (chunk) => {
      size += chunk.length
      const early = (size / rate) * 1000 - (performance.now() - start)
      if (early < 4) return
      socket.pause()
      setTimeout(() => socket.resume(), early)
    })
    await once(socket, 'close')
    return size
  }
  /**
   * How much longer pulls take while the stranger asks than in peace, in turn until all is asked. The
   * quarter of each that was fastest is compared: others use this machine, and slow both now and then.
   */
  async function slowdown(rate: number, requests: number): Promise<number> {
    const [quiet, loud]: [number[], number[]] = [[], []]
    const statuses = new Set<number>()
    const crawl = (perSecond: number) =>
      flood(
        server.url,
        (number) => {
          const [line = '', ...more] = asks[number % asks.length] ?? []
          return head(line, addressOf(number), ...more)
        },
        { perSecond },
      )
    // as much as leaves the server idle most of the time, however little of this machine it has
    const most = await crawl(Infinity)
    await sleep(500)
    await most.stop()
    const perSecond = Math.min(PER_SECOND, most.count() / 0.5 / 3)
    const began = performance.now()
    let asked = 0
    while (asked < requests && performance.now() - began < BUDGET_MS) {
      quiet.push(await pull(rate))
      const stranger = await crawl(perSecond)
      loud.push(await pull(rate))
      await stranger.stop()
      asked += stranger.count()
      for (const status of stranger.statuses.keys()) statuses.add(status)
    }
    expect([...statuses]).toEqual([404])
    const fast = (times: number[]) =>
      times.toSorted((one, other) => one - other)[times.length >> 2] ?? Infinity
    const ratio = fast(loud) / fast(quiet)
    console.log(
      `${loud.length} pulls while ${perSecond.toFixed(0)} requests a second are refused (${asked} in all): ${fast(loud).toFixed(0)} ms, ` +
        `in peace ${fast(quiet).toFixed(0)} ms: ratio ${ratio.toFixed(2)} at ${rate === LINE ? '1 Gbit/s' : 'the speed of loopback'}`,
    )
    return ratio
  }

  for (let time = 0; time < 3; time += 1) await pull(Infinity)
  let ratio = await slowdown(LINE, REQUESTS)
  for (let again = 0; again < 2 && ratio > 1.2; again += 1) ratio = await slowdown(LINE, REQUESTS)
  expect(ratio).toBeLessThanOrEqual(1.2)
  // what one processor shares between both can only be told
  await slowdown(Infinity, REQUESTS / 4)
})
