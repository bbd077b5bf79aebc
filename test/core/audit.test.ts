/** What strangers and time can do to the audit log: little, and what was configured (R57). */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { memoryBlobs } from '../../adapters/blobs/memory.ts'
import { openDatabase, type OpenDatabase } from '../../adapters/databases/better-sqlite3.ts'
import { migrations } from '../../adapters/node/main.ts'
import { consoleLog } from '../../adapters/system.ts'
import { createSweep } from '../../src/core/sweep.ts'
import { createTallies } from '../../src/core/tallies.ts'
import { ACTIONS, ALL } from '../contract/audit.ts'
import { operator } from '../fixtures/operator.ts'

const START = Date.UTC(2030, 0, 1)
const DAY_MS = 86_400_000

let folder: string
let opened: OpenDatabase
let time: number
let writes: number
const clock = { now: () => new Date(time) }

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sreg-audit-'))
  time = START
  writes = 0
  opened = await openDatabase(join(folder, 'db'), {
    mode: 'server',
    migrations: migrations(),
    onTrip: (kind) => (writes += kind === 'write' ? 1 : 0),
  })
})
afterEach(async () => {
  opened.close()
  await rm(folder, { recursive: true })
})

const stranger = { actorId: '', tokenId: '', address: '192.0.2.1', detail: 'no' }
const entries = async () =>
  (await opened.database.audit.list(ALL, { after: null, limit: 1000 })).entries

test('10,000 refusals of a stranger are one row a minute, and few writes', async () => {
  const tallies = createTallies({ database: opened.database, clock })
  for (let n = 0; n < 10_000; n++) {
    time = START + n * 11
    await tallies.denied({ ...stranger, action: `GET /v1/${n}` })
  }
  await tallies.flush()
  expect(await entries()).toMatchObject([
    { action: 'request', detail: 'GET /v1/5455', count: 4545, at: new Date(START + 60_000) },
    { action: 'request', detail: 'GET /v1/0', count: 5455, at: new Date(START) },
  ])
  expect(writes).toBeLessThan(60)
})

test('beyond 1,000 addresses in a minute they fall together, and others stay told apart', async () => {
  const tallies = createTallies({ database: opened.database, clock, everyMs: 100_000 })
  const deny = (change: Partial<typeof stranger> = {}, action = 'PUT /v1/x') =>
    tallies.denied({ ...stranger, ...change, action })
  for (let n = 0; n < 3000; n++) void deny({ address: `2001:db8::${n}` })
  await tallies.flush()
  // in the same minute, after they were written
  for (let n = 0; n < 3000; n++) void deny({ address: `2001:db8:1::${n}` })
  void deny({ address: '2001:db8::5' })
  void deny({ actorId: 'u'.repeat(24), address: '2001:db8:9::1' }, 'PUT /v1/grants')
  await tallies.flush()
  const { entries: one, next } = await opened.database.audit.list(
    { ...ALL, outcome: 'denied' },
    { after: null, limit: 1000 },
  )
  const { entries: two } = await opened.database.audit.list(ALL, { after: next, limit: 1000 })
  const rows = [...one, ...two]
  expect(rows).toHaveLength(1002)
  const of = (address: string) => rows.filter((row) => row.address === address)
  expect(of('many')).toMatchObject([{ count: 5000, actorId: '' }])
  expect(of('2001:db8::5')).toMatchObject([{ count: 2 }])
  expect(of('2001:db8:9::1')).toMatchObject([{ action: 'PUT /v1/grants', detail: 'no' }])
  // the next minute begins anew
  time += 60_000
  void deny({ address: '2001:db8:1::1' })
  await tallies.flush()
  expect((await entries())[0]).toMatchObject({ address: '2001:db8:1::1', count: 1 })
})

test('a user who is refused everywhere is told apart in 1,000 ways a minute', async () => {
  const tallies = createTallies({ database: opened.database, clock, everyMs: 100_000 })
  const hers = { ...stranger, actorId: 'a'.repeat(24) }
  for (let n = 0; n < 1500; n++) void tallies.denied({ ...hers, action: `PUT /v1/${n}` })
  await tallies.flush()
  const page = await opened.database.audit.list(
    { ...ALL, action: 'request' },
    { after: null, limit: 10 },
  )
  expect(page.entries).toMatchObject([{ actorId: hers.actorId, address: 'many', count: 500 }])
})

test('the sweep forgets by age and number, and only that', async () => {
  const { database } = opened
  const blobs = memoryBlobs({ clock })
  await blobs.writeId('registry')
  for (let day = 0; day < 10; day++)
    await database.exports.begin(`e${day}`, operator(new Date(START + day * DAY_MS)))
  time = START + 10 * DAY_MS
  const sweepWith = (audit?: { days: number; rows: number }) =>
    createSweep({
      database,
      blobs,
      clock,
      log: consoleLog({ form: 'off' }),
      registryId: 'registry',
      graceSeconds: 3600,
      intervalSeconds: 900,
      ...(audit === undefined ? {} : { audit }),
    })
  const left = async () => (await entries()).map(({ object }) => object.slice('export e'.length))
  await sweepWith()({ now: true })
  expect(await left()).toHaveLength(10)
  await sweepWith({ days: 8, rows: 1000 })({ now: true })
  expect(await left()).toEqual(['9', '8', '7', '6', '5', '4', '3', '2'])
  await sweepWith({ days: 365, rows: 3 })({ now: true })
  expect(await left()).toEqual(['9', '8', '7'])
  // a first run after a start only marks (R43)
  await sweepWith({ days: 1, rows: 1 })()
  expect(await left()).toHaveLength(3)
})

test('docs/audit.md has every action', async () => {
  const text = await readFile(new URL('../../docs/audit.md', import.meta.url), 'utf8')
  expect(ACTIONS.length).toBeGreaterThan(30)
  for (const action of ACTIONS) expect(text).toContain(`\`${action}\``)
})
