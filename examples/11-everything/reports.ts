/**
 * A cron job that no client waits for: report after report is written into a directory, piece by piece. Each is begun with a
 * full second and takes nearly three, so that there is nearly always one under way.
 */
import { NodeServices } from "@effect/platform-node"
import { Config, Effect, FileSystem, Layer, Schedule } from "effect"
import { Kms } from "effect-kms"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { pieces, pieceSize } from "./content.ts"
import { Database } from "./database.ts"

export const Reports = Layer.effectDiscard(
  Effect.gen(function* () {
    const database = yield* Database
    const fs = yield* FileSystem.FileSystem
    const directory = yield* Config.withDefault(Config.String("REPORTS"), join(tmpdir(), "effect-kms-reports"))
    yield* fs.makeDirectory(directory, { recursive: true })

    let number = 0
    const report = Effect.gen(function* () {
      const name = `report-${++number}`
      yield* Effect.log(`${name}: begun`)
      for (let index = 0; index < pieces; index++) {
        yield* Effect.sleep("140 millis")
        const piece = yield* database.read(`${name} ${index}`, pieceSize)
        yield* fs.writeFile(join(directory, name), piece, { flag: index === 0 ? "w" : "a" })
      }
      yield* Effect.log(`${name}: written`)
    }).pipe(Effect.catch((error) => Effect.logError("a report failed", error)))

    // Once the drain has begun the one that is being written is finished, and no other begins.
    yield* report.pipe(
      Kms.busy("report", { onDrain: "park" }),
      Effect.repeat(Schedule.cron("* * * * * *")),
      Effect.forkScoped
    )
  })
).pipe(Layer.provide(NodeServices.layer))
