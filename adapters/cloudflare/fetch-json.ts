/**
 * JSON documents of other servers on Workers. These run outside every private network and reach none,
 * so there is no address to look at (R55).
 */
import type { FetchJson } from '../../src/ports.ts'

const WITHIN_MS = 5000
const MOST_BYTES = 64 * 1024

export const workerFetchJson: FetchJson = async (url) => {
  if (!url.startsWith('https:')) throw new Error(`${url} is not https`)
  const answer = await fetch(url, {
    redirect: 'manual',
    headers: { Accept: 'application/json', 'User-Agent': 'sreg-lite' },
    signal: AbortSignal.timeout(WITHIN_MS),
  })
  const reader = answer.body?.getReader()
  if (answer.status !== 200 || reader === undefined) {
    await reader?.cancel()
    throw new Error(`${url} answered ${answer.status}`)
  }
  const decoder = new TextDecoder()
  let text = ''
  let size = 0
  for (;;) {
    const { done, value } = await reader.read()
    if (done) break
    size += value.length
    if (size > MOST_BYTES) {
      await reader.cancel()
      throw new Error(`${url} is longer than ${MOST_BYTES} bytes`)
    }
    text += decoder.decode(value, { stream: true })
  }
  return JSON.parse(text + decoder.decode())
}
