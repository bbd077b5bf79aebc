/** Hostile input in workerd over TCP, with nothing beside it: every answer has a second. */
import { describeBadInput } from '../protocol/bad-input.ts'
import { describeOciAbuse } from '../protocol/oci-abuse.ts'
import { rssOf } from './host-target.ts'
import { describeInWorkers, RESET } from './workers-suites.ts'
import { workersTarget, type WorkersTarget } from './workers-target.ts'

const PARSER =
  'HTTP is parsed by workerd here, by the edge of Cloudflare there, with limits of their own'
const IMPOSSIBLE = {
  'JSON of 50 MB is refused before it is buffered (R54)': RESET,
  '100,000 levels and a million keys do not fit (R54)': RESET,
  'large headers and addresses': PARSER,
  'requests that are no HTTP': PARSER,
}

/** The one that all tests of bad input share; one of them starts a second. */
let shared: WorkersTarget | null = null

describeInWorkers(IMPOSSIBLE, () => {
  describeOciAbuse('Workers', workersTarget)
  describeBadInput(
    'Workers',
    async (options) => {
      const target = await workersTarget(options)
      shared ??= target
      return target
    },
    () => (shared === null ? 0 : rssOf(shared.workerd())),
  )
})
