/** Stars and statistics of containers, for whoever may see them. */
import type { Popularity } from '../core/popularity.ts'
import { readJson } from '../http/body.ts'
import type { Ctx } from '../http/context.ts'
import { data } from '../http/json-resp.ts'
import type { Transfer } from '../http/transfer.ts'
import { newStar } from './requests.ts'

export function popularityHandlers(deps: { popularity: Popularity; transfer: Transfer }) {
  const { popularity, transfer } = deps
  return {
    async stats(c: Ctx): Promise<Response> {
      const { weeks, ...rest } = await popularity.stats(c.req.query('ref') ?? '', c.get('claims'))
      // a week is named by its Monday
      const days = weeks.map(({ week, count }) => ({
        week: week.toISOString().slice(0, 10),
        count,
      }))
      return data({ ...rest, weeks: days })
    },

    async stars(c: Ctx): Promise<Response> {
      const given = await popularity.starred(c.get('claims'))
      return data(
        given.map(({ entity, collection, container, stars, starredAt }) => ({
          ref: `${entity}/${collection}/${container}`,
          stars,
          starredAt,
        })),
      )
    },

    async star(c: Ctx): Promise<Response> {
      const { ref } = await readJson(c, transfer, newStar)
      await popularity.setStar(ref, true, c.get('claims'))
      return data({ ref })
    },

    /** Named in the query: proxies may drop the body of a DELETE. */
    async unstar(c: Ctx): Promise<Response> {
      const ref = c.req.query('ref') ?? ''
      await popularity.setStar(ref, false, c.get('claims'))
      return data({ ref })
    },
  }
}
