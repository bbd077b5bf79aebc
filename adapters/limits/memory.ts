/** Counters in the memory of one process or isolate. */
import type { Clock, LimitRule, RateLimiter, Taken } from '../../src/ports.ts'

/** Counters that are remembered; forgetting one lets its window begin anew (R58). */
const MOST = 100_000

type Window = { endsAt: number; count: number }

/**
 * Fixed windows that begin with their first take. Needs no timer: what has ended is overwritten, or
 * forgotten with what was not used lately. Two generations stand for an order of use, which a Map
 * cannot give cheaply: finding its first entry takes as long as there were deleted ones before.
 */
export function memoryLimiter({ clock, most = MOST }: { clock: Clock; most?: number }) {
  let recent = new Map<string, Window>()
  let older = new Map<string, Window>()

  function take(key: string, rule: LimitRule): Taken {
    const now = clock.now().getTime()
    const length = rule.seconds * 1000
    const id = `${rule.name} ${key}`
    let window = recent.get(id)
    if (window === undefined) {
      window = older.get(id) ?? { endsAt: 0, count: 0 }
      older.delete(id)
      if (recent.size >= most / 2) {
        older = recent
        recent = new Map()
      }
      recent.set(id, window)
    }
    // one that ends too far ahead was begun before the clock was set back
    if (window.endsAt <= now || window.endsAt > now + length) {
      window.endsAt = now + length
      window.count = 0
    }
    const allowed = window.count < rule.count
    if (allowed) window.count += 1
    return {
      allowed,
      remaining: Math.max(0, rule.count - window.count),
      resetSeconds: Math.ceil((window.endsAt - now) / 1000),
    }
  }
  return { take } satisfies RateLimiter
}
