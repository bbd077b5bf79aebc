/** What suites have in common that are run in workerd. */
import { beforeEach, describe } from 'vitest'

/** Why a test that answers before the body is there cannot run here. */
export const RESET =
  'workerd resets a connection whose client sends on after the answer; at Cloudflare the edge takes the body'

/** Why links cannot follow X-Forwarded-* there. */
export const NO_PROXY =
  'Workers have no peer that forwards: Host is that of the edge, or SREG_PUBLIC_URL'

/** Suites but for what the platform itself makes impossible: reasons by the title of the test. */
export function describeInWorkers(impossible: Record<string, string>, suites: () => void): void {
  describe('Workers', () => {
    beforeEach(({ skip, task }) => {
      const reason = impossible[task.name]
      if (reason !== undefined) skip(reason)
    })
    suites()
  })
}
