/** A D1 of workerd, empty and with the schema of our migrations, as a database of the contract. */
import { env } from 'cloudflare:workers'
import { d1Database, type D1Binding } from '../../adapters/databases/d1.ts'
import type { Trip } from '../contract/database.ts'

export const MIGRATIONS = env.MIGRATIONS.map(({ name }) => name)

/** Rows of one statement. */
export async function raw(sql: string): Promise<Record<string, unknown>[]> {
  return (await env.DB.prepare(sql).all()).results
}

/** Applies migrations as wrangler does: each statement, and the name into its table. */
export async function migrate(migrations = env.MIGRATIONS): Promise<void> {
  await raw(
    'CREATE TABLE IF NOT EXISTS d1_migrations(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, applied_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP NOT NULL)',
  )
  const applied = new Set((await raw('SELECT name FROM d1_migrations')).map(({ name }) => name))
  for (const { name, queries } of migrations) {
    if (applied.has(name)) continue
    await env.DB.batch([
      ...queries.map((sql) => env.DB.prepare(sql)),
      env.DB.prepare('INSERT INTO d1_migrations (name) VALUES (?)').bind(name),
    ])
  }
}

/** Every table of the schema, those that refer to others before them. */
const TABLES =
  'search search_keys guard audit counters shares stars grants invitations team_members teams holdings signature_issuers verdicts key_names keys import_blobs import_rows imports ended uploads oci_upload_keys oci_upload_parts oci_uploads oci_tags manifest_refs manifest_pieces manifests repository_blobs tags image_details images blobs containers collections entities tokens users settings'.split(
    ' ',
  )
const everyOf = (statement: string, tables: string[]) =>
  env.DB.batch<Record<string, unknown>>(
    tables.map((table) => env.DB.prepare(`${statement} ${table}`)),
  )

/** Every row that the port may tell of: what an import has staged is not among them (R42). */
export const dump = async () => {
  const told = TABLES.filter((table) => !table.startsWith('import'))
  return (await everyOf('SELECT * FROM', told)).map(({ results }) => results)
}

/** Drops every row: one D1 serves all tests of a file, one after the other. */
export async function empty(): Promise<void> {
  await everyOf('DELETE FROM', TABLES)
}

/** A fresh database; `sent` gets every statement with the number of its values. */
export async function make(binding: D1Binding = env.DB) {
  await migrate()
  const trips: Trip[] = []
  const database = d1Database(binding, {
    migrations: MIGRATIONS,
    onTrip: (kind, statements) => trips.push({ kind, statements }),
  })
  return { database, trips: () => trips, raw, dump, dispose: empty }
}
