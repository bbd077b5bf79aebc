/**
 * The one decision in front of every read and write. Facts come from the same statement as the
 * object; nothing else in the registry compares owners, roles, scopes or privacy.
 */
import { RegistryError, type ErrorSubject } from '../errors.ts'
import {
  ANONYMOUS,
  SCOPES,
  type Claims,
  type Identity,
  type Level,
  type Scope,
  type Standing,
  type Team,
} from './model.ts'

/**
 * `see` a record, `download` bytes, `found` a collection in an entity, `create` something inside,
 * `push` bytes or tags, `delete`, `oversee` (see what its owner sees: quota, usage, links), `star`,
 * `share` by a link, `set the policy of` a collection, `manage` (who may do what, privacy, freezing,
 * links), or do what only administrators may (`administer`).
 */
export type Action =
  | 'see'
  | 'download'
  | 'found'
  | 'create'
  | 'push'
  | 'delete'
  | 'set the policy of'
  | 'oversee'
  | 'star'
  | 'share'
  | 'manage'
  | 'administer'

/**
 * What access depends on; null is a thing that does not exist. `level` is what the asker may do there
 * apart from their role; the ids say whether a bound token reaches it, and are absent for what is
 * above (an entity has neither, a collection no container).
 */
export type Facts = {
  subject: ErrorSubject
  level: Level
  private: boolean
  collectionId?: string
  containerId?: string
} | null

/** What the operator says about everything (SREG_* of docs/access.md). */
export type Rules = Readonly<{
  /** No pushes, deletes or key adds. */
  readOnly: boolean
  /** Without it, who has no token sees nothing. */
  anonymousPull: boolean
  /** Ordinary users may make collections in their entity, and teams. */
  userCollections: boolean
  /** Collections in the entity of an ordinary user; null is no limit. */
  userCollectionLimit: number | null
  /** New collections are private unless said otherwise. */
  defaultPrivate: boolean
  /** Nothing is, or can be made, public from now on. */
  privateOnly: boolean
}>

export const DEFAULT_RULES: Rules = {
  readOnly: false,
  anonymousPull: true,
  userCollections: true,
  userCollectionLimit: null,
  defaultPrivate: false,
  privateOnly: false,
}

export type Decision = 'allow' | 'challenge' | 'hide' | 'deny'

/** Scope and level that an action takes; `see` takes no scope. */
const NEEDS: Record<Exclude<Action, 'see' | 'download' | 'administer'>, [Scope, Level]> = {
  found: ['push', 3],
  create: ['push', 2],
  push: ['push', 2],
  delete: ['delete', 3],
  // a token that only pushes must not lift what its pushes have to meet (R17)
  'set the policy of': ['keys', 3],
  oversee: ['pull', 3],
  star: ['pull', 0],
  // A link gives bytes away: who may only read there has no say in that, and a token that only pulls
  // must not outlive itself by one. Owners' tokens do without `admin`, as with what they push (R61).
  share: ['push', 2],
  manage: ['admin', 3],
}
const scopeOf = (action: Action): Scope | null =>
  action === 'see'
    ? null
    : action === 'download'
      ? 'pull'
      : action === 'administer'
        ? 'admin'
        : NEEDS[action][0]

/** What a registry that is read-only refuses. */
const CHANGES: readonly Action[] = ['found', 'create', 'push', 'delete', 'star', 'share']

/**
 * Who asks: claims of a verified token count only with their row (R14). Effective scopes are
 * JWT ∩ row ∩ role: a robot never has `admin`, and a bound token does not either. A token whose row is
 * gone, revoked or expired is `unauthenticated`.
 */
export function identify(claims: Claims | null, standing: Standing | null): Identity {
  if (claims === null) return ANONYMOUS
  if (claims.operator !== undefined) return { kind: 'operator', name: claims.operator }
  if (standing === null)
    throw new RegistryError(
      'unauthenticated',
      'This token has been revoked or has expired; get a new one and log in again.',
      { subject: 'token' },
    )
  const { userId, userName, role, collectionId, containerId } = standing
  const mayManage = role !== 'robot' && collectionId === ''
  const scopes = claims.scopes.filter(
    (scope) => standing.scopes.includes(scope) && (scope !== 'admin' || mayManage),
  )
  const power = scopes.includes('admin')
  return {
    kind: 'user',
    userId,
    userName,
    tokenId: claims.tokenId,
    role,
    admin: power && role === 'admin',
    manages: power && (role === 'admin' || role === 'staff'),
    scopes,
    collectionId,
    containerId,
    address: claims.address ?? null,
  }
}

/** What the asker may do with a thing: their role's power, their level, and the token's binding. */
function levelOf(identity: Identity, facts: NonNullable<Facts>): Level {
  if (identity.kind === 'anonymous') return 0
  if (identity.kind === 'operator') return 3
  const level = identity.manages ? 3 : facts.level
  const { collectionId, containerId } = identity
  if (collectionId === '') return level
  if (facts.collectionId !== collectionId) return 0
  if (containerId === '' || facts.containerId === containerId) return level
  // the collection of the container that it is bound to can be seen: clients walk down to it
  return facts.containerId === undefined && level > 0 ? 1 : 0
}

/** The last moment that JavaScript knows. */
const FOREVER = new Date(8.64e15)

/** Claims of whoever can write the data folder; `name` is `cli:` and theirs. */
export const operatorClaims = (name: string): Claims => ({
  tokenId: '',
  userId: '',
  scopes: SCOPES,
  expiresAt: FOREVER,
  operator: name,
})

/** The one answer for things that are not there and things that are not to be seen (R26). */
export function absent(subject: ErrorSubject): RegistryError {
  return new RegistryError('not_found', `There is no such ${subject} here.`, { subject })
}

export type Access = ReturnType<typeof createAccess>

/** The decision under the operator's rules. */
export function createAccess(rules: Rules) {
  /**
   * allow: go on. challenge (401): nobody asked for something that needs somebody. hide (404): it
   * does not exist for the asker, and looks exactly as if it did not (R26). deny (403): visible, but
   * not to be changed by the asker.
   */
  function decide(identity: Identity, action: Action, facts: Facts): Decision {
    const looks = action === 'see' || action === 'download'
    if (identity.kind === 'anonymous' && !(looks && rules.anonymousPull)) return 'challenge'
    if (facts === null) return 'hide'
    const level = levelOf(identity, facts)
    if (facts.private && level === 0) return 'hide'
    if (rules.readOnly && CHANGES.includes(action)) return 'deny'
    if (action === 'see') return 'allow'
    if (action === 'download')
      return !facts.private || hasScope(identity, 'pull') ? 'allow' : 'deny'
    if (action === 'administer') return isAdmin(identity) ? 'allow' : 'deny'
    if (action === 'found' && !rules.userCollections && !manages(identity)) return 'deny'
    const [scope, needed] = NEEDS[action]
    return level >= needed && hasScope(identity, scope) ? 'allow' : 'deny'
  }

  /**
   * Like `decide`, but throws what is not allowed, with a sentence for the terminal. `subject` is what
   * was looked for: something hidden and something that does not exist must be called the same (R26).
   */
  function authorise(
    identity: Identity,
    action: Action,
    facts: Facts,
    name = '',
    subject: ErrorSubject = facts?.subject ?? 'image',
  ): void {
    const decision = decide(identity, action, facts)
    if (decision === 'allow') return
    if (decision === 'challenge')
      throw new RegistryError(
        'unauthenticated',
        'This needs a token: log in first, for example with apptainer remote login.',
        { subject: 'token' },
      )
    if (decision === 'hide') throw absent(subject)
    throw new RegistryError('denied', whyDenied(identity, action, name || `this ${subject}`), {
      subject,
    })
  }

  function whyDenied(identity: Identity, action: Action, what: string): string {
    if (rules.readOnly && CHANGES.includes(action)) return READ_ONLY
    const scope = scopeOf(action)
    if (identity.kind === 'user' && scope !== null && !identity.scopes.includes(scope))
      return `Your token lacks the scope "${scope}"; create one that has it with sreg-lite token create.`
    if (identity.kind === 'user' && identity.collectionId !== '' && action !== 'administer')
      return `You may not ${VERB[action]} ${what}: your token is bound to another place.`
    if (action === 'found' && !rules.userCollections)
      return 'Only staff and administrators make collections here: ask one of them for a collection that you may push to.'
    const mayPush = action === 'found' || action === 'create' || action === 'push'
    const elsewhere =
      identity.kind === 'user' && identity.role !== 'robot' && mayPush
        ? `Push to your own entity (library://${identity.userName}/...), or ask`
        : 'Ask'
    return `You may not ${VERB[action]} ${what}: it belongs to somebody else. ${elsewhere} its owner or an administrator.`
  }

  /**
   * The one decision in front of the keystore; throws what is not allowed, with a sentence for the
   * terminal. `ownerId` is that of the key that is meant, null when it is nobody's: adding one proves
   * nothing, so who has added it may not remove it (R46).
   */
  function authoriseKey(
    identity: Identity,
    action: KeyAction,
    policy: KeystorePolicy,
    ownerId: string | null = null,
  ): void {
    if (identity.kind === 'operator' || (action === 'look up' && policy.read === 'public')) return
    if (
      rules.readOnly &&
      action !== 'look up' &&
      (identity.kind === 'user' || policy.add === 'anyone')
    )
      throw new RegistryError('denied', READ_ONLY, { subject: 'key' })
    if (action === 'add' && policy.add === 'anyone') return
    if (identity.kind === 'anonymous')
      throw new RegistryError(
        'unauthenticated',
        action === 'look up'
          ? 'This keystore answers to tokens only: log in first, for example with apptainer remote login.'
          : 'Keys are changed with a token only: log in first, for example with apptainer remote login.',
        { subject: 'token' },
      )
    if (action === 'look up') return
    if (action === 'remove' && identity.admin) return
    if (!hasScope(identity, 'keys'))
      throw new RegistryError(
        'denied',
        'Your token lacks the scope "keys"; create one that has it with sreg-lite token create.',
        { subject: 'key' },
      )
    if (identity.collectionId !== '')
      throw new RegistryError(
        'denied',
        'Your token is bound to a collection, so it cannot change keys.',
        { subject: 'key' },
      )
    if (action === 'remove' && ownerId !== identity.userId)
      throw new RegistryError(
        'denied',
        'Only its owner and administrators may remove this key; it is yours when you sign for it (sreg-lite key claim).',
        { subject: 'key' },
      )
  }

  /**
   * The one decision in front of a team, null for one that does not exist; throws what is not allowed.
   * What the token lacks is said first, for that tells nothing of teams (R26).
   */
  function authoriseTeam(
    identity: Identity,
    action: TeamAction,
    team: Pick<Team, 'name' | 'open' | 'role'> | null,
  ): void {
    const denied = (message: string) => new RegistryError('denied', message, { subject: 'team' })
    if (identity.kind === 'anonymous')
      throw new RegistryError(
        'unauthenticated',
        'Teams are shown to people with a token only: log in first.',
        { subject: 'token' },
      )
    const bound = identity.kind === 'user' && identity.collectionId !== ''
    const changes = action === 'found' || action === 'leave' || action === 'own'
    if (changes && !hasScope(identity, 'admin'))
      throw denied(whyDenied(identity, 'manage', 'teams'))
    if (action === 'found') {
      if (rules.userCollections || manages(identity)) return
      throw denied('Only staff and administrators make teams here: ask one of them.')
    }
    const role = bound ? null : (team?.role ?? null)
    if (team === null || !(team.open || role !== null || manages(identity))) throw absent('team')
    if (action === 'own' && role !== 'owner' && !manages(identity))
      throw denied(`Only its owners may do that to the team ${team.name}: ask one of them.`)
    if (action === 'look inside' && role === null && !manages(identity))
      throw denied(`Only its members may look into the team ${team.name}.`)
    if (action === 'join') authorisePerson(identity)
    if (action === 'join' && !team.open && role === null)
      throw denied(`The team ${team.name} takes nobody without an invitation.`)
  }

  /** Into a team go people by themselves, with a token that is not bound; robots are added to it. */
  function authorisePerson(identity: Identity): void {
    if (identity.kind === 'user' && identity.role !== 'robot' && identity.collectionId === '')
      return
    throw new RegistryError(
      identity.kind === 'anonymous' ? 'unauthenticated' : 'denied',
      'Only people join teams by themselves, each with a token of their own that is not bound.',
      { subject: 'token' },
    )
  }

  return { rules, decide, authorise, authoriseKey, authoriseTeam, authorisePerson }
}

const READ_ONLY =
  'This registry is read-only for now (SREG_READ_ONLY): nothing can be pushed, deleted or added; ask its administrator when that ends.'

/** What the operator says of the keystore: who may look keys up, and who may add them. */
export type KeystorePolicy = { read: 'public' | 'token'; add: 'token' | 'anyone' }

/** `own` is all that owners do; members `look inside`, everybody may `see` and `join` an open team. */
export type TeamAction = 'found' | 'see' | 'look inside' | 'join' | 'leave' | 'own'

export type KeyAction = 'look up' | 'add' | 'claim' | 'remove'

/**
 * R14: a token that is made with another one has no more scopes and no longer a life. Throws
 * `denied`, saying which.
 */
export function authoriseToken(
  asking: { scopes: readonly Scope[]; expiresAt: Date },
  wanted: { scopes: readonly Scope[]; expiresAt: Date },
): void {
  const beyond = wanted.scopes.filter((scope) => !asking.scopes.includes(scope))
  if (beyond.length > 0)
    throw new RegistryError(
      'denied',
      `Your token lacks the scope "${beyond.join('", "')}", so it cannot give it to another token.`,
      { subject: 'token' },
    )
  if (wanted.expiresAt > asking.expiresAt)
    throw new RegistryError(
      'denied',
      `Your token ends at ${asking.expiresAt.toISOString()}, and a token that it makes cannot live longer.`,
      { subject: 'token' },
    )
}

const VERB: Record<Action, string> = {
  see: 'see',
  download: 'download',
  found: 'create anything in',
  create: 'create anything in',
  push: 'push to',
  delete: 'delete from',
  'set the policy of': 'set the policy of',
  oversee: 'oversee',
  star: 'give a star to',
  share: 'share',
  manage: 'manage',
  administer: 'administer',
}

function hasScope(identity: Identity, scope: Scope): boolean {
  return (
    identity.kind === 'operator' || (identity.kind === 'user' && identity.scopes.includes(scope))
  )
}

/** May have the bytes of what is private and visible to them, or make copies of them (R8). */
export const mayPull = (identity: Identity): boolean => hasScope(identity, 'pull')

/** May administer: users, everybody's tokens, exports. */
export const isAdmin = (identity: Identity): boolean =>
  identity.kind === 'operator' || (identity.kind === 'user' && identity.admin)

/** Owns every collection and team. */
export const manages = (identity: Identity): boolean =>
  identity.kind === 'operator' || (identity.kind === 'user' && identity.manages)
