/** The protocol suites on Node over TCP. */
import { describeBadInput } from '../protocol/bad-input.ts'
import { describeKeystore } from '../protocol/hkp.ts'
import { describeLibrary } from '../protocol/library.ts'
import { describeManage } from '../protocol/manage.ts'
import { describeMoving } from '../protocol/moving.ts'
import { describeOci } from '../protocol/oci.ts'
import { describePolicy } from '../protocol/policy.ts'
import { nodeTarget } from './target.ts'

describeLibrary('Node', nodeTarget)
describeManage('Node', nodeTarget)
describeKeystore('Node', nodeTarget)
describeMoving('Node', nodeTarget)
describePolicy('Node', nodeTarget)
describeOci('Node', nodeTarget)
describeBadInput('Node', nodeTarget, () => process.memoryUsage().rss)
