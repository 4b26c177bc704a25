/**
 * What every listener on a server of Node's does alike: it keeps its connections, stops accepting, and counts. What it
 * does about the work on them is its own.
 */
import * as Data from "effect/Data"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type { Server } from "node:net"
import * as Bind from "./bind.ts"
import type { Connection, Timing } from "./connection.ts"
import { Connections } from "./connections.ts"
import * as Drain from "./drain.ts"
import { type Held, oldest, work } from "./held.ts"
import { inWords, millis, OptionError } from "./options.ts"
import { held } from "./place.ts"
import type { Process } from "./process.ts"
import type { Work } from "./report.ts"
import { Tally } from "./tally.ts"

/** How long connections may take to go, as users say it. */
export interface TimingOptions {
  readonly closeTimeout?: Duration.Input | undefined
  readonly quietPeriod?: Duration.Input | undefined
}

export const decodeTiming = (options: TimingOptions): Result.Result<Timing, OptionError> => {
  const limits = { zero: true, infinite: false }
  return Result.all({
    closeTimeout: millis("closeTimeout", options.closeTimeout ?? "1 second", limits),
    quietPeriod: millis("quietPeriod", options.quietPeriod ?? "500 millis", limits)
  })
}

export abstract class ServerListener implements Drain.Listener {
  readonly kind: string
  /** Known once it is bound. */
  name = ""
  address = ""
  protected readonly timing: Timing
  protected readonly registry: Connections
  protected readonly tally = new Tally()
  protected state: "open" | "leaving" | "draining" | "forced" = "open"
  private bound: Bind.Bound | undefined
  private drain: Drain.Drain | undefined

  constructor(kind: string, timing: Timing, host: Process) {
    this.kind = kind
    this.timing = timing
    this.registry = new Connections(timing, host, (connection) => this.onClose(connection))
  }

  protected abstract onClose(connection: Connection): void
  /** The drain begins: lets go of everything that has no work in flight. */
  protected abstract onBegin(warned: boolean): void
  /** What is left is cut. */
  protected abstract onForce(): void
  /** Handlers that run and that somebody waits for. */
  protected abstract readonly handlers: number
  /** Handlers that have not ended, those included that nobody waits for any longer. */
  protected abstract readonly unended: number
  abstract readonly inFlight: () => number
  /** What is in flight, and handlers that have not ended of connections that have gone, in any order. */
  protected abstract works(): Array<Held>

  /** It listens, and drains as `drain` says. */
  opened(bound: Bind.Bound, name: string | undefined): void {
    this.bound = bound
    this.address = bound.address
    this.name = name ?? `${this.kind} ${bound.address}`
  }

  drains(drain: Drain.Drain): void {
    this.drain = drain
    // It may have begun, and ended something, before anybody could be told.
    drain.worked()
  }

  /** Something has ended that a drain may wait for: work, or only a connection. */
  readonly worked = (): void => this.drain?.worked()
  protected readonly check = (): void => this.drain?.check()

  protected get isDraining(): boolean {
    return this.state === "draining" || this.state === "forced"
  }

  readonly lameDuck = (): void => {
    if (this.state !== "open") return
    this.state = "leaving"
    this.onLameDuck()
  }

  protected onLameDuck(): void {}

  readonly begin = (): void => {
    if (this.isDraining) return
    const warned = this.state === "leaving"
    this.state = "draining"
    this.registry.draining = true
    this.bound?.stop()
    this.onBegin(warned)
  }

  readonly force = (): void => {
    if (this.state === "forced") return
    this.begin()
    this.state = "forced"
    this.onForce()
  }

  readonly accepted = (): number => this.registry.accepted
  readonly connections = (): number => this.registry.all.size
  readonly isEmpty = (): boolean => this.registry.all.size === 0 && this.handlers === 0
  readonly isQuiet = (): boolean => this.handlers === 0 && this.inFlight() === 0

  readonly oldest = (limit: number): ReadonlyArray<Work> => {
    return oldest(this.works(), limit).map(work)
  }

  readonly held = (): ReadonlyArray<string> => {
    const all = this.works()
    const named = oldest(all, max).map((each) => {
      const { age, peer, what } = work(each)
      return held(`${this.name}: ${what} from ${peer}`, age, each.fiber)
    })
    return all.length > max ? [...named, `${this.name}: ${all.length - max} more`] : named
  }

  readonly counts = () => ({
    drained: this.tally.drained,
    cut: this.tally.cut,
    abandoned: this.state === "forced" ? this.unended : 0,
    cutWork: this.tally.cutWork
  })
}

/** As many are named; of more than that, how many. */
const max = 100

/**
 * Binds `server`, which `listener` is attached to, and puts it under the shutdown and under the current scope. `release`
 * runs when the drain is over.
 */
export const listen = Effect.fnUntraced(function* (
  listener: ServerListener,
  server: Server,
  options: Bind.Options & { readonly name?: string | undefined },
  drainOptions: Drain.Options,
  release: (exit: Exit.Exit<unknown, unknown>) => Effect.Effect<void>
): Effect.fn.Return<Drain.Drain, Bind.BindError, Scope.Scope> {
  return yield* Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const binding = restore(Bind.listen(server, options))
      listener.opened(yield* Effect.onError(binding, () => Effect.sync(() => server.close())), options.name)
      const run = Effect.runForkWith(yield* Effect.context<never>())
      // A connection could not be accepted: the listener goes on.
      server.on("error", ({ message }) => void run(Effect.logWarning(`${listener.name}: ${message}`)))
      yield* Effect.addFinalizer(release)
      const drain = yield* Drain.make(listener, drainOptions)
      listener.drains(drain)
      return drain
    })
  )
})

/** Whether `server` may be listened with. */
export const isUnused = (server: Server): Result.Result<void, OptionError> =>
  server.listening
    ? Result.fail(
        new OptionError({ option: "evaluate", value: Bind.bound(server, {}), problem: "the server listens already" })
      )
    : Result.succeed(undefined)

/** There is no server to listen with, since whoever was to make it threw: for a certificate that is none, say. */
export class MakeError extends Data.TaggedError("MakeError")<{ readonly kind: string; readonly cause: unknown }> {
  override get message(): string {
    return `Cannot make the ${this.kind} server: ${this.cause instanceof Error ? this.cause.message : inWords(this.cause)}`
  }
}
