/**
 * Applies migrations/*.sql in order, each in one transaction, recording names in wrangler's own
 * table and shape (`d1_migrations`), so that a database exported from D1 opens under Node and back.
 */
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { RegistryError } from '../../src/errors.ts'

/** What a driver must give to be migrated. */
export type Migratable = {
  exec(sql: string): void
  all(sql: string): Record<string, unknown>[]
}

const TRACKING = `CREATE TABLE IF NOT EXISTS d1_migrations(
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT UNIQUE,
  applied_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP NOT NULL
)`

/** Names of the migration files of a folder, in the order they apply. */
export async function migrationNames(folder: string): Promise<string[]> {
  const names = await readdir(folder)
  return names.filter((name) => /^\d{4}_.*\.sql$/.test(name)).toSorted()
}

/** Names already applied; an empty list for a fresh file. */
export function appliedMigrations(database: Migratable): string[] {
  const tracked = database.all("SELECT name FROM sqlite_master WHERE name = 'd1_migrations'")
  if (tracked.length === 0) return []
  return database.all('SELECT name FROM d1_migrations ORDER BY id').map((row) => String(row.name))
}

/**
 * Brings the schema up to date; returns the names it applied. A database that knows migrations
 * this program does not is from a newer version: `conflict`, and nothing is touched.
 */
export async function migrate(database: Migratable, folder: string): Promise<string[]> {
  const names = await migrationNames(folder)
  const applied = checkKnown(appliedMigrations(database), names)
  const fresh = names.filter((name) => !applied.has(name))
  for (const name of fresh) {
    const sql = await readFile(join(folder, name), 'utf8')
    database.exec('BEGIN IMMEDIATE')
    try {
      database.exec(TRACKING)
      database.exec(sql)
      database.exec(`INSERT INTO d1_migrations (name) VALUES ('${name}')`)
      database.exec('COMMIT')
    } catch (error) {
      try {
        database.exec('ROLLBACK')
      } catch {
        // a full disk, among others, has ended the transaction; the first failure is what counts
      }
      throw error
    }
  }
  return fresh
}

/** Refuses to work on another schema version than this program's own (R44). */
export async function checkMigrated(database: Migratable, folder: string): Promise<void> {
  const names = await migrationNames(folder)
  const applied = checkKnown(appliedMigrations(database), names)
  const missing = names.filter((name) => !applied.has(name))
  if (missing.length > 0)
    throw new RegistryError(
      'conflict',
      `The database is from an older version of sreg-lite (it lacks ${missing.join(', ')}); start "sreg-lite serve" of this version once, it brings the database up to date.`,
    )
}

function checkKnown(applied: string[], names: string[]): Set<string> {
  const unknown = applied.filter((name) => !names.includes(name))
  if (unknown.length > 0)
    throw new RegistryError(
      'conflict',
      `The database is from a newer version of sreg-lite (it has ${unknown.join(', ')}); use that version.`,
    )
  return new Set(applied)
}
