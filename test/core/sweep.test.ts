/** What a sweep leaves of the full-text index. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { memoryBlobs } from '../../adapters/blobs/memory.ts'
import { connect, openDatabase } from '../../adapters/databases/better-sqlite3.ts'
import { migrations } from '../../adapters/node/main.ts'
import { consoleLog } from '../../adapters/system.ts'
import { createSweep } from '../../src/core/sweep.ts'

test('a sweep that deletes merges the pieces of the index, and the words stay in it', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'sreg-sweep-'))
  const file = join(folder, 'db')
  const { database, close } = await openDatabase(file, { mode: 'server', migrations: migrations() })
  const rows = connect(file, { create: false })
  try {
    const index = rows.prepare(`INSERT INTO search (rowid, scope, names) VALUES (?, 'pub', ?)`)
    for (const seq of [1, 2, 3]) index([seq, `samtools ${seq}`])
    const pieces = rows.prepare('SELECT count(DISTINCT segid) FROM search_idx')
    expect(pieces([])).toEqual([[3]])

    const blobs = memoryBlobs()
    await blobs.writeId('registry')
    const sweep = createSweep({
      database,
      blobs,
      clock: { now: () => new Date(Date.UTC(2030, 0, 1)) },
      log: consoleLog({ form: 'off' }),
      registryId: 'registry',
      graceSeconds: 3600,
      intervalSeconds: 900,
    })
    // a first run after a start only marks (R43)
    await sweep()
    expect(pieces([])).toEqual([[3]])
    await sweep()
    expect(pieces([])).toEqual([[1]])
    const found = rows.prepare('SELECT rowid FROM search WHERE search MATCH ? ORDER BY rowid')
    expect(found(['"amtool"'])).toEqual([[1], [2], [3]])
    expect(found(['"ools 2"'])).toEqual([[2]])
  } finally {
    rows.close()
    close()
    await rm(folder, { recursive: true })
  }
})
