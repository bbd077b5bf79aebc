/** Migrations: applied once, all or nothing, and never by a program that does not know them. */
import { copyFile, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import BetterSqlite3 from 'better-sqlite3'
import { describe, expect, it } from 'vitest'
import { openDatabase } from '../../adapters/databases/better-sqlite3.ts'
import {
  appliedMigrations,
  checkMigrated,
  migrate,
  migrationNames,
  type Migratable,
} from '../../adapters/databases/migrate.ts'

const OURS = new URL('../../migrations', import.meta.url).pathname

/** A folder with our migrations and more, an empty database, and what is in it. */
function withFolder(
  title: string,
  body: (at: {
    folder: string
    add: (name: string, sql: string) => Promise<void>
    sqlite: BetterSqlite3.Database
    target: Migratable
    dump: () => unknown
  }) => Promise<void>,
): void {
  it(title, async () => {
    const folder = await mkdtemp(join(tmpdir(), 'sreg-migrations-'))
    const sqlite = new BetterSqlite3(':memory:')
    try {
      for (const name of await migrationNames(OURS))
        await copyFile(join(OURS, name), join(folder, name))
      await body({
        folder,
        add: (name, sql) => writeFile(join(folder, name), sql),
        sqlite,
        target: {
          exec: (sql) => void sqlite.exec(sql),
          all: (sql) => sqlite.prepare(sql).all() as Record<string, unknown>[],
        },
        dump() {
          const tables = sqlite.prepare('SELECT * FROM sqlite_master ORDER BY name').all() as {
            type: string
            name: string
          }[]
          return tables.map((table) => [
            table,
            table.type === 'table' ? sqlite.prepare(`SELECT * FROM "${table.name}"`).all() : [],
          ])
        },
      })
    } finally {
      sqlite.close()
      await rm(folder, { recursive: true })
    }
  })
}

describe('migrate', () => {
  withFolder('applied twice changes nothing', async ({ folder, target, dump, sqlite }) => {
    expect(dump()).toEqual([])
    expect(await migrate(target, folder)).toEqual(await migrationNames(OURS))
    sqlite.exec("INSERT INTO settings VALUES ('a', 'b')")
    const before = dump()
    expect(await migrate(target, folder)).toEqual([])
    expect(dump()).toEqual(before)
    await checkMigrated(target, folder)
  })

  withFolder('applies what is new, in order, and keeps what is there', async (at) => {
    await migrate(at.target, at.folder)
    at.sqlite.exec("INSERT INTO settings VALUES ('a', 'b')")
    await at.add('9003_last.sql', "INSERT INTO added VALUES ('third')")
    await at.add('9001_first.sql', 'CREATE TABLE added (word TEXT)')
    await at.add('9002_middle.sql', "INSERT INTO added VALUES ('second')")
    await at.add('notes.txt', 'not SQL')
    await at.add('9004_draft.sql~', 'not SQL')
    expect(await migrate(at.target, at.folder)).toEqual([
      '9001_first.sql',
      '9002_middle.sql',
      '9003_last.sql',
    ])
    expect(at.target.all('SELECT word FROM added')).toEqual([{ word: 'second' }, { word: 'third' }])
    expect(at.target.all('SELECT * FROM settings')).toEqual([{ key: 'a', value: 'b' }])
  })

  withFolder('records names as wrangler does', async ({ folder, target }) => {
    await migrate(target, folder)
    const names = await migrationNames(OURS)
    expect(target.all('SELECT id, name FROM d1_migrations')).toEqual(
      names.map((name, at) => ({ id: at + 1, name })),
    )
    const [row] = target.all('SELECT applied_at FROM d1_migrations')
    expect(row?.applied_at).toMatch(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/)
    expect(appliedMigrations(target)).toEqual(names)
  })

  withFolder('refuses a database from a newer version, and touches nothing', async (at) => {
    await at.add('9001_newer.sql', 'CREATE TABLE newer (a)')
    await migrate(at.target, at.folder)
    await rm(join(at.folder, '9001_newer.sql'))
    await at.add('9000_another.sql', 'CREATE TABLE another (a)')
    const before = at.dump()
    for (const open of [migrate, checkMigrated])
      await expect(open(at.target, at.folder)).rejects.toMatchObject({
        code: 'conflict',
        message: expect.stringMatching(/newer version of sreg-lite.*9001_newer\.sql/),
      })
    expect(at.dump()).toEqual(before)
  })

  withFolder('that fails half-way leaves nothing of that file', async (at) => {
    await at.add('9001_good.sql', 'CREATE TABLE good (a)')
    await at.add(
      '9002_bad.sql',
      'CREATE TABLE half (a); INSERT INTO half VALUES (1); INSERT INTO nowhere VALUES (1)',
    )
    await at.add('9003_never.sql', 'CREATE TABLE never (a)')
    await expect(migrate(at.target, at.folder)).rejects.toThrow(/nowhere/)
    expect(at.sqlite.inTransaction).toBe(false)
    expect(appliedMigrations(at.target)).toEqual([...(await migrationNames(OURS)), '9001_good.sql'])
    const tables = at.target
      .all("SELECT name FROM sqlite_master WHERE name IN ('good', 'half', 'never')")
      .map(({ name }) => name)
    expect(tables).toEqual(['good'])
    // mended, it goes on where it stopped
    await at.add('9002_bad.sql', 'CREATE TABLE half (a)')
    expect(await migrate(at.target, at.folder)).toEqual(['9002_bad.sql', '9003_never.sql'])
  })

  withFolder('that fails in the very first file leaves an empty database', async (at) => {
    await at.add('0000_bad.sql', 'CREATE TABLE half (a); NONSENSE')
    await expect(migrate(at.target, at.folder)).rejects.toThrow(/NONSENSE/)
    expect(at.dump()).toEqual([])
  })

  withFolder('tells the first failure, also when it ended the transaction itself', async (at) => {
    await at.add(
      '9001_ends.sql',
      `CREATE TABLE half (a PRIMARY KEY); INSERT INTO half VALUES (1);
       INSERT OR ROLLBACK INTO half VALUES (1)`,
    )
    await expect(migrate(at.target, at.folder)).rejects.toThrow(/UNIQUE constraint failed/)
    expect(at.target.all("SELECT * FROM sqlite_master WHERE name = 'half'")).toEqual([])
  })

  withFolder('does not build upon tables of somebody else', async (at) => {
    at.sqlite.exec('CREATE TABLE users (mine TEXT)')
    const before = at.dump()
    await expect(migrate(at.target, at.folder)).rejects.toThrow(/already exists/)
    expect(at.dump()).toEqual(before)
  })
})

describe('the command line', () => {
  withFolder('refuses a database of an older schema, and does not touch it (R44)', async (at) => {
    const file = join(at.folder, 'registry.db')
    const server = await openDatabase(file, { mode: 'server', migrations: OURS })
    server.close()
    await at.add('9001_newer.sql', 'CREATE TABLE newer (a)')
    const open = (mode: 'server' | 'cli', migrations: string) =>
      openDatabase(file, { mode, migrations })
    await expect(open('cli', at.folder)).rejects.toMatchObject({
      code: 'conflict',
      message: expect.stringMatching(/older version of sreg-lite.*9001_newer\.sql/),
    })
    const unchanged = await open('cli', OURS)
    unchanged.close()
    const migrated = await open('server', at.folder)
    migrated.close()
    const current = await open('cli', at.folder)
    current.close()
    // and the older program refuses it from now on, as server and as command line
    for (const mode of ['server', 'cli'] as const)
      await expect(open(mode, OURS)).rejects.toMatchObject({ code: 'conflict' })
  })

  withFolder('makes no database where there is none', async ({ folder }) => {
    const before = await readdir(folder)
    await expect(
      openDatabase(join(folder, 'registry.db'), { mode: 'cli', migrations: OURS }),
    ).rejects.toThrow()
    expect(await readdir(folder)).toEqual(before)
  })
})
