/**
 * The bridge over HTTP (docs/oci.md, decision 0019): a SIF that one side brings is on the other, with the
 * same bytes, stored once; tags, deletes, frozen names, policies, quotas and privacy hold from both sides.
 */
import { createHash } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { buildSif, deffile, partition, type SifArch } from '../fixtures/sif.ts'
import { makeSigner, signedSif } from '../fixtures/signed-sif.ts'
import type { Target, TargetOptions } from '../runtimes/target.ts'
import { expectAlike, expectData, expectRefusal } from './answers.ts'
import { libraryClient, sha256, type LibraryClient } from './client.ts'
import { expectError, ociClient, type OciClient } from './oci.ts'

const IMAGE = 'application/vnd.oci.image.manifest.v1+json'
const INDEX = 'application/vnd.oci.image.index.v1+json'
const DOCKER = 'application/vnd.docker.distribution.manifest.v2+json'
const SIF = 'application/vnd.sylabs.sif.layer.v1.sif'
const OLD_SIF = 'appliciation/vnd.sylabs.sif.layer.tar'
const SIF_CONFIG = 'application/vnd.sylabs.sif.config.v1+json'
const EMPTY = Buffer.from('{}')
const digestOf = (bytes: Uint8Array | string) =>
  `sha256:${createHash('sha256').update(bytes).digest('hex')}`

/** What the manifest of a library image must be, to the byte. */
const derived = (name: string, sif: Uint8Array) =>
  `{"schemaVersion":2,"mediaType":"${IMAGE}","config":{"mediaType":"${SIF_CONFIG}","digest":"${digestOf(EMPTY)}","size":2},"layers":[{"mediaType":"${SIF}","digest":"${digestOf(sif)}","size":${sif.length},"annotations":{"org.opencontainers.image.title":"${name}.sif"}}]}`

/** What clients push for oras:// (protocol.md §11.1), as their versions differ. */
const orasManifest = (
  sif: Uint8Array,
  { type = IMAGE, config = SIF_CONFIG, layer = SIF, title = 'x.sif' } = {},
) =>
  JSON.stringify({
    schemaVersion: 2,
    mediaType: type,
    config: { mediaType: config, digest: digestOf(EMPTY), size: 2 },
    layers: [
      {
        mediaType: layer,
        digest: digestOf(sif),
        size: sif.length,
        annotations: { 'org.opencontainers.image.title': title },
      },
    ],
  })
const child = (manifest: string, architecture: string) => ({
  mediaType: IMAGE,
  digest: digestOf(manifest),
  size: manifest.length,
  platform: { architecture, os: 'linux' },
})
const indexOf = (...manifests: object[]) =>
  JSON.stringify({ schemaVersion: 2, mediaType: INDEX, manifests })

let contents = 0
/** An image like no other before it. */
const fresh = (arch: SifArch = 'amd64') => {
  const data = `hsqs bridge ${(contents += 1)}`
  return buildSif({ arch, objects: [deffile(`# ${contents}\n`), partition({ arch, data })] })
}

/** The suite. `makeTarget` makes one fresh registry per call, which the suite stops. */
export function describeBridge(
  name: string,
  makeTarget: (options?: TargetOptions) => Promise<Target>,
): void {
  describe(`${name}: the bridge between OCI and the library`, () => {
    let target: Target
    let alice: OciClient
    let nobody: OciClient
    let mallory: OciClient
    let library: LibraryClient
    let stranger: LibraryClient
    let boss: LibraryClient
    let count = 0
    const place = () => `alice/b/r${++count}`

    beforeAll(async () => {
      target = await makeTarget()
      const { jwt } = await target.mint('alice')
      alice = ociClient(target.url, jwt)
      library = libraryClient(target.url, jwt)
      nobody = ociClient(target.url)
      const other = await target.mint('mallory')
      mallory = ociClient(target.url, other.jwt)
      stranger = libraryClient(target.url, other.jwt)
      boss = libraryClient(
        target.url,
        (await target.mint('boss', { admin: true, scopes: ['admin', 'pull', 'push'] })).jwt,
      )
    })
    afterAll(() => target.stop())

    /** Pushes the blobs of a SIF and then its manifest, as oras does. */
    async function oras(
      repository: string,
      reference: string,
      sif: Uint8Array,
      options: Parameters<typeof orasManifest>[1] = {},
      by = alice,
    ) {
      for (const bytes of [sif, EMPTY]) await by.blob(repository, bytes)
      const manifest = orasManifest(sif, options)
      const answer = await by.put(repository, reference, manifest, options.type ?? IMAGE)
      return { manifest, digest: digestOf(manifest), answer }
    }
    async function pushed(...args: Parameters<typeof oras>) {
      const done = await oras(...args)
      expect(done.answer.status, done.answer.text).toBe(201)
      return done
    }
    const manifestOf = (repository: string, reference: string, by = nobody) =>
      by.call('GET', `/v2/${repository}/manifests/${reference}`)
    const digestAt = async (repository: string, reference: string) => {
      const { status, headers } = await manifestOf(repository, reference, alice)
      return status === 200 ? headers.get('docker-content-digest') : status
    }
    const blobAt = async (repository: string, digest: string, by = alice) =>
      (await by.call('HEAD', `/v2/${repository}/blobs/${digest}`)).status
    const tagsOf = async (repository: string, query = '') =>
      (await alice.call('GET', `/v2/${repository}/tags/list${query}`)).json.tags as string[]
    const remove = async (repository: string, reference: string) =>
      (await alice.call('DELETE', `/v2/${repository}/manifests/${reference}`)).status
    /** The hash that the library has under a tag; its status where there is none. */
    const hashAt = async (repository: string, tag: string, arch = 'amd64') => {
      const answer = await library.call('GET', `/v1/images/${repository}:${tag}?arch=${arch}`)
      return answer.status === 200 ? (answer.json.data.hash as string) : answer.status
    }
    const hash = (sif: Uint8Array) => `sha256.${sha256(sif)}`
    const recordOf = async (repository: string, sif: Uint8Array) =>
      expectData(await library.call('GET', `/v1/images/${repository}:${hash(sif)}`))
    const drop = async (ref: string, arch = 'amd64') =>
      (await library.call('DELETE', `/v1/images/${ref}?arch=${arch}`)).status
    const freeze = async (ref: string, frozen = true) =>
      expectData(await boss.call('PUT', '/v1/frozen', { ref, frozen }))

    describe('pushed by the library, read by OCI', () => {
      test('has the same manifest for ever, by tag and by digest, to GET and HEAD', async () => {
        const at = place()
        const sif = fresh()
        await library.push(at, sif, { tags: ['latest', 'v1'] })
        const text = derived(at.split('/')[2] ?? '', sif)
        for (const reference of ['latest', 'v1', digestOf(text), 'latest']) {
          const got = await manifestOf(at, reference)
          expect(got.status, got.text).toBe(200)
          expect(got.text).toBe(text)
          expect(got.headers.get('content-type')).toBe(IMAGE)
          expect(got.headers.get('docker-content-digest')).toBe(digestOf(text))
          const head = await nobody.call('HEAD', `/v2/${at}/manifests/${reference}`)
          expect(head.status).toBe(200)
          expect(head.headers.get('content-length')).toBe(String(text.length))
          expect(head.headers.get('docker-content-digest')).toBe(digestOf(text))
        }
        const again = { 'if-none-match': `"${digestOf(text)}"` }
        const known = await nobody.call('GET', `/v2/${at}/manifests/v1`, undefined, again)
        expect(known.status).toBe(304)
        for (const none of ['v2', digestOf('none'), `sha512:${'0'.repeat(128)}`])
          expectError(await manifestOf(at, none), 404, 'MANIFEST_UNKNOWN')
        expect(await tagsOf(at)).toEqual(['latest', 'v1'])
        expect(await tagsOf(at, '?n=1')).toEqual(['latest'])
        expect(await tagsOf(at, '?n=1&last=latest')).toEqual(['v1'])
        const all = await alice.call('GET', '/v2/_catalog')
        expect(all.json.repositories).toContain(at)
      })

      test('has its blobs: the image in ranges, and the config', async () => {
        const at = place()
        const sif = fresh()
        await library.push(at, sif)
        const get = (digest: string, headers = {}) =>
          nobody.call('GET', `/v2/${at}/blobs/${digest}`, undefined, headers)
        const whole = await get(digestOf(sif))
        expect([whole.status, Buffer.compare(whole.bytes, sif)]).toEqual([200, 0])
        const part = await get(digestOf(sif), { range: 'bytes=10-19' })
        expect(part.status).toBe(206)
        expect(Buffer.compare(part.bytes, sif.subarray(10, 20))).toBe(0)
        const config = await get(digestOf(EMPTY))
        expect([config.status, config.text]).toEqual([200, '{}'])
        expect(config.headers.get('content-type')).toBe('application/octet-stream')
        const brace = await get(digestOf(EMPTY), { range: 'bytes=1-1' })
        expect([brace.status, brace.text]).toEqual([206, '}'])
        expectError(await get(digestOf(EMPTY), { range: 'bytes=2-' }), 416, 'BLOB_UPLOAD_INVALID')
        for (const digest of [digestOf(sif), digestOf(EMPTY)]) {
          expect(await blobAt(at, digest)).toBe(200)
          const refused = await alice.call('DELETE', `/v2/${at}/blobs/${digest}`)
          expectError(refused, 409, 'DENIED')
        }
        // a repository without an image has neither
        const empty = place()
        await alice.blob(empty, Buffer.from('else'))
        for (const digest of [digestOf(sif), digestOf(EMPTY)])
          expect(await blobAt(empty, digest)).toBe(404)
      })

      test('is an index where a tag has several archs', async () => {
        const at = place()
        const [amd, arm] = [fresh('amd64'), fresh('arm64')]
        await library.push(at, arm, { arch: 'arm64' })
        const name = at.split('/')[2] ?? ''
        expect(await digestAt(at, 'latest')).toBe(digestOf(derived(name, arm)))
        await library.push(at, amd)
        const index = await manifestOf(at, 'latest')
        expect(index.headers.get('content-type')).toBe(INDEX)
        expect(index.text).toBe(
          indexOf(child(derived(name, amd), 'amd64'), child(derived(name, arm), 'arm64')),
        )
        for (const digest of [digestOf(index.text), digestOf(derived(name, amd))])
          expect(await digestAt(at, digest)).toBe(digest)
        expect(await tagsOf(at)).toEqual(['latest'])
        // deleted by its digest, the tag goes with all its images
        expect(await remove(at, digestOf(index.text))).toBe(202)
        expect(await digestAt(at, 'latest')).toBe(404)
        for (const arch of ['amd64', 'arm64']) expect(await hashAt(at, 'latest', arch)).toBe(404)
      })

      test('is copied to another repository by what OCI has', async () => {
        const [from, to] = [place(), place()]
        const sif = fresh()
        await library.push(from, sif)
        const before = await target.store.names()
        for (const digest of [digestOf(sif), digestOf(EMPTY)]) {
          const mounted = await alice.call(
            'POST',
            `/v2/${to}/blobs/uploads/?mount=${digest}&from=${from}`,
          )
          if (mounted.status === 202) await alice.blob(to, EMPTY)
          else expect(mounted.status).toBe(201)
        }
        const { text } = await manifestOf(from, 'latest')
        expect((await alice.put(to, 'copy', text)).status).toBe(201)
        expect(await hashAt(to, 'copy')).toBe(hash(sif))
        // of the config, which nobody had stored before, at most
        expect((await target.store.names()).length - before.length).toBeLessThanOrEqual(1)
      })
    })

    describe('pushed by OCI, in the library', () => {
      test('with all that it says about itself, by tag, by hash, in search, and to pull', async () => {
        const at = place()
        const signer = await makeSigner('Olga')
        const data = `hsqs signed ${(contents += 1)}`
        const objects = [deffile('# oras\n'), partition({ data })]
        const sif = await signedSif(objects, [{ by: signer }])
        const keytext = new URLSearchParams({ keytext: signer.armor }).toString()
        const form = { 'content-type': 'application/x-www-form-urlencoded' }
        expect((await library.call('POST', '/pks/add', keytext, form)).status).toBe(200)
        const before = await target.store.names()
        const { digest, manifest } = await pushed(at, 'v1.oras', sif)
        const image = expectData(await library.call('GET', `/v1/images/${at}:v1.oras?arch=amd64`))
        expect(image).toMatchObject({
          hash: hash(sif),
          size: sif.length,
          arch: 'amd64',
          signed: true,
          fingerprints: [signer.fingerprint],
          signatureVerdict: 'verified',
          tags: ['v1.oras'],
          uploaded: true,
        })
        expect((await recordOf(at, sif)).id).toBe(image.id)
        const found = expectData(await library.call('GET', '/v1/search?value=v1.oras'))
        expect(found.image.map(({ id }: { id: string }) => id)).toContain(image.id)
        const pulled = await fetch(`${target.url}/v1/imagefile/${at}:v1.oras?arch=amd64`)
        expect(Buffer.compare(new Uint8Array(await pulled.arrayBuffer()), sif)).toBe(0)
        const got = await manifestOf(at, 'v1.oras')
        expect([got.text, got.headers.get('docker-content-digest')]).toEqual([manifest, digest])
        // stored once, whoever sends it again: the image and, the first time, the config
        const stored = (await target.store.names()).length
        expect(stored - before.length).toBeLessThanOrEqual(2)
        expect((await library.push(place(), sif)).uploaded).toBe(false)
        const twice = place()
        await library.push(twice, sif)
        expect(await blobAt(twice, digestOf(sif))).toBe(200)
        expect((await alice.put(twice, 'o', manifest)).status).toBe(201)
        expect(await hashAt(twice, 'o')).toBe(hash(sif))
        expect(await target.store.names()).toHaveLength(stored)
      })

      test('whatever version of a client pushed it (protocol.md §11.1)', async () => {
        const forms = [
          { type: DOCKER },
          { config: 'application/vnd.unknown.config.v1+json' },
          { layer: OLD_SIF, title: '' },
        ]
        for (const form of forms) {
          const at = place()
          const sif = fresh()
          const { digest } = await pushed(at, 'latest', sif, form)
          expect(await hashAt(at, 'latest')).toBe(hash(sif))
          expect(await digestAt(at, 'latest')).toBe(digest)
        }
      })

      test('only as a whole SIF: anything else is refused with a sentence', async () => {
        const at = place()
        const { answer, digest } = await oras(at, 'latest', Buffer.from('no SIF at all'))
        expectError(answer, 400, 'MANIFEST_INVALID')
        expect(answer.json.errors[0].message).toMatch(/SIF/)
        expect(await digestAt(at, digest)).toBe(404)
        expect(await hashAt(at, 'latest')).toBe(404)
      })

      test('as an index, for each of its archs, and for no other', async () => {
        const at = place()
        const [amd, arm, ppc] = [fresh('amd64'), fresh('arm64'), fresh('ppc64le')]
        await library.push(at, ppc, { arch: 'ppc64le', tags: ['multi'] })
        const one = await pushed(at, digestOf(orasManifest(amd)), amd)
        // a child that is in the library only
        await library.push(at, arm, { arch: 'arm64', tags: ['arm'] })
        const other = derived(at.split('/')[2] ?? '', arm)
        const index = indexOf(child(one.manifest, 'amd64'), child(other, 'arm64'))
        const put = await alice.put(at, 'multi', index, INDEX)
        expect(put.status, put.text).toBe(201)
        expect(await hashAt(at, 'multi', 'amd64')).toBe(hash(amd))
        expect(await hashAt(at, 'multi', 'arm64')).toBe(hash(arm))
        expect(await hashAt(at, 'multi', 'ppc64le')).toBe(404)
        expect((await manifestOf(at, 'multi')).text).toBe(index)
        const wrong = indexOf({ ...child(other, 'arm64'), size: other.length + 1 })
        expectError(await alice.put(at, 'wrong', wrong, INDEX), 400, 'MANIFEST_INVALID')
        const absent = indexOf(child(derived('nobody', arm), 'arm64'))
        expectError(await alice.put(at, 'wrong', absent, INDEX), 400, 'MANIFEST_BLOB_UNKNOWN')
      })

      test('not under names that only OCI has', async () => {
        const deep = `alice/b/deep${++count}/x`
        const sif = fresh()
        const { digest } = await pushed(deep, 'latest', sif)
        expect(await digestAt(deep, 'latest')).toBe(digest)
        const at = place()
        const { digest: odd } = await pushed(at, '_odd', sif)
        expect(await digestAt(at, '_odd')).toBe(odd)
        expect(await recordOf(at, sif)).toMatchObject({ tags: [], uploaded: true })
        expect(await tagsOf(at)).toEqual(['_odd'])
      })
    })

    describe('a tag is what either side said last', () => {
      test('moved in turns', async () => {
        const at = place()
        const name = at.split('/')[2] ?? ''
        const [one, two, three] = [fresh(), fresh(), fresh()]
        await library.push(at, one)
        const { digest } = await pushed(at, 'latest', two)
        expect([await digestAt(at, 'latest'), await hashAt(at, 'latest')]).toEqual([
          digest,
          hash(two),
        ])
        // the same image again leaves the manifest that was pushed
        await library.push(at, two)
        expect(await digestAt(at, 'latest')).toBe(digest)
        await library.push(at, three)
        expect(await digestAt(at, 'latest')).toBe(digestOf(derived(name, three)))
        const docker = await alice.image(at, 'latest')
        expect(await digestAt(at, 'latest')).toBe(docker.digest)
        expect(await hashAt(at, 'latest')).toBe(400)
        expect((await recordOf(at, three)).tags).toEqual([])
        await library.push(at, one)
        expect(await digestAt(at, 'latest')).toBe(digestOf(derived(name, one)))
        expect(await digestAt(at, docker.digest)).toBe(docker.digest)
        expect(await hashAt(at, 'latest')).toBe(hash(one))
        const found = expectData(await library.call('GET', `/v1/search?value=${name}`)).image
        const tags = Object.fromEntries(
          found.map((image: { hash: string; tags: string[] }) => [image.hash, image.tags]),
        )
        expect(tags).toMatchObject({ [hash(one)]: ['latest'], [hash(two)]: [], [hash(three)]: [] })
      })

      test('of an OCI image the library says so, in the words that clients switch at', async () => {
        const at = place()
        await alice.image(at, 'docker')
        const asked = [
          `/v1/images/${at}:docker?arch=amd64`,
          `/v1/imagefile/${at}:docker?arch=amd64`,
        ]
        for (const path of asked)
          expectRefusal(
            await library.call('GET', path),
            400,
            /application\/vnd\.oci\.image\.config\.v1\+json/,
          )
        expectRefusal(await library.call('GET', `/v1/images/${at}:none?arch=amd64`), 404)
        await target.setPrivate(at, true)
        for (const path of asked)
          expectAlike(
            await stranger.call('GET', path),
            await stranger.call('GET', path.replace(':docker', ':none')),
          )
      })
    })

    describe('deletes', () => {
      test('of a tag by OCI take it from the library, and the image with its last name', async () => {
        const at = place()
        const sif = fresh()
        await library.push(at, sif, { tags: ['a', 'b'] })
        const own = String(await digestAt(at, 'a'))
        expect(await remove(at, 'a')).toBe(202)
        expect(await remove(at, 'a')).toBe(404)
        expect([await hashAt(at, 'a'), await hashAt(at, 'b')]).toEqual([404, hash(sif)])
        expect((await recordOf(at, sif)).tags).toEqual(['b'])
        expect(await remove(at, 'b')).toBe(202)
        expect(await digestAt(at, own)).toBe(404)
        expect(await blobAt(at, digestOf(sif))).toBe(404)
        expectRefusal(await library.call('GET', `/v1/images/${at}:${hash(sif)}`), 404)
      })

      test('of a manifest by OCI take its tags and, with the last one, the image', async () => {
        const at = place()
        const sif = fresh()
        const first = await pushed(at, 'one', sif)
        const second = await pushed(at, 'two', sif, { title: 'other.sif' })
        await library.push(at, sif, { tags: ['three'] })
        const own = String(await digestAt(at, 'three'))
        expect(await remove(at, first.digest)).toBe(202)
        expect([await hashAt(at, 'one'), await hashAt(at, 'two')]).toEqual([404, hash(sif)])
        // what the library shows goes with the library's own tag, not with those of others
        expect(await remove(at, own)).toBe(202)
        expect([await hashAt(at, 'three'), await hashAt(at, 'two')]).toEqual([404, hash(sif)])
        expect(await remove(at, 'two')).toBe(202)
        expect(await digestAt(at, second.digest)).toBe(second.digest)
        expect((await recordOf(at, sif)).tags).toEqual([])
        expect(await remove(at, second.digest)).toBe(202)
        expect(await blobAt(at, digestOf(sif))).toBe(404)
        expectRefusal(await library.call('GET', `/v1/images/${at}:${hash(sif)}`), 404)
      })

      test('by the library take what OCI has of it', async () => {
        const at = place()
        const [one, two] = [fresh(), fresh()]
        const first = await pushed(at, 'one', one)
        const second = await pushed(at, 'two', two)
        await pushed(at, '_two', two, { title: 'kept.sif' })
        expect(await drop(`${at}:one`)).toBe(200)
        expect(await digestAt(at, 'one')).toBe(404)
        expect(await digestAt(at, first.digest)).toBe(404)
        expect(await blobAt(at, digestOf(one))).toBe(404)
        // OCI has another name for it: it stays until that goes, or it is deleted itself
        expect(await drop(`${at}:two`)).toBe(200)
        expect(await digestAt(at, second.digest)).toBe(second.digest)
        expect((await recordOf(at, two)).tags).toEqual([])
        expect(await drop(`${at}:${hash(two)}`)).toBe(200)
        for (const reference of ['_two', second.digest])
          expect(await digestAt(at, reference)).toBe(404)
        expect(await tagsOf(at)).toEqual([])
        const other = place()
        await pushed(other, 'latest', one)
        expect((await library.call('DELETE', `/v1/containers/${other}`)).status).toBe(200)
        expectError(await manifestOf(other, 'latest', alice), 404, 'NAME_UNKNOWN')
      })
    })

    describe('what is frozen stays from both sides', () => {
      test('a tag of the library', async () => {
        const at = place()
        const [one, two] = [fresh(), fresh()]
        await library.push(at, one, { tags: ['f', 'g'] })
        const same = (await manifestOf(at, 'f')).text
        await freeze(`${at}:f`)
        expectError((await oras(at, 'f', two)).answer, 403, 'DENIED')
        expectError((await oras(at, 'f', one)).answer, 403, 'DENIED')
        for (const reference of ['f', digestOf(same)]) expect(await remove(at, reference)).toBe(403)
        expect((await alice.put(at, 'f', same)).status).toBe(201)
        expect(await digestAt(at, 'f')).toBe(digestOf(same))
        expect((await oras(at, 'g', two)).answer.status).toBe(201)
        await freeze(`${at}:f`, false)
        expect((await oras(at, 'f', two)).answer.status).toBe(201)
      })

      test('a tag of OCI, a SIF or not', async () => {
        const at = place()
        const one = fresh()
        const { digest, manifest } = await pushed(at, 'sif', one)
        const docker = await alice.image(at, 'docker')
        for (const tag of ['sif', 'docker']) await freeze(`${at}:${tag}`)
        for (const tag of ['sif', 'docker']) {
          await expect(library.push(at, fresh(), { tags: [tag] })).rejects.toThrow('403')
          const more = library.push(at, fresh('arm64'), { arch: 'arm64', tags: [tag] })
          await expect(more).rejects.toThrow('403')
          expectError((await oras(at, tag, fresh())).answer, 403, 'DENIED')
          expect(await remove(at, tag)).toBe(403)
        }
        expect([await remove(at, digest), await remove(at, docker.digest)]).toEqual([403, 403])
        expect(await drop(`${at}:sif`)).toBe(403)
        expect(await drop(`${at}:${hash(one)}`)).toBe(403)
        expectRefusal(await library.call('DELETE', `/v1/containers/${at}`), 403, /frozen/)
        // what is there already
        expect((await alice.put(at, 'sif', manifest)).status).toBe(201)
        expect((await alice.put(at, 'docker', docker.manifest)).status).toBe(201)
        await library.push(at, one, { tags: ['sif'] })
        expect([await digestAt(at, 'sif'), await digestAt(at, 'docker')]).toEqual([
          digest,
          docker.digest,
        ])
        await freeze(`${at}:docker`, false)
        expect(await remove(at, 'docker')).toBe(202)
      })

      test('a repository: names may be added only', async () => {
        const at = place()
        const sif = fresh()
        await library.push(at, sif, { tags: ['l'] })
        await library.push(at, fresh('arm64'), { arch: 'arm64', tags: ['l'] })
        const index = (await manifestOf(at, 'l')).text
        const { digest } = await pushed(at, 'o', sif)
        await freeze(at)
        expect((await oras(at, 'new', sif)).answer.status).toBe(201)
        for (const tag of ['l', 'o']) {
          expectError((await oras(at, tag, fresh())).answer, 403, 'DENIED')
          expect(await remove(at, tag)).toBe(403)
        }
        expect(await remove(at, digest)).toBe(403)
        expect((await alice.put(at, 'l', index, INDEX)).status).toBe(201)
        await expect(library.push(at, fresh(), { tags: ['o'] })).rejects.toThrow('403')
        expect(await digestAt(at, 'o')).toBe(digest)
      })
    })

    describe('policy, quota and privacy hold on both sides', () => {
      test('require: good signatures only, and nothing that is no SIF (R8, R17)', async () => {
        const signer = await makeSigner('Petra')
        const keytext = new URLSearchParams({ keytext: signer.armor }).toString()
        const form = { 'content-type': 'application/x-www-form-urlencoded' }
        expect((await library.call('POST', '/pks/add', keytext, form)).status).toBe(200)
        await library.ensure('alice', 'strict', 'box')
        const before = fresh()
        await library.push('alice/strict/box', before, { tags: ['before'] })
        const policy = {
          ref: 'alice/strict',
          policy: 'require',
          fingerprints: [signer.fingerprint],
        }
        expectData(await library.call('PUT', '/v1/policy', policy))
        const at = 'alice/strict/box'
        const refused = (await oras(at, 'unsigned', fresh())).answer
        expectError(refused, 403, 'DENIED')
        expect(refused.json.errors[0].message).toMatch(/unsigned/)
        // stored before the policy, it gets no further name
        expectError((await oras(at, 'more', before)).answer, 403, 'DENIED')
        const data = `hsqs strict ${(contents += 1)}`
        const good = await signedSif([deffile('# good\n'), partition({ data })], [{ by: signer }])
        const { digest, manifest } = await pushed(at, 'good', good)
        expect(await hashAt(at, 'good')).toBe(hash(good))
        const index = indexOf(child(manifest, 'amd64'))
        expect((await alice.put(at, 'index', index, INDEX)).status).toBe(201)
        const old = derived('box', before)
        const mixed = indexOf(child(manifest, 'amd64'), child(old, 'amd64'))
        expectError(await alice.put(at, 'mixed', mixed, INDEX), 403, 'DENIED')
        // no SIF: a docker image, and what only OCI could name
        const layer = Buffer.from(`layer ${(contents += 1)}`)
        for (const bytes of [EMPTY, layer]) await alice.blob(at, bytes)
        const docker = {
          schemaVersion: 2,
          mediaType: IMAGE,
          config: {
            mediaType: 'application/vnd.oci.image.config.v1+json',
            digest: digestOf(EMPTY),
            size: 2,
          },
          layers: [
            {
              mediaType: 'application/vnd.oci.image.layer.v1.tar',
              digest: digestOf(layer),
              size: layer.length,
            },
          ],
        }
        const image = await alice.put(at, 'docker', docker)
        expectError(image, 403, 'DENIED')
        expect(image.json.errors[0].message).toMatch(/SIF/)
        expectError((await oras('alice/strict/box/deep', 'good', good)).answer, 403, 'DENIED')
        expect(await tagsOf(at)).toEqual(['before', 'good', 'index'])
        expect(await digestAt(at, 'good')).toBe(digest)
      })

      test('equal content counts once against the quota (R29, R50)', async () => {
        const { jwt } = await target.mint('quinn')
        const quinn = { oci: ociClient(target.url, jwt), library: libraryClient(target.url, jwt) }
        const used = async () =>
          expectData(await quinn.library.call('GET', '/v1/entities/quinn')).quotaUsage as number
        await quinn.library.ensure('quinn', 'b', 'one')
        const quota = { entity: 'quinn', bytes: 2_000_000 }
        expectData(await boss.call('PUT', '/v1/quota', quota))
        const sif = fresh()
        await quinn.library.push('quinn/b/one', sif)
        expect(await used()).toBe(sif.length)
        await pushed('quinn/b/two', 'latest', sif, {}, quinn.oci)
        expect(await used()).toBe(sif.length + EMPTY.length)
        const full = { entity: 'quinn', bytes: sif.length + 10 }
        expectData(await boss.call('PUT', '/v1/quota', full))
        await pushed('quinn/b/three', 'latest', sif, {}, quinn.oci)
        const more = fresh()
        const refused = await quinn.oci.call(
          'POST',
          `/v2/quinn/b/two/blobs/uploads/?digest=${digestOf(more)}`,
          more,
        )
        expectError(refused, 403, 'DENIED')
        for (const name of ['one', 'two', 'three'])
          expect(
            (await quinn.library.call('DELETE', `/v1/images/quinn/b/${name}:${hash(sif)}`)).status,
          ).toBe(200)
        expect(await used()).toBeLessThanOrEqual(EMPTY.length)
      })

      test('what is private is absent through the bridge, in every answer (R31)', async () => {
        const [secret, open] = ['alice/hidden/box', place()]
        const sif = fresh()
        await library.push(secret, sif, { privateCollection: true, tags: ['v1'] })
        const own = digestOf(derived('box', sif))
        const asked = [
          `manifests/v1`,
          `manifests/${own}`,
          `blobs/${digestOf(sif)}`,
          `blobs/${digestOf(EMPTY)}`,
          `tags/list`,
        ]
        for (const [by, status, code] of [
          [nobody, 401, 'UNAUTHORIZED'],
          [mallory, 404, 'NAME_UNKNOWN'],
        ] as const)
          for (const what of asked) {
            const answer = await by.call('GET', `/v2/${secret}/${what}`)
            expectError(answer, status, code)
            const none = await by.call('GET', `/v2/alice/hidden/none/${what}`)
            expect([none.status, none.text]).toEqual([answer.status, answer.text])
          }
        expect((await mallory.call('GET', '/v2/_catalog')).json.repositories).not.toContain(secret)
        expect((await alice.call('GET', '/v2/_catalog')).json.repositories).toContain(secret)
        // neither mounted nor named by who may not read it
        await mallory.blob('mallory/b/x', EMPTY)
        const query = `?mount=${digestOf(sif)}`
        for (const from of [`&from=${secret}`, ''])
          expect(
            (await mallory.call('POST', `/v2/mallory/b/x/blobs/uploads/${query}${from}`)).status,
          ).toBe(202)
        const named = await mallory.put('mallory/b/x', 'mine', orasManifest(sif))
        expectError(named, 400, 'MANIFEST_BLOB_UNKNOWN')
        const mounted = await alice.call(
          'POST',
          `/v2/${open}/blobs/uploads/${query}&from=${secret}`,
        )
        expect(mounted.status, mounted.text).toBe(201)
      })
    })
  })
}
