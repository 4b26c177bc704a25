/**
 * The two listeners that every application has to run on alike, and a client that speaks bytes.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { Effect, Layer, type Scope } from "effect"
import { HttpRouter, HttpServer } from "effect/http"
import { NetAddress } from "effect/net"
import { KmsHttp } from "effect-kms"
import { connect, type Socket } from "node:net"

/** What an application uses of its listener. That `KmsHttp` has this type is half of what makes it a drop-in. */
export type Listener = Pick<typeof NodeHttpServer, "make" | "layerServer" | "layer" | "layerConfig" | "layerTest">

export const listeners: ReadonlyArray<{ readonly name: string; readonly http: Listener }> = [
  { name: "NodeHttpServer", http: NodeHttpServer },
  { name: "KmsHttp", http: KmsHttp }
]

/** Serves routes on a free port, with a client for it. */
export const serving = <A, E, R>(http: Listener, routes: Layer.Layer<A, E, R>) =>
  HttpRouter.serve(routes, { disableListenLog: true, disableLogger: true }).pipe(Layer.provideMerge(http.layerTest))

/** The port of the server at hand. */
export const port: Effect.Effect<number, never, HttpServer.HttpServer> = Effect.map(
  HttpServer.HttpServer,
  ({ address }) => (NetAddress.isInetAddress(address) ? address.port : 0)
)

export interface Peer {
  readonly socket: Socket
  readonly write: (data: string | Uint8Array) => Effect.Effect<void>
  /** Everything it has received so far, a character a byte. */
  readonly received: () => string
  /** Completes with the match as soon as what came matches. Dies if the connection closes before. */
  readonly until: (pattern: RegExp) => Effect.Effect<RegExpMatchArray>
  /** Completes when the connection has closed, with everything it has received. */
  readonly closed: Effect.Effect<string>
}

/** Takes over an open socket. */
export const peer = (socket: Socket): Peer => {
  let received = ""
  let closed = false
  const waiting = new Set<() => void>()
  const look = () => {
    for (const check of Array.from(waiting)) check()
  }
  socket.setEncoding("latin1")
  socket.on("data", (chunk: string) => {
    received += chunk
    look()
  })
  // A reset is an end like any other; what came before it is what counts.
  socket.on("error", () => {})
  socket.on("close", () => {
    closed = true
    look()
  })
  const wait = <A>(check: () => Effect.Effect<A> | undefined) =>
    Effect.callback<A>((resume) => {
      const attempt = () => {
        const result = check()
        if (result === undefined) return
        waiting.delete(attempt)
        resume(result)
      }
      waiting.add(attempt)
      attempt()
      return Effect.sync(() => waiting.delete(attempt))
    })
  return {
    socket,
    write: (data) => Effect.sync(() => void socket.write(data)),
    received: () => received,
    until: (pattern) =>
      wait(() => {
        const match = received.match(pattern)
        if (match !== null) return Effect.succeed(match)
        return closed ? Effect.die(new Error(`Closed without ${pattern}. It received:\n${received}`)) : undefined
      }),
    closed: wait(() => (closed ? Effect.succeed(received) : undefined))
  }
}

/** Connects to a port or a path; closes with the scope. */
export const dial = (to: number | string): Effect.Effect<Peer, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Peer>((resume) => {
      const socket = typeof to === "number" ? connect(to, "127.0.0.1") : connect(to)
      socket.once("connect", () => resume(Effect.succeed(peer(socket))))
      socket.once("error", (cause) => resume(Effect.die(cause)))
    }),
    ({ socket }) => Effect.sync(() => socket.destroy())
  )
