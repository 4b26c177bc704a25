/**
 * Finalizers with a name in the report, and with a timeout of their own.
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { Kms } from "./kms.ts"
import type { FinalizerReport } from "./report.ts"

/**
 * Runs a release under its name. With a timeout it is abandoned when that is over, or at the cut, whichever comes
 * first: a finalizer cannot be interrupted, so it runs in a fiber of its own, and only the wait for it ends.
 */
export const named = Effect.fnUntraced(function* <R>(
  name: string,
  timeout: number | undefined,
  release: Effect.Effect<void, never, R>
): Effect.fn.Return<void, never, R> {
  const kms = yield* Kms
  const clock = yield* Clock.Clock
  const since = clock.currentTimeMillisUnsafe()
  const done = kms.finalizing({ name, since })
  const finish = (outcome: FinalizerReport["outcome"], exit?: Exit.Exit<unknown, unknown>) =>
    Effect.sync(() => done({ name, outcome, exit, millis: clock.currentTimeMillisUnsafe() - since }))
  const ended = (exit: Exit.Exit<unknown, unknown>) => finish(Exit.isSuccess(exit) ? "released" : "failed", exit)
  if (timeout === undefined) return yield* Effect.onExit(release, (exit) => ended(exit))

  const services = yield* Effect.context<R>()
  const fiber = Effect.runForkWith(services)(release, { uninterruptible: true })
  const abandoned = (outcome: "timed out" | "abandoned") =>
    Effect.andThen(Effect.logWarning(`Finalizer "${name}" ${outcome}`), finish(outcome))
  // One that begins after the cut is in a hurry, but has a chance.
  const phase = SubscriptionRef.getUnsafe(kms.phases)
  const isCut = phase._tag !== "Running" && phase.forced
  const cut = isCut ? Effect.sleep(kms.grace) : Deferred.await(kms.forced)
  const next = yield* Effect.raceAllFirst([
    Effect.map(Fiber.await(fiber), (exit) => Effect.andThen(ended(exit), exit)),
    Effect.as(Effect.sleep(timeout), abandoned("timed out")),
    Effect.as(cut, abandoned("abandoned"))
  ])
  yield* next
})
