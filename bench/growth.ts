/**
 * What grows with the registry: every metadata case, a small push, the start, the sweep and memory of the
 * built server, with data folders of different sizes, in interleaved rounds. registry-of.ts makes them.
 *
 *   node bench/growth.ts [--sizes 1000,100000,1000000] [--rounds 5] [--requests 200] [--folder FOLDER]
 *                        [--only WORDS_OF_CASES] [--make] [--keep]
 *
 * A folder that has been made before is used again; `--make` only makes them.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { Agent } from 'node:http'
import { join, resolve } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { derivedManifest, EMPTY_DIGEST, EMPTY_JSON, IMAGE_TYPE } from '../src/core/derived.ts'
import { REDIRECT_FROM } from '../src/core/downloads.ts'
import { sampleSif } from '../test/fixtures/sif.ts'
import { findProgram, freePort, run, send, type Answer } from './measure.ts'
import { makePayload, renewPayload, type Payload } from './payload.ts'
import { fillRegistry, type Made, type Sample } from './registry-of.ts'
import { shapeOf } from './registry-shape.ts'
import { markdown, type Cell, type Table } from './report.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const launcher = join(root, 'dist/launcher.mjs')
const SERVER_CORE = '0'
const CLIENT_CORE = '1'
const MIB = 1024 * 1024

type Registry = { images: number; folder: string; data: string; token: string; made: Made }
type Server = {
  registry: Registry
  base: string
  pid: number
  agent: Agent
  /** Milliseconds from spawn to the first answer, and MiB of memory then. */
  startMs: number
  startRss: number
  words: string
  stop(): Promise<void>
}

type Asked = {
  method?: string
  path: string
  headers?: Record<string, string>
  /** Throws when it is not what was asked for. */
  check(answer: Answer): void
}
type Case = {
  name: string
  /** Requests of a round; the default where it is missing. */
  requests?: number
  ask(server: Server, random: () => number): Asked
}

// --- cases ---------------------------------------------------------------------------------------

const visible = (server: Server) => server.registry.made.samples.filter((one) => !one.private)
const chosen = <T>(list: readonly T[], random: () => number): T => {
  const one = list[Math.floor(random() * list.length)]
  if (one === undefined) throw new Error('the registry has nothing to ask for')
  return one
}
const place = ({ entity, collection, container }: Sample) => `${entity}/${collection}/${container}`
const dataOf = (answer: Answer) =>
  (JSON.parse(answer.body) as { data: Record<string, unknown> }).data

function expectThat(holds: boolean, what: string, answer: Answer): void {
  if (!holds) throw new Error(`${what}: ${answer.status} ${answer.body.slice(0, 400)}`)
}

const bearer = (server: Server) => ({ Authorization: `Bearer ${server.registry.token}` })

/** A request for a sample that `fits`, and what its answer must hold. */
const forSample =
  (
    path: (one: Sample) => string,
    holds: (answer: Answer, one: Sample) => boolean,
    more: { fits?: (one: Sample, at: number) => boolean; token?: boolean; status?: number } = {},
  ): Case['ask'] =>
  (server, random) => {
    const { fits = () => true, token = false, status = 200 } = more
    const one = chosen(visible(server).filter(fits), random)
    return {
      path: path(one),
      ...(token ? { headers: bearer(server) } : {}),
      check: (answer) =>
        expectThat(answer.status === status && holds(answer, one), path(one), answer),
    }
  }

const isImage = (answer: Answer, one: Sample) => {
  const data = dataOf(answer)
  return data.hash === `sha256.${one.digest}` && data.size === one.size && data.arch === one.arch
}
const byTag = (one: Sample) => `/v1/images/${place(one)}:${one.tag}?arch=${one.arch}`
const pushedByOci = (one: Sample) => one.manifest !== null
/** The first 50 of those that are chosen at random. */
const popular = (_: Sample, at: number) => at < 50

const searchFor =
  (words: (made: Made) => string[], holds: (images: { hash?: string }[]) => boolean): Case['ask'] =>
  (server, random) => {
    const word = chosen(words(server.registry.made), random)
    return {
      path: `/v1/search?value=${encodeURIComponent(word)}&arch=amd64`,
      check(answer) {
        const images = (dataOf(answer) as { image: object[] }).image
        expectThat(answer.status === 200 && holds(images), `search for ${word}`, answer)
      },
    }
  }

const CASES: Case[] = [
  { name: 'image by tag', ask: forSample(byTag, isImage) },
  {
    name: 'image by tag, one of 50 popular ones',
    ask: forSample(byTag, isImage, { fits: popular }),
  },
  { name: 'image by tag, with a token', ask: forSample(byTag, isImage, { token: true }) },
  {
    name: 'image by tag, another arch',
    ask: forSample(byTag, isImage, { fits: (one) => one.arch !== 'amd64' }),
  },
  {
    name: 'image by hash',
    ask: forSample((one) => `/v1/images/${place(one)}:sha256.${one.digest}`, isImage),
  },
  {
    name: 'ticket for a pull',
    ask: forSample(
      (one) => `/v1/imagefile/${place(one)}:${one.tag}?arch=${one.arch}`,
      (answer) => String(answer.headers.location).includes('/v1/blob'),
      { status: 303, fits: (one) => one.size >= REDIRECT_FROM },
    ),
  },
  {
    name: 'container',
    ask: forSample(
      (one) => `/v1/containers/${place(one)}`,
      (answer, one) => dataOf(answer).id === one.containerId,
    ),
  },
  {
    name: 'tags of a container',
    ask: forSample(
      (one) => `/v2/tags/${one.containerId}`,
      (answer, one) =>
        (dataOf(answer) as Record<string, Record<string, string>>)[one.arch]?.[one.tag] === one.id,
    ),
  },
  {
    name: 'collection',
    ask: forSample(
      (one) => `/v1/collections/${one.entity}/${one.collection}`,
      (answer, one) => dataOf(answer).name === one.collection,
      { fits: (one) => one.entity !== 'library' },
    ),
  },
  {
    name: 'entity',
    ask: forSample(
      (one) => `/v1/entities/${one.entity}`,
      (answer, one) => dataOf(answer).name === one.entity,
      { fits: (one) => one.entity !== 'library' },
    ),
  },
  {
    name: 'collection with 1 % of all images',
    requests: 20,
    ask: () => ({
      path: '/v1/collections/library/default',
      check: (answer) => expectThat(dataOf(answer).name === 'default', 'library/default', answer),
    }),
  },
  {
    name: 'own entities, with a token',
    ask: (server) => ({
      path: '/v1/entities',
      headers: bearer(server),
      check: (answer) => expectThat(answer.status === 200, 'own entities', answer),
    }),
  },
  {
    name: 'token check',
    ask: (server) => ({
      path: '/v1/token-status',
      headers: bearer(server),
      check: (answer) => expectThat(answer.status === 200, 'token', answer),
    }),
  },
  {
    name: 'search: a common word',
    requests: 20,
    ask: searchFor(
      ({ words }) => words.common,
      (images) => images.length > 0,
    ),
  },
  {
    name: 'search: a rare word',
    requests: 40,
    ask: searchFor(
      ({ words }) => words.rare,
      () => true,
    ),
  },
  {
    name: 'search: several words',
    requests: 20,
    ask: searchFor(
      ({ words }) => words.several,
      () => true,
    ),
  },
  {
    name: 'search: nothing to be found',
    requests: 20,
    ask: searchFor(
      ({ words }) => words.nothing,
      (images) => images.length === 0,
    ),
  },
  {
    name: '/v2 manifest by tag, of a library image',
    ask: forSample(
      (one) => `/v2/${place(one)}/manifests/${one.tag}`,
      (answer) => answer.body.includes('"schemaVersion":2'),
      { fits: (one) => one.manifest === null },
    ),
  },
  {
    name: '/v2 manifest by digest',
    ask: forSample(
      (one) => `/v2/${place(one)}/manifests/${one.manifest}`,
      (answer, one) => answer.body.includes(`sha256:${one.digest}`),
      { fits: pushedByOci },
    ),
  },
  {
    name: '/v2 tags/list',
    ask: forSample(
      (one) => `/v2/${place(one)}/tags/list`,
      (answer, one) => answer.body.includes(`"${one.tag}"`),
    ),
  },
  {
    name: '/v2 referrers',
    ask: forSample(
      (one) => `/v2/${place(one)}/referrers/${one.manifest}`,
      (answer) => answer.body.includes('"manifests":['),
      { fits: pushedByOci },
    ),
  },
  {
    name: '/v2/_catalog, 100 names',
    requests: 10,
    ask: (server, random) => {
      const last = place(chosen(visible(server), random))
      return {
        path: `/v2/_catalog?n=100&last=${last}`,
        check(answer) {
          const names = (JSON.parse(answer.body) as { repositories: string[] }).repositories
          expectThat(
            names.every((name) => name > last),
            `catalog after ${last}`,
            answer,
          )
        },
      }
    },
  },
]

// --- servers -------------------------------------------------------------------------------------

const settings = (data: string) => ({
  ...process.env,
  SREG_DATA: data,
  SREG_LOG: 'json',
  SREG_LIMIT_SEARCHES: '0',
  SREG_MIN_FREE: '0',
  // one sweep comes soon after the start, and is waited for
  SREG_SWEEP_INTERVAL: '86400',
})

/** Starts the built server on a data folder; its log becomes `words`. */
async function start(registry: Registry, taskset: string): Promise<Server> {
  const port = await freePort()
  const base = `http://127.0.0.1:${port}`
  const words = join(registry.folder, 'words')
  const log = openSync(words, 'w')
  const args = ['-c', SERVER_CORE, process.execPath, launcher, 'serve', '--port', String(port)]
  const began = performance.now()
  const child: ChildProcess = spawn(taskset, args, {
    cwd: registry.folder,
    env: settings(registry.data),
    stdio: ['ignore', log, log],
  })
  const ended = new Promise<void>((done) => child.once('exit', () => done()))
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  for (;;) {
    const ready = await send('GET', `${base}/readyz`, { agent }).then(
      ({ status }) => status === 200,
      () => false,
    )
    if (ready) break
    if (child.exitCode !== null || performance.now() - began > 60_000)
      throw new Error(`the server does not answer; see ${words}`)
    await new Promise((done) => setTimeout(done, 5))
  }
  const startMs = performance.now() - began
  const pid = child.pid ?? 0
  return {
    registry,
    base,
    pid,
    agent,
    startMs,
    startRss: memoryOf(pid),
    words,
    stop() {
      agent.destroy()
      child.kill('SIGTERM')
      return ended
    },
  }
}

/** MiB that are resident. */
function memoryOf(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) / 1024
}

/** Milliseconds of processor time of all threads; finer than the ticks of /proc/PID/stat. */
function cpuOf(pid: number): number {
  let sum = 0
  for (const thread of readdirSync(`/proc/${pid}/task`))
    sum += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0])
  return sum / 1e6
}

/** Waits for the sweep that marks, ten seconds after the start. */
async function awaitSweep({ words }: Server): Promise<void> {
  for (let tries = 0; !readFileSync(words, 'utf8').includes('"event":"sweep"'); tries++) {
    if (tries > 1200) throw new Error(`no sweep in two minutes; see ${words}`)
    await new Promise((done) => setTimeout(done, 100))
  }
}

// --- registries ----------------------------------------------------------------------------------

/** The registry of that size below `folder`; made unless it is there. */
async function registryOf(
  folder: string,
  images: number,
  say: (line: string) => void,
): Promise<Registry> {
  const at = join(folder, `images-${images}`)
  const data = join(at, 'data')
  const note = join(at, 'made.json')
  if (existsSync(note))
    return { ...(JSON.parse(readFileSync(note, 'utf8')) as Registry), folder: at, data }
  rmSync(at, { recursive: true, force: true })
  mkdirSync(at, { recursive: true })
  const env = settings(data)
  const port = await freePort()
  const words = openSync(join(at, 'words'), 'w')
  const child = spawn(process.execPath, [launcher, 'serve', '--port', String(port)], {
    env,
    stdio: ['ignore', words, words],
  })
  const ended = new Promise<void>((done) => child.once('exit', () => done()))
  for (let tries = 0; ; tries++) {
    const up = await send('GET', `http://127.0.0.1:${port}/readyz`).then(
      ({ status }) => status === 200,
      () => false,
    )
    if (up) break
    if (tries > 200) throw new Error(`the server does not answer; see ${at}/words`)
    await new Promise((done) => setTimeout(done, 50))
  }
  await run(process.execPath, [launcher, 'user', 'add', 'bench'], { env })
  const token = (
    await run(process.execPath, [launcher, 'token', 'create', 'bench'], { env })
  ).trim()
  child.kill('SIGTERM')
  await ended
  say(`making ${images} images`)
  const made = fillRegistry(data, images, say)
  say(`  ${made.users} users, ${made.containers} containers, ${made.seconds.toFixed(0)} s`)
  const registry = { images, token, made }
  writeFileSync(note, JSON.stringify(registry))
  return { ...registry, folder: at, data }
}

// --- pushes --------------------------------------------------------------------------------------

/** One API call with the token; its `data`, null for 404. */
async function call(server: Server, method: string, path: string, body?: object) {
  const answer = await send(method, `${server.base}${path}`, {
    agent: server.agent,
    headers: bearer(server),
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  if (answer.status === 404) return null
  expectThat(answer.status < 300, `${method} ${path}`, answer)
  return answer.body === '' ? {} : dataOf(answer)
}

/** What the real client sends for a push of one part; returns the id of the image. */
async function push(server: Server, payload: Payload, container: string): Promise<string> {
  const findOrMake = async (look: string, make: string, draft: object) =>
    String(((await call(server, 'GET', look)) ?? (await call(server, 'POST', make, draft)))?.id)
  const entity = await findOrMake('/v1/entities/bench', '/v1/entities', { name: 'bench' })
  const collection = await findOrMake('/v1/collections/bench/c', '/v1/collections', {
    name: 'c',
    entity,
  })
  const id = await findOrMake(`/v1/containers/bench/c/${container}`, '/v1/containers', {
    name: container,
    collection,
  })
  const hash = `sha256.${payload.sha256}`
  const image = await findOrMake(
    `/v1/images/bench/c/${container}:${hash}?arch=amd64`,
    '/v1/images',
    { hash, container: id },
  )
  const opened = await call(server, 'POST', `/v2/imagefile/${image}`, {
    filesize: payload.size,
    sha256sum: payload.sha256,
  })
  const stored = await send('PUT', String(opened?.uploadURL), {
    agent: server.agent,
    body: { path: payload.path, start: 0, size: payload.size },
  })
  expectThat(stored.status === 200, 'PUT', stored)
  await call(server, 'PUT', `/v2/imagefile/${image}/_complete`, {})
  return image
}

const setTag = async (server: Server, container: string, image: string) => {
  const found = await call(server, 'GET', `/v1/containers/bench/c/${container}`)
  await call(server, 'POST', `/v2/tags/${String(found?.id)}`, {
    Arch: 'amd64',
    Tag: 'v1',
    ImageID: image,
  })
}

/** What `oras push` sends: config, SIF and manifest, under a tag; returns the id of the image. */
async function pushByOci(server: Server, payload: Payload, container: string): Promise<string> {
  const at = `${server.base}/v2/bench/c/${container}`
  const { agent } = server
  const upload = async (
    digest: string,
    body: string | { path: string; start: 0; size: number },
  ) => {
    const opened = await send('POST', `${at}/blobs/uploads/`, { agent, headers: bearer(server) })
    expectThat(opened.status === 202, 'POST of an upload', opened)
    const url = new URL(String(opened.headers.location), server.base)
    url.searchParams.set('digest', digest)
    const headers = { ...bearer(server), 'Content-Type': 'application/octet-stream' }
    const stored = await send('PUT', url.href, { agent, headers, body })
    expectThat(stored.status === 201, 'PUT of a blob', stored)
  }
  await upload(EMPTY_DIGEST, EMPTY_JSON)
  const { sha256, size } = payload
  await upload(`sha256:${sha256}`, { path: payload.path, start: 0, size })
  const body = derivedManifest(container, { digest: sha256, size }).text
  const headers = { ...bearer(server), 'Content-Type': IMAGE_TYPE }
  const put = await send('PUT', `${at}/manifests/v1`, { agent, headers, body })
  expectThat(put.status === 201, 'PUT of a manifest', put)
  const found = await call(server, 'GET', `/v1/images/bench/c/${container}:v1?arch=amd64`)
  return String(found?.id)
}

/**
 * Pushes an image by the library and one by OCI, and compares what they leave in the database, ids and
 * numbers aside, with what the generator wrote for such images. A difference throws.
 */
async function compareWithPush(server: Server): Promise<void> {
  const { data, made, folder } = server.registry
  const file = join(data, 'sreg.sqlite3')
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
  const plain = made.samples.filter((one) => !one.private && !one.signed && one.arch === 'amd64')
  const pairs = [
    ['library', byLibrary, plain.find((one) => one.manifest === null)],
    ['OCI', byOci, plain.find((one) => one.manifest !== null && one.alone)],
  ] as const
  for (const [how, pushed, like] of pairs)
    assert.deepEqual(shapeOf(file, like?.id ?? ''), shapeOf(file, pushed), `images by ${how}`)
}

// --- measuring -----------------------------------------------------------------------------------

/** Of one case at one size: milliseconds of each request, processor milliseconds per request. */
type Samples = { times: number[]; cpu: number[]; rounds: number[][] }

function quantile(numbers: readonly number[], part: number): number {
  const sorted = numbers.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN
}

async function askAll(server: Server, asked: Asked[], into: Samples | null): Promise<void> {
  const answers: Answer[] = []
  const times: number[] = []
  const before = cpuOf(server.pid)
  for (const { method = 'GET', path, headers = {} } of asked) {
    const began = performance.now()
    answers.push(await send(method, `${server.base}${path}`, { agent: server.agent, headers }))
    times.push(performance.now() - began)
  }
  const cpu = (cpuOf(server.pid) - before) / asked.length
  // afterwards, so that looking costs no request its time
  for (const [at, { check }] of asked.entries()) check(answers[at] as Answer)
  into?.times.push(...times)
  into?.rounds.push(times)
  into?.cpu.push(cpu)
}

type Options = {
  /** Where registries are made, and found again. */
  folder: string
  rounds: number
  sizes: number[]
  /** Requests of a case, size and round, where a case does not ask for fewer. */
  requests?: number
  /** Only cases that have one of these in their name. */
  only?: string[]
  say: (line: string) => void
}

/**
 * Makes registries of `sizes` images below `folder` and asks their servers, each pinned to core 0 and
 * asked from core 1 over one connection, every case in interleaved rounds. Beside them stands an empty
 * registry, which pushes are compared with. A wrong answer throws.
 */
export async function benchGrowth(options: Options): Promise<Table> {
  const { folder, rounds, sizes, requests = 200, only = [], say } = options
  const taskset = findProgram('taskset')
  if (taskset === null) throw new Error('taskset is missing: apt-get install util-linux')
  const registries: Registry[] = []
  for (const size of [0, ...sizes]) registries.push(await registryOf(folder, size, say))
  await run(taskset, ['-acp', CLIENT_CORE, String(process.pid)])
  const wanted = (name: string) => only.length === 0 || only.some((word) => name.includes(word))

  const rows = new Map<string, Map<number, Samples>>()
  const samplesOf = (name: string, size: number): Samples => {
    const row = rows.get(name) ?? new Map<number, Samples>()
    rows.set(name, row)
    const samples = row.get(size) ?? { times: [], cpu: [], rounds: [] }
    row.set(size, samples)
    return samples
  }
  /** Values that come once, by name and size. */
  const single = new Map<string, Map<number, number>>()
  const note = (name: string, size: number, value: number) =>
    single.set(name, (single.get(name) ?? new Map<number, number>()).set(size, value))

  const starts = new Map<number, number[]>()
  for (let round = 0; round < Math.min(rounds, 5); round++)
    for (const registry of registries) {
      const server = await start(registry, taskset)
      starts.set(registry.images, [...(starts.get(registry.images) ?? []), server.startMs])
      note('memory after the start, MiB', registry.images, server.startRss)
      await server.stop()
    }
  for (const [size, times] of starts) note('start to first answer, ms', size, quantile(times, 0.5))

  const servers: Server[] = []
  try {
    const before = new Map<Server, number>()
    for (const registry of registries) {
      const server = await start(registry, taskset)
      servers.push(server)
      before.set(server, cpuOf(server.pid))
    }
    for (const server of servers) {
      await awaitSweep(server)
      const cpu = cpuOf(server.pid) - (before.get(server) ?? 0)
      note('first sweep (marks only), CPU ms', server.registry.images, cpu)
      note('memory after the first sweep, MiB', server.registry.images, memoryOf(server.pid))
    }
    const filled = servers.filter(({ registry }) => registry.images > 0)
    const [smallest] = filled
    if (smallest !== undefined) await compareWithPush(smallest)
    const random = Math.random
    for (let round = -1; round < rounds; round++) {
      say(round < 0 ? 'warming up' : `round ${round + 1} of ${rounds}`)
      for (const { name, ask, requests: most = requests } of CASES.filter((one) =>
        wanted(one.name),
      ))
        for (const at of filled.keys()) {
          const server = filled[(at + Math.max(round, 0)) % filled.length] as Server
          const count = round < 0 ? Math.ceil(most / 4) : most
          const asked = Array.from({ length: count }, () => ask(server, random))
          const into = round < 0 ? null : samplesOf(name, server.registry.images)
          await askAll(server, asked, into)
        }
      if (wanted('push')) await pushRound(servers, round, samplesOf)
    }
    for (const server of servers)
      note('memory after the cases, MiB', server.registry.images, memoryOf(server.pid))
  } finally {
    await Promise.all(servers.map((server) => server.stop()))
  }
  if (wanted('sweep'))
    for (const registry of registries.slice(1)) {
      say(`sweep of ${registry.images} images`)
      const out = await run(process.execPath, [
        fileURLToPath(import.meta.url),
        '--sweep',
        registry.data,
      ])
      for (const [name, value] of Object.entries(JSON.parse(out) as Record<string, number>))
        note(`whole sweep, ${name}`, registry.images, value)
    }
  return tableOf(rows, single)
}

/** Pushes of 1 MiB of new content and moves of a tag, to every server in turn. */
async function pushRound(
  servers: Server[],
  round: number,
  samplesOf: (name: string, size: number) => Samples,
): Promise<void> {
  const PUSHES = 8
  const folder = (servers[0] as Server).registry.folder
  let payload = await makePayload(join(folder, 'payload.sif'), MIB)
  for (let n = 0; n < PUSHES; n++)
    for (const at of servers.keys()) {
      const server = servers[(at + n) % servers.length] as Server
      payload = await renewPayload(payload)
      const container = `c${randomBytes(4).toString('hex')}`
      const timed = async (name: string, work: () => Promise<string>): Promise<string> => {
        const before = cpuOf(server.pid)
        const began = performance.now()
        const result = await work()
        const took = performance.now() - began
        if (round >= 0) {
          const into = samplesOf(name, server.registry.images)
          into.times.push(took)
          into.rounds.push([took])
          into.cpu.push(cpuOf(server.pid) - before)
        }
        return result
      }
      const image = await timed('push of 1 MiB', () => push(server, payload, container))
      await timed('tag', () => setTag(server, container, image).then(() => image))
      const path = `/v1/images/bench/c/${container}:v1?arch=amd64`
      const found = await call(server, 'GET', path)
      if (found?.hash !== `sha256.${payload.sha256}`)
        throw new Error(`${path} is not what was pushed: ${JSON.stringify(found)}`)
    }
}

/** Runs the real sweep on a data folder that no server has open, twice, as a server would. */
async function sweepAlone(data: string): Promise<Record<string, number>> {
  const { openDatabase } = await import('../adapters/databases/better-sqlite3.ts')
  const { diskBlobs } = await import('../adapters/blobs/disk.ts')
  const { systemClock } = await import('../adapters/system.ts')
  const { createSweep } = await import('../src/core/sweep.ts')
  const { database, close } = await openDatabase(join(data, 'sreg.sqlite3'), {
    mode: 'server',
    migrations: join(root, 'migrations'),
  })
  const blobs = await diskBlobs({ root: join(data, 'blobs') })
  const sweep = createSweep({
    database,
    blobs,
    clock: systemClock,
    log: { event: () => undefined },
    registryId: (await database.settings.get('registry_id')) ?? '',
    graceSeconds: 43_200,
    intervalSeconds: 900,
    audit: { days: 365, rows: 1_000_000 },
  })
  const delay = monitorEventLoopDelay({ resolution: 1 })
  delay.enable()
  const cpu = process.cpuUsage()
  const began = performance.now()
  const report = await sweep({ now: true })
  const ms = performance.now() - began
  const { user, system } = process.cpuUsage(cpu)
  delay.disable()
  close()
  if (report.held !== null) throw new Error(`nothing was swept: ${report.held}`)
  return {
    ms,
    'CPU ms': (user + system) / 1000,
    'longest block, ms': delay.max / 1e6,
    'memory, MiB': process.memoryUsage().rss / MIB,
    'blobs deleted': report.deleted,
  }
}

// --- the table -----------------------------------------------------------------------------------

function tableOf(
  rows: Map<string, Map<number, Samples>>,
  single: Map<string, Map<number, number>>,
): Table {
  const columns = [
    'case',
    'images',
    'median ms',
    'p99 ms',
    'CPU ms',
    '× median of the smallest',
    '× CPU of the smallest',
  ]
  const cells: Cell[][] = []
  for (const [name, bySize] of rows) {
    const [base] = [...bySize.keys()].toSorted((a, b) => a - b)
    const of = (size: number | undefined) => bySize.get(size ?? -1)
    const medianOf = (size: number | undefined) => quantile(of(size)?.times ?? [], 0.5)
    const cpuOfSize = (size: number | undefined) => quantile(of(size)?.cpu ?? [], 0.5)
    for (const [size, { times }] of [...bySize].toSorted(([a], [b]) => a - b))
      cells.push([
        name,
        size,
        medianOf(size),
        quantile(times, 0.99),
        cpuOfSize(size),
        medianOf(size) / medianOf(base),
        cpuOfSize(size) / cpuOfSize(base),
      ])
  }
  for (const [name, bySize] of single)
    for (const [size, value] of bySize) {
      const base = bySize.get(Math.min(...bySize.keys())) ?? Number.NaN
      const isCpu = name.includes('CPU')
      cells.push([
        name,
        size,
        isCpu ? null : value,
        null,
        isCpu ? value : null,
        isCpu ? null : value / base,
        isCpu ? value / base : null,
      ])
    }
  return { title: 'What grows with the registry', columns, rows: cells }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      sizes: { type: 'string', default: '1000,100000,1000000' },
      rounds: { type: 'string', default: '5' },
      requests: { type: 'string', default: '200' },
      folder: { type: 'string', default: join(root, '.cache/growth') },
      only: { type: 'string', default: '' },
      make: { type: 'boolean', default: false },
      keep: { type: 'boolean', default: false },
      sweep: { type: 'string' },
    },
  })
  if (values.sweep !== undefined) {
    process.stdout.write(JSON.stringify(await sweepAlone(values.sweep)))
    return
  }
  const sizes = values.sizes.split(',').map(Number)
  const folder = resolve(values.folder)
  const say = (line: string) => console.error(line)
  if (values.make) {
    for (const size of [0, ...sizes]) await registryOf(folder, size, say)
    return
  }
  const table = await benchGrowth({
    folder,
    rounds: Number(values.rounds),
    requests: Number(values.requests),
    sizes,
    only: values.only.split(',').filter((word) => word !== ''),
    say,
  })
  mkdirSync(join(root, 'bench/results'), { recursive: true })
  const stamp = new Date(performance.timeOrigin).toISOString().replaceAll(/[:.]/g, '-')
  writeFileSync(join(root, `bench/results/growth-${stamp}.json`), JSON.stringify(table, null, 2))
  console.log(markdown(table))
  if (!values.keep) rmSync(folder, { recursive: true, force: true })
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main()
