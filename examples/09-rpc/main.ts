// Shows: an RpcServer over TCP that answers its calls, those in flight and those that still come on an open connection.
// Run: npm run example examples/09-rpc/main.ts; in another terminal the same with client.ts, and press Ctrl-C here at once.
// See: the client gets its product, and the quotient that it asks for later; its stream ends, and has not failed. Exit code 0.
import { NodeRuntime } from "@effect/platform-node"
import { Config, Effect, Layer, Schedule, Stream } from "effect"
import { NetAddress } from "effect/net"
import { RpcSerialization, RpcServer } from "effect/rpc"
import { SocketServer } from "effect/socket"
import { Kms, KmsRpc, KmsTcp } from "effect-kms"
import { Arith, DivideByZero } from "./arith.ts"

const Handlers = Arith.toLayer({
  Multiply: Effect.fn("Multiply")(function* ({ a, b }) {
    yield* Effect.log(`Multiply ${a} by ${b}: begun`)
    yield* Effect.sleep("2 seconds")
    return a * b
  }),
  Divide: Effect.fn("Divide")(function* ({ a, b }) {
    if (b === 0) return yield* new DivideByZero()
    return { quotient: Math.trunc(a / b), remainder: a % b }
  }),
  // By itself it would hold the drain for ever. KmsRpc ends streams; to have one waited for there is its option `streams`.
  Multiples: ({ of }) =>
    Stream.fromSchedule(Schedule.spaced("100 millis")).pipe(Stream.map((index) => (index + 1) * of))
})

const Listening = Layer.effectDiscard(
  Effect.gen(function* () {
    const { address } = yield* SocketServer.SocketServer
    yield* Effect.log(`Listening on ${NetAddress.formatUrlUnsafe(address, "tcp")}`)
  })
)

const Server = Layer.merge(RpcServer.layer(Arith), Listening).pipe(
  Layer.provide(Handlers),
  Layer.provide(RpcServer.layerProtocolSocketServer.pipe(KmsRpc.drain(Arith))),
  Layer.provide(KmsTcp.layerConfig({ port: Config.withDefault(Config.Int("PORT"), 3009) })),
  Layer.provide(RpcSerialization.layerNdjson)
)

Server.pipe(Kms.launch(), NodeRuntime.runMain({ teardown: Kms.teardown }))
