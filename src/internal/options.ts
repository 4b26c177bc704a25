/**
 * Durations given by users, checked where they enter: a wrong one is an error that names the option and the value.
 */
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as Result from "effect/Result"

/** An option with an invalid value. */
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
  if (Array.isArray(value)) return `[${value.map(showOne).join(", ")}]`
  if (typeof value !== "object" || value === null || Object.getPrototypeOf(value) !== Object.prototype) {
    return showOne(value)
  }
  const entries = Object.entries(value).map(([key, each]) => `${key}: ${showOne(each)}`)
  return entries.length === 0 ? "{}" : `{ ${entries.join(", ")} }`
}

const showOne = (value: unknown): string => {
  if (Duration.isDuration(value)) return Duration.format(value)
  return typeof value === "string" ? JSON.stringify(value) : inWords(value)
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
  /** Whether zero is valid. */
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
  if (Option.isNone(duration) || !isSound(input)) return fail("not a duration")
  const value = Duration.toMillis(duration.value)
  if (value < 0) return fail("a duration cannot be negative")
  if (value === 0 && !limits.zero) return fail("it has to be longer than zero")
  if (value === Number.POSITIVE_INFINITY && !limits.infinite) return fail("it has to be finite")
  return Result.succeed(value)
}

const units = ["weeks", "days", "hours", "minutes", "seconds", "milliseconds", "microseconds", "nanoseconds"]

/** What Effect takes for zero without a word: NaN, and an object with a unit that is none. */
const isSound = (input: unknown): boolean => {
  if (typeof input !== "object" || input === null || Duration.isDuration(input)) return !Number.isNaN(input)
  if (Array.isArray(input)) return input.every(isSound)
  // Those of a Temporal.Duration are none of its own.
  return (
    units.some((unit) => unit in input) &&
    Object.entries(input).every(([unit, count]) => units.includes(unit) && isSound(count))
  )
}
