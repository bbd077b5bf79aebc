/** Limits over TCP, on every runtime that serves a data folder. */
import { describeLimits } from '../protocol/limits.ts'
import { hostTarget } from './host-target.ts'
import { TESTED } from './runtime.ts'
import { nodeTarget } from './target.ts'

const TITLES = { node: 'Node', bun: 'Bun', deno: 'Deno' }

for (const runtime of TESTED)
  describeLimits(TITLES[runtime], (options) =>
    runtime === 'node' ? nodeTarget(options) : hostTarget(runtime, options),
  )
