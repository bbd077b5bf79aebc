/** The tools of the benchmark: processes and what they use, curl, wrk, and an upload client. */
import { spawn, type ChildProcess } from 'node:child_process'
import {
  accessSync,
  closeSync,
  constants,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs'
import { read } from 'node:fs'
import { open, rm } from 'node:fs/promises'
import { Agent, request } from 'node:http'
import { createServer } from 'node:net'
import { availableParallelism } from 'node:os'
import { delimiter, join } from 'node:path'
import { promisify } from 'node:util'
import { quantile } from './report.ts'

const readAt = promisify(read)

/** Full path of a program on PATH (and where Debian puts servers), or null. */
export function findProgram(name: string): string | null {
  for (const folder of [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin']) {
    const path = join(folder, name)
    try {
      accessSync(path, constants.X_OK)
      return path
    } catch {
      // Not in this folder.
    }
  }
  return null
}

/** What was started and has not ended. It ends with us, and takes with it what it started itself. */
const running = new Set<ChildProcess>()
let watching = false

function own(child: ChildProcess): void {
  running.add(child)
  child.once('exit', () => running.delete(child))
  if (watching) return
  watching = true
  process.on('exit', () => running.forEach((each) => each.kill('SIGTERM')))
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.once(signal, () => process.exit(1))
}

/** No program that is run to its end may take longer, in milliseconds, unless it says so. */
const LONGEST = 300_000

/**
 * Runs a program to its end; rejects with what it said when it fails, and when it takes longer than
 * `timeout` milliseconds.
 */
export function run(
  program: string,
  args: string[],
  options: { env?: NodeJS.ProcessEnv; timeout?: number; cwd?: string } = {},
): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      timeout: LONGEST,
      killSignal: 'SIGKILL',
      ...options,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    own(child)
    let out = ''
    let words = ''
    child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()))
    child.stderr.on('data', (chunk: Buffer) => (words += chunk.toString()))
    child.on('error', reject)
    child.on('close', (code, signal) => {
      if (code === 0) resolve(out)
      else reject(new Error(`${program} ended with ${signal ?? code}: ${words.trim()}`))
    })
  })
}

/** How often a server that starts is asked whether it has. */
const POLL_MS = 5

/** A server that was started. */
export type Server = {
  name: string
  /** `http://127.0.0.1:PORT` */
  base: string
  pid: number
  /** SIGTERM, and SIGKILL where that has not ended it after ten seconds. */
  stop(): Promise<void>
}

/**
 * Starts a server, its words in a file of its folder, and waits until `url` answers 200. Throws when
 * it ends, or has not answered after `seconds`.
 */
export async function serve(
  folder: string,
  program: string,
  args: string[],
  url: string,
  env: NodeJS.ProcessEnv = process.env,
  seconds = 20,
): Promise<Pick<Server, 'pid' | 'stop'>> {
  const words = openSync(join(folder, 'words'), 'a')
  const child = spawn(program, args, { cwd: folder, env, stdio: ['ignore', words, words] })
  own(child)
  closeSync(words)
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  const failures: Error[] = []
  child.once('error', (error) => failures.push(error))
  const stop = async () => {
    child.kill('SIGTERM')
    const late = setTimeout(() => child.kill('SIGKILL'), 10_000)
    await ended
    clearTimeout(late)
  }
  for (const end = performance.now() + seconds * 1000; ;) {
    const status = await send('GET', url, { timeout: 5000 }).then(
      (answer) => answer.status,
      () => 0,
    )
    if (status === 200) return { pid: child.pid ?? 0, stop }
    const dead = failures.length > 0 || child.exitCode !== null || child.signalCode !== null
    if (dead || performance.now() > end) {
      if (!dead) await stop()
      const said = readFileSync(join(folder, 'words'), 'utf8').slice(-2000)
      throw new Error(`${program} does not answer at ${url}: ${failures.join() || said}`)
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS))
  }
}

/**
 * Writes so many bytes to a file and removes it: where the host of a virtual machine has taken free memory
 * back, it is fetched now, and not by whoever is measured next (docs/benchmarks.md).
 */
export async function fetchMemory(folder: string, bytes: number): Promise<void> {
  const path = join(folder, 'memory')
  const block = Buffer.alloc(2 ** 20)
  const file = await open(path, 'wx')
  try {
    for (let at = 0; at < bytes; at += block.length) await file.write(block)
  } finally {
    await file.close()
    await rm(path)
  }
}

/** Cores of measurements on one core: servers have one of their own, and the load another. */
export const SERVER_CORE = 0
export const LOAD_CORE = 1

/**
 * Does `work` with this process on the core of the load, when it is the load itself. What it starts
 * meanwhile begins there too, unless it is `pinned` elsewhere.
 */
export async function onLoadCore<T>(work: () => Promise<T>): Promise<T> {
  const taskset = findProgram('taskset')
  if (taskset === null || availableParallelism() < 2) return work()
  const own = String(process.pid)
  const before = (await run(taskset, ['-cp', own])).split(': ')[1]?.trim() ?? ''
  await run(taskset, ['-acp', String(LOAD_CORE), own])
  try {
    return await work()
  } finally {
    await run(taskset, ['-acp', before, own])
  }
}

/** The command on that core; as it is where there are no two cores, or no taskset. */
export function pinned(core: number, command: readonly string[]): string[] {
  const taskset = findProgram('taskset')
  if (taskset === null || availableParallelism() < 2) return [...command]
  return [taskset, '-c', String(core), ...command]
}

/** A free TCP port on loopback. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.on('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() =>
        resolve(address !== null && typeof address === 'object' ? address.port : 0),
      )
    })
  })
}

/** A process and all that descend from it. */
function family(pid: number): number[] {
  try {
    return [
      pid,
      ...readdirSync(`/proc/${pid}/task`)
        .flatMap((task) =>
          readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').split(' ').filter(Boolean),
        )
        .flatMap((child) => family(Number(child))),
    ]
  } catch {
    // it has ended meanwhile
    return []
  }
}

/** Processor seconds, user and system, that a process and its children have used so far. */
export function cpuSeconds(pid: number): number {
  return family(pid).reduce((sum, each) => {
    // After the command's name in brackets: state is field 3, utime and stime are 14 and 15, in ticks.
    const stat = readFileSync(`/proc/${each}/stat`, 'utf8')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return sum + (Number(fields[11]) + Number(fields[12])) / 100
  }, 0)
}

/** Memory of a process and its children in MiB, now and at its highest (of each). */
export function memory(pid: number): { now: number; peak: number } {
  const total = { now: 0, peak: 0 }
  for (const each of family(pid)) {
    const status = readFileSync(`/proc/${each}/status`, 'utf8')
    total.now += Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) / 1024
    total.peak += Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) / 1024
  }
  return total
}

/** Downloads to nowhere, following redirects. Seconds by curl's own clock. */
export async function download(url: string, size: number): Promise<number> {
  const format = '%{http_code} %{size_download} %{time_total}'
  const options = '--silent --show-error --fail --location --max-time 120 --output /dev/null'
  const out = await run('curl', [...options.split(' '), '--write-out', format, url])
  const [status, bytes, seconds] = out.split(' ').map(Number)
  if (status !== 200 || bytes !== size) throw new Error(`${url} answered ${out}`)
  return seconds ?? 0
}

/** Where a GET is sent on to; null where it is answered. The body is not read. */
export function redirectOf(url: string): Promise<string | null> {
  return new Promise((resolve, reject) => {
    const asked = request(url, (answer) => {
      resolve(answer.headers.location ?? null)
      asked.destroy()
    })
    asked.on('error', reject)
    asked.end()
  })
}

/** SHA-256 of what a URL serves. */
export async function digestOf(url: string): Promise<string> {
  const out = await run('sh', [
    '-c',
    'curl --silent --fail --location --max-time 120 "$1" | sha256sum',
    'sh',
    url,
  ])
  return out.slice(0, 64)
}

/**
 * Downloads as the real client does it: ranges of 5 MiB, three under way at a time, to nowhere.
 * Seconds on the clock.
 */
export async function downloadRanges(url: string, size: number, config: string): Promise<number> {
  const RANGE = 5 * 2 ** 20
  const parts = Array.from({ length: Math.ceil(size / RANGE) }, (_, part) => {
    const range = `${part * RANGE}-${Math.min(size, (part + 1) * RANGE) - 1}`
    const lines = [`url = "${url}"`, `range = "${range}"`, 'output = "/dev/null"']
    return [...lines, 'write-out = "%{http_code} %{size_download}\\n"', 'silent', 'fail'].join('\n')
  })
  writeFileSync(config, `parallel\nparallel-max = 3\n${parts.join('\nnext\n')}\n`)
  const start = performance.now()
  const out = await run('curl', ['--disable', '--config', config])
  const seconds = (performance.now() - start) / 1000
  const answers = out.trim().split('\n')
  const sizes = answers.map((line) =>
    line.startsWith('206 ') ? Number(line.slice(4)) : Number.NaN,
  )
  if (sizes.reduce((sum, each) => sum + each, 0) !== size)
    throw new Error(`${url} answered ranges with ${answers.slice(0, 3).join('; ')} …`)
  return seconds
}

/** Requests per second, and the milliseconds that 99 of 100 do not exceed. */
export type Rate = { rate: number; p99: number }

/**
 * Asks for one address over 64 connections kept alive, from the core of the load: by wrk with one
 * thread or, without it, by a loop of our own. Throws when any answer is not 2xx or 3xx.
 */
export async function requestRate(
  url: string,
  headers: Record<string, string>,
  seconds: number,
  connections = 64,
): Promise<Rate> {
  const wrk = findProgram('wrk')
  if (wrk === null) return loop(url, headers, seconds, connections)
  const options = Object.entries(headers).flatMap(([name, value]) => ['-H', `${name}: ${value}`])
  const args = ['-t1', `-c${connections}`, `-d${seconds}s`, '--latency', ...options, url]
  const [program = wrk, ...rest] = pinned(LOAD_CORE, [wrk, ...args])
  const out = await run(program, rest)
  if (/Non-2xx or 3xx responses|Socket errors/.test(out)) throw new Error(`${url}: ${out}`)
  return parseWrk(out)
}

/** Reads what `wrk --latency` prints; throws where that is something else. */
export function parseWrk(out: string): Rate {
  const rate = /Requests\/sec:\s*([\d.]+)/.exec(out)?.[1]
  const [, value, unit] = /^\s*99%\s+([\d.]+)(us|ms|s)\s*$/m.exec(out) ?? []
  if (rate === undefined || unit === undefined) throw new Error(`not from wrk: ${out}`)
  return { rate: Number(rate), p99: Number(value) * { us: 0.001, ms: 1, s: 1000 }[unit as 'us'] }
}

async function loop(
  url: string,
  headers: Record<string, string>,
  seconds: number,
  connections: number,
): Promise<Rate> {
  const agent = new Agent({ keepAlive: true, maxSockets: connections })
  const end = performance.now() + seconds * 1000
  const times: number[] = []
  const worker = async () => {
    for (let start = performance.now(); start < end; start = performance.now()) {
      const { status } = await send('GET', url, { agent, headers })
      if (status < 200 || status > 399) throw new Error(`${url} answered ${status}`)
      times.push(performance.now() - start)
    }
  }
  await Promise.all(Array.from({ length: connections }, worker))
  agent.destroy()
  return { rate: times.length / seconds, p99: quantile(times, 0.99) }
}

/** Throws with what was answered unless its status is one of `statuses`. */
export function expectStatus(answer: Answer, ...statuses: number[]): Answer {
  if (!statuses.includes(answer.status))
    throw new Error(`expected ${statuses.join(' or ')}, got ${answer.status}: ${answer.body}`)
  return answer
}

/** Bytes of a file, or made as they are asked for: `fill` writes those from `at` on, all of `block`. */
export type Content = { path: string } | { fill(block: Buffer, at: number): void }
export type Slice = Content & { start: number; size: number }
export type Answer = { status: number; headers: Record<string, string>; body: string }

/**
 * One HTTP request, its body a string or a slice of some content, which is read into two buffers of
 * 1 MiB in turn, so that the client costs little beside the server it measures. Rejects when nothing
 * moved for `timeout` milliseconds.
 */
export function send(
  method: string,
  url: string,
  options: {
    agent?: Agent
    headers?: Record<string, string>
    body?: string | Slice
    timeout?: number
  } = {},
): Promise<Answer> {
  const { agent, headers = {}, body = '', timeout = 120_000 } = options
  const size = typeof body === 'string' ? Buffer.byteLength(body) : body.size
  return new Promise((resolve, reject) => {
    const outgoing = request(
      url,
      { method, ...(agent && { agent }), headers: { ...headers, 'Content-Length': size } },
      (incoming) => {
        let text = ''
        incoming.on('data', (chunk: Buffer) => (text += chunk.toString()))
        incoming.on('error', reject)
        incoming.on('end', () =>
          resolve({
            status: incoming.statusCode ?? 0,
            headers: incoming.headers as Record<string, string>,
            body: text,
          }),
        )
      },
    )
    outgoing.on('error', reject)
    outgoing.setTimeout(timeout, () =>
      outgoing.destroy(new Error(`${method} ${url}: nothing for ${timeout} ms`)),
    )
    if (typeof body === 'string') outgoing.end(body)
    else pour(body, outgoing).catch(reject)
  })
}

async function pour(slice: Slice, outgoing: ReturnType<typeof request>): Promise<void> {
  const buffers = [Buffer.allocUnsafe(1 << 20), Buffer.allocUnsafe(1 << 20)]
  const file = 'path' in slice ? openSync(slice.path, 'r') : null
  const fill = async (block: Buffer, at: number) => {
    if ('fill' in slice) slice.fill(block, at)
    else if ((await readAt(file ?? -1, block, 0, block.length, at)).bytesRead !== block.length)
      throw new Error(`${slice.path} is shorter than ${at + block.length}`)
  }
  try {
    let written: Promise<void> = Promise.resolve()
    for (let done = 0, turn = 0; done < slice.size; turn = 1 - turn) {
      const block = (buffers[turn] as Buffer).subarray(0, slice.size - done)
      await fill(block, slice.start + done)
      // The other buffer is on its way while this one was being read.
      await written
      written = new Promise((resolve, reject) => {
        outgoing.write(block, (error) => (error ? reject(error) : resolve()))
      })
      done += block.length
    }
    await written
    outgoing.end()
  } finally {
    if (file !== null) closeSync(file)
  }
}
