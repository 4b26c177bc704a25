/**
 * The phase machine of a shutdown: one value, and one function that moves it, only ever forward.
 *
 *     Running -> LameDuck -> Draining -> Unwinding -> Stopped
 *
 * It knows nothing of sockets, fibers or time. Whatever else wants to know how far the shutdown is watches this value.
 */
import type * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import { inWords } from "./options.ts"

/** Why the process ends. The first reason wins. */
export type Reason = Data.TaggedEnum<{
  Signal: { readonly signal: NodeJS.Signals }
  Interrupted: {}
  Requested: { readonly message: string | undefined }
  Uncaught: { readonly error: unknown }
  Failed: { readonly cause: Cause.Cause<unknown> }
}>

export const Reason = Data.taggedEnum<Reason>()

/** What every phase after `Running` knows. */
export interface Ending {
  readonly reason: Reason
  /** When work is cut, in milliseconds since the epoch; `Infinity` if never. */
  readonly deadline: number
  /** Whether the deadline came before the work was done. */
  readonly forced: boolean
}

export type Phase = Data.TaggedEnum<{
  Running: {}
  LameDuck: Ending
  Draining: Ending
  Unwinding: Ending
  Stopped: Ending
}>

export const Phase = Data.taggedEnum<Phase>()

/** What moves the machine. */
export type Event = Data.TaggedEnum<{
  /** A reason to end, and when it ends at the latest. */
  Begin: { readonly reason: Reason; readonly deadline: number; readonly lameDuck: boolean }
  /** The lame duck is over. */
  Drain: {}
  /** Nothing is in flight any more. */
  Unwind: {}
  /** The deadline has come. */
  Force: {}
  /** Everything is released, or abandoned. */
  Stop: {}
}>

export const Event = Data.taggedEnum<Event>()

const order: Record<Phase["_tag"], number> = { Running: 0, LameDuck: 1, Draining: 2, Unwinding: 3, Stopped: 4 }

/** Whether `phase` has come as far as `tag`. */
export const reached = (phase: Phase, tag: Phase["_tag"]): boolean => order[phase._tag] >= order[tag]

/** The phase after `event`: the very same value where the event comes too late, or too early, to change anything. */
export const step = (phase: Phase, event: Event): Phase => {
  if (phase._tag === "Running") {
    if (event._tag !== "Begin") return phase
    const ending = { reason: event.reason, deadline: event.deadline, forced: false }
    return event.lameDuck ? Phase.LameDuck(ending) : Phase.Draining(ending)
  }
  const { deadline, forced, reason } = phase
  switch (event._tag) {
    case "Begin":
      return phase
    case "Drain":
      return reached(phase, "Draining") ? phase : Phase.Draining({ reason, deadline, forced })
    case "Unwind":
      return phase._tag === "Draining" ? Phase.Unwinding({ reason, deadline, forced }) : phase
    case "Force":
      return forced || phase._tag === "Stopped" ? phase : Phase.Unwinding({ reason, deadline, forced: true })
    case "Stop":
      return phase._tag === "Unwinding" ? Phase.Stopped({ reason, deadline, forced }) : phase
  }
}

/** The reason in a few words, for logs and reports. */
export const describe = (reason: Reason): string => {
  switch (reason._tag) {
    case "Signal":
      return reason.signal
    case "Interrupted":
      return "interruption"
    case "Requested":
      return reason.message === undefined ? "request" : `request: ${reason.message}`
    case "Uncaught":
      return `uncaught error: ${inWords(reason.error)}`
    case "Failed":
      return "failure"
  }
}
