/**
 * Pushes and pulls one large real SIF with the real client and watches the server's memory:
 *
 *     node test/e2e/large.ts [--gib 5] [--runtime node|bun|deno|workers] [--source] [--s3 off|on]
 *
 * The server is the built one (`npm run build`), on Node the source with --source, or workerd with
 * D1 and R2 (`npm run start:workers`). With --s3 the blobs are in a bucket of a radosgw, redirect off
 * or on. By hand, not part of `npm test`: takes minutes and two
 * and a half times the size in the temporary folder (TMPDIR). Ends with 1 when a file differs or memory grew by more than it may.
 */
import { existsSync } from 'node:fs'
import { mkdtemp, open, readFile, rm, stat, statfs } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import {
  MAIN,
  makeClient,
  makeSifs,
  NODE,
  removeFolder,
  sha256File,
  type Outcome,
} from './apptainer.ts'
import { startStoreProxy, type StoreProxy } from '../faults/s3-proxy.ts'
import setUpRadosgw from '../fixtures/radosgw-setup.ts'
import { makeBucket, radosgw } from '../fixtures/radosgw.ts'
import { RUNTIMES } from '../runtimes/runtime.ts'
import { workersProcess } from '../runtimes/workers-target.ts'
import { builtServer, startServer } from './server.ts'

const MIB = 1024 * 1024
const SAMPLE_MS = 200
/** What the server's memory may grow by, and by how much of that after half of the bytes (MiB). */
const GROWTH = { whole: 160, secondHalf: 16 }

type Sample = {
  /** Resident memory in MiB. */
  rss: number
  /** Bytes that passed through read and write calls of the server so far. */
  moved: number
}

const root = fileURLToPath(new URL('../..', import.meta.url))
const { values } = parseArgs({
  options: {
    gib: { type: 'string', default: '5' },
    runtime: { type: 'string', default: 'node' },
    source: { type: 'boolean', default: false },
    s3: { type: 'string' },
  },
})
const size = Math.round(Number(values.gib) * 1024) * MIB
const runtime = RUNTIMES.find((name) => name === values.runtime)
const workers = values.runtime === 'workers'
if (runtime === undefined && !workers)
  throw new Error(`--runtime is one of ${RUNTIMES.join(', ')}, workers`)
const built = builtServer(root, runtime ?? 'node')
const program = !values.source && existsSync(built.at(-1) ?? '') ? built : [NODE, MAIN]
/** What the server asks of the store passes here when clients are sent to the store itself. */
let store = null as StoreProxy | null
const endStore = values.s3 === undefined ? null : await startStore(values.s3 === 'on')
process.exitCode = await measure()
await store?.stop()
await endStore?.()

/** A bucket for the servers to come, named in the environment that they inherit. */
async function startStore(redirect: boolean): Promise<() => Promise<void>> {
  const end = await setUpRadosgw()
  const address = await radosgw()
  store = redirect ? await startStoreProxy(address) : null
  const { env } = await makeBucket({ redirect, endpoint: store?.url ?? address })
  Object.assign(process.env, env, redirect ? { SREG_S3_PUBLIC_ENDPOINT: address } : {})
  return end
}

/** The whole run; resolves with the exit code. */
async function measure(): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), 'sreg-large-'))
  try {
    const { bavail, bsize } = await statfs(folder)
    if (bavail * bsize < 2.5 * size + 2048 * MIB) throw new Error(`too little space in ${folder}`)
    const original = await makeLarge(folder)
    const name = workers ? 'workerd' : program.join(' ')
    console.log(`server: ${name}, image: ${size / MIB} MiB`)
    const client = await makeClient(join(folder, 'client'))
    const ref = 'library://alice/default/large'
    const copy = join(folder, 'copy.sif')
    const push = () => client.run(['push', '-U', original, ref])
    const pull = () => client.run(['pull', '--disable-cache', copy, ref])
    let token: string | null = null
    const good: boolean[] = []
    for (const [name, work] of Object.entries({ push, pull })) {
      // A fresh server each time: memory that the push took would hide what the pull takes.
      const server = await startOne(join(folder, 'data'))
      try {
        token ??= await server.mint('alice')
        succeed(await client.connect(server.url, token))
        good.push(await watch(name, server.pid, async () => succeed(await work())))
      } finally {
        await server.end()
      }
    }
    const same = (await sha256File(original)) === (await sha256File(copy))
    console.log(`the file that was pulled is ${same ? 'identical' : 'NOT IDENTICAL'}`)
    return same && good.every((is) => is) ? 0 : 1
  } finally {
    await removeFolder(folder)
  }
}

type Started = {
  url: string
  pid: number
  mint(user: string): Promise<string>
  end(): Promise<void>
}

async function startOne(data: string): Promise<Started> {
  if (workers) {
    const target = await workersProcess({ data })
    const { url } = target
    const pid = target.workerd()
    const mint = async (user: string) => (await target.mint(user)).jwt
    return { url, pid, mint, end: () => target.stop({ keep: true }) }
  }
  const { url, process: child, mint, end } = await startServer(data, program)
  return { url, pid: child.pid ?? 0, mint, end: () => end('SIGTERM') }
}

/** A real SIF, extended: a hole with a MiB of random bytes in every sixteen, and at its end. */
async function makeLarge(folder: string): Promise<string> {
  const file = join(await makeSifs(join(folder, 'sifs')), 'small.sif')
  const handle = await open(file, 'r+')
  try {
    const start = Math.ceil((await stat(file)).size / MIB) * MIB
    await handle.truncate(size)
    for (let at = start; at < size; at += 16 * MIB) await handle.write(randomBytes(MIB), 0, MIB, at)
    await handle.write(randomBytes(MIB), 0, MIB, size - MIB)
  } finally {
    await handle.close()
  }
  await rm(join(folder, 'sifs', 'big.sif'))
  return file
}

function succeed({ code, terminal }: Outcome): void {
  if (code !== 0) throw new Error(terminal)
}

/** Does the work, samples the server meanwhile, prints; false when memory grew too much. */
async function watch(name: string, pid: number, work: () => Promise<void>): Promise<boolean> {
  const samples: (Sample & { at: number })[] = []
  const take = async () => samples.push({ at: performance.now(), ...(await sample(pid)) })
  await take()
  const cpuBefore = await cpuSeconds(pid)
  const done = { yet: false }
  const worked = work().finally(() => (done.yet = true))
  while (!done.yet) {
    await Promise.race([sleep(SAMPLE_MS), worked.catch(() => {})])
    await take()
  }
  await worked
  const cpu = (await cpuSeconds(pid)) - cpuBefore

  const [first, last] = [samples[0], samples.at(-1)]
  if (first === undefined || last === undefined) throw new Error('nothing was sampled')
  const moved = last.moved - first.moved
  const passed = (share: number) => samples.find((s) => s.moved - first.moved >= share * moved)
  const half = passed(0.5)?.at ?? last.at
  const peak = (some: Sample[]) => Math.max(...some.map(({ rss }) => rss))
  const early = peak(samples.filter(({ at }) => at <= half))
  const growth = peak(samples) - first.rss
  const secondHalf = Math.max(0, peak(samples) - early)
  const busy = (passed(0.999)?.at ?? last.at) - (passed(0.001)?.at ?? first.at)
  const rate = (ms: number) => `${Math.round(size / MIB / (ms / 1000))} MiB/s`
  console.log(
    [
      `${name}: server memory ${first.rss.toFixed(1)} MiB before`,
      `grew by at most ${growth.toFixed(1)} MiB (allowed ${GROWTH.whole})`,
      `the second half added ${secondHalf.toFixed(1)} MiB (allowed ${GROWTH.secondHalf})`,
      `${last.rss.toFixed(1)} MiB after`,
      `the client's command took ${((last.at - first.at) / 1000).toFixed(1)} s (${rate(last.at - first.at)})`,
      `the bytes moved in ${(busy / 1000).toFixed(1)} s (${rate(busy)})`,
      `server CPU ${cpu.toFixed(1)} s`,
    ].join('\n  '),
  )
  const read = store?.requests().filter((r) => r.method === 'GET' && !r.ranged) ?? []
  const whole = read.filter(({ path }) => /\/blobs\/\w+/.test(path) && !path.includes('uploadId='))
  if (store !== null) console.log(`  whole images read back from the store: ${whole.length}`)
  console.log(`  bytes through the server's reads and writes: ${(moved / MIB).toFixed(1)} MiB`)
  return growth < GROWTH.whole && secondHalf < GROWTH.secondHalf
}

async function sample(pid: number): Promise<Sample> {
  const [status, io] = await Promise.all([proc(pid, 'status'), proc(pid, 'io')])
  const number = (text: string, name: string) =>
    Number(new RegExp(`^${name}:\\s*(\\d+)`, 'm').exec(text)?.[1])
  return { rss: number(status, 'VmRSS') / 1024, moved: number(io, 'rchar') + number(io, 'wchar') }
}

/** User and system time of the process; Linux counts in hundredths of a second. */
async function cpuSeconds(pid: number): Promise<number> {
  // The second field, the program's name, may hold spaces.
  const fields = (await proc(pid, 'stat')).replace(/^.*\) /s, '').split(' ')
  return (Number(fields[11]) + Number(fields[12])) / 100
}

function proc(pid: number, file: string): Promise<string> {
  return readFile(`/proc/${pid}/${file}`, 'utf8')
}
