/** The protocol suites on Node over TCP. */
import { describeBadInput } from '../protocol/bad-input.ts'
import { describeLibrary } from '../protocol/library.ts'
import { describeManage } from '../protocol/manage.ts'
import { nodeTarget } from './target.ts'

describeLibrary('Node', nodeTarget)
describeManage('Node', nodeTarget)
describeBadInput('Node', nodeTarget, () => process.memoryUsage().rss)
