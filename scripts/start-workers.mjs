/**
 * `npm run start:workers`: the registry in workerd on this computer (local-workers.mjs), as a process.
 *
 *   node scripts/start-workers.mjs [--host 127.0.0.1] [--port 8080] [--data ./sreg-data-workers]
 *
 * Needs no network. SREG_* variables are the Worker's settings; SREG_SWEEP_INTERVAL is how often the
 * cron trigger fires.
 */
import { parseArgs } from 'node:util'
import { startWorkers } from './local-workers.mjs'

const { env } = process
const { values: options } = parseArgs({
  options: {
    host: { type: 'string', default: env.SREG_HOST || '127.0.0.1' },
    port: { type: 'string', default: env.SREG_PORT || '8080' },
    data: { type: 'string', default: env.SREG_DATA || './sreg-data-workers' },
  },
})
const say = (line) => process.stderr.write(`${line}\n`)

try {
  const { url, data, end } = await startWorkers({ ...options, env, say })
  for (const signal of ['SIGINT', 'SIGTERM']) {
    // Miniflare's own listener would end the process before workerd has.
    process.removeAllListeners(signal)
    process.once(signal, () => void end(signal).then(() => process.exit(0)))
  }
  process.stdout.write(`listening on ${url}\n`)
  say(`sreg-lite in workerd serves ${url} with its data in ${data}`)
  say(`Connect Apptainer:  npx sreg-lite connect ${url} --token-file FILE`)
} catch (error) {
  say(
    error?.code === undefined && error?.cause === undefined
      ? (error?.stack ?? String(error))
      : error.message,
  )
  process.exit(1)
}
