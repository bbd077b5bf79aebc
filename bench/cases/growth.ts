/**
 * What grows with the registry: every metadata case, a small push, the start, the sweep and memory of the
 * built server, with data folders of different sizes, in interleaved rounds.
 */
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { Agent } from 'node:http'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { openDatabase } from '../../adapters/databases/better-sqlite3.ts'
import { derivedManifest, EMPTY_DIGEST, EMPTY_JSON, IMAGE_TYPE } from '../../src/core/derived.ts'
import { sampleSif } from '../../test/fixtures/sif.ts'
import { makePayload, renewPayload, type Payload } from '../content/payload.ts'
import {
  bearer,
  expectThat,
  QUESTIONS,
  TOKEN_CHECK,
  type Asked,
  type Filled,
} from '../content/questions.ts'
import { fillRegistry } from '../content/registry-of.ts'
import { shapeOf } from '../content/registry-shape.ts'
import { freePort, memory, onLoadCore, run, send, serve, type Answer } from '../measure.ts'
import { median, quantile, type Cell, type Table } from '../report.ts'
import { expectTime, inRounds, rotate, type Bench } from '../rounds.ts'
import { commandLine, pusher, startSreg } from '../systems/sreg.ts'

const MIB = 1024 * 1024
/** Requests of a case, a size and a round; fewer where a case asks for them. */
const REQUESTS = 200
const STARTS = 5
const PUSHES = 8
/** Pushes to each beforehand. */
const FIRST_PUSHES = 40
/** Pages of the full-text index that are merged at a time. */
const PAGES = 1000

type Registry = Filled & { images: number; folder: string }
type Running = {
  registry: Registry
  base: string
  pid: number
  agent: Agent
  pusher: ReturnType<typeof pusher>
  /** Milliseconds until the first answer, and MiB of memory then. */
  startMs: number
  startRss: number
  stop(): Promise<void>
}

// --- servers -------------------------------------------------------------------------------------

const OPTIONS = {
  pin: true,
  log: true,
  // one sweep comes soon after the start, and is waited for
  env: { SREG_LIMIT_SEARCHES: '0', SREG_MIN_FREE: '0', SREG_SWEEP_INTERVAL: '86400' },
}

const dataOfRegistry = ({ folder }: Registry) => join(folder, 'data')
const wordsOf = ({ folder }: Registry) => join(folder, 'words')

/** Starts the built server on the data folder of a registry, its log begun anew. */
async function start(registry: Registry): Promise<Running> {
  const port = await freePort()
  const base = `http://127.0.0.1:${port}`
  rmSync(wordsOf(registry), { force: true })
  const { program, args, env } = commandLine(dataOfRegistry(registry), port, OPTIONS)
  const began = performance.now()
  const { pid, stop } = await serve(registry.folder, program, args, `${base}/readyz`, env, 60)
  const startMs = performance.now() - began
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  return {
    registry,
    base,
    pid,
    agent,
    pusher: pusher(base, registry.token, agent),
    startMs,
    startRss: memory(pid).now,
    stop() {
      agent.destroy()
      return stop()
    },
  }
}

/** Milliseconds of processor time of all threads; finer than the ticks of /proc/PID/stat. */
function cpuOf(pid: number): number {
  let sum = 0
  for (const thread of readdirSync(`/proc/${pid}/task`))
    sum += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0])
  return sum / 1e6
}

/** Waits for the sweep that marks, ten seconds after the start. */
async function awaitSweep({ registry }: Running): Promise<void> {
  const words = wordsOf(registry)
  for (let tries = 0; !readFileSync(words, 'utf8').includes('"event":"sweep"'); tries++) {
    if (tries > 1200) throw new Error(`no sweep in two minutes; see ${words}`)
    await new Promise((done) => setTimeout(done, 100))
  }
}

// --- registries ----------------------------------------------------------------------------------

/** The registry of that size below `below`; made, and compared with real pushes, unless it is there. */
async function registryOf(
  below: string,
  images: number,
  say: (line: string) => void,
): Promise<Registry> {
  const folder = join(below, `images-${images}`)
  const note = join(folder, 'made.json')
  if (existsSync(note)) return { ...(JSON.parse(readFileSync(note, 'utf8')) as Registry), folder }
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  const { data, token, stop } = await startSreg(folder, OPTIONS)
  await stop()
  say(`making ${images} images`)
  const made = fillRegistry(data, images, say)
  say(`  ${made.users} users, ${made.containers} containers, ${made.seconds.toFixed(0)} s`)
  const registry = { images, token, made, folder }
  if (images > 0) {
    const server = await start(registry)
    try {
      // now: a sweep would forget old entries of the audit log
      await compareWithPush(server)
    } finally {
      await server.stop()
    }
    await mergeIndex(data)
  }
  writeFileSync(note, JSON.stringify({ images, token, made }))
  return registry
}

/** What the sweeps of its first days would have done: a search looks into every piece of the full-text index. */
async function mergeIndex(data: string): Promise<void> {
  const { database, close } = await openDatabase(join(data, 'sreg.sqlite3'), {
    mode: 'cli',
    migrations: fileURLToPath(new URL('../../migrations', import.meta.url)),
  })
  try {
    while (await database.catalog.mergeIndex(PAGES)) continue
  } finally {
    close()
  }
}

// --- pushes --------------------------------------------------------------------------------------

/** What the real client sends for a push of one part; returns the id of the image. */
async function push({ pusher }: Running, payload: Payload, container: string): Promise<string> {
  const { image } = await pusher.open(payload, container)
  await pusher.upload.single(image, payload)
  return image
}

const setTag = async ({ pusher }: Running, container: string, image: string) => {
  const found = await pusher.ask('GET', `/v1/containers/${pusher.pathOf(container)}`)
  await pusher.setTag(String(found?.id), 'v1', image)
}

/** What `oras push` sends: config, SIF and manifest, under a tag; returns the id of the image. */
async function pushByOci(server: Running, payload: Payload, container: string): Promise<string> {
  const at = `${server.base}/v2/bench/c/${container}`
  const { agent } = server
  const upload = async (
    digest: string,
    body: string | { path: string; start: 0; size: number },
  ) => {
    const opened = await send('POST', `${at}/blobs/uploads/`, {
      agent,
      headers: bearer(server.registry),
    })
    expectThat(opened.status === 202, 'POST of an upload', opened)
    const url = new URL(String(opened.headers.location), server.base)
    url.searchParams.set('digest', digest)
    const headers = { ...bearer(server.registry), 'Content-Type': 'application/octet-stream' }
    const stored = await send('PUT', url.href, { agent, headers, body })
    expectThat(stored.status === 201, 'PUT of a blob', stored)
  }
  await upload(EMPTY_DIGEST, EMPTY_JSON)
  const { sha256, size } = payload
  await upload(`sha256:${sha256}`, { path: payload.path, start: 0, size })
  const body = derivedManifest(container, { digest: sha256, size }).text
  const headers = { ...bearer(server.registry), 'Content-Type': IMAGE_TYPE }
  const put = await send('PUT', `${at}/manifests/v1`, { agent, headers, body })
  expectThat(put.status === 201, 'PUT of a manifest', put)
  const found = await server.pusher.ask('GET', `/v1/images/bench/c/${container}:v1?arch=amd64`)
  return String(found?.id)
}

/**
 * Pushes an image by the library and one by OCI, and compares what they leave in the database, ids and
 * numbers aside, with what the generator wrote for such images. A difference throws.
 */
async function compareWithPush(server: Running): Promise<void> {
  const { made, folder } = server.registry
  const file = join(dataOfRegistry(server.registry), 'sreg.sqlite3')
  const name = randomBytes(4).toString('hex')
  /** A small SIF with labels and definition, which nobody has pushed. */
  const fresh = (content: string): Payload => {
    const path = join(folder, 'sample.sif')
    const bytes = sampleSif({ content: name + content })
    writeFileSync(path, bytes)
    const sha256 = createHash('sha256').update(bytes).digest('hex')
    return { path, size: bytes.length, sha256, parts: [] }
  }
  const byLibrary = await push(server, fresh('library'), `l${name}`)
  await setTag(server, `l${name}`, byLibrary)
  const byOci = await pushByOci(server, fresh('oci'), `o${name}`)
  const plain = made.samples.filter(
    (one) => one.logged && !one.private && !one.signed && one.arch === 'amd64',
  )
  const pairs = [
    ['library', byLibrary, plain.find((one) => one.manifest === null)],
    ['OCI', byOci, plain.find((one) => one.manifest !== null && one.alone)],
  ] as const
  for (const [how, pushed, like] of pairs)
    assert.deepEqual(shapeOf(file, like?.id ?? ''), shapeOf(file, pushed), `images by ${how}`)
}

// --- measuring -----------------------------------------------------------------------------------

/** Of one case at one size: milliseconds of each request, processor milliseconds of each round. */
type Samples = { times: number[]; cpu: number[] }

/** What was measured, by name and by images. */
type BySize<T> = Map<string, Map<number, T[]>>

function addTo<T>(all: BySize<T>, name: string, size: number, value: T): void {
  const bySize = all.get(name) ?? new Map<number, T[]>()
  all.set(name, bySize)
  bySize.set(size, [...(bySize.get(size) ?? []), value])
}

/** Asks one after the other and looks at the answers when all have come. */
async function askAll(server: Running, asked: Asked[]): Promise<Samples> {
  const answers: Answer[] = []
  const times: number[] = []
  const before = cpuOf(server.pid)
  for (const { path, headers = {} } of asked) {
    const began = performance.now()
    answers.push(await send('GET', `${server.base}${path}`, { agent: server.agent, headers }))
    times.push(performance.now() - began)
  }
  const cpu = [(cpuOf(server.pid) - before) / asked.length]
  // afterwards, so that looking costs no request its time
  for (const [at, { check }] of asked.entries()) check(answers[at] as Answer)
  return { times, cpu }
}

/**
 * Every case in interleaved rounds, beside an empty registry, which pushes and the start are compared
 * with. Registries are looked for in the folder `registries`, made where they are missing, and stay
 * there; without one they are made anew. A wrong answer throws.
 */
export function growth(bench: Bench): Promise<Table> {
  return onLoadCore(async () => {
    const { images, say } = bench
    const below = bench.registries === null ? bench.folder : resolve(bench.registries)
    const registries: Registry[] = []
    for (const count of new Set([0, ...images])) {
      expectTime(bench)
      registries.push(await registryOf(below, count, say))
    }

    const cases: BySize<Samples> = new Map()
    /** Values that are one for a server or a start: milliseconds, MiB, processor milliseconds. */
    const single: BySize<number> = new Map()
    for (let turn = 0; turn < STARTS; turn++)
      for (const registry of rotate(registries, turn)) {
        const server = await start(registry)
        addTo(single, 'start to first answer, ms', registry.images, server.startMs)
        addTo(single, 'memory after the start, MiB', registry.images, server.startRss)
        await server.stop()
      }

    const servers: Running[] = []
    let rounds = 0
    try {
      const before = new Map<Running, number>()
      for (const registry of registries) {
        const server = await start(registry)
        servers.push(server)
        before.set(server, cpuOf(server.pid))
      }
      for (const server of servers) {
        await awaitSweep(server)
        const { images } = server.registry
        const cpu = cpuOf(server.pid) - (before.get(server) ?? 0)
        addTo(single, 'first sweep (marks only), CPU ms', images, cpu)
        addTo(single, 'memory after the first sweep, MiB', images, memory(server.pid).now)
      }
      const filled = servers.filter(({ registry }) => registry.images > 0)
      type Keep = (name: string, size: number, samples: Samples) => void
      const askRound = async (round: number, keep: Keep, share: number, pushes: number) => {
        for (const { name, ask, requests = REQUESTS } of QUESTIONS)
          for (const server of rotate(filled, round)) {
            const count = Math.ceil(requests * share)
            const asked = Array.from({ length: count }, () => ask(server.registry, Math.random))
            keep(name, server.registry.images, await askAll(server, asked))
          }
        // as many requests for the empty one: code that ran less often is slower
        for (const server of servers.filter((one) => !filled.includes(one))) {
          const count = QUESTIONS.reduce((sum, { requests = REQUESTS }) => sum + requests, 0)
          const asked = Array.from({ length: Math.ceil(count * share) }, () =>
            TOKEN_CHECK.ask(server.registry, Math.random),
          )
          await askAll(server, asked)
        }
        await pushRound(servers, bench.folder, pushes, keep)
      }
      say('warming up')
      await askRound(0, () => expectTime(bench), 0.25, FIRST_PUSHES)
      await inRounds(bench, async (round) => {
        const keep: Keep = (name, size, samples) => {
          addTo(cases, name, size, samples)
          expectTime(bench)
        }
        await askRound(round, keep, 1, PUSHES)
        rounds = round + 1
      })
      for (const { pid, registry } of servers) {
        addTo(single, 'memory after the cases, MiB', registry.images, memory(pid).now)
        addTo(single, 'memory at its highest, MiB', registry.images, memory(pid).peak)
      }
    } finally {
      await Promise.all(servers.map((server) => server.stop()))
    }
    for (const registry of registries.filter(({ images }) => images > 0)) {
      say(`sweep of ${registry.images} images`)
      const out = await run(process.execPath, [SWEEPER, dataOfRegistry(registry)])
      for (const [name, value] of Object.entries(JSON.parse(out) as Record<string, number>))
        addTo(single, `whole sweep, ${name}`, registry.images, value)
    }
    return tableOf(cases, single, rounds)
  })
}

const SWEEPER = fileURLToPath(new URL('../systems/sweeper.ts', import.meta.url))

/** Pushes of 1 MiB of new content and moves of a tag, to every server in turn. */
async function pushRound(
  servers: Running[],
  folder: string,
  count: number,
  keep: (name: string, size: number, samples: Samples) => void,
): Promise<void> {
  let payload = await makePayload(join(folder, 'payload.sif'), MIB)
  for (let n = 0; n < count; n++)
    for (const server of rotate(servers, n)) {
      payload = await renewPayload(payload)
      const container = `c${randomBytes(4).toString('hex')}`
      const timed = async <T>(name: string, work: () => Promise<T>): Promise<T> => {
        const before = cpuOf(server.pid)
        const began = performance.now()
        const result = await work()
        const times = [performance.now() - began]
        keep(name, server.registry.images, { times, cpu: [cpuOf(server.pid) - before] })
        return result
      }
      const image = await timed('push of 1 MiB', () => push(server, payload, container))
      await timed('tag', () => setTag(server, container, image))
      const path = `/v1/images/bench/c/${container}:v1?arch=amd64`
      const found = await server.pusher.ask('GET', path)
      if (found?.hash !== `sha256.${payload.sha256}`)
        throw new Error(`${path} is not what was pushed: ${JSON.stringify(found)}`)
    }
}

// --- the table -----------------------------------------------------------------------------------

/** The smallest registry that a case was asked of is what the others are compared with. */
function tableOf(cases: BySize<Samples>, single: BySize<number>, rounds: number): Table {
  const columns = [
    'case',
    'images',
    'median',
    'p99',
    'CPU ms',
    '× median of the smallest',
    '× CPU of the smallest',
  ]
  const rows: Cell[][] = []
  const bySize = <T>(all: Map<number, T[]>) => [...all].toSorted(([a], [b]) => a - b)
  for (const [name, sizes] of cases) {
    let first: { middle: number; cpu: number } | null = null
    for (const [size, samples] of bySize(sizes)) {
      const times = samples.flatMap((one) => one.times)
      const middle = quantile(times, 0.5)
      const cpu = median(samples.flatMap((one) => one.cpu))
      first ??= { middle, cpu }
      const ratios = [middle / first.middle, cpu / first.cpu]
      rows.push([`${name}, ms`, size, middle, quantile(times, 0.99), cpu, ...ratios])
    }
  }
  for (const [name, sizes] of single) {
    let first: number | null = null
    for (const [size, values] of bySize(sizes)) {
      const value = median(values)
      first ??= value
      rows.push([name, size, value, null, null, first === 0 ? null : value / first, null])
    }
  }
  return {
    title: `growth, ${rounds} ${rounds === 1 ? 'round' : 'rounds'}`,
    columns,
    rows,
    notes: [
      'p99 is of all requests of all rounds. Pushes, starts and memory are compared with the empty registry, the rest with the smallest one.',
    ],
    curve: { name: 'case', x: 'images', y: 'median' },
  }
}
