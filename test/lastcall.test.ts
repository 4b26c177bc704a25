import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import { Kms } from "effect-kms"
import { lastCall } from "../src/internal/lastcall.ts"
import { Process } from "../src/internal/process.ts"
import * as Host from "./support/host.ts"

/** Whoever goes on connecting: each turn takes 100 ms, and brings one more. */
const busy = () => {
  let count = 0
  const turn = Effect.andThen(
    Effect.sleep("100 millis"),
    Effect.sync(() => void count++)
  )
  return { process: { ...Host.make().process, turn }, listener: { accepted: () => count } }
}

describe("the last call", () => {
  for (const [left, ends] of [
    [Number.POSITIVE_INFINITY, 5000],
    [60_000, 5000],
    [2000, 500]
  ] as const) {
    it.effect(`lasts ${ends} ms at most where ${left} ms are left`, () =>
      Effect.gen(function* () {
        const { listener, process } = busy()
        let begun = 0
        const begin = () => void begun++
        const fiber = yield* Effect.forkChild(lastCall(process, [listener], left, begin))
        yield* TestClock.adjust(ends - 1)
        assert.isUndefined(fiber.pollUnsafe())
        assert.strictEqual(begun, 0)
        yield* TestClock.adjust(1)
        yield* Fiber.join(fiber)
        assert.isAtLeast(begun, 1)
      })
    )
  }

  it.effect("goes on after a turn that was blocked, since that has hardly looked", () =>
    Effect.gen(function* () {
      const { listener, process } = busy()
      let turns = 0
      const turn = Effect.suspend(() =>
        turns++ === 0 ? Effect.andThen(Effect.sleep(900), process.turn) : process.turn
      )
      const fiber = yield* Effect.forkChild(lastCall({ ...process, turn }, [listener], 4000, () => {}))
      // Half of the limit of a second, and five turns of 100 ms after it.
      yield* TestClock.adjust(1000 + 499)
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust(1)
      yield* Fiber.join(fiber)
      assert.strictEqual(turns, 6)
    })
  )

  it.effect("is over as soon as a turn brings none", () =>
    Effect.gen(function* () {
      const { process } = busy()
      let begun = 0
      const fiber = yield* Effect.forkChild(lastCall(process, [{ accepted: () => 7 }], 60_000, () => void begun++))
      yield* TestClock.adjust("100 millis")
      yield* Fiber.join(fiber)
      assert.isAtLeast(begun, 1)
    })
  )

  it.effect("leaves a shutdown three quarters of its time, whoever goes on connecting", () =>
    Effect.gen(function* () {
      const { listener, process } = busy()
      const host = Host.make()
      const drained = yield* Deferred.make<void>()
      const started = yield* Deferred.make<void>()
      const app = Layer.effectDiscard(
        Effect.gen(function* () {
          const kms = yield* Kms.Kms
          kms.register({
            ...listener,
            drainOn: "shutdown",
            lameDuck: () => {},
            begin: () => {},
            force: () => {},
            run: Effect.void,
            isDone: () => true,
            isQuiet: () => true,
            status: () => {
              throw new Error("it has nothing to tell")
            },
            report: () => undefined,
            held: () => []
          })
          yield* Kms.initiated.pipe(Effect.andThen(Deferred.succeed(drained, undefined)), Effect.forkScoped)
          yield* Deferred.succeed(started, undefined)
        })
      )
      const real = { ...host.process, turn: process.turn }
      const fiber = yield* app.pipe(
        Kms.launch({ timeout: "2 seconds" }),
        Effect.provideService(Process, real),
        Effect.forkDetach
      )
      yield* Deferred.await(started)
      host.signal("SIGTERM")
      yield* TestClock.adjust("499 millis")
      assert.isFalse(Deferred.isDoneUnsafe(drained))
      yield* TestClock.adjust("1 milli")
      assert.isTrue(Deferred.isDoneUnsafe(drained))
      yield* TestClock.adjust("1 second")
      yield* Fiber.await(fiber)
    })
  )
})
