/** A client that says exactly what a test wants on the socket, and sees how an answer ended. */
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

export type RawAnswer = {
  /** 0 when the connection ended before a whole head. */
  status: number
  headers: Headers
  body: Buffer
  /** Whether the body ended as its Content-Length or its last chunk promised (R5). */
  complete: boolean
  /** A write of ours failed, which ends Node's socket at once: what had come by then may not have been read. */
  unread: boolean
}
type Parsed = Omit<RawAnswer, 'unread'>

/** Characters of a head that are written at once; a body may follow one that is no longer. */
const PIECE = 65_536

/**
 * Writes a request line, headers and a body as given: nothing is added but `Host`, unless a line
 * names it. The socket stays open for more; `answer` settles when the answer is complete, when the
 * connection ends, or after ten seconds.
 */
export function rawRequest(
  url: string,
  lines: string[],
  body: Uint8Array | string = '',
): { socket: Socket; answer: Promise<RawAnswer> } {
  const { hostname, port, host } = new URL(url)
  const named = lines.some((line) => /^host:/i.test(line))
  const head = [...lines, ...(named ? [] : [`Host: ${host}`]), '', ''].join('\r\n')
  const socket = connect({ host: hostname, port: Number(port), allowHalfOpen: true })
  void writeHead(socket, head)
  if (body.length > 0) socket.write(body)
  const answer = new Promise<RawAnswer>((resolve) => {
    const chunks: Buffer[] = []
    const method = lines[0]?.split(' ')[0] ?? ''
    let unread = false
    const settle = () => {
      clearTimeout(timer)
      socket.destroy()
      resolve({ ...parse(Buffer.concat(chunks), method), unread })
    }
    const timer = setTimeout(settle, 10_000)
    socket.on('data', (chunk) => {
      chunks.push(chunk)
      if (parse(Buffer.concat(chunks), method).complete) settle()
    })
    socket.on('end', settle)
    socket.on('close', settle)
    // A reset is one of the endings a test looks at.
    socket.on('error', ({ syscall }: NodeJS.ErrnoException) => (unread = syscall === 'write'))
  })
  return { socket, answer }
}

/** A large head goes in pieces, and what has come is read between them: see `rawGet`. */
async function writeHead(socket: Socket, head: string): Promise<void> {
  for (let at = 0; at < head.length && socket.writable; at += PIECE)
    await new Promise<void>((resolve) => {
      socket.write(head.slice(at, at + PIECE), () => setImmediate(resolve))
    })
}

/**
 * Sends a request without a body and waits for its answer. Asks again, up to nine times, only where a
 * failed write of ours kept it from reading any. Bun refuses a megabyte of headers and closes: written at
 * once, up to 100 of 400 on a busy machine ended so, though a client that read on got all 400 answers.
 */
export async function rawGet(url: string, path: string, ...headers: string[]): Promise<RawAnswer> {
  const ask = () => rawRequest(url, [`GET ${path} HTTP/1.1`, ...headers]).answer
  let answer = await ask()
  for (let tries = 1; tries < 10 && answer.status === 0 && answer.unread; tries++) {
    // they come in rows
    await sleep(50)
    answer = await ask()
  }
  return answer
}

function parse(bytes: Buffer, method: string): Parsed {
  const end = bytes.indexOf('\r\n\r\n')
  if (end < 0) return { status: 0, headers: new Headers(), body: Buffer.alloc(0), complete: false }
  const [first = '', ...lines] = bytes.subarray(0, end).toString('latin1').split('\r\n')
  const headers = new Headers()
  for (const line of lines) {
    const colon = line.indexOf(':')
    headers.append(line.slice(0, colon), line.slice(colon + 1).trim())
  }
  const status = Number(first.split(' ')[1])
  const rest = bytes.subarray(end + 4)
  if (status === 100) return parse(rest, method)
  const bodiless = method === 'HEAD' || status === 204 || status === 304
  if (headers.get('transfer-encoding') === 'chunked' && !bodiless)
    return { status, headers, ...dechunk(rest) }
  const length = bodiless ? 0 : Number(headers.get('content-length') ?? Number.NaN)
  // what follows belongs to the next answer
  const complete = rest.length >= length
  return { status, headers, body: complete ? rest.subarray(0, length) : rest, complete }
}

function dechunk(bytes: Buffer): { body: Buffer; complete: boolean } {
  const chunks: Buffer[] = []
  for (let at = 0; ;) {
    const end = bytes.indexOf('\r\n', at)
    const size = end < 0 ? Number.NaN : Number.parseInt(bytes.toString('latin1', at, end), 16)
    const complete = size === 0
    if (complete || Number.isNaN(size)) return { body: Buffer.concat(chunks), complete }
    chunks.push(bytes.subarray(end + 2, end + 2 + size))
    at = end + 2 + size + 2
  }
}
