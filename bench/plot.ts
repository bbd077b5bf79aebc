/** Plots as SVG: bars with their spread for what was compared, curves for what grows. */
import { digits, isRate, summarise, type Row, type Table } from './report.ts'

const COLOURS = ['#4269d0', '#efb118', '#ff725c', '#6cc5b0', '#3ca951', '#a463f2', '#97bbf5']
const FONT = 'font-family="system-ui, sans-serif" font-size="12"'
const WIDTH = 860
/** Where bars begin, and where the longest ends. */
const LEFT = 330
const RIGHT = WIDTH - 140
const BAR = 18

const escaped = (text: string) => text.replace(/[&<>"]/g, (c) => `&#${String(c.charCodeAt(0))};`)

const text = (x: number, y: number, words: string, more = '') =>
  `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${more}>${escaped(words)}</text>`

const line = (x1: number, y1: number, x2: number, y2: number, colour: string) =>
  `<path d="M${x1.toFixed(1)} ${y1.toFixed(1)}L${x2.toFixed(1)} ${y2.toFixed(1)}" stroke="${colour}"/>`

function svg(title: string, height: number, parts: string[]): string {
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" ${FONT} role="img">`,
    `<title>${escaped(title)}</title>`,
    '<rect width="100%" height="100%" fill="white"/>',
    text(12, 22, title, 'font-size="15" font-weight="600"'),
    ...parts,
    '</svg>\n',
  ].join('\n')
}

/**
 * One bar for each row as long as its median, with a line from the smallest to the largest value.
 * What was done stands above its bars, which share one scale.
 */
export function bars(title: string, rows: readonly Row[]): string {
  const systems = [...new Set(rows.map(({ system }) => system))]
  const parts: string[] = []
  let y = 40
  for (const what of new Set(rows.map((row) => row.what))) {
    const group = rows.filter((row) => row.what === what).map(summarise)
    const better = isRate(group[0]?.unit ?? '') ? 'more' : 'less'
    parts.push(text(12, (y += 14), `${what} (${better} is better)`, 'font-weight="600"'))
    y += 8
    const most = Math.max(...group.map(({ max }) => max))
    const at = (value: number) => LEFT + (most > 0 ? (value / most) * (RIGHT - LEFT) : 0)
    for (const { system, median, min, max, unit } of group) {
      const colour = COLOURS[systems.indexOf(system) % COLOURS.length] ?? 'grey'
      const middle = y + (BAR - 4) / 2
      parts.push(
        text(LEFT - 8, middle + 4, system, 'text-anchor="end"'),
        `<rect x="${LEFT}" y="${y}" width="${(at(median) - LEFT).toFixed(1)}" height="${BAR - 4}" fill="${colour}"/>`,
        line(at(min), middle, at(max), middle, 'black'),
        text(at(Math.max(median, max)) + 6, middle + 4, `${digits(median)} ${unit}`),
      )
      y += BAR
    }
    y += 8
  }
  return svg(title, y + 8, parts)
}

export type Curve = { name: string; points: [x: number, y: number][] }

/** The curves of a table that names its columns for them; rows without a number, and of size 0, have no point. */
export function curvesOf({ columns, rows, curve }: Table): Curve[] {
  const all = new Map<string, Curve>()
  if (curve === undefined) return []
  const [name, x, y] = [curve.name, curve.x, curve.y].map((column) => columns.indexOf(column))
  for (const row of rows) {
    const [of, at, value] = [row[name ?? -1], row[x ?? -1], row[y ?? -1]]
    if (typeof of !== 'string' || typeof at !== 'number' || typeof value !== 'number') continue
    // an empty one has no place on a logarithmic axis
    if (at < 1) continue
    const points = all.get(of)?.points ?? []
    all.set(of, { name: of, points: [...points, [at, value]] })
  }
  return [...all.values()]
}

const COLUMNS = 3
const PANEL = { width: (WIDTH - 12) / COLUMNS, height: 150 }

/**
 * A small plot for each curve: a logarithmic axis of sizes, from 1 and the same in all of them, and one
 * of values that begins at 0 and is each curve's own.
 */
export function curves(title: string, labels: { x: string; y: string }, all: Curve[]): string {
  const sizes = [...new Set(all.flatMap(({ points }) => points.map(([x]) => x)))].toSorted(
    (a, b) => a - b,
  )
  const [first = 1, last = 10] = [sizes[0], sizes.at(-1)]
  const span = Math.log(last / first) || 1
  const parts = [text(12, 42, `${labels.y} over ${labels.x}, each from 0`, 'fill="#555"')]
  for (const [index, { name, points }] of all.entries()) {
    const left = 12 + (index % COLUMNS) * PANEL.width + 46
    const top = 56 + Math.floor(index / COLUMNS) * PANEL.height + 24
    const [right, bottom] = [left + PANEL.width - 92, top + PANEL.height - 60]
    const most = Math.max(...points.map(([, y]) => y), 0) || 1
    const atX = (x: number) => left + (Math.log(x / first) / span) * (right - left)
    const atY = (y: number) => bottom - (y / most) * (bottom - top)
    const path = points.map(([x, y]) => `${atX(x).toFixed(1)},${atY(y).toFixed(1)}`).join(' ')
    parts.push(
      text(left - 40, top - 10, name, 'font-weight="600" font-size="11"'),
      line(left, top, right, top, '#eee'),
      line(left, bottom, right, bottom, 'grey'),
      text(left - 6, top + 4, digits(most), 'text-anchor="end" font-size="10"'),
      text(left - 6, bottom + 4, '0', 'text-anchor="end" font-size="10"'),
      ...sizes.map((x) =>
        text(atX(x), bottom + 14, x.toLocaleString('en'), 'text-anchor="middle" font-size="10"'),
      ),
      `<polyline points="${path}" fill="none" stroke="${COLOURS[0]}" stroke-width="2"/>`,
      ...points.map(
        ([x, y]) =>
          `<circle cx="${atX(x).toFixed(1)}" cy="${atY(y).toFixed(1)}" r="3" fill="${COLOURS[0]}"/>`,
      ),
    )
  }
  return svg(title, 56 + Math.ceil(all.length / COLUMNS) * PANEL.height + 12, parts)
}
