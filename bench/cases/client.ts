/** The real client: by library:// with us, by oras:// with docker-registry and with us. */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { clientEnv, findApptainer, runProgram, sha256File } from '../../test/e2e/apptainer.ts'
import { run, type Server } from '../measure.ts'
import { makePayload, renewPayload, type Payload } from '../content/payload.ts'
import type { Measured } from '../report.ts'
import { inRounds, recorder, rotate, timed, type Bench } from '../rounds.ts'
import { ociRegistries } from '../systems/distribution.ts'
import { forget, ownFolder, startAll, stopAll } from '../systems/registry.ts'
import { startSreg, type Sreg } from '../systems/sreg.ts'

const LAUNCHER = fileURLToPath(new URL('../../dist/launcher.mjs', import.meta.url))
/** MiB, and how often in a round: processor time is counted in hundredths of a second. */
const SIZES = [
  { mib: 1, times: 20 },
  { mib: 64, times: 1 },
  { mib: 1024, times: 1 },
]

type Way = { system: string; server: Server; folder: string; ref: string }

export async function client(bench: Bench): Promise<Measured> {
  const { folder, say } = bench
  const apptainer = findApptainer()
  if (apptainer === null) {
    const why = 'no apptainer: node scripts/setup.mjs --client brings it'
    say(why)
    return { rows: [], peers: [], missing: [{ system: 'apptainer', why }] }
  }
  const placeOf = ownFolder(folder)
  const { rows, add } = recorder(bench)
  const env = clientEnv(placeOf('home'))
  mkdirSync(join(folder, 'home/config'), { recursive: true, mode: 0o700 })
  const call = (...args: string[]) => run(apptainer, args, { env })

  const sreg = await startSreg(placeOf('sreg-lite'))
  const { systems, missing } = await startAll(ociRegistries(), placeOf, say)
  try {
    await logIn(sreg, apptainer, env)
    const oras = ({ base }: Server, name: string) => `oras://${new URL(base).host}/bench/c/${name}`
    const ways: Way[] = [
      { system: 'sreg-lite, library://', server: sreg, ref: 'library://bench/c/library' },
      { system: 'sreg-lite, oras://', server: sreg, ref: oras(sreg, 'oras') },
      ...systems.map((server) => ({
        system: `${server.name}, oras://`,
        server,
        ref: oras(server, 'oras'),
      })),
    ].map((way) => ({ ...way, folder: placeOf(way.server.name) }))
    const sizes = SIZES.filter(({ mib }) => mib * 2 ** 20 <= Math.max(bench.size, 64 * 2 ** 20))
    const images: { mib: number; times: number; first: Payload }[] = []
    for (const { mib, times } of sizes) {
      const first = await makePayload(join(folder, `${mib}.sif`), mib * 2 ** 20)
      images.push({ mib, times, first })
    }

    /** Pushes another image than any before under that tag, and pulls it; what each of them took. */
    const roundTrip = async ({ server, ref }: Way, tag: string, image: Payload) => {
      const payload = await renewPayload(image)
      const to = `${ref}:${tag}`
      const file = join(folder, 'pulled.sif')
      const push = await timed(server, () => call('push', '-U', payload.path, to))
      const pull = await timed(server, () => call('pull', '--force', '--disable-cache', file, to))
      if ((await sha256File(file)) !== payload.sha256)
        throw new Error(`${to} came back as something else`)
      rmSync(file)
      return { push, pull }
    }
    const [small] = images
    // what runs for the first time is compiled first
    if (small !== undefined)
      for (const way of ways)
        for (let time = 0; time < 2; time++) await roundTrip(way, `first-${time}`, small.first)
    await inRounds(bench, async (round) => {
      for (const { mib, times, first } of images)
        for (const way of rotate(ways, round)) {
          const trips: Awaited<ReturnType<typeof roundTrip>>[] = []
          for (let time = 0; time < times; time++)
            trips.push(await roundTrip(way, `v${round}-${mib}-${time}`, first))
          for (const what of ['push', 'pull'] as const) {
            const mean = (of: 'seconds' | 'cpu') =>
              trips.reduce((sum, trip) => sum + trip[what][of], 0) / times
            add(
              { what: `${what} of ${mib} MiB`, system: way.system, unit: 's', cpuUnit: 'ms' },
              { round, value: mean('seconds'), cpu: mean('cpu') * 1000 },
            )
          }
          forget(way.folder)
        }
    })
  } finally {
    await stopAll([sreg, ...systems])
  }
  const notes = [
    'Seconds on the clock of the whole command, of which most is the client’s own; CPU is the server’s. Of 1 MiB each is the mean of 20.',
  ]
  return { rows, peers: ['docker-registry, oras://'], missing, notes }
}

/** Both logins of the client: to the library, and to its OCI registry. */
async function logIn(sreg: Sreg, apptainer: string, env: NodeJS.ProcessEnv): Promise<void> {
  const file = join(sreg.data, '../token')
  writeFileSync(file, sreg.token, { mode: 0o600 })
  await run(
    process.execPath,
    [LAUNCHER, 'connect', sreg.base, '--token-file', file, '--name', 'b'],
    {
      env,
    },
  )
  const host = `oras://${new URL(sreg.base).host}`
  const login = ['registry', 'login', '-u', 'bench', '--password-stdin', host]
  const { code, terminal } = await runProgram(apptainer, login, { env, input: sreg.token })
  if (code !== 0) throw new Error(terminal)
}
