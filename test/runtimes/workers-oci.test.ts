/** The suites of OCI and of export and import in workerd over TCP, with D1 and R2. */
import { describeBridge } from '../protocol/bridge.ts'
import { describeMoving } from '../protocol/moving.ts'
import { describeOciAuth } from '../protocol/oci-auth.ts'
import { describeOciGarbage } from '../protocol/oci-garbage.ts'
import { describeOciLoad } from '../protocol/oci-load.ts'
import { describeOciRules } from '../protocol/oci-rules.ts'
import { describeOci } from '../protocol/oci.ts'
import { describeInWorkers, NO_PROXY, RESET } from './workers-suites.ts'
import { workersTarget } from './workers-target.ts'

const IMPOSSIBLE = {
  'of more than 4 MiB are refused': RESET,
  'the realm is where a trusted proxy says, and a Host that is none is 400 (R33)': NO_PROXY,
}

describeInWorkers(IMPOSSIBLE, () => {
  describeOci('Workers', workersTarget)
  describeOciRules('Workers', workersTarget, /^$/)
  describeOciGarbage('Workers', workersTarget)
  describeOciLoad('Workers', workersTarget)
  describeOciAuth('Workers', workersTarget, { clientIs: 'cf-connecting-ip' })
  describeBridge('Workers', workersTarget)
  describeMoving('Workers', workersTarget, { images: 50 })
})
