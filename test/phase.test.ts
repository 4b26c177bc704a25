import { assert, describe, it } from "@effect/vitest"
import { Cause } from "effect"
import * as fc from "fast-check"
import { describe as words, Event, Phase, reached, Reason, step } from "../src/internal/phase.ts"

const begin = Event.Begin({ reason: Reason.Signal({ signal: "SIGTERM" }), deadline: 25_000, lameDuck: false })
const order = ["Running", "LameDuck", "Draining", "Unwinding", "Stopped"] as const

const run = (...events: ReadonlyArray<Event>): Phase => events.reduce(step, Phase.Running())

const event: fc.Arbitrary<Event> = fc.oneof(
  fc
    .record({ deadline: fc.nat(), lameDuck: fc.boolean(), message: fc.string() })
    .map(({ deadline, lameDuck, message }) =>
      Event.Begin({ reason: Reason.Requested({ message }), deadline, lameDuck })
    ),
  fc.constantFrom(Event.Drain(), Event.Unwind(), Event.Force(), Event.Stop())
)

describe("phase", () => {
  it("goes from Running to Draining where there is no lame duck", () => {
    assert.strictEqual(run(begin)._tag, "Draining")
  })

  it("goes through every phase in order", () => {
    const events = [{ ...begin, lameDuck: true }, Event.Drain(), Event.Unwind(), Event.Stop()]
    const phases = events.map((_, i) => run(...events.slice(0, i + 1))._tag)
    assert.deepStrictEqual(phases, ["LameDuck", "Draining", "Unwinding", "Stopped"])
  })

  it("ignores everything before there is a reason to end", () => {
    const running = Phase.Running()
    for (const early of [Event.Drain(), Event.Unwind(), Event.Force(), Event.Stop()]) {
      assert.strictEqual(step(running, early), running)
    }
  })

  it("keeps the first reason and its deadline", () => {
    const later = Event.Begin({ reason: Reason.Interrupted(), deadline: 1, lameDuck: true })
    const phase = run(begin, later)
    assert.deepStrictEqual(phase, run(begin))
  })

  it("unwinds at once, forced, when the deadline comes in the lame duck or the drain", () => {
    for (const lameDuck of [true, false]) {
      const phase = run({ ...begin, lameDuck }, Event.Force())
      assert.deepInclude(phase, { _tag: "Unwinding", forced: true, deadline: 25_000 })
    }
  })

  it("stays forced until the end", () => {
    assert.deepInclude(run(begin, Event.Unwind(), Event.Force(), Event.Stop()), { _tag: "Stopped", forced: true })
  })

  it("does not change any more once it has stopped", () => {
    const stopped = run(begin, Event.Unwind(), Event.Stop())
    for (const late of [begin, Event.Drain(), Event.Unwind(), Event.Force(), Event.Stop()]) {
      assert.strictEqual(step(stopped, late), stopped)
    }
  })

  it("only ever moves forward, keeps its first reason and deadline, and stays forced", () => {
    fc.assert(
      fc.property(fc.array(event, { maxLength: 20 }), (events) => {
        let phase: Phase = Phase.Running()
        for (const event of events) {
          const next = step(phase, event)
          assert.isTrue(order.indexOf(next._tag) >= order.indexOf(phase._tag))
          assert.isTrue(reached(next, phase._tag))
          if (phase._tag !== "Running" && next._tag !== "Running") {
            assert.strictEqual(next.reason, phase.reason)
            assert.strictEqual(next.deadline, phase.deadline)
            assert.isTrue(next.forced || !phase.forced)
          }
          phase = next
        }
      }),
      { numRuns: 2000 }
    )
  })

  it("describes each reason in a few words", () => {
    assert.deepStrictEqual(
      [
        Reason.Signal({ signal: "SIGINT" }),
        Reason.Interrupted(),
        Reason.Requested({ message: undefined }),
        Reason.Requested({ message: "upgrade" }),
        Reason.Uncaught({ error: new Error("boom") }),
        Reason.Failed({ cause: Cause.fail("no port") })
      ].map(words),
      ["SIGINT", "interruption", "request", "request: upgrade", "uncaught error: Error: boom", "failure"]
    )
  })
})
