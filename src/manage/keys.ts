/** Keys and whose they are, for those who own them and for administrators; adding is src/hkp's. */
import { absent } from '../core/access.ts'
import type { Keyring } from '../core/keyring.ts'
import type { Identity, StoredKey } from '../core/model.ts'
import { RegistryError } from '../errors.ts'
import { readJson } from '../http/body.ts'
import type { Ctx } from '../http/context.ts'
import { data } from '../http/json-resp.ts'
import type { Transfer } from '../http/transfer.ts'
import { signedChallenge } from './requests.ts'

const PAGE = 200
/** A challenge of some 600 characters and its signature. */
const SIGNED_CAP = 65_536

export function keyHandlers({ keyring, transfer }: { keyring: Keyring; transfer: Transfer }) {
  /** Fingerprints are written in capitals here; anything else names no key. */
  function fingerprintOf(c: Ctx): string {
    const text = (c.req.param('fingerprint') ?? '').toUpperCase()
    if (!/^(?:[0-9A-F]{40}|[0-9A-F]{64})$/.test(text)) throw absent('key')
    return text
  }

  return {
    /** The asker's keys, or everybody's for administrators; `cursor` is that of the page before. */
    async list(c: Ctx): Promise<Response> {
      const cursor = c.req.query('cursor') ?? null
      if (cursor !== null && !/^\d{1,15}$/.test(cursor))
        throw new RegistryError('invalid', 'This cursor is not one of ours.')
      const page = await keyring.list({ after: cursor, limit: PAGE }, c.get('claims'))
      return data({ keys: page.keys.map((key) => record(key, true)), cursor: page.next })
    },

    async show(c: Ctx): Promise<Response> {
      const { key, identity } = await keyring.show(fingerprintOf(c), c.get('claims'))
      return data(record(key, knowsOwner(identity, key)))
    },

    async remove(c: Ctx): Promise<Response> {
      await keyring.remove(fingerprintOf(c), c.get('claims'))
      return data({})
    },

    async challenge(c: Ctx): Promise<Response> {
      return data(await keyring.challenge(fingerprintOf(c), c.get('claims')))
    },

    async claim(c: Ctx): Promise<Response> {
      const { signed } = await readJson(c, transfer, signedChallenge, SIGNED_CAP)
      const key = await keyring.claim(fingerprintOf(c), signed, c.get('claims'))
      return data(record(key, true))
    },
  }
}

/** Strangers are not told who has an account here. */
const knowsOwner = (identity: Identity, { owner }: StoredKey): boolean =>
  identity.kind === 'user' && (identity.admin || identity.userId === owner?.id)

/** A key as JSON; `owner` is the name of its owner's account, null where that is not to be known. */
function record({ facts, owner, addedAt, updatedAt, removedAt }: StoredKey, known: boolean) {
  const { armor: _armor, ...said } = facts
  return {
    ...said,
    claimed: owner !== null,
    owner: known ? (owner?.name ?? null) : null,
    addedAt,
    updatedAt,
    removedAt,
  }
}
