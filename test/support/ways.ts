/**
 * The ways in which a program that listens comes to its end: each starts the same layer, begins its end when told to, and
 * says how it ended. What a peer sees must not depend on which it was.
 */
import { Cause, Context, Deferred, Effect, Exit, Fiber, Layer, Logger, Scope } from "effect"
import { Kms } from "effect-kms"
import type { Server } from "node:net"
import { Process } from "../../src/internal/process.ts"
import { Outcome } from "../../src/internal/outcome.ts"
import { make as makeHost } from "./host.ts"

export interface Ended {
  readonly exit: Exit.Exit<unknown, unknown>
  /** With which code the process would end, as a shutdown has it. */
  readonly code: number | undefined
  /** What a shutdown told of itself. */
  readonly report: Kms.Report | undefined
  readonly log: ReadonlyArray<string>
  readonly at: number
}

export interface Program {
  /** Begins the end, in this tick. */
  readonly begin: () => void
  readonly ended: Effect.Effect<Ended>
  readonly isEnded: () => boolean
}

/** Limits, in milliseconds. Only those of a shutdown are heard of by it alone. */
export interface Limits {
  readonly timeout?: number
  readonly forceTimeout?: number
  readonly lameDuck?: number
}

export interface Way {
  readonly name: string
  /** Whether a shutdown supervises the program. */
  readonly supervised: boolean
  /** Completes when the layer has been built. What goes on is ended with the scope. */
  readonly start: (layer: Layer.Layer<never, unknown>, limits?: Limits) => Effect.Effect<Program, never, Scope.Scope>
}

interface Running {
  readonly begin: () => void
  readonly exit: Effect.Effect<Exit.Exit<unknown, unknown>>
}

interface Told {
  report: Kms.Report | undefined
}

/** What the program knows once it runs. */
type Inside = Context.Context<never>

type Log = ReadonlySet<Logger.Logger<unknown, void>>

const way = (
  name: string,
  supervised: boolean,
  run: (
    layer: Layer.Layer<never, unknown>,
    options: Kms.Options,
    logger: Log,
    inside: () => Inside
  ) => Effect.Effect<Running, unknown>
): Way => ({
  name,
  supervised,
  start: (layer, limits = {}) =>
    Effect.gen(function* () {
      const ready = yield* Deferred.make<Inside>()
      const told: Told = { report: undefined }
      const log: Array<string> = []
      const logger: Log = new Set([Logger.make(({ message }) => void log.push(String(message)))])
      const options: Kms.Options = {
        signals: [],
        uncaught: false,
        ...limits,
        onStopped: (report) => Effect.sync(() => void (told.report = report))
      }
      let inside: Inside = Context.empty()
      const program = Layer.effectDiscard(
        Effect.flatMap(Effect.context<never>(), (context) => Deferred.succeed(ready, context))
      ).pipe(Layer.provide(layer))
      const running = yield* Effect.orDie(run(program, options, logger, () => inside))
      const done = yield* Deferred.make<Ended>()
      yield* running.exit.pipe(
        Effect.map((exit): Ended => ({ exit, code: codeOf(exit), report: told.report, log, at: performance.now() })),
        Effect.flatMap((ended) => Deferred.succeed(done, ended)),
        Effect.forkDetach
      )
      yield* Effect.addFinalizer(() =>
        Effect.suspend(() => {
          running.begin()
          return Deferred.await(done)
        })
      )
      inside = yield* Effect.raceFirst(
        Deferred.await(ready),
        Effect.flatMap(Deferred.await(done), ({ exit }) =>
          Effect.die(new Error(`The program did not start: ${Exit.isFailure(exit) ? Cause.pretty(exit.cause) : ""}`))
        )
      )
      return { begin: running.begin, ended: Deferred.await(done), isEnded: () => Deferred.isDoneUnsafe(done) }
    })
})

const codeOf = (exit: Exit.Exit<unknown, unknown>): number | undefined => {
  if (Exit.isSuccess(exit)) return undefined
  return Context.getOrUndefined(Cause.annotations(exit.cause) as Context.Context<Outcome>, Outcome)?.code
}

/** Runs an effect as the root of a program of its own. */
const root = <E>(self: Effect.Effect<unknown, E>, logger: Log): Running => {
  const fiber = Effect.runFork(Effect.provideService(self, Logger.CurrentLoggers, logger))
  return { begin: () => fiber.interruptUnsafe(), exit: Fiber.await(fiber) }
}

export const launchSignal = way("Kms.launch and a signal", true, (layer, options, logger) =>
  Effect.sync(() => {
    const host = makeHost()
    // The turns of the event loop are real: the sockets are.
    const process = { ...host.process, turn: Process.defaultValue().turn }
    const launched = Effect.provideService(Kms.launch(layer, { ...options, signals: ["SIGTERM"] }), Process, process)
    return { ...root(launched, logger), begin: () => void host.signal("SIGTERM") }
  })
)

export const launchInterrupted = way("Kms.launch, interrupted", true, (layer, options, logger) =>
  Effect.sync(() => root(Kms.launch(layer, options), logger))
)

export const listenShutdown = way("Kms.listen and Kms.shutdown", true, (layer, options, logger, inside) =>
  Effect.sync(() => ({
    ...root(Kms.listen(Layer.launch(layer), options), logger),
    begin: () => void Effect.runForkWith(inside())(Kms.shutdown())
  }))
)

export const scopeCloses = way("no Kms, its scope closes", false, (layer, _options, logger) =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    yield* Effect.provideService(Layer.buildWithScope(layer, scope), Logger.CurrentLoggers, logger)
    const closed = yield* Deferred.make<Exit.Exit<void>>()
    return { begin: () => close(scope, closed), exit: Deferred.await(closed) }
  })
)

const close = (scope: Scope.Closeable, closed: Deferred.Deferred<Exit.Exit<void>>): void => {
  if (scope.state._tag === "Closed") return
  Effect.runFork(Scope.close(scope, Exit.void)).addObserver((exit) => Deferred.doneUnsafe(closed, Exit.succeed(exit)))
}

export const rootInterrupted = way("no Kms, its root interrupted", false, (layer, _options, logger) =>
  Effect.sync(() => root(Layer.launch(layer), logger))
)

export const supervised = [launchSignal, launchInterrupted, listenShutdown]

export const unsupervised = [scopeCloses, rootInterrupted]

export const ways = [...supervised, ...unsupervised]

/** Begins the end, and completes when the server has stopped listening: that is when its drain begins. */
export const drain = (program: Program, server: () => Server): Effect.Effect<void> =>
  Effect.suspend(() => {
    program.begin()
    return stopped(server())
  })

const stopped = (server: Server): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    let handle: NodeJS.Immediate
    const look = () => {
      if (server.listening) handle = setImmediate(look)
      else resume(Effect.void)
    }
    look()
    return Effect.sync(() => clearImmediate(handle))
  })
