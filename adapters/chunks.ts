/** Memory of the pieces in which bytes arrive. */

/**
 * `Bytes.free` where each chunk comes in memory of its own, as from sockets of Node: that counts as
 * pressure, and V8 went through the whole heap for every 30 MiB received. Memory that a chunk shares with
 * others, or with the rest of what it was cut from, is left alone.
 */
export function freeChunk({ buffer, byteLength }: Uint8Array): void {
  if (buffer instanceof ArrayBuffer && buffer.byteLength === byteLength) buffer.transfer(0)
}
