/** Who refers to a manifest (distribution-spec, "Listing Referrers"). */
import { INDEX_TYPE } from '../core/derived.ts'
import type { Ctx } from '../http/context.ts'
import type { OciDeps } from './routes.ts'
import { CONTENT, digestOf, nextPage, repositoryOf } from './wire.ts'
import { reply } from '../http/reply.ts'

export function referrersHandler({ manifests }: OciDeps) {
  return async (c: Ctx): Promise<Response> => {
    const { name, path } = repositoryOf(c)
    const digest = digestOf(c)
    const artifactType = c.req.query('artifactType') || null
    const page = { after: c.req.query('last') ?? '', artifactType }
    const { referrers, more } = await manifests.referrers(path, digest, page, c.get('claims'))
    const index = {
      schemaVersion: 2,
      mediaType: INDEX_TYPE,
      manifests: referrers.map((one) => ({
        mediaType: one.mediaType,
        digest: one.digest,
        size: one.size,
        ...(one.artifactType === '' ? {} : { artifactType: one.artifactType }),
        ...(one.annotations === null ? {} : { annotations: one.annotations }),
      })),
    }
    const query = {
      ...(artifactType === null ? {} : { artifactType }),
      last: referrers.at(-1)?.digest ?? '',
    }
    return reply(JSON.stringify(index), 200, {
      ...CONTENT,
      'Content-Type': INDEX_TYPE,
      ...(artifactType === null ? {} : { 'OCI-Filters-Applied': 'artifactType' }),
      ...(more ? nextPage(`/v2/${name}/referrers/${digest}`, query) : {}),
    })
  }
}
