/** Pipelined requests, uploads, event streams. */
import { Effect } from "effect"
import { connect, upload } from "../../../test/support/peers.ts"
import { answer, answered, type Group, inFlight, saysClose } from "../case.ts"
import { expect, within } from "../server.ts"

const get = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`

export const pipelining: Group = {
  name: "Pipelining",
  cases: [
    {
      name: "Three pipelined requests are all answered",
      origin: "fastify, Node; probe",
      knownToFail: ["http-terminator", "http-graceful-shutdown"],
      because: "says close on the first response, behind which Node drops the others",
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* connect(server.port)
        peer.send(get("/slow?ms=500").repeat(3))
        yield* server.began("/slow")
        yield* server.signal()
        for (let i = 0; i < 3; i++) yield* answered(peer, "slow")
      })
    },
    {
      name: "A request in one packet with the end of an upload is answered, as the upload is",
      origin: "a defect of effect-kms; RFC 9112 section 9.6",
      knownToFail: ["http-terminator", "http-graceful-shutdown", "fastify", "close-with-grace"],
      because: "says close on the first response, behind which Node drops the other, or answers 503",
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* connect(server.port)
        peer.send("POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\nup")
        yield* server.began("/upload")
        yield* server.signal()
        yield* Effect.sleep(200)
        peer.send(`load${get("/slow?ms=300")}`)
        yield* answered(peer, "6")
        yield* answered(peer, "slow")
      })
    },
    {
      name: "An upload in one packet behind another request is answered, as that is",
      origin: "a defect of effect-kms; RFC 9112 section 9.6",
      knownToFail: ["http-terminator", "http-graceful-shutdown", "fastify", "close-with-grace"],
      because: "says close on the first response, behind which Node drops the other, or answers 503",
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* inFlight(server, "/slow?ms=1000")
        yield* server.signal()
        yield* Effect.sleep(200)
        peer.send("POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\nupload")
        yield* answered(peer, "slow")
        yield* answered(peer, "6")
      })
    },
    {
      name: "Of three pipelined responses only the last says close",
      origin: "RFC 9112 section 9.6; Go net/http",
      knownToFail: [
        "node:http",
        "NodeHttpServer",
        "http-terminator",
        "stoppable",
        "terminus",
        "http-graceful-shutdown",
        "fastify",
        "close-with-grace"
      ],
      because: "says so on none, or on the first",
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* connect(server.port)
        peer.send(get("/slow?ms=1500").repeat(3))
        yield* server.began("/slow")
        yield* server.signal()
        for (let i = 0; i < 2; i++) {
          const { headers } = yield* answer(peer)
          yield* expect(headers["connection"] !== "close", `response ${i + 1} says close`)
        }
        yield* saysClose(yield* answer(peer))
      })
    },
    {
      name: "A request pipelined behind one in flight, after the signal, is answered",
      origin: "fastify",
      knownToFail: ["http-terminator", "http-graceful-shutdown", "fastify", "close-with-grace"],
      because: "has said close by then, or answers 503",
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* inFlight(server, "/slow?ms=2500")
        yield* server.signal()
        peer.get("/quick")
        yield* answered(peer, "slow")
        yield* answered(peer, "quick")
      })
    }
  ]
}

const body = Buffer.alloc(256 * 1024, "u")

export const uploads: Group = {
  name: "Uploads",
  cases: [
    {
      name: "Half a body at the signal is read to its end, and answered",
      origin: "hyper; probe",
      run: Effect.fnUntraced(function* (server) {
        const { peer, rest } = yield* upload(server.port, "/upload", body)
        yield* server.began("/upload")
        yield* server.signal()
        rest()
        yield* answered(peer, `${body.length}`)
      })
    },
    {
      name: "Half a body over HTTPS is read to its end, and answered",
      origin: "probe",
      settings: { mode: "https" },
      knownToFail: ["http-graceful-shutdown"],
      because: "tracks the raw socket beside that of TLS, and takes it for idle",
      run: Effect.fnUntraced(function* (server) {
        const { peer, rest } = yield* upload(server.port, "/upload", body, { tls: true })
        yield* server.began("/upload")
        yield* server.signal()
        yield* Effect.sleep(100)
        rest()
        yield* answered(peer, `${body.length}`)
      })
    },
    {
      name: "A body that waits for 100 Continue is asked for, read and answered",
      origin: "Node",
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* connect(server.port)
        peer.send(
          `POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${body.length}\r\nExpect: 100-continue\r\n\r\n`
        )
        const head = yield* within(3000, "it asks for the body")(peer.response)
        yield* expect(head.status === 100, `it answered ${head.status}`)
        yield* server.signal()
        peer.send(body)
        yield* answered(peer, `${body.length}`)
      })
    },
    {
      name: "A client that resets in the middle of its body is not waited for",
      origin: "Node",
      run: Effect.fnUntraced(function* (server) {
        const { peer } = yield* upload(server.port, "/upload", body)
        yield* server.began("/upload")
        yield* server.signal()
        peer.socket.resetAndDestroy()
        yield* server.endsCleanly()
      })
    }
  ]
}

export const streams: Group = {
  name: "Event streams",
  cases: [
    {
      name: "An event stream ends whole and soon, so that its client reconnects elsewhere",
      origin: "no suite; fastify/sse #57, nest #9517",
      knownToFail: [
        "node:http",
        "NodeHttpServer",
        "http-terminator",
        "stoppable",
        "terminus",
        "http-graceful-shutdown",
        "fastify",
        "close-with-grace"
      ],
      because: "does not know that such a response has no end of its own, and waits for it, or cuts it",
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* inFlight(server, "/sse")
        yield* within(3000, "the stream begins")(peer.body(20))
        yield* server.signal()
        yield* answer(peer, 3000)
        yield* server.endsCleanly()
      })
    },
    {
      name: "At the limit an event stream does not hold the process",
      origin: "no suite; nest #9517",
      settings: { grace: 1500 },
      knownToFail: ["node:http", "fastify"],
      because: "has no limit",
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* inFlight(server, "/sse")
        yield* within(3000, "the stream begins")(peer.body(20))
        yield* server.signal()
        yield* server.ends(5000)
      })
    }
  ]
}
