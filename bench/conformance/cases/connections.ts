/** Connections without a request in flight: kept, silent, or with half a request; and those that come late. */
import { Effect, Fiber } from "effect"
import { connect } from "../../../test/support/peers.ts"
import { answered, type Group, hammer, inFlight, kept, saysClose } from "../case.ts"
import { expect, within } from "../server.ts"

const peers = ["http-terminator", "stoppable", "terminus", "http-graceful-shutdown"]
const everyone = ["node:http", "NodeHttpServer", "fastify", "close-with-grace", ...peers]
const destroysIdle = "closes connections that look idle at once, with the next request on its way"
/** Of a client, after the signal: longer than any subject takes to begin. */
const pause = 100

const noHeadCheck = "server.close() stops the check for slow heads, and does not close such a connection"

export const idle: Group = {
  name: "Keep-alive and idle connections",
  cases: [
    {
      name: "An idle keep-alive connection does not hold the process",
      origin: "stoppable, http-graceful-shutdown, fastify, Go net/http",
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* kept(server)
        yield* server.signal()
        yield* server.endsCleanly()
        yield* within(3000, "the client sees the end")(peer.closed)
      })
    },
    {
      name: "An idle connection over HTTPS does not hold the process",
      origin: "stoppable, Node",
      settings: { mode: "https" },
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* kept(server, { tls: true })
        yield* server.signal()
        yield* server.endsCleanly()
        yield* within(3000, "the client sees the end")(peer.closed)
      })
    },
    {
      name: "Twenty clients without pause lose no request",
      origin: "no suite; nodejs/node #60617, #51677",
      hurried: true,
      knownToFail: everyone,
      because: destroysIdle,
      run: Effect.fnUntraced(function* (server) {
        const { lost } = yield* hammer(server, 20, server.send("SIGTERM"))
        yield* expect(lost === 0, `${lost} of 20 clients lost a request`)
        yield* server.endsCleanly()
      })
    },
    {
      name: "Twenty clients over HTTPS without pause lose no request",
      origin: "no suite",
      settings: { mode: "https" },
      hurried: true,
      knownToFail: everyone,
      because: destroysIdle,
      run: Effect.fnUntraced(function* (server) {
        const { lost } = yield* hammer(server, 20, server.send("SIGTERM"), { tls: true })
        yield* expect(lost === 0, `${lost} of 20 clients lost a request`)
        yield* server.endsCleanly()
      })
    },
    {
      name: "Each of twenty clients without pause is told to close before its connection closes",
      origin: "RFC 9112 section 9.6; http-terminator",
      hurried: true,
      knownToFail: everyone,
      because: "closes connections without a word",
      run: Effect.fnUntraced(function* (server) {
        const { told } = yield* hammer(server, 20, server.send("SIGTERM"))
        yield* expect(told === 20, `${told} of 20 clients were told`)
      })
    },
    {
      name: "A request sent a moment after the signal, on a connection in use, is answered",
      origin: "no suite; hapi; nodejs/node #51677",
      hurried: true,
      knownToFail: everyone,
      because: destroysIdle,
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* kept(server)
        yield* server.signal()
        yield* Effect.sleep(pause)
        peer.get("/quick")
        yield* saysClose(yield* answered(peer, "quick"))
      })
    }
  ]
}

export const silent: Group = {
  name: "Silent connections and half requests",
  cases: [
    {
      name: "A connection that never spoke does not hold the process",
      origin: "Go net/http, hyper, nodejs/node #63452",
      run: Effect.fnUntraced(function* (server) {
        yield* connect(server.port)
        yield* kept(server)
        yield* server.signal()
        yield* server.endsCleanly()
      })
    },
    {
      name: "A connection opened ahead that first speaks a moment after the signal is answered",
      origin: "no suite; stoppable #27",
      hurried: true,
      knownToFail: everyone,
      because: "closes a connection that has not spoken at once",
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* connect(server.port)
        yield* kept(server)
        yield* server.signal()
        yield* Effect.sleep(pause)
        peer.get("/quick")
        yield* answered(peer, "quick")
      })
    },
    {
      name: "Half a request head that is never finished does not hold the process",
      origin: "axum, Go net/http; probe",
      knownToFail: ["node:http", "NodeHttpServer", "fastify", "close-with-grace"],
      because: noHeadCheck,
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* connect(server.port)
        peer.send("GET /quick HTTP/1.1\r\nHost: local")
        yield* kept(server)
        yield* server.signal()
        yield* server.endsCleanly()
      })
    },
    {
      name: "Half a request head that is finished after the signal is answered",
      origin: "hyper; probe",
      hurried: true,
      knownToFail: [...peers, "fastify", "close-with-grace"],
      because: "takes the connection for idle, or answers 503",
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* connect(server.port)
        peer.send("GET /quick HTTP/1.1\r\nHost: local")
        yield* kept(server)
        yield* server.signal()
        yield* Effect.sleep(pause)
        peer.send("host\r\n\r\n")
        yield* answered(peer, "quick")
      })
    },
    {
      name: "Half a request head over HTTPS that is finished after the signal is answered",
      origin: "hyper; probe",
      settings: { mode: "https" },
      hurried: true,
      knownToFail: [...peers, "fastify", "close-with-grace"],
      because: "takes the connection for idle, or answers 503",
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* connect(server.port, { tls: true })
        peer.send("GET /quick HTTP/1.1\r\nHost: local")
        yield* kept(server, { tls: true })
        yield* server.signal()
        yield* Effect.sleep(pause)
        peer.send("host\r\n\r\n")
        yield* answered(peer, "quick")
      })
    }
  ]
}

export const late: Group = {
  name: "Accept queue and late connections",
  cases: [
    {
      name: "New connections are refused while a request is in flight",
      origin: "Go net/http, stoppable, ranch, ThousandIsland, http-terminator #22",
      knownToFail: ["http-terminator"],
      because: "closes the listening socket last, and resets what it accepts meanwhile",
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* inFlight(server, "/slow?ms=2000")
        const response = yield* Effect.forkChild(answered(peer, "slow"))
        yield* server.signal()
        yield* server.refusesBefore(Fiber.join(response))
        // Else it may only have been gone.
        yield* Fiber.join(response)
      })
    },
    {
      name: "Forty connections in the accept queue are taken, and their requests answered",
      origin: "no suite",
      knownToFail: everyone,
      because: "closes the listening socket with connections in its queue, which resets them",
      run: Effect.fnUntraced(function* (server) {
        yield* server.send("SIGSTOP")
        const peers = yield* Effect.forEach(Array.from({ length: 40 }), () => connect(server.port))
        for (const peer of peers) peer.get("/quick")
        yield* server.send("SIGTERM")
        yield* server.send("SIGCONT")
        yield* Effect.forEach(peers, (peer) => answered(peer, "quick"), { concurrency: "unbounded" })
        yield* server.endsCleanly()
      })
    },
    {
      name: "Two listeners in one process both refuse at once, whatever depends on what",
      origin: "terminus, kms, ranch",
      settings: { second: true },
      knownToFail: ["NodeHttpServer", "terminus"],
      because:
        "closes one listener after the other, as scopes close; terminus ends the process with the first that is done",
      run: Effect.fnUntraced(function* (server) {
        const second = yield* server.portOf("second")
        const peer = yield* inFlight(server, "/slow?ms=2000")
        const response = yield* Effect.forkChild(answered(peer, "slow"))
        yield* server.signal()
        yield* server.refusesBefore(Fiber.join(response), second)
        // Else it may only have been gone.
        yield* Fiber.join(response)
      })
    },
    {
      name: "With a request in flight on each of two listeners both are answered",
      origin: "fastify, terminus",
      settings: { second: true },
      knownToFail: ["terminus"],
      because: "ends the process with the first server that is done",
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* inFlight(server, "/slow?ms=800")
        const other = yield* connect(yield* server.portOf("second"))
        other.get("/slow?ms=1200")
        yield* server.began("/slow", 2)
        yield* server.signal()
        yield* Effect.all([answered(peer, "slow"), answered(other, "slow")], { concurrency: "unbounded" })
      })
    },
    {
      name: "A port that is taken is an error, and the process ends with a code that says so",
      origin: "http4s",
      run: Effect.fnUntraced(function* (server) {
        const other = yield* server.rival
        const { code } = yield* within(15_000, "it gives up")(other.ended)
        yield* expect(code !== 0, "it ended with 0")
        yield* expect(/in use|EADDRINUSE/.test(other.output()), "it does not say why")
      })
    }
  ]
}
