/** Every route for every role in every situation, on Deno over TCP; a process of its own, for the issuer's certificate. */
import { describeRoles } from '../protocol/roles.ts'
import { accessTarget } from './host-access.ts'
import { hostTarget } from './host-target.ts'

describeRoles('Deno', async (options) => accessTarget(await hostTarget('deno', options)))
