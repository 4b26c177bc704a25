/**
 * What each client of an `RpcServer` sees when the drain begins: over every transport, in each way in which a program
 * comes to its end. Where the way has no shutdown the scope of the `RpcServer` closes first, which by itself would
 * interrupt every call.
 */
import { assert, describe, it } from "@effect/vitest"
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import * as NodeSocket from "@effect/platform-node/NodeSocket"
import * as NodeSocketServer from "@effect/platform-node/NodeSocketServer"
import {
  Cause,
  Context,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Latch,
  Layer,
  Queue,
  Schedule,
  Schema,
  SchemaGetter,
  Scope,
  Stream
} from "effect"
import { HttpRouter } from "effect/http"
import { Rpc, RpcClient, type RpcClientError, RpcGroup, RpcSerialization, RpcServer } from "effect/rpc"
import type { FromClientEncoded, FromServerEncoded } from "effect/rpc/RpcMessage"
import { SocketServer } from "effect/socket"
import { Kms, KmsHttp, KmsRpc, KmsTcp, KmsUnix } from "effect-kms"
import { type AddressInfo, connect, Server } from "node:net"
import { join } from "node:path"
import WebSocket from "ws"
import { Calls } from "../src/internal/calls.ts"
import type { Connection } from "../src/internal/connection.ts"
import { type Carrier, CurrentCarrier, Handler } from "../src/internal/handler.ts"
import * as Stages from "./support/stage.ts"
import * as Unix from "./support/unix.ts"
import * as Ways from "./support/ways.ts"

// --- What is served ---

class Oops extends Schema.TaggedError<Oops>()("Oops", { at: Schema.Int }) {}

const text = { text: Schema.String }

class Api extends RpcGroup.make(
  Rpc.make("Echo", { payload: text, success: Schema.String }),
  Rpc.make("Slow", { payload: text, success: Schema.String }),
  Rpc.make("Fails", { success: Schema.Void, error: Oops }),
  Rpc.make("Dies", { success: Schema.Void }),
  Rpc.make("Stubborn", { success: Schema.String }),
  Rpc.make("Never", { success: Schema.Void }),
  Rpc.make("Work", { payload: { text: Schema.String, millis: Schema.Int }, success: Schema.String }),
  Rpc.make("Big", { success: Schema.String }),
  Rpc.make("Job", { payload: { busy: Schema.Boolean }, success: Schema.Void }),
  Rpc.make("HandsOn", { success: Schema.Void }),
  Rpc.make("Ticks", { success: Schema.Int, error: Oops, stream: true }),
  Rpc.make("Count", { payload: { to: Schema.Int }, success: Schema.Int, stream: true }),
  Rpc.make("BusyTicks", { success: Schema.Int, stream: true }),
  Rpc.make("StreamHandsOn", { success: Schema.Int, stream: true }),
  Rpc.make("FailingEnd", { success: Schema.Int, error: Oops, stream: true }),
  Rpc.make("SlowEnd", { success: Schema.Int, stream: true }),
  Rpc.make("StubbornCount", { payload: { to: Schema.Int }, success: Schema.Int, stream: true })
) {}

/** As much as a slow reader takes a while for, and another one reads in no time. */
const big = "0123456789abcdef".repeat(512 * 1024)

class Stage extends Stages.Stage {
  /** What the last stream has sent. */
  sent: number | undefined
  /** When the last call was executed. */
  at = 0
  /** What was executed, in words. */
  readonly executed: Array<string> = []
  /** Handlers that were interrupted. */
  readonly interrupted: Array<string> = []
  /** Opened when what lasts longer than its call may end. */
  readonly rest = Latch.makeUnsafe()
  /** What supervises the program. */
  kms!: Kms.Kms
  path!: string

  private enterAs<A, E, R>(tag: string, self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.suspend(() => {
      this.at = performance.now()
      this.enter(tag)
      return Effect.onInterrupt(self, () => Effect.sync(() => void this.interrupted.push(tag)))
    })
  }

  /** Waits to be released, and wants the resource beneath it to be there. */
  private hold<A, E, R>(tag: string, self: Effect.Effect<A, E, R>, latch = this.latch): Effect.Effect<A, E, R> {
    const leave = Effect.sync(() => this.leave(tag))
    return this.enterAs(tag, latch.await.pipe(Effect.andThen(leave), Effect.andThen(self)))
  }

  /** Half of the numbers, and the others once it has been released. */
  private count(tag: string, to: number): Stream.Stream<number> {
    const half = Math.floor(to / 2)
    return Stream.concat(
      Stream.range(1, half),
      Stream.unwrap(this.hold(tag, Effect.succeed(Stream.range(half + 1, to))))
    )
  }

  private ticks(tag: string): Stream.Stream<number> {
    return Stream.fromSchedule(Schedule.spaced(5)).pipe(
      Stream.tap((tick) =>
        Effect.sync(() => {
          this.sent = tick
          // Once it has been sent, and not before.
          if (tick === 3) setImmediate(() => this.enter(tag))
        })
      ),
      Stream.ensuring(
        Effect.sync(() => {
          this.interrupted.push(tag)
          this.leave(tag)
        })
      )
    )
  }

  /** Leaves something behind that is not to be cut short. */
  private readonly handsOn = Effect.suspend(() => {
    const job = Kms.busy("handed on")(this.hold("HandsOn", Effect.void, this.rest))
    return Effect.asVoid(Effect.forkDetach(job, { startImmediately: true }))
  })

  readonly handlers = Api.toLayer(
    Effect.map(Kms.Kms, (kms) => {
      this.kms = kms
      return Api.of({
        Echo: ({ text }) => this.enterAs("Echo", Effect.succeed(text)),
        Slow: ({ text }) => this.hold("Slow", Effect.succeed(text)),
        Fails: () => this.hold("Fails", Effect.fail(new Oops({ at: 1 }))),
        Dies: () => this.hold("Dies", Effect.die(new Error("died"))),
        Stubborn: () => Rpc.uninterruptible(this.hold("Stubborn", Effect.succeed("stubborn"))),
        Never: () => this.enterAs("Never", Effect.never),
        Work: ({ millis, text }) =>
          Effect.suspend(() => {
            this.executed.push(text)
            return millis === 0 ? Effect.succeed(text) : Effect.as(Effect.sleep(millis), text)
          }),
        Big: () => this.hold("Big", Effect.succeed(big)),
        Job: ({ busy }) => {
          const job = this.hold("Job", Effect.void, this.rest)
          return busy ? Kms.busy("job")(job) : job
        },
        HandsOn: () => this.handsOn,
        StreamHandsOn: () => Stream.fromEffect(Effect.as(this.handsOn, 1)),
        Ticks: () => this.ticks("Ticks"),
        BusyTicks: () =>
          this.ticks("BusyTicks").pipe(
            Stream.tap((tick) =>
              tick === 3
                ? Kms.busy("tick")(
                    this.hold(
                      "busy",
                      Effect.sync(() => this.executed.push("busy")),
                      this.rest
                    )
                  )
                : Effect.void
            )
          ),
        FailingEnd: () =>
          Stream.unwrap(
            this.enterAs("FailingEnd", Effect.never).pipe(
              Effect.onInterrupt(() => Effect.die(new Error("died in the end")))
            )
          ),
        Count: ({ to }) => this.count("Count", to),
        SlowEnd: () => this.ticks("SlowEnd").pipe(Stream.ensuring(this.hold("end", Effect.void, this.rest))),
        StubbornCount: ({ to }) => Rpc.uninterruptible(this.count("StubbornCount", to))
      })
    })
  )
}

// --- How it is served, and called ---

interface Setup {
  readonly drain?: KmsRpc.Options | undefined
  readonly listener?: { readonly quietPeriod?: number; readonly closeTimeout?: number; readonly drainTimeout?: number }
  readonly rpc?: NonNullable<Parameters<typeof RpcServer.layer>[1]> | undefined
}

type Server_ = Layer.Layer<never, unknown, RpcServer.Protocol>

interface Transport {
  readonly name: string
  readonly serialization: Layer.Layer<RpcSerialization.RpcSerialization>
  /** Whether its clients keep a connection of their own. */
  readonly connected: boolean
  readonly serve: (
    stage: Stage,
    server: Server_,
    setup: Setup
  ) => Layer.Layer<never, unknown, RpcSerialization.RpcSerialization>
  readonly protocol: (
    stage: Stage,
    options: { readonly pingInterval: number }
  ) => Layer.Layer<RpcClient.Protocol, unknown, RpcSerialization.RpcSerialization>
}

const host = "127.0.0.1"

/** Servers of Node that listen in this process. */
const listening = (): Array<Server> =>
  (process as unknown as { _getActiveHandles: () => Array<unknown> })
    ._getActiveHandles()
    .filter((handle) => handle instanceof Server) as Array<Server>

/** Notes which server of Node is behind a `SocketServer`. */
const located = (stage: Stage) =>
  Layer.effectDiscard(
    Effect.map(SocketServer.SocketServer, ({ address }) => {
      const server = listening().find((server) => {
        const at = server.address()
        return typeof at === "string"
          ? "path" in address && address.path === at
          : "port" in address && address.port === at?.port
      })
      assert(server !== undefined)
      stage.server = server as typeof stage.server
    })
  )

const portOf = (stage: Stage): number => (stage.server.address() as AddressInfo).port

const overSockets =
  (listen: (stage: Stage, setup: Setup) => Layer.Layer<SocketServer.SocketServer, SocketServer.SocketServerError>) =>
  (stage: Stage, server: Server_, setup: Setup) =>
    server.pipe(
      Layer.provide(RpcServer.layerProtocolSocketServer.pipe(KmsRpc.drain(Api, setup.drain))),
      Layer.merge(located(stage)),
      Layer.provide(listen(stage, setup))
    )

const onTcp = overSockets((_, { listener }) => KmsTcp.layer({ host, port: 0, ...listener }))

const overHttp =
  (protocol: Layer.Layer<RpcServer.Protocol, never, RpcSerialization.RpcSerialization | HttpRouter.HttpRouter>) =>
  (stage: Stage, server: Server_, { drain, listener }: Setup) =>
    HttpRouter.serve(server.pipe(Layer.provide(KmsRpc.drain(protocol, Api, drain))), quiet).pipe(
      Layer.provide(KmsHttp.layer(stage.evaluate(Stages.http), { host, port: 0, ...listener }))
    )

const quiet = { disableListenLog: true, disableLogger: true }

const onWebSocket = overHttp(RpcServer.layerProtocolWebsocket({ path: "/rpc" }))
const onHttp = overHttp(RpcServer.layerProtocolHttp({ path: "/rpc" }))

/** No client of one test comes to the server of another. */
const socketOptions = { retryPolicy: Schedule.recurs(0), pingTimeout: 20_000 }

const tcpClient: Transport["protocol"] = (stage, options) =>
  RpcClient.layerProtocolSocket({ ...socketOptions, ...options }).pipe(
    Layer.provide(Layer.suspend(() => NodeSocket.layerNet({ host, port: portOf(stage) })))
  )
const webSocketClient: Transport["protocol"] = (stage, options) =>
  RpcClient.layerProtocolSocket({ ...socketOptions, ...options }).pipe(
    Layer.provide(Layer.suspend(() => NodeSocket.layerWebSocket(`ws://${host}:${portOf(stage)}/rpc`)))
  )
const httpClient: Transport["protocol"] = (stage) =>
  Layer.suspend(() => RpcClient.layerProtocolHttp({ url: `http://${host}:${portOf(stage)}/rpc` })).pipe(
    Layer.provide(NodeHttpClient.layerUndici)
  )

const binary = RpcSerialization.layerSchemaBinary()
const fingerprinted = RpcSerialization.layerSchemaBinary({ fingerprintPayloads: true })

const tcp: Transport = {
  name: "TCP",
  serialization: RpcSerialization.layerNdjson,
  connected: true,
  serve: onTcp,
  protocol: tcpClient
}
const binaryTcp: Transport = { ...tcp, name: "TCP with schema-binary", serialization: fingerprinted }
const unix: Transport = {
  name: "Unix with ndjson-rpc",
  serialization: RpcSerialization.layerNdJsonRpc(),
  connected: true,
  serve: overSockets((stage, { listener }) => KmsUnix.layer({ path: stage.path, ...listener })),
  protocol: (stage, options) =>
    RpcClient.layerProtocolSocket({ ...socketOptions, ...options }).pipe(
      Layer.provide(NodeSocket.layerNet({ path: stage.path }))
    )
}
const webSocket: Transport = {
  name: "WebSocket",
  serialization: RpcSerialization.layerJson,
  connected: true,
  serve: onWebSocket,
  protocol: webSocketClient
}
const binaryWebSocket: Transport = { ...webSocket, name: "WebSocket with schema-binary", serialization: binary }
const http: Transport = {
  name: "HTTP with ndjson",
  serialization: RpcSerialization.layerNdjson,
  connected: false,
  serve: onHttp,
  protocol: httpClient
}
const unframedHttp: Transport = { ...http, name: "HTTP with json", serialization: RpcSerialization.layerJson }
const binaryHttp: Transport = { ...http, name: "HTTP with schema-binary", serialization: binary }

const everyTransport = [tcp, binaryTcp, unix, webSocket, binaryWebSocket, http, unframedHttp, binaryHttp]
const withConnections = [tcp, unix, webSocket]

const { launchSignal, listenShutdown, rootInterrupted, scopeCloses } = Ways
const everyWay = [launchSignal, listenShutdown, scopeCloses, rootInterrupted]
/** One in which a shutdown drains, and one in which the scope of the `RpcServer` closes first. */
const fewWays = [launchSignal, rootInterrupted]

/** Where the connections are not ours to close. */
const foreign: Transport = {
  ...tcp,
  name: "NodeSocketServer",
  serve: overSockets(() => NodeSocketServer.layer({ host, port: 0 }))
}

type Client = RpcClient.FromGroup<typeof Api, RpcClientError.RpcClientError>

interface Peer {
  readonly client: Client
  /** Completes when its connection has ended. */
  readonly gone: Effect.Effect<void>
  readonly isGone: () => boolean
}

interface Scene {
  readonly stage: Stage
  readonly program: Ways.Program
  readonly way: Ways.Way
  readonly transport: Transport
  /** A client with a connection of its own. It ends with the scope. */
  readonly connect: (options?: { readonly pingInterval?: number }) => Effect.Effect<Peer, never, Scope.Scope>
  /** The same, but that it says what the test wants. */
  readonly wire: Effect.Effect<Wire, never, Scope.Scope>
  /** Begins the end, and completes when the drain has begun. */
  readonly drain: Effect.Effect<void>
  /** The program ended by itself: nothing was cut, no handler met anything closed, and nobody complained. */
  readonly endsWell: Effect.Effect<Ways.Ended>
  /** The same, but that a client did not behave. */
  readonly ends: Effect.Effect<Ways.Ended>
}

interface Options extends Setup {
  readonly limits?: Ways.Limits
}

const scene = (transport: Transport, way: Ways.Way, options: Options): Effect.Effect<Scene, never, Scope.Scope> =>
  Effect.gen(function* () {
    const stage = new Stage()
    if (transport === unix) stage.path = join(yield* Unix.directory, "rpc.sock")
    const server = RpcServer.layer(Api, options.rpc).pipe(Layer.provide(stage.handlers))
    return yield* start(stage, transport, way, transport.serve(stage, server as Server_, options), options.limits)
  })

/** Starts a program with an `RpcServer`. */
const start = Effect.fnUntraced(function* (
  stage: Stage,
  transport: Transport,
  way: Ways.Way,
  layer: Layer.Layer<never, unknown, RpcSerialization.RpcSerialization>,
  limits?: Ways.Limits
): Effect.fn.Return<Scene, never, Scope.Scope> {
  const program = yield* way.start(
    layer.pipe(Layer.provide(transport.serialization), Layer.provide(stage.resource)),
    limits
  )
  const check = (ended: Ways.Ended, but?: ReadonlyArray<string>) => {
    assert.deepStrictEqual(stage.trouble, [], "met a resource that was closed")
    assertClean(ended, but)
  }
  return {
    stage,
    program,
    way,
    transport,
    wire: connectWire(stage, transport),
    connect: (options = {}) => connectTo(stage, transport, options.pingInterval ?? 5000),
    drain: Ways.drain(program, () => stage.server),
    endsWell: Effect.tap(program.ended, (ended) => Effect.sync(() => check(ended))),
    ends: Effect.tap(program.ended, (ended) => Effect.sync(() => check(ended, unhandled)))
  }
})

const assertClean = ({ exit, log, report }: Ways.Ended, but: ReadonlyArray<string> = []): void => {
  assert.isTrue(Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause), String(exit))
  assert.strictEqual(report?.forced ?? false, false)
  for (const { abandoned, cut, cutWork } of report?.listeners ?? []) {
    assert.deepStrictEqual({ abandoned, cut, cutWork }, { abandoned: 0, cut: 0, cutWork: [] })
  }
  // Nothing but what a shutdown says of itself.
  assert.deepStrictEqual(
    log.filter((line) => !/^(Shutting down|Shutdown complete|Still waiting)/.test(line) && !but.includes(line)),
    []
  )
}

/** What Effect says of a client that has reset its connection, or has broken the protocol. */
const unhandled = ["Unhandled error in SocketServer"]

const connectTo = Effect.fnUntraced(function* (stage: Stage, transport: Transport, pingInterval: number) {
  const gone = yield* Deferred.make<void>()
  const hooks = RpcClient.ConnectionHooks.of({
    onConnect: Effect.void,
    onDisconnect: Effect.asVoid(Deferred.succeed(gone, undefined))
  })
  const context = yield* transport
    .protocol(stage, { pingInterval })
    .pipe(
      Layer.provide(transport.serialization),
      Layer.provide(Layer.succeed(RpcClient.ConnectionHooks)(hooks)),
      Layer.build,
      Effect.orDie
    )
  const client = yield* Effect.provideContext(RpcClient.make(Api), context as Context.Context<RpcClient.Protocol>)
  return { client, gone: Deferred.await(gone), isGone: () => Deferred.isDoneUnsafe(gone) } satisfies Peer
})

/** What a client reads off the wire. */
interface Heard {
  readonly _tag: string
  readonly requestId?: string | number
  readonly values?: ReadonlyArray<unknown>
  readonly exit?: {
    readonly _tag: string
    readonly value?: unknown
    readonly cause?: ReadonlyArray<{ readonly _tag: string }>
  }
}

/** A client that says whatever a test wants, and hears everything. */
class Wire {
  readonly heard: Array<Heard> = []
  private readonly waiting = new Set<() => void>()
  private over: { readonly how: string; readonly at: number } | undefined
  /** What is sent together is in one segment, or one frame. */
  readonly send: (...messages: ReadonlyArray<unknown>) => void
  readonly raw: (text: string) => void
  readonly destroy: () => void
  readonly pause: () => void
  readonly resume: () => void

  constructor(wire: Pick<Wire, "send" | "raw" | "destroy" | "pause" | "resume">) {
    this.send = wire.send
    this.raw = wire.raw
    this.destroy = wire.destroy
    this.pause = wire.pause
    this.resume = wire.resume
  }

  hears(...messages: ReadonlyArray<Heard>): void {
    this.heard.push(...messages)
    this.look()
  }

  ends(how: string): void {
    this.over ??= { how, at: performance.now() }
    this.look()
  }

  private look(): void {
    for (const look of Array.from(this.waiting)) look()
  }

  private until<A>(see: () => A | undefined): Effect.Effect<A> {
    return Effect.callback<A>((resume) => {
      const look = () => {
        const seen = see()
        if (seen !== undefined) resume(Effect.succeed(seen))
        else if (this.over !== undefined) {
          resume(
            Effect.die(new Error(`It ended: ${this.over.how}. Heard: ${JSON.stringify(this.heard).slice(0, 2000)}`))
          )
        } else return
        this.waiting.delete(look)
      }
      this.waiting.add(look)
      look()
      return Effect.sync(() => this.waiting.delete(look))
    })
  }

  /** The first message of a kind. */
  hearing(tag: string, id?: string | number): Effect.Effect<Heard> {
    return this.until(() =>
      this.heard.find(({ _tag, requestId }) => _tag === tag && (id === undefined || id === requestId))
    )
  }

  readonly exit = (id: string | number) => Effect.map(this.hearing("Exit", id), ({ exit }) => exit!)

  /** How it ended, and when. */
  readonly gone = Effect.suspend(() => this.until(() => this.over))
}

const connectWire = (stage: Stage, transport: Transport): Effect.Effect<Wire, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Wire>((resume) => {
      const open = transport === webSocket ? openWebSocket : openTcp
      const wire = open(stage, () => resume(Effect.succeed(wire)))
    }),
    (wire) => Effect.sync(() => wire.destroy())
  ).pipe(
    // Whoever has been answered has been accepted.
    Effect.tap((wire) => {
      wire.send({ _tag: "Ping" })
      return Effect.andThen(
        wire.hearing("Pong"),
        Effect.sync(() => wire.heard.splice(0))
      )
    })
  )

const openTcp = (stage: Stage, opened: () => void): Wire => {
  const socket = connect({ host, port: portOf(stage), allowHalfOpen: true }, opened)
  const wire = new Wire({
    send: (...messages) => wire.raw(messages.map((message) => `${JSON.stringify(message)}\n`).join("")),
    raw: (text) => void socket.write(text),
    destroy: () => void socket.destroy(),
    pause: () => void socket.pause(),
    resume: () => void socket.resume()
  })
  let rest = ""
  socket.setEncoding("utf8").on("data", (chunk: string) => {
    const lines = (rest + chunk).split("\n")
    rest = lines.pop()!
    wire.hears(...lines.map((line) => JSON.parse(line) as Heard))
  })
  socket.on("end", () => {
    wire.ends("end")
    socket.end()
  })
  socket.on("error", (error: NodeJS.ErrnoException) => wire.ends(String(error.code)))
  socket.on("close", () => wire.ends("close"))
  return wire
}

const openWebSocket = (stage: Stage, opened: () => void): Wire => {
  const socket = new WebSocket(`ws://${host}:${portOf(stage)}/rpc`)
  const wire = new Wire({
    send: (...messages) => wire.raw(JSON.stringify(messages)),
    raw: (text) => void socket.send(text),
    destroy: () => void socket.terminate(),
    pause: () => void socket.pause(),
    resume: () => void socket.resume()
  })
  socket.on("open", opened)
  socket.on("message", (data: Buffer) => {
    const message = JSON.parse(data.toString()) as Heard | ReadonlyArray<Heard>
    wire.hears(...(Array.isArray(message) ? message : [message]))
  })
  socket.on("error", () => {})
  socket.on("close", (code) => wire.ends(String(code)))
  return wire
}

/** How each kind of connection is ended by a server that goes. */
const goodbye = (transport: Transport): string => (transport === webSocket ? "1001" : "end")

let ids = 0
/** A request, as it goes over the wire. */
const request = (tag: string, payload: unknown = null, more: object = {}) => ({
  _tag: "Request",
  id: ++ids,
  tag,
  payload,
  headers: [],
  ...more
})

/** A call in a fiber of its own. */
const begin = <A, E, R>(call: Effect.Effect<A, E, R>) => Effect.forkScoped(call, { startImmediately: true })

const collect = <A, E>(call: Stream.Stream<A, E>) => begin(Stream.runCollect(call))

const rows = (
  name: string,
  options: Options & { readonly transports: ReadonlyArray<Transport>; readonly ways?: ReadonlyArray<Ways.Way> },
  play: (scene: Scene) => Effect.Effect<unknown, unknown, Scope.Scope>
): void => {
  for (const transport of options.transports) {
    for (const way of options.ways ?? everyWay) {
      const listener = { quietPeriod: 50, ...options.listener }
      it.live(`${transport.name}, ${way.name}: ${name}`, () =>
        Effect.flatMap(scene(transport, way, { ...options, listener }), play)
      )
    }
  }
}

/** Longer than any test takes: what waits for it has not ended by itself. */
const long = 20_000

const range = (from: number, to: number): Array<number> =>
  Array.from({ length: to - from + 1 }, (_, index) => from + index)

const failureOf = <A, E>(call: Fiber.Fiber<A, E>) =>
  Effect.map(Fiber.await(call), (exit) => {
    assert(Exit.isFailure(exit), "it succeeded")
    return exit.cause
  })

/** The error with which a call failed since its connection had ended. */
const assertDisconnected = (cause: Cause.Cause<unknown>): void =>
  assert.strictEqual((Cause.squash(cause) as { readonly _tag?: string })._tag, "RpcClientError", Cause.pretty(cause))

describe.concurrent("a connection", () => {
  rows(
    "without calls is closed once it has been quiet for quietPeriod, not before",
    { transports: withConnections, listener: { quietPeriod: 300, closeTimeout: long } },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, stage }) {
      const { client, gone } = yield* connect()
      yield* client.Echo({ text: "x" })
      yield* drain
      yield* gone
      const quiet = performance.now() - stage.at
      assert.isAtLeast(quiet, 300)
      yield* endsWell
      assert.isBelow(performance.now() - stage.at, 3000)
    })
  )

  rows(
    "that has been quiet for longer than quietPeriod is closed at once",
    { transports: [tcp, webSocket], ways: fewWays, listener: { quietPeriod: 2000, closeTimeout: long } },
    Effect.fnUntraced(function* ({ connect, drain, endsWell }) {
      const { client, isGone } = yield* connect()
      yield* client.Echo({ text: "x" })
      yield* Effect.sleep(2050)
      assert.isFalse(isGone())
      const begun = performance.now()
      yield* drain
      yield* endsWell
      assert.isBelow(performance.now() - begun, 1900)
    })
  )

  rows(
    "on which nobody has ever called is closed, over TCP with its end and over a WebSocket with 1001",
    { transports: [tcp, webSocket] },
    Effect.fnUntraced(function* ({ drain, endsWell, transport, wire }) {
      const peer = yield* wire
      yield* drain
      assert.strictEqual((yield* peer.gone).how, goodbye(transport))
      yield* endsWell
    })
  )

  rows(
    "of a client that pings all the time has no longer than another one",
    { transports: withConnections, ways: fewWays, listener: { quietPeriod: 300, closeTimeout: long } },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, stage }) {
      const { client, gone } = yield* connect({ pingInterval: 10 })
      yield* client.Echo({ text: "x" })
      yield* drain
      yield* gone
      assert.isAtLeast(performance.now() - stage.at, 300)
      yield* endsWell
    })
  )

  rows(
    "of a client that pings all the time and has never called, too",
    { transports: [tcp, webSocket], ways: fewWays, listener: { quietPeriod: 300, closeTimeout: long } },
    Effect.fnUntraced(function* ({ drain, endsWell, transport, wire }) {
      const peer = yield* wire
      const pinging = setInterval(() => peer.send({ _tag: "Ping" }), 10)
      yield* peer.hearing("Pong")
      yield* drain
      assert.strictEqual((yield* peer.gone).how, goodbye(transport))
      clearInterval(pinging)
      yield* endsWell
    })
  )

  rows(
    "is closed quietPeriod after the last answer",
    { transports: [tcp, webSocket], ways: fewWays, listener: { quietPeriod: 300, closeTimeout: long } },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, stage }) {
      const { client, gone } = yield* connect()
      const call = yield* begin(client.Slow({ text: "x" }))
      yield* stage.entered("Slow")
      yield* drain
      yield* Effect.sleep(400)
      const released = performance.now()
      stage.release()
      yield* Fiber.join(call)
      yield* gone
      assert.isAtLeast(performance.now() - released, 300)
      yield* endsWell
    })
  )

  rows(
    "on which half of a call has come has closeTimeout for the other half",
    { transports: [tcp], ways: fewWays, listener: { closeTimeout: 800 } },
    Effect.fnUntraced(function* ({ drain, endsWell, wire }) {
      const [peer, stuck] = yield* Effect.all([wire, wire])
      const call = request("Echo", { text: "halves" })
      const line = `${JSON.stringify(call)}\n`
      const begun = performance.now()
      for (const each of [peer, stuck]) each.raw(line.slice(0, 20))
      yield* drain
      yield* Effect.sleep(200)
      peer.raw(line.slice(20))
      assert.deepStrictEqual(yield* peer.exit(call.id), { _tag: "Success", value: "halves" })
      yield* peer.gone
      assert.isAtLeast((yield* stuck.gone).at - begun, 800)
      yield* endsWell
    })
  )

  rows(
    "is drained as well where its listener interrupts its handlers",
    {
      transports: [
        {
          ...tcp,
          serve: overSockets((_, { listener }) => KmsTcp.layer({ host, port: 0, onDrain: "interrupt", ...listener }))
        }
      ]
    },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, stage }) {
      const { client } = yield* connect()
      const call = yield* begin(client.Slow({ text: "answer" }))
      yield* stage.entered("Slow")
      yield* drain
      stage.release()
      assert.strictEqual(yield* Fiber.join(call), "answer")
      yield* endsWell
    })
  )
})

describe.concurrent("a call", () => {
  rows(
    "in flight when the drain begins is answered",
    { transports: everyTransport },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, program, stage }) {
      const { client } = yield* connect()
      const call = yield* begin(client.Slow({ text: "answer" }))
      yield* stage.entered("Slow")
      yield* drain
      assert.isFalse(program.isEnded())
      stage.release()
      assert.strictEqual(yield* Fiber.join(call), "answer")
      yield* endsWell
      assert.deepStrictEqual(stage.interrupted, [])
    })
  )

  rows(
    "on a connection that is still open is answered",
    { transports: everyTransport, listener: { quietPeriod: long } },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, stage }) {
      const scope = yield* Scope.make()
      const { client } = yield* Scope.provide(connect(), scope)
      assert.strictEqual(yield* client.Echo({ text: "before" }), "before")
      yield* drain
      stage.release()
      assert.strictEqual(yield* client.Slow({ text: "meanwhile" }), "meanwhile")
      yield* Scope.close(scope, Exit.void)
      yield* endsWell
    })
  )

  rows(
    "is answered among many others, with streams, acknowledgements and pings between them",
    { transports: withConnections },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, stage }) {
      const { client } = yield* connect({ pingInterval: 5 })
      const calls = yield* Effect.forEach(range(1, 20), (n) => begin(client.Slow({ text: `${n}` })))
      const streams = yield* Effect.forEach(range(1, 5), () => collect(client.Ticks()))
      yield* Effect.all([stage.entered("Slow", 20), stage.entered("Ticks", 5)])
      yield* drain
      for (const stream of streams) {
        const ticks = yield* Fiber.join(stream)
        assert.deepStrictEqual(ticks, range(0, ticks.length - 1))
      }
      stage.release()
      const answers = yield* Effect.forEach(calls, Fiber.join)
      assert.deepStrictEqual(
        answers,
        range(1, 20).map((n) => `${n}`)
      )
      yield* endsWell
    })
  )

  rows(
    "that its client interrupts during the drain is interrupted, and waited for no longer",
    { transports: [tcp, webSocket, http], listener: { quietPeriod: 50 } },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, program, stage }) {
      const { client } = yield* connect()
      const call = yield* begin(client.Never())
      yield* stage.entered("Never")
      yield* drain
      assert.isFalse(program.isEnded())
      yield* Fiber.interrupt(call)
      yield* endsWell
      assert.deepStrictEqual(stage.interrupted, ["Never"])
    })
  )

  rows(
    "whose client has gone is waited for no longer",
    { transports: [tcp, webSocket, http], listener: { quietPeriod: long, closeTimeout: long } },
    Effect.fnUntraced(function* ({ connect, drain, ends, stage, transport, way }) {
      const scope = yield* Scope.make()
      const { client } = yield* Scope.provide(connect(), scope)
      yield* begin(client.Never())
      yield* begin(client.Slow({ text: "x" }))
      yield* collect(client.Count({ to: 10 }))
      yield* Effect.all([stage.entered("Never"), stage.entered("Slow"), stage.entered("Count")])
      const inFlight = () => stage.kms.status().listeners.map(({ inFlight }) => inFlight)
      // An upgraded connection is one.
      if (way.supervised) assert.deepStrictEqual(inFlight(), [transport === webSocket ? 1 : 3])
      yield* drain
      yield* Scope.close(scope, Exit.void)
      yield* ends
      assert.sameMembers(stage.interrupted, ["Never", "Slow", "Count"])
      if (way.supervised) assert.deepStrictEqual(inFlight(), [0])
    })
  )

  rows(
    "whose client had gone before is not waited for",
    { transports: [tcp, webSocket, http, foreign], listener: { quietPeriod: long, closeTimeout: long } },
    Effect.fnUntraced(function* ({ connect, ends, program, stage }) {
      const scope = yield* Scope.make()
      const { client } = yield* Scope.provide(connect(), scope)
      yield* begin(client.Stubborn())
      yield* begin(client.Never())
      yield* Effect.all([stage.entered("Stubborn"), stage.entered("Never")])
      yield* Scope.close(scope, Exit.void)
      program.begin()
      // Nobody waits for its answer; but its handler has not ended, and is not to meet anything closed.
      yield* Effect.forkScoped(
        Effect.andThen(
          Effect.sleep(100),
          Effect.sync(() => stage.release())
        )
      )
      yield* ends
    })
  )

  rows(
    "that fails gives its error",
    { transports: everyTransport, ways: fewWays },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, stage }) {
      const { client } = yield* connect()
      const call = yield* begin(client.Fails())
      yield* stage.entered("Fails")
      yield* drain
      stage.release()
      assert.deepStrictEqual(Cause.squash(yield* failureOf(call)), new Oops({ at: 1 }))
      yield* endsWell
    })
  )

  rows(
    "that dies is the end of every call of its client, and none of them is waited for",
    { transports: withConnections },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, stage }) {
      const { client } = yield* connect()
      const dying = yield* begin(client.Dies())
      const other = yield* begin(client.Never())
      yield* Effect.all([stage.entered("Dies"), stage.entered("Never")])
      yield* drain
      stage.release()
      for (const call of [dying, other]) assert.match(String(Cause.squash(yield* failureOf(call))), /died/)
      yield* endsWell
      assert.deepStrictEqual(stage.interrupted, ["Never"])
    })
  )

  rows(
    "that dies where defects are not fatal is the end of no other call",
    { transports: [tcp, webSocket], ways: fewWays, rpc: { disableFatalDefects: true } },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, program, stage }) {
      const { client } = yield* connect()
      const other = yield* begin(client.Job({ busy: false }))
      const dying = yield* begin(client.Dies())
      yield* Effect.all([stage.entered("Dies"), stage.entered("Job")])
      yield* drain
      stage.release()
      assert.match(String(Cause.squash(yield* failureOf(dying))), /died/)
      assert.isFalse(program.isEnded())
      stage.rest.openUnsafe()
      yield* Fiber.join(other)
      yield* endsWell
    })
  )

  rows(
    "that dies over HTTP is the end of no other request",
    { transports: [http, unframedHttp], ways: fewWays },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, stage }) {
      // A client itself drops all of its calls, on whatever connections they are.
      const [one, another] = yield* Effect.all([connect(), connect()])
      const dying = yield* begin(one.client.Dies())
      const other = yield* begin(another.client.Slow({ text: "answer" }))
      yield* Effect.all([stage.entered("Dies"), stage.entered("Slow")])
      yield* drain
      stage.release()
      assert.match(String(Cause.squash(yield* failureOf(dying))), /died/)
      assert.strictEqual(yield* Fiber.join(other), "answer")
      yield* endsWell
    })
  )

  rows(
    "that is uninterruptible is waited for, even where its client has given it up",
    { transports: [tcp, webSocket, http] },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, program, stage }) {
      const { client } = yield* connect()
      const call = yield* begin(client.Stubborn())
      yield* stage.entered("Stubborn")
      yield* drain
      yield* Effect.forkScoped(Fiber.interrupt(call))
      yield* client.Echo({ text: "after it" }).pipe(Effect.exit)
      assert.isFalse(program.isEnded())
      stage.release()
      yield* endsWell
      assert.deepStrictEqual(stage.interrupted, [])
    })
  )

  rows(
    "with discard is not waited for once it has begun",
    { transports: [tcp, webSocket] },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, stage }) {
      const { client } = yield* connect()
      yield* client.Job({ busy: false }, { discard: true })
      yield* drain
      yield* endsWell
      assert.deepStrictEqual(stage.interrupted, ["Job"])
    })
  )

  rows(
    "with discard is waited for over HTTP, where its request lasts as long",
    { transports: [http, unframedHttp], ways: fewWays },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, stage }) {
      const { client } = yield* connect()
      const call = yield* begin(client.Job({ busy: false }, { discard: true }))
      yield* stage.entered("Job")
      yield* drain
      stage.rest.openUnsafe()
      yield* Fiber.join(call)
      yield* endsWell
      assert.deepStrictEqual(stage.interrupted, [])
    })
  )

  rows(
    "with discard is waited for where it is busy, and so is what a call has handed on",
    { transports: [tcp, webSocket] },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, program, stage }) {
      const { client, isGone } = yield* connect()
      yield* client.Job({ busy: true }, { discard: true })
      yield* client.HandsOn()
      yield* drain
      yield* Effect.sleep(300)
      assert.deepStrictEqual([program.isEnded(), isGone()], [false, false])
      stage.rest.openUnsafe()
      yield* endsWell
      assert.deepStrictEqual(stage.interrupted, [])
    })
  )

  rows(
    "that is a stream and has handed on what is busy keeps its connection",
    { transports: [tcp, webSocket], ways: fewWays },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, stage }) {
      const { client, isGone } = yield* connect()
      yield* Stream.runDrain(client.StreamHandsOn())
      yield* drain
      yield* Effect.sleep(300)
      assert.isFalse(isGone())
      stage.rest.openUnsafe()
      yield* endsWell
      assert.deepStrictEqual(stage.interrupted, [])
    })
  )

  rows(
    "without an answer is waited for where it is busy, and not otherwise",
    { transports: [tcp, webSocket], ways: fewWays },
    Effect.fnUntraced(function* ({ drain, endsWell, program, stage, wire }) {
      const peer = yield* wire
      const notification = { id: "", isNotification: true }
      peer.send(request("Job", { busy: true }, notification), request("Never", null, notification))
      yield* Effect.all([stage.entered("Job"), stage.entered("Never")])
      yield* drain
      yield* Effect.sleep(300)
      assert.isFalse(program.isEnded())
      stage.rest.openUnsafe()
      yield* endsWell
      assert.deepStrictEqual(stage.interrupted, ["Never"])
      assert.deepStrictEqual(peer.heard, [])
    })
  )

  rows(
    "is answered where calls wait for their turn",
    { transports: [tcp, webSocket, http], rpc: { concurrency: 1 } },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, stage }) {
      const { client } = yield* connect()
      const calls = yield* Effect.forEach(range(1, 5), (n) => begin(client.Slow({ text: `${n}` })))
      yield* stage.entered("Slow")
      yield* drain
      stage.release()
      const answers = yield* Effect.forEach(calls, Fiber.join)
      assert.deepStrictEqual(
        answers,
        range(1, 5).map((n) => `${n}`)
      )
      yield* endsWell
    })
  )

  rows(
    "with a tag that nobody knows fails, and holds nothing",
    { transports: [tcp, webSocket] },
    Effect.fnUntraced(function* ({ drain, endsWell, transport, wire }) {
      const peer = yield* wire
      const unknown = request("Unknown")
      yield* drain
      peer.send(unknown)
      assert.strictEqual((yield* peer.exit(unknown.id))._tag, "Failure")
      assert.strictEqual((yield* peer.gone).how, goodbye(transport))
      yield* endsWell
    })
  )

  const malformed: ReadonlyArray<readonly [string, (peer: Wire) => void]> = [
    ["is no JSON", (peer) => peer.raw("nonsense\n")],
    ["has an unknown kind", (peer) => peer.send({ _tag: "Nonsense" })],
    ["has no id", (peer) => peer.send({ ...request("Echo", { text: "x" }), id: undefined })],
    ["has an id that is none", (peer) => peer.send({ ...request("Echo", { text: "x" }), id: {} })]
  ]
  for (const [what, send] of malformed) {
    rows(
      `that ${what} is the end of every call of its client, and holds nothing`,
      { transports: [tcp, webSocket], ways: fewWays },
      Effect.fnUntraced(function* ({ drain, endsWell, stage, transport, wire }) {
        const peer = yield* wire
        const other = request("Slow", { text: "x" })
        peer.send(other)
        yield* stage.entered("Slow")
        yield* drain
        send(peer)
        yield* peer.hearing("Defect")
        stage.release()
        assert.strictEqual((yield* peer.gone).how, goodbye(transport))
        yield* endsWell
      })
    )
  }

  rows(
    "with arguments that cannot be read fails, and holds nothing",
    { transports: [tcp, webSocket], ways: fewWays },
    Effect.fnUntraced(function* ({ drain, endsWell, transport, wire }) {
      const peer = yield* wire
      const bad = request("Echo", { text: 1 })
      yield* drain
      peer.send(bad)
      assert.strictEqual((yield* peer.exit(bad.id))._tag, "Failure")
      assert.strictEqual((yield* peer.gone).how, goodbye(transport))
      yield* endsWell
    })
  )

  rows(
    "with the id of another one is the end of its connection, and holds nothing",
    { transports: [tcp, webSocket], ways: fewWays },
    Effect.fnUntraced(function* ({ drain, ends, stage, wire }) {
      const peer = yield* wire
      const call = request("Never")
      peer.send(call)
      yield* stage.entered("Never")
      yield* drain
      peer.send(call)
      yield* peer.gone
      yield* ends
    })
  )

  rows(
    "that had been sent when the drain began is answered, even where no connection is to be waited for",
    { transports: [tcp, webSocket], listener: { quietPeriod: 0 } },
    Effect.fnUntraced(function* ({ endsWell, program, stage, wire }) {
      const peers = yield* Effect.forEach(range(1, 5), () => wire)
      const calls = range(1, 3).map((n) => request("Work", { text: `${n}`, millis: 10 }))
      for (const peer of peers) peer.send(...calls)
      program.begin()
      for (const peer of peers) {
        for (const { id, payload } of calls) {
          const { text } = payload as { readonly text: string }
          assert.deepStrictEqual(yield* peer.exit(id), { _tag: "Success", value: text })
        }
      }
      yield* endsWell
      assert.lengthOf(stage.executed, 15)
    })
  )

  rows(
    "on a connection that had not been accepted when the drain began is answered",
    { transports: [tcp], listener: { quietPeriod: 200 } },
    Effect.fnUntraced(function* ({ endsWell, program, stage, wire }) {
      // It runs by now, and does not only listen.
      yield* wire
      // All of them in one turn of the event loop: the server accepts about one in each.
      const opened = yield* Latch.make()
      const peers = range(1, 20).map(() => openTcp(stage, () => opened.openUnsafe()))
      yield* Effect.addFinalizer(() => Effect.sync(() => peers.forEach((peer) => peer.destroy())))
      const calls = peers.map(() => request("Work", { text: "x", millis: 0 }))
      peers.forEach((peer, index) => peer.send(calls[index]))
      yield* opened.await
      program.begin()
      for (const [index, peer] of peers.entries()) {
        assert.deepStrictEqual(yield* peer.exit(calls[index]!.id), { _tag: "Success", value: "x" })
      }
      yield* endsWell
    })
  )

  rows(
    "that comes together with a ping as the time of its connection has come is answered",
    { transports: [tcp], ways: fewWays, listener: { quietPeriod: 100 } },
    Effect.fnUntraced(function* ({ drain, endsWell, wire }) {
      const peer = yield* wire
      const call = request("Echo", { text: "x" })
      yield* drain
      peer.send({ _tag: "Ping" }, { _tag: "Ping" }, call)
      assert.deepStrictEqual(yield* peer.exit(call.id), { _tag: "Success", value: "x" })
      yield* endsWell
    })
  )
})

describe.concurrent("a stream", () => {
  rows(
    "ends with the drain, with all that was sent, and without a failure",
    { transports: everyTransport },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, stage }) {
      const { client } = yield* connect()
      const call = yield* collect(client.Ticks())
      yield* stage.entered("Ticks")
      yield* drain
      const ticks = yield* Fiber.join(call)
      assert.deepStrictEqual(ticks, range(0, stage.sent!))
      yield* endsWell
      assert.deepStrictEqual(stage.interrupted, ["Ticks"])
    })
  )

  rows(
    'fails at its client with the end of the connection where streams is "fail", and can be retried',
    { transports: everyTransport, drain: { streams: "fail" } },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, stage }) {
      const { client } = yield* connect()
      const sent: Array<number> = []
      const call = yield* begin(Stream.runForEach(client.Ticks(), (tick) => Effect.sync(() => sent.push(tick))))
      yield* stage.entered("Ticks")
      yield* drain
      assertDisconnected(yield* failureOf(call))
      yield* endsWell
      assert.deepStrictEqual(stage.interrupted, ["Ticks"])
      assert.deepStrictEqual(sent, range(0, stage.sent!).slice(0, sent.length))
    })
  )

  rows(
    'is waited for to its end where streams is "wait"',
    { transports: everyTransport, drain: { streams: "wait" } },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, program, stage }) {
      const { client } = yield* connect()
      const call = yield* collect(client.Count({ to: 100 }))
      yield* stage.entered("Count")
      yield* drain
      assert.isFalse(program.isEnded())
      stage.release()
      assert.deepStrictEqual(yield* Fiber.join(call), range(1, 100))
      yield* endsWell
    })
  )

  rows(
    "ends or is waited for as a function says of its tag",
    {
      transports: [tcp, webSocket, http],
      ways: fewWays,
      drain: { streams: (tag) => (tag === "Ticks" ? "end" : "wait") }
    },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, stage }) {
      const { client } = yield* connect()
      const ending = yield* collect(client.Ticks())
      const waited = yield* collect(client.Count({ to: 10 }))
      yield* Effect.all([stage.entered("Ticks"), stage.entered("Count")])
      yield* drain
      assert.deepStrictEqual(yield* Fiber.join(ending), range(0, stage.sent!))
      stage.release()
      assert.deepStrictEqual(yield* Fiber.join(waited), range(1, 10))
      yield* endsWell
    })
  )

  rows(
    "whose finalizer takes its time is waited for, and ends after that",
    { transports: [tcp, webSocket, http] },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, program, stage }) {
      const { client } = yield* connect()
      const call = yield* collect(client.SlowEnd())
      yield* stage.entered("SlowEnd")
      yield* drain
      yield* stage.entered("end")
      yield* Effect.sleep(200)
      assert.deepStrictEqual([program.isEnded(), call.pollUnsafe()], [false, undefined])
      stage.rest.openUnsafe()
      assert.deepStrictEqual(yield* Fiber.join(call), range(0, stage.sent!))
      yield* endsWell
    })
  )

  rows(
    "ends once the busy section in it has ended",
    { transports: [tcp, webSocket, http] },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, program, stage }) {
      const { client } = yield* connect()
      const call = yield* collect(client.BusyTicks())
      const other = yield* collect(client.Ticks())
      yield* Effect.all([stage.entered("busy"), stage.entered("Ticks")])
      yield* drain
      yield* Fiber.join(other)
      yield* Effect.sleep(200)
      assert.deepStrictEqual([program.isEnded(), call.pollUnsafe()], [false, undefined])
      stage.rest.openUnsafe()
      const ticks = yield* Fiber.join(call)
      // It ends with its section.
      assert.isAtMost(ticks.length, 4)
      assert.deepStrictEqual(stage.executed, ["busy"])
      yield* endsWell
    })
  )

  rows(
    "that goes wrong as it ends fails",
    { transports: [tcp, binaryWebSocket, http], ways: fewWays },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, stage }) {
      const { client } = yield* connect()
      const call = yield* collect(client.FailingEnd())
      yield* stage.entered("FailingEnd")
      yield* drain
      assert.match(Cause.pretty(yield* failureOf(call)), /died in the end/)
      yield* endsWell
    })
  )

  rows(
    "that is uninterruptible is waited for, and whole",
    { transports: [tcp, webSocket, http] },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, program, stage }) {
      const { client } = yield* connect()
      const call = yield* collect(client.StubbornCount({ to: 10 }))
      yield* stage.entered("StubbornCount")
      yield* drain
      assert.isFalse(program.isEnded())
      stage.release()
      assert.deepStrictEqual(yield* Fiber.join(call), range(1, 10))
      yield* endsWell
    })
  )

  rows(
    "that is called during the drain ends as soon as it has begun, without a failure",
    { transports: everyTransport, listener: { quietPeriod: long } },
    Effect.fnUntraced(function* ({ connect, drain, endsWell }) {
      const scope = yield* Scope.make()
      const { client } = yield* Scope.provide(connect(), scope)
      yield* client.Echo({ text: "x" })
      yield* drain
      const ticks = yield* Stream.runCollect(client.Ticks())
      assert.isAtMost(ticks.length, 1)
      yield* Scope.close(scope, Exit.void)
      yield* endsWell
    })
  )

  rows(
    "whose client does not acknowledge ends with the drain",
    { transports: [tcp, webSocket] },
    Effect.fnUntraced(function* ({ drain, endsWell, wire }) {
      const peer = yield* wire
      const call = request("Ticks")
      peer.send(call)
      yield* peer.hearing("Chunk", call.id)
      yield* drain
      assert.deepStrictEqual(yield* peer.exit(call.id), { _tag: "Success", value: null })
      assert.deepStrictEqual(
        peer.heard.map(({ _tag }) => _tag),
        ["Chunk", "Exit"]
      )
      yield* endsWell
    })
  )
})

describe.concurrent("a client that calls without pause", () => {
  rows(
    "has each call that was executed answered, and is let go all the same",
    { transports: withConnections, listener: { quietPeriod: 200, closeTimeout: long } },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, stage }) {
      const { client } = yield* connect()
      const load = new Load()
      const loops = yield* Effect.forEach(range(1, 4), (n) => begin(load.call(client, `${n}`, () => n)))
      yield* load.answers(50)
      const begun = performance.now()
      yield* drain
      yield* Effect.forEach(loops, Fiber.join)
      // It had its time before it was let go.
      assert.isAtLeast(load.lastAt - begun, 150)
      load.check(stage)
      yield* endsWell
      assert.isBelow(performance.now() - begun, 5000)
    })
  )

  rows(
    "is served for as long as a call from before the drain goes on, and for quietPeriod after that",
    { transports: [tcp, webSocket], ways: fewWays, listener: { quietPeriod: 200, closeTimeout: long } },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, stage }) {
      const { client } = yield* connect()
      const early = yield* begin(client.Slow({ text: "early" }))
      yield* stage.entered("Slow")
      const load = new Load()
      const loop = yield* begin(load.call(client, "late", () => 1))
      yield* drain
      yield* Effect.sleep(500)
      const released = performance.now()
      stage.release()
      assert.strictEqual(yield* Fiber.join(early), "early")
      yield* Fiber.join(loop)
      assert.isAtLeast(load.lastAt - released, 150)
      load.check(stage)
      yield* endsWell
    })
  )
})

/** Calls without end, and what became of each. */
class Load {
  private readonly answered = new Set<string>()
  private readonly failed = new Set<string>()
  private readonly wrong: Array<string> = []
  private readonly waiting = new Set<() => void>()
  /** When the last answer came. */
  lastAt = 0

  /** Calls until a call fails, each time after a thought. */
  readonly call = Effect.fnUntraced(
    { self: this },
    function* (this: Load, client: Client, name: string, millis: () => number, thought: () => number = () => 0) {
      for (let n = 0; ; n++) {
        const text = `${name}-${n}`
        const pause = thought()
        if (pause > 0) yield* Effect.sleep(pause)
        const exit = yield* Effect.exit(client.Work({ text, millis: millis() }))
        if (Exit.isFailure(exit)) {
          assertDisconnected(exit.cause)
          return void this.failed.add(text)
        }
        this.answered.add(text)
        this.lastAt = performance.now()
        if (exit.value !== text) this.wrong.push(`${text}: ${exit.value}`)
        for (const look of Array.from(this.waiting)) look()
      }
    }
  )

  /** Completes when as many have come. */
  answers(count: number): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      const look = () => {
        if (this.answered.size < count) return
        this.waiting.delete(look)
        resume(Effect.void)
      }
      this.waiting.add(look)
      look()
      return Effect.sync(() => this.waiting.delete(look))
    })
  }

  /** What was executed has been answered, once, and nothing else has. */
  check({ executed }: Stage): void {
    assert.deepStrictEqual(this.wrong, [])
    assert.deepStrictEqual(
      executed.filter((text) => !this.answered.has(text)),
      [],
      "executed, and not answered"
    )
    assert.strictEqual(executed.length, this.answered.size)
  }
}

describe.concurrent("a big answer", () => {
  rows(
    "goes to a slow reader to its last byte",
    { transports: [tcp], ways: fewWays, listener: { closeTimeout: 200 } },
    Effect.fnUntraced(function* ({ drain, endsWell, stage, wire }) {
      const peer = yield* wire
      const call = request("Big")
      peer.send(call)
      yield* stage.entered("Big")
      yield* drain
      peer.pause()
      stage.release()
      yield* Effect.sleep(1000)
      peer.resume()
      assert.deepStrictEqual(yield* peer.exit(call.id), { _tag: "Success", value: big })
      yield* endsWell
    })
  )

  rows(
    "goes to a reader that takes its time over HTTP",
    { transports: [http, unframedHttp], ways: fewWays, listener: { closeTimeout: 200 } },
    Effect.fnUntraced(function* ({ drain, endsWell, stage, transport }) {
      const call = JSON.stringify(request("Big"))
      const contentType = transport === http ? "application/x-ndjson" : "application/json"
      const { body, peer } = yield* post(stage, `${call}\n`, contentType)
      yield* stage.entered("Big")
      yield* drain
      peer.pause()
      stage.release()
      yield* Effect.sleep(1000)
      peer.resume()
      assert.isAtLeast((yield* body).length, big.length)
      yield* endsWell
    })
  )
})

/** A request as an HTTP client without a library makes it. */
const post = Effect.fnUntraced(function* (stage: Stage, content: string, contentType: string) {
  const peer = yield* Effect.acquireRelease(
    Effect.sync(() => connect({ host, port: portOf(stage) })),
    (socket) => Effect.sync(() => socket.destroy())
  )
  const done = yield* Deferred.make<string>()
  let text = ""
  peer.setEncoding("latin1").on("data", (chunk: string) => {
    text += chunk
  })
  peer.on("end", () => Deferred.doneUnsafe(done, Exit.succeed(text)))
  peer.write(
    `POST /rpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: ${contentType}\r\nContent-Length: ${content.length}\r\n\r\n${content}`
  )
  return { peer, body: Deferred.await(done) }
})

describe.concurrent("a call that never ends", () => {
  const ways = Ways.supervised
  rows(
    "is cut at the deadline, and counted, and the exit code is 1",
    { transports: [tcp, webSocket, http], ways, limits: { timeout: 400, forceTimeout: 1000 } },
    Effect.fnUntraced(function* ({ connect, drain, program, stage }) {
      const { client } = yield* connect()
      const call = yield* begin(client.Never())
      yield* stage.entered("Never")
      const begun = performance.now()
      yield* drain
      assertDisconnected(yield* failureOf(call))
      const { at, code, report } = yield* program.ended
      assert.deepStrictEqual([code, report?.forced], [1, true])
      const [{ abandoned, cut, cutWork }] = report!.listeners as [Kms.Report["listeners"][number]]
      assert.deepStrictEqual([abandoned, cut, cutWork.length], [0, 1, 1])
      assert.isBelow(at - begun, 10_000)
      assert.deepStrictEqual(stage.interrupted, ["Never"])
    })
  )

  rows(
    "is cut by the limit of its listener, and counted",
    { transports: [tcp, webSocket, http], listener: { drainTimeout: 300 } },
    Effect.fnUntraced(function* ({ connect, drain, program, stage, way }) {
      const { client } = yield* connect()
      const call = yield* begin(client.Never())
      const stream = yield* collect(client.Count({ to: 10 }))
      yield* Effect.all([stage.entered("Never"), stage.entered("Count")])
      yield* drain
      assertDisconnected(yield* failureOf(call))
      if (stream.pollUnsafe() === undefined) yield* Fiber.await(stream)
      const { code, log, report } = yield* program.ended
      if (way.supervised) {
        assert.deepStrictEqual([code, report?.forced, report?.listeners[0]?.forced], [1, false, true])
        assert.strictEqual(report?.listeners[0]?.abandoned, 0)
      } else assert.match(log.join("\n"), /was cut after .* cut: /)
    })
  )

  rows(
    "and cannot be interrupted is given up in the end",
    { transports: [tcp, webSocket], ways: [launchSignal], limits: { timeout: 300, forceTimeout: 800 } },
    Effect.fnUntraced(function* ({ connect, drain, program, stage }) {
      const { client } = yield* connect()
      const call = yield* begin(client.Stubborn())
      yield* stage.entered("Stubborn")
      yield* drain
      assertDisconnected(yield* failureOf(call))
      const { code, report } = yield* program.ended
      assert.deepStrictEqual([code, report?.forced], [1, true])
      stage.release()
    })
  )

  rows(
    "is cut by the limit of a shutdown where the connections are not ours",
    { transports: [foreign], ways: [launchSignal], limits: { timeout: 300, forceTimeout: 1000 } },
    Effect.fnUntraced(function* ({ connect, program, stage }) {
      const { client } = yield* connect()
      const call = yield* begin(client.Never())
      yield* stage.entered("Never")
      program.begin()
      yield* failureOf(call)
      yield* program.ended
      assert.deepStrictEqual(stage.interrupted, ["Never"])
    })
  )
})

describe.concurrent("over a server that is not ours", () => {
  rows(
    "calls are answered and streams end before the RpcServer stops",
    { transports: [foreign] },
    Effect.fnUntraced(function* ({ connect, endsWell, program, stage }) {
      const [one, another] = yield* Effect.all([connect(), connect()])
      const call = yield* begin(one.client.Slow({ text: "answer" }))
      const stream = yield* collect(one.client.Ticks())
      yield* another.client.Echo({ text: "x" })
      yield* Effect.all([stage.entered("Slow"), stage.entered("Ticks")])
      program.begin()
      assert.deepStrictEqual(yield* Fiber.join(stream), range(0, stage.sent!))
      assert.isFalse(program.isEnded())
      // A client that has been answered is not served any longer, and hears of it; one that waits for an answer is.
      const refused = yield* begin(another.client.Work({ text: "refused", millis: 0 }))
      assert.isTrue(Cause.hasInterruptsOnly(yield* failureOf(refused)))
      assert.strictEqual(yield* one.client.Work({ text: "taken", millis: 0 }), "taken")
      assert.deepStrictEqual(stage.executed, ["taken"])
      stage.release()
      assert.strictEqual(yield* Fiber.join(call), "answer")
      yield* endsWell
      assert.deepStrictEqual(stage.interrupted, ["Ticks"])
    })
  )

  rows(
    'a stream is waited for where streams is "wait"',
    { transports: [foreign], drain: { streams: "wait" } },
    Effect.fnUntraced(function* ({ connect, endsWell, program, stage }) {
      const { client } = yield* connect()
      const call = yield* collect(client.Count({ to: 10 }))
      yield* stage.entered("Count")
      program.begin()
      yield* Effect.sleep(100)
      assert.isFalse(program.isEnded())
      stage.release()
      assert.deepStrictEqual(yield* Fiber.join(call), range(1, 10))
      yield* endsWell
    })
  )

  rows(
    "clients that call without pause do not keep the RpcServer",
    { transports: [foreign] },
    Effect.fnUntraced(function* ({ connect, ends, program, stage }) {
      const load = new Load()
      const loops = yield* Effect.forEach(range(1, 5), (n) =>
        Effect.flatMap(connect(), ({ client }) => begin(Effect.exit(load.call(client, `${n}`, () => n))))
      )
      yield* load.answers(20)
      program.begin()
      const begun = performance.now()
      yield* Effect.forEach(loops, Fiber.join)
      load.check(stage)
      yield* ends
      assert.isBelow(performance.now() - begun, 3000)
    })
  )
})

describe.concurrent("an RpcServer", () => {
  /** One that does not run before `gate` is open. */
  const late = (stage: Stage, transport: Transport, gate: Latch.Latch) =>
    transport.serve(
      stage,
      RpcServer.layer(Api).pipe(
        Layer.provide(stage.handlers),
        Layer.provide(Layer.effectDiscard(gate.await))
      ) as Server_,
      { listener: { quietPeriod: 100 } }
    )

  /** As soon as it listens. */
  const listens = (stage: Stage) =>
    Effect.callback<void>((resume) => {
      let handle: NodeJS.Immediate
      const look = () => {
        if (stage.server === undefined) handle = setImmediate(look)
        else resume(Effect.void)
      }
      look()
      return Effect.sync(() => clearImmediate(handle))
    })

  for (const way of everyWay) {
    it.live(`${way.name}: answers what came before it ran`, () =>
      Effect.gen(function* () {
        const stage = new Stage()
        const gate = yield* Latch.make()
        const starting = yield* begin(start(stage, tcp, way, late(stage, tcp, gate)))
        yield* listens(stage)
        const { client } = yield* connectTo(stage, tcp, 5000)
        const call = yield* begin(client.Slow({ text: "early" }))
        const gone = yield* Scope.make()
        const other = yield* Scope.provide(connectTo(stage, tcp, 5000), gone)
        yield* begin(other.client.Never())
        // Both have come by then, as far as that can be known from here.
        yield* Effect.sleep(50)
        yield* Scope.close(gone, Exit.void)
        yield* gate.open
        const { drain, ends } = yield* Fiber.join(starting)
        yield* stage.entered("Slow")
        yield* drain
        stage.release()
        assert.strictEqual(yield* Fiber.join(call), "early")
        yield* ends
      })
    )

    it.live(`${way.name}: does not wait for a client that came before it ran, and had gone by then`, () =>
      Effect.gen(function* () {
        const stage = new Stage()
        const gate = yield* Latch.make()
        const starting = yield* begin(start(stage, foreign, way, late(stage, foreign, gate)))
        yield* listens(stage)
        const gone = yield* Scope.make()
        const { client } = yield* Scope.provide(connectTo(stage, foreign, 5000), gone)
        yield* begin(client.Never())
        yield* Effect.sleep(50)
        yield* Scope.close(gone, Exit.void)
        yield* Effect.sleep(50)
        yield* gate.open
        const { ends, program } = yield* Fiber.join(starting)
        program.begin()
        const begun = performance.now()
        yield* ends
        assert.isBelow(performance.now() - begun, 3000)
      })
    )
  }

  it.live("and the very same protocol without a drain do not know of each other", () =>
    Effect.gen(function* () {
      const [wrapped, bare] = [new Stage(), new Stage()]
      const server = (stage: Stage) => RpcServer.layer(Api).pipe(Layer.provide(stage.handlers)) as Server_
      const protocol = RpcServer.layerProtocolSocketServer
      const both = Layer.merge(
        tcp.serve(wrapped, server(wrapped), { listener: { quietPeriod: 100 } }),
        server(bare).pipe(
          Layer.provide(protocol),
          Layer.merge(located(bare)),
          Layer.provide(KmsTcp.layer({ host, port: 0, onDrain: "interrupt" }))
        )
      )
      const { drain, program } = yield* start(wrapped, tcp, launchSignal, both)
      const one = yield* connectTo(wrapped, tcp, 5000)
      const other = yield* connectTo(bare, tcp, 5000)
      yield* begin(other.client.Never())
      const call = yield* begin(one.client.Slow({ text: "answer" }))
      yield* Effect.all([wrapped.entered("Slow"), bare.entered("Never")])
      yield* drain
      yield* other.gone
      wrapped.release()
      assert.strictEqual(yield* Fiber.join(call), "answer")
      yield* program.ended
    })
  )

  it.live("that closes while its listener goes on for another one drains only its own connections", () =>
    Effect.gen(function* () {
      const [first, second] = [new Stage(), new Stage()]
      const listener = yield* Layer.build(KmsTcp.layer({ host, port: 0, quietPeriod: 100 }))
      const serve = (stage: Stage) =>
        RpcServer.layer(Api).pipe(
          Layer.provide(stage.handlers),
          Layer.provide(RpcServer.layerProtocolSocketServer.pipe(KmsRpc.drain(Api))),
          Layer.merge(located(stage)),
          Layer.provide(Layer.succeedContext(listener)),
          Layer.provide(tcp.serialization)
        )
      yield* Layer.build(serve(first))
      const old = yield* connectTo(first, tcp, 5000)
      assert.strictEqual(yield* old.client.Echo({ text: "old" }), "old")
      const scope = yield* Scope.make()
      yield* Layer.buildWithScope(serve(second), scope)
      const peer = yield* connectTo(second, tcp, 5000)
      const call = yield* begin(peer.client.Slow({ text: "answer" }))
      const stream = yield* collect(peer.client.Ticks())
      yield* Effect.all([second.entered("Slow"), second.entered("Ticks")])
      const closing = yield* begin(Scope.close(scope, Exit.void))
      assert.deepStrictEqual(yield* Fiber.join(stream), range(0, second.sent!))
      second.release()
      assert.strictEqual(yield* Fiber.join(call), "answer")
      yield* Fiber.join(closing)
      assert.deepStrictEqual(second.interrupted, ["Ticks"])
      yield* peer.gone
      assert.strictEqual(yield* old.client.Echo({ text: "still" }), "still")
      const fresh = yield* connectTo(first, tcp, 5000)
      assert.strictEqual(yield* fresh.client.Echo({ text: "new" }), "new")
    })
  )

  it.live("that closes while an HTTP listener goes on answers its calls, and leaves other servers alone", () =>
    Effect.gen(function* () {
      const stage = new Stage()
      const other = yield* Layer.build(KmsTcp.layer({ host, port: 0 }))
      const { address } = Context.get(other, SocketServer.SocketServer)
      let router!: HttpRouter.HttpRouter
      const routes = HttpRouter.use((self) => Effect.sync(() => void (router = self)))
      yield* Layer.build(
        HttpRouter.serve(routes, quiet).pipe(
          Layer.provide(KmsHttp.layer(stage.evaluate(Stages.http), { host, port: 0 }))
        )
      )
      const scope = yield* Scope.make()
      yield* RpcServer.layer(Api).pipe(
        Layer.provide(stage.handlers),
        Layer.provide(RpcServer.layerProtocolWebsocket({ path: "/rpc" }).pipe(KmsRpc.drain(Api))),
        Layer.provide(webSocket.serialization),
        Layer.provide(Layer.succeed(HttpRouter.HttpRouter)(router)),
        // It is there, but not what the calls come over.
        Layer.provide(Layer.succeedContext(other)),
        Layer.buildWithScope(scope)
      )
      const { client } = yield* connectTo(stage, webSocket, 5000)
      const call = yield* begin(client.Slow({ text: "answer" }))
      const stream = yield* collect(client.Ticks())
      yield* Effect.all([stage.entered("Slow"), stage.entered("Ticks")])
      const closing = yield* begin(Scope.close(scope, Exit.void))
      assert.deepStrictEqual(yield* Fiber.join(stream), range(0, stage.sent!))
      assert.isUndefined(closing.pollUnsafe())
      stage.release()
      assert.strictEqual(yield* Fiber.join(call), "answer")
      yield* Fiber.join(closing)
      assert(address._tag === "InetAddressV4")
      assert.isDefined(listening().find((server) => (server.address() as AddressInfo).port === address.port))
    })
  )

  for (const way of fewWays) {
    it.live(`${way.name}: ends a stream whose arguments were still being read as the drain began`, () =>
      Effect.gen(function* () {
        const stage = new Stage()
        const read = Latch.makeUnsafe()
        // Arguments that take their time.
        const slow = Schema.String.pipe(
          Schema.decodeTo(Schema.String, {
            decode: SchemaGetter.transformEffect((value: string) => {
              stage.enter("reading")
              return Effect.as(read.await, value)
            }),
            encode: SchemaGetter.passthrough()
          })
        )
        const group = RpcGroup.make(
          Rpc.make("Ticks", { payload: { slow }, success: Schema.Int, stream: true }),
          Rpc.make("Echo", { success: Schema.Void })
        )
        const server = RpcServer.layer(group).pipe(
          Layer.provide(
            group.toLayer({ Ticks: () => Stream.fromSchedule(Schedule.spaced(5)), Echo: () => Effect.void })
          ),
          Layer.provide(RpcServer.layerProtocolSocketServer.pipe(KmsRpc.drain(group))),
          Layer.merge(located(stage)),
          Layer.provide(KmsTcp.layer({ host, port: 0, quietPeriod: 50 }))
        )
        const { drain, endsWell, wire } = yield* start(stage, tcp, way, server)
        const peer = yield* wire
        const call = request("Ticks", { slow: "x" })
        peer.send(call)
        yield* stage.entered("reading")
        yield* drain
        yield* read.open
        assert.deepStrictEqual(yield* peer.exit(call.id), { _tag: "Success", value: null })
        yield* endsWell
      })
    )
  }

  it.effect.each(["never", () => "End"])("is not made where streams is none of what it may be: %s", (streams) =>
    Effect.gen(function* () {
      const drain = { streams } as unknown as KmsRpc.Options
      const exit = yield* RpcServer.layerProtocolSocketServer.pipe(
        KmsRpc.drain(Api, drain),
        Layer.provide(KmsTcp.layer({ host, port: 0 })),
        Layer.provide(tcp.serialization),
        Layer.build,
        Effect.exit
      )
      assert(Exit.isFailure(exit))
      const error = Cause.squash(exit.cause)
      assert.instanceOf(error, Kms.OptionError)
      assert.match(error.message, /^Option streams is "(never|End)"/)
    })
  )
})

describe("many clients that call without pause as the drain begins", () => {
  /** Each round is another program, its numbers drawn anew. */
  const round = Effect.fnUntraced(function* (transport: Transport, way: Ways.Way, random: () => number) {
    const listener = { quietPeriod: Math.floor(random() * 40), closeTimeout: 1000 }
    const { connect, drain, endsWell, stage } = yield* scene(transport, way, { listener })
    const load = new Load()
    const millis = () => Math.floor(random() * 4)
    // Many calls come just as the time of their connection has come.
    const thought = () => (random() < 0.7 ? 0 : random() * (listener.quietPeriod + 5))
    const loops: Array<Fiber.Fiber<void>> = []
    for (const n of range(1, 10)) {
      const { client } = yield* connect({ pingInterval: 5 })
      for (const m of range(1, 1 + Math.floor(random() * 3)))
        loops.push(yield* begin(load.call(client, `${n}-${m}`, millis, thought)))
      if (random() < 0.3) loops.push(yield* begin(Effect.asVoid(Effect.exit(Stream.runDrain(client.Ticks())))))
    }
    yield* load.answers(20 + Math.floor(random() * 50))
    yield* drain
    // No call is left without an end.
    yield* Effect.forEach(loops, Fiber.join, { discard: true })
    load.check(stage)
    yield* endsWell
  }, Effect.scoped)

  for (const transport of [tcp, webSocket, binaryTcp]) {
    it.live(`${transport.name}: whatever was executed is answered, and whatever was not fails`, () =>
      Effect.gen(function* () {
        for (const n of range(1, 8)) {
          const seed = Math.floor(Math.random() * 2 ** 32)
          const way = everyWay[n % everyWay.length]!
          yield* round(transport, way, seeded(seed)).pipe(
            Effect.onError(() => Effect.sync(() => console.log(`round ${n} over ${transport.name}, seed ${seed}`)))
          )
        }
      })
    )
  }
})

/** Random numbers that can be had again (mulberry32). */
const seeded = (seed: number) => () => {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
}

describe("the calls of a protocol", () => {
  /** A protocol without a network, on a carrier that notes what it is told. */
  const make = Effect.fnUntraced(function* (
    drained: Effect.Effect<void> = Effect.void,
    on?: Carrier,
    sending: Effect.Effect<void> = Effect.void
  ) {
    const sent: Array<FromServerEncoded> = []
    const told: Array<string> = []
    const disconnects = yield* Queue.unbounded<number>()
    let receive!: Parameters<RpcServer.Protocol["Service"]["run"]>[0]
    const inner = RpcServer.Protocol.of({
      run: (f) => {
        receive = f
        return Effect.never
      },
      disconnects,
      send: (_, response) =>
        Effect.andThen(
          sending,
          Effect.sync(() => void sent.push(response))
        ),
      end: () => Effect.void,
      clientIds: Effect.succeed(new Set()),
      initialMessage: Effect.succeedNone,
      supportsAck: true,
      supportsTransferables: false,
      supportsSpanPropagation: true,
      supportsNotifications: true,
      codecFor: Schema.toCodecJson as RpcSerialization.CodecFor
    })
    const listeners = new Set<() => void>()
    // As far as calls ask it.
    const carrier = {
      count: () => void told.push("count"),
      engage: () => void told.push("engage"),
      settle: () => void told.push("settle"),
      hear: () => void told.push("hear"),
      isEnding: false,
      onEnding: (listener) => {
        listeners.add(listener)
        return () => listeners.delete(listener)
      }
    } as Partial<Carrier> as Carrier
    const success = { _tag: "Success", value: null } as const
    const calls = yield* Calls.make(inner, (tag) => ({
      ends: tag === "Ticks",
      end: tag === "Ticks" ? success : undefined,
      refused: { _tag: "Failure", cause: [] },
      isInterruption: () => false
    }))
    const protocol = calls.protocol(drained)
    const say = (message: FromClientEncoded, clientId = 1) =>
      Effect.provideService(
        Effect.suspend(() => receive(clientId, message)),
        CurrentCarrier,
        on ?? carrier
      )
    return { protocol, calls, disconnects, say, sent, told, listeners }
  })

  it.effect("of a client that has gone are counted as ended once, though an answer is on its way", () =>
    Effect.gen(function* () {
      const sending = Latch.makeUnsafe()
      const { calls, disconnects, protocol, say } = yield* make(Effect.void, undefined, sending.await)
      yield* begin(protocol.run(() => Effect.void))
      const answer = (clientId: number) =>
        protocol.send(clientId, { _tag: "Exit", requestId: 1, exit: { _tag: "Success", value: 1 } })
      yield* say({ ...request("Echo"), id: 1 } as FromClientEncoded, 1)
      yield* say({ ...request("Echo"), id: 1 } as FromClientEncoded, 2)
      const first = yield* begin(answer(1))
      yield* Queue.offer(disconnects, 1)
      assert.strictEqual(yield* Queue.take(protocol.disconnects), 1)
      yield* sending.open
      yield* Fiber.join(first)
      const finished = yield* begin(calls.finish)
      yield* Effect.yieldNow
      assert.isUndefined(finished.pollUnsafe())
      yield* answer(2)
      yield* Fiber.join(finished)
    })
  )

  it.effect("are told to their carrier from their beginning to their end", () =>
    Effect.gen(function* () {
      const { protocol, say, told } = yield* make()
      const received: Array<string> = []
      yield* begin(protocol.run((_, { _tag }) => Effect.sync(() => void received.push(_tag))))
      yield* say({ ...request("Echo"), id: 1 } as FromClientEncoded)
      yield* say({ _tag: "Ack", requestId: 1 })
      assert.deepStrictEqual(told, ["count", "engage"])
      yield* protocol.send(1, { _tag: "Chunk", requestId: 1, values: [1] })
      yield* protocol.send(1, { _tag: "Exit", requestId: 1, exit: { _tag: "Success", value: 1 } })
      yield* protocol.send(1, { _tag: "Exit", requestId: 1, exit: { _tag: "Success", value: 1 } })
      assert.deepStrictEqual(told, ["count", "engage", "settle"])
      assert.deepStrictEqual(received, ["Request", "Ack"])
    })
  )

  it.effect("are not what a ping is, and its carrier hears of it once it has been answered", () =>
    Effect.gen(function* () {
      const { protocol, say, told } = yield* make()
      const pong = yield* Latch.make()
      yield* begin(protocol.run(() => pong.await))
      const ping = yield* begin(say({ _tag: "Ping" }))
      assert.deepStrictEqual(told, [])
      yield* pong.open
      yield* Fiber.join(ping)
      assert.deepStrictEqual(told, ["hear"])
    })
  )

  it.effect("of a client that has gone are forgotten, and nobody is told of them", () =>
    Effect.gen(function* () {
      const { calls, disconnects, listeners, protocol, say, told } = yield* make()
      yield* begin(protocol.run(() => Effect.void))
      yield* say({ ...request("Echo"), id: 1 } as FromClientEncoded)
      const finished = yield* begin(calls.finish)
      yield* Effect.yieldNow
      assert.isUndefined(finished.pollUnsafe())
      assert.strictEqual(listeners.size, 1)
      yield* Queue.offer(disconnects, 1)
      // The server hears of it, too.
      assert.strictEqual(yield* Queue.take(protocol.disconnects), 1)
      yield* Fiber.join(finished)
      assert.strictEqual(listeners.size, 0)
      assert.deepStrictEqual(told, ["count", "engage"])
    })
  )

  it.effect("are received until the server may stop, and by the next one that runs", () =>
    Effect.gen(function* () {
      const drained = yield* Latch.make()
      const { calls, protocol, say, sent } = yield* make(drained.await)
      const received: Array<string> = []
      const run = (name: string) =>
        begin(protocol.run((_, { _tag }) => Effect.sync(() => void received.push(name, _tag))))
      const call = (tag: string, id: number, clientId = 1) =>
        say({ ...request(tag), id } as FromClientEncoded, clientId)
      const first = yield* run("first")
      const stopping = yield* begin(Fiber.interrupt(first))
      yield* call("Echo", 1)
      assert.isUndefined(stopping.pollUnsafe())
      yield* protocol.send(1, { _tag: "Exit", requestId: 1, exit: { _tag: "Success", value: 1 } })
      yield* calls.finish
      yield* call("Echo", 2)
      assert.deepStrictEqual(sent.at(-1), { _tag: "Exit", requestId: 2, exit: { _tag: "Failure", cause: [] } })
      yield* drained.open
      yield* Fiber.join(stopping)
      yield* run("second")
      yield* call("Ticks", 3)
      yield* call("Ticks", 4, 2)
      // They are not asked to end.
      assert.deepStrictEqual(received, ["first", "Request", "second", "Request", "second", "Request"])
    })
  )

  it.effect("are taken for as long as what had been sent may still wait to be read, and not any longer", () =>
    Effect.gen(function* () {
      const turned = yield* Latch.make()
      const fiber = yield* begin(Effect.never)
      // A connection as far as it is asked here.
      const nothing = () => {}
      const connection = {
        owner: { timing: { quietPeriod: 0 }, host: { turn: turned.await } },
        stir: nothing,
        rest: nothing,
        hear: nothing,
        schedule: nothing
      } as unknown as Connection
      const handler = new Handler(fiber, connection, true)
      const { protocol, say } = yield* make(Effect.void, handler)
      const received: Array<unknown> = []
      yield* begin(protocol.run((_, message) => Effect.sync(() => void received.push((message as { id: unknown }).id))))
      const call = (id: number) => say({ ...request("Echo"), id } as FromClientEncoded)
      yield* call(1)
      yield* protocol.send(1, { _tag: "Exit", requestId: 1, exit: { _tag: "Success", value: 1 } })
      handler.end()
      yield* call(2)
      yield* call(3)
      yield* turned.open
      yield* Effect.yieldNow
      yield* call(4)
      assert.deepStrictEqual(received, [1, 2, 3])
      assert.strictEqual(handler.inFlight, 2)
    })
  )
})
