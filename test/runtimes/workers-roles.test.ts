/** Every route for every role in every situation, in workerd over TCP. */
import { describeRoles } from '../protocol/roles.ts'
import { workersTarget } from './workers-target.ts'

describeRoles('Workers', workersTarget)
