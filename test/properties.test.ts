/**
 * The parts that decide, each against a model that is too simple to be wrong, under random sequences of events. A failure
 * prints its seed and its path: `fc.assert(property, { seed, path })` runs it again.
 */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Fiber, Layer, Logger, SubscriptionRef } from "effect"
import { TestClock } from "effect/testing"
import { Kms, KmsTest } from "effect-kms"
import * as fc from "fast-check"
import type { Hold, Section } from "../src/internal/gate.ts"
import type { Drainable } from "../src/internal/kms.ts"
import { Event, Phase, reached, Reason, step } from "../src/internal/phase.ts"
import * as Host from "../src/internal/host.ts"
import { Shutdown } from "../src/internal/shutdown.ts"
import { settings } from "./support/models/settings.ts"
import { GateModel, type Work } from "./support/models/gate.ts"
import * as PhaseModel from "./support/models/phase.ts"
import { type Kind, Registry } from "./support/models/pair.ts"
import * as Timing from "./support/models/timing.ts"
import { World } from "./support/models/world.ts"

/** The same in every run of the tests, or one that is to pass could find what nobody has changed; `KMS_SEED` tries others. */
const seed = Number(process.env["KMS_SEED"] ?? 1)

const runs = { seed, numRuns: 10_000 }

describe("the phase machine", () => {
  const reason = fc.constantFrom<Array<Reason>>(
    Reason.Signal({ signal: "SIGTERM" }),
    Reason.Interrupted(),
    Reason.Requested({ message: undefined }),
    Reason.Uncaught({ error: "boom" })
  )
  // Those that move a shutdown along come more often, or most runs would never stop.
  const event: fc.Arbitrary<Event> = fc.oneof(
    fc.record({ reason, deadline: fc.nat(), lameDuck: fc.boolean() }).map(Event.Begin),
    ...[Event.Drain(), Event.Unwind(), Event.Force(), Event.Stop()].map(fc.constant<Event>)
  )

  it("goes where the table says, and nowhere else", () => {
    fc.assert(
      fc.property(fc.array(event, { maxLength: 20, size: "max" }), (events) => {
        let phase: Phase = Phase.Running()
        let state: PhaseModel.State = "Running"
        const first = events.find(({ _tag }) => _tag === "Begin")
        for (const event of events) {
          const before = phase
          const expected = PhaseModel.next(state, event)
          phase = step(phase, event)
          same(PhaseModel.stateOf(phase), expected)
          same(phase === before, expected === state, "the very same value where nothing has changed")
          if (phase._tag !== "Running" && first?._tag === "Begin") {
            same(phase.reason, first.reason)
            same(phase.deadline, first.deadline)
            same(phase.forced, expected.endsWith("!"))
          }
          for (const tag of ["Running", "LameDuck", "Draining", "Unwinding", "Stopped"] as const) {
            same(reached(phase, tag), PhaseModel.rank[expected] >= PhaseModel.rank[tag])
          }
          state = expected
        }
      }),
      runs
    )
  })
})

describe("the busy gate of a shutdown", () => {
  const event = fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        do: fc.constant("enter" as const),
        park: fc.boolean(),
        parent: fc.option(fc.nat(9)),
        hold: fc.option(fc.nat(1))
      })
    },
    { weight: 6, arbitrary: fc.record({ do: fc.constant("end" as const), which: fc.nat(9) }) },
    { weight: 2, arbitrary: fc.constant({ do: "turn" as const }) },
    { weight: 1, arbitrary: fc.constant({ do: "listen" as const }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constantFrom("quieten" as const, "stir" as const), which: fc.nat(3) }) },
    { weight: 1, arbitrary: fc.constant({ do: "drain" as const }) },
    { weight: 1, arbitrary: fc.constant({ do: "force" as const }) }
  )

  it("admits, counts and closes as the model does", () => {
    fc.assert(
      fc.property(fc.array(event, { maxLength: 40, size: "max" }), (events) => {
        const { holds, model, real } = theGate()
        for (const event of events) {
          if (event.do === "enter") {
            const parent = event.parent === null ? undefined : at(model.begun, event.parent)
            const expected = model.admits(event.park, parent)
            const entered = real.enter(event.park, parent, event.hold === null ? undefined : holds[event.hold])
            same(entered !== undefined, expected)
            if (entered === undefined) continue
            const work = model.enter(parent)
            same(entered.early, !work.late)
            real.known.set(work, entered)
          } else if (event.do === "end") {
            const work = at(model.works, event.which)
            if (work === undefined) continue
            // In this order: what the real one calls looks at the world as it is then.
            model.end(work)
            real.end(work)
          } else if (event.do === "turn") {
            model.turned()
            real.turned()
          } else if (event.do === "listen") {
            if (model.closed) continue
            real.listen(model.listen())
          } else if (event.do === "quieten" || event.do === "stir") {
            const listener = at(model.listeners, event.which)
            if (listener === undefined || model.closed) continue
            model[event.do](listener)
            real[event.do](listener)
          } else if (event.do === "drain") {
            if (model.draining) continue
            model.drain()
            real.drain()
          } else {
            if (model.cut || !model.draining) continue
            model.force()
            real.force()
          }
          same(real.liveCount, model.sections.length)
          if (!model.cut) same(real.isEmpty, model.closed, "empty and closed are one")
          for (const hold of holds) {
            const inside = model.sections.filter((work) => real.holdOf(work) === hold).length
            same(hold.busy, inside)
            same(hold.idle, hold.ends, "told each time that the last section inside has ended")
          }
        }
      }),
      runs
    )
  })
})

describe("the registry of connections", () => {
  const event = (kinds: Partial<Record<Kind, number>>) =>
    fc.record({
      do: fc.oneof(
        ...Object.entries(kinds).map(([kind, weight]) => ({ weight, arbitrary: fc.constant(kind as Kind) }))
      ),
      which: fc.nat(7),
      // It is on its way, and read when the loop looks for input; of a response: Node is slow to close.
      slow: fc.boolean(),
      steps: fc.integer({ min: 1, max: 3 })
    })
  const ends = { hangUp: 1, lameDuck: 1, drain: 1, force: 1 }
  const requests = { accept: 3, bytes: 2, request: 5, upload: 2, received: 2, headers: 4, respond: 6 }
  const calls = { bytes: 3, take: 3, leave: 3, count: 1, call: 2, reply: 3, handled: 1 }
  const anything = fc.array(event({ ...requests, ...calls, ...ends, upgrade: 3, handle: 3 }), {
    maxLength: 60,
    size: "max"
  })
  // One connection that was upgraded, and what happens to its handler.
  const upgraded = fc
    .tuple(
      fc.subarray<Kind>(["take", "count"]),
      fc.array(event({ ...calls, call: 1, drain: 2, hangUp: 1 }), { maxLength: 15, size: "max" })
    )
    .map(([first, then]) => [
      ...["accept", "upgrade", "handle", ...first].map((kind) => ({
        do: kind as Kind,
        which: 0,
        slow: false,
        steps: 1
      })),
      ...then
    ])
  /** Never where a step ends: what is due comes in between, so that the order of both is never in doubt. */
  const duration = fc.integer({ min: -1, max: 5 }).map((steps) => (steps < 0 ? 0 : steps * 70 + 9))
  const timing = fc.record({ quietPeriod: duration, closeTimeout: duration })

  it("closes each when it is to, none too early or too late, and forgets it", { timeout: 120_000 }, () => {
    fc.assert(
      fc.property(timing, fc.oneof(anything, upgraded), (timing, events) => {
        const world = new World()
        world.within(() => {
          const pair = new Registry(world, timing)
          for (const event of events) pair.play(event.do, event.which, event.slow, event.steps)
          pair.finish()
        })
      }),
      runs
    )
  })
})

describe("the time of a shutdown", () => {
  it(
    "is what follows from the plan, and so are its exit code, its report and what is released",
    { timeout: 120_000 },
    () =>
      fc.assert(
        fc.asyncProperty(Timing.plan, async (plan) => {
          const course = Timing.reckon(plan)
          const seen = await Effect.runPromise(play(plan))
          same(seen.code, course.code, "exit code")
          same(seen.end, course.end, "the end")
          if (course.killed) return
          // Of what would begin at the very moment in which the process is given up, either is right.
          const sure = course.begins.filter((at) => at < course.end)
          assert.deepStrictEqual(seen.begins.slice(0, sure.length), sure)
          assert.deepStrictEqual(
            seen.begins.slice(sure.length).filter((at) => at < course.end),
            []
          )
          const order = plan.finalizers.map((_, index) => index).reverse()
          assert.deepStrictEqual(seen.begun, order.slice(0, seen.begun.length), "each once, in reverse")
          const { finalizers, forced, millis, sections } = seen.report!
          same(millis, course.end, "the report's own time")
          same(forced, course.forced, "forced")
          const ended = finalizers.map(({ outcome }) => outcome)
          assert.deepStrictEqual(ended, course.outcomes.slice(0, ended.length))
          assert.isAtLeast(ended.length, course.outcomes.length - 1, "all of them, but for one in the last moment")
          if (!course.forced) same(ended.length, plan.finalizers.length, "all of them")
          same(sum(sections.map(({ drained }) => drained)), course.drained, "sections that ended by themselves")
          same(sum(sections.map(({ cut }) => cut)), course.cut, "sections that were cut")
          const goOn = sum(sections.map(({ abandoned }) => abandoned))
          assert.isAtLeast(goOn, course.abandoned, "sections that go on")
          assert.isAtMost(goOn, course.abandoned + course.tied, "sections that go on")
        }),
        { seed, numRuns: 3000 }
      )
  )
})

const sum = (numbers: ReadonlyArray<number>): number => numbers.reduce((sum, number) => sum + number, 0)

/** A shutdown as planned, in virtual time: what became of it. */
const play = (plan: Timing.Plan) =>
  Effect.gen(function* () {
    const begun: Array<number> = []
    const begins: Array<number> = []
    let begin = () => {}
    const finalizers = plan.finalizers.map(({ fails, takes, timeout }, index) =>
      Layer.effectDiscard(
        Kms.addFinalizer(
          `finalizer ${index}`,
          () =>
            Effect.gen(function* () {
              begun.push(index)
              begins.push((yield* Clock.currentTimeMillis) - Timing.head)
              yield* Effect.sleep(takes)
              if (fails) return yield* Effect.die("a finalizer that fails")
            }),
          { timeout }
        )
      )
    )
    const work = Layer.effectDiscard(
      Effect.gen(function* () {
        const kms = yield* Kms.Kms
        begin = () => kms.begin(Reason.Requested({ message: undefined }))
        for (const { detached, end, stubborn } of plan.sections) {
          const work = Effect.sleep(end + Timing.head).pipe(Kms.busy("section"))
          const section = stubborn ? Effect.uninterruptible(work) : work
          yield* detached ? Effect.forkDetach(section) : Effect.forkScoped(section)
        }
      })
    )
    // The work above everything, and each finalizer above the one that was added before it.
    const app = finalizers.reduceRight((above, beneath) => Layer.provide(above, beneath), work)
    const { forceTimeout, lameDuck, timeout } = plan
    yield* KmsTest.launch(app, { forceTimeout, lameDuck, timeout })
    yield* TestClock.adjust(Timing.head)
    const ending = Effect.gen(function* () {
      const code = yield* KmsTest.exitCode
      const end = (yield* Clock.currentTimeMillis) - Timing.head
      // As it is now: what is left behind goes on in this process.
      const report = Timing.reckon(plan).killed ? undefined : structuredClone(yield* KmsTest.report)
      return { code, end, report, begins: [...begins], begun: [...begun] }
    })
    const ended = yield* Effect.forkChild(ending, { startImmediately: true })
    if (plan.reason === "signal") yield* KmsTest.signal("SIGTERM")
    else if (plan.reason === "interruption") yield* KmsTest.interrupt
    else if (plan.reason === "uncaught") yield* KmsTest.uncaught("an error")
    else {
      begin()
      yield* KmsTest.reached("LameDuck")
    }
    if (plan.again === undefined) yield* TestClock.adjust(plan.first)
    else {
      yield* TestClock.adjust(plan.again)
      yield* KmsTest.signal("SIGINT")
    }
    yield* TestClock.adjust("1 hour")
    return yield* Fiber.join(ended)
  }).pipe(Effect.scoped, Effect.provide([KmsTest.layer, TestClock.layer(), Logger.layer([])]))

const at = <A>(all: ReadonlyArray<A>, index: number): A | undefined =>
  all.length === 0 ? undefined : all[index % all.length]

/** A shutdown with listeners that are not real, and a handle on its event loop; beside its model. */
const theGate = () => {
  const model = new GateModel()
  const turns: Array<() => void> = []
  const turn = Effect.callback<void>((resume) => void turns.push(() => resume(Effect.void)))
  const host = Host.make({ turn, onExit: () => {} })
  const phases = Effect.runSync(SubscriptionRef.make<Phase>(Phase.Running()))
  const shutdown = new Shutdown(settings, Clock.Clock.defaultValue(), host.process, phases)
  const { gate } = shutdown
  const known = new Map<Work, Section>()
  const inside = new Map<Section, Hold>()
  const done = new Set<Work>()
  const quiet = new Set<Work>()
  const holds = [0, 1].map(() => {
    const hold = { busy: 0, idle: 0, ends: 0, onIdle: () => void hold.idle++ }
    return hold
  })
  // One that drains with its own scope is nobody's to wait for.
  shutdown.register(
    listener(
      "release",
      () => false,
      () => false
    )
  )
  const real = {
    known,
    enter: (park: boolean, parent: Work | undefined, hold: Hold | undefined): Section | undefined => {
      const section = gate.enter({ name: "work", now: 0, park, parent: parent && known.get(parent), hold })
      if (section !== undefined && hold !== undefined) inside.set(section, hold)
      return section
    },
    end: (work: Work): void => {
      const section = known.get(work)
      if (section === undefined) {
        if (done.has(work)) return
        if (!quiet.has(work)) real.quieten(work)
        done.add(work)
        if (model.draining) shutdown.drained()
        return
      }
      const hold = holds.find((hold) => hold === inside.get(section))
      if (section.live && hold?.busy === 1) hold.ends++
      gate.leave(section)
    },
    turned: (): void => {
      for (const go of turns.splice(0)) go()
    },
    listen: (work: Work): void => {
      const isQuiet = () => done.has(work) || quiet.has(work)
      shutdown.register(listener("shutdown", () => done.has(work), isQuiet))
    },
    quieten: (work: Work): void => {
      quiet.add(work)
      if (model.draining) shutdown.worked()
    },
    stir: (work: Work): void => void quiet.delete(work),
    drain: (): void => {
      shutdown.begin(Reason.Interrupted())
      shutdown.drain(() => {})
    },
    force: (): void => shutdown.force(),
    holdOf: (work: Work): Hold | undefined => inside.get(known.get(work)!),
    get liveCount(): number {
      return gate.live.size
    },
    get isEmpty(): boolean {
      return Deferred.isDoneUnsafe(shutdown.empty)
    }
  }
  return { model, real, holds }
}

const listener = (
  drainOn: Drainable["drainOn"],
  isDone: Drainable["isDone"],
  isQuiet: Drainable["isQuiet"]
): Drainable => ({
  drainOn,
  isDone,
  isQuiet,
  accepted: () => 0,
  lameDuck: () => {},
  begin: () => {},
  run: Effect.void,
  force: () => {},
  status: () => assert.fail("nobody asks"),
  report: () => undefined,
  held: () => []
})

/** `assert.strictEqual`, but that it costs next to nothing where it holds. */
const same = <A>(actual: A, expected: A, message?: string): void => {
  if (!Object.is(actual, expected)) assert.strictEqual(actual, expected, message)
}
