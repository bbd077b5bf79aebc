/** The runtimes that serve a data folder, and how to run the program on each. */
import { spawnSync } from 'node:child_process'

const root = new URL('../../', import.meta.url)

export type Runtime = 'node' | 'bun' | 'deno'
export const RUNTIMES: readonly Runtime[] = ['node', 'bun', 'deno']

/** Those that this run is about: scripts/test.mjs says so. */
export const TESTED: readonly Runtime[] = RUNTIMES.filter((runtime) =>
  (process.env['SREG_TEST_RUNTIMES'] ?? RUNTIMES.join(' ')).split(' ').includes(runtime),
)

/** The command that runs a program on the runtime that npm brought. */
export function commandOf(runtime: Runtime): string[] {
  const program = new URL(`node_modules/.bin/${runtime}`, root).pathname
  return {
    node: [process.execPath],
    // Without a node_modules, Bun would fetch what is missing from the registry of packages.
    bun: [program, '--no-install'],
    deno: [program, 'run', '--allow-all', '--no-prompt'],
  }[runtime]
}

let built = false

/** Builds dist/ unless it is up to date: Bun and Deno run nothing else. */
export function build(): void {
  if (built) return
  const setup = new URL('scripts/setup.mjs', root).pathname
  const { status, stderr } = spawnSync(process.execPath, [setup, '--build'], { encoding: 'utf8' })
  if (status !== 0) throw new Error(stderr)
  built = true
}
