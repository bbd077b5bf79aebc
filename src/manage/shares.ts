/** Making, listing and revoking share links; the links themselves are answered by the library (R61). */
import type { Share } from '../core/model.ts'
import { hashOf } from '../core/ref.ts'
import type { Shares } from '../core/shares.ts'
import { readJson } from '../http/body.ts'
import type { Ctx } from '../http/context.ts'
import { data } from '../http/json-resp.ts'
import { originOf, type OriginConfig } from '../http/origin.ts'
import type { Transfer } from '../http/transfer.ts'
import { newShare } from './requests.ts'

export function shareHandlers(deps: { shares: Shares; transfer: Transfer; config: OriginConfig }) {
  const { shares, transfer, config } = deps
  return {
    /** The URL is shown this once: its secret is kept nowhere. */
    async create(c: Ctx): Promise<Response> {
      const { ref, arch, expiresIn, count, note } = await readJson(c, transfer, newShare)
      const draft = {
        ref,
        arch: arch ?? null,
        lifeMs: expiresIn === undefined ? null : expiresIn * 1000,
        count: count ?? null,
        note: note ?? '',
      }
      const { secret, ...made } = await shares.create(draft, c.get('claims'))
      const path = `/share?s=${secret}`
      return data({ ...made, url: `${originOf(c, config)}${path}`, path })
    },

    async list(c: Ctx): Promise<Response> {
      const found = await shares.list(c.req.query('ref') ?? null, c.get('claims'))
      return data(found.map(record))
    },

    async revoke(c: Ctx): Promise<Response> {
      const id = c.req.param('id') ?? ''
      await shares.revoke(id, c.get('claims'))
      return data({ id })
    },
  }
}

/** A link as JSON; `count` is how many downloads are left, null any number. */
const record = (share: Share) => ({
  id: share.id,
  ref: `${share.entityName}/${share.collectionName}/${share.containerName}`,
  hash: hashOf(share.digest),
  note: share.note,
  creator: share.creatorName,
  createdAt: share.createdAt,
  expiresAt: share.expiresAt,
  count: share.left,
  used: share.used,
  revokedAt: share.revokedAt,
})
