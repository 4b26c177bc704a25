/**
 * Requests that come together. Of several in one packet the first may be answered before the second has been parsed; while
 * each answer may be the last of its connection, they wait for a turn of the event loop, so that the last of them says so
 * and no other.
 */
import * as Effect from "effect/Effect"
import type { IncomingMessage, ServerResponse } from "node:http"
import type { Http2ServerResponse } from "node:http2"
import type { Process } from "./process.ts"

/** Over HTTP/1 a tunnel has a socket in place of the response, and what came with its head as a third argument. */
export type OnRequest = (request: IncomingMessage, response: ServerResponse, ...rest: ReadonlyArray<unknown>) => void

/** What knows of every request before anyone answers it. */
export interface Door {
  /** May be told of one more than once. */
  readonly onRequest: (request: IncomingMessage, response: ServerResponse) => void
  /** Whether responses ask their clients to leave. */
  readonly isLeaving: () => boolean
  /** Whether a request came too late to be answered at all. */
  readonly isRefused: (response: ServerResponse) => boolean
}

/** The events of a server that bring a request and its response, whatever the protocol. */
export const requests: ReadonlyArray<string> = ["request", "checkContinue", "checkExpectation"]

export class Batch {
  private readonly held: Array<() => unknown> = []
  private readonly host: Process
  private readonly door: Door
  private readonly holding = new Set<unknown>()

  constructor(host: Process, door: Door) {
    this.host = host
    this.door = door
  }

  /** The same listener for `event`, told of a request once the door has seen it, and later of one that has to wait. */
  hold(event: string, listener: OnRequest): OnRequest {
    const { door } = this
    const sees = requests.includes(event)
    const holds: OnRequest = (request, response, ...rest) => {
      if (sees) door.onRequest(request, response)
      if (!door.isLeaving()) return listener(request, response, ...rest)
      if (door.isRefused(response)) return
      // Whoever answers would listen for the end of one that has gone meanwhile, and never hear of it.
      this.held.push(() => isGone(response) || listener(request, response, ...rest))
      if (this.held.length === 1) Effect.runFork(this.host.turn).addObserver(this.release)
    }
    this.holding.add(holds)
    return holds
  }

  /** Whether `hold` has made it. */
  isHeld(listener: unknown): boolean {
    return this.holding.has(listener)
  }

  // Each in a task of its own: one that throws keeps none of the others.
  private readonly release = (): void => {
    for (const answer of this.held.splice(0)) queueMicrotask(answer)
  }
}

/** Whether the client of a response has gone: over HTTP/2 its stream, in a tunnel the socket that stands for a response. */
export const isGone = (response: ServerResponse): boolean => {
  const { stream } = response as unknown as Partial<Http2ServerResponse>
  if (stream !== undefined) return stream.destroyed
  // Of a response that stands behind another one, Node 22 and 24 tell nothing.
  return response.destroyed || (response as Partial<ServerResponse>).req?.socket?.destroyed === true
}
