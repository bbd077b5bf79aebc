/** The memory store against the contract, and what only it promises. */
import { expect } from 'vitest'
import { memoryBlobs } from '../../adapters/blobs/memory.ts'
import {
  bodyOf,
  describeBlobStore,
  inPieces,
  newKey,
  outcome,
  PART,
  readBlob,
} from '../contract/blob-store.ts'

const LIMIT = 64 * 1024 * 1024
const NOW = new Date('2026-01-02T03:04:05Z')

describeBlobStore('memory', {
  async make() {
    const store = memoryBlobs({ limit: LIMIT, clock: { now: () => NOW } })
    return {
      store,
      // What is used beyond the published blobs was left by something else.
      async leftovers() {
        let published = 0
        for (const { key } of (await store.list(null, 1000)).blobs) {
          published += (await store.head(key))!.size
        }
        const surplus = LIMIT - (await store.space())!.free - published
        return surplus === 0 ? [] : [`${surplus} bytes`]
      },
      async dispose() {},
    }
  },

  extra(test) {
    test('dates blobs by its clock', async ({ store }) => {
      await store.put(newKey(), bodyOf(Buffer.from('x')), 1)
      expect((await store.list(null, 1)).blobs[0]?.modifiedAt).toEqual(NOW)
    })

    test('is full at its limit, leaves nothing, and works again', async ({ store }) => {
      const [large, key] = [newKey(), newKey()]
      await store.put(large, inPieces(Buffer.alloc(LIMIT - PART)), LIMIT - PART)
      expect(await outcome(store.put(key, inPieces(Buffer.alloc(PART + 1)), PART + 1))).toBe(
        'insufficient_storage',
      )
      const handle = await store.startParts(key, 2 * PART, PART)
      await store.putPart(key, handle, 1, inPieces(Buffer.alloc(PART)), PART)
      const second = () => store.putPart(key, handle, 2, inPieces(Buffer.alloc(PART, 2)), PART)
      expect(await outcome(second())).toBe('insufficient_storage')
      await store.abortParts(key, handle)
      await store.delete([large])
      await store.put(key, bodyOf(Buffer.from('again')), 5)
      expect(await readBlob(store, key)).toEqual(Buffer.from('again'))
    })
  },
})
