import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, References } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { Kms, KmsHealth, KmsHttp } from "effect-kms"
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import * as Host from "./support/host.ts"
import * as Peers from "./support/peers.ts"

const port = (server: Server) => (server.address() as AddressInfo).port

/** What one request on a connection of its own is answered with. */
const ask = (server: Server, path: string, method = "GET") =>
  Effect.gen(function* () {
    const peer = yield* Peers.connect(port(server))
    peer.send(`${method} ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`)
    if (method === "HEAD") return { status: (yield* peer.head).status, body: undefined }
    const { status, text } = yield* peer.response
    return { status, body: text.startsWith("{") ? (JSON.parse(text) as unknown) : text }
  }).pipe(Effect.scoped)

describe("KmsHealth", () => {
  it.live("readiness goes with the lame duck, liveness stays until the application has been released", () =>
    Effect.gen(function* () {
      const host = Host.make()
      const held = yield* Deferred.make<void>()
      const draining = yield* Deferred.make<void>()
      const unwinding = yield* Deferred.make<void>()
      const started = yield* Deferred.make<void>()
      let health!: Server
      let api!: Server
      const Health = KmsHealth.serve().pipe(
        Layer.provide(KmsHttp.layer(() => (health = createServer()), { port: 0, drainOn: "release" }))
      )
      const Api = HttpRouter.serve(HttpRouter.add("GET", "/", HttpServerResponse.text("Home")), {
        disableLogger: true,
        disableListenLog: true
      }).pipe(
        Layer.provide(KmsHttp.layer(() => (api = createServer()), { port: 0 })),
        Layer.provideMerge(
          Layer.effectDiscard(
            Effect.gen(function* () {
              yield* Effect.addFinalizer(() =>
                Effect.andThen(Deferred.succeed(unwinding, undefined), Deferred.await(held))
              )
              yield* Kms.initiated.pipe(Effect.andThen(Deferred.succeed(draining, undefined)), Effect.forkScoped)
            })
          )
        ),
        Layer.provide(Health)
      )
      const fiber = yield* Layer.effectDiscard(Deferred.succeed(started, undefined)).pipe(
        Layer.provide(Api),
        Kms.launch({ lameDuck: "1 second" }),
        host.provide,
        Effect.provideService(References.MinimumLogLevel, "None"),
        Effect.forkDetach
      )
      yield* Deferred.await(started)
      const running = { status: 200, body: { status: "ok", phase: "Running" } }
      assert.deepStrictEqual(yield* ask(health, "/readyz"), running)
      assert.deepStrictEqual(yield* ask(health, "/livez"), running)
      assert.strictEqual((yield* ask(health, "/readyz", "HEAD")).status, 200)
      assert.strictEqual((yield* ask(api, "/readyz")).status, 404, "the probes are not on the application's port")
      assert.strictEqual((yield* ask(health, "/")).status, 404, "nor is the application on theirs")

      host.signal("SIGTERM")
      const ready = yield* ask(health, "/readyz")
      assert.deepStrictEqual(ready, { status: 503, body: { status: "unavailable", phase: "LameDuck" } })
      assert.strictEqual((yield* ask(api, "/")).status, 200)

      yield* Deferred.await(unwinding)
      assert.isTrue(Deferred.isDoneUnsafe(draining))
      assert.isFalse(api.listening)
      assert.deepStrictEqual(yield* ask(health, "/livez"), { status: 200, body: { status: "ok", phase: "Unwinding" } })
      assert.strictEqual((yield* ask(health, "/readyz", "HEAD")).status, 503)
      yield* Deferred.succeed(held, undefined)
      yield* Fiber.await(fiber)
      assert.isFalse(health.listening)
    })
  )

  it.live("the paths are the application's to choose", () =>
    Effect.gen(function* () {
      let server!: Server
      yield* Layer.build(
        HttpRouter.serve(KmsHealth.layer({ live: "/alive", ready: "/ready" }), {
          disableLogger: true,
          disableListenLog: true
        }).pipe(Layer.provide(KmsHttp.layer(() => (server = createServer()), { port: 0, quietPeriod: 0 })))
      )
      assert.strictEqual((yield* ask(server, "/alive")).status, 200)
      assert.strictEqual((yield* ask(server, "/ready")).status, 200)
      assert.strictEqual((yield* ask(server, "/livez")).status, 404)
    }).pipe(Effect.scoped)
  )
})
