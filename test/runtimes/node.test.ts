/** The protocol suites on Node over TCP. */
import { describeAuditLog } from '../protocol/audit.ts'
import { describeKeystore } from '../protocol/hkp.ts'
import { describeTeams } from '../protocol/teams.ts'
import { describeLibrary } from '../protocol/library.ts'
import { describeManage } from '../protocol/manage.ts'
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
import { nodeTarget } from './target.ts'

describeLibrary('Node', nodeTarget)
describeManage('Node', nodeTarget)
describePeople('Node', nodeTarget)
describeKeystore('Node', nodeTarget)
describeTeams('Node', nodeTarget)
describeMoving('Node', nodeTarget)
describePolicy('Node', nodeTarget)
describeOci('Node', nodeTarget)
describeOciRules('Node', nodeTarget)
describeOciGarbage('Node', nodeTarget)
describeOciLoad('Node', nodeTarget)
describeBridge('Node', nodeTarget)
describeOciAuth('Node', nodeTarget)
describeQuotas('Node', nodeTarget)
describeShares('Node', nodeTarget)
describeShub('Node', nodeTarget)
describeAuditLog('Node', nodeTarget)
