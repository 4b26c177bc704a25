/** effect-kms, everything imported from the index of its package: the program of the README. */
import { NodeRuntime } from "@effect/platform-node"
import { Layer } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { Kms, KmsHttp } from "effect-kms"
import { create } from "./listens.mjs"

const Api = HttpRouter.serve(HttpRouter.add("GET", "/", HttpServerResponse.text("Home")), { disableListenLog: true })

Api.pipe(
  Layer.provide(KmsHttp.layer(create, { port: 0 })),
  Kms.launch(),
  NodeRuntime.runMain({ teardown: Kms.teardown })
)
