/** Many uploads at once into one repository (issue: no lost blob, no 5xx, one copy of equal content). */
import { randomBytes } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import type { Target, TargetOptions } from '../runtimes/target.ts'
import { sha256 } from './client.ts'
import { ociClient } from './oci.ts'

const NAME = 'alice/load/all'

/**
 * Half of `uploads` bring the same bytes, half others, whole and in two steps, `atOnce` at a time. All
 * are acknowledged, and all are there afterwards, byte by byte.
 */
export async function pushAtOnce(
  target: Target,
  { uploads, atOnce }: { uploads: number; atOnce: number },
) {
  const alice = ociClient(target.url, (await target.mint('alice')).jwt)
  const same = randomBytes(30_000)
  const contents = Array.from({ length: uploads }, (_, at) =>
    at % 2 === 0 ? same : randomBytes(1000 + at),
  )
  // the repository is made once; that it may be made by all at once is another test's
  await alice.open(NAME)
  const statuses: Record<number, number> = {}
  const left = [...contents.entries()]
  const push = async () => {
    for (let next = left.pop(); next !== undefined; next = left.pop()) {
      const [at, bytes] = next
      const digest = `sha256:${sha256(bytes)}`
      const path = `/v2/${NAME}/blobs/uploads/`
      const answer =
        at % 4 < 2
          ? await alice.call('POST', `${path}?digest=${digest}`, bytes)
          : await alice.close(await alice.open(NAME), digest, bytes)
      statuses[answer.status] = (statuses[answer.status] ?? 0) + 1
    }
  }
  await Promise.all(Array.from({ length: atOnce }, push))
  expect(statuses).toEqual({ 201: uploads })

  const digests = new Map(contents.map((bytes) => [`sha256:${sha256(bytes)}`, bytes]))
  expect(digests.size).toBe(uploads / 2 + 1)
  const unread = [...digests.keys()]
  const read = async () => {
    for (let digest = unread.pop(); digest !== undefined; digest = unread.pop()) {
      const got = await alice.call('GET', `/v2/${NAME}/blobs/${digest}`)
      expect([digest, got.status, `sha256:${sha256(got.bytes)}`]).toEqual([digest, 200, digest])
    }
  }
  await Promise.all(Array.from({ length: 20 }, read))
  return { alice, digests: [...digests.keys()], same: `sha256:${sha256(same)}` }
}

export function describeOciLoad(
  name: string,
  makeTarget: (options?: TargetOptions) => Promise<Target>,
): void {
  describe(`${name}: OCI under load`, () => {
    test('100 uploads at once into one repository: all are there', async () => {
      const target = await makeTarget()
      try {
        await pushAtOnce(target, { uploads: 100, atOnce: 50 })
      } finally {
        await target.stop()
      }
    }, 60_000)
  })
}
