/** Uploads of blobs by OCI that are on their way. */
import { and, eq, sql } from 'drizzle-orm'
import { RegistryError } from '../errors.ts'
import type { OciUpload } from '../core/model.ts'
import type { BlobPart, OciUploadsBook } from '../ports.ts'
import { guarded } from './failure.ts'
import {
  dropGuard,
  inContainer,
  isLive,
  isLost,
  mayWrite,
  p,
  text,
  viewerValues,
  writerValues,
} from './fragments.ts'
import { prepare, type Handle } from './handle.ts'
import { joinsOf } from './joins.ts'
import { announced, fitsBeside, fitsNow, overQuota, type Coming } from './quotas.ts'
import {
  blobNoted,
  containerId,
  entityOfContainer,
  gone,
  healMembers,
  lostRight,
} from './repositories.ts'
import { named, toContainer } from './rows.ts'
import * as t from './schema.ts'
import { seeing } from './seeing.ts'

export function sqliteOciUploads(handle: Handle): OciUploadsBook {
  const { db } = handle
  const { see } = seeing(handle)
  const id = text('id')
  const claimed = sql`exists (select 1 from oci_uploads where id = ${p('id')} and state = 'open' and claim = ${p('claim')})`
  const mine = sql`id = ${p('id')} and state = 'open' and claim = ${p('claim')}`
  /** The entity and container of the upload. */
  const ownContainer = sql`(select container_id from oci_uploads where id = ${p('id')})`
  const ownEntity = sql`(select qc.entity_id from oci_uploads qu join containers qn on qn.id = qu.container_id join collections qc on qc.id = qn.collection_id where qu.id = ${p('id')})`
  const own = p('id').getSQL()
  /** What a claim announces, what has come beyond that, and what has arrived. */
  const coming: Coming = {
    entity: ownEntity,
    digest: p('sha256').getSQL(),
    size: p('size').getSQL(),
    own,
  }
  const grown: Coming = {
    entity: ownEntity,
    digest: sql`(select substr(digest, 8) from oci_uploads where id = ${own})`,
    size: p('received').getSQL(),
    own,
  }
  const arrived: Coming = { ...coming, entity: entityOfContainer }
  const what = { what: 'blob', may: sql`1` }
  const beyondQuota = {
    coming: overQuota(handle, coming, what),
    grown: overQuota(handle, grown, what),
    arrived: overQuota(handle, arrived, { ...what, may: mayWrite(inContainer, 2) }),
  }
  const isAnnounced = sql`${p('received')} <= (select reserved from oci_uploads where id = ${own})`
  const q = {
    openGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayWrite(inContainer, 2),
        found: sql`exists (select 1 from containers where id = ${containerId})`,
        fewUploads: sql`(select count(*) from oci_uploads where state = 'open' and user_id = ${p('writerId')}) + (select count(*) from uploads where state in ('open', 'finishing') and user_id = ${p('writerId')}) < ${p('perUser')}`,
      }),
    ),
    open: prepare(() =>
      db.insert(t.ociUploads).values({
        id: p('id'),
        containerId: p('containerId'),
        userId: p('writerId'),
        tokenId: p('writerToken'),
        key: p('key'),
        state: 'open',
        createdAt: p('createdAt'),
        expiresAt: p('expiresAt'),
      }),
    ),
    addKey: prepare(() => db.insert(t.ociUploadKeys).values({ key: p('key'), uploadId: p('id') })),
    dropGuard: dropGuard(db),
    upload: prepare(() =>
      db
        .select(
          named({
            id: t.ociUploads.id,
            containerId: t.ociUploads.containerId,
            userId: t.ociUploads.userId,
            key: t.ociUploads.key,
            handle: t.ociUploads.handle,
            received: t.ociUploads.received,
            tail: t.ociUploads.tail,
            tailSize: t.ociUploads.tailSize,
            sha256: t.ociUploads.sha256,
            sha512: t.ociUploads.sha512,
            digest: t.ociUploads.digest,
            state: t.ociUploads.state,
            createdAt: t.ociUploads.createdAt,
            expiresAt: t.ociUploads.expiresAt,
          }),
        )
        .from(t.ociUploads)
        .where(eq(t.ociUploads.id, id)),
    ),
    container: prepare(() => joinsOf(db).containers().where(eq(t.containers.id, ownContainer))),
    claimGuard: prepare(() =>
      db.insert(t.guard).values({
        claimed: sql`exists (select 1 from oci_uploads where id = ${p('id')} and state = 'open' and received = ${p('at')} and container_id is not null and (claim is null or lease_until < ${p('now')}))`,
        spaceLeft: sql`${p('free')} is null or ${announced(own)} + ${p('coming')} <= ${p('free')}`,
        withinQuota: fitsBeside(coming),
      }),
    ),
    claim: prepare(() =>
      db
        .update(t.ociUploads)
        .set({
          claim: sql`${p('claim')}`,
          leaseUntil: sql`${p('leaseUntil')}`,
          reserved: sql`${p('size')}`,
          // as far as it is known: equal content is reserved once
          digest: sql`'sha256:' || ${p('sha256')}`,
          expiresAt: sql`max(expires_at, ${p('expiresAt')})`,
        })
        .where(eq(t.ociUploads.id, id)),
    ),
    setHandle: prepare(() =>
      db
        .update(t.ociUploads)
        .set({ handle: sql`${p('handle')}` })
        .where(eq(t.ociUploads.id, id)),
    ),
    /** A body that does not say how long it is reserves as it comes (R50). */
    advanceGuard: prepare(() =>
      db.insert(t.guard).values({
        claimed,
        spaceLeft: sql`${p('free')} is null or ${isAnnounced} or ${announced(own)} + ${p('received')} - (select received from oci_uploads where id = ${own}) <= ${p('free')}`,
        withinQuota: sql`${isAnnounced} or ${fitsBeside(grown)}`,
      }),
    ),
    advance: prepare(() =>
      db
        .update(t.ociUploads)
        .set({
          received: sql`${p('received')}`,
          reserved: sql`max(reserved, ${p('received')})`,
          tail: sql`${p('tail')}`,
          tailSize: sql`${p('tailSize')}`,
          sha256: sql`${p('sha256')}`,
          sha512: sql`${p('sha512')}`,
          leaseUntil: sql`${p('leaseUntil')}`,
        })
        .where(mine),
    ),
    addPart: prepare(() =>
      db
        .insert(t.ociUploadParts)
        .values({ uploadId: p('id'), number: p('number'), etag: p('etag') })
        .onConflictDoUpdate({
          target: [t.ociUploadParts.uploadId, t.ociUploadParts.number],
          set: { etag: sql`excluded.etag` },
        }),
    ),
    renew: prepare(() =>
      db
        .update(t.ociUploads)
        .set({ leaseUntil: sql`${p('leaseUntil')}` })
        .where(mine)
        .returning({ id: t.ociUploads.id }),
    ),
    release: prepare(() =>
      db
        .update(t.ociUploads)
        .set({ claim: null, leaseUntil: null, reserved: sql`received` })
        .where(mine),
    ),
    parts: prepare(() =>
      db
        .select({ number: t.ociUploadParts.number, etag: t.ociUploadParts.etag })
        .from(t.ociUploadParts)
        .where(eq(t.ociUploadParts.uploadId, id))
        .orderBy(t.ociUploadParts.number),
    ),
    finishGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayWrite(inContainer, 2),
        found: sql`exists (select 1 from containers where id = ${containerId})`,
        claimed: sql`exists (select 1 from oci_uploads where id = ${p('id')} and container_id = ${containerId} and claim = ${p('claim')} and state in ('open', 'done')) and exists (select 1 from oci_upload_keys where key = ${p('key')} and upload_id = ${p('id')})`,
        withinQuota: fitsNow(arrived),
      }),
    ),
    newBlob: prepare(() =>
      db.insert(t.blobs).select(
        sql`select ${p('blobId')} as id, ${p('key')} as key, ${p('sha256')} as digest, ${p('size')} as size, 'live' as state, ${p('now')} as created_at, null as dying_at
        where not exists (select 1 from blobs where (digest = ${p('sha256')} and state = 'live') or key = ${p('key')})`,
      ),
    ),
    healImages: prepare(() =>
      db
        .update(t.images)
        .set({
          blobId: sql`(select id from blobs where digest = ${p('sha256')} and state = 'live')`,
        })
        .where(
          sql`digest = ${p('sha256')} and blob_id in (select id from blobs where digest = ${p('sha256')} and ${isLost})`,
        ),
    ),
    healMembers: healMembers(db, p('sha256').getSQL()),
    joinNoted: blobNoted(
      db,
      'blob.push',
      sql`cast(${p('size')} as integer) || ' bytes' || case when exists (select 1 from blobs where key = ${p('key')}) then ', uploaded' else ', stored copy' end`,
    ),
    join: prepare(() =>
      db
        .insert(t.repositoryBlobs)
        .select(
          sql`select ${containerId} as container_id, ${p('digest')} as digest, id as blob_id, ${p('now')} as created_at from blobs where digest = ${p('sha256')} and state = 'live'`,
        )
        .onConflictDoUpdate({
          target: [t.repositoryBlobs.containerId, t.repositoryBlobs.digest],
          set: { createdAt: sql`excluded.created_at` },
        }),
    ),
    done: prepare(() =>
      db
        .update(t.ociUploads)
        .set({ state: 'done', digest: sql`${p('digest')}`, closedAt: sql`${p('now')}` })
        .where(sql`id = ${p('id')} and claim = ${p('claim')}`),
    ),
    used: prepare(() =>
      db
        .select({ key: t.blobs.key })
        .from(t.blobs)
        .where(and(eq(t.blobs.digest, text('sha256')), isLive)),
    ),
    end: prepare(() =>
      db
        .update(t.ociUploads)
        .set({ state: 'ended', claim: null, leaseUntil: null, closedAt: sql`${p('now')}` })
        .where(sql`id = ${p('id')} and state = 'open'`)
        .returning({ id: t.ociUploads.id }),
    ),
    expire: prepare(() =>
      db
        .update(t.ociUploads)
        .set({ state: 'ended', claim: null, leaseUntil: null, closedAt: sql`${p('now')}` })
        .where(
          sql`id in (select id from oci_uploads where state = 'open' and (container_id is null or expires_at < ${p('now')}) and (lease_until is null or lease_until < ${p('now')}) order by expires_at limit ${p('limit')})`,
        )
        .returning({ id: t.ociUploads.id }),
    ),
    leftovers: prepare(() =>
      db
        .select(
          named({
            key: t.ociUploadKeys.key,
            handle: sql<
              string | null
            >`case when ${t.ociUploads.key} = ${t.ociUploadKeys.key} then ${t.ociUploads.handle} end`,
            parts: sql<number>`${t.ociUploads.key} = ${t.ociUploadKeys.key}`,
            kept: sql<number>`exists (select 1 from blobs kb where kb.key = ${t.ociUploadKeys.key})`,
          }),
        )
        .from(t.ociUploads)
        .innerJoin(t.ociUploadKeys, eq(t.ociUploadKeys.uploadId, t.ociUploads.id))
        .where(
          sql`${t.ociUploads.closedAt} is not null and ${t.ociUploads.closedAt} < ${p('before')}`,
        )
        .limit(p('limit')),
    ),
    forgetKeys: prepare(() =>
      db.delete(t.ociUploadKeys).where(sql`key in (select value from json_each(${p('keys')}))`),
    ),
    forget: prepare(() =>
      db
        .delete(t.ociUploads)
        .where(
          sql`closed_at is not null and closed_at < ${p('before')} and not exists (select 1 from oci_upload_keys where upload_id = oci_uploads.id)`,
        ),
    ),
  }
  const lostClaim = () =>
    new RegistryError('conflict', 'Somebody else writes to this upload; ask where it stands.', {
      subject: 'upload',
    })

  const noSpace = () =>
    new RegistryError(
      'insufficient_storage',
      "The registry's disk has no room for this beside what is being uploaded; ask its administrator to free space.",
      { subject: 'upload' },
    )

  return {
    async open(upload, writer, { perUser }) {
      const values = {
        ...writerValues(writer),
        ...upload,
        createdAt: upload.createdAt.getTime(),
        expiresAt: upload.expiresAt.getTime(),
        perUser,
      }
      await guarded(
        handle.write(q.openGuard(values), q.open(values), q.addKey(values), q.dropGuard()),
        {
          may_write: lostRight,
          found: gone,
          few_uploads: () =>
            new RegistryError(
              'rate_limited',
              `You have ${perUser} uploads open already; finish or wait for them before you start another.`,
              { subject: 'upload', retryAfter: 60 },
            ),
        },
      )
    },

    async find(uploadId, viewer, now) {
      const values = { ...viewerValues(viewer, now), id: uploadId }
      return see(
        viewer,
        values,
        [q.upload(values), q.container(values)] as const,
        ([uploads, containers]) =>
          uploads[0] === undefined
            ? null
            : {
                upload: toOciUpload(uploads[0]),
                container: containers[0] === undefined ? null : toContainer(containers[0]),
              },
      )
    },

    async claim(uploadId, { tailKey, now, leaseUntil, expiresAt, ...rest }) {
      const values = {
        id: uploadId,
        ...rest,
        size: rest.at + rest.coming,
        key: tailKey,
        now: now.getTime(),
        leaseUntil: leaseUntil.getTime(),
        expiresAt: expiresAt.getTime(),
      }
      await guarded(
        handle.write(q.claimGuard(values), q.claim(values), q.addKey(values), q.dropGuard()),
        {
          claimed: () =>
            new RegistryError(
              'range_unsatisfiable',
              'This upload does not stand there, or somebody else writes to it; ask where it stands.',
              { subject: 'upload' },
            ),
          space_left: noSpace,
          within_quota: () => beyondQuota.coming(values),
        },
      )
    },

    async setHandle(uploadId, storeHandle) {
      await handle.write(q.setHandle({ id: uploadId, handle: storeHandle }))
    },

    async advance(uploadId, claim, { part, tail, leaseUntil, free, defaultQuota, ...to }) {
      const values = {
        id: uploadId,
        claim,
        ...to,
        ...part,
        tail: tail?.key ?? null,
        tailSize: tail?.size ?? 0,
        leaseUntil: leaseUntil.getTime(),
        free: free ?? null,
        defaultQuota: defaultQuota ?? null,
      }
      await guarded(
        handle.write(
          q.advanceGuard(values),
          q.advance(values),
          ...(part === null ? [] : [q.addPart(values)]),
          q.dropGuard(),
        ),
        {
          claimed: lostClaim,
          space_left: noSpace,
          within_quota: () => beyondQuota.grown(values),
        },
      )
    },

    async renew(uploadId, claim, leaseUntil) {
      const values = { id: uploadId, claim, leaseUntil: leaseUntil.getTime() }
      const [rows] = await handle.write(q.renew(values))
      return rows.length > 0
    },

    async release(uploadId, claim) {
      await handle.write(q.release({ id: uploadId, claim }))
    },

    async parts(uploadId): Promise<BlobPart[]> {
      const [rows] = await handle.read(q.parts({ id: uploadId }))
      return rows
    },

    async finish(uploadId, claim, { writer, ...done }) {
      const values = { ...writerValues(writer), id: uploadId, claim, ...done }
      const [, , , , , , , used] = await guarded(
        handle.write(
          q.finishGuard(values),
          q.newBlob(values),
          q.healImages(values),
          q.healMembers(values),
          q.joinNoted(values),
          q.join(values),
          q.done(values),
          q.used(values),
          q.dropGuard(),
        ),
        {
          may_write: lostRight,
          found: gone,
          claimed: lostClaim,
          within_quota: () => beyondQuota.arrived(values),
        },
      )
      return { key: used[0]?.key ?? done.key }
    },

    async end(uploadId, now) {
      const [rows] = await handle.write(q.end({ id: uploadId, now: now.getTime() }))
      return rows.length > 0
    },

    async expire(now, limit) {
      const [rows] = await handle.write(q.expire({ now: now.getTime(), limit }))
      return rows.length
    },

    async leftovers(before, limit) {
      const [rows] = await handle.read(q.leftovers({ before: before.getTime(), limit }))
      return rows.map(({ kept, parts, ...row }) => ({
        ...row,
        parts: parts === 1,
        kept: kept === 1,
      }))
    },

    async forgetKeys(keys, before) {
      const values = { keys: JSON.stringify(keys), before: before.getTime() }
      await handle.write(q.forgetKeys(values), q.forget(values))
    },
  }
}

type UploadRow = Omit<OciUpload, 'tail' | 'createdAt' | 'expiresAt'> & {
  tail: string | null
  tailSize: number
  createdAt: number
  expiresAt: number
}

const toOciUpload = ({ tail, tailSize, ...row }: UploadRow): OciUpload => ({
  ...row,
  tail: tail === null ? null : { key: tail, size: tailSize },
  createdAt: new Date(row.createdAt),
  expiresAt: new Date(row.expiresAt),
})
