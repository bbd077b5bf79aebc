/** The protocol suites on Node with the blobs in a bucket, their bytes passing through us and past us. */
import { describeWithRadosgw } from '../fixtures/radosgw.ts'
import { describeBadInput } from '../protocol/bad-input.ts'
import { describeLibrary } from '../protocol/library.ts'
import { describeDirect } from '../protocol/library-direct.ts'
import { describeUploads } from '../protocol/library-uploads.ts'
import { directTarget, s3Target } from './s3.ts'

describeWithRadosgw('Node and S3', () => {
  const through = s3Target({ redirect: false })
  describeLibrary('Node and S3', through)
  describeBadInput('Node and S3', through, () => process.memoryUsage().rss)
  describeUploads('Node and S3, redirect on', s3Target({ redirect: true }), { direct: true })
  describeDirect('Node and S3, redirect on', directTarget)
})
