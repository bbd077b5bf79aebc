/** What owners decide about their collections: who may do what there, who sees them, what is frozen. */
import { RegistryError } from '../errors.ts'
import type { Clock, Database, Ids } from '../ports.ts'
import { absent, identify, type Access } from './access.ts'
import { actorOf, collectionFacts, factsOfContainer } from './catalog.ts'
import { LEVELS, type Claims, type Grant, type Level } from './model.ts'
import { checkName } from './names.ts'
import { parsePath, parseRef } from './ref.ts'

export type Sharing = ReturnType<typeof createSharing>

export function createSharing(deps: {
  database: Database
  clock: Clock
  ids: Ids
  access: Access
}) {
  const { database, clock, ids } = deps
  const { rules, authorise, authoriseTeam } = deps.access

  /** The collection of `entity/collection`, for somebody who may manage it. */
  async function collectionOf(ref: string, claims: Claims | null) {
    const [entity = '', name = ''] = parsePath(ref, 2)
    const now = clock.now()
    const { standing, value } = await database.catalog.findCollection(entity, name, claims, now)
    const identity = identify(claims, standing)
    const facts = value === null ? null : collectionFacts(value.collection)
    authorise(identity, 'manage', facts, `the collection ${entity}/${name}`, 'collection')
    if (value === null) throw absent('collection')
    return { collection: value.collection, by: actorOf(identity, clock) }
  }

  /** The container of `entity/collection/container`, likewise. */
  async function containerOf(ref: string, claims: Claims | null) {
    const [entity = '', collection = '', name = ''] = parsePath(ref, 3)
    const path = { entity, collection, container: name }
    const found = await database.catalog.findContainer(path, claims, clock.now())
    const identity = identify(claims, found.standing)
    const container = found.value?.container ?? null
    const facts = container === null ? null : factsOfContainer(container)
    authorise(identity, 'manage', facts, `the container ${ref}`, 'container')
    if (container === null) throw absent('container')
    return { container, path, by: actorOf(identity, clock) }
  }

  return {
    /** Who may do what in `entity/collection`, apart from the entity's owner. */
    async grants(ref: string, claims: Claims | null): Promise<Grant[]> {
      const { collection } = await collectionOf(ref, claims)
      return database.grants.list(collection.id)
    },

    /** From the next request on; `none` takes everything back. */
    async grant(
      ref: string,
      to: { user: string } | { team: string },
      level: (typeof LEVELS)[number],
      claims: Claims | null,
    ): Promise<void> {
      const { collection, by } = await collectionOf(ref, claims)
      await database.grants.set({
        id: ids.next(),
        collectionId: collection.id,
        to: 'user' in to ? { user: checkName('user', to.user) } : await teamOf(to.team, claims),
        level: LEVELS.indexOf(level) as Level,
        by,
      })
    },

    /** Makes entity/collection or entity/collection/container private, or public again. */
    async setPrivate(ref: string, value: boolean, claims: Claims | null): Promise<void> {
      const depth = ref.split('/').length === 3 ? 3 : 2
      const { by } = depth === 3 ? await containerOf(ref, claims) : await collectionOf(ref, claims)
      if (!value && rules.privateOnly)
        throw new RegistryError(
          'denied',
          'Nothing can be made public here (SREG_PRIVATE_ONLY): grant people or teams access instead (sreg-lite grant set).',
          { subject: depth === 3 ? 'container' : 'collection' },
        )
      const [entity = '', collection = '', container = null] = parsePath(ref, depth)
      const path = { entity, collection, container }
      if (!(await database.catalog.setPrivate(path, value, by)))
        throw absent(depth === 3 ? 'container' : 'collection')
    },

    /** Freezes or thaws entity/collection/container, or a tag of it: of all archs for `arch` null. */
    async setFrozen(
      ref: string,
      arch: string | null,
      frozen: boolean,
      claims: Claims | null,
    ): Promise<void> {
      const colon = ref.indexOf(':')
      const { container, by } = await containerOf(colon < 0 ? ref : ref.slice(0, colon), claims)
      const selector = colon < 0 ? null : parseRef(ref, { shortRefs: 'default' }).selector
      if (selector !== null && selector.kind !== 'tag')
        throw new RegistryError(
          'invalid',
          'A hash names the same image for ever: freeze a tag, or the whole container.',
          { subject: 'tag' },
        )
      if (selector === null && arch !== null)
        throw new RegistryError('invalid', 'An arch is said with a tag only.', {
          subject: 'request',
        })
      const change = { containerId: container.id, tag: selector?.tag ?? null, arch, frozen, by }
      if (!(await database.catalog.setFrozen(change))) throw absent('tag')
    },
  }

  /** A team that the asker sees. */
  async function teamOf(name: string, claims: Claims | null): Promise<{ teamId: string }> {
    const found = await database.teams.find(checkName('team', name), claims, clock.now())
    authoriseTeam(identify(claims, found.standing), 'see', found.value?.team ?? null)
    if (found.value === null) throw absent('team')
    return { teamId: found.value.team.id }
  }
}
