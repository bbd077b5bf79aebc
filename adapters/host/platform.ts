/** What differs between the runtimes that serve a data folder: Node, Bun and Deno. */
import type { Connection, Rate, Transfer } from '../../src/app.ts'
import type { Log } from '../../src/ports.ts'
import type { OpenDatabase, OpenOptions } from '../databases/sync.ts'

/** What a peer that is waited for must move (R48). */
export const MINIMUM_RATE: Rate = { bytesPerSecond: 4096, seconds: 60 }

/** Every member loads what it needs when called: most commands need little of it. */
export type Platform = {
  name: 'node' | 'bun' | 'deno'
  openDatabase(file: string, options: OpenOptions): Promise<OpenDatabase>
  /** What gives the lock back; null when another holder has it (R45). */
  takeLock(file: string): Promise<(() => void) | null>
  listen(options: ListenOptions): Promise<Listening>
  /** The way of the bytes for requests that come through `listen`. */
  transfer(): Promise<Transfer>
}

export type Listening = {
  /** http(s)://host:port. */
  url: string
  port: number
  /**
   * Stops accepting, lets running requests finish for `graceSeconds`, ends idle connections at
   * once and destroys the rest.
   */
  close(): Promise<void>
}

export type ListenOptions = {
  fetch: (request: Request, connection: Connection) => Response | Promise<Response>
  host: string
  /** 0 takes any free port. */
  port: number
  /** PEM texts. */
  tls?: { cert: string; key: string }
  /** Seconds that running requests get when the server closes. */
  graceSeconds: number
  /** Open connections per client address; loopback and trusted proxies are not counted. */
  maxConnections: number
  trustedProxies: readonly string[]
  log: Log
  /** `MINIMUM_RATE` unless a test says otherwise; for servers that watch their sockets. */
  minimumRate?: Rate
  /** Seconds that an idle connection is kept; 65 unless a test says otherwise. Deno has no limit. */
  idleSeconds?: number
}
