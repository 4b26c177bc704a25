// Shows: connections that no server answers for any more: WebSockets of the package ws, and the tunnels of a proxy.
// Run: npm run example examples/10-hijacked/main.ts; a WebSocket to localhost:3010, `curl -px localhost:3110 …`; Ctrl-C.
// See: a WebSocket hears a last message, and 1001; a tunnel closes once nothing has moved in it for two seconds. Exit code 0.
import { NodeRuntime } from "@effect/platform-node"
import { Config, Effect, Layer } from "effect"
import { Kms, KmsHijack, KmsHttp } from "effect-kms"
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import { WebSocketServer } from "ws"
import { createProxy } from "./proxy.ts"

const announce = (server: Server, what: string) => {
  const { port } = server.address() as AddressInfo
  return console.log(`Listening on http://localhost:${port} (${what})`)
}

// A server of one's own: KmsHijack ends its sockets. To stop listening when the drain begins is for the program to do.
const WebSockets = Layer.effectDiscard(
  Effect.gen(function* () {
    const port = yield* Config.withDefault(Config.Int("PORT"), 3010)
    const hijack = yield* KmsHijack.KmsHijack
    const server = createServer()
    new WebSocketServer({ server }).on("connection", (socket) => {
      socket.on("error", ({ message }) => console.log(`echo: ${message}`))
      socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }))
      hijack.adoptUnsafe(socket, { name: "echo", goodbye: () => socket.send("Goodbye, try another server") })
    })
    yield* Effect.callback<void, Error>((resume) => {
      server.once("error", (error) => resume(Effect.fail(error)))
      server.listen(port, () => resume(Effect.void))
    })
    yield* Kms.initiated.pipe(
      Effect.ensuring(Effect.sync(() => server.close())),
      Effect.forkScoped({ startImmediately: true })
    )
    announce(server, "WebSocket")
  })
)

const Proxy = Layer.unwrap(
  Effect.gen(function* () {
    const port = yield* Config.withDefault(Config.Int("PROXY_PORT"), 3110)
    const hijack = yield* KmsHijack.KmsHijack
    return KmsHttp.layerNode(
      () => {
        const server = createProxy(hijack)
        return server.on("listening", () => announce(server, "proxy"))
      },
      { port }
    )
  })
)

Layer.merge(WebSockets, Proxy).pipe(
  Layer.provide(KmsHijack.layer()),
  Kms.launch(),
  NodeRuntime.runMain({ teardown: Kms.teardown })
)
