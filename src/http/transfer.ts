/** The way of the bytes as a port, because web streams cost a Node server most of its throughput. */
import { RegistryError } from '../errors.ts'
import type { BlobRead, Bytes } from '../ports.ts'
import type { Ctx } from './context.ts'

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

/** Transfer over web streams: works on every runtime. */
export const webTransfer: Transfer = {
  async *receive(c) {
    const reader = c.req.raw.body?.getReader()
    if (reader === undefined) return
    const { entry } = c.env
    try {
      for (;;) {
        const { done, value } = await reader.read().catch((error: unknown) => {
          throw endedEarly(error)
        })
        if (done) return
        entry.bytesIn = (entry.bytesIn ?? 0) + value.length
        yield value
      }
    } finally {
      reader.releaseLock()
    }
  },

  async send(c, status, headers, blob) {
    if (c.req.method === 'HEAD') {
      await blob.close()
      return c.body(null, status, headers)
    }
    const { entry } = c.env
    const chunks = blob.stream()[Symbol.asyncIterator]()
    let left = blob.range.end - blob.range.start + 1
    const release = async () => {
      await chunks.return?.()
      await blob.close()
    }
    const stream = new ReadableStream<Uint8Array>(
      {
        async pull(controller) {
          try {
            const { done, value } = await chunks.next()
            if (done !== true) {
              left -= value.length
              entry.bytesOut = (entry.bytesOut ?? 0) + value.length
              return controller.enqueue(value)
            }
            if (left !== 0) throw new Error(`The store gave ${left} bytes too few`)
            await release()
            controller.close()
          } catch (error) {
            controller.error(error)
            await release()
          }
        },
        cancel: release,
      },
      { highWaterMark: 0 },
    )
    return c.body(stream, status, headers)
  },

  breakOff(c, status, headers, body) {
    if (c.req.method === 'HEAD') return new Response(null, { status, headers })
    let sent = false
    const stream = new ReadableStream<Uint8Array>({
      async pull(controller) {
        if (!sent) {
          sent = true
          return controller.enqueue(new TextEncoder().encode(body))
        }
        // An error overtakes what the runtime has not written yet: give the sentence a moment.
        await new Promise((resolve) => setTimeout(resolve, 20))
        controller.error(new Error('Broken off on purpose: the answer is a refusal'))
      },
    })
    return new Response(stream, { status, headers })
  },
}
