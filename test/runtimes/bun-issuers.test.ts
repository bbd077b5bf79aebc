/** Tokens of other issuers, on Bun over TCP. */
import { describeIssuers } from '../protocol/issuers.ts'
import { accessTarget } from './host-access.ts'
import { hostTarget } from './host-target.ts'

describeIssuers('Bun', async (options) => accessTarget(await hostTarget('bun', options)))
