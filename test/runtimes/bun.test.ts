/** The protocol suites on Bun over TCP. */
import { describeBadInput } from '../protocol/bad-input.ts'
import { describeLibrary } from '../protocol/library.ts'
import { hostTarget, rssOf, type HostTarget } from './host-target.ts'

describeLibrary('Bun', (options) => hostTarget('bun', options))

let first: HostTarget | null = null
describeBadInput(
  'Bun',
  async (options) => {
    const target = await hostTarget('bun', options)
    first ??= target
    return target
  },
  () => (first === null ? 0 : rssOf(first.process.pid)),
)
