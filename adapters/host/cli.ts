/**
 * The command line: what can be typed, and how it ends. Machine-readable output alone goes to
 * stdout, words to stderr; exit codes are 0 success, 1 failure, 2 usage or configuration.
 */
import { Argument, Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { parseConfig, SETTINGS, type Config, type Variable } from '../../src/config.ts'
import type { Progress } from '../../src/admin.ts'
import type { ImportReport, Policy, Scope, User } from '../../src/core/model.ts'
import { isRegistryError, RegistryError } from '../../src/errors.ts'
import type { Bytes } from '../../src/ports.ts'
import type { Api } from './api.ts'
import { addAuditCommands } from './commands/audit.ts'
import { addPeopleCommands } from './commands/people.ts'
import { addImportsCommands } from './commands/imports.ts'
import { addQuotaCommands } from './commands/quotas.ts'
import { addShareCommands } from './commands/shares.ts'
import {
  connect,
  readSecretFile,
  readToken,
  type ConnectOptions,
  type ConnectServices,
} from './connect.ts'
import { addSharingCommands } from './commands/sharing.ts'
import { addTeamCommands } from './commands/teams.ts'
import type { importFrom, OpenMoving } from './moving.ts'
import type { KeyAdmin, ListedKey } from './keys.ts'
import { claimAdmin } from './remote-admin.ts'
import {
  day,
  durationArgument,
  json,
  plain,
  serverUrl,
  size,
  table,
  withAdmin,
  withData,
  withKeys,
  withTarget,
  type TargetOptions,
} from './target.ts'

export { parseDuration } from './target.ts'

/** The use cases of administrators, on a data folder or over HTTP. Failures are `RegistryError`s. */
export type Admin = {
  /** `conflict` when there is such a user. */
  addUser(name: string, options: { admin: boolean }): Promise<User>
  listUsers(): Promise<User[]>
  /** `expires: null` is a year (over HTTP no more than the asking token has), `scopes: null` the default set. */
  createToken(draft: {
    user: string
    name: string
    expires: Date | null
    scopes: Scope[] | null
  }): Promise<{ id: string; jwt: string; expiresAt: Date }>
  revokeToken(id: string): Promise<void>
  /** `ref` is entity/collection. */
  policy(ref: string): Promise<Policy>
  /** Returns the policy as it is stored. */
  setPolicy(ref: string, policy: Policy): Promise<Policy>
}

/** Use cases on one registry: those of administrators, of keys, and the whole HTTP API. */
export type OpenAdmin = { admin: Admin; keys: KeyAdmin; api: Api; close: () => void }

/** What export and import stand on. */
export type MovingServices = {
  /** A data folder as source and sink, beside a running server or without one. */
  open(data: string): Promise<OpenMoving>
  /** Makes a data folder out of an export that holds its secrets. */
  restore(data: string, file: Bytes, progress: Progress): ReturnType<typeof importFrom>
  /** Standard input and output as bytes. */
  bytesIn(): Bytes
  bytesOut(chunk: Uint8Array): Promise<void>
}

/** What the commands stand on; program.ts brings the real ones. */
export type Services = ConnectServices & {
  version: string
  /** Serves until a signal ends it; resolves with the exit code. */
  serve(config: Config): Promise<number>
  moving: MovingServices
  /** Writes machine-readable output. */
  print(text: string): void
}

const MODES: Policy['mode'][] = ['off', 'warn', 'require']

/** The options of serve, each standing for a setting. */
const SERVE_OPTIONS: readonly [flags: string, variable: Variable][] = [
  ['--host <address>', 'SREG_HOST'],
  ['--port <number>', 'SREG_PORT'],
  ['--data <folder>', 'SREG_DATA'],
  ['--public-url <url>', 'SREG_PUBLIC_URL'],
  ['--tls-cert <file>', 'SREG_TLS_CERT'],
  ['--tls-key <file>', 'SREG_TLS_KEY'],
]

/** Runs one command and resolves with its exit code; never throws for what a user did. */
export async function runCommand(argv: string[], services: Services): Promise<number> {
  let code = 0
  const program = commands(services, (ended) => (code = ended))
  try {
    await program.parseAsync(argv, { from: 'user' })
    return code
  } catch (error) {
    // thrown by a command itself, which Commander has not shown
    if (error instanceof InvalidArgumentError) services.say(`error: ${error.message}`)
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    services.say(describeFailure(error))
    return isRegistryError(error, 'invalid') ? 2 : 1
  }
}

function commands(services: Services, end: (code: number) => void): Command {
  const program = new Command('sreg-lite')
    .description('A small registry for Singularity and Apptainer images.')
    .version(services.version)
    .exitOverride()
    .showHelpAfterError('(--help shows what can be typed.)')
    .configureOutput({
      writeOut: (text) => services.print(text),
      writeErr: (text) => services.say(text.trimEnd()),
    })

  const serve = program.command('serve').description('serve the registry until stopped')
  for (const [flags, variable] of SERVE_OPTIONS) {
    const shown = SETTINGS[variable].default
    const help = `${SETTINGS[variable].help} (${variable}${shown === '' ? '' : `; ${shown}`})`
    serve.addOption(new Option(flags, help))
  }
  serve.addHelpText('after', `\n${settingsHelp()}`).action(async () => {
    end(await services.serve(parseConfig({ ...services.env, ...flagSettings(serve) })))
  })

  addPeopleCommands(program, services)

  addTeamCommands(program, services)
  addSharingCommands(program, services)

  withTarget(program.command('policy'), services)
    .description('show or set what signatures a collection asks for')
    .argument('<ref>', 'entity/collection')
    .addArgument(
      new Argument(
        '[policy]',
        'off; warn: take all and log it; require: refuse what is not verified',
      ).choices(MODES),
    )
    .option(
      '--fingerprints <list>',
      'the keys that count, separated by commas (default: those claimed by who may write there)',
    )
    .action(
      withAdmin(
        services,
        async (admin, options: { fingerprints?: string }, ref = '', mode?: string) => {
          const path = ref.replace(/^library:\/\/\/?/, '')
          const fingerprints = (options.fingerprints ?? '')
            .split(',')
            .filter((f) => f.trim() !== '')
          if (mode === undefined && options.fingerprints !== undefined)
            throw new RegistryError('invalid', 'Say off, warn or require before the fingerprints.')
          const policy =
            mode === undefined
              ? await admin.policy(path)
              : await admin.setPolicy(path, { mode: mode as Policy['mode'], fingerprints })
          services.print(`${[policy.mode, ...policy.fingerprints].join('\n')}\n`)
        },
      ),
    )

  const key = program.command('key').description('public keys that images are signed with')
  withTarget(key.command('list'), services)
    .description('list the keys: all of them for administrators, else those you own')
    .option('--json', 'as JSON')
    .action(
      withKeys(services, async (keys, options: { json?: boolean }) => {
        const listed = await keys.list()
        if (options.json === true) return services.print(json(listed))
        const now = services.clock.now()
        const rows = listed.map((k) => [
          k.fingerprint,
          k.owner ?? '',
          keyState(k, now),
          day(k.createdAt),
          plain(k.userIds[0]?.text ?? ''),
        ])
        services.print(table(['FINGERPRINT', 'OWNER', 'STATE', 'CREATED', 'USER ID'], rows))
      }),
    )
  withTarget(key.command('add'), services)
    .description('add public keys, or what is new of them')
    .argument('<file>', 'armored, as gpg --armor --export writes it; - is standard input')
    .action(
      withKeys(services, async (keys, _options, file = '') => {
        services.say(await keys.add(await readSecretFile(file, services)))
      }),
    )
  withTarget(key.command('remove'), services)
    .description('remove a key that you own, or any as an administrator')
    .argument('<fingerprint>', '40 or 64 hex digits')
    .action(
      withKeys(services, async (keys, _options, fingerprint = '') => {
        await keys.remove(fingerprint)
        services.say(`Removed the key ${fingerprint}.`)
      }),
    )
  withTarget(key.command('claim'), services)
    .description('own a key: print a text, sign it with the key, and hand it in')
    .argument('<fingerprint>', '40 or 64 hex digits')
    .option('--signed <file>', 'the text, clear-signed with the key; - is standard input')
    .option('--user <name>', 'on the data folder: give the key to that user, without a signature')
    .addHelpText(
      'after',
      '\nIn one line: sreg-lite key claim FPR --server URL --token-file FILE | gpg -u FPR --clearsign |\n  sreg-lite key claim FPR --server URL --token-file FILE --signed -',
    )
    .action(
      withKeys(
        services,
        async (keys, options: { signed?: string; user?: string }, fingerprint = '') => {
          if (keys.assign !== undefined) {
            if (options.user === undefined)
              throw new RegistryError(
                'invalid',
                'Say whose key it is with --user NAME, or claim it from the server (--server URL).',
              )
            await keys.assign(fingerprint, options.user)
            return services.say(`The key ${fingerprint} is ${options.user}'s now.`)
          }
          if (options.signed === undefined) {
            services.print(`${await keys.challenge?.(fingerprint)}\n`)
            return services.say(
              'Sign this text with the key (gpg -u FPR --clearsign) and hand it in with --signed FILE within an hour.',
            )
          }
          await keys.claim?.(fingerprint, await readSecretFile(options.signed, services))
          services.say(`The key ${fingerprint} is yours now.`)
        },
      ),
    )

  addQuotaCommands(program, services)
  addShareCommands(program, services)
  addAuditCommands(program, services)

  program
    .command('claim')
    .description(
      'trade the setup secret of a deployment (SREG_SETUP_SECRET) for a token of its admin',
    )
    .argument('<url>', 'http(s)://HOST[:PORT] of the server')
    .requiredOption('--secret-file <file>', 'a file with the secret; - is standard input')
    .addOption(
      new Option('--expires <duration>', 'as 30m, 12h, 90d, at most 1y (default: 24h)').argParser(
        durationArgument,
      ),
    )
    .option('--insecure', 'allow plain http over a network')
    .addHelpText('after', '\nPrints the token, and only it. A secret is good for one token, ever.')
    .action(async (given: string, options: ClaimOptions) => {
      const url = serverUrl(given, options)
      const secret = (await readSecretFile(options.secretFile, services)).trim()
      const made = await claimAdmin(url, secret, options.expires && options.expires / 1000)
      services.print(`${made.jwt}\n`)
      services.say(
        `Token ${made.id} of ${made.user}, valid until ${day(made.expiresAt)}. The secret is used up: remove it from the deployment.`,
      )
    })

  withTarget(program.command('export'), services)
    .description(
      'write the whole registry to one file: users, teams, names, tags, tokens and images',
    )
    .argument('<file>', 'a new file; - is standard output')
    .option('--with-secrets', 'with signing keys and secrets: who has the file is administrator')
    .addHelpText('after', '\nThe server may go on running; see docs/moving.md.')
    .action(async (file: string, options: TargetOptions & { withSecrets?: boolean }) => {
      const { exportTo } = await import('./moving.ts')
      const from = await openMoving(options, services)
      const shown = counter()
      try {
        await exportTo(file, from, {
          withSecrets: options.withSecrets ?? false,
          progress: shown.progress,
          write: (chunk) => services.moving.bytesOut(chunk),
        })
      } finally {
        from.close()
      }
      services.say(`Exported ${shown.words()}${file === '-' ? '' : ` to ${file}`}.`)
    })

  withTarget(program.command('import'), services)
    .description('add everything that an export holds to a registry, all or nothing')
    .argument('<file>', 'as export has written it; - is standard input')
    .option('--with-secrets', 'make a new data folder that goes on as the exported registry')
    .addHelpText('after', '\nThe server may go on running; see docs/moving.md.')
    .action(async (file: string, options: TargetOptions & { withSecrets?: boolean }) => {
      const { archiveFile, importFrom } = await import('./moving.ts')
      const shown = counter()
      const bytes = await archiveFile(file, () => services.moving.bytesIn())
      const { report, hasSecrets } = await (async () => {
        if (options.withSecrets === true) {
          if (options.server !== undefined)
            throw new RegistryError('invalid', 'Secrets never go to a server over HTTP.')
          return services.moving.restore(options.data, bytes, shown.progress)
        }
        const into = await openMoving(options, services)
        try {
          return await importFrom(bytes, into, shown.progress)
        } finally {
          into.close()
        }
      })()
      for (const line of importWords(report, hasSecrets && options.withSecrets !== true))
        services.say(line)
    })

  addImportsCommands(program, services)

  withData(program.command('connect'), services)
    .description('let Apptainer and Singularity on this computer use a registry')
    .argument('[url]', 'http(s)://HOST[:PORT] (default: the server of the data folder)')
    .option('--token <token>', 'a token; ps shows it to others, so better:')
    .option('--token-file <file>', 'a file with a token; - is standard input')
    .option('--name <name>', 'name of the remote (default: sreg)')
    .option('--user <name>', 'whose token to make without a given one (default: your name)')
    .option('--insecure', 'allow a token on plain http over a network')
    .addHelpText(
      'after',
      "\nWithout a token, on the server's computer, adds the user and a token of one year.",
    )
    .action(async (url: string | undefined, options: ConnectOptions) => {
      await connect({ ...options, url }, services)
    })
  return program
}

type ClaimOptions = { secretFile: string; expires?: number; insecure?: boolean }

async function openMoving(options: TargetOptions, services: Services): Promise<OpenMoving> {
  const { server, tokenFile } = options
  if (server === undefined && tokenFile === undefined && options.insecure === undefined)
    return services.moving.open(options.data)
  if (server === undefined || tokenFile === undefined)
    throw new RegistryError('invalid', 'Give --server URL and --token-file FILE together.')
  const { remoteMoving } = await import('./remote-moving.ts')
  const token = await readToken(tokenFile, services)
  return { ...remoteMoving(serverUrl(server, options), token), close: () => {} }
}

/** Counts what passes. */
function counter() {
  let at = { rows: 0, blobs: 0, bytes: 0 }
  return {
    progress: (now: typeof at) => void (at = now),
    words: () => `${at.rows} rows and ${at.blobs} blobs of ${size(at.bytes)}`,
  }
}

function importWords(report: ImportReport | null, unusedSecrets: boolean): string[] {
  if (report === null) return ['This file was imported before; nothing has changed.']
  const { user, team, entity, collection, container, image, tag, token, key } = report.rows
  const { manifest, ociTag, membership } = report.rows
  const lines = [
    `Imported ${image} images (${size(report.bytes)}) with ${tag} tags in ${container} containers, ${collection} collections and ${entity} entities, ${user} users, ${team} teams, ${token} tokens and ${key} public keys.`,
  ]
  if (membership + manifest > 0)
    lines.push(`For OCI: ${manifest} manifests with ${ociTag} tags, and ${membership} blobs.`)
  if (report.demoted.length > 0)
    lines.push(
      `An import makes nobody administrator or staff; ordinary users here are: ${report.demoted.join(', ')}.`,
    )
  if (report.reissue.length > 0) {
    lines.push('Tokens of the other registry are not valid here. Make new ones for:')
    for (const { user: name, name: what, expiresAt } of report.reissue)
      lines.push(`  ${name}: ${plain(what)} (until ${day(expiresAt)})`)
  }
  if (unusedSecrets) lines.push('The secrets in the file were not used.')
  return lines
}

function keyState({ revoked, expiresAt, removedAt }: ListedKey, now: Date): string {
  if (removedAt !== null) return 'removed'
  if (revoked) return 'revoked'
  return expiresAt !== null && expiresAt <= now ? 'expired' : 'valid'
}

function flagSettings(serve: Command): Record<string, string> {
  const settings: Record<string, string> = {}
  for (const [flags, variable] of SERVE_OPTIONS) {
    const value: unknown = serve.getOptionValue(new Option(flags).attributeName())
    if (typeof value === 'string') settings[variable] = value
  }
  return settings
}

/** The sentence for a failed command; the stack only for what nobody foresaw. */
function describeFailure(error: unknown): string {
  if (isRegistryError(error)) return error.message
  if (!(error instanceof Error)) return String(error)
  const { code, syscall } = error as NodeJS.ErrnoException
  if (code !== undefined && syscall !== undefined) return error.message
  return error.stack ?? error.message
}

function settingsHelp(): string {
  const width = Math.max(...Object.keys(SETTINGS).map((name) => name.length)) + 2
  const lines = Object.entries(SETTINGS).map(([name, setting]) => {
    const shown = setting.default === '' ? '' : ` (${setting.default})`
    return `  ${name.padEnd(width)}${setting.help}${shown}`
  })
  return `Settings from the environment (options go before them):\n${lines.join('\n')}`
}
