/**
 * The json-resp envelope of every JSON API: `{"data":…}` or `{"error":{"code","message"}}`
 * (protocol.md §2). Clients print the message.
 */
import { STATUS, type RegistryError } from '../errors.ts'
import { reply } from './reply.ts'

/** Headers of answers that depend on who asks (R28). */
export const PRIVATE = { 'Cache-Control': 'private, no-store', Vary: 'Authorization' } as const

const JSON_HEADERS = { 'Content-Type': 'application/json', ...PRIVATE }

/** Answers 200 `{"data": …}`: create calls too, since 200 and 201 mean the same to every client. */
export function data(value: unknown): Response {
  return written(JSON.stringify(value))
}

/** The same of JSON that is text already. */
export const written = (json: string): Response => reply(`{"data":${json}}`, 200, JSON_HEADERS)

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
export function onError(error: RegistryError): Response {
  return reply(envelope(error), STATUS[error.code], errorHeaders(error))
}
