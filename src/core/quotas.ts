/**
 * How much an entity takes and may take: shown to who owns it, set by administrators. Pushes are held
 * to it; an import is not, for an administrator decides on the whole of it.
 */
import type { Clock, Database } from '../ports.ts'
import { absent, identify, manages, type Access } from './access.ts'
import { actorOf, entityFacts } from './catalog.ts'
import type { Claims, Usage } from './model.ts'
import { checkName } from './names.ts'

/** Entities of one page. */
const PAGE = 500

export type Quotas = ReturnType<typeof createQuotas>

/** `limit` in bytes is the quota that holds; null is none. */
export type ShownUsage = Omit<Usage, 'quota'> & { limit: number | null }

export function createQuotas(deps: {
  database: Database
  clock: Clock
  access: Access
  /** Bytes that entities without a quota of their own may take; null or absent is no limit. */
  defaultQuota?: number | null
}) {
  const { database, clock, defaultQuota = null } = deps
  const { authorise } = deps.access
  const { quotas } = database

  /** The entity of that name, for who may do that with it. */
  async function find(name: string, action: 'oversee' | 'administer', claims: Claims | null) {
    const entity = checkName('entity', name)
    const found = await database.catalog.findEntity(entity, claims, clock.now())
    const identity = identify(claims, found.standing)
    const facts =
      found.value === null
        ? null
        : entityFacts(identity, found.value.entity, found.value.below.ids.length > 0)
    authorise(identity, action, facts, `the entity ${entity}`, 'entity')
    if (found.value === null) throw absent('entity')
    return { entity: found.value.entity, identity }
  }

  async function usageOf(entityId: string): Promise<ShownUsage> {
    const [usage] = await quotas.usages({ entityId }, '', 1)
    if (usage === undefined) throw absent('entity')
    return shown(usage)
  }

  const shown = ({ quota, ...usage }: Usage): ShownUsage => ({
    ...usage,
    limit: (quota ?? defaultQuota) || null,
  })

  return {
    /** Of one entity; for its owner, staff and administrators. */
    async usage(name: string, claims: Claims | null): Promise<ShownUsage> {
      const { entity } = await find(name, 'oversee', claims)
      return usageOf(entity.id)
    },

    /** Of the asker's entities, or of all for staff and administrators; `next` is the following `after`. */
    async usages(
      after: string,
      claims: Claims | null,
    ): Promise<{ usages: ShownUsage[]; next: string | null }> {
      const standing = claims === null ? null : await database.tokens.standing(claims, clock.now())
      const identity = identify(claims, standing)
      const ownerId = identity.kind === 'user' ? identity.userId : ''
      const facts = { subject: 'entity' as const, level: 3 as const, private: false }
      authorise(identity, 'oversee', facts, 'all of your entity')
      const of = manages(identity) ? 'all' : { ownerId }
      const rows = await quotas.usages(of, after, PAGE)
      const last = rows.length < PAGE ? undefined : rows.at(-1)
      return { usages: rows.map(shown), next: last?.entity ?? null }
    },

    /** `quota` in bytes; null is the registry's default, 0 none. */
    async set(name: string, quota: number | null, claims: Claims | null): Promise<ShownUsage> {
      const { entity, identity } = await find(name, 'administer', claims)
      await quotas.setQuota({ entityId: entity.id, quota, by: actorOf(identity, clock) })
      return usageOf(entity.id)
    },
  }
}
