/**
 * Health routes for whatever asks whether this process may get traffic, and whether it lives.
 *
 * **Details**
 *
 * Readiness is gone from the first moment of a shutdown, the lame duck included: that is how a load balancer learns to
 * look away while everything is still served. Liveness stays until the listener closes; a liveness probe that fails
 * during the drain makes Kubernetes kill the very pod that is finishing its work.
 *
 * Probes therefore belong on a listener of their own, with `drainOn: "release"`, beneath the application, which answers
 * until the very end: see `serve`. `layer` adds the same routes to the application's own router.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import type { HttpServer } from "effect/http/HttpServer"
import * as Layer from "effect/Layer"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { Kms } from "./internal/kms.ts"

/**
 * The paths of the health routes.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** Answers 200 for as long as its listener accepts. Default `/livez`. */
  readonly live?: HttpRouter.PathInput | undefined
  /** Answers 200 while the program runs, and 503 from the beginning of the shutdown. Default `/readyz`. */
  readonly ready?: HttpRouter.PathInput | undefined
}

/**
 * Adds two routes to the `HttpRouter`, each answering with a small JSON body that names the phase of the shutdown.
 *
 * **Gotchas**
 *
 * On the application's own listener the routes go away with it when the drain begins, liveness too: choose `serve` where
 * a failing liveness probe has consequences.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<never, never, HttpRouter.HttpRouter> =>
  HttpRouter.use((router) =>
    Effect.gen(function* () {
      const kms = yield* Kms
      const answer = (isReady: (phase: string) => boolean) =>
        Effect.sync(() => {
          const phase = SubscriptionRef.getUnsafe(kms.phases)._tag
          const ok = isReady(phase)
          return HttpServerResponse.jsonUnsafe({ status: ok ? "ok" : "unavailable", phase }, { status: ok ? 200 : 503 })
        })
      yield* router.add(
        "GET",
        options.live ?? "/livez",
        answer(() => true)
      )
      yield* router.add(
        "GET",
        options.ready ?? "/readyz",
        answer((phase) => phase === "Running")
      )
    })
  )

/**
 * Serves the two routes on a listener of their own.
 *
 * **Details**
 *
 * Requests are not logged: probes come every few seconds. Its router is its own: with Effect 4.1 an `HttpRouter.serve` that is provided to another one shares its routes with it,
 * in both directions, and the probes would be served on the application's port and the application on that of the probes.
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
 * @category layers
 * @since 0.1.0
 */
export const serve = (options?: Options): Layer.Layer<never, never, HttpServer> =>
  Layer.effectDiscard(
    Effect.flatMap(Effect.scope, (scope) =>
      // With a memo map of its own: one that is forked from the program's would find the program's router in that.
      Layer.buildWithMemoMap(
        HttpRouter.serve(layer(options), { disableLogger: true }),
        Layer.makeMemoMapUnsafe(),
        scope
      )
    )
  )
