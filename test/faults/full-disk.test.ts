/**
 * A full disk, the database's included: 507 with a sentence, nothing left behind, and all is well
 * when the space returns (R39, R50). On a small file system of its own, which needs root.
 */
import { execFileSync } from 'node:child_process'
import { appendFileSync } from 'node:fs'
import { mkdtemp, readdir, rm, rmdir, statfs } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import BetterSqlite3 from 'better-sqlite3'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { buildSif, partition, sampleSif } from '../fixtures/sif.ts'
import { expectData, expectRefusal } from '../protocol/answers.ts'
import { libraryClient, sha256, type LibraryClient } from '../protocol/client.ts'
import { rawRequest } from '../protocol/raw.ts'
import { mint, startServer, type ServerProcess } from './process.ts'

const MIB = 1024 * 1024
const NO_ROOM = /disk|space/

describe('R39, R50: a full disk', () => {
  let disk: string | undefined
  let data: string
  let server: ServerProcess | undefined
  let client: LibraryClient

  beforeEach(async ({ skip }) => {
    disk = await mkdtemp(join(tmpdir(), 'sreg-disk-'))
    try {
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', disk], { stdio: 'pipe' })
    } catch (error) {
      await rmdir(disk)
      disk = undefined
      if (process.env.CI !== undefined) throw error
      skip(`a small disk cannot be mounted here: ${String(error).split('\n').at(-1)}`)
    }
    data = join(disk ?? '', 'data')
    server = await startServer({ data })
    client = libraryClient(server.url, await mint(data, 'alice'))
  })
  afterEach(async () => {
    await server?.kill()
    server = undefined
    if (disk === undefined) return
    execFileSync('umount', [disk])
    await rmdir(disk)
  })

  const imageOf = (name: string, size: number) =>
    buildSif({ objects: [partition({ data: `hsqs ${name}` })], trailing: size })
  const filler = () => join(disk ?? '', 'filler')
  /** Takes the space that is left, all but `leave` bytes. */
  async function fill(leave = 0): Promise<void> {
    for (const size of [65_536, 4096])
      for (;;) {
        const { bavail, bsize } = await statfs(disk ?? '')
        if (bavail * bsize - size < leave) break
        appendFileSync(filler(), Buffer.alloc(size, 1))
      }
  }
  const makeRoom = () => rm(filler())
  const bytesOnTheWay = () => readdir(join(data, 'blobs', 'uploads'))

  async function announce(name: string, bytes: Uint8Array) {
    const { container } = await client.ensure('alice', 'c', name)
    const draft = { hash: `sha256.${sha256(bytes)}`, container }
    const image = expectData(await client.call('POST', '/v1/images', draft)).id as string
    return { image, plan: { filesize: bytes.length, sha256sum: sha256(bytes) } }
  }
  async function expectSound(): Promise<void> {
    const sqlite = new BetterSqlite3(join(data, 'sreg.sqlite3'), { readonly: true })
    expect(sqlite.pragma('integrity_check', { simple: true })).toBe('ok')
    sqlite.close()
    expect((await client.call('GET', '/readyz')).status).toBe(200)
    expect(server?.words()).not.toMatch(/"status":500/)
  }
  async function expectPull(name: string, bytes: Uint8Array): Promise<void> {
    const answer = await fetch(`${client.url}/v1/imagefile/alice/c/${name}?arch=amd64`)
    expect(sha256(new Uint8Array(await answer.arrayBuffer()))).toBe(sha256(bytes))
  }

  test('what does not fit is refused when the upload opens', async () => {
    const bytes = imageOf('large', 9 * MIB)
    const { image, plan } = await announce('large', bytes)
    const at = `/v2/imagefile/${image}`
    expectRefusal(await client.call('POST', at, plan), 507, NO_ROOM)
    expectRefusal(await client.call('POST', `${at}/_multipart`, plan), 507, NO_ROOM)
    expectRefusal(await client.call('POST', `/v1/imagefile/${image}`, bytes), 507, NO_ROOM)
    expect(await bytesOnTheWay()).toEqual([])

    const first = await announce('first', imageOf('first', 4 * MIB))
    const second = await announce('second', imageOf('second', 4 * MIB))
    expectData(await client.call('POST', `/v2/imagefile/${first.image}`, first.plan))
    expectRefusal(
      await client.call('POST', `/v2/imagefile/${second.image}`, second.plan),
      507,
      NO_ROOM,
    )
    const small = sampleSif()
    await client.push('alice/c/small', small)
    await expectPull('small', small)
    await expectSound()
  })

  test('a disk filled by others in the middle of a single upload', async () => {
    const bytes = imageOf('cut', 3 * MIB)
    const { image, plan } = await announce('cut', bytes)
    const opened = await client.call('POST', `/v2/imagefile/${image}`, plan)
    const { pathname, search } = new URL(expectData(opened).uploadURL)
    const put = rawRequest(
      client.url,
      [`PUT ${pathname}${search} HTTP/1.1`, `Content-Length: ${bytes.length}`],
      bytes.subarray(0, 100_000),
    )
    await fill()
    put.socket.write(bytes.subarray(100_000))
    expectRefusal(await put.answer, 507, NO_ROOM)
    expect(await bytesOnTheWay()).toEqual([])
    expect((await client.call('GET', '/healthz')).status).toBe(200)

    await makeRoom()
    await client.push('alice/c/cut', bytes)
    await expectPull('cut', bytes)
    // With the reservation of the first attempt still held, this one would not fit beside it.
    const { bavail, bsize } = await statfs(disk ?? '')
    const rest = imageOf('rest', bavail * bsize - MIB)
    await client.push('alice/c/rest', rest)
    await expectSound()
  })

  test('a disk filled by others in the middle of an upload in parts', async () => {
    const bytes = imageOf('parts', 3 * MIB)
    const { image, plan } = await announce('parts', bytes)
    const at = `/v2/imagefile/${image}/_multipart`
    const { uploadID } = expectData(await client.call('POST', at, plan))
    const part = { uploadID, partNumber: 1, partSize: bytes.length, sha256sum: sha256(bytes) }
    const signed = expectData(await client.call('PUT', at, part)).presignedURL
    await fill(MIB)
    expectRefusal(await client.call('PUT', signed, bytes), 507, NO_ROOM)
    expect(await bytesOnTheWay()).toEqual([])

    await makeRoom()
    await client.push('alice/c/parts', bytes)
    await expectPull('parts', bytes)
    await expectSound()
  })

  test('no room for the database: 507, reads go on, and nothing is half done', async () => {
    const bytes = sampleSif()
    const { image } = await announce('late', bytes)
    await client.push('alice/c/before', sampleSif({ content: 'before' }))
    const { collection } = await client.ensure('alice', 'c', 'late')
    await fill()
    let made = 0
    let refused: Awaited<ReturnType<typeof client.call>> | undefined
    while (refused === undefined && made < 2000) {
      const draft = { name: `full${made}`, collection, private: false }
      const answer = await client.call('POST', '/v1/containers', draft)
      if (answer.status === 200) made += 1
      else refused = answer
    }
    expectRefusal(refused ?? (await client.call('GET', '/healthz')), 507, NO_ROOM)
    expectRefusal(await client.call('POST', `/v1/imagefile/${image}`, bytes), 507, NO_ROOM)
    expect((await client.call('GET', '/v1/containers/alice/c/before')).status).toBe(200)
    expect((await client.call('GET', '/healthz')).status).toBe(200)

    await makeRoom()
    await client.push('alice/c/late', bytes)
    await expectPull('late', bytes)
    await expectSound()
    const { images } = expectData(await client.call('GET', '/v1/containers/alice/c/late'))
    expect(images).toEqual([image])

    // The same after a crash on the full disk.
    await fill()
    await client.call('POST', '/v1/containers', { name: 'crashed', collection, private: false })
    await server?.kill()
    await makeRoom()
    server = await startServer({ data })
    client = libraryClient(server.url, client.token)
    await expectPull('late', bytes)
    await expectSound()
  })
})
