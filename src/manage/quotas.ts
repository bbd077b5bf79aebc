/** Quotas and usage: shown to who owns an entity, set by administrators. */
import type { Quotas } from '../core/quotas.ts'
import { readJson } from '../http/body.ts'
import type { Ctx } from '../http/context.ts'
import { data } from '../http/json-resp.ts'
import type { Transfer } from '../http/transfer.ts'
import { newQuota } from './requests.ts'

export function quotaHandlers({ quotas, transfer }: { quotas: Quotas; transfer: Transfer }) {
  return {
    /** Of `?entity=`; without it a page of the asker's own, or of all for staff and administrators. */
    async usage(c: Ctx): Promise<Response> {
      const entity = c.req.query('entity')
      if (entity !== undefined) return data(await quotas.usage(entity, c.get('claims')))
      return data(await quotas.usages(c.req.query('after') ?? '', c.get('claims')))
    },

    /** `bytes` null is the registry's default, `none` no limit. */
    async set(c: Ctx): Promise<Response> {
      const { entity, bytes } = await readJson(c, transfer, newQuota)
      return data(await quotas.set(entity, bytes === 'none' ? 0 : bytes, c.get('claims')))
    },
  }
}
