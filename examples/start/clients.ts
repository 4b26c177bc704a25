/**
 * The clients of `main.ts`. Each makes for itself what it expects, and counts and hashes what it gets: none believes
 * what the server says of itself.
 *
 * Another kind of client is one more entry in `clients`.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Deferred, Effect, Exit, Result, Stream } from "effect"
import { Agent } from "node:http"
import { connect } from "node:net"
import { content, every, piece, pieces, sha256, whole } from "./content.ts"
import { now, write } from "./report.ts"
import { check, chunks, collect, Lost, next, read, send } from "./wire.ts"

interface Client {
  readonly name: string
  /** Is busy on the server until nothing is left to do. Runs `underWay` in the middle, and gives what it saw. */
  readonly run: (server: URL, underWay: Effect.Effect<unknown>) => Effect.Effect<string, Lost>
}

const clients: ReadonlyArray<Client> = [
  {
    name: "slow request",
    run: Effect.fnUntraced(function* (server, underWay) {
      const call = yield* send(new URL("/slow/one", server))
      yield* call.finish()
      yield* underWay
      const response = yield* call.response
      const body = yield* check(yield* read(response), content("one", 256 * 1024))
      return `${body}, Connection: ${response.headers.connection}`
    })
  },
  {
    name: "pipelined requests",
    run: Effect.fnUntraced(function* (server, underWay) {
      const names = ["first", "second", "third"]
      const socket = connect(Number(server.port), server.hostname)
      for (const name of names) socket.write(`GET /slow/${name} HTTP/1.1\r\nHost: ${server.host}\r\n\r\n`)
      yield* Effect.callback<void>((resume) => void socket.write("", () => resume(Effect.void)))
      yield* underWay
      // The last response says `Connection: close`: the end of the connection is the end of it.
      const came = yield* read(socket)
      const bodies = came.toString("latin1").split(/HTTP\/1\.1 200 OK\r\n.*?\r\n\r\n/s)
      const body = yield* check(
        Buffer.from(bodies.join(""), "latin1"),
        Buffer.concat(names.map((name) => content(name, 256 * 1024)))
      )
      return `${bodies.length - 1} responses in order, ${body}`
    })
  },
  {
    name: "chunked stream",
    run: Effect.fnUntraced(function* (server, underWay) {
      const call = yield* send(new URL("/stream", server))
      yield* call.finish()
      const body = yield* collect(Stream.tap(chunks(yield* call.response), () => underWay))
      return yield* check(body, whole("stream"))
    })
  },
  {
    name: "upload",
    run: Effect.fnUntraced(function* (server, underWay) {
      const call = yield* send(new URL("/upload", server), { method: "POST" })
      for (let index = 0; index < pieces; index++) {
        yield* call.write(piece("upload", index))
        yield* underWay
        yield* Effect.sleep(every)
      }
      yield* call.finish()
      const response = yield* call.response
      yield* check(yield* read(response), Buffer.from(sha256(whole("upload"))))
      return `${whole("upload").length.toLocaleString("en")} bytes taken, answered with their SHA-256`
    })
  },
  {
    name: "event stream",
    run: Effect.fnUntraced(function* (server, underWay) {
      const call = yield* send(new URL("/events", server))
      yield* call.finish()
      const body = yield* collect(Stream.tap(chunks(yield* call.response), () => underWay))
      const count = body.toString().split("\n\n").length - 1
      const events = Array.from({ length: count }, (_, index) => `data: ${sha256(content(`event ${index}`, 32))}\n\n`)
      yield* check(body, Buffer.from(events.join("")))
      return `${count} whole events, then the end of the body`
    })
  },
  {
    name: "WebSocket",
    run: Effect.fnUntraced(function* (server, underWay) {
      const socket = new WebSocket(new URL("/echo", server).href.replace("http", "ws"))
      const closed = next<CloseEvent>(socket, "close")
      yield* Effect.raceFirst(next(socket, "open"), closed)
      for (let index = 0; index < 10; index++) {
        const message = content(`message ${index}`, 32).toString("hex")
        const answered = next<MessageEvent>(socket, "message")
        socket.send(message)
        const answer = yield* Effect.raceFirst(answered, closed)
        yield* check(Buffer.from("data" in answer ? answer.data : ""), Buffer.from(sha256(message)))
      }
      yield* underWay
      const { code } = yield* closed
      if (code !== 1001) return yield* new Lost({ message: `closed with ${code} instead of 1001` })
      return `10 messages answered, then closed with ${code}`
    })
  },
  {
    name: "keep-alive, in use",
    run: Effect.fnUntraced(function* (server, underWay) {
      const agent = new Agent({ keepAlive: true })
      for (let count = 1; ; count++) {
        const call = yield* send(new URL(`/quick/${count}`, server), { agent })
        yield* call.finish()
        const response = yield* call.response
        yield* check(yield* read(response), content(`${count}`, 1024))
        if (response.headers.connection === "close") {
          return `${count.toLocaleString("en")} requests answered, the last with Connection: close`
        }
        if (count >= 10) yield* underWay
      }
    })
  },
  {
    name: "keep-alive, idle",
    run: Effect.fnUntraced(function* (server, underWay) {
      const call = yield* send(new URL("/quick/idle", server))
      yield* call.finish()
      const response = yield* call.response
      const closed = Deferred.makeUnsafe<boolean>()
      response.socket.once("close", (failed) => Deferred.doneUnsafe(closed, Exit.succeed(failed)))
      const body = yield* check(yield* read(response), content("idle", 1024))
      yield* underWay
      if (yield* Deferred.await(closed)) return yield* new Lost({ message: "its connection was reset" })
      return `${body}, then the end of the connection`
    })
  }
]

const run = Effect.fnUntraced(function* (server: URL) {
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
      const result = yield* Effect.result(run(server, Deferred.succeed(underWay[index]!, undefined)))
      const saw = Result.match(result, { onSuccess: (saw) => saw, onFailure: ({ message }) => message })
      write({ _tag: "Ended", client: name, lost: Result.isFailure(result), saw, at: now() })
      // One that fails at once is not waited for.
      yield* Deferred.succeed(underWay[index]!, undefined)
    }),
    { concurrency: "unbounded", discard: true }
  )
})

NodeRuntime.runMain(run(new URL(process.argv[2]!)))
