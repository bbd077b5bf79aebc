/** The Database port on drizzle's SQLite dialect, for every driver that can give a `Handle`. */
import { sql } from 'drizzle-orm'
import type { Database } from '../ports.ts'
import { sqliteAudit } from './audit.ts'
import { sqliteCatalog } from './catalog.ts'
import { sqliteCounters } from './counters.ts'
import { prepare, type Handle } from './handle.ts'
import { sqliteExports, sqliteImports } from './imports.ts'
import { sqliteSignatures } from './signatures.ts'
import { sqliteKeys } from './keys.ts'
import { sqliteManifests } from './manifests.ts'
import { sqliteOciUploads } from './oci-uploads.ts'
import { sqlitePeople } from './people.ts'
import { sqlitePopularity } from './popularity.ts'
import { sqliteQuotas } from './quotas.ts'
import { sqliteShares } from './shares.ts'
import { sqliteGrants, sqliteTeams } from './teams.ts'
import { sqliteEnded, sqliteSettings, sqliteTokens, sqliteUsers } from './tokens.ts'
import { sqliteBlobs, sqliteUploads } from './uploads.ts'

export { builder, hasRows, type Handle, type Query, type RowsOf, type Statement } from './handle.ts'
export { isBusy, isFull } from './failure.ts'
export * as schema from './schema.ts'

/** Prepares every statement once and returns the books. The schema must be migrated already. */
export function sqliteDatabase(handle: Handle): Database {
  const alive = prepare(() => handle.db.select({ one: sql<number>`1` }).from(sql`(select 1)`))
  const clock = prepare(() =>
    handle.db
      .select({ ms: sql<number>`cast((julianday('now') - 2440587.5) * 86400000 as integer)` })
      .from(sql`(select 1)`),
  )
  return {
    catalog: sqliteCatalog(handle),
    uploads: sqliteUploads(handle),
    blobs: sqliteBlobs(handle),
    signatures: sqliteSignatures(handle),
    users: sqliteUsers(handle),
    people: sqlitePeople(handle),
    tokens: sqliteTokens(handle),
    manifests: sqliteManifests(handle),
    ociUploads: sqliteOciUploads(handle),
    teams: sqliteTeams(handle),
    grants: sqliteGrants(handle),
    keys: sqliteKeys(handle),
    ended: sqliteEnded(handle),
    quotas: sqliteQuotas(handle),
    popularity: sqlitePopularity(handle),
    shares: sqliteShares(handle),
    counters: sqliteCounters(handle),
    audit: sqliteAudit(handle),
    settings: sqliteSettings(handle),
    exports: sqliteExports(handle),
    imports: sqliteImports(handle),
    async ping() {
      await handle.read(alive())
    },
    async now() {
      const [rows] = await handle.read(clock())
      return new Date(rows[0]?.ms ?? Number.NaN)
    },
  }
}
