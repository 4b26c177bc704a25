/**
 * Limits of time that hold on an event loop that was blocked, too. Such a loop has every timer come first that fell due
 * meanwhile; what would have met the limit still waits to be read.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Process } from "./process.ts"

/** Completes when the time is over, in milliseconds, and what was there by then has been read. */
export const over = (host: Process, millis: number): Effect.Effect<void> =>
  Effect.andThen(Effect.sleep(millis), host.turn)

/** What an effect brings before its time is over. */
export const within = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  host: Process,
  millis: number
): Effect.Effect<Option.Option<A>, E, R> =>
  Effect.raceFirst(Effect.asSome(self), Effect.as(over(host, millis), Option.none()))
