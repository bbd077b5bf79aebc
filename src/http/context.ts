/** What a request carries through Hono: the runtime's facts, the log line to be, and the claims. */
import type { Context } from 'hono'
import type { Claims } from '../core/model.ts'
import type { ErrorCode } from '../errors.ts'
import type { Peer } from '../ports.ts'

/** The request's log line while it grows (R34: no URL, header, body or ticket goes in here). */
export type LogEntry = {
  requestId: string
  /** The client's address; null where nobody knows. */
  address: string | null
  /** Pattern of the route that matched, such as `/v1/entities/:name`. */
  route: string | null
  userId: string | null
  tokenId: string | null
  /**
   * What was shown is a good token that says nobody, or reaches less far than was asked: a refusal then
   * asks for another one, and is neither a failed check of a credential nor a denial.
   */
  asksForAnother: boolean
  /** First six hex digits of the ticket's SHA-256. */
  ticket: string | null
  /** Bytes of the body received and sent, where somebody counted. */
  bytesIn: number | null
  bytesOut: number | null
  /** Code of the error that was answered. */
  code: ErrorCode | null
  /** What an operator may know beyond the answer: why a ticket was refused, a stack. */
  reason: string | null
  /** The sentence of a refusal that was answered. */
  refusal: string | null
  /** Headers for the answer besides its own, where there is no `putHeaders`. */
  told: Readonly<Record<string, string>> | null
  /** Status of an answer that a Transfer wrote past Hono; else null. */
  status: number | null
  /** Settles when a body that is streamed has left, or failed to; the line is written then. */
  sent: Promise<void> | null
}

/** What the runtime says about a connection. */
export type Connection = {
  peer: Peer
  /** Node's IncomingMessage and ServerResponse, for adapters/node only. */
  incoming?: unknown
  outgoing?: unknown
  /** Keeps what the request may use until the work is done; present where that ends with the answer. */
  waitUntil?: (work: Promise<unknown>) => void
  /**
   * Puts headers on the answer to come, present where that is cheaper than changing a Response: on
   * Node it saves half the time of a small request.
   */
  putHeaders?: (headers: Readonly<Record<string, string>>) => void
  /** Ends the connection with the answer; for transfers over web streams. */
  hangUp?: () => void
  /** Called by transfers before the end of a body that ends well. */
  lastByte?: () => void
  /** Told of an answer's body that is still on its way when `fetch` has settled. */
  sending?: (sent: Promise<void>) => void
}

export type Bindings = Connection & { entry: LogEntry }

export type Env = {
  Bindings: Bindings
  Variables: {
    /** Verified claims; null is anonymous, also on routes that look at no credentials. */
    claims: Claims | null
  }
}

export type Ctx = Context<Env>

/** A fresh log entry for a request. */
export function newEntry(requestId: string, address: string | null = null): LogEntry {
  return {
    requestId,
    address,
    route: null,
    userId: null,
    tokenId: null,
    asksForAnother: false,
    ticket: null,
    bytesIn: null,
    bytesOut: null,
    code: null,
    reason: null,
    refusal: null,
    told: null,
    status: null,
    sent: null,
  }
}
