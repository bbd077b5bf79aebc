/** The audit log over HTTP: what a push, a deletion and a refusal leave, and who reads it (R57). */
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { SCOPES } from '../../src/core/model.ts'
import { sampleSif } from '../fixtures/sif.ts'
import type { Target, TargetOptions } from '../runtimes/target.ts'
import { expectData, expectRefusal } from './answers.ts'
import { libraryClient, type LibraryClient } from './client.ts'

type Entry = {
  at: string
  actor: string
  tokenId: string
  address: string
  action: string
  object: string
  name: string
  outcome: string
  detail: string
  count: number
}

export function describeAuditLog(
  name: string,
  makeTarget: (options?: TargetOptions) => Promise<Target>,
  /** What the log says of a client that the runtime names. */
  address = /^127\.0\.0\.1$|^::1$/,
): void {
  describe(`audit: ${name}`, () => {
    let target: Target
    let boss: LibraryClient
    let alice: LibraryClient
    let token: { id: string; jwt: string }
    beforeAll(async () => {
      target = await makeTarget()
      const made = await target.mint('boss', { admin: true, scopes: [...SCOPES] })
      boss = libraryClient(target.url, made.jwt)
      token = await target.mint('alice')
      alice = libraryClient(target.url, token.jwt)
    })
    afterAll(() => target.stop())

    const read = async (query: string): Promise<Entry[]> =>
      expectData(await boss.call('GET', `/v1/audit?${query}`)).entries as Entry[]

    test('a push, a tag that moves and a deletion: who, what, from where', async () => {
      const one = await alice.push('alice/log/box', sampleSif({ content: 'one' }))
      const two = await alice.push('alice/log/box', sampleSif({ content: 'two' }))
      const gone = await alice.call('DELETE', '/v1/images/alice/log/box:latest?arch=amd64')
      expect(gone.status).toBeLessThan(300)
      const rows = await read('actor=alice&ref=alice/log')
      const said = rows.map(({ action, name: what }) => `${action} ${what}`)
      expect(said.toReversed()).toEqual([
        'collection.create alice/log',
        'container.create alice/log/box',
        'image.push alice/log/box',
        'tag.set alice/log/box:latest',
        'image.push alice/log/box',
        'tag.set alice/log/box:latest',
        'tag.delete alice/log/box:latest',
      ])
      for (const row of rows) {
        expect(row).toMatchObject({ actor: 'alice', tokenId: token.id, outcome: 'done', count: 1 })
        expect(row.address).toMatch(address)
        expect(Math.abs(Date.parse(row.at) - Date.now())).toBeLessThan(60_000)
      }
      expect(rows[1]?.detail).toBe(`amd64, from image ${one.image}, to image ${two.image}`)
      expect(await read(`ref=${encodeURIComponent(`image ${one.image}`)}`)).toHaveLength(2)
    })

    test('a push that finds everything there leaves no row', async () => {
      const bytes = sampleSif({ content: 'again' })
      await alice.push('alice/log/same', bytes)
      const before = await read('actor=alice')
      await alice.push('alice/log/same', bytes)
      expect(await read('actor=alice')).toEqual(before)
    })

    test('refusals are added up: of a user by route, of a stranger by address', async () => {
      const stranger = libraryClient(target.url, 'no.good.token')
      const entity = (await alice.call('GET', '/v1/entities/boss')).json.data?.id as string
      for (let n = 0; n < 5; n++) {
        expectRefusal(await stranger.call('POST', '/v1/entities', { name: 'x' }), 401)
        expectRefusal(await stranger.call('GET', '/v1/users'), 401)
        expectRefusal(await alice.call('GET', '/v1/users'), 403)
        // who has nothing to show is asked for it, which is no refusal of anybody
        expectRefusal(await libraryClient(target.url).call('GET', '/v1/users'), 401)
      }
      expect(entity).toBeUndefined()
      const sum = (rows: Entry[]) => rows.reduce((total, { count }) => total + count, 0)
      // counted in memory: written with what comes seconds later
      let denied: Entry[] = []
      for (let waited = 0; waited < 30 && sum(denied) < 15; waited++) {
        await sleep(300)
        await libraryClient(target.url, 'no.good.token').call('GET', '/v1/users')
        denied = await read('outcome=denied')
      }
      const hers = denied.filter(({ actor }) => actor === 'alice')
      const theirs = denied.filter(({ actor }) => actor === '')
      expect(sum(hers)).toBe(5)
      for (const row of hers)
        expect(row).toMatchObject({
          action: 'GET /v1/users',
          tokenId: token.id,
          detail: expect.stringContaining('admin') as string,
        })
      expect(sum(theirs)).toBeGreaterThanOrEqual(10)
      // of one minute, or two
      expect(theirs.length).toBeLessThanOrEqual(2)
      for (const { action } of theirs) expect(action).toBe('request')
      expect(hers.length).toBeLessThanOrEqual(2)
      expect(await read('actor=alice&outcome=denied')).toEqual(hers)
    })

    test('pages go on where the last one ended; a query that does not fit is refused', async () => {
      const all = await read('limit=1000&outcome=done')
      expect(all.length).toBeGreaterThan(10)
      const paged: Entry[] = []
      let after = ''
      for (let n = 0; n < 100; n++) {
        const query = `outcome=done&limit=7${after === '' ? '' : `&after=${after}`}`
        const page = expectData(await boss.call('GET', `/v1/audit?${query}`)) as {
          entries: Entry[]
          next: string | null
        }
        paged.push(...page.entries)
        if (page.next === null) break
        after = page.next
      }
      expect(paged).toEqual(all)
      expect(await read(`outcome=done&until=${all.at(-1)?.at ?? ''}`)).toEqual([])
      for (const query of [
        'limit=0',
        'limit=1001',
        'limit=x',
        'after=1',
        'since=yesterday',
        'outcome=maybe',
        'actors=alice',
        `ref=${'x'.repeat(2000)}`,
      ])
        expectRefusal(await boss.call('GET', `/v1/audit?${query}`), 400, /query does not fit/)
    })

    test('no route changes or deletes a row', async () => {
      const before = await read('outcome=done&limit=1000')
      for (const method of ['POST', 'PUT', 'PATCH', 'DELETE'])
        for (const path of ['/v1/audit', '/v1/audit/1', '/v1/audit?ref=alice']) {
          const { status } = await boss.call(method, path, {})
          expect([method, path, status]).toEqual([method, path, path.endsWith('/1') ? 404 : 405])
        }
      expect(await read('outcome=done&limit=1000')).toEqual(before)
    })
  })
}
