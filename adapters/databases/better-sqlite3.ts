/** The SQLite file under Node: better-sqlite3 behind drizzle, durable settings, polite waiting. */
import BetterSqlite3 from 'better-sqlite3'
import { drizzle } from 'drizzle-orm/better-sqlite3'
import { RegistryError } from '../../src/errors.ts'
import type { Database } from '../../src/ports.ts'
import {
  isBusy,
  isFull,
  schema,
  sqliteDatabase,
  type Handle,
  type Statement,
} from '../../src/sqlite/index.ts'
import { checkMigrated, migrate, type Migratable } from './migrate.ts'

export type OpenDatabase = {
  database: Database
  /** Changes whenever any connection, this one included, commits (R25). */
  version(): string
  close(): void
}

export type OpenOptions = {
  /** The server migrates and never blocks its event loop; the CLI refuses another schema and waits. */
  mode: 'server' | 'cli'
  /** Folder of the migration files. */
  migrations: string
  /** Told of every round trip with its number of statements; for tests that count them. */
  onTrip?: ((kind: 'read' | 'write', statements: number) => void) | undefined
}

/** Waits between tries while another connection writes; together about 5 s (R11). */
const RETRIES = [10, 20, 40, 80, 160, 320, 500, 500, 500, 500, 500, 500, 500, 500]

/**
 * Opens (and in server mode creates and migrates) the database file. Every connection is WAL with
 * synchronous=FULL and foreign keys on (R11): better-sqlite3 is compiled with NORMAL, under which
 * a power cut loses acknowledged tags.
 */
export async function openDatabase(file: string, options: OpenOptions): Promise<OpenDatabase> {
  const sqlite = new BetterSqlite3(file, { fileMustExist: options.mode === 'cli' })
  try {
    sqlite.pragma(`busy_timeout = ${options.mode === 'server' ? 50 : 5000}`)
    sqlite.pragma('journal_mode = WAL')
    sqlite.pragma('synchronous = FULL')
    sqlite.pragma('foreign_keys = ON')
    const target: Migratable = {
      exec: (text) => void sqlite.exec(text),
      all: (text) => sqlite.prepare(text).all() as Record<string, unknown>[],
    }
    if (options.mode === 'server') await migrate(target, options.migrations)
    else await checkMigrated(target, options.migrations)
  } catch (error) {
    sqlite.close()
    throw error
  }

  const begin = sqlite.prepare('BEGIN IMMEDIATE')
  const commit = sqlite.prepare('COMMIT')
  const rollback = sqlite.prepare('ROLLBACK')
  let writes = 0

  // Reads run in one go but not in one transaction: within this process nothing comes between, and
  // what the command line commits between two of them is asked again by the guard of any write.
  const run = (statements: readonly Statement[]): unknown[] =>
    // drizzle's sync drivers wrap their answer; `execute` is only typed as a promise
    statements.map(({ query, values }) =>
      (query.execute(values) as unknown as { sync(): unknown }).sync(),
    )

  const transact = (statements: readonly Statement[]): unknown[] => {
    begin.run()
    try {
      const rows = run(statements)
      commit.run()
      writes += 1
      return rows
    } catch (error) {
      if (sqlite.inTransaction) rollback.run()
      throw error
    }
  }

  // the CLI has waited its 5 s inside SQLite when the first try fails
  const retries = options.mode === 'server' ? RETRIES : [0]

  async function patiently(work: () => unknown[]): Promise<unknown[]> {
    for (const wait of retries) {
      try {
        return work()
      } catch (error) {
        if (isFull(error))
          throw new RegistryError(
            'insufficient_storage',
            'The disk under the registry is full; ask its administrator to free space.',
            { cause: error },
          )
        if (!isBusy(error)) throw error
        await new Promise((resolve) => setTimeout(resolve, wait))
      }
    }
    throw new RegistryError(
      'unavailable',
      'The database is busy with another process; try again in a moment.',
      { retryAfter: 5 },
    )
  }

  const handle = {
    db: drizzle(sqlite, { schema }) as unknown as Handle['db'],
    read(...statements: readonly Statement[]) {
      options.onTrip?.('read', statements.length)
      return patiently(() => run(statements))
    },
    write(...statements: readonly Statement[]) {
      options.onTrip?.('write', statements.length)
      return patiently(() => transact(statements))
    },
  } as Handle

  return {
    database: sqliteDatabase(handle),
    version: () => `${sqlite.pragma('data_version', { simple: true }) as number}/${writes}`,
    close: () => {
      // a CLI command that closes last would checkpoint; the server's connection does it otherwise
      sqlite.close()
    },
  }
}
