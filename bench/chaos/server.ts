/**
 * The server that is restarted again and again: HTTP/1.1, HTTP/2 in clear text, and its health on a listener of its own.
 *
 * Prints where it listens; `serving` once it has answered some requests, which behind a balancer means that this has found
 * it ready; `draining` in the tick in which it stops accepting; and at its end what it has to tell.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Effect, Layer, Schedule, Stream } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { Kms, KmsHealth, KmsHttp } from "effect-kms"
import { createHash } from "node:crypto"
import { createServer } from "node:http"
import { createServer as createHttp2Server } from "node:http2"
import type { AddressInfo, Server } from "node:net"
import { now } from "./ledger.ts"

export interface Serving {
  readonly host: string
  /** The ports of HTTP/1.1, HTTP/2 and health; 0 for any. */
  readonly ports: readonly [number, number, number]
  readonly reusePort: boolean
  /** In milliseconds. */
  readonly lameDuck: number
  readonly quietPeriod?: number | undefined
  /** `exits` is for seeing the clients count: SIGTERM ends the process at once, with all that is in flight. */
  readonly breakage?: "exits" | undefined
}

export interface Told {
  readonly requests: number
  /** Messages of WebSockets, each counted as it was taken. */
  readonly messages: number
  readonly cut: number
  /** The client ports of the connections that were accepted in the last seconds, and when. */
  readonly accepted: ReadonlyArray<readonly [port: number, at: number]>
}

const { breakage, host, lameDuck, ports, quietPeriod, reusePort } = JSON.parse(process.argv[2]!) as Serving

const acceptedMillis = 6000

const say = (line: string) => void process.stdout.write(`${line}\n`)

let requests = 0
let messages = 0
const accepted: Array<readonly [number, number]> = []
const listening: Array<number> = []

const create = (index: number, make: () => Server) => () => {
  const server = make()
  server.on("listening", () => {
    listening[index] = (server.address() as AddressInfo).port
  })
  server.on("connection", (socket) => {
    accepted.push([socket.remotePort ?? 0, Math.round(now())])
    // Enough to know them by when a failure is looked into.
    if (accepted.length > 10_000) accepted.splice(0, 5000)
  })
  return server as ReturnType<typeof createServer>
}

const Echo = HttpRouter.add("GET", "/echo/*", (request) =>
  Effect.gen(function* () {
    const millis = Number(new URL(request.url, "http://localhost").searchParams.get("ms"))
    if (millis > 0) yield* Effect.sleep(millis)
    if (++requests === 40) say(`serving ${now()}`)
    return HttpServerResponse.text(request.url)
  })
)

const Upload = HttpRouter.add("POST", "/upload", (request) =>
  Effect.gen(function* () {
    const hash = createHash("sha256")
    yield* Stream.runForEach(request.stream, (chunk) => Effect.sync(() => hash.update(chunk)))
    return HttpServerResponse.text(hash.digest("hex"))
  })
)

const eventMillis = 25
/** An event every 25 ms of the clock that all servers share, so that any of them can go on where another one ended. */
const Events = HttpRouter.add("GET", "/events", (request) => {
  const id = request.headers["last-event-id"]
  let last = id === undefined ? Math.floor(Date.now() / eventMillis) : Number(id)
  const due = () => {
    let text = ""
    while (last < Math.floor(Date.now() / eventMillis)) text += `id: ${++last}\ndata: tick\n\n`
    return text
  }
  const ticks = Stream.fromSchedule(Schedule.spaced(eventMillis)).pipe(
    Stream.map(due),
    Stream.filter((text) => text !== ""),
    Stream.encodeText
  )
  return Effect.succeed(HttpServerResponse.stream(ticks, { contentType: "text/event-stream" }))
})

const Socket = HttpRouter.add(
  "GET",
  "/socket",
  Effect.gen(function* () {
    const request = yield* HttpServerRequest.HttpServerRequest
    const socket = yield* request.upgrade
    const { pull } = yield* socket.reader
    const { writeAll } = yield* socket.writer
    // What has been taken is acknowledged before the drain may end the handler; cut in between it would be done twice.
    const processed = (frame: string | Uint8Array) =>
      Effect.suspend(() => {
        messages++
        return Effect.delay(Effect.succeed(typeof frame === "string" ? frame : Buffer.from(frame).toString()), 5)
      })
    yield* pull.pipe(
      Effect.flatMap((frames) =>
        Effect.flatMap(Effect.forEach(frames, processed), (texts) =>
          writeAll(texts as [string, ...Array<string>])
        ).pipe(Kms.busy("message"))
      ),
      Effect.forever,
      Effect.ignore
    )
    return HttpServerResponse.empty()
  })
)

const Api = HttpRouter.serve(Layer.mergeAll(Echo, Upload, Events, Socket), {
  disableLogger: true,
  disableListenLog: true
})

const shared = { host, reusePort, quietPeriod }
const Health = KmsHealth.serve().pipe(
  Layer.provide(KmsHttp.layer(create(2, createServer), { host, port: ports[2], drainOn: "release", name: "health" }))
)

const Servers = Layer.mergeAll(
  Layer.provide(Api, KmsHttp.layer(create(0, createServer), { ...shared, port: ports[0], name: "http" })),
  Layer.provide(
    Layer.fresh(Api),
    KmsHttp.layer(create(1, createHttp2Server as unknown as () => Server), { ...shared, port: ports[1], name: "http2" })
  )
).pipe(Layer.provide(Health))

const Main = Layer.effectDiscard(
  Effect.gen(function* () {
    yield* Effect.sync(() => say(`listening ${listening.join(" ")}`))
    yield* Effect.forkScoped(
      Effect.andThen(
        Kms.initiated,
        Effect.sync(() => say(`draining ${now()}`))
      )
    )
  })
).pipe(Layer.provideMerge(Servers))

// Before anybody else hears of the signal.
if (breakage === "exits") process.once("SIGTERM", () => process.exit(0))

Main.pipe(
  Kms.launch({
    lameDuck,
    onStopped: ({ listeners }) =>
      Effect.sync(() => {
        const cut = listeners.reduce((sum, listener) => sum + listener.cut, 0)
        const last = accepted.filter(([, at]) => at > now() - acceptedMillis)
        say(`told ${JSON.stringify({ requests, messages, cut, accepted: last } satisfies Told)}`)
      })
  }),
  NodeRuntime.runMain({ teardown: Kms.teardown })
)
