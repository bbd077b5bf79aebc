/** What every BlobStore must do, as a suite over a factory; nothing about a backend is in here. */
import { createHash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { isRegistryError } from '../../src/errors.ts'
import type { ErrorCode } from '../../src/errors.ts'
import type { BlobPart, BlobStore, ByteRange, Bytes } from '../../src/ports.ts'

export type Made = {
  /** A fresh, empty store. */
  store: BlobStore
  /** Everything the store holds that is not a published blob: temporaries, open descriptors. */
  leftovers: () => Promise<string[]>
  dispose: () => Promise<void>
}

export type Backend<M extends Made> = {
  make(): Promise<M>
  /** Tests this backend cannot pass, by title, each with the reason. */
  skip?: { test: string; reason: string }[]
  /** Adds the backend's own tests, with the same set-up and the same question for leftovers. */
  extra?(test: (title: string, body: (made: M) => Promise<void>) => void): void
}

/** Object stores refuse smaller parts than 5 MiB, so the suite uses that size for all. */
export const PART = 5 * 1024 * 1024

/** Random bytes in the slices that workerd gives them in: 64 KiB at most. */
export function randomBytes(size: number): Buffer {
  const bytes = Buffer.alloc(size)
  for (let at = 0; at < size; at += 65536) crypto.getRandomValues(bytes.subarray(at, at + 65536))
  return bytes
}

/** A key that no other test uses. */
export const newKey = () => randomBytes(12).toString('hex')

export const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

/** A body of the given chunks. */
export async function* bodyOf(...chunks: Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* chunks
}

/** A body that comes in pieces of 64 KiB, as from a socket. */
export async function* inPieces(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 65536) yield bytes.subarray(at, at + 65536)
}

/** A body that gives `before`, stalls until `release` is called, and then gives `after`. */
export function stallingBody(before: Uint8Array, after: Uint8Array) {
  const stalled = Promise.withResolvers<void>()
  const gate = Promise.withResolvers<void>()
  const released = Promise.withResolvers<void>()
  async function* generate(): AsyncGenerator<Uint8Array> {
    try {
      yield* inPieces(before)
      stalled.resolve()
      await gate.promise
      yield after
    } finally {
      released.resolve()
    }
  }
  return {
    body: generate(),
    /** Resolves when everything of `before` was taken. */
    stalled: stalled.promise,
    /** Lets the late bytes come; resolves when the consumer has let go of the body. */
    release: () => {
      gate.resolve()
      return released.promise
    },
  }
}

/** The bytes a store serves, or null. */
export async function readBlob(
  store: BlobStore,
  key: string,
  range?: ByteRange,
): Promise<Buffer | null> {
  const read = await store.get(key, range)
  return read === null ? null : collect(read.stream())
}

async function collect(body: Bytes): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  for await (const chunk of body) chunks.push(chunk)
  return Buffer.concat(chunks)
}

/** `ok`, or the code of the RegistryError; any other failure is thrown on. */
export async function outcome(work: Promise<unknown>): Promise<'ok' | ErrorCode> {
  try {
    await work
    return 'ok'
  } catch (error) {
    if (isRegistryError(error)) return error.code
    throw error
  }
}

/** Compares by digest: a failed comparison of megabytes takes minutes to print. */
function expectBytes(actual: Buffer | null, expected: Uint8Array): void {
  expect(actual?.length).toBe(expected.length)
  expect(actual === null ? null : sha256(actual)).toBe(sha256(expected))
}

/** Bytes for one test: three parts, the last one shorter. */
function threeParts() {
  const bytes = randomBytes(2 * PART + 1000)
  return {
    bytes,
    slice: (number: number) => bytes.subarray((number - 1) * PART, number * PART),
  }
}

/** Sends one part in pieces and gives it as finishParts wants it. */
async function sendPart(
  store: BlobStore,
  key: string,
  handle: string,
  number: number,
  bytes: Uint8Array,
): Promise<BlobPart> {
  const { etag } = await store.putPart(key, handle, number, inPieces(bytes), bytes.length)
  return { number, etag }
}

/** An upload of `threeParts` with all parts sent. */
async function sentUpload(store: BlobStore) {
  const { bytes, slice } = threeParts()
  const key = newKey()
  const handle = await store.startParts(key, bytes.length, PART)
  const parts: BlobPart[] = []
  for (const number of [1, 2, 3]) {
    parts.push(await sendPart(store, key, handle, number, slice(number)))
  }
  return { key, handle, parts, bytes, slice }
}

/** Describes the BlobStore contract of src/ports.ts for one backend. */
export function describeBlobStore<M extends Made>(name: string, backend: Backend<M>): void {
  describe(`BlobStore: ${name}`, () => {
    const skip = new Map(backend.skip?.map(({ test, reason }) => [test, reason]))

    function test(title: string, body: (made: M) => Promise<void>): void {
      const reason = skip.get(title)
      skip.delete(title)
      it(title, async (context) => {
        if (reason !== undefined) context.skip(reason)
        const made = await backend.make()
        try {
          await body(made)
          expect(await made.leftovers()).toEqual([])
        } finally {
          await made.dispose()
        }
      })
    }

    describe('listing', () => {
      test('lists over three pages in order, each key once', async ({ store }) => {
        // Some share a beginning, and the order of writing is not the order of keys.
        const keys = ['ff', 'a0', 'a0', '00', 'a0', 'a0', 'a0'].map((start) =>
          start.concat(newKey().slice(2)),
        )
        for (const key of keys) await store.put(key, bodyOf(Buffer.from(key)), 24)
        const pages: string[][] = []
        let cursor: string | null = null
        do {
          const page = await store.list(cursor, 3)
          pages.push(page.blobs.map((blob) => blob.key))
          expect(page.blobs.every(({ modifiedAt }) => !Number.isNaN(modifiedAt.getTime()))).toBe(
            true,
          )
          cursor = page.cursor
        } while (cursor !== null && pages.length < 10)
        expect(pages.slice(0, 3).map((page) => page.length)).toEqual([3, 3, 1])
        expect(pages.flat()).toEqual([...keys].sort())
      })

      test('goes on listing where it stood when keys vanish between pages', async ({ store }) => {
        const keys = ['10', '20', '30', '40'].map((start) => start.concat(newKey().slice(2)))
        for (const key of keys) await store.put(key, bodyOf(Buffer.from(key)), 24)
        const first = await store.list(null, 2)
        await store.delete([keys[0]!, keys[1]!, keys[2]!])
        const second = await store.list(first.cursor, 2)
        expect(second.blobs.map((blob) => blob.key)).toEqual([keys[3]])
      })

      test('lists nothing in an empty store', async ({ store }) => {
        expect(await store.list(null, 1000)).toEqual({ blobs: [], cursor: null })
      })

      test('does not list an upload that is not finished', async ({ store }) => {
        const { key, handle } = await sentUpload(store)
        expect((await store.list(null, 10)).blobs).toEqual([])
        expect(await store.get(key)).toBe(null)
        expect(await store.head(key)).toBe(null)
        await store.abortParts(key, handle)
      })
    })

    describe('reading', () => {
      test('serves ranges exactly: last byte, clipped end, past the end', async ({ store }) => {
        const key = newKey()
        const bytes = randomBytes(1024 * 1024 + 7)
        await store.put(key, inPieces(bytes), bytes.length)
        const last = bytes.length - 1
        for (const [start, end] of [
          [0, 0],
          [last, last],
          [last, last + 1000],
          [65530, 900_000],
          [0, Number.MAX_SAFE_INTEGER],
        ] as const) {
          const read = await store.get(key, { start, end })
          expect(read?.range).toEqual({ start, end: Math.min(end, last) })
          expect(read?.size).toBe(bytes.length)
          expectBytes(await collect(read!.stream()), bytes.subarray(start, end + 1))
        }
        for (const start of [bytes.length, bytes.length + 1]) {
          expect(await outcome(store.get(key, { start, end: start + 9 }))).toBe(
            'range_unsatisfiable',
          )
        }
      })

      test('keeps an empty blob', async ({ store }) => {
        const key = newKey()
        await store.put(key, bodyOf(), 0, sha256(Buffer.alloc(0)))
        expect((await store.head(key))?.size).toBe(0)
        const read = await store.get(key)
        expect(read?.range).toEqual({ start: 0, end: -1 })
        expectBytes(await collect(read!.stream()), Buffer.alloc(0))
        expect(await outcome(store.get(key, { start: 0, end: 0 }))).toBe('range_unsatisfiable')
      })

      test('gives one etag for a blob, quoted, and another for another', async ({ store }) => {
        const [one, two] = [newKey(), newKey()]
        const written = await store.put(one, bodyOf(Buffer.from('one')), 3)
        const other = await store.put(two, bodyOf(Buffer.from('two')), 3)
        expect(written.etag).toMatch(/^"[^"]+"$/)
        expect(other.etag).not.toBe(written.etag)
        expect(await store.head(one)).toEqual(written)
        const read = await store.get(one, { start: 1, end: 1 })
        expect(read).toMatchObject(written)
        await read?.close()
      })

      test('lets go of the source when the reader breaks off or never starts', async (made) => {
        const key = newKey()
        const bytes = randomBytes(3 * 1024 * 1024)
        await made.store.put(key, inPieces(bytes), bytes.length)
        const broken = await made.store.get(key)
        for await (const chunk of broken!.stream()) {
          expect(chunk.length).toBeGreaterThan(0)
          break
        }
        expect(await made.leftovers()).toEqual([])
        const unread = await made.store.get(key)
        await unread?.close()
        await unread?.close()
      })

      test('reads at any position where it offers random access', async ({ store }) => {
        const key = newKey()
        const bytes = randomBytes(100_000)
        await store.put(key, inPieces(bytes), bytes.length)
        const read = await store.get(key)
        if (read?.readInto !== undefined) {
          const buffer = Buffer.alloc(64)
          expect(await read.readInto(buffer, 10, 20, 50_000)).toBe(20)
          expect(buffer.subarray(10, 30)).toEqual(bytes.subarray(50_000, 50_020))
          expect(await read.readInto(buffer, 0, 64, 99_990)).toBe(10)
          expect(await read.readInto(buffer, 0, 64, 100_000)).toBe(0)
        }
        await read?.close()
      })

      test('hands out chunks that cannot reach the stored bytes (R1)', async ({ store }) => {
        const key = newKey()
        const bytes = randomBytes(1000)
        await store.put(key, bodyOf(Buffer.from(bytes)), bytes.length)
        const read = await store.get(key)
        for await (const chunk of read!.stream()) chunk.fill(0)
        expectBytes(await readBlob(store, key), bytes)
      })

      test('answers null for an absent key', async ({ store }) => {
        expect(await store.get(newKey())).toBe(null)
        expect(await store.get(newKey(), { start: 5, end: 9 })).toBe(null)
        expect(await store.head(newKey())).toBe(null)
      })
    })

    describe('whole blobs', () => {
      test('leaves nothing of a body that is shorter than said', async ({ store }) => {
        for (const size of [1, 100, 3 * 1024 * 1024]) {
          const key = newKey()
          const body = inPieces(randomBytes(size - 1))
          expect(await outcome(store.put(key, body, size))).toBe('size_mismatch')
          expect(await store.head(key)).toBe(null)
        }
      })

      test('stops at the first byte too many and leaves nothing', async ({ store }) => {
        const key = newKey()
        let given = 0
        async function* endless(): AsyncGenerator<Uint8Array> {
          for (;;) {
            given += 1000
            yield Buffer.alloc(1000)
          }
        }
        expect(await outcome(store.put(key, endless(), 2500))).toBe('size_mismatch')
        expect(given).toBeLessThanOrEqual(4000)
        expect(await outcome(store.put(key, bodyOf(Buffer.alloc(1)), 0))).toBe('size_mismatch')
        expect(await store.head(key)).toBe(null)
      })

      test('checks the SHA-256 it is given', async ({ store }) => {
        const key = newKey()
        const bytes = randomBytes(200_000)
        const wrong = sha256(Buffer.from('something else'))
        expect(await outcome(store.put(key, inPieces(bytes), bytes.length, wrong))).toBe(
          'digest_mismatch',
        )
        expect(await store.head(key)).toBe(null)
        await store.put(key, inPieces(bytes), bytes.length, sha256(bytes))
        expectBytes(await readBlob(store, key), bytes)
      })

      test('passes on the error of a body that breaks half-way, leaving nothing', async (made) => {
        const key = newKey()
        async function* broken(): AsyncGenerator<Uint8Array> {
          yield randomBytes(2 * 1024 * 1024)
          throw new Error('the client went away')
        }
        await expect(made.store.put(key, broken(), 4 * 1024 * 1024)).rejects.toThrow(
          'the client went away',
        )
        expect(await made.leftovers()).toEqual([])
        // The key was never written, so it is still free.
        await made.store.put(key, bodyOf(Buffer.from('now')), 3)
      })

      test('never replaces a key that holds bytes (R1)', async ({ store }) => {
        const key = newKey()
        await store.put(key, bodyOf(Buffer.from('first')), 5)
        expect(await outcome(store.put(key, bodyOf(Buffer.from('other')), 5))).toBe('conflict')
        expect(await outcome(store.startParts(key, PART, PART))).toBe('conflict')
        expectBytes(await readBlob(store, key), Buffer.from('first'))
      })

      test('lets exactly one of many concurrent puts of a key win', async ({ store }) => {
        const key = newKey()
        const bodies = Array.from({ length: 8 }, () => randomBytes(300_000))
        const outcomes = await Promise.all(
          bodies.map((bytes) => outcome(store.put(key, inPieces(bytes), bytes.length))),
        )
        expect(outcomes.filter((result) => result === 'ok')).toHaveLength(1)
        expect(outcomes.filter((result) => result === 'conflict')).toHaveLength(7)
        expectBytes(await readBlob(store, key), bodies[outcomes.indexOf('ok')]!)
      })

      test('shows a reader nothing before all is there', async ({ store }) => {
        const key = newKey()
        const bytes = randomBytes(2 * 1024 * 1024)
        const late = stallingBody(bytes.subarray(0, -1), bytes.subarray(-1))
        const writing = store.put(key, late.body, bytes.length)
        await late.stalled
        expect(await store.get(key)).toBe(null)
        expect((await store.list(null, 10)).blobs).toEqual([])
        await late.release()
        await writing
        expectBytes(await readBlob(store, key), bytes)
      })

      test('takes a body in a great many tiny chunks', async ({ store }) => {
        const key = newKey()
        const bytes = randomBytes(5000)
        const chunks = Array.from(bytes, (_, at) => bytes.subarray(at, at + 1))
        await store.put(key, bodyOf(Buffer.alloc(0), ...chunks), bytes.length, sha256(bytes))
        expectBytes(await readBlob(store, key), bytes)
      })

      test('deletes, also what is absent, and again', async ({ store }) => {
        const [one, two, kept] = [newKey(), newKey(), newKey()]
        for (const key of [one, two, kept]) await store.put(key, bodyOf(Buffer.from('x')), 1)
        await store.delete([])
        await store.delete([one, newKey(), two])
        await store.delete([one, two])
        expect(await store.head(one)).toBe(null)
        expect((await store.list(null, 10)).blobs.map((blob) => blob.key)).toEqual([kept])
      })

      test('refuses what is not a key or a size, and touches nothing', async ({ store }) => {
        const kept = newKey()
        await store.put(kept, bodyOf(Buffer.from('x')), 1)
        const good = newKey()
        for (const key of [
          '',
          good.slice(1),
          `${good}0`,
          `${good}\n`,
          `A${good.slice(1)}`,
          `g${good.slice(1)}`,
          `../${good.slice(3)}`,
          `${good.slice(0, 11)}/${good.slice(12)}`,
        ]) {
          const calls = [
            store.put(key, bodyOf(Buffer.from('x')), 1),
            store.get(key),
            store.head(key),
            store.delete([kept, key]),
            store.startParts(key, 1, PART),
            store.putPart(key, good, 1, bodyOf(Buffer.from('x')), 1),
            store.finishParts(key, good, []),
            store.abortParts(key, null),
          ]
          const outcomes = await Promise.all(calls.map(outcome))
          expect({ key, outcomes }).toEqual({ key, outcomes: calls.map(() => 'invalid') })
        }
        for (const size of [-1, 1.5, NaN, Infinity]) {
          expect(await outcome(store.put(good, bodyOf(Buffer.from('x')), size))).toBe('invalid')
          expect(await outcome(store.startParts(good, size, PART))).toBe('invalid')
        }
        expect(await outcome(store.startParts(good, 1, 0))).toBe('invalid')
        expect((await store.list(null, 10)).blobs.map((blob) => blob.key)).toEqual([kept])
      })
    })

    describe('parts', () => {
      test('assembles parts sent out of order and at once', async ({ store }) => {
        const { bytes, slice } = threeParts()
        const key = newKey()
        const handle = await store.startParts(key, bytes.length, PART)
        const parts = await Promise.all(
          [3, 1, 2].map((number) => sendPart(store, key, handle, number, slice(number))),
        )
        parts.sort((a, b) => a.number - b.number)
        const info = await store.finishParts(key, handle, parts)
        expect(info.size).toBe(bytes.length)
        expect(await store.head(key)).toEqual(info)
        expectBytes(await readBlob(store, key), bytes)
        expectBytes(
          await readBlob(store, key, { start: PART - 5, end: PART + 4 }),
          bytes.subarray(PART - 5, PART + 5),
        )
      })

      test('takes one part alone, shorter than the part size', async ({ store }) => {
        const key = newKey()
        const handle = await store.startParts(key, 3, PART)
        const part = await sendPart(store, key, handle, 1, Buffer.from('sif'))
        await store.finishParts(key, handle, [part])
        expectBytes(await readBlob(store, key), Buffer.from('sif'))
      })

      test('takes parts of an upload whose size nobody knows yet', async ({ store }) => {
        const { bytes, slice } = threeParts()
        const key = newKey()
        const handle = await store.startParts(key, null, PART)
        expect(await outcome(store.finishParts(key, handle, []))).toBe('invalid')
        const parts = []
        for (const number of [2, 1])
          parts.unshift(await sendPart(store, key, handle, number, slice(number)))
        // the last part is longer at first, and may be sent again
        await sendPart(store, key, handle, 3, randomBytes(PART))
        parts.push(await sendPart(store, key, handle, 3, slice(3)))
        for (const size of [0, PART + 1])
          expect(
            await outcome(store.putPart(key, handle, 4, bodyOf(randomBytes(size)), size)),
          ).toBe('invalid')
        const info = await store.finishParts(key, handle, parts)
        expect(info.size).toBe(bytes.length)
        expect(await store.finishParts(key, handle, parts)).toEqual(info)
        expectBytes(await readBlob(store, key), bytes)
      })

      test('never finishes with a short part before the last one, without a size either', async ({
        store,
      }) => {
        const key = newKey()
        const handle = await store.startParts(key, null, PART)
        const parts = [
          await sendPart(store, key, handle, 1, randomBytes(PART - 1)),
          await sendPart(store, key, handle, 2, randomBytes(PART)),
        ]
        expect(await outcome(store.finishParts(key, handle, parts))).toBe('invalid')
        expect(await store.head(key)).toBe(null)
        await store.abortParts(key, handle)
      })

      test('replaces a part that is sent again, under another etag (R3)', async ({ store }) => {
        const { key, handle, parts, bytes, slice } = await sentUpload(store)
        const again = await sendPart(store, key, handle, 2, slice(2))
        const other = randomBytes(PART)
        const last = await sendPart(store, key, handle, 2, other)
        const etags = [parts[1]!.etag, again.etag, last.etag]
        expect(etags[2]).not.toBe(etags[0])
        expect(etags[2]).not.toBe(etags[1])
        for (const etag of etags) expect(etag).toMatch(/^"[^"]+"$/)
        expect(await outcome(store.finishParts(key, handle, parts))).toBe('invalid')
        await store.finishParts(key, handle, [parts[0]!, last, parts[2]!])
        expectBytes(
          await readBlob(store, key),
          Buffer.concat([slice(1), other, bytes.subarray(2 * PART)]),
        )
      })

      test('lets a newer writer of a part end a stalled one (R1)', async ({ store }) => {
        const { key, handle, parts, bytes, slice } = await sentUpload(store)
        const late = stallingBody(randomBytes(PART / 2), randomBytes(PART / 2))
        const older = outcome(store.putPart(key, handle, 2, late.body, PART))
        await late.stalled
        const newer = await sendPart(store, key, handle, 2, slice(2))
        expect(await older).toBe('conflict')
        await late.release()
        await store.finishParts(key, handle, [parts[0]!, newer, parts[2]!])
        expectBytes(await readBlob(store, key), bytes)
      })

      test('keeps the last of many writers of one part (R1)', async ({ store }) => {
        const { key, handle, parts, bytes, slice } = await sentUpload(store)
        const stalled = [1, 2, 3].map(() => stallingBody(randomBytes(PART / 4), randomBytes(1)))
        const older = stalled.map((late) => outcome(store.putPart(key, handle, 2, late.body, PART)))
        const newest = await sendPart(store, key, handle, 2, slice(2))
        expect(await Promise.all(older)).toEqual(['conflict', 'conflict', 'conflict'])
        await store.finishParts(key, handle, [parts[0]!, newest, parts[2]!])
        expectBytes(await readBlob(store, key), bytes)
      })

      test('keeps late bytes of a stalled writer out across finish (R1)', async ({ store }) => {
        const { key, handle, parts, bytes, slice } = await sentUpload(store)
        const late = stallingBody(randomBytes(PART / 2), randomBytes(PART / 2))
        const writer = outcome(store.putPart(key, handle, 2, late.body, PART))
        await late.stalled
        // A store may know the part as replaced by now, or finish with the part as it was.
        const first = await outcome(store.finishParts(key, handle, parts))
        expect(['ok', 'invalid']).toContain(first)
        await late.release()
        expect(['conflict', 'not_found']).toContain(await writer)
        if (first === 'invalid') {
          const again = await sendPart(store, key, handle, 2, slice(2))
          await store.finishParts(key, handle, [parts[0]!, again, parts[2]!])
        }
        expectBytes(await readBlob(store, key), bytes)
      })

      test('takes no part after finish and creates nothing (R1, R22)', async (made) => {
        const { store } = made
        const { key, handle, parts, bytes } = await sentUpload(store)
        await store.finishParts(key, handle, parts)
        const again = store.putPart(key, handle, 2, inPieces(randomBytes(PART)), PART)
        expect(await outcome(again)).toBe('not_found')
        expect(await made.leftovers()).toEqual([])
        expectBytes(await readBlob(store, key), bytes)
      })

      test('drops everything when aborted in the middle of a part (R22)', async (made) => {
        const { store } = made
        const { key, handle, parts } = await sentUpload(store)
        const late = stallingBody(randomBytes(PART / 2), randomBytes(PART / 2))
        const writer = outcome(store.putPart(key, handle, 2, late.body, PART))
        await late.stalled
        await store.abortParts(key, handle)
        expect(await writer).toBe('not_found')
        await late.release()
        expect(await made.leftovers()).toEqual([])
        const after = store.putPart(key, handle, 1, inPieces(randomBytes(PART)), PART)
        expect(await outcome(after)).toBe('not_found')
        expect(await outcome(store.finishParts(key, handle, parts))).toBe('not_found')
        expect(await store.head(key)).toBe(null)
      })

      test('aborts by key without a handle, again, and only that key', async ({ store }) => {
        const gone = await sentUpload(store)
        const second = await store.startParts(gone.key, PART, PART)
        const kept = await sentUpload(store)
        await store.abortParts(gone.key, null)
        await store.abortParts(gone.key, null)
        await store.abortParts(gone.key, gone.handle)
        for (const handle of [gone.handle, second]) {
          const body = inPieces(randomBytes(PART))
          expect(await outcome(store.putPart(gone.key, handle, 1, body, PART))).toBe('not_found')
        }
        await store.finishParts(kept.key, kept.handle, kept.parts)
        expectBytes(await readBlob(store, kept.key), kept.bytes)
      })

      test('finishes twice, one after the other and at once', async ({ store }) => {
        const { key, handle, parts, bytes } = await sentUpload(store)
        const [one, two] = await Promise.all([
          store.finishParts(key, handle, parts),
          store.finishParts(key, handle, parts),
        ])
        expect(two).toEqual(one)
        expect(await store.finishParts(key, handle, parts)).toEqual(one)
        expectBytes(await readBlob(store, key), bytes)
      })

      test('keeps the blob when it is aborted after finish', async ({ store }) => {
        const { key, handle, parts, bytes } = await sentUpload(store)
        await store.finishParts(key, handle, parts)
        await store.abortParts(key, handle)
        await store.abortParts(key, null)
        expectBytes(await readBlob(store, key), bytes)
        expect((await store.finishParts(key, handle, parts)).size).toBe(bytes.length)
      })

      test('ends finish against abort with all or nothing', async ({ store }) => {
        const { key, handle, parts, bytes } = await sentUpload(store)
        const [finish] = await Promise.all([
          outcome(store.finishParts(key, handle, parts)),
          store.abortParts(key, handle),
        ])
        expect(['ok', 'not_found']).toContain(finish)
        const stored = await readBlob(store, key)
        if (finish === 'ok') expectBytes(stored, bytes)
        else expect(stored).toBe(null)
      })

      test('refuses a list that is not exactly the parts, and stays usable', async ({ store }) => {
        const { key, handle, parts, bytes } = await sentUpload(store)
        const [one, two, three] = parts as [BlobPart, BlobPart, BlobPart]
        for (const wrong of [
          [],
          [one, three],
          [one, two],
          [two, three],
          [one, two, two],
          [one, one, two, three],
          [one, two, three, three],
          [one, two, three, { number: 4, etag: three.etag }],
          [{ number: 0, etag: one.etag }, one, two],
          [one, { number: 2, etag: three.etag }, three],
          [one, { number: 2, etag: '"0123456789abcdef01234567"' }, three],
          [one, { number: 2, etag: '' }, three],
        ]) {
          const finish = await outcome(store.finishParts(key, handle, wrong))
          expect({ wrong, finish }).toEqual({ wrong, finish: 'invalid' })
          expect(await store.head(key)).toBe(null)
        }
        await store.finishParts(key, handle, parts)
        expectBytes(await readBlob(store, key), bytes)
      })

      test('refuses to finish with a part that was never sent', async ({ store }) => {
        const { bytes, slice } = threeParts()
        const key = newKey()
        const handle = await store.startParts(key, bytes.length, PART)
        const one = await sendPart(store, key, handle, 1, slice(1))
        const three = await sendPart(store, key, handle, 3, slice(3))
        const gap = [one, { number: 2, etag: one.etag }, three]
        expect(await outcome(store.finishParts(key, handle, gap))).toBe('invalid')
        const two = await sendPart(store, key, handle, 2, slice(2))
        await store.finishParts(key, handle, [one, two, three])
        expectBytes(await readBlob(store, key), bytes)
      })

      test('refuses parts of another size or number than planned (R22)', async ({ store }) => {
        const { key, handle, parts, bytes, slice } = await sentUpload(store)
        for (const [number, size] of [
          [1, PART - 1],
          [1, PART + 1],
          [3, PART],
          [3, 999],
          [0, PART],
          [4, 1000],
          [1.5, PART],
        ] as const) {
          const changed = [...parts]
          // A store that learns sizes late may take the part, but then it must not finish.
          const result = await outcome(
            sendPart(store, key, handle, number, randomBytes(size)).then(async (part) => {
              changed[number - 1] = part
              await store.finishParts(key, handle, changed)
            }),
          )
          expect({ number, size, result }).toEqual({ number, size, result: 'invalid' })
        }
        for (const number of [1, 3]) {
          parts[number - 1] = await sendPart(store, key, handle, number, slice(number))
        }
        await store.finishParts(key, handle, parts)
        expectBytes(await readBlob(store, key), bytes)
      })

      test('does not record a part whose body is short, long, wrong or broken', async (made) => {
        const { store } = made
        const { key, handle, parts, bytes, slice } = await sentUpload(store)
        const put = (body: Bytes, options?: { sha256: string }) =>
          outcome(store.putPart(key, handle, 2, body, PART, options))
        async function* broken(): AsyncGenerator<Uint8Array> {
          yield randomBytes(2 * 1024 * 1024)
          throw new Error('the client went away')
        }
        const failures: [string, () => Promise<unknown>][] = [
          ['size_mismatch', () => put(inPieces(randomBytes(PART - 1)))],
          ['size_mismatch', () => put(inPieces(randomBytes(PART + 1)))],
          ['digest_mismatch', () => put(inPieces(randomBytes(PART)), { sha256: sha256(bytes) })],
          ['broken', () => put(broken()).catch(() => 'broken')],
        ]
        for (const [expected, fail] of failures) {
          expect(await fail()).toBe(expected)
          // Half overwritten bytes must never be finished under the etag of the former ones.
          const finish = await outcome(store.finishParts(key, handle, parts))
          expect(['ok', 'invalid']).toContain(finish)
          if (finish === 'ok') break
          const again = await sendPart(store, key, handle, 2, slice(2))
          parts[1] = again
        }
        await store.finishParts(key, handle, parts)
        expectBytes(await readBlob(store, key), bytes)
      })

      test('checks the SHA-256 of a part and shows each chunk as it passes', async ({ store }) => {
        const key = newKey()
        const bytes = randomBytes(200_000)
        const handle = await store.startParts(key, bytes.length, PART)
        const seen: Uint8Array[] = []
        const { etag } = await store.putPart(key, handle, 1, inPieces(bytes), bytes.length, {
          sha256: sha256(bytes),
          onChunk: (chunk) => seen.push(Buffer.from(chunk)),
        })
        expectBytes(Buffer.concat(seen), bytes)
        await store.finishParts(key, handle, [{ number: 1, etag }])
        expectBytes(await readBlob(store, key), bytes)
      })

      test('knows no upload by a foreign, made-up or malformed handle', async ({ store }) => {
        const { key, handle, parts, bytes } = await sentUpload(store)
        const other = newKey()
        for (const [name, wrong] of [
          [other, handle],
          [key, newKey()],
          [key, ''],
          [key, '../../x'],
          [key, `${handle}/../${handle}`],
        ] as const) {
          const body = inPieces(randomBytes(PART))
          expect(await outcome(store.putPart(name, wrong, 1, body, PART))).toBe('not_found')
          expect(await outcome(store.finishParts(name, wrong, parts))).toBe('not_found')
          await store.abortParts(name, wrong)
        }
        await store.finishParts(key, handle, parts)
        expectBytes(await readBlob(store, key), bytes)
      })

      test('never publishes over a key that got its bytes otherwise (R1)', async ({ store }) => {
        const { key, handle, parts } = await sentUpload(store)
        await store.put(key, bodyOf(Buffer.from('first')), 5)
        expect(await outcome(store.finishParts(key, handle, parts))).toBe('conflict')
        expectBytes(await readBlob(store, key), Buffer.from('first'))
        await store.abortParts(key, handle)
        expectBytes(await readBlob(store, key), Buffer.from('first'))
      })
    })

    describe('the store itself', () => {
      test('is bound to one registry id for ever (R10)', async ({ store }) => {
        expect(await store.readId()).toBe(null)
        await store.ping()
        await store.writeId('0123456789abcdef01234567')
        await store.writeId('0123456789abcdef01234567')
        expect(await outcome(store.writeId('another'))).toBe('conflict')
        expect(await store.readId()).toBe('0123456789abcdef01234567')
        expect((await store.list(null, 10)).blobs).toEqual([])
        await store.ping()
      })

      test('lets exactly one of many registries bind it (R10)', async ({ store }) => {
        const ids = ['one', 'two', 'three', 'four']
        const outcomes = await Promise.all(ids.map((id) => outcome(store.writeId(id))))
        expect(outcomes.toSorted()).toEqual(['conflict', 'conflict', 'conflict', 'ok'])
        expect(await store.readId()).toBe(ids[outcomes.indexOf('ok')])
      })

      test('tells its space, if it can', async ({ store }) => {
        const space = await store.space()
        if (space === null) return
        expect(space.total).toBeGreaterThan(0)
        expect(space.free).toBeGreaterThan(0)
        expect(space.free).toBeLessThanOrEqual(space.total)
      })
    })

    describe('its own', () => {
      backend.extra?.(test)
      it('skips only tests that exist', () => {
        expect([...skip.keys()]).toEqual([])
      })
    })
  })
}
