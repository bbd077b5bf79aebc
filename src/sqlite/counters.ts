/** Counts of limits whose windows are days and weeks. */
import { and, eq, sql, type SQL } from 'drizzle-orm'
import type { CountersBook, PullCount } from '../ports.ts'
import { p, text } from './fragments.ts'
import { prepare, type Handle } from './handle.ts'
import * as t from './schema.ts'

/** GETs of one asker within this time are one pull, where `pullCounter` is told who asks. */
const ONE_PULL_MS = 60_000

/**
 * Statements of a batch that count a pull by the limits of a week: `full` says which of them are
 * reached, `count` counts unless one is. `place` selects ids as `container` and `collection`, of one
 * row or none; `asker`: what they have pulled there a minute ago or later is neither counted nor refused
 * again. Values: `week`, `perContainer`, `perCollection`, `counts`, and with `asker` also `now`.
 */
export function pullCounter(db: Handle['db'], place: SQL, asker: SQL | null = null) {
  const again = (container: SQL) => sql`'limit.pull.' || ${container} || '.' || ${asker ?? sql`''`}`
  const from =
    asker === null
      ? place
      : sql`select x.container, x.collection from (${place}) x where not exists (select 1 from counters k where k.name = ${again(sql`x.container`)} and k.period = ${p('week')} and k.count > ${p('now')} - ${sql.raw(String(ONE_PULL_MS))})`
  // named once each: D1 takes no more than 100 values in a statement
  const due = sql`with place as (${from}), due as (select 'limit.week.container.' || container as name, ${p('perContainer')} as most from place union all select 'limit.week.collection.' || collection as name, ${p('perCollection')} as most from place), spent as (select due.name as name, k.count as count from due join counters k on k.name = due.name and k.period = ${p('week')} where due.most > 0 and k.count >= due.most)`
  const counted = sql`select name, ${p('week')} as period, 1 as count from due where most > 0 and ${p('counts')} = 1 and not exists (select 1 from spent)`
  // a time in the place of a count: when they pulled
  const noted = sql`union all select ${again(sql`container`)} as name, ${p('week')} as period, ${p('now')} as count from place where ${p('counts')} = 1 and not exists (select 1 from spent)`
  return {
    full: prepare(() =>
      db
        .select({ name: sql<string>`name`.as('name'), count: sql<number>`count`.as('count') })
        .from(sql`(${due} select name, count from spent)`),
    ),
    count: prepare(() =>
      db
        .insert(t.counters)
        .select(sql`${due} ${counted} ${asker === null ? sql`` : noted}`)
        .onConflictDoUpdate({
          target: [t.counters.name, t.counters.period],
          set: {
            count: sql`case when ${t.counters.name} like 'limit.pull.%' then excluded.count else ${t.counters.count} + 1 end`,
          },
        })
        .returning({ name: t.counters.name, count: t.counters.count }),
    ),
  }
}

type Counted = { name: string; count: number }

/** What `pullCounter` said: where the limits stand. */
export function pullCounts(full: readonly Counted[], counts: readonly Counted[]): PullCount[] {
  const limits = { 'limit.week.container.': 'container', 'limit.week.collection.': 'collection' }
  return [
    ...full.map((row) => ({ ...row, full: true })),
    ...counts.map((row) => ({ ...row, full: false })),
  ].flatMap(({ name, ...row }) => {
    const found = Object.entries(limits).find(([prefix]) => name.startsWith(prefix))
    return found === undefined ? [] : [{ of: found[1] as PullCount['of'], ...row }]
  })
}

export function sqliteCounters(handle: Handle): CountersBook {
  const { db } = handle
  const q = {
    read: prepare(() =>
      db
        .select({ count: t.counters.count })
        .from(t.counters)
        .where(and(eq(t.counters.name, text('name')), sql`${t.counters.period} = ${p('period')}`)),
    ),
    /** `counts` is a JSON array of [name, period, count]. */
    add: prepare(() =>
      db
        .insert(t.counters)
        .select(
          sql`select x.value ->> 0 as name, x.value ->> 1 as period, x.value ->> 2 as count from json_each(${p('counts')}) x where true`,
        )
        .onConflictDoUpdate({
          target: [t.counters.name, t.counters.period],
          set: { count: sql`${t.counters.count} + excluded.count` },
        })
        .returning({
          name: t.counters.name,
          period: t.counters.period,
          count: t.counters.count,
        }),
    ),
    // other counters are statistics, which nobody asked to forget
    prune: prepare(() =>
      db
        .delete(t.counters)
        .where(sql`period < ${p('before')} and name >= 'limit.' and name < 'limit/'`),
    ),
  }
  return {
    async read(name, period) {
      const [rows] = await handle.read(q.read({ name, period: period.getTime() }))
      return rows[0]?.count ?? 0
    },
    async add(counts) {
      if (counts.length === 0) return []
      const list = counts.map(({ name, period, count }) => [name, period.getTime(), count])
      const [rows] = await handle.write(q.add({ counts: JSON.stringify(list) }))
      return rows.map(({ period, ...row }) => ({ ...row, period: new Date(period) }))
    },
    async prune(before) {
      await handle.write(q.prune({ before: before.getTime() }))
    },
  }
}
