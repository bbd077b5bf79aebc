/** The way of the bytes as a port, because web streams cost a Node server most of its throughput. */
import { RegistryError } from '../errors.ts'
import type { BlobRead, Bytes } from '../ports.ts'
import type { Ctx } from './context.ts'
import { reply } from './reply.ts'

export type Transfer = {
  /**
   * The request's body, iterated once. A body that breaks off throws `invalid`, so that what was
   * received is not taken for whole. Leaving the iteration early keeps the connection, so that the
   * answer can still be read.
   */
  receive(c: Ctx): Bytes
  /**
   * Answers with the bytes of `blob.range`; owns the blob and closes it whatever happens. `headers`
   * hold the Content-Length. A read that fails on the way breaks the connection (R5).
   */
  send(
    c: Ctx,
    status: 200 | 206,
    headers: Record<string, string>,
    blob: BlobRead,
  ): Response | Promise<Response>
  /**
   * Answers with a status and a sentence in a body that never ends properly: the one form in which
   * a failure does not become image bytes at clients that look at nothing else (R5). `headers`
   * hold no Content-Length.
   */
  breakOff(
    c: Ctx,
    status: number,
    headers: Record<string, string>,
    body: string,
  ): Response | Promise<Response>
}

/** The error of a body that broke off before its end. */
export function endedEarly(cause?: unknown): RegistryError {
  return new RegistryError('invalid', 'The body ended early: nothing was stored', {
    subject: 'request',
    cause,
  })
}

/** What a peer that is waited for must move. */
export type Rate = { bytesPerSecond: number; seconds: number }

const KIB = 1024
/** Memory of all downloads together, as long as each still gets its smallest buffer (R49). */
const BUDGET = 64 * KIB * KIB
const SMALLEST = 64 * KIB
const LARGEST = KIB * KIB

/** A body that is written instead of being asked for. */
export type Poured = {
  /**
   * Writes all of it: each chunk may be reused once its `write` has settled. Rejects, without a reason,
   * when the answer must not end well (R5).
   */
  pour(write: (chunk: Uint8Array) => unknown): Promise<void>
  /** To be called when the client has left. */
  cancel(): void
}

/**
 * Transfer over web streams: works on every runtime. With `minimumRate`, a peer that moves less
 * while it is waited for is cut off (R48); without, that is the platform's business. `poured` makes
 * a body of the runtime's own kind where that has one that is written to.
 */
export function streamTransfer({
  minimumRate,
  poured,
}: { minimumRate?: Rate; poured?: (body: Poured) => ReadableStream<Uint8Array> } = {}): Transfer {
  const watch = minimumRate === undefined ? null : watchPeers(minimumRate)
  let active = 0

  return {
    async *receive(c) {
      const reader = c.req.raw.body?.getReader()
      if (reader === undefined) return
      const length = c.req.header('content-length')
      const { entry } = c.env
      let received = 0
      let cut: (() => void) | null = null
      let tooLate = false
      // Cancelling the body would not settle a read on Deno.
      const peer = watch?.(() => {
        c.env.hangUp?.()
        tooLate = true
        cut?.()
      })
      // No Promise.race with one promise for all reads: that one would keep every chunk.
      const read = () =>
        new Promise<ReadableStreamReadResult<Uint8Array>>((resolve, reject) => {
          cut = () => reject(tooSlow())
          if (tooLate) return cut()
          reader.read().then(resolve, (error: unknown) => reject(endedEarly(error)))
        })
      try {
        for (;;) {
          peer?.wait()
          const { done, value } = await read()
          peer?.moved(value?.length ?? 0)
          if (done) break
          received += value.length
          entry.bytesIn = received
          yield value
        }
        // Some runtimes end the stream of a body that was cut like that of a whole one.
        if (length !== undefined && received < Number(length)) throw endedEarly()
      } finally {
        peer?.leave()
        reader.releaseLock()
      }
    },

    async send(c, status, headers, blob) {
      if (c.req.method === 'HEAD') {
        await blob.close()
        return reply(null, status, headers)
      }
      const { entry } = c.env
      const total = blob.range.end - blob.range.start + 1
      const sent = Promise.withResolvers<void>()
      entry.sent = sent.promise
      entry.bytesOut = 0
      active++
      const chunks = chunksOf(blob, bufferSize(active, total), poured !== undefined)
      let left = total
      let ended = false
      let controller: ReadableStreamDefaultController<Uint8Array> | null = null
      let cut: (() => void) | null = null
      const peer = watch?.(() => {
        controller?.error()
        cut?.()
        void end('the client is too slow')
      })
      const end = async (reason: string | null) => {
        if (ended) return
        ended = true
        if (reason !== null) entry.reason = reason
        peer?.leave()
        try {
          await chunks.return?.()
          await blob.close()
        } finally {
          active--
          sent.resolve()
        }
      }
      const fail = (error: unknown) => {
        entry.code = 'internal'
        return end(error instanceof Error ? (error.stack ?? error.message) : String(error))
      }
      const next = async (): Promise<Uint8Array<ArrayBuffer> | null> => {
        const { done, value } = await chunks.next()
        left -= done === true ? 0 : value.length
        if (done === true ? left !== 0 : left < 0)
          throw new Error(`The store gave ${Math.abs(left)} bytes too ${left > 0 ? 'few' : 'many'}`)
        if (done === true) return null
        entry.bytesOut = total - left
        return value as Uint8Array<ArrayBuffer>
      }
      if (total <= SMALLEST) {
        // One piece: Bun says the length of nothing else.
        const bytes = new Uint8Array(total)
        try {
          for (let at = 0, chunk; (chunk = await next()) !== null; at += chunk.length)
            bytes.set(chunk, at)
        } catch (error) {
          await fail(error)
          return new Response(brokenBody(''), { status, headers })
        }
        await end(null)
        c.env.lastByte?.()
        return reply(bytes, status, headers)
      }
      const cancel = () => {
        cut?.()
        return end('the client left before the end')
      }
      if (poured !== undefined)
        return reply(poured({ pour, cancel: () => void cancel() }), status, headers)
      const stream = new ReadableStream<Uint8Array>(
        {
          start: (given) => void (controller = given),
          async pull(controller) {
            peer?.moved()
            try {
              const chunk = await next()
              if (ended) return
              if (chunk !== null) {
                controller.enqueue(chunk)
                peer?.wait(chunk.length)
                if (left > 0) return
              }
              c.env.lastByte?.()
              controller.close()
              await end(null)
            } catch (error) {
              // Without a reason: Bun would print it, and the log has it. The connection breaks (R5).
              controller.error()
              await fail(error)
            }
          },
          cancel,
        },
        { highWaterMark: 0 },
      )
      return reply(stream, status, headers)

      async function pour(write: (chunk: Uint8Array) => unknown): Promise<void> {
        try {
          let coming = next()
          for (;;) {
            const chunk = await coming
            if (chunk === null || ended) break
            coming = next()
            coming.catch(() => {})
            const writing = write(chunk)
            if (writing instanceof Promise) {
              peer?.wait(chunk.length)
              // It may never settle when the peer was cut off, or has left.
              await new Promise<void>((resolve, reject) => {
                cut = resolve
                writing.then(() => resolve(), reject)
              })
            }
            peer?.moved(chunk.length)
          }
          if (!ended) c.env.lastByte?.()
        } catch (error) {
          if (!ended) await fail(error)
        }
        if (ended) return broken()
        await end(null)
      }
    },

    breakOff(c, status, headers, body) {
      if (c.req.method === 'HEAD') return new Response(null, { status, headers })
      return new Response(brokenBody(body), { status, headers })
    },
  }
}

/** As `streamTransfer` where the platform itself ends slow connections. */
export const webTransfer: Transfer = streamTransfer()

/** A body that ends in an error after the text: the connection breaks, and clients notice. */
export function brokenBody(text: string): ReadableStream<Uint8Array> {
  let sent = false
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      if (!sent) {
        sent = true
        return controller.enqueue(new TextEncoder().encode(text))
      }
      // An error overtakes what the runtime has not written yet: give the sentence a moment.
      await new Promise((resolve) => setTimeout(resolve, 20))
      controller.error()
    },
  })
}

/** Without a reason: Bun would print it, and the log has it. */
// oxlint-disable-next-line prefer-promise-reject-errors
const broken = () => Promise.reject<void>()

/**
 * The bytes of the range in chunks of `size` where the store has random access. With `reuse` a chunk
 * holds until the one after the next is asked for.
 */
function chunksOf(blob: BlobRead, size: number, reuse: boolean): AsyncIterator<Uint8Array> {
  return blob.readInto === undefined
    ? blob.stream()[Symbol.asyncIterator]()
    : readChunks(blob, blob.readInto.bind(blob), size, reuse)
}

async function* readChunks(
  { range }: BlobRead,
  readInto: NonNullable<BlobRead['readInto']>,
  size: number,
  reuse: boolean,
): AsyncGenerator<Uint8Array> {
  const buffers: Uint8Array[] = []
  for (let position = range.start, turn = 0; position <= range.end; turn = 1 - turn) {
    const wanted = Math.min(size, range.end + 1 - position)
    // What was enqueued, and not written, belongs to the runtime until it has left.
    const buffer = reuse ? (buffers[turn] ??= new Uint8Array(wanted)) : new Uint8Array(wanted)
    const read = await readInto(buffer, 0, wanted, position)
    if (read === 0) return
    position += read
    yield buffer.subarray(0, read)
  }
}

/** Size of a download's buffer in bytes: a power of two that leaves the others their share. */
function bufferSize(active: number, length: number): number {
  const fair = Math.min(BUDGET / (2 * active), LARGEST)
  let size = SMALLEST
  while (size * 2 <= fair && size < length) size *= 2
  return size
}

type WatchedPeer = {
  /** From now on the peer is waited for; `bytes` are on their way to it. */
  wait(bytes?: number): void
  /** The peer did its part: took what was on its way, or sent `bytes`. */
  moved(bytes?: number): void
  leave(): void
}

/**
 * Calls `cut` of peers that move too little in a window of time in which they were waited for: a
 * server that hashes for two minutes is not the peer's fault.
 */
function watchPeers({ bytesPerSecond, seconds }: Rate): (cut: () => void) => WatchedPeer {
  const TICKS = 12
  type State = { waiting: boolean; pending: number; ticks: number; bytes: number; cut(): void }
  const peers = new Set<State>()
  let timer: ReturnType<typeof setInterval> | null = null
  const look = () => {
    for (const peer of peers) {
      if (peer.waiting) peer.ticks++
      if (peer.ticks < TICKS) continue
      if (peer.bytes < bytesPerSecond * seconds) peer.cut()
      peer.ticks = 0
      peer.bytes = 0
    }
  }
  return (cut) => {
    const state: State = { waiting: false, pending: 0, ticks: 0, bytes: 0, cut }
    peers.add(state)
    timer ??= setInterval(look, (seconds * 1000) / TICKS)
    return {
      wait(bytes = 0) {
        state.waiting = true
        state.pending = bytes
      },
      moved(bytes = state.pending) {
        state.waiting = false
        state.bytes += bytes
      },
      leave() {
        peers.delete(state)
        if (peers.size > 0 || timer === null) return
        // It would keep a process that has nothing else to do.
        clearInterval(timer)
        timer = null
      },
    }
  }
}

function tooSlow(): RegistryError {
  return new RegistryError('invalid', 'The body came too slowly: nothing was stored', {
    subject: 'request',
  })
}
