/** The protocol suites on Deno over TCP. */
import { describeBadInput } from '../protocol/bad-input.ts'
import { describeLibrary } from '../protocol/library.ts'
import { hostTarget, rssOf, type HostTarget } from './host-target.ts'

describeLibrary('Deno', (options) => hostTarget('deno', options))

let last: HostTarget | null = null
describeBadInput(
  'Deno',
  async (options) => (last = await hostTarget('deno', options)),
  () => (last === null ? 0 : rssOf(last.process.pid)),
)
