/** The protocol suites on Node over TCP. */
import { expect, test } from 'vitest'
import { sampleSif } from '../fixtures/sif.ts'
import { libraryClient } from '../protocol/client.ts'
import { nodeTarget } from './target.ts'

test('a push and a pull', async () => {
  const target = await nodeTarget()
  try {
    const { jwt } = await target.mint('alice')
    const alice = libraryClient(target.url, jwt)
    const bytes = sampleSif()
    const pushed = await alice.push('alice/default/x', bytes)
    const pulled = await fetch(`${target.url}/v1/imagefile/alice/default/x:latest?arch=amd64`)
    expect(new Uint8Array(await pulled.arrayBuffer())).toEqual(bytes)
    const again = await alice.push('alice/default/x', bytes, { tags: ['v2'] })
    expect(again).toEqual({ ...pushed, uploaded: false })
  } finally {
    await target.stop()
  }
})
