/**
 * What the environment says of the time that a process is given to end, held against the time that its shutdown may take.
 * Read once, when the program starts: at the end it would be too late to be of use.
 */
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { type Limits, millis, OptionError } from "./options.ts"
import type { Process } from "./process.ts"
import type { Settings } from "./settings.ts"

/** How long whoever ends the process waits before it kills: `terminationGracePeriodSeconds`, `TimeoutStopSec`. */
const gracePeriod = "KMS_TERMINATION_GRACE_PERIOD"

/** What of it has passed when the signal comes: the `preStop` hook of a container. */
const preStop = "KMS_PRE_STOP"

/** Set in every container of Kubernetes. */
const kubernetes = "KUBERNETES_SERVICE_HOST"

/** Processes that have been told of the lame duck: one may supervise many programs, one after the other. */
const hinted = new WeakSet<Process>()

/**
 * Warns of a shutdown that may be killed before it has ended, and hints at the lame duck where there should be one. Fails
 * if a variable has an invalid value.
 */
export const check = Effect.fnUntraced(function* (
  settings: Pick<Settings, "timeout" | "forceTimeout">,
  hasLameDuck: boolean,
  host: Process
): Effect.fn.Return<void, OptionError> {
  const grace = yield* duration(gracePeriod, { zero: false, infinite: true })
  const before = yield* duration(preStop, { zero: true, infinite: false })
  if (Option.isSome(grace)) {
    const problem = excess(grace.value, { ...settings, preStop: Option.getOrElse(before, () => 0) })
    if (problem !== undefined) yield* Effect.logWarning(problem)
  }
  if (hasLameDuck || hinted.has(host) || Option.isNone(yield* variable(kubernetes))) return
  hinted.add(host)
  yield* Effect.logInfo(
    `${kubernetes} is set, and lameDuck is not: what is still sent to this pod after its signal may be refused. ` +
      "Set it to the time that takes to end (5 seconds is usual), or to 0 if a preStop hook waits that long"
  )
})

interface Parts {
  readonly timeout: number
  readonly forceTimeout: number
  readonly preStop: number
}

/** What does not fit into the grace period, and what to change, in words. */
const excess = (grace: number, { forceTimeout, preStop: before, timeout }: Parts): string | undefined => {
  const total = before + timeout + forceTimeout
  if (total <= grace) return undefined
  const left = grace - before - forceTimeout
  const waits = before > 0 ? `${preStop} ${words(before)} + ` : ""
  const raise = Number.isFinite(total) ? [`raise the grace period to ${words(total)} or more`] : []
  const lower = left > 0 ? [`lower timeout to ${words(left)} or less`] : []
  const change = [...raise, ...lower].join(", or ") || `give timeout a limit, and ${gracePeriod} more than it takes`
  return (
    `The shutdown may take ${words(total)} (${waits}timeout ${words(timeout)} + forceTimeout ${words(forceTimeout)}), ` +
    `but ${gracePeriod} is ${words(grace)}: the process may be killed before it has ended. ` +
    `${change.charAt(0).toUpperCase()}${change.slice(1)}`
  )
}

const words = (millis: number): string =>
  Number.isFinite(millis) ? Duration.format(Duration.millis(millis)) : "for ever"

/** Milliseconds. */
const duration = (name: string, limits: Limits): Effect.Effect<Option.Option<number>, OptionError> =>
  Effect.flatMap(
    variable(name),
    Option.match({
      onNone: () => Effect.succeedNone,
      onSome: (value) => {
        return Effect.fromResult(millis(name, durationOf(value.trim()), limits)).pipe(
          // As it stands in the environment, so that it can be found there.
          Effect.mapError(({ option, problem }) => new OptionError({ option, value, problem })),
          Effect.asSome
        )
      }
    })
  )

/** A manifest has seconds without a unit, and a unit file of systemd has short ones. */
const durationOf = (text: string): Duration.Input => {
  const [, amount, unit = "s"] = /^(-?\d+(?:\.\d+)?)\s*(s|sec|min|h)?$/.exec(text) ?? []
  return (amount === undefined ? text : `${amount} ${units[unit]}`) as Duration.Input
}

const units: Readonly<Record<string, string>> = { s: "seconds", sec: "seconds", min: "minutes", h: "hours" }

const variable = (name: string): Effect.Effect<Option.Option<string>, OptionError> =>
  Effect.mapError(
    Config.option(Config.String(name)),
    ({ message }) => new OptionError({ option: name, value: undefined, problem: `it cannot be read: ${message}` })
  )
