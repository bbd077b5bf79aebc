/**
 * The registry in workerd on this computer, with D1 and R2 in a folder, as Cloudflare would run it but
 * for the limits. Talks to Miniflare itself, not through `wrangler dev`, whose proxies stand between the
 * client and what the registry answers.
 */
import { AsyncLocalStorage } from 'node:async_hooks'
import { spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { subscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import { mkdir, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { convertV4MiniflareOptions, Log, LogLevel, Miniflare } from 'miniflare'
import {
  lockDataFolder,
  openDataFolder,
  readOrCreateSecret,
  readOrCreateSigningKeys,
  replaceFile,
} from '../adapters/host/data-folder.ts'
// the built one: from its sources it takes as long as all the rest
import { platform } from '../dist/main.mjs'
import { copyAssets } from './assets.mjs'
import { inputsHash } from './inputs.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
/** What is done here; the Worker would refuse the settings. */
const OURS = ['SREG_HOST', 'SREG_PORT', 'SREG_DATA', 'SREG_SWEEP_INTERVAL', 'SREG_GRACE']
/** As in wrangler.toml. */
const ALIAS = { '@aws-sdk/xml-builder': './node_modules/@aws-sdk/xml-builder/dist-cjs/index.js' }

/** Which start the code at hand belongs to. */
const starts = new AsyncLocalStorage()
// Miniflare shows workerd to nobody, and begins another one when it crashes.
subscribe('child_process', ({ process: child }) => {
  const started = starts.getStore()
  if (started === undefined) return
  child.once('spawn', () => {
    if (!/workerd/.test(child.spawnfile)) return
    started.runtime = child
    endWithUs(child)
  })
})

/**
 * Starts it: `host`, `port` (0 for any) and the folder `data`, which is made; the SREG_* of `env` are the
 * Worker's settings, and `say` gets its log and ours. Gives the URL, the folder, workerd's process, and
 * `end`, which with a signal lets requests end that are on their way. Throws with a sentence.
 */
export const startWorkers = (options) => {
  const started = { runtime: undefined }
  return starts.run(started, () => start(started, options))
}

async function start(started, { host, port, data, env, say }) {
  const folder = await openDataFolder(data, { create: true })
  const unlock = await lockDataFolder(folder, platform)
  const settings = Object.fromEntries(
    Object.entries(env).filter(([name]) => /^SREG_(?!TEST_)/.test(name) && !OURS.includes(name)),
  )
  settings.SREG_SECRET ||= (await readOrCreateSecret(folder)).reveal()
  settings.SREG_SIGNING_KEYS ||= JSON.stringify(await readOrCreateSigningKeys(folder))
  // Known to nobody unless it was given: the first admin's token is claimed with it below.
  settings.SREG_SETUP_SECRET ||= randomBytes(32).toString('hex')
  for (const warning of folder.warnings) say(`Warning: ${warning}`)

  // Without it the emulator of R2 lets garbage pile up to 200 MB in a large push.
  process.env.MINIFLARE_WORKERD_V8_FLAGS ||= '--max-semi-space-size=2 --optimize-for-size'
  const workerd = new Miniflare(
    convertV4MiniflareOptions({
      modules: true,
      script: await bundle(),
      compatibilityDate: '2026-11-02',
      compatibilityFlags: ['nodejs_compat'],
      bindings: settings,
      d1Databases: ['DB'],
      r2Buckets: ['BLOBS'],
      // Not `assets`: a router would then stand between the client and the Worker.
      serviceBindings: { ASSETS: { disk: { path: copyAssets(), writable: false } } },
      resourcePersistencePath: join(folder.root, 'workerd'),
      // Straight to the Worker: the entry in front of it would compress and lose lengths.
      unsafeDirectSockets: [{ host, port: Number(port) }],
      host: '127.0.0.1',
      port: 0,
      cf: false,
      log: new Log(LogLevel.NONE),
      handleStructuredLogs: ({ message }) => {
        // workerd reports the answers that are broken off on purpose (R5), and what our flags for V8
        // make of its compile cache
        if (!/Broken off on purpose|^NOSENTRY/.test(message)) say(message)
      },
    }),
  )
  let cron
  const end = async (signal) => {
    clearInterval(cron)
    if (signal !== undefined) {
      say(`${signal}: stopping`)
      await drain(started.runtime, Number(env.SREG_GRACE || 30) * 1000)
    }
    // says once more why it could not start
    await workerd.dispose().catch(() => undefined)
    unlock()
  }
  try {
    await workerd.ready
    const database = await workerd.getD1Database('DB')
    await migrate(database)
    const url = String(await workerd.unsafeGetDirectURL()).replace(/\/$/, '')
    await healthy(url)
    if (await lacksAdmin(database)) say(await claim(url, settings.SREG_SETUP_SECRET, folder))
    const worker = await workerd.getWorker()
    const sweep = () => {
      worker.scheduled({ cron: '*/15 * * * *' }).catch((error) => say(`sweep: ${error}`))
    }
    cron = setInterval(sweep, Number(env.SREG_SWEEP_INTERVAL || 900) * 1000)
    return { url, data: folder.root, process: () => started.runtime, end }
  } catch (error) {
    await end()
    if (!/already in use/i.test(error.message)) throw error
    throw new Error(`Port ${port} on ${host} is taken.`, { cause: error })
  }
}

/** A process that outlives us however we end, and then ends workerd, whose ports would stay taken. */
function endWithUs(child) {
  const script = 'read -r _ || kill -9 "$1"'
  const watch = spawn('/bin/sh', ['-c', script, 'sh', String(child.pid)], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  })
  watch.stdin.on('error', () => undefined)
  child.once('exit', () => watch.stdin.end('\n'))
}

/** Lets running requests end, for `grace` ms; workerd takes no new connection meanwhile. */
async function drain(child, grace) {
  const ended = once(child, 'exit')
  const late = new Promise((resolve) => setTimeout(resolve, grace).unref())
  child.kill('SIGTERM')
  await Promise.race([ended, late])
}

/** The Worker as one module, as `wrangler deploy` makes it; kept until its sources change. */
async function bundle() {
  const cache = join(root, '.cache')
  const sources = createHash('sha256').update(inputsHash(root))
  sources.update(await readFile(fileURLToPath(import.meta.url)))
  const name = `worker-${sources.digest('hex')}.mjs`
  const kept = await readFile(join(cache, name), 'utf8').catch(() => null)
  if (kept !== null) return kept
  const { build } = await import('esbuild')
  const { outputFiles } = await build({
    absWorkingDir: root,
    entryPoints: [join(root, 'adapters/cloudflare/worker.ts')],
    bundle: true,
    format: 'esm',
    target: 'es2024',
    platform: 'browser',
    conditions: ['workerd', 'worker', 'browser'],
    alias: ALIAS,
    external: ['node:*', 'cloudflare:*'],
    // less for workerd to read at every start; names stay, for traces
    minifyWhitespace: true,
    minifySyntax: true,
    write: false,
    logLevel: 'warning',
  })
  const [{ text }] = outputFiles
  await mkdir(cache, { recursive: true })
  for (const old of await readdir(cache))
    if (/^worker-.*\.mjs$/.test(old)) await rm(join(cache, old), { force: true })
  await replaceFile(join(cache, name), text)
  return text
}

/** What `wrangler d1 migrations apply --local` does, in its table. */
async function migrate(database) {
  await database.exec(
    'CREATE TABLE IF NOT EXISTS d1_migrations(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, applied_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP NOT NULL)',
  )
  const { results } = await database.prepare('SELECT name FROM d1_migrations').all()
  const applied = new Set(results.map(({ name }) => name))
  const names = (await readdir(join(root, 'migrations'))).filter((name) => name.endsWith('.sql'))
  const lines = []
  for (const name of names.toSorted()) {
    if (applied.has(name)) continue
    const sql = await readFile(join(root, 'migrations', name), 'utf8')
    const statements = sql.split('--> statement-breakpoint').map(oneLine)
    lines.push(...statements.filter((line) => line !== ''))
    lines.push(`INSERT INTO d1_migrations (name) VALUES ('${name}')`)
  }
  // All at once, in one transaction: each prepared statement would be a blocking trip to Miniflare.
  if (lines.length > 0) await database.exec(lines.join('\n'))
}

/** A statement without its comments, which stand on lines of their own, as `exec` wants it. */
function oneLine(sql) {
  const lines = sql.split('\n').filter((line) => !line.startsWith('--'))
  return lines.join(' ').trim()
}

async function healthy(url) {
  const answer = await fetch(`${url}/readyz`)
  if (answer.status !== 200) throw new Error(`The registry is not ready: ${await answer.text()}`)
}

async function lacksAdmin(database) {
  const row = await database.prepare("SELECT 1 FROM users WHERE role = 'admin' LIMIT 1").first()
  return row === null
}

/** Fetches the first admin's token, leaves it where `npm start` does (R19), and says so. */
async function claim(url, secret, folder) {
  const answer = await fetch(`${url}/v1/first-admin`, {
    method: 'POST',
    body: JSON.stringify({ secret }),
  })
  const { data, error } = await answer.json()
  if (answer.status !== 200) throw new Error(`No first admin token: ${error?.message}`)
  await replaceFile(folder.firstAdminToken, `${data.token}\n`)
  return `First admin token (user ${data.user}, until ${data.expiresAt}) is in ${folder.firstAdminToken}\nDelete that file when you have set things up.`
}
