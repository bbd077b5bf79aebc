/** Blobs that repositories have: out, and away (distribution-spec, "Pulling blobs", "Deleting Blobs"). */
import { getDeadline, leaksToken } from '../core/downloads.ts'
import { RegistryError } from '../errors.ts'
import type { Ctx } from '../http/context.ts'
import { ifRangeHolds, noneMatches, parseRange, rangeHeaders } from '../http/range.ts'
import type { StoredBlob } from '../ports.ts'
import type { OciDeps } from './routes.ts'
import { CONTENT, digestOf, repositoryOf } from './wire.ts'
import { reply } from '../http/reply.ts'

export function blobHandlers({ manifests, blobs, transfer, clock }: OciDeps) {
  /** The store's own address of a blob whose bytes may pass us by; else null. */
  async function storeUrl(c: Ctx, blob: StoredBlob, digest: string): Promise<string | null> {
    if (blobs.direct === undefined || leaksToken(c.req.header('user-agent') ?? '')) return null
    const notAfter = getDeadline(clock.now(), blob.size)
    return blobs.direct.get(blob.key, notAfter, digest.replace(':', '-'))
  }

  return {
    /**
     * The bytes, or with SREG_S3_REDIRECT a 307 to the store, ranges included: clients send their
     * Range along, and the digest tells them of whatever goes wrong there.
     */
    async get(c: Ctx): Promise<Response> {
      const { path } = repositoryOf(c)
      const digest = digestOf(c)
      const blob = await manifests.blob(path, digest, c.get('claims'))
      const etag = `"${digest}"`
      if (noneMatches(c.req.header('if-none-match'), etag))
        return reply(null, 304, { ...CONTENT, ETag: etag })
      const headers = {
        ...CONTENT,
        'Content-Type': 'application/octet-stream',
        'Content-Disposition': 'attachment',
        'Docker-Content-Digest': digest,
      }
      const asked = ifRangeHolds(c.req.header('if-range'), etag)
        ? parseRange(c.req.header('range'), blob.size)
        : ({ kind: 'whole' } as const)
      if (asked.kind === 'unsatisfiable')
        throw new RegistryError(
          'range_unsatisfiable',
          `The blob has ${blob.size} bytes; that range is not in it.`,
          { subject: 'blob' },
        )
      const status = asked.kind === 'range' ? 206 : 200
      const whole = { start: 0, end: blob.size - 1 }
      const range = asked.kind === 'range' ? { start: asked.start, end: asked.end } : whole
      const all = { ...headers, ...rangeHeaders({ ...blob, etag, range }, status) }
      if (c.req.method === 'HEAD') return reply(null, status, all)
      if ('bytes' in blob) return reply(blob.bytes.slice(range.start, range.end + 1), status, all)
      const url = await storeUrl(c, blob, digest)
      if (url !== null) return reply(null, 307, { ...CONTENT, Location: url })
      const read = await blobs.get(blob.key, asked.kind === 'range' ? range : undefined)
      if (read === null || read.size !== blob.size) {
        await read?.close()
        throw new RegistryError('not_found', 'There is no such blob here.', { subject: 'blob' })
      }
      return transfer.send(c, status, all, read)
    },

    async remove(c: Ctx): Promise<Response> {
      const { path } = repositoryOf(c)
      await manifests.removeBlob(path, digestOf(c), c.get('claims'))
      return reply(null, 202, CONTENT)
    },
  }
}
