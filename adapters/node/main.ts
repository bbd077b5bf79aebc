/** Entry of the command line on Node. */
import type { Platform } from '../host/platform.ts'
import * as program from '../host/program.ts'

export { migrations } from '../host/program.ts'

export const platform: Platform = {
  name: 'node',
  openDatabase: async (file, options) =>
    (await import('../databases/better-sqlite3.ts')).openDatabase(file, options),
  takeLock: async (file) => (await import('../databases/better-sqlite3.ts')).takeLock(file),
  listen: async (options) => (await import('./server.ts')).listen(options),
  transfer: async () => (await import('./transfer.ts')).nodeTransfer(),
}

/** Runs the command line; resolves with the exit code when the command, or the server, has ended. */
export const run = (argv: string[]) => program.run(platform, argv)

/** Opens the registry's books beside a running server (R44). */
export const openAdmin = (data: string) => program.openAdmin(platform, data)

// Node ≥ 24.2 only, which is what runs the source; the bundle is started by its launcher.
if (import.meta.main) process.exitCode = await run(process.argv.slice(2))
