/** Tokens of other issuers, on Node over TCP; a process of its own, for the issuer's certificate. */
import { describeIssuers } from '../protocol/issuers.ts'
import { accessTarget } from './host-access.ts'
import { hostTarget } from './host-target.ts'

describeIssuers('Node', async (options) => accessTarget(await hostTarget('node', options)))
