/** The lookup's query and the lines of its answer, as clients write and read them (protocol.md §7.2). */
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { KeyFacts } from '../../src/core/model.ts'
import { isRegistryError } from '../../src/errors.ts'
import { parseLookup, parseSearch } from '../../src/hkp/request.ts'
import { indexLines, indexPage, joinArmors } from '../../src/hkp/wire.ts'
import { factsOfKey } from '../contract/keys.ts'

const codeOf = (work: () => unknown) => {
  try {
    work()
    return 'ok'
  } catch (error) {
    if (isRegistryError(error)) return error.code
    throw error
  }
}
const FPR = '7E027B15EC93851F3539B7CD6B402C175EA0F487'

describe('parseSearch', () => {
  test.each<[why: string, typed: string, names: string[], text: string | null]>([
    ['a fingerprint', `0x${FPR.toLowerCase()}`, [FPR], null],
    ['a key id', '0x6B402c175EA0F487', ['6B402C175EA0F487'], null],
    [
      'a short id, or a key id that begins with zeros',
      '0X5ea0f487',
      ['5EA0F487', '000000005EA0F487'],
      null,
    ],
    ['a key id without its zeros (Go %#x)', '0x1f2e3d4c5b', ['0000001F2E3D4C5B'], null],
    ['a key id of few digits', '0x1', ['00000001', '0000000000000001'], null],
    ['a version 3 fingerprint', `0x${'ab'.repeat(16)}`, ['AB'.repeat(16)], null],
    ['a version 6 fingerprint', `0x${'ab'.repeat(32)}`, ['AB'.repeat(32)], null],
    ['bare digits', FPR.toLowerCase(), [FPR], FPR.toLowerCase()],
    ['bare digits that may be a word', 'deadbeef', ['DEADBEEF'], 'deadbeef'],
    ['digits of another number', 'deadbee', [], 'deadbee'],
    ['an address', 'Alice@Example.org', ['alice@example.org'], 'Alice@Example.org'],
    ['part of an address', '@example.org', [], '@example.org'],
    ['a name', 'Alice Test', [], 'Alice Test'],
    ['a user id', 'A <a@b>', [], 'A <a@b>'],
    ['no digits after 0x', '0xyz', [], '0xyz'],
  ])('%s: %s', (_why, typed, names, text) => {
    expect(parseSearch(typed, false)).toEqual({ names, text, whole: text === null })
    expect(parseSearch(typed, true)).toEqual({ names, text, whole: true })
  })

  test.each([
    '',
    'ab',
    '\u{1f511}\u{1f511}',
    'x'.repeat(1001),
    `0x${'a'.repeat(17)}`,
    `0x${'a'.repeat(65)}`,
  ])('refuses %j with a sentence', (typed) =>
    expect(codeOf(() => parseSearch(typed, false))).toBe('invalid'),
  )

  test('every id that Go prints is found again, whatever zeros it begins with', () => {
    fc.assert(
      fc.property(fc.bigInt(1n, 2n ** 64n - 1n), (id) => {
        const { names } = parseSearch(`0x${id.toString(16)}`, true)
        expect(names).toContain(id.toString(16).toUpperCase().padStart(16, '0'))
      }),
    )
  })
})

describe('parseLookup', () => {
  test('what Apptainer and gpg send', () => {
    const search = '?fingerprint=on&op=index&options=mr&search=alice%40example.org&x-pagesize=256'
    expect(parseLookup(search)).toEqual({
      op: 'index',
      search: { names: ['alice@example.org'], text: 'alice@example.org', whole: false },
      typed: 'alice@example.org',
      machine: true,
      fingerprints: true,
      limit: 256,
      after: null,
    })
    expect(parseLookup('?exact=on&op=get&search=0x6b402c175ea0f487')).toMatchObject({
      op: 'get',
      search: { names: ['6B402C175EA0F487'], text: null },
    })
    expect(parseLookup('op=get&options=mr&search=0x5EA0F487')).toMatchObject({ machine: true })
    expect(parseLookup('op=VINDEX&options=nm,+mr&search=a+b')).toMatchObject({
      op: 'vindex',
      machine: true,
      typed: 'a b',
    })
  })

  test.each<[query: string, code: string]>([
    ['search=alice', 'invalid'],
    ['op=get', 'invalid'],
    ['op=get&search=', 'invalid'],
    ['op=stats', 'unimplemented'],
    ['op=x-photo&search=alice', 'unimplemented'],
    ['op=hget&search=alice', 'unimplemented'],
    ['op=index&search=alice&x-pagesize=0', 'invalid'],
    ['op=index&search=alice&x-pagesize=-1', 'invalid'],
    ['op=index&search=alice&x-pagesize=1e3', 'invalid'],
    ['op=index&search=alice&x-pagetoken=5', 'invalid'],
    ["op=index&search=alice&x-pagetoken=n:1'", 'invalid'],
  ])('%s is %s', (query, code) => expect(codeOf(() => parseLookup(query))).toBe(code))

  test('whatever is asked is a lookup or a refusal, within its bounds', () => {
    const fields = fc.record(
      {
        op: fc.oneof(fc.constantFrom('get', 'index', 'vindex', 'GET', 'x-y', ''), fc.string()),
        search: fc.oneof(fc.string({ unit: 'grapheme' }), fc.string({ unit: 'binary' })),
        options: fc.constantFrom('mr', 'MR,nm', '', 'xmr'),
        exact: fc.constantFrom('on', 'off', ''),
        fingerprint: fc.constantFrom('on', 'ON', 'off'),
        'x-pagesize': fc.oneof(fc.nat().map(String), fc.string()),
        'x-pagetoken': fc.oneof(fc.constantFrom('n:1', 't:99', ''), fc.string()),
      },
      { requiredKeys: [] },
    )
    let lookups = 0
    fc.assert(
      fc.property(fields, (chosen) => {
        try {
          const lookup = parseLookup(new URLSearchParams(chosen).toString())
          lookups += 1
          expect(['get', 'index', 'vindex']).toContain(lookup.op)
          expect(lookup.limit).toBeGreaterThan(0)
          expect(lookup.limit).toBeLessThanOrEqual(1000)
          const { names, text } = lookup.search
          expect(names.length > 0 || text !== null).toBe(true)
          expect(lookup.machine).toBe(/^mr/i.test(chosen.options ?? ''))
        } catch (error) {
          if (!isRegistryError(error, 'invalid', 'unimplemented')) throw error
        }
      }),
      { numRuns: 1000 },
    )
    expect(lookups).toBeGreaterThan(20)
  })

  test('whatever the bytes of a query are', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (query) => {
        expect(['ok', 'invalid', 'unimplemented']).toContain(codeOf(() => parseLookup(query)))
      }),
    )
  })
})

/** A client's reading of the index, as §7.2 tells it; throws where the client fails. */
function readIndex(text: string) {
  const keys: { fields: string[]; uids: { text: string; fields: string[] }[] }[] = []
  let count = -1
  for (const line of text.split(/\r?\n/)) {
    if (line === '') continue
    const fields = line.split(':')
    if (fields[0] === 'info') {
      if (fields[1] !== '1' || !/^\d+$/.test(fields[2] ?? '')) throw new Error(line)
      count = Number(fields[2])
    } else if (fields[0] === 'pub') {
      // ParseInt of the algorithm is fatal with -l
      if (!/^[0-9A-F]{40,64}$/.test(fields[1] ?? '') || !/^\d+$/.test(fields[2] ?? ''))
        throw new Error(line)
      for (const number of fields.slice(3, 6)) if (!/^\d*$/.test(number)) throw new Error(line)
      if (!/^[red]*$/.test(fields[6] ?? '') || fields.length > 7) throw new Error(line)
      keys.push({ fields, uids: [] })
    } else if (fields[0] === 'uid') {
      const [, escaped = '', ...rest] = fields
      if (/%(?![0-9A-F]{2})/.test(escaped) || rest.length !== 3) throw new Error(line)
      // url.QueryUnescape: a plus is a blank
      const text = decodeURIComponent(escaped.replaceAll('+', ' '))
      keys.at(-1)?.uids.push({ text, fields: rest })
    } else throw new Error(line)
  }
  if (count !== keys.length) throw new Error(`info says ${count} of ${keys.length}`)
  return keys
}

const now = new Date(Date.UTC(2030, 0, 1))

describe('the machine-readable index', () => {
  test('the example of a transcript (key-search-l), and flags', () => {
    const key = factsOfKey(['Alice Test (a+b: 100 %) <alice@example.org>'], {
      fingerprint: FPR,
      bits: 2048,
      createdAt: new Date(1_700_000_000_000),
    })
    key.userIds[0]!.createdAt = new Date(1_700_000_001_999)
    expect(indexLines([key], now)).toBe(
      'info:1:1\n' +
        `pub:${FPR}:1:2048:1700000000::\n` +
        'uid:Alice%20Test%20(a%2Bb%3A%20100%20%25)%20%3Calice%40example.org%3E:1700000001::\n',
    )
    const ended = { ...key, bits: null, revoked: true, expiresAt: now, userIds: [] }
    expect(indexLines([ended], now)).toBe(`info:1:1\npub:${FPR}:1::1700000000:1893456000:re\n`)
    expect(indexLines([], now)).toBe('info:1:0\n')
  })

  const time = fc.date({ min: new Date(0), max: new Date(8.64e15), noInvalidDate: true })
  const facts: fc.Arbitrary<KeyFacts> = fc
    .record({
      userIds: fc.array(
        fc.record({
          text: fc.oneof(fc.string({ unit: 'binary' }), fc.string({ unit: 'grapheme' })),
          email: fc.constant(null),
          createdAt: fc.option(time),
          expiresAt: fc.option(time),
          revoked: fc.boolean(),
        }),
        { maxLength: 4 },
      ),
      bits: fc.option(fc.nat()),
      algorithm: fc.nat(255),
      createdAt: time,
      expiresAt: fc.option(time),
      revoked: fc.boolean(),
    })
    .map((change) => factsOfKey([], change))

  test('every line of whatever keys is one that the client accepts', () => {
    fc.assert(
      fc.property(fc.array(facts, { maxLength: 4 }), (keys) => {
        const read = readIndex(indexLines(keys, now))
        expect(read.map(({ fields }) => fields[1])).toEqual(keys.map((key) => key.fingerprint))
        for (const [index, { uids }] of read.entries()) {
          expect(uids).toHaveLength(keys[index]?.userIds.length ?? -1)
          for (const { text } of uids) expect(text).not.toMatch(/[\p{Cc}\u2028\u2029\u202e]/u)
        }
      }),
    )
  })

  test('printable user ids come through as they are', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (text) => {
        fc.pre(!/[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Bidi_Control}]/u.test(text))
        expect(readIndex(indexLines([factsOfKey([text])], now))[0]?.uids[0]?.text).toBe(text)
      }),
    )
  })

  test('line breaks and escapes in a user id end no line and steer no terminal', () => {
    const text = 'a\r\npub:00:1:1:::\n\x1b[2J\u202egnp.exe'
    const read = readIndex(indexLines([factsOfKey([text])], now))
    expect(read).toHaveLength(1)
    expect(read[0]?.uids[0]?.text).toBe('a\ufffd\ufffdpub:00:1:1:::\ufffd\ufffd[2J\ufffdgnp.exe')
  })
})

test('the index for people holds no markup of others', async () => {
  const key = factsOfKey(['<script>alert(1)</script> "x" & \'y\''])
  const options = { typed: '<b>&', fingerprints: true, subkeys: true, more: true, now }
  const page = String(await indexPage([key], options))
  expect(page).not.toMatch(/<script|<b>/)
  expect(page).toContain('&lt;script&gt;alert(1)&lt;/script&gt; &quot;x&quot; &amp; &#39;y&#39;')
  expect(page).toContain(`/pks/lookup?op=get&amp;search=0x${key.fingerprint}`)
})

test('many armors become one that holds the packets of all', () => {
  const armor = (body: string) =>
    `-----BEGIN PGP PUBLIC KEY BLOCK-----\nComment: x\n\n${body}\n=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n`
  expect(joinArmors([armor('AAEC')])).toBe(armor('AAEC'))
  expect(joinArmors([armor('AAE='), armor('AgM=')])).toBe(
    '-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAECAw==\n-----END PGP PUBLIC KEY BLOCK-----\n',
  )
})
