/** Reads streams of workerd in large pieces: JavaScript wakes once per 256 KiB instead of per 4. */

const CHUNK = 256 * 1024

/**
 * The bytes of a byte stream in pieces of `size` bytes, the last one shorter. Leaving early lets go
 * of the stream, and with `cancel` ends it.
 */
export async function* chunksOf(
  stream: ReadableStream<Uint8Array>,
  { size = CHUNK, cancel = true }: { size?: number; cancel?: boolean } = {},
): AsyncGenerator<Uint8Array, void, void> {
  const reader = stream.getReader({ mode: 'byob' })
  let ended = false
  try {
    while (!ended) {
      const { done, value } = await reader.read(new Uint8Array(size), { min: size })
      ended = done
      if (value !== undefined && value.length > 0) yield value
    }
  } finally {
    if (!ended && cancel) await reader.cancel().catch(() => undefined)
    reader.releaseLock()
  }
}
