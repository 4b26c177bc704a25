/**
 * One program in a process that is not real: what `KmsTest` is made of.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Console from "effect/Console"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import type * as Scheduler from "effect/Scheduler"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { constants } from "node:os"
import * as Host from "./host.ts"
import { Kms, type Service } from "./kms.ts"
import * as Outcome from "./outcome.ts"
import { type Phase, reached, Reason } from "./phase.ts"
import { Process } from "./process.ts"
import type { Report, Status } from "./report.ts"
import { Shutdown } from "./shutdown.ts"
import { now } from "./text.ts"

/** The signals that `NodeRuntime.runMain` listens for, to interrupt the fiber that it runs. */
const runMain: ReadonlyArray<NodeJS.Signals> = ["SIGINT", "SIGTERM"]

/** How long a test waits, on the real clock, until it is told for what. */
const patience = "2 seconds"

/** What a program that its test has left behind gets to end, on the real clock. */
const leftBehind = "1 second"

/** The exit code of a process that had to be killed. */
const killed = 128 + constants.signals.SIGKILL

/** One program, run as `NodeRuntime.runMain` runs it, in a process that is not real. */
export class Program {
  private readonly host: Host.Host
  private readonly supervised = Deferred.makeUnsafe<Service>()
  private readonly ended = Deferred.makeUnsafe<Exit.Exit<unknown, unknown>>()
  private readonly reported = Deferred.makeUnsafe<Report>()
  private readonly exited = Deferred.makeUnsafe<number>()
  private kms: Service | undefined
  private root: Fiber.Fiber<unknown, unknown> | undefined

  constructor(scheduler: Scheduler.Scheduler) {
    this.host = Host.make({
      onExit: (code) => void Deferred.doneUnsafe(this.exited, Exit.succeed(code)),
      turn: Host.turnOf(scheduler)
    })
  }

  // --- Running ---

  /** To be run inside the program, where its shutdown is known. */
  readonly watch: Effect.Effect<void> = Effect.map(Kms, (kms) => {
    this.kms = kms
    Deferred.doneUnsafe(this.supervised, Exit.succeed(kms))
  })

  /** To be called with the report, at the end. */
  readonly onStopped = (report: Report): void => {
    // A process that has ended tells nothing any more.
    if (this.isRunning) Deferred.doneUnsafe(this.reported, Exit.succeed(report))
  }

  start<A, E, R>(main: Effect.Effect<A, E, R>): Effect.Effect<void, never, R> {
    return Effect.withFiber<A, E, R>((root) => {
      this.root = root
      return main
    }).pipe(
      Effect.tapCause((cause) =>
        !Cause.hasInterruptsOnly(cause) && Runtime.getErrorReported(Cause.squash(cause))
          ? Effect.logError(cause)
          : Effect.void
      ),
      Effect.provideService(Process, this.host.process),
      Effect.forkDetach({ startImmediately: true }),
      Effect.map((root) => {
        this.root = root
        root.addObserver((exit) => this.end(exit))
      })
    )
  }

  get isRunning(): boolean {
    return !Deferred.isDoneUnsafe(this.exited)
  }

  /** Completes when the layers have been built and what they forked has begun, or when it has come to nothing. */
  get started(): Effect.Effect<void> {
    const built = Effect.flatMap(Deferred.await(this.supervised), (kms) => Deferred.await(kms.started))
    return Effect.andThen(Effect.raceFirst(built, Deferred.await(this.exited)), this.host.process.turn)
  }

  private end(exit: Exit.Exit<unknown, unknown>): void {
    if (!this.isRunning) return
    Deferred.doneUnsafe(this.ended, Exit.succeed(exit))
    Outcome.teardown(() => this.host.process)(exit, () => {})
  }

  /**
   * Ends what is still running, now that nobody moves its time: everything is cut at once. What does not end then is
   * killed; it can only wait for a time that does not come.
   */
  readonly abandon: Effect.Effect<void> = Effect.suspend(() => {
    const { kms, root } = this
    if (root === undefined || root.pollUnsafe() !== undefined) return Effect.void
    kms?.begin(Reason.Interrupted())
    root.interruptUnsafe(root.id)
    if (kms instanceof Shutdown) kms.force()
    return Effect.flatMap(real(Effect.timeoutOption(Fiber.await(root), leftBehind)), (ended) => {
      if (Option.isSome(ended)) return Effect.void
      this.host.process.exit(killed)
      return this.warn("A test has left its program behind, and it does not end")
    })
  })

  // --- What happens to it ---

  signal(signal: NodeJS.Signals): Effect.Effect<void> {
    return this.hit("KmsTest.signal", () => {
      const isHeard = this.host.signal(signal)
      if (runMain.includes(signal)) this.root?.interruptUnsafe(this.root.id)
      // What nobody listens for ends a process, and its shell calls that 128 and the number of the signal.
      else if (!isHeard) this.host.process.exit(128 + constants.signals[signal])
    })
  }

  uncaught(error: unknown): Effect.Effect<void> {
    return this.hit("KmsTest.uncaught", () => {
      if (!this.host.fail(error)) this.host.process.exit(1)
    })
  }

  readonly interrupt: Effect.Effect<void> = Effect.suspend(() =>
    this.hit("KmsTest.interrupt", () => this.root?.interruptUnsafe())
  )

  /** Waits until it shows: what follows in the test may be about time, which is not to pass before. */
  private hit(name: string, f: () => void): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (Deferred.isDoneUnsafe(this.exited)) return Effect.void
      f()
      const begun = Effect.asVoid(this.phase("LameDuck"))
      return this.patiently(name, Effect.raceFirst(begun, Effect.asVoid(Deferred.await(this.exited))))
    })
  }

  // --- What becomes of it ---

  reached(tag: Phase["_tag"]): Effect.Effect<Phase> {
    const exited = Effect.flatMap(Deferred.await(this.exited), (code) => {
      const phase = this.kms === undefined ? undefined : SubscriptionRef.getUnsafe(this.kms.phases)
      return phase !== undefined && reached(phase, tag)
        ? Effect.succeed(phase)
        : Effect.die(new Error(`KmsTest.reached: the process has ended with ${code}, and never was ${tag}`))
    })
    return this.patiently(`KmsTest.reached(${JSON.stringify(tag)})`, Effect.raceFirst(this.phase(tag), exited))
  }

  private phase(tag: Phase["_tag"]): Effect.Effect<Phase> {
    return Effect.flatMap(Deferred.await(this.supervised), (kms) =>
      SubscriptionRef.changes(kms.phases).pipe(
        Stream.filter((phase) => reached(phase, tag)),
        Stream.runHead,
        Effect.map(Option.getOrThrow),
        // The last call comes first, in turns of the event loop: no time is to pass before it is over.
        Effect.tap((phase) => (phase._tag === "Draining" ? Deferred.await(kms.initiated) : Effect.void))
      )
    )
  }

  readonly status: Effect.Effect<Status> = Effect.sync(() => (this.kms ?? Kms.defaultValue()).status())

  readonly exitCode: Effect.Effect<number> = Effect.suspend(() =>
    this.patiently("KmsTest.exitCode", Deferred.await(this.exited))
  )

  readonly report: Effect.Effect<Report> = Effect.suspend(() => this.orExited("report", Deferred.await(this.reported)))

  readonly exit: Effect.Effect<Exit.Exit<unknown, unknown>> = Effect.suspend(() =>
    this.orExited("exit", Deferred.await(this.ended))
  )

  /** What comes with a regular end; where there was none, nothing will come. */
  orExited<A>(name: string, self: Effect.Effect<A>): Effect.Effect<A> {
    const exited = Effect.flatMap(Deferred.await(this.exited), (code) =>
      Effect.die(new Error(`KmsTest.${name}: the process has ended with ${code} before there was one`))
    )
    // What is there already wins: the process may have ended since.
    return this.patiently(`KmsTest.${name}`, Effect.raceFirst(self, Effect.andThen(this.host.process.turn, exited)))
  }

  /** Tells whoever waits for a time that does not come what it is that waits. */
  patiently<A>(name: string, self: Effect.Effect<A>): Effect.Effect<A> {
    const hint = "The clock of a test stands still until TestClock.adjust moves it"
    const told = Effect.delay(this.warn(`${name} has waited for ${patience}. ${hint}`), patience)
    return Effect.raceFirst(self, Effect.andThen(real(told), Effect.never))
  }

  /** On the real console: that of a test keeps to itself what it is told. */
  private warn(what: string): Effect.Effect<void> {
    return Effect.map(this.status, (status) =>
      Console.Console.defaultValue().warn(`${what}. The program is ${now(status)}`)
    )
  }
}

/** On the real clock, whatever the test has. */
const real = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.provideService(self, Clock.Clock, Clock.Clock.defaultValue())
