/**
 * Transfer on workerd: bytes go from stream to stream of the runtime where nobody looks at them,
 * because CPU time of JavaScript is what a Worker has least of.
 */
import { endedEarly, type Ctx, type Transfer } from '../../src/app.ts'
import type { BlobRead, Bytes } from '../../src/ports.ts'
import { chunksOf } from './chunks.ts'

/** Small bodies are read in buffers of their size. */
const LARGEST_CHUNK = 256 * 1024

export const workerTransfer: Transfer = {
  receive(c) {
    const { body } = c.req.raw
    if (body === null) return empty()
    const length = Number(c.req.header('content-length') ?? Number.NaN)
    const pieces = () => counted(c, body, length)
    if (!(length > 0)) return { [Symbol.asyncIterator]: pieces }
    return {
      [Symbol.asyncIterator]: pieces,
      /** Who looks takes it: nobody counts what the runtime moves. */
      get native() {
        c.env.entry.bytesIn = length
        return body
      },
    }
  },

  async send(c, status, headers, blob) {
    if (c.req.method === 'HEAD') {
      await blob.close()
      return c.body(null, status, headers)
    }
    const length = blob.range.end - blob.range.start + 1
    c.env.entry.bytesOut = length
    if (blob.native !== undefined) return new Response(blob.native(), { status, headers })
    return new Response(readableOf(blob, length), { status, headers })
  },

  breakOff(c, status, headers, body) {
    if (c.req.method === 'HEAD') return new Response(null, { status, headers })
    const bytes = new TextEncoder().encode(body)
    // A length that is never reached: however the edge ends it, the client misses a byte (R5).
    const fixed = new FixedLengthStream(bytes.length + 1)
    const writer = fixed.writable.getWriter()
    const broken = async () => {
      await writer.write(bytes)
      // an error overtakes what has not been written yet: give the sentence a moment
      await new Promise((resolve) => setTimeout(resolve, 20))
      await writer.abort(new Error('Broken off on purpose: the answer is a refusal'))
    }
    // A client that has left breaks it off as well.
    broken().catch(() => undefined)
    return new Response(fixed.readable, { status, headers })
  },
}

async function* empty(): AsyncGenerator<Uint8Array, void, void> {}

/** The body in pieces; `invalid` when it ends before its length. */
async function* counted(
  c: Ctx,
  body: ReadableStream<Uint8Array>,
  length: number,
): AsyncGenerator<Uint8Array, void, void> {
  const { entry } = c.env
  entry.bytesIn = 0
  const size = length > 0 ? Math.min(length, LARGEST_CHUNK) : LARGEST_CHUNK
  // not cancelled: the answer is still to be read
  const pieces = chunksOf(body, { size, cancel: false })
  try {
    for (;;) {
      const { done, value } = await pieces.next().catch((error: unknown) => {
        throw endedEarly(error)
      })
      if (done === true) break
      entry.bytesIn += value.length
      yield value
    }
  } finally {
    await pieces.return()
  }
  if (length > 0 && entry.bytesIn < length) throw endedEarly()
}

/** The bytes of a store that has no stream of the runtime; a failed read breaks the answer (R5). */
function readableOf(blob: BlobRead, length: number): ReadableStream<Uint8Array> {
  const fixed = new FixedLengthStream(length)
  const writer = fixed.writable.getWriter()
  const pump = async (bytes: Bytes) => {
    try {
      for await (const chunk of bytes) await writer.write(chunk)
      await writer.close()
    } catch (error) {
      await writer.abort(error)
    } finally {
      await blob.close()
    }
  }
  pump(blob.stream()).catch(() => undefined)
  return fixed.readable
}
