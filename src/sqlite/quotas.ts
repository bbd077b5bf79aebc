/** Bytes that an entity may take: the condition of uploads and attachments, and what people are shown. */
import { asc, sql, type SQL } from 'drizzle-orm'
import { RegistryError } from '../errors.ts'
import type { QuotasBook } from '../ports.ts'
import { guarded } from './failure.ts'
import {
  audited,
  dropGuard,
  mayWrite,
  ofImage,
  p,
  text,
  writerStands,
  writerValues,
} from './fragments.ts'
import { prepare, type Handle } from './handle.ts'
import { named } from './rows.ts'
import * as t from './schema.ts'

/** The entity of the image that gets bytes. */
const entityOfImage = sql`(select qc.entity_id from images qi join containers qn on qn.id = qi.container_id join collections qc on qc.id = qn.collection_id where qi.id = ${p('imageId')})`

/** Bytes that the entity `qe` may take, 0 for no limit. */
const allowed = sql`coalesce(qe.quota, ${p('defaultQuota')}, 0)`

const heldBy = (entity: SQL, digest: SQL) =>
  sql`exists (select 1 from holdings qh where qh.entity_id = ${entity} and qh.digest = ${digest})`

/**
 * Bytes on their way to an entity: what it will take when they have arrived, equal content once. Of a
 * digest that it has already, or that is `but`, nothing is reserved. The joins are crossed so that they
 * begin with the few uploads that run, and not with all images of the entity.
 */
const reserved = (entity: SQL, but: SQL = sql`''`): SQL =>
  sql`coalesce((select sum(size) from (select max(uploads.size) as size from uploads cross join images ri on ri.id = uploads.image_id cross join containers rn on rn.id = ri.container_id cross join collections rc on rc.id = rn.collection_id where uploads.state in ('open', 'finishing') and rc.entity_id = ${entity} and uploads.digest <> ${but} and not ${heldBy(entity, sql`uploads.digest`)} group by uploads.digest) x), 0)`

const fits = (onTheWay: SQL): SQL =>
  sql`coalesce((select ${allowed} = 0 or ${heldBy(sql`qe.id`, p('digest').getSQL())} or qe.used + ${onTheWay} + ${p('size')} <= ${allowed} from entities qe where qe.id = ${entityOfImage}), 1)`

/**
 * Condition of a guard (R50): `size` bytes of `digest` fit beside what the entity of `imageId` has and
 * what is on its way to it.
 */
export const withinQuota: SQL = fits(reserved(entityOfImage, p('digest').getSQL()))

/** The same for bytes that have had their place reserved. */
export const withinQuotaNow: SQL = fits(sql`0`)

/**
 * Why bytes were refused, with figures of that entity alone (R29): those of now, for the guard that
 * failed can tell none. SQLite looks at later columns of the guard first, so it may be that the writer
 * had lost the right to write as well: then the figures are none of theirs.
 */
export function overQuota(handle: Handle) {
  const figures = prepare(() =>
    handle.db
      .select({
        name: sql<string>`qe.name`.as('name'),
        used: sql<number>`qe.used`.as('used'),
        reserved: sql<number>`${reserved(entityOfImage, p('digest').getSQL())}`.as('reserved'),
        allowed: sql<number>`${allowed}`.as('allowed'),
        mayWrite: sql<number>`${mayWrite(ofImage, 2)}`.as('mayWrite'),
      })
      .from(sql`entities qe`)
      .where(sql`qe.id = ${entityOfImage}`),
  )
  return async (values: Record<string, unknown>): Promise<RegistryError> => {
    const [rows] = await handle.read(figures(values))
    const {
      name = '',
      used = 0,
      reserved: coming = 0,
      allowed: most = 0,
      mayWrite: may,
    } = rows[0] ?? {}
    if (may === 0)
      return new RegistryError(
        'denied',
        'You may not write here: the token or the right to write has ended.',
      )
    const onTheWay = coming === 0 ? '' : `, with ${inUnits(coming)} more on their way`
    return new RegistryError(
      'quota_exceeded',
      `There is no room for this image of ${inUnits(Number(values['size']))}: ${name} uses ${inUnits(used)} of the ${inUnits(most)} it may use${onTheWay}. Delete images that are not needed, or ask an administrator for a larger quota.`,
      { subject: 'upload', detail: { used, reserved: coming, allowed: most } },
    )
  }
}

/** 1.5 GiB (1610612736 bytes). */
function inUnits(bytes: number): string {
  const units = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB']
  let [at, shown] = [-1, bytes]
  for (; shown >= 1024 && at < units.length - 1; at += 1) shown /= 1024
  return at < 0 ? `${bytes} bytes` : `${shown.toFixed(1)} ${units[at]} (${bytes} bytes)`
}

export function sqliteQuotas(handle: Handle): QuotasBook {
  const { db } = handle
  const id = t.entities.id.getSQL()
  const within = (from: SQL) =>
    sql<number>`(select count(*) from ${from} where cc.entity_id = ${id})`
  const q = {
    usages: prepare(() =>
      db
        .select(
          named({
            entity: t.entities.name,
            used: t.entities.used,
            quota: t.entities.quota,
            reserved: sql<number>`${reserved(id)}`,
            collections: within(sql`collections cc`),
            containers: within(sql`containers cn join collections cc on cc.id = cn.collection_id`),
            images: within(
              sql`images ci join containers cn on cn.id = ci.container_id and ci.blob_id is not null join collections cc on cc.id = cn.collection_id`,
            ),
          }),
        )
        .from(t.entities)
        .where(
          sql`(${p('all')} = 1 or ${t.entities.id} = ${p('entityId')} or ${t.entities.ownerId} = ${p('ownerId')}) and ${t.entities.name} > ${p('after')}`,
        )
        .orderBy(asc(t.entities.name))
        .limit(p('limit')),
    ),
    guard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: writerStands(
          sql`${p('writerAdmin')} = 1 and wu.role = 'admin' and wt.collection_id = ''`,
        ),
        found: sql`exists (select 1 from entities where id = ${p('entityId')})`,
      }),
    ),
    set: prepare(() =>
      db
        .update(t.entities)
        .set({ quota: sql`${p('quota')}` })
        .where(sql`${t.entities.id} = ${text('entityId')}`),
    ),
    audit: audited(db, {
      action: 'quota.set',
      object: sql`'entity ' || ${p('entityId')}`,
      name: sql`(select name from entities where id = ${p('entityId')})`,
      detail: sql`case when ${p('quota')} is null then 'default' when ${p('quota')} = 0 then 'none' else cast(${p('quota')} as integer) || ' bytes' end`,
    }),
    dropGuard: dropGuard(db),
  }
  return {
    async usages(of, after, limit) {
      const values = {
        all: of === 'all' ? 1 : 0,
        entityId: '',
        ownerId: '',
        ...(of === 'all' ? {} : of),
      }
      const [rows] = await handle.read(q.usages({ ...values, after, limit }))
      return rows
    },
    async setQuota({ entityId, quota, by }) {
      const values = { ...writerValues(by), entityId, quota }
      await guarded(
        handle.write(q.guard(values), q.set(values), q.audit(values), q.dropGuard(values)),
        {
          may_write: () =>
            new RegistryError('denied', 'Your right to set quotas has ended.', {
              subject: 'entity',
            }),
          found: () =>
            new RegistryError('not_found', 'That entity does not exist.', { subject: 'entity' }),
        },
      )
    },
  }
}
