/** Where clients reach this registry and where they are: what to believe of Host and Forwarded (R33). */
import { RegistryError } from '../errors.ts'
import type { Peer } from '../ports.ts'
import type { Ctx } from './context.ts'

export type OriginConfig = {
  /** `http(s)://host[:port]`, or null to take it from each request. */
  publicUrl: string | null
  /** Addresses and networks whose X-Forwarded-* is believed; loopback always is. */
  trustedProxies: readonly string[]
}

const HOST = /^(?:[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?|\[[0-9a-f:.]+\])(?::\d{1,5})?$/i

/**
 * `scheme://host[:port]` for URLs in answers, without a trailing slash: the configured one, or else
 * from the request, `invalid` when its Host is no host[:port]. Answers built from the request must
 * be `no-store` (R33).
 */
export function originOf(c: Ctx, config: OriginConfig): string {
  if (config.publicUrl !== null) return config.publicUrl
  const { peer } = c.env
  const believed = isTrusted(peer.address, config.trustedProxies)
  const forwarded = (name: string) =>
    believed ? c.req.header(name)?.split(',').at(-1)?.trim() : undefined
  const host = forwarded('x-forwarded-host') ?? c.req.header('host') ?? new URL(c.req.url).host
  const scheme = forwarded('x-forwarded-proto') ?? (peer.encrypted ? 'https' : 'http')
  if (!HOST.test(host) || host.length > 255 || !/^https?$/.test(scheme))
    throw new RegistryError('invalid', 'The Host header of this request is no host name', {
      subject: 'request',
    })
  return `${scheme}://${host}`
}

/** The client's address: the rightmost hop of X-Forwarded-For that is no trusted proxy. */
export function clientAddress(c: Ctx, config: Pick<OriginConfig, 'trustedProxies'>): string | null {
  return addressOf(c.req.raw.headers, c.env.peer, config)
}

/** As `clientAddress`, for a request that has no context yet. */
export function addressOf(
  headers: Headers,
  peer: Peer,
  config: Pick<OriginConfig, 'trustedProxies'>,
): string | null {
  let address = peer.address
  if (!isTrusted(address, config.trustedProxies)) return address
  const hops = headers.get('x-forwarded-for')?.split(',') ?? []
  while (isTrusted(address, config.trustedProxies)) {
    const hop = hops.pop()?.trim()
    if (hop === undefined || parseAddress(hop) === null) break
    address = hop
  }
  return address
}

/** What an address is counted as: itself, or the /64 of IPv6, which one client has all of (R58). */
export function networkOf(address: string): string {
  const bytes = parseAddress(address)
  if (bytes === null || bytes.length === 4) return bytes?.join('.') ?? address
  return `${bytes
    .slice(0, 8)
    .map((byte) => byte.toString(16).padStart(2, '0'))
    .join('')}/64`
}

type Network = { bytes: readonly number[]; bits: number }

const networksOf = new WeakMap<readonly string[], Network[]>()

/** Whether an address is loopback or within one of `networks` (`address[/bits]`, v4 or v6). */
export function isTrusted(address: string | null, networks: readonly string[]): boolean {
  if (address === null) return false
  if (address === '127.0.0.1' || address === '::1') return true
  const bytes = parseAddress(address)
  if (bytes === null) return false
  const loopback = bytes.length === 4 ? bytes[0] === 127 : false
  if (loopback || networks.length === 0) return loopback
  let parsed = networksOf.get(networks)
  if (parsed === undefined) {
    parsed = networks.flatMap((text) => parseNetwork(text) ?? [])
    networksOf.set(networks, parsed)
  }
  return parsed.some((network) => contains(network, bytes))
}

function contains({ bytes, bits }: Network, address: readonly number[]): boolean {
  if (bytes.length !== address.length) return false
  return bytes.every((byte, i) => {
    const free = Math.min(8, Math.max(0, 8 * (i + 1) - bits))
    return byte >> free === (address[i] ?? 0) >> free
  })
}

function parseNetwork(text: string): Network | null {
  const [address = '', length] = text.split('/')
  const bytes = parseAddress(address)
  if (bytes === null) return null
  // A mapped network such as ::ffff:10.0.0.0/104 counts its bits from the mapped address.
  const mapped = bytes.length === 4 && address.includes(':') ? 96 : 0
  const bits = length === undefined ? bytes.length * 8 : Number(length) - mapped
  return Number.isInteger(bits) && bits >= 0 && bits <= bytes.length * 8 ? { bytes, bits } : null
}

/** The 4 or 16 bytes of an address, or null; IPv4-mapped IPv6 addresses count as IPv4. */
export function parseAddress(text: string): number[] | null {
  if (/^\d{1,3}(?:\.\d{1,3}){3}$/.test(text)) {
    const bytes = text.split('.').map(Number)
    return bytes.every((byte) => byte < 256) ? bytes : null
  }
  if (!/^[0-9a-f:.]+$/i.test(text) || !text.includes(':')) return null
  const tail = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text)
  const four = tail === null ? [] : parseAddress(tail[2] ?? '')
  if (four === null) return null
  const halves = (tail?.[1]?.replace(/([^:]):$/, '$1') ?? text).split('::')
  if (halves.length > 2) return null
  const [head, rest] = halves.map((half) => (half === '' ? [] : half.split(':')))
  const groups = [...(head ?? []), ...(rest ?? [])]
  if (!groups.every((group) => /^[0-9a-f]{1,4}$/i.test(group))) return null
  const missing = 8 - four.length / 2 - groups.length
  if (halves.length === 2 ? missing < 1 : missing !== 0) return null
  const filled = [...(head ?? []), ...Array<string>(missing).fill('0'), ...(rest ?? [])]
  const bytes = filled.flatMap((group) => {
    const value = Number.parseInt(group, 16)
    return [value >> 8, value & 255]
  })
  const all = [...bytes, ...four]
  const mapped = all.slice(0, 10).every((byte) => byte === 0) && all[10] === 255 && all[11] === 255
  return mapped ? all.slice(12) : all
}
