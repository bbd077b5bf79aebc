/** What servers say when the app is not asked: refusals, addresses, ports that are taken. */
import { isIPv6 } from 'node:net'
import { RegistryError } from '../../src/errors.ts'

/** The body of a refusal, as the library protocol writes it. */
export function envelope(
  code: number,
  message: string,
): { error: { code: number; message: string } } {
  return { error: { code, message } }
}

/** IPv4-mapped addresses as IPv4. */
export function plainAddress(address: string | undefined): string | null {
  if (address === undefined) return null
  return address.startsWith('::ffff:') ? address.slice(7) : address
}

/** http(s)://host:port. */
export function listeningUrl(host: string, port: number, encrypted: boolean): string {
  return `${encrypted ? 'https' : 'http'}://${isIPv6(host) ? `[${host}]` : host}:${port}`
}

/** Why nothing listens: `conflict` when the port is taken, else `invalid`. */
export function cannotListen(host: string, port: number, cause: unknown): RegistryError {
  const { code, message } = cause as NodeJS.ErrnoException
  const taken = code === 'EADDRINUSE'
  return new RegistryError(
    taken ? 'conflict' : 'invalid',
    taken
      ? `Port ${port} on ${host} is taken by another program: choose one with SREG_PORT`
      : `Cannot listen on ${host}, port ${port} (${code ?? message})`,
    { cause },
  )
}
