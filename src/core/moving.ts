/**
 * Moving a registry: reading all of it while it is in use (R41), and staging another one's content
 * until one batch makes it visible (R42). The file in between is in archive.ts.
 */
import { isRegistryError, RegistryError } from '../errors.ts'
import type {
  Actor,
  BlobPart,
  BlobRead,
  BlobStore,
  ByteRange,
  Bytes,
  Clock,
  Database,
  Ids,
  ImportConflict,
  Log,
  StagedRow,
} from '../ports.ts'
import { absent } from './access.ts'
import type { ArchiveHead, ArchiveSink, ArchiveSource } from './archive.ts'
import type { Import, ImportReport, MovedKind, MovedRow, OpenImport } from './model.ts'
import { hasher } from './digest.ts'
import { MAX_MANIFEST, parseManifest } from './manifests.ts'
import { stagedRow } from './moved-rows.ts'
import { mergeKeys, readKeys } from './openpgp.ts'
import { partsOfDigest } from './repositories.ts'
import { objectHasher, type ObjectDigests } from './signatures.ts'
import type { SweepBudget } from './sweep.ts'
import {
  hashBlob,
  imageHasher,
  inspectBlob,
  PART_SIZE,
  watched,
  type ImageHasher,
} from './uploads.ts'
import { createVerdicts } from './verdicts.ts'

const HOLD = 'hold_deletes_until'
/** Deleted bytes stay for so long after an export last asked for something. */
const HOLD_MS = 15 * 60_000
/** What was staged stays for so long after the import last sent something. */
const STAGED_MS = 24 * 3_600_000
/** Rows asked for at a time, and the characters of JSON after which a page is full. */
const ROWS = 200
/** Keys and manifests asked for at a time: one has up to 1 MiB. */
const LARGE_ROWS = 20
const LARGE: readonly string[] = ['key', 'manifest', 'piece'] satisfies MovedKind[]
const PAGE_CHARS = 512 * 1024
/** Blobs up to here are stored in one go; object stores take no more than 5 GiB so. */
const WHOLE = 1024 * 1024 * 1024
/** Conflicts that are named. */
const NAMED = 20

/**
 * Places before what is in them, so that what is in a place that goes meanwhile is known not to fit;
 * tags before images and manifests, which stay when a tag moves; blobs before the manifests that name
 * them; users last, for their rows stay (R38).
 */
const KINDS: readonly MovedKind[] = [
  'entity',
  'collection',
  'container',
  'tag',
  'ociTag',
  'image',
  'membership',
  'manifest',
  'piece',
  'team',
  'member',
  'grant',
  'star',
  'pulls',
  'token',
  'key',
  'user',
]

type Deps = {
  database: Database
  blobs: BlobStore
  clock: Clock
  ids: Ids
  log: Log
  registryId: string
  /** Ids of the keys that tokens are verified with here, the signing one first. */
  keyIds: string[]
}

/** Whether an export still needs what is about to be deleted (R41). */
export async function isHeld(database: Database, now: Date): Promise<boolean> {
  return Number((await database.settings.get(HOLD)) ?? 0) > now.getTime()
}

/**
 * Deletes what imports have left that ended before `before`: bytes that did not become blobs, and
 * rows; no more of them than `budget` allows. Safe to repeat.
 */
export async function clearImports(
  { database, blobs }: Pick<Deps, 'database' | 'blobs'>,
  before: Date,
  { pages, aborts }: { pages: number; aborts: number } = { pages: Infinity, aborts: 100 },
): Promise<void> {
  for (let page = 0; page < pages; page++) {
    const left = await database.imports.leftovers(before, aborts)
    const surplus = left.filter(({ kept }) => !kept)
    for (const { key, handle } of surplus) await blobs.abortParts(key, handle)
    await blobs.delete(surplus.map(({ key }) => key))
    await database.imports.forgetKeys(left.map(({ key }) => key))
    if (left.length < aborts) break
  }
  await database.imports.tidy(before)
}

export type Exports = ReturnType<typeof createExports>

export function createExports({ database, blobs, clock, ids, log, registryId, keyIds }: Deps) {
  /** Each step of an export prolongs the hold, so that one that broke off holds nothing for long. */
  const hold = () => database.settings.set(HOLD, String(clock.now().getTime() + HOLD_MS))

  async function open(digest: string, range?: ByteRange): Promise<BlobRead> {
    await hold()
    const stored = await database.exports.blob(digest)
    const read = stored === null ? null : await blobs.get(stored.key, range)
    if (stored === null || read === null || read.size !== stored.size) {
      await read?.close()
      throw new RegistryError(
        'not_found',
        `The bytes of the image ${digest} are not in the store, or damaged there. Push it again, or delete it, then export again.`,
        { subject: 'blob' },
      )
    }
    return read
  }

  return {
    /** Begins an export; `by` is who asked, for the logs. */
    async head(by: Actor): Promise<ArchiveHead> {
      await hold()
      const exportId = ids.next()
      await database.exports.begin(exportId, by)
      log.event('info', 'export', { by: nameOf(by), export: exportId })
      return {
        type: 'head',
        exportId,
        registryId,
        keys: keyIds,
        createdAt: clock.now().getTime(),
      }
    },

    /** Some rows after `cursor`, and where the next ones begin; null when there are none. */
    async page(cursor: string | null): Promise<{ rows: MovedRow[]; cursor: string | null }> {
      await hold()
      const at = cursor ?? `${KINDS[0]}:`
      const kind = at.slice(0, at.indexOf(':'))
      const after = at.slice(kind.length + 1)
      const place = KINDS.indexOf(kind as MovedKind)
      if (place < 0) throw new RegistryError('invalid', 'This cursor is not one of ours.')
      const limit = LARGE.includes(kind) ? LARGE_ROWS : ROWS
      let page = await database.exports.rows(kind as MovedKind, after, limit)
      const chars = JSON.stringify(page.rows).length
      if (chars > PAGE_CHARS) {
        const fewer = Math.max(1, Math.floor((page.rows.length * PAGE_CHARS) / chars))
        page = await database.exports.rows(kind as MovedKind, after, fewer)
      }
      const following = KINDS[place + 1]
      if (page.next !== null) return { rows: page.rows, cursor: `${kind}:${page.next}` }
      return { rows: page.rows, cursor: following === undefined ? null : `${following}:` }
    },

    blob: open,

    /** Size in bytes of the stored blob of a digest; `not_found` when there is none. */
    async size(digest: string): Promise<number> {
      const blob = await database.exports.blob(digest)
      if (blob === null) throw absent('blob')
      return blob.size
    },

    /** This registry as the source of a file, for whoever can write the data folder (`cli:` and a name). */
    source(operator: string): ArchiveSource {
      return {
        head: () => this.head({ operator, now: clock.now() }),
        page: (cursor) => this.page(cursor),
        async *blob(digest) {
          const renewal = setInterval(() => void hold().catch(() => undefined), HOLD_MS / 5)
          try {
            const read = await open(digest)
            try {
              yield* read.stream()
            } finally {
              await read.close()
            }
          } finally {
            clearInterval(renewal)
          }
        },
      }
    },
  }
}

export type Imports = ReturnType<typeof createImports>

/**
 * `keepPower` leaves administrators what they are and tokens their scopes: only where the file's
 * secrets come with it, for who has those needs no grant.
 */
export function createImports(
  deps: Deps & {
    keepPower?: boolean
    minFree: number
    sweep?: { budget: SweepBudget }
    checkSignatures?: boolean
  },
) {
  const { database, blobs, clock, ids, log, registryId, keyIds } = deps
  const { imports } = database
  const { checkSignatures = true } = deps
  const verdicts = createVerdicts(deps)
  const until = () => new Date(clock.now().getTime() + STAGED_MS)

  const stagedBlob = async (importId: string, digest: string) => {
    const staged = await imports.stagedBlob(importId, digest)
    if (staged === null) throw absent('blob')
    return staged
  }

  /** A live blob of that digest whose bytes are really there (R60). */
  async function stored(digest: string, size: number): Promise<string | null> {
    const blob = await database.exports.blob(digest)
    if (blob === null || !blob.live || blob.size !== size) return null
    if ((await blobs.head(blob.key))?.size === size) return blob.key
    await database.catalog.markLost(blob.key)
    return null
  }

  /** Whether the bytes of a digest must be sent; commits their key before the first one (R21). */
  async function want(importId: string, digest: string, size: number): Promise<boolean> {
    const before = await imports.stagedBlob(importId, digest)
    if (before?.ready === true && before.size === size) return false
    if (before !== null && before.key !== null) {
      // what an interrupted run has left: a key is written once (R1)
      await blobs.abortParts(before.key, before.handle)
      await blobs.delete([before.key])
    }
    const here = await stored(digest, size)
    const key = here === null ? ids.next() : null
    const space = here === null ? await blobs.space() : null
    if (space !== null && space.free - Math.min(deps.minFree, space.total * 0.05) < size)
      throw new RegistryError(
        'insufficient_storage',
        `The registry's disk has no room for another image of ${size} bytes.`,
        { subject: 'blob' },
      )
    await imports.stageBlob(importId, { digest, size, blobId: ids.next(), key }, until())
    if (key !== null && size > 0) return true
    if (key !== null) {
      // of nothing nothing is sent
      await blobs.put(key, noBytes(), 0, digest)
      await ready(importId, digest, { key, size })
    }
    if (key === null && here !== null) await ready(importId, digest, { key: here, size }, null)
    return false
  }

  /**
   * The bytes are under the key and their digest is right: what is in them is found out here. What
   * repositories have need be no SIF, and may go by its SHA-512; `staged` null: they were here before.
   */
  async function ready(
    importId: string,
    digest: string,
    { key, size, known = null }: { key: string; size: number; known?: ObjectDigests | null },
    staged: string | null = key,
  ): Promise<void> {
    const names = await imports.stagedNames(importId, digest)
    const facts = await inspectBlob(blobs, key, size, { known, check: checkSignatures }).catch(
      (error: unknown) => {
        if (names.length > 0 && isRegistryError(error, 'invalid')) return { opaque: true } as const
        throw error
      },
    )
    const long = names.some((name) => name.startsWith('sha512:'))
    const more = long ? { sha512: await sha512Of(key) } : {}
    await imports.readyBlob(importId, digest, staged, { ...facts, ...more })
  }

  async function sha512Of(key: string): Promise<string> {
    const blob = await blobs.get(key)
    if (blob === null) throw new Error('the blob went while it was being checked')
    const hash = hasher('sha512')
    for await (const chunk of blob.stream()) hash.update(chunk)
    return hash.hex()
  }

  async function startParts(importId: string, digest: string): Promise<string> {
    const { key, handle, size, ready } = await stagedBlob(importId, digest)
    if (key === null || ready) throw alreadyHere()
    if (handle !== null) return handle
    const made = await blobs.startParts(key, size, PART_SIZE)
    await imports.setHandle(importId, digest, key, made)
    return made
  }

  async function putPart(
    importId: string,
    digest: string,
    part: { number: number; size: number },
    body: Bytes,
  ): Promise<{ etag: string }> {
    const { key, handle, size } = await stagedBlob(importId, digest)
    if (key === null || handle === null) throw alreadyHere()
    const expected = Math.min(PART_SIZE, size - (part.number - 1) * PART_SIZE)
    if (part.size !== expected)
      throw new RegistryError(
        'size_mismatch',
        `Part ${part.number} has ${Math.max(expected, 0)} bytes, not ${part.size}.`,
        { subject: 'blob' },
      )
    return blobs.putPart(key, handle, part.number, body, part.size)
  }

  /** `hashed` is of all parts where the caller has hashed them; else they are read again. */
  async function finishParts(
    importId: string,
    digest: string,
    parts: BlobPart[],
    hashed?: ImageHasher,
  ): Promise<void> {
    const { key, handle, size, ready: known } = await stagedBlob(importId, digest)
    if (known) return
    if (key === null || handle === null) throw alreadyHere()
    const info = await blobs.finishParts(key, handle, parts)
    const hash = hashed ?? (await hashBlob(blobs, key))
    if (info.size !== size || hash.hex() !== digest) {
      await blobs.delete([key])
      throw new RegistryError('digest_mismatch', 'These are not the bytes of this digest.', {
        subject: 'blob',
      })
    }
    await ready(importId, digest, { key, size, known: hash.objects() })
  }

  async function put(importId: string, digest: string, size: number, body: Bytes): Promise<void> {
    const staged = await stagedBlob(importId, digest)
    if (staged.ready) return
    if (staged.key === null) throw alreadyHere()
    if (staged.size !== size)
      throw new RegistryError(
        'size_mismatch',
        `This blob has ${staged.size} bytes; the request announces ${size}.`,
        { subject: 'blob' },
      )
    const { key } = staged
    const objects = objectHasher(size)
    const seen = watched(body, (chunk) => objects.update(chunk))
    const known = await blobs.put(key, seen, size, digest).then(
      () => objects.digests(),
      async (error: unknown) => {
        // sent once more because the answer was lost (R40): what is there may be these very bytes
        const stored = isRegistryError(error, 'conflict') ? await hashBlob(blobs, key) : null
        if (stored?.hex() !== digest) throw error
        return stored.objects()
      },
    )
    await ready(importId, digest, { key, size, known })
  }

  /** A large blob in parts, hashed as it passes; we are the one writer of all of them (R3). */
  async function putLarge(id: string, digest: string, size: number, body: Bytes): Promise<void> {
    await startParts(id, digest)
    const hash = imageHasher(size)
    const parts: BlobPart[] = []
    const split = splitter(body, (chunk) => hash.update(chunk))
    for (let number = 1, left = size; left > 0; number += 1) {
      const length = Math.min(PART_SIZE, left)
      const { etag } = await putPart(id, digest, { number, size: length }, split(length))
      parts.push({ number, etag })
      left -= length
    }
    await finishParts(id, digest, parts, hash)
  }

  const sameIssuer = (head: ArchiveHead) =>
    head.registryId === registryId &&
    head.keys.length > 0 &&
    head.keys.every((key) => keyIds.includes(key))

  /** Keys are checked as when they are added, and merged with what is here of them (R42, R46). */
  async function stagedKeys(rows: Extract<MovedRow, { type: 'key' }>[]): Promise<StagedRow[]> {
    const here = await database.keys.several(rows.map(({ fingerprint }) => fingerprint))
    const staged: StagedRow[] = []
    for (const row of rows) {
      const now = clock.now()
      const stored = here.find(({ facts }) => facts.fingerprint === row.fingerprint)
      const [read, ...others] = await readKeys(row.armor, now)
      if (read === undefined || others.length > 0 || read.fingerprint !== row.fingerprint)
        throw new RegistryError(
          'invalid',
          `The key ${row.fingerprint} in this file is another one. Nothing was imported.`,
          { subject: 'key' },
        )
      const { armor, ...facts } =
        stored === undefined ? read : await mergeKeys(stored.facts.armor, read.armor, now)
      const record = { ...row, armor, facts, revision: stored?.revision ?? 0 }
      staged.push({ ...stagedRow(row), record: JSON.stringify(record) })
    }
    return staged
  }

  /** A manifest whose text is whole is checked as at push, and its facts are staged with it (R42). */
  function stagedManifest(row: Extract<MovedRow, { type: 'manifest' }>, rest = ''): StagedRow {
    const bytes = new TextEncoder().encode(row.text + rest)
    const { algorithm, hex } = partsOfDigest(row.digest)
    const hash = hasher(algorithm)
    hash.update(bytes)
    if (hash.hex() !== hex || bytes.length > MAX_MANIFEST)
      throw new RegistryError(
        'invalid',
        `The manifest ${row.digest} in this file is another one. Nothing was imported.`,
        { subject: 'manifest' },
      )
    const facts = parseManifest(row.text + rest, row.mediaType)
    const record = { ...row, ...facts, size: bytes.length }
    return { ...stagedRow(row), record: JSON.stringify(record) }
  }

  /** Manifests in several pieces, the last of which have come. */
  async function stageWhole(
    importId: string,
    rows: Extract<MovedRow, { type: 'piece' }>[],
  ): Promise<void> {
    for (const id of new Set(rows.map((row) => `${row.containerId}/${row.manifest}`))) {
      const { manifest, pieces } = await imports.stagedManifest(importId, id)
      if (manifest === null || pieces.length !== manifest.pieces - 1) continue
      await imports.stageRows(importId, [stagedManifest(manifest, pieces.join(''))], until())
    }
  }

  return {
    async open(head: ArchiveHead): Promise<Import> {
      const { exportId } = head
      return imports.open({ id: ids.next(), exportId, now: clock.now(), expiresAt: until() })
    },

    async stageRows(importId: string, rows: MovedRow[]): Promise<void> {
      const keys = rows.filter((row) => row.type === 'key')
      const others = rows
        .filter((row) => row.type !== 'key')
        .map((row) =>
          row.type === 'manifest' && row.pieces === 1 ? stagedManifest(row) : stagedRow(row),
        )
      const staged = keys.length === 0 ? others : [...others, ...(await stagedKeys(keys))]
      await imports.stageRows(importId, staged, until())
      await stageWhole(
        importId,
        rows.filter((row) => row.type === 'piece'),
      )
    },

    want,
    put,
    startParts,
    putPart,
    finishParts: (importId: string, digest: string, parts: BlobPart[]) =>
      finishParts(importId, digest, parts),

    /**
     * Makes everything visible, or throws `conflict` with the list of what stands in the way.
     * Repeating it after success is success. `by` is who asked, for the logs.
     */
    async finish(
      importId: string,
      end: { head: ArchiveHead; rows: number; sha256: string },
      by: Actor,
    ): Promise<ImportReport> {
      const { now } = by
      const found = await imports.find(importId)
      if (found?.state !== 'done') {
        const conflicts = await imports.conflicts(importId, NAMED + 1)
        if (conflicts.length > 0) throw standsInTheWay(conflicts)
        await imports.finish(importId, {
          sha256: end.sha256,
          rows: end.rows,
          sameIssuer: sameIssuer(end.head),
          keepPower: deps.keepPower ?? false,
          by,
        })
      }
      // by the keys that are here now; what is left is the sweep's (R42)
      await verdicts.sweep('', deps.sweep?.budget.verdicts ?? Infinity)
      const report = await imports.report(importId, { now })
      const { rows, bytes } = report
      log.event('info', 'import', {
        by: nameOf(by),
        export: end.head.exportId,
        images: rows.image,
        users: rows.user,
        teams: rows.team,
        tokens: rows.token,
        keys: rows.key,
        bytes,
      })
      return report
    },

    /** Imports that have not ended, the oldest first, at most 1,000. */
    list: (): Promise<OpenImport[]> => imports.list(),

    /**
     * Ends an import and deletes what it brought; false when it had ended before. One that is done
     * stays done. `by` is who asked, for the log.
     */
    async abort(importId: string, by: Actor): Promise<boolean> {
      if (!(await imports.abort(importId, by.now))) return false
      log.event('info', 'import aborted', { by: nameOf(by), import: importId })
      await clearImports(deps, by.now, deps.sweep?.budget)
      return true
    },

    /** This registry as the sink of a file, for whoever can write the data folder (`cli:` and a name). */
    sink(operator: string): ArchiveSink {
      const by = (): Actor => ({ operator, now: clock.now() })
      return {
        open: (head) => this.open(head),
        rows: (id, rows) => this.stageRows(id, rows),
        async blob(id, { digest, size }, bytes) {
          if (!(await want(id, digest, size))) return
          await (size > WHOLE ? putLarge : put)(id, digest, size, bytes).catch((error: unknown) => {
            if (!isRegistryError(error, 'digest_mismatch')) throw error
            throw new RegistryError(
              'invalid',
              `The bytes of the image ${digest} in this file are not its own, so it was altered or damaged. Nothing was imported.`,
              { cause: error },
            )
          })
        },
        finish: (id, end) => this.finish(id, end, by()),
        abort: async (id) => void (await this.abort(id, by())),
      }
    },
  }
}

const nameOf = (by: Actor) => ('operator' in by ? by.operator : by.userId)

const alreadyHere = () =>
  new RegistryError('conflict', 'Nothing is wanted of this blob: ask first, then send.', {
    subject: 'blob',
  })

function standsInTheWay(conflicts: ImportConflict[]): RegistryError {
  const why: Record<ImportConflict['why'], string> = {
    'holds something': 'holds collections here already',
    'other owner': 'belongs to somebody else here',
    'other user':
      'is somebody else here (a robot, a deleted account, or vouched for by another issuer)',
    'name taken': 'has the name of another one here',
    'id taken': 'has an id that something else has here (was it imported before?)',
  }
  const shown = conflicts.slice(0, NAMED).map((c) => `  ${c.kind} ${c.name} ${why[c.why]}`)
  const more = conflicts.length > NAMED ? ['  and more'] : []
  return new RegistryError(
    'conflict',
    [`Nothing was imported, for this stands in the way:`, ...shown, ...more].join('\n'),
  )
}

const noBytes = (): Bytes => ({ async *[Symbol.asyncIterator]() {} })

/** Cuts a body into consecutive pieces of asked lengths. */
function splitter(body: Bytes, onChunk: (chunk: Uint8Array) => void) {
  const chunks = body[Symbol.asyncIterator]()
  let rest: Uint8Array = new Uint8Array()
  return async function* (length: number): Bytes {
    for (let left = length; left > 0;) {
      if (rest.length === 0) {
        const { done, value } = await chunks.next()
        if (done === true) return
        rest = value
      }
      const piece = rest.subarray(0, left)
      rest = rest.subarray(left)
      left -= piece.length
      onChunk(piece)
      yield piece
    }
  }
}
