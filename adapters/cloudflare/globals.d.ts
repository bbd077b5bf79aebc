/** What workerd has beyond the web's own interfaces, as far as we use it. */

/** A stream that fails unless exactly `length` bytes are written. */
declare class FixedLengthStream extends TransformStream<Uint8Array, Uint8Array> {
  constructor(length: number)
}
