/** Links that hand out one image to whoever has them (R61). */
import { desc, eq, sql } from 'drizzle-orm'
import { RegistryError } from '../errors.ts'
import type { SharesBook } from '../ports.ts'
import { guarded } from './failure.ts'
import {
  audited,
  dropGuard,
  isEnabled,
  isLive,
  levelIn,
  mayWrite,
  ofImage,
  p,
  standingQuery,
  text,
  type Place,
  viewerLevel,
  viewerValues,
  writerStands,
  writerValues,
} from './fragments.ts'
import { prepare, type Handle } from './handle.ts'
import { named, toStanding } from './rows.ts'
import * as t from './schema.ts'

const LIST_LIMIT = 1000
/** Links that one user may have at a time: each is a row for as long as three months. */
const MOST = 1000

const ofShare: Place = {
  collection: sql`(select gn.collection_id from shares gs join images gi on gi.id = gs.image_id join containers gn on gn.id = gi.container_id where gs.id = ${p('id')})`,
  container: sql`(select gi.container_id from shares gs join images gi on gi.id = gs.image_id where gs.id = ${p('id')})`,
}

/**
 * A link of that secret that is good now: neither ended nor used up, its image is there, and who made
 * it may read that still: the public does, or somebody granted it, or they own everything.
 */
const isGood = sql`hash = ${p('hash')} and revoked_at is null and expires_at > ${p('now')} and coalesce(left_count, 1) > 0 and exists (select 1 from images si join blobs sb on sb.id = si.blob_id and sb.state = 'live' join containers sn on sn.id = si.container_id join collections sc on sc.id = sn.collection_id join users su on su.id = shares.created_by where si.id = shares.image_id and ${isEnabled(sql`su`)} and ((sc.private = 0 and sn.private = 0) or su.role = 'admin' or su.staff = 1 or ${levelIn(sql`su.id`, sql`sc.id`)} > 0))`

export function sqliteShares(handle: Handle): SharesBook {
  const { db } = handle
  const joined = () =>
    db
      .select(
        named({
          id: t.shares.id,
          note: t.shares.note,
          creatorId: t.shares.createdBy,
          creatorName: t.users.name,
          createdAt: t.shares.createdAt,
          expiresAt: t.shares.expiresAt,
          left: t.shares.leftCount,
          used: t.shares.used,
          revokedAt: t.shares.revokedAt,
          digest: t.images.digest,
          containerId: t.containers.id,
          containerName: t.containers.name,
          containerPrivate: t.containers.private,
          collectionId: t.collections.id,
          collectionName: t.collections.name,
          collectionPrivate: t.collections.private,
          entityName: t.entities.name,
          level: viewerLevel,
        }),
      )
      .from(t.shares)
      .innerJoin(t.users, eq(t.users.id, t.shares.createdBy))
      .innerJoin(t.images, eq(t.images.id, t.shares.imageId))
      .innerJoin(t.containers, eq(t.containers.id, t.images.containerId))
      .innerJoin(t.collections, eq(t.collections.id, t.containers.collectionId))
      .innerJoin(t.entities, eq(t.entities.id, t.collections.entityId))
  const nameOfImage = (imageId: ReturnType<typeof sql>) =>
    sql`(select e.name || '/' || c.name || '/' || n.name || ':sha256.' || i.digest from images i join containers n on n.id = i.container_id join collections c on c.id = n.collection_id join entities e on e.id = c.entity_id where i.id = ${imageId})`
  const q = {
    standing: standingQuery(db),
    createGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: sql`${mayWrite(ofImage, 2)} and ${writerStands(sql`wt.collection_id = ''`)}`,
        found: sql`exists (select 1 from images fi join blobs fb on fb.id = fi.blob_id and fb.state = 'live' where fi.id = ${p('imageId')})`,
        withinLimit: sql`(select count(*) from shares where created_by = ${p('createdBy')}) < ${sql.raw(String(MOST))}`,
      }),
    ),
    create: prepare(() =>
      db.insert(t.shares).values({
        id: p('id'),
        imageId: p('imageId'),
        hash: p('hash'),
        note: p('note'),
        createdBy: p('createdBy'),
        createdAt: p('now'),
        expiresAt: p('expiresAt'),
        leftCount: p('count'),
      }),
    ),
    createNoted: audited(db, {
      action: 'share.create',
      object: sql`'share ' || ${p('id')}`,
      name: nameOfImage(sql`${p('imageId')}`),
      detail: sql`${p('terms')}`,
    }),
    byId: prepare(() => joined().where(eq(t.shares.id, text('id')))),
    ofContainer: prepare(() =>
      joined()
        .where(
          // begins with the images of the container, each of which has few links
          sql`${t.shares.imageId} in (select li.id from images li where li.container_id = ${text('containerId')}) and (${p('creatorId')} = '' or ${t.shares.createdBy} = ${p('creatorId')})`,
        )
        .orderBy(desc(t.shares.createdAt))
        .limit(LIST_LIMIT),
    ),
    all: prepare(() => joined().orderBy(desc(t.shares.createdAt)).limit(LIST_LIMIT)),
    ofCreator: prepare(() =>
      joined()
        .where(eq(t.shares.createdBy, text('creatorId')))
        .orderBy(desc(t.shares.createdAt))
        .limit(LIST_LIMIT),
    ),
    revokeGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: sql`${writerStands(sql`wt.collection_id = '' and wu.id = (select created_by from shares where id = ${p('id')})`)} or ${mayWrite(ofShare, 3)}`,
        found: sql`exists (select 1 from shares where id = ${p('id')})`,
      }),
    ),
    revokeNoted: audited(db, {
      action: 'share.revoke',
      object: sql`'share ' || ${p('id')}`,
      name: nameOfImage(sql`(select image_id from shares where id = ${p('id')})`),
      when: sql`exists (select 1 from shares where id = ${p('id')} and revoked_at is null)`,
    }),
    revoke: prepare(() =>
      db
        .update(t.shares)
        .set({ revokedAt: sql`${p('now')}` })
        .where(sql`id = ${p('id')} and revoked_at is null`),
    ),
    /** R25: tickets that the link has given end with it. */
    end: prepare(() =>
      db
        .insert(t.ended)
        .values({ id: p('id'), at: p('now') })
        .onConflictDoNothing(),
    ),
    dropGuard: dropGuard(db),
    /** One statement decides and counts: ten that come at once cannot take three. */
    take: prepare(() =>
      db
        .update(t.shares)
        .set({ leftCount: sql`left_count - 1`, used: sql`used + 1` })
        .where(isGood)
        .returning({ id: t.shares.id }),
    ),
    good: prepare(() => db.select({ id: t.shares.id }).from(t.shares).where(isGood)),
    shared: prepare(() =>
      db
        .select(
          named({
            id: t.shares.id,
            creatorId: t.shares.createdBy,
            imageId: t.images.id,
            digest: t.images.digest,
            collectionId: t.containers.collectionId,
            containerId: t.containers.id,
            containerName: t.containers.name,
            key: t.blobs.key,
            size: t.blobs.size,
          }),
        )
        .from(t.shares)
        .innerJoin(t.images, eq(t.images.id, t.shares.imageId))
        .innerJoin(t.containers, eq(t.containers.id, t.images.containerId))
        .innerJoin(t.blobs, sql`${t.blobs.id} = ${t.images.blobId} and ${isLive}`)
        .where(eq(t.shares.hash, text('hash'))),
    ),
    prune: prepare(() =>
      db.delete(t.shares).where(sql`expires_at < ${p('before')} or revoked_at < ${p('before')}`),
    ),
  }
  type Row = Awaited<ReturnType<typeof joined>>[number]
  const toShare = ({ createdAt, expiresAt, revokedAt, ...row }: Row) => ({
    ...row,
    createdAt: new Date(createdAt),
    expiresAt: new Date(expiresAt),
    revokedAt: revokedAt === null ? null : new Date(revokedAt),
  })

  return {
    async create({ by, expiresAt, ...draft }) {
      const values = {
        ...writerValues(by),
        ...draft,
        expiresAt: expiresAt.getTime(),
        terms: `until ${expiresAt.toISOString()}, ${draft.count === null ? 'any number of' : String(draft.count)} downloads`,
      }
      await guarded(
        handle.write(q.createGuard(values), q.create(values), q.createNoted(values), q.dropGuard()),
        {
          may_write: () =>
            new RegistryError('denied', 'You may not share images of this collection any more.', {
              subject: 'share',
            }),
          found: () =>
            new RegistryError('not_found', 'That image does not exist.', { subject: 'image' }),
          within_limit: () =>
            new RegistryError(
              'conflict',
              `You have ${MOST} share links, as many as anybody may have: revoke some (sreg-lite share list).`,
              { subject: 'share' },
            ),
        },
      )
    },
    async find(id, viewer, now) {
      const values = { ...viewerValues(viewer, now), id }
      const [standing, rows] = await handle.read(q.standing(values), q.byId(values))
      return {
        standing: toStanding(standing[0]),
        value: rows[0] === undefined ? null : toShare(rows[0]),
      }
    },
    async list({ containerId = '', creatorId = '' }, viewer, now) {
      const values = { ...viewerValues(viewer, now), containerId, creatorId }
      const of = containerId !== '' ? q.ofContainer : creatorId !== '' ? q.ofCreator : q.all
      const [rows] = await handle.read(of(values))
      return rows.map(toShare)
    },
    async revoke(id, by) {
      const values = { ...writerValues(by), id }
      await guarded(
        handle.write(
          q.revokeGuard(values),
          q.revokeNoted(values),
          q.revoke(values),
          q.end(values),
          q.dropGuard(),
        ),
        {
          may_write: () =>
            new RegistryError('denied', 'You may not revoke this link any more.', {
              subject: 'share',
            }),
          found: () =>
            new RegistryError('not_found', 'There is no such link here.', { subject: 'share' }),
        },
      )
    },
    async take(hash, now) {
      const values = { hash, now: now.getTime() }
      const [taken, rows] = await handle.write(q.take(values), q.shared(values))
      return taken.length === 0 ? null : (rows[0] ?? null)
    },
    async look(hash, now) {
      const values = { hash, now: now.getTime() }
      const [good, rows] = await handle.read(q.good(values), q.shared(values))
      return good.length === 0 ? null : (rows[0] ?? null)
    },
    async prune(before) {
      await handle.write(q.prune({ before: before.getTime() }))
    },
  }
}
