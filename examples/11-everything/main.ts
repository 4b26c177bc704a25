// Shows: HTTP, a WebSocket, TCP, a Unix socket, RPC and a cron job in one process, on one database, and one signal for it all.
// Run: npm run example examples/11-everything/main.ts, and Ctrl-C; or `npm start`, with clients busy on every listener.
// See: a line for each listener. Whatever was under way is finished, then the database is released. Exit code 0.
import { NodeRuntime } from "@effect/platform-node"
import { Config, Effect, Layer } from "effect"
import { RpcSerialization, RpcServer } from "effect/rpc"
import { Kms, KmsHttp, KmsRpc, KmsTcp, KmsUnix } from "effect-kms"
import { createServer } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Database } from "./database.ts"
import { Http } from "./http.ts"
import { lines } from "./lines.ts"
import { Reports } from "./reports.ts"
import { Rows, Rpc } from "./rpc.ts"

const on = (name: string, variable: string, port: number) => ({
  name: Config.succeed(name),
  host: Config.succeed("127.0.0.1"),
  port: Config.withDefault(Config.Int(variable), port)
})

const OverHttp = Http.pipe(Layer.provide(KmsHttp.layerConfig(createServer, on("http", "PORT", 3011))))

const OverTcp = lines("tcp").pipe(Layer.provide(KmsTcp.layerConfig(on("tcp", "TCP_PORT", 3111))))

const OverUnix = lines("unix").pipe(
  Layer.provide(
    Layer.unwrap(
      Effect.gen(function* () {
        const fallback = join(tmpdir(), "effect-kms-everything.sock")
        return KmsUnix.layer({ name: "unix", path: yield* Config.withDefault(Config.String("SOCKET"), fallback) })
      })
    )
  )
)

const OverRpc = Rpc.pipe(
  Layer.provide(RpcServer.layerProtocolSocketServer.pipe(KmsRpc.drain(Rows))),
  Layer.provide(KmsTcp.layerConfig(on("rpc", "RPC_PORT", 3211))),
  Layer.provide(RpcSerialization.layerNdjson)
)

Layer.mergeAll(OverHttp, OverTcp, OverUnix, OverRpc, Reports).pipe(
  Layer.provide(Database.layer),
  Kms.launch(),
  NodeRuntime.runMain({ teardown: Kms.teardown })
)
