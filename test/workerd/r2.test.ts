/** The R2 store against the contract, inside workerd, and what only it promises. */
import { env } from 'cloudflare:workers'
import { expect } from 'vitest'
import { r2Blobs } from '../../adapters/blobs/r2.ts'
import type { Bytes } from '../../src/ports.ts'
import {
  describeBlobStore,
  inPieces,
  newKey,
  outcome,
  PART,
  randomBytes,
  readBlob,
  sha256,
} from '../contract/blob-store.ts'

async function names(): Promise<string[]> {
  const all: string[] = []
  for (let cursor: string | undefined; ;) {
    const page = await env.BLOBS.list(cursor === undefined ? {} : { cursor })
    all.push(...page.objects.map(({ key }) => key))
    if (!page.truncated) return all
    cursor = page.cursor
  }
}

/** A body that only the runtime looks at: iterating it is a fault. */
function nativeBody(bytes: Uint8Array, length = bytes.length): Bytes {
  const fixed = new FixedLengthStream(length)
  const writer = fixed.writable.getWriter()
  void writer
    .write(bytes)
    .then(() => writer.close())
    .catch(() => undefined)
  return {
    native: fixed.readable,
    [Symbol.asyncIterator]: () => {
      throw new Error('this body was not to be looked at')
    },
  }
}

describeBlobStore('R2', {
  async make() {
    return {
      store: r2Blobs(env.BLOBS),
      leftovers: async () =>
        (await names()).filter(
          (name) => !/^blobs\/[0-9a-f]{24}$/.test(name) && name !== 'registry-id',
        ),
      dispose: async () => {
        const all = await names()
        if (all.length > 0) await env.BLOBS.delete(all)
      },
    }
  },

  skip: [
    {
      test: 'aborts by key without a handle, again, and only that key',
      reason: 'the binding of R2 lists no uploads in parts; R2 drops them after seven days',
    },
  ],

  extra(test) {
    test('hands a native body to R2 unseen, and R2 checks its SHA-256', async ({ store }) => {
      const key = newKey()
      const bytes = randomBytes(60_000)
      const wrong = sha256(Buffer.from('something else'))
      expect(await outcome(store.put(key, nativeBody(bytes), bytes.length, wrong))).toBe(
        'digest_mismatch',
      )
      expect(await store.head(key)).toBe(null)
      await store.put(key, nativeBody(bytes), bytes.length, sha256(bytes))
      expect(sha256((await readBlob(store, key))!)).toBe(sha256(bytes))
    })

    test('says which SHA-256 R2 has checked (R4)', async ({ store }) => {
      const [checked, unchecked, parted] = [newKey(), newKey(), newKey()]
      const bytes = Buffer.from('bytes')
      await store.put(checked, inPieces(bytes), bytes.length, sha256(bytes))
      await store.put(unchecked, inPieces(bytes), bytes.length)
      const handle = await store.startParts(parted, bytes.length, PART)
      const { etag } = await store.putPart(parted, handle, 1, inPieces(bytes), bytes.length, {
        sha256: sha256(bytes),
      })
      await store.finishParts(parted, handle, [{ number: 1, etag }])
      expect((await store.head(checked))?.sha256).toBe(sha256(bytes))
      expect((await store.head(unchecked))?.sha256).toBe(undefined)
      expect((await store.head(parted))?.sha256).toBe(undefined)
    })

    test('refuses a native body that ends early or has another size', async ({ store }) => {
      const key = newKey()
      const bytes = new Uint8Array(1000)
      expect(await outcome(store.put(key, nativeBody(bytes, 2000), 2000))).toBe('invalid')
      expect(await outcome(store.put(key, nativeBody(bytes), 2000))).toBe('size_mismatch')
      expect(await store.head(key)).toBe(null)
    })

    test('takes a part natively when nobody looks at it', async ({ store }) => {
      const key = newKey()
      const bytes = randomBytes(60_000)
      const handle = await store.startParts(key, bytes.length, PART)
      const { etag } = await store.putPart(key, handle, 1, nativeBody(bytes), bytes.length)
      await store.finishParts(key, handle, [{ number: 1, etag }])
      expect(sha256((await readBlob(store, key))!)).toBe(sha256(bytes))
    })

    test('gives the stream of R2 itself for the runtime to send', async ({ store }) => {
      const key = newKey()
      const bytes = randomBytes(100_000)
      await store.put(key, inPieces(bytes), bytes.length)
      const read = await store.get(key, { start: 10, end: 99 })
      const sent = await new Response(read!.native!() as BodyInit).arrayBuffer()
      expect(sha256(new Uint8Array(sent))).toBe(sha256(bytes.subarray(10, 100)))
      await read!.close()
    })
  },
})
