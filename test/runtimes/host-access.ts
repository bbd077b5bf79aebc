/** What the access suite needs beyond a target, where the state is a data folder. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import Sqlite from 'better-sqlite3'
import type { AccessTarget } from '../protocol/access.ts'
import type { Target } from './target.ts'

/** The target with its database and its signing key open to the test. */
export function accessTarget(target: Target): AccessTarget {
  return {
    ...target,
    execute(sql, ...values) {
      const database = new Sqlite(join(target.data, 'sreg.sqlite3'))
      try {
        database.prepare(sql).run(...values)
      } finally {
        database.close()
      }
    },
    signingKey: async () =>
      JSON.parse(await readFile(join(target.data, 'signing-keys.json'), 'utf8')).current,
  }
}
