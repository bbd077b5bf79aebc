/** The protocol suites on Node with the blobs in a bucket, their bytes passing through us and past us. */
import { describeBadInput } from '../protocol/bad-input.ts'
import { describeLibrary } from '../protocol/library.ts'
import { describeDownloads } from '../protocol/library-downloads.ts'
import { describeUploads } from '../protocol/library-uploads.ts'
import { describeWithRadosgw } from '../fixtures/radosgw.ts'
import { s3Target } from './s3.ts'

describeWithRadosgw('Node and S3', () => {
  describeLibrary('Node and S3', s3Target({ redirect: false }))
  describeBadInput('Node and S3', s3Target({ redirect: false }), () => process.memoryUsage().rss)
  describeUploads('Node and S3, redirect on', s3Target({ redirect: true }))
  describeDownloads('Node and S3, redirect on', s3Target({ redirect: true }))
})
