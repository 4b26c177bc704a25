/** The settings of a shutdown, where they do not matter. */
import { Effect, Result } from "effect"
import type { Settings } from "../../../src/internal/settings.ts"

export const settings: Settings = {
  timeout: 25_000,
  forceTimeout: 2000,
  lameDuck: () => Result.succeed(0),
  signals: [],
  hardShutdown: true,
  uncaught: true,
  onStopped: () => Effect.void
}
