/** The S3 store against the contract on a real radosgw, and what only S3 can get wrong. */
import { randomBytes } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import {
  PutBucketLifecycleConfigurationCommand,
  PutBucketVersioningCommand,
} from '@aws-sdk/client-s3'
import { describe, expect, test } from 'vitest'
import { s3Blobs } from '../../adapters/blobs/s3.ts'
import { systemClock } from '../../adapters/system.ts'
import { Secret, type S3Config } from '../../src/config.ts'
import type { BlobStore, LogFields } from '../../src/ports.ts'
import {
  bodyOf,
  describeBlobStore,
  inPieces,
  newKey,
  outcome,
  PART,
  readBlob,
  sha256,
} from '../contract/blob-store.ts'
import { startStoreProxy, type Fault } from '../faults/s3-proxy.ts'
import { describeWithRadosgw, makeBucket, radosgw } from '../fixtures/radosgw.ts'

const IN_A_MINUTE = () => new Date(Date.now() + 60_000)

/** Opens a store; what it logs is kept. */
async function open(config: S3Config, options: { idleMs?: number } = {}) {
  const events: { level: string; name: string; fields?: LogFields | undefined }[] = []
  const log = {
    event: (level: string, name: string, fields?: LogFields) =>
      void events.push({ level, name, fields }),
  }
  const store = await s3Blobs(config, { clock: systemClock, log, ...options })
  return { store, names: () => events.map(({ name }) => name) }
}

async function make() {
  const bucket = await makeBucket({ prefix: 'sreg/', redirect: true })
  const { store } = await open(bucket.config)
  return { bucket, store, leftovers: bucket.leftovers, dispose: async () => {} }
}

/** A store behind a proxy whose next request of the kind meets a fault. */
async function behindProxy(options: { idleMs?: number } = {}) {
  let next: { matches: (method: string, path: string) => boolean; fault: Fault } | null = null
  const proxy = await startStoreProxy(await radosgw(), ({ method = '', url = '' }) => {
    if (next?.matches(method, url) !== true) return null
    const { fault } = next
    next = null
    return fault
  })
  const bucket = await makeBucket({ endpoint: proxy.url })
  const { store } = await open(bucket.config, options)
  return {
    ...bucket,
    store,
    stop: proxy.stop,
    /** Returns whether the fault has happened. */
    break: (fault: Fault, method: string, path = /blobs/) => {
      next = { fault, matches: (m, url) => m === method && path.test(url) }
      return () => next === null
    },
  }
}

describeWithRadosgw('BlobStore: s3', () => {
  describeBlobStore('s3', {
    make,
    extra(check) {
      check('signs parts that take their own bytes and nothing else (R2, R62)', async (made) => {
        const { store } = made
        const direct = directOf(store)
        const [key, bytes] = [newKey(), randomBytes(1000)]
        const part = { number: 1, size: bytes.length, sha256: sha256(bytes) }
        const handle = await store.startParts(key, bytes.length, bytes.length)
        const url = await direct.putPart(key, handle, part, IN_A_MINUTE())
        const put = async (at: string, body: Buffer, sum: string | null) => {
          const headers = sum === null ? undefined : { 'x-amz-content-sha256': sum }
          const answer = await fetch(at, { method: 'PUT', body: body as BodyInit, headers })
          await answer.text()
          return answer.status
        }
        const wrong = randomBytes(1000)
        expect(await put(url, wrong, sha256(bytes))).toBe(400)
        expect(await put(url, wrong, sha256(wrong))).toBe(403)
        expect(await put(url, bytes, null)).toBe(403)
        expect(await put(url, bytes.subarray(1), sha256(bytes.subarray(1)))).toBe(403)
        for (const altered of [
          url.replace(/(X-Amz-Signature=)./, '$1g'),
          url.replace('partNumber=1', 'partNumber=2'),
          url.replace(key, newKey()),
          url.replace('X-Amz-Expires=', 'X-Amz-Expires=1'),
        ])
          expect(await put(altered, bytes, sha256(bytes))).toBe(403)
        expect(await direct.parts(key, handle)).toEqual([])
        expect(await put(url, bytes, sha256(bytes))).toBe(200)
        const parts = await direct.parts(key, handle)
        expect(parts).toEqual([{ number: 1, etag: expect.stringMatching(/^"[^"]+"$/) }])
        await store.finishParts(key, handle, parts)
        expect(await direct.parts(key, handle)).toEqual([])
        expect(await put(url, bytes, sha256(bytes))).toBe(404)
        expect((await readBlob(store, key))?.equals(bytes)).toBe(true)
        expect(await made.leftovers()).toEqual([])
      })

      check('signs reading until the time that was said', async ({ store }) => {
        const [key, bytes] = [newKey(), randomBytes(100)]
        await store.put(key, bodyOf(bytes), 100)
        const sign = (ms: number) =>
          directOf(store).get(key, new Date(Date.now() + ms), 'x_latest.sif')
        const good = (await sign(60_000)) ?? ''
        expect(Buffer.from(await (await fetch(good)).arrayBuffer()).equals(bytes)).toBe(true)
        const short = (await sign(1000)) ?? ''
        await new Promise((resolve) => setTimeout(resolve, 2100))
        expect((await fetch(short)).status).toBe(403)
      })

      check('keeps to its prefix', async ({ store, bucket }) => {
        const second = await open({ ...bucket.config, prefix: 'sreg/other/' })
        const key = newKey()
        await second.store.put(key, bodyOf(Buffer.from('x')), 1)
        expect(await store.head(key)).toBe(null)
        expect((await store.list(null, 10)).blobs).toEqual([])
        await second.store.delete([key])
      })
    },
  })

  describe('S3 answers that are lost (R40)', () => {
    test('a whole blob, a complete and an abort are found done', async () => {
      const behind = await behindProxy()
      const { store } = behind
      const [key, bytes] = [newKey(), randomBytes(200_000)]
      let happened = behind.break('lost', 'PUT')
      await store.put(key, inPieces(bytes), bytes.length, sha256(bytes))
      expect(happened()).toBe(true)
      expect((await readBlob(store, key))?.equals(bytes)).toBe(true)

      const second = newKey()
      const handle = await store.startParts(second, bytes.length, PART)
      const { etag } = await store.putPart(second, handle, 1, inPieces(bytes), bytes.length)
      happened = behind.break('lost', 'POST', /uploadId=/)
      const info = await store.finishParts(second, handle, [{ number: 1, etag }])
      expect([happened(), info.size]).toEqual([true, bytes.length])

      const third = newKey()
      const dropped = await store.startParts(third, bytes.length, PART)
      happened = behind.break('lost', 'DELETE', /uploadId=/)
      await store.abortParts(third, dropped)
      expect(happened()).toBe(true)
      expect(await behind.leftovers()).toEqual([])
      await behind.stop()
    })

    test('an upload whose opening was lost is found by its key (R21)', async () => {
      const behind = await behindProxy()
      const key = newKey()
      const happened = behind.break('lost', 'POST', /uploads/)
      expect(await outcome(behind.store.startParts(key, 10, PART))).toBe('unavailable')
      expect(happened()).toBe(true)
      expect(await behind.leftovers()).toHaveLength(1)
      await behind.store.abortParts(key, null)
      expect(await behind.leftovers()).toEqual([])
      await behind.stop()
    })

    test('a store that stalls is given up with a sentence', async () => {
      const behind = await behindProxy({ idleMs: 300 })
      const bytes = randomBytes(4 * 1024 * 1024)
      behind.break('stall', 'PUT')
      const put = behind.store.put(newKey(), inPieces(bytes), bytes.length)
      await expect(put).rejects.toThrow('The storage of this registry does not answer')
      await behind.stop()
    })

    test('an answer in half breaks the reading instead of ending it (R5)', async () => {
      const behind = await behindProxy()
      const [key, bytes] = [newKey(), randomBytes(3 * 1024 * 1024)]
      await behind.store.put(key, inPieces(bytes), bytes.length)
      behind.break('half', 'GET')
      expect(await outcome(readBlob(behind.store, key))).toBe('unavailable')
      expect((await readBlob(behind.store, key))?.equals(bytes)).toBe(true)
      await behind.stop()
    })
  })

  describe('a bucket at start (R62)', () => {
    test('one sentence for each reason why it cannot be used, without secrets', async () => {
      const { config } = await makeBucket()
      const as = (accessKey: string, secret: string) => ({
        credentials: { accessKey, secretKey: new Secret(secret) },
      })
      for (const [change, sentence] of [
        [
          { bucket: 'none-of-that-name' },
          /bucket none-of-that-name at .*: there is no such bucket/,
        ],
        [as('test', 'hunter2hunter2'), /the secret key is wrong/],
        [as('nobody', 'hunter2hunter2'), /the access key is not known/],
        [{ endpoint: 'http://127.0.0.1:1' }, /cannot be reached/],
      ] as const) {
        const failed = await open({ ...config, ...change }).then(
          () => new Error('it opened'),
          (error: unknown) => error as Error,
        )
        expect(failed.message).toMatch(sentence)
        expect(failed.message).not.toContain('hunter2')
        expect(failed.message.split('\n')).toHaveLength(1)
      }
    })

    test('a store that takes wrong bodies runs with redirect off, and says so', async () => {
      const proxy = await startStoreProxy(await radosgw(), ({ method, url = '' }) =>
        method === 'PUT' && url.includes('X-Amz-Signature') ? 'accept' : null,
      )
      const bucket = await makeBucket({ redirect: true, endpoint: proxy.url })
      const { store, names } = await open(bucket.config)
      expect(store.direct).toBeUndefined()
      expect(names()).toContain('s3.redirect-off')
      expect(await bucket.leftovers()).toEqual([])
      await proxy.stop()
    })

    test('a store that takes altered addresses runs with redirect off', async () => {
      // Signs for whoever asks, as a lax store would answer.
      const proxy = await startStoreProxy(await radosgw(), ({ method, url = '' }) =>
        method === 'GET' && url.includes('X-Amz-Expires=9') ? 'accept' : null,
      )
      const bucket = await makeBucket({ redirect: true, endpoint: proxy.url })
      const { store, names } = await open(bucket.config)
      expect(store.direct).toBeUndefined()
      expect(names()).toContain('s3.redirect-off')
      await proxy.stop()
    })

    test('a public endpoint that cannot be reached from here is signed for all the same', async () => {
      const bucket = await makeBucket({ redirect: true })
      const config = { ...bucket.config, publicEndpoint: 'http://127.0.0.1:1' }
      const { store, names } = await open(config)
      expect(names()).toContain('s3.public-endpoint')
      const url = await directOf(store).get(newKey(), IN_A_MINUTE(), 'x')
      expect(new URL(url ?? '').host).toBe('127.0.0.1:1')
      expect((await open(bucket.config)).names()).toEqual([])
    })

    test('versioning and lifecycle rules are warned of', async () => {
      const bucket = await makeBucket({ prefix: 'sreg/' })
      const Bucket = bucket.config.bucket
      const rule = (Prefix: string) =>
        bucket.client.send(
          new PutBucketLifecycleConfigurationCommand({
            Bucket,
            LifecycleConfiguration: {
              Rules: [{ ID: 'a', Status: 'Enabled', Filter: { Prefix }, Expiration: { Days: 30 } }],
            },
          }),
        )
      await rule('elsewhere/')
      expect((await open(bucket.config)).names()).toEqual([])
      await rule('sreg/')
      expect((await open(bucket.config)).names()).toEqual(['s3.lifecycle'])
      await bucket.client.send(
        new PutBucketVersioningCommand({ Bucket, VersioningConfiguration: { Status: 'Enabled' } }),
      )
      // Ceph's own: in such a bucket it also forgets If-None-Match.
      expect((await open(bucket.config)).names().slice(-2)).toEqual([
        's3.versioning',
        's3.lifecycle',
      ])
    })

    test('a clock that is two minutes off fails the proof of life (R40)', async () => {
      const { config } = await makeBucket()
      const log = { event: () => {} }
      for (const [ms, sentence] of [
        [120_000, /-1\d\d seconds off/],
        [-120_000, /clock of the storage is 1\d\d seconds off/],
      ] as const) {
        const clock = { now: () => new Date(Date.now() + ms) }
        const store = await s3Blobs(config, { clock, log })
        await expect(store.ping()).rejects.toThrow(sentence)
      }
    })
  })

  test('a store that is gone fails the proof of life soon', async () => {
    const server = createServer((_, answer) => answer.destroy())
    await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
    const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const config = { ...(await makeBucket()).config, endpoint }
    const log = { event: () => {} }
    const store = await s3Blobs(config, { clock: systemClock, log, proven: false })
    expect(await outcome(store.ping())).toBe('unavailable')
    expect(await outcome(store.head(newKey()))).toBe('unavailable')
    await new Promise((resolve) => server.close(resolve))
  })
})

function directOf(store: BlobStore) {
  if (store.direct === undefined) throw new Error('the store offers no direct transfers')
  return store.direct
}
