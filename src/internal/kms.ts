/**
 * The meeting point of a shutdown and what it shuts down: the service behind `Kms`, and what the service asks of a
 * listener's drain. Where nothing supervises the program, the default has nothing to wait for.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { Gate } from "./gate.ts"
import { Phase, type Reason } from "./phase.ts"
import type { FinalizerReport, ListenerReport, ListenerStatus, Status } from "./report.ts"
import type { Trace } from "./trace.ts"

/** A listener's drain, as the shutdown sees it. */
export interface Drainable {
  readonly drainOn: "shutdown" | "release"
  /** How many connections it has accepted so far. */
  readonly accepted: () => number
  /** Asks clients to leave, while still serving them. */
  readonly lameDuck: () => void
  /** Stops taking new work. */
  readonly begin: () => void
  /** Begins, and completes when everything has ended, by itself or by force. Any number of fibers may run it. */
  readonly run: Effect.Effect<void>
  /** Cuts what is still open. */
  readonly force: () => void
  readonly isDone: () => boolean
  /** It has begun, and nothing is in flight. */
  readonly isQuiet: () => boolean
  readonly status: () => ListenerStatus
  /** `since` is when the shutdown began. */
  readonly report: (since: number) => ListenerReport | undefined
  /** What has not ended, each in words. */
  readonly held: () => ReadonlyArray<string>
}

/** A finalizer with a name, while it runs. */
export interface RunningFinalizer {
  readonly name: string
  readonly since: number
  readonly fiber: Fiber.Fiber<unknown, unknown>
}

/** How one has ended. */
export type FinalizerEnd = Pick<FinalizerReport, "outcome" | "error">

/** A layer that is being released. */
export interface ReleasingLayer {
  /** The keys of what it provides. */
  readonly services: ReadonlyArray<string>
  readonly fiber: Fiber.Fiber<unknown, unknown>
  /** Whether there are layers inside it. */
  readonly isComposite: boolean
}

export interface Service {
  /** Whether a shutdown supervises the program. */
  readonly supervised: boolean
  readonly gate: Gate
  readonly phases: SubscriptionRef.SubscriptionRef<Phase>
  /** Completes when the layers of the program have been built. */
  readonly started: Deferred.Deferred<void>
  /** Completes when the drain begins. */
  readonly initiated: Deferred.Deferred<Reason>
  /** Completes when the deadline has come. */
  readonly forced: Deferred.Deferred<void>
  /** Milliseconds that interrupted work gets to unwind after the cut, before it is abandoned. */
  readonly grace: number
  /** Milliseconds that a drain may take: of the whole shutdown, or of a listener that closes while the rest runs on. */
  readonly timeout: number
  /** Milliseconds since the epoch. */
  readonly now: () => number
  /** Starts the shutdown, if nothing has. */
  readonly begin: (reason: Reason) => void
  /** When a start-up failed that has not closed what it had acquired, in milliseconds since the epoch. */
  failedSince: number | undefined
  /** Adds a listener. Returns the removal. */
  readonly register: (drain: Drainable) => () => void
  /** Work on a listener that drains has ended, and may have handed something on. */
  readonly worked: () => void
  /** A listener has been drained. */
  readonly drained: () => void
  /** A named finalizer has begun. Returns what to call with its end. */
  readonly finalizing: (finalizer: RunningFinalizer) => (end: FinalizerEnd) => void
  /** The span of the shutdown, once it has begun. */
  readonly trace: Trace | undefined
  /** Calls `listener` when the program and all that was provided around it has ended; at once where nobody knows. */
  readonly onGone: (listener: () => void) => void
  /** A layer is being released. Returns the end of that. */
  readonly releasing: (layer: ReleasingLayer) => () => void
  /** What is open. */
  readonly status: () => Status
  /** Begins a busy section. Returns its end, or `undefined` where no section may begin any more. */
  readonly busyUnsafe: (name: string) => (() => void) | undefined
}

/** `busyUnsafe` over a gate. */
export const busyUnsafe =
  (gate: Gate, clock: Clock.Clock): Service["busyUnsafe"] =>
  (name) => {
    const section = gate.enter({ name, now: clock.currentTimeMillisUnsafe(), park: false })
    return section === undefined ? undefined : () => gate.leave(section)
  }

const open = new Gate(
  () => false,
  () => false,
  () => {}
)

const done = (): Deferred.Deferred<void> => {
  const deferred = Deferred.makeUnsafe<void>()
  Deferred.doneUnsafe(deferred, Exit.void)
  return deferred
}

const unsupervised: Service = {
  supervised: false,
  gate: open,
  busyUnsafe: busyUnsafe(open, Clock.Clock.defaultValue()),
  phases: Effect.runSync(SubscriptionRef.make<Phase>(Phase.Running())),
  // Nobody knows.
  started: done(),
  initiated: Deferred.makeUnsafe(),
  forced: Deferred.makeUnsafe(),
  grace: 500,
  timeout: 25_000,
  now: () => Clock.Clock.defaultValue().currentTimeMillisUnsafe(),
  begin: () => {},
  failedSince: undefined,
  register: () => () => {},
  worked: () => {},
  drained: () => {},
  finalizing: () => () => {},
  trace: undefined,
  onGone: (listener) => listener(),
  releasing: () => () => {},
  status: () => ({ phase: "Running", started: true, listeners: [], sections: [], finalizers: [] })
}

export const Kms: Context.Reference<Service> = Context.Reference<Service>("effect-kms/Kms", {
  defaultValue: () => unsupervised
})
