// Shows: KmsHttp alone, under Effect's own `Layer.launch`. Closing the layer is enough to drain its listener.
// Run: npm run example examples/00-layer-only/main.ts; in another terminal `curl localhost:3000/slow`, then press Ctrl-C here.
// See: curl gets its whole answer first, then the cache and the database are released. The exit code is Effect's, 130.
import { NodeRuntime } from "@effect/platform-node"
import { Config, Effect, Layer } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { KmsHttp } from "effect-kms"
import { createServer } from "node:http"

const resource = (name: string) =>
  Layer.effectDiscard(Effect.acquireRelease(Effect.log(`opened ${name}`), () => Effect.log(`released ${name}`)))

const Slow = HttpRouter.add(
  "GET",
  "/slow",
  Effect.gen(function* () {
    yield* Effect.log("slow: begun")
    yield* Effect.sleep("2 seconds")
    yield* Effect.log("slow: done")
    return HttpServerResponse.text("Worth the wait\n")
  })
)

const Api = HttpRouter.serve(Slow).pipe(
  Layer.provide(KmsHttp.layerConfig(createServer, { port: Config.withDefault(Config.Int("PORT"), 3000) })),
  Layer.provide(resource("cache")),
  Layer.provide(resource("database"))
)

Layer.launch(Api).pipe(NodeRuntime.runMain)
