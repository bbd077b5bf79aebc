/** What the benchmark says of what it measured: medians, spreads and ratios, as a Markdown table. */

export type Cell = string | number | null

/** A table as it is printed. */
export type Table = {
  title: string
  columns: string[]
  rows: Cell[][]
  notes?: string[]
  /** What it was made of, for the JSON. */
  data?: unknown
  /** Columns to plot: a curve for each name, of sizes (x) and what was measured (y). */
  curve?: { name: string; x: string; y: string }
}

/** One number of one round, with what it cost: processor time, and the slowest in a hundred (ms). */
export type Sample = { round: number; value: number; cpu?: number; p99?: number }

/** What was done (`what`) and by whom, and all that was measured of it. */
export type Row = {
  what: string
  system: string
  /** Rates end in `/s`, and more of them is better; of everything else less is. */
  unit: string
  /** Of the samples' `cpu`, such as `s/GiB`. */
  cpuUnit?: string
  samples: Sample[]
}

/** Somebody who is not in the table, or what was not done, and what it would need. */
export type Missing = { system: string; why: string }

export type Measured = {
  rows: Row[]
  /** Whom the others are compared with, in the order of their columns. */
  peers: string[]
  missing: Missing[]
  notes?: string[]
}

/** Smallest number that `part` (0 to 1) of them do not exceed; NaN of none. */
export function quantile(numbers: readonly number[], part: number): number {
  const sorted = numbers.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN
}

/** Middle number, or the mean of the two in the middle; NaN of none. */
export function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1
    ? (sorted[middle] ?? Number.NaN)
    : ((sorted[middle - 1] ?? Number.NaN) + (sorted[middle] ?? Number.NaN)) / 2
}

/** Whether more of a unit is better. */
export const isRate = (unit: string): boolean => unit.endsWith('/s')

/**
 * How many times as good a row is as its peer: the median over the rounds that both have, each
 * compared with what the peer did in the same round. Null without such a round or of two units.
 */
export function ratio(row: Row, peer: Row): number | null {
  if (row.unit !== peer.unit) return null
  const theirs = new Map(peer.samples.map(({ round, value }) => [round, value]))
  const ratios = row.samples.flatMap(({ round, value }) => {
    const other = theirs.get(round)
    if (other === undefined) return []
    const times = isRate(row.unit) ? value / other : other / value
    // of nothing at all there is no ratio
    return Number.isFinite(times) ? [times] : []
  })
  return ratios.length === 0 ? null : median(ratios)
}

/** The peer's row for the same thing; a peer that does one thing only is compared by that. */
function rowOf(peer: string, of: Row, rows: readonly Row[]): Row | undefined {
  const theirs = rows.filter((row) => row.system === peer)
  return theirs.find((row) => row.what === of.what) ?? (theirs.length === 1 ? theirs[0] : undefined)
}

export function summarise(row: Row) {
  const of = (pick: (sample: Sample) => number | undefined) =>
    row.samples.flatMap((sample) => pick(sample) ?? [])
  const values = of((sample) => sample.value)
  const [cpu, p99] = [of((sample) => sample.cpu), of((sample) => sample.p99)]
  return {
    ...row,
    median: median(values),
    min: Math.min(...values),
    max: Math.max(...values),
    cpu: cpu.length === 0 ? null : median(cpu),
    p99: p99.length === 0 ? null : median(p99),
  }
}

/** Three digits that say something. */
export function digits(value: number): string {
  const size = Math.abs(value)
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 0.1 || size === 0 ? 2 : 3)
}

/** One line for each row, in order of what was done; columns that nobody has are left out. */
export function tableOf(title: string, { rows, peers, missing, notes }: Measured): Table {
  const present = peers.filter((peer) => rows.some(({ system }) => system === peer))
  const whats = [...new Set(rows.map(({ what }) => what))]
  const lines = whats.flatMap((what) =>
    rows
      .filter((row) => row.what === what)
      .map((row): [string, string][] => {
        const { median, min, max, cpu, p99 } = summarise(row)
        return [
          ['what', what],
          ['system', row.system],
          ['median', `${digits(median)} ${row.unit}`],
          ['min – max', `${digits(min)} – ${digits(max)}`],
          ['CPU', cpu === null ? '' : `${digits(cpu)} ${row.cpuUnit ?? ''}`.trim()],
          ['p99 ms', p99 === null ? '' : digits(p99)],
          ...present.map((peer): [string, string] => {
            const other = row.system === peer ? undefined : rowOf(peer, row, rows)
            const found = other === undefined ? null : ratio(row, other)
            return [`× ${peer}`, found === null ? '' : digits(found)]
          }),
        ]
      }),
  )
  for (const { system, why } of missing)
    lines.push([
      ['what', '–'],
      ['system', system],
      ['median', `not measured: ${why}`],
    ])
  const heads = ['what', 'system', 'median', 'min – max', 'CPU', 'p99 ms']
  const columns = [...heads, ...present.map((peer) => `× ${peer}`)].filter((column) =>
    lines.some((line) => line.some(([name, cell]) => name === column && cell !== '')),
  )
  const rounds = Math.max(0, ...rows.map(({ samples }) => samples.length))
  return {
    title: `${title}, ${rounds} ${rounds === 1 ? 'round' : 'rounds'}`,
    columns,
    rows: lines.map((line) =>
      columns.map((column) => line.find(([name]) => name === column)?.[1] ?? ''),
    ),
    ...(notes === undefined ? {} : { notes }),
  }
}

/** The table in Markdown, under its title. */
export function markdown({ title, columns, rows, notes = [] }: Table): string {
  const escaped = (cell: Cell) =>
    (cell === null
      ? ''
      : typeof cell === 'string'
        ? cell
        : Number.isInteger(cell)
          ? String(cell)
          : digits(cell)
    )
      .replaceAll('|', '\\|')
      .replaceAll('\n', ' ')
  const lines = [columns, columns.map(() => '---'), ...rows.map((row) => row.map(escaped))]
  const table = lines.map((cells) => `| ${cells.join(' | ')} |`).join('\n')
  return [`### ${title}`, table, ...notes].join('\n\n')
}
