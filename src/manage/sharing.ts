/** Grants, privacy and freezing over HTTP. */
import { LEVELS } from '../core/model.ts'
import type { Sharing } from '../core/sharing.ts'
import { readJson } from '../http/body.ts'
import type { Ctx } from '../http/context.ts'
import { data } from '../http/json-resp.ts'
import type { Transfer } from '../http/transfer.ts'
import { freeze, grant, privacy } from './requests.ts'

export function sharingHandlers({ sharing, transfer }: { sharing: Sharing; transfer: Transfer }) {
  const claims = (c: Ctx) => c.get('claims')

  return {
    async grants(c: Ctx): Promise<Response> {
      const grants = await sharing.grants(c.req.query('ref') ?? '', claims(c))
      return data(grants.map((given) => ({ ...given, level: LEVELS[given.level] })))
    },

    async grant(c: Ctx): Promise<Response> {
      const given = await readJson(c, transfer, grant)
      const { user, team = '' } = given
      await sharing.grant(
        given.ref,
        user === undefined ? { team } : { user },
        given.level,
        claims(c),
      )
      return data(given)
    },

    async setPrivate(c: Ctx): Promise<Response> {
      const change = await readJson(c, transfer, privacy)
      await sharing.setPrivate(change.ref, change.private, claims(c))
      return data(change)
    },

    async setFrozen(c: Ctx): Promise<Response> {
      const change = await readJson(c, transfer, freeze)
      await sharing.setFrozen(change.ref, change.arch ?? null, change.frozen, claims(c))
      return data(change)
    },
  }
}
