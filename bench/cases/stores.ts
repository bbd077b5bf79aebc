/** Where the bytes lie: disk, and S3 with and without redirects, by our server and docker-registry. */
import { join } from 'node:path'
import { digestOf, download, findProgram } from '../measure.ts'
import { makePayload, renewPayload } from '../content/payload.ts'
import type { Measured } from '../report.ts'
import { BYTES, bytesSample, inRounds, recorder, rotate, timed, type Bench } from '../rounds.ts'
import { missingRadosgw, startRadosgw } from '../systems/radosgw.ts'
import { startDistribution } from '../systems/distribution.ts'
import { ownFolder, startAll, stopAll, type Candidate, type Registry } from '../systems/registry.ts'
import { startSreg } from '../systems/sreg.ts'

/** Of the 4 GiB that the emulated disk of the S3 server has, what pushes may fill. */
const ROOM = 2.5 * 2 ** 30

export async function stores(bench: Bench): Promise<Measured> {
  const { folder, rounds, say } = bench
  const why = missingRadosgw()
  if (why !== null) {
    say(`S3 will be missing from the table: ${why}`)
    return { rows: [], peers: [], missing: [{ system: 'S3', why }] }
  }
  const placeOf = ownFolder(folder)
  const store = await startRadosgw(placeOf('radosgw'))
  const { rows, add } = recorder(bench)
  const systems: Registry[] = []
  try {
    const ourStore = (name: string, env: Record<string, string>): Candidate<Registry> => ({
      name,
      start: (place) => startSreg(place, { name, env }),
      hint: '',
    })
    const s3 = await store.bucket('ours')
    const candidates = [
      ourStore('sreg-lite, disk', {}),
      ourStore('sreg-lite, S3', { ...s3, SREG_S3_REDIRECT: 'off', SREG_S3_PREFIX: 'off/' }),
      ourStore('sreg-lite, S3 redirect', { ...s3, SREG_S3_REDIRECT: 'on', SREG_S3_PREFIX: 'on/' }),
      await peer(store),
    ]
    const found = await startAll(candidates, placeOf, say)
    systems.push(...found.systems)
    const pushes = (rounds + 1) * systems.filter(({ name }) => name.includes('S3')).length
    const most = Math.floor(Math.min(bench.size, ROOM / pushes) / 2 ** 20) * 2 ** 20
    say(`writing ${most / 2 ** 20} MiB`)
    let payload = await makePayload(join(folder, 'payload.sif'), most)
    const places: { system: Registry; whole: string }[] = []
    for (const system of systems) {
      const { whole } = await system.publish(payload)
      if ((await digestOf(whole)) !== payload.sha256)
        throw new Error(`${system.name} serves other bytes than were stored`)
      places.push({ system, whole })
    }
    await inRounds(bench, async (round) => {
      for (const { system, whole } of rotate(places, round)) {
        let seconds = 0
        const { cpu } = await timed(system, async () => (seconds = await download(whole, most)))
        const row = { what: `pull of ${most / 2 ** 20} MiB`, system: system.name, ...BYTES }
        add(row, bytesSample(round, most, { seconds, cpu }))
      }
      payload = await renewPayload(payload)
      for (const { system } of rotate(places, round)) {
        const push = await system.prepare(payload, 'parts')
        const used = await timed(system, push)
        const row = { what: `push of ${most / 2 ** 20} MiB`, system: system.name, ...BYTES }
        add(row, bytesSample(round, most, used))
      }
    })
    const notes = [
      'The S3 server holds its data in memory and takes processor time of the same cores. CPU is of the registry alone; bytes that were pushed past ours are read back by it, to be verified, before it answers.',
    ]
    return { rows, peers: ['sreg-lite, disk', PEER], missing: found.missing, notes }
  } finally {
    await stopAll([...systems, store])
  }
}

const PEER = 'docker-registry, S3'

/** docker-registry on a bucket of its own; redirects to it are what it does unless told. */
async function peer(store: Awaited<ReturnType<typeof startRadosgw>>): Promise<Candidate<Registry>> {
  const program = findProgram('docker-registry')
  const hint = 'apt-get install docker-registry'
  if (program === null) return { name: PEER, start: null, hint }
  const { SREG_S3_BUCKET: bucket } = await store.bucket('theirs')
  const storage = {
    s3: {
      region: 'us-east-1',
      regionendpoint: store.base,
      bucket,
      accesskey: 'test',
      secretkey: 'testtest',
      secure: false,
      v4auth: true,
    },
    redirect: { disable: true },
  }
  return {
    name: PEER,
    start: (folder) => startDistribution(PEER, program, folder, { storage }),
    hint,
  }
}
