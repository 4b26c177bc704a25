/**
 * The application of 11-everything without effect-kms: the same routes, handlers and jobs, over Effect's own listeners. At
 * SIGTERM it is gone, and with it every connection.
 */
import { NodeHttpServer, NodeRuntime, NodeSocketServer } from "@effect/platform-node"
import { Config, Effect, Layer } from "effect"
import { RpcSerialization, RpcServer } from "effect/rpc"
import { createServer } from "node:http"
import { Database } from "../11-everything/database.ts"
import { Http } from "../11-everything/http.ts"
import { lines } from "../11-everything/lines.ts"
import { Reports } from "../11-everything/reports.ts"
import { Rpc } from "../11-everything/rpc.ts"

const address = { host: "127.0.0.1", port: 0 }

const OverHttp = Http.pipe(Layer.provide(NodeHttpServer.layer(createServer, address)))

const OverTcp = lines("tcp").pipe(Layer.provide(NodeSocketServer.layer(address)))

const OverUnix = lines("unix").pipe(
  Layer.provide(Layer.unwrap(Effect.map(Config.String("SOCKET"), (path) => NodeSocketServer.layer({ path }))))
)

const OverRpc = Rpc.pipe(
  Layer.provide(RpcServer.layerProtocolSocketServer),
  Layer.provide(NodeSocketServer.layer(address)),
  Layer.provide(RpcSerialization.layerNdjson)
)

process.once("SIGTERM", () => process.exit(0))

Layer.mergeAll(OverHttp, OverTcp, OverUnix, OverRpc, Reports).pipe(
  Layer.provide(Database.layer),
  Layer.launch,
  NodeRuntime.runMain
)
