/** GET /v1/audit: the audit log in pages, for administrators. */
import * as z from 'zod/mini'
import type { Audit } from '../core/audit.ts'
import { AUDIT_OUTCOMES } from '../core/model.ts'
import { RegistryError } from '../errors.ts'
import type { Ctx } from '../http/context.ts'
import { data } from '../http/json-resp.ts'

const text = z.optional(z.string().check(z.maxLength(1024)))
const time = z.optional(
  z.iso.datetime({ offset: true, error: 'must be a time such as 2030-01-31T12:00:00Z' }),
)
const MOST = 1000
const amount = `must be a number from 1 to ${MOST}`

/** Filters, and `after` as the page before has said it in `next`. */
export const auditQuery = z.strictObject({
  actor: text,
  action: text,
  ref: text,
  outcome: z.optional(z.enum(AUDIT_OUTCOMES)),
  since: time,
  until: time,
  limit: z.optional(z.string().check(z.regex(/^(?:[1-9]\d{0,2}|1000)$/, amount))),
  after: z.optional(z.string().check(z.regex(/^\d{1,16}\.\d{1,16}$/, 'is not one of ours'))),
})

export function auditHandler({ audit }: { audit: Audit }) {
  return async (c: Ctx): Promise<Response> => {
    const asked = auditQuery.safeParse(c.req.query())
    if (!asked.success) {
      const [issue] = asked.error.issues
      throw new RegistryError(
        'invalid',
        `The query does not fit: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''}`,
        { subject: 'request' },
      )
    }
    const { actor = '', action = '', ref = '', outcome = null, limit, after = null } = asked.data
    const { since, until } = asked.data
    const filter = {
      actor,
      action,
      ref,
      outcome,
      since: new Date(since ?? 0),
      until: new Date(until ?? FOREVER),
    }
    const page = await audit.list(filter, { after, limit: Number(limit ?? 100) }, c.get('claims'))
    return data(page)
  }
}

/** The last moment that JavaScript knows. */
const FOREVER = 8.64e15
