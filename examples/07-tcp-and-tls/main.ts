// Shows: a protocol of one's own over TCP and TLS. Requests under way are answered, idle clients are told goodbye.
// Run: npm run example examples/07-tcp-and-tls/main.ts; `nc localhost 3007`, `openssl s_client -quiet -connect localhost:3107`.
// See: a line that was sent before Ctrl-C is answered, and a goodbye comes after it; without one it comes at once. Exit code 0.
import { NodeRuntime } from "@effect/platform-node"
import { Config, Effect, Layer } from "effect"
import { NetAddress } from "effect/net"
import { type Socket, SocketServer } from "effect/socket"
import { Kms, KmsTcp } from "effect-kms"
import { cert, key } from "../03-https-and-http2/certificate.ts"
import { readLines } from "./lines.ts"

const answer = Effect.fn("answer")(function* (line: string) {
  yield* Effect.log(`${line}: begun`)
  yield* Effect.sleep("2 seconds")
  return `${line}: worth the wait\n`
})

// Whoever only waits for its peer would hold the drain until the peer goes. So the next line is waited for until the drain
// begins: what has come by then is answered, and the goodbye says that nothing else will be.
const converse = (socket: Socket.Socket) =>
  Effect.gen(function* () {
    const readLine = yield* readLines(socket)
    const { write } = yield* socket.writer
    const next = Effect.raceFirst(readLine, Effect.as(Kms.initiated, undefined))
    for (let line = yield* next; line !== undefined; line = yield* next) yield* write(yield* answer(line))
    yield* write("goodbye\n")
  }).pipe(
    Effect.scoped,
    // The peer has gone by itself.
    Effect.catchReason("SocketError", "SocketCloseError", () => Effect.void)
  )

const serve = (scheme: string) =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const server = yield* SocketServer.SocketServer
      yield* Effect.log(`Listening on ${NetAddress.formatUrlUnsafe(server.address, scheme)}`)
      yield* Effect.forkScoped(server.run(converse))
    })
  )

// `onDrain: "wait"` is the default: handlers run to their own end.
const Tcp = serve("tcp").pipe(
  Layer.provide(
    KmsTcp.layerConfig({
      port: Config.withDefault(Config.Int("PORT"), 3007),
      onDrain: Config.succeed("wait" as const)
    })
  )
)

const Tls = serve("tls").pipe(
  Layer.provide(
    Layer.unwrap(
      Effect.gen(function* () {
        const port = yield* Config.withDefault(Config.Int("TLS_PORT"), 3107)
        return KmsTcp.layerTls({ port, key, cert, onDrain: "wait" })
      })
    )
  )
)

Layer.merge(Tcp, Tls).pipe(Kms.launch(), NodeRuntime.runMain({ teardown: Kms.teardown }))
