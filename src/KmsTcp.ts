/**
 * TCP and TLS, as listeners that drain: a drop-in for `NodeSocketServer`.
 *
 * A program moves over by writing `KmsTcp.layer` where it said `NodeSocketServer.layer`. Whoever runs a `SocketServer` on it
 * stays as it is, and so do its handlers, with `NodeSocket.NetSocket` for each connection. What changes is the end: when
 * the shutdown begins, or the listener's scope closes, it stops accepting, lets every handler finish, and delivers what
 * each has written to the last byte, before anything is closed that a handler may need.
 *
 * **What each peer sees**
 *
 * - a connection with a handler: whatever the handler does to its end, all of it, and then the end of the connection
 * - the same with `onDrain: "interrupt"`: the end, once no busy section runs in its handler
 * - a TLS handshake under way: `closeTimeout` to get on with it, and then as any other
 * - a connection that nobody runs a handler for yet: the end
 * - a new connection: refused
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as SocketServer from "effect/socket/SocketServer"
import * as Net from "node:net"
import * as Tls from "node:tls"
import * as Sockets from "./internal/sockets.ts"

/**
 * The options of a TCP listener: those of `node:net`, and those of the drain.
 *
 * TCP keep-alive is on unless `keepAlive` is false: a peer that has been silent for `keepAliveInitialDelay` milliseconds
 * (default 180,000) is asked whether it still lives, so that one that has gone without a word does not hold a handler for
 * ever.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends Net.ServerOpts, Net.ListenOptions, Sockets.SocketOptions {
  /**
   * A descriptor of a listening socket that the process has inherited, instead of a port.
   */
  readonly fd?: number | undefined
  /**
   * The permissions of the file, for a `path` (see `KmsUnix`): from `0` to `0o777`. Default: what the umask leaves.
   */
  readonly mode?: number | undefined
}

/**
 * The options of a TLS listener: those of `node:tls` and `node:net`, and those of the drain.
 *
 * @category options
 * @since 0.1.0
 */
export interface TlsOptions extends Omit<Tls.TlsOptions, keyof Net.ServerOpts>, Options {}

/** Three minutes, as Go's own servers and go-playground/kms have it. */
const keepAlive = { keepAlive: true, keepAliveInitialDelay: 180_000 }

const kept = <O extends Options>(options: O): O => ({
  ...options,
  keepAlive: options.keepAlive ?? keepAlive.keepAlive,
  keepAliveInitialDelay: options.keepAliveInitialDelay ?? keepAlive.keepAliveInitialDelay
})

/**
 * Creates a `SocketServer` on a TCP port, listening until the shutdown begins or the scope closes, whichever comes first.
 *
 * **Details**
 *
 * `run` takes connections until it is interrupted. Then it waits for its handlers, as the drain does. With the last `run`
 * that ends the whole listener drains: a connection that is accepted and then dropped would lose what its peer has sent.
 *
 * Connections are accepted from the beginning; before anyone runs they wait.
 *
 * A listener that is made after the drain began does not bind: it waits, and is interrupted when the program unwinds.
 *
 * **Gotchas**
 *
 * With `onDrain: "wait"` a handler that only waits for its peer holds the drain until the peer is done, or until the
 * deadline. Race the wait with `Kms.draining`, or choose `"interrupt"` and mark what must not be cut short with `Kms.busy`.
 *
 * A handler that reads its peer's half to the end before it answers needs `allowHalfOpen: true`, as everywhere in Node.
 *
 * Fails with `SocketServerError` if the address cannot be listened on or an option is invalid; its message names the
 * address or the option and the value, and nothing is left open.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  options: Options
): Effect.Effect<SocketServer.SocketServer["Service"], SocketServer.SocketServerError, Scope.Scope> =>
  Sockets.make({ kind: "tcp", event: "connection", server: () => Net.createServer(kept(options)) }, options)

/**
 * Provides a `SocketServer` on a TCP port. The drop-in for `NodeSocketServer.layer`.
 *
 * **Example** (An echo that finishes its conversations)
 *
 * ```ts
 * import { NodeRuntime } from "@effect/platform-node"
 * import { Effect, Layer } from "effect"
 * import { SocketServer } from "effect/socket"
 * import { Kms, KmsTcp } from "effect-kms"
 *
 * const Echo = Layer.effectDiscard(
 *   Effect.gen(function* () {
 *     const server = yield* SocketServer.SocketServer
 *     yield* server
 *       .run((socket) =>
 *         Effect.gen(function* () {
 *           const { pull } = yield* socket.reader
 *           const { writeAll } = yield* socket.writer
 *           return yield* pull.pipe(Effect.flatMap(writeAll), Effect.forever)
 *         }).pipe(Effect.scoped, Effect.ignore)
 *       )
 *       .pipe(Effect.forkScoped)
 *   })
 * ).pipe(Layer.provide(KmsTcp.layer({ port: 7007, onDrain: "interrupt" })))
 *
 * Echo.pipe(Kms.launch(), NodeRuntime.runMain({ teardown: Kms.teardown }))
 * ```
 *
 * @see {@link make} for what it does and how it fails
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<SocketServer.SocketServer, SocketServer.SocketServerError> =>
  Layer.effect(SocketServer.SocketServer)(make(options))

/**
 * As `layer`, with options read from `Config`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Wrap<Options>
): Layer.Layer<SocketServer.SocketServer, SocketServer.SocketServerError | Config.ConfigError> =>
  Layer.effect(SocketServer.SocketServer)(Effect.flatMap(Config.unwrap(options), make))

/**
 * Creates a `SocketServer` that speaks TLS. A connection reaches its handler when the handshake is done.
 *
 * **Details**
 *
 * Once the drain began a handshake under way has `closeTimeout` to get on; one that a peer has not begun, `quietPeriod`.
 *
 * @see {@link make} for what it does and how it fails
 * @category constructors
 * @since 0.1.0
 */
export const makeTls = (
  options: TlsOptions
): Effect.Effect<SocketServer.SocketServer["Service"], SocketServer.SocketServerError, Scope.Scope> =>
  Sockets.make({ kind: "tls", event: "secureConnection", server: () => Tls.createServer(kept(options)) }, options)

/**
 * Provides a `SocketServer` that speaks TLS. The drop-in for `NodeSocketServer.layerTls`.
 *
 * @see {@link makeTls} for what it does and how it fails
 * @category layers
 * @since 0.1.0
 */
export const layerTls = (options: TlsOptions): Layer.Layer<SocketServer.SocketServer, SocketServer.SocketServerError> =>
  Layer.effect(SocketServer.SocketServer)(makeTls(options))

/**
 * As `layerTls`, with options read from `Config`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerTlsConfig = (
  options: Config.Wrap<TlsOptions>
): Layer.Layer<SocketServer.SocketServer, SocketServer.SocketServerError | Config.ConfigError> =>
  Layer.effect(SocketServer.SocketServer)(Effect.flatMap(Config.unwrap(options), makeTls))
