/** `NodeHttpServer`, everything imported from the index of its package. */
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Layer } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { create } from "./listens.mjs"

const Api = HttpRouter.serve(HttpRouter.add("GET", "/", HttpServerResponse.text("Home")), { disableListenLog: true })

Api.pipe(Layer.provide(NodeHttpServer.layer(create, { port: 0 })), Layer.launch, NodeRuntime.runMain)
