/** Entry of the command line on Bun. */
import { MINIMUM_RATE, type Platform } from '../host/platform.ts'
import * as program from '../host/program.ts'

export const platform: Platform = {
  name: 'bun',
  openDatabase: async (file, options) =>
    (await import('../databases/bun-sqlite.ts')).openDatabase(file, options),
  takeLock: async (file) => (await import('../databases/bun-sqlite.ts')).takeLock(file),
  listen: async (options) => (await import('./server.ts')).listen(options),
  transfer: async () => (await import('./transfer.ts')).bunTransfer({ minimumRate: MINIMUM_RATE }),
}

/** Runs the command line; resolves with the exit code when the command, or the server, has ended. */
export const run = (argv: string[]) => program.run(platform, argv)
