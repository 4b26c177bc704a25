import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Result } from "effect"
import { TestClock } from "effect/testing"
import { listen, validate } from "../src/internal/signals.ts"
import * as Host from "./support/host.ts"

const listening = (host: Host.Host, signals: ReadonlyArray<NodeJS.Signals>) =>
  Effect.gen(function* () {
    const heard: Array<string> = []
    yield* listen(host.process, signals, {
      first: (signal) => void heard.push(`first ${signal}`),
      again: (signal) => void heard.push(`again ${signal}`)
    })
    return heard
  })

describe("signals", () => {
  it.effect("a second signal is told from the first", () =>
    Effect.gen(function* () {
      const host = Host.make()
      const heard = yield* listening(host, ["SIGINT", "SIGTERM"])
      host.signal("SIGTERM")
      host.signal("SIGINT")
      assert.deepStrictEqual(heard, ["first SIGTERM", "again SIGINT"])
    }).pipe(Effect.scoped)
  )

  it.effect("the same signal again within 500 milliseconds is the same one", () =>
    Effect.gen(function* () {
      const host = Host.make()
      const heard = yield* listening(host, ["SIGINT"])
      host.signal("SIGINT")
      yield* TestClock.adjust(32)
      host.signal("SIGINT")
      yield* TestClock.adjust(467)
      host.signal("SIGINT")
      assert.deepStrictEqual(heard, ["first SIGINT"])
      yield* TestClock.adjust(1)
      host.signal("SIGINT")
      assert.deepStrictEqual(heard, ["first SIGINT", "again SIGINT"])
    }).pipe(Effect.scoped)
  )

  it.effect("its echo is known though it is read late, after whatever the signal set off", () =>
    Effect.gen(function* () {
      const turned = yield* Deferred.make<void>()
      const host = Host.make()
      const heard = yield* listening({ ...host, process: { ...host.process, turn: Deferred.await(turned) } }, [
        "SIGINT"
      ])
      host.signal("SIGINT")
      yield* TestClock.adjust("2 seconds")
      host.signal("SIGINT")
      assert.deepStrictEqual(heard, ["first SIGINT"])
      yield* Deferred.succeed(turned, undefined)
      yield* Effect.yieldNow
      host.signal("SIGINT")
      assert.deepStrictEqual(heard, ["first SIGINT", "again SIGINT"])
    }).pipe(Effect.scoped)
  )

  it.effect("a hangup right after a signal belongs to it, a later one is a second signal", () =>
    Effect.gen(function* () {
      const host = Host.make()
      const heard = yield* listening(host, ["SIGTERM", "SIGHUP"])
      host.signal("SIGTERM")
      host.signal("SIGHUP")
      assert.deepStrictEqual(heard, ["first SIGTERM"])
      yield* TestClock.adjust("500 millis")
      host.signal("SIGHUP")
      assert.deepStrictEqual(heard, ["first SIGTERM", "again SIGHUP"])
    }).pipe(Effect.scoped)
  )

  it.effect("its listeners are gone when its scope has closed", () =>
    Effect.gen(function* () {
      const host = Host.make()
      yield* Effect.scoped(listening(host, ["SIGINT", "SIGTERM", "SIGHUP"]))
      assert.strictEqual(host.listeners(), 0)
    })
  )

  it.effect("under nohup a hangup is heard and ignored, since Node would die of it", () =>
    Effect.gen(function* () {
      const host = Host.make({ ignoresHangup: true })
      const heard = yield* listening(host, ["SIGTERM"])
      assert.isTrue(host.signal("SIGHUP"))
      assert.deepStrictEqual(heard, [])
    }).pipe(Effect.scoped)
  )

  it("names a signal that does not exist, and one that nobody can listen for", () => {
    for (const signal of ["SIGFOO", "SIGKILL", "SIGSTOP"]) {
      const result = validate(["SIGTERM", signal as NodeJS.Signals])
      assert.isTrue(Result.isFailure(result))
      if (Result.isFailure(result)) {
        assert.include(result.failure.message, "signals")
        assert.include(result.failure.message, signal)
      }
    }
    assert.isTrue(Result.isSuccess(validate(["SIGTERM", "SIGUSR2"])))
  })
})
