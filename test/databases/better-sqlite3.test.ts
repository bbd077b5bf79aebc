/** The SQLite file under Node against the contract, and what only a shared file can get wrong. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import BetterSqlite3 from 'better-sqlite3'
import { describe, expect, it, vi } from 'vitest'
import { openDatabase } from '../../adapters/databases/better-sqlite3.ts'
import { describeDatabase, type Trip } from '../contract/database.ts'

const migrations = new URL('../../migrations', import.meta.url).pathname

async function make() {
  const folder = await mkdtemp(join(tmpdir(), 'sreg-database-'))
  const file = join(folder, 'registry.db')
  const trips: Trip[] = []
  const opened = await openDatabase(file, {
    mode: 'server',
    migrations,
    onTrip: (kind, statements) => trips.push({ kind, statements }),
  })
  const other = new BetterSqlite3(file)
  return {
    folder,
    file,
    opened,
    database: opened.database,
    trips: () => trips,
    raw: async (sql: string) => {
      const statement = other.prepare(sql)
      if (statement.reader) return statement.all() as Record<string, unknown>[]
      statement.run()
      return []
    },
    async dispose() {
      other.close()
      opened.close()
      await rm(folder, { recursive: true })
    },
  }
}

describeDatabase('better-sqlite3', { make })

type Made = Awaited<ReturnType<typeof make>>

/** A test with a database of its own. */
function withDatabase(
  title: string,
  body: (made: Made) => Promise<void>,
  options: { retry?: number } = {},
): void {
  it(title, options, async () => {
    const made = await make()
    try {
      await body(made)
    } finally {
      await made.dispose()
    }
  })
}

/** Holds the write lock from another connection until `release` is called. */
function holdLock(file: string): { release: () => void } {
  const other = new BetterSqlite3(file)
  other.exec('BEGIN IMMEDIATE')
  return {
    release() {
      other.exec('COMMIT')
      other.close()
    },
  }
}

const user = (name: string) => ({
  id: name.padStart(24, '0'),
  entityId: `e${name}`.padStart(24, '0'),
  name,
  role: 'user' as const,
  disabled: false,
  createdAt: new Date(0),
})

describe('better-sqlite3: connections', () => {
  for (const mode of ['server', 'cli'] as const)
    withDatabase(`of the ${mode} are durable and keep foreign keys (R11)`, async ({ file }) => {
      const prepare = vi.spyOn(BetterSqlite3.prototype, 'prepare')
      const opened = await openDatabase(file, { mode, migrations })
      try {
        // the connection itself is nobody's business, so it is taken where it prepares
        const connection = prepare.mock.contexts.at(-1) as BetterSqlite3.Database
        expect(connection.name).toBe(file)
        const pragma = (name: string) => connection.pragma(name, { simple: true })
        expect(pragma('journal_mode')).toBe('wal')
        expect(pragma('synchronous')).toBe(2)
        expect(pragma('foreign_keys')).toBe(1)
        expect(pragma('busy_timeout')).toBe(mode === 'server' ? 50 : 5000)
      } finally {
        prepare.mockRestore()
        opened.close()
      }
    })

  withDatabase('of the cli and the server see what the other one wrote', async (made) => {
    const cli = await openDatabase(made.file, { mode: 'cli', migrations })
    try {
      const before = made.opened.version()
      await cli.database.users.create(user('alice'))
      const after = made.opened.version()
      expect(after).not.toBe(before)
      expect((await made.database.users.byName('alice'))?.name).toBe('alice')
      expect(made.opened.version()).toBe(after)
      await made.database.users.create(user('bob'))
      expect(made.opened.version()).not.toBe(after)
      expect((await cli.database.users.byName('bob'))?.name).toBe('bob')
    } finally {
      cli.close()
    }
  })
})

describe('better-sqlite3: a batch', () => {
  withDatabase('that fails in a later statement leaves nothing', async ({ database, raw }) => {
    const alice = user('alice')
    await database.users.create(alice)
    const bob = { ...user('bob'), entityId: alice.entityId }
    // the user goes in, then the entity's id is taken
    await expect(database.users.create(bob)).rejects.toThrow(/UNIQUE/)
    expect(await database.users.byName('bob')).toBeNull()
    expect(await raw('SELECT * FROM users')).toHaveLength(1)
    expect((await database.users.create(user('bob'))).created).toBe(true)
  })

  withDatabase('leaves no guard behind, refused or not', async ({ database, raw }) => {
    const admin = { ...user('admin'), role: 'admin' as const }
    expect(await database.users.createFirstAdmin(admin)).toBe(true)
    expect(await raw('SELECT * FROM guard')).toEqual([])
    expect(await database.users.createFirstAdmin(admin)).toBe(false)
    expect(await raw('SELECT * FROM guard')).toEqual([])
  })
})

describe('better-sqlite3: while another process writes', () => {
  withDatabase(
    'a write waits without stopping the event loop',
    async ({ database, file }) => {
      const lock = holdLock(file)
      let longest = 0
      let last = performance.now()
      const timer = setInterval(() => {
        const now = performance.now()
        longest = Math.max(longest, now - last)
        last = now
      }, 5)
      const start = performance.now()
      setTimeout(lock.release, 1000)
      try {
        // reads go on meanwhile, as WAL lets them
        const written = database.users.create(user('alice'))
        expect(await database.users.byName('alice')).toBeNull()
        expect(performance.now() - start).toBeLessThan(500)
        expect((await written).created).toBe(true)
        expect(performance.now() - start).toBeGreaterThan(950)
        expect(longest).toBeLessThan(120)
      } finally {
        clearInterval(timer)
      }
      // others use this machine too, and a process that does not run looks like a stopped loop
    },
    { retry: 2 },
  )

  withDatabase('a write gives up after about 5 s and says when to retry', async (made) => {
    const lock = holdLock(made.file)
    const start = performance.now()
    try {
      const error = await made.database.users.create(user('alice')).catch((e: unknown) => e)
      const waited = performance.now() - start
      expect(error).toMatchObject({ code: 'unavailable', retryAfter: expect.any(Number) })
      expect(waited).toBeGreaterThan(4500)
      expect(waited).toBeLessThan(6500)
    } finally {
      lock.release()
    }
    expect(await made.database.users.byName('alice')).toBeNull()
    expect((await made.database.users.create(user('alice'))).created).toBe(true)
  })

  withDatabase(
    'the cli gives up after 5 s as well, and not after fourteen times that',
    async (made) => {
      const cli = await openDatabase(made.file, { mode: 'cli', migrations })
      const lock = holdLock(made.file)
      const start = performance.now()
      try {
        const error = await cli.database.users.create(user('alice')).catch((e: unknown) => e)
        expect(error).toMatchObject({ code: 'unavailable' })
        expect(performance.now() - start).toBeGreaterThan(4500)
        expect(performance.now() - start).toBeLessThan(7000)
      } finally {
        lock.release()
        cli.close()
      }
    },
  )
})
