/** Tokens of other issuers, in workerd over TCP; Miniflare trusts NODE_EXTRA_CA_CERTS too, if it starts with it. */
import { describeIssuers } from '../protocol/issuers.ts'
import { workersProcess } from './workers-target.ts'

describeIssuers(
  'Workers',
  workersProcess,
  'workerd shows no addresses to a Worker; those of Cloudflare reach no private ones',
)
