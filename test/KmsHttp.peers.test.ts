/**
 * What each kind of peer sees when the drain begins: one table, played over real sockets against each kind of server, in
 * each way in which a program comes to its end. Bounds on time are contrasts: what is to happen at once happens well
 * before a limit that was made long, and what is to wait does not happen before a limit that was made short.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { HttpRouter, HttpServer, HttpServerResponse } from "effect/http"
import { KmsHttp } from "effect-kms"
import type { IncomingMessage, Server, ServerResponse } from "node:http"
import type { AddressInfo, Socket } from "node:net"
import { connect as connectTls, TLSSocket } from "node:tls"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { Worker } from "node:worker_threads"
import { WebSocketServer } from "ws"
import type * as Flood from "./support/flood.ts"
import * as Peers from "./support/peers.ts"
import * as Stages from "./support/stage.ts"
import { Stage } from "./support/stage.ts"
import * as Ways from "./support/ways.ts"

/** One program with its stage. */
interface Scene {
  readonly stage: Stage
  readonly program: Ways.Program
  readonly supervised: boolean
  readonly port: number
  readonly tls: boolean
  /** Begins the end, and completes when the drain has begun. */
  readonly drain: Effect.Effect<void>
  /** The program ended by itself: nothing was cut but what the row says, and no handler met anything closed. Gives the time of it. */
  readonly endsWell: Effect.Effect<number>
}

type Build = (stage: Stage, protocol: Stages.Protocol, listener: KmsHttp.ListenerOptions) => Layer.Layer<never, unknown>

interface Options {
  readonly protocols: ReadonlyArray<Stages.Protocol>
  readonly ways?: ReadonlyArray<Ways.Way>
  readonly listener?: Partial<KmsHttp.ListenerOptions>
  readonly limits?: Ways.Limits
  /** Connections that are lost on the way to a good end. */
  readonly cut?: number
  readonly build?: Build
}

const scene = (protocol: Stages.Protocol, way: Ways.Way, options: Options): Effect.Effect<Scene, never, Scope.Scope> =>
  Effect.gen(function* () {
    const stage = new Stage()
    const listener = { host: "127.0.0.1", port: 0, ...options.listener }
    const program = yield* way.start((options.build ?? effectApp)(stage, protocol, listener), options.limits)
    return {
      stage,
      program,
      supervised: way.supervised,
      port: (stage.server.address() as AddressInfo).port,
      tls: protocol.tls,
      drain: Ways.drain(program, () => stage.server),
      endsWell: Effect.map(program.ended, ({ at, exit, report }) => {
        assert.deepStrictEqual(stage.trouble, [], "met a resource that was closed")
        assert.isTrue(Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause), String(exit))
        assert.strictEqual(report?.forced ?? false, false)
        for (const { abandoned, cut } of report?.listeners ?? []) {
          assert.deepStrictEqual({ abandoned, cut }, { abandoned: 0, cut: options.cut ?? 0 })
        }
        return at
      })
    }
  })

const effectApp: Build = (stage, protocol, listener) =>
  HttpRouter.serve(stage.routes, { disableListenLog: true, disableLogger: true }).pipe(
    Layer.provide(KmsHttp.layer(stage.evaluate(protocol), listener)),
    Layer.provide(stage.resource)
  )

/** One row of the table: a test for each protocol and way. */
const row = (name: string, options: Options, play: (scene: Scene) => Effect.Effect<void, never, Scope.Scope>): void => {
  for (const protocol of options.protocols) {
    for (const way of options.ways ?? waysOf(protocol)) {
      it.live(`${protocol.name}, ${way.name}: ${name}`, () => Effect.flatMap(scene(protocol, way, options), play))
    }
  }
}

const { h2, h2c, http, http1over2, https } = Stages

/** For what differs little from something else that is played in every way: one with a shutdown, one without. */
const fewWays = [Ways.launchSignal, Ways.rootInterrupted]

/** Every way for every protocol, but for a second way to interrupt: what it interrupts is the same program. */
const waysOf = (protocol: Stages.Protocol): ReadonlyArray<Ways.Way> =>
  protocol === http1over2
    ? fewWays
    : Ways.ways.filter((way) => way !== Ways.launchInterrupted || protocol === http || protocol === h2c)
const http1 = [http, https, http1over2]

/** Longer than any test takes: what waits for it has not ended by itself. */
const long = 20_000

const now = (): number => performance.now()

/** A connection that has had an answer right before the drain began. */
const usedBefore = ({ drain, port, tls }: Pick<Scene, "drain" | "port" | "tls">) =>
  Effect.gen(function* () {
    const peer = yield* Peers.connect(port, { tls })
    peer.get("/ok")
    yield* peer.response
    yield* drain
    return peer
  })

describe.concurrent("HTTP/1.1", () => {
  row(
    "a connection that has been idle for longer than quietPeriod is closed at once",
    { protocols: http1, ways: fewWays, listener: { quietPeriod: 2000 } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, tls }) {
      const peer = yield* Peers.connect(port, { tls })
      peer.get("/ok")
      assert.strictEqual((yield* peer.response).text, "ok")
      yield* Effect.sleep(2050)
      assert.isFalse(peer.isClosed)
      const begun = now()
      yield* drain
      const closed = yield* peer.closed
      assert.deepStrictEqual([closed.ended, closed.error], [true, undefined])
      assert.isBelow((yield* endsWell) - begun, 1900)
    })
  )

  row(
    "a connection used a moment ago has its next request answered with Connection: close",
    { protocols: http1, listener: { quietPeriod: long } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, tls }) {
      const peer = yield* Peers.connect(port, { tls })
      peer.get("/ok")
      assert.strictEqual((yield* peer.response).headers["connection"], "keep-alive")
      yield* drain
      peer.get("/ok")
      const { headers, text } = yield* peer.response
      assert.deepStrictEqual([text, headers["connection"]], ["ok", "close"])
      assert.isUndefined((yield* peer.closed).error)
      yield* endsWell
    })
  )

  row(
    "a connection used a moment ago is closed once it has been quiet for quietPeriod, not before",
    { protocols: http1, listener: { quietPeriod: 400 } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, tls }) {
      const peer = yield* Peers.connect(port, { tls })
      peer.get("/ok")
      const sent = now()
      yield* peer.response
      yield* drain
      const closed = yield* peer.closed
      assert.deepStrictEqual([closed.ended, closed.error], [true, undefined])
      assert.isAtLeast(closed.at - sent, 400)
      yield* endsWell
    })
  )

  row(
    "a request in flight gets its whole response, with Connection: close",
    { protocols: http1, listener: { quietPeriod: long, closeTimeout: long } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, program, stage, tls }) {
      const peer = yield* Peers.connect(port, { tls })
      peer.get("/slow")
      yield* stage.entered("/slow")
      yield* drain
      // Turns of the event loop, so that what is closed too early has been closed by now.
      yield* Effect.sleep(50)
      assert.isFalse(program.isEnded())
      stage.release()
      const { headers, text } = yield* peer.response
      assert.deepStrictEqual([text, headers["connection"]], ["slow", "close"])
      assert.isUndefined((yield* peer.closed).error)
      yield* endsWell
    })
  )

  for (const count of [2, 3]) {
    row(
      `${count} pipelined requests in flight all get their responses, the last with Connection: close`,
      { protocols: http1, listener: { quietPeriod: long, closeTimeout: long } },
      Effect.fnUntraced(function* ({ drain, endsWell, port, stage, tls }) {
        const peer = yield* Peers.connect(port, { tls })
        const head = "GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n"
        peer.send(head.repeat(count))
        yield* stage.entered("/slow", count)
        yield* drain
        stage.release()
        const seen = []
        for (let left = count; left > 0; left--) {
          const { headers, text } = yield* peer.response
          seen.push(`${text} ${headers["connection"]}`)
        }
        assert.deepStrictEqual(seen, [...Array.from({ length: count - 1 }, () => "slow keep-alive"), "slow close"])
        assert.isUndefined((yield* peer.closed).error)
        yield* endsWell
      })
    )
  }

  row(
    "requests that come together after the drain began are all answered, and only the last says close",
    { protocols: http1 },
    Effect.fnUntraced(function* ({ drain, endsWell, port, tls }) {
      const peer = yield* usedBefore({ drain, port, tls })
      peer.send("GET /ok HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(3))
      const answers = yield* Effect.all([peer.response, peer.response, peer.response])
      assert.deepStrictEqual(
        answers.map(({ headers }) => headers["connection"]),
        ["keep-alive", "keep-alive", "close"]
      )
      yield* endsWell
    })
  )

  row(
    "a request that is pipelined behind one in flight after the drain began is answered too, as the last one",
    { protocols: http1, listener: { quietPeriod: long, closeTimeout: long } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, stage, tls }) {
      const peer = yield* Peers.connect(port, { tls })
      peer.get("/slow")
      yield* stage.entered("/slow")
      yield* drain
      peer.get("/slow")
      yield* stage.entered("/slow", 2)
      stage.release()
      const first = yield* peer.response
      const second = yield* peer.response
      assert.deepStrictEqual([first.text, first.headers["connection"]], ["slow", "keep-alive"])
      assert.deepStrictEqual([second.text, second.headers["connection"]], ["slow", "close"])
      yield* endsWell
    })
  )

  for (const path of ["/upload", "/upload-later"]) {
    row(
      `a request that comes in one packet with the end of ${path === "/upload" ? "an upload" : "an upload that is read late"} is answered too, as the last one`,
      { protocols: http1, listener: { quietPeriod: long, closeTimeout: long } },
      Effect.fnUntraced(function* ({ drain, endsWell, port, stage, tls }) {
        const body = Buffer.from("upload")
        const peer = yield* Peers.connect(port, { tls })
        peer.send(`POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${body.length}\r\n\r\nup`)
        yield* stage.entered(path)
        yield* drain
        peer.send("loadGET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        yield* stage.entered("/slow")
        stage.release()
        const first = yield* peer.response
        const second = yield* peer.response
        assert.deepStrictEqual([first.text, first.headers["connection"]], [Stages.digest(body), "keep-alive"])
        assert.deepStrictEqual([second.text, second.headers["connection"]], ["slow", "close"])
        yield* endsWell
      })
    )
  }

  row(
    "an upload that comes in one packet behind another request in the drain is answered too, as the last one",
    { protocols: http1, ways: fewWays, listener: { quietPeriod: long, closeTimeout: long } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, tls }) {
      const peer = yield* usedBefore({ drain, port, tls })
      const upload = "POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\nupload"
      peer.send(`GET /ok HTTP/1.1\r\nHost: localhost\r\n\r\n${upload}`)
      const first = yield* peer.response
      const second = yield* peer.response
      assert.deepStrictEqual([first.text, first.headers["connection"]], ["ok", "keep-alive"])
      assert.deepStrictEqual(
        [second.text, second.headers["connection"]],
        [Stages.digest(Buffer.from("upload")), "close"]
      )
      yield* endsWell
    })
  )

  row(
    "a request whose body nobody reads is answered with Connection: close",
    { protocols: http1, ways: fewWays, listener: { quietPeriod: long, closeTimeout: long } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, tls }) {
      const peer = yield* usedBefore({ drain, port, tls })
      peer.send("POST /unread HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\nunread")
      const { headers, text } = yield* peer.response
      assert.deepStrictEqual([text, headers["connection"]], ["unread", "close"])
      assert.isUndefined((yield* peer.closed).error)
      yield* endsWell
    })
  )

  for (const when of ["in flight as the drain begins", "that comes after that"]) {
    row(
      `a response ${when} says close though its application says keep-alive`,
      { protocols: http1, ways: fewWays, listener: { quietPeriod: long, closeTimeout: long } },
      Effect.fnUntraced(function* ({ drain, endsWell, port, stage, tls }) {
        const peer = yield* Peers.connect(port, { tls })
        if (when === "that comes after that") {
          peer.get("/ok")
          yield* peer.response
          yield* drain
          peer.get("/proxied")
        } else {
          peer.get("/proxied")
          yield* stage.entered("/proxied")
          yield* drain
        }
        stage.release()
        const { headers, text } = yield* peer.response
        assert.deepStrictEqual([text, headers["connection"]], ["proxied", "close"])
        assert.isUndefined((yield* peer.closed).error)
        yield* endsWell
      })
    )
  }

  row(
    "a request behind a response that has said close is not executed",
    { protocols: http1, ways: fewWays, listener: { closeTimeout: long } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, stage, tls }) {
      const peer = yield* usedBefore({ drain, port, tls })
      peer.get("/chunked")
      yield* stage.entered("/chunked")
      yield* peer.body(6)
      // What it sends is not left unread either: that would reset the connection.
      peer.send(`POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n${"x".repeat(1_000_000)}`)
      yield* Effect.sleep(100)
      stage.release()
      const { headers, text } = yield* peer.response
      assert.deepStrictEqual([headers["connection"], text], ["close", Stages.chunked])
      assert.isUndefined((yield* peer.closed).error)
      assert.strictEqual(stage.times("/upload"), 0)
      yield* endsWell
    })
  )

  row(
    "a chunked response under way comes whole, and then the connection closes",
    { protocols: http1, listener: { quietPeriod: 100, closeTimeout: long } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, stage, tls }) {
      const peer = yield* Peers.connect(port, { tls })
      peer.get("/chunked")
      yield* peer.body(6)
      yield* stage.entered("/chunked")
      yield* drain
      yield* Effect.sleep(150)
      stage.release()
      const { headers, text } = yield* peer.response
      assert.strictEqual(headers["transfer-encoding"], "chunked")
      assert.strictEqual(text, Stages.chunked)
      const closed = yield* peer.closed
      assert.deepStrictEqual([closed.ended, closed.error], [true, undefined])
      yield* endsWell
    })
  )

  row(
    "an upload under way is accepted to its end, and answered",
    { protocols: http1, listener: { quietPeriod: 0, closeTimeout: 0 } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, stage, tls }) {
      const body = Buffer.alloc(2 * 1024 * 1024, "upload")
      const { peer, rest } = yield* Peers.upload(port, "/upload", body, { tls })
      yield* stage.entered("/upload")
      yield* drain
      yield* Effect.sleep(50)
      rest()
      const { headers, text } = yield* peer.response
      assert.deepStrictEqual([text, headers["connection"]], [Stages.digest(body), "close"])
      yield* endsWell
    })
  )

  for (const path of ["/events", "/raw-events"]) {
    row(
      `an event stream (${path}) comes to a clean end at once`,
      { protocols: http1, listener: { quietPeriod: 100, closeTimeout: long } },
      Effect.fnUntraced(function* ({ drain, endsWell, port, tls }) {
        const peer = yield* Peers.connect(port, { tls })
        peer.get(path)
        yield* peer.body(Stages.event.length)
        yield* drain
        const { text } = yield* peer.response
        assert.match(text, /^(data: x\n\n)+$/)
        const closed = yield* peer.closed
        assert.deepStrictEqual([closed.ended, closed.error], [true, undefined])
        yield* endsWell
      })
    )
  }

  for (const path of ["/events", "/raw-events"]) {
    row(
      `an event stream (${path}) that is asked for after the drain began ends at once`,
      { protocols: http1, ways: fewWays, listener: { quietPeriod: long } },
      Effect.fnUntraced(function* ({ drain, endsWell, port, tls }) {
        const peer = yield* usedBefore({ drain, port, tls })
        peer.get(path)
        const { headers, status } = yield* peer.response
        assert.deepStrictEqual([status, headers["connection"]], [200, "close"])
        yield* endsWell
      })
    )
  }

  row(
    "an event stream that the drain ends is no failure to the application",
    {
      protocols: [http],
      ways: fewWays,
      build: (stage, protocol, listener) =>
        HttpRouter.serve(stage.routes, {
          disableListenLog: true,
          disableLogger: true,
          middleware: (app) => Effect.onExit(app, (exit) => Effect.sync(() => void stage.told.push(exit._tag)))
        }).pipe(Layer.provide(KmsHttp.layer(stage.evaluate(protocol), listener)), Layer.provide(stage.resource))
    },
    Effect.fnUntraced(function* ({ drain, endsWell, port, stage }) {
      for (const path of ["/events", "/raw-events"]) {
        const peer = yield* Peers.connect(port)
        peer.get(path)
        yield* peer.body(1)
      }
      yield* drain
      yield* endsWell
      assert.deepStrictEqual(stage.told, ["Success", "Success"])
    })
  )

  row(
    "a WebSocket is closed with 1001, at once",
    { protocols: http1, listener: { quietPeriod: long, closeTimeout: long } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, stage, tls }) {
      const socket = yield* Peers.webSocket(port, "/ws", { tls })
      socket.send("hello")
      assert.strictEqual(yield* socket.message, "hello")
      yield* drain
      assert.strictEqual((yield* socket.closed).code, 1001)
      assert.deepStrictEqual(stage.told, ["/ws"])
      yield* endsWell
    })
  )

  row(
    "a WebSocket under HttpServer.serve, which runs its app uninterruptible, is closed with 1001 too",
    {
      protocols: [http, https],
      listener: { quietPeriod: long, closeTimeout: long },
      build: (stage, protocol, listener) =>
        HttpServer.serve(stage.echo("/plain")).pipe(
          Layer.provide(KmsHttp.layer(stage.evaluate(protocol), listener)),
          Layer.provide(stage.resource)
        )
    },
    Effect.fnUntraced(function* ({ drain, endsWell, port, stage, tls }) {
      const socket = yield* Peers.webSocket(port, "/plain", { tls })
      yield* drain
      assert.strictEqual((yield* socket.closed).code, 1001)
      assert.deepStrictEqual(stage.told, ["/plain"])
      yield* endsWell
    })
  )

  row(
    "a WebSocket that never answers the close is destroyed after closeTimeout",
    { cut: 1, protocols: http1, listener: { quietPeriod: long, closeTimeout: 300 } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, tls }) {
      const peer = yield* Peers.deafWebSocket(port, "/ws", { tls })
      const begun = now()
      yield* drain
      // A close frame with two bytes: 1001.
      assert.deepStrictEqual(Array.from(yield* peer.raw(4)), [0x88, 0x02, 0x03, 0xe9])
      assert.isAtLeast((yield* endsWell) - begun, 300)
    })
  )

  row(
    "a raw upgrade has its handler told, and then ends",
    { protocols: http1, listener: { quietPeriod: long, closeTimeout: 500 } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, stage, tls }) {
      const peer = yield* Peers.upgrade(port, "/echo", "echo", { tls })
      peer.send("hello")
      assert.strictEqual((yield* peer.raw(5)).toString(), "hello")
      yield* drain
      const closed = yield* peer.closed
      assert.deepStrictEqual([closed.ended, closed.error], [true, undefined])
      assert.deepStrictEqual(stage.told, ["/echo"])
      yield* endsWell
    })
  )

  row(
    "half a request head that is completed within closeTimeout is answered",
    { protocols: http1, listener: { quietPeriod: 0, closeTimeout: long } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, stage, tls }) {
      const peer = yield* Peers.connect(port, { tls })
      peer.send("GET /ok HTTP/1.1\r\nHo")
      yield* serverHasRead(stage, 20)
      yield* drain
      yield* Effect.sleep(50)
      peer.send("st: localhost\r\n\r\n")
      const { headers, text } = yield* peer.response
      assert.deepStrictEqual([text, headers["connection"]], ["ok", "close"])
      yield* endsWell
    })
  )

  row(
    "half a request head that is never completed is closed after closeTimeout, not before",
    { protocols: http1, listener: { quietPeriod: 0, closeTimeout: 300 } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, stage, tls }) {
      const peer = yield* Peers.connect(port, { tls })
      peer.send("GET /ok HTTP/1.1\r\nHo")
      yield* serverHasRead(stage, 20)
      const begun = now()
      yield* drain
      assert.isAtLeast((yield* peer.closed).at - begun, 300)
      yield* endsWell
    })
  )

  row(
    "a connection that never spoke is closed once it is older than quietPeriod",
    { protocols: http1, listener: { quietPeriod: 400, closeTimeout: long } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, tls }) {
      const opened = now()
      const peer = yield* Peers.connect(port, { tls })
      yield* drain
      const closed = yield* peer.closed
      assert.deepStrictEqual([closed.ended, closed.error], [true, undefined])
      assert.isAtLeast(closed.at - opened, 400)
      yield* endsWell
    })
  )

  row(
    "a connection that never spoke, and is older than quietPeriod, is closed at once",
    { protocols: http1, ways: fewWays, listener: { quietPeriod: 2000, closeTimeout: long } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, tls }) {
      yield* Peers.connect(port, { tls })
      yield* Effect.sleep(2050)
      const begun = now()
      yield* drain
      assert.isBelow((yield* endsWell) - begun, 1900)
    })
  )

  row(
    "a new connection is refused, while a request is in flight",
    { protocols: http1, listener: { quietPeriod: long } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, stage, tls }) {
      const peer = yield* Peers.connect(port, { tls })
      peer.get("/slow")
      yield* stage.entered("/slow")
      yield* drain
      assert.isTrue(yield* Peers.isRefused(port))
      stage.release()
      assert.strictEqual((yield* peer.response).text, "slow")
      yield* endsWell
    })
  )
})

describe.concurrent("a TLS handshake under way", () => {
  row(
    "is answered if it gets on within closeTimeout",
    { protocols: [https, http1over2], ways: Ways.ways, listener: { quietPeriod: 0, closeTimeout: long } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, stage }) {
      const { peer, proceed } = yield* Peers.halfHandshake(port, 100)
      yield* carrierHasRead(stage, 100)
      yield* drain
      yield* Effect.sleep(50)
      yield* proceed
      peer.get("/ok")
      const { headers, text } = yield* peer.response
      assert.deepStrictEqual([text, headers["connection"]], ["ok", "close"])
      yield* endsWell
    })
  )

  row(
    "is closed after closeTimeout if it does not get on",
    { protocols: [https, h2], ways: Ways.ways, listener: { quietPeriod: 0, closeTimeout: 300 } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, stage }) {
      const { peer } = yield* Peers.halfHandshake(port, 100)
      yield* carrierHasRead(stage, 100)
      const begun = now()
      yield* drain
      assert.isAtLeast((yield* peer.closed).at - begun, 300)
      yield* endsWell
    })
  )

  row(
    "that has not begun is closed once the connection is older than quietPeriod",
    { protocols: [https, h2], ways: Ways.ways, listener: { quietPeriod: 400, closeTimeout: long } },
    Effect.fnUntraced(function* ({ drain, endsWell, port }) {
      const opened = now()
      const peer = yield* Peers.connect(port)
      yield* drain
      assert.isAtLeast((yield* peer.closed).at - opened, 400)
      yield* endsWell
    })
  )
})

describe.concurrent("HTTP/2", () => {
  const protocols = [h2c, h2]

  row(
    "a session without streams is told GOAWAY, and closes at once",
    { protocols, listener: { quietPeriod: long, closeTimeout: long } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, tls }) {
      const peer = yield* Peers.session(port, { tls })
      assert.strictEqual((yield* peer.request("/ok").response).text, "ok")
      yield* drain
      assert.deepStrictEqual(yield* peer.goaway, { code: 0, last: 1 })
      assert.isUndefined((yield* peer.closed).error)
      yield* endsWell
    })
  )

  row(
    "a session that never had a stream is told GOAWAY once it is older than quietPeriod",
    { protocols, listener: { quietPeriod: 400, closeTimeout: long } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, tls }) {
      const opened = now()
      const peer = yield* Peers.session(port, { tls })
      yield* drain
      assert.strictEqual((yield* peer.goaway).code, 0)
      const closed = yield* peer.closed
      assert.isUndefined(closed.error)
      assert.isAtLeast(closed.at - opened, 400)
      yield* endsWell
    })
  )

  row(
    "a session that never had a stream has its first ones answered",
    { protocols, listener: { quietPeriod: long, closeTimeout: long } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, tls }) {
      const peer = yield* Peers.session(port, { tls })
      yield* drain
      const streams = [peer.request("/ok"), peer.request("/ok"), peer.request("/ok")]
      for (const { response } of streams) assert.strictEqual((yield* response).text, "ok")
      assert.strictEqual((yield* peer.goaway).code, 0)
      yield* peer.closed
      yield* endsWell
    })
  )

  row(
    "streams in flight finish after GOAWAY, and then the session closes",
    { protocols, listener: { quietPeriod: long, closeTimeout: long } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, program, stage, tls }) {
      const peer = yield* Peers.session(port, { tls })
      const body = Buffer.alloc(1024 * 1024, "upload")
      const slow = [peer.request("/slow"), peer.request("/slow")]
      const streamed = peer.request("/chunked")
      const upload = peer.request("/upload", { ":method": "POST" }, { endStream: false })
      upload.stream.write(body.subarray(0, 5000))
      yield* streamed.body(6)
      yield* stage.entered("/slow", 2)
      yield* stage.entered("/upload")
      yield* drain
      assert.deepStrictEqual(yield* peer.goaway, { code: 0, last: 7 })
      yield* Effect.sleep(50)
      assert.strictEqual(yield* peer.ask("/ok"), "refused")
      assert.isFalse(program.isEnded())
      upload.stream.end(body.subarray(5000))
      stage.release()
      for (const { response } of slow) assert.strictEqual((yield* response).text, "slow")
      assert.strictEqual((yield* streamed.response).text, Stages.chunked)
      assert.strictEqual((yield* upload.response).text, Stages.digest(body))
      assert.isUndefined((yield* peer.closed).error)
      yield* endsWell
    })
  )

  for (const path of ["/events", "/raw-events"]) {
    row(
      `an event stream (${path}) comes to a clean end at once`,
      { protocols, listener: { quietPeriod: long, closeTimeout: long } },
      Effect.fnUntraced(function* ({ drain, endsWell, port, tls }) {
        const peer = yield* Peers.session(port, { tls })
        const events = peer.request(path)
        yield* events.body(Stages.event.length)
        yield* drain
        assert.match((yield* events.response).text, /^(data: x\n\n)+$/)
        assert.strictEqual(events.stream.rstCode, 0)
        yield* peer.closed
        yield* endsWell
      })
    )
  }

  row(
    "of the streams that race GOAWAY each is answered or refused, and none is left in silence",
    { protocols, listener: { quietPeriod: 200, closeTimeout: long } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, program, tls }) {
      const peer = yield* Peers.session(port, { tls })
      yield* peer.request("/ok").response
      const streams: Array<Peers.StreamPeer> = []
      yield* Effect.callback<void>((resume) => {
        const ask = () => {
          if (peer.session.closed || peer.session.destroyed || peer.goaways.length > 0) return resume(Effect.void)
          for (let count = 0; count < 5; count++) streams.push(peer.request("/ok"))
          if (streams.length === 50) program.begin()
          setImmediate(ask)
        }
        ask()
      })
      yield* drain
      const outcomes = yield* Effect.forEach(streams, ({ outcome }) => outcome)
      assert.deepStrictEqual(
        outcomes.filter((outcome) => outcome.startsWith("failed")),
        []
      )
      // Those that had left the client some turns before the drain began.
      assert.isAtLeast(outcomes.filter((outcome) => outcome === "answered").length, 30)
      yield* endsWell
    })
  )

  row(
    "a stream above the last id of GOAWAY is not answered, and the session closes all the same",
    { protocols: [h2c], listener: { quietPeriod: long, closeTimeout: long } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, stage }) {
      const peer = yield* Peers.connect(port, { raw: true })
      peer.send(Peers.frames.preface)
      peer.send(Peers.frames.make(0x4, 0, 0))
      peer.send(Peers.frames.get(1, "/slow"))
      yield* stage.entered("/slow")
      yield* drain
      peer.send(Peers.frames.get(3, "/ok"))
      yield* Effect.sleep(50)
      stage.release()
      yield* peer.end
      const frames = Peers.frames.parse(yield* peer.raw(1))
      const goaway = frames.find(({ type }) => type === 0x7)!
      assert.deepStrictEqual([goaway.payload.readUInt32BE(0), goaway.payload.readUInt32BE(4)], [1, 0])
      const data = (id: number) => frames.filter(({ stream, type }) => stream === id && type === 0x0)
      assert.strictEqual(Buffer.concat(data(1).map(({ payload }) => payload)).toString(), "slow")
      assert.deepStrictEqual(data(3), [])
      yield* endsWell
    })
  )

  row(
    "a session whose peer never closes its own half is destroyed after closeTimeout",
    { protocols: [h2c], listener: { quietPeriod: long, closeTimeout: 300 } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, stage }) {
      const peer = yield* Peers.connect(port, { allowHalfOpen: true, raw: true })
      peer.send(Peers.frames.preface)
      peer.send(Peers.frames.make(0x4, 0, 0))
      peer.send(Peers.frames.get(1, "/slow"))
      yield* stage.entered("/slow")
      yield* drain
      const released = now()
      stage.release()
      yield* peer.end
      assert.isAtLeast((yield* endsWell) - released, 300)
    })
  )

  row(
    "a new connection is refused, while a stream is in flight",
    { protocols, listener: { quietPeriod: long } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, stage, tls }) {
      const peer = yield* Peers.session(port, { tls })
      const slow = peer.request("/slow")
      yield* stage.entered("/slow")
      yield* drain
      assert.isTrue(yield* Peers.isRefused(port))
      stage.release()
      assert.strictEqual((yield* slow.response).text, "slow")
      yield* endsWell
    })
  )
})

describe("64 MB to a slow reader", () => {
  for (const path of ["/big", "/big-stream"]) {
    row(
      `(${path}) arrive to the last byte`,
      {
        protocols: [http, https],
        ways: path === "/big" ? Ways.ways : fewWays,
        listener: { quietPeriod: 0, closeTimeout: 0 }
      },
      Effect.fnUntraced(function* ({ drain, endsWell, port, tls }) {
        const { bytes, hash } = Stages.big()
        const peer = yield* Peers.connect(port, { tls })
        peer.get(path)
        yield* peer.body(1)
        peer.socket.pause()
        yield* drain
        // Long enough for whoever counts the response as sent, or the connection as idle, to destroy it.
        yield* Effect.sleep(100)
        peer.readSlowly(4 * 1024 * 1024, 5)
        const response = yield* peer.response
        assert.deepStrictEqual([response.bytes, response.hash.digest("hex")], [bytes.length, hash])
        assert.isUndefined((yield* peer.closed).error)
        yield* endsWell
      })
    )

    row(
      `(${path}) arrive to the last byte`,
      { protocols: [h2c, h2], ways: fewWays, listener: { quietPeriod: 0, closeTimeout: 0 } },
      Effect.fnUntraced(function* ({ drain, endsWell, port, tls }) {
        const { bytes, hash } = Stages.big()
        const peer = yield* Peers.session(port, { tls })
        const { body, response, stream } = peer.request(path)
        yield* body(1)
        stream.pause()
        yield* drain
        yield* Effect.sleep(100)
        stream.resume()
        const whole = yield* response
        assert.deepStrictEqual([whole.bytes, whole.hash.digest("hex")], [bytes.length, hash])
        yield* endsWell
      })
    )
  }
})

describe("400 connections that are in the accept queue when the drain begins", () => {
  row(
    "are all answered",
    { protocols: [http, https], listener: { quietPeriod: 2000, closeTimeout: long } },
    Effect.fnUntraced(function* ({ endsWell, port, program, stage, tls }) {
      const gate = new SharedArrayBuffer(4)
      const flood = yield* worker<Flood.Output>("./support/flood.ts", {
        port,
        tls,
        count: 400,
        gate
      } satisfies Flood.Input)
      // Nothing is accepted while this thread stands still, until all of them stand.
      flood.go()
      assert.notStrictEqual(Atomics.wait(new Int32Array(gate), 0, 0, 10_000), "timed-out")
      assert.strictEqual(stage.carriers.length, 0)
      program.begin()
      const { answered, problems } = yield* flood.message
      assert.deepStrictEqual([answered, problems], [400, []])
      yield* endsWell
    })
  )
})

/** A thread of its own, once it has said that it is ready. */
const worker = <A>(file: string, workerData: unknown) =>
  Effect.gen(function* () {
    const thread = yield* Effect.acquireRelease(
      Effect.sync(() => new Worker(new URL(file, import.meta.url), { workerData })),
      (thread) => Effect.promise(() => thread.terminate())
    )
    const message = Effect.callback<A>((resume) => {
      thread.once("message", (message: A) => resume(Effect.succeed(message)))
      thread.once("error", (error) => resume(Effect.die(error)))
    })
    yield* message
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread is not a window
    return { message, go: () => thread.postMessage("go") }
  })

describe.concurrent("at the deadline", () => {
  const timeout = 400
  const forceTimeout = 800

  /** A row for programs with a shutdown, whose deadline it is, and for those without, where a listener has its own. */
  const cut = (
    name: string,
    path: string,
    play: (scene: Scene) => Effect.Effect<unknown, never, Scope.Scope>,
    build?: Build
  ) => {
    const check = Effect.fnUntraced(function* (scene: Scene) {
      yield* play(scene)
      const begun = now()
      yield* scene.drain
      const { at, code, log, report } = yield* scene.program.ended
      assert.isAtLeast(at - begun, timeout - 50)
      // Less than the timeout that there is by default. What it is to the millisecond, virtual time shows.
      assert.isBelow(at - begun, 10_000)
      if (!scene.supervised) return
      assert.strictEqual(code, 1)
      assert.isTrue(report!.forced)
      const [listener] = report!.listeners
      assert.deepStrictEqual([listener!.cut, listener!.cutWork.length], [1, 1])
      assert.match(listener!.cutWork[0]!, new RegExp(`^GET ${path} from 127\\.0\\.0\\.1:\\d+ after \\d`))
      assert.match(log.join("\n"), new RegExp(`Cut: .*GET ${path} from 127`))
      assert.strictEqual(listener!.abandoned, name.includes("uninterruptible") ? 1 : 0)
    })
    const options = { protocols: [http, https], ...(build === undefined ? {} : { build }) }
    row(name, { ...options, ways: Ways.supervised, limits: { timeout, forceTimeout } }, check)
    row(name, { ...options, ways: Ways.unsupervised, listener: { drainTimeout: timeout } }, check)
  }

  cut("a peer that stops reading for ever is cut, and named", "/big", ({ port, tls }) =>
    Effect.gen(function* () {
      const peer = yield* Peers.connect(port, { tls })
      peer.get("/big")
      yield* peer.body(1)
      peer.socket.pause()
    })
  )

  const stuck =
    (path: string) =>
    ({ port, stage, tls }: Scene) =>
      Effect.gen(function* () {
        const peer = yield* Peers.connect(port, { tls })
        peer.get(path)
        yield* stage.entered(path)
      })

  cut("a handler that never ends is cut, and named", "/never", stuck("/never"))
  cut("an uninterruptible handler that never ends is cut, named and abandoned", "/stubborn", stuck("/stubborn"))

  /** Without a router: `HttpServer.serve` itself runs its app uninterruptible. */
  const plain: Build = (stage, protocol, listener) =>
    HttpServer.serve(
      Effect.suspend(() => {
        stage.enter("/plain")
        return Effect.never
      })
    ).pipe(Layer.provide(KmsHttp.layer(stage.evaluate(protocol), listener)), Layer.provide(stage.resource))

  cut("an uninterruptible handler under HttpServer.serve is cut, named and abandoned", "/plain", stuck("/plain"), plain)

  const plainer: Build = (stage, protocol, listener) =>
    HttpServer.serve(
      Effect.uninterruptible(
        Effect.suspend(() => {
          stage.enter("/plainer")
          return Effect.never
        })
      )
    ).pipe(Layer.provide(KmsHttp.layer(stage.evaluate(protocol), listener)), Layer.provide(stage.resource))

  cut(
    "an uninterruptible handler, uninterruptible once more, is cut all the same",
    "/plainer",
    stuck("/plainer"),
    plainer
  )
})

describe.concurrent("of two applications on one listener", () => {
  interface App {
    readonly name: string
    readonly stage: Stage
    readonly close: Effect.Effect<void>
  }

  /** A program that serves one more application whenever it is told to, each in a scope of its own. */
  const several =
    (told: { serve: (name: string) => Effect.Effect<App> }): Build =>
    (stage, protocol, listener) =>
      Layer.effectDiscard(
        Effect.gen(function* () {
          const context = yield* Effect.context<HttpServer.HttpServer | Scope.Scope>()
          told.serve = (name) =>
            Effect.gen(function* () {
              const own = new Stage()
              const scope = yield* Effect.acquireRelease(Scope.make(), Scope.close)
              const routes = Layer.merge(own.routes, HttpRouter.add("GET", "/name", HttpServerResponse.text(name)))
              const served = HttpRouter.serve(routes, { disableListenLog: true, disableLogger: true })
              yield* Layer.buildWithScope(Layer.provide(served, own.resource), scope)
              return { name, stage: own, close: Scope.close(scope, Exit.void) }
            }).pipe(Effect.provideContext(context))
        })
      ).pipe(Layer.provide(KmsHttp.layerServer(stage.evaluate(protocol), listener)), Layer.provide(stage.resource))

  /** One of each kind of peer that an application has for long. */
  const company = Effect.fnUntraced(function* ({ stage }: App, port: number, tls: boolean) {
    const slow = yield* Peers.connect(port, { tls })
    slow.get("/slow")
    const events = yield* Peers.connect(port, { tls })
    events.get("/events")
    const raw = yield* Peers.connect(port, { tls })
    raw.get("/raw-events")
    const socket = yield* Peers.webSocket(port, "/ws", { tls })
    yield* events.body(1)
    yield* raw.body(1)
    yield* stage.entered("/slow")
    yield* stage.entered("/ws")
    return { events, raw, slow, socket }
  })

  type Company = Effect.Success<ReturnType<typeof company>>

  const nameOf = Effect.fnUntraced(function* (port: number, tls: boolean) {
    const peer = yield* Peers.connect(port, { tls })
    peer.get("/name")
    return (yield* peer.response).text
  })

  const sentAway = Effect.fnUntraced(function* ({ events, raw, slow, socket }: Company, { close, stage }: App) {
    const closing = yield* Effect.forkChild(close, { startImmediately: true })
    assert.strictEqual((yield* socket.closed).code, 1001)
    assert.match((yield* events.response).text, /^(data: x\n\n)+$/)
    assert.strictEqual((yield* raw.response).text, Stages.event)
    assert.isUndefined(closing.pollUnsafe())
    assert.isTrue(stage.open)
    stage.release()
    assert.strictEqual((yield* slow.response).text, "slow")
    yield* Fiber.join(closing)
    assert.deepStrictEqual([stage.open, stage.trouble], [false, []])
  })

  const undisturbed = Effect.fnUntraced(function* ({ events, raw, slow, socket }: Company, { stage }: App) {
    const { bytes } = yield* events.head
    yield* events.body(bytes + 3 * Stages.event.length)
    socket.send("still there")
    assert.strictEqual(yield* socket.message, "still there")
    assert.deepStrictEqual(
      [slow, events, raw].filter(({ isClosed }) => isClosed),
      []
    )
    assert.deepStrictEqual([(yield* raw.head).whole, stage.told], [false, []])
    stage.release()
    const { headers, text } = yield* slow.response
    assert.deepStrictEqual([text, headers["connection"]], ["slow", "keep-alive"])
  })

  for (const protocol of [http, https]) {
    for (const way of Ways.ways) {
      for (const goes of ["first", "second"]) {
        it.live(
          `${protocol.name}, ${way.name}: the ${goes} closes, and the other goes on undisturbed until the end`,
          () =>
            Effect.gen(function* () {
              const told = { serve: (name: string): Effect.Effect<App> => Effect.die(`${name} too early`) }
              const listener = { quietPeriod: 100, closeTimeout: long }
              const options = { protocols: [protocol], listener, build: several(told) }
              const { drain, endsWell, port, tls } = yield* scene(protocol, way, options)
              // A request goes to the application that was served last, so the first has its company while it is alone.
              const first = yield* told.serve("first")
              const ofFirst = yield* company(first, port, tls)
              const second = yield* told.serve("second")
              const ofSecond = yield* company(second, port, tls)
              if (goes === "first") {
                yield* sentAway(ofFirst, first)
                yield* undisturbed(ofSecond, second)
                assert.strictEqual(yield* nameOf(port, tls), "second")
              } else {
                yield* sentAway(ofSecond, second)
                yield* undisturbed(ofFirst, first)
                assert.strictEqual(yield* nameOf(port, tls), "first")
              }
              const left = goes === "first" ? ofSecond : ofFirst
              yield* drain
              assert.strictEqual((yield* left.socket.closed).code, 1001)
              yield* left.events.response
              yield* endsWell
            })
        )
      }
    }
  }
})

describe.concurrent("a server of node:http that someone else answers", () => {
  /** Requests by a plain listener; upgrades and tunnels echo, and those that are polite end when the signal aborts. */
  const nodeApp: Build = (stage, protocol, listener) =>
    KmsHttp.layerNode((signal) => {
      const server = stage.evaluate(protocol)()
      const onDrain = (name: string, end: () => void) =>
        signal.addEventListener("abort", () => {
          stage.told.push(name)
          stage.leave(name)
          end()
        })
      onDrain("server", () => {})
      server.on("request", stage.onRequest)
      const sockets = new WebSocketServer({ noServer: true })
      server.on("upgrade", (request: IncomingMessage, socket: Socket, head: Buffer) => {
        if (request.url === "/echo") {
          socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
          socket.on("data", (chunk) => socket.write(chunk))
          socket.on("error", () => {})
          return onDrain("/echo", () => socket.end("bye"))
        }
        sockets.handleUpgrade(request, socket, head, (webSocket) => {
          webSocket.on("message", (data: Buffer) => webSocket.send(data.toString()))
          if (request.url === "/ws") onDrain("/ws", () => webSocket.close(1001))
        })
      })
      server.on("connect", (_: IncomingMessage, socket: Socket) => {
        socket.write("HTTP/1.1 200 OK\r\nX-Tunnel: 1\r\n\r\n")
        socket.on("data", (chunk) => socket.write(chunk))
        socket.on("error", () => {})
        onDrain("CONNECT", () => socket.end("bye"))
      })
      return server
    }, listener).pipe(Layer.provide(stage.resource))

  const node = { build: nodeApp, listener: { quietPeriod: long, closeTimeout: long } }

  row(
    "is told by its signal as the drain begins, and a request in flight gets its whole response",
    { ...node, protocols: http1 },
    Effect.fnUntraced(function* ({ drain, endsWell, port, stage, tls }) {
      const peer = yield* Peers.connect(port, { tls })
      peer.get("/slow")
      yield* stage.entered("/slow")
      assert.deepStrictEqual(stage.told, [])
      yield* drain
      assert.deepStrictEqual(stage.told, ["server"])
      assert.isTrue(yield* Peers.isRefused(port))
      stage.release()
      const { headers, text } = yield* peer.response
      assert.deepStrictEqual([text, headers["connection"]], ["slow", "close"])
      yield* endsWell
    })
  )

  row(
    "finishes a chunked response and an upload under way",
    { ...node, protocols: http1, listener: { quietPeriod: 0, closeTimeout: 0 } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, stage, tls }) {
      const peer = yield* Peers.connect(port, { tls })
      peer.get("/chunked")
      yield* peer.body(6)
      const body = Buffer.alloc(1024 * 1024, "upload")
      const upload = yield* Peers.upload(port, "/upload", body, { tls })
      yield* stage.entered("/upload")
      yield* drain
      yield* Effect.sleep(50)
      upload.rest()
      stage.release()
      assert.strictEqual((yield* peer.response).text, Stages.chunked)
      const { headers, text } = yield* upload.peer.response
      assert.deepStrictEqual([text, headers["connection"]], [Stages.digest(body), "close"])
      yield* endsWell
    })
  )

  for (const path of ["/events", "/head-only-events"]) {
    row(
      `has its event stream (${path}) come to a clean end`,
      { ...node, protocols: http1, listener: { quietPeriod: 100, closeTimeout: long } },
      Effect.fnUntraced(function* ({ drain, endsWell, port, tls }) {
        const peer = yield* Peers.connect(port, { tls })
        peer.get(path)
        yield* peer.body(2 * Stages.event.length)
        yield* drain
        assert.match((yield* peer.response).text, /^(data: x\n\n)+$/)
        const closed = yield* peer.closed
        assert.deepStrictEqual([closed.ended, closed.error], [true, undefined])
        yield* endsWell
      })
    )

    row(
      `has its event stream (${path}) that is asked for after the drain began end at once`,
      { ...node, protocols: http1, ways: fewWays },
      Effect.fnUntraced(function* ({ drain, endsWell, port, tls }) {
        const peer = yield* usedBefore({ drain, port, tls })
        peer.get(path)
        const { headers, text } = yield* peer.response
        assert.deepStrictEqual([text, headers["connection"]], [Stages.event, "close"])
        yield* endsWell
      })
    )

    row(
      `has its event stream (${path}) over HTTP/2 come to a clean end`,
      { ...node, protocols: [h2c, h2] },
      Effect.fnUntraced(function* ({ drain, endsWell, port, tls }) {
        const peer = yield* Peers.session(port, { tls })
        const events = peer.request(path)
        yield* events.body(Stages.event.length)
        yield* drain
        assert.match((yield* events.response).text, /^(data: x\n\n)+$/)
        yield* peer.closed
        yield* endsWell
      })
    )
  }

  row(
    "finishes its HTTP/2 streams after GOAWAY",
    { ...node, protocols: [h2c, h2] },
    Effect.fnUntraced(function* ({ drain, endsWell, port, stage, tls }) {
      const peer = yield* Peers.session(port, { tls })
      const slow = peer.request("/slow")
      yield* stage.entered("/slow")
      yield* drain
      assert.deepStrictEqual(yield* peer.goaway, { code: 0, last: 1 })
      stage.release()
      assert.strictEqual((yield* slow.response).text, "slow")
      assert.isUndefined((yield* peer.closed).error)
      yield* endsWell
    })
  )

  row(
    "closes its own WebSockets when it is told",
    { ...node, protocols: http1 },
    Effect.fnUntraced(function* ({ drain, endsWell, port, stage, tls }) {
      const socket = yield* Peers.webSocket(port, "/ws", { tls })
      socket.send("hello")
      assert.strictEqual(yield* socket.message, "hello")
      yield* drain
      assert.strictEqual((yield* socket.closed).code, 1001)
      assert.deepStrictEqual(stage.told, ["server", "/ws"])
      yield* endsWell
    })
  )

  row(
    "loses the WebSockets that it does not close, after closeTimeout",
    { ...node, cut: 1, protocols: http1, listener: { quietPeriod: long, closeTimeout: 300 } },
    Effect.fnUntraced(function* ({ drain, endsWell, port, tls }) {
      const socket = yield* Peers.webSocket(port, "/rude", { tls })
      const begun = now()
      yield* drain
      const { at, code } = yield* socket.closed
      assert.strictEqual(code, 1006)
      assert.isAtLeast(at - begun, 300)
      yield* endsWell
    })
  )

  row(
    "ends its tunnels and raw upgrades when it is told",
    { ...node, protocols: http1 },
    Effect.fnUntraced(function* ({ drain, endsWell, port, stage, tls }) {
      const tunnel = yield* Peers.tunnel(port, { tls })
      const echo = yield* Peers.upgrade(port, "/echo", "echo", { tls })
      for (const peer of [tunnel, echo]) {
        peer.send("hello")
        assert.strictEqual((yield* peer.raw(5)).toString(), "hello")
      }
      yield* drain
      for (const peer of [tunnel, echo]) {
        assert.strictEqual((yield* peer.raw(8)).toString(), "hellobye")
        const closed = yield* peer.closed
        assert.deepStrictEqual([closed.ended, closed.error], [true, undefined])
      }
      assert.sameMembers(stage.told, ["server", "CONNECT", "/echo"])
      yield* endsWell
    })
  )
})

describe("private to Node", () => {
  for (const protocol of [https, h2]) {
    it.live(`${protocol.name}: the _parent of a TLSSocket is the socket that the server accepted`, () =>
      Effect.gen(function* () {
        const stage = new Stage()
        const server = stage.evaluate(protocol)()
        yield* listening(server)
        const { port } = server.address() as AddressInfo
        const socket = yield* Effect.callback<TLSSocket & { readonly _parent?: Socket }>((resume) => {
          server.once("secureConnection", (socket) => resume(Effect.succeed(socket)))
          const client = connectTls({ port, rejectUnauthorized: false, ALPNProtocols: ["h2", "http/1.1"] })
          return Effect.sync(() => client.destroy())
        })
        assert.instanceOf(socket, TLSSocket)
        assert.strictEqual(socket._parent, stage.carriers[0])
        socket.destroy()
      })
    )
  }

  it.live("the _header of a response holds the headers that only writeHead was given", () =>
    Effect.gen(function* () {
      const server = http.make()
      yield* listening(server)
      const peer = yield* Peers.connect((server.address() as AddressInfo).port)
      const seen = yield* Effect.callback<readonly [unknown, unknown]>((resume) => {
        server.on("request", (_, response: ServerResponse & { readonly _header?: unknown }) => {
          response.writeHead(200, { "Content-Type": "text/event-stream" })
          resume(Effect.succeed([response.getHeader("content-type"), response._header] as const))
          response.end()
        })
        peer.get("/")
      })
      assert.isUndefined(seen[0])
      assert.match(String(seen[1]), /^Content-Type: text\/event-stream\r$/m)
    })
  )
})

describe("what a drained server leaves behind", () => {
  /** Everything that keeps the process alive; but pipes, which belong to whoever runs the tests. */
  const alive = () => process.getActiveResourcesInfo().filter((kind) => kind !== "PipeWrap")

  /** What is there now, and was not before. */
  const added = (before: ReadonlyArray<string>) => {
    const left = [...before]
    return alive().filter((kind) => {
      const known = left.indexOf(kind)
      if (known >= 0) left.splice(known, 1)
      return known < 0
    })
  }

  /** Some turns of the event loop, until `done`. */
  const within = (turns: number, done: () => boolean): Effect.Effect<boolean> =>
    Effect.callback<boolean>((resume) => {
      let left = turns
      const look = () => {
        if (done()) resume(Effect.succeed(true))
        else if (left-- > 0) setImmediate(look)
        else resume(Effect.succeed(false))
      }
      look()
    })

  /** A server that has had peers of several kinds, and its end. Gives no more than a weak reference to it. */
  const lived = (protocol: Stages.Protocol, way: Ways.Way) =>
    Effect.gen(function* () {
      const listener = { quietPeriod: 50, closeTimeout: 1000 }
      const { drain, endsWell, port, stage, tls } = yield* scene(protocol, way, { protocols: [protocol], listener })
      if (protocol === h2 || protocol === h2c) {
        const peer = yield* Peers.session(port, { tls })
        yield* peer.request("/ok").response
        const slow = peer.request("/slow")
        yield* stage.entered("/slow")
        yield* drain
        stage.release()
        yield* slow.response
        yield* peer.closed
      } else {
        const peers = yield* Effect.forEach(["/ok", "/slow", "/events"], (path) =>
          Effect.tap(Peers.connect(port, { tls }), (peer) => Effect.sync(() => peer.get(path)))
        )
        yield* Peers.connect(port, { tls })
        const half = yield* Peers.connect(port, { tls })
        half.send("GET /")
        const socket = yield* Peers.webSocket(port, "/ws", { tls })
        yield* stage.entered("/slow")
        yield* stage.entered("/events")
        yield* drain
        stage.release()
        for (const peer of peers) yield* peer.closed
        yield* socket.closed
      }
      yield* endsWell
      return new WeakRef(stage.server)
    }).pipe(Effect.scoped)

  for (const protocol of [http, https, http1over2, h2c, h2]) {
    for (const way of fewWays) {
      it.live(`${protocol.name}, ${way.name}: nothing that keeps the process alive, and the server is garbage`, () =>
        Effect.gen(function* () {
          const before = alive()
          const server = yield* lived(protocol, way)
          yield* within(200, () => added(before).length === 0)
          assert.deepStrictEqual(added(before), [])
          const collected = yield* within(50, () => {
            collect()
            return server.deref() === undefined
          })
          assert.isTrue(collected)
        })
      )
    }
  }
})

setFlagsFromString("--expose-gc")
const collect = runInNewContext("gc") as () => void

const listening = (server: Server) =>
  Effect.acquireRelease(
    Effect.callback<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))),
    () =>
      Effect.sync(() => {
        server.close()
        if ("closeAllConnections" in server) server.closeAllConnections()
      })
  )

/** Completes when the only connection of a server has brought as many bytes, as plain text. */
const serverHasRead = (stage: Stage, bytes: number) => hasRead(stage.sockets, bytes)

/** The same, as bytes of the network. */
const carrierHasRead = (stage: Stage, bytes: number) => hasRead(stage.carriers, bytes)

const hasRead = (sockets: ReadonlyArray<Socket>, bytes: number): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    let handle: NodeJS.Immediate
    const look = () => {
      if (sockets.some((socket) => socket.bytesRead >= bytes)) resume(Effect.void)
      else handle = setImmediate(look)
    }
    look()
    return Effect.sync(() => clearImmediate(handle))
  })
