/** Stars, and pulls by week. */
import { and, asc, eq, sql, type SQL } from 'drizzle-orm'
import { RegistryError } from '../errors.ts'
import type { PopularityBook } from '../ports.ts'
import { guarded } from './failure.ts'
import {
  audited,
  dropGuard,
  inContainer,
  mayWrite,
  p,
  standingQuery,
  text,
  viewerValues,
  visibleContainer,
  writerValues,
} from './fragments.ts'
import { prepare, type Handle } from './handle.ts'
import { named, toStanding } from './rows.ts'
import * as t from './schema.ts'

const LIST_LIMIT = 1000

export function sqlitePopularity(handle: Handle): PopularityBook {
  const { db } = handle
  const containerId = p('containerId')
  const isPublic = sql`coalesce((select pc.private = 0 and pn.private = 0 from containers pn join collections pc on pc.id = pn.collection_id where pn.id = ${containerId}), 0)`
  const isStarred = sql`exists (select 1 from stars where container_id = ${containerId} and user_id = ${p('writerId')})`
  const note = (action: string, when: SQL) =>
    audited(db, {
      action,
      object: sql`'container ' || ${containerId}`,
      name: sql`(select e.name || '/' || c.name || '/' || n.name from containers n join collections c on c.id = n.collection_id join entities e on e.id = c.entity_id where n.id = ${containerId})`,
      when,
    })
  const q = {
    standing: standingQuery(db),
    weeks: prepare(() =>
      db
        .select({ week: t.counters.period, count: t.counters.count })
        .from(t.counters)
        .where(
          sql`${t.counters.name} = 'pulls:' || ${containerId} and ${t.counters.period} >= ${p('since')}`,
        )
        .orderBy(asc(t.counters.period)),
    ),
    forgetWeeks: prepare(() =>
      db.delete(t.counters).where(
        // by the index of periods: the plus keeps the names of all containers from being walked through
        sql`${t.counters.period} < ${p('before')} and +${t.counters.name} between 'pulls:' and 'pulls;'`,
      ),
    ),
    guard: prepare(() =>
      db.insert(t.guard).values({
        // whoever may see it, with a token that reaches it
        mayWrite: sql`${mayWrite(inContainer, 0)} and (${isPublic} or ${mayWrite(inContainer, 1)})`,
        found: sql`exists (select 1 from containers where id = ${containerId})`,
      }),
    ),
    star: prepare(() =>
      db
        .insert(t.stars)
        .values({ containerId, userId: p('writerId'), createdAt: p('now') })
        .onConflictDoNothing(),
    ),
    unstar: prepare(() =>
      db
        .delete(t.stars)
        .where(
          and(eq(t.stars.containerId, text('containerId')), eq(t.stars.userId, text('writerId'))),
        ),
    ),
    starNoted: note('star.add', sql`not ${isStarred}`),
    unstarNoted: note('star.remove', isStarred),
    dropGuard: dropGuard(db),
    starred: prepare(() =>
      db
        .select(
          named({
            entity: t.entities.name,
            collection: t.collections.name,
            container: t.containers.name,
            stars: t.containers.stars,
            starredAt: t.stars.createdAt,
          }),
        )
        .from(t.stars)
        .innerJoin(t.containers, eq(t.containers.id, t.stars.containerId))
        .innerJoin(t.collections, eq(t.collections.id, t.containers.collectionId))
        .innerJoin(t.entities, eq(t.entities.id, t.collections.entityId))
        .where(and(eq(t.stars.userId, text('viewerId')), visibleContainer))
        .orderBy(t.entities.name, t.collections.name, t.containers.name)
        .limit(LIST_LIMIT),
    ),
  }
  return {
    async weeks(id, since) {
      const [rows] = await handle.read(q.weeks({ containerId: id, since: since.getTime() }))
      return rows.map(({ week, count }) => ({ week: new Date(week), count }))
    },
    async forgetWeeks(before) {
      await handle.write(q.forgetWeeks({ before: before.getTime() }))
    },
    async setStar({ containerId: id, given, by }) {
      const values = { ...writerValues(by), containerId: id }
      const steps = given
        ? [q.starNoted(values), q.star(values)]
        : [q.unstarNoted(values), q.unstar(values)]
      await guarded(handle.write(q.guard(values), ...steps, q.dropGuard()), {
        may_write: () =>
          new RegistryError('denied', 'Your token does not reach this container any more.', {
            subject: 'container',
          }),
        found: () =>
          new RegistryError('not_found', 'That container does not exist.', {
            subject: 'container',
          }),
      })
    },
    async starred(viewer, now) {
      const values = viewerValues(viewer, now)
      const [standing, rows] = await handle.read(q.standing(values), q.starred(values))
      return {
        standing: toStanding(standing[0]),
        value: rows.map((row) => ({ ...row, starredAt: new Date(row.starredAt) })),
      }
    },
  }
}
