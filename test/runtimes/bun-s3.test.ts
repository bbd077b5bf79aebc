/** Uploads and downloads on Bun with the blobs in a bucket, their bytes passing through us and past us. */
import { describeWithRadosgw } from '../fixtures/radosgw.ts'
import { describeDownloads } from '../protocol/library-downloads.ts'
import { describeUploads } from '../protocol/library-uploads.ts'
import { s3Target } from './s3.ts'

describeWithRadosgw('Bun and S3', () => {
  const through = s3Target({ runtime: 'bun', redirect: false })
  describeUploads('Bun and S3', through)
  describeDownloads('Bun and S3', through)
  const past = s3Target({ runtime: 'bun', redirect: true })
  describeUploads('Bun and S3, redirect on', past, { direct: true })
})
