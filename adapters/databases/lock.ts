/** A lock that the kernel frees: an exclusive SQLite transaction held for life (R45). */
import BetterSqlite3 from 'better-sqlite3'

/**
 * Takes the lock, or returns null when another process has it. Nothing else may open this file in
 * this process: closing any descriptor of it drops POSIX locks.
 */
export function lockFile(file: string): (() => void) | null {
  const lock = new BetterSqlite3(file, { timeout: 0 })
  try {
    lock.pragma('locking_mode = EXCLUSIVE')
    lock.exec('BEGIN EXCLUSIVE')
  } catch (error) {
    lock.close()
    if (error instanceof BetterSqlite3.SqliteError && error.code.startsWith('SQLITE_BUSY'))
      return null
    throw error
  }
  return () => lock.close()
}
