/**
 * Writes an endpoint and its token into the client configuration of Apptainer and Singularity,
 * because `apptainer remote add` cannot store a port (apptainer-wire.md §0.1; R59).
 */
import { access, chmod, constants, lstat, mkdir, readFile, realpath, stat } from 'node:fs/promises'
import { basename, delimiter, dirname, join } from 'node:path'
import { isRegistryError, RegistryError } from '../../src/errors.ts'
import type { Clock } from '../../src/ports.ts'
import type { Admin, OpenAdmin } from './cli.ts'
import { absent, replaceFile, SERVER_URL_FILE } from './data-folder.ts'
import type { Remote } from './remote-yaml.ts'

/** Where clients keep their configuration, as the environment tells it. */
export type Surroundings = {
  env: Record<string, string | undefined>
  home: string
}

/** What `connect` was asked to do; `name`, `url` and `user` have defaults of their own. */
export type ConnectOptions = {
  url?: string | undefined
  token?: string | undefined
  /** A path, or `-` for standard input. */
  tokenFile?: string | undefined
  name?: string | undefined
  data: string
  user?: string | undefined
  insecure?: boolean | undefined
}

export type ConnectServices = Surroundings & {
  openAdmin(data: string): Promise<OpenAdmin>
  readStandardInput(): Promise<string>
  /** Writes a line for the person at the terminal. */
  say: (line: string) => void
  osUser: string
  hostname: string
  clock: Clock
}

const DEFAULT_NAME = 'sreg'
const DEFAULT_URL = 'http://127.0.0.1:8080'
const YEAR_MS = 365 * 24 * 3600 * 1000
const TIMEOUT_MS = 10_000

/**
 * Connects the clients of this computer to a server (R59): judges address and token first, and
 * writes nothing when either fails. Without a token, on the host that owns the data folder, adds
 * the user and a token of one year. Failures are `RegistryError`s with a sentence.
 */
export async function connect(options: ConnectOptions, services: ConnectServices): Promise<void> {
  const { say } = services
  const name = options.name ?? DEFAULT_NAME
  if (!/^[A-Za-z][A-Za-z0-9._-]{0,63}$/.test(name)) {
    throw new RegistryError(
      'invalid',
      `The name ${JSON.stringify(name)} is not allowed for a remote: use letters, digits, dots, dashes and underscores, beginning with a letter.`,
    )
  }
  const given = await givenToken(options, services)
  const local = given === null ? await openLocal(options, services) : null
  try {
    const url = parseServerUrl(options.url ?? (await readServerUrl(options.data)) ?? DEFAULT_URL)
    const insecure = options.insecure ?? false
    refuseExposed(url, insecure)
    const { tokenUrl } = await discover(url)
    refuseExposed(tokenUrl, insecure)
    if (new URL(tokenUrl).origin !== url) {
      say(
        `Note: the server calls itself ${tokenUrl}, and clients will go there. If that is wrong, start it with --public-url.`,
      )
    }
    const files = await clientFiles(services)
    const remote = { name, url, token: '', replace: options.name !== undefined }
    // A file that cannot be edited must be known before a token is made for it.
    for (const file of files) await readAndEdit(file, remote)

    const token =
      local === null
        ? await judged(tokenUrl, given ?? '')
        : await madeToken(tokenUrl, local.admin, options, services)
    for (const file of files) {
      for (const note of await storeRemote(file, { ...remote, token })) say(note)
      say(`Wrote ${file}: the remote ${name} is ${url}, and it is the default now.`)
    }
    const user = (await whoami(tokenUrl, token)) ?? 'USER'
    say('')
    say('Now type, for an image of yours:')
    say(`  apptainer push -U image.sif library://${user}/default/NAME:latest`)
    say(`  apptainer pull library://${user}/default/NAME:latest`)
  } finally {
    local?.close()
  }
}

async function givenToken(
  options: ConnectOptions,
  services: ConnectServices,
): Promise<string | null> {
  const { token, tokenFile } = options
  if (token === undefined && tokenFile === undefined) return null
  if (token !== undefined && tokenFile !== undefined) {
    throw new RegistryError('invalid', 'Give --token or --token-file, not both.')
  }
  if (token !== undefined) {
    services.say(
      'Note: other users of this computer can see a token given with --token (ps shows it). --token-file - reads it from standard input.',
    )
  }
  return token === undefined ? readToken(tokenFile ?? '', services) : checkToken(token)
}

/** The token in a file, or on standard input for `-`; `invalid` when there is none. */
export async function readToken(
  file: string,
  services: Pick<ConnectServices, 'readStandardInput'>,
): Promise<string> {
  return checkToken(await readSecretFile(file, services))
}

/** What a file holds, or standard input for `-`. */
export function readSecretFile(
  file: string,
  { readStandardInput }: Pick<ConnectServices, 'readStandardInput'>,
): Promise<string> {
  return file === '-' ? readStandardInput() : readFile(file, 'utf8')
}

/** The first line of a text as a token. */
function checkToken(text: string): string {
  const line = text.trim().split('\n')[0]?.trim() ?? ''
  // A bearer token's alphabet (RFC 6750 §2.1); anything else could not be sent.
  if (!/^[A-Za-z0-9._~+/=-]+$/.test(line)) {
    throw new RegistryError('invalid', 'The token is empty or holds characters no token has.')
  }
  return line
}

async function openLocal(options: ConnectOptions, services: ConnectServices): Promise<OpenAdmin> {
  try {
    return await services.openAdmin(options.data)
  } catch (error) {
    if (!isRegistryError(error, 'not_found')) throw error
    throw new RegistryError(
      'not_found',
      `No token was given, and none can be made here. ${error.message} On another computer than the server's, give --token-file FILE.`,
      { cause: error },
    )
  }
}

async function judged(tokenUrl: string, token: string): Promise<string> {
  if (await isTokenValid(tokenUrl, token)) return token
  throw new RegistryError(
    'unauthenticated',
    `${tokenUrl} does not accept this token: it is not valid, has expired or was revoked. Nothing was written.`,
  )
}

/** A token of one year for the named user or the person at the keyboard, added if missing. */
async function madeToken(
  tokenUrl: string,
  admin: Admin,
  options: ConnectOptions,
  services: ConnectServices,
): Promise<string> {
  const user = options.user ?? userNameFrom(services.osUser)
  if (!(await admin.listUsers()).some(({ name }) => name === user)) {
    await admin.addUser(user, { admin: false })
    services.say(`Added the user ${user}.`)
  }
  const expires = new Date(services.clock.now().getTime() + YEAR_MS)
  const made = await admin.createToken({ user, name: services.hostname, expires, scopes: null })
  let accepted = false
  try {
    accepted = await isTokenValid(tokenUrl, made.jwt)
  } finally {
    // The server at that address may be another one, which has now seen the token.
    if (!accepted) await admin.revokeToken(made.id)
  }
  if (!accepted) {
    throw new RegistryError(
      'conflict',
      `The server at ${tokenUrl} does not use the data folder ${options.data}: it does not know a token made there. Name its folder with --data, or its address. Nothing was written.`,
    )
  }
  services.say(
    `Made a token for ${user}, valid until ${made.expiresAt.toISOString().slice(0, 10)}.`,
  )
  return made.jwt
}

/** The address that the server of a data folder wrote down at its last start. */
export async function readServerUrl(data: string): Promise<string | null> {
  return (await readFile(join(data, SERVER_URL_FILE), 'utf8').catch(() => null))?.trim() || null
}

/**
 * The address of a server as clients store it: `http(s)://host[:port]`, nothing after it.
 * `invalid` when there is more or less than that.
 */
export function parseServerUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : null
  if (url === null || !['http:', 'https:'].includes(url.protocol) || url.hostname === '') {
    throw new RegistryError(
      'invalid',
      `${JSON.stringify(text)} is no address of a server. Give http://HOST[:PORT] or https://HOST[:PORT].`,
    )
  }
  if (`${url.origin}/` !== url.href) {
    throw new RegistryError(
      'invalid',
      `The address ${JSON.stringify(url.origin)} must stand alone, without user, path or query.`,
    )
  }
  return url.origin
}

/** Whether a token sent there could be read on the way: plain http beyond this computer. */
export function isExposed(url: string): boolean {
  const { protocol, hostname } = new URL(url)
  const loopback = /^(localhost|.+\.localhost|127(\.\d+){3}|\[::1\])$/.test(hostname)
  return protocol === 'http:' && !loopback
}

/** `invalid` when a token would travel readable for others and nobody asked for it (R59). */
export function refuseExposed(url: string, insecure: boolean): void {
  if (insecure || !isExposed(url)) return
  throw new RegistryError(
    'invalid',
    `${url} is plain http on a network: others could read the token on its way. Use https, or add --insecure if you trust the network.`,
  )
}

/**
 * Asks a server for the address of its token service, as every client command does first.
 * `unavailable` when nothing answers, `unsupported` when it is no library server.
 */
export async function discover(url: string): Promise<{ tokenUrl: string }> {
  const response = await ask(`${url}/assets/config/config.prod.json`)
  const document = (await response.json().catch(() => null)) as Record<
    string,
    { uri?: unknown } | undefined
  > | null
  const uri = document?.['tokenAPI']?.uri
  if (!response.ok || typeof uri !== 'string' || !/^https?:\/\//.test(uri) || !URL.canParse(uri)) {
    throw new RegistryError(
      'unsupported',
      `${url} answers, but not as a registry for Apptainer images (status ${response.status}, no discovery document). Check the address.`,
    )
  }
  return { tokenUrl: uri.replace(/\/+$/, '') }
}

/** Whether the server takes the token; 404 is its way to say no (apptainer-wire.md §0.6). */
export async function isTokenValid(tokenUrl: string, token: string): Promise<boolean> {
  const response = await ask(`${tokenUrl}/v1/token-status`, token)
  if (response.ok) return true
  if (response.status === 404 || response.status === 401) return false
  throw new RegistryError(
    'unavailable',
    `${tokenUrl} could not judge the token (status ${response.status}). Try again, or look at the server's log.`,
  )
}

/** The name the server knows the token's owner by; null when it does not say. */
export async function whoami(tokenUrl: string, token: string): Promise<string | null> {
  const response = await ask(`${tokenUrl}/v1/rbac/users/current`, token)
  const user = (await response.json().catch(() => null)) as { username?: unknown } | null
  return response.ok && typeof user?.username === 'string' ? user.username : null
}

/** A user name within the grammar, made from what the operating system calls the person. */
export function userNameFrom(osName: string): string {
  const name = osName
    .normalize('NFKD')
    .replace(/\p{M}/gu, '')
    .toLowerCase()
    .replace(/[^a-z0-9._-]+/g, '-')
    .replace(/[._-]*([._-])/g, '$1')
    .replace(/^[._-]|[._-]$/g, '')
  return name.slice(0, 64).replace(/[._-]$/, '') || 'user'
}

/**
 * The `remote.yaml` files to write: Apptainer's and Singularity's where the program, its folder or
 * its variable is there, Apptainer's when there is no sign of either.
 */
export async function clientFiles(surroundings: Surroundings): Promise<string[]> {
  const files: string[] = []
  for (const client of ['apptainer', 'singularity'] as const) {
    const { env, home } = surroundings
    const named = env[`${client.toUpperCase()}_CONFIGDIR`]
    const folder = named || join(home, `.${client}`)
    if (named || (await isFolder(folder)) || (await isInstalled(client, env['PATH'] ?? ''))) {
      files.push(join(folder, 'remote.yaml'))
    }
  }
  return files.length > 0 ? files : [join(surroundings.home, '.apptainer', 'remote.yaml')]
}

/**
 * Stores a remote and makes it the active one; everything else in the file stays as it is. Returns
 * sentences about what else was changed. The file ends with mode 0600 in a folder of mode 0700.
 *
 * `conflict` when the file is no client configuration, when the name belongs to the system's
 * configuration, or when it points to another server and `replace` is false.
 */
export async function storeRemote(path: string, remote: Remote): Promise<string[]> {
  const { target, edited } = await readAndEdit(path, remote)
  const notes = await privateFolder(dirname(path))
  const found = await stat(target).catch(absent)
  await replaceFile(target, edited)
  if (found !== null && (found.mode & 0o077) !== 0) {
    const was = (found.mode & 0o777).toString(8)
    notes.push(`${path} was readable by others (mode ${was}); it is 600 now.`)
  }
  return notes
}

/** The real file behind a path and its text with the remote set; writes nothing. */
async function readAndEdit(
  path: string,
  remote: Remote,
): Promise<{ target: string; edited: string }> {
  const target = (await lstat(path).catch(absent))?.isSymbolicLink() ? await realpath(path) : path
  const text = await readFile(target, 'utf8').catch(absent)
  // loaded here, so that the server starts without a YAML parser
  const { editRemotes } = await import('./remote-yaml.ts')
  return { target, edited: editRemotes(text ?? '', remote, path) }
}

async function privateFolder(path: string): Promise<string[]> {
  await mkdir(path, { recursive: true, mode: 0o700 })
  const { mode, uid } = await stat(path)
  // A shared folder that somebody named in *_CONFIGDIR (sticky, or not ours) is not ours to close.
  if ((mode & 0o077) === 0 || (mode & 0o1000) !== 0 || uid !== process.getuid?.()) return []
  await chmod(path, 0o700)
  return [
    `The folder ${path} was open to others (mode ${(mode & 0o777).toString(8)}); it is 700 now.`,
  ]
}

/** One request within 10 s, with the token as bearer; `unavailable` when nothing answers. */
export async function ask(url: string, token?: string, init?: RequestInit): Promise<Response> {
  try {
    return await fetch(url, {
      ...init,
      headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
      // A redirect could take the token elsewhere.
      redirect: 'manual',
      signal: AbortSignal.timeout(TIMEOUT_MS),
    })
  } catch (cause) {
    const reason = (cause as Error).cause instanceof Error ? (cause as Error).cause : cause
    throw new RegistryError(
      'unavailable',
      `Nothing answers at ${new URL(url).origin} (${(reason as Error).message}). Is the server running, and is this its address?`,
      { cause },
    )
  }
}

async function isFolder(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null))?.isDirectory() ?? false
}

/** Apptainer installs a link `singularity` to itself; that one does not read ~/.singularity. */
async function isInstalled(program: string, path: string): Promise<boolean> {
  for (const folder of path.split(delimiter)) {
    if (folder === '') continue
    const file = join(folder, program)
    try {
      await access(file, constants.X_OK)
    } catch {
      continue
    }
    return basename(await realpath(file)) === program
  }
  return false
}
