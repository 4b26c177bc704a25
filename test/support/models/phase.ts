/**
 * The phase machine as a table: for each state what each event makes of it. An event that is not in the row of a state does
 * nothing. A state with an exclamation mark is one after the cut.
 */
import type { Event, Phase } from "../../../src/internal/phase.ts"

export type State = "Running" | "LameDuck" | "Draining" | "Unwinding" | "Unwinding!" | "Stopped" | "Stopped!"

const table: Record<State, Partial<Record<Event["_tag"], State>>> = {
  Running: { Begin: "Draining" },
  LameDuck: { Drain: "Draining", Force: "Unwinding!" },
  Draining: { Unwind: "Unwinding", Force: "Unwinding!" },
  Unwinding: { Stop: "Stopped", Force: "Unwinding!" },
  "Unwinding!": { Stop: "Stopped!" },
  Stopped: {},
  "Stopped!": {}
}

export const next = (state: State, event: Event): State => {
  if (state === "Running" && event._tag === "Begin" && event.lameDuck) return "LameDuck"
  return table[state][event._tag] ?? state
}

/** What a phase is called here. */
export const stateOf = (phase: Phase): State =>
  phase._tag === "Unwinding" || phase._tag === "Stopped" ? `${phase._tag}${phase.forced ? "!" : ""}` : phase._tag

/** How far each state has come. */
export const rank: Record<State, number> = {
  Running: 0,
  LameDuck: 1,
  Draining: 2,
  Unwinding: 3,
  "Unwinding!": 3,
  Stopped: 4,
  "Stopped!": 4
}
