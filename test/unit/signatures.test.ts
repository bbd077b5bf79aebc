/** What signatures cover, and what they are worth by the keys there are (R18, R52). */
import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { beforeAll, describe, expect, test } from 'vitest'
import type { Judgement } from '../../src/core/model.ts'
import { readKeys } from '../../src/core/openpgp.ts'
import { examineSignatures, objectHasher } from '../../src/core/signatures.ts'
import { judgeBy } from '../../src/core/verdicts.ts'
import type { SigningKey } from '../../src/ports.ts'
import { buildSif, deffile, partition, signature } from '../fixtures/sif.ts'
import {
  makeSigner,
  objectsOf,
  signatureFor,
  signedSif,
  type Signer,
} from '../fixtures/signed-sif.ts'

const NOW = new Date()
/** small.sif of make-sifs.sh, signed by Apptainer 1.4.5 with keys that it made, once and twice. */
const REAL = new URL('../fixtures/signed/', import.meta.url)

let alice: Signer
let bob: Signer
beforeAll(async () => {
  alice = await makeSigner('Alice')
  bob = await makeSigner('Bob')
})

/** The facts of a file, its digests taken as it passed in `chunk` bytes at a time, or read at the end. */
async function examine(file: Uint8Array, chunk: number | null = 1000) {
  const ranges: [number, number][] = []
  const passing = objectHasher(file.length)
  const step = chunk ?? file.length
  for (let at = 0; at < file.length; at += step) passing.update(file.subarray(at, at + step))
  const facts = await examineSignatures(
    {
      read: async (start, length) => file.subarray(start, start + length),
      async *stream(start, end) {
        ranges.push([start, end])
        for (let at = start; at <= end; at += 777)
          yield file.subarray(at, Math.min(at + 777, end + 1))
      },
    },
    file.length,
    chunk === null ? null : passing.digests(),
  )
  return { facts, ranges }
}

/** Keys as the keystore finds them: by fingerprint and by key id, of the key and of its subkeys. */
const keysOf = (...signers: { fingerprint: string; armor: string }[]): SigningKey[] =>
  signers.flatMap(({ fingerprint, armor }, index) =>
    [fingerprint, fingerprint.slice(-16)].map((issuer) => ({
      issuer,
      fingerprint,
      armor,
      mark: `${index}:1`,
    })),
  )

async function judge(file: Uint8Array, ...signers: { fingerprint: string; armor: string }[]) {
  const { facts } = await examine(file)
  const read = await examine(file, null)
  // however the digests came about, they are the same
  expect(read.facts).toEqual(facts)
  const { verdict, why, signers: by } = await judgeBy(facts, keysOf(...signers), NOW)
  return { verdict, why, signers: by }
}

const verified = (...by: Signer[]): Judgement => ({
  verdict: 'verified',
  why: null,
  signers: by.map(({ fingerprint }) => fingerprint),
})
const is = (verdict: string, why: RegExp | null = null) => ({
  verdict,
  why: why === null ? null : expect.stringMatching(why),
  signers: [],
})
const objects = () => [deffile('bootstrap: scratch\n'), partition({ data: 'hsqs content' })]

/** The file with one byte changed. */
function changed(file: Uint8Array, at: number, to?: number): Uint8Array {
  const copy = file.slice()
  copy[at] = to ?? (copy[at] ?? 0) ^ 1
  return copy
}

describe('what counts', () => {
  test('signed by a key that is known', async () => {
    expect(await judge(await signedSif(objects(), [{ by: alice }]), alice)).toEqual(verified(alice))
  })

  test('two signers, one of them unknown', async () => {
    const file = await signedSif(objects(), [{ by: alice }, { by: bob }])
    expect(await judge(file, alice, bob)).toEqual(verified(alice, bob))
    expect(await judge(file, bob)).toEqual(verified(bob))
    expect(await judge(file)).toEqual(is('unknown key', new RegExp(alice.fingerprint)))
  })

  test('signed again after the first key was revoked', async () => {
    const file = await signedSif(objects(), [{ by: alice }, { by: bob }])
    const revoked = { ...alice, armor: await alice.revoked() }
    expect(await judge(file, revoked, bob)).toEqual(verified(bob))
    const alone = await signedSif(objects(), [{ by: alice }])
    expect(await judge(alone, revoked)).toEqual(is('bad', /is revoked/))
  })

  test('every group by itself, all by one key', async () => {
    const groups = [...objects(), { ...deffile('more'), group: 2 }]
    const both = await signedSif(groups, [{ by: alice }, { by: alice, group: 2 }])
    expect(await judge(both, alice)).toEqual(verified(alice))
    const one = await signedSif(groups, [{ by: alice }])
    expect(await judge(one, alice)).toEqual(is('unsigned', /object 3/))
    const shared = await signedSif(groups, [{ by: alice }, { by: bob, group: 2 }])
    expect(await judge(shared, alice, bob)).toEqual(is('unsigned', /nobody has signed all/))
  })

  test.each(['one-signer', 'two-signers'])('a file that Apptainer signed: %s', async (name) => {
    const file = new Uint8Array(gunzipSync(readFileSync(new URL(`${name}.sif.gz`, REAL))))
    const keys = []
    for (const key of ['first', 'second'])
      keys.push(...(await readKeys(readFileSync(new URL(`${key}.asc`, REAL), 'utf8'), NOW)))
    const signers = keys.slice(0, name === 'one-signer' ? 1 : 2).map((key) => key.fingerprint)
    expect(await judge(file, ...keys)).toEqual({ verdict: 'verified', why: null, signers })
    const { offset } = objectsOf(file).find(({ type }) => type === 0x4004)!
    expect(await judge(changed(file, offset + 100), ...keys)).toEqual(is('bad', /object 3/))
    expect(await judge(changed(file, 50), ...keys)).toEqual(is('bad', /header/))
  })
})

describe('what does not', () => {
  test('no signature', async () => {
    expect(await judge(buildSif({ objects: objects() }))).toEqual(is('unsigned', null))
  })

  test('bytes, descriptor or header changed after signing', async () => {
    const file = await signedSif(objects(), [{ by: alice }])
    const [first, second] = objectsOf(file)
    expect(await judge(changed(file, second!.offset), alice)).toEqual(is('bad', /object 2/))
    // name, creation time, file system
    for (const field of [73, 41, 201])
      expect(await judge(changed(file, second!.at + field), alice)).toEqual(
        is('bad', /descriptor of object 2|primary/),
      )
    expect(await judge(changed(file, first!.at + 41), alice)).toEqual(is('bad', /object 1/))
    for (const at of [0, 48, 63])
      expect(await judge(changed(file, at), alice)).toEqual(is('bad', /header/))
  })

  test('the arch in the header, which no signature covers', async () => {
    const file = await signedSif(objects(), [{ by: alice }])
    expect(await judge(changed(file, 46, 0x34), alice)).toEqual(is('bad', /arm64.*amd64/))
  })

  test('a second primary partition beside the signed one', async () => {
    const signed = await signatureFor(buildSif({ objects: objects() }), { by: alice })
    const file = buildSif({ objects: [...objects(), signed, { ...partition(), group: 2 }] })
    expect(await judge(file, alice)).toEqual(is('bad', /2 primary partitions/))
  })

  test('an object that came after signing', async () => {
    const signed = await signatureFor(buildSif({ objects: objects() }), { by: alice })
    const file = buildSif({ objects: [...objects(), signed, deffile('late')] })
    expect(await judge(file, alice)).toEqual(is('unsigned', /object 4/))
  })

  test("two objects of one number, the signed one's", async () => {
    const signed = await signatureFor(buildSif({ objects: objects() }), { by: alice })
    const file = buildSif({ objects: [...objects(), signed, { ...deffile('x'), id: 1 }] })
    expect(await judge(file, alice)).toEqual(is('bad', /several objects 1/))
  })

  test("somebody else's fingerprint in the descriptor", async () => {
    const file = await signedSif(objects(), [{ by: bob, claim: alice.fingerprint }])
    expect(await judge(file, alice, bob)).toEqual(is('bad', /is by .* said to be by/))
    expect(await judge(file, alice)).toEqual(is('unknown key', /keystore/))
  })

  test('the signature of another file', async () => {
    const other = buildSif({ objects: [deffile('other'), partition({ data: 'other' })] })
    const foreign = await signatureFor(other, { by: alice })
    const file = buildSif({ objects: [...objects(), foreign] })
    expect(await judge(file, alice)).toEqual(is('bad', /object 1/))
    // also beside a good one: something is not as somebody signed it
    const good = await signatureFor(buildSif({ objects: objects() }), { by: bob })
    expect(await judge(buildSif({ objects: [...objects(), good, foreign] }), alice, bob)).toEqual(
      is('bad', /object 1/),
    )
  })

  test('a text that was changed under its signature', async () => {
    const good = await signatureFor(buildSif({ objects: objects() }), { by: alice })
    // still true of the file, but not what was signed
    const data = String(good.data).replace('"version":1', '"version": 1')
    const file = buildSif({ objects: [...objects(), { ...good, data }] })
    expect(await judge(file, alice)).toEqual(is('bad', /does not count/))
  })

  test('something that is no signature, or says nothing', async () => {
    const junk = buildSif({ objects: [...objects(), signature(alice.fingerprint)] })
    expect(await judge(junk, alice)).toEqual(is('bad', /cannot be read/))
    for (const says of ['{}', '{"version":1}', 'SIFHASH', '[1', '{"version":2}'])
      expect(await judge(await signedSif(objects(), [{ by: alice, says }]), alice)).toEqual(
        is('bad', /does not say/),
      )
  })

  test('legacy signatures: compared, but never enough (R18)', async () => {
    const file = await signedSif(objects(), [{ by: alice, form: 'legacy' }])
    expect(await judge(file, alice)).toEqual(is('unsigned', /legacy form/))
    const { offset } = objectsOf(file)[1]!
    expect(await judge(changed(file, offset), alice)).toEqual(is('bad', /objects 1, 2/))
    const both = await signedSif(objects(), [{ by: alice, form: 'legacy' }, { by: bob }])
    expect(await judge(both, alice, bob)).toEqual(verified(bob))
  })

  test('DSSE: recognised, compared, not checked', async () => {
    const file = await signedSif(objects(), [{ by: alice, form: 'dsse', claim: null }])
    expect(await judge(file, alice)).toEqual(is('unknown key', /X\.509/))
    const { offset } = objectsOf(file)[1]!
    expect(await judge(changed(file, offset), alice)).toEqual(is('bad', /object 2/))
  })
})

describe('how much is done for it (R52)', () => {
  test('64 signatures: the first 32 are looked at', async () => {
    const plain = buildSif({ total: 80, objects: objects() })
    const one = await signatureFor(plain, { by: bob })
    const last = await signatureFor(plain, { by: alice })
    const many = Array.from({ length: 63 }, () => one)
    const file = buildSif({ total: 80, objects: [...objects(), ...many, last] })
    const { facts, ranges } = await examine(file)
    expect(facts.signatures).toHaveLength(32)
    expect(facts.more).toBe(32)
    // 80 descriptors do not fit into what is looked at on the way
    expect(ranges).toHaveLength(1)
    expect(await judge(file, bob)).toEqual(verified(bob))
    expect(await judge(file, alice)).toMatchObject({ verdict: 'unknown key' })
  })

  test('a signature of more than 64 KiB is not read', async () => {
    const large = signature(alice.fingerprint, 'x'.repeat(65 * 1024))
    const file = buildSif({ objects: [...objects(), large] })
    const { facts } = await examine(file)
    expect(facts.signatures).toMatchObject([{ form: 'unchecked', text: '' }])
    expect(await judge(file, alice)).toEqual(is('unsigned', /more than 64 KiB/))
  })

  test('32 signatures over one partition: hashed once, in one range', async () => {
    const signings = Array.from({ length: 32 }, () => ({ by: alice }))
    const file = await signedSif([partition({ data: 'x'.repeat(300_000) })], signings)
    const { ranges } = await examine(file, null)
    const [object] = objectsOf(file)
    expect(ranges).toEqual([[object!.offset, object!.offset + object!.size - 1]])
  })

  test('as bytes pass: any chunks, copies that go their own way, nothing for unsigned files', async () => {
    const file = await signedSif(objects(), [{ by: alice }, { by: bob, form: 'legacy' }])
    const all = (await examine(file, 1)).facts
    for (const chunk of [13, 4096, 32_768, 40_000, file.length]) {
      const { facts, ranges } = await examine(file, chunk)
      expect(facts).toEqual(all)
      expect(ranges).toEqual([])
    }
    // R3: a part that is sent again hashes into a copy
    const { offset } = objectsOf(file)[1]!
    const first = objectHasher(file.length)
    first.update(file.subarray(0, offset + 3))
    const again = first.copy()
    first.update(changed(file, offset + 4).subarray(offset + 3))
    again.update(file.subarray(offset + 3))
    const whole = objectHasher(file.length)
    whole.update(file)
    expect(again.digests()).toEqual(whole.digests())
    expect(first.digests()).not.toEqual(whole.digests())

    const unsigned = buildSif({ objects: objects() })
    const passing = objectHasher(unsigned.length)
    expect(passing.update(unsigned.subarray(0, 32_768))).toBe(false)
    expect(passing.digests().size).toBe(0)
    const nothing = objectHasher(100_000)
    expect(nothing.update(new Uint8Array(40_000))).toBe(false)
  })

  test('bytes that were other ones on their way are not trusted', async () => {
    const file = await signedSif(objects(), [{ by: alice }])
    const { offset } = objectsOf(file)[1]!
    const passing = objectHasher(file.length)
    passing.update(changed(file, offset))
    const digests = passing.digests()
    const whole = objectHasher(file.length)
    whole.update(file)
    expect([...digests.values()]).not.toEqual([...whole.digests().values()])
  })
})
