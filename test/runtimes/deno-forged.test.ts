/** Forged tokens, on Deno over TCP. */
import { describeForged } from '../protocol/forged.ts'
import { accessTarget } from './host-access.ts'
import { hostTarget } from './host-target.ts'

describeForged('Deno', async (options) => accessTarget(await hostTarget('deno', options)))
