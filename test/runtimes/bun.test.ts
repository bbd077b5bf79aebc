/** The protocol suites on Bun over TCP. */
import { describeBadInput } from '../protocol/bad-input.ts'
import { describeLibrary } from '../protocol/library.ts'
import { hostTarget, rssOf, type HostTarget } from './host-target.ts'

describeLibrary('Bun', (options) => hostTarget('bun', options))

let last: HostTarget | null = null
describeBadInput(
  'Bun',
  async (options) => (last = await hostTarget('bun', options)),
  () => (last === null ? 0 : rssOf(last.process.pid)),
)
