import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Latch, Layer } from "effect"
import { HttpClient, HttpRouter, HttpServer, HttpServerResponse } from "effect/http"
import { TestClock } from "effect/testing"
import { Kms, KmsHttp, KmsTest } from "effect-kms"
import { readFileSync } from "node:fs"
import { connect } from "node:net"
import { vi } from "vitest"
import { snippets } from "./support/snippets.ts"

// --- As it stands in the documentation of KmsTest ---

class Database extends Context.Service<Database, { readonly insert: (row: string) => Effect.Effect<void> }>()(
  "Database"
) {}

// The application: it takes ten seconds to make a report, and then needs the database.
const Reports = Layer.effectDiscard(
  Effect.gen(function* () {
    const { insert } = yield* Database
    yield* insert("report").pipe(Effect.delay("10 seconds"), Kms.busy("report"), Effect.forkScoped)
  })
)

// A database that writes down what happens to it.
const recorded = (events: Array<string>) => {
  const note = (event: string) => Effect.sync(() => void events.push(event))
  return Layer.effect(Database)(
    Effect.acquireRelease(Effect.succeed({ insert: (row) => note(`insert ${row}`) }), () => note("close"))
  )
}

it.effect("the report is in the database before it closes", () =>
  Effect.gen(function* () {
    const events: Array<string> = []
    yield* KmsTest.launch(Reports.pipe(Layer.provide(recorded(events))))
    yield* KmsTest.signal("SIGTERM")
    yield* TestClock.adjust("10 seconds")
    assert.strictEqual(yield* KmsTest.exitCode, 0)
    assert.deepStrictEqual(events, ["insert report", "close"])
  }).pipe(Effect.provide(KmsTest.layer))
)

it.effect("a report that takes too long is cut, and the exit code says so", () =>
  Effect.gen(function* () {
    const events: Array<string> = []
    yield* KmsTest.launch(Reports.pipe(Layer.provide(recorded(events))), { timeout: "5 seconds" })
    yield* KmsTest.signal("SIGTERM")
    yield* TestClock.adjust("5 seconds")
    assert.strictEqual(yield* KmsTest.exitCode, 1)
    assert.deepStrictEqual(events, ["close"])
    const { forced, millis } = yield* KmsTest.report
    assert.deepStrictEqual([forced, millis], [true, 5000])
  }).pipe(Effect.provide(KmsTest.layer))
)

const arrived = Latch.makeUnsafe()

const Slow = HttpRouter.serve(
  HttpRouter.add(
    "GET",
    "/",
    Effect.gen(function* () {
      yield* arrived.open
      yield* Effect.sleep("10 seconds")
      return HttpServerResponse.text("done")
    })
  )
)

it.effect("a request in flight has its answer before the process exits", () =>
  Effect.gen(function* () {
    const { services } = yield* KmsTest.launch(Slow.pipe(Layer.provideMerge(KmsHttp.layerTest)))
    const asked = yield* HttpClient.get("/").pipe(
      Effect.flatMap(({ text }) => text),
      Effect.provide(yield* services),
      Effect.forkChild
    )
    yield* arrived.await
    yield* KmsTest.signal("SIGTERM")
    yield* TestClock.adjust("10 seconds")
    assert.strictEqual(yield* Fiber.join(asked), "done")
    assert.strictEqual(yield* KmsTest.exitCode, 0)
  }).pipe(Effect.provide(KmsTest.layer))
)

// --- As it stands in the documentation up to here ---

const resource = (events: Array<string>, name: string, release: Effect.Effect<void> = Effect.void) =>
  Layer.effectDiscard(
    Effect.acquireRelease(
      Effect.sync(() => void events.push(`+${name}`)),
      () =>
        Effect.andThen(
          release,
          Effect.sync(() => void events.push(`-${name}`))
        )
    )
  )

/** What a test dies of. */
const defect = <A, R>(self: Effect.Effect<A, never, R>): Effect.Effect<string, never, R> =>
  Effect.map(Effect.exit(self), (exit) => {
    assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
    return (Cause.squash((exit as Exit.Failure<A, never>).cause) as Error).message
  })

/** What is said on the console of the process that runs the tests. */
const warnings = Effect.acquireRelease(
  Effect.sync(() => {
    const first = Deferred.makeUnsafe<string>()
    const spy = vi
      .spyOn(console, "warn")
      .mockImplementation((line) => void Deferred.doneUnsafe(first, Exit.succeed(String(line))))
    return { spy, first: Deferred.await(first) }
  }),
  ({ spy }) => Effect.sync(() => spy.mockRestore())
)

const portOf = (services: Context.Context<HttpServer.HttpServer>): number => {
  const { address } = Context.get(services, HttpServer.HttpServer)
  return "port" in address ? address.port : 0
}

const refuses = (port: number) =>
  Effect.callback<boolean>((resume) => {
    const socket = connect(port, "127.0.0.1")
    socket.on("error", () => resume(Effect.succeed(true)))
    socket.on("connect", () => {
      socket.destroy()
      resume(Effect.succeed(false))
    })
  })

describe("the documentation of KmsTest", () => {
  it("shows the tests that are run here", () => {
    const documented = snippets.filter(({ where }) => where.startsWith("src/KmsTest.ts"))
    assert.strictEqual(documented.length, 2)
    const [, own = ""] = readFileSync(import.meta.filename, "utf8").split(/^\/\/ --- .*$/m)
    const code = documented.map((snippet) => snippet.code.replace(/^import .*\n/gm, "").trim()).join("\n\n")
    assert.strictEqual(code, own.trim())
  })
})

describe("KmsTest.launch", () => {
  it.effect("returns when the layers are built and what they forked has begun, and gives their services", () =>
    Effect.gen(function* () {
      const events: Array<string> = []
      const forked = Layer.effectDiscard(
        Effect.forkScoped(Effect.sync(() => void events.push("forked")).pipe(Effect.andThen(Effect.never)))
      )
      const { services } = yield* recorded(events).pipe(Layer.merge(forked), KmsTest.launch())
      assert.deepStrictEqual(events, ["forked"])
      yield* Context.get(yield* services, Database).insert("row")
      assert.deepStrictEqual(events, ["forked", "insert row"])
    }).pipe(Effect.provide(KmsTest.layer))
  )

  it.effect("returns when the start-up fails, which the exit code, the exit and the report tell", () =>
    Effect.gen(function* () {
      const events: Array<string> = []
      const failing = Layer.effectDiscard(Effect.fail("no such table")).pipe(Layer.provide(resource(events, "pool")))
      const { services } = yield* KmsTest.launch(failing)
      assert.strictEqual(yield* KmsTest.exitCode, 1)
      assert.deepStrictEqual(events, ["+pool", "-pool"])
      const exit = yield* KmsTest.exit
      assert.strictEqual(Exit.isFailure(exit) && Cause.squash(exit.cause), "no such table")
      assert.strictEqual((yield* KmsTest.report).reason._tag, "Failed")
      assert.match(yield* defect(services), /ended with 1/)
    }).pipe(Effect.provide(KmsTest.layer))
  )

  it.effect("returns when an option cannot be meant, which the exit code and the exit tell", () =>
    Effect.gen(function* () {
      yield* KmsTest.launch(Layer.empty, { timeout: -1 })
      assert.strictEqual(yield* KmsTest.exitCode, 1)
      const exit = yield* KmsTest.exit
      assert.instanceOf(Exit.isFailure(exit) && Cause.squash(exit.cause), Kms.OptionError)
      assert.match(yield* defect(KmsTest.report), /KmsTest.report: the process has ended with 1/)
    }).pipe(Effect.provide(KmsTest.layer))
  )

  it.effect("takes a signal while the layers are being built", () =>
    Effect.gen(function* () {
      const events: Array<string> = []
      const hanging = Layer.effectDiscard(Effect.never).pipe(Layer.provide(resource(events, "pool")))
      yield* Effect.forkScoped(KmsTest.launch(hanging), { startImmediately: true })
      yield* KmsTest.signal("SIGTERM")
      assert.strictEqual(yield* KmsTest.exitCode, 0)
      assert.deepStrictEqual(events, ["+pool", "-pool"])
    }).pipe(Effect.provide(KmsTest.layer))
  )

  it.effect("leaves the signals of the process that runs the tests alone", () =>
    Effect.gen(function* () {
      const heard = () =>
        ["SIGINT", "SIGTERM", "SIGHUP", "uncaughtException"].map((name) => process.listenerCount(name))
      const before = heard()
      yield* KmsTest.launch(Layer.empty)
      assert.deepStrictEqual(heard(), before)
      yield* KmsTest.signal("SIGTERM")
      yield* KmsTest.exitCode
      assert.deepStrictEqual(heard(), before)
    }).pipe(Effect.provide(KmsTest.layer))
  )

  it.effect("runs one program after the other, but not two at a time", () =>
    Effect.gen(function* () {
      yield* KmsTest.launch(Layer.empty)
      assert.strictEqual(
        yield* defect(KmsTest.launch(Layer.empty)),
        "KmsTest.launch: the program launched before has not ended"
      )
      yield* KmsTest.signal("SIGTERM")
      assert.strictEqual(yield* KmsTest.exitCode, 0)
      yield* KmsTest.launch(Layer.effectDiscard(Effect.fail("no such table")))
      assert.strictEqual(yield* KmsTest.exitCode, 1)
    }).pipe(Effect.provide(KmsTest.layer))
  )

  it.effect("has to come before anything that needs a program", () =>
    Effect.gen(function* () {
      assert.strictEqual(
        yield* defect(KmsTest.signal("SIGTERM")),
        "KmsTest.signal: nothing has been launched in this process"
      )
    }).pipe(Effect.provide(KmsTest.layer))
  )

  it.effect("runs onStopped, with the report", () =>
    Effect.gen(function* () {
      let told: Kms.Report | undefined
      yield* KmsTest.launch(Layer.empty, { onStopped: (report) => Effect.sync(() => void (told = report)) })
      yield* KmsTest.signal("SIGTERM")
      yield* KmsTest.exitCode
      assert.strictEqual(yield* KmsTest.report, told)
    }).pipe(Effect.provide(KmsTest.layer))
  )
})

describe("KmsTest.listen", () => {
  it.effect("gives what the effect ends with", () =>
    Effect.gen(function* () {
      yield* KmsTest.listen(Effect.delay(Effect.succeed(42), "1 second"))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* KmsTest.exit, Exit.succeed(42))
      assert.strictEqual(yield* KmsTest.exitCode, 0)
    }).pipe(Effect.provide(KmsTest.layer))
  )

  it.effect("interrupts the effect on a signal", () =>
    Effect.gen(function* () {
      const events: Array<string> = []
      const effect = Effect.onInterrupt(Effect.never, () => Effect.sync(() => void events.push("interrupted")))
      yield* effect.pipe(KmsTest.listen({ timeout: "5 seconds" }))
      yield* KmsTest.signal("SIGINT")
      assert.strictEqual(yield* KmsTest.exitCode, 0)
      assert.deepStrictEqual(events, ["interrupted"])
    }).pipe(Effect.provide(KmsTest.layer))
  )
})

describe("what happens to the program", () => {
  const busy = Layer.effectDiscard(Effect.forkScoped(Kms.busy("report")(Effect.sleep("10 seconds"))))

  it.effect("a signal is the reason, although runMain interrupts too", () =>
    Effect.gen(function* () {
      yield* KmsTest.launch(Layer.empty)
      yield* KmsTest.signal("SIGTERM")
      assert.deepInclude((yield* KmsTest.report).reason, { _tag: "Signal", signal: "SIGTERM" })
    }).pipe(Effect.provide(KmsTest.layer))
  )

  it.effect("a signal that only runMain listens for is an interruption", () =>
    Effect.gen(function* () {
      yield* KmsTest.launch(Layer.empty, { signals: ["SIGUSR2"] })
      yield* KmsTest.signal("SIGTERM")
      assert.strictEqual(yield* KmsTest.exitCode, 0)
      assert.strictEqual((yield* KmsTest.report).reason._tag, "Interrupted")
    }).pipe(Effect.provide(KmsTest.layer))
  )

  it.effect("a signal that nobody listens for ends the process, with 128 and its number", () =>
    Effect.gen(function* () {
      yield* KmsTest.launch(Layer.empty)
      yield* KmsTest.signal("SIGKILL")
      assert.strictEqual(yield* KmsTest.exitCode, 137)
      assert.match(yield* defect(KmsTest.exit), /ended with 137/)
      assert.match(yield* defect(KmsTest.reached("Draining")), /ended with 137, and never was Draining/)
      // It has ended, and hears nothing.
      yield* KmsTest.signal("SIGTERM")
      assert.strictEqual((yield* KmsTest.status).phase, "Running")
    }).pipe(Effect.provide(KmsTest.layer))
  )

  it.effect("a report does not change, whatever ends after it", () =>
    Effect.gen(function* () {
      const slow = Kms.addFinalizer("slow", () => Effect.sleep("1 minute"))
      yield* KmsTest.launch(Layer.effectDiscard(slow), { timeout: "5 seconds" })
      yield* KmsTest.signal("SIGTERM")
      yield* TestClock.adjust("7 seconds")
      assert.strictEqual(yield* KmsTest.exitCode, 1)
      const report = yield* KmsTest.report
      const told = JSON.stringify(report)
      assert.match(told, /"hung":\["finalizer/)
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual(JSON.stringify(report), told)
    }).pipe(Effect.provide(KmsTest.layer))
  )

  it.effect("a second signal ends the process at once with 1; its echo does not", () =>
    Effect.gen(function* () {
      yield* KmsTest.launch(busy)
      yield* KmsTest.signal("SIGINT")
      yield* KmsTest.signal("SIGINT")
      const code = yield* Effect.forkChild(KmsTest.exitCode, { startImmediately: true })
      yield* TestClock.adjust("1 second")
      assert.isUndefined(code.pollUnsafe())
      yield* KmsTest.signal("SIGINT")
      assert.strictEqual(yield* Fiber.join(code), 1)
      // What a process that has ended goes on to do is not told of.
      yield* TestClock.adjust("1 hour")
      assert.match(yield* defect(KmsTest.report), /ended with 1/)
    }).pipe(Effect.provide(KmsTest.layer))
  )

  it.effect("an uncaught error starts a shutdown that exits with 1", () =>
    Effect.gen(function* () {
      yield* KmsTest.launch(Layer.empty)
      yield* KmsTest.uncaught(new Error("boom"))
      assert.strictEqual(yield* KmsTest.exitCode, 1)
      assert.strictEqual((yield* KmsTest.report).reason._tag, "Uncaught")
    }).pipe(Effect.provide(KmsTest.layer))
  )

  it.effect("an uncaught error that nobody listens for ends the process with 1", () =>
    Effect.gen(function* () {
      yield* KmsTest.launch(Layer.empty, { uncaught: false })
      yield* KmsTest.uncaught(new Error("boom"))
      assert.strictEqual(yield* KmsTest.exitCode, 1)
      assert.match(yield* defect(KmsTest.report), /ended with 1/)
    }).pipe(Effect.provide(KmsTest.layer))
  )

  it.effect("an interruption starts a shutdown that exits with 0", () =>
    Effect.gen(function* () {
      yield* KmsTest.launch(Layer.empty)
      yield* KmsTest.interrupt
      assert.strictEqual(yield* KmsTest.exitCode, 0)
      assert.strictEqual((yield* KmsTest.report).reason._tag, "Interrupted")
    }).pipe(Effect.provide(KmsTest.layer))
  )

  it.effect("goes through the phases as time is moved, and each can be waited for", () =>
    Effect.gen(function* () {
      yield* KmsTest.launch(busy, { lameDuck: "5 seconds" })
      yield* KmsTest.signal("SIGTERM")
      const draining = yield* Effect.forkChild(KmsTest.reached("Draining"), { startImmediately: true })
      yield* TestClock.adjust("4999 millis")
      assert.isUndefined(draining.pollUnsafe())
      assert.strictEqual((yield* KmsTest.reached("Running"))._tag, "LameDuck")
      yield* TestClock.adjust("1 millis")
      assert.strictEqual((yield* Fiber.join(draining))._tag, "Draining")
      assert.deepInclude((yield* KmsTest.status).sections[0], { name: "report", age: 5000 })
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual((yield* KmsTest.reached("Stopped"))._tag, "Stopped")
      assert.strictEqual(yield* KmsTest.exitCode, 0)
    }).pipe(Effect.provide(KmsTest.layer))
  )
})

describe("time", () => {
  const job = Layer.effectDiscard(Effect.forkScoped(Kms.busy("report")(Effect.sleep("10 seconds"))))
  const flush = Layer.effectDiscard(Kms.addFinalizer("flush", () => Effect.sleep("3 seconds")))

  for (const lameDuck of [0, "5 seconds"] as const) {
    it.effect(`may be moved by more than the shutdown takes, with a lame duck of ${lameDuck}`, () =>
      Effect.gen(function* () {
        yield* KmsTest.launch(Layer.provide(job, flush), { lameDuck })
        yield* KmsTest.signal("SIGTERM")
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(yield* KmsTest.exitCode, 0)
        assert.strictEqual((yield* KmsTest.report).millis, 13_000)
      }).pipe(Effect.provide(KmsTest.layer))
    )
  }

  it.effect("is that of the deadline where a finalizer hangs", () =>
    Effect.gen(function* () {
      const hanging = Layer.effectDiscard(Kms.addFinalizer("hang", () => Effect.never))
      yield* KmsTest.launch(Layer.provide(job, hanging))
      yield* KmsTest.signal("SIGTERM")
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* KmsTest.exitCode, 1)
      assert.strictEqual((yield* KmsTest.report).millis, 26_500)
    }).pipe(Effect.provide(KmsTest.layer))
  )

  it.effect("has not passed when Draining is reached, and every listener drains by then", () =>
    Effect.gen(function* () {
      for (const reach of [KmsTest.signal("SIGTERM"), Effect.andThen(KmsTest.interrupt, KmsTest.reached("Draining"))]) {
        const { services } = yield* KmsTest.launch(Layer.provideMerge(job, KmsHttp.layerTest))
        const port = portOf(yield* services)
        assert.isFalse(yield* refuses(port))
        yield* reach
        assert.isTrue(yield* refuses(port))
        assert.strictEqual((yield* KmsTest.status).phase, "Draining")
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual(yield* KmsTest.exitCode, 0)
      }
    }).pipe(Effect.provide(KmsTest.layer))
  )
})

describe("a test that fails half-way", () => {
  const stuck = (events: Array<string>) =>
    Layer.effectDiscard(Effect.forkScoped(Kms.busy("stuck")(Effect.never))).pipe(
      Layer.provide(resource(events, "pool"))
    )

  for (const when of ["before the shutdown", "in the lame duck", "in the drain", "after a second signal"] as const) {
    it.effect(`leaves nothing running, ${when}`, () =>
      Effect.gen(function* () {
        const events: Array<string> = []
        const app = Layer.provideMerge(stuck(events), KmsHttp.layerTest)
        let port = 0
        const test = Effect.gen(function* () {
          const options = { timeout: "infinity", lameDuck: when === "in the lame duck" ? "1 minute" : 0 } as const
          const { services } = yield* KmsTest.launch(app, options)
          port = portOf(yield* services)
          if (when !== "before the shutdown") yield* KmsTest.signal("SIGTERM")
          if (when === "after a second signal") yield* KmsTest.signal("SIGINT")
          return yield* Effect.fail("an assertion")
        })
        const exit = yield* test.pipe(Effect.scoped, Effect.provide(KmsTest.layer), Effect.exit)
        assert.deepStrictEqual(exit, Exit.fail("an assertion"))
        assert.deepStrictEqual(events, ["+pool", "-pool"])
        assert.isAbove(port, 0)
        assert.isTrue(yield* refuses(port))
      })
    )
  }

  it.effect("leaves a finalizer that waits for a time that does not come, and says so", () =>
    Effect.gen(function* () {
      const { first } = yield* warnings
      const slow = Layer.effectDiscard(Kms.addFinalizer("flush", () => Effect.sleep("1 hour")))
      yield* Effect.scoped(KmsTest.launch(slow))
      assert.match(yield* first, /A test has left its program behind[^]*finalizer "flush"/)
      // The process is free for the next test.
      yield* KmsTest.launch(Layer.empty)
    }).pipe(Effect.provide(KmsTest.layer))
  )
})

describe("a test that does not move the clock", () => {
  it.effect("is told on the real console what its program waits for", () =>
    Effect.gen(function* () {
      const { first } = yield* warnings
      yield* KmsTest.launch(Reports.pipe(Layer.provide(recorded([]))))
      yield* KmsTest.signal("SIGTERM")
      const code = yield* Effect.forkChild(KmsTest.exitCode)
      const line = yield* first
      assert.match(line, /^KmsTest.exitCode has waited for 2 seconds\. .*TestClock.adjust/)
      assert.match(line, /Draining \(SIGTERM\), 25s left\n {2}busy "report"/)
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(yield* Fiber.join(code), 0)
    }).pipe(Effect.provide(KmsTest.layer))
  )
})
