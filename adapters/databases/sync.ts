/** What every SQLite file has in common, whichever driver opens it: durable settings, patient writes. */
import { RegistryError } from '../../src/errors.ts'
import type { Database } from '../../src/ports.ts'
import {
  builder,
  hasRows,
  isBusy,
  isFull,
  sqliteDatabase,
  type Handle,
  type Query,
  type Statement,
} from '../../src/sqlite/index.ts'
import type { Aside } from './aside.ts'
import { checkMigrated, migrate } from './migrate.ts'

/** A connection, as little of it as we need. Integers are numbers: none of ours is beyond 2^53. */
export type Connection = {
  /** Runs statements that take no values and yield nothing. */
  exec(sql: string): void
  /**
   * Compiles one statement; the function runs it with values in the order of its `?` and returns
   * rows as arrays of columns, none for a statement that yields none.
   */
  prepare(sql: string): (values: unknown[]) => unknown[][]
  /** Rows by column name, for statements that run once; none where it yields none. */
  all(sql: string): Record<string, unknown>[]
  inTransaction(): boolean
  close(): void
}

/** Opens a file; one that is not there is made only if `create` says so, and fails otherwise. */
export type Connect = (file: string, options: { create: boolean }) => Connection

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

/** What a driver brings. */
export type Means = {
  connect: Connect
  /** A thread for what may take long, of this file. */
  aside(file: string): Aside
}

/** Waits between tries while another connection writes; together about 5 s (R11). */
const RETRIES = [10, 20, 40, 80, 160, 320, 500, 500, 500, 500, 500, 500, 500, 500]

/** Answers remembered of each query that lasts; a row of an image takes about a KiB. */
const REMEMBERED = 4096

/** What must hold on every connection, besides the WAL that the file remembers (R11). */
const PRAGMAS = { synchronous: 2, foreign_keys: 1 }

/**
 * Opens (and in server mode creates and migrates) the database file. Every connection is WAL with
 * synchronous=FULL and foreign keys on (R11): some drivers are compiled with NORMAL, under which
 * a power cut loses acknowledged tags.
 */
export async function openWith(
  { connect, aside: threadFor }: Means,
  file: string,
  options: OpenOptions,
): Promise<OpenDatabase> {
  const connection = connect(file, { create: options.mode === 'server' })
  try {
    connection.exec(`PRAGMA busy_timeout = ${options.mode === 'server' ? 50 : 5000}`)
    connection.exec('PRAGMA journal_mode = WAL')
    for (const [name, value] of Object.entries(PRAGMAS)) {
      connection.exec(`PRAGMA ${name} = ${value}`)
      if (connection.all(`PRAGMA ${name}`)[0]?.[name] !== value)
        throw new RegistryError('internal', `This SQLite does not take ${name} = ${value}.`)
    }
    if (options.mode === 'server') await migrate(connection, options.migrations)
    else await checkMigrated(connection, options.migrations)
  } catch (error) {
    connection.close()
    throw error
  }

  const [begin, commit, rollback] = ['BEGIN IMMEDIATE', 'COMMIT', 'ROLLBACK'].map((sql) => {
    const run = connection.prepare(sql)
    return () => void run([])
  }) as [() => void, () => void, () => void]
  const version = connection.prepare('PRAGMA data_version')
  const prepared = new Map<Query, (values: unknown[]) => unknown[][]>()
  const remembered = new Map<Query, Map<string, { rows: unknown; until: number }>>()
  let writes = 0
  /** The data's version when it was last asked for, and whether that was in this turn of the event loop. */
  let known: unknown = null
  let current = false

  function run({ query, values }: Statement): unknown {
    let execute = prepared.get(query)
    if (execute === undefined) prepared.set(query, (execute = connection.prepare(query.sql)))
    return query.rows(execute(query.bind(values)))
  }

  /**
   * Runs a statement, or gives its rows out again: while nothing has been written the same lookup is
   * made a thousand times, by as many jobs that pull one image. Our own writes forget at once; other
   * processes' are asked for once in a turn of the event loop, whose requests had all arrived before.
   */
  function look({ query, values }: Statement): unknown {
    const { lasting } = query
    if (lasting === null) return run({ query, values })
    if (!current) {
      current = true
      setImmediate(() => (current = false))
      const now = version([])[0]?.[0]
      if (now !== known) forget()
      known = now
    }
    let rowsOf = remembered.get(query)
    if (rowsOf === undefined) remembered.set(query, (rowsOf = new Map()))
    const key = lasting.key(values)
    const before = rowsOf.get(key)
    if (before !== undefined && Number(values.now) < before.until) return before.rows
    const rows = run({ query, values })
    if (rowsOf.size >= REMEMBERED) rowsOf.clear()
    rowsOf.set(key, { rows, until: lasting.until(rows) })
    return rows
  }

  function forget(): void {
    for (const rowsOf of remembered.values()) rowsOf.clear()
  }

  function runAll(
    statements: readonly Statement[],
    one: (statement: Statement) => unknown,
  ): unknown[] {
    const all: unknown[] = []
    for (const statement of statements) {
      const { unless } = statement
      const spared = unless !== undefined && hasRows(all[statements.indexOf(unless)])
      all.push(spared ? [] : one(statement))
    }
    return all
  }

  function transact(statements: readonly Statement[]): unknown[] {
    begin()
    try {
      const rows = runAll(statements, run)
      commit()
      writes += 1
      forget()
      return rows
    } catch (error) {
      if (connection.inTransaction()) rollback()
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

  // the CLI keeps nobody waiting; what is in memory no other connection sees
  const aside = options.mode === 'server' && file !== ':memory:' ? threadFor(file) : null

  /** The same in the thread for what may take long; what fails there is tried here, where errors have names. */
  async function readAside(thread: Aside, statements: readonly Statement[]): Promise<unknown[]> {
    const batch = statements.map(({ query, values, unless }) => ({
      sql: query.sql,
      values: query.bind(values),
      unless: unless === undefined ? null : statements.indexOf(unless),
    }))
    const raw = await thread.run(batch).catch(() => null)
    if (raw === null) return patiently(() => runAll(statements, look))
    return statements.map(({ query }, at) => query.rows(raw[at] ?? []))
  }

  const handle = {
    db: builder(),
    // Reads run in one go but not in one transaction: within this process nothing comes between,
    // and what the command line commits between two of them is asked again by the guard of any write.
    read(...statements: readonly Statement[]) {
      options.onTrip?.('read', statements.length)
      if (aside !== null && statements.some(({ long }) => long)) return readAside(aside, statements)
      return patiently(() => runAll(statements, look))
    },
    write(...statements: readonly Statement[]) {
      options.onTrip?.('write', statements.length)
      return patiently(() => transact(statements))
    },
  } as Handle

  return {
    database: sqliteDatabase(handle),
    version: () => `${String(version([])[0]?.[0])}/${writes}`,
    close() {
      aside?.close()
      connection.close()
    },
  }
}

/**
 * Takes the lock that a file stands for, and returns what gives it back; null when another holder
 * has it. The kernel frees it however its holder ends: it is SQLite's own (R45). Nothing else may
 * open the file: closing any descriptor of it drops POSIX locks.
 */
export function lockWith(connect: Connect, file: string): (() => void) | null {
  const lock = connect(file, { create: true })
  try {
    lock.exec('PRAGMA busy_timeout = 0')
    lock.exec('PRAGMA locking_mode = EXCLUSIVE')
    lock.exec('BEGIN EXCLUSIVE')
  } catch (error) {
    lock.close()
    if (isBusy(error)) return null
    throw error
  }
  return () => lock.close()
}
