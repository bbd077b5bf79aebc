/** Who gets which answer, in workerd over TCP. */
import { describeAccess } from '../protocol/access.ts'
import { workersTarget } from './workers-target.ts'

describeAccess('Workers', workersTarget)
