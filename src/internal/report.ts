/**
 * What a shutdown did, and what is open, as data. Every number in it was counted.
 *
 * All of it but a reason that holds an error is JSON as it stands: times are numbers, in milliseconds, and what is not
 * known is left out.
 */
import type { Phase, Reason } from "./phase.ts"

/** Something in flight: a request, an upgraded connection, the connection of a socket server. */
export interface Work {
  /** Method and path of a request, or what it is; never with a query string. */
  readonly what: string
  /** Who is at the other end. */
  readonly peer: string
  /** Milliseconds since it began. */
  readonly age: number
}

/** One listener, now. */
export interface ListenerStatus {
  readonly name: string
  readonly kind: string
  readonly address: string
  readonly phase: "open" | "draining" | "closed"
  /** Connections that are open. */
  readonly connections: number
  /** Requests, upgraded connections and their handlers that have not ended. */
  readonly inFlight: number
  /** What has been in flight longest, the oldest first, at most five of them. */
  readonly oldest: ReadonlyArray<Work>
  /** Connections that it has ever accepted. */
  readonly accepted: number
  /** Requests and connections that ended by themselves since the drain began. */
  readonly drained: number
  /** Requests and connections that were destroyed because their time was over. */
  readonly cut: number
  /** Handlers that did not end after they had been interrupted. */
  readonly abandoned: number
  /** How long it has been draining, or took to; absent before. */
  readonly millis?: number | undefined
}

/** The busy sections of one name that are live. */
export interface SectionStatus {
  readonly name: string
  readonly inFlight: number
  /** Milliseconds since the oldest of them began. */
  readonly age: number
}

/** A finalizer with a name that runs. */
export interface FinalizerStatus {
  readonly name: string
  /** Milliseconds since it began. */
  readonly age: number
}

/** How far the shutdown is, and what is open. */
export interface Status {
  readonly phase: Phase["_tag"]
  /** Whether the layers of the program have been built. */
  readonly started: boolean
  /** Why the program ends, once it does. */
  readonly reason?: Reason | undefined
  /** Milliseconds until work is cut; absent where it never is, or nothing has begun. */
  readonly left?: number | undefined
  readonly listeners: ReadonlyArray<ListenerStatus>
  readonly sections: ReadonlyArray<SectionStatus>
  readonly finalizers: ReadonlyArray<FinalizerStatus>
}

/** When something was: milliseconds since the shutdown began. */
export interface Span {
  readonly from: number
  readonly to: number
}

/** One phase of the shutdown. */
export interface PhaseReport extends Span {
  readonly phase: "LameDuck" | "Draining" | "Unwinding"
}

/** One listener's drain. */
export interface ListenerReport extends Span {
  readonly name: string
  readonly kind: string
  readonly address: string
  /** Requests and connections that ended by themselves since the drain began. */
  readonly drained: number
  /** Requests and connections that were destroyed because their time was over. */
  readonly cut: number
  /** Handlers that did not end after they had been interrupted. */
  readonly abandoned: number
  /** What was cut, in words, at most 100 of them. */
  readonly cutWork: ReadonlyArray<string>
  /** Whether it was cut: by the deadline, or by its own `drainTimeout`. */
  readonly forced: boolean
}

/** The busy sections of one name that were live in the drain. */
export interface SectionReport extends Span {
  readonly name: string
  /** Those that ended by themselves. */
  readonly drained: number
  /** Those that the deadline ended. */
  readonly cut: number
  /** Those that the deadline did not end. */
  readonly abandoned: number
}

/** One finalizer with a name. */
export interface FinalizerReport extends Span {
  readonly name: string
  readonly outcome: "released" | "failed" | "timed out" | "abandoned"
  /** What it failed with. */
  readonly error?: string | undefined
}

/** What a shutdown did. */
export interface Report {
  readonly reason: Reason
  /** Whether the deadline came before the work was done. */
  readonly forced: boolean
  /** When it began, in milliseconds since the epoch. */
  readonly startedAt: number
  /** From the reason to the end, in milliseconds. */
  readonly millis: number
  readonly phases: ReadonlyArray<PhaseReport>
  readonly listeners: ReadonlyArray<ListenerReport>
  readonly sections: ReadonlyArray<SectionReport>
  readonly finalizers: ReadonlyArray<FinalizerReport>
  /** What had not ended when the process was given up, in words. */
  readonly hung: ReadonlyArray<string>
}
