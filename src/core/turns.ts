/** Long loops give way to the work of others. */

/**
 * Resolves when what waits for the event loop has had its turn. The databases of hosts answer at once,
 * so that a loop over them would otherwise let no request through until its end.
 */
export function letOthersRun(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0))
}
