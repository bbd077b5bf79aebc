/** What the benchmark can do is what its page says. */
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { CASES } from '../../bench/cases.ts'

test('docs/benchmarks.md has a line for every case, in their order, and for no other', () => {
  const page = readFileSync(new URL('../../docs/benchmarks.md', import.meta.url), 'utf8')
  const named = [...page.matchAll(/^\| `([a-z]+)` \|/gm)].map(([, name]) => name)
  expect(named).toEqual(Object.keys(CASES))
})
