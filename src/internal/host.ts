/**
 * A process that is not real: it is sent signals and errors by hand, and ends nothing.
 */
import * as Effect from "effect/Effect"
import type * as Scheduler from "effect/Scheduler"
import type { Process } from "./process.ts"

export interface Options {
  readonly ignoresHangup?: boolean | undefined
  readonly flush?: Effect.Effect<void> | undefined
  readonly turn: Effect.Effect<void>
  /** Called with each code that the process was to end with. */
  readonly onExit: (code: number) => void
}

export interface Host {
  readonly process: Process
  /** Delivers a signal to whoever listens; says whether someone does. */
  readonly signal: (signal: NodeJS.Signals) => boolean
  /** Delivers an uncaught error; says whether someone listens. */
  readonly fail: (error: unknown) => boolean
  /** How many listeners are left. */
  readonly listeners: () => number
}

export const make = (options: Options): Host => {
  const signals = new Map<NodeJS.Signals, Set<() => void>>()
  const errors = new Set<(error: unknown) => void>()
  const process: Process = {
    onSignal: (signal, listener) => {
      const set = signals.get(signal) ?? new Set()
      signals.set(signal, set.add(listener))
      return () => set.delete(listener)
    },
    onUncaught: (listener) => {
      errors.add(listener)
      return () => errors.delete(listener)
    },
    ignoresHangup: () => options.ignoresHangup ?? false,
    flush: options.flush ?? Effect.void,
    say: () => {},
    terminal: undefined,
    exit: options.onExit,
    turn: options.turn
  }
  return {
    process,
    signal: (signal) => {
      const listeners = Array.from(signals.get(signal) ?? [])
      for (const listener of listeners) listener()
      return listeners.length > 0
    },
    fail: (error) => {
      const listeners = Array.from(errors)
      for (const listener of listeners) listener(error)
      return listeners.length > 0
    },
    listeners: () => Array.from(signals.values()).reduce((sum, set) => sum + set.size, errors.size)
  }
}

/**
 * A turn of the real event loop, since sockets are real here too: of two immediates the second is sure. Through the
 * scheduler of the test, by which `TestClock` knows that something is still under way, and moves no further meanwhile.
 */
export const turnOf = (scheduler: Scheduler.Scheduler): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    const dispatcher = scheduler.makeDispatcher()
    dispatcher.scheduleTask(() => dispatcher.scheduleTask(() => resume(Effect.void), 0), 0)
  })
