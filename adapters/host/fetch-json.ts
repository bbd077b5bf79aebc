/** JSON documents of other servers on a host, from no address that only we can reach (R55). */
import { lookup } from 'node:dns/promises'
import { request, type RequestOptions } from 'node:https'
import { isIP } from 'node:net'
import { isTrusted, parseAddress } from '../../src/app.ts'
import type { FetchJson } from '../../src/ports.ts'

const WITHIN_MS = 5000
const MOST_BYTES = 64 * 1024
/** Of a name with many addresses, so many are tried. */
const MOST_ADDRESSES = 4

/** Networks that are not the public internet (RFC 6890 and its registry); tunnels hold addresses of their own. */
const INTERNAL =
  '0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/3 2001::/23 2001:db8::/32 2002::/16 3fff::/20'.split(
    ' ',
  )
/** All that is public of IPv6. */
const PUBLIC6 = ['2000::/3']

/** Whether an address is one that everybody can reach. */
export function isPublic(address: string): boolean {
  const bytes = parseAddress(address)
  if (bytes === null || isTrusted(address, INTERNAL)) return false
  return bytes.length === 4 || isTrusted(address, PUBLIC6)
}

/**
 * Fetches over https. The name is resolved once and the connection goes to an address that was
 * looked at, so that a name cannot mean another address by then; the certificate must still be the
 * name's. The options are for tests.
 */
export function hostFetchJson(
  options: { resolve?: (host: string) => Promise<string[]>; ca?: string; withinMs?: number } = {},
): FetchJson {
  const { resolve = resolved, ca, withinMs = WITHIN_MS } = options
  return async (url, { allowPrivate }) => {
    const { protocol, hostname, host, port, pathname, search } = new URL(url)
    if (protocol !== 'https:') throw new Error(`${url} is not https`)
    const name = hostname.replace(/^\[|\]$/g, '')
    const named = isIP(name) === 0
    const signal = AbortSignal.timeout(withinMs)
    const addresses = named ? await within(resolve(name), signal) : [name]
    const usable = addresses.filter((address) => allowPrivate || isPublic(address))
    let problem = new Error(`${host} is at no public address (${addresses.join(', ')})`)
    for (const address of usable.slice(0, MOST_ADDRESSES)) {
      const answer = await get({
        host: address,
        port: port === '' ? 443 : Number(port),
        path: pathname + search,
        ...(named ? { servername: name } : {}),
        ...(ca === undefined ? {} : { ca }),
        headers: { Host: host, Accept: 'application/json', 'User-Agent': 'sreg-lite' },
        agent: false,
        signal,
      }).catch((error: unknown) => {
        problem = new Error(`${url} cannot be fetched: ${String(error)}`, { cause: error })
        return null
      })
      if (answer === null) continue
      if (answer.status !== 200) throw new Error(`${url} answered ${answer.status}`)
      return JSON.parse(answer.text) as unknown
    }
    throw problem
  }
}

/** One GET; another status than 200 has no text. Rejects when there is no whole, small answer. */
function get(options: RequestOptions): Promise<{ status: number; text: string }> {
  return new Promise((done, failed) => {
    const asked = request(options, (answer) => {
      const status = answer.statusCode ?? 0
      if (status !== 200) {
        done({ status, text: '' })
        return void asked.destroy()
      }
      const chunks: Uint8Array[] = []
      let size = 0
      answer.on('data', (chunk: Uint8Array) => {
        size += chunk.length
        if (size <= MOST_BYTES) return void chunks.push(chunk)
        failed(new Error(`more than ${MOST_BYTES} bytes`))
        asked.destroy()
      })
      answer.once('error', failed)
      answer.once('end', () => {
        if (answer.complete) done({ status, text: Buffer.concat(chunks).toString('utf8') })
      })
      // an answer that breaks off may end without a word
      answer.once('close', () => failed(new Error('the answer broke off')))
    })
    asked.once('error', failed)
    asked.end()
  })
}

const resolved = async (host: string) =>
  (await lookup(host, { all: true })).map(({ address }) => address)

/** The work, or a failure when the signal comes first. */
function within<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const late = new Promise<never>((_, failed) => {
    signal.addEventListener('abort', () => failed(signal.reason), { once: true })
  })
  return Promise.race([work, late])
}
