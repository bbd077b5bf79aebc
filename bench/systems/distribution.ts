/**
 * Registries that speak OCI: Debian's docker-registry (distribution 2.8), and a current distribution
 * and zot where somebody has built them and names their programs.
 */
import { createHash } from 'node:crypto'
import { accessSync, constants, writeFileSync } from 'node:fs'
import { Agent } from 'node:http'
import { join } from 'node:path'
import {
  expectStatus,
  findProgram,
  freePort,
  pinned,
  send,
  serve,
  SERVER_CORE,
} from '../measure.ts'
import { PART, type Payload } from '../content/payload.ts'
import type { Candidate, Registry } from './registry.ts'

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
const JSON_CONFIG = 'application/vnd.oci.image.config.v1+json'
const LAYER = 'application/vnd.sylabs.sif.layer.v1.sif'

export type OciOptions = {
  pin?: boolean
  /** Of distribution's configuration; its file system below the folder unless told. */
  storage?: object
}

/** All of them; who is not there says what is missing. */
export function ociRegistries(options: OciOptions = {}): Candidate<Registry>[] {
  const debian = findProgram('docker-registry')
  return [
    {
      name: 'docker-registry',
      start:
        debian === null
          ? null
          : (folder) => startDistribution('docker-registry', debian, folder, options),
      hint: 'apt-get install docker-registry',
    },
    built('distribution', 'BENCH_DISTRIBUTION', 'registry', (program, folder) =>
      startDistribution('distribution', program, folder, options),
    ),
    built('zot', 'BENCH_ZOT', 'zot', (program, folder) => startZot(program, folder, options)),
  ]
}

/** A program that no package of Debian's brings. */
function built(
  name: string,
  variable: string,
  program: string,
  start: (program: string, folder: string) => Promise<Registry>,
): Candidate<Registry> {
  const path = process.env[variable] ?? ''
  try {
    if (path !== '') accessSync(path, constants.X_OK)
  } catch {
    return { name, start: null, hint: `${variable} names ${path}, which cannot be run` }
  }
  return {
    name,
    start: path === '' ? null : (folder) => start(path, folder),
    hint: `build ${name} and set ${variable} to the path of its program \`${program}\``,
  }
}

/** distribution of any version: `registry serve`, or Debian's `docker-registry serve`. */
export async function startDistribution(
  name: string,
  program: string,
  folder: string,
  { pin = false, storage }: OciOptions,
): Promise<Registry> {
  const port = await freePort()
  const settings = {
    version: 0.1,
    log: { level: 'error', accesslog: { disabled: true } },
    storage: storage ?? { filesystem: { rootdirectory: join(folder, 'data') } },
    http: { addr: `127.0.0.1:${port}` },
  }
  // JSON is YAML.
  writeFileSync(join(folder, 'config.yml'), JSON.stringify(settings))
  return startOci(name, port, [program, 'serve', join(folder, 'config.yml')], folder, pin)
}

async function startZot(
  program: string,
  folder: string,
  { pin = false }: OciOptions,
): Promise<Registry> {
  const port = await freePort()
  const settings = {
    distSpecVersion: '1.1.1',
    storage: { rootDirectory: join(folder, 'data'), gc: false },
    http: { address: '127.0.0.1', port: String(port) },
    log: { level: 'error' },
  }
  writeFileSync(join(folder, 'config.json'), JSON.stringify(settings))
  return startOci('zot', port, [program, 'serve', join(folder, 'config.json')], folder, pin)
}

async function startOci(
  name: string,
  port: number,
  command: string[],
  folder: string,
  pin: boolean,
): Promise<Registry> {
  const base = `http://127.0.0.1:${port}`
  const [program = '', ...args] = pin ? pinned(SERVER_CORE, command) : command
  // it would refuse S3 over http for a certificate that is meant for others
  const { AWS_CA_BUNDLE: _, ...env } = process.env
  const server = await serve(folder, program, args, `${base}/v2/`, env)
  return { name, base, ...server, ...repositories(base) }
}

type Body = string | { path: string; start: number; size: number }

const hexOf = (text: string) => createHash('sha256').update(text).digest('hex')

/** What the benchmark asks of a registry by the distribution specification; `auth` goes with all of it. */
export function repositories(
  base: string,
  auth: Record<string, string> = {},
): Pick<Registry, 'publish' | 'prepare'> {
  const agent = new Agent({ keepAlive: true })
  const octets = { ...auth, 'Content-Type': 'application/octet-stream' }

  const open = async (at: string) =>
    locationOf(
      expectStatus(await send('POST', `${at}/blobs/uploads/`, { agent, headers: auth }), 202),
      at,
    )
  const locationOf = ({ headers }: { headers: Record<string, string> }, at: string) =>
    new URL(headers.location ?? '', at)
  const close = async (url: URL, sha256: string, body: Body) => {
    url.searchParams.set('digest', `sha256:${sha256}`)
    expectStatus(await send('PUT', url.href, { agent, headers: octets, body }), 201)
  }
  const single = async (at: string, sha256: string, body: Body) =>
    close(await open(at), sha256, body)
  const inParts = async (at: string, { path, size, sha256 }: Payload) => {
    let url = await open(at)
    for (let start = 0; start < size; start += PART) {
      const body = { path, start, size: Math.min(PART, size - start) }
      const range = `${start}-${start + body.size - 1}`
      const headers = { ...octets, 'Content-Range': range }
      url = locationOf(
        expectStatus(await send('PATCH', url.href, { agent, headers, body }), 202),
        at,
      )
    }
    await close(url, sha256, '')
  }

  return {
    prepare(payload, how, name = 'n') {
      const at = `${base}/v2/bench/c/${name}`
      const { path, size, sha256 } = payload
      return Promise.resolve(() =>
        how === 'parts' ? inParts(at, payload) : single(at, sha256, { path, start: 0, size }),
      )
    },
    async publish(payload, name = 'n') {
      const at = `${base}/v2/bench/c/${name}`
      const { path, size, sha256 } = payload
      await single(at, sha256, { path, start: 0, size })
      const config = '{}'
      await single(at, hexOf(config), config)
      const manifest = JSON.stringify({
        schemaVersion: 2,
        mediaType: MANIFEST,
        config: { mediaType: JSON_CONFIG, size: config.length, digest: `sha256:${hexOf(config)}` },
        layers: [{ mediaType: LAYER, size, digest: `sha256:${sha256}` }],
      })
      const tag = async (tag: string) => {
        const headers = { ...auth, 'Content-Type': MANIFEST }
        const url = `${at}/manifests/${tag}`
        expectStatus(await send('PUT', url, { agent, headers, body: manifest }), 201)
      }
      await tag('bench')
      const whole = `${at}/blobs/sha256:${sha256}`
      return {
        whole,
        ranges: whole,
        lookup: { url: `${at}/manifests/bench`, headers: { Accept: MANIFEST } },
        tag,
        async again() {
          for (const digest of [sha256, hexOf(config)])
            expectStatus(
              await send('HEAD', `${at}/blobs/sha256:${digest}`, { agent, headers: auth }),
              200,
            )
          await tag('bench')
        },
      }
    },
  }
}
