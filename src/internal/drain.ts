/**
 * The one drain every listener uses: begin, await, force.
 *
 * It may be begun by the shutdown or by the closing of the listener's own scope, whichever comes first, and is the same
 * drain either way. It ends when the listener is empty, or when its time is over and what is left has been cut.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { type Drainable, Kms, type Service } from "./kms.ts"
import { lastCall } from "./lastcall.ts"
import * as Limit from "./limit.ts"
import * as Metrics from "./metrics.ts"
import { reached } from "./phase.ts"
import { millis, OptionError } from "./options.ts"
import { Process } from "./process.ts"
import type { ListenerReport, ListenerStatus, Work } from "./report.ts"
import { duration } from "./text.ts"
import * as Trace from "./trace.ts"

/** What a drain asks of its listener. None of these waits. */
export interface Listener {
  readonly name: string
  readonly kind: string
  readonly address: string
  readonly accepted: () => number
  readonly connections: () => number
  readonly inFlight: () => number
  /** What has been in flight longest, the oldest first. */
  readonly oldest: (limit: number) => ReadonlyArray<Work>
  /** What has not ended, each in words. */
  readonly held: () => ReadonlyArray<string>
  readonly lameDuck: () => void
  /** Stop accepting, and let go of everything that has no work in flight. */
  readonly begin: () => void
  /** Destroy every socket and interrupt every handler. */
  readonly force: () => void
  readonly isEmpty: () => boolean
  /** Nothing is in flight on it, whoever is still connected. */
  readonly isQuiet: () => boolean
  readonly counts: () => Pick<ListenerReport, "drained" | "cut" | "abandoned" | "cutWork">
}

/**
 * What every listener takes beside its own options.
 *
 * @category options
 * @since 0.1.0
 */
export interface DrainOptions {
  /**
   * What the listener is called in logs and reports. Default: its kind and its address, as in `http :3007`.
   */
  readonly name?: string | undefined
  /**
   * How long this listener may drain before what is left on it is cut. Longer than zero. Default: until the shutdown's
   * deadline. Where only its scope closes, as long as the shutdown's `timeout`, and 25 seconds without a shutdown; these
   * add up over layers that depend on each other.
   */
  readonly drainTimeout?: Duration.Input | undefined
  /**
   * When it stops accepting: with the shutdown (default), or only when its scope closes. `"release"` is for what has to
   * answer until the end: health, metrics, admin. Put such a listener beneath the application with `Layer.provide`,
   * since merged layers close in parallel.
   */
  readonly drainOn?: "shutdown" | "release" | undefined
}

/** Drain options, checked. */
export interface Options {
  readonly drainOn: "shutdown" | "release"
  /** Milliseconds, or `undefined` for the shutdown's deadline. */
  readonly drainTimeout: number | undefined
}

export const decode = (options: DrainOptions): Result.Result<Options, OptionError> => {
  const drainOn = options.drainOn ?? "shutdown"
  if (drainOn !== "shutdown" && drainOn !== "release") {
    return Result.fail(
      new OptionError({ option: "drainOn", value: drainOn, problem: 'neither "shutdown" nor "release"' })
    )
  }
  if (options.drainTimeout === undefined) return Result.succeed({ drainOn, drainTimeout: undefined })
  return Result.map(millis("drainTimeout", options.drainTimeout, { zero: false, infinite: true }), (drainTimeout) => ({
    drainOn,
    drainTimeout
  }))
}

export class Drain implements Drainable {
  readonly drainOn: "shutdown" | "release"
  private readonly ended = Deferred.makeUnsafe<void>()
  private readonly cut = Deferred.makeUnsafe<void>()
  private begunAt: number | undefined
  private endedAt: number | undefined
  private readonly listener: Listener
  private readonly limit: number | undefined
  private readonly kms: Service
  private readonly clock: Clock.Clock
  private readonly host: Process
  private readonly services: Context.Context<never>
  private trace: Trace.Trace | undefined

  constructor(listener: Listener, options: Options, kms: Service, services: Context.Context<never>) {
    this.listener = listener
    this.kms = kms
    this.services = services
    this.clock = Context.get(services, Clock.Clock)
    this.host = Context.get(services, Process)
    this.drainOn = options.drainOn
    this.limit = options.drainTimeout
  }

  private now = (): number => this.clock.currentTimeMillisUnsafe()

  accepted = (): number => this.listener.accepted()
  isDone = (): boolean => this.endedAt !== undefined
  isBegun = (): boolean => this.begunAt !== undefined
  isQuiet = (): boolean => this.isDone() || (this.isBegun() && this.listener.isQuiet())

  lameDuck = (): void => {
    if (!this.isBegun()) this.listener.lameDuck()
  }

  begin = (): void => {
    if (this.isBegun()) return
    this.begunAt = this.now()
    const { address, kind, name } = this.listener
    const attributes = { "kms.listener": name, "kms.kind": kind, ...Trace.location(kind, address) }
    this.trace = Trace.begin(this.services, this.clock, "kms.drain", attributes, this.kms.trace)
    this.listener.begin()
    this.check()
  }

  /** To be called by the listener whenever something of it has ended. */
  check = (): void => {
    if (this.isBegun() && this.listener.isEmpty()) this.end()
  }

  /** The same where that was work. */
  worked = (): void => {
    if (this.isBegun() && this.drainOn === "shutdown") this.kms.worked()
    this.check()
  }

  force = (): void => {
    if (this.isDone() || Deferred.isDoneUnsafe(this.cut)) return
    this.begin()
    if (this.isDone()) return
    this.listener.force()
    Deferred.doneUnsafe(this.cut, Exit.void)
    this.check()
  }

  private end(): void {
    if (this.isDone()) return
    this.endedAt = this.now()
    this.endTrace()
    Deferred.doneUnsafe(this.ended, Exit.void)
    this.kms.drained()
  }

  private endTrace(): void {
    const { abandoned, cut, cutWork, drained } = this.listener.counts()
    const exit = cut === 0 && abandoned === 0 ? Exit.void : Exit.die(new Error(`Cut: ${cutWork.join("; ")}`))
    this.trace?.end(exit, { "kms.drained": drained, "kms.cut": cut, "kms.abandoned": abandoned })
  }

  readonly run: Effect.Effect<void> = Effect.gen({ self: this }, function* () {
    if (this.isDone()) return
    if (!this.isBegun()) yield* lastCall(this.host, [this], this.ahead, this.begin)
    const ended = Deferred.await(this.ended)
    const drained = yield* Limit.within(Effect.raceFirst(ended, Deferred.await(this.cut)), this.host, this.left())
    const cuts = Option.isNone(drained) && !Deferred.isDoneUnsafe(this.cut)
    if (cuts) this.force()
    // A shutdown tells in its report what was cut; without one, nobody else does.
    if (cuts && !this.kms.supervised) {
      const { counts, name } = this.listener
      const { cut, cutWork } = counts()
      const work = cutWork.length === 0 ? "nothing was in flight" : cutWork.join("; ")
      yield* Effect.logWarning(`${name} was cut after ${duration(this.now() - this.begunAt!)}. ${cut} cut: ${work}`)
    }
    yield* Limit.within(ended, this.host, this.kms.grace)
    // What does not end even after it was interrupted is given up, so that everything beneath it can still unwind.
    this.end()
  })

  /** A part of the listener closes while the rest goes on: waits until that part has `ended`, as long as it may take. */
  part = (ended: Effect.Effect<void>): Effect.Effect<void> =>
    Effect.suspend(() =>
      Effect.asVoid(Limit.within(Effect.raceFirst(ended, Deferred.await(this.kms.forced)), this.host, this.longest))
    )

  private get longest(): number {
    return this.limit ?? defaultLimit(this.kms)
  }

  /** What there is to drain in, before it has begun. */
  private get ahead(): number {
    const phase = SubscriptionRef.getUnsafe(this.kms.phases)
    const left = phase._tag === "Running" ? Number.POSITIVE_INFINITY : Math.max(0, phase.deadline - this.now())
    return Math.min(this.longest, left)
  }

  private left(): number {
    return Math.max(0, this.begunAt! + this.longest - this.now())
  }

  status = (): ListenerStatus => {
    const { address, kind, name } = this.listener
    const { cutWork: _, ...counts } = this.listener.counts()
    return {
      name,
      kind,
      address,
      phase: this.isDone() ? "closed" : this.isBegun() ? "draining" : "open",
      connections: this.listener.connections(),
      inFlight: this.listener.inFlight(),
      oldest: this.listener.oldest(5),
      accepted: this.listener.accepted(),
      ...counts,
      millis: this.millis()
    }
  }

  held = (): ReadonlyArray<string> => this.listener.held()

  /** What metrics tell of it. */
  read = (): Metrics.Source => {
    const { accepted, connections, inFlight } = this.listener
    const { cutWork: _, ...counts } = this.listener.counts()
    return {
      connections: connections(),
      inFlight: inFlight(),
      accepted: accepted(),
      ...counts,
      draining: (this.millis() ?? 0) / 1000
    }
  }

  /** How long it has been draining, or took to. */
  private millis(): number | undefined {
    return this.begunAt === undefined ? undefined : (this.endedAt ?? this.now()) - this.begunAt
  }

  report = (since: number): ListenerReport | undefined => {
    if (this.begunAt === undefined) return undefined
    const { address, kind, name } = this.listener
    const forced = Deferred.isDoneUnsafe(this.cut)
    const from = Math.max(0, this.begunAt - since)
    const to = Math.max(0, (this.endedAt ?? this.now()) - since)
    return { name, kind, address, ...this.listener.counts(), forced, from, to }
  }
}

/** During a shutdown its deadline is the limit, and forces whatever is left; otherwise there is no one else to do it. */
export const defaultLimit = (kms: Service): number => (isEnding(kms) ? Number.POSITIVE_INFINITY : kms.timeout)

const isEnding = (kms: Service): boolean => reached(SubscriptionRef.getUnsafe(kms.phases), "LameDuck")

/** Where the shutdown has begun to drain, nobody listens any more: waits for the end. */
export const admitted: Effect.Effect<void> = Effect.gen(function* () {
  const kms = yield* Kms
  if (kms.supervised && reached(SubscriptionRef.getUnsafe(kms.phases), "Draining")) return yield* Effect.never
})

/** Puts a listener under the shutdown, and under its own scope. */
export const make = Effect.fnUntraced(function* (
  listener: Listener,
  options: Options
): Effect.fn.Return<Drain, never, Scope.Scope> {
  const kms = yield* Kms
  const services = yield* Effect.context<never>()
  const drain = new Drain(listener, options, kms, services)
  const unregister = kms.register(drain)
  const { address, kind, name } = listener
  const remove = Metrics.listener(services, { listener: name, kind, address }, drain.read)
  const released = Effect.sync(() => {
    unregister()
    // What took part in a shutdown is there for the last scrape, too.
    if (isEnding(kms)) kms.onGone(remove)
    else remove()
  })
  yield* Effect.addFinalizer(() => Effect.ensuring(drain.run, released))
  yield* Effect.logDebug(
    kms.supervised
      ? `${name} drains with the shutdown`
      : `${name} drains when its scope closes: no shutdown supervises it`
  )
  return drain
})
