// The client of main.ts: a slow call, a stream beside it, and one more call when that stream has ended.
import { NodeRuntime, NodeSocket } from "@effect/platform-node"
import { Config, Console, Effect, Layer, Stream } from "effect"
import { RpcClient, RpcSerialization } from "effect/rpc"
import { Arith } from "./arith.ts"

const program = Effect.gen(function* () {
  const arith = yield* RpcClient.make(Arith)

  const multiply = Effect.gen(function* () {
    yield* Console.log("6 times 7?")
    yield* Console.log(`6 times 7 is ${yield* arith.Multiply({ a: 6, b: 7 })}`)
  })

  // The end of the stream is the first that this client sees of a drain. Its connection is open for calls all the same.
  const multiples = Effect.gen(function* () {
    yield* arith
      .Multiples({ of: 7 })
      .pipe(Stream.runForEach((multiple) => Console.log(`the next multiple is ${multiple}`)))
    yield* Console.log("no more multiples; 85 by 2?")
    const { quotient, remainder } = yield* arith.Divide({ a: 85, b: 2 })
    yield* Console.log(`85 by 2 is ${quotient}, and ${remainder} is left`)
  })

  yield* Effect.all([multiply, multiples], { concurrency: "unbounded" })
})

const Connection = Layer.unwrap(
  Effect.gen(function* () {
    return NodeSocket.layerNet({ port: yield* Config.withDefault(Config.Int("PORT"), 3009) })
  })
)

program.pipe(
  Effect.scoped,
  Effect.provide(
    RpcClient.layerProtocolSocket().pipe(Layer.provide(Connection), Layer.provide(RpcSerialization.layerNdjson))
  ),
  NodeRuntime.runMain
)
