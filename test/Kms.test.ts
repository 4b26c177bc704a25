import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Layer, Logger, References, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Kms } from "effect-kms"
import * as Host from "./support/host.ts"

/** A launched layer, with a log of what happens to it. */
const launched = Effect.fnUntraced(function* (
  layer: (log: (line: string) => Effect.Effect<void>) => Layer.Layer<never, unknown>,
  options: Kms.Options = {},
  host: Host.Host = Host.make()
) {
  const lines: Array<string> = []
  const log = (line: string) => Effect.sync(() => void lines.push(line))
  const started = yield* Deferred.make<Kms.Kms>()
  const app = Layer.effectDiscard(Effect.flatMap(Kms.Kms, (kms) => Deferred.succeed(started, kms))).pipe(
    Layer.provideMerge(layer(log))
  )
  const fiber = yield* Kms.launch(app, options).pipe(
    host.provide,
    silent,
    Effect.forkDetach({ startImmediately: true })
  )
  return {
    fiber,
    host,
    lines,
    log,
    started: Deferred.await(started),
    exit: Fiber.await(fiber),
    code: code(fiber)
  }
})

const silent = Effect.provideService(References.MinimumLogLevel, "None")

/** The exit code that the process would have had. */
const code = (fiber: Fiber.Fiber<unknown, unknown>) =>
  Effect.gen(function* () {
    const exit = yield* Fiber.await(fiber)
    const ended = yield* Deferred.make<number>()
    yield* Effect.sync(() => Kms.teardown(exit, (code) => Deferred.doneUnsafe(ended, Exit.succeed(code))))
    return yield* Deferred.await(ended)
  })

/** Lets every fiber that can run do so. */
const settle = Effect.repeat(Effect.yieldNow, { times: 50 })

const resource = (
  log: (line: string) => Effect.Effect<void>,
  name: string,
  release: Effect.Effect<void> = Effect.void
) => Layer.effectDiscard(Effect.acquireRelease(log(`+${name}`), () => Effect.andThen(release, log(`-${name}`))))

const report = (exit: Exit.Exit<unknown, unknown>): Kms.Report => {
  assert.isTrue(Exit.isFailure(exit))
  const error = Cause.squash((exit as Exit.Failure<unknown, unknown>).cause)
  assert.instanceOf(error, Kms.ShutdownTimeout)
  return error.report
}

describe("Kms.launch", () => {
  it.effect("releases in reverse on a signal, and exits with 0", () =>
    Effect.gen(function* () {
      const { code, exit, host, lines, started } = yield* launched((log) =>
        resource(log, "server").pipe(Layer.provide(resource(log, "cache")), Layer.provide(resource(log, "database")))
      )
      yield* started
      assert.isTrue(host.signal("SIGTERM"))
      yield* exit
      yield* settle
      assert.strictEqual(host.listeners(), 0)
      assert.strictEqual(yield* code, 0)
      assert.deepStrictEqual(lines, ["+database", "+cache", "+server", "-server", "-cache", "-database"])
    })
  )

  it.effect("knows that it was a signal when runMain has turned it into an interruption", () =>
    Effect.gen(function* () {
      let reason: Kms.Reason | undefined
      const { code, fiber, host, started } = yield* launched(() => Layer.empty, {
        onStopped: (report) => Effect.sync(() => void (reason = report.reason))
      })
      yield* started
      host.signal("SIGTERM")
      fiber.interruptUnsafe()
      assert.strictEqual(yield* code, 0)
      assert.deepInclude(reason, { _tag: "Signal", signal: "SIGTERM" })
    })
  )

  it.effect("ends gracefully when the fiber that runs it is interrupted", () =>
    Effect.gen(function* () {
      const { code, fiber, lines, started } = yield* launched((log) => resource(log, "database"))
      yield* started
      fiber.interruptUnsafe()
      assert.strictEqual(yield* code, 0)
      assert.deepStrictEqual(lines, ["+database", "-database"])
    })
  )

  it.effect("ends gracefully when it is asked to from inside", () =>
    Effect.gen(function* () {
      const { code, lines } = yield* launched((log) =>
        Layer.effectDiscard(Kms.shutdown("upgrade")).pipe(Layer.provide(resource(log, "database")))
      )
      assert.strictEqual(yield* code, 0)
      assert.deepStrictEqual(lines, ["+database", "-database"])
    })
  )

  it.effect("a start-up that fails releases what it had, gives its failure and exits with 1", () =>
    Effect.gen(function* () {
      const { code, exit, lines } = yield* launched((log) =>
        Layer.effectDiscard(Effect.fail("no such table")).pipe(Layer.provide(resource(log, "database")))
      )
      assert.strictEqual(yield* code, 1)
      assert.strictEqual(Cause.squash(((yield* exit) as Exit.Failure<unknown, unknown>).cause), "no such table")
      assert.deepStrictEqual(lines, ["+database", "-database"])
    })
  )

  it.effect("a start-up that fails with a finalizer that hangs is over by timeout + forceTimeout", () =>
    Effect.gen(function* () {
      const { code, exit, fiber, lines } = yield* launched(
        (log) =>
          Layer.effectDiscard(Effect.fail("no such table")).pipe(
            Layer.provide(resource(log, "database", Effect.never))
          ),
        { timeout: "10 seconds", forceTimeout: "2 seconds" }
      )
      yield* settle
      yield* TestClock.adjust("10 seconds")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* code, 1)
      const cause = (yield* exit) as Exit.Failure<unknown, unknown>
      assert.deepStrictEqual(
        cause.cause.reasons.map((reason) => (Cause.isFailReason(reason) ? reason.error : undefined))[0],
        "no such table"
      )
      assert.deepStrictEqual(lines, ["+database"])
    })
  )

  it.effect("a start-up that recovers from a failure goes on, however long the rest takes", () =>
    Effect.gen(function* () {
      const { code, fiber, host, lines, started } = yield* launched(
        (log) =>
          Layer.mergeAll(
            Layer.effectDiscard(Effect.andThen(Effect.sleep("1 minute"), log("slow"))),
            Layer.effectDiscard(Effect.fail("optional")).pipe(
              Layer.provide(resource(log, "cache")),
              Layer.catchCause(() => Layer.empty)
            )
          ),
        { timeout: "1 second" }
      )
      yield* settle
      yield* TestClock.adjust("1 minute")
      yield* started
      assert.isUndefined(fiber.pollUnsafe())
      assert.deepStrictEqual(lines, ["+cache", "-cache", "slow"])
      host.signal("SIGTERM")
      assert.strictEqual(yield* code, 0)
    })
  )

  it.effect("a signal during start-up releases what is there", () =>
    Effect.gen(function* () {
      const { code, host, lines } = yield* launched((log) =>
        Layer.effectDiscard(Effect.never).pipe(Layer.provide(resource(log, "database")))
      )
      yield* settle
      host.signal("SIGINT")
      assert.strictEqual(yield* code, 0)
      assert.deepStrictEqual(lines, ["+database", "-database"])
    })
  )

  it.effect("a start-up that hangs where it cannot be interrupted is cut, and what is beneath it released", () =>
    Effect.gen(function* () {
      const { code, host, lines } = yield* launched(
        (log) =>
          Layer.effectDiscard(Effect.acquireRelease(Effect.never, () => log("never"))).pipe(
            Layer.provide(resource(log, "database"))
          ),
        { timeout: "1 second", forceTimeout: "1 second" }
      )
      yield* settle
      host.signal("SIGINT")
      yield* settle
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* code, 1)
      assert.deepStrictEqual(lines, ["+database", "-database"])
    })
  )

  it.effect("a finalizer that fails is an exit with 1, and the others still run", () =>
    Effect.gen(function* () {
      const { code, host, lines, started } = yield* launched((log) =>
        resource(log, "server", Effect.die("boom")).pipe(Layer.provide(resource(log, "database")))
      )
      yield* started
      host.signal("SIGTERM")
      assert.strictEqual(yield* code, 1)
      assert.deepStrictEqual(lines, ["+database", "+server", "-database"])
    })
  )

  it.effect("options that cannot be meant are errors that name the option and the value", () =>
    Effect.gen(function* () {
      const wrong: ReadonlyArray<readonly [Kms.Options, string, string]> = [
        [{ timeout: 0 }, "timeout", "0"],
        [{ timeout: "-1 seconds" }, "timeout", "-1 seconds"],
        [{ timeout: "soon" as "1 second" }, "timeout", "soon"],
        [{ forceTimeout: 0 }, "forceTimeout", "0"],
        [{ forceTimeout: Number.POSITIVE_INFINITY }, "forceTimeout", "Infinity"],
        [{ timeout: "5 seconds", lameDuck: "5 seconds" }, "lameDuck", "5 seconds"],
        [{ lameDuck: -1 }, "lameDuck", "-1"],
        [{ signals: ["SIGNOPE" as "SIGINT"] }, "signals", "SIGNOPE"],
        [{ signals: ["SIGKILL"] }, "signals", "SIGKILL"],
        [{ signals: "SIGTERM" as unknown as [] }, "signals", "SIGTERM"],
        [{ hardShutdown: "false" as unknown as boolean }, "hardShutdown", "false"],
        [{ uncaught: 0 as unknown as boolean }, "uncaught", "0"]
      ]
      for (const [options, option, value] of wrong) {
        const host = Host.make()
        const error = yield* Effect.flip(Kms.launch(Layer.empty, options).pipe(host.provide))
        assert.instanceOf(error, Kms.OptionError)
        assert.strictEqual(error.option, option)
        assert.include(error.message, value)
        yield* settle
        assert.strictEqual(host.listeners(), 0)
      }
    })
  )
})

describe("Kms.busy", () => {
  it.effect("dies of an invalid option, and does nothing", () =>
    Effect.gen(function* () {
      let done = false
      const work = Effect.sync(() => void (done = true)).pipe(Kms.busy("work", { onDrain: "Park" as "park" }))
      const exit = yield* Effect.exit(work)
      assert.include(String(Exit.isFailure(exit) && Cause.squash(exit.cause)), 'Option onDrain is "Park"')
      assert.isFalse(done)
    })
  )
})

describe("Kms.listen", () => {
  it.effect("gives the result of an effect that ends by itself", () =>
    Effect.gen(function* () {
      const host = Host.make()
      assert.strictEqual(yield* Kms.listen(Effect.succeed(42)).pipe(host.provide), 42)
      assert.strictEqual(yield* Effect.flip(Kms.listen(Effect.fail("boom")).pipe(host.provide)), "boom")
      yield* settle
      assert.strictEqual(host.listeners(), 0)
    })
  )

  it.effect("waits for the busy sections that an effect leaves behind", () =>
    Effect.gen(function* () {
      const host = Host.make()
      const job = Effect.sleep("3 seconds").pipe(Kms.busy("job"), Effect.forkDetach({ startImmediately: true }))
      const fiber = yield* Effect.as(job, "done").pipe(Kms.listen(), host.provide, silent, Effect.forkChild)
      yield* settle
      yield* TestClock.adjust("2999 millis")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* Fiber.join(fiber), "done")
    })
  )

  it.effect("interrupts the effect on a signal, and releases its scopes", () =>
    Effect.gen(function* () {
      const host = Host.make()
      const lines: Array<string> = []
      const fiber = yield* Effect.acquireRelease(Effect.void, () =>
        Effect.sync(() => void lines.push("released"))
      ).pipe(
        Effect.andThen(Effect.never),
        Effect.scoped,
        Kms.listen(),
        host.provide,
        silent,
        Effect.forkDetach({ startImmediately: true })
      )
      yield* settle
      host.signal("SIGINT")
      assert.strictEqual(yield* code(fiber), 0)
      assert.deepStrictEqual(lines, ["released"])
    })
  )

  it.effect("hides a failure that an interruption would have hidden from nobody", () =>
    Effect.gen(function* () {
      const host = Host.make()
      const fiber = yield* Effect.never.pipe(
        Effect.onInterrupt(() => Effect.die("could not save")),
        Kms.listen(),
        host.provide,
        silent,
        Effect.forkDetach({ startImmediately: true })
      )
      yield* settle
      host.signal("SIGTERM")
      fiber.interruptUnsafe()
      assert.strictEqual(yield* code(fiber), 1)
    })
  )
})

describe("Kms.busy", () => {
  /** A layer whose `work` runs in a fiber of its own. */
  const working = (work: Effect.Effect<unknown>) => (log: (line: string) => Effect.Effect<void>) =>
    Layer.effectDiscard(Effect.forkScoped(work)).pipe(Layer.provide(resource(log, "database")))

  it.effect("nothing unwinds while a section runs", () =>
    Effect.gen(function* () {
      const { code, host, lines, started } = yield* launched((log) =>
        working(Effect.andThen(Effect.sleep("5 seconds"), log("job")).pipe(Kms.busy("job")))(log)
      )
      yield* started
      yield* settle
      host.signal("SIGTERM")
      yield* settle
      yield* TestClock.adjust("4999 millis")
      assert.deepStrictEqual(lines, ["+database"])
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* code, 0)
      assert.deepStrictEqual(lines, ["+database", "job", "-database"])
    })
  )

  it.effect("a source of work that parks begins nothing more, and its last round is finished", () =>
    Effect.gen(function* () {
      let rounds = 0
      const round = Effect.andThen(
        Effect.sleep("2 seconds"),
        Effect.sync(() => void rounds++)
      )
      const { code, host, lines, started } = yield* launched(
        working(Effect.forever(round.pipe(Kms.busy("round", { onDrain: "park" }))))
      )
      yield* started
      yield* settle
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(rounds, 1)
      host.signal("SIGTERM")
      yield* settle
      yield* TestClock.adjust("1 seconds")
      assert.strictEqual(yield* code, 0)
      assert.strictEqual(rounds, 2)
      assert.deepStrictEqual(lines, ["+database", "-database"])
    })
  )

  it.effect("what a live section hands on is admitted during the drain, and awaited", () =>
    Effect.gen(function* () {
      const handed = yield* Deferred.make<void>()
      const done: Array<string> = []
      const first = Effect.gen(function* () {
        yield* Effect.sleep("1 second")
        yield* Deferred.succeed(handed, undefined)
        yield* Effect.sleep("1 second")
        done.push("first")
      }).pipe(Kms.busy("first"))
      const second = Effect.gen(function* () {
        yield* Deferred.await(handed)
        yield* Effect.sleep("3 seconds").pipe(
          Effect.andThen(Effect.sync(() => void done.push("second"))),
          Kms.busy("second")
        )
      })
      const { code, host, lines, started } = yield* launched(working(Effect.all([first, second], { concurrency: 2 })))
      yield* started
      yield* settle
      host.signal("SIGTERM")
      yield* settle
      yield* TestClock.adjust("4 seconds")
      assert.strictEqual(yield* code, 0)
      assert.deepStrictEqual(done, ["first", "second"])
      assert.deepStrictEqual(lines, ["+database", "-database"])
    })
  )

  it.effect("the deadline cuts a section, and the report says which", () =>
    Effect.gen(function* () {
      const { exit, host, lines, started } = yield* launched(working(Effect.never.pipe(Kms.busy("endless"))), {
        timeout: "10 seconds",
        signals: ["SIGTERM"]
      })
      yield* started
      yield* settle
      host.signal("SIGTERM")
      yield* settle
      yield* TestClock.adjust("10 seconds")
      const { forced, sections } = report(yield* exit)
      assert.isTrue(forced)
      assert.deepStrictEqual(sections, [{ name: "endless", drained: 0, cut: 1, abandoned: 0, from: 0, to: 10_000 }])
      assert.deepStrictEqual(lines, ["+database", "-database"])
    })
  )

  it.effect("a section that hangs uninterruptible is over by timeout + forceTimeout", () =>
    Effect.gen(function* () {
      const { exit, fiber, host, started } = yield* launched(
        working(Effect.uninterruptible(Effect.never).pipe(Kms.busy("stuck"))),
        { timeout: "10 seconds", forceTimeout: "2 seconds" }
      )
      yield* started
      yield* settle
      host.signal("SIGTERM")
      yield* settle
      yield* TestClock.adjust("11 seconds")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 seconds")
      const { hung } = report(yield* exit)
      assert.isTrue(
        hung.some((line) => line.includes("stuck")),
        hung.join()
      )
    })
  )

  it.effect("lets any other interruption through", () =>
    Effect.gen(function* () {
      const fiber = yield* Effect.never.pipe(Kms.busy("job"), Effect.forkChild({ startImmediately: true }))
      yield* Fiber.interrupt(fiber)
      assert.isTrue(Exit.isFailure(fiber.pollUnsafe()!))
    })
  )

  it.effect("a scoped section is taken in one fiber and released in another", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const { code, host, started } = yield* launched(() =>
        Layer.effectDiscard(Kms.busyScoped("hand-over").pipe(Scope.provide(scope)))
      )
      yield* started
      host.signal("SIGTERM")
      yield* settle
      assert.strictEqual(host.exits.length, 0)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(yield* code, 0)
    })
  )

  it.effect("a callback takes a section and releases it, and gets none once the gate is closed", () =>
    Effect.gen(function* () {
      const { code, host, started } = yield* launched(() => Layer.empty)
      const kms = yield* started
      const release = kms.busyUnsafe("callback")
      host.signal("SIGTERM")
      yield* settle
      assert.strictEqual(host.exits.length, 0)
      release?.()
      assert.strictEqual(yield* code, 0)
      assert.isUndefined(kms.busyUnsafe("late"))
    })
  )

  it.effect("works the same where nothing supervises the program", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* Effect.succeed(1).pipe(Kms.busy("job")), 1)
      yield* Effect.scoped(Kms.busyScoped("job"))
      const kms = yield* Kms.Kms
      kms.busyUnsafe("job")?.()
      assert.isFalse(kms.supervised)
    })
  )
})

describe("lame duck", () => {
  it.effect("comes before the drain, and counts in the timeout", () =>
    Effect.gen(function* () {
      const phases: Array<string> = []
      const { exit, fiber, host, started } = yield* launched(
        () =>
          Layer.mergeAll(
            Layer.effectDiscard(
              Kms.changes.pipe(
                Stream.runForEach((phase) => Effect.sync(() => void phases.push(phase._tag))),
                Effect.forkScoped({ startImmediately: true })
              )
            ),
            Layer.effectDiscard(Effect.forkScoped(Effect.never.pipe(Kms.busy("endless"))))
          ),
        { timeout: "10 seconds", lameDuck: "4 seconds" }
      )
      const kms = yield* started
      yield* settle
      host.signal("SIGTERM")
      yield* settle
      assert.isFalse(Deferred.isDoneUnsafe(kms.initiated))
      yield* TestClock.adjust("4 seconds")
      yield* settle
      assert.isTrue(Deferred.isDoneUnsafe(kms.initiated))
      assert.deepStrictEqual(phases, ["Running", "LameDuck", "Draining"])
      yield* TestClock.adjust("5999 millis")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.isTrue(report(yield* exit).forced)
    })
  )

  it.effect("may depend on the reason", () =>
    Effect.gen(function* () {
      const lameDuck = (reason: Kms.Reason) =>
        reason._tag === "Signal" && reason.signal === "SIGTERM" ? "5 seconds" : 0
      for (const [signal, waits] of [
        ["SIGTERM", true],
        ["SIGINT", false]
      ] as const) {
        const { code, fiber, host, started } = yield* launched(() => Layer.empty, { lameDuck })
        yield* started
        host.signal(signal)
        yield* settle
        assert.strictEqual(fiber.pollUnsafe() === undefined, waits)
        yield* TestClock.adjust("5 seconds")
        assert.strictEqual(yield* code, 0)
      }
    })
  )

  it.effect("a function that throws, or gives what cannot be meant, leaves it out", () =>
    Effect.gen(function* () {
      const wrong = [
        () => {
          throw new Error("no")
        },
        () => "1 hour" as const
      ]
      for (const lameDuck of wrong) {
        const { code, host, lines, started } = yield* launched((log) => resource(log, "database"), { lameDuck })
        yield* started
        host.signal("SIGTERM")
        assert.strictEqual(yield* code, 0)
        assert.deepStrictEqual(lines, ["+database", "-database"])
      }
    })
  )

  it.effect("a second signal ends it at once", () =>
    Effect.gen(function* () {
      const { host, started } = yield* launched(() => Layer.empty, { lameDuck: "5 seconds" })
      yield* started
      host.signal("SIGTERM")
      yield* settle
      host.signal("SIGINT")
      assert.deepStrictEqual(host.exits, [1])
    })
  )
})

describe("what is provided around it", () => {
  /** The root has been interrupted as `runMain` does it; what is around the program takes its time to be released. */
  const interrupted = Effect.fnUntraced(function* (release: Effect.Effect<void>, timeout: Kms.Options["timeout"]) {
    const host = Host.make()
    const outer = Layer.effectDiscard(Effect.acquireRelease(Effect.void, () => release))
    const fiber = yield* Kms.launch(Layer.empty, { timeout, forceTimeout: "2 seconds" }).pipe(
      Effect.provide(outer),
      host.provide,
      silent,
      Effect.forkDetach({ startImmediately: true })
    )
    yield* settle
    host.signal("SIGTERM")
    fiber.interruptUnsafe()
    yield* settle
    return { fiber, host }
  })

  it.effect("and hangs in its release is given up by timeout + forceTimeout, with 1", () =>
    Effect.gen(function* () {
      const { host } = yield* interrupted(Effect.never, "10 seconds")
      yield* TestClock.adjust("11999 millis")
      assert.deepStrictEqual(host.exits, [])
      yield* TestClock.adjust("1 millis")
      yield* settle
      assert.deepStrictEqual(host.exits, [1])
    })
  )

  it.effect("is not waited for after a second signal", () =>
    Effect.gen(function* () {
      const { host } = yield* interrupted(Effect.never, "infinity")
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(host.exits, [])
      host.signal("SIGTERM")
      assert.deepStrictEqual(host.exits, [1])
    })
  )

  it.effect("is not given up where the root goes on after a shutdown that was cut", () =>
    Effect.gen(function* () {
      const host = Host.make()
      const stuck = Layer.effectDiscard(
        Effect.andThen(
          Effect.forkScoped(Effect.never.pipe(Kms.busy("job"))),
          Effect.forkScoped(Effect.andThen(Effect.sleep("1 second"), Kms.shutdown()))
        )
      )
      const fiber = yield* Kms.launch(stuck, { timeout: "10 seconds" }).pipe(
        Effect.catchTag("ShutdownTimeout", () => Effect.as(Effect.sleep("1 hour"), "recovered")),
        host.provide,
        silent,
        Effect.forkDetach({ startImmediately: true })
      )
      yield* settle
      yield* TestClock.adjust("2 hours")
      assert.strictEqual(yield* Fiber.join(fiber), "recovered")
      assert.deepStrictEqual(host.exits, [])
    })
  )

  it.effect("has its time, and then nobody listens any more", () =>
    Effect.gen(function* () {
      const { fiber, host } = yield* interrupted(Effect.sleep("11 seconds"), "10 seconds")
      assert.isAbove(host.listeners(), 0)
      yield* TestClock.adjust("11 seconds")
      assert.strictEqual(yield* code(fiber), 0)
      yield* settle
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(host.exits, [0])
    })
  )
})

describe("signals and errors", () => {
  it.effect("a second signal exits at once with 1", () =>
    Effect.gen(function* () {
      const { host, started } = yield* launched((log) => resource(log, "database", Effect.never))
      yield* started
      host.signal("SIGTERM")
      host.signal("SIGTERM")
      yield* settle
      assert.deepStrictEqual(host.exits, [])
      yield* TestClock.adjust("500 millis")
      host.signal("SIGTERM")
      assert.deepStrictEqual(host.exits, [1])
    })
  )

  it.effect("with hardShutdown off further signals change nothing", () =>
    Effect.gen(function* () {
      const { code, host, started } = yield* launched((log) => resource(log, "database", Effect.sleep("3 seconds")), {
        hardShutdown: false
      })
      yield* started
      host.signal("SIGTERM")
      yield* settle
      host.signal("SIGINT")
      assert.deepStrictEqual(host.exits, [])
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(yield* code, 0)
    })
  )

  it.effect("the first signal after a shutdown from inside is not a second one", () =>
    Effect.gen(function* () {
      const { code, fiber, host, started } = yield* launched((log) =>
        resource(log, "database", Effect.sleep("3 seconds"))
      )
      const kms = yield* started
      yield* Effect.provideService(Kms.shutdown(), Kms.Kms, kms)
      yield* settle
      host.signal("SIGTERM")
      fiber.interruptUnsafe()
      assert.deepStrictEqual(host.exits, [])
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(yield* code, 0)
    })
  )

  it.effect("an uncaught error ends the program with 1, without lame duck, and after 5 seconds at most", () =>
    Effect.gen(function* () {
      const { exit, fiber, host, lines, started } = yield* launched(
        (log) =>
          Layer.effectDiscard(Effect.forkScoped(Effect.never.pipe(Kms.busy("endless")))).pipe(
            Layer.provide(resource(log, "database"))
          ),
        { lameDuck: "10 seconds" }
      )
      yield* started
      yield* settle
      host.fail(new Error("boom"))
      host.fail(new Error("boom again"))
      yield* settle
      assert.deepStrictEqual(host.exits, [])
      yield* TestClock.adjust("4999 millis")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.deepInclude(report(yield* exit).reason, { _tag: "Uncaught" })
      assert.deepStrictEqual(lines, ["+database", "-database"])
    })
  )

  it.effect("an uncaught error exits with 1 also when everything could be drained", () =>
    Effect.gen(function* () {
      const { code, host, lines, started } = yield* launched((log) => resource(log, "database"))
      yield* started
      host.fail(new Error("boom"))
      assert.strictEqual(yield* code, 1)
      assert.deepStrictEqual(lines, ["+database", "-database"])
    })
  )

  it.effect("an uncaught error during a shutdown is an exit with 1, and no second signal", () =>
    Effect.gen(function* () {
      const { code, host, lines, started } = yield* launched((log) =>
        resource(log, "database", Effect.sleep("3 seconds"))
      )
      yield* started
      host.signal("SIGTERM")
      yield* settle
      host.fail(new Error("boom"))
      assert.deepStrictEqual(host.exits, [])
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(yield* code, 1)
      assert.deepStrictEqual(lines, ["+database", "-database"])
    })
  )

  it.effect("with uncaught off nobody listens for errors", () =>
    Effect.gen(function* () {
      const { code, host, started } = yield* launched(() => Layer.empty, { uncaught: false })
      yield* started
      assert.isFalse(host.fail(new Error("boom")))
      host.signal("SIGTERM")
      assert.strictEqual(yield* code, 0)
    })
  )

  it.effect("a hangup starts the shutdown, unless the process was started by nohup", () =>
    Effect.gen(function* () {
      const plain = yield* launched(() => Layer.empty)
      yield* plain.started
      plain.host.signal("SIGHUP")
      assert.strictEqual(yield* plain.code, 0)

      const nohup = yield* launched(() => Layer.empty, {}, Host.make({ ignoresHangup: true }))
      yield* nohup.started
      assert.isTrue(nohup.host.signal("SIGHUP"))
      yield* settle
      assert.isUndefined(nohup.fiber.pollUnsafe())
      nohup.host.signal("SIGTERM")
      assert.strictEqual(yield* nohup.code, 0)
    })
  )
})

describe("finalizers with a name", () => {
  it.effect("are in the report with their outcome, in the order in which they ended", () =>
    Effect.gen(function* () {
      let seen: Kms.Report | undefined
      const { code, host, started } = yield* launched(
        (log) =>
          Layer.effectDiscard(Kms.addFinalizer("flush", () => Effect.sleep("1 second"))).pipe(
            Layer.provide(Layer.effectDiscard(Kms.addFinalizer("broken", () => Effect.die("boom")))),
            Layer.provide(resource(log, "database").pipe(Kms.layerNamed("database")))
          ),
        { onStopped: (report) => Effect.sync(() => void (seen = report)) }
      )
      yield* started
      host.signal("SIGTERM")
      yield* settle
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* code, 1)
      assert.deepStrictEqual(seen?.finalizers, [
        { name: "flush", outcome: "released", from: 0, to: 1000 },
        { name: "broken", outcome: "failed", error: "boom", from: 1000, to: 1000 },
        { name: "database", outcome: "released", from: 1000, to: 1000 }
      ])
    })
  )

  it.effect("with a timeout are abandoned when it is over, and what is beneath is released", () =>
    Effect.gen(function* () {
      const { code, host, lines, started } = yield* launched((log) =>
        Layer.effectDiscard(Kms.addFinalizer("flush", () => Effect.never, { timeout: "2 seconds" })).pipe(
          Layer.provide(resource(log, "database"))
        )
      )
      yield* started
      host.signal("SIGTERM")
      yield* settle
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* code, 0)
      assert.deepStrictEqual(lines, ["+database", "-database"])
    })
  )

  it.effect("with a timeout are abandoned at the cut, however long the timeout", () =>
    Effect.gen(function* () {
      const { exit, host, lines, started } = yield* launched(
        (log) =>
          resource(log, "cache", Effect.never).pipe(
            Kms.layerNamed("cache", { timeout: "1 hour" }),
            Layer.provide(resource(log, "database"))
          ),
        { timeout: "3 seconds" }
      )
      yield* started
      host.signal("SIGTERM")
      yield* settle
      yield* TestClock.adjust("3 seconds")
      const { finalizers } = report(yield* exit)
      assert.deepStrictEqual(
        finalizers.map(({ name, outcome }) => [name, outcome]),
        [["cache", "abandoned"]]
      )
      assert.deepStrictEqual(lines, ["+database", "+cache", "-database"])
    })
  )

  it.effect("with a timeout that begin after the cut still have a chance", () =>
    Effect.gen(function* () {
      const { exit, host, lines, started } = yield* launched(
        (log) =>
          Layer.effectDiscard(Effect.forkScoped(Effect.never.pipe(Kms.busy("endless")))).pipe(
            Layer.provide(
              resource(log, "cache", Effect.sleep("100 millis")).pipe(Kms.layerNamed("cache", { timeout: "1 hour" }))
            )
          ),
        { timeout: "3 seconds", forceTimeout: "2 seconds" }
      )
      yield* started
      yield* settle
      host.signal("SIGTERM")
      yield* settle
      yield* TestClock.adjust("3 seconds")
      yield* TestClock.adjust("100 millis")
      const { finalizers } = report(yield* exit)
      assert.deepStrictEqual(
        finalizers.map(({ name, outcome }) => [name, outcome]),
        [["cache", "released"]]
      )
      assert.deepStrictEqual(lines, ["+cache", "-cache"])
    })
  )

  it.effect("without one that hang are named", () =>
    Effect.gen(function* () {
      const { exit, host, started } = yield* launched(
        () => Layer.effectDiscard(Kms.addFinalizer("flush", () => Effect.never)),
        { timeout: "3 seconds", forceTimeout: "1 second" }
      )
      yield* started
      host.signal("SIGTERM")
      yield* settle
      yield* TestClock.adjust("4 seconds")
      const { hung } = report(yield* exit)
      assert.isTrue(
        hung.some((line) => line.includes("flush")),
        hung.join()
      )
    })
  )

  it.effect("keep the services and the result of the layer they name", () =>
    Effect.gen(function* () {
      class Database extends Context.Service<Database, { readonly rows: number }>()("test/Database") {}
      const layer = Layer.succeed(Database)({ rows: 3 }).pipe(Kms.layerNamed("database"))
      assert.strictEqual(
        yield* Effect.provide(
          Effect.map(Database, ({ rows }) => rows),
          layer
        ),
        3
      )
    })
  )
})

describe("what it tells", () => {
  it.effect("that it began and why, every few seconds what it waits for, and how it ended", () =>
    Effect.gen(function* () {
      const messages: Array<string> = []
      const logger = Logger.make(({ message }) => void messages.push(String(message)))
      const host = Host.make()
      const fiber = yield* Kms.launch(
        Layer.effectDiscard(Effect.forkScoped(Effect.sleep("7 seconds").pipe(Kms.busy("report")))),
        { timeout: "20 seconds", lameDuck: "1 second" }
      ).pipe(host.provide, Effect.provide(Logger.layer([logger])), Effect.forkDetach({ startImmediately: true }))
      yield* settle
      host.signal("SIGTERM")
      yield* settle
      yield* TestClock.adjust("7 seconds")
      yield* Fiber.await(fiber)
      assert.lengthOf(messages, 4, messages.join("\n"))
      assert.match(messages[0]!, /SIGTERM.*20s.*1s.*report/)
      assert.match(messages[1]!, /report.*3s/)
      assert.match(messages[2]!, /report.*6s/)
      assert.match(messages[3]!, /complete.*7s.*SIGTERM/)
    })
  )

  it.effect("nothing in between, while it is a lame duck with nothing open", () =>
    Effect.gen(function* () {
      const messages: Array<string> = []
      const logger = Logger.make(({ message }) => void messages.push(String(message)))
      const host = Host.make()
      const fiber = yield* Kms.launch(Layer.empty, { lameDuck: "4 seconds" }).pipe(
        host.provide,
        Effect.provide(Logger.layer([logger])),
        Effect.forkDetach({ startImmediately: true })
      )
      yield* settle
      host.signal("SIGTERM")
      yield* settle
      yield* TestClock.adjust("4 seconds")
      yield* Fiber.await(fiber)
      assert.lengthOf(messages, 2, messages.join("\n"))
    })
  )

  it.effect("its status at any time", () =>
    Effect.gen(function* () {
      const { host, started } = yield* launched(() =>
        Layer.effectDiscard(Effect.forkScoped(Effect.never.pipe(Kms.busy("report"))))
      )
      const kms = yield* started
      yield* settle
      yield* TestClock.adjust("2 seconds")
      const status = yield* Effect.provideService(Kms.status, Kms.Kms, kms)
      assert.deepStrictEqual(status.sections, [{ name: "report", inFlight: 1, age: 2000 }])
      host.signal("SIGTERM")
      host.signal("SIGINT")
    })
  )

  it.effect("onStopped may not hold the process", () =>
    Effect.gen(function* () {
      const { code, host, started } = yield* launched(() => Layer.empty, {
        forceTimeout: "2 seconds",
        onStopped: () => Effect.never
      })
      yield* started
      host.signal("SIGTERM")
      yield* settle
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* code, 0)
    })
  )

  it.live("the output gets what is left of forceTimeout to reach its pipe", () =>
    Effect.gen(function* () {
      const host = Host.make({ flush: Effect.never })
      const { code, started } = yield* launched(() => Layer.empty, { forceTimeout: "200 millis" }, host)
      yield* started
      host.signal("SIGTERM")
      assert.strictEqual(yield* Effect.timeout(code, "5 seconds"), 0)
    })
  )

  it.effect("a shutdown asked for where nothing supervises the program is a defect that says so", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(Kms.shutdown())
      assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause) && /Kms\.launch/.test(Cause.pretty(exit.cause)))
    })
  )
})
