/** The Worker itself in workerd, asked as the runtime asks it; what it asks of D1 and R2 is counted. */
import { env } from 'cloudflare:workers'
import { vi } from 'vitest'
import type { D1Binding } from '../../adapters/databases/d1.ts'
import type { Env } from '../../adapters/cloudflare/worker.ts'

export const URL = 'http://registry.test'
const SETUP_SECRET = 'setup'.repeat(8)

export type Isolate = {
  fetch(request: Request): Promise<Response>
  scheduled(): Promise<void>
  /** What it has asked since the last call: queries of D1 and operations of R2. */
  asked(): { queries: number; operations: number }
}

/** Settings that are enough. */
export async function settings(): Promise<Record<string, string>> {
  const pair = (await crypto.subtle.generateKey('Ed25519', true, ['sign', 'verify'])) as {
    privateKey: CryptoKey
  }
  const { x, d } = await crypto.subtle.exportKey('jwk', pair.privateKey)
  return {
    SREG_SECRET: 's'.repeat(32),
    SREG_SIGNING_KEYS: JSON.stringify({ current: { x, d, kid: 'test' }, previous: [] }),
    SREG_SETUP_SECRET: SETUP_SECRET,
    SREG_LOG: 'off',
  }
}

/** A fresh isolate, which knows nothing of the others but by D1 and R2. */
export async function isolate(given: Record<string, unknown>): Promise<Isolate> {
  vi.resetModules()
  const { default: worker } = await import('../../adapters/cloudflare/worker.ts')
  let [queries, operations] = [0, 0]
  const database: D1Binding = {
    prepare: (sql) => env.DB.prepare(sql),
    batch(statements) {
      queries += statements.length
      return env.DB.batch(statements as ReturnType<typeof env.DB.prepare>[])
    },
  }
  /** Counts calls; what an upload in parts is asked counts, but not naming it. */
  const counted = <T extends object>(target: T): T =>
    new Proxy(target, {
      get(_, name) {
        const value: unknown = Reflect.get(target, name)
        if (typeof value !== 'function') return value
        return (...args: unknown[]) => {
          if (name !== 'resumeMultipartUpload') operations += 1
          const result: unknown = value.apply(target, args)
          return name === 'resumeMultipartUpload' ? counted(result as object) : result
        }
      },
    })
  const bound = { DB: database, BLOBS: counted(env.BLOBS), ...given } as Env
  /** Runs it as the runtime does: until what it wanted to be waited for has ended. */
  async function run<R>(work: (context: never) => Promise<R>): Promise<R> {
    const waited: Promise<unknown>[] = []
    const context = { waitUntil: (promise: Promise<unknown>) => void waited.push(promise) }
    const result = await work(context as never)
    while (waited.length > 0) await waited.shift()
    return result
  }
  return {
    fetch: (request) => run((context) => worker.fetch(request, bound, context)),
    scheduled: () => run((context) => worker.scheduled(null as never, bound, context)),
    asked() {
      const asked = { queries, operations }
      ;[queries, operations] = [0, 0]
      return asked
    },
  }
}

/** Sends what the clients of a test `fetch` to the isolate that `choose` gives. */
export function serve(
  choose: () => Isolate,
  seen: (what: string, answer: Response) => void = () => undefined,
): void {
  vi.stubGlobal('fetch', async (url: string, init: RequestInit = {}) => {
    const request = new Request(url, init)
    // a connection says how long a body is; there is none here
    const { body } = init
    if (body instanceof Uint8Array) request.headers.set('content-length', String(body.length))
    if (typeof body === 'string')
      request.headers.set('content-length', String(new TextEncoder().encode(body).length))
    const answer = await choose().fetch(request)
    const { pathname } = new globalThis.URL(url)
    seen(`${request.method} ${pathname.replaceAll(/[0-9a-f]{24,}/g, ':id')}`, answer)
    return answer
  })
}

/** The first administrator's token. */
export async function firstAdmin(): Promise<string> {
  const answer = await fetch(`${URL}/v1/first-admin`, {
    method: 'POST',
    body: JSON.stringify({ secret: SETUP_SECRET }),
  })
  return ((await answer.json()) as { data: { token: string } }).data.token
}
