/** Downloads of one large image: in one stream, and in ranges as the real client asks for them. */
import { join } from 'node:path'
import { digestOf, download, downloadRanges } from '../measure.ts'
import { makePayload } from '../content/payload.ts'
import type { Measured } from '../report.ts'
import { BYTES, bytesSample, inRounds, recorder, rotate, timed, type Bench } from '../rounds.ts'
import { ociRegistries } from '../systems/distribution.ts'
import { nginx } from '../systems/nginx.ts'
import { ownFolder, startAll, stopAll, type Published, type Source } from '../systems/registry.ts'
import { ours, runtimesFor } from '../systems/sreg.ts'

export async function pull(bench: Bench): Promise<Measured> {
  const { folder, size, say } = bench
  say(`writing ${size / 2 ** 20} MiB`)
  const payload = await makePayload(join(folder, 'payload.sif'), size)
  const { runtimes, missing: left } = runtimesFor(size)
  const candidates = [...ours(runtimes), nginx(), ...ociRegistries()]
  const { systems, missing } = await startAll<Source>(candidates, ownFolder(folder), say)
  const { rows, add } = recorder(bench)
  try {
    const places: { system: Source; at: Published }[] = []
    for (const system of systems) {
      const at = await system.publish(payload)
      if ((await digestOf(at.whole)) !== payload.sha256)
        throw new Error(`${system.name} serves other bytes than were stored`)
      places.push({ system, at })
    }
    const ways = [
      { what: 'one stream', get: (at: Published) => download(at.whole, size) },
      {
        what: 'ranges of 5 MiB, 3 at a time',
        get: (at: Published) => downloadRanges(at.ranges, size, join(folder, 'curl')),
      },
    ]
    await inRounds(bench, async (round) => {
      for (const { what, get } of ways)
        for (const { system, at } of rotate(places, round)) {
          let seconds = 0
          const { cpu } = await timed(system, async () => (seconds = await get(at)))
          const sample = bytesSample(round, size, { seconds, cpu })
          add({ what, system: system.name, ...BYTES }, sample)
        }
    })
  } finally {
    await stopAll(systems)
  }
  return { rows, peers: ['nginx', 'docker-registry'], missing: [...left, ...missing] }
}
