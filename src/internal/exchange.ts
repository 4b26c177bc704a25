/**
 * Requests with their responses, and how they stand on their connection: beside one another over HTTP/2, one behind the
 * other over HTTP/1.
 */
import type * as Fiber from "effect/Fiber"
import type { IncomingMessage, ServerResponse } from "node:http"
import type { Connection } from "./connection.ts"
import type { Held } from "./held.ts"
import { Hijack } from "./hijack.ts"
import { now } from "./sweep.ts"

/** Who is to hear of the end of a response. */
export interface Listener {
  onResponseClosed(exchange: Exchange): void
}

/** One request and its response. */
export interface Exchange {
  readonly listener: Listener
  readonly connection: Connection
  readonly response: ServerResponse
  readonly startedAt: number
  /** The one before it on its connection, where a client pipelines. */
  earlier: Exchange | undefined
  /** Its connection carries it no longer. Its handler may still run. */
  hasEnded: boolean
  /** Its head was written in the lame duck or the drain, and says that the connection closes. */
  isLast: boolean
}

/** The HTTP/2 streams of a connection, or the newest of its HTTP/1 responses; of one that was upgraded, neither. */
type Carried = Set<Exchange> | Exchange | Hijack | undefined

const key: unique symbol = Symbol("effect-kms/Exchange")

interface Keyed {
  [key]?: Exchange
}

/** The exchange that a response is part of. */
export const of = (response: ServerResponse & Keyed): Exchange | undefined => response[key]

/** From now on what the connection carries is not one behind the other. */
export const multiplex = (connection: Connection): void => {
  connection.work = new Set<Exchange>()
}

/** A request has come. Whoever calls this engages its connection, too, which is where they are counted. */
export const begin = (listener: Listener, connection: Connection, response: ServerResponse & Keyed): Exchange => {
  const exchange: Exchange = {
    listener,
    connection,
    response,
    startedAt: now(),
    earlier: undefined,
    hasEnded: false,
    isLast: false
  }
  response[key] = exchange
  response.on("close", closed)
  const work = connection.work as Carried
  if (work instanceof Set) work.add(exchange)
  else {
    exchange.earlier = work instanceof Hijack ? undefined : work
    connection.work = exchange
  }
  return exchange
}

function closed(this: ServerResponse & Keyed): void {
  const exchange = this[key]
  exchange?.listener.onResponseClosed(exchange)
}

/** It has ended: its connection carries it no longer, and it keeps nothing in memory that came before it. */
export const end = (exchange: Exchange): void => {
  const { connection } = exchange
  exchange.earlier = undefined
  exchange.hasEnded = true
  if (connection.work instanceof Set) connection.work.delete(exchange)
  else if (connection.work === exchange) connection.work = undefined
}

/** Calls `visit` with each on a connection that has not ended. There may be thousands of connections with one of them each. */
export const each = (connection: Connection, visit: (exchange: Exchange) => void): void => {
  const work = connection.work as Carried
  if (work instanceof Set) return work.forEach(visit)
  if (work instanceof Hijack) return
  let exchange = work
  for (let left = connection.inFlight; exchange !== undefined && left > 0; left--) {
    visit(exchange)
    exchange = exchange.earlier
  }
}

/** The newest on a connection where they stand one behind the other. */
export const newest = (connection: Connection): Exchange | undefined => {
  const work = connection.work as Carried
  return work instanceof Set || work instanceof Hijack ? undefined : work
}

/** One that is in flight; `fiber` is that of its handler. Of thousands only a few are told of, so that nothing is made here. */
export class InFlight implements Held {
  private readonly exchange: Exchange
  readonly fiber: Fiber.Fiber<unknown, unknown> | undefined

  constructor(exchange: Exchange, fiber: Fiber.Fiber<unknown, unknown> | undefined) {
    this.exchange = exchange
    this.fiber = fiber
  }

  get what(): string {
    return titleOf(this.exchange.response.req)
  }
  get connection(): Connection {
    return this.exchange.connection
  }
  get since(): number {
    return this.exchange.startedAt
  }
}

/** Method and path: a query may hold what does not belong in a log. */
export const titleOf = ({ method, url }: Pick<IncomingMessage, "method" | "url">): string =>
  `${method} ${(url ?? "").replace(/[?#].*$/s, "")}`

/** Whether a request has a body (RFC 9112 section 6.3). */
export const hasBody = ({ headers }: IncomingMessage): boolean =>
  headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0
