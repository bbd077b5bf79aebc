/**
 * Memory of all downloads: pieces of blobs that many pull at once are read once and written to all
 * of them; a download that is alone with its blob reads into two buffers of its own (R49).
 */
import type { BlobRead } from '../../src/ports.ts'

const KIB = 1024
const MIB = 1024 * KIB
/** Bytes of all buffers together, beside the smallest ones that each download may have. */
const BUDGET = 64 * MIB
/** Of these, what may be blocks: the rest is for those who are alone. */
const SHARED = 48 * MIB
/** Bytes of a block, but for the last one of a blob. Blocks begin at multiples of it. */
const BLOCK = MIB
const SMALLEST = 64 * KIB
const LARGEST = MIB

/** Some bytes of a range. */
export type Piece = {
  readonly bytes: Uint8Array
  /** Ends their use. `safe` false: they may still be on their way into a socket. */
  release(safe: boolean): void
}

/** The pieces of one download, one after the other. */
export type Reader = {
  /**
   * The next bytes of the range, at least one; null at its end. At most two pieces may be in use.
   * Rejects when the blob cannot be read, or ends before its range does.
   */
  next(): Promise<Piece | null>
  /** Ends the download; all pieces are released, these with `safe`. */
  close(safe: boolean): void
}

type ReadInto = NonNullable<BlobRead['readInto']>

type Block = {
  of: Shared
  number: number
  bytes: Uint8Array<ArrayBuffer>
  /** How many downloads use it. */
  users: number
  /** Whether a socket that failed may still hold it: then its memory is never used again. */
  tainted: boolean
  filled: Promise<void>
}

/** What is still to come of a download. */
type Ahead = { position: number; end: number }

/** Who downloads a blob at the moment, and what is held of it, by the number of the block. */
type Shared = { downloads: Set<Ahead>; blocks: Map<number, Block> }

/** Opens the memory that all downloads of a server share. */
export function downloadMemory(): { read(blob: BlobRead, readInto: ReadInto): Reader } {
  const buffers = bufferPool()
  const blobs = new Map<string, Shared>()
  /** Every block that can be found, the one that was asked for longest ago first. */
  const blocks = new Set<Block>()

  function drop(block: Block): void {
    if (!blocks.delete(block)) return
    block.of.blocks.delete(block.number)
    buffers.give(block.bytes.buffer, !block.tainted)
  }

  /** Makes room for one more block; false when all that could go is in use. */
  function makeRoom(): boolean {
    if ((blocks.size + 1) * BLOCK <= SHARED && buffers.inUse() + BLOCK <= BUDGET) return true
    for (const block of blocks)
      if (block.users === 0) {
        drop(block)
        return true
      }
    return false
  }

  /**
   * The block, read by whoever comes to it first; null where nobody else will want it, as in the
   * three ranges that the client asks for at once, and where there is no room.
   */
  function find(
    { of, asker, number, size }: { of: Shared; asker: Ahead; number: number; size: number },
    readInto: ReadInto,
  ): Block | null {
    const known = of.blocks.get(number)
    if (known !== undefined) {
      blocks.delete(known)
      blocks.add(known)
      return known
    }
    if (!wanted(of, number, asker) || !makeRoom()) return null
    const bytes = new Uint8Array(buffers.take(BLOCK), 0, size)
    const filled = fill(bytes, number * BLOCK, readInto)
    const block: Block = { of, number, bytes, users: 0, tainted: false, filled }
    of.blocks.set(number, block)
    blocks.add(block)
    return block
  }

  return {
    read(blob, readInto) {
      const { key, size: total, range } = blob
      const own: (ArrayBuffer | undefined)[] = []
      let ownSize = 0
      let turn = 0
      const of: Shared = (key === undefined ? undefined : blobs.get(key)) ?? {
        downloads: new Set(),
        blocks: new Map(),
      }
      if (key !== undefined) blobs.set(key, of)
      const ahead: Ahead = { position: range.start, end: range.end + 1 }
      of.downloads.add(ahead)

      async function shared(block: Block): Promise<Piece> {
        const start = block.number * BLOCK
        const bytes = block.bytes.subarray(ahead.position - start, ahead.end - start)
        ahead.position += bytes.length
        block.users += 1
        try {
          await block.filled
        } catch (error) {
          block.users -= 1
          // Nobody finds it again, so that the next download asks the disk anew.
          drop(block)
          throw error
        }
        return {
          bytes,
          release(safe) {
            block.users -= 1
            block.tainted ||= !safe
            if (block.users === 0 && !wanted(of, block.number)) drop(block)
          },
        }
      }

      async function alone(): Promise<Piece> {
        const { position, end } = ahead
        if (ownSize === 0)
          ownSize = bufferSize(BUDGET - buffers.inUse(), range.end + 1 - range.start)
        const buffer = (own[turn] ??= buffers.take(ownSize))
        turn = 1 - turn
        const bytes = new Uint8Array(buffer, 0, Math.min(ownSize, end - position))
        const read = await readInto(bytes, 0, bytes.length, position)
        if (read === 0) throw endsAt(position)
        ahead.position += read
        return { bytes: bytes.subarray(0, read), release: () => {} }
      }

      return {
        async next() {
          const { position, end } = ahead
          if (position >= end) return null
          const number = Math.floor(position / BLOCK)
          const size = Math.min(BLOCK, total - number * BLOCK)
          const asked = { of, asker: ahead, number, size }
          const block = of.downloads.size < 2 ? null : find(asked, readInto)
          return block === null ? alone() : shared(block)
        },
        close(safe) {
          for (const buffer of own) if (buffer !== undefined) buffers.give(buffer, safe)
          of.downloads.delete(ahead)
          for (const block of of.blocks.values())
            if (block.users === 0 && !wanted(of, block.number)) drop(block)
          if (of.downloads.size === 0 && key !== undefined) blobs.delete(key)
        },
      }
    },
  }
}

/** Whether a download, another one than `asker`, still has to come by the block. */
function wanted({ downloads }: Shared, number: number, asker?: Ahead): boolean {
  for (const one of downloads)
    if (one !== asker && one.position < (number + 1) * BLOCK && one.end > number * BLOCK)
      return true
  return false
}

async function fill(bytes: Uint8Array, position: number, readInto: ReadInto): Promise<void> {
  for (let at = 0; at < bytes.length;) {
    const read = await readInto(bytes, at, bytes.length - at, position + at)
    if (read === 0) throw endsAt(position + at)
    at += read
  }
}

const endsAt = (position: number) => new Error(`The blob ends at ${position}, before it should`)

/**
 * Size of each of a download's two buffers: a power of two, so that they can be reused, and no more
 * than a sixteenth of what is `left` of the budget for both: however many come, they stay within it.
 */
function bufferSize(left: number, length: number): number {
  const fair = Math.min(left / 32, LARGEST)
  let size = SMALLEST
  while (size * 2 <= fair && size < length) size *= 2
  return size
}

type BufferPool = {
  take(size: number): ArrayBuffer
  /** Ends the use of a buffer; `again` keeps it for its next use. */
  give(buffer: ArrayBuffer, again: boolean): void
  /** Bytes of what was taken and not given back. */
  inUse(): number
}

/** Buffers waiting for their next use, by size; what exceeds the budget is not kept. */
function bufferPool(): BufferPool {
  const waiting = new Map<number, ArrayBuffer[]>()
  let held = 0
  let used = 0
  return {
    inUse: () => used,
    take(size) {
      used += size
      const buffer = waiting.get(size)?.pop()
      if (buffer === undefined) return Buffer.allocUnsafeSlow(size).buffer
      held -= size
      return buffer
    },
    give(buffer, again) {
      const size = buffer.byteLength
      used -= size
      if (!again) return
      if (held + size > BUDGET / 4) {
        waiting.clear()
        held = 0
      }
      const same = waiting.get(size)
      if (same === undefined) waiting.set(size, [buffer])
      else same.push(buffer)
      held += size
    },
  }
}
