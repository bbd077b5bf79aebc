/**
 * How the tests' clients ask: what fetch would send and what it would give, by node:http on kept
 * connections. The matrices ask ten thousands of times; with fetch they take half as much processor time
 * again.
 */
import { Agent, request } from 'node:http'

type Sending = {
  method: string
  headers: Record<string, string>
  body?: Uint8Array | string | ReadableStream<Uint8Array> | undefined
}
/** With a token to send as Bearer, or as nobody. */
type Asking = Sending & { token: string | null }
type Heard = { status: number; headers: Headers; bytes: Uint8Array }
/** An answer with its body as text, and as JSON where it is that; otherwise null. */
export type Answer = { status: number; headers: Headers; text: string; json: any }

/** Where a server does not say for how long, connections are kept as long as by fetch. */
const agent = new Agent({ keepAlive: true, timeout: 4000 })
/** What fetch sends, but for what only pages and zipped answers need. */
const USUAL = { accept: '*/*', 'user-agent': 'node' }
const TEXT = { 'content-type': 'text/plain;charset=UTF-8' }
/** Inside workerd nothing listens: tests there have a `fetch` of their own. */
const inside = globalThis.navigator?.userAgent === 'Cloudflare-Workers'

/** Follows no redirect; rejects when the answer breaks off. */
export async function ask(
  url: string,
  { token, headers, ...rest }: Asking,
): Promise<Heard & Answer> {
  const bearer: Record<string, string> = token === null ? {} : { authorization: `Bearer ${token}` }
  const heard = await hear(url, { ...rest, headers: { ...bearer, ...headers } })
  const text = new TextDecoder().decode(heard.bytes)
  let json: unknown = null
  try {
    json = JSON.parse(text)
  } catch {
    json = null
  }
  return { ...heard, text, json }
}

async function hear(url: string, { method, headers, body }: Sending): Promise<Heard> {
  if (inside || body instanceof ReadableStream) return hearByFetch(url, { method, headers, body })
  const bytes = typeof body === 'string' ? Buffer.from(body) : body
  return new Promise((resolve, reject) => {
    const asking = request(url, {
      agent,
      method,
      headers: {
        ...USUAL,
        ...(typeof body === 'string' ? TEXT : {}),
        ...(bytes === undefined ? {} : { 'content-length': bytes.length }),
        ...headers,
      },
    })
    asking.on('error', reject)
    asking.once('response', (answer) => {
      // A server that refused the body may no longer read it; what it answered is what counts.
      asking.off('error', reject).on('error', () => {})
      const chunks: Buffer[] = []
      answer.on('data', (chunk: Buffer) => chunks.push(chunk))
      answer.once('error', reject)
      answer.once('end', () => {
        const found = new Headers()
        const { rawHeaders, statusCode: status = 0 } = answer
        for (let at = 0; at < rawHeaders.length; at += 2)
          found.append(rawHeaders[at] ?? '', rawHeaders[at + 1] ?? '')
        resolve({ status, headers: found, bytes: Buffer.concat(chunks) })
      })
    })
    asking.end(bytes)
  })
}

async function hearByFetch(url: string, { method, headers, body }: Sending): Promise<Heard> {
  const answer = await fetch(url, {
    method,
    headers,
    redirect: 'manual',
    ...(body === undefined ? {} : { body: body as BodyInit, duplex: 'half' }),
  })
  const { status, headers: found } = answer
  return { status, headers: found, bytes: new Uint8Array(await answer.arrayBuffer()) }
}
