/**
 * Requests that come together. Of several in one packet the first may be answered before the second has been parsed; while
 * each answer may be the last of its connection, they wait for a turn of the event loop, so that the last of them says so
 * and no other.
 */
import * as Effect from "effect/Effect"
import type { IncomingMessage, ServerResponse } from "node:http"
import type { Process } from "./process.ts"

/** Over HTTP/1 a tunnel has a socket in place of the response, and what came with its head as a third argument. */
export type OnRequest = (request: IncomingMessage, response: ServerResponse, ...rest: ReadonlyArray<unknown>) => void

export class Batch {
  private readonly held: Array<() => void> = []
  private readonly host: Process
  private readonly isLeaving: () => boolean
  private readonly isRefused: (response: ServerResponse) => boolean

  /**
   * `isLeaving` tells whether responses ask their clients to leave, `isRefused` whether a request came too late to be
   * answered at all.
   */
  constructor(host: Process, isLeaving: () => boolean, isRefused: (response: ServerResponse) => boolean) {
    this.host = host
    this.isLeaving = isLeaving
    this.isRefused = isRefused
  }

  /** The same listener, but for requests that have to wait. */
  hold(listener: OnRequest): OnRequest {
    return (request, response, ...rest) => {
      if (!this.isLeaving()) return listener(request, response, ...rest)
      if (this.isRefused(response)) return
      this.held.push(() => listener(request, response, ...rest))
      if (this.held.length === 1) Effect.runFork(this.host.turn).addObserver(this.release)
    }
  }

  // Each in a task of its own: one that throws keeps none of the others.
  private readonly release = (): void => {
    for (const answer of this.held.splice(0)) queueMicrotask(answer)
  }
}
