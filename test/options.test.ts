import { assert, describe, it } from "@effect/vitest"
import { Duration, Result } from "effect"
import { decodeTiming } from "../src/internal/listener.ts"
import { millis, OptionError } from "../src/internal/options.ts"

const any = { zero: true, infinite: true }

describe("options", () => {
  it("of a listener are by default what their documentation says", () => {
    assert.deepStrictEqual(decodeTiming({}), Result.succeed({ closeTimeout: 1000, quietPeriod: 500 }))
  })

  it("takes every way in which Effect writes a duration, and infinity in small letters too", () => {
    const temporal = new (class {
      get seconds() {
        return 2
      }
    })()
    const two = ["2 seconds", 2000, 2_000_000_000n, [2, 0], { seconds: 2, hours: undefined }, temporal] as const
    for (const input of [...two, Duration.seconds(2)]) {
      assert.deepStrictEqual(millis("timeout", input, any), Result.succeed(2000))
    }
    for (const input of ["infinity", "Infinity", Duration.infinity] as const) {
      assert.deepStrictEqual(millis("timeout", input, any), Result.succeed(Number.POSITIVE_INFINITY))
    }
  })

  it("names the option, the value and the problem of one that cannot be meant", () => {
    const wrong = [
      ["soon" as "1 second", any, 'Option closeTimeout is "soon": not a duration'],
      [Number.NaN, any, "Option closeTimeout is NaN: not a duration"],
      [[0, Number.NaN], any, "Option closeTimeout is [0, NaN]: not a duration"],
      [{ second: 5 } as {}, any, "Option closeTimeout is { second: 5 }: not a duration"],
      [{ seconds: Number.NaN }, any, "Option closeTimeout is { seconds: NaN }: not a duration"],
      [{}, any, "Option closeTimeout is {}: not a duration"],
      ["-1 seconds", any, 'Option closeTimeout is "-1 seconds": a duration cannot be negative'],
      ["-Infinity", any, 'Option closeTimeout is "-Infinity": a duration cannot be negative'],
      [0, { zero: false, infinite: true }, "Option closeTimeout is 0: it has to be longer than zero"],
      ["infinity", { zero: true, infinite: false }, 'Option closeTimeout is "infinity": it has to be finite']
    ] as const
    for (const [input, limits, message] of wrong) {
      const result = millis("closeTimeout", input, limits)
      assert.isTrue(Result.isFailure(result), message)
      if (Result.isFailure(result)) {
        assert.instanceOf(result.failure, OptionError)
        assert.strictEqual(result.failure.message, message)
      }
    }
  })
})
