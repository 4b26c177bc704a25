// Shows: the smallest server that stops without losing the requests in flight.
// Run: npm run example examples/01-http/main.ts; in another terminal `curl localhost:3001`, then press Ctrl-C here.
// See: the shutdown says why it began, what is open and how it ended. The exit code is 0.
import { NodeRuntime } from "@effect/platform-node"
import { Config, Layer } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { Kms, KmsHttp } from "effect-kms"
import { createServer } from "node:http"

const Api = HttpRouter.serve(HttpRouter.add("GET", "/", HttpServerResponse.text("Home"))).pipe(
  Layer.provide(KmsHttp.layerConfig(createServer, { port: Config.withDefault(Config.Int("PORT"), 3001) }))
)

Api.pipe(Kms.launch(), NodeRuntime.runMain({ teardown: Kms.teardown }))
