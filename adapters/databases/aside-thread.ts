/** Entry of the thread of aside.ts: a connection of its own that only reads, one batch after the other. */
import process from 'node:process'
import { parentPort, workerData } from 'node:worker_threads'
import type { Answer, Driver, Order, Plain, RawRows, ThreadData } from './aside.ts'
import type { Connect, Connection } from './sync.ts'

const DRIVERS: Record<Driver, () => Promise<{ connect: Connect }>> = {
  'better-sqlite3': () => import('./better-sqlite3.ts'),
  'bun-sqlite': () => import('./bun-sqlite.ts'),
  'node-sqlite': () => import('./node-sqlite.ts'),
}

const { driver, file, closed } = workerData as ThreadData
const prepared = new Map<string, (values: unknown[]) => unknown[][]>()
let opening: Promise<Connection> | null = null

async function open(): Promise<Connection> {
  const { connect } = await DRIVERS[driver]()
  const connection = connect(file, { create: false })
  connection.exec('PRAGMA query_only = ON')
  // a reader waits for nobody but one who recovers the log of a process that was killed
  connection.exec('PRAGMA busy_timeout = 5000')
  return connection
}

function run(connection: Connection, batch: readonly Plain[]): RawRows {
  const rowsOf = ({ sql, values }: Plain): unknown[][] => {
    let execute = prepared.get(sql)
    if (execute === undefined) prepared.set(sql, (execute = connection.prepare(sql)))
    return execute(values)
  }
  const all: RawRows = []
  connection.exec('BEGIN')
  try {
    for (const plain of batch) {
      const spared = plain.unless !== null && (all[plain.unless] ?? []).length > 0
      all.push(spared ? [] : rowsOf(plain))
    }
  } finally {
    connection.exec('ROLLBACK')
  }
  return all
}

async function answerTo({ id, batch }: Order): Promise<Answer> {
  try {
    opening ??= open().catch((error: unknown) => {
      // the next one tries again
      opening = null
      throw error
    })
    return { id, rows: run(await opening, batch) }
  } catch (error) {
    return { id, failed: String(error) }
  }
}

async function close(): Promise<void> {
  const connection = await opening?.catch(() => null)
  connection?.close()
  Atomics.store(closed, 0, 1)
  Atomics.notify(closed, 0)
  process.exit()
}

// Before anything is awaited: Deno drops what arrives while a module awaits, and the first search hung.
parentPort?.on('message', (order: Order | null) => {
  if (order === null) void close()
  else void answerTo(order).then((answer) => parentPort?.postMessage(answer))
})
