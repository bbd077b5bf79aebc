/** From nothing to the first answer, and the memory that servers take, idle and at their highest. */
import { join } from 'node:path'
import { download, freePort, memory, requestRate, serve } from '../measure.ts'
import { makePayload, renewPayload } from '../content/payload.ts'
import { median, type Measured } from '../report.ts'
import { inRounds, recorder, rotate, type Bench } from '../rounds.ts'
import { ociRegistries } from '../systems/distribution.ts'
import { nginx } from '../systems/nginx.ts'
import {
  forget,
  ownFolder,
  startAll,
  stopAll,
  type Candidate,
  type Registry,
} from '../systems/registry.ts'
import { commandLine, nameOf, ours, OURS, startSreg } from '../systems/sreg.ts'

/** Starts of each in a round. */
const STARTS = 3
/** Idle is what a server still has after so many milliseconds. */
const SETTLED = 2000
const PAYLOAD_MOST = 256 * 2 ** 20

/** A process that answers, on the data folder it has had before. */
export async function start(bench: Bench): Promise<Measured> {
  const { folder, say } = bench
  const placeOf = ownFolder(folder)
  const { rows, add } = recorder(bench)
  const candidates: Candidate<{ pid: number; stop(): Promise<void> }>[] = []
  for (const runtime of OURS) {
    const place = placeOf(nameOf(runtime))
    const data = join(place, 'data')
    // the first start of all makes the database
    await (await startSreg(place, { runtime })).stop()
    const again = async () => {
      const port = await freePort()
      const { program, args, env } = commandLine(data, port, { runtime })
      return serve(place, program, args, `http://127.0.0.1:${port}/readyz`, env, 60)
    }
    candidates.push({ name: nameOf(runtime), start: again, hint: '' })
  }
  const others = [nginx(), ...ociRegistries()]
  const missing = others.flatMap(({ name, start, hint }) =>
    start === null ? [{ system: name, why: hint }] : [],
  )
  for (const { system, why } of missing) say(`${system} will be missing from the table: ${why}`)
  candidates.push(...others)
  let turn = 0
  await inRounds(bench, async (round) => {
    for (const { name, start } of rotate(candidates, round)) {
      if (start === null) continue
      const times: number[] = []
      for (let count = 0; count < STARTS; count++) {
        const place = placeOf(`${name}-${++turn}`)
        const before = performance.now()
        const server = await start(place)
        times.push(performance.now() - before)
        await server.stop()
      }
      add(
        { what: 'start to first answer', system: name, unit: 'ms' },
        { round, value: median(times) },
      )
    }
  })
  const notes = [
    `The median of ${STARTS} starts in each round, ours on a data folder that is there already; asked every 5 ms.`,
  ]
  return { rows, peers: ['docker-registry'], missing, notes }
}

/** A fresh server in each round: idle, and the most it had after what clients do. */
export async function memoryOf(bench: Bench): Promise<Measured> {
  const { folder, say } = bench
  const size = Math.min(bench.size, PAYLOAD_MOST)
  let payload = await makePayload(join(folder, 'payload.sif'), size)
  const candidates = [...ours(OURS), ...ociRegistries()]
  const { rows, add } = recorder(bench)
  let missing: Measured['missing'] = []
  const step = async (
    system: Registry,
    round: number,
    what: string,
    work: () => Promise<unknown>,
  ) => {
    await work()
    const { peak } = memory(system.pid)
    add({ what, system: system.name, unit: 'MiB' }, { round, value: peak })
  }
  await inRounds(bench, async (round) => {
    payload = await renewPayload(payload)
    for (const candidate of rotate(candidates, round)) {
      const place = join(folder, `${candidate.name.replaceAll(' ', '-')}-${round}`)
      const tell = round === 0 ? say : () => {}
      const started = await startAll<Registry>([candidate], () => ownFolder(place)('of'), tell)
      if (round === 0) missing = [...missing, ...started.missing]
      const [system] = started.systems
      if (system === undefined) continue
      try {
        await new Promise((resolve) => setTimeout(resolve, SETTLED))
        const idle = { what: 'idle', system: system.name, unit: 'MiB' }
        add(idle, { round, value: memory(system.pid).now })
        const published = await system.publish(payload)
        const mib = size / 2 ** 20
        await step(system, round, `peak after a push of ${mib} MiB`, () => Promise.resolve())
        await step(system, round, `peak after its pull too`, () => download(published.whole, size))
        const { url, headers = {} } = published.lookup
        await step(system, round, 'peak after 64 connections too', () =>
          requestRate(url, headers, 2),
        )
      } finally {
        await stopAll(started.systems)
        forget(place)
      }
    }
  })
  const notes = [
    'Resident memory of the server and its children; in workerd Miniflare is one of them.',
  ]
  return { rows, peers: ['docker-registry'], missing, notes }
}
