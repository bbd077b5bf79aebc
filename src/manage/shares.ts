/** Making, listing and revoking share links; the links themselves are answered by the library (R61). */
import * as z from 'zod/mini'
import type { Share } from '../core/model.ts'
import { hashOf } from '../core/ref.ts'
import { LONGEST_SHARE_DAYS, type Shares } from '../core/shares.ts'
import { readJson } from '../http/body.ts'
import type { Ctx } from '../http/context.ts'
import { data } from '../http/json-resp.ts'
import { originOf, type OriginConfig } from '../http/origin.ts'
import type { Transfer } from '../http/transfer.ts'

const LONGEST_S = LONGEST_SHARE_DAYS * 86_400
const life = `must be a whole number of seconds from 60 to ${LONGEST_S} (${LONGEST_SHARE_DAYS} days)`
const often = 'must be a whole number from 1 to 1000000'
const newShare = z.strictObject({
  ref: z.string().check(z.maxLength(1024)),
  arch: z.optional(
    z.string().check(z.regex(/^[a-z0-9_]{1,32}$/, 'must be an architecture such as amd64')),
  ),
  expiresIn: z.optional(z.number(life).check(z.int(life), z.gte(60, life), z.lte(LONGEST_S, life))),
  count: z.optional(z.number(often).check(z.int(often), z.gte(1, often), z.lte(1e6, often))),
  note: z.optional(z.string().check(z.maxLength(200, 'at most 200 characters'))),
})

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
      return data(c, { ...made, url: `${originOf(c, config)}${path}`, path })
    },

    async list(c: Ctx): Promise<Response> {
      const found = await shares.list(c.req.query('ref') ?? null, c.get('claims'))
      return data(c, found.map(record))
    },

    async revoke(c: Ctx): Promise<Response> {
      const id = c.req.param('id') ?? ''
      await shares.revoke(id, c.get('claims'))
      return data(c, { id })
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
