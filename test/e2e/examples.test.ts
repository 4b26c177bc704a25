import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Schedule } from "effect"
import { existsSync, readFileSync, statSync } from "node:fs"
import { connect } from "node:http2"
import { type AddressInfo, connect as connectTcp, createServer, type Socket } from "node:net"
import { join } from "node:path"
import WebSocket from "ws"
import { cert } from "../../examples/03-https-and-http2/certificate.ts"
import { content, whole } from "../../examples/11-everything/content.ts"
import { converse } from "../support/conversation.ts"
import { after, type Answer, ask, example, fileOf, refused } from "../support/examples.ts"
import { type Ended, type Program, start } from "../support/program.ts"

/** What a program printed that matches, in its order. */
const lines = (program: Program, pattern: RegExp): Array<string> =>
  Array.from(program.output().matchAll(pattern), ([line]) => line)

/** A client that keeps its connection alive would hold a server that does not ask it to leave for 5 seconds. */
const atOnce = 3000

const assertLastAnswer = (answer: Answer, body: string, status = 200) => {
  assert.strictEqual(answer.status, status)
  assert.strictEqual(answer.body, body)
  assert.strictEqual(answer.headers.connection, "close")
}

/** It ended by itself, with 0, and as soon as the last of its clients had what it was to get. */
const assertEndedAfter = (answers: ReadonlyArray<{ readonly at: number }>, ended: Ended) => {
  assert.deepStrictEqual([ended.code, ended.signal], [0, null])
  assert.isBelow(after(answers, ended), atOnce)
}

/** A WebSocket, what it heard and how it was closed. */
const webSocket = (url: string) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => new WebSocket(url)),
      (socket) => Effect.sync(() => socket.terminate())
    ),
    (socket) => {
      const messages: Array<string> = []
      const answered = Deferred.makeUnsafe<void>()
      const closed = Deferred.makeUnsafe<{ readonly code: number; readonly at: number }, Error>()
      socket.on("message", (data: Buffer) => {
        messages.push(data.toString())
        Deferred.doneUnsafe(answered, Exit.void)
      })
      socket.on("close", (code) => Deferred.doneUnsafe(closed, Exit.succeed({ code, at: performance.now() })))
      socket.on("error", (error) => Deferred.doneUnsafe(closed, Exit.fail(error)))
      return {
        messages,
        /** Says something as soon as it is open, and completes with the first answer; fails if it closes first. */
        ask: (message: string) =>
          Effect.andThen(
            Effect.sync(() => socket.on("open", () => socket.send(message))),
            Effect.raceFirst(Deferred.await(answered), Effect.andThen(Deferred.await(closed), Effect.die("It closed")))
          ),
        closed: Deferred.await(closed)
      }
    }
  )

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
      assert.match(open!, /busy "mail": [2-9] in flight, oldest for /)
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
    "06-health-and-lame-duck is ready with its database, not in the lame duck, and alive until its last upload ends",
    () =>
      Effect.gen(function* () {
        const program = yield* example("06-health-and-lame-duck", 2)
        // What is beneath listens first.
        const [health, app] = program.ports as [number, number]
        const get = (port: number, path: string) => Effect.flatMap(ask(port, path), ({ answer }) => answer)
        const probe = (path: string) => Effect.map(get(health, path), ({ body, status }) => [status, JSON.parse(body)])
        // It says that it listens a moment before it is ready, and the answer of a check holds for a second.
        const becomes = (status: number) =>
          Effect.repeat(probe("/readyz"), { until: ([is]) => is === status, schedule: Schedule.spaced("50 millis") })
        const up = [200, { status: "ok", phase: "Running", checks: { database: "ok" } }]
        const away = [503, { status: "unavailable", phase: "Running", checks: { database: "failed" } }]
        yield* becomes(200)
        for (const [plug, expected, line] of [
          ["out\n", away, /WARN.*Health check "database" gave false/],
          ["in\n", up, /INFO.*Health check "database" is ok again/]
        ] as const) {
          const { answer } = yield* ask(app, "/plug", { method: "POST" })
          assert.strictEqual((yield* answer).body, plug)
          yield* becomes(expected[0] as number)
          assert.deepStrictEqual(yield* probe("/readyz"), expected)
          yield* program.printed(line)
        }
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

  it.live("07-tcp-and-tls answers what is under way over TCP and TLS, and says goodbye to whoever is idle", () =>
    Effect.gen(function* () {
      const program = yield* example("07-tcp-and-tls", 2)
      const connect = (scheme: "tcp" | "tls") =>
        converse({ host: "localhost", port: program.portOf(`${scheme}:`) }, scheme === "tls" ? { ca: cert } : {})
      const [tcp, tls] = [yield* connect("tcp"), yield* connect("tls")]
      const idle = [yield* connect("tcp"), yield* connect("tls")]
      tcp.say("one\ntwo\n")
      tls.say("three\n")
      // Half a line is not a request.
      for (const client of idle) client.say("idle\nfo")
      yield* program.printed(/(?:(?:one|three|idle): begun[^]*){4}/)
      for (const client of idle) yield* client.heard(/^idle: worth the wait\n$/)
      yield* tcp.heard(/^one: worth the wait\n$/)
      yield* program.printed(/two: begun/)
      tls.say("four\n")
      yield* program.printed(/four: begun/)
      yield* program.kill("SIGTERM")

      const goodbyes = [yield* idle[0]!.closed, yield* idle[1]!.closed]
      for (const { ended, error, text } of goodbyes) {
        assert.deepStrictEqual([text, ended, error], ["idle: worth the wait\ngoodbye\n", true, undefined])
      }
      assert.isFalse(tls.isClosed(), "the goodbyes come with the drain, and not with the last answer")
      const answers = [yield* tcp.closed, yield* tls.closed]
      assert.deepStrictEqual(
        answers.map(({ text }) => text),
        [
          "one: worth the wait\ntwo: worth the wait\ngoodbye\n",
          "three: worth the wait\nfour: worth the wait\ngoodbye\n"
        ]
      )
      for (const { ended, error } of answers) assert.deepStrictEqual([ended, error], [true, undefined])
      assertEndedAfter(answers, yield* program.ended)
    })
  )

  it.live(
    "08-unix-socket answers over both sockets, tells of the drain while it lasts, and leaves no file behind",
    () =>
      Effect.gen(function* () {
        const program = yield* example("08-unix-socket", 0)
        yield* program.printed(/(?:Listening on unix:[^]*){2}/)
        const [path, http] = [join(program.directory, "console.sock"), join(program.directory, "http.sock")]
        for (const file of [path, http]) assert.strictEqual(statSync(file).mode & 0o777, 0o600)
        const console = yield* converse({ path })
        console.say("status\n")
        yield* console.heard(
          /^Running\n {2}console: open, 1 connection, [^]*\n {2}application: open, 0 connections, 0 in flight\n$/
        )
        const slow = yield* ask(0, "/slow", { socketPath: http })
        yield* program.printed(/slow: begun/)
        yield* program.kill("SIGTERM")
        yield* program.printed(/Shutting down \(SIGTERM\)/)

        // One that connects in the drain is answered, too: it is the application that drains.
        const late = yield* converse({ path })
        late.say("status\n")
        yield* late.heard(
          /Draining .*\n.*console: open[^]*\n.*application: draining, 1 connection, 1 in flight, [^]*GET \S+ from a local socket for \d+ms\n$/
        )
        assert.isFalse(existsSync(http), "the file goes with the listener")
        assert.isTrue(existsSync(path))
        const answer = yield* slow.answer
        assertLastAnswer(answer, "Worth the wait\n")
        for (const { ended, error } of [yield* console.closed, yield* late.closed]) {
          assert.deepStrictEqual([ended, error], [true, undefined])
        }
        assertEndedAfter([answer], yield* program.ended)
        assert.isFalse(existsSync(path))
      })
  )

  it.live("08-unix-socket stops when it is told to on its console, and gives the reason", () =>
    Effect.gen(function* () {
      const program = yield* example("08-unix-socket", 0)
      yield* program.printed(/(?:Listening on unix:[^]*){2}/)
      const [path, http] = [join(program.directory, "console.sock"), join(program.directory, "http.sock")]
      const slow = yield* ask(0, "/slow", { socketPath: http })
      yield* program.printed(/slow: begun/)
      const console = yield* converse({ path })
      console.say("help\nstop\n")
      yield* console.heard(/^commands: status, stop\nstopping\n$/)
      const answer = yield* slow.answer
      assertLastAnswer(answer, "Worth the wait\n")
      assertEndedAfter([answer], yield* program.ended)
      assert.match(program.output(), /Shutdown complete .*\(request: asked for on the console\)/)
      assert.deepStrictEqual([existsSync(path), existsSync(http)], [false, false])
    })
  )

  it.live("09-rpc answers the call in flight and one that comes during the drain, and ends the stream", () =>
    Effect.gen(function* () {
      const server = yield* example("09-rpc")
      const client = yield* start(fileOf("09-rpc", "client.ts"), { env: { PORT: String(server.ports[0]) } })
      yield* client.printed(/the next multiple is 14/)
      yield* server.printed(/Multiply 6 by 7: begun/)
      yield* server.kill("SIGTERM")
      const done = yield* client.ended
      assert.strictEqual(done.code, 0, client.output())
      const [question, ...rest] = lines(client, /.+/g)
      assert.strictEqual(question, "6 times 7?")
      const multiples = rest.filter((line) => line.startsWith("the next"))
      assert.deepStrictEqual(rest, [
        ...multiples.map((_, index) => `the next multiple is ${(index + 1) * 7}`),
        "no more multiples; 85 by 2?",
        "85 by 2 is 42, and 1 is left",
        "6 times 7 is 42"
      ])
      assertEndedAfter([done], yield* server.ended)
    })
  )

  it.live("10-hijacked closes a WebSocket with a last message and 1001, and lets a tunnel finish its transfer", () =>
    Effect.gen(function* () {
      const program = yield* example("10-hijacked", 2)
      const [ws, proxy] = [program.portOf("(WebSocket)"), program.portOf("(proxy)")]

      const arrived = Deferred.makeUnsafe<Socket>()
      const upstream = yield* Effect.acquireRelease(
        Effect.callback<ReturnType<typeof createServer>>((resume) => {
          const server = createServer((socket) => {
            socket.on("error", () => {})
            socket.once("data", () => Deferred.doneUnsafe(arrived, Exit.succeed(socket)))
          })
          server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.sync(() => server.close())
      )
      const tunnel = yield* converse({ host: "localhost", port: proxy })
      const target = `127.0.0.1:${(upstream.address() as AddressInfo).port}`
      tunnel.say(`CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n\r\n`)
      yield* tunnel.heard(/^HTTP\/1\.1 200 .*\r\n\r\n$/)
      tunnel.say("all of it, please")
      const source = yield* Deferred.await(arrived)
      source.write("the first half, ")
      yield* tunnel.heard(/the first half, $/)

      const client = yield* webSocket(`ws://localhost:${ws}`)
      yield* client.ask("hello")
      yield* program.kill("SIGTERM")
      const closed = yield* client.closed
      assert.deepStrictEqual([closed.code, client.messages], [1001, ["hello", "Goodbye, try another server"]])
      yield* refused(ws)
      yield* refused(proxy)

      assert.isFalse(tunnel.isClosed())
      source.end("the second half")
      const { ended, error, text, at } = yield* tunnel.closed
      assert.match(text, /\r\n\r\nthe first half, the second half$/)
      assert.deepStrictEqual([ended, error], [true, undefined])
      assertEndedAfter([{ at }], yield* program.ended)
    })
  )

  it.live("11-everything finishes what is under way on every listener, and releases the database last", () =>
    Effect.gen(function* () {
      const program = yield* example("11-everything", 3)
      const http = program.portOf("http:")
      const path = join(program.directory, "console.sock")
      yield* program.printed(/Listening on unix:/)
      yield* program.printed(/report-(\d+): begun(?![^]*report-\1: written)/)
      const slow = yield* ask(http, "/slow/http")
      const events = yield* ask(http, "/events")
      yield* events.started
      const client = yield* webSocket(`ws://localhost:${http}/rows`)
      yield* client.ask("socket")
      const hex = (name: string, size: number) => content(name, size).toString("hex")
      assert.deepStrictEqual(client.messages, [hex("socket", 32)])
      const busy = [yield* converse({ port: program.portOf("tcp:") }), yield* converse({ path })]
      const idle = [yield* converse({ port: program.portOf("tcp:") }), yield* converse({ path })]
      for (const each of idle) each.say("quick idle\n")
      for (const each of idle) yield* each.heard(/\n/)
      // Six seconds' work on the one: enough for another report, if that could begin.
      for (const [index, each] of busy.entries()) each.say(`quick idle\n${"slow row\n".repeat(index === 0 ? 3 : 1)}`)
      for (const each of busy) yield* each.heard(/\n/)
      yield* program.kill("SIGTERM")
      const [began] = yield* program.printed(/Shutting down \(SIGTERM\).*/)

      assert.strictEqual((yield* client.closed).code, 1001)
      assert.match((yield* events.answer).body, /^(data: [0-9a-f]{64}\n\n)+$/)
      const quick = `${hex("idle", 64 * 1024)}\n`
      for (const each of idle) {
        const { ended, error, text } = yield* each.closed
        assert.deepStrictEqual([text === `${quick}goodbye\n`, ended, error], [true, true, undefined])
      }
      assert.isFalse(slow.isAnswered())
      const row = `${hex("row", 64 * 1024)}\n`
      for (const [index, each] of busy.entries()) {
        const { ended, error, text } = yield* each.closed
        const isWhole = text === `${quick}${row.repeat(index === 0 ? 3 : 1)}goodbye\n`
        assert.deepStrictEqual([isWhole, ended, error], [true, true, undefined])
      }
      const answer = yield* slow.answer
      assert.deepStrictEqual([answer.status, answer.headers.connection], [200, "close"])
      assert.isTrue(answer.bytes.equals(content("http", 256 * 1024)))

      const ended = yield* program.ended
      assert.deepStrictEqual([ended.code, ended.signal], [0, null])
      // The report that was under way is whole, none was begun since, and nothing came after the database.
      const reports = lines(program, /report-\d+(?=: begun)/g)
      const report = reports.at(-1)!
      assert.isTrue(readFileSync(join(program.directory, report)).equals(whole(report)))
      assert.deepStrictEqual(lines(program, /(?:report-\d+: .*|released .*)/g).slice(-2), [
        `${report}: written`,
        "released the database"
      ])
      assert.notMatch(program.output().slice(program.output().indexOf(began)), /report-\d+: begun/)
      assert.isFalse(existsSync(path))
    })
  )
})
