/** The real client against the registry in workerd, with D1 and R2. */
import { workersTarget } from '../runtimes/workers-target.ts'
import { describeClient, describeOneTag, describeRangeFailures } from './suite.ts'

describeClient('Workers', () => workersTarget())
describeRangeFailures('Workers', () => workersTarget())
describeOneTag('Workers', () => workersTarget())
