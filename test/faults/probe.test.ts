import { mkdtemp, rm } from 'node:fs/promises'
import { readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { test } from 'vitest'
import { sampleSif } from '../fixtures/sif.ts'
import { libraryClient } from '../protocol/client.ts'
import { rssOf } from '../runtimes/host-target.ts'
import { flood } from './flood.ts'
import { mint, startServer } from './process.ts'

const cpu = (pid: number) => {
  const f = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ')
  return (Number(f[11]) + Number(f[12])) * 10
}
test('probe', { timeout: 120000 }, async () => {
  const data = await mkdtemp(join(tmpdir(), 'sreg-guess-'))
  const server = await startServer({ data, env: { SREG_TRUSTED_PROXIES: '127.0.0.1', SREG_LOG: process.env['SREG_TEST_LOG'] ?? 'json' } })
  const alice = libraryClient(server.url, await mint(data, 'alice'))
  await alice.push('alice/c/n', sampleSif({ content: 'x' }), { privateCollection: true })
  const stranger = await mint(data, 'bob')
  const [h, p] = alice.token!.split('.')
  const kinds: Record<string, (n: number) => string> = {
    guess: (n) => `GET /v1/entities HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.${(n >> 8) & 7}.${n & 255}\r\nAuthorization: Bearer ${h}.${p}.${Buffer.from(`guess ${n}`.padEnd(64)).toString('base64url')}\r\n`,
    denied: () => `GET /v1/images/alice/c/n:latest?arch=amd64 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${stranger}\r\n`,
    anon: () => `GET /v1/imagefile/alice/c/n:latest?arch=amd64 HTTP/1.1\r\nHost: x\r\n`,
    post: () => `DELETE /v1/images/alice/c/n:latest?arch=amd64 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${stranger}\r\n`,
    version: () => `GET /version HTTP/1.1\r\nHost: x\r\n`,
    nothing: () => `GET /v1/nothing HTTP/1.1\r\nHost: x\r\n`,
  }
  for (const [name, next] of Object.entries(kinds)) {
    const before = rssOf(server.pid), c0 = cpu(server.pid), t0 = performance.now()
    const f = await flood(server.url, next)
    await sleep(3000)
    await f.stop()
    const s = (performance.now() - t0) / 1000
    console.log(name, f.count(), 'per s', Math.round(f.count() / s), 'cpu ms/req', ((cpu(server.pid) - c0) / f.count()).toFixed(3), [...f.statuses], 'rss', before >> 20, rssOf(server.pid) >> 20)
  }
  await server.kill()
  await rm(data, { recursive: true })
})
