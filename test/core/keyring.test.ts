/** How many adds are at work at a time (R53). */
import { afterEach, expect, test } from 'vitest'
import { openDatabase } from '../../adapters/databases/better-sqlite3.ts'
import { migrations } from '../../adapters/host/program.ts'
import { systemClock } from '../../adapters/system.ts'
import { createAccess, DEFAULT_RULES } from '../../src/core/access.ts'
import { createKeyring } from '../../src/core/keyring.ts'
import { isRegistryError } from '../../src/errors.ts'
import { makeKey } from '../fixtures/make-key.ts'

const after: (() => void)[] = []
afterEach(() => {
  for (const close of after.splice(0)) close()
})

test('two adds are at work, the others wait, and too many are told to come again', async () => {
  const { database, close } = await openDatabase(':memory:', {
    mode: 'server',
    migrations: migrations(),
  })
  after.push(close)
  let atWork = 0
  let most = 0
  // the database, slower, and watched
  const keys: typeof database.keys = {
    ...database.keys,
    async several(...args) {
      most = Math.max(most, (atWork += 1))
      await new Promise((resolve) => setTimeout(resolve, 20))
      atWork -= 1
      return database.keys.several(...args)
    },
  }
  const keyring = createKeyring({
    database: { ...database, keys },
    clock: systemClock,
    access: createAccess(DEFAULT_RULES),
    registryId: 'test',
    policy: { add: 'anyone', read: 'public' },
  })
  const { armor } = await makeKey('Many')
  const made = await Promise.all(Array.from({ length: 12 }, (_, i) => makeKey(`Key ${i}`)))
  const added = await Promise.all(made.map((key) => keyring.add(key.armor, null)))
  expect(added.flat()).toHaveLength(12)
  expect(most).toBe(2)
  const crowd = await Promise.allSettled(Array.from({ length: 60 }, () => keyring.add(armor, null)))
  const refused = crowd.filter((one) => one.status === 'rejected').map((one) => one.reason)
  expect(refused.length).toBeGreaterThanOrEqual(60 - 2 - 32)
  for (const reason of refused) {
    expect(isRegistryError(reason, 'rate_limited')).toBe(true)
    expect(reason.retryAfter).toBeGreaterThan(0)
  }
  expect(most).toBe(2)
})
