/** Hostile input on Deno over TCP, with nothing beside it: every answer has a second. */
import { describeBadInput } from '../protocol/bad-input.ts'
import { describeOciAbuse } from '../protocol/oci-abuse.ts'
import { hostTarget, rssOf, type HostTarget } from './host-target.ts'

describeOciAbuse('Deno', (options) => hostTarget('deno', options))

let first: HostTarget | null = null
describeBadInput(
  'Deno',
  async (options) => {
    const target = await hostTarget('deno', options)
    first ??= target
    return target
  },
  () => (first === null ? 0 : rssOf(first.process.pid)),
)
