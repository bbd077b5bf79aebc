/** What the benchmark can do is what its page says. */
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { CASES } from '../../bench/cases.ts'

test('docs/benchmarks.md has a line for every case, in their order, and for no other', () => {
  const page = readFileSync(new URL('../../docs/benchmarks.md', import.meta.url), 'utf8')
  const named = [...page.matchAll(/^\| `([a-z]+)` \|/gm)].map(([, name]) => name)
  expect(named).toEqual(Object.keys(CASES))
})

test('docs/benchmarks.md says how many rounds a case has: five up to `large`, three of the others', () => {
  const page = readFileSync(new URL('../../docs/benchmarks.md', import.meta.url), 'utf8')
  expect(page).toContain('`pull` to `large`, in five rounds; those after them are run in three')
  const names = Object.keys(CASES)
  const large = names.indexOf('large')
  const usual = (at: number) => (at === large ? 1 : at < large ? 5 : 3)
  const found = names.map((name) => [name, CASES[name]?.rounds ?? 5])
  expect(found).toEqual(names.map((name, at) => [name, usual(at)]))
})
