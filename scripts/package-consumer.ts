// A stranger's program: scripts/package.ts type-checks and runs it against the packed library. It starts, stops itself and exits 0.
import { NodeRuntime } from "@effect/platform-node"
import { Layer } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { Kms } from "effect-kms"
import * as KmsHttp from "effect-kms/KmsHttp"
import { createServer } from "node:http"

const Api = HttpRouter.serve(HttpRouter.add("GET", "/", HttpServerResponse.text("Home"))).pipe(
  Layer.provide(KmsHttp.layer(createServer, { port: 0 }))
)

Layer.effectDiscard(Kms.shutdown("it works")).pipe(
  Layer.provide(Api),
  Kms.launch(),
  NodeRuntime.runMain({ teardown: Kms.teardown })
)
