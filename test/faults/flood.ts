/** Many requests at once over few sockets: what a guesser or a crawler costs, not what a client costs. */
import { connect } from 'node:net'
import { once } from 'node:events'

export type Flood = {
  /** How often each status was answered. */
  statuses: Map<number, number>
  /** Answers so far. */
  count(): number
  /** Ends it after the answers that are on their way. */
  stop(): Promise<void>
}

/**
 * Says request heads (`next` makes each, without its last empty line) on `sockets` keep-alive
 * connections, each with up to `depth` requests under way, until `stop`; `perSecond` holds it back.
 */
export async function flood(
  url: string,
  next: (number: number) => string,
  { sockets = 4, depth = 8, perSecond = Infinity } = {},
): Promise<Flood> {
  const { hostname: host, port } = new URL(url)
  const statuses = new Map<number, number>()
  const began = performance.now()
  let asked = 0
  let answered = 0
  let stopped = false
  const due = () => ((performance.now() - began) / 1000) * perSecond

  async function speak(): Promise<void> {
    const socket = connect({ host, port: Number(port) })
    await once(socket, 'connect')
    let heard = ''
    let waiting = 0
    await new Promise<void>((resolve, reject) => {
      const room = () => !stopped && waiting < depth && asked < due()
      const say = () => {
        let words = ''
        while (room()) {
          words += `${next(asked)}\r\n`
          asked += 1
          waiting += 1
        }
        if (words !== '') socket.write(words)
        if (stopped && waiting === 0) end()
      }
      const timer = setInterval(say, 5)
      const end = () => {
        clearInterval(timer)
        socket.destroy()
        resolve()
      }
      socket.setEncoding('latin1').on('data', (chunk: string) => {
        heard += chunk
        for (let answer = take(); answer !== null; answer = take()) {
          statuses.set(answer, (statuses.get(answer) ?? 0) + 1)
          waiting -= 1
          answered += 1
        }
        say()
      })
      /** The status of the first answer heard, when all of it was. */
      const take = (): number | null => {
        const head = heard.indexOf('\r\n\r\n')
        if (head < 0) return null
        const length = Number(/\r\ncontent-length: (\d+)/i.exec(heard.slice(0, head))?.[1] ?? 0)
        const end = head + 4 + length
        if (heard.length < end) return null
        const status = Number(heard.slice(9, 12))
        heard = heard.slice(end)
        return status
      }
      socket.on('close', () => {
        clearInterval(timer)
        if (stopped) resolve()
        else reject(new Error(`the connection ended, saying ${heard.slice(0, 300)}`))
      })
      socket.on('error', reject)
      say()
    })
  }

  const done = Promise.all(Array.from({ length: sockets }, speak))
  done.catch(() => undefined)
  return {
    statuses,
    count: () => answered,
    async stop() {
      stopped = true
      await done
    },
  }
}
