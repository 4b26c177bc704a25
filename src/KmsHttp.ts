/**
 * HTTP/1.1, HTTPS, HTTP/2 and their upgrades, as listeners that drain: a drop-in for `NodeHttpServer`.
 *
 * An application moves over by writing `KmsHttp.layer` where it said `NodeHttpServer.layer`. Its routers, middleware and
 * handlers stay as they are. What changes is the end: when the shutdown begins, or the listener's scope closes, the
 * listener stops accepting, lets every request finish, tells each kind of peer that it is time to leave, and only then
 * lets go of the application.
 *
 * **What each peer sees**
 *
 * - a request in flight: its whole response, with `Connection: close` where the headers were not out yet
 * - a request that comes in late on a living connection: its response, with `Connection: close`
 * - an idle connection: the end, once it has been quiet for `quietPeriod`
 * - an event stream: the clean end of its body
 * - a WebSocket: close code 1001, and `closeTimeout` to answer
 * - an HTTP/2 session: GOAWAY, with the streams in flight answered
 * - a new connection: refused
 *
 * @since 0.1.0
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import type { NodeServices } from "@effect/platform-node/NodeServices"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import type { LazyArg } from "effect/Function"
import type * as Etag from "effect/http/Etag"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import type { HttpClient } from "effect/http/HttpClient"
import type * as HttpPlatform from "effect/http/HttpPlatform"
import * as HttpServer from "effect/http/HttpServer"
import type { ServeError } from "effect/http/HttpServerError"
import type { HttpServerResponse } from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import { createServer, type Server, type ServerResponse } from "node:http"
import type { Http2SecureServer, Http2Server } from "node:http2"
import { guarded, isEventStream, isEventStreamType } from "./internal/endless.ts"
import { Kms } from "./internal/kms.ts"
import { holdAll, type ListenerOptions, open } from "./internal/open.ts"
import { bounded } from "./internal/parts.ts"
import { makeEffectServer, Serve } from "./internal/serve.ts"
import { Serves } from "./internal/serves.ts"

export type {
  /**
   * The options that every KmsHttp listener takes.
   *
   * @category options
   * @since 0.1.0
   */
  ListenerOptions
} from "./internal/open.ts"

/**
 * The options of a listener for an Effect application: those of `NodeHttpServer`, and those of the drain.
 *
 * `gracefulShutdownTimeout` is read as `drainTimeout` where that is not given. `disablePreemptiveShutdown` is ignored,
 * with a warning: a listener that goes on accepting until its scope closes is `drainOn: "release"`.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends ListenerOptions, Pick<NodeHttpServer.Options, "websocket"> {
  /**
   * What becomes of an event stream when the drain begins: its body ends (`"end"`, the default), or the drain waits for
   * it (`"wait"`). A predicate chooses the responses that end, whatever their type.
   */
  readonly eventStreams?: "end" | "wait" | ((response: HttpServerResponse) => boolean) | undefined
}

/**
 * The options of a listener whose requests someone else answers.
 *
 * @category options
 * @since 0.1.0
 */
export interface NodeOptions extends ListenerOptions {
  /**
   * What becomes of an event stream when the drain begins: its body ends (`"end"`, the default), or the drain waits for
   * it (`"wait"`). A predicate chooses the responses that end, whatever their type.
   */
  readonly eventStreams?: "end" | "wait" | ((response: ServerResponse) => boolean) | undefined
}

type AnyServer = Server | Http2Server | Http2SecureServer

/**
 * Creates an `HttpServer` on a `node:http`, `node:https` or `node:http2` server, listening until the shutdown begins or
 * the scope closes, whichever comes first.
 *
 * **Details**
 *
 * Several applications may be served on one listener. Requests go to the one that was served last and is still open;
 * closing one of several drains that one alone. When the last of them closes, the listener drains.
 *
 * A listener that is made after the drain began does not bind: it waits, and is interrupted when the program unwinds.
 *
 * **Gotchas**
 *
 * The server that `evaluate` returns must not listen yet.
 *
 * Fails with `ServeError` if the address cannot be listened on or an option is invalid; its message names the
 * address or the option and the value, and nothing is left open.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  evaluate: LazyArg<AnyServer>,
  options: Options
): Effect.fn.Return<HttpServer.HttpServer["Service"], ServeError, Scope.Scope> {
  const kms = yield* Kms
  const services = yield* Effect.context<never>()
  const serves = new Serves()
  const own = yield* Scope.make()
  const { drain, listener, server } = yield* open(evaluate as LazyArg<Server>, options, {
    onDrain: () => serves.end(),
    onForce: () => void Effect.runForkWith(services)(serves.parts.close),
    handlers: () => serves.parts.handlers,
    abandoned: () => serves.parts.unended,
    handling: serves.handling,
    isEndless: undefined,
    attach: (server, batch) => serves.attach(server, batch),
    // Runs after every application has closed, and the drain is over.
    release: (exit) => bounded(Scope.close(own, exit), kms.grace)
  })

  const [effectServer, standIn] = yield* makeEffectServer(server, listener.address, options, own)
  const streams = options.eventStreams ?? "end"
  const serveOptions = {
    isEndless: streams === "wait" ? undefined : streams === "end" ? isEventStreamResponse : guarded(streams),
    onWorked: listener.worked,
    released: options.drainOn === "release"
  }

  return HttpServer.make({
    address: effectServer.address,
    serve: Effect.fnUntraced(function* (app, middleware) {
      const serve = new Serve(serveOptions)
      yield* serve.start(effectServer, standIn, app, middleware)
      yield* Effect.acquireRelease(
        Effect.sync(() => serves.add(serve)),
        (_, exit) => serves.parts.finish(serve, drain, exit, kms.grace)
      )
      if (serves.parts.isOver || drain.isBegun())
        yield* Effect.logWarning(`${listener.name} has been drained: it serves no further application`)
    })
  })
})

const isEventStreamResponse = (response: HttpServerResponse): boolean =>
  isEventStreamType(response.headers["content-type"] ?? "")

/**
 * Listens with a `node:http`, `node:https` or `node:http2` server whose requests someone else answers: Express, Fastify,
 * Koa, Next.js, or a plain request listener. The drain is the same as that of `layer`.
 *
 * **Details**
 *
 * `evaluate` is given a signal that aborts when the drain begins. What it upgraded or tunnelled is its own to end: such
 * a connection has `closeTimeout` from then on before it is destroyed.
 *
 * Fails with `ServeError` as `make` does.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerNode = (
  evaluate: (drain: AbortSignal) => AnyServer,
  options: NodeOptions
): Layer.Layer<never, ServeError> =>
  Layer.effectDiscard(
    Effect.suspend(() => {
      const drain = new AbortController()
      const streams = options.eventStreams ?? "end"
      return open(() => evaluate(drain.signal) as Server, options, {
        onDrain: () => drain.abort(),
        onForce: () => {},
        handlers: () => 0,
        abandoned: () => 0,
        handling: () => ({ requests: new Map(), upgrades: [] }),
        isEndless: streams === "wait" ? undefined : streams === "end" ? isEventStream : guarded(streams),
        attach: holdAll,
        release: () => Effect.void
      })
    })
  )

/**
 * As `layerNode`, with options read from `Config`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerNodeConfig = (
  evaluate: (drain: AbortSignal) => AnyServer,
  options: Config.Wrap<NodeOptions>
): Layer.Layer<never, ServeError | Config.ConfigError> =>
  Layer.unwrap(Effect.map(Config.unwrap(options), (options) => layerNode(evaluate, options)))

/**
 * Provides an `HttpServer` alone; see `make`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerServer = (
  evaluate: LazyArg<AnyServer>,
  options: Options
): Layer.Layer<HttpServer.HttpServer, ServeError> => Layer.effect(HttpServer.HttpServer)(make(evaluate, options))

type Services = HttpServer.HttpServer | NodeServices | HttpPlatform.HttpPlatform | Etag.Generator

/**
 * Provides an `HttpServer`, and the Node services that serving takes. The drop-in for `NodeHttpServer.layer`.
 *
 * **Example** (Serving a route until the process is told to stop)
 *
 * ```ts
 * import { NodeRuntime } from "@effect/platform-node"
 * import { Layer } from "effect"
 * import { HttpRouter, HttpServerResponse } from "effect/http"
 * import { Kms, KmsHttp } from "effect-kms"
 * import { createServer } from "node:http"
 *
 * const Api = HttpRouter.serve(HttpRouter.add("GET", "/", HttpServerResponse.text("Home"))).pipe(
 *   Layer.provide(KmsHttp.layer(createServer, { port: 3007 }))
 * )
 *
 * Api.pipe(
 *   Kms.launch(),
 *   NodeRuntime.runMain({ teardown: Kms.teardown })
 * )
 * ```
 *
 * @see {@link make} for what it does and how it fails
 * @category layers
 * @since 0.1.0
 */
export const layer = (evaluate: LazyArg<AnyServer>, options: Options): Layer.Layer<Services, ServeError> =>
  Layer.mergeAll(layerServer(evaluate, options), NodeHttpServer.layerHttpServices)

/**
 * As `layer`, with options read from `Config`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  evaluate: LazyArg<AnyServer>,
  options: Config.Wrap<Options>
): Layer.Layer<Services, ServeError | Config.ConfigError> =>
  Layer.mergeAll(
    Layer.effect(HttpServer.HttpServer)(Effect.flatMap(Config.unwrap(options), (options) => make(evaluate, options))),
    NodeHttpServer.layerHttpServices
  )

/**
 * Provides a server on a free port and an `HttpClient` that calls it, for tests. Nothing in it waits for quiet
 * connections: `quietPeriod` and `closeTimeout` are zero.
 *
 * @category testing
 * @since 0.1.0
 */
export const layerTest: Layer.Layer<Services | HttpClient, ServeError> = HttpServer.layerTestClient.pipe(
  Layer.provide(
    Layer.fresh(FetchHttpClient.layer).pipe(
      Layer.provide(Layer.succeed(FetchHttpClient.RequestInit)({ keepalive: false }))
    )
  ),
  Layer.provideMerge(layer(createServer, { port: 0, quietPeriod: 0, closeTimeout: 0 }))
)
