/** The protocol suites on Bun over TCP. */
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
import { hostTarget } from './host-target.ts'

describeLibrary('Bun', (options) => hostTarget('bun', options))
describeKeystore('Bun', (options) => hostTarget('bun', options))
describePeople('Bun', (options) => hostTarget('bun', options))
describeTeams('Bun', (options) => hostTarget('bun', options))
describeMoving('Bun', () => hostTarget('bun'))
describePolicy('Bun', (options) => hostTarget('bun', options))
describeOci('Bun', (options) => hostTarget('bun', options))
describeOciRules('Bun', (options) => hostTarget('bun', options))
describeOciGarbage('Bun', (options) => hostTarget('bun', options))
describeOciLoad('Bun', (options) => hostTarget('bun', options))
describeBridge('Bun', (options) => hostTarget('bun', options))
describeOciAuth('Bun', (options) => hostTarget('bun', options))
describeQuotas('Bun', (options) => hostTarget('bun', options))
describeShares('Bun', (options) => hostTarget('bun', options))
describeShub('Bun', (options) => hostTarget('bun', options))
describeAuditLog('Bun', (options) => hostTarget('bun', options))
