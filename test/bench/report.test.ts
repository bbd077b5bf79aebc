/** The benchmark's arithmetic and tables: a wrong ratio would be believed. */
import { describe, expect, test } from 'vitest'
import { parseWrk } from '../../bench/measure.ts'
import { inRounds, recorder, rotate } from '../../bench/rounds.ts'
import { digits, markdown, median, quantile, ratio, tableOf, type Row } from '../../bench/report.ts'

const row = (what: string, system: string, unit: string, ...values: number[]): Row => ({
  what,
  system,
  unit,
  samples: values.map((value, round) => ({ round, value })),
})

describe('numbers', () => {
  test.each([
    [[3], 3],
    [[5, 1, 3], 3],
    [[10, 2, 4, 100], 7],
  ])('median of %j is %d', (numbers, expected) => {
    expect(median(numbers)).toBe(expected)
  })

  test('median and quantile of nothing are no numbers', () => {
    expect(median([])).toBeNaN()
    expect(quantile([], 0.99)).toBeNaN()
  })

  test('quantile: how much so many do not exceed, in whatever order they come', () => {
    const hundred = Array.from({ length: 100 }, (_, index) => 100 - index)
    expect(quantile(hundred, 0.5)).toBe(51)
    expect(quantile(hundred, 0.99)).toBe(100)
    expect(quantile(hundred, 1)).toBe(100)
  })

  test('digits: three that say something', () => {
    expect([1234.5, 12.345, 1.2345, 0.012345, 0].map(digits)).toEqual([
      '1235',
      '12.3',
      '1.23',
      '0.012',
      '0.00',
    ])
  })
})

describe('ratios', () => {
  test('of rates: more is better; each round is compared with its own', () => {
    // of medians it would be 1
    const ours = row('a', 'ours', 'MiB/s', 100, 200, 300)
    const theirs = row('a', 'theirs', 'MiB/s', 200, 100, 600)
    expect(ratio(ours, theirs)).toBe(0.5)
  })

  test('of times: less is better', () => {
    expect(ratio(row('a', 'ours', 'ms', 2, 2), row('a', 'theirs', 'ms', 6, 6))).toBe(3)
  })

  test('rounds that one of them lacks do not count', () => {
    const theirs = { ...row('a', 'theirs', 'ms', 10), samples: [{ round: 1, value: 10 }] }
    expect(ratio(row('a', 'ours', 'ms', 1, 5), theirs)).toBe(2)
    expect(ratio(row('a', 'ours', 'ms', 1), theirs)).toBeNull()
  })

  test('of different units there is none', () => {
    expect(ratio(row('a', 'ours', 'ms', 1), row('a', 'theirs', 's', 1))).toBeNull()
  })
})

describe('tables', () => {
  test('rows of one kind stand together; peers get a column, who is missing a line', () => {
    const rows = [
      row('one', 'ours', 'MiB/s', 30, 10, 20),
      row('two', 'ours', 'MiB/s', 4),
      row('one', 'peer', 'MiB/s', 10, 10, 10),
    ]
    const missing = [{ system: 'zot', why: 'build it' }]
    const table = tableOf('pull', { rows, peers: ['peer', 'nobody'], missing, notes: ['note'] })
    expect(table.columns).toEqual(['what', 'system', 'median', 'min – max', '× peer'])
    expect(table.rows).toEqual([
      ['one', 'ours', '20.0 MiB/s', '10.0 – 30.0', '2.00'],
      ['one', 'peer', '10.0 MiB/s', '10.0 – 10.0', ''],
      // the peer does one thing only: all are compared with that
      ['two', 'ours', '4.00 MiB/s', '4.00 – 4.00', '0.40'],
      ['–', 'zot', 'not measured: build it', '', ''],
    ])
    expect(markdown(table).split('\n').slice(0, 5)).toEqual([
      '### pull, 3 rounds',
      '',
      '| what | system | median | min – max | × peer |',
      '| --- | --- | --- | --- | --- |',
      '| one | ours | 20.0 MiB/s | 10.0 – 30.0 | 2.00 |',
    ])
    expect(markdown(table)).toMatch(/\n\nnote$/)
  })

  test('a peer that does several things is compared with none that it does not', () => {
    const rows = [
      row('one', 'ours', 'ms', 1),
      row('two', 'peer', 'ms', 2),
      row('three', 'peer', 'ms', 3),
    ]
    expect(tableOf('t', { rows, peers: ['peer'], missing: [] }).columns).toEqual([
      'what',
      'system',
      'median',
      'min – max',
    ])
  })

  test('processor time and the slowest in a hundred are medians of their own', () => {
    const samples = [
      { round: 0, value: 1, cpu: 4, p99: 10 },
      { round: 1, value: 2, cpu: 2, p99: 30 },
      { round: 2, value: 3, cpu: 3, p99: 20 },
    ]
    const rows = [{ what: 'a', system: 'ours', unit: 'requests/s', cpuUnit: 'µs', samples }]
    expect(tableOf('t', { rows, peers: [], missing: [] }).rows).toEqual([
      ['a', 'ours', '2.00 requests/s', '1.00 – 3.00', '3.00 µs', '20.0'],
    ])
  })

  test('a cell cannot break its row', () => {
    const text = markdown({ title: 't', columns: ['a'], rows: [['x | y\nz'], [1000], [1 / 3]] })
    expect(text.split('\n').slice(4)).toEqual(['| x \\| y z |', '| 1000 |', '| 0.33 |'])
  })
})

describe('the load', () => {
  const printed = (slowest: string) =>
    `Running 2s test\n  Latency Distribution\n     50%    1.53ms\n     99%  ${slowest}\n  37146 requests in 2.00s\nRequests/sec:  18559.31\nTransfer/sec:      9.10MB\n`

  test.each([
    ['  5.40ms', 5.4],
    ['918.00us', 0.918],
    ['  1.02s', 1020],
  ])('wrk says %s', (slowest, p99) => {
    expect(parseWrk(printed(slowest))).toEqual({ rate: 18559.31, p99: expect.closeTo(p99, 9) })
  })

  test('what is not from wrk is no number', () => {
    expect(() => parseWrk('unable to connect')).toThrow('not from wrk')
    expect(() => parseWrk('Requests/sec: 12')).toThrow('not from wrk')
  })

  test.each([
    { until: Number.POSITIVE_INFINITY, done: [0, 1, 2] },
    { until: 0, done: [0] },
  ])('with time until $until of three rounds are done: $done', async ({ until, done }) => {
    const begun: number[] = []
    const noted: string[] = []
    const bench = { rounds: 3, until, say: () => {}, note: (line: string) => noted.push(line) }
    await inRounds(bench, async (round) => {
      begun.push(round)
    })
    expect(begun).toEqual(done)
    expect(noted).toEqual(done.length === 3 ? [] : ['Time was up after 1 of 3 rounds.'])
  })

  test('time that runs out in a round ends it: what was measured counts, and it is said', async () => {
    const noted: string[] = []
    const bench = { rounds: 3, until: Infinity, say: () => {}, note: (line: string) => noted.push(line) } // prettier-ignore
    const { rows, add } = recorder(bench)
    await inRounds(bench, async (round) => {
      for (const system of ['ours', 'theirs', 'nobody’s']) {
        if (round === 1 && system === 'theirs') bench.until = 0
        add({ what: 'a', system, unit: 'ms' }, { round, value: 1 })
      }
    })
    expect(rows.map(({ system, samples }) => [system, samples.length])).toEqual([
      ['ours', 2],
      ['theirs', 2],
      ['nobody’s', 1],
    ])
    expect(noted).toEqual(['Time was up in round 2 of 3, which is not whole.'])
  })

  test('another failure of a round is none of time', async () => {
    const bench = { rounds: 3, until: 0, say: () => {}, note: () => {} }
    const broken = inRounds(bench, () => Promise.reject(new Error('a byte differs')))
    await expect(broken).rejects.toThrow('a byte differs')
  })

  test('every round begins with another one, and leaves nobody out', () => {
    expect([0, 1, 2, 3].map((round) => rotate(['a', 'b', 'c'], round).join(''))).toEqual([
      'abc',
      'bca',
      'cab',
      'abc',
    ])
  })
})
