/** The keystore on the command line: beside the data folder, or asked of a server over HTTP. */
import type { createKeyring } from '../../src/admin.ts'
import type { Claims, KeyFacts } from '../../src/core/model.ts'
import { RegistryError } from '../../src/errors.ts'
import { answerOf, httpApi } from './api.ts'
import { ask } from './connect.ts'

/** A key as `key list` shows it; `owner` is the name of an account. */
export type ListedKey = Omit<KeyFacts, 'armor'> & { owner: string | null; removedAt: Date | null }

export type KeyAdmin = {
  /** Every key for administrators and on a data folder, else the token's own ones. */
  list(): Promise<ListedKey[]>
  /** Adds the keys of an armor and returns what can be said of it. */
  add(armor: string): Promise<string>
  remove(fingerprint: string): Promise<void>
  /** Only where whoever runs the command is trusted: gives the key to the user's account. */
  assign?(fingerprint: string, user: string): Promise<void>
  /** Only over HTTP: the text to sign, and the claim with the signed text. */
  challenge?(fingerprint: string): Promise<string>
  claim?(fingerprint: string, signed: string): Promise<void>
}

const PAGE = 500

/** The keystore of a data folder. */
export function localKeys(keyring: ReturnType<typeof createKeyring>, operator: Claims): KeyAdmin {
  return {
    async list() {
      const listed: ListedKey[] = []
      let after: string | null = null
      do {
        const page = await keyring.list({ after, limit: PAGE }, operator)
        for (const { facts, owner, removedAt } of page.keys)
          listed.push({ ...facts, owner: owner?.name ?? null, removedAt })
        after = page.next
      } while (after !== null)
      return listed
    },
    async add(armor) {
      const added = await keyring.add(armor, operator)
      return `Received ${added.map(({ fingerprint }) => fingerprint).join(', ')}`
    },
    remove: (fingerprint) => keyring.remove(fingerprintOf(fingerprint), operator),
    async assign(fingerprint, user) {
      await keyring.assign(fingerprintOf(fingerprint), user, operator)
    },
  }
}

/** A record as JSON has it. */
type Wire<T> = {
  [K in keyof T]: T[K] extends Date
    ? string
    : T[K] extends Date | null
      ? string | null
      : T[K] extends (infer Item)[]
        ? Wire<Item>[]
        : T[K]
}

/** The keystore of the server at `url` (an origin), with a token that has the scope `keys`. */
export function remoteKeys(url: string, token: string): KeyAdmin {
  const { call } = httpApi(url, token)
  const at = (fingerprint: string) => `/v1/keys/${fingerprintOf(fingerprint)}`
  return {
    async list() {
      const listed: ListedKey[] = []
      let cursor: string | null = null
      do {
        const query: string = cursor === null ? '' : `?cursor=${encodeURIComponent(cursor)}`
        const page: { keys: Wire<ListedKey>[]; cursor: string | null } = await call(
          'GET',
          `/v1/keys${query}`,
        )
        listed.push(...page.keys.map(toListed))
        cursor = page.cursor
      } while (cursor !== null)
      return listed
    },
    async add(armor) {
      const response = await ask(`${url}/pks/add`, token, {
        method: 'POST',
        body: new URLSearchParams({ keytext: armor }).toString(),
      })
      const plain = response.headers.get('content-type')?.startsWith('text/plain') ?? false
      if (!response.ok || !plain) return answerOf<never>(url, response)
      return (await response.text()).trim()
    },
    async remove(fingerprint) {
      await call('DELETE', at(fingerprint))
    },
    async challenge(fingerprint) {
      const { challenge } = await call<{ challenge: string }>(
        'POST',
        `${at(fingerprint)}/challenge`,
      )
      return challenge
    },
    async claim(fingerprint, signed) {
      await call('POST', `${at(fingerprint)}/claim`, { signed })
    },
  }
}

/** As people write it: with blanks between groups of digits, or 0x in front. */
function fingerprintOf(text: string): string {
  const digits = text.replaceAll(/\s|^0x/gi, '').toUpperCase()
  if (/^(?:[0-9A-F]{40}|[0-9A-F]{64})$/.test(digits)) return digits
  throw new RegistryError(
    'invalid',
    `${JSON.stringify(text)} is no fingerprint (40 or 64 hex digits).`,
    {
      subject: 'key',
    },
  )
}

const time = (text: string | null) => (text === null ? null : new Date(text))

const toListed = (row: Wire<ListedKey>): ListedKey => ({
  ...row,
  createdAt: new Date(row.createdAt),
  expiresAt: time(row.expiresAt),
  removedAt: time(row.removedAt),
  userIds: row.userIds.map((id) => ({
    ...id,
    createdAt: time(id.createdAt),
    expiresAt: time(id.expiresAt),
  })),
  subkeys: row.subkeys.map((key) => ({ ...key, expiresAt: time(key.expiresAt) })),
})
