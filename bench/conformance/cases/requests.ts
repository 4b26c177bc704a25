/** Requests and responses under way when the signal comes. */
import { Effect } from "effect"
import { connect } from "../../../test/support/peers.ts"
import { answer, answered, type Group, inFlight, saysClose } from "../case.ts"
import { expect, within } from "../server.ts"

const keepAlive = ["node:http", "NodeHttpServer", "fastify", "close-with-grace"]
const whyKeepAlive = "answers keep-alive while closing, and waits for the client or for the keep-alive timeout"
const tracksBoth = "tracks the raw socket beside that of TLS, and takes it for idle"

const bodyOf = (n: number): string => Array.from({ length: n }, (_, index) => `chunk ${n - 1 - index}\n`).join("")

export const requests: Group = {
  name: "Requests in flight",
  cases: [
    {
      name: "A request in flight is answered",
      origin: "Go net/http, http-terminator, http-shutdown, fastify",
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* inFlight(server, "/slow?ms=400")
        yield* server.signal()
        yield* answered(peer, "slow")
      })
    },
    {
      name: "A request in flight over HTTPS is answered",
      origin: "stoppable, node-http-shutdown #12",
      settings: { mode: "https" },
      knownToFail: ["http-graceful-shutdown"],
      because: tracksBoth,
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* inFlight(server, "/slow?ms=400", { tls: true })
        yield* server.signal()
        yield* answered(peer, "slow")
      })
    },
    {
      name: "The response of a request in flight says Connection: close",
      origin: "http-terminator, http-graceful-shutdown, hapi",
      knownToFail: ["node:http", "NodeHttpServer", "stoppable", "terminus", "fastify", "close-with-grace"],
      because: "leaves the header as it was when the request came",
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* inFlight(server, "/slow?ms=2500")
        yield* server.signal()
        yield* saysClose(yield* answer(peer))
      })
    },
    {
      name: "The process ends soon after the response, though the client would keep the connection",
      origin: "Go net/http, http-terminator #16",
      knownToFail: keepAlive,
      because: whyKeepAlive,
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* inFlight(server, "/slow?ms=400")
        yield* server.signal()
        yield* answered(peer, "slow")
        yield* server.endsCleanly()
      })
    },
    {
      name: "The process ends soon after three responses on three connections, too",
      origin: "kms, its busy count",
      knownToFail: keepAlive,
      because: whyKeepAlive,
      run: Effect.fnUntraced(function* (server) {
        const peers = yield* Effect.forEach([1, 2, 3], () => connect(server.port))
        for (const peer of peers) peer.get("/slow?ms=400")
        yield* server.began("/slow", 3)
        yield* server.signal()
        yield* Effect.forEach(peers, (peer) => answered(peer, "slow"), { concurrency: "unbounded" })
        yield* server.endsCleanly()
      })
    },
    {
      name: "Fifty requests in flight are all answered",
      origin: "stoppable",
      run: Effect.fnUntraced(function* (server) {
        const peers = yield* Effect.forEach(Array.from({ length: 50 }), () => connect(server.port), {
          concurrency: "unbounded"
        })
        for (const peer of peers) peer.get("/slow?ms=1000")
        yield* server.began("/slow", 50)
        yield* server.signal()
        yield* Effect.forEach(peers, (peer) => answered(peer, "slow"), { concurrency: "unbounded" })
      })
    },
    {
      name: "A response whose head is out comes to its end",
      origin: "stoppable, http-terminator",
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* inFlight(server, "/stream?n=6&ms=100")
        yield* within(3000, "the response begins")(peer.body(8))
        yield* server.signal()
        yield* answered(peer, bodyOf(6))
      })
    },
    {
      name: "A response over HTTPS whose head is out comes to its end",
      origin: "stoppable; probe",
      settings: { mode: "https" },
      knownToFail: ["http-graceful-shutdown"],
      because: tracksBoth,
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* inFlight(server, "/stream?n=6&ms=100", { tls: true })
        yield* within(3000, "the response begins")(peer.body(8))
        yield* server.signal()
        yield* answered(peer, bodyOf(6))
      })
    },
    {
      name: "The process ends soon after a response whose head was out",
      origin: "stoppable; probe",
      knownToFail: [...keepAlive, "http-terminator"],
      because: `${whyKeepAlive}; http-terminator waits for the whole of its limit`,
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* inFlight(server, "/stream?n=6&ms=100")
        yield* within(3000, "the response begins")(peer.body(8))
        yield* server.signal()
        yield* answered(peer, bodyOf(6))
        yield* server.endsCleanly()
      })
    },
    {
      name: "The next request on a connection that was told keep-alive is answered",
      origin: "http-terminator",
      hurried: true,
      knownToFail: ["stoppable", "terminus", "http-graceful-shutdown", "fastify", "close-with-grace"],
      because: "closes the connection behind the response, or answers 503",
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* inFlight(server, "/stream?n=6&ms=100")
        yield* within(3000, "the response begins")(peer.body(8))
        yield* server.signal()
        yield* answered(peer, bodyOf(6))
        peer.get("/quick")
        yield* answered(peer, "quick")
      })
    },
    {
      name: "A large response gets to a slow reader to the last byte",
      origin: "nodejs/node #60617; probe",
      knownToFail: [
        "node:http",
        "NodeHttpServer",
        "stoppable",
        "terminus",
        "http-graceful-shutdown",
        "fastify",
        "close-with-grace"
      ],
      because:
        "destroys a connection whose response has been handed over and is still on its way, as server.close() does",
      run: Effect.fnUntraced(function* (server) {
        const size = 32 * 1024 * 1024
        const peer = yield* connect(server.port)
        peer.readSlowly(1024 * 1024, 15)
        peer.get("/big?mb=32")
        yield* within(3000, "the response begins")(peer.body(1024 * 1024))
        yield* server.signal()
        const { bytes } = yield* answer(peer, 10_000)
        yield* expect(bytes === size, `${bytes} bytes came`)
      })
    },
    {
      name: "A client that leaves is not waited for",
      origin: "hapi, Node",
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* inFlight(server, "/never")
        yield* server.signal()
        peer.socket.destroy()
        yield* server.endsCleanly()
      })
    }
  ]
}
