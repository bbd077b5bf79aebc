/** The core put together in this process, with a clock the test holds and stores it may slow down. */
import { createAccess, DEFAULT_RULES } from '../../src/core/access.ts'
import { aside, connect } from '../../adapters/databases/better-sqlite3.ts'
import { openWith, type Connection } from '../../adapters/databases/sync.ts'
import { migrations } from '../../adapters/node/main.ts'
import { randomIds } from '../../adapters/system.ts'
import { createCatalog } from '../../src/core/catalog.ts'
import { SCOPES, type Claims } from '../../src/core/model.ts'
import { createSweep, type SweepBudget } from '../../src/core/sweep.ts'
import { createUploads } from '../../src/core/uploads.ts'
import type { BlobStore, Bytes, Database, LogFields } from '../../src/ports.ts'
import { sha256 } from '../protocol/client.ts'
import { operator } from '../fixtures/operator.ts'

export const HOUR_MS = 3_600_000
export const DAY_MS = 24 * HOUR_MS
const FOREVER = new Date('2100-01-01')
const REGISTRY = 'ab'.repeat(12)

export type Core = Awaited<ReturnType<typeof coreWith>>

/** A clock that stands still until it is moved; `moved` is by how many milliseconds. */
export function heldClock() {
  let at = Date.parse('2030-01-01')
  return { now: () => new Date(at), move: (ms: number) => void (at += ms) }
}

export async function* bytesOf(bytes: Uint8Array): Bytes {
  yield bytes
}

/**
 * Catalog, uploads and sweep over a database in memory and the given store; `around` may put
 * something between them and what they use, such as delays.
 */
export async function coreWith(options: {
  blobs: BlobStore
  clock?: ReturnType<typeof heldClock>
  graceSeconds: number
  intervalSeconds?: number
  around?: <T extends object>(port: T) => T
  /** Bytes that an entity may take. */
  defaultQuota?: number
}) {
  const { clock = heldClock(), around = (port) => port, defaultQuota = null } = options
  let connection: Connection | undefined
  const tapped: typeof connect = (file, how) => (connection = connect(file, how))
  const opened = await openWith({ connect: tapped, aside }, ':memory:', {
    mode: 'server',
    migrations: migrations(),
  })
  const database: Database = around(opened.database)
  const blobs = around(options.blobs)
  if ((await options.blobs.readId()) === null) await options.blobs.writeId(REGISTRY)
  const events: { name: string; fields: LogFields }[] = []
  const log = {
    event: (_: string, name: string, fields: LogFields = {}) => void events.push({ name, fields }),
  }
  const access = createAccess(DEFAULT_RULES)
  const shared = { database, blobs, clock, ids: randomIds, log, minFree: 0, access, defaultQuota }
  const catalog = createCatalog(shared)
  const uploads = createUploads(shared)
  /** A sweep as a fresh start of the server has it; a persistent one asks the database for the time. */
  const startSweep = (how: { budget?: SweepBudget; persistent?: boolean } = {}) =>
    createSweep({
      ...shared,
      ...how,
      database: { ...database, now: async () => clock.now() },
      registryId: REGISTRY,
      graceSeconds: options.graceSeconds,
      intervalSeconds: options.intervalSeconds ?? 900,
    })

  return {
    /** Without anything in between. */
    database: opened.database,
    blobs: options.blobs,
    clock,
    catalog,
    uploads,
    /** For what takes the same as these two. */
    shared: { ...shared, shortRefs: 'default' as const },
    events,
    /** The database behind the books' back: rows of a query, statements without. */
    rows: (sql: string) => connection?.all(sql) ?? [],
    exec: (sql: string) => connection?.exec(sql),
    startSweep,
    close: () => opened.close(),

    /** A user with a token, and a container `NAME/c/n` of theirs. */
    async user(
      name: string,
      options: { private?: boolean; role?: 'admin' | 'user'; powerful?: boolean } = {},
    ) {
      const [userId, tokenId] = [randomIds.next(), randomIds.next()]
      const createdAt = clock.now()
      await opened.database.users.create(
        {
          id: userId,
          entityId: randomIds.next(),
          name,
          role: options.role ?? 'user',
          disabled: false,
          createdAt,
        },
        operator(),
      )
      const scopes = SCOPES.filter((scope) => scope !== 'admin' || options.powerful)
      await opened.database.tokens.insert(
        {
          id: tokenId,
          userId,
          name: 'test',
          scopes,
          createdAt,
          expiresAt: FOREVER,
        },
        operator(),
      )
      const claims: Claims = { tokenId, userId, scopes, expiresAt: FOREVER }
      const { entity } = await catalog.entity(name, claims)
      const draft = { description: '', private: options.private ?? false }
      const collection = await catalog.createCollection(
        { ...draft, name: 'c', entity: entity.id },
        claims,
      )
      const container = await catalog.createContainer(
        { ...draft, name: 'n', collection: collection.id },
        claims,
      )
      return { name, claims, container: container.id }
    },

    /** A push without its tag: the image's id when it has its bytes. */
    async push(who: { claims: Claims; container: string }, bytes: Uint8Array): Promise<string> {
      const { claims, container } = who
      const digest = sha256(bytes)
      const draft = { hash: `sha256.${digest}`, description: '', container }
      const image = await catalog.createImage(draft, claims)
      if (image.uploaded) return image.id
      const { id, blobKey } = await uploads.openSingle(image.id, bytes.length, digest, claims)
      const ticket = { upload: id, key: blobKey, size: bytes.length, sha256: digest }
      await uploads.receiveSingle(ticket, bytesOf(bytes))
      await uploads.completeSingle(image.id, claims)
      return image.id
    },
  }
}

/**
 * Puts a few turns of the event loop before and after each call of a port, its books included, and
 * now and then loses the answer of a call that was carried out (R7).
 */
export function delayed(random: () => number, lose: (name: string) => boolean) {
  const wait = async () => {
    for (let turns = Math.floor(random() * 4); turns > 0; turns--)
      await new Promise((resolve) => setImmediate(resolve))
  }
  return surrounded(wait, (name) => {
    if (lose(name)) throw new Error('the answer was lost')
  })
}

/** Waits for `turn` before and after each call of a port, its books included; then tells who has `answered`. */
export function surrounded(
  turn: () => Promise<unknown>,
  answered: (name: string) => void = () => {},
) {
  const around = <T extends object>(port: T): T =>
    new Proxy(port, {
      get(target, name) {
        const value: unknown = Reflect.get(target, name)
        if (typeof value === 'object' && value !== null) return around(value)
        if (typeof value !== 'function') return value
        return async (...args: unknown[]) => {
          await turn()
          const result: unknown = await Reflect.apply(value, target, args)
          await turn()
          answered(String(name))
          return result
        }
      },
    })
  return around
}

/** SHA-256 of what is stored under a key; null for nothing. */
export async function readAll(blobs: BlobStore, key: string): Promise<string | null> {
  const blob = await blobs.get(key)
  if (blob === null) return null
  const chunks: Uint8Array[] = []
  for await (const chunk of blob.stream()) chunks.push(chunk)
  return sha256(Buffer.concat(chunks))
}

/** Everything in the store. */
export async function keysOf(blobs: BlobStore): Promise<string[]> {
  const keys: string[] = []
  for (let cursor: string | null = null; ;) {
    const page = await blobs.list(cursor, 1000)
    keys.push(...page.blobs.map(({ key }) => key))
    if (page.cursor === null) return keys
    cursor = page.cursor
  }
}
