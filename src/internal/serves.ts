/**
 * The applications on one listener. Requests go to the one that was served last and is still open. What comes in before
 * anyone serves waits for the first that does.
 */
import * as Effect from "effect/Effect"
import type { IncomingMessage, Server, ServerResponse } from "node:http"
import type { Duplex } from "node:stream"
import type { Batch } from "./batch.ts"
import type { Serve } from "./serve.ts"

/** Passes what has waited on to an application, or turns it away where there will be none. */
type Waiting = (serve: Serve | undefined) => void

export class Serves {
  /** Those that are open, the newest last. */
  private readonly open: Array<Serve> = []
  /** Those that finish what they have begun. */
  private readonly closing = new Set<Serve>()
  private readonly early: Array<Waiting> = []
  private drained = false
  /** Those whose handlers nobody waited for any longer. */
  private readonly left = new Set<Serve>()

  /** Answers for `server`. */
  attach(server: Server, batch: Batch): void {
    server.on("request", batch.hold(this.onRequest))
    server.on("checkContinue", batch.hold(this.onCheckContinue))
    server.on("upgrade", this.onUpgrade)
  }

  /** Whether no application is open. */
  get isEmpty(): boolean {
    return this.open.length === 0
  }

  add(serve: Serve): void {
    this.open.push(serve)
    this.settleEarly(serve)
  }

  /** It takes no new requests, unless nobody else does. */
  retire(serve: Serve): void {
    this.open.splice(this.open.indexOf(serve), 1)
    this.closing.add(serve)
  }

  /** It has closed. */
  remove(serve: Serve): void {
    this.closing.delete(serve)
    if (serve.handlers > 0) this.left.add(serve)
  }

  /** The drain begins. */
  end(): void {
    this.drained = true
    for (const serve of this.all()) serve.end()
    this.settleEarly(undefined)
  }

  /** Interrupts whatever runs. */
  get close(): Effect.Effect<void> {
    return Effect.forEach(this.all(), (serve) => serve.close(), { concurrency: "unbounded", discard: true })
  }

  /** Handlers that somebody waits for. */
  readonly handlers = (): number => {
    let sum = 0
    for (const serve of this.open) sum += serve.handlers
    for (const serve of this.closing) sum += serve.handlers
    return sum
  }

  /** Handlers that have not ended, those included that nobody waits for any longer. */
  readonly abandoned = (): number => {
    for (const serve of this.left) if (serve.handlers === 0) this.left.delete(serve)
    return Array.from(this.left).reduce((sum, serve) => sum + serve.handlers, this.handlers())
  }

  private all(): Array<Serve> {
    return [...this.open, ...this.closing]
  }

  private get current(): Serve | undefined {
    if (this.open.length > 0) return this.open[this.open.length - 1]
    let last: Serve | undefined
    for (const serve of this.closing) last = serve
    return last
  }

  private settleEarly(serve: Serve | undefined): void {
    for (const waiting of this.early.splice(0)) waiting(serve)
  }

  private wait(waiting: Waiting): void {
    if (this.drained) waiting(undefined)
    else this.early.push(waiting)
  }

  private readonly onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    const serve = this.current
    if (serve !== undefined) serve.request(request, response)
    else this.wait((serve) => early(request, response, serve?.request))
  }

  private readonly onCheckContinue = (request: IncomingMessage, response: ServerResponse): void => {
    const serve = this.current
    if (serve !== undefined) serve.checkContinue(request, response)
    else this.wait((serve) => early(request, response, serve?.checkContinue))
  }

  private readonly onUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer): void => {
    const serve = this.current
    if (serve !== undefined) return serve.upgrade(request, socket, head)
    // Node has let go of it: while nobody serves, nobody else hears that its client has gone.
    socket.on("error", () => {})
    this.wait((serve) => (serve === undefined ? socket.destroy() : serve.upgrade(request, socket, head)))
  }
}

/** Answers a request that has waited for an application. */
const early = (request: IncomingMessage, response: ServerResponse, answer: Serve["request"] | undefined): void => {
  // Its client did not wait.
  if (response.destroyed) return
  if (answer !== undefined) return answer(request, response)
  response.writeHead(503, { "content-length": "0" })
  response.end()
}
