/** The protocol suites in workerd over TCP, with D1 and R2. */
import { describeBadInput } from '../protocol/bad-input.ts'
import { describeLibrary } from '../protocol/library.ts'
import { rssOf } from './host-target.ts'
import { workersTarget, type WorkersTarget } from './workers-target.ts'

describeLibrary('Workers', workersTarget)

let last: WorkersTarget | null = null
describeBadInput(
  'Workers',
  async (options) => (last = await workersTarget(options)),
  () => (last === null ? 0 : rssOf(last.workerd)),
)
