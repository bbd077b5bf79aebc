/** `export` and `import` on a data folder and its file (decision 0013). */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createReadStream, existsSync } from 'node:fs'
import { mkdir, open, readdir, rename, rm } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import {
  createExports,
  createImports,
  readArchive,
  writeArchive,
  type ArchiveHead,
  type ArchiveSink,
  type ArchiveSource,
  type Progress,
} from '../../src/admin.ts'
import type { Config } from '../../src/config.ts'
import type { ImportReport } from '../../src/core/model.ts'
import { RegistryError } from '../../src/errors.ts'
import type { BlobStore, Bytes, Database, Log } from '../../src/ports.ts'
import type { SigningKeys } from '../signing-keys.ts'
import { randomIds, systemClock } from '../system.ts'
import {
  openDataFolder,
  readOrCreateSecret,
  readSigningKeys,
  writeSecrets,
  type DataFolder,
} from './data-folder.ts'
import type { Platform } from './platform.ts'
import { openBlobs } from './registry.ts'

/** Bytes read from a file at a time. */
const CHUNK = 1024 * 1024

export type Secrets = { registryId: string; secret: string; signingKeys: SigningKeys }

export type OpenMoving = {
  source: ArchiveSource
  sink: ArchiveSink
  /** What `--with-secrets` adds to an export; absent where they cannot be had (over HTTP). */
  secrets?: () => Promise<Secrets>
  close(): void
}

type Program = {
  platform: Platform
  migrations: string
  /** Where the blobs are, as the server of the folder has it. */
  s3: Config['s3']
  log: Log
}

/** Opens a data folder for moving, beside a running server or without one. `by` is for the log. */
export async function openMoving(program: Program, data: string, by: string): Promise<OpenMoving> {
  const folder = await openDataFolder(data, { create: false })
  const { log } = program
  const signingKeys = await readSigningKeys(folder)
  const opened = await program.platform.openDatabase(folder.database, {
    mode: 'cli',
    migrations: program.migrations,
  })
  try {
    const { database } = opened
    const registryId = await database.settings.get('registry_id')
    const blobs = await openBlobs(program, folder, systemClock, log)
    if (registryId === null || (await blobs.readId()) !== registryId)
      throw new RegistryError(
        'conflict',
        `The database and the blobs of ${folder.root} do not belong together, or were never served. Start the server first (sreg-lite serve) and see what it says.`,
      )
    const deps = moving({ database, blobs, registryId, signingKeys, log })
    return {
      source: createExports(deps).source(by),
      sink: createImports(deps).sink(by),
      secrets: async () => ({
        registryId,
        secret: (await readOrCreateSecret(folder)).reveal(),
        signingKeys,
      }),
      close: () => opened.close(),
    }
  } catch (error) {
    opened.close()
    throw error
  }
}

const moving = (of: {
  database: Database
  blobs: BlobStore
  registryId: string
  signingKeys: SigningKeys
  log: Log
}) => ({
  ...of,
  clock: systemClock,
  ids: randomIds,
  keyIds: [of.signingKeys.current, ...of.signingKeys.previous].map(({ kid }) => kid),
  minFree: 0,
})

/**
 * Writes an export to a new file of mode 0600 that has its name only when it is whole, or to
 * `write` for `-`. Returns how much went into it.
 */
export async function exportTo(
  file: string,
  from: Pick<OpenMoving, 'source' | 'secrets'>,
  options: {
    withSecrets: boolean
    progress: Progress
    /** Takes the bytes for standard output. */
    write: (chunk: Uint8Array) => Promise<void>
  },
): Promise<void> {
  if (options.withSecrets && from.secrets === undefined)
    throw new RegistryError(
      'invalid',
      'Secrets never leave a server over HTTP; run export --with-secrets beside its data folder.',
    )
  const secrets = options.withSecrets ? await from.secrets?.() : undefined
  const chunks = writeArchive(from.source, {
    progress: options.progress,
    ...(secrets === undefined ? {} : { secrets }),
  })
  if (file === '-') {
    for await (const chunk of chunks) await options.write(chunk)
    return
  }
  if (existsSync(file))
    throw new RegistryError('conflict', `There is a file ${file} already; choose another name.`)
  const partial = `${file}.${randomBytes(4).toString('hex')}.partial`
  const handle = await open(partial, 'wx', 0o600)
  try {
    try {
      for await (const chunk of chunks) {
        for (let at = 0; at < chunk.length;)
          at += (await handle.write(chunk, at, chunk.length - at)).bytesWritten
      }
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(partial, file)
  } catch (error) {
    await rm(partial, { force: true })
    throw error
  }
}

/** The bytes of an export; `-` is standard input. Rejects when there is no such file. */
export async function archiveFile(file: string, standardInput: () => Bytes): Promise<Bytes> {
  if (file === '-') return standardInput()
  const stream = createReadStream(file, { highWaterMark: CHUNK })
  await once(stream, 'open')
  return stream
}

type Imported = { report: ImportReport | null; head: ArchiveHead; hasSecrets: boolean }

/** Imports into the registry behind `into`. `report` is null when the file was imported before. */
export async function importFrom(
  bytes: Bytes,
  into: Pick<OpenMoving, 'sink'>,
  progress: Progress,
): Promise<Imported> {
  return readArchive(bytes, into.sink, { progress })
}

/**
 * Makes a data folder that goes on as the registry of the file, which must hold its secrets: same
 * id, same keys, administrators and tokens as they were. The folder must not exist, or be empty; it
 * appears whole or not at all.
 */
export async function restoreInto(
  program: Program,
  data: string,
  bytes: Bytes,
  by: string,
  progress: Progress,
): Promise<Imported> {
  const root = resolve(data)
  if ((await readdir(root).catch(() => [])).length > 0)
    throw new RegistryError(
      'conflict',
      `With secrets an export becomes a registry of its own, but ${root} is not empty. Name a new folder with --data, or import without --with-secrets.`,
    )
  const staging = join(dirname(root), `.${basename(root)}.${randomBytes(4).toString('hex')}.import`)
  await mkdir(dirname(root), { recursive: true })
  const folder = await openDataFolder(staging, { create: true })
  try {
    const imported = await fill(program, folder, bytes, by, progress)
    // over an empty folder, or none
    await rename(staging, root)
    return imported
  } catch (error) {
    await rm(staging, { recursive: true, force: true })
    throw error
  }
}

async function fill(
  program: Program,
  folder: DataFolder,
  bytes: Bytes,
  by: string,
  progress: Progress,
): Promise<Imported> {
  const { log } = program
  const opened = await program.platform.openDatabase(folder.database, {
    mode: 'server',
    migrations: program.migrations,
  })
  try {
    const { database } = opened
    const blobs = await openBlobs(program, folder, systemClock, log)
    let secrets: Secrets | undefined
    let sink: ArchiveSink | undefined
    const missing = () =>
      new RegistryError(
        'invalid',
        'This export holds no secrets: export with --with-secrets, or import into a registry that runs.',
      )
    // the sink is known only when the secrets have come, which is behind the head
    const later = (): ArchiveSink => {
      if (sink === undefined) throw missing()
      return sink
    }
    let head: ArchiveHead | undefined
    let id = ''
    const imported = await readArchive(
      bytes,
      {
        async open(found) {
          head = found
          return { id, exportId: found.exportId, state: 'open', sha256: null }
        },
        rows: async (_, rows) => later().rows(id, rows),
        blob: async (_, blob, chunks) => later().blob(id, blob, chunks),
        finish: async (_, end) => later().finish(id, end),
        // the folder goes as a whole
        abort: async () => {},
      },
      {
        progress,
        async onSecrets(value) {
          secrets = checkSecrets(value)
          const { registryId, signingKeys } = secrets
          await database.settings.setOnce('registry_id', registryId)
          await blobs.writeId(registryId)
          const deps = moving({ database, blobs, registryId, signingKeys, log })
          sink = createImports({ ...deps, keepPower: true }).sink(by)
          if (head !== undefined) ({ id } = await sink.open(head))
        },
      },
    )
    if (secrets === undefined) throw missing()
    await writeSecrets(folder, secrets)
    return imported
  } finally {
    opened.close()
  }
}

function checkSecrets(value: unknown): Secrets {
  const { registryId, secret, signingKeys } = (value ?? {}) as Partial<Secrets>
  if (
    typeof registryId !== 'string' ||
    typeof secret !== 'string' ||
    secret.length < 32 ||
    typeof signingKeys?.current?.d !== 'string' ||
    !Array.isArray(signingKeys.previous)
  )
    throw new RegistryError('invalid', 'The secrets in this export are damaged.')
  return { registryId, secret, signingKeys }
}
