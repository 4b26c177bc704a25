/**
 * A program with one fault or several, as its plan says. Three resources beneath an application on HTTP; each says when it
 * has been acquired (`+name`) and when it is released (`-name`).
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer, Stream } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { Kms, KmsHttp } from "effect-kms"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { now } from "./ledger.ts"
import { type Faults, forceTimeout, timeout } from "./round.ts"

const { finalizer, lameDuck, startUp, work } = JSON.parse(process.argv[2]!) as Faults

const release: { readonly [F in Faults["finalizer"]]: Effect.Effect<void> } = {
  fine: Effect.void,
  slow: Effect.sleep("150 millis"),
  // A finalizer that fails in a way that its type does not have, as untyped code does.
  fails: Effect.fail("the pool is gone") as unknown as Effect.Effect<void>,
  throws: Effect.sync(() => {
    throw new Error("thrown in a finalizer")
  }),
  hangs: Effect.never,
  "hangs with a timeout": Effect.never
}

const resource = (name: string, end: Effect.Effect<void> = Effect.void) =>
  Layer.effectDiscard(
    Effect.acquireRelease(Console.log(`+${name}`), () => Effect.andThen(Console.log(`-${name}`), end))
  )

const Database = resource("database")
const Queue =
  finalizer === "hangs with a timeout"
    ? Layer.effectDiscard(
        Effect.andThen(
          Console.log("+queue"),
          Kms.addFinalizer("queue", () => Effect.andThen(Console.log("-queue"), Effect.never), {
            timeout: "200 millis"
          })
        )
      )
    : resource("queue", release[finalizer])
const Cache = resource("cache")

const start: { readonly [S in Faults["startUp"]]: Effect.Effect<void, string> } = {
  fine: Effect.void,
  slow: Effect.sleep("300 millis"),
  fails: Effect.fail("no such table"),
  hangs: Effect.never,
  "hangs uninterruptibly": Effect.uninterruptible(Effect.never)
}

const begin: { readonly [W in Faults["work"]]?: Effect.Effect<unknown> } = {
  "slow section": Effect.forkDetach(Effect.sleep("700 millis").pipe(Kms.busy("slow"))),
  "hung section": Effect.forkDetach(Effect.never.pipe(Kms.busy("hung")))
}

/** Once everybody is there, somebody asks for it. */
const throwOutside = Effect.sync(() => {
  setTimeout(() => {
    if (work === "unhandled rejection") void Promise.reject(new Error("rejected outside"))
    else throw new Error("thrown outside")
  }, 20)
})

/** More than the buffers of two sockets take. */
const big = new Uint8Array(16 * 1024 * 1024)

const Routes = Layer.mergeAll(
  HttpRouter.add("GET", "/echo/*", (request) => Effect.succeed(HttpServerResponse.text(request.url))),
  HttpRouter.add("GET", "/never", Effect.andThen(Console.log("begun /never"), Effect.never)),
  HttpRouter.add("GET", "/big", () => Effect.succeed(HttpServerResponse.uint8Array(big))),
  HttpRouter.add("GET", "/throw", () => Effect.as(throwOutside, HttpServerResponse.text("soon"))),
  HttpRouter.add("POST", "/upload", (request) =>
    Effect.gen(function* () {
      yield* Stream.runDrain(request.stream)
      return HttpServerResponse.text("taken")
    })
  )
)

const server = createServer()
server.on("listening", () => console.log(`port ${(server.address() as AddressInfo).port}`))

const Api = Layer.effectDiscard(
  Effect.gen(function* () {
    yield* Console.log("starting")
    yield* start[startUp]
    yield* begin[work] ?? Effect.void
    yield* Console.log(`started ${now()}`)
  })
).pipe(
  Layer.provideMerge(
    HttpRouter.serve(Routes, { disableLogger: true, disableListenLog: true }).pipe(
      Layer.provide(KmsHttp.layer(() => server, { port: 0, host: "127.0.0.1" }))
    )
  ),
  Layer.provide(Cache),
  Layer.provide(Queue),
  Layer.provide(Database)
)

process.stdout.write("loaded\n")
Api.pipe(Kms.launch({ timeout, forceTimeout, lameDuck }), NodeRuntime.runMain({ teardown: Kms.teardown }))
