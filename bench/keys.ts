/** Lookups in a large keystore: our built server beside Debian's sks, each pinned to one core. */
import { mkdirSync, openSync, closeSync, writeSync, writeFileSync } from 'node:fs'
import { Agent } from 'node:http'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { sql } from 'drizzle-orm'
import { connect } from '../adapters/databases/better-sqlite3.ts'
import { findArmor, readArmor, readPackets } from '../src/core/packets.ts'
import { builder } from '../src/sqlite/index.ts'
import { indexKeys, nameKeys } from '../src/sqlite/keys.ts'
import { fingerprintOf, makeKeys, type BenchKey } from './keyring.ts'
import { cpuSeconds, findProgram, freePort, run, send } from './measure.ts'
import { serve } from './systems.ts'

const SERVER_CORE = '0'
const CLIENT_CORE = '1'
/** Keys in a file of a dump, as sks writes them itself. */
const PER_FILE = 15_000

type Server = { name: string; base: string; pid: number; stop: () => Promise<void> }

const CASES: { name: string; query: (key: BenchKey) => string }[] = [
  { name: 'get by fingerprint', query: (key) => `op=get&search=0x${key.fingerprint}` },
  { name: 'get by subkey id', query: (key) => `op=get&search=0x${key.subkeyId}` },
  { name: 'index by e-mail', query: (key) => `op=index&search=${encodeURIComponent(key.email)}` },
]
const MODES = [
  { label: '1 kept', connections: 1, keepAlive: true },
  { label: '8 kept', connections: 8, keepAlive: true },
  { label: '1 new', connections: 1, keepAlive: false },
  { label: '8 new', connections: 8, keepAlive: false },
]

/** Of each round: milliseconds of every request, requests per second, processor ms per request. */
type Row = {
  case: string
  system: string
  label: string
  times: number[][]
  rates: number[]
  cpu: number[]
}

/**
 * Makes `count` keys, stores them in both servers, and asks each of them `requests` times per case,
 * number of connections and round. An answer without the key asked for throws. `folder` is emptied
 * by the caller.
 */
export async function benchKeys(
  folder: string,
  options: { count: number; rounds: number; requests: number; say: (line: string) => void },
): Promise<{ table: string; rows: object[] }> {
  const { count, rounds, requests, say } = options
  const taskset = findProgram('taskset')
  if (taskset === null) throw new Error('taskset is missing: apt-get install util-linux')
  await run(taskset, ['-acp', CLIENT_CORE, String(process.pid)])
  const sks = findProgram('sks')
  if (sks === null)
    say('sks is not installed and will be missing from the table; to have it: apt-get install sks')

  const dump = join(folder, 'dump')
  mkdirSync(dump)
  const sreg = await prepareSreg(join(folder, 'sreg-lite'), taskset)
  say(`making and storing ${count} keys`)
  const keys = await fill(sreg.database, dump, count)
  const servers: Server[] = []
  try {
    servers.push(await sreg.start())
    if (sks !== null) {
      say('sks build')
      servers.push(await startSks(sks, taskset, join(folder, 'sks'), dump))
    }
    // what runs for the first time is compiled and read from the disk first, in both
    for (const server of servers)
      for (const { query } of CASES)
        await ask(server.base, keys.slice(0, requests), query, { connections: 8, keepAlive: false })
    const rows: Row[] = []
    for (let round = 0; round < rounds; round++)
      for (const { name, query } of CASES)
        for (const mode of MODES)
          for (const at of servers.keys()) {
            const server = servers[(at + round) % servers.length] as Server
            // sks speaks HTTP/1.0: it ends a connection with its answer
            if (server.name === 'sks' && mode.keepAlive) continue
            const asked = Array.from(
              { length: requests },
              () => keys[Math.floor(Math.random() * keys.length)] as BenchKey,
            )
            const before = cpuSeconds(server.pid)
            const { times, rate } = await ask(server.base, asked, query, mode)
            const cpu = ((cpuSeconds(server.pid) - before) * 1000) / requests
            const same = (row: Row) =>
              row.case === name && row.system === server.name && row.label === mode.label
            let row = rows.find(same)
            if (row === undefined) {
              row = {
                case: name,
                system: server.name,
                label: mode.label,
                times: [],
                rates: [],
                cpu: [],
              }
              rows.push(row)
            }
            row.times.push(times)
            row.rates.push(rate)
            row.cpu.push(cpu)
            say(
              `  ${round + 1}: ${name}, ${mode.label}, ${server.name}: ${rate.toFixed(0)}/s, p99 ${quantile(times, 0.99).toFixed(2)} ms`,
            )
          }
    const summaries = rows.map(summarise)
    return { table: table(summaries), rows: summaries }
  } finally {
    await Promise.all(servers.map((server) => server.stop()))
  }
}

function quantile(numbers: number[], part: number): number {
  const sorted = numbers.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN
}

function summarise({ times, rates, cpu, ...row }: Row) {
  const all = times.flat()
  return {
    ...row,
    median: quantile(all, 0.5),
    p99: quantile(all, 0.99),
    worstRoundP99: Math.max(...times.map((round) => quantile(round, 0.99))),
    rate: quantile(rates, 0.5),
    rates,
    cpu: quantile(cpu, 0.5),
  }
}

function table(rows: ReturnType<typeof summarise>[]): string {
  const heads =
    'case|connections|system|median ms|p99 ms|p99 of the worst round|CPU ms/request|requests/s|× sks, requests/s'
  const lines = [heads.split('|'), heads.split('|').map(() => '---')]
  for (const { name } of CASES)
    for (const { label } of MODES)
      for (const row of rows.filter((row) => row.case === name && row.label === label)) {
        // against sks with as many connections, which are new ones always
        const peer = rows.find(
          (one) =>
            one.system === 'sks' && one.case === name && one.label === label.replace('kept', 'new'),
        )
        lines.push([
          name,
          label,
          row.system,
          row.median.toFixed(2),
          row.p99.toFixed(2),
          row.worstRoundP99.toFixed(2),
          row.cpu.toFixed(2),
          row.rate.toFixed(0),
          peer === undefined || row.system === 'sks' ? '' : (row.rate / peer.rate).toFixed(2),
        ])
      }
  return lines.map((cells) => `| ${cells.join(' | ')} |`).join('\n')
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
async function fill(database: string, dump: string, count: number): Promise<BenchKey[]> {
  const connection = connect(database, { create: false })
  const now = Date.now()
  const keys: BenchKey[] = []
  let file = -1
  try {
    connection.exec('BEGIN IMMEDIATE')
    const put = connection.prepare(
      'insert into keys (fingerprint, revision, added_at, updated_at, facts, armor) values (?, 1, ?, ?, ?, ?)',
    )
    for await (const { binary, armor, facts, ...key } of makeKeys(count)) {
      if (keys.length % PER_FILE === 0) {
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

// --- the two servers -----------------------------------------------------------------------------

/** Our server has begun once, so that its database stands, and has ended again. */
async function prepareSreg(folder: string, taskset: string) {
  mkdirSync(folder)
  const data = join(folder, 'data')
  const launcher = fileURLToPath(new URL('../dist/launcher.mjs', import.meta.url))
  const start = async (): Promise<Server> => {
    const port = await freePort()
    const base = `http://127.0.0.1:${port}`
    const env = { ...process.env, SREG_DATA: data, SREG_LOG: 'off' }
    const command = [process.execPath, launcher, 'serve', '--port', String(port)]
    const args = ['-c', SERVER_CORE, ...command]
    return {
      name: 'sreg-lite',
      base,
      ...(await serve(folder, taskset, args, `${base}/readyz`, env)),
    }
  }
  await (await start()).stop()
  return { database: join(data, 'sreg.sqlite3'), start }
}

/** sks builds its database of the dump, keys included, and answers from it. */
async function startSks(
  sks: string,
  taskset: string,
  folder: string,
  dump: string,
): Promise<Server> {
  // below -basedir it looks for the folders that Debian gave it below /
  for (const place of ['etc/sks', 'var/lib/sks/www', 'var/log/sks', 'var/spool/sks', 'var/run/sks'])
    mkdirSync(join(folder, place), { recursive: true })
  const port = await freePort()
  const base = `http://127.0.0.1:${port}`
  writeFileSync(
    join(folder, 'etc/sks/sksconf'),
    `hostname: localhost\nhkp_address: 127.0.0.1\nhkp_port: ${port}\ndebuglevel: 0\n`,
  )
  await run('sh', [
    '-c',
    'cd "$1" && exec "$2" build "$3"/*.pgp -basedir "$1" -n 10 -cache 100',
    'sh',
    folder,
    sks,
    dump,
  ])
  const args = ['-c', SERVER_CORE, sks, 'db', '-basedir', folder]
  return {
    name: 'sks',
    base,
    ...(await serve(folder, taskset, args, `${base}/pks/lookup?op=stats`)),
  }
}
