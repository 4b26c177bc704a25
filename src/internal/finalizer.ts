/**
 * Finalizers with a name in the report, and with a timeout of their own.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Tracer from "effect/Tracer"
import { type FinalizerEnd, Kms } from "./kms.ts"
import * as Limit from "./limit.ts"
import { inWords, millis } from "./options.ts"
import { Process } from "./process.ts"
import * as Trace from "./trace.ts"

/**
 * Runs a release under its name. With a timeout it is abandoned when that is over, or at the cut, whichever comes
 * first: a finalizer cannot be interrupted, so it runs in a fiber of its own, and only the wait for it ends.
 */
const named = Effect.fnUntraced(function* <R>(
  name: string,
  timeout: number | undefined,
  release: Effect.Effect<void, never, R>
): Effect.fn.Return<void, never, R> {
  const kms = yield* Kms
  const clock = yield* Clock.Clock
  const since = clock.currentTimeMillisUnsafe()
  const services = yield* Effect.context<R>()
  const trace = Trace.begin(services, clock, "kms.finalizer", { "kms.finalizer": name }, kms.trace)
  const traced = trace.span === undefined ? release : Effect.provideService(release, Tracer.ParentSpan, trace.span)
  const running = (fiber: Fiber.Fiber<unknown, unknown>) => {
    const done = kms.finalizing({ name, since, fiber })
    return (end: FinalizerEnd, exit: Exit.Exit<unknown, unknown>) =>
      Effect.sync(() => {
        trace.end(exit, { "kms.outcome": end.outcome })
        done(end)
      })
  }
  if (timeout === undefined) {
    const finish = running(yield* Effect.withFiber(Effect.succeed))
    return yield* Effect.onExit(traced, (exit) => finish(ended(exit), exit))
  }

  const fiber = Effect.runForkWith(services)(traced, { uninterruptible: true })
  const finish = running(fiber)
  const abandoned = (outcome: "timed out" | "abandoned") =>
    Effect.andThen(
      Effect.logWarning(`Finalizer "${name}" ${outcome}`),
      finish({ outcome }, Exit.die(new Error(`Finalizer "${name}" ${outcome}`)))
    )
  // One that begins after the cut is in a hurry, but has a chance.
  const phase = SubscriptionRef.getUnsafe(kms.phases)
  const host = yield* Process
  const isCut = phase._tag !== "Running" && phase.forced
  const cut = isCut ? Limit.over(host, kms.grace) : Deferred.await(kms.forced)
  const next = yield* Effect.raceAllFirst([
    Effect.map(Fiber.await(fiber), (exit) => Effect.andThen(finish(ended(exit), exit), exit)),
    Effect.as(Limit.over(host, timeout), abandoned("timed out")),
    Effect.as(cut, abandoned("abandoned"))
  ])
  yield* next
})

/** Adds a finalizer with a name. Dies with `OptionError` if the timeout is invalid. */
export const add = <R>(
  name: string,
  timeout: Duration.Input | undefined,
  finalizer: (exit: Exit.Exit<unknown, unknown>) => Effect.Effect<void, never, R>
): Effect.Effect<void, never, R | Scope.Scope> =>
  Effect.flatMap(decode(timeout), (millis) => Effect.addFinalizer((exit) => named(name, millis, finalizer(exit))))

/** Builds a layer in a scope of its own, whose closing is a finalizer with a name. */
export const layer = <A, E, R>(
  name: string,
  timeout: Duration.Input | undefined,
  self: Layer.Layer<A, E, R>
): Layer.Layer<A, E, R> =>
  Layer.fromBuildMemo<A, E, R>((memoMap, scope) =>
    Effect.gen(function* () {
      const own = yield* Scope.make()
      yield* Scope.provide(
        add(name, timeout, (exit) => Scope.close(own, exit)),
        scope
      )
      return yield* Layer.buildWithMemoMap(self, memoMap, own)
    })
  )

const decode = (timeout: Duration.Input | undefined): Effect.Effect<number | undefined> =>
  timeout === undefined
    ? Effect.undefined
    : Effect.orDie(Effect.fromResult(millis("timeout", timeout, { zero: false, infinite: true })))

const ended = (exit: Exit.Exit<unknown, unknown>): FinalizerEnd =>
  Exit.isSuccess(exit) ? { outcome: "released" } : { outcome: "failed", error: inWords(Cause.squash(exit.cause)) }
