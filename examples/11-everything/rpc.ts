/**
 * Calls of an RpcServer: `Quick` and `Slow` are answered with a row, `Watch` streams rows for ever.
 */
import { Effect, Layer, Schedule, Schema, Stream } from "effect"
import { Rpc as Call, RpcGroup, RpcServer } from "effect/rpc"
import { every } from "./content.ts"
import { Database } from "./database.ts"
import { logAddress } from "./listening.ts"

const payload = { name: Schema.String }

export class Rows extends RpcGroup.make(
  Call.make("Quick", { payload, success: Schema.Uint8Array }),
  Call.make("Slow", { payload, success: Schema.Uint8Array }),
  Call.make("Watch", { payload, success: Schema.Uint8Array, stream: true })
) {}

const size = 64 * 1024

const Handlers = Rows.toLayer(
  Effect.gen(function* () {
    const database = yield* Database
    return {
      Quick: ({ name }) => database.read(name, size),
      Slow: ({ name }) => Effect.delay(database.read(name, size), "2 seconds"),
      Watch: ({ name }) =>
        Stream.fromSchedule(Schedule.spaced(every)).pipe(
          Stream.mapEffect((index) => database.read(`${name} ${index}`, size))
        )
    }
  })
)

export const Rpc = Layer.merge(RpcServer.layer(Rows), Layer.effectDiscard(logAddress("rpc"))).pipe(
  Layer.provide(Handlers)
)
