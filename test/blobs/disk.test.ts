/** The disk store against the contract, and what only a disk can get wrong. */
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  appendFile,
  chmod,
  link,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { diskBlobs } from '../../adapters/blobs/disk.ts'
import {
  bodyOf,
  describeBlobStore,
  inPieces,
  newKey,
  outcome,
  PART,
  readBlob,
  stallingBody,
} from '../contract/blob-store.ts'
import type { Made } from '../contract/blob-store.ts'

/** A folder on a disk, where scripts/test.mjs has put temporary files into memory. */
const DISK = process.env['SREG_TEST_DISK'] ?? tmpdir()

const MIB = 1024 * 1024

type OnDisk = Made & { root: string; path: (key: string) => string }

async function openIn(folder: string): Promise<OnDisk> {
  const root = join(folder, 'data', 'store')
  return {
    root,
    store: await diskBlobs({ root }),
    path: (key) => join(root, 'blobs', key.slice(0, 2), key),
    async leftovers() {
      const temporaries = await readdir(join(root, 'uploads'))
      return [...temporaries, ...(await openFiles(root))]
    },
    dispose: () => rm(folder, { recursive: true }),
  }
}

it('says that the disk is away, and not that a blob is missing (R10, R60)', async () => {
  const { store, root, dispose } = await make()
  try {
    await store.writeId('registry')
    const [key, other] = [newKey(), newKey()]
    const body = new Uint8Array(10)
    await store.put(key, bodyOf(body), body.length)
    const away = async () => [await outcome(store.head(key)), await outcome(store.get(other))]
    expect(await store.head(other)).toBeNull()
    // nothing is mounted there, or something else, or of another registry
    for (const folder of ['blobs', 'uploads']) {
      await rename(join(root, folder), join(root, 'away'))
      expect(await away()).toContain('unavailable')
      await rename(join(root, 'away'), join(root, folder))
    }
    await rename(join(root, 'blobs'), join(root, 'away'))
    await mkdir(join(root, 'blobs'))
    await rename(join(root, 'registry-id'), join(root, 'id'))
    expect(await away()).toEqual(['unavailable', 'unavailable'])
    await rm(join(root, 'blobs'), { recursive: true })
    await rename(join(root, 'away'), join(root, 'blobs'))
    await rename(join(root, 'id'), join(root, 'registry-id'))
    expect(await store.head(key)).toMatchObject({ size: 10 })
    expect(await store.head(other)).toBeNull()
  } finally {
    await dispose()
  }
})

const make = async () => openIn(await mkdtemp(join(DISK, 'sreg-blobs-')))

/** What this process holds open below `root`; nothing where the system does not tell. */
async function openFiles(root: string): Promise<string[]> {
  const descriptors = await readdir('/proc/self/fd').catch(() => [])
  const targets = await Promise.all(
    descriptors.map((name) => readlink(join('/proc/self/fd', name)).catch(() => '')),
  )
  return targets.filter((target) => target.startsWith(root)).map((target) => `open: ${target}`)
}

describeBlobStore('disk', {
  make,
  extra(test) {
    test('gives chunks back when they are in the file, and not before', async ({ store }) => {
      const bytes = randomBytes(3 * MIB + 5)
      const [one, two] = [newKey(), newKey()]
      let freed = 0
      /** Whoever looks at a chunk after it was freed sees zeros. */
      const body = () => ({
        [Symbol.asyncIterator]: () => inPieces(Buffer.from(bytes))[Symbol.asyncIterator](),
        free(chunk: Uint8Array) {
          freed += chunk.length
          chunk.fill(0)
        },
      })
      await store.put(one, body(), bytes.length)
      expect(freed).toBe(bytes.length)
      const handle = await store.startParts(two, bytes.length, 4 * MIB)
      const part = await store.putPart(two, handle, 1, body(), bytes.length)
      await store.finishParts(two, handle, [{ number: 1, etag: part.etag }])
      expect(freed).toBe(2 * bytes.length)
      for (const key of [one, two]) expect((await readBlob(store, key))?.equals(bytes)).toBe(true)
    })

    test('keeps folders and blobs to itself, and blobs read-only (R1)', async (made) => {
      const { store, root, path } = made
      const [one, two] = [newKey(), newKey()]
      await store.put(one, bodyOf(Buffer.from('one')), 3)
      const handle = await store.startParts(two, 3, PART)
      const { etag } = await store.putPart(two, handle, 1, bodyOf(Buffer.from('two')), 3)
      const mode = async (file: string) => ((await stat(file)).mode & 0o7777).toString(8)
      for (const name of await readdir(join(root, 'uploads'))) {
        expect(await mode(join(root, 'uploads', name))).toBe('600')
      }
      await store.finishParts(two, handle, [{ number: 1, etag }])
      await store.writeId('registry')
      for (const file of [path(one), path(two), join(root, 'registry-id')]) {
        expect(await mode(file)).toBe('400')
        expect((await stat(file)).nlink).toBe(1)
      }
      for (const folder of ['', 'blobs', 'uploads', join('blobs', one.slice(0, 2))]) {
        expect(await mode(join(root, folder))).toBe('700')
      }
      await chmod(join(root, 'blobs'), 0o755)
      await chmod(join(root, 'uploads'), 0o777)
      await diskBlobs({ root })
      expect(await mode(join(root, 'blobs'))).toBe('700')
      expect(await mode(join(root, 'uploads'))).toBe('700')
    })

    test('follows no symlink (R39)', async ({ store, root, path }) => {
      const key = newKey()
      const secret = join(root, '..', 'secret')
      await writeFile(secret, 'not yours')
      await mkdir(join(root, 'blobs', key.slice(0, 2)))
      await symlink(secret, path(key))
      await expect(store.get(key)).rejects.toThrow()
      await expect(store.head(key)).rejects.toThrow()
      expect(await outcome(store.put(key, bodyOf(Buffer.from('x')), 1))).toBe('conflict')
      expect((await store.list(null, 10)).blobs).toEqual([])
      await store.delete([key])
      expect(await readFile(secret, 'utf8')).toBe('not yours')

      const handle = await store.startParts(key, 4, PART)
      const temporary = join(root, 'uploads', `${key}.${handle}`)
      await rm(temporary)
      await symlink(secret, temporary)
      await expect(store.putPart(key, handle, 1, bodyOf(Buffer.from('evil')), 4)).rejects.toThrow()
      await store.abortParts(key, handle)
      expect(await readFile(secret, 'utf8')).toBe('not yours')
    })

    test('lists only what it stored itself', async ({ store, root, path }) => {
      const key = newKey()
      await store.put(key, bodyOf(Buffer.from('x')), 1)
      await writeFile(`${path(key)}.bak`, '')
      await mkdir(join(root, 'blobs', 'lost+found'))
      await writeFile(join(root, 'blobs', 'lost+found', newKey()), '')
      expect((await store.list(null, 10)).blobs.map((blob) => blob.key)).toEqual([key])
    })

    test('goes on with an upload in parts after a restart (R21)', async ({ store, root }) => {
      const bytes = randomBytes(2 * PART + 5)
      const slice = (number: number) => bytes.subarray((number - 1) * PART, number * PART)
      const key = newKey()
      const handle = await store.startParts(key, bytes.length, PART)
      const one = await store.putPart(key, handle, 1, inPieces(slice(1)), PART)
      const old = await store.putPart(key, handle, 2, inPieces(randomBytes(PART)), PART)

      const second = await diskBlobs({ root })
      const two = await second.putPart(key, handle, 2, inPieces(slice(2)), PART)
      const three = await second.putPart(key, handle, 3, inPieces(slice(3)), 5)

      const third = await diskBlobs({ root })
      const parts = (etag: string) => [
        { number: 1, etag: one.etag },
        { number: 2, etag },
        { number: 3, etag: three.etag },
      ]
      expect(await outcome(third.finishParts(key, handle, parts(old.etag)))).toBe('invalid')
      const info = await third.finishParts(key, handle, parts(two.etag))
      expect((await readBlob(third, key))?.equals(bytes)).toBe(true)

      const fourth = await diskBlobs({ root })
      expect(await fourth.finishParts(key, handle, parts(two.etag))).toEqual(info)
      const late = fourth.putPart(key, handle, 2, inPieces(randomBytes(PART)), PART)
      expect(await outcome(late)).toBe('not_found')
      expect((await readBlob(fourth, key))?.equals(bytes)).toBe(true)
    })

    test('forgets a part that was being replaced when the process died', async (made) => {
      const { store, root } = made
      const key = newKey()
      const handle = await store.startParts(key, PART, PART)
      const { etag } = await store.putPart(key, handle, 1, inPieces(randomBytes(PART)), PART)
      const half = stallingBody(randomBytes(PART / 2), randomBytes(PART / 2))
      const dying = outcome(store.putPart(key, handle, 1, half.body, PART))
      await half.stalled
      const restarted = await diskBlobs({ root })
      const finish = restarted.finishParts(key, handle, [{ number: 1, etag }])
      expect(await outcome(finish)).toBe('invalid')
      await restarted.abortParts(key, null)
      await store.abortParts(key, handle)
      expect(await dying).toBe('not_found')
    })

    test('reads over a torn line of the journal, and writes after it', async (made) => {
      const { store, root } = made
      const key = newKey()
      const bytes = randomBytes(PART + 5)
      const handle = await store.startParts(key, bytes.length, PART)
      const one = await store.putPart(key, handle, 1, inPieces(bytes.subarray(0, PART)), PART)
      const journal = join(root, 'uploads', `${key}.${handle}.journal`)
      await appendFile(journal, '\n{"number":2,"et')
      const second = await diskBlobs({ root })
      const claimed = [
        { number: 1, etag: one.etag },
        { number: 2, etag: '"et"' },
      ]
      expect(await outcome(second.finishParts(key, handle, claimed))).toBe('invalid')
      const two = await second.putPart(key, handle, 2, inPieces(bytes.subarray(PART)), 5)
      const third = await diskBlobs({ root })
      const parts = [claimed[0]!, { number: 2, etag: two.etag }]
      await third.finishParts(key, handle, parts)
      expect((await readBlob(third, key))?.equals(bytes)).toBe(true)
    })

    test('takes no part into a blob whose finish died before tidying up (R1)', async (made) => {
      const { store, root, path } = made
      const key = newKey()
      const bytes = randomBytes(PART)
      const handle = await store.startParts(key, PART, PART)
      const { etag } = await store.putPart(key, handle, 1, inPieces(bytes), PART)
      // The state between link() and the removal of the temporary.
      await mkdir(join(root, 'blobs', key.slice(0, 2)))
      await link(join(root, 'uploads', `${key}.${handle}`), path(key))
      const restarted = await diskBlobs({ root })
      const late = restarted.putPart(key, handle, 1, inPieces(randomBytes(PART)), PART)
      expect(await outcome(late)).toBe('not_found')
      const info = await restarted.finishParts(key, handle, [{ number: 1, etag }])
      expect(info).toEqual(await restarted.head(key))
      expect((await readBlob(restarted, key))?.equals(bytes)).toBe(true)
    })

    test('creates nothing for an upload another process has aborted (R22)', async (made) => {
      const { store, root } = made
      const key = newKey()
      const handle = await store.startParts(key, 2 * PART, PART)
      const put = (number: number) =>
        store.putPart(key, handle, number, inPieces(randomBytes(PART)), PART)
      const { etag } = await put(1)
      const half = stallingBody(randomBytes(PART / 2), randomBytes(PART / 2))
      const running = outcome(store.putPart(key, handle, 2, half.body, PART))
      await half.stalled
      await (await diskBlobs({ root })).abortParts(key, null)
      await half.release()
      expect(await running).toBe('not_found')
      for (const number of [1, 2]) expect(await outcome(put(number))).toBe('not_found')
      const finish = store.finishParts(key, handle, [{ number: 1, etag }])
      expect(await outcome(finish)).toBe('invalid')
      expect(await made.leftovers()).toEqual([])
      await store.abortParts(key, handle)
    })

    test('publishes nothing of a put whose key was aborted meanwhile', async ({ store }) => {
      const key = newKey()
      const half = stallingBody(randomBytes(MIB), randomBytes(MIB))
      const running = outcome(store.put(key, half.body, 2 * MIB))
      await half.stalled
      await store.abortParts(key, null)
      await half.release()
      expect(await running).toBe('not_found')
      expect(await store.head(key)).toBe(null)
    })

    test('removes old temporaries of put at start, and no others', async ({ store, root }) => {
      const key = newKey()
      const handle = await store.startParts(key, PART, PART)
      const uploads = join(root, 'uploads')
      const [old, young] = [`${newKey()}.${newKey()}.put`, `${newKey()}.${newKey()}.put`]
      for (const name of [old, young]) await writeFile(join(uploads, name), 'half')
      const longAgo = Date.parse('2020-01-01')
      for (const name of [old, `${key}.${handle}`, `${key}.${handle}.journal`]) {
        await utimes(join(uploads, name), longAgo / 1000, longAgo / 1000)
      }
      await diskBlobs({ root })
      expect((await readdir(uploads)).sort()).toEqual(
        [young, `${key}.${handle}`, `${key}.${handle}.journal`].sort(),
      )
      await store.abortParts(key, null)
      await store.abortParts(young.slice(0, 24), null)
    })

    test('says so when its folders are gone, and makes no others', async ({ store, root }) => {
      await rm(join(root, 'blobs'), { recursive: true })
      await expect(store.ping()).rejects.toThrow()
      await expect(store.put(newKey(), bodyOf(Buffer.from('x')), 1)).rejects.toThrow()
      expect((await readdir(root)).sort()).toEqual(['uploads'])
    })

    test('keeps serving a blob to who opened it before it was deleted', async ({ store }) => {
      const key = newKey()
      const bytes = randomBytes(2 * MIB)
      await store.put(key, inPieces(bytes), bytes.length)
      const read = await store.get(key)
      await store.delete([key])
      const chunks: Uint8Array[] = []
      for await (const chunk of read!.stream()) chunks.push(chunk)
      expect(Buffer.concat(chunks).equals(bytes)).toBe(true)
    })

    test('breaks instead of ending when a blob is cut while it is read (R5)', async (made) => {
      const key = newKey()
      await made.store.put(key, inPieces(randomBytes(2 * MIB)), 2 * MIB)
      const read = await made.store.get(key)
      await chmod(made.path(key), 0o600)
      await truncate(made.path(key), MIB)
      let received = 0
      const reading = (async () => {
        for await (const chunk of read!.stream()) received += chunk.length
      })()
      await expect(reading).rejects.toThrow('shorter')
      expect(received).toBe(MIB)
    })
  },
})

it('leaves nothing on a full disk and works again once there is space (R39)', async (context) => {
  const folder = await mkdtemp(join(tmpdir(), 'sreg-full-'))
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', folder], {
    encoding: 'utf8',
  })
  if (mounted.status !== 0) {
    await rm(folder, { recursive: true })
    const reason = `no file system may be mounted here: ${mounted.stderr || mounted.error?.message}`
    if (process.env['CI'] !== undefined) throw new Error(reason)
    context.skip(reason)
  }
  try {
    const { store, root, leftovers } = await openIn(folder)
    const key = newKey()
    const put = (size: number) => outcome(store.put(key, inPieces(randomBytes(size)), size))
    expect(await put(6 * MIB)).toBe('insufficient_storage')
    expect(await leftovers()).toEqual([])

    const handle = await store.startParts(key, 6 * MIB, 3 * MIB)
    const part = (number: number, bytes: Uint8Array) =>
      store.putPart(key, handle, number, inPieces(bytes), bytes.length)
    const [first, second] = [randomBytes(3 * MIB), randomBytes(3 * MIB)]
    const { etag } = await part(1, first)
    expect(await outcome(part(2, second))).toBe('insufficient_storage')
    const gap = [
      { number: 1, etag },
      { number: 2, etag },
    ]
    expect(await outcome(store.finishParts(key, handle, gap))).toBe('invalid')
    await store.abortParts(key, handle)
    expect(await leftovers()).toEqual([])

    const filler = join(root, 'filler')
    await writeFile(filler, Buffer.alloc(4 * MIB)).catch(() => {})
    expect((await store.space())?.free).toBe(0)
    expect(await put(1)).toBe('insufficient_storage')
    expect(await outcome(store.startParts(key, MIB, MIB))).toBe('insufficient_storage')
    expect(await outcome(store.writeId('registry'))).toBe('insufficient_storage')
    expect(await leftovers()).toEqual([])
    expect(await store.readId()).toBe(null)
    // A server must come up on a full disk: how else would it delete?
    await diskBlobs({ root })

    await rm(filler)
    expect(await put(3 * MIB)).toBe('ok')
    expect((await store.head(key))?.size).toBe(3 * MIB)
    await store.writeId('registry')
    expect(await leftovers()).toEqual([])
  } finally {
    spawnSync('umount', [folder])
    await rm(folder, { recursive: true })
  }
})
