/** The use cases of administrators, asked of a server over HTTP (src/manage) instead of a data folder. */
import type { Policy, User } from '../../src/core/model.ts'
import type { Admin } from './cli.ts'
import { httpApi, request } from './api.ts'

/** A record as JSON has it: times are text. */
type Wire<T> = {
  [K in keyof T]: T[K] extends Date ? string : T[K] extends Date | null ? string | null : T[K]
}
type Made = { id: string; token: string; expiresAt: string }

/**
 * `Admin` at `url` (an origin) with an administrator's token. Refusals are `RegistryError`s with the
 * server's own sentence; `unavailable` when nothing answers, `unsupported` when it is no sreg-lite.
 */
export function remoteAdmin(url: string, token: string): Admin {
  const { call } = httpApi(url, token)
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
    async revokeToken(id) {
      await call('DELETE', `/v1/tokens/${encodeURIComponent(id)}`)
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
