/** Search over what the viewer may see, and the upkeep of its full-text index. */
import { and, eq, isNotNull, sql, type SQL } from 'drizzle-orm'
import { integer, sqliteTable, text as column } from 'drizzle-orm/sqlite-core'
import type { CatalogBook } from '../ports.ts'
import { p, viewerManages, viewerValues, visibleContainer, withoutHidden } from './fragments.ts'
import { prepare, type Handle } from './handle.ts'
import { foundColumns, toFoundImage } from './rows.ts'
import * as t from './schema.ts'
import type { Seeing } from './seeing.ts'

/** Matches that search looks at, the newest, before it narrows and joins them (R56). */
const CANDIDATES = 10_000
/** FTS5 takes its commands as rows: what to do in the column of the table's own name. */
const searchCommands = sqliteTable('search', {
  command: column('search'),
  amount: integer('rank'),
})
/** As many matches are all looked at: more than one answer would hold are begun with the newest. */
const FEW = 1000

/** Images in the order of their names, of one name the newest first. */
type Named = { entityName: string; collectionName: string; containerName: string; seq: number }
const byName = (a: Named, b: Named): number =>
  compare(a.entityName, b.entityName) ||
  compare(a.collectionName, b.collectionName) ||
  compare(a.containerName, b.containerName) ||
  b.seq - a.seq
const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

export function sqliteSearch(
  handle: Handle,
  { see }: Seeing,
): Pick<CatalogBook, 'mergeIndex' | 'search'> {
  const { db } = handle

  /** Only who is an administrator now, by role and row, matches without the scope (R14, R30). */
  const scoped = sql`${p('text')} || case when ${viewerManages} then '' else ${withoutHidden} end`
  const matches = (order: SQL, most: number) =>
    sql`select rowid as seq from search where search match ${scoped} ${order} limit ${sql.raw(String(most))}`
  const wanted = and(
    sql`(${p('arch')} = '' or instr(${p('arch')}, ',' || ${t.images.arch} || ',') > 0)`,
    sql`(${p('signed')} = 0 or ${t.images.signed} = 1)`,
    visibleContainer,
    isNotNull(t.images.blobId),
    // what is gone has an index of its own, and is little
    sql`not exists (select 1 from blobs indexed by blobs_gone where id = ${t.images.blobId} and state <> 'live')`,
  )
  const matchColumns = {
    ...foundColumns,
    seq: sql<number>`images.seq`.as('seq'),
    candidates: sql<number | null>`null`.as('candidates'),
  }
  /** A row without an image: it tells how many candidates there were, be it none. */
  const telling = (candidates: SQL) =>
    Object.fromEntries(
      Object.keys(matchColumns).map((name) => [
        name,
        (name === 'candidates' ? candidates : sql`null`).as(name),
      ]),
    ) as unknown as typeof matchColumns
  const imagesAmong = (start: Pick<Handle['db'], 'select'>, candidates: SQL) =>
    start
      .select(matchColumns)
      .from(sql`${candidates} f cross join images on images.seq = f.seq`)
      .innerJoin(t.containers, eq(t.containers.id, t.images.containerId))
      .innerJoin(t.collections, eq(t.collections.id, t.containers.collectionId))
      .innerJoin(t.entities, eq(t.entities.id, t.collections.entityId))
      .innerJoin(t.searchContent, eq(t.searchContent.rowid, t.images.seq))
  const found = db.$with('found', { seq: sql<number>`seq`.as('seq') }).as(matches(sql``, FEW + 1))
  const few = sql`(select count(*) from found) <= ${sql.raw(String(FEW))}`
  const search = {
    /** Nothing where more than a few match; otherwise all, in the order in which the index is quicker. */
    few: prepare(() =>
      imagesAmong(db.with(found), sql`found`)
        .where(and(few, wanted))
        .unionAll(
          db
            .select(telling(sql`(select count(*) from found)`))
            .from(sql`(select 1)`)
            .where(few),
        ),
    ),
    /** From the newest on, and no further than it takes to fill the answer: then nobody counts. */
    many: prepare(() =>
      imagesAmong(db, sql`(${matches(sql`order by rowid desc`, CANDIDATES)})`)
        .where(wanted)
        .unionAll(
          db
            .select(telling(sql`(select count(*) from (${matches(sql``, CANDIDATES + 1)}))`))
            .from(sql`(select 1)`),
        )
        .limit(p('limit')),
    ),
  }

  const index = {
    /** Two pieces of a size are enough to merge them; it waits for four by itself. The index remembers it. */
    eager: prepare(() =>
      db
        .insert(searchCommands)
        .select(
          sql`select 'usermerge' as command, 2 as amount where not exists (select 1 from search_config where k = 'usermerge' and v = 2)`,
        ),
    ),
    merge: prepare(() =>
      db.insert(searchCommands).values({ command: 'merge', amount: sql`${p('pages')}` }),
    ),
    /** Which pieces there are, and how much was ever written to them. */
    pieces: prepare(() =>
      db
        .select({ are: sql<string>`hex(block)`.as('are') })
        .from(sql`search_data`)
        .where(sql`id = 10`),
    ),
  }

  return {
    async mergeIndex(pages) {
      const steps = [index.pieces(), index.eager(), index.merge({ pages }), index.pieces()] as const
      const [before, , , after] = await handle.write(...steps)
      return before[0]?.are !== after[0]?.are
    },

    async search({ terms, arch, signed, limit }, viewer, now) {
      const values = viewerValues(viewer, now)
      // a NUL would end the expression for FTS5, which reads it as a C string
      const plain = terms.map((term) => term.replaceAll('\0', '\ufffd').replaceAll('"', '""'))
      const text = `({names tags description labels} : (${plain.map((term) => `"${term}"`).join(' AND ')}))`
      const query = {
        ...values,
        text,
        arch: arch.length === 0 ? '' : `,${arch.join(',')},`,
        signed: signed ? 1 : 0,
        limit: limit + 1,
      }
      const few = { ...search.few(query), long: true }
      const statements = [few, { ...search.many(query), unless: few }] as const
      return see(viewer, values, statements, (answers) => {
        const rows = answers.flat()
        const told = rows.find(({ candidates }) => candidates !== null)
        const images = rows.filter((row) => row !== told).sort((a, b) => b.seq - a.seq)
        return {
          images: images.slice(0, limit).sort(byName).map(toFoundImage),
          cut: images.length > limit || (told?.candidates ?? 0) > CANDIDATES,
        }
      })
    },
  }
}
