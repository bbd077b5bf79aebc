/** Lists of tags and of repositories (distribution-spec, "Listing Tags"). */
import type { Ctx } from '../http/context.ts'
import type { OciDeps } from './routes.ts'
import { CONTENT, nextPage, pageOf, repositoryOf } from './wire.ts'
import { reply } from '../http/reply.ts'

const JSON_TYPE = { ...CONTENT, 'Content-Type': 'application/json' }

export function listHandlers({ manifests }: OciDeps) {
  return {
    async tags(c: Ctx): Promise<Response> {
      const { name, path } = repositoryOf(c)
      const page = pageOf(c)
      const { tags, more } = await manifests.tags(path, page, c.get('claims'))
      const query = { n: String(page.limit), last: tags.at(-1) ?? '' }
      return reply(JSON.stringify({ name, tags }), 200, {
        ...JSON_TYPE,
        ...(more ? nextPage(`/v2/${name}/tags/list`, query) : {}),
      })
    },

    /** Not the spec's, but what docker's registry answers: what the asker can see, by its full name. */
    async repositories(c: Ctx): Promise<Response> {
      const page = pageOf(c)
      const { names, more } = await manifests.repositories(page, c.get('claims'))
      const query = { n: String(page.limit), last: names.at(-1) ?? '' }
      return reply(JSON.stringify({ repositories: names }), 200, {
        ...JSON_TYPE,
        ...(more ? nextPage('/v2/_catalog', query) : {}),
      })
    },
  }
}
