/**
 * What our lookup by tag would cost without us: the same statement, on a copy of our database, behind
 * one route of Hono's and nothing else. A program: node bench/systems/bare.ts DATABASE PORT
 */
import { serve } from '@hono/node-server'
import BetterSqlite3 from 'better-sqlite3'
import { Hono } from 'hono'
import { builder, sqliteDatabase, type RowsOf, type Statement } from '../../src/sqlite/index.ts'

const [file = '', port = ''] = process.argv.slice(2)

/** The statement by which the server finds an image by its tag, taken from what it would run. */
async function lookup(): Promise<Statement> {
  let asked: readonly Statement[] = []
  const take = <T extends readonly Statement[]>(...statements: T) => {
    asked = statements
    return Promise.resolve(statements.map(() => []) as unknown as RowsOf<T>)
  }
  const { catalog } = sqliteDatabase({ db: builder(), read: take, write: take })
  const path = { entity: '\0entity', collection: '\0collection', container: '\0container' }
  const selector = { by: 'tag', tag: '\0tag', arch: '\0arch' } as const
  await catalog.findImage(path, selector, null, new Date(0))
  const found = asked.find(({ query }) => query.sql.includes('from "tags"'))
  if (found === undefined) throw new Error('the lookup by tag is another one now: mend bare.ts')
  return found
}

const { query, values } = await lookup()
// what to put where, by what stands there
const places = query.bind(values)
const statement = new BetterSqlite3(file, { readonly: true }).prepare(query.sql)

const app = new Hono()
app.get('/v1/images/:entity/:collection/:image', (c) => {
  const [container = '', tag = ''] = c.req.param('image').split(':')
  const given: Record<string, string> = {
    '\0entity': c.req.param('entity'),
    '\0collection': c.req.param('collection'),
    '\0container': container,
    '\0tag': tag,
    '\0arch': c.req.query('arch') ?? 'amd64',
  }
  const row = statement.get(...places.map((value) => given[value as string] ?? value))
  return row === undefined ? c.json({ error: 'not found' }, 404) : c.json({ data: row })
})
app.get('/', (c) => c.text('ready'))
serve({ fetch: app.fetch, hostname: '127.0.0.1', port: Number(port) })
