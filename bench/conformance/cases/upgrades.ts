/** Connections that have left HTTP: WebSockets, other upgrades, tunnels. */
import { Effect } from "effect"
import { deafWebSocket, tunnel, upgrade, webSocket, webSocketHead } from "../../../test/support/peers.ts"
import { answer, type Group, kept } from "../case.ts"
import { expect, soon, within } from "../server.ts"

const forgets = "Node forgets a connection that was upgraded, and nobody else closes it"
const destroys = "destroys the connection without a word"
const whoDestroys = ["http-terminator", "stoppable", "terminus", "http-graceful-shutdown"]
const whoForgets = ["node:http", "fastify", "close-with-grace"]

export const upgrades: Group = {
  name: "WebSockets, upgrades, tunnels",
  cases: [
    {
      name: "A WebSocket is closed with 1001, so that its client reconnects",
      origin: "no suite; ws #2268, Bandit",
      knownToFail: [...whoForgets, ...whoDestroys, "NodeHttpServer"],
      because: `${forgets}; or ${destroys}: 1006. NodeHttpServer does so when its limit is over`,
      run: Effect.fnUntraced(function* (server) {
        const socket = yield* webSocket(server.port, "/ws")
        socket.send("hello")
        yield* within(3000, "the echo comes")(socket.message)
        yield* server.signal()
        const { code } = yield* within(soon, "the WebSocket closes")(socket.closed)
        yield* expect(code === 1001, `it was closed with ${code}`)
        yield* server.endsCleanly()
      })
    },
    {
      name: "A WebSocket over HTTPS is closed with 1001",
      origin: "no suite",
      settings: { mode: "https" },
      knownToFail: [...whoForgets, ...whoDestroys, "NodeHttpServer"],
      because: "as above",
      run: Effect.fnUntraced(function* (server) {
        const socket = yield* webSocket(server.port, "/ws", { tls: true })
        yield* server.signal()
        const { code } = yield* within(soon, "the WebSocket closes")(socket.closed)
        yield* expect(code === 1001, `it was closed with ${code}`)
        yield* server.endsCleanly()
      })
    },
    {
      name: "A WebSocket whose peer never answers the close does not hold the process",
      origin: "no suite; probe",
      knownToFail: [...whoForgets, "NodeHttpServer", "stoppable", "terminus"],
      because: forgets,
      run: Effect.fnUntraced(function* (server) {
        yield* deafWebSocket(server.port, "/ws")
        yield* server.signal()
        yield* server.endsCleanly()
      })
    },
    {
      name: "A connection upgraded to another protocol does not hold the process",
      origin: "nodejs/node #53536, hyper",
      needs: ["raw"],
      knownToFail: whoForgets,
      because: forgets,
      run: Effect.fnUntraced(function* (server) {
        yield* upgrade(server.port, "/raw", "echo")
        yield* server.signal()
        yield* server.endsCleanly()
      })
    },
    {
      name: "What an upgraded connection sends right after the signal gets its answer",
      origin: "no suite",
      hurried: true,
      needs: ["raw"],
      knownToFail: whoDestroys,
      because: destroys,
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* upgrade(server.port, "/raw", "echo")
        yield* server.signal()
        yield* Effect.sleep(100)
        peer.send("hello")
        yield* within(4000, "the echo comes")(peer.raw(5))
      })
    },
    {
      name: "A WebSocket that is asked for a moment after the signal, on a connection in use, is refused or let go properly",
      origin: "ws; Go net/http",
      hurried: true,
      knownToFail: [...whoForgets, ...whoDestroys, "NodeHttpServer"],
      because: "closes connections that look idle at once, with the request on its way, or cuts the WebSocket",
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* kept(server)
        yield* server.signal()
        peer.get("/ws", webSocketHead)
        const { status } = yield* answer(peer)
        yield* expect(status === 101 || status >= 400, `the answer was ${status}`)
        if (status === 101) {
          const told = yield* within(soon, "it is told to go")(peer.raw(4))
          // A close frame with two bytes: 1001.
          yield* expect(told.equals(Buffer.from([0x88, 0x02, 0x03, 0xe9])), `it was sent ${told.toString("hex")}`)
          peer.socket.destroy()
        }
        yield* server.endsCleanly()
      })
    },
    {
      name: "A CONNECT tunnel does not hold the process",
      origin: "nodejs/node #53536; probe",
      needs: ["raw"],
      knownToFail: whoForgets,
      because: forgets,
      run: Effect.fnUntraced(function* (server) {
        yield* tunnel(server.port)
        yield* server.signal()
        yield* server.endsCleanly()
      })
    }
  ]
}
