/**
 * The data folder on disk: who may use it, its secrets, and the lock of the one server that runs
 * on it (R19, R37, R39, R44, R45).
 */
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { chmod, mkdir, open, readdir, readFile, rename, rm, stat, statfs } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { Secret } from '../../src/config.ts'
import { isRegistryError, RegistryError } from '../../src/errors.ts'
import { parseSigningKeys, publicKey, type SigningKeys } from '../signing-keys.ts'
import type { Platform } from './platform.ts'

export type DataFolder = Readonly<{
  root: string
  database: string
  blobsRoot: string
  lock: string
  secretFile: string
  signingKeysFile: string
  firstAdminToken: string
  /** Where the running server wrote the address that `connect` uses. */
  serverUrl: string
  /** Sentences the operator should see at start. */
  warnings: string[]
}>

export const SERVER_URL_FILE = 'server-url'

/**
 * Opens the data folder, made with mode 0700 when `create` and narrowed to it otherwise.
 *
 * Throws `not_found` when it is absent and not to be made, `denied` when it belongs to another
 * user than this process's (R44: files made by root would be unwritable for the server).
 */
export async function openDataFolder(
  path: string,
  options: { create: boolean },
): Promise<DataFolder> {
  const root = resolve(path)
  if (options.create) await makeDurably(root)
  const found = await stat(root).catch(absent)
  if (found === null) {
    throw new RegistryError(
      'not_found',
      `There is no data folder ${root}. Start the server first (sreg-lite serve), or name its folder with --data.`,
    )
  }
  if (!found.isDirectory()) {
    throw new RegistryError('invalid', `The data folder ${root} is not a folder.`)
  }
  const self = process.getuid?.()
  if (self !== undefined && found.uid !== self) throw await foreignOwner(root, found.uid, self)

  const paths = {
    database: join(root, 'sreg.sqlite3'),
    blobsRoot: join(root, 'blobs'),
    lock: join(root, 'lock.db'),
    secretFile: join(root, 'secret'),
    signingKeysFile: join(root, 'signing-keys.json'),
    firstAdminToken: join(root, 'first-admin-token'),
    serverUrl: join(root, SERVER_URL_FILE),
  }
  const warnings: string[] = []
  if ((found.mode & 0o077) !== 0) {
    if (!(await isOurs(root, Object.values(paths))))
      throw new RegistryError(
        'invalid',
        `The folder ${root} holds other things than a registry, and is open to others. Name a folder of its own with --data (SREG_DATA): it would be closed to everybody else.`,
      )
    await chmod(root, 0o700)
    const was = (found.mode & 0o777).toString(8)
    warnings.push(`The data folder ${root} was open to others (mode ${was}); it is 700 now.`)
  }
  const network = networkFileSystem((await statfs(root)).type)
  if (network !== null) {
    warnings.push(
      `The data folder ${root} is on a network file system (${network}). SQLite's locks are not reliable there: use a local disk, or be sure that only one computer serves it.`,
    )
  }
  return { root, ...paths, warnings }
}

/** The name of a network file system by its `statfs` magic, or null for one on this computer. */
export function networkFileSystem(type: number): string | null {
  // Linux magics; some kernels hand them over as signed 32-bit numbers.
  const names: Record<number, string> = {
    0x6969: 'NFS',
    0x517b: 'SMB',
    0xff534d42: 'CIFS',
    0xfe534d42: 'SMB2',
    0x0bd00bd0: 'Lustre',
    0x00c36400: 'Ceph',
    0x5346414f: 'AFS',
    0x47504653: 'GPFS',
    0x19830326: 'BeeGFS',
    0x01021997: '9p',
  }
  return names[type >>> 0] ?? null
}

/** The secret of the tickets, made at first use: 32 random bytes as hex, in a file of mode 0600. */
export async function readOrCreateSecret(folder: DataFolder): Promise<Secret> {
  const text = await readSecretFile(folder, folder.secretFile)
  if (text === null) {
    const secret = randomBytes(32).toString('hex')
    await replaceFile(folder.secretFile, `${secret}\n`)
    return new Secret(secret)
  }
  if (text.trim().length < 32) {
    throw new RegistryError(
      'internal',
      `The file ${folder.secretFile} is damaged: it holds fewer than 32 characters. Restore it, or delete it to make a new secret (running uploads and downloads then break).`,
    )
  }
  return new Secret(text.trim())
}

/**
 * The Ed25519 keys that sign tokens, made at first use. Only the holder of the lock may make them
 * (two makers would each sign with their own).
 */
export async function readOrCreateSigningKeys(folder: DataFolder): Promise<SigningKeys> {
  try {
    return await readSigningKeys(folder)
  } catch (error) {
    if (!isRegistryError(error, 'not_found')) throw error
  }
  const { x, d } = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' })
  if (x === undefined || d === undefined) throw new Error('node:crypto exported no Ed25519 key')
  const keys: SigningKeys = { current: { ...publicKey(x), d }, previous: [] }
  await replaceFile(folder.signingKeysFile, `${JSON.stringify(keys, null, 2)}\n`)
  return keys
}

/** The keys that sign tokens; `not_found` before the first start, `internal` when damaged. */
export async function readSigningKeys(folder: DataFolder): Promise<SigningKeys> {
  const text = await readSecretFile(folder, folder.signingKeysFile)
  if (text === null) {
    throw new RegistryError(
      'not_found',
      `The data folder ${folder.root} holds no signing keys. Start the server first (sreg-lite serve).`,
    )
  }
  try {
    return parseSigningKeys(text)
  } catch (cause) {
    throw new RegistryError(
      'internal',
      `The file ${folder.signingKeysFile} is damaged. Restore it from a backup, or delete it to make new keys (every token then ends).`,
      { cause },
    )
  }
}

/** Empty, or what a registry keeps is in it: then nobody else has anything to look for there. */
async function isOurs(root: string, kept: string[]): Promise<boolean> {
  // a volume of its own has that
  const names = (await readdir(root)).filter((name) => name !== 'lost+found')
  return names.length === 0 || names.some((name) => kept.includes(join(root, name)))
}

/** Puts the secrets of another registry into a folder that has none yet; for `import --with-secrets`. */
export async function writeSecrets(
  folder: DataFolder,
  { secret, signingKeys }: { secret: string; signingKeys: SigningKeys },
): Promise<void> {
  await replaceFile(folder.secretFile, `${secret}\n`)
  await replaceFile(folder.signingKeysFile, `${JSON.stringify(signingKeys, null, 2)}\n`)
}

/**
 * Claims the data folder for this server until the returned function is called or the process
 * ends, however it ends: the kernel frees the lock (R45). `conflict` when another server has it.
 */
export async function lockDataFolder(
  folder: DataFolder,
  platform: Pick<Platform, 'takeLock'>,
): Promise<() => void> {
  const release = await platform.takeLock(folder.lock)
  if (release !== null) return release
  throw new RegistryError(
    'conflict',
    `Another sreg-lite serve is using ${folder.root}. Stop it first, or give this one a folder of its own with --data.`,
  )
}

/**
 * Puts a whole file of mode 0600 in place, durably: a reader, or a crash, sees the old content or
 * the new (R39).
 */
export async function replaceFile(path: string, content: string): Promise<void> {
  const temporary = `${path}.${randomBytes(6).toString('hex')}.new`
  const file = await open(temporary, 'wx', 0o600)
  try {
    try {
      await file.writeFile(content)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
  await syncFolder(dirname(path))
}

/** Null for a file that is not there; any other failure is thrown again. */
export function absent(error: unknown): null {
  if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
  throw error
}

async function readSecretFile(folder: DataFolder, path: string): Promise<string | null> {
  const found = await stat(path).catch(absent)
  if (found === null) return null
  if ((found.mode & 0o077) !== 0) {
    await chmod(path, 0o600)
    folder.warnings.push(`The file ${path} was readable by others; it is 600 now.`)
  }
  return readFile(path, 'utf8')
}

/** `kid` is the key's RFC 7638 thumbprint unless the file says otherwise. */
async function makeDurably(root: string): Promise<void> {
  const first = await mkdir(root, { recursive: true, mode: 0o700 })
  if (first === undefined) return
  // Every newly made folder is an entry in its parent, down to the root's own (R39).
  for (let made = root; made.length >= first.length; made = dirname(made)) {
    await syncFolder(dirname(made))
  }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

async function foreignOwner(root: string, owner: number, self: number): Promise<RegistryError> {
  const passwd = await readFile('/etc/passwd', 'utf8').catch(() => '')
  const nameOf = (uid: number) =>
    passwd
      .split('\n')
      .find((line) => line.split(':')[2] === String(uid))
      ?.split(':')[0]
  const name = nameOf(owner)
  return new RegistryError(
    'denied',
    `The data folder ${root} belongs to ${name ?? `the user with id ${owner}`}, and this process runs as ${nameOf(self) ?? `the user with id ${self}`}. Run the command as its owner: sudo -u ${name ?? `'#${owner}'`} sreg-lite …`,
  )
}
