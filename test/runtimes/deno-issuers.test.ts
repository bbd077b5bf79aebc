/** Tokens of other issuers, on Deno over TCP. */
import { describeIssuers } from '../protocol/issuers.ts'
import { accessTarget } from './host-access.ts'
import { hostTarget } from './host-target.ts'

describeIssuers('Deno', async (options) => accessTarget(await hostTarget('deno', options)))
