/**
 * Health routes for whatever asks whether this process may get traffic, and whether it lives.
 *
 * **Details**
 *
 * Readiness begins when the layers of the program have been built, and is gone from the first moment of a shutdown, the
 * lame duck included: that is how a load balancer learns to look away while everything is still served. In between it is
 * what the application's own `checks` say. Liveness stays until the listener closes; a liveness probe that fails during
 * the drain makes Kubernetes kill the very pod that is finishing its work, and one that depends on a database makes it
 * restart every pod when the database is away.
 *
 * Probes therefore belong on a listener of their own, with `drainOn: "release"`, beneath the application, which answers
 * from before the application is built until the very end: see `serve`. `layer` adds the same routes to the application's
 * own router.
 *
 * @since 0.1.0
 */
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import type { HttpServer } from "effect/http/HttpServer"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Checks from "./internal/checks.ts"
import { Kms } from "./internal/kms.ts"
import { OptionError } from "./internal/options.ts"

export type {
  /**
   * A question that the application answers about itself. It says no by failing in whatever way, by giving `false`, or by
   * not ending in time.
   *
   * @category models
   * @since 0.1.0
   */
  Check,
  /**
   * A check with times of its own.
   *
   * @category models
   * @since 0.1.0
   */
  CheckWithOptions
} from "./internal/checks.ts"

/**
 * The paths of the health routes, and what readiness depends on.
 *
 * `Services` are those that each check needs, by its name.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<Services extends Readonly<Record<string, unknown>> = Readonly<Record<string, never>>> {
  /** Answers 200 for as long as its listener accepts. Default `/livez`. */
  readonly live?: HttpRouter.PathInput | undefined
  /**
   * Answers 200 while the program runs and every check is ok. 503 before its layers have been built, when a check is not
   * ok, and from the beginning of the shutdown. Default `/readyz`.
   */
  readonly ready?: HttpRouter.PathInput | undefined
  /**
   * What has to be ok for the program to be ready, by name. Default: nothing.
   *
   * The names are in the answers, so they should be fit to be seen. What a check failed with is only in the log.
   */
  readonly checks?: { readonly [Name in keyof Services]: Checks.Check<Services[Name]> } | undefined
  /**
   * How long a check may take. Longer than zero. Default 800 milliseconds, since a probe of Kubernetes gives up after 1
   * second.
   */
  readonly checkTimeout?: Duration.Input | undefined
  /**
   * How long the answer of a check holds, from when it was known. With zero only those who ask while it runs share one.
   * Default 1 second.
   */
  readonly cacheFor?: Duration.Input | undefined
}

/**
 * Adds two routes to the `HttpRouter`, each answering with a small JSON body that names the phase of the shutdown.
 *
 * **Details**
 *
 * The body has a `status`, `"ok"` or `"unavailable"`, and a `phase`: that of `Kms.phase`, or `"Starting"` before the
 * layers of a program under `Kms.launch` have been built. Where there are checks and the program runs, `checks` says
 * `"ok"`, `"failed"` or `"timed out"` of each, and nothing more. `HEAD` is answered as `GET`. No answer may be stored.
 *
 * The checks run side by side, in fibers of their own, with the services that the layer is built with. Each is run once
 * at a time, however many probes ask, and a probe that goes away ends nothing. A check that does not end in time is
 * interrupted, and counts as timed out; it is not begun again before it has ended. Outside the phase `Running` no check
 * is run. A check that needs a `Scope` has one for each run.
 *
 * When a check begins to fail a warning with the cause is logged, and an info when it is ok again.
 *
 * Fails with `OptionError` if an option is invalid.
 *
 * **Gotchas**
 *
 * On the application's own listener the routes go away with it when the drain begins, liveness too: choose `serve` where
 * a failing liveness probe has consequences.
 *
 * A check that never lets the event loop turn delays every answer, whatever its timeout.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <Services extends Readonly<Record<string, unknown>> = Readonly<Record<string, never>>>(
  options: Options<Services> = {}
): Layer.Layer<never, OptionError, HttpRouter.HttpRouter | Exclude<Services[keyof Services], Scope.Scope>> =>
  Layer.effectDiscard(Effect.flatMap(make(options), (add) => Effect.flatMap(HttpRouter.HttpRouter, add)))

/** Checks the options, and gives what adds the routes to a router. */
const make = Effect.fnUntraced(function* <Services extends Readonly<Record<string, unknown>>>(
  options: Options<Services>
): Effect.fn.Return<
  (router: HttpRouter.HttpRouter) => Effect.Effect<void>,
  OptionError,
  Exclude<Services[keyof Services], Scope.Scope> | Scope.Scope
> {
  const { live, ready } = yield* Effect.fromResult(decode(options))
  const kms = yield* Kms
  const { verdicts } = yield* Checks.make(options as Checks.Options)

  const phase = () => {
    const { _tag } = SubscriptionRef.getUnsafe(kms.phases)
    return _tag === "Running" && !Deferred.isDoneUnsafe(kms.started) ? "Starting" : _tag
  }
  const whileRunning = (reply: () => Effect.Effect<HttpServerResponse.HttpServerResponse>) =>
    Effect.suspend(() => (phase() === "Running" ? reply() : Effect.succeed(answer(false, phase()))))

  const isLive = Effect.sync(() => answer(true, phase()))
  const isReady = whileRunning(() =>
    Effect.flatMap(verdicts, (checks) =>
      // The shutdown may have begun meanwhile.
      whileRunning(() => {
        const ok = Object.values(checks).every((verdict) => verdict === "ok")
        return Effect.succeed(answer(ok, "Running", checks))
      })
    )
  )
  // A router would answer HEAD with what it has for GET, but not where the application has a route for every method.
  const both = (path: HttpRouter.PathInput, handler: typeof isLive) => [
    HttpRouter.route("GET", path, handler),
    HttpRouter.route("HEAD", path, handler)
  ]
  return (router) => router.addAll([...both(live, isLive), ...both(ready, isReady)])
})

const answer = (ok: boolean, phase: string, checks: Checks.Verdicts = {}): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.jsonUnsafe(
    { status: ok ? "ok" : "unavailable", phase, ...(Object.keys(checks).length === 0 ? {} : { checks }) },
    { status: ok ? 200 : 503, headers: { "cache-control": "no-store" } }
  )

const decode = ({ live = "/livez", ready = "/readyz" }: Pick<Options, "live" | "ready">) => {
  for (const [option, value] of Object.entries({ live, ready })) {
    if (value !== "*" && !(typeof value === "string" && value.startsWith("/")))
      return Result.fail(new OptionError({ option, value, problem: "a path begins with a slash" }))
  }
  return live === ready
    ? Result.fail(new OptionError({ option: "ready", value: ready, problem: "it is the path of live, too" }))
    : Result.succeed({ live, ready })
}

/**
 * Serves the two routes on a listener of their own.
 *
 * **Details**
 *
 * What they answer, and how checks run, is as with `layer`. Beneath the application it answers while that is being built,
 * and a start-up that takes long is seen as a program that lives and is not ready.
 *
 * Requests are not logged: probes come every few seconds. Its router is its own: with Effect 4.1 an `HttpRouter.serve`
 * that is provided to another one shares its routes with it, in both directions, and the probes would be served on the
 * application's port and the application on that of the probes.
 *
 * **Gotchas**
 *
 * What its checks need is built before it listens: until then probes are refused.
 *
 * **Example** (Probes that outlive the application's listener)
 *
 * ```ts
 * import { NodeRuntime } from "@effect/platform-node"
 * import { Layer } from "effect"
 * import { HttpRouter, HttpServerResponse } from "effect/http"
 * import { Kms, KmsHealth, KmsHttp } from "effect-kms"
 * import { createServer } from "node:http"
 *
 * const Health = KmsHealth.serve().pipe(
 *   Layer.provide(KmsHttp.layer(createServer, { port: 9000, drainOn: "release" }))
 * )
 *
 * const Api = HttpRouter.serve(HttpRouter.add("GET", "/", HttpServerResponse.text("Home"))).pipe(
 *   Layer.provide(KmsHttp.layer(createServer, { port: 3007 })),
 *   Layer.provide(Health)
 * )
 *
 * Api.pipe(Kms.launch({ lameDuck: "5 seconds" }), NodeRuntime.runMain({ teardown: Kms.teardown }))
 * ```
 *
 * **Example** (Not ready while the database does not answer)
 *
 * ```ts
 * import { Context, Effect, Layer } from "effect"
 * import { KmsHealth, KmsHttp } from "effect-kms"
 * import { createServer } from "node:http"
 *
 * class Database extends Context.Service<Database, { readonly ping: Effect.Effect<void, Error> }>()("Database") {}
 * class Cache extends Context.Service<Cache, { readonly isWarm: Effect.Effect<boolean> }>()("Cache") {}
 *
 * // Needs both, and the HttpServer.
 * const Health = KmsHealth.serve({
 *   checks: {
 *     database: Effect.flatMap(Database, (database) => database.ping),
 *     cache: { check: Effect.flatMap(Cache, (cache) => cache.isWarm), timeout: "100 millis", cacheFor: "10 seconds" }
 *   }
 * })
 *
 * export const OnItsOwn = Layer.provide(Health, KmsHttp.layer(createServer, { port: 9000, drainOn: "release" }))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const serve = <Services extends Readonly<Record<string, unknown>> = Readonly<Record<string, never>>>(
  options: Options<Services> = {}
): Layer.Layer<never, OptionError, HttpServer | Exclude<Services[keyof Services], Scope.Scope>> =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const add = yield* make(options)
      // With a memo map of its own: one that is forked from the program's would find the program's router in that.
      yield* Layer.buildWithMemoMap(
        HttpRouter.serve(HttpRouter.use(add), { disableLogger: true }),
        Layer.makeMemoMapUnsafe(),
        yield* Effect.scope
      )
    })
  )
