/** What a client of the herd takes for a whole and right image, however it arrives. */
import { createServer, type AddressInfo } from 'node:net'
import { expect, test } from 'vitest'
import { pullAll } from '../../bench/cases/herd.ts'

const IMAGE = Buffer.from(Array.from({ length: 1000 }, (_, index) => index % 251))

/** An answer whose body is `parts`, each a chunk. */
const chunked = (status: string, ...parts: Buffer[]) =>
  Buffer.concat([
    Buffer.from(`HTTP/1.1 ${status}\r\nTransfer-Encoding: chunked\r\n\r\n`),
    ...parts.flatMap((part) => [
      Buffer.from(`${part.length.toString(16)}\r\n`),
      part,
      Buffer.from('\r\n'),
    ]),
  ])
const END = Buffer.from('0\r\n\r\n')
const whole = (status: string, body: Buffer) =>
  Buffer.concat([Buffer.from(`HTTP/1.1 ${status}\r\nContent-Length: ${body.length}\r\n\r\n`), body])
const inChunks = (image: Buffer) =>
  Buffer.concat([chunked('200 OK', image.subarray(0, 300), image.subarray(300)), END])
/** Differs in its last byte. */
const wrong = Buffer.concat([IMAGE.subarray(0, -1), Buffer.of(255)])

/** How three clients fare whose requests are answered with these, piece by piece, and then hung up on. */
async function outcome(answers: Buffer[], piece: number) {
  const server = createServer((socket) => {
    let answered = 0
    let before = Promise.resolve()
    const say = async (answer: Buffer, last: boolean) => {
      for (let at = 0; at < answer.length && !socket.destroyed; at += piece) {
        socket.write(answer.subarray(at, at + piece))
        await new Promise(setImmediate)
      }
      if (last) socket.end()
    }
    socket.on('error', () => {})
    // a client may ask again before it has read all of an answer
    socket.on('data', () => {
      const answer = answers[answered++]
      const last = answered === answers.length
      if (answer !== undefined) before = before.then(() => say(answer, last))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  try {
    const { refused, bad } = await pullAll(`http://127.0.0.1:${port}/image`, IMAGE, 3)
    return { refused, bad }
  } finally {
    server.close()
  }
}

const MOVED = 'HTTP/1.1 303 See Other\r\nLocation: /ticket\r\n'
const GOOD: Record<string, Buffer[]> = {
  'of a known length': [whole('200 OK', IMAGE)],
  'in chunks': [inChunks(IMAGE)],
  'until the connection ends': [Buffer.concat([Buffer.from('HTTP/1.1 200 OK\r\n\r\n'), IMAGE])],
  'after a redirect': [Buffer.from(`${MOVED}Content-Length: 3\r\n\r\nxyz`), inChunks(IMAGE)],
  'after a redirect in chunks': [
    Buffer.from(`${MOVED}Transfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n`),
    whole('200 OK', IMAGE),
  ],
}
const BAD: Record<string, Buffer[]> = {
  'a byte differs': [whole('200 OK', wrong)],
  'a byte differs in a chunk': [inChunks(wrong)],
  'the last chunk is missing': [chunked('200 OK', IMAGE)],
  'a chunk is missing': [Buffer.concat([chunked('200 OK', IMAGE.subarray(0, 300)), END])],
  'there is more than the image': [inChunks(Buffer.concat([IMAGE, Buffer.of(1)]))],
  'it is shorter': [whole('200 OK', IMAGE.subarray(0, 999))],
  'the connection ends early': [whole('200 OK', IMAGE).subarray(0, -1)],
  'it is not there': [whole('404 Not Found', IMAGE)],
}

for (const piece of [1, 7, 4096]) {
  test.for(Object.entries(GOOD))(`right, in pieces of ${piece}: %s`, async ([, answers]) => {
    expect(await outcome(answers, piece)).toEqual({ refused: 0, bad: 0 })
  })
  test.for(Object.entries(BAD))(`not right, in pieces of ${piece}: %s`, async ([, answers]) => {
    expect(await outcome(answers, piece)).toEqual({ refused: 0, bad: 3 })
  })
}

test('an answer of 500 and above is counted as one', async () => {
  expect(await outcome([whole('503 Busy', IMAGE)], 4096)).toEqual({ refused: 3, bad: 0 })
})
