/** The sweep over many blobs, in this process: that keeps all, that marks all, and that deletes all. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import { diskBlobs } from '../../adapters/blobs/disk.ts'
import { connect, openDatabase } from '../../adapters/databases/better-sqlite3.ts'
import { randomIds, systemClock } from '../../adapters/system.ts'
import { createSweep } from '../../src/core/sweep.ts'
import { makePayload } from '../content/payload.ts'
import type { Measured } from '../report.ts'
import { inRounds, recorder, type Bench } from '../rounds.ts'
import { startSreg } from '../systems/sreg.ts'

const SIZE = 16

export async function sweep(bench: Bench): Promise<Measured> {
  const { folder, blobs: count, say } = bench
  // a registry that has been begun, with one image that stays
  const server = await startSreg(folder)
  await server.publish(await makePayload(join(folder, 'payload.sif'), 2 ** 20))
  await server.stop()
  const file = join(server.data, 'sreg.sqlite3')
  const root = join(server.data, 'blobs')

  const blobs = await diskBlobs({ root })
  const migrations = fileURLToPath(new URL('../../migrations', import.meta.url))
  const opened = await openDatabase(file, { mode: 'server', migrations })
  const { rows, add } = recorder(bench)
  try {
    const run = createSweep({
      database: opened.database,
      blobs,
      clock: systemClock,
      log: { event: () => {} },
      registryId: (await blobs.readId()) ?? '',
      graceSeconds: 0,
      intervalSeconds: 3600,
    })
    const measured = async (round: number, what: string, deleted: number) => {
      // what is marked now is not yet old in the same millisecond
      await new Promise((resolve) => setTimeout(resolve, 5))
      const delay = monitorEventLoopDelay({ resolution: 1 })
      const [cpu, start] = [process.cpuUsage(), performance.now()]
      delay.enable()
      const report = await run({ now: true })
      const value = (performance.now() - start) / 1000
      const { user, system } = process.cpuUsage(cpu)
      delay.disable()
      if (report.deleted !== deleted || report.held !== null)
        throw new Error(`the sweep did something else: ${JSON.stringify(report)}`)
      add(
        { what: `sweep of ${count} blobs, ${what}`, system: 'sreg-lite', unit: 's', cpuUnit: 's' },
        { round, value, cpu: (user + system) / 1e6 },
      )
      const pause = { what: `longest pause meanwhile, ${what}`, system: 'sreg-lite', unit: 'ms' }
      add(pause, { round, value: delay.max / 1e6 })
    }
    await inRounds(bench, async (round) => {
      say(`  making ${count} blobs`)
      fill(file, root, count)
      await measured(round, 'all kept', 0)
      unname(file)
      await measured(round, 'all marked', 0)
      await measured(round, 'all deleted', count)
    })
  } finally {
    opened.close()
  }
  const notes = [
    'In one process with nothing else to do. Pauses are what a request would wait for at most; the sweep of a process deletes 500 at a time.',
  ]
  return { rows, peers: [], missing: [], notes }
}

/** Blobs of a few bytes, each with its row and an image that names it, beside the one that is there. */
function fill(file: string, root: string, count: number): void {
  const connection = connect(file, { create: false })
  const folders = new Set<string>()
  try {
    const [container] = connection.all('select id from containers limit 1')
    const [user] = connection.all('select id from users limit 1')
    const now = Date.now()
    connection.exec('BEGIN IMMEDIATE')
    const blob = connection.prepare(
      "insert into blobs (id, key, digest, size, state, created_at) values (?, ?, ?, ?, 'live', ?)",
    )
    const image = connection.prepare(
      "insert into images (id, container_id, digest, description, blob_id, size, arch, fingerprints, created_by, created_at, updated_at) values (?, ?, ?, '', ?, ?, 'amd64', '[]', ?, ?, ?)",
    )
    for (let index = 0; index < count; index++) {
      const [id, key] = [randomIds.next(), randomIds.next()]
      const digest = `${id}${key}${'0'.repeat(16)}`
      const place = join(root, 'blobs', key.slice(0, 2))
      if (!folders.has(place)) mkdirSync(place, { recursive: true, mode: 0o700 })
      folders.add(place)
      writeFileSync(join(place, key), digest.slice(0, SIZE), { mode: 0o400 })
      blob([id, key, digest, SIZE, now])
      image([randomIds.next(), container?.id, digest, id, SIZE, user?.id, now, now])
    }
    connection.exec('COMMIT')
  } finally {
    connection.close()
  }
}

/** Takes the images of `fill` away, so that nothing refers to its blobs any more. */
function unname(file: string): void {
  const connection = connect(file, { create: false })
  try {
    connection.prepare('delete from images where size = ?')([SIZE])
  } finally {
    connection.close()
  }
}
