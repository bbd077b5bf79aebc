/**
 * A push and a pull of 30 GiB that exist nowhere but on the server's disk: made and compared on the
 * fly. `node bench/large.ts [--gib 30] [--runtime node] [--folder FOLDER]`; no more than the disk has
 * room for beside 4 GiB.
 */
import { createHash, randomFillSync } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statfsSync } from 'node:fs'
import { get, type IncomingMessage } from 'node:http'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { cpuSeconds } from './measure.ts'
import { memoryOf, push, startOurs, type Content, type Ours, type Runtime } from './ours.ts'
import { head, PART } from './payload.ts'
import { markdown, type Table } from './report.ts'

const MIB = 1024 * 1024
const GIB = 1024 * MIB
/** What is left on the disk for others. */
const SPARE = 4 * GIB
const SAMPLE_MS = 200
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

/**
 * Pushes and pulls `gib` GiB, or what the disk of `folder` has room for; throws when a byte differs.
 * `folder` is emptied by the caller.
 */
export async function benchLarge(options: {
  folder: string
  say: (line: string) => void
  gib?: number
  runtime?: Runtime
}): Promise<Table> {
  const { folder, say, runtime = 'node' } = options
  const wanted = (options.gib ?? 30) * GIB
  const room = Math.floor((freeBytes(folder) - SPARE) / PART) * PART
  const size = Math.min(wanted, room)
  if (size < wanted) say(`the disk has room for ${(size / GIB).toFixed(1)} GiB only`)
  say(`hashing ${(size / GIB).toFixed(1)} GiB, as a client has to before it pushes`)
  const source = madeOnTheFly(size)
  const temporary = join(folder, 'tmp')
  mkdirSync(temporary)
  const start = () => startOurs(folder, { runtime, env: { TMPDIR: temporary } })
  const base = freeBytes(folder)
  const results: Watched[] = []

  // A fresh server each time: what the push took would hide what the pull takes.
  let server = await start()
  let path = ''
  try {
    results.push(
      await watched('push', server, { folder, temporary, base, size }, async (onBytes) => {
        const url = await push(server, source, (number) => onBytes(Math.min(number * PART, size)))
        path = url.slice(server.base.length)
      }),
    )
  } finally {
    await server.stop()
  }
  server = await start()
  try {
    results.push(
      await watched('pull', server, { folder, temporary, base, size }, (onBytes) =>
        pull(server.base + path, source, onBytes),
      ),
    )
  } finally {
    await server.stop()
  }
  return {
    title: `One image of ${(size / GIB).toFixed(1)} GiB on ${runtime}, made and compared on the fly`,
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
  }
}

function freeBytes(folder: string): number {
  const { bavail, bsize } = statfsSync(folder)
  return bavail * bsize
}

type Source = Content & {
  /** Writes block `number`, of 1 MiB, into `block`. */
  fill(block: Buffer, number: number): void
}

/** Bytes that follow from a random MiB and their place, behind the head of a SIF. */
function madeOnTheFly(size: number): Source {
  const random = randomFillSync(Buffer.alloc(MIB))
  const first = head(size)
  const fill = (block: Buffer, number: number) => {
    random.copy(block)
    for (let at = 0; at < MIB; at += 4096) block.writeDoubleLE(number + 1, at)
    if (number === 0) first.copy(block)
  }
  const whole = createHash('sha256')
  const parts: string[] = []
  const block = Buffer.alloc(MIB)
  for (let start = 0; start < size; start += PART) {
    const part = createHash('sha256')
    for (let at = start; at < Math.min(start + PART, size); at += MIB) {
      fill(block, at / MIB)
      part.update(block)
      whole.update(block)
    }
    parts.push(part.digest('hex'))
  }
  const buffers = [Buffer.alloc(MIB), Buffer.alloc(MIB)] as const
  return {
    size,
    sha256: whole.digest('hex'),
    parts,
    fill,
    async write(out, start, length) {
      let written: Promise<void> = Promise.resolve()
      for (let at = start; at < start + length; at += MIB) {
        const buffer = buffers[(at / MIB) % 2 === 0 ? 0 : 1]
        fill(buffer, at / MIB)
        // The other one is on its way while this one was being made.
        await written
        written = new Promise((resolve, reject) => {
          out.write(buffer, (error) => (error ? reject(error) : resolve()))
        })
      }
      await written
      out.end()
    },
  }
}

/** Pulls in one stream, redirects followed, and compares with what was pushed. */
async function pull(url: string, source: Source, onBytes: (bytes: number) => void): Promise<void> {
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
        source.fill(block, at / MIB)
        onBytes(at)
      }
      const count = Math.min(chunk.length - from, MIB - inside)
      if (chunk.compare(block, inside, inside + count, from, from + count) !== 0)
        throw new Error(`a byte differs between ${at} and ${at + count}`)
      from += count
      at += count
    }
  }
  if (at !== source.size) throw new Error(`${at} bytes came instead of ${source.size}`)
  onBytes(at)
}

/** Does the work, which says how far it is, and looks at server and disk meanwhile. */
async function watched(
  label: string,
  { pid }: Ours,
  place: { folder: string; temporary: string; base: number; size: number },
  work: (onBytes: (bytes: number) => void) => Promise<void>,
): Promise<Watched> {
  const { folder, temporary, base, size } = place
  const before = memoryOf(pid).now
  const result = { before, early: before, late: before, extra: 0, temporary: 0 }
  const passed: { bytes: number; at: number }[] = []
  const cpu = cpuSeconds(pid)
  const began = performance.now()
  const look = () => {
    const { now } = memoryOf(pid)
    const bytes = passed.at(-1)?.bytes ?? 0
    if (bytes < size / 2) result.early = Math.max(result.early, now)
    else result.late = Math.max(result.late, now)
    result.temporary = Math.max(result.temporary, readdirSync(temporary).length)
    // What others write to the disk meanwhile counts as ours.
    result.extra = Math.max(result.extra, (base - freeBytes(folder) - size) / MIB)
  }
  const timer = setInterval(look, SAMPLE_MS)
  try {
    await work((bytes) => passed.push({ bytes, at: performance.now() }))
  } finally {
    clearInterval(timer)
  }
  look()
  const seconds = (performance.now() - began) / 1000
  const timeOf = (bytes: number) => passed.find((one) => one.bytes >= bytes)?.at ?? began
  const rate = (from: number, to: number) => {
    const start = from === 0 ? began : timeOf(from * size)
    return ((to - from) * size) / MIB / ((timeOf(to * size) - start) / 1000)
  }
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

if (import.meta.main) {
  const root = fileURLToPath(new URL('..', import.meta.url))
  const { values } = parseArgs({
    options: {
      gib: { type: 'string', default: '30' },
      runtime: { type: 'string', default: 'node' },
      folder: { type: 'string', default: join(root, '.cache') },
    },
  })
  mkdirSync(values.folder, { recursive: true })
  const folder = mkdtempSync(join(values.folder, 'large-'))
  try {
    const table = await benchLarge({
      folder,
      gib: Number(values.gib),
      runtime: values.runtime as Runtime,
      say: (line) => console.error(line),
    })
    console.log(markdown(table))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
