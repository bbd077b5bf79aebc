/** Limits over TCP, on every runtime. */
import { describeLimits } from '../protocol/limits.ts'
import { hostTarget } from './host-target.ts'
import { nodeTarget } from './target.ts'
import { workersTarget } from './workers-target.ts'

describeLimits('Node', nodeTarget)
describeLimits('Bun', (options) => hostTarget('bun', options))
describeLimits('Deno', (options) => hostTarget('deno', options))
describeLimits('Workers', workersTarget, { clientIs: 'cf-connecting-ip' })
