/**
 * Transfer on Node's own request and response: two buffers are read and written in turn, because
 * web streams cost two to five times the throughput of the plain socket.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import type { Ctx, Transfer } from '../../src/app.ts'
import { RegistryError } from '../../src/errors.ts'
import type { BlobRead, Bytes } from '../../src/ports.ts'

const KIB = 1024
const MIB = 1024 * KIB
/** Memory of all downloads' buffers together, beside the smallest ones that each of them gets (R49). */
const BUDGET = 64 * MIB
const SMALLEST = 64 * KIB
const LARGEST = MIB

/** Transfer for requests that come through `listen`. A write stalled for `stallSeconds` ends. */
export function nodeTransfer({ stallSeconds = 60 }: { stallSeconds?: number } = {}): Transfer {
  const buffers = bufferPool()

  return {
    receive: (c) => receive(c),

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
            : alternate(blob, blob.readInto.bind(blob), writer, buffers))
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

async function* receive(c: Ctx): Bytes {
  const { incoming, outgoing } = raw(c)
  const { entry } = c.env
  // Only who reads the body asks for it, so that a refusal costs the client no upload.
  if (incoming.headers.expect !== undefined && !outgoing.headersSent) outgoing.writeContinue()
  // Destroying the request would destroy the socket, and the answer with it.
  const chunks = incoming.iterator({ destroyOnReturn: false }) as AsyncIterableIterator<Buffer>
  try {
    for (;;) {
      const { done, value } = await chunks.next().catch((error: unknown) => {
        throw endedEarly(error)
      })
      if (done === true) break
      entry.bytesIn = (entry.bytesIn ?? 0) + value.length
      yield value
    }
  } finally {
    await chunks.return?.().catch(() => {})
  }
  if (!incoming.complete) throw endedEarly()
}

function endedEarly(cause?: unknown): RegistryError {
  return new RegistryError('invalid', 'The body ended early: nothing was stored', {
    subject: 'request',
    cause,
  })
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

/** Reads into one buffer while the other is being written. */
async function alternate(
  blob: BlobRead,
  readInto: NonNullable<BlobRead['readInto']>,
  writer: Writer,
  buffers: BufferPool,
): Promise<void> {
  const end = blob.range.end + 1
  let position = blob.range.start
  const size = bufferSize(BUDGET - buffers.inUse(), end - position)
  const taken: Uint8Array[] = []
  try {
    let writing: Promise<void> | null = null
    for (let turn = 0; position < end; turn = 1 - turn) {
      const buffer = (taken[turn] ??= buffers.take(size))
      const read = await readInto(buffer, 0, Math.min(size, end - position), position)
      if (read === 0) throw new Error(`The blob ends at ${position}, before byte ${end}`)
      await writing
      if (writer.gone()) return
      writing = writer.write(buffer.subarray(0, read))
      position += read
    }
    await writing
  } finally {
    // After a failure a buffer may still be on its way into the socket: reusing it would send a
    // stranger's bytes there, so it is left to the garbage collector.
    buffers.give(taken, !writer.gone() && position >= end)
  }
}

async function stream(blob: BlobRead, writer: Writer): Promise<void> {
  let left = blob.range.end - blob.range.start + 1
  for await (const chunk of blob.stream()) {
    await writer.write(chunk)
    if (writer.gone()) return
    left -= chunk.length
  }
  if (left !== 0) throw new Error(`The store gave ${left} bytes too few`)
}

/**
 * Size of each of a download's two buffers: a power of two, so that they can be reused, and no more
 * than a sixteenth of what is `left` of the budget for both: however many come, they stay within it.
 */
export function bufferSize(left: number, length: number): number {
  const fair = Math.min(left / 32, LARGEST)
  let size = SMALLEST
  while (size * 2 <= fair && size < length) size *= 2
  return size
}

type BufferPool = {
  take(size: number): Uint8Array
  /** Ends the use of buffers; `again` keeps them for their next use. */
  give(buffers: Uint8Array[], again: boolean): void
  /** Bytes of what was taken and not given back. */
  inUse(): number
}

/** Buffers waiting for their next use, by size; what exceeds the budget is not kept. */
function bufferPool(): BufferPool {
  const waiting = new Map<number, Uint8Array[]>()
  let held = 0
  let used = 0
  return {
    inUse: () => used,
    take(size) {
      used += size
      const buffer = waiting.get(size)?.pop()
      if (buffer === undefined) return Buffer.allocUnsafeSlow(size)
      held -= size
      return buffer
    },
    give(buffers, again) {
      for (const buffer of buffers) {
        used -= buffer.length
        if (!again) continue
        if (held + buffer.length > BUDGET / 4) {
          waiting.clear()
          held = 0
        }
        const same = waiting.get(buffer.length)
        if (same === undefined) waiting.set(buffer.length, [buffer])
        else same.push(buffer)
        held += buffer.length
      }
    },
  }
}
