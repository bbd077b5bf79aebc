/** What `serve` tells the person who started it: address, first admin token, lines to type. */
import { resolve } from 'node:path'
import { SETTINGS, type Config } from '../../src/config.ts'
import { isExposed } from './connect.ts'
import { replaceFile, type DataFolder } from './data-folder.ts'

/** A registry at work, as `startRegistry` hands it over. */
export type RunningRegistry = {
  /** Where it listens, as http(s)://host:port. */
  url: string
  folder: DataFolder
  /** Made in this start because there was no admin yet (R19); null at every later start. */
  firstAdmin: { user: string; jwt: string; expiresAt: Date } | null
  /** Finishes or refuses what is running, within the configured grace. */
  close(): Promise<void>
}

/** The address that clients on this computer use: the public one, or where we listen. */
export function clientUrl(config: Pick<Config, 'publicUrl'>, listening: string): string {
  if (config.publicUrl !== null) return config.publicUrl
  const url = new URL(listening)
  // An address that means "all" is nothing to connect to.
  if (url.hostname === '0.0.0.0') url.hostname = '127.0.0.1'
  if (url.hostname === '[::]') url.hostname = '[::1]'
  return url.origin
}

/**
 * Hands the first admin token over (R19): shown on a terminal, else, where a journal would keep
 * it, put into a file of mode 0600 whose path alone is shown. Returns the lines to show.
 */
export async function handOverFirstAdmin(
  firstAdmin: NonNullable<RunningRegistry['firstAdmin']>,
  folder: DataFolder,
  terminal: boolean,
): Promise<string[]> {
  const until = `valid until ${firstAdmin.expiresAt.toISOString().slice(0, 16)}Z`
  if (terminal) {
    return [
      `First admin token (user ${firstAdmin.user}, ${until}; it is not shown again):`,
      '',
      firstAdmin.jwt,
    ]
  }
  await replaceFile(folder.firstAdminToken, `${firstAdmin.jwt}\n`)
  return [
    `First admin token (user ${firstAdmin.user}, ${until}) is in ${folder.firstAdminToken}`,
    'Delete that file when you have set things up.',
  ]
}

/** How the published command is run on each runtime. */
const COMMANDS = {
  node: 'npx sreg-lite',
  bun: 'bunx --bun sreg-lite',
  deno: 'deno run -A npm:sreg-lite',
}

/** The lines to type into a terminal to use the registry; `url` is the clients' address. */
export function linesToType(
  url: string,
  config: Pick<Config, 'data'>,
  user: string,
  runtime: keyof typeof COMMANDS = 'node',
): string[] {
  const command = COMMANDS[runtime]
  const { protocol, port, host } = new URL(url)
  const data = config.data === SETTINGS.SREG_DATA.default ? '' : ` --data ${quoted(config.data)}`
  const insecure = isExposed(url) ? ' --insecure' : ''
  const push = [
    `apptainer push -U image.sif library://${user}/default/NAME:latest`,
    `apptainer pull library://${user}/default/NAME:latest`,
  ]
  const elsewhere = `${command} connect ${url} --token-file FILE${insecure}`
  const http = protocol === 'http:' ? '--insecure ' : ''
  return [
    'Connect Apptainer on this computer (in another terminal; adds you as a user), then push and pull:',
    '',
    `  ${command} connect${data}${insecure}`,
    ...push.map((line) => `  ${line}`),
    '',
    `With a token, from anywhere:  ${elsewhere}`,
    port === ''
      ? `or without sreg-lite:         apptainer remote add ${http}sreg ${protocol}//${host}`
      : `"apptainer remote add" cannot store a port (${port}), "connect" can. On port 80 or 443 both work.`,
  ]
}

/** What is doubtful about the configuration, as sentences. */
export function configWarnings(config: Config, listening: string): string[] {
  const { hostname } = new URL(listening)
  const loopback = /^(localhost|127\..*|\[::1\])$/.test(hostname)
  if (loopback || config.publicUrl !== null) return []
  return [
    `Listening on ${hostname}, beyond this computer, without --public-url: addresses in answers then follow the Host that each request claims. Give --public-url http(s)://NAME[:PORT].`,
  ]
}

/** Leaves the clients' address where `connect` finds it. */
export async function writeServerUrl(folder: DataFolder, url: string): Promise<void> {
  await replaceFile(folder.serverUrl, `${url}\n`)
}

function quoted(path: string): string {
  const whole = resolve(path)
  return /^[\w./-]+$/.test(whole) ? whole : `'${whole.replaceAll("'", `'\\''`)}'`
}
