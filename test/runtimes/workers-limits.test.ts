/** Limits over TCP in workerd. */
import { describeLimits } from '../protocol/limits.ts'
import { workersTarget } from './workers-target.ts'

describeLimits('Workers', workersTarget, { clientIs: 'cf-connecting-ip' })
