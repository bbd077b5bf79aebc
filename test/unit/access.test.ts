/** Every decision about access, against a table written by hand. */
import { describe, expect, it } from 'vitest'
import {
  authorise,
  decide,
  identify,
  type Action,
  type Decision,
  type Facts,
} from '../../src/core/access.ts'
import {
  ANONYMOUS,
  DEFAULT_SCOPES,
  SCOPES,
  type Claims,
  type Identity,
  type Scope,
  type Standing,
} from '../../src/core/model.ts'
import { isRegistryError } from '../../src/errors.ts'

const OWNER = 'owner-id'

const user = (userId: string, scopes: readonly Scope[]): Identity => ({
  kind: 'user',
  userId,
  userName: 'name',
  tokenId: 'token',
  admin: scopes.includes('admin'),
  scopes,
})

/** The columns of the tables below. */
const IDENTITIES: Record<string, Identity> = {
  anonymous: ANONYMOUS,
  stranger: user('stranger-id', DEFAULT_SCOPES),
  owner: user(OWNER, DEFAULT_SCOPES),
  pull: user(OWNER, ['pull']),
  push: user(OWNER, ['push']),
  delete: user(OWNER, ['delete']),
  keys: user(OWNER, ['keys']),
  admin: user('admin-id', SCOPES),
  bareAdmin: user('admin-id', ['admin']),
}

const FACTS: Record<string, Facts> = {
  public: { subject: 'container', ownerId: OWNER, private: false },
  private: { subject: 'container', ownerId: OWNER, private: true },
  absent: null,
}

const WORDS: Record<string, Decision> = { yes: 'allow', 401: 'challenge', 404: 'hide', 403: 'deny' }

// anonymous, stranger, the owner with the default scopes and with one scope alone, an
// administrator with all scopes and with `admin` alone
const TABLE = `
                    anonymous stranger owner pull push delete keys admin bareAdmin
public  see         yes       yes      yes   yes  yes  yes    yes  yes   yes
public  download    yes       yes      yes   yes  yes  yes    yes  yes   yes
public  create      401       403      yes   403  yes  403    403  yes   403
public  push        401       403      yes   403  yes  403    403  yes   403
public  delete      401       403      yes   403  403  yes    403  yes   403
public  administer  401       403      403   403  403  403    403  yes   yes
private see         404       404      yes   yes  yes  yes    yes  yes   yes
private download    404       404      yes   yes  403  403    403  yes   403
private create      401       404      yes   403  yes  403    403  yes   403
private push        401       404      yes   403  yes  403    403  yes   403
private delete      401       404      yes   403  403  yes    403  yes   403
private administer  401       404      403   403  403  403    403  yes   yes
absent  see         404       404      404   404  404  404    404  404   404
absent  download    404       404      404   404  404  404    404  404   404
absent  create      401       404      404   404  404  404    404  404   404
absent  push        401       404      404   404  404  404    404  404   404
absent  delete      401       404      404   404  404  404    404  404   404
absent  administer  401       404      404   404  404  404    404  404   404
`

const [head = '', ...lines] = TABLE.trim().split('\n')
const columns = head.trim().split(/\s+/)
const rows = lines.map((line) => {
  const [facts = '', action = '', ...words] = line.split(/\s+/)
  return { facts, action: action as Action, words }
})

const codeOf = (work: () => void): string => {
  try {
    work()
    return 'ok'
  } catch (error) {
    if (isRegistryError(error)) return error.code
    throw error
  }
}

describe('decide', () => {
  it('has a row for every action and facts, and a column for every identity', () => {
    expect(columns.toSorted()).toEqual(Object.keys(IDENTITIES).toSorted())
    expect(new Set(rows.map(({ facts, action }) => `${facts} ${action}`)).size).toBe(18)
    for (const { words } of rows) expect(words).toHaveLength(columns.length)
  })

  for (const { facts, action, words } of rows)
    it(`${action} of something ${facts}`, () => {
      const found = columns.map((column) => decide(IDENTITIES[column]!, action, FACTS[facts]!))
      expect(Object.fromEntries(columns.map((column, i) => [column, found[i]]))).toEqual(
        Object.fromEntries(columns.map((column, i) => [column, WORDS[words[i] ?? '']])),
      )
    })

  it('shows nothing private to nobody, even where the owner is empty', () => {
    const facts: Facts = { subject: 'image', ownerId: '', private: true }
    expect(decide(ANONYMOUS, 'see', facts)).toBe('hide')
    expect(decide(ANONYMOUS, 'download', facts)).toBe('hide')
  })
})

describe('authorise', () => {
  const CODES: Record<Decision, string> = {
    allow: 'ok',
    challenge: 'unauthenticated',
    hide: 'not_found',
    deny: 'denied',
  }

  it('throws the code of each decision', () => {
    for (const { facts, action } of rows)
      for (const column of columns) {
        const identity = IDENTITIES[column]!
        const of = FACTS[facts]!
        expect(
          codeOf(() => authorise(identity, action, of)),
          `${column} ${action} ${facts}`,
        ).toBe(CODES[decide(identity, action, of)])
      }
  })

  const caught = (identity: Identity, action: Action, facts: Facts) => {
    try {
      authorise(identity, action, facts, 'owner/c/n')
      return null
    } catch (error) {
      return error as Error
    }
  }

  it('answers alike for what is hidden and for what is not there (R26)', () => {
    const hidden = caught(IDENTITIES.stranger!, 'see', {
      subject: 'image',
      ownerId: OWNER,
      private: true,
    })
    const absent = caught(IDENTITIES.stranger!, 'see', null)
    expect(hidden).toEqual(absent)
    expect(hidden?.message).not.toContain('owner')
  })

  it('names the scope that a token lacks, and whose a thing is not', () => {
    expect(caught(IDENTITIES.pull!, 'push', FACTS.public!)?.message).toContain('"push"')
    const denied = caught(IDENTITIES.stranger!, 'push', FACTS.public!)
    expect(denied?.message).toContain('push to owner/c/n')
    expect(denied?.message).toContain('library://name/...')
  })
})

describe('identify', () => {
  const claims = (scopes: Scope[]): Claims => ({
    tokenId: 'token',
    userId: 'user',
    scopes,
    expiresAt: new Date(0),
  })
  const standing = (role: 'admin' | 'user', scopes: Scope[]): Standing => ({
    userId: 'user',
    userName: 'name',
    role,
    scopes,
  })

  it('takes nobody for anonymous, whatever stands', () => {
    expect(identify(null, null)).toEqual(ANONYMOUS)
    expect(identify(null, standing('admin', [...SCOPES]))).toEqual(ANONYMOUS)
  })

  it('refuses a token whose row does not stand (R14)', () => {
    expect(codeOf(() => identify(claims([...SCOPES]), null))).toBe('unauthenticated')
  })

  // JWT ∩ row ∩ role, by hand
  const CASES: [Scope[], 'admin' | 'user', Scope[], Scope[]][] = [
    [['pull', 'push'], 'user', ['pull', 'push'], ['pull', 'push']],
    [['pull', 'push'], 'user', ['pull'], ['pull']],
    [['pull'], 'user', ['pull', 'push'], ['pull']],
    [['pull'], 'user', ['push'], []],
    [[], 'admin', [...SCOPES], []],
    [[...SCOPES], 'admin', [], []],
    [[...SCOPES], 'user', [...SCOPES], [...DEFAULT_SCOPES]],
    [[...SCOPES], 'admin', [...SCOPES], [...SCOPES]],
    [[...DEFAULT_SCOPES], 'admin', [...SCOPES], [...DEFAULT_SCOPES]],
    [[...SCOPES], 'admin', [...DEFAULT_SCOPES], [...DEFAULT_SCOPES]],
    [['admin'], 'admin', ['admin'], ['admin']],
  ]
  for (const [jwt, role, row, effective] of CASES)
    it(`JWT [${jwt.join(' ')}], ${role}, row [${row.join(' ')}] (R14)`, () => {
      expect(identify(claims(jwt), standing(role, row))).toEqual({
        kind: 'user',
        userId: 'user',
        userName: 'name',
        tokenId: 'token',
        admin: effective.includes('admin'),
        scopes: effective,
      })
    })
})
