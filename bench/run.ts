/**
 * The command line of the benchmark: picks cases (cases.ts), gives each its folder and its time, and
 * prints and keeps what they found. docs/benchmarks.md says how to run and read it.
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, loadavg, release } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { CASES } from './cases.ts'
import { bars, curves, curvesOf } from './plot.ts'
import { markdown, summarise, tableOf, type Measured, type Table } from './report.ts'
import { untilTimeUp, type Bench, type Case } from './rounds.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const results = join(root, 'bench/results')

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string' },
    size: { type: 'string', default: '1024' },
    seconds: { type: 'string', default: '2' },
    blobs: { type: 'string', default: '100000' },
    images: { type: 'string', default: '1000,100000,1000000' },
    gib: { type: 'string', default: '30' },
    registries: { type: 'string' },
    clients: { type: 'string', default: '1000' },
    keys: { type: 'string', default: '100000' },
    requests: { type: 'string', default: '2000' },
    minutes: { type: 'string', default: '150' },
    'case-minutes': { type: 'string', default: '20' },
    folder: { type: 'string', default: join(root, '.cache') },
    help: { type: 'boolean', default: false },
  },
})
const unknown = positionals.filter((name) => !(name in CASES))
type Text = 'help' | 'folder' | 'images' | 'registries' | 'rounds'
const number = (name: Exclude<keyof typeof values, Text>) => Number(values[name])
const wrong: (keyof typeof values)[] = (
  ['size', 'seconds', 'blobs', 'gib', 'clients', 'keys', 'requests'] as const
).filter((name) => !Number.isInteger(number(name)) || number(name) < 1)
const rounds = values.rounds === undefined ? null : Number(values.rounds)
if (rounds !== null && !(Number.isInteger(rounds) && rounds > 0)) wrong.push('rounds')
const roundsOf = ({ rounds: usual = 5 }: Case) => (usual === 1 ? 1 : (rounds ?? usual))
const images = values.images.split(',').map(Number)
if (!images.every((count) => Number.isInteger(count) && count > 0)) wrong.push('images')
if (!(number('minutes') > 0 && number('case-minutes') > 0)) wrong.push('minutes')
if (values.help || unknown.length > 0 || wrong.length > 0) {
  const lines = Object.entries(CASES).map(
    ([name, one]) => `  ${name.padEnd(10)}${one.about}; ${roundsOf(one)} ×`,
  )
  console.error(
    `npm run bench -- [CASE …] [--rounds N] [--size MIB] [--seconds PER_MEASUREMENT] [--clients 1000]
                 [--gib 30] [--images 1000,100000,1000000] [--registries FOLDER_TO_FIND_AND_LEAVE_THEM_IN]
                 [--blobs 100000] [--keys 100000] [--requests 2000] [--minutes LIMIT] [--case-minutes LIMIT]
                 [--folder ON_THE_DISK_TO_MEASURE]\n\n${lines.join('\n')}`,
  )
  process.exit(values.help ? 0 : 2)
}
if (!existsSync(join(root, 'dist/main.mjs'))) {
  console.error('dist/ is missing: npm run build')
  process.exit(2)
}

const say = (line: string) => console.error(line)
const minute = 60_000
const deadline = performance.now() + number('minutes') * minute
const wanted = Object.entries(CASES).filter(
  ([name]) => positionals.length === 0 || positionals.includes(name),
)

mkdirSync(values.folder, { recursive: true })
const folder = mkdtempSync(join(values.folder, 'bench-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))

const stamp = new Date(performance.timeOrigin).toISOString().replaceAll(/[:.]/g, '-')
const load = () => loadavg().map((part) => part.toFixed(1)).join(', ') // prettier-ignore
const machine = `${cpus().length} × ${cpus()[0]?.model ?? 'unknown'}, Linux ${release()}, Node ${process.versions.node}, ${stamp.slice(0, 10)}`
const found: Record<string, object> = {}
let failed = false

/** Writes every number so far, and the plot of a case. */
function keep(name: string, result: Measured | Table): Table {
  mkdirSync(results, { recursive: true })
  const plot = (svg: string) => writeFileSync(join(results, `${stamp}-${name}.svg`), svg)
  if (!('columns' in result)) {
    found[name] = { ...result, rows: result.rows.map(summarise) }
    if (result.rows.length > 0) plot(bars(name, result.rows))
    return tableOf(name, result)
  }
  found[name] = result
  const { title, curve } = result
  if (curve !== undefined) plot(curves(title, curve, curvesOf(result)))
  return result
}

// A case ends its round first. Servers and folders go with us.
setTimeout(
  () => {
    console.log(`Stopped: --minutes and --case-minutes passed within a round.`)
    process.exit(1)
  },
  (number('minutes') + number('case-minutes')) * minute,
).unref()

console.log(`${machine}; ${values.size} MiB\n`)
for (const [name, one] of wanted) {
  if (performance.now() > deadline) {
    say(`${name} is left out: --minutes ${values.minutes} have passed`)
    console.log(`### ${name}\n\nNot measured: --minutes ${values.minutes} had passed.\n`)
    continue
  }
  say(`\n${name}: ${one.about}`)
  const own = join(folder, name)
  mkdirSync(own)
  const before = load()
  const began = performance.now()
  const noted: string[] = []
  const note = (line: string) => {
    say(line)
    noted.push(line)
  }
  try {
    const bench: Bench = {
      folder: own,
      rounds: roundsOf(one),
      size: number('size') * 2 ** 20,
      seconds: number('seconds'),
      blobs: number('blobs'),
      images,
      registries: values.registries ?? null,
      clients: number('clients'),
      gib: number('gib'),
      keys: number('keys'),
      requests: number('requests'),
      say,
      note,
      until: Math.min(deadline, began + number('case-minutes') * minute),
    }
    const lines: string[] = []
    const inTime = await untilTimeUp(async () => {
      lines.push(markdown(keep(name, await one.run(bench))))
    })
    if (!inTime) {
      note('Not measured: its time was up before its first round.')
      lines.push(`### ${name}`)
    }
    found[name] = { ...found[name], noted }
    const took = ((performance.now() - began) / minute).toFixed(1)
    lines.push(...noted, `Load before it: ${before}. It took ${took} minutes.`)
    console.log(`${lines.join('\n\n')}\n`)
  } catch (error) {
    failed = true
    found[name] = { failed: String(error) }
    console.log(`### ${name}\n\nFailed: ${error instanceof Error ? error.stack : String(error)}\n`)
  }
  rmSync(own, { recursive: true, force: true })
  mkdirSync(results, { recursive: true })
  const options = { ...values, folder: undefined, registries: undefined }
  const json = JSON.stringify({ machine, options, cases: found }, null, 2)
  writeFileSync(join(results, `${stamp}.json`), `${json}\n`)
}
process.exit(failed ? 1 : 0)
