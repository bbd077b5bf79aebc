/** The tools of the benchmark: processor time of a process, curl, wrk, and an upload client. */
import { spawn } from 'node:child_process'
import { accessSync, closeSync, constants, openSync, readFileSync } from 'node:fs'
import { read } from 'node:fs'
import { Agent, request } from 'node:http'
import { createServer } from 'node:net'
import { delimiter, join } from 'node:path'
import { promisify } from 'node:util'

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

/** Runs a program to its end; rejects with what it said when it fails. */
export function run(
  program: string,
  args: string[],
  options: { env?: NodeJS.ProcessEnv; timeout?: number } = {},
): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] })
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

/** Processor seconds, user and system, that a process and its children have used so far. */
export function cpuSeconds(pid: number): number {
  // After the command's name in brackets: state is field 3, utime and stime are 14 and 15, in ticks.
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ')
  return children
    .filter((child) => child.trim() !== '')
    .reduce(
      (sum, child) => sum + cpuSeconds(Number(child)),
      (Number(fields[11]) + Number(fields[12])) / 100,
    )
}

/** Downloads to nowhere, following redirects. Seconds by curl's own clock. */
export async function download(url: string, size: number): Promise<number> {
  const format = '%{http_code} %{size_download} %{time_total}'
  const options = '--silent --show-error --fail --location --max-time 300 --output /dev/null'
  const out = await run('curl', [...options.split(' '), '--write-out', format, url])
  const [status, bytes, seconds] = out.split(' ').map(Number)
  if (status !== 200 || bytes !== size) throw new Error(`${url} answered ${out}`)
  return seconds ?? 0
}

/** SHA-256 of what a URL serves. */
export async function digestOf(url: string): Promise<string> {
  const out = await run('sh', [
    '-c',
    'curl --silent --fail --location --max-time 300 "$1" | sha256sum',
    'sh',
    url,
  ])
  return out.slice(0, 64)
}

/** Requests per second over 32 connections, by wrk or, without it, by a loop of our own. */
export async function requestRate(
  url: string,
  headers: Record<string, string>,
  seconds: number,
): Promise<number> {
  const wrk = findProgram('wrk')
  if (wrk === null) return loop(url, headers, seconds)
  const options = Object.entries(headers).flatMap(([name, value]) => ['-H', `${name}: ${value}`])
  const out = await run(wrk, ['-t1', '-c32', `-d${seconds}s`, ...options, url])
  if (/Non-2xx or 3xx responses|Socket errors/.test(out)) throw new Error(`${url}: ${out}`)
  return Number(/Requests\/sec:\s*([\d.]+)/.exec(out)?.[1])
}

async function loop(url: string, headers: Record<string, string>, seconds: number) {
  const agent = new Agent({ keepAlive: true, maxSockets: 32 })
  const end = performance.now() + seconds * 1000
  let count = 0
  const worker = async () => {
    while (performance.now() < end) {
      const { status } = await send('GET', url, { agent, headers })
      if (status !== 200) throw new Error(`${url} answered ${status}`)
      count += 1
    }
  }
  await Promise.all(Array.from({ length: 32 }, worker))
  agent.destroy()
  return count / seconds
}

export type Slice = { path: string; start: number; size: number }
export type Answer = { status: number; headers: Record<string, string>; body: string }

/**
 * One HTTP request, its body a string or a slice of a file. The file is read into two buffers of
 * 1 MiB in turn, so that the client costs little beside the server it measures.
 */
export function send(
  method: string,
  url: string,
  options: { agent?: Agent; headers?: Record<string, string>; body?: string | Slice } = {},
): Promise<Answer> {
  const { agent, headers = {}, body = '' } = options
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
    if (typeof body === 'string') outgoing.end(body)
    else pour(body, outgoing).catch(reject)
  })
}

async function pour(slice: Slice, outgoing: ReturnType<typeof request>): Promise<void> {
  const buffers = [Buffer.allocUnsafe(1 << 20), Buffer.allocUnsafe(1 << 20)]
  const file = openSync(slice.path, 'r')
  try {
    let written: Promise<void> = Promise.resolve()
    for (let done = 0, turn = 0; done < slice.size; turn = 1 - turn) {
      const buffer = buffers[turn] as Buffer
      const length = Math.min(buffer.length, slice.size - done)
      const { bytesRead } = await readAt(file, buffer, 0, length, slice.start + done)
      if (bytesRead === 0) throw new Error(`${slice.path} is shorter than ${slice.size}`)
      // The other buffer is on its way while this one was being read.
      await written
      written = new Promise((resolve, reject) => {
        outgoing.write(buffer.subarray(0, bytesRead), (error) =>
          error ? reject(error) : resolve(),
        )
      })
      done += bytesRead
    }
    await written
    outgoing.end()
  } finally {
    closeSync(file)
  }
}
