/** The registry on a host: data folder, SQLite, blobs on disk, put together and served. */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import {
  createAdmin,
  foreignVerifier,
  tokenIssuer,
  tokenVerifier,
  verifierOf,
} from '../../src/admin.ts'
import { createApp, ENDED_MS, type App } from '../../src/app.ts'
import type { Config } from '../../src/config.ts'
import { RegistryError } from '../../src/errors.ts'
import type { BlobStore, Clock, Ended, Log } from '../../src/ports.ts'
import { bindBucket, bindFolder } from '../bind.ts'
import { diskBlobs } from '../blobs/disk.ts'
import type { OpenDatabase, OpenOptions } from '../databases/sync.ts'
import { memoryLimiter } from '../limits/memory.ts'
import { consoleLog, logForm, randomIds, systemClock } from '../system.ts'
import { hostAssets } from './assets.ts'
import {
  lockDataFolder,
  openDataFolder,
  readOrCreateSecret,
  readOrCreateSigningKeys,
  type DataFolder,
} from './data-folder.ts'
import { hostFetchJson } from './fetch-json.ts'
import type { RunningRegistry } from './first-run.ts'
import type { Platform } from './platform.ts'

/** True while this module itself asks the database: tests count the trips of requests. */
let inBackground = false

/** A revoked token's downloads end within this time (R25). */
const ENDED_POLL_MS = 1000
/** The first sweep only marks (R43); it comes soon, so that the second can act. */
const FIRST_SWEEP_MS = 10_000

/** Opens everything, serves, and returns what the start-up lines need. */
export async function startRegistry(
  config: Config,
  program: {
    platform: Platform
    version: string
    migrations: string
    onTrip?: OpenOptions['onTrip']
  },
): Promise<RunningRegistry> {
  const { platform } = program
  const log = consoleLog({ form: logForm(config.log) })
  const clock = systemClock
  const ids = randomIds
  const folder = await openDataFolder(config.data, { create: true })
  /** What must be given back, the last taken first. */
  const taken: (() => unknown)[] = [await lockDataFolder(folder, platform)]
  const release = async () => {
    for (const give of taken.toReversed()) await give()
  }
  try {
    const secret = config.secret ?? (await readOrCreateSecret(folder))
    const signing = await readOrCreateSigningKeys(folder)
    const opened = await platform.openDatabase(folder.database, {
      mode: 'server',
      migrations: program.migrations,
      onTrip: (kind, statements) => {
        if (!inBackground) program.onTrip?.(kind, statements)
      },
    })
    taken.push(() => opened.close())
    const { database } = opened
    const blobs = await openBlobs(config, folder, clock, log)
    const registryId =
      config.s3 === null
        ? await bindFolder(database, blobs, { ids, log, folder: folder.blobsRoot })
        : await bindBucket(database, blobs, ids)
    const keys = [signing.current, ...signing.previous]
    const { issuers } = config
    const { vouch } = database.users
    const verifier = verifierOf(
      tokenVerifier({ registryId, keys, clock }),
      foreignVerifier({ issuers, fetchJson: hostFetchJson(), vouch, clock, ids, log }),
    )
    const issuer = tokenIssuer({ registryId, signingKey: signing.current })
    const ended = await watchEnded(opened, clock, log)
    taken.push(ended.stop)
    const app = createApp({
      config,
      version: program.version,
      registryId,
      secret: secret.reveal(),
      ...(config.secretPrevious === null ? {} : { previousSecret: config.secretPrevious.reveal() }),
      ...(config.setupSecret === null ? {} : { setupSecret: config.setupSecret.reveal() }),
      database,
      blobs,
      verifier,
      keys,
      issuer,
      transfer: await platform.transfer(),
      assets: hostAssets,
      limiter: memoryLimiter({ clock }),
      ended,
      clock,
      ids,
      log,
    })
    taken.push(app.flush)
    const server = await platform.listen({
      fetch: app.fetch,
      host: config.host,
      port: config.port,
      ...(config.tls === null ? {} : { tls: await readTls(config.tls) }),
      graceSeconds: config.grace,
      maxConnections: config.maxConnections,
      trustedProxies: config.trustedProxies,
      log,
    })
    taken.push(server.close, sweepRegularly(app, config, log))
    // Only now: a start that fails for its port must not use up the one first token (R19).
    const firstAdmin = await createAdmin({
      database,
      ids,
      clock,
      issuer,
      tokenMaxAge: config.tokenMaxAge,
    }).firstAdmin()
    return { url: server.url, folder, firstAdmin, close: release }
  } catch (error) {
    await release()
    throw error
  }
}

/** The blob store that the configuration names. */
export async function openBlobs(
  config: Pick<Config, 's3'>,
  folder: DataFolder,
  clock: Clock,
  log: Log,
): Promise<BlobStore> {
  if (config.s3 === null) return diskBlobs({ root: folder.blobsRoot })
  // The SDK costs a third of a second to load, so only those pay who use it.
  const { s3Blobs } = await import('../blobs/s3.ts')
  return s3Blobs(config.s3, { clock, log })
}

/** Sweeps every now and then until the returned function is called. */
function sweepRegularly(app: App, config: Config, log: Log): () => void {
  const sweep = () =>
    void app
      .sweep()
      .catch((error: unknown) => log.event('error', 'sweep', { reason: String(error) }))
  const interval = config.sweepInterval * 1000
  const first = setTimeout(sweep, Math.min(FIRST_SWEEP_MS, interval))
  const regular = setInterval(sweep, interval)
  return () => {
    clearTimeout(first)
    clearInterval(regular)
  }
}

/** Keeps the set of ended ids that tickets may still name, reloaded when any connection has written (R25). */
async function watchEnded(
  opened: OpenDatabase,
  clock: Clock,
  log: Log,
): Promise<Ended & { stop(): void }> {
  const since = () => {
    inBackground = true
    try {
      return opened.database.ended.since(new Date(clock.now().getTime() - ENDED_MS))
    } finally {
      inBackground = false
    }
  }
  let version = opened.version()
  let set = new Set(await since())
  const timer = setInterval(() => {
    if (opened.version() === version) return
    version = opened.version()
    since().then(
      (list) => (set = new Set(list)),
      (error: unknown) => log.event('error', 'ended', { reason: String(error) }),
    )
  }, ENDED_POLL_MS)
  timer.unref()
  return { has: (id) => set.has(id), stop: () => clearInterval(timer) }
}

/** The PEM texts, after a look at them: the runtimes' own errors name neither file nor fault. */
async function readTls(tls: { cert: string; key: string }) {
  const refusal = (message: string, cause?: unknown) =>
    new RegistryError('invalid', message, { cause })
  const read = (file: string) =>
    readFile(file, 'utf8').catch((error: unknown) => {
      throw refusal(`The TLS file ${file} cannot be read.`, error)
    })
  const parse = <T>(work: () => T, message: string): T => {
    try {
      return work()
    } catch (error) {
      throw refusal(message, error)
    }
  }
  const [cert, key] = [await read(tls.cert), await read(tls.key)]
  const certificate = parse(
    () => new X509Certificate(cert),
    `The TLS certificate ${tls.cert} is no certificate in PEM form.`,
  )
  const secret = parse(
    () => createPrivateKey(key),
    `The TLS key ${tls.key} is no private key in PEM form, or needs a passphrase.`,
  )
  if (!certificate.checkPrivateKey(secret))
    throw refusal(`The TLS key ${tls.key} does not belong to the certificate ${tls.cert}.`)
  return { cert, key }
}
