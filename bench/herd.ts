/**
 * A herd: 1,000 clients pull one image of 64 MiB at once, from us and from nginx in turn, and compare
 * every byte. `node bench/herd.ts [--rounds 5] [--clients 1000] [--runtime node] [--folder FOLDER]`
 */
import { linkSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { cpuSeconds, findProgram, freePort, run, serve } from './measure.ts'
import { memoryOf, push, startOurs, type Runtime } from './ours.ts'
import { markdown, median, type Table } from './report.ts'
import { makePayload } from './payload.ts'

const MIB = 1024 * 1024
const SIZE = 64 * MIB
/** Fewer than servers let wait for their accept: one more would come a second later. */
const CONNECTING = 200
const [SERVER_CORE, CLIENT_CORE] = ['0', '1']

type Pulled = {
  seconds: number
  cpu: number
  /** Answers of 500 and above, and whatever else was not the image, whole and right. */
  failed: number
  wrong: number
}

/**
 * Measures `rounds` rounds, each of both in turn. Our server and nginx's one worker run on core 0, the
 * clients on core 1. `folder` is emptied by the caller.
 */
export async function benchHerd(options: {
  folder: string
  rounds: number
  say: (line: string) => void
  clients?: number
  runtime?: Runtime
}): Promise<Table> {
  const { folder, rounds, say, clients = 1000, runtime = 'node' } = options
  const nginx = findProgram('nginx')
  if (nginx === null) say('nginx is not installed and will be missing: apt-get install nginx-light')
  await run('taskset', ['-acp', CLIENT_CORE, String(process.pid)])
  const payload = await makePayload(join(folder, 'payload.sif'), SIZE)
  const bytes = readFileSync(payload.path)
  const systems: { name: string; url: string; pid: number; stop(): Promise<void> }[] = []
  const pulls = new Map<string, Pulled[]>()
  try {
    mkdirSync(join(folder, 'ours'))
    const ours = await startOurs(join(folder, 'ours'), { runtime, core: SERVER_CORE })
    systems.push({ name: `sreg-lite, ${runtime}`, url: '', ...ours })
    const write = (out: NodeJS.WritableStream) => Promise.resolve(void out.end(bytes))
    const { sha256, parts } = payload
    const url = await push(ours, { size: SIZE, sha256, parts, write })
    Object.assign(systems[0] ?? {}, { url })
    if (nginx !== null) systems.push(await startNginx(nginx, join(folder, 'nginx'), payload.path))

    for (const { url } of systems) await herd(url, bytes, 10)
    for (let round = 0; round < rounds; round++) {
      say(`herd, round ${round + 1} of ${rounds}`)
      for (const { name, url, pid } of round % 2 === 0 ? systems : systems.toReversed()) {
        const cpu = cpuSeconds(pid)
        const pulled = { ...(await herd(url, bytes, clients)), cpu: cpuSeconds(pid) - cpu }
        pulls.set(name, [...(pulls.get(name) ?? []), pulled])
        const rate = (clients * SIZE) / MIB / pulled.seconds
        const { peak } = memoryOf(pid)
        say(
          `  ${name}: ${pulled.seconds.toFixed(1)} s (${rate.toFixed(0)} MiB/s), CPU ${pulled.cpu.toFixed(1)} s, at most ${peak.toFixed(0)} MiB, ${pulled.failed} failed, ${pulled.wrong} wrong`,
        )
      }
    }
    const peer = pulls.get('nginx')
    const medianOf = (some: Pulled[], pick: (one: Pulled) => number) => median(some.map(pick))
    const rows = systems.map(({ name, pid }) => {
      const some = pulls.get(name) ?? []
      const seconds = some.map((one) => one.seconds)
      return [
        name,
        medianOf(some, (one) => one.seconds),
        `${Math.min(...seconds).toFixed(1)} – ${Math.max(...seconds).toFixed(1)}`,
        medianOf(some, (one) => one.cpu / ((clients * SIZE) / 2 ** 30)),
        memoryOf(pid).peak,
        some.reduce((sum, one) => sum + one.failed, 0),
        some.reduce((sum, one) => sum + one.wrong, 0),
        peer === undefined || some === peer
          ? ''
          : median(some.map((one, round) => one.seconds / (peer[round]?.seconds ?? Number.NaN))),
      ]
    })
    return {
      title: `${clients} parallel pulls of one image of ${SIZE / MIB} MiB, every byte compared; ${rounds} interleaved rounds, server on one core, clients on the other`,
      columns: [
        'system',
        'median s',
        'min – max',
        'CPU s/GiB',
        'peak RSS MiB',
        'failed or 5xx',
        'wrong bytes',
        'time × nginx',
      ],
      rows,
    }
  } finally {
    for (const { stop } of systems) await stop()
  }
}

/** One worker, as many connections as it takes, the same file. */
async function startNginx(program: string, folder: string, file: string) {
  mkdirSync(join(folder, 'www'), { recursive: true })
  linkSync(file, join(folder, 'www/payload'))
  const port = await freePort()
  const base = `http://127.0.0.1:${port}`
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
  const conf = join(folder, 'nginx.conf')
  writeFileSync(
    conf,
    // Without a master process there is one pid to look at.
    `daemon off; master_process off; pid ${folder}/pid; error_log stderr;
    worker_rlimit_nofile 8192;
    events { worker_connections 4096; }
    http {
      ${temporary.map((name) => `${name}_temp_path ${folder}/${name};`).join(' ')}
      access_log off; sendfile on; tcp_nopush on;
      server { listen 127.0.0.1:${port}; root ${folder}/www; }
    }\n`,
  )
  const args = ['-c', SERVER_CORE, program, '-p', folder, '-c', conf]
  const url = `${base}/payload`
  return { name: 'nginx', url, ...(await serve(folder, 'taskset', args, url)) }
}

/** All clients connect, then all ask at once; seconds from there until the last one has its bytes. */
async function herd(url: string, bytes: Buffer, clients: number): Promise<Omit<Pulled, 'cpu'>> {
  const { hostname, port, pathname, search } = new URL(url)
  const path = pathname + search
  const pulls: { start: () => void; done: Promise<'right' | 'wrong' | 'failed'> }[] = []
  // One buffer for all: a chunk is compared before the next one is read.
  const arriving = Buffer.allocUnsafeSlow(256 * 1024)
  for (let opened = 0; opened < clients; opened += CONNECTING) {
    const some = Array.from({ length: Math.min(CONNECTING, clients - opened) }, () =>
      openPull({ host: hostname, port: Number(port), path }, bytes, arriving),
    )
    pulls.push(...(await Promise.all(some)))
  }
  const began = performance.now()
  for (const { start } of pulls) start()
  const ends = await Promise.all(pulls.map(({ done }) => done))
  const seconds = (performance.now() - began) / 1000
  const count = (end: string) => ends.filter((one) => one === end).length
  return { seconds, failed: count('failed'), wrong: count('wrong') }
}

/**
 * A connection that will ask for `path`, follow one 303 on the same connection, and compare what
 * comes: 'right' is all of it, 'wrong' a byte that differs, 'failed' everything else.
 */
function openPull(
  { host, port, path }: { host: string; port: number; path: string },
  bytes: Buffer,
  arriving: Buffer,
) {
  type End = 'right' | 'wrong' | 'failed'
  const { promise: done, resolve } = Promise.withResolvers<End>()
  return new Promise<{ start: () => void; done: Promise<End> }>((opened, refused) => {
    let head = ''
    let at = -1
    const ask = (target: string) =>
      socket.write(`GET ${target} HTTP/1.1\r\nHost: ${host}:${port}\r\n\r\n`)
    const end = (how: End) => {
      resolve(how)
      socket.destroy()
    }
    const onHead = (text: string): number => {
      head += text
      const length = head.indexOf('\r\n\r\n') + 4
      if (length < 4) return text.length
      const used = text.length - (head.length - length)
      const status = Number(head.slice(9, 12))
      const location = /\r\nlocation: (\S+)/i.exec(head)?.[1]
      const size = Number(/\r\ncontent-length: (\d+)/i.exec(head)?.[1] ?? Number.NaN)
      head = ''
      if (status === 303 && location !== undefined) {
        const { pathname, search } = new URL(location, `http://${host}:${port}`)
        ask(pathname + search)
      } else if (status === 200 && size === bytes.length) at = 0
      else end('failed')
      return used
    }
    const onBytes = (count: number): boolean => {
      let from = at < 0 ? onHead(arriving.toString('latin1', 0, count)) : 0
      if (at < 0 || from === count) return true
      const more = count - from
      if (at + more > bytes.length) return (end('wrong'), false)
      if (bytes.compare(arriving, from, count, at, at + more) !== 0) return (end('wrong'), false)
      from = count
      at += more
      if (at === bytes.length) end('right')
      return true
    }
    const socket: Socket = connect({
      host,
      port,
      onread: { buffer: arriving, callback: onBytes },
    })
    socket.setNoDelay(true)
    socket.on('error', refused)
    socket.on('close', () => resolve('failed'))
    socket.once('connect', () => opened({ start: () => ask(path), done }))
  })
}

if (import.meta.main) {
  const root = fileURLToPath(new URL('..', import.meta.url))
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '5' },
      clients: { type: 'string', default: '1000' },
      runtime: { type: 'string', default: 'node' },
      folder: { type: 'string', default: join(root, '.cache') },
    },
  })
  mkdirSync(values.folder, { recursive: true })
  const folder = mkdtempSync(join(values.folder, 'herd-'))
  try {
    const table = await benchHerd({
      folder,
      rounds: Number(values.rounds),
      clients: Number(values.clients),
      runtime: values.runtime as Runtime,
      say: (line) => console.error(line),
    })
    console.log(markdown(table))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
