/** A lock between processes that the kernel frees however its holder ends: SQLite's own (R45). */
import BetterSqlite3 from 'better-sqlite3'

/**
 * Takes the lock that a file stands for, and returns what gives it back; null when another holder
 * has it. Nothing else may open the file: closing any descriptor of it drops POSIX locks.
 */
export function takeLock(file: string): (() => void) | null {
  const lock = new BetterSqlite3(file, { timeout: 0 })
  try {
    lock.pragma('locking_mode = EXCLUSIVE')
    lock.exec('BEGIN EXCLUSIVE')
  } catch (error) {
    lock.close()
    if (error instanceof BetterSqlite3.SqliteError && error.code.startsWith('SQLITE_BUSY')) {
      return null
    }
    throw error
  }
  return () => void lock.close()
}
