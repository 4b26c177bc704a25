/**
 * Every kind of listener with the same application on it (`WorkStage.work`), and what is to be expected of each: how a peer
 * speaks to it, when it lets go of a connection, and what it says then. The rows of `peers.test.ts` are played against all
 * of them.
 */
import { Effect, Fiber, Layer, Option, Schema } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { Rpc, RpcGroup, RpcSerialization, RpcServer } from "effect/rpc"
import { type Socket, SocketServer } from "effect/socket"
import { Kms, KmsHijack, KmsHttp, KmsRpc, KmsTcp, KmsUnix } from "effect-kms"
import { createServer, type IncomingMessage } from "node:http"
import { createServer as createHttps } from "node:https"
import type { Server } from "node:net"
import type { Duplex } from "node:stream"
import { type WebSocket, WebSocketServer } from "ws"
import { cert, key } from "./certificate.ts"
import { serverAt } from "./ground.ts"
import * as Stages from "./stage.ts"
import * as Talks from "./talks.ts"
import * as Ways from "./ways.ts"
import { isLast, type Work, type WorkStage, works } from "./work.ts"

/** Options that every kind of listener has, as far as it has them; durations in milliseconds. */
export interface Options {
  readonly quietPeriod?: number
  readonly closeTimeout?: number
  readonly drainTimeout?: number
  /** A peer may end its half, and still be answered. */
  readonly allowHalfOpen?: boolean
}

type Orphan = "interrupted" | "goes on"

export interface Listener {
  readonly name: string
  readonly ways: ReadonlyArray<Ways.Way>
  readonly layer: (stage: WorkStage, options: Options) => Layer.Layer<never, unknown>
  readonly speech: Talks.Speech
  readonly tls?: "h2" | "http/1.1"
  /** It listens on a path. */
  readonly unix?: boolean
  /**
   * When it lets go of a connection with nothing in flight: once that has been quiet for `quietPeriod`, at once, or when
   * the peer is done with it.
   */
  readonly idle: "once quiet" | "at once" | "with its peer"
  /** What its peers are told beside their answers: one that is idle, and one with work in flight. */
  readonly farewell: { readonly idle: ReadonlyArray<string>; readonly work: ReadonlyArray<string> }
  /** Work in flight is finished, or interrupted as soon as the drain begins. */
  readonly work: "finished" | "interrupted"
  /**
   * What becomes of work whose peer has gone: it is interrupted, or goes on to its end. After a close it may be that nobody
   * can tell: it looks as the end of one half does.
   */
  readonly orphan: { readonly reset: Orphan; readonly close: Orphan }
  /** A handler of the application is there from the beginning of a connection, and not only while it answers. */
  readonly converses?: boolean
  /** What bounds a peer that does not take what has been written to it. */
  readonly stuck: "drainTimeout" | "closeTimeout"
  /** What the report calls such a one. */
  readonly cutWork: RegExp
  /** What the report counts as cut of a connection whose peer has got everything, and never closes its own half. */
  readonly unclosed: 0 | 1
  /** What a peer is told that asks for its upgrade, or gets it, when the drain has begun. */
  readonly late?: ReadonlyArray<string>
  /** Once the answer is written its peer has no longer than `closeTimeout` to take it. */
  readonly hurries: boolean
}

/** Where it differs little from something else that is played in every way: one with a shutdown, one without. */
const pair = [Ways.launchSignal, Ways.rootInterrupted]
const otherPair = [Ways.listenShutdown, Ways.scopeCloses]

const local = { host: "127.0.0.1", port: 0 }
const quietly = { disableListenLog: true, disableLogger: true }

// --- Requests ---

const effectApp = (stage: WorkStage) =>
  HttpRouter.addAll(
    works.map((work) =>
      HttpRouter.route(
        "*",
        `/${work}`,
        Effect.map(stage.work(work), (answer) => HttpServerResponse.text(answer))
      )
    )
  )

const requests =
  (protocol: Stages.Protocol) =>
  (stage: WorkStage, { allowHalfOpen = false, ...options }: Options) => {
    const evaluate = stage.evaluate(protocol)
    // Undocumented. Without it `node:http` ends its own half along with its peer, answer or not.
    const server = () => Object.assign(evaluate(), { httpAllowHalfOpen: allowHalfOpen })
    return HttpRouter.serve(effectApp(stage), quietly).pipe(
      Layer.provide(KmsHttp.layerServer(server, { ...local, ...options })),
      Layer.provide(stage.resource)
    )
  }

const ofRequests = {
  speech: Talks.http,
  idle: "once quiet",
  farewell: { idle: [], work: ["Connection: close"] },
  work: "finished",
  orphan: { reset: "interrupted", close: "interrupted" },
  stuck: "drainTimeout",
  cutWork: /^GET \/large from 127\.0\.0\.1:\d+ after /,
  unclosed: 0,
  hurries: false
} as const

const http: Listener = { ...ofRequests, name: "HTTP/1.1", ways: pair, layer: requests(Stages.http) }
const https: Listener = {
  ...ofRequests,
  name: "HTTPS",
  ways: otherPair,
  // Beneath that the sockets of `node:tls` have an option of their own, which those of a plain server have by default.
  layer: requests({ ...Stages.https, make: () => createHttps({ key, cert, allowHalfOpen: true }) }),
  tls: "http/1.1"
}
const http2: Listener = {
  ...ofRequests,
  name: "HTTP/2",
  ways: pair,
  layer: requests(Stages.h2),
  tls: "h2",
  speech: Talks.session,
  farewell: { idle: ["GOAWAY 0"], work: ["GOAWAY 0"] }
}

// --- Connections ---

/** Whole lines of what has come; those that begin with `#` are noise. */
class Questions {
  private rest = ""

  push(chunks: ReadonlyArray<Uint8Array | string>): ReadonlyArray<Work> {
    for (const chunk of chunks) this.rest += typeof chunk === "string" ? chunk : Buffer.from(chunk).toString("latin1")
    const lines = this.rest.split("\n")
    this.rest = lines.pop()!
    return lines.filter((line) => !line.startsWith("#")) as Array<Work>
  }
}

const framed = (answer: string): string => `${answer.length}\n${answer}`

interface Manner {
  /** Each answer is a busy section. */
  readonly busy: boolean
  /** It ends when the drain begins, between two answers. */
  readonly told: boolean
  readonly frame: (answer: string) => string
}

/** Answers what is asked on a socket, until its peer has nothing more to say. */
const converse = (stage: WorkStage, socket: Socket.Socket, { busy, frame, told }: Manner): Effect.Effect<void> =>
  Effect.gen(function* () {
    const { pull } = yield* socket.reader
    const { write } = yield* socket.writer
    stage.enter("conversation")
    const questions = new Questions()
    const pulled = Effect.asSome(pull)
    const next = told ? Effect.raceFirst(pulled, Effect.as(Kms.draining, Option.none())) : pulled
    for (let chunks = yield* next; Option.isSome(chunks); chunks = yield* next) {
      for (const work of questions.push(chunks.value)) {
        const answered = Effect.flatMap(stage.work(work), (answer) => write(frame(answer)))
        // Who does not wait until it is taken leaves it to the listener.
        if (work === "left") yield* Effect.forkDetach(answered, { startImmediately: true })
        else yield* busy ? Kms.busy(work)(answered) : answered
        if (isLast(work)) return
      }
    }
  }).pipe(
    Effect.onInterrupt(() => Effect.sync(() => stage.leave("an interrupted handler"))),
    Effect.scoped,
    Effect.ignore
  )

const conversations = (stage: WorkStage, manner: Manner) =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const server = yield* SocketServer.SocketServer
      listens(stage, server)
      yield* Effect.forkScoped(
        server.run((socket) => converse(stage, socket, manner)),
        { startImmediately: true }
      )
    })
  )

const listens = (stage: WorkStage, { address }: SocketServer.SocketServer["Service"]): void => {
  if (address._tag === "UnixPathAddress") stage.bound = serverAt(address.path)
  else if (address._tag === "InetAddressV4") stage.bound = serverAt(address.port)
}

interface SocketOptions extends Options {
  readonly onDrain: "wait" | "interrupt"
}

const transports = {
  TCP: { layer: (_: WorkStage, options: SocketOptions) => KmsTcp.layer({ ...local, ...options }) },
  TLS: { layer: (_: WorkStage, options: SocketOptions) => KmsTcp.layerTls({ ...local, key, cert, ...options }) },
  Unix: { layer: (stage: WorkStage, options: SocketOptions) => KmsUnix.layer({ path: stage.place, ...options }) }
}

const manners = {
  'onDrain "wait"': {
    onDrain: "wait",
    busy: false,
    told: false,
    expect: { idle: "with its peer", work: "finished", stuck: "drainTimeout", hurries: false }
  },
  'onDrain "wait", told by Kms.draining': {
    onDrain: "wait",
    busy: false,
    told: true,
    expect: { idle: "at once", work: "finished", stuck: "drainTimeout", hurries: false }
  },
  'onDrain "interrupt"': {
    onDrain: "interrupt",
    busy: false,
    told: false,
    expect: { idle: "at once", work: "interrupted", stuck: "closeTimeout", hurries: true }
  },
  'onDrain "interrupt", with busy sections': {
    onDrain: "interrupt",
    busy: true,
    told: false,
    expect: { idle: "at once", work: "finished", stuck: "drainTimeout", hurries: true }
  }
} as const

const goesOn = { reset: "goes on", close: "goes on" } as const
const interrupted = { reset: "interrupted", close: "interrupted" } as const

const connections = (
  transport: keyof typeof transports,
  manner: keyof typeof manners,
  ways: ReadonlyArray<Ways.Way>
): Listener => {
  const { busy, expect, onDrain, told } = manners[manner]
  return {
    ...expect,
    name: `${transport}, ${manner}`,
    ways,
    layer: (stage, options) =>
      conversations(stage, { busy, told, frame: framed }).pipe(
        Layer.provide(transports[transport].layer(stage, { ...options, onDrain })),
        Layer.provide(stage.resource)
      ),
    speech: Talks.lines,
    ...(transport === "TLS" ? { tls: "http/1.1" } : {}),
    unix: transport === "Unix",
    converses: true,
    unclosed: 0,
    farewell: { idle: [], work: [] },
    orphan: expect.work === "finished" ? goesOn : interrupted,
    cutWork:
      expect.stuck === "drainTimeout"
        ? /^connection from (127\.0\.0\.1:\d+|a local socket) after /
        : /^what was still to be sent to (127\.0\.0\.1:\d+|a local socket)$/
  }
}

// --- What others upgraded ---

/** The same, for whoever has callbacks instead of a fiber for each connection. */
class Conversation {
  private readonly stage: WorkStage
  private readonly say: (answer: string) => void
  private readonly questions = new Questions()
  private readonly running = new Set<Fiber.Fiber<unknown>>()

  constructor(stage: WorkStage, say: (answer: string) => void) {
    this.stage = stage
    this.say = say
  }

  push(chunk: Uint8Array): void {
    for (const work of this.questions.push([chunk])) {
      const fiber = Effect.runFork(Effect.map(this.stage.work(work), this.say))
      this.running.add(fiber)
      fiber.addObserver(() => this.running.delete(fiber))
    }
  }

  /** Its peer has gone. */
  stop(): void {
    for (const fiber of this.running) fiber.interruptUnsafe()
  }

  /** Answers what has been asked, and says goodbye. */
  readonly finish: Effect.Effect<void> = Effect.suspend(() => {
    if (this.running.size > 0) return Effect.andThen(Fiber.awaitAll(this.running), this.finish)
    this.stage.leave("a goodbye")
    this.say("bye")
    return Effect.void
  })
}

type Hijack = KmsHijack.KmsHijack["Service"]

/** Makes of a socket that has left its server a conversation, and has it adopted. */
type Adopt = (stage: WorkStage, hijack: Hijack, request: IncomingMessage, socket: Duplex, head: Buffer) => void

const adoptRaw =
  (answer: string): Adopt =>
  (stage, hijack, _request, socket, head) => {
    socket.on("error", () => {})
    held(stage, () => {
      const conversation = new Conversation(stage, (answer) => socket.write(framed(answer)))
      socket.write(answer)
      if (head.length > 0) conversation.push(head)
      socket.on("data", (chunk: Buffer) => conversation.push(chunk))
      socket.on("close", () => conversation.stop())
      hijack.adoptUnsafe(socket, { name: "line", goodbye: () => Effect.runPromise(conversation.finish) })
    })
  }

const adoptWebSocket = (): Adopt => {
  const server = new WebSocketServer({ noServer: true })
  return (stage, hijack, request, socket, head) => {
    socket.on("error", () => {})
    held(stage, () =>
      server.handleUpgrade(request, socket, head, (webSocket: WebSocket) => {
        const conversation = new Conversation(stage, (answer) => webSocket.send(answer))
        webSocket.on("message", (message: Buffer) => conversation.push(message))
        webSocket.on("error", () => {})
        webSocket.on("close", () => conversation.stop())
        Effect.runFork(hijack.adopt(webSocket, { goodbye: conversation.finish }))
      })
    )
  }
}

/** Where upgrades are held they are made when the latch opens. */
const held = (stage: WorkStage, upgrade: () => void): void => {
  if (!stage.holdsUpgrades) return upgrade()
  stage.enter("upgrade")
  Effect.runFork(stage.latch.await).addObserver(upgrade)
}

const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n"

/** A server that nobody drains: only what it upgraded is adopted. */
const plainServer =
  (adopt: Adopt) =>
  (stage: WorkStage, { closeTimeout, drainTimeout }: Options) =>
    Layer.effectDiscard(
      Effect.gen(function* () {
        const hijack = yield* KmsHijack.KmsHijack
        const server: Server = yield* Effect.acquireRelease(
          Effect.callback<Server>((resume) => {
            const server = createServer()
            server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) =>
              adopt(stage, hijack, request, socket, head)
            )
            server.listen(local, () => resume(Effect.succeed(server)))
          }),
          (server) => Effect.sync(() => server.close())
        )
        stage.bound = server
      })
    ).pipe(Layer.provide(KmsHijack.layer({ closeTimeout, drainTimeout })), Layer.provide(stage.resource))

const tunnels = (stage: WorkStage, options: Options) =>
  Layer.unwrap(
    Effect.map(KmsHijack.KmsHijack, (hijack) =>
      KmsHttp.layerNode(
        () =>
          stage
            .evaluate(Stages.http)()
            .on("connect", (request: IncomingMessage, socket: Duplex, head: Buffer) =>
              adoptRaw("HTTP/1.1 200 OK\r\n\r\n")(stage, hijack, request, socket, head)
            ),
        { ...local, ...options }
      )
    )
  ).pipe(
    Layer.provide(KmsHijack.layer({ closeTimeout: options.closeTimeout, drainTimeout: options.drainTimeout })),
    Layer.provide(stage.resource)
  )

const ofAdopted = {
  idle: "at once",
  farewell: { idle: ["bye"], work: ["bye"] },
  work: "finished",
  orphan: { reset: "interrupted", close: "goes on" },
  stuck: "closeTimeout",
  cutWork: /^(upgrade GET \S+|CONNECT \S+|socket|line) from 127\.0\.0\.1:\d+ after \d/,
  unclosed: 1,
  hurries: true
} as const

const rawUpgrade: Listener = {
  ...ofAdopted,
  name: "a raw upgrade of node:http, adopted",
  ways: pair,
  layer: plainServer(adoptRaw(switching)),
  speech: Talks.raw
}
const adoptedWebSocket: Listener = {
  ...ofAdopted,
  name: "a WebSocket of ws, adopted",
  ways: otherPair,
  layer: (stage, options) => plainServer(adoptWebSocket())(stage, options),
  speech: Talks.webSocket,
  farewell: { idle: ["bye", "1001"], work: ["bye", "1001"] },
  orphan: { reset: "interrupted", close: "interrupted" }
}
const tunnel: Listener = {
  ...ofAdopted,
  name: "a CONNECT tunnel of KmsHttp.layerNode, adopted",
  ways: pair,
  layer: tunnels,
  speech: Talks.tunnel,
  late: ["bye"]
}

// --- WebSockets of Effect ---

const webSockets = (stage: WorkStage, options: Options) =>
  HttpRouter.serve(
    HttpRouter.add(
      "GET",
      "/ws",
      Effect.gen(function* () {
        if (stage.holdsUpgrades) {
          stage.enter("upgrade")
          yield* stage.latch.await
        }
        const { upgrade } = yield* HttpServerRequest.HttpServerRequest
        yield* converse(stage, yield* upgrade, { busy: true, told: false, frame: (answer) => answer })
        return HttpServerResponse.empty()
      })
    ),
    quietly
  ).pipe(
    Layer.provide(KmsHttp.layerServer(stage.evaluate(Stages.http), { ...local, ...options })),
    Layer.provide(stage.resource)
  )

const webSocket: Listener = {
  ...ofAdopted,
  name: "a WebSocket on KmsHttp",
  // Its handler is interrupted as it asks for the connection.
  late: ["503"],
  converses: true,
  ways: otherPair,
  layer: webSockets,
  speech: Talks.webSocket,
  farewell: { idle: ["1001"], work: ["1001"] }
}

// --- Calls ---

class Works extends RpcGroup.make(
  Rpc.make("Work", { payload: { work: Schema.Literals(works) }, success: Schema.String })
) {}

const rpcServer = (stage: WorkStage) =>
  RpcServer.layer(Works).pipe(Layer.provide(Works.toLayer({ Work: ({ work }) => stage.work(work) })))

const ofCalls = {
  idle: "once quiet",
  work: "finished",
  orphan: { reset: "interrupted", close: "interrupted" },
  hurries: true
} as const

const rpc: Listener = {
  ...ofCalls,
  name: "RPC over TCP",
  ways: pair,
  layer: (stage, options) =>
    Layer.merge(
      rpcServer(stage).pipe(Layer.provide(RpcServer.layerProtocolSocketServer.pipe(KmsRpc.drain(Works)))),
      Layer.effectDiscard(Effect.map(SocketServer.SocketServer, (server) => listens(stage, server)))
    ).pipe(
      Layer.provide(KmsTcp.layer({ ...local, ...options })),
      Layer.provide(RpcSerialization.layerNdjson),
      Layer.provide(stage.resource)
    ),
  speech: Talks.calls,
  unclosed: 0,
  farewell: { idle: [], work: [] },
  stuck: "drainTimeout",
  cutWork: /^connection from 127\.0\.0\.1:\d+ after /
}

const webSocketRpc: Listener = {
  ...ofCalls,
  name: "RPC over a WebSocket",
  ways: otherPair,
  layer: (stage, options) =>
    HttpRouter.serve(
      rpcServer(stage).pipe(
        Layer.provide(RpcServer.layerProtocolWebsocket({ path: "/ws" }).pipe(KmsRpc.drain(Works))),
        Layer.provide(RpcSerialization.layerNdjson)
      ),
      quietly
    ).pipe(
      Layer.provide(KmsHttp.layerServer(stage.evaluate(Stages.http), { ...local, ...options })),
      Layer.provide(stage.resource)
    ),
  speech: Talks.webSocketCalls,
  late: ["1001"],
  unclosed: 1,
  farewell: { idle: ["1001"], work: ["1001"] },
  stuck: "drainTimeout",
  hurries: false,
  cutWork: /^(upgrade GET \S+|CONNECT \S+|socket|line) from 127\.0\.0\.1:\d+ after \d/
}

export const listeners = {
  http,
  https,
  http2,
  tcpWait: connections("TCP", 'onDrain "wait"', Ways.ways),
  tcpTold: connections("TCP", 'onDrain "wait", told by Kms.draining', Ways.ways),
  tcpInterrupt: connections("TCP", 'onDrain "interrupt"', Ways.ways),
  tcpBusy: connections("TCP", 'onDrain "interrupt", with busy sections', Ways.ways),
  tlsWait: connections("TLS", 'onDrain "wait"', pair),
  tlsBusy: connections("TLS", 'onDrain "interrupt", with busy sections', otherPair),
  unixWait: connections("Unix", 'onDrain "wait"', otherPair),
  unixBusy: connections("Unix", 'onDrain "interrupt", with busy sections', pair),
  rawUpgrade,
  adoptedWebSocket,
  tunnel,
  webSocket,
  rpc,
  webSocketRpc
} satisfies Record<string, Listener>

export type Key = keyof typeof listeners
