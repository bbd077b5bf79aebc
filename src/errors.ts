/**
 * The closed list of things that can go wrong. Inside the registry there is only this type;
 * each protocol folder owns one table that turns it into its own envelope.
 */

export type ErrorCode =
  | 'invalid'
  | 'unauthenticated'
  | 'denied'
  | 'not_found'
  | 'conflict'
  | 'length_required'
  | 'too_large'
  | 'quota_exceeded'
  | 'digest_mismatch'
  | 'size_mismatch'
  | 'range_unsatisfiable'
  | 'rate_limited'
  | 'unsupported'
  | 'unimplemented'
  | 'unavailable'
  | 'insufficient_storage'
  | 'internal'

export type ErrorSubject =
  | 'name'
  | 'entity'
  | 'collection'
  | 'container'
  | 'image'
  | 'tag'
  | 'blob'
  | 'manifest'
  | 'upload'
  | 'key'
  | 'token'
  | 'policy'
  | 'share'
  | 'user'
  | 'team'
  | 'request'
  | 'route'

/** HTTP status of each code. Statuses live here once; envelopes live with their protocol. */
export const STATUS: Record<ErrorCode, number> = {
  invalid: 400,
  unauthenticated: 401,
  denied: 403,
  not_found: 404,
  conflict: 409,
  length_required: 411,
  too_large: 413,
  quota_exceeded: 403,
  digest_mismatch: 400,
  size_mismatch: 400,
  range_unsatisfiable: 416,
  rate_limited: 429,
  unsupported: 405,
  unimplemented: 501,
  unavailable: 503,
  insufficient_storage: 507,
  internal: 500,
}

export type ErrorOptions = {
  subject?: ErrorSubject
  /** Seconds after which trying again makes sense; becomes Retry-After. */
  retryAfter?: number
  /** Values a protocol may show in its envelope; never a secret, path or SQL. */
  detail?: Record<string, string | number>
  cause?: unknown
}

/**
 * A failure with a sentence written for the person at the terminal: Apptainer prints the message
 * verbatim with the status (transcripts push-initfail-409, search-401).
 */
export class RegistryError extends Error {
  readonly code: ErrorCode
  readonly subject: ErrorSubject | undefined
  readonly retryAfter: number | undefined
  readonly detail: Record<string, string | number> | undefined

  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'RegistryError'
    this.code = code
    this.subject = options.subject
    this.retryAfter = options.retryAfter
    this.detail = options.detail
  }
}

/** True for a RegistryError with one of the given codes (or any code when none is given). */
export function isRegistryError(error: unknown, ...codes: ErrorCode[]): error is RegistryError {
  return error instanceof RegistryError && (codes.length === 0 || codes.includes(error.code))
}
