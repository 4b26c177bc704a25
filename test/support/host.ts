/**
 * A process that is not real: a test sends it signals and errors, and reads the exit code that would have been used.
 */
import { Effect } from "effect"
import { Process } from "../../src/internal/process.ts"
import * as Internal from "../../src/internal/host.ts"

export interface Host extends Internal.Host {
  /** The codes that `exit` was called with. */
  readonly exits: Array<number>
  /** Provides it. */
  readonly provide: <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

export const make = (
  options: { readonly ignoresHangup?: boolean; readonly flush?: Effect.Effect<void> } = {}
): Host => {
  const exits: Array<number> = []
  const host = Internal.make({ ...options, onExit: (code) => exits.push(code), turn: Effect.yieldNow })
  return { ...host, exits, provide: (self) => Effect.provideService(self, Process, host.process) }
}
