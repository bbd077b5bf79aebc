/** Lookups in a large keystore: our built server beside Debian's sks, each pinned to one core. */
import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs'
import { Agent } from 'node:http'
import { join } from 'node:path'
import { sql } from 'drizzle-orm'
import { connect } from '../../adapters/databases/better-sqlite3.ts'
import { findArmor, readArmor, readPackets } from '../../src/core/packets.ts'
import { builder } from '../../src/sqlite/index.ts'
import { indexKeys, nameKeys } from '../../src/sqlite/keys.ts'
import { fingerprintOf, makeKeys, type BenchKey } from '../content/keyring.ts'
import { cpuSeconds, findProgram, onLoadCore, send, type Server } from '../measure.ts'
import { quantile, type Measured, type Missing } from '../report.ts'
import { expectTime, inRounds, recorder, rotate, type Bench } from '../rounds.ts'
import { stopAll } from '../systems/registry.ts'
import { startSks } from '../systems/sks.ts'
import { startSreg } from '../systems/sreg.ts'

/** Keys in a file of a dump, as sks writes them itself. */
const PER_FILE = 15_000

const CASES: { name: string; query: (key: BenchKey) => string }[] = [
  { name: 'get by fingerprint', query: (key) => `op=get&search=0x${key.fingerprint}` },
  { name: 'get by subkey id', query: (key) => `op=get&search=0x${key.subkeyId}` },
  { name: 'index by e-mail', query: (key) => `op=index&search=${encodeURIComponent(key.email)}` },
]
const MODES = [
  { label: '1 kept connection', connections: 1, keepAlive: true },
  { label: '8 kept connections', connections: 8, keepAlive: true },
  { label: '1 new connection', connections: 1, keepAlive: false },
  { label: '8 new connections', connections: 8, keepAlive: false },
]

/**
 * Makes `keys` keys, stores them in both servers, and asks each of them `requests` times per case,
 * number of connections and round. An answer without the key asked for throws.
 */
export function keys(bench: Bench): Promise<Measured> {
  return onLoadCore(() => measured(bench))
}

async function measured(bench: Bench): Promise<Measured> {
  const { folder, keys: count, requests, say } = bench
  const sks = findProgram('sks')
  const missing: Missing[] = []
  if (sks === null) {
    missing.push({ system: 'sks', why: 'apt-get install sks' })
    say('sks will be missing from the table: apt-get install sks')
  }

  const dump = join(folder, 'dump')
  mkdirSync(dump)
  const sreg = await prepareSreg(join(folder, 'sreg-lite'))
  say(`making and storing ${count} keys`)
  const keys = await fill(sreg.database, dump, bench)
  const servers: Server[] = []
  try {
    servers.push(await sreg.start())
    if (sks !== null) {
      say('sks build')
      servers.push(await startSks(sks, join(folder, 'sks'), dump))
    }
    // what runs for the first time is compiled and read from the disk first, in both
    for (const server of servers)
      for (const { query } of CASES)
        await ask(server.base, keys.slice(0, requests), query, { connections: 8, keepAlive: false })
    const { rows, add } = recorder(bench)
    await inRounds(bench, async (round) => {
      for (const { name, query } of CASES)
        for (const { label, ...mode } of MODES)
          for (const server of rotate(servers, round)) {
            // sks speaks HTTP/1.0: it ends a connection with its answer
            if (server.name === 'sks' && mode.keepAlive) continue
            const asked = Array.from(
              { length: requests },
              () => keys[Math.floor(Math.random() * keys.length)] as BenchKey,
            )
            const before = cpuSeconds(server.pid)
            const { times, rate } = await ask(server.base, asked, query, mode)
            const cpu = ((cpuSeconds(server.pid) - before) * 1e6) / requests
            const row = { what: `${name}, ${label}`, system: server.name, unit: 'requests/s' }
            const sample = { round, value: rate, p99: quantile(times, 0.99), cpu }
            add({ ...row, cpuUnit: 'µs/request' }, sample)
          }
    })
    const notes = [`Of ${count} keys, rounds of ${requests} requests.`]
    return { rows, peers: ['sks'], missing, notes }
  } finally {
    await stopAll(servers)
  }
}

// --- asking --------------------------------------------------------------------------------------

async function ask(
  base: string,
  asked: BenchKey[],
  query: (key: BenchKey) => string,
  mode: { connections: number; keepAlive: boolean },
): Promise<{ times: number[]; rate: number }> {
  const agent = new Agent({ keepAlive: mode.keepAlive, maxSockets: mode.connections })
  const answers: { key: BenchKey; url: string; status: number; body: string }[] = []
  const times: number[] = []
  let next = 0
  const worker = async () => {
    for (let key = asked[next++]; key !== undefined; key = asked[next++]) {
      const url = `${base}/pks/lookup?${query(key)}&options=mr`
      const start = performance.now()
      const { status, body } = await send('GET', url, { agent })
      times.push(performance.now() - start)
      answers.push({ key, url, status, body })
    }
  }
  const start = performance.now()
  await Promise.all(Array.from({ length: mode.connections }, worker))
  const rate = asked.length / ((performance.now() - start) / 1000)
  agent.destroy()
  // afterwards, so that looking costs no request its time
  for (const { key, url, status, body } of answers)
    if (status !== 200 || !holds(body, key))
      throw new Error(`${url} answered ${status} without ${key.fingerprint}: ${body}`)
  return { times, rate }
}

/** An armor of that one key, or an index of it; sks names keys in an index by their ids. */
function holds(body: string, { fingerprint }: BenchKey): boolean {
  const found = findArmor(body, 0)
  if (found !== null) {
    const [primary] = readPackets(readArmor(body, found).bytes)
    return primary !== undefined && fingerprintOf(primary.body) === fingerprint
  }
  const listed = [...body.matchAll(/^pub:([0-9A-F]{8,40}):/gim)].map(([, name]) => name ?? '-')
  return listed.length === 1 && fingerprint.endsWith((listed[0] ?? '-').toUpperCase())
}

// --- storing -------------------------------------------------------------------------------------

/**
 * Writes keys as a dump and, in one transaction, as rows of our database with the names and the
 * full-text index that the server's own statements make of them.
 */
async function fill(database: string, dump: string, bench: Bench): Promise<BenchKey[]> {
  const connection = connect(database, { create: false })
  const now = Date.now()
  const keys: BenchKey[] = []
  let file = -1
  try {
    connection.exec('BEGIN IMMEDIATE')
    const put = connection.prepare(
      'insert into keys (fingerprint, revision, added_at, updated_at, facts, armor) values (?, 1, ?, ?, ?, ?)',
    )
    for await (const { binary, armor, facts, ...key } of makeKeys(bench.keys)) {
      if (keys.length % PER_FILE === 0) {
        expectTime(bench)
        if (file !== -1) closeSync(file)
        const name = String(keys.length / PER_FILE).padStart(4, '0')
        file = openSync(join(dump, `${name}.pgp`), 'w')
      }
      writeSync(file, binary)
      put([key.fingerprint, now, now, facts, armor])
      keys.push(key)
    }
    for (const index of [nameKeys, indexKeys]) {
      const { query, values } = index(builder(), sql`select seq from keys`)()
      connection.prepare(query.sql)(query.bind(values))
    }
    connection.exec('COMMIT')
  } finally {
    if (file !== -1) closeSync(file)
    connection.close()
  }
  return keys
}

/** Our server has begun once, so that its database stands, and has ended again. */
async function prepareSreg(folder: string) {
  mkdirSync(folder)
  const server = await startSreg(folder, { pin: true })
  await server.stop()
  return {
    database: join(server.data, 'sreg.sqlite3'),
    start: () => startSreg(folder, { pin: true }),
  }
}
