/** The use cases of administrators, asked of a server over HTTP (src/manage) instead of a data folder. */
import type { Policy, Token, User } from '../../src/core/model.ts'
import { RegistryError, type ErrorCode } from '../../src/errors.ts'
import type { Admin } from './cli.ts'
import { ask } from './connect.ts'

/** A record as JSON has it: times are text. */
type Wire<T> = {
  [K in keyof T]: T[K] extends Date ? string : T[K] extends Date | null ? string | null : T[K]
}
type Made = { id: string; token: string; expiresAt: string }

const CODES: Record<number, ErrorCode> = {
  400: 'invalid',
  401: 'unauthenticated',
  403: 'denied',
  404: 'not_found',
  409: 'conflict',
  413: 'too_large',
  507: 'insufficient_storage',
}
/** Characters of an answer that could turn a terminal's text around. */
const UNPRINTABLE = /[\p{C}\p{Zl}\p{Zp}]/gu

/**
 * `Admin` at `url` (an origin) with an administrator's token. Refusals are `RegistryError`s with the
 * server's own sentence; `unavailable` when nothing answers, `unsupported` when it is no sreg-lite.
 */
export function remoteAdmin(url: string, token: string): Admin {
  const call = <T>(method: string, path: string, body?: object) =>
    request<T>(url, { method, path, body, token })
  return {
    async addUser(name, { admin }) {
      return toUser(await call<Wire<User>>('POST', '/v1/users', { name, admin }))
    },
    async listUsers() {
      return (await call<Wire<User>[]>('GET', '/v1/users')).map(toUser)
    },
    async createToken({ user, name, expires, scopes }) {
      const expiresAt = expires?.toISOString()
      const body = { user, name, expiresAt, scopes: scopes ?? undefined }
      return toMade(await call<Made>('POST', '/v1/tokens', body))
    },
    async listTokens(user) {
      const path = `/v1/users/${encodeURIComponent(user)}/tokens`
      return (await call<Wire<Token>[]>('GET', path)).map(toToken)
    },
    async revokeToken(id) {
      await call('DELETE', `/v1/tokens/${encodeURIComponent(id)}`)
    },
    async setPrivate(ref, value) {
      await call('PUT', '/v1/privacy', { ref, private: value })
    },
    async policy(ref) {
      return toPolicy(await call('GET', `/v1/policy?ref=${encodeURIComponent(ref)}`))
    },
    async setPolicy(ref, { mode, fingerprints }) {
      return toPolicy(await call('PUT', '/v1/policy', { ref, policy: mode, fingerprints }))
    },
  }
}

/**
 * Trades the deployment's setup secret for an administrator's token (R19), of `expiresIn` seconds
 * or the server's default. Fails as `remoteAdmin` does.
 */
export async function claimAdmin(
  url: string,
  secret: string,
  expiresIn: number | undefined,
): Promise<{ user: string; id: string; jwt: string; expiresAt: Date }> {
  const body = { secret, expiresIn }
  const made = await request<Made & { user: string }>(url, {
    method: 'POST',
    path: '/v1/first-admin',
    body,
  })
  return { user: made.user, ...toMade(made) }
}

async function request<T>(
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
    throw new RegistryError(
      CODES[response.status] ?? 'unavailable',
      message.replace(UNPRINTABLE, '�'),
    )
  const elsewhere = response.status >= 300 && response.status < 400 ? ', a redirect' : ''
  throw new RegistryError(
    'unsupported',
    `${url} answers, but not as sreg-lite does (status ${response.status}${elsewhere}). Check the address.`,
  )
}

const toUser = (row: Wire<User>): User => ({ ...row, createdAt: new Date(row.createdAt) })

const toPolicy = (row: { policy: Policy['mode']; fingerprints: string[] }): Policy => ({
  mode: row.policy,
  fingerprints: row.fingerprints,
})

const toMade = ({ id, token, expiresAt }: Made) => ({
  id,
  jwt: token,
  expiresAt: new Date(expiresAt),
})

function toToken(row: Wire<Token>): Token {
  const time = (text: string | null) => (text === null ? null : new Date(text))
  return {
    ...row,
    createdAt: new Date(row.createdAt),
    expiresAt: new Date(row.expiresAt),
    revokedAt: time(row.revokedAt),
    lastUsedAt: time(row.lastUsedAt),
  }
}
