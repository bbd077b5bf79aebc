/** Old `shub://` names of the library's images against any runtime (protocol.md §8). */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { SCOPES } from '../../src/core/model.ts'
import { buildSif, sampleSif } from '../fixtures/sif.ts'
import type { Target, TargetOptions } from '../runtimes/target.ts'
import { expectAlike, expectData, expectRefusal } from './answers.ts'
import { libraryClient, sha256, type LibraryClient } from './client.ts'

const SMALL = sampleSif({ content: 'by its old name' })
const OTHER = sampleSif({ content: 'what the tag names next' })
const ARM = sampleSif({ content: 'of another architecture', arch: 'arm64' })
/** Large enough for a redirect to its ranges. */
const LARGE = buildSif({
  objects: [{ type: 'generic', data: 'large' }],
  trailing: 16 * 1024 * 1024,
})

/** The suite. `makeTarget` makes one fresh registry per call, which the suite stops. */
export function describeShub(
  name: string,
  makeTarget: (options?: TargetOptions) => Promise<Target>,
): void {
  describe(`shub: ${name}`, () => {
    let target: Target
    let alice: LibraryClient
    let boss: LibraryClient
    let nobody: LibraryClient

    beforeAll(async () => {
      target = await makeTarget()
      alice = libraryClient(target.url, (await target.mint('alice')).jwt)
      const admin = await target.mint('boss', { admin: true, scopes: [...SCOPES] })
      boss = libraryClient(target.url, admin.jwt)
      nobody = libraryClient(target.url)
      await alice.push('alice/lab/app', SMALL, { tags: ['latest', 'v1'] })
      await boss.push('library/lab/app', OTHER)
    })
    afterAll(() => target.stop())

    const get = (path: string, client = nobody) => client.call('GET', path)
    /** The bytes behind `image`, as the client fetches them: a GET that follows, without a token. */
    const bytesOf = async (path: string) => {
      const answer = await get(path)
      expect(answer.status, answer.text).toBe(200)
      const file = await fetch(answer.json.image)
      expect(file.status).toBe(200)
      return sha256(new Uint8Array(await file.arrayBuffer()))
    }

    test('a manifest has the five fields, and commit is the hash', async () => {
      const answer = await get('/alice/api/container/lab/app:v1')
      expect(answer.status).toBe(200)
      const hash = sha256(SMALL)
      expect(answer.json).toEqual({
        image: `${target.url}/v1/imagefile/alice/lab/app:sha256.${hash}`,
        name: 'app',
        tag: 'v1',
        version: `sha256.${hash}`,
        commit: hash,
      })
      expect(answer.headers.get('content-type')).toBe('application/json')
      // R33: it holds an address taken from the request
      expect(answer.headers.get('cache-control')).toContain('no-store')
    })

    test('two names are of the entity library, three of the entity before them', async () => {
      expect(await bytesOf('/api/container/lab/app:latest')).toBe(sha256(OTHER))
      expect(await bytesOf('/alice/api/container/lab/app:latest')).toBe(sha256(SMALL))
      expect(await bytesOf('/library/api/container/lab/app')).toBe(sha256(OTHER))
    })

    test('by digest, with and without a tag, and that of another image is not there', async () => {
      const hash = sha256(SMALL)
      const at = '/alice/api/container/lab/app'
      for (const end of [`@${hash}`, `@sha256:${hash}`, `:v1@${hash}`, `:none@${hash}`])
        expect((await get(at + end)).json).toMatchObject({ commit: hash, tag: `sha256.${hash}` })
      for (const end of [`@${sha256(OTHER)}`, `:v1@${sha256(OTHER)}`, `@${hash.slice(0, 40)}`])
        expectRefusal(await get(at + end), 404)
    })

    test('a tag that moves changes commit, and what was named stays what it was', async () => {
      await alice.push('alice/lab/moving', SMALL)
      const at = '/alice/api/container/lab/moving:latest'
      const first = await get(at)
      await alice.push('alice/lab/moving', OTHER)
      expect((await get(at)).json.commit).toBe(sha256(OTHER))
      const file = await fetch(first.json.image)
      expect(sha256(new Uint8Array(await file.arrayBuffer()))).toBe(sha256(SMALL))
    })

    test('amd64 unless ?arch= says otherwise', async () => {
      await alice.push('alice/lab/both', SMALL)
      await alice.push('alice/lab/both', ARM, { arch: 'arm64' })
      const at = '/alice/api/container/lab/both'
      expect(await bytesOf(at)).toBe(sha256(SMALL))
      expect(await bytesOf(`${at}?arch=amd64`)).toBe(sha256(SMALL))
      expect(await bytesOf(`${at}?arch=arm64`)).toBe(sha256(ARM))
      for (const arch of ['ppc64le', 'no!arch'])
        expectRefusal(await get(`${at}?arch=${encodeURIComponent(arch)}`), 404)
    })

    test('a large image comes whole, through its redirect', async () => {
      await alice.push('alice/lab/large', LARGE)
      expect(await bytesOf('/alice/api/container/lab/large')).toBe(sha256(LARGE))
    })

    test('what is private looks absent, also to its owner: there is no login (R26)', async () => {
      await alice.push('alice/closed/app', SMALL, { privateCollection: true })
      await alice.push('alice/lab/closed', SMALL, { privateContainer: true })
      const absent = await get('/alice/api/container/lab/never-was:latest')
      expectRefusal(absent, 404)
      for (const path of [
        '/alice/api/container/closed/app:latest',
        '/alice/api/container/lab/closed:latest',
        `/alice/api/container/lab/closed@${sha256(SMALL)}`,
        '/alice/api/container/lab/app:never-was',
        '/nobody/api/container/lab/app:latest',
      ])
        for (const client of [nobody, alice]) expectAlike(await get(path, client), absent)
    })

    test('an OCI image is none, public as it is', async () => {
      const at = '/v2/alice/lab/oci'
      const digest = `sha256:${sha256(Buffer.from('{}'))}`
      const blob = await alice.call('POST', `${at}/blobs/uploads/?digest=${digest}`, '{}')
      const config = { mediaType: 'application/vnd.oci.image.config.v1+json', digest, size: 2 }
      const type = 'application/vnd.oci.image.manifest.v1+json'
      const manifest = { schemaVersion: 2, mediaType: type, config, layers: [] }
      const headers = { 'content-type': type }
      const put = await alice.call('PUT', `${at}/manifests/v1`, manifest, headers)
      expect([blob.status, put.status]).toEqual([201, 201])
      expect((await get(`${at}/manifests/v1`, alice)).status).toBe(200)
      expectRefusal(await get('/alice/api/container/lab/oci:v1'), 404)
    })

    test('what can be no name is absent too; other addresses and methods are refused', async () => {
      for (const path of [
        '/alice/api/container/lab/App:latest',
        '/alice/api/container/lab/app:',
        '/alice/api/container/lab/:latest',
        '/alice/api/container/lab/app@',
        '/alice/api/container/lab/app%2Fapp:latest',
        '/alice/api/container/lab/%zz:latest',
        '/alice/api/container/la%256c/app:latest',
        '/v1/api/container/lab/app:latest',
        '/api/container/lab',
        '/api/container/a/b/c:latest',
        '/api/collections/',
      ])
        expectRefusal(await get(path), 404)
      const posted = await nobody.call('POST', '/api/container/lab/app:latest', {})
      expectRefusal(posted, 405)
      expect(posted.headers.get('allow')).toBe('GET, HEAD')
      expect((await nobody.call('HEAD', '/api/container/lab/app:latest')).status).toBe(200)
    })

    test('without anonymous pulls nothing is there (SREG_ANONYMOUS_PULL)', async () => {
      const closed = await makeTarget({ env: { SREG_ANONYMOUS_PULL: 'off' } })
      try {
        const ann = libraryClient(closed.url, (await closed.mint('ann')).jwt)
        await ann.push('ann/lab/app', SMALL)
        expect((await ann.call('GET', '/v1/images/ann/lab/app:latest')).status).toBe(200)
        const at = `${closed.url}/ann/api/container/lab`
        const absent = await get(`${at}/never-was:latest`)
        expectRefusal(absent, 404)
        for (const client of [nobody, ann])
          expectAlike(await get(`${at}/app:latest`, client), absent)
      } finally {
        await closed.stop()
      }
    }, 60_000)

    test('a pull counts once, where its bytes are fetched, and the week has an end (R58)', async () => {
      const env = { SREG_LIMIT_CONTAINER_WEEK: '2' }
      let limited = await makeTarget({ env })
      try {
        const ann = libraryClient(limited.url, (await limited.mint('ann')).jwt)
        await ann.push('ann/lab/app', SMALL)
        const at = `${limited.url}/ann/api/container/lab/app:latest`
        for (let i = 0; i < 5; i++) expect((await get(at)).status).toBe(200)
        const { image } = (await get(at)).json
        for (const status of [200, 200, 429])
          expect((await nobody.call('GET', image)).status).toBe(status)
        await limited.stop({ keep: true })
        const publicUrl = 'https://images.example.org'
        const { data } = limited
        limited = await makeTarget({ env: { ...env, SREG_PUBLIC_URL: publicUrl }, data })
        const stats = await nobody.call('GET', `${limited.url}/v1/stats?ref=ann/lab/app`)
        expect(expectData(stats).total).toBe(2)
        // R33: with a public URL the address hangs on nothing that a request says
        const again = await get(`${limited.url}/ann/api/container/lab/app:latest`)
        expect(again.json.image).toBe(image.replace(/^http:\/\/[^/]+/, publicUrl))
      } finally {
        await limited.stop()
      }
    }, 120_000)
  })
}
