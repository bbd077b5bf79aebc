/** Teams over HTTP, and the invitations into them. */
import type { Team } from '../core/model.ts'
import type { Teams } from '../core/teams.ts'
import { readJson } from '../http/body.ts'
import type { Ctx } from '../http/context.ts'
import { data } from '../http/json-resp.ts'
import type { Transfer } from '../http/transfer.ts'
import { acceptance, changedTeam, member, newInvitation, newTeam } from './requests.ts'

const teamJson = ({ name, description, open, role, createdAt }: Team) => ({
  name,
  description,
  open,
  role,
  createdAt,
})

export function teamHandlers({ teams, transfer }: { teams: Teams; transfer: Transfer }) {
  const claims = (c: Ctx) => c.get('claims')
  const nameOf = (c: Ctx) => c.req.param('name') ?? ''
  const userOf = (c: Ctx) => c.req.param('user') ?? ''

  return {
    async list(c: Ctx): Promise<Response> {
      return data((await teams.list(claims(c))).map(teamJson))
    },

    /** `members` is null for who sees an open team from outside. */
    async show(c: Ctx): Promise<Response> {
      const { team, members } = await teams.show(nameOf(c), claims(c))
      return data({ ...teamJson(team), members })
    },

    async create(c: Ctx): Promise<Response> {
      const body = await readJson(c, transfer, newTeam)
      const { name, description = '', open = false, owner = null } = body
      await teams.create({ name, description, open, owner }, claims(c))
      return data({ name, description, open })
    },

    async change(c: Ctx): Promise<Response> {
      const { description = null, open = null } = await readJson(c, transfer, changedTeam)
      await teams.change(nameOf(c), { description, open }, claims(c))
      return data({ name: nameOf(c) })
    },

    async delete(c: Ctx): Promise<Response> {
      await teams.delete(nameOf(c), claims(c))
      return data({ name: nameOf(c) })
    },

    async setMember(c: Ctx): Promise<Response> {
      const { owner = false } = await readJson(c, transfer, member)
      await teams.setMember(nameOf(c), userOf(c), owner, claims(c))
      return data({ user: userOf(c), role: owner ? 'owner' : 'member' })
    },

    async removeMember(c: Ctx): Promise<Response> {
      await teams.removeMember(nameOf(c), userOf(c), claims(c))
      return data({ user: userOf(c) })
    },

    async join(c: Ctx): Promise<Response> {
      await teams.join(nameOf(c), claims(c))
      return data({ team: nameOf(c) })
    },

    /** The only answer that ever holds the secret. */
    async invite(c: Ctx): Promise<Response> {
      const { expiresIn } = await readJson(c, transfer, newInvitation)
      const life = expiresIn === undefined ? null : expiresIn * 1000
      return data(await teams.invite(nameOf(c), life, claims(c)))
    },

    async invitations(c: Ctx): Promise<Response> {
      return data(await teams.invitations(nameOf(c), claims(c)))
    },

    async revokeInvitation(c: Ctx): Promise<Response> {
      const id = c.req.param('id') ?? ''
      await teams.revokeInvitation(nameOf(c), id, claims(c))
      return data({ id })
    },

    async accept(c: Ctx): Promise<Response> {
      const { secret } = await readJson(c, transfer, acceptance)
      return data(await teams.accept(secret, claims(c)))
    },
  }
}
