/** Blobs of OCI that pass the registry by: addresses of the store itself (R5, R31). */
import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { TargetOptions } from '../runtimes/target.ts'
import { sha256 } from './client.ts'
import type { DirectTarget } from './library-direct.ts'
import { ociClient, type OciClient } from './oci.ts'

const NAME = 'alice/past/blobs'

export function describeOciDirect(
  name: string,
  makeTarget: (options?: TargetOptions) => Promise<DirectTarget>,
): void {
  describe(`OCI past us: ${name}`, () => {
    const bytes = randomBytes(9 * 1024 * 1024 + 7)
    const path = `/v2/${NAME}/blobs/sha256:${sha256(bytes)}`
    let target: DirectTarget
    let alice: OciClient
    let nobody: OciClient
    beforeAll(async () => {
      target = await makeTarget()
      alice = ociClient(target.url, (await target.mint('alice')).jwt)
      nobody = ociClient(target.url)
      await alice.blob(NAME, bytes)
      target.readBacks()
    })
    afterAll(() => target.stop())

    const locate = async (range?: string) => {
      const headers: Record<string, string> = range === undefined ? {} : { range }
      const answer = await nobody.call('GET', path, undefined, headers)
      expect([answer.status, answer.bytes.length]).toEqual([307, 0])
      expect(answer.headers.get('cache-control')).toContain('no-store')
      const location = answer.headers.get('location') ?? ''
      expect(location.startsWith(target.url)).toBe(false)
      return location
    }
    const read = async (url: string, headers: Record<string, string> = {}) => {
      const answer = await fetch(url, { headers })
      return { status: answer.status, bytes: Buffer.from(await answer.arrayBuffer()), answer }
    }

    test('a 307 to the store, which honours ranges; no byte of it passes us', async () => {
      const location = await locate()
      const whole = await read(location)
      expect([whole.status, sha256(whole.bytes)]).toEqual([200, sha256(bytes)])
      expect(whole.answer.headers.get('content-type')).toBe('application/octet-stream')
      expect(whole.answer.headers.get('content-disposition')).toMatch(
        /^attachment; filename="sha256-/,
      )
      const range = `bytes=5-1004`
      const part = await read(await locate(range), { range })
      expect(part.status).toBe(206)
      expect(part.answer.headers.get('content-range')).toBe(`bytes 5-1004/${bytes.length}`)
      expect(part.bytes.equals(bytes.subarray(5, 1005))).toBe(true)
      // as clients do it, that follow redirects by themselves
      const followed = await read(target.url + path, { range: 'bytes=-9' })
      expect(followed.bytes.equals(bytes.subarray(-9))).toBe(true)
      expect((await read(location.replace(/(X-Amz-Signature=)./, '$1g'))).status).toBe(403)
      expect(target.readBacks()).toEqual([])
    })

    test('what needs no bytes is answered here', async () => {
      const head = await nobody.call('HEAD', path)
      expect([head.status, head.headers.get('content-length')]).toEqual([200, `${bytes.length}`])
      const known = { 'if-none-match': `"sha256:${sha256(bytes)}"` }
      expect((await nobody.call('GET', path, undefined, known)).status).toBe(304)
      const beyond = { range: `bytes=${bytes.length}-` }
      expect((await nobody.call('GET', path, undefined, beyond)).status).toBe(416)
      const manifest = await alice.image(NAME, 'latest')
      const got = await nobody.call('GET', `/v2/${NAME}/manifests/latest`)
      expect([got.status, got.text]).toEqual([200, manifest.manifest])
    })

    test('clients that leak their token are not sent away', async () => {
      const agent = { 'user-agent': 'Apptainer/1.1.5 (Linux amd64) Go/1.19' }
      const got = await alice.call('GET', path, undefined, agent)
      expect([got.status, sha256(got.bytes)]).toEqual([200, sha256(bytes)])
    })

    test('who may not read gets no address (R31)', async () => {
      await target.setPrivate(NAME, true)
      const hidden = await nobody.call('GET', path)
      expect([hidden.status, hidden.headers.get('location')]).toEqual([401, null])
      expect((await alice.call('GET', path)).status).toBe(307)
      await target.setPrivate(NAME, false)
    })

    test('bytes that have gone are absent, not redirected to, and come with the next push (R5, R60)', async () => {
      const before = new Set(await target.store.names())
      const lost = randomBytes(1000)
      const at = `/v2/${NAME}/blobs/${await alice.blob(NAME, lost)}`
      const [blob = ''] = (await target.store.names()).filter((one) => !before.has(one))
      await target.store.cut(blob, 100)
      for (const method of ['GET', 'HEAD']) expect((await nobody.call(method, at)).status).toBe(404)
      await alice.blob(NAME, lost)
      const { location } = Object.fromEntries((await nobody.call('GET', at)).headers)
      expect((await read(location ?? '')).bytes.equals(lost)).toBe(true)
    })
  })
}
