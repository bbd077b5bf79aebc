/** The program on any host: real services behind the commands, signals around serve. */
import { existsSync, readFileSync } from 'node:fs'
import { homedir, hostname, userInfo } from 'node:os'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { parseConfig, type Config } from '../../src/config.ts'
import { RegistryError } from '../../src/errors.ts'
import type { App, Deps } from '../../src/app.ts'
import type { Database, Log } from '../../src/ports.ts'
import type { SigningKeys } from '../signing-keys.ts'
import { consoleLog, logForm, randomIds, systemClock } from '../system.ts'
import { localApi } from './api.ts'
import { runCommand, type MovingServices, type OpenAdmin } from './cli.ts'
import { userNameFrom } from './connect.ts'
import {
  openDataFolder,
  readOrCreateSecret,
  readSigningKeys,
  type DataFolder,
} from './data-folder.ts'
import {
  clientUrl,
  configWarnings,
  handOverFirstAdmin,
  linesToType,
  writeServerUrl,
  type RunningRegistry,
} from './first-run.ts'
import type { Platform } from './platform.ts'

/** Time beyond the grace after which closing is taken to hang. */
const CLOSE_MARGIN_MS = 5000
/** npm passes a terminal's Ctrl-C on to a child that had it already: that is not a second one. */
const SAME_SIGNAL_MS = 500

/** What a shell shows for a program that ended by SIGPIPE. */
const EPIPE_CODE = 141

/** Runs the command line; resolves with the exit code when the command, or the server, has ended. */
export async function run(platform: Platform, argv: string[]): Promise<number> {
  // who reads our output may have had enough (`| head`): then nobody wants the rest, nor a word about it
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') say(String(error))
    process.exit(error.code === 'EPIPE' ? EPIPE_CODE : 1)
  })
  return runCommand(argv, {
    version: packageVersion(),
    env: process.env,
    home: homedir(),
    osUser: osUser(),
    hostname: hostname(),
    clock: systemClock,
    serve: (config) => serve(platform, config),
    openAdmin: (data) => openAdmin(platform, data),
    moving: movingServices(platform),
    readStandardInput: () => text(process.stdin),
    print: (output) => void process.stdout.write(output),
    say,
  })
}

/** What export and import stand on; the weight is loaded when they are called. */
export function movingServices(platform: Platform): MovingServices {
  // the blobs may be in a bucket, which the environment names as it does for serve
  let log: Log | undefined
  const program = (data: string) => {
    const config = parseConfig({ ...process.env, SREG_DATA: data })
    log ??= consoleLog({ form: logForm(config.log) })
    return { platform, migrations: migrations(), s3: config.s3, log }
  }
  const by = operator()
  return {
    open: async (data) => (await import('./moving.ts')).openMoving(program(data), data, by),
    restore: async (data, file, progress) =>
      (await import('./moving.ts')).restoreInto(program(data), data, file, by, progress),
    bytesIn: () => process.stdin,
    bytesOut: (chunk) =>
      new Promise((resolve, reject) => {
        process.stdout.write(chunk, (error) => (error ? reject(error) : resolve()))
      }),
  }
}

async function serve(platform: Platform, config: Config): Promise<number> {
  // Loaded here, so that the other commands start without the server's weight.
  const { startRegistry } = await import('./registry.ts')
  const registry = await startRegistry(config, {
    platform,
    version: packageVersion(),
    migrations: migrations(),
  })
  const signalled = firstSignal()
  try {
    await announce(platform, config, registry)
  } catch (error) {
    await registry.close()
    throw error
  }
  const signal = await signalled
  say(
    `${signal}: finishing what is running, for at most ${config.grace} s. Once more ends at once.`,
  )
  const late = new Promise<'late'>((resolve) => {
    setTimeout(resolve, config.grace * 1000 + CLOSE_MARGIN_MS, 'late').unref()
  })
  if ((await Promise.race([registry.close(), late])) !== 'late') return 0
  say('Some requests did not end in time; stopping without them.')
  return process.exit(1)
}

/** One line for programs on stdout, the words for people on stderr. */
async function announce(
  platform: Platform,
  config: Config,
  registry: RunningRegistry,
): Promise<void> {
  const { folder, firstAdmin } = registry
  const url = clientUrl(config, registry.url)
  await writeServerUrl(folder, url)
  const handedOver =
    firstAdmin === null ? [] : await handOverFirstAdmin(firstAdmin, folder, process.stderr.isTTY)

  process.stdout.write(`listening on ${registry.url}\n`)
  for (const warning of [...folder.warnings, ...configWarnings(config, registry.url)]) {
    say(`Warning: ${warning}`)
  }
  say(`sreg-lite ${packageVersion()} serves ${url} with its data in ${folder.root}\n`)
  if (handedOver.length > 0) say(`${handedOver.join('\n')}\n`)
  for (const line of linesToType(url, config, userNameFrom(osUser()), platform.name)) say(line)
}

/** Resolves with the first SIGINT or SIGTERM; a later one ends the process at once. */
function firstSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let first: number | null = null
    const heard = (signal: NodeJS.Signals) => {
      if (first === null) {
        first = performance.now()
        resolve(signal)
      } else if (performance.now() - first > SAME_SIGNAL_MS) process.exit(1)
    }
    process.on('SIGINT', heard)
    process.on('SIGTERM', heard)
  })
}

/** Opens the registry's books beside a running server (R44). */
export async function openAdmin(platform: Platform, data: string): Promise<OpenAdmin> {
  const folder = await openDataFolder(data, { create: false })
  if (!existsSync(folder.database)) {
    throw new RegistryError(
      'not_found',
      `The data folder ${folder.root} holds no registry yet. Start the server first (sreg-lite serve).`,
    )
  }
  const signing = await readSigningKeys(folder)
  for (const warning of folder.warnings) say(`Warning: ${warning}`)
  const { createAccess, createAdmin, createKeyring, DEFAULT_RULES, operatorClaims, tokenIssuer } =
    await import('../../src/admin.ts')
  const { localKeys } = await import('./keys.ts')
  const opened = await platform.openDatabase(folder.database, {
    mode: 'cli',
    migrations: migrations(),
  })
  const { database } = opened
  const close = () => opened.close()
  try {
    const registryId = await database.settings.get('registry_id')
    if (registryId === null) {
      throw new RegistryError(
        'not_found',
        `The registry in ${folder.root} was never started. Start the server first (sreg-lite serve).`,
      )
    }
    const { tokenMaxAge } = parseConfig({ ...process.env, SREG_DATA: folder.root })
    const who = operator()
    const issuer = tokenIssuer({ registryId, signingKey: signing.current })
    const keyring = createKeyring({
      access: createAccess(DEFAULT_RULES),
      database,
      clock: systemClock,
      registryId,
      // who can write the data folder is not asked
      policy: { add: 'token', read: 'token' },
    })
    return {
      admin: createAdmin({
        database,
        ids: randomIds,
        clock: systemClock,
        issuer,
        tokenMaxAge,
        operator: who,
      }),
      keys: localKeys(keyring, operatorClaims(who)),
      api: localApi(() => openApp(folder, { database, registryId, signing, issuer })),
      close,
    }
  } catch (error) {
    close()
    throw error
  }
}

/** The app on an opened data folder, for the person at the keyboard, who is not asked for a token. */
async function openApp(
  folder: DataFolder,
  books: { database: Database; registryId: string; signing: SigningKeys; issuer: Deps['issuer'] },
): Promise<App> {
  const { createApp, webTransfer } = await import('../../src/app.ts')
  const { memoryLimiter } = await import('../limits/memory.ts')
  const { openBlobs } = await import('./registry.ts')
  const config = parseConfig({ ...process.env, SREG_DATA: folder.root })
  const log = consoleLog({ form: 'off' })
  return createApp({
    ...books,
    config,
    operator: operator(),
    version: packageVersion(),
    secret: (await readOrCreateSecret(folder)).reveal(),
    blobs: await openBlobs(config, folder, systemClock, log),
    verifier: { verify: async () => null },
    keys: [books.signing.current, ...books.signing.previous],
    transfer: webTransfer,
    ended: { has: () => false },
    limiter: memoryLimiter({ clock: systemClock }),
    clock: systemClock,
    ids: randomIds,
    log,
  })
}

/** The folder of migration files, in the repository and in the package. */
export function migrations(): string {
  return fileURLToPath(new URL('migrations', packageRoot()))
}

function packageVersion(): string {
  const { version } = JSON.parse(readFileSync(new URL('package.json', packageRoot()), 'utf8')) as {
    version: string
  }
  return version
}

/** The bundle lies one folder below package.json, the source two. */
function packageRoot(): URL {
  const bundled = new URL('../', import.meta.url)
  return existsSync(new URL('package.json', bundled)) ? bundled : new URL('../../', import.meta.url)
}

/** The person at the keyboard, as the audit log calls them (R44). */
const operator = (): string => `cli:${osUser()}`

/**
 * `userInfo` fails for a user id without a name, as containers have them; on Bun it knows nothing
 * but the environment, and says `unknown`.
 */
function osUser(): string {
  const { USER, LOGNAME } = process.env
  if (process.versions['bun'] !== undefined) return passwdName() || USER || LOGNAME || 'user'
  try {
    return userInfo().username
  } catch {
    return 'user'
  }
}

/** The name of this process's user in /etc/passwd; null when it has none there. */
function passwdName(): string | null {
  try {
    const id = String(process.getuid?.())
    const users = readFileSync('/etc/passwd', 'utf8')
      .split('\n')
      .map((line) => line.split(':'))
    return users.find(([, , uid]) => uid === id)?.[0] ?? null
  } catch {
    return null
  }
}

function say(line: string): void {
  process.stderr.write(`${line}\n`)
}
