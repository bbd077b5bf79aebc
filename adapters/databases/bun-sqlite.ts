/** The SQLite file under Bun: bun:sqlite. */
import { Database } from 'bun:sqlite'
import { lockWith, openWith, type Connection, type OpenOptions } from './sync.ts'

export type { OpenDatabase, OpenOptions } from './sync.ts'

/** See `Connect`. */
export function connect(file: string, { create }: { create: boolean }): Connection {
  const sqlite = new Database(file, { readwrite: true, create, strict: true })
  return {
    exec: (sql) => sqlite.run(sql),
    prepare(sql) {
      const statement = sqlite.prepare(sql)
      return (values) => statement.values(...values)
    },
    all: (sql) => sqlite.prepare(sql).all(),
    inTransaction: () => sqlite.inTransaction,
    close: () => sqlite.close(),
  }
}

/** See `openWith`. */
export const openDatabase = (file: string, options: OpenOptions) => openWith(connect, file, options)

/** See `lockWith`. */
export const takeLock = (file: string) => lockWith(connect, file)
