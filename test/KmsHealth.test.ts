import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import {
  type Cause,
  Context,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Latch,
  Layer,
  Logger,
  References,
  Scope,
  SubscriptionRef
} from "effect"
import { type HttpServer, HttpRouter, HttpServerResponse } from "effect/http"
import { TestClock } from "effect/testing"
import { Kms, KmsHealth, KmsHttp } from "effect-kms"
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import * as Checks from "../src/internal/checks.ts"
import { Process } from "../src/internal/process.ts"
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

/** Every byte of the answer to it. */
const bytes = (server: Server, path: string, method: string) =>
  Effect.gen(function* () {
    const peer = yield* Peers.connect(port(server), { raw: true })
    peer.send(`${method} ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`)
    yield* peer.end
    return (yield* peer.raw(1)).toString()
  }).pipe(Effect.scoped)

/** Probes on a listener of their own, without a shutdown. */
const serving = Effect.fnUntraced(function* (options: KmsHealth.Options<Readonly<Record<string, Scope.Scope>>>) {
  let server!: Server
  let asked = 0
  const looks = new Set<() => void>()
  const listener = KmsHttp.layer(
    () => {
      server = createServer()
      server.on("request", () => {
        asked++
        for (const look of looks) look()
      })
      return server
    },
    { port: 0, drainOn: "release", quietPeriod: 0 }
  )
  const scope = yield* Scope.make()
  yield* Effect.addFinalizer((exit) => Scope.close(scope, exit))
  yield* Layer.buildWithScope(Layer.provide(KmsHealth.serve(options), listener), scope)
  return {
    server,
    close: Scope.close(scope, Exit.void),
    ready: Effect.suspend(() => ask(server, "/readyz")),
    /** As many requests have come. */
    asked: (count: number) =>
      Effect.callback<void>((resume) => {
        const look = () => {
          if (asked >= count) resume(Effect.void)
        }
        looks.add(look)
        look()
        return Effect.sync(() => looks.delete(look))
      })
  }
})

const quiet = Effect.provideService(References.MinimumLogLevel, "None")

const answer = (verdict: "ok" | "failed" | "timed out") => ({
  status: verdict === "ok" ? 200 : 503,
  body: { status: verdict === "ok" ? "ok" : "unavailable", phase: "Running", checks: { database: verdict } }
})

/** A check that counts its runs, says when one has begun, and ends when it is let. */
const makeCheck = () => {
  const counts = { runs: 0, interrupted: 0 }
  const begun = Latch.makeUnsafe()
  const end = Latch.makeUnsafe()
  const run = Effect.suspend(() => {
    counts.runs++
    begun.openUnsafe()
    return Effect.onInterrupt(end.await, () => Effect.sync(() => void counts.interrupted++))
  })
  return { counts, begun, end, run }
}

class Database extends Context.Service<Database, { readonly ping: Effect.Effect<void, string> }>()("Database") {}
class Cache extends Context.Service<Cache, { readonly isWarm: Effect.Effect<boolean> }>()("Cache") {}

describe("KmsHealth", () => {
  it.live("readiness goes with the lame duck, liveness stays until the application has been released", () =>
    Effect.gen(function* () {
      const host = Host.make()
      const held = yield* Deferred.make<void>()
      const draining = yield* Deferred.make<void>()
      const unwinding = yield* Deferred.make<void>()
      const started = yield* Deferred.make<Kms.Kms>()
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
      const fiber = yield* Layer.effectDiscard(Effect.flatMap(Kms.Kms, (kms) => Deferred.succeed(started, kms))).pipe(
        Layer.provide(Api),
        Kms.launch({ lameDuck: "1 second" }),
        host.provide,
        Effect.provideService(References.MinimumLogLevel, "None"),
        Effect.forkDetach
      )
      yield* Deferred.await((yield* Deferred.await(started)).started)
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

  it.live("is not ready before the layers of the program have been built, without running a check; it lives", () =>
    Effect.gen(function* () {
      const host = Host.make()
      const listening = yield* Deferred.make<void>()
      const building = yield* Latch.make()
      const built = yield* Deferred.make<Kms.Kms>()
      const check = makeCheck()
      check.end.openUnsafe()
      let health!: Server
      const Health = KmsHealth.serve({ checks: { database: check.run } }).pipe(
        Layer.provide(KmsHttp.layer(() => (health = createServer()), { port: 0, drainOn: "release" }))
      )
      const Application = Layer.effectDiscard(
        Effect.gen(function* () {
          yield* Deferred.succeed(listening, undefined)
          yield* building.await
          yield* Deferred.succeed(built, yield* Kms.Kms)
        })
      )
      const fiber = yield* Application.pipe(Layer.provide(Health), Kms.launch(), host.provide, quiet, Effect.forkDetach)
      yield* Deferred.await(listening)
      assert.deepStrictEqual(yield* ask(health, "/readyz"), {
        status: 503,
        body: { status: "unavailable", phase: "Starting" }
      })
      assert.deepStrictEqual(yield* ask(health, "/livez"), { status: 200, body: { status: "ok", phase: "Starting" } })
      assert.strictEqual(check.counts.runs, 0)

      yield* building.open
      yield* Deferred.await((yield* Deferred.await(built)).started)
      assert.deepStrictEqual(yield* ask(health, "/readyz"), answer("ok"))
      host.signal("SIGTERM")
      yield* Fiber.await(fiber)
    })
  )

  it.live("a program that is told to end while it starts names the phase of its shutdown", () =>
    Effect.gen(function* () {
      const host = Host.make()
      const listening = yield* Deferred.make<void>()
      let health!: Server
      const Health = Layer.provide(
        KmsHealth.serve(),
        KmsHttp.layer(() => (health = createServer()), { port: 0, drainOn: "release" })
      )
      const fiber = yield* Layer.effectDiscard(
        Effect.andThen(Deferred.succeed(listening, undefined), Effect.never)
      ).pipe(
        Layer.provide(Health),
        Kms.launch({ lameDuck: "1 second", hardShutdown: false }),
        host.provide,
        quiet,
        Effect.forkDetach
      )
      yield* Deferred.await(listening)
      host.signal("SIGTERM")
      assert.deepStrictEqual(yield* ask(health, "/readyz"), {
        status: 503,
        body: { status: "unavailable", phase: "LameDuck" }
      })
      yield* Fiber.await(fiber)
    })
  )

  it.live("an effect under Kms.listen is ready from the beginning", () =>
    Effect.gen(function* () {
      const host = Host.make()
      const response = yield* Effect.gen(function* () {
        const { ready } = yield* serving({})
        return yield* ready
      }).pipe(Effect.scoped, Kms.listen(), host.provide, quiet)
      assert.deepStrictEqual(response, { status: 200, body: { status: "ok", phase: "Running" } })
    })
  )

  it.effect("takes the answer of a check that is there when an event loop that was blocked goes on", () =>
    Effect.gen(function* () {
      const answered = yield* Deferred.make<void>()
      const turned = yield* Deferred.make<void>()
      const process = { ...Host.make().process, turn: Deferred.await(turned) }
      const { verdicts } = yield* Checks.make({
        checks: { db: Deferred.await(answered) },
        checkTimeout: "100 millis"
      }).pipe(Effect.provideService(Process, process))
      const asked = yield* Effect.forkChild(verdicts, { startImmediately: true })
      yield* TestClock.adjust("1 second")
      assert.isUndefined(asked.pollUnsafe())
      yield* Deferred.succeed(answered, undefined)
      assert.deepStrictEqual(yield* Fiber.join(asked), { db: "ok" })
    }).pipe(Effect.scoped)
  )

  it.live("names each check that fails, in whatever way, beside those that are ok", () =>
    Effect.gen(function* () {
      const end = Latch.makeUnsafe()
      yield* Effect.addFinalizer(() => end.open)
      const { ready } = yield* serving({
        checkTimeout: "50 millis",
        checks: {
          void: { check: Effect.void, timeout: "20 seconds" },
          true: { check: Effect.succeed(true), timeout: "20 seconds" },
          false: { check: Effect.succeed(false), timeout: "20 seconds" },
          fails: { check: Effect.fail("no"), timeout: "20 seconds" },
          dies: { check: Effect.die("no"), timeout: "20 seconds" },
          throws: {
            check: Effect.sync(() => {
              throw new Error("no")
            }),
            timeout: "20 seconds"
          },
          "is interrupted": { check: Effect.interrupt, timeout: "20 seconds" },
          hangs: Effect.never,
          "hangs on": Effect.uninterruptible(end.await)
        }
      })
      assert.deepStrictEqual(yield* ready, {
        status: 503,
        body: {
          status: "unavailable",
          phase: "Running",
          checks: {
            void: "ok",
            true: "ok",
            false: "failed",
            fails: "failed",
            dies: "failed",
            throws: "failed",
            "is interrupted": "failed",
            hangs: "timed out",
            "hangs on": "timed out"
          }
        }
      })
    }).pipe(Effect.scoped, quiet)
  )

  it.live("says nothing of what a check failed with", () =>
    Effect.gen(function* () {
      const secret = "postgres://app:hunter2@db"
      class ConnectError extends Error {
        override readonly name = secret
      }
      const { server } = yield* serving({
        checks: {
          fails: Effect.fail(new ConnectError(secret, { cause: new Error(secret) })),
          dies: Effect.die(new ConnectError(secret)),
          tagged: Effect.fail({ _tag: secret, message: secret })
        }
      })
      for (const path of ["/readyz", "/livez"]) {
        const text = yield* bytes(server, path, "GET")
        assert.include(text, "HTTP/1.1")
        assert.notInclude(text, "hunter2")
      }
    }).pipe(Effect.scoped, quiet)
  )

  it.live("checks have the services that the layer is built with, each its own", () =>
    Effect.gen(function* () {
      let server!: Server
      const checks = {
        database: Effect.flatMap(Database, (database) => database.ping),
        cache: { check: Effect.flatMap(Cache, (cache) => cache.isWarm), timeout: "20 seconds" },
        disk: Effect.void
      } as const
      const onOwn = KmsHealth.serve({ checks })
      const onApplication = KmsHealth.layer({ checks })
      expectTypeOf(onOwn).toEqualTypeOf<Layer.Layer<never, Kms.OptionError, HttpServer.HttpServer | Database | Cache>>()
      expectTypeOf(onApplication).toEqualTypeOf<
        Layer.Layer<never, Kms.OptionError, HttpRouter.HttpRouter | Database | Cache>
      >()
      expectTypeOf(KmsHealth.layer()).toEqualTypeOf<Layer.Layer<never, Kms.OptionError, HttpRouter.HttpRouter>>()
      expectTypeOf(KmsHealth.layer({ live: "/alive" })).toEqualTypeOf<
        Layer.Layer<never, Kms.OptionError, HttpRouter.HttpRouter>
      >()
      // @ts-expect-error a check says yes or no
      KmsHealth.layer({ checks: { rows: Effect.succeed(3) } })
      // @ts-expect-error not an option
      KmsHealth.layer({ checks: { database: { check: Effect.void, timeOut: 3 } } })

      const services = Layer.mergeAll(
        Layer.succeed(Database, { ping: Effect.fail("away") }),
        Layer.succeed(Cache, { isWarm: Effect.succeed(true) })
      )
      const listener = KmsHttp.layer(() => (server = createServer()), { port: 0, quietPeriod: 0 })
      const quietly = { disableLogger: true, disableListenLog: true }
      for (const health of [onOwn, HttpRouter.serve(onApplication, quietly)]) {
        yield* Effect.gen(function* () {
          yield* Layer.build(Layer.provide(health, [listener, services]))
          assert.deepStrictEqual((yield* ask(server, "/readyz")).body, {
            status: "unavailable",
            phase: "Running",
            checks: { database: "failed", cache: "ok", disk: "ok" }
          })
        }).pipe(Effect.scoped)
      }
    }).pipe(quiet)
  )

  it.live("fifty probes at once run a check once", () =>
    Effect.gen(function* () {
      const check = makeCheck()
      const { asked, ready } = yield* serving({
        checks: { database: check.run },
        checkTimeout: "20 seconds",
        cacheFor: 0
      })
      const probes = yield* Effect.forkChild(
        Effect.all(
          Array.from({ length: 50 }, () => ready),
          { concurrency: "unbounded" }
        )
      )
      yield* asked(50)
      yield* check.end.open
      assert.deepStrictEqual(
        yield* Fiber.join(probes),
        Array.from({ length: 50 }, () => answer("ok"))
      )
      assert.strictEqual(check.counts.runs, 1)
    }).pipe(Effect.scoped, quiet)
  )

  it.live("a probe that resets its connection in the middle does not end the run that others wait for", () =>
    Effect.gen(function* () {
      const check = makeCheck()
      const { asked, ready, server } = yield* serving({
        checks: { database: check.run },
        checkTimeout: "20 seconds",
        cacheFor: 0
      })
      const gone = yield* Deferred.make<void>()
      server.once("connection", (socket) => {
        socket.once("error", () => {})
        socket.once("close", () => Deferred.doneUnsafe(gone, Exit.void))
      })
      const peer = yield* Peers.connect(port(server))
      peer.get("/readyz")
      yield* check.begun.await
      const other = yield* Effect.forkChild(ready)
      yield* asked(2)
      peer.socket.resetAndDestroy()
      yield* Deferred.await(gone)
      // A third one: whatever the reset did has been done when it comes.
      const third = yield* Effect.forkChild(ready)
      yield* asked(3)
      yield* check.end.open
      assert.deepStrictEqual(yield* Fiber.join(other), answer("ok"))
      assert.deepStrictEqual(yield* Fiber.join(third), answer("ok"))
      assert.deepStrictEqual([check.counts.runs, check.counts.interrupted], [1, 0])
    }).pipe(Effect.scoped, quiet)
  )

  it.live("checks run side by side", () =>
    Effect.gen(function* () {
      const [one, other] = [yield* Latch.make(), yield* Latch.make()]
      const { ready } = yield* serving({
        checkTimeout: "20 seconds",
        checks: {
          one: Effect.andThen(one.open, other.await),
          other: Effect.andThen(other.open, one.await)
        }
      })
      assert.strictEqual((yield* ready).status, 200)
    }).pipe(Effect.scoped, quiet)
  )

  for (const [times, checkOptions, timeout] of [
    ["800 milliseconds, where nothing else is said,", {}, 800],
    ["checkTimeout", { checkTimeout: "5 seconds" }, 5000],
    ["its own timeout", { checkTimeout: "5 seconds", own: { timeout: "2 seconds" } }, 2000]
  ] as const) {
    it.effect(`a check that does not end within ${times} is interrupted and timed out, not before`, () =>
      Effect.gen(function* () {
        const { own, ...options } = { own: {}, ...checkOptions }
        const check = makeCheck()
        const { ready } = yield* serving({
          ...options,
          cacheFor: 0,
          checks: { database: { check: check.run, ...own } }
        })
        const inTime = yield* Effect.forkChild(ready)
        yield* check.begun.await
        yield* TestClock.adjust(timeout - 1)
        yield* check.end.open
        assert.deepStrictEqual(yield* Fiber.join(inTime), answer("ok"))

        yield* check.end.close
        yield* check.begun.close
        const late = yield* Effect.forkChild(ready)
        yield* check.begun.await
        yield* TestClock.adjust(timeout)
        assert.deepStrictEqual(yield* Fiber.join(late), answer("timed out"))
        assert.deepStrictEqual([check.counts.runs, check.counts.interrupted], [2, 1])
      }).pipe(Effect.scoped, quiet)
    )
  }

  it.effect(
    "a check that cannot be interrupted is timed out for as long as it hangs, and is not run a second time",
    () =>
      Effect.gen(function* () {
        const check = makeCheck()
        const { ready } = yield* serving({ cacheFor: 0, checks: { database: Effect.uninterruptible(check.run) } })
        const first = yield* Effect.forkChild(ready)
        yield* check.begun.await
        yield* TestClock.adjust("800 millis")
        assert.deepStrictEqual(yield* Fiber.join(first), answer("timed out"))
        // The clock stands still: it is answered at once.
        assert.deepStrictEqual(yield* ready, answer("timed out"))
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(yield* ready, answer("timed out"))
        assert.strictEqual(check.counts.runs, 1)

        yield* check.end.open
        assert.deepStrictEqual(yield* ready, answer("ok"))
        assert.strictEqual(check.counts.runs, 2)
      }).pipe(Effect.scoped, quiet)
  )

  for (const [times, checkOptions, cacheFor] of [
    ["for 1 second, where nothing else is said,", {}, 1000],
    ["for cacheFor", { cacheFor: "5 seconds" }, 5000],
    ["for its own cacheFor", { cacheFor: "5 seconds", own: { cacheFor: "2 seconds" } }, 2000]
  ] as const) {
    it.effect(`the answer of a check holds ${times} from its end, be it yes or no`, () =>
      Effect.gen(function* () {
        const { own, ...options } = { own: {}, ...checkOptions }
        let runs = 0
        const begun = yield* Latch.make()
        const check = Effect.suspend(() => {
          begun.openUnsafe()
          runs++
          return Effect.andThen(
            Effect.sleep("500 millis"),
            Effect.sync(() => runs % 2 === 1)
          )
        })
        const { ready } = yield* serving({ ...options, checks: { database: { check, ...own } } })
        for (const [run, verdict] of [
          [1, "ok"],
          [2, "failed"],
          [3, "ok"]
        ] as const) {
          yield* begun.close
          const probe = yield* Effect.forkChild(ready)
          yield* begun.await
          yield* TestClock.adjust("500 millis")
          assert.deepStrictEqual(yield* Fiber.join(probe), answer(verdict))
          yield* TestClock.adjust(cacheFor - 1)
          assert.deepStrictEqual(yield* ready, answer(verdict))
          assert.strictEqual(runs, run)
          yield* TestClock.adjust(1)
        }
      }).pipe(Effect.scoped, quiet)
    )
  }

  it.effect("a clock that is set back does not make an answer hold for longer", () =>
    Effect.gen(function* () {
      const check = makeCheck()
      check.end.openUnsafe()
      const { ready } = yield* serving({ checks: { database: check.run } })
      yield* TestClock.adjust("1 hour")
      yield* ready
      yield* TestClock.setTime(0)
      yield* TestClock.adjust("1 second")
      yield* ready
      assert.strictEqual(check.counts.runs, 2)
    }).pipe(Effect.scoped, quiet)
  )

  it.live("with cacheFor zero each probe that comes alone has a run of its own", () =>
    Effect.gen(function* () {
      const check = makeCheck()
      check.end.openUnsafe()
      const { ready } = yield* serving({ cacheFor: 0, checks: { database: check.run } })
      for (const run of [1, 2, 3]) {
        assert.deepStrictEqual(yield* ready, answer("ok"))
        assert.strictEqual(check.counts.runs, run)
      }
    }).pipe(Effect.scoped, quiet)
  )

  it.live("what a check acquires is released when it ends", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const log = (line: string) => Effect.sync(() => void lines.push(line))
      const { ready } = yield* serving({
        cacheFor: 0,
        checks: { database: Effect.asVoid(Effect.acquireRelease(log("acquired"), () => log("released"))) }
      })
      yield* ready
      yield* ready
      assert.deepStrictEqual(lines, ["acquired", "released", "acquired", "released"])
    }).pipe(Effect.scoped, quiet)
  )

  it.live("what a check failed with is logged when it begins to fail, and its recovery; not each probe", () =>
    Effect.gen(function* () {
      const lines: Array<readonly [level: string, message: unknown, cause: Cause.Cause<unknown>]> = []
      const logger = Logger.make<unknown, void>(({ cause, logLevel, message }) => {
        lines.push([logLevel, (message as Array<unknown>)[0], cause])
      })
      let check: Effect.Effect<void | boolean, unknown> = Effect.void
      const { ready } = yield* serving({
        cacheFor: 0,
        checks: { database: { check: Effect.suspend(() => check), timeout: "100 millis" }, other: Effect.void }
      }).pipe(Effect.provideService(Logger.CurrentLoggers, new Set([logger])))
      /** What is logged while two probes come. */
      const logged = (next: typeof check) =>
        Effect.gen(function* () {
          lines.length = 0
          check = next
          yield* ready
          yield* ready
          return lines.map(([level, message, cause]) => [
            level,
            message,
            cause.reasons.map((reason) => ({ ...reason }))
          ])
        })
      const error = new Error("password authentication failed")
      assert.deepStrictEqual(yield* logged(Effect.void), [])
      const [failed, ...others] = yield* logged(Effect.fail(error))
      assert.deepStrictEqual(failed?.slice(0, 2), ["Warn", 'Health check "database" failed'])
      assert.strictEqual((lines[0]![2].reasons[0] as Cause.Fail<unknown>).error, error)
      assert.deepStrictEqual(others, [])
      // Another way to fail is no change.
      assert.deepStrictEqual(yield* logged(Effect.succeed(false)), [])
      assert.deepStrictEqual(yield* logged(Effect.void), [["Info", 'Health check "database" is ok again', []]])
      assert.deepStrictEqual(yield* logged(Effect.succeed(false)), [["Warn", 'Health check "database" gave false', []]])
      yield* logged(Effect.void)
      assert.deepStrictEqual(yield* logged(Effect.never), [
        ["Warn", 'Health check "database" did not end within 100ms', []]
      ])
    }).pipe(Effect.scoped)
  )

  it.live("in the shutdown readiness is gone at once, without a check; a probe that waits for one is told, too", () =>
    Effect.gen(function* () {
      const host = Host.make()
      const started = yield* Deferred.make<Kms.Kms>()
      const check = makeCheck()
      let health!: Server
      const Health = KmsHealth.serve({ checks: { database: check.run }, checkTimeout: "20 seconds", cacheFor: 0 }).pipe(
        Layer.provide(KmsHttp.layer(() => (health = createServer()), { port: 0, drainOn: "release" }))
      )
      const held = yield* Latch.make()
      const fiber = yield* Layer.effectDiscard(
        Effect.gen(function* () {
          yield* Effect.addFinalizer(() => held.await)
          yield* Deferred.succeed(started, yield* Kms.Kms)
        })
      ).pipe(Layer.provide(Health), Kms.launch(), host.provide, quiet, Effect.forkDetach)
      const kms = yield* Deferred.await(started)
      yield* Deferred.await(kms.started)
      const waiting = yield* Effect.forkChild(ask(health, "/readyz"))
      yield* check.begun.await
      host.signal("SIGTERM")
      yield* Kms.initiated.pipe(Effect.provideService(Kms.Kms, kms))
      const gone = { status: 503, body: { status: "unavailable", phase: SubscriptionRef.getUnsafe(kms.phases)._tag } }
      assert.notStrictEqual(gone.body.phase, "Running")
      assert.strictEqual((yield* ask(health, "/readyz")).status, 503)
      yield* check.end.open
      const { body, status } = yield* Fiber.join(waiting)
      assert.strictEqual(status, 503)
      assert.oneOf((body as { phase: string }).phase, ["Draining", "Unwinding"])
      assert.notProperty(body, "checks")
      assert.strictEqual((yield* ask(health, "/readyz")).status, 503)
      assert.strictEqual(check.counts.runs, 1)
      yield* held.open
      yield* Fiber.await(fiber)
    })
  )

  it.live("on the application's own listener it answers until that drains", () =>
    Effect.gen(function* () {
      const host = Host.make()
      const started = yield* Deferred.make<Kms.Kms>()
      const check = makeCheck()
      check.end.openUnsafe()
      let api!: Server
      const Api = HttpRouter.serve(
        Layer.mergeAll(
          KmsHealth.layer({ checks: { database: check.run } }),
          HttpRouter.add("GET", "/", HttpServerResponse.text("Home"))
        ),
        { disableLogger: true, disableListenLog: true }
      ).pipe(Layer.provide(KmsHttp.layer(() => (api = createServer()), { port: 0 })))
      const fiber = yield* Layer.effectDiscard(Effect.flatMap(Kms.Kms, (kms) => Deferred.succeed(started, kms))).pipe(
        Layer.provide(Api),
        Kms.launch({ lameDuck: "1 second" }),
        host.provide,
        quiet,
        Effect.forkDetach
      )
      yield* Deferred.await((yield* Deferred.await(started)).started)
      const peer = yield* Peers.connect(port(api))
      peer.get("/readyz")
      const before = yield* peer.response
      assert.deepStrictEqual([before.status, JSON.parse(before.text)], [200, answer("ok").body])
      host.signal("SIGTERM")
      peer.get("/readyz")
      const after = yield* peer.response
      assert.deepStrictEqual(
        [after.status, after.headers["connection"], JSON.parse(after.text)],
        [503, "close", { status: "unavailable", phase: "LameDuck" }]
      )
      assert.strictEqual(check.counts.runs, 1)
      yield* Fiber.await(fiber)
      assert.isFalse(api.listening)
    }).pipe(Effect.scoped)
  )

  it.live("HEAD is answered as GET, without a body, and no answer may be stored", () =>
    Effect.gen(function* () {
      let server!: Server
      yield* Layer.build(
        HttpRouter.serve(
          Layer.mergeAll(
            // What serves everything else serves HEAD too.
            HttpRouter.add("*", "/*", HttpServerResponse.text("a single page")),
            KmsHealth.layer({ checks: { database: Effect.fail("no") } })
          ),
          { disableLogger: true, disableListenLog: true }
        ).pipe(Layer.provide(KmsHttp.layer(() => (server = createServer()), { port: 0, quietPeriod: 0 })))
      )
      for (const [path, status] of [
        ["/livez", 200],
        ["/readyz", 503]
      ] as const) {
        const [got, headed] = [yield* bytes(server, path, "GET"), yield* bytes(server, path, "HEAD")]
        const head = (text: string) => text.slice(0, text.indexOf("\r\n\r\n") + 4).replace(/^Date: .*$/im, "Date")
        assert.isTrue(got.startsWith(`HTTP/1.1 ${status} `))
        assert.match(got, /\r\n\r\n\{.*\}$/)
        assert.match(got, /^cache-control: no-store\r$/im)
        assert.strictEqual(headed.replace(/^Date: .*$/im, "Date"), head(got))
      }
    }).pipe(Effect.scoped, quiet)
  )

  it.live("a check that runs when its layer closes has ended before what it needs is released", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const log = (line: string) => Effect.sync(() => void lines.push(line))
      let server!: Server
      const scope = yield* Scope.make()
      const begun = yield* Latch.make()
      const Needed = Layer.effect(
        Database,
        Effect.acquireRelease(
          Effect.succeed({
            ping: Effect.andThen(begun.open, Effect.never).pipe(
              Effect.onInterrupt(() => Effect.andThen(Effect.sleep("20 millis"), log("check ended")))
            )
          }),
          () => log("database released")
        )
      )
      const Health = KmsHealth.serve({ checks: { database: Effect.flatMap(Database, ({ ping }) => ping) } }).pipe(
        Layer.provide(KmsHttp.layer(() => (server = createServer()), { port: 0, quietPeriod: 0 })),
        Layer.provide(Needed)
      )
      yield* Layer.buildWithScope(Health, scope)
      const peer = yield* Peers.connect(port(server))
      peer.get("/readyz")
      yield* begun.await
      peer.socket.resetAndDestroy()
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(lines, ["check ended", "database released"])
    }).pipe(Effect.scoped, quiet)
  )

  it.live("a check that hangs does not keep its layer from closing", () =>
    Effect.gen(function* () {
      const check = makeCheck()
      const { close, ready } = yield* serving({
        checks: { database: Effect.uninterruptible(check.run) },
        checkTimeout: "20 millis"
      })
      assert.deepStrictEqual(yield* ready, answer("timed out"))
      yield* close
      yield* check.end.open
    }).pipe(Effect.scoped, quiet)
  )

  it.live("options that cannot be meant are errors that name the option and the value", () =>
    Effect.gen(function* () {
      const check = Effect.void
      const wrong: ReadonlyArray<readonly [options: object, message: string]> = [
        [{ checkTimeout: "soon" }, 'Option checkTimeout is "soon": not a duration'],
        [{ checkTimeout: 0 }, "Option checkTimeout is 0: it has to be longer than zero"],
        [{ checkTimeout: "infinity" }, 'Option checkTimeout is "infinity": it has to be finite'],
        [{ cacheFor: -1 }, "Option cacheFor is -1: a duration cannot be negative"],
        [{ cacheFor: Number.NaN }, "Option cacheFor is NaN: not a duration"],
        [{ cacheFor: "infinity" }, 'Option cacheFor is "infinity": it has to be finite'],
        [
          { checks: { database: { check, timeout: "never" } } },
          'Option checks.database.timeout is "never": not a duration'
        ],
        [
          { checks: { database: { check, cacheFor: "-1 seconds" } } },
          'Option checks.database.cacheFor is "-1 seconds": a duration cannot be negative'
        ],
        [
          { checks: { database: "up" } },
          'Option checks.database is "up": neither an effect nor an object with an effect as its check'
        ],
        [
          { checks: { database: undefined } },
          "Option checks.database is undefined: neither an effect nor an object with an effect as its check"
        ],
        [
          { checks: { database: {} } },
          "Option checks.database is {}: neither an effect nor an object with an effect as its check"
        ],
        [{ live: "livez" }, 'Option live is "livez": a path begins with a slash'],
        [{ ready: 3 }, "Option ready is 3: a path begins with a slash"],
        [{ live: "/health", ready: "/health" }, 'Option ready is "/health": it is the path of live, too']
      ]
      for (const [options, message] of wrong) {
        let server: Server | undefined
        const listener = KmsHttp.layer(() => (server = createServer()), { port: 0 })
        for (const health of [KmsHealth.serve(options), HttpRouter.serve(KmsHealth.layer(options))]) {
          const error = yield* Effect.flip(Effect.scoped(Layer.build(Layer.provide(health, listener))))
          assert.instanceOf(error, Kms.OptionError)
          assert.strictEqual(error.message, message)
          assert.isFalse(server!.listening)
        }
      }
    }).pipe(quiet)
  )
})
