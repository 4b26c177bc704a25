// Shows: connections that would never end by themselves, a WebSocket that echoes and a stream of events.
// Run: npm run example examples/04-websocket-and-sse/main.ts; then `curl -N localhost:3004/ticks`, and Ctrl-C here.
// See: the event stream ends cleanly (curl's exit code is 0), a WebSocket on /echo is closed with 1001. Exit code 0 at once.
import { NodeRuntime } from "@effect/platform-node"
import { Config, Effect, Layer, Stream } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { Kms, KmsHttp } from "effect-kms"
import { createServer } from "node:http"

const Echo = HttpRouter.add(
  "GET",
  "/echo",
  Effect.gen(function* () {
    const request = yield* HttpServerRequest.HttpServerRequest
    const socket = yield* request.upgrade
    const { pull } = yield* socket.reader
    const { writeAll } = yield* socket.writer
    // Whatever ends a socket is an error, a clean close too. A shutdown interrupts.
    yield* pull.pipe(Effect.flatMap(writeAll), Effect.forever, Effect.ignore)
    return HttpServerResponse.empty()
  })
)

const ticks = Stream.tick("1 second").pipe(
  Stream.mapAccum(
    () => 0,
    (count) => [count + 1, [`data: ${count}\n\n`]] as const
  ),
  Stream.encodeText
)

const Ticks = HttpRouter.add("GET", "/ticks", HttpServerResponse.stream(ticks, { contentType: "text/event-stream" }))

const Api = HttpRouter.serve(Layer.merge(Echo, Ticks)).pipe(
  Layer.provide(KmsHttp.layerConfig(createServer, { port: Config.withDefault(Config.Int("PORT"), 3004) }))
)

Api.pipe(Kms.launch(), NodeRuntime.runMain({ teardown: Kms.teardown }))
