/** How often what may be asked: refusals with 429, and the fields that tell of it (R58). */
import type { LimitsConfig } from '../config.ts'
import type { Claims } from '../core/model.ts'
import { DAY_MS, windowOf, WEEK_MS, type Tallies } from '../core/tallies.ts'
import { isRegistryError, RegistryError } from '../errors.ts'
import type { Clock, LimitRule, Log, PullCount, PullLimits, RateLimiter, Taken } from '../ports.ts'
import type { Ctx } from './context.ts'
import { isTrusted, networkOf } from './origin.ts'

/**
 * What a route is limited by besides requests per address. `search`, `keys`: per token, or address
 * without one. `login`: its refusals are failed checks of a credential, as wrong tokens are anywhere.
 */
export type LimitName = 'search' | 'keys' | 'login'

export type Limits = ReturnType<typeof createLimits>

/** Where a limit stands; as Taken, with what its policy is. */
type Stand = Taken & { rule: LimitRule; what: string }

const MINUTE = 60

/**
 * Addresses are those that `origin.ts` finds. Loopback and trusted proxies are not counted where
 * they name no client: that is a proxy which hides them, and all would be throttled as one; nor are
 * clients of which the runtime knows no address.
 */
export function createLimits(deps: {
  config: { limits: LimitsConfig; trustedProxies: readonly string[] }
  limiter: RateLimiter
  tallies: Tallies
  clock: Clock
  log: Log
  /** Work after the answer, if there is any. */
  defer: (c: Ctx, work: Promise<unknown> | null) => void
}) {
  const { limiter, tallies, clock, log } = deps
  const { limits, trustedProxies } = deps.config
  const rule = (name: string, count: number): LimitRule => ({ name, count, seconds: MINUTE })
  const requests = rule('requests', limits.requests)
  const logins = rule('logins', limits.logins)
  const named = {
    search: { rule: rule('searches', limits.searches), what: 'searches' },
    keys: { rule: rule('keys', limits.keys), what: 'requests that add keys' },
  }

  function networkAt(c: Ctx): string | null {
    const { address } = c.env.entry
    return address === null || isTrusted(address, trustedProxies) ? null : networkOf(address)
  }

  /** Counts, and throws `rate_limited` for one too many; when the limiter fails, it is a yes. */
  function check(
    c: Ctx,
    { rule, what }: { rule: LimitRule; what: string },
    key: string | null,
    tells: boolean,
  ): void | Promise<void> {
    if (rule.count === 0 || key === null) return
    const open = (error: unknown) =>
      log.event('error', 'limiter', { limit: rule.name, reason: String(error) })
    const judge = (taken: Taken) => {
      const stand = { ...taken, rule, what }
      if (tells || !taken.allowed) tell(c, stand)
      if (!taken.allowed) throw tooMany(stand)
    }
    let taken: Taken | Promise<Taken>
    try {
      taken = limiter.take(key, rule)
    } catch (error) {
      return open(error)
    }
    return taken instanceof Promise ? taken.then(judge, open) : judge(taken)
  }

  /** The counter of API calls of this day, and how many it may reach; null where nothing is limited. */
  function dayOf(c: Ctx, claims: Claims | null) {
    const count = claims === null ? limits.anonymousDay : limits.userDay
    if (count === 0) return null
    const who = claims === null ? networkAt(c) : claims.userId
    if (who === null) return null
    const name = claims === null ? 'anonymous-day' : 'user-day'
    return { count, name, counter: `limit.day.${claims === null ? 'address' : 'user'}.${who}` }
  }

  return {
    /** One request of its address. */
    request: (c: Ctx): void | Promise<void> =>
      check(
        c,
        { rule: requests, what: 'requests' },
        limits.requests === 0 ? null : networkAt(c),
        false,
      ),

    /**
     * A refused request: when it presented a credential, or is refused for one, it counts. Returns
     * the refusal: the one that was given within the limit, and `rate_limited` beyond; a valid
     * credential is never asked about. When the limiter fails, nobody learns which one is good.
     */
    async refused(c: Ctx, error: unknown, limit: LimitName | undefined): Promise<unknown> {
      if (limits.logins === 0 || !isFailedCheck(c, error, limit)) return error
      const key = networkAt(c)
      if (key === null) return error
      try {
        const taken = await limiter.take(key, logins)
        if (taken.allowed) return error
        const stand = { ...taken, rule: logins, what: 'refused credentials' }
        tell(c, stand)
        return tooMany(stand, error instanceof Error ? `${error.message} ` : '')
      } catch (cause) {
        log.event('error', 'limiter', { limit: logins.name, reason: String(cause) })
        return new RegistryError(
          'unavailable',
          'Credentials cannot be checked at the moment; try again soon.',
          { subject: 'token', retryAfter: 5, cause },
        )
      }
    },

    /** Before a request whose caller is known is handled: its day, and the limit of its route. */
    async call(c: Ctx, claims: Claims | null, limit: LimitName | undefined): Promise<void> {
      const day = dayOf(c, claims)
      if (day !== null) {
        const { begin, resetSeconds } = windowOf(clock.now(), DAY_MS)
        const count = await tallies.calls(day.counter, begin).catch((error: unknown) => {
          log.event('error', 'limiter', { limit: day.name, reason: String(error) })
          return 0
        })
        const stand = {
          rule: { name: day.name, count: day.count, seconds: DAY_MS / 1000 },
          what: 'API calls',
          allowed: count < day.count,
          remaining: Math.max(0, day.count - count),
          resetSeconds,
        }
        if (!stand.allowed) {
          tell(c, stand)
          throw tooMany(stand)
        }
      }
      if (limit === undefined || limit === 'login') return
      // By token, not user: who holds a revoked one must not use up what its user may do (R58).
      const key = claims === null ? networkAt(c) : claims.tokenId
      await check(c, named[limit], key, true)
    },

    /** After the request, unless its token turned out to have ended: it counts for the day. */
    called(c: Ctx, claims: Claims | null): void {
      const day = dayOf(c, claims)
      if (day === null) return
      const { begin } = windowOf(clock.now(), DAY_MS)
      deps.defer(c, tallies.call(day.counter, begin))
    },

    /** Whose pulls are one, however many requests they take: a user's, or an address's. */
    asker(c: Ctx, claims: Claims | null): string {
      const { address } = c.env.entry
      return claims?.userId ?? (address === null ? '' : networkOf(address))
    },

    /** What limits pulls this week; null when nothing does, and nothing need be counted. */
    pulls(): PullLimits | null {
      const { containerWeek: container, collectionWeek: collection } = limits
      if (container === 0 && collection === 0) return null
      return { begin: windowOf(clock.now(), WEEK_MS).begin, container, collection }
    },

    /** A pull that was counted by `pulls`: the fields that tell of it, or `rate_limited`. */
    pulled(c: Ctx, counted: readonly PullCount[]): Record<string, string> {
      const { resetSeconds } = windowOf(clock.now(), WEEK_MS)
      const stands = counted.map(({ of, count, full }): Stand => {
        const most = of === 'container' ? limits.containerWeek : limits.collectionWeek
        return {
          rule: { name: `${of}-week`, count: most, seconds: WEEK_MS / 1000 },
          what: `pulls from this ${of}`,
          allowed: !full,
          remaining: Math.max(0, most - count),
          resetSeconds,
        }
      })
      const full = stands.find(({ allowed }) => !allowed)
      if (full === undefined) return fields(stands)
      tell(c, full)
      throw tooMany(full)
    },
  }
}

/** A credential was shown and refused: as `unauthenticated`, or as what the route makes of that. */
function isFailedCheck(c: Ctx, error: unknown, limit: LimitName | undefined): boolean {
  if (!(error instanceof RegistryError)) return false
  if (limit === 'login' && error.code === 'denied') return true
  if (c.env.entry.asksForAnother) return false
  const shown = /^\S+\s+\S/.test(c.req.header('authorization')?.trim() ?? '')
  const { cause } = error
  return shown && [error, cause].some((one) => isRegistryError(one, 'unauthenticated'))
}

function tooMany({ rule, what, resetSeconds }: Stand, before = ''): RegistryError {
  const span = { 60: 'minute', 86_400: 'day', 604_800: 'week' }[rule.seconds] ?? `${rule.seconds} s`
  return new RegistryError(
    'rate_limited',
    `${before}Too many ${what}: ${rule.count} a ${span} are allowed; try again in ${inWords(resetSeconds)}.`,
    { subject: 'request', retryAfter: resetSeconds },
  )
}

function inWords(seconds: number): string {
  if (seconds < 120) return `${seconds} s`
  if (seconds < 7200) return `${Math.ceil(seconds / 60)} min`
  return seconds < 172_800
    ? `${Math.ceil(seconds / 3600)} h`
    : `${Math.ceil(seconds / 86_400)} days`
}

/**
 * `RateLimit-Policy` and `RateLimit` as draft-ietf-httpapi-ratelimit-headers-10 has them. `RateLimit`
 * must say what remains, so it is left out where nobody knows.
 */
export function fields(stands: readonly Omit<Stand, 'what'>[]): Record<string, string> {
  const list = (items: string[]) => items.join(', ')
  const known = stands.filter(({ remaining }) => remaining !== null)
  return {
    ...(stands.length > 0 && {
      'RateLimit-Policy': list(
        stands.map(({ rule }) => `"${rule.name}";q=${rule.count};w=${rule.seconds}`),
      ),
    }),
    ...(known.length > 0 && {
      RateLimit: list(
        known.map((stand) => `"${stand.rule.name}";r=${stand.remaining};t=${stand.resetSeconds}`),
      ),
    }),
  }
}

function tell(c: Ctx, stand: Stand): void {
  const told = fields([stand])
  if (c.env.putHeaders === undefined) c.env.entry.told = { ...c.env.entry.told, ...told }
  else c.env.putHeaders(told)
}
