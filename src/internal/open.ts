/**
 * A server of Node's for HTTP, bound and under the drain, whoever answers its requests.
 */
import type * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type { LazyArg } from "effect/Function"
import { ServeError } from "effect/http/HttpServerError"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type { Server } from "node:http"
import { Server as TlsServer } from "node:tls"
import { Batch, type OnRequest, requests } from "./batch.ts"
import type { BindError } from "./bind.ts"
import * as Drain from "./drain.ts"
import { HttpListener, type Options as HttpOptions } from "./http.ts"
import { decodeTiming, isUnused, listen, MakeError } from "./listener.ts"
import { millis, OptionError } from "./options.ts"
import { Process } from "./process.ts"
import { decodeMode } from "./unix.ts"

/**
 * The options that every KmsHttp listener takes.
 *
 * @category options
 * @since 0.1.0
 */
export interface ListenerOptions extends Omit<NodeHttpServer.Options, "websocket">, Drain.DrainOptions {
  /**
   * A descriptor of a listening socket that the process has inherited, instead of a port or a path.
   */
  readonly fd?: number | undefined
  /**
   * The permissions of the file, for a `path`, from `0` to `0o777`: who may write to it may connect. Default: what the
   * umask leaves. The other rules for a path are those of `KmsUnix`.
   */
  readonly mode?: number | undefined
  /**
   * Once the drain began: how long a connection with no request in flight may take to finish what its peer had begun,
   * half a request head, a TLS handshake, the answer to a WebSocket close. Default 1 second.
   */
  readonly closeTimeout?: Duration.Input | undefined
  /**
   * Once the drain began: how long a connection with nothing in flight has to have been quiet to be closed, counted from
   * its opening or its last response. Its next request may be on its way already, and is answered. Default 500
   * milliseconds.
   *
   * A request that is sent on a connection which has been idle for longer can still be lost: only a `quietPeriod` or a
   * `lameDuck` at least as long as the usual pause of the clients avoids that. A lame duck takes new connections meanwhile.
   */
  readonly quietPeriod?: Duration.Input | undefined
}

/** What differs between a listener for Effect applications and one for somebody else's. */
interface Spec extends Pick<HttpOptions, "onDrain" | "onForce" | "handlers" | "abandoned" | "handling" | "isEndless"> {
  /** Adds the listeners that answer. */
  readonly attach: (server: Server, batch: Batch) => void
  /** Runs when the drain is over. */
  readonly release: (exit: Exit.Exit<unknown, unknown>) => Effect.Effect<void>
}

interface Opened {
  readonly server: Server
  readonly listener: HttpListener
  readonly drain: Drain.Drain
}

/** Binds a server, and puts it under the drain. */
export const open = Effect.fnUntraced(function* (
  evaluate: LazyArg<Server>,
  options: ListenerOptions,
  spec: Spec
): Effect.fn.Return<Opened, ServeError, Scope.Scope> {
  const { drain: drainOptions, timing } = yield* serveError(Effect.fromResult(decode(options)))
  if (options.disablePreemptiveShutdown !== undefined) {
    yield* Effect.logWarning('disablePreemptiveShutdown is ignored: see drainOn: "release"')
  }
  yield* Drain.admitted
  const host = yield* Process
  const server = yield* serveError(
    Effect.try({ try: evaluate, catch: (cause) => new MakeError({ kind: "HTTP", cause }) })
  )
  yield* serveError(Effect.fromResult(isUnused(server)))
  const kind = isHttp2(server) ? "http2" : server instanceof TlsServer ? "https" : "http"
  const listener = new HttpListener(server, { ...spec, kind, timing, host })
  const batch = new Batch(host, listener)
  spec.attach(server, batch)
  for (const event of requests) {
    // One that is held tells of a request itself, and one listener costs less than two.
    if (!batch.isHeld(server.rawListeners(event)[0])) follow(server, event, listener.onRequest)
  }
  follow(server, "upgrade", listener.onHijack)
  follow(server, "connect", listener.onHijack)
  const drain = yield* serveError(listen(listener, server, options, drainOptions, spec.release))
  return { server, listener, drain }
})

const isHttp2 = (server: Server): boolean => "updateSettings" in server

/** Holds the requests that the server's own listeners answer. */
export const holdAll = (server: Server, batch: Batch): void => {
  const events = [...requests]
  // Over HTTP/2 a tunnel is a stream as any other; over HTTP/1 it is a socket, and nothing comes after it.
  if (isHttp2(server)) events.push("connect")
  for (const event of events) {
    const listeners = server.rawListeners(event) as Array<OnRequest>
    server.removeAllListeners(event)
    for (const listener of listeners) server.on(event, batch.hold(event, listener))
  }
}

/**
 * Calls `listener` before everyone else who listens for `event`, but only where someone does: Node treats upgrades,
 * tunnels and expectations in its own way as long as nobody listens.
 */
const follow = (server: Server, event: string, listener: (...args: Array<never>) => void): void => {
  const call = listener as (...args: Array<unknown>) => void
  if (server.listenerCount(event) > 0) return void server.prependListener(event, call)
  const onNew = (added: string) => {
    if (added !== event) return
    server.off("newListener", onNew)
    server.prependListener(event, call)
  }
  server.on("newListener", onNew)
}

const decode = (options: ListenerOptions & { readonly eventStreams?: unknown }) => {
  const graceful = options.gracefulShutdownTimeout
  return Result.gen(function* () {
    const drain =
      options.drainTimeout === undefined && graceful !== undefined
        ? {
            ...(yield* Drain.decode(options)),
            drainTimeout: yield* millis("gracefulShutdownTimeout", graceful, { zero: true, infinite: true })
          }
        : yield* Drain.decode(options)
    const { eventStreams: value = "end" } = options
    if (value !== "end" && value !== "wait" && typeof value !== "function") {
      const problem = 'neither "end" nor "wait" nor a function'
      return yield* Result.fail(new OptionError({ option: "eventStreams", value, problem }))
    }
    yield* decodeMode(options.mode)
    return { drain, timing: yield* decodeTiming(options) }
  })
}

/** What fails at the start fails as it does in `NodeHttpServer`, with a message that says what and where. */
const serveError = <A, R>(
  self: Effect.Effect<A, BindError | MakeError | OptionError, R>
): Effect.Effect<A, ServeError, R> =>
  Effect.mapError(self, (cause) => {
    const fields = { cause, message: cause.message }
    return new ServeError(fields)
  })
