/** The protocol suites in workerd over TCP, with D1 and R2. */
import { beforeEach, describe } from 'vitest'
import { describeAuditLog } from '../protocol/audit.ts'
import { describeKeystore } from '../protocol/hkp.ts'
import { describeTeams } from '../protocol/teams.ts'
import { describeLibrary } from '../protocol/library.ts'
import { describeMoving } from '../protocol/moving.ts'
import { describeOciRules } from '../protocol/oci-rules.ts'
import { describeBridge } from '../protocol/bridge.ts'
import { describeOci } from '../protocol/oci.ts'
import { describeOciGarbage } from '../protocol/oci-garbage.ts'
import { describeOciLoad } from '../protocol/oci-load.ts'
import { describeOciAuth } from '../protocol/oci-auth.ts'
import { describePeople } from '../protocol/people.ts'
import { describePolicy } from '../protocol/policy.ts'
import { describeQuotas } from '../protocol/quotas.ts'
import { describeShares } from '../protocol/shares.ts'
import { describeShub } from '../protocol/shub.ts'
import { RESET, workersTarget } from './workers-target.ts'

const NO_PROXY = 'Workers have no peer that forwards: Host is that of the edge, or SREG_PUBLIC_URL'
/** What the platform itself makes impossible, by title. */
const IMPOSSIBLE: Record<string, string> = {
  'links follow X-Forwarded-* of a trusted peer, its last hop (R33)': NO_PROXY,
  'of more than 4 MiB are refused': RESET,
  'the address follows X-Forwarded-* of a trusted peer (R33)': NO_PROXY,
  'the realm is where a trusted proxy says, and a Host that is none is 400 (R33)': NO_PROXY,
}

describe('Workers', () => {
  beforeEach(({ skip, task }) => {
    const reason = IMPOSSIBLE[task.name]
    if (reason !== undefined) skip(reason)
  })
  describeLibrary('Workers', workersTarget)
  describeKeystore('Workers', workersTarget)
  describePeople('Workers', workersTarget)
  describeTeams('Workers', workersTarget, 'tickets outlive the right to read in workerd (R25)')
  describeMoving('Workers', workersTarget, { images: 50 })
  describePolicy('Workers', workersTarget)
  describeOci('Workers', workersTarget)
  describeOciRules('Workers', workersTarget, /^$/)
  describeOciGarbage('Workers', workersTarget)
  describeOciLoad('Workers', workersTarget)
  describeBridge('Workers', workersTarget)
  describeOciAuth('Workers', workersTarget, { clientIs: 'cf-connecting-ip' })
  describeQuotas('Workers', workersTarget)
  describeShares('Workers', workersTarget)
  describeShub('Workers', workersTarget)
  // the edge of Cloudflare names the client, workerd on its own does not
  describeAuditLog('Workers', workersTarget, /^$/)
})
