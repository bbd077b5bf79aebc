/** Registries on Node with the blobs in a bucket of the run's radosgw. */
import { makeBucket, type TestBucket } from '../fixtures/radosgw.ts'
import { nodeTarget, type Target, type TargetOptions } from './target.ts'

/** Makes targets with a bucket each; one that opens a data folder again gets that folder's bucket. */
export function s3Target({ redirect }: { redirect: boolean }) {
  const buckets = new Map<string, TestBucket>()
  return async (options: TargetOptions = {}): Promise<Target & { bucket: TestBucket }> => {
    const bucket = buckets.get(options.data ?? '') ?? (await makeBucket({ redirect }))
    const env = { ...bucket.env, ...options.env }
    const target = await nodeTarget({ ...options, env, store: bucket })
    buckets.set(target.data, bucket)
    return { ...target, bucket }
  }
}
