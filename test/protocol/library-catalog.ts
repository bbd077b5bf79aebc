/** Names, tags, privacy, search and delete over HTTP (protocol.md §3, apptainer-wire.md §3). */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  buildSif,
  deffile,
  inspectMetadata,
  partition,
  sampleSif,
  signature,
} from '../fixtures/sif.ts'
import type { Target, TargetOptions } from '../runtimes/target.ts'
import { expectAlike, expectData, expectRefusal } from './answers.ts'
import { libraryClient, sha256, type LibraryClient } from './client.ts'
import { rawGet } from './raw.ts'

const FINGERPRINT = 'ABCDEF0123456789ABCDEF0123456789ABCDEF01'
/** What clients send in create bodies beside what they mean. */
const ZERO = {
  deleted: false,
  createdBy: '',
  createdAt: '0001-01-01T00:00:00Z',
  id: '',
  size: 0,
  owner: 'somebody',
  quota: 0,
  defaultPrivate: false,
  customData: '',
  containers: null,
}

export function describeCatalog(
  name: string,
  makeTarget: (options?: TargetOptions) => Promise<Target>,
): void {
  describe(`catalog: ${name}`, () => {
    let target: Target
    let url: string
    let alice: LibraryClient
    let bob: LibraryClient
    let carol: LibraryClient
    let admin: LibraryClient
    let nobody: LibraryClient
    beforeAll(async () => {
      target = await makeTarget()
      url = target.url
      alice = libraryClient(url, (await target.mint('alice')).jwt)
      bob = libraryClient(url, (await target.mint('bob')).jwt)
      carol = libraryClient(url, (await target.mint('carol')).jwt)
      const scopes = ['pull', 'push', 'delete', 'admin'] as const
      const root = await target.mint('root', { admin: true, scopes: [...scopes] })
      admin = libraryClient(url, root.jwt)
      nobody = libraryClient(url)
    })
    afterAll(() => target.stop())

    /** Hash of the image that a ref names for amd64, or the status. */
    const found = async (ref: string, who = nobody, query = '?arch=amd64') => {
      const { status, json } = await who.call('GET', `/v1/images/${ref}${query}`)
      return status === 200 ? (json.data.hash as string) : status
    }

    describe('creating', () => {
      test('create calls are idempotent and ignore what clients do not mean', async () => {
        const make = async (path: string, body: object) =>
          expectData(await alice.call('POST', path, { ...ZERO, ...body }))
        const entity = await make('/v1/entities', { name: 'alice', description: 'No description' })
        expect(entity.description).toBe('')
        const collection = await make('/v1/collections', { name: 'twice', entity: entity.id })
        const container = await make('/v1/containers', { name: 'c', collection: collection.id })
        const hash = `sha256.${'1'.repeat(64)}`
        const image = await make('/v1/images', { hash, container: container.id, uploaded: true })
        for (const { id } of [entity, collection, container, image])
          expect(id).toMatch(/^[0-9a-f]{24}$/)
        expect(image).toMatchObject({ hash, uploaded: false, container: container.id })
        const again = [
          await make('/v1/entities', { name: 'alice', description: 'other' }),
          await make('/v1/collections', { name: 'twice', entity: entity.id, description: 'other' }),
          await make('/v1/containers', { name: 'c', collection: collection.id }),
          await make('/v1/images', { hash, container: container.id, description: 'other' }),
        ]
        expect(again.map(({ id }) => id)).toEqual(
          [entity, collection, container, image].map((r) => r.id),
        )
        expect(again.map(({ description }) => description)).toEqual(['', '', '', ''])
      })

      test('equal creates at once make one row', async () => {
        const { entity } = await alice.ensure('alice', 'racing', 'c')
        const body = { name: 'raced', entity }
        const answers = await Promise.all(
          Array.from({ length: 20 }, () => alice.call('POST', '/v1/collections', body)),
        )
        expect(new Set(answers.map((answer) => expectData(answer).id)).size).toBe(1)
      })

      test('names outside the grammar and reserved ones are refused before any lookup (R26)', async () => {
        const { entity, collection, container } = await alice.ensure('alice', 'names', 'c')
        const bad = ['..', 'A', 'a/b', 'a b', '', 'é', 'a..b', '-a', 'a_', 'x'.repeat(256), 'a%2fb']
        const id = '0123456789abcdef01234567'
        for (const word of [...bad, '\u0000', 'a\u202eb', id]) {
          expectRefusal(await alice.call('POST', '/v1/entities', { name: word }), 400, /name/)
          expectRefusal(
            await alice.call('POST', '/v1/collections', { name: word, entity }),
            400,
            /name/,
          )
          const body = { name: word, collection }
          expectRefusal(await alice.call('POST', '/v1/containers', body), 400, /name/)
        }
        for (const word of [
          'imagefile',
          'tags',
          'v1',
          'v2',
          'api',
          'pks',
          'assets',
          'auth',
          'version',
        ])
          expectRefusal(await admin.call('POST', '/v1/entities', { name: word }), 400, /reserved/)
        for (const hash of [
          '',
          'x',
          `sha256.${'A'.repeat(63)}`,
          `sha512.${'1'.repeat(128)}`,
          '1'.repeat(64),
        ])
          expectRefusal(await alice.call('POST', '/v1/images', { hash, container }), 400, /sha256/)
        const capitals = { hash: `sha256.${'AB'.repeat(32)}`, container }
        const made = expectData(await alice.call('POST', '/v1/images', capitals))
        expect(made.hash).toBe(`sha256.${'ab'.repeat(32)}`)
      })

      test('nobody makes an entity of another name but an administrator', async () => {
        expectRefusal(await bob.call('POST', '/v1/entities', { name: 'dora' }), 403, /own entity/)
        expectRefusal(await bob.call('POST', '/v1/entities', { name: 'alice' }), 403, /own entity/)
        expectRefusal(await nobody.call('POST', '/v1/entities', { name: 'dora' }), 401, /log in/)
        const made = expectData(await admin.call('POST', '/v1/entities', { name: 'library' }))
        expectRefusal(
          await bob.call('POST', '/v1/collections', { name: 'x', entity: made.id }),
          404,
        )
      })

      test('bodies work with any content type and with none', async () => {
        const { entity } = await alice.ensure('alice', 'types', 'c')
        const body = JSON.stringify({ name: 'types', entity })
        for (const type of ['application/x-www-form-urlencoded', 'text/plain', 'application/json'])
          expectData(await alice.call('POST', '/v1/collections', body, { 'content-type': type }))
      })

      test('private:false means nothing, private:true counts (R15)', async () => {
        const { entity } = await alice.ensure('alice', 'closed', 'c', { privateCollection: true })
        await alice.push('alice/closed/c', sampleSif({ content: 'r15' }))
        const open = { name: 'closed', entity, private: false }
        expect(expectData(await alice.call('POST', '/v1/collections', open)).private).toBe(true)
        expect(await found('alice/closed/c:latest')).toBe(404)
        // within a public collection, too
        await alice.push('alice/half/hidden', sampleSif({ content: 'r15-2' }), {
          privateContainer: true,
        })
        await alice.push('alice/half/open', sampleSif({ content: 'r15-3' }))
        expect(await found('alice/half/hidden:latest')).toBe(404)
        expect(await found('alice/half/open:latest')).toMatch(/^sha256/)
      })
    })

    describe('refs', () => {
      const first = sampleSif({ content: 'refs' })
      const hash = `sha256.${sha256(first)}`
      beforeAll(async () => {
        await admin.push('library/default/short', first)
        await admin.push('library/tools/two', first)
      })

      test('one and two parts, empty parts and double slashes take the default names', async () => {
        const refs = [
          'short',
          'short:latest',
          'default/short',
          'library/default/short',
          'tools/two',
        ]
        for (const ref of [...refs, '/short:latest', '//short', '/default/short', 'library//short'])
          expect([ref, await found(ref)]).toEqual([ref, hash])
        const { status, body } = await rawGet(url, '/v1/imagefile//short:latest')
        expect([status, sha256(body)]).toEqual([200, sha256(first)])
        const paths = ['/v1/entities/', '/v1/collections//default', '/v1/containers///short']
        for (const path of [...paths, '/v1/containers/library//short'])
          expectData(await nobody.call('GET', path))
      })

      test('hashes with dot and colon, capitals, %3A; of several tags the first', async () => {
        const digest = sha256(first)
        const refs = [`sha256.${digest}`, `sha256:${digest}`, `sha256.${digest.toUpperCase()}`]
        for (const ref of [...refs, 'latest,other', 'latest,'])
          expect([ref, await found(`short:${ref}`)]).toEqual([ref, hash])
        expect(await found(`short%3Asha256.${digest}`)).toBe(hash)
        expect(await found(`short:sha256.${'0'.repeat(64)}`)).toBe(404)
        expect(await found('short:sha256.zz')).toBe(400)
        expect(await found('short:sif.01234567-0123-0123-0123-0123456789ab')).toBe(404)
        expect(await found('a/b/c/d:e')).toBe(400)
      })

      test('a hash is found whatever the arch says; a tag is of one arch', async () => {
        expect(await found(`short:${hash}`, nobody, '?arch=arm64')).toBe(hash)
        expect(await found('short:latest', nobody, '?arch=arm64')).toBe(404)
        expect(await found('short:latest', nobody, '')).toBe(hash)
        expect(await found('short:latest', nobody, '?arch%3Damd64')).toBe(hash)
        expect(await found('short:latest', nobody, '?arch%3Darm64')).toBe(404)
        expect(await found('short:latest', nobody, '?arch=%27%20or%201')).toBe(400)
      })

      test('SREG_SHORT_REFS=unique finds the one visible collection of that name', async () => {
        const other = await makeTarget({ env: { SREG_SHORT_REFS: 'unique' } })
        try {
          const carol = libraryClient(other.url, (await other.mint('carol')).jwt)
          const dave = libraryClient(other.url, (await other.mint('dave')).jwt)
          const look = async (who = libraryClient(other.url)) =>
            (await who.call('GET', '/v1/images/tools/x?arch=amd64')).json.data?.hash ?? null
          await carol.push('carol/tools/x', first)
          expect(await look()).toBe(hash)
          await dave.push('dave/tools/x', sampleSif({ content: 'dave' }), {
            privateCollection: true,
          })
          expect(await look(), 'a private one does not count for others').toBe(hash)
          expect(await look(dave), 'two that dave sees').toBeNull()
          await other.setPrivate('dave/tools', false)
          expect(await look(), 'two for everybody').toBeNull()
        } finally {
          await other.stop()
        }
      })
    })

    describe('tags', () => {
      test('v1 tags in three spellings, v2 tags, both lists', async () => {
        const { image, container } = await alice.push('alice/tags/spelt', sampleSif(), { tags: [] })
        expect(expectData(await alice.call('GET', `/v2/tags/${container}`))).toEqual({})
        const bodies = [
          { Tag: 'upper', ImageID: image },
          { tag: 'lower', imageID: image },
          { bare: image },
        ]
        for (const body of bodies)
          expectData(await alice.call('POST', `/v1/tags/${container}`, body))
        const v2 = { Arch: 'amd64', Tag: 'V2.0-rc_1', ImageID: image }
        expectData(await alice.call('POST', `/v2/tags/${container}`, v2))
        const names = Object.fromEntries(
          ['upper', 'lower', 'bare', 'V2.0-rc_1'].map((t) => [t, image]),
        )
        expect(expectData(await nobody.call('GET', `/v1/tags/${container}`))).toEqual(names)
        expect(expectData(await nobody.call('GET', `/v1/tags/${container}?arch=arm64`))).toEqual({})
        expect(expectData(await nobody.call('GET', `/v2/tags/${container}`))).toEqual({
          amd64: names,
        })
        const shown = expectData(await nobody.call('GET', '/v1/containers/alice/tags/spelt'))
        expect(shown).toMatchObject({ archTags: { amd64: names }, imageTags: names })
      })

      test('a tag moves, per arch; the image it left stays by hash', async () => {
        const one = await alice.push('alice/tags/moves', sampleSif({ content: 'm1' }))
        const arm = sampleSif({ arch: 'arm64', content: 'm-arm' })
        const other = await alice.push('alice/tags/moves', arm, { arch: 'arm64' })
        const two = await alice.push('alice/tags/moves', sampleSif({ content: 'm2' }))
        expect(await found('alice/tags/moves:latest')).toBe(`sha256.${two.digest}`)
        expect(await found('alice/tags/moves', nobody, '?arch=arm64')).toBe(
          `sha256.${other.digest}`,
        )
        expect(await found(`alice/tags/moves:sha256.${one.digest}`)).toBe(`sha256.${one.digest}`)
      })

      test('a tag of another arch than the file is refused with a sentence', async () => {
        const { image, container } = await alice.push(
          'alice/tags/arch',
          sampleSif({ content: 'arch' }),
        )
        const body = { Arch: 'arm64', Tag: 'latest', ImageID: image }
        const says = /built for amd64/
        expectRefusal(await alice.call('POST', `/v2/tags/${container}`, body), 409, says)
        expect(await found('alice/tags/arch', nobody, '?arch=arm64')).toBe(404)
      })

      test('odd tag bodies and names are refused', async () => {
        const { image, container } = await alice.push(
          'alice/tags/odd',
          sampleSif({ content: 'odd' }),
        )
        const path = `/v2/tags/${container}`
        for (const Tag of [
          '',
          '..',
          'a b',
          'a/b',
          'x'.repeat(129),
          `sha256.${'1'.repeat(64)}`,
          '-a',
          'é',
        ])
          expectRefusal(await alice.call('POST', path, { Arch: 'amd64', Tag, ImageID: image }), 400)
        const bodies = [{}, [], null, 'x', 5, { Tag: 1, ImageID: image }, { Tag: 'x' }]
        for (const body of [...bodies, { Arch: 'AMD 64', Tag: 'x', ImageID: image }])
          expectRefusal(await alice.call('POST', path, JSON.stringify(body)), 400)
        expect(Object.keys(expectData(await alice.call('GET', path)).amd64)).toEqual(['latest'])
      })
    })

    describe('ids of others (R16)', () => {
      /** An owner's entity with a finished image, one without bytes and an upload in parts. */
      async function furnish(who: LibraryClient, owner: string, hidden: boolean) {
        const path = `${owner}/r16${hidden ? 'p' : ''}/x`
        const bytes = sampleSif({ content: `r16 ${owner} ${hidden}` })
        const pushed = await who.push(path, bytes, { privateCollection: hidden })
        const [entity = '', collection = ''] = path.split('/')
        const ids = await who.ensure(entity, collection, 'x')
        const hash = `sha256.${sha256(new TextEncoder().encode(path))}`
        const half = await who.call('POST', '/v1/images', { hash, container: ids.container })
        const empty = expectData(half).id as string
        const parts = await who.call('POST', `/v2/imagefile/${empty}/_multipart`, {
          filesize: 70_000_000,
        })
        return {
          ...ids,
          path,
          image: pushed.image,
          empty,
          uploadID: expectData(parts).uploadID as string,
        }
      }
      const snapshot = async (who: LibraryClient, of: { path: string; container: string }) => {
        const [entity, collection] = of.path.split('/')
        const paths = [
          `/v1/entities/${entity}`,
          `/v1/collections/${entity}/${collection}`,
          `/v1/containers/${of.path}`,
          `/v1/images/${of.path}:latest?arch=amd64`,
          `/v2/tags/${of.container}`,
        ]
        return Promise.all(paths.map(async (path) => expectData(await who.call('GET', path))))
      }

      test.each([
        { kind: 'public', hidden: false, refused: 403 },
        { kind: 'private', hidden: true, refused: 404 },
      ])('every pair of ids across two owners, $kind', async ({ hidden, refused }) => {
        // carol has nothing but what is private: her very entity is not to be seen
        const her = hidden ? carol : alice
        const hers = await furnish(her, hidden ? 'carol' : 'alice', hidden)
        const his = await furnish(bob, 'bob', false)
        const before = [await snapshot(her, hers), await snapshot(bob, his)]
        const hash = `sha256.${'2'.repeat(64)}`
        const part = { partNumber: 1, partSize: 67_108_864, sha256sum: '' }
        const done = { completedParts: [{ partNumber: 1, token: 'x' }] }
        const upload = (image: string, action: string) => `/v2/imagefile/${image}/${action}`
        const tries: [number, string, string, object][] = [
          // a parent of hers
          [refused, 'POST', '/v1/collections', { name: 'mine', entity: hers.entity }],
          [refused, 'POST', '/v1/containers', { name: 'mine', collection: hers.collection }],
          [refused, 'POST', '/v1/images', { hash, container: hers.container }],
          // her container with any image; his container with hers
          [
            refused,
            'POST',
            `/v2/tags/${hers.container}`,
            { Arch: 'amd64', Tag: 't', ImageID: his.image },
          ],
          [
            refused,
            'POST',
            `/v2/tags/${hers.container}`,
            { Arch: 'amd64', Tag: 't', ImageID: hers.image },
          ],
          [refused, 'POST', `/v1/tags/${hers.container}`, { t: hers.image }],
          [
            404,
            'POST',
            `/v2/tags/${his.container}`,
            { Arch: 'amd64', Tag: 't', ImageID: hers.image },
          ],
          [404, 'POST', `/v1/tags/${his.container}`, { Tag: 't', ImageID: hers.image }],
          [
            404,
            'POST',
            `/v2/tags/${his.container}`,
            { Arch: 'amd64', Tag: 't', ImageID: hers.empty },
          ],
          [
            404,
            'POST',
            `/v2/tags/${his.container}`,
            { Arch: 'amd64', Tag: 't', ImageID: his.empty },
          ],
          // her images
          ...[hers.image, hers.empty].flatMap((id): [number, string, string, object][] => [
            [refused, 'POST', `/v2/imagefile/${id}`, { filesize: 100 }],
            [refused, 'POST', upload(id, '_multipart'), { filesize: 70_000_000 }],
            [refused, 'PUT', upload(id, '_complete'), {}],
            // her upload, however the path is made to agree
            [404, 'PUT', upload(id, '_multipart'), { uploadID: hers.uploadID, ...part }],
          ]),
          [refused, 'PUT', upload(hers.empty, '_complete'), {}],
          // her upload on his image, his on hers
          [404, 'PUT', upload(his.empty, '_multipart'), { uploadID: hers.uploadID, ...part }],
          [
            404,
            'PUT',
            upload(his.empty, '_multipart_complete'),
            { uploadID: hers.uploadID, ...done },
          ],
          [404, 'PUT', upload(his.empty, '_multipart_abort'), { uploadID: hers.uploadID }],
          [404, 'PUT', upload(hers.empty, '_multipart'), { uploadID: his.uploadID, ...part }],
          [
            404,
            'PUT',
            upload(hers.empty, '_multipart_complete'),
            { uploadID: his.uploadID, ...done },
          ],
          [404, 'PUT', upload(hers.empty, '_multipart_abort'), { uploadID: his.uploadID }],
          [
            404,
            'PUT',
            upload(hers.empty, '_multipart_complete'),
            { uploadID: hers.uploadID, ...done },
          ],
          [404, 'PUT', upload(hers.empty, '_multipart_abort'), { uploadID: hers.uploadID }],
        ]
        for (const [status, method, path, body] of tries) {
          const answer = await bob.call(method, path, body)
          expect([method, path, body, answer.status]).toEqual([method, path, body, status])
          expectRefusal(answer, status)
        }
        expect([await snapshot(her, hers), await snapshot(bob, his)]).toEqual(before)
        // her upload still takes parts: nothing was aborted
        const still = { uploadID: hers.uploadID, ...part }
        expectData(await her.call('PUT', upload(hers.empty, '_multipart'), still))
      })

      test('an id that was never given answers like one of somebody else', async () => {
        const hers = await furnish(carol, 'carol', true)
        const ghost = 'f'.repeat(24)
        const pairs: [string, string, object, string, object][] = [
          [
            'POST',
            '/v1/collections',
            { name: 'x', entity: hers.entity },
            '/v1/collections',
            { name: 'x', entity: ghost },
          ],
          [
            'POST',
            '/v1/containers',
            { name: 'x', collection: hers.collection },
            '/v1/containers',
            { name: 'x', collection: ghost },
          ],
          ['GET', `/v2/tags/${hers.container}`, {}, `/v2/tags/${ghost}`, {}],
          [
            'POST',
            `/v2/imagefile/${hers.image}`,
            { filesize: 9 },
            `/v2/imagefile/${ghost}`,
            { filesize: 9 },
          ],
          [
            'PUT',
            `/v2/imagefile/${hers.image}/_complete`,
            {},
            `/v2/imagefile/${ghost}/_complete`,
            {},
          ],
        ]
        for (const [method, path, body, ghostPath, ghostBody] of pairs) {
          const send = (at: string, what: object) =>
            bob.call(method, at, method === 'GET' ? undefined : what)
          expectAlike(await send(path, body), await send(ghostPath, ghostBody))
        }
        for (const id of ['x', '...', `${hers.image}0`, hers.image.toUpperCase(), '%00'])
          expectRefusal(await alice.call('POST', `/v2/imagefile/${id}`, { filesize: 9 }), 404)
      })
    })

    describe('search', () => {
      const search = async (value: string, who = nobody, more = '') => {
        const query = `value=${encodeURIComponent(value)}${more}`
        return expectData(await who.call('GET', `/v1/search?${query}`))
      }
      const names = async (...args: Parameters<typeof search>) =>
        (await search(...args)).image.map((image: any) => image.containerName).toSorted()
      beforeAll(async () => {
        const labels = { maintainer: 'O\'Hara "Quoted" 100%', note: 'x_y' }
        await alice.push('alice/findable/zebra', sampleSif({ content: 'z', labels }), {
          tags: ['stripes', 'v1'],
        })
        const parts = [
          deffile('x'),
          inspectMetadata({}),
          partition({ arch: 'arm64' }),
          signature(FINGERPRINT),
        ]
        const signed = buildSif({ arch: 'arm64', objects: parts })
        await alice.push('alice/findable/zebu', signed, { arch: 'arm64' })
        const hidden = sampleSif({ content: 'hidden', labels: { maintainer: 'zebra-lover' } })
        await alice.push('alice/unfindable/zebrafish', hidden, { privateCollection: true })
      })

      test('substrings of names, tags and labels, without case', async () => {
        for (const text of [
          'zebra',
          'ZEBRA',
          'ebr',
          'stripes',
          'STRIP',
          "o'hara",
          '"quoted"',
          '100%',
          'x_y',
        ])
          expect([text, await names(text)]).toEqual([text, ['zebra']])
        expect(await names('zeb')).toEqual(['zebra', 'zebu'])
        expect(await names('findable zebu')).toEqual(['zebu'])
        expect(await names('zebra zebu')).toEqual([])
      })

      test('quotes, wildcards and full-text operators are only text (R56)', async () => {
        for (const text of [
          'zebra OR zebu',
          'zeb*',
          '"zebra',
          'NOT zebra',
          'names:zebra',
          'zebra NEAR zebu',
          '%%%',
          '___',
        ])
          expect([text, await names(text)]).toEqual([text, []])
        for (const text of [
          `'; drop table images; --`,
          '(((((',
          '^^^',
          'a\u0000bc',
          '💥💥💥',
          '\\\\\\',
        ])
          expect(Array.isArray((await search(text)).image)).toBe(true)
        expect(await names('zeb')).toEqual(['zebra', 'zebu'])
      })

      test('signed and arch narrow down; arch may be a list', async () => {
        expect(await names('zeb', nobody, '&arch=amd64')).toEqual(['zebra'])
        expect(await names('zeb', nobody, '&arch=arm64')).toEqual(['zebu'])
        expect(await names('zeb', nobody, '&arch=amd64,arm64')).toEqual(['zebra', 'zebu'])
        expect(await names('zeb', nobody, '&arch%3Darm64')).toEqual(['zebu'])
        expect(await names('zeb', nobody, '&signed=true')).toEqual(['zebu'])
        const { image } = await search('zebu')
        expect(image).toMatchObject([
          {
            entityName: 'alice',
            collectionName: 'findable',
            containerName: 'zebu',
            tags: ['latest'],
            fingerprints: [FINGERPRINT],
            signed: true,
            arch: 'arm64',
          },
        ])
      })

      test('private images are invisible to others, in every list (R30)', async () => {
        const { entity, collection, container, image } = await search('zebrafish')
        expect([entity, collection, container, image]).toEqual([[], [], [], []])
        expect(await names('zebrafish', bob)).toEqual([])
        expect(await names('lover', bob)).toEqual([])
        expect(await names('zebrafish', alice)).toEqual(['zebrafish'])
        expect(await names('lover', admin)).toEqual(['zebrafish'])
      })

      test('four lists for older clients', async () => {
        const all = await search('alice')
        expect(all.entity).toContainEqual({ id: expect.any(String), name: 'alice' })
        expect((await search('findable')).collection).toContainEqual(
          expect.objectContaining({ name: 'findable', entityName: 'alice' }),
        )
        expect((await search('zebra')).container).toContainEqual(
          expect.objectContaining({
            name: 'zebra',
            collectionName: 'findable',
            entityName: 'alice',
          }),
        )
        expect(Object.keys(await search('nothing at all'))).toEqual(
          expect.arrayContaining(['entity', 'collection', 'container', 'image']),
        )
      })

      test('short, absent and very long texts are refused', async () => {
        for (const query of [
          '',
          'value=',
          'value=ab',
          'value=%20%20a%20',
          `value=${'x'.repeat(300)}`,
        ])
          expectRefusal(await nobody.call('GET', `/v1/search?${query}`), 400, /characters/)
        const words = `value=${Array.from({ length: 9 }, () => 'abc').join('+')}`
        expectRefusal(await nobody.call('GET', `/v1/search?${words}`), 400, /words/)
      })

      test('descriptions are found, and deleted images are not', async () => {
        const { container } = await alice.ensure('alice', 'findable', 'gnu')
        const bytes = sampleSif({ content: 'gnu' })
        const hash = `sha256.${sha256(bytes)}`
        const body = { hash, container, description: 'a wildebeest' }
        expectData(await alice.call('POST', '/v1/images', body))
        expect(await names('wildebeest', alice)).toEqual([])
        await alice.push('alice/findable/gnu', bytes)
        expect(await names('wildebeest')).toEqual(['gnu'])
        expectData(await alice.call('DELETE', '/v1/images/alice/findable/gnu:latest?arch=amd64'))
        expect(await names('wildebeest', alice)).toEqual([])
      })
    })

    describe('delete', () => {
      const remove = (ref: string, who = alice, query = '?arch=amd64') =>
        who.call('DELETE', `/v1/images/${ref}${query}`)

      test('by tag: that tag of that arch; the image goes with its last', async () => {
        const ref = 'alice/delete/tags'
        const amd = await alice.push(ref, sampleSif({ content: 'd1' }), { tags: ['v1', 'v2'] })
        const arm = sampleSif({ arch: 'arm64', content: 'd-arm' })
        await alice.push(ref, arm, { arch: 'arm64', tags: ['v1'] })
        expect((await remove(`${ref}:v1`)).status).toBe(200)
        expect(await found(`${ref}:v1`)).toBe(404)
        expect(await found(`${ref}:v1`, nobody, '?arch=arm64')).toBe(`sha256.${sha256(arm)}`)
        expect(await found(`${ref}:sha256.${amd.digest}`)).toBe(`sha256.${amd.digest}`)
        expectRefusal(await remove(`${ref}:v1`), 404)
        expect((await remove(`${ref}:v2`)).status).toBe(200)
        expect(await found(`${ref}:sha256.${amd.digest}`)).toBe(404)
        expect((await remove(`${ref}:v1`, alice, '?arch%3Darm64')).status).toBe(200)
        expect(expectData(await alice.call('GET', `/v1/containers/${ref}`)).images).toEqual([])
      })

      test('by hash: the image with all its tags', async () => {
        const ref = 'alice/delete/hash'
        const { digest } = await alice.push(ref, sampleSif({ content: 'd2' }), {
          tags: ['v1', 'v2'],
        })
        expect((await remove(`${ref}:sha256.${digest}`)).status).toBe(200)
        for (const tag of ['v1', 'v2', `sha256.${digest}`])
          expect(await found(`${ref}:${tag}`)).toBe(404)
        expectRefusal(await remove(`${ref}:sha256.${digest}`), 404)
      })

      test('default tag; missing, foreign and private things; scope', async () => {
        const ref = 'alice/delete/guarded'
        const bytes = sampleSif({ content: 'd3' })
        await alice.push(ref, bytes)
        for (const missing of [
          'alice/delete/guarded:none',
          'alice/delete/none',
          'alice/none/x',
          'none/x/y',
        ])
          expectRefusal(await remove(missing), 404)
        expectRefusal(await remove(ref, bob), 403, /somebody else/)
        expectRefusal(await remove(ref, nobody), 401)
        const { jwt } = await target.mint('alice', { scopes: ['pull', 'push'] })
        expectRefusal(await remove(ref, libraryClient(url, jwt)), 403, /scope/)
        await target.setPrivate('alice/delete/guarded', true)
        expectAlike(await remove(ref, bob), await remove('alice/delete/none', bob))
        expect((await remove(ref)).status).toBe(200)
        // the same again heals: a push after a delete is a push like any other
        const again = await alice.push(ref, bytes)
        expect(await found(ref, alice)).toBe(`sha256.${again.digest}`)
      })
    })
  })
}
