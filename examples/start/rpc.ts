/**
 * The clients of the RpcServer. Each has a connection of its own.
 */
import * as NodeSocket from "@effect/platform-node/NodeSocket"
import { Cause, Effect, Fiber, Layer, Stream } from "effect"
import { RpcClient, type RpcClientError, RpcSerialization } from "effect/rpc"
import { content } from "../11-everything/content.ts"
import { Rows } from "../11-everything/rpc.ts"
import type { Client } from "./client.ts"
import { check, Lost } from "./wire.ts"

type Calls = RpcClient.FromGroup<typeof Rows, RpcClientError.RpcClientError>

const row = (name: string) => content(name, 64 * 1024)

const client = <E>(
  name: string,
  run: (calls: Calls, underWay: Effect.Effect<unknown>) => Effect.Effect<string, E>
): Client => ({
  name,
  run: ({ rpc }, underWay) =>
    Effect.gen(function* () {
      const calls = yield* RpcClient.make(Rows)
      return yield* run(calls, underWay)
    }).pipe(
      Effect.scoped,
      Effect.provide(
        RpcClient.layerProtocolSocket().pipe(
          Layer.provide(NodeSocket.layerNet({ host: rpc.hostname, port: Number(rpc.port) })),
          Layer.provide(RpcSerialization.layerNdjson)
        )
      ),
      Effect.catchCause((cause) =>
        Effect.fail(new Lost({ message: Cause.prettyErrors(cause)[0]?.message ?? "interrupted" }))
      )
    )
})

/** Takes every row that comes, until the stream ends. From the second on it is in the middle of that. */
const watch = Effect.fnUntraced(function* (calls: Calls, name: string, underWay: Effect.Effect<unknown>) {
  const rows: Array<Uint8Array> = []
  yield* Stream.runForEach(calls.Watch({ name }), (row) => (rows.push(row) < 2 ? Effect.void : underWay))
  yield* check(Buffer.concat(rows), Buffer.concat(rows.map((_, index) => row(`${name} ${index}`))))
  return rows.length
})

export const rpc: ReadonlyArray<Client> = [
  client(
    "RPC, call",
    Effect.fnUntraced(function* (calls, underWay) {
      const slow = yield* Effect.forkChild(calls.Slow({ name: "call" }), { startImmediately: true })
      // What is answered after it has come after it.
      yield* check(yield* calls.Quick({ name: "first" }), row("first"))
      yield* underWay
      return yield* check(yield* Fiber.join(slow), row("call"))
    })
  ),
  client(
    "RPC, late call",
    Effect.fnUntraced(function* (calls, underWay) {
      // The end of a stream is how it sees that the drain has begun.
      yield* watch(calls, "before", underWay)
      return `${yield* check(yield* calls.Quick({ name: "late" }), row("late"))}, in the drain`
    })
  ),
  client(
    "RPC, stream",
    Effect.fnUntraced(function* (calls, underWay) {
      return `${yield* watch(calls, "watched", underWay)} whole rows, then the end`
    })
  )
]
