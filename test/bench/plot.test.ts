/** The plots: lengths in proportion, and nothing that a name could break. */
import { expect, test } from 'vitest'
import { bars, curves, curvesOf } from '../../bench/plot.ts'
import type { Row } from '../../bench/report.ts'

const row = (what: string, system: string, ...values: number[]): Row => ({
  what,
  system,
  unit: 'MiB/s',
  samples: values.map((value, round) => ({ round, value })),
})

/** Every attribute `name` of the elements `tag`, as numbers. */
const numbers = (svg: string, tag: string, name: string) =>
  [...svg.matchAll(new RegExp(`<${tag} [^>]*?\\b${name}="([\\d.]+)"`, 'g'))].map(toNumber)
const toNumber = (match: RegExpExecArray) => Number(match[1])

test('bars are as long as their medians, each kind on a scale of its own', () => {
  const svg = bars('pull', [
    row('one', 'ours', 100, 50, 75),
    row('one', 'theirs', 25, 25, 25),
    row('two', 'ours', 1, 1, 1),
  ])
  const [longest = 0, shorter = 0, alone = 0] = numbers(svg, 'rect', 'width').filter(
    (width) => width > 0 && width !== 100,
  )
  expect(longest / shorter).toBeCloseTo(3, 1)
  // 1 of 1, beside 75 of 100
  expect(alone / longest).toBeCloseTo(4 / 3, 1)
  expect(svg).toContain('75.0 MiB/s')
  expect(svg).toContain('one (more is better)')
})

test('a name cannot leave its text', () => {
  const svg = bars('<script>"&', [row('a<b', 'c"d', 1)])
  expect(svg).not.toContain('<script>')
  expect(svg).toContain('&#60;script&#62;&#34;&#38;')
  expect(svg.match(/<svg/g)).toHaveLength(1)
})

test('all that was measured is 0: there is a plot', () => {
  expect(bars('t', [row('a', 'b', 0, 0)])).not.toMatch(/NaN|Infinity/)
  expect(curves('t', { x: 'x', y: 'y' }, [{ name: 'a', points: [[1, 0]] }])).not.toMatch(
    /NaN|Infinity/,
  )
})

test('curves: sizes are as far apart as their logarithms, values as themselves', () => {
  const svg = curves('growth', { x: 'images', y: 'ms' }, [
    { name: 'lookup', points: [[1000, 1], [100_000, 2], [1_000_000, 4]] }, // prettier-ignore
  ])
  const [x1 = 0, x2 = 0, x3 = 0] = numbers(svg, 'circle', 'cx')
  expect((x2 - x1) / (x3 - x2)).toBeCloseTo(2, 1)
  const [y1 = 0, y2 = 0, y3 = 0] = numbers(svg, 'circle', 'cy')
  expect((y1 - y2) / (y2 - y3)).toBeCloseTo(0.5, 1)
  expect(svg).toContain('1,000,000')
  expect(svg).toContain('lookup')
})

test('a table becomes curves by the names of its columns; what is no number has no point', () => {
  const columns = ['case', 'images', 'median ms']
  const rows = [
    ['lookup', 1000, 1],
    ['search', 1000, 5],
    ['lookup', 100_000, 2],
    ['sweep', 1000, null],
    ['push', '', 3],
    ['lookup', 0, 9],
  ]
  const curve = { name: 'case', x: 'images', y: 'median ms' }
  expect(curvesOf({ title: 't', columns, rows, curve })).toEqual([
    { name: 'lookup', points: [[1000, 1], [100_000, 2]] }, // prettier-ignore
    { name: 'search', points: [[1000, 5]] },
  ])
  expect(curvesOf({ title: 't', columns, rows })).toEqual([])
})
