// Shows: TLS. One application on node:https, and on node:http2, which answers HTTP/1.1 clients too.
// Run: npm run example examples/03-https-and-http2/main.ts; then `curl -kv https://localhost:3003/slow`, and the same on 3103.
// See: after Ctrl-C both get their whole answer: "connection: close" over HTTP/1.1, a GOAWAY over HTTP/2. Exit code 0.
import { NodeRuntime } from "@effect/platform-node"
import { Config, Effect, Layer } from "effect"
import { HttpRouter, HttpServer, HttpServerResponse } from "effect/http"
import { Kms, KmsHttp } from "effect-kms"
import { createSecureServer } from "node:http2"
import { createServer } from "node:https"
import { cert, key } from "./certificate.ts"

const Slow = HttpRouter.add(
  "GET",
  "/slow",
  Effect.gen(function* () {
    yield* Effect.log("slow: begun")
    yield* Effect.sleep("2 seconds")
    return HttpServerResponse.text("Worth the wait\n")
  })
)

// Effect logs every address as one of http.
const serve = (name: string) =>
  Layer.merge(
    HttpRouter.serve(Slow, { disableListenLog: true }),
    Layer.effectDiscard(
      HttpServer.addressFormattedWith((address) =>
        Effect.log(`Listening on ${address.replace("http:", "https:")} (${name})`)
      )
    )
  )

const Https = serve("node:https").pipe(
  Layer.provide(
    KmsHttp.layerConfig(() => createServer({ key, cert }), {
      port: Config.withDefault(Config.Int("PORT"), 3003)
    })
  )
)

const Http2 = serve("node:http2").pipe(
  Layer.provide(
    KmsHttp.layerConfig(() => createSecureServer({ key, cert, allowHTTP1: true }), {
      port: Config.withDefault(Config.Int("HTTP2_PORT"), 3103)
    })
  )
)

Layer.merge(Https, Http2).pipe(Kms.launch(), NodeRuntime.runMain({ teardown: Kms.teardown }))
