/** SREG_TRUSTED_ISSUERS: whose tokens are accepted, and by which claims (R35; docs/issuers.md). */
import * as z from 'zod/mini'
import type { TrustedIssuer } from './core/issuers.ts'
import { isName } from './core/names.ts'

const ALGORITHMS = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
] as const

/** Claims that say on which occasion a token was made. */
const OCCASIONS = ['ref', 'event_name', 'ref_protected', 'environment', 'sub']
/** Claims that do not say whose job it was. */
const NOBODYS =
  'ref event_name ref_protected environment ref_type pipeline_source iss aud exp iat nbf jti'.split(
    ' ',
  )
/** Names that somebody else may have tomorrow, each with ids that nobody else will ever have. */
const NAMES: Record<string, string[]> = {
  repository: ['repository_id'],
  repository_owner: ['repository_owner_id', 'repository_id'],
  project_path: ['project_id'],
  namespace_path: ['namespace_id', 'project_id'],
}
const IDS = ['repository_id', 'repository_owner_id', 'project_id', 'namespace_id']
/** Everybody can have tokens of these, for any audience. */
const OPEN_TO_ALL = /^https:\/\/(?:token\.actions\.githubusercontent\.com|gitlab\.com)(?:\/|$)/

const https = z.string().check(
  z.maxLength(255),
  z.refine((text) => {
    if (!URL.canParse(text)) return false
    const { protocol, username, password, search, hash } = new URL(text)
    // "|" parts issuer and subject in an identity
    return (
      protocol === 'https:' &&
      `${username}${password}${search}${hash}` === '' &&
      !/[|\s]/.test(text)
    )
  }, 'must be an https address without user, query or fragment'),
)

const rule = z.strictObject({
  claims: z
    .record(z.string(), z.string('must be text, as in "123"'))
    .check(z.superRefine((claims, { addIssue }) => claimProblems(claims).forEach(addIssue))),
  scopes: z
    .array(z.enum(['pull', 'push'], 'may be pull and push only'))
    .check(z.minLength(1, 'must name pull, push or both')),
  collection: z.string().check(
    z.refine((text) => {
      const parts = text.split('/')
      return parts.length === 2 && parts.every(isName)
    }, 'must be entity/collection'),
  ),
  level: z.optional(z.enum(['reader', 'contributor'], 'must be reader or contributor')),
})

const issuer = z
  .strictObject({
    issuer: https,
    audience: z
      .string('is required: tokens for somebody else must not count here')
      .check(z.minLength(1, 'must not be empty')),
    algorithms: z.optional(
      z
        .array(z.enum(ALGORITHMS, `may be ${ALGORITHMS.join(', ')}`))
        .check(z.minLength(1, 'must not be empty')),
    ),
    jwksUri: z.optional(https),
    allowPrivate: z.optional(z.boolean()),
    rules: z
      .array(rule)
      .check(
        z.minLength(1, 'must have at least one rule'),
        z.maxLength(100, 'may have at most 100 rules'),
      ),
  })
  .check(
    z.superRefine(({ issuer: url, rules }, { addIssue }) => {
      for (const [at, { claims }] of rules.entries())
        if (OPEN_TO_ALL.test(url) && !IDS.some((id) => id in claims))
          addIssue({
            code: 'custom',
            path: ['rules', at, 'claims'],
            message: `must have one of ${IDS.join(', ')}: everybody can have tokens of ${url}`,
          })
    }),
  )

const list = z.array(issuer).check(
  z.maxLength(20, 'at most 20 issuers'),
  z.refine(
    (all) => new Set(all.map((one) => one.issuer)).size === all.length,
    'must name each issuer once',
  ),
)

/** The list as JSON, with what is wrong with it, a sentence each; empty text is an empty list. */
export function parseIssuers(text: string): { issuers: TrustedIssuer[]; problems: string[] } {
  if (text === '') return { issuers: [], problems: [] }
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return { issuers: [], problems: ['must be JSON'] }
  }
  const parsed = list.safeParse(value)
  if (!parsed.success)
    return {
      issuers: [],
      problems: parsed.error.issues.map(({ path, message }) => `${shown(path)}${message}`),
    }
  const issuers = parsed.data.map(({ rules, ...one }) => ({
    issuer: one.issuer,
    audience: one.audience,
    algorithms: one.algorithms ?? ['RS256', 'ES256', 'EdDSA'],
    jwksUri: one.jwksUri ?? null,
    allowPrivate: one.allowPrivate ?? false,
    rules: rules.map(({ claims, scopes, collection, level }) => ({
      claims,
      scopes,
      collection,
      level: (level ?? (scopes.includes('push') ? 'contributor' : 'reader')) === 'reader' ? 1 : 2,
    })),
  })) satisfies TrustedIssuer[]
  return { issuers, problems: [] }
}

/** What is wrong with the claims of a rule, a sentence each. */
function claimProblems(claims: Record<string, string>): string[] {
  const has = (name: string) => name in claims
  const problems: string[] = []
  if (!OCCASIONS.some(has))
    problems.push(
      `must name the event or the ref, by one of ${OCCASIONS.join(', ')}: a pull request from a fork is not the main branch`,
    )
  if (Object.keys(claims).every((name) => NOBODYS.includes(name)))
    problems.push(`must say whose job it is, for example by one of ${IDS.join(', ')}`)
  for (const [name, ids] of Object.entries(NAMES))
    if (has(name) && !ids.some(has))
      problems.push(
        `must have ${ids[0]} beside ${name}: a name may be somebody else's one day, its id not`,
      )
  if (/^(?:repo|repository|project_path):/.test(claims.sub ?? '') && !IDS.some(has))
    problems.push(
      `must have one of ${IDS.join(', ')} beside sub: a name may be somebody else's one day, its id not`,
    )
  return problems
}

/** `[0].rules[1].claims: `, or nothing for the whole. */
function shown(path: readonly PropertyKey[]): string {
  const words = path.map((part) => (typeof part === 'number' ? `[${part}]` : `.${String(part)}`))
  return words.length === 0 ? '' : `${words.join('').replace(/^\./, '')}: `
}
