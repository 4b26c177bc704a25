// Shows: a pod that ends without losing a request. Its Dockerfile and deployment.yaml are beside it; README.md has the numbers.
// Run: npm run example examples/kubernetes/main.ts; then `curl localhost:3000/slow`, and Ctrl-C while it waits.
// See: for five seconds 503 from localhost:9000/readyz while localhost:3000 still answers, then that refuses. Exit code 0.
import { NodeRuntime } from "@effect/platform-node"
import { Config, Effect, Layer } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { Kms, KmsHealth, KmsHttp } from "effect-kms"
import { createServer } from "node:http"
import { health, shutdown } from "./shutdown.ts"

const Home = HttpRouter.add("GET", "/", HttpServerResponse.text("Home\n"))
const Slow = HttpRouter.add(
  "GET",
  "/slow",
  Effect.delay(Effect.succeed(HttpServerResponse.text("Worth the wait\n")), "8 seconds")
)

// As a query would be that shows whether the database answers.
const ping = Effect.sleep("10 millis")

// For the kubelet, which is not to be refused as long as anything here is at work.
const Health = KmsHealth.serve({ ...health, checks: { database: ping } }).pipe(
  Layer.provide(
    KmsHttp.layerConfig(createServer, {
      port: Config.withDefault(Config.Int("HEALTH_PORT"), 9000),
      drainOn: Config.succeed("release" as const)
    })
  )
)

const Api = HttpRouter.serve(Layer.merge(Home, Slow)).pipe(
  Layer.provide(KmsHttp.layerConfig(createServer, { port: Config.withDefault(Config.Int("PORT"), 3000) })),
  Layer.provide(Health)
)

Api.pipe(Kms.launch(shutdown), NodeRuntime.runMain({ teardown: Kms.teardown }))
