/** The HTTP API of a registry: asked over the network, or in process on a data folder. */
import type { App } from '../../src/app.ts'
import { RegistryError, STATUS, type ErrorCode } from '../../src/errors.ts'
import { ask } from './connect.ts'

export type Api = {
  /**
   * One call, such as `('GET', '/v1/users')`: resolves with the `data` of the answer. Refusals are
   * `RegistryError`s with the server's own sentence; `unavailable` when nothing answers,
   * `unsupported` when it is no sreg-lite.
   */
  call<T>(method: string, path: string, body?: object): Promise<T>
}

/** Characters of an answer that could turn a terminal's text around. */
const UNPRINTABLE = /[\p{C}\p{Zl}\p{Zp}]/gu

/** The API of the server at `url` (an origin). */
export function httpApi(url: string, token: string): Api {
  return { call: (method, path, body) => request(url, { method, path, body, token }) }
}

/**
 * The API of a data folder, for whoever can write it: no network, no token. `open` is asked once, at
 * the first call, for an app whose `operator` is set.
 */
export function localApi(open: () => Promise<App>): Api {
  const origin = 'http://localhost'
  let app: Promise<App> | undefined
  return {
    async call(method, path, body) {
      app ??= open()
      const text = body === undefined ? '' : JSON.stringify(body)
      const request = new Request(`${origin}${path}`, {
        method,
        ...(text === ''
          ? {}
          : {
              body: text,
              headers: { 'content-length': String(new TextEncoder().encode(text).length) },
            }),
      })
      const connection = { peer: { address: null, encrypted: false } }
      return answerOf('This registry', await (await app).fetch(request, connection))
    },
  }
}

/** One request; fails as `Api.call` does. */
export async function request<T>(
  url: string,
  call: { method: string; path: string; body?: object | undefined; token?: string },
): Promise<T> {
  const { method, path, body, token } = call
  const payload = body === undefined ? {} : { body: JSON.stringify(body) }
  return answerOf<T>(url, await ask(`${url}${path}`, token, { method, ...payload }))
}

/** The `data` of an answer of the server at `url`, or its refusal as a `RegistryError`. */
export async function answerOf<T>(url: string, response: Response): Promise<T> {
  const answer = (await response.json().catch(() => null)) as {
    data?: T
    error?: { message?: unknown }
  } | null
  if (response.ok && answer?.data !== undefined) return answer.data
  const message = answer?.error?.message
  if (typeof message === 'string')
    throw new RegistryError(codeOf(response.status), message.replace(UNPRINTABLE, '�'))
  const elsewhere = response.status >= 300 && response.status < 400 ? ', a redirect' : ''
  throw new RegistryError(
    'unsupported',
    `${url} answers, but not as sreg-lite does (status ${response.status}${elsewhere}). Check the address.`,
  )
}

/** The first code of a status is its general one. */
function codeOf(status: number): ErrorCode {
  const known = Object.entries(STATUS).find(([, number]) => number === status)
  return known === undefined || (status >= 500 && status !== 507)
    ? 'unavailable'
    : (known[0] as ErrorCode)
}
