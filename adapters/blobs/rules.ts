/**
 * The rules of the BlobStore port that do not depend on where the bytes lie: key grammar, ranges,
 * bodies, parts, their writers. Every store stands on these.
 */
import { createHash, randomBytes } from 'node:crypto'
import { RegistryError } from '../../src/errors.ts'
import type { BlobPart, ByteRange, Bytes, Sink } from '../../src/ports.ts'

const KEY = /^[0-9a-f]{24}$/

/** Throws `invalid` unless every key has the grammar of the port. */
export function checkKeys(...keys: string[]): void {
  if (!keys.every((key) => KEY.test(key))) {
    throw new RegistryError('invalid', 'A blob key is 24 lower-case hex digits.', {
      subject: 'blob',
    })
  }
}

/** A name nobody can guess or repeat, shaped like a key: upload handles, etags of parts. */
export const randomName = () => randomBytes(12).toString('hex')

/** Keys are written once, so the key says all that an etag has to say. */
export const etagOf = (key: string) => `"${key}"`

export const keyTaken = () =>
  new RegistryError('conflict', 'This blob is stored already and is never replaced.', {
    subject: 'blob',
  })

export const noSuchUpload = () =>
  new RegistryError('not_found', 'This upload does not exist or has ended.', { subject: 'upload' })

export const beingFinished = () =>
  new RegistryError('conflict', 'This upload is being finished and takes no more parts.', {
    subject: 'upload',
  })

export const noSpace = (cause?: unknown) =>
  new RegistryError(
    'insufficient_storage',
    'The registry has no space left for these bytes; its administrator must make room.',
    { subject: 'blob', cause },
  )

/** Throws `invalid` unless `id` is one printable line, so that every store can give it back. */
export function checkId(id: string): void {
  if (!/^[\x21-\x7e]{1,200}$/.test(id)) {
    throw new RegistryError('invalid', 'A registry id is one printable word.')
  }
}

/** A missing blob says nothing where the whole store may be missing (R10, R60). */
export const storeAway = () =>
  new RegistryError(
    'unavailable',
    "The folder of this registry's blobs is away: its disk must be mounted again. Try again in a minute.",
    { subject: 'blob', retryAfter: 30 },
  )

export const otherRegistry = () =>
  new RegistryError('conflict', 'This blob store belongs to another registry.')

/** Clips an asked-for range to a blob of `size` bytes; `range_unsatisfiable` if nothing is left. */
export function clipRange(size: number, range?: ByteRange): ByteRange {
  if (range === undefined) return { start: 0, end: size - 1 }
  const { start, end } = range
  if (!(start >= 0 && start < size && end >= start)) {
    throw new RegistryError('range_unsatisfiable', `The blob has only ${size} bytes.`, {
      subject: 'blob',
      detail: { size },
    })
  }
  return { start, end: Math.min(end, size - 1) }
}

/** One page of sorted keys, at most `limit` of them. */
export function pageOf(keys: string[], limit: number): { keys: string[]; cursor: string | null } {
  const page = keys.slice(0, Math.min(limit, 1000))
  return { keys: page, cursor: keys.length > page.length ? (page.at(-1) ?? null) : null }
}

export type ReceiveOptions = {
  sha256?: string
  onChunk?: (chunk: Uint8Array) => void
  /** SHA-256 of all that `onChunk` has seen, where its owner knows that anyway: nothing is hashed twice. */
  digest?: () => string
  /** Ends the work at once with the signal's reason, even while the body stalls (R1). */
  signal?: AbortSignal
}

/**
 * Hands a body of exactly `size` bytes to `sink`, chunk by chunk, each awaited. Reading stops at
 * the first byte too many: `size_mismatch`, as for a short body; another SHA-256 than the one
 * given is `digest_mismatch`. However it ends, the body is released.
 */
export async function receive(
  body: Bytes,
  size: number,
  sink: Sink,
  { sha256, onChunk, digest, signal }: ReceiveOptions = {},
): Promise<void> {
  checkSize(size)
  const hash = sha256 === undefined || digest !== undefined ? null : createHash('sha256')
  let received = 0
  const take = (chunk: Uint8Array) => {
    if (chunk.length === 0) return
    received += chunk.length
    if (received > size) throw wrongSize(size, 'more')
    hash?.update(chunk)
    onChunk?.(chunk)
    return sink(chunk)
  }
  await (body.each === undefined ? drawn(body, take, signal) : body.each(take, signal))
  if (received < size) throw wrongSize(size, `only ${received}`)
  if (sha256 !== undefined && (digest?.() ?? hash?.digest('hex')) !== sha256.toLowerCase()) {
    throw new RegistryError('digest_mismatch', 'The bytes received have another SHA-256.', {
      subject: 'blob',
    })
  }
}

/** `Bytes.each` of bytes that have none. */
async function drawn(body: Bytes, sink: Sink, signal?: AbortSignal): Promise<void> {
  const source = body[Symbol.asyncIterator]()
  // Not Promise.race with one long-lived promise: that would keep every chunk until the end.
  let interrupt: (reason: unknown) => void = () => {}
  const onAbort = () => interrupt(signal?.reason)
  signal?.addEventListener('abort', onAbort)
  let ended = false
  try {
    for (;;) {
      signal?.throwIfAborted()
      const step = await new Promise<IteratorResult<Uint8Array>>((resolve, reject) => {
        interrupt = reject
        source.next().then(resolve, reject)
      })
      if (step.done === true) break
      await sink(step.value)
    }
    ended = true
  } finally {
    signal?.removeEventListener('abort', onAbort)
    // Not awaited: a stalled generator answers only when its own wait is over.
    if (!ended) source.return?.().catch(() => {})
  }
}

const wrongSize = (size: number, came: string) =>
  new RegistryError('size_mismatch', `${size} bytes were announced, ${came} came.`, {
    subject: 'blob',
  })

/** Throws `invalid` for what is no number of bytes. */
export function checkSize(size: number): void {
  if (!Number.isSafeInteger(size) || size < 0) {
    throw new RegistryError('invalid', 'A size is a whole number of bytes.', { subject: 'blob' })
  }
}

/** How an upload is cut: parts of `partSize` bytes, the last one shorter; `size` null: of any number. */
export type Plan = { size: number | null; partSize: number }

export function checkPlan(plan: Plan): void {
  checkSize(plan.size ?? 0)
  checkSize(plan.partSize)
  if (plan.partSize === 0) {
    throw new RegistryError('invalid', 'Parts have at least one byte.', { subject: 'upload' })
  }
}

/** Throws `invalid` unless part `number` exists in the plan and has exactly `size` bytes. */
export function checkPart(plan: Plan, number: number, size: number): void {
  const start = (number - 1) * plan.partSize
  const exact = plan.size === null ? null : Math.min(plan.partSize, plan.size - start)
  const fits = exact === null ? size > 0 && size <= plan.partSize : exact > 0 && size === exact
  if (!Number.isSafeInteger(number) || number < 1 || !fits) {
    throw new RegistryError('invalid', `Part ${number} of ${size} bytes is not in this upload.`, {
      subject: 'upload',
    })
  }
}

/** Throws `invalid` unless `parts` are exactly 1..P in order with the recorded etags (R22). */
export function checkParts(
  plan: Plan,
  etagOfPart: (number: number) => string | undefined,
  parts: BlobPart[],
): void {
  const complete =
    plan.size === null ? parts.length > 0 : parts.length === Math.ceil(plan.size / plan.partSize)
  const wrong = parts.findIndex(
    (part, index) => part.number !== index + 1 || part.etag !== etagOfPart(part.number),
  )
  if (complete && wrong === -1) return
  const sentence =
    wrong === -1
      ? 'The list of parts is not complete.'
      : `Part ${wrong + 1} is missing or is not the one that was received last.`
  throw new RegistryError('invalid', sentence, { subject: 'upload' })
}

/**
 * Bytes of an upload whose parts have these sizes, in order: `invalid` when one that is not the last
 * is short, which a plan without a size cannot know before.
 */
export function sizeOfParts(plan: Plan, sizes: readonly number[]): number {
  if (plan.size !== null) return plan.size
  if (sizes.slice(0, -1).some((size) => size !== plan.partSize))
    throw new RegistryError('invalid', 'A part that is not the last one is too short.', {
      subject: 'upload',
    })
  return sizes.reduce((sum, size) => sum + size, 0)
}

/** The running writers of one upload. */
export type PartWriters = {
  /** Runs `work` as the one writer of a part, after an earlier one was ended (R1). */
  run<T>(number: number, work: (signal: AbortSignal) => Promise<T>): Promise<T>
  /** Ends all writers with `reason`; resolves when each has let go of the bytes. */
  end(reason: RegistryError): Promise<void>
}

export function partWriters(): PartWriters {
  const running = new Map<number, { stop: AbortController; settled: Promise<unknown> }>()
  return {
    async run(number, work) {
      const earlier = running.get(number)
      earlier?.stop.abort(
        new RegistryError('conflict', `Part ${number} is being sent again.`, { subject: 'upload' }),
      )
      const stop = new AbortController()
      const result = Promise.resolve(earlier?.settled).then(() => {
        stop.signal.throwIfAborted()
        return work(stop.signal)
      })
      const writer = { stop, settled: result.catch(() => {}) }
      running.set(number, writer)
      try {
        return await result
      } finally {
        if (running.get(number) === writer) running.delete(number)
      }
    },

    async end(reason) {
      const writers = [...running.values()]
      for (const { stop } of writers) stop.abort(reason)
      await Promise.all(writers.map((writer) => writer.settled))
    },
  }
}
