/** Accounts, robots, tokens and whose an entity is: who may do what with them (docs/access.md). */
import { RegistryError } from '../errors.ts'
import type { Clock, Database, Ids, NewToken, Person, Seen } from '../ports.ts'
import { absent, authoriseToken, identify, isAdmin, manages, type Access } from './access.ts'
import { actorOf, collectionFacts, entityFacts, factsOfContainer } from './catalog.ts'
import { DEFAULT_LIFE_MS, DEFAULT_SCOPES, SCOPES } from './model.ts'
import type { Claims, Identity, Role, Scope, Token } from './model.ts'
import { checkName, isId } from './names.ts'
import { parsePath } from './ref.ts'
import type { TokenIssuer } from './tokens.ts'

export type People = ReturnType<typeof createPeople>

/** A token to be made; what is left out is the asker, the default set, and the longest life up to a year. */
export type TokenDraft = {
  user: string | null
  name: string
  scopes: readonly Scope[] | null
  expiresAt: Date | null
  /** entity/collection or entity/collection/container. */
  bindTo: string | null
}

export type MadeToken = { id: string; jwt: string; scopes: Scope[]; expiresAt: Date }

export function createPeople(deps: {
  database: Pick<Database, 'people' | 'tokens' | 'catalog'>
  clock: Clock
  ids: Ids
  access: Access
  issuer: TokenIssuer
  /** Milliseconds that a token may live at most. */
  tokenMaxAge: number
}) {
  const { clock, ids, issuer, tokenMaxAge } = deps
  const { people, tokens, catalog } = deps.database
  const { decide, rules } = deps.access

  async function whoAsks(claims: Claims | null): Promise<Identity> {
    return identify(claims, claims === null ? null : await tokens.standing(claims, clock.now()))
  }

  async function look<T>(seen: Promise<Seen<T>>, claims: Claims | null) {
    const { standing, value } = await seen
    return { identity: identify(claims, standing), value }
  }

  /** The account of that name, and whoever asks for it; nobody may not even ask. */
  async function account(name: string, claims: Claims | null) {
    const found = await look(people.find(name, claims, clock.now()), claims)
    demandSomebody(found.identity)
    return found
  }

  /** What who asks may look after: everybody, themselves, or a robot of theirs. */
  const isTheirs = (
    identity: Identity,
    of: { id: string; managerId: string | null } | null,
  ): boolean =>
    isAdmin(identity) ||
    (identity.kind === 'user' &&
      of !== null &&
      (of.id === identity.userId || (of.managerId === identity.userId && hasPower(identity))))

  /** Somebody to whom things can be given; their name is no secret for who has something to give. */
  async function receiver(name: string, claims: Claims | null): Promise<Person> {
    const { value } = await people.find(name, claims, clock.now())
    if (value === null || value.deletedAt !== null || value.disabled || value.role === 'robot')
      throw new RegistryError('not_found', `There is no user ${name} who could take it over.`, {
        subject: 'user',
      })
    return value
  }

  /** The ids of what a token is to be bound to; `not_found` for what its maker cannot see. */
  async function placeOf(ref: string, claims: Claims | null) {
    const [entity = '', collection = '', container] = parsePath(
      ref,
      ref.split('/').length === 3 ? 3 : 2,
    )
    const now = clock.now()
    if (container === undefined) {
      const { identity, value } = await look(
        catalog.findCollection(entity, collection, claims, now),
        claims,
      )
      const found = value?.collection ?? null
      const facts = found === null ? null : collectionFacts(found)
      if (found === null || decide(identity, 'see', facts) !== 'allow') throw absent('collection')
      return { collectionId: found.id, containerId: '' }
    }
    const path = { entity, collection, container }
    const { identity, value } = await look(catalog.findContainer(path, claims, now), claims)
    const found = value?.container ?? null
    const facts = found === null ? null : factsOfContainer(found)
    if (found === null || decide(identity, 'see', facts) !== 'allow') throw absent('container')
    return { collectionId: found.collectionId, containerId: found.id }
  }

  async function remove(person: Person, handOverTo: string | null, identity: Identity) {
    await people.remove(person.id, handOverTo, actorOf(identity, clock))
  }

  return {
    /** Everybody with an account, deleted ones too; for administrators. */
    async list(claims: Claims | null): Promise<Person[]> {
      demandAdmin(await whoAsks(claims))
      return people.list()
    },

    /** An account, for itself, its manager and administrators; for others there is none. */
    async show(name: string, claims: Claims | null): Promise<Person> {
      const { identity, value } = await account(name, claims)
      if (value === null || !isTheirs(identity, value)) throw noUser(identity, name)
      return value
    },

    /** Adds a person, who owns the entity of the same name; for administrators. */
    async add(name: string, role: Exclude<Role, 'robot'>, claims: Claims | null): Promise<Person> {
      const identity = await whoAsks(claims)
      demandAdmin(identity)
      const person = { id: ids.next(), entityId: ids.next(), role, managerId: null }
      return people.add({ ...person, name: checkName('user', name) }, actorOf(identity, clock))
    },

    /** Changes role or state; for administrators. `conflict` for the last one of them. */
    async change(
      name: string,
      change: Parameters<typeof people.change>[1],
      claims: Claims | null,
    ): Promise<Person> {
      const { identity, value } = await account(name, claims)
      demandAdmin(identity)
      if (value === null || value.deletedAt !== null) throw noUser(identity, name)
      if (change.role !== undefined && value.role === 'robot')
        throw new RegistryError('invalid', 'A robot stays a robot: it has no other role.', {
          subject: 'user',
        })
      return people.change(value.id, change, actorOf(identity, clock))
    },

    /**
     * Ends an account, for itself and administrators. What it owned passes to `handOver`, or goes with
     * it when that is null. The name stays reserved (R38).
     */
    async remove(name: string, handOver: string | null, claims: Claims | null): Promise<void> {
      const { identity, value } = await account(name, claims)
      demandPower(identity)
      if (value === null || value.deletedAt !== null || !isTheirs(identity, value))
        throw noUser(identity, name)
      if (handOver === null && rules.readOnly && identity.kind !== 'operator')
        throw new RegistryError(
          'denied',
          'This registry is read-only for now (SREG_READ_ONLY), so nothing is removed with an account; hand it over.',
          { subject: 'user' },
        )
      const to = handOver === null ? null : await receiver(handOver, claims)
      if (to?.id === value.id)
        throw new RegistryError('invalid', 'Hand it over to somebody else.', { subject: 'user' })
      await remove(value, to?.id ?? null, identity)
    },

    /** Gives the name of a deleted account free, for administrators (R38). */
    async free(name: string, claims: Claims | null): Promise<void> {
      const { identity, value } = await account(name, claims)
      demandAdmin(identity)
      if (value === null) throw noUser(identity, name)
      if (value.deletedAt === null)
        throw new RegistryError('conflict', `The account ${name} is in use; delete it first.`, {
          subject: 'user',
        })
      await people.free(value.id, actorOf(identity, clock))
    },

    /** Tokens of an account, for itself, its manager and administrators; null is the asker's own. */
    async tokens(
      name: string | null,
      claims: Claims | null,
    ): Promise<(Token & { place: string | null })[]> {
      if (name === null) {
        const identity = await whoAsks(claims)
        demandSomebody(identity)
        if (identity.kind !== 'user') throw sayWhose()
        demandUnbound(identity)
        return people.tokens(identity.userId)
      }
      const { identity, value } = await account(name, claims)
      if (value === null || !isTheirs(identity, value)) throw noUser(identity, name)
      demandUnbound(identity)
      return people.tokens(value.id)
    },

    /**
     * Makes a token: for oneself, for a robot by its manager, for anybody by an administrator; it may
     * no more and lives no longer than the one that asks (R14).
     */
    async createToken(draft: TokenDraft, claims: Claims | null): Promise<MadeToken> {
      const { identity, value } = await account(draft.user ?? '', claims)
      demandPower(identity)
      const own = draft.user === null && identity.kind === 'user'
      if (draft.user === null && !own) throw sayWhose()
      if (!own && (value === null || value.deletedAt !== null || !isTheirs(identity, value)))
        throw noUser(identity, draft.user ?? '')
      const userId = own ? identity.userId : (value?.id ?? '')
      const scopes = SCOPES.filter((scope) => (draft.scopes ?? DEFAULT_SCOPES).includes(scope))
      const isRobot = own ? identity.role === 'robot' : value?.role === 'robot'
      if (scopes.includes('admin') && isRobot)
        throw new RegistryError(
          'denied',
          'A robot manages nothing, so its token cannot have the scope "admin".',
          { subject: 'token' },
        )
      if (scopes.includes('admin') && draft.bindTo !== null)
        throw new RegistryError(
          'invalid',
          'A token that is bound to a place manages nothing, so it cannot have the scope "admin".',
          { subject: 'token' },
        )
      const createdAt = clock.now()
      const asking =
        identity.kind === 'user' && claims !== null
          ? { scopes: identity.scopes, expiresAt: claims.expiresAt }
          : null
      const longest = createdAt.getTime() + tokenMaxAge
      const usual = Math.min(
        createdAt.getTime() + DEFAULT_LIFE_MS,
        asking?.expiresAt.getTime() ?? Infinity,
      )
      const expiresAt = new Date(Math.min(draft.expiresAt?.getTime() ?? usual, longest))
      if (asking !== null) authoriseToken(asking, { scopes, expiresAt })
      const place =
        draft.bindTo === null
          ? { collectionId: '', containerId: '' }
          : await placeOf(draft.bindTo, claims)
      const row: Required<NewToken> = {
        id: ids.next(),
        userId,
        name: draft.name.slice(0, 200),
        scopes,
        createdAt,
        expiresAt,
        ...place,
      }
      const token = { tokenId: row.id, userId, scopes, issuedAt: createdAt, expiresAt }
      await people.issue(row, actorOf(identity, clock))
      return { id: row.id, jwt: await issuer.issue(token), scopes, expiresAt }
    },

    /**
     * Ends a token at once, its running downloads included (R25): one's own, a robot's, or anybody's
     * for administrators; for others there is none. Every token may end itself.
     */
    async revokeToken(id: string, claims: Claims | null): Promise<void> {
      const { identity, value } = await look(
        people.token(isId(id) ? id : '', claims, clock.now()),
        claims,
      )
      demandSomebody(identity)
      const owner = value === null ? null : { id: value.userId, managerId: value.managerId }
      if (owner === null || !isTheirs(identity, owner))
        throw new RegistryError('not_found', 'There is no token of that id; see token list.', {
          subject: 'token',
        })
      if (identity.kind !== 'user' || identity.tokenId !== id) demandPower(identity)
      await people.revoke(id, actorOf(identity, clock))
    },

    /** The asker's robots; everybody's for administrators. */
    async robots(claims: Claims | null): Promise<Person[]> {
      const identity = await whoAsks(claims)
      demandSomebody(identity)
      demandUnbound(identity)
      return people.robots(isAdmin(identity) || identity.kind !== 'user' ? null : identity.userId)
    },

    /** Adds a robot that the asker manages; the command line's is managed by administrators. */
    async addRobot(name: string, claims: Claims | null): Promise<Person> {
      const identity = await whoAsks(claims)
      demandPower(identity)
      if (!rules.userCollections && !manages(identity))
        throw new RegistryError(
          'denied',
          'Only staff and administrators make robots here: ask one of them.',
          { subject: 'user' },
        )
      const managerId = identity.kind === 'user' ? identity.userId : null
      return people.add(
        {
          id: ids.next(),
          entityId: ids.next(),
          name: checkName('user', name),
          role: 'robot',
          managerId,
        },
        actorOf(identity, clock),
      )
    },

    /** Ends a robot and its tokens, by its manager or an administrator. */
    async removeRobot(name: string, claims: Claims | null): Promise<void> {
      const { identity, value } = await account(name, claims)
      demandPower(identity)
      const isRobot = value !== null && value.role === 'robot' && value.deletedAt === null
      if (!isRobot || !isTheirs(identity, value))
        throw new RegistryError('not_found', 'There is no such robot here.', { subject: 'user' })
      await remove(value, null, identity)
    },

    /** Gives an entity with everything in it to another person, by its owner or an administrator. */
    async transfer(entity: string, to: string, claims: Claims | null): Promise<void> {
      const { identity, value } = await look(
        catalog.findEntity(entity, claims, clock.now()),
        claims,
      )
      demandPower(identity)
      if (value === null) throw absent('entity')
      const facts = entityFacts(identity, value.entity, value.below.ids.length > 0)
      const owns = facts.level === 3
      if (!owns && decide(identity, 'see', facts) !== 'allow') throw absent('entity')
      if (!owns && !isAdmin(identity))
        throw new RegistryError(
          'denied',
          `You may not give ${entity} away: only its owner and administrators may.`,
          { subject: 'entity' },
        )
      const receiving = await receiver(to, claims)
      const from = value.entity.ownerId
      if (receiving.id === from)
        throw new RegistryError('conflict', `${entity} belongs to ${to} already.`, {
          subject: 'entity',
        })
      const change = { entityId: value.entity.id, from, to: receiving.id }
      await people.transfer(change, actorOf(identity, clock))
    },
  }
}

/** May manage what is their own: an unbound token with the scope `admin`, of a person. */
const hasPower = (identity: Identity): boolean =>
  identity.kind === 'operator' || (identity.kind === 'user' && identity.scopes.includes('admin'))

function demandSomebody(identity: Identity): void {
  if (identity.kind === 'anonymous')
    throw new RegistryError(
      'unauthenticated',
      'This needs a token: log in first, for example with apptainer remote login.',
      { subject: 'token' },
    )
}

function demandPower(identity: Identity): void {
  demandSomebody(identity)
  demandUnbound(identity)
  if (hasPower(identity)) return
  const robot = identity.kind === 'user' && identity.role === 'robot'
  throw new RegistryError(
    'denied',
    robot
      ? 'A robot manages nothing.'
      : 'Your token lacks the scope "admin"; create one that has it with sreg-lite token create.',
    { subject: 'token' },
  )
}

function demandUnbound(identity: Identity): void {
  if (identity.kind === 'user' && identity.collectionId !== '')
    throw new RegistryError('denied', 'Your token is bound to a place, so it manages nothing.', {
      subject: 'token',
    })
}

function demandAdmin(identity: Identity): void {
  demandSomebody(identity)
  if (isAdmin(identity)) return
  demandPower(identity)
  throw new RegistryError(
    'denied',
    'You may not administer this registry: only administrators may.',
    { subject: 'user' },
  )
}

const noUser = (identity: Identity, name: string) =>
  isAdmin(identity)
    ? new RegistryError(
        'not_found',
        `There is no user ${name}; add one with sreg-lite user add ${name}.`,
        { subject: 'user' },
      )
    : absent('user')

const sayWhose = () =>
  new RegistryError('invalid', 'Say whose token it is: the command line has none of its own.', {
    subject: 'user',
  })
