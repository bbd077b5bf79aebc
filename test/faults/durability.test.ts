/**
 * An strace of one push: the blob, its folder and the database are on the disk, in that order,
 * before the client hears that its image is there (R11, R39).
 */
import { execFileSync } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { buildSif, partition, sampleSif } from '../fixtures/sif.ts'
import { libraryClient, sha256, type LibraryClient } from '../protocol/client.ts'
import { mint, startServer, type ServerProcess } from './process.ts'

/** A folder on a disk, where scripts/test.mjs has put temporary files into memory. */
const DISK = process.env['SREG_TEST_DISK'] ?? tmpdir()

const PART = 64 * 1024 * 1024
const CALLS =
  'fsync,fdatasync,rename,renameat,renameat2,link,linkat,write,writev,pwrite64,pwritev,pwritev2,sendto'

/** Why strace cannot be used here, or null; in CI it has to work. */
function withoutStrace(): string | null {
  try {
    execFileSync('strace', ['-f', '-o', '/dev/null', '-e', 'trace=fsync', 'true'])
    return null
  } catch (error) {
    return `strace does not work here: ${String(error).split('\n')[0]}`
  }
}

type Call = { name: string; text: string; started: number; ended: number }

/** The system calls that succeeded, in the order in which they ended, those of threads put together. */
function parseTrace(text: string): Call[] {
  const calls: Call[] = []
  const open = new Map<string, { name: string; text: string; started: number }>()
  for (const [at, line] of text.split('\n').entries()) {
    const [, pid = '', rest = ''] = /^(\d+) +(.*)$/.exec(line) ?? []
    const begun = /^(\w+)\((.*) <unfinished \.\.\.>$/.exec(rest)
    if (begun !== null) {
      open.set(pid, { name: begun[1] ?? '', text: begun[2] ?? '', started: at })
      continue
    }
    const resumed = /^<\.\.\. (\w+) resumed>(.*) = (-?\d+)/.exec(rest)
    const whole = /^(\w+)\((.*) = (-?\d+)/.exec(rest)
    const [, name = '', more = '', result = '-1'] = resumed ?? whole ?? []
    if (Number(result) < 0) continue
    const former = resumed === null ? undefined : open.get(pid)
    calls.push({
      name,
      text: (former?.text ?? '') + more,
      started: former?.started ?? at,
      ended: at,
    })
  }
  return calls
}

describe('R11, R39: what is on the disk before a push is answered', () => {
  let folder = 'none'
  let trace: string
  let data: string
  let token: string | null
  let server: ServerProcess | undefined
  let client: LibraryClient
  beforeEach(async ({ skip }) => {
    const reason = withoutStrace()
    if (reason !== null && process.env.CI === undefined) skip(reason)
    folder = await mkdtemp(join(DISK, 'sreg-trace-'))
    trace = join(folder, 'trace')
    data = join(folder, 'data')
    token = null
    await start('-s', '4096', '-e', `trace=${CALLS}`)
  })
  afterEach(async () => {
    await server?.kill('SIGTERM')
    await rm(folder, { recursive: true, force: true })
  })

  async function start(...options: string[]): Promise<void> {
    // -D: strace steps aside, so that the process we signal is the server.
    const under = ['strace', '-D', '-f', '-qq', '-yy', ...options, '-o', trace]
    server = await startServer({ data, under })
    token ??= await mint(data, 'alice')
    client = libraryClient(server.url, token)
  }

  async function announce(bytes: Uint8Array): Promise<string> {
    const { container } = await client.ensure('alice', 'c', 'traced')
    const draft = { hash: `sha256.${sha256(bytes)}`, container }
    return (await client.call('POST', '/v1/images', draft)).json.data.id
  }

  /** The order of events up to the answer of the completion. */
  async function expectOrder(): Promise<void> {
    expect(await server?.kill('SIGTERM')).toBe(0)
    const calls = parseTrace(await readFile(trace, 'utf8'))
    const synced = (path: RegExp) => (call: Call) =>
      /^f(?:data)?sync$/.test(call.name) && path.test(call.text)
    const answer = calls.findIndex(
      ({ name, text }) => /^(?:write|writev|sendto)$/.test(name) && /<TCP.*containerUrl/.test(text),
    )
    expect(answer, 'the answer of the completion is in the trace').toBeGreaterThan(0)
    const published = calls.findIndex(
      ({ name, text }) => /^(?:link|rename)/.test(name) && /\/uploads\/[0-9a-f]{24}\./.test(text),
    )
    const [, key = 'none'] = /uploads\/([0-9a-f]{24})\./.exec(calls[published]?.text ?? '') ?? []
    const bytes = new RegExp(`/uploads/${key}\\.[0-9a-f]+(?:\\.put)?>`)
    const received = calls.findLastIndex(
      ({ name, text }) => /^p?writev?/.test(name) && bytes.test(text),
    )
    // The last one: what came after an early sync is not on the disk by that.
    const blob = calls.slice(0, published).findLastIndex(synced(bytes))
    const folder = calls.findIndex(synced(new RegExp(`/blobs/blobs/${key.slice(0, 2)}>`)))
    const wal = (call: Call) => /sreg\.sqlite3-wal>/.test(call.text)
    const before = calls.slice(0, answer)
    const written = before.findLastIndex((call) => call.name === 'pwrite64' && wal(call))
    const database = before.findLastIndex((call) => synced(/./)(call) && wal(call))
    const order = [received, blob, published, folder, written, database, answer]
    expect(Math.min(...order), `not found: ${order.join(' ')}`).toBeGreaterThan(-1)
    for (const [i, at] of order.slice(1).entries())
      expect(
        calls[at]?.started,
        `${calls[at]?.name} ${calls[at]?.text.slice(0, 200)}`,
      ).toBeGreaterThan(calls[order[i] ?? 0]?.ended ?? 0)
  }

  test('a single upload', async () => {
    const bytes = sampleSif()
    const image = await announce(bytes)
    const opened = await client.call('POST', `/v2/imagefile/${image}`, {
      filesize: bytes.length,
      sha256sum: sha256(bytes),
    })
    expect((await client.call('PUT', opened.json.data.uploadURL, bytes)).status).toBe(200)
    expect((await client.call('PUT', `/v2/imagefile/${image}/_complete`, {})).status).toBe(200)
    await expectOrder()
  })

  /** Pushes in parts as far as it goes; the statuses of the parts and of the completion. */
  async function pushParts(bytes: Uint8Array): Promise<number[]> {
    const image = await announce(bytes)
    const at = `/v2/imagefile/${image}/_multipart`
    const { uploadID } = (await client.call('POST', at, { filesize: bytes.length })).json.data
    const completedParts: { partNumber: number; token: string }[] = []
    const statuses: number[] = []
    for (const partNumber of [1, 2]) {
      const part = bytes.subarray((partNumber - 1) * PART, partNumber * PART)
      // as clients send it to a store on disk (decision 23)
      const plan = { uploadID, partNumber, partSize: part.length, sha256sum: '' }
      const signed = await client.call('PUT', at, plan)
      const sent = await client.call('PUT', signed.json.data.presignedURL, part)
      statuses.push(sent.status)
      // a part that came after the upload had ended has none; the completion is asked all the same
      completedParts.push({ partNumber, token: sent.headers.get('etag') ?? 'none' })
    }
    const done = await client.call('PUT', `${at}_complete`, { uploadID, completedParts })
    return [...statuses, done.status]
  }

  test('an upload in parts', async () => {
    expect(await pushParts(buildSif({ objects: [partition()], trailing: PART }))).toEqual([
      200, 200, 200,
    ])
    await expectOrder()
  })

  test('a sync that fails while more is received ends the upload for good', async () => {
    await server?.kill('SIGTERM')
    // Of the calls that sync, this one is used for uploads on their way alone.
    await start('-e', 'trace=fdatasync', '-e', 'inject=fdatasync:error=EIO')
    const bytes = buildSif({ objects: [partition()], trailing: PART })
    expect((await pushParts(bytes)).at(-1)).toBe(404)
    expect(await readFile(trace, 'utf8')).toMatch(/fdatasync\(.*EIO.*\(INJECTED\)/)
    const file = `/v1/imagefile/alice/c/traced:sha256.${sha256(bytes)}`
    expect((await client.call('GET', file)).status).toBe(404)
    expect(await readdir(join(data, 'blobs/uploads'))).toEqual([])
    // The kernel tells of a loss once: what is sent again must be written again.
    await server?.kill('SIGTERM')
    await start('-e', 'trace=none')
    expect(await pushParts(bytes)).toEqual([200, 200, 200])
    expect((await client.call('HEAD', file)).status).toBe(200)
  })
})
