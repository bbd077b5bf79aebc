/** The real client against the registry in workerd, with D1 and R2. */
import { workersTarget } from '../runtimes/workers-target.ts'
import { describeKeystoreClients } from './keystore.ts'
import { describeQuotaClient } from './quotas.ts'
import { describeRoles } from './roles.ts'
import { describeSigning } from './signing.ts'
import { describeClient, describeOneTag, describeRangeFailures } from './suite.ts'

describeClient('Workers', () => workersTarget(), {
  skip: { 'a full disk, when the upload opens': 'R2 has no end that anybody could run into' },
})
describeKeystoreClients('Workers', workersTarget)
describeRangeFailures('Workers', () => workersTarget())
describeOneTag('Workers', () => workersTarget())
// wrangler.toml leaves signatures unchecked, as the free plan's CPU time asks.
describeSigning('Workers', () => workersTarget({ env: { SREG_CHECK_SIGNATURES: 'on' } }))
describeQuotaClient('Workers', workersTarget)
describeRoles('Workers', workersTarget)
