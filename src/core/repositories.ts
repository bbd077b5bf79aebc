/**
 * OCI repositories: a name of any depth is a container of the catalog, made on the first push to it as
 * the library's push makes one (docs/oci.md).
 */
import { RegistryError } from '../errors.ts'
import type { Clock, Database, RepositoryPath, Seen, Viewer, Writer } from '../ports.ts'
import { absent, identify, type Access, type Action } from './access.ts'
import { factsOfContainer, nameOf, writerOf, type Catalog } from './catalog.ts'
import type { Claims, Container, Identity } from './model.ts'
import { checkName, isId, quote } from './names.ts'

/** Longest name of a repository in characters. */
const LONGEST = 255
const COMPONENT = /^[a-z0-9]+(?:(?:__|[._]|-+)[a-z0-9]+)*$/
const TAG = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/
const DIGEST = /^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/

export type Repositories = ReturnType<typeof createRepositories>

/**
 * Where a repository of that name lies (distribution-spec, "Pulling manifests"): `n` is
 * `library/default/n`, `e/n` is `e/default/n`; of deeper names the container has all that is left, with
 * slashes that the library's grammar does not know. The first component has the library's grammar and
 * is none of its reserved words. `invalid` for everything else.
 */
export function parseRepository(name: string): RepositoryPath {
  const parts = name.split('/')
  const [first = '', second = '', ...rest] = parts
  if (name.length > LONGEST || !parts.every((part) => COMPONENT.test(part)))
    throw new RegistryError(
      'invalid',
      `The repository name ${quote(name)} is not allowed: use lower-case letters and digits, with dots, dashes or underscores between them, and slashes between components.`,
      { subject: 'name' },
    )
  if (parts.some(isId))
    throw new RegistryError(
      'invalid',
      `The repository name ${quote(name)} is not allowed: 24 hex digits would read as an id.`,
      { subject: 'name' },
    )
  try {
    checkName('entity', first)
  } catch (error) {
    if (error instanceof RegistryError)
      throw new RegistryError('invalid', error.message, { subject: 'name' })
    throw error
  }
  if (parts.length === 1) return { entity: 'library', collection: 'default', container: first }
  if (parts.length === 2) return { entity: first, collection: 'default', container: second }
  return { entity: first, collection: second, container: rest.join('/') }
}

/** Whether a collection, or with slashes a container, may be called so by OCI. */
export const isOciName = (text: string, { deep }: { deep: boolean }): boolean =>
  text.length <= LONGEST &&
  (deep ? text.split('/') : [text]).every((part) => COMPONENT.test(part) && !isId(part))

export const isDigest = (text: string): boolean => DIGEST.test(text)

/** The path as `parseRepository` takes it: `entity/collection/container`. */
export const placeOf = ({ entity, collection, container }: RepositoryPath): string =>
  `${entity}/${collection}/${container}`

export const isTag = (text: string): boolean => TAG.test(text)

/** Returns a digest, `sha256:` or `sha512:` and hex digits; `digest_mismatch` for all others. */
export function checkDigest(text: string): string {
  if (isDigest(text)) return text
  throw new RegistryError(
    'digest_mismatch',
    `The digest ${quote(text)} does not work here: use sha256: or sha512: and lower-case hex digits.`,
    { subject: 'blob' },
  )
}

/** The algorithm of a digest and its hex digits. */
export function partsOfDigest(digest: string): { algorithm: 'sha256' | 'sha512'; hex: string } {
  const [algorithm, hex = ''] = digest.split(':')
  return { algorithm: algorithm === 'sha512' ? 'sha512' : 'sha256', hex }
}

export function createRepositories(deps: {
  database: Database
  clock: Clock
  access: Access
  catalog: Catalog
}) {
  const { database, clock, access, catalog } = deps
  const { manifests } = database
  /** What is there is named by OCI's grammar, which `parseRepository` has asked. */
  const asItIs = (_kind: string, name: string) => name

  /** The container, if the asker may do this with it. Nobody learns from it whether what is hidden exists (R31). */
  function admit(
    identity: Identity,
    action: Action,
    container: Container | null,
    name = '',
  ): Container {
    const facts = container === null ? null : factsOfContainer(container)
    if (identity.kind === 'anonymous' && access.decide(identity, action, facts) !== 'allow')
      throw new RegistryError('unauthenticated', 'This needs a token: log in first.', {
        subject: 'token',
      })
    access.authorise(identity, action, facts, name, 'container')
    if (container === null) throw absent('container')
    return container
  }

  return {
    admit,

    /** Reads with the claims as viewer, and admits the asker to what is found. */
    async seen<T extends { container: Container }>(
      claims: Claims | null,
      action: Action,
      read: (viewer: Viewer, now: Date) => Promise<Seen<T | null>>,
    ): Promise<T & { identity: Identity }> {
      const { standing, value } = await read(claims, clock.now())
      const identity = identify(claims, standing)
      admit(
        identity,
        action,
        value?.container ?? null,
        value === null ? '' : nameOf(value.container),
      )
      if (value === null) throw absent('container')
      return { ...value, identity }
    },

    /**
     * The repository for a push, made where it is not there. Who may not is refused with the words for
     * the parent, whatever it has in it (R26).
     */
    async pushed(
      path: RepositoryPath,
      claims: Claims | null,
    ): Promise<{ container: Container; writer: Writer; identity: Identity }> {
      const { standing, value } = await manifests.repository(path, claims, clock.now())
      const identity = identify(claims, standing)
      const facts = value === null ? null : factsOfContainer(value)
      const decision = access.decide(identity, 'push', facts)
      const hidden = value === null || decision === 'challenge' || decision === 'hide'
      const container = hidden ? await made(path, claims, identity) : value
      admit(identity, 'push', container, nameOf(container))
      return { container, writer: writerOf(identity, clock), identity }
    },
  }

  async function made(
    path: RepositoryPath,
    claims: Claims | null,
    identity: Identity,
  ): Promise<Container> {
    if (identity.kind === 'anonymous') admit(identity, 'push', null)
    const { entity, collection, container } = path
    const description = ''
    const inEntity =
      (await orAbsent(catalog.entity(entity, claims)))?.entity ??
      (await catalog.createEntity({ name: entity, description }, claims))
    const inCollection =
      (await orAbsent(catalog.collection(entity, collection, claims)))?.collection ??
      (await catalog.createCollection(
        { name: collection, description, entity: inEntity.id, private: false },
        claims,
        asItIs,
      ))
    return catalog.createContainer(
      { name: container, description, collection: inCollection.id, private: false },
      claims,
      asItIs,
    )
  }
}

async function orAbsent<T>(work: Promise<T>): Promise<T | null> {
  try {
    return await work
  } catch (error) {
    if (error instanceof RegistryError && error.code === 'not_found') return null
    throw error
  }
}
