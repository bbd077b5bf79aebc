/**
 * What a driver must give: two ways to run compiled statements. One call is one round trip: a sync
 * driver runs the statements in one go, D1 as one `batch`. drizzle builds the SQL and reads the
 * rows; none of its own drivers is in between, so that all of ours differ as little as they can.
 */
import { Column, fillPlaceholders, is, noopDecoder, Placeholder, SQL } from 'drizzle-orm'
import type {
  BaseSQLiteDatabase,
  PreparedQueryConfig,
  SQLitePreparedQuery,
} from 'drizzle-orm/sqlite-core'
import { drizzle } from 'drizzle-orm/sqlite-proxy'
import * as schema from './schema.ts'

/** SQL that is compiled once, and how values go in and rows come out. */
export type Query = {
  sql: string
  /** The values of the placeholders in the order of their `?`; a missing one throws. */
  bind(values: Record<string, unknown>): unknown[]
  /** Rows as arrays of columns, in order, to what the statement yields. */
  rows(raw: unknown[][]): unknown
  /** There when rows may be remembered: by what, and for how long. */
  lasting: Lasting | null
}

/** What a driver may remember rows by, which nobody changes (it gives the same ones out again). */
export type Lasting = {
  /** The values but for the time; different for different ones. */
  key(values: Record<string, unknown>): string
  /** The time in ms from which on the rows may be others though the data has not changed. */
  until(rows: unknown): number
}

/** A compiled query with its values; `Rows` is what it yields. */
export type Statement<Rows = unknown> = {
  query: Query
  values: Record<string, unknown>
  /** One of the same trip: where that has rows this one has none, and a driver that can does not run it. */
  unless?: Statement
  /** It may take long: a driver that would stop everything else meanwhile runs its trip in another thread. */
  long?: boolean
  /** Carries the type only. */
  rows?: Rows
}

/** Of what a statement yielded. */
export const hasRows = (rows: unknown): boolean => Array.isArray(rows) && rows.length > 0

export type RowsOf<T extends readonly Statement[]> = {
  [K in keyof T]: T[K] extends Statement<infer Rows> ? Rows : never
}

export type Handle = {
  db: Builder
  /** Runs statements that change nothing. */
  read<T extends readonly Statement[]>(...statements: T): Promise<RowsOf<T>>
  /** Runs statements as one transaction: all or nothing. */
  write<T extends readonly Statement[]>(...statements: T): Promise<RowsOf<T>>
}

type Builder = BaseSQLiteDatabase<'async', unknown, typeof schema>

/** drizzle's query builder without a connection: what it builds goes through `prepare`. */
export const builder = (): Builder =>
  drizzle(() => Promise.reject(new Error('a query was run without its handle')), { schema })

/**
 * Builds and compiles a drizzle query once, when it is first needed (an unprepared one costs six to
 * thirteen times as much per call; building all of them would cost every start), and returns a
 * function that binds values to its placeholders. With `until` a driver may remember the rows while
 * the data does not change; it says until when (ms), which is what they depend on the value `now` for.
 */
export function prepare<Q extends { prepare(): unknown } & PromiseLike<unknown>>(
  build: () => Q,
  until?: (rows: Awaited<Q>) => number,
): (values?: Record<string, unknown>) => Statement<Awaited<Q>> {
  let query: Query | undefined
  return (values = {}) => {
    query ??= compile(build().prepare() as SQLitePreparedQuery<PreparedQueryConfig>, until)
    return { query, values }
  }
}

/** Of rows that depend on nothing but the data. */
export const ALWAYS = (): number => Infinity

/**
 * Hides the values of a statement from SQLite's planner. It looks at values that are compared or limit
 * something, and prepares a statement anew whenever another one is bound to their place, which costs more
 * than running it: 80 to 500 µs. The argument of `likely` is none that it looks at, and the function
 * itself is compiled to nothing. Quoted texts stay as they are, and casts hide a value as well.
 */
const unseen = (sql: string): string =>
  sql.replaceAll(/'[^']*'|"[^"]*"|cast\(\? as|\?/g, (found) =>
    found === '?' ? 'likely(?)' : found,
  )

/** What drizzle keeps in a prepared query and shows to its own drivers only. */
type Fields = { path: string[]; field: Column | SQL | SQL.Aliased }[]
type Decoder = { mapFromDriverValue(value: unknown): unknown }

/**
 * drizzle's own reading of rows asks every value anew what kind of column it is from, which costs
 * as much as the lookup itself; ours asks once.
 */
function compile(
  prepared: SQLitePreparedQuery<PreparedQueryConfig>,
  until: Lasting['until'] | undefined,
): Query {
  const { sql: built, params } = prepared.getQuery()
  const sql = unseen(built)
  const { fields = [] } = prepared as unknown as { fields?: Fields }
  const keys: string[] = []
  const decoders: (Decoder | null)[] = []
  for (const { path, field } of fields) {
    const [key, ...deeper] = path
    if (key === undefined || deeper.length > 0) throw new Error(`nested columns in ${sql}`)
    const source = is(field, SQL.Aliased) ? field.sql : field
    const decoder: Decoder = is(source, SQL)
      ? (source as unknown as { decoder: Decoder }).decoder
      : source
    keys.push(key)
    decoders.push(isPlain(decoder) ? null : decoder)
  }
  // a copy of it has room for all columns at once: key by key an object grows eight times on its way to thirty
  const empty: Record<string, unknown> = Object.fromEntries(keys.map((key) => [key, null]))
  const names = params
    .filter((param) => is(param, Placeholder))
    .map(({ name }) => name)
    .filter((name) => name !== 'now')
  return {
    sql,
    lasting: until === undefined ? null : { key: (values) => keyOf(names, values), until },
    bind: (values) => fillPlaceholders(params, values),
    rows: (raw) =>
      raw.map((row) => {
        const result = { ...empty }
        for (let at = 0; at < keys.length; at++) {
          const value = row[at]
          const decoder = decoders[at]
          result[keys[at] as string] =
            value === null || decoder == null ? value : decoder.mapFromDriverValue(value)
        }
        return result
      }),
  }
}

/** The decoder of columns whose values JavaScript has as the database does: most of them. */
const isPlain = (decoder: Decoder): boolean =>
  decoder === noopDecoder || Reflect.get(decoder, 'mapFromDriverValue') === unchanged
const unchanged: unknown = Reflect.get(Column.prototype, 'mapFromDriverValue')

function keyOf(names: readonly string[], values: Record<string, unknown>): string {
  let key = ''
  for (const name of names) {
    const value = String(values[name])
    // with its length no two lists of values look alike
    key += `${value.length}:${value}`
  }
  return key
}
