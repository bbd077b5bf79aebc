/** Tokens of other issuers, in workerd over TCP; Miniflare trusts NODE_EXTRA_CA_CERTS too. */
import { describeIssuers } from '../protocol/issuers.ts'
import { workersTarget } from './workers-target.ts'

describeIssuers(
  'Workers',
  workersTarget,
  'workerd shows no addresses to a Worker; those of Cloudflare reach no private ones',
)
