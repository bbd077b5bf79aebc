/** What every RateLimiter must do, as a suite over a factory. */
import { describe, expect, it } from 'vitest'
import type { LimitRule, RateLimiter } from '../../src/ports.ts'

export type LimiterBackend = {
  /** Its counters may outlive it; keys are new in every test. */
  make(): RateLimiter
  /** The rule that it counts by in tests: a minute, at most 20 times. */
  rule: LimitRule
  /** Lets that many seconds pass; absent where time is the platform's. */
  pass?: (seconds: number) => void
}

let keys = 0
const newKey = () => `192.0.2.${(keys += 1)}`

export function describeRateLimiter(name: string, { make, rule, pass }: LimiterBackend): void {
  describe(`${name} keeps the contract of RateLimiter`, () => {
    const taken = async (limiter: RateLimiter, key: string, times: number) => {
      const answers = []
      for (let i = 0; i < times; i++) answers.push(await limiter.take(key, rule))
      return answers
    }

    it('allows so many and no more, and says when to come back', async () => {
      const answers = await taken(make(), newKey(), rule.count + 3)
      const allowed = answers.map((answer) => answer.allowed)
      expect(allowed).toEqual([...Array(rule.count).fill(true), false, false, false])
      for (const { allowed, remaining, resetSeconds } of answers) {
        expect(remaining).toBe(allowed ? remaining : 0)
        expect(resetSeconds).toBeGreaterThan(0)
        expect(resetSeconds).toBeLessThanOrEqual(rule.seconds)
        expect(Number.isInteger(resetSeconds)).toBe(true)
      }
    })

    it('says what remains, or that it does not know', async () => {
      const answers = await taken(make(), newKey(), rule.count)
      const known = answers.every(({ remaining }) => remaining !== null)
      expect(answers.map(({ remaining }) => remaining)).toEqual(
        answers.map((_, i) => (known ? rule.count - 1 - i : null)),
      )
    })

    it('is exact for requests that come at once', async () => {
      const limiter = make()
      const key = newKey()
      const answers = await Promise.all(
        Array.from({ length: 3 * rule.count }, async () => limiter.take(key, rule)),
      )
      expect(answers.filter(({ allowed }) => allowed)).toHaveLength(rule.count)
    })

    it('counts every key for itself', async () => {
      const limiter = make()
      const [one, other] = [newKey(), newKey()]
      await taken(limiter, one, rule.count + 1)
      expect((await limiter.take(other, rule)).allowed).toBe(true)
      expect((await limiter.take(one, rule)).allowed).toBe(false)
    })

    it('begins anew when the window has ended', async ({ skip }) => {
      if (pass === undefined) return skip('its windows are the platform’s')
      const limiter = make()
      const key = newKey()
      await taken(limiter, key, rule.count + 1)
      pass(rule.seconds - 1)
      expect(await limiter.take(key, rule)).toMatchObject({ allowed: false, resetSeconds: 1 })
      pass(1)
      expect(await limiter.take(key, rule)).toMatchObject({
        allowed: true,
        remaining: rule.count - 1,
        resetSeconds: rule.seconds,
      })
    })
  })
}
