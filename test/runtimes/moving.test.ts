/** One data folder under every runtime in turn: what one wrote, the others serve and add to. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { sampleSif } from '../fixtures/sif.ts'
import { libraryClient, sha256 } from '../protocol/client.ts'
import { hostTarget } from './host-target.ts'

test('a data folder of Node opens under Bun and Deno and back', async () => {
  const data = await mkdtemp(join(tmpdir(), 'sreg-moving-'))
  let jwt: string | null = null
  const pushed = new Map<string, string>()
  try {
    for (const [turn, runtime] of (['node', 'bun', 'deno', 'node'] as const).entries()) {
      const target = await hostTarget(runtime, { data })
      // A token of the first turn holds in all of them: secrets and keys move, too.
      jwt ??= (await target.mint('alice')).jwt
      const alice = libraryClient(target.url, jwt)
      const name = `alice/c/turn${turn}`
      const { digest } = await alice.push(name, sampleSif({ content: name }))
      pushed.set(name, digest)
      for (const [ref, hash] of pushed) {
        const pulled = await fetch(`${target.url}/v1/imagefile/${ref}:latest?arch=amd64`)
        expect([runtime, ref, pulled.status]).toEqual([runtime, ref, 200])
        expect(sha256(new Uint8Array(await pulled.arrayBuffer()))).toBe(hash)
      }
      await target.stop({ keep: true })
    }
  } finally {
    await rm(data, { recursive: true, force: true })
  }
})
