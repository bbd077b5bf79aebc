/** A SIF of any size, random from end to end, that can be given a new identity for every push. */
import { createHash, randomFillSync, randomBytes } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { open } from 'node:fs/promises'
import type { Content } from '../measure.ts'

export const PART = 64 * 1024 * 1024
const DATA = 32_768
const DESCRIPTORS = 4096
const SUPERBLOCK = 96

/** What can be pushed, wherever its bytes come from. */
export type Image = Content & {
  size: number
  /** Hex. */
  sha256: string
  /** Hex, of each 64 MiB. */
  parts: string[]
}
export type Payload = Image & { path: string }

/**
 * Header and one descriptor: a primary system partition for amd64 that fills the file, with as much of
 * a squashfs as the real client looks at before an oras:// push.
 */
export function head(size: number): Buffer {
  const buffer = Buffer.alloc(DATA + SUPERBLOCK)
  buffer.write('#!/usr/bin/env run-singularity\n', 0)
  buffer.write('SIF_MAGIC\x0001\x0002\0', 32)
  const fields = [0, 0, 47, 48, DESCRIPTORS, 48 * 585, DATA, size - DATA]
  fields.forEach((value, index) => buffer.writeBigInt64LE(BigInt(value), 64 + index * 8))
  const at = DESCRIPTORS
  buffer.writeInt32LE(0x4004, at)
  buffer.writeUInt8(1, at + 4)
  buffer.writeUInt32LE(1, at + 5)
  buffer.writeUInt32LE(0xf0000001, at + 9)
  const places = [DATA, size - DATA, size - DATA]
  places.forEach((value, index) => buffer.writeBigInt64LE(BigInt(value), at + 17 + index * 8))
  buffer.write('squashfs', at + 73)
  buffer.writeInt32LE(1, at + 201)
  buffer.writeInt32LE(2, at + 205)
  buffer.write('02\0', at + 209)
  buffer.write('hsqs', DATA)
  const COMPRESSION = { at: 20, gzip: 1 }
  buffer.writeUInt16LE(COMPRESSION.gzip, DATA + COMPRESSION.at)
  buffer.writeUInt16LE(4, DATA + 28)
  return buffer
}

async function digests(path: string): Promise<Pick<Image, 'sha256' | 'parts'>> {
  const whole = createHash('sha256')
  const parts: string[] = []
  let part = createHash('sha256')
  let filled = 0
  // Chunks of 1 MiB divide a part evenly.
  for await (const chunk of createReadStream(path, {
    highWaterMark: 1 << 20,
  }) as AsyncIterable<Buffer>) {
    whole.update(chunk)
    part.update(chunk)
    filled += chunk.length
    if (filled === PART) {
      parts.push(part.digest('hex'))
      part = createHash('sha256')
      filled = 0
    }
  }
  if (filled > 0) parts.push(part.digest('hex'))
  return { sha256: whole.digest('hex'), parts }
}

/** Writes a payload of `size` bytes, a multiple of 1 MiB. */
export async function makePayload(path: string, size: number): Promise<Payload> {
  const file = await open(path, 'w')
  const block = Buffer.alloc(1 << 20)
  for (let at = 0; at < size; at += block.length) {
    randomFillSync(block)
    if (at === 0) head(size).copy(block)
    await file.write(block)
  }
  await file.sync()
  await file.close()
  return { path, size, ...(await digests(path)) }
}

/** The same bytes under a new UUID, hence another digest: nobody may answer "I have that". */
export async function renewPayload(payload: Payload): Promise<Payload> {
  const file = await open(payload.path, 'r+')
  await file.write(randomBytes(16), 0, 16, 48)
  await file.sync()
  await file.close()
  return { ...payload, ...(await digests(payload.path)) }
}
