/**
 * A `SocketServer` on a server of Node's, under a drain. TCP, TLS and Unix-domain sockets differ in how the server is made
 * and in what it is called.
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as SocketServer from "effect/socket/SocketServer"
import type { AddressInfo, Server } from "node:net"
import type { BindError, Options } from "./bind.ts"
import * as Drain from "./drain.ts"
import { Kms } from "./kms.ts"
import { decodeTiming, listen, MakeError } from "./listener.ts"
import { OptionError } from "./options.ts"
import { Process } from "./process.ts"
import { type OnSocket, Run } from "./run.ts"
import { SocketListener } from "./tcp.ts"
import { decodeMode } from "./unix.ts"

/**
 * What every listener for sockets takes beside where it listens.
 *
 * @category options
 * @since 0.1.0
 */
export interface SocketOptions extends Drain.DrainOptions {
  /**
   * What becomes of the handlers of connections when the drain begins. `"wait"` (default): each runs to its own end; it
   * can learn of the drain through `Kms.draining`. `"interrupt"`: each is interrupted, at once or when the busy section
   * in it has ended.
   */
  readonly onDrain?: "wait" | "interrupt" | undefined
  /**
   * How long a peer may take to close its half of a connection, once the handler has ended and all that was written has
   * been sent. Once the drain began, also how long a TLS handshake may take, and sending what is left after a handler
   * was interrupted. Default 1 second.
   */
  readonly closeTimeout?: Duration.Input | undefined
  /**
   * Once the drain began: how long a connection has to have been quiet to be closed, where its calls are counted
   * (`KmsRpc.drain`), or where its peer has not begun the TLS handshake. Default 500 milliseconds.
   */
  readonly quietPeriod?: Duration.Input | undefined
}

/** How the server is made, and what tells of a connection on it. */
export interface Spec {
  readonly kind: string
  readonly event: "connection" | "secureConnection"
  readonly server: () => Server
}

type Service = SocketServer.SocketServer["Service"]

const ours = new WeakSet<Service>()

/** Whether the runs of a server drain before they end. */
export const isOurs = (server: Service): boolean => ours.has(server)

export const make = Effect.fnUntraced(function* (
  spec: Spec,
  options: SocketOptions & Options
): Effect.fn.Return<Service, SocketServer.SocketServerError, Scope.Scope> {
  const { drain: drainOptions, onDrain, timing } = yield* openError(Effect.fromResult(decode(options)))
  yield* Drain.admitted
  const kms = yield* Kms
  const host = yield* Process
  const services = yield* Effect.context<never>()
  const server = yield* openError(
    Effect.try({ try: spec.server, catch: (cause) => new MakeError({ kind: spec.kind, cause }) })
  )
  const onForce = () => void Effect.runForkWith(services)(listener.runs.close)
  const listener: SocketListener = new SocketListener(server, { ...spec, timing, host, onForce })
  const drain = yield* openError(listen(listener, server, options, drainOptions, () => Effect.void))
  const { began, ended } = listener
  const runOptions = { onDrain, released: options.drainOn === "release", began, ended }

  const run = (onSocket: OnSocket, services: Context.Context<never>): Effect.Effect<never> =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        const run = new Run(onSocket, services, runOptions)
        if (listener.runs.isOver || drain.isBegun()) {
          yield* Effect.logWarning(`${listener.name} has been drained: it takes no connections`)
        }
        listener.add(run)
        return yield* Effect.onExit(restore(Effect.never), (exit) => listener.runs.finish(run, drain, exit, kms.grace))
      })
    )

  const service = SocketServer.SocketServer.of({
    address: addressOf(server, listener.address),
    run: (onSocket) =>
      Effect.contextWith((services) =>
        run(onSocket as OnSocket, Context.omit(Scope.Scope)(services as Context.Context<Scope.Scope>))
      )
  })
  ours.add(service)
  return service
})

const decode = (options: SocketOptions & { readonly mode?: number | undefined }) =>
  Result.gen(function* () {
    const { onDrain = "wait" } = options
    if (onDrain !== "wait" && onDrain !== "interrupt") {
      const problem = 'neither "wait" nor "interrupt"'
      return yield* Result.fail(new OptionError({ option: "onDrain", value: onDrain, problem }))
    }
    yield* decodeMode(options.mode)
    return { onDrain, drain: yield* Drain.decode(options), timing: yield* decodeTiming(options) }
  })

/** What fails at the start fails as it does in `NodeSocketServer`, with a message that says what and where. */
class OpenError extends SocketServer.SocketServerOpenError {
  override get message(): string {
    return (this.cause as Error).message
  }
}

const openError = <A, R>(self: Effect.Effect<A, BindError | MakeError | OptionError, R>) =>
  Effect.mapError(self, (cause) => new SocketServer.SocketServerError({ reason: new OpenError({ cause }) }))

/** The address of a server; of one that Node cannot name, what it is called. */
const addressOf = (server: Server, name: string): NetAddress.SocketAddress => {
  const address = server.address() as AddressInfo | string | null | undefined
  if (address === null || address === undefined) return NetAddress.unixPathAddress(name)
  if (typeof address === "string") return NetAddress.unixPathAddress(address)
  return Result.getOrThrow(NetAddress.inetAddressFromIpString(address.address, address.port))
}
