/** Peers that send or read slowly: they hold nobody up, and are cut off only for their own fault (R48, R49). */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import type { Server } from 'node:http'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, describe, expect, test } from 'vitest'
import { memoryBlobs } from '../../adapters/blobs/memory.ts'
import { openDatabase } from '../../adapters/databases/better-sqlite3.ts'
import { migrations } from '../../adapters/node/main.ts'
import { listen } from '../../adapters/node/server.ts'
import { nodeTransfer } from '../../adapters/node/transfer.ts'
import { memoryLimiter } from '../../adapters/limits/memory.ts'
import { randomIds, systemClock } from '../../adapters/system.ts'
import { createAdmin, tokenIssuer, tokenVerifier } from '../../src/admin.ts'
import { createApp } from '../../src/app.ts'
import { parseConfig } from '../../src/config.ts'
import type { BlobStore } from '../../src/ports.ts'
import { buildSif, partition, sampleSif } from '../fixtures/sif.ts'
import { expectData } from '../protocol/answers.ts'
import { libraryClient, sha256, type LibraryClient } from '../protocol/client.ts'
import { rawRequest } from '../protocol/raw.ts'
import { mint, startServer } from './process.ts'

const MIB = 1024 * 1024

const after: (() => unknown)[] = []
afterEach(async () => {
  for (const work of after.splice(0).toReversed()) await work()
})

async function startProcess() {
  const data = await mkdtemp(join(tmpdir(), 'sreg-slow-'))
  after.push(() => rm(data, { recursive: true }))
  const server = await startServer({ data })
  after.push(() => server.kill())
  return { server, client: libraryClient(server.url, await mint(data, 'alice')) }
}

/** A connection that the test drops at its end, and that may be reset before. */
async function open(url: string): Promise<Socket> {
  const { hostname, port } = new URL(url)
  const socket = connect({ host: hostname, port: Number(port) })
  socket.on('error', () => undefined)
  after.push(() => socket.destroy())
  await once(socket, 'connect')
  return socket
}

async function pull(client: LibraryClient, ref: string): Promise<string> {
  const answer = await fetch(`${client.url}/v1/imagefile/${ref}?arch=amd64`)
  return sha256(new Uint8Array(await answer.arrayBuffer()))
}

test(
  'R48: 500 slow sockets stop nobody, and slow headers are cut off',
  { timeout: 60_000 },
  async () => {
    const { server, client } = await startProcess()
    await client.push('alice/c/warm', sampleSif({ content: 'warm' }))
    const began = performance.now()
    const slow = await Promise.all(Array.from({ length: 500 }, () => open(server.url)))
    const half = slow.length / 2
    for (const socket of slow.slice(0, half)) socket.write('GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ')
    for (const socket of slow.slice(half))
      socket.write(
        `POST /v1/entities HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${client.token}\r\nContent-Length: 1000\r\n\r\n{`,
      )
    const trickle = setInterval(() => {
      for (const socket of slow) if (socket.writable) socket.write(' ')
    }, 10_000)
    after.push(() => clearInterval(trickle))
    await sleep(500)

    const bytes = sampleSif({ content: 'meanwhile' })
    const before = performance.now()
    await client.push('alice/c/meanwhile', bytes)
    expect(await pull(client, 'alice/c/meanwhile')).toBe(sha256(bytes))
    expect(performance.now() - before).toBeLessThan(2000)

    const answers = await Promise.all(
      slow.slice(0, half).map(async (socket) => {
        let text = ''
        for await (const chunk of socket) text += String(chunk)
        return text
      }),
    )
    for (const text of answers) expect(text).toMatch(/^HTTP\/1\.1 408 [^]*longer than 20 s/)
    expect(performance.now() - began).toBeGreaterThan(19_000)
    expect(slow.slice(half).every((socket) => !socket.destroyed && !socket.readableEnded)).toBe(
      true,
    )
  },
)

test('R49: 200 readers that stop take less than 150 MB', async () => {
  const { server, client } = await startProcess()
  const small = buildSif({ objects: [partition()] }).length
  const bytes = buildSif({ objects: [partition()], trailing: 64 * MIB - small })
  await client.push('alice/c/large', bytes)
  const rss = async () => {
    const status = await readFile(`/proc/${server.pid}/status`, 'utf8')
    return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1024
  }
  expect(await pull(client, 'alice/c/large')).toBe(sha256(bytes))
  const before = await rss()
  const asked = await client.call('GET', '/v1/imagefile/alice/c/large?arch=amd64')
  expect(asked.status).toBe(303)
  const { pathname, search } = new URL(asked.headers.get('location') ?? '')
  for (let i = 0; i < 200; i++) {
    const socket = await open(server.url)
    socket.pause()
    socket.write(`GET ${pathname}${search} HTTP/1.1\r\nHost: x\r\n\r\n`)
  }
  let most = 0
  for (let i = 0; i < 20; i++) {
    await sleep(100)
    most = Math.max(most, await rss())
  }
  console.log(`200 stalled readers: ${Math.round((most - before) / MIB)} MiB more`)
  expect(most - before).toBeLessThan(150e6)
  expect(await pull(client, 'alice/c/large')).toBe(sha256(bytes))
})

describe('R48: the watchdog, scaled down', () => {
  const RATE = { bytesPerSecond: 8192, seconds: 0.6 }

  /** A registry in memory behind the real server. */
  async function start(blobs: BlobStore = memoryBlobs()) {
    const registryId = randomIds.next()
    const { x, d } = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' })
    const key = { kty: 'OKP', crv: 'Ed25519', x, kid: 'test' }
    const opened = await openDatabase(':memory:', { mode: 'server', migrations: migrations() })
    await blobs.writeId(registryId)
    const { database } = opened
    const shared = { database, blobs, registryId, clock: systemClock, ids: randomIds }
    const lines: string[] = []
    const log = { event: (_: string, name: string) => void lines.push(name) }
    const app = createApp({
      ...shared,
      config: parseConfig({ SREG_MIN_FREE: '0' }),
      version: '0.0.0-test',
      secret: 'a secret of more than thirty-two characters',
      verifier: tokenVerifier({ ...shared, keys: [key] }),
      keys: [key],
      issuer: tokenIssuer({ registryId, signingKey: { ...key, d } }),
      transfer: nodeTransfer(),
      limiter: memoryLimiter({ clock: systemClock }),
      ended: { has: () => false },
      log,
    })
    const server = await listen({
      fetch: app.fetch,
      host: '127.0.0.1',
      port: 0,
      graceSeconds: 0,
      maxConnections: 64,
      trustedProxies: [],
      log,
      minimumRate: RATE,
    })
    after.push(async () => {
      await server.close()
      opened.close()
    })
    const issuer = tokenIssuer({ registryId, signingKey: { ...key, d } })
    const admin = createAdmin({ ...shared, issuer })
    await admin.addUser('alice', { admin: false })
    const expires = new Date(Date.now() + 60_000)
    const token = { user: 'alice', name: 'test', expires, scopes: null }
    const client = libraryClient(server.url, (await admin.createToken(token)).jwt)

    /** A PUT of an image whose bytes the caller sends. */
    async function put(bytes: Uint8Array) {
      const { container } = await client.ensure('alice', 'c', 'n')
      const hash = sha256(bytes)
      const draft = { hash: `sha256.${hash}`, container }
      const { id } = expectData(await client.call('POST', '/v1/images', draft))
      const plan = { filesize: bytes.length, sha256sum: hash }
      const { uploadURL } = expectData(await client.call('POST', `/v2/imagefile/${id}`, plan))
      const { pathname, search } = new URL(uploadURL)
      const head = [`PUT ${pathname}${search} HTTP/1.1`, `Content-Length: ${bytes.length}`]
      const complete = () => client.call('PUT', `/v2/imagefile/${id}/_complete`, {})
      return { ...rawRequest(server.url, head), complete }
    }
    return { client, lines, put }
  }

  /** Sends at a steady rate until the end, or until the connection is closed. */
  async function send(socket: Socket, bytes: Uint8Array, bytesPerSecond: number): Promise<void> {
    const tick = 50
    const step = Math.ceil((bytesPerSecond * tick) / 1000)
    for (let at = 0; at < bytes.length && !socket.destroyed; at += step) {
      socket.write(bytes.subarray(at, at + step))
      await sleep(tick)
    }
  }

  test('a sender above the minimum rate takes as long as it takes', async () => {
    const { put } = await start()
    const bytes = sampleSif()
    const { socket, answer, complete } = await put(bytes)
    const before = performance.now()
    await send(socket, bytes, RATE.bytesPerSecond * 1.6)
    expect((await answer).status).toBe(200)
    expect(performance.now() - before).toBeGreaterThan(3 * RATE.seconds * 1000)
    expect((await complete()).status).toBe(200)
  })

  test('a sender below it is closed, and leaves nothing', async () => {
    const blobs = memoryBlobs()
    const { put, lines } = await start(blobs)
    const bytes = sampleSif()
    const slow = await put(bytes)
    await send(slow.socket, bytes, RATE.bytesPerSecond / 4)
    expect(await slow.answer).toMatchObject({ status: 0, complete: false })
    expect(lines).toContain('too-slow')
    expect((await blobs.list(null, 10)).blobs).toEqual([])
    expect((await slow.complete()).status).toBe(409)
  })

  test('a completion that takes long on a silent connection is waited for', async () => {
    const memory = memoryBlobs()
    const pause = 5 * RATE.seconds * 1000
    const slow: BlobStore = {
      ...memory,
      async head(key) {
        await sleep(pause)
        return memory.head(key)
      },
    }
    const { put, lines } = await start(slow)
    const bytes = sampleSif()
    const { socket, answer, complete } = await put(bytes)
    socket.write(bytes)
    expect((await answer).status).toBe(200)
    const before = performance.now()
    expect((await complete()).status).toBe(200)
    expect(performance.now() - before).toBeGreaterThan(pause)
    expect(lines).not.toContain('too-slow')
  })

  test("Node's own limits: none for requests, 20 s for headers", async () => {
    let server: Server | undefined
    const heard = (message: unknown) => (server = (message as { server: Server }).server)
    subscribe('http.server.request.start', heard)
    after.push(() => unsubscribe('http.server.request.start', heard))
    const { client } = await start()
    await client.call('GET', '/healthz')
    expect(server).toMatchObject({ requestTimeout: 0, headersTimeout: 20_000, timeout: 0 })
  })
})
