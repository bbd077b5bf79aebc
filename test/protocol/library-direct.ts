/** Bytes that pass the registry by: addresses of the store itself (R2, R4, R5; protocol.md §4, §5). */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { buildSif, sampleSif } from '../fixtures/sif.ts'
import type { Target, TargetOptions } from '../runtimes/target.ts'
import { expectData, expectRefusal } from './answers.ts'
import { libraryClient, putBytes, sha256, type LibraryClient } from './client.ts'

const MIB = 1024 * 1024
const PART = 64 * MIB

export type DirectTarget = Target & {
  /** Paths of blobs that the registry itself read whole since the last call. */
  readBacks(): string[]
}

export function describeDirect(
  name: string,
  makeTarget: (options?: TargetOptions) => Promise<DirectTarget>,
): void {
  describe(`past us: ${name}`, () => {
    let target: DirectTarget
    let url: string
    let alice: LibraryClient
    let nobody: LibraryClient
    const small = sampleSif({ content: 'small' })
    const large = buildSif({ objects: [{ type: 'generic', data: 'large' }], trailing: 16 * MIB })
    beforeAll(async () => {
      target = await makeTarget()
      url = target.url
      alice = libraryClient(url, (await target.mint('alice')).jwt)
      nobody = libraryClient(url)
      await alice.push('alice/past/small', small)
      await alice.push('alice/past/large', large, { privateContainer: true })
    })
    afterAll(() => target.stop())

    const locate = async (ref: string, headers: Record<string, string> = {}, who = alice) => {
      const answer = await who.call('GET', `/v1/imagefile/${ref}?arch=amd64`, undefined, headers)
      return { answer, location: answer.headers.get('location') ?? '' }
    }
    const read = async (location: string, headers: Record<string, string> = {}) => {
      const answer = await fetch(location, { headers })
      return {
        status: answer.status,
        headers: answer.headers,
        bytes: Buffer.from(await answer.arrayBuffer()),
      }
    }

    describe('downloads', () => {
      for (const [ref, bytes] of [
        ['alice/past/small', small],
        ['alice/past/large', large],
      ] as const)
        test(`${ref}: a 303 to the store, which honours ranges and asks for nothing`, async () => {
          const { answer, location } = await locate(ref)
          expect(answer.status).toBe(303)
          expect(answer.headers.get('cache-control')).toContain('no-store')
          expect(location.startsWith(url)).toBe(false)
          expect(answer.headers.get('content-length')).toBe('0')
          const whole = await read(location)
          expect([whole.status, sha256(whole.bytes)]).toEqual([200, sha256(bytes)])
          expect(whole.headers.get('content-type')).toBe('application/octet-stream')
          const container = ref.split('/')[2] ?? ''
          expect(whole.headers.get('content-disposition')).toBe(
            `attachment; filename="${container}_latest.sif"`,
          )
          const last = bytes.length - 1
          for (const [start, end] of [
            [0, 0],
            [5, 1000],
            [last - 9, last],
          ] as const) {
            const part = await read(location, { range: `bytes=${start}-${end}` })
            expect(part.status).toBe(206)
            expect(part.headers.get('content-range')).toBe(`bytes ${start}-${end}/${bytes.length}`)
            expect(part.bytes.equals(bytes.subarray(start, end + 1))).toBe(true)
          }
        })

      test('an altered address, another object, another filename: refused', async () => {
        const { location } = await locate('alice/past/small')
        const other = await locate('alice/past/large')
        const path = new URL(other.location).pathname
        const moved = new URL(location)
        moved.pathname = path
        for (const altered of [
          moved.href,
          location.replace(/(X-Amz-Signature=)./, '$1g'),
          location.replace('X-Amz-Expires=', 'X-Amz-Expires=1'),
          location.replace('_latest', '_other'),
        ]) {
          expect(altered).not.toBe(location)
          expect((await read(altered)).status).toBe(403)
        }
      })

      test('who may not read gets no address (R26)', async () => {
        expectRefusal((await locate('alice/past/large', {}, nobody)).answer, 404)
        expectRefusal((await locate('alice/past/none')).answer, 404)
      })

      test('clients that leak their token are not sent away', async () => {
        for (const agent of [
          'Apptainer/1.1.0 (Linux amd64) Go/1.19',
          'Apptainer/1.1.5 (Linux amd64) Go/1.19',
          'Singularity/3.10.0 (Linux amd64) Go/1.18',
          'Singularity-CE/3.10.4 (Linux amd64) Go/1.18',
        ]) {
          const headers = { 'user-agent': agent }
          const one = await locate('alice/past/small', headers)
          expect([agent, one.answer.status]).toEqual([agent, 200])
          const two = await locate('alice/past/large', headers)
          expect(two.location.startsWith(`${url}/v1/blob?t=`)).toBe(true)
          expect(sha256((await read(two.location)).bytes)).toBe(sha256(large))
        }
        for (const agent of ['Apptainer/1.1.6 x', 'Apptainer/1.1.10 x', 'Singularity/3.10.5 x']) {
          const { answer } = await locate('alice/past/small', { 'user-agent': agent })
          expect([agent, answer.status]).toEqual([agent, 303])
        }
      })

      test('a range asked of ourselves is answered by ourselves', async () => {
        const answer = await read(`${url}/v1/imagefile/alice/past/small`, { range: 'bytes=2-11' })
        expect(answer.status).toBe(206)
        expect(answer.bytes.equals(small.subarray(2, 12))).toBe(true)
      })

      test('bytes that are gone are said, not redirected to (R5)', async () => {
        const before = new Set(await target.store.names())
        await alice.push('alice/past/gone', sampleSif({ content: 'gone' }))
        const [blob = ''] = (await target.store.names()).filter((name) => !before.has(name))
        await target.store.cut(blob, 100)
        expectRefusal((await locate('alice/past/gone')).answer, 500, /gone/)
        await target.store.remove(blob)
        expectRefusal((await locate('alice/past/gone')).answer, 500, /gone/)
      })
    })

    describe('uploads', () => {
      async function announce(ref: string, bytes: Uint8Array) {
        const [entity = '', collection = '', container = ''] = ref.split('/')
        const ids = await alice.ensure(entity, collection, container)
        const body = { hash: `sha256.${sha256(bytes)}`, container: ids.container }
        return expectData(await alice.call('POST', '/v1/images', body)).id as string
      }
      const openSingle = async (image: string, filesize: number) =>
        expectData(await alice.call('POST', `/v2/imagefile/${image}`, { filesize }))
          .uploadURL as string

      test('the address takes the image and nothing else (R2, R4)', async () => {
        const bytes = sampleSif({ content: 'nothing else' })
        const image = await announce('alice/past/only', bytes)
        const at = await openSingle(image, bytes.length)
        const { searchParams } = new URL(at)
        expect(searchParams.get('partNumber')).toBe('1')
        expect(searchParams.get('uploadId')).toBeTruthy()
        expect(searchParams.get('X-Amz-SignedHeaders')?.split(';').toSorted()).toEqual([
          'content-length',
          'host',
          'x-amz-content-sha256',
        ])
        expect(Number(searchParams.get('X-Amz-Expires'))).toBeLessThanOrEqual(3600)
        const other = bytes.slice()
        other[500] = 1
        const refusals = [
          putBytes(at, other),
          putBytes(at, other, sha256(bytes)),
          putBytes(at, bytes.subarray(1)),
          putBytes(at, Buffer.concat([bytes, Buffer.alloc(1)])),
          putBytes(at.replace('partNumber=1', 'partNumber=2'), bytes),
          fetch(at, { method: 'PUT', body: bytes as BodyInit }),
          fetch(at, { method: 'DELETE' }),
          fetch(at),
        ]
        for (const refused of await Promise.all(refusals))
          expect([400, 403]).toContain(refused.status)
        const complete = () => alice.call('PUT', `/v2/imagefile/${image}/_complete`, {})
        expectRefusal(await complete(), 409, /No bytes/)
        expect((await putBytes(at, bytes)).status).toBe(200)
        expectData(await complete())
        expectData(await complete())
        expect((await putBytes(at, bytes)).status).toBe(404)
      })

      test('one part needs no second reading, more need exactly one (R4)', async () => {
        target.readBacks()
        const single = sampleSif({ content: 'single' })
        await alice.push('alice/past/single', single)
        expect(target.readBacks()).toEqual([])

        const bytes = buildSif({ objects: [{ type: 'generic', data: 'two' }], trailing: PART })
        const image = await announce('alice/past/two', bytes)
        const path = `/v2/imagefile/${image}`
        const filesize = bytes.length
        const opened = expectData(await alice.call('POST', `${path}/_multipart`, { filesize }))
        const { uploadID } = opened
        const completedParts: { partNumber: number; token: string }[] = []
        for (const partNumber of [1, 2]) {
          const part = bytes.subarray((partNumber - 1) * PART, partNumber * PART)
          const body = { uploadID, partNumber, partSize: part.length, sha256sum: sha256(part) }
          const signed = expectData(await alice.call('PUT', `${path}/_multipart`, body))
          expect(signed.presignedURL.startsWith(url)).toBe(false)
          const sent = await putBytes(signed.presignedURL, part)
          expect(sent.status).toBe(200)
          completedParts.push({ partNumber, token: sent.headers.get('etag') ?? '' })
        }
        const body = { uploadID, completedParts }
        expectData(await alice.call('PUT', `${path}/_multipart_complete`, body))
        expect(target.readBacks()).toHaveLength(1)
        expectData(await alice.call('PUT', `${path}/_multipart_complete`, body))
        expect(target.readBacks()).toEqual([])
        const { location } = await locate(`alice/past/two:sha256.${sha256(bytes)}`)
        expect(sha256((await read(location)).bytes)).toBe(sha256(bytes))
      })

      test('the only part of an image is signed with no other hash than its own (R4)', async () => {
        const bytes = sampleSif({ content: 'one part' })
        const image = await announce('alice/past/one', bytes)
        const path = `/v2/imagefile/${image}/_multipart`
        const filesize = bytes.length
        const { uploadID } = expectData(await alice.call('POST', path, { filesize }))
        const ask = (sha256sum: string) =>
          alice.call('PUT', path, { uploadID, partNumber: 1, partSize: filesize, sha256sum })
        expectRefusal(await ask(sha256(Buffer.from('other'))), 400, /SHA-256 of the image/)
        const other = bytes.slice().fill(3, 100, 200)
        for (const sum of ['', sha256(bytes)]) {
          const at = expectData(await ask(sum)).presignedURL as string
          expect((await putBytes(at, other)).status).toBe(403)
          expect((await putBytes(at, other, sha256(bytes))).status).toBe(400)
        }
        const at = expectData(await ask('')).presignedURL as string
        const sent = await putBytes(at, bytes)
        const completedParts = [{ partNumber: 1, token: sent.headers.get('etag') ?? '' }]
        target.readBacks()
        expectData(await alice.call('PUT', `${path}_complete`, { uploadID, completedParts }))
        expect(target.readBacks()).toEqual([])
      })
    })
  })
}
