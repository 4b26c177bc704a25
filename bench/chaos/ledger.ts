/**
 * What one kind of client has sent, and what became of it. Every try is counted: a client that tries again counts that, too.
 */

/** The kinds of client. `far` ones sit behind a proxy that takes its time. */
export const kinds = [
  "keep-alive",
  "one-shot",
  "HTTP/2",
  "WebSocket",
  "upload",
  "events",
  "far, in use",
  "far"
] as const
export type Kind = (typeof kinds)[number]

export interface Counts {
  connections: number
  /** Requests, messages, uploads, event streams that were asked for. */
  sent: number
  answered: number
  /** Told by the server that they had not been taken, and sent again. */
  repeated: number
  failed: number
  /** Events that came, and those that were missing between two that came. */
  events: number
  lost: number
  /** Events and answers that came twice. */
  twice: number
  /** Connections whose server said that it leaves: `Connection: close`, GOAWAY, 1001, the end of an event stream. */
  sentAway: number
  /** Connections that ended while nothing was in flight on them. */
  endedIdle: number
}

export interface Failure {
  readonly kind: Kind
  readonly how: string
  /** When the connection was begun, the request written and the failure seen: milliseconds since 1970. */
  readonly opened: number
  readonly written: number
  readonly at: number
  /** How long the connection had been idle when the request was written; nothing for the first on it. */
  readonly idle: number | undefined
  /** The client's port, by which a server would know the connection. */
  readonly port: number | undefined
}

export type Counted = { readonly [K in Kind]?: Counts }

/** Milliseconds since 1970, with a fraction: the clock that all processes of one machine share. */
export const now = (): number => performance.timeOrigin + performance.now()

export class Ledger {
  readonly kind: Kind
  readonly counts: Counts = {
    connections: 0,
    sent: 0,
    answered: 0,
    repeated: 0,
    failed: 0,
    events: 0,
    lost: 0,
    twice: 0,
    sentAway: 0,
    endedIdle: 0
  }

  private readonly tell: (failure: Failure) => void

  constructor(kind: Kind, tell: (failure: Failure) => void) {
    this.kind = kind
    this.tell = tell
  }

  fail(failure: Omit<Failure, "at" | "kind">): void {
    this.counts.failed++
    this.tell({ ...failure, kind: this.kind, at: now() })
  }
}
