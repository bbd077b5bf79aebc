/** Every route for every role in every situation, on Bun over TCP; a process of its own, for the issuer's certificate. */
import { describeRoles } from '../protocol/roles.ts'
import { accessTarget } from './host-access.ts'
import { hostTarget } from './host-target.ts'

describeRoles('Bun', async (options) => accessTarget(await hostTarget('bun', options)))
