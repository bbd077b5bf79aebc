/** The protocol suites' target on Bun and Deno: the built program as a process of its own. */
import { readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startServer, type ServerProcess } from '../faults/process.ts'
import { build, type Runtime } from './runtime.ts'
import { booksOf, diskStore, type Target, type TargetOptions } from './target.ts'

const BARE = 'Bun.serve and Deno.serve answer what they cannot parse themselves, without a body'

export type HostTarget = Target & { process: ServerProcess }

/** A registry on the runtime, with a fresh data folder unless one is given. */
export async function hostTarget(
  runtime: Runtime,
  { env = {}, data, store }: TargetOptions = {},
): Promise<HostTarget> {
  build()
  data ??= await mkdtemp(join(tmpdir(), `sreg-${runtime}-`))
  const server = await startServer({ data, runtime, env: { SREG_LOG: 'off', ...env } })
  return {
    url: server.url,
    data,
    store: store ?? diskStore(data),
    ...booksOf(data),
    process: server,
    ...(runtime === 'node' ? {} : { bareRefusals: BARE }),
    async stop({ keep = false } = {}) {
      const code = await server.kill('SIGTERM')
      if (!keep) await rm(data, { recursive: true, force: true })
      if (code !== 0) throw new Error(`the server ended with ${code}:\n${server.words()}`)
    },
  }
}

/** Resident memory of a process in bytes. */
export function rssOf(pid: number): number {
  const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  return Number(kib) * 1024
}
