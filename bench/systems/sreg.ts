/** Our built server, on each runtime that can serve a data folder, and in workerd. */
import { existsSync, readFileSync } from 'node:fs'
import { Agent } from 'node:http'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { commandOf, RUNTIMES, type Runtime } from '../../test/runtimes/runtime.ts'
import {
  expectStatus,
  freePort,
  pinned,
  redirectOf,
  run,
  send,
  serve,
  SERVER_CORE,
} from '../measure.ts'
import type { Image } from '../content/payload.ts'
import type { Missing } from '../report.ts'
import type { Candidate, How, Registry, Stored } from './registry.ts'

const path = (name: string) => fileURLToPath(new URL(`../../${name}`, import.meta.url))
const LAUNCHER = path('dist/launcher.mjs')

export const OURS = [...RUNTIMES, 'workerd'] as const
export type Ours = Runtime | 'workerd'

export type Sreg = Registry & {
  /** Data folder. */
  data: string
  /** A user's token; an administrator's in workerd. */
  token: string
  /** Path of the container that a name stands for, as in `library://PATH:TAG`. */
  pathOf(name: string): string
  publish(image: Image, name?: string): Promise<Stored>
}

export type SregOptions = {
  runtime?: Ours
  /** Log lines for each request, as JSON into a file; otherwise none, as our peers. */
  log?: boolean
  /** On the core of servers, where the load has another one. */
  pin?: boolean
  env?: Record<string, string>
  /** Shown instead of the runtime's. */
  name?: string
}

export const nameOf = (runtime: Ours): string =>
  ({
    node: 'sreg-lite',
    bun: 'sreg-lite on Bun',
    deno: 'sreg-lite on Deno',
    workerd: 'sreg-lite in workerd',
  })[runtime]

/** Our server on these runtimes, as candidates that are always there. */
export const ours = (
  runtimes: readonly Ours[],
  options: Omit<SregOptions, 'runtime'> = {},
): Candidate<Sreg>[] =>
  runtimes.map((runtime) => ({
    name: nameOf(runtime),
    start: (folder) => startSreg(folder, { ...options, runtime }),
    hint: '',
  }))

/** The emulator of R2 needs seconds for what others do in tenths. */
const WORKERD_MOST = 256 * 2 ** 20

/** Our runtimes for images of that size, and whom that leaves out. */
export function runtimesFor(size: number): { runtimes: Ours[]; missing: Missing[] } {
  if (size <= WORKERD_MOST) return { runtimes: ['node', 'bun', 'deno', 'workerd'], missing: [] }
  const why = `only with --size ${WORKERD_MOST / 2 ** 20} or less, for its emulated R2`
  return {
    runtimes: ['node', 'bun', 'deno'],
    missing: [{ system: 'sreg-lite in workerd', why }],
  }
}

/** What `npm start` tells Node, as in `node --option dist/launcher.mjs serve`. */
function optionsOfStart(): string[] {
  const { scripts } = JSON.parse(readFileSync(path('package.json'), 'utf8')) as {
    scripts: { start: string }
  }
  const [, options] = /node (.*)dist\/launcher\.mjs serve$/.exec(scripts.start) ?? []
  if (options === undefined) throw new Error(`npm start is no longer node: ${scripts.start}`)
  return options.split(' ').filter((option) => option !== '')
}

/** How the server is begun on a port, as `npm start` does it: program, arguments, environment. */
export function commandLine(data: string, port: number, options: SregOptions = {}) {
  const { runtime = 'node', log = false, pin = false } = options
  const program =
    runtime === 'workerd'
      ? [process.execPath, path('scripts/start-workers.mjs')]
      : [...commandOf(runtime), ...(runtime === 'node' ? optionsOfStart() : []), LAUNCHER, 'serve']
  const command = [...program, '--port', String(port), '--data', data]
  const [first = '', ...args] = pin ? pinned(SERVER_CORE, command) : command
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('SREG_'))
  const env = { ...Object.fromEntries(inherited), SREG_LOG: log ? 'json' : 'off', ...options.env }
  return { program: first, args, env }
}

/** Starts it with a fresh or an old data folder below `folder`, and makes a user with a token. */
export async function startSreg(folder: string, options: SregOptions = {}): Promise<Sreg> {
  const { runtime = 'node', name = nameOf(runtime) } = options
  const port = await freePort()
  const base = `http://127.0.0.1:${port}`
  const data = join(folder, 'data')
  const { program, args, env } = commandLine(data, port, options)
  const server = await serve(folder, program, args, `${base}/readyz`, env, 60)
  try {
    const token = runtime === 'workerd' ? await firstAdmin(data) : await mint(data)
    return { name, base, data, token, ...server, ...library(base, token) }
  } catch (error) {
    await server.stop()
    throw error
  }
}

/** The administrator's token, which the start in workerd leaves a moment after the first answer. */
async function firstAdmin(data: string): Promise<string> {
  const file = join(data, 'first-admin-token')
  for (let tries = 0; tries < 200 && !existsSync(file); tries++)
    await new Promise((resolve) => setTimeout(resolve, 50))
  return readFileSync(file, 'utf8').trim()
}

/** A user `bench`, unless there is one, and a token of theirs, by the command line. */
async function mint(data: string): Promise<string> {
  const env = { ...process.env, SREG_DATA: data }
  const sreg = (...args: string[]) => run(process.execPath, [LAUNCHER, ...args], { env })
  await sreg('user', 'add', 'bench').catch((error: unknown) => {
    if (!/already|exists/i.test(String(error))) throw error
  })
  return (await sreg('token', 'create', 'bench')).trim()
}

/** What the real client sends for a push, over the agent's connections, with a token. */
export function pusher(base: string, token: string, agent: Agent) {
  const headers = { Authorization: `Bearer ${token}` }
  const pathOf = (name: string) => `bench/c/${name}`

  /** What the registry answers; null for 404. */
  const ask = async (method: string, path: string, body?: object) => {
    const text = body === undefined ? {} : { body: JSON.stringify(body) }
    const answer = await send(method, `${base}${path}`, { agent, headers, ...text })
    if (answer.status === 404) return null
    expectStatus(answer, 200, 201)
    return (JSON.parse(answer.body) as { data: Record<string, unknown> }).data
  }
  /** As the client does it: look, and create what is not there. Returns the id. */
  const findOrCreate = async (look: string, create: string, draft: object) => {
    const found = (await ask('GET', look)) ?? (await ask('POST', create, draft))
    return String(found?.id)
  }
  /** Id of the container, which is made where it is missing. */
  const openContainer = async (name: string) => {
    const entity = await findOrCreate('/v1/entities/bench', '/v1/entities', { name: 'bench' })
    const draft = { name: 'c', entity }
    const collection = await findOrCreate('/v1/collections/bench/c', '/v1/collections', draft)
    const look = `/v1/containers/${pathOf(name)}`
    return findOrCreate(look, '/v1/containers', { name, collection })
  }
  /** Ids of the container and of an image for the payload in it, made where they are missing. */
  const open = async (payload: Image, name: string) => {
    const container = await openContainer(name)
    const hash = `sha256.${payload.sha256}`
    const look = `/v1/images/${pathOf(name)}:${hash}?arch=amd64`
    return { container, image: await findOrCreate(look, '/v1/images', { hash, container }) }
  }
  const setTag = (container: string, Tag: string, ImageID: string) =>
    ask('POST', `/v2/tags/${container}`, { Arch: 'amd64', Tag, ImageID })

  /** The real client's multipart upload, with a checksum for every part where the server wants that. */
  const uploadParts = async (image: string, payload: Image) => {
    const at = `/v2/imagefile/${image}/_multipart`
    const opened = await ask('POST', at, { filesize: payload.size })
    const partSize = Number(opened?.partSize)
    const { s3compliant } = (opened?.options ?? {}) as { s3compliant?: string }
    const completedParts = []
    for (let number = 1; number <= Number(opened?.totalParts); number++) {
      const start = (number - 1) * partSize
      const size = Math.min(partSize, payload.size - start)
      const sha256sum = s3compliant === 'false' ? '' : payload.parts[number - 1]
      const part = { partSize: size, uploadID: opened?.uploadID, partNumber: number, sha256sum }
      const signed = await ask('PUT', at, part)
      const answer = await send('PUT', String(signed?.presignedURL), {
        agent,
        headers: sha256sum ? { 'x-amz-content-sha256': sha256sum } : {},
        body: { ...payload, start, size },
      })
      expectStatus(answer, 200)
      completedParts.push({ partNumber: number, token: answer.headers.etag })
    }
    await ask('PUT', `${at}_complete`, { uploadID: opened?.uploadID, completedParts })
  }
  /** The client's upload of small images, here of any size: one body to one address. */
  const uploadSingle = async (image: string, payload: Image) => {
    const { size, sha256 } = payload
    const opened = await ask('POST', `/v2/imagefile/${image}`, {
      filesize: size,
      sha256sum: sha256,
    })
    const answer = await send('PUT', String(opened?.uploadURL), {
      agent,
      headers: { 'x-amz-content-sha256': sha256 },
      body: { ...payload, start: 0 },
    })
    expectStatus(answer, 200)
    await ask('PUT', `/v2/imagefile/${image}/_complete`, {})
  }
  const upload: Record<How, typeof uploadParts> = { single: uploadSingle, parts: uploadParts }
  return { pathOf, ask, open, upload, setTag }
}

/** What the benchmark asks of a library, with a token. */
function library(base: string, token: string): Pick<Sreg, 'pathOf' | 'prepare' | 'publish'> {
  const { pathOf, open, upload, setTag } = pusher(base, token, new Agent({ keepAlive: true }))
  return {
    pathOf,
    async prepare(payload, how, name = 'n') {
      const { image } = await open(payload, name)
      return () => upload[how](image, payload)
    },
    async publish(payload, name = 'n') {
      const { container, image } = await open(payload, name)
      await upload.parts(image, payload)
      await setTag(container, 'bench', image)
      const ref = `${pathOf(name)}:bench?arch=amd64`
      const whole = `${base}/v1/imagefile/${ref}`
      return {
        whole,
        // small images are answered without one
        ranges: (await redirectOf(whole)) ?? whole,
        lookup: { url: `${base}/v1/images/${ref}` },
        async tag(tag) {
          await setTag(container, tag, image)
        },
        async again() {
          const opened = await open(payload, name)
          await setTag(opened.container, 'bench', opened.image)
        },
      }
    },
  }
}
