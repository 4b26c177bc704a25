/** effect-kms by its index, as the README has it; the rest as in `kms-modules.mjs`. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Kms, KmsHttp } from "effect-kms"
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
