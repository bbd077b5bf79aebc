/** Keys and signed texts on Node: the corpus, floods, secret keys, and merging in any order. */
import * as fc from 'fast-check'
import * as openpgp from 'openpgp'
import { beforeAll, describe, expect, it } from 'vitest'
import { mergeKeys, readClearsigned, readKeys, verifyClearsigned } from '../../src/core/openpgp.ts'
import { describeOpenPgp } from '../contract/openpgp.ts'
import { countPackets, FLOODS, keyFile, readInProcess } from '../fixtures/key-floods.ts'
import {
  AFTER,
  armored,
  flipped,
  make,
  packetsOf,
  revokeUser,
  sign,
  user,
  utf8,
} from '../fixtures/key-packets.ts'
import type { Made } from '../fixtures/key-packets.ts'
import type { Packet } from '../../src/core/packets.ts'

const NOW = new Date('2026-06-01T00:00:00Z')

describeOpenPgp()

describe('R53 floods', () => {
  const ONE_OF_EACH = { 2: 1, 6: 1, 13: 1 }
  const EXPECTED: Record<string, Record<number, number> | null> = {
    'ten megabytes': null,
    '150,000 signatures by others': null,
    '300 user ids it signed': { 2: 100, 6: 1, 13: 100 },
    '60 subkeys': { 2: 51, 6: 1, 13: 1, 14: 50 },
    '20 self-signatures on one user id': { 2: 8, 6: 1, 13: 1 },
  }

  it.each(Object.keys(FLOODS))(
    '%s: within 2 s and 200 MB',
    async (name) => {
      const armor = await FLOODS[name]!()
      const { keys, refused, ms, megabytes } = readInProcess(armor)
      const expected = EXPECTED[name] === undefined ? ONE_OF_EACH : EXPECTED[name]
      if (expected === null) expect(refused).toMatch(/^too_large: /)
      else expect(keys?.map((key) => countPackets(key.armor))).toEqual([expected])
      expect(ms).toBeLessThan(2000)
      expect(megabytes).toBeLessThan(200)
    },
    60_000,
  )

  it('of many user ids the newest stay', async () => {
    const [key] = await readKeys(await FLOODS['300 user ids it signed']!(), NOW)
    expect(key?.userIds[0]?.email).toBe('bea299@example.org')
    expect(key?.userIds.at(-1)?.email).toBe('bea200@example.org')
  })
})

describe('R53 secret keys', () => {
  const SENTENCE = 'This is a secret key: keep it to yourself, and send the public key alone.'
  let armor: string
  let publicArmor: string
  beforeAll(async () => {
    const { secret } = await make()
    armor = secret.armor()
    publicArmor = secret.toPublic().armor()
  })

  it.each<[string, () => string]>([
    ['as it is', () => armor],
    ['in the armor of a public key', () => armor.replaceAll('PRIVATE', 'PUBLIC')],
    ['cut off', () => armor.slice(0, 200)],
    ['behind a public key', () => publicArmor + armor],
    [
      'a secret subkey behind a public key, all in one armor',
      () =>
        armored([...packetsOf(publicArmor), ...packetsOf(armor).filter(({ tag }) => tag === 7)]),
    ],
  ])('are refused and not repeated: %s', async (_why, text) => {
    const error = await readKeys(text(), NOW).catch((error: unknown) => error as Error)
    expect(error).toMatchObject({ code: 'invalid', message: SENTENCE })
    expect(error).not.toHaveProperty('cause')
  })
})

it('a signature that names a designated revoker is kept, also with what else it says', async () => {
  const [key] = await readKeys(keyFile('gpg-designated-revoker.asc'), NOW)
  expect(countPackets(key?.armor ?? '')).toEqual({ 2: 2, 6: 1, 13: 1 })
})

describe('what is not signed of a signature', () => {
  it('R53 is dropped, so that nobody stores anything in the keys of others', async () => {
    const plain = keyFile('plain.asc')
    const junk = packetsOf(plain).map((packet) =>
      packet.tag === 2 ? withUnhashed(packet, utf8('smuggled goods')) : packet,
    )
    expect((await readKeys(armored(junk), NOW))[0]?.armor).toBe(
      (await readKeys(plain, NOW))[0]?.armor,
    )
  })

  function withUnhashed({ tag, body }: Packet, data: Uint8Array): Packet {
    const hashedEnd = 6 + body[4]! * 256 + body[5]!
    const area = [data.length + 1, 100, ...data]
    const length = body[hashedEnd + 1]! + area.length
    const head = body.subarray(0, hashedEnd)
    return {
      tag,
      body: Uint8Array.from([...head, 0, length, ...area, ...body.subarray(hashedEnd + 2)]),
    }
  }
})

describe('R46 merging', () => {
  let bea: Made
  let parts: Packet[][]
  beforeAll(async () => {
    bea = await make()
    const key = { key: bea.secret.keyPacket }
    const bind = { ...key, bind: bea.secret.subkeys[0]?.keyPacket }
    const again = new Date('2024-04-01T12:00:00Z')
    parts = [
      await user(bea, 'Bea <bea@example.org>'),
      await user(bea, 'Bea <bea@example.org>', { isPrimaryUserID: true }, { date: again }),
      await user(bea, 'Old <old@example.org>'),
      [
        (await user(bea, 'Old <old@example.org>'))[0]!,
        await revokeUser(bea, 'Old <old@example.org>'),
      ],
      [bea.subkey, bea.binding],
      [bea.subkey, await sign(bea, 0x28, bind, {}, AFTER)],
    ]
    const direct = await sign(bea, 0x1f, key, { keyExpirationTime: 86400, keyNeverExpires: false })
    parts.push([bea.primary, direct], [bea.primary, await sign(bea, 0x20, key, {}, AFTER)])
  })

  const anyCopy = () =>
    fc.subarray([...Array(8).keys()], { minLength: 1 }).map((chosen) =>
      // A primary key, then what else was drawn, in any order.
      armored([bea.primary, ...chosen.flatMap((index) => parts[index] ?? [])]),
    )
  const merge = async (a: string, b: string) => (await mergeKeys(a, b, NOW)).armor

  it('is the same in any order, and twice as once; revocations stay', async () => {
    await fc.assert(
      fc.asyncProperty(anyCopy(), anyCopy(), anyCopy(), async (a, b, c) => {
        const ab = await merge(a, b)
        expect(await merge(b, a)).toBe(ab)
        expect(await merge(ab, b)).toBe(ab)
        expect(await merge(ab, c)).toBe(await merge(a, await merge(b, c)))
        const revocations = async (armor: string) => {
          const [key] = await readKeys(armor, NOW)
          return [key?.revoked, key?.subkeys.some(({ revoked }) => revoked)]
        }
        const [inA, inB, inAb] = await Promise.all([a, b, ab].map(revocations))
        expect(inAb).toEqual(inA?.map((revoked, i) => Boolean(revoked || inB?.[i])))
      }),
      { numRuns: 40 },
    )
  })

  it('keeps a revocation although the caps are full', async () => {
    const owner = await make()
    const ids = []
    for (let i = 0; i < 100; i++) ids.push(...(await user(owner, `Id ${i}`, {}, { date: AFTER })))
    const stored = armored([owner.primary, ...ids])
    const old = await user(owner, 'Old')
    const revoked = armored([owner.primary, ...old, await revokeUser(owner, 'Old')])
    const merged = await mergeKeys(stored, revoked, NOW)
    expect(merged.userIds).toHaveLength(100)
    expect(merged.userIds.filter(({ revoked }) => revoked).map(({ text }) => text)).toEqual(['Old'])
    expect(await mergeKeys(merged.armor, stored, NOW)).toEqual(merged)
  })

  it('forged newer signatures drive nothing out', async () => {
    const forged = []
    for (let i = 0; i < 20; i++) {
      const [, signature] = await user(bea, 'Bea <bea@example.org>', {}, { date: AFTER })
      if (signature) forged.push(flipped(signature))
    }
    const stored = armored([bea.primary, ...(parts[0] ?? [])])
    const attack = armored([bea.primary, ...(parts[4] ?? []), parts[0]![0]!, ...forged])
    const merged = await mergeKeys(stored, attack, NOW)
    expect(merged.userIds).toHaveLength(1)
    expect(merged.subkeys).toHaveLength(1)
  })
})

describe('R17 clear-signed texts', () => {
  let bea: Made
  let key: string
  beforeAll(async () => {
    bea = await make()
    key = armored([bea.primary, ...(await user(bea, 'Bea <bea@example.org>'))])
  })

  const TEXT = '{"version":1}'
  async function signed(
    fields: Record<string, unknown> = {},
    date = AFTER,
    { by = bea, type = 1, text = TEXT } = {},
  ): Promise<string> {
    const bytes = utf8(text.replaceAll('\n', '\r\n'))
    return clearsigned(text, [
      await sign(by, type, { text: null, getBytes: () => bytes }, fields, date),
    ])
  }

  function clearsigned(text: string, signatures: Packet[]): string {
    const armor = armored(signatures).replaceAll('PUBLIC KEY BLOCK', 'SIGNATURE')
    const escaped = text.replace(/^-/gm, '- -')
    return `-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n${escaped}\n${armor}`
  }

  const verify = (text: string, keys = [key]) => verifyClearsigned(text, keys, NOW)
  const fingerprint = async () => (await readKeys(key, NOW))[0]?.fingerprint

  it('a good one tells who and when', async () => {
    expect(await verify(await signed())).toEqual({
      good: true,
      fingerprint: await fingerprint(),
      signedAt: AFTER,
      why: null,
    })
  })

  it.each(['- dashed\n\n  trailing \t\n-----END', 'ends in a line\n', 'é 漢'])(
    'any text: %j',
    async (text) => {
      const trimmed = text.replaceAll(/[ \t]+(?=\n|$)/g, '')
      const message = await signed({}, AFTER, { text: trimmed })
      expect(await verify(message)).toMatchObject({ good: true })
      expect((await readClearsigned(message))?.plaintext).toBe(trimmed)
      expect(await verify(message.replaceAll('\n', '\r\n'))).toMatchObject({ good: true })
    },
  )

  it('a changed text, or a changed signature', async () => {
    const message = await signed()
    const changed = { good: false, fingerprint: null, signedAt: null }
    expect(await verify(message.replace('1}', '2}'))).toMatchObject(changed)
    const [signature] = packetsOf(message.slice(message.indexOf('-----BEGIN PGP SIGNATURE')))
    expect(await verify(clearsigned(TEXT, [flipped(signature!)]))).toEqual({
      ...changed,
      why: 'The text or its signature was changed: they do not match.',
    })
  })

  it.each<[string, () => Promise<string>, string]>([
    [
      'before its key was made',
      () => signed({}, new Date('2023-12-31T00:00:00Z')),
      'The signature is older than its key.',
    ],
    [
      'in the future',
      () => signed({}, new Date('2026-06-02T00:00:01Z')),
      'The signature is dated in the future.',
    ],
    [
      'expired itself',
      () => signed({ signatureExpirationTime: 60, signatureNeverExpires: false }),
      'The signature has expired.',
    ],
  ])('%s', async (_why, message, why) => {
    expect(await verify(await message())).toMatchObject({
      good: false,
      fingerprint: await fingerprint(),
      why,
    })
  })

  it('an expired key: good before, not after', async () => {
    const lasts = { keyExpirationTime: 61 * 86400, keyNeverExpires: false }
    const expired = armored([bea.primary, ...(await user(bea, 'Bea', lasts))])
    const before = await signed({}, new Date('2024-03-02T11:59:59Z'))
    const after = await signed({}, new Date('2024-03-02T12:00:00Z'))
    expect(await verify(before, [expired])).toMatchObject({
      good: true,
      why: 'The key has expired since it signed.',
    })
    expect(await verify(after, [expired])).toMatchObject({
      good: false,
      why: 'The key had expired when it signed.',
    })
  })

  it('a key that may only certify', async () => {
    const certifier = armored([bea.primary, ...(await user(bea, 'Bea', { keyFlags: [1] }))])
    expect(await verify(await signed(), [certifier])).toMatchObject({
      good: false,
      why: 'The key is not one for signing.',
    })
  })

  it('a certification does not pass for a signature over a text', async () => {
    const [, certification] = await user(bea, 'Bea <bea@example.org>')
    expect(await verify(clearsigned(TEXT, [certification!]))).toMatchObject({
      good: false,
      why: 'The signature is not over a text.',
    })
  })

  it('one good signature of two suffices', async () => {
    const other = await make()
    const bytes = utf8(TEXT)
    const data = { text: null, getBytes: () => bytes }
    const both = [await sign(other, 1, data, {}, AFTER), await sign(bea, 1, data, {}, AFTER)]
    expect(await verify(clearsigned(TEXT, both))).toMatchObject({ good: true })
    expect((await readClearsigned(clearsigned(TEXT, both)))?.issuers).toHaveLength(2)
  })

  it('a key of version 6', async () => {
    const { privateKey, publicKey } = await openpgp.generateKey({
      userIDs: [{ name: 'Six' }],
      type: 'curve25519',
      date: AFTER,
      format: 'object',
      config: { v6Keys: true },
    })
    const message = await openpgp.sign({
      message: await openpgp.createCleartextMessage({ text: TEXT }),
      signingKeys: privateKey,
      date: AFTER,
    })
    expect(await verify(message, [publicKey.armor()])).toMatchObject({
      good: true,
      fingerprint: publicKey.getFingerprint().toUpperCase(),
    })
  })

  it('keys that cannot be read count as absent', async () => {
    expect(await verify(await signed(), ['junk', key])).toMatchObject({ good: true })
    expect(await verify(await signed(), ['junk'])).toMatchObject({ good: false, fingerprint: null })
  })

  it.each<[string, (message: string) => string]>([
    ['empty', () => ''],
    ['no armor', () => '{"payloadType":"application/vnd.sylabs.sif-metadata+json"}'],
    ['something ahead of it', (message) => `hello\n${message}`],
    ['something behind it', (message) => `${message}hello\n`],
    ['two of them', (message) => message + message],
    ['no signature', (message) => message.slice(0, message.indexOf('-----BEGIN PGP SIGNATURE'))],
    ['cut off', (message) => message.slice(0, -40)],
    ['a line that could be an armor', (message) => message.replace(TEXT, `-----BEGIN PGP X`)],
    ['a header that is no hash', (message) => message.replace('Hash:', 'Text:')],
    ['a key for a signature', () => clearsigned(TEXT, packetsOf(key))],
    ['over 64 KiB', (message) => message.replace(TEXT, 'x\n'.repeat(33_000))],
  ])('R52 no clear-signed text: %s', async (_why, change) => {
    const text = change(await signed())
    expect(await readClearsigned(text)).toBeNull()
    expect(await verify(text)).toMatchObject({ good: false, fingerprint: null })
  })

  it('R52 blanks without end take no time', async () => {
    const blanks = await signed({}, AFTER, { text: `${' '.repeat(60_000)}x` })
    const start = performance.now()
    expect(await verify(blanks)).toMatchObject({ good: true })
    expect(performance.now() - start).toBeLessThan(1000)
  })
})
