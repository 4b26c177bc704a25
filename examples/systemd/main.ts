// Shows: socket activation. systemd opens the sockets and keeps them, so that a restart refuses no connection.
// Run: as in README.md beside this file; without systemd `npm run example examples/systemd/main.ts` listens on its own ports.
// See: `curl localhost:3000` is answered whenever it is sent, during `systemctl restart effect-kms-example` too: it only waits.
import { NodeRuntime } from "@effect/platform-node"
import { Config, Effect, Layer } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { Kms, KmsHealth, KmsHttp } from "effect-kms"
import { createServer } from "node:http"
import { ActivationError, sockets } from "./activation.ts"
import { shutdown } from "./shutdown.ts"

/** The socket of that name. A port only where there are no sockets at all: one that is missing is a mistake in the units. */
const listenOn = (name: string, port: Config.Config<number>) =>
  Effect.gen(function* () {
    const given = yield* sockets
    if (given.length === 0) return { port: yield* port }
    const socket = given.find((socket) => socket.name === name)
    // Node would make the queue shorter than systemd did.
    if (socket !== undefined) return { fd: socket.fd, backlog: 4096 }
    const value = given.map((socket) => socket.name).join(":")
    return yield* new ActivationError({ variable: "LISTEN_FDNAMES", value, problem: `none is called "${name}"` })
  })

const hello = HttpServerResponse.text(`Hello from ${process.pid}\n`)
const Home = HttpRouter.add("GET", "/", hello)
const Slow = HttpRouter.add("GET", "/slow", Effect.delay(Effect.succeed(hello), "500 millis"))

const Health = KmsHealth.serve().pipe(
  Layer.provide(
    Layer.unwrap(
      Effect.map(listenOn("health", Config.withDefault(Config.Int("HEALTH_PORT"), 9000)), (on) =>
        KmsHttp.layer(createServer, { ...on, drainOn: "release" })
      )
    )
  )
)

const Api = HttpRouter.serve(Layer.merge(Home, Slow), { disableLogger: true }).pipe(
  Layer.provide(
    Layer.unwrap(
      Effect.map(listenOn("api", Config.withDefault(Config.Int("PORT"), 3000)), (on) => KmsHttp.layer(createServer, on))
    )
  ),
  Layer.provide(Health)
)

Api.pipe(Kms.launch(shutdown), NodeRuntime.runMain({ teardown: Kms.teardown }))
