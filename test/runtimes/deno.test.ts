/** The protocol suites on Deno over TCP. */
import { describeBadInput } from '../protocol/bad-input.ts'
import { describeKeystore } from '../protocol/hkp.ts'
import { describeLibrary } from '../protocol/library.ts'
import { describeMoving } from '../protocol/moving.ts'
import { describeOci } from '../protocol/oci.ts'
import { describePolicy } from '../protocol/policy.ts'
import { hostTarget, rssOf, type HostTarget } from './host-target.ts'

describeLibrary('Deno', (options) => hostTarget('deno', options))
describeKeystore('Deno', (options) => hostTarget('deno', options))
describeMoving('Deno', () => hostTarget('deno'))
describePolicy('Deno', (options) => hostTarget('deno', options))
describeOci('Deno', (options) => hostTarget('deno', options))

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
