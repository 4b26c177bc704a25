/**
 * Builds the layers of a program, and hears of what only the building of each can tell.
 *
 * Of a start-up that hangs in its own failure: a layer that fails closes what it had acquired before the failure is known
 * outside, and a finalizer that hangs there would keep the failure to itself for ever. And of the layers that are being
 * released, so that a finalizer without a name can at least be told by the services of its layer.
 */
import type * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
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
  yield* Layer.buildWithMemoMap(layer, watched({ onFailure: giveUp, releasing: kms.releasing }), scope)
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

/** What a memo map tells of the layers that are built with it. */
interface Watch {
  /** A layer has failed. What that gives is interrupted once the layer has closed. */
  readonly onFailure: (cause: Cause.Cause<unknown>) => Fiber.Fiber<void>
  readonly releasing: Service["releasing"]
}

/** A layer that is being built, has been, or is being released. */
class Part {
  /** There are layers inside it. */
  isComposite = false
  private end: (() => void) | undefined

  /** Its release begins: what it acquired last goes first. */
  begin(context: Pick<Context.Context<never>, "mapUnsafe">, { releasing }: Watch): Effect.Effect<void> {
    return Effect.withFiber((fiber) =>
      Effect.sync(() => {
        const services = Array.from(context.mapUnsafe.keys())
        this.end = releasing({ services, fiber, isComposite: this.isComposite })
      })
    )
  }

  readonly close: Effect.Effect<void> = Effect.sync(() => this.end?.())
}

const watched = (watch: Watch): Layer.MemoMap => within(Layer.makeMemoMapUnsafe(), watch, undefined)

const within = (memoMap: Layer.MemoMap, watch: Watch, parent: Part | undefined): Layer.MemoMap =>
  Object.assign(Object.create(memoMap) as Layer.MemoMap, {
    getOrElseMemoize: <RIn, E, ROut>(
      ...[layer, scope, build]: Parameters<typeof memoMap.getOrElseMemoize<RIn, E, ROut>>
    ) => {
      if (parent !== undefined) parent.isComposite = true
      let closing: Fiber.Fiber<void> | undefined
      const failed = (exit: Exit.Exit<unknown, unknown>) =>
        Effect.sync(() => {
          if (Exit.isFailure(exit)) closing = watch.onFailure(exit.cause)
        })
      const closed = Effect.sync(() => closing?.interruptUnsafe())
      const built = memoMap.getOrElseMemoize(layer, scope, (_, scope) => {
        const part = new Part()
        const inner = Effect.tap(build(within(memoMap, watch, part), scope), (context) =>
          Scope.addFinalizer(scope, part.begin(context, watch))
        )
        return Effect.andThen(Scope.addFinalizer(scope, part.close), Effect.onExit(inner, failed))
      })
      // Added before anything that the layer acquires, so it runs after all of that has been released.
      return Effect.andThen(Scope.addFinalizer(scope, closed), built)
    }
  })
