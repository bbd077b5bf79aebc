/** The protocol suites in workerd with the blobs in a bucket, their bytes passing through us and past us. */
import { describeWithRadosgw, makeBucket, type TestBucket } from '../fixtures/radosgw.ts'
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
  const through = s3Target({ redirect: false })
  describeUploads('Workers and S3', through)
  describeDownloads('Workers and S3', through)
  describeUploads('Workers and S3, redirect on', s3Target({ redirect: true }), { direct: true })
})
