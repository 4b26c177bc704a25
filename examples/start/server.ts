/**
 * The server of `main.ts`: an ordinary Effect application. `/slow` takes two seconds, `/stream` and `/upload` last as
 * long, `/events` goes on for ever and `/echo` is a WebSocket.
 *
 * With KMS_DEMO_BREAK=1 the same application runs without effect-kms, and destroys its connections at SIGTERM.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Effect, Layer, Schedule, Stream } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { Socket } from "effect/socket"
import { Kms, KmsHttp } from "effect-kms"
import { createServer } from "node:http"
import { content, every, piece, pieces, sha256 } from "./content.ts"

const name = Effect.map(HttpRouter.params, (params) => params["name"] ?? "")

const quick = Effect.map(name, (name) => HttpServerResponse.uint8Array(content(name, 1024)))

const slow = Effect.gen(function* () {
  yield* Effect.sleep("2 seconds")
  return HttpServerResponse.uint8Array(content(yield* name, 256 * 1024))
})

const stream = Effect.sync(() =>
  HttpServerResponse.stream(
    Stream.fromSchedule(Schedule.spaced(every)).pipe(
      Stream.take(pieces),
      Stream.map((index) => piece("stream", index))
    )
  )
)

const upload = Effect.gen(function* () {
  const request = yield* HttpServerRequest.HttpServerRequest
  return HttpServerResponse.text(sha256(new Uint8Array(yield* request.arrayBuffer)))
})

const events = Effect.sync(() =>
  HttpServerResponse.stream(
    Stream.fromSchedule(Schedule.spaced("10 millis")).pipe(
      Stream.map((index) => `data: ${sha256(content(`event ${index}`, 32))}\n\n`),
      Stream.encodeText
    ),
    { contentType: "text/event-stream" }
  )
)

const echo = Effect.gen(function* () {
  const request = yield* HttpServerRequest.HttpServerRequest
  const socket = yield* request.upgrade
  const { write } = yield* socket.writer
  const pull = yield* Socket.readerString(socket)
  yield* pull.pipe(
    Effect.flatMap(Effect.forEach((message) => write(sha256(message)))),
    Effect.forever,
    Effect.catchTag("SocketError", () => Effect.void)
  )
  return HttpServerResponse.empty()
})

const Routes = HttpRouter.serve(
  Layer.mergeAll(
    HttpRouter.add("GET", "/quick/:name", quick),
    HttpRouter.add("GET", "/slow/:name", slow),
    HttpRouter.add("GET", "/stream", stream),
    HttpRouter.add("POST", "/upload", upload),
    HttpRouter.add("GET", "/events", events),
    HttpRouter.add("GET", "/echo", echo)
  ),
  { disableLogger: true }
)

const address = { port: 0, host: "127.0.0.1" }

const drains = Routes.pipe(Layer.provide(KmsHttp.layer(createServer, address)), Kms.launch())

const destroys = Effect.suspend(() => {
  const server = createServer()
  process.once("SIGTERM", () => {
    server.closeAllConnections()
    process.exit(0)
  })
  return Routes.pipe(Layer.provide(NodeHttpServer.layer(() => server, address)), Layer.launch)
})

const program = process.env["KMS_DEMO_BREAK"] === "1" ? destroys : drains

program.pipe(NodeRuntime.runMain({ teardown: Kms.teardown }))
