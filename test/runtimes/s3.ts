/** Registries with the blobs in a bucket of the run's radosgw. */
import { startStoreProxy } from '../faults/s3-proxy.ts'
import { makeBucket, radosgw, type TestBucket } from '../fixtures/radosgw.ts'
import type { DirectTarget } from '../protocol/library-direct.ts'
import { hostTarget } from './host-target.ts'
import type { Runtime } from './runtime.ts'
import { nodeTarget, type Target, type TargetOptions } from './target.ts'

/** Makes targets with a bucket each; one that opens a data folder again gets that folder's bucket. */
export function s3Target({ redirect, runtime = 'node' }: { redirect: boolean; runtime?: Runtime }) {
  const buckets = new Map<string, TestBucket>()
  return async (options: TargetOptions = {}): Promise<Target & { bucket: TestBucket }> => {
    const bucket = buckets.get(options.data ?? '') ?? (await makeBucket({ redirect }))
    const env = { ...bucket.env, ...options.env }
    const how = { ...options, env, store: bucket }
    const target = await (runtime === 'node' ? nodeTarget(how) : hostTarget(runtime, how))
    buckets.set(target.data, bucket)
    return { ...target, bucket }
  }
}

/**
 * With redirect on, and a proxy of ours between the registry and the store, while clients are sent
 * to the store's public endpoint: what the registry itself reads can be counted.
 */
export async function directTarget(options: TargetOptions = {}): Promise<DirectTarget> {
  const store = await radosgw()
  const proxy = await startStoreProxy(store)
  const bucket = await makeBucket({ redirect: true, endpoint: proxy.url, prefix: 'some/where/' })
  const env = { ...bucket.env, SREG_S3_PUBLIC_ENDPOINT: store, ...options.env }
  const target = await nodeTarget({ ...options, env, store: bucket })
  return {
    ...target,
    readBacks: () =>
      proxy
        .requests()
        .filter(
          ({ method, path, ranged }) =>
            method === 'GET' && /\/blobs\/\w+/.test(path) && !ranged && !path.includes('uploadId='),
        )
        .map(({ path }) => path),
    async stop(how) {
      await target.stop(how)
      await proxy.stop()
    },
  }
}
