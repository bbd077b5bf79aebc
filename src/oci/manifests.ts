/** Manifests by tag and digest (distribution-spec, "Pulling manifests", "Pushing Manifests"). */
import { MAX_MANIFEST, parseReference } from '../core/manifests.ts'
import { placeOf } from '../core/repositories.ts'
import { readBytes } from '../http/body.ts'
import type { Ctx } from '../http/context.ts'
import { noneMatches } from '../http/range.ts'
import type { OciDeps } from './routes.ts'
import { CONTENT, repositoryOf } from './wire.ts'
import { reply } from '../http/reply.ts'

export function manifestHandlers(deps: OciDeps) {
  const { manifests, logins, transfer, tallies, limits, defer } = deps
  const referenceOf = (c: Ctx) => parseReference(c.req.param('reference') ?? '')

  return {
    /** The exact bytes with exactly their type: clients take it for the media type (protocol.md §11). */
    async get(c: Ctx): Promise<Response> {
      const { path } = repositoryOf(c)
      const selector = referenceOf(c)
      const text = c.req.method === 'GET'
      const claims = c.get('claims')
      const condition = c.req.header('if-none-match')
      const asker = limits.asker(c, claims)
      const week = text ? limits.pulls() : null
      const pull = week === null ? null : { ...week, asker }
      const look = (counted: typeof pull) =>
        manifests.get(path, selector, claims, { text, pull: counted })
      let found = await look(condition === undefined ? pull : null)
      const etag = `"${found.manifest.digest}"`
      const headers = { ...CONTENT, ETag: etag, 'Docker-Content-Digest': found.manifest.digest }
      if (noneMatches(condition, etag)) return reply(null, 304, headers)
      if (pull !== null && condition !== undefined) found = await look(pull)
      const { container, manifest, counted } = found
      const told = limits.pulled(c, counted)
      if (text) defer(c, tallies.pull(container.id, asker))
      const all = {
        ...headers,
        ...told,
        'Content-Type': manifest.mediaType,
        'Content-Length': String(manifest.size),
      }
      return manifest.text === null ? reply(null, 200, all) : reply(manifest.text, 200, all)
    },

    async put(c: Ctx): Promise<Response> {
      const { name, path } = repositoryOf(c)
      const selector = referenceOf(c)
      const contentType = c.req.header('content-type')?.split(';')[0]?.trim() ?? null
      const tags = c.req.queries('tag') ?? []
      const who = c.get('claims')
      // R24: an ended token puts manifests where it has just pushed, and nowhere else
      const asking = who && {
        ...who,
        grace: { of: 'oci' as const, id: placeOf(path), until: who.expiresAt },
      }
      // before megabytes are read for it
      await logins.check(asking)
      const bytes = await readBytes(c, transfer, MAX_MANIFEST)
      const sent = { bytes, contentType, tags: selector.by === 'digest' ? tags : [] }
      const { digest, subject } = await manifests.put(path, selector, sent, asking)
      return reply(null, 201, {
        ...CONTENT,
        Location: `/v2/${name}/manifests/${digest}`,
        'Docker-Content-Digest': digest,
        ...(subject === null ? {} : { 'OCI-Subject': subject }),
        ...(sent.tags.length === 0 ? {} : { 'OCI-Tag': sent.tags.join(', ') }),
      })
    },

    async remove(c: Ctx): Promise<Response> {
      const { path } = repositoryOf(c)
      await manifests.remove(path, referenceOf(c), c.get('claims'))
      return reply(null, 202, CONTENT)
    },
  }
}
