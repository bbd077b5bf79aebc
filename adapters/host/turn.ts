/**
 * Answers of one turn of the event loop leave together, at its end. One by one each would wake its reader, who
 * sleeps again before the next one comes; over loopback the waking costs more than the answer
 * (docs/performance.md, "A lookup").
 */

/** Of a thousand clients who ask at once the first do not wait for the last. */
const MOST = 128

let jobs: (() => void)[] = []

/**
 * Calls `job` once this turn has looked at all that had arrived, or when MOST of them wait; in the order in
 * which they were given.
 */
export function atEndOfTurn(job: () => void): void {
  const waiting = jobs.push(job)
  if (waiting === 1) setImmediate(endTurn)
  else if (waiting === MOST) endTurn()
}

/** Calls what waits now. */
export function endTurn(): void {
  const due = jobs
  jobs = []
  for (const job of due) job()
}
