/**
 * The options of a shutdown, as users give them, and checked.
 */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { inWords, millis, OptionError } from "./options.ts"
import type { Reason } from "./phase.ts"
import type { Process } from "./process.ts"
import type { Report } from "./report.ts"
import * as Signals from "./signals.ts"

/**
 * The options of a shutdown.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /**
   * From the start of the shutdown to the cut, the lame duck included. Longer than zero; `"infinity"` waits for ever.
   * Default 25 seconds, since Kubernetes kills at 30.
   */
  readonly timeout?: Duration.Input | "infinity" | undefined
  /**
   * After the cut: what finalizers get before the process exits, its last quarter being for `onStopped` and the output.
   * Longer than zero. Default 2 seconds.
   */
  readonly forceTimeout?: Duration.Input | undefined
  /**
   * How long everything is still served, with readiness gone and `Connection: close` on every HTTP/1.1 response, before
   * the drain begins: the time that a load balancer takes to look away. Shorter than `timeout`. Default zero. A function
   * that throws, or gives what is no such duration, is warned of at the shutdown, which then has no lame duck.
   */
  readonly lameDuck?: Duration.Input | ((reason: Reason) => Duration.Input) | undefined
  /**
   * The signals that start the shutdown. Default `SIGINT`, `SIGTERM` and, unless the process was started by `nohup`,
   * `SIGHUP`.
   */
  readonly signals?: ReadonlyArray<NodeJS.Signals> | undefined
  /**
   * Whether a second signal exits at once, with code 1. The same signal again within 500 milliseconds is the same one:
   * wrappers and process groups deliver it twice. Default true.
   */
  readonly hardShutdown?: boolean | undefined
  /**
   * Whether an uncaught exception or unhandled rejection starts a shutdown: without lame duck, within 5 seconds at most,
   * and with exit code 1. Default true.
   */
  readonly uncaught?: boolean | undefined
  /**
   * The very last thing before the exit, within half of what is left of `forceTimeout`; the other half is for the output.
   */
  readonly onStopped?: ((report: Report) => Effect.Effect<void>) | undefined
}

/** The options of a shutdown, checked: durations in milliseconds. */
export interface Settings {
  readonly timeout: number
  readonly forceTimeout: number
  readonly lameDuck: (reason: Reason) => Result.Result<number, OptionError>
  readonly signals: ReadonlyArray<NodeJS.Signals>
  readonly hardShutdown: boolean
  readonly uncaught: boolean
  readonly onStopped: ((report: Report) => Effect.Effect<void>) | undefined
}

const boolean = (option: string, value = true): Result.Result<boolean, OptionError> =>
  typeof value === "boolean"
    ? Result.succeed(value)
    : Result.fail(new OptionError({ option, value, problem: "neither true nor false" }))

export const decode = (options: Options, host: Process): Result.Result<Settings, OptionError> =>
  Result.gen(function* () {
    const timeout = yield* millis("timeout", options.timeout ?? "25 seconds", { zero: false, infinite: true })
    const forceTimeout = yield* millis("forceTimeout", options.forceTimeout ?? "2 seconds", {
      zero: false,
      infinite: false
    })
    const given = options.lameDuck ?? 0
    const lameDuck = (input: Duration.Input) =>
      Result.flatMap(millis("lameDuck", input, { zero: true, infinite: false }), (millis) =>
        millis < timeout
          ? Result.succeed(millis)
          : Result.fail(
              new OptionError({ option: "lameDuck", value: input, problem: "it has to be shorter than the timeout" })
            )
      )
    const fixed = typeof given === "function" ? undefined : yield* lameDuck(given)
    const hardShutdown = yield* boolean("hardShutdown", options.hardShutdown)
    const uncaught = yield* boolean("uncaught", options.uncaught)
    const signals = yield* Signals.validate(
      options.signals ?? Signals.defaultSignals.filter((signal) => signal !== "SIGHUP" || !host.ignoresHangup())
    )
    return {
      timeout,
      forceTimeout,
      lameDuck: (reason) =>
        typeof given !== "function"
          ? Result.succeed(fixed ?? 0)
          : Result.flatMap(
              Result.try({
                try: () => given(reason),
                catch: (cause) =>
                  new OptionError({ option: "lameDuck", value: given, problem: `it threw ${inWords(cause)}` })
              }),
              lameDuck
            ),
      signals,
      hardShutdown,
      uncaught,
      onStopped: options.onStopped
    }
  })
