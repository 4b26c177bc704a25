// Shows: Unix sockets. An admin console that only its owner may open and that answers to the very end, and HTTP on a path.
// Run: npm run example examples/08-unix-socket/main.ts says where; `curl --unix-socket … localhost/slow`, `nc -U …`, and Ctrl-C.
// See: /slow is answered, the console's `status` tells of it until then, then both files are gone. `stop` does the same. Exit code 0.
import { NodeRuntime } from "@effect/platform-node"
import { Config, Effect, Layer } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { NetAddress } from "effect/net"
import { type Socket, SocketServer } from "effect/socket"
import { Kms, KmsHttp, KmsReport, KmsUnix } from "effect-kms"
import { createServer } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { readLines } from "../07-tcp-and-tls/lines.ts"

const status = Effect.map(Kms.status, (status) => `${KmsReport.toText(status)}\n`)

const obey = (command: string): Effect.Effect<string> => {
  if (command === "status") return status
  if (command === "stop") return Effect.as(Kms.shutdown("asked for on the console"), "stopping\n")
  return Effect.succeed("commands: status, stop\n")
}

const converse = (socket: Socket.Socket) =>
  Effect.gen(function* () {
    const readLine = yield* readLines(socket)
    const { write } = yield* socket.writer
    while (true) yield* write(yield* obey(yield* readLine))
  }).pipe(
    Effect.scoped,
    // The peer has gone by itself.
    Effect.catchReason("SocketError", "SocketCloseError", () => Effect.void)
  )

const socketPath = (variable: string, file: string) =>
  Config.withDefault(Config.String(variable), join(tmpdir(), `effect-kms-${file}.sock`))

// Like the probes of 06: beneath the application, and with a drain of its own. Nobody who only watches is waited for.
const Console = Layer.unwrap(
  Effect.gen(function* () {
    const path = yield* socketPath("SOCKET", "console")
    const Listener = KmsUnix.layer({ path, mode: 0o600, name: "console", drainOn: "release", onDrain: "interrupt" })
    const Commands = Layer.effectDiscard(
      Effect.gen(function* () {
        const server = yield* SocketServer.SocketServer
        yield* Effect.forkScoped(server.run(converse))
        yield* Effect.log(`Listening on ${NetAddress.formatUrlUnsafe(server.address)} (console)`)
      })
    )
    return Commands.pipe(Layer.provide(Listener))
  })
)

const Slow = HttpRouter.add(
  "GET",
  "/slow",
  Effect.gen(function* () {
    yield* Effect.log("slow: begun")
    yield* Effect.sleep("2 seconds")
    return HttpServerResponse.text("Worth the wait\n")
  })
)

const Api = HttpRouter.serve(Slow).pipe(
  Layer.provide(
    KmsHttp.layerConfig(createServer, {
      name: Config.succeed("application"),
      path: socketPath("HTTP_SOCKET", "http"),
      mode: Config.succeed(0o600)
    })
  )
)

Api.pipe(Layer.provide(Console), Kms.launch(), NodeRuntime.runMain({ teardown: Kms.teardown }))
