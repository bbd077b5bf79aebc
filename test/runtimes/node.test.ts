/** The protocol suites on Node over TCP. */
import { describeDiscovery } from '../protocol/library-discovery.ts'
import { describeCatalog } from '../protocol/library-catalog.ts'
import { nodeTarget } from './target.ts'

describeDiscovery('Node', nodeTarget)
describeCatalog('Node', nodeTarget)
