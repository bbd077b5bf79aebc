/**
 * A thread for reads that may take long (R56): a search of a million images takes SQLite some 20 ms, and what
 * waits for the event loop meanwhile are the bytes of every transfer.
 */
import { extname } from 'node:path'
import { Worker } from 'node:worker_threads'

/** The modules beside this one that make connections; they load no more than that, for the thread's sake. */
export type Driver = 'better-sqlite3' | 'bun-sqlite' | 'node-sqlite'

/** A statement as text, with its values in the order of its `?`. */
export type Plain = {
  sql: string
  values: unknown[]
  /** Place of another one of the batch: where that has rows, this one is not run. */
  unless: number | null
}

/** Of each statement of a batch the rows, as arrays of columns. */
export type RawRows = unknown[][][]

export type Order = { id: number; batch: readonly Plain[] }
export type Answer = { id: number; rows: RawRows } | { id: number; failed: string }
export type ThreadData = {
  driver: Driver
  file: string
  /** Becomes 1 when the thread has closed its connection. */
  closed: Int32Array<SharedArrayBuffer>
}

/** How long closing waits for that, ms: for a search that runs, or a thread that has only begun. */
const CLOSING_MS = 2000

export type Aside = {
  /** Runs statements that change nothing, in one snapshot of the data; rejects when it cannot. */
  run(batch: readonly Plain[]): Promise<RawRows>
  /**
   * Returns when the thread's connection is closed. It must not be the last one: whoever closes last writes
   * SQLite's log into the file, and the thread may end before it has.
   */
  close(): void
}

/** Such a thread for the database `file`, started when it is first needed, and anew should it have ended. */
export function readsAside(driver: Driver, file: string): Aside {
  let thread: Worker | null = null
  /** What that thread closes with; one that was too late says it to nobody. */
  let closed: ThreadData['closed']
  let orders = 0
  const waiting = new Map<number, PromiseWithResolvers<RawRows>>()

  function ended(worker: Worker, reason: string): void {
    if (worker !== thread) return
    thread = null
    for (const { reject } of waiting.values()) reject(new Error(reason))
    waiting.clear()
  }

  function started(): Worker {
    closed = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT))
    // the module beside this one, in the source as in the bundle
    const entry = new URL(`aside-thread${extname(import.meta.url)}`, import.meta.url)
    const workerData: ThreadData = { driver, file, closed }
    const worker = new Worker(entry, { workerData })
    worker.on('message', (answer: Answer) => {
      const order = waiting.get(answer.id)
      waiting.delete(answer.id)
      if ('rows' in answer) order?.resolve(answer.rows)
      else order?.reject(new Error(answer.failed))
      // whoever has nothing else to do may end
      if (waiting.size === 0) worker.unref()
    })
    worker.once('error', (error) => ended(worker, String(error)))
    worker.once('exit', (code) => ended(worker, `the thread ended with ${code}`))
    return worker
  }

  return {
    // async: where the system has no thread left, starting one throws
    async run(batch) {
      thread ??= started()
      thread.ref()
      const order = Promise.withResolvers<RawRows>()
      const id = (orders += 1)
      waiting.set(id, order)
      thread.postMessage({ id, batch } satisfies Order)
      return order.promise
    },
    close() {
      const worker = thread
      if (worker === null) return
      ended(worker, 'the database was closed')
      worker.postMessage(null)
      Atomics.wait(closed, 0, 0, CLOSING_MS)
      worker.unref()
    },
  }
}
