/** Counts of limits whose windows are days and weeks. */
import { and, eq, sql } from 'drizzle-orm'
import type { CountersBook } from '../ports.ts'
import { p, text } from './fragments.ts'
import { prepare, type Handle } from './handle.ts'
import * as t from './schema.ts'

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
