/** Migrations on D1: from every earlier version, and twice. */
import { reset } from 'cloudflare:test'
import { env } from 'cloudflare:workers'
import { expect, it } from 'vitest'
import { d1Database } from '../../adapters/databases/d1.ts'
import { migrate, MIGRATIONS, raw } from './database.ts'

const schema = () =>
  raw(
    "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE '\\_cf%' ESCAPE '\\' ORDER BY name",
  )

it('end in the same schema from every earlier version', async () => {
  await migrate()
  const fresh = await schema()
  expect(fresh.length).toBeGreaterThan(20)
  for (let count = 0; count <= MIGRATIONS.length; count++) {
    await reset()
    expect(await schema()).toEqual([])
    for (const names of [env.MIGRATIONS.slice(0, count), env.MIGRATIONS, env.MIGRATIONS])
      await migrate(names)
    expect(await schema()).toEqual(fresh)
    expect(await d1Database(env.DB, { migrations: MIGRATIONS }).users.list()).toEqual([])
  }
})
