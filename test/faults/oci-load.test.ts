/**
 * 1,000 uploads at once of the same and of different blobs into one repository, while the registry
 * sweeps: no lost blob, no 5xx, one copy of equal content, and rows that fit it (R9, R21, R47).
 */
import { join } from 'node:path'
import BetterSqlite3 from 'better-sqlite3'
import { expect, test } from 'vitest'
import { pushAtOnce } from '../protocol/oci-load.ts'
import { nodeTarget } from '../runtimes/target.ts'

const UPLOADS = 1000

test('1,000 uploads at once: nothing lost, equal content once, rows that fit', async () => {
  const env = { SREG_SWEEP_INTERVAL: '5', SREG_SWEEP_GRACE: '0' }
  const target = await nodeTarget({ env })
  try {
    const { digests, same } = await pushAtOnce(target, { uploads: UPLOADS, atOnce: 200 })
    const sqlite = new BetterSqlite3(join(target.data, 'sreg.sqlite3'), { readonly: true })
    try {
      const rows = (query: string) => sqlite.prepare(query).all() as Record<string, unknown>[]
      const live = rows(`SELECT key, 'sha256:' || digest AS digest FROM blobs WHERE state = 'live'`)
      expect(live.map(({ digest }) => digest).toSorted()).toEqual(digests.toSorted())
      const members = rows('SELECT digest FROM repository_blobs').map(({ digest }) => digest)
      expect(members.toSorted()).toEqual(digests.toSorted())
      // one copy is read; the others go when the sweep comes to them, and none that is read
      const [kept] = live.filter(({ digest }) => digest === same)
      const stays = live.map(({ key }) => String(key))
      expect(kept).toBeDefined()
      const inStore = async () => (await target.store.names()).map((path) => path.split('/').at(-1))
      await expect
        .poll(async () => (await inStore()).toSorted(), { timeout: 20_000, interval: 500 })
        .toEqual(stays.toSorted())
      const [entity] = rows(`SELECT used FROM entities WHERE name = 'alice'`)
      expect(entity?.['used']).toBe(rows('SELECT sum(size) AS n FROM blobs')[0]?.['n'])
    } finally {
      sqlite.close()
    }
  } finally {
    await target.stop()
  }
}, 60_000)
