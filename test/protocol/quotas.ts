/**
 * Quotas against any runtime: what does not fit is refused wherever bytes could come from, what ends
 * leaves its room, and nobody learns figures that are not theirs (R27, R29, R50).
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { SCOPES } from '../../src/core/model.ts'
import { sampleSif } from '../fixtures/sif.ts'
import type { Target, TargetOptions } from '../runtimes/target.ts'
import { expectData, expectRefusal } from './answers.ts'
import { libraryClient, putBytes, sha256, type LibraryClient } from './client.ts'

let contents = 0
/** An image like no other before it; all are equally large. */
const image = () => sampleSif({ content: `quota ${String((contents += 1)).padStart(4, '0')}` })
const SIZE = image().length
/** Room for three images and not for four. */
const QUOTA = 3 * SIZE + 100
const FULL = /no room.* of the .*bytes\) it may use.*administrator/

export function describeQuotas(
  name: string,
  makeTarget: (options?: TargetOptions) => Promise<Target>,
): void {
  describe(`quotas: ${name}`, () => {
    let target: Target
    let boss: LibraryClient
    const nobody = () => libraryClient(target.url)
    const clientOf = async (user: string, options: Parameters<Target['mint']>[1] = {}) =>
      libraryClient(target.url, (await target.mint(user, options)).jwt)
    beforeAll(async () => {
      target = await makeTarget({ env: { SREG_DEFAULT_QUOTA: String(QUOTA) } })
      boss = await clientOf('boss', { admin: true, scopes: [...SCOPES] })
    })
    afterAll(() => target.stop())

    /** The record of a new image, and where its calls go. */
    async function record(client: LibraryClient, ref: string, bytes: Uint8Array) {
      const [entity = '', collection = '', box = ''] = ref.split('/')
      const { container } = await client.ensure(entity, collection, box)
      const hash = `sha256.${sha256(bytes)}`
      const { id } = expectData(await client.call('POST', '/v1/images', { hash, container }))
      return { id: id as string, at: `/v2/imagefile/${id as string}` }
    }
    const usage = async (client: LibraryClient, entity: string) =>
      expectData(await client.call('GET', `/v1/usage?entity=${entity}`))
    const setQuota = (entity: string, bytes: unknown, client = boss) =>
      client.call('PUT', '/v1/quota', { entity, bytes })

    test('a push tells how much is used, to who may write there alone (R27)', async () => {
      const ann = await clientOf('ann')
      const bytes = image()
      const { at } = await record(ann, 'ann/c/box', bytes)
      const { uploadURL } = expectData(await ann.call('POST', at, { filesize: SIZE }))
      expect((await putBytes(uploadURL, bytes)).status).toBe(200)
      expect(expectData(await ann.call('PUT', `${at}/_complete`, {}))).toEqual({
        quota: { quotaTotal: QUOTA, quotaUsage: SIZE },
        containerUrl: 'library/ann/c/box',
      })
      // equal content in another container costs nothing
      await ann.push('ann/d/box', bytes)
      const shown = { size: 2 * SIZE, quota: QUOTA, quotaUsage: SIZE }
      expect(expectData(await ann.call('GET', '/v1/entities/ann'))).toMatchObject(shown)
      expect(expectData(await boss.call('GET', '/v1/entities/ann'))).toMatchObject(shown)
      expect(expectData(await ann.call('GET', '/v1/entities'))[0]).toMatchObject({ quota: QUOTA })
      for (const client of [nobody(), await clientOf('eve')]) {
        const entity = expectData(await client.call('GET', '/v1/entities/ann'))
        expect(entity).toMatchObject({ size: 2 * SIZE, quota: 0 })
        expect(entity).not.toHaveProperty('quotaUsage')
      }
    })

    test('what does not fit is refused, whichever way it comes (R50)', async () => {
      const bob = await clientOf('bob')
      for (let i = 0; i < 3; i++) await bob.push('bob/c/box', image())
      const bytes = image()
      const { id, at } = await record(bob, 'bob/c/box', bytes)
      const ways = [
        await bob.call('POST', at, { filesize: SIZE }),
        await bob.call('POST', `${at}/_multipart`, { filesize: SIZE }),
        await bob.call('POST', `/v1/imagefile/${id}`, bytes),
      ]
      for (const answer of ways) expectRefusal(answer, 403, FULL)
      // somebody else's image, which would be used without an upload
      const theirs = image()
      await (await clientOf('cat')).push('cat/c/box', theirs)
      const { container } = await bob.ensure('bob', 'c', 'box')
      const hash = `sha256.${sha256(theirs)}`
      expectRefusal(await bob.call('POST', '/v1/images', { hash, container }), 403, FULL)
      expect(await usage(bob, 'bob')).toEqual({
        entity: 'bob',
        used: 3 * SIZE,
        reserved: 0,
        limit: QUOTA,
        collections: 1,
        containers: 1,
        images: 3,
      })
      // what is deleted leaves its room
      expect((await bob.call('DELETE', '/v1/images/bob/c/box:latest')).status).toBe(200)
      await bob.push('bob/c/box', bytes)
      expect((await usage(bob, 'bob')).used).toBe(3 * SIZE)
    })

    test('an upload reserves its room, and leaves it when it is aborted', async () => {
      const dan = await clientOf('dan')
      const first = await record(dan, 'dan/c/box', image())
      const opened = await dan.call('POST', `${first.at}/_multipart`, { filesize: 3 * SIZE })
      const { uploadID } = expectData(opened)
      expect(await usage(dan, 'dan')).toMatchObject({ used: 0, reserved: 3 * SIZE })
      const second = await record(dan, 'dan/c/box', image())
      const again = () => dan.call('POST', second.at, { filesize: SIZE })
      expectRefusal(await again(), 403, /0 bytes of the .*more on their way/)
      expectData(await dan.call('PUT', `${first.at}/_multipart_abort`, { uploadID }))
      expectData(await again())
    })

    test('of twenty pushes at once, as many arrive as fit', async () => {
      const fay = await clientOf('fay')
      await fay.ensure('fay', 'c', 'box')
      const pushes = Array.from({ length: 20 }, () =>
        fay.push('fay/c/box', image(), { tags: [] }).then(
          () => 'in',
          (error: unknown) => (FULL.test(String(error)) ? 'full' : String(error)),
        ),
      )
      const ends = await Promise.all(pushes)
      expect(new Set(ends)).toEqual(new Set(['in', 'full']))
      expect(ends.filter((end) => end === 'in')).toHaveLength(3)
      expect(await usage(fay, 'fay')).toMatchObject({ used: 3 * SIZE, reserved: 0, images: 3 })
    })

    test('a quota that was lowered on the way is asked again at the end', async () => {
      const gus = await clientOf('gus')
      const bytes = image()
      const { at } = await record(gus, 'gus/c/box', bytes)
      const { uploadURL } = expectData(await gus.call('POST', at, { filesize: SIZE }))
      expect((await putBytes(uploadURL, bytes)).status).toBe(200)
      const lowered = expectData(await setQuota('gus', SIZE - 1))
      expect(lowered).toMatchObject({ entity: 'gus', limit: SIZE - 1, reserved: SIZE })
      expectRefusal(await gus.call('PUT', `${at}/_complete`, {}), 403, FULL)
      expect(await usage(gus, 'gus')).toMatchObject({ used: 0, reserved: 0, limit: SIZE - 1 })
      expect(expectData(await setQuota('gus', 'none')).limit).toBeNull()
      await gus.push('gus/c/box', bytes)
      for (let i = 0; i < 3; i++) await gus.push('gus/c/box', image())
      expect(expectData(await gus.call('GET', '/v1/entities/gus')).quota).toBe(0)
      expect(expectData(await setQuota('gus', null)).limit).toBe(QUOTA)
      expectRefusal(
        await gus.call('POST', (await record(gus, 'gus/c/box', image())).at, { filesize: SIZE }),
        403,
        FULL,
      )
    })

    test('quotas are set by administrators, and usage is shown to owners', async () => {
      const hal = await clientOf('hal')
      const mine = await clientOf('hal', { scopes: [...SCOPES] })
      await hal.push('hal/c/box', image())
      expectRefusal(await setQuota('hal', 'none', hal), 403, /scope/)
      expectRefusal(await setQuota('hal', 'none', mine), 403, /administer|administrator/)
      expectRefusal(await setQuota('nobody', 'none'), 404)
      for (const bytes of [0, -1, 1.5, '5', undefined, 2 ** 60])
        expectRefusal(await setQuota('hal', bytes), 400)
      const eve = await clientOf('eve')
      expectRefusal(await eve.call('GET', '/v1/usage?entity=hal'), 403, /somebody else/)
      expectRefusal(await nobody().call('GET', '/v1/usage?entity=hal'), 401)
      const own = expectData(await hal.call('GET', '/v1/usage'))
      expect(own).toMatchObject({ next: null, usages: [{ entity: 'hal', used: SIZE }] })
      const all = expectData(await boss.call('GET', '/v1/usage')).usages as { entity: string }[]
      expect(all.map(({ entity }) => entity)).toEqual(expect.arrayContaining(['hal', 'boss']))
      // usage of what strangers cannot see is as absent as nothing
      await target.setPrivate('hal/c', true)
      const [hidden, absent] = [
        await eve.call('GET', '/v1/usage?entity=hal'),
        await eve.call('GET', '/v1/usage?entity=nix'),
      ]
      expect([hidden.status, hidden.text]).toEqual([404, absent.text])
    })
  })
}
