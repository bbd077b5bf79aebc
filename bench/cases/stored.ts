/** What costs no bytes: another tag for a stored image, and pushing once more what is stored. */
import { join } from 'node:path'
import { makePayload } from '../content/payload.ts'
import type { Measured } from '../report.ts'
import { inRounds, recorder, rotate, timed, type Bench } from '../rounds.ts'
import { ociRegistries } from '../systems/distribution.ts'
import { ownFolder, startAll, stopAll, type Registry, type Stored } from '../systems/registry.ts'
import { ours, OURS } from '../systems/sreg.ts'

/** Of each kind in a round, one after the other. */
const TIMES = 50

export async function stored(bench: Bench): Promise<Measured> {
  const { folder, say } = bench
  const payload = await makePayload(join(folder, 'payload.sif'), 2 ** 20)
  const candidates = [...ours(OURS), ...ociRegistries()]
  const { systems, missing } = await startAll<Registry>(candidates, ownFolder(folder), say)
  const { rows, add } = recorder(bench)
  try {
    const places: { system: Registry; image: Stored }[] = []
    for (const system of systems) places.push({ system, image: await system.publish(payload) })
    const ways: { what: string; once: (image: Stored, turn: number) => Promise<void> }[] = [
      { what: 'another tag of a stored image', once: (image, turn) => image.tag(`t${turn}`) },
      { what: 'push of stored content', once: (image) => image.again() },
    ]
    await inRounds(bench, async (round) => {
      for (const { what, once } of ways)
        for (const { system, image } of rotate(places, round)) {
          const { seconds, cpu } = await timed(system, async () => {
            for (let turn = 0; turn < TIMES; turn++) await once(image, round * TIMES + turn)
          })
          const row = { what, system: system.name, unit: 'ms', cpuUnit: 'ms' }
          add(row, { round, value: (seconds * 1000) / TIMES, cpu: (cpu * 1000) / TIMES })
        }
    })
  } finally {
    await stopAll(systems)
  }
  const notes = [
    `Each the mean of ${TIMES} in a row; ours are durable before the answer. Both set a tag; a push looks for entity, collection, container and image first, with docker-registry for its blobs.`,
  ]
  return { rows, peers: ['docker-registry'], missing, notes }
}
