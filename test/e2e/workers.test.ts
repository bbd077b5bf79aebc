/** The real client against the registry in workerd, with D1 and R2. */
import { afterAll } from 'vitest'
import { workersTarget, type WorkersTarget } from '../runtimes/workers-target.ts'
import { describeKeystoreClients } from './keystore.ts'
import { describeQuotaClient } from './quotas.ts'
import { describeRoles } from './roles.ts'
import { describeSigning } from './signing.ts'
import { describeClient, describeOneTag, describeRangeFailures } from './suite.ts'

/** One registry for the suites that need no more than names of their own: workerd starts slowly. */
let common: Promise<WorkersTarget> | null = null
const commonTarget = async () => ({
  ...(await (common ??= workersTarget())),
  stop: () => Promise.resolve(),
})
afterAll(async () => (await common)?.stop())

describeClient('Workers', () => workersTarget(), {
  skip: { 'a full disk, when the upload opens': 'R2 has no end that anybody could run into' },
})
describeKeystoreClients('Workers', workersTarget)
describeRangeFailures('Workers', commonTarget)
describeOneTag('Workers', commonTarget)
// wrangler.toml leaves signatures unchecked, as the free plan's CPU time asks.
describeSigning('Workers', () => workersTarget({ env: { SREG_CHECK_SIGNATURES: 'on' } }))
describeQuotaClient('Workers', commonTarget)
describeRoles('Workers', workersTarget)
