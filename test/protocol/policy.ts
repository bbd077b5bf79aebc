/**
 * Signatures and the policies that ask for them, against any runtime: what a record says, what gets
 * in, by whichever way, and what happens when a key changes later (R8, R17, R18).
 */
import * as openpgp from 'openpgp'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Scope } from '../../src/core/model.ts'
import { buildSif, deffile, partition, sampleSif } from '../fixtures/sif.ts'
import { makeSigner, objectsOf, signedSif, type Signer } from '../fixtures/signed-sif.ts'
import type { Target, TargetOptions } from '../runtimes/target.ts'
import { expectData, expectRefusal } from './answers.ts'
import { libraryClient, putBytes, sha256, type Answer, type LibraryClient } from './client.ts'

type Way = 'single' | 'parts' | 'whole'

let contents = 0
/** An image like no other before it, signed by these. */
const signedBy = (...signers: Signer[]) =>
  signedSif(
    [deffile(`number ${(contents += 1)}\n`), partition({ data: `hsqs ${contents}` })],
    signers.map((by) => ({ by })),
  )
const unsigned = () => sampleSif({ content: `unsigned ${(contents += 1)}` })

/** The image with a byte of its partition changed. */
function tampered(file: Uint8Array): Uint8Array {
  const copy = file.slice()
  const { offset } = objectsOf(file)[1]!
  copy[offset] = 0
  return copy
}

/** Sends an image one way and returns what the last call of it was answered. */
async function send(client: LibraryClient, ref: string, bytes: Uint8Array, way: Way) {
  const [entity = '', collection = '', name = ''] = ref.split('/')
  const { container } = await client.ensure(entity, collection, name)
  const hash = `sha256.${sha256(bytes)}`
  const { id } = expectData(await client.call('POST', '/v1/images', { hash, container }))
  const at = `imagefile/${id as string}`
  const answer = await bodyOf(client, at, bytes, way)
  return { id: id as string, container, answer }
}

async function bodyOf(client: LibraryClient, at: string, bytes: Uint8Array, way: Way) {
  if (way === 'whole') return client.call('POST', `/v1/${at}`, bytes)
  if (way === 'single') {
    const body = { filesize: bytes.length, sha256sum: sha256(bytes) }
    const { uploadURL } = expectData(await client.call('POST', `/v2/${at}`, body))
    expect((await putBytes(uploadURL, bytes)).status).toBe(200)
    return client.call('PUT', `/v2/${at}/_complete`, {})
  }
  const opened = await client.call('POST', `/v2/${at}/_multipart`, { filesize: bytes.length })
  const { uploadID } = expectData(opened)
  const part = { uploadID, partNumber: 1, partSize: bytes.length, sha256sum: sha256(bytes) }
  const { presignedURL } = expectData(await client.call('PUT', `/v2/${at}/_multipart`, part))
  const put = await putBytes(presignedURL, bytes)
  expect(put.status).toBe(200)
  const completedParts = [{ partNumber: 1, token: put.headers.get('etag') }]
  return client.call('PUT', `/v2/${at}/_multipart_complete`, { uploadID, completedParts })
}

export function describePolicy(
  name: string,
  makeTarget: (options?: TargetOptions) => Promise<Target>,
): void {
  describe(`signatures and policies: ${name}`, () => {
    let target: Target
    let alice: LibraryClient
    let bob: LibraryClient
    let boss: LibraryClient
    let anybody: LibraryClient
    /** Alice has claimed hers, Bob his; Carol's is in the keystore, Mallory's is not. */
    let hers: Signer
    let his: Signer
    let carols: Signer
    let mallorys: Signer

    const add = async (client: LibraryClient, armor: string) =>
      expect(
        (
          await client.call(
            'POST',
            '/pks/add',
            new URLSearchParams({ keytext: armor }).toString(),
            { 'content-type': 'application/x-www-form-urlencoded' },
          )
        ).status,
      ).toBe(200)

    async function claim(client: LibraryClient, { fingerprint, privateKey }: Signer) {
      const at = `/v1/keys/${fingerprint}`
      const { challenge } = expectData(await client.call('POST', `${at}/challenge`))
      const message = await openpgp.createCleartextMessage({ text: challenge })
      const signed = await openpgp.sign({ message, signingKeys: privateKey })
      expectData(await client.call('POST', `${at}/claim`, { signed }))
    }

    const setPolicy = (
      client: LibraryClient,
      ref: string,
      policy: string,
      fingerprints?: string[],
    ) => client.call('PUT', '/v1/policy', { ref, policy, fingerprints })

    /** A collection of Alice's with that policy. */
    async function collection(word: string, policy: string, fingerprints?: string[]) {
      await alice.ensure('alice', word, 'box')
      expectData(await setPolicy(alice, `alice/${word}`, policy, fingerprints))
      return `alice/${word}/box`
    }

    const record = async (ref: string, bytes: Uint8Array) =>
      expectData(await alice.call('GET', `/v1/images/${ref}:sha256.${sha256(bytes)}`))
    const tag = (container: string, image: string, word: string) =>
      alice.call('POST', `/v2/tags/${container}`, { Arch: 'amd64', Tag: word, ImageID: image })
    const pulled = async (ref: string) =>
      (await fetch(`${target.url}/v1/imagefile/${ref}?arch=amd64`)).status

    /** 403 with a sentence, and nothing of it to be seen or kept. */
    async function expectKept(ref: string, bytes: Uint8Array, way: Way, says: RegExp) {
      const before = await target.store.names()
      const { answer } = await send(alice, ref, bytes, way)
      expectRefusal(answer, 403, says)
      const at = `/v1/images/${ref}:sha256.${sha256(bytes)}`
      expect((await alice.call('GET', at)).status).toBe(404)
      expect(await target.store.names()).toEqual(before)
    }

    beforeAll(async () => {
      target = await makeTarget()
      const client = async (user: string, options: Parameters<Target['mint']>[1] = {}) =>
        libraryClient(target.url, (await target.mint(user, options)).jwt)
      alice = await client('alice')
      bob = await client('bob')
      boss = await client('boss', {
        admin: true,
        scopes: ['pull', 'push', 'delete', 'keys', 'admin'],
      })
      anybody = libraryClient(target.url)
      hers = await makeSigner('Alice')
      his = await makeSigner('Bob')
      carols = await makeSigner('Carol')
      mallorys = await makeSigner('Mallory')
      for (const { armor } of [hers, his, carols]) await add(bob, armor)
      await claim(alice, hers)
      await claim(bob, his)
    })
    afterAll(() => target.stop())

    test('records and search say what signatures are worth', async () => {
      const dave = await makeSigner('Dave')
      const files = {
        unsigned: unsigned(),
        verified: await signedBy(hers, dave),
        'unknown key': await signedBy(dave),
        bad: tampered(await signedBy(hers)),
      }
      for (const [word, bytes] of Object.entries(files))
        await alice.push(`alice/verdicts/${word.replace(' ', '-')}`, bytes)
      const found = expectData(await anybody.call('GET', '/v1/search?value=alice/verdicts')).image
      const shown = (image: Record<string, unknown>) => [
        image.containerName,
        image.signed,
        image.signatureVerdict,
        image.fingerprints,
      ]
      expect(found.map(shown)).toEqual([
        ['bad', true, 'bad', [hers.fingerprint]],
        ['unknown-key', true, 'unknown key', [dave.fingerprint]],
        ['unsigned', false, 'unsigned', []],
        // of the two that signed, the one whose signature could be checked
        ['verified', true, 'verified', [hers.fingerprint]],
      ])
      const reason = (await record('alice/verdicts/bad', files.bad)).signatureReason
      expect(reason).toBe('the bytes of object 2 are not those that were signed')

      // the key arrives, is revoked and goes: verdicts follow, in the order of its coming
      const now = async () => {
        const at = (word: string, bytes: Uint8Array) => record(`alice/verdicts/${word}`, bytes)
        const one = await at('unknown-key', files['unknown key'])
        const two = await at('verified', files.verified)
        return [one.signatureVerdict, one.fingerprints, two.signatureVerdict, two.fingerprints]
      }
      const [a, d] = [hers.fingerprint, dave.fingerprint]
      await add(bob, dave.armor)
      expect(await now()).toEqual(['verified', [d], 'verified', [a, d]])
      await add(bob, await dave.revoked())
      expect(await now()).toEqual(['bad', [d], 'verified', [a]])
      expectData(await boss.call('DELETE', `/v1/keys/${d}`))
      expect(await now()).toEqual(['unknown key', [d], 'verified', [a]])
    })

    test.each<Way>(['single', 'parts', 'whole'])('require: %s', async (way) => {
      const ref = await collection(`require-${way}`, 'require')
      const good = await signedBy(hers)
      const { answer, container, id } = await send(alice, ref, good, way)
      expectData(answer)
      expectData(await tag(container, id, 'latest'))
      expect((await record(ref, good)).signatureVerdict).toBe('verified')
      await expectKept(ref, unsigned(), way, /takes only images.*unsigned.*apptainer sign/)
      await expectKept(ref, tampered(await signedBy(hers)), way, /bad: the bytes of object 2/)
      await expectKept(ref, await signedBy(mallorys), way, /unknown here.*apptainer key push/)
      await expectKept(ref, await signedBy(carols), way, /nobody who may write there has claimed/)
      await expectKept(ref, await signedBy(his), way, /nobody who may write there has claimed/)
      // two signers, one of whom counts
      expectData((await send(alice, ref, await signedBy(mallorys, hers), way)).answer)
    })

    test('a list of fingerprints counts instead of claims (R17)', async () => {
      const spaced = carols.fingerprint.toLowerCase().match(/..../g)!.join(' ')
      const ref = await collection('listed', 'require', [spaced])
      const shown = expectData(await anybody.call('GET', '/v1/policy?ref=alice/listed'))
      expect(shown).toEqual({
        ref: 'alice/listed',
        policy: 'require',
        fingerprints: [carols.fingerprint],
      })
      expectData((await send(alice, ref, await signedBy(carols), 'single')).answer)
      await expectKept(ref, await signedBy(hers), 'single', /none of the keys that it accepts/)
    })

    test('bytes that are here already pass the same policy (R8)', async () => {
      const free = await collection('free', 'off')
      const strict = await collection('strict', 'require')
      const { container } = await alice.ensure('alice', 'strict', 'box')
      const create = (bytes: Uint8Array): Promise<Answer> =>
        alice.call('POST', '/v1/images', { hash: `sha256.${sha256(bytes)}`, container })
      const [bad, good] = [unsigned(), await signedBy(hers)]
      await alice.push(free, bad)
      await alice.push(free, good)
      expectRefusal(await create(bad), 403, /unsigned/)
      const at = `/v1/images/${strict}:sha256.${sha256(bad)}`
      expect((await alice.call('GET', at)).status).toBe(404)
      expect(expectData(await create(good)).uploaded).toBe(true)
    })

    test('what was stored before the policy stays, but gets no tag', async () => {
      const ref = await collection('before', 'off')
      const bytes = unsigned()
      const { container, image } = await alice.push(ref, bytes)
      await collection('before', 'require')
      expectRefusal(await tag(container, image, 'second'), 403, /unsigned/)
      expect(await pulled(`${ref}:latest`)).toBeLessThan(400)
      expectRefusal(
        await alice.call('POST', `/v1/tags/${container}`, { third: image }),
        403,
        /unsigned/,
      )
      await collection('before', 'warn')
      expectData(await tag(container, image, 'second'))
    })

    test('a key that is revoked later: no new tag, pulls go on', async () => {
      const erin = await makeSigner('Erin')
      await add(alice, erin.armor)
      await claim(alice, erin)
      const ref = await collection('later', 'require')
      const bytes = await signedBy(erin)
      const { container, image } = await alice.push(ref, bytes)
      expectData(await tag(container, image, 'second'))
      await add(bob, await erin.revoked())
      expect(await record(ref, bytes)).toMatchObject({
        signatureVerdict: 'bad',
        signatureReason: expect.stringMatching(/revoked/),
        tags: ['latest', 'second'],
      })
      expectRefusal(await tag(container, image, 'third'), 403, /bad.*revoked/)
      expect(await pulled(`${ref}:second`)).toBeLessThan(400)
      await expectKept(ref, await signedBy(erin), 'single', /revoked/)
      // signed again by somebody who may
      expectData((await send(alice, ref, await signedBy(erin, hers), 'single')).answer)
    })

    test('warn takes everything', async () => {
      const ref = await collection('warned', 'warn')
      for (const bytes of [unsigned(), tampered(await signedBy(hers)), await signedBy(mallorys)])
        await alice.push(ref, bytes)
    })

    test('a file with a second primary partition gets nowhere (R18)', async () => {
      const ref = await collection('double', 'require')
      const signed = await signedBy(hers)
      const objects = objectsOf(signed)
      const last = objects.at(-1)!
      const evil = buildSif({
        objects: [
          deffile(`number ${contents}\n`),
          partition({ data: `hsqs ${contents}` }),
          {
            type: 'signature',
            data: signed.slice(last.offset, last.offset + last.size),
            extra: signed.slice(last.at + 201, last.at + 585),
            group: null,
            link: 0xf0000001,
          },
          { ...partition({ data: 'evil' }), group: 2 },
        ],
      })
      await expectKept(ref, evil, 'single', /2 primary partitions/)
    })

    test('who may set a policy', async () => {
      await alice.ensure('alice', 'mine', 'box')
      await alice.ensure('alice', 'hidden', 'box', { privateCollection: true })
      const put = (client: LibraryClient, ref: string, more = {}) =>
        client.call('PUT', '/v1/policy', { ref, policy: 'require', ...more })
      expectRefusal(await put(anybody, 'alice/mine'), 401)
      expectRefusal(await put(bob, 'alice/mine'), 403, /belongs to somebody else/)
      expectRefusal(await put(bob, 'alice/hidden'), 404)
      expectRefusal(await put(alice, 'alice/none'), 404)
      const pusher = libraryClient(
        target.url,
        (await target.mint('alice', { scopes: ['pull', 'push'] })).jwt,
      )
      expectRefusal(await put(pusher, 'alice/mine'), 403, /keys/)
      const shown = () => anybody.call('GET', '/v1/policy?ref=alice/mine')
      expect(expectData(await shown()).policy).toBe('off')
      expectRefusal(await anybody.call('GET', '/v1/policy?ref=alice/hidden'), 404)
      expectRefusal(await anybody.call('GET', '/v1/policy'), 400)
      for (const [more, words] of [
        [{ policy: 'always' }, /policy/],
        [{ fingerprints: ['ABCD'] }, /fingerprint/],
        [{ fingerprints: Array.from({ length: 101 }, (_, i) => `${i}`.padStart(40, '0')) }, /100/],
        [{ fingerprint: [] }, /fingerprint/],
      ] as const)
        expectRefusal(await put(alice, 'alice/mine', more), 400, words)
      expectData(await put(boss, 'alice/mine'))
      expectData(await put(alice, 'alice/mine'))
      expect(expectData(await shown()).policy).toBe('require')
      const { data } = (await alice.call('GET', '/v1/collections/alice/mine')).json
      expect(data).toMatchObject({ signaturePolicy: 'require', signatureFingerprints: [] })
    })
  })

  describe(`signatures on the move: ${name}`, () => {
    test('policies go along, verdicts are made anew by the keys that are there (R42)', async () => {
      const targets: Target[] = []
      const start = async () => {
        const target = await makeTarget()
        targets.push(target)
        const scopes: Scope[] = ['pull', 'push', 'delete', 'keys', 'admin']
        const { jwt } = await target.mint('boss', { admin: true, scopes })
        return { target, boss: libraryClient(target.url, jwt) }
      }
      try {
        const [from, to] = [await start(), await start()]
        const alice = libraryClient(from.target.url, (await from.target.mint('alice')).jwt)
        const [hers, unknown] = [await makeSigner('Alice'), await makeSigner('Nobody')]
        const keytext = new URLSearchParams({ keytext: hers.armor }).toString()
        const form = { 'content-type': 'application/x-www-form-urlencoded' }
        expect((await alice.call('POST', '/pks/add', keytext, form)).status).toBe(200)
        const files = {
          good: await signedBy(hers),
          unknown: await signedBy(unknown),
          bad: tampered(await signedBy(hers)),
          plain: unsigned(),
        }
        for (const [word, bytes] of Object.entries(files))
          await alice.push(`alice/c/${word}`, bytes)
        const policy = { policy: 'require', fingerprints: [hers.fingerprint] }
        expectData(await alice.call('PUT', '/v1/policy', { ref: 'alice/c', ...policy }))

        const head = expectData(await from.boss.call('POST', '/v1/exports'))
        const { id } = expectData(await to.boss.call('POST', '/v1/imports', head))
        let rows = 0
        for (let cursor: string | null = ''; cursor !== null;) {
          const query: string = cursor === '' ? '' : `?cursor=${encodeURIComponent(cursor)}`
          const page = expectData(await from.boss.call('GET', `/v1/exports/rows${query}`))
          expectData(await to.boss.call('POST', `/v1/imports/${id}/rows`, { rows: page.rows }))
          rows += page.rows.length
          cursor = page.cursor
        }
        for (const bytes of Object.values(files)) {
          const at = `/v1/imports/${id}/blobs/${sha256(bytes)}`
          expect(expectData(await to.boss.call('POST', at, { size: bytes.length })).wanted).toBe(
            true,
          )
          expectData(await to.boss.call('PUT', at, bytes))
        }
        const end = { head, rows, sha256: '0'.repeat(64) }
        expectData(await to.boss.call('POST', `/v1/imports/${id}`, end))

        const shown = async (client: LibraryClient) => {
          const found = []
          for (const [word, bytes] of Object.entries(files)) {
            const at = `/v1/images/alice/c/${word}:sha256.${sha256(bytes)}`
            const image = expectData(await client.call('GET', at))
            found.push([image.signatureVerdict, image.signatureReason, image.fingerprints])
          }
          return [found, expectData(await client.call('GET', '/v1/policy?ref=alice/c'))]
        }
        expect(await shown(to.boss)).toEqual(await shown(from.boss))
        const [found] = await shown(to.boss)
        expect((found as string[][]).map(([verdict]) => verdict)).toEqual([
          'verified',
          'unknown key',
          'bad',
          'unsigned',
        ])
      } finally {
        for (const target of targets) await target.stop()
      }
    })
  })

  describe(`signatures unchecked: ${name}`, () => {
    test('pending, and require refuses (R52)', async () => {
      const target = await makeTarget({ env: { SREG_CHECK_SIGNATURES: 'off' } })
      try {
        const alice = libraryClient(target.url, (await target.mint('alice')).jwt)
        const bytes = await signedBy(await makeSigner('Alice'))
        await alice.push('alice/c/box', bytes)
        const at = `/v1/images/alice/c/box:sha256.${sha256(bytes)}`
        expect(expectData(await alice.call('GET', at))).toMatchObject({
          signed: true,
          signatureVerdict: 'pending',
        })
        await alice.ensure('alice', 'strict', 'box')
        expectData(
          await alice.call('PUT', '/v1/policy', { ref: 'alice/strict', policy: 'require' }),
        )
        const { answer } = await send(alice, 'alice/strict/box', bytes, 'single')
        expectRefusal(answer, 403, /not been checked/)
      } finally {
        await target.stop()
      }
    })
  })
}
