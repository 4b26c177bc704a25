/**
 * The shutdown itself: supervises a program, and ends it without losing the work in flight.
 *
 * > Begin everywhere at once, drain while everything is alive, unwind in reverse, cut at the deadline.
 *
 * When there is a reason to end (a signal, an interruption, `Kms.shutdown`, an uncaught error, a layer that fails to
 * start), every listener stops taking new work at once. Then nothing is interrupted or closed until the requests,
 * connections and busy sections that are in flight have ended. Then scopes close as Effect always closes them, last
 * acquired first released. One deadline bounds all of it.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import type * as Runtime from "effect/Runtime"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { entered } from "./internal/busy.ts"
import * as Finalizer from "./internal/finalizer.ts"
import { CurrentSection } from "./internal/gate.ts"
import * as Grace from "./internal/grace.ts"
import { CurrentCarrier, ending } from "./internal/handler.ts"
import * as internal from "./internal/kms.ts"
import type { OptionError } from "./internal/options.ts"
import * as Outcome from "./internal/outcome.ts"
import { type Phase, Reason } from "./internal/phase.ts"
import { Process } from "./internal/process.ts"
import type { Status } from "./internal/report.ts"
import * as Settings from "./internal/settings.ts"
import type { Options } from "./internal/settings.ts"
import * as Startup from "./internal/startup.ts"
import * as supervisor from "./internal/supervisor.ts"

/**
 * The service behind this module. It is a `Context.Reference`: where no shutdown supervises the program, its default has
 * nothing to wait for, and everything here works all the same.
 *
 * For callbacks that cannot run an effect, `busyUnsafe` of the service takes a busy section and gives its release, or
 * `undefined` once nothing may begin any more.
 *
 * @category references
 * @since 0.1.0
 */
export const Kms: Context.Reference<internal.Service> = internal.Kms

/**
 * @category references
 * @since 0.1.0
 */
export type Kms = internal.Service

export type {
  /**
   * How far the shutdown is: `Running`, `LameDuck`, `Draining`, `Unwinding` or `Stopped`. Each after `Running` knows the
   * `reason`, the `deadline` in milliseconds since the epoch, and whether it was `forced`.
   *
   * @category models
   * @since 0.1.0
   */
  Phase,
  /**
   * Why the process ends: `Signal`, `Interrupted`, `Requested`, `Uncaught` or `Failed`. The first reason wins.
   *
   * @category models
   * @since 0.1.0
   */
  Reason
} from "./internal/phase.ts"

export type {
  /**
   * What a shutdown did. Every number in it was counted.
   *
   * @category models
   * @since 0.1.0
   */
  Report,
  /**
   * What is open: listeners, busy sections and finalizers that run.
   *
   * @category models
   * @since 0.1.0
   */
  Status
} from "./internal/report.ts"

export type {
  /**
   * The options of a shutdown.
   *
   * @category options
   * @since 0.1.0
   */
  Options
} from "./internal/settings.ts"

export type {
  /**
   * What every listener takes beside its own options.
   *
   * @category options
   * @since 0.1.0
   */
  DrainOptions
} from "./internal/drain.ts"

export {
  /**
   * An option with an invalid value. Its message names the option and the value.
   *
   * @category errors
   * @since 0.1.0
   */
  OptionError
} from "./internal/options.ts"

export {
  /**
   * The work was not done when the deadline came. Exit code 1; the report has been logged.
   *
   * @category errors
   * @since 0.1.0
   */
  ShutdownTimeout
} from "./internal/supervisor.ts"

const supervise = <A, E, R>(
  program: () => supervisor.Program<A, E, R>,
  options: Options = {}
): Effect.Effect<A, E | OptionError | supervisor.ShutdownTimeout, R> =>
  Effect.gen(function* () {
    const host = yield* Process
    const settings = yield* Effect.fromResult(Settings.decode(options, host))
    yield* Grace.check(settings, options.lameDuck !== undefined, host)
    return yield* supervisor.supervise(program(), settings)
  })

/**
 * Runs a layer until there is a reason to end, and then shuts it down gracefully. Takes the place of `Layer.launch`.
 *
 * **Details**
 *
 * The scope of the layer belongs to the shutdown, so that a start-up that fails unwinds under the deadline too, with
 * every listener that was open already draining.
 *
 * What is provided around it, with `Effect.provide`, is released after it. After a signal, an interruption or
 * `Kms.shutdown` that has what is left of `timeout` and `forceTimeout`; then the process exits with 1. A further signal ends
 * it at once meanwhile, as during the shutdown. Nothing bounds it where the program has failed or ended by itself, or was cut
 * without having been interrupted, since the failure is there to be handled; nor where `launch` runs in a fiber of its own.
 *
 * Of a start-up that fails inside `Layer.fresh`, or inside what `HttpRouter.serve` builds by itself, the shutdown hears once
 * what had been acquired there has been released. Should that hang, a signal is what ends it, under the deadline.
 *
 * Two variables, read through `Config` when it starts, say how long whoever ends the process waits before it kills:
 * `KMS_TERMINATION_GRACE_PERIOD` (`terminationGracePeriodSeconds` of Kubernetes, `TimeoutStopSec` of systemd) and
 * `KMS_PRE_STOP` (what a `preStop` hook takes of that before the signal). Each is a number of seconds, or a duration such
 * as `1 minute`; neither has a default. A shutdown that may take longer is warned of; an invalid value is an
 * `OptionError`. In Kubernetes there is a hint where `lameDuck` is not given.
 *
 * A clean end is an interruption, as that of `Layer.launch` is; `Kms.teardown` turns it into exit code 0. Past the
 * deadline it is `ShutdownTimeout`, or an interruption that `Kms.teardown` turns into 1.
 *
 * **Example** (A server that stops without losing a request)
 *
 * ```ts
 * import { NodeRuntime } from "@effect/platform-node"
 * import { Layer } from "effect"
 * import { HttpRouter, HttpServerResponse } from "effect/http"
 * import { Kms, KmsHttp } from "effect-kms"
 * import { createServer } from "node:http"
 *
 * const Api = HttpRouter.serve(HttpRouter.add("GET", "/", HttpServerResponse.text("Home"))).pipe(
 *   Layer.provide(KmsHttp.layer(createServer, { port: 3007 }))
 * )
 *
 * Api.pipe(
 *   Kms.launch({ timeout: "25 seconds", lameDuck: "5 seconds" }),
 *   NodeRuntime.runMain({ teardown: Kms.teardown })
 * )
 * ```
 *
 * @see {@link listen} to supervise an effect
 * @category running
 * @since 0.1.0
 */
export const launch: {
  (
    options?: Options
  ): <A, E, R>(layer: Layer.Layer<A, E, R>) => Effect.Effect<never, E | OptionError | supervisor.ShutdownTimeout, R>
  <A, E, R>(
    layer: Layer.Layer<A, E, R>,
    options?: Options
  ): Effect.Effect<never, E | OptionError | supervisor.ShutdownTimeout, R>
} = dual(
  (args) => Layer.isLayer(args[0]),
  <A, E, R>(
    layer: Layer.Layer<A, E, R>,
    options?: Options
  ): Effect.Effect<never, E | OptionError | supervisor.ShutdownTimeout, R> =>
    supervise(() => {
      const scope = Scope.makeUnsafe()
      return {
        run: Effect.andThen(Startup.build(layer, scope), Effect.never),
        release: (exit) => Scope.close(scope, exit)
      }
    }, options)
)

/**
 * As `launch`, with options read from `Config`.
 *
 * **Example** (A lame duck that the deployment sets)
 *
 * ```ts
 * import { NodeRuntime } from "@effect/platform-node"
 * import { Config, Layer } from "effect"
 * import { HttpRouter, HttpServerResponse } from "effect/http"
 * import { Kms, KmsHttp } from "effect-kms"
 * import { createServer } from "node:http"
 *
 * const Api = HttpRouter.serve(HttpRouter.add("GET", "/", HttpServerResponse.text("Home"))).pipe(
 *   Layer.provide(KmsHttp.layerConfig(createServer, { port: Config.Int("PORT").pipe(Config.withDefault(3007)) }))
 * )
 *
 * Api.pipe(
 *   Kms.launchConfig({ lameDuck: Config.Duration("LAME_DUCK").pipe(Config.withDefault("5 seconds")) }),
 *   NodeRuntime.runMain({ teardown: Kms.teardown })
 * )
 * ```
 *
 * @category running
 * @since 0.1.0
 */
export const launchConfig: {
  (
    options: Config.Wrap<Options>
  ): <A, E, R>(
    layer: Layer.Layer<A, E, R>
  ) => Effect.Effect<never, E | Config.ConfigError | OptionError | supervisor.ShutdownTimeout, R>
  <A, E, R>(
    layer: Layer.Layer<A, E, R>,
    options: Config.Wrap<Options>
  ): Effect.Effect<never, E | Config.ConfigError | OptionError | supervisor.ShutdownTimeout, R>
} = dual(
  2,
  <A, E, R>(
    layer: Layer.Layer<A, E, R>,
    options: Config.Wrap<Options>
  ): Effect.Effect<never, E | Config.ConfigError | OptionError | supervisor.ShutdownTimeout, R> =>
    Effect.flatMap(Config.unwrap(options), (options) => launch(layer, options))
)

/**
 * Runs an effect, and shuts it down gracefully when there is a reason to end. The counterpart of `kms.Listen` and
 * `kms.ListenTimeout`.
 *
 * **Details**
 *
 * An effect that ends by itself gives its result, as soon as the busy sections that it left behind have ended. Otherwise
 * it ends as `launch` does.
 *
 * **Gotchas**
 *
 * An effect that fails has unwound its own scopes before this function can know: the deadline begins after that.
 * `launch` has no such gap.
 *
 * @category running
 * @since 0.1.0
 */
export const listen: {
  (
    options?: Options
  ): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | OptionError | supervisor.ShutdownTimeout, R>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    options?: Options
  ): Effect.Effect<A, E | OptionError | supervisor.ShutdownTimeout, R>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    options?: Options
  ): Effect.Effect<A, E | OptionError | supervisor.ShutdownTimeout, R> =>
    // Whether an effect is ready for work only it can tell.
    supervise(() => ({ run: Effect.andThen(Startup.started, self), release: () => Effect.void }), options)
)

/**
 * As `listen`, with options read from `Config`.
 *
 * @category running
 * @since 0.1.0
 */
export const listenConfig: {
  (
    options: Config.Wrap<Options>
  ): <A, E, R>(
    self: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | Config.ConfigError | OptionError | supervisor.ShutdownTimeout, R>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    options: Config.Wrap<Options>
  ): Effect.Effect<A, E | Config.ConfigError | OptionError | supervisor.ShutdownTimeout, R>
} = dual(
  2,
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    options: Config.Wrap<Options>
  ): Effect.Effect<A, E | Config.ConfigError | OptionError | supervisor.ShutdownTimeout, R> =>
    Effect.flatMap(Config.unwrap(options), (options) => listen(self, options))
)

/**
 * Completes with the reason when the drain begins, after a lame duck. Never, where no shutdown supervises the program.
 * The counterpart of `kms.ShutdownInitiated`.
 *
 * @category accessors
 * @since 0.1.0
 */
export const initiated: Effect.Effect<Reason> = Effect.flatMap(Kms, (kms) => Deferred.await(kms.initiated))

/**
 * Completes when whatever this fiber works for begins to drain: inside the handler of a connection or a request, when its
 * listener does, be it with the shutdown, with its own scope or as one of several that are served; anywhere else, when the
 * shutdown does. For handlers that wait for something with no end of its own: the next line of a peer, a long poll.
 *
 * **Gotchas**
 *
 * What a peer has sent by then may still be on its way. A handler that leaves at once is right where its peer knows, by a
 * goodbye or from the protocol, that whatever has not been answered may be repeated.
 *
 * @see {@link initiated} for the reason of the shutdown
 * @category accessors
 * @since 0.1.0
 */
export const draining: Effect.Effect<void> = Effect.withFiber((fiber) => {
  const carrier = fiber.getRef(CurrentCarrier)
  const shutdown = Effect.asVoid(initiated)
  return carrier === undefined ? shutdown : ending(carrier, shutdown)
})

/**
 * Starts the shutdown from inside the program. Dies where no shutdown supervises it.
 *
 * @category running
 * @since 0.1.0
 */
export const shutdown = (message?: string): Effect.Effect<void> =>
  Effect.flatMap(Kms, (kms) =>
    kms.supervised
      ? Effect.sync(() => kms.begin(Reason.Requested({ message })))
      : Effect.die(new Error("Kms.shutdown: no shutdown supervises this program. Run it with Kms.launch or Kms.listen"))
  )

/**
 * How far the shutdown is.
 *
 * @category accessors
 * @since 0.1.0
 */
export const phase: Effect.Effect<Phase> = Effect.flatMap(Kms, (kms) => SubscriptionRef.get(kms.phases))

/**
 * The phase, and every one that follows.
 *
 * @category accessors
 * @since 0.1.0
 */
export const changes: Stream.Stream<Phase> = Stream.unwrap(
  Effect.map(Kms, (kms) => SubscriptionRef.changes(kms.phases))
)

/**
 * What is open now, and how much is in flight.
 *
 * @category accessors
 * @since 0.1.0
 */
export const status: Effect.Effect<Status> = Effect.map(Kms, (kms) => kms.status())

/**
 * What a busy section does when the drain has begun.
 *
 * @category options
 * @since 0.1.0
 */
export interface BusyOptions {
  /**
   * Whether a new section may begin once the drain has begun. `"admit"` (default): until every listener has been drained
   * and every section begun before that has ended, and for one more turn of the event loop, since one of them may have
   * handed it on. `"park"`: only inside a live section; for sources of work, such as cron loops and queue consumers. A
   * section that may not begin waits, and is interrupted when the program unwinds.
   */
  readonly onDrain?: "admit" | "park" | undefined
}

/**
 * Marks work that a shutdown must not cut short: while it runs, nothing unwinds. The counterpart of `kms.Wait` and
 * `Done`.
 *
 * **Details**
 *
 * It is a counter and a gate: it forks and masks nothing, so any other interruption passes through as usual. The
 * deadline ends it, as it ends everything. A request on a listener with `drainOn: "release"` goes on without one once
 * no section may begin any more: its listener waits for it.
 *
 * **Gotchas**
 *
 * What is only in a queue is not in a section. A request or section that hands a job on during the drain has it admitted
 * if the job begins within a turn of the event loop; a worker that may be busy with another one needs `busyScoped`, taken
 * before the hand-over and released after the job. A section that began when every listener had been drained already can
 * hand nothing on.
 *
 * **Example** (A job that is finished before its database closes)
 *
 * ```ts
 * import { Effect, Schedule } from "effect"
 * import { Kms } from "effect-kms"
 *
 * const job = Effect.log("writing the report").pipe(
 *   Kms.busy("report", { onDrain: "park" }),
 *   Effect.repeat(Schedule.spaced("1 minute"))
 * )
 * ```
 *
 * @category resource management
 * @since 0.1.0
 */
export const busy =
  (name: string, options?: BusyOptions) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    entered(name, options, (leave, section, restore) =>
      Effect.onExit(restore(section === undefined ? self : Effect.provideService(self, CurrentSection, section)), () =>
        Effect.sync(leave)
      )
    )

/**
 * A busy section that lasts until the scope closes: taken in one fiber, it may be released in another.
 *
 * @category resource management
 * @since 0.1.0
 */
export const busyScoped = (name: string, options?: BusyOptions): Effect.Effect<void, never, Scope.Scope> =>
  entered(name, options, (leave) => Effect.addFinalizer(() => Effect.sync(leave)))

/**
 * The options of a finalizer with a name.
 *
 * @category options
 * @since 0.1.0
 */
export interface FinalizerOptions {
  /**
   * How long it may take before it is abandoned, so that what is beneath it can be released. Longer than zero. With a
   * timeout it is abandoned at the cut, too. Default: no limit but the end of `forceTimeout`.
   */
  readonly timeout?: Duration.Input | undefined
}

/**
 * Adds a finalizer that has a name in the report, and may have a timeout of its own.
 *
 * Dies with `OptionError` if the timeout is not a duration longer than zero.
 *
 * @category resource management
 * @since 0.1.0
 */
export const addFinalizer = <R>(
  name: string,
  finalizer: (exit: Exit.Exit<unknown, unknown>) => Effect.Effect<void, never, R>,
  options?: FinalizerOptions
): Effect.Effect<void, never, R | Scope.Scope> => Finalizer.add(name, options?.timeout, finalizer)

/**
 * Gives the release of a whole layer a name in the report, and maybe a timeout of its own.
 *
 * Dies with `OptionError` if the timeout is not a duration longer than zero.
 *
 * @category resource management
 * @since 0.1.0
 */
export const layerNamed =
  (name: string, options?: FinalizerOptions) =>
  <A, E, R>(layer: Layer.Layer<A, E, R>): Layer.Layer<A, E, R> =>
    Finalizer.layer(name, options?.timeout, layer)

/**
 * The end of the process, for `runMain`: exit code 0 after a graceful shutdown, 1 after a cut, an uncaught error or a
 * failure (or the code that an error asks for with `Runtime.errorExitCode`). Where no shutdown supervises the program
 * nobody knows of a cut but the log.
 *
 * **Details**
 *
 * It waits until stdout and stderr have been written, within what is left of `forceTimeout`, and then ends the process
 * itself, also with code 0: a timer or socket that the program left open does not keep it alive.
 *
 * Without it the drain is the same, but `runMain` exits with 130 after a signal, and may cut the last lines off a pipe.
 *
 * @category running
 * @since 0.1.0
 */
export const teardown: Runtime.Teardown = Outcome.teardown(() => Process.defaultValue())
