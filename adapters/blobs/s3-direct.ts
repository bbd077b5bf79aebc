/** Signed URLs of an S3 server, with which clients and the store exchange bytes themselves. */
import { GetObjectCommand, UploadPartCommand } from '@aws-sdk/client-s3'
import type { S3Client } from '@aws-sdk/client-s3'
import { getSignedUrl } from '@aws-sdk/s3-request-presigner'
import type { S3Config } from '../../src/config.ts'
import type { Clock, DirectTransfers } from '../../src/ports.ts'
import { s3Client } from './s3.ts'
import type { Bucket } from './s3.ts'

/** The longest that Amazon signs for. */
const LONGEST_SECONDS = 7 * 24 * 3600

/** Signs for one endpoint. `object` is a bucket and a name in it. */
export type Signer = {
  /** Null when the store's own credentials end before the URL would. */
  get(object: ObjectName, notAfter: Date, filename: string): Promise<string | null>
  putPart(
    object: ObjectName & { UploadId: string },
    part: { number: number; size: number; sha256: string | null },
    notAfter: Date,
  ): Promise<string>
}

type ObjectName = { Bucket: string; Key: string }

export type Signed = {
  /** For the endpoint that clients use. */
  outside: Signer
  /** For the endpoint that we use. */
  inside: Signer
  at: Bucket['at']
}

export function signWith(bucket: Bucket, config: S3Config, clock: Clock): Signed {
  const inside = signer(bucket.client, clock)
  const { publicEndpoint } = config
  const outside = publicEndpoint === null ? inside : signer(s3Client(config, publicEndpoint), clock)
  return { outside, inside, at: bucket.at }
}

function signer(client: S3Client, clock: Clock): Signer {
  const validity = (notAfter: Date) => {
    const signingDate = clock.now()
    const seconds = Math.floor((notAfter.getTime() - signingDate.getTime()) / 1000)
    return { signingDate, expiresIn: Math.min(Math.max(seconds, 1), LONGEST_SECONDS) }
  }
  return {
    async get(object, notAfter, filename) {
      const { expiration } = await client.config.credentials()
      // A range that is refused half-way becomes image bytes at clients that look at nothing (R5).
      if (expiration !== undefined && expiration < notAfter) return null
      const command = new GetObjectCommand({
        ...object,
        ResponseContentDisposition: `attachment; filename="${filename}"`,
        ResponseContentType: 'application/octet-stream',
        ResponseCacheControl: 'private, no-store',
      })
      return getSignedUrl(client, command, validity(notAfter))
    },

    async putPart(upload, { number, size, sha256 }, notAfter) {
      const command = new UploadPartCommand({ ...upload, PartNumber: number })
      const headers: Record<string, string> = {
        'content-length': String(size),
        ...(sha256 === null ? {} : { 'x-amz-content-sha256': sha256 }),
      }
      // Of a body that is not there the SDK would sign that it is unsigned and of any length.
      command.middlewareStack.add(
        (next) => async (args) => {
          Object.assign((args.request as { headers: object }).headers, headers)
          return next(args)
        },
        { step: 'build', name: 'signedHeaders' },
      )
      return getSignedUrl(client, command, {
        ...validity(notAfter),
        signableHeaders: new Set(['host', ...Object.keys(headers)]),
        unhoistableHeaders: new Set(Object.keys(headers)),
      })
    },
  }
}

/** `parts` lists what has arrived of an upload. */
export function directTransfers(
  { outside, at }: Signed,
  parts: DirectTransfers['parts'],
): DirectTransfers {
  return {
    get: (key, notAfter, filename) => outside.get(at(key), notAfter, filename),
    putPart(key, handle, part, notAfter) {
      const UploadId = handle.split('.').slice(2).join('.')
      return outside.putPart({ ...at(key), UploadId }, part, notAfter)
    },
    parts,
  }
}
