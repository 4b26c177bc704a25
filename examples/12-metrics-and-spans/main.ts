// Shows: metrics that Prometheus can read to the very end, and a trace of the shutdown in whatever collects OTLP.
// Run: OTEL_TRACES_EXPORTER=otlp OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 npm run example examples/12-metrics-and-spans/main.ts; then `curl localhost:3012/slow`, Ctrl-C and `curl localhost:3112/metrics` meanwhile.
// See: kms_phase and kms_drained_total change as the request drains; the collector has the spans kms.shutdown, kms.drain (two) and kms.finalizer.
import { NodeRuntime } from "@effect/platform-node"
import { Config, Effect, Layer } from "effect"
import { FetchHttpClient, HttpRouter, HttpServerResponse } from "effect/http"
import { OtlpSerialization, OtlpTracer, PrometheusMetrics } from "effect/observability"
import { Kms, KmsHealth, KmsHttp } from "effect-kms"
import { createServer } from "node:http"

const port = (name: string, other: number) => Config.withDefault(Config.Int(name), other)

// Built on its own: `HttpRouter.serve` would share its routes with the application's.
const Operations = Layer.effectDiscard(
  Layer.build(HttpRouter.serve(Layer.merge(KmsHealth.layer(), PrometheusMetrics.layerHttp()), { disableLogger: true }))
).pipe(
  Layer.provide(
    KmsHttp.layerConfig(createServer, {
      port: port("METRICS_PORT", 3112),
      name: Config.succeed("operations"),
      drainOn: Config.succeed("release" as const)
    })
  )
)

const Database = Layer.effectDiscard(Kms.addFinalizer("database", () => Effect.sleep("1 second")))

const Api = HttpRouter.serve(
  HttpRouter.add("GET", "/slow", Effect.delay(Effect.succeed(HttpServerResponse.text("done\n")), "3 seconds"))
).pipe(
  Layer.provide(KmsHttp.layerConfig(createServer, { port: port("PORT", 3012), name: Config.succeed("api") })),
  Layer.provide(Database),
  Layer.provide(Operations)
)

// Around the launch, so that it is there for the span of the shutdown itself, and sends it before the process ends.
const Tracer = OtlpTracer.layerFromConfig({ resource: { serviceName: "effect-kms-example" } }).pipe(
  Layer.provide(OtlpSerialization.layerJson),
  Layer.provide(FetchHttpClient.layer)
)

Api.pipe(Kms.launch(), Effect.provide(Tracer), NodeRuntime.runMain({ teardown: Kms.teardown }))
