/**
 * The real sweep on a data folder that no server has open, in a process of its own, and what it took,
 * as JSON. A program: node bench/systems/sweeper.ts DATA
 */
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import { diskBlobs } from '../../adapters/blobs/disk.ts'
import { openDatabase } from '../../adapters/databases/better-sqlite3.ts'
import { systemClock } from '../../adapters/system.ts'
import { createSweep } from '../../src/core/sweep.ts'

const data = process.argv[2] ?? ''
const { database, close } = await openDatabase(join(data, 'sreg.sqlite3'), {
  mode: 'server',
  migrations: fileURLToPath(new URL('../../migrations', import.meta.url)),
})
const sweep = createSweep({
  database,
  blobs: await diskBlobs({ root: join(data, 'blobs') }),
  clock: systemClock,
  log: { event: () => undefined },
  registryId: (await database.settings.get('registry_id')) ?? '',
  graceSeconds: 43_200,
  intervalSeconds: 900,
  audit: { days: 365, rows: 1_000_000 },
})
const delay = monitorEventLoopDelay({ resolution: 1 })
delay.enable()
const cpu = process.cpuUsage()
const began = performance.now()
const report = await sweep({ now: true })
const ms = performance.now() - began
const { user, system } = process.cpuUsage(cpu)
delay.disable()
close()
if (report.held !== null) throw new Error(`nothing was swept: ${report.held}`)
const found = {
  ms,
  'CPU ms': (user + system) / 1000,
  'longest block, ms': delay.max / 1e6,
  'memory, MiB': process.memoryUsage().rss / 2 ** 20,
}
process.stdout.write(JSON.stringify(found))
