/**
 * Effect applications on a listener. `NodeHttpServer.make` runs unmodified, over a stand-in for the server that only
 * collects the listeners it is given; the real server is ours, and so are the scopes in which its handlers run.
 *
 * Each `serve` has two: one for requests and one for upgrades, so that upgrades can be ended while requests go on.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeHttpServerRequest from "@effect/platform-node/NodeHttpServerRequest"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as HttpBody from "effect/http/HttpBody"
import type { HttpMiddleware } from "effect/http/HttpMiddleware"
import type * as HttpServer from "effect/http/HttpServer"
import { HttpServerRequest } from "effect/http/HttpServerRequest"
import type * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { IncomingMessage, Server, ServerResponse } from "node:http"
import { type Duplex, finished, PassThrough, Readable } from "node:stream"
import { of } from "./connection.ts"
import { CurrentHold, CurrentReleased, type Released } from "./gate.ts"
import { type Carrier, CurrentCarrier } from "./handler.ts"
import { handled } from "./hijack.ts"
import { fibersIn } from "./place.ts"
import { Upgrade } from "./upgrade.ts"

type App = Effect.Effect<HttpServerResponse.HttpServerResponse, unknown, HttpServerRequest | Scope.Scope>
type OnRequest = (request: IncomingMessage, response: ServerResponse) => void
type OnUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer) => void

interface Handlers {
  readonly request: OnRequest
  readonly checkContinue: OnRequest
  readonly upgrade: OnUpgrade
}

/** What `NodeHttpServer.make` uses of a server: it is bound already, and not its to close. */
export class StandIn {
  readonly listening = true
  private readonly server: Server
  private readonly fallback: string
  private collected: Partial<Handlers> = {}

  constructor(server: Server, fallback: string) {
    this.server = server
    this.fallback = fallback
  }

  on(event: string, listener: unknown): this {
    this.collected = { ...this.collected, [event]: listener }
    return this
  }
  off(): this {
    return this
  }
  listen(_options: unknown, listening: () => void): this {
    listening()
    return this
  }
  close(closed: () => void): this {
    closed()
    return this
  }
  address() {
    // An inherited descriptor of a Unix socket has no path that Node knows.
    return this.server.address() ?? this.fallback
  }

  /** The listeners that were added since the last call. */
  take(): Handlers {
    const handlers = this.collected as Handlers
    this.collected = {}
    return handlers
  }
}

export interface Options {
  /** Whether a response goes on for ever, and is to end with the drain; `undefined` where none is. */
  readonly isEndless: ((response: HttpServerResponse.HttpServerResponse) => boolean) | undefined
  /** Whether it is on a listener that drains with its own scope. */
  readonly released: boolean
  /** A handler has ended that somebody may wait for. */
  readonly onWorked: () => void
}

/** One application on the listener. */
export class Serve implements Carrier {
  /** Handlers that tell of their end: those of upgrades, and from when it ends on all others. */
  private told = 0
  /** Handlers of requests in their first step, which no scope knows yet: one of them may cause another request. */
  private readonly beginning: Array<Fiber.Fiber<unknown, unknown>> = []
  private depth = 0
  /** The handlers of requests that may upgrade, or have. */
  readonly upgrades = new Set<Upgrade>()
  /** Those of other requests that ran when nobody waited for them any longer. */
  private left: ReadonlyArray<Fiber.Fiber<unknown, unknown>> = []
  /** Bodies that end with the drain, and where they come from. */
  private readonly carriers = new Map<PassThrough, Readable>()
  private readonly ending = Deferred.makeUnsafe<void>()
  private readonly listeners = new Set<() => void>()
  private readonly empty = Deferred.makeUnsafe<void>()
  private readonly scopes = [Scope.makeUnsafe("parallel"), Scope.makeUnsafe("parallel")] as const
  private readonly options: Options
  private requestHandlers: Handlers | undefined
  private upgradeHandlers: Handlers | undefined

  constructor(options: Options) {
    this.options = options
  }

  readonly request: OnRequest = (request, response) => this.begin(this.requestHandlers!.request, request, response)
  readonly checkContinue: OnRequest = (request, response) =>
    this.begin(this.requestHandlers!.checkContinue, request, response)
  get upgrade(): OnUpgrade {
    return this.upgradeHandlers!.upgrade
  }

  /** Lets `make` build the handlers, in the fiber and with the services of whoever serves. */
  readonly start = Effect.fnUntraced(function* (
    this: Serve,
    server: HttpServer.HttpServer["Service"],
    standIn: StandIn,
    app: App,
    middleware: HttpMiddleware | undefined
  ) {
    const serve = server.serve as (
      app: App,
      middleware: HttpMiddleware | undefined
    ) => Effect.Effect<void, never, Scope.Scope>
    const { isEndless, released } = this.options
    const own = released ? marked(app) : app
    // Around middleware too, where there is some: it may answer without the app, and has finalizers of its own.
    const around = (inner: App, wrap: (app: App) => App) =>
      middleware === undefined
        ? serve(wrap(inner), undefined)
        : serve(inner, (app) => wrap(middleware(app) as App) as ReturnType<HttpMiddleware>)
    const ending = isEndless === undefined ? own : Effect.map(own, this.ended(isEndless))
    yield* Scope.provide(Effect.provideService(around(ending, this.counted), CurrentCarrier, this), this.scopes[0])
    this.requestHandlers = standIn.take()
    // `HttpServer.serve` runs its app uninterruptible; what is upgraded has no other way to hear of the end.
    yield* Scope.provide(around(Effect.interruptible(own), this.upgraded), this.scopes[1])
    this.upgradeHandlers = standIn.take()
  })

  get handlers(): number {
    return this.isEnding ? this.told : this.told + this.running().length
  }

  private begin(handle: OnRequest, request: IncomingMessage, response: ServerResponse): void {
    this.depth++
    try {
      handle(request, response)
    } finally {
      this.depth--
      if (this.depth === 0) this.beginning.length = 0
    }
  }

  /** Until it ends nobody waits for the handlers of requests, and so nobody is told of their end: that costs the most. */
  private readonly counted = (app: App): App =>
    Effect.withFiber((fiber) => {
      if (this.isEnding) this.tell(fiber)
      else if (this.depth > 0) this.beginning.push(fiber)
      return app
    })

  /** The handlers of requests that have not ended. */
  private running(): ReadonlyArray<Fiber.Fiber<unknown, unknown>> {
    const fibers = new Set([...fibersIn(this.scopes[0]), ...this.beginning])
    return Array.from(fibers).filter((fiber) => fiber.pollUnsafe() === undefined)
  }

  private tell(fiber: Fiber.Fiber<unknown, unknown>): void {
    this.told++
    fiber.addObserver(this.onEnd)
  }

  private readonly onEnd = (): void => {
    this.told--
    if (this.told === 0 && this.isEnding) Deferred.doneUnsafe(this.empty, Exit.void)
    this.options.onWorked()
  }

  /**
   * Makes event streams end when the drain begins. The app is where they can be told from other streams: middleware and
   * pre-response handlers come when the body is being written already.
   */
  private readonly ended =
    (isEndless: NonNullable<Options["isEndless"]>) => (response: HttpServerResponse.HttpServerResponse) => {
      const { body } = response
      if (body._tag === "Stream" && isEndless(response)) {
        const stream = Stream.interruptWhen(body.stream, Deferred.await(this.ending))
        return withBody(response, HttpBody.stream(stream, body.contentType, body.contentLength))
      }
      if (body._tag === "Raw" && isReadable(body.body) && isEndless(response)) {
        const { contentLength, contentType } = body
        return withBody(response, HttpBody.raw(this.carry(body.body), { contentLength, contentType }))
      }
      return response
    }

  /**
   * Carries what `source` brings, to a proper end when there is one to come. To end the response over the head of its
   * source would look the same to the client, but to Effect as a failure, with a report that takes it long to make.
   */
  private carry(source: Readable): Readable {
    const carrier = new PassThrough()
    finished(source, { writable: false }, (error) => error && carrier.destroy(error))
    carrier.on("close", () => {
      this.carriers.delete(carrier)
      source.destroy()
    })
    this.carriers.set(carrier, source)
    if (this.isEnding) carrier.end()
    else source.pipe(carrier)
    return carrier
  }

  /** Adds the fibers of requests that have not ended, each to its response. */
  collect(requests: Map<ServerResponse, Fiber.Fiber<unknown, unknown>>): void {
    for (const fibers of [this.left, fibersIn(this.scopes[0])]) {
      for (const fiber of fibers) {
        // Not through its map of services, which each of thousands of contexts would make for that.
        const request = Context.getOrUndefined(fiber.context, HttpServerRequest)
        if (request === undefined || fiber.pollUnsafe() !== undefined) continue
        // A request that the application has made itself has none.
        const response = NodeHttpServerRequest.toServerResponse(request) as ServerResponse | undefined
        if (response !== undefined) requests.set(response, fiber)
      }
    }
  }

  private readonly upgraded = (app: App): App =>
    Effect.withFiber((fiber) => {
      const request = Context.getUnsafe(fiber.context, HttpServerRequest)
      const connection = of(NodeHttpServerRequest.toIncomingMessage(request).socket)
      const upgrade = new Upgrade(fiber, connection, request)
      this.told++
      this.upgrades.add(upgrade)
      connection?.adopt(upgrade)
      fiber.addObserver(() => {
        this.upgrades.delete(upgrade)
        if (connection !== undefined) {
          connection.answered = !upgrade.upgrading
          handled(connection, upgrade, upgrade.isEnding)
        }
        upgrade.gone()
        this.onEnd()
      })
      if (this.isEnding) upgrade.end()
      return Effect.provideService(Effect.provideService(app, CurrentHold, upgrade), CurrentCarrier, upgrade)
    })

  /** Ends what has no end of its own: event streams and upgraded connections. */
  end(): void {
    if (this.isEnding) return
    for (const fiber of this.running()) this.tell(fiber)
    Deferred.doneUnsafe(this.ending, Exit.void)
    for (const listener of this.listeners) listener()
    for (const upgrade of Array.from(this.upgrades)) upgrade.end()
    for (const [carrier, source] of this.carriers) {
      source.unpipe(carrier)
      carrier.end()
    }
    if (this.told === 0) Deferred.doneUnsafe(this.empty, Exit.void)
  }

  // A request carries its calls itself: it is in flight until all of them have been answered.
  count(): void {}
  engage(): void {}
  settle(): void {}
  hear(): void {}

  get isEnding(): boolean {
    return Deferred.isDoneUnsafe(this.ending)
  }

  onEnding(listener: () => void): () => void {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }

  // It tells of the drain whatever becomes of the request.
  readonly isGone = false
  onGone(): () => void {
    return () => {}
  }

  /** Completes when no handler runs any more, `end` having been called. */
  get awaitEmpty(): Effect.Effect<void> {
    return Deferred.await(this.empty)
  }

  /** Interrupts what still runs. Completes when all of it has ended, which may be never. */
  close(exit: Exit.Exit<unknown, unknown> = Exit.failCause(Cause.interrupt())): Effect.Effect<void> {
    return Effect.suspend(() => {
      // A scope that closes does not know them any more.
      this.left = [...this.left, ...fibersIn(this.scopes[0])]
      return Effect.forEach(this.scopes, (scope) => Scope.close(scope, exit), { concurrency: 2, discard: true })
    })
  }
}

/** Marks requests that nobody but their listener waits for, each with a record that ends with it. */
const marked = (app: App): App =>
  Effect.suspend(() => {
    const request: Released = { live: true }
    return Effect.provideService(app, CurrentReleased, request).pipe(
      Effect.ensuring(Effect.sync(() => void (request.live = false)))
    )
  })

/** The same response but for its body: `setBody` would write the headers anew. */
const withBody = (response: HttpServerResponse.HttpServerResponse, body: HttpBody.HttpBody) =>
  Object.assign(Object.create(Object.getPrototypeOf(response)), response, {
    body
  }) as HttpServerResponse.HttpServerResponse

/** Whether a raw body is a stream of Node, whole enough to be carried. */
const isReadable = (body: unknown): body is Readable => body instanceof Readable

/** Runs `NodeHttpServer.make` over a stand-in for `server`, in `scope`. */
export const makeEffectServer = (
  server: Server,
  fallback: string,
  options: NodeHttpServer.Options,
  scope: Scope.Scope
): Effect.Effect<
  readonly [HttpServer.HttpServer["Service"], StandIn],
  Effect.Error<ReturnType<typeof NodeHttpServer.make>>
> => {
  const standIn = new StandIn(server, fallback)
  return NodeHttpServer.make(() => standIn as unknown as Server, options).pipe(
    Scope.provide(scope),
    Effect.map((effectServer) => {
      // What `make` itself listens for is its own way to close sessions.
      standIn.take()
      return [effectServer, standIn] as const
    })
  )
}
