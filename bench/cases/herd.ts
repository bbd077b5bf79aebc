/** A herd: many clients pull one image at once and compare every byte, from us and from nginx. */
import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { makePayload } from '../content/payload.ts'
import { memory, onLoadCore } from '../measure.ts'
import type { Measured } from '../report.ts'
import { inRounds, recorder, rotate, timed, type Bench } from '../rounds.ts'
import { nginx } from '../systems/nginx.ts'
import { ownFolder, startAll, stopAll, type Source } from '../systems/registry.ts'
import { ours, type Ours } from '../systems/sreg.ts'

const SIZE = 64 * 2 ** 20
/** Deno needs three times as long as the others: it would take the time of their rounds. */
const RUNTIMES: Ours[] = ['node', 'bun']
/** Fewer than servers let wait for their accept: one more would come a second later. */
const CONNECTING = 200

/** Servers on one core, all clients in this process on the other. */
export function herd(bench: Bench): Promise<Measured> {
  return onLoadCore(async () => {
    const { folder, clients, say } = bench
    const payload = await makePayload(join(folder, 'payload.sif'), SIZE)
    const bytes = readFileSync(payload.path)
    const candidates = [...ours(RUNTIMES, { pin: true }), nginx({ pin: true })]
    const { systems, missing } = await startAll<Source>(candidates, ownFolder(folder), say)
    const { rows, add } = recorder(bench)
    try {
      const places: { system: Source; url: string }[] = []
      for (const system of systems) {
        const { whole } = await system.publish(payload)
        places.push({ system, url: whole })
        // what runs for the first time is compiled first
        await pullAll(whole, bytes, 10)
      }
      await inRounds(bench, async (round) => {
        for (const { system, url } of rotate(places, round)) {
          let pulled = { seconds: 0, refused: 0, bad: 0 }
          const { cpu } = await timed(system, async () => {
            pulled = await pullAll(url, bytes, clients)
          })
          const of = (what: string, unit: string) => ({ what, system: system.name, unit })
          const gib = (clients * SIZE) / 2 ** 30
          add(
            { ...of(`${clients} pulls of ${SIZE / 2 ** 20} MiB at once`, 's'), cpuUnit: 's/GiB' },
            { round, value: pulled.seconds, cpu: cpu / gib },
          )
          const { peak } = memory(system.pid)
          add(of('resident memory at its highest', 'MiB'), { round, value: peak })
          add(of('answers of 500 and above', 'pulls'), { round, value: pulled.refused })
          add(of('not whole or not right', 'pulls'), { round, value: pulled.bad })
        }
      })
    } finally {
      await stopAll(systems)
    }
    const notes = [
      'Seconds from the first request to the last byte; connections are open before. Memory is the most since the start.',
    ]
    return { rows, peers: ['nginx'], missing, notes }
  })
}

/** How a pull ended: `refused` by a status of 500 or above, `bad` in any other way but the right one. */
type End = 'right' | 'refused' | 'bad'

/** All `clients` connect, then all ask for `url` at once; seconds from there until the last one has ended. */
export async function pullAll(url: string, bytes: Buffer, clients: number) {
  const pulls: { start: () => void; done: Promise<End> }[] = []
  // One buffer for all: a chunk is compared before the next one is read.
  const arriving = Buffer.allocUnsafeSlow(256 * 1024)
  while (pulls.length < clients) {
    const some = Math.min(CONNECTING, clients - pulls.length)
    pulls.push(
      ...(await Promise.all(
        Array.from({ length: some }, () => openPull(new URL(url), bytes, arriving)),
      )),
    )
  }
  const began = performance.now()
  for (const { start } of pulls) start()
  const ends = await Promise.all(pulls.map(({ done }) => done))
  const seconds = (performance.now() - began) / 1000
  const count = (end: End) => ends.filter((one) => one === end).length
  return { seconds, refused: count('refused'), bad: count('bad') }
}

/**
 * A connection that will ask for a path, follow redirects on the same connection, and compare what
 * comes, of a known length or in chunks. `arriving` is read into.
 */
function openPull({ hostname, port, pathname, search }: URL, bytes: Buffer, arriving: Buffer) {
  const { promise: done, resolve } = Promise.withResolvers<End>()
  return new Promise<{ start: () => void; done: Promise<End> }>((opened, failed) => {
    /** What comes next, and how much of it is still to come where that is known. */
    let reading: 'head' | 'size' | 'bytes' | 'skipped' = 'head'
    let left = 0
    let afterSkipped: 'head' | 'size' = 'head'
    /** Of a head or the size of a chunk, as much as has come. */
    let words = ''
    let chunked = false
    /** Whether this is the answer that has the image, and none that sends us on. */
    let last = false
    /** Bytes of the image that came. */
    let at = 0
    const ask = (target: string) =>
      socket.write(`GET ${target} HTTP/1.1\r\nHost: ${hostname}:${port}\r\n\r\n`)
    const end = (how: End) => {
      resolve(how)
      socket.destroy()
    }
    const skip = (count: number, next: 'head' | 'size') => {
      reading = count === 0 ? next : 'skipped'
      ;[left, afterSkipped] = [count, next]
    }
    const onHead = (head: string) => {
      const status = Number(head.slice(9, 12))
      const field = (name: string) =>
        new RegExp(`^${name}:[ \t]*(.*?)[ \t]*\r?$`, 'im').exec(head)?.[1]
      const length = field('content-length')
      chunked = /\bchunked$/i.test(field('transfer-encoding') ?? '')
      last = status === 200
      if (status === 303) {
        const next = new URL(field('location') ?? '', `http://${hostname}:${port}`)
        ask(next.pathname + next.search)
        if (chunked) reading = 'size'
        else skip(Number(length ?? 0), 'head')
      } else if (!last) end(status >= 500 ? 'refused' : 'bad')
      else if (chunked) reading = 'size'
      // without a length the body ends with the connection
      else if (Number(length ?? bytes.length) === bytes.length)
        [reading, left] = ['bytes', bytes.length]
      else end('bad')
    }
    const onSize = (line: string) => {
      left = Number.parseInt(line, 16)
      // what stands in an answer that sends us on is of no interest
      if (!last && left >= 0) skip(left + 2, left === 0 ? 'head' : 'size')
      else if (left > 0 && at + left <= bytes.length) reading = 'bytes'
      else end(left === 0 && at === bytes.length ? 'right' : 'bad')
    }
    /** Takes what belongs to a head or a size; returns how many bytes that were. */
    const onWords = (text: string): number => {
      const before = words.length
      words += text
      const mark = reading === 'head' ? '\r\n\r\n' : '\r\n'
      const stop = words.indexOf(mark)
      if (stop < 0) return text.length
      const found = words.slice(0, stop)
      words = ''
      if (reading === 'head') onHead(found)
      else onSize(found)
      return stop + mark.length - before
    }
    const onBytes = (count: number): boolean => {
      for (let from = 0; from < count && !socket.destroyed;) {
        const size = Math.min(left, count - from)
        if (reading === 'bytes') {
          if (bytes.compare(arriving, from, from + size, at, at + size) !== 0) end('bad')
          at += size
          left -= size
          from += size
          if (left > 0) continue
          if (chunked) skip(2, 'size')
          else end('right')
        } else if (reading === 'skipped') {
          left -= size
          from += size
          if (left === 0) reading = afterSkipped
        } else from += onWords(arriving.toString('latin1', from, Math.min(count, from + 4096)))
      }
      return !socket.destroyed
    }
    const socket: Socket = connect({
      host: hostname,
      port: Number(port),
      onread: { buffer: arriving, callback: onBytes },
    })
    socket.setNoDelay(true)
    socket.on('error', failed)
    // a server that ends early
    socket.on('close', () => resolve('bad'))
    socket.once('connect', () => opened({ start: () => ask(pathname + search), done }))
  })
}
