import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'vitest'
import { buildSif, sampleSif } from '../fixtures/sif.ts'
import { libraryClient } from '../protocol/client.ts'
import { flood } from './flood.ts'
import { mint, startServer } from './process.ts'
import { randomBytes } from 'node:crypto'
import { connect } from 'node:net'
import { once } from 'node:events'

test('probe', { timeout: 120000 }, async () => {
  const data = await mkdtemp(join(tmpdir(), 'sreg-guess-'))
  const server = await startServer({ data, env: { SREG_TRUSTED_PROXIES: '127.0.0.1', SREG_LOG: process.env['SREG_TEST_LOG'] ?? 'json' } })
  const alice = libraryClient(server.url, await mint(data, 'alice'))
  await alice.push('alice/c/small', sampleSif({ content: 'x' }), { privateCollection: true })
  await alice.push('alice/c/n', Buffer.concat([sampleSif({ content: 'x' }), randomBytes(32<<20)]))
  async function pull(ref: string) {
    const a = await alice.call('GET', `/v1/imagefile/${ref}:latest?arch=amd64`)
    const u = new URL(a.headers.get('location')!, server.url)
    const { hostname: host, port } = u
    const socket = connect({ host, port: Number(port) })
    socket.write(`GET ${u.pathname}${u.search} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`)
    let n = 0
    socket.on('data', (c) => (n += c.length))
    await once(socket, 'close')
    return n
  }
  async function time(ref: string, times: number) {
    const t0 = performance.now()
    let n = 0
    for (let i = 0; i < times; i++) n += await pull(ref)
    return [performance.now() - t0, n] as const
  }
  for (const [ref, times] of [['alice/c/n', 30], ['alice/c/small', 300]] as const) {
    await time(ref, 5)
    for (const perSecond of [400, 1000, 2000]) {
      const out = []
      for (let i = 0; i < 3; i++) {
        const [quiet, n] = await time(ref, times)
        const f = await flood(server.url, () => `GET /v1/imagefile/alice/c/small:latest?arch=amd64 HTTP/1.1\r\nHost: x\r\n`, { perSecond })
        const [loud] = await time(ref, times)
        await f.stop()
        out.push(`${quiet.toFixed(0)} ${loud.toFixed(0)} ${(loud / quiet).toFixed(2)} (${f.count()}, ${(n / quiet / 1000).toFixed(0)} MB/s)`)
      }
      console.log('RATE', ref, perSecond, out)
    }
  }
  await server.kill()
  await rm(data, { recursive: true })
})
