/**
 * A program that listens on the socket it was given as descriptor 3. `activation.ts` starts it.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Effect, Layer } from "effect"
import { HttpServer, HttpServerResponse } from "effect/http"
import { Kms, KmsHttp } from "effect-kms"
import { createServer } from "node:http"

const announce = Layer.effectDiscard(
  HttpServer.addressFormattedWith((address) => Effect.sync(() => console.log(`listening on ${address}`)))
)

HttpServer.serve(Effect.succeed(HttpServerResponse.text("activated"))).pipe(
  Layer.merge(announce),
  Layer.provide(KmsHttp.layer(createServer, { fd: 3 })),
  Kms.launch(),
  NodeRuntime.runMain({ teardown: Kms.teardown })
)
