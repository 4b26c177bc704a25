// Shows: probes on a listener of their own, a check of readiness, and a lame duck: two seconds in which load balancers learn to look away.
// Run: npm run example examples/06-health-and-lame-duck/main.ts; `curl localhost:3106/readyz` and `/livez`; `curl -X POST localhost:3006/plug`; Ctrl-C.
// See: POST /plug makes /readyz say 503 and name the database, and again 200. After Ctrl-C it says 503 while :3006 still answers, then that refuses; /livez says 200 to the end. Exit code 0.
import { NodeRuntime } from "@effect/platform-node"
import { Config, Context, Effect, Layer, Ref, Stream } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { Kms, KmsHealth, KmsHttp } from "effect-kms"
import { createServer } from "node:http"

// Stands for one that is elsewhere, and may be away.
class Database extends Context.Service<Database, { readonly isUp: Ref.Ref<boolean> }>()("Database") {
  static readonly layer = Layer.effect(
    Database,
    Effect.map(Ref.make(true), (isUp) => ({ isUp }))
  )
  static readonly ping = Effect.flatMap(Database, ({ isUp }) => Ref.get(isUp))
}

const Plug = HttpRouter.add(
  "POST",
  "/plug",
  Effect.gen(function* () {
    const { isUp } = yield* Database
    return HttpServerResponse.text((yield* Ref.updateAndGet(isUp, (up) => !up)) ? "in\n" : "out\n")
  })
)

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
const Health = KmsHealth.serve({ checks: { database: Database.ping } }).pipe(
  Layer.provide(
    KmsHttp.layerConfig(createServer, {
      port: Config.withDefault(Config.Int("HEALTH_PORT"), 3106),
      drainOn: Config.succeed("release" as const)
    })
  )
)

const Api = HttpRouter.serve(Layer.mergeAll(Home, Upload, Plug)).pipe(
  Layer.provide(KmsHttp.layerConfig(createServer, { port: Config.withDefault(Config.Int("PORT"), 3006) })),
  Layer.provide(Layer.merge(Health, Phases)),
  Layer.provide(Database.layer)
)

Api.pipe(Kms.launch({ lameDuck: "2 seconds" }), NodeRuntime.runMain({ teardown: Kms.teardown }))
