/** The keystore: keys, what they are found by, and whose they are. */
import { eq, sql, type SQL } from 'drizzle-orm'
import type { KeyFacts, StoredKey } from '../core/model.ts'
import { RegistryError } from '../errors.ts'
import type { KeyPlace, KeysBook, KeyWriter, Seen, Viewer } from '../ports.ts'
import { guarded } from './failure.ts'
import { audited, dropGuard, isEnabled, p, text, viewerValues, writerValues } from './fragments.ts'
import { prepare, type Handle, type Statement } from './handle.ts'
import * as t from './schema.ts'
import { seeing } from './seeing.ts'

/** Columns of a key joined with its owner; the armor only where it is asked for. */
const keyColumns = {
  seq: t.keys.seq,
  revision: t.keys.revision,
  ownerId: t.keys.ownerId,
  ownerName: sql<string | null>`${t.users.name}`.as('owner_name'),
  addedBy: t.keys.addedBy,
  addedAt: t.keys.addedAt,
  updatedAt: t.keys.updatedAt,
  removedAt: t.keys.removedAt,
  facts: t.keys.facts,
  armor: sql<string>`case when ${p('withArmor')} = 1 then ${t.keys.armor} else '' end`.as('armor'),
}

type KeyRow = Omit<typeof t.keys.$inferSelect, 'fingerprint'> & { ownerName: string | null }

const json = (path: string, of = 'k.facts') => sql.raw(`json_extract(${of}, '$.${path}')`)

/** The names of the keys whose seq `seqs` yields, but of those that are removed. */
export const nameKeys = (db: Handle['db'], seqs: SQL) =>
  prepare(() =>
    db.insert(t.keyNames).select(sql`
      select n.value as name, 0 as rank, k.seq as key_seq from keys k, json_each(json_array(k.fingerprint, ${json('keyId')}, substr(${json('keyId')}, -8))) n where k.removed_at is null and k.seq in (${seqs})
      union
      select n.value, case when ${json('canSign', 's.value')} then 1 else 2 end, k.seq from keys k, json_each(k.facts, '$.subkeys') s, json_each(json_array(${json('fingerprint', 's.value')}, ${json('keyId', 's.value')}, substr(${json('keyId', 's.value')}, -8))) n where k.removed_at is null and k.seq in (${seqs})
      union
      select lower(${json('email', 'u.value')}), 0, k.seq from keys k, json_each(k.facts, '$.userIds') u where ${json('email', 'u.value')} is not null and k.removed_at is null and k.seq in (${seqs})`),
  )

/** The user ids of the same keys in the full-text index. */
export const indexKeys = (db: Handle['db'], seqs: SQL) =>
  prepare(() =>
    db
      .insert(t.searchKeys)
      .select(
        sql`select k.seq as rowid, (select group_concat(${json('text', 'u.value')}, char(10)) from json_each(k.facts, '$.userIds') u) as user_ids from keys k where k.removed_at is null and k.seq in (${seqs})`,
      ),
  )

export const unnameKeys = (db: Handle['db'], seqs: SQL) =>
  prepare(() => db.delete(t.keyNames).where(sql`key_seq in (${seqs})`))

export const unindexKeys = (db: Handle['db'], seqs: SQL) =>
  prepare(() => db.delete(t.searchKeys).where(sql`rowid in (${seqs})`))

/** What of a key stands in the column `facts`. */
export const factsJson = ({ armor: _armor, ...facts }: KeyFacts): string => JSON.stringify(facts)

export function sqliteKeys(handle: Handle): KeysBook {
  const { db } = handle
  const here = sql`select seq from keys where fingerprint = ${text('fingerprint')}`
  const names = sql`(select value from json_each(${p('names')}))`
  const select = () =>
    db.select(keyColumns).from(t.keys).leftJoin(t.users, eq(t.users.id, t.keys.ownerId))
  const page = (condition: SQL) =>
    prepare(() =>
      select()
        .where(sql`${t.keys.seq} > ${p('after')} and ${condition}`)
        .orderBy(t.keys.seq)
        .limit(p('limit')),
    )
  /** The writer's token stands and may change keys; nobody is asked for a token where none is needed. */
  const mayChange = sql`(${p('writerToken')} = '' or exists (select 1 from tokens wt join users wu on wu.id = wt.user_id where wt.id = ${p('writerToken')} and wu.id = ${p('writerId')} and wt.revoked_at is null and ${isEnabled(sql`wu`)}))`
  const mayRemove = sql`(${p('operator')} = 1 or (${mayChange} and ((${p('writerAdmin')} = 1 and exists (select 1 from users wu where wu.id = ${p('writerId')} and wu.role = 'admin')) or exists (select 1 from keys where fingerprint = ${p('fingerprint')} and owner_id = ${p('writerId')}))))`
  const { see } = seeing(handle)
  /** What one statement yields, as the viewer may see it. */
  const seen = <Row, T>(
    query: Statement<Row[]>,
    value: (rows: Row[]) => T,
    viewer: Viewer,
    now: Date,
  ): Promise<Seen<T>> =>
    see(viewer, viewerValues(viewer, now), [query] as const, ([rows]) => value(rows))
  const q = {
    named: page(
      sql`${t.keys.seq} in (select key_seq from key_names where name in ${names} and rank = (select min(rank) from key_names where name in ${names}))`,
    ),
    containing: page(
      sql`${t.keys.seq} in (select rowid from search_keys where search_keys match ${p('match')} and rowid > ${p('after')} order by rowid limit ${p('limit')})`,
    ),
    whole: page(
      sql`${t.keys.seq} in (select rowid from search_keys where search_keys match ${p('match')}) and exists (select 1 from json_each(${t.keys.facts}, '$.userIds') u where lower(${json('text', 'u.value')}) = lower(${p('text')}))`,
    ),
    list: page(sql`true`),
    listOf: page(sql`${t.keys.ownerId} = ${text('ownerId')}`),
    find: prepare(() => select().where(eq(t.keys.fingerprint, text('fingerprint')))),

    several: prepare(() =>
      select().where(
        sql`${t.keys.fingerprint} in (select value from json_each(${p('fingerprints')}))`,
      ),
    ),

    putGuard: prepare(() =>
      db.insert(t.guard).values({
        mayWrite: mayChange,
        claimed: sql`coalesce((select revision from keys where fingerprint = ${text('fingerprint')}), 0) = ${p('expected')}`,
      }),
    ),
    put: prepare(() =>
      db
        .insert(t.keys)
        .values({
          fingerprint: p('fingerprint'),
          revision: 1,
          ownerId: p('ownerId'),
          addedBy: sql`nullif(${p('writerId')}, '')`,
          addedAt: p('now'),
          updatedAt: p('now'),
          facts: p('facts'),
          armor: p('armor'),
        })
        .onConflictDoUpdate({
          target: t.keys.fingerprint,
          set: {
            revision: sql`revision + 1`,
            ownerId: sql`coalesce(excluded.owner_id, owner_id)`,
            updatedAt: sql`excluded.updated_at`,
            removedAt: sql`case when ${p('show')} = 1 then null else removed_at end`,
            facts: sql`excluded.facts`,
            armor: sql`excluded.armor`,
          },
        }),
    ),
    putAudited: audited(db, {
      action: sql`case when ${p('ownerId')} is not null then 'key.claim' when ${p('expected')} = 0 then 'key.add' else 'key.merge' end`,
      object: sql`'key ' || ${p('fingerprint')}`,
      name: p('fingerprint').getSQL(),
      detail: sql`(select 'for ' || name from users where id = ${p('ownerId')})`,
    }),
    removeAudited: audited(db, {
      action: 'key.remove',
      object: sql`'key ' || ${p('fingerprint')}`,
      name: p('fingerprint').getSQL(),
      detail: sql`case when ${p('forGood')} = 1 then 'for good' else 'hidden' end`,
    }),
    unname: unnameKeys(db, here),
    unindex: unindexKeys(db, here),
    name: nameKeys(db, here),
    index: indexKeys(db, here),
    dropGuard: dropGuard(db),

    removeGuard: prepare(() =>
      db.insert(t.guard).values({
        // what is not there is nobody's: `found` refuses it by its own name
        mayWrite: sql`(not exists (${here}) or ${mayRemove})`,
        found: sql`exists (select 1 from keys where fingerprint = ${text('fingerprint')} and (removed_at is null or ${p('forGood')} = 1))`,
      }),
    ),
    hide: prepare(() =>
      db
        .update(t.keys)
        .set({
          removedAt: sql`${p('now')}`,
          updatedAt: sql`${p('now')}`,
          revision: sql`revision + 1`,
        })
        .where(eq(t.keys.fingerprint, text('fingerprint'))),
    ),
    forget: prepare(() => db.delete(t.keys).where(eq(t.keys.fingerprint, text('fingerprint')))),
  }

  /** One more than the page is read, so that `next` says whether there is more. */
  const placed = ({ after, limit, armor }: KeyPlace) => ({
    after: Number(after ?? 0),
    limit: limit + 1,
    withArmor: armor ? 1 : 0,
  })
  const paged =
    ({ limit }: KeyPlace) =>
    (rows: KeyRow[]) => {
      const shown = rows.slice(0, limit)
      const next = rows.length > limit ? String(shown.at(-1)?.seq ?? '') : null
      return { keys: shown.map(toKey), next }
    }
  const author = (by: KeyWriter, now: Date) => ({
    ...writerValues(by),
    now: now.getTime(),
  })
  const ended = () =>
    new RegistryError('denied', 'Your right to change this key has ended meanwhile.', {
      subject: 'key',
    })

  return {
    named: (wanted, place, viewer, now) =>
      seen(q.named({ names: JSON.stringify(wanted), ...placed(place) }), paged(place), viewer, now),
    containing({ text: wanted, whole }, place, viewer, now) {
      // a NUL would end the expression for FTS5, which reads it as a C string
      const match = `"${wanted.replaceAll('\0', '\ufffd').replaceAll('"', '""')}"`
      const values = { match, text: wanted, ...placed(place) }
      return seen((whole ? q.whole : q.containing)(values), paged(place), viewer, now)
    },
    find: (fingerprint, viewer, now) =>
      seen(
        q.find({ fingerprint, withArmor: 1 }),
        ([row]) => (row === undefined ? null : toKey(row)),
        viewer,
        now,
      ),
    async several(fingerprints) {
      const values = { fingerprints: JSON.stringify(fingerprints), withArmor: 1 }
      const [rows] = await handle.read(q.several(values))
      return rows.map(toKey)
    },
    list(ownerId, place, viewer, now) {
      const values = { ownerId, ...placed(place) }
      return seen((ownerId === null ? q.list : q.listOf)(values), paged(place), viewer, now)
    },
    async put({ facts, expected, show, ownerId, by, now }) {
      const { fingerprint, armor } = facts
      const values = {
        fingerprint,
        armor,
        facts: factsJson(facts),
        expected,
        show: show ? 1 : 0,
        ownerId: ownerId ?? null,
        ...author(by, now),
      }
      const moved = new RegistryError('conflict', 'The key has changed meanwhile.')
      try {
        await guarded(
          handle.write(
            q.putGuard(values),
            q.put(values),
            q.unname(values),
            q.unindex(values),
            q.name(values),
            q.index(values),
            q.putAudited(values),
            q.dropGuard(),
          ),
          { claimed: () => moved, may_write: ended },
        )
        return true
      } catch (error) {
        if (error === moved) return false
        throw error
      }
    },
    async remove(fingerprint, { forGood, by, now }) {
      const values = { fingerprint, forGood: forGood ? 1 : 0, ...author(by, now) }
      const absent = new RegistryError('not_found', 'There is no such key here.')
      try {
        await guarded(
          handle.write(
            q.removeGuard(values),
            q.unname(values),
            q.unindex(values),
            (forGood ? q.forget : q.hide)(values),
            q.removeAudited(values),
            q.dropGuard(),
          ),
          { found: () => absent, may_write: ended },
        )
        return true
      } catch (error) {
        if (error === absent) return false
        throw error
      }
    },
  }
}

const time = (value: unknown): Date | null => (typeof value === 'string' ? new Date(value) : null)

/** A row as the registry's noun; times in `facts` are text as JSON has them. */
function toKey(row: KeyRow): StoredKey {
  const facts = JSON.parse(row.facts) as KeyFacts
  return {
    facts: {
      ...facts,
      createdAt: new Date(facts.createdAt),
      expiresAt: time(facts.expiresAt),
      userIds: facts.userIds.map((id) => ({
        ...id,
        createdAt: time(id.createdAt),
        expiresAt: time(id.expiresAt),
      })),
      subkeys: facts.subkeys.map((key) => ({ ...key, expiresAt: time(key.expiresAt) })),
      armor: row.armor,
    },
    owner:
      row.ownerId === null || row.ownerName === null
        ? null
        : { id: row.ownerId, name: row.ownerName },
    addedBy: row.addedBy,
    addedAt: new Date(row.addedAt),
    updatedAt: new Date(row.updatedAt),
    removedAt: row.removedAt === null ? null : new Date(row.removedAt),
    revision: row.revision,
  }
}
