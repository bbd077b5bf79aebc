/**
 * Small requests on one core: lookups of an image beside a bare route with the same statement, and what
 * else clients ask for again and again. Our log is on, as in production.
 */
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import BetterSqlite3 from 'better-sqlite3'
import {
  cpuSeconds,
  findProgram,
  freePort,
  pinned,
  requestRate,
  send,
  serve,
  SERVER_CORE,
  type Server,
} from '../measure.ts'
import { makePayload, type Payload } from '../content/payload.ts'
import type { Measured, Missing } from '../report.ts'
import { inRounds, recorder, rotate, type Bench } from '../rounds.ts'
import { ociRegistries, repositories } from '../systems/distribution.ts'
import { nginx } from '../systems/nginx.ts'
import { ownFolder, startAll, stopAll, type Registry, type Source } from '../systems/registry.ts'
import { ours, OURS, type Sreg } from '../systems/sreg.ts'

type Target = {
  what: string
  server: Server
  url: string
  headers?: Record<string, string>
  /** 64 unless told. */
  connections?: number
}

type Found = { data: { id: string } }

const BARE = 'bare Hono'
/** Says how much of the slowest answers is Node's and the machine's. */
const BARE_HTTP = 'bare node:http'

/** So few that a request waits for few others, and the server for none. */
const FEW = { what: 'by tag, 8 connections', connections: 8 }

/** By tag, tag and arch, and hash, anonymous and with a token. */
export function lookup(bench: Bench): Promise<Measured> {
  const { say } = bench
  return measure(bench, async (payload, started) => {
    const sregs = await started(ours(OURS, { pin: true, log: true }))
    const others = await started<Source>([nginx({ pin: true }), ...ociRegistries({ pin: true })])
    const targets: Target[] = []
    for (const server of sregs) {
      await server.publish(payload)
      const at = `${server.base}/v1/images/${server.pathOf('n')}`
      const headers = { Authorization: `Bearer ${server.token}` }
      for (const [what, url] of [
        ['by tag', `${at}:bench`],
        ['by tag and arch', `${at}:bench?arch=amd64`],
        ['by hash', `${at}:sha256.${payload.sha256}`],
      ] as const)
        targets.push({ what, server, url }, { what: `${what}, with a token`, server, url, headers })
      targets.push({ ...FEW, server, url: `${at}:bench` })
    }
    const [first] = sregs
    if (first !== undefined) {
      const path = `/v1/images/${first.pathOf('n')}:bench`
      const ours = (await send('GET', first.base + path)).body
      const size = Buffer.byteLength(ours)
      const [server, constant] = await started([
        { name: BARE, start: (place) => startBare(first, place), hint: '' },
        { name: BARE_HTTP, start: (place) => startBareHttp(size, place), hint: '' },
      ])
      if (server === undefined || constant === undefined)
        throw new Error('bare.ts and bare-http.ts are always there')
      const theirs = (await send('GET', server.base + path)).body
      const ids = [ours, theirs].map((body) => (JSON.parse(body) as Found).data.id)
      if (ids[0] !== ids[1]) throw new Error(`bare.ts finds ${ids[1]} instead of ${ids[0]}`)
      const target = { server, url: server.base + path }
      // it looks at no token, but has to read it
      const headers = { Authorization: `Bearer ${first.token}` }
      targets.push(
        { what: 'by tag', ...target },
        { what: 'by tag, with a token', ...target, headers },
        { ...FEW, ...target },
        { what: 'by tag', server: constant, url: constant.base },
        { ...FEW, server: constant, url: constant.base },
      )
    }
    for (const server of others) {
      const { url, headers } = (await server.publish(payload)).lookup
      const what = server.name === 'nginx' ? 'file of 1 KiB' : 'manifest by tag'
      targets.push({ what, server, url, ...(headers && { headers }) })
    }
    say('each server on one core, the load on another')
    return { targets, peers: [BARE, 'nginx', 'docker-registry'] }
  })
}

/** Search, token check, manifest and a small blob by OCI. */
export function metadata(bench: Bench): Promise<Measured> {
  return measure(bench, async (payload, started) => {
    const sregs = await started(ours(OURS, { pin: true, log: true }))
    const registries = await started<Registry>(ociRegistries({ pin: true }))
    const targets: Target[] = []
    const oci = (server: Server, lookup: { url: string; headers?: Record<string, string> }) => {
      const config = `sha256:${createHash('sha256').update('{}').digest('hex')}`
      const url = lookup.url.replace(/manifests\/.*/, `blobs/${config}`)
      targets.push(
        { what: '/v2 manifest by tag', server, ...lookup },
        { what: '/v2 blob of 2 bytes', server, url },
      )
    }
    for (const server of sregs) {
      const headers = { Authorization: `Bearer ${server.token}` }
      oci(server, (await repositories(server.base, headers).publish(payload)).lookup)
      targets.push(
        { what: 'search', server, url: `${server.base}/v1/search?value=bench` },
        { what: 'token check', server, url: `${server.base}/v1/token-status`, headers },
      )
    }
    for (const server of registries) oci(server, (await server.publish(payload)).lookup)
    return { targets, peers: ['docker-registry'] }
  })
}

type Started = <T extends Server>(candidates: Parameters<typeof startAll<T>>[0]) => Promise<T[]>

/** Asks every target in every round, each of the same `what` after the other. */
async function measure(
  bench: Bench,
  prepare: (payload: Payload, started: Started) => Promise<{ targets: Target[]; peers: string[] }>,
): Promise<Measured> {
  const { folder, say, seconds } = bench
  const { rows, add } = recorder(bench)
  const running: Server[] = []
  const missing: Missing[] = []
  if (findProgram('wrk') === null) {
    const why = 'apt-get install wrk; a loop in Node asked instead, and is the limit'
    say(`wrk is not installed: ${why}`)
    missing.push({ system: 'wrk', why })
  }
  try {
    const payload = await makePayload(join(folder, 'payload.sif'), 2 ** 20)
    const { targets, peers } = await prepare(payload, async (candidates) => {
      const found = await startAll(candidates, ownFolder(folder), say)
      running.push(...found.systems)
      missing.push(...found.missing)
      return found.systems
    })
    for (const { url, headers = {}, connections } of targets) {
      const { status, body } = await send('GET', url, { headers })
      if (status !== 200) throw new Error(`${url} answered ${status}: ${body}`)
      // what runs for the first time is compiled first
      await requestRate(url, headers, 1, connections)
    }
    const whats = [...new Set(targets.map(({ what }) => what))]
    await inRounds(bench, async (round) => {
      for (const what of whats)
        for (const target of rotate(
          targets.filter((one) => one.what === what),
          round,
        )) {
          const { server, url, headers = {}, connections } = target
          const before = cpuSeconds(server.pid)
          const { rate, p99 } = await requestRate(url, headers, seconds, connections)
          const cpu = ((cpuSeconds(server.pid) - before) * 1e6) / (rate * seconds)
          const row = { what, system: server.name, unit: 'requests/s', cpuUnit: 'µs/request' }
          add(row, { round, value: rate, p99, cpu })
        }
    })
    return { rows, peers, missing }
  } finally {
    await stopAll(running)
  }
}

/** bare.ts on a copy of the server's database, on the core of servers. */
async function startBare(of: Sreg, folder: string): Promise<Server> {
  const copy = join(folder, 'copy.sqlite3')
  const source = new BetterSqlite3(join(of.data, 'sreg.sqlite3'), { readonly: true })
  await source.backup(copy)
  source.close()
  return startProgram(BARE, folder, 'bare.ts', (port) => [copy, port])
}

/** bare-http.ts with answers of so many bytes, on the core of servers. */
const startBareHttp = (bytes: number, folder: string): Promise<Server> =>
  startProgram(BARE_HTTP, folder, 'bare-http.ts', (port) => [port, String(bytes)])

/** A server of `bench/systems/`, on the core of servers. */
async function startProgram(
  name: string,
  folder: string,
  file: string,
  argsOf: (port: string) => string[],
): Promise<Server> {
  const port = await freePort()
  const base = `http://127.0.0.1:${port}`
  const program = fileURLToPath(new URL(`../systems/${file}`, import.meta.url))
  const command = [process.execPath, program, ...argsOf(String(port))]
  const [first = process.execPath, ...args] = pinned(SERVER_CORE, command)
  return { name, base, ...(await serve(folder, first, args, base)) }
}
