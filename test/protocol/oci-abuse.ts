/**
 * Manifests that nobody pushes by accident, beside those of oci.ts: refused in OCI's envelope within a
 * second, nothing of them stays, and the server has not grown (R31, R32, R54).
 */
import { createHash } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Target, TargetOptions } from '../runtimes/target.ts'
import { ociClient, type OciClient } from './oci.ts'

const MIB = 1024 * 1024
const IMAGE = 'application/vnd.oci.image.manifest.v1+json'
const INDEX = 'application/vnd.oci.image.index.v1+json'
const NAME = 'alice/abuse/all'
const CONFIG = Buffer.from('{}')
const LAYER = Buffer.from('a layer')
const hex = (algorithm: string, bytes: Uint8Array | string) =>
  createHash(algorithm).update(bytes).digest('hex')

export function describeOciAbuse(
  name: string,
  makeTarget: (options?: TargetOptions) => Promise<Target>,
  /** Memory that the server keeps, in bytes, where it can be told. */
  kept?: () => number,
): void {
  describe(`abuse of manifests: ${name}`, () => {
    let target: Target
    let alice: OciClient
    const describing = (bytes: Uint8Array, more: object = {}) => ({
      mediaType: 'application/x',
      digest: `sha256:${hex('sha256', bytes)}`,
      size: bytes.length,
      ...more,
    })
    const [config, layer] = [describing(CONFIG), describing(LAYER)]
    const good = { schemaVersion: 2, mediaType: IMAGE, config, layers: [layer] }
    const text = JSON.stringify(good)
    beforeAll(async () => {
      target = await makeTarget()
      alice = ociClient(target.url, (await target.mint('alice')).jwt)
      for (const bytes of [CONFIG, LAYER]) await alice.blob(NAME, bytes)
    })
    afterAll(async () => {
      // nothing was stored, and what is good still is
      const stored = async () => (await alice.call('GET', `/v2/${NAME}/tags/list`)).json.tags
      expect(await stored()).toEqual([])
      expect((await alice.put(NAME, 'good', text)).status).toBe(201)
      expect(await stored()).toEqual(['good'])
      await target.stop()
    })

    /** The answer to a manifest comes within a second, with that status and code. */
    async function refuses(
      manifest: unknown,
      { status = 400, code = 'MANIFEST_INVALID', type = IMAGE, what = 'x' } = {},
    ): Promise<void> {
      const body = manifest instanceof Uint8Array ? manifest : undefined
      const path = `/v2/${NAME}/manifests/${what}`
      const started = performance.now()
      const answer = await (body === undefined
        ? alice.put(NAME, what, manifest, type)
        : alice.call('PUT', path, body, { 'content-type': type }))
      const words = JSON.stringify(manifest).slice(0, 200)
      expect(performance.now() - started, words).toBeLessThan(1000)
      expect([words, answer.status, answer.json?.errors?.[0]?.code]).toEqual([words, status, code])
      expect(answer.json.errors[0].message).toMatch(/^\w.{8,400}$/s)
    }

    test('digests of other algorithms, or in capitals', async () => {
      const of = (digest: string) => ({ ...good, layers: [{ ...layer, digest }] })
      for (const digest of [
        `md5:${hex('md5', LAYER)}`,
        `sha1:${hex('sha1', LAYER)}`,
        `sha384:${hex('sha384', LAYER)}`,
        `SHA256:${hex('sha256', LAYER)}`,
        `sha256:${hex('sha256', LAYER).toUpperCase()}`,
        `sha256:${hex('sha512', LAYER)}`,
        `sha512:${hex('sha256', LAYER)}`,
        ` ${layer.digest}`,
        `${layer.digest}\n`,
        '',
      ]) {
        await refuses(of(digest))
        await refuses({ ...good, subject: { ...config, digest } })
      }
      for (const digest of [`md5:${hex('md5', text)}`, `sha384:${hex('sha384', text)}`])
        await refuses(text, { what: digest, code: 'DIGEST_INVALID' })
    })

    test('sizes that are none, or others than what is there', async () => {
      for (const size of [6, 8, 0, 7.5, -7, 1e300, 2 ** 53, '7', null, [7], true, undefined])
        await refuses({ ...good, layers: [{ ...layer, size }] })
      await refuses(text.replace('"size":7', '"size":1e999'))
      await refuses(text.replace('"size":7', '"size":7n'))
      // one thing in two sizes
      await refuses({ ...good, layers: [layer, { ...layer, size: 8 }] })
    })

    test('image and index in one, and keys that come twice', async () => {
      const manifests = [{ ...config, mediaType: IMAGE }]
      await refuses({ ...good, manifests })
      await refuses({ ...good, manifests, mediaType: INDEX }, { type: INDEX })
      await refuses({ schemaVersion: 2, mediaType: INDEX, manifests, config }, { type: INDEX })
      // the last one counts, as it does for clients
      for (const twice of [
        '"schemaVersion":1',
        `"mediaType":"${INDEX}"`,
        '"layers":7',
        '"config":[]',
      ])
        await refuses(text.replace(/\}$/, `,${twice}}`))
      await refuses(`{"__proto__":${text}}`)
    })

    test('what is called otherwise than it was sent', async () => {
      for (const type of ['text/html', 'application/json', INDEX, 'x', `${IMAGE}x`, 'a/b, c/d'])
        await refuses(text, { type })
    })

    test('bytes that are no text, and texts that are no JSON', async () => {
      const bytes = Buffer.from(text)
      for (const odd of [
        Buffer.concat([bytes, Buffer.alloc(1)]),
        Buffer.concat([Buffer.alloc(1), bytes]),
        Buffer.concat([bytes.subarray(0, -1), Buffer.from(',"x":"\0"}')]),
        Buffer.concat([
          bytes.subarray(0, -1),
          Buffer.from(',"x":"'),
          Buffer.from([0xff]),
          Buffer.from('"}'),
        ]),
        Buffer.concat([
          bytes.subarray(0, -1),
          Buffer.from(',"x":"'),
          Buffer.from([0xed, 0xa0, 0x80]),
          Buffer.from('"}'),
        ]),
        Buffer.from(text, 'utf16le'),
        Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), bytes]),
        Buffer.from(text + text),
        Buffer.from(`${text},`),
        Buffer.from(text.slice(0, -1)),
        Buffer.from(`[${text}]`),
        Buffer.from('null'),
        Buffer.from(`//\n${text}`),
        Buffer.from(text.replaceAll('"', "'")),
      ])
        await refuses(new Uint8Array(odd))
    })

    test('deep ones, wide ones, and ones with much to say', async () => {
      const deep = (levels: number) => '{"a":'.repeat(levels) + '1' + '}'.repeat(levels)
      for (const levels of [33, 10_000, 500_000])
        await refuses(text.replace(/\}$/, `,"x":${deep(levels)}}`))
      await refuses('['.repeat(4 * MIB))
      const entries = (one: string, count: number) =>
        Array.from({ length: count }, () => one).join()
      await refuses(text.replace(/"layers":.*$/, `"layers":[${entries('{}', 1_000_000)}]}`))
      await refuses(
        text.replace(/"layers":.*$/, `"layers":[${entries(JSON.stringify(layer), 10_000)}]}`),
      )
      const index = (of: string) => `{"schemaVersion":2,"mediaType":"${INDEX}","manifests":[${of}]}`
      await refuses(index(entries(JSON.stringify(config), 1001)), { type: INDEX })
      const annotations = { much: 'x'.repeat(65_536) }
      await refuses({ ...good, subject: config, annotations })
      await refuses({ ...good, annotations: ['x'] })
    })

    test('an index names what is there, and never itself', async () => {
      const index = (one: object) => ({ schemaVersion: 2, mediaType: INDEX, manifests: [one] })
      const code = 'MANIFEST_BLOB_UNKNOWN'
      // a blob is no manifest, nor is what was never pushed
      await refuses(index({ ...config, mediaType: IMAGE }), { type: INDEX, code })
      const other = describing(Buffer.from('none'), { mediaType: INDEX })
      await refuses(index(other), { type: INDEX, code })
      await refuses(index(other), { type: INDEX, what: other.digest, code: 'DIGEST_INVALID' })
      // one in the other, a hundred times: each is looked at alone
      let inner = { text, mediaType: IMAGE }
      const repository = 'alice/abuse/nested'
      for (const bytes of [CONFIG, LAYER]) await alice.blob(repository, bytes)
      expect((await alice.put(repository, `sha256:${hex('sha256', text)}`, text)).status).toBe(201)
      for (let level = 0; level < 100; level++) {
        const { mediaType } = inner
        const outer = JSON.stringify(index(describing(Buffer.from(inner.text), { mediaType })))
        const reference = `sha256:${hex('sha256', outer)}`
        const started = performance.now()
        expect((await alice.put(repository, reference, outer, INDEX)).status).toBe(201)
        expect(performance.now() - started).toBeLessThan(1000)
        inner = { text: outer, mediaType: INDEX }
      }
    })

    test('the memory stays as it was', async () => {
      const wide = text.replace(/"layers":.*$/, `"layers":[${'{},'.repeat(1_000_000)}{}]}`)
      const round = async () => {
        await refuses(wide)
        await refuses('['.repeat(4 * MIB))
        await refuses({ ...good, x: 'x'.repeat(4 * MIB - 600), layers: [{ ...layer, size: 8 }] })
      }
      for (let i = 0; i < 5; i++) await round()
      const before = kept?.() ?? 0
      for (let i = 0; i < 15; i++) await round()
      // not even one of them was kept
      expect((kept?.() ?? 0) - before).toBeLessThan(4 * MIB)
    }, 60_000)
  })
}
