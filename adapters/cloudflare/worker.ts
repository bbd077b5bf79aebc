/**
 * Entry on Cloudflare Workers: D1 holds the books, R2 (or a server of the S3 protocol) the bytes.
 * Each isolate puts the registry together at its first request.
 */
import type { ExecutionContext, R2Bucket, ScheduledController } from '@cloudflare/workers-types'
import info from '../../package.json' with { type: 'json' }
import { tokenIssuer, tokenVerifier } from '../../src/admin.ts'
import { createApp, type App, type Connection } from '../../src/app.ts'
import { parseConfig } from '../../src/config.ts'
import { RegistryError } from '../../src/errors.ts'
import type { Ended, Log } from '../../src/ports.ts'
import { bind } from '../bind.ts'
import { r2Blobs } from '../blobs/r2.ts'
import { d1Database, type D1Binding } from '../databases/d1.ts'
import { parseSigningKeys, type SigningKeys } from '../signing-keys.ts'
import { collectedLog, randomIds, systemClock } from '../system.ts'
import { MIGRATIONS } from './migrations.ts'
import { workerTransfer } from './transfer.ts'

export type Env = { DB?: D1Binding; BLOBS?: R2Bucket } & Record<string, unknown>

/** R25: what ended elsewhere is not known here; a ticket outlives the revocation of its token. */
const NOTHING_ENDED: Ended = { has: () => false }

/** Kept only when it is complete: a promise would tie requests to the one that began it. */
let opened: App | undefined

export default {
  async fetch(request: Request, env: Env, context: ExecutionContext): Promise<Response> {
    const app = await openOnce(env, context)
    if (app === null) return notConfigured()
    const connection: Connection = {
      peer: {
        // put there by Cloudflare's edge, which lets no client set it
        address: request.headers.get('cf-connecting-ip'),
        encrypted: new URL(request.url).protocol === 'https:',
      },
      waitUntil: (work) => context.waitUntil(work),
    }
    const answer = Promise.resolve(app.fetch(request, connection))
    // A completion goes on when its client has hung up (R20).
    if (request.method !== 'GET' && request.method !== 'HEAD')
      context.waitUntil(answer.catch(() => undefined))
    return answer
  },

  /** The cron trigger; runs know of each other by the settings, for no isolate need live so long. */
  async scheduled(_: ScheduledController, env: Env, context: ExecutionContext): Promise<void> {
    await (await openOnce(env, context))?.sweep()
  },
}

/** The registry of this isolate; null when it cannot be put together, with the reason in the log. */
async function openOnce(env: Env, context: ExecutionContext): Promise<App | null> {
  if (opened !== undefined) return opened
  const opening = open(env)
  // Goes on when the client of this first request leaves.
  context.waitUntil(opening.catch(() => undefined))
  try {
    return (opened = await opening)
  } catch (error) {
    collectedLog().event('error', 'not configured', {
      reason: error instanceof RegistryError ? error.message : String(error),
    })
    return null
  }
}

/** Some 25 queries and as many calls to R2 for each run, of the 50 that a free account has. */
const SWEEP_BUDGET = { pages: 2, aborts: 8 }

async function open(env: Env): Promise<App> {
  const strings = Object.entries(env).filter(
    (entry): entry is [string, string] => typeof entry[1] === 'string',
  )
  const config = parseConfig(Object.fromEntries(strings), 'workers')
  const log: Log = config.log === 'off' ? { event: () => {} } : collectedLog()
  const { secret, signingKeys } = config
  const signing = readKeys(signingKeys?.reveal() ?? '')
  if (secret === null) throw new Error('parseConfig lets no Worker go without a secret')
  const database = d1Database(bound(env.DB, 'DB', 'D1'), { migrations: MIGRATIONS })
  const blobs = r2Blobs(bound(env.BLOBS, 'BLOBS', 'R2'))
  const registryId = await bind(database, blobs, randomIds, log)
  const keys = [signing.current, ...signing.previous]
  return createApp({
    config,
    version: info.version,
    registryId,
    secret: secret.reveal(),
    ...(config.secretPrevious === null ? {} : { previousSecret: config.secretPrevious.reveal() }),
    ...(config.setupSecret === null ? {} : { setupSecret: config.setupSecret.reveal() }),
    database,
    blobs,
    verifier: tokenVerifier({ registryId, keys, clock: systemClock }),
    keys,
    issuer: tokenIssuer({ registryId, signingKey: signing.current }),
    transfer: workerTransfer,
    ended: NOTHING_ENDED,
    // What is only counted in memory goes with the isolate.
    tallyEveryMs: 0,
    sweep: { budget: SWEEP_BUDGET, persistent: true },
    clock: systemClock,
    ids: randomIds,
    log,
  })
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
  const message = 'This registry is not configured; its administrator finds the reason in its log.'
  return new Response(JSON.stringify({ error: { code: 500, message } }), {
    status: 500,
    headers: { 'Content-Type': 'application/json', 'Cache-Control': 'no-store' },
  })
}
