/**
 * The invariants of DESIGN.md, one after the other, each by the shortest proof there is. `npm run mutants` takes away what
 * keeps each of them and sees that its test fails. Invariants 4, 5 and 8 need a process: see test/e2e.
 */
import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Logger, References, Scope } from "effect"
import { HttpRouter, HttpServer, HttpServerResponse } from "effect/http"
import { TestClock } from "effect/testing"
import { Kms, KmsHttp } from "effect-kms"
import { createHook } from "node:async_hooks"
import { createServer, type Server, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import * as Host from "./support/host.ts"
import * as Peers from "./support/peers.ts"
import { http, Stage } from "./support/stage.ts"
import * as Ways from "./support/ways.ts"

const silent = Effect.provideService(References.MinimumLogLevel, "None")
const settle = Effect.repeat(Effect.yieldNow, { times: 50 })

const port = (server: Server): number => (server.address() as AddressInfo).port

/** The stage as an application on a listener of its own, beneath it a resource. */
const application = (stage: Stage, options: Partial<KmsHttp.Options> = {}) =>
  // Built apart: a layer that is provided to another HttpRouter.serve would share its router with it.
  Layer.effectDiscard(
    Layer.build(
      HttpRouter.serve(stage.routes, { disableLogger: true, disableListenLog: true }).pipe(
        Layer.provide(KmsHttp.layer(stage.evaluate(http), { port: 0, ...options })),
        Layer.provide(stage.resource)
      )
    )
  )

const launch = (layer: Layer.Layer<never, unknown>, options: Kms.Options = {}) =>
  Effect.gen(function* () {
    const host = Host.make()
    const started = yield* Deferred.make<Kms.Kms>()
    const app = Layer.effectDiscard(Effect.flatMap(Kms.Kms, (kms) => Deferred.succeed(started, kms))).pipe(
      Layer.provide(layer)
    )
    const fiber = yield* Kms.launch(app, options).pipe(
      host.provide,
      silent,
      Effect.forkDetach({ startImmediately: true })
    )
    return { host, fiber, kms: Deferred.await(started) }
  })

describe("invariants", () => {
  it.live("invariant 1: after the last call no listener accepts, whatever layer it sits in", () =>
    Effect.gen(function* () {
      const above = new Stage()
      const beneath = new Stage()
      const health = new Stage()
      const program = yield* Ways.launchSignal.start(
        application(above).pipe(
          Layer.provide(application(beneath)),
          Layer.provide(application(health, { drainOn: "release" }))
        )
      )
      const ports = [above, beneath, health].map((stage) => port(stage.server))
      const busy = yield* Peers.connect(ports[0]!)
      busy.get("/slow")
      yield* above.entered("/slow")
      yield* Ways.drain(program, () => above.server)
      const refused = yield* Effect.forEach(ports, Peers.isRefused)
      above.release()
      yield* busy.response
      yield* program.ended
      assert.deepStrictEqual(refused, [true, true, false])
    }).pipe(Effect.scoped)
  )

  it.live("invariant 2: a request that is here before the signal gets its whole response", () =>
    Effect.gen(function* () {
      const stage = new Stage()
      const program = yield* Ways.launchSignal.start(application(stage))
      const plain = yield* Peers.connect(port(stage.server))
      const pipelined = yield* Peers.connect(port(stage.server))
      const half = yield* Peers.connect(port(stage.server))
      plain.get("/slow")
      pipelined.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2))
      half.send("GET /ok HT")
      yield* stage.entered("/slow", 3)
      yield* Ways.drain(program, () => stage.server)
      half.send("TP/1.1\r\nHost: a\r\n\r\n")
      stage.release()
      const answers = yield* Effect.all([plain.response, pipelined.response, pipelined.response, half.response], {
        concurrency: "unbounded"
      }).pipe(Effect.timeout("10 seconds"))
      assert.deepStrictEqual(
        answers.map(({ headers, text }) => [text, headers["connection"]]),
        [
          ["slow", "close"],
          ["slow", "keep-alive"],
          ["slow", "close"],
          ["ok", "close"]
        ]
      )
      yield* program.ended
    }).pipe(Effect.scoped)
  )

  it.live("invariant 3: while a request, an upgraded handler or a busy section runs, nothing has been closed", () =>
    Effect.gen(function* () {
      // Whichever of the two is the last.
      for (const last of ["job", "request"]) {
        const stage = new Stage()
        const finish = yield* Deferred.make<void>()
        const job = Effect.andThen(
          Deferred.await(finish),
          Effect.sync(() => stage.leave("job"))
        ).pipe(Kms.busy("job"), Effect.forkDetach({ startImmediately: true }))
        // Beside the listener, not beneath it: no layer says that the request needs it.
        const program = yield* Ways.launchSignal.start(
          Layer.mergeAll(
            HttpRouter.serve(stage.routes, { disableLogger: true, disableListenLog: true }).pipe(
              Layer.provide(KmsHttp.layer(stage.evaluate(http), { port: 0 }))
            ),
            Layer.effectDiscard(job),
            stage.resource
          )
        )
        const peer = yield* Peers.connect(port(stage.server))
        const socket = yield* Peers.webSocket(port(stage.server), "/ws")
        peer.get("/slow")
        yield* Effect.all([stage.entered("/slow"), stage.entered("/ws")])
        yield* Ways.drain(program, () => stage.server)
        assert.strictEqual((yield* socket.closed).code, 1001)
        const endJob = Deferred.succeed(finish, undefined)
        const endRequest = Effect.suspend(() => {
          stage.release()
          return Effect.andThen(peer.response, peer.closed)
        })
        yield* last === "job" ? endRequest : endJob
        // Time enough to unwind, for a program that did not wait for the other.
        yield* Effect.sleep("200 millis")
        assert.isTrue(stage.open)
        yield* last === "job" ? endJob : endRequest
        yield* program.ended
        assert.deepStrictEqual(stage.trouble, [])
        assert.deepStrictEqual(stage.told, ["/ws"])
      }
    }).pipe(Effect.scoped)
  )

  it.effect("invariant 6: a second signal exits at once, one Ctrl-C that arrives twice does not", () =>
    Effect.gen(function* () {
      const { host, kms } = yield* launch(Layer.effectDiscard(Kms.addFinalizer("slow", () => Effect.never)))
      yield* kms
      host.signal("SIGINT")
      yield* TestClock.adjust("32 millis")
      host.signal("SIGINT")
      assert.deepStrictEqual(host.exits, [])
      host.signal("SIGTERM")
      assert.deepStrictEqual(host.exits, [1])
    })
  )

  it.live("invariant 7: every resource is released exactly once, also when a start-up fails or is signalled", () =>
    Effect.gen(function* () {
      const run = (last: Effect.Effect<unknown, string>, signal: boolean) =>
        Effect.gen(function* () {
          const log: Array<string> = []
          const resource = (name: string) =>
            Layer.effectDiscard(
              Effect.acquireRelease(
                Effect.sync(() => void log.push(`+${name}`)),
                () => Effect.sync(() => void log.push(`-${name}`))
              )
            )
          const stage = new Stage()
          const reached = yield* Deferred.make<void>()
          const layer = Layer.effectDiscard(Effect.andThen(Deferred.succeed(reached, undefined), last)).pipe(
            Layer.provide(Layer.mergeAll(application(stage), resource("cache"))),
            Layer.provide(resource("database"))
          )
          const { fiber, host } = yield* launch(layer)
          yield* Deferred.await(reached)
          if (signal) host.signal("SIGTERM")
          yield* Fiber.await(fiber).pipe(Effect.timeout("10 seconds"))
          assert.isFalse(stage.server.listening)
          yield* settle
          assert.strictEqual(host.listeners(), 0)
          return log
        })
      const once = ["+database", "+cache", "-cache", "-database"]
      assert.deepStrictEqual(yield* run(Effect.void, true), once)
      assert.deepStrictEqual(yield* run(Effect.fail("no"), false), once)
      assert.deepStrictEqual(yield* run(Effect.never, true), once)
      assert.deepStrictEqual(yield* run(Effect.fail("no"), true), once)
    })
  )

  it.effect("invariant 9: the shutdown goes by Effect's clock, a peer by real time", () =>
    Effect.gen(function* () {
      const stage = new Stage()
      const layer = Layer.mergeAll(
        application(stage),
        Layer.effectDiscard(Effect.forkScoped(Effect.never.pipe(Kms.busy("endless")))),
        Layer.effectDiscard(Kms.addFinalizer("flush", () => Effect.never, { timeout: "1 hour" }))
      )
      const { fiber, host, kms } = yield* launch(layer, { timeout: "2 hours", lameDuck: "30 minutes" })
      const service = yield* kms
      // Used a moment ago: it goes when it has been quiet for a while, of a time that no test moves.
      stage.server.keepAliveTimeout = 60_000
      const peer = yield* Peers.connect(port(stage.server))
      peer.get("/ok")
      yield* peer.response
      host.signal("SIGTERM")
      yield* settle
      yield* TestClock.adjust("30 minutes")
      assert.strictEqual(yield* Effect.map(Deferred.await(service.initiated), ({ _tag }) => _tag), "Signal")
      yield* TestClock.withLive(Effect.timeout(peer.closed, "5 seconds"))
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("90 minutes")
      yield* settle
      // What is released after the cut has a part of forceTimeout.
      yield* TestClock.adjust("2 seconds")
      const exit = yield* Fiber.await(fiber)
      assert.isTrue(Exit.isFailure(exit))
    }).pipe(Effect.scoped)
  )

  it.live("invariant 10: closing one of two applications on a listener drains that one alone", () =>
    Effect.gen(function* () {
      const first = new Stage()
      const second = new Stage()
      first.open = second.open = true
      let server!: Server
      const scope = yield* Scope.make()
      const build = <A, E, R>(layer: Layer.Layer<A, E, R>, scope: Scope.Scope) => Layer.buildWithScope(layer, scope)
      const context = yield* build(
        KmsHttp.layer(() => (server = createServer()), { port: 0 }),
        scope
      )
      const serve = (stage: Stage) =>
        Effect.gen(function* () {
          const scope = yield* Scope.make()
          yield* build(HttpRouter.serve(stage.routes, { disableLogger: true, disableListenLog: true }), scope).pipe(
            Effect.provideContext(context)
          )
          return scope
        })
      yield* serve(first)
      const early = yield* Peers.connect(port(server))
      early.get("/slow")
      yield* first.entered("/slow")
      const later = yield* serve(second)
      const late = yield* Peers.connect(port(server))
      late.get("/slow")
      yield* second.entered("/slow")
      const closing = yield* Effect.forkChild(Scope.close(later, Exit.void), { startImmediately: true })
      // The one that closes finishes its own, the other answers what comes, on the same connections.
      const other = yield* Peers.connect(port(server))
      other.get("/ok")
      assert.strictEqual((yield* other.response).headers["connection"], "keep-alive")
      assert.isUndefined(closing.pollUnsafe())
      second.release()
      assert.strictEqual((yield* late.response).text, "slow")
      yield* Fiber.join(closing)
      assert.isTrue(server.listening)
      late.get("/ok")
      assert.strictEqual((yield* late.response).text, "ok")
      first.release()
      assert.strictEqual((yield* early.response).headers["connection"], "keep-alive")
      yield* Scope.close(scope, Exit.void)
    }).pipe(Effect.scoped)
  )

  it.live("invariant 11: the report is true", () =>
    Effect.gen(function* () {
      const stage = new Stage()
      const program = yield* Ways.launchSignal.start(application(stage, { name: "api" }), {
        timeout: 700,
        forceTimeout: 400
      })
      const peers = yield* Effect.all(Array.from({ length: 5 }, () => Peers.connect(port(stage.server))))
      for (const peer of peers.slice(0, 3)) peer.get("/slow")
      peers[3]!.get("/never?token=secret")
      peers[4]!.get("/stubborn")
      yield* Effect.all([stage.entered("/slow", 3), stage.entered("/never"), stage.entered("/stubborn")])
      yield* Ways.drain(program, () => stage.server)
      stage.release()
      yield* Effect.forEach(peers.slice(0, 3), (peer) => peer.response)
      const { report } = yield* program.ended
      assert.deepInclude(report, { forced: true })
      const [listener] = report!.listeners
      assert.deepInclude(listener, { name: "api", kind: "http", drained: 3, cut: 2, abandoned: 1 })
      assert.isAtLeast(listener!.to - listener!.from, 600)
      assert.match(Array.from(listener!.cutWork).sort().join(), /GET \/never from .*GET \/stubborn from /)
      assert.notInclude(listener!.cutWork.join(), "secret")
    }).pipe(Effect.scoped)
  )

  it.live("invariant 12: a request costs no fiber, no promise and no listener more than without the library", () =>
    Effect.gen(function* () {
      const requests = 200
      /** Fibers and promises for as many requests on one connection, and the listeners on their responses. */
      const cost = (make: (evaluate: () => Server) => Layer.Layer<HttpServer.HttpServer, unknown>) =>
        Effect.gen(function* () {
          let server!: Server
          const layer = HttpServer.serve(Effect.succeed(HttpServerResponse.text("ok"))).pipe(
            Layer.provide(make(() => (server = createServer())))
          )
          yield* Layer.build(layer)
          const listeners = new Set<unknown>()
          let most = 0
          server.on("request", (_, response: ServerResponse) => {
            const own = response.listeners("close")
            most = Math.max(most, own.length)
            for (const listener of own) listeners.add(listener)
          })
          const peer = yield* Peers.connect(port(server))
          const request = Effect.suspend(() => {
            peer.get("/")
            return peer.response
          })
          yield* request
          let promises = 0
          const hook = createHook({ init: (_id, type) => void (type === "PROMISE" && promises++) }).enable()
          const before = yield* fiberId
          yield* Effect.repeat(request, { times: requests })
          const fibers = (yield* fiberId) - before
          hook.disable()
          return { fibers, promises, most, shared: listeners.size }
        }).pipe(Effect.scoped, Effect.provide(Logger.layer([])))
      const without = yield* cost((evaluate) => NodeHttpServer.layer(evaluate, { port: 0 }))
      const withKms = yield* cost((evaluate) => KmsHttp.layer(evaluate, { port: 0 }))
      // Both do a little beside the requests.
      assert.isBelow(Math.abs(withKms.fibers - without.fibers), requests / 4)
      assert.isBelow(Math.abs(withKms.promises - without.promises), requests / 4)
      assert.isAtMost(withKms.most, without.most + 1)
      // The one that is ours is the same for all of them.
      assert.isAtMost(withKms.shared, without.shared + 1)
    })
  )
})

/** The next fiber's number. */
const fiberId = Effect.map(Effect.forkChild(Effect.void, { startImmediately: true }), (fiber) => fiber.id)
