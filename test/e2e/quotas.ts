/** Quotas and share links for people who have the real client. */
import { mkdtemp, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { SCOPES } from '../../src/core/model.ts'
import { sampleSif } from '../fixtures/sif.ts'
import { expectData } from '../protocol/answers.ts'
import { libraryClient, sha256 } from '../protocol/client.ts'
import type { Target } from '../runtimes/target.ts'
import { makeClient, removeFolder, runProgram, sha256File, type Client } from './apptainer.ts'
import { describeWithClient } from './suite.ts'

/** The client has seen a whole image, whatever its size. */
function image(word: string, size = 0): Uint8Array {
  const sif = sampleSif({ content: word })
  const bytes = new Uint8Array(Math.max(size, sif.length))
  bytes.set(sif)
  return bytes
}

export function describeQuotaClient(name: string, makeTarget: () => Promise<Target>): void {
  describeWithClient(`${name}: quotas and links with the real client`, () => {
    const LARGE = image('large', 20 * 1024 * 1024)
    const QUOTA = LARGE.length + 2 * image('small').length
    let folder = ''
    let target: Target
    let client: Client
    let api: ReturnType<typeof libraryClient>

    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), 'sreg-e2e-'))
      target = await makeTarget()
      const { jwt } = await target.mint('quinn')
      api = libraryClient(target.url, jwt)
      await api.push('quinn/c/large', LARGE, { privateCollection: true })
      const { jwt: power } = await target.mint('boss', { admin: true, scopes: [...SCOPES] })
      const body = { entity: 'quinn', bytes: QUOTA }
      expectData(await libraryClient(target.url, power).call('PUT', '/v1/quota', body))
      client = await makeClient(join(folder, 'quinn'))
      expect((await client.connect(target.url, jwt)).code).toBe(0)
    })
    afterAll(async () => {
      await target?.stop()
      await removeFolder(folder)
    })
    const push = async (word: string) => {
      const file = join(folder, `${word}.sif`)
      await writeFile(file, image(word))
      return client.run(['push', '-U', file, `library://quinn/c/${word}:latest`])
    }

    test('a push says what is used, and one that does not fit says why', async () => {
      const first = await push('one')
      expect(first.code, first.terminal).toBe(0)
      expect(first.terminal).toMatch(/Library storage: using 20\.0\d MiB out of 20\.06 MiB quota/)
      expect((await push('two')).code).toBe(0)
      const { code, terminal } = await push('three')
      expect(code, terminal).not.toBe(0)
      const used = LARGE.length + image('one').length + image('two').length
      expect(terminal).toContain(
        `quinn uses 20.1 MiB (${used} bytes) of the 20.1 MiB (${QUOTA} bytes) it may use`,
      )
      expect(terminal).toMatch(/There is no room for this image of 32\.0 KiB \(\d+ bytes\)/)
      expect(terminal).toContain('ask an administrator for a larger quota')
    })

    test('apptainer pull takes a link, and spends one download', async () => {
      const stranger = await makeClient(join(folder, 'stranger'))
      for (const [cache, count] of [
        [false, 1],
        [true, 1],
      ] as const) {
        const made = await api.call('POST', '/v1/shares', { ref: 'quinn/c/large', count })
        const { url } = made.json.data as { url: string }
        const pulled = await stranger.pull([url], { cache })
        expect(pulled.code, pulled.terminal).toBe(0)
        expect(pulled.sha256).toBe(sha256(LARGE))
        const again = await stranger.pull([url])
        expect(again.code, again.terminal).not.toBe(0)
        expect(again.terminal).toContain('not found')
      }
    })

    test('curl -L takes a link', async () => {
      const made = await api.call('POST', '/v1/shares', { ref: 'quinn/c/large', count: 1 })
      const { url } = made.json.data as { url: string }
      const file = join(folder, 'curled.sif')
      const curl = () => runProgram('curl', ['-q', '-sSfL', '--noproxy', '*', '-o', file, url])
      const first = await curl()
      expect(first.code, first.terminal).toBe(0)
      expect(await sha256File(file)).toBe(sha256(LARGE))
      const again = await curl()
      expect(again.code, again.terminal).toBe(22)
      expect(again.terminal).toContain('404')
    })
  })
}
