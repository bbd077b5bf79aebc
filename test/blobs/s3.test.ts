/** The S3 store against the contract on a real radosgw, and what only S3 can get wrong. */
import { afterAll } from 'vitest'
import { s3Blobs } from '../../adapters/blobs/s3.ts'
import { systemClock } from '../../adapters/system.ts'
import { describeBlobStore } from '../contract/blob-store.ts'
import { describeWithRadosgw, makeBucket } from '../fixtures/radosgw.ts'

const log = { event: () => {} }

async function make() {
  const bucket = await makeBucket({ prefix: 'sreg/' })
  const store = await s3Blobs(bucket.config, { clock: systemClock, log })
  return { bucket, store, leftovers: bucket.leftovers, dispose: async () => {} }
}

describeWithRadosgw('BlobStore: s3', () => {
  describeBlobStore('s3', { make })
})
