/**
 * What an application asks itself to know whether it can work: each check is run by one fiber at a time, however many
 * ask; has a time to answer in, whatever it does; and is remembered for a while.
 *
 * Nobody who asks can end a run. One that cannot be interrupted is left to itself, and is not begun again while it hangs.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { Kms } from "./kms.ts"
import * as Limit from "./limit.ts"
import { millis, OptionError } from "./options.ts"
import { bounded } from "./parts.ts"
import { Process } from "./process.ts"

/**
 * A question that the application answers about itself. It says no by failing in whatever way, by giving `false`, or by
 * not ending in time.
 *
 * @category models
 * @since 0.1.0
 */
export type Check<R = never> = Effect.Effect<void | boolean, unknown, R> | CheckWithOptions<R>

/**
 * A check with times of its own.
 *
 * @category models
 * @since 0.1.0
 */
export interface CheckWithOptions<R = never> extends CheckTimes {
  readonly check: Effect.Effect<void | boolean, unknown, R>
}

interface CheckTimes {
  /** How long it may take. Longer than zero. Default `checkTimeout`. */
  readonly timeout?: Duration.Input | undefined
  /** How long its answer holds, from when that was known. May be zero. Default `cacheFor`. */
  readonly cacheFor?: Duration.Input | undefined
}

/** What is said of a check: words that give nothing away. */
export type Verdict = "ok" | "failed" | "timed out"

/** The verdict on each check, by name. */
export type Verdicts = Readonly<Record<string, Verdict>>

export interface Checks {
  /** Runs what has to be run, and gives all of them. */
  readonly verdicts: Effect.Effect<Verdicts>
}

export interface Options {
  readonly checks?: Readonly<Record<string, Check<unknown>>> | undefined
  readonly checkTimeout?: Duration.Input | undefined
  readonly cacheFor?: Duration.Input | undefined
}

/**
 * Makes the checks. They run with the services that are there now, and no longer than the scope is open.
 *
 * What the types of the checks say they need is for the caller to ask of its own.
 */
export const make = Effect.fnUntraced(function* (options: Options): Effect.fn.Return<Checks, OptionError, Scope.Scope> {
  const specs = yield* Effect.fromResult(decode(options))
  const { grace } = yield* Kms
  const services = yield* Effect.context<never>()
  const checks = specs.map((spec) => new Runner(spec, services))
  yield* Effect.addFinalizer(() =>
    bounded(
      Effect.forEach(checks, (check) => check.close, discard),
      grace
    )
  )
  return {
    verdicts: Effect.suspend(() => {
      // All are begun before any is waited for.
      const asked = checks.map((check) => Effect.map(check.ask(), (verdict) => [check.name, verdict] as const))
      return Effect.map(Effect.all(asked), (verdicts) => Object.fromEntries(verdicts))
    })
  }
})

const discard = { discard: true, concurrency: "unbounded" } as const

interface Spec {
  readonly name: string
  readonly check: Effect.Effect<void | boolean, unknown, unknown>
  /** Milliseconds. */
  readonly timeout: number
  /** Milliseconds. */
  readonly cacheFor: number
}

const decode = (options: Options): Result.Result<ReadonlyArray<Spec>, OptionError> =>
  Result.gen(function* () {
    // A probe that waited for ever would say nothing, and an answer that held for ever would be no check.
    const timeoutOf = (option: string, input: Duration.Input) => millis(option, input, { zero: false, infinite: false })
    const cacheOf = (option: string, input: Duration.Input) => millis(option, input, { zero: true, infinite: false })
    const checkTimeout = yield* timeoutOf("checkTimeout", options.checkTimeout ?? "800 millis")
    const cacheFor = yield* cacheOf("cacheFor", options.cacheFor ?? "1 second")
    const specs: Array<Spec> = []
    for (const [name, value] of Object.entries(options.checks ?? {})) {
      const option = `checks.${name}`
      const given: Partial<CheckWithOptions<unknown>> = Effect.isEffect(value) ? { check: value } : (value ?? {})
      const { cacheFor: ownCache, check, timeout: ownTimeout } = given
      if (!Effect.isEffect(check)) {
        const problem = "neither an effect nor an object with an effect as its check"
        return yield* Result.fail(new OptionError({ option, value, problem }))
      }
      specs.push({
        name,
        check,
        timeout: ownTimeout === undefined ? checkTimeout : yield* timeoutOf(`${option}.timeout`, ownTimeout),
        cacheFor: ownCache === undefined ? cacheFor : yield* cacheOf(`${option}.cacheFor`, ownCache)
      })
    }
    return specs
  })

/** One run of a check. */
interface Run {
  readonly verdict: Deferred.Deferred<Verdict>
  /** How long the verdict holds, in milliseconds of the monotonic clock. */
  until: number
  /** Whether the check has come to an end, which may be long after its verdict. */
  isOver: boolean
  fiber: Fiber.Fiber<void> | undefined
}

class Runner {
  readonly name: string
  private readonly spec: Spec
  private readonly services: Context.Context<never>
  private latest: Run | undefined
  private isFailing = false

  constructor(spec: Spec, services: Context.Context<never>) {
    this.name = spec.name
    this.spec = spec
    this.services = services
  }

  /** The verdict that holds, or that of the run which is under way, or of one that begins now. */
  ask(): Effect.Effect<Verdict> {
    const { latest } = this
    const run = latest !== undefined && (!latest.isOver || this.now() < latest.until) ? latest : this.start()
    return Deferred.await(run.verdict)
  }

  /** Ends the run that is under way. */
  readonly close: Effect.Effect<void> = Effect.suspend(() =>
    this.latest?.fiber === undefined ? Effect.void : Fiber.interrupt(this.latest.fiber)
  )

  /** In a fiber that has nothing of whoever asks, so that it neither ends with them nor is traced as theirs. */
  private start(): Run {
    const run: Run = { verdict: Deferred.makeUnsafe(), until: 0, isOver: false, fiber: undefined }
    this.latest = run
    run.fiber = Effect.runForkWith(this.services)(this.watch(run))
    return run
  }

  private watch(run: Run): Effect.Effect<void> {
    return Effect.acquireUseRelease(
      Effect.forkDetach(this.scoped, { startImmediately: true }),
      (fiber) =>
        // The timeout is on the wait: around the check it would bound nothing that cannot be interrupted.
        Effect.flatMap(
          Limit.within(Fiber.await(fiber), Context.get(this.services, Process), this.spec.timeout),
          (exit) => this.judge(run, exit)
        ),
      (fiber) => {
        // Without a verdict it is the scope that closes.
        Deferred.doneUnsafe(run.verdict, Exit.succeed("failed"))
        return Effect.andThen(
          Fiber.interrupt(fiber),
          Effect.sync(() => void (run.isOver = true))
        )
      }
    )
  }

  /** What it acquires lasts no longer than it runs. Its services are those that the layer was built with. */
  private get scoped(): Effect.Effect<void | boolean, unknown> {
    return Effect.scoped(this.spec.check as Effect.Effect<void | boolean, unknown>)
  }

  private judge(run: Run, exit: Option.Option<Exit.Exit<void | boolean, unknown>>): Effect.Effect<void> {
    const verdict = read(exit)
    run.until = this.now() + this.spec.cacheFor
    Deferred.doneUnsafe(run.verdict, Exit.succeed(verdict))
    // A check that fails for an hour fails at every probe: only what changes is news.
    const wasFailing = this.isFailing
    this.isFailing = verdict !== "ok"
    if (wasFailing === this.isFailing) return Effect.void
    const subject = `Health check "${this.name}"`
    if (!this.isFailing) return Effect.logInfo(`${subject} is ok again`)
    if (Option.isNone(exit))
      return Effect.logWarning(`${subject} did not end within ${Duration.format(Duration.millis(this.spec.timeout))}`)
    return Exit.isFailure(exit.value)
      ? Effect.logWarning(`${subject} failed`, exit.value.cause)
      : Effect.logWarning(`${subject} gave false`)
  }

  /** Monotonic: a clock that is set back must not make an answer hold for longer. */
  private now(): number {
    return Number(Context.get(this.services, Clock.Clock).monotonicTimeNanosUnsafe()) / 1_000_000
  }
}

const read = (exit: Option.Option<Exit.Exit<void | boolean, unknown>>): Verdict => {
  if (Option.isNone(exit)) return "timed out"
  return Exit.isSuccess(exit.value) && exit.value.value !== false ? "ok" : "failed"
}
