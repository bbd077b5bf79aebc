/** The registry as a process of its own, for what cannot be tried on the process of the tests. */
import { spawn, type ChildProcess } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { commandOf, type Runtime } from '../runtimes/runtime.ts'
import { MAIN, NODE, runProgram } from './apptainer.ts'

export type ServerProcess = {
  url: string
  process: ChildProcess
  /** Makes the user and a token of theirs with the command line, beside the running server. */
  mint(user: string): Promise<string>
  /** Sends the signal and waits for the end. */
  end(signal: 'SIGTERM' | 'SIGKILL'): Promise<void>
}

/** Starts `program … serve` (the source unless told) on a free port with the given data folder. */
export async function startServer(
  data: string,
  program: readonly string[] = [NODE, MAIN],
): Promise<ServerProcess> {
  const [command = NODE, ...args] = program
  const env = { ...process.env, SREG_LOG: 'off', SREG_DATA: data, SREG_PORT: '0' }
  const child = spawn(command, [...args, 'serve'], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  let words = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (words += text))
  const url = await new Promise<string>((resolve, reject) => {
    createInterface(child.stdout).on('line', (line) => {
      const listening = /^listening on (\S+)$/.exec(line)
      if (listening?.[1] !== undefined) resolve(listening[1])
    })
    child.once('error', reject)
    void ended.then(() => reject(new Error(`the server ended at its start: ${words}`)))
  })
  return {
    url,
    process: child,
    async mint(user) {
      const asked = [MAIN, 'user', 'add', user, '--data', data]
      const added = await runProgram(NODE, asked)
      if (added.code !== 0) throw new Error(added.terminal)
      const made = await runProgram(NODE, [MAIN, 'token', 'create', user, '--data', data])
      const token = /^\S{200,}$/m.exec(made.terminal)?.[0]
      if (token === undefined) throw new Error(made.terminal)
      return token
    },
    async end(signal) {
      child.kill(signal)
      await ended
    },
  }
}

/** The packed program in dist, which `npm run build` makes, on a runtime. */
export const builtServer = (root: string, runtime: Runtime = 'node'): string[] => [
  ...commandOf(runtime),
  join(root, 'dist/launcher.mjs'),
]
