/** Our built server for the cases about bytes: started on a runtime and a core, watched, and pushed to. */
import { existsSync, readFileSync } from 'node:fs'
import { Agent, request, type IncomingMessage } from 'node:http'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { findProgram, freePort, run, serve } from './measure.ts'
import { PART } from './payload.ts'

const root = fileURLToPath(new URL('..', import.meta.url))

export type Runtime = 'node' | 'bun' | 'deno'

export type Ours = {
  base: string
  pid: number
  stop(): Promise<void>
  /** One call of the library API; its `data`, null on 404. Throws on every other refusal. */
  ask(method: string, path: string, body?: unknown): Promise<Record<string, unknown> | null>
}

/** The command that runs our launcher, or null where the runtime is not installed. */
export function commandOf(runtime: Runtime): string[] | null {
  const program = runtime === 'node' ? process.execPath : join(root, 'node_modules/.bin', runtime)
  const known = existsSync(program) ? program : findProgram(runtime)
  const launcher = join(root, 'dist/launcher.mjs')
  if (known === null) return null
  if (runtime === 'bun') return [known, '--no-install', launcher]
  return runtime === 'deno' ? [known, 'run', '-A', launcher] : [known, launcher]
}

/** Starts our server with its data in `folder`, pinned to `core` unless that is null. */
export async function startOurs(
  folder: string,
  options: { runtime?: Runtime; core?: string | null; env?: Record<string, string> } = {},
): Promise<Ours> {
  const { runtime = 'node', core = null } = options
  const command = commandOf(runtime)
  if (command === null) throw new Error(`${runtime} is not installed`)
  const port = await freePort()
  const base = `http://127.0.0.1:${port}`
  const env = { ...process.env, SREG_DATA: join(folder, 'data'), SREG_LOG: 'off', ...options.env }
  const full = [...command, 'serve', '--port', String(port)]
  const [program = '', ...args] = core === null ? full : ['taskset', '-c', core, ...full]
  const server = await serve(folder, program, args, `${base}/readyz`, env)
  const [own = '', ...words] = command
  await run(own, [...words, 'user', 'add', 'bench'], { env }).catch(() => '')
  const token = (await run(own, [...words, 'token', 'create', 'bench'], { env })).trim()
  const agent = new Agent({ keepAlive: true })
  return {
    base,
    ...server,
    async ask(method, path, body) {
      const text = body === undefined ? null : JSON.stringify(body)
      const headers = { Authorization: `Bearer ${token}` }
      const answer = await exchange(method, `${base}${path}`, { agent, headers }, async (out) => {
        out.end(text ?? undefined)
      })
      if (answer.status === 404) return null
      if (answer.status >= 300) throw new Error(`${path}: ${answer.status} ${answer.body}`)
      return (JSON.parse(answer.body) as { data: Record<string, unknown> }).data
    },
  }
}

type Outgoing = ReturnType<typeof request>

/** One request, its body written by `write`; the whole answer. */
export function exchange(
  method: string,
  url: string,
  options: { agent?: Agent; headers?: Record<string, string> },
  write: (out: Outgoing) => Promise<void>,
): Promise<{ status: number; headers: IncomingMessage['headers']; body: string }> {
  return new Promise((resolve, reject) => {
    const out = request(url, { method, ...options }, (answer) => {
      let body = ''
      answer.on('data', (chunk: Buffer) => (body += chunk.toString()))
      answer.on('error', reject)
      answer.on('end', () =>
        resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body }),
      )
    })
    out.on('error', reject)
    write(out).catch(reject)
  })
}

/** What is pushed: its digests, and a way to write any part of it into a request. */
export type Content = {
  size: number
  /** Hex; `parts` of each 64 MiB. */
  sha256: string
  parts: string[]
  write(out: Outgoing, start: number, size: number): Promise<void>
}

/** Pushes as the real client does, part after part, and tags it; returns the path of the image file. */
export async function push(
  { base, ask }: Ours,
  content: Content,
  onPart: (number: number) => void = () => {},
): Promise<string> {
  const idOf = async (look: string, create: string, draft: object) =>
    String(((await ask('GET', look)) ?? (await ask('POST', create, draft)))?.id)
  const entity = await idOf('/v1/entities/bench', '/v1/entities', { name: 'bench' })
  const collection = await idOf('/v1/collections/bench/c', '/v1/collections', {
    name: 'c',
    entity,
  })
  const container = await idOf('/v1/containers/bench/c/n', '/v1/containers', {
    name: 'n',
    collection,
  })
  const hash = `sha256.${content.sha256}`
  const image = await idOf(`/v1/images/bench/c/n:${hash}?arch=amd64`, '/v1/images', {
    hash,
    container,
  })
  const at = `/v2/imagefile/${image}/_multipart`
  const { uploadID } = (await ask('POST', at, { filesize: content.size })) ?? {}
  const agent = new Agent({ keepAlive: true })
  const completedParts = []
  for (const [index, sha256sum] of content.parts.entries()) {
    const start = index * PART
    const partSize = Math.min(PART, content.size - start)
    const part = { partSize, uploadID, partNumber: index + 1, sha256sum }
    const { presignedURL } = (await ask('PUT', at, part)) ?? {}
    const headers = { 'Content-Length': String(partSize), 'x-amz-content-sha256': sha256sum }
    const answer = await exchange('PUT', String(presignedURL), { agent, headers }, (out) =>
      content.write(out, start, partSize),
    )
    if (answer.status !== 200) throw new Error(`part ${index + 1}: ${answer.status} ${answer.body}`)
    completedParts.push({ partNumber: index + 1, token: answer.headers.etag })
    onPart(index + 1)
  }
  agent.destroy()
  await ask('PUT', `${at}_complete`, { uploadID, completedParts })
  await ask('POST', `/v2/tags/${container}`, { Arch: 'amd64', Tag: 'bench', ImageID: image })
  return `${base}/v1/imagefile/bench/c/n:bench?arch=amd64`
}

/** Resident memory of a process in MiB: now, and the most since it began. */
export function memoryOf(pid: number): { now: number; peak: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const of = (name: string) => Number(new RegExp(`^${name}:\\s*(\\d+)`, 'm').exec(status)?.[1])
  return { now: of('VmRSS') / 1024, peak: of('VmHWM') / 1024 }
}
