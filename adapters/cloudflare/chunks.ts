/** Reads streams of workerd in large pieces: JavaScript wakes once per 256 KiB instead of per 4. */

const CHUNK = 256 * 1024

/**
 * The bytes of a byte stream in pieces of `size` bytes, the last one shorter. Leaving early lets go
 * of the stream, and with `cancel` ends it. With `reuse` a piece is overwritten when the second one
 * after it is asked for: memory for who keeps no more than one.
 */
export async function* chunksOf(
  stream: ReadableStream<Uint8Array>,
  {
    size = CHUNK,
    cancel = true,
    reuse = false,
  }: { size?: number; cancel?: boolean; reuse?: boolean } = {},
): AsyncGenerator<Uint8Array, void, void> {
  const reader = stream.getReader({ mode: 'byob' })
  /** Buffers that may be filled again, the older one first. */
  const buffers: ArrayBuffer[] = reuse ? [new ArrayBuffer(size), new ArrayBuffer(size)] : []
  let ended = false
  try {
    while (!ended) {
      const buffer = (reuse ? buffers.shift() : undefined) ?? new ArrayBuffer(size)
      const { done, value } = await reader.read(new Uint8Array(buffer), { min: size })
      ended = done
      if (reuse && value !== undefined) buffers.push(value.buffer)
      if (value !== undefined && value.length > 0) yield value
    }
  } finally {
    if (!ended && cancel) await reader.cancel().catch(() => undefined)
    reader.releaseLock()
  }
}
