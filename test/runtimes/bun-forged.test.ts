/** Forged tokens, on Bun over TCP. */
import { describeForged } from '../protocol/forged.ts'
import { accessTarget } from './host-access.ts'
import { hostTarget } from './host-target.ts'

describeForged('Bun', async (options) => accessTarget(await hostTarget('bun', options)))
