/**
 * Durations given by users, checked where they enter: a wrong one is an error that names the option and the value.
 */
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as Result from "effect/Result"

/** An option with a value that cannot be meant. */
export class OptionError extends Data.TaggedError("OptionError")<{
  readonly option: string
  readonly value: unknown
  readonly problem: string
}> {
  override get message(): string {
    return `Option ${this.option} is ${show(this.value)}: ${this.problem}`
  }
}

const show = (value: unknown): string => {
  if (Duration.isDuration(value)) return Duration.format(value)
  if (typeof value === "string") return JSON.stringify(value)
  return Array.isArray(value) ? `[${value.map(show).join(", ")}]` : inWords(value)
}

/** Any value as a string, also one that cannot be made one: an error is what was thrown, and that may be anything. */
export const inWords = (value: unknown): string => {
  try {
    return String(value)
  } catch {
    return `a value of type ${typeof value}`
  }
}

export interface Limits {
  /** Whether zero is a value that can be meant. */
  readonly zero: boolean
  /** Whether "for ever" is. */
  readonly infinite: boolean
}

/** Milliseconds, `Infinity` included. */
export const millis = (
  option: string,
  input: Duration.Input | "infinity",
  limits: Limits
): Result.Result<number, OptionError> => {
  const fail = (problem: string) => Result.fail(new OptionError({ option, value: input, problem }))
  const duration = Duration.fromInput(input === "infinity" ? "Infinity" : input)
  // Effect takes NaN for zero.
  if (Option.isNone(duration) || Number.isNaN(input)) return fail("not a duration")
  const value = Duration.toMillis(duration.value)
  if (value < 0) return fail("a duration cannot be negative")
  if (value === 0 && !limits.zero) return fail("it has to be longer than zero")
  if (value === Number.POSITIVE_INFINITY && !limits.infinite) return fail("it has to be finite")
  return Result.succeed(value)
}
