/**
 * The clients over HTTP, and the WebSocket.
 */
import { Deferred, Effect, Exit, Stream } from "effect"
import { Agent } from "node:http"
import { connect } from "node:net"
import { content, every, piece, pieces, sha256, whole } from "../11-everything/content.ts"
import type { Client } from "./client.ts"
import { check, chunks, collect, Lost, next, read, send, size } from "./wire.ts"

export const http: ReadonlyArray<Client> = [
  {
    name: "HTTP, slow",
    run: Effect.fnUntraced(function* ({ http: server }, underWay) {
      const call = yield* send(new URL("/slow/one", server))
      yield* call.finish()
      yield* underWay
      const response = yield* call.response
      const body = yield* check(yield* read(response), content("one", 256 * 1024))
      return `${body}, Connection: ${response.headers.connection}`
    })
  },
  {
    name: "HTTP, pipelined",
    run: Effect.fnUntraced(function* ({ http: server }, underWay) {
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
      return `${bodies.length - 1} in order, ${body}`
    })
  },
  {
    name: "HTTP, stream",
    run: Effect.fnUntraced(function* ({ http: server }, underWay) {
      const call = yield* send(new URL("/stream", server))
      yield* call.finish()
      const body = yield* collect(Stream.tap(chunks(yield* call.response), () => underWay))
      return yield* check(body, whole("stream"))
    })
  },
  {
    name: "HTTP, upload",
    run: Effect.fnUntraced(function* ({ http: server }, underWay) {
      const call = yield* send(new URL("/upload", server), { method: "POST" })
      for (let index = 0; index < pieces; index++) {
        yield* call.write(piece("upload", index))
        yield* underWay
        yield* Effect.sleep(every)
      }
      yield* call.finish()
      const response = yield* call.response
      yield* check(yield* read(response), Buffer.from(sha256(whole("upload"))))
      return `${size(whole("upload"))} taken, its SHA-256 answered`
    })
  },
  {
    name: "HTTP, events",
    run: Effect.fnUntraced(function* ({ http: server }, underWay) {
      const call = yield* send(new URL("/events", server))
      yield* call.finish()
      const body = yield* collect(Stream.tap(chunks(yield* call.response), () => underWay))
      const count = body.toString().split("\n\n").length - 1
      const events = Array.from(
        { length: count },
        (_, index) => `data: ${content(`event ${index}`, 32).toString("hex")}\n\n`
      )
      yield* check(body, Buffer.from(events.join("")))
      return `${count} whole events, then the end`
    })
  },
  {
    name: "WebSocket",
    run: Effect.fnUntraced(function* ({ http: server }, underWay) {
      const socket = new WebSocket(new URL("/rows", server).href.replace("http", "ws"))
      const closed = next<CloseEvent>(socket, "close")
      yield* Effect.raceFirst(next(socket, "open"), closed)
      for (let index = 0; index < 10; index++) {
        const row = content(`message ${index}`, 32).toString("hex")
        const answered = next<MessageEvent>(socket, "message")
        socket.send(`message ${index}`)
        const answer = yield* Effect.raceFirst(answered, closed)
        yield* check(Buffer.from("data" in answer ? answer.data : ""), Buffer.from(row))
      }
      yield* underWay
      const { code } = yield* closed
      if (code !== 1001) return yield* new Lost({ message: `closed with ${code} instead of 1001` })
      return `10 answers, then closed with ${code}`
    })
  },
  {
    name: "HTTP, in use",
    run: Effect.fnUntraced(function* ({ http: server }, underWay) {
      const agent = new Agent({ keepAlive: true })
      for (let count = 1; ; count++) {
        const call = yield* send(new URL(`/quick/${count}`, server), { agent })
        yield* call.finish()
        const response = yield* call.response
        yield* check(yield* read(response), content(`${count}`, 1024))
        if (response.headers.connection === "close") {
          return `${count} answered, then Connection: close`
        }
        if (count >= 10) yield* underWay
      }
    })
  },
  {
    name: "HTTP, idle",
    run: Effect.fnUntraced(function* ({ http: server }, underWay) {
      const call = yield* send(new URL("/quick/idle", server))
      yield* call.finish()
      const response = yield* call.response
      const closed = Deferred.makeUnsafe<boolean>()
      response.socket.once("close", (failed) => Deferred.doneUnsafe(closed, Exit.succeed(failed)))
      const body = yield* check(yield* read(response), content("idle", 1024))
      yield* underWay
      if (yield* Deferred.await(closed)) return yield* new Lost({ message: "its connection was reset" })
      return `${body}, then the end`
    })
  }
]
