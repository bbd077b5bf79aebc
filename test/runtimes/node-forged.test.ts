/** Forged tokens, on Node over TCP; a process of its own, for the issuer's certificate. */
import { describeForged } from '../protocol/forged.ts'
import { accessTarget } from './host-access.ts'
import { hostTarget } from './host-target.ts'

describeForged('Node', async (options) => accessTarget(await hostTarget('node', options)))
