/** The SQLite file under Deno, and any Node that has it: node:sqlite. */
import { DatabaseSync, type SQLInputValue } from 'node:sqlite'
import { pathToFileURL } from 'node:url'
import { readsAside } from './aside.ts'
import type { Connection, OpenOptions } from './sync.ts'

export type { OpenDatabase, OpenOptions } from './sync.ts'

/** See `Connect`. */
export function connect(file: string, { create }: { create: boolean }): Connection {
  const sqlite = new DatabaseSync(create ? file : `${pathToFileURL(file).href}?mode=rw`)
  return {
    exec: (sql) => sqlite.exec(sql),
    prepare(sql) {
      const statement = sqlite.prepare(sql)
      statement.setReturnArrays(true)
      return (values) => statement.all(...(values as SQLInputValue[])) as unknown as unknown[][]
    },
    all: (sql) => sqlite.prepare(sql).all(),
    inTransaction: () => sqlite.isTransaction,
    close: () => sqlite.close(),
  }
}

/** See `readsAside`. */
export const aside = (file: string) => readsAside('node-sqlite', file)

/** See `openWith`. */
export const openDatabase = async (file: string, options: OpenOptions) =>
  (await import('./sync.ts')).openWith({ connect, aside }, file, options)

/** See `lockWith`. */
export const takeLock = async (file: string) => (await import('./sync.ts')).lockWith(connect, file)
