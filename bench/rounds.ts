/** What a case is given, and how it measures: rounds in turn, each number to its row. */
import { cpuSeconds, type Server } from './measure.ts'
import { digits, type Measured, type Row, type Sample, type Table } from './report.ts'

export type Bench = {
  /** An empty folder of this case's own, removed after it. */
  folder: string
  rounds: number
  /** Bytes of a large image; a multiple of 1 MiB. */
  size: number
  /** Of each measurement of small requests. */
  seconds: number
  /** How many there are to sweep. */
  blobs: number
  /** Images of the registries that grow, and where made ones are found and left; null: nowhere. */
  images: number[]
  registries: string | null
  /** Clients of a herd. */
  clients: number
  /** GiB of an image that is larger than memory. */
  gib: number
  /** Public keys, and requests of a round. */
  keys: number
  requests: number
  say(line: string): void
  /** Time of `performance.now()` when rounds should be over. */
  until: number
}

/** A case of the benchmark. */
export type Case = {
  about: string
  run(bench: Bench): Promise<Measured | Table>
}

/**
 * Runs `once` for each round until all are done or the time would not do for another, as long as those
 * before it were on average; at least once.
 */
export async function inRounds(
  { rounds, until, say }: Pick<Bench, 'rounds' | 'until' | 'say'>,
  once: (round: number) => Promise<void>,
): Promise<void> {
  const began = performance.now()
  for (let round = 0; round < rounds; round++) {
    const now = performance.now()
    if (round > 0 && now + (now - began) / round > until) {
      say(`time is up after ${round} rounds`)
      return
    }
    say(`round ${round + 1} of ${rounds}`)
    await once(round)
  }
}

/** Round `round` begins with another one each time: nobody always runs on what others left behind. */
export function rotate<T>(list: readonly T[], round: number): T[] {
  return list.map((_, index) => list[(index + round) % list.length] as T)
}

/** Gathers samples into rows, in the order in which rows first come up, and says each of them. */
export function recorder(say: (line: string) => void) {
  const rows: Row[] = []
  return {
    rows,
    add(of: Omit<Row, 'samples'>, sample: Sample): void {
      let row = rows.find(({ what, system }) => what === of.what && system === of.system)
      if (row === undefined) rows.push((row = { ...of, samples: [] }))
      row.samples.push(sample)
      say(`  ${of.what}, ${of.system}: ${digits(sample.value)} ${of.unit}`)
    },
  }
}

/** Seconds that `work` takes on the clock, and processor seconds of the server meanwhile. */
export async function timed(
  server: Pick<Server, 'pid'>,
  work: () => Promise<unknown>,
): Promise<{ seconds: number; cpu: number }> {
  const before = cpuSeconds(server.pid)
  const start = performance.now()
  await work()
  const seconds = (performance.now() - start) / 1000
  return { seconds, cpu: cpuSeconds(server.pid) - before }
}

/** As samples of bytes are given: MiB/s, and processor seconds per GiB. */
export const BYTES = { unit: 'MiB/s', cpuUnit: 's/GiB' } as const
export const bytesSample = (
  round: number,
  size: number,
  { seconds, cpu }: { seconds: number; cpu: number },
): Sample => ({ round, value: size / 2 ** 20 / seconds, cpu: (cpu / size) * 2 ** 30 })
