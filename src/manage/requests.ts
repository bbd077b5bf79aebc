/** Shapes of the request bodies. Unknown fields are refused: a misspelt limit must not be none. */
import * as z from 'zod/mini'
import { SCOPES } from '../core/model.ts'

const YEAR_S = 365 * 86_400
const seconds = (years: number) => {
  const message = `must be a whole number of seconds from 60 to ${years * YEAR_S}`
  return z.number(message).check(z.int(message), z.gte(60, message), z.lte(years * YEAR_S, message))
}
const word = z.string().check(z.minLength(1), z.maxLength(200, 'at most 200 characters'))

export const newUser = z.strictObject({ name: word, admin: z.optional(z.boolean()) })
export const newToken = z
  .strictObject({
    user: word,
    name: word,
    scopes: z.optional(z.array(z.enum(SCOPES)).check(z.minLength(1))),
    expiresAt: z.optional(
      z.iso.datetime({ offset: true, error: 'must be a time such as 2030-01-31T12:00:00Z' }),
    ),
    expiresIn: z.optional(seconds(10)),
  })
  .check(
    z.refine(
      ({ expiresAt, expiresIn }) => expiresAt === undefined || expiresIn === undefined,
      'give expiresAt or expiresIn, not both',
    ),
  )
export const privacy = z.strictObject({
  ref: z.string().check(z.maxLength(1024)),
  private: z.boolean(),
})
export const claim = z.strictObject({
  secret: z.string().check(z.maxLength(4096)),
  expiresIn: z.optional(seconds(1)),
})
