/**
 * Lets an Effect `RpcServer` finish its calls.
 *
 * By itself an `RpcServer` interrupts the calls in flight as soon as its scope closes, and over a socket it cannot end a
 * client. Its messages tell what is in flight: with `drain` around its protocol the listener beneath knows, and lets a
 * connection go once it has been without a call for `quietPeriod`.
 *
 * **What each client sees** when the drain begins, over `KmsTcp`, `KmsUnix`, and WebSockets and HTTP on `KmsHttp`
 *
 * - a call in flight: its answer
 * - a call that it makes on a connection that is still open: its answer
 * - a streaming call: what was sent so far and its end, or all of it, as `streams` says
 * - a connection without calls: the end, once it has been quiet for `quietPeriod`
 * - a connection on which it calls without pause: the end, too. New calls are taken for as long as one from before the
 *   drain is in flight, and for `quietPeriod` after that; the others are not executed, and fail when the connection ends
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { dual } from "effect/Function"
import { HttpRouter } from "effect/http/HttpRouter"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Rpc from "effect/rpc/Rpc"
import type { ResponseExitEncoded } from "effect/rpc/RpcMessage"
import * as RpcSchema from "effect/rpc/RpcSchema"
import { Protocol } from "effect/rpc/RpcServer"
import * as Schema from "effect/Schema"
import { SocketServer } from "effect/socket/SocketServer"
import { Calls, type Exits } from "./internal/calls.ts"
import { defaultLimit } from "./internal/drain.ts"
import { CurrentCarrier } from "./internal/handler.ts"
import { Kms, type Service as KmsService } from "./internal/kms.ts"
import * as Limit from "./internal/limit.ts"
import { OptionError } from "./internal/options.ts"
import { Process } from "./internal/process.ts"
import { isOurs } from "./internal/sockets.ts"

/**
 * How the calls of an `RpcServer` are drained.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /**
   * What becomes of a streaming call when the drain begins. A function of the tag of the call says it for each.
   *
   * - `"end"` (default): it ends, as if its handler had. For a subscription whose client takes it up again elsewhere when
   *   it has ended. A client that only retries it takes it for complete, and a stream with an end of its own, such as a
   *   download, is cut short without a word
   * - `"fail"`: it stops, and its client hears of that from the end of the connection: it fails with `RpcClientError`, as
   *   when a network fails, and can be retried. On a connection with other calls that is when these have been answered
   * - `"wait"`: the drain waits for it
   *
   * To end it its handler is interrupted, at once or when the busy section in it has ended, and its finalizers run before
   * the client hears of the end. One that cannot be interrupted is waited for.
   */
  readonly streams?: Streams | ((tag: string) => Streams) | undefined
}

/**
 * What becomes of a streaming call when the drain begins.
 *
 * @category options
 * @since 0.1.0
 */
export type Streams = "end" | "fail" | "wait"

/**
 * Wraps the protocol of an `RpcServer`, so that its calls are finished before its connections close.
 *
 * **Details**
 *
 * `group` is what the server serves: it knows which calls are streams.
 *
 * Without a `Kms` the calls are finished when the scope of the server closes. So are those over a transport that is not
 * ours, such as `NodeSocketServer`, where no connection can be let go: from then on a client is served for as
 * long as a call of its own from before is in flight, and after that its calls fail with an interruption.
 *
 * **Gotchas**
 *
 * It goes around the protocol alone, as in the example, and what the protocol runs on is provided after it: a listener
 * inside would not know which of its connections have calls before they make some. `RpcServer.layerHttp` has its protocol
 * inside; write `RpcServer.layer` over `layerProtocolWebsocket` or `layerProtocolHttp`.
 *
 * A call with `discard` is answered when it begins, and a notification is not answered at all: neither is waited for.
 * What they do belongs in `Kms.busy` where it must not be cut short.
 *
 * A handler that dies is for its client the end of every call that it has in flight (unless `disableFatalDefects` is
 * set): the drain waits for none of them.
 *
 * Dies with `OptionError` if `streams` is none of the three.
 *
 * **Example** (Calls over TCP that are answered whatever happens)
 *
 * ```ts
 * import { NodeRuntime } from "@effect/platform-node"
 * import { Effect, Layer, Schema } from "effect"
 * import { Rpc, RpcGroup, RpcSerialization, RpcServer } from "effect/rpc"
 * import { Kms, KmsRpc, KmsTcp } from "effect-kms"
 *
 * class Arith extends RpcGroup.make(
 *   Rpc.make("Multiply", { payload: { a: Schema.Int, b: Schema.Int }, success: Schema.Int })
 * ) {}
 *
 * const Server = RpcServer.layer(Arith).pipe(
 *   Layer.provide(Arith.toLayer({ Multiply: ({ a, b }) => Effect.succeed(a * b) })),
 *   Layer.provide(RpcServer.layerProtocolSocketServer.pipe(KmsRpc.drain(Arith))),
 *   Layer.provide(KmsTcp.layer({ port: 4004 })),
 *   Layer.provide(RpcSerialization.layerNdjson)
 * )
 *
 * Server.pipe(Kms.launch(), NodeRuntime.runMain({ teardown: Kms.teardown }))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const drain: {
  (
    group: Group,
    options?: Options
  ): <A, E, R>(layer: Layer.Layer<A | Protocol, E, R>) => Layer.Layer<A | Protocol, E, R>
  <A, E, R>(layer: Layer.Layer<A | Protocol, E, R>, group: Group, options?: Options): Layer.Layer<A | Protocol, E, R>
} = dual(
  (args) => Layer.isLayer(args[0]),
  <A, E, R>(
    layer: Layer.Layer<A | Protocol, E, R>,
    group: Group,
    options: Options = {}
  ): Layer.Layer<A | Protocol, E, R> =>
    Layer.fromBuild((memoMap, scope) =>
      Effect.gen(function* () {
        const streams = yield* Effect.orDie(Effect.fromResult(decode(options, group)))
        const context = yield* Effect.context<R>()
        const kms = yield* Kms
        const host = yield* Process
        const runs = new Set<Fiber.Fiber<unknown, unknown>>()
        // Fresh, since the very same layer may also be used as it is.
        const built = yield* Layer.buildWithMemoMap(Layer.fresh(layer), memoMap, scope).pipe(
          Effect.provideContext(counting(context, runs))
        )
        const protocol = Context.get(built as Context.Context<Protocol>, Protocol)
        const calls = yield* Calls.make(protocol, exitsOf(group, protocol, streams))
        const drained = Effect.suspend(() => (runs.size > 0 ? Fiber.interruptAll(runs) : answered(calls, kms, host)))
        return Context.add(built, Protocol, calls.protocol(drained))
      })
    )
)

/** What a server serves. */
type Group = { readonly requests: ReadonlyMap<string, Rpc.Any> }

const decode = ({ streams = "end" }: Options, group: Group): Result.Result<(tag: string) => Streams, OptionError> => {
  const isOne = (value: Streams): boolean => value === "end" || value === "fail" || value === "wait"
  const fail = (value: unknown, problem: string) => Result.fail(new OptionError({ option: "streams", value, problem }))
  if (typeof streams !== "function") {
    return isOne(streams)
      ? Result.succeed(() => streams)
      : fail(streams, 'neither "end" nor "fail" nor "wait" nor a function')
  }
  for (const tag of group.requests.keys()) {
    const value = streams(tag)
    if (!isOne(value)) return fail(value, `neither "end" nor "fail" nor "wait", for ${tag}`)
  }
  return Result.succeed(streams)
}

/** What the calls of a server may end with, as the protocol says it. */
const exitsOf = (group: Group, protocol: Protocol["Service"], streams: (tag: string) => Streams) => {
  const requests = group.requests as ReadonlyMap<string, Rpc.AnyWithProps>
  const make = (rpc: Rpc.AnyWithProps): Exits => {
    // That of the client: some protocols say of what type a value is.
    const codec = protocol.codecFor(Rpc.exitSchema(rpc)) as Schema.Codec<Exit.Exit<unknown, unknown>, Encoded>
    const decode = Schema.decodeUnknownExit(codec)
    const encode = Schema.encodeSync(codec)
    const becomes = RpcSchema.isStreamSchema(rpc.successSchema) ? streams(rpc._tag) : "wait"
    return {
      ends: becomes !== "wait",
      end: becomes === "end" ? encode(Exit.void) : undefined,
      refused: encode(Exit.interrupt()),
      isInterruption: (exit) => {
        const decoded = decode(exit)
        return Exit.isSuccess(decoded) && Exit.isFailure(decoded.value) && Cause.hasInterruptsOnly(decoded.value.cause)
      }
    }
  }
  const known = new Map<string, Exits>()
  return (tag: string): Exits | undefined => {
    const made = known.get(tag)
    const rpc = requests.get(tag)
    if (made !== undefined || rpc === undefined) return made
    const exits = make(rpc)
    known.set(tag, exits)
    return exits
  }
}

type Encoded = ResponseExitEncoded["exit"]

/**
 * The same services, but that whatever hears of a call knows that the calls on it are counted. A server of ours that is
 * run is noted in `runs`: to end that run is to drain its connections.
 */
const counting = <R>(context: Context.Context<R>, runs: Set<Fiber.Fiber<unknown, unknown>>): Context.Context<R> => {
  let counting = context as Context.Context<SocketServer | HttpRouter>
  const server = Context.getOrUndefined(counting, SocketServer)
  if (server !== undefined) {
    const run = ((handler) => {
      const running = server.run((socket) => counted(handler(socket)))
      if (!isOurs(server)) return running
      return Effect.withFiber((fiber) => {
        runs.add(fiber)
        return running
      })
    }) as typeof server.run
    counting = Context.add(counting, SocketServer, { ...server, run })
  }
  const router = Context.getOrUndefined(counting, HttpRouter)
  if (router !== undefined) {
    const add = ((method, path, handler, options) =>
      router.add(method, path, Effect.isEffect(handler) ? counted(handler) : handler, options)) as typeof router.add
    counting = Context.add(counting, HttpRouter, { ...router, add })
  }
  return counting as unknown as Context.Context<R>
}

const counted = <A, E, R>(handler: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.withFiber((fiber) => {
    fiber.getRef(CurrentCarrier)?.count()
    return handler
  })

/** Over what is not a server of ours: until every call has been answered, as long as a drain may take. */
const answered = (calls: Calls, kms: KmsService, host: Process): Effect.Effect<void> =>
  Effect.suspend(() =>
    Effect.asVoid(Limit.within(Effect.raceFirst(calls.finish, Deferred.await(kms.forced)), host, defaultLimit(kms)))
  )
