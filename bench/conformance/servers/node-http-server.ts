/**
 * `NodeHttpServer` of @effect/platform-node 4.1 with `Layer.launch` and `NodeRuntime.runMain`, as Effect's own examples have
 * it; `gracefulShutdownTimeout` is its limit.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as HttpRouter from "effect/http/HttpRouter"
import * as Layer from "effect/Layer"
import { quietly, Resources, Routes } from "./effect.ts"
import { address, announce, create } from "./plain.ts"
import { settings } from "./settings.ts"

const serve = (name: string, port: number) =>
  HttpRouter.serve(Routes, quietly).pipe(
    Layer.provide(
      NodeHttpServer.layer(
        () => {
          const server = create()
          announce(server, name)
          return server
        },
        { host: "127.0.0.1", port, gracefulShutdownTimeout: settings.grace }
      )
    )
  )

serve("port", address.port).pipe(
  Layer.provide(Layer.fresh(settings.second ? serve("second", 0) : Layer.empty)),
  Layer.provide(Resources),
  Layer.launch,
  NodeRuntime.runMain
)
