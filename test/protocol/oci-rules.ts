/**
 * What the operator says of the registry holds by OCI as by the library: read-only, private, without
 * strangers, sizes, numbers and quotas (docs/access.md); and the audit log tells of it (R50, R57).
 */
import { createHash, randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { SCOPES } from '../../src/core/model.ts'
import { sampleSif } from '../fixtures/sif.ts'
import type { Target, TargetOptions } from '../runtimes/target.ts'
import { expectData } from './answers.ts'
import { libraryClient, type Answer, type LibraryClient } from './client.ts'

const INDEX = 'application/vnd.oci.image.index.v1+json'
const digestOf = (bytes: Uint8Array | string) =>
  `sha256:${createHash('sha256').update(bytes).digest('hex')}`
const indexOf = (annotation: string) =>
  JSON.stringify({ schemaVersion: 2, mediaType: INDEX, manifests: [], annotations: { annotation } })

export function describeOciRules(
  name: string,
  makeTarget: (options?: TargetOptions) => Promise<Target>,
  /** What the log says of a client that the runtime names. */
  address = /^127\.0\.0\.1$|^::1$/,
): void {
  /** OCI's envelope with this status and code; the sentence. */
  function expectOci(answer: Answer, status: number, code: string, says = /\w+ \w+/): string {
    expect(answer.status, answer.text.slice(0, 300)).toBe(status)
    const [error] = answer.json.errors
    expect([error.code, error.message]).toEqual([code, expect.stringMatching(says)])
    return error.message as string
  }
  const put = (client: LibraryClient, repository: string, tag: string, content = tag) =>
    client.call('PUT', `/v2/${repository}/manifests/${tag}`, indexOf(content), {
      'content-type': INDEX,
    })
  const blob = (client: LibraryClient, repository: string, bytes: Uint8Array) =>
    client.call('POST', `/v2/${repository}/blobs/uploads/?digest=${digestOf(bytes)}`, bytes)
  const clientOf = async (
    target: Target,
    user: string,
    options: Parameters<Target['mint']>[1] = {},
  ) => libraryClient(target.url, (await target.mint(user, options)).jwt)

  /** A registry with these settings, for one test. */
  async function withTarget(
    env: Record<string, string>,
    work: (target: Target) => Promise<void>,
    data?: string,
  ): Promise<void> {
    const target = await makeTarget(data === undefined ? { env } : { env, data })
    try {
      await work(target)
    } finally {
      await target.stop()
    }
  }

  // each test starts a registry or two, which hooks elsewhere have a minute for
  describe(`${name}: OCI under the operator's rules`, { timeout: 60_000 }, () => {
    // two registries, one after the other: workerd takes its time to start
    test('SREG_READ_ONLY: nothing is pushed, mounted or deleted; pulls go on', async () => {
      const before = await makeTarget()
      const alice = await clientOf(before, 'alice')
      const bytes = randomBytes(100)
      const digest = digestOf(bytes)
      expect((await blob(alice, 'alice/c/n', bytes)).status).toBe(201)
      expect((await put(alice, 'alice/c/n', 'v1')).status).toBe(201)
      const upload = (await alice.call('POST', '/v2/alice/c/n/blobs/uploads/')).headers
      const location = upload.get('location') ?? ''
      await before.stop({ keep: true })
      await withTarget(
        { SREG_READ_ONLY: 'on' },
        async (target) => {
          const owner = libraryClient(target.url, alice.token)
          const at = '/v2/alice/c/n'
          const refused = [
            await owner.call('POST', `${at}/blobs/uploads/`),
            await owner.call('POST', '/v2/alice/new/n/blobs/uploads/'),
            await blob(owner, 'alice/c/n', randomBytes(10)),
            await owner.call('POST', `${at}/blobs/uploads/?mount=${digest}&from=alice/c/n`),
            await owner.call('PATCH', location, bytes),
            await owner.call('PUT', `${location}&digest=${digest}`, bytes),
            await owner.call('DELETE', location),
            await put(owner, 'alice/c/n', 'v2'),
            await owner.call('DELETE', `${at}/manifests/v1`),
            await owner.call('DELETE', `${at}/manifests/${digestOf(indexOf('v1'))}`),
            await owner.call('DELETE', `${at}/blobs/${digest}`),
          ]
          for (const answer of refused) expectOci(answer, 403, 'DENIED', /SREG_READ_ONLY/)
          const nobody = libraryClient(target.url)
          for (const path of ['manifests/v1', 'tags/list', `blobs/${digest}`])
            expect((await nobody.call('GET', `${at}/${path}`)).status).toBe(200)
        },
        before.data,
      )
    })

    test('SREG_ANONYMOUS_PULL=off asks everybody for a token, whatever is there', async () => {
      await withTarget({ SREG_ANONYMOUS_PULL: 'off' }, async (target) => {
        const alice = await clientOf(target, 'alice')
        expect((await put(alice, 'alice/c/n', 'v1')).status).toBe(201)
        const nobody = libraryClient(target.url)
        for (const repository of ['alice/c/n', 'alice/c/absent'])
          for (const path of ['manifests/v1', 'tags/list', `referrers/${digestOf('')}`])
            expectOci(await nobody.call('GET', `/v2/${repository}/${path}`), 401, 'UNAUTHORIZED')
        expectOci(await nobody.call('GET', '/v2/_catalog'), 401, 'UNAUTHORIZED')
        // a token of nobody's opens no more
        const given = await nobody.call('GET', '/v2/token?scope=repository:alice/c/n:pull')
        const anonymous = libraryClient(target.url, given.json?.token ?? null)
        expectOci(await anonymous.call('GET', '/v2/alice/c/n/tags/list'), 401, 'UNAUTHORIZED')
        const guest = await clientOf(target, 'guest')
        expect((await guest.call('GET', '/v2/alice/c/n/manifests/v1')).status).toBe(200)
      })
    })

    test.each(['SREG_PRIVATE_ONLY', 'SREG_DEFAULT_PRIVATE'])(
      '%s: what a push makes is private',
      async (setting) => {
        await withTarget({ [setting]: 'on' }, async (target) => {
          const alice = await clientOf(target, 'alice')
          const guest = await clientOf(target, 'guest')
          for (const repository of ['alice/c/n', 'alice/n', 'alice/c/deep/er']) {
            expect((await put(alice, repository, 'v1')).status).toBe(201)
            const path = `/v2/${repository}/manifests/v1`
            expect((await alice.call('GET', path)).status).toBe(200)
            expectOci(await guest.call('GET', path), 404, 'NAME_UNKNOWN')
          }
        })
      },
    )

    test('SREG_USER_COLLECTIONS and SREG_USER_COLLECTION_LIMIT hold for what a push makes', async () => {
      await withTarget({ SREG_USER_COLLECTION_LIMIT: '2' }, async (target) => {
        const alice = await clientOf(target, 'alice')
        for (const collection of ['one', 'two'])
          expect((await put(alice, `alice/${collection}/n`, 'v1')).status).toBe(201)
        expectOci(await put(alice, 'alice/three/n', 'v1'), 403, 'DENIED', /collections/)
        expectOci(await put(alice, 'alice/n', 'v1'), 403, 'DENIED', /collections/)
        expect((await put(alice, 'alice/two/more/of/it', 'v1')).status).toBe(201)
      })
      await withTarget({ SREG_USER_COLLECTIONS: 'off' }, async (target) => {
        const alice = await clientOf(target, 'alice')
        expectOci(await put(alice, 'alice/c/n', 'v1'), 403, 'DENIED', /staff/)
      })
    })

    test('SREG_MAX_IMAGE bounds a blob, however it comes', async () => {
      await withTarget({ SREG_MAX_IMAGE: '1000' }, async (target) => {
        const alice = await clientOf(target, 'alice')
        const [fits, large] = [randomBytes(1000), randomBytes(1001)]
        expect((await blob(alice, 'alice/c/n', fits)).status).toBe(201)
        expectOci(await blob(alice, 'alice/c/n', large), 413, 'SIZE_INVALID', /1000 bytes/)
        const opened = await alice.call('POST', '/v2/alice/c/n/blobs/uploads/')
        const first = opened.headers.get('location') ?? ''
        const part = await alice.call('PATCH', first, large.subarray(0, 600))
        expect(part.status).toBe(202)
        const next = part.headers.get('location') ?? ''
        expectOci(await alice.call('PATCH', next, large.subarray(600)), 413, 'SIZE_INVALID')
      })
    })

    test('a quota: refused with its figures, whichever way bytes come (R50)', async () => {
      await withTarget({ SREG_DEFAULT_QUOTA: '10000' }, async (target) => {
        const alice = await clientOf(target, 'alice')
        const [held, more] = [randomBytes(6000), randomBytes(5000)]
        expect((await blob(alice, 'alice/c/n', held)).status).toBe(201)
        const full =
          /no room for this blob of 4\.9 KiB \(5000 bytes\): alice uses 5\.9 KiB \(6000 bytes\) of the 9\.8 KiB/
        expectOci(await blob(alice, 'alice/c/n', more), 403, 'DENIED', full)
        const open = async () =>
          (await alice.call('POST', '/v2/alice/c/n/blobs/uploads/')).headers.get('location') ?? ''
        expectOci(await alice.call('PATCH', await open(), more), 403, 'DENIED', full)
        const closing = `${await open()}&digest=${digestOf(more)}`
        expectOci(await alice.call('PUT', closing, more), 403, 'DENIED', full)
        // from another entity: a mount is bytes, too
        const bob = await clientOf(target, 'bob')
        expect((await blob(bob, 'bob/c/n', more)).status).toBe(201)
        const mount = `/v2/alice/c/n/blobs/uploads/?mount=${digestOf(more)}&from=bob/c/n`
        expectOci(await alice.call('POST', mount), 403, 'DENIED', full)
        // what it has costs nothing, and a library upload finds no room beside an OCI one
        expect((await blob(alice, 'alice/d/n', held)).status).toBe(201)
        const begun = await alice.call('PATCH', await open(), more.subarray(0, 4000))
        expect(begun.status).toBe(202)
        const usage = async () => expectData(await alice.call('GET', '/v1/usage?entity=alice'))
        expect(await usage()).toMatchObject({ used: 6000, reserved: 4000 })
        const bytes = sampleSif({ content: 'no room beside' })
        await expect(alice.push('alice/c/n', bytes)).rejects.toThrow(/403.*more on their way/)
        // what is dropped, and taken out everywhere, leaves its room
        expect((await alice.call('DELETE', begun.headers.get('location') ?? '')).status).toBe(204)
        expect(await usage()).toMatchObject({ used: 6000, reserved: 0 })
        for (const repository of ['alice/c/n', 'alice/d/n'])
          expect(
            (await alice.call('DELETE', `/v2/${repository}/blobs/${digestOf(held)}`)).status,
          ).toBe(202)
        expect((await alice.call('POST', mount)).status).toBe(201)
        expect(await usage()).toMatchObject({ used: 5000, reserved: 0 })
      })
    })
  })

  describe(`${name}: OCI in the audit log (R57)`, { timeout: 60_000 }, () => {
    test('pushes, mounts, tags and deletes: who, what, from where; refusals added up', async () => {
      await withTarget({}, async (target) => {
        const boss = await clientOf(target, 'boss', { admin: true, scopes: [...SCOPES] })
        const made = await target.mint('alice')
        const alice = libraryClient(target.url, made.jwt)
        const read = async (query: string) =>
          expectData(await boss.call('GET', `/v1/audit?${query}`)).entries as Record<
            string,
            unknown
          >[]
        const bytes = randomBytes(50)
        const [digest, one, two] = [digestOf(bytes), indexOf('one'), indexOf('two')]
        for (let i = 0; i < 2; i++) {
          expect((await blob(alice, 'alice/log/n', bytes)).status).toBe(201)
          expect((await put(alice, 'alice/log/n', 'v1', 'one')).status).toBe(201)
        }
        expect((await put(alice, 'alice/log/n', 'v1', 'two')).status).toBe(201)
        const mount = `/v2/alice/log/m/blobs/uploads/?mount=${digest}&from=alice/log/n`
        expect((await alice.call('POST', mount)).status).toBe(201)
        for (const path of ['n/manifests/v1', `n/manifests/${digestOf(two)}`, `m/blobs/${digest}`])
          expect((await alice.call('DELETE', `/v2/alice/log/${path}`)).status).toBe(202)
        const rows = (await read('actor=alice&ref=alice/log')).toReversed()
        expect(
          rows.map(({ action, name: what }) => `${action as string} ${what as string}`),
        ).toEqual([
          'collection.create alice/log',
          'container.create alice/log/n',
          `blob.push alice/log/n@${digest}`,
          `manifest.put alice/log/n@${digestOf(one)}`,
          'tag.set alice/log/n:v1',
          `manifest.put alice/log/n@${digestOf(two)}`,
          'tag.set alice/log/n:v1',
          'container.create alice/log/m',
          `blob.mount alice/log/m@${digest}`,
          'tag.delete alice/log/n:v1',
          `manifest.delete alice/log/n@${digestOf(two)}`,
          `blob.delete alice/log/m@${digest}`,
        ])
        for (const row of rows) {
          expect(row).toMatchObject({ actor: 'alice', tokenId: made.id, outcome: 'done', count: 1 })
          expect(row['address']).toMatch(address)
        }
        expect(rows[2]?.['detail']).toBe('50 bytes, uploaded')
        expect(rows[6]?.['detail']).toContain(digestOf(two))

        const mallory = await clientOf(target, 'mallory')
        const forged = libraryClient(target.url, 'no.good.token')
        const nobody = libraryClient(target.url)
        for (let i = 0; i < 4; i++) {
          expectOci(await put(mallory, 'alice/log/n', 'v9'), 403, 'DENIED')
          expectOci(await put(forged, 'alice/log/n', 'v9'), 401, 'UNAUTHORIZED')
          expectOci(await forged.call('GET', '/v2/'), 401, 'UNAUTHORIZED')
          // what asks without a credential, as every client does first, is no refusal of anybody
          expectOci(await put(nobody, 'alice/log/n', 'v9'), 401, 'UNAUTHORIZED')
          // nor is what looks absent
          expectOci(await mallory.call('GET', '/v2/alice/log/none/tags/list'), 404, 'NAME_UNKNOWN')
        }
        const sum = (of: Record<string, unknown>[]) =>
          of.reduce((total, { count }) => total + Number(count), 0)
        let denied: Record<string, unknown>[] = []
        // counted in memory: written with what comes seconds later
        for (let waited = 0; waited < 30 && sum(denied) < 12; waited++) {
          await sleep(300)
          await forged.call('GET', '/v2/')
          denied = await read('outcome=denied')
        }
        const hers = denied.filter(({ actor }) => actor === 'mallory')
        const theirs = denied.filter(({ actor }) => actor === '')
        expect([sum(hers), hers.length <= 2]).toEqual([4, true])
        for (const row of hers)
          expect(row).toMatchObject({
            action: 'PUT /v2/:name{.+}/manifests/:reference',
            detail: expect.stringContaining('belongs to somebody else') as string,
          })
        expect(sum(theirs)).toBeGreaterThanOrEqual(8)
        // of one minute, or two
        expect(theirs.length).toBeLessThanOrEqual(2)
        for (const { action } of theirs) expect(action).toBe('request')
      })
    })
  })
}
