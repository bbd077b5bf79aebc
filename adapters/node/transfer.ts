/**
 * Transfer on Node's own request and response: one piece is read while another is written, because
 * web streams cost two to five times the throughput of the plain socket.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import { endedEarly, type Ctx, type Transfer } from '../../src/app.ts'
import type { BlobRead, Sink } from '../../src/ports.ts'
import { freeChunk } from '../chunks.ts'
import { downloadMemory, type Piece, type Reader } from './blocks.ts'

/** Bytes of a body that are taken from the socket before anybody asks for them. */
const AHEAD = 256 * 1024

/** Transfer for requests that come through `listen`. A write stalled for `stallSeconds` ends. */
export function nodeTransfer({ stallSeconds = 60 }: { stallSeconds?: number } = {}): Transfer {
  const memory = downloadMemory()

  return {
    receive: (c) => ({
      [Symbol.asyncIterator]: () => chunksOf(c),
      each: (sink, signal) => each(c, sink, signal),
      free: freeChunk,
    }),

    async send(c, status, headers, blob) {
      if (c.req.method === 'HEAD') {
        await blob.close()
        return c.body(null, status, headers)
      }
      const { outgoing } = raw(c)
      const { entry } = c.env
      entry.status = status
      entry.bytesOut = 0
      const writer = openWriter(
        outgoing,
        (bytes) => (entry.bytesOut = (entry.bytesOut ?? 0) + bytes),
      )
      try {
        if (!writer.gone()) {
          // Counts from the last progress of the socket, also within one large write.
          outgoing.setTimeout(stallSeconds * 1000)
          outgoing.writeHead(status, headers)
          await (blob.readInto === undefined
            ? stream(blob, writer)
            : alternate(memory.read(blob, blob.readInto.bind(blob)), writer))
          await writer.end()
        }
        if (writer.gone()) entry.reason = 'the client left before the end'
      } catch (error) {
        // The head is out: only a broken connection tells the client that the body is wrong (R5).
        entry.code = 'internal'
        entry.reason = error instanceof Error ? (error.stack ?? error.message) : String(error)
        outgoing.destroy()
      } finally {
        writer.release()
        await blob.close()
      }
      return RESPONSE_ALREADY_SENT
    },

    async breakOff(c, status, headers, body) {
      if (c.req.method === 'HEAD') return new Response(null, { status, headers })
      const { outgoing } = raw(c)
      const { entry } = c.env
      const bytes = Buffer.from(body)
      entry.status = status
      const writer = openWriter(outgoing, (sent) => (entry.bytesOut = sent))
      if (!writer.gone()) {
        outgoing.setTimeout(stallSeconds * 1000)
        outgoing.writeHead(status, {
          ...headers,
          'Content-Length': bytes.length + 1,
          Connection: 'close',
        })
        await writer.write(bytes)
      }
      writer.release()
      outgoing.destroy()
      return RESPONSE_ALREADY_SENT
    },
  }
}

function raw(c: Ctx): { incoming: IncomingMessage; outgoing: ServerResponse } {
  return c.env as unknown as { incoming: IncomingMessage; outgoing: ServerResponse }
}

async function* chunksOf(c: Ctx): AsyncGenerator<Uint8Array> {
  const body = arrivals(c)
  try {
    for (;;) {
      const chunk = body.take()
      if (chunk === null) return
      if (chunk === undefined) await body.change()
      else yield chunk
    }
  } finally {
    body.leave()
  }
}

/** See `Bytes.each`: no promise where a chunk is there already, and half of what iterating leaves to the collector. */
async function each(c: Ctx, sink: Sink, signal?: AbortSignal): Promise<void> {
  const body = arrivals(c)
  signal?.addEventListener('abort', body.wake)
  try {
    for (;;) {
      signal?.throwIfAborted()
      const chunk = body.take()
      if (chunk === null) return
      if (chunk === undefined) {
        await body.change()
        continue
      }
      const taken = sink(chunk)
      if (taken !== undefined) await taken
    }
  } finally {
    signal?.removeEventListener('abort', body.wake)
    body.leave()
  }
}

type Arrivals = {
  /**
   * The next chunk that has arrived and was not taken yet; undefined when that is none, null when none
   * will come. Throws when the body broke off.
   */
  take(): Buffer | null | undefined
  /** Waits until there is something else to take. */
  change(): Promise<void>
  /** Ends that wait. */
  wake(): void
  /** Stops listening. The connection stays, for the answer. */
  leave(): void
}

/**
 * The chunks of a body as the socket brings them. Node's own iterator asks for each one alone, and
 * stops and starts the socket every time.
 */
function arrivals(c: Ctx): Arrivals {
  const { incoming, outgoing } = raw(c)
  const { entry } = c.env
  // Only who reads the body asks for it, so that a refusal costs the client no upload.
  if (incoming.headers.expect !== undefined && !outgoing.headersSent) outgoing.writeContinue()
  const waiting: Buffer[] = []
  let bytes = 0
  let over: { error?: unknown } | null = null
  let changed: (() => void) | null = null
  const wake = () => {
    changed?.()
    changed = null
  }
  const onData = (chunk: Buffer) => {
    waiting.push(chunk)
    bytes += chunk.length
    if (bytes >= AHEAD) incoming.pause()
    wake()
  }
  const end = (how: { error?: unknown }) => {
    over ??= how
    wake()
  }
  const onEnd = () => end({})
  // Without an end before it, also where all has arrived but not all was taken.
  const onClose = () => end({ error: incoming.errored })
  // Stays when nobody listens any more: an error without a listener would end the process.
  incoming.on('error', (error) => end({ error }))
  incoming.on('data', onData).on('end', onEnd).on('close', onClose)
  // What ended before anybody listened says nothing any more.
  if (incoming.readableEnded) onEnd()
  else if (incoming.destroyed) onClose()
  return {
    take() {
      const chunk = waiting.shift()
      bytes -= chunk?.length ?? 0
      if (bytes < AHEAD && incoming.isPaused()) incoming.resume()
      if (chunk !== undefined) {
        entry.bytesIn = (entry.bytesIn ?? 0) + chunk.length
        return chunk
      }
      if (over === null) return undefined
      if ('error' in over || !incoming.complete) throw endedEarly(over.error)
      return null
    },
    change: () => new Promise((resolve) => (changed = resolve)),
    wake,
    leave() {
      incoming.off('data', onData).off('end', onEnd).off('close', onClose)
      if (over === null) incoming.pause()
    },
  }
}

type Writer = {
  /** Resolves when the bytes are with the kernel, or when the client is gone. */
  write(chunk: Uint8Array): Promise<void>
  end(): Promise<void>
  /** Whether the client is gone: there is nobody to write to. */
  gone(): boolean
  release(): void
}

/**
 * One write at a time. A client may be gone before anybody listens for it: then no event comes and
 * each write returns at once, so state is asked first and an error in the callback is the end.
 */
function openWriter(outgoing: ServerResponse, onWritten: (bytes: number) => void): Writer {
  const { socket } = outgoing.req
  let gone = outgoing.destroyed || outgoing.closed || socket.destroyed
  let settle = () => {}
  const onClose = () => {
    gone = true
    settle()
  }
  // The socket's close also reaches pipelined responses, which never had the socket themselves.
  socket.once('close', onClose)
  const attempt = (start: (callback: (error?: Error | null) => void) => void, bytes: number) =>
    new Promise<void>((resolve) => {
      if (gone) return resolve()
      settle = resolve
      start((error) => {
        if (error) gone = true
        else onWritten(bytes)
        resolve()
      })
    })
  return {
    write: (chunk) => attempt((callback) => outgoing.write(chunk, callback), chunk.length),
    end: () => attempt((callback) => outgoing.end(callback), 0),
    gone: () => gone,
    release: () => socket.off('close', onClose),
  }
}

/** Reads the next piece while the one before is being written. */
async function alternate(reader: Reader, writer: Writer): Promise<void> {
  let writing: Promise<void> | null = null
  let before: Piece | null = null
  let piece: Piece | null = null
  let whole = false
  try {
    while ((piece = await reader.next()) !== null) {
      await writing
      before?.release(!writer.gone())
      before = null
      if (writer.gone()) return
      writing = writer.write(piece.bytes)
      before = piece
      piece = null
    }
    await writing
    whole = !writer.gone()
  } finally {
    // After a failure a buffer may still be on its way into the socket: reusing it would send a
    // stranger's bytes there, so it is left to the garbage collector.
    piece?.release(true)
    before?.release(whole)
    reader.close(whole)
  }
}

async function stream(blob: BlobRead, writer: Writer): Promise<void> {
  let left = blob.range.end - blob.range.start + 1
  const body = blob.stream()
  for await (const chunk of body) {
    const { length } = chunk
    await writer.write(chunk)
    // after a failure it may still be on its way into the socket
    if (writer.gone()) return
    body.free?.(chunk)
    left -= length
  }
  if (left !== 0) throw new Error(`The store gave ${left} bytes too few`)
}
