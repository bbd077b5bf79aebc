/** The protocol suites on Node with the blobs in a bucket, their bytes passing through us and past us. */
import { expect, test } from 'vitest'
import { describeWithRadosgw } from '../fixtures/radosgw.ts'
import { sampleSif } from '../fixtures/sif.ts'
import { describeBadInput } from '../protocol/bad-input.ts'
import { libraryClient } from '../protocol/client.ts'
import { describeKeystore } from '../protocol/hkp.ts'
import { describeLibrary } from '../protocol/library.ts'
import { describeDirect } from '../protocol/library-direct.ts'
import { describeOci } from '../protocol/oci.ts'
import { describeOciDirect } from '../protocol/oci-direct.ts'
import { describeUploads } from '../protocol/library-uploads.ts'
import { describePolicy } from '../protocol/policy.ts'
import { describeQuotas } from '../protocol/quotas.ts'
import { directTarget, s3Target } from './s3.ts'
import { nodeTarget } from './target.ts'

describeWithRadosgw('Node and S3', () => {
  const through = s3Target({ redirect: false })
  describeLibrary('Node and S3', through)
  describeKeystore('Node and S3', through)
  describePolicy('Node and S3', through)
  describePolicy('Node and S3, redirect on', s3Target({ redirect: true }))
  describeQuotas('Node and S3, redirect on', s3Target({ redirect: true }))
  describeBadInput('Node and S3', through, () => process.memoryUsage().rss)
  describeUploads('Node and S3, redirect on', s3Target({ redirect: true }), { direct: true })
  describeDirect('Node and S3, redirect on', directTarget)
  describeOci('Node and S3', through)
  describeOciDirect('Node and S3, redirect on', directTarget)

  test('a second server on the bucket does not start (R10)', async () => {
    const first = await through()
    const alice = libraryClient(first.url, (await first.mint('alice')).jwt)
    await alice.push('alice/c/n', sampleSif())
    const again = nodeTarget({ env: first.bucket.env }).then(({ stop }) => stop())
    await expect(again).rejects.toThrow(/belongs to another registry.*SREG_S3_PREFIX/)
    await first.stop({ keep: true })
    const same = await through({ data: first.data })
    expect((await libraryClient(same.url).call('GET', '/readyz')).status).toBe(200)
    await same.stop()
  })
})
