/**
 * What administrators may do: users, tokens, privacy. The command line calls these, where whoever can
 * write the data folder is trusted (integrity.md, actors); over HTTP, src/manage asks first who it is.
 */
import { createAccess, DEFAULT_RULES, operatorClaims } from './core/access.ts'
import { sha256Hex } from './core/digest.ts'
import {
  DEFAULT_LIFE_MS,
  DEFAULT_SCOPES,
  type Policy,
  type Scope,
  type User,
} from './core/model.ts'
import { checkName, isId } from './core/names.ts'
import { createPolicies } from './core/policies.ts'
import type { TokenIssuer } from './core/tokens.ts'
import { RegistryError } from './errors.ts'
import type { Actor, Clock, Database, Ids, NewToken } from './ports.ts'

export * from './core/archive.ts'
export { createAccess, DEFAULT_RULES, operatorClaims } from './core/access.ts'
export { createKeyring } from './core/keyring.ts'
export { createExports, createImports } from './core/moving.ts'
export { foreignVerifier, verifierOf } from './core/issuers.ts'
export { tokenIssuer, tokenVerifier, type TokenIssuer } from './core/tokens.ts'

/** Every scope, for the first administrator (R19). */
const ALL_SCOPES: Scope[] = [...DEFAULT_SCOPES, 'admin']
const FIRST_ADMIN = 'admin'
const FIRST_ADMIN_MS = 24 * 3_600_000

export type Admin = ReturnType<typeof createAdmin>

export function createAdmin(deps: {
  database: Database
  ids: Ids
  clock: Clock
  issuer: TokenIssuer
  /** Milliseconds that a token may live at most. */
  tokenMaxAge?: number
  /** Who makes changes where nobody is named, as the audit log calls them. */
  operator?: string
}) {
  const { database, ids, clock, issuer, tokenMaxAge = Infinity, operator = 'server' } = deps
  const nobody = (): Actor => ({ operator, now: clock.now() })
  const policies = createPolicies({ ...deps, access: createAccess(DEFAULT_RULES) })

  const within = (end: Date) =>
    new Date(Math.min(end.getTime(), clock.now().getTime() + tokenMaxAge))

  async function userNamed(name: string): Promise<User> {
    const user = await database.users.byName(checkName('user', name))
    if (user === null)
      throw new RegistryError(
        'not_found',
        `There is no user ${name}; add one with sreg-lite user add ${name}.`,
        { subject: 'user' },
      )
    return user
  }

  const draft = (name: string, role: User['role']) => ({
    id: ids.next(),
    entityId: ids.next(),
    name: checkName('user', name),
    role,
    disabled: false,
    createdAt: clock.now(),
  })

  async function issue(row: NewToken): Promise<{ id: string; jwt: string; expiresAt: Date }> {
    const { id, createdAt: issuedAt, ...token } = row
    return {
      id,
      jwt: await issuer.issue({ ...token, tokenId: id, issuedAt }),
      expiresAt: row.expiresAt,
    }
  }

  /** `expires: null` is a year from now, `scopes: null` the default set. */
  async function createToken(
    token: {
      user: string
      name: string
      expires: Date | null
      scopes: Scope[] | null
    },
    by: Actor = nobody(),
  ): Promise<{ id: string; jwt: string; expiresAt: Date }> {
    const user = await userNamed(token.user)
    const scopes = token.scopes ?? [...DEFAULT_SCOPES]
    if (scopes.includes('admin') && user.role === 'robot')
      throw new RegistryError(
        'denied',
        'A robot manages nothing, so its token cannot have the scope "admin".',
        { subject: 'token' },
      )
    const createdAt = clock.now()
    const row = {
      id: ids.next(),
      userId: user.id,
      name: token.name.slice(0, 200),
      scopes,
      createdAt,
      expiresAt: within(token.expires ?? new Date(createdAt.getTime() + DEFAULT_LIFE_MS)),
    }
    await database.tokens.insert(row, by)
    return issue(row)
  }

  return {
    createToken,

    /** Adds a user, who owns the entity of the same name. `conflict` when the name is taken. */
    async addUser(name: string, options: { admin: boolean }, by: Actor = nobody()): Promise<User> {
      const { created, user } = await database.users.create(
        draft(name, options.admin ? 'admin' : 'user'),
        by,
      )
      if (!created)
        throw new RegistryError('conflict', `There is a user ${user.name} already.`, {
          subject: 'user',
        })
      return user
    },

    listUsers: () => database.users.list(),

    /** Ends a token at once, its running downloads included (R25). Twice is success. */
    async revokeToken(id: string, by: Actor = nobody()): Promise<void> {
      if (!isId(id) || !(await database.tokens.revoke(id, by)))
        throw new RegistryError('not_found', 'There is no token of that id; see token list.', {
          subject: 'token',
        })
    },

    /** What entity/collection asks of signatures. */
    policy: (ref: string) => policies.show(ref, operatorClaims(operator)),
    setPolicy: (ref: string, policy: Policy) => policies.set(ref, policy, operatorClaims(operator)),

    /**
     * Makes the first administrator and a token with every scope for 24 hours, in one guarded
     * statement (R19); null when there is an administrator already.
     */
    async firstAdmin(): Promise<{ user: string; jwt: string; expiresAt: Date } | null> {
      if (!(await database.users.createFirstAdmin(draft(FIRST_ADMIN, 'admin'), nobody())))
        return null
      const expires = new Date(clock.now().getTime() + FIRST_ADMIN_MS)
      const { jwt, expiresAt } = await createToken({
        user: FIRST_ADMIN,
        name: 'first admin token',
        expires,
        scopes: ALL_SCOPES,
      })
      return { user: FIRST_ADMIN, jwt, expiresAt }
    },

    /**
     * An administrator's token with every scope for whoever knows the setup secret, and the first
     * administrator if there is none; null when this secret was used before (R19).
     */
    async claimAdmin(
      secret: string,
      expiresAt: Date,
      address: string | null,
    ): Promise<{ user: User; id: string; jwt: string; expiresAt: Date } | null> {
      const token = {
        id: ids.next(),
        name: 'setup secret',
        scopes: ALL_SCOPES,
        createdAt: clock.now(),
        expiresAt: within(expiresAt),
      }
      const first = draft(FIRST_ADMIN, 'admin')
      const claim = `setup_secret:${sha256Hex(secret)}`
      const user = await database.users.claimAdmin(claim, first, token, {
        operator: 'setup secret',
        address,
        now: clock.now(),
      })
      return user === null ? null : { user, ...(await issue({ ...token, userId: user.id })) }
    },
  }
}
