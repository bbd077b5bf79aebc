/** What commands share: which registry is meant, how it is asked, what answers look like. */
import { InvalidArgumentError, Option, type Command } from 'commander'
import { SETTINGS } from '../../src/config.ts'
import type { Scope } from '../../src/core/model.ts'
import { RegistryError } from '../../src/errors.ts'
import { httpApi } from './api.ts'
import type { OpenAdmin, Services } from './cli.ts'
import { parseServerUrl, readToken, refuseExposed } from './connect.ts'
import { remoteAdmin } from './remote-admin.ts'

export function withData(command: Command, { env }: Services): Command {
  const fallback = env['SREG_DATA'] || SETTINGS.SREG_DATA.default
  const { help } = SETTINGS.SREG_DATA
  return command.option('--data <folder>', `${help} (SREG_DATA)`, fallback)
}

export type TargetOptions = {
  data: string
  server?: string
  tokenFile?: string
  insecure?: boolean
}

/** Options that say which registry is meant: a data folder here, or a server elsewhere. */
export function withTarget(command: Command, services: Services): Command {
  return withData(command, services)
    .addOption(
      new Option('--server <url>', 'ask the server at http(s)://HOST[:PORT] instead').conflicts(
        'data',
      ),
    )
    .option('--token-file <file>', 'with --server: a file with a token; - is standard input')
    .option('--insecure', 'with --server: allow a token on plain http over a network')
}

export function serverUrl(given: string, options: { insecure?: boolean }): string {
  const url = parseServerUrl(given)
  refuseExposed(url, options.insecure ?? false)
  return url
}

export async function openTarget(options: TargetOptions, services: Services): Promise<OpenAdmin> {
  const { server, tokenFile } = options
  if (server === undefined && tokenFile === undefined && options.insecure === undefined)
    return services.openAdmin(options.data)
  if (server === undefined || tokenFile === undefined)
    throw new RegistryError('invalid', 'Give --server URL and --token-file FILE together.')
  const url = serverUrl(server, options)
  const token = await readToken(tokenFile, services)
  const { remoteKeys } = await import('./keys.ts')
  return {
    admin: remoteAdmin(url, token),
    keys: remoteKeys(url, token),
    api: httpApi(url, token),
    close: () => {},
  }
}

/** A name without what could turn a terminal's text around. */
export const plain = (text: string) => text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, '\ufffd')

/** An action on a data folder, beside a running server or without one (R44), or over HTTP. */
export function actingOn<T>(
  pick: (opened: OpenAdmin) => T,
): (
  services: Services,
  act: (on: T, options: never, ...given: string[]) => Promise<void>,
) => (...args: unknown[]) => Promise<void> {
  return (services, act) =>
    async (...args) => {
      const command = args.pop() as Command
      const options = args.pop() as TargetOptions
      const opened = await openTarget(options, services)
      try {
        await act(pick(opened), options as never, ...command.args)
      } finally {
        opened.close()
      }
    }
}
/** For use cases of the HTTP API, wherever it is. */
export const withApi = actingOn(({ api }) => api)
export const withAdmin = actingOn(({ admin }) => admin)
export const withKeys = actingOn(({ keys }) => keys)

export function durationArgument(text: string): number {
  const duration = parseDuration(text)
  if (duration !== null) return duration
  throw new InvalidArgumentError('Use a number with m, h, d, w or y, as 90d; at most 10y.')
}

export function scopesArgument(text: string): Scope[] {
  const scopes = text.split(',').map((scope) => scope.trim())
  const unknown = scopes.find((scope) => !Object.hasOwn(SCOPE_HELP, scope))
  if (unknown === undefined) return [...new Set(scopes)] as Scope[]
  throw new InvalidArgumentError(
    `${JSON.stringify(unknown)} is no scope; there are ${Object.keys(SCOPE_HELP).join(', ')}.`,
  )
}

/** A number of bytes for people. */
export function size(bytes: number): string {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB']
  let at = 0
  for (; bytes >= 10_240 && at < units.length - 1; at += 1) bytes /= 1024
  return `${Math.round(bytes)} ${units[at]}`
}

export function json(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`
}

export function day(date: Date): string {
  return `${date.toISOString().slice(0, 16)}Z`
}

export function table(head: string[], rows: string[][]): string {
  const widths = head.map((title, i) =>
    Math.max(title.length, ...rows.map((row) => row[i]?.length ?? 0)),
  )
  return [head, ...rows]
    .map(
      (row) =>
        `${row
          .map((cell, i) => cell.padEnd(widths[i] ?? 0))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('')
}

/**
 * The milliseconds that a duration such as 30m, 12h, 90d, 8w or 1y means; null for anything else,
 * and for less than a minute or more than ten years.
 */
export function parseDuration(text: string): number | null {
  const match = /^(\d{1,6})([mhdwy])$/.exec(text)
  if (match === null) return null
  const minutes = { m: 1, h: 60, d: 1440, w: 7 * 1440, y: 365 * 1440 }[match[2] ?? ''] ?? 0
  const total = Number(match[1]) * minutes
  return total >= 1 && total <= 10 * 365 * 1440 ? total * 60_000 : null
}

const SCOPE_HELP: Record<Scope, string> = {
  pull: 'read what the user may see',
  push: 'push images and set tags',
  delete: 'delete images and tags',
  keys: 'add public keys',
  admin: 'manage what the user owns, everything for an admin; never by default',
}

export function scopesHelp(): string {
  return Object.entries(SCOPE_HELP)
    .map(([scope, help]) => `  ${scope.padEnd(8)}${help}`)
    .join('\n')
}
