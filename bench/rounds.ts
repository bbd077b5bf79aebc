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
  /** Says a sentence, and puts it below the case's table. */
  note(line: string): void
  /** Time of `performance.now()` when the case should be over. */
  until: number
}

/** A case of the benchmark. */
export type Case = {
  about: string
  /** Unless told; 5 where it is missing. With 1 it is done once, whatever is told. */
  rounds?: number
  run(bench: Bench): Promise<Measured | Table>
}

/** The time of a case is over. */
class TimeUp extends Error {}

/** Throws when the time of the case is over, which ends what `untilTimeUp` does. */
export function expectTime({ until }: Pick<Bench, 'until'>): void {
  if (performance.now() > until) throw new TimeUp('the time of this case is over')
}

/** Does the work and says whether there was time for all of it; what it has found so far counts. */
export async function untilTimeUp(work: () => Promise<void>): Promise<boolean> {
  try {
    await work()
    return true
  } catch (error) {
    if (error instanceof TimeUp) return false
    throw error
  }
}

/**
 * Runs `once` for each round until all are done or the time would not do for another, as long as those
 * before it were on average. The first one begins in any case; a round in which the time runs out
 * (`expectTime`) is the last. Rounds that are left out are noted.
 */
export async function inRounds(
  { rounds, until, say, note }: Pick<Bench, 'rounds' | 'until' | 'say' | 'note'>,
  once: (round: number) => Promise<void>,
): Promise<void> {
  const began = performance.now()
  for (let round = 0; round < rounds; round++) {
    const now = performance.now()
    if (round > 0 && now + (now - began) / round > until)
      return note(`Time was up after ${round} of ${rounds} rounds.`)
    say(`round ${round + 1} of ${rounds}`)
    if (!(await untilTimeUp(() => once(round))))
      return note(`Time was up in round ${round + 1} of ${rounds}, which is not whole.`)
  }
}

/** Round `round` begins with another one each time: nobody always runs on what others left behind. */
export function rotate<T>(list: readonly T[], round: number): T[] {
  return list.map((_, index) => list[(index + round) % list.length] as T)
}

/**
 * Gathers samples into rows, in the order in which rows first come up, and says each of them; after one
 * that was the last for which there was time, `add` throws for `inRounds`.
 */
export function recorder(bench: Pick<Bench, 'say' | 'until'>) {
  const rows: Row[] = []
  return {
    rows,
    add(of: Omit<Row, 'samples'>, sample: Sample): void {
      let row = rows.find(({ what, system }) => what === of.what && system === of.system)
      if (row === undefined) rows.push((row = { ...of, samples: [] }))
      row.samples.push(sample)
      bench.say(`  ${of.what}, ${of.system}: ${digits(sample.value)} ${of.unit}`)
      expectTime(bench)
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
