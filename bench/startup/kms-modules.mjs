/** effect-kms, each module imported by itself. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Kms from "effect-kms/Kms"
import * as KmsHttp from "effect-kms/KmsHttp"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import { create } from "./listens.mjs"

const Api = HttpRouter.serve(HttpRouter.add("GET", "/", HttpServerResponse.text("Home")), { disableListenLog: true })

Api.pipe(
  Layer.provide(KmsHttp.layer(create, { port: 0 })),
  Kms.launch(),
  NodeRuntime.runMain({ teardown: Kms.teardown })
)
