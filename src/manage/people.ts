/** Accounts, robots, tokens and transfers over HTTP. Bodies are read before it is asked who asks. */
import type { People } from '../core/people.ts'
import { RegistryError } from '../errors.ts'
import { readJson } from '../http/body.ts'
import type { Ctx } from '../http/context.ts'
import { data } from '../http/json-resp.ts'
import type { Transfer } from '../http/transfer.ts'
import type { Clock, Person } from '../ports.ts'
import { changedUser, newRobot, newToken, newTransfer, newUser } from './requests.ts'

export function peopleHandlers(deps: { people: People; transfer: Transfer; clock: Clock }) {
  const { people, transfer, clock } = deps
  const claims = (c: Ctx) => c.get('claims')
  const nameOf = (c: Ctx) => c.req.param('name') ?? ''

  return {
    async listUsers(c: Ctx): Promise<Response> {
      return data((await people.list(claims(c))).map(record))
    },

    async addUser(c: Ctx): Promise<Response> {
      const { name, role: wanted, admin } = await readJson(c, transfer, newUser)
      const given = wanted ?? (admin === true ? 'admin' : 'user')
      return data(record(await people.add(name, given, claims(c))))
    },

    async showUser(c: Ctx): Promise<Response> {
      return data(record(await people.show(nameOf(c), claims(c))))
    },

    async changeUser(c: Ctx): Promise<Response> {
      const change = await readJson(c, transfer, changedUser)
      return data(record(await people.change(nameOf(c), change, claims(c))))
    },

    /** `?handOver=NAME`, `?remove=true`, or `?free=true` for the name of a deleted account. */
    async removeUser(c: Ctx): Promise<Response> {
      const { handOver, remove, free, ...unknown } = c.req.query()
      const said = [handOver, remove, free].filter((value) => value !== undefined)
      const switches = [remove, free].filter((value) => value !== undefined && value !== 'true')
      if (said.length !== 1 || switches.length > 0 || Object.keys(unknown).length > 0)
        throw new RegistryError(
          'invalid',
          'Say what becomes of what the account owns: ?handOver=NAME or ?remove=true; or ?free=true for the name of a deleted one.',
          { subject: 'request' },
        )
      if (free !== undefined) await people.free(nameOf(c), claims(c))
      else await people.remove(nameOf(c), handOver ?? null, claims(c))
      return data({})
    },

    /** Records only: the tokens themselves are kept nowhere. */
    async listTokens(c: Ctx): Promise<Response> {
      return data(await people.tokens(c.req.param('name') ?? null, claims(c)))
    },

    /** Without a time, a year, the longest that is allowed, or what is left of the asking token. */
    async createToken(c: Ctx): Promise<Response> {
      const body = await readJson(c, transfer, newToken)
      const now = clock.now().getTime()
      let expiresAt: Date | null = null
      if (body.expiresIn !== undefined) expiresAt = new Date(now + body.expiresIn * 1000)
      if (body.expiresAt !== undefined) expiresAt = new Date(body.expiresAt)
      if (expiresAt !== null && expiresAt.getTime() <= now)
        throw new RegistryError('invalid', 'The body does not fit: expiresAt: must lie ahead', {
          subject: 'request',
        })
      const place = body.collection ?? body.container ?? null
      const depth = body.container === undefined ? 2 : 3
      if (place !== null && place.split('/').length !== depth)
        throw new RegistryError(
          'invalid',
          'The body does not fit: collection is entity/collection, container is entity/collection/container',
          { subject: 'request' },
        )
      const draft = {
        user: body.user ?? null,
        name: body.name,
        scopes: body.scopes ?? null,
        expiresAt,
        bindTo: place,
      }
      const { id, jwt: token, ...made } = await people.createToken(draft, claims(c))
      return data({ id, token, ...made })
    },

    async revokeToken(c: Ctx): Promise<Response> {
      const id = c.req.param('id') ?? ''
      await people.revokeToken(id, claims(c))
      return data({ id })
    },

    async listRobots(c: Ctx): Promise<Response> {
      return data((await people.robots(claims(c))).map(record))
    },

    async addRobot(c: Ctx): Promise<Response> {
      const { name } = await readJson(c, transfer, newRobot)
      return data(record(await people.addRobot(name, claims(c))))
    },

    async removeRobot(c: Ctx): Promise<Response> {
      await people.removeRobot(nameOf(c), claims(c))
      return data({})
    },

    async transferEntity(c: Ctx): Promise<Response> {
      const { entity, to } = await readJson(c, transfer, newTransfer)
      await people.transfer(entity, to, claims(c))
      return data({ entity, owner: to })
    },
  }
}

/** What is told of a user. */
export type Shown = Omit<Person, 'manager' | 'deletedAt'> & {
  manager?: string | null
  deletedAt?: Date
}

/** A user as JSON; of a robot also who manages it, of a deleted one also when it was deleted. */
function record({ manager, deletedAt, ...user }: Person): Shown {
  return {
    ...user,
    ...(user.role === 'robot' ? { manager } : {}),
    ...(deletedAt === null ? {} : { deletedAt }),
  }
}
