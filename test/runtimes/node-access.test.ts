/** Who gets which answer, on Node over TCP. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import Sqlite from 'better-sqlite3'
import { describeAccess } from '../protocol/access.ts'
import { nodeTarget } from './target.ts'

describeAccess('Node', async () => {
  const target = await nodeTarget()
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
})
