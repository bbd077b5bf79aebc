/**
 * An image that is larger than memory and exists nowhere but on the server's disk: made, pushed, pulled
 * and compared on the fly, once; and the same bytes written to a file, to see what the disk does.
 */
import { createHash, randomFillSync } from 'node:crypto'
import { mkdirSync, readdirSync, rmSync, statfsSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { get, type IncomingMessage } from 'node:http'
import { totalmem } from 'node:os'
import { join } from 'node:path'
import { head, PART, type Image } from '../content/payload.ts'
import { cpuSeconds, memory, run, type Server } from '../measure.ts'
import type { Table } from '../report.ts'
import { expectTime, untilTimeUp, type Bench } from '../rounds.ts'
import { startSreg } from '../systems/sreg.ts'

const MIB = 2 ** 20
const GIB = 2 ** 30
/** What is left on the disk for others. */
const SPARE = 4 * GIB
const SAMPLE_MS = 200
/** As the server writes what it receives (adapters/blobs/disk.ts), which syncs each part. */
const WRITE = MIB / 2
/** Of the transfer, what counts as its beginning and its end. */
const TENTH = 0.1

type Watched = {
  label: string
  seconds: number
  cpu: number
  /** MiB/s over the first tenth of the bytes, the last one, and the whole with what follows them. */
  first: number
  last: number
  whole: number
  /** MiB of memory: before, and the most in either half of the bytes. */
  before: number
  early: number
  late: number
  /** MiB on the disk beyond the bytes themselves, at most. */
  extra: number
  /** Files seen in the server's temporary folder. */
  temporary: number
}

/** Of as many GiB as are asked for and the disk has room for; throws when a byte differs. */
export async function large(bench: Bench): Promise<Table> {
  const { folder, gib, say, note } = bench
  const wanted = gib * GIB
  const size = Math.min(wanted, Math.floor((freeBytes(folder) - SPARE) / PART) * PART)
  if (size < PART) throw new Error(`no room on the disk of ${folder}`)
  const words = `${(size / GIB).toFixed(1)} GiB`
  if (size < wanted) say(`the disk has room for ${words} only`)
  const temporary = join(folder, 'tmp')
  mkdirSync(temporary)
  const filled = Math.max(0, Math.min(totalmem(), freeBytes(folder) - SPARE - size))
  const filling = () => fillMemory(join(folder, 'filling'), filled)
  await filling()
  const place = { folder, temporary, base: freeBytes(folder), size }
  const results: Watched[] = []

  // A fresh server each time: what the push took would hide what the pull takes.
  const withServer = async (
    work: (server: Awaited<ReturnType<typeof startSreg>>) => Promise<void>,
  ) => {
    const server = await startSreg(folder, { env: { TMPDIR: temporary } })
    try {
      await work(server)
    } finally {
      await server.stop()
    }
  }
  let doing = ''
  const step = async (what: string, { pid }: Pick<Server, 'pid'>, work: Work) => {
    await filling()
    results.push(
      await watched(what, pid, place, (onBytes) =>
        work((bytes) => {
          onBytes(bytes)
          expectTime(bench)
        }),
      ),
    )
  }
  const whole = await untilTimeUp(async () => {
    say((doing = 'plain file'))
    await step(doing, process, (onBytes) => writePlain(join(folder, 'plain'), size, onBytes))
    // its blocks are free again before anybody counts them
    await run('sync', [])
    say(`hashing ${words}, as a client has to before it pushes`)
    const image = madeOnTheFly(size, () => expectTime(bench))
    let path = ''
    say((doing = 'push'))
    await withServer((server) =>
      step(doing, server, async (onBytes) => {
        const fill = (block: Buffer, at: number) => {
          image.fill(block, at)
          onBytes(at + block.length)
        }
        const published = await server.publish({ ...image, fill })
        path = published.whole.slice(server.base.length)
      }),
    )
    say((doing = 'pull'))
    await withServer((server) =>
      step(doing, server, (onBytes) => pull(server.base + path, image, onBytes)),
    )
  })
  if (!whole) note(`Time was up after ${results.length} of 3 rows.`)
  const missing = [
    ...(size < wanted ? [`${gib} GiB were asked for: the disk has no room for them.`] : []),
    ...(filled < totalmem()
      ? [
          `The disk had room for ${(filled / GIB).toFixed(1)} GiB to fill memory with, which is ${(totalmem() / GIB).toFixed(1)}: the host may have taken back what was free.`,
        ]
      : []),
  ]
  return {
    title: `large: one image of ${words}, made and compared on the fly, once`,
    columns: [
      'case',
      'seconds',
      'MiB/s',
      'first tenth MiB/s',
      'last tenth MiB/s',
      'last ÷ first',
      'CPU s/GiB',
      'RSS before, MiB',
      'growth, first half',
      'more in the second half',
      'disk beyond the bytes, MiB',
      'temporary files',
    ],
    rows: results.map((one) => [
      one.label,
      one.seconds,
      one.whole,
      one.first,
      one.last,
      one.last / one.first,
      one.cpu / (size / GIB),
      one.before,
      one.early - one.before,
      Math.max(0, one.late - one.early),
      one.extra,
      one.temporary,
    ]),
    notes: [
      'What others write to that disk meanwhile counts as ours. The plain file is written by the benchmark itself, in the writes and syncs of a push, but neither sent nor hashed: what it loses between its first and its last tenth the machine loses.',
      ...missing,
    ],
  }
}

function freeBytes(folder: string): number {
  const { bavail, bsize } = statfsSync(folder)
  return bavail * bsize
}

/**
 * Leaves memory full of pages of a file, as it is on any server that has run for a day. What is free a virtual
 * machine's host may have taken back: then the first bytes, for which there is some left, go faster than the
 * next, and when memory is full and the kernel uses its pages again they go faster once more. Written anew each
 * time: what had been evicted and is read again counts as in use, and goes more slowly than other pages.
 */
async function fillMemory(path: string, size: number): Promise<void> {
  const block = Buffer.alloc(MIB)
  const file = await open(path, 'w')
  try {
    for (let at = 0; at < size; at += MIB) await file.write(block, 0, Math.min(MIB, size - at), at)
    await file.sync()
  } finally {
    await file.close()
  }
}

type Fill = (block: Buffer, at: number) => void
type Made = Image & { fill: Fill }

/** Bytes that follow from a random MiB and their place, behind the head of a SIF; in blocks of 1 MiB. */
function filler(size: number): Fill {
  const random = randomFillSync(Buffer.alloc(MIB))
  const first = head(size)
  return (block, at) => {
    random.copy(block)
    for (let place = 0; place < MIB; place += 4096) block.writeDoubleLE(at / MIB + 1, place)
    if (at === 0) first.copy(block)
  }
}

/** An image of such bytes; `onPart` is called before each part that is hashed. */
function madeOnTheFly(size: number, onPart: () => void): Made {
  const fill = filler(size)
  const whole = createHash('sha256')
  const parts: string[] = []
  const block = Buffer.alloc(MIB)
  for (let start = 0; start < size; start += PART) {
    onPart()
    const part = createHash('sha256')
    for (let at = start; at < Math.min(start + PART, size); at += MIB) {
      fill(block, at)
      part.update(block)
      whole.update(block)
    }
    parts.push(part.digest('hex'))
  }
  return { size, sha256: whole.digest('hex'), parts, fill }
}

/**
 * Writes such bytes to a file, in writes as long as the server's and each part synced while the next
 * one is being written, as in a push; the file is removed.
 */
async function writePlain(path: string, size: number, onBytes: OnBytes): Promise<void> {
  const fill = filler(size)
  const block = Buffer.alloc(MIB)
  const file = await open(path, 'wx')
  let syncing: Promise<void> = Promise.resolve()
  try {
    for (let at = 0; at < size; at += WRITE) {
      const inside = at % MIB
      if (inside === 0) fill(block, at)
      await file.write(block, inside, WRITE, at)
      onBytes(at + WRITE)
      if ((at + WRITE) % PART > 0) continue
      await syncing
      syncing = file.datasync()
      // the next part or the end reports it
      syncing.catch(() => {})
    }
    await syncing
    await file.sync()
  } finally {
    await syncing.catch(() => {})
    await file.close()
    rmSync(path)
  }
}

/** Pulls in one stream, redirects followed, and compares with what was pushed. */
async function pull(url: string, image: Made, onBytes: OnBytes): Promise<void> {
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    get(url, (given) => {
      if (given.statusCode !== 303) return resolve(given)
      given.resume()
      get(given.headers.location ?? '', resolve).on('error', reject)
    }).on('error', reject)
  })
  if (answer.statusCode !== 200) throw new Error(`${url}: ${answer.statusCode}`)
  const block = Buffer.alloc(MIB)
  let at = 0
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    for (let from = 0; from < chunk.length;) {
      const inside = at % MIB
      if (inside === 0) {
        image.fill(block, at)
        onBytes(at)
      }
      const count = Math.min(chunk.length - from, MIB - inside)
      if (chunk.compare(block, inside, inside + count, from, from + count) !== 0)
        throw new Error(`a byte differs between ${at} and ${at + count}`)
      from += count
      at += count
    }
  }
  if (at !== image.size) throw new Error(`${at} bytes came instead of ${image.size}`)
  onBytes(at)
}

type OnBytes = (bytes: number) => void
type Work = (onBytes: OnBytes) => Promise<void>

/** Does the work, which says how far it is, and looks at the process and the disk meanwhile. */
async function watched(
  label: string,
  pid: number,
  place: { folder: string; temporary: string; base: number; size: number },
  work: Work,
): Promise<Watched> {
  const { folder, temporary, base, size } = place
  const before = memory(pid).now
  const result = { before, early: before, late: before, extra: 0, temporary: 0 }
  const passed: { bytes: number; at: number }[] = []
  const cpu = cpuSeconds(pid)
  const began = performance.now()
  const look = () => {
    const { now } = memory(pid)
    const bytes = passed.at(-1)?.bytes ?? 0
    if (bytes < size / 2) result.early = Math.max(result.early, now)
    else result.late = Math.max(result.late, now)
    result.temporary = Math.max(result.temporary, readdirSync(temporary).length)
    result.extra = Math.max(result.extra, (base - freeBytes(folder) - size) / MIB)
  }
  const timer = setInterval(look, SAMPLE_MS)
  try {
    await work((bytes) => passed.push({ bytes, at: performance.now() }))
  } finally {
    clearInterval(timer)
  }
  look()
  const ended = performance.now()
  const seconds = (ended - began) / 1000
  const timeOf = (bytes: number) => passed.find((one) => one.bytes >= bytes)?.at ?? ended
  const rate = (from: number, to: number) =>
    ((to - from) * size) / MIB / ((timeOf(to * size) - timeOf(from * size)) / 1000)
  return {
    label,
    ...result,
    seconds,
    cpu: cpuSeconds(pid) - cpu,
    first: rate(0, TENTH),
    last: rate(1 - TENTH, 1),
    whole: size / MIB / seconds,
  }
}
