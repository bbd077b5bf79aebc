/** The protocol suites on Node over TCP. */
import { describeUploads } from '../protocol/library-uploads.ts'
import { nodeTarget } from './target.ts'

describeUploads('Node', nodeTarget)
