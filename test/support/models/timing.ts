/**
 * How a shutdown goes, reckoned with pencil and paper: a plan says what is in flight and how long everything takes, and from
 * that follows when the process ends, with which code, and which finalizers have begun by then. All in milliseconds; the
 * reason to end comes at 0.
 *
 * Durations are drawn with a remainder of their own, so that no two things happen in the same millisecond by chance.
 */
import * as fc from "fast-check"

export interface Section {
  /** When it ends by itself. */
  readonly end: number
  /** It cannot be interrupted. */
  readonly stubborn: boolean
  /** Its fiber is in no scope. */
  readonly detached: boolean
}

export interface Finalizer {
  readonly takes: number
  readonly timeout: number | undefined
  readonly fails: boolean
}

export interface Plan {
  readonly reason: "signal" | "interruption" | "request" | "uncaught"
  readonly timeout: number
  readonly lameDuck: number
  readonly forceTimeout: number
  readonly sections: ReadonlyArray<Section>
  /** In the order in which they were added. */
  readonly finalizers: ReadonlyArray<Finalizer>
  /** When another signal comes. */
  readonly again: number | undefined
  /** Time is moved so far at once, and then to the end. */
  readonly first: number
}

/** Sections begin this long before the reason to end. */
export const head = 7

const duration = (remainder: number, max: number) => fc.nat(max).map((n) => n * 100 + remainder)
const sometimes = <A>(arbitrary: fc.Arbitrary<A>) => fc.option(arbitrary, { nil: undefined, freq: 2 })

export const plan: fc.Arbitrary<Plan> = fc
  .record({
    reason: fc.constantFrom("signal", "signal", "interruption", "request", "uncaught"),
    timeout: duration(45, 99),
    lameDuck: fc.oneof(fc.constant(0), duration(0, 60)),
    // A quarter of it is the grace.
    forceTimeout: duration(3, 20).map((quarter) => 4 * quarter),
    sections: fc.array(fc.record({ end: duration(93, 80), stubborn: fc.boolean(), detached: fc.boolean() }), {
      maxLength: 3
    }),
    finalizers: fc.array(
      fc.record({
        takes: duration(2, 30),
        timeout: sometimes(duration(30, 30)),
        fails: fc.nat(7).map((n) => n === 0)
      }),
      { maxLength: 5 }
    ),
    again: fc.option(duration(61, 60), { nil: undefined, freq: 5 }),
    first: fc.nat(20_000)
  })
  // A lame duck is shorter than the timeout.
  .map((plan): Plan => (plan.lameDuck < plan.timeout ? plan : { ...plan, lameDuck: 0 }))

export interface Course {
  /** When the process ends. */
  readonly end: number
  readonly code: 0 | 1
  /** Whether the deadline cut something. */
  readonly forced: boolean
  /** Whether a second signal ended it. */
  readonly killed: boolean
  /** When each finalizer begins that does, the last added first. */
  readonly begins: ReadonlyArray<number>
  /** What the report says became of each of those that ended. */
  readonly outcomes: ReadonlyArray<"released" | "failed" | "timed out" | "abandoned">
  /** Sections that ended by themselves since the drain began, and those that were cut. */
  readonly drained: number
  readonly cut: number
  /** Those of the latter that go on. */
  readonly abandoned: number
  /** Those of them that end at the very moment in which the report is made: either is right. */
  readonly tied: number
}

export const reckon = (plan: Plan): Course => {
  const isUncaught = plan.reason === "uncaught"
  const deadline = isUncaught ? Math.min(plan.timeout, 5000) : plan.timeout
  const drain = isUncaught ? 0 : plan.lameDuck
  const grace = plan.forceTimeout / 4
  const givesUp = deadline + 3 * grace

  // The drain ends with the last section, or is cut.
  const worked = Math.max(drain, ...plan.sections.map(({ end }) => end))
  const isCut = worked > deadline
  const stubborn = plan.sections.filter((section) => section.stubborn)
  const scoped = stubborn.filter(({ detached }) => !detached)
  let at = isCut ? Math.max(deadline, ...scoped.map(({ end }) => end)) : worked

  // One finalizer after the other, the last added first.
  const begins: Array<number> = []
  const outcomes: Array<Course["outcomes"][number]> = []
  for (const { fails, takes, timeout } of [...plan.finalizers].reverse()) {
    if (at > givesUp) break
    begins.push(at)
    const ways: Array<readonly [number, Course["outcomes"][number]]> = [[takes, fails ? "failed" : "released"]]
    if (timeout !== undefined) {
      ways.push([timeout, "timed out"])
      ways.push([at < deadline ? deadline - at : grace, "abandoned"])
    }
    const [after, outcome] = ways.reduce((best, way) => (way[0] < best[0] ? way : best))
    at += after
    if (at <= givesUp) outcomes.push(outcome)
  }

  // Nothing else ends at that very moment but what is abandoned in it.
  const forced = isCut || at >= deadline
  const end = Math.min(at, givesUp)
  // The first signal of a shutdown that something else began is not a second one.
  const killed = plan.reason === "signal" && plan.again !== undefined && plan.again < end
  const failed = outcomes.includes("failed")
  return {
    end: killed ? plan.again! : end,
    code: killed || forced || failed || isUncaught ? 1 : 0,
    forced,
    killed,
    begins,
    outcomes,
    drained: plan.sections.filter(({ end }) => end > drain && end <= Math.min(worked, deadline)).length,
    cut: plan.sections.filter(({ end }) => end > deadline).length,
    abandoned: stubborn.filter((section) => section.end > deadline && section.end > end).length,
    tied: stubborn.filter((section) => section.end > deadline && section.end === end).length
  }
}
