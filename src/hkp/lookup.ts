/** GET /pks/lookup: a key, or a list of keys for programs or for people (protocol.md §7.2). */
import { noKey, type Keyring } from '../core/keyring.ts'
import type { Ctx } from '../http/context.ts'
import { PRIVATE } from '../http/json-resp.ts'
import type { Clock } from '../ports.ts'
import { parseLookup } from './request.ts'
import { indexLines, indexPage, joinArmors } from './wire.ts'
import { reply } from '../http/reply.ts'

/** Pages of anywhere may ask keyservers. */
export const CORS = { 'Access-Control-Allow-Origin': '*' } as const

export function lookupHandler({ keyring, clock }: { keyring: Keyring; clock: Clock }) {
  return async (c: Ctx): Promise<Response> => {
    const lookup = parseLookup(new URL(c.req.url).search)
    const { op, search, limit, after } = lookup
    const asker = c.get('claims')
    if (op === 'get') {
      const keys = await keyring.ring(search, asker)
      return reply(joinArmors(keys.map(({ facts }) => facts.armor)), 200, {
        'Content-Type': 'application/pgp-keys',
        ...CORS,
        ...PRIVATE,
      })
    }
    const page = await keyring.lookup(search, { after, limit, armor: false }, asker)
    if (page.keys.length === 0) throw noKey()
    const facts = page.keys.map((key) => key.facts)
    const headers = {
      ...CORS,
      ...PRIVATE,
      ...(page.next === null ? {} : { 'X-HKP-Next-Page-Token': page.next }),
      'Access-Control-Expose-Headers': 'X-HKP-Next-Page-Token',
    }
    if (lookup.machine)
      return reply(indexLines(facts, clock.now()), 200, {
        'Content-Type': 'text/plain; charset=utf-8',
        ...headers,
      })
    const shown = indexPage(facts, {
      ...lookup,
      subkeys: op === 'vindex',
      more: page.next !== null,
      now: clock.now(),
    })
    return reply(String(await shown), 200, {
      'Content-Type': 'text/html; charset=utf-8',
      'Content-Security-Policy': "default-src 'none'; style-src 'unsafe-inline'; sandbox",
      ...headers,
    })
  }
}
