/** The lock between processes that Node uses (R45). */
export { takeLock } from './better-sqlite3.ts'
