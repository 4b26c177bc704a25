/**
 * Unix-domain sockets, as listeners that drain. They are those of `KmsTcp` in everything but the file.
 *
 * **The file**
 *
 * - one that a crash has left behind is replaced; one that somebody listens on, and anything that is not a socket, is an
 *   error, and stays as it is. Of several processes that want the same path at once exactly one gets it
 * - it has its permissions before anyone can connect
 * - it is removed when the listener stops accepting, and only if it is still the listener's own
 * - on Linux a path that begins with `"\0"` is a name in the abstract namespace, and no file
 *
 * The same rules hold for the `path` of a `KmsHttp` or `KmsTcp` listener.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as SocketServer from "effect/socket/SocketServer"
import * as Net from "node:net"
import * as Sockets from "./internal/sockets.ts"

/**
 * The options of a listener on a Unix-domain socket.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends Net.ServerOpts, Sockets.SocketOptions {
  /** Where the socket is. Its directory has to be there, and to be writable. */
  readonly path: string
  /**
   * The permissions of the file, from `0` to `0o777`: who may write to it may connect. Default `0o600`. An abstract socket
   * has no file: a mode for it is an error.
   */
  readonly mode?: number | undefined
  /** The length of the accept queue. Default 511. */
  readonly backlog?: number | undefined
}

/**
 * Creates a `SocketServer` on a Unix-domain socket, listening until the shutdown begins or the scope closes, whichever
 * comes first.
 *
 * **Details**
 *
 * Handlers and their connections drain as those of `KmsTcp.make` do.
 *
 * Fails with `SocketServerError` if the path cannot be listened on or an option is invalid; its message names the
 * path or the option and the value, and nothing is left behind.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  options: Options
): Effect.Effect<SocketServer.SocketServer["Service"], SocketServer.SocketServerError, Scope.Scope> =>
  Sockets.make(
    { kind: "unix", event: "connection", server: () => Net.createServer(options) },
    { ...options, defaultMode: 0o600 }
  )

/**
 * Provides a `SocketServer` on a Unix-domain socket.
 *
 * **Example** (A clock that one user may read)
 *
 * ```ts
 * import { NodeRuntime } from "@effect/platform-node"
 * import { Effect, Layer } from "effect"
 * import { SocketServer } from "effect/socket"
 * import { Kms, KmsUnix } from "effect-kms"
 * import { tmpdir } from "node:os"
 * import { join } from "node:path"
 *
 * const Time = Layer.effectDiscard(
 *   Effect.gen(function* () {
 *     const server = yield* SocketServer.SocketServer
 *     yield* server
 *       .run((socket) =>
 *         Effect.gen(function* () {
 *           yield* socket.reader
 *           const { write } = yield* socket.writer
 *           yield* write(`${new Date().toISOString()}\n`)
 *         }).pipe(Effect.scoped)
 *       )
 *       .pipe(Effect.forkScoped)
 *   })
 * ).pipe(Layer.provide(KmsUnix.layer({ path: join(tmpdir(), "effect-kms-time.sock") })))
 *
 * Time.pipe(Kms.launch(), NodeRuntime.runMain({ teardown: Kms.teardown }))
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
