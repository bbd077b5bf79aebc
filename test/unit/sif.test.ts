/** What inspection finds in SIF files, and that no file makes it overstep its budget (R51). */
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { SifFacts } from '../../src/core/model.ts'
import { inspectSif } from '../../src/core/sif.ts'
import { isRegistryError, RegistryError } from '../../src/errors.ts'
import {
  ARCH_CODES,
  buildSif,
  deffile,
  inspectMetadata,
  partition,
  sampleSif,
  signature,
} from '../fixtures/sif.ts'
import type { SifArch, SifObject, SifPlan } from '../fixtures/sif.ts'

const KIB = 1024
const FINGERPRINT = 'B79DECB8430CB35AE218520851000F976B3C88FA'

/** A reader over a file that refuses to be asked for anything outside it, and counts. */
function reader(file: Uint8Array) {
  const ranges: [start: number, length: number][] = []
  const read = (start: number, length: number): Promise<Uint8Array> => {
    ranges.push([start, length])
    if (start < 0 || length < 1 || start + length > file.length) {
      throw new Error(`read of ${length} bytes at ${start} in a file of ${file.length}`)
    }
    return Promise.resolve(file.subarray(start, start + length))
  }
  return { read, ranges }
}

async function inspect(file: Uint8Array): Promise<SifFacts> {
  const { read, ranges } = reader(file)
  const facts = await inspectSif(read, file.length)
  expect(ranges.length).toBeLessThanOrEqual(16)
  return facts
}

const inspectPlan = (plan: SifPlan) => inspect(buildSif(plan))

async function refusal(file: Uint8Array): Promise<RegistryError> {
  const error: unknown = await inspect(file).then(
    () => null,
    (reason: unknown) => reason,
  )
  if (!(error instanceof RegistryError)) throw new Error('not refused', { cause: error })
  expect(error.code).toBe('invalid')
  expect(error.subject).toBe('image')
  return error
}

const refuse = async (plan: SifPlan, sentence: string | RegExp) =>
  expect((await refusal(buildSif(plan))).message).toMatch(sentence)

describe('facts', () => {
  test('of an image like a client builds and signs', async () => {
    const facts = await inspectPlan({
      objects: [
        deffile('bootstrap: docker\nfrom: alpine\n'),
        inspectMetadata({ maintainer: 'alice', 'org.example/größe': 'XL' }),
        partition({ name: 'root', data: new Uint8Array(5000) }),
        signature(FINGERPRINT),
      ],
    })
    expect(facts).toEqual({
      arch: 'amd64',
      signed: true,
      fingerprints: [FINGERPRINT],
      encrypted: false,
      definition: 'bootstrap: docker\nfrom: alpine\n',
      labels: { maintainer: 'alice', 'org.example/größe': 'XL' },
      partitions: [
        { name: 'root', type: 'primary', filesystem: 'squashfs', arch: 'amd64', size: 5000 },
      ],
      truncated: [],
    })
  })

  test('of an image without any object', async () => {
    expect(await inspectPlan({ arch: 'unknown' })).toEqual({
      arch: 'unknown',
      signed: false,
      fingerprints: [],
      encrypted: false,
      definition: null,
      labels: {},
      partitions: [],
      truncated: [],
    })
  })

  test.each(Object.keys(ARCH_CODES) as SifArch[])('arch %s', async (arch) => {
    expect((await inspectPlan({ arch })).arch).toBe(arch)
    const objects = [partition({ arch, type: 'primary' })]
    const facts = await inspectPlan({ arch: 'unknown', objects })
    expect(facts.arch).toBe(arch)
    expect(facts.partitions[0]?.arch).toBe(arch)
  })

  test('the header decides the arch, then the primary partition and no other one', async () => {
    const primary = partition({ arch: 'arm64' })
    const data = partition({ arch: 's390x', type: 'data' })
    const archOf = async (plan: SifPlan) => (await inspectPlan(plan)).arch
    expect(await archOf({ arch: 'riscv64', objects: [primary] })).toBe('riscv64')
    for (const raw of ['99\0', '14\0', '2\0\0', '\0\0\0', '0x2', '021', 'né']) {
      expect(await archOf({ arch: { raw }, objects: [data, primary] })).toBe('arm64')
      expect(await archOf({ arch: { raw }, objects: [data] })).toBe('unknown')
    }
  })

  test('the primary partition alone decides encryption', async () => {
    const encrypted = async (...objects: SifObject[]) => (await inspectPlan({ objects })).encrypted
    expect(await encrypted(partition({ filesystem: 'encrypted' }))).toBe(true)
    expect(await encrypted(partition({ filesystem: 'gocryptfs' }))).toBe(true)
    expect(await encrypted(partition())).toBe(false)
    expect(await encrypted(partition({ type: 'data', filesystem: 'encrypted' }), partition())).toBe(
      false,
    )
  })

  test('partitions are named in words, in descriptor order', async () => {
    const { partitions } = await inspectPlan({
      objects: [
        partition({ filesystem: 'gocryptfs', type: 'system', arch: 'arm' }),
        partition({ filesystem: 'ext3', type: 'overlay', data: '' }),
        partition({ filesystem: 'raw', type: 'data' }),
        partition({ filesystem: -1, type: 0x7fffffff }),
        partition({ filesystem: 0, type: 0 }),
      ],
    })
    expect(partitions.map((p) => `${p.type} ${p.filesystem} ${p.arch} ${p.size}`)).toEqual([
      'system gocryptfs-squashfs arm 16',
      'overlay ext3 amd64 0',
      'data raw amd64 16',
      'unknown unknown amd64 16',
      'unknown unknown amd64 16',
    ])
  })

  test('fingerprints are distinct claims; a signature without one still signs', async () => {
    const other = 'ab'.repeat(20)
    const facts = await inspectPlan({
      objects: [signature(FINGERPRINT), signature(null), signature(other), signature(FINGERPRINT)],
    })
    expect(facts.fingerprints).toEqual([FINGERPRINT, other.toUpperCase()])
    const unnamed = await inspectPlan({ objects: [signature(null)] })
    expect(unnamed).toMatchObject({ signed: true, fingerprints: [] })
  })

  test('a deleted object counts for nothing, wherever it points', async () => {
    const gone = { used: false, lie: { offset: -5, size: 1n << 62n } }
    const facts = await inspectPlan({
      objects: [
        { ...signature(FINGERPRINT), ...gone },
        { ...deffile('old'), ...gone },
        deffile('new'),
      ],
    })
    expect(facts).toMatchObject({ signed: false, fingerprints: [], definition: 'new' })
  })

  test('R51 the declared type, not the name, selects the parser', async () => {
    const labels = '{"data":{"attributes":{"labels":{"a":"b"}}}}'
    const name = 'inspect-metadata.json'
    expect((await inspectPlan({ objects: [{ type: 'json', name, data: labels }] })).labels).toEqual(
      { a: 'b' },
    )
    for (const type of ['generic', 'partition', 'deffile', 'ociBlob', 0x7fff] as const) {
      const facts = await inspectPlan({ objects: [{ type, name, data: labels }] })
      expect(facts.labels).toEqual({})
      expect(facts.truncated).toEqual([])
    }
    const config = { type: 'json', name: 'oci-config.json', data: labels } as const
    expect((await inspectPlan({ objects: [config] })).labels).toEqual({})
  })

  test('an OCI-SIF is accepted with its arch unknown', async () => {
    const objects: SifObject[] = [
      { type: 'ociBlob', data: '{"architecture":"amd64"}' },
      { type: 'ociRoot', data: '{"schemaVersion":2}' },
    ]
    expect(await inspectPlan({ arch: 'unknown', objects })).toMatchObject({
      arch: 'unknown',
      partitions: [],
    })
  })

  test('table and texts may lie anywhere in the file', async () => {
    const objects = [
      { type: 'generic', data: new Uint8Array(100 * KIB) } as const,
      deffile('far away'),
      inspectMetadata({ a: 'b' }),
    ]
    const file = buildSif({ tableOffset: 70_001, total: 1000, objects })
    const { read, ranges } = reader(file)
    expect(await inspectSif(read, file.length)).toMatchObject({
      definition: 'far away',
      labels: { a: 'b' },
    })
    expect(ranges).toHaveLength(4)
    expect(ranges.slice(0, 2)).toEqual([
      [0, 32_768],
      [70_001, 585_000],
    ])
  })

  test('an image whose texts are in its first 32 KiB takes one read', async () => {
    const file = sampleSif({ content: 'x', labels: { a: 'b' } })
    const { read, ranges } = reader(file)
    expect(await inspectSif(read, file.length)).toMatchObject({ labels: { a: 'b' } })
    expect(ranges).toEqual([[0, 32_768]])
  })

  test('samples differ by content and arch', async () => {
    expect(sampleSif({ content: 'a' })).not.toEqual(sampleSif({ content: 'b' }))
    expect(sampleSif()).toEqual(sampleSif())
    expect((await inspect(sampleSif({ arch: 'ppc64le' }))).arch).toBe('ppc64le')
  })
})

describe('labels', () => {
  const labelsOf = async (...objects: SifObject[]) => {
    const { labels, truncated } = await inspectPlan({ objects })
    return { labels, truncated }
  }
  const plain = (data: string | Uint8Array): SifObject => ({ type: 'labels', data })

  test('of the metadata stand; Labels objects add to them', async () => {
    const found = await labelsOf(
      plain('{"a":"other","b":"2"}'),
      inspectMetadata({ a: '1' }),
      plain('{"c":"3"}'),
    )
    expect(found).toEqual({ labels: { a: '1', b: '2', c: '3' }, truncated: [] })
  })

  test('are strings; numbers and booleans become strings, the rest is dropped', async () => {
    const found = await labelsOf(
      inspectMetadata({ n: 1.5, t: true, f: false, s: '', o: {}, l: ['x'], z: null }),
    )
    expect(found).toEqual({ labels: { n: '1.5', t: 'true', f: 'false', s: '' }, truncated: [] })
  })

  test('of hostile names are ordinary', async () => {
    const { labels } = await labelsOf(
      plain('{"__proto__":"p","constructor":"c","toString":"t","nested":{"__proto__":1}}'),
    )
    expect(Object.entries(labels)).toEqual([
      ['__proto__', 'p'],
      ['constructor', 'c'],
      ['toString', 't'],
    ])
    expect(Object.getPrototypeOf(labels)).toBe(Object.prototype)
    const inherited = { type: 'json', name: 'inspect-metadata.json' } as const
    const data = '{"__proto__":{"data":{"attributes":{"labels":{"a":"b"}}}}}'
    expect((await labelsOf({ ...inherited, data })).labels).toEqual({})
  })

  test.each(['[]', '"text"', 'null', '7', '{"data":null}', '{"data":{"attributes":[]}}'])(
    'are absent in %s',
    async (data) => {
      const json: SifObject = { type: 'json', name: 'inspect-metadata.json', data }
      expect(await labelsOf(json)).toEqual({ labels: {}, truncated: [] })
    },
  )

  test.each(['{', 'nonsense', '{"a":1}x', '\0'])('unreadable as %j are named', async (data) => {
    expect(await labelsOf(plain(data), plain('{"b":"c"}'))).toEqual({
      labels: { b: 'c' },
      truncated: ['labels'],
    })
  })

  test('R51 no more than 1,000', async () => {
    const many = (count: number) =>
      Object.fromEntries(Array.from({ length: count }, (_, i) => [`k${i}`, 'v']))
    const exact = await labelsOf(inspectMetadata(many(1000)))
    expect(Object.keys(exact.labels)).toHaveLength(1000)
    expect(exact.truncated).toEqual([])
    const over = await labelsOf(inspectMetadata(many(1001)))
    expect(Object.keys(over.labels)).toHaveLength(1000)
    expect(over.truncated).toEqual(['labels'])
  })

  test('R51 keys of 256 and values of 4096 characters', async () => {
    const fits = { ['k'.repeat(256)]: 'v'.repeat(4096) }
    expect(await labelsOf(inspectMetadata(fits))).toEqual({ labels: fits, truncated: [] })
    const { labels, truncated } = await labelsOf(
      inspectMetadata({ ['k'.repeat(257)]: 'x', long: `${'v'.repeat(4095)}😀` }),
    )
    // The cut falls inside a pair of surrogates: the half becomes U+FFFD, as databases need it.
    expect(labels).toEqual({ ['k'.repeat(256)]: 'x', long: `${'v'.repeat(4095)}\uFFFD` })
    expect(truncated).toEqual(['labels'])
    expect((await labelsOf(plain('{"\\ud800":"\\udc00"}'))).labels).toEqual({ '\uFFFD': '\uFFFD' })
  })

  test('R51 an object over 256 KiB is not parsed, one of 256 KiB is', async () => {
    const sized = (size: number) => plain('{"a":"b"}'.padEnd(size))
    expect(await labelsOf(sized(256 * KIB))).toEqual({ labels: { a: 'b' }, truncated: [] })
    expect(await labelsOf(sized(256 * KIB + 1))).toEqual({ labels: {}, truncated: ['labels'] })
  })

  test('R51 no more than 256 KiB in all', async () => {
    const objects = Array.from({ length: 4 }, (_, n) =>
      plain(
        JSON.stringify(
          Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`${n}.${i}`, 'v'.repeat(4000)])),
        ),
      ),
    )
    const { labels, truncated } = await labelsOf(...objects)
    const stored = Object.entries(labels).flat().join('').length
    expect(stored).toBeLessThanOrEqual(256 * KIB)
    expect(stored).toBeGreaterThan(250 * KIB)
    expect(truncated).toEqual(['labels'])
  })

  test('R51 JSON nested 64 deep is read, deeper is not', async () => {
    const nested = (depth: number) =>
      plain(`{"a":"[[[[\\"[[","n":${'['.repeat(depth - 1)}${']'.repeat(depth - 1)}}`)
    expect(await labelsOf(nested(64))).toEqual({ labels: { a: '[[[["[[' }, truncated: [] })
    expect(await labelsOf(nested(65))).toEqual({ labels: {}, truncated: ['labels'] })
    expect(await labelsOf(nested(100_000))).toEqual({ labels: {}, truncated: ['labels'] })
    const brackets = JSON.stringify({ a: '['.repeat(1000) })
    expect((await labelsOf(plain(brackets))).labels).toEqual({ a: '['.repeat(1000) })
  })

  test('R51 the 16 reads are not exceeded by many objects', async () => {
    const far: SifObject = { type: 'generic', data: new Uint8Array(40 * KIB) }
    const labels = Array.from({ length: 40 }, (_, i) => plain(`{"k${i}":"v"}`))
    const file = buildSif({ total: 100, objects: [deffile('x'), far, ...labels] })
    const { read, ranges } = reader(file)
    const facts = await inspectSif(read, file.length)
    expect(ranges).toHaveLength(16)
    expect(facts.definition).toBe('x')
    expect(Object.keys(facts.labels)).toHaveLength(13)
    expect(facts.truncated).toEqual(['labels'])
  })
})

describe('the definition', () => {
  const definitionOf = async (data: string | Uint8Array) => {
    const objects: SifObject[] = [{ type: 'deffile', data }, deffile('second')]
    const { definition, truncated } = await inspectPlan({ objects })
    return { definition, truncated }
  }

  test('is the first one, whole up to 256 KiB', async () => {
    const text = 'x'.repeat(256 * KIB)
    expect(await definitionOf(text)).toEqual({ definition: text, truncated: [] })
    expect(await definitionOf(`${text}y`)).toEqual({ definition: text, truncated: ['definition'] })
    expect(await definitionOf('')).toEqual({ definition: '', truncated: [] })
  })

  test('is cut between characters', async () => {
    const text = `x${'😀'.repeat(64 * KIB)}`
    expect(await definitionOf(text)).toEqual({
      definition: text.slice(0, -2),
      truncated: ['definition'],
    })
  })

  test('has bytes that are no UTF-8 replaced, and stays within 256 KiB even so', async () => {
    const bytes = new Uint8Array([0x61, 0xff, 0x62])
    expect(await definitionOf(bytes)).toEqual({ definition: 'a\uFFFDb', truncated: [] })
    const { definition, truncated } = await definitionOf(new Uint8Array(200 * KIB).fill(0xff))
    expect(new TextEncoder().encode(definition ?? '').length).toBeLessThanOrEqual(256 * KIB)
    expect(truncated).toEqual(['definition'])
  })
})

describe('R51 refused', () => {
  test.each([0, 1, 127])('a file of %i bytes', async (size) => {
    expect((await refusal(new Uint8Array(size))).message).toMatch('This file is no SIF image: ')
  })

  test('other kinds of files', async () => {
    await refuse({ magic: 'SIF_MAGIX\0' }, /^This file is no SIF image: /)
    await refuse({ magic: 'SIF_MAGIC1' }, /^This file is no SIF image: /)
    await refuse({ version: '02\0' }, /^This file is no SIF image: .*version/)
    expect((await refusal(new Uint8Array(100_000).fill(0x41))).message).toMatch('no SIF image')
  })

  test('a table that is not in the file', async () => {
    const size = buildSif().length
    for (const tableOffset of [-1, 0, 127, 4097, size, 1n << 62n, (1n << 63n) - 1n]) {
      await refuse({ lie: { tableOffset } }, 'descriptor table offset')
    }
    await refuse({ lie: { tableSize: -1 } }, 'descriptor table size')
    await refuse({ lie: { tableSize: 1024 * KIB + 1 } }, 'descriptor table size')
    await refuse({ lie: { tableSize: (1n << 63n) - 1n } }, 'descriptor table size')
    await refuse({ lie: { tableSize: 48 * 585 + 1 } }, 'descriptor table offset')
  })

  test('a number of descriptors that the table has no room for', async () => {
    for (const total of [-1, 49, 1n << 62n, (1n << 63n) - 1n, -(1n << 63n)]) {
      await refuse({ lie: { total } }, 'number of descriptors')
    }
  })

  test('more than 512 used descriptors; 512 among unused ones are fine', async () => {
    const object: SifObject = { type: 'generic', data: 'x' }
    const objects = Array.from({ length: 512 }, () => object)
    const unused = Array.from({ length: 1200 }, () => ({ ...object, used: false }))
    expect((await inspectPlan({ objects: [...unused, ...objects] })).signed).toBe(false)
    await refuse({ objects: [...objects, object] }, 'used descriptors')
  })

  test.each([
    { lie: { offset: -1 }, says: 'offset of object 1' },
    { lie: { size: -1 }, says: 'size of object 1' },
    { lie: { offset: 1n << 62n }, says: 'object 1 ends' },
    { lie: { size: (1n << 63n) - 1n }, says: 'object 1 ends' },
    { lie: { offset: (1n << 63n) - 1n, size: (1n << 63n) - 1n }, says: 'object 1 ends' },
    { lie: { size: 101 }, says: 'object 1 ends' },
    { lie: { offset: 0, size: 10 }, says: 'lies inside' },
    { lie: { offset: 127, size: 10 }, says: 'lies inside the header' },
    { lie: { offset: 4000, size: 97 }, says: 'lies inside object 1' },
    { lie: { offset: 4096, size: 1 }, says: 'lies inside' },
    { lie: { offset: 32_175, size: 1 }, says: 'lies inside the descriptor table' },
  ])('an object: $lie.offset $lie.size $says', async ({ lie, says }) => {
    await refuse({ objects: [{ type: 'generic', data: new Uint8Array(100), lie }] }, says)
  })

  test('objects that overlap, in any order', async () => {
    const data = new Uint8Array(100)
    const at = (offset: number, size: number): SifObject => ({
      type: 'generic',
      data,
      lie: { offset, size },
    })
    const start = 32_176
    for (const pair of [
      [at(start, 100), at(start, 100)],
      [at(start, 101), at(start + 100, 50)],
      [at(start + 50, 10), at(start, 200)],
    ]) {
      await refuse({ objects: pair }, 'lies inside object')
    }
    const fine = [at(start + 100, 100), at(start, 100), at(start + 50, 0), at(start + 50, 0)]
    expect((await inspectPlan({ objects: fine })).truncated).toEqual([])
  })

  test('an image cut short', async () => {
    const file = sampleSif()
    const { message } = await refusal(file.subarray(0, file.length - 1))
    expect(message).toContain(`object 3 ends at byte ${file.length}, past the end`)
    await refusal(file.subarray(0, 20_000))
  })
})

test('nothing of zero size is asked of the store', async () => {
  const far: SifObject = { type: 'generic', data: new Uint8Array(40 * KIB) }
  const objects: SifObject[] = [far, deffile(''), { type: 'labels', data: '' }]
  expect(await inspectPlan({ objects })).toMatchObject({ definition: '', truncated: [] })
  const empty = { tableOffset: 40 * KIB, lie: { total: 0, tableSize: 0 } }
  expect((await inspectPlan(empty)).arch).toBe('amd64')
})

test('a large file costs no more than its table', async () => {
  const { ranges, read } = reader(sampleSif())
  // The reader holds only the image itself: reading anything of the tail would throw.
  expect((await inspectSif(read, 2 ** 45)).arch).toBe('amd64')
  expect(ranges).toEqual([[0, 32_768]])
})

test('a store that returns too few bytes is not blamed on the image', async () => {
  const file = sampleSif()
  const short = (start: number, length: number) =>
    Promise.resolve(file.subarray(start, start + length - 1))
  await expect(inspectSif(short, file.length)).rejects.toMatchObject({ code: 'internal' })
})

describe('properties', () => {
  const whole = buildSif({
    objects: [
      deffile('bootstrap: docker\n'),
      inspectMetadata({ a: 'b', n: 1 }),
      { type: 'labels', data: '{"c":"d"}' },
      partition(),
      signature(FINGERPRINT),
    ],
  })
  // Where a change can matter: header, used descriptors, objects; the rest of the table is zero.
  const place = fc.oneof(
    fc.integer({ min: 32, max: 127 }),
    fc.integer({ min: 4096, max: 4096 + 6 * 585 }),
    fc.integer({ min: 32_176, max: whole.length - 1 }),
  )

  /** Runs inspection and accepts nothing but facts within bounds, or `invalid`. */
  async function judge(file: Uint8Array): Promise<void> {
    const { read, ranges } = reader(file)
    const start = performance.now()
    try {
      const facts = await inspectSif(read, file.length)
      expect(facts.fingerprints.every((f) => /^[0-9A-F]{40}$/.test(f))).toBe(true)
      expect(facts.partitions.every((p) => p.size >= 0 && p.size <= file.length)).toBe(true)
    } catch (error) {
      if (!isRegistryError(error, 'invalid')) throw error
    }
    expect(ranges.length).toBeLessThanOrEqual(16)
    expect(performance.now() - start).toBeLessThan(2000)
  }

  test('changed bytes in an image', async () => {
    const change = fc.tuple(place, fc.integer({ min: 0, max: 255 }))
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 12 }), async (changes) => {
        const file = whole.slice()
        for (const [at, value] of changes) file[at] = value
        await judge(file)
      }),
      { numRuns: 500 },
    )
  })

  test('numbers of any kind in header and descriptors', async () => {
    const number = fc.oneof(
      fc.bigInt({ min: -(1n << 63n), max: (1n << 63n) - 1n }),
      fc.bigInt({ min: -1n, max: BigInt(whole.length + 1) }),
    )
    const lie = fc.record({ offset: number, size: number }, { requiredKeys: [] })
    const table = fc.record(
      { total: number, tableOffset: number, tableSize: number },
      { requiredKeys: [] },
    )
    await fc.assert(
      fc.asyncProperty(table, fc.array(lie, { maxLength: 3 }), async (header, lies) => {
        const objects = lies.map((lie) => ({ ...deffile('text'), lie }))
        await judge(buildSif({ lie: header, objects, total: 4, trailing: 4096 }))
      }),
      { numRuns: 500 },
    )
  })

  test('images cut anywhere, and bytes that never were one', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat({ max: whole.length }), (end) => judge(whole.subarray(0, end))),
    )
    const garbage = fc.uint8Array({ maxLength: 2000 })
    await fc.assert(fc.asyncProperty(garbage, judge))
    await fc.assert(
      fc.asyncProperty(garbage, (bytes) => {
        const file = new Uint8Array(48 + bytes.length + 4096)
        file.set(whole.subarray(0, 48))
        file.set(bytes, 48)
        return judge(file)
      }),
    )
  })
})
