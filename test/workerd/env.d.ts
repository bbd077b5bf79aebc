/** What tests inside workerd find bound; see the project `workerd` in vitest.config.ts. */
declare module 'cloudflare:workers' {
  import type { D1Database, R2Bucket, RateLimit } from '@cloudflare/workers-types'

  export const env: {
    DB: D1Database
    BLOBS: R2Bucket
    LIMIT_TRIES: RateLimit
    /** migrations/*.sql in order, each cut into its statements. */
    MIGRATIONS: { name: string; queries: string[] }[]
  }
}

declare module 'cloudflare:test' {
  /** Empties everything that is bound. */
  export function reset(): Promise<void>
}
