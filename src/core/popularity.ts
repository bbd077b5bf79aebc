/** Stars, and how often a container is pulled. */
import { RegistryError } from '../errors.ts'
import type { Clock, Database } from '../ports.ts'
import { absent, identify, type Access } from './access.ts'
import { factsOfContainer, writerOf } from './catalog.ts'
import type { Claims } from './model.ts'
import { parsePath } from './ref.ts'
import { WEEK_MS, windowOf } from './tallies.ts'

/** Weeks that are shown, this one included. */
const WEEKS = 12

export type Popularity = ReturnType<typeof createPopularity>

export function createPopularity(deps: { database: Database; clock: Clock; access: Access }) {
  const { database, clock } = deps
  const { authorise } = deps.access

  /** The container of `entity/collection/container`, for who may do that with it. */
  async function find(ref: string, action: 'see' | 'star', claims: Claims | null) {
    const [entity = '', collection = '', name = ''] = parsePath(ref, 3)
    const path = { entity, collection, container: name }
    const found = await database.catalog.findContainer(path, claims, clock.now())
    const identity = identify(claims, found.standing)
    const container = found.value?.container ?? null
    const facts = container === null ? null : factsOfContainer(container)
    authorise(identity, action, facts, `${entity}/${collection}/${name}`, 'container')
    if (container === null) throw absent('container')
    return { container, identity }
  }

  return {
    /** Pulls in all and in the last weeks (those without too, oldest first), and stars. */
    async stats(ref: string, claims: Claims | null) {
      const { container } = await find(ref, 'see', claims)
      const last = windowOf(clock.now(), WEEK_MS).begin.getTime()
      const first = new Date(last - (WEEKS - 1) * WEEK_MS)
      const counts = new Map(
        (await database.popularity.weeks(container.id, first)).map(({ week, count }) => [
          week.getTime(),
          count,
        ]),
      )
      const weeks = Array.from({ length: WEEKS }, (_, at) => {
        const week = first.getTime() + at * WEEK_MS
        return { week: new Date(week), count: counts.get(week) ?? 0 }
      })
      return { total: container.downloads, weeks, stars: container.stars }
    },

    /** Gives a star or takes it back; repeating it changes nothing. */
    async setStar(ref: string, given: boolean, claims: Claims | null): Promise<void> {
      const { container, identity } = await find(ref, 'star', claims)
      if (identity.kind !== 'user')
        throw new RegistryError(
          'denied',
          'Stars are given by users: do it over the network (--server URL), with a token of yours.',
          { subject: 'container' },
        )
      const by = writerOf(identity, clock)
      await database.popularity.setStar({ containerId: container.id, given, by })
    },

    /** What the asker has given a star and still sees. */
    async starred(claims: Claims | null) {
      if (claims === null || claims.operator !== undefined) return []
      const { standing, value } = await database.popularity.starred(claims, clock.now())
      const identity = identify(claims, standing)
      authorise(identity, 'see', { subject: 'container', level: 0, private: false })
      return value
    },
  }
}
