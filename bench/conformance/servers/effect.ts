/**
 * The application for Effect's servers: the same routes as in `plain.ts`, and two resources that it depends on.
 */
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { target, trouble } from "./plain.ts"
import { began, closeCache, closeDatabase, database, say, settings } from "./settings.ts"

type Handler = (
  url: ReturnType<typeof target>,
  request: HttpServerRequest.HttpServerRequest
) => Effect.Effect<HttpServerResponse.HttpServerResponse, unknown, never>

const route = (method: "GET" | "POST", path: `/${string}`, handler: Handler) =>
  HttpRouter.add(method, path, (request) => {
    if (path !== "/quick") began(path)
    return Effect.tap(handler(target(request.url), request), () => Effect.sync(() => say(`answered ${path}`)))
  })

const { text } = HttpServerResponse
const chunks = (stream: Stream.Stream<string>, contentType: string) =>
  Effect.succeed(HttpServerResponse.stream(Stream.encodeText(stream), { contentType }))

export const Routes = Layer.mergeAll(
  route("GET", "/quick", () => Effect.succeed(text("quick"))),
  route("GET", "/slow", ({ number }) => Effect.as(Effect.sleep(number("ms")), text("slow"))),
  route("GET", "/db", ({ number }) =>
    Effect.map(Effect.sleep(number("ms")), () => text(database.open ? "open" : "closed"))
  ),
  route("GET", "/stream", ({ number }) =>
    chunks(
      Stream.fromSchedule(Schedule.spaced(number("ms"))).pipe(
        Stream.map((index) => `chunk ${number("n") - 1 - index}\n`),
        Stream.take(number("n"))
      ),
      "text/plain"
    )
  ),
  route("GET", "/sse", () =>
    chunks(
      Stream.fromSchedule(Schedule.spaced("50 millis")).pipe(Stream.map(() => "data: tick\n\n")),
      "text/event-stream"
    )
  ),
  route("POST", "/upload", (_url, request) => Effect.map(request.arrayBuffer, (body) => text(`${body.byteLength}`))),
  route("GET", "/big", ({ number }) =>
    Effect.sync(() => HttpServerResponse.uint8Array(Buffer.alloc(number("mb") * 1024 * 1024)))
  ),
  route("GET", "/never", () => Effect.never),
  route("GET", "/stuck", () => Effect.uninterruptible(Effect.never)),
  route("GET", "/throw", ({ number }) =>
    Effect.as(
      Effect.sync(() => trouble["/throw"](number("ms"))),
      text("done")
    )
  ),
  route("GET", "/reject", ({ number }) =>
    Effect.as(
      Effect.sync(() => trouble["/reject"](number("ms"))),
      text("done")
    )
  ),
  route("GET", "/ws", (_url, request) =>
    Effect.gen(function* () {
      const socket = yield* request.upgrade
      const { pull } = yield* socket.reader
      const { writeAll } = yield* socket.writer
      yield* pull.pipe(Effect.flatMap(writeAll), Effect.forever, Effect.ignore)
      return HttpServerResponse.empty()
    }).pipe(Effect.scoped)
  )
)

const resource = (close: () => Promise<void>) =>
  Layer.effectDiscard(Effect.acquireRelease(Effect.void, () => Effect.promise(close)))

/** The cache depends on the database, so it is released before. */
export const Resources = resource(closeCache).pipe(Layer.provideMerge(resource(closeDatabase)))

/** Options of `KmsHttp`. */
export const patience =
  settings.patience === 0 ? {} : { quietPeriod: settings.patience, closeTimeout: settings.patience }

export const quietly = { disableLogger: true, disableListenLog: true } as const
