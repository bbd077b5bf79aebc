/** Counters in the memory of one process or isolate. */
import type { Clock, LimitRule, RateLimiter, Taken } from '../../src/ports.ts'

/** Counters that are remembered; forgetting one lets its window begin anew (R58). */
const MOST = 100_000

/**
 * Fixed windows that begin with their first take, so that no two of them are as likely as not to
 * end together. Needs no timer: what has ended is overwritten, or forgotten as the least used.
 */
export function memoryLimiter({ clock, most = MOST }: { clock: Clock; most?: number }) {
  const windows = new Map<string, { endsAt: number; count: number }>()

  function take(key: string, rule: LimitRule): Taken {
    const now = clock.now().getTime()
    const length = rule.seconds * 1000
    const id = `${rule.name} ${key}`
    const known = windows.get(id)
    // a window that ends too far ahead was begun before the clock was set back
    const runs = known !== undefined && known.endsAt > now && known.endsAt <= now + length
    const window = runs ? known : { endsAt: now + length, count: 0 }
    // a Map keeps the order in which entries came: the first is the least used
    if (known !== undefined) windows.delete(id)
    else if (windows.size >= most)
      for (const oldest of windows.keys()) {
        windows.delete(oldest)
        break
      }
    windows.set(id, window)
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
