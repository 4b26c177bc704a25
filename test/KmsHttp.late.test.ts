/**
 * What arrives late, or takes its time: upgrades that come during the drain, answers to a reader that pauses, requests in
 * one packet, streams that cross GOAWAY on the wire.
 */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Latch, Layer, type Scope } from "effect"
import { type HttpMiddleware, HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import { Kms, KmsHealth, KmsHttp } from "effect-kms"
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http"
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2"
import { type AddressInfo, connect as connectTcp } from "node:net"
import { connect as connectTls } from "node:tls"
import { cert } from "./support/certificate.ts"
import * as Peers from "./support/peers.ts"
import { chunked, h2, h2c, http, https, type Protocol, Stage } from "./support/stage.ts"
import * as Ways from "./support/ways.ts"

/** Longer than any test takes. */
const long = 20_000

const port = (server: Server): number => (server.address() as AddressInfo).port

/** One with a shutdown, one without. */
const ways = [Ways.launchSignal, Ways.rootInterrupted]

/** A program with the stage's routes and some more. */
const application = (
  stage: Stage,
  protocol: Protocol,
  options: Partial<KmsHttp.Options>,
  more: Layer.Layer<never, never, HttpRouter.HttpRouter> = Layer.empty
) =>
  HttpRouter.serve(Layer.mergeAll(stage.routes, more), { disableLogger: true, disableListenLog: true }).pipe(
    Layer.provide(KmsHttp.layer(stage.evaluate(protocol), { port: 0, ...options })),
    Layer.provide(stage.resource)
  )

const nodeApplication = (
  stage: Stage,
  protocol: Protocol,
  options: Partial<KmsHttp.NodeOptions>,
  listen: (server: Server) => void
) =>
  KmsHttp.layerNode(
    () => {
      const server = stage.evaluate(protocol)()
      listen(server)
      return server
    },
    { port: 0, ...options }
  ).pipe(Layer.provide(stage.resource))

/** The program ended without a loss. */
const endsWell = (program: Ways.Program, stage: Stage) =>
  Effect.map(program.ended, ({ report }) => {
    assert.deepStrictEqual(stage.trouble, [], "met a resource that was closed")
    assert.isFalse(report?.forced ?? false)
    for (const { abandoned, cut } of report?.listeners ?? []) assert.deepStrictEqual([abandoned, cut], [0, 0])
  })

/** As curl and Java begin, wherever they would like HTTP/2. */
const wouldLikeHttp2 = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"

const webSocket =
  "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"

const packet = (...paths: ReadonlyArray<string>) =>
  paths.map((path) => `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`).join("")

/** A connection that has had an answer. */
const used = (stage: Stage, protocol: Protocol) =>
  Effect.tap(Peers.connect(port(stage.server), { tls: protocol.tls }), (peer) => {
    peer.get("/ok")
    return peer.response
  })

/** Calls `f` when the stage lets the slow handlers go on. */
const release = (stage: Stage, f: () => void): void => {
  Effect.runFork(stage.latch.await).addObserver(f)
}

/** Asks for `path` on a connection of its own, and waits for the response in a fiber. */
const ask = Effect.fnUntraced(function* (stage: Stage, protocol: Protocol, path: string) {
  const { tls } = protocol
  if (protocol === h2c || protocol === h2) {
    const peer = yield* Peers.session(port(stage.server), { tls })
    return yield* Effect.forkScoped(peer.request(path).response, { startImmediately: true })
  }
  const peer = yield* Peers.connect(port(stage.server), { tls })
  peer.get(path)
  return yield* Effect.forkScoped(peer.response, { startImmediately: true })
})

describe.concurrent("an upgrade that is asked for during the drain", () => {
  const listener = { quietPeriod: long, closeTimeout: 200 }

  for (const way of ways) {
    for (const protocol of [http, https]) {
      it.live(`${protocol.name}, ${way.name}: is answered without one, however long that takes`, () =>
        Effect.gen(function* () {
          const stage = new Stage()
          const program = yield* way.start(application(stage, protocol, listener))
          const peer = yield* used(stage, protocol)
          yield* Ways.drain(program, () => stage.server)
          peer.get("/slow", wouldLikeHttp2)
          yield* stage.entered("/slow")
          yield* Effect.sleep(800)
          assert.isFalse(peer.isClosed)
          stage.release()
          assert.strictEqual((yield* peer.response).text, "slow")
          yield* peer.closed
          yield* endsWell(program, stage)
        })
      )
    }

    it.live(`${way.name}: is not interrupted in a busy section before it upgrades`, () =>
      Effect.gen(function* () {
        const stage = new Stage()
        let sectionEnded = false
        const section = Effect.suspend(() => {
          stage.enter("/busy")
          return Effect.andThen(
            stage.latch.await,
            Effect.sync(() => {
              sectionEnded = true
              stage.leave("/busy")
            })
          )
        }).pipe(Kms.busy("section"))
        const route = HttpRouter.add("GET", "/busy", Effect.andThen(section, stage.echo("/echo")))
        const program = yield* way.start(application(stage, http, listener, route))
        const peer = yield* used(stage, http)
        yield* Ways.drain(program, () => stage.server)
        peer.get("/busy", webSocket)
        yield* stage.entered("/busy")
        yield* Effect.sleep(800)
        assert.isFalse(peer.isClosed)
        stage.release()
        yield* peer.closed
        assert.isTrue(sectionEnded)
        yield* endsWell(program, stage)
      })
    )

    it.live(`${way.name}: is not interrupted in a busy section that it upgraded in`, () =>
      Effect.gen(function* () {
        const stage = new Stage()
        const handler = Effect.gen(function* () {
          const request = yield* HttpServerRequest.HttpServerRequest
          const socket = yield* request.upgrade
          // It upgrades when it is first read from.
          yield* socket.reader
          const { writeAll } = yield* socket.writer
          stage.enter("/busy")
          yield* stage.latch.await
          stage.leave("/busy")
          yield* writeAll([new TextEncoder().encode("done")])
          return HttpServerResponse.empty()
        }).pipe(Kms.busy("section"), Effect.scoped, Effect.orDie)
        const route = HttpRouter.add("GET", "/busy", handler)
        const program = yield* way.start(application(stage, http, listener, route))
        const peer = yield* used(stage, http)
        yield* Ways.drain(program, () => stage.server)
        peer.get("/busy", webSocket)
        assert.strictEqual((yield* peer.response).status, 101)
        yield* stage.entered("/busy")
        yield* Effect.sleep(800)
        assert.isFalse(peer.isClosed)
        stage.release()
        assert.include((yield* peer.raw(6)).toString("latin1"), "done")
        peer.socket.destroy()
        yield* program.ended
        assert.deepStrictEqual(stage.trouble, [])
      })
    )
  }
})

describe.concurrent("an answer to a request for an upgrade", () => {
  const size = 900 * 1024
  for (const way of ways) {
    for (const [name, pausedFor, before] of [
      ["is read whole by a reader that pauses for longer than closeTimeout", 1000, false],
      ["given before the drain, is read whole by a reader that pauses for longer than closeTimeout", 1000, true],
      ["is read whole by a reader that does not pause", 0, false]
    ] as const) {
      it.live(`${way.name}: ${name}`, () =>
        Effect.gen(function* () {
          const stage = new Stage()
          const answer = HttpServerResponse.uint8Array(Buffer.alloc(size, "x"))
          const route = HttpRouter.add(
            "GET",
            "/large",
            Effect.suspend(() => {
              stage.enter("/large")
              return Effect.as(stage.latch.await, answer)
            })
          )
          const program = yield* way.start(application(stage, http, { closeTimeout: 200 }, route))
          const peer = yield* Peers.connect(port(stage.server))
          peer.get("/large", wouldLikeHttp2)
          yield* stage.entered("/large")
          peer.socket.pause()
          if (before) {
            stage.release()
            yield* Effect.sleep(100)
          }
          yield* Ways.drain(program, () => stage.server)
          stage.release()
          yield* Effect.sleep(pausedFor)
          peer.socket.resume()
          assert.strictEqual((yield* peer.response).bytes, size)
          assert.isUndefined((yield* peer.closed).error)
          yield* endsWell(program, stage)
        })
      )
    }
  }

  it.live("is read whole where it is on its way already when the drain begins, larger than what the kernel holds", () =>
    Effect.gen(function* () {
      const stage = new Stage()
      const program = yield* Ways.launchSignal.start(application(stage, http, { closeTimeout: 200 }))
      const peer = yield* Peers.connect(port(stage.server))
      peer.get("/big", wouldLikeHttp2)
      yield* peer.head
      peer.socket.pause()
      yield* Ways.drain(program, () => stage.server)
      yield* Effect.sleep(1000)
      peer.socket.resume()
      assert.strictEqual((yield* peer.response).bytes, 64 * 1024 * 1024)
      yield* peer.closed
      yield* endsWell(program, stage)
    })
  )
})

describe.concurrent("layerNode: requests that come in one packet", () => {
  const answers = (peer: Peers.Peer) =>
    Effect.map(Effect.all([peer.response, peer.response, peer.response]), (list) =>
      list.map(({ headers, text }) => `${text} ${headers["connection"]}`)
    )
  const expected = ["/a keep-alive", "/b keep-alive", "/c close"]
  const listen = (server: Server) =>
    void server.on("request", (request: IncomingMessage, response: ServerResponse) => response.end(request.url))

  for (const protocol of [http, https]) {
    it.live(`${protocol.name}: are all answered in the lame duck, and only the last says close`, () =>
      Effect.gen(function* () {
        const stage = new Stage()
        const program = yield* Ways.launchSignal.start(nodeApplication(stage, protocol, {}, listen), { lameDuck: 2000 })
        const peer = yield* used(stage, protocol)
        program.begin()
        yield* Effect.yieldNow
        peer.send(packet("/a", "/b", "/c"))
        assert.deepStrictEqual(yield* answers(peer), expected)
        assert.isTrue(stage.server.listening)
        yield* peer.closed
        yield* endsWell(program, stage)
      })
    )

    for (const way of ways) {
      it.live(`${protocol.name}, ${way.name}: are all answered in the drain, and only the last says close`, () =>
        Effect.gen(function* () {
          const stage = new Stage()
          const program = yield* way.start(nodeApplication(stage, protocol, { quietPeriod: long }, listen))
          const peer = yield* used(stage, protocol)
          yield* Ways.drain(program, () => stage.server)
          peer.send(packet("/a", "/b", "/c"))
          assert.deepStrictEqual(yield* answers(peer), expected)
          yield* peer.closed
          yield* endsWell(program, stage)
        })
      )
    }
  }
})

describe.concurrent("layerNode: an upload that is answered early and not read", () => {
  const size = 20 * 1024 * 1024
  const clients = 8

  /** Sends for as long as it can, and reads only a little later, as a client that is busy with sending does. */
  const uploads = (stage: Stage) =>
    Effect.gen(function* () {
      const peer = yield* Peers.connect(port(stage.server))
      peer.socket.pause()
      peer.send(`POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${size}\r\n\r\n`)
      const piece = Buffer.alloc(64 * 1024)
      let left = size
      const go = () => {
        if (left === 0 || peer.socket.destroyed) return
        left -= piece.length
        if (peer.socket.write(piece)) setImmediate(go)
        else peer.socket.once("drain", go)
      }
      go()
      return peer
    })

  const answered = (peers: ReadonlyArray<Peers.Peer>) =>
    Effect.gen(function* () {
      yield* Effect.sleep(50)
      for (const { socket } of peers) socket.resume()
      const seen = yield* Effect.forEach(peers, ({ response }) => Effect.map(response, ({ status }) => status))
      assert.deepStrictEqual(
        seen,
        peers.map(() => 413)
      )
    })

  const listen = (stage: Stage) => (server: Server) =>
    void server.on("request", (_: IncomingMessage, response: ServerResponse) => {
      stage.enter("/upload")
      release(stage, () => response.writeHead(413).end("too large"))
    })

  it.live("has its answer in the lame duck", () =>
    Effect.gen(function* () {
      const stage = new Stage()
      stage.release()
      const program = yield* Ways.launchSignal.start(nodeApplication(stage, http, {}, listen(stage)), {
        lameDuck: 1500
      })
      program.begin()
      yield* Effect.yieldNow
      yield* answered(yield* Effect.replicateEffect(uploads(stage), clients))
      yield* endsWell(program, stage)
    })
  )

  for (const way of ways) {
    it.live(`${way.name}: has its answer in the drain`, () =>
      Effect.gen(function* () {
        const stage = new Stage()
        const program = yield* way.start(nodeApplication(stage, http, {}, listen(stage)))
        const peers = yield* Effect.replicateEffect(uploads(stage), clients)
        yield* stage.entered("/upload", clients)
        yield* Ways.drain(program, () => stage.server)
        stage.release()
        yield* answered(peers)
        yield* endsWell(program, stage)
      })
    )
  }
})

describe.concurrent("middleware that answers without the application", () => {
  const kinds = {
    "HttpServer.serve": (middleware: HttpMiddleware.HttpMiddleware) =>
      HttpServer.serve(Effect.succeed(HttpServerResponse.text("app")), middleware),
    "HttpRouter.serve": (middleware: HttpMiddleware.HttpMiddleware) =>
      HttpRouter.serve(HttpRouter.add("GET", "/", HttpServerResponse.text("app")), {
        disableLogger: true,
        disableListenLog: true,
        middleware: middleware as never
      })
  }
  for (const way of ways) {
    for (const [name, serve] of Object.entries(kinds)) {
      for (const headers of ["Connection: close\r\n", wouldLikeHttp2]) {
        it.live(`${way.name}, ${name}, ${headers.split("\r\n")[0]}: has its finalizer waited for`, () =>
          Effect.gen(function* () {
            const stage = new Stage()
            const held = yield* Latch.make()
            const finalizer = Effect.suspend(() => {
              stage.enter("finalizer")
              return Effect.andThen(
                held.await,
                Effect.sync(() => stage.leave("finalizer"))
              )
            })
            const middleware = ((_app: unknown) =>
              Effect.as(
                Effect.addFinalizer(() => finalizer),
                HttpServerResponse.text("cached")
              )) as unknown as HttpMiddleware.HttpMiddleware
            const program = yield* way.start(
              serve(middleware).pipe(
                Layer.provide(KmsHttp.layer(stage.evaluate(http), { port: 0, quietPeriod: 0, closeTimeout: 0 })),
                Layer.provide(stage.resource)
              ) as Layer.Layer<never, unknown>
            )
            const peer = yield* Peers.connect(port(stage.server))
            peer.get("/", headers)
            assert.strictEqual((yield* peer.response).text, "cached")
            yield* stage.entered("finalizer")
            yield* Ways.drain(program, () => stage.server)
            // Longer than what interrupts a handler waits for it.
            yield* Effect.sleep(1500)
            assert.isTrue(stage.open)
            assert.isFalse(program.isEnded())
            yield* held.open
            yield* endsWell(program, stage)
          })
        )
      }
    }
  }
})

describe.concurrent("layerNode: tunnels through streams of HTTP/2", () => {
  const listen = (stage: Stage) => (server: Server) => {
    server.on("request", stage.onRequest)
    server.on("connect", ((_: Http2ServerRequest, response: Http2ServerResponse) => {
      stage.enter("CONNECT")
      response.writeHead(200)
      response.write("tunnel")
      release(stage, () => response.end())
    }) as never)
  }

  for (const protocol of [h2c, h2]) {
    it.live(
      `${protocol.name}: are requests in flight until they have closed, and their session is idle then`,
      () =>
        Effect.gen(function* () {
          const stage = new Stage()
          let inFlight!: () => number
          const layer = nodeApplication(stage, protocol, { quietPeriod: long, closeTimeout: long }, listen(stage))
          const watched = Layer.effectDiscard(
            Effect.map(Effect.context<never>(), (context) => {
              inFlight = () => Effect.runSyncWith(context)(Kms.status).listeners[0]!.inFlight
            })
          )
          const program = yield* Ways.launchSignal.start(Layer.mergeAll(layer, watched))
          const peer = yield* Peers.session(port(stage.server), { tls: protocol.tls })
          const tunnels = Array.from({ length: 3 }, () => {
            const stream = peer.session.request({ ":method": "CONNECT", ":authority": "example.test:1" })
            stream.resume()
            const closed = new Promise<number>((resolve) => stream.on("close", () => resolve(stream.rstCode ?? -1)))
            return Effect.promise(() => closed)
          })
          yield* stage.entered("CONNECT", 3)
          assert.strictEqual(inFlight(), 3)
          stage.release()
          assert.deepStrictEqual(yield* Effect.all(tunnels), [0, 0, 0])
          // The server hears of the last end a moment after the client.
          while (inFlight() > 0) yield* Effect.sleep(5)
          yield* Ways.drain(program, () => stage.server)
          assert.strictEqual((yield* peer.goaway).code, 0)
          assert.isUndefined((yield* peer.closed).error)
          yield* endsWell(program, stage)
        }),
      10_000
    )

    it.live(`${protocol.name}: in flight when the drain begins are waited for`, () =>
      Effect.gen(function* () {
        const stage = new Stage()
        const layer = nodeApplication(stage, protocol, { quietPeriod: 0, closeTimeout: 100 }, listen(stage))
        const program = yield* Ways.launchSignal.start(layer)
        const peer = yield* Peers.session(port(stage.server), { tls: protocol.tls })
        const stream = peer.session.request({ ":method": "CONNECT", ":authority": "example.test:1" })
        stream.resume()
        const closed = new Promise<number>((resolve) => stream.on("close", () => resolve(stream.rstCode ?? -1)))
        yield* stage.entered("CONNECT")
        yield* Ways.drain(program, () => stage.server)
        yield* Effect.sleep(400)
        assert.isFalse(program.isEnded())
        stage.release()
        assert.strictEqual(yield* Effect.promise(() => closed), 0)
        yield* peer.closed
        yield* endsWell(program, stage)
      })
    )
  }
})

describe.concurrent("the report", () => {
  for (const protocol of [http, https]) {
    for (const host of ["127.0.0.1", undefined]) {
      it.live(`${protocol.name}, on ${host ?? "any address"}: names the peer of a WebSocket that never answered`, () =>
        Effect.gen(function* () {
          const stage = new Stage()
          const options = { closeTimeout: 200, ...(host === undefined ? {} : { host }) }
          const program = yield* Ways.launchSignal.start(application(stage, protocol, options))
          yield* Peers.deafWebSocket(port(stage.server), "/ws", { tls: protocol.tls })
          program.begin()
          const { report } = yield* program.ended
          const [{ cut, cutWork }] = report!.listeners as [Kms.Report["listeners"][number]]
          assert.strictEqual(cut, 1)
          assert.match(cutWork.join("; "), /^(upgrade GET \S+|CONNECT \S+|socket) from 127\.0\.0\.1:\d+ after \d/)
        })
      )
    }
  }
})

describe.concurrent("a request whose client goes in the turn in which it comes", () => {
  const { frames } = Peers
  const cancelled = frames.make(0x3, 0, 1, Buffer.from([0, 0, 0, 8]))
  const packets: ReadonlyArray<readonly [Protocol, string, Buffer]> = [
    [
      http,
      "with what is no request behind it",
      Buffer.from(packet("/never").trimEnd() + "\r\nContent-Length: 1\r\n\r\nx?!")
    ],
    [http, "as the second of two", Buffer.from(packet("/never", "/never") + "?!")],
    [
      h2c,
      "with RST_STREAM",
      Buffer.concat([frames.preface, frames.make(0x4, 0, 0), frames.get(1, "/never"), cancelled])
    ]
  ]
  for (const [protocol, how, bytes] of packets) {
    it.live(`${protocol.name}: ${how} it does not hold the shutdown`, () =>
      Effect.gen(function* () {
        const stage = new Stage()
        const limits = { lameDuck: 500, timeout: 8000 }
        const program = yield* Ways.launchSignal.start(application(stage, protocol, { closeTimeout: 0 }), limits)
        program.begin()
        yield* Effect.yieldNow
        const peer = yield* Peers.connect(port(stage.server))
        peer.send(bytes)
        yield* endsWell(program, stage)
        assert.strictEqual(stage.times("/never"), 0)
      })
    )
  }
})

describe.concurrent("layerNode: a response whose application sets the Connection header", () => {
  const heads: Record<string, (response: ServerResponse) => void> = {
    "with setHeader": (response) => void response.setHeader("Connection", "keep-alive"),
    "in an object": (response) => void response.writeHead(200, { "X-Other": "other", Connection: "keep-alive" }),
    "behind a reason": (response) => void response.writeHead(200, "Fine", { connection: "Keep-Alive" }),
    "before nothing": (response) =>
      void response.writeHead(200, { Connection: "keep-alive" } as unknown as string, undefined),
    "in a list": (response) => void response.writeHead(200, ["X-Other", "connection", "CONNECTION", "keep-alive"]),
    "in a list of pairs": (response) =>
      void response.writeHead(200, [
        ["X-Other", "connection"],
        ["Connection", "keep-alive"]
      ] as unknown as Array<string>),
    "beside another option": (response) => void response.writeHead(200, { Connection: "X-Other, keep-alive" }),
    "on a second try": (response) => {
      assert.throws(() => response.writeHead(200, { Connection: "keep-alive", "X-Other": "\n" }))
      response.writeHead(500, { Connection: "keep-alive" })
    }
  }
  const expected: Record<string, string> = { "beside another option": "X-Other, close" }

  for (const [name, head] of Object.entries(heads)) {
    it.live(`${name}: says close all the same in the drain, and keep-alive before`, () =>
      Effect.gen(function* () {
        const stage = new Stage()
        const listen = (server: Server) =>
          void server.on("request", (_: IncomingMessage, response: ServerResponse) => {
            head(response)
            response.end("whole")
          })
        const options = { quietPeriod: long, closeTimeout: long }
        const program = yield* Ways.launchSignal.start(nodeApplication(stage, http, options, listen))
        const peer = yield* used(stage, http)
        peer.get("/")
        const before = yield* peer.response
        assert.match(before.headers["connection"]!, /keep-alive/i)
        yield* Ways.drain(program, () => stage.server)
        peer.get("/")
        const { headers, text } = yield* peer.response
        assert.deepStrictEqual([text, headers["connection"]], ["whole", expected[name] ?? "close"])
        assert.strictEqual(headers["x-other"], before.headers["x-other"])
        assert.isUndefined((yield* peer.closed).error)
        yield* endsWell(program, stage)
      })
    )
  }
})

describe.concurrent("layerNode: a head that is written while the request still comes in", () => {
  it.live("says keep-alive, whatever is tried later, and the next request is answered with close", () =>
    Effect.gen(function* () {
      const stage = new Stage()
      const listen = (server: Server) =>
        void server.on("request", (request: IncomingMessage, response: ServerResponse) => {
          if (request.method === "GET") return void response.end("ok")
          response.writeHead(413).write("too ")
          request.resume().on("end", () => {
            assert.throws(() => response.writeHead(500))
            response.end("large")
          })
        })
      const options = { quietPeriod: long, closeTimeout: long }
      const program = yield* Ways.launchSignal.start(nodeApplication(stage, http, options, listen))
      const peer = yield* used(stage, http)
      yield* Ways.drain(program, () => stage.server)
      peer.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\nup")
      yield* peer.body(4)
      peer.send("load")
      const first = yield* peer.response
      assert.deepStrictEqual([first.text, first.headers["connection"]], ["too large", "keep-alive"])
      peer.get("/")
      const second = yield* peer.response
      assert.deepStrictEqual([second.text, second.headers["connection"]], ["ok", "close"])
      yield* peer.closed
      yield* endsWell(program, stage)
    })
  )
})

describe.concurrent("trouble that is not a request's", () => {
  const builds = {
    layer: (stage: Stage, protocol: Protocol) => application(stage, protocol, {}),
    layerNode: (stage: Stage, protocol: Protocol) =>
      nodeApplication(stage, protocol, {}, (server) => void server.on("request", stage.onRequest))
  }
  for (const [name, build] of Object.entries(builds)) {
    for (const protocol of [http, h2c]) {
      it.live(
        `${name}, ${protocol.name}: a connection that cannot be accepted is told of, and the listener goes on`,
        () =>
          Effect.gen(function* () {
            const stage = new Stage()
            const program = yield* Ways.launchSignal.start(build(stage, protocol))
            stage.server.emit("error", new Error("accept ENOBUFS"))
            assert.strictEqual((yield* Effect.flatMap(ask(stage, protocol, "/ok"), Fiber.join)).text, "ok")
            program.begin()
            const { log } = yield* program.ended
            assert.include(log.join("\n"), ": accept ENOBUFS")
          })
      )
    }
  }

  it.live("a predicate for event streams that throws fails no request", () =>
    Effect.gen(function* () {
      const stage = new Stage()
      stage.release()
      const eventStreams = () => {
        throw new Error("no idea")
      }
      const program = yield* Ways.launchSignal.start(application(stage, http, { eventStreams }))
      const { status, text } = yield* Effect.flatMap(ask(stage, http, "/chunked"), Fiber.join)
      assert.deepStrictEqual([status, text], [200, chunked])
      program.begin()
      yield* endsWell(program, stage)
    })
  )
})

describe.concurrent("the user's server", () => {
  const builds = {
    layer: (stage: Stage, protocol: Protocol) => application(stage, protocol, { quietPeriod: 0 }),
    layerNode: (stage: Stage, protocol: Protocol) =>
      nodeApplication(stage, protocol, { quietPeriod: 0 }, (server) => void server.on("request", stage.onRequest))
  }
  for (const [name, build] of Object.entries(builds)) {
    for (const protocol of [http, https, h2c, h2]) {
      for (const connected of [false, true]) {
        const which = connected ? "with a connection" : "without connections"
        it.live(`${name}, ${protocol.name}: emits close once, ${which} at the drain`, () =>
          Effect.gen(function* () {
            const stage = new Stage()
            const program = yield* Ways.launchSignal.start(build(stage, protocol))
            let closes = 0
            stage.server.on("close", () => closes++)
            const response = connected ? yield* ask(stage, protocol, "/slow") : undefined
            if (connected) yield* stage.entered("/slow")
            yield* Ways.drain(program, () => stage.server)
            stage.release()
            if (response !== undefined) yield* Fiber.join(response)
            yield* endsWell(program, stage)
            // Whoever would emit it once more does so in a turn of the event loop soon after.
            yield* Effect.sleep(50)
            assert.strictEqual(closes, 1)
          })
        )
      }
    }
  }
})

describe.concurrent("KmsHealth.serve", () => {
  const orders = {
    "above the application": (health: Layer.Layer<never>, api: Layer.Layer<never>) => Layer.provide(health, api),
    "beneath the application": (health: Layer.Layer<never>, api: Layer.Layer<never>) => Layer.provide(api, health),
    "merged before the application": (health: Layer.Layer<never>, api: Layer.Layer<never>) =>
      Layer.mergeAll(health, api),
    "merged after the application": (health: Layer.Layer<never>, api: Layer.Layer<never>) => Layer.mergeAll(api, health)
  }
  for (const [name, order] of Object.entries(orders)) {
    it.live(`${name}: has a router of its own`, () =>
      Effect.gen(function* () {
        const servers: Record<string, Server> = {}
        const listen = (name: string, options: Partial<KmsHttp.Options> = {}) =>
          KmsHttp.layer(() => (servers[name] = createServer()), { port: 0, ...options })
        const health = Layer.provide(KmsHealth.serve(), listen("health", { drainOn: "release" }))
        const api = HttpRouter.serve(HttpRouter.add("GET", "/secret", HttpServerResponse.text("secret")), {
          disableLogger: true,
          disableListenLog: true
        }).pipe(Layer.provide(listen("api")))
        const program = yield* Ways.launchSignal.start(order(Layer.orDie(health), Layer.orDie(api)))
        const seen: Record<string, number> = {}
        for (const listener of ["health", "api"]) {
          for (const path of ["/livez", "/readyz", "/secret"]) {
            const peer = yield* Peers.connect(port(servers[listener]!))
            peer.get(path, "Connection: close\r\n")
            seen[`${listener} ${path}`] = (yield* peer.response).status
          }
        }
        assert.deepStrictEqual(seen, {
          "health /livez": 200,
          "health /readyz": 200,
          "health /secret": 404,
          "api /livez": 404,
          "api /readyz": 404,
          "api /secret": 200
        })
        program.begin()
        yield* program.ended
        assert.deepStrictEqual([servers["health"]!.listening, servers["api"]!.listening], [false, false])
      })
    )
  }
})

describe.concurrent("layerNode: a handler whose event stream the drain has ended", () => {
  for (const protocol of [http, h2c]) {
    it.live(`${protocol.name}: has its callbacks called when it writes on, and when it ends`, () =>
      Effect.gen(function* () {
        const stage = new Stage()
        const done = yield* Deferred.make<ReadonlyArray<string>>()
        const layer = nodeApplication(stage, protocol, {}, (server) => {
          server.on("request", (_: IncomingMessage, response: ServerResponse) => {
            const calls: Array<string> = []
            response.writeHead(200, { "Content-Type": "text/event-stream" })
            response.write("data: x\n\n", () => stage.enter("written"))
            release(stage, () => {
              response.write("data: y\n\n", () => calls.push("write"))
              response.write("data: y\n\n", "utf8", () => calls.push("write with encoding"))
              response.end(() => {
                calls.push("end")
                response.end("bye", "utf8", () => {
                  calls.push("end with a chunk")
                  Deferred.doneUnsafe(done, Exit.succeed(calls))
                })
              })
            })
          })
        })
        const program = yield* Ways.launchSignal.start(layer)
        const body = yield* ask(stage, protocol, "/")
        yield* stage.entered("written")
        yield* Ways.drain(program, () => stage.server)
        stage.release()
        assert.deepStrictEqual(yield* Deferred.await(done), ["write", "write with encoding", "end", "end with a chunk"])
        assert.strictEqual((yield* Fiber.join(body)).text, "data: x\n\n")
        yield* endsWell(program, stage)
      })
    )
  }
})

/** A client of HTTP/2 that goes on as if it had not read GOAWAY. */
const deafSession = (stage: Stage, { tls }: Protocol): Effect.Effect<Peers.Peer, never, Scope.Scope> =>
  Effect.gen(function* () {
    const address = { host: "127.0.0.1", port: port(stage.server) }
    const peer = yield* Effect.acquireRelease(
      Effect.sync(
        () =>
          new Peers.Peer(
            tls
              ? connectTls({ ...address, ca: cert, servername: "localhost", ALPNProtocols: ["h2"] })
              : connectTcp(address),
            true
          )
      ),
      ({ socket }) => Effect.sync(() => socket.destroy())
    )
    // Each frame leaves in the turn in which it is sent.
    peer.socket.setNoDelay(true)
    peer.send(Peers.frames.preface)
    peer.send(Peers.frames.make(0x4, 0, 0))
    // Settings, or more, have come.
    yield* peer.raw(9)
    return peer
  })

/** What became of each stream, as a client may take it that knows RFC 9113 section 6.8. */
const fates = (raw: Buffer, streams: ReadonlyArray<number>) => {
  const frames = Peers.frames.parse(raw)
  const lasts = frames.filter(({ type }) => type === 0x7).map(({ payload }) => payload.readUInt32BE(0) & 0x7fffffff)
  const last = Math.min(...lasts)
  return new Map(
    streams.map((id) => {
      const own = frames.filter(({ stream }) => stream === id)
      const reset = own.find(({ type }) => type === 0x3)
      const whole = own.some(({ flags, type }) => (type === 0x0 || type === 0x1) && (flags & 0x1) !== 0)
      // What is above the last one a client may send once more, whatever else it hears.
      if (id > last) return [id, whole ? "answered above the last id" : "refused"] as const
      if (reset !== undefined) return [id, reset.payload.readUInt32BE(0) === 7 ? "refused" : "reset"] as const
      return [id, whole ? "answered" : "left in silence"] as const
    })
  )
}

describe("a stream that comes when GOAWAY is on its way", () => {
  const builds = {
    layer: (stage: Stage, protocol: Protocol, entered: (path: string) => void) =>
      application(
        stage,
        protocol,
        { quietPeriod: 200, closeTimeout: 1000 },
        HttpRouter.add("GET", "/n/*", (request) =>
          Effect.sync(() => {
            entered(request.url)
            return HttpServerResponse.text("n")
          })
        )
      ),
    layerNode: (stage: Stage, protocol: Protocol, entered: (path: string) => void) =>
      nodeApplication(stage, protocol, { quietPeriod: 200, closeTimeout: 1000 }, (server) => {
        server.on("request", (request: IncomingMessage, response: ServerResponse) => {
          if (!request.url!.startsWith("/n/")) return stage.onRequest(request, response)
          entered(request.url!)
          response.end("n")
        })
      })
  }

  for (const [name, build] of Object.entries(builds)) {
    for (const protocol of [h2c, h2]) {
      for (const slow of [true, false]) {
        for (const way of ways) {
          const beside = slow ? "beside one in flight" : "with nothing else in flight"
          it.live(
            `${name}, ${protocol.name}, ${way.name}, ${beside}: is either executed and answered, or refused`,
            () =>
              Effect.gen(function* () {
                const stage = new Stage()
                const executed = new Set<string>()
                const program = yield* way.start(build(stage, protocol, (path) => executed.add(path)))
                const sessions: Array<{ peer: Peers.Peer; streams: Array<number> }> = []
                for (let count = 0; count < 6; count++) {
                  sessions.push({ peer: yield* deafSession(stage, protocol), streams: [] })
                }
                if (slow) for (const { peer } of sessions) peer.send(Peers.frames.get(1, "/slow"))
                if (slow) yield* stage.entered("/slow", sessions.length)
                let next = 3
                yield* Effect.callback<void>((resume) => {
                  let after = 0
                  const ask = () => {
                    if (!stage.server.listening) after++
                    if (after > 10) return resume(Effect.void)
                    sessions.forEach(({ peer, streams }, index) => {
                      if (peer.isClosed || peer.socket.writableEnded) return
                      const ids = index % 2 === 0 ? [next] : [next, next + 2, next + 4]
                      peer.send(Buffer.concat(ids.map((id) => Peers.frames.get(id, `/n/${index}/${id}`))))
                      streams.push(...ids)
                    })
                    next += 6
                    if (next === 63) program.begin()
                    // At changing moments of a turn.
                    if (next % 4 === 1) setImmediate(ask)
                    else setImmediate(() => setImmediate(ask))
                  }
                  ask()
                })
                stage.release()
                let answered = 0
                for (const [index, { peer, streams }] of sessions.entries()) {
                  yield* peer.closed
                  const raw = yield* peer.raw(9)
                  for (const [id, fate] of fates(raw, streams)) {
                    const expected = executed.has(`/n/${index}/${id}`) ? "answered" : "refused"
                    assert.strictEqual(fate, expected, `stream ${id} of session ${index}`)
                    if (fate === "answered") answered++
                  }
                }
                assert.strictEqual(answered, executed.size)
                assert.isAbove(answered, 20)
                yield* endsWell(program, stage)
              }),
            10_000
          )
        }
      }

      it.live(`${name}, ${protocol.name}: is refused in a way that Node's own client repeats`, () =>
        Effect.gen(function* () {
          const stage = new Stage()
          const executed = new Set<string>()
          const program = yield* Ways.launchSignal.start(build(stage, protocol, (path) => executed.add(path)))
          const peer = yield* Peers.session(port(stage.server), { tls: protocol.tls })
          const slow = peer.request("/slow")
          yield* stage.entered("/slow")
          yield* Ways.drain(program, () => stage.server)
          const outcomes = yield* Effect.forEach([1, 2, 3, 4], (n) => peer.ask(`/n/${n}`), { concurrency: 4 })
          assert.strictEqual(outcomes.filter((outcome) => outcome === "answered").length, executed.size)
          assert.deepStrictEqual(
            outcomes.filter((outcome) => outcome.startsWith("failed")),
            []
          )
          stage.release()
          assert.strictEqual((yield* slow.response).text, "slow")
          assert.isUndefined((yield* peer.closed).error)
          yield* endsWell(program, stage)
        })
      )
    }
  }
})

describe("a stream that comes while GOAWAY waits behind an answer that its client does not read", () => {
  /** More than the kernel holds. */
  const large = Buffer.alloc(16 * 1024 * 1024, "x")

  const builds = {
    layer: (stage: Stage, protocol: Protocol) => {
      const answer = (path: `/${string}`, body: Uint8Array) =>
        HttpRouter.add(
          "GET",
          path,
          Effect.sync(() => {
            stage.enter(path)
            return HttpServerResponse.uint8Array(body)
          })
        )
      return application(
        stage,
        protocol,
        { closeTimeout: long, quietPeriod: long },
        Layer.mergeAll(answer("/large", large), answer("/late", Buffer.from("late")))
      )
    },
    layerNode: (stage: Stage, protocol: Protocol) =>
      nodeApplication(stage, protocol, { closeTimeout: long, quietPeriod: long }, (server) => {
        server.on("request", (request: IncomingMessage, response: ServerResponse) => {
          stage.enter(request.url!)
          response.end(request.url === "/large" ? large : "late")
        })
        server.on("connect", ((_: Http2ServerRequest, response: Http2ServerResponse) => {
          stage.enter("/late")
          response.end("late")
        }) as never)
      })
  }

  /** `:method CONNECT` and `:authority x`, without Huffman coding or a dynamic table. */
  const connect = Buffer.from([0x02, 7, ...Buffer.from("CONNECT"), 0x01, 1, ...Buffer.from("x")])

  for (const [name, build] of Object.entries(builds)) {
    for (const protocol of [h2c, h2]) {
      for (const method of name === "layer" ? ["GET"] : ["GET", "CONNECT"]) {
        it.live(
          `${name}, ${protocol.name}: is refused, its handler never runs, and the session closes (${method})`,
          () =>
            Effect.gen(function* () {
              const stage = new Stage()
              const program = yield* Ways.launchSignal.start(build(stage, protocol))
              const { socket } = yield* deafSession(stage, protocol)
              const chunks: Array<Buffer> = []
              socket.removeAllListeners("data").on("data", (chunk: Buffer) => chunks.push(chunk))
              const closed = new Promise<void>((resolve) => socket.on("close", resolve))
              let executed = false
              yield* Effect.forkScoped(Effect.map(stage.entered("/late"), () => (executed = true)))
              // All that flow control can allow: on each stream, and on the connection.
              const window = Buffer.from([0x7f, 0xff, 0xff, 0xff])
              const rest = Buffer.alloc(4)
              rest.writeUInt32BE(0x7fffffff - 65535)
              socket.pause()
              socket.write(Peers.frames.make(0x4, 0, 0, Buffer.concat([Buffer.from([0, 4]), window])))
              socket.write(Peers.frames.make(0x8, 0, 0, rest))
              socket.write(Peers.frames.get(1, "/large"))
              yield* stage.entered("/large")
              yield* Effect.sleep(100)
              yield* Ways.drain(program, () => stage.server)
              socket.write(method === "GET" ? Peers.frames.get(3, "/late") : Peers.frames.make(0x1, 0x5, 3, connect))
              yield* Effect.sleep(200)
              assert.isFalse(program.isEnded())
              socket.resume()
              yield* Effect.promise(() => closed)
              const seen = fates(Buffer.concat(chunks), [1, 3])
              assert.deepStrictEqual([seen.get(1), seen.get(3), executed], ["answered", "refused", false])
              yield* endsWell(program, stage)
            }),
          10_000
        )
      }
    }
  }
})
