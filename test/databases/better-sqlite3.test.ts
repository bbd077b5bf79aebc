/** The SQLite file under Node against the contract, and what only a shared file can get wrong. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import BetterSqlite3 from 'better-sqlite3'
import { openDatabase } from '../../adapters/databases/better-sqlite3.ts'
import { describeDatabase, type Trip } from '../contract/database.ts'

const migrations = new URL('../../migrations', import.meta.url).pathname

async function make() {
  const folder = await mkdtemp(join(tmpdir(), 'sreg-database-'))
  const file = join(folder, 'registry.db')
  const trips: Trip[] = []
  const opened = await openDatabase(file, {
    mode: 'server',
    migrations,
    onTrip: (kind, statements) => trips.push({ kind, statements }),
  })
  const other = new BetterSqlite3(file)
  return {
    folder,
    file,
    opened,
    database: opened.database,
    trips: () => trips,
    async raw(sql: string) {
      const statement = other.prepare(sql)
      if (statement.reader) return statement.all() as Record<string, unknown>[]
      statement.run()
      return []
    },
    async dispose() {
      other.close()
      opened.close()
      await rm(folder, { recursive: true })
    },
  }
}

describeDatabase('better-sqlite3', { make })
