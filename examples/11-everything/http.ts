/**
 * Over HTTP: `/slow` takes two seconds and `/stream` as long, `/events` goes on for ever, and `/rows` is a WebSocket that
 * answers each name with that row.
 */
import { Effect, Layer, Schedule, Stream } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { Socket } from "effect/socket"
import { every, pieces, pieceSize } from "./content.ts"
import { Database } from "./database.ts"

const read = (size: number) =>
  Effect.gen(function* () {
    const database = yield* Database
    const { name = "" } = yield* HttpRouter.params
    return HttpServerResponse.uint8Array(yield* database.read(name, size))
  })

const quick = read(1024)

const slow = Effect.delay(read(256 * 1024), "2 seconds")

const stream = Effect.gen(function* () {
  const database = yield* Database
  return HttpServerResponse.stream(
    Stream.fromSchedule(Schedule.spaced(every)).pipe(
      Stream.take(pieces),
      Stream.mapEffect((index) => database.read(`stream ${index}`, pieceSize))
    )
  )
})

const upload = Effect.gen(function* () {
  const database = yield* Database
  const request = yield* HttpServerRequest.HttpServerRequest
  return HttpServerResponse.text(yield* database.save(new Uint8Array(yield* request.arrayBuffer)))
})

const events = Effect.gen(function* () {
  const database = yield* Database
  return HttpServerResponse.stream(
    Stream.fromSchedule(Schedule.spaced("10 millis")).pipe(
      Stream.mapEffect((index) => database.read(`event ${index}`, 32)),
      Stream.map((row) => `data: ${row.toString("hex")}\n\n`),
      Stream.encodeText
    ),
    { contentType: "text/event-stream" }
  )
})

const rows = Effect.gen(function* () {
  const database = yield* Database
  const request = yield* HttpServerRequest.HttpServerRequest
  const socket = yield* request.upgrade
  const { write } = yield* socket.writer
  const pull = yield* Socket.readerString(socket)
  const answer = (name: string) => Effect.flatMap(database.read(name, 32), (row) => write(row.toString("hex")))
  yield* pull.pipe(
    Effect.flatMap(Effect.forEach(answer)),
    Effect.forever,
    Effect.catchTag("SocketError", () => Effect.void)
  )
  return HttpServerResponse.empty()
})

export const Http = HttpRouter.serve(
  Layer.mergeAll(
    HttpRouter.add("GET", "/quick/:name", quick),
    HttpRouter.add("GET", "/slow/:name", slow),
    HttpRouter.add("GET", "/stream", stream),
    HttpRouter.add("POST", "/upload", upload),
    HttpRouter.add("GET", "/events", events),
    HttpRouter.add("GET", "/rows", rows)
  ),
  { disableLogger: true }
)
