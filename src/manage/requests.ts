/** Shapes of the request bodies. Unknown fields are refused: a misspelt limit must not be none. */
import * as z from 'zod/mini'
import { LEVELS, POLICY_MODES, SCOPES } from '../core/model.ts'
import { LONGEST_SHARE_DAYS } from '../core/shares.ts'

const YEAR_S = 365 * 86_400
const seconds = (years: number) => {
  const message = `must be a whole number of seconds from 60 to ${years * YEAR_S}`
  return z.number(message).check(z.int(message), z.gte(60, message), z.lte(years * YEAR_S, message))
}
const word = z.string().check(z.minLength(1), z.maxLength(200, 'at most 200 characters'))

const path = z.string().check(z.minLength(1), z.maxLength(1024))
const role = z.enum(['admin', 'staff', 'user'])

export const newUser = z
  .strictObject({ name: word, role: z.optional(role), admin: z.optional(z.boolean()) })
  .check(
    z.refine((user) => user.role === undefined || user.admin === undefined, 'give role or admin'),
  )
export const changedUser = z
  .strictObject({ role: z.optional(role), disabled: z.optional(z.boolean()) })
  .check(
    z.refine(
      (user) => user.role !== undefined || user.disabled !== undefined,
      'give role, disabled or both',
    ),
  )
export const newToken = z
  .strictObject({
    user: z.optional(word),
    name: word,
    scopes: z.optional(z.array(z.enum(SCOPES)).check(z.minLength(1))),
    expiresAt: z.optional(
      z.iso.datetime({ offset: true, error: 'must be a time such as 2030-01-31T12:00:00Z' }),
    ),
    expiresIn: z.optional(seconds(10)),
    collection: z.optional(path),
    container: z.optional(path),
  })
  .check(
    z.refine(
      ({ expiresAt, expiresIn }) => expiresAt === undefined || expiresIn === undefined,
      'give expiresAt or expiresIn, not both',
    ),
    z.refine(
      ({ collection, container }) => collection === undefined || container === undefined,
      'give collection or container, not both',
    ),
  )
export const newRobot = z.strictObject({ name: word })
export const newTransfer = z.strictObject({ entity: word, to: word })
export const privacy = z.strictObject({
  ref: z.string().check(z.maxLength(1024)),
  private: z.boolean(),
})
export const policy = z.strictObject({
  ref: z.string().check(z.maxLength(1024)),
  policy: z.enum(POLICY_MODES),
  fingerprints: z.optional(z.array(z.string().check(z.maxLength(200))).check(z.maxLength(1000))),
})
export const signedChallenge = z.strictObject({ signed: z.string() })
const prose = z.string().check(z.maxLength(4096, 'at most 4096 characters'))
export const newTeam = z.strictObject({
  name: word,
  description: z.optional(prose),
  open: z.optional(z.boolean()),
  owner: z.optional(word),
})
export const changedTeam = z.strictObject({
  description: z.optional(prose),
  open: z.optional(z.boolean()),
})
export const member = z.strictObject({ owner: z.optional(z.boolean()) })
export const newInvitation = z.strictObject({ expiresIn: z.optional(seconds(1)) })
export const acceptance = z.strictObject({ secret: z.string().check(z.maxLength(200)) })
const ref = z.string().check(z.maxLength(1024))
export const grant = z
  .strictObject({ ref, user: z.optional(word), team: z.optional(word), level: z.enum(LEVELS) })
  .check(
    z.refine(
      ({ user, team }) => (user === undefined) !== (team === undefined),
      'give user or team, not both',
    ),
  )
export const freeze = z.strictObject({
  ref,
  arch: z.optional(z.string().check(z.regex(/^[a-z0-9_]{1,32}$/, 'must be such as amd64'))),
  frozen: z.boolean(),
})
export const claim = z.strictObject({
  secret: z.string().check(z.maxLength(4096)),
  expiresIn: z.optional(seconds(1)),
})

const hex = (digits: number) => z.string().check(z.regex(new RegExp(`^[0-9a-f]{${digits}}$`)))
const bytes = z.number().check(z.int(), z.gte(1), z.lte(Number.MAX_SAFE_INTEGER))

/** The head of an export as the first record of the file has it (decision 0013). */
export const exportHead = z.strictObject({
  type: z.literal('head'),
  exportId: hex(24),
  registryId: z.string().check(z.maxLength(256)),
  keys: z.array(z.string().check(z.maxLength(256))).check(z.maxLength(100)),
  createdAt: z.number(),
})
/** Rows are looked at one by one, as when a file is read. */
export const importedRows = z.strictObject({
  rows: z.array(z.record(z.string(), z.unknown())).check(z.maxLength(1000)),
})
export const wantedBlob = z.strictObject({ size: z.number().check(z.int(), z.gte(0)) })
export const importedParts = z.strictObject({
  parts: z
    .array(z.strictObject({ number: bytes, etag: z.string().check(z.maxLength(256)) }))
    .check(z.maxLength(10_000)),
})
export const importEnd = z.strictObject({
  head: exportHead,
  rows: z.number().check(z.int(), z.gte(0)),
  sha256: hex(64),
})

export const newQuota = z.strictObject({
  entity: word,
  // nothing is no wish: a field that was forgotten must not lift a limit
  bytes: z.union([bytes, z.literal('none'), z.null()]),
})
export const newStar = z.strictObject({ ref: z.string().check(z.maxLength(1024)) })

const LONGEST_SHARE_S = LONGEST_SHARE_DAYS * 86_400
const shareLife = `must be a whole number of seconds from 60 to ${LONGEST_SHARE_S} (${LONGEST_SHARE_DAYS} days)`
const often = 'must be a whole number from 1 to 1000000'
export const newShare = z.strictObject({
  ref: z.string().check(z.maxLength(1024)),
  arch: z.optional(
    z.string().check(z.regex(/^[a-z0-9_]{1,32}$/, 'must be an architecture such as amd64')),
  ),
  expiresIn: z.optional(
    z
      .number(shareLife)
      .check(z.int(shareLife), z.gte(60, shareLife), z.lte(LONGEST_SHARE_S, shareLife)),
  ),
  count: z.optional(z.number(often).check(z.int(often), z.gte(1, often), z.lte(1e6, often))),
  note: z.optional(z.string().check(z.maxLength(200, 'at most 200 characters'))),
})
