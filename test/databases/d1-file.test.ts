/** The file that D1 keeps on this machine under wrangler, and ours: each opens the other's. */
import { copyFile, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { getPlatformProxy } from 'wrangler'
import { openDatabase } from '../../adapters/databases/better-sqlite3.ts'
import { d1Database, type D1Binding } from '../../adapters/databases/d1.ts'
import { migrationNames } from '../../adapters/databases/migrate.ts'
import type { Database } from '../../src/ports.ts'
import { operator } from '../fixtures/operator.ts'

const MIGRATIONS = new URL('../../migrations', import.meta.url).pathname

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sreg-d1-'))
  const database = { binding: 'DB', database_name: 'registry', database_id: 'registry' }
  await writeFile(
    join(folder, 'wrangler.json'),
    JSON.stringify({ name: 'test', compatibility_date: '2026-11-02', d1_databases: [database] }),
  )
})
afterEach(() => rm(folder, { recursive: true }))

/** What `use` does with the D1 that wrangler keeps in the folder. */
async function withD1(use: (binding: D1Binding) => Promise<void>): Promise<void> {
  const proxy = await getPlatformProxy<{ DB: D1Binding }>({
    configPath: join(folder, 'wrangler.json'),
    persist: { path: join(folder, 'state') },
    remoteBindings: false,
  })
  try {
    await use(proxy.env.DB)
  } finally {
    await proxy.dispose()
  }
}

/** Where wrangler keeps it. */
async function fileOfD1(): Promise<string> {
  const places = await readdir(folder, { recursive: true })
  const files = places.filter((name) => /d1.*[0-9a-f]{64}\.sqlite$/.test(name))
  expect(files).toHaveLength(1)
  return join(folder, files[0] ?? '')
}

const user = (name: string) => ({
  id: name.padStart(24, '0'),
  entityId: `e${name}`.padStart(24, '0'),
  name,
  role: 'user' as const,
  disabled: false,
  createdAt: new Date(0),
})
const names = async ({ users }: Database) => (await users.list()).map(({ name }) => name)

it('what D1 wrote opens under Node, and what Node wrote opens under D1', async () => {
  const migrations = await migrationNames(MIGRATIONS)
  await withD1(async (binding) => {
    const run = (sql: string) => binding.batch([binding.prepare(sql).bind()])
    await run('CREATE TABLE d1_migrations (id INTEGER PRIMARY KEY, name TEXT UNIQUE)')
    for (const name of migrations) {
      const text = await readFile(join(MIGRATIONS, name), 'utf8')
      for (const statement of text.split('--> statement-breakpoint')) await run(statement)
      await run(`INSERT INTO d1_migrations (name) VALUES ('${name}')`)
    }
    await d1Database(binding, { migrations }).users.create(user('alice'), operator())
  })

  const file = await fileOfD1()
  const ours = join(folder, 'registry.db')
  await copyFile(file, ours)
  const wal = await readFile(`${file}-wal`).catch(() => null)
  if (wal !== null) await writeFile(`${ours}-wal`, wal)
  for (const mode of ['server', 'cli'] as const) {
    const opened = await openDatabase(ours, { mode, migrations: MIGRATIONS })
    expect(await names(opened.database)).toContain('alice')
    await opened.database.users.create(user(mode), operator())
    opened.close()
  }

  for (const rest of ['-wal', '-shm']) await rm(`${file}${rest}`, { force: true })
  await copyFile(ours, file)
  await withD1(async (binding) => {
    const database = d1Database(binding, { migrations })
    expect(await names(database)).toEqual(['alice', 'cli', 'server'])
    expect((await database.users.create(user('bob'), operator())).created).toBe(true)
  })
})
