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

/** It has as many bytes of that digest: who only says so has no more of them for nothing than it has. */
const heldBy = (entity: SQL, digest: SQL, size: SQL) =>
  sql`exists (select 1 from holdings qh where qh.entity_id = ${entity} and qh.digest = ${digest} and qh.size >= ${size})`

/**
 * Bytes on their way to an entity, by the library and by OCI: what it will take when they have arrived,
 * equal content once. Of a digest that it has already in that size, or that is `but`, nothing is reserved, nor by the
 * OCI upload `own`; one whose digest nobody has said yet stands for itself. The joins are crossed so that
 * they begin with the few uploads that run, and not with all images of the entity.
 */
const reserved = (entity: SQL, but: SQL = sql`''`, own: SQL = sql`''`): SQL =>
  sql`coalesce((select sum(size) from (select max(x.size) as size from (select uploads.digest as digest, uploads.size as size from uploads cross join images ri on ri.id = uploads.image_id cross join containers rn on rn.id = ri.container_id cross join collections rc on rc.id = rn.collection_id where uploads.state in ('open', 'finishing') and rc.entity_id = ${entity} union all select coalesce(substr(ou.digest, 8), ou.id) as digest, ou.reserved as size from oci_uploads ou cross join containers rn on rn.id = ou.container_id cross join collections rc on rc.id = rn.collection_id where ou.state = 'open' and ou.id <> ${own} and rc.entity_id = ${entity}) x where x.digest <> ${but} and not ${heldBy(entity, sql`x.digest`, sql`x.size`)} group by x.digest) x), 0)`

/** Bytes for an entity, as SQL over the values of the statement; `own` is the OCI upload that they come by. */
export type Coming = { entity: SQL; digest: SQL; size: SQL; own?: SQL }

const ofImageUpload: Coming = {
  entity: entityOfImage,
  digest: p('digest').getSQL(),
  size: p('size').getSQL(),
}

const fits = ({ entity, digest, size }: Coming, onTheWay: SQL): SQL =>
  sql`coalesce((select ${allowed} = 0 or ${heldBy(sql`qe.id`, digest, size)} or qe.used + ${onTheWay} + ${size} <= ${allowed} from entities qe where qe.id = ${entity}), 1)`

const beside = ({ entity, digest, own }: Coming): SQL =>
  reserved(entity, sql`coalesce(${digest}, '')`, own)

/** Condition of a guard (R50): these bytes fit beside what their entity has and what is on its way to it. */
export const fitsBeside = (coming: Coming): SQL => fits(coming, beside(coming))

/** The same for bytes that have had their place reserved. */
export const fitsNow = (coming: Coming): SQL => fits(coming, sql`0`)

export const withinQuota: SQL = fitsBeside(ofImageUpload)
export const withinQuotaNow: SQL = fitsNow(ofImageUpload)

/** Bytes that were announced for the disk and have not come (R50); those of the OCI upload `own` aside. */
export const announced = (own: SQL = sql`''`): SQL =>
  sql`coalesce((select sum(size) from uploads where state in ('open', 'finishing')), 0) + coalesce((select sum(reserved - received) from oci_uploads where state = 'open' and id <> ${own}), 0)`

/**
 * Why bytes were refused, with figures of that entity alone (R29): those of now, for the guard that
 * failed can tell none. SQLite looks at later columns of the guard first, so it may be that the writer
 * had lost the right to write as well (`may`): then the figures are none of theirs.
 */
export function overQuota(
  handle: Handle,
  coming: Coming = ofImageUpload,
  { what = 'image', may = mayWrite(ofImage, 2) }: { what?: string; may?: SQL } = {},
) {
  const figures = prepare(() =>
    handle.db
      .select({
        name: sql<string>`qe.name`.as('name'),
        used: sql<number>`qe.used`.as('used'),
        size: sql<number>`${coming.size}`.as('size'),
        reserved: sql<number>`${beside(coming)}`.as('reserved'),
        allowed: sql<number>`${allowed}`.as('allowed'),
        mayWrite: sql<number>`${may}`.as('mayWrite'),
      })
      .from(sql`entities qe`)
      .where(sql`qe.id = ${coming.entity}`),
  )
  return async (values: Record<string, unknown>): Promise<RegistryError> => {
    const [rows] = await handle.read(figures(values))
    const {
      name = '',
      used = 0,
      size = 0,
      reserved: onItsWay = 0,
      allowed: most = 0,
      mayWrite: stands,
    } = rows[0] ?? {}
    if (stands === 0)
      return new RegistryError(
        'denied',
        'You may not write here: the token or the right to write has ended.',
      )
    const onTheWay = onItsWay === 0 ? '' : `, with ${inUnits(onItsWay)} more on their way`
    return new RegistryError(
      'quota_exceeded',
      `There is no room for this ${what} of ${inUnits(size)}: ${name} uses ${inUnits(used)} of the ${inUnits(most)} it may use${onTheWay}. Delete images that are not needed, or ask an administrator for a larger quota.`,
      { subject: 'upload', detail: { used, reserved: onItsWay, allowed: most } },
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
  const usages = (of: SQL) =>
    prepare(() =>
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
        .where(sql`${of} and ${t.entities.name} > ${text('after')}`)
        .orderBy(asc(t.entities.name))
        .limit(p('limit')),
    )
  const q = {
    all: usages(sql`1`),
    ofEntity: usages(sql`${t.entities.id} = ${text('entityId')}`),
    ofOwner: usages(sql`${t.entities.ownerId} = ${text('ownerId')}`),
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
      const chosen = of === 'all' ? q.all : 'entityId' in of ? q.ofEntity : q.ofOwner
      const [rows] = await handle.read(chosen({ ...(of === 'all' ? {} : of), after, limit }))
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
