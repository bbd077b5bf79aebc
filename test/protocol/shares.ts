/**
 * Share links (R61), stars and statistics against any runtime. Anonymous pulls are off here: that is
 * what links are for.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { buildSif, sampleSif } from '../fixtures/sif.ts'
import type { Target, TargetOptions } from '../runtimes/target.ts'
import { expectData, expectRefusal } from './answers.ts'
import { libraryClient, sha256, type Answer, type LibraryClient } from './client.ts'

const SMALL = sampleSif({ content: 'shared' })
const LARGE = buildSif({
  objects: [{ type: 'generic', data: 'shared' }],
  trailing: 16 * 1024 * 1024,
})
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

export function describeShares(
  name: string,
  makeTarget: (options?: TargetOptions) => Promise<Target>,
): void {
  describe(`share links: ${name}`, () => {
    const env = { SREG_ANONYMOUS_PULL: 'off' }
    let target: Target
    let alice: LibraryClient
    let bob: LibraryClient
    let nobody: LibraryClient
    const clientOf = async (user: string, options: Parameters<Target['mint']>[1] = {}) =>
      libraryClient(target.url, (await target.mint(user, options)).jwt)
    beforeAll(async () => {
      target = await makeTarget({ env })
      alice = await clientOf('alice')
      bob = await clientOf('bob')
      nobody = libraryClient(target.url)
      await alice.push('alice/c/box', SMALL, { privateCollection: true })
      await alice.push('alice/c/large', LARGE)
      await alice.push('alice/open/box', SMALL)
    })
    afterAll(() => target.stop())

    const share = (body: object, client = alice) => client.call('POST', '/v1/shares', body)
    const made = async (body: object) => expectData(await share(body))
    const get = (url: string, headers: Record<string, string> = {}, method = 'GET') =>
      nobody.call(method, url, undefined, headers)
    const left = async (id: string) => {
      const links = expectData(await alice.call('GET', '/v1/shares')) as { id: string }[]
      return links.find((link) => link.id === id)
    }
    const bytesOf = async (response: Response) =>
      sha256(new Uint8Array(await response.arrayBuffer()))

    test('whoever has the link has the image, and nobody is told more', async () => {
      expectRefusal(await get('/v1/imagefile/alice/open/box'), 401)
      const link = await made({ ref: 'alice/c/box:latest', note: 'for Bob' })
      expect(Object.keys(link).toSorted()).toEqual(['count', 'expiresAt', 'id', 'path', 'url'])
      expect(link.url).toMatch(/^http:\/\/[^/]+\/share\?s=[\w-]{22}$/)
      expect(link.count).toBeNull()
      const answer = await fetch(link.url)
      expect([answer.status, await bytesOf(answer)]).toEqual([200, sha256(SMALL)])
      expect(Object.fromEntries(answer.headers)).toMatchObject({
        'content-type': 'application/octet-stream',
        'content-disposition': `attachment; filename="box_${sha256(SMALL).slice(0, 12)}.sif"`,
        'content-security-policy': 'sandbox',
        'referrer-policy': 'no-referrer',
        'cache-control': 'private, no-store',
      })
      const large = await made({ ref: `alice/c/large:sha256.${sha256(LARGE)}`, expiresIn: 600 })
      expect((await get(large.url)).status).toBe(303)
      expect(await bytesOf(await fetch(large.url))).toBe(sha256(LARGE))
      const listed = await left(link.id)
      expect(listed).toEqual({
        id: link.id,
        ref: 'alice/c/box',
        hash: `sha256.${sha256(SMALL)}`,
        note: 'for Bob',
        creator: 'alice',
        createdAt: expect.any(String),
        expiresAt: link.expiresAt,
        count: null,
        used: 1,
        revokedAt: null,
      })
      // a token that comes along says nothing here, good or bad
      expect((await get(link.url, { authorization: 'Bearer x' })).status).toBe(200)
    })

    test('ten at once take three downloads of three', async () => {
      for (const ref of ['alice/c/box', 'alice/c/large']) {
        const link = await made({ ref, count: 3 })
        for (let i = 0; i < 4; i++) expect((await get(link.url, {}, 'HEAD')).status).toBe(200)
        const etag = `"sha256.${sha256(ref.endsWith('box') ? SMALL : LARGE)}"`
        expect((await get(link.url, { 'if-none-match': etag })).status).toBe(304)
        expect(await left(link.id)).toMatchObject({ count: 3, used: 0 })
        const ten = Array.from({ length: 10 }, () => get(link.url))
        const good = ref.endsWith('box') ? 200 : 303
        const codes = (await Promise.all(ten)).map(({ status }) => status)
        expect(codes.toSorted()).toEqual([good, good, good, ...Array(7).fill(404)])
        expect(await left(link.id)).toMatchObject({ count: 0, used: 3 })
        expectRefusal(await get(link.url, {}, 'GET'), 404)
        expect((await get(link.url, {}, 'HEAD')).status).toBe(404)
      }
    })

    test('a download and all its ranges are one', async () => {
      const link = await made({ ref: 'alice/c/box', count: 2 })
      const redirect = await get(link.url, { range: 'bytes=5-' })
      expect(redirect.status).toBe(303)
      expect(redirect.headers.get('content-length')).toBe('0')
      const ticket = redirect.headers.get('location') ?? ''
      for (const range of ['bytes=0-9', 'bytes=10-19', 'bytes=5-']) {
        const part = await fetch(ticket, { headers: { range } })
        expect(part.status).toBe(206)
        await part.arrayBuffer()
      }
      expect(await left(link.id)).toMatchObject({ count: 1, used: 1 })
    })

    test('links that are no good are all alike', async () => {
      const told = ({ status, text, headers }: Answer) => [
        status,
        text,
        ...[...headers].filter(([key]) => key !== 'date' && key !== 'x-request-id'),
      ]
      const spent = await made({ ref: 'alice/c/box', count: 1 })
      expect((await get(spent.url)).status).toBe(200)
      const revoked = await made({ ref: 'alice/c/box' })
      expectData(await alice.call('DELETE', `/v1/shares/${revoked.id}`))
      await alice.push('alice/c/gone', sampleSif({ content: 'gone' }))
      const gone = await made({ ref: 'alice/c/gone' })
      expect((await alice.call('DELETE', '/v1/images/alice/c/gone:latest')).status).toBe(200)
      const good = (await made({ ref: 'alice/c/box' })).url as string
      const last = good.at(-1) === 'A' ? 'B' : 'A'
      const urls = [
        `${target.url}/share?s=AAAAAAAAAAAAAAAAAAAAAA`,
        spent.url,
        revoked.url,
        gone.url,
        good.slice(0, -1) + last,
        `${good}A`,
        `${target.url}/share?s=`,
        `${target.url}/share`,
      ]
      const [first, ...others] = await Promise.all(urls.map(async (url) => told(await get(url))))
      expect(first?.[0]).toBe(404)
      for (const other of others) expect(other).toEqual(first)
      expect((await get(good)).status).toBe(200)
    })

    test('revoking a link ends the downloads that it has allowed (R25)', async () => {
      const link = await made({ ref: 'alice/c/large' })
      const ticket = (await get(link.url)).headers.get('location') ?? ''
      const ranged = () => fetch(ticket, { headers: { range: 'bytes=0-9' } })
      expect((await ranged()).status).toBe(206)
      expectData(await alice.call('DELETE', `/v1/shares/${link.id}`))
      expectData(await alice.call('DELETE', `/v1/shares/${link.id}`))
      await sleep(1500)
      expectRefusal(await get(ticket), 403)
    })

    test('a link dies with its maker’s right to read, and so do its downloads (R61)', async () => {
      const owner = await clientOf('alice', { scopes: ['pull', 'push', 'admin'] })
      const grant = async (level: string) =>
        expectData(await owner.call('PUT', '/v1/grants', { ref: 'alice/c', user: 'bob', level }))
      await grant('reader')
      expectRefusal(await share({ ref: 'alice/c/large' }, bob), 403)
      await grant('contributor')
      const { url } = expectData(await share({ ref: 'alice/c/large' }, bob)) as { url: string }
      const ticket = (await get(url)).headers.get('location') ?? ''
      const ranged = async () => (await fetch(ticket, { headers: { range: 'bytes=0-9' } })).status
      expect(await ranged()).toBe(206)
      await grant('reader')
      expect((await get(url)).status).toBe(303)
      await grant('none')
      expect((await get(url)).status).toBe(404)
      await sleep(1500)
      expectRefusal(await get(ticket), 403)
    })

    test('links are made by who may push there and revoked by who made them', async () => {
      expectRefusal(await share({ ref: 'alice/open/box' }, bob), 403, /somebody else/)
      const [hidden, absent] = [
        await share({ ref: 'alice/c/box' }, bob),
        await share({ ref: 'alice/c/nix' }, bob),
      ]
      expect([hidden.status, hidden.text]).toEqual([404, absent.text])
      expectRefusal(await share({ ref: 'alice/open/box' }, nobody), 401)
      const pull = await clientOf('alice', { scopes: ['pull'] })
      expectRefusal(await share({ ref: 'alice/open/box' }, pull), 403, /push/)
      const push = await clientOf('alice', { scopes: ['push'] })
      expectRefusal(await share({ ref: 'alice/c/box' }, push), 403, /pull/)
      // a link lives no longer than the token that made it (R14)
      expectRefusal(await share({ ref: 'alice/c/box', expiresIn: 7200 }), 403, /live longer/)
      for (const body of [
        {},
        { ref: 'alice/c/box', expiresIn: 59 },
        { ref: 'alice/c/box', expiresIn: 91 * 86_400 },
        { ref: 'alice/c/box', count: 0 },
        { ref: 'alice/c/box', counts: 1 },
      ])
        expectRefusal(await share(body), 400)

      const link = await made({ ref: 'alice/open/box' })
      const boss = await clientOf('boss', { admin: true, scopes: ['pull', 'push', 'admin'] })
      const of = '/v1/shares?ref=alice/open/box'
      expect(expectData(await alice.call('GET', of))).toMatchObject([{ id: link.id }])
      expect(expectData(await boss.call('GET', of))).toMatchObject([{ id: link.id }])
      expect(expectData(await bob.call('GET', of))).toEqual([])
      expectRefusal(await bob.call('GET', '/v1/shares?ref=alice/c/box'), 404)
      for (const id of [link.id, '0'.repeat(24), 'x'])
        expectRefusal(await bob.call('DELETE', `/v1/shares/${id as string}`), 404, /no such link/)
      expect((await get(link.url)).status).toBe(200)
      expectData(await boss.call('DELETE', `/v1/shares/${link.id as string}`))
      expect((await get(link.url)).status).toBe(404)
    })

    test('stars are counted, and private ones are nobody else’s business (R27)', async () => {
      const star = (client: LibraryClient, ref: string) => client.call('PUT', '/v1/stars', { ref })
      const stars = async () =>
        expectData(await alice.call('GET', '/v1/containers/alice/open/box')).stars
      for (const client of [alice, bob, bob]) expectData(await star(client, 'alice/open/box'))
      expect(await stars()).toBe(2)
      const image = expectData(await bob.call('GET', '/v1/images/alice/open/box:latest'))
      expect(image.containerStars).toBe(2)
      const list = async () => expectData(await bob.call('GET', '/v1/stars'))
      expect(await list()).toMatchObject([{ ref: 'alice/open/box', stars: 2 }])
      await target.setPrivate('alice/open', true)
      expect(await list()).toEqual([])
      const [hidden, absent] = [
        await star(bob, 'alice/open/box'),
        await star(bob, 'alice/open/nix'),
      ]
      expect([hidden.status, hidden.text]).toEqual([404, absent.text])
      await target.setPrivate('alice/open', false)
      for (let i = 0; i < 2; i++)
        expectData(await bob.call('DELETE', '/v1/stars?ref=alice/open/box'))
      expect(await stars()).toBe(1)
      expectRefusal(await star(nobody, 'alice/open/box'), 401)
    })

    test('pulls are counted once each, by the week, links included', async () => {
      const ref = 'alice/stats/box'
      await alice.push(ref, SMALL)
      await alice.push('alice/stats/large', LARGE)
      const at = `/v1/imagefile/${ref}`
      const pull = (headers = {}, method = 'GET') => alice.call(method, at, undefined, headers)
      for (let i = 0; i < 2; i++) expect((await pull()).status).toBe(200)
      await pull({ range: 'bytes=0-9' })
      await pull({ range: 'bytes=10-19' })
      await pull({}, 'HEAD')
      await pull({ 'if-none-match': `"sha256.${sha256(SMALL)}"` })
      const link = await made({ ref })
      expect((await get(link.url)).status).toBe(200)
      await get(link.url, {}, 'HEAD')
      const large = await made({ ref: 'alice/stats/large' })
      const ticket = (await get(large.url)).headers.get('location') ?? ''
      for (const range of ['bytes=0-9', 'bytes=10-19'])
        await (await fetch(ticket, { headers: { range } })).arrayBuffer()

      await target.stop({ keep: true })
      target = await makeTarget({ env, data: target.data })
      alice = await clientOf('alice')
      bob = await clientOf('bob')
      nobody = libraryClient(target.url)
      const stats = async (of: string) => expectData(await bob.call('GET', `/v1/stats?ref=${of}`))
      const { total, stars, weeks } = await stats(ref)
      expect([total, stars, weeks.length]).toEqual([4, 0, 12])
      const counts = weeks.map(({ count }: { count: number }) => count)
      // a week may have begun since
      expect(counts.slice(0, 10)).toEqual(Array(10).fill(0))
      expect(counts[10] + counts[11]).toBe(4)
      for (const { week } of weeks) expect(new Date(week).getUTCDay()).toBe(1)
      expect((await stats('alice/stats/large')).total).toBe(1)
      expect(expectData(await bob.call('GET', `/v1/containers/${ref}`)).downloadCount).toBe(4)
      expectRefusal(await bob.call('GET', '/v1/stats?ref=alice/c/box'), 404)
      expectRefusal(await nobody.call('GET', `/v1/stats?ref=${ref}`), 401)
    })
  })
}
