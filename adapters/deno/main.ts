/** Entry of the command line on Deno. */
import { MINIMUM_RATE, type Platform } from '../host/platform.ts'
import * as program from '../host/program.ts'

export const platform: Platform = {
  name: 'deno',
  openDatabase: async (file, options) =>
    (await import('../databases/node-sqlite.ts')).openDatabase(file, options),
  takeLock: async (file) => (await import('../databases/node-sqlite.ts')).takeLock(file),
  listen: async (options) => (await import('./server.ts')).listen(options),
  transfer: async () =>
    (await import('../../src/app.ts')).streamTransfer({ minimumRate: MINIMUM_RATE }),
}

/** Runs the command line, and ends the process: connections past their grace would keep it. */
export async function run(argv: string[]): Promise<never> {
  return process.exit(await program.run(platform, argv))
}
