/** Uploads over HTTP: single, v1 and in parts, and everything that goes wrong (protocol.md §4). */
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { buildSif, sampleSif } from '../fixtures/sif.ts'
import type { Target, TargetOptions } from '../runtimes/target.ts'
import { expectData, expectMalformed, expectRefusal, tripsOf } from './answers.ts'
import { libraryClient, putBytes, sha256, type Answer, type LibraryClient } from './client.ts'
import { rawRequest } from './raw.ts'

const MIB = 1024 * 1024
const PART = 64 * MIB

export function describeUploads(
  name: string,
  makeTarget: (options?: TargetOptions) => Promise<Target>,
  /** `direct`: the bytes go to the store itself, which says no in its own words. */
  { direct = false }: { direct?: boolean } = {},
): void {
  describe(`uploads: ${name}`, () => {
    let target: Target
    let url: string
    let alice: LibraryClient
    let bob: LibraryClient
    let nobody: LibraryClient
    beforeAll(async () => {
      target = await makeTarget()
      url = target.url
      alice = libraryClient(url, (await target.mint('alice')).jwt)
      bob = libraryClient(url, (await target.mint('bob')).jwt)
      nobody = libraryClient(url)
    })
    afterAll(() => target.stop())

    /** An image record that waits for its bytes. */
    async function announce(ref: string, bytes: Uint8Array, who = alice) {
      const [entity = '', collection = '', container = ''] = ref.split('/')
      const ids = await who.ensure(entity, collection, container)
      const hash = `sha256.${sha256(bytes)}`
      const made = expectData(
        await who.call('POST', '/v1/images', { hash, container: ids.container }),
      )
      return { ref, hash, bytes, image: made.id as string, container: ids.container, made }
    }
    type Announced = Awaited<ReturnType<typeof announce>>

    const openSingle = async ({ image, bytes }: Announced, who = alice): Promise<string> => {
      const body = { filesize: bytes.length, sha256sum: sha256(bytes) }
      return expectData(await who.call('POST', `/v2/imagefile/${image}`, body)).uploadURL
    }
    async function put(at: string, bytes: Uint8Array): Promise<Answer> {
      // A store may answer before it has read the body, and break the connection.
      const answer = await putBytes(at, bytes).catch((error: unknown) => {
        if (!direct) throw error
        return new Response('', { status: 499 })
      })
      const text = await answer.text()
      return { status: answer.status, headers: answer.headers, text, json: null }
    }
    const expectPutRefused = (answer: Answer, status: number, sentence?: RegExp) =>
      direct
        ? expect(answer.status, answer.text).toBeGreaterThanOrEqual(400)
        : expectRefusal(answer, status, sentence)
    /** What the store holds; an upload that bypasses us stays open until its end. */
    const stored = async () =>
      (await target.store.names()).filter((name) => !(direct && name.startsWith('upload ')))
    const unlessDirect = (title: string, body: () => Promise<void>) =>
      test(title, async (context) => {
        if (direct)
          context.skip('there is no such address of ours: library-direct.ts asks the store')
        await body()
      })
    const complete = ({ image }: Announced, who = alice) =>
      who.call('PUT', `/v2/imagefile/${image}/_complete`, {})
    const tag = ({ container, image }: Announced, who = alice) =>
      who.call('POST', `/v2/tags/${container}`, { Arch: 'amd64', Tag: 'latest', ImageID: image })
    const pull = async (ref: string, who = alice): Promise<string | number> => {
      const headers: Record<string, string> =
        who.token === null ? {} : { authorization: `Bearer ${who.token}` }
      const response = await fetch(`${url}/v1/imagefile/${ref}?arch=amd64`, { headers })
      const bytes = new Uint8Array(await response.arrayBuffer())
      return response.status === 200 ? `sha256.${sha256(bytes)}` : response.status
    }
    const openParts = async (of: Announced, size = of.bytes.length): Promise<string> => {
      const answer = await alice.call('POST', `/v2/imagefile/${of.image}/_multipart`, {
        filesize: size,
      })
      const data = expectData(answer)
      expect(data).toEqual({
        uploadID: expect.any(String),
        totalParts: Math.ceil(size / PART),
        partSize: PART,
        options: { s3compliant: String(target.store.comparesParts) },
      })
      return data.uploadID
    }
    const signPart = (of: Announced, uploadID: string, partNumber: number, more: object = {}) => {
      const partSize = Math.min(PART, of.bytes.length - (partNumber - 1) * PART)
      const body = { uploadID, partNumber, partSize, sha256sum: '', ...more }
      return alice.call('PUT', `/v2/imagefile/${of.image}/_multipart`, body)
    }
    const partOf = ({ bytes }: Announced, number: number) =>
      bytes.subarray((number - 1) * PART, number * PART)
    /**
     * Sends a part as Apptainer does, its own bytes or others; returns what complete wants. Clients before
     * 0.5.7 of their library send a hash of each part whether it is wanted or not.
     */
    const sendPart = async (
      of: Announced,
      uploadID: string,
      partNumber: number,
      bytes = partOf(of, partNumber),
      { hashed = target.store.comparesParts } = {},
    ) => {
      const more = hashed ? { sha256sum: sha256(bytes) } : {}
      const signed = await signPart(of, uploadID, partNumber, more)
      const sent = await put(expectData(signed).presignedURL, bytes)
      expect([sent.status, sent.text]).toEqual([200, ''])
      return { partNumber, token: sent.headers.get('etag') ?? '' }
    }
    const completeParts = (
      of: Announced,
      uploadID: string,
      completedParts: object[],
      who = alice,
    ) =>
      who.call('PUT', `/v2/imagefile/${of.image}/_multipart_complete`, { uploadID, completedParts })
    const abort = (of: Announced, uploadID: string) =>
      alice.call('PUT', `/v2/imagefile/${of.image}/_multipart_abort`, { uploadID })

    /** The image is nowhere to be seen, for nobody, its pusher included. */
    async function expectInvisible({ ref, hash, container }: Announced): Promise<void> {
      for (const who of [alice, bob, nobody]) {
        expectRefusal(await who.call('GET', `/v1/images/${ref}:${hash}?arch=amd64`), 404)
        expect(await pull(`${ref}:${hash}`, who)).toBe(404)
        expect(await pull(`${ref}:latest`, who)).toBe(404)
        expect(expectData(await who.call('GET', `/v2/tags/${container}`))).toEqual({})
        const shown = expectData(await who.call('GET', `/v1/containers/${ref}`))
        expect(shown).toMatchObject({ images: [], size: 0, archTags: {} })
        const found = expectData(await who.call('GET', `/v1/search?value=${ref.split('/')[2]}`))
        expect(found.image).toEqual([])
      }
    }

    describe('whole images', () => {
      test('v2: exact statuses, quota and container URL as the client prints them', async () => {
        const of = await announce('alice/whole/v2', sampleSif({ content: 'v2' }))
        const uploadURL = await openSingle(of)
        expect(uploadURL.startsWith(`${url}/`)).toBe(!direct)
        expect((await put(uploadURL, of.bytes)).status).toBe(200)
        const usage = expectData(await alice.call('GET', '/v1/entities/alice')).size
        expect(expectData(await complete(of))).toEqual({
          quota: { quotaTotal: 0, quotaUsage: usage + of.bytes.length },
          containerUrl: 'library/alice/whole/v2',
        })
        expect((await tag(of)).status).toBe(200)
        expect(await pull('alice/whole/v2')).toBe(of.hash)
        expect(expectData(await complete(of)), 'again is success (R20)').toHaveProperty('quota')
      })

      test('v1: one raw body', async () => {
        const of = await announce('alice/whole/v1', sampleSif({ content: 'v1' }))
        expectData(await alice.call('POST', `/v1/imagefile/${of.image}`, of.bytes))
        expectData(
          await alice.call('POST', `/v1/tags/${of.container}`, {
            Tag: 'latest',
            ImageID: of.image,
          }),
        )
        expect(await pull('alice/whole/v1')).toBe(of.hash)
        const other = await announce('alice/whole/v1', sampleSif({ content: 'v1 other' }))
        expectRefusal(await alice.call('POST', `/v1/imagefile/${other.image}`, of.bytes), 400)
        expectRefusal(await bob.call('POST', `/v1/imagefile/${other.image}`, other.bytes), 403)
        expectRefusal(await nobody.call('POST', `/v1/imagefile/${other.image}`, other.bytes), 401)
        expect(await pull(`alice/whole/v1:${other.hash}`)).toBe(404)
      })

      test('nothing is visible before complete, for its pusher neither', async () => {
        const of = await announce('alice/whole/unfinished', sampleSif({ content: 'unfinished' }))
        await expectInvisible(of)
        const uploadURL = await openSingle(of)
        await expectInvisible(of)
        expectRefusal(await complete(of), 409, /No bytes/)
        expect((await put(uploadURL, of.bytes)).status).toBe(200)
        await expectInvisible(of)
        expectRefusal(await tag(of), 404)
        expectData(await complete(of))
        expectData(await tag(of))
        expect(await pull('alice/whole/unfinished', nobody)).toBe(of.hash)
      })

      test('an upload ticket used again after completion changes nothing (R1, R2)', async () => {
        const of = await announce('alice/whole/again', sampleSif({ content: 'again' }))
        const [first, second] = [await openSingle(of), await openSingle(of)]
        expect((await put(first, of.bytes)).status).toBe(200)
        expectData(await complete(of))
        expectData(await tag(of))
        const other = of.bytes.slice()
        other[other.length - 1] = 7
        expectPutRefused(await put(first, other), 409)
        expectPutRefused(await put(first, of.bytes), 409)
        expectPutRefused(await put(second, other), 400, /SHA-256|digest|hash/i)
        expect(await pull('alice/whole/again')).toBe(of.hash)
      })

      test('other bytes than announced leave nothing', async () => {
        const of = await announce('alice/whole/wrong', sampleSif({ content: 'wrong' }))
        const before = await stored()
        const other = of.bytes.slice()
        other[100] = 9
        expectPutRefused(await put(await openSingle(of), other), 400)
        const body = { filesize: 10, sha256sum: sha256(other) }
        expectRefusal(await alice.call('POST', `/v2/imagefile/${of.image}`, body), 400, /SHA-256/)
        expectRefusal(await complete(of), 409)
        await expectInvisible(of)
        expect(await stored()).toEqual(before)
      })

      test('sizes that cannot be are refused when the upload opens', async () => {
        const { image } = await announce('alice/whole/sizes', sampleSif({ content: 'sizes' }))
        for (const filesize of [0, -1, 1.5, '10', null, 2 ** 53, 1e300])
          for (const path of [`/v2/imagefile/${image}`, `/v2/imagefile/${image}/_multipart`])
            expectRefusal(await alice.call('POST', path, { filesize }), 400)
        const path = `/v2/imagefile/${image}/_multipart`
        const filesize = 10_001 * PART
        expectRefusal(await alice.call('POST', path, { filesize }), 413, /larger/)
        expectRefusal(await alice.call('POST', path, {}), 400, /filesize/)
      })

      test('files that are no SIF, or lie, are refused with a sentence', async () => {
        const before = await stored()
        const lies: [string, Uint8Array][] = [
          ['text', new TextEncoder().encode('#!/bin/sh\necho I am no image\n'.repeat(100))],
          ['byte', new Uint8Array(1)],
          ['magic', buildSif({ magic: 'NOT_MAGIC\0' })],
          ['total', buildSif({ lie: { total: 2n ** 62n } })],
          ['table', buildSif({ lie: { tableOffset: 2n ** 62n } })],
          ['negative', buildSif({ lie: { tableOffset: -1n } })],
          [
            'object',
            buildSif({ objects: [{ type: 'deffile', data: 'x', lie: { size: 2n ** 40n } }] }),
          ],
        ]
        for (const [what, bytes] of lies) {
          const of = await announce(`alice/lies/${what}`, bytes)
          expect((await put(await openSingle(of), bytes)).status).toBe(200)
          expectRefusal(await complete(of), 400, /SIF|image/)
          expectRefusal(await complete(of), 409)
          await expectInvisible(of)
        }
        expect(await stored()).toEqual(before)
      })

      unlessDirect('short, long, cut and chunked bodies leave nothing', async () => {
        const of = await announce('alice/whole/bodies', sampleSif({ content: 'bodies' }))
        const uploadURL = await openSingle(of)
        const { pathname, search } = new URL(uploadURL)
        const before = await target.store.names()
        const size = of.bytes.length
        const line = `PUT ${pathname}${search} HTTP/1.1`
        const send = (header: string, body: Uint8Array, fin = false) => {
          const { socket, answer } = rawRequest(url, [line, header], body)
          if (fin) socket.end()
          return answer
        }
        const half = of.bytes.subarray(0, size / 2)
        expectRefusal(
          await send(`Content-Length: ${size - 1}`, of.bytes.subarray(1)),
          400,
          /exactly/,
        )
        expectRefusal(await send(`Content-Length: ${size + 1}`, of.bytes), 413, /exactly/)
        expectRefusal(await send('Content-Length: 0', new Uint8Array()), 400, /exactly/)
        expectRefusal(await send('Transfer-Encoding: chunked', new Uint8Array()), 411, /Length/)
        expectRefusal(await send('X-Nothing: x', new Uint8Array()), 411, /Length/)
        expectMalformed(target, await send('Content-Length: 1e3', new Uint8Array()), 400)
        const cut = await send(`Content-Length: ${size}`, half, true)
        // Bun leaves a client that has closed its half without an answer.
        if (target.bareRefusals === undefined || cut.status !== 0) expectRefusal(cut, 400)
        // gone without a word
        const { socket, answer } = rawRequest(url, [line, `Content-Length: ${size}`], half)
        await sleep(50)
        socket.resetAndDestroy()
        expect((await answer).status).toBe(0)
        await expect.poll(() => target.store.names()).toEqual(before)
        expectRefusal(await complete(of), 409)
        await expectInvisible(of)
        // the ticket still takes the true bytes: a failed attempt burns nothing
        expect((await put(uploadURL, of.bytes)).status).toBe(200)
        expectData(await complete(of))
      })

      unlessDirect(
        'tickets are for one purpose, and for what they were signed for (R12)',
        async () => {
          const of = await announce('alice/whole/tickets', sampleSif({ content: 'tickets' }))
          const large = await announce('alice/whole/tickets2', new Uint8Array(PART + 10))
          const ticketOf = (link: string) => new URL(link).searchParams.get('t') ?? ''
          const single = ticketOf(await openSingle(of))
          const uploadID = await openParts(large)
          const part = ticketOf(expectData(await signPart(large, uploadID, 2)).presignedURL)
          const body = new Uint8Array(10)
          const flipped = (text: string, at: number) =>
            text.slice(0, at) + (text[at] === 'A' ? 'B' : 'A') + text.slice(at + 1)
          const tries: [string, string, string][] = [
            ['PUT', '/v1/blob', part],
            ['PUT', '/v1/blob', uploadID],
            ['PUT', '/v1/part', single],
            ['PUT', '/v1/part', uploadID],
            ['GET', '/v1/blob', single],
            ['GET', '/v1/blob', part],
            ['GET', '/v1/blob', uploadID],
            ...[0, 20, part.indexOf('.') - 1, part.indexOf('.') + 1, part.length - 1].map(
              (at): [string, string, string] => ['PUT', '/v1/part', flipped(part, at)],
            ),
            ['PUT', '/v1/part', part.slice(0, -1)],
            ['PUT', '/v1/part', `${part}A`],
            ['PUT', '/v1/part', ''],
            ['PUT', '/v1/part', '.'],
            ['PUT', '/v1/part', 'x'.repeat(3000)],
          ]
          for (const [method, path, ticket] of tries) {
            const at = `${path}?t=${encodeURIComponent(ticket)}`
            expectRefusal(
              await nobody.call(method, at, method === 'PUT' ? body : undefined),
              403,
              /link/,
            )
          }
          for (const other of [single, part, 'x', flipped(uploadID, 5)])
            expectRefusal(await signPart(large, other, 2), 404)
          const empty = await nobody.call('PUT', `/v1/part?t=${part}`, body)
          expect(empty.status, 'the ticket itself is good').toBe(200)
          expectData(await abort(large, uploadID))
        },
      )

      test('50 equal pushes at once all succeed and are one image (R20)', async () => {
        const bytes = sampleSif({ content: 'fifty' })
        await alice.ensure('alice', 'fifty', 'same')
        const pushes = await Promise.all(
          Array.from({ length: 50 }, () => alice.push('alice/fifty/same', bytes)),
        )
        expect(new Set(pushes.map(({ image }) => image)).size).toBe(1)
        expect(
          expectData(await alice.call('GET', '/v1/containers/alice/fifty/same')),
        ).toMatchObject({
          images: [pushes[0]?.image],
          size: bytes.length,
        })
        expect(await pull('alice/fifty/same')).toBe(`sha256.${sha256(bytes)}`)
      })

      test('50 different images pushed to one tag at once: one of them, whole', async () => {
        const all = Array.from({ length: 50 }, (_, i) => sampleSif({ content: `race ${i}` }))
        await alice.ensure('alice', 'fifty', 'race')
        await Promise.all(all.map((bytes) => alice.push('alice/fifty/race', bytes)))
        expect(all.map((bytes) => `sha256.${sha256(bytes)}`)).toContain(
          await pull('alice/fifty/race'),
        )
      })
    })

    describe('bytes that are here already', () => {
      test('the owner is not asked for them again, anybody for public ones neither', async () => {
        const bytes = sampleSif({ content: 'dedupe' })
        expect((await alice.push('alice/dedupe/one', bytes)).uploaded).toBe(true)
        expect((await alice.push('alice/dedupe/one', bytes, { tags: ['again'] })).uploaded).toBe(
          false,
        )
        const before = await stored()
        expect((await alice.push('alice/dedupe/two', bytes)).uploaded).toBe(false)
        expect((await bob.push('bob/dedupe/three', bytes)).uploaded).toBe(false)
        expect(await stored()).toEqual(before)
        const shown = expectData(await bob.call('GET', '/v1/images/bob/dedupe/three?arch=amd64'))
        expect(shown).toMatchObject({ uploaded: true, size: bytes.length, arch: 'amd64' })
        // each copy stands on its own
        expect(
          (await alice.call('DELETE', '/v1/images/alice/dedupe/one:sha256.' + sha256(bytes)))
            .status,
        ).toBe(200)
        expect(await pull('bob/dedupe/three')).toBe(`sha256.${sha256(bytes)}`)
      })

      test('who knows the hash of a private image must still send the bytes (R8, R29)', async () => {
        const bytes = sampleSif({ content: 'secret' })
        await alice.push('alice/secret/x', bytes, { privateCollection: true })
        const of = await announce('bob/secret/x', bytes, bob)
        expect(of.made).toMatchObject({ uploaded: false, size: 0 })
        expect(await pull(`bob/secret/x:${of.hash}`, bob)).toBe(404)
        expectRefusal(await tag(of, bob), 404)
        expectRefusal(await complete(of, bob), 409)
        expect((await put(await openSingle(of, bob), bytes)).status).toBe(200)
        expectData(await complete(of, bob))
        expectData(await tag(of, bob))
        expect(await pull('bob/secret/x', bob)).toBe(of.hash)
      })

      test('a token that may not pull copies nothing private (R8)', async () => {
        const [bytes, shown] = ['narrow', 'narrow shown'].map((content) => sampleSif({ content }))
        await alice.push('alice/narrow-hidden/x', bytes!, { privateCollection: true })
        await alice.push('alice/narrow-open/x', shown!)
        const { jwt } = await target.mint('alice', { scopes: ['push'] })
        const pusher = libraryClient(target.url, jwt)
        const path = '/v1/imagefile/alice/narrow-hidden/x?arch=amd64'
        expectRefusal(await pusher.call('GET', path), 403, /pull/)
        const { made } = await announce('alice/narrow-open/copy', bytes!, pusher)
        expect(made).toMatchObject({ uploaded: false, size: 0 })
        expect(await pull(`alice/narrow-open/copy:sha256.${sha256(bytes!)}`)).toBe(404)
        // it may send them, and what anybody may have it need not send
        expect((await pusher.push('alice/narrow-open/copy', bytes!)).uploaded).toBe(true)
        expect((await pusher.push('alice/narrow-open/other', shown!)).uploaded).toBe(false)
      })

      test('bytes lost behind our back are healed by the next push (R60)', async () => {
        const bytes = sampleSif({ content: 'lost' })
        const before = new Set(await target.store.names())
        await alice.push('alice/lost/one', bytes)
        await alice.push('alice/lost/two', bytes)
        const files = (await target.store.names()).filter((file) => !before.has(file))
        for (const file of files) {
          expect(await target.store.size(file)).toBe(bytes.length)
          await target.store.remove(file)
        }
        expect(files).toHaveLength(1)
        expectRefusal(await alice.call('GET', '/v1/imagefile/alice/lost/one:latest'), 500, /gone/)
        expect((await alice.push('alice/lost/one', bytes)).uploaded).toBe(true)
        for (const ref of ['alice/lost/one', 'alice/lost/two'])
          expect([ref, await pull(ref)]).toEqual([ref, `sha256.${sha256(bytes)}`])
        expect((await alice.push('alice/lost/one', bytes)).uploaded).toBe(false)
      })
    })

    describe('images in parts', () => {
      /** An image of two parts, the second small; other `content`, other digest. */
      const twoParts = (content: string) => {
        const whole = buildSif({ objects: [{ type: 'generic', data: content }], trailing: PART })
        return whole
      }

      test('part calls that do not fit are refused, and the upload goes on', async () => {
        const of = await announce('alice/parts/calls', twoParts('calls'))
        const uploadID = await openParts(of)
        const rest = of.bytes.length - PART
        for (const partSize of [0, 1, rest - 1, rest + 1, PART])
          expectRefusal(await signPart(of, uploadID, 2, { partSize }), 400, /bytes/)
        expectRefusal(await signPart(of, uploadID, 1, { partSize: rest }), 400, /bytes/)
        expectRefusal(await signPart(of, uploadID, 3, { partSize: 1 }), 400, /beyond/)
        for (const partNumber of [0, -1, 1.5, 10_001, '1', null])
          expectRefusal(await signPart(of, uploadID, 2, { partNumber }), 400)
        expectRefusal(await signPart(of, uploadID, 2, { sha256sum: 'x' }), 400)
        const link = expectData(
          await signPart(of, uploadID, 2, { sha256sum: '0'.repeat(64) }),
        ).presignedURL
        expectPutRefused(await put(link, partOf(of, 2)), 400)
        expectPutRefused(await put(link, partOf(of, 2).subarray(1)), 400, /exactly/)
        expectPutRefused(await put(link, of.bytes.subarray(PART - 1)), 413, /exactly/)
        const two = await sendPart(of, uploadID, 2)
        expect(two.token).toMatch(/^".+"$/)
        const one = { partNumber: 1, token: two.token }
        for (const list of [
          [],
          [two],
          [one, two],
          [two, one],
          [two, two],
          [one, two, { partNumber: 3, token: '"x"' }],
        ])
          expectRefusal(await completeParts(of, uploadID, list), 400)
        expectRefusal(await completeParts(of, 'x', [one, two]), 404)
        await expectInvisible(of)
        expectData(await signPart(of, uploadID, 1))
        expectData(await abort(of, uploadID))
      })

      test('after an abort no part is taken and nothing can be completed (R22)', async () => {
        const of = await announce('alice/parts/aborted', twoParts('aborted'))
        const before = await target.store.names()
        const uploadID = await openParts(of)
        const two = await sendPart(of, uploadID, 2)
        const link = expectData(await signPart(of, uploadID, 2)).presignedURL
        expectData(await abort(of, uploadID))
        expectData(await abort(of, uploadID))
        expectPutRefused(await put(link, partOf(of, 2)), 404)
        expectRefusal(await completeParts(of, uploadID, [two]), 409, /ended/)
        expect(await target.store.names()).toEqual(before)
        await expectInvisible(of)
      })

      /** Bytes for the second part that are not the image's. */
      const otherBytes = (of: Announced) => partOf(of, 2).slice().fill(7)

      test('a part that is sent again with other bytes and their hash makes no image (R3, R4)', async () => {
        const of = await announce('alice/parts/lie', twoParts('lie'))
        const uploadID = await openParts(of)
        const one = await sendPart(of, uploadID, 1)
        const two = await sendPart(of, uploadID, 2)
        // the running hash now says that all is well; the bytes say otherwise
        const lie = await sendPart(of, uploadID, 2, otherBytes(of), { hashed: true })
        expectRefusal(await completeParts(of, uploadID, [one, two]), 400)
        const wrong = await completeParts(of, uploadID, [one, lie])
        expectRefusal(wrong, 400, /SHA-256/)
        await expectInvisible(of)
        // what failed is not in the way of a new try
        const anew = await openParts(of)
        await sendPart(of, anew, 2)
        expectData(await abort(of, anew))
      })

      test('parts cost no database trip, wrong ones first and in any order: the last count (R3, R20, R22)', async () => {
        const of = await announce('alice/parts/resent', twoParts('resent'))
        const other = otherBytes(of)
        const uploadID = await openParts(of)
        expect(await tripsOf(target, () => sendPart(of, uploadID, 2, other))).toBe(0)
        const last = await sendPart(of, uploadID, 2, partOf(of, 2), { hashed: true })
        const first = await sendPart(of, uploadID, 1, partOf(of, 1), { hashed: true })
        // R20: the client hangs up at once, the work goes on; two more completions meet it
        const path = `/v2/imagefile/${of.image}/_multipart_complete`
        const body = JSON.stringify({ uploadID, completedParts: [first, last] })
        const head = [
          `PUT ${path} HTTP/1.1`,
          `Authorization: Bearer ${alice.token}`,
          `Content-Length: ${body.length}`,
        ]
        const { socket, answer } = rawRequest(url, head, body)
        await sleep(20)
        socket.destroy()
        expect((await answer).status).toBe(0)
        const visible = async () =>
          (await alice.call('GET', `/v1/images/alice/parts/resent:${of.hash}`)).status
        await expect.poll(visible, { timeout: 10_000 }).toBe(200)
        const both: Answer[] = await Promise.all(
          [1, 2].map(() => completeParts(of, uploadID, [first, last])),
        )
        for (const done of both) expectData(done)
        const link = expectData(await signPart(of, uploadID, 2)).presignedURL
        expectPutRefused(await put(link, other), 404)
        expectData(await abort(of, uploadID))
        expect(await pull(`alice/parts/resent:${of.hash}`)).toBe(of.hash)
      })

      test('a part that was damaged on the way makes no image, with or without a hash of it (R3, R4)', async () => {
        const of = await announce('alice/parts/damaged', twoParts('damaged'))
        const damaged = partOf(of, 1).slice()
        damaged[PART - 1] = 1 - (damaged[PART - 1] ?? 0)
        const uploadID = await openParts(of)
        const sum = { sha256sum: sha256(partOf(of, 1)) }
        const link = expectData(await signPart(of, uploadID, 1, sum)).presignedURL
        expectPutRefused(await put(link, damaged), 400, /SHA-256/)
        const one = await sendPart(of, uploadID, 1, damaged, { hashed: false })
        const two = await sendPart(of, uploadID, 2, partOf(of, 2), { hashed: false })
        expectRefusal(await completeParts(of, uploadID, [one, two]), 400, /SHA-256/)
        await expectInvisible(of)
      })

      test('two completions at once are both success (R20)', async () => {
        const of = await announce('alice/parts/twice', twoParts('twice'))
        const uploadID = await openParts(of)
        const parts = [await sendPart(of, uploadID, 1), await sendPart(of, uploadID, 2)]
        const answers = await Promise.all([1, 2, 3].map(() => completeParts(of, uploadID, parts)))
        for (const answer of answers)
          expect(expectData(answer)).toMatchObject({ containerUrl: 'library/alice/parts/twice' })
        expectData(await tag(of))
        expect(await pull('alice/parts/twice')).toBe(of.hash)
      })
    })
  })
}
