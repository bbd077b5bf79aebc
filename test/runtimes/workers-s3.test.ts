/** The protocol suites in workerd with the blobs in a bucket, their bytes passing through us and past us. */
import { beforeEach, expect, test } from 'vitest'
import { startStoreProxy } from '../faults/s3-proxy.ts'
import { describeWithRadosgw, makeBucket, radosgw, type TestBucket } from '../fixtures/radosgw.ts'
import { sampleSif } from '../fixtures/sif.ts'
import { libraryClient } from '../protocol/client.ts'
import { describeDownloads } from '../protocol/library-downloads.ts'
import { describeUploads } from '../protocol/library-uploads.ts'
import type { TargetOptions } from './target.ts'
import { workersTarget } from './workers-target.ts'

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

  test('a bucket is tried out once for each configuration, and remembered (R62)', async () => {
    let lax = false
    // takes every body that is sent to a signed address, whatever was signed
    const proxy = await startStoreProxy(await radosgw(), ({ method, url = '' }) =>
      lax && method === 'PUT' && url.includes('X-Amz-Signature') ? 'accept' : null,
    )
    try {
      const bucket = await makeBucket({ redirect: true, endpoint: proxy.url })
      const tried = () => proxy.requests().filter(({ path }) => path.includes('/check-')).length
      const start = (data?: string, more: Record<string, string> = {}) =>
        workersTarget({ ...(data && { data }), env: { ...bucket.env, SREG_LOG: 'json', ...more } })
      const first = await start()
      expect(tried()).toBeGreaterThan(5)
      const { jwt } = await first.mint('alice')
      await libraryClient(first.url, jwt).push('alice/c/n', sampleSif())
      await first.end('SIGTERM')
      const locate = async (url: string) => {
        const path = '/v1/imagefile/alice/c/n:latest?arch=amd64'
        const { headers } = await libraryClient(url, jwt).call('GET', path)
        const location = headers.get('location')
        return location && new URL(location).origin
      }

      const second = await start(first.data)
      expect(tried()).toBe(0)
      expect(await locate(second.url)).toBe(proxy.url)
      await second.end('SIGTERM')

      lax = true
      // another configuration, of the same bucket
      const other = { SREG_S3_PUBLIC_ENDPOINT: proxy.url }
      const third = await start(first.data, other)
      expect(tried()).toBeGreaterThan(5)
      expect(third.words()).toMatch(/s3\.redirect-off.*not refused/)
      expect(await locate(third.url)).toBe(null)
      await third.end('SIGTERM')
      const fourth = await start(first.data, other)
      expect(tried()).toBe(0)
      expect(fourth.words()).toMatch(/s3\.redirect-off.*until it is tested again/)
      expect(await locate(fourth.url)).toBe(null)
      await fourth.stop()
    } finally {
      await proxy.stop()
    }
  }, 60_000)
})
