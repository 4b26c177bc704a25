/** What the options of a listener change about its drain. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Layer } from "effect"
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import { Kms, KmsHttp } from "effect-kms"
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import * as Peers from "./support/peers.ts"
import { http, Stage } from "./support/stage.ts"
import * as Ways from "./support/ways.ts"

const port = (server: Server): number => (server.address() as AddressInfo).port

const application = (stage: Stage, options: Partial<KmsHttp.Options> = {}) =>
  HttpRouter.serve(stage.routes, { disableLogger: true, disableListenLog: true }).pipe(
    Layer.provide(KmsHttp.layer(stage.evaluate(http), { port: 0, ...options })),
    Layer.provide(stage.resource)
  )

const packet = (...paths: ReadonlyArray<string>) =>
  paths.map((path) => `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`).join("")

describe("lameDuck", () => {
  it.live("requests that come together are all answered, and only the last says close", () =>
    Effect.gen(function* () {
      const stage = new Stage()
      const program = yield* Ways.launchSignal.start(application(stage), { lameDuck: 1000 })
      const peer = yield* Peers.connect(port(stage.server))
      peer.get("/ok")
      yield* peer.response
      program.begin()
      yield* Effect.yieldNow
      peer.send(packet("/ok", "/ok", "/ok"))
      const answers = yield* Effect.all([peer.response, peer.response, peer.response])
      assert.deepStrictEqual(
        answers.map(({ headers }) => headers["connection"]),
        ["keep-alive", "keep-alive", "close"]
      )
      assert.isTrue(stage.server.listening)
      yield* program.ended
    }).pipe(Effect.scoped)
  )
})

describe("Kms.draining", () => {
  it.live.each(Ways.ways)("$name: lets a long poll give up, and a handler that has upgraded", (way) =>
    Effect.gen(function* () {
      const stage = new Stage()
      const poll = Effect.sync(() => stage.enter("/poll")).pipe(
        Effect.andThen(Kms.draining),
        Effect.as(HttpServerResponse.empty({ status: 204 }))
      )
      const socket = Effect.gen(function* () {
        const request = yield* HttpServerRequest.HttpServerRequest
        const upgraded = yield* request.upgrade
        yield* upgraded.reader
        const { write } = yield* upgraded.writer
        stage.enter("/socket")
        yield* Kms.busy("goodbye")(Effect.andThen(Kms.draining, write("draining")))
        return HttpServerResponse.empty()
      }).pipe(Effect.orDie)
      const routes = Layer.merge(HttpRouter.add("GET", "/poll", poll), HttpRouter.add("GET", "/socket", socket))
      const program = yield* way.start(
        HttpRouter.serve(routes, { disableLogger: true, disableListenLog: true }).pipe(
          Layer.provide(KmsHttp.layer(stage.evaluate(http), { port: 0 }))
        )
      )
      const peer = yield* Peers.connect(port(stage.server))
      peer.get("/poll")
      const webSocket = yield* Peers.webSocket(port(stage.server), "/socket")
      yield* Effect.all([stage.entered("/poll"), stage.entered("/socket")])
      program.begin()
      const { headers, status } = yield* peer.response
      assert.deepStrictEqual([status, headers["connection"]], [204, "close"])
      assert.strictEqual(yield* webSocket.message, "draining")
      yield* program.ended
    }).pipe(Effect.scoped)
  )
})

describe("drainTimeout", () => {
  it.live("cuts its listener alone, and is an exit with 1", () =>
    Effect.gen(function* () {
      const short = new Stage()
      const long = new Stage()
      const program = yield* Ways.launchSignal.start(
        Layer.mergeAll(
          Layer.effectDiscard(Layer.build(application(short, { name: "short", drainTimeout: "300 millis" }))),
          Layer.effectDiscard(Layer.build(application(long, { name: "long" })))
        )
      )
      const cut = yield* Peers.connect(port(short.server))
      const kept = yield* Peers.connect(port(long.server))
      cut.get("/never")
      kept.get("/slow")
      yield* Effect.all([short.entered("/never"), long.entered("/slow")])
      program.begin()
      yield* cut.closed
      assert.lengthOf(cut.responses, 0)
      long.release()
      assert.strictEqual((yield* kept.response).text, "slow")
      const { exit, log, report } = yield* program.ended
      assert.isFalse(report!.forced)
      assert.deepStrictEqual(
        report!.listeners.map(({ cut, drained, forced, name }) => ({ cut, drained, forced, name })),
        [
          { name: "short", forced: true, cut: 1, drained: 0 },
          { name: "long", forced: false, cut: 0, drained: 1 }
        ]
      )
      assert.match(log.join("\n"), /complete, with work cut/)
      const codes: Array<number> = []
      const ended = yield* Deferred.make<void>()
      Kms.teardown(exit, (code) => {
        codes.push(code)
        Deferred.doneUnsafe(ended, Exit.void)
      })
      yield* Deferred.await(ended)
      assert.deepStrictEqual(codes, [1])
    }).pipe(Effect.scoped)
  )

  it.live("is told of in the log where no shutdown has a report", () =>
    Effect.gen(function* () {
      const stage = new Stage()
      const program = yield* Ways.rootInterrupted.start(application(stage, { name: "api", drainTimeout: "200 millis" }))
      const peer = yield* Peers.connect(port(stage.server))
      peer.get("/never?token=secret")
      yield* stage.entered("/never")
      program.begin()
      const { exit, log } = yield* program.ended
      assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
      assert.match(log.join("\n"), /api was cut after .*1 cut: GET \/never from/)
      assert.notInclude(log.join("\n"), "secret")
    }).pipe(Effect.scoped)
  )
})

describe("drainOn: release", () => {
  it.live("its requests are answered while everything above unwinds, busy sections in them too", () =>
    Effect.gen(function* () {
      const unwinding = yield* Deferred.make<void>()
      const held = yield* Deferred.make<void>()
      let server!: Server
      const Admin = HttpServer.serve(
        Effect.succeed(HttpServerResponse.text("admin")).pipe(
          Kms.busy("admin"),
          Effect.tap(Effect.scoped(Kms.busyScoped("scoped")))
        )
      ).pipe(Layer.provide(KmsHttp.layer(() => (server = createServer()), { port: 0, drainOn: "release" })))
      const program = yield* Ways.launchSignal.start(
        Layer.effectDiscard(
          Effect.addFinalizer(() => Effect.andThen(Deferred.succeed(unwinding, undefined), Deferred.await(held)))
        ).pipe(Layer.provide(Admin))
      )
      program.begin()
      yield* Deferred.await(unwinding)
      const peer = yield* Peers.connect(port(server))
      peer.get("/")
      const { headers, text } = yield* peer.response
      assert.deepStrictEqual([text, headers["connection"]], ["admin", "keep-alive"])
      yield* Deferred.succeed(held, undefined)
      yield* program.ended
      assert.isFalse(server.listening)
    }).pipe(Effect.scoped)
  )
})
