/** Edits the text of a client's remote.yaml: one remote is set, everything else stays as it stood. */
import { isMap, Pair, parseDocument, Scalar, YAMLMap } from 'yaml'
import { RegistryError } from '../../src/errors.ts'

/** A remote as it is to be stored. `replace` allows a name that now points somewhere else. */
export type Remote = { name: string; url: string; token: string; replace: boolean }

/** The text of a `remote.yaml` with the remote set and active. Errors as of `storeRemote`. */
export function editRemotes(text: string, remote: Remote, path: string): string {
  // Every scalar is read as text, so that what is not ours is written back as it stood.
  const document = parseDocument(text, { schema: 'failsafe', customTags: ['null'] })
  if (document.errors.length > 0) throw unreadable(path, document.errors[0]?.message ?? '')
  if (document.contents === null) document.contents = new YAMLMap() as never
  if (!isMap(document.contents)) throw unreadable(path, 'It is not a mapping.')
  const root: YAMLMap = document.contents
  const remotes = mapAt(root, 'Remotes', path)
  const known = remotes.has(remote.name)
  const entry = mapAt(remotes, remote.name, path)
  if (known) refuseForeign(entry, remote, path)

  entry.set('URI', quoted(remote.url))
  entry.set('Token', quoted(remote.token))
  entry.set('System', 'false')
  entry.set('Exclusive', 'false')
  // The scheme in URI is not looked at: without this the client speaks https.
  if (remote.url.startsWith('http:')) entry.set('Insecure', 'true')
  else entry.delete('Insecure')
  root.set('Active', quoted(remote.name))
  return document.toString({ indent: 4, lineWidth: 0 })
}

/** The mapping under a key, made where there is nothing yet. */
function mapAt(map: YAMLMap, key: string, path: string): YAMLMap {
  const value = map.get(key)
  if (isMap(value) && value.items.length > 0) return value
  if (!isMap(value) && value !== undefined && value !== null) {
    throw unreadable(path, `${key} is no mapping.`)
  }
  const made = new YAMLMap()
  map.delete(key)
  map.add(new Pair(key === 'Remotes' ? key : quoted(key), made))
  return made
}

/** A string that every reader takes for one, whatever it looks like. */
function quoted(text: string): Scalar {
  const scalar = new Scalar(text)
  scalar.type = 'QUOTE_DOUBLE'
  return scalar
}

function refuseForeign(entry: YAMLMap, remote: Remote, path: string): void {
  const { name, url } = remote
  if (entry.get('System') === 'true') {
    throw new RegistryError(
      'conflict',
      `The remote ${name} in ${path} comes from the system's configuration. Choose another name with --name.`,
    )
  }
  const before = entry.get('URI')
  if (remote.replace || typeof before !== 'string' || hostOf(before) === hostOf(url)) return
  throw new RegistryError(
    'conflict',
    `The remote ${name} in ${path} points to ${before}. Choose another name with --name, or replace it with --name ${name}.`,
  )
}

/** Host and port of a URI as clients store it, with or without a scheme. */
function hostOf(uri: string): string {
  return uri.replace(/^(https?:)?\/\//, '').replace(/\/+$/, '')
}

function unreadable(path: string, why: string): RegistryError {
  return new RegistryError(
    'conflict',
    `${path} is no client configuration that could be kept; nothing was changed. ${why}`,
  )
}
