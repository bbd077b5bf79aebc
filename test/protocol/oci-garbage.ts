/** What stays and what goes when manifests are deleted, and bytes that were lost (R31, R60). */
import { randomBytes } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import type { Target, TargetOptions } from '../runtimes/target.ts'
import { ociClient } from './oci.ts'

const NAME = 'alice/garbage/app'
const IMAGE = 'application/vnd.oci.image.manifest.v1+json'

export function describeOciGarbage(
  name: string,
  makeTarget: (options?: TargetOptions) => Promise<Target>,
): void {
  describe(`${name}: OCI, what is left over`, () => {
    async function withAlice(
      env: Record<string, string>,
      work: (alice: ReturnType<typeof ociClient>, target: Target) => Promise<void>,
    ) {
      const target = await makeTarget({ env })
      try {
        await work(ociClient(target.url, (await target.mint('alice')).jwt), target)
      } finally {
        await target.stop()
      }
    }

    for (const mode of ['keep', 'delete'] as const)
      test(`SREG_OCI_REFERRERS=${mode}: referrers of a deleted manifest`, async () => {
        await withAlice({ SREG_OCI_REFERRERS: mode }, async (alice) => {
          const { manifest, digest } = await alice.image(NAME, 'v1')
          const subject = { mediaType: IMAGE, digest, size: manifest.length }
          const signature = await alice.image(NAME, '', { subject, artifactType: 'a/signature' })
          const named = await alice.image(NAME, 'sbom', { subject, artifactType: 'a/sbom' })
          const status = async (reference: string) =>
            (await alice.call('HEAD', `/v2/${NAME}/manifests/${reference}`)).status
          // a tag that goes takes nothing along: a digest is a name, too
          expect((await alice.call('DELETE', `/v2/${NAME}/manifests/v1`)).status).toBe(202)
          expect(await status(digest)).toBe(200)
          expect(await status(signature.digest)).toBe(200)
          expect((await alice.call('DELETE', `/v2/${NAME}/manifests/${digest}`)).status).toBe(202)
          expect(await status(digest)).toBe(404)
          expect(await status(signature.digest)).toBe(mode === 'keep' ? 200 : 404)
          expect(await status(named.digest)).toBe(200)
          const list = await alice.call('GET', `/v2/${NAME}/referrers/${digest}`)
          expect(list.json.manifests).toHaveLength(mode === 'keep' ? 2 : 1)
        })
      })

    test('bytes that have gone are absent, and come back with the next push (R60)', async () => {
      await withAlice({}, async (alice, { store }) => {
        const { manifest, layer } = await alice.image(NAME, 'v1')
        const before = new Set(await store.names())
        const lost = randomBytes(5000)
        const at = `/v2/${NAME}/blobs/${await alice.blob(NAME, lost)}`
        const elsewhere = at.replace(NAME, 'alice/garbage/other')
        await alice.blob('alice/garbage/other', lost)
        const stored = (await store.names()).filter((one) => !before.has(one))
        for (const one of stored) await store.remove(one)
        for (const method of ['GET', 'HEAD'])
          expect((await alice.call(method, at)).status).toBe(404)
        // nothing is mounted that is not there, and a push of it heals every repository
        const mount = `/v2/alice/garbage/third/blobs/uploads/?mount=${at.split('/').at(-1)}`
        expect((await alice.call('POST', mount)).status).toBe(202)
        await alice.blob(NAME, lost)
        for (const path of [at, elsewhere])
          expect(Buffer.compare((await alice.call('GET', path)).bytes, lost)).toBe(0)
        expect((await alice.put(NAME, 'again', manifest)).status).toBe(201)
        expect(layer.length).toBeGreaterThan(0)
      })
    })
  })
}
