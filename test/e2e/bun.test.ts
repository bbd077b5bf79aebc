/** The real client against the registry on Bun. */
import { hostTarget } from '../runtimes/host-target.ts'
import { describeKeystoreClients } from './keystore.ts'
import { describeOciClients } from './oci.ts'
import { describeQuotaClient } from './quotas.ts'
import { describeRoles } from './roles.ts'
import { describeSigning } from './signing.ts'
import { describeClient, describeOneTag, describeRangeFailures } from './suite.ts'

describeClient('Bun', () => hostTarget('bun'))
describeKeystoreClients('Bun', (options) => hostTarget('bun', options))
describeOciClients('Bun', (options) => hostTarget('bun', options))
describeRangeFailures('Bun', () => hostTarget('bun'))
describeOneTag('Bun', () => hostTarget('bun'))
describeSigning('Bun', () => hostTarget('bun'))
describeQuotaClient('Bun', () => hostTarget('bun'))
describeRoles('Bun', (options) => hostTarget('bun', options))
