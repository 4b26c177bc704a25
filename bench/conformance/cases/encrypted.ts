/** TLS itself, and HTTP/2. */
import { Effect } from "effect"
import { halfHandshake, type SessionPeer, session } from "../../../test/support/peers.ts"
import { answered, type Group, kept } from "../case.ts"
import { expect, type Server, within } from "../server.ts"

export const tls: Group = {
  name: "TLS",
  cases: [
    {
      name: "A handshake that is never finished does not hold the process",
      origin: "no suite; probe",
      settings: { mode: "https" },
      knownToFail: [
        "node:http",
        "NodeHttpServer",
        "http-terminator",
        "stoppable",
        "terminus",
        "fastify",
        "close-with-grace"
      ],
      because: "does not know of a connection before its handshake, and waits for it for ever, or to its limit",
      run: Effect.fnUntraced(function* (server) {
        yield* halfHandshake(server.port, 40)
        yield* kept(server, { tls: true })
        yield* server.signal()
        yield* server.endsCleanly()
      })
    },
    {
      name: "A handshake that is finished after the signal leads to an answer",
      origin: "no suite; probe",
      settings: { mode: "https" },
      hurried: true,
      knownToFail: ["http-terminator", "http-graceful-shutdown", "fastify", "close-with-grace"],
      because: "destroys what is new, or answers 503",
      run: Effect.fnUntraced(function* (server) {
        const { peer, proceed } = yield* halfHandshake(server.port, 40)
        yield* kept(server, { tls: true })
        yield* server.signal()
        yield* within(4000, "the handshake ends")(Effect.raceFirst(proceed, peer.closed))
        peer.get("/quick")
        yield* answered(peer, "quick")
      })
    },
    {
      name: "An idle connection is ended with close_notify, and not reset",
      origin: "RFC 8446 section 6.1; probe",
      settings: { mode: "https" },
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* kept(server, { tls: true })
        yield* server.signal()
        const { ended, error } = yield* within(5000, "the connection closes")(peer.closed)
        yield* expect(ended && error === undefined, error ?? "it closed without an end")
      })
    }
  ]
}

const request = (peer: SessionPeer, path: string) => {
  const stream = peer.request(path)
  return { stream, response: within(6000, "the response comes whole")(stream.response) }
}

/** A session with a request on one of its streams, whose handler has begun and takes so many milliseconds. */
const busySession = Effect.fnUntraced(function* (server: Server, millis: number, secure: boolean) {
  const peer = yield* session(server.port, { tls: secure })
  const { response, stream } = request(peer, `/slow?ms=${millis}`)
  yield* server.began("/slow")
  const answer = Effect.flatMap(response, ({ status, text }) =>
    expect(status === 200 && text === "slow", `the answer was ${status} ${text}`)
  )
  return { peer, stream, answer }
})

/** Of a session over TLS, which one of the peers destroys. */
const overTls = {
  needs: ["http2"],
  settings: { mode: "h2" },
  knownToFail: ["http-graceful-shutdown"],
  because: "destroys the session"
} as const

const inFlight = (secure: boolean, origin: string, known: ReadonlyArray<string>) =>
  ({
    name: secure ? "A stream in flight over TLS is answered" : "A stream in flight is answered",
    origin,
    needs: ["http2"],
    settings: { mode: secure ? "h2" : "h2c" },
    knownToFail: known,
    because: "cuts the connection",
    run: Effect.fnUntraced(function* (server) {
      const { answer } = yield* busySession(server, 400, secure)
      yield* server.signal()
      yield* answer
    })
  }) satisfies Group["cases"][number]

export const http2: Group = {
  name: "HTTP/2",
  cases: [
    inFlight(false, "Go http2, hapi", []),
    inFlight(true, "Go http2; probe", ["http-graceful-shutdown"]),
    {
      name: "An idle session gets GOAWAY, and does not hold the process",
      origin: "Go http2, Bandit, Node #57611",
      ...overTls,
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* session(server.port, { tls: true })
        yield* request(peer, "/quick").response
        yield* server.signal()
        const { code } = yield* within(3000, "GOAWAY comes")(peer.goaway)
        yield* expect(code === 0, `GOAWAY says ${code}`)
        yield* server.endsCleanly()
      })
    },
    {
      name: "With a stream in flight GOAWAY comes at once, and the process ends soon after the stream",
      origin: "Go http2, grpc-go, Node",
      ...overTls,
      run: Effect.fnUntraced(function* (server) {
        const { answer, peer, stream } = yield* busySession(server, 4000, true)
        yield* server.signal()
        const { last } = yield* within(3000, "GOAWAY comes")(peer.goaway)
        yield* expect(last >= (stream.stream.id ?? 0), `GOAWAY names stream ${last} as the last, not that in flight`)
        yield* answer
        yield* server.endsCleanly()
      })
    },
    {
      name: "A client that says GOAWAY itself is answered, and does not hold the process",
      origin: "h2",
      ...overTls,
      run: Effect.fnUntraced(function* (server) {
        const { answer, peer } = yield* busySession(server, 1500, true)
        peer.session.goaway()
        yield* server.signal()
        yield* answer
        yield* server.endsCleanly()
      })
    },
    {
      name: "A body of 8 MB that is on its way comes to its end",
      origin: "Node",
      ...overTls,
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* session(server.port, { tls: true })
        const { response, stream } = request(peer, "/big?mb=8")
        yield* within(3000, "the body begins")(stream.body(16 * 1024))
        stream.stream.pause()
        yield* server.signal()
        stream.stream.resume()
        const { bytes } = yield* response
        yield* expect(bytes === 8 * 1024 * 1024, `${bytes} bytes came`)
      })
    },
    {
      name: "A stream opened while another is in flight, after the signal, is answered or refused, and not left in silence",
      origin: "h2, Go http2; probe",
      needs: ["http2"],
      settings: { mode: "h2c" },
      run: Effect.fnUntraced(function* (server) {
        const { answer, peer } = yield* busySession(server, 800, false)
        yield* server.send("SIGTERM")
        const outcomes = yield* within(
          5000,
          "each stream is told"
        )(Effect.forEach(Array.from({ length: 20 }), () => peer.ask("/quick"), { concurrency: "unbounded" }))
        const bad = outcomes.filter((outcome) => outcome !== "answered" && outcome !== "refused")
        yield* expect(bad.length === 0, `${bad.length} of 20: ${bad[0]}`)
        yield* answer
      })
    }
  ]
}
