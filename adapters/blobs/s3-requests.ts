/** How requests go to an S3 server: tries, stalls, bodies of known length, and what failures mean. */
import type { RegistryError as Fault } from '../../src/errors.ts'
import { isRegistryError, RegistryError } from '../../src/errors.ts'
import type { Bytes } from '../../src/ports.ts'
import { noSpace, receive } from './rules.ts'
import type { ReceiveOptions } from './rules.ts'

const TRIES = 3
const BACKOFF_MS = 100

/** HTTP status of a refusal by the store; null when no answer was understood. */
export function statusOf(error: unknown): number | null {
  const { $metadata: metadata } = (error ?? {}) as { $metadata?: { httpStatusCode?: number } }
  return metadata?.httpStatusCode ?? null
}

/** The store's own word for a refusal, such as `NoSuchUpload`. */
export const nameOf = (error: unknown) => (error instanceof Error ? error.name : '')

/** True when the store may have done what it was asked, or may do it when asked again. */
export function isPassing(error: unknown): boolean {
  const status = statusOf(error)
  return (
    status === null ||
    status < 300 ||
    status >= 500 ||
    status === 429 ||
    ['SlowDown', 'RequestTimeout', 'RequestTimeTooSkewed'].includes(nameOf(error))
  )
}

const stalled = () =>
  unavailable('The storage of this registry does not answer; try again in a minute.')

function unavailable(message: string, cause?: unknown): Fault {
  return new RegistryError('unavailable', message, { subject: 'blob', retryAfter: 30, cause })
}

/** What a failed request means to people, in a sentence without names of the store's inside. */
export function faultOf(error: unknown): unknown {
  if (isRegistryError(error)) return error
  const [status, name] = [statusOf(error), nameOf(error)]
  if (status === 507 || /QuotaExceeded|StorageFull|InsufficientStorage/.test(name))
    return noSpace(error)
  if (name === 'EntityTooLarge')
    return new RegistryError(
      'too_large',
      'The storage of this registry does not take so much in one piece; use a client that pushes in parts.',
      { subject: 'blob', cause: error },
    )
  if (name === 'RequestTimeTooSkewed')
    return unavailable(
      'The clocks of this registry and of its storage differ too much; tell the administrator.',
      error,
    )
  if (/SHA256Mismatch|BadDigest|IncompleteBody/.test(name))
    return unavailable('The bytes were damaged on the way to the storage; try again.', error)
  if (isPassing(error))
    return unavailable('The storage of this registry failed; try again in a minute.', error)
  if (status === 401 || status === 403 || name === 'NoSuchBucket')
    return unavailable(
      'The storage of this registry refuses to work for it; tell the administrator.',
      error,
    )
  return new RegistryError('internal', 'The storage of this registry refused a request.', {
    subject: 'blob',
    cause: error,
  })
}

/**
 * Sends a request that may be repeated, up to three times while it fails for reasons that pass,
 * each try given `idleMs` to be answered. Errors stay the store's own, but for a stall. The
 * controller handed to `request` ends it, also when the answer's body is being read.
 */
export async function ask<T>(
  request: (stop: AbortController) => Promise<T>,
  { idleMs, tries = TRIES }: { idleMs: number; tries?: number },
): Promise<T> {
  for (let tried = 1; ; tried++) {
    const stop = new AbortController()
    const timer = setTimeout(() => stop.abort(stalled()), idleMs)
    try {
      return await request(stop)
    } catch (error) {
      const fault: unknown = stop.signal.aborted ? stop.signal.reason : error
      if (tried >= tries || !isPassing(fault)) throw fault
      await new Promise((resolve) => setTimeout(resolve, BACKOFF_MS * 3 ** tried))
    } finally {
      clearTimeout(timer)
    }
  }
}

/**
 * Sends a body of exactly `size` bytes with `send`, never holding more than a chunk. The last
 * chunk waits until size and SHA-256 are known to be right: a body that is wrong never arrives
 * whole, so that no store can take it for good. The client may be slow; a store that takes or
 * answers nothing for `idleMs` is given up. Not repeated: the bytes come once.
 */
export async function sendBody<T>(
  send: (chunks: AsyncIterable<Uint8Array>, signal: AbortSignal) => Promise<T>,
  body: Bytes,
  size: number,
  { idleMs, signal, ...options }: ReceiveOptions & { idleMs: number },
): Promise<T> {
  const stop = new AbortController()
  const ended = signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal])
  const channel = handover()
  ended.addEventListener('abort', () => channel.fail(ended.reason))
  /** Waits for the store, but not for ever. */
  async function storeTo<R>(work: Promise<R>): Promise<R> {
    const timer = setTimeout(() => stop.abort(stalled()), idleMs)
    try {
      return await work
    } finally {
      clearTimeout(timer)
    }
  }
  let sending: Promise<T> | null = null
  const begin = () => {
    sending = send(channel.chunks(), ended)
    sending.catch((error: unknown) => stop.abort(error))
    return sending
  }
  let last: Uint8Array | null = null
  try {
    if (size > 0) void begin()
    const sink = async (chunk: Uint8Array) => {
      if (last !== null) await storeTo(channel.give(last))
      last = chunk
    }
    await receive(body, size, sink, { ...options, signal: ended })
    const answer = sending ?? begin()
    if (last !== null) await storeTo(channel.give(last))
    channel.end()
    return await storeTo(answer)
  } catch (error) {
    const reason: unknown = ended.aborted ? ended.reason : error
    stop.abort(reason)
    // The request is dead before anybody else may write (R1).
    await (sending as Promise<T> | null)?.catch(() => {})
    throw reason
  }
}

/** Hands chunks one by one from who has them to who asks for them. */
function handover() {
  let offered = Promise.withResolvers<Uint8Array | null>()
  let taken = Promise.withResolvers<void>()
  let failure: { reason: unknown } | null = null
  return {
    /** Resolves when the next chunk is wanted. */
    give(chunk: Uint8Array): Promise<void> {
      if (failure !== null) return Promise.reject(failure.reason)
      taken = Promise.withResolvers()
      offered.resolve(chunk)
      return taken.promise
    },
    end(): void {
      offered.resolve(null)
    },
    fail(reason: unknown): void {
      failure = { reason }
      taken.promise.catch(() => {})
      taken.reject(reason)
      offered.promise.catch(() => {})
      offered.reject(reason)
    },
    async *chunks(): AsyncGenerator<Uint8Array> {
      for (;;) {
        const chunk = await offered.promise
        if (chunk === null) return
        if (failure === null) offered = Promise.withResolvers()
        yield chunk
        taken.resolve()
      }
    },
  }
}
