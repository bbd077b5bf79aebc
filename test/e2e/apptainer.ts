/** The real client for tests: finds it, runs it in a home of its own, and makes images with it. */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createReadStream, existsSync } from 'node:fs'
import { cp, mkdir, rm, writeFile } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))
/** Node that strips types, as the command line needs it when run from its source. */
export const NODE = join(root, 'node_modules/.bin/node')
export const MAIN = join(root, 'adapters/node/main.ts')

/** Exit code (null after a signal) and what stood on the terminal, both streams as they came. */
export type Outcome = { code: number | null; terminal: string }

/** Where scripts/setup.mjs brings the clients to. */
const BROUGHT = ['.cache/apptainer/bin', '.cache/oci-clients/bin'].map((at) => join(root, at))

/** The program on PATH, else the one that scripts/setup.mjs brought; null when there is none. */
export function findProgram(name: string): string | null {
  const folders = (process.env.PATH ?? '').split(delimiter).filter((folder) => folder !== '')
  const programs = [...folders, ...BROUGHT].map((folder) => join(folder, name))
  return programs.find((program) => existsSync(program)) ?? null
}
export const findApptainer = () => findProgram('apptainer')

/** Runs a program to its end; `input` becomes its standard input, which is empty otherwise. */
export function runProgram(
  program: string,
  args: string[],
  { env = process.env, input = '' }: { env?: NodeJS.ProcessEnv; input?: string } = {},
): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { env, stdio: 'pipe' })
    let terminal = ''
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => (terminal += text))
    child.on('error', reject)
    child.on('close', (code) => resolve({ code, terminal }))
    // A client that reads nothing may be gone before the input is written.
    child.stdin.on('error', () => {})
    child.stdin.end(input)
  })
}

export type Client = {
  /** Holds the client's home, configuration and cache, and what it pulled. */
  folder: string
  run(args: string[], input?: string): Promise<Outcome>
  /** Runs `sreg-lite connect` as this client's person: the token travels in a file. */
  connect(url: string, token: string): Promise<Outcome>
  /**
   * Pulls `args`, flags and then the ref, without the cache unless asked; `sha256` is null when no
   * file was left.
   */
  pull(
    args: string[],
    options?: { cache?: boolean },
  ): Promise<Outcome & { sha256: string | null; file: string }>
}

/** A client with nothing configured, or with the keys of the folder `keyring`. */
export async function makeClient(folder: string, { keyring }: { keyring?: string } = {}) {
  const program = findApptainer()
  if (program === null) throw new Error('makeClient without an apptainer')
  const config = join(folder, 'config')
  await mkdir(config, { recursive: true, mode: 0o700 })
  if (keyring !== undefined) await cp(keyring, config, { recursive: true })
  const env = clientEnv(folder)
  let pulls = 0
  const client: Client = {
    folder,
    run: (args, input) => runProgram(program, args, { env, input }),
    async connect(url, token) {
      const file = join(folder, 'token')
      await writeFile(file, token, { mode: 0o600 })
      const args = ['connect', url, '--token-file', file, '--name', 'sreg']
      return runProgram(NODE, [MAIN, ...args], { env })
    },
    async pull(args, { cache = false } = {}) {
      const file = join(folder, `pulled-${++pulls}.sif`)
      const flags = ['--force', ...(cache ? [] : ['--disable-cache']), ...args.slice(0, -1)]
      const outcome = await client.run(['pull', ...flags, file, ...args.slice(-1)])
      return { ...outcome, file, sha256: existsSync(file) ? await sha256File(file) : null }
    },
  }
  return client
}

/** Nothing of the tests' own surroundings may decide what a client does. */
export function clientEnv(folder: string): NodeJS.ProcessEnv {
  const inherited = Object.entries(process.env).filter(
    ([name]) => !/^(APPTAINER|SINGULARITY|SREG)_|_proxy$/i.test(name),
  )
  return {
    ...Object.fromEntries(inherited),
    HOME: folder,
    APPTAINER_CONFIGDIR: join(folder, 'config'),
    APPTAINER_CACHEDIR: join(folder, 'cache'),
    APPTAINER_TMPDIR: folder,
  }
}

/** Real images, made by the client: see test/fixtures/make-sifs.sh. Returns their folder. */
export async function makeSifs(folder: string): Promise<string> {
  const script = join(root, 'test/fixtures/make-sifs.sh')
  const env = { ...process.env, APPTAINER: findApptainer() ?? 'apptainer' }
  const { code, terminal } = await runProgram('bash', [script, folder], { env })
  if (code !== 0) throw new Error(`make-sifs.sh: ${terminal}`)
  return folder
}

export async function sha256File(path: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024 }))
    hash.update(chunk as Buffer)
  return hash.digest('hex')
}

/** Runs `work` on every item, at most `limit` at a time; results in the order of the items. */
export async function atMost<T, R>(
  limit: number,
  items: readonly T[],
  work: (item: T) => Promise<R>,
): Promise<R[]> {
  const results: R[] = []
  const waiting = items.entries()
  const worker = async () => {
    for (const [index, item] of waiting) results[index] = await work(item)
  }
  await Promise.all(Array.from({ length: limit }, worker))
  return results
}

export const removeFolder = (folder: string) => rm(folder, { recursive: true, force: true })
