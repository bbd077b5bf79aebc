/**
 * The one decision in front of every read and write. Facts come from the same statement as the
 * object; nothing else in the registry compares owners, roles, scopes or privacy.
 */
import { RegistryError, type ErrorSubject } from '../errors.ts'
import { ANONYMOUS, type Claims, type Identity, type Scope, type Standing } from './model.ts'

/**
 * `see` a record, `download` bytes, `create` something inside, `push` bytes or tags, `delete`,
 * or do what only administrators may (`administer`).
 */
export type Action =
  | 'see'
  | 'download'
  | 'create'
  | 'push'
  | 'delete'
  | 'set the policy of'
  | 'administer'

/** What access depends on; null is a thing that does not exist. */
export type Facts = { subject: ErrorSubject; ownerId: string; private: boolean } | null

export type Decision = 'allow' | 'challenge' | 'hide' | 'deny'

const SCOPE: Record<Exclude<Action, 'see'>, Scope> = {
  download: 'pull',
  create: 'push',
  push: 'push',
  delete: 'delete',
  // a token that only pushes must not lift what its pushes have to meet (R17)
  'set the policy of': 'keys',
  administer: 'admin',
}

/**
 * Who asks: claims of a verified token count only with their row (R14). Effective scopes are
 * JWT ∩ row ∩ role. A token whose row is gone, revoked or expired is `unauthenticated`.
 */
export function identify(claims: Claims | null, standing: Standing | null): Identity {
  if (claims === null) return ANONYMOUS
  if (standing === null)
    throw new RegistryError(
      'unauthenticated',
      'This token has been revoked or has expired; get a new one and log in again.',
      { subject: 'token' },
    )
  const admin = standing.role === 'admin'
  const scopes = claims.scopes.filter(
    (scope) => standing.scopes.includes(scope) && (scope !== 'admin' || admin),
  )
  return {
    kind: 'user',
    userId: standing.userId,
    userName: standing.userName,
    tokenId: claims.tokenId,
    admin: scopes.includes('admin'),
    scopes,
  }
}

/**
 * allow: go on. challenge (401): nobody asked for something that needs somebody. hide (404): it
 * does not exist for the asker, and looks exactly as if it did not (R26). deny (403): visible, but
 * not to be changed by the asker.
 */
export function decide(identity: Identity, action: Action, facts: Facts): Decision {
  if (identity.kind === 'anonymous' && action !== 'see' && action !== 'download') return 'challenge'
  if (facts === null) return 'hide'
  const owns = identity.kind === 'user' && (identity.admin || identity.userId === facts.ownerId)
  const visible = !facts.private || owns
  if (!visible) return 'hide'
  switch (action) {
    case 'see':
      return 'allow'
    case 'download':
      return !facts.private || hasScope(identity, 'pull') ? 'allow' : 'deny'
    case 'create':
    case 'push':
    case 'delete':
    case 'set the policy of':
      return owns && hasScope(identity, SCOPE[action]) ? 'allow' : 'deny'
    case 'administer':
      return identity.kind === 'user' && identity.admin ? 'allow' : 'deny'
  }
}

/**
 * Like `decide`, but throws what is not allowed, with a sentence for the terminal. `subject` is what
 * was looked for: something hidden and something that does not exist must be called the same (R26).
 */
export function authorise(
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
  const what = name === '' ? `this ${subject}` : name
  const elsewhere =
    identity.kind === 'user' && (action === 'create' || action === 'push')
      ? `Push to your own entity (library://${identity.userName}/...), or ask`
      : 'Ask'
  const scope = action === 'see' ? null : SCOPE[action]
  throw new RegistryError(
    'denied',
    identity.kind === 'user' && scope !== null && !identity.scopes.includes(scope)
      ? `Your token lacks the scope "${scope}"; create one that has it with sreg-lite token create.`
      : `You may not ${VERB[action]} ${what}: it belongs to somebody else. ${elsewhere} its owner or an administrator.`,
    { subject },
  )
}

/** What the operator says of the keystore: who may look keys up, and who may add them. */
export type KeystorePolicy = { read: 'public' | 'token'; add: 'token' | 'anyone' }

export type KeyAction = 'look up' | 'add' | 'claim' | 'remove'

/**
 * The one decision in front of the keystore; throws what is not allowed, with a sentence for the
 * terminal. `ownerId` is that of the key that is meant, null when it is nobody's: adding one proves
 * nothing, so who has added it may not remove it (R46).
 */
export function authoriseKey(
  identity: Identity,
  action: KeyAction,
  policy: KeystorePolicy,
  ownerId: string | null = null,
): void {
  if (action === 'look up' && policy.read === 'public') return
  if (action === 'add' && policy.add === 'anyone') return
  if (identity.kind === 'anonymous')
    throw new RegistryError(
      'unauthenticated',
      action === 'look up'
        ? 'This keystore answers to tokens only: log in first, for example with apptainer remote login.'
        : 'Keys are changed with a token only: log in first, for example with apptainer remote login.',
      { subject: 'token' },
    )
  if (action === 'look up' || (action === 'remove' && identity.admin)) return
  if (!hasScope(identity, 'keys'))
    throw new RegistryError(
      'denied',
      'Your token lacks the scope "keys"; create one that has it with sreg-lite token create.',
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

/** The one answer for things that are not there and things that are not to be seen (R26). */
export function absent(subject: ErrorSubject): RegistryError {
  return new RegistryError('not_found', `There is no such ${subject} here.`, { subject })
}

const VERB: Record<Action, string> = {
  see: 'see',
  download: 'download',
  create: 'create anything in',
  push: 'push to',
  delete: 'delete from',
  'set the policy of': 'set the policy of',
  administer: 'administer',
}

function hasScope(identity: Identity, scope: Scope): boolean {
  return identity.kind === 'user' && identity.scopes.includes(scope)
}
