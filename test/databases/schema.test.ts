/** The migrations and src/sqlite/schema.ts are twins, and no hot query walks through a table. */
import BetterSqlite3 from 'better-sqlite3'
import { is } from 'drizzle-orm'
import { getTableConfig, SQLiteSyncDialect, SQLiteTable } from 'drizzle-orm/sqlite-core'
import { afterAll, describe, expect, it } from 'vitest'
import { migrate } from '../../adapters/databases/migrate.ts'
import { EMPTY_DIGEST } from '../../src/core/derived.ts'
import type { Judged, Upload } from '../../src/core/model.ts'
import type { Database, NewUser, Viewer, Writer } from '../../src/ports.ts'
import { ALL } from '../contract/audit.ts'
import { factsOfKey } from '../contract/keys.ts'
import {
  builder,
  schema,
  sqliteDatabase,
  type Handle,
  type Statement,
} from '../../src/sqlite/index.ts'

const MIGRATIONS = new URL('../../migrations', import.meta.url).pathname

const sqlite = new BetterSqlite3(':memory:')
sqlite.pragma('foreign_keys = ON')
const all = (sql: string) => sqlite.prepare(sql).all() as Record<string, unknown>[]
await migrate({ exec: (sql) => void sqlite.exec(sql), all }, MIGRATIONS)
afterAll(() => void sqlite.close())

const dialect = new SQLiteSyncDialect()
const plain = (sql: string) =>
  sql
    .toLowerCase()
    .replaceAll(/["\s]+/g, ' ')
    .trim()

/** Every ordinary table in drizzle's words; the full-text ones have no columns with types. */
const tables = Object.values(schema)
  .filter((table) => is(table, SQLiteTable))
  .map(getTableConfig)
  .filter(({ name }) => !name.startsWith('search'))

type Described = {
  columns: Record<string, unknown>[]
  indexes: Record<string, unknown>[]
  references: Record<string, unknown>[]
}

const byText = (a: unknown, b: unknown) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1)

function inDrizzle(table: (typeof tables)[number]): Described {
  const key = table.primaryKeys[0]?.columns.map(({ name }) => name)
  return {
    columns: table.columns.map((column) => ({
      name: column.name,
      type: column.getSQLType().toLowerCase(),
      notNull: column.notNull,
      primaryKey: column.primary ? 1 : (key?.indexOf(column.name) ?? -1) + 1,
      default: column.hasDefault && column.default !== undefined ? defaultOf(column) : null,
    })),
    indexes: [
      ...table.indexes.map(({ config }) => ({
        name: config.unique ? null : config.name,
        unique: config.unique,
        columns: config.columns.map((column) => ('name' in column ? column.name : '?')),
        where: config.where === undefined ? null : plain(dialect.sqlToQuery(config.where).sql),
      })),
      ...table.columns
        .filter(({ isUnique }) => isUnique)
        .map(({ name }) => ({ name: null, unique: true, columns: [name], where: null })),
    ].toSorted(byText),
    references: table.foreignKeys
      .map((foreign) => {
        const { columns, foreignTable, foreignColumns } = foreign.reference()
        return {
          from: columns[0]?.name,
          table: getTableConfig(foreignTable).name,
          to: foreignColumns[0]?.name,
          onDelete: foreign.onDelete ?? 'no action',
        }
      })
      .toSorted(byText),
  }
}

function defaultOf(column: { default: unknown; mapToDriverValue(value: never): unknown }): string {
  const value = column.mapToDriverValue(column.default as never)
  return typeof value === 'string' ? `'${value}'` : String(value)
}

function inFile(name: string): Described {
  return {
    columns: all(`PRAGMA table_xinfo(${name})`).map((column) => ({
      name: column.name,
      type: String(column.type).toLowerCase(),
      notNull: column.notnull === 1,
      primaryKey: column.pk,
      default: column.dflt_value,
    })),
    indexes: all(`PRAGMA index_list(${name})`)
      .filter(({ origin }) => origin !== 'pk')
      .map((index) => ({
        // a UNIQUE in the table has no name of its own
        name: index.unique === 1 ? null : index.name,
        unique: index.unique === 1,
        // an expression has no name
        columns: all(`PRAGMA index_info(${String(index.name)})`).map(({ name }) => name ?? '?'),
        where:
          index.partial === 1
            ? plain(
                String(
                  all(`SELECT sql FROM sqlite_master WHERE name = '${String(index.name)}'`)[0]?.sql,
                ).replace(/^.*\bWHERE\b/s, ''),
              )
            : null,
      }))
      .toSorted(byText),
    references: all(`PRAGMA foreign_key_list(${name})`)
      .map((foreign) => ({
        from: foreign.from,
        table: foreign.table,
        to: foreign.to,
        onDelete: String(foreign.on_delete).toLowerCase(),
      }))
      .toSorted(byText),
  }
}

describe('schema.ts and migrations/*.sql', () => {
  it('have the same tables', () => {
    const found = all("SELECT name FROM sqlite_master WHERE type = 'table'")
      .map(({ name }) => String(name))
      .filter((name) => !/^(sqlite_|d1_migrations$|search)/.test(name))
    expect(found.toSorted()).toEqual(tables.map(({ name }) => name).toSorted())
    expect(found.length).toBeGreaterThan(10)
  })

  for (const table of tables)
    it(`agree on ${table.name}: columns, keys, indexes, references`, () => {
      expect(inDrizzle(table)).toEqual(inFile(table.name))
    })

  for (const table of [schema.search, schema.searchKeys]) {
    const { name, columns } = getTableConfig(table)
    it(`have the same columns in the full-text index ${name}`, () => {
      const found = all(`PRAGMA table_info(${name})`).map((column) => column.name)
      expect(columns.map((column) => column.name)).toEqual(['rowid', ...found])
    })
  }
})

describe('query plans', () => {
  /** The statements of every trip, with the number of values each one takes. */
  const sent: { sql: string; values: number }[] = []

  const run = (statements: readonly Statement[]) => {
    for (const { query, values } of statements)
      sent.push({ sql: query.sql, values: query.bind(values).length })
    return statements.map(({ query, values }) => {
      const statement = sqlite.prepare<unknown[], unknown[]>(query.sql)
      const bound = query.bind(values)
      if (statement.reader) return query.rows(statement.raw().all(...bound))
      return query.rows([[statement.run(...bound)]])
    })
  }
  const database = sqliteDatabase({
    db: builder(),
    read: async (...statements: readonly Statement[]) => run(statements),
    write: async (...statements: readonly Statement[]) => run(statements),
  } as Handle)

  const now = new Date(0)
  const viewer: NonNullable<Viewer> = { userId: 'user', tokenId: 'token', scopes: ['admin'] }
  const writer: Writer = {
    userId: 'user',
    tokenId: 'token',
    admin: true,
    manages: true,
    address: null,
    now,
  }
  const path = { entity: 'e', collection: 'c', container: 'n' }
  const last = { after: '1.1', limit: 10 }
  const who = { actorId: '', tokenId: '', address: '' }
  const denial = { ...who, at: now, action: '', detail: '', count: 1 }
  const tagged = { by: 'tag', tag: 't', arch: 'amd64' } as const
  const digest = { by: 'digest', digest: 'd' } as const
  const place = { after: null, limit: 10, armor: true }
  const draft = { id: 'id', name: 'name', description: '', private: false, writer }
  const attachment = {
    imageId: 'image',
    digest: 'digest',
    size: 1,
    facts: {
      arch: 'amd64',
      signed: false,
      fingerprints: [],
      encrypted: false,
      definition: null,
      labels: {},
      partitions: [],
      truncated: [],
    },
    writer,
  }

  const upload: Upload = {
    id: 'upload',
    imageId: 'image',
    userId: 'user',
    tokenId: 'token',
    blobKey: 'key',
    handle: null,
    size: 1,
    partSize: 1,
    digest: 'digest',
    state: 'open',
    claim: null,
    leaseUntil: null,
    createdAt: now,
    expiresAt: now,
    closedAt: null,
  }

  /** What every pull and push asks. Writes are refused here, for nothing is there. */
  const week = { begin: now, container: 1, collection: 1, asker: 'a' }
  const pulled = { begin: now, container: 1, collection: 1, counts: true }
  const judged: Judged = { verdict: 'verified', why: null, signers: [], marks: [], seen: [] }
  const newUser: NewUser = {
    id: 'u',
    name: 'u',
    role: 'user',
    disabled: false,
    createdAt: now,
    entityId: 'e',
  }
  const HOT: Record<string, (database: Database) => Promise<unknown>> = {
    'findImage by tag': ({ catalog }) => catalog.findImage(path, tagged, viewer, now),
    'findImage by digest': ({ catalog }) => catalog.findImage(path, digest, viewer, now),
    'findImage by short ref': ({ catalog }) =>
      catalog.findImage({ ...path, entity: null }, tagged, viewer, now),
    findEntity: ({ catalog }) => catalog.findEntity('e', viewer, now),
    findCollection: ({ catalog }) => catalog.findCollection('e', 'c', viewer, now),
    findContainer: ({ catalog }) => catalog.findContainer(path, viewer, now),
    entityById: ({ catalog }) => catalog.entityById('id', viewer, now),
    collectionById: ({ catalog }) => catalog.collectionById('id', viewer, now),
    containerById: ({ catalog }) => catalog.containerById('id', viewer, now),
    imageById: ({ catalog }) => catalog.imageById('id', viewer, now),
    entityParent: ({ catalog }) => catalog.entityParent('e', viewer, now),
    readableBlob: ({ catalog }) => catalog.readableBlob('d', viewer, now),
    taggable: ({ catalog }) => catalog.taggable('n', 'i', viewer, now),
    listTags: ({ catalog }) => catalog.listTags('n', viewer, now),
    standing: ({ tokens }) => tokens.standing(viewer, now),
    touch: ({ tokens }) => tokens.touch(['id'], now),
    'uploads.find': ({ uploads }) => uploads.find('id', viewer, now),
    'uploads.forImage': ({ uploads }) => uploads.forImage('id', viewer, now),
    'uploads.claim': ({ uploads }) => uploads.claim('id', 'claim', now, now),
    'uploads.closed': ({ uploads }) => uploads.closed(now, 10),
    'uploads.expire': ({ uploads }) => uploads.expire(now, 10),
    'ended.since': ({ ended }) => ended.since(now),
    'blobs.dying': ({ blobs }) => blobs.dying(now, 10),
    'blobs.markDying': ({ blobs }) => blobs.markDying(now, '', 10),
    'blobs.known': ({ blobs }) => blobs.known(['a', 'b']),
    countDownloads: ({ catalog }) => catalog.countDownloads([{ containerId: 'n', count: 1 }], now),
    'uploads.open': ({ uploads }) => uploads.open(upload, writer, { perUser: 1, free: null }),
    'popularity.weeks': ({ popularity }) => popularity.weeks('n', now),
    'popularity.forgetWeeks': ({ popularity }) => popularity.forgetWeeks(now),
    'popularity.setStar': ({ popularity }) =>
      popularity.setStar({ containerId: 'n', given: true, by: writer }),
    'popularity.starred': ({ popularity }) => popularity.starred(viewer, now),
    'shares.take': ({ shares }) => shares.take('hash', now),
    'shares.look': ({ shares }) => shares.look('hash', now),
    'shares.revoke': ({ shares }) => shares.revoke('id', writer),
    setPrivate: ({ catalog }) => catalog.setPrivate(path, true, writer),
    createCollection: ({ catalog }) => catalog.createCollection({ ...draft, entityId: 'e' }),
    createContainer: ({ catalog }) => catalog.createContainer({ ...draft, collectionId: 'c' }),
    createImage: ({ catalog }) =>
      catalog.createImage({ ...draft, digest: 'digest', containerId: 'n' }),
    'attach from an upload': ({ catalog }) =>
      catalog.attach({
        ...attachment,
        source: { kind: 'upload', uploadId: 'u', claim: 'c', blobId: 'b', key: 'k' },
      }),
    'attach from a blob': ({ catalog }) =>
      catalog.attach({ ...attachment, facts: null, source: { kind: 'blob', blobId: 'b' } }),
    setTag: ({ catalog }) =>
      catalog.setTag({ containerId: 'n', arch: null, tag: 't', imageId: 'image', writer }),
    deleteTag: ({ catalog }) => catalog.deleteTag('n', 'amd64', 't', writer),
    deleteImage: ({ catalog }) =>
      catalog.deleteImage({ imageId: 'image', containerId: 'n' }, writer),
    'manifests.repository': ({ manifests }) => manifests.repository(path, viewer, now),
    'manifests.member': ({ manifests }) => manifests.member(path, 'd', viewer, now),
    'manifests.readableMember': ({ manifests }) => manifests.readableMember('d', null, viewer, now),
    'manifests.mount': ({ manifests }) =>
      manifests.mount({ containerId: 'n', digest: 'd', blobId: 'b', defaultQuota: 1, writer }),
    'manifests.removeMember': ({ manifests }) => manifests.removeMember('n', 'd', writer),
    'manifests.manifest by tag': ({ manifests }) =>
      manifests.manifest(path, { by: 'tag', tag: 't' }, viewer, now, { text: true }),
    'manifests.manifest by digest': ({ manifests }) =>
      manifests.manifest(path, { by: 'digest', digest: 'd' }, viewer, now, { text: true }),
    'manifests.manifest by tag, counted': ({ manifests }) =>
      manifests.manifest(path, { by: 'tag', tag: 't' }, viewer, now, { text: true, pull: week }),
    'manifests.manifest by digest, counted': ({ manifests }) =>
      manifests.manifest(path, { by: 'digest', digest: 'd' }, viewer, now, {
        text: true,
        pull: week,
      }),
    'manifests.lacking': ({ manifests }) =>
      manifests.lacking('n', [{ kind: 'blob', digest: 'd', size: 1 }]),
    'manifests.put': ({ manifests }) =>
      manifests.put({
        containerId: 'n',
        manifest: {
          digest: 'd',
          mediaType: 'm',
          size: 1,
          subject: 's',
          artifactType: '',
          annotations: null,
          text: '{}',
        },
        refs: [{ kind: 'blob', digest: 'd', size: 1 }],
        tags: ['t'],
        writer,
      }),
    'manifests.remove a tag': ({ manifests }) =>
      manifests.remove('n', { by: 'tag', tag: 't' }, writer),
    'manifests.remove': ({ manifests }) =>
      manifests.remove('n', { by: 'digest', digest: 'd' }, writer),
    'manifests.tags': ({ manifests }) =>
      manifests.tags(path, { after: '', limit: 10 }, viewer, now),
    'manifests.referrers': ({ manifests }) =>
      manifests.referrers(path, 'd', { after: '', artifactType: null, limit: 9 }, viewer, now),
    'ociUploads.open': ({ ociUploads }) =>
      ociUploads.open(
        { id: 'u', key: 'k', containerId: 'n', createdAt: now, expiresAt: now },
        writer,
        { perUser: 9 },
      ),
    'ociUploads.find': ({ ociUploads }) => ociUploads.find('u', viewer, now),
    'ociUploads.claim': ({ ociUploads }) =>
      ociUploads.claim('u', {
        claim: 'c',
        at: 0,
        coming: 1,
        sha256: 'd',
        tailKey: 'k',
        now,
        leaseUntil: now,
        expiresAt: now,
        free: 1,
        defaultQuota: 1,
      }),
    'ociUploads.advance': ({ ociUploads }) =>
      ociUploads.advance('u', 'c', {
        received: 1,
        tail: null,
        sha256: null,
        sha512: null,
        part: { number: 1, etag: 'e' },
        leaseUntil: now,
      }),
    'ociUploads.finish': ({ ociUploads }) =>
      ociUploads.finish('u', 'c', {
        containerId: 'n',
        digest: 'd',
        sha256: 'd',
        size: 1,
        blobId: 'b',
        key: 'k',
        defaultQuota: 1,
        writer,
      }),
    'ociUploads.expire': ({ ociUploads }) => ociUploads.expire(now, 10),
    'ociUploads.leftovers': ({ ociUploads }) => ociUploads.leftovers(now, 10),
    'ociUploads.forgetKeys': ({ ociUploads }) => ociUploads.forgetKeys(['k'], now),
    setFrozen: ({ catalog }) =>
      catalog.setFrozen({ containerId: 'n', tag: 't', arch: null, frozen: true, by: writer }),
    deleteContainer: ({ catalog }) => catalog.deleteContainer('n', writer),
    deleteCollection: ({ catalog }) => catalog.deleteCollection('c', writer),
    'teams.find': ({ teams }) => teams.find('t', viewer, now),
    'teams.setMember': ({ teams }) =>
      teams.setMember({ teamId: 't', user: 'u', owner: false, by: writer }),
    'teams.removeMember': ({ teams }) => teams.removeMember({ teamId: 't', user: 'u', by: writer }),
    'teams.accept': ({ teams }) => teams.accept('hash', writer),
    'teams.delete': ({ teams }) => teams.delete('t', writer),
    'grants.list': ({ grants }) => grants.list('c'),
    'grants.set of a user': ({ grants }) =>
      grants.set({ id: 'g', collectionId: 'c', to: { user: 'u' }, level: 1, by: writer }),
    'grants.set of a team': ({ grants }) =>
      grants.set({ id: 'g', collectionId: 'c', to: { teamId: 't' }, level: 1, by: writer }),
    'keys.named': ({ keys }) => keys.named(['A'], place, viewer, now),
    'keys.containing': ({ keys }) =>
      keys.containing({ text: 'abc', whole: false }, place, viewer, now),
    'keys.containing the whole': ({ keys }) =>
      keys.containing({ text: 'abc', whole: true }, place, viewer, now),
    'keys.find': ({ keys }) => keys.find('A', viewer, now),
    'keys.several': ({ keys }) => keys.several(['A']),
    'keys.list of an owner': ({ keys }) => keys.list('user', place, viewer, now),
    'keys.put': ({ keys }) =>
      keys.put({ facts: factsOfKey(), expected: 0, show: false, by: writer, now }),
    'audit.list': ({ audit }) => audit.list(ALL, { after: null, limit: 10 }),
    'audit.list of an actor': ({ audit }) =>
      audit.list({ ...ALL, actor: 'a', action: 'b', ref: 'c', outcome: 'done' }, last),
    'audit.denied': ({ audit }) => audit.denied([denial]),
    'audit.prune': ({ audit }) => audit.prune(now, 10, 10),
    'tokens.insert': ({ tokens }) =>
      tokens.insert(
        { id: 't', userId: 'u', name: '', scopes: [], createdAt: now, expiresAt: now },
        writer,
      ),
    'tokens.revoke': ({ tokens }) => tokens.revoke('t', writer),
    'keys.remove': ({ keys }) => keys.remove('A', { forGood: true, by: writer, now }),
    ownEntities: ({ catalog }) => catalog.ownEntities({ ...viewer, scopes: [] }, now),
    search: ({ catalog }) =>
      catalog.search({ terms: ['abc'], arch: ['amd64'], signed: false, limit: 10 }, viewer, now),
    'pullImage by tag': ({ catalog }) => catalog.pullImage(path, tagged, viewer, now, pulled),
    'pullImage by digest': ({ catalog }) => catalog.pullImage(path, digest, viewer, now, pulled),
    'pullImage by short ref': ({ catalog }) =>
      catalog.pullImage({ ...path, entity: null }, tagged, viewer, now, pulled),
    createEntity: ({ catalog }) => catalog.createEntity({ ...draft, ownerId: 'user' }),
    mergeIndex: ({ catalog }) => catalog.mergeIndex(100),
    markLost: ({ catalog }) => catalog.markLost('key'),
    'signatures.keysOf': ({ signatures }) => signatures.keysOf(['A']),
    'signatures.stale of digests': ({ signatures }) =>
      signatures.stale({ digests: ['d'], limit: 10 }),
    'signatures.stale of keys': ({ signatures }) => signatures.stale({ keys: ['A'], limit: 10 }),
    'signatures.settle': ({ signatures }) => signatures.settle([{ digest: 'd', judged }]),
    'signatures.window': ({ signatures }) => signatures.window('', 10),
    'signatures.unexamined': ({ signatures }) => signatures.unexamined('', 10),
    'signatures.record': ({ signatures }) =>
      signatures.record('d', { flaw: null, objects: [], signatures: [], more: 0 }, judged),
    'signatures.standing': ({ signatures }) => signatures.standing('i', judged),
    'signatures.setPolicy': ({ signatures }) =>
      signatures.setPolicy({
        collectionId: 'c',
        policy: { mode: 'warn', fingerprints: [] },
        by: writer,
      }),
    'uploads.setHandle': ({ uploads }) => uploads.setHandle('u', 'h'),
    'uploads.renew': ({ uploads }) => uploads.renew('u', 'c', now),
    'uploads.close': ({ uploads }) =>
      uploads.close('u', { state: 'open', claim: null }, 'aborted', now),
    'uploads.forget': ({ uploads }) => uploads.forget(['u']),
    'blobs.forget': ({ blobs }) => blobs.forget(['b']),
    'manifests.indexed': ({ manifests }) => manifests.indexed('n'),
    'manifests.unnoted': ({ manifests }) => manifests.unnoted('n'),
    'manifests.note': ({ manifests }) => manifests.note([{ imageId: 'i', manifest: 'm' }]),
    'manifests.imagesOf': ({ manifests }) => manifests.imagesOf('n', ['d']),
    'manifests.readableMember of a repository': ({ manifests }) =>
      manifests.readableMember('d', path, viewer, now),
    'manifests.member of the config': ({ manifests }) =>
      manifests.member(path, EMPTY_DIGEST, viewer, now),
    'manifests.remove with referrers': ({ manifests }) =>
      manifests.remove('n', { by: 'digest', digest: 'd' }, writer, { withReferrers: true }),
    'manifests.repositories': ({ manifests }) =>
      manifests.repositories({ after: 'e/c/n', limit: 10 }, viewer, now),
    'manifests.sweepMembers': ({ manifests }) => manifests.sweepMembers(now, 0, 10),
    'ociUploads.setHandle': ({ ociUploads }) => ociUploads.setHandle('u', 'h'),
    'ociUploads.renew': ({ ociUploads }) => ociUploads.renew('u', 'c', now),
    'ociUploads.release': ({ ociUploads }) => ociUploads.release('u', 'c'),
    'ociUploads.parts': ({ ociUploads }) => ociUploads.parts('u'),
    'ociUploads.end': ({ ociUploads }) => ociUploads.end('u', now),
    'users.create': ({ users }) => users.create(newUser, writer),
    'users.byName': ({ users }) => users.byName('u'),
    'users.vouch': ({ users }) =>
      users.vouch({
        userId: 'u',
        name: 'n',
        subject: 's',
        token: { id: 't', name: '', scopes: ['pull'], createdAt: now, expiresAt: now },
        grant: { id: 'g', collection: 'e/c', level: 1 },
        now,
      }),
    'people.find': ({ people }) => people.find('u', viewer, now),
    'people.robots of a manager': ({ people }) => people.robots('user'),
    'people.add': ({ people }) =>
      people.add({ id: 'p', entityId: 'pe', name: 'p', role: 'user', managerId: null }, writer),
    'people.free': ({ people }) => people.free('p', writer),
    'people.tokens': ({ people }) => people.tokens('p'),
    'people.token': ({ people }) => people.token('t', viewer, now),
    'people.issue': ({ people }) =>
      people.issue(
        {
          id: 't',
          userId: 'u',
          name: '',
          scopes: [],
          createdAt: now,
          expiresAt: now,
          collectionId: '',
          containerId: '',
        },
        writer,
      ),
    'people.revoke': ({ people }) => people.revoke('t', writer),
    'people.transfer': ({ people }) =>
      people.transfer({ entityId: 'e', from: 'u', to: 'v' }, writer),
    'tokens.listFor': ({ tokens }) => tokens.listFor('u'),
    'teams.create': ({ teams }) =>
      teams.create({
        id: 't',
        name: 't',
        description: '',
        open: false,
        owner: 'u',
        anybody: true,
        by: writer,
      }),
    'teams.change': ({ teams }) =>
      teams.change({ teamId: 't', description: '', open: null, by: writer }),
    'teams.join': ({ teams }) => teams.join('t', writer),
    'teams.invite': ({ teams }) =>
      teams.invite({ id: 'i', teamId: 't', hash: 'h', expiresAt: now, by: writer }),
    'teams.invitations': ({ teams }) => teams.invitations('t', now),
    'teams.revokeInvitation': ({ teams }) =>
      teams.revokeInvitation({ id: 'i', teamId: 't', by: writer }),
    'ended.prune': ({ ended }) => ended.prune(now),
    'quotas.usages of an entity': ({ quotas }) => quotas.usages({ entityId: 'e' }, '', 10),
    'quotas.usages of an owner': ({ quotas }) => quotas.usages({ ownerId: 'u' }, '', 10),
    'quotas.usages of all': ({ quotas }) => quotas.usages('all', '', 10),
    'quotas.setQuota': ({ quotas }) => quotas.setQuota({ entityId: 'e', quota: 1, by: writer }),
    'shares.create': ({ shares }) =>
      shares.create({
        id: 's',
        imageId: 'i',
        hash: 'h',
        note: '',
        createdBy: 'user',
        expiresAt: now,
        count: 1,
        by: writer,
      }),
    'shares.find': ({ shares }) => shares.find('s', viewer, now),
    'shares.list of a container': ({ shares }) => shares.list({ containerId: 'n' }, viewer, now),
    'shares.list of a creator': ({ shares }) => shares.list({ creatorId: 'u' }, viewer, now),
    'shares.prune': ({ shares }) => shares.prune(now),
    'counters.read': ({ counters }) => counters.read('n', now),
    'counters.add': ({ counters }) => counters.add([{ name: 'n', period: now, count: 1 }]),
    'counters.prune': ({ counters }) => counters.prune(now),
    'settings.get': ({ settings }) => settings.get('k'),
    'settings.setOnce': ({ settings }) => settings.setOnce('k', 'v'),
    'settings.set': ({ settings }) => settings.set('k', 'v'),
    'blobs.liveCount': ({ blobs }) => blobs.liveCount(),
    'imports.expire': ({ imports }) => imports.expire(now),
    'imports.leftovers': ({ imports }) => imports.leftovers(now, 10),
    'imports.forgetKeys': ({ imports }) => imports.forgetKeys(['k']),
    'imports.tidy': ({ imports }) => imports.tidy(now),
  }

  /** What answers all that there is, or moves it: nobody's request waits for these but their own. */
  const COLD = new Set([
    'users.list',
    'people.list',
    'teams.list',
    // they look for another administrator among the users
    'users.createFirstAdmin',
    'users.claimAdmin',
    'people.change',
    'people.remove',
    ...['begin', 'rows', 'blob'].map((name) => `exports.${name}`),
    ...['open', 'find', 'list', 'stageRows', 'stageBlob', 'setHandle', 'readyBlob'].map(
      (name) => `imports.${name}`,
    ),
    ...['stagedBlob', 'stagedNames', 'stagedManifest', 'conflicts'].map(
      (name) => `imports.${name}`,
    ),
    ...['finish', 'report', 'abort'].map((name) => `imports.${name}`),
  ])

  /**
   * Steps of a plan that walk through a table. Not among them: one row, the values of a list, the
   * guard (one row), the full-text indexes asked by rowid or for what matches (192: from the newest
   * on), the few uploads that run (R50), what a subquery has found by an index, the tag names of one image (x), the parts of
   * one key (n, s, u), one window of blobs (b) and the live ones that are counted up to a limit, the
   * people and collections of one change of rights (pu, pc), which are looked up, the bounded candidates
   * of a search (found, f) and what one person was granted (sx), the referrers that go with one manifest
   * (going), and the few imports and invitations.
   */
  const walks = (sql: string, values: number) =>
    sqlite
      .prepare(`EXPLAIN QUERY PLAN ${sql}`)
      .all(...Array.from({ length: values }, () => null))
      .map((step) => (step as { detail: string }).detail)
      .filter((detail) => detail.startsWith('SCAN '))
      .filter(
        (detail) =>
          !/^SCAN (CONSTANT ROW|guard( EXISTS)?|x|b|blobs USING COVERING INDEX blobs_live_digest|pu|pc|f|found|sx|going|imports|invitations|json_each .*|(pm|[lnsux]) (EXISTS )?VIRTUAL .*|search VIRTUAL TABLE INDEX (0|192):(=|M\d+)|search_keys VIRTUAL TABLE INDEX \d+:(=|M1>?)|uploads USING (COVERING )?INDEX uploads_(running|closed)|(oci_uploads|ou) USING (COVERING )?INDEX oci_uploads_open|\(subquery-\d+\))$/.test(
            detail,
          ),
      )

  it('the detector sees a walk', () => {
    expect(walks('SELECT * FROM images WHERE description = ?', 1)).toHaveLength(1)
    expect(walks('SELECT * FROM images ORDER BY digest', 0)).toHaveLength(1)
    expect(walks('DELETE FROM search WHERE tags = ?', 1)).toHaveLength(1)
    expect(walks('SELECT * FROM blobs WHERE size = ?', 1)).toHaveLength(1)
    expect(walks('SELECT * FROM images WHERE id = ?', 1)).toEqual([])
  })

  for (const [name, call] of Object.entries(HOT))
    it(`${name} walks through no table, and shows the planner no value`, async () => {
      sent.length = 0
      sqlite.exec('BEGIN')
      // a refusal is fine: all statements of the batch were noted before it ran
      await call(database).catch(() => undefined)
      sqlite.exec('ROLLBACK')
      expect(sent.length).toBeGreaterThan(0)
      for (const { sql, values } of sent) {
        expect(walks(sql, values), sql).toEqual([])
        // it would prepare the statement anew for each other value
        expect(sql.replaceAll(/'[^']*'|(likely\(|cast\()\?/g, '')).not.toContain('?')
      }
    })

  it('nothing that asks the database is missing above', async () => {
    const called = new Set<string>()
    const watched = Object.fromEntries(
      Object.entries(database).map(([book, methods]) => [
        book,
        typeof methods === 'function'
          ? methods
          : Object.fromEntries(
              Object.entries(methods as Record<string, (...args: unknown[]) => unknown>).map(
                ([name, method]) => [
                  name,
                  (...args: unknown[]) => {
                    called.add(`${book}.${name}`)
                    return method(...args)
                  },
                ],
              ),
            ),
      ]),
    ) as unknown as Database
    sqlite.exec('BEGIN')
    for (const call of Object.values(HOT)) await call(watched).catch(() => undefined)
    sqlite.exec('ROLLBACK')
    const there = Object.entries(database).flatMap(([book, methods]) =>
      typeof methods === 'function' ? [] : Object.keys(methods).map((name) => `${book}.${name}`),
    )
    expect(there.filter((name) => !called.has(name) && !COLD.has(name))).toEqual([])
    expect([...COLD].filter((name) => called.has(name) || !there.includes(name))).toEqual([])
  })
})
