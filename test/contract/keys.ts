/** What every Database must do with public keys: what they are found by, whose they are (R46). */
import { describe, expect } from 'vitest'
import type { KeyFacts, StoredKey } from '../../src/core/model.ts'
import type { Actor, Database, KeyPlace } from '../../src/ports.ts'
import { at, newId, outcome, type World } from './database.ts'
import { operator } from '../fixtures/operator.ts'

type Test = (title: string, run: (world: World) => Promise<void>, needsRaw?: boolean) => void

let made = 0
const digits = (length: number, seed: string) => {
  const tail = `${seed}${(made += 1).toString(16)}`.toUpperCase()
  return `${'ABCDEF0123456789'.repeat(4).slice(0, length - tail.length)}${tail}`
}

/** A key as openpgp.ts says it: for the database it is text. */
export function factsOfKey(
  userIds: string[] = ['Someone <someone@example.org>'],
  change: Partial<KeyFacts> = {},
): KeyFacts {
  const fingerprint = change.fingerprint ?? digits(40, '7')
  return {
    fingerprint,
    keyId: fingerprint.slice(-16),
    version: 4,
    algorithm: 1,
    bits: 3072,
    createdAt: new Date(Date.UTC(2029, 0, 1)),
    expiresAt: null,
    revoked: false,
    userIds: userIds.map((text) => ({
      text,
      email: /<(.+)>/.exec(text)?.[1]?.toLowerCase() ?? null,
      createdAt: new Date(Date.UTC(2029, 0, 2)),
      expiresAt: null,
      revoked: false,
    })),
    subkeys: [],
    armor: `armor of ${fingerprint}`,
    ...change,
  }
}

function subkeyOf(change: Partial<KeyFacts['subkeys'][number]> = {}): KeyFacts['subkeys'][number] {
  const fingerprint = change.fingerprint ?? digits(40, '9')
  return {
    fingerprint,
    keyId: fingerprint.slice(-16),
    canSign: true,
    revoked: false,
    expiresAt: null,
    ...change,
  }
}

const FIRST: KeyPlace = { after: null, limit: 100, armor: false }
type Put = Parameters<Database['keys']['put']>[0]

export function describeKeys(test: Test): void {
  const put = ({ database }: World, facts: KeyFacts, change: Partial<Put> = {}) =>
    database.keys.put({ facts, expected: 0, show: false, by: operator(), now: at(), ...change })
  const fingerprints = (keys: StoredKey[]) => keys.map(({ facts }) => facts.fingerprint)
  const named = async ({ database }: World, ...names: string[]) =>
    fingerprints((await database.keys.named(names, FIRST, null, at())).value.keys)
  const containing = async ({ database }: World, text: string, whole = false) =>
    fingerprints((await database.keys.containing({ text, whole }, FIRST, null, at())).value.keys)
  const found = async ({ database }: World, fingerprint: string) =>
    (await database.keys.find(fingerprint, null, at())).value

  describe('keys', () => {
    test('come back as they were stored, with the armor only where it is asked for', async (world) => {
      const { keys } = world.database
      const alice = await world.person('alice')
      const facts = factsOfKey(['Zoë <zoe@example.org>', 'no address', '\u{1f511} key'], {
        expiresAt: at(99),
        subkeys: [subkeyOf({ expiresAt: at(5) }), subkeyOf({ revoked: true, canSign: false })],
      })
      facts.userIds[1]!.createdAt = null
      facts.userIds[2]!.revoked = true
      expect(await put(world, facts, { by: alice.writer })).toBe(true)
      expect(await found(world, facts.fingerprint)).toEqual({
        facts,
        owner: null,
        addedBy: alice.user.id,
        addedAt: at(),
        updatedAt: at(),
        removedAt: null,
        revision: 1,
      })
      const page = (armor: boolean) =>
        keys.named([facts.fingerprint], { ...FIRST, armor }, null, at())
      expect((await page(true)).value.keys[0]?.facts).toEqual(facts)
      expect((await page(false)).value.keys[0]?.facts).toEqual({ ...facts, armor: '' })
      expect(await keys.several([facts.fingerprint, digits(40, '1')])).toMatchObject([{ facts }])
      expect(await found(world, digits(40, '1'))).toBeNull()
    })

    test('are found by 8, 16 and all digits of the key and of its subkeys, by e-mail, by text', async (world) => {
      const subkey = subkeyOf()
      const other = subkeyOf({ canSign: false })
      const v6 = factsOfKey(['Six <six@example.org>'], {
        version: 6,
        fingerprint: digits(64, '6'),
        keyId: digits(16, '66'),
      })
      const facts = factsOfKey(['Ada Lovelace (work) <ada@Example.org>'], {
        subkeys: [subkey, other],
      })
      await put(world, facts)
      await put(world, v6)
      for (const { fingerprint, keyId } of [facts, subkey, other])
        for (const name of [fingerprint, keyId, keyId.slice(-8)])
          expect([name, await named(world, name)]).toEqual([name, [facts.fingerprint]])
      expect(await named(world, v6.fingerprint)).toEqual([v6.fingerprint])
      expect(await named(world, v6.keyId)).toEqual([v6.fingerprint])
      expect(await named(world, 'ada@example.org')).toEqual([facts.fingerprint])
      expect(await named(world, 'nobody@example.org', v6.keyId)).toEqual([v6.fingerprint])
      expect(await named(world, 'da@example.org')).toEqual([])
      expect(await named(world)).toEqual([])
      for (const text of ['lovelace', 'LOVE', '(work)', 'da@ex', 'Ada Lovelace (w'])
        expect([text, await containing(world, text)]).toEqual([text, [facts.fingerprint]])
      expect(await containing(world, '@example.org')).toEqual([facts.fingerprint, v6.fingerprint])
      expect(await containing(world, 'lovelace', true)).toEqual([])
      expect(await containing(world, 'ada lovelace (WORK) <ada@example.org>', true)).toEqual([
        facts.fingerprint,
      ])
      for (const text of [
        '"',
        '" OR "ada',
        'ada*',
        "ada'",
        '%%%',
        '\0\0\0',
        'a OR b',
        '(((',
        '-ada',
      ])
        expect([text, await containing(world, text)]).toEqual([text, []])
    })

    test('a subkey that somebody has bound to theirs does not stand before its key (R46)', async (world) => {
      const signing = subkeyOf()
      const alice = factsOfKey(['Alice <a@example.org>'], { subkeys: [signing] })
      const thief = factsOfKey(['Mallory <m@example.org>'], {
        subkeys: [
          subkeyOf({ fingerprint: alice.fingerprint, canSign: false }),
          subkeyOf({ fingerprint: signing.fingerprint, canSign: false }),
        ],
      })
      await put(world, thief)
      expect(await named(world, alice.fingerprint)).toEqual([thief.fingerprint])
      await put(world, alice)
      expect(await named(world, alice.fingerprint)).toEqual([alice.fingerprint])
      expect(await named(world, alice.keyId)).toEqual([alice.fingerprint])
      expect(await named(world, signing.keyId)).toEqual([alice.fingerprint])
    })

    test('a change is stored only over what it was made of, and found by what is new', async (world) => {
      const facts = factsOfKey(['Old <old@example.org>'])
      expect(await put(world, facts)).toBe(true)
      expect(await put(world, facts)).toBe(false)
      const newer = { ...factsOfKey(['New <new@example.org>'], facts), armor: 'merged' }
      newer.userIds = factsOfKey(['New <new@example.org>']).userIds
      const races = [1, 1, 1].map((expected) => put(world, newer, { expected, now: at(1) }))
      expect((await Promise.all(races)).filter(Boolean)).toHaveLength(1)
      expect(await found(world, facts.fingerprint)).toMatchObject({
        facts: newer,
        addedAt: at(),
        updatedAt: at(1),
        revision: 2,
      })
      expect(await named(world, 'old@example.org')).toEqual([])
      expect(await containing(world, 'old')).toEqual([])
      expect(await named(world, 'new@example.org')).toEqual([facts.fingerprint])
      expect(await put(world, factsOfKey(), { expected: 1 })).toBe(false)
    })

    test('pages hold every key once, in the order they came', async (world) => {
      const { keys } = world.database
      const all = Array.from({ length: 7 }, (_, i) =>
        factsOfKey([`Number ${i} <same@example.org>`]),
      )
      for (const facts of all) await put(world, facts)
      const expected = all.map(({ fingerprint }) => fingerprint)
      for (const limit of [1, 3, 7, 8])
        for (const ask of [
          (place: KeyPlace) => keys.named(['same@example.org'], place, null, at()),
          (place: KeyPlace) => keys.containing({ text: 'umb', whole: false }, place, null, at()),
          (place: KeyPlace) => keys.list(null, place, null, at()),
        ]) {
          const seen: string[] = []
          for (let after: string | null | undefined = null; after !== undefined;) {
            const page: { keys: StoredKey[]; next: string | null } = (
              await ask({ after, limit, armor: false })
            ).value
            expect(page.keys.length).toBeLessThanOrEqual(limit)
            seen.push(...fingerprints(page.keys))
            after = page.next ?? undefined
          }
          expect(seen).toEqual(expected)
        }
    })

    test("an owner: given, kept by others' changes, passed on", async (world) => {
      const { keys } = world.database
      const alice = await world.person('alice')
      const bob = await world.person('bob')
      const facts = factsOfKey()
      await put(world, facts, { by: bob.writer })
      await put(world, facts, { expected: 1, ownerId: alice.user.id, by: alice.writer })
      await put(world, facts, { expected: 2, by: bob.writer })
      const owner = async () => (await found(world, facts.fingerprint))?.owner
      expect(await owner()).toEqual({ id: alice.user.id, name: 'alice' })
      const list = async (id: string) =>
        fingerprints((await keys.list(id, FIRST, null, at())).value.keys)
      expect(await list(alice.user.id)).toEqual([facts.fingerprint])
      expect(await list(bob.user.id)).toEqual([])
      await put(world, facts, { expected: 3, ownerId: bob.user.id, by: bob.writer })
      expect(await owner()).toEqual({ id: bob.user.id, name: 'bob' })
      expect(await list(alice.user.id)).toEqual([])
    })

    test('what its owner removed is found by nobody and keeps its packets; an administrator forgets it', async (world) => {
      const { keys } = world.database
      const alice = await world.person('alice')
      const facts = factsOfKey(['Gone <gone@example.org>'], { revoked: true })
      const { fingerprint } = facts
      await put(world, facts, { ownerId: alice.user.id, by: alice.writer })
      const remove = (by: Actor, forGood: boolean) =>
        keys.remove(fingerprint, { forGood, by, now: at(2) })
      expect(await remove(alice.writer, false)).toBe(true)
      expect(await remove(alice.writer, false)).toBe(false)
      for (const name of [fingerprint, facts.keyId, 'gone@example.org'])
        expect(await named(world, name)).toEqual([])
      expect(await containing(world, 'gone')).toEqual([])
      expect(await found(world, fingerprint)).toMatchObject({
        facts,
        removedAt: at(2),
        revision: 2,
      })
      // somebody adds it again: it stays hidden unless it is shown
      await put(world, facts, { expected: 2 })
      expect(await named(world, fingerprint)).toEqual([])
      await put(world, facts, { expected: 3, show: true })
      expect(await named(world, fingerprint)).toEqual([fingerprint])
      expect(await remove(world.root.writer, true)).toBe(true)
      expect(await found(world, fingerprint)).toBeNull()
      expect(await remove(world.root.writer, true)).toBe(false)
      expect(await named(world, fingerprint)).toEqual([])
      expect(await put(world, facts)).toBe(true)
    })

    test('guards: who has lost the right changes nothing (R6)', async (world) => {
      const { keys, tokens } = world.database
      const alice = await world.person('alice')
      const mallory = await world.person('mallory')
      const facts = factsOfKey()
      const { fingerprint } = facts
      await put(world, facts, { ownerId: alice.user.id, by: alice.writer })
      const before = await found(world, fingerprint)
      const remove = (by: Actor, forGood = false) =>
        outcome(keys.remove(fingerprint, { forGood, by, now: at(2) }))
      expect(await remove(mallory.writer)).toBe('denied')
      expect(await remove({ ...mallory.writer, admin: true }, true)).toBe('denied')
      const ended = await world.token(alice.user)
      await tokens.revoke(ended.tokenId, operator())
      expect(await remove(ended.writer)).toBe('denied')
      expect(await outcome(put(world, facts, { expected: 1, by: ended.writer }))).toBe('denied')
      const unknown = { ...alice.writer, tokenId: newId() }
      expect(await outcome(put(world, facts, { expected: 1, by: unknown }))).toBe('denied')
      expect(await found(world, fingerprint)).toEqual(before)
      expect(await remove(alice.writer)).toBe('ok')
    })

    test('the standing of the viewer comes with the answer, in one trip (R25)', async (world) => {
      const { keys, tokens } = world.database
      const alice = await world.person('alice')
      const before = world.trips().length
      const seen = await keys.named(['X'], FIRST, alice.viewer, at())
      expect(seen.standing).toMatchObject({ userId: alice.user.id })
      await keys.find('X', null, at())
      expect(world.trips().length).toBe(before + 2)
      await tokens.revoke(alice.tokenId, operator())
      expect((await keys.find('X', alice.viewer, at())).standing).toBeNull()
    })
  })
}
