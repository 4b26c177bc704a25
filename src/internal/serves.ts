/**
 * The applications on one listener. Requests go to the one that was served last and is still open. What comes in before
 * anyone serves waits for the first that does.
 */
import type * as Fiber from "effect/Fiber"
import type { IncomingMessage, Server, ServerResponse } from "node:http"
import type { Duplex } from "node:stream"
import { type Batch, isGone } from "./batch.ts"
import type { Handling } from "./http.ts"
import { Parts } from "./parts.ts"
import type { Serve } from "./serve.ts"

/** Passes what has waited on to an application, or turns it away where there will be none. */
type Waiting = (serve: Serve | undefined) => void

export class Serves {
  readonly parts = new Parts<Serve>()
  private readonly early: Array<Waiting> = []
  private drained = false

  /** Answers for `server`. */
  attach(server: Server, batch: Batch): void {
    server.on("request", batch.hold("request", this.onRequest))
    server.on("checkContinue", batch.hold("checkContinue", this.onCheckContinue))
    server.on("upgrade", this.onUpgrade)
  }

  add(serve: Serve): void {
    this.parts.add(serve)
    // It came too late. What still comes in on living connections is its to answer, under the drain as it is.
    if (this.drained) serve.end()
    for (const waiting of this.early.splice(0)) waiting(serve)
  }

  /** The fibers of handlers that have not ended. */
  readonly handling = (): Handling => {
    const parts = this.parts.unfinished
    const requests = new Map<ServerResponse, Fiber.Fiber<unknown, unknown>>()
    for (const part of parts) part.collect(requests)
    return { requests, upgrades: parts.flatMap(({ upgrades }) => Array.from(upgrades)) }
  }

  /** The drain begins. */
  end(): void {
    this.drained = true
    for (const serve of this.parts.all) serve.end()
    for (const waiting of this.early.splice(0)) waiting(undefined)
  }

  private wait(waiting: Waiting): void {
    if (this.drained) waiting(undefined)
    else this.early.push(waiting)
  }

  private readonly onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    const serve = this.parts.current
    if (serve !== undefined) serve.request(request, response)
    else this.wait((serve) => early(request, response, serve?.request))
  }

  private readonly onCheckContinue = (request: IncomingMessage, response: ServerResponse): void => {
    const serve = this.parts.current
    if (serve !== undefined) serve.checkContinue(request, response)
    else this.wait((serve) => early(request, response, serve?.checkContinue))
  }

  private readonly onUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer): void => {
    const serve = this.parts.current
    if (serve !== undefined) return serve.upgrade(request, socket, head)
    // Node has let go of it: while nobody serves, nobody else hears that its client has gone.
    socket.on("error", () => {})
    this.wait((serve) => (serve === undefined ? socket.destroy() : serve.upgrade(request, socket, head)))
  }
}

/** Answers a request that has waited for an application. */
const early = (request: IncomingMessage, response: ServerResponse, answer: Serve["request"] | undefined): void => {
  // Its client did not wait.
  if (isGone(response)) return
  if (answer !== undefined) return answer(request, response)
  response.writeHead(503, { "content-length": "0" })
  response.end()
}
