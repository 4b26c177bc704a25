/**
 * A whole shutdown in a test, without a process: a test sends the signal, moves time with `TestClock`, and reads the exit
 * code that the process would have had.
 *
 * The program runs as `NodeRuntime.runMain` runs it, under the real `Kms.launch` or `Kms.listen`, and ends by the real
 * `Kms.teardown`. Only the process is not real: no signal reaches the one of the test, and nothing exits.
 *
 * **Details**
 *
 * `timeout`, `forceTimeout`, `lameDuck`, finalizers and busy sections go by the clock of the test. With `it.effect` that
 * stands still until `TestClock.adjust` moves it. `signal` returns once the shutdown has begun, and `reached` once it is
 * where the test wants it, so that there is nothing to sleep for. `adjust` may move time by more than the shutdown takes:
 * each step of it begins at its own time all the same, and the report says when.
 *
 * What a test leaves running is cut when its scope closes, also when it has failed half-way: sections and listeners at
 * once, and then the program unwinds.
 *
 * **Gotchas**
 *
 * A test that waits for what only time can bring, and does not move the clock, waits until the test runner gives it up.
 * After two seconds it prints what its program still waits for; `status` tells the same at any time.
 *
 * Listeners are real, with real sockets and real peers, so `quietPeriod` and `closeTimeout` are real time: a test waits
 * for them by itself, and no clock has to be moved. Give port 0, and 0 for both, or use `KmsHttp.layerTest`; `services`
 * of what `launch` gives has the address, and the client. `TestClock.adjust` does not wait for what is on its way through a
 * socket: to move it beyond the deadline cuts requests that would have been in time.
 *
 * **Example** (A job that is finished before its database closes, and one that is cut at the deadline)
 *
 * ```ts
 * import { assert, it } from "@effect/vitest"
 * import { Context, Effect, Layer } from "effect"
 * import { TestClock } from "effect/testing"
 * import { Kms, KmsTest } from "effect-kms"
 *
 * class Database extends Context.Service<Database, { readonly insert: (row: string) => Effect.Effect<void> }>()(
 *   "Database"
 * ) {}
 *
 * // The application: it takes ten seconds to make a report, and then needs the database.
 * const Reports = Layer.effectDiscard(
 *   Effect.gen(function* () {
 *     const { insert } = yield* Database
 *     yield* insert("report").pipe(Effect.delay("10 seconds"), Kms.busy("report"), Effect.forkScoped)
 *   })
 * )
 *
 * // A database that writes down what happens to it.
 * const recorded = (events: Array<string>) => {
 *   const note = (event: string) => Effect.sync(() => void events.push(event))
 *   return Layer.effect(Database)(
 *     Effect.acquireRelease(Effect.succeed({ insert: (row) => note(`insert ${row}`) }), () => note("close"))
 *   )
 * }
 *
 * it.effect("the report is in the database before it closes", () =>
 *   Effect.gen(function* () {
 *     const events: Array<string> = []
 *     yield* KmsTest.launch(Reports.pipe(Layer.provide(recorded(events))))
 *     yield* KmsTest.signal("SIGTERM")
 *     yield* TestClock.adjust("10 seconds")
 *     assert.strictEqual(yield* KmsTest.exitCode, 0)
 *     assert.deepStrictEqual(events, ["insert report", "close"])
 *   }).pipe(Effect.provide(KmsTest.layer))
 * )
 *
 * it.effect("a report that takes too long is cut, and the exit code says so", () =>
 *   Effect.gen(function* () {
 *     const events: Array<string> = []
 *     yield* KmsTest.launch(Reports.pipe(Layer.provide(recorded(events))), { timeout: "5 seconds" })
 *     yield* KmsTest.signal("SIGTERM")
 *     yield* TestClock.adjust("5 seconds")
 *     assert.strictEqual(yield* KmsTest.exitCode, 1)
 *     assert.deepStrictEqual(events, ["close"])
 *     const { forced, millis } = yield* KmsTest.report
 *     assert.deepStrictEqual([forced, millis], [true, 5000])
 *   }).pipe(Effect.provide(KmsTest.layer))
 * )
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Scheduler from "effect/Scheduler"
import type * as Scope from "effect/Scope"
import { Program } from "./internal/testing.ts"
import * as Kms from "./Kms.ts"

/**
 * A process that is not real, with the program that a test has launched in it.
 *
 * @category services
 * @since 0.1.0
 */
export class KmsTest extends Context.Service<
  KmsTest,
  {
    /** The program that was launched last. */
    program: Program | undefined
  }
>()("effect-kms/KmsTest") {}

/**
 * Provides a process that is not real. It runs one program after the other; two at a time are two of these layers.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<KmsTest> = Layer.effect(KmsTest)(Effect.sync(() => ({ program: undefined })))

/**
 * What a test has of the layer that it launched.
 *
 * @category models
 * @since 0.1.0
 */
export interface Launched<A> {
  /** The services of the layer. Dies where it has not been built. */
  readonly services: Effect.Effect<Context.Context<A>>
}

/**
 * Runs a layer with `Kms.launch`, in a process that is not real, until the scope closes. Returns once the layer has been
 * built and what it forked has begun.
 *
 * **Details**
 *
 * A start-up that fails, and an invalid option, are for `exitCode` and `exit` to tell: in a process, too, it
 * is the end that shows.
 *
 * To send a signal during the start-up, fork it: `Effect.forkScoped(KmsTest.launch(App), { startImmediately: true })`.
 *
 * Dies while the program launched before in this process has not ended.
 *
 * **Example** (A request that is answered although the signal has come)
 *
 * ```ts
 * import { assert, it } from "@effect/vitest"
 * import { Effect, Fiber, Latch, Layer } from "effect"
 * import { HttpClient, HttpRouter, HttpServerResponse } from "effect/http"
 * import { TestClock } from "effect/testing"
 * import { KmsHttp, KmsTest } from "effect-kms"
 *
 * const arrived = Latch.makeUnsafe()
 *
 * const Slow = HttpRouter.serve(
 *   HttpRouter.add(
 *     "GET",
 *     "/",
 *     Effect.gen(function* () {
 *       yield* arrived.open
 *       yield* Effect.sleep("10 seconds")
 *       return HttpServerResponse.text("done")
 *     })
 *   )
 * )
 *
 * it.effect("a request in flight has its answer before the process exits", () =>
 *   Effect.gen(function* () {
 *     const { services } = yield* KmsTest.launch(Slow.pipe(Layer.provideMerge(KmsHttp.layerTest)))
 *     const asked = yield* HttpClient.get("/").pipe(
 *       Effect.flatMap(({ text }) => text),
 *       Effect.provide(yield* services),
 *       Effect.forkChild
 *     )
 *     yield* arrived.await
 *     yield* KmsTest.signal("SIGTERM")
 *     yield* TestClock.adjust("10 seconds")
 *     assert.strictEqual(yield* Fiber.join(asked), "done")
 *     assert.strictEqual(yield* KmsTest.exitCode, 0)
 *   }).pipe(Effect.provide(KmsTest.layer))
 * )
 * ```
 *
 * @category running
 * @since 0.1.0
 */
export const launch: {
  (
    options?: Kms.Options
  ): <A, E, R>(layer: Layer.Layer<A, E, R>) => Effect.Effect<Launched<A>, never, R | KmsTest | Scope.Scope>
  <A, E, R>(
    layer: Layer.Layer<A, E, R>,
    options?: Kms.Options
  ): Effect.Effect<Launched<A>, never, R | KmsTest | Scope.Scope>
} = dual(
  (args) => Layer.isLayer(args[0]),
  <A, E, R>(
    layer: Layer.Layer<A, E, R>,
    options?: Kms.Options
  ): Effect.Effect<Launched<A>, never, R | KmsTest | Scope.Scope> =>
    Effect.suspend(() => {
      const built = Deferred.makeUnsafe<Context.Context<A>>()
      const run = (program: Program) => {
        const watched = Layer.fromBuildMemo<A, E, R>((memoMap, scope) =>
          Effect.tap(Effect.andThen(program.watch, Layer.buildWithMemoMap(layer, memoMap, scope)), (services) =>
            Deferred.succeed(built, services)
          )
        )
        return Kms.launch(watched, heard(program, options))
      }
      return Effect.map(start("launch", run), (program) => ({
        services: program.orExited("launch", Deferred.await(built))
      }))
    })
)

/**
 * Runs an effect with `Kms.listen`, in a process that is not real, until the scope closes. Returns once it has begun.
 *
 * **Details**
 *
 * What it ends with is for `exit` to tell.
 *
 * Dies while the program launched before in this process has not ended.
 *
 * @category running
 * @since 0.1.0
 */
export const listen: {
  (
    options?: Kms.Options
  ): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<void, never, R | KmsTest | Scope.Scope>
  <A, E, R>(self: Effect.Effect<A, E, R>, options?: Kms.Options): Effect.Effect<void, never, R | KmsTest | Scope.Scope>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    options?: Kms.Options
  ): Effect.Effect<void, never, R | KmsTest | Scope.Scope> =>
    start("listen", (program) => Kms.listen(Effect.andThen(program.watch, self), heard(program, options)))
)

const start = Effect.fnUntraced(function* <A, E, R>(
  name: string,
  run: (program: Program) => Effect.Effect<A, E, R>
): Effect.fn.Return<Program, never, R | KmsTest | Scope.Scope> {
  const test = yield* KmsTest
  if (test.program?.isRunning === true) {
    return yield* Effect.die(new Error(`KmsTest.${name}: the program launched before has not ended`))
  }
  const program = new Program(yield* Scheduler.Scheduler)
  test.program = program
  yield* Effect.acquireRelease(program.start(run(program)), () => program.abandon)
  yield* program.patiently(`KmsTest.${name}`, program.started)
  return program
})

const heard = (program: Program, options: Kms.Options = {}): Kms.Options => ({
  ...options,
  onStopped: (report) => {
    program.onStopped(report)
    return options.onStopped?.(report) ?? Effect.void
  }
})

const launched = <A>(name: string, f: (program: Program) => Effect.Effect<A>): Effect.Effect<A, never, KmsTest> =>
  Effect.flatMap(KmsTest, ({ program }) =>
    program === undefined
      ? Effect.die(new Error(`KmsTest.${name}: nothing has been launched in this process`))
      : f(program)
  )

/**
 * Sends a signal, and returns once it shows: in the lame duck, or when the drain has begun. Where it had, at once.
 *
 * **Details**
 *
 * It does what it does to a process under `NodeRuntime.runMain`, which interrupts its fiber on `SIGINT` and `SIGTERM`.
 * A second signal is the end, with exit code 1 (see `hardShutdown`), but for the same one within 500 milliseconds. A
 * signal that nobody listens for ends the process, with 128 and its number; one to a process that has ended does nothing.
 *
 * @category events
 * @since 0.1.0
 */
export const signal = (signal: NodeJS.Signals): Effect.Effect<void, never, KmsTest> =>
  launched("signal", (program) => program.signal(signal))

/**
 * Throws an error that nobody catches, and returns once the shutdown has begun.
 *
 * @category events
 * @since 0.1.0
 */
export const uncaught = (error: unknown): Effect.Effect<void, never, KmsTest> =>
  launched("uncaught", (program) => program.uncaught(error))

/**
 * Interrupts the fiber that runs the program, and returns once the shutdown has begun.
 *
 * @category events
 * @since 0.1.0
 */
export const interrupt: Effect.Effect<void, never, KmsTest> = launched("interrupt", (program) => program.interrupt)

/**
 * Waits until the shutdown has come as far as a phase, and gives the phase it is in. In `Draining` every listener has
 * begun to drain. Dies if the process ends before.
 *
 * @category accessors
 * @since 0.1.0
 */
export const reached = (phase: Kms.Phase["_tag"]): Effect.Effect<Kms.Phase, never, KmsTest> =>
  launched("reached", (program) => program.reached(phase))

/**
 * What is open now, and how much is in flight: what a test waits for that does not end.
 *
 * @category accessors
 * @since 0.1.0
 */
export const status: Effect.Effect<Kms.Status, never, KmsTest> = launched("status", (program) => program.status)

/**
 * Waits for the end of the process, and gives its exit code, as `Kms.teardown` sets it.
 *
 * @category accessors
 * @since 0.1.0
 */
export const exitCode: Effect.Effect<number, never, KmsTest> = launched("exitCode", (program) => program.exitCode)

/**
 * Waits for the report of the shutdown. Dies if the process ends without one, as it does at a second signal.
 *
 * @category accessors
 * @since 0.1.0
 */
export const report: Effect.Effect<Kms.Report, never, KmsTest> = launched("report", (program) => program.report)

/**
 * Waits for what `Kms.launch` or `Kms.listen` ends with: the failure of a start-up, the result of an effect. Dies if the
 * process ends without, as it does at a second signal.
 *
 * @category accessors
 * @since 0.1.0
 */
export const exit: Effect.Effect<Exit.Exit<unknown, unknown>, never, KmsTest> = launched(
  "exit",
  (program) => program.exit
)
