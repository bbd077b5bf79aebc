/** The rate limiting binding, as workerd has it, against the contract. */
import { env } from 'cloudflare:workers'
import { cloudflareLimiter } from '../../adapters/limits/cloudflare.ts'
import { memoryLimiter } from '../../adapters/limits/memory.ts'
import { describeRateLimiter } from '../contract/rate-limiter.ts'

const clock = { now: () => new Date(0) }
const rule = { name: 'tries', count: 20, seconds: 60 }
/** As an isolate that sees few of the requests: its own memory never refuses. */
const generous = {
  take: (key: string) => memoryLimiter({ clock }).take(key, { ...rule, count: 1000 }),
}

describeRateLimiter('Cloudflare’s binding', {
  make: () => cloudflareLimiter(generous, { tries: env.LIMIT_TRIES }),
  rule,
})
