/**
 * What a driver must give: drizzle's query builder and two ways to run prepared statements. One
 * call is one round trip: a sync driver runs the statements in one go, D1 as one `batch`.
 */
import type { SQLitePreparedQuery, PreparedQueryConfig } from 'drizzle-orm/sqlite-core'
import type { BaseSQLiteDatabase } from 'drizzle-orm/sqlite-core'
import type * as schema from './schema.ts'

type Prepared = SQLitePreparedQuery<PreparedQueryConfig & { type: 'async' }>

/** A prepared statement with its values; `Rows` is what it yields. */
export type Statement<Rows = unknown> = {
  query: Prepared
  values: Record<string, unknown>
  /** Carries the type only. */
  rows?: Rows
}

export type RowsOf<T extends readonly Statement[]> = {
  [K in keyof T]: T[K] extends Statement<infer Rows> ? Rows : never
}

export type Handle = {
  /** Sync and async drivers differ in type though not in use: everything is awaited. */
  db: BaseSQLiteDatabase<'async', unknown, typeof schema>
  /** Runs statements that change nothing. */
  read<T extends readonly Statement[]>(...statements: T): Promise<RowsOf<T>>
  /** Runs statements as one transaction: all or nothing. */
  write<T extends readonly Statement[]>(...statements: T): Promise<RowsOf<T>>
}

/**
 * Builds and prepares a drizzle query once, when it is first needed (an unprepared one costs six to
 * thirteen times as much per call; building all of them would cost every start), and returns a
 * function that binds values to its placeholders.
 */
export function prepare<Q extends { prepare(): unknown } & PromiseLike<unknown>>(
  build: () => Q,
): (values?: Record<string, unknown>) => Statement<Awaited<Q>> {
  let query: Prepared | undefined
  return (values = {}) => {
    query ??= build().prepare() as Prepared
    return { query, values }
  }
}
