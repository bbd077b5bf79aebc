/** The protocol suites on Bun over TCP. */
import { describeBadInput } from '../protocol/bad-input.ts'
import { describeKeystore } from '../protocol/hkp.ts'
import { describeLibrary } from '../protocol/library.ts'
import { describeMoving } from '../protocol/moving.ts'
import { describeOci } from '../protocol/oci.ts'
import { describePolicy } from '../protocol/policy.ts'
import { hostTarget, rssOf, type HostTarget } from './host-target.ts'

describeLibrary('Bun', (options) => hostTarget('bun', options))
describeKeystore('Bun', (options) => hostTarget('bun', options))
describeMoving('Bun', () => hostTarget('bun'))
describePolicy('Bun', (options) => hostTarget('bun', options))
describeOci('Bun', (options) => hostTarget('bun', options))

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
