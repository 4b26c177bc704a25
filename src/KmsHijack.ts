/**
 * Sockets that left their server, or never had one here: WebSockets of a library, `upgrade` and `connect` events of a plain
 * `node:http` server, tunnels, whatever another library hands over. A server forgets such a socket, so that nobody closes
 * it, and nobody waits for it.
 *
 * **What each peer sees** when the drain begins
 *
 * - a WebSocket: what its adopter says as a goodbye, and close code 1001
 * - any other socket: what its adopter says as a goodbye, and the end of the stream
 * - either, where the peer has not closed its half `closeTimeout` later: the connection is destroyed
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Predicate from "effect/Predicate"
import type { Duplex } from "node:stream"
import { HijackListener, type WebSocketLike } from "./internal/adopt.ts"
import * as Drain from "./internal/drain.ts"
import { decodeTiming } from "./internal/listener.ts"
import type { OptionError } from "./internal/options.ts"
import { Process } from "./internal/process.ts"

export type {
  /**
   * What is used of a WebSocket: that of `ws`, or one that is like it.
   *
   * @category models
   * @since 0.1.0
   */
  WebSocketLike
} from "./internal/adopt.ts"

/**
 * What may be adopted.
 *
 * @category models
 * @since 0.1.0
 */
export type Adoptable = Duplex | WebSocketLike

/**
 * How the sockets that are adopted are drained.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends Drain.DrainOptions {
  /**
   * How long a peer may take to close its half, once the goodbye has been said. Default 1 second.
   */
  readonly closeTimeout?: Duration.Input | undefined
}

/**
 * How one socket is ended.
 *
 * @category options
 * @since 0.1.0
 */
export interface AdoptOptions<Goodbye> {
  /** What the socket is called where the shutdown tells of it. */
  readonly name?: string | undefined
  /**
   * What is done when the drain begins: to say something to the peer, or to finish what must not be cut short. Then the
   * socket is closed, unless that has been done. A goodbye that fails is logged; one that does not end is cut at the
   * deadline.
   */
  readonly goodbye?: Goodbye | undefined
}

/**
 * Adopts sockets: each counts as in flight until it closes, and is asked to end when the drain begins.
 *
 * **Details**
 *
 * `adopt` is for effects; its goodbye runs with the services of whoever adopts. `adoptUnsafe` is for callbacks; its goodbye
 * is a function, and may return a promise.
 *
 * A socket that is adopted when the drain has begun already has its goodbye said at once. One that came from an `upgrade` or
 * `connect` event of a `KmsHttp.layerNode` listener, or that a handler of `KmsTcp` passes on, stays in the count of that
 * listener. One that is adopted twice has both goodbyes, and closes after the last of them.
 *
 * @category services
 * @since 0.1.0
 */
export class KmsHijack extends Context.Service<
  KmsHijack,
  {
    readonly adopt: <R = never>(
      socket: Adoptable,
      options?: AdoptOptions<Effect.Effect<unknown, unknown, R>>
    ) => Effect.Effect<void, never, R>
    readonly adoptUnsafe: (socket: Adoptable, options?: AdoptOptions<() => unknown>) => void
  }
>()("effect-kms/KmsHijack") {}

/**
 * Makes a `KmsHijack`, whose sockets drain with the shutdown, or when the scope closes, whichever comes first.
 *
 * Fails with `OptionError` if an option is invalid.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (options: Options = {}) {
  const drainOptions = yield* Effect.fromResult(Drain.decode(options))
  const timing = yield* Effect.fromResult(decodeTiming(options))
  const services = yield* Effect.context<never>()
  const listener = new HijackListener(options.name ?? "hijacked", timing, yield* Process)
  listener.drains(yield* Drain.make(listener, drainOptions))
  const adopt = (
    socket: Adoptable,
    { goodbye = Effect.void, name }: AdoptOptions<Effect.Effect<unknown, unknown>>,
    context: Context.Context<never>
  ) => {
    const said = Effect.catchCause(goodbye, (cause) =>
      Effect.logWarning(`The goodbye of ${name ?? "a hijacked socket"} failed`, cause)
    )
    listener.adopt(socket, name, Effect.provideContext(said, context))
  }
  return KmsHijack.of({
    adopt: <R>(socket: Adoptable, options: AdoptOptions<Effect.Effect<unknown, unknown, R>> = {}) =>
      Effect.contextWith((context: Context.Context<R>) =>
        Effect.sync(() => adopt(socket, options as AdoptOptions<Effect.Effect<unknown, unknown>>, context))
      ),
    adoptUnsafe: (socket, { goodbye, name } = {}) =>
      adopt(socket, { name, goodbye: goodbye === undefined ? undefined : called(goodbye) }, services)
  })
})

/** A function that may return a promise. */
const called = (f: () => unknown): Effect.Effect<unknown, unknown> =>
  Effect.suspend(() => {
    const result = f()
    return Predicate.isPromiseLike(result) ? Effect.promise(() => result) : Effect.void
  })

/**
 * Provides a `KmsHijack`.
 *
 * **Details**
 *
 * Put it between the application and what the goodbyes need, with `Layer.provide`: without a `Kms` it drains when its own
 * scope closes, after that of the application.
 *
 * **Example** (WebSockets of a library that hear a last message, and are closed with 1001)
 *
 * ```ts
 * import { NodeRuntime } from "@effect/platform-node"
 * import { Effect, Layer } from "effect"
 * import { Kms, KmsHijack, KmsHttp } from "effect-kms"
 * import { createServer } from "node:http"
 * import { WebSocketServer } from "ws"
 *
 * const Chat = Layer.unwrap(
 *   Effect.map(KmsHijack.KmsHijack, (hijack) =>
 *     KmsHttp.layerNode(
 *       () => {
 *         const server = createServer()
 *         new WebSocketServer({ server }).on("connection", (socket) => {
 *           hijack.adoptUnsafe(socket, { goodbye: () => socket.send("back in a moment") })
 *         })
 *         return server
 *       },
 *       { port: 3010 }
 *     )
 *   )
 * ).pipe(Layer.provide(KmsHijack.layer()))
 *
 * Chat.pipe(Kms.launch(), NodeRuntime.runMain({ teardown: Kms.teardown }))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<KmsHijack, OptionError> => Layer.effect(KmsHijack)(make(options))

/**
 * As `layer`, with options read from `Config`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (options: Config.Wrap<Options>): Layer.Layer<KmsHijack, OptionError | Config.ConfigError> =>
  Layer.effect(KmsHijack)(Effect.flatMap(Config.unwrap(options), make))
