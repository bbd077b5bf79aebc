/**
 * The json-resp envelope of every JSON API: `{"data":…}` or `{"error":{"code","message"}}`
 * (protocol.md §2). Clients print the message.
 */
import type { Ctx } from './context.ts'
import { STATUS, type RegistryError } from '../errors.ts'

/** Headers of answers that depend on who asks (R28). */
export const PRIVATE = { 'Cache-Control': 'private, no-store', Vary: 'Authorization' } as const

/** Answers 200 `{"data": …}`: create calls too, since 200 and 201 mean the same to every client. */
export function data(c: Ctx, value: unknown): Response {
  return c.body(JSON.stringify({ data: value }), 200, {
    'Content-Type': 'application/json',
    ...PRIVATE,
  })
}

/** The envelope as text, for answers that are not made by Hono. */
export function envelope(error: RegistryError): string {
  return JSON.stringify({ error: { code: STATUS[error.code], message: error.message } })
}

/** Headers of a refusal. */
export function errorHeaders(error: RegistryError): Record<string, string> {
  return {
    'Content-Type': 'application/json',
    ...PRIVATE,
    ...(error.retryAfter === undefined ? {} : { 'Retry-After': String(error.retryAfter) }),
    ...(error.code === 'unauthenticated' ? { 'WWW-Authenticate': 'Bearer' } : {}),
  }
}

/** Answers with the envelope; 404s all look alike, whatever they hide (R26). */
export function onError(error: RegistryError, c: Ctx): Response {
  return c.body(envelope(error), STATUS[error.code] as 400, errorHeaders(error))
}
