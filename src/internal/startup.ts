/**
 * Hears of a start-up that fails. A layer that fails closes what it had acquired before the failure is known outside,
 * and a finalizer that hangs there would keep the failure to itself for ever.
 */
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { Kms, type Service } from "./kms.ts"
import { Reason } from "./phase.ts"

/**
 * Builds `layer` in `scope`. If a part of it fails, and nothing more is built for as long as a shutdown may take, the
 * failure is reason enough for one, and its time has begun with the failure. A failure that a layer recovers from is
 * followed by the building of something else.
 */
export const build = Effect.fnUntraced(function* <A, E, R>(
  layer: Layer.Layer<A, E, R>,
  scope: Scope.Scope
): Effect.fn.Return<void, E, R> {
  const kms = yield* Kms
  const services = yield* Effect.context<never>()
  let unwinding: Fiber.Fiber<void> | undefined
  const goesOn = () => {
    unwinding?.interruptUnsafe()
    unwinding = undefined
  }
  const failed = (cause: Cause.Cause<unknown>) => {
    unwinding ??= Effect.runForkWith(services)(giveUp(kms, cause))
  }
  yield* Layer.buildWithMemoMap(layer, watched(goesOn, failed), scope).pipe(Effect.onExit(() => Effect.sync(goesOn)))
})

const giveUp = (kms: Service, cause: Cause.Cause<unknown>): Effect.Effect<void> => {
  const since = kms.now()
  return Effect.andThen(
    Effect.sleep(kms.timeout),
    Effect.sync(() => kms.begin(Reason.Failed({ cause }), since))
  )
}

/** A memo map that tells when a layer begins to be built, and when one has failed. */
const watched = (onBuild: () => void, onFailure: (cause: Cause.Cause<unknown>) => void): Layer.MemoMap => {
  const memoMap = Layer.makeMemoMapUnsafe()
  const self: Layer.MemoMap = Object.assign(Object.create(memoMap) as Layer.MemoMap, {
    getOrElseMemoize: <RIn, E, ROut>(
      ...[layer, scope, build]: Parameters<typeof memoMap.getOrElseMemoize<RIn, E, ROut>>
    ) =>
      memoMap.getOrElseMemoize(layer, scope, (_, scope) =>
        Effect.suspend(() => {
          onBuild()
          return Effect.onExit(build(self, scope), (exit) =>
            Effect.sync(() => {
              if (Exit.isFailure(exit)) onFailure(exit.cause)
            })
          )
        })
      )
  })
  return self
}
