import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit } from "effect"
import { connect } from "node:http2"
import { connect as connectTcp } from "node:net"
import WebSocket from "ws"
import { cert } from "../../examples/03-https-and-http2/certificate.ts"
import { after, type Answer, ask, type Example, example, refused } from "../support/examples.ts"

/** What a program printed that matches, in its order. */
const lines = (program: Example, pattern: RegExp): Array<string> =>
  Array.from(program.output().matchAll(pattern), ([line]) => line)

/** A client that keeps its connection alive would hold a server that does not ask it to leave for 5 seconds. */
const atOnce = 3000

const assertLastAnswer = (answer: Answer, body: string, status = 200) => {
  assert.strictEqual(answer.status, status)
  assert.strictEqual(answer.body, body)
  assert.strictEqual(answer.headers.connection, "close")
}

// Most of the time of each is spent waiting for a slow answer.
describe.concurrent("the examples", () => {
  it.live(
    "00-layer-only gives a request in flight its whole response, then releases in reverse and exits with 130",
    () =>
      Effect.gen(function* () {
        const program = yield* example("00-layer-only")
        const slow = yield* ask(program.ports[0]!, "/slow")
        yield* program.printed(/slow: begun/)
        yield* program.kill("SIGTERM")
        assert.isFalse(slow.isAnswered())
        const answer = yield* slow.answer
        assertLastAnswer(answer, "Worth the wait\n")
        const ended = yield* program.ended
        assert.deepStrictEqual([ended.code, ended.signal], [130, null])
        assert.isBelow(after([answer], ended), atOnce)
        assert.deepStrictEqual(lines(program, /opened \w+|slow: \w+|released \w+/g), [
          "opened database",
          "opened cache",
          "slow: begun",
          "slow: done",
          "released cache",
          "released database"
        ])
      })
  )

  it.live("01-http answers a request that was half sent when it was told to stop, and exits with 0", () =>
    Effect.gen(function* () {
      const program = yield* example("01-http")
      const port = program.ports[0]!
      const before = yield* (yield* ask(port, "/")).answer
      assert.deepStrictEqual([before.status, before.body, before.headers.connection], [200, "Home", "keep-alive"])

      const received = Deferred.makeUnsafe<string, Error>()
      let bytes = ""
      const socket = yield* Effect.acquireRelease(
        Effect.sync(() => connectTcp(port, "localhost")),
        (socket) => Effect.sync(() => socket.destroy())
      )
      socket.setEncoding("utf8").on("data", (chunk) => (bytes += chunk))
      socket.on("error", (error) => Deferred.doneUnsafe(received, Exit.fail(error)))
      socket.on("end", () => Deferred.doneUnsafe(received, Exit.succeed(bytes)))
      yield* Effect.callback<void>((resume) => {
        socket.write("GET / HTTP/1.1\r\nHost: localhost\r\n", () => resume(Effect.void))
      })
      yield* program.kill("SIGTERM")
      yield* program.printed(/Shutting down \(SIGTERM\)/)
      // Within closeTimeout. What is answered before the listener has closed may still say keep-alive, but is not kept.
      socket.write("\r\n")
      const at = performance.now()
      const response = yield* Deferred.await(received)
      assert.match(response, /^HTTP\/1\.1 200 OK\r\n/)
      assert.match(response, /\r\n\r\nHome$/)
      const ended = yield* program.ended
      assert.deepStrictEqual([ended.code, ended.signal], [0, null])
      assert.isBelow(ended.at - at, atOnce)
      assert.match(program.output(), /Shutdown complete after/)
    })
  )

  it.live("02-busy-work finishes the report and every accepted mail before anything is released, in reverse", () =>
    Effect.gen(function* () {
      const program = yield* example("02-busy-work")
      const port = program.ports[0]!
      const post = { method: "POST", headers: { "content-type": "text/plain" } }
      yield* program.printed(/report (\d+): begun(?![^]*saved report \1\b)/)
      const accepted = yield* (yield* ask(port, "/mails", { ...post, body: "ada&bob&eve" })).answer
      assert.deepStrictEqual([accepted.status, accepted.body], [202, "accepted: 3\n"])
      yield* program.printed(/mail to ada: sending/)
      // The last address has been sent by half when the signal comes: it is handed to the worker during the drain.
      const late = yield* ask(port, "/mails", { ...post, headers: { "content-length": 3 }, hold: true })
      late.sent.write("c")
      yield* program.printed(/receiving addresses[^]*receiving addresses/)
      yield* program.kill("SIGTERM")
      const [began, open] = yield* program.printed(/Shutting down \(SIGTERM\).* Open: (.*)/)
      assert.match(open!, /busy "report" for /)
      assert.match(open!, /busy "mail" for .*busy "mail" for /)
      yield* refused(port)
      late.sent.end("yd")
      assertLastAnswer(yield* late.answer, "accepted: 1\n", 202)

      const ended = yield* program.ended
      assert.deepStrictEqual([ended.code, ended.signal], [0, null])
      const saved = lines(program, /saved (?:mail|report) .*|released \w+/g)
      assert.deepStrictEqual(
        saved.filter((line) => line.startsWith("saved mail")),
        ["saved mail to ada", "saved mail to bob", "saved mail to eve", "saved mail to cyd"]
      )
      assert.deepStrictEqual(saved.slice(-3), ["released worker", "released reports", "released database"])
      assert.strictEqual(saved.filter((line) => line.startsWith("released")).length, 3)
      // The report that was under way has been saved, and none has begun since.
      const reports = lines(program, /report \d+: begun/g)
      assert.include(saved, `saved report ${reports.length}`)
      assert.notMatch(program.output().slice(program.output().indexOf(began)), /report \d+: begun/)
    })
  )

  it.live("03-https-and-http2 answers what is in flight over HTTP/1.1 and HTTP/2, and sends GOAWAY", () =>
    Effect.gen(function* () {
      const program = yield* example("03-https-and-http2", 2)
      const portOf = (name: string) => {
        const [, port] = new RegExp(`Listening on https://\\S*:(\\d+) \\(${name}\\)`).exec(program.output())!
        return Number(port)
      }
      const [https, http2] = [portOf("node:https"), portOf("node:http2")]

      const session = yield* Effect.acquireRelease(
        Effect.sync(() => connect(`https://localhost:${http2}`, { ca: cert })),
        (session) => Effect.sync(() => session.destroy())
      )
      const goaway = Deferred.makeUnsafe<readonly [code: number, lastStream: number]>()
      const closed = Deferred.makeUnsafe<void>()
      session.on("goaway", (code, last) => Deferred.doneUnsafe(goaway, Exit.succeed([code, last] as const)))
      session.on("close", () => {
        Deferred.doneUnsafe(goaway, Exit.die(new Error("The session closed without GOAWAY")))
        Deferred.doneUnsafe(closed, Exit.void)
      })
      const stream = session.request({ ":path": "/slow" })
      const streamed = Deferred.makeUnsafe<{ readonly status: unknown; readonly body: string }, Error>()
      let status: unknown
      let body = ""
      stream.setEncoding("utf8")
      stream.on("response", (headers) => {
        status = headers[":status"]
      })
      stream.on("data", (chunk: string) => (body += chunk))
      stream.on("error", (error) => Deferred.doneUnsafe(streamed, Exit.fail(error)))
      stream.on("end", () => Deferred.doneUnsafe(streamed, Exit.succeed({ status, body })))

      const first = yield* ask(https, "/slow", { ca: cert })
      const second = yield* ask(http2, "/slow", { ca: cert })
      yield* program.printed(/(?:slow: begun[^]*){3}/)
      yield* program.kill("SIGTERM")
      assert.isFalse(first.isAnswered() || second.isAnswered() || Deferred.isDoneUnsafe(streamed))

      const [code, lastStream] = yield* Deferred.await(goaway)
      assert.deepStrictEqual([code, lastStream], [0, stream.id])
      assert.isFalse(Deferred.isDoneUnsafe(streamed), "GOAWAY comes with the drain, before the answer")
      assert.deepStrictEqual(yield* Deferred.await(streamed), { status: 200, body: "Worth the wait\n" })
      const answers = [yield* first.answer, yield* second.answer]
      for (const answer of answers) assertLastAnswer(answer, "Worth the wait\n")
      yield* Deferred.await(closed)
      const ended = yield* program.ended
      assert.deepStrictEqual([ended.code, ended.signal], [0, null])
      assert.isBelow(after(answers, ended), atOnce)
    })
  )

  it.live("04-websocket-and-sse closes the WebSocket with 1001, ends the event stream cleanly, and exits with 0", () =>
    Effect.gen(function* () {
      const program = yield* example("04-websocket-and-sse")
      const port = program.ports[0]!
      const ticks = yield* ask(port, "/ticks")
      const echoed = Deferred.makeUnsafe<string, Error>()
      const closed = Deferred.makeUnsafe<number, Error>()
      const socket = yield* Effect.acquireRelease(
        Effect.sync(() => new WebSocket(`ws://localhost:${port}/echo`)),
        (socket) => Effect.sync(() => socket.terminate())
      )
      socket.on("open", () => socket.send("hello"))
      socket.on("message", (data: Buffer) => Deferred.doneUnsafe(echoed, Exit.succeed(data.toString())))
      socket.on("close", (code) => Deferred.doneUnsafe(closed, Exit.succeed(code)))
      socket.on("error", (error) => {
        Deferred.doneUnsafe(echoed, Exit.fail(error))
        Deferred.doneUnsafe(closed, Exit.fail(error))
      })
      assert.strictEqual(yield* Deferred.await(echoed), "hello")
      yield* ticks.started
      assert.isFalse(ticks.isAnswered())
      yield* program.kill("SIGTERM")

      assert.strictEqual(yield* Deferred.await(closed), 1001)
      const answer = yield* ticks.answer
      assert.strictEqual(answer.headers["content-type"], "text/event-stream")
      assert.match(answer.body, /^(data: \d+\n\n)+$/)
      const ended = yield* program.ended
      assert.deepStrictEqual([ended.code, ended.signal], [0, null])
      assert.isBelow(after([answer], ended), atOnce)
    })
  )

  it.live("05-express answers what is in flight, ends the event stream, and gives up the long poll at once", () =>
    Effect.gen(function* () {
      const program = yield* example("05-express")
      const port = program.ports[0]!
      const read = yield* ask(port, "/news")
      yield* program.printed(/news: waiting/)
      const post = { method: "POST", headers: { "content-type": "text/plain" }, body: "something happened" }
      yield* (yield* ask(port, "/news", post)).answer
      assert.strictEqual((yield* read.answer).body, "something happened")

      const ticks = yield* ask(port, "/ticks")
      yield* ticks.started
      const news = yield* ask(port, "/news")
      yield* program.printed(/news: waiting[^]*news: waiting/)
      const slow = yield* ask(port, "/slow")
      yield* program.printed(/slow: begun/)
      yield* program.kill("SIGTERM")

      const poll = yield* news.answer
      assertLastAnswer(poll, "", 204)
      const stream = yield* ticks.answer
      assert.match(stream.body, /^(data: \d+\n\n)+$/)
      assert.isFalse(slow.isAnswered())
      const answer = yield* slow.answer
      assertLastAnswer(answer, "Worth the wait\n")
      const ended = yield* program.ended
      assert.deepStrictEqual([ended.code, ended.signal], [0, null])
      assert.isBelow(after([poll, stream, answer], ended), atOnce)
    })
  )

  it.live(
    "06-health-and-lame-duck is not ready but serves in the lame duck, and is alive until its last upload ends",
    () =>
      Effect.gen(function* () {
        const program = yield* example("06-health-and-lame-duck", 2)
        // What is beneath listens first.
        const [health, app] = program.ports as [number, number]
        const get = (port: number, path: string) => Effect.flatMap(ask(port, path), ({ answer }) => answer)
        const probe = (path: string) => Effect.map(get(health, path), ({ body, status }) => [status, JSON.parse(body)])
        assert.deepStrictEqual(yield* probe("/readyz"), [200, { status: "ok", phase: "Running" }])
        assert.strictEqual((yield* get(app, "/")).headers.connection, "keep-alive")

        const headers = { "content-length": 5 }
        const upload = yield* ask(app, "/upload", { method: "PUT", headers, hold: true })
        upload.sent.write("he")
        yield* program.printed(/upload: begun/)
        yield* program.kill("SIGTERM")

        yield* program.printed(/phase: LameDuck/)
        assert.deepStrictEqual(yield* probe("/readyz"), [503, { status: "unavailable", phase: "LameDuck" }])
        assert.deepStrictEqual(yield* probe("/livez"), [200, { status: "ok", phase: "LameDuck" }])
        assertLastAnswer(yield* get(app, "/"), "Home\n")

        yield* program.printed(/phase: Draining/)
        yield* refused(app)
        assert.deepStrictEqual(yield* probe("/readyz"), [503, { status: "unavailable", phase: "Draining" }])
        assert.deepStrictEqual(yield* probe("/livez"), [200, { status: "ok", phase: "Draining" }])

        upload.sent.end("llo")
        const answer = yield* upload.answer
        assertLastAnswer(answer, "5 bytes\n")
        const ended = yield* program.ended
        assert.deepStrictEqual([ended.code, ended.signal], [0, null])
        assert.isBelow(after([answer], ended), atOnce)
      })
  )
})
