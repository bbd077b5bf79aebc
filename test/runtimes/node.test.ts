/** The protocol suites on Node over TCP. */
import { describeDownloads } from '../protocol/library-downloads.ts'
import { nodeTarget } from './target.ts'

describeDownloads('Node', nodeTarget)
