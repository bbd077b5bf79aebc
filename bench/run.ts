/**
 * Measures pull, push and metadata lookups of the built server beside nginx and docker-registry, in
 * interleaved rounds on one machine; keystore lookups beside sks (keys.ts). bench/README.md says how to run and read it.
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, loadavg, release } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { benchKeys } from './keys.ts'
import { cpuSeconds, digestOf, download, findProgram, requestRate, run } from './measure.ts'
import { makePayload, renewPayload } from './payload.ts'
import { findSystems, type System, type Target } from './systems.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const CASES = ['pull', 'push', 'lookup'] as const
type Case = (typeof CASES)[number]

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string', default: '5' },
    size: { type: 'string', default: '1024' },
    seconds: { type: 'string', default: '4' },
    keys: { type: 'string', default: '100000' },
    requests: { type: 'string', default: '2000' },
    minutes: { type: 'string', default: '20' },
    folder: { type: 'string', default: join(root, '.cache') },
    help: { type: 'boolean', default: false },
  },
})
const keysToo = positionals.includes('keys')
const unknown = positionals.filter(
  (name) => name !== 'keys' && !CASES.some((known) => known === name),
)
if (values.help || unknown.length > 0 || (keysToo && positionals.length > 1)) {
  console.error(
    'npm run bench -- [pull] [push] [lookup] [--rounds 5] [--size MIB] [--seconds PER_LOOKUP]\n' +
      '                 [--minutes LIMIT] [--folder ON_THE_DISK_TO_MEASURE]\n' +
      'npm run bench -- keys [--keys 100000] [--requests 2000] [--rounds 5] [--folder FOLDER]',
  )
  process.exit(values.help ? 0 : 2)
}
const wanted = CASES.filter((name) => positionals.length === 0 || positionals.includes(name))
const rounds = Number(values.rounds)
const size = Number(values.size) * 1024 * 1024
const deadline = performance.now() + Number(values.minutes) * 60_000
const say = (line: string) => console.error(line)

/** One measured number of one system: MiB/s or requests/s, and processor seconds per GiB. */
type Sample = { value: number; cpu: number | null }
type Row = { case: Case; system: string; label: string; unit: string; samples: Sample[] }

const rows: Row[] = []

function record(name: Case, system: System, label: string, sample: Sample): void {
  const unit = name === 'lookup' ? 'requests/s' : 'MiB/s'
  let row = rows.find(
    (row) => row.case === name && row.system === system.name && row.label === label,
  )
  if (row === undefined)
    rows.push((row = { case: name, system: system.name, label, unit, samples: [] }))
  row.samples.push(sample)
  say(`  ${name} ${system.name} (${label}): ${sample.value.toFixed(0)} ${unit}`)
}

/** Runs `work`, which returns the seconds it took; records MiB/s and processor time per GiB. */
async function measureBytes(
  name: Case,
  system: System,
  label: string,
  work: () => Promise<number>,
): Promise<void> {
  const before = cpuSeconds(system.pid)
  const seconds = await work()
  const cpu = ((cpuSeconds(system.pid) - before) / size) * 2 ** 30
  record(name, system, label, { value: size / 2 ** 20 / seconds, cpu })
}

/** Round `round` begins with another one each time: nobody always runs on what others left behind. */
function rotate<T>(list: T[], round: number): T[] {
  return list.map((_, index) => list[(index + round) % list.length] as T)
}

/** Rounds until all are done or the time is up; at least one. */
async function inRounds(name: Case, once: (round: number) => Promise<void>): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    if (round > 0 && performance.now() > deadline) {
      say(`time is up after ${round} rounds of ${name}`)
      return
    }
    say(`${name}, round ${round + 1} of ${rounds}`)
    await once(round)
  }
}

function median(numbers: number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1
    ? (sorted[middle] ?? Number.NaN)
    : ((sorted[middle - 1] ?? Number.NaN) + (sorted[middle] ?? Number.NaN)) / 2
}

function summarise(row: Row) {
  const numbers = row.samples.map((sample) => sample.value)
  const cpu = row.samples.flatMap((sample) => (sample.cpu === null ? [] : [sample.cpu]))
  return {
    ...row,
    median: median(numbers),
    min: Math.min(...numbers),
    max: Math.max(...numbers),
    cpuPerGiB: cpu.length === 0 ? null : median(cpu),
  }
}

function table(peers: string[]): string {
  const summaries = rows.map(summarise)
  const lines = [
    ['case', 'system', 'median', 'min – max', 'CPU s/GiB', ...peers.map((peer) => `× ${peer}`)],
    Array.from({ length: 5 + peers.length }, () => '---'),
    ...CASES.flatMap((name) => summaries.filter((row) => row.case === name)).map((row) => {
      const ratios = peers.map((peer) => {
        const other = summaries.find((one) => one.case === row.case && one.system === peer)
        return other === undefined || row.system === peer
          ? ''
          : (row.median / other.median).toFixed(2)
      })
      const digits = (value: number) => value.toFixed(0)
      return [
        row.case,
        `${row.system}: ${row.label}`,
        `${digits(row.median)} ${row.unit}`,
        `${digits(row.min)} – ${digits(row.max)}`,
        row.cpuPerGiB === null ? '' : row.cpuPerGiB.toFixed(2),
        ...ratios,
      ]
    }),
  ]
  return lines.map((cells) => `| ${cells.join(' | ')} |`).join('\n')
}

async function measure(systems: System[], folder: string): Promise<void> {
  say(`writing ${values.size} MiB`)
  let payload = await makePayload(join(folder, 'payload.sif'), size)
  const places: { system: System; pulls: Target[]; lookups: Target[] }[] = []
  for (const system of systems) {
    say(`publishing on ${system.name}`)
    places.push({ system, ...(await system.publish(payload)) })
  }
  const targetsOf = (pick: 'pulls' | 'lookups') =>
    places.flatMap(({ system, ...place }) => place[pick].map((target) => ({ system, target })))

  if (wanted.includes('pull')) {
    for (const { system, target } of targetsOf('pulls'))
      if ((await digestOf(target.url)) !== payload.sha256)
        throw new Error(`${system.name} (${target.label}) serves other bytes than were stored`)
    await inRounds('pull', async (round) => {
      for (const { system, target } of rotate(targetsOf('pulls'), round))
        await measureBytes('pull', system, target.label, () => download(target.url, size))
    })
  }

  if (wanted.includes('lookup'))
    await inRounds('lookup', async (round) => {
      for (const { system, target } of rotate(targetsOf('lookups'), round)) {
        const rate = await requestRate(target.url, target.headers ?? {}, Number(values.seconds))
        record('lookup', system, target.label, { value: rate, cpu: null })
      }
    })

  // Last, because it changes the payload that nginx serves.
  if (wanted.includes('push'))
    await inRounds('push', async (round) => {
      payload = await renewPayload(payload)
      for (const system of rotate(systems, round)) {
        const push = await system.prepare?.(payload)
        if (push === undefined) continue
        // What the one before left to be written is not this one's business.
        await run('sync', [])
        await measureBytes('push', system, 'whole file', async () => {
          const start = performance.now()
          await push()
          return (performance.now() - start) / 1000
        })
      }
    })
}

if (!existsSync(join(root, 'dist/main.mjs'))) {
  say('dist/ is missing: npm run build')
  process.exit(2)
}
mkdirSync(values.folder, { recursive: true })
const folder = mkdtempSync(join(values.folder, 'bench-'))
const machine = `${cpus().length} × ${cpus()[0]?.model ?? 'unknown'}, Linux ${release()}, Node ${process.versions.node}`
const stamp = new Date(performance.timeOrigin).toISOString().replaceAll(/[:.]/g, '-')

/** Every single number to a file of its own. */
function keep(results: object): void {
  mkdirSync(join(root, 'bench/results'), { recursive: true })
  writeFileSync(
    join(root, `bench/results/${stamp}.json`),
    `${JSON.stringify({ machine, ...results }, null, 2)}\n`,
  )
}

if (keysToo) {
  const count = Number(values.keys)
  try {
    const made = await benchKeys(folder, { count, rounds, requests: Number(values.requests), say })
    keep({ keys: count, rows: made.rows })
    const load = loadavg()
      .map((part) => part.toFixed(1))
      .join(', ')
    console.log(
      `${machine}; ${count} keys, ${rounds} interleaved rounds of ${values.requests} requests; load ${load}\n\n${made.table}`,
    )
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  process.exit()
}
const systems: System[] = []
try {
  for (const { name, start, hint } of findSystems()) {
    if (start === null) {
      say(`${name} is not installed and will be missing from the table; to have it: ${hint}`)
      continue
    }
    mkdirSync(join(folder, name))
    systems.push(await start(join(folder, name)))
  }
  if (findProgram('wrk') === null && wanted.includes('lookup'))
    say('wrk is not installed; lookups are counted by a loop in Node, which is slower than nginx')
  await measure(systems, folder)
} finally {
  await Promise.all(systems.map((system) => system.stop()))
  rmSync(folder, { recursive: true, force: true })
}

const peers = systems.map((system) => system.name).filter((name) => name !== 'sreg-lite')
keep({ sizeMiB: size / 2 ** 20, rows: rows.map(summarise) })
console.log(`${machine}; ${values.size} MiB, ${rounds} interleaved rounds\n\n${table(peers)}`)
