/** Downloads over HTTP: whole, ranges, tickets, how they end, what they cost (protocol.md §5). */
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { buildSif, sampleSif } from '../fixtures/sif.ts'
import type { Target, TargetOptions } from '../runtimes/target.ts'
import { expectData, expectRefusal, tripsOf } from './answers.ts'
import { libraryClient, sha256, type LibraryClient } from './client.ts'
import { rawGet, rawRequest } from './raw.ts'

const MIB = 1024 * 1024

export function describeDownloads(
  name: string,
  makeTarget: (options?: TargetOptions) => Promise<Target>,
): void {
  describe(`downloads: ${name}`, () => {
    const small = sampleSif({ content: 'small' })
    const last = small.length - 1
    const digest = sha256(small)
    const etag = `"sha256.${digest}"`
    const large = buildSif({ objects: [{ type: 'generic', data: 'large' }], trailing: 17 * MIB })
    const SMALL = '/v1/imagefile/alice/pull/small:v1?arch=amd64'
    const LARGE = '/v1/imagefile/alice/pull/large:latest?arch=amd64'
    let target: Target
    let url: string
    let alice: LibraryClient
    let nobody: LibraryClient
    beforeAll(async () => {
      target = await makeTarget()
      url = target.url
      alice = libraryClient(url, (await target.mint('alice')).jwt)
      nobody = libraryClient(url)
      await alice.push('alice/pull/small', small, { tags: ['v1'] })
      await alice.push('alice/pull/large', large)
    })
    afterAll(() => target.stop())

    const get = async (path: string, headers: Record<string, string> = {}, method = 'GET') => {
      const at = path.startsWith('http') ? path : url + path
      const response = await fetch(at, { method, headers, redirect: 'manual' })
      const bytes = new Uint8Array(await response.arrayBuffer())
      return { status: response.status, headers: response.headers, bytes }
    }
    /** Location of the 303 for a large image. */
    const locate = async (path = LARGE, who = nobody): Promise<string> => {
      const answer = await who.call('GET', path)
      expect(answer.status).toBe(303)
      return answer.headers.get('location') ?? ''
    }
    /** A ranged request on a raw socket, to see how the answer ends. */
    const ranged = (location: string, range = 'bytes=0-99') =>
      rawGet(url, location.slice(url.length), `Range: ${range}`)

    test('a whole image, with headers that keep it from being a page (R32)', async () => {
      const { status, headers, bytes } = await get(SMALL)
      expect([status, sha256(bytes)]).toEqual([200, digest])
      expect(Object.fromEntries(headers)).toMatchObject({
        'content-type': 'application/octet-stream',
        'content-length': String(small.length),
        'content-disposition': 'attachment; filename="small_v1.sif"',
        'content-security-policy': 'sandbox',
        'x-content-type-options': 'nosniff',
        'referrer-policy': 'no-referrer',
        'accept-ranges': 'bytes',
        'cache-control': 'private, no-store',
        vary: 'Authorization',
        etag,
      })
      expect(headers.has('content-encoding')).toBe(false)
      const zipped = await get(SMALL, { 'accept-encoding': 'gzip' })
      expect(zipped.headers.get('content-length')).toBe(String(small.length))
    })

    test('HEAD says what GET would', async () => {
      const { status, headers, bytes } = await get(SMALL, {}, 'HEAD')
      expect([status, bytes.length]).toEqual([200, 0])
      expect(headers.get('content-length')).toBe(String(small.length))
      expect(headers.get('etag')).toBe(etag)
      const part = await get(SMALL, { range: 'bytes=0-9' }, 'HEAD')
      expect(part.status).toBe(206)
      expect(part.headers.get('content-range')).toBe(`bytes 0-9/${small.length}`)
      const location = await locate()
      expect((await get(location, {}, 'HEAD')).headers.get('content-length')).toBe(
        String(large.length),
      )
      expect((await get('/v1/imagefile/alice/pull/none', {}, 'HEAD')).status).toBe(404)
      expect((await get('/v1/images/alice/pull/small:v1', {}, 'HEAD')).status).toBe(200)
      expect((await get('/version', {}, 'HEAD')).status).toBe(200)
    })

    const ranges: [string, number, number][] = [
      ['bytes=0-0', 0, 0],
      ['bytes=0-1024', 0, 1024],
      [`bytes=${last}-`, last, last],
      [`bytes=${last}-${last + 1000}`, last, last],
      ['bytes=-1', last, last],
      ['bytes=-99999999', 0, last],
      [`bytes=0-${'9'.repeat(30)}`, 0, last],
    ]
    test.each(ranges)('range %s', async (range, start, end) => {
      const { status, headers, bytes } = await get(SMALL, { range })
      expect(status).toBe(206)
      expect(headers.get('content-range')).toBe(`bytes ${start}-${end}/${small.length}`)
      expect(headers.get('content-length')).toBe(String(end - start + 1))
      expect(sha256(bytes)).toBe(sha256(small.subarray(start, end + 1)))
    })

    test('ranges that are not there are 416; other units are ignored', async () => {
      for (const range of [
        `bytes=${last + 1}-`,
        'bytes=9-1',
        'bytes=-0',
        'bytes=0-1,5-6',
        'bytes=x-y',
        'bytes=-',
      ])
        expectRefusal(await nobody.call('GET', SMALL, undefined, { range }), 416, /range/)
      expect((await get(SMALL, { range: 'lines=1-2' })).status).toBe(200)
    })

    test('conditions come after access (R28)', async () => {
      for (const match of [etag, `W/${etag}`, `"x", ${etag}`, '*']) {
        const { status, bytes, headers } = await get(SMALL, { 'if-none-match': match })
        expect([status, bytes.length, headers.get('etag')]).toEqual([304, 0, etag])
      }
      expect((await get(SMALL, { 'if-none-match': '"x"' })).status).toBe(200)
      expect((await get(SMALL, { range: 'bytes=0-1', 'if-range': etag })).status).toBe(206)
      expect((await get(SMALL, { range: 'bytes=0-1', 'if-range': '"x"' })).status).toBe(200)
      await alice.push('alice/pull/hidden', sampleSif({ content: 'hidden' }), {
        privateContainer: true,
      })
      const asked: Record<string, string>[] = [{ 'if-none-match': '*' }, { range: 'bytes=0-1' }, {}]
      for (const headers of asked)
        expectRefusal(
          await nobody.call('GET', '/v1/imagefile/alice/pull/hidden', undefined, headers),
          404,
        )
    })

    test('a large image is a 303 to an absolute address of the same origin (R33)', async () => {
      const answer = await nobody.call('GET', LARGE)
      expect(answer.status).toBe(303)
      expect(answer.headers.get('cache-control')).toContain('no-store')
      expect(answer.headers.get('location')).toMatch(new RegExp(`^${url}/v1/blob\\?t=`))
      expect(answer.headers.get('content-length')).toBe('0')
      expect(answer.headers.get('transfer-encoding')).toBeNull()
    })

    test('the address follows X-Forwarded-* of a trusted peer (R33)', async () => {
      const forwarded = { 'x-forwarded-host': 'reg.example.org', 'x-forwarded-proto': 'https' }
      const proxied = await nobody.call('GET', LARGE, undefined, forwarded)
      expect(proxied.headers.get('location')).toMatch(/^https:\/\/reg\.example\.org\/v1\/blob\?t=/)
    })

    test('its target honours Range without Authorization or a database trip', async () => {
      const location = await locate()
      const size = 5 * MIB
      const starts = Array.from({ length: Math.ceil(large.length / size) }, (_, i) => i * size)
      const parts = await Promise.all(
        starts.map((start) => get(location, { range: `bytes=${start}-${start + size - 1}` })),
      )
      expect(parts.map(({ status }) => status)).toEqual(starts.map(() => 206))
      expect(parts.at(-1)?.headers.get('content-range')).toBe(
        `bytes ${starts.at(-1)}-${large.length - 1}/${large.length}`,
      )
      expect(sha256(Buffer.concat(parts.map(({ bytes }) => bytes)))).toBe(sha256(large))
      expect(await tripsOf(target, () => get(location, { range: 'bytes=0-9' }))).toBe(0)
      const whole = await get(location)
      expect([whole.status, sha256(whole.bytes)]).toEqual([200, sha256(large)])
      expect(whole.headers.get('content-security-policy')).toBe('sandbox')
      expect(whole.headers.get('content-disposition')).toBe('attachment')
      // clients that send their token or a wrong one to the same origin get the bytes as well
      expect((await get(location, { range: 'bytes=0-0', authorization: 'Bearer x' })).status).toBe(
        206,
      )
    })

    describe('a failed range breaks the connection (R5)', () => {
      const expectBroken = async (location: string, status: number, range?: string) => {
        const answer = await ranged(location, range)
        expect(answer.complete).toBe(false)
        expectRefusal(answer, status)
      }

      test('beyond the end, several, senseless', async () => {
        const location = await locate()
        for (const range of [`bytes=${large.length}-`, 'bytes=0-1,3-4', 'bytes=5-1', 'bytes=x'])
          await expectBroken(location, 416, range)
        const good = await ranged(location)
        expect([good.status, good.complete, good.body.length]).toEqual([206, true, 100])
      })

      test('an altered ticket; without Range it is a plain refusal', async () => {
        const location = await locate()
        for (const altered of [
          `${location}A`,
          location.slice(0, -1),
          `${url}/v1/blob?t=`,
          `${url}/v1/blob`,
        ]) {
          await expectBroken(altered, 403)
          expectRefusal(await nobody.call('GET', altered), 403, /link/)
          const head = ['HEAD', altered.slice(url.length), 'HTTP/1.1'].join(' ')
          expect((await rawRequest(url, [head, 'Range: bytes=0-1']).answer).status).toBe(403)
        }
      })

      test('bytes gone from the store', async () => {
        const bytes = buildSif({ objects: [{ type: 'generic', data: 'gone' }], trailing: 16 * MIB })
        const before = new Set(await target.store.names())
        await alice.push('alice/pull/gone', bytes)
        const [file = ''] = (await target.store.names()).filter((path) => !before.has(path))
        const location = await locate('/v1/imagefile/alice/pull/gone')
        await target.store.cut(file, bytes.length - 1000)
        const short = await ranged(location, `bytes=${bytes.length - 5000}-${bytes.length - 1}`)
        expect(short.complete).toBe(false)
        await target.store.remove(file)
        await expectBroken(location, 500)
        expectRefusal(await nobody.call('GET', location), 500, /gone/)
      })

      test('a revoked token ends its tickets within a moment (R25)', async () => {
        const { jwt, id } = await target.mint('alice')
        const other = libraryClient(url, jwt)
        const location = await locate(LARGE, other)
        const { container } = await alice.ensure('alice', 'pull', 'revoked')
        const bytes = sampleSif({ content: 'revoked' })
        const body = { hash: `sha256.${sha256(bytes)}`, container }
        const image = expectData(await other.call('POST', '/v1/images', body)).id
        const filesize = bytes.length
        const opened = await other.call('POST', `/v2/imagefile/${image}`, { filesize })
        const { uploadURL } = expectData(opened)
        expect((await ranged(location)).status).toBe(206)
        await target.revoke(id)
        expectRefusal(await other.call('GET', SMALL), 401, /revoked/)
        await sleep(1500)
        await expectBroken(location, 403)
        expectRefusal(await nobody.call('PUT', uploadURL, bytes), 403)
      })

      test('so do deletion and becoming private', async () => {
        const bytes = buildSif({
          objects: [{ type: 'generic', data: 'deleted' }],
          trailing: 16 * MIB,
        })
        await alice.push('alice/pull/deleted', bytes)
        await alice.push('alice/pull/closed', bytes)
        const deleted = await locate('/v1/imagefile/alice/pull/deleted')
        const closed = await locate('/v1/imagefile/alice/pull/closed')
        expect((await ranged(closed)).status).toBe(206)
        expect((await alice.call('DELETE', '/v1/images/alice/pull/deleted:latest')).status).toBe(
          200,
        )
        await target.setPrivate('alice/pull/closed', true)
        await sleep(1500)
        await expectBroken(deleted, 403)
        await expectBroken(closed, 403)
        expectRefusal(await nobody.call('GET', '/v1/imagefile/alice/pull/closed'), 404)
        // who may still read it is not locked out, and public again is public again
        const mine = await locate('/v1/imagefile/alice/pull/closed', alice)
        expect((await ranged(mine)).status).toBe(206)
        await target.setPrivate('alice/pull/closed', false)
        await sleep(1500)
        expect((await ranged(await locate('/v1/imagefile/alice/pull/closed'))).status).toBe(206)
      })
    })

    test('every metadata request of a pull costs at most one trip, standing included', async (context) => {
      if (target.trips === undefined) return context.skip('trips cannot be counted here')
      for (const who of [nobody, alice])
        for (const path of [
          '/assets/config/config.prod.json',
          '/v1/images/alice/pull/large:latest?arch=amd64',
          '/v1/oci-redirect?accessTypes=pull&mapped=1&namespace=alice%2Fpull%2Flarge',
          '/version',
          LARGE,
          SMALL,
          '/v1/images/alice/pull/none:latest?arch=amd64',
          '/v1/entities/alice',
          '/v1/collections/alice/pull',
          '/v1/containers/alice/pull/large',
          '/v1/search?value=large&arch=amd64',
        ]) {
          const constant = /config|version|oci-redirect/.test(path)
          const trips = await tripsOf(target, () => who.call('GET', path))
          expect([path, trips]).toEqual([path, constant ? 0 : 1])
        }
      return undefined
    })

    test('a pull is counted once, whatever its ranges', async () => {
      const own = await makeTarget()
      const carol = libraryClient(own.url, (await own.mint('carol')).jwt)
      await carol.push('carol/c/large', large)
      const pulled = await carol.call('GET', '/v1/imagefile/carol/c/large')
      const location = pulled.headers.get('location') ?? ''
      for (const range of ['bytes=0-9', 'bytes=10-19', 'bytes=20-29'])
        await get(location, { range })
      await get(`${own.url}/v1/imagefile/carol/c/large`, {}, 'HEAD')
      expect((await carol.call('GET', '/v1/imagefile/carol/c/none')).status).toBe(404)
      await own.stop({ keep: true })
      const again = await makeTarget({ data: own.data })
      const { json } = await libraryClient(again.url).call('GET', '/v1/containers/carol/c/large')
      expect(json.data.downloadCount).toBe(1)
      // tokens and tickets outlive a restart
      const moved = location.replace(own.url, again.url)
      expect((await get(moved, { range: 'bytes=0-9' })).status).toBe(206)
      expectData(await libraryClient(again.url, carol.token).call('GET', '/v1/token-status'))
      await again.stop()
    })
  })
}
