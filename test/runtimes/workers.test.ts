/** The protocol suites in workerd over TCP, with D1 and R2, but for those of workers-oci.test.ts. */
import { describeAuditLog } from '../protocol/audit.ts'
import { describeKeystore } from '../protocol/hkp.ts'
import { describeTeams } from '../protocol/teams.ts'
import { describeLibrary } from '../protocol/library.ts'
import { describePeople } from '../protocol/people.ts'
import { describePolicy } from '../protocol/policy.ts'
import { describeQuotas } from '../protocol/quotas.ts'
import { describeShares } from '../protocol/shares.ts'
import { describeShub } from '../protocol/shub.ts'
import { describeInWorkers, NO_PROXY } from './workers-suites.ts'
import { workersTarget } from './workers-target.ts'

const IMPOSSIBLE = {
  'links follow X-Forwarded-* of a trusted peer, its last hop (R33)': NO_PROXY,
  'the address follows X-Forwarded-* of a trusted peer (R33)': NO_PROXY,
}

describeInWorkers(IMPOSSIBLE, () => {
  describeLibrary('Workers', workersTarget)
  describeKeystore('Workers', workersTarget)
  describePeople('Workers', workersTarget)
  describeTeams('Workers', workersTarget, 'tickets outlive the right to read in workerd (R25)')
  describePolicy('Workers', workersTarget)
  describeQuotas('Workers', workersTarget)
  describeShares('Workers', workersTarget)
  describeShub('Workers', workersTarget)
  // the edge of Cloudflare names the client, workerd on its own does not
  describeAuditLog('Workers', workersTarget, /^$/)
})
