/** Teams: who is in them, who may come in. Every method asks `authoriseTeam` first. */
import { RegistryError } from '../errors.ts'
import type { Clock, Database, Ids } from '../ports.ts'
import { absent, identify, type Access } from './access.ts'
import { actorOf, writerOf } from './catalog.ts'
import { randomHex, sha256Hex } from './digest.ts'
import type { Claims, Identity, Invitation, Team, TeamMember } from './model.ts'
import { checkName, isId } from './names.ts'

/** Life of an invitation for which nothing else was asked. */
const INVITATION_MS = 7 * 86_400_000
/** 128 bits. */
const SECRET_BYTES = 16
const LONGEST_DESCRIPTION = 4096

export type Teams = ReturnType<typeof createTeams>

export function createTeams(deps: { database: Database; clock: Clock; ids: Ids; access: Access }) {
  const { database, clock, ids } = deps
  const { teams } = database
  const { rules, authoriseTeam, authorisePerson } = deps.access

  async function who(claims: Claims | null): Promise<Identity> {
    const asked = claims === null || claims.operator !== undefined
    const standing = asked ? null : await database.tokens.standing(claims, clock.now())
    return identify(claims, standing)
  }

  /** The team of that name for somebody who may do that with it. */
  async function find(
    name: string,
    action: 'see' | 'look inside' | 'join' | 'leave' | 'own',
    claims: Claims | null,
  ): Promise<{ identity: Identity; team: Team; members: TeamMember[] }> {
    const { standing, value } = await teams.find(checkName('team', name), claims, clock.now())
    const identity = identify(claims, standing)
    authoriseTeam(identity, action, value?.team ?? null)
    if (value === null) throw absent('team')
    return { identity, ...value }
  }

  return {
    /** The teams that the asker sees: theirs, open ones, and for staff and administrators all. */
    async list(claims: Claims | null): Promise<Team[]> {
      const { standing, value } = await teams.list(claims, clock.now())
      const identity = identify(claims, standing)
      if (identity.kind === 'anonymous') authoriseTeam(identity, 'see', null)
      return value
    },

    /** `members` is null for who is none: they see an open team from outside. */
    async show(
      name: string,
      claims: Claims | null,
    ): Promise<{ team: Team; members: TeamMember[] | null }> {
      const { identity, team, members } = await find(name, 'see', claims)
      try {
        authoriseTeam(identity, 'look inside', team)
        return { team, members }
      } catch (error) {
        if (error instanceof RegistryError && error.code === 'denied')
          return { team, members: null }
        throw error
      }
    },

    /** `owner` null is who asks; only staff and administrators name somebody else. */
    async create(
      draft: { name: string; description: string; open: boolean; owner: string | null },
      claims: Claims | null,
    ): Promise<void> {
      const identity = await who(claims)
      authoriseTeam(identity, 'found', null)
      const name = checkName('team', draft.name)
      const self = identity.kind === 'user' ? identity.userName : null
      const owner = draft.owner ?? self
      if (owner === null)
        throw new RegistryError('invalid', 'Say who will own the team: it needs an owner.', {
          subject: 'request',
        })
      const elsewhere = owner !== self && identity.kind === 'user' && !identity.manages
      if (elsewhere)
        throw new RegistryError(
          'denied',
          'Only staff and administrators make teams for somebody else.',
          { subject: 'team' },
        )
      await teams.create({
        id: ids.next(),
        name,
        description: described(draft.description),
        open: draft.open,
        owner,
        anybody: rules.userCollections,
        by: actorOf(identity, clock),
      })
    },

    async change(
      name: string,
      change: { description: string | null; open: boolean | null },
      claims: Claims | null,
    ): Promise<void> {
      const { identity, team } = await find(name, 'own', claims)
      const description = change.description === null ? null : described(change.description)
      const by = actorOf(identity, clock)
      await teams.change({ teamId: team.id, description, open: change.open, by })
    },

    async delete(name: string, claims: Claims | null): Promise<void> {
      const { identity, team } = await find(name, 'own', claims)
      await teams.delete(team.id, actorOf(identity, clock))
    },

    /** Adds a member or an owner, or makes a member what they were not. */
    async setMember(
      name: string,
      user: string,
      owner: boolean,
      claims: Claims | null,
    ): Promise<void> {
      const { identity, team } = await find(name, 'own', claims)
      const by = actorOf(identity, clock)
      await teams.setMember({ teamId: team.id, user: checkName('user', user), owner, by })
    },

    /** Owners remove anybody, members themselves. */
    async removeMember(name: string, user: string, claims: Claims | null): Promise<void> {
      const { identity, team } = await find(name, 'leave', claims)
      const self = identity.kind === 'user' && identity.userName === user && team.role !== null
      if (!self) authoriseTeam(identity, 'own', team)
      const by = actorOf(identity, clock)
      if (!(await teams.removeMember({ teamId: team.id, user: checkName('user', user), by })))
        throw new RegistryError('not_found', `${user} is not in the team ${team.name}.`, {
          subject: 'user',
        })
    },

    async join(name: string, claims: Claims | null): Promise<void> {
      const { identity, team } = await find(name, 'join', claims)
      // a member of a team without open doors is in already
      if (team.role === null) await teams.join(team.id, writerOf(identity, clock))
    },

    /** The secret is shown here once: only its hash is kept. */
    async invite(
      name: string,
      lifeMs: number | null,
      claims: Claims | null,
    ): Promise<{ id: string; secret: string; expiresAt: Date }> {
      const { identity, team } = await find(name, 'own', claims)
      const secret = randomHex(SECRET_BYTES)
      const by = actorOf(identity, clock)
      const expiresAt = new Date(by.now.getTime() + (lifeMs ?? INVITATION_MS))
      const id = ids.next()
      await teams.invite({ id, teamId: team.id, hash: sha256Hex(secret), expiresAt, by })
      return { id, secret, expiresAt }
    },

    async invitations(name: string, claims: Claims | null): Promise<Invitation[]> {
      const { team } = await find(name, 'own', claims)
      return teams.invitations(team.id, clock.now())
    },

    async revokeInvitation(name: string, id: string, claims: Claims | null): Promise<void> {
      const { identity, team } = await find(name, 'own', claims)
      const by = actorOf(identity, clock)
      if (!isId(id) || !(await teams.revokeInvitation({ id, teamId: team.id, by })))
        throw noInvitation()
    },

    /** Comes into the team that the secret is of; every secret that does not work is one 404. */
    async accept(secret: string, claims: Claims | null): Promise<{ team: string }> {
      const identity = await who(claims)
      authorisePerson(identity)
      const team = await teams.accept(sha256Hex(secret), writerOf(identity, clock))
      if (team === null) throw noInvitation()
      return { team }
    },
  }
}

const noInvitation = () =>
  new RegistryError(
    'not_found',
    'This invitation does not work: it was used, was withdrawn, has expired or never was. Ask for a new one.',
    { subject: 'team' },
  )

const described = (text: string) => text.slice(0, LONGEST_DESCRIPTION)
