/**
 * Hears of a start-up that hangs in its own failure. A layer that fails closes what it had acquired before the failure is
 * known outside, and a finalizer that hangs there would keep the failure to itself for ever.
 */
import type * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import { Kms, type Service } from "./kms.ts"
import { Reason } from "./phase.ts"

/**
 * Builds `layer` in `scope`. If a part of it fails and has not closed what it had acquired after as long as a shutdown
 * may take, the failure is reason enough for one, and its time has begun with the failure.
 */
export const build = Effect.fnUntraced(function* <A, E, R>(
  layer: Layer.Layer<A, E, R>,
  scope: Scope.Scope
): Effect.fn.Return<void, E, R> {
  const kms = yield* Kms
  const services = yield* Effect.context<never>()
  const giveUp = (cause: Cause.Cause<unknown>) => Effect.runForkWith(services)(giveUpAfter(kms, cause))
  yield* Layer.buildWithMemoMap(layer, watched(giveUp), scope)
  yield* started
})

/** The program has what it takes to work. */
export const started: Effect.Effect<void> = Effect.flatMap(Kms, (kms) =>
  Effect.asVoid(Deferred.succeed(kms.started, undefined))
)

const giveUpAfter = (kms: Service, cause: Cause.Cause<unknown>): Effect.Effect<void> =>
  Effect.suspend(() => {
    const isFirst = kms.failedSince === undefined
    kms.failedSince ??= kms.now()
    return Effect.sleep(kms.timeout).pipe(
      Effect.andThen(Effect.sync(() => kms.begin(Reason.Failed({ cause })))),
      Effect.onInterrupt(() =>
        Effect.sync(() => {
          if (isFirst) kms.failedSince = undefined
        })
      )
    )
  })

/** A memo map that calls `onFailure` when a layer has failed, and interrupts what that gives once the layer has closed. */
const watched = (onFailure: (cause: Cause.Cause<unknown>) => Fiber.Fiber<void>): Layer.MemoMap => {
  const memoMap = Layer.makeMemoMapUnsafe()
  const self: Layer.MemoMap = Object.assign(Object.create(memoMap) as Layer.MemoMap, {
    getOrElseMemoize: <RIn, E, ROut>(
      ...[layer, scope, build]: Parameters<typeof memoMap.getOrElseMemoize<RIn, E, ROut>>
    ) => {
      let closing: Fiber.Fiber<void> | undefined
      const failed = (exit: Exit.Exit<unknown, unknown>) =>
        Effect.sync(() => {
          if (Exit.isFailure(exit)) closing = onFailure(exit.cause)
        })
      const closed = Effect.sync(() => closing?.interruptUnsafe())
      // Added before anything that the layer acquires, so it runs after all of that has been released.
      return Effect.andThen(
        Scope.addFinalizer(scope, closed),
        memoMap.getOrElseMemoize(layer, scope, (_, scope) => Effect.onExit(build(self, scope), failed))
      )
    }
  })
  return self
}
