/** The protocol suites on Deno over TCP. */
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

describeLibrary('Deno', (options) => hostTarget('deno', options))
describeKeystore('Deno', (options) => hostTarget('deno', options))
describePeople('Deno', (options) => hostTarget('deno', options))
describeTeams('Deno', (options) => hostTarget('deno', options))
describeMoving('Deno', () => hostTarget('deno'))
describePolicy('Deno', (options) => hostTarget('deno', options))
describeOci('Deno', (options) => hostTarget('deno', options))
describeOciRules('Deno', (options) => hostTarget('deno', options))
describeOciGarbage('Deno', (options) => hostTarget('deno', options))
describeOciLoad('Deno', (options) => hostTarget('deno', options))
describeBridge('Deno', (options) => hostTarget('deno', options))
describeOciAuth('Deno', (options) => hostTarget('deno', options))
describeQuotas('Deno', (options) => hostTarget('deno', options))
describeShares('Deno', (options) => hostTarget('deno', options))
describeShub('Deno', (options) => hostTarget('deno', options))
describeAuditLog('Deno', (options) => hostTarget('deno', options))
