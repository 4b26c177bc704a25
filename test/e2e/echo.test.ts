/** One Ctrl-C that comes twice, as a terminal and a wrapper send it, to a program that is over in no time. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { beside, start } from "../support/program.ts"

const idle = beside(import.meta.url, "./fixtures/idle.ts")
const blocks = beside(import.meta.url, "./fixtures/blocks.ts")

/** Milliseconds from the one to the other: while it ends, as it ends, and after. */
const gaps = [5, 6, 8, 10, 12, 14, 16, 18, 20, 22, 25, 28]

const twice = (gap: number) =>
  Effect.gen(function* () {
    const program = yield* start(idle)
    yield* program.printed(/^started$/m)
    program.child.kill("SIGINT")
    yield* Effect.sleep(gap)
    // It may have gone by now, which is not a failure of the kill.
    program.child.kill("SIGINT")
    const { code, signal } = yield* program.ended
    return { gap, code, signal }
  }).pipe(Effect.scoped)

describe("the echo of a Ctrl-C", () => {
  it.live("never ends the program by the signal, however far the end has come", () =>
    Effect.gen(function* () {
      const seen = yield* Effect.forEach(gaps, twice, { concurrency: 3 })
      assert.deepStrictEqual(
        seen,
        gaps.map((gap) => ({ gap, code: 0, signal: null }))
      )
    })
  )

  it.live("ends no work, though that has the event loop for itself until long after it came", () =>
    Effect.gen(function* () {
      const program = yield* start(blocks)
      yield* program.printed(/^started$/m)
      program.child.kill("SIGINT")
      const { code, signal } = yield* program.ended
      assert.match(program.output(), /^finished$/m)
      assert.deepStrictEqual([code, signal], [0, null])
    }).pipe(Effect.scoped)
  )
})
