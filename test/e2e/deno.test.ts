/** The real client against the registry on Deno. */
import { hostTarget } from '../runtimes/host-target.ts'
import { describeKeystoreClients } from './keystore.ts'
import { describeOciClients } from './oci.ts'
import { describeQuotaClient } from './quotas.ts'
import { describeRoles } from './roles.ts'
import { describeSigning } from './signing.ts'
import { describeClient, describeOneTag, describeRangeFailures } from './suite.ts'

describeClient('Deno', () => hostTarget('deno'))
describeKeystoreClients('Deno', (options) => hostTarget('deno', options))
describeOciClients('Deno', (options) => hostTarget('deno', options))
describeRangeFailures('Deno', () => hostTarget('deno'))
describeOneTag('Deno', () => hostTarget('deno'))
describeSigning('Deno', () => hostTarget('deno'))
describeQuotaClient('Deno', () => hostTarget('deno'))
describeRoles('Deno', (options) => hostTarget('deno', options))
