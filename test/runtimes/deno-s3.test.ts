/** Uploads and downloads on Deno with the blobs in a bucket, their bytes passing through us and past us. */
import { describeWithRadosgw } from '../fixtures/radosgw.ts'
import { describeDownloads } from '../protocol/library-downloads.ts'
import { describeUploads } from '../protocol/library-uploads.ts'
import { s3Target } from './s3.ts'

describeWithRadosgw('Deno and S3', () => {
  const through = s3Target({ runtime: 'deno', redirect: false })
  describeUploads('Deno and S3', through)
  describeDownloads('Deno and S3', through)
  const past = s3Target({ runtime: 'deno', redirect: true })
  describeUploads('Deno and S3, redirect on', past, { direct: true })
})
