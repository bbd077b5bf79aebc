/**
 * Configuration: one schema, one prefix, one call. Defaults live here only; README's table is
 * checked against `SETTINGS` by a test.
 */
import * as z from 'zod/mini'
import en from 'zod/v4/locales/en.js'
import type { Rules } from './core/access.ts'
import type { TrustedIssuer } from './core/issuers.ts'
import { RegistryError } from './errors.ts'
import { parseIssuers } from './issuers-config.ts'

// The small zod speaks no language unless told to: problems are sentences.
z.config(en())

const port = whole(0, 65535)
const url = z.string().check(
  z.regex(
    /^https?:\/\/[a-z0-9.[\]:-]+$/i,
    'must be http(s)://host[:port] without a path or trailing slash',
  ),
  z.refine((text) => URL.canParse(text), 'must be an address: its host or its port is none'),
)

/** JSON text; who uses it looks closer. */
const json = z.string().check(
  z.refine((text) => {
    try {
      JSON.parse(text)
      return true
    } catch {
      return false
    }
  }, 'must be JSON'),
)

const secret = z.string().check(z.minLength(32, 'must have at least 32 characters'))

/** A whole number within bounds, written in digits. */
function whole(min: number, max = Number.MAX_SAFE_INTEGER) {
  const message = `must be a whole number from ${min}${max === Number.MAX_SAFE_INTEGER ? '' : ` to ${max}`}`
  const digits = z.string(message).check(z.regex(/^-?\d+$/, message))
  const number = z.number(message).check(z.int(message), z.gte(min, message), z.lte(max, message))
  return z.pipe(z.pipe(digits, z.transform(Number)), number)
}

/** An IPv4 or IPv6 address, or a network of it as 10.0.0.0/8. */
function isNetwork(text: string): boolean {
  const [, address = '', bits = '0'] = /^([0-9a-f.:]+)(?:\/(\d{1,3}))?$/i.exec(text) ?? []
  if (address.includes(':')) return URL.canParse(`http://[${address}]`) && Number(bits) <= 128
  const octets = address.split('.')
  const isOctet = (octet: string) => /^\d{1,3}$/.test(octet) && Number(octet) <= 255
  return octets.length === 4 && octets.every(isOctet) && Number(bits) <= 32
}

/** Where the registry runs: a process with a data folder, or Cloudflare Workers. */
export type Surroundings = 'host' | 'workers'

/**
 * Every setting: its variable, default, schema and one line for --help and README; `on` where it
 * means something on hosts or on Workers only.
 */
export const SETTINGS = {
  SREG_HOST: {
    default: '127.0.0.1',
    on: 'host',
    schema: z.string().check(z.minLength(1)),
    help: 'address to listen on',
  },
  SREG_PORT: { default: '8080', on: 'host', schema: port, help: 'port to listen on' },
  SREG_DATA: {
    default: './sreg-data',
    on: 'host',
    schema: z.string().check(z.minLength(1)),
    help: 'folder for database, blobs and keys',
  },
  SREG_PUBLIC_URL: {
    default: '',
    schema: z.union([z.literal(''), url]),
    help: 'address that clients use, as http(s)://host[:port]; without it, taken from each request',
  },
  SREG_TLS_CERT: {
    default: '',
    on: 'host',
    schema: z.string(),
    help: 'certificate file (PEM) for https',
  },
  SREG_TLS_KEY: { default: '', on: 'host', schema: z.string(), help: 'key file (PEM) for https' },
  SREG_SECRET: {
    default: '',
    schema: z.union([z.literal(''), secret]),
    help: 'secret for tickets; without it, kept in the data folder',
  },
  SREG_SECRET_PREVIOUS: {
    default: '',
    schema: z.union([z.literal(''), secret]),
    help: 'the former secret, still accepted while tickets signed with it run out',
  },
  SREG_SETUP_SECRET: {
    default: '',
    schema: z.union([z.literal(''), secret]),
    help: 'secret that is good once for an administrator token, where no shell is at hand (sreg-lite claim)',
  },
  SREG_SIGNING_KEYS: {
    default: '',
    on: 'workers',
    schema: z.union([z.literal(''), json]),
    help: 'keys that sign tokens (JSON, as in signing-keys.json), on Workers, where it is required; elsewhere they are kept in the data folder',
  },
  SREG_TRUSTED_PROXIES: {
    default: '',
    on: 'host',
    schema: z.string(),
    help: 'addresses or networks (CIDR, comma-separated) whose X-Forwarded-* is believed; loopback always is',
  },
  SREG_SHORT_REFS: {
    default: 'default',
    schema: z.enum(['default', 'unique']),
    help: 'what library://collection/name means: a collection of the entity library, or the one visible collection of that name',
  },
  SREG_LOG: {
    default: 'auto',
    schema: z.enum(['auto', 'json', 'pretty', 'off']),
    help: 'form of the log lines on stderr; auto is pretty on a terminal, else json',
  },
  SREG_GRACE: {
    default: '30',
    on: 'host',
    schema: whole(0, 3600),
    help: 'seconds that running requests get at shutdown',
  },
  SREG_SWEEP_INTERVAL: {
    default: '900',
    on: 'host',
    schema: whole(1, 86400),
    help: 'seconds between two sweeps of expired uploads and unreferenced blobs',
  },
  SREG_SWEEP_GRACE: {
    default: '43200',
    schema: whole(0),
    help: 'seconds a deleted blob is kept; no shorter than the longest download ticket (43200) unless tests say so',
  },
  SREG_MIN_FREE: {
    default: '1073741824',
    on: 'host',
    schema: whole(0),
    help: 'bytes of disk that uploads must leave free (5 % of the disk if that is less)',
  },
  SREG_MAX_IMAGE: {
    default: '0',
    schema: whole(0),
    help: 'bytes of the largest image that may be pushed; 0 is no limit',
  },
  SREG_CHECK_SIGNATURES: {
    default: 'on',
    schema: z.enum(['on', 'off']),
    help: 'off leaves signatures of images unchecked (verdict pending), where CPU time is too short for them',
  },
  SREG_KEYS_ADD: {
    default: 'token',
    schema: z.enum(['token', 'anyone']),
    help: 'who may add public keys: whoever has a token with the scope keys, or anyone (gpg sends no token)',
  },
  SREG_KEYS_READ: {
    default: 'public',
    schema: z.enum(['public', 'token']),
    help: 'who may look public keys up: everybody, or whoever has a token',
  },
  SREG_TRUSTED_ISSUERS: {
    default: '',
    schema: z.string(),
    help: 'issuers (OIDC) whose tokens are accepted, with the rules for them (JSON; docs/issuers.md)',
  },
  SREG_READ_ONLY: {
    default: 'off',
    schema: z.enum(['on', 'off']),
    help: 'on refuses every push, delete and key; pulls go on',
  },
  SREG_ANONYMOUS_PULL: {
    default: 'on',
    schema: z.enum(['on', 'off']),
    help: 'off shows nothing to who has no token, public images included',
  },
  SREG_DEFAULT_PRIVATE: {
    default: 'off',
    schema: z.enum(['on', 'off']),
    help: 'on makes new collections private unless somebody makes them public',
  },
  SREG_PRIVATE_ONLY: {
    default: 'off',
    schema: z.enum(['on', 'off']),
    help: 'on makes new collections private, and nothing can be made public; what is public stays so until it is made private',
  },
  SREG_USER_COLLECTIONS: {
    default: 'on',
    schema: z.enum(['on', 'off']),
    help: 'off lets only staff and administrators make collections and teams',
  },
  SREG_USER_COLLECTION_LIMIT: {
    default: '0',
    schema: whole(0),
    help: 'collections that the entity of an ordinary user may have; 0 is no limit',
  },
  SREG_DEFAULT_QUOTA: {
    default: '0',
    schema: whole(0),
    help: 'bytes that the images of an entity may take, equal ones counted once, unless it has a quota of its own; 0 is no limit',
  },
  SREG_TOKEN_MAX_AGE: {
    default: '3650',
    schema: whole(1, 3650),
    help: 'days that a token may live at most; without a wish it lives a year, or this if that is less',
  },
  SREG_AUDIT_DAYS: {
    default: '365',
    schema: whole(1, 36500),
    help: 'days that the audit log is kept',
  },
  SREG_AUDIT_ROWS: {
    default: '1000000',
    schema: whole(1000),
    help: 'entries that the audit log keeps at most',
  },
  SREG_OCI_REFERRERS: {
    default: 'keep',
    schema: z.enum(['keep', 'delete']),
    help: 'what becomes of the manifests (signatures, SBOMs) that refer to one that is deleted by its digest over OCI: they stay, or go with it unless they have a tag or an index names them',
  },
  SREG_S3_BUCKET: {
    default: '',
    schema: z.string(),
    help: 'bucket for the blobs, on Amazon S3 or any server that speaks its protocol; without it, blobs are on disk',
  },
  SREG_S3_ENDPOINT: {
    default: '',
    schema: z.union([z.literal(''), url]),
    help: 'address of the S3 server as http(s)://host[:port]; without it, Amazon of the region',
  },
  SREG_S3_PUBLIC_ENDPOINT: {
    default: '',
    schema: z.union([z.literal(''), url]),
    help: 'address of the S3 server as clients reach it, for SREG_S3_REDIRECT; without it, SREG_S3_ENDPOINT',
  },
  SREG_S3_REGION: { default: 'us-east-1', schema: z.string(), help: 'region of the bucket' },
  SREG_S3_PREFIX: {
    default: '',
    schema: z
      .string()
      .check(z.regex(/^(?:[\w.-]+\/)*$/, 'must be words that each end in a slash, such as sreg/')),
    help: 'what the names of all objects begin with, such as sreg/; one registry per bucket and prefix',
  },
  SREG_S3_PATH_STYLE: {
    default: 'auto',
    schema: z.enum(['auto', 'on', 'off']),
    help: 'bucket in the path instead of the host name; auto is on when SREG_S3_ENDPOINT is given',
  },
  SREG_S3_ACCESS_KEY: {
    default: '',
    schema: z.string(),
    help: "access key id; without it, the SDK's own ways (AWS_* variables, instance roles)",
  },
  SREG_S3_SECRET_KEY: { default: '', schema: z.string(), help: 'secret access key' },
  SREG_S3_REDIRECT: {
    default: 'off',
    schema: z.enum(['on', 'off']),
    help: 'on lets clients exchange image bytes with the S3 server directly, by signed addresses',
  },
  SREG_LIMIT_REQUESTS: {
    default: '60000',
    schema: whole(0),
    help: 'requests per client address and minute, image bytes aside; 0 is no limit, here and below; loopback and trusted proxies are not counted',
  },
  SREG_LIMIT_LOGINS: {
    default: '60',
    schema: whole(0),
    help: 'refused tokens and secrets per client address and minute; valid ones always pass',
  },
  SREG_LIMIT_SEARCHES: {
    default: '600',
    schema: whole(0),
    help: 'searches per token, or per address without one, and minute',
  },
  SREG_LIMIT_KEYS: {
    default: '600',
    schema: whole(0),
    help: 'requests that add public keys, per token, or per address without one, and minute',
  },
  SREG_LIMIT_ANONYMOUS_DAY: {
    default: '0',
    schema: whole(0),
    help: 'API calls per address without a token and day (UTC)',
  },
  SREG_LIMIT_USER_DAY: {
    default: '0',
    schema: whole(0),
    help: 'API calls per user and day (UTC)',
  },
  SREG_LIMIT_CONTAINER_WEEK: {
    default: '0',
    schema: whole(0),
    help: 'pulls per container and week (from Monday, UTC), those of its owners and contributors aside',
  },
  SREG_LIMIT_COLLECTION_WEEK: {
    default: '0',
    schema: whole(0),
    help: 'the same per collection',
  },
  SREG_MAX_CONNECTIONS: {
    default: '64',
    on: 'host',
    schema: whole(1),
    help: 'open connections per client address; loopback and trusted proxies are not counted',
  },
} as const

export type Variable = keyof typeof SETTINGS

export type Config = Readonly<{
  host: string
  port: number
  data: string
  publicUrl: string | null
  tls: Readonly<{ cert: string; key: string }> | null
  secret: Secret | null
  secretPrevious: Secret | null
  /** JSON text, on Workers only. */
  signingKeys: Secret | null
  /** Good once for an administrator's token (R19); null is none. */
  setupSecret: Secret | null
  trustedProxies: readonly string[]
  shortRefs: 'default' | 'unique'
  log: 'auto' | 'json' | 'pretty' | 'off'
  /** Seconds. */
  grace: number
  sweepInterval: number
  sweepGrace: number
  /** Bytes. */
  minFree: number
  /** Bytes; null is no limit. */
  maxImage: number | null
  checkSignatures: boolean
  maxConnections: number
  limits: LimitsConfig
  /** Who may add keys, and look them up. */
  keys: Readonly<{ add: 'token' | 'anyone'; read: 'public' | 'token' }>
  access: Rules
  /** Bytes an entity may take unless it has its own quota; null is no limit. */
  defaultQuota: number | null
  /** Milliseconds. */
  tokenMaxAge: number
  audit: Readonly<{ days: number; rows: number }>
  /** What becomes of the referrers of a deleted manifest. */
  ociReferrers: 'keep' | 'delete'
  /** Whose tokens are accepted besides our own. */
  issuers: readonly TrustedIssuer[]
  /** Null keeps blobs on disk. */
  s3: S3Config | null
}>

/** How often what may be done; 0 is no limit. */
export type LimitsConfig = Readonly<{
  /** Per minute. */
  requests: number
  logins: number
  searches: number
  keys: number
  /** Per day. */
  anonymousDay: number
  userDay: number
  /** Per week. */
  containerWeek: number
  collectionWeek: number
}>

export type S3Config = Readonly<{
  bucket: string
  /** Null is Amazon's own for the region. */
  endpoint: string | null
  /** Where clients reach the store, for signed URLs; null is `endpoint`. */
  publicEndpoint: string | null
  region: string
  /** Empty, or ends in a slash. */
  prefix: string
  pathStyle: boolean
  /** Null leaves credentials to the SDK's own ways. */
  credentials: Readonly<{ accessKey: string; secretKey: Secret }> | null
  redirect: boolean
}>

/** A value that prints as ‹redacted› wherever it is printed; `reveal` is the only way out. */
export class Secret {
  readonly #value: string
  constructor(value: string) {
    this.#value = value
  }
  reveal(): string {
    return this.#value
  }
  toString(): string {
    return '‹redacted›'
  }
  toJSON(): string {
    return '‹redacted›'
  }
}

/**
 * Reads the environment. Returns a frozen, fully defaulted object, or throws one `invalid` error
 * whose message lists every problem with its variable's name. On Workers, what a host keeps in its
 * data folder must be given.
 */
export function parseConfig(
  env: Record<string, string | undefined>,
  surroundings: Surroundings = 'host',
): Config {
  const problems: string[] = []
  const values: Record<string, unknown> = {}
  for (const [name, setting] of Object.entries(SETTINGS)) {
    const raw = env[name]
    const result = setting.schema.safeParse(raw === undefined || raw === '' ? setting.default : raw)
    if (result.success) values[name] = result.data
    else {
      const shown = /SECRET|SIGNING/.test(name) ? '' : ` (it is ${JSON.stringify(raw)})`
      problems.push(`${name}: ${result.error.issues[0]?.message ?? 'not valid'}${shown}`)
    }
    if (raw && 'on' in setting && setting.on !== surroundings)
      problems.push(
        `${name}: means something on ${setting.on === 'host' ? 'a host of your own' : 'Cloudflare Workers'} only`,
      )
  }
  for (const name of Object.keys(env))
    if (name.startsWith('SREG_') && !(name in SETTINGS) && !name.startsWith('SREG_TEST_'))
      problems.push(`${name}: no such setting; see sreg-lite serve --help`)
  const v = values as { [K in Variable]: z.infer<(typeof SETTINGS)[K]['schema']> }
  if (surroundings === 'workers')
    for (const name of ['SREG_SECRET', 'SREG_SIGNING_KEYS'] as const)
      if (!env[name]) problems.push(`${name}: is required on Workers; see docs/workers.md`)
  if (surroundings === 'workers' && v.SREG_S3_BUCKET && !v.SREG_S3_ACCESS_KEY)
    problems.push('SREG_S3_ACCESS_KEY: is required on Workers, which have no other credentials')
  if (Boolean(v.SREG_TLS_CERT) !== Boolean(v.SREG_TLS_KEY))
    problems.push('SREG_TLS_CERT and SREG_TLS_KEY: give both or neither')
  if (Boolean(v.SREG_S3_ACCESS_KEY) !== Boolean(v.SREG_S3_SECRET_KEY))
    problems.push('SREG_S3_ACCESS_KEY and SREG_S3_SECRET_KEY: give both or neither')
  for (const name of Object.keys(SETTINGS))
    if (name.startsWith('SREG_S3_') && !v.SREG_S3_BUCKET && env[name] && name !== 'SREG_S3_BUCKET')
      problems.push(`${name}: means nothing without SREG_S3_BUCKET`)
  const proxies = (v.SREG_TRUSTED_PROXIES ?? '')
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
  for (const proxy of proxies)
    if (!isNetwork(proxy))
      problems.push(`SREG_TRUSTED_PROXIES: ${JSON.stringify(proxy)} is no address or network`)
  const trusted = parseIssuers(v.SREG_TRUSTED_ISSUERS ?? '')
  problems.push(...trusted.problems.map((problem) => `SREG_TRUSTED_ISSUERS: ${problem}`))
  if (problems.length > 0)
    throw new RegistryError(
      'invalid',
      `The configuration has ${problems.length} problem(s):\n${problems.map((p) => `  - ${p}`).join('\n')}`,
    )
  return Object.freeze({
    host: v.SREG_HOST,
    port: v.SREG_PORT,
    data: v.SREG_DATA,
    publicUrl: v.SREG_PUBLIC_URL === '' ? null : v.SREG_PUBLIC_URL,
    tls:
      v.SREG_TLS_CERT === '' ? null : Object.freeze({ cert: v.SREG_TLS_CERT, key: v.SREG_TLS_KEY }),
    secret: v.SREG_SECRET === '' ? null : new Secret(v.SREG_SECRET),
    secretPrevious: v.SREG_SECRET_PREVIOUS === '' ? null : new Secret(v.SREG_SECRET_PREVIOUS),
    signingKeys: v.SREG_SIGNING_KEYS === '' ? null : new Secret(v.SREG_SIGNING_KEYS),
    setupSecret: v.SREG_SETUP_SECRET === '' ? null : new Secret(v.SREG_SETUP_SECRET),
    trustedProxies: Object.freeze(proxies),
    shortRefs: v.SREG_SHORT_REFS,
    log: v.SREG_LOG,
    grace: v.SREG_GRACE,
    sweepInterval: v.SREG_SWEEP_INTERVAL,
    sweepGrace: v.SREG_SWEEP_GRACE,
    minFree: v.SREG_MIN_FREE,
    maxImage: v.SREG_MAX_IMAGE === 0 ? null : v.SREG_MAX_IMAGE,
    checkSignatures: v.SREG_CHECK_SIGNATURES === 'on',
    maxConnections: v.SREG_MAX_CONNECTIONS,
    limits: Object.freeze({
      requests: v.SREG_LIMIT_REQUESTS,
      logins: v.SREG_LIMIT_LOGINS,
      searches: v.SREG_LIMIT_SEARCHES,
      keys: v.SREG_LIMIT_KEYS,
      anonymousDay: v.SREG_LIMIT_ANONYMOUS_DAY,
      userDay: v.SREG_LIMIT_USER_DAY,
      containerWeek: v.SREG_LIMIT_CONTAINER_WEEK,
      collectionWeek: v.SREG_LIMIT_COLLECTION_WEEK,
    }),
    keys: Object.freeze({ add: v.SREG_KEYS_ADD, read: v.SREG_KEYS_READ }),
    access: Object.freeze({
      readOnly: v.SREG_READ_ONLY === 'on',
      anonymousPull: v.SREG_ANONYMOUS_PULL === 'on',
      userCollections: v.SREG_USER_COLLECTIONS === 'on',
      userCollectionLimit: v.SREG_USER_COLLECTION_LIMIT || null,
      defaultPrivate: v.SREG_DEFAULT_PRIVATE === 'on',
      privateOnly: v.SREG_PRIVATE_ONLY === 'on',
    }),
    defaultQuota: v.SREG_DEFAULT_QUOTA || null,
    tokenMaxAge: v.SREG_TOKEN_MAX_AGE * 86_400_000,
    audit: Object.freeze({ days: v.SREG_AUDIT_DAYS, rows: v.SREG_AUDIT_ROWS }),
    ociReferrers: v.SREG_OCI_REFERRERS,
    issuers: Object.freeze(trusted.issuers),
    s3:
      v.SREG_S3_BUCKET === ''
        ? null
        : Object.freeze({
            bucket: v.SREG_S3_BUCKET,
            endpoint: v.SREG_S3_ENDPOINT === '' ? null : v.SREG_S3_ENDPOINT,
            publicEndpoint: v.SREG_S3_PUBLIC_ENDPOINT === '' ? null : v.SREG_S3_PUBLIC_ENDPOINT,
            region: v.SREG_S3_REGION,
            prefix: v.SREG_S3_PREFIX,
            pathStyle:
              v.SREG_S3_PATH_STYLE === 'auto'
                ? v.SREG_S3_ENDPOINT !== ''
                : v.SREG_S3_PATH_STYLE === 'on',
            credentials:
              v.SREG_S3_ACCESS_KEY === ''
                ? null
                : Object.freeze({
                    accessKey: v.SREG_S3_ACCESS_KEY,
                    secretKey: new Secret(v.SREG_S3_SECRET_KEY),
                  }),
            redirect: v.SREG_S3_REDIRECT === 'on',
          }),
  })
}

/** The effective configuration, secrets redacted, for the start-up line. */
export function describeConfig(config: Config): Record<string, unknown> {
  return JSON.parse(JSON.stringify(config)) as Record<string, unknown>
}
