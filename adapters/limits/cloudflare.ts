/** Counters of Cloudflare's own, shared by the isolates of a location, where they are bound. */
import type { RateLimiter } from '../../src/ports.ts'

/** What is used of a rate limiting binding: it knows its numbers, and tells no other. */
export type RateLimitBinding = { limit(options: { key: string }): Promise<{ success: boolean }> }

/**
 * Asks the memory of this isolate first, and then the binding of the rule's name: an isolate sees a
 * part of the requests only, and a binding cannot be told the number of the settings. The lower of
 * the two counts.
 */
export function cloudflareLimiter(
  memory: RateLimiter,
  bindings: Readonly<Record<string, RateLimitBinding | undefined>>,
): RateLimiter {
  return {
    async take(key, rule) {
      const taken = await memory.take(key, rule)
      const binding = bindings[rule.name]
      if (!taken.allowed || binding === undefined) return taken
      const { success } = await binding.limit({ key })
      return success
        ? { ...taken, remaining: null }
        : { allowed: false, remaining: 0, resetSeconds: rule.seconds }
    },
  }
}
