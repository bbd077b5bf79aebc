/** What collections ask of signatures (R17): shown to who may see them, set by who owns them. */
import { RegistryError } from '../errors.ts'
import type { Clock, Database } from '../ports.ts'
import { absent, identify, type Access } from './access.ts'
import { actorOf, collectionFacts } from './catalog.ts'
import { MAX_POLICY_KEYS, type Claims, type Policy } from './model.ts'
import { parsePath } from './ref.ts'

export type Policies = ReturnType<typeof createPolicies>

export function createPolicies(deps: { database: Database; clock: Clock; access: Access }) {
  const { database, clock } = deps
  const { authorise } = deps.access
  /** The collection of `entity/collection`, for somebody who may do that with it. */
  async function find(ref: string, action: 'see' | 'set the policy of', claims: Claims | null) {
    const [entity = '', name = ''] = parsePath(ref, 2)
    const found = await database.catalog.findCollection(entity, name, claims, clock.now())
    const identity = identify(claims, found.standing)
    const collection = found.value?.collection ?? null
    const facts = collection === null ? null : collectionFacts(collection)
    const shown = `the collection ${entity}/${name}`
    authorise(identity, action, facts, shown, 'collection')
    if (collection === null) throw absent('collection')
    return { collection, identity }
  }

  return {
    async show(ref: string, claims: Claims | null): Promise<Policy> {
      return (await find(ref, 'see', claims)).collection.policy
    },

    /** What is stored stays visible; from now on pushes and tags must meet it. */
    async set(ref: string, policy: Policy, claims: Claims | null): Promise<Policy> {
      const fingerprints = [...new Set(policy.fingerprints.map(fingerprintOf))]
      if (fingerprints.length > MAX_POLICY_KEYS)
        throw new RegistryError('invalid', `A policy lists at most ${MAX_POLICY_KEYS} keys.`)
      const { collection, identity } = await find(ref, 'set the policy of', claims)
      const set = { mode: policy.mode, fingerprints }
      await database.signatures.setPolicy({
        collectionId: collection.id,
        policy: set,
        by: actorOf(identity, clock),
      })
      return set
    },
  }
}

/** A whole fingerprint, written as people and gpg write it. */
function fingerprintOf(text: string): string {
  const fingerprint = text.replaceAll(/\s|^0x/gi, '').toUpperCase()
  if (!/^(?:[0-9A-F]{40}|[0-9A-F]{64})$/.test(fingerprint))
    throw new RegistryError(
      'invalid',
      `"${text.slice(0, 80)}" is no fingerprint: it takes all 40 (or 64) hex digits of the primary key.`,
      { subject: 'key' },
    )
  return fingerprint
}
