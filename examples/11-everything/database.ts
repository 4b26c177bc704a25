/**
 * What everything else needs, and what is therefore released last. From then on nobody can use it.
 */
import { Context, Effect, Layer } from "effect"
import { content, sha256 } from "./content.ts"

export class Database extends Context.Service<
  Database,
  {
    readonly read: (row: string, size: number) => Effect.Effect<Buffer>
    /** Gives the SHA-256 of what it saved. */
    readonly save: (data: Uint8Array) => Effect.Effect<string>
  }
>()("examples/Database") {
  static readonly layer = Layer.effect(
    Database,
    Effect.gen(function* () {
      let open = true
      yield* Effect.addFinalizer(() => {
        open = false
        return Effect.log("released the database")
      })
      const query = <A>(result: () => A) =>
        Effect.suspend(() => (open ? Effect.sync(result) : Effect.die("the database is closed")))
      return Database.of({
        read: (row, size) => query(() => content(row, size)),
        save: (data) => query(() => sha256(data))
      })
    })
  )
}
