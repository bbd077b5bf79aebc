/** What owners do to whole collections and containers: freezing them, and deleting them. */
import { sql, type SQL } from 'drizzle-orm'
import { RegistryError } from '../errors.ts'
import type { CatalogBook } from '../ports.ts'
import { guarded } from './failure.ts'
import {
  audited,
  dropGuard,
  inCollection,
  inContainer,
  mayWrite,
  nameOfCollection,
  nameOfContainer,
  p,
  unindexImages,
  writerValues,
  type Place,
} from './fragments.ts'
import { prepare, type Handle } from './handle.ts'
import * as t from './schema.ts'

const lostRight = () =>
  new RegistryError('denied', 'You may not change this: the token or the right to do so has ended.')
const containerName = nameOfContainer(p('containerId').getSQL())
const collectionName = nameOfCollection(p('collectionId').getSQL())

export function sqlitePlaces(
  handle: Handle,
): Pick<CatalogBook, 'setFrozen' | 'deleteContainer' | 'deleteCollection'> {
  const { db } = handle
  const frozenTags = sql`container_id = ${p('containerId')} and name = ${p('tag')} and (${p('arch')} = '' or arch = ${p('arch')})`
  /** A tag that only OCI knows has no arch. */
  const frozenElsewhere = sql`container_id = ${p('containerId')} and name = ${p('tag')} and ${p('arch')} = ''`
  const w = {
    dropGuard: dropGuard(db),
    note: prepare(() => db.select({ note: t.guard.note }).from(t.guard)),
    freezeGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayWrite(inContainer, 3),
        note: sql`case when ${p('tag')} = '' then (select id from containers where id = ${p('containerId')}) else coalesce((select image_id from tags where ${frozenTags} limit 1), (select manifest from oci_tags where ${frozenElsewhere})) end`,
      }),
    ),
    freezeContainer: prepare(() =>
      db
        .update(t.containers)
        .set({ frozen: sql`${p('frozen')}`, updatedAt: sql`${p('now')}` })
        .where(sql`id = ${p('containerId')} and ${p('tag')} = ''`),
    ),
    freezeTags: prepare(() =>
      db
        .update(t.tags)
        .set({ frozen: sql`${p('frozen')}` })
        .where(frozenTags),
    ),
    /** What was pushed by OCI under a name is as frozen as what the library has there. */
    freezeElsewhere: prepare(() =>
      db
        .update(t.ociTags)
        .set({
          frozen: sql`coalesce((select max(g.frozen) from tags g where g.container_id = oci_tags.container_id and g.name = oci_tags.name), case ${p('arch')} when '' then ${p('frozen')} else oci_tags.frozen end)`,
        })
        .where(sql`container_id = ${p('containerId')} and name = ${p('tag')}`),
    ),
    frozen: audited(db, {
      action: 'frozen.set',
      object: sql`'container ' || ${p('containerId')}`,
      name: sql`${containerName} || case when ${p('tag')} = '' then '' else ':' || ${p('tag')} end`,
      detail: sql`case ${p('frozen')} when 1 then 'frozen' else 'thawed' end || case when ${p('arch')} = '' then '' else ' ' || ${p('arch')} end`,
      when: sql`exists (select 1 from guard where note is not null)`,
    }),
  }

  /** Images go first, one by one, so that the triggers can tell whose holdings they were. */
  const removal = (what: 'container' | 'collection', place: Place, containers: SQL, name: SQL) => {
    const table = what === 'container' ? t.containers : t.collections
    const id = p(`${what}Id`)
    const images = sql`container_id in (${containers})`
    return {
      guard: prepare(() =>
        db.insert(t.guard).values({
          mayWrite: mayWrite(place, 3),
          thawed: sql`not exists (select 1 from containers where id in (${containers}) and frozen = 1) and not exists (select 1 from tags where ${images} and frozen = 1) and not exists (select 1 from oci_tags where ${images} and frozen = 1)`,
          note: sql`(select id from ${table} where id = ${id})`,
        }),
      ),
      audited: audited(db, {
        action: `${what}.delete`,
        object: sql`${sql.raw(`'${what} '`)} || ${id}`,
        name,
        when: sql`exists (select 1 from guard where note is not null)`,
      }),
      end: prepare(() =>
        db
          .insert(t.ended)
          .select(sql`select id as id, ${p('now')} as at from images where ${images}`)
          .onConflictDoUpdate({ target: t.ended.id, set: { at: sql`excluded.at` } }),
      ),
      unindex: unindexImages(db, sql`select seq from images where ${images}`),
      tags: prepare(() => db.delete(t.tags).where(images)),
      images: prepare(() => db.delete(t.images).where(images)),
      containers: prepare(() => db.delete(t.containers).where(sql`id in (${containers})`)),
      itself: prepare(() => db.delete(table).where(sql`id = ${id}`)),
    }
  }
  const container = removal(
    'container',
    inContainer,
    sql`select ${p('containerId')}`,
    containerName,
  )
  const collection = removal(
    'collection',
    inCollection,
    sql`select id from containers where collection_id = ${p('collectionId')}`,
    collectionName,
  )

  async function remove(
    steps: typeof container,
    what: 'container' | 'collection',
    values: Record<string, string | number>,
  ): Promise<boolean> {
    const [, notes] = await guarded(
      handle.write(
        steps.guard(values),
        w.note(),
        steps.audited(values),
        steps.end(values),
        steps.unindex(values),
        steps.tags(values),
        steps.images(values),
        steps.containers(values),
        steps.itself(values),
        w.dropGuard(),
      ),
      {
        may_write: lostRight,
        thawed: () =>
          new RegistryError(
            'denied',
            `This ${what} cannot be deleted: it is frozen, or something in it is. Its owner can thaw it (sreg-lite thaw).`,
            { subject: what },
          ),
      },
    )
    return (notes[0]?.note ?? null) !== null
  }

  return {
    async setFrozen({ containerId, tag, arch, frozen, by }) {
      const values = {
        ...writerValues(by),
        containerId,
        tag: tag ?? '',
        arch: arch ?? '',
        frozen: frozen ? 1 : 0,
      }
      const [, notes] = await guarded(
        handle.write(
          w.freezeGuard(values),
          w.note(),
          w.freezeContainer(values),
          w.freezeTags(values),
          w.freezeElsewhere(values),
          w.frozen(values),
          w.dropGuard(),
        ),
        { may_write: lostRight },
      )
      return (notes[0]?.note ?? null) !== null
    },
    deleteContainer: (containerId, by) =>
      remove(container, 'container', { ...writerValues(by), containerId }),
    deleteCollection: (collectionId, by) =>
      remove(collection, 'collection', { ...writerValues(by), collectionId }),
  }
}
