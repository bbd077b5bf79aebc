/** The audit log: denials in, pages out, and what is too old or too much forgotten. */
import { sql } from 'drizzle-orm'
import type { AuditEntry, AuditOutcome } from '../core/model.ts'
import type { AuditBook } from '../ports.ts'
import { p, text } from './fragments.ts'
import { prepare, type Handle } from './handle.ts'
import * as t from './schema.ts'

/** Rows of an actor or a time that a page with more filters looks at, and one (R56). */
const LOOKED_AT = 5000

export function sqliteAudit(handle: Handle): AuditBook {
  const { db } = handle
  const denial = (key: string) => sql.raw(`x.value ->> '${key}'`)
  /** `outcome` is spelled out for the sake of the partial index. */
  const same = (of: 'a' | 'audit') => {
    const column = (name: string) => sql.raw(`${of}.${name}`)
    return sql`${column('outcome')} = 'denied' and ${column('at')} = ${denial('at')} and ${column('address')} = ${denial('address')} and ${column('action')} = ${denial('action')} and ${column('actor_id')} = ${denial('actorId')}`
  }

  /** A page of the rows that an index has in their order: all, or those of an actor. */
  const paging = (ofActor: boolean) => {
    // the first bound is the one that the index is asked for
    const range = sql`${ofActor ? sql`actor = ${text('actor')}` : sql`1`} and at >= ${p('since')} and (at, seq) < (${p('at')}, ${p('seq')})`
    const order = sql`order by at desc, seq desc`
    const last = (column: 'at' | 'seq') =>
      sql`coalesce((select ${sql.raw(column)} from audit where ${range} ${order} limit 1 offset ${p('look')}), -1)`
    return {
      last: prepare(() =>
        db
          .select({ at: t.audit.at, seq: t.audit.seq })
          .from(t.audit)
          .where(range)
          .orderBy(sql`at desc, seq desc`)
          .limit(1)
          .offset(p('look')),
      ),
      page: prepare(() =>
        db
          .select()
          .from(t.audit)
          .where(
            sql`${ofActor ? sql`actor = ${text('actor')}` : sql`1`} and at >= max(${p('since')}, ${last('at')}) and (at, seq) < (${p('at')}, ${p('seq')}) and (at, seq) >= (${last('at')}, ${last('seq')})
              and (${p('action')} = '' or action = ${p('action')} or substr(action, 1, length(${p('action')}) + 1) = ${p('action')} || '.')
              and (${p('ref')} = '' or substr(name, 1, length(${p('ref')})) = ${p('ref')} or substr(object, 1, length(${p('ref')})) = ${p('ref')})
              and (${p('outcome')} = '' or outcome = ${p('outcome')})`,
          )
          .orderBy(sql`at desc, seq desc`)
          .limit(p('limit')),
      ),
    }
  }
  const pages = { all: paging(false), actor: paging(true) }

  const q = {
    /** Not an upsert: that would use up a number for each, and the newest ones are told by number. */
    add: prepare(() =>
      db
        .update(t.audit)
        .set({ count: sql`audit.count + ${denial('count')}` })
        .from(sql`json_each(${p('denials')}) x`)
        .where(same('audit')),
    ),
    insert: prepare(() =>
      db
        .insert(t.audit)
        .select(
          sql`select null as seq, ${denial('at')} as at, ${denial('actorId')} as actor_id, coalesce((select name from users where id = ${denial('actorId')}), '') as actor, ${denial('tokenId')} as token_id, substr(${denial('address')}, 1, 256) as address, substr(${denial('action')}, 1, 256) as action, '' as object, '' as name, 'denied' as outcome, substr(${denial('detail')}, 1, 256) as detail, ${denial('count')} as count from json_each(${p('denials')}) x where not exists (select 1 from audit a where ${same('a')})`,
        ),
    ),
    pruneOld: prepare(() =>
      db
        .delete(t.audit)
        .where(
          sql`seq in (select seq from audit where at < ${p('before')} order by at limit ${p('limit')})`,
        )
        .returning({ seq: t.audit.seq }),
    ),
    pruneMany: prepare(() =>
      db
        .delete(t.audit)
        .where(
          sql`seq in (select seq from audit where seq <= (select max(seq) from audit) - ${p('rows')} order by seq limit ${p('limit')})`,
        )
        .returning({ seq: t.audit.seq }),
    ),
  }

  return {
    async denied(denials) {
      if (denials.length === 0) return
      const rows = denials.map(({ at, ...row }) => ({ ...row, at: at.getTime() }))
      const values = { denials: JSON.stringify(rows) }
      await handle.write(q.add(values), q.insert(values))
    },
    async list({ actor, action, ref, outcome, since, until }, { after, limit }) {
      const [at = '', seq = ''] = after?.split('.') ?? []
      // what was made at the end of the time is not in it
      const end = until.getTime()
      const place =
        after === null || Number(at) >= end
          ? { at: end, seq: 0 }
          : { at: Number(at), seq: Number(seq) }
      const filtered = action !== '' || ref !== '' || outcome !== null
      const values = {
        actor,
        action,
        ref,
        outcome: outcome ?? '',
        since: since.getTime(),
        ...place,
        look: filtered ? LOOKED_AT : limit,
        limit: limit + 1,
      }
      const from = actor === '' ? pages.all : pages.actor
      const [last, rows] = await handle.read(from.last(values), from.page(values))
      const entries = rows.slice(0, limit)
      const ends = rows.length > limit ? entries.at(-1) : filtered ? last[0] : undefined
      return {
        entries: entries.map(toEntry),
        next: ends === undefined ? null : `${ends.at}.${ends.seq}`,
      }
    },
    async prune(before, rows, limit) {
      const values = { before: before.getTime(), rows, limit }
      const [old, many] = await handle.write(q.pruneOld(values), q.pruneMany(values))
      return old.length + many.length
    },
  }
}

/** What could turn a terminal's text around, or start a line of its own, is shown as its number (R57). */
const shown = (value: string): string =>
  value.replaceAll(
    /[\p{C}\p{Zl}\p{Zp}]/gu,
    (character) => `\\u{${character.codePointAt(0)?.toString(16) ?? ''}}`,
  )

function toEntry(row: typeof t.audit.$inferSelect): AuditEntry {
  const { seq: _seq, at, outcome, ...texts } = row
  return {
    at: new Date(at),
    actorId: texts.actorId,
    actor: shown(texts.actor),
    tokenId: texts.tokenId,
    address: shown(texts.address),
    action: shown(texts.action),
    object: shown(texts.object),
    name: shown(texts.name),
    outcome: outcome as AuditOutcome,
    detail: shown(texts.detail),
    count: texts.count,
  }
}
