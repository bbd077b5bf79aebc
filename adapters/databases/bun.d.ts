/** The part of bun:sqlite that we use; Bun's own types would change those of Node everywhere. */
declare module 'bun:sqlite' {
  export class Database {
    constructor(file: string, options: { readwrite: boolean; create: boolean; strict: boolean })
    /** Whether this connection is inside a transaction. */
    readonly inTransaction: boolean
    /** Runs any number of statements. */
    run(sql: string): void
    prepare(sql: string): {
      all(...values: unknown[]): Record<string, unknown>[]
      /** Rows as arrays of columns; none for a statement that yields none. */
      values(...values: unknown[]): unknown[][]
      /** Gives back what it was compiled to. */
      finalize(): void
    }
    /** The file stays open while a statement of it is not finalized. */
    close(): void
  }
}
