/** A registry elsewhere as source or sink of an export, over HTTP (src/manage/moving.ts). */
import type { ArchiveHead, ArchiveSink, ArchiveSource } from '../../src/admin.ts'
import type { Import, ImportReport, MovedRow } from '../../src/core/model.ts'
import { isRegistryError, RegistryError } from '../../src/errors.ts'
import type { Bytes } from '../../src/ports.ts'
import { answerOf } from './api.ts'

/** Bytes asked for at a time: what breaks off is asked for again from where it broke. */
const RANGE = 64 * 1024 * 1024
/** Bytes handed to a connection at a time. */
const STEP = 1024 * 1024
/** Waits before trying again what a bad connection or a busy server refused, in ms. */
const WAITS = [500, 2000, 5000]

/** The registry at `url` (an origin) with an administrator's token. */
export function remoteMoving(
  url: string,
  token: string,
): { source: ArchiveSource; sink: ArchiveSink } {
  async function send(
    method: string,
    path: string,
    init: { body?: BodyInit; headers?: Record<string, string> } = {},
  ): Promise<Response> {
    const request: RequestInit & { duplex: 'half' } = {
      ...init,
      method,
      headers: { ...init.headers, authorization: `Bearer ${token}` },
      // A redirect could take the token elsewhere.
      redirect: 'manual',
      duplex: 'half',
    }
    try {
      return await fetch(`${url}${path}`, request)
    } catch (cause) {
      const reason = (cause as Error).cause instanceof Error ? (cause as Error).cause : cause
      throw new RegistryError(
        'unavailable',
        `The connection to ${new URL(url).origin} failed: ${(reason as Error).message}.`,
        { cause },
      )
    }
  }

  /** Everything asked for here may be asked again. */
  async function patiently<T>(work: () => Promise<T>): Promise<T> {
    for (const wait of WAITS) {
      try {
        return await work()
      } catch (error) {
        if (!isRegistryError(error, 'unavailable')) throw error
        await new Promise((resolve) => setTimeout(resolve, wait))
      }
    }
    return work()
  }

  const call = <T>(method: string, path: string, body?: object) =>
    patiently(async () => {
      const init = body === undefined ? {} : { body: JSON.stringify(body) }
      return answerOf<T>(url, await send(method, path, init))
    })

  const put = <T>(path: string, piece: Uint8Array<ArrayBuffer>) =>
    patiently(async () => {
      const streamed = await send('PUT', path, {
        body: streamOf(piece),
        headers: { 'content-length': String(piece.length) },
      })
      if (streamed.status !== 411) return answerOf<T>(url, streamed)
      // Deno drops the length of a stream
      await streamed.body?.cancel()
      return answerOf<T>(url, await send('PUT', path, { body: piece }))
    })

  async function* range(digest: string, start: number, end: number): AsyncGenerator<Uint8Array> {
    const headers = { range: `bytes=${start}-${end}` }
    const response = await send('GET', `/v1/exports/blobs/${digest}`, { headers })
    if (response.status !== 206 || response.body === null) {
      await answerOf(url, response)
      throw new RegistryError('unavailable', 'The server answered without the range asked for.')
    }
    try {
      yield* response.body
    } catch (cause) {
      throw new RegistryError('unavailable', `The bytes of ${digest} broke off.`, { cause })
    }
  }

  return {
    source: {
      head: () => call<ArchiveHead>('POST', '/v1/exports'),
      page: (cursor) => {
        const query = cursor === null ? '' : `?cursor=${encodeURIComponent(cursor)}`
        return call<{ rows: MovedRow[]; cursor: string | null }>('GET', `/v1/exports/rows${query}`)
      },
      async *blob(digest, size) {
        for (let at = 0, failures = 0; at < size;) {
          const end = Math.min(at + RANGE, size) - 1
          try {
            for await (const chunk of range(digest, at, end)) {
              at += chunk.length
              failures = 0
              yield chunk
            }
          } catch (error) {
            const wait = WAITS[failures]
            if (!isRegistryError(error, 'unavailable') || wait === undefined) throw error
            failures += 1
            await new Promise((resolve) => setTimeout(resolve, wait))
          }
        }
      },
    },
    sink: {
      open: (head) => call<Import>('POST', '/v1/imports', head),
      async rows(id, rows) {
        await call('POST', `/v1/imports/${id}/rows`, { rows })
      },
      async blob(id, { digest, size }, bytes) {
        const path = `/v1/imports/${id}/blobs/${digest}`
        const { wanted, partSize } = await call<{ wanted: boolean; partSize: number | null }>(
          'POST',
          path,
          { size },
        )
        if (!wanted) return
        const pieces = gather(bytes, partSize ?? size)
        if (partSize === null) {
          for await (const piece of pieces) await put(path, piece)
          return
        }
        const parts: { number: number; etag: string }[] = []
        for await (const piece of pieces) {
          const number = parts.length + 1
          const { etag } = await put<{ etag: string }>(`${path}/parts/${number}`, piece)
          parts.push({ number, etag })
        }
        await call('POST', `${path}/parts`, { parts })
      },
      async finish(id, end) {
        const report = await call<
          Omit<ImportReport, 'reissue'> & {
            reissue: { user: string; name: string; expiresAt: string }[]
          }
        >('POST', `/v1/imports/${id}`, end)
        const reissue = report.reissue.map((t) => ({ ...t, expiresAt: new Date(t.expiresAt) }))
        return { ...report, reissue }
      },
      async abort(id) {
        await call('DELETE', `/v1/imports/${id}`)
      },
    },
  }
}

/** The same bytes bit by bit: fetch copies a whole body first, and several copies stay for a while. */
function streamOf(bytes: Uint8Array<ArrayBuffer>): ReadableStream<Uint8Array<ArrayBuffer>> {
  let at = 0
  return new ReadableStream(
    {
      pull(controller) {
        if (at >= bytes.length) return controller.close()
        controller.enqueue(bytes.subarray(at, at + STEP))
        at += STEP
      },
    },
    { highWaterMark: 0 },
  )
}

/** Pieces of exactly `size` bytes, the last one shorter, each in one buffer that is used again. */
async function* gather(bytes: Bytes, size: number): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const buffer = new Uint8Array(size)
  let filled = 0
  for await (const chunk of bytes) {
    for (let at = 0; at < chunk.length;) {
      const taken = chunk.subarray(at, at + size - filled)
      buffer.set(taken, filled)
      at += taken.length
      filled += taken.length
      if (filled === size) {
        yield buffer
        filled = 0
      }
    }
  }
  if (filled > 0) yield buffer.subarray(0, filled)
}
