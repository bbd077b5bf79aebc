/** What waits for the end of a turn of the event loop. */
import { setImmediate as turn } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { atEndOfTurn, endTurn } from '../../adapters/host/turn.ts'

const MANY = 1000

/** Gives jobs away that write down their numbers. */
function give(count: number): number[] {
  const done: number[] = []
  for (let number = 0; number < count; number++) atEndOfTurn(() => void done.push(number))
  return done
}
const upTo = (count: number) => Array.from({ length: count }, (_, number) => number)

test('jobs wait for the end of the turn, and are done in their order', async () => {
  const done = give(3)
  await Promise.resolve()
  expect(done).toEqual([])
  await turn()
  expect(done).toEqual([0, 1, 2])
})

test('what a job gives away is done one turn later, and nothing twice', async () => {
  const done: string[] = []
  atEndOfTurn(() => {
    done.push('first')
    atEndOfTurn(() => void done.push('second'))
  })
  await turn()
  expect(done).toEqual(['first'])
  await turn()
  await turn()
  expect(done).toEqual(['first', 'second'])
})

test('of very many the first do not wait for the last', async () => {
  const done = give(MANY)
  expect(done.length).toBeGreaterThan(MANY / 2)
  await turn()
  expect(done).toEqual(upTo(MANY))
})

test('who cannot wait ends the turn for all', () => {
  const done = give(3)
  endTurn()
  expect(done).toEqual([0, 1, 2])
})
