/** Every route for every role in every situation, on Node over TCP; a process of its own, for the issuer's certificate. */
import { describeRoles } from '../protocol/roles.ts'
import { accessTarget } from './host-access.ts'
import { hostTarget } from './host-target.ts'

describeRoles('Node', async (options) => accessTarget(await hostTarget('node', options)))
