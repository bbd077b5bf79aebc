/** What every driver of a SQLite file must do besides the contract: settings, waiting, migrations. */
import { copyFile, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { Aside } from '../../adapters/databases/aside.ts'
import { migrationNames } from '../../adapters/databases/migrate.ts'
import {
  openWith,
  type Connect,
  type Connection,
  type Means,
  type OpenDatabase,
  type OpenOptions,
} from '../../adapters/databases/sync.ts'
import type { Viewer } from '../../src/ports.ts'
import { at, describeDatabase, worldOf, type Trip } from './database.ts'
import { operator } from '../fixtures/operator.ts'

const MIGRATIONS = new URL('../../migrations', import.meta.url).pathname

export type SqliteDriver = Means & {
  openDatabase(file: string, options: OpenOptions): Promise<OpenDatabase>
  takeLock(file: string): Promise<(() => void) | null>
}

const user = (name: string) => ({
  id: name.padStart(24, '0'),
  entityId: `e${name}`.padStart(24, '0'),
  name,
  role: 'user' as const,
  disabled: false,
  createdAt: new Date(0),
})

/** Databases of a driver's own in fresh folders, and tests on them. */
function onFiles({ connect, openDatabase }: SqliteDriver) {
  /** An empty one after all migrations, made once: they take five times as long as all else of an opening. */
  let migrated: Promise<Uint8Array> | undefined
  async function migrate(): Promise<Uint8Array> {
    const folder = await mkdtemp(join(tmpdir(), 'sreg-migrated-'))
    const file = join(folder, 'registry.db')
    // the last connection that closes leaves nothing beside the file
    ;(await openDatabase(file, { mode: 'server', migrations: MIGRATIONS })).close()
    const bytes = await readFile(file)
    await rm(folder, { recursive: true })
    return bytes
  }

  async function make() {
    const folder = await mkdtemp(join(tmpdir(), 'sreg-database-'))
    const file = join(folder, 'registry.db')
    await writeFile(file, await (migrated ??= migrate()), { mode: 0o600 })
    const trips: Trip[] = []
    const opened = await openDatabase(file, {
      mode: 'server',
      migrations: MIGRATIONS,
      onTrip: (kind, statements) => trips.push({ kind, statements }),
    })
    const other = connect(file, { create: false })
    other.exec('PRAGMA foreign_keys = ON')
    return {
      folder,
      file,
      opened,
      database: opened.database,
      trips: () => trips,
      raw: async (sql: string) => other.all(sql),
      async dispose() {
        other.close()
        opened.close()
        await rm(folder, { recursive: true })
      },
    }
  }
  /** A test with a database of its own. */
  function withDatabase(
    title: string,
    body: (made: Awaited<ReturnType<typeof make>>) => Promise<void>,
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

  return { make, withDatabase }
}

type Made = Awaited<ReturnType<ReturnType<typeof onFiles>['make']>>

/** Runs the contract and more on a driver; `others` open the same files. */
export function describeSqliteFile(
  name: string,
  driver: SqliteDriver,
  others: Record<string, SqliteDriver> = {},
): void {
  const { connect, aside, openDatabase, takeLock } = driver
  const { make, withDatabase } = onFiles(driver)

  describeDatabase(name, { make })

  /** Opens with the driver and keeps hold of the connection itself. */
  async function openTapped(file: string, mode: OpenOptions['mode']) {
    const tapped: Connection[] = []
    const tap: Connect = (...place) => {
      const connection = connect(...place)
      tapped.push(connection)
      return connection
    }
    const means = { ...driver, connect: tap }
    const opened = await openWith(means, file, { mode, migrations: MIGRATIONS })
    const [connection] = tapped
    if (connection === undefined || tapped.length > 1) throw new Error('not one connection')
    const pragma = (name: string) => Object.values(connection.all(`PRAGMA ${name}`)[0] ?? {})[0]
    return { opened, connection, pragma }
  }

  describe(`${name}: connections`, () => {
    for (const mode of ['server', 'cli'] as const)
      withDatabase(`of the ${mode} are durable and keep foreign keys (R11)`, async ({ file }) => {
        const { opened, pragma } = await openTapped(file, mode)
        try {
          expect(pragma('journal_mode')).toBe('wal')
          expect(pragma('synchronous')).toBe(2)
          expect(pragma('foreign_keys')).toBe(1)
          expect(pragma('busy_timeout')).toBe(mode === 'server' ? 50 : 5000)
        } finally {
          opened.close()
        }
      })

    withDatabase('of the cli and the server see what the other one wrote', async (made) => {
      const cli = await openDatabase(made.file, { mode: 'cli', migrations: MIGRATIONS })
      try {
        const before = made.opened.version()
        await cli.database.users.create(user('alice'), operator())
        const after = made.opened.version()
        expect(after).not.toBe(before)
        expect((await made.database.users.byName('alice'))?.name).toBe('alice')
        expect(made.opened.version()).toBe(after)
        await made.database.users.create(user('bob'), operator())
        expect(made.opened.version()).not.toBe(after)
        expect((await cli.database.users.byName('bob'))?.name).toBe('bob')
      } finally {
        cli.close()
      }
    })

    withDatabase('of the cli make no file where there is none', async ({ folder }) => {
      const absent = join(folder, 'absent.db')
      const open = openDatabase(absent, { mode: 'cli', migrations: MIGRATIONS })
      await expect(open).rejects.toThrow(/unable to open/)
      expect(() => connect(absent, { create: false })).toThrow(/unable to open/)
    })

    withDatabase('share a lock that one of them holds, until it gives it back', async (made) => {
      const file = join(made.folder, 'lock.db')
      const release = await takeLock(file)
      expect(release).not.toBeNull()
      expect(await takeLock(file)).toBeNull()
      release?.()
      const again = await takeLock(file)
      expect(again).not.toBeNull()
      again?.()
    })
  })

  describe(`${name}: a batch`, () => {
    withDatabase('that fails in a later statement leaves nothing', async ({ database, raw }) => {
      const alice = user('alice')
      await database.users.create(alice, operator())
      const bob = { ...user('bob'), entityId: alice.entityId }
      // the user goes in, then the entity's id is taken
      await expect(database.users.create(bob, operator())).rejects.toThrow(/UNIQUE/)
      expect(await database.users.byName('bob')).toBeNull()
      expect(await raw('SELECT * FROM users')).toHaveLength(1)
      expect((await database.users.create(user('bob'), operator())).created).toBe(true)
    })

    withDatabase('leaves no guard behind, refused or not', async ({ database, raw }) => {
      const admin = { ...user('admin'), role: 'admin' as const }
      expect(await database.users.createFirstAdmin(admin, operator())).toBe(true)
      expect(await raw('SELECT * FROM guard')).toEqual([])
      expect(await database.users.createFirstAdmin(admin, operator())).toBe(false)
      expect(await raw('SELECT * FROM guard')).toEqual([])
    })

    withDatabase('that finds the disk full says so and leaves nothing', async ({ file }) => {
      const { opened, connection, pragma } = await openTapped(file, 'server')
      const { settings } = opened.database
      try {
        await settings.set('small', 'before')
        connection.exec(`PRAGMA max_page_count = ${Number(pragma('page_count'))}`)
        const large = 'x'.repeat(1_000_000)
        await expect(settings.set('large', large)).rejects.toMatchObject({
          code: 'insufficient_storage',
        })
        expect(connection.inTransaction()).toBe(false)
        expect(await settings.get('large')).toBeNull()
        connection.exec('PRAGMA max_page_count = 100000')
        await settings.set('large', large)
        expect(await settings.get('large')).toBe(large)
        expect(await settings.get('small')).toBe('before')
      } finally {
        opened.close()
      }
    })
  })

  describe(`${name}: lookups`, () => {
    /** An image and its pusher, in a file; and lookups of it with how many statements each ran. */
    async function lookups(made: Made) {
      let runs = 0
      const counting: Connect = (...place) => {
        const connection = connect(...place)
        const prepare: Connection['prepare'] = (sql) => {
          const run = connection.prepare(sql)
          return (values) => {
            if (/^select/i.test(sql)) runs += 1
            return run(values)
          }
        }
        return { ...connection, prepare }
      }
      const means = { ...driver, connect: counting }
      const server = await openWith(means, made.file, { mode: 'server', migrations: MIGRATIONS })
      const world = await worldOf({ ...made, database: server.database })
      const alice = await world.person('alice')
      const { id: container } = await world.container(alice, 'alice/c/box')
      const { id } = await world.push(alice, container, 'first', { tag: 'v1' })
      const path = { entity: 'alice', collection: 'c', container: 'box' }
      const look = async (viewer: typeof alice.viewer | null, now = at(1)) => {
        runs = 0
        const selector = { by: 'tag', tag: 'v1', arch: 'amd64' } as const
        const found = await server.database.catalog.findImage(path, selector, viewer, now)
        return { id: found.value?.id, stands: found.standing !== null, runs }
      }
      const { viewer, tokenId } = alice
      return { server, world, alice, viewer, tokenId, container, id, look }
    }

    withDatabase('are remembered until something is written here', async (made) => {
      const { server, world, alice, viewer, container, id, look } = await lookups(made)
      try {
        expect(await look(null)).toEqual({ id, stands: false, runs: 1 })
        expect(await look(null)).toEqual({ id, stands: false, runs: 0 })
        // another viewer's standing is another row, and what they may do there another answer
        expect(await look(viewer)).toEqual({ id, stands: true, runs: 2 })
        expect(await look(viewer)).toEqual({ id, stands: true, runs: 0 })
        const next = await world.push(alice, container, 'second', { tag: 'v1' })
        expect(await look(null)).toEqual({ id: next.id, stands: false, runs: 1 })
        await server.database.tokens.revoke(alice.tokenId, operator())
        expect(await look(viewer)).toMatchObject({ stands: false, runs: 2 })
      } finally {
        server.close()
      }
    })

    withDatabase('see what another process wrote at the next turn (R25)', async (made) => {
      const { server, viewer, tokenId, id, look } = await lookups(made)
      const cli = await openDatabase(made.file, { mode: 'cli', migrations: MIGRATIONS })
      try {
        expect(await look(viewer)).toEqual({ id, stands: true, runs: 2 })
        await new Promise((resolve) => setImmediate(resolve))
        expect(await look(viewer)).toEqual({ id, stands: true, runs: 0 })
        await cli.database.tokens.revoke(tokenId, operator())
        await new Promise((resolve) => setImmediate(resolve))
        expect(await look(viewer)).toEqual({ id, stands: false, runs: 2 })
      } finally {
        cli.close()
        server.close()
      }
    })

    withDatabase('remember nobody beyond the end of their token (R14)', async (made) => {
      const { server, viewer, id, look } = await lookups(made)
      try {
        const end = at(60 * 24)
        const before = new Date(end.getTime() - 1)
        expect(await look(viewer, before)).toEqual({ id, stands: true, runs: 2 })
        expect(await look(viewer, before)).toEqual({ id, stands: true, runs: 0 })
        expect(await look(viewer, end)).toEqual({ id, stands: false, runs: 1 })
        expect(await look(viewer, end)).toEqual({ id, stands: false, runs: 1 })
      } finally {
        server.close()
      }
    })
  })

  describe(`${name}: what may take long (R56)`, () => {
    const counting = (to: number) => ({
      sql: 'WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < ?) SELECT count(*) FROM n',
      values: [to],
      unless: null,
    })
    const plain = (sql: string) => ({ sql, values: [], unless: null })

    withDatabase('is run while the event loop goes on', async ({ file }) => {
      const thread = aside(file)
      try {
        expect(await thread.run([counting(10)])).toEqual([[[10]]])
        let turns = 0
        const timer = setInterval(() => (turns += 1), 1)
        expect(await thread.run([counting(2_000_000)])).toEqual([[[2_000_000]]])
        clearInterval(timer)
        // none, were it run here
        expect(turns).toBeGreaterThan(10)
      } finally {
        thread.close()
      }
    })

    withDatabase('is refused where there is no file, and none is made', async ({ folder }) => {
      const thread = aside(join(folder, 'absent.db'))
      for (const _ of ['first', 'anew'])
        await expect(thread.run([counting(1)])).rejects.toThrow(/unable to open/)
      expect(await readdir(folder)).not.toContain('absent.db')
      thread.close()
    })

    withDatabase('changes nothing, and what fails leaves the thread as it was', async (made) => {
      const thread = aside(made.file)
      const rows = plain('SELECT 1 WHERE 0')
      try {
        const insert = plain("INSERT INTO settings (key, value) VALUES ('a', 'b')")
        await expect(thread.run([insert])).rejects.toThrow(/readonly/)
        await expect(thread.run([plain('SELECT absent')])).rejects.toThrow(/no such column/)
        const spared = { ...plain('SELECT 2'), unless: 0 }
        expect(await thread.run([plain('SELECT 1'), spared])).toEqual([[[1]], []])
        expect(await thread.run([rows, spared])).toEqual([[], [[2]]])
        thread.close()
        expect(await thread.run([counting(3)]), 'begun anew').toEqual([[[3]]])
      } finally {
        thread.close()
      }
    })

    withDatabase(
      'are searches, at once after a push, and with no thread to be had',
      async (made) => {
        const ran: boolean[] = []
        let broken = false
        const counted = (file: string) => {
          const thread = aside(file)
          const run: Aside['run'] = (batch) => {
            ran.push(!broken)
            return broken ? Promise.reject(new Error('gone')) : thread.run(batch)
          }
          return { ...thread, run }
        }
        const means = { connect, aside: counted }
        const server = await openWith(means, made.file, { mode: 'server', migrations: MIGRATIONS })
        try {
          const world = await worldOf({ ...made, database: server.database })
          const alice = await world.person('alice')
          const { id: container } = await world.container(alice, 'alice/c/box')
          const ids: string[] = []
          for (const content of ['first', 'second', 'third']) {
            ids.unshift((await world.push(alice, container, content)).id)
            broken = content === 'third'
            const query = { terms: ['box'], arch: [], signed: false, limit: 5 }
            const found = await server.database.catalog.search(query, alice.viewer, at(1))
            expect(found.standing).not.toBeNull()
            expect(found.value.images.map(({ id }) => id)).toEqual(ids)
          }
          expect(ran).toEqual([true, true, false])
        } finally {
          server.close()
        }
      },
    )
  })

  describe(`${name}: migrations`, () => {
    const schemaOf = ({ raw }: Made) =>
      raw('SELECT type, name, sql FROM sqlite_master ORDER BY name')

    withDatabase('from every earlier version end in the same schema', async (made) => {
      const names = await migrationNames(MIGRATIONS)
      for (let count = 0; count <= names.length; count++) {
        const folder = await mkdtemp(join(made.folder, 'migrations-'))
        for (const each of names.slice(0, count))
          await copyFile(join(MIGRATIONS, each), join(folder, each))
        const file = join(folder, 'registry.db')
        for (const migrations of [folder, MIGRATIONS, MIGRATIONS])
          (await openDatabase(file, { mode: 'server', migrations })).close()
        const other = connect(file, { create: false })
        const schema = other.all('SELECT type, name, sql FROM sqlite_master ORDER BY name')
        const applied = other.all('SELECT name FROM d1_migrations ORDER BY id')
        other.close()
        expect(schema.map((row) => ({ ...row }))).toEqual(
          (await schemaOf(made)).map((row) => ({ ...row })),
        )
        expect(applied.map((row) => row.name)).toEqual(names)
      }
    })

    withDatabase('of the index keep what is private to its owner (R30)', async (made) => {
      const world = await worldOf(made)
      const [alice, bob] = [await world.person('alice'), await world.person('bob')]
      const push = async (path: string, options: Parameters<typeof world.container>[2] = {}) => {
        const { id } = await world.container(alice, path, options)
        return (await world.push(alice, id, path, { description: 'needle' })).id
      }
      const shown = await push('alice/c/open')
      await push('alice/c/secret', { private: true })
      await push('alice/hidden/thing', { collectionPrivate: true })
      // as 0008 left it: what was public said so, and each row whose it is
      await made.raw(
        "UPDATE search SET scope = (SELECT iif(c.private = 0 AND n.private = 0, 'pub ', '') || 'own' || e.owner_id || ' col' || c.id FROM images i JOIN containers n ON n.id = i.container_id JOIN collections c ON c.id = n.collection_id JOIN entities e ON e.id = c.entity_id WHERE i.seq = search.rowid)",
      )
      await made.raw("DELETE FROM d1_migrations WHERE name >= '0009'")
      const later = await openDatabase(made.file, { mode: 'server', migrations: MIGRATIONS })
      try {
        const { catalog } = later.database
        const find = async (viewer: Viewer) => {
          const query = { terms: ['needle'], arch: [], signed: false, limit: 1000 }
          return (await catalog.search(query, viewer, at())).value.images.map(({ id }) => id)
        }
        expect(await find(null)).toEqual([shown])
        expect(await find(bob.viewer)).toEqual([shown])
        expect((await find(alice.viewer)).length).toBe(3)
        const inIndex = await made.raw(
          `SELECT rowid FROM search WHERE search MATCH 'needle NOT (scope : prv)'`,
        )
        expect(inIndex.length).toBe(1)
        const place = { entity: 'alice', collection: 'c', container: 'open' }
        await catalog.setPrivate(place, true, operator())
        expect(await find(null)).toEqual([])
      } finally {
        later.close()
      }
    })
  })

  for (const [title, other] of Object.entries(others))
    describe(`${name}: a file`, () => {
      withDatabase(`goes to ${title} and back, with all that is in it`, async (made) => {
        const file = join(made.folder, 'shared.db')
        const names: string[] = []
        for (const [turn, { openDatabase: open }] of [other, driver, other, driver].entries()) {
          const opened = await open(file, { mode: 'server', migrations: MIGRATIONS })
          try {
            const { users, settings } = opened.database
            expect((await users.list()).map((each) => each.name)).toEqual(names)
            for (const each of names) expect(await settings.get(each)).toBe(`of ${each}`)
            names.push(`user${turn}`)
            await users.create(user(`user${turn}`), operator())
            await settings.set(`user${turn}`, `of user${turn}`)
          } finally {
            opened.close()
          }
        }
      })
    })
}

/** How long a driver waits for the lock of others, and what it does meanwhile: nothing may run beside it. */
export function describeBusyFile(name: string, driver: SqliteDriver): void {
  const { connect, openDatabase } = driver
  const { withDatabase } = onFiles(driver)

  /** Holds the write lock from another connection until `release` is called. */
  function holdLock(file: string): { release: () => void } {
    const other = connect(file, { create: false })
    other.exec('BEGIN IMMEDIATE')
    return {
      release() {
        other.exec('COMMIT')
        other.close()
      },
    }
  }

  describe(`${name}: while another process writes`, () => {
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
          const written = database.users.create(user('alice'), operator())
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
        const error = await made.database.users
          .create(user('alice'), operator())
          .catch((e: unknown) => e)
        const waited = performance.now() - start
        expect(error).toMatchObject({ code: 'unavailable', retryAfter: expect.any(Number) })
        expect(waited).toBeGreaterThan(4500)
        expect(waited).toBeLessThan(6500)
      } finally {
        lock.release()
      }
      expect(await made.database.users.byName('alice')).toBeNull()
      expect((await made.database.users.create(user('alice'), operator())).created).toBe(true)
    })

    withDatabase(
      'the cli gives up after 5 s as well, and not after fourteen times that',
      async (made) => {
        const cli = await openDatabase(made.file, { mode: 'cli', migrations: MIGRATIONS })
        const lock = holdLock(made.file)
        const start = performance.now()
        try {
          const error = await cli.database.users
            .create(user('alice'), operator())
            .catch((e: unknown) => e)
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
}
