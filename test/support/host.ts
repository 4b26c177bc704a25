/**
 * A process that is not real: a test sends it signals and errors, and reads the exit code that would have been used.
 */
import { Effect } from "effect"
import { Process } from "../../src/internal/process.ts"

export interface Host {
  readonly process: Process
  /** Delivers a signal to whoever listens; says whether someone does. */
  readonly signal: (signal: NodeJS.Signals) => boolean
  /** Delivers an uncaught error. */
  readonly fail: (error: unknown) => boolean
  /** The codes that `exit` was called with. */
  readonly exits: Array<number>
  /** How many listeners are left. */
  readonly listeners: () => number
  /** Provides it. */
  readonly provide: <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

export const make = (
  options: { readonly ignoresHangup?: boolean; readonly flush?: Effect.Effect<void> } = {}
): Host => {
  const signals = new Map<NodeJS.Signals, Set<() => void>>()
  const errors = new Set<(error: unknown) => void>()
  const exits: Array<number> = []
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
    exit: (code) => void exits.push(code),
    turn: Effect.yieldNow
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
    exits,
    listeners: () => Array.from(signals.values()).reduce((sum, set) => sum + set.size, errors.size),
    provide: (self) => Effect.provideService(self, Process, process)
  }
}
