/** The real clock, ids and log: the only place that asks the machine for time and chance. */
import { randomBytes } from 'node:crypto'
import type { Clock, Ids, Log, LogFields, LogLevel } from '../src/ports.ts'

export const systemClock: Clock = { now: () => new Date() }

const ID_BYTES = 12
/** Random bytes are fetched for many ids at once: a call per request costs more than its answer. */
let pool = Buffer.alloc(0)
let used = 0

/** Ids of 24 hex digits, all of them random: neither order nor time can be read from one (R43). */
export const randomIds: Ids = {
  next() {
    if (used + ID_BYTES > pool.length) {
      pool = randomBytes(ID_BYTES * 256)
      used = 0
    }
    used += ID_BYTES
    return pool.toString('hex', used - ID_BYTES, used)
  },
}

export type LogForm = 'json' | 'pretty' | 'off'

/** What `auto` means: pretty for a person at a terminal, else JSON for a collector. */
export function logForm(setting: LogForm | 'auto'): LogForm {
  if (setting !== 'auto') return setting
  return process.stderr.isTTY ? 'pretty' : 'json'
}

/** Text that is JSON as it stands and does nothing to a terminal: nearly all that is ever logged. */
const PLAIN = /^[\w ./:*@+-]*$/

/** Characters that could forge lines or turn text around in a terminal. */
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/g // oxlint-disable-line no-control-regex
const escapeUnsafe = (text: string) =>
  text.replace(UNSAFE, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)

const FLUSH_AFTER_MS = 50
const FLUSH_AT_CHARS = 64 * 1024

/**
 * A log of one line per event on stderr (never stdout). Lines are gathered for at most 50 ms and
 * written at once; errors, 64 Ki characters and the end of the process flush.
 */
export function consoleLog(options: {
  form: LogForm
  write?: (text: string) => void
}): Log & { flush(): void } {
  if (options.form === 'off') return { event: () => {}, flush: () => {} }
  const line = options.form === 'json' ? jsonLine : prettyLine
  const write = options.write ?? ((text: string) => void process.stderr.write(text))
  let gathered = ''
  let timer: NodeJS.Timeout | null = null

  function flush(): void {
    if (timer !== null) clearTimeout(timer)
    timer = null
    const text = gathered
    gathered = ''
    if (text !== '') write(text)
  }
  process.on('exit', flush)
  return {
    event(level, name, fields = {}) {
      gathered += `${line(systemClock.now(), level, name, fields)}\n`
      if (level === 'error' || gathered.length >= FLUSH_AT_CHARS) flush()
      else timer ??= setTimeout(flush, FLUSH_AFTER_MS).unref()
    },
    flush,
  }
}

/** A log of one JSON line per event by `console`, where Workers gather it. */
export function collectedLog(): Log {
  return {
    event(level, name, fields = {}) {
      const text = jsonLine(systemClock.now(), level, name, fields)
      if (level === 'error') console.error(text)
      else console.log(text)
    },
  }
}

/** What `JSON.stringify` would make of it and `escapeUnsafe` of that, in a third of the time. */
function jsonLine(time: Date, level: LogLevel, name: string, fields: LogFields): string {
  let line = `{"time":"${time.toISOString()}","level":"${level}","event":${jsonValue(name)}`
  for (const key in fields) {
    const value = fields[key]
    if (value !== undefined) line += `,${jsonValue(key)}:${jsonValue(value)}`
  }
  return `${line}}`
}

const jsonValue = (value: LogFields[string]): string =>
  typeof value === 'string' && PLAIN.test(value)
    ? `"${value}"`
    : escapeUnsafe(JSON.stringify(value))

function prettyLine(time: Date, level: LogLevel, name: string, fields: LogFields): string {
  const words = Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => {
      const text = String(value)
      return `${key}=${/^[^\s"=]+$/.test(text) ? text : JSON.stringify(text)}`
    })
  return escapeUnsafe([time.toISOString().slice(11, 23), level.padEnd(5), name, ...words].join(' '))
}
