/** The spec's envelope and codes for everything that can go wrong (distribution-spec, "Error Codes"). */
import {
  isRegistryError,
  STATUS,
  type ErrorCode,
  type ErrorSubject,
  type RegistryError,
} from '../errors.ts'
import type { Ctx } from '../http/context.ts'
import { PRIVATE } from '../http/json-resp.ts'
import type { OriginConfig } from '../http/origin.ts'
import { challenge } from './authenticate.ts'
import { reply } from '../http/reply.ts'

/** Codes by subject, where what it is about decides; `else` for every other. */
type Word = string | ({ else: string } & Partial<Record<ErrorSubject, string>>)

/** UNAVAILABLE and UNKNOWN are not the spec's, which has none for what is the server's own fault. */
const WORDS: Record<ErrorCode, Word> = {
  invalid: {
    name: 'NAME_INVALID',
    manifest: 'MANIFEST_INVALID',
    tag: 'MANIFEST_INVALID',
    blob: 'MANIFEST_BLOB_UNKNOWN',
    else: 'BLOB_UPLOAD_INVALID',
  },
  unauthenticated: 'UNAUTHORIZED',
  denied: 'DENIED',
  not_found: {
    manifest: 'MANIFEST_UNKNOWN',
    blob: 'BLOB_UNKNOWN',
    upload: 'BLOB_UPLOAD_UNKNOWN',
    else: 'NAME_UNKNOWN',
  },
  conflict: { upload: 'BLOB_UPLOAD_INVALID', else: 'DENIED' },
  length_required: 'SIZE_INVALID',
  too_large: 'SIZE_INVALID',
  quota_exceeded: 'DENIED',
  digest_mismatch: 'DIGEST_INVALID',
  size_mismatch: 'SIZE_INVALID',
  range_unsatisfiable: 'BLOB_UPLOAD_INVALID',
  rate_limited: 'TOOMANYREQUESTS',
  unsupported: 'UNSUPPORTED',
  unimplemented: 'UNSUPPORTED',
  unavailable: 'UNAVAILABLE',
  insufficient_storage: 'DENIED',
  internal: 'UNKNOWN',
}

/** The spec's word for an error. */
export function wordOf({ code, subject }: Pick<RegistryError, 'code' | 'subject'>): string {
  const word = WORDS[code]
  if (typeof word === 'string') return word
  return (subject === undefined ? undefined : word[subject]) ?? word.else
}

/** Answers `{"errors":[{code, message, detail}]}`; 401 with a challenge that depends on the address only (R31). */
export function errorAnswers(config: OriginConfig) {
  return (error: RegistryError, c: Ctx): Response => {
    if (error.code !== 'unauthenticated') return answer(error, c, {})
    try {
      return answer(error, c, {
        'WWW-Authenticate': challenge(c, config),
        'Docker-Distribution-Api-Version': 'registry/2.0',
      })
    } catch (cause) {
      // a Host that is none: there is no address to send anybody to
      if (isRegistryError(cause, 'invalid')) return answer(cause, c, {})
      throw cause
    }
  }
}

function answer(error: RegistryError, c: Ctx, headers: Record<string, string>): Response {
  const { message, detail } = error
  const body = {
    errors: [{ code: wordOf(error), message, ...(detail === undefined ? {} : { detail }) }],
  }
  return reply(JSON.stringify(body), STATUS[error.code], {
    'Content-Type': 'application/json',
    ...PRIVATE,
    ...(error.retryAfter === undefined ? {} : { 'Retry-After': String(error.retryAfter) }),
    ...headers,
  })
}
