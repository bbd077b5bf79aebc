/** What is compared: sreg-lite, nginx and Debian's docker-registry, each started in its own folder. */
import { spawn, type ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { linkSync, mkdirSync, openSync, writeFileSync } from 'node:fs'
import { Agent } from 'node:http'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { findProgram, freePort, run, send, type Answer } from './measure.ts'
import type { Payload } from './payload.ts'

export type Target = { label: string; url: string; headers?: Record<string, string> }

export type System = {
  name: string
  pid: number
  stop(): Promise<void>
  /** Makes a payload downloadable; returns where, and what a metadata lookup is here. */
  publish(payload: Payload): Promise<{ pulls: Target[]; lookups: Target[] }>
  /** What a push needs beforehand, and the push itself; only the latter is measured. */
  prepare?(payload: Payload): Promise<() => Promise<void>>
}

type Start = (folder: string) => Promise<System>

/** In the order of the table; `start` is null where the program is not installed. */
export function findSystems(): { name: string; start: Start | null; hint: string }[] {
  const nginx = findProgram('nginx')
  const registry = findProgram('docker-registry')
  return [
    { name: 'sreg-lite', start: startSreg, hint: '' },
    {
      name: 'nginx',
      start: nginx === null ? null : (folder) => startNginx(nginx, folder),
      hint: 'apt-get install nginx-light',
    },
    {
      name: 'docker-registry',
      start: registry === null ? null : (folder) => startRegistry(registry, folder),
      hint: 'apt-get install docker-registry',
    },
  ]
}

/** Starts a server, its words in a file of its folder, and waits until `url` answers 200. */
export async function serve(
  folder: string,
  program: string,
  args: string[],
  url: string,
  env: NodeJS.ProcessEnv = process.env,
): Promise<{ pid: number; stop: () => Promise<void> }> {
  const words = openSync(join(folder, 'words'), 'w')
  const child: ChildProcess = spawn(program, args, {
    cwd: folder,
    env,
    stdio: ['ignore', words, words],
  })
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  for (let tries = 0; ; tries++) {
    const status = await send('GET', url).then(
      (answer) => answer.status,
      () => 0,
    )
    if (status === 200) break
    if (child.exitCode !== null || tries > 200)
      throw new Error(`${program} does not answer at ${url}; see ${join(folder, 'words')}`)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  const stop = () => {
    child.kill('SIGTERM')
    return ended
  }
  return { pid: child.pid ?? 0, stop }
}

function expectStatus(answer: Answer, ...statuses: number[]): Answer {
  if (!statuses.includes(answer.status))
    throw new Error(`expected ${statuses.join(' or ')}, got ${answer.status}: ${answer.body}`)
  return answer
}

// --- sreg-lite -----------------------------------------------------------------------------------

async function startSreg(folder: string): Promise<System> {
  const launcher = fileURLToPath(new URL('../dist/launcher.mjs', import.meta.url))
  const port = await freePort()
  const base = `http://127.0.0.1:${port}`
  // As the peers: no line per request.
  const env = { ...process.env, SREG_DATA: join(folder, 'data'), SREG_LOG: 'off' }
  const args = [launcher, 'serve', '--port', String(port)]
  const server = await serve(folder, process.execPath, args, `${base}/readyz`, env)
  await run(process.execPath, [launcher, 'user', 'add', 'bench'], { env })
  const token = (
    await run(process.execPath, [launcher, 'token', 'create', 'bench'], { env })
  ).trim()
  const headers = { Authorization: `Bearer ${token}` }
  const agent = new Agent({ keepAlive: true })

  const ask = async (method: string, path: string, body?: unknown) => {
    const text = body === undefined ? {} : { body: JSON.stringify(body) }
    const answer = await send(method, `${base}${path}`, { agent, headers, ...text })
    if (answer.status === 404) return null
    expectStatus(answer, 200, 201)
    return (JSON.parse(answer.body) as { data: Record<string, never> }).data
  }
  /** As the client does it: look, and create what is not there. Returns the id. */
  const findOrCreate = async (look: string, create: string, draft: object) => {
    const found = (await ask('GET', look)) ?? (await ask('POST', create, draft))
    return String(found?.id)
  }
  let container = ''
  const openImage = async (payload: Payload) => {
    const entity = await findOrCreate('/v1/entities/bench', '/v1/entities', { name: 'bench' })
    const collection = await findOrCreate('/v1/collections/bench/c', '/v1/collections', {
      name: 'c',
      entity,
    })
    container = await findOrCreate('/v1/containers/bench/c/n', '/v1/containers', {
      name: 'n',
      collection,
    })
    const hash = `sha256.${payload.sha256}`
    return findOrCreate(`/v1/images/bench/c/n:${hash}?arch=amd64`, '/v1/images', {
      hash,
      container,
    })
  }
  /** The real client's multipart upload, with its checksum for every part. */
  const upload = async (image: string, payload: Payload) => {
    const at = `/v2/imagefile/${image}/_multipart`
    const opened = await ask('POST', at, { filesize: payload.size })
    const partSize = Number(opened?.partSize)
    const completedParts = []
    for (let number = 1; number <= Number(opened?.totalParts); number++) {
      const start = (number - 1) * partSize
      const size = Math.min(partSize, payload.size - start)
      const sha256sum = payload.parts[number - 1]
      const part = { partSize: size, uploadID: opened?.uploadID, partNumber: number, sha256sum }
      const signed = await ask('PUT', at, part)
      const answer = await send('PUT', String(signed?.presignedURL), {
        agent,
        headers: { 'x-amz-content-sha256': sha256sum ?? '' },
        body: { path: payload.path, start, size },
      })
      expectStatus(answer, 200)
      completedParts.push({ partNumber: number, token: answer.headers.etag })
    }
    await ask('PUT', `${at}_complete`, { uploadID: opened?.uploadID, completedParts })
  }

  return {
    name: 'sreg-lite',
    ...server,
    async prepare(payload) {
      const image = await openImage(payload)
      return () => upload(image, payload)
    },
    async publish(payload) {
      const image = await openImage(payload)
      await upload(image, payload)
      await ask('POST', `/v2/tags/${container}`, { Arch: 'amd64', Tag: 'bench', ImageID: image })
      const ref = 'bench/c/n:bench?arch=amd64'
      const file = `${base}/v1/imagefile/${ref}`
      const answer = expectStatus(await send('GET', file, { agent }), 303)
      const lookup = `${base}/v1/images/${ref}`
      return {
        pulls: [
          { label: 'imagefile, redirect followed', url: file },
          { label: 'ticket', url: String(answer.headers.location) },
        ],
        lookups: [
          { label: 'image by tag', url: lookup },
          { label: 'image by tag, with a token', url: lookup, headers },
        ],
      }
    },
  }
}

// --- nginx ---------------------------------------------------------------------------------------

async function startNginx(program: string, folder: string): Promise<System> {
  const port = await freePort()
  const base = `http://127.0.0.1:${port}`
  mkdirSync(join(folder, 'www'))
  writeFileSync(join(folder, 'www/lookup'), 'x'.repeat(1024))
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
  writeFileSync(
    join(folder, 'nginx.conf'),
    // As root the worker would become somebody who may not read this folder.
    `${process.getuid?.() === 0 ? 'user root;' : ''}
    daemon off; worker_processes 1; pid ${folder}/pid; error_log stderr;
    events { worker_connections 256; }
    http {
      ${temporary.map((name) => `${name}_temp_path ${folder}/${name};`).join(' ')}
      access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000;
      server { listen 127.0.0.1:${port}; root ${folder}/www; }
    }\n`,
  )
  const args = ['-p', folder, '-c', join(folder, 'nginx.conf')]
  const server = await serve(folder, program, args, `${base}/lookup`)
  return {
    name: 'nginx',
    ...server,
    async publish(payload) {
      linkSync(payload.path, join(folder, 'www/payload'))
      return {
        pulls: [{ label: 'file, sendfile', url: `${base}/payload` }],
        lookups: [{ label: 'file of 1 KiB', url: `${base}/lookup` }],
      }
    },
  }
}

// --- docker-registry -----------------------------------------------------------------------------

async function startRegistry(program: string, folder: string): Promise<System> {
  const port = await freePort()
  const base = `http://127.0.0.1:${port}/v2/`
  const settings = {
    version: 0.1,
    log: { level: 'error', accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: join(folder, 'data') } },
    http: { addr: `127.0.0.1:${port}` },
  }
  // JSON is YAML.
  writeFileSync(join(folder, 'config.yml'), JSON.stringify(settings))
  const server = await serve(folder, program, ['serve', join(folder, 'config.yml')], base)
  const agent = new Agent({ keepAlive: true })

  const upload = async (
    sha256: string,
    body: string | { path: string; start: 0; size: number },
  ) => {
    const opened = expectStatus(await send('POST', `${base}bench/blobs/uploads/`, { agent }), 202)
    const url = `${opened.headers.location}&digest=sha256:${sha256}`
    const headers = { 'Content-Type': 'application/octet-stream' }
    expectStatus(await send('PUT', url, { agent, headers, body }), 201)
  }
  const uploadPayload = (payload: Payload) =>
    upload(payload.sha256, { path: payload.path, start: 0, size: payload.size })

  return {
    name: 'docker-registry',
    ...server,
    prepare: (payload) => Promise.resolve(() => uploadPayload(payload)),
    async publish(payload) {
      await uploadPayload(payload)
      const config = '{}'
      const digest = createHash('sha256').update(config).digest('hex')
      await upload(digest, config)
      const type = 'application/vnd.docker.distribution.manifest.v2+json'
      const layer = 'application/vnd.docker.image.rootfs.diff.tar.gzip'
      const manifest = {
        schemaVersion: 2,
        mediaType: type,
        config: {
          mediaType: 'application/vnd.docker.container.image.v1+json',
          size: config.length,
          digest: `sha256:${digest}`,
        },
        layers: [{ mediaType: layer, size: payload.size, digest: `sha256:${payload.sha256}` }],
      }
      const url = `${base}bench/manifests/bench`
      const headers = { 'Content-Type': type }
      expectStatus(await send('PUT', url, { agent, headers, body: JSON.stringify(manifest) }), 201)
      return {
        pulls: [{ label: 'blob', url: `${base}bench/blobs/sha256:${payload.sha256}` }],
        lookups: [{ label: 'manifest by tag', url, headers: { Accept: type } }],
      }
    },
  }
}
