/**
 * The keystore's use cases: adding and finding public keys, and whose they are. That somebody sends
 * a key proves nothing; who signs with it owns it (R46).
 */
import { RegistryError } from '../errors.ts'
import type { Actor, Clock, Database, KeyPage, KeyPlace, KeyWriter, Seen } from '../ports.ts'
import {
  absent,
  identify,
  isAdmin,
  type Access,
  type KeyAction,
  type KeystorePolicy,
} from './access.ts'
import { actorOf } from './catalog.ts'
import { ANONYMOUS, type Claims, type Identity, type KeyFacts, type StoredKey } from './model.ts'
import { mergeKeys, readClearsigned, readKeys, verifyClearsigned } from './openpgp.ts'

/** Adds at work at a time, and adds that wait (R53). */
const AT_WORK = 2
const WAITING = 32
/** How long an add waits for its turn: clients give up after 5 s. */
const WAIT_MS = 3000
const LOOK_MS = 25
/** An add is over by then; one that was cut off must not count for ever. */
const WORK_MS = 30_000
/** Others may change a key while it is merged. */
const TRIES = 5
const CHALLENGE_MS = 3_600_000
/** Keys in one answer to `get`. */
const RING = 32

/** What is looked for: keys with one of the names, else with a user id that has the text in it. */
export type KeySearch = {
  /** As KeysBook.named takes them. */
  names: string[]
  /** At least 3 characters; null: names only. */
  text: string | null
  /** The text is the whole user id. */
  whole: boolean
}

/** Who asks: nobody, or claims, those of whoever can write the data folder among them. */
export type Asker = Claims | null

/** A permission to own a key that is worth nothing without a signature of the key itself. */
export type Challenges = {
  make(claim: { fingerprint: string; userId: string }, notAfter: Date): string
  /** `denied` for what we did not make, or no longer stand by. */
  read(ticket: string, now: Date): { fingerprint: string; userId: string }
}

export type Keyring = ReturnType<typeof createKeyring>

export function createKeyring(deps: {
  database: Pick<Database, 'keys' | 'tokens' | 'users'>
  clock: Clock
  access: Access
  policy: KeystorePolicy
  registryId: string
  /** Absent where nobody claims keys by signing: on the command line beside the data. */
  challenges?: Challenges
  /** Told of keys that are new, have changed or were removed, by fingerprint. */
  changed?: (fingerprints: string[]) => Promise<void>
}) {
  const { database, clock, policy, registryId } = deps
  const { keys } = database
  const began = new Set<{ at: number }>()
  let waiting = 0

  /** Throws unless the asker may do this. */
  function allow(identity: Identity, action: KeyAction, ownerId: string | null = null): void {
    deps.access.authoriseKey(identity, action, policy, ownerId)
  }

  async function find(fingerprint: string, asker: Asker) {
    const seen = await keys.find(fingerprint, asker, clock.now())
    return { identity: identify(asker, seen.standing), key: seen.value }
  }

  /** Runs the work when less than two others are at it (R53); `rate_limited` when that takes long. */
  async function inTurn<T>(work: () => Promise<T>): Promise<T> {
    const full = () => {
      for (const entry of began) if (entry.at + WORK_MS < clock.now().getTime()) began.delete(entry)
      return began.size >= AT_WORK
    }
    // looked at now and then: on Workers no request may wake another one
    for (let waited = 0; full(); waited += LOOK_MS) {
      if (waited >= WAIT_MS || waiting >= WAITING)
        throw new RegistryError(
          'rate_limited',
          'The keystore is busy with the keys of others; try again in a few seconds.',
          { subject: 'key', retryAfter: 5 },
        )
      waiting += 1
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS))
      waiting -= 1
    }
    const entry = { at: clock.now().getTime() }
    began.add(entry)
    try {
      return await work()
    } finally {
      began.delete(entry)
    }
  }

  /**
   * Stores a key, or merges it with what is stored of it. `same`: that had all of it. `hidden`: its
   * owner has removed it, and somebody else does not bring it back.
   */
  async function keep(
    facts: KeyFacts,
    stored: StoredKey | undefined,
    identity: Identity,
    address: string | null,
  ): Promise<'kept' | 'same' | 'hidden'> {
    let key = stored
    for (let tries = 0; tries < TRIES; tries += 1) {
      const now = clock.now()
      const show =
        isAdmin(identity) || (identity.kind === 'user' && identity.userId === key?.owner?.id)
      const removed = key !== undefined && key.removedAt !== null
      const merged = key === undefined ? facts : await mergeKeys(key.facts.armor, facts.armor, now)
      const outcome = removed && !show ? 'hidden' : 'kept'
      if (merged.armor === key?.facts.armor && !(removed && show))
        return outcome === 'hidden' ? outcome : 'same'
      const expected = key?.revision ?? 0
      const by: KeyWriter =
        identity.kind === 'anonymous' ? { address, now } : actorOf(identity, clock)
      if (await keys.put({ facts: merged, expected, show, by, now })) return outcome
      ;[key] = await keys.several([facts.fingerprint])
    }
    throw new RegistryError('unavailable', 'Others are changing this key; try again.', {
      subject: 'key',
      retryAfter: 2,
    })
  }

  const changed = async (fingerprints: string[]) => {
    if (fingerprints.length > 0) await deps.changed?.(fingerprints)
  }

  const challengeText = (fingerprint: string, user: string, ticket: string) =>
    [
      `I hold the OpenPGP key ${fingerprint}`,
      `and want the account ${user} of the registry ${registryId} to own it.`,
      `sreg-lite claim ${ticket}`,
    ].join('\n')

  return {
    /**
     * Adds the keys of an armor, or merges them with what is stored of them. Answers the same whether
     * a key was there or not (R46). `invalid` when the armor is none or holds what is not accepted.
     * `address` is where it came from, for the audit log, where no claims say it.
     */
    async add(armor: string, asker: Asker, address: string | null = null): Promise<KeyFacts[]> {
      const now = clock.now()
      const standing = asker === null ? null : await database.tokens.standing(asker, now)
      const identity = identify(asker, standing)
      allow(identity, 'add')
      return inTurn(async () => {
        const added = await readKeys(armor, clock.now())
        const names = added.map(({ fingerprint }) => fingerprint)
        const stored = await keys.several(names)
        const outcomes = []
        for (const facts of added) {
          const { fingerprint } = facts
          const here = stored.find((key) => key.facts.fingerprint === fingerprint)
          outcomes.push({ fingerprint, outcome: await keep(facts, here, identity, address) })
        }
        const kept = outcomes.filter(({ outcome }) => outcome === 'kept')
        await changed(kept.map(({ fingerprint }) => fingerprint))
        const hidden = outcomes.find(({ outcome }) => outcome === 'hidden')
        // who may not look keys up does not learn of this one either
        if (hidden !== undefined && (policy.read === 'public' || identity.kind === 'user'))
          throw new RegistryError(
            'denied',
            `The owner of the key ${hidden.fingerprint} has removed it: only they and administrators can add it again.`,
            { subject: 'key' },
          )
        return added
      })
    },

    /** One page of what is found, in the order it came; `next` goes into `after`. */
    async lookup(search: KeySearch, place: KeyPlace, asker: Asker): Promise<KeyPage> {
      // the place of a page says what its first page has found by
      const [by, after = null] = place.after === null ? [null] : place.after.split(':')
      const ask = async (kind: 'n' | 't', seen: Promise<Seen<KeyPage>>): Promise<KeyPage> => {
        const { value, ...rest } = await seen
        allow(identify(asker, rest.standing), 'look up')
        return { keys: value.keys, next: value.next === null ? null : `${kind}:${value.next}` }
      }
      if (asker === null) allow(ANONYMOUS, 'look up')
      const now = clock.now()
      const at = { ...place, after }
      let found: KeyPage = { keys: [], next: null }
      if (by !== 't' && search.names.length > 0)
        found = await ask('n', keys.named(search.names, at, asker, now))
      if (by !== 'n' && found.keys.length === 0 && search.text !== null) {
        const query = { text: search.text, whole: search.whole }
        found = await ask('t', keys.containing(query, at, asker, now))
      }
      return found
    },

    /** All that is found, at most 32, with their armor; `not_found` for nothing. */
    async ring(search: KeySearch, asker: Asker): Promise<StoredKey[]> {
      const place = { after: null, limit: RING, armor: true }
      const found = await this.lookup(search, place, asker)
      if (found.keys.length === 0) throw noKey()
      return found.keys
    },

    /** The key of that fingerprint as everybody may see it, and whether the asker owns it. */
    async show(fingerprint: string, asker: Asker): Promise<{ key: StoredKey; identity: Identity }> {
      const { identity, key } = await find(fingerprint, asker)
      allow(identity, 'look up')
      if (key === null || key.removedAt !== null) throw absent('key')
      return { key, identity }
    },

    /** The asker's own keys, those that they removed among them; every key for administrators. */
    async list(place: { after: string | null; limit: number }, asker: Asker): Promise<KeyPage> {
      const now = clock.now()
      const standing = asker === null ? null : await database.tokens.standing(asker, now)
      const identity = identify(asker, standing)
      if (identity.kind === 'anonymous')
        throw new RegistryError('unauthenticated', 'This needs a token: log in first.', {
          subject: 'token',
        })
      const owner = identity.kind === 'user' && !identity.admin ? identity.userId : null
      const { value } = await keys.list(owner, { ...place, armor: false }, asker, now)
      return value
    },

    /**
     * Removes a key: for good by an administrator; what its owner removes is hidden and keeps its
     * packets, for who adds it again must not lose it its revocation (R46).
     */
    async remove(fingerprint: string, asker: Asker): Promise<void> {
      const { identity, key } = await find(fingerprint, asker)
      if (asker === null) allow(identity, 'remove')
      const forGood = isAdmin(identity)
      if (key === null || (key.removedAt !== null && !forGood)) {
        allow(identity, 'look up')
        throw absent('key')
      }
      allow(identity, 'remove', key.owner?.id ?? null)
      const now = clock.now()
      if (!(await keys.remove(fingerprint, { forGood, by: actorOf(identity, clock), now })))
        throw absent('key')
      await changed([fingerprint])
    },

    /** The text that the holder of a key signs to own it, good for an hour. */
    async challenge(
      fingerprint: string,
      asker: Asker,
    ): Promise<{ challenge: string; notAfter: Date }> {
      const { identity, key } = await find(fingerprint, asker)
      allow(identity, 'claim')
      if (identity.kind !== 'user' || deps.challenges === undefined)
        throw new Error('a challenge for nobody')
      if (key === null) throw absent('key')
      refuseRevoked(key)
      const notAfter = new Date(clock.now().getTime() + CHALLENGE_MS)
      const ticket = deps.challenges.make({ fingerprint, userId: identity.userId }, notAfter)
      return { challenge: challengeText(fingerprint, identity.userName, ticket), notAfter }
    },

    /**
     * Makes the asker the key's owner, whoever was it before: `signed` is a challenge of theirs,
     * clear-signed with the key. A key that its owner removed is found again.
     */
    async claim(fingerprint: string, signed: string, asker: Asker): Promise<StoredKey> {
      const { identity, key } = await find(fingerprint, asker)
      allow(identity, 'claim')
      if (identity.kind !== 'user' || deps.challenges === undefined)
        throw new Error('a claim of nobody')
      if (key === null) throw absent('key')
      refuseRevoked(key)
      const now = clock.now()
      const text = (await readClearsigned(signed))?.plaintext.trimEnd().replaceAll('\r\n', '\n')
      const ticket = /^sreg-lite claim (\S+)$/m.exec(text ?? '')?.[1]
      if (text === undefined || ticket === undefined)
        throw new RegistryError(
          'invalid',
          'This is no clear-signed challenge: sign the whole text that key claim has shown, for example with gpg --clearsign.',
          { subject: 'key' },
        )
      const said = deps.challenges.read(ticket, now)
      if (
        said.fingerprint !== fingerprint ||
        said.userId !== identity.userId ||
        text !== challengeText(fingerprint, identity.userName, ticket)
      )
        throw new RegistryError('denied', 'This challenge is for another key or account.', {
          subject: 'key',
        })
      const verdict = await verifyClearsigned(signed, [key.facts.armor], now)
      if (!verdict.good)
        throw new RegistryError(
          'denied',
          `This is no good signature of the key ${fingerprint}: sign with this very key.`,
          { subject: 'key', cause: new Error(verdict.why ?? 'not good') },
        )
      return give(key, identity.userId, actorOf(identity, clock))
    },

    /** Makes a user the key's owner, on the word of the operator. */
    async assign(fingerprint: string, userName: string, asker: Asker): Promise<StoredKey> {
      const { identity, key } = await find(fingerprint, asker)
      if (identity.kind !== 'operator') throw new Error('only the operator gives keys away')
      if (key === null) throw absent('key')
      const user = await database.users.byName(userName)
      if (user === null)
        throw new RegistryError('not_found', `There is no user ${userName}.`, { subject: 'user' })
      return give(key, user.id, actorOf(identity, clock))
    },
  }

  async function give(key: StoredKey, ownerId: string, by: Actor): Promise<StoredKey> {
    const { facts, revision } = key
    const now = clock.now()
    if (!(await keys.put({ facts, expected: revision, show: true, ownerId, by, now })))
      throw new RegistryError('conflict', 'The key has changed meanwhile; try again.', {
        subject: 'key',
      })
    await changed([facts.fingerprint])
    const { value } = await keys.find(facts.fingerprint, null, now)
    if (value === null) throw absent('key')
    return value
  }
}

/** What keyservers say, and clients know by its status (protocol.md §7.2). */
export const noKey = () => new RegistryError('not_found', 'No key found.', { subject: 'key' })

function refuseRevoked({ facts }: StoredKey): void {
  if (facts.revoked)
    throw new RegistryError('denied', 'This key is revoked: it signs for nobody any more.', {
      subject: 'key',
    })
}
