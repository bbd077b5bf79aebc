/** Every decision about access, against a table written by hand. */
import { describe, expect, it } from 'vitest'
import {
  createAccess,
  DEFAULT_RULES,
  identify,
  type Action,
  type Decision,
  type Facts,
  type Rules,
} from '../../src/core/access.ts'
import {
  ANONYMOUS,
  DEFAULT_SCOPES,
  SCOPES,
  type Claims,
  type Identity,
  type Level,
  type Role,
  type Scope,
  type Standing,
} from '../../src/core/model.ts'
import { isRegistryError } from '../../src/errors.ts'

const { decide, authorise } = createAccess(DEFAULT_RULES)

type Who = Extract<Identity, { kind: 'user' }>
const user = (scopes: readonly Scope[], more: Partial<Who> = {}): Identity => ({
  kind: 'user',
  userId: 'id',
  userName: 'name',
  tokenId: 'token',
  role: 'user',
  admin: false,
  manages: false,
  scopes,
  collectionId: '',
  containerId: '',
  address: null,
  ...more,
})

/** The columns of the tables below: who asks, and with which level in the collection. */
const IDENTITIES: Record<string, [Identity, Level]> = {
  anonymous: [ANONYMOUS, 0],
  stranger: [user(SCOPES), 0],
  reader: [user(SCOPES), 1],
  contrib: [user(SCOPES), 2],
  owner: [user(DEFAULT_SCOPES), 3],
  manager: [user(SCOPES), 3],
  pull: [user(['pull']), 3],
  push: [user(['push']), 3],
  delete: [user(['delete']), 3],
  keys: [user(['keys']), 3],
  staff: [user(SCOPES, { role: 'staff', manages: true }), 0],
  admin: [user(SCOPES, { role: 'admin', admin: true, manages: true }), 0],
  bare: [user(['admin'], { role: 'admin', admin: true, manages: true }), 0],
  bound: [user(DEFAULT_SCOPES, { collectionId: 'c' }), 3],
  boundTo: [user(DEFAULT_SCOPES, { collectionId: 'c', containerId: 'n' }), 3],
  astray: [user(DEFAULT_SCOPES, { collectionId: 'other' }), 3],
  beside: [user(DEFAULT_SCOPES, { collectionId: 'c', containerId: 'other' }), 3],
}

type Thing = Omit<NonNullable<Facts>, 'level'> | null
const within = { subject: 'container', collectionId: 'c', containerId: 'n' } as const
const FACTS: Record<string, Thing> = {
  public: { ...within, private: false },
  private: { ...within, private: true },
  // a collection has no container, an entity neither: nothing bound makes anything there
  coll: { subject: 'collection', collectionId: 'c', private: true },
  entity: { subject: 'entity', private: false },
  absent: null,
}
const at = (facts: Thing, level: Level): Facts => (facts === null ? null : { ...facts, level })

const WORDS: Record<string, Decision> = { yes: 'allow', 401: 'challenge', 404: 'hide', 403: 'deny' }

const TABLE = `
                   anonymous stranger reader contrib owner manager pull push delete keys staff admin bare bound boundTo astray beside
public  see        yes       yes      yes    yes     yes   yes     yes  yes  yes    yes  yes   yes   yes  yes   yes     yes    yes
public  download   yes       yes      yes    yes     yes   yes     yes  yes  yes    yes  yes   yes   yes  yes   yes     yes    yes
public  create     401       403      403    yes     yes   yes     403  yes  403    403  yes   yes   403  yes   yes     403    403
public  push       401       403      403    yes     yes   yes     403  yes  403    403  yes   yes   403  yes   yes     403    403
public  delete     401       403      403    403     yes   yes     403  403  yes    403  yes   yes   403  yes   yes     403    403
public  manage     401       403      403    403     403   yes     403  403  403    403  yes   yes   yes  403   403     403    403
public  oversee    401       403      403    403     yes   yes     yes  403  403    403  yes   yes   403  yes   yes     403    403
public  star       401       yes      yes    yes     yes   yes     yes  403  403    403  yes   yes   403  yes   yes     yes    yes
public  share      401       403      403    yes     yes   yes     403  yes  403    403  yes   yes   403  yes   yes     403    403
public  administer 401       403      403    403     403   403     403  403  403    403  403   yes   yes  403   403     403    403
private see        404       404      yes    yes     yes   yes     yes  yes  yes    yes  yes   yes   yes  yes   yes     404    404
private download   404       404      yes    yes     yes   yes     yes  403  403    403  yes   yes   403  yes   yes     404    404
private create     401       404      403    yes     yes   yes     403  yes  403    403  yes   yes   403  yes   yes     404    404
private push       401       404      403    yes     yes   yes     403  yes  403    403  yes   yes   403  yes   yes     404    404
private delete     401       404      403    403     yes   yes     403  403  yes    403  yes   yes   403  yes   yes     404    404
private manage     401       404      403    403     403   yes     403  403  403    403  yes   yes   yes  403   403     404    404
private oversee    401       404      403    403     yes   yes     yes  403  403    403  yes   yes   403  yes   yes     404    404
private star       401       404      yes    yes     yes   yes     yes  403  403    403  yes   yes   403  yes   yes     404    404
private share      401       404      403    yes     yes   yes     403  yes  403    403  yes   yes   403  yes   yes     404    404
private administer 401       404      403    403     403   403     403  403  403    403  403   yes   yes  403   403     404    404
coll    see        404       404      yes    yes     yes   yes     yes  yes  yes    yes  yes   yes   yes  yes   yes     404    yes
coll    create     401       404      403    yes     yes   yes     403  yes  403    403  yes   yes   403  yes   403     404    403
coll    manage     401       404      403    403     403   yes     403  403  403    403  yes   yes   yes  403   403     404    403
entity  see        yes       yes      yes    yes     yes   yes     yes  yes  yes    yes  yes   yes   yes  yes   yes     yes    yes
entity  found      401       403      403    403     yes   yes     403  yes  403    403  yes   yes   403  403   403     403    403
entity  oversee    401       403      403    403     yes   yes     yes  403  403    403  yes   yes   403  403   403     403    403
absent  see        404       404      404    404     404   404     404  404  404    404  404   404   404  404   404     404    404
absent  download   404       404      404    404     404   404     404  404  404    404  404   404   404  404   404     404    404
absent  found      401       404      404    404     404   404     404  404  404    404  404   404   404  404   404     404    404
absent  create     401       404      404    404     404   404     404  404  404    404  404   404   404  404   404     404    404
absent  push       401       404      404    404     404   404     404  404  404    404  404   404   404  404   404     404    404
absent  delete     401       404      404    404     404   404     404  404  404    404  404   404   404  404   404     404    404
absent  manage     401       404      404    404     404   404     404  404  404    404  404   404   404  404   404     404    404
absent  oversee    401       404      404    404     404   404     404  404  404    404  404   404   404  404   404     404    404
absent  star       401       404      404    404     404   404     404  404  404    404  404   404   404  404   404     404    404
absent  share      401       404      404    404     404   404     404  404  404    404  404   404   404  404   404     404    404
absent  administer 401       404      404    404     404   404     404  404  404    404  404   404   404  404   404     404    404
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
    expect(new Set(rows.map(({ facts, action }) => `${facts} ${action}`)).size).toBe(rows.length)
    for (const { words } of rows) expect(words).toHaveLength(columns.length)
  })

  for (const { facts, action, words } of rows)
    it(`${action} of something ${facts}`, () => {
      const found = columns.map((column) => {
        const [identity, level] = IDENTITIES[column]!
        return decide(identity, action, at(FACTS[facts]!, level))
      })
      expect(Object.fromEntries(columns.map((column, i) => [column, found[i]]))).toEqual(
        Object.fromEntries(columns.map((column, i) => [column, WORDS[words[i] ?? '']])),
      )
    })

  it('shows nothing private to nobody, even where the owner is empty', () => {
    const facts: Facts = { subject: 'image', level: 0, private: true }
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
        const [identity, level] = IDENTITIES[column]!
        const of = at(FACTS[facts]!, level)
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
    const hidden = caught(IDENTITIES.stranger![0], 'see', {
      subject: 'image',
      level: 0,
      private: true,
    })
    const absent = caught(IDENTITIES.stranger![0], 'see', null)
    expect(hidden).toEqual(absent)
    expect(hidden?.message).not.toContain('owner')
  })

  it('names the scope that a token lacks, and whose a thing is not', () => {
    expect(caught(IDENTITIES.pull![0], 'push', at(FACTS.public!, 3))?.message).toContain('"push"')
    const denied = caught(IDENTITIES.stranger![0], 'push', at(FACTS.public!, 0))
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
  const standing = (role: Role, scopes: Scope[], collectionId = ''): Standing => ({
    userId: 'user',
    userName: 'name',
    role,
    scopes,
    collectionId,
    containerId: '',
  })

  it('takes nobody for anonymous, whatever stands', () => {
    expect(identify(null, null)).toEqual(ANONYMOUS)
    expect(identify(null, standing('admin', [...SCOPES]))).toEqual(ANONYMOUS)
  })

  it('refuses a token whose row does not stand (R14)', () => {
    expect(codeOf(() => identify(claims([...SCOPES]), null))).toBe('unauthenticated')
  })

  // JWT ∩ row ∩ role, by hand
  const CASES: [Scope[], Role, Scope[], Scope[], bound?: string][] = [
    [['pull', 'push'], 'user', ['pull', 'push'], ['pull', 'push']],
    [['pull', 'push'], 'user', ['pull'], ['pull']],
    [['pull'], 'user', ['pull', 'push'], ['pull']],
    [['pull'], 'user', ['push'], []],
    [[], 'admin', [...SCOPES], []],
    [[...SCOPES], 'admin', [], []],
    [[...SCOPES], 'user', [...SCOPES], [...SCOPES]],
    [[...SCOPES], 'staff', [...SCOPES], [...SCOPES]],
    [[...SCOPES], 'robot', [...SCOPES], [...DEFAULT_SCOPES]],
    [[...SCOPES], 'admin', [...SCOPES], [...DEFAULT_SCOPES], 'c'],
    [[...SCOPES], 'admin', [...SCOPES], [...SCOPES]],
    [[...DEFAULT_SCOPES], 'admin', [...SCOPES], [...DEFAULT_SCOPES]],
    [[...SCOPES], 'admin', [...DEFAULT_SCOPES], [...DEFAULT_SCOPES]],
    [['admin'], 'admin', ['admin'], ['admin']],
  ]
  for (const [jwt, role, row, effective, bound = ''] of CASES)
    it(`JWT [${jwt.join(' ')}], ${role}, row [${row.join(' ')}] ${bound} (R14)`, () => {
      const power = effective.includes('admin')
      expect(identify(claims(jwt), standing(role, row, bound))).toEqual({
        kind: 'user',
        userId: 'user',
        userName: 'name',
        tokenId: 'token',
        role,
        admin: power && role === 'admin',
        manages: power && (role === 'admin' || role === 'staff'),
        scopes: effective,
        collectionId: bound,
        containerId: '',
        address: null,
      })
    })
})

describe('what the operator says of everything', () => {
  const under = (rules: Partial<Rules>) => createAccess({ ...DEFAULT_RULES, ...rules })
  const [owner, level] = IDENTITIES.owner!
  const [admin] = IDENTITIES.admin!

  it('read-only: nobody changes anything, and reads go on', () => {
    const { decide: decideNow } = under({ readOnly: true })
    for (const action of ['found', 'create', 'push', 'delete', 'star', 'share'] as const) {
      expect(decideNow(owner, action, at(FACTS.public!, level))).toBe('deny')
      expect(decideNow(admin, action, at(FACTS.private!, 0))).toBe('deny')
      // what is hidden stays so
      expect(decideNow(IDENTITIES.stranger![0], action, at(FACTS.private!, 0))).toBe('hide')
    }
    expect(decideNow(owner, 'download', at(FACTS.private!, level))).toBe('allow')
    expect(decideNow(admin, 'administer', at(FACTS.public!, 0))).toBe('allow')
    const { authorise: authoriseNow } = under({ readOnly: true })
    expect(() => authoriseNow(owner, 'push', at(FACTS.public!, level))).toThrow(/SREG_READ_ONLY/)
  })

  it('no anonymous pulls: who has no token is asked for one, whatever is there', () => {
    const { decide: decideNow } = under({ anonymousPull: false })
    for (const facts of [at(FACTS.public!, 0), at(FACTS.private!, 0), null])
      for (const action of ['see', 'download'] as const)
        expect(decideNow(ANONYMOUS, action, facts)).toBe('challenge')
  })

  it('no collections of users: staff and administrators found them', () => {
    const { decide: decideNow } = under({ userCollections: false })
    expect(decideNow(owner, 'found', at(FACTS.entity!, 3))).toBe('deny')
    expect(decideNow(owner, 'push', at(FACTS.public!, 3))).toBe('allow')
    expect(decideNow(IDENTITIES.staff![0], 'found', at(FACTS.entity!, 0))).toBe('allow')
  })
})
