/** Uploads of new content: one large image in one body and in parts, and eight images at once. */
import { join } from 'node:path'
import { fetchMemory, run } from '../measure.ts'
import { makePayload, renewPayload, type Payload } from '../content/payload.ts'
import type { Measured } from '../report.ts'
import { BYTES, bytesSample, inRounds, recorder, rotate, timed, type Bench } from '../rounds.ts'
import { ociRegistries } from '../systems/distribution.ts'
import { forget, ownFolder, startAll, stopAll, type Registry } from '../systems/registry.ts'
import { ours, runtimesFor } from '../systems/sreg.ts'

const AT_ONCE = 8

export async function push(bench: Bench): Promise<Measured> {
  const { folder, size, say } = bench
  say(`writing twice ${size / 2 ** 20} MiB`)
  let large = await makePayload(join(folder, 'large.sif'), size)
  const share = Math.max(1, Math.floor(size / AT_ONCE / 2 ** 20)) * 2 ** 20
  let eight: Payload[] = []
  for (let index = 0; index < AT_ONCE; index++)
    eight.push(await makePayload(join(folder, `part-${index}.sif`), share))

  const { runtimes, missing: left } = runtimesFor(size)
  const placeOf = ownFolder(folder)
  const candidates = [...ours(runtimes), ...ociRegistries()]
  const { systems, missing } = await startAll<Registry>(candidates, placeOf, say)
  const { rows, add } = recorder(bench)
  try {
    const ways = [
      { what: 'one body', of: () => [large], how: 'single' as const },
      { what: 'parts of 64 MiB', of: () => [large], how: 'parts' as const },
      { what: `${AT_ONCE} images at once`, of: () => eight, how: 'single' as const },
    ]
    await inRounds(bench, async (round) => {
      for (const { what, of, how } of ways) {
        // another digest each time: nobody may answer that it has it
        if (of().length === 1) large = await renewPayload(large)
        else eight = await Promise.all(eight.map(renewPayload))
        for (const system of rotate(systems, round)) {
          const pushes: (() => Promise<void>)[] = []
          for (const [index, payload] of of().entries())
            pushes.push(await system.prepare(payload, how, `n${index}`))
          const bytes = of().reduce((sum, payload) => sum + payload.size, 0)
          await fetchMemory(folder, bytes)
          // what the one before left to be written is not this one's business
          await run('sync', [])
          const used = await timed(system, () => Promise.all(pushes.map((push) => push())))
          add({ what, system: system.name, ...BYTES }, bytesSample(round, bytes, used))
          forget(placeOf(system.name))
        }
      }
    })
  } finally {
    await stopAll(systems)
  }
  return { rows, peers: ['docker-registry'], missing: [...left, ...missing] }
}
