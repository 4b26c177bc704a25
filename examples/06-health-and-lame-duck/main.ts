// Shows: probes on a listener of their own, and a lame duck: two seconds in which load balancers learn to look away.
// Run: npm run example examples/06-health-and-lame-duck/main.ts; then watch `curl localhost:3106/readyz` and `/livez` after Ctrl-C.
// See: first 503 from /readyz while localhost:3006 still answers, then that refuses; /livez says 200 to the end. Exit code 0.
import { NodeRuntime } from "@effect/platform-node"
import { Config, Effect, Layer, Stream } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { Kms, KmsHealth, KmsHttp } from "effect-kms"
import { createServer } from "node:http"

// To hold the drain for a while: (echo hello; sleep 10) | curl -T - localhost:3006/upload
const Upload = HttpRouter.add(
  "PUT",
  "/upload",
  Effect.gen(function* () {
    const request = yield* HttpServerRequest.HttpServerRequest
    yield* Effect.log("upload: begun")
    const bytes = yield* request.arrayBuffer
    return HttpServerResponse.text(`${bytes.byteLength} bytes\n`)
  })
)

const Home = HttpRouter.add("GET", "/", HttpServerResponse.text("Home\n"))

const Phases = Layer.effectDiscard(
  Kms.changes.pipe(
    Stream.runForEach((phase) => Effect.log(`phase: ${phase._tag}`)),
    Effect.forkScoped
  )
)

// Beneath the application and with a drain of its own, so that it answers as long as the application has anything to do.
const Health = KmsHealth.serve().pipe(
  Layer.provide(
    KmsHttp.layerConfig(createServer, {
      port: Config.withDefault(Config.Int("HEALTH_PORT"), 3106),
      drainOn: Config.succeed("release" as const)
    })
  )
)

const Api = HttpRouter.serve(Layer.merge(Home, Upload)).pipe(
  Layer.provide(KmsHttp.layerConfig(createServer, { port: Config.withDefault(Config.Int("PORT"), 3006) })),
  Layer.provide(Layer.merge(Health, Phases))
)

Api.pipe(Kms.launch({ lameDuck: "2 seconds" }), NodeRuntime.runMain({ teardown: Kms.teardown }))
