/**
 * What every Database must do with verdicts and policies: guards that look at both (R6, R8, R17), and
 * verdicts that know when keys have overtaken them (R18, R52).
 */
import { describe, expect } from 'vitest'
import type { Judged, KeyFacts, Policy, SignatureFacts } from '../../src/core/model.ts'
import type { Actor, KeyWriter } from '../../src/ports.ts'
import { at, digestOf, expectRefused, outcome, type World } from './database.ts'
import { factsOfKey } from './keys.ts'
import { operator } from '../fixtures/operator.ts'

type Test = (title: string, run: (world: World) => Promise<void>, needsRaw?: boolean) => void
type Person = Awaited<ReturnType<World['person']>>

/** Facts of a file that these keys have signed; for the database they are JSON. */
const signedBy = (...issuers: string[]): SignatureFacts => ({
  flaw: null,
  objects: [1],
  signatures: issuers.map((issuer, index) => ({
    id: index + 2,
    form: 'current',
    claimed: null,
    text: `signed "by" ${issuer}\n`,
    issuers: [issuer],
    covers: [1],
    problem: null,
  })),
  more: 0,
})

export function describeSignatures(test: Test): void {
  async function addKey(
    { database }: World,
    {
      owner = null,
      expected = 0,
      facts = factsOfKey(),
    }: Partial<{
      owner: Person | null
      expected: number
      facts: KeyFacts
    }> = {},
  ) {
    const by: KeyWriter = operator()
    const change = { facts, expected, show: true, by, now: at() }
    const given = owner === null ? {} : { ownerId: owner.user.id }
    expect(await database.keys.put({ ...change, ...given })).toBe(true)
    return facts.fingerprint
  }

  /** What the core would say: every signature of a key that is there is good. */
  async function judge({ database }: World, facts: SignatureFacts): Promise<Judged> {
    const issuers = facts.signatures.flatMap((signature) => signature.issuers)
    const keys = await database.signatures.keysOf(issuers)
    return {
      verdict: keys.length > 0 ? 'verified' : 'unknown key',
      why: keys.length > 0 ? null : 'nobody knows it',
      signers: [...new Set(keys.map(({ fingerprint }) => fingerprint))],
      marks: [...new Set(keys.map(({ mark }) => mark))],
      seen: issuers.map((issuer) => ({
        issuer,
        keys: keys
          .filter((key) => key.issuer === issuer)
          .map(({ mark }) => mark)
          .join(' '),
      })),
    }
  }

  /** A received image of Alice's, and what attach wants to hear of it. */
  async function received(world: World, who: Person, word: string, facts: SignatureFacts | null) {
    const place = await world.container(who, `${who.user.name}/c/box`)
    const image = await world.record(who, place.id, word)
    const { attachment } = await world.received(who, image, { facts: { signed: facts !== null } })
    if (facts === null) return { place, image, attachment }
    return {
      place,
      image,
      attachment: {
        ...attachment,
        facts: { ...attachment.facts!, signatures: facts },
        judged: await judge(world, facts),
      },
    }
  }

  async function setPolicy(world: World, who: Person, mode: Policy['mode'], list: string[] = []) {
    const place = await world.container(who, `${who.user.name}/c/box`)
    await world.database.signatures.setPolicy({
      collectionId: place.collectionId,
      policy: { mode, fingerprints: list },
      by: who.writer,
    })
    return place
  }

  describe('signatures and policies', () => {
    test('a verdict goes in with its image, and is that of every image of the digest', async (world) => {
      const { database } = world
      const alice = await world.person('alice')
      const key = await addKey(world)
      const facts = signedBy(key, 'ABCDEF0123456789')
      const { image, attachment } = await received(world, alice, 'one', facts)
      await database.catalog.attach(attachment)
      const verified = { verdict: 'verified', why: null, signers: [key] }
      expect((await world.image(image.id))?.judgement).toEqual(verified)

      const bob = await world.person('bob')
      const place = await world.container(bob, 'bob/c/box')
      const same = await world.record(bob, place.id, 'one')
      expect((await world.image(same.id))?.judgement.verdict).toBe('unsigned')
      const blob = await database.catalog.readableBlob(digestOf('one'), bob.viewer, at())
      await database.catalog.attach({
        imageId: same.id,
        digest: same.digest,
        size: 100,
        facts: null,
        writer: bob.writer,
        source: { kind: 'blob', blobId: blob!.id },
      })
      expect((await world.image(same.id))?.judgement).toEqual(verified)
      const { value } = await database.catalog.search(
        { terms: ['box'], arch: [], signed: true, limit: 10 },
        null,
        at(),
      )
      expect(value.images.map((found) => found.judgement)).toEqual([verified, verified])
    })

    test('signed and not looked at is pending; not signed is unsigned', async (world) => {
      const alice = await world.person('alice')
      const place = await world.container(alice, 'alice/c/box')
      const plain = await world.push(alice, place.id, 'plain')
      const signed = await world.push(alice, place.id, 'signed', { facts: { signed: true } })
      expect((await world.image(plain.id))?.judgement.verdict).toBe('unsigned')
      expect((await world.image(signed.id))?.judgement.verdict).toBe('pending')
      const { signatures } = world.database
      expect(await signatures.unexamined('', 10)).toEqual([
        { digest: signed.digest, key: signed.upload.blobKey, size: 100 },
      ])
      expect(await signatures.unexamined(signed.digest, 10)).toEqual([])
      const facts = signedBy('ABCDEF0123456789')
      await signatures.record(signed.digest, facts, await judge(world, facts))
      expect((await world.image(signed.id))?.judgement.verdict).toBe('unknown key')
      expect(await signatures.unexamined('', 10)).toEqual([])
    })

    test('require: only a key that is claimed by who may write there (R17)', async (world) => {
      const { catalog } = world.database
      const alice = await world.person('alice')
      const bob = await world.person('bob')
      await setPolicy(world, alice, 'require')
      const keys = {
        nobody: await addKey(world),
        stranger: await addKey(world, { owner: bob }),
        unknown: 'A'.repeat(40),
      }
      for (const [who, key] of Object.entries(keys)) {
        const { attachment } = await received(world, alice, who, signedBy(key))
        await expectRefused(world, 'denied', () => catalog.attach(attachment))
      }
      const without: [string, SignatureFacts | null][] = [
        ['plain', null],
        ['nobody signed', signedBy()],
      ]
      for (const [word, facts] of without) {
        const { attachment } = await received(world, alice, word, facts)
        await expectRefused(world, 'denied', () => catalog.attach(attachment))
      }
      const [hers, boss] = [
        await addKey(world, { owner: alice }),
        await addKey(world, { owner: world.root }),
      ]
      for (const [word, facts] of [
        ['mine', signedBy(hers)],
        ['administrator', signedBy(boss)],
        ['two', signedBy(keys.unknown, keys.nobody, hers)],
      ] as const) {
        const { attachment, image } = await received(world, alice, word, facts)
        await catalog.attach(attachment)
        expect((await world.image(image.id))?.uploaded).toBe(true)
      }
    })

    test('require with a list: only what is in it (R17)', async (world) => {
      const { catalog } = world.database
      const alice = await world.person('alice')
      const [listed, hers] = [await addKey(world), await addKey(world, { owner: alice })]
      await setPolicy(world, alice, 'require', [listed])
      const good = await received(world, alice, 'good', signedBy(listed))
      await catalog.attach(good.attachment)
      const bad = await received(world, alice, 'bad', signedBy(hers))
      await expectRefused(world, 'denied', () => catalog.attach(bad.attachment))
      const { value } = await catalog.collectionById(good.place.collectionId, null, at())
      expect(value?.policy).toEqual({ mode: 'require', fingerprints: [listed] })
    })

    test('a key that changes between judgement and attach is noticed (R6)', async (world) => {
      const { database } = world
      const alice = await world.person('alice')
      await setPolicy(world, alice, 'require')
      const facts = factsOfKey()
      await addKey(world, { owner: alice, facts })
      const { attachment, image } = await received(
        world,
        alice,
        'late',
        signedBy(facts.fingerprint),
      )
      await addKey(world, { facts: { ...facts, revoked: true }, expected: 1 })
      await expectRefused(world, 'denied', () => database.catalog.attach(attachment))
      expect((await database.signatures.standing(image.id, attachment.judged!))?.accepted).toBe(
        false,
      )
      // judged anew it is another one
      const judged = await judge(world, signedBy(facts.fingerprint))
      await database.catalog.attach({ ...attachment, judged })
    })

    test('a key that was removed, and one that came back, are not the one that signed', async (world) => {
      const { database } = world
      const alice = await world.person('alice')
      await setPolicy(world, alice, 'require')
      const facts = factsOfKey()
      for (const forGood of [false, true]) {
        await addKey(world, { owner: alice, facts, expected: 0 })
        const word = `gone ${forGood}`
        const { attachment } = await received(world, alice, word, signedBy(facts.fingerprint))
        await database.keys.remove(facts.fingerprint, { forGood, by: operator(), now: at() })
        await expectRefused(world, 'denied', () => database.catalog.attach(attachment))
        await database.keys.remove(facts.fingerprint, { forGood: true, by: operator(), now: at() })
        // of the same revision as before
        await addKey(world, { owner: alice, facts, expected: 0 })
        await expectRefused(world, 'denied', () => database.catalog.attach(attachment))
        await database.keys.remove(facts.fingerprint, { forGood: true, by: operator(), now: at() })
      }
    })

    test('setTag and stored bytes pass the same policy (R8)', async (world) => {
      const { database } = world
      const alice = await world.person('alice')
      const place = await world.container(alice, 'alice/c/box')
      const plain = await world.push(alice, place.id, 'plain', { tag: 'latest' })
      const key = await addKey(world, { owner: alice })
      const good = await received(world, alice, 'good', signedBy(key))
      await database.catalog.attach(good.attachment)
      await setPolicy(world, alice, 'require')
      await expectRefused(world, 'denied', () => world.tag(alice, place.id, plain.id, 'second'))
      await world.tag(alice, place.id, good.image.id, 'second')

      const other = await world.container(alice, 'alice/c/other')
      const dedupe = async (word: string) => {
        const image = await world.record(alice, other.id, word)
        const blob = await database.catalog.readableBlob(image.digest, alice.viewer, at())
        return () =>
          database.catalog.attach({
            imageId: image.id,
            digest: image.digest,
            size: 100,
            facts: null,
            writer: alice.writer,
            source: { kind: 'blob', blobId: blob!.id },
          })
      }
      await expectRefused(world, 'denied', await dedupe('plain'))
      await (
        await dedupe('good')
      )()

      // the policy is lifted, and everything goes
      await setPolicy(world, alice, 'warn')
      await world.tag(alice, place.id, plain.id, 'second')
      await (
        await dedupe('plain')
      )()
    })

    test('a policy is set by who may write there, while the right stands (R6)', async (world) => {
      const { signatures, catalog, tokens } = world.database
      const alice = await world.person('alice')
      const bob = await world.person('bob')
      const { collectionId } = await world.container(alice, 'alice/c/box')
      const policy: Policy = { mode: 'require', fingerprints: [] }
      const change = { collectionId, policy }
      const set = (by: Actor) => signatures.setPolicy({ ...change, by })
      await expectRefused(world, 'denied', () => set(bob.writer))
      const second = await world.token(alice.user)
      await tokens.revoke(second.tokenId, operator())
      await expectRefused(world, 'denied', () => set(second.writer))
      const mode = async () =>
        (await catalog.collectionById(collectionId, null, at())).value?.policy.mode
      for (const by of [alice.writer, world.root.writer, operator()]) {
        await set(by)
        expect(await mode()).toBe('require')
        await signatures.setPolicy({
          ...change,
          policy: { mode: 'off', fingerprints: [] },
          by: operator(),
        })
        expect(await mode()).toBe('off')
      }
      const nowhere = { ...change, collectionId: 'none', by: operator() }
      expect(await outcome(signatures.setPolicy(nowhere))).toBe('not_found')
    })

    test('verdicts are out of date when the keys of their issuers change', async (world) => {
      const { signatures, catalog, keys } = world.database
      const alice = await world.person('alice')
      const [first, second] = [factsOfKey(), factsOfKey()]
      await addKey(world, { facts: first })
      const facts = signedBy(first.keyId, second.keyId)
      const { attachment, image } = await received(world, alice, 'one', facts)
      await catalog.attach(attachment)
      const { digest } = image
      const stale = async (...of: string[]) =>
        (await signatures.stale({ keys: of, limit: 10 })).map((found) => found.digest)
      const settle = async () => signatures.settle([{ digest, judged: await judge(world, facts) }])
      const byDigest = () => signatures.stale({ digests: [digest, digestOf('none')], limit: 10 })
      expect(await stale(first.fingerprint, second.fingerprint)).toEqual([])
      expect(await byDigest()).toEqual([])

      await addKey(world, { facts: second })
      expect(await stale(first.fingerprint)).toEqual([])
      expect(await stale(second.fingerprint)).toEqual([digest])
      expect(await byDigest()).toEqual([{ digest, facts }])
      await settle()
      expect(await stale(second.fingerprint)).toEqual([])
      const { signers } = (await world.image(image.id))!.judgement
      expect(signers).toEqual([first.fingerprint, second.fingerprint])

      await addKey(world, { facts: second, expected: 1 })
      expect(await stale(second.fingerprint)).toEqual([digest])
      await settle()
      for (const forGood of [false, true]) {
        await keys.remove(first.fingerprint, { forGood, by: operator(), now: at() })
        expect(await stale(first.fingerprint)).toEqual(forGood ? [] : [digest])
        await settle()
      }
      expect((await world.image(image.id))?.judgement.signers).toEqual([second.fingerprint])
      await keys.remove(second.fingerprint, { forGood: true, by: operator(), now: at() })
      expect(await stale(second.fingerprint)).toEqual([digest])
      await settle()
      expect((await world.image(image.id))?.judgement.verdict).toBe('unknown key')
    })

    test('the sweep sees what is out of date, and forgets what has gone', async (world) => {
      const { signatures, catalog } = world.database
      const alice = await world.person('alice')
      const facts = factsOfKey()
      const digests: string[] = []
      for (let n = 0; n < 5; n++) {
        const { attachment, image } = await received(
          world,
          alice,
          `image ${n}`,
          signedBy(n < 3 ? facts.fingerprint : 'B'.repeat(40)),
        )
        await catalog.attach(attachment)
        digests.push(image.digest)
        if (n === 4)
          await catalog.deleteImage(
            { imageId: image.id, containerId: image.containerId },
            alice.writer,
          )
      }
      await addKey(world, { facts })
      const sorted = digests.toSorted()
      const first = await signatures.window('', 2)
      expect(first.last).toBe(sorted[1])
      const rest = await signatures.window(first.last!, 10)
      expect(rest.last).toBeNull()
      const gone = digests[4]
      expect([...first.outdated, ...rest.outdated].filter((digest) => digest !== gone)).toEqual(
        sorted.filter((digest) => digests.indexOf(digest) < 3),
      )
      // forgotten: with its bytes gone too, nothing tells of it
      expect(await signatures.stale({ digests: [gone!], limit: 1 })).toEqual([])
      expect((await signatures.stale({ digests, limit: 10 })).length).toBe(3)
    })
  })
}
