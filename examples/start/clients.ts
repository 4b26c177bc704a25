/**
 * All clients of `main.ts`, in one process. It is given the addresses of the listeners.
 *
 * Another kind of client is one more entry in `http.ts`, `lines.ts` or `rpc.ts`.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Deferred, Effect, Result } from "effect"
import type { Servers } from "./client.ts"
import { http } from "./http.ts"
import { lines } from "./lines.ts"
import { now, write } from "./report.ts"
import { rpc } from "./rpc.ts"

const clients = [...http, ...lines, ...rpc]

const run = Effect.fnUntraced(function* (servers: Servers) {
  const underWay = clients.map(() => Deferred.makeUnsafe<void>())
  yield* Effect.forkChild(
    Effect.andThen(
      Effect.forEach(underWay, Deferred.await),
      Effect.sync(() => write({ _tag: "UnderWay" }))
    )
  )
  yield* Effect.forEach(
    clients,
    Effect.fnUntraced(function* ({ name, run }, index) {
      const result = yield* Effect.result(run(servers, Deferred.succeed(underWay[index]!, undefined)))
      const saw = Result.match(result, { onSuccess: (saw) => saw, onFailure: ({ message }) => message })
      write({ _tag: "Ended", client: name, lost: Result.isFailure(result), saw, at: now() })
      // One that fails at once is not waited for.
      yield* Deferred.succeed(underWay[index]!, undefined)
    }),
    { concurrency: "unbounded", discard: true }
  )
})

const addresses = process.argv.slice(2).map((address) => new URL(address))

NodeRuntime.runMain(run(Object.fromEntries(addresses.map((url) => [url.protocol.slice(0, -1), url])) as Servers))
