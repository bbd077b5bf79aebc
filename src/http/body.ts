/** Request bodies: small JSON with limits on size and depth, and the length of large ones. */
import type { ZodMiniType } from 'zod/mini'
import { RegistryError } from '../errors.ts'
import type { Ctx } from './context.ts'
import type { Transfer } from './transfer.ts'

/** Deepest nesting of arrays and objects that is parsed (R54). */
const DEEPEST = 16

const invalid = (message: string, cause?: unknown) =>
  new RegistryError('invalid', message, { subject: 'request', cause })

/**
 * Reads a JSON body of at most `cap` bytes and checks its shape. The Content-Type is not looked at:
 * clients in the wild send none, or form types. An empty body is `{}`. More than `cap` bytes are
 * `too_large` without being read; anything else that does not fit is `invalid`, naming the field.
 */
export async function readJson<T>(
  c: Ctx,
  transfer: Transfer,
  schema: ZodMiniType<T>,
  cap = 65_536,
): Promise<T> {
  const text = await readText(c, transfer, cap)
  const result = schema.safeParse(text.trim() === '' ? {} : parse(text))
  if (result.success) return result.data
  const issue = result.error.issues[0]
  const field = issue?.path.map(String).join('.') ?? ''
  throw invalid(`The body does not fit: ${field === '' ? '' : `${field}: `}${issue?.message ?? ''}`)
}

/**
 * Reads a UTF-8 body of at most `cap` bytes: `too_large` beyond, `invalid` when it is no UTF-8.
 */
export async function readText(c: Ctx, transfer: Transfer, cap: number): Promise<string> {
  const bytes = await readBytes(c, transfer, cap)
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (error) {
    throw invalid('The body is not UTF-8', error)
  }
}

/** Reads a body of at most `cap` bytes as it is: `too_large` beyond, without reading on. */
export async function readBytes(c: Ctx, transfer: Transfer, cap: number): Promise<Uint8Array> {
  const tooLarge = () =>
    new RegistryError('too_large', `The body is larger than ${cap} bytes`, { subject: 'request' })
  if (Number(c.req.header('content-length') ?? 0) > cap) throw tooLarge()
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of transfer.receive(c)) {
    size += chunk.length
    if (size > cap) throw tooLarge()
    chunks.push(chunk)
  }
  const bytes = new Uint8Array(size)
  let at = 0
  for (const chunk of chunks) {
    bytes.set(chunk, at)
    at += chunk.length
  }
  return bytes
}

/**
 * The Content-Length of a body in bytes: `length_required` when there is none (chunked),
 * `invalid` when it is no whole number.
 */
export function contentLength(c: Ctx): number {
  const header = c.req.header('content-length')
  if (header === undefined)
    throw new RegistryError('length_required', 'This needs a Content-Length', {
      subject: 'request',
    })
  const length = Number(header)
  if (!/^\d+$/.test(header) || !Number.isSafeInteger(length))
    throw invalid('The Content-Length is no whole number of bytes')
  return length
}

function parse(text: string): unknown {
  if (depth(text) > DEEPEST) throw invalid(`The body is nested deeper than ${DEEPEST} levels`)
  try {
    return JSON.parse(text)
  } catch (error) {
    throw invalid('The body is not JSON', error)
  }
}

/** Deepest nesting of brackets outside strings; counted before parsing, in one pass. */
function depth(text: string): number {
  let deepest = 0
  let level = 0
  let quoted = false
  for (let i = 0; i < text.length; i++) {
    const character = text[i]
    if (quoted) {
      if (character === '\\') i++
      else if (character === '"') quoted = false
    } else if (character === '"') quoted = true
    else if (character === '{' || character === '[') deepest = Math.max(deepest, ++level)
    else if (character === '}' || character === ']') level--
  }
  return deepest
}
