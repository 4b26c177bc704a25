/** The time before a stop in which everything is still served, and probes. */
import { Effect, Fiber } from "effect"
import { get as httpGet } from "node:http"
import { answered, type Group, inFlight, kept, saysClose } from "../case.ts"
import { expect, within } from "../server.ts"

/** The status of a path, on a connection of its own. */
const statusOf = (port: number, path: string): Effect.Effect<number> =>
  within(
    2000,
    `${path} answers`
  )(
    Effect.callback<number>((resume) => {
      httpGet({ port, path, host: "127.0.0.1", agent: false }, (response) => {
        response.resume()
        resume(Effect.succeed(response.statusCode ?? 0))
      }).on("error", () => resume(Effect.succeed(0)))
    })
  )

/** Probes have a listener of their own, or are on the only one. */
const probesOf = Effect.fnUntraced(function* (server: Parameters<Group["cases"][number]["run"]>[0]) {
  return server.subject.features.includes("probes") ? yield* server.portOf("health") : server.port
})

const duck = { lameDuck: 2500 } as const

export const lameDuck: Group = {
  name: "Lame duck and probes",
  cases: [
    {
      name: "While it waits for a balancer to look away new connections are served",
      origin: "terminus, lightship, hapi",
      settings: duck,
      needs: ["delay"],
      run: Effect.fnUntraced(function* (server) {
        yield* server.signal()
        yield* kept(server)
        yield* server.endsCleanly(duck.lameDuck + 3000)
      })
    },
    {
      name: "While it waits for a balancer every response says Connection: close",
      origin: "hapi, HAProxy, Envoy",
      settings: duck,
      needs: ["delay"],
      knownToFail: ["terminus", "http-graceful-shutdown"],
      because: "says so only once it has begun to close",
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* kept(server)
        yield* server.signal()
        peer.get("/quick")
        yield* saysClose(yield* answered(peer, "quick"))
      })
    },
    {
      name: "Readiness answers 200 before the signal and 503 after it",
      origin: "terminus, lightship, Spring",
      settings: duck,
      needs: ["readiness"],
      run: Effect.fnUntraced(function* (server) {
        const port = yield* probesOf(server)
        yield* expect((yield* statusOf(port, "/readyz")) === 200, "it was not ready")
        yield* server.signal()
        const status = yield* statusOf(port, "/readyz")
        yield* expect(status === 503, `it answered ${status}`)
      })
    },
    {
      name: "Liveness answers 200 as long as a request drains",
      origin: "lightship, Spring",
      settings: { lameDuck: 100 },
      needs: ["probes"],
      run: Effect.fnUntraced(function* (server) {
        const port = yield* server.portOf("health")
        const peer = yield* inFlight(server, "/slow?ms=2500")
        const response = yield* Effect.forkChild(answered(peer, "slow"))
        yield* server.signal()
        yield* server.refusesBefore(Fiber.join(response))
        const status = yield* statusOf(port, "/livez")
        yield* expect(status === 200, `it answered ${status}`)
        yield* Fiber.join(response)
        yield* server.endsCleanly()
      })
    }
  ]
}
