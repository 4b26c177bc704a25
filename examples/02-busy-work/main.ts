// Shows: work that no client waits for. A report written on a schedule, and mails that requests hand to a worker.
// Run: npm run example examples/02-busy-work/main.ts; then `curl localhost:3002/mails -d ada -d bob`, and Ctrl-C here at once.
// See: the report and every accepted mail are finished; only then are worker, reports and database released. Exit code 0.
import { NodeRuntime } from "@effect/platform-node"
import { Config, Context, Effect, Exit, Layer, Queue, Schedule, Scope } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { Kms, KmsHttp } from "effect-kms"
import { createServer } from "node:http"

// What everything else needs, and therefore released last.
class Database extends Context.Service<Database, { readonly save: (row: string) => Effect.Effect<void> }>()(
  "examples/Database"
) {
  static readonly layer = Layer.effect(
    Database,
    Effect.gen(function* () {
      let open = true
      yield* Effect.addFinalizer(() => {
        open = false
        return Effect.log("released database")
      })
      return Database.of({
        save: (row) => Effect.suspend(() => (open ? Effect.log(`saved ${row}`) : Effect.die("the database is closed")))
      })
    })
  )
}

// A source of work: once the drain has begun a report that runs is finished, and no new one begins ("park").
const Reports = Layer.effectDiscard(
  Effect.gen(function* () {
    const database = yield* Database
    yield* Effect.addFinalizer(() => Effect.log("released reports"))
    let number = 0
    const report = Effect.gen(function* () {
      number++
      yield* Effect.log(`report ${number}: begun`)
      yield* Effect.sleep("2 seconds")
      yield* database.save(`report ${number}`)
    })
    yield* report.pipe(
      Kms.busy("report", { onDrain: "park" }),
      Effect.repeat(Schedule.cron("* * * * * *")),
      Effect.forkScoped
    )
  })
)

// A mail is busy work from the moment it is accepted, the time in the queue included: the section begins in the fiber of
// the request and ends in that of the worker.
class Mails extends Context.Service<Mails, { readonly accept: (to: string) => Effect.Effect<void> }>()(
  "examples/Mails"
) {
  static readonly layer = Layer.effect(
    Mails,
    Effect.gen(function* () {
      const database = yield* Database
      const queue = yield* Queue.unbounded<{ readonly to: string; readonly busy: Scope.Closeable }>()
      yield* Effect.addFinalizer(() => Effect.log("released worker"))
      yield* Effect.gen(function* () {
        const { busy, to } = yield* Queue.take(queue)
        yield* Effect.gen(function* () {
          yield* Effect.log(`mail to ${to}: sending`)
          yield* Effect.sleep("1 second")
          yield* database.save(`mail to ${to}`)
        }).pipe(Effect.ensuring(Scope.close(busy, Exit.void)))
      }).pipe(Effect.forever, Effect.forkScoped)
      return Mails.of({
        accept: Effect.fn("Mails.accept")(function* (to) {
          const busy = yield* Scope.make()
          yield* Scope.provide(Kms.busyScoped("mail"), busy)
          yield* Queue.offer(queue, { to, busy })
        })
      })
    })
  )
}

const Accept = HttpRouter.add(
  "POST",
  "/mails",
  Effect.gen(function* () {
    const mails = yield* Mails
    const request = yield* HttpServerRequest.HttpServerRequest
    yield* Effect.log("receiving addresses")
    const addresses = (yield* request.text).split("&")
    yield* Effect.forEach(addresses, mails.accept)
    return HttpServerResponse.text(`accepted: ${addresses.length}\n`, { status: 202 })
  })
)

// From top to bottom, the order in which it is released.
const Api = HttpRouter.serve(Accept).pipe(
  Layer.provide(KmsHttp.layerConfig(createServer, { port: Config.withDefault(Config.Int("PORT"), 3002) })),
  Layer.provide(Mails.layer),
  Layer.provide(Reports),
  Layer.provide(Database.layer)
)

Api.pipe(Kms.launch(), NodeRuntime.runMain({ teardown: Kms.teardown }))
