/**
 * The BlobStore in a folder of a local disk: what it says is stored survives a power cut (R39).
 *
 *     <root>/registry-id              the registry this store belongs to (R10)
 *     <root>/blobs/<2 hex>/<key>      published blobs, 0400, never opened for writing again (R1)
 *     <root>/uploads/<key>.<random>.put      a blob that `put` is writing
 *     <root>/uploads/<key>.<handle>          an upload in parts, each part at its offset
 *     <root>/uploads/<key>.<handle>.journal  its plan, then a line per part received or dropped
 *
 * Publishing is link(), which never replaces a name, so the file system needs hard links.
 */
import { constants } from 'node:fs'
import {
  chmod,
  link,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  rm,
  stat,
  statfs,
  unlink,
  writeFile,
} from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { RegistryError } from '../../src/errors.ts'
import type { BlobInfo, BlobStore, Bytes } from '../../src/ports.ts'
import {
  beingFinished,
  checkId,
  checkKeys,
  checkPart,
  checkParts,
  checkPlan,
  clipRange,
  etagOf,
  keyTaken,
  noSpace,
  noSuchUpload,
  otherRegistry,
  pageOf,
  partWriters,
  randomName,
  storeAway,
  receive,
  sizeOfParts,
} from './rules.ts'
import type { PartWriters, Plan, ReceiveOptions } from './rules.ts'

const { O_APPEND, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_RDONLY, O_WRONLY } = constants

const GATHER_BYTES = 512 * 1024
/** Many tiny chunks cost more in objects than in bytes. */
const GATHER_CHUNKS = 512
const READ_SIZE = 512 * 1024
/** Where a buffer begins in its memory: see docs/performance.md, "Where a buffer begins". */
const READ_OFFSET = 48
/**
 * So much is on its way to the disk while as much again is being received: what is left for the end
 * is little, and a disk slower than the client is felt from the beginning instead of as a stall.
 * Of each upload: eight at once end together, and then wait for eight times as much.
 */
const SYNC_BYTES = 16 * 1024 * 1024
/** Early syncs at a time: each holds one of the few threads that also read what is downloaded. */
const SYNCS = 2
const DAY_MS = 24 * 60 * 60 * 1000
const PUT = '.put'
const JOURNAL = '.journal'

type Upload = Plan & {
  state: 'open' | 'finishing' | 'ended'
  /** Etags and sizes of the parts received. */
  parts: Map<number, { etag: string; size: number }>
  writers: PartWriters
  /** Bytes written since the last early sync began. */
  unsynced: number
  /** The early sync at work, or the last one. One that failed has ended the upload. */
  synced: Promise<void>
  /** Runs finishes and aborts one after the other. */
  alone<T>(work: () => Promise<T>): Promise<T>
}

/**
 * Opens the store in folder `root`, making what is missing. One process at a time writes to it
 * (R45). Temporaries of `put` that a crash left behind are removed once a day old; uploads in
 * parts stay until they are finished or aborted, also across restarts.
 */
export async function diskBlobs({ root }: { root: string }): Promise<BlobStore> {
  root = resolve(root)
  const blobs = join(root, 'blobs')
  const uploads = join(root, 'uploads')
  const idFile = join(root, 'registry-id')
  const pathOf = (key: string) => join(blobs, key.slice(0, 2), key)
  const uploadPath = (key: string, handle: string) => join(uploads, `${key}.${handle}`)

  await makeFolder(root)
  await makeFolder(blobs)
  await makeFolder(uploads)
  await chmod(blobs, 0o700)
  await removeOldPuts(uploads)

  /** The id that the store had when it was first read. */
  let known: string | null = null
  const inTurn = gate(SYNCS)
  const folders = new Map<string, Promise<void>>()
  const loaded = new Map<string, Promise<Upload | null>>()

  /** Makes the folder of a key, durable in its parent, once per process. */
  function folderOf(key: string): Promise<void> {
    const path = dirname(pathOf(key))
    const known = folders.get(path)
    if (known !== undefined) return known
    // Not recursive: when the disk is not mounted, nothing is made in its place. Synced even if
    // it was there: a crash may have come between the two steps.
    const made = unlessCode('EEXIST', mkdir(path, { mode: 0o700 })).then(() => syncFolder(blobs))
    folders.set(path, made)
    made.catch(() => folders.delete(path))
    return made
  }

  /** Gives a synced temporary its name for ever; if that fails the name is not left behind. */
  async function publish(temporary: string, path: string): Promise<void> {
    try {
      await link(temporary, path)
    } catch (error) {
      if (hasCode(error, 'EEXIST')) throw keyTaken()
      // Aborted meanwhile; with the temporary in place it is the store's own folder that is gone.
      if (hasCode(error, 'ENOENT') && (await lstatOrNull(temporary)) === null) throw noSuchUpload()
      throw error
    }
    try {
      await syncFolder(dirname(path))
    } catch (error) {
      await unlink(path)
      throw error
    }
  }

  async function head(key: string): Promise<BlobInfo | null> {
    const found = await lstatOrNull(pathOf(key))
    if (found === null) return absent()
    if (!found.isFile()) throw notAFile()
    return { size: found.size, etag: etagOf(key) }
  }

  /** The upload as this process knows it, or as a former one left it on disk. */
  function find(key: string, handle: string): Promise<Upload | null> {
    const path = uploadPath(key, handle)
    let upload = loaded.get(path)
    if (upload === undefined) {
      upload = load(key, handle)
      loaded.set(path, upload)
      const forget = () => loaded.delete(path)
      upload.then((found) => found ?? forget(), forget)
    }
    return upload
  }

  async function load(key: string, handle: string): Promise<Upload | null> {
    if (!/^[0-9a-f]{24}$/.test(handle)) return null
    const path = uploadPath(key, handle)
    const [bytes, blob] = [await lstatOrNull(path), await lstatOrNull(pathOf(key))]
    if (bytes === null) return null
    // A crash between link() and the removal of the temporary: it is the blob, and finished (R1).
    if (bytes.ino === blob?.ino && bytes.dev === blob.dev) {
      await removeUpload(path)
      return null
    }
    return readJournal(path + JOURNAL)
  }

  /**
   * Begins to write to the disk what has been received of an upload in parts, once that is enough;
   * resolves when what was begun before is there. Only the sync of finishParts makes it durable.
   */
  async function syncEarly(path: string, upload: Upload, size: number): Promise<void> {
    upload.unsynced += size
    if (upload.unsynced < SYNC_BYTES) return
    upload.unsynced = 0
    const before = upload.synced
    upload.synced = before
      .then(() => inTurn(() => withFile(path, O_WRONLY, (file) => file.datasync())))
      .catch(async (error: unknown) => {
        // The kernel tells of lost bytes once: whoever asks again, in another process too, hears "fine".
        if (upload.state === 'open') {
          upload.state = 'ended'
          await removeUpload(path)
          loaded.delete(path)
        }
        throw error
      })
    // The next part, or the finish, reports it.
    upload.synced.catch(() => {})
    await before
  }

  async function readId(): Promise<string | null> {
    const text = await unlessCode('ENOENT', readFile(idFile, 'utf8'))
    const id = text === undefined ? null : text.trim()
    known ??= id
    return id
  }

  /** Null, if a blob is what is missing: throws `unavailable` when the disk is not mounted, or another one is. */
  async function absent(): Promise<null> {
    const [stored, receiving, id] = await Promise.all([
      lstatOrNull(blobs),
      lstatOrNull(uploads),
      readId(),
    ])
    if (stored === null || receiving === null || id !== known) throw storeAway()
    return null
  }

  return {
    async put(key, body, size, sha256) {
      checkKeys(key)
      if ((await lstatOrNull(pathOf(key))) !== null) throw keyTaken()
      const temporary = uploadPath(key, randomName() + PUT)
      return orFull(async () => {
        try {
          await withFile(temporary, O_CREAT | O_EXCL | O_WRONLY, async (file) => {
            await writeBody(file, 0, body, size, { sha256 }, () => inTurn(() => file.datasync()))
            await file.sync()
            await file.chmod(0o400)
          })
          await folderOf(key)
          await publish(temporary, pathOf(key))
        } finally {
          await rm(temporary, { force: true })
        }
        return { size, etag: etagOf(key) }
      })
    },

    async get(key, range) {
      checkKeys(key)
      const file = await unlessCode('ENOENT', open(pathOf(key), O_RDONLY | O_NOFOLLOW))
      if (file === undefined) return absent()
      try {
        const found = await file.stat()
        if (!found.isFile()) throw notAFile()
        const { size } = found
        const served = clipRange(size, range)
        let closed: Promise<void> | null = null
        const close = () => (closed ??= file.close())
        return {
          size,
          etag: etagOf(key),
          key,
          range: served,
          stream: () => readRange(file, served.start, served.end, close),
          async readInto(buffer, offset, length, position) {
            return (await file.read(buffer, offset, length, position)).bytesRead
          },
          close,
        }
      } catch (error) {
        await file.close()
        throw error
      }
    },

    async head(key) {
      checkKeys(key)
      return head(key)
    },

    async delete(keys) {
      checkKeys(...keys)
      for (const key of keys) await unlessCode('ENOENT', unlink(pathOf(key)))
      // Also where nothing was there: the unlink of a crashed process may not be durable yet.
      for (const folder of new Set(keys.map((key) => dirname(pathOf(key))))) {
        await unlessCode('ENOENT', syncFolder(folder))
      }
    },

    async list(cursor, limit) {
      const after = cursor ?? ''
      const wanted = Math.min(limit, 1000)
      const keys: string[] = []
      for (const folder of (await readdir(blobs)).sort()) {
        if (folder < after.slice(0, 2) || !/^[0-9a-f]{2}$/.test(folder)) continue
        const names = (await readdir(join(blobs, folder))).filter(
          (name) => /^[0-9a-f]{24}$/.test(name) && name.startsWith(folder) && name > after,
        )
        keys.push(...names.sort())
        if (keys.length > wanted) break
      }
      const page = pageOf(keys, wanted)
      const dated: { key: string; modifiedAt: Date }[] = []
      for (const key of page.keys) {
        const found = await lstatOrNull(pathOf(key))
        if (found?.isFile()) dated.push({ key, modifiedAt: found.mtime })
      }
      return { blobs: dated, cursor: page.cursor }
    },

    async startParts(key, size, partSize) {
      checkKeys(key)
      const plan = { size, partSize }
      checkPlan(plan)
      if ((await lstatOrNull(pathOf(key))) !== null) throw keyTaken()
      const handle = randomName()
      const path = uploadPath(key, handle)
      return orFull(async () => {
        try {
          await writeFile(path, '', { flag: 'wx', mode: 0o600 })
          await writeFile(path + JOURNAL, JSON.stringify(plan), { flag: 'wx', mode: 0o600 })
        } catch (error) {
          await removeUpload(path)
          throw error
        }
        return handle
      })
    },

    async putPart(key, handle, number, body, size, options) {
      checkKeys(key)
      const upload = await find(key, handle)
      if (upload === null || upload.state === 'ended') throw noSuchUpload()
      if (upload.state === 'finishing') throw beingFinished()
      checkPart(upload, number, size)
      const path = uploadPath(key, handle)
      return upload.writers.run(number, (signal) =>
        orFull(async () => {
          // Before the first byte: from here on the former bytes may be half overwritten.
          if (upload.parts.has(number)) await note(path + JOURNAL, { number, etag: null })
          upload.parts.delete(number)
          await withFile(path, O_WRONLY, async (file) => {
            const start = (number - 1) * upload.partSize
            await writeBody(file, start, body, size, { ...options, signal })
          })
          // Not synced here: finishParts syncs the file once. After a power cut the journal may
          // know parts whose bytes are lost, so an upload that outlived its process is read
          // back and hashed by the caller before anybody trusts it (R3).
          const etag = `"${randomName()}"`
          await note(path + JOURNAL, { number, etag, size })
          upload.parts.set(number, { etag, size })
          await syncEarly(path, upload, size)
          return { etag }
        }),
      )
    },

    async finishParts(key, handle, parts) {
      checkKeys(key)
      const path = uploadPath(key, handle)
      const upload = await find(key, handle)
      return orFull(async () => {
        if (upload === null) return finished(key)
        return upload.alone(async () => {
          if (upload.state === 'ended') return finished(key)
          upload.state = 'finishing'
          await upload.writers.end(beingFinished())
          let size = 0
          try {
            checkParts(upload, (number) => upload.parts.get(number)?.etag, parts)
            size = sizeOfParts(
              upload,
              parts.map(({ number }) => upload.parts.get(number)?.size ?? 0),
            )
          } catch (error) {
            upload.state = 'open'
            throw error
          }
          // From here on success and failure both end the upload: after a failed sync nobody
          // knows what the disk holds, and asking it again would be answered "fine".
          try {
            await withFile(path, O_WRONLY, async (file) => {
              // a longer last part may have been replaced by a shorter one
              if (upload.size === null) await file.truncate(size)
              const found = await file.stat()
              if (found.size !== size) throw new Error('An upload changed its size on disk')
              await upload.synced
              await file.sync()
              await file.chmod(0o400)
            })
            await folderOf(key)
            await publish(path, pathOf(key))
          } finally {
            upload.state = 'ended'
            await removeUpload(path)
            loaded.delete(path)
          }
          return { size, etag: etagOf(key) }
        })
      })
    },

    async abortParts(key, handle) {
      checkKeys(key)
      const handles = handle === null ? await handlesOf(key) : [handle]
      for (const each of handles) {
        const path = uploadPath(key, each)
        const upload = await find(key, each)
        if (upload === null) {
          if (/^[0-9a-f]{24}(\.put)?$/.test(each)) await removeUpload(path)
          continue
        }
        await upload.alone(async () => {
          upload.state = 'ended'
          await upload.writers.end(noSuchUpload())
          await removeUpload(path)
          loaded.delete(path)
        })
      }
    },

    async space() {
      const { bavail, blocks, bsize } = await statfs(root)
      return { free: bavail * bsize, total: blocks * bsize }
    },

    readId,

    async writeId(id) {
      checkId(id)
      const temporary = join(uploads, `registry-id.${randomName()}${PUT}`)
      await orFull(async () => {
        try {
          await withFile(temporary, O_CREAT | O_EXCL | O_WRONLY, async (file) => {
            await file.writeFile(id + '\n')
            await file.sync()
            await file.chmod(0o400)
          })
          await publish(temporary, idFile)
        } catch (error) {
          if ((await readId()) === null) throw error
        } finally {
          await rm(temporary, { force: true })
        }
      })
      if ((await readId()) !== id) throw otherRegistry()
      await syncFolder(root)
    },

    async ping() {
      // Both folders: an unmounted disk leaves an empty root behind, which still answers.
      await Promise.all([stat(blobs), stat(uploads), readId()])
    },
  }

  /** The answer to a finish that was done before, made durable: it may have crashed half-way. */
  async function finished(key: string): Promise<BlobInfo> {
    const info = await head(key)
    if (info === null) throw noSuchUpload()
    await folderOf(key)
    await syncFolder(dirname(pathOf(key)))
    return info
  }

  async function handlesOf(key: string): Promise<string[]> {
    const names = (await readdir(uploads)).filter((name) => name.startsWith(`${key}.`))
    const handles = names.map((name) => name.slice(key.length + 1).replace(/\.journal$/, ''))
    return [...new Set(handles)]
  }
}

// ---------------------------------------------------------------------------------------------
// Bytes

/**
 * Receives a body into a file from `position` on, gathered to about half a MiB, two writes ahead.
 * What has been written is given to `syncEarly` from time to time, while more is being received.
 */
async function writeBody(
  file: FileHandle,
  position: number,
  body: Bytes,
  size: number,
  options: ReceiveOptions,
  syncEarly?: () => Promise<void>,
): Promise<void> {
  let held: Uint8Array[] = []
  let bytes = 0
  let unsynced = 0
  // Two, because one may wait for the file system while the next bytes have come.
  let before: Promise<void> = Promise.resolve()
  let writing: Promise<void> = Promise.resolve()
  let syncing: Promise<void> = Promise.resolve()

  async function flush(): Promise<void> {
    await before
    before = writing
    if (syncEarly !== undefined && unsynced >= SYNC_BYTES) {
      await syncing
      syncing = syncEarly()
      syncing.catch(() => {})
      unsynced = 0
    }
    unsynced += bytes
    writing = writeAll(file, held, bytes, position, body.free)
    // The next flush or the end reports it; until then it is not an unhandled rejection.
    writing.catch(() => {})
    position += bytes
    held = []
    bytes = 0
  }

  const gather = (chunk: Uint8Array) => {
    held.push(chunk)
    bytes += chunk.length
    return bytes >= GATHER_BYTES || held.length >= GATHER_CHUNKS ? flush() : undefined
  }
  try {
    await receive(body, size, gather, options)
    await flush()
  } finally {
    // The file is about to be closed.
    await Promise.all([before, writing, syncing])
  }
}

async function writeAll(
  file: FileHandle,
  chunks: Uint8Array[],
  bytes: number,
  position: number,
  free: Bytes['free'] = () => {},
): Promise<void> {
  if (bytes === 0) return
  let { bytesWritten } = await file.writev(chunks, position)
  if (bytesWritten === bytes) return chunks.forEach(free)
  // A short write is how a full disk first shows; the next write says so.
  const rest = Buffer.concat(chunks)
  while (bytesWritten < bytes) {
    const at = bytesWritten
    bytesWritten += (await file.write(rest, at, bytes - at, position + at)).bytesWritten
  }
}

async function* readRange(
  file: FileHandle,
  start: number,
  end: number,
  close: () => Promise<void>,
): AsyncGenerator<Uint8Array> {
  try {
    for (let at = start; at <= end;) {
      const size = Math.min(READ_SIZE, end + 1 - at)
      const buffer = Buffer.allocUnsafeSlow(READ_OFFSET + size).subarray(READ_OFFSET)
      const { bytesRead } = await file.read(buffer, 0, buffer.length, at)
      // Ending here would look like a complete blob (R5).
      if (bytesRead === 0) throw new Error('A blob is shorter on disk than when it was opened')
      yield buffer.subarray(0, bytesRead)
      at += bytesRead
    }
  } finally {
    await close()
  }
}

// ---------------------------------------------------------------------------------------------
// Journals of uploads in parts

/**
 * Appends one record in one write. The newline comes first, so that a line torn by a full disk or
 * a crash never runs into the next one. Never makes the file: it is gone when the upload is (R22).
 */
async function note(
  path: string,
  record: { number: number; etag: string | null; size?: number },
): Promise<void> {
  await withFile(path, O_WRONLY | O_APPEND, async (file) => {
    await file.writeFile('\n' + JSON.stringify(record))
  })
}

/** Reads a journal; torn lines do not count, and without a plan there is no upload. */
async function readJournal(path: string): Promise<Upload | null> {
  const text = await unlessCode('ENOENT', readFile(path, 'utf8'))
  const [plan, ...records] = (text ?? '').split('\n').map(parseLine)
  if (plan === undefined || plan === null || typeof plan.partSize !== 'number') return null
  if (typeof plan.size !== 'number' && plan.size !== null) return null
  const { size: whole, partSize } = plan
  const parts = new Map<number, { etag: string; size: number }>()
  for (const record of records) {
    if (typeof record?.number !== 'number') continue
    const { number, etag } = record
    // lines of older versions name no size: it is the plan's
    const planned = Math.min(partSize, (whole ?? 0) - (number - 1) * partSize)
    const size = typeof record.size === 'number' ? record.size : planned
    if (typeof etag === 'string') parts.set(number, { etag, size })
    else parts.delete(number)
  }
  let last: Promise<unknown> = Promise.resolve()
  return {
    size: whole,
    partSize,
    state: 'open',
    parts,
    writers: partWriters(),
    unsynced: 0,
    synced: Promise.resolve(),
    alone(work) {
      const turn = last.then(work)
      last = turn.catch(() => {})
      return turn
    },
  }
}

function parseLine(line: string): Record<string, unknown> | null {
  try {
    return JSON.parse(line) as Record<string, unknown>
  } catch {
    return null
  }
}

async function removeUpload(path: string): Promise<void> {
  await rm(path, { force: true })
  await rm(path + JOURNAL, { force: true })
}

/** Lets `most` works run at a time; the others wait for their turn, in order. */
function gate(most: number): <T>(work: () => Promise<T>) => Promise<T> {
  const waiting: (() => void)[] = []
  let running = 0
  return async (work) => {
    if (running < most) running += 1
    else await new Promise<void>((resolve) => waiting.push(resolve))
    try {
      return await work()
    } finally {
      const next = waiting.shift()
      if (next === undefined) running -= 1
      else next()
    }
  }
}

// ---------------------------------------------------------------------------------------------
// Files and folders

/**
 * Opens, works and closes; an error of close() fails the work too, for it may be a lost write.
 * A file that is not to be made belongs to an upload: without it there is none (R22).
 */
async function withFile(
  path: string,
  flags: number,
  work: (file: FileHandle) => Promise<void>,
): Promise<void> {
  const file = await open(path, flags | O_NOFOLLOW, 0o600).catch((error: unknown) => {
    throw hasCode(error, 'ENOENT') && (flags & O_CREAT) === 0 ? noSuchUpload() : error
  })
  try {
    await work(file)
  } catch (error) {
    await file.close().catch(() => {})
    throw error
  }
  await file.close()
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, O_RDONLY | O_DIRECTORY)
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

/** Makes a folder with the missing ones above it and syncs the parent of each new one. */
async function makeFolder(path: string): Promise<void> {
  const first = await mkdir(path, { recursive: true, mode: 0o700 })
  if (first === undefined) return
  for (let made = path; ; made = dirname(made)) {
    await syncFolder(dirname(made))
    if (made === first) return
  }
}

/** Removes what crashed `put`s left, by the file system's clock: files it dates are compared. */
async function removeOldPuts(uploads: string): Promise<void> {
  // Narrows a folder somebody opened wider, and dates it with the present.
  await chmod(uploads, 0o700)
  const now = (await stat(uploads)).ctimeMs
  for (const name of await readdir(uploads)) {
    if (!name.endsWith(PUT)) continue
    const path = join(uploads, name)
    const found = await lstatOrNull(path)
    if (found !== null && now - found.mtimeMs > DAY_MS) await rm(path, { force: true })
  }
}

const lstatOrNull = async (path: string) => (await unlessCode('ENOENT', lstat(path))) ?? null

const notAFile = () => new RegistryError('internal', 'The blob store holds what is not a file.')

const hasCode = (error: unknown, ...codes: string[]) =>
  error instanceof Error && 'code' in error && codes.includes(String(error.code))

/** The promise's value, or undefined when it fails with the given system error. */
async function unlessCode<T>(code: string, work: Promise<T>): Promise<T | undefined> {
  try {
    return await work
  } catch (error) {
    if (hasCode(error, code)) return undefined
    throw error
  }
}

/** Says `insufficient_storage` where the disk or a quota on it is full. */
async function orFull<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw hasCode(error, 'ENOSPC', 'EDQUOT') ? noSpace(error) : error
  }
}
