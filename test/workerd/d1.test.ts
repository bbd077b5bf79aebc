/** D1 inside workerd against the contract, and what only D1 can get wrong. */
import { env } from 'cloudflare:workers'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { memoryBlobs } from '../../adapters/blobs/memory.ts'
import { d1Database, type D1Binding } from '../../adapters/databases/d1.ts'
import { createSweep } from '../../src/core/sweep.ts'
import { describeDatabase } from '../contract/database.ts'
import { empty, make, migrate, MIGRATIONS, raw } from './database.ts'

/** Every statement the contract sent, with the number of its values. */
const sent = new Map<string, number>()
let queries = 0

/** The binding, listened to. */
const heard: D1Binding = {
  prepare(sql) {
    const statement = env.DB.prepare(sql)
    return {
      bind(...values) {
        sent.set(sql, values.length)
        return statement.bind(...values)
      },
    }
  },
  batch(statements) {
    queries += statements.length
    return env.DB.batch(statements as D1PreparedStatement[])
  },
}
type D1PreparedStatement = ReturnType<typeof env.DB.prepare>

describeDatabase('D1', { make: () => make(heard), worlds: 6 })

describe('the statements of all the books', () => {
  it('have no more values than the 100 that D1 takes', () => {
    expect(sent.size).toBeGreaterThan(100)
    for (const [sql, values] of sent) expect(values, sql).toBeLessThanOrEqual(100)
  })

  it('yield no two columns of one name, which would fall together in a batch', async () => {
    let several = 0
    for (const [sql, values] of sent) {
      if (!/^select/i.test(sql)) continue
      const nothing = Array.from({ length: values }, () => null)
      // a limit must be a number, and an expression of the full-text index must parse
      const bindable = sql.replaceAll(/limit likely\(\?\)/gi, 'limit coalesce(?, 0)')
      const statement = env.DB.prepare(bindable.replaceAll(/ match /gi, ' = ')).bind(...nothing)
      const [names] = await statement.raw({ columnNames: true })
      expect(new Set(names).size, sql).toBe(names.length)
      if (names.length > 1) several += 1
    }
    expect(several).toBeGreaterThan(20)
  })
})

describe('a sweep within the limits of a Worker', () => {
  it('is at most 50 queries in a run, whatever there is to do', async () => {
    await migrate()
    await raw(`INSERT INTO blobs (id, key, digest, size, state, created_at, dying_at)
      WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
      SELECT printf('%024x', i), printf('%024x', i), i, 1, 'live', 0, NULL FROM n`)
    await raw(`INSERT INTO uploads (id, user_id, token_id, blob_key, size, part_size, digest, state, created_at, expires_at)
      WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
      SELECT printf('%024x', i), 'u', 't', printf('f%023x', i), 1, 1, 'd', 'open', 0, 1 FROM n`)
    const blobs = memoryBlobs({ clock: { now: () => new Date(0) } })
    await blobs.writeId('registry')
    const runs = []
    for (let run = 0; run < 20; run++) {
      // the clock is the database's own: an interval passes when its last run is moved back
      await raw(
        `UPDATE settings SET value = json_set(value, '$.lastRun', (value ->> 'lastRun') - 900000)`,
      )
      await raw('UPDATE uploads SET closed_at = closed_at - 900000')
      await raw('UPDATE blobs SET dying_at = dying_at - 900000')
      const before = queries
      const report = await createSweep({
        database: d1Database(heard, { migrations: MIGRATIONS }),
        blobs,
        clock: { now: () => new Date(Number.NaN) },
        log: { event: () => undefined },
        registryId: 'registry',
        graceSeconds: 900,
        intervalSeconds: 900,
        budget: { pages: 4, aborts: 100, keys: 500, verdicts: 1, images: 1 },
        persistent: true,
      })()
      runs.push({ ...report, queries: queries - before })
    }
    const most = Math.max(...runs.map((run) => run.queries))
    expect(most).toBeGreaterThan(30)
    expect(most).toBeLessThanOrEqual(50)
    expect(runs[0]?.held).toMatch(/first run/)
    expect(runs.reduce((sum, { deleted }) => sum + deleted, 0)).toBe(5000)
    expect(runs.reduce((sum, { expired }) => sum + expired, 0)).toBe(2000)
    expect(await raw('SELECT * FROM uploads')).toEqual([])
    expect(await raw('SELECT * FROM blobs')).toEqual([])
    await empty()
  })
})

describe('a D1 that', () => {
  /** The database behind a D1 that fails with this message. */
  const failing = (message: string) =>
    d1Database({ ...heard, batch: () => Promise.reject(new Error(message)) }).settings.get('a')

  for (const message of [
    'D1_ERROR: D1 DB is overloaded. Requests queued for too long.',
    'D1_ERROR: D1 DB is overloaded. Too many requests queued.',
    'D1_ERROR: Network connection lost.',
    'D1_ERROR: D1 DB reset because its code was updated.',
    'D1_ERROR: Internal error in D1 DB storage caused object to be reset.',
    'D1_ERROR: Cannot resolve D1 DB due to transient issue on remote node.',
  ])
    it(`says "${message.slice(10, 60)}" is unavailable for the moment`, () =>
      expect(failing(message)).rejects.toMatchObject({
        code: 'unavailable',
        retryAfter: expect.any(Number),
      }))

  it('is full is not to be tried again', () =>
    expect(failing('D1_ERROR: Exceeded maximum DB size')).rejects.toMatchObject({
      code: 'insufficient_storage',
    }))

  it('fails otherwise is nothing we have a sentence for', () =>
    expect(failing('D1_ERROR: near "SELEC": syntax error')).rejects.toThrow(/syntax error/))
})

describe('migrations', () => {
  beforeAll(() => migrate())
  afterAll(empty)

  it('applied twice change nothing', async () => {
    const before = await raw('SELECT name, sql FROM sqlite_master ORDER BY name')
    await migrate()
    expect(await raw('SELECT name, sql FROM sqlite_master ORDER BY name')).toEqual(before)
  })

  it('that are missing are named, with what to do; once applied all is well', async () => {
    const newer = [...MIGRATIONS, '9001_newer.sql']
    const database = d1Database(heard, { migrations: newer })
    const ask = () => database.settings.get('a')
    for (let time = 0; time < 2; time++)
      await expect(ask()).rejects.toMatchObject({
        code: 'unavailable',
        message: expect.stringMatching(/9001_newer\.sql.*wrangler d1 migrations apply/),
      })
    await migrate([...env.MIGRATIONS, { name: '9001_newer.sql', queries: ['SELECT 1'] }])
    expect(await ask()).toBeNull()
    // looked at once: the next call is its own statement and nothing else
    const before = queries
    await ask()
    expect(queries - before).toBe(1)
    // and the older program refuses it
    await expect(
      d1Database(heard, { migrations: MIGRATIONS }).settings.get('a'),
    ).rejects.toMatchObject({ message: expect.stringMatching(/newer version.*9001_newer\.sql/) })
    await raw("DELETE FROM d1_migrations WHERE name = '9001_newer.sql'")
  })

  it('of which there is no trace at all are missing', async () => {
    await raw('ALTER TABLE d1_migrations RENAME TO gone')
    await expect(
      d1Database(heard, { migrations: MIGRATIONS }).settings.get('a'),
    ).rejects.toMatchObject({ message: expect.stringMatching(/lacks 0001_init\.sql/) })
    await raw('ALTER TABLE gone RENAME TO d1_migrations')
  })
})
