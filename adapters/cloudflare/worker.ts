/**
 * Entry on Cloudflare Workers: D1 holds the books, R2 (or a server of the S3 protocol) the bytes.
 * Each isolate puts the registry together at its first request.
 */
import { createHash } from 'node:crypto'
import type {
  ExecutionContext,
  Fetcher,
  R2Bucket,
  ScheduledController,
} from '@cloudflare/workers-types'
import info from '../../package.json' with { type: 'json' }
import { foreignVerifier, tokenIssuer, tokenVerifier, verifierOf } from '../../src/admin.ts'
import { createApp, ENDED_MS, type App, type Connection } from '../../src/app.ts'
import { parseConfig, type Config } from '../../src/config.ts'
import { RegistryError } from '../../src/errors.ts'
import type { BlobStore, Database, Ended, Log, RateLimiter } from '../../src/ports.ts'
import { bind, bindBucket } from '../bind.ts'
import { r2Blobs } from '../blobs/r2.ts'
import { d1Database, type D1Binding } from '../databases/d1.ts'
import { cloudflareLimiter, type RateLimitBinding } from '../limits/cloudflare.ts'
import { memoryLimiter } from '../limits/memory.ts'
import { parseSigningKeys, type SigningKeys } from '../signing-keys.ts'
import { collectedLog, randomIds, systemClock } from '../system.ts'
import { workerAssets } from './assets.ts'
import { workerFetchJson } from './fetch-json.ts'
import { MIGRATIONS } from './migrations.ts'
import { workerTransfer } from './transfer.ts'

export type Env = {
  DB?: D1Binding
  BLOBS?: R2Bucket
  ASSETS?: Fetcher
  LIMIT_REQUESTS?: RateLimitBinding
  LIMIT_LOGINS?: RateLimitBinding
  LIMIT_SEARCHES?: RateLimitBinding
  LIMIT_KEYS?: RateLimitBinding
} & Record<string, unknown>

/** A revoked token's downloads end within this time (R25). */
const ENDED_POLL_MS = 1000
/** Where tickets are used without a question to the database. */
const TICKETED = /^https?:\/\/[^/]*\/v1\/(?:blob|part)\b/

type Opened = { app: App; refreshEnded(): Promise<void> }

/** Kept only when it is complete: a promise would tie requests to the one that began it. */
let opened: Opened | undefined

export default {
  async fetch(request: Request, env: Env, context: ExecutionContext): Promise<Response> {
    // Such a Host would begin another path in the URL that routes are looked up by (R33).
    if (/[^\w.:[\]-]/.test(request.headers.get('host') ?? ''))
      return refusal(400, 'The Host header of this request is no host name')
    const registry = await openOnce(env, context)
    if (registry === null) return notConfigured()
    if (TICKETED.test(request.url)) await registry.refreshEnded()
    const connection: Connection = {
      peer: {
        // put there by Cloudflare's edge, which lets no client set it
        address: request.headers.get('cf-connecting-ip'),
        // not parsed: a Host that is none makes no URL
        encrypted: request.url.startsWith('https:'),
      },
      waitUntil: (work) => context.waitUntil(work),
    }
    const answer = Promise.resolve(registry.app.fetch(request, connection))
    // A completion goes on when its client has hung up (R20).
    if (request.method !== 'GET' && request.method !== 'HEAD')
      context.waitUntil(answer.catch(() => undefined))
    return answer
  },

  /** The cron trigger; runs know of each other by the settings, for no isolate need live so long. */
  async scheduled(_: ScheduledController, env: Env, context: ExecutionContext): Promise<void> {
    await (await openOnce(env, context))?.app.sweep()
  },
}

/** The registry of this isolate; null when it cannot be put together, with the reason in the log. */
async function openOnce(env: Env, context: ExecutionContext): Promise<Opened | null> {
  if (opened !== undefined) return opened
  const opening = open(env)
  // Goes on when the client of this first request leaves.
  context.waitUntil(opening.catch(() => undefined))
  try {
    const made = await opening
    // Another request may have been first: what is known of running uploads is kept in one place.
    return (opened ??= made)
  } catch (error) {
    collectedLog().event('error', 'not configured', {
      reason: error instanceof RegistryError ? error.message : String(error),
    })
    return null
  }
}

/** A bucket that failed the test of signed addresses is tested again after this time. */
const RETRY_MS = 3_600_000
/**
 * Fewer than 50 queries and 50 calls to the store in each run, which is what a free account has; an
 * S3 server is called for every key that is deleted.
 */
const SWEEP_BUDGET = {
  r2: { pages: 2, aborts: 8, keys: 500, verdicts: 1, images: 1 },
  s3: { pages: 1, aborts: 6, keys: 10, verdicts: 1, images: 1 },
}

async function open(env: Env): Promise<Opened> {
  const strings = Object.entries(env).filter(
    (entry): entry is [string, string] => typeof entry[1] === 'string',
  )
  const config = parseConfig(Object.fromEntries(strings), 'workers')
  const log: Log = config.log === 'off' ? { event: () => {} } : collectedLog()
  const { secret, signingKeys } = config
  const signing = readKeys(signingKeys?.reveal() ?? '')
  if (secret === null) throw new Error('parseConfig lets no Worker go without a secret')
  const database = d1Database(bound(env.DB, 'DB', 'D1'), { migrations: MIGRATIONS })
  const blobs = await openBlobs(config, env, database, log)
  const registryId =
    config.s3 === null
      ? await bind(database, blobs, randomIds, log)
      : await bindBucket(database, blobs, randomIds)
  const keys = [signing.current, ...signing.previous]
  const ended = endedIds(database, log)
  const app = createApp({
    config,
    version: info.version,
    registryId,
    secret: secret.reveal(),
    ...(config.secretPrevious === null ? {} : { previousSecret: config.secretPrevious.reveal() }),
    ...(config.setupSecret === null ? {} : { setupSecret: config.setupSecret.reveal() }),
    database,
    blobs,
    verifier: verifierOf(
      tokenVerifier({ registryId, keys, clock: systemClock }),
      foreignVerifier({
        issuers: config.issuers,
        fetchJson: workerFetchJson,
        vouch: database.users.vouch,
        clock: systemClock,
        ids: randomIds,
        log,
      }),
    ),
    keys,
    issuer: tokenIssuer({ registryId, signingKey: signing.current }),
    transfer: workerTransfer,
    ...(env.ASSETS === undefined ? {} : { assets: workerAssets(env.ASSETS) }),
    limiter: openLimiter(env),
    ended,
    // What is only counted in memory goes with the isolate.
    tallyEveryMs: 0,
    sweep: { budget: SWEEP_BUDGET[config.s3 === null ? 'r2' : 's3'], persistent: true },
    clock: systemClock,
    ids: randomIds,
    log,
  })
  return { app, refreshEnded: ended.refresh }
}

/** R2 by its binding, or the bucket that the settings name: R2 by its S3 keys, for example. */
async function openBlobs(
  { s3 }: Config,
  env: Env,
  { settings }: Pick<Database, 'settings'>,
  log: Log,
): Promise<BlobStore> {
  if (s3 === null) return r2Blobs(bound(env.BLOBS, 'BLOBS', 'R2'))
  // The SDK takes its time to start, so only those pay who use it.
  const { s3Blobs } = await import('../blobs/s3.ts')
  const options = { clock: systemClock, log, body: fixedBody }
  // Isolates start all the time: a bucket is tried out once for each configuration (R62).
  const noted = `s3_check.${createHash('sha256').update(JSON.stringify(s3)).digest('hex')}`
  const known = await settings.get(noted)
  const now = systemClock.now().getTime()
  if (known === 'trusted') return s3Blobs(s3, { ...options, proven: true })
  if (known !== null && now - Number(known) < RETRY_MS) {
    log.event('warn', 's3.redirect-off', {
      note: 'the bucket failed the test of signed addresses; image bytes go through this Worker until it is tested again',
    })
    return s3Blobs(s3, { ...options, proven: false })
  }
  const blobs = await s3Blobs(s3, options)
  const failed = s3.redirect && blobs.direct === undefined
  await settings.set(noted, failed ? String(now) : 'trusted')
  return blobs
}

/** The bindings that there are, by the names of the rules that they serve. */
function openLimiter(env: Env): RateLimiter {
  return cloudflareLimiter(memoryLimiter({ clock: systemClock }), {
    requests: env.LIMIT_REQUESTS,
    logins: env.LIMIT_LOGINS,
    searches: env.LIMIT_SEARCHES,
    keys: env.LIMIT_KEYS,
  })
}

/** A body as `fetch` of workerd sends it, with its length. */
function fixedBody(chunks: AsyncIterable<Uint8Array>, size: number) {
  const fixed = new FixedLengthStream(size)
  const writer = fixed.writable.getWriter()
  const pump = async () => {
    try {
      for await (const chunk of chunks) await writer.write(chunk)
      await writer.close()
    } catch (error) {
      await writer.abort(error)
    }
  }
  pump().catch(() => undefined)
  // the types of Node and of the DOM name the same streams
  return fixed.readable as never
}

/**
 * The ids whose tickets have ended (R25), asked for anew when a ticket is used and they are older
 * than a second: isolates tell each other nothing.
 */
function endedIds(database: Database, log: Log): Ended & { refresh(): Promise<void> } {
  let ids = new Set<string>()
  let askedAt = Number.NEGATIVE_INFINITY
  return {
    has: (id) => ids.has(id),
    async refresh() {
      const now = systemClock.now().getTime()
      if (now - askedAt < ENDED_POLL_MS) return
      try {
        ids = new Set(await database.ended.since(new Date(now - ENDED_MS)))
        askedAt = now
      } catch (error) {
        log.event('error', 'ended', { reason: String(error) })
      }
    },
  }
}

function bound<T>(binding: T | undefined, name: string, kind: string): T {
  if (binding !== undefined) return binding
  throw new RegistryError('invalid', `There is no ${kind} binding ${name}; see wrangler.toml.`)
}

function readKeys(text: string): SigningKeys {
  try {
    return parseSigningKeys(text)
  } catch (cause) {
    throw new RegistryError(
      'invalid',
      'SREG_SIGNING_KEYS: does not hold keys as "node scripts/worker-secrets.mjs" makes them',
      { cause },
    )
  }
}

/** Never 401: a client must not take a broken deployment for a bad token. */
function notConfigured(): Response {
  return refusal(
    500,
    'This registry is not configured; its administrator finds the reason in its log.',
  )
}

/** A refusal in the envelope of the app's, for what comes before the app. */
function refusal(code: number, message: string): Response {
  return new Response(JSON.stringify({ error: { code, message } }), {
    status: code,
    headers: { 'Content-Type': 'application/json', 'Cache-Control': 'no-store' },
  })
}
