/** The SQLite file under Node: better-sqlite3. */
import BetterSqlite3 from 'better-sqlite3'
import { readsAside } from './aside.ts'
import type { Connection, OpenOptions } from './sync.ts'

export type { OpenDatabase, OpenOptions } from './sync.ts'

/** See `Connect`. */
export function connect(file: string, { create }: { create: boolean }): Connection {
  const sqlite = new BetterSqlite3(file, { fileMustExist: !create })
  return {
    exec: (sql) => void sqlite.exec(sql),
    prepare(sql) {
      const statement = sqlite.prepare<unknown[], unknown[]>(sql)
      if (statement.reader) {
        statement.raw()
        return (values) => statement.all(...values)
      }
      return (values) => {
        statement.run(...values)
        return []
      }
    },
    all(sql) {
      const statement = sqlite.prepare<[], Record<string, unknown>>(sql)
      if (statement.reader) return statement.all()
      statement.run()
      return []
    },
    inTransaction: () => sqlite.inTransaction,
    close: () => void sqlite.close(),
  }
}

/** See `readsAside`. */
export const aside = (file: string) => readsAside('better-sqlite3', file)

/** See `openWith`. */
export const openDatabase = async (file: string, options: OpenOptions) =>
  (await import('./sync.ts')).openWith({ connect, aside }, file, options)

/** See `lockWith`. */
export const takeLock = async (file: string) => (await import('./sync.ts')).lockWith(connect, file)
