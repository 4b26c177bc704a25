/**
 * Runs a program, and ends it: begin everywhere at once, drain while everything is alive, unwind in reverse, cut at the
 * deadline. The steps are in the order of the phases, top to bottom.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Runtime from "effect/Runtime"
import * as Scope from "effect/Scope"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { Kms } from "./kms.ts"
import { lastCall } from "./lastcall.ts"
import * as Limit from "./limit.ts"
import * as Metrics from "./metrics.ts"
import { describe, Event, Phase, Reason } from "./phase.ts"
import { codeOf, Outcome } from "./outcome.ts"
import { within } from "./place.ts"
import { Process } from "./process.ts"
import type { Report } from "./report.ts"
import type { Settings } from "./settings.ts"
import { Shutdown } from "./shutdown.ts"
import * as Signals from "./signals.ts"
import { began, ended } from "./text.ts"
import * as Trace from "./trace.ts"
import * as View from "./view.ts"

/** The work was not done when the deadline came. */
export class ShutdownTimeout extends Data.TaggedError("ShutdownTimeout")<{ readonly report: Report }> {
  // The report has been logged already.
  override readonly [Runtime.errorReported] = false
  override get message(): string {
    return ended(this.report)
  }
}

export interface Program<A, E, R> {
  readonly run: Effect.Effect<A, E, R>
  /** Releases what `run` left open. */
  readonly release: (exit: Exit.Exit<unknown, unknown>) => Effect.Effect<void>
}

export const supervise = <A, E, R>(
  program: Program<A, E, R>,
  settings: Settings
): Effect.Effect<A, E | ShutdownTimeout, R> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const phases = yield* SubscriptionRef.make<Phase>(Phase.Running())
      const shutdown = new Shutdown(settings, yield* Clock.Clock, yield* Process, phases)
      const listening = yield* Scope.make()
      yield* Scope.provide(hearSignals(shutdown), listening)
      const catching = yield* Scope.make()
      if (settings.uncaught) yield* Scope.provide(catchUncaught(shutdown), catching)

      const services = yield* Effect.context<never>()
      const { gate } = shutdown
      shutdown.onGone(
        Metrics.shutdown(
          services,
          () => shutdown.phase._tag,
          () => gate.live.size
        )
      )
      yield* Effect.withFiber((root) => Effect.sync(() => follow(root, shutdown)))

      // In a fiber of its own: the interruption of the root is a reason to end, not the end.
      const app = yield* restore(program.run).pipe(
        Effect.provideService(Kms, shutdown),
        Effect.forkDetach({ startImmediately: true })
      )
      app.addObserver((exit) => shutdown.programEnded(exit))
      const waited = yield* Effect.exit(restore(Deferred.await(shutdown.begun)))
      if (Exit.isFailure(waited)) shutdown.begin(Reason.Interrupted())

      const silent = shutdown.silent
      if (!silent)
        shutdown.trace = Trace.begin(services, shutdown.clock, "kms.shutdown", {
          "kms.reason": describe(shutdown.reason!)
        })
      const view = yield* View.make(silent ? undefined : shutdown.host.terminal, shutdown)
      const unwound = yield* end(shutdown, app, program.release, silent ? undefined : view)
      const outcome = yield* conclude(shutdown, unwound, silent ? undefined : view)
      yield* Scope.close(catching, Exit.void)
      yield* shutdown.endedByItself ? Scope.close(listening, Exit.void) : hearOn(shutdown, listening)

      const annotations = Context.make(Outcome, outcome)
      // A pending interruption replaces whatever is returned from here, so the outcome has to travel with it.
      const interrupted = Exit.isFailure(yield* Effect.exit(restore(Effect.void)))
      if (!interrupted) {
        const { reason } = shutdown
        let failure: Cause.Cause<E | ShutdownTimeout> = Cause.empty
        if (reason?._tag === "Failed") failure = reason.cause as Cause.Cause<E>
        if (shutdown.report.forced) {
          failure = Cause.combine(failure, Cause.fail(new ShutdownTimeout({ report: shutdown.report })))
        }
        if (failure.reasons.length > 0) return yield* Effect.failCause(Cause.annotate(failure, annotations))
        const own = app.pollUnsafe()
        if (own !== undefined && shutdown.endedByItself) return yield* own
      }
      yield* giveUpLate(shutdown)
      yield* Effect.withFiber((root) => Effect.sync(() => root.interruptUnsafe(root.id, annotations)))
      // Where the root itself cannot be interrupted, it ends all the same.
      return yield* Effect.failCause(Cause.annotate(Cause.interrupt(), annotations))
    })
  )

/** The last shutdown of each fiber that has supervised a program. */
const last = new WeakMap<Fiber.Fiber<unknown, unknown>, Shutdown>()

/** Tells a shutdown of the end of its root, or of the next shutdown there. */
const follow = (root: Fiber.Fiber<unknown, unknown>, shutdown: Shutdown): void => {
  const before = last.get(root)
  last.set(root, shutdown)
  if (before === undefined) root.addObserver(() => last.get(root)?.gone())
  else before.gone()
}

/** Hears signals, until the scope closes. */
const hearSignals = ({ begin, host, settings }: Shutdown): Effect.Effect<void, never, Scope.Scope> =>
  Signals.listen(host, settings.signals, {
    // Of a shutdown that something else began, the first signal is not a second one.
    first: (signal) => begin(Reason.Signal({ signal })),
    again: (signal) => {
      if (!settings.hardShutdown) return
      host.say(`Received ${signal} during the shutdown: exit at once`)
      host.exit(1)
    }
  })

/** Hears of errors that nothing else catches, until the scope closes. */
const catchUncaught = Effect.fnUntraced(function* (shutdown: Shutdown): Effect.fn.Return<void, never, Scope.Scope> {
  const services = yield* Effect.context<never>()
  yield* Effect.acquireRelease(
    Effect.sync(() =>
      shutdown.host.onUncaught((error) => {
        Effect.runForkWith(services)(View.tell(Effect.logError("Uncaught error", Cause.die(error))))
        shutdown.broken = true
        shutdown.begin(Reason.Uncaught({ error }))
      })
    ),
    (remove) => Effect.sync(remove)
  )
})

/**
 * Until the root has ended, which releases what is provided around the program, a second signal still ends it at once.
 *
 * Signals are heard for a turn longer: with nobody listening a signal has its default action back, and the echo of a Ctrl-C
 * would end the process as if nothing had been done. `runMain` stops listening before it calls `teardown`.
 */
const hearOn = Effect.fnUntraced(function* (shutdown: Shutdown, listening: Scope.Closeable): Effect.fn.Return<void> {
  const run = Effect.runForkWith(yield* Effect.context<never>())
  const close = Scope.close(listening, Exit.void)
  yield* Effect.withFiber((root) =>
    Effect.sync(() =>
      // Another shutdown in the same root listens already.
      shutdown.onGone(
        () => void run(root.pollUnsafe() === undefined ? close : Effect.andThen(shutdown.host.turn, close))
      )
    )
  )
})

/** The root is about to be interrupted: the process is gone in time, whatever hangs in what is provided around the program. */
const giveUpLate = Effect.fnUntraced(function* (shutdown: Shutdown): Effect.fn.Return<void> {
  const { deadline, exitBy, host, settings } = shutdown
  const left = Math.max(exitBy, deadline + settings.forceTimeout) - shutdown.now()
  if (!Number.isFinite(left)) return
  const giveUp = Effect.sync(() => {
    host.say("What is provided around the program has not been released in time: exit at once")
    host.exit(1)
  })
  const waiting = yield* Effect.forkDetach(Effect.andThen(Limit.over(host, left), giveUp))
  shutdown.onGone(() => waiting.interruptUnsafe())
})

/** Drains and unwinds, within the deadline and what comes after it. */
const end = Effect.fnUntraced(function* (
  shutdown: Shutdown,
  app: Fiber.Fiber<unknown, unknown>,
  release: Program<unknown, unknown, unknown>["release"],
  view: View.View | undefined
) {
  const { deadline, timeout } = shutdown
  const reason = shutdown.reason!
  // A function is known to be wrong only now: then there is no lame duck.
  const asked = shutdown.lameDuck
  if (Result.isFailure(asked)) yield* View.tell(Effect.logWarning(asked.failure.message))
  const lameDuck = Result.getOrElse(asked, () => 0)
  yield* shutdown.move(Event.Begin({ reason, deadline, lameDuck: lameDuck > 0 }))
  if (view !== undefined) {
    yield* View.tell(Effect.suspend(() => Effect.logInfo(began(reason, shutdown.status(), { timeout, lameDuck }))))
  }
  const watching = yield* Effect.forkDetach(view?.watch ?? Effect.void)
  const unwinding = yield* Effect.forkDetach(drainAndUnwind(shutdown, app, release, lameDuck), {
    startImmediately: true
  })
  const done = yield* Limit.within(Fiber.await(unwinding), shutdown.host, deadline - shutdown.now())
  if (Option.isNone(done)) {
    yield* shutdown.move(Event.Force())
    const held = shutdown.held()
    const cut = held.length > 0 ? held : inProgram(app)
    shutdown.force()
    yield* View.tell(
      Effect.logWarning(`The deadline has come. Cut: ${cut.length === 0 ? "nothing with a name" : cut.join("; ")}`)
    )
    app.interruptUnsafe()
    const left = shutdown.exitBy - shutdown.grace - shutdown.now()
    const unwound = yield* Limit.within(Fiber.await(unwinding), shutdown.host, left)
    if (Option.isNone(unwound) || app.pollUnsafe() === undefined) shutdown.hung = hanging(shutdown, app)
  }
  yield* Fiber.interrupt(watching)
  return unwinding.pollUnsafe() ?? Exit.void
})

const drainAndUnwind = Effect.fnUntraced(function* (
  shutdown: Shutdown,
  app: Fiber.Fiber<unknown, unknown>,
  release: Program<unknown, unknown, unknown>["release"],
  lameDuck: number
) {
  const drained = yield* Effect.exit(drain(shutdown, lameDuck))
  // Whatever goes wrong in the drain, what was acquired is released.
  if (Exit.isFailure(drained)) shutdown.force()
  yield* shutdown.move(Event.Unwind())
  app.interruptUnsafe()
  const exit = yield* Effect.raceFirst(
    Fiber.await(app),
    // An acquisition that hangs holds its fiber; what was acquired before it is released all the same.
    Effect.as(Effect.andThen(Deferred.await(shutdown.forced), Effect.sleep(shutdown.grace)), Exit.void)
  )
  const released = yield* Effect.exit(release(exit))
  // What the program itself ended with is its caller's to know.
  const ends = shutdown.endedByItself ? [drained, released] : [drained, exit, released]
  return yield* Exit.asVoidAll([...ends, ...shutdown.defects.map(Exit.die)])
})

const drain = Effect.fnUntraced(function* (shutdown: Shutdown, lameDuck: number) {
  const forced = Deferred.await(shutdown.forced)
  if (lameDuck > 0) {
    shutdown.warn()
    yield* Effect.timeoutOption(forced, lameDuck)
  }
  yield* shutdown.move(Event.Drain())
  const services = yield* Effect.context<never>()
  const begin = () => shutdown.drain((drain) => void Effect.runForkWith(services)(drain.run))
  const left = shutdown.deadline - shutdown.now()
  yield* Effect.raceFirst(lastCall(shutdown.host, shutdown.withShutdown(), left, begin), forced)
  begin()
  yield* Effect.raceFirst(Deferred.await(shutdown.empty), forced)
})

/** What has not ended although its time is over, in words. */
const hanging = (shutdown: Shutdown, app: Fiber.Fiber<unknown, unknown>): ReadonlyArray<string> => {
  const named = [...shutdown.held(), ...inProgram(app)]
  if (named.length > 0) return named
  return [
    app.pollUnsafe() === undefined
      ? "the program: something in it that cannot be interrupted, or a finalizer without a name"
      : "a finalizer without a name (Kms.addFinalizer and Kms.layerNamed give one)"
  ]
}

/** Where the program is, as far as Effect knows. */
const inProgram = (app: Fiber.Fiber<unknown, unknown>): ReadonlyArray<string> => {
  const where = within(app)
  return where === "" ? [] : [`the program${where}`]
}

/** Makes the report, tells it, and says how the process is to end. */
const conclude = Effect.fnUntraced(function* (
  shutdown: Shutdown,
  unwound: Exit.Exit<unknown, unknown>,
  view: View.View | undefined
) {
  // Nobody waits for handlers that do not end, and yet they are to be known.
  if (shutdown.hung.length === 0) shutdown.hung = shutdown.held()
  shutdown.stop()
  yield* shutdown.move(Event.Stop())
  const { report } = shutdown
  shutdown.trace?.end(report.forced ? Exit.die(new ShutdownTimeout({ report })) : Exit.void, {
    "kms.forced": report.forced
  })
  const failed = Exit.isFailure(unwound) && !Cause.hasInterruptsOnly(unwound.cause)
  if (failed) yield* View.tell(Effect.logError("The program failed as it was shut down", unwound.cause))
  if (view !== undefined) yield* view.end(report)
  const left = () => Math.max(0, shutdown.exitBy - shutdown.now())
  const { onStopped } = shutdown.settings
  if (onStopped !== undefined) {
    // Half of what is left for the user, the other half to get the output out.
    yield* Effect.suspend(() => onStopped(report)).pipe(
      Effect.catchCause((cause) => View.tell(Effect.logError("onStopped failed", cause))),
      Effect.forkDetach({ startImmediately: true }),
      Effect.flatMap(Fiber.await),
      (told) => Limit.within(told, shutdown.host, left() / 2)
    )
  }
  const isLost = failed || shutdown.broken
  return { code: codeOf(report, isLost), flushTimeout: left(), host: shutdown.host, signals: shutdown.settings.signals }
})
