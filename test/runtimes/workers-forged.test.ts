/** Forged tokens, in workerd over TCP. */
import { describeForged } from '../protocol/forged.ts'
import { workersTarget } from './workers-target.ts'

describeForged('Workers', workersTarget)
