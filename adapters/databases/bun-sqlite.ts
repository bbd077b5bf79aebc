/** The SQLite file under Bun: bun:sqlite. */
import { Database } from 'bun:sqlite'
import { readsAside } from './aside.ts'
import type { Connection, OpenOptions } from './sync.ts'

export type { OpenDatabase, OpenOptions } from './sync.ts'

/** See `Connect`. */
export function connect(file: string, { create }: { create: boolean }): Connection {
  const sqlite = new Database(file, { readwrite: true, create, strict: true })
  const statements: { finalize(): void }[] = []
  return {
    exec: (sql) => sqlite.run(sql),
    prepare(sql) {
      const statement = sqlite.prepare(sql)
      statements.push(statement)
      return (values) => statement.values(...values)
    },
    all(sql) {
      const statement = sqlite.prepare(sql)
      try {
        return statement.all()
      } finally {
        statement.finalize()
      }
    },
    inTransaction: () => sqlite.inTransaction,
    close() {
      // with one left, Bun would close the file when its collector has found that
      for (const statement of statements.splice(0)) statement.finalize()
      sqlite.close()
    },
  }
}

/** See `readsAside`. */
export const aside = (file: string) => readsAside('bun-sqlite', file)

/** See `openWith`. */
export const openDatabase = async (file: string, options: OpenOptions) =>
  (await import('./sync.ts')).openWith({ connect, aside }, file, options)

/** See `lockWith`. */
export const takeLock = async (file: string) => (await import('./sync.ts')).lockWith(connect, file)
