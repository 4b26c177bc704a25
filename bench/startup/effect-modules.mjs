/** `NodeHttpServer`, each module imported by itself. */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import { create } from "./listens.mjs"

const Api = HttpRouter.serve(HttpRouter.add("GET", "/", HttpServerResponse.text("Home")), { disableListenLog: true })

Api.pipe(Layer.provide(NodeHttpServer.layer(create, { port: 0 })), Layer.launch, NodeRuntime.runMain)
