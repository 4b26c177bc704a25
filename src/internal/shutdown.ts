/**
 * The state of one shutdown: who takes part, how far it is, and what ended how. `supervisor.ts` moves it.
 */
import type * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { Account } from "./account.ts"
import { Gate, type Section } from "./gate.ts"
import {
  busyUnsafe,
  type Drainable,
  type FinalizerEnd,
  type ReleasingLayer,
  type RunningFinalizer,
  type Service
} from "./kms.ts"
import { type Event, type Phase, reached, Reason, step } from "./phase.ts"
import type { OptionError } from "./options.ts"
import type { Process } from "./process.ts"
import type { Settings } from "./settings.ts"
import type { Trace } from "./trace.ts"
import type { Report, Status } from "./report.ts"

/** An uncaught error leaves the program in a state that nobody knows, so it gets little time to end. */
const uncaughtTimeout = 5000

export class Shutdown implements Service {
  readonly supervised = true
  readonly settings: Settings
  readonly clock: Clock.Clock
  readonly host: Process
  readonly phases: SubscriptionRef.SubscriptionRef<Phase>
  readonly gate: Gate
  readonly grace: number
  readonly busyUnsafe: Service["busyUnsafe"]
  readonly started = Deferred.makeUnsafe<void>()
  /** Completes when there is a reason to end. */
  readonly begun = Deferred.makeUnsafe<void>()
  readonly initiated = Deferred.makeUnsafe<Reason>()
  /** Completes when nothing is in flight any more, and the gate has closed behind it. */
  readonly empty = Deferred.makeUnsafe<void>()
  readonly forced = Deferred.makeUnsafe<void>()

  reason: Reason | undefined
  /** The program ended before anything else gave a reason to. */
  endedByItself = false
  /** What failed in the shutdown itself. */
  readonly defects: Array<unknown> = []
  /** An uncaught error came, as the reason or after it. */
  broken = false
  trace: Trace | undefined
  /** What had not ended when the process was given up. */
  hung: ReadonlyArray<string> = []

  private beganAt = 0
  private gaveUpAt: number | undefined
  private readonly account: Account
  private run: ((drain: Drainable) => void) | undefined
  /** Something may have ended that has handed work on. */
  private handsOver = true
  private settling = false
  /** The listener that was in use when that was last asked: mostly it still is. */
  private inUse: Drainable | undefined
  private final: Report | undefined
  private cutAt: number | undefined

  constructor(settings: Settings, clock: Clock.Clock, host: Process, phases: SubscriptionRef.SubscriptionRef<Phase>) {
    this.settings = settings
    this.clock = clock
    this.host = host
    this.phases = phases
    // What unwinds after the cut may take a quarter of the time, and leaves the rest to the finalizers beneath it.
    this.grace = settings.forceTimeout / 4
    this.gate = new Gate(
      () => !this.isDrained,
      () => this.settling,
      this.left
    )
    this.account = new Account(this.gate, this.now)
    this.busyUnsafe = busyUnsafe(this.gate, clock)
  }

  // --- Beginning ---

  /** A start-up has failed, and may hang in that: whatever ends the program, its time has begun. */
  failedSince: number | undefined

  begin = (reason: Reason): void => {
    if (this.reason !== undefined) return
    this.reason = reason
    this.beganAt = this.failedSince ?? this.now()
    this.account.begin(this.beganAt)
    Deferred.doneUnsafe(this.begun, Exit.void)
  }

  programEnded(exit: Exit.Exit<unknown, unknown>): void {
    if (this.reason !== undefined) return
    this.endedByItself = true
    this.begin(
      Exit.isFailure(exit)
        ? Reason.Failed({ cause: exit.cause })
        : Reason.Requested({ message: "the program has ended" })
    )
  }

  /** A program that has ended by itself and left nothing open needs no word about it. */
  get silent(): boolean {
    return this.endedByItself && this.account.isEmpty
  }

  get timeout(): number {
    const { timeout } = this.settings
    return this.reason?._tag === "Uncaught" ? Math.min(timeout, uncaughtTimeout) : timeout
  }

  /** Milliseconds. A program that is broken, or has ended, has nothing left to serve with. */
  get lameDuck(): Result.Result<number, OptionError> {
    const { reason } = this
    return reason === undefined || reason._tag === "Uncaught" || reason._tag === "Failed" || this.endedByItself
      ? Result.succeed(0)
      : this.settings.lameDuck(reason)
  }

  get deadline(): number {
    return this.beganAt + this.timeout
  }

  /**
   * When the process is gone at the latest. A blocked event loop may bring the cut late, and the end of what unwinds: what
   * comes after either has its time all the same.
   */
  get exitBy(): number {
    const { cutAt = 0, gaveUpAt } = this
    const by = Math.max(Math.min(this.deadline, gaveUpAt ?? this.now()), cutAt) + this.settings.forceTimeout
    return gaveUpAt === undefined ? by : Math.max(by, gaveUpAt + this.grace)
  }

  // --- Moving ---

  now = (): number => this.clock.currentTimeMillisUnsafe()

  get phase(): Phase {
    return SubscriptionRef.getUnsafe(this.phases)
  }

  move(event: Event): Effect.Effect<void> {
    return Effect.suspend(() => {
      const next = step(this.phase, event)
      if (next === this.phase) return Effect.void
      if (next._tag !== this.phase._tag) {
        this.account.moved(next._tag)
        this.trace?.event(`kms.phase ${next._tag}`)
      }
      return SubscriptionRef.set(this.phases, next)
    })
  }

  /** Listeners that drain before anything unwinds. */
  withShutdown(): Array<Drainable> {
    return Array.from(this.account.drains).filter((drain) => drain.drainOn === "shutdown")
  }

  warn(): void {
    for (const drain of this.withShutdown()) this.attempt(drain.lameDuck)
  }

  /** Begins every drain, all in this tick; `run` then sees each of them through. */
  drain(run: (drain: Drainable) => void): void {
    if (this.run !== undefined) return
    this.run = run
    this.gate.drain()
    for (const drain of this.withShutdown()) this.attempt(drain.begin)
    for (const drain of this.withShutdown()) run(drain)
    if (this.reason !== undefined) Deferred.doneUnsafe(this.initiated, Exit.succeed(this.reason))
    this.settle()
  }

  worked = (): void => {
    this.handsOver = true
    this.settle()
  }

  drained = (): void => this.settle()

  /** A section has ended. A late one hands nothing over, or two could take turns for ever. */
  private left = (section: Section): void => {
    if (this.cutAt !== undefined) this.account.unwound(section)
    else this.account.note(section, "drained")
    this.handsOver ||= section.early
    this.settle()
  }

  /**
   * Looks whether nothing is left. What has just ended may have handed something on to a fiber that has not run yet, so
   * there is a turn for that as soon as nothing is in flight, and then another look; the one that finds all of it drained
   * closes the gate in the same step. With 10,000 idle connections to close, a turn after that would be a long one.
   */
  private settle(): void {
    if (this.run === undefined || this.settling || !this.isQuiet) return
    if (!this.handsOver) {
      if (this.isDrained && this.gate.closeIfEmpty()) Deferred.doneUnsafe(this.empty, Exit.void)
      return
    }
    this.handsOver = false
    this.settling = true
    Effect.runFork(this.host.turn).addObserver(() => {
      this.settling = false
      this.settle()
    })
  }

  // Asked twice at the end of each request of the drain: to go through the listeners makes something for each step.
  private get isQuiet(): boolean {
    if (this.gate.live.size > 0 || this.inUse?.isQuiet() === false) return false
    this.inUse = undefined
    for (const drain of this.account.drains) {
      if (drain.drainOn !== "shutdown" || drain.isQuiet()) continue
      this.inUse = drain
      return false
    }
    return true
  }

  private get isDrained(): boolean {
    for (const drain of this.account.drains) if (drain.drainOn === "shutdown" && !drain.isDone()) return false
    return true
  }

  /** The deadline has come: cuts every listener and every section. */
  force(): void {
    if (this.reason !== undefined) Deferred.doneUnsafe(this.initiated, Exit.succeed(this.reason))
    this.gate.close()
    // Where the drain has failed, it has all been cut before.
    if (this.cutAt === undefined) for (const section of this.gate.live) this.account.note(section, "cut")
    this.cutAt = this.now()
    for (const drain of this.account.drains) this.attempt(drain.force)
    for (const section of Array.from(this.gate.live)) section.fiber?.interruptUnsafe()
    Deferred.doneUnsafe(this.forced, Exit.void)
    // What was interrupted may have blocked the event loop as it unwound.
    this.cutAt = this.now()
  }

  /** One listener that fails must not keep the others from draining. */
  private attempt(f: () => void): void {
    try {
      f()
    } catch (error) {
      this.defects.push(error)
    }
  }

  stop(): void {
    this.gaveUpAt = this.now()
    this.account.end()
  }

  // --- Taking part ---

  register = (drain: Drainable): (() => void) => {
    this.account.drains.add(drain)
    const { phase } = this
    if (drain.drainOn === "shutdown") {
      if (phase._tag === "LameDuck") drain.lameDuck()
      // It was binding while the drain began.
      if (this.run !== undefined) {
        drain.begin()
        this.run(drain)
      }
    }
    if (reached(phase, "Unwinding") && Deferred.isDoneUnsafe(this.forced)) drain.force()
    return () => {
      // What took part in the shutdown stays, for the report.
      if (this.reason === undefined) this.account.drains.delete(drain)
    }
  }

  finalizing = (finalizer: RunningFinalizer): ((end: FinalizerEnd) => void) => this.account.finalizing(finalizer)

  private readonly mourners: Array<() => void> = []

  onGone = (listener: () => void): void => void this.mourners.push(listener)

  /** The program has ended, and all that was provided around it. */
  gone = (): void => {
    for (const listener of this.mourners.splice(0)) listener()
  }

  releasing = (layer: ReleasingLayer): (() => void) => this.account.releasing(layer)

  // --- Telling ---

  status = (): Status => this.account.status(this.phase, Deferred.isDoneUnsafe(this.started))

  /** What has not ended, each in words. */
  held = (): ReadonlyArray<string> => this.account.held()

  /** What it did; once it has stopped, always the same. */
  get report(): Report {
    const { phase } = this
    const report = this.final ?? this.account.report(this.reason!, phase._tag !== "Running" && phase.forced, this.hung)
    if (phase._tag === "Stopped") this.final = report
    return report
  }
}
