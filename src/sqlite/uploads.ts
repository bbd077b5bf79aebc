/** Uploads (bytes on their way) and blobs (bytes that arrived), with the states they move through. */
import { and, eq, gt, sql } from 'drizzle-orm'
import { RegistryError } from '../errors.ts'
import type { BlobsBook, UploadsBook } from '../ports.ts'
import { guarded } from './failure.ts'
import {
  dropGuard,
  isLive,
  mayWrite,
  ofImage,
  p,
  text,
  standingQuery,
  viewerValues,
  writerValues,
} from './fragments.ts'
import { prepare, type Handle } from './handle.ts'
import { announced, overQuota, withinQuota } from './quotas.ts'
import { toStanding, toUpload } from './rows.ts'
import * as t from './schema.ts'

export function sqliteUploads(handle: Handle): UploadsBook {
  const { db } = handle
  const beyondQuota = overQuota(handle)
  const q = {
    standing: standingQuery(db),
    find: prepare(() =>
      db
        .select()
        .from(t.uploads)
        .where(eq(t.uploads.id, text('id'))),
    ),
    forImage: prepare(() =>
      db
        .select()
        .from(t.uploads)
        .where(
          and(
            eq(t.uploads.imageId, text('imageId')),
            eq(t.uploads.userId, text('viewerId')),
            sql`${t.uploads.state} in ('open', 'finishing', 'done')`,
          ),
        )
        // one that is done says all there is to know; many equal pushes may run at once (R20)
        .orderBy(sql`${t.uploads.state} = 'done' desc, ${t.uploads.createdAt} desc`)
        .limit(128),
    ),
    guard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayWrite(ofImage, 2),
        found: sql`exists (select 1 from images where id = ${p('imageId')})`,
        fewUploads: sql`(select count(*) from uploads where state in ('open', 'finishing') and user_id = ${p('userId')}) + (select count(*) from oci_uploads where state = 'open' and user_id = ${p('userId')}) < ${p('perUser')}`,
        spaceLeft: sql`${announced()} + ${p('size')} <= ${p('free')}`,
        withinQuota,
      }),
    ),
    insert: prepare(() =>
      db.insert(t.uploads).values({
        id: p('id'),
        imageId: p('imageId'),
        userId: p('userId'),
        tokenId: p('tokenId'),
        blobKey: p('blobKey'),
        size: p('size'),
        partSize: p('partSize'),
        digest: p('digest'),
        state: 'open',
        createdAt: p('createdAt'),
        expiresAt: p('expiresAt'),
      }),
    ),
    dropGuard: dropGuard(db),
    setHandle: prepare(() =>
      db
        .update(t.uploads)
        .set({ handle: sql`${p('handle')}` })
        .where(eq(t.uploads.id, text('id'))),
    ),
    claim: prepare(() =>
      db
        .update(t.uploads)
        .set({
          state: 'finishing',
          claim: sql`${p('claim')}`,
          leaseUntil: sql`${p('leaseUntil')}`,
        })
        .where(
          sql`id = ${p('id')} and (state = 'open' or (state = 'finishing' and lease_until < ${p('now')}))`,
        )
        .returning({ id: t.uploads.id }),
    ),
    renew: prepare(() =>
      db
        .update(t.uploads)
        .set({ leaseUntil: sql`${p('leaseUntil')}` })
        .where(sql`id = ${p('id')} and state = 'finishing' and claim = ${p('claim')}`)
        .returning({ id: t.uploads.id }),
    ),
    close: prepare(() =>
      db
        .update(t.uploads)
        .set({
          state: sql`${p('to')}`,
          leaseUntil: null,
          closedAt: sql`case when ${p('to')} = 'open' then null else ${p('now')} end`,
        })
        .where(
          sql`id = ${p('id')} and state = ${p('from')} and (${p('claim')} is null or claim = ${p('claim')})`,
        )
        .returning({ id: t.uploads.id }),
    ),
    expire: prepare(() =>
      db
        .update(t.uploads)
        .set({ state: 'expired', leaseUntil: null, closedAt: sql`${p('now')}` })
        .where(
          sql`id in (select id from uploads where state in ('open', 'finishing') and (image_id is null or expires_at < ${p('now')}) and (lease_until is null or lease_until < ${p('now')}) order by expires_at limit ${p('limit')})`,
        )
        .returning({ id: t.uploads.id }),
    ),
    closed: prepare(() =>
      db
        .select({
          id: t.uploads.id,
          blobKey: t.uploads.blobKey,
          handle: t.uploads.handle,
          kept: sql<number>`exists (select 1 from blobs where key = blob_key)`,
        })
        .from(t.uploads)
        .where(sql`closed_at < ${p('before')}`)
        .limit(p('limit')),
    ),
    forget: prepare(() =>
      db.delete(t.uploads).where(sql`id in (select value from json_each(${p('ids')}))`),
    ),
  }

  return {
    async open(upload, writer, limits) {
      const values = {
        ...writerValues(writer),
        ...upload,
        createdAt: upload.createdAt.getTime(),
        expiresAt: upload.expiresAt.getTime(),
        perUser: limits.perUser,
        // no store can say how much is left: any sum is below this
        free: limits.free ?? Number.MAX_SAFE_INTEGER,
        defaultQuota: limits.defaultQuota ?? null,
      }
      await guarded(handle.write(q.guard(values), q.insert(values), q.dropGuard()), {
        may_write: () =>
          new RegistryError(
            'denied',
            'You may not write here: the token or the right to write has ended.',
          ),
        found: () =>
          new RegistryError('not_found', 'That image does not exist.', { subject: 'image' }),
        few_uploads: () =>
          new RegistryError(
            'rate_limited',
            `You have ${limits.perUser} uploads open already; finish or wait for them before you start another.`,
            { subject: 'upload', retryAfter: 60 },
          ),
        space_left: () =>
          new RegistryError(
            'insufficient_storage',
            `The registry's disk has no room for this image of ${upload.size} bytes beside what is being uploaded; ask its administrator to free space.`,
            { subject: 'upload' },
          ),
        within_quota: () => beyondQuota(values),
      })
    },
    async setHandle(id, storeHandle) {
      await handle.write(q.setHandle({ id, handle: storeHandle }))
    },
    async find(id, viewer, now) {
      const values = { ...viewerValues(viewer, now), id }
      const [standing, rows] = await handle.read(q.standing(values), q.find(values))
      return {
        standing: toStanding(standing[0]),
        value: rows[0] === undefined ? null : toUpload(rows[0]),
      }
    },
    async forImage(imageId, viewer, now) {
      const values = { ...viewerValues(viewer, now), imageId }
      const [standing, rows] = await handle.read(q.standing(values), q.forImage(values))
      return { standing: toStanding(standing[0]), value: rows.map(toUpload) }
    },
    async claim(id, claim, now, leaseUntil) {
      const [rows] = await handle.write(
        q.claim({ id, claim, now: now.getTime(), leaseUntil: leaseUntil.getTime() }),
      )
      return rows.length > 0
    },
    async renew(id, claim, leaseUntil) {
      const [rows] = await handle.write(q.renew({ id, claim, leaseUntil: leaseUntil.getTime() }))
      return rows.length > 0
    },
    async close(id, from, to, now) {
      const [rows] = await handle.write(
        q.close({ id, from: from.state, claim: from.claim, to, now: now.getTime() }),
      )
      return rows.length > 0
    },
    async expire(now, limit) {
      const [rows] = await handle.write(q.expire({ now: now.getTime(), limit }))
      return rows.length
    },
    async closed(before, limit) {
      const [rows] = await handle.read(q.closed({ before: before.getTime(), limit }))
      return rows.map(({ kept, ...row }) => ({ ...row, kept: kept === 1 }))
    },
    async forget(ids) {
      if (ids.length > 0) await handle.write(q.forget({ ids: JSON.stringify(ids) }))
    },
  }
}

/** Live blobs that are counted at most: nobody needs to know of more, and a count reads them all. */
const COUNTED = 10_000

export function sqliteBlobs(handle: Handle): BlobsBook {
  const { db } = handle
  const q = {
    window: prepare(() =>
      db
        .select({ id: t.blobs.id })
        .from(t.blobs)
        .where(gt(t.blobs.id, p('after')))
        .orderBy(t.blobs.id)
        .limit(p('limit')),
    ),
    /** One statement decides and marks: a reference made in between cannot be missed (R9). */
    mark: prepare(() =>
      db
        .update(t.blobs)
        .set({ state: 'dying', dyingAt: sql`${p('now')}` })
        .where(
          sql`state in ('live', 'lost') and id in (select b.id from (select id from blobs where id > ${p('after')} order by id limit ${p('limit')}) b where not exists (select 1 from images where blob_id = b.id) and not exists (select 1 from repository_blobs where blob_id = b.id))`,
        ),
    ),
    dying: prepare(() =>
      db
        .select({ id: t.blobs.id, key: t.blobs.key, size: t.blobs.size })
        .from(t.blobs)
        // the partial index says `<> 'live'`, and SQLite does not see that 'dying' implies it
        .where(sql`state = 'dying' and state <> 'live' and dying_at < ${p('before')}`)
        .limit(p('limit')),
    ),
    forget: prepare(() =>
      db
        .delete(t.blobs)
        .where(sql`id in (select value from json_each(${p('ids')})) and state = 'dying'`),
    ),
    known: prepare(() =>
      db
        .select({ key: sql<string>`value` })
        .from(
          sql`(select value from json_each(${p('keys')}) where exists (select 1 from blobs where key = value) or exists (select 1 from uploads where blob_key = value) or exists (select 1 from import_blobs where key = value) or exists (select 1 from oci_upload_keys where key = value))`,
        ),
    ),
    live: prepare(() =>
      db
        .select({ count: sql<number>`count(*)` })
        .from(sql`(select 1 from blobs where ${isLive} limit ${sql.raw(String(COUNTED))})`),
    ),
  }
  return {
    async markDying(now, after, limit) {
      const values = { now: now.getTime(), after, limit }
      const [window] = await handle.write(q.window(values), q.mark(values))
      return { last: window.at(-1)?.id ?? null }
    },
    async dying(before, limit) {
      const [rows] = await handle.read(q.dying({ before: before.getTime(), limit }))
      return rows
    },
    async forget(ids) {
      if (ids.length > 0) await handle.write(q.forget({ ids: JSON.stringify(ids) }))
    },
    async known(keys) {
      const [rows] = await handle.read(q.known({ keys: JSON.stringify(keys) }))
      return new Set(rows.map((row) => row.key))
    },
    async liveCount() {
      const [rows] = await handle.read(q.live())
      return rows[0]?.count ?? 0
    },
  }
}
