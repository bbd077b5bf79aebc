/** A registry as a process of its own, so that tests can kill, trace and starve it. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
// @ts-expect-error -- a script without types
import { inputsHash } from '../../scripts/inputs.mjs'
import { openAdmin } from '../../adapters/node/main.ts'
import { commandOf, type Runtime } from '../runtimes/runtime.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))

/** The built program where it is up to date, for it starts faster; else, on Node, the source. */
function program(runtime: Runtime): string {
  const built = `${root}dist/.inputs`
  const current = existsSync(built) && readFileSync(built, 'utf8') === inputsHash(root)
  return root + (current || runtime !== 'node' ? 'dist/launcher.mjs' : 'adapters/node/main.ts')
}

export type ServerProcess = {
  url: string
  pid: number
  /** What it said on stderr so far. */
  words(): string
  signal(name: NodeJS.Signals): void
  /** Ends the process and resolves with its exit code; null when a signal ended it. */
  kill(name?: NodeJS.Signals): Promise<number | null>
  exited: Promise<number | null>
}

export type StartOptions = {
  data: string
  /** SREG_* settings. */
  env?: Record<string, string>
  args?: string[]
  /** A program and its arguments that start ours and then are us, such as `strace -D`. */
  under?: string[]
  /** What it runs on; Bun and Deno need an up-to-date `dist/`. */
  runtime?: Runtime
}

/** A start that failed, with what a person would have seen. */
export class StartFailed extends Error {
  readonly code: number | null
  readonly words: string
  constructor(code: number | null, words: string) {
    super(`the server ended with ${code} before it listened:\n${words}`)
    this.code = code
    this.words = words
  }
}

/** Starts `serve` on a free port and resolves when it listens. Throws `StartFailed` if it ends. */
export async function startServer(options: StartOptions): Promise<ServerProcess> {
  const { data, env = {}, args = [], under = [], runtime = 'node' } = options
  const ours = [...commandOf(runtime), program(runtime), 'serve', ...args]
  const [command = '', ...rest] = [...under, ...ours]
  const child = spawn(command, rest, {
    env: {
      PATH: process.env.PATH,
      SREG_DATA: data,
      SREG_PORT: '0',
      SREG_LOG: 'json',
      SREG_MIN_FREE: '0',
      ...env,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let words = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    // What is looked for stands at the start or at the end.
    words = words.length > 1_000_000 ? words.slice(0, 10_000) + words.slice(-10_000) : words + text
  })
  const exited = once(child, 'close').then(([code]) => code as number | null)
  const url = await new Promise<string>((resolve, reject) => {
    let output = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text
      const match = /^listening on (\S+)$/m.exec(output)
      if (match?.[1] !== undefined) resolve(match[1])
    })
    child.once('error', reject)
    void exited.then((code) => reject(new StartFailed(code, words)))
  })
  return {
    url,
    pid: child.pid ?? 0,
    words: () => words,
    signal: (name) => void child.kill(name),
    async kill(name = 'SIGKILL') {
      child.kill(name)
      return exited
    },
    exited,
  }
}

/** A token with the default scopes for a user, made beside the server as the command line does. */
export async function mint(data: string, user: string): Promise<string> {
  const { admin, close } = await openAdmin(data)
  try {
    await admin.addUser(user, { admin: false })
    const expires = new Date(Date.now() + 3_600_000)
    return (await admin.createToken({ user, name: 'test', expires, scopes: null })).jwt
  } finally {
    close()
  }
}

/** Numbers in [0, 1) that follow from a seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}
