/** The protocol suites in workerd with the blobs in a bucket, their bytes passing through us and past us. */
import { beforeEach, describe, expect, test } from 'vitest'
import { startStoreProxy, type StoreProxy } from '../faults/s3-proxy.ts'
import { describeWithRadosgw, makeBucket, radosgw, type TestBucket } from '../fixtures/radosgw.ts'
import { sampleSif } from '../fixtures/sif.ts'
import { libraryClient } from '../protocol/client.ts'
import { describeDownloads } from '../protocol/library-downloads.ts'
import { describeUploads } from '../protocol/library-uploads.ts'
import type { TargetOptions } from './target.ts'
import { workersTarget, type WorkersTarget } from './workers-target.ts'

/** Makes targets with a bucket each; one that opens a data folder again gets that folder's bucket. */
function s3Target({ redirect }: { redirect: boolean }) {
  const buckets = new Map<string, TestBucket>()
  return async (options: TargetOptions = {}) => {
    const bucket = buckets.get(options.data ?? '') ?? (await makeBucket({ redirect }))
    const env = { ...bucket.env, ...options.env }
    const target = await workersTarget({ ...options, env, store: bucket })
    buckets.set(target.data, bucket)
    return target
  }
}

describeWithRadosgw('Workers and S3', () => {
  beforeEach(({ skip, task }) => {
    if (task.name === 'the address follows X-Forwarded-* of a trusted peer (R33)')
      skip('Workers have no peer that forwards')
  })
  const through = s3Target({ redirect: false })
  describeUploads('Workers and S3', through)
  describeDownloads('Workers and S3', through)
  describeUploads('Workers and S3, redirect on', s3Target({ redirect: true }), { direct: true })

  describe('a bucket is tried out, and what came of it is remembered (R62)', () => {
    /** Whether the store takes every body that is sent to a signed address, whatever was signed. */
    let lax: boolean
    let proxy: StoreProxy
    let bucket: TestBucket
    beforeEach(async () => {
      lax = false
      proxy = await startStoreProxy(await radosgw(), ({ method, url = '' }) =>
        lax && method === 'PUT' && url.includes('X-Amz-Signature') ? 'accept' : null,
      )
      bucket = await makeBucket({ redirect: true, endpoint: proxy.url })
      return () => proxy.stop()
    })
    const start = (data?: string, more: Record<string, string> = {}) =>
      workersTarget({ ...(data && { data }), env: { ...bucket.env, SREG_LOG: 'json', ...more } })
    /** Requests of trying out since the last call. */
    const tried = () => proxy.requests().filter(({ path }) => path.includes('/check-')).length
    /** Token of somebody who has pushed `alice/c/n`. */
    const pusher = async (target: WorkersTarget) => {
      const { jwt } = await target.mint('alice')
      await libraryClient(target.url, jwt).push('alice/c/n', sampleSif())
      return jwt
    }
    /** Where a download of it is sent; null where its bytes come from us. */
    const locate = async (target: WorkersTarget, jwt: string) => {
      const path = '/v1/imagefile/alice/c/n:latest?arch=amd64'
      const { headers } = await libraryClient(target.url, jwt).call('GET', path)
      const location = headers.get('location')
      return location && new URL(location).origin
    }

    test('one that is strict, once', async () => {
      const first = await start()
      expect(tried()).toBeGreaterThan(5)
      const jwt = await pusher(first)
      await first.end('SIGTERM')

      const second = await start(first.data)
      expect(tried()).toBe(0)
      expect(await locate(second, jwt)).toBe(proxy.url)
      await second.stop()
    }, 60_000)

    test('one that is lax, once for each configuration', async () => {
      lax = true
      const first = await start()
      expect(tried()).toBeGreaterThan(5)
      expect(first.words()).toMatch(/s3\.redirect-off.*not refused/)
      const jwt = await pusher(first)
      expect(await locate(first, jwt)).toBe(null)
      await first.end('SIGTERM')

      lax = false
      const second = await start(first.data)
      expect(tried()).toBe(0)
      expect(second.words()).toMatch(/s3\.redirect-off.*until it is tested again/)
      expect(await locate(second, jwt)).toBe(null)
      await second.end('SIGTERM')

      // another configuration, of the same bucket
      const third = await start(first.data, { SREG_S3_PUBLIC_ENDPOINT: proxy.url })
      expect(tried()).toBeGreaterThan(5)
      expect(await locate(third, jwt)).toBe(proxy.url)
      await third.stop()
    }, 60_000)
  })
})
