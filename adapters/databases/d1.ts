/** Cloudflare's D1: SQLite behind a network, where one atomic batch is one round trip. */
import { RegistryError } from '../../src/errors.ts'
import type { Database } from '../../src/ports.ts'
import {
  builder,
  hasRows,
  isBusy,
  isFull,
  sqliteDatabase,
  type Handle,
  type Statement,
} from '../../src/sqlite/index.ts'

/** The part of a D1 binding that we use. */
export type D1Binding = {
  prepare(sql: string): D1Statement
  batch(statements: D1Statement[]): Promise<{ results: Record<string, unknown>[] }[]>
}
type D1Statement = { bind(...values: unknown[]): D1Statement }

export type D1Options = {
  /** Names of the migrations this program was built with, in order; looked at once per isolate. */
  migrations?: readonly string[]
  /** Told of every round trip with its number of statements; for tests that count them. */
  onTrip?: (kind: 'read' | 'write', statements: number) => void
}

/**
 * The database behind a D1 binding. One read or write is one `batch`, which is atomic. D1 that is
 * overloaded, restarts or loses the connection is `unavailable`; a full one is
 * `insufficient_storage`. Writing again after `unavailable` is safe: guards and claims see whether
 * the first write arrived.
 */
export function d1Database(binding: D1Binding, options: D1Options = {}): Database {
  const { migrations, onTrip } = options
  let checked = migrations === undefined

  async function batch(statements: readonly Statement[]): Promise<unknown[]> {
    try {
      const answers = await binding.batch(
        statements.map(({ query, values }) =>
          binding.prepare(query.sql).bind(...query.bind(values)),
        ),
      )
      // rows come as objects, their keys in the order of the columns: names must differ (`named`)
      const all = statements.map(({ query }, at) =>
        query.rows((answers[at]?.results ?? []).map((row) => Object.values(row))),
      )
      return all.map((rows, at) => {
        const unless = statements[at]?.unless
        return unless !== undefined && hasRows(all[statements.indexOf(unless)]) ? [] : rows
      })
    } catch (error) {
      throw translated(error)
    }
  }

  const run =
    (kind: 'read' | 'write') =>
    async (...statements: readonly Statement[]) => {
      // no promise is kept: one that belongs to a cancelled request would never end for the others
      if (!checked) await checkMigrated(binding, migrations ?? [])
      checked = true
      onTrip?.(kind, statements.length)
      return batch(statements)
    }
  return sqliteDatabase({ db: builder(), read: run('read'), write: run('write') } as Handle)
}

/** Refuses to work on another schema than the program's own (R44), with what to do about it. */
async function checkMigrated(binding: D1Binding, ours: readonly string[]): Promise<void> {
  let applied: string[] = []
  try {
    const [answer] = await binding.batch([
      binding.prepare('SELECT name FROM d1_migrations ORDER BY id').bind(),
    ])
    applied = (answer?.results ?? []).map(({ name }) => String(name))
  } catch (error) {
    if (!/no such table/.test(String(error))) throw translated(error)
  }
  const missing = ours.filter((name) => !applied.includes(name))
  const unknown = applied.filter((name) => !ours.includes(name))
  if (missing.length > 0)
    throw new RegistryError(
      'unavailable',
      `The database lacks ${missing.join(', ')}; its administrator must run "wrangler d1 migrations apply".`,
    )
  if (unknown.length > 0)
    throw new RegistryError(
      'unavailable',
      `The database is from a newer version of sreg-lite (it has ${unknown.join(', ')}); its administrator must deploy that version.`,
    )
}

function translated(error: unknown): unknown {
  if (isFull(error))
    return new RegistryError(
      'insufficient_storage',
      'The database of the registry is full; ask its administrator to free space.',
      { cause: error },
    )
  if (isBusy(error))
    return new RegistryError('unavailable', 'The database is overloaded; try again in a moment.', {
      retryAfter: 5,
      cause: error,
    })
  return error
}
