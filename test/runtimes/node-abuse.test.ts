/** Hostile input on Node over TCP, with nothing beside it: every answer has a second. */
import { describeBadInput } from '../protocol/bad-input.ts'
import { describeOciAbuse } from '../protocol/oci-abuse.ts'
import { keptMemory } from '../fixtures/kept-memory.ts'
import { nodeTarget } from './target.ts'

describeOciAbuse('Node', nodeTarget, keptMemory)
describeBadInput('Node', nodeTarget, () => process.memoryUsage().rss)
