/** Tries a bucket out at start: what does not work is said then, and not at the first push (R62). */
import {
  AbortMultipartUploadCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  GetBucketLifecycleConfigurationCommand,
  GetBucketVersioningCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
} from '@aws-sdk/client-s3'
import type { LifecycleRule } from '@aws-sdk/client-s3'
import type { S3Config } from '../../src/config.ts'
import { isRegistryError, RegistryError } from '../../src/errors.ts'
import type { Clock, Log } from '../../src/ports.ts'
import { randomName } from './rules.ts'
import type { Bucket } from './s3.ts'
import type { Signed, Signer } from './s3-direct.ts'
import { nameOf, statusOf } from './s3-requests.ts'

const ANSWER_MS = 10_000
const URL_MS = 60_000
const WEEK_DAYS = 7

/**
 * Writes, lists and deletes in the bucket; throws one `invalid` sentence when that fails. Resolves
 * with whether the store may be trusted with signed URLs, tried only where redirect is on.
 */
export async function checkBucket(
  bucket: Bucket,
  signed: Signed,
  config: S3Config,
  { clock, log }: { clock: Clock; log: Log },
): Promise<boolean> {
  const { client, ask } = bucket
  const where = `bucket ${config.bucket} at ${config.endpoint ?? `Amazon S3 ${config.region}`}`
  const object = { Bucket: bucket.name, Key: `${bucket.prefix}check-${randomName()}` }
  const content = new TextEncoder().encode(`sreg-lite was here: ${randomName()}`)
  try {
    await ask(({ signal }) =>
      client.send(
        new ListObjectsV2Command({ Bucket: bucket.name, Prefix: bucket.prefix, MaxKeys: 1 }),
        { abortSignal: signal },
      ),
    )
    await ask(({ signal }) =>
      client.send(new ListMultipartUploadsCommand({ Bucket: bucket.name, MaxUploads: 1 }), {
        abortSignal: signal,
      }),
    )
    await ask(({ signal }) =>
      client.send(new PutObjectCommand({ ...object, Body: content }), { abortSignal: signal }),
    )
    await checkWrittenOnce(bucket, object, content, log)
    const trusted =
      config.redirect && (await mayRedirect(bucket, signed, object, content, { clock, log }))
    await warnOfRules(bucket, log)
    return trusted
  } catch (error) {
    if (isRegistryError(error, 'invalid')) throw error
    throw new RegistryError('invalid', `The ${where} cannot be used: ${reasonOf(error)}.`, {
      cause: error,
    })
  } finally {
    await ask(
      ({ signal }) => client.send(new DeleteObjectCommand(object), { abortSignal: signal }),
      1,
    ).catch(() => {})
  }
}

/** Why a bucket cannot be used, for the administrator. */
function reasonOf(error: unknown): string {
  const name = nameOf(error)
  switch (name) {
    case 'NoSuchBucket':
      return 'there is no such bucket; make it first'
    case 'InvalidAccessKeyId':
      return 'the access key is not known there (SREG_S3_ACCESS_KEY)'
    case 'SignatureDoesNotMatch':
      return 'the secret key is wrong (SREG_S3_SECRET_KEY)'
    case 'CredentialsProviderError':
      return 'no credentials were found (SREG_S3_ACCESS_KEY and SREG_S3_SECRET_KEY, or AWS_*)'
    case 'RequestTimeTooSkewed':
      return 'its clock and ours differ too much'
    case 'PermanentRedirect':
    case 'AuthorizationHeaderMalformed':
      return 'it is in another region (SREG_S3_REGION)'
    default:
  }
  const status = statusOf(error)
  if (status === 403)
    return 'access is denied; the key needs to list, read, write and delete objects and to list uploads in parts'
  if (status !== null) return `it answered ${status} ${name}`
  return isRegistryError(error)
    ? 'it does not answer'
    : 'it cannot be reached; is SREG_S3_ENDPOINT right?'
}

/** R1: a name that holds bytes is refused. */
async function checkWrittenOnce(
  { client, ask }: Bucket,
  object: { Bucket: string; Key: string },
  content: Uint8Array,
  log: Log,
): Promise<void> {
  const refused = await ask(({ signal }) =>
    client
      .send(new PutObjectCommand({ ...object, Body: content, IfNoneMatch: '*' }), {
        abortSignal: signal,
      })
      .then(
        () => false,
        (error: unknown) => {
          if (statusOf(error) === 412 || statusOf(error) === 409) return true
          if (statusOf(error) !== 501) throw error
          throw new RegistryError(
            'invalid',
            'This S3 server does not know If-None-Match on PUT, which this registry needs.',
          )
        },
      ),
  )
  if (!refused)
    log.event('warn', 's3.overwrites', {
      note: 'this S3 server overwrites in spite of If-None-Match; never let two registries share a bucket and prefix',
    })
}

/** True when the store reads by signed URL, and refuses altered URLs and bodies of another hash. */
async function mayRedirect(
  bucket: Bucket,
  signed: Signed,
  object: { Bucket: string; Key: string },
  content: Uint8Array,
  { clock, log }: { clock: Clock; log: Log },
): Promise<boolean> {
  const off = (note: string) => {
    log.event('warn', 's3.redirect-off', { note: `${note}; image bytes go through this server` })
    return false
  }
  const notAfter = new Date(clock.now().getTime() + URL_MS)
  let signer: Signer = signed.outside
  const read = async () =>
    fetchStore((await signer.get(object, notAfter, 'check')) ?? '', {
      headers: { range: 'bytes=3-9' },
    })
  let answer = await read()
  if (answer === null && signed.outside !== signed.inside) {
    log.event('warn', 's3.public-endpoint', {
      note: 'SREG_S3_PUBLIC_ENDPOINT cannot be reached from here, so that only SREG_S3_ENDPOINT was tried',
    })
    signer = signed.inside
    answer = await read()
  }
  if (answer?.status !== 206 || answer.text !== new TextDecoder().decode(content.slice(3, 10)))
    return off('ranges cannot be read by a signed address')
  const url = (await signer.get(object, notAfter, 'check')) ?? ''
  for (const altered of [
    url.replace(/(X-Amz-Signature=.)(.)/, (_, start: string, c: string) =>
      start.concat(c === '0' ? '1' : '0'),
    ),
    url.replace('X-Amz-Expires=', 'X-Amz-Expires=9'),
  ])
    if (!isRefused(await fetchStore(altered))) return off('altered addresses are not refused')

  const { client, ask } = bucket
  const { UploadId = '' } = await ask(
    ({ signal }) => client.send(new CreateMultipartUploadCommand(object), { abortSignal: signal }),
    1,
  )
  try {
    const sha256 = await sha256Hex(content)
    const part = { number: 1, size: content.length, sha256 }
    const partUrl = await signer.putPart({ ...object, UploadId }, part, notAfter)
    const put = (at: string, body: Uint8Array, headers: Record<string, string>) =>
      fetchStore(at, { method: 'PUT', body: body as BodyInit, headers })
    const hash = { 'x-amz-content-sha256': sha256 }
    const wrong = content.map((byte) => byte ^ 1)
    if (!isRefused(await put(partUrl, wrong, hash)))
      return off('bodies of another SHA-256 than the signed one are not refused')
    if (!isRefused(await put(partUrl, wrong, { 'x-amz-content-sha256': await sha256Hex(wrong) })))
      return off('another SHA-256 than the signed one is not refused')
    if (!isRefused(await put(partUrl, wrong, {})))
      return off('bodies without the signed SHA-256 are not refused')
    const otherPart = partUrl.replace('partNumber=1', 'partNumber=2')
    if (otherPart === partUrl || !isRefused(await put(otherPart, content, hash)))
      return off('altered addresses are not refused')
    if ((await put(partUrl, content, hash))?.status !== 200)
      return off('parts cannot be sent to a signed address')
  } finally {
    await ask(({ signal }) =>
      client.send(new AbortMultipartUploadCommand({ ...object, UploadId }), {
        abortSignal: signal,
      }),
    ).catch(() => {})
  }
  return true
}

const isRefused = (answer: { status: number } | null) =>
  answer !== null && answer.status >= 400 && answer.status < 500

/** What an address answers, or null when nothing does. */
async function fetchStore(
  url: string,
  init: RequestInit = {},
): Promise<{ status: number; text: string } | null> {
  try {
    const answer = await fetch(url, { ...init, signal: AbortSignal.timeout(ANSWER_MS) })
    return { status: answer.status, text: await answer.text() }
  } catch {
    return null
  }
}

async function sha256Hex(bytes: Uint8Array): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes as BufferSource))
  return [...digest].map((byte) => byte.toString(16).padStart(2, '0')).join('')
}

/** Warns of settings of the bucket that keep or remove what is not theirs; none if it does not tell. */
async function warnOfRules({ client, ask, name, prefix }: Bucket, log: Log): Promise<void> {
  const versioning = await ask(({ signal }) =>
    client.send(new GetBucketVersioningCommand({ Bucket: name }), { abortSignal: signal }),
  ).catch(() => null)
  if (versioning?.Status === 'Enabled')
    log.event('warn', 's3.versioning', {
      note: 'the bucket keeps old versions: deleted images go on taking space until a lifecycle rule removes noncurrent versions',
    })
  const lifecycle = await ask(({ signal }) =>
    client.send(new GetBucketLifecycleConfigurationCommand({ Bucket: name }), {
      abortSignal: signal,
    }),
  ).catch(() => null)
  const dangerous = (lifecycle?.Rules ?? []).filter((rule) => isDangerous(rule, prefix))
  if (dangerous.length > 0)
    log.event('warn', 's3.lifecycle', {
      rules: dangerous.map(({ ID }) => ID ?? '?').join(', '),
      note: 'lifecycle rules of the bucket remove or move images, or uploads before they may be finished',
    })
}

function isDangerous(rule: LifecycleRule, prefix: string): boolean {
  const { Filter, Expiration, Transitions, AbortIncompleteMultipartUpload } = rule
  const under = Filter?.Prefix ?? Filter?.And?.Prefix ?? rule.Prefix ?? ''
  if (rule.Status !== 'Enabled' || !(prefix.startsWith(under) || under.startsWith(prefix)))
    return false
  const days = AbortIncompleteMultipartUpload?.DaysAfterInitiation ?? WEEK_DAYS
  const expires = Expiration?.Days !== undefined || Expiration?.Date !== undefined
  return expires || (Transitions ?? []).length > 0 || days < WEEK_DAYS
}
